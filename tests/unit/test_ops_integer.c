/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "op_want.h"

/* Bytes of either dtype, extremes often. */
static void give_bytes(op_case *c, int index, bool is_signed, int rank, const int64_t *dims)
{
    uint8_t bytes[8192];
    const int64_t n = terse_dims_count(dims, rank);
    assert_true(n <= (int64_t)sizeof bytes);
    for (int64_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(case_pick(0, 4) ? case_pick(0, 255) : case_pick(0, 1) * 127 + case_pick(0, 1) * 128);
    case_constant(c, index, is_signed ? TERSE_INT8 : TERSE_UINT8, rank, dims, bytes);
    c->constant[index] = false;
}

static int64_t byte_at(const op_case *c, int index, int64_t i)
{
    if (!c->present[index])
        return 0;
    const void *data = c->inputs[index].data;
    return c->inputs[index].dtype == TERSE_INT8 ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
}

static void give_scales(op_case *c, int index, int rank, const int64_t *dims, float size)
{
    float scales[256];
    for (int64_t i = 0; i < terse_dims_count(dims, rank); i++)
        scales[i] = size * (1.5f + case_random());
    case_constant(c, index, TERSE_FP32, rank, dims, scales);
}

static double scale_at(const op_case *c, int index, int64_t i)
{
    return (double)((const float *)c->inputs[index].data)[terse_tensor_count(&c->inputs[index]) == 1 ? 0 : i];
}

static int64_t zero_at(const op_case *c, int index, int64_t i)
{
    return byte_at(c, index, c->present[index] && terse_tensor_count(&c->inputs[index]) == 1 ? 0 : i);
}

static int64_t requantized(double v, int64_t zero, bool is_signed)
{
    v = rint(v) + (double)zero;
    const double low = is_signed ? -128 : 0, high = is_signed ? 127 : 255;
    return (int64_t)(v < low ? low : v > high ? high : v);
}

static int64_t output_byte(const op_case *c, int64_t i)
{
    const void *data = c->outputs[0].data;
    return c->outputs[0].dtype == TERSE_INT8 ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
}

static void test_matmul_integer_is_the_exact_sum_for_any_zero_points(void **state)
{
    (void)state;
    for (int turn = 0; turn < 300; turn++) {
        const int64_t batch = case_pick(1, 3), m = case_pick(1, 5), k = case_pick(1, 40), n = case_pick(1, 35);
        const bool shared = case_pick(0, 1), a_signed = case_pick(0, 1), b_signed = case_pick(0, 1);
        const int64_t a_zero = case_pick(0, 3), b_zero = case_pick(0, 3);
        op_case c = case_new(TERSE_OP_MATMUL_INTEGER, 1);
        give_bytes(&c, 0, a_signed, DIMS(batch, m, k));
        give_bytes(&c, 1, b_signed, 3 - shared, shared ? (int64_t[]){k, n} : (int64_t[]){batch, k, n});
        if (a_zero)
            give_bytes(&c, 2, a_signed,
                       a_zero == 1   ? 0
                       : a_zero == 2 ? 1
                                     : 3,
                       a_zero == 2 ? (int64_t[]){m} : (int64_t[]){batch, m, 1});
        if (b_zero)
            give_bytes(&c, 3, b_signed,
                       b_zero == 1   ? 0
                       : b_zero == 2 ? 1
                                     : 3 - shared,
                       b_zero == 2 ? (int64_t[]){n}
                       : shared    ? (int64_t[]){1, n}
                                   : (int64_t[]){batch, 1, n});
        case_ok(&c);
        const int32_t *y = c.outputs[0].data;
        for (int64_t i = 0; i < batch * m * n; i++) {
            const int64_t b = i / (m * n), row = i / n % m, column = i % n;
            const int64_t za = zero_at(&c, 2, a_zero == 3 ? b * m + row : row);
            const int64_t zb = zero_at(&c, 3, b_zero == 3 && !shared ? b * n + column : column);
            int64_t sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (byte_at(&c, 0, (b * m + row) * k + l) - za) *
                       (byte_at(&c, 1, ((shared ? 0 : b) * k + l) * n + column) - zb);
            if (y[i] != sum)
                fail_msg("turn %d, element %lld: %d, wanted %lld", turn, (long long)i, y[i], (long long)sum);
        }
        case_free(&c);
    }
}

static void test_matmul_integer_takes_vectors_and_nothing(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_MATMUL_INTEGER, 1);
    GIVE(&c, 0, u8, DIMS(3), 1, 2, 3);
    GIVE(&c, 1, i8, DIMS(3), -1, 5, 7);
    GIVE(&c, 2, u8, SCALAR, 1);
    GIVES(&c, i32, SCALAR, 19);
    c = case_new(TERSE_OP_MATMUL_INTEGER, 1);
    GIVE(&c, 0, u8, DIMS(1, 0), 0);
    GIVE(&c, 1, u8, DIMS(0, 2), 0);
    GIVE(&c, 2, u8, SCALAR, 1);
    GIVES(&c, i32, DIMS(1, 2), 0, 0);
    c = case_new(TERSE_OP_MATMUL_INTEGER, 1);
    GIVE(&c, 0, u8, DIMS(1, 2), 0, 1);
    GIVE(&c, 1, u8, DIMS(3, 1), 0, 1, 2);
    REFUSES(&c, "shapes [1,2] and [3,1] do not multiply");
    c = case_new(TERSE_OP_MATMUL_INTEGER, 1);
    GIVE(&c, 0, u8, DIMS(2, 1), 0, 1);
    GIVE(&c, 1, u8, DIMS(1, 3), 0, 1, 2);
    GIVE(&c, 3, u8, DIMS(2), 0, 1);
    REFUSES(&c, "input 3 has shape [2], does not fit the columns of shape [1,3]");
}

