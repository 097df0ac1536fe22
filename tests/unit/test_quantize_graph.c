/* SPDX-License-Identifier: Apache-2.0 */
/* --quantize int8 on small networks: what becomes bytes, that equalization keeps the function, that the network of
 * bytes computes what was replayed, and what is said about bad samples and names. */
#include "tests/unit/graph_maker.h"

#include "compress/passes/passes.h"
#include "compress/quantize/keep.h"
#include "compress/quantize/quantize.h"
#include "compress/quantize/steps.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

enum { SAMPLES = 24, PIXELS = 3 * 12 * 12 };

static float images[SAMPLES * PIXELS];
static char *keys[] = {(char *)"x", (char *)"labels"};
static terse_tensor tensors[2];

static terse_npz image_samples(void)
{
    random_state = 77;
    for (int i = 0; i < SAMPLES * PIXELS; i++)
        images[i] = random_number() * (1.0f + 0.05f * (float)(i % PIXELS % 40));
    tensors[0] = terse_tensor_view(images, TERSE_FP32, 4, (int64_t[]){SAMPLES, 3, 12, 12});
    return (terse_npz){.n = 1, .names = keys, .tensors = tensors};
}

/* conv -> relu -> depthwise -> relu -> max pool -> two branches -> concat -> conv + shortcut -> relu -> mean -> gemm */
static terse_graph *image_network(uint32_t seed)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = seed;
    const int x = make_input(g, "x", DIMS(BATCH, 3, 12, 12));
    const int a = make_relu(g, make_conv(g, x, 3, 8, 3, 1, 1, 1));
    const int b = make_relu(g, make_conv(g, a, 8, 8, 3, 1, 1, 8));
    const int p = make_node(g, TERSE_OP_MAX_POOL, INPUTS(b));
    terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){2, 2}, 2);
    terse_node_set_ints(g, last_node(g), "strides", (int64_t[]){2, 2}, 2);
    const int left = make_relu(g, make_conv(g, p, 8, 6, 1, 1, 0, 1));
    const int right = make_relu(g, make_conv(g, p, 8, 10, 3, 1, 1, 1));
    const int both = make_node(g, TERSE_OP_CONCAT, INPUTS(left, right));
    terse_node_set_int(g, last_node(g), "axis", 1);
    const int c = make_conv(g, both, 16, 16, 3, 1, 1, 1);
    const int sum = make_relu(g, make_node(g, TERSE_OP_ADD, INPUTS(c, both)));
    const int mean = make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(sum));
    const int flat = make_node(g, TERSE_OP_FLATTEN, INPUTS(mean));
    const int w = make_weights(g, 0, 0.5f, DIMS(16, 5));
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(flat, w)));
    state_values(g);
    g->batchable = true;
    for (int n = 0; n < g->n_nodes; n++) {
        char *name = terse_arena_alloc(g->arena, 16);
        snprintf(name, 16, "%s_%d", terse_op_name(g->nodes[n].op), n);
        g->nodes[n].name = name;
    }
    terse_error error = {0};
    if (terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    return g;
}

