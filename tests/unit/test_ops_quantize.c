/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "op_want.h"

static void test_quantize_rounds_ties_to_even_and_saturates(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(10), 0, 1, 3, 5, -1, -3, 1e30f, -INFINITY, NAN, 249);
    GIVE(&c, 1, f32, SCALAR, 2);
    GIVE(&c, 2, u8, SCALAR, 128);
    GIVES(&c, u8, DIMS(10), 128, 128, 130, 130, 128, 126, 255, 0, 128, 252);
    c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(8), 0, 1, 3, 5, -1, -300, 300, NAN);
    GIVE(&c, 1, f32, DIMS(1), 2);
    GIVE(&c, 2, i8, DIMS(1), -3);
    GIVES(&c, i8, DIMS(8), -3, -3, -1, -1, -3, -128, 127, -3);
    /* The pixel 32 in [-1, 1]: the quotient of these floats is a little nearer to -95, but a tie in FP32, which is the
     * precision of the scale. The same where each entry of the axis has a scale of its own. */
    for (int exact = 0; exact < 2; exact++)
        for (int scales = 1; scales < 3; scales++) {
            c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
            GIVE(&c, 0, f32, DIMS(1, 2), (32 - 127.5f) / 127.5f, (32 - 127.5f) / 127.5f);
            GIVE(&c, 1, f32, DIMS(scales), 2 / 255.0f, 2 / 255.0f);
            case_set_int(&c, "output_dtype", TERSE_INT8);
            if (exact)
                case_set_int(&c, "precision", TERSE_FP64);
            GIVES(&c, i8, DIMS(1, 2), exact ? -95 : -96, exact ? -95 : -96);
        }
    c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, i32, DIMS(3), 16777217, 3, -7);
    GIVE(&c, 1, f32, SCALAR, 2);
    case_set_int(&c, "output_dtype", TERSE_INT8);
    GIVES(&c, i8, DIMS(3), 127, 2, -4);
}

static void test_quantize_by_axis_and_by_block(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(2, 2, 2), 1, 2, 3, 4, 5, 6, 7, 8);
    GIVE(&c, 1, f32, DIMS(2), 1, 2);
    GIVE(&c, 2, u8, DIMS(2), 0, 10);
    GIVES(&c, u8, DIMS(2, 2, 2), 1, 2, 12, 12, 5, 6, 14, 14);
    c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    GIVE(&c, 1, f32, DIMS(3), 1, 2, 3);
    GIVE(&c, 2, i8, DIMS(3), 0, 1, 2);
    case_set_int(&c, "axis", -1);
    GIVES(&c, i8, DIMS(2, 3), 1, 2, 3, 4, 3, 4);
    /* Blocks of two along the last axis, the last one cut off. */
    c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    GIVE(&c, 1, f32, DIMS(2, 2), 1, 0.5f, 2, 3);
    GIVE(&c, 2, u8, DIMS(2, 2), 0, 1, 2, 3);
    case_set_int(&c, "block_size", 2);
    GIVES(&c, u8, DIMS(2, 3), 1, 2, 7, 4, 4, 5);
}

static void test_dequantize_every_dtype(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_DEQUANTIZE_LINEAR, 1);
    GIVE(&c, 0, u8, DIMS(4), 0, 3, 128, 255);
    GIVE(&c, 1, f32, SCALAR, 2);
    GIVE(&c, 2, u8, SCALAR, 128);
    GIVES(&c, f32, DIMS(4), -256, -250, 0, 254);
    c = case_new(TERSE_OP_DEQUANTIZE_LINEAR, 1);
    GIVE(&c, 0, i8, DIMS(2, 2), -128, 127, 0, 1);
    GIVE(&c, 1, f32, DIMS(2), 0.5f, 2);
    GIVE(&c, 2, i8, DIMS(2), 1, -1);
    case_set_int(&c, "axis", 0);
    GIVES(&c, f32, DIMS(2, 2), -64.5f, 63, 2, 4);
    c = case_new(TERSE_OP_DEQUANTIZE_LINEAR, 1);
    GIVE(&c, 0, i32, DIMS(3), INT32_MIN, 16777217, INT32_MAX);
    GIVE(&c, 1, f32, SCALAR, 1);
    GIVES(&c, f32, DIMS(3), -0x1p31f, 16777216, 0x1p31f);
    c = case_new(TERSE_OP_DEQUANTIZE_LINEAR, 1);
    GIVE(&c, 0, u8, DIMS(3, 2), 0, 1, 2, 3, 4, 5);
    GIVE(&c, 1, f32, DIMS(2, 2), 1, 2, 3, 4);
    case_set_int(&c, "axis", 0);
    case_set_int(&c, "block_size", 2);
    GIVES(&c, f32, DIMS(3, 2), 0, 2, 2, 6, 12, 20);
}

