/* SPDX-License-Identifier: Apache-2.0 */
/* Products by sparse weights give what the same operators make of the same weights with their zeros, and refuse what
 * does not fit. */
#include "common/sparse.h"
#include "tests/unit/op_case.h"

/* [N,C,kh,kw] of a convolution, or [K,N] as C = K with no window. */
typedef struct shape {
    int64_t rows, n, c, window;
} shape;

static int64_t depth(const shape *s)
{
    return s->c * (s->window ? s->window * s->window : 1);
}

static void set_weights(op_case *c, terse_layout layout, terse_dtype dtype, const shape *s, const void *data)
{
    const int64_t conv[4] = {s->n, s->c, s->window, s->window}, matrix[2] = {s->c, s->n};
    c->inputs[1] = terse_tensor_view((void *)(uintptr_t)data, dtype, s->window ? 4 : 2, s->window ? conv : matrix);
    c->inputs[1].layout = layout;
    c->present[1] = c->constant[1] = true;
    c->n_inputs = c->n_inputs > 2 ? c->n_inputs : 2;
}

/* Weights [n][k], k over (position, channel), of which a third of the blocks is left. */
static int8_t *random_weights(const shape *s)
{
    int8_t *w = calloc((size_t)(s->n * depth(s)), 1);
    assert_non_null(w);
    for (int64_t group = 0; group < s->n; group += 4)
        for (int64_t k = 0; k < depth(s); k++)
            for (int64_t n = group, keep = case_pick(0, 2) == 0; keep && n < group + 4 && n < s->n; n++)
                w[n * depth(s) + k] = (int8_t)case_pick(-128, 127);
    return w;
}

static void *sparse_bytes(const shape *s, const int8_t *w)
{
    size_t bytes;
    void *packed = terse_sparse_pack(TERSE_LAYOUT_S8_4X1, w, depth(s), s->n, &bytes);
    assert_non_null(packed);
    return packed;
}

static void *dense_bytes(const shape *s, const int8_t *w)
{
    const int64_t k = depth(s), row = s->window ? s->window * s->c : k, steps = (row + 3) / 4, rows = k / row;
    int8_t *packed = calloc((size_t)((s->n + 15) / 16 * rows * steps), 64);
    assert_non_null(packed);
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t i = 0; i < k; i++)
            packed[((n / 16 * rows + i / row) * steps + i % row / 4) * 64 + n % 16 * 4 + i % row % 4] = w[n * k + i];
    return packed;
}

static void random_bytes(op_case *c, int index, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank);
    uint8_t *data = malloc((size_t)count + 1);
    for (int64_t i = 0; i < count; i++)
        data[i] = (uint8_t)case_pick(0, 255);
    c->inputs[index] = terse_tensor_view(data, TERSE_UINT8, rank, dims);
    c->present[index] = true;
    c->n_inputs = c->n_inputs > index + 1 ? c->n_inputs : index + 1;
}

static void random_columns(op_case *c, const shape *s, const char *to)
{
    float *multipliers = malloc(2 * (size_t)s->n * sizeof *multipliers);
    int32_t *bias = malloc((size_t)s->n * sizeof *bias);
    for (int64_t i = 0; i < s->n; i++) {
        multipliers[i] = (1.0f + case_random() / 2) / 3000.0f;
        multipliers[s->n + i] = multipliers[i] * 1e-8f;
        bias[i] = (int32_t)case_pick(-9000, 9000);
    }
    case_constant(c, 2, TERSE_FP32, 2, (int64_t[]){2, s->n}, multipliers);
    case_constant(c, 3, TERSE_INT32, 1, &s->n, bias);
    free(multipliers);
    free(bias);
    assert_true(terse_node_set_text(c->graph, c->node, "to", to));
    assert_true(terse_node_set_int(c->graph, c->node, "y_zero_point", 100));
    assert_true(terse_node_set_int(c->graph, c->node, "x_zero_point", 9));
}

/* x [rows,K], or two images of `rows` by 5 pixels; sums to bytes, floats or integers; everything from case_seed alone.
 */
static void run_bytes(const shape *s, const int8_t *w, bool sparse, const char *to, op_case *c)
{
    *c = case_new(s->window ? TERSE_OP_QCONV : TERSE_OP_QGEMM, 1);
    if (s->window)
        random_bytes(c, 0, CASE_DIMS(2, s->rows, 5, s->c));
    else
        random_bytes(c, 0, CASE_DIMS(s->rows, s->c));
    random_columns(c, s, to);
    if (s->window) {
        const int64_t pad = s->window / 2;
        assert_true(terse_node_set_int(c->graph, c->node, "channels_last", 1));
        CASE_ATTR_INTS(c, "pads", pad, pad, pad, pad);
        CASE_ATTR_INTS(c, "strides", 2, 1);
    }
    set_weights(c, sparse ? TERSE_LAYOUT_S8_4X1 : TERSE_LAYOUT_S8_N16K4, TERSE_INT8, s,
                sparse ? sparse_bytes(s, w) : dense_bytes(s, w));
    if (strcmp(to, "f32") == 0 && !s->window) { /* a scale that is known at run time */
        case_input(c, 6, 0, NULL);
        random_bytes(c, 7, 0, NULL);
        int32_t *sums = calloc((size_t)s->n, sizeof *sums);
        for (int64_t i = 0; i < s->n * depth(s); i++)
            sums[i / depth(s)] += w[i];
        case_constant(c, 8, TERSE_INT32, 1, &s->n, sums);
        free(sums);
    }
    case_ok(c);
}