static void quantize(terse_graph *g, terse_quantize_options options, terse_quantize_report *report)
{
    terse_npz data = image_samples();
    terse_error error = {0};
    options.source = "data.npz";
    if (terse_quantize_run(g, &data, &options, report, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    if (terse_graph_check(g, &error) != TERSE_OK)
        fail_msg("%s", error.message);
}

/* --- what becomes bytes ------------------------------------------------------------------------------------------ */

static void tensors_that_move_share_a_scale(void **state)
{
    (void)state;
    terse_graph *g = image_network(3);
    terse_scheme s;
    assert_int_equal(terse_scheme_build(g, NULL, &s, NULL), TERSE_OK);
    int products = 0;
    for (int n = 0; n < g->n_nodes; n++) {
        const terse_node *node = &g->nodes[n];
        products += s.kinds[n] == TERSE_SCHEME_PRODUCT;
        if (node->op == TERSE_OP_CONCAT || node->op == TERSE_OP_MAX_POOL) {
            assert_int_equal(s.kinds[n], TERSE_SCHEME_MOVE);
            for (int i = 0; i < node->n_inputs; i++) {
                assert_int_equal(s.group[node->inputs[i]], s.group[node->outputs[0]]);
                assert_true(s.demanded[node->inputs[i]] && s.source[node->inputs[i]]);
            }
            assert_true(s.demanded[node->outputs[0]] && !s.source[node->outputs[0]]);
        }
        if (node->op == TERSE_OP_GLOBAL_AVERAGE_POOL)
            assert_true(s.group[node->inputs[0]] != s.group[node->outputs[0]]);
        if (node->op == TERSE_OP_CONV && node->n_inputs > 3) /* the shortcut is bytes because the sum is */
            assert_true(s.demanded[node->inputs[3]] && s.demanded[node->outputs[0]]);
    }
    assert_int_equal(products, 6);
    assert_false(s.demanded[g->outputs[0]]);
    terse_scheme_done(&s);
    terse_graph_free(g);
}

static void activations_without_a_form_on_bytes_become_tables(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    const int x = make_input(g, "x", DIMS(BATCH, 3, 12, 12));
    const int a = make_node(g, TERSE_OP_HARD_SWISH, INPUTS(make_conv(g, x, 3, 8, 3, 1, 1, 1)));
    const int b = make_node(g, TERSE_OP_GELU, INPUTS(make_conv(g, a, 8, 8, 1, 1, 0, 1)));
    make_output(g, make_conv(g, b, 8, 4, 1, 1, 0, 1));
    state_values(g);
    g->batchable = true;
    assert_int_equal(terse_passes_run(g, TERSE_PASSES_PREPARE, NULL), TERSE_OK);
    assert_int_equal(count_ops(g, TERSE_OP_HARD_SWISH), 0);
    answers before = answer(g, 2, 9);
    assert_int_equal(terse_scheme_split_activations(g, NULL), TERSE_OK);
    answers after = answer(g, 2, 9);
    assert_int_equal(count_ops(g, TERSE_OP_HARD_SWISH), 1);
    assert_int_equal(count_ops(g, TERSE_OP_GELU), 0); /* stays in its product, which gives FP32 */
    assert_true(apart(&before, &after) < 1e-5);
    answers_done(&before);
    answers_done(&after);
    terse_graph_free(g);
}

/* x * sigmoid(x) behind a convolution is one table; behind a matrix product it stays FP32. */
static void the_swish_of_a_convolution_becomes_one_table(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 12;
    const int x = make_input(g, "x", DIMS(BATCH, 3, 12, 12)), a = make_conv(g, x, 3, 8, 3, 1, 1, 1);
    const int swish = make_node(g, TERSE_OP_MUL, INPUTS(a, make_node(g, TERSE_OP_SIGMOID, INPUTS(a))));
    const int b = make_conv(g, swish, 8, 8, 3, 1, 1, 8);
    const int again = make_node(g, TERSE_OP_MUL, INPUTS(make_node(g, TERSE_OP_SIGMOID, INPUTS(b)), b));
    const int mean = make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(again));
    const int w = make_weights(g, 0, 0.5f, DIMS(8, 5)), v = make_weights(g, 0, 0.5f, DIMS(5, 4));
    const int c = make_node(g, TERSE_OP_MATMUL, INPUTS(make_node(g, TERSE_OP_FLATTEN, INPUTS(mean)), w));
    const int last = make_node(g, TERSE_OP_MUL, INPUTS(c, make_node(g, TERSE_OP_SIGMOID, INPUTS(c))));
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(last, v)));
    state_values(g);
    g->batchable = true;
    assert_int_equal(terse_passes_run(g, TERSE_PASSES_PREPARE, NULL), TERSE_OK);
    answers before = answer(g, 2, 4);
    terse_quantize_report report;
    quantize(g, (terse_quantize_options){.keep_float = "none"}, &report);
    assert_int_equal(terse_passes_run(g, TERSE_PASSES_FINISH, NULL), TERSE_OK);
    answers after = answer(g, 2, 4);
    assert_int_equal(count_ops(g, TERSE_OP_QTABLE), 2);
    assert_int_equal(count_ops(g, TERSE_OP_MUL) + count_ops(g, TERSE_OP_QMUL) + count_ops(g, TERSE_OP_SIGMOID), 0);
    assert_int_equal(count_ops(g, TERSE_OP_QUANTIZE_LINEAR), 2); /* the input, and behind the matrix product's Swish */
    assert_true(apart(&before, &after) < 0.05);
    answers_done(&before);
    answers_done(&after);
    terse_quantize_report_done(&report);
    terse_graph_free(g);
}

