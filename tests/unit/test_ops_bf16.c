/* SPDX-License-Identifier: Apache-2.0 */
/* BGemm and BConv against sums in double of operands rounded to BF16, and what they refuse. Sums in FP32 of at most 66
 * products of numbers below 1 stay within 1e-5 of the double, longer ones within 1e-6 for each; an output in BF16 adds
 * half a step of its 7 bits, 2^-8 of it. */
#include "common/kernels/bf16.h"
#include "tests/unit/op_case.h"

static const double WIDE = 1e-5, HALF = 1.0 / 256 + 1e-5;

/* Random BF16 between -1 and 1 as input `index`. */
static void half_input(op_case *c, int index, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank);
    uint16_t *data = malloc((size_t)count * sizeof *data + 1);
    for (int64_t i = 0; i < count; i++)
        data[i] = bf16_from(case_random());
    c->inputs[index] = terse_tensor_view(data, TERSE_BF16, rank, dims);
    c->present[index] = true;
    c->n_inputs = c->n_inputs > index + 1 ? c->n_inputs : index + 1;
}

/* Weights [K,N] packed as common/tensor.h says; returns them plain. */
static float *half_weights(op_case *c, int64_t k, int64_t n)
{
    const int64_t dims[] = {k, n}, bytes = terse_layout_bytes(TERSE_LAYOUT_BF16_N16K2, TERSE_BF16, 2, dims, 1);
    assert_true(bytes >= (n + 15) / 16 * k * 32);
    uint16_t *packed = calloc((size_t)bytes, 1);
    float *plain = malloc((size_t)(k * n) * sizeof *plain);
    for (int64_t i = 0; i < k * n; i++) {
        const uint16_t w = bf16_from(case_random());
        packed[(i % n / 16 * (k / 2) + i / n / 2) * 32 + i % n % 16 * 2 + i / n % 2] = w;
        plain[i] = bf16_to(w);
    }
    c->inputs[1] = terse_tensor_view(packed, TERSE_BF16, 2, dims);
    c->inputs[1].layout = TERSE_LAYOUT_BF16_N16K2;
    c->present[1] = c->constant[1] = true;
    c->n_inputs = c->n_inputs > 2 ? c->n_inputs : 2;
    return plain;
}

static double read_as(const terse_tensor *t, int64_t at)
{
    return t->dtype == TERSE_BF16 ? (double)bf16_to(((const uint16_t *)t->data)[at])
                                  : (double)((const float *)t->data)[at];
}

static void check_gemm(int64_t batch, int64_t m, int64_t n, int64_t k, bool half_x, bool half_y, bool extras)
{
    op_case c = case_new(TERSE_OP_BGEMM, 1);
    const int64_t dims[] = {batch, m, k}, out[] = {batch, m, n};
    if (half_x)
        half_input(&c, 0, 3, dims);
    else
        case_input(&c, 0, 3, dims);
    float *w = half_weights(&c, k, n);
    assert_true(terse_node_set_text(c.graph, c.node, "to", half_y ? "bf16" : "f32"));
    if (extras) {
        case_input(&c, 2, 1, &n);
        c.constant[2] = true;
        if (half_y)
            half_input(&c, 3, 3, out);
        else
            case_input(&c, 3, 3, out);
        assert_true(terse_node_set_text(c.graph, c.node, "activation", "Clip"));
        assert_true(terse_node_set_float(c.graph, c.node, "activation_beta", (double)INFINITY));
    }
    if (case_run_strided(&c, n + 6) != TERSE_OK)
        fail_msg("%s", c.error.message);
    assert_int_equal(c.outputs[0].dtype, half_y ? TERSE_BF16 : TERSE_FP32);
    assert_memory_equal(c.outputs[0].dims, out, sizeof out);
    for (int64_t at = 0; at < batch * m * n; at++) {
        double want = 0;
        for (int64_t i = 0; i < k; i++)
            want +=
                (double)bf16_to(bf16_from((float)read_as(&c.inputs[0], at / n * k + i))) * (double)w[i * n + at % n];
        if (extras) {
            want += (double)((const float *)c.inputs[2].data)[at % n] + read_as(&c.inputs[3], at);
            want = want > 0 ? want : 0;
        }
        const double got = read_as(&c.outputs[0], at / n * c.outputs[0].row_stride + at % n);
        if (!(fabs(got - want) <= WIDE + (half_y ? HALF : WIDE) * fabs(want)))
            fail_msg("m %lld n %lld k %lld: element %lld is %.9g, wanted %.9g (seed %u)", (long long)m, (long long)n,
                     (long long)k, (long long)at, got, want, case_seed);
    }
    free(w);
    case_free(&c);
}

