/* SPDX-License-Identifier: Apache-2.0 */
/* split.c: the table, who uses it, ranges; and what goes element by element. */
#include "common/graph/split_parts.h"

#include <stddef.h>

/* Kernels are plain functions without a context: the one they work for is the thread's. */
static _Thread_local const terse_split *current;

const terse_split *terse_split_enter(const terse_split *split)
{
    const terse_split *before = current;
    current = split;
    return before;
}

const terse_split *terse_split_current(void)
{
    return current;
}

void terse_split_init(terse_split *split, const terse_kernels *base, terse_threads *threads, int n)
{
    const int most = terse_threads_count(threads);
    *split = (terse_split){.table = *base, .base = base, .threads = threads, .n = n < most ? n : most};
    terse_split_products(&split->table);
    terse_split_convolutions(&split->table);
    terse_split_pools(&split->table);
    terse_split_elements(&split->table);
}

/* --- ranges -------------------------------------------------------------------------------------------------- */

/* Below the first it is not worth waking anybody; a part of the second is worth being taken by itself. */
#define LEAST_MACS 300e3
#define PART_MACS 3e6

int64_t terse_split_parts(const terse_split *split, double macs)
{
    if (macs < LEAST_MACS)
        return 1;
    const double each = macs / PART_MACS / split->n;
    return split->n * (each > 4 ? 4 : each > 1 ? (int64_t)each : 1);
}

typedef struct spread {
    int64_t units, align, parts;
    terse_split_piece *run;
    void *context;
} spread;

/* Fewer parts where there are not as many blocks. */
static int64_t parts_of(int64_t units, int64_t align, int64_t parts)
{
    const int64_t blocks = (units + align - 1) / align;
    parts = parts < blocks ? parts : blocks;
    return parts < 1 ? 1 : parts > 4095 ? 4095 : parts;
}

void terse_split_part(int64_t units, int64_t align, int64_t parts, int64_t index, int64_t *ret_first, int64_t *ret_last)
{
    parts = parts_of(units, align, parts);
    const int64_t blocks = (units + align - 1) / align, each = blocks / parts, more = blocks % parts;
    const int64_t first = (each * index + (index < more ? index : more)) * align;
    const int64_t last = first + (each + (index < more)) * align;
    *ret_first = index < parts ? first : units;
    *ret_last = index < parts && last < units ? last : units;
}

static void run_part(void *context, int part, int thread)
{
    const spread *s = context;
    int64_t first, last;
    terse_split_part(s->units, s->align, s->parts, part, &first, &last);
    if (first < last)
        s->run(s->context, first, last, thread);
}

void terse_split_spread(const terse_split *split, int64_t units, int64_t align, int64_t parts_wanted,
                        terse_split_piece *run, void *context)
{
    spread s = {
        .units = units, .align = align, .parts = parts_of(units, align, parts_wanted), .run = run, .context = context};
    terse_threads_run(split->threads, split->n, (int)s.parts, run_part, &s);
}

typedef struct loop {
    const terse_kernels *kernels;
    terse_split_range *run;
    void *context;
} loop;

static void run_range(void *context, int64_t first, int64_t last, int thread)
{
    const loop *l = context;
    l->run(l->context, l->kernels, first, last, thread);
}

int terse_split_threads(const terse_kernels *kernels)
{
    return current && kernels == &current->table ? current->n : 1;
}

void terse_split_for(const terse_kernels *kernels, int64_t count, int64_t grain, terse_split_range *run, void *context)
{
    if (terse_split_threads(kernels) == 1) {
        if (count > 0)
            run(context, current && kernels == &current->table ? current->base : kernels, 0, count, 0);
        return;
    }
    grain = grain > 1 ? grain : 1;
    loop l = {.kernels = current->base, .run = run, .context = context};
    terse_split_spread(current, count, grain, (int64_t)2 * current->n, run_range, &l);
}

/* --- element by element -------------------------------------------------------------------------------------- */

enum { ELEMENTS = 16384 }; /* of a range at least */

static void spread_elements(int64_t n, terse_split_piece *run, void *context)
{
    if (n < 2 * ELEMENTS)
        run(context, 0, n, 0);
    else
        terse_split_spread(current, n, ELEMENTS, (int64_t)2 * current->n, run, context);
}

typedef struct unary_call {
    void (*kernel)(const float *x, float *y, int64_t n);
    const float *x;
    float *y;
} unary_call;

static void run_unary(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const unary_call *c = context;
    c->kernel(c->x + first, c->y + first, last - first);
}

#define UNARY(name)                                                                                                    \
    static void name(const float *x, float *y, int64_t n)                                                              \
    {                                                                                                                  \
        unary_call call = {current->base->name, x, y};                                                                 \
        spread_elements(n, run_unary, &call);                                                                          \
    }
UNARY(exp_f32)
UNARY(erf_f32)
UNARY(tanh_f32)
UNARY(sigmoid_f32)

typedef struct activate_call {
    const terse_kernels *base;
    const float *x;
    float *y;
    terse_activation activation;
} activate_call;

static void run_activate(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const activate_call *c = context;
    c->base->activate_f32(c->x + first, c->y + first, last - first, c->activation);
}

static void activate_f32(const float *x, float *y, int64_t n, terse_activation activation)
{
    activate_call call = {current->base, x, y, activation};
    spread_elements(n, run_activate, &call);
}

