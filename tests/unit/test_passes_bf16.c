/* SPDX-License-Identifier: Apache-2.0 */
/* The pass bf16: which products and values it takes, what it leaves, where it casts; every network is answered before
 * and after, and the answers differ by what 8 bits of operands cost. */
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

static void run_stage(terse_graph *g, terse_passes_stage stage)
{
    terse_error error = {0};
    if (terse_passes_run(g, stage, &error) != TERSE_OK)
        fail_msg("%s", error.message);
}

/* All passes, with every product marked in between. The answer changes, but by less than `allowed`. */
static void check_half(terse_graph *g, double allowed)
{
    terse_error error = {0};
    state_values(g);
    if (terse_graph_check(g, &error) != TERSE_OK)
        fail_msg("before: %s", error.message);
    answers before[2] = {answer(g, 2, 7), answer(g, 5, 9)};
    run_stage(g, TERSE_PASSES_PREPARE);
    assert_int_equal(terse_pass_bf16_mark(g, &error), TERSE_OK);
    run_stage(g, TERSE_PASSES_FINISH);
    answers after[2] = {answer(g, 2, 7), answer(g, 5, 9)};
    for (int i = 0; i < 2; i++) {
        const double difference = apart(&before[i], &after[i]);
        if (!(difference < allowed))
            fail_msg("the answer changes by %g", difference);
        answers_done(&before[i]);
        answers_done(&after[i]);
    }
    for (int i = 0; i < g->n_nodes; i++)
        assert_null(terse_node_attr(&g->nodes[i], "float"));
    for (int i = 0; i < g->n_inputs; i++)
        assert_int_equal(g->values[g->inputs[i]].dtype, TERSE_FP32);
    for (int i = 0; i < g->n_outputs; i++)
        assert_int_equal(g->values[g->outputs[i]].dtype, TERSE_FP32);
}

/* Node `index` among those of that kind. */
static const terse_node *node_of(const terse_graph *g, terse_op op, int index)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == op && index-- == 0)
            return &g->nodes[i];
    fail_msg("there is no such %s", terse_op_name(op));
    return NULL;
}

static terse_dtype made_by(const terse_graph *g, terse_op op, int index)
{
    return g->values[node_of(g, op, index)->outputs[0]].dtype;
}

static terse_dtype read_by(const terse_graph *g, terse_op op, int index, int slot)
{
    return g->values[node_of(g, op, index)->inputs[slot]].dtype;
}

static void a_network_flows_in_bf16_from_first_product_to_last(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_relu(g, make_conv(g, make_input(g, "x", DIMS(BATCH, 3, 8, 8)), 3, 20, 3, 1, 1, 1));
    x = make_node(g, TERSE_OP_MAX_POOL, INPUTS(x));
    terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){2, 2}, 2);
    x = make_relu(g, make_conv(g, x, 20, 20, 3, 1, 1, 20));
    const int left = make_conv(g, x, 20, 8, 1, 1, 0, 1), right = make_conv(g, x, 20, 10, 3, 1, 1, 1);
    x = make_node(g, TERSE_OP_CONCAT, INPUTS(left, right));
    terse_node_set_int(g, last_node(g), "axis", 1);
    x = make_node(g, TERSE_OP_FLATTEN, INPUTS(make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(x))));
    x = make_node(g, TERSE_OP_GEMM, INPUTS(x, make_weights(g, 0, 1, DIMS(5, 18)), make_weights(g, 0, 1, DIMS(5))));
    terse_node_set_int(g, last_node(g), "transB", 1);
    make_output(g, x);
    check_half(g, 0.02);
    assert_int_equal(count_ops(g, TERSE_OP_BCONV), 4);
    assert_int_equal(count_ops(g, TERSE_OP_BGEMM), 1);
    assert_int_equal(count_ops(g, TERSE_OP_CAST), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(made_by(g, TERSE_OP_BCONV, i), TERSE_BF16);
        assert_string_equal(terse_node_text(node_of(g, TERSE_OP_BCONV, i), "to", ""), "bf16");
        assert_non_null(strstr(node_of(g, TERSE_OP_BCONV, i)->compression, "bf16"));
    }
    assert_int_equal(read_by(g, TERSE_OP_BCONV, 0, 0), TERSE_FP32); /* rounds it itself */
    assert_int_equal(made_by(g, TERSE_OP_MAX_POOL, 0), TERSE_BF16);
    assert_int_equal(made_by(g, TERSE_OP_CONCAT, 0), TERSE_BF16);
    assert_int_equal(made_by(g, TERSE_OP_GLOBAL_AVERAGE_POOL, 0), TERSE_BF16);
    assert_int_equal(read_by(g, TERSE_OP_BGEMM, 0, 0), TERSE_BF16);
    assert_string_equal(terse_node_text(node_of(g, TERSE_OP_BGEMM, 0), "to", ""), "f32");
    const terse_value *w = &g->values[node_of(g, TERSE_OP_BCONV, 0)->inputs[1]];
    assert_int_equal(w->layout, TERSE_LAYOUT_BF16_N16K2);
    assert_int_equal(w->dims[1], 4); /* a channel of zeros more */
    terse_graph_free(g);
}

