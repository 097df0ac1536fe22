/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "op_want.h"

static void test_relu_and_its_kin_on_floats_and_integers(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_RELU, 1);
    GIVE(&c, 0, f32, DIMS(4), -1.5f, 0, 2.5f, INFINITY);
    GIVES(&c, f32, DIMS(4), 0, 0, 2.5f, INFINITY);
    c = case_new(TERSE_OP_RELU, 1);
    GIVE(&c, 0, i64, DIMS(3), INT64_MIN, 5, -1);
    GIVES(&c, i64, DIMS(3), 0, 5, 0);
    c = case_new(TERSE_OP_RELU, 1);
    GIVE(&c, 0, u8, DIMS(1), 3);
    REFUSES(&c, "is UINT8, allowed: FP32, INT8, INT32, INT64");
    c = case_new(TERSE_OP_LEAKY_RELU, 1);
    GIVE(&c, 0, f32, DIMS(3), -2, 0, 3);
    case_set_float(&c, "alpha", 0.25);
    GIVES(&c, f32, DIMS(3), -0.5f, 0, 3);
    c = case_new(TERSE_OP_HARD_SIGMOID, 1);
    GIVE(&c, 0, f32, DIMS(3), -10, 0, 10);
    GIVES(&c, f32, DIMS(3), 0, 0.5f, 1);
    c = case_new(TERSE_OP_HARD_SWISH, 1);
    GIVE(&c, 0, f32, DIMS(3), -4, 0, 6);
    GIVES(&c, f32, DIMS(3), 0, 0, 6);
}

static void test_integers_wrap_around_and_never_trap(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_NEG, 1);
    GIVE(&c, 0, i32, DIMS(3), INT32_MIN, 7, INT32_MAX);
    GIVES(&c, i32, DIMS(3), INT32_MIN, -7, -INT32_MAX);
    c = case_new(TERSE_OP_ABS, 1);
    GIVE(&c, 0, i8, DIMS(3), INT8_MIN, -7, 7);
    GIVES(&c, i8, DIMS(3), INT8_MIN, 7, 7);
    c = case_new(TERSE_OP_SIGN, 1);
    GIVE(&c, 0, i64, DIMS(3), INT64_MIN, 0, 9);
    GIVES(&c, i64, DIMS(3), -1, 0, 1);
    c = case_new(TERSE_OP_DIV, 1);
    GIVE(&c, 0, i64, DIMS(5), INT64_MIN, 7, -7, 7, 9);
    GIVE(&c, 1, i64, DIMS(5), -1, 2, 2, 0, -2);
    GIVES(&c, i64, DIMS(5), INT64_MIN, 3, -3, 0, -4);
    c = case_new(TERSE_OP_DIV, 1);
    GIVE(&c, 0, i8, DIMS(2), -128, -128);
    GIVE(&c, 1, i8, DIMS(2), -1, 0);
    GIVES(&c, i8, DIMS(2), -128, 0);
    c = case_new(TERSE_OP_DIV, 1);
    GIVE(&c, 0, u8, DIMS(2), 255, 255);
    GIVE(&c, 1, u8, SCALAR, 2);
    GIVES(&c, u8, DIMS(2), 127, 127);
    c = case_new(TERSE_OP_MOD, 1);
    GIVE(&c, 0, i64, DIMS(6), INT64_MIN, 7, -7, 7, -7, 9);
    GIVE(&c, 1, i64, DIMS(6), -1, 3, 3, -3, -3, 0);
    GIVES(&c, i64, DIMS(6), 0, 1, 2, -2, -1, 0);
    c = case_new(TERSE_OP_MOD, 1);
    GIVE(&c, 0, i32, DIMS(5), INT32_MIN, 7, -7, 7, -7);
    GIVE(&c, 1, i32, DIMS(5), -1, 3, 3, -3, -3);
    case_set_int(&c, "fmod", 1);
    GIVES(&c, i32, DIMS(5), 0, 1, -1, 1, -1);
    c = case_new(TERSE_OP_MOD, 1);
    GIVE(&c, 0, f32, DIMS(3), 7.5f, -7.5f, 7.5f);
    GIVE(&c, 1, f32, DIMS(3), 2, 2, -2);
    case_set_int(&c, "fmod", 1);
    GIVES(&c, f32, DIMS(3), 1.5f, -1.5f, 1.5f);
    c = case_new(TERSE_OP_MOD, 1);
    GIVE(&c, 0, f32, DIMS(1), 7.5f);
    GIVE(&c, 1, f32, DIMS(1), 2);
    REFUSES(&c, "is FP32, allowed: INT8, INT32, INT64, UINT8");
    c = case_new(TERSE_OP_ADD, 1);
    GIVE(&c, 0, u8, DIMS(2), 250, 5);
    GIVE(&c, 1, u8, DIMS(1), 10);
    GIVES(&c, u8, DIMS(2), 4, 15);
    c = case_new(TERSE_OP_MUL, 1);
    GIVE(&c, 0, i64, DIMS(2), INT64_MAX, 3);
    GIVE(&c, 1, i64, SCALAR, 2);
    GIVES(&c, i64, DIMS(2), -2, 6);
    c = case_new(TERSE_OP_SUB, 1);
    GIVE(&c, 0, i32, SCALAR, INT32_MIN);
    GIVE(&c, 1, i32, SCALAR, 1);
    GIVES(&c, i32, SCALAR, INT32_MAX);
}

