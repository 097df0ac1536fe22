/* SPDX-License-Identifier: Apache-2.0 */
/* The operators on bytes against their definition in double, and what they refuse. */
#include "tests/unit/op_case.h"

static uint8_t *byte_input(op_case *c, int index, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank);
    uint8_t *data = malloc((size_t)count + 1);
    for (int64_t i = 0; i < count; i++)
        data[i] = (uint8_t)case_pick(0, 255);
    c->inputs[index] = terse_tensor_view(data, TERSE_UINT8, rank, dims);
    c->present[index] = true;
    c->n_inputs = c->n_inputs > index + 1 ? c->n_inputs : index + 1;
    return data;
}

/* Weights in ONNX's order, and packed as common/tensor.h says as input 1. */
static int8_t *weight_input(op_case *c, terse_layout layout, int64_t groups, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank),
                  bytes = terse_layout_bytes(layout, TERSE_INT8, rank, dims, groups);
    assert_true(bytes > 0);
    int8_t *plain = malloc((size_t)count), *packed = calloc((size_t)bytes, 1);
    for (int64_t i = 0; i < count; i++)
        plain[i] = (int8_t)case_pick(-128, 127);
    const bool matrix = rank == 2, depthwise = layout == TERSE_LAYOUT_S8_DW;
    const int64_t filters = matrix ? dims[1] : dims[0], channels = matrix ? dims[0] : dims[1];
    const int64_t last = matrix ? 1 : dims[rank - 1], rows = count / filters / channels / last;
    const int64_t height = rank > 3 ? dims[rank - 2] : 1, steps = (height + 3) / 4, width = (last * channels + 3) / 4;
    for (int64_t i = 0; i < count; i++) {
        const int64_t n = matrix ? i % filters : i / (channels * rows * last);
        const int64_t channel = matrix ? i / filters : i / (rows * last) % channels;
        const int64_t row = matrix ? 0 : i / last % rows, at = matrix ? 0 : i % last;
        const int64_t per_group = filters / groups, in_group = n % per_group;
        int64_t to;
        if (depthwise)
            to = (((n / 16 * (rows / height) + row / height) * last + at) * steps + row % height / 4) * 64 +
                 n % 16 * 4 + row % height % 4;
        else
            to = ((n / per_group * ((per_group + 15) / 16) + in_group / 16) * rows + row) * width * 64 +
                 (at * channels + channel) / 4 * 64 + in_group % 16 * 4 + (at * channels + channel) % 4;
        assert_true(to >= 0 && to < bytes);
        packed[to] = plain[i];
    }
    c->inputs[1] = terse_tensor_view(packed, TERSE_INT8, rank, dims);
    c->inputs[1].layout = layout;
    c->present[1] = c->constant[1] = true;
    c->n_inputs = c->n_inputs > 2 ? c->n_inputs : 2;
    return plain;
}

/* Multipliers, biases and limits that let sums of `depth` products spread over the bytes. */
static void columns(op_case *c, int64_t n, int64_t depth, const char *to)
{
    float *multipliers = malloc(2 * (size_t)n * sizeof *multipliers);
    int32_t *bias = malloc((size_t)n * sizeof *bias);
    for (int64_t i = 0; i < n; i++) {
        const double multiplier = (1.0 + (double)case_random() / 2) / (60.0 * sqrt((double)depth));
        multipliers[i] = (float)multiplier;
        multipliers[n + i] = (float)(multiplier - (double)multipliers[i]);
        bias[i] = (int32_t)case_pick(-20000, 20000);
    }
    case_constant(c, 2, TERSE_FP32, 2, (int64_t[]){2, n}, multipliers);
    case_constant(c, 3, TERSE_INT32, 1, &n, bias);
    free(multipliers);
    free(bias);
    assert_true(terse_node_set_text(c->graph, c->node, "to", to));
    assert_true(terse_node_set_int(c->graph, c->node, "y_zero_point", 119));
    assert_true(terse_node_set_int(c->graph, c->node, "low", 3));
    assert_true(terse_node_set_int(c->graph, c->node, "high", 250));
}

