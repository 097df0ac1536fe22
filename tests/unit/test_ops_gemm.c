/* SPDX-License-Identifier: Apache-2.0 */
/* Gemm, MatMul and Einsum against loops in double, and a row alone against the same row among others. */
#include <time.h>

#include "op_case.h"

static float at(const float *data, int64_t stride, bool turned, int64_t i, int64_t j)
{
    return turned ? data[j * stride + i] : data[i * stride + j];
}

static void check_gemm(int form)
{
    const int64_t m = case_pick(1, 9), n = case_pick(1, 40), k = case_pick(1, 50);
    const bool ta = case_pick(0, 1), tb = case_pick(0, 1);
    const float alpha = case_pick(0, 1) ? 1 : 0.5f, beta = case_pick(0, 1) ? 1 : -2;
    op_case c = case_new(TERSE_OP_GEMM, 1);
    const float *a = case_input(&c, 0, 2, ta ? (int64_t[]){k, m} : (int64_t[]){m, k});
    const float *b = case_input(&c, 1, 2, tb ? (int64_t[]){n, k} : (int64_t[]){k, n});
    const int64_t shapes[6][2] = {{m, n}, {m, 1}, {1, n}, {1, 1}, {n, 0}, {1, 0}};
    const int64_t *shape = shapes[form];
    const float *add = case_input(&c, 2, shape[1] ? 2 : 1, shape);
    const float *residual = form % 2 ? case_input(&c, 3, 2, (int64_t[]){m, n}) : NULL;
    terse_node_set_int(c.graph, c.node, "transA", ta);
    terse_node_set_int(c.graph, c.node, "transB", tb);
    terse_node_set_float(c.graph, c.node, "alpha", (double)alpha);
    terse_node_set_float(c.graph, c.node, "beta", (double)beta);
    terse_node_set_text(c.graph, c.node, "activation", "Clip");
    terse_node_set_float(c.graph, c.node, "activation_alpha", -1.5);
    terse_node_set_float(c.graph, c.node, "activation_beta", 1.5);
    case_ok(&c);
    assert_int_equal(c.macs, m * n * k);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            const int64_t rows = shape[1] ? shape[0] : 1, columns = shape[1] ? shape[1] : shape[0];
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)at(a, ta ? m : k, ta, i, l) * (double)at(b, tb ? k : n, tb, l, j);
            sum =
                (double)alpha * sum + (double)beta * (double)add[(rows > 1 ? i : 0) * columns + (columns > 1 ? j : 0)];
            sum += residual ? (double)residual[i * n + j] : 0;
            const float want = (float)fmin(fmax(sum, -1.5), 1.5);
            case_close((float *)c.outputs[0].data + i * n + j, &want, 1, 1e-5);
        }
    case_free(&c);
}

static void test_gemm_follows_its_definition_for_every_shape_of_c(void **state)
{
    (void)state;
    for (int i = 0; i < 120; i++)
        check_gemm(i % 6);
}

/* B [K,N] in TERSE_LAYOUT_F32_N16, by the layout's definition. */
static float *pack(const float *b, int64_t k, int64_t n)
{
    float *packed = calloc((size_t)(k * ((n + 15) / 16 * 16)), sizeof *packed);
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < n; j++)
            packed[(j / 16 * k + i) * 16 + j % 16] = b[i * n + j];
    return packed;
}

