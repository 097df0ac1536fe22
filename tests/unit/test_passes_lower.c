/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized networks in their one form (DequantizeLinear, float operator, QuantizeLinear) are answered by the engine
 * before and after the passes: the answers may differ where a float sum fell on the other side of a tie, by one step.
 */
#include "tests/unit/graph_maker.h"

#include "compress/passes/passes.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

static terse_graph *start(void)
{
    terse_graph *g = terse_graph_new();
    assert_non_null(g);
    assert_int_equal(terse_graph_symbol(g, "N"), 0);
    return g;
}

static int add_byte(terse_graph *g, terse_dtype dtype, int number)
{
    uint8_t *data = terse_arena_alloc(g->arena, 1);
    *data = (uint8_t)number;
    return terse_graph_add_constant(g, "zero", dtype, 0, NULL, data);
}

static int quantize(terse_graph *g, int x, float scale, int zero_point)
{
    return make_node(g, TERSE_OP_QUANTIZE_LINEAR,
                     INPUTS(x, make_number(g, scale), add_byte(g, TERSE_UINT8, zero_point)));
}

static int dequantize(terse_graph *g, int q, float scale, int zero_point)
{
    return make_node(g, TERSE_OP_DEQUANTIZE_LINEAR,
                     INPUTS(q, make_number(g, scale), add_byte(g, TERSE_UINT8, zero_point)));
}

/* There and back: a float value that is bytes. */
static int through(terse_graph *g, int x, float scale, int zero_point)
{
    return dequantize(g, quantize(g, x, scale, zero_point), scale, zero_point);
}

/* DequantizeLinear of random weights with one scale per entry of `axis` (-1: one for all). */
static int byte_weights(terse_graph *g, terse_dtype dtype, int zero_point, int axis, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank), scales = axis < 0 ? 1 : dims[axis];
    int8_t *data = terse_arena_alloc(g->arena, (size_t)count);
    for (int64_t i = 0; i < count; i++)
        data[i] = (int8_t)(random_number() * 127);
    if (dtype == TERSE_UINT8)
        for (int64_t i = 0; i < count; i++)
            data[i] = (int8_t)(uint8_t)(data[i] + zero_point);
    const int w = terse_graph_add_constant(g, "w8", dtype, rank, dims, data);
    const int s = make_weights(g, 0.006f, 0.003f, axis < 0 ? 0 : 1, &scales);
    uint8_t *zeros = terse_arena_alloc(g->arena, (size_t)scales);
    memset(zeros, zero_point, (size_t)scales);
    const int z = terse_graph_add_constant(g, "z8", dtype, axis < 0 ? 0 : 1, &scales, zeros);
    const int y = make_node(g, TERSE_OP_DEQUANTIZE_LINEAR, INPUTS(w, s, z));
    if (axis >= 0)
        assert_true(terse_node_set_int(g, last_node(g), "axis", axis));
    return y;
}

static int byte_conv(terse_graph *g, int x, int64_t channels, int64_t filters, int64_t kernel, int64_t stride,
                     int64_t pad, int64_t group)
{
    const int w = byte_weights(g, TERSE_INT8, 0, 0, DIMS(filters, channels / group, kernel, kernel));
    const int y = make_node(g, TERSE_OP_CONV, INPUTS(x, w, make_weights(g, 0, 0.5f, DIMS(filters))));
    terse_node_set_ints(g, last_node(g), "strides", (int64_t[]){stride, stride}, 2);
    terse_node_set_ints(g, last_node(g), "pads", (int64_t[]){pad, pad, pad, pad}, 4);
    terse_node_set_int(g, last_node(g), "group", group);
    return y;
}

/* Runs all passes; every pass keeps the answer up to `step` of its largest number. */
static void check_passes(terse_graph *g, double step)
{
    terse_error error = {0};
    state_values(g);
    if (terse_graph_check(g, &error) != TERSE_OK)
        fail_msg("before: %s", error.message);
    answers before = answer(g, 2, 7), larger = answer(g, 5, 9);
    for (int i = 0; i < terse_passes_n; i++) {
        if (terse_passes_list[i].run(g, &error) != TERSE_OK)
            fail_msg("%s: %s", terse_passes_list[i].name, error.message);
        answers after = answer(g, 2, 7);
        const double difference = apart(&before, &after);
        if (!(difference <= step))
            fail_msg("pass '%s' changes the answer by %g", terse_passes_list[i].name, difference);
        answers_done(&after);
    }
    answers after = answer(g, 5, 9);
    assert_true(apart(&larger, &after) <= step);
    answers_done(&after);
    answers_done(&larger);
    answers_done(&before);
}