static void test_strided_rows_are_quantized_where_they_lie(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(2, 2), 1, 2, 3, 4);
    GIVE(&c, 1, f32, SCALAR, 1);
    GIVE(&c, 2, i8, SCALAR, -5);
    assert_int_equal(case_run_strided(&c, 5), TERSE_OK);
    const int8_t *y = c.outputs[0].data;
    assert_int_equal(y[0], -4);
    assert_int_equal(y[1], -3);
    assert_int_equal((uint8_t)y[2], 0xa5);
    assert_int_equal(y[5], -2);
    assert_int_equal(y[6], -1);
    case_free(&c);
}

static void test_dynamic_quantization_covers_the_range_and_zero(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_DYNAMIC_QUANTIZE_LINEAR, 3);
    GIVE(&c, 0, f32, DIMS(6), 0, 2, -3, -2.5f, 1.34f, 0.5f);
    case_ok(&c);
    WANT(&c, 0, u8, DIMS(6), 153, 255, 0, 26, 221, 179);
    WANT(&c, 1, f32, SCALAR, 0.0196078438f);
    WANT(&c, 2, u8, SCALAR, 153);
    case_free(&c);
    c = case_new(TERSE_OP_DYNAMIC_QUANTIZE_LINEAR, 3);
    GIVE(&c, 0, f32, DIMS(2), 0, 0);
    case_ok(&c);
    WANT(&c, 0, u8, DIMS(2), 0, 0);
    WANT(&c, 1, f32, SCALAR, 1);
    case_free(&c);
    c = case_new(TERSE_OP_DYNAMIC_QUANTIZE_LINEAR, 3);
    GIVE(&c, 0, f32, DIMS(3), -3e38f, 3e38f, NAN);
    case_ok(&c);
    WANT(&c, 0, u8, DIMS(3), 0, 255, 128);
    case_free(&c);
}

static void test_what_does_not_fit_is_refused(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(2, 3), 1, 2, 3, 4, 5, 6);
    GIVE(&c, 1, f32, DIMS(2), 1, 2);
    REFUSES(&c, "scale) has shape [2], does not fit shape [2,3], axis 1");
    c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(3), 1, 2, 3);
    GIVE(&c, 1, f32, SCALAR, 1);
    GIVE(&c, 2, u8, DIMS(3), 1, 2, 3);
    REFUSES(&c, "zero point) has shape [3], must have the scale's []");
    c = case_new(TERSE_OP_QUANTIZE_LINEAR, 1);
    GIVE(&c, 0, f32, DIMS(3), 1, 2, 3);
    GIVE(&c, 1, f32, SCALAR, 1);
    GIVE(&c, 2, i32, SCALAR, 1);
    REFUSES(&c, "zero point) is INT32, allowed: INT8, UINT8");
    c = case_new(TERSE_OP_DEQUANTIZE_LINEAR, 1);
    GIVE(&c, 0, u8, DIMS(3), 1, 2, 3);
    GIVE(&c, 1, f32, SCALAR, 1);
    GIVE(&c, 2, i8, SCALAR, 1);
    REFUSES(&c, "zero point) is INT8, must be UINT8");
    c = case_new(TERSE_OP_DEQUANTIZE_LINEAR, 1);
    GIVE(&c, 0, u8, DIMS(3), 1, 2, 3);
    GIVE(&c, 1, f32, DIMS(3), 1, 1, 1);
    REFUSES(&c, "axis 1, allowed for rank 1 are -1 to 0");
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize_rounds_ties_to_even_and_saturates),
        cmocka_unit_test(test_quantize_by_axis_and_by_block),
        cmocka_unit_test(test_dequantize_every_dtype),
        cmocka_unit_test(test_strided_rows_are_quantized_where_they_lie),
        cmocka_unit_test(test_dynamic_quantization_covers_the_range_and_zero),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
