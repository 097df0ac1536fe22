/* SPDX-License-Identifier: Apache-2.0 */
/* split_pool.c: pools, by rows of pixels. */
#include "common/graph/split_rows.h"

typedef struct pool_call {
    void (*run_f32)(const terse_pool_f32_args *args); /* one of the two; also with BF16 behind the pointers */
    void (*run_u8)(const terse_pool_u8_args *args);
    const void *args;
    bool is_bf16;
    split_slide slide;
    split_rows rows;
} pool_call;

/* Where the padded data ends must stay: the divisor of an average may count up to there. */
#define NARROW_POOL(args, call, piece)                                                                                 \
    do {                                                                                                               \
        const int axis_of_rows = (call)->rows.axis;                                                                    \
        if ((piece)->last > 0)                                                                                         \
            (args)->pad_end[axis_of_rows] += (args)->in[axis_of_rows] - (piece)->in_from - (piece)->in_rows;           \
        SPLIT_NARROW(args, &(call)->rows, piece);                                                                      \
        (args)->output += split_output_offset(&(call)->rows, piece) * (args)->out_stride;                              \
    } while (0)

static const float *skip_bf16(const float *p, int64_t n)
{
    return (const float *)(const void *)((const uint16_t *)(const void *)p + n);
}

/* NARROW_POOL moves pointers of floats; what lies behind these is half as large. */
static void narrow_bf16(terse_pool_f32_args *args, const pool_call *call, const split_piece *piece)
{
    const float *input = skip_bf16(args->input, split_input_offset(&call->rows, piece) * args->in_stride);
    const float *output = skip_bf16(args->output, split_output_offset(&call->rows, piece) * args->out_stride);
    NARROW_POOL(args, call, piece);
    args->input = input;
    args->output = (float *)(uintptr_t)output;
}

static void run_range(void *context, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const pool_call *call = context;
    split_piece pieces[3];
    const int n = split_pieces_of(&call->slide, &call->rows, first, last, pieces);
    for (int i = 0; i < n; i++)
        if (call->run_f32) {
            terse_pool_f32_args args = *(const terse_pool_f32_args *)call->args;
            if (call->is_bf16)
                narrow_bf16(&args, call, &pieces[i]);
            else
                NARROW_POOL(&args, call, &pieces[i]);
            call->run_f32(&args);
        } else {
            terse_pool_u8_args args = *(const terse_pool_u8_args *)call->args;
            NARROW_POOL(&args, call, &pieces[i]);
            call->run_u8(&args);
        }
}

/* Taps count as the multiplications of a product, by the bytes that they read. */
static void spread_pool(pool_call *call, int64_t channels, int64_t bytes)
{
    const terse_split *split = terse_split_current();
    split_find_rows(&call->slide, &call->rows);
    const int64_t units = call->slide.n * call->rows.rows;
    const double taps =
        (double)(call->slide.n * call->rows.pixels_out * channels * bytes) * (double)split_pixels(call->slide.kernel);
    const int64_t parts = terse_split_parts(split, taps * 4);
    terse_split_spread(split, units, 1, parts, run_range, call);
}

static void pool_f32(const terse_pool_f32_args *args, void (*run)(const terse_pool_f32_args *args))
{
    pool_call call = {.run_f32 = run, .args = args};
    SPLIT_SLIDE_OF(&call.slide, args);
    spread_pool(&call, args->channels, 4);
}

static void pool_bf16(const terse_pool_f32_args *args, void (*run)(const terse_pool_f32_args *args))
{
    pool_call call = {.run_f32 = run, .args = args, .is_bf16 = true};
    SPLIT_SLIDE_OF(&call.slide, args);
    spread_pool(&call, args->channels, 2);
}

static void pool_u8(const terse_pool_u8_args *args, void (*run)(const terse_pool_u8_args *args))
{
    pool_call call = {.run_u8 = run, .args = args};
    SPLIT_SLIDE_OF(&call.slide, args);
    spread_pool(&call, args->channels, 1);
}

static void max_pool_f32(const terse_pool_f32_args *args)
{
    pool_f32(args, terse_split_current()->base->max_pool_f32);
}

static void average_pool_f32(const terse_pool_f32_args *args)
{
    pool_f32(args, terse_split_current()->base->average_pool_f32);
}

static void max_pool_bf16(const terse_pool_f32_args *args)
{
    pool_bf16(args, terse_split_current()->base->max_pool_bf16);
}

static void average_pool_bf16(const terse_pool_f32_args *args)
{
    pool_bf16(args, terse_split_current()->base->average_pool_bf16);
}

static void max_pool_u8(const terse_pool_u8_args *args)
{
    pool_u8(args, terse_split_current()->base->max_pool_u8);
}

static void average_pool_u8(const terse_pool_u8_args *args)
{
    pool_u8(args, terse_split_current()->base->average_pool_u8);
}

void terse_split_pools(terse_kernels *table)
{
    TERSE_SPLIT_REPLACE(table, max_pool_f32);
    TERSE_SPLIT_REPLACE(table, average_pool_f32);
    TERSE_SPLIT_REPLACE(table, max_pool_bf16);
    TERSE_SPLIT_REPLACE(table, average_pool_bf16);
    TERSE_SPLIT_REPLACE(table, max_pool_u8);
    TERSE_SPLIT_REPLACE(table, average_pool_u8);
}