static const int64_t *byte_residual(op_case *c, int rank, const int64_t *dims)
{
    byte_input(c, 4, rank, dims);
    assert_true(terse_node_set_float(c->graph, c->node, "residual_scale", 0.37));
    assert_true(terse_node_set_int(c->graph, c->node, "residual_zero_point", 77));
    return dims;
}

/* Output element `at` of column n with this sum. */
static void check_element(const op_case *c, int64_t sum, int64_t n, int64_t at)
{
    const terse_tensor *y = &c->outputs[0];
    const int64_t columns_n = c->inputs[2].dims[1], row = at / columns_n;
    const float *multipliers = c->inputs[2].data;
    const int32_t biased = (int32_t)(sum + ((const int32_t *)c->inputs[3].data)[n]);
    const bool residual = c->present[4];
    if (y->dtype == TERSE_INT32) {
        assert_int_equal(((const int32_t *)y->data)[at], biased);
        return;
    }
    if (y->dtype == TERSE_FP32) {
        float want = fmaf((float)biased, multipliers[n], c->present[5] ? ((const float *)c->inputs[5].data)[n] : 0.0f);
        want += residual ? ((const float *)c->inputs[4].data)[at] : 0.0f;
        want = want > 0 ? want : 0; /* Clip */
        assert_true(((const float *)y->data)[row * y->row_stride + n] == want);
        return;
    }
    double v = (double)biased * ((double)multipliers[n] + (double)multipliers[columns_n + n]);
    if (residual)
        v += (double)(((const uint8_t *)c->inputs[4].data)[at] - 77) * 0.37;
    double want = rint(v) + 119;
    want = want < 3 ? 3 : want > 250 ? 250 : want;
    if (((const uint8_t *)y->data)[row * y->row_stride + n] != (uint8_t)want)
        fail_msg("element %lld is %d, wanted %d (seed %u)", (long long)at,
                 ((const uint8_t *)y->data)[row * y->row_stride + n], (int)want, case_seed);
}

typedef struct conv_shape {
    int rank; /* spatial axes */
    int64_t n, channels, filters, groups, in[3], kernel[3], stride, dilation, pad;
} conv_shape;

static int64_t conv_sum(const conv_shape *s, const uint8_t *x, const int8_t *w, int64_t image, const int64_t *out,
                        int64_t filter)
{
    const int64_t per_group = s->channels / s->groups, first = filter / (s->filters / s->groups) * per_group;
    int64_t positions = 1, sum = 0;
    for (int i = 0; i < s->rank; i++)
        positions *= s->kernel[i];
    for (int64_t p = 0; p < positions; p++) {
        int64_t at = image, rest = p, position[3];
        bool inside = true;
        for (int i = s->rank - 1; i >= 0; i--, rest /= s->kernel[i + 1])
            position[i] = rest % s->kernel[i];
        for (int i = 0; i < s->rank; i++) {
            const int64_t from = out[i] * s->stride - s->pad + position[i] * s->dilation;
            inside = inside && from >= 0 && from < s->in[i];
            at = at * s->in[i] + from;
        }
        for (int64_t c = 0; c < per_group; c++)
            sum += (inside ? x[at * s->channels + first + c] : 9) * w[(filter * per_group + c) * positions + p];
    }
    return sum;
}