static void test_qlinear_matmul_rounds_what_double_says(void **state)
{
    (void)state;
    for (int turn = 0; turn < 200; turn++) {
        const int64_t m = case_pick(1, 4), k = case_pick(1, 40), n = case_pick(1, 20);
        const bool a_signed = case_pick(0, 1), b_signed = case_pick(0, 1), y_signed = case_pick(0, 1);
        const bool rows = case_pick(0, 1), columns = case_pick(0, 1);
        op_case c = case_new(TERSE_OP_QLINEAR_MATMUL, 1);
        give_bytes(&c, 0, a_signed, DIMS(m, k));
        give_scales(&c, 1, rows, &m, 0.01f);
        give_bytes(&c, 2, a_signed, rows, &m);
        give_bytes(&c, 3, b_signed, DIMS(k, n));
        give_scales(&c, 4, columns, &n, 0.02f);
        give_bytes(&c, 5, b_signed, columns, &n);
        give_scales(&c, 6, SCALAR, 0.1f);
        give_bytes(&c, 7, y_signed, SCALAR);
        case_ok(&c);
        for (int64_t i = 0; i < m * n; i++) {
            int64_t sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (byte_at(&c, 0, i / n * k + l) - zero_at(&c, 2, i / n)) *
                       (byte_at(&c, 3, l * n + i % n) - zero_at(&c, 5, i % n));
            const double v = (double)sum * (scale_at(&c, 1, i / n) * scale_at(&c, 4, i % n) / scale_at(&c, 6, 0));
            assert_int_equal(output_byte(&c, i), requantized(v, byte_at(&c, 7, 0), y_signed));
        }
        case_free(&c);
    }
}

/* The sum of one output pixel of a 2-d convolution, padding adds nothing. */
static int64_t conv_sum(const op_case *c, int w, const int64_t *x_dims, const int64_t *w_dims,
                        int64_t filters_per_group, int64_t image, int64_t filter, int64_t top, int64_t left,
                        int64_t x_zero, int64_t w_zero)
{
    int64_t sum = 0;
    for (int64_t ch = 0; ch < w_dims[1]; ch++)
        for (int64_t i = 0; i < w_dims[2]; i++)
            for (int64_t j = 0; j < w_dims[3]; j++) {
                const int64_t row = top + i, column = left + j, channel = filter / filters_per_group * w_dims[1] + ch;
                if (row < 0 || row >= x_dims[2] || column < 0 || column >= x_dims[3])
                    continue;
                const int64_t at = ((image * x_dims[1] + channel) * x_dims[2] + row) * x_dims[3] + column;
                const int64_t weight = ((filter * w_dims[1] + ch) * w_dims[2] + i) * w_dims[3] + j;
                sum += (byte_at(c, 0, at) - x_zero) * (byte_at(c, w, weight) - w_zero);
            }
    return sum;
}