static void test_functions_keep_special_floats(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_SIGN, 1);
    GIVE(&c, 0, f32, DIMS(4), -INFINITY, 0, NAN, 3);
    GIVES(&c, f32, DIMS(4), -1, 0, NAN, 1);
    c = case_new(TERSE_OP_RECIPROCAL, 1);
    GIVE(&c, 0, f32, DIMS(2), 0, 4);
    GIVES(&c, f32, DIMS(2), INFINITY, 0.25f);
    c = case_new(TERSE_OP_LOG, 1);
    GIVE(&c, 0, f32, DIMS(3), 0, 1, -1);
    GIVES(&c, f32, DIMS(3), -INFINITY, 0, NAN);
    c = case_new(TERSE_OP_SOFTPLUS, 1);
    GIVE(&c, 0, f32, DIMS(3), 1000, -1000, NAN);
    GIVES(&c, f32, DIMS(3), 1000, 0, NAN);
    c = case_new(TERSE_OP_ELU, 1);
    GIVE(&c, 0, f32, DIMS(4), INFINITY, -INFINITY, NAN, 0);
    GIVES(&c, f32, DIMS(4), INFINITY, -1, NAN, 0);
    c = case_new(TERSE_OP_ROUND, 1);
    GIVE(&c, 0, f32, DIMS(6), -2.5f, -0.5f, 0.5f, 1.5f, 2.5f, 2.6f);
    GIVES(&c, f32, DIMS(6), -2, -0.0f, 0, 2, 2, 3);
    c = case_new(TERSE_OP_FLOOR, 1);
    GIVE(&c, 0, f32, DIMS(2, 1), -1.5f, 1.5f);
    GIVES(&c, f32, DIMS(2, 1), -2, 1);
    c = case_new(TERSE_OP_MAX, 1);
    GIVE(&c, 0, f32, DIMS(3), NAN, 1, 2);
    GIVE(&c, 1, f32, DIMS(3), 1, NAN, 3);
    GIVES(&c, f32, DIMS(3), NAN, NAN, 3);
    c = case_new(TERSE_OP_MIN, 1);
    GIVE(&c, 0, f32, DIMS(2), 5, 2);
    GIVE(&c, 1, f32, DIMS(1), 4);
    GIVE(&c, 2, f32, DIMS(2), 3, NAN);
    GIVES(&c, f32, DIMS(2), 3, NAN);
}

static void test_gelu_elu_selu_follow_their_formulas(void **state)
{
    (void)state;
    const float xs[] = {-3, -0.5f, 0, 0.5f, 3};
    for (int form = 0; form < 2; form++) {
        op_case c = case_new(TERSE_OP_GELU, 1);
        case_constant(&c, 0, TERSE_FP32, DIMS(5), xs);
        case_set_text(&c, "approximate", form ? "tanh" : "none");
        case_ok(&c);
        for (int i = 0; i < 5; i++) {
            const double x = (double)xs[i];
            const double want = form ? 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)))
                                     : 0.5 * x * (1 + erf(x / sqrt(2)));
            assert_true(fabs((double)((float *)c.outputs[0].data)[i] - want) < 2e-6);
        }
        case_free(&c);
    }
    op_case c = case_new(TERSE_OP_GELU, 1);
    case_constant(&c, 0, TERSE_FP32, DIMS(5), xs);
    case_set_text(&c, "approximate", "fast");
    REFUSES(&c, "'fast', allowed are none and tanh");
    c = case_new(TERSE_OP_ELU, 1);
    GIVE(&c, 0, f32, DIMS(2), -1, 2);
    case_set_float(&c, "alpha", 2);
    case_ok(&c);
    CASE_WANT(&c, 0, 1e-6, 2 * (float)expm1(-1), 2);
    case_free(&c);
    c = case_new(TERSE_OP_SELU, 1);
    GIVE(&c, 0, f32, DIMS(2), -1, 2);
    case_ok(&c);
    CASE_WANT(&c, 0, 1e-6, (float)(1.0507009873554805 * 1.6732632423543772 * expm1(-1)), 2.101401974710961f);
    case_free(&c);
}