static int floats_left(const terse_graph *g)
{
    return count_ops(g, TERSE_OP_CONV) + count_ops(g, TERSE_OP_GEMM) + count_ops(g, TERSE_OP_MATMUL) +
           count_ops(g, TERSE_OP_ADD) + count_ops(g, TERSE_OP_MUL) + count_ops(g, TERSE_OP_RELU) +
           count_ops(g, TERSE_OP_CLIP) + count_ops(g, TERSE_OP_GLOBAL_AVERAGE_POOL) +
           count_ops(g, TERSE_OP_AVERAGE_POOL) + count_ops(g, TERSE_OP_REDUCE_MEAN);
}

static void a_residual_network_is_bytes_from_end_to_end(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = through(g, make_input(g, "x", DIMS(BATCH, 3, 12, 12)), 0.008f, 128);
    x = through(g, make_relu(g, byte_conv(g, x, 3, 16, 3, 2, 1, 1)), 0.02f, 0);
    const int pooled = make_node(g, TERSE_OP_MAX_POOL, INPUTS(x));
    terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){2, 2}, 2);
    x = through(g, pooled, 0.02f, 0);
    int y = through(g, make_relu(g, byte_conv(g, x, 16, 16, 3, 1, 1, 1)), 0.03f, 0);
    y = through(g, byte_conv(g, y, 16, 16, 1, 1, 0, 1), 0.04f, 120);
    y = through(g, make_relu(g, make_node(g, TERSE_OP_ADD, INPUTS(x, y))), 0.04f, 0);
    y = make_node(g, TERSE_OP_FLATTEN,
                  INPUTS(through(g, make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(y)), 0.02f, 0)));
    const int w = byte_weights(g, TERSE_INT8, 0, 0, DIMS(10, 16));
    y = make_node(g, TERSE_OP_GEMM, INPUTS(y, w, make_weights(g, 0, 0.5f, DIMS(10))));
    terse_node_set_int(g, last_node(g), "transB", 1);
    make_output(g, through(g, y, 0.03f, 110));
    check_passes(g, 0.03);
    assert_int_equal(floats_left(g), 0);
    assert_int_equal(count_ops(g, TERSE_OP_QCONV), 3);
    assert_int_equal(count_ops(g, TERSE_OP_QADD), 1);
    assert_int_equal(count_ops(g, TERSE_OP_QGEMM), 1);
    assert_int_equal(count_ops(g, TERSE_OP_QGLOBAL_AVERAGE_POOL), 1);
    assert_int_equal(count_ops(g, TERSE_OP_QUANTIZE_LINEAR), 1);
    assert_int_equal(count_ops(g, TERSE_OP_DEQUANTIZE_LINEAR), 1);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 1);
    terse_graph_free(g);
}

static void depthwise_weights_get_their_layout_and_clips_their_limits(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = through(g, make_input(g, "x", DIMS(BATCH, 20, 9, 9)), 0.008f, 128);
    x = make_node(g, TERSE_OP_CLIP,
                  INPUTS(byte_conv(g, x, 20, 20, 3, 1, 1, 20), make_number(g, 0), make_number(g, 0.8f)));
    x = through(g, x, 0.004f, 7);
    make_output(g, through(g, byte_conv(g, x, 20, 8, 3, 2, 0, 4), 0.02f, 100));
    check_passes(g, 0.02);
    assert_int_equal(floats_left(g), 0);
    int seen = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op != TERSE_OP_QCONV)
            continue;
        const terse_value *w = &g->values[g->nodes[i].inputs[1]];
        assert_int_equal(w->layout, seen ? TERSE_LAYOUT_S8_N16K4 : TERSE_LAYOUT_S8_DW);
        assert_int_equal(w->groups, seen ? 4 : 1);
        if (!seen++) {
            assert_int_equal(terse_node_int(&g->nodes[i], "low", -1), 7);
            assert_int_equal(terse_node_int(&g->nodes[i], "high", -1), 207);
        }
    }
    assert_int_equal(seen, 2);
    terse_graph_free(g);
}

