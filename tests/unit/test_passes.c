/* SPDX-License-Identifier: Apache-2.0 */
/* Folding, fusing, patterns and packing: every network here is answered by the engine before and after the passes. */
#include "tests/unit/passes_case.h"

static void a_convolution_takes_batch_norm_and_relu_along(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 3, 9, 7));
    int y = make_relu(g, make_batch_norm(g, make_conv(g, x, 3, 20, 3, 2, 1, 1), 20));
    make_output(g, y);
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_CONV), 1);
    assert_int_equal(count_ops(g, TERSE_OP_BATCH_NORMALIZATION), 0);
    assert_int_equal(count_ops(g, TERSE_OP_RELU), 0);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 2);
    terse_graph_free(g);
}

static void a_batch_norm_before_a_convolution_is_one_pass(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 18, 6, 5));
    int y = make_node(g, TERSE_OP_MAX_POOL, INPUTS(x));
    terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){2, 2}, 2);
    y = make_relu(g, make_batch_norm(g, y, 18));
    make_output(g, make_conv(g, y, 18, 4, 3, 1, 1, 1));
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_BATCH_NORMALIZATION), 0);
    assert_int_equal(count_ops(g, TERSE_OP_RELU), 0);
    assert_int_equal(count_ops(g, TERSE_OP_CONV), 2);
    terse_graph_free(g);
}

static void residual_additions_move_into_the_last_convolution(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_input(g, "x", DIMS(BATCH, 8, 10, 10));
    for (int i = 0; i < 2; i++) {
        int c = make_relu(g, make_batch_norm(g, make_conv(g, x, 8, 8, 3, 1, 1, 1), 8));
        c = make_batch_norm(g, make_conv(g, c, 8, 8, 3, 1, 1, 1), 8);
        const int shortcut = i ? x : make_conv(g, x, 8, 8, 1, 1, 0, 1);
        x = make_relu(g, i ? make_node(g, TERSE_OP_ADD, INPUTS(shortcut, c))
                           : make_node(g, TERSE_OP_ADD, INPUTS(c, shortcut)));
    }
    make_output(g, x);
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_ADD), 0);
    assert_int_equal(count_ops(g, TERSE_OP_RELU), 0);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 2);
    terse_graph_free(g);
}

static void depthwise_and_grouped_weights_get_their_layouts(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_input(g, "x", DIMS(BATCH, 20, 9, 9));
    x = make_node(g, TERSE_OP_CLIP, INPUTS(make_conv(g, x, 20, 20, 3, 2, 1, 20), make_number(g, 0), make_number(g, 6)));
    x = make_conv(g, x, 20, 12, 3, 1, 1, 4);
    make_output(g, x);
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_CLIP), 0);
    assert_int_equal(g->values[g->nodes[1].inputs[1]].layout, TERSE_LAYOUT_F32_DW16);
    assert_int_equal(g->values[g->nodes[2].inputs[1]].layout, TERSE_LAYOUT_F32_N16);
    assert_int_equal(g->values[g->nodes[2].inputs[1]].groups, 4);
    terse_graph_free(g);
}

/* x * 0.5 * (1 + erf(x / sqrt 2)) in the orders that exporters use. */
static int make_gelu(terse_graph *g, int x, int form)
{
    int inner;
    if (form < 4) {
        inner = form & 1 ? make_node(g, TERSE_OP_MUL, INPUTS(x, make_number(g, 0.70710678f)))
                         : make_node(g, TERSE_OP_DIV, INPUTS(x, make_number(g, 1.41421356f)));
        inner = make_node(g, TERSE_OP_ERF, INPUTS(inner));
    } else {
        const int cube = form == 4 ? make_node(g, TERSE_OP_POW, INPUTS(x, make_number(g, 3)))
                                   : make_node(g, TERSE_OP_MUL, INPUTS(x, make_node(g, TERSE_OP_MUL, INPUTS(x, x))));
        const int small = make_node(g, TERSE_OP_MUL, INPUTS(make_number(g, 0.044715f), cube));
        inner = make_node(g, TERSE_OP_ADD, INPUTS(x, small));
        inner =
            make_node(g, TERSE_OP_TANH, INPUTS(make_node(g, TERSE_OP_MUL, INPUTS(inner, make_number(g, 0.79788456f)))));
    }
    inner = make_node(g, TERSE_OP_ADD, INPUTS(inner, make_number(g, 1)));
    if (form == 0)
        return make_node(g, TERSE_OP_MUL, INPUTS(make_node(g, TERSE_OP_MUL, INPUTS(x, inner)), make_number(g, 0.5f)));
    if (form == 1 || form == 4)
        return make_node(g, TERSE_OP_MUL, INPUTS(x, make_node(g, TERSE_OP_MUL, INPUTS(make_number(g, 0.5f), inner))));
    return make_node(g, TERSE_OP_MUL, INPUTS(make_node(g, TERSE_OP_MUL, INPUTS(make_number(g, 0.5f), x)), inner));
}