static void check_packed(terse_op op)
{
    const int64_t m = case_pick(2, 9), n = case_pick(1, 40), k = case_pick(1, 50);
    op_case plain = case_new(op, 1);
    case_input(&plain, 0, 2, (int64_t[]){m, k});
    case_input(&plain, 1, 2, (int64_t[]){k, n});
    case_input(&plain, 2, 1, &n);
    case_input(&plain, 3, 2, (int64_t[]){m, n});
    case_ok(&plain);
    for (int64_t rows = 1; rows <= m; rows++) { /* the first rows alone, B packed: the same bits */
        op_case c = case_new(op, 1);
        case_constant(&c, 0, TERSE_FP32, 2, (int64_t[]){rows, k}, plain.inputs[0].data);
        c.constant[0] = false;
        c.inputs[1] = plain.inputs[1];
        c.inputs[1].layout = TERSE_LAYOUT_F32_N16;
        c.inputs[1].data = pack(plain.inputs[1].data, k, n);
        c.present[1] = c.constant[1] = true;
        case_constant(&c, 2, TERSE_FP32, 1, &n, plain.inputs[2].data);
        case_constant(&c, 3, TERSE_FP32, 2, (int64_t[]){rows, n}, plain.inputs[3].data);
        case_ok(&c);
        assert_memory_equal(c.outputs[0].data, plain.outputs[0].data, (size_t)(rows * n) * sizeof(float));
        case_free(&c);
    }
    case_free(&plain);
}

static void test_a_row_has_the_same_bits_packed_or_not_alone_or_not(void **state)
{
    (void)state;
    for (int i = 0; i < 30; i++)
        check_packed(i % 2 ? TERSE_OP_GEMM : TERSE_OP_MATMUL);
}

static void test_matmul_broadcasts_batches_like_numpy(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_MATMUL, 1);
    const float *a = case_input(&c, 0, CASE_DIMS(2, 1, 3, 4)), *b = case_input(&c, 1, CASE_DIMS(5, 4, 17));
    case_ok(&c);
    const float *y = c.outputs[0].data;
    assert_int_equal(c.outputs[0].rank, 4);
    assert_int_equal(c.macs, 2 * 5 * 3 * 17 * 4);
    for (int64_t i = 0; i < 2 * 5 * 3 * 17; i++) {
        const int64_t p = i / 255, q = i / 51 % 5, r = i / 17 % 3, s = i % 17;
        double sum = 0;
        for (int64_t k = 0; k < 4; k++)
            sum += (double)a[(p * 3 + r) * 4 + k] * (double)b[(q * 4 + k) * 17 + s];
        const float want = (float)sum;
        case_close(y + i, &want, 1, 1e-5);
    }
    case_free(&c);
}

static void test_matmul_takes_vectors_on_either_side(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_MATMUL, 1);
    CASE_FLOATS(&c, 0, CASE_DIMS(2), 1, 2);
    CASE_FLOATS(&c, 1, CASE_DIMS(2, 3), 1, 2, 3, 10, 20, 30);
    case_ok(&c);
    assert_int_equal(c.outputs[0].rank, 1);
    CASE_WANT(&c, 0, 0, 21, 42, 63);
    case_free(&c);
    c = case_new(TERSE_OP_MATMUL, 1);
    CASE_FLOATS(&c, 0, CASE_DIMS(2), 1, 2);
    CASE_FLOATS(&c, 1, CASE_DIMS(2), 3, 4);
    case_ok(&c);
    assert_int_equal(c.outputs[0].rank, 0);
    CASE_WANT(&c, 0, 0, 11);
    case_free(&c);
}

static void test_integer_products_wrap(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_MATMUL, 1);
    case_constant(&c, 0, TERSE_INT32, 2, (int64_t[]){1, 2}, (int32_t[]){INT32_MAX, 3});
    case_constant(&c, 1, TERSE_INT32, 2, (int64_t[]){2, 1}, (int32_t[]){2, 5});
    case_ok(&c);
    assert_int_equal(*(int32_t *)c.outputs[0].data, 13); /* -2 + 15 */
    case_free(&c);
}

static void check_einsum(const char *equation, int rank_a, const int64_t *dims_a, int rank_b, const int64_t *dims_b,
                         int n, const float *want)
{
    op_case c = case_new(TERSE_OP_EINSUM, 1);
    float *a = case_input(&c, 0, rank_a, dims_a), *b = case_input(&c, 1, rank_b, dims_b);
    for (int64_t i = 0; i < terse_dims_count(dims_a, rank_a); i++)
        a[i] = (float)(i + 1);
    for (int64_t i = 0; i < terse_dims_count(dims_b, rank_b); i++)
        b[i] = (float)(10 * (i + 1));
    terse_node_set_text(c.graph, c.node, "equation", equation);
    case_ok(&c);
    assert_int_equal(terse_tensor_count(&c.outputs[0]), n);
    case_close(c.outputs[0].data, want, n, 0);
    case_free(&c);
}

