/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "op_want.h"

static void test_gather_takes_rows_and_counts_from_the_end(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_GATHER, 1);
    GIVE(&c, 0, f32, DIMS(3, 2), 1, 2, 3, 4, 5, 6);
    GIVE(&c, 1, i64, DIMS(2, 1), -1, 0);
    GIVES(&c, f32, DIMS(2, 1, 2), 5, 6, 1, 2);
    c = case_new(TERSE_OP_GATHER, 1);
    GIVE(&c, 0, i8, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    GIVE(&c, 1, i32, SCALAR, 1);
    case_set_int(&c, "axis", -1);
    GIVES(&c, i8, DIMS(2), 2, 5);
    c = case_new(TERSE_OP_GATHER, 1);
    GIVE(&c, 0, f32, DIMS(2), 1, 2);
    case_constant(&c, 1, TERSE_INT64, DIMS(0), "");
    GIVES_EMPTY(&c, f32, DIMS(0));
    c = case_new(TERSE_OP_GATHER, 1);
    GIVE(&c, 0, f32, DIMS(3), 1, 2, 3);
    GIVE(&c, 1, i64, DIMS(2), 0, 3);
    REFUSES(&c, "indices has 3 at element 1, allowed are -3 to 2");
    c = case_new(TERSE_OP_GATHER, 1);
    GIVE(&c, 0, f32, DIMS(3), 1, 2, 3);
    GIVE(&c, 1, i64, SCALAR, INT64_MIN);
    REFUSES(&c, "indices has -9223372036854775808 at element 0");
    c = case_new(TERSE_OP_GATHER, 1);
    GIVE(&c, 0, f32, SCALAR, 1);
    GIVE(&c, 1, i64, SCALAR, 0);
    REFUSES(&c, "axis 0, allowed for rank 0");
    c = case_new(TERSE_OP_GATHER, 1);
    GIVE(&c, 0, f32, DIMS(1, 1, 1, 1, 1), 1);
    GIVE(&c, 1, i64, DIMS(1, 1, 1, 1, 1), 0);
    REFUSES(&c, "output has rank 9, at most 8");
}

static void test_gather_elements_and_nd(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_GATHER_ELEMENTS, 1);
    GIVE(&c, 0, i32, DIMS(3, 3), 1, 2, 3, 4, 5, 6, 7, 8, 9);
    GIVE(&c, 1, i64, DIMS(2, 3), 1, 2, 0, -1, 0, 0);
    GIVES(&c, i32, DIMS(2, 3), 4, 8, 3, 7, 2, 3);
    c = case_new(TERSE_OP_GATHER_ELEMENTS, 1);
    GIVE(&c, 0, i32, DIMS(1, 1), 1);
    GIVE(&c, 1, i64, DIMS(1, 2), 0, 0);
    REFUSES(&c, "indices has shape [1,2], data has [1,1]: only axis 0 may be larger");
    c = case_new(TERSE_OP_GATHER_ND, 1);
    GIVE(&c, 0, f32, DIMS(2, 2, 2), 0, 1, 2, 3, 4, 5, 6, 7);
    GIVE(&c, 1, i64, DIMS(2, 1), 1, 0);
    case_set_int(&c, "batch_dims", 1);
    GIVES(&c, f32, DIMS(2, 2), 2, 3, 4, 5);
    c = case_new(TERSE_OP_GATHER_ND, 1);
    GIVE(&c, 0, f32, DIMS(2, 2), 0, 1, 2, 3);
    GIVE(&c, 1, i64, DIMS(2, 2), 0, 0, 1, -1);
    GIVES(&c, f32, DIMS(2), 0, 3);
    c = case_new(TERSE_OP_GATHER_ND, 1);
    GIVE(&c, 0, f32, DIMS(2, 1), 0, 1);
    GIVE(&c, 1, i64, DIMS(1, 2), 0, 1);
    REFUSES(&c, "indices has 1 at element 1, allowed are -1 to 0");
    c = case_new(TERSE_OP_GATHER_ND, 1);
    GIVE(&c, 0, f32, DIMS(2), 0, 1);
    GIVE(&c, 1, i64, DIMS(1, 2), 0, 1);
    REFUSES(&c, "the last dimension of indices is 2, allowed are 1 to 1");
}