static void products_are_as_defined(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {{1, 1, 1, 2}, {1, 1, 10, 64}, {2, 3, 17, 66}, {3, 5, 33, 34}, {1, 13, 64, 6}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int form = 0; form < 8; form++)
            check_gemm(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], form & 1, form & 2, form & 4);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_BGEMM, 1);
    case_input(&c, 0, CASE_DIMS(2, 6));
    free(half_weights(&c, 4, 3));
    case_refused(&c, "do not multiply");
    case_free(&c);

    c = case_new(TERSE_OP_BGEMM, 1);
    case_input(&c, 0, CASE_DIMS(2, 4));
    free(half_weights(&c, 4, 3));
    c.inputs[1].layout = TERSE_LAYOUT_PLAIN;
    case_refused(&c, "bf16_n16k2");
    case_free(&c);

    c = case_new(TERSE_OP_BGEMM, 1);
    case_input(&c, 0, CASE_DIMS(2, 4));
    free(half_weights(&c, 4, 3));
    assert_true(terse_node_set_text(c.graph, c.node, "to", "u8"));
    case_refused(&c, "allowed are bf16 and f32");
    case_free(&c);
}

/* --- convolutions ------------------------------------------------------------------------------------------------ */

typedef struct conv_form {
    int spatial; /* axes: 1 to 3 */
    int64_t images, channels, filters;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
    bool depthwise, half_x, half_y, bias, residual;
    const char *auto_pad, *activation;
    double alpha, beta;
} conv_form;

/* Weights [F,C,kernel...] packed as common/tensor.h says, C odd with one of zeros more; returns them plain. */
static float *conv_weights(op_case *c, const conv_form *f)
{
    const int64_t even = f->channels + f->channels % 2, positions = terse_dims_count(f->kernel, f->spatial);
    int64_t dims[5] = {f->filters, f->depthwise ? 1 : even};
    memcpy(dims + 2, f->kernel, (size_t)f->spatial * sizeof *dims);
    const terse_layout layout = f->depthwise ? TERSE_LAYOUT_F32_DW16 : TERSE_LAYOUT_BF16_N16K2;
    const terse_dtype dtype = f->depthwise ? TERSE_FP32 : TERSE_BF16;
    const int64_t bytes = terse_layout_bytes(layout, dtype, f->spatial + 2, dims, 1);
    const int64_t channels = f->depthwise ? 1 : f->channels;
    assert_true(bytes > 0);
    void *packed = calloc((size_t)bytes, 1);
    float *plain = malloc((size_t)(f->filters * channels * positions) * sizeof *plain);
    for (int64_t i = 0; i < f->filters * channels * positions; i++) {
        const int64_t n = i / positions / channels, k = i / positions % channels, p = i % positions;
        const uint16_t w = bf16_from(case_random());
        plain[i] = bf16_to(w);
        if (f->depthwise)
            ((float *)packed)[p * ((f->filters + 15) / 16 * 16) + n] = plain[i];
        else
            ((uint16_t *)packed)[((n / 16 * positions + p) * even / 2 + k / 2) * 32 + n % 16 * 2 + k % 2] = w;
    }
    c->inputs[1] = terse_tensor_view(packed, dtype, f->spatial + 2, dims);
    c->inputs[1].layout = layout;
    c->present[1] = c->constant[1] = true;
    c->n_inputs = c->n_inputs > 2 ? c->n_inputs : 2;
    return plain;
}

/* Input `index` in rows of `stride` elements, with NaN between them. */
static void widen(op_case *c, int index, int64_t stride)
{
    terse_tensor *t = &c->inputs[index];
    const int64_t width = t->dims[t->rank - 1], rows = terse_tensor_count(t) / width;
    const size_t size = terse_dtype_size(t->dtype);
    char *wide = malloc((size_t)(rows * stride) * size);
    memset(wide, 0xff, (size_t)(rows * stride) * size);
    for (int64_t r = 0; r < rows; r++)
        memcpy(wide + (size_t)(r * stride) * size, (char *)t->data + (size_t)(r * width) * size, (size_t)width * size);
    free(t->data);
    t->data = wide;
    t->row_stride = stride;
}