static void set_window(op_case *c, const conv_shape *s)
{
    int64_t strides[3], dilations[3], pads[6];
    for (int i = 0; i < 3; i++) {
        strides[i] = s->stride;
        dilations[i] = s->dilation;
        pads[i] = pads[i + s->rank] = s->pad;
    }
    for (int i = 0; i < 2 * s->rank; i++)
        pads[i] = s->pad;
    case_set_ints(c, "strides", s->rank, strides);
    case_set_ints(c, "dilations", s->rank, dilations);
    case_set_ints(c, "pads", 2 * s->rank, pads);
    assert_true(terse_node_set_int(c->graph, c->node, "group", s->groups));
    assert_true(terse_node_set_int(c->graph, c->node, "channels_last", 1));
    assert_true(terse_node_set_int(c->graph, c->node, "x_zero_point", 9));
}

/* Output: 0 bytes, 1 bytes with a residual, 2 floats with everything, 3 sums. */
static void check_conv(const conv_shape *s, int form)
{
    const bool depthwise = s->groups == s->channels && s->groups == s->filters && s->groups > 1;
    op_case c = case_new(TERSE_OP_QCONV, 1);
    int64_t dims[5] = {s->n}, w_dims[5] = {s->filters, s->channels / s->groups}, out[5] = {s->n};
    int64_t depth = w_dims[1], pixels = 1;
    for (int i = 0; i < s->rank; i++) {
        dims[i + 1] = s->in[i];
        w_dims[i + 2] = s->kernel[i];
        depth *= s->kernel[i];
        out[i + 1] = (s->in[i] + 2 * s->pad - (s->kernel[i] - 1) * s->dilation - 1) / s->stride + 1;
        pixels *= out[i + 1];
    }
    dims[s->rank + 1] = s->channels;
    out[s->rank + 1] = s->filters;
    const uint8_t *x = byte_input(&c, 0, s->rank + 2, dims);
    int8_t *w = weight_input(&c, depthwise ? TERSE_LAYOUT_S8_DW : TERSE_LAYOUT_S8_N16K4, depthwise ? 1 : s->groups,
                             s->rank + 2, w_dims);
    columns(&c, s->filters, depth, form < 2 ? "u8" : form == 2 ? "f32" : "s32");
    set_window(&c, s);
    if (form == 1)
        byte_residual(&c, s->rank + 2, out);
    if (form == 2) {
        case_input(&c, 4, s->rank + 2, out);
        float *bias = case_input(&c, 5, 1, &s->filters);
        (void)bias;
        c.constant[5] = true;
        assert_true(terse_node_set_text(c.graph, c.node, "activation", "Clip"));
        assert_true(terse_node_set_float(c.graph, c.node, "activation_beta", (double)INFINITY));
    }
    assert_int_equal(case_run_strided(&c, form == 0 ? s->filters + 5 : 0), TERSE_OK);
    assert_memory_equal(c.outputs[0].dims, out, (size_t)(s->rank + 2) * sizeof *out);
    for (int64_t row = 0; row < s->n * pixels; row++) {
        int64_t at[3], rest = row % pixels;
        for (int i = s->rank - 1; i >= 0; i--, rest /= out[i + 2])
            at[i] = rest % out[i + 1];
        for (int64_t f = 0; f < s->filters; f++)
            check_element(&c, conv_sum(s, x, w, row / pixels, at, f), f, row * s->filters + f);
    }
    free(w);
    case_free(&c);
}