/* Input and Gelu are there in FP32: Add and Softmax read that. The second product's sum is bytes only. */
static void float_nodes_read_floats_where_there_are_any(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 6;
    const int x = make_input(g, "x", DIMS(BATCH, 3, 12, 12));
    const int a = make_node(g, TERSE_OP_GELU, INPUTS(make_conv(g, x, 3, 3, 3, 1, 1, 1)));
    const int b = make_conv(g, a, 3, 3, 1, 1, 0, 1), c = make_conv(g, b, 3, 3, 1, 1, 0, 1);
    make_output(g, make_node(g, TERSE_OP_SOFTMAX, INPUTS(x)));
    make_output(g, make_node(g, TERSE_OP_SOFTMAX, INPUTS(a)));
    make_output(g, make_node(g, TERSE_OP_SOFTMAX, INPUTS(b)));
    make_output(g, c);
    state_values(g);
    g->batchable = true;
    assert_int_equal(terse_passes_run(g, TERSE_PASSES_PREPARE, NULL), TERSE_OK);
    answers before = answer(g, 2, 3);
    terse_quantize_report report;
    quantize(g, (terse_quantize_options){.keep_float = "none"}, &report);
    answers after = answer(g, 2, 3);
    int from_bytes = 0;
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n].op == TERSE_OP_SOFTMAX)
            from_bytes += g->nodes[terse_graph_producer(g, g->nodes[n].inputs[0]) < 0
                                       ? n
                                       : terse_graph_producer(g, g->nodes[n].inputs[0])]
                              .op == TERSE_OP_DEQUANTIZE_LINEAR;
    assert_int_equal(from_bytes, 1);
    before.n = after.n = 1; /* the softmax of the input has not changed at all */
    assert_true(apart(&before, &after) == 0.0);
    before.n = after.n = 4;
    assert_true(apart(&before, &after) < 0.1);
    answers_done(&before);
    answers_done(&after);
    terse_quantize_report_done(&report);
    terse_graph_free(g);
}

/* --- equalization ------------------------------------------------------------------------------------------------ */

static terse_samples open_samples(const terse_graph *g, const terse_npz *data)
{
    terse_samples samples = {0};
    terse_error error = {0};
    if (terse_samples_open(g, data, &samples, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    return samples;
}

static void equalization_keeps_the_function(void **state)
{
    (void)state;
    for (int by = TERSE_EQUALIZE_WEIGHTS; by <= TERSE_EQUALIZE_ACTIVATIONS; by++)
        for (uint32_t seed = 1; seed <= 5; seed++) {
            terse_graph *g = image_network(seed);
            terse_npz data = image_samples();
            terse_samples samples = open_samples(g, &data);
            const int first = g->nodes[0].inputs[1];
            const double weight = (double)((const float *)g->values[first].data)[0];
            answers before = answer(g, 3, seed);
            int pairs = 0;
            assert_int_equal(terse_equalize_run(g, &samples, (terse_equalize_by)by, &pairs, NULL), TERSE_OK);
            answers after = answer(g, 3, seed);
            assert_int_equal(pairs, 1); /* conv -> depthwise; the pool's two readers end the chain */
            assert_true(apart(&before, &after) < 1e-4);
            assert_true((double)((const float *)g->values[g->nodes[0].inputs[1]].data)[0] != weight);
            answers_done(&before);
            answers_done(&after);
            terse_samples_done(&samples);
            terse_graph_free(g);
        }
}

/* Two matrices with ReLU between: afterwards both ranges of a channel are sqrt(r1 r2) (Nagel et al., eq. 11). */
static void equalization_makes_ranges_equal(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 4;
    const int x = make_input(g, "x", DIMS(BATCH, 6));
    const int w1 = make_weights(g, 0, 1.0f, DIMS(6, 8)), b1 = make_weights(g, 0, 1.0f, DIMS(8));
    const int w2 = make_weights(g, 0, 0.1f, DIMS(8, 4));
    const int h = make_relu(g, make_node(g, TERSE_OP_MATMUL, INPUTS(x, w1)));
    (void)b1;
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(h, w2)));
    state_values(g);
    g->batchable = true;
    assert_int_equal(terse_passes_run(g, TERSE_PASSES_PREPARE, NULL), TERSE_OK);
    answers before = answer(g, 5, 2);
    int pairs = 0;
    assert_int_equal(terse_equalize_run(g, NULL, TERSE_EQUALIZE_WEIGHTS, &pairs, NULL), TERSE_OK);
    answers after = answer(g, 5, 2);
    assert_true(pairs == 1 && apart(&before, &after) < 1e-5);
    const float *a = g->values[g->nodes[0].inputs[1]].data, *b = g->values[g->nodes[1].inputs[1]].data;
    for (int c = 0; c < 8; c++) {
        double r1 = 0, r2 = 0;
        for (int i = 0; i < 6; i++)
            r1 = fmax(r1, fabs((double)a[i * 8 + c]));
        for (int i = 0; i < 4; i++)
            r2 = fmax(r2, fabs((double)b[c * 4 + i]));
        assert_true(fabs(r1 / r2 - 1) < 1e-5);
    }
    answers_done(&before);
    answers_done(&after);
    terse_graph_free(g);
}