static void test_clip_bounds_are_optional_and_max_wins(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_CLIP, 1);
    GIVE(&c, 0, f32, DIMS(3), -9, 0, 9);
    GIVE(&c, 2, f32, SCALAR, 1);
    GIVES(&c, f32, DIMS(3), -9, 0, 1);
    c = case_new(TERSE_OP_CLIP, 1);
    GIVE(&c, 0, i8, DIMS(3), -128, 0, 127);
    GIVE(&c, 1, i8, DIMS(1), -5);
    GIVES(&c, i8, DIMS(3), -5, 0, 127);
    c = case_new(TERSE_OP_CLIP, 1);
    GIVE(&c, 0, i64, DIMS(3), -9, 2, 9);
    GIVE(&c, 1, i64, SCALAR, 5);
    GIVE(&c, 2, i64, SCALAR, 3);
    GIVES(&c, i64, DIMS(3), 3, 3, 3);
    c = case_new(TERSE_OP_CLIP, 1);
    GIVE(&c, 0, f32, DIMS(1), 0);
    GIVE(&c, 1, f32, DIMS(2), 0, 1);
    REFUSES(&c, "input 1 (min) has 2 elements, allowed is 1");
    c = case_new(TERSE_OP_CLIP, 1);
    GIVE(&c, 0, f32, DIMS(1), 0);
    GIVE(&c, 1, i32, SCALAR, 0);
    REFUSES(&c, "input 1 (min) is INT32, must be FP32");
}

static void test_cast_truncates_saturates_and_wraps(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, f32, DIMS(6), 2.9f, -2.9f, 3e9f, -3e9f, NAN, -INFINITY);
    case_set_int(&c, "to", TERSE_INT32);
    GIVES(&c, i32, DIMS(6), 2, -2, INT32_MAX, INT32_MIN, 0, INT32_MIN);
    c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, f32, DIMS(4), 255.9f, 256, -0.9f, -1);
    case_set_int(&c, "to", TERSE_UINT8);
    GIVES(&c, u8, DIMS(4), 255, 255, 0, 0);
    c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, f32, DIMS(3), 127.5f, 128, -129);
    case_set_int(&c, "to", TERSE_INT8);
    GIVES(&c, i8, DIMS(3), 127, 127, -128);
    c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, f32, DIMS(2), 1e30f, -1e30f);
    case_set_int(&c, "to", TERSE_INT64);
    GIVES(&c, i64, DIMS(2), INT64_MAX, INT64_MIN);
    c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, i64, DIMS(2), 300, -1);
    case_set_int(&c, "to", TERSE_UINT8);
    GIVES(&c, u8, DIMS(2), 44, 255);
    c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, f32, DIMS(4), 0, -0.0f, 0.1f, NAN);
    case_set_int(&c, "to", TERSE_BOOL);
    GIVES(&c, bool, DIMS(4), false, false, true, true);
    c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, bool, DIMS(2), true, false);
    case_set_int(&c, "to", TERSE_FP32);
    GIVES(&c, f32, DIMS(2), 1, 0);
    c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, f32, DIMS(1), 0);
    case_set_int(&c, "to", TERSE_FP16);
    REFUSES(&c, "to is FP16, allowed are");
    c = case_new(TERSE_OP_CAST, 1);
    GIVE(&c, 0, f32, DIMS(1), 0);
    case_set_int(&c, "to", INT64_MIN);
    REFUSES(&c, "to is no dtype");
}

