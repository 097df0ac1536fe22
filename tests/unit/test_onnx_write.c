/* SPDX-License-Identifier: Apache-2.0 */
/* A graph written as ONNX and imported again answers with the same bits. With arguments MODEL.onnx IN.npz ... the same
 * is done for these files, and MODEL.onnx.again is left for others to run. */
#include "tests/unit/graph_maker.h"

#include "common/npz.h"
#include "compress/onnx/import.h"
#include "compress/onnx/write.h"
#include "compress/low_rank/low_rank.h"
#include "compress/passes/passes.h"
#include "compress/prune/prune.h"
#include "compress/quantize/quantize.h"
#include "compress/runner.h"

static terse_graph *again(const terse_graph *g)
{
    void *bytes = NULL;
    size_t size = 0;
    terse_graph *copy = NULL;
    terse_onnx_report report = {0};
    terse_error error = {0};
    if (terse_onnx_write_bytes(g, &bytes, &size, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    if (terse_onnx_import_bytes(bytes, size, NULL, &copy, &report, &error) != TERSE_OK)
        fail_msg("%s; %s", error.message, report.unsupported.n ? report.unsupported.lines[0] : "");
    terse_onnx_report_done(&report);
    free(bytes);
    return copy;
}

static void comes_back(terse_graph *g)
{
    terse_error error = {0};
    if (terse_graph_check(g, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    terse_graph *copy = again(g);
    assert_int_equal(copy->n_inputs, g->n_inputs);
    assert_int_equal(copy->n_outputs, g->n_outputs);
    for (int i = 0; i < g->n_inputs; i++)
        assert_string_equal(copy->values[copy->inputs[i]].name, g->values[g->inputs[i]].name);
    for (int i = 0; i < g->n_outputs; i++)
        assert_string_equal(copy->values[copy->outputs[i]].name, g->values[g->outputs[i]].name);
    for (int n = 1; n < 4; n += 2) {
        answers a = answer(g, n, 5), b = answer(copy, n, 5);
        assert_true(apart(&a, &b) == 0);
        answers_done(&a);
        answers_done(&b);
    }
    terse_graph_free(copy);
    terse_graph_free(g);
}

static terse_graph *begin(void)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    return g;
}

#define BATCH TERSE_DIM_OF_SYMBOL(0)

static void finish(terse_graph *g, int y)
{
    terse_error error = {0};
    make_output(g, y);
    state_values(g);
    if (terse_graph_check(g, &error) != TERSE_OK)
        fail_msg("%s", error.message);
}

/* What the passes PREPARE make of a network: every kind of activation, residuals, biases of MatMul. */
static void fused_products_become_nodes_again(void **state)
{
    (void)state;
    static const char *const kinds[] = {"Relu",      "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid",
                                        "HardSwish", "Tanh", "Gelu",      "Swish"};
    for (int i = 0; i < COUNT(kinds); i++)
        for (int product = 0; product < 3; product++) {
            terse_graph *g = begin();
            random_state = (uint32_t)(10 * i + product + 1);
            const int x = product ? make_input(g, "x", DIMS(BATCH, 6)) : make_input(g, "x", DIMS(BATCH, 3, 5, 5));
            int y = product == 0 ? make_conv(g, x, 3, 4, 3, 1, 1, 1)
                    : product == 1
                        ? make_node(g, TERSE_OP_GEMM,
                                    INPUTS(x, make_weights(g, 0, 1, DIMS(6, 5)), make_weights(g, 0, 1, DIMS(5))))
                        : make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 1, DIMS(6, 5))));
            if (product == 2)
                y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 1, DIMS(5))));
            if (i % 2) {
                const int other =
                    product ? make_input(g, "z", DIMS(BATCH, 5)) : make_input(g, "z", DIMS(BATCH, 4, 5, 5));
                y = make_node(g, TERSE_OP_ADD, INPUTS(y, other));
            }
            if (strcmp(kinds[i], "Swish") == 0)
                y = make_node(g, TERSE_OP_MUL, INPUTS(y, make_node(g, TERSE_OP_SIGMOID, INPUTS(y))));
            else if (strcmp(kinds[i], "Clip") == 0)
                y = make_node(g, TERSE_OP_CLIP, INPUTS(y, make_number(g, -0.5f), make_number(g, 0.7f)));
            else
                y = make_node(g, terse_op_from_name(kinds[i], strlen(kinds[i])), INPUTS(y));
            finish(g, y);
            terse_error error = {0};
            assert_int_equal(terse_passes_run(g, TERSE_PASSES_PREPARE, &error), TERSE_OK);
            assert_int_equal(g->n_nodes, 1);
            comes_back(g);
        }
}

