/* SPDX-License-Identifier: Apache-2.0 */
/* What a network loses against the original, against what can be computed by hand; and samples that are held out. */
#include "tests/unit/graph_maker.h"

#include "compress/paired.h"
#include "compress/search/judge.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

enum { SAMPLES = 70, CLASSES = 3 };

/* y = x W; W the unit matrix but for column 0, which is multiplied by `first`. */
static terse_graph *network(double first, bool as_classes)
{
    terse_graph *g = terse_graph_new();
    assert_non_null(g);
    terse_graph_symbol(g, "N");
    const int rank = as_classes ? 2 : 3;
    const int64_t plain[] = {BATCH, CLASSES}, deep[] = {BATCH, 1, CLASSES};
    const int x = make_input(g, "x", rank, as_classes ? plain : deep);
    const int w = make_weights(g, 0, 0, DIMS(CLASSES, CLASSES));
    for (int i = 0; i < CLASSES; i++)
        ((float *)(uintptr_t)g->values[w].data)[i * (CLASSES + 1)] = i ? 1.0f : (float)first;
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(x, w)));
    state_values(g);
    g->batchable = true;
    return g;
}

static float samples[SAMPLES][CLASSES];
static int64_t labels[SAMPLES];
static char *names[] = {(char *)"x", (char *)"labels"};
static terse_tensor tensors[2];

static terse_npz data_set(bool as_classes, bool labelled)
{
    random_state = 77;
    for (int s = 0; s < SAMPLES; s++) {
        for (int c = 0; c < CLASSES; c++)
            samples[s][c] = 3.0f * random_number();
        labels[s] = s % CLASSES;
    }
    tensors[0] =
        terse_tensor_view(samples, TERSE_FP32, as_classes ? 2 : 3,
                          as_classes ? (const int64_t[]){SAMPLES, CLASSES, 0} : (const int64_t[]){SAMPLES, 1, CLASSES});
    tensors[1] = terse_tensor_view(labels, TERSE_INT64, 1, (int64_t[]){SAMPLES});
    return (terse_npz){.n = labelled ? 2 : 1, .names = names, .tensors = tensors};
}

