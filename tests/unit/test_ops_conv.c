/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "common/kernels/winograd.h"
#include "op_case.h"

typedef struct shape {
    int rank; /* spatial axes */
    int64_t n, channels, filters, groups;
    int64_t in[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3], out[3]; /* the first `rank` count */
} shape;

static int64_t product(const int64_t *dims, int rank)
{
    return terse_dims_count(dims, rank);
}

static shape random_shape(bool depthwise)
{
    shape s = {.rank = (int)case_pick(1, 3), .n = case_pick(1, 3), .groups = case_pick(1, 3)};
    s.channels = s.groups * case_pick(1, 5);
    s.filters = s.groups * case_pick(1, 21);
    if (depthwise)
        s.groups = s.channels = s.filters = case_pick(2, 37);
    for (int i = 0; i < s.rank; i++) {
        s.kernel[i] = case_pick(1, 3);
        s.stride[i] = case_pick(1, 3);
        s.dilation[i] = case_pick(1, 2);
        s.pad[i] = case_pick(0, 2);
        s.pad_end[i] = case_pick(0, 2);
        const int64_t reach = (s.kernel[i] - 1) * s.dilation[i] + 1;
        s.in[i] = reach + case_pick(0, 5);
        s.out[i] = (s.in[i] + s.pad[i] + s.pad_end[i] - reach) / s.stride[i] + 1;
    }
    return s;
}

/* Input index of output `out`, kernel position `at`; -1 in the padding. Both are flat over the spatial axes. */
static int64_t input_of(const shape *s, int64_t out, int64_t at)
{
    int64_t index = 0, scale = 1;
    for (int i = s->rank - 1; i >= 0; i--) {
        const int64_t x = out % s->out[i] * s->stride[i] - s->pad[i] + at % s->kernel[i] * s->dilation[i];
        if (x < 0 || x >= s->in[i])
            return -1;
        index += x * scale;
        scale *= s->in[i];
        out /= s->out[i];
        at /= s->kernel[i];
    }
    return index;
}

/* ONNX's definition in double, NCHW. */
static float *convolve(const shape *s, const float *x, const float *w, const float *bias, const float *residual)
{
    const int64_t pixels = product(s->in, s->rank), outs = product(s->out, s->rank), p = product(s->kernel, s->rank);
    const int64_t cg = s->channels / s->groups, fg = s->filters / s->groups;
    float *y = malloc((size_t)(s->n * s->filters * outs) * sizeof *y);
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t f = 0; f < s->filters; f++)
            for (int64_t o = 0; o < outs; o++) {
                const int64_t at = (n * s->filters + f) * outs + o;
                double sum = bias ? (double)bias[f] : 0;
                for (int64_t c = 0; c < cg; c++)
                    for (int64_t k = 0; k < p; k++) {
                        const int64_t i = input_of(s, o, k);
                        if (i >= 0)
                            sum += (double)x[(n * s->channels + f / fg * cg + c) * pixels + i] *
                                   (double)w[(f * cg + c) * p + k];
                    }
                sum += residual ? (double)residual[at] : 0;
                y[at] = sum > 0 ? (float)sum : (float)(0.25 * sum); /* LeakyRelu, fused */
            }
    return y;
}

static void set_attributes(op_case *c, const shape *s)
{
    int64_t pads[6];
    for (int i = 0; i < s->rank; i++) {
        pads[i] = s->pad[i];
        pads[s->rank + i] = s->pad_end[i];
    }
    case_set_ints(c, "strides", s->rank, s->stride);
    case_set_ints(c, "dilations", s->rank, s->dilation);
    case_set_ints(c, "pads", 2 * s->rank, pads);
    case_set_ints(c, "kernel_shape", s->rank, s->kernel);
    terse_node_set_int(c->graph, c->node, "group", s->groups);
    terse_node_set_text(c->graph, c->node, "activation", "LeakyRelu");
    terse_node_set_float(c->graph, c->node, "activation_alpha", 0.25);
}

static int dims_of(int64_t a, int64_t b, const int64_t *spatial, int rank, int64_t *ret_dims)
{
    ret_dims[0] = a;
    ret_dims[1] = b;
    memcpy(ret_dims + 2, spatial, (size_t)rank * sizeof *spatial);
    return rank + 2;
}

static op_case nchw_case(const shape *s, bool with_residual)
{
    op_case c = case_new(TERSE_OP_CONV, 1);
    int64_t dims[TERSE_MAX_RANK];
    int rank = dims_of(s->n, s->channels, s->in, s->rank, dims);
    case_input(&c, 0, rank, dims);
    dims_of(s->filters, s->channels / s->groups, s->kernel, s->rank, dims);
    case_input(&c, 1, rank, dims);
    case_input(&c, 2, 1, &s->filters);
    dims_of(s->n, s->filters, s->out, s->rank, dims);
    if (with_residual)
        case_input(&c, 3, rank, dims);
    set_attributes(&c, s);
    return c;
}

