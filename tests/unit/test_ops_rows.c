/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions, Softmax and normalizations: values by hand or by loops in double, and a row alone against a batch. */
#include <time.h>

#include "op_case.h"

static void check_reduce(terse_op op, int n_axes, const int64_t *axes, int keep, int n, const float *want)
{
    op_case c = case_new(op, 1);
    CASE_FLOATS(&c, 0, CASE_DIMS(2, 2, 3), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    case_constant(&c, 1, TERSE_INT64, 1, (int64_t[]){n_axes}, axes);
    terse_node_set_int(c.graph, c.node, "keepdims", keep);
    case_ok(&c);
    assert_int_equal(c.outputs[0].rank, keep ? 3 : 3 - (n_axes ? n_axes : 3));
    assert_int_equal(terse_tensor_count(&c.outputs[0]), n);
    case_close(c.outputs[0].data, want, n, 0);
    case_free(&c);
}

static void test_reductions_over_any_axes(void **state)
{
    (void)state;
    check_reduce(TERSE_OP_REDUCE_SUM, 1, (int64_t[]){0}, 0, 6, (float[]){8, 10, 12, 14, 16, 18});
    check_reduce(TERSE_OP_REDUCE_SUM, 1, (int64_t[]){-1}, 1, 4, (float[]){6, 15, 24, 33});
    check_reduce(TERSE_OP_REDUCE_SUM, 2, (int64_t[]){0, 2}, 0, 2, (float[]){30, 48});
    check_reduce(TERSE_OP_REDUCE_MEAN, 1, (int64_t[]){1}, 1, 6, (float[]){2.5, 3.5, 4.5, 8.5, 9.5, 10.5});
    check_reduce(TERSE_OP_REDUCE_MEAN, 0, (int64_t[]){0}, 0, 1, (float[]){6.5});
    check_reduce(TERSE_OP_REDUCE_MAX, 2, (int64_t[]){2, 1}, 0, 2, (float[]){6, 12});
    check_reduce(TERSE_OP_REDUCE_MAX, 2, (int64_t[]){0, 1}, 0, 3, (float[]){10, 11, 12});
    check_reduce(TERSE_OP_REDUCE_PROD, 1, (int64_t[]){-1}, 1, 4, (float[]){6, 120, 504, 1320});
    check_reduce(TERSE_OP_REDUCE_PROD, 2, (int64_t[]){0, 1}, 0, 3, (float[]){280, 880, 1944});
}

static void test_reductions_of_integers_and_of_nothing(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_REDUCE_MEAN, 1);
    case_constant(&c, 0, TERSE_INT32, 1, (int64_t[]){3}, (int32_t[]){-1, -2, -5});
    case_ok(&c);
    assert_int_equal(*(int32_t *)c.outputs[0].data, -2); /* -8 / 3 */
    case_free(&c);
    c = case_new(TERSE_OP_REDUCE_MAX, 1);
    case_constant(&c, 0, TERSE_UINT8, 2, (int64_t[]){2, 2}, (uint8_t[]){1, 200, 3, 4});
    CASE_INTS(&c, 1, 1);
    case_ok(&c);
    assert_true(((uint8_t *)c.outputs[0].data)[0] == 200 && ((uint8_t *)c.outputs[0].data)[1] == 4);
    case_free(&c);
    c = case_new(TERSE_OP_REDUCE_SUM, 1);
    case_input(&c, 0, CASE_DIMS(2, 0));
    CASE_INTS(&c, 1, 1);
    case_ok(&c);
    CASE_WANT(&c, 0, 0, 0, 0);
    case_free(&c);
    c = case_new(TERSE_OP_REDUCE_PROD, 1);
    case_input(&c, 0, CASE_DIMS(2, 0));
    CASE_INTS(&c, 1, 1);
    case_ok(&c);
    CASE_WANT(&c, 0, 0, 1, 1);
    case_free(&c);
    c = case_new(TERSE_OP_REDUCE_PROD, 1);
    case_constant(&c, 0, TERSE_INT64, 1, (int64_t[]){3}, (int64_t[]){INT64_MAX, 2, -1});
    case_ok(&c);
    assert_true(((int64_t *)c.outputs[0].data)[0] == 2); /* wraps */
    case_free(&c);
    c = case_new(TERSE_OP_REDUCE_SUM, 1);
    CASE_FLOATS(&c, 0, CASE_DIMS(2), 3, 4);
    terse_node_set_int(c.graph, c.node, "noop_with_empty_axes", 1);
    case_ok(&c);
    CASE_WANT(&c, 0, 0, 3, 4);
    case_free(&c);
}