static void test_pow_takes_its_dtype_from_the_base(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_POW, 1);
    GIVE(&c, 0, f32, DIMS(3), 3, 2, -2);
    GIVE(&c, 1, i64, DIMS(3), 2, -1, 3);
    GIVES(&c, f32, DIMS(3), 9, 0.5f, -8);
    c = case_new(TERSE_OP_POW, 1);
    GIVE(&c, 0, i32, DIMS(4), 4, 2, 10, -3);
    GIVE(&c, 1, f32, DIMS(4), 0.5f, -1, 30, 3);
    GIVES(&c, i32, DIMS(4), 2, 0, INT32_MAX, -27);
    c = case_new(TERSE_OP_POW, 1);
    GIVE(&c, 0, i64, DIMS(5), 3, -1, 0, 1, 2);
    GIVE(&c, 1, i64, DIMS(5), 39, -3, -1, INT64_MIN, 64);
    GIVES(&c, i64, DIMS(5), 4052555153018976267, -1, 0, 1, 0);
    c = case_new(TERSE_OP_POW, 1);
    GIVE(&c, 0, u8, SCALAR, 1);
    GIVE(&c, 1, u8, SCALAR, 1);
    REFUSES(&c, "input 0 (X) is UINT8");
}

static void test_broadcasting_follows_numpy(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_SUB, 1);
    GIVE(&c, 0, f32, DIMS(2, 1, 3), 1, 2, 3, 4, 5, 6);
    GIVE(&c, 1, f32, DIMS(2, 1), 10, 20);
    GIVES(&c, f32, DIMS(2, 2, 3), -9, -8, -7, -19, -18, -17, -6, -5, -4, -16, -15, -14);
    c = case_new(TERSE_OP_MUL, 1);
    GIVE(&c, 0, f32, SCALAR, 2);
    GIVE(&c, 1, f32, DIMS(2, 2), 1, 2, 3, 4);
    GIVES(&c, f32, DIMS(2, 2), 2, 4, 6, 8);
    c = case_new(TERSE_OP_ADD, 1);
    case_constant(&c, 0, TERSE_FP32, DIMS(0, 3), "");
    GIVE(&c, 1, f32, DIMS(1, 3), 1, 2, 3);
    GIVES_EMPTY(&c, f32, DIMS(0, 3));
    c = case_new(TERSE_OP_ADD, 1);
    GIVE(&c, 0, f32, DIMS(2), 1, 2);
    GIVE(&c, 1, f32, DIMS(3), 1, 2, 3);
    REFUSES(&c, "shapes [2] and [3] do not broadcast");
    c = case_new(TERSE_OP_ADD, 1);
    GIVE(&c, 0, f32, SCALAR, 1);
    GIVE(&c, 1, i64, SCALAR, 1);
    REFUSES(&c, "is INT64, must be FP32");
    c = case_new(TERSE_OP_ADD, 1);
    GIVE(&c, 0, bool, SCALAR, 1);
    GIVE(&c, 1, bool, SCALAR, 1);
    REFUSES(&c, "is BOOL, allowed: FP32, INT8, INT32, INT64, UINT8");
}

static void test_prelu_broadcasts_its_slope_one_way(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_PRELU, 1);
    GIVE(&c, 0, f32, DIMS(1, 2, 2), -1, 2, -3, -4);
    GIVE(&c, 1, f32, DIMS(2, 1), 0.5f, 0.25f);
    GIVES(&c, f32, DIMS(1, 2, 2), -0.5f, 2, -0.75f, -1);
    c = case_new(TERSE_OP_PRELU, 1);
    GIVE(&c, 0, f32, DIMS(1), -1);
    GIVE(&c, 1, f32, DIMS(2), 1, 1);
    REFUSES(&c, "slope has shape [2], must broadcast to X's shape [1]");
}

