/* SPDX-License-Identifier: Apache-2.0 */
/* split_conv.c: convolutions, by rows of pixels, or by filters where the weights are larger than the image. */
#include "common/graph/split_rows.h"

typedef struct conv_call conv_call;

/* One kernel: exactly one pair is set. */
typedef struct conv_kernel {
    void (*run_f32)(const terse_conv_f32_args *args);
    size_t (*scratch_f32)(const terse_conv_f32_args *args);
    void (*run_u8)(const terse_conv_u8s8_args *args);
    size_t (*scratch_u8)(const terse_conv_u8s8_args *args);
    void (*run_sparse_f32)(const terse_sparse_f32_args *args);
    size_t (*scratch_sparse_f32)(const terse_sparse_f32_args *args);
    void (*run_sparse_u8)(const terse_sparse_u8s8_args *args);
    size_t (*scratch_sparse_u8)(const terse_sparse_u8s8_args *args);
    void (*run_bf16)(const terse_conv_bf16_args *args);
    size_t (*scratch_bf16)(const terse_conv_bf16_args *args); /* or NULL: none */
    bool is_f32, has_sparse;
    bool has_columns; /* its weights can be cut by panels of filters */
    int64_t align;    /* rows that must stay together */
} conv_kernel;

struct conv_call {
    conv_kernel kernel;
    terse_conv_f32_args f32;
    terse_conv_u8s8_args u8;
    terse_conv_bf16_args bf16;
    terse_sparse sparse; /* the weights of a sparse kernel */
    split_slide slide;
    split_rows rows;
    bool columns;
    int64_t parts, units, align;
    size_t share; /* of the scratch: each thread's */
    char *scratch;
};

static void columns_f32(terse_conv_f32_args *args, int64_t first, int64_t last)
{
    args->filters = last - first;
    if (args->weights) /* sparse ones are elsewhere */
        args->weights += first * split_pixels(args->kernel) * args->channels;
    args->output += first;
    args->bias = args->bias ? args->bias + first : NULL;
    args->residual = args->residual ? args->residual + first : NULL;
}

static void rows_f32(terse_conv_f32_args *args, const split_rows *rows, const split_piece *p)
{
    SPLIT_NARROW(args, rows, p);
    args->output += split_output_offset(rows, p) * args->out_stride;
    if (args->residual)
        args->residual += split_output_offset(rows, p) * args->residual_stride;
}

/* A panel of S8_N16K4: rows of the kernel, each rounded up to four. */
static int64_t panel_bytes_u8(const terse_conv_u8s8_args *args)
{
    return args->kernel[0] * args->kernel[1] * ((args->kernel[2] * args->channels + 3) / 4) * 64;
}

static void columns_u8(terse_conv_u8s8_args *args, int64_t first, int64_t last)
{
    args->filters = last - first;
    if (args->weights)
        args->weights += first / 16 * panel_bytes_u8(args);
    args->output = (char *)args->output + (size_t)first * terse_split_sum_bytes(&args->requantize);
    terse_split_requantize_columns(&args->requantize, first);
}

static void rows_u8(terse_conv_u8s8_args *args, const split_rows *rows, const split_piece *p)
{
    SPLIT_NARROW(args, rows, p);
    const int64_t offset = split_output_offset(rows, p);
    args->output =
        (char *)args->output + (size_t)(offset * args->out_stride) * terse_split_sum_bytes(&args->requantize);
    terse_split_requantize_rows(&args->requantize, offset);
}

/* Output and residual `n` elements on. */
static void results_bf16(terse_conv_bf16_args *args, int64_t output, int64_t residual)
{
    const int64_t size = args->wide ? 4 : 2;
    args->output = (char *)args->output + output * size;
    if (args->residual)
        args->residual = (const char *)args->residual + residual * size;
}