typedef struct binary_call {
    void (*kernel)(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n);
    const float *a, *b;
    int64_t stride_a, stride_b;
    float *y;
} binary_call;

static void run_binary(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const binary_call *c = context;
    c->kernel(c->a + first * c->stride_a, c->stride_a, c->b + first * c->stride_b, c->stride_b, c->y + first,
              last - first);
}

#define BINARY(name)                                                                                                   \
    static void name(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n)          \
    {                                                                                                                  \
        binary_call call = {current->base->name, a, b, stride_a, stride_b, y};                                         \
        spread_elements(n, run_binary, &call);                                                                         \
    }
BINARY(add_f32)
BINARY(sub_f32)
BINARY(mul_f32)
BINARY(div_f32)

typedef struct bytes_call {
    const terse_kernels *base;
    void (*kernel)(const terse_binary_u8_args *args);
    const terse_binary_u8_args *args;
    const void *x;
    void *y;
    const uint8_t *table;
    void (*quantize)(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n);
    float scale;
    int32_t zero_point;
} bytes_call;

static void run_binary_u8(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const bytes_call *c = context;
    terse_binary_u8_args args = *c->args;
    args.a += first * args.stride_a;
    args.b += first * args.stride_b;
    args.y += first;
    args.n = last - first;
    c->kernel(&args);
}

static void add_u8(const terse_binary_u8_args *args)
{
    spread_elements(args->n, run_binary_u8, &(bytes_call){.kernel = current->base->add_u8, .args = args});
}

static void mul_u8(const terse_binary_u8_args *args)
{
    spread_elements(args->n, run_binary_u8, &(bytes_call){.kernel = current->base->mul_u8, .args = args});
}

static void run_table(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const bytes_call *c = context;
    c->base->table_u8((const uint8_t *)c->x + first, c->table, (uint8_t *)c->y + first, last - first);
}

static void table_u8(const uint8_t *x, const uint8_t table[256], uint8_t *y, int64_t n)
{
    spread_elements(n, run_table, &(bytes_call){.base = current->base, .x = x, .y = y, .table = table});
}

static void run_quantize(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const bytes_call *c = context;
    c->quantize((const float *)c->x + first, c->scale, c->zero_point, (uint8_t *)c->y + first, last - first);
}

static void quantize_u8(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n)
{
    bytes_call call = {
        .quantize = current->base->quantize_u8, .x = x, .y = y, .scale = scale, .zero_point = zero_point};
    spread_elements(n, run_quantize, &call);
}

static void quantize_float_u8(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n)
{
    bytes_call call = {
        .quantize = current->base->quantize_float_u8, .x = x, .y = y, .scale = scale, .zero_point = zero_point};
    spread_elements(n, run_quantize, &call);
}

static void run_dequantize(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const bytes_call *c = context;
    c->base->dequantize_u8((const uint8_t *)c->x + first, c->scale, c->zero_point, (float *)c->y + first, last - first);
}

static void dequantize_u8(const uint8_t *x, float scale, int32_t zero_point, float *y, int64_t n)
{
    spread_elements(n, run_dequantize,
                    &(bytes_call){.base = current->base, .x = x, .y = y, .scale = scale, .zero_point = zero_point});
}

typedef struct half_call {
    const terse_kernels *base;
    const float *x;
    uint16_t *y;
    int64_t x_stride, n;
} half_call;

static void run_half(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const half_call *c = context;
    c->base->f32_rows_to_bf16(c->x + first * c->x_stride, c->x_stride, last - first, c->n,
                              c->y + first * (c->n + c->n % 2));
}

static void f32_rows_to_bf16(const float *x, int64_t x_stride, int64_t rows, int64_t n, uint16_t *y)
{
    half_call call = {.base = current->base, .x = x, .y = y, .x_stride = x_stride, .n = n};
    const int64_t grain = ELEMENTS / (n > 0 ? n : 1) + 1;
    if (rows < 2 * grain)
        run_half(&call, 0, rows, 0);
    else
        terse_split_spread(current, rows, grain, (int64_t)2 * current->n, run_half, &call);
}

void terse_split_elements(terse_kernels *table)
{
    TERSE_SPLIT_REPLACE(table, exp_f32);
    TERSE_SPLIT_REPLACE(table, erf_f32);
    TERSE_SPLIT_REPLACE(table, tanh_f32);
    TERSE_SPLIT_REPLACE(table, sigmoid_f32);
    TERSE_SPLIT_REPLACE(table, activate_f32);
    TERSE_SPLIT_REPLACE(table, add_f32);
    TERSE_SPLIT_REPLACE(table, sub_f32);
    TERSE_SPLIT_REPLACE(table, mul_f32);
    TERSE_SPLIT_REPLACE(table, div_f32);
    TERSE_SPLIT_REPLACE(table, add_u8);
    TERSE_SPLIT_REPLACE(table, mul_u8);
    TERSE_SPLIT_REPLACE(table, table_u8);
    TERSE_SPLIT_REPLACE(table, quantize_u8);
    TERSE_SPLIT_REPLACE(table, quantize_float_u8);
    TERSE_SPLIT_REPLACE(table, dequantize_u8);
    TERSE_SPLIT_REPLACE(table, f32_rows_to_bf16);
}