static terse_verdict judged(double first, bool as_classes, bool labelled)
{
    terse_graph *original = network(1, as_classes), *found = network(first, as_classes);
    const terse_npz data = data_set(as_classes, labelled);
    terse_judge *judge = NULL;
    terse_verdict v = {0};
    terse_error error = {0};
    if (terse_judge_new(original, &data, &judge, &error) != TERSE_OK ||
        terse_judge_run(judge, found, &v, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(terse_judge_samples(judge), SAMPLES);
    assert_int_equal(terse_judge_classifies(judge), as_classes);
    assert_int_equal(terse_judge_has_labels(judge), as_classes && labelled);
    terse_judge_free(judge);
    terse_graph_free(original);
    terse_graph_free(found);
    return v;
}

static int largest(const double *row)
{
    int best = 0;
    for (int c = 1; c < CLASSES; c++)
        best = row[c] > row[best] ? c : best;
    return best;
}

/* By hand: what the original's softmax expects to lose, right answers gained and lost, the same answers. */
typedef struct by_hand {
    double expected;
    int64_t same, gained, lost;
} by_hand;

static by_hand count(double first)
{
    by_hand h = {0};
    for (int s = 0; s < SAMPLES; s++) {
        double x[CLASSES], y[CLASSES], p[CLASSES], sum = 0;
        for (int c = 0; c < CLASSES; c++) {
            x[c] = (double)samples[s][c];
            y[c] = x[c] * (c ? 1.0 : first);
            sum += p[c] = exp(x[c]);
        }
        const int a = largest(x), b = largest(y);
        h.expected += (p[a] - p[b]) / sum / SAMPLES;
        h.same += a == b;
        h.gained += b == labels[s] && a != labels[s];
        h.lost += a == labels[s] && b != labels[s];
    }
    return h;
}

static void the_drop_without_labels_is_what_the_original_expects(void **state)
{
    (void)state;
    const terse_verdict v = judged(0.25, true, false);
    const by_hand h = count(0.25);
    assert_true(h.same < SAMPLES && h.expected > 0.01);
    assert_true(fabs(v.drop - 100 * h.expected) < 1e-4);
    assert_true(fabs(v.agreement - (double)h.same / SAMPLES) < 1e-12);
    assert_true(v.kl > 0 && v.low < v.drop && v.drop < v.high);
}

static void the_drop_with_labels_is_no_less_than_right_answers_lost(void **state)
{
    (void)state;
    for (double first = -1; first <= 1; first += 0.25) {
        const terse_verdict v = judged(first, true, true);
        const by_hand h = count(first);
        const double counted = 100.0 * (double)(h.lost - h.gained) / SAMPLES;
        assert_true(fabs(v.drop - fmax(counted, 100 * h.expected)) < 1e-4);
        if (counted <= 100 * h.expected)
            continue;
        const terse_paired p = terse_paired_compare(SAMPLES, h.gained, h.lost);
        assert_true(fabs(v.low + 100 * p.high) < 1e-9 && fabs(v.high + 100 * p.low) < 1e-9);
    }
}

static void the_same_network_loses_nothing_but_is_not_certain_to(void **state)
{
    (void)state;
    const terse_verdict v = judged(1, true, false);
    assert_true(v.drop == 0 && v.agreement == 1 && fabs(v.kl) < 1e-6);
    assert_true(fabs(v.high - 100 * 3.0 / SAMPLES) < 1e-9); /* none of n: the rule of three */
}

static void without_classes_the_drop_is_the_noise(void **state)
{
    (void)state;
    const terse_verdict v = judged(0.5, false, false);
    double noise = 0, signal = 0;
    for (int s = 0; s < SAMPLES; s++)
        for (int c = 0; c < CLASSES; c++) {
            const double x = (double)samples[s][c];
            signal += x * x;
            noise += c ? 0 : 0.25 * x * x;
        }
    assert_true(fabs(v.drop - 100 * noise / signal) < 1e-4);
    assert_true(isnan(v.agreement) && isnan(v.kl) && v.low < v.drop && v.drop < v.high);
}

static void samples_are_fitted_to_or_held_out_but_never_both(void **state)
{
    (void)state;
    terse_graph *g = network(1, true);
    const terse_npz data = data_set(true, true);
    terse_npz *fit = NULL, *held = NULL;
    terse_error error = {0};
    assert_int_equal(terse_judge_split(g, &data, 2, 1000, &fit, &held, &error), TERSE_OK);
    int seen[SAMPLES] = {0};
    for (int side = 0; side < 2; side++) {
        const terse_npz *npz = side ? held : fit;
        const terse_tensor *x = terse_npz_find(npz, "x"), *l = terse_npz_find(npz, "labels");
        assert_true(x && l && x->dims[0] == SAMPLES / 2 && l->dims[0] == SAMPLES / 2);
        for (int64_t k = 0; k < x->dims[0]; k++) {
            int which = -1;
            for (int s = 0; s < SAMPLES; s++)
                if (memcmp((const float *)x->data + k * CLASSES, samples[s], sizeof samples[s]) == 0)
                    which = s;
            assert_true(which >= 0 && ((const int64_t *)l->data)[k] == labels[which]);
            seen[which]++;
        }
    }
    for (int s = 0; s < SAMPLES; s++)
        assert_int_equal(seen[s], 1);
    terse_npz_free(fit);
    terse_npz_free(held);
    assert_int_equal(terse_judge_split(g, &data, 2, 10, &fit, &held, &error), TERSE_OK);
    assert_int_equal(terse_npz_find(fit, "x")->dims[0], 10);
    assert_int_equal(terse_npz_find(held, "x")->dims[0], 10);
    terse_npz_free(fit);
    terse_npz_free(held);
    assert_int_equal(terse_judge_split(g, &data, 71, 10, &fit, &held, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "70 samples, needed are at least 71"));
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_drop_without_labels_is_what_the_original_expects),
        cmocka_unit_test(the_drop_with_labels_is_no_less_than_right_answers_lost),
        cmocka_unit_test(the_same_network_loses_nothing_but_is_not_certain_to),
        cmocka_unit_test(without_classes_the_drop_is_the_noise),
        cmocka_unit_test(samples_are_fitted_to_or_held_out_but_never_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
