/* SPDX-License-Identifier: Apache-2.0 */
/* BGemm against a product in double of operands rounded to BF16, and what it refuses. Sums in FP32 of at most 66
 * products of numbers below 1 stay within 1e-5 of the double; an output in BF16 adds half a step of its 7 bits, 2^-8 of
 * it. */
#include "common/kernels/bf16.h"
#include "tests/unit/op_case.h"

static const double WIDE = 1e-5, HALF = 1.0 / 256 + 1e-5;

/* Random BF16 between -1 and 1 as input `index`. */
static uint16_t *half_input(op_case *c, int index, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank);
    uint16_t *data = malloc((size_t)count * sizeof *data + 1);
    for (int64_t i = 0; i < count; i++)
        data[i] = bf16_from(case_random());
    c->inputs[index] = terse_tensor_view(data, TERSE_BF16, rank, dims);
    c->present[index] = true;
    c->n_inputs = c->n_inputs > index + 1 ? c->n_inputs : index + 1;
    return data;
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

int main(void)
{
    case_seed = 20261126;
    print_message("seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_as_defined),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