static void convolutions_of_bytes_are_as_defined(void **state)
{
    (void)state;
    static const conv_shape shapes[] = {
        {2, 1, 3, 20, 1, {9, 8}, {3, 3}, 2, 1, 1},      {2, 2, 8, 33, 1, {5, 6}, {1, 1}, 1, 1, 0},
        {2, 1, 12, 8, 4, {7, 7}, {3, 3}, 1, 1, 1},      {2, 1, 6, 7, 1, {9, 9}, {3, 2}, 1, 2, 2},
        {2, 1, 18, 18, 18, {8, 7}, {3, 3}, 1, 1, 1},    {2, 2, 16, 16, 16, {9, 9}, {5, 5}, 2, 1, 2},
        {1, 1, 20, 20, 20, {15}, {5}, 1, 1, 2},         {1, 2, 5, 6, 1, {12}, {4}, 2, 1, 1},
        {3, 1, 4, 6, 1, {4, 5, 6}, {2, 3, 3}, 1, 1, 1}, {3, 1, 17, 17, 17, {3, 5, 6}, {2, 3, 3}, 1, 1, 1},
        {2, 1, 64, 48, 1, {4, 4}, {3, 3}, 1, 1, 1},     {2, 1, 5, 10, 5, {6, 6}, {3, 3}, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int form = 0; form < 4; form++)
            check_conv(&shapes[i], form);
}

static void products_of_bytes_are_as_defined(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{1, 10, 7}, {5, 33, 64}, {13, 16, 130}, {1, 1, 1}, {0, 4, 4}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int form = 0; form < 3; form++) {
            const int64_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
            op_case c = case_new(TERSE_OP_QGEMM, 1);
            const uint8_t *x = byte_input(&c, 0, CASE_DIMS(m, 1, k));
            int8_t *w = weight_input(&c, TERSE_LAYOUT_S8_N16K4, 1, CASE_DIMS(k, n));
            columns(&c, n, k, form < 2 ? "u8" : "s32");
            if (form == 1)
                byte_residual(&c, CASE_DIMS(m, 1, n));
            case_ok(&c);
            for (int64_t at = 0; at < m * n; at++) {
                int64_t sum = 0;
                for (int64_t j = 0; j < k; j++)
                    sum += x[at / n * k + j] * w[j * n + at % n];
                check_element(&c, sum, at % n, at);
            }
            free(w);
            case_free(&c);
        }
}

static void a_scale_known_at_run_time_completes_the_product(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_QGEMM, 1);
    enum { M = 3, N = 20, K = 9 };
    const uint8_t *x = byte_input(&c, 0, CASE_DIMS(M, K));
    int8_t *w = weight_input(&c, TERSE_LAYOUT_S8_N16K4, 1, CASE_DIMS(K, N));
    columns(&c, N, K, "f32");
    const float *scale = case_input(&c, 6, 0, NULL);
    const uint8_t *zero_point = byte_input(&c, 7, 0, NULL);
    int32_t sums[N] = {0};
    for (int i = 0; i < K * N; i++)
        sums[i % N] += w[i];
    case_constant(&c, 8, TERSE_INT32, CASE_DIMS(N), sums);
    case_ok(&c);
    for (int at = 0; at < M * N; at++) {
        const int n = at % N;
        int64_t sum = ((const int32_t *)c.inputs[3].data)[n];
        for (int j = 0; j < K; j++)
            sum += (x[at / N * K + j] - *zero_point) * w[j * N + n];
        const double want = (double)sum * ((double)*scale * (double)((const float *)c.inputs[2].data)[n]);
        assert_true(fabs((double)((float *)c.outputs[0].data)[at] - want) <= 1e-5 * (1 + fabs(want)));
    }
    free(w);
    case_free(&c);
}

static void additions_and_products_broadcast(void **state)
{
    (void)state;
    for (int form = 0; form < 4; form++) {
        op_case c = case_new(form & 1 ? TERSE_OP_QMUL : TERSE_OP_QADD, 1);
        const uint8_t *a = byte_input(&c, 0, CASE_DIMS(3, 5, 21));
        const uint8_t *b = form & 2 ? byte_input(&c, 1, CASE_DIMS(3, 1, 21)) : byte_input(&c, 1, CASE_DIMS(1));
        terse_node_set_float(c.graph, c.node, "a_scale", form & 1 ? 0.013 : 0.61);
        terse_node_set_float(c.graph, c.node, "b_scale", -0.43);
        terse_node_set_int(c.graph, c.node, "a_zero_point", 100);
        terse_node_set_int(c.graph, c.node, "b_zero_point", 140);
        terse_node_set_int(c.graph, c.node, "y_zero_point", 125);
        terse_node_set_int(c.graph, c.node, "low", 20);
        terse_node_set_int(c.graph, c.node, "high", 230);
        assert_int_equal(case_run_strided(&c, 30), TERSE_OK);
        for (int i = 0; i < 3 * 5 * 21; i++) {
            const int p = a[i] - 100, q = b[form & 2 ? i / 105 * 21 + i % 21 : 0] - 140;
            double want = rint(form & 1 ? (double)(p * q) * 0.013 : (double)p * 0.61 + (double)q * -0.43) + 125;
            want = want < 20 ? 20 : want > 230 ? 230 : want;
            assert_int_equal(((uint8_t *)c.outputs[0].data)[i / 21 * 30 + i % 21], (int)want);
        }
        case_free(&c);
    }
}

