/* SPDX-License-Identifier: Apache-2.0 */
/* Training against a teacher: what it reaches, what it leaves alone, and that it repeats. */
#include "tests/unit/graph_maker.h"

#include <unistd.h>

#include "compress/passes/edit.h"
#include "compress/passes/passes.h"
#include "compress/train/student.h"
#include "compress/train/train.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)
enum { SAMPLES = 200 };

/* A small convolutional network with BatchNormalization, a residual connection and a classifier. */
static terse_graph *network(uint32_t seed)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = seed;
    const int x = make_input(g, "x", DIMS(BATCH, 2, 6, 6));
    int y = make_relu(g, make_batch_norm(g, make_conv(g, x, 2, 8, 3, 1, 1, 1), 8));
    const int z = make_relu(g, make_conv(g, y, 8, 8, 3, 1, 1, 8));
    y = make_relu(g, make_node(g, TERSE_OP_ADD, INPUTS(y, make_conv(g, z, 8, 8, 1, 1, 0, 1))));
    y = make_node(g, TERSE_OP_FLATTEN, INPUTS(make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(y))));
    y = make_node(g, TERSE_OP_GEMM, INPUTS(y, make_weights(g, 0, 2, DIMS(8, 5)), make_weights(g, 0, 0.3f, DIMS(5))));
    make_output(g, y);
    state_values(g);
    g->batchable = true;
    return g;
}

static terse_npz samples(int n)
{
    return random_samples(4, (int64_t[]){n, 2, 6, 6});
}

/* The first constant input 1 of a node of that kind. */
static int weights_of(const terse_graph *g, terse_op op, int which)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == op && which-- == 0)
            return g->nodes[i].inputs[1];
    fail();
    return -1;
}

static terse_graph *clone_of(const terse_graph *g)
{
    terse_graph *copy = NULL;
    terse_error error = {0};
    assert_int_equal(terse_edit_clone(g, &copy, &error), TERSE_OK);
    return copy;
}

/* The student: a copy with other weights in its products (in bytes of its own). */
static void disturb(terse_graph *g, float by)
{
    for (int i = 0; i < g->n_nodes; i++) {
        const terse_op op = g->nodes[i].op;
        if (op != TERSE_OP_CONV && op != TERSE_OP_GEMM)
            continue;
        terse_value *w = &g->values[g->nodes[i].inputs[1]];
        const int64_t n = terse_dims_count(w->dims, w->rank);
        float *data = terse_arena_alloc(g->arena, (size_t)n * sizeof *data);
        for (int64_t k = 0; k < n; k++)
            data[k] = ((const float *)w->data)[k] + by * random_number();
        w->data = data;
    }
}