static op_case scatter_of_four(const char *reduction)
{
    op_case c = case_new(TERSE_OP_SCATTER_ND, 1);
    GIVE(&c, 0, i32, DIMS(4), 1, 2, 3, 4);
    GIVE(&c, 1, i64, DIMS(3, 1), 1, -1, 1);
    GIVE(&c, 2, i32, DIMS(3), 5, 6, -7);
    case_set_text(&c, "reduction", reduction);
    return c;
}

static void test_scatter_reduces_in_order(void **state)
{
    (void)state;
    op_case c = scatter_of_four("none");
    GIVES(&c, i32, DIMS(4), 1, -7, 3, 6);
    c = scatter_of_four("add");
    GIVES(&c, i32, DIMS(4), 1, 0, 3, 10);
    c = scatter_of_four("mul");
    GIVES(&c, i32, DIMS(4), 1, -70, 3, 24);
    c = scatter_of_four("min");
    GIVES(&c, i32, DIMS(4), 1, -7, 3, 4);
    c = scatter_of_four("max");
    GIVES(&c, i32, DIMS(4), 1, 5, 3, 6);
    c = scatter_of_four("mean");
    REFUSES(&c, "reduction is 'mean', allowed are none, add, mul, min and max");
    c = case_new(TERSE_OP_SCATTER_ND, 1);
    GIVE(&c, 0, bool, DIMS(2, 2), false, false, false, false);
    GIVE(&c, 1, i64, DIMS(1, 1), 1);
    GIVE(&c, 2, bool, DIMS(1, 2), true, true);
    GIVES(&c, bool, DIMS(2, 2), false, false, true, true);
    c = case_new(TERSE_OP_SCATTER_ND, 1);
    GIVE(&c, 0, f32, DIMS(2, 2), 0, 0, 0, 0);
    GIVE(&c, 1, i64, DIMS(1, 1), 1);
    GIVE(&c, 2, f32, DIMS(2), 1, 1);
    REFUSES(&c, "updates has shape [2], must be [1,2]");
    c = case_new(TERSE_OP_SCATTER_ND, 1);
    GIVE(&c, 0, f32, DIMS(2), 0, 0);
    GIVE(&c, 1, i64, DIMS(1, 1), 2);
    GIVE(&c, 2, f32, DIMS(1), 1);
    REFUSES(&c, "indices has 2 at element 0, allowed are -2 to 1");
}

static op_case shape_of(int64_t start, int64_t end)
{
    op_case c = case_new(TERSE_OP_SHAPE, 1);
    case_constant(&c, 0, TERSE_FP32, DIMS(0, 3, 5), "");
    free(c.inputs[0].data);
    c.inputs[0].data = NULL; /* never looked at */
    case_set_int(&c, "start", start);
    case_set_int(&c, "end", end);
    return c;
}

static void test_shape_reads_dims_only(void **state)
{
    (void)state;
    op_case c = shape_of(0, 3);
    GIVES(&c, i64, DIMS(3), 0, 3, 5);
    c = shape_of(-2, INT64_MAX);
    GIVES(&c, i64, DIMS(2), 3, 5);
    c = shape_of(INT64_MIN, -1);
    GIVES(&c, i64, DIMS(2), 0, 3);
    c = shape_of(2, 1);
    GIVES_EMPTY(&c, i64, DIMS(0));
}

