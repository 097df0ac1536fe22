/* SPDX-License-Identifier: Apache-2.0 */
/* What --validate measures, and the command line of `terse compress`. */
#include "tests/unit/graph_maker.h"

#include "compress/options.h"
#include "compress/passes/passes.h"
#include "compress/validate.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

/* y = x W with W the 3 x 3 unit matrix times `factor`, so that classes can be set by hand. */
static terse_graph *identity_network(int64_t rows, float factor, bool batchable)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    const int x = make_input(g, "x", DIMS(rows, 3));
    const int w = make_weights(g, 0, 0, DIMS(3, 3));
    for (int i = 0; i < 3; i++)
        ((float *)(uintptr_t)g->values[w].data)[i * 4] = factor;
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(x, w)));
    state_values(g);
    g->batchable = batchable;
    return g;
}

static float samples[70][3];
static int64_t labels[70];
static char *names[3] = {(char *)"x", (char *)"labels", (char *)"other"};
static terse_tensor tensors[3];

/* 70 samples whose largest element is number i % 3; every tenth label is wrong. */
static terse_npz data_set(void)
{
    for (int i = 0; i < 70; i++) {
        for (int j = 0; j < 3; j++)
            samples[i][j] = j == i % 3 ? 2.0f : 0.5f;
        labels[i] = i % 10 == 9 ? (i + 1) % 3 : i % 3;
    }
    tensors[0] = terse_tensor_view(samples, TERSE_FP32, 2, (int64_t[]){70, 3});
    tensors[1] = terse_tensor_view(labels, TERSE_INT64, 1, (int64_t[]){70});
    tensors[2] = tensors[0];
    return (terse_npz){.n = 2, .names = names, .tensors = tensors};
}

static void errors_and_classes_are_counted_over_all_samples(void **state)
{
    (void)state;
    /* a batch of 32 with a rest; one sample a run; a graph with a fixed first dimension */
    for (int kind = 0; kind < 3; kind++) {
        terse_graph *before = identity_network(kind == 2 ? 1 : BATCH, 1.0f, kind == 0);
        terse_graph *after = identity_network(kind == 2 ? 1 : BATCH, 1.25f, kind == 0);
        terse_npz data = data_set();
        terse_validation v;
        terse_error error = {0};
        if (terse_validate_run(before, before, after, &data, &v, &error) != TERSE_OK)
            fail_msg("%s", error.message);
        assert_true(v.samples == 70 && v.has_top1 && v.has_agreement);
        assert_true(v.agreement == 1.0 && v.top1_before == 63.0 / 70 && v.top1_after == v.top1_before);
        assert_true(v.max_error == 0.5);
        assert_true(fabs(v.mean_error - 0.25) < 1e-9); /* (0.5 + 2 * 0.125) / 3 */
        assert_true(v.latency_before_us > 0 && v.latency_after_us > 0);
        terse_graph_free(before);
        terse_graph_free(after);
    }
}

static void disagreement_shows(void **state)
{
    (void)state;
    terse_graph *before = identity_network(BATCH, 1.0f, true), *after = identity_network(BATCH, -1.0f, true);
    terse_npz data = data_set();
    data.n = 1;
    terse_validation v;
    assert_int_equal(terse_validate_run(before, before, after, &data, &v, NULL), TERSE_OK);
    assert_true(v.agreement == 0.0 && !v.has_top1 && v.max_error == 4.0);
    terse_graph_free(before);
    terse_graph_free(after);
}

static void a_file_that_does_not_fit_is_refused_by_key(void **state)
{
    (void)state;
    terse_graph *g = identity_network(BATCH, 1.0f, true);
    for (int fault = 0; fault < 8; fault++) {
        static const char *const wanted[] = {
            "'other' is no input",          "input 'x' is missing", "input 'x' is INT64",
            "input 'x' has shape [70,3,1]", "'labels' is FP32",     "'labels' has shape [69]",
            "'labels' has 3 for sample 0",  "input 'x' has 0 rows"};
        terse_npz data = data_set();
        terse_validation v;
        terse_error error = {0};
        if (fault == 0) {
            data.n = 3;
        } else if (fault == 1) {
            data.names = names + 1;
            data.tensors = tensors + 1;
            data.n = 1;
        } else if (fault == 2) {
            tensors[0].dtype = TERSE_INT64;
        } else if (fault == 3) {
            tensors[0] = terse_tensor_view(samples, TERSE_FP32, 3, (int64_t[]){70, 3, 1});
        } else if (fault == 4) {
            tensors[1].dtype = TERSE_FP32;
        } else if (fault == 5) {
            tensors[1].dims[0] = 69;
        } else if (fault == 6) {
            labels[0] = 3;
        } else {
            tensors[0].dims[0] = 0;
        }
        assert_int_equal(terse_validate_run(g, g, g, &data, &v, &error), TERSE_INVALID_ARGUMENT);
        if (!strstr(error.message, wanted[fault]))
            fail_msg("fault %d says: %s", fault, error.message);
    }
    terse_graph_free(g);
}