static terse_train_summary train(const terse_graph *teacher, terse_graph *student, const terse_npz *data,
                                 const terse_train_options *options)
{
    terse_train_summary summary;
    terse_error error = {0};
    if (terse_train_recover(teacher, student, data, options, NULL, NULL, &summary, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    return summary;
}

static bool same_weights(const terse_graph *a, const terse_graph *b)
{
    bool same = a->n_values == b->n_values;
    for (int v = 0; same && v < a->n_values; v++)
        if (a->values[v].data && a->values[v].dtype == TERSE_FP32)
            same = memcmp(a->values[v].data, b->values[v].data,
                          (size_t)terse_dims_count(a->values[v].dims, a->values[v].rank) * sizeof(float)) == 0;
    return same;
}

static void a_disturbed_network_recovers_and_its_teacher_stays(void **state)
{
    (void)state;
    for (int fused = 0; fused < 2; fused++) {
        terse_graph *teacher = network(7), *untouched = network(7);
        terse_error error = {0};
        if (fused) { /* BatchNormalization folded, activations and the residual within Conv */
            assert_int_equal(terse_passes_run(teacher, TERSE_PASSES_PREPARE, &error), TERSE_OK);
            assert_int_equal(terse_passes_run(untouched, TERSE_PASSES_PREPARE, &error), TERSE_OK);
            assert_int_equal(teacher->n_nodes, 6);
        }
        terse_graph *student = clone_of(teacher);
        terse_npz data = samples(SAMPLES);
        disturb(student, 0.25f);
        const terse_train_options options = {.epochs = 30, .lr = 5e-3, .features = 0.5, .seed = 1};
        const terse_train_summary s = train(teacher, student, &data, &options);
        print_message("# divergence %g -> %g, agreement %g -> %g\n", s.divergence_before, s.divergence,
                      s.agreement_before, s.agreement);
        assert_true(s.divergence < s.divergence_before / 4);
        assert_true(s.agreement >= 0.9);
        assert_int_equal(s.samples + s.held_out, SAMPLES);
        assert_true(s.n_features > 0 && s.frozen_parameters == 0 && s.parameters > 300);
        assert_true(same_weights(teacher, untouched));
        assert_int_equal(terse_passes_run(student, TERSE_PASSES_FINISH, &error), TERSE_OK);
        terse_graph_free(student);
        terse_graph_free(teacher);
        terse_graph_free(untouched);
        samples_done(&data);
    }
}

static bool stop_behind_three(void *context, const terse_train_progress *progress)
{
    (void)context;
    return !(progress->evaluated && progress->epoch == 3);
}

static void results_repeat_whatever_the_threads_and_after_a_break(void **state)
{
    (void)state;
    terse_graph *teacher = network(9);
    terse_npz data = samples(SAMPLES);
    char path[] = "/tmp/terse-train-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
    terse_train_options options = {.epochs = 6,
                                   .lr = 3e-3,
                                   .seed = 5,
                                   .batch_statistics = true,
                                   .tolerance = 1,
                                   .mix = true,
                                   .shift = 1,
                                   .flip = true};
    terse_graph *whole = clone_of(teacher), *single = clone_of(teacher), *other = clone_of(teacher),
                *broken = clone_of(teacher);
    terse_graph *students[] = {whole, single, other, broken};
    for (int i = 0; i < 4; i++) {
        random_state = 77;
        disturb(students[i], 0.3f);
    }
    terse_graph *again = clone_of(broken);
    train(teacher, whole, &data, &options);
    options.n_threads = 1;
    train(teacher, single, &data, &options);
    assert_true(same_weights(whole, single));
    options.seed = 6;
    train(teacher, other, &data, &options);
    assert_false(same_weights(whole, other));
    /* A training that is asked to stop by its report behind epoch 3, and one that goes on from its checkpoint. */
    options.seed = 5;
    options.checkpoint = path;
    options.resume = true;
    terse_train_summary s;
    terse_error error = {0};
    assert_int_equal(terse_train_recover(teacher, broken, &data, &options, stop_behind_three, NULL, &s, &error),
                     TERSE_OK);
    assert_true(s.stopped);
    assert_int_equal(s.epochs, 3);
    s = train(teacher, again, &data, &options);
    assert_int_equal(s.epochs, 6);
    assert_true(same_weights(whole, again));
    /* The checkpoint is of no use to another training, and a damaged one is refused. */
    options.lr = 1e-3;
    assert_int_equal(terse_train_recover(teacher, again, &data, &options, NULL, NULL, &s, &error),
                     TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "another training"));
    options.lr = 3e-3;
    FILE *file = fopen(path, "r+b");
    fseek(file, 400, SEEK_SET);
    fputs("damage", file);
    fclose(file);
    for (int i = 0; i < 2; i++) {
        random_state = 77;
        terse_graph *third = clone_of(teacher);
        disturb(third, 0.3f);
        assert_int_equal(terse_train_recover(teacher, third, &data, &options, NULL, NULL, &s, &error),
                         TERSE_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, i ? "no checkpoint" : "damaged"));
        terse_graph_free(third);
        file = fopen(path, "wb");
        fputs("something else, long enough to be a header of a checkpoint", file);
        fclose(file);
    }
    unlink(path);
    for (int i = 0; i < 4; i++)
        terse_graph_free(students[i]);
    terse_graph_free(again);
    terse_graph_free(teacher);
    samples_done(&data);
}