static void residuals_have_the_type_of_the_output(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 8, 6, 6));
    int y = make_node(g, TERSE_OP_ADD, INPUTS(make_conv(g, x, 8, 8, 3, 1, 1, 1), x)); /* the input as residual */
    int z = make_node(g, TERSE_OP_ADD, INPUTS(make_conv(g, y, 8, 8, 3, 1, 1, 1), y));
    make_output(g, make_node(g, TERSE_OP_ADD, INPUTS(make_conv(g, z, 8, 8, 1, 1, 0, 1), z)));
    check_half(g, 0.02);
    assert_int_equal(count_ops(g, TERSE_OP_BCONV), 3);
    assert_int_equal(count_ops(g, TERSE_OP_ADD), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(read_by(g, TERSE_OP_BCONV, i, 3), i < 2 ? TERSE_BF16 : TERSE_FP32);
    assert_int_equal(count_ops(g, TERSE_OP_CAST), 2); /* of the input, and for the last one, whose output is FP32 */
    terse_graph_free(g);
}

static void other_readers_share_one_cast(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int c = make_conv(g, make_input(g, "x", DIMS(BATCH, 4, 6, 6)), 4, 8, 3, 1, 1, 1);
    const int a = make_node(g, TERSE_OP_TANH, INPUTS(c)), b = make_node(g, TERSE_OP_SIN, INPUTS(c));
    make_output(g, make_conv(g, c, 8, 6, 1, 1, 0, 1));
    make_output(g, make_node(g, TERSE_OP_MUL, INPUTS(a, b)));
    check_half(g, 0.02);
    assert_int_equal(made_by(g, TERSE_OP_BCONV, 0), TERSE_BF16);
    assert_int_equal(count_ops(g, TERSE_OP_CAST), 1);
    assert_int_equal(read_by(g, TERSE_OP_TANH, 0, 0), TERSE_FP32);
    terse_graph_free(g);
}

static void nothing_is_bf16_that_no_product_reads(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int c = make_conv(g, make_input(g, "x", DIMS(BATCH, 4, 6, 6)), 4, 8, 3, 1, 1, 1);
    make_output(g, make_node(g, TERSE_OP_TANH, INPUTS(make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(c)))));
    check_half(g, 0.02);
    assert_int_equal(count_ops(g, TERSE_OP_BCONV), 1);
    assert_int_equal(made_by(g, TERSE_OP_BCONV, 0), TERSE_FP32);
    assert_int_equal(count_ops(g, TERSE_OP_CAST), 0);
    terse_graph_free(g);
}

static void an_output_that_is_read_on_stays_fp32(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_input(g, "x", DIMS(BATCH, 1, 2, 8));
    const int y = make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 0.4f, DIMS(8, 6))));
    make_output(g, y);
    x = make_node(g, TERSE_OP_RESHAPE, INPUTS(y, make_ints(g, 2, (int64_t[]){0, -1})));
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 0.4f, DIMS(12, 4)))));
    check_half(g, 0.02);
    assert_int_equal(count_ops(g, TERSE_OP_BGEMM), 2);
    assert_int_equal(count_ops(g, TERSE_OP_CAST), 0);
    assert_int_equal(read_by(g, TERSE_OP_BGEMM, 1, 0), TERSE_FP32);
    terse_graph_free(g);
}

/* Rows of an odd length do not keep pairs: the products are taken, the values are not. */
static void odd_channels_stay_fp32_between_products(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_relu(g, make_conv(g, make_input(g, "x", DIMS(BATCH, 3, 6, 6)), 3, 7, 3, 1, 1, 1));
    x = make_conv(g, x, 7, 7, 3, 1, 1, 7); /* depthwise gives BF16 only */
    make_output(g, make_conv(g, x, 7, 5, 3, 1, 1, 1));
    check_half(g, 0.02);
    assert_int_equal(count_ops(g, TERSE_OP_BCONV), 2);
    assert_int_equal(count_ops(g, TERSE_OP_CONV), 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(made_by(g, TERSE_OP_BCONV, i), TERSE_FP32);
    terse_graph_free(g);
}

static void what_bf16_has_no_kernel_for_is_left_alone(void **state)
{
    (void)state;
    for (int form = 0; form < 6; form++) {
        terse_graph *g = start();
        const int x = make_input(g, "x", DIMS(BATCH, 8, 6, 7));
        const int w = make_weights(g, 0, 0.4f, DIMS(6, 8, 1, 1));
        int y;
        if (form == 0) { /* groups that are no channels */
            y = make_conv(g, x, 8, 12, 3, 1, 1, 4);
        } else if (form == 1) { /* odd K */
            y = make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 0.4f, DIMS(7, 4))));
        } else if (form == 2) { /* two activations */
            y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
            terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 1, 3, 2}, 4);
            y = make_node(g, TERSE_OP_MATMUL, INPUTS(y, x));
        } else if (form == 3) { /* a depthwise convolution that makes an output of the network */
            y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
            terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 3, 1, 2}, 4);
            y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(make_conv(g, y, 7, 7, 3, 1, 1, 7)));
            terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 2, 3, 1}, 4);
        } else { /* too large for BF16, which would make it infinite, and infinite already */
            ((float *)g->values[w].data)[7] = form == 4 ? 3.4e38f : INFINITY;
            y = make_node(g, TERSE_OP_CONV, INPUTS(x, w));
        }
        make_output(g, y);
        if (form < 5) {
            check_half(g, 1e-4);
        } else {
            state_values(g);
            run_stage(g, TERSE_PASSES_PREPARE);
            assert_int_equal(terse_pass_bf16_mark(g, NULL), TERSE_OK);
            run_stage(g, TERSE_PASSES_FINISH);
        }
        if (count_ops(g, TERSE_OP_BCONV) + count_ops(g, TERSE_OP_BGEMM) + count_ops(g, TERSE_OP_CAST) > 0)
            fail_msg("form %d is changed", form);
        terse_graph_free(g);
    }
}