static void operators_with_a_form_of_their_own(void **state)
{
    (void)state;
    for (int form = 0; form < 5; form++) {
        terse_graph *g = begin();
        const int x = make_input(g, "x", DIMS(BATCH, 4, 6));
        int y = x;
        if (form < 2) {
            y = make_node(g, form ? TERSE_OP_LOG_SOFTMAX : TERSE_OP_SOFTMAX, INPUTS(x));
            terse_node_set_int(g, last_node(g), "axis", 1);
            terse_node_set_int(g, last_node(g), "coerce_2d", 1);
        } else if (form == 2) {
            const int q = make_node(g, TERSE_OP_CAST, INPUTS(x));
            terse_node_set_int(g, last_node(g), "to", TERSE_INT32);
            y = make_node(g, TERSE_OP_CAST, INPUTS(q));
            terse_node_set_int(g, last_node(g), "to", TERSE_FP32);
        } else if (form == 3) {
            int parts[2] = {terse_graph_add_value(g, ""), terse_graph_add_value(g, "")}; /* without names */
            terse_graph_add_node(g, TERSE_OP_SPLIT, "split", &x, 1, parts, 2);
            terse_node_set_int(g, last_node(g), "axis", 2);
            y = make_node(g, TERSE_OP_SUB, INPUTS(parts[0], parts[1]));
        } else {
            const int shape = make_node(g, TERSE_OP_SHAPE, INPUTS(x));
            const int filled = make_node(g, TERSE_OP_CONSTANT_OF_SHAPE, INPUTS(shape));
            terse_node_set_int(g, last_node(g), "dtype", TERSE_FP32);
            terse_node_set_float(g, last_node(g), "value", 2.5);
            y = make_node(g, TERSE_OP_MUL, INPUTS(x, filled));
        }
        finish(g, y);
        comes_back(g);
    }
}

static void equal_names_are_told_apart(void **state)
{
    (void)state;
    terse_graph *g = begin(); /* make_weights calls every constant "w" */
    const int x = make_input(g, "w", DIMS(BATCH, 6));
    int y = make_node(g, TERSE_OP_MUL, INPUTS(x, make_weights(g, 0, 1, DIMS(6))));
    y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 1, DIMS(6))));
    finish(g, y);
    comes_back(g);
}

/* As `terse compress -o MODEL.onnx` writes: with thin factors, zeros, and bytes between QuantizeLinear and
 * DequantizeLinear. */
static void compressed_networks_come_back(void **state)
{
    (void)state;
    enum { SAMPLES = 24 };
    for (int what = 0; what < 8; what++) {
        terse_graph *g = begin();
        random_state = (uint32_t)(40 + what);
        const int x = make_input(g, "x", DIMS(BATCH, 8, 6, 6));
        int y = make_node(g, TERSE_OP_RELU, INPUTS(make_conv(g, x, 8, 32, 3, 1, 1, 1)));
        y = make_node(g, TERSE_OP_HARD_SWISH,
                      INPUTS(make_node(g, TERSE_OP_ADD, INPUTS(make_conv(g, y, 32, 32, 3, 1, 1, 1), y))));
        y = make_node(g, TERSE_OP_FLATTEN, INPUTS(y));
        terse_node_set_int(g, last_node(g), "axis", 1);
        finish(g, make_node(g, TERSE_OP_GEMM,
                            INPUTS(y, make_weights(g, 0, 1, DIMS(1152, 40)), make_weights(g, 0, 1, DIMS(40)))));
        g->batchable = true;
        for (int n = 0; n < g->n_nodes; n++) {
            char *name = terse_arena_alloc(g->arena, 32);
            snprintf(name, 32, "%.8s_%d", terse_op_name(g->nodes[n].op), n);
            g->nodes[n].name = name;
        }
        float *numbers = malloc(SAMPLES * 288 * sizeof *numbers);
        for (int i = 0; i < SAMPLES * 288; i++)
            numbers[i] = random_number();
        char *key = (char *)"x";
        terse_tensor tensor = terse_tensor_view(numbers, TERSE_FP32, 4, (int64_t[]){SAMPLES, 8, 6, 6});
        const terse_npz data = {.n = 1, .names = &key, .tensors = &tensor};
        terse_error error = {0};
        terse_low_rank_report ranks = {0};
        terse_prune_report zeros = {0};
        terse_quantize_report bytes = {0};
        terse_low_rank_options few = {0};
        int status = terse_low_rank_parse("8", &few, &error);
        few.data = &data;
        if (status == TERSE_OK)
            status = terse_passes_run(g, TERSE_PASSES_PREPARE, &error);
        if (status == TERSE_OK && (what & 1))
            status = terse_low_rank_run(g, &few, &ranks, &error);
        if (status == TERSE_OK && (what & 2))
            status = terse_prune_run(g, &data, &(terse_prune_options){.amount = 0.5}, &zeros, &error);
        if (status == TERSE_OK && (what & 4))
            status = terse_quantize_run(g, &data, &(terse_quantize_options){.source = "d", .keep_float = "none"},
                                        &bytes, &error);
        if (status != TERSE_OK)
            fail_msg("%s", error.message);
        int n_quantized = 0, n_products = 0;
        for (int i = 0; i < g->n_nodes; i++) {
            n_quantized += g->nodes[i].op == TERSE_OP_QUANTIZE_LINEAR;
            n_products += g->nodes[i].op == TERSE_OP_CONV || g->nodes[i].op == TERSE_OP_GEMM;
        }
        assert_true(what & 4 ? n_quantized > 1 : n_quantized == 0);
        assert_true(what & 1 ? n_products > 3 : n_products == 3);
        comes_back(g);
        terse_low_rank_report_done(&ranks);
        terse_prune_report_done(&zeros);
        terse_quantize_report_done(&bytes);
        free(numbers);
    }
}