static void a_short_training_takes_many_small_steps(void **state)
{
    (void)state;
    terse_graph *teacher = network(19);
    terse_npz data = samples(SAMPLES);
    const struct {
        int64_t steps, epochs, batch;
    } cases[] = {{0, 3, 32}, {1, 3, 32}, {1000, 3, 8}, {1000, 100, 16}};
    for (int i = 0; i < 4; i++) {
        terse_graph *student = clone_of(teacher);
        random_state = 77;
        disturb(student, 0.3f);
        const terse_train_options options = {
            .epochs = cases[i].epochs, .stop = 3, .steps = cases[i].steps, .lr = 3e-3, .seed = 5};
        const terse_train_summary s = train(teacher, student, &data, &options);
        assert_int_equal(s.epochs, 3);
        assert_int_equal(s.steps, 3 * (s.samples / cases[i].batch));
        terse_graph_free(student);
    }
    terse_graph_free(teacher);
    samples_done(&data);
}

static void rates_are_tried_and_what_the_best_has_reached_stays(void **state)
{
    (void)state;
    terse_graph *teacher = network(21);
    terse_npz data = samples(SAMPLES);
    double divergence[2];
    for (int tried = 0; tried < 2; tried++) {
        terse_graph *student = clone_of(teacher);
        random_state = 77;
        disturb(student, 0.3f);
        const terse_train_options options = {.epochs = 1000, /* enough for trials */
                                             .stop = 1,
                                             .lr = 1e-5,
                                             .seed = 5,
                                             .find_rate = tried == 1};
        const terse_train_summary s = train(teacher, student, &data, &options);
        divergence[tried] = s.divergence_before - s.divergence;
        terse_graph_free(student);
    }
    print_message("# one epoch wins %g, with trials before it %g\n", divergence[0], divergence[1]);
    assert_true(divergence[1] > 20 * divergence[0]); /* ten times the rate, and four times the steps */
    terse_graph_free(teacher);
    samples_done(&data);
}

static void a_rate_that_leads_nowhere_is_lowered(void **state)
{
    (void)state;
    terse_graph *teacher = network(23);
    terse_npz data = samples(SAMPLES);
    double divergence[2];
    for (int patient = 0; patient < 2; patient++) {
        terse_graph *student = clone_of(teacher);
        random_state = 77;
        disturb(student, 0.05f);
        const terse_train_options options = {
            .epochs = 24, .stop = 12, .lr = 0.3, .seed = 5, .patience_share = patient ? 0.3 : 0};
        const terse_train_summary s = train(teacher, student, &data, &options);
        divergence[patient] = s.divergence / s.divergence_before;
        terse_graph_free(student);
    }
    print_message("# left of the divergence: %g, with lower rates %g\n", divergence[0], divergence[1]);
    assert_true(divergence[0] == 1);
    assert_true(divergence[1] < 0.9);
    terse_graph_free(teacher);
    samples_done(&data);
}

typedef struct divergences {
    double last, least;
} divergences;

static bool note_divergence(void *context, const terse_train_progress *progress)
{
    divergences *d = context;
    if (progress->evaluated) {
        d->last = progress->divergence;
        d->least = fmin(d->least, progress->divergence);
    }
    return true;
}

static void later_weights_are_kept_unless_they_are_worse_for_sure(void **state)
{
    (void)state;
    terse_graph *teacher = network(27);
    terse_npz data = samples(SAMPLES);
    const double tolerances[] = {0, 2, 100};
    for (int spoilt = 0; spoilt < 2; spoilt++) /* by a rate that destroys a network which was almost right */
        for (int i = 0; i < 3; i++) {
            terse_graph *student = clone_of(teacher);
            random_state = 77;
            disturb(student, spoilt ? 0.01f : 0.1f);
            divergences d = {.least = INFINITY};
            const terse_train_options options = {
                .epochs = 5, .lr = spoilt ? 0.5 : 2e-3, .seed = 5, .tolerance = tolerances[i]};
            terse_train_summary s;
            terse_error error = {0};
            if (terse_train_recover(teacher, student, &data, &options, note_divergence, &d, &s, &error) != TERSE_OK)
                fail_msg("%s", error.message);
            d.least = fmin(d.least, s.divergence_before);
            print_message("# tolerance %g: %g, at the least %g, at last %g\n", tolerances[i], s.divergence, d.least,
                          d.last);
            if (tolerances[i] == 0 || (spoilt && tolerances[i] < 3))
                assert_true(s.divergence == d.least);
            else if (!spoilt)
                assert_true(s.divergence == d.last);
            terse_graph_free(student);
        }
    terse_graph_free(teacher);
    samples_done(&data);
}