static void equalization_stops_at_relu6(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    const int x = make_input(g, "x", DIMS(BATCH, 3, 12, 12));
    const int low = make_number(g, 0), high = make_number(g, 6);
    const int a = make_node(g, TERSE_OP_CLIP, INPUTS(make_conv(g, x, 3, 8, 3, 1, 1, 1), low, high));
    make_output(g, make_conv(g, a, 8, 4, 1, 1, 0, 1));
    state_values(g);
    assert_int_equal(terse_passes_run(g, TERSE_PASSES_PREPARE, NULL), TERSE_OK);
    int pairs = 1;
    assert_int_equal(terse_equalize_run(g, NULL, TERSE_EQUALIZE_WEIGHTS, &pairs, NULL), TERSE_OK);
    assert_int_equal(pairs, 0);
    terse_graph_free(g);
}

/* --- the whole --------------------------------------------------------------------------------------------------- */

static void bytes_answer_nearly_as_floats(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        terse_graph *g = image_network(seed);
        answers before = answer(g, 3, seed);
        terse_quantize_report report;
        quantize(g, (terse_quantize_options){.keep_float = "none"}, &report);
        answers after = answer(g, 3, seed);
        assert_int_equal(report.n, 6);
        assert_int_equal(report.samples, SAMPLES);
        for (int i = 0; i < report.n; i++)
            assert_true(!report.layers[i].kept && report.layers[i].measured && report.layers[i].sqnr_db > 15 &&
                        report.layers[i].macs > 0 && report.layers[i].low <= 0 && report.layers[i].high >= 0);
        if (apart(&before, &after) > 0.1 || report.sqnr_db < 20)
            fail_msg("seed %u: %g apart, %g dB", seed, apart(&before, &after), report.sqnr_db);
        int int8 = 0;
        for (int v = 0; v < g->n_values; v++)
            int8 += g->values[v].data && g->values[v].dtype == TERSE_INT8;
        assert_int_equal(int8, 6);
        /* x, a, the depthwise one's and the pool's (one scale), both branches and their concat, sum, mean, flat */
        assert_int_equal(count_ops(g, TERSE_OP_QUANTIZE_LINEAR), 10);
        assert_int_equal(count_ops(g, TERSE_OP_DEQUANTIZE_LINEAR), 10 + 6);
        terse_quantize_report_done(&report);
        answers_done(&before);
        answers_done(&after);
        terse_graph_free(g);
    }
}