static void conv_activations(op_case *c, const conv_form *f)
{
    if (!f->activation)
        return;
    assert_true(terse_node_set_text(c->graph, c->node, "activation", f->activation));
    assert_true(terse_node_set_float(c->graph, c->node, "activation_alpha", f->alpha));
    assert_true(terse_node_set_float(c->graph, c->node, "activation_beta", f->beta));
}

static void conv_attributes(op_case *c, const conv_form *f)
{
    int64_t pads[6];
    for (int i = 0; i < f->spatial; i++) {
        pads[i] = f->pad[i];
        pads[f->spatial + i] = f->pad_end[i];
    }
    assert_true(terse_node_set_int(c->graph, c->node, "channels_last", 1));
    assert_true(terse_node_set_int(c->graph, c->node, "group", f->depthwise ? f->channels : 1));
    assert_true(terse_node_set_text(c->graph, c->node, "to", f->half_y ? "bf16" : "f32"));
    case_set_ints(c, "strides", f->spatial, f->stride);
    case_set_ints(c, "dilations", f->spatial, f->dilation);
    if (f->auto_pad)
        assert_true(terse_node_set_text(c->graph, c->node, "auto_pad", f->auto_pad));
    else
        case_set_ints(c, "pads", 2 * f->spatial, pads);
    conv_activations(c, f);
}

/* Takes a flat index apart along dims[0..n-1]. */
static void unflatten(int64_t at, const int64_t *dims, int n, int64_t *ret_index)
{
    for (int i = n - 1; i >= 0; at /= dims[i], i--)
        ret_index[i] = at % dims[i];
}

/* One output before bias: the definition. */
static double conv_sum(const op_case *c, const conv_form *f, const float *w, int64_t image, const int64_t *o, int64_t n)
{
    const int64_t positions = terse_dims_count(f->kernel, f->spatial);
    const int64_t channels = f->depthwise ? 1 : f->channels;
    double sum = 0;
    for (int64_t p = 0; p < positions; p++) {
        int64_t at[3], pixel = image;
        bool inside = true;
        unflatten(p, f->kernel, f->spatial, at);
        for (int i = 0; i < f->spatial; i++) {
            const int64_t x = o[i] * f->stride[i] + at[i] * f->dilation[i] - f->pad[i];
            inside = inside && x >= 0 && x < f->in[i];
            pixel = pixel * f->in[i] + x;
        }
        for (int64_t k = 0; inside && k < channels; k++) {
            const int64_t channel = f->depthwise ? n : k;
            const double x = read_as(&c->inputs[0], pixel * c->inputs[0].row_stride + channel);
            sum += (double)bf16_to(bf16_from((float)x)) * (double)w[(n * channels + k) * positions + p];
        }
    }
    return sum;
}

static double activated(const conv_form *f, double x)
{
    if (!f->activation)
        return x;
    if (strcmp(f->activation, "Clip") == 0)
        return fmin(fmax(x, f->alpha), f->beta);
    if (strcmp(f->activation, "LeakyRelu") == 0)
        return x < 0 ? f->alpha * x : x;
    if (strcmp(f->activation, "HardSwish") == 0)
        return x * fmax(0, fmin(1, x / 6 + 0.5));
    assert_string_equal(f->activation, "Gelu");
    return 0.5 * x * (1 + erf(x / sqrt(2.0)));
}

static void conv_compare(const op_case *c, const conv_form *f, const float *w)
{
    const terse_tensor *y = &c->outputs[0], *r = &c->inputs[3];
    const int64_t pixels = terse_dims_count(f->out, f->spatial);
    const int64_t k = terse_dims_count(f->kernel, f->spatial) * (f->depthwise ? 1 : f->channels);
    const double wide = 1e-6 * (double)(k + 8);
    for (int64_t at = 0; at < f->images * pixels * f->filters; at++) {
        const int64_t row = at / f->filters, n = at % f->filters;
        int64_t o[3];
        unflatten(row % pixels, f->out, f->spatial, o);
        double want = conv_sum(c, f, w, row / pixels, o, n);
        want += f->bias ? (double)((const float *)c->inputs[2].data)[n] : 0;
        want += f->residual ? read_as(r, row * r->row_stride + n) : 0;
        want = activated(f, want);
        const double got = read_as(y, row * y->row_stride + n);
        if (!(fabs(got - want) <= wide + (f->half_y ? HALF : WIDE) * fabs(want)))
            fail_msg("%d axes, C %lld F %lld%s: pixel %lld filter %lld is %.9g, wanted %.9g (seed %u)", f->spatial,
                     (long long)f->channels, (long long)f->filters, f->depthwise ? ", depthwise" : "", (long long)row,
                     (long long)n, got, want, case_seed);
    }
}