static void pruned_weights_stay_zero_and_quantized_ones_on_their_steps(void **state)
{
    (void)state;
    terse_graph *teacher = network(11), *student = clone_of(teacher);
    terse_npz data = samples(SAMPLES);
    const int pruned = weights_of(student, TERSE_OP_CONV, 0), dense = weights_of(student, TERSE_OP_CONV, 2),
              matrix = weights_of(student, TERSE_OP_GEMM, 0), still = weights_of(student, TERSE_OP_CONV, 1);
    uint8_t mask[8 * 2 * 9];
    random_state = 3;
    for (int i = 0; i < 144; i++)
        mask[i] = random_number() > 0;
    float scales[8];
    for (int i = 0; i < 8; i++)
        scales[i] = 0.01f + 0.001f * (float)i;
    const terse_train_parameter said[] = {
        {.value = pruned, .mask = mask, .quantizer = {.bits = 8, .axis = 0}},
        {.value = dense, .quantizer = {.bits = 8, .axis = 0, .scales = scales}},
        {.value = matrix, .quantizer = {.bits = 4, .axis = 1, .group = 4}},
        {.value = still, .frozen = true},
    };
    terse_train_affine *affine = calloc((size_t)student->n_values, sizeof *affine);
    affine[student->inputs[0]] = (terse_train_affine){2.0f / 120, 128};
    affine[student->nodes[2].outputs[0]] = (terse_train_affine){0.05f, 0};
    float kept[72];
    memcpy(kept, student->values[still].data, sizeof kept);
    const terse_train_options options = {
        .epochs = 12, .lr = 3e-3, .seed = 2, .parameters = said, .n_parameters = 4, .affine = affine};
    const terse_train_summary s = train(teacher, student, &data, &options);
    print_message("# divergence %g -> %g\n", s.divergence_before, s.divergence);
    assert_true(s.divergence < s.divergence_before);
    const float *w = student->values[pruned].data;
    int zeros = 0, moved = 0;
    for (int i = 0; i < 144; i++) {
        zeros += mask[i] == 0;
        if (mask[i] == 0)
            assert_true(w[i] == 0);
        else
            moved += w[i] != ((const float *)teacher->values[pruned].data)[i];
    }
    assert_true(zeros > 20 && moved > 20);
    w = student->values[dense].data;
    for (int i = 0; i < 64; i++) {
        const float steps = w[i] / scales[i / 8];
        assert_true(fabsf(steps - rintf(steps)) < 1e-4f && fabsf(steps) <= 127);
    }
    w = student->values[matrix].data; /* [8,5]: columns in groups of 4 rows, at most 15 different steps */
    for (int group = 0; group < 2; group++)
        for (int column = 0; column < 5; column++) {
            float top = 0;
            for (int i = 0; i < 4; i++)
                top = fmaxf(top, fabsf(w[(group * 4 + i) * 5 + column]));
            for (int i = 0; i < 4; i++) {
                const float steps = w[(group * 4 + i) * 5 + column] / (top / 7);
                assert_true(fabsf(steps - rintf(steps)) < 1e-3f);
            }
        }
    assert_memory_equal(student->values[still].data, kept, sizeof kept);
    free(affine);
    terse_graph_free(student);
    terse_graph_free(teacher);
    samples_done(&data);
}