/* The nodes that are inserted compute what a replay with the same ranges and weights computed. */
static void insertion_computes_what_was_replayed(void **state)
{
    (void)state;
    terse_graph *g = image_network(6);
    terse_npz data = image_samples();
    terse_samples samples = open_samples(g, &data);
    terse_scheme s;
    terse_ranges r;
    terse_replay *replay = NULL;
    terse_numbers *numbers = NULL;
    terse_error error = {0};
    terse_calibrate_watch watch = {0};
    assert_int_equal(terse_scheme_build(g, NULL, &s, &error), TERSE_OK);
    assert_int_equal(terse_calibrate_observe(g, &samples, &s, &watch, &r, &error), TERSE_OK);
    assert_int_equal(terse_choose_ranges(NULL, g, &s, TERSE_CALIBRATION_MINMAX, &r, &error), TERSE_OK);
    terse_int8_weights int8[32] = {{0}};
    float *weights[32] = {0};
    for (int n = 0; n < g->n_nodes; n++) {
        if (s.kinds[n] != TERSE_SCHEME_PRODUCT)
            continue;
        const terse_value *w = &g->values[g->nodes[n].inputs[1]];
        const int64_t count = terse_dims_count(w->dims, w->rank);
        int8[n].q = terse_arena_alloc(g->arena, (size_t)count);
        int8[n].scales = terse_arena_alloc(g->arena, 64 * sizeof(float));
        weights[n] = terse_arena_alloc(g->arena, (size_t)count * sizeof(float));
        const int axis = terse_scheme_channel_axis(&g->nodes[n]);
        for (int64_t c = 0; c < w->dims[axis]; c++)
            int8[n].scales[c] = 0.01f;
        for (int64_t i = 0; i < count; i++) {
            int8[n].q[i] = (int8_t)rintf(((const float *)w->data)[i] * 100.0f);
            weights[n][i] = (float)int8[n].q[i] * 0.01f;
        }
    }
    const terse_disguise disguise = {.scheme = &s, .affine = r.affine, .weights = weights};
    assert_int_equal(terse_replay_new(g, &samples, 1, 1, &replay, &error), TERSE_OK);
    assert_int_equal(terse_numbers_new(replay, 0, false, &disguise, NULL, &numbers, &error), TERSE_OK);
    for (int n = 0; n < g->n_nodes; n++)
        assert_int_equal(terse_numbers_step(numbers, n, &error), TERSE_OK);
    float want[5];
    memcpy(want, terse_numbers_output(numbers, 0)->data, sizeof want);
    terse_numbers_free(numbers);
    terse_replay_free(replay);
    assert_int_equal(terse_scheme_insert(g, &s, r.affine, int8, &error), TERSE_OK);
    terse_replay *again = NULL;
    terse_numbers *found = NULL;
    assert_int_equal(terse_replay_new(g, &samples, 1, 1, &again, &error), TERSE_OK);
    assert_int_equal(terse_numbers_new(again, 0, false, NULL, NULL, &found, &error), TERSE_OK);
    for (int n = 0; n < g->n_nodes; n++)
        assert_int_equal(terse_numbers_step(found, n, &error), TERSE_OK);
    const float *got = terse_numbers_output(found, 0)->data;
    for (int i = 0; i < 5; i++)
        assert_true(fabsf(got[i] - want[i]) < 0.02f * (fabsf(want[i]) + 1)); /* ties may fall either way */
    terse_numbers_free(found);
    terse_replay_free(again);
    terse_ranges_done(&r);
    terse_scheme_done(&s);
    terse_samples_done(&samples);
    terse_graph_free(g);
}

static void every_method_works_and_repeats(void **state)
{
    (void)state;
    for (int method = TERSE_CALIBRATION_AUTO; method < TERSE_CALIBRATIONS; method++) {
        terse_graph *g[2];
        terse_quantize_report report[2];
        answers found[2];
        for (int i = 0; i < 2; i++) {
            g[i] = image_network(8);
            quantize(g[i], (terse_quantize_options){.calibration = (terse_calibration)method}, &report[i]);
            found[i] = answer(g[i], 2, 5);
        }
        assert_true(apart(&found[0], &found[1]) == 0.0);
        assert_int_equal(g[0]->n_values, g[1]->n_values);
        for (int v = 0; v < g[0]->n_values; v++)
            if (g[0]->values[v].data)
                assert_memory_equal(g[0]->values[v].data, g[1]->values[v].data, g[0]->values[v].bytes);
        for (int i = 0; i < report[0].n && method != TERSE_CALIBRATION_AUTO; i++)
            assert_int_equal(report[0].layers[i].method, method);
        for (int i = 0; i < 2; i++) {
            answers_done(&found[i]);
            terse_quantize_report_done(&report[i]);
            terse_graph_free(g[i]);
        }
    }
}

/* A search knows how a network is equalized and builds many like it: without trials and without a loss of each layer.
 * This one is so small that a third of the samples are as many as there are: the same bytes. Where layers are still to
 * be chosen their losses are taken all the same. */
