/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels cut into parts give the bits of the kernel in one piece, on every tier. */
#include "common/kernels/bf16.h"
#include "tests/unit/threads_case.h"

static terse_threads *threads;
static terse_split split;
static const terse_kernels *tier;

/* Bytes that end where the memory does, so that a sanitizer sees what reads too far. */
static void *fresh(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}

static uint8_t *random_bytes(int64_t n)
{
    uint8_t *p = fresh((size_t)n);
    for (int64_t i = 0; i < n; i++)
        p[i] = (uint8_t)(random_bits() >> 30);
    return p;
}

static float *random_floats(int64_t n)
{
    float *p = fresh((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        p[i] = (float)(int64_t)(random_bits() >> 40) / 8388608.0f - 1.0f;
    return p;
}

static int32_t *random_ints(int64_t n)
{
    int32_t *p = fresh((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        p[i] = (int32_t)random_in(-9999, 9999);
    return p;
}

/* The same call in one piece and in parts; canaries around and between the rows stay what they are. */
typedef struct outputs {
    uint8_t *want, *got;
    size_t bytes;
} outputs;

static outputs make_outputs(int64_t bytes)
{
    outputs o = {random_bytes(bytes), fresh((size_t)bytes), (size_t)bytes};
    memcpy(o.got, o.want, o.bytes);
    return o;
}

static void expect_same(outputs *o, const char *what)
{
    for (size_t i = 0; i < o->bytes; i++)
        if (o->want[i] != o->got[i])
            fail_msg("%s on %s with %d threads: byte %zu of %zu differs", what, tier->name, split.n, i, o->bytes);
    free(o->want);
    free(o->got);
}

static void gemm_f32_case(void)
{
    terse_gemm_f32_args args = {.m = random_in(1, 90), .n = random_in(1, 300), .k = random_in(1, 200)};
    if (random_in(0, 3) == 0)
        args.m = random_in(1, 4), args.n = random_in(400, 1500);
    args.lda = args.k + random_in(0, 3);
    args.ldc = args.n + random_in(0, 3);
    args.ldr = args.n + random_in(0, 3);
    float *a = random_floats(args.m * args.lda), *b = random_floats((args.n + 15) / 16 * 16 * args.k);
    float *bias = random_floats(args.n), *residual = random_floats(args.m * args.ldr);
    args.a = a;
    args.b = b;
    args.bias = random_in(0, 1) ? bias : NULL;
    args.residual = random_in(0, 1) ? residual : NULL;
    args.activation.kind = TERSE_ACT_NONE;
    outputs o = make_outputs(args.m * args.ldc * 4);
    args.c = (float *)(void *)o.want;
    tier->gemm_f32(&args);
    args.c = (float *)(void *)o.got;
    split.table.gemm_f32(&args);
    expect_same(&o, "gemm_f32");
    free(a), free(b), free(bias), free(residual);
}

static uint16_t *random_halves(int64_t n)
{
    uint16_t *p = fresh((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        p[i] = bf16_from((float)random_in(-9999, 9999) / 9999.0f);
    return p;
}

static void gemm_bf16_case(void)
{
    terse_gemm_bf16_args args = {.m = random_in(1, 90), .n = random_in(1, 300), .k = 2 * random_in(1, 100)};
    if (random_in(0, 3) == 0)
        args.m = random_in(1, 4), args.n = random_in(400, 1500);
    args.lda = args.k + 2 * random_in(0, 3);
    args.ldc = args.n + random_in(0, 3);
    args.ldr = args.n + random_in(0, 3);
    args.wide = random_in(0, 1);
    uint16_t *a = random_halves(args.m * args.lda), *b = random_halves((args.n + 15) / 16 * 16 * args.k);
    float *bias = random_floats(args.n), *wide = random_floats(args.m * args.ldr);
    uint16_t *narrow = random_halves(args.m * args.ldr);
    args.a = a;
    args.b = b;
    args.bias = random_in(0, 1) ? bias : NULL;
    args.residual = random_in(0, 1) ? NULL : args.wide ? (void *)wide : narrow;
    outputs o = make_outputs(args.m * args.ldc * 4);
    args.c = o.want;
    tier->gemm_bf16(&args);
    args.c = o.got;
    split.table.gemm_bf16(&args);
    expect_same(&o, "gemm_bf16");
    free(a), free(b), free(bias), free(wide), free(narrow);
}

static void gemm_small_case(bool four)
{
    const int64_t m = random_in(1, 40), n = random_in(1, 700), k = random_in(1, 200), group = 8 * random_in(1, 8);
    const int64_t panels = (n + 15) / 16, groups = (k + group - 1) / group;
    float *a = random_floats(m * k), *bias = random_floats(n), *scale = random_floats(panels * groups * 16);
    float *residual = random_floats(m * n);
    uint8_t *b = random_bytes(four ? panels * ((k + 7) / 8) * 64 : panels * 16 * k);
    outputs o = make_outputs(m * n * 4);
    void *scratch = aligned_alloc(64, (size_t)split.n * terse_gemm_f32s4_scratch(k, group));
    terse_gemm_f32s8_args s8 = {.m = m,
                                .n = n,
                                .k = k,
                                .a = a,
                                .lda = k,
                                .b = (int8_t *)b,
                                .scale = scale,
                                .ldc = n,
                                .bias = bias,
                                .residual = residual,
                                .ldr = n};
    terse_gemm_f32s4_args s4 = {.m = m,
                                .n = n,
                                .k = k,
                                .group = group,
                                .a = a,
                                .lda = k,
                                .b = b,
                                .scale = scale,
                                .ldc = n,
                                .bias = bias,
                                .residual = residual,
                                .ldr = n,
                                .scratch = scratch};
    s8.c = s4.c = (float *)(void *)o.want;
    four ? tier->gemm_f32s4(&s4) : tier->gemm_f32s8(&s8);
    s8.c = s4.c = (float *)(void *)o.got;
    four ? split.table.gemm_f32s4(&s4) : split.table.gemm_f32s8(&s8);
    expect_same(&o, four ? "gemm_f32s4" : "gemm_f32s8");
    free(a), free(bias), free(scale), free(residual), free(b), free(scratch);
}

typedef struct columns {
    int32_t *bias;
    float *multiplier, *low, *bias_f32, *residual_f32;
    uint8_t *residual;
} columns;

static terse_requantize random_requantize(int64_t rows, int64_t n, columns *c)
{
    const int64_t stride = n + random_in(0, 2);
    *c = (columns){random_ints(n),
                   random_floats(n),
                   random_floats(n),
                   random_floats(n),
                   random_floats(rows * stride),
                   random_bytes(rows * stride)};
    for (int64_t i = 0; i < n; i++) {
        c->multiplier[i] *= 0.01f;
        c->low[i] *= 1e-11f;
    }
    const bool add = random_in(0, 1);
    return (terse_requantize){.to = (terse_sums_to)random_in(0, 2),
                              .bias = random_in(0, 3) ? c->bias : NULL,
                              .multiplier = c->multiplier,
                              .multiplier_low = c->low,
                              .zero_point = 100,
                              .low = 3,
                              .high = 250,
                              .residual = add ? c->residual : NULL,
                              .residual_zero_point = 7,
                              .residual_scale = 0.3,
                              .bias_f32 = c->bias_f32,
                              .residual_f32 = add ? c->residual_f32 : NULL,
                              .residual_stride = stride};
}

static void free_columns(columns *c)
{
    free(c->bias), free(c->multiplier), free(c->low), free(c->bias_f32), free(c->residual_f32), free(c->residual);
}

/* What pads a run of K to four is zero, as the layout says. */
static uint8_t *random_panels(int64_t runs, int64_t run)
{
    const int64_t steps = (run + 3) / 4;
    uint8_t *p = random_bytes(runs * steps * 64);
    for (int64_t i = 0; i < runs; i++)
        for (int64_t byte = run; byte < steps * 4; byte++)
            for (int64_t column = 0; column < 16; column++)
                p[((i * steps + byte / 4) * 16 + column) * 4 + byte % 4] = 0;
    return p;
}

static void gemm_u8s8_case(void)
{
    terse_gemm_u8s8_args args = {.m = random_in(1, 120), .n = random_in(1, 400), .k = random_in(1, 300)};
    if (random_in(0, 3) == 0)
        args.m = random_in(1, 4), args.n = random_in(400, 1500);
    args.lda = args.k + random_in(0, 3);
    args.ldc = args.n + random_in(0, 3);
    uint8_t *a = random_bytes(args.m * args.lda), *b = random_panels((args.n + 15) / 16, args.k);
    columns c;
    args.a = a;
    args.b = (int8_t *)b;
    args.requantize = random_requantize(args.m, args.n, &c);
    outputs o = make_outputs(args.m * args.ldc * 4);
    args.c = o.want;
    tier->gemm_u8s8(&args);
    args.c = o.got;
    split.table.gemm_u8s8(&args);
    expect_same(&o, "gemm_u8s8");
    free(a), free(b), free_columns(&c);
}

enum { DENSE, DEPTHWISE, WINOGRAD };

/* Sizes of a convolution that is worth cutting; some with windows that begin or end in the padding alone. */
static void random_conv(int kind, terse_conv_f32_args *a)
{
    *a = (terse_conv_f32_args){.n = random_in(1, 4), .groups = random_in(0, 3) ? 1 : 2};
    const int first = kind == WINOGRAD ? 1 : (int)random_in(0, 2);
    const bool pointwise = kind == DENSE && random_in(0, 3) == 0;
    for (int i = 0; i < 3; i++) {
        a->in[i] = i < first ? 1 : random_in(1, first == 2 ? 200 : first == 1 ? 30 : 9);
        a->kernel[i] = i < first || pointwise ? 1 : kind == WINOGRAD ? 3 : random_in(1, 4);
        a->stride[i] = i < first || pointwise || kind == WINOGRAD ? 1 : random_in(1, 3);
        a->dilation[i] = i < first ? 1 : random_in(1, 2);
        a->pad[i] = i < first || pointwise ? 0 : random_in(0, 3);
        const int64_t span = (a->kernel[i] - 1) * a->dilation[i] + 1;
        const int64_t padded = a->in[i] + a->pad[i] + (i < first || pointwise ? 0 : random_in(0, 4));
        if (padded < span)
            a->in[i] += span - padded;
        a->out[i] = ((padded < span ? span : padded) - span) / a->stride[i] + 1;
    }
    const int64_t channels = random_in(1, 40);
    a->groups = kind == WINOGRAD ? 1 : a->groups;
    a->channels = channels * a->groups;
    a->filters = (random_in(0, 3) ? random_in(1, 70) : random_in(100, 300)) * a->groups;
    if (kind == DEPTHWISE)
        a->groups = a->filters = a->channels = 4 * channels;
    a->in_stride = a->channels + random_in(0, 2);
    a->out_stride = a->filters + random_in(0, 2);
    a->residual_stride = a->filters + random_in(0, 2);
}

static int64_t pixels(const int64_t dims[3])
{
    return dims[0] * dims[1] * dims[2];
}

static int64_t weight_bytes(const terse_conv_f32_args *a, terse_layout layout, terse_dtype dtype)
{
    const int64_t dims[5] = {a->filters, a->channels / a->groups, a->kernel[0], a->kernel[1], a->kernel[2]};
    const int64_t flat[4] = {a->filters, a->channels / a->groups, a->kernel[1], a->kernel[2]};
    const bool planar = layout == TERSE_LAYOUT_F32_WINOGRAD4;
    const int64_t bytes = terse_layout_bytes(layout, dtype, planar ? 4 : 5, planar ? flat : dims, a->groups);
    assert_true(bytes >= 0);
    return bytes;
}

static void conv_f32_case(int kind)
{
    terse_conv_f32_args args;
    random_conv(kind, &args);
    const terse_layout layout = kind == DENSE       ? TERSE_LAYOUT_F32_N16
                                : kind == DEPTHWISE ? TERSE_LAYOUT_F32_DW16
                                                    : TERSE_LAYOUT_F32_WINOGRAD4;
    const int64_t rows_in = args.n * pixels(args.in), rows_out = args.n * pixels(args.out);
    float *input = random_floats(rows_in * args.in_stride), *bias = random_floats(args.filters);
    float *residual = random_floats(rows_out * args.residual_stride);
    float *weights = random_floats(weight_bytes(&args, layout, TERSE_FP32) / 4);
    args.input = input;
    args.weights = weights;
    args.bias = random_in(0, 1) ? bias : NULL;
    args.residual = random_in(0, 1) ? residual : NULL;
    size_t (*scratch)(const terse_conv_f32_args *) = kind == DENSE      ? split.table.conv_f32_scratch
                                                     : kind == WINOGRAD ? split.table.winograd_f32_scratch
                                                                        : NULL;
    args.scratch = scratch ? aligned_alloc(64, terse_align(scratch(&args) + 1, 64)) : NULL;
    outputs o = make_outputs(rows_out * args.out_stride * 4);
    for (int way = 0; way < 2; way++) {
        const terse_kernels *table = way ? &split.table : tier;
        args.output = (float *)(void *)(way ? o.got : o.want);
        (kind == DENSE ? table->conv_f32 : kind == DEPTHWISE ? table->dwconv_f32 : table->winograd_f32)(&args);
    }
    expect_same(&o, kind == DENSE ? "conv_f32" : kind == DEPTHWISE ? "dwconv_f32" : "winograd_f32");
    free(input), free(bias), free(residual), free(weights), free(args.scratch);
}

static void conv_bf16_case(int kind)
{
    terse_conv_f32_args s;
    random_conv(kind, &s);
    terse_conv_bf16_args args = {.n = s.n,
                                 .channels = kind == DENSE ? s.channels + s.channels % 2 : s.channels,
                                 .filters = s.filters,
                                 .in_stride = s.in_stride + s.in_stride % 2 + 2,
                                 .out_stride = s.out_stride,
                                 .residual_stride = s.residual_stride,
                                 .wide = kind == DENSE && random_in(0, 1)};
    memcpy(args.in, s.in, sizeof args.in);
    memcpy(args.out, s.out, sizeof args.out);
    memcpy(args.kernel, s.kernel, sizeof args.kernel);
    memcpy(args.stride, s.stride, sizeof args.stride);
    memcpy(args.dilation, s.dilation, sizeof args.dilation);
    memcpy(args.pad, s.pad, sizeof args.pad);
    const int64_t rows_in = args.n * pixels(args.in), rows_out = args.n * pixels(args.out);
    const int64_t padded = (args.filters + 15) / 16 * 16 * pixels(args.kernel);
    uint16_t *input = random_halves(rows_in * args.in_stride), *pairs = random_halves(padded * args.channels);
    float *filters = random_floats(padded), *bias = random_floats(args.filters);
    float *wide = random_floats(rows_out * args.residual_stride);
    uint16_t *narrow = random_halves(rows_out * args.residual_stride);
    args.input = input;
    args.weights = kind == DENSE ? (void *)pairs : filters;
    args.bias = random_in(0, 1) ? bias : NULL;
    args.residual = random_in(0, 1) ? NULL : args.wide ? (void *)wide : narrow;
    args.scratch = aligned_alloc(64, terse_align(split.table.conv_bf16_scratch(&args) + 1, 64));
    outputs o = make_outputs(rows_out * args.out_stride * 4);
    for (int way = 0; way < 2; way++) {
        const terse_kernels *table = way ? &split.table : tier;
        args.output = way ? o.got : o.want;
        (kind == DENSE ? table->conv_bf16 : table->dwconv_bf16)(&args);
    }
    expect_same(&o, kind == DENSE ? "conv_bf16" : "dwconv_bf16");
    free(input), free(pairs), free(filters), free(bias), free(wide), free(narrow), free(args.scratch);
}

static void conv_u8s8_case(int kind)
{
    terse_conv_f32_args sizes;
    random_conv(kind, &sizes);
    terse_conv_u8s8_args args = {.n = sizes.n,
                                 .channels = sizes.channels,
                                 .filters = sizes.filters,
                                 .groups = sizes.groups,
                                 .in_stride = sizes.in_stride,
                                 .out_stride = sizes.out_stride,
                                 .x_zero_point = (uint8_t)random_in(0, 255)};
    memcpy(args.in, sizes.in, sizeof args.in);
    memcpy(args.out, sizes.out, sizeof args.out);
    memcpy(args.kernel, sizes.kernel, sizeof args.kernel);
    memcpy(args.stride, sizes.stride, sizeof args.stride);
    memcpy(args.dilation, sizes.dilation, sizeof args.dilation);
    memcpy(args.pad, sizes.pad, sizeof args.pad);
    const terse_layout layout = kind == DENSE ? TERSE_LAYOUT_S8_N16K4 : TERSE_LAYOUT_S8_DW;
    const int64_t rows_in = args.n * pixels(args.in), rows_out = args.n * pixels(args.out);
    uint8_t *input = random_bytes(rows_in * args.in_stride);
    /* A run is a row of the dense kernel, a column of the depthwise one. */
    const int64_t run = kind == DENSE ? sizes.kernel[2] * sizes.channels / sizes.groups : sizes.kernel[1];
    uint8_t *weights = random_panels(weight_bytes(&sizes, layout, TERSE_INT8) / 64 / ((run + 3) / 4), run);
    columns c;
    args.input = input;
    args.weights = (int8_t *)weights;
    args.requantize = random_requantize(rows_out, args.filters, &c);
    const size_t bytes = (kind == DENSE ? split.table.conv_u8s8_scratch : split.table.dwconv_u8s8_scratch)(&args);
    args.scratch = aligned_alloc(64, terse_align(bytes + 1, 64));
    outputs o = make_outputs(rows_out * args.out_stride * 4);
    args.output = o.want;
    (kind == DENSE ? tier->conv_u8s8 : tier->dwconv_u8s8)(&args);
    args.output = o.got;
    (kind == DENSE ? split.table.conv_u8s8 : split.table.dwconv_u8s8)(&args);
    expect_same(&o, kind == DENSE ? "conv_u8s8" : "dwconv_u8s8");
    free(input), free(weights), free(args.scratch), free_columns(&c);
}

enum { POOL_F32, POOL_U8, POOL_BF16 };

static void pool_case(int kind, bool average)
{
    terse_conv_f32_args s;
    random_conv(DEPTHWISE, &s);
    terse_pool_f32_args f32 = {.n = s.n,
                               .channels = s.channels,
                               .count_include_pad = random_in(0, 1),
                               .in_stride = s.in_stride,
                               .out_stride = s.channels};
    terse_pool_u8_args u8 = {.n = s.n,
                             .channels = s.channels,
                             .count_include_pad = f32.count_include_pad,
                             .in_stride = s.in_stride,
                             .out_stride = s.channels,
                             .x_zero_point = 9,
                             .y_zero_point = 80,
                             .scale = 0.7};
    for (int i = 0; i < 3; i++) { /* a window holds data, as the operator sees to */
        f32.in[i] = u8.in[i] = s.in[i];
        f32.kernel[i] = u8.kernel[i] = s.kernel[i];
        f32.stride[i] = u8.stride[i] = s.stride[i];
        f32.dilation[i] = u8.dilation[i] = 1;
        f32.pad[i] = u8.pad[i] = s.pad[i] < s.kernel[i] ? s.pad[i] : s.kernel[i] - 1;
        f32.pad_end[i] = u8.pad_end[i] = random_in(0, s.kernel[i] - 1);
        const int64_t room = f32.in[i] + f32.pad[i] + f32.pad_end[i] - f32.kernel[i];
        f32.out[i] = u8.out[i] = room < 0 ? 1 : room / f32.stride[i] + 1;
    }
    float *x = random_floats(s.n * pixels(s.in) * s.in_stride);
    uint8_t *q = random_bytes(s.n * pixels(s.in) * s.in_stride);
    outputs o = make_outputs(s.n * pixels(f32.out) * s.channels * 4);
    uint16_t *half = random_halves(s.n * pixels(s.in) * s.in_stride);
    f32.input = kind == POOL_BF16 ? (float *)(void *)half : x;
    u8.input = q;
    for (int way = 0; way < 2; way++) {
        const terse_kernels *table = way ? &split.table : tier;
        u8.output = way ? o.got : o.want;
        f32.output = (float *)(void *)u8.output;
        if (kind == POOL_BF16)
            (average ? table->average_pool_bf16 : table->max_pool_bf16)(&f32);
        else if (kind == POOL_U8)
            (average ? table->average_pool_u8 : table->max_pool_u8)(&u8);
        else
            (average ? table->average_pool_f32 : table->max_pool_f32)(&f32);
    }
    expect_same(&o, average ? "average pool" : "max pool");
    free(x), free(q), free(half);
}

static void elements_case(void)
{
    const int64_t n = random_in(1, 150000), one = random_in(0, 1), width = random_in(1, 3);
    float *a = random_floats(n), *b = random_floats(n);
    uint8_t *q = random_bytes(n), *p = random_bytes(n), *table = random_bytes(256);
    const terse_binary_u8_args add = {.n = n,
                                      .a = q,
                                      .b = p,
                                      .stride_a = 1,
                                      .stride_b = one,
                                      .a_zero_point = 4,
                                      .b_zero_point = 100,
                                      .a_scale = 0.4,
                                      .b_scale = 0.01,
                                      .zero_point = 60,
                                      .high = 255};
    static const char *const names[] = {"exp",      "sigmoid",          "sub",        "add_u8",      "mul_u8", "table",
                                        "quantize", "quantize in FP32", "dequantize", "rows to BF16"};
    for (int which = 0; which < 10; which++) {
        outputs o = make_outputs(n * 4);
        for (int way = 0; way < 2; way++) {
            const terse_kernels *k = way ? &split.table : tier;
            uint8_t *y = way ? o.got : o.want;
            float *f = (float *)(void *)y;
            terse_binary_u8_args both = add;
            both.y = y;
            switch (which) {
            case 0:
                k->exp_f32(a, f, n);
                break;
            case 1:
                k->sigmoid_f32(a, f, n);
                break;
            case 2:
                k->sub_f32(a, 1, b, one, f, n);
                break;
            case 3:
                k->add_u8(&both);
                break;
            case 4:
                k->mul_u8(&both);
                break;
            case 5:
                k->table_u8(q, table, y, n);
                break;
            case 6:
                k->quantize_u8(a, 0.01f, 100, y, n);
                break;
            case 7:
                k->quantize_float_u8(a, 0.01f, 100, y, n);
                break;
            case 8:
                k->dequantize_u8(q, 0.01f, 100, f, n);
                break;
            default:
                k->f32_rows_to_bf16(a, 3, n / 3, width, (uint16_t *)(void *)y);
            }
        }
        expect_same(&o, names[which]);
    }
    free(a), free(b), free(q), free(p), free(table);
}

static void one_round(void)
{
    gemm_f32_case();
    gemm_u8s8_case();
    gemm_bf16_case();
    conv_bf16_case(DENSE);
    conv_bf16_case(DEPTHWISE);
    gemm_small_case(false);
    gemm_small_case(true);
    conv_f32_case(DENSE);
    conv_f32_case(DEPTHWISE);
    conv_f32_case(WINOGRAD);
    conv_u8s8_case(DENSE);
    conv_u8s8_case(DEPTHWISE);
    for (int kind = POOL_F32; kind <= POOL_BF16; kind++)
        for (int average = 0; average < 2; average++)
            pool_case(kind, average);
    elements_case();
}

static void test_splits(void **test_state)
{
    (void)test_state;
    terse_error error;
    const int rounds = getenv("TERSE_LONG") ? 60 : 8;
    for (int i = 0; i < TERSE_ISA_COUNT; i++) {
        if (!(tier = terse_kernels_of((terse_isa)i)))
            continue;
        for (int n = 2; n <= 5; n++) {
            assert_int_equal(terse_threads_new(n, &threads, &error), TERSE_OK);
            terse_split_init(&split, tier, threads, n);
            const terse_split *before = terse_split_enter(&split);
            for (int round = 0; round < rounds; round++)
                one_round();
            terse_split_enter(before);
            terse_threads_free(threads);
        }
    }
}

int main(void)
{
    random_begin();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