static void a_student_is_made_from_its_teacher(void **state)
{
    (void)state;
    terse_graph *teacher = network(13), *student = NULL, *same = NULL;
    terse_npz data = samples(SAMPLES);
    terse_student_summary made;
    terse_error error = {0};
    assert_int_equal(terse_student_derive(teacher, 0.5, 3, &student, &made, &error), TERSE_OK);
    assert_int_equal(terse_student_derive(teacher, 0.5, 3, &same, &made, &error), TERSE_OK);
    assert_true(same_weights(student, same));
    assert_int_equal(made.n_layers, 4);
    assert_int_equal(made.n_narrowed, 3);
    const int64_t *dims = student->values[weights_of(student, TERSE_OP_CONV, 1)].dims;
    assert_true(dims[0] == 4 && dims[1] == 1);
    assert_int_equal(student->values[weights_of(student, TERSE_OP_GEMM, 0)].dims[1], 5);
    const terse_train_options options = {.epochs = 40, .lr = 1e-2, .seed = 1, .batch_statistics = true};
    const terse_train_summary s = train(teacher, student, &data, &options);
    print_message("# divergence %g -> %g\n", s.divergence_before, s.divergence);
    assert_true(s.divergence < s.divergence_before / 2);
    assert_int_equal(terse_student_derive(teacher, 1.5, 3, &same, &made, &error), TERSE_INVALID_ARGUMENT);
    terse_graph_free(same);
    terse_graph_free(student);
    terse_graph_free(teacher);
    samples_done(&data);
}

static void refuses(const terse_graph *teacher, terse_graph *student, const terse_npz *data,
                    terse_train_options options, const char *word)
{
    terse_train_summary s;
    terse_error error = {0};
    terse_graph *before = clone_of(student);
    assert_true(terse_train_recover(teacher, student, data, &options, NULL, NULL, &s, &error) != TERSE_OK);
    if (!strstr(error.message, word))
        fail_msg("'%s' lacks '%s'", error.message, word);
    assert_true(same_weights(student, before));
    terse_graph_free(before);
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    terse_graph *teacher = network(15), *student = clone_of(teacher);
    terse_npz data = samples(20), one = samples(1);
    const terse_train_options good = {.epochs = 1};
    terse_train_options o = good;
    refuses(teacher, student, &one, good, "at least 2");
    o.epochs = 0;
    refuses(teacher, student, &data, o, "epochs or seconds");
    o = good;
    o.temperature = -1;
    refuses(teacher, student, &data, o, "temperature");
    o = good;
    o.max_bytes = 1000;
    refuses(teacher, student, &data, o, "1000 are allowed");
    const terse_train_parameter strange[] = {{.value = student->inputs[0], .quantizer = {.bits = 8}}};
    o = good;
    o.parameters = strange;
    o.n_parameters = 1;
    refuses(teacher, student, &data, o, "no weight");
    const terse_graph *g = student;
    terse_train_parameter still[32];
    o.parameters = still;
    o.n_parameters = 0;
    for (int v = 0; v < g->n_values; v++)
        if (g->values[v].data && g->values[v].rank > 0)
            still[o.n_parameters++] = (terse_train_parameter){.value = v, .frozen = true};
    refuses(teacher, student, &data, o, "no FP32 weights");
    float *x = data.tensors[0].data;
    x[72 * 7 + 3] = NAN;
    refuses(teacher, student, &data, good, "sample 7");
    free(data.names[0]);
    data.names[0] = strdup("y");
    refuses(teacher, student, &data, good, "'y'");
    student->values[student->inputs[0]].dims[1] = 3;
    refuses(teacher, student, &one, good, "input 0");
    terse_graph_free(student);
    terse_graph_free(teacher);
    samples_done(&data);
    samples_done(&one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disturbed_network_recovers_and_its_teacher_stays),
        cmocka_unit_test(results_repeat_whatever_the_threads_and_after_a_break),
        cmocka_unit_test(a_short_training_takes_many_small_steps),
        cmocka_unit_test(rates_are_tried_and_what_the_best_has_reached_stays),
        cmocka_unit_test(a_rate_that_leads_nowhere_is_lowered),
        cmocka_unit_test(later_weights_are_kept_unless_they_are_worse_for_sure),
        cmocka_unit_test(pruned_weights_stay_zero_and_quantized_ones_on_their_steps),
        cmocka_unit_test(a_student_is_made_from_its_teacher),
        cmocka_unit_test(what_does_not_fit_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