static void equalization_that_is_told_gives_the_same_bytes(void **state)
{
    (void)state;
    terse_graph *g[3];
    terse_quantize_report report[3];
    g[0] = image_network(8);
    quantize(g[0], (terse_quantize_options){.keep_float = "none"}, &report[0]);
    assert_int_not_equal(report[0].equalized, TERSE_EQUALIZATION_TRIED);
    assert_non_null(strstr(report[0].equalization, terse_equalization_name(report[0].equalized)));
    for (int i = 1; i < 3; i++) {
        g[i] = image_network(8);
        quantize(g[i],
                 (terse_quantize_options){.equalization = report[0].equalized, .keep_float = i == 1 ? "none" : NULL},
                 &report[i]);
        assert_int_equal(report[i].equalized, report[0].equalized);
        assert_non_null(strstr(report[i].equalization, "as planned"));
        assert_int_equal(report[i].n, report[0].n);
    }
    assert_int_equal(g[0]->n_values, g[1]->n_values);
    for (int v = 0; v < g[0]->n_values; v++)
        if (g[0]->values[v].data)
            assert_memory_equal(g[0]->values[v].data, g[1]->values[v].data, g[0]->values[v].bytes);
    for (int l = 0; l < report[0].n; l++) {
        assert_true(report[0].layers[l].alone == report[0].layers[l].measured);
        assert_true(report[1].layers[l].measured == report[0].layers[l].measured && !report[1].layers[l].alone);
        assert_true(report[1].layers[l].low == report[0].layers[l].low);
        assert_true(report[2].layers[l].alone == report[2].layers[l].measured);
    }
    for (int i = 0; i < 3; i++) {
        terse_quantize_report_done(&report[i]);
        terse_graph_free(g[i]);
    }
}

static void equalization_that_is_told_is_named(void **state)
{
    (void)state;
    static const char *const says[] = {"", "none, as planned", "by weights, as planned", "by activations, as planned"};
    for (int e = TERSE_EQUALIZATION_NONE; e <= TERSE_EQUALIZATION_ACTIVATIONS; e++) {
        terse_quantize_report report;
        terse_graph *g = image_network(8);
        quantize(g, (terse_quantize_options){.equalization = (terse_equalization)e, .keep_float = "none"}, &report);
        assert_string_equal(report.equalization, says[e]);
        terse_quantize_report_done(&report);
        terse_graph_free(g);
    }
}

/* --- what stays FP32 --------------------------------------------------------------------------------------------- */

static void layers_are_kept_by_name(void **state)
{
    (void)state;
    terse_graph *g = image_network(2);
    char names[128];
    snprintf(names, sizeof names, "%s,%s", g->nodes[0].name, g->nodes[g->n_nodes - 1].name);
    terse_quantize_report report;
    quantize(g, (terse_quantize_options){.keep_float = names}, &report);
    int kept = 0;
    for (int i = 0; i < report.n; i++)
        kept += report.layers[i].kept;
    assert_true(kept == 2 && report.layers[0].kept && strcmp(report.layers[0].reason, "named") == 0);
    terse_quantize_report_done(&report);
    terse_graph_free(g);
}

static void a_name_that_no_layer_has_is_told_with_those_near_it(void **state)
{
    (void)state;
    terse_graph *g = image_network(2);
    terse_npz data = image_samples();
    terse_quantize_report report;
    terse_error error = {0};
    char name[32];
    snprintf(name, sizeof name, "%sx", g->nodes[0].name);
    const terse_quantize_options options = {.source = "d", .keep_float = name};
    assert_int_equal(terse_quantize_run(g, &data, &options, &report, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, name));
    char quoted[34];
    snprintf(quoted, sizeof quoted, "'%s'", g->nodes[0].name);
    assert_non_null(strstr(error.message, quoted));
    terse_graph_free(g);
}

static void what_costs_most_for_its_work_is_kept(void **state)
{
    (void)state;
    terse_keep_candidate quiet[] = {{.noise = 0.001, .work = 0.1}, {.noise = 0.004, .work = 0.01}};
    terse_keep_choose(quiet, 2, 0.006);
    assert_false(quiet[0].kept || quiet[1].kept);
    terse_keep_candidate loud[] = {{.noise = 0.05, .work = 0.01},
                                   {.noise = 0.04, .work = 0.5},
                                   {.noise = 0.002, .work = 0.3},
                                   {.noise = 0.006, .work = 0.01, .last = true},
                                   {.noise = 0.006, .work = 0.17}};
    terse_keep_choose(loud, 5, 0.11);
    assert_true(loud[0].kept && loud[0].reason && loud[3].kept); /* small and loud; the last one at half the bar */
    assert_false(loud[1].kept || loud[2].kept || loud[4].kept);  /* half of all work; quiet */
}