static void test_bad_axes_are_refused(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_REDUCE_SUM, 1);
    case_input(&c, 0, CASE_DIMS(2, 3));
    CASE_INTS(&c, 1, 2);
    case_refused(&c, "axis 2");
    case_free(&c);
    c = case_new(TERSE_OP_REDUCE_SUM, 1);
    case_input(&c, 0, CASE_DIMS(2, 3));
    CASE_INTS(&c, 1, 1, -1);
    case_refused(&c, "axis 1 twice");
    case_free(&c);
    c = case_new(TERSE_OP_SOFTMAX, 1);
    case_input(&c, 0, CASE_DIMS(2, 3));
    terse_node_set_int(c.graph, c.node, "axis", INT64_MIN);
    case_refused(&c, "axis -9223372036854775808");
    case_free(&c);
}

/* The rows of a batch, one by one, have the bits that they have together. */
static void check_rows_alone(terse_op op, const char *axes_attr, int64_t axis, int64_t rows, int64_t width)
{
    op_case all = case_new(op, 1);
    const float *x = case_input(&all, 0, CASE_DIMS(rows, 3, width));
    if (axes_attr)
        terse_node_set_int(all.graph, all.node, axes_attr, axis);
    else
        CASE_INTS(&all, 1, axis);
    case_ok(&all);
    const int64_t out = terse_tensor_count(&all.outputs[0]) / rows;
    for (int64_t r = 0; r < rows; r++) {
        op_case one = case_new(op, 1);
        case_constant(&one, 0, TERSE_FP32, 3, (int64_t[]){1, 3, width}, x + r * 3 * width);
        if (axes_attr)
            terse_node_set_int(one.graph, one.node, axes_attr, axis);
        else
            CASE_INTS(&one, 1, axis);
        case_ok(&one);
        assert_memory_equal(one.outputs[0].data, (float *)all.outputs[0].data + r * out, (size_t)out * sizeof(float));
        case_free(&one);
    }
    case_free(&all);
}

static void test_a_row_has_the_same_bits_alone_and_in_a_batch(void **state)
{
    (void)state;
    for (int64_t width = 1; width < 150; width += 13)
        for (int64_t axis = 1; axis < 3; axis++) {
            check_rows_alone(TERSE_OP_REDUCE_SUM, NULL, axis, 5, width);
            check_rows_alone(TERSE_OP_REDUCE_MEAN, NULL, axis, 5, width);
            check_rows_alone(TERSE_OP_SOFTMAX, "axis", axis, 5, width);
            check_rows_alone(TERSE_OP_LOG_SOFTMAX, "axis", axis, 5, width);
        }
}

static void check_softmax(int64_t axis, bool coerce)
{
    const int64_t dims[3] = {2, 5, 70};
    op_case c = case_new(TERSE_OP_SOFTMAX, 1);
    const float *x = case_input(&c, 0, 3, dims);
    terse_node_set_int(c.graph, c.node, "axis", axis);
    terse_node_set_int(c.graph, c.node, "coerce_2d", coerce);
    case_ok(&c);
    const int64_t length = coerce ? terse_dims_count(dims + axis, 3 - (int)axis) : dims[axis];
    const int64_t inner = coerce ? 1 : terse_dims_count(dims + axis + 1, 2 - (int)axis);
    for (int64_t i = 0; i < 700; i++) {
        const int64_t first = i / (length * inner) * length * inner + i % inner;
        double sum = 0;
        for (int64_t k = 0; k < length; k++)
            sum += exp((double)x[first + k * inner]);
        const float want = (float)(exp((double)x[i]) / sum);
        case_close((float *)c.outputs[0].data + i, &want, 1, 1e-6);
    }
    case_free(&c);
}

static void test_softmax_along_every_axis_and_over_coerced_rows(void **state)
{
    (void)state;
    for (int64_t axis = 0; axis < 3; axis++) {
        check_softmax(axis, false);
        check_softmax(axis, true);
    }
    op_case c = case_new(TERSE_OP_SOFTMAX, 1); /* [N] before opset 13 with axis 1: rows of one */
    CASE_FLOATS(&c, 0, CASE_DIMS(2), 5, 6);
    terse_node_set_int(c.graph, c.node, "coerce_2d", 1);
    case_ok(&c);
    CASE_WANT(&c, 0, 0, 1, 1);
    case_free(&c);
}

static void test_batch_normalization_by_hand(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_BATCH_NORMALIZATION, 1);
    CASE_FLOATS(&c, 0, CASE_DIMS(1, 2, 2), 1, 3, 10, 20);
    CASE_FLOATS(&c, 1, CASE_DIMS(2), 1, 2);
    CASE_FLOATS(&c, 2, CASE_DIMS(2), 0, 5);
    CASE_FLOATS(&c, 3, CASE_DIMS(2), 2, 10);
    CASE_FLOATS(&c, 4, CASE_DIMS(2), 0.75f, 99.75f);
    terse_node_set_float(c.graph, c.node, "epsilon", 0.25);
    case_ok(&c);
    CASE_WANT(&c, 0, 1e-6, -1, 1, 5, 7);
    case_free(&c);
    c = case_new(TERSE_OP_BATCH_NORMALIZATION, 1);
    case_input(&c, 0, CASE_DIMS(1, 2, 2));
    for (int i = 1; i < 5; i++)
        case_input(&c, i, CASE_DIMS(i == 3 ? 3 : 2));
    case_refused(&c, "input 3 (mean) has shape [3], needed is [2]");
    case_free(&c);
}