static void test_comparisons_logic_and_where(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_LESS, 1);
    GIVE(&c, 0, f32, DIMS(3), 1, NAN, 3);
    GIVE(&c, 1, f32, SCALAR, 2);
    GIVES(&c, bool, DIMS(3), true, false, false);
    c = case_new(TERSE_OP_GREATER_OR_EQUAL, 1);
    GIVE(&c, 0, u8, DIMS(2), 200, 100);
    GIVE(&c, 1, u8, DIMS(2), 100, 200);
    GIVES(&c, bool, DIMS(2), true, false);
    c = case_new(TERSE_OP_EQUAL, 1);
    GIVE(&c, 0, bool, DIMS(2), true, false);
    GIVE(&c, 1, bool, DIMS(2), true, true);
    GIVES(&c, bool, DIMS(2), true, false);
    c = case_new(TERSE_OP_LESS, 1);
    GIVE(&c, 0, bool, SCALAR, 0);
    GIVE(&c, 1, bool, SCALAR, 0);
    REFUSES(&c, "is BOOL");
    c = case_new(TERSE_OP_OR, 1);
    GIVE(&c, 0, bool, DIMS(2, 1), true, false);
    GIVE(&c, 1, bool, DIMS(2), true, false);
    GIVES(&c, bool, DIMS(2, 2), true, true, true, false);
    c = case_new(TERSE_OP_AND, 1);
    GIVE(&c, 0, bool, DIMS(2), true, false);
    GIVE(&c, 1, bool, SCALAR, true);
    GIVES(&c, bool, DIMS(2), true, false);
    c = case_new(TERSE_OP_NOT, 1);
    GIVE(&c, 0, bool, DIMS(2), true, false);
    GIVES(&c, bool, DIMS(2), false, true);
    c = case_new(TERSE_OP_WHERE, 1);
    GIVE(&c, 0, bool, DIMS(2, 1), true, false);
    GIVE(&c, 1, i64, DIMS(2), 1, 2);
    GIVE(&c, 2, i64, SCALAR, INT64_MIN);
    GIVES(&c, i64, DIMS(2, 2), 1, 2, INT64_MIN, INT64_MIN);
    c = case_new(TERSE_OP_WHERE, 1);
    GIVE(&c, 0, u8, SCALAR, 1);
    GIVE(&c, 1, i64, SCALAR, 1);
    GIVE(&c, 2, i64, SCALAR, 2);
    REFUSES(&c, "input 0 (condition) is UINT8, allowed: BOOL");
}

static const terse_op float_ops[] = {
    TERSE_OP_RELU,       TERSE_OP_LEAKY_RELU, TERSE_OP_CLIP, TERSE_OP_SIGMOID, TERSE_OP_HARD_SIGMOID, TERSE_OP_TANH,
    TERSE_OP_HARD_SWISH, TERSE_OP_ERF,        TERSE_OP_GELU, TERSE_OP_EXP,     TERSE_OP_LOG,          TERSE_OP_SQRT,
    TERSE_OP_NEG,        TERSE_OP_RECIPROCAL, TERSE_OP_SIN,  TERSE_OP_COS,     TERSE_OP_ELU,          TERSE_OP_SELU,
    TERSE_OP_SOFTPLUS,   TERSE_OP_SOFTSIGN,   TERSE_OP_ADD,  TERSE_OP_SUB,     TERSE_OP_MUL,          TERSE_OP_DIV,
    TERSE_OP_POW,        TERSE_OP_MIN,        TERSE_OP_MAX,  TERSE_OP_PRELU,
};
enum { N_FLOAT_OPS = sizeof float_ops / sizeof float_ops[0] };

/* One case of a float operator: x, a second input where it takes one. */
static op_case float_case(terse_op op, int64_t rows, int64_t columns, const float *x, const float *vector)
{
    op_case c = case_new(op, 1);
    memcpy(case_input(&c, 0, DIMS(rows, columns)), x, (size_t)(rows * columns) * sizeof *x);
    if (terse_op_find(op)->min_inputs == 2)
        memcpy(case_input(&c, 1, DIMS(columns)), vector, (size_t)columns * sizeof *vector);
    return c;
}

static void test_a_rows_bits_do_not_depend_on_the_other_rows(void **state)
{
    (void)state;
    enum { ROWS = 5, COLUMNS = 37 };
    float x[ROWS * COLUMNS], vector[COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i] = 4 * case_random();
    for (int i = 0; i < COLUMNS; i++)
        vector[i] = 4 * case_random();
    for (int k = 0; k < N_FLOAT_OPS; k++) {
        op_case all = float_case(float_ops[k], ROWS, COLUMNS, x, vector);
        case_ok(&all);
        for (int row = 0; row < ROWS; row++) {
            op_case one = float_case(float_ops[k], 1, COLUMNS, x + row * COLUMNS, vector);
            case_ok(&one);
            if (memcmp(one.outputs[0].data, (float *)all.outputs[0].data + row * COLUMNS, COLUMNS * sizeof *x) != 0)
                fail_msg("%s: row %d alone has other bits", terse_op_name(float_ops[k]), row);
            case_free(&one);
        }
        case_free(&all);
    }
}