/* --- samples ----------------------------------------------------------------------------------------------------- */

static void expect_failure(terse_npz *data, const char *part)
{
    terse_graph *g = image_network(2);
    terse_quantize_report report;
    terse_error error = {0};
    const terse_quantize_options options = {.source = "data.npz"};
    assert_int_equal(terse_quantize_run(g, data, &options, &report, &error), TERSE_INVALID_ARGUMENT);
    if (!strstr(error.message, part) || !strstr(error.message, "data.npz"))
        fail_msg("'%s' does not hold '%s'", error.message, part);
    terse_graph_free(g);
}

static void bad_samples_get_one_error(void **state)
{
    (void)state;
    terse_npz data = image_samples();
    data.n = 0;
    expect_failure(&data, "'x' is missing");
    data = image_samples();
    tensors[0].dims[0] = 0;
    expect_failure(&data, "0 rows");
    data = image_samples();
    tensors[0].dims[1] = 4;
    expect_failure(&data, "[24,4,12,12]");
    data = image_samples();
    images[5 * PIXELS + 7] = NAN;
    expect_failure(&data, "NaN in sample 5");
    data = image_samples();
    images[7 * PIXELS] = INFINITY;
    expect_failure(&data, "infinity in sample 7");
    data = image_samples();
    tensors[0].dtype = TERSE_INT32;
    expect_failure(&data, "INT32");
}

static void few_and_one_sided_samples_get_a_warning(void **state)
{
    (void)state;
    static int64_t labels[SAMPLES];
    terse_graph *g = image_network(2);
    terse_npz data = image_samples();
    tensors[0].dims[0] = 3;
    tensors[1] = terse_tensor_view(labels, TERSE_INT64, 1, (int64_t[]){3});
    data.n = 2;
    terse_quantize_report report;
    terse_error error = {0};
    if (terse_quantize_run(g, &data, &(terse_quantize_options){.source = "d"}, &report, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(report.n_warnings, 2);
    assert_non_null(strstr(report.warnings[0], "3 samples"));
    assert_non_null(strstr(report.warnings[1], "the same label"));
    terse_quantize_report_done(&report);
    terse_graph_free(g);
}

/* One sample may not decide: bias correction needs two, ranges work with one. A graph with a fixed first dimension. */
static void one_sample_is_enough_to_run(void **state)
{
    (void)state;
    terse_graph *g = image_network(2);
    terse_npz data = image_samples();
    tensors[0].dims[0] = 1;
    g->batchable = false;
    terse_quantize_report report;
    assert_int_equal(terse_quantize_run(g, &data, &(terse_quantize_options){.source = "d"}, &report, NULL), TERSE_OK);
    terse_quantize_report_done(&report);
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_that_move_share_a_scale),
        cmocka_unit_test(activations_without_a_form_on_bytes_become_tables),
        cmocka_unit_test(the_swish_of_a_convolution_becomes_one_table),
        cmocka_unit_test(float_nodes_read_floats_where_there_are_any),
        cmocka_unit_test(equalization_keeps_the_function),
        cmocka_unit_test(equalization_makes_ranges_equal),
        cmocka_unit_test(equalization_stops_at_relu6),
        cmocka_unit_test(bytes_answer_nearly_as_floats),
        cmocka_unit_test(insertion_computes_what_was_replayed),
        cmocka_unit_test(every_method_works_and_repeats),
        cmocka_unit_test(equalization_that_is_told_gives_the_same_bytes),
        cmocka_unit_test(equalization_that_is_told_is_named),
        cmocka_unit_test(layers_are_kept_by_name),
        cmocka_unit_test(a_name_that_no_layer_has_is_told_with_those_near_it),
        cmocka_unit_test(what_costs_most_for_its_work_is_kept),
        cmocka_unit_test(bad_samples_get_one_error),
        cmocka_unit_test(few_and_one_sided_samples_get_a_warning),
        cmocka_unit_test(one_sample_is_enough_to_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