static void concats_of_one_scale_move_bytes_and_others_go_through_tables(void **state)
{
    (void)state;
    for (int same = 0; same < 2; same++) {
        terse_graph *g = start();
        const int x = through(g, make_input(g, "x", DIMS(BATCH, 8, 6, 6)), 0.008f, 128);
        const int a = through(g, make_relu(g, byte_conv(g, x, 8, 16, 1, 1, 0, 1)), 0.01f, 0);
        const int b = through(g, make_relu(g, byte_conv(g, x, 8, 16, 3, 1, 1, 1)), same ? 0.01f : 0.014f, 0);
        const int y = make_node(g, TERSE_OP_CONCAT, INPUTS(a, b));
        terse_node_set_int(g, last_node(g), "axis", 1);
        make_output(g, through(g, byte_conv(g, through(g, y, 0.01f, 0), 32, 4, 1, 1, 0, 1), 0.02f, 128));
        check_passes(g, 0.02);
        assert_int_equal(floats_left(g), 0);
        assert_int_equal(count_ops(g, TERSE_OP_QTABLE), same ? 0 : 1);
        assert_int_equal(count_ops(g, TERSE_OP_CONCAT), 1);
        terse_graph_free(g);
    }
}

static void functions_of_one_byte_become_one_table(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = through(g, make_input(g, "x", DIMS(BATCH, 30)), 0.008f, 128);
    int y = make_node(g, TERSE_OP_MUL, INPUTS(x, make_node(g, TERSE_OP_SIGMOID, INPUTS(x))));
    y = make_node(g, TERSE_OP_TANH, INPUTS(make_node(g, TERSE_OP_ADD, INPUTS(y, make_number(g, 0.25f)))));
    make_output(g, through(g, y, 0.007f, 60));
    make_output(g, through(g, make_relu(g, x), 0.008f, 128)); /* keeps its zero point: 128 and above */
    make_output(g, through(g, x, 0.008f, 128));               /* nothing */
    check_passes(g, 0);
    assert_int_equal(floats_left(g), 0);
    assert_int_equal(count_ops(g, TERSE_OP_QTABLE), 2);
    assert_int_equal(count_ops(g, TERSE_OP_TANH), 0);
    assert_int_equal(count_ops(g, TERSE_OP_QUANTIZE_LINEAR), 1);
    terse_graph_free(g);
}

static void moving_elements_moves_bytes(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = through(g, make_input(g, "x", DIMS(BATCH, 4, 6, 6)), 0.008f, 128);
    x = make_node(g, TERSE_OP_PAD, INPUTS(x, make_ints(g, 8, (int64_t[]){0, 0, 1, 1, 0, 0, 1, 1})));
    x = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
    terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 2, 3, 1}, 4);
    x = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 2, (int64_t[]){0, 256})));
    const int w = byte_weights(g, TERSE_INT8, 0, 1, DIMS(256, 12));
    make_output(g, through(g, make_node(g, TERSE_OP_MATMUL, INPUTS(x, w)), 0.02f, 128));
    check_passes(g, 0.01);
    assert_int_equal(floats_left(g), 0);
    assert_int_equal(count_ops(g, TERSE_OP_DEQUANTIZE_LINEAR), 1);
    terse_graph_free(g);
}

/* The product's output is read as floats: bias and activation are exact, the residual is too. */
static void a_product_may_end_in_floats(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 24));
    const int q = through(g, x, 0.008f, 128);
    int y = make_node(g, TERSE_OP_MATMUL, INPUTS(q, byte_weights(g, TERSE_INT8, 0, 1, DIMS(24, 24))));
    y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 0.7f, DIMS(24))));
    y = make_node(g, TERSE_OP_TANH, INPUTS(make_node(g, TERSE_OP_ADD, INPUTS(y, x))));
    make_output(g, y);
    int z = make_node(g, TERSE_OP_MATMUL, INPUTS(q, byte_weights(g, TERSE_INT8, 0, -1, DIMS(24, 8))));
    make_output(g, make_node(g, TERSE_OP_SOFTMAX, INPUTS(z)));
    check_passes(g, 1e-5);
    assert_int_equal(floats_left(g), 0);
    assert_int_equal(count_ops(g, TERSE_OP_QGEMM), 2);
    assert_int_equal(count_ops(g, TERSE_OP_QUANTIZE_LINEAR), 1);
    terse_graph_free(g);
}