static void test_einsum_is_a_product_in_any_order_of_axes(void **state)
{
    (void)state;
    /* a = [[1,2],[3,4]], b = [[10,20],[30,40]] */
    check_einsum("ij,jk->ik", 2, (int64_t[]){2, 2}, 2, (int64_t[]){2, 2}, 4, (float[]){70, 100, 150, 220});
    check_einsum("ij, jk -> ki", 2, (int64_t[]){2, 2}, 2, (int64_t[]){2, 2}, 4, (float[]){70, 150, 100, 220});
    check_einsum("ji,jk", 2, (int64_t[]){2, 2}, 2, (int64_t[]){2, 2}, 4, (float[]){100, 140, 140, 200});
    check_einsum("bi,bi->b", 2, (int64_t[]){2, 2}, 2, (int64_t[]){2, 2}, 2, (float[]){50, 250});
    check_einsum("i,j->ij", 1, (int64_t[]){2}, 1, (int64_t[]){2}, 4, (float[]){10, 20, 20, 40});
    check_einsum("...i,...i->...", 2, (int64_t[]){2, 2}, 1, (int64_t[]){2}, 2, (float[]){50, 110});
    check_einsum("ij,ij->", 2, (int64_t[]){2, 2}, 2, (int64_t[]){2, 2}, 1, (float[]){300});
}

static void refuse_einsum(const char *equation, const char *text)
{
    op_case c = case_new(TERSE_OP_EINSUM, 1);
    case_input(&c, 0, CASE_DIMS(2, 2));
    case_input(&c, 1, CASE_DIMS(2, 2));
    terse_node_set_text(c.graph, c.node, "equation", equation);
    case_refused(&c, text);
    case_refused(&c, equation);
    case_free(&c);
}

static void test_other_equations_are_refused_by_equation(void **state)
{
    (void)state;
    refuse_einsum("ii,ij->j", "repeats a label");
    refuse_einsum("ij,kl->i", "sums over a label of one operand");
    refuse_einsum("ij,jk->iz", "makes one up");
    refuse_einsum("ij,jk,kl->il", "two operands");
    refuse_einsum("ij->ji", "two operands");
    refuse_einsum("ijk,jk->i", "has 3 labels");
    refuse_einsum("i?,jk->i", "cannot be read");
    refuse_einsum("ij...k,jk->i", "cannot be read");
}

static void test_shapes_that_do_not_multiply_are_refused(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_GEMM, 1);
    case_input(&c, 0, CASE_DIMS(2, 3));
    case_input(&c, 1, CASE_DIMS(4, 5));
    case_refused(&c, "shapes [2,3] and [4,5]");
    case_free(&c);
    c = case_new(TERSE_OP_MATMUL, 1);
    case_input(&c, 0, CASE_DIMS(2, 2, 3));
    case_input(&c, 1, CASE_DIMS(3, 3, 5));
    case_refused(&c, "do not broadcast");
    case_free(&c);
    c = case_new(TERSE_OP_GEMM, 1);
    case_input(&c, 0, CASE_DIMS(2, 3));
    case_input(&c, 1, CASE_DIMS(3, 5));
    case_input(&c, 2, CASE_DIMS(4));
    case_refused(&c, "does not broadcast to [2,5]");
    case_free(&c);
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_follows_its_definition_for_every_shape_of_c),
        cmocka_unit_test(test_a_row_has_the_same_bits_packed_or_not_alone_or_not),
        cmocka_unit_test(test_matmul_broadcasts_batches_like_numpy),
        cmocka_unit_test(test_matmul_takes_vectors_on_either_side),
        cmocka_unit_test(test_integer_products_wrap),
        cmocka_unit_test(test_einsum_is_a_product_in_any_order_of_axes),
        cmocka_unit_test(test_other_equations_are_refused_by_equation),
        cmocka_unit_test(test_shapes_that_do_not_multiply_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
