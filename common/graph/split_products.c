/* SPDX-License-Identifier: Apache-2.0 */
/* split_products.c: matrix products. A piece is some rows and all columns, or all rows and some columns: whole panels
 * of 16, in which every layout of B is contiguous. With columns a thread reads its share of B only, with rows its share
 * of A: the larger operand is the one to share. */
#include "common/graph/split_parts.h"

typedef struct cut {
    bool columns;
    int64_t units, align;
} cut;

/* Rows go by 12, what the tiles of most tiers divide; columns by 64 or, where there are few, by panels. */
static cut choose(const terse_split *split, int64_t m, int64_t n)
{
    const int64_t threads = split->n;
    if (m >= 12 * threads && (m >= n || n < 32 * threads))
        return (cut){false, m, 12};
    if (n >= 32)
        return (cut){true, n, n >= 64 * threads ? 64 : 16};
    return (cut){false, m, m >= 4 * threads ? 4 : 1};
}

static double macs_of(int64_t m, int64_t n, int64_t k)
{
    return (double)m * (double)n * (double)k;
}

typedef struct product {
    const terse_split *split;
    const void *args;
    bool columns;
} product;

static void spread_product(const void *args, int64_t m, int64_t n, int64_t k, terse_split_piece *run)
{
    const terse_split *split = terse_split_current();
    const int64_t parts = terse_split_parts(split, macs_of(m, n, k));
    const cut c = parts > 1 ? choose(split, m, n) : (cut){false, m, m > 0 ? m : 1};
    product p = {.split = split, .args = args, .columns = c.columns};
    terse_split_spread(split, c.units, c.align, parts, run, &p);
}

static const float *from(const float *data, int64_t offset)
{
    return data ? data + offset : NULL;
}

static void run_f32(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const product *p = context;
    terse_gemm_f32_args args = *(const terse_gemm_f32_args *)p->args;
    if (p->columns) {
        args.n = last - first;
        args.b += first * args.k;
        args.c += first;
        args.bias = from(args.bias, first);
        args.residual = from(args.residual, first);
    } else {
        args.m = last - first;
        args.a += first * args.lda;
        args.c += first * args.ldc;
        args.residual = from(args.residual, first * args.ldr);
    }
    p->split->base->gemm_f32(&args);
}

static void gemm_f32(const terse_gemm_f32_args *args)
{
    spread_product(args, args->m, args->n, args->k, run_f32);
}

static void run_f32s8(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const product *p = context;
    terse_gemm_f32s8_args args = *(const terse_gemm_f32s8_args *)p->args;
    if (p->columns) {
        args.n = last - first;
        args.b += first * args.k;
        args.scale += first;
        args.c += first;
        args.bias = from(args.bias, first);
        args.residual = from(args.residual, first);
    } else {
        args.m = last - first;
        args.a += first * args.lda;
        args.c += first * args.ldc;
        args.residual = from(args.residual, first * args.ldr);
    }
    p->split->base->gemm_f32s8(&args);
}

static void gemm_f32s8(const terse_gemm_f32s8_args *args)
{
    spread_product(args, args->m, args->n, args->k, run_f32s8);
}

/* Every thread makes bytes of the rows of A in scratch of its own. */
static void run_f32s4(void *context, int64_t first, int64_t last, int thread)
{
    const product *p = context;
    terse_gemm_f32s4_args args = *(const terse_gemm_f32s4_args *)p->args;
    args.scratch = (char *)args.scratch + (size_t)thread * terse_gemm_f32s4_scratch(args.k, args.group);
    if (p->columns) {
        args.n = last - first;
        args.b += first / 16 * ((args.k + 7) / 8) * 64;
        args.scale += first / 16 * ((args.k + args.group - 1) / args.group) * 16;
        args.c += first;
        args.bias = from(args.bias, first);
        args.residual = from(args.residual, first);
    } else {
        args.m = last - first;
        args.a += first * args.lda;
        args.c += first * args.ldc;
        args.residual = from(args.residual, first * args.ldr);
    }
    p->split->base->gemm_f32s4(&args);
}

static void gemm_f32s4(const terse_gemm_f32s4_args *args)
{
    spread_product(args, args->m, args->n, args->k, run_f32s4);
}

static void run_bf16(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const product *p = context;
    terse_gemm_bf16_args args = *(const terse_gemm_bf16_args *)p->args;
    const size_t size = args.wide ? 4 : 2;
    if (p->columns) {
        args.n = last - first;
        args.b += first * args.k;
        args.bias = from(args.bias, first);
    } else {
        args.m = last - first;
        args.a += first * args.lda;
    }
    args.c = (char *)args.c + (size_t)(p->columns ? first : first * args.ldc) * size;
    if (args.residual)
        args.residual = (const char *)args.residual + (size_t)(p->columns ? first : first * args.ldr) * size;
    p->split->base->gemm_bf16(&args);
}

static void gemm_bf16(const terse_gemm_bf16_args *args)
{
    spread_product(args, args->m, args->n, args->k, run_bf16);
}

size_t terse_split_sum_bytes(const terse_requantize *requantize)
{
    return requantize->to == TERSE_SUMS_TO_U8 ? 1 : 4;
}

void terse_split_requantize_columns(terse_requantize *requantize, int64_t first)
{
    requantize->bias = requantize->bias ? requantize->bias + first : NULL;
    requantize->multiplier = from(requantize->multiplier, first);
    requantize->multiplier_low = from(requantize->multiplier_low, first);
    requantize->bias_f32 = from(requantize->bias_f32, first);
    requantize->residual = requantize->residual ? requantize->residual + first : NULL;
    requantize->residual_f32 = from(requantize->residual_f32, first);
}

void terse_split_requantize_rows(terse_requantize *requantize, int64_t first)
{
    const int64_t offset = first * requantize->residual_stride;
    requantize->residual = requantize->residual ? requantize->residual + offset : NULL;
    requantize->residual_f32 = from(requantize->residual_f32, offset);
}

static void run_u8s8(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const product *p = context;
    terse_gemm_u8s8_args args = *(const terse_gemm_u8s8_args *)p->args;
    const size_t size = terse_split_sum_bytes(&args.requantize);
    if (p->columns) {
        args.n = last - first;
        args.b += first * ((args.k + 3) / 4 * 4);
        args.c = (char *)args.c + (size_t)first * size;
        terse_split_requantize_columns(&args.requantize, first);
    } else {
        args.m = last - first;
        args.a += first * args.lda;
        args.c = (char *)args.c + (size_t)(first * args.ldc) * size;
        terse_split_requantize_rows(&args.requantize, first);
    }
    p->split->base->gemm_u8s8(&args);
}

static void gemm_u8s8(const terse_gemm_u8s8_args *args)
{
    spread_product(args, args->m, args->n, args->k, run_u8s8);
}

void terse_split_products(terse_kernels *table)
{
    TERSE_SPLIT_REPLACE(table, gemm_f32);
    TERSE_SPLIT_REPLACE(table, gemm_f32s8);
    TERSE_SPLIT_REPLACE(table, gemm_f32s4);
    TERSE_SPLIT_REPLACE(table, gemm_u8s8);
    TERSE_SPLIT_REPLACE(table, gemm_bf16);
}
