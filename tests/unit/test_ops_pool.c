/* SPDX-License-Identifier: Apache-2.0 */
/* Pools: 2-D windows against loops in double, channels-last against NCHW, corners by hand. */
#include <time.h>

#include "op_case.h"

typedef struct window {
    int64_t n, channels, in[2], out[2], kernel[2], stride[2], dilation[2], pad[2], pad_end[2];
    bool ceil_mode, include_pad;
} window;

static window random_window(void)
{
    window w = {.n = case_pick(1, 3),
                .channels = case_pick(1, 35),
                .ceil_mode = case_pick(0, 1),
                .include_pad = case_pick(0, 1)};
    for (int i = 0; i < 2; i++) {
        w.kernel[i] = case_pick(1, 3);
        w.stride[i] = case_pick(1, 3);
        w.dilation[i] = case_pick(1, 2);
        const int64_t reach = (w.kernel[i] - 1) * w.dilation[i] + 1;
        w.pad[i] = w.dilation[i] > 1 ? 0 : case_pick(0, w.kernel[i] - 1);
        w.pad_end[i] = w.dilation[i] > 1 ? 0 : case_pick(0, w.kernel[i] - 1);
        w.in[i] = reach + case_pick(0, 6);
        const int64_t room = w.in[i] + w.pad[i] + w.pad_end[i] - reach;
        w.out[i] = room / w.stride[i] + 1;
        if (w.ceil_mode && room % w.stride[i] && w.out[i] * w.stride[i] < w.in[i] + w.pad[i])
            w.out[i]++;
    }
    return w;
}

static float pool_one(const window *w, const float *plane, int64_t y, int64_t x, bool average)
{
    double sum = 0, most = -INFINITY;
    int64_t inside = 0, padded = 0;
    for (int64_t i = 0; i < w->kernel[0]; i++)
        for (int64_t j = 0; j < w->kernel[1]; j++) {
            const int64_t r = y * w->stride[0] - w->pad[0] + i * w->dilation[0];
            const int64_t c = x * w->stride[1] - w->pad[1] + j * w->dilation[1];
            padded += r < w->in[0] + w->pad_end[0] && c < w->in[1] + w->pad_end[1];
            if (r < 0 || c < 0 || r >= w->in[0] || c >= w->in[1])
                continue;
            inside++;
            sum += (double)plane[r * w->in[1] + c];
            most = fmax(most, (double)plane[r * w->in[1] + c]);
        }
    return (float)(average ? sum / (double)(w->include_pad ? padded : inside) : most);
}

static op_case pool_case(const window *w, terse_op op, int n_outputs)
{
    op_case c = case_new(op, n_outputs);
    case_set_ints(&c, "kernel_shape", 2, w->kernel);
    case_set_ints(&c, "strides", 2, w->stride);
    case_set_ints(&c, "dilations", 2, w->dilation);
    CASE_ATTR_INTS(&c, "pads", w->pad[0], w->pad[1], w->pad_end[0], w->pad_end[1]);
    terse_node_set_int(c.graph, c.node, "ceil_mode", w->ceil_mode);
    terse_node_set_int(c.graph, c.node, "count_include_pad", w->include_pad);
    return c;
}

/* The same on channels-last activations whose pixels are wider than their channels: the same bits. */
static void check_channels_last(const window *w, op_case *plain)
{
    op_case c = pool_case(w, plain->op, 1);
    const int64_t pixels = w->in[0] * w->in[1], outs = w->out[0] * w->out[1], stride = w->channels + 3;
    terse_node_set_int(c.graph, c.node, "channels_last", 1);
    float *x = case_input(&c, 0, 4, (int64_t[]){w->n, w->in[0], w->in[1], stride});
    c.inputs[0].dims[3] = w->channels;
    for (int64_t i = 0; i < w->n * w->channels * pixels; i++)
        x[(i / (w->channels * pixels) * pixels + i % pixels) * stride + i / pixels % w->channels] =
            ((float *)plain->inputs[0].data)[i];
    assert_int_equal(case_run_strided(&c, stride), TERSE_OK);
    for (int64_t i = 0; i < w->n * w->channels * outs; i++)
        assert_memory_equal((float *)c.outputs[0].data + (i / (w->channels * outs) * outs + i % outs) * stride +
                                i / outs % w->channels,
                            (float *)plain->outputs[0].data + i, sizeof(float));
    case_free(&c);
}

static void check_pool(terse_op op)
{
    const window w = random_window();
    op_case c = pool_case(&w, op, 1);
    const float *x = case_input(&c, 0, 4, (int64_t[]){w.n, w.channels, w.in[0], w.in[1]});
    case_ok(&c);
    const float *y = c.outputs[0].data;
    assert_int_equal(c.outputs[0].dims[2], w.out[0]);
    assert_int_equal(c.outputs[0].dims[3], w.out[1]);
    for (int64_t i = 0; i < w.n * w.channels * w.out[0] * w.out[1]; i++) {
        const int64_t plane = i / (w.out[0] * w.out[1]);
        const float want = pool_one(&w, x + plane * w.in[0] * w.in[1], i / w.out[1] % w.out[0], i % w.out[1],
                                    op == TERSE_OP_AVERAGE_POOL);
        case_close(y + i, &want, 1, op == TERSE_OP_AVERAGE_POOL ? 1e-6 : 0);
    }
    check_channels_last(&w, &c);
    if (op == TERSE_OP_MAX_POOL) { /* with Indices: the same maxima, and x at the index is the maximum */
        op_case indexed = pool_case(&w, op, 2);
        case_constant(&indexed, 0, TERSE_FP32, 4, c.inputs[0].dims, x);
        case_ok(&indexed);
        assert_memory_equal(indexed.outputs[0].data, y, (size_t)terse_tensor_bytes(&c.outputs[0]));
        for (int64_t i = 0; i < terse_tensor_count(&c.outputs[0]); i++)
            assert_true(x[((int64_t *)indexed.outputs[1].data)[i]] == y[i]);
        case_free(&indexed);
    }
    case_free(&c);
}