static void biases_in_integers_stay_exact(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = through(g, make_input(g, "x", DIMS(BATCH, 16)), 0.008f, 100);
    const int w = byte_weights(g, TERSE_INT8, 0, -1, DIMS(16, 6));
    const double w_scale = (double)*(const float *)g->values[last_node(g)->inputs[1]].data;
    const float scale = (float)(w_scale * (double)0.008f);
    int32_t *numbers = terse_arena_alloc(g->arena, 6 * sizeof *numbers);
    for (int i = 0; i < 6; i++)
        numbers[i] = (i - 3) * 1001;
    const int b = terse_graph_add_constant(g, "b", TERSE_INT32, 1, &(int64_t){6}, numbers);
    const int bias = make_node(g, TERSE_OP_DEQUANTIZE_LINEAR, INPUTS(b, make_number(g, scale)));
    make_output(g, through(g, make_node(g, TERSE_OP_GEMM, INPUTS(x, w, bias)), 0.01f, 128));
    check_passes(g, 0.01);
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op != TERSE_OP_QGEMM)
            continue;
        const int8_t *packed = g->values[g->nodes[i].inputs[1]].data;
        const int32_t *found = g->values[g->nodes[i].inputs[3]].data;
        const float *multipliers = g->values[g->nodes[i].inputs[2]].data;
        for (int n = 0; n < 6; n++) {
            const double multiplier = (double)multipliers[n] + (double)multipliers[6 + n];
            assert_true(fabs(multiplier / (w_scale * (double)0.008f / (double)0.01f) - 1) < 0x1p-44);
            int sum = 0;
            for (int k = 0; k < 16; k++)
                sum += packed[k / 4 * 64 + n * 4 + k % 4];
            assert_int_equal(found[n], (n - 3) * 1001 - 100 * sum);
        }
    }
    assert_int_equal(count_ops(g, TERSE_OP_QGEMM), 1);
    terse_graph_free(g);
}

static void unsigned_weights_around_128_are_shifted(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = through(g, make_input(g, "x", DIMS(BATCH, 16)), 0.008f, 100);
    const int w = byte_weights(g, TERSE_UINT8, 128, -1, DIMS(16, 6));
    make_output(g, through(g, make_node(g, TERSE_OP_MATMUL, INPUTS(x, w)), 0.01f, 128));
    check_passes(g, 0.01);
    assert_int_equal(count_ops(g, TERSE_OP_QGEMM), 1);
    terse_graph_free(g);
}

static void a_residual_goes_into_the_product(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = through(g, make_input(g, "x", DIMS(BATCH, 8, 5, 5)), 0.008f, 128);
    const int a = through(g, byte_conv(g, x, 8, 8, 3, 1, 1, 1), 0.01f, 120);
    const int y = make_node(g, TERSE_OP_ADD, INPUTS(byte_conv(g, a, 8, 8, 3, 1, 1, 1), x));
    make_output(g, through(g, make_relu(g, y), 0.02f, 0));
    check_passes(g, 0.02);
    assert_int_equal(floats_left(g), 0);
    assert_int_equal(count_ops(g, TERSE_OP_QADD), 0);
    assert_int_equal(count_ops(g, TERSE_OP_QCONV), 2);
    terse_graph_free(g);
}

static void what_cannot_be_bytes_stays_as_it_is(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 6, 7, 7));
    int y = byte_conv(g, x, 6, 8, 3, 1, 1, 1); /* floats in */
    y = make_node(g, TERSE_OP_SOFTMAX, INPUTS(through(g, y, 0.02f, 128)));
    terse_node_set_int(g, last_node(g), "axis", 1);
    y = through(g, y, 0.004f, 0);
    const int w = byte_weights(g, TERSE_INT8, 0, 1, DIMS(8, 8, 1, 1)); /* scales along the inputs */
    make_output(g, through(g, make_node(g, TERSE_OP_CONV, INPUTS(y, w)), 0.01f, 100));
    check_passes(g, 0.02);
    assert_int_equal(count_ops(g, TERSE_OP_CONV), 2);
    assert_int_equal(count_ops(g, TERSE_OP_QCONV), 0);
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == TERSE_OP_CONV)
            assert_int_equal(g->values[g->nodes[i].inputs[1]].dtype, TERSE_FP32);
    terse_graph_free(g);
}