static void gelu_is_found_in_every_order(void **state)
{
    (void)state;
    for (int form = 0; form < 6; form++) {
        terse_graph *g = start();
        const int x = make_input(g, "x", DIMS(BATCH, 33));
        make_output(g, make_gelu(g, x, form));
        check_passes(g);
        assert_int_equal(g->n_nodes, 1);
        assert_int_equal(g->nodes[0].op, TERSE_OP_GELU);
        assert_string_equal(terse_node_text(&g->nodes[0], "approximate", ""), form < 4 ? "none" : "tanh");
        terse_graph_free(g);
    }
}

static void gelu_with_other_numbers_is_left_alone(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 33));
    int y = make_node(g, TERSE_OP_ERF, INPUTS(make_node(g, TERSE_OP_MUL, INPUTS(x, make_number(g, 0.6f)))));
    y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_number(g, 1)));
    y = make_node(g, TERSE_OP_MUL, INPUTS(make_node(g, TERSE_OP_MUL, INPUTS(x, y)), make_number(g, 0.5f)));
    make_output(g, y);
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_GELU), 0);
    terse_graph_free(g);
}

static void hard_swish_is_found_in_every_order(void **state)
{
    (void)state;
    for (int form = 0; form < 4; form++) {
        terse_graph *g = start();
        const int x = make_input(g, "x", DIMS(BATCH, 40));
        int gate = make_node(g, TERSE_OP_ADD, INPUTS(x, make_number(g, 3)));
        gate = make_node(g, TERSE_OP_CLIP, INPUTS(gate, make_number(g, 0), make_number(g, 6)));
        int y;
        if (form == 0) {
            y = make_node(g, TERSE_OP_DIV, INPUTS(make_node(g, TERSE_OP_MUL, INPUTS(x, gate)), make_number(g, 6)));
        } else if (form == 1) {
            y = make_node(g, TERSE_OP_MUL, INPUTS(x, make_node(g, TERSE_OP_DIV, INPUTS(gate, make_number(g, 6)))));
        } else if (form == 2) {
            y = make_node(g, TERSE_OP_MUL,
                          INPUTS(make_node(g, TERSE_OP_MUL, INPUTS(x, gate)), make_number(g, 1.0f / 6)));
        } else {
            const int hard = make_node(g, TERSE_OP_HARD_SIGMOID, INPUTS(x));
            terse_node_set_float(g, last_node(g), "alpha", 1.0 / 6);
            y = make_node(g, TERSE_OP_MUL, INPUTS(hard, x));
        }
        make_output(g, y);
        check_passes(g);
        assert_int_equal(g->n_nodes, 1);
        assert_int_equal(g->nodes[0].op, TERSE_OP_HARD_SWISH);
        terse_graph_free(g);
    }
}

static void swish_moves_into_the_convolution(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_conv(g, make_input(g, "x", DIMS(BATCH, 3, 6, 6)), 3, 5, 3, 1, 1, 1);
    x = make_node(g, TERSE_OP_MUL, INPUTS(make_node(g, TERSE_OP_SIGMOID, INPUTS(x)), x));
    make_output(g, x);
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_SIGMOID), 0);
    assert_int_equal(count_ops(g, TERSE_OP_MUL), 0);
    terse_graph_free(g);
}

static int make_layer_norm(terse_graph *g, int x, int64_t width)
{
    const int axis = make_ints(g, 1, (int64_t[]){-1});
    const int d = make_node(g, TERSE_OP_SUB, INPUTS(x, make_node(g, TERSE_OP_REDUCE_MEAN, INPUTS(x, axis))));
    int v = make_node(g, TERSE_OP_POW, INPUTS(d, make_number(g, 2)));
    v = make_node(g, TERSE_OP_REDUCE_MEAN, INPUTS(v, axis));
    v = make_node(g, TERSE_OP_SQRT, INPUTS(make_node(g, TERSE_OP_ADD, INPUTS(v, make_number(g, 1e-5f)))));
    v = make_node(g, TERSE_OP_MUL,
                  INPUTS(make_node(g, TERSE_OP_DIV, INPUTS(d, v)), make_weights(g, 1, 0.3f, DIMS(width))));
    return make_node(g, TERSE_OP_ADD, INPUTS(v, make_weights(g, 0, 0.3f, DIMS(width))));
}