static void labels_need_classes(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    make_output(g, make_relu(g, make_input(g, "x", DIMS(BATCH, 3, 1))));
    state_values(g);
    g->batchable = true;
    terse_npz data = data_set();
    tensors[0] = terse_tensor_view(samples, TERSE_FP32, 3, (int64_t[]){70, 3, 1});
    terse_validation v;
    terse_error error = {0};
    assert_int_equal(terse_validate_run(g, g, g, &data, &v, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "'labels' are given"));
    data.n = 1;
    assert_int_equal(terse_validate_run(g, g, g, &data, &v, &error), TERSE_OK);
    assert_false(v.has_agreement);
    assert_true(v.max_error == 0);
    terse_graph_free(g);
}

static int parse(terse_options *options, const char *const *words, int n)
{
    terse_error error = {0};
    const int status = terse_options_parse(n, (char **)(uintptr_t)words, options, &error);
    assert_true(status == TERSE_OK || error.message[0]);
    return status;
}
#define PARSE(options, ...)                                                                                            \
    parse(options, (const char *const[]){"terse compress", __VA_ARGS__},                                               \
          COUNT(((const char *const[]){"terse compress", __VA_ARGS__})))

static void options_are_read_in_all_their_forms(void **state)
{
    (void)state;
    terse_options o;
    assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--low-rank", "0.5", "--json", "--name=n"), TERSE_OK);
    assert_string_equal(o.input, "a.onnx");
    assert_string_equal(o.output, "b");
    assert_string_equal(o.name, "n");
    assert_true(o.low_rank.target == TERSE_LOW_RANK_ENERGY && o.low_rank.amount == 0.5 && o.json && !o.validate &&
                !o.plain && !o.help);
    assert_int_equal(PARSE(&o, "-ob", "--low-rank=1", "--", "-a.onnx"), TERSE_OK);
    assert_string_equal(o.input, "-a.onnx");
    assert_string_equal(o.output, "b");
    assert_int_equal(PARSE(&o, "a", "-ob", "--quantize", "int8", "--calibrate", "c"), TERSE_OK);
    assert_int_equal(o.quantize, TERSE_QUANTIZE_INT8);
    assert_int_equal(PARSE(&o, "a", "-ob", "--quantize=int8-weights"), TERSE_OK);
    assert_int_equal(o.quantize, TERSE_QUANTIZE_INT8_WEIGHTS);
    assert_int_equal(PARSE(&o, "a", "-ob", "--quantize=int4-weights"), TERSE_OK);
    assert_true(o.quantize == TERSE_QUANTIZE_INT4_WEIGHTS && o.quantize_group == 32);
    assert_int_equal(PARSE(&o, "a", "-ob", "--quantize=int4-weights:128"), TERSE_OK);
    assert_true(o.quantize == TERSE_QUANTIZE_INT4_WEIGHTS && o.quantize_group == 128);
    assert_int_equal(PARSE(&o, "a", "-ob", "--quantize=int4-weights", "--calibrate=c"), TERSE_OK);
    assert_string_equal(o.calibrate, "c");
    assert_int_equal(PARSE(&o, "--help"), TERSE_OK);
    assert_true(o.help);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    terse_options o;
    assert_int_equal(PARSE(&o, "-o", "b"), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx"), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "b.onnx", "-o", "c"), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "-o"), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--lowrank", "0.5"), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--json=1"), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "-h1"), TERSE_INVALID_ARGUMENT);
    static const char *const energies[] = {"0", "-1", "1.01", "nan", "inf", "", "0.5x", "x"};
    for (int i = 0; i < COUNT(energies); i++)
        assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--low-rank", energies[i]), TERSE_INVALID_ARGUMENT);
    static const char *const model_names[] = {"", "a/b", "a b", "a\n"};
    for (int i = 0; i < COUNT(model_names); i++)
        assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--name", model_names[i]), TERSE_INVALID_ARGUMENT);
    static const char *const modes[] = {"",
                                        "int",
                                        "int8-",
                                        "int8:32",
                                        "int8-weights:8",
                                        "int4",
                                        "int4-weights:",
                                        "int4-weights:12",
                                        "int4-weights:0",
                                        "int4-weights:4104",
                                        "int4-weights:32x"};
    for (int i = 0; i < COUNT(modes); i++)
        assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--quantize", modes[i]), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--quantize", "int8"), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--quantize=int8-weights", "--calibrate=c"),
                     TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--plain", "--low-rank", "1"), TERSE_INVALID_ARGUMENT);
    assert_int_equal(PARSE(&o, "a.onnx", "-o", "b", "--plain", "--quantize", "int8"), TERSE_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_and_classes_are_counted_over_all_samples),
        cmocka_unit_test(disagreement_shows),
        cmocka_unit_test(a_file_that_does_not_fit_is_refused_by_key),
        cmocka_unit_test(labels_need_classes),
        cmocka_unit_test(options_are_read_in_all_their_forms),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