static void a_table_maps_every_byte(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_QTABLE, 1);
    const uint8_t *x = byte_input(&c, 0, CASE_DIMS(7, 143));
    uint8_t table[256];
    for (int i = 0; i < 256; i++)
        table[i] = (uint8_t)case_pick(0, 255);
    case_constant(&c, 1, TERSE_UINT8, CASE_DIMS(256), table);
    assert_int_equal(case_run_strided(&c, 150), TERSE_OK);
    for (int i = 0; i < 7 * 143; i++)
        assert_int_equal(((uint8_t *)c.outputs[0].data)[i / 143 * 150 + i % 143], table[x[i]]);
    case_free(&c);
}

/* The window 2x3 with strides 2 and 1 over 5x6 pixels, padded by 1 on the left. */
static void pools_of_bytes_are_as_defined(void **state)
{
    (void)state;
    enum { H = 5, W = 6, C = 19, OUT_H = 2, OUT_W = 5 };
    for (int form = 0; form < 4; form++) { /* maximum, average without and with padding, global */
        op_case c = case_new(form == 0   ? TERSE_OP_MAX_POOL
                             : form == 3 ? TERSE_OP_QGLOBAL_AVERAGE_POOL
                                         : TERSE_OP_QAVERAGE_POOL,
                             1);
        const uint8_t *x = byte_input(&c, 0, CASE_DIMS(2, H, W, C));
        terse_node_set_int(c.graph, c.node, "channels_last", 1);
        terse_node_set_float(c.graph, c.node, "scale", 1.7);
        terse_node_set_int(c.graph, c.node, "x_zero_point", 90);
        terse_node_set_int(c.graph, c.node, "y_zero_point", 130);
        terse_node_set_int(c.graph, c.node, "count_include_pad", form == 2);
        if (form != 3) {
            CASE_ATTR_INTS(&c, "kernel_shape", 2, 3);
            CASE_ATTR_INTS(&c, "strides", 2, 1);
            CASE_ATTR_INTS(&c, "pads", 0, 1, 0, 0);
        }
        case_ok(&c);
        const int out_h = form == 3 ? 1 : OUT_H, out_w = form == 3 ? 1 : OUT_W;
        for (int i = 0; i < 2 * out_h * out_w * C; i++) {
            const int channel = i % C, ox = i / C % out_w, oy = i / C / out_w % out_h, image = i / C / out_w / out_h;
            const int y0 = form == 3 ? 0 : oy * 2, y1 = form == 3 ? H : y0 + 2;
            const int x0 = form == 3 ? 0 : ox - 1, x1 = form == 3 ? W : x0 + 3;
            int sum = 0, count = 0, most = 0;
            for (int py = y0; py < y1; py++)
                for (int px = x0 < 0 ? 0 : x0; px < x1 && px < W; px++, count++) {
                    const int byte = x[((image * H + py) * W + px) * C + channel];
                    sum += byte - 90;
                    most = byte > most ? byte : most;
                }
            count = form == 2 ? 6 : count;
            double want = rint((double)sum * 1.7 / (double)count) + 130;
            want = form == 0 ? most : want < 0 ? 0 : want > 255 ? 255 : want;
            assert_int_equal(((uint8_t *)c.outputs[0].data)[i], (int)want);
        }
        case_free(&c);
    }
}