static void conv_extras(op_case *c, const conv_form *f, const int64_t *out)
{
    if (f->bias) {
        case_input(c, 2, 1, &f->filters);
        c->constant[2] = true;
    }
    if (!f->residual)
        return;
    if (f->half_y)
        half_input(c, 3, f->spatial + 2, out);
    else
        case_input(c, 3, f->spatial + 2, out);
    widen(c, 3, f->filters + case_pick(0, 3));
}

static void check_conv(const conv_form *f)
{
    op_case c = case_new(TERSE_OP_BCONV, 1);
    const int rank = f->spatial + 2;
    int64_t dims[5] = {f->images}, out[5] = {f->images};
    memcpy(dims + 1, f->in, (size_t)f->spatial * sizeof *dims);
    memcpy(out + 1, f->out, (size_t)f->spatial * sizeof *out);
    dims[rank - 1] = f->channels;
    out[rank - 1] = f->filters;
    if (f->half_x)
        half_input(&c, 0, rank, dims);
    else
        case_input(&c, 0, rank, dims);
    widen(&c, 0, f->channels + (f->depthwise || !f->half_x ? case_pick(0, 5) : f->channels % 2 + 2 * case_pick(0, 3)));
    float *w = conv_weights(&c, f);
    conv_extras(&c, f, out);
    conv_attributes(&c, f);
    if (case_run_strided(&c, f->filters + case_pick(0, 6)) != TERSE_OK)
        fail_msg("%s (seed %u)", c.error.message, case_seed);
    assert_int_equal(c.outputs[0].dtype, f->half_y ? TERSE_BF16 : TERSE_FP32);
    assert_int_equal(c.outputs[0].rank, rank);
    assert_memory_equal(c.outputs[0].dims, out, (size_t)rank * sizeof *out);
    conv_compare(&c, f, w);
    free(w);
    case_free(&c);
}

/* A window that fits; without `auto_pad` pads of any size that the window allows. */
static bool random_window(conv_form *f)
{
    for (int i = 0; i < f->spatial; i++) {
        f->in[i] = case_pick(1, f->spatial == 3 ? 5 : 9);
        f->kernel[i] = case_pick(1, f->spatial == 3 ? 3 : 5);
        f->stride[i] = case_pick(1, 3);
        f->dilation[i] = case_pick(1, 2);
        const int64_t reach = (f->kernel[i] - 1) * f->dilation[i] + 1;
        if (f->auto_pad) {
            f->out[i] = (f->in[i] + f->stride[i] - 1) / f->stride[i];
            const int64_t missing = (f->out[i] - 1) * f->stride[i] + reach - f->in[i],
                          total = missing > 0 ? missing : 0;
            f->pad[i] = strcmp(f->auto_pad, "SAME_UPPER") == 0 ? total / 2 : (total + 1) / 2;
            continue;
        }
        f->pad[i] = case_pick(0, 3);
        f->pad_end[i] = case_pick(0, 3);
        const int64_t room = f->in[i] + f->pad[i] + f->pad_end[i] - reach;
        if (room < 0)
            return false;
        f->out[i] = room / f->stride[i] + 1;
    }
    return true;
}

static void random_conv(bool depthwise)
{
    static const char *const activations[] = {NULL, "Clip", "LeakyRelu", "HardSwish", "Gelu"};
    static const double alpha[] = {0, -0.25, 0.125, 0, 0}, beta[] = {0, 1.5, 0, 0, 0};
    const int64_t act = case_pick(0, 4), pad = case_pick(0, 5);
    conv_form f = {.spatial = (int)case_pick(1, 3),
                   .images = case_pick(1, 3),
                   .channels = case_pick(1, depthwise ? 40 : 21),
                   .depthwise = depthwise,
                   .half_x = depthwise || case_pick(0, 1),
                   .half_y = depthwise || case_pick(0, 1),
                   .bias = case_pick(0, 1),
                   .residual = case_pick(0, 1),
                   .auto_pad = pad == 0   ? "SAME_UPPER"
                               : pad == 1 ? "SAME_LOWER"
                                          : NULL,
                   .activation = activations[act],
                   .alpha = alpha[act],
                   .beta = beta[act]};
    f.filters = depthwise ? f.channels : case_pick(1, 37);
    while (!random_window(&f))
        ;
    check_conv(&f);
}