static void test_layer_normalization_gives_mean_and_inverse_deviation(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_LAYER_NORMALIZATION, 3);
    CASE_FLOATS(&c, 0, CASE_DIMS(2, 2, 2), 1, 1, 3, 3, 0, 4, 0, 4);
    CASE_FLOATS(&c, 1, CASE_DIMS(2), 1, 10);
    CASE_FLOATS(&c, 2, CASE_DIMS(2, 1), 100, 200);
    terse_node_set_int(c.graph, c.node, "axis", 1);
    terse_node_set_float(c.graph, c.node, "epsilon", 0);
    case_ok(&c);
    CASE_WANT(&c, 0, 1e-6, 99, 90, 201, 210, 99, 110, 199, 210);
    CASE_WANT(&c, 1, 1e-6, 2, 2);
    CASE_WANT(&c, 2, 1e-6, 1, 0.5f);
    assert_int_equal(c.outputs[1].rank, 3);
    case_free(&c);
}

static void test_group_and_instance_normalization_by_hand(void **state)
{
    (void)state;
    for (int instance = 0; instance < 2; instance++) {
        op_case c = case_new(instance ? TERSE_OP_INSTANCE_NORMALIZATION : TERSE_OP_GROUP_NORMALIZATION, 1);
        CASE_FLOATS(&c, 0, CASE_DIMS(1, 2, 2), 1, 3, 5, 7);
        CASE_FLOATS(&c, 1, CASE_DIMS(2), 1, 10);
        CASE_FLOATS(&c, 2, CASE_DIMS(2), 0, 100);
        terse_node_set_float(c.graph, c.node, "epsilon", 0);
        terse_node_set_int(c.graph, c.node, "num_groups", 1);
        case_ok(&c);
        const float d = (float)(1 / sqrt(5.0)); /* the group's deviation is sqrt 5 */
        if (instance)
            CASE_WANT(&c, 0, 1e-6, -1, 1, 90, 110);
        else
            CASE_WANT(&c, 0, 1e-6, -3 * d, -d, 100 + 10 * d, 100 + 30 * d);
        case_free(&c);
    }
    op_case c = case_new(TERSE_OP_GROUP_NORMALIZATION, 1);
    case_input(&c, 0, CASE_DIMS(1, 3, 2));
    case_input(&c, 1, CASE_DIMS(3));
    case_input(&c, 2, CASE_DIMS(3));
    terse_node_set_int(c.graph, c.node, "num_groups", 2);
    case_refused(&c, "num_groups is 2");
    case_free(&c);
}

static void test_lrn_by_hand(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const double beta = i ? 0.5 : 0.75;
        op_case c = case_new(TERSE_OP_LRN, 1);
        CASE_FLOATS(&c, 0, CASE_DIMS(1, 3, 1), 1, 2, 3);
        terse_node_set_int(c.graph, c.node, "size", 3);
        terse_node_set_float(c.graph, c.node, "alpha", 3);
        terse_node_set_float(c.graph, c.node, "beta", beta);
        terse_node_set_float(c.graph, c.node, "bias", 2);
        case_ok(&c);
        CASE_WANT(&c, 0, 1e-6, (float)(1 / pow(7, beta)), (float)(2 / pow(16, beta)), (float)(3 / pow(15, beta)));
        case_free(&c);
    }
    op_case c = case_new(TERSE_OP_LRN, 1);
    case_input(&c, 0, CASE_DIMS(1, 3, 1));
    terse_node_set_int(c.graph, c.node, "size", 0);
    case_refused(&c, "attribute size is 0");
    case_free(&c);
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reductions_over_any_axes),
        cmocka_unit_test(test_reductions_of_integers_and_of_nothing),
        cmocka_unit_test(test_bad_axes_are_refused),
        cmocka_unit_test(test_a_row_has_the_same_bits_alone_and_in_a_batch),
        cmocka_unit_test(test_softmax_along_every_axis_and_over_coerced_rows),
        cmocka_unit_test(test_batch_normalization_by_hand),
        cmocka_unit_test(test_layer_normalization_gives_mean_and_inverse_deviation),
        cmocka_unit_test(test_group_and_instance_normalization_by_hand),
        cmocka_unit_test(test_lrn_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