static void test_convolutions_of_bytes_are_exact(void **state)
{
    (void)state;
    for (int turn = 0; turn < 300; turn++) {
        const bool qlinear = case_pick(0, 1), x_signed = case_pick(0, 1), w_signed = case_pick(0, 1);
        const int64_t groups = case_pick(1, 3), per_group = case_pick(1, 3);
        const int64_t x_dims[] = {case_pick(1, 2), groups * case_pick(1, 5), case_pick(3, 6), case_pick(3, 6)};
        const int64_t w_dims[] = {groups * per_group, x_dims[1] / groups, case_pick(1, 3), case_pick(1, 3)};
        const int64_t pad = case_pick(0, 1), stride = case_pick(1, 2);
        const int w = qlinear ? 3 : 1, x_zero = 2, w_zero = qlinear ? 5 : 3;
        const int64_t w_zeros = case_pick(0, 2), scales = case_pick(0, 1);
        op_case c = case_new(qlinear ? TERSE_OP_QLINEAR_CONV : TERSE_OP_CONV_INTEGER, 1);
        case_set_int(&c, "group", groups);
        CASE_ATTR_INTS(&c, "pads", pad, pad, pad, pad);
        CASE_ATTR_INTS(&c, "strides", stride, stride);
        give_bytes(&c, 0, x_signed, 4, x_dims);
        give_bytes(&c, w, w_signed, 4, w_dims);
        if (qlinear || case_pick(0, 1))
            give_bytes(&c, x_zero, x_signed, SCALAR);
        if (qlinear || w_zeros)
            give_bytes(&c, w_zero, w_signed, w_zeros == 2, w_dims);
        int32_t bias[16] = {0};
        if (qlinear) {
            give_scales(&c, 1, SCALAR, 0.01f);
            give_scales(&c, 4, (int)scales, w_dims, 0.02f);
            give_scales(&c, 6, SCALAR, 0.1f);
            give_bytes(&c, 7, x_signed, SCALAR);
            for (int i = 0; i < 16; i++)
                bias[i] = (int32_t)case_pick(-5000, 5000);
            case_constant(&c, 8, TERSE_INT32, 1, w_dims, bias);
        }
        case_ok(&c);
        const terse_tensor *y = &c.outputs[0];
        for (int64_t i = 0; i < terse_tensor_count(y); i++) {
            const int64_t filter = i / (y->dims[2] * y->dims[3]) % y->dims[1];
            const int64_t row = i / y->dims[3] % y->dims[2], column = i % y->dims[3];
            const int64_t sum = conv_sum(&c, w, x_dims, w_dims, per_group, i / (y->dims[1] * y->dims[2] * y->dims[3]),
                                         filter, row * stride - pad, column * stride - pad, zero_at(&c, x_zero, 0),
                                         zero_at(&c, w_zero, filter));
            if (!qlinear) {
                assert_int_equal(((const int32_t *)y->data)[i], sum);
                continue;
            }
            const double m = scale_at(&c, 1, 0) * scale_at(&c, 4, filter) / scale_at(&c, 6, 0);
            assert_int_equal(output_byte(&c, i),
                             requantized((double)(sum + bias[filter]) * m, byte_at(&c, 7, 0), x_signed));
        }
        case_free(&c);
    }
}

static void test_sums_go_with_packed_weights_only(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_CONV_INTEGER, 1);
    give_bytes(&c, 0, false, DIMS(1, 1, 3, 3));
    give_bytes(&c, 1, true, DIMS(2, 1, 2, 2));
    const int32_t sums[2] = {1, 2};
    case_constant(&c, 4, TERSE_INT32, 1, (int64_t[]){2}, sums);
    REFUSES(&c, "the weights are INT8 in layout 0, constant INT8 in layout");
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_integer_is_the_exact_sum_for_any_zero_points),
        cmocka_unit_test(test_matmul_integer_takes_vectors_and_nothing),
        cmocka_unit_test(test_qlinear_matmul_rounds_what_double_says),
        cmocka_unit_test(test_convolutions_of_bytes_are_exact),
        cmocka_unit_test(test_sums_go_with_packed_weights_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