static void convolutions_are_as_defined(void **state)
{
    (void)state;
    for (int i = 0; i < 400; i++)
        random_conv(false);
    /* 1x1 without stride and padding is a product of its own */
    for (int form = 0; form < 16; form++)
        check_conv(&(conv_form){.spatial = 2,
                                .images = 2,
                                .channels = form & 8 ? 7 : 32,
                                .filters = 19,
                                .in = {5, 3},
                                .out = {5, 3},
                                .kernel = {1, 1},
                                .stride = {1, 1},
                                .dilation = {1, 1},
                                .half_x = form & 1,
                                .half_y = form & 2,
                                .residual = form & 4,
                                .bias = form & 4});
}

static void depthwise_convolutions_are_as_defined(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++)
        random_conv(true);
}

/* A convolution that fits, [2,4,4,C] with filters [6,C,3,3], for one thing at a time to be wrong. */
static op_case good_conv(int64_t channels, bool depthwise)
{
    op_case c = case_new(TERSE_OP_BCONV, 1);
    const conv_form f = {.spatial = 2,
                         .channels = channels,
                         .filters = depthwise ? channels : 6,
                         .kernel = {3, 3},
                         .stride = {1, 1},
                         .dilation = {1, 1},
                         .depthwise = depthwise,
                         .half_y = depthwise};
    const int64_t dims[] = {2, 4, 4, channels};
    half_input(&c, 0, 4, dims);
    free(conv_weights(&c, &f));
    conv_attributes(&c, &f);
    return c;
}

#define REFUSES(channels, depthwise, text, ...)                                                                        \
    do {                                                                                                               \
        op_case c = good_conv(channels, depthwise);                                                                    \
        __VA_ARGS__;                                                                                                   \
        case_refused(&c, text);                                                                                        \
        case_free(&c);                                                                                                 \
    } while (0)
#define SET_INT(name, number) assert_true(terse_node_set_int(c.graph, c.node, name, number))
#define SET_TEXT(name, text) assert_true(terse_node_set_text(c.graph, c.node, name, text))

static void convolutions_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    for (int form = 0; form < 2; form++) { /* or the rest would prove nothing */
        op_case c = good_conv(4, form);
        case_ok(&c);
        case_free(&c);
    }
    REFUSES(4, false, "do not go together", SET_INT("group", 2));
    REFUSES(4, false, "do not go together", SET_INT("channels_last", 0));
    REFUSES(4, false, "do not go together", c.inputs[0].dims[3] = c.inputs[0].row_stride = 2);
    REFUSES(4, false, "do not go together", c.inputs[1].layout = TERSE_LAYOUT_PLAIN);
    REFUSES(4, true, "do not go together", SET_INT("group", 1));
    REFUSES(4, true, "do not go together", c.inputs[0].dtype = TERSE_FP32);
    REFUSES(4, true, "depthwise weights allow bf16 only", SET_TEXT("to", "f32"));
    REFUSES(4, false, "allowed are bf16 and f32", SET_TEXT("to", "u8"));
    REFUSES(4, false, "the kernel covers", case_set_ints(&c, "dilations", 2, (int64_t[]){2, 1}));
    REFUSES(4, false, "strides", case_set_ints(&c, "strides", 2, (int64_t[]){0, 1}));
    REFUSES(4, false, "pads", case_set_ints(&c, "pads", 3, (int64_t[]){0, 0, 0}));
    REFUSES(4, false, "attribute activation is 'Relu7'", SET_TEXT("activation", "Relu7"));
    REFUSES(4, false, "rank", c.inputs[1].rank = 3);
    REFUSES(4, false, "needed is [6]", case_input(&c, 2, CASE_DIMS(5)));
    REFUSES(4, false, "the output has [2,2,2,6]", case_input(&c, 3, CASE_DIMS(2, 2, 1, 6)));
    REFUSES(4, false, "input 3 (residual)", half_input(&c, 3, CASE_DIMS(2, 2, 2, 6)));
    REFUSES(4, false, "do not keep pairs", widen(&c, 0, 5));
}

int main(void)
{
    case_seed = 20261126;
    print_message("seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_as_defined),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(convolutions_are_as_defined),
        cmocka_unit_test(depthwise_convolutions_are_as_defined),
        cmocka_unit_test(convolutions_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