static void test_range_counts_without_overflow(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_RANGE, 1);
    GIVE(&c, 0, i64, SCALAR, 10);
    GIVE(&c, 1, i64, SCALAR, 4);
    GIVE(&c, 2, i64, SCALAR, -4);
    GIVES(&c, i64, DIMS(2), 10, 6);
    c = case_new(TERSE_OP_RANGE, 1);
    GIVE(&c, 0, i64, SCALAR, INT64_MIN);
    GIVE(&c, 1, i64, SCALAR, INT64_MAX);
    GIVE(&c, 2, i64, SCALAR, INT64_MAX);
    GIVES(&c, i64, DIMS(3), INT64_MIN, -1, INT64_MAX - 1);
    c = case_new(TERSE_OP_RANGE, 1);
    GIVE(&c, 0, f32, SCALAR, 0);
    GIVE(&c, 1, f32, SCALAR, 1.1f);
    GIVE(&c, 2, f32, SCALAR, 0.5f);
    GIVES(&c, f32, DIMS(3), 0, 0.5f, 1);
    c = case_new(TERSE_OP_RANGE, 1);
    GIVE(&c, 0, i32, SCALAR, 5);
    GIVE(&c, 1, i32, SCALAR, 1);
    GIVE(&c, 2, i32, SCALAR, 1);
    GIVES_EMPTY(&c, i32, DIMS(0));
    static const float hostile[][3] = {{0, INFINITY, 1}, {0, NAN, 1}, {0, 1e30f, 1}, {0, 1, 1e-30f}};
    for (int i = 0; i < 4; i++) {
        c = case_new(TERSE_OP_RANGE, 1);
        for (int k = 0; k < 3; k++)
            GIVE(&c, k, f32, SCALAR, hostile[i][k]);
        REFUSES(&c, "is not a shape or too large");
    }
    c = case_new(TERSE_OP_RANGE, 1);
    GIVE(&c, 0, i64, SCALAR, INT64_MIN);
    GIVE(&c, 1, i64, SCALAR, INT64_MAX);
    GIVE(&c, 2, i64, SCALAR, 1);
    REFUSES(&c, "is not a shape or too large");
    c = case_new(TERSE_OP_RANGE, 1);
    for (int k = 0; k < 3; k++)
        GIVE(&c, k, i64, SCALAR, 0);
    REFUSES(&c, "input 2 (delta) is 0");
}

static void test_constant_of_shape_in_every_dtype(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_CONSTANT_OF_SHAPE, 1);
    GIVE(&c, 0, i64, DIMS(2), 1, 2);
    case_set_int(&c, "dtype", TERSE_INT32);
    case_set_float(&c, "value", -3);
    GIVES(&c, i32, DIMS(1, 2), -3, -3);
    c = case_new(TERSE_OP_CONSTANT_OF_SHAPE, 1);
    case_constant(&c, 0, TERSE_INT64, DIMS(0), "");
    GIVES(&c, f32, SCALAR, 0);
    c = case_new(TERSE_OP_CONSTANT_OF_SHAPE, 1);
    GIVE(&c, 0, i64, DIMS(1), 2);
    case_set_int(&c, "dtype", TERSE_BOOL);
    case_set_float(&c, "value", 1);
    GIVES(&c, bool, DIMS(2), true, true);
    c = case_new(TERSE_OP_CONSTANT_OF_SHAPE, 1);
    GIVE(&c, 0, i64, DIMS(1), 1);
    case_set_int(&c, "dtype", TERSE_INT64);
    case_set_float(&c, "value", (double)NAN);
    GIVES(&c, i64, DIMS(1), INT64_MIN);
    c = case_new(TERSE_OP_CONSTANT_OF_SHAPE, 1);
    GIVE(&c, 0, i64, DIMS(3), INT64_MAX, 2, 0);
    REFUSES(&c, "too large");
    c = case_new(TERSE_OP_CONSTANT_OF_SHAPE, 1);
    GIVE(&c, 0, i64, DIMS(1), -1);
    REFUSES(&c, "[-1] is not a shape");
}