static void test_max_pool_follows_its_definition_in_both_layouts(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        check_pool(TERSE_OP_MAX_POOL);
}

static void test_average_pool_follows_its_definition_in_both_layouts(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        check_pool(TERSE_OP_AVERAGE_POOL);
}

static void test_max_pool_of_bytes_and_column_major_indices(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_MAX_POOL, 2);
    case_constant(&c, 0, TERSE_INT8, 4, (int64_t[]){1, 1, 2, 3}, (int8_t[]){-5, -7, -1, -128, -3, -9});
    CASE_ATTR_INTS(&c, "kernel_shape", 2, 2);
    terse_node_set_int(c.graph, c.node, "storage_order", 1);
    case_ok(&c);
    const int8_t *y = c.outputs[0].data;
    const int64_t *at = c.outputs[1].data;
    assert_true(y[0] == -3 && y[1] == -1);
    assert_true(at[0] == 3 && at[1] == 4); /* row + rows * column */
    case_free(&c);
}

static void test_a_nan_wins_with_and_without_indices(void **state)
{
    (void)state;
    for (int n_outputs = 1; n_outputs < 3; n_outputs++) {
        op_case c = case_new(TERSE_OP_MAX_POOL, n_outputs);
        CASE_FLOATS(&c, 0, CASE_DIMS(1, 1, 4), 1, NAN, 9, 2);
        CASE_ATTR_INTS(&c, "kernel_shape", 3);
        case_ok(&c);
        assert_true(isnan(((float *)c.outputs[0].data)[0]) && isnan(((float *)c.outputs[0].data)[1]));
        if (n_outputs == 2)
            assert_true(((int64_t *)c.outputs[1].data)[0] == 1 && ((int64_t *)c.outputs[1].data)[1] == 1);
        case_free(&c);
    }
}

static void test_global_pools_reduce_an_image_to_a_pixel(void **state)
{
    (void)state;
    for (int last = 0; last < 2; last++)
        for (int average = 0; average < 2; average++) {
            op_case c = case_new(average ? TERSE_OP_GLOBAL_AVERAGE_POOL : TERSE_OP_GLOBAL_MAX_POOL, 1);
            if (last)
                CASE_FLOATS(&c, 0, CASE_DIMS(1, 2, 2, 2), 1, 10, 2, 30, 3, 20, 6, 40);
            else
                CASE_FLOATS(&c, 0, CASE_DIMS(1, 2, 2, 2), 1, 2, 3, 6, 10, 30, 20, 40);
            terse_node_set_int(c.graph, c.node, "channels_last", last);
            case_ok(&c);
            assert_int_equal(c.outputs[0].dims[last ? 3 : 1], 2);
            if (average)
                CASE_WANT(&c, 0, 0, 3, 25);
            else
                CASE_WANT(&c, 0, 0, 6, 40);
            case_free(&c);
        }
}

static void refuse(const char *name, int64_t a, int64_t b, const char *text)
{
    op_case c = case_new(TERSE_OP_MAX_POOL, 1);
    case_input(&c, 0, CASE_DIMS(1, 1, 4, 4));
    if (strcmp(name, "none") != 0)
        CASE_ATTR_INTS(&c, "kernel_shape", 2, 2);
    if (strcmp(name, "pads") == 0)
        CASE_ATTR_INTS(&c, name, a, b, 0, 0);
    else if (strcmp(name, "none") != 0)
        CASE_ATTR_INTS(&c, name, a, b);
    case_refused(&c, text);
    case_free(&c);
}

static void test_hostile_windows_are_refused_by_name(void **state)
{
    (void)state;
    refuse("none", 0, 0, "kernel_shape is missing");
    refuse("kernel_shape", 0, 2, "kernel_shape has 0");
    refuse("kernel_shape", 5, 2, "the kernel covers 5 positions, the padded axis has 4");
    refuse("strides", -1, 1, "strides has -1");
    refuse("dilations", (int64_t)1 << 62, 1, "dilations has");
    refuse("pads", 2, 0, "pads are 2 and 0");
    refuse("pads", INT64_MAX, 0, "pads has");
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_max_pool_follows_its_definition_in_both_layouts),
        cmocka_unit_test(test_average_pool_follows_its_definition_in_both_layouts),
        cmocka_unit_test(test_max_pool_of_bytes_and_column_major_indices),
        cmocka_unit_test(test_a_nan_wins_with_and_without_indices),
        cmocka_unit_test(test_global_pools_reduce_an_image_to_a_pixel),
        cmocka_unit_test(test_hostile_windows_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