static void test_strided_rows_give_the_bits_of_dense_ones(void **state)
{
    (void)state;
    enum { ROWS = 3, COLUMNS = 19, WIDE = 23 };
    float x[ROWS * COLUMNS], wide[ROWS * WIDE], vector[COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++)
        wide[i / COLUMNS * WIDE + i % COLUMNS] = x[i] = 4 * case_random();
    for (int i = 0; i < COLUMNS; i++)
        vector[i] = 4 * case_random();
    for (int k = 0; k < N_FLOAT_OPS; k++) {
        op_case dense = float_case(float_ops[k], ROWS, COLUMNS, x, vector);
        case_ok(&dense);
        op_case strided = float_case(float_ops[k], ROWS, COLUMNS, x, vector);
        free(strided.inputs[0].data);
        strided.inputs[0].data = malloc(sizeof wide);
        memcpy(strided.inputs[0].data, wide, sizeof wide);
        strided.inputs[0].row_stride = WIDE;
        assert_int_equal(case_run_strided(&strided, WIDE + 2), TERSE_OK);
        const float *a = dense.outputs[0].data, *b = strided.outputs[0].data;
        for (int row = 0; row < ROWS; row++) {
            if (memcmp(a + row * COLUMNS, b + row * (WIDE + 2), COLUMNS * sizeof *a) != 0)
                fail_msg("%s: row %d differs when strided", terse_op_name(float_ops[k]), row);
            const unsigned char *gap = (const unsigned char *)(b + row * (WIDE + 2) + COLUMNS);
            for (size_t i = 0; i < (WIDE + 2 - COLUMNS) * sizeof *b; i++)
                assert_int_equal(gap[i], 0xa5);
        }
        case_free(&dense);
        case_free(&strided);
    }
}

/* Input `index` as a column of rows of which the rest is no number that could be read without being seen. */
static void widen(op_case *c, int index, int64_t stride)
{
    const int64_t n = terse_tensor_count(&c->inputs[index]);
    const float *dense = c->inputs[index].data;
    float *wide = malloc((size_t)(n * stride) * sizeof *wide);
    for (int64_t i = 0; i < n * stride; i++)
        wide[i] = i % stride == 0 ? dense[i / stride] : NAN;
    free(c->inputs[index].data);
    c->inputs[index].data = wide;
    c->inputs[index].row_stride = stride;
}

/* Every third number of one or both, as a Slice that is no copy has them, and every second one of what is made: fewer
 * than are gathered, and more than are gathered at a time. */
static void test_single_columns_of_wide_rows_are_those_of_dense_ones(void **state)
{
    (void)state;
    static const int64_t rows[] = {1, 3, 256, 523};
    const float one = 4 * case_random();
    for (int k = 0; k < N_FLOAT_OPS * 4 * 3; k++) {
        const terse_op op = float_ops[k / 12];
        const int64_t n = rows[k / 3 % 4];
        const int way = k % 3; /* a strided; b too; b alone */
        if (way > 0 && (terse_op_find(op)->min_inputs != 2 || op == TERSE_OP_PRELU))
            continue;
        float *x = malloc(2 * (size_t)n * sizeof *x);
        for (int64_t i = 0; i < 2 * n; i++)
            x[i] = 4 * case_random();
        op_case dense = float_case(op, n, 1, x, &one), strided = float_case(op, n, 1, x, &one);
        for (int c = 0; c < 2 && way > 0; c++) {
            op_case *both = c ? &strided : &dense;
            free(both->inputs[1].data);
            memcpy(case_input(both, 1, DIMS(n, 1)), x + n, (size_t)n * sizeof *x);
        }
        if (way < 2)
            widen(&strided, 0, 3);
        if (way > 0)
            widen(&strided, 1, 3);
        const int64_t stride = way > 0 ? 2 : 1;
        case_ok(&dense);
        assert_int_equal(case_run_strided(&strided, way > 0 ? stride : 0), TERSE_OK);
        const float *a = dense.outputs[0].data, *b = strided.outputs[0].data;
        for (int64_t i = 0; i < n; i++) {
            if (memcmp(a + i, b + i * stride, sizeof *a) != 0)
                fail_msg("%s: number %d of %d differs when strided", terse_op_name(op), (int)i, (int)n);
            for (size_t at = 0; stride > 1 && i + 1 < n && at < sizeof *b; at++)
                assert_int_equal(((const unsigned char *)(b + i * stride + 1))[at], 0xa5);
        }
        case_free(&dense);
        case_free(&strided);
        free(x);
    }
}