static int make_linear(terse_graph *g, int x, int64_t from, int64_t to)
{
    const int y = make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 0.3f, DIMS(from, to))));
    return make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 0.3f, DIMS(to))));
}

static void an_encoder_layer_becomes_products_and_norms(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 7, 24));
    const int shape = make_ints(g, 4, (int64_t[]){0, 0, 3, 8});
    int heads[3];
    for (int i = 0; i < 3; i++) {
        heads[i] = make_node(g, TERSE_OP_RESHAPE, INPUTS(make_linear(g, x, 24, 24), shape));
        heads[i] = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(heads[i]));
        terse_node_set_ints(g, last_node(g), "perm", i == 1 ? (int64_t[]){0, 2, 3, 1} : (int64_t[]){0, 2, 1, 3}, 4);
    }
    int y = make_node(g, TERSE_OP_MATMUL, INPUTS(heads[0], heads[1]));
    y = make_node(g, TERSE_OP_SOFTMAX, INPUTS(make_node(g, TERSE_OP_DIV, INPUTS(y, make_number(g, 2.828427f)))));
    y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(make_node(g, TERSE_OP_MATMUL, INPUTS(y, heads[2]))));
    terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 2, 1, 3}, 4);
    y = make_node(g, TERSE_OP_RESHAPE, INPUTS(y, make_ints(g, 3, (int64_t[]){0, 0, 24})));
    y = make_node(g, TERSE_OP_ADD, INPUTS(make_linear(g, y, 24, 24), x));
    y = make_layer_norm(g, y, 24);
    int z = make_linear(g, make_gelu(g, make_linear(g, y, 24, 40), 0), 40, 24);
    make_output(g, make_layer_norm(g, make_node(g, TERSE_OP_ADD, INPUTS(z, y)), 24));
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_ADD), 0);
    assert_int_equal(count_ops(g, TERSE_OP_DIV), 0);
    assert_int_equal(count_ops(g, TERSE_OP_GELU), 0);
    assert_int_equal(count_ops(g, TERSE_OP_LAYER_NORMALIZATION), 2);
    assert_int_equal(count_ops(g, TERSE_OP_MATMUL), 6);
    assert_int_equal(count_ops(g, TERSE_OP_HEAD_ATTENTION), 1);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 0);
    terse_graph_free(g);
}

static void weights_of_two_nodes_are_packed_once(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 12));
    const int w = make_weights(g, 0, 1, DIMS(12, 12));
    const int y = make_node(g, TERSE_OP_MATMUL, INPUTS(x, w));
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(y, w)));
    check_passes(g);
    assert_int_equal(g->nodes[0].inputs[1], g->nodes[1].inputs[1]);
    assert_int_equal(g->values[g->nodes[0].inputs[1]].layout, TERSE_LAYOUT_F32_N16);
    terse_graph_free(g);
}

static void transposed_convolutions_take_batch_norm_by_groups(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_input(g, "x", DIMS(BATCH, 6, 4, 4));
    x = make_node(g, TERSE_OP_CONV_TRANSPOSE, INPUTS(x, make_weights(g, 0, 1, DIMS(6, 4, 3, 3))));
    terse_node_set_int(g, last_node(g), "group", 2);
    make_output(g, make_batch_norm(g, x, 8));
    check_passes(g);
    assert_int_equal(g->n_nodes, 1);
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_convolution_takes_batch_norm_and_relu_along),
        cmocka_unit_test(a_batch_norm_before_a_convolution_is_one_pass),
        cmocka_unit_test(residual_additions_move_into_the_last_convolution),
        cmocka_unit_test(depthwise_and_grouped_weights_get_their_layouts),
        cmocka_unit_test(gelu_is_found_in_every_order),
        cmocka_unit_test(gelu_with_other_numbers_is_left_alone),
        cmocka_unit_test(hard_swish_is_found_in_every_order),
        cmocka_unit_test(swish_moves_into_the_convolution),
        cmocka_unit_test(an_encoder_layer_becomes_products_and_norms),
        cmocka_unit_test(weights_of_two_nodes_are_packed_once),
        cmocka_unit_test(transposed_convolutions_take_batch_norm_by_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