static void columns_bf16(terse_conv_bf16_args *args, int64_t first, int64_t last)
{
    args->filters = last - first;
    if (args->weights)
        args->weights = (const uint16_t *)args->weights + first * split_pixels(args->kernel) * args->channels;
    args->bias = args->bias ? args->bias + first : NULL;
    results_bf16(args, first, first);
}

static void rows_bf16(terse_conv_bf16_args *args, const split_rows *rows, const split_piece *p)
{
    SPLIT_NARROW(args, rows, p);
    const int64_t offset = split_output_offset(rows, p);
    results_bf16(args, offset * args->out_stride, offset * args->residual_stride);
}

/* Sparse weights from column `first` on. */
static terse_sparse sparse_from(const conv_call *call, int64_t first)
{
    terse_sparse s = call->sparse;
    s.starts = s.starts ? s.starts + first / TERSE_SPARSE_PANEL : NULL;
    return s;
}

/* Runs a piece, or tells how much scratch it needs when there is none to run with. */
static size_t do_f32(const conv_call *call, const terse_conv_f32_args *args, int64_t first, bool run)
{
    const conv_kernel *k = &call->kernel;
    if (k->run_sparse_f32) {
        const terse_sparse_f32_args sparse = {*args, sparse_from(call, first)};
        if (run)
            k->run_sparse_f32(&sparse);
        return run ? 0 : k->scratch_sparse_f32(&sparse);
    }
    if (run)
        call->kernel.run_f32(args);
    return run || !call->kernel.scratch_f32 ? 0 : call->kernel.scratch_f32(args);
}

static size_t do_u8(const conv_call *call, const terse_conv_u8s8_args *args, int64_t first, bool run)
{
    const conv_kernel *k = &call->kernel;
    if (k->run_sparse_u8) {
        const terse_sparse_u8s8_args sparse = {*args, sparse_from(call, first)};
        if (run)
            k->run_sparse_u8(&sparse);
        return run ? 0 : k->scratch_sparse_u8(&sparse);
    }
    if (run)
        call->kernel.run_u8(args);
    return run ? 0 : call->kernel.scratch_u8(args);
}

static size_t do_bf16(const conv_call *call, const terse_conv_bf16_args *args, bool run)
{
    if (run)
        call->kernel.run_bf16(args);
    return run || !call->kernel.scratch_bf16 ? 0 : call->kernel.scratch_bf16(args);
}

static size_t do_columns(const conv_call *call, int64_t first, int64_t last, char *scratch, bool run)
{
    if (call->kernel.is_f32) {
        terse_conv_f32_args args = call->f32;
        columns_f32(&args, first, last);
        args.scratch = scratch;
        return do_f32(call, &args, first, run);
    }
    if (call->kernel.run_bf16) {
        terse_conv_bf16_args args = call->bf16;
        columns_bf16(&args, first, last);
        args.scratch = scratch;
        return do_bf16(call, &args, run);
    }
    terse_conv_u8s8_args args = call->u8;
    columns_u8(&args, first, last);
    args.scratch = scratch;
    return do_u8(call, &args, first, run);
}

static size_t do_piece(const conv_call *call, const split_piece *piece, char *scratch, bool run)
{
    if (call->kernel.is_f32) {
        terse_conv_f32_args args = call->f32;
        rows_f32(&args, &call->rows, piece);
        args.scratch = scratch;
        return do_f32(call, &args, 0, run);
    }
    if (call->kernel.run_bf16) {
        terse_conv_bf16_args args = call->bf16;
        rows_bf16(&args, &call->rows, piece);
        args.scratch = scratch;
        return do_bf16(call, &args, run);
    }
    terse_conv_u8s8_args args = call->u8;
    rows_u8(&args, &call->rows, piece);
    args.scratch = scratch;
    return do_u8(call, &args, 0, run);
}

