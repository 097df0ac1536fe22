/* SPDX-License-Identifier: Apache-2.0 */
/* What a student without some of its channels is compared with. */
#include "tests/unit/graph_maker.h"

#include "compress/passes/edit.h"
#include "compress/passes/passes.h"
#include "compress/passes/unfuse.h"
#include "compress/prune/prune.h"
#include "compress/train/loss.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)
enum { SAMPLES = 120, SIDE = 8, CHANNELS = 3, ROWS = 5, COUNTED = 4 };

/* Three convolutions, two of them side by side and joined, the mean of what they give, and a classifier. */
static terse_graph *network(uint32_t seed)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = seed;
    int y = make_input(g, "x", DIMS(BATCH, CHANNELS, SIDE, SIDE));
    y = make_relu(g, make_conv(g, y, CHANNELS, 32, 3, 1, 1, 1));
    const int left = make_relu(g, make_conv(g, y, 32, 32, 1, 1, 0, 1)),
              right = make_relu(g, make_conv(g, y, 32, 32, 3, 1, 1, 1));
    y = make_node(g, TERSE_OP_CONCAT, INPUTS(left, right));
    terse_node_set_int(g, last_node(g), "axis", 1);
    y = make_relu(g, make_conv(g, y, 64, 24, 3, 1, 1, 1));
    y = make_node(g, TERSE_OP_FLATTEN, INPUTS(make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(y))));
    y = make_node(g, TERSE_OP_GEMM, INPUTS(y, make_weights(g, 0, 1, DIMS(24, 6)), make_weights(g, 0, 0.3f, DIMS(6))));
    make_output(g, y);
    state_values(g);
    g->batchable = true;
    return g;
}

static terse_npz samples(int n)
{
    return random_samples(4, (int64_t[]){n, CHANNELS, SIDE, SIDE});
}

/* A network, ready to be trained against, and what is left of it without a third of its work. */
static void make_pair(uint32_t seed, const terse_npz *data, terse_graph **ret_teacher, terse_graph **ret_student,
                      terse_prune_report *ret_report)
{
    const terse_prune_options options = {.amount = 0.4, .kind = TERSE_PRUNE_CHANNELS};
    terse_error error = {0};
    *ret_teacher = network(seed);
    if (terse_passes_run(*ret_teacher, TERSE_PASSES_PREPARE, &error) != TERSE_OK ||
        terse_edit_clone(*ret_teacher, ret_student, &error) != TERSE_OK ||
        terse_prune_run(*ret_student, data, &options, ret_report, &error) != TERSE_OK)
        fail_msg("%s", error.message);
}

static const terse_value *value_named(const terse_graph *g, const char *name)
{
    for (int v = 0; v < g->n_values; v++)
        if (strcmp(g->values[v].name, name) == 0 && !g->values[v].data)
            return &g->values[v];
    return NULL;
}

static void channels_that_are_left_are_listed(void **state)
{
    (void)state;
    terse_npz data = samples(SAMPLES);
    terse_graph *teacher, *student;
    terse_prune_report report = {0};
    make_pair(3, &data, &teacher, &student, &report);
    assert_true(report.kept.n > 0);
    for (int i = 0; i < report.kept.n; i++) {
        const terse_kept_value *kept = &report.kept.list[i];
        const terse_value *a = value_named(teacher, kept->name), *b = value_named(student, kept->name);
        assert_non_null(a);
        assert_non_null(b);
        assert_int_equal(a->dims[kept->axis], kept->before);
        assert_int_equal(b->dims[kept->axis], kept->n);
        assert_true(kept->n < kept->before);
        for (int64_t c = 0; c < kept->n; c++)
            assert_true(kept->channels[c] < kept->before && kept->channels[c] > (c ? kept->channels[c - 1] : -1));
        assert_ptr_equal(terse_kept_find(&report.kept, kept->name), kept);
    }
    for (int v = 0; v < student->n_values; v++) { /* and nothing else has lost any */
        const terse_value *b = &student->values[v], *a = b->data ? NULL : value_named(teacher, b->name);
        if (a && a->rank == 4 && !terse_kept_find(&report.kept, b->name))
            assert_int_equal(a->dims[1], b->dims[1]);
    }
    assert_null(terse_kept_find(&report.kept, "x"));
    assert_null(terse_kept_find(NULL, "x"));
    terse_prune_report_done(&report);
    terse_graph_free(student);
    terse_graph_free(teacher);
    samples_done(&data);
}