/* Plans and runs with outputs[0] in the bytes of input `index`. */
static void run_in_place(op_case *c, int index)
{
    const terse_op_impl *impl = terse_op_find(c->op);
    terse_arena *arena = terse_arena_new();
    const terse_tensor *given[CASE_INPUTS] = {0};
    for (int i = 0; i < c->n_inputs; i++)
        given[i] = c->present[i] ? &c->inputs[i] : NULL;
    terse_tensor output;
    terse_op_plan plan = {.node = c->node,
                          .kernels = c->kernels,
                          .n_inputs = c->n_inputs,
                          .n_outputs = 1,
                          .inputs = given,
                          .outputs = &output,
                          .arena = arena};
    assert_int_equal(impl->plan(&plan, &c->error), TERSE_OK);
    assert_int_equal(plan.scratch_bytes, 0);
    output.data = c->inputs[index].data;
    const terse_op_call call = {.node = c->node,
                                .kernels = c->kernels,
                                .params = plan.params,
                                .n_inputs = c->n_inputs,
                                .n_outputs = 1,
                                .inputs = given,
                                .outputs = &output};
    assert_int_equal(impl->run(&call, &c->error), TERSE_OK);
    terse_arena_free(arena);
}

static void test_in_place_gives_the_same_bits(void **state)
{
    (void)state;
    enum { ROWS = 2, COLUMNS = 35, N = ROWS * COLUMNS };
    float x[N], other[N];
    for (int i = 0; i < N; i++) {
        x[i] = 4 * case_random();
        other[i] = 4 * case_random();
    }
    int tried = 0;
    for (int k = 0; k < N_FLOAT_OPS; k++) {
        const terse_op_impl *impl = terse_op_find(float_ops[k]);
        assert_true(impl->flags & (TERSE_OP_IN_PLACE | TERSE_OP_IN_PLACE_ANY));
        const int n_inputs = impl->min_inputs == 2 ? 2 : 1, n_candidates = impl->flags & TERSE_OP_IN_PLACE_ANY ? 2 : 1;
        for (int index = 0; index < n_candidates; index++) {
            op_case apart = case_new(float_ops[k], 1), in_place = case_new(float_ops[k], 1);
            for (int i = 0; i < n_inputs; i++) {
                memcpy(case_input(&apart, i, DIMS(ROWS, COLUMNS)), i ? other : x, sizeof x);
                memcpy(case_input(&in_place, i, DIMS(ROWS, COLUMNS)), i ? other : x, sizeof x);
            }
            case_ok(&apart);
            run_in_place(&in_place, index);
            if (memcmp(apart.outputs[0].data, in_place.inputs[index].data, sizeof x) != 0)
                fail_msg("%s on input %d: other bits in place", terse_op_name(float_ops[k]), index);
            case_free(&apart);
            case_free(&in_place);
            tried++;
        }
    }
    assert_true(tried > N_FLOAT_OPS);
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relu_and_its_kin_on_floats_and_integers),
        cmocka_unit_test(test_integers_wrap_around_and_never_trap),
        cmocka_unit_test(test_functions_keep_special_floats),
        cmocka_unit_test(test_gelu_elu_selu_follow_their_formulas),
        cmocka_unit_test(test_clip_bounds_are_optional_and_max_wins),
        cmocka_unit_test(test_cast_truncates_saturates_and_wraps),
        cmocka_unit_test(test_pow_takes_its_dtype_from_the_base),
        cmocka_unit_test(test_broadcasting_follows_numpy),
        cmocka_unit_test(test_prelu_broadcasts_its_slope_one_way),
        cmocka_unit_test(test_comparisons_logic_and_where),
        cmocka_unit_test(test_a_rows_bits_do_not_depend_on_the_other_rows),
        cmocka_unit_test(test_strided_rows_give_the_bits_of_dense_ones),
        cmocka_unit_test(test_single_columns_of_wide_rows_are_those_of_dense_ones),
        cmocka_unit_test(test_in_place_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