/* A small QConv that fits; `broken` says what is changed. */
static void refuse_conv(int broken, const char *text)
{
    op_case c = case_new(TERSE_OP_QCONV, 1);
    byte_input(&c, 0, CASE_DIMS(1, 4, 4, 8));
    free(weight_input(&c, TERSE_LAYOUT_S8_N16K4, 1, CASE_DIMS(6, 8, 3, 3)));
    columns(&c, 6, 72, "u8");
    terse_node_set_int(c.graph, c.node, "channels_last", 1);
    float *multipliers = c.inputs[2].data;
    switch (broken) {
    case 0:
        terse_node_set_int(c.graph, c.node, "channels_last", 0);
        break;
    case 1:
        terse_node_set_text(c.graph, c.node, "to", "u4");
        break;
    case 2:
        multipliers[3] = NAN;
        break;
    case 3:
        c.inputs[2].dims[1] = 5;
        break;
    case 4:
        c.inputs[0].dtype = TERSE_INT8;
        break;
    case 5:
        c.inputs[1].layout = TERSE_LAYOUT_S8_DW;
        break;
    case 6:
        terse_node_set_int(c.graph, c.node, "x_zero_point", 256);
        break;
    case 7:
        terse_node_set_int(c.graph, c.node, "low", 251);
        break;
    case 8:
        byte_input(&c, 4, CASE_DIMS(1, 2, 2, 5));
        break;
    case 9:
        byte_input(&c, 4, CASE_DIMS(1, 2, 2, 6));
        terse_node_set_float(c.graph, c.node, "residual_scale", (double)INFINITY);
        break;
    case 10:
        case_input(&c, 5, CASE_DIMS(6));
        c.constant[5] = true;
        break;
    case 11:
        c.present[2] = false;
        free(c.inputs[2].data);
        break;
    case 12:
        terse_node_set_int(c.graph, c.node, "group", 3);
        break;
    default:
        c.constant[3] = false;
        break;
    }
    case_refused(&c, text);
    case_free(&c);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"channels_last",
                                        "u4",
                                        "nan",
                                        "multiplier",
                                        "INT8",
                                        "layout",
                                        "256",
                                        "low is 251",
                                        "residual",
                                        "residual_scale",
                                        "bias_f32",
                                        "missing",
                                        "do not go together",
                                        "a constant is needed"};
    for (int i = 0; i < (int)(sizeof texts / sizeof texts[0]); i++)
        refuse_conv(i, texts[i]);
    op_case c = case_new(TERSE_OP_QADD, 1);
    byte_input(&c, 0, CASE_DIMS(4));
    byte_input(&c, 1, CASE_DIMS(4));
    case_refused(&c, "a_scale");
    case_free(&c);
    c = case_new(TERSE_OP_QTABLE, 1);
    byte_input(&c, 0, CASE_DIMS(4));
    byte_input(&c, 1, CASE_DIMS(255));
    case_refused(&c, "[255]");
    case_free(&c);
    c = case_new(TERSE_OP_QGEMM, 1);
    byte_input(&c, 0, CASE_DIMS(2, 5));
    free(weight_input(&c, TERSE_LAYOUT_S8_N16K4, 1, CASE_DIMS(6, 3)));
    columns(&c, 3, 6, "u8");
    case_refused(&c, "do not multiply");
    case_free(&c);
}

int main(void)
{
    case_seed = 20261125;
    print_message("seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_of_bytes_are_as_defined),
        cmocka_unit_test(products_of_bytes_are_as_defined),
        cmocka_unit_test(a_scale_known_at_run_time_completes_the_product),
        cmocka_unit_test(additions_and_products_broadcast),
        cmocka_unit_test(a_table_maps_every_byte),
        cmocka_unit_test(pools_of_bytes_are_as_defined),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