/* The tape of a graph that has run over the first ROWS samples; weights get gradients. */
static terse_tape *run(const terse_graph *g, const char *targets, const terse_npz *data)
{
    const terse_tensor view =
        terse_tensor_view(data->tensors[0].data, TERSE_FP32, 4, (int64_t[]){ROWS, CHANNELS, SIDE, SIDE});
    const void *input = view.data;
    char *trained = calloc((size_t)g->n_values + 1, 1);
    terse_tape *tape = NULL;
    terse_error error = {0};
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == TERSE_OP_CONV)
            trained[g->nodes[i].inputs[1]] = 1;
    const terse_tape_options options = {.targets = targets, .trained = trained, .backward = true};
    if (terse_tape_new(g, &view, &options, &tape, &error) != TERSE_OK ||
        terse_tape_forward(tape, &input, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    free(trained);
    return tape;
}

/* Squared error over the teacher's mean square, number by number as the list of channels says; its gradient at one of
 * the student's numbers. */
static double error_of(const terse_loss_pair *pair, const terse_tensor *t, const terse_tensor *s, int64_t at,
                       double *ret_gradient)
{
    const float *x = t->data, *y = s->data;
    const int64_t pixels = SIDE * SIDE, channels = s->dims[1];
    double square = 0, error = 0, difference = 0;
    for (int64_t i = 0; i < COUNTED * channels * pixels; i++) {
        const int64_t sample = i / pixels / channels, channel = i / pixels % channels;
        const int64_t of = pair->kept ? pair->kept->channels[channel] : channel;
        const double wanted = (double)x[(sample * t->dims[1] + of) * pixels + i % pixels];
        square += wanted * wanted;
        error += ((double)y[i] - wanted) * ((double)y[i] - wanted);
        difference = i == at ? (double)y[i] - wanted : difference;
    }
    *ret_gradient = 2 * difference / square;
    return error / square;
}

static void features_are_compared_with_the_channels_that_are_left(void **state)
{
    (void)state;
    terse_npz data = samples(SAMPLES);
    terse_graph *fused, *pruned, *teacher = NULL, *student = NULL;
    terse_prune_report report = {0};
    terse_distance with, without;
    terse_distance_sum sum = {0};
    terse_error error = {0};
    const double share = 0.5, weight = 3;
    make_pair(5, &data, &fused, &pruned, &report);
    assert_int_equal(terse_unfuse(fused, &teacher, &error), TERSE_OK);
    assert_int_equal(terse_unfuse(pruned, &student, &error), TERSE_OK);
    assert_int_equal(terse_distance_new(teacher, student, weight, NULL, &without, &error), TERSE_OK);
    assert_int_equal(terse_distance_new(teacher, student, weight, &report.kept, &with, &error), TERSE_OK);
    print_message("# %d features, %d without the list\n", with.n_features, without.n_features);
    assert_true(with.n_features >= 4);
    assert_true(without.n_features < with.n_features);
    terse_tape *a = run(teacher, with.of_teacher, &data), *b = run(student, with.of_student, &data);
    assert_int_equal(terse_distance_add(&with, a, b, ROWS, COUNTED, 2, share, &sum, &error), TERSE_OK);
    double features = 0, sum_of_weights = 0;
    int listed = 0;
    for (int i = 0; i < with.n; i++) {
        const terse_loss_pair *pair = &with.pairs[i];
        if (!pair->feature)
            continue;
        const terse_tensor *t = terse_tape_value(a, pair->teacher), *s = terse_tape_value(b, pair->student);
        const float *found = terse_tape_gradient(b, pair->student);
        const int64_t counted = terse_tensor_count(s) / ROWS * COUNTED;
        double gradient = 0;
        features += pair->weight * error_of(pair, t, s, -1, &gradient);
        sum_of_weights += pair->weight;
        listed += pair->kept != NULL;
        for (int64_t k = 0; k < terse_tensor_count(s); k += 37) {
            error_of(pair, t, s, k, &gradient);
            const double wanted = k < counted ? share * pair->weight * gradient : 0;
            assert_true(fabs((double)found[k] - wanted) <= 1e-5 * fabs(wanted) + 1e-12);
        }
    }
    assert_true(listed >= 2);
    assert_true(fabs(sum_of_weights - weight) < 1e-9);
    /* The rest of the loss is that of the answers. */
    terse_distance_sum of_answers = {0};
    const terse_distance few = {.pairs = with.pairs, .n = 1};
    assert_false(with.pairs[0].feature);
    assert_int_equal(terse_distance_add(&few, a, b, ROWS, COUNTED, 2, share, &of_answers, &error), TERSE_OK);
    assert_true(features > 0.001);
    assert_true(fabs(sum.loss - of_answers.loss - share * features) < 1e-6 * sum.loss);
    /* And every sample has its part in how far they are. */
    double each[COUNTED] = {0}, total = 0;
    terse_distance_sum judged = {.each = each};
    assert_int_equal(terse_distance_add(&few, a, b, ROWS, COUNTED, 2, 0, &judged, &error), TERSE_OK);
    for (int i = 0; i < COUNTED; i++) {
        assert_true(each[i] > 0);
        total += each[i];
    }
    assert_true(judged.divergence > 0 && fabs(total - judged.divergence) < 1e-12 * total);
    terse_tape_free(a);
    terse_tape_free(b);
    terse_distance_done(&with);
    terse_distance_done(&without);
    terse_prune_report_done(&report);
    terse_graph_free(student);
    terse_graph_free(teacher);
    terse_graph_free(pruned);
    terse_graph_free(fused);
    samples_done(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(channels_that_are_left_are_listed),
        cmocka_unit_test(features_are_compared_with_the_channels_that_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