static void bytes_are_those_of_dense_weights(void **state)
{
    (void)state;
    static const shape shapes[] = {{1, 10, 70, 0}, {5, 33, 64, 0}, {13, 48, 300, 0}, {3, 4, 3, 0},
                                   {4, 20, 7, 1},  {5, 40, 70, 1}, {4, 33, 5, 3},    {6, 64, 32, 3}};
    static const char *const targets[] = {"u8", "f32", "s32"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int t = 0; t < 3; t++) {
            op_case dense, sparse;
            int8_t *w = random_weights(&shapes[i]);
            const unsigned seed = case_seed;
            run_bytes(&shapes[i], w, false, targets[t], &dense);
            case_seed = seed;
            run_bytes(&shapes[i], w, true, targets[t], &sparse);
            assert_int_equal(terse_tensor_bytes(&dense.outputs[0]), terse_tensor_bytes(&sparse.outputs[0]));
            assert_memory_equal(dense.outputs[0].data, sparse.outputs[0].data,
                                (size_t)terse_tensor_bytes(&dense.outputs[0]));
            assert_true(sparse.macs <= dense.macs);
            case_free(&dense);
            case_free(&sparse);
            free(w);
        }
}

/* Floats: weights in ONNX's order, or sparse. Finite numbers: the zeros change nothing. */
static void run_floats(terse_op op, const shape *s, const int8_t *w, bool sparse, op_case *c)
{
    const int64_t k = depth(s), positions = s->window ? s->window * s->window : 1;
    *c = case_new(op, 1);
    if (s->window)
        case_input(c, 0, CASE_DIMS(2, s->rows, 5, s->c));
    else if (op == TERSE_OP_MATMUL)
        case_input(c, 0, CASE_DIMS(2, s->rows, s->c));
    else
        case_input(c, 0, CASE_DIMS(s->rows, s->c));
    float *plain = malloc((size_t)(s->n * k) * sizeof *plain), *turned = malloc((size_t)(s->n * k) * sizeof *turned);
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t i = 0; i < k; i++) {
            turned[n * k + i] = (float)w[n * k + i] / 64.0f;
            plain[s->window ? n * k + i % s->c * positions + i / s->c : i * s->n + n] = turned[n * k + i];
        }
    size_t bytes;
    void *packed = terse_sparse_pack(TERSE_LAYOUT_F32_4X1, turned, k, s->n, &bytes);
    set_weights(c, sparse ? TERSE_LAYOUT_F32_4X1 : TERSE_LAYOUT_PLAIN, TERSE_FP32, s, sparse ? packed : plain);
    free(sparse ? (void *)plain : packed);
    free(turned);
    case_input(c, 2, 1, &s->n);
    c->constant[2] = true;
    if (s->window) {
        const int64_t pad = s->window / 2;
        assert_true(terse_node_set_int(c->graph, c->node, "channels_last", 1));
        CASE_ATTR_INTS(c, "pads", pad, pad, pad, pad);
    }
    assert_true(terse_node_set_text(c->graph, c->node, "activation", "Clip"));
    assert_true(terse_node_set_float(c->graph, c->node, "activation_alpha", -4));
    assert_true(terse_node_set_float(c->graph, c->node, "activation_beta", 4));
    case_ok(c);
}

static void floats_are_those_of_dense_weights(void **state)
{
    (void)state;
    static const shape shapes[] = {{1, 10, 70, 0}, {5, 33, 64, 0}, {40, 48, 600, 0}, {4, 20, 7, 1},
                                   {5, 40, 70, 1}, {4, 33, 5, 3},  {6, 64, 32, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int form = 0; form < 2; form++) {
            const terse_op op = shapes[i].window ? TERSE_OP_CONV : form ? TERSE_OP_MATMUL : TERSE_OP_GEMM;
            op_case dense, sparse;
            int8_t *w = random_weights(&shapes[i]);
            const unsigned seed = case_seed;
            run_floats(op, &shapes[i], w, false, &dense);
            case_seed = seed;
            run_floats(op, &shapes[i], w, true, &sparse);
            assert_int_equal(terse_tensor_bytes(&dense.outputs[0]), terse_tensor_bytes(&sparse.outputs[0]));
            case_close(sparse.outputs[0].data, dense.outputs[0].data, terse_tensor_count(&dense.outputs[0]), 0);
            case_free(&dense);
            case_free(&sparse);
            free(w);
        }
}

static void groups_and_transposition_refuse_them(void **state)
{
    (void)state;
    const shape s = {4, 8, 2, 3};
    int8_t *w = random_weights(&s);
    op_case c = case_new(TERSE_OP_QCONV, 1);
    random_bytes(&c, 0, CASE_DIMS(1, 4, 5, 4));
    random_columns(&c, &s, "u8");
    assert_true(terse_node_set_int(c.graph, c.node, "channels_last", 1));
    assert_true(terse_node_set_int(c.graph, c.node, "group", 2));
    set_weights(&c, TERSE_LAYOUT_S8_4X1, TERSE_INT8, &s, sparse_bytes(&s, w));
    case_refused(&c, "do not fit group 2");
    case_free(&c);
    float floats[8 * 18] = {1};
    size_t bytes;
    const shape matrix = {3, 8, 18, 0};
    c = case_new(TERSE_OP_GEMM, 1);
    case_input(&c, 0, CASE_DIMS(3, 18));
    assert_true(terse_node_set_int(c.graph, c.node, "transB", 1));
    set_weights(&c, TERSE_LAYOUT_F32_4X1, TERSE_FP32, &matrix,
                terse_sparse_pack(TERSE_LAYOUT_F32_4X1, floats, 18, 8, &bytes));
    case_refused(&c, "no transposition");
    case_free(&c);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_dense_weights),
        cmocka_unit_test(floats_are_those_of_dense_weights),
        cmocka_unit_test(groups_and_transposition_refuse_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