static size_t do_range(const conv_call *call, int64_t first, int64_t last, char *scratch, bool run)
{
    if (call->columns)
        return do_columns(call, first, last, scratch, run);
    split_piece pieces[3];
    const int n = split_pieces_of(&call->slide, &call->rows, first, last, pieces);
    size_t most = 0;
    for (int i = 0; i < n; i++) {
        const size_t bytes = do_piece(call, &pieces[i], scratch, run);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static void run_range(void *context, int64_t first, int64_t last, int thread)
{
    const conv_call *call = context;
    do_range(call, first, last, call->scratch ? call->scratch + (size_t)thread * call->share : NULL, true);
}

/* Decides how the call is cut: depends on its sizes alone, so that scratch planned is scratch enough. */
static void plan_call(conv_call *call, int64_t filters, int64_t groups, int64_t channels)
{
    const terse_split *split = terse_split_current();
    const int64_t images = call->slide.n, threads = split->n;
    split_find_rows(&call->slide, &call->rows);
    const int64_t align = call->kernel.align > 1 && call->rows.axis >= 0
                              ? call->kernel.align * call->slide.dilation[call->rows.axis]
                              : call->kernel.align;
    const int64_t units = images * call->rows.rows, pixels = images * call->rows.pixels_out;
    call->parts = terse_split_parts(split, (double)pixels * (double)filters *
                                               (double)(split_pixels(call->slide.kernel) * (channels / groups)));
    call->columns =
        call->kernel.has_columns && groups == 1 && filters >= 32 * threads && (filters > pixels || units < threads);
    call->units = call->columns ? filters : units;
    if (call->columns)
        call->align = filters >= 64 * threads ? 64 : call->kernel.has_sparse ? TERSE_SPARSE_PANEL : 16;
    else if (align > 1)
        call->align = images == 1 || call->rows.rows % align == 0 ? align : call->rows.rows;
    else /* single pixels go by as many as make a tile */
        call->align = call->rows.row_out == 1 && units >= 24 * threads ? 12 : 1;
    for (int64_t i = 0; i < call->parts && call->parts > 1; i++) {
        int64_t first, last;
        terse_split_part(call->units, call->align, call->parts, i, &first, &last);
        const size_t bytes = first < last ? do_range(call, first, last, NULL, false) : 0;
        call->share = bytes > call->share ? bytes : call->share;
    }
    call->share = (call->share + 63) / 64 * 64;
}

static void plan_f32(const terse_conv_f32_args *args, conv_kernel kernel, terse_sparse sparse, conv_call *call)
{
    *call = (conv_call){.kernel = kernel, .f32 = *args, .sparse = sparse, .scratch = args->scratch};
    SPLIT_SLIDE_OF(&call->slide, args);
    if (kernel.has_columns && split_is_pointwise(&call->slide)) {
        SPLIT_FLATTEN(&call->f32);
        SPLIT_SLIDE_OF(&call->slide, &call->f32);
    }
    plan_call(call, args->filters, args->groups, args->channels);
}

static void plan_u8(const terse_conv_u8s8_args *args, conv_kernel kernel, terse_sparse sparse, conv_call *call)
{
    *call = (conv_call){.kernel = kernel, .u8 = *args, .sparse = sparse, .scratch = args->scratch};
    SPLIT_SLIDE_OF(&call->slide, args);
    if (kernel.has_columns && split_is_pointwise(&call->slide)) {
        SPLIT_FLATTEN(&call->u8);
        SPLIT_SLIDE_OF(&call->slide, &call->u8);
    }
    plan_call(call, args->filters, args->groups, args->channels);
}

static void plan_bf16(const terse_conv_bf16_args *args, conv_kernel kernel, conv_call *call)
{
    *call = (conv_call){.kernel = kernel, .bf16 = *args, .scratch = args->scratch};
    SPLIT_SLIDE_OF(&call->slide, args);
    if (kernel.has_columns && split_is_pointwise(&call->slide)) {
        SPLIT_FLATTEN(&call->bf16);
        SPLIT_SLIDE_OF(&call->slide, &call->bf16);
    }
    plan_call(call, args->filters, kernel.has_columns ? 1 : args->channels, args->channels);
}

static void run_call(conv_call *call)
{
    terse_split_spread(terse_split_current(), call->units, call->align, call->parts, run_range, call);
}

static void convolve_f32(const terse_conv_f32_args *args, conv_kernel kernel, terse_sparse sparse)
{
    conv_call call;
    kernel.is_f32 = true;
    plan_f32(args, kernel, sparse, &call);
    if (call.parts > 1)
        run_call(&call);
    else
        do_f32(&call, args, 0, true);
}

static void convolve_u8(const terse_conv_u8s8_args *args, conv_kernel kernel, terse_sparse sparse)
{
    conv_call call;
    plan_u8(args, kernel, sparse, &call);
    if (call.parts > 1)
        run_call(&call);
    else
        do_u8(&call, args, 0, true);
}

static void convolve_bf16(const terse_conv_bf16_args *args, conv_kernel kernel)
{
    conv_call call;
    plan_bf16(args, kernel, &call);
    if (call.parts > 1)
        run_call(&call);
    else
        do_bf16(&call, args, true);
}

/* Enough for every thread, and for the call in one piece. */
static size_t scratch_for(const conv_call *call, size_t whole)
{
    const size_t shares = call->share * (size_t)terse_split_current()->n;
    return shares > whole ? shares : whole;
}

static size_t scratch_f32(const terse_conv_f32_args *args, conv_kernel kernel)
{
    conv_call call;
    kernel.is_f32 = true;
    plan_f32(args, kernel, (terse_sparse){0}, &call);
    return scratch_for(&call, do_f32(&call, args, 0, false));
}

static size_t scratch_u8(const terse_conv_u8s8_args *args, conv_kernel kernel)
{
    conv_call call;
    plan_u8(args, kernel, (terse_sparse){0}, &call);
    return scratch_for(&call, do_u8(&call, args, 0, false));
}

/* --- the table's fields -------------------------------------------------------------------------------------- */

#define BASE terse_split_current()->base
#define CONV_F32                                                                                                       \
    (conv_kernel)                                                                                                      \
    {                                                                                                                  \
        .run_f32 = BASE->conv_f32, .scratch_f32 = BASE->conv_f32_scratch, .has_columns = true, .align = 1              \
    }
/* Tiles of 4x4, which reach over so many times the dilation, must stay where they are. */
#define WINOGRAD                                                                                                       \
    (conv_kernel)                                                                                                      \
    {                                                                                                                  \
        .run_f32 = BASE->winograd_f32, .scratch_f32 = BASE->winograd_f32_scratch, .align = 4                           \
    }
#define CONV_U8                                                                                                        \
    (conv_kernel)                                                                                                      \
    {                                                                                                                  \
        .run_u8 = BASE->conv_u8s8, .scratch_u8 = BASE->conv_u8s8_scratch, .has_columns = true, .align = 1              \
    }
#define CONV_BF16                                                                                                      \
    (conv_kernel)                                                                                                      \
    {                                                                                                                  \
        .run_bf16 = BASE->conv_bf16, .scratch_bf16 = BASE->conv_bf16_scratch, .has_columns = true, .align = 1          \
    }
#define SPARSE_F32                                                                                                     \
    (conv_kernel)                                                                                                      \
    {                                                                                                                  \
        .run_sparse_f32 = BASE->sparse_f32, .scratch_sparse_f32 = BASE->sparse_f32_scratch, .has_columns = true,       \
        .has_sparse = true, .align = 1                                                                                 \
    }
#define SPARSE_U8                                                                                                      \
    (conv_kernel)                                                                                                      \
    {                                                                                                                  \
        .run_sparse_u8 = BASE->sparse_u8s8, .scratch_sparse_u8 = BASE->sparse_u8s8_scratch, .has_columns = true,       \
        .has_sparse = true, .align = 1                                                                                 \
    }
#define DW_U8                                                                                                          \
    (conv_kernel)                                                                                                      \
    {                                                                                                                  \
        .run_u8 = BASE->dwconv_u8s8, .scratch_u8 = BASE->dwconv_u8s8_scratch, .align = 1                               \
    }

static const terse_sparse dense;

static void conv_f32(const terse_conv_f32_args *args)
{
    convolve_f32(args, CONV_F32, dense);
}

static size_t conv_f32_scratch(const terse_conv_f32_args *args)
{
    return scratch_f32(args, CONV_F32);
}

static void dwconv_f32(const terse_conv_f32_args *args)
{
    convolve_f32(args, (conv_kernel){.run_f32 = BASE->dwconv_f32, .align = 1}, dense);
}

static void winograd_f32(const terse_conv_f32_args *args)
{
    convolve_f32(args, WINOGRAD, dense);
}

static size_t winograd_f32_scratch(const terse_conv_f32_args *args)
{
    return scratch_f32(args, WINOGRAD);
}

static void conv_bf16(const terse_conv_bf16_args *args)
{
    convolve_bf16(args, CONV_BF16);
}

static size_t conv_bf16_scratch(const terse_conv_bf16_args *args)
{
    conv_call call;
    plan_bf16(args, CONV_BF16, &call);
    return scratch_for(&call, do_bf16(&call, args, false));
}

static void dwconv_bf16(const terse_conv_bf16_args *args)
{
    convolve_bf16(args, (conv_kernel){.run_bf16 = BASE->dwconv_bf16, .align = 1});
}

static void conv_u8s8(const terse_conv_u8s8_args *args)
{
    convolve_u8(args, CONV_U8, dense);
}

static size_t conv_u8s8_scratch(const terse_conv_u8s8_args *args)
{
    return scratch_u8(args, CONV_U8);
}

static void dwconv_u8s8(const terse_conv_u8s8_args *args)
{
    convolve_u8(args, DW_U8, dense);
}

static size_t dwconv_u8s8_scratch(const terse_conv_u8s8_args *args)
{
    return scratch_u8(args, DW_U8);
}

static void sparse_f32(const terse_sparse_f32_args *args)
{
    convolve_f32(&args->conv, SPARSE_F32, args->weights);
}

static size_t sparse_f32_scratch(const terse_sparse_f32_args *args)
{
    return scratch_f32(&args->conv, SPARSE_F32);
}

static void sparse_u8s8(const terse_sparse_u8s8_args *args)
{
    convolve_u8(&args->conv, SPARSE_U8, args->weights);
}

static size_t sparse_u8s8_scratch(const terse_sparse_u8s8_args *args)
{
    return scratch_u8(&args->conv, SPARSE_U8);
}

void terse_split_convolutions(terse_kernels *table)
{
    TERSE_SPLIT_REPLACE(table, conv_f32);
    TERSE_SPLIT_REPLACE(table, conv_f32_scratch);
    TERSE_SPLIT_REPLACE(table, dwconv_f32);
    TERSE_SPLIT_REPLACE(table, winograd_f32);
    TERSE_SPLIT_REPLACE(table, winograd_f32_scratch);
    TERSE_SPLIT_REPLACE(table, conv_bf16);
    TERSE_SPLIT_REPLACE(table, conv_bf16_scratch);
    TERSE_SPLIT_REPLACE(table, dwconv_bf16);
    TERSE_SPLIT_REPLACE(table, conv_u8s8);
    TERSE_SPLIT_REPLACE(table, conv_u8s8_scratch);
    TERSE_SPLIT_REPLACE(table, dwconv_u8s8);
    TERSE_SPLIT_REPLACE(table, dwconv_u8s8_scratch);
    TERSE_SPLIT_REPLACE(table, sparse_f32);
    TERSE_SPLIT_REPLACE(table, sparse_f32_scratch);
    TERSE_SPLIT_REPLACE(table, sparse_u8s8);
    TERSE_SPLIT_REPLACE(table, sparse_u8s8_scratch);
}