/* Weights in a packed layout, straight from the layouts' definition. */
static float *pack(const shape *s, const float *w, terse_layout layout)
{
    const int64_t p = product(s->kernel, s->rank), cg = s->channels / s->groups, fg = s->filters / s->groups;
    const int64_t blocks = (fg + 15) / 16, wide = (s->filters + 15) / 16 * 16;
    float *packed = calloc((size_t)((s->groups * blocks * p * cg + wide * p) * 16), sizeof *packed);
    for (int64_t f = 0; f < s->filters; f++)
        for (int64_t c = 0; c < cg; c++)
            for (int64_t k = 0; k < p; k++) {
                const int64_t at = ((f / fg * blocks + f % fg / 16) * p * cg + k * cg + c) * 16 + f % fg % 16;
                packed[layout == TERSE_LAYOUT_F32_DW16 ? k * wide + f : at] = w[(f * cg + c) * p + k];
            }
    return packed;
}

/* [N,C,spatial] to [N,spatial,C] with pixels `stride` apart, and back. */
static void turn(float *nchw, float *nhwc, int64_t n, int64_t channels, int64_t pixels, int64_t stride, bool back)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < pixels; p++) {
                float *a = &nchw[(i * channels + c) * pixels + p], *b = &nhwc[(i * pixels + p) * stride + c];
                *(back ? a : b) = back ? *b : *a;
            }
}

static void put_channels_last(op_case *c, int index, int64_t n, int64_t channels, const int64_t *spatial, int rank,
                              float *nchw, int64_t stride)
{
    const int64_t pixels = product(spatial, rank);
    int64_t dims[TERSE_MAX_RANK] = {n};
    memcpy(dims + 1, spatial, (size_t)rank * sizeof *spatial);
    dims[rank + 1] = channels;
    c->inputs[index] =
        terse_tensor_view(calloc((size_t)(n * pixels * stride), sizeof(float)), TERSE_FP32, rank + 2, dims);
    c->inputs[index].row_stride = stride;
    c->present[index] = true;
    c->n_inputs = c->n_inputs > index + 1 ? c->n_inputs : index + 1;
    turn(nchw, c->inputs[index].data, n, channels, pixels, stride, false);
}

/* The same convolution on channels-last activations in wider rows and packed weights: the same bits. */
static void check_packed(const shape *s, op_case *plain)
{
    op_case c = case_new(TERSE_OP_CONV, 1);
    const terse_layout layout = s->groups == s->channels && s->groups == s->filters && s->groups > 1
                                    ? TERSE_LAYOUT_F32_DW16
                                    : TERSE_LAYOUT_F32_N16;
    set_attributes(&c, s);
    terse_node_set_int(c.graph, c.node, "channels_last", 1);
    put_channels_last(&c, 0, s->n, s->channels, s->in, s->rank, plain->inputs[0].data, s->channels + 3);
    c.inputs[1] = plain->inputs[1];
    c.inputs[1].layout = layout;
    c.inputs[1].data = pack(s, plain->inputs[1].data, layout);
    c.present[1] = c.constant[1] = true;
    case_constant(&c, 2, TERSE_FP32, 1, &s->filters, plain->inputs[2].data);
    if (plain->present[3])
        put_channels_last(&c, 3, s->n, s->filters, s->out, s->rank, plain->inputs[3].data, s->filters + 1);
    assert_int_equal(case_run_strided(&c, s->filters + 5), TERSE_OK);
    const int64_t outs = product(s->out, s->rank);
    float *y = malloc((size_t)(s->n * s->filters * outs) * sizeof *y);
    turn(y, c.outputs[0].data, s->n, s->filters, outs, s->filters + 5, true);
    assert_memory_equal(y, plain->outputs[0].data, (size_t)(s->n * s->filters * outs) * sizeof *y);
    free(y);
    case_free(&c);
}