/* One constant as filters of a depthwise and of a usual convolution: two layouts. */
static void weights_are_packed_once_for_each_use(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int w = make_weights(g, 0, 0.5f, DIMS(6, 1, 3, 3)), m = make_weights(g, 0, 0.5f, DIMS(6, 6));
    int y = make_node(g, TERSE_OP_CONV, INPUTS(make_input(g, "x", DIMS(BATCH, 1, 9, 9)), w));
    y = make_node(g, TERSE_OP_CONV, INPUTS(make_relu(g, y), w));
    terse_node_set_int(g, last_node(g), "group", 6);
    make_output(g, make_conv(g, y, 6, 4, 1, 1, 0, 1));
    const int z = make_node(g, TERSE_OP_MATMUL, INPUTS(make_input(g, "z", DIMS(BATCH, 6)), m));
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(make_relu(g, z), m)));
    check_half(g, 0.02);
    assert_int_equal(count_ops(g, TERSE_OP_BCONV), 3);
    assert_int_equal(count_ops(g, TERSE_OP_BGEMM), 2);
    assert_int_equal(node_of(g, TERSE_OP_BGEMM, 0)->inputs[1], node_of(g, TERSE_OP_BGEMM, 1)->inputs[1]);
    terse_graph_free(g);
}

static void gemm_in_any_form_is_taken_or_left_with_its_answer(void **state)
{
    (void)state;
    for (int form = 0; form < 16; form++) {
        terse_graph *g = start();
        const bool trans_a = form & 1, trans_b = form & 2;
        const int x = trans_a ? make_input(g, "x", DIMS(10, BATCH)) : make_input(g, "x", DIMS(BATCH, 10));
        const int w = trans_b ? make_weights(g, 0, 0.5f, DIMS(6, 10)) : make_weights(g, 0, 0.5f, DIMS(10, 6));
        const int b = form < 4    ? make_weights(g, 0, 0.5f, DIMS(6))
                      : form < 8  ? make_weights(g, 0, 0.5f, DIMS(1, 6))
                      : form < 12 ? make_number(g, 0.5f)
                                  : make_weights(g, 0, 0.5f, DIMS(1));
        const int y = make_node(g, TERSE_OP_GEMM, INPUTS(x, w, b));
        terse_node_set_int(g, last_node(g), "transA", trans_a);
        terse_node_set_int(g, last_node(g), "transB", trans_b);
        terse_node_set_float(g, last_node(g), "alpha", 0.5);
        terse_node_set_float(g, last_node(g), "beta", 2.0);
        make_output(g, make_relu(g, y));
        check_half(g, 0.02);
        if (!trans_a)
            assert_int_equal(count_ops(g, TERSE_OP_BGEMM), 1);
        terse_graph_free(g);
    }
}

static void without_marks_nothing_changes(void **state)
{
    (void)state;
    terse_graph *g = start();
    make_output(g, make_conv(g, make_input(g, "x", DIMS(BATCH, 4, 6, 6)), 4, 8, 3, 1, 1, 1));
    state_values(g);
    run_stage(g, TERSE_PASSES_PREPARE);
    run_stage(g, TERSE_PASSES_FINISH);
    assert_int_equal(count_ops(g, TERSE_OP_BCONV), 0);
    assert_int_equal(count_ops(g, TERSE_OP_CONV), 1);
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_flows_in_bf16_from_first_product_to_last),
        cmocka_unit_test(residuals_have_the_type_of_the_output),
        cmocka_unit_test(other_readers_share_one_cast),
        cmocka_unit_test(nothing_is_bf16_that_no_product_reads),
        cmocka_unit_test(an_output_that_is_read_on_stays_fp32),
        cmocka_unit_test(odd_channels_stay_fp32_between_products),
        cmocka_unit_test(what_bf16_has_no_kernel_for_is_left_alone),
        cmocka_unit_test(weights_are_packed_once_for_each_use),
        cmocka_unit_test(gemm_in_any_form_is_taken_or_left_with_its_answer),
        cmocka_unit_test(without_marks_nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