static void what_onnx_cannot_say_is_named(void **state)
{
    (void)state;
    terse_graph *g = begin();
    const int x = make_input(g, "x", DIMS(BATCH, 6));
    finish(g,
           make_node(g, TERSE_OP_GEMM, INPUTS(x, make_weights(g, 0, 1, DIMS(6, 5)), make_weights(g, 0, 1, DIMS(5)))));
    terse_error error = {0};
    assert_int_equal(terse_passes_run(g, TERSE_PASSES_PREPARE, &error), TERSE_OK);
    assert_int_equal(terse_passes_run(g, TERSE_PASSES_FINISH, &error), TERSE_OK);
    void *bytes = NULL;
    size_t size = 0;
    assert_int_equal(terse_onnx_write_bytes(g, &bytes, &size, &error), TERSE_UNIMPLEMENTED);
    assert_non_null(strstr(error.message, "f32_n16"));
    assert_null(bytes);
    g->nodes[0].op = TERSE_OP_WGEMM;
    assert_int_equal(terse_onnx_write_bytes(g, &bytes, &size, &error), TERSE_UNIMPLEMENTED);
    terse_graph_free(g);
}

/* --- files ------------------------------------------------------------------------------------------------------- */

static bool run(const terse_graph *g, const terse_npz *data, terse_runner *r, terse_error *error)
{
    terse_tensor views[64];
    const void *pointers[64];
    for (int i = 0; i < g->n_inputs; i++) {
        const terse_tensor *found = terse_npz_find(data, g->values[g->inputs[i]].name);
        if (!found || g->n_inputs > 64)
            return terse_fail(error, TERSE_NOT_FOUND, "input '%s'", g->values[g->inputs[i]].name), false;
        views[i] = *found;
        pointers[i] = found->data;
    }
    return terse_runner_init(g, r, error) == TERSE_OK && terse_runner_plan(r, views, error) == TERSE_OK &&
           terse_plan_run(r->plan, pointers, r->outputs, error) == TERSE_OK;
}

/* "" when both answer alike, else what is wrong. */
static const char *compare_file(const char *model, const char *inputs, terse_error *error)
{
    char path[4200];
    terse_graph *graphs[2] = {NULL, NULL};
    terse_runner runners[2] = {{0}, {0}};
    terse_onnx_report report = {0}, second = {0};
    terse_npz *data = NULL;
    const char *wrong = "";
    snprintf(path, sizeof path, "%s.again", model);
    if (terse_onnx_import(model, &graphs[0], &report, error) != TERSE_OK ||
        terse_npz_read(inputs, &data, error) != TERSE_OK)
        wrong = "# SKIP not read";
    else if (terse_onnx_write(path, graphs[0], error) != TERSE_OK ||
             terse_onnx_import(path, &graphs[1], &second, error) != TERSE_OK)
        wrong = "not written and read again";
    else if (!run(graphs[0], data, &runners[0], error))
        wrong = "# SKIP not run";
    else if (!run(graphs[1], data, &runners[1], error))
        wrong = "not run again";
    for (int i = 0; !*wrong && i < graphs[0]->n_outputs; i++) {
        const terse_tensor *a = terse_plan_output(runners[0].plan, i), *b = terse_plan_output(runners[1].plan, i);
        if (a->dtype != b->dtype || terse_tensor_bytes(a) != terse_tensor_bytes(b) ||
            memcmp(runners[0].outputs[i], runners[1].outputs[i], (size_t)terse_tensor_bytes(a)) != 0)
            wrong = "other bits";
    }
    for (int i = 0; i < 2; i++) {
        terse_runner_done(&runners[i]);
        terse_graph_free(graphs[i]);
    }
    terse_npz_free(data);
    terse_onnx_report_done(&report);
    terse_onnx_report_done(&second);
    return wrong;
}

static int compare_files(int n, char **paths)
{
    bool failed = false;
    printf("1..%d\n", n / 2);
    for (int i = 0; i + 1 < n; i += 2) {
        terse_error error = {0};
        const char *wrong = compare_file(paths[i], paths[i + 1], &error);
        const bool good = !*wrong || *wrong == '#';
        failed = failed || !good;
        printf("%s %d - %s %s%s%s\n", good ? "ok" : "not ok", i / 2 + 1, paths[i], wrong, *wrong ? ": " : "",
               *wrong ? error.message : "");
    }
    return failed;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_products_become_nodes_again), cmocka_unit_test(operators_with_a_form_of_their_own),
        cmocka_unit_test(equal_names_are_told_apart),        cmocka_unit_test(compressed_networks_come_back),
        cmocka_unit_test(what_onnx_cannot_say_is_named),
    };
    if (argc > 2)
        return compare_files(argc - 1, argv + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