/* Weights in the domain of F(4x4,3x3), from its definition (common/kernels/winograd.h). */
static float *transformed(const shape *s, const float *w)
{
    const double a = WINOGRAD_A, b = WINOGRAD_B;
    const double g[6][3] = {{1, 0, 0},
                            {-2.0 / 3, -2 * a / 3, -1.0 / 3},
                            {-2.0 / 3, 2 * a / 3, -1.0 / 3},
                            {1.0 / 6, b / 6, 1.0 / 3},
                            {1.0 / 6, -b / 6, 1.0 / 3},
                            {0, 0, 1}};
    const int64_t panels = (s->filters + 15) / 16;
    float *to = calloc((size_t)(36 * panels * s->channels * 16), sizeof *to);
    for (int64_t i = 0; i < 36 * s->filters * s->channels; i++) {
        const int64_t point = i / s->channels / s->filters, f = i / s->channels % s->filters, c = i % s->channels;
        double sum = 0;
        for (int64_t k = 0; k < 9; k++)
            sum += g[point / 6][k / 3] * g[point % 6][k % 3] * (double)w[(f * s->channels + c) * 9 + k];
        to[((point * panels + f / 16) * s->channels + c) * 16 + f % 16] = (float)sum;
    }
    return to;
}

static void test_weights_in_the_winograd_domain_give_the_same_convolution(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        shape s = {.rank = 2, .n = case_pick(1, 3), .groups = 1};
        s.channels = case_pick(1, 20);
        s.filters = case_pick(1, 40);
        for (int axis = 0; axis < 2; axis++) {
            s.kernel[axis] = 3;
            s.stride[axis] = 1;
            s.dilation[axis] = i % 2 ? 1 : case_pick(1, 4);
            s.pad[axis] = case_pick(0, 2);
            s.pad_end[axis] = case_pick(0, 2);
            s.in[axis] = case_pick(2 * s.dilation[axis] + 1, 14);
            s.out[axis] = s.in[axis] + s.pad[axis] + s.pad_end[axis] - 2 * s.dilation[axis];
        }
        op_case c = nchw_case(&s, i % 3 == 0);
        float *w = c.inputs[1].data;
        float *want = convolve(&s, c.inputs[0].data, w, c.inputs[2].data, c.present[3] ? c.inputs[3].data : NULL);
        c.inputs[1].data = transformed(&s, w);
        c.inputs[1].layout = TERSE_LAYOUT_F32_WINOGRAD4;
        c.constant[1] = true;
        free(w);
        case_ok(&c);
        case_close(c.outputs[0].data, want, terse_tensor_count(&c.outputs[0]), 1e-4);
        free(want);
        case_free(&c);
    }
}

static void test_weights_in_the_winograd_domain_need_strides_of_one(void **state)
{
    (void)state;
    const shape s = {.rank = 2,
                     .n = 1,
                     .groups = 1,
                     .channels = 2,
                     .filters = 2,
                     .in = {9, 9},
                     .kernel = {3, 3},
                     .stride = {1, 1},
                     .dilation = {1, 1},
                     .out = {7, 7}};
    op_case c = nchw_case(&s, false);
    float *w = c.inputs[1].data;
    c.inputs[1].data = transformed(&s, w);
    free(w);
    c.inputs[1].layout = TERSE_LAYOUT_F32_WINOGRAD4;
    c.constant[1] = true;
    CASE_ATTR_INTS(&c, "strides", 1, 2);
    case_refused(&c, "weights in layout f32_winograd4 are for 3x3");
    case_free(&c);
}

/* The first image alone gives the bits that it has in the batch. */
static void check_alone(const shape *s, op_case *all)
{
    shape one = *s;
    one.n = 1;
    op_case c = nchw_case(&one, all->present[3]);
    for (int i = 0; i < c.n_inputs; i++)
        memcpy(c.inputs[i].data, all->inputs[i].data, (size_t)terse_tensor_bytes(&c.inputs[i]));
    case_ok(&c);
    assert_memory_equal(c.outputs[0].data, all->outputs[0].data, (size_t)terse_tensor_bytes(&c.outputs[0]));
    case_free(&c);
}

static void check_random(bool depthwise)
{
    for (int i = 0; i < 120; i++) {
        const shape s = random_shape(depthwise);
        op_case c = nchw_case(&s, i % 3 == 0);
        case_ok(&c);
        float *want =
            convolve(&s, c.inputs[0].data, c.inputs[1].data, c.inputs[2].data, c.present[3] ? c.inputs[3].data : NULL);
        case_close(c.outputs[0].data, want, terse_tensor_count(&c.outputs[0]), 1e-5);
        assert_int_equal(c.macs, s.n * s.filters * product(s.out, s.rank) * (s.channels / s.groups) *
                                     product(s.kernel, s.rank));
        check_packed(&s, &c);
        check_alone(&s, &c);
        free(want);
        case_free(&c);
    }
}

static void test_conv_follows_its_definition_in_every_form(void **state)
{
    (void)state;
    check_random(false);
}