static op_case cum_sum_of(int64_t axis, int exclusive, int reverse)
{
    op_case c = case_new(TERSE_OP_CUM_SUM, 1);
    GIVE(&c, 0, i32, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    GIVE(&c, 1, i64, SCALAR, axis);
    case_set_int(&c, "exclusive", exclusive);
    case_set_int(&c, "reverse", reverse);
    return c;
}

static void test_cum_sum_in_every_direction(void **state)
{
    (void)state;
    op_case c = cum_sum_of(1, 0, 0);
    GIVES(&c, i32, DIMS(2, 3), 1, 3, 6, 4, 9, 15);
    c = cum_sum_of(-2, 1, 0);
    GIVES(&c, i32, DIMS(2, 3), 0, 0, 0, 1, 2, 3);
    c = cum_sum_of(-1, 0, 1);
    GIVES(&c, i32, DIMS(2, 3), 6, 5, 3, 15, 11, 6);
    c = cum_sum_of(1, 1, 1);
    GIVES(&c, i32, DIMS(2, 3), 5, 3, 0, 11, 6, 0);
    c = cum_sum_of(2, 0, 0);
    REFUSES(&c, "axis 2, allowed for rank 2 are -2 to 1");
}

static void test_arg_max_breaks_ties_as_asked(void **state)
{
    (void)state;
    for (int last = 0; last < 2; last++) {
        op_case c = case_new(TERSE_OP_ARG_MAX, 1);
        GIVE(&c, 0, f32, DIMS(2, 3), 5, 5, 1, 0, NAN, 9);
        case_set_int(&c, "axis", -1);
        case_set_int(&c, "select_last_index", last);
        GIVES(&c, i64, DIMS(2, 1), last, 1);
    }
    op_case c = case_new(TERSE_OP_ARG_MAX, 1);
    GIVE(&c, 0, i64, DIMS(2, 2), INT64_MIN, 3, INT64_MAX, 2);
    case_set_int(&c, "keepdims", 0);
    GIVES(&c, i64, DIMS(2), 1, 0);
    c = case_new(TERSE_OP_ARG_MAX, 1);
    case_constant(&c, 0, TERSE_FP32, DIMS(0, 2), "");
    REFUSES(&c, "axis 0 has size 0, at least 1");
}

static op_case top_k_of(int64_t k, int largest)
{
    op_case c = case_new(TERSE_OP_TOP_K, 2);
    GIVE(&c, 0, f32, DIMS(2, 4), 1, 3, 3, -0.0f, NAN, 0, -INFINITY, 0);
    GIVE(&c, 1, i64, DIMS(1), k);
    case_set_int(&c, "largest", largest);
    return c;
}

static void test_top_k_orders_and_keeps_the_lower_index_first(void **state)
{
    (void)state;
    op_case c = top_k_of(3, 1);
    case_ok(&c);
    WANT(&c, 0, f32, DIMS(2, 3), 3, 3, 1, NAN, 0, 0);
    WANT(&c, 1, i64, DIMS(2, 3), 1, 2, 0, 0, 1, 3);
    case_free(&c);
    c = top_k_of(4, 0);
    case_ok(&c);
    WANT(&c, 0, f32, DIMS(2, 4), 0, 1, 3, 3, -INFINITY, 0, 0, NAN);
    WANT(&c, 1, i64, DIMS(2, 4), 3, 0, 1, 2, 2, 1, 3, 0);
    case_free(&c);
    c = top_k_of(0, 1);
    case_ok(&c);
    want_bytes(&c, 0, TERSE_FP32, DIMS(2, 0), "", 0);
    case_free(&c);
    c = top_k_of(5, 1);
    REFUSES(&c, "K is 5, allowed are 0 to 4");
    c = top_k_of(-1, 1);
    REFUSES(&c, "K is -1");
    c = case_new(TERSE_OP_TOP_K, 2);
    GIVE(&c, 0, i64, DIMS(3, 1), INT64_MIN, INT64_MAX, 0);
    GIVE(&c, 1, i64, DIMS(1), 2);
    case_set_int(&c, "axis", 0);
    case_set_int(&c, "largest", 0);
    case_ok(&c);
    WANT(&c, 0, i64, DIMS(2, 1), INT64_MIN, 0);
    WANT(&c, 1, i64, DIMS(2, 1), 0, 2);
    case_free(&c);
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_takes_rows_and_counts_from_the_end),
        cmocka_unit_test(test_gather_elements_and_nd),
        cmocka_unit_test(test_scatter_reduces_in_order),
        cmocka_unit_test(test_shape_reads_dims_only),
        cmocka_unit_test(test_range_counts_without_overflow),
        cmocka_unit_test(test_constant_of_shape_in_every_dtype),
        cmocka_unit_test(test_cum_sum_in_every_direction),
        cmocka_unit_test(test_arg_max_breaks_ties_as_asked),
        cmocka_unit_test(test_top_k_orders_and_keeps_the_lower_index_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