static void a_linear_resize_is_done_on_bytes(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = through(g, make_input(g, "x", DIMS(BATCH, 8, 5, 5)), 0.008f, 128);
    int y = through(g, byte_conv(g, x, 8, 8, 1, 1, 0, 1), 0.01f, 120);
    const int scales = make_weights(g, 2, 0, DIMS(4));
    float *numbers = (float *)(uintptr_t)g->values[scales].data;
    numbers[0] = numbers[1] = 1;
    y = make_node(g, TERSE_OP_RESIZE, INPUTS(y, TERSE_NO_VALUE, scales));
    terse_node_set_text(g, last_node(g), "mode", "linear");
    make_output(g, through(g, byte_conv(g, through(g, y, 0.01f, 120), 8, 8, 3, 1, 1, 1), 0.02f, 128));
    check_passes(g, 0.04);
    assert_int_equal(floats_left(g), 0);
    assert_int_equal(count_ops(g, TERSE_OP_DEQUANTIZE_LINEAR), 1);
    terse_graph_free(g);
}

static void a_quantization_goes_in_front_of_what_only_moves(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_node(g, TERSE_OP_SOFTMAX, INPUTS(make_input(g, "x", DIMS(BATCH, 4, 6))));
    x = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
    terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 2, 1}, 3);
    x = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 2, (int64_t[]){0, 24})));
    const int q = quantize(g, x, 0.004f, 0);
    make_output(g, make_node(g, TERSE_OP_MATMUL,
                             INPUTS(dequantize(g, q, 0.004f, 0), byte_weights(g, TERSE_INT8, 0, 1, DIMS(24, 5)))));
    check_passes(g, 1e-5);
    assert_int_equal(g->nodes[1].op, TERSE_OP_QUANTIZE_LINEAR);
    assert_int_equal(count_ops(g, TERSE_OP_QGEMM), 1);
    terse_graph_free(g);
}

/* --- random networks ------------------------------------------------------------------------------------------- */

static int pick(int n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (int)(random_state >> 8) % n;
}

/* Values of one network, all [N,channels,size,size] and most of them bytes. */
typedef struct pool {
    int n, values[64];
    int64_t channels[64], size[64];
} pool;

static int maybe_through(terse_graph *g, int x)
{
    if (pick(5) == 0)
        return x;
    static const float scales[] = {0.01f, 0.013f, 0.02f};
    return through(g, x, scales[pick(3)], pick(2) ? 128 : 60 + pick(100));
}

static int random_activation(terse_graph *g, int x)
{
    static const terse_op ops[] = {TERSE_OP_RELU, TERSE_OP_HARD_SWISH, TERSE_OP_SIGMOID, TERSE_OP_LEAKY_RELU,
                                   TERSE_OP_TANH};
    if (pick(3) == 0)
        return make_node(g, TERSE_OP_CLIP, INPUTS(x, make_number(g, -0.2f), make_number(g, 0.9f)));
    return make_node(g, ops[pick(5)], INPUTS(x));
}

static int random_pool(terse_graph *g, int x, int64_t *size)
{
    const int y = make_node(g, pick(2) ? TERSE_OP_MAX_POOL : TERSE_OP_AVERAGE_POOL, INPUTS(x));
    terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){3, 3}, 2);
    terse_node_set_ints(g, last_node(g), "pads", (int64_t[]){1, 1, 1, 1}, 4);
    (void)size; /* stays */
    return y;
}

/* Two of the same shape, or one with itself. */
static int other_of(const pool *p, int i)
{
    for (int tries = 0; tries < 20; tries++) {
        const int j = pick(p->n);
        if (p->channels[j] == p->channels[i] && p->size[j] == p->size[i])
            return j;
    }
    return i;
}