static void test_depthwise_conv_follows_its_definition_in_every_form(void **state)
{
    (void)state;
    check_random(true);
}

static void test_conv_reads_and_writes_strided_rows_in_nchw(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_CONV, 1);
    float *x = case_input(&c, 0, CASE_DIMS(1, 1, 3, 5));
    for (int i = 0; i < 15; i++)
        x[i] = (float)i;
    c.inputs[0].dims[3] = 4; /* rows of 4 in rows of 5 */
    CASE_FLOATS(&c, 1, CASE_DIMS(1, 1, 2, 2), 1, 10, 100, 1000);
    assert_int_equal(case_run_strided(&c, 7), TERSE_OK);
    const float *y = c.outputs[0].data;
    for (int r = 0; r < 2; r++)
        for (int k = 0; k < 3; k++)
            assert_true(y[r * 7 + k] ==
                        (float)((5 * r + k) + 10 * (5 * r + k + 1) + 100 * (5 * r + k + 5) + 1000 * (5 * r + k + 6)));
    case_free(&c);
}

static void check_auto_pad(const char *mode, int n, const float *want)
{
    op_case c = case_new(TERSE_OP_CONV, 1);
    CASE_FLOATS(&c, 0, CASE_DIMS(1, 1, 5), 1, 2, 3, 4, 5);
    CASE_FLOATS(&c, 1, CASE_DIMS(1, 1, 2), 1, 10);
    terse_node_set_text(c.graph, c.node, "auto_pad", mode);
    case_ok(&c);
    assert_int_equal(terse_tensor_count(&c.outputs[0]), n);
    case_close(c.outputs[0].data, want, n, 0);
    case_free(&c);
}

static void test_auto_pad_puts_the_odd_pixel_where_it_says(void **state)
{
    (void)state;
    check_auto_pad("SAME_UPPER", 5, (float[]){21, 32, 43, 54, 5});
    check_auto_pad("SAME_LOWER", 5, (float[]){10, 21, 32, 43, 54});
    check_auto_pad("VALID", 4, (float[]){21, 32, 43, 54});
    check_auto_pad("NOTSET", 4, (float[]){21, 32, 43, 54});
}

static void refuse(const char *name, int64_t value, const char *text)
{
    op_case c = case_new(TERSE_OP_CONV, 1);
    case_input(&c, 0, CASE_DIMS(1, 4, 6, 6));
    case_input(&c, 1, CASE_DIMS(4, 2, 3, 3));
    terse_node_set_int(c.graph, c.node, "group", 2);
    if (strcmp(name, "pads") == 0)
        CASE_ATTR_INTS(&c, name, value, 0, 0, 0);
    else if (strcmp(name, "group") == 0)
        terse_node_set_int(c.graph, c.node, name, value);
    else
        CASE_ATTR_INTS(&c, name, value, 1);
    case_refused(&c, text);
    case_free(&c);
}

static void test_hostile_attributes_are_refused_by_name(void **state)
{
    (void)state;
    refuse("kernel_shape", 0, "kernel_shape has 0");
    refuse("kernel_shape", 2, "kernel_shape has 2");
    refuse("strides", 0, "strides has 0");
    refuse("strides", INT64_MIN, "strides has");
    refuse("dilations", (int64_t)1 << 62, "dilations has");
    refuse("dilations", (int64_t)1 << 30, "the kernel covers 2147483649 positions");
    refuse("pads", -1, "pads has -1");
    refuse("pads", INT64_MAX, "pads has");
    refuse("group", 3, "group 3");
    refuse("group", 0, "attribute group is 0");
    refuse("group", 4, "group 4");
}

static void test_an_empty_batch_is_no_work(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_CONV, 1);
    case_input(&c, 0, CASE_DIMS(0, 2, 4, 4));
    case_input(&c, 1, CASE_DIMS(3, 2, 3, 3));
    case_ok(&c);
    assert_int_equal(c.outputs[0].dims[0], 0);
    assert_int_equal(c.outputs[0].dims[3], 2);
    case_free(&c);
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv_follows_its_definition_in_every_form),
        cmocka_unit_test(test_depthwise_conv_follows_its_definition_in_every_form),
        cmocka_unit_test(test_conv_reads_and_writes_strided_rows_in_nchw),
        cmocka_unit_test(test_auto_pad_puts_the_odd_pixel_where_it_says),
        cmocka_unit_test(test_weights_in_the_winograd_domain_give_the_same_convolution),
        cmocka_unit_test(test_weights_in_the_winograd_domain_need_strides_of_one),
        cmocka_unit_test(test_hostile_attributes_are_refused_by_name),
        cmocka_unit_test(test_an_empty_batch_is_no_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