static void add_random(terse_graph *g, pool *p)
{
    const int i = pick(p->n), x = p->values[i];
    int64_t channels = p->channels[i], size = p->size[i];
    int y, product;
    switch (pick(10)) {
    case 0:
    case 1:
    case 2: {
        const int64_t kernel = pick(2) ? 1 : 3, filters = 4 + pick(20), stride = size > 4 && pick(3) == 0 ? 2 : 1;
        y = byte_conv(g, x, channels, filters, kernel, stride, kernel / 2, 1);
        if (pick(2))
            y = random_activation(g, y);
        channels = filters;
        size = (size - 1) / stride + 1;
        break;
    }
    case 3:
        y = byte_conv(g, x, channels, channels, 3, 1, 1, channels);
        break;
    case 4:
        y = make_node(g, pick(2) ? TERSE_OP_ADD : TERSE_OP_SUB, INPUTS(x, p->values[other_of(p, i)]));
        break;
    case 5:
        product = make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(p->values[other_of(p, i)]));
        y = make_node(g, TERSE_OP_MUL, INPUTS(x, maybe_through(g, product)));
        break;
    case 6: {
        const int j = other_of(p, i);
        y = make_node(g, TERSE_OP_CONCAT, INPUTS(x, p->values[j]));
        terse_node_set_int(g, last_node(g), "axis", 1);
        channels *= 2;
        break;
    }
    case 7:
        y = random_pool(g, x, &size);
        break;
    case 8:
        y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
        terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 1, 3, 2}, 4);
        break;
    default:
        y = random_activation(g, x);
        break;
    }
    if (channels > 64)
        return;
    p->values[p->n] = maybe_through(g, y);
    p->channels[p->n] = channels;
    p->size[p->n++] = size;
}

/* The mean difference relative to the largest number: ties that fall differently are few. */
static double mean_apart(const answers *a, const answers *b)
{
    double worst = 0;
    for (int i = 0; i < a->n; i++) {
        const terse_tensor *x = &a->tensors[i], *y = &b->tensors[i];
        const int64_t n = terse_tensor_count(x);
        double sum = 0, most = 0.05;
        for (int64_t k = 0; k < n; k++) {
            most = fmax(most, fabs((double)((float *)x->data)[k]));
            sum += fabs((double)((float *)x->data)[k] - (double)((float *)y->data)[k]);
        }
        worst = fmax(worst, sum / (double)n / most);
    }
    return worst;
}

static void random_networks_keep_their_answers(void **state)
{
    (void)state;
    int lowered = 0;
    for (uint32_t seed = 1; seed <= 300; seed++) {
        random_state = seed * 7919u;
        terse_graph *g = start();
        terse_error error = {0};
        pool p = {.n = 1, .channels = {6}, .size = {7}};
        p.values[0] = maybe_through(g, make_input(g, "x", DIMS(BATCH, 6, 7, 7)));
        for (int i = 0; i < 10; i++)
            add_random(g, &p);
        make_output(g, p.values[p.n - 1]);
        if (p.n > 3 && p.values[p.n - 3] != g->inputs[0])
            make_output(g, p.values[p.n - 3]);
        state_values(g);
        answers before = answer(g, 3, 11);
        for (int i = 0; i < terse_passes_n; i++)
            if (terse_passes_list[i].run(g, &error) != TERSE_OK)
                fail_msg("seed %u: %s: %s", seed, terse_passes_list[i].name, error.message);
        answers after = answer(g, 3, 11);
        const double difference = mean_apart(&before, &after);
        if (!(difference < 0.008))
            fail_msg("seed %u: the answer changes by %g in the mean", seed, difference);
        answers_done(&after);
        answers_done(&before);
        lowered += count_ops(g, TERSE_OP_QCONV);
        terse_graph_free(g);
    }
    assert_true(lowered > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_residual_network_is_bytes_from_end_to_end),
        cmocka_unit_test(depthwise_weights_get_their_layout_and_clips_their_limits),
        cmocka_unit_test(concats_of_one_scale_move_bytes_and_others_go_through_tables),
        cmocka_unit_test(functions_of_one_byte_become_one_table),
        cmocka_unit_test(moving_elements_moves_bytes),
        cmocka_unit_test(a_product_may_end_in_floats),
        cmocka_unit_test(biases_in_integers_stay_exact),
        cmocka_unit_test(unsigned_weights_around_128_are_shifted),
        cmocka_unit_test(a_residual_goes_into_the_product),
        cmocka_unit_test(what_cannot_be_bytes_stays_as_it_is),
        cmocka_unit_test(a_linear_resize_is_done_on_bytes),
        cmocka_unit_test(a_quantization_goes_in_front_of_what_only_moves),
        cmocka_unit_test(random_networks_keep_their_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
