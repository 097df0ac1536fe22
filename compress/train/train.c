/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "compress/passes/unfuse.h"
#include "compress/train/checkpoint.h"
#include "compress/train/lanes.h"
#include "compress/validate.h"

enum { MAX_HELD_OUT = 512, FEW_EPOCHS = 5, TRIAL_STEPS = 24, MOST_BATCH = 32, LEAST_BATCH = 8 };
enum { SLOW_EPOCHS = 2, MOST_CUTS = 3 };
static const double usual_speed =
    4e9;                           /* multiply-accumulates of the network a second, teacher and gradient beside it */
static const double cut = 1.0 / 3; /* of the rate, where it leads nowhere */
static const double last_trial = 0.15; /* of the time: when it is over no further rate is tried */

typedef struct trainer {
    terse_train_options options;
    terse_graph *teacher, *student; /* unfused copies */
    terse_samples samples;
    terse_train_bytes bytes;     /* the student's INT8 weights */
    terse_train_parameter *said; /* what the options say about weights, and what follows from the bytes */
    terse_distance distance;
    terse_parameters parameters;
    terse_lanes lanes;
    terse_train_state state;
    int64_t *order; /* of all samples: those to train on, then those held out */
    int64_t n_train, n_held;
    terse_train_report *report;
    void *context;
    uint64_t started_ns, reported_ns;
    double seconds_before; /* of the part that a checkpoint has */
    terse_train_progress progress;
    bool stopped, early;
} trainer;

static void trainer_done(trainer *t)
{
    terse_lanes_done(&t->lanes);
    terse_parameters_done(&t->parameters);
    terse_distance_done(&t->distance);
    terse_samples_done(&t->samples);
    terse_graph_free(t->teacher);
    terse_graph_free(t->student);
    terse_train_bytes_done(&t->bytes);
    free(t->said);
    free(t->state.best);
    free(t->order);
}

/* --- before ------------------------------------------------------------------------------------------------------ */

static int bad_option(terse_error *error, const char *name, double found, const char *allowed)
{
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "training option %s is %g, allowed is %s", name, found, allowed);
}

static int take_options(trainer *t, const terse_train_options *from, terse_error *error)
{
    terse_train_options *o = &t->options;
    *o = *from;
    o->lr = o->lr == 0 ? 1e-3 : o->lr;
    o->temperature = o->temperature == 0 ? 2 : o->temperature;
    o->clip = o->clip == 0 ? 1 : o->clip;
    o->warm_up = o->warm_up == 0 ? 0.05 : o->warm_up;
    if (o->epochs < 0 || !(o->seconds >= 0) || (o->epochs == 0 && o->seconds == 0))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "training needs a number of epochs or seconds above 0");
    if (o->batch < 0 || o->batch > 65536)
        return bad_option(error, "batch", (double)o->batch, "0 to 65536");
    if (o->steps < 0)
        return bad_option(error, "steps", (double)o->steps, "0 and above");
    if (!(o->lr > 0 && o->lr <= 10))
        return bad_option(error, "lr", o->lr, "above 0, at most 10");
    if (!(o->temperature >= 0.01 && o->temperature <= 1000))
        return bad_option(error, "temperature", o->temperature, "0.01 to 1000");
    if (!(o->decay >= 0 && o->decay <= 100))
        return bad_option(error, "decay", o->decay, "0 to 100");
    if (!(o->clip > 0))
        return bad_option(error, "clip", o->clip, "above 0");
    if (!(o->warm_up >= 0 && o->warm_up < 1))
        return bad_option(error, "warm_up", o->warm_up, "0 to below 1");
    if (!(o->features >= 0 && o->features <= 1e6))
        return bad_option(error, "features", o->features, "0 to 1e6");
    if (!(o->patience_share >= 0 && o->patience_share <= 1) || !(o->average >= 0 && o->average < 1))
        return bad_option(error, "average", o->average, "0 to below 1, as is patience_share");
    if (o->shift < 0 || o->shift > 64)
        return bad_option(error, "shift", o->shift, "0 to 64");
    return TERSE_OK;
}

static int check_inputs(const terse_graph *teacher, const terse_graph *student, terse_error *error)
{
    if (teacher->n_inputs != student->n_inputs)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the student has %d inputs, the teacher %d", student->n_inputs,
                          teacher->n_inputs);
    for (int i = 0; i < teacher->n_inputs; i++) {
        const terse_value *a = &teacher->values[teacher->inputs[i]], *b = &student->values[student->inputs[i]];
        bool same = strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->rank == b->rank;
        for (int k = 0; same && k < a->rank; k++)
            same = a->dims[k] < 0 || b->dims[k] < 0 || a->dims[k] == b->dims[k];
        char x[128], y[128];
        if (!same)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "input %d is %s '%.80s' %s in the student, %s '%.80s' %s in the teacher", i,
                              terse_dtype_name(b->dtype), b->name, terse_value_text(student, b, x, sizeof x),
                              terse_dtype_name(a->dtype), a->name, terse_value_text(teacher, a, y, sizeof y));
    }
    return TERSE_OK;
}

/* NaN and infinities would spoil every weight. */
static int check_samples(const terse_samples *samples, terse_error *error)
{
    for (int i = 0; i < samples->graph->n_inputs; i++) {
        const terse_tensor *x = samples->tensors[i];
        const char *name = samples->graph->values[samples->graph->inputs[i]].name;
        const int64_t n = x->dtype == TERSE_FP32 ? terse_tensor_count(x) : 0;
        const float *data = x->data;
        for (int64_t k = 0; k < n; k++)
            if (!isfinite(data[k]))
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' has %g in sample %" PRId64, name,
                                  (double)data[k], k / (n / samples->samples > 0 ? n / samples->samples : 1));
    }
    return TERSE_OK;
}

static void shuffle(int64_t *list, int64_t n, uint64_t key)
{
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = (int64_t)(terse_lanes_random(key ^ (uint64_t)i * 0x9e3779b97f4a7c15u) % (uint64_t)(i + 1));
        const int64_t swap = list[i];
        list[i] = list[j];
        list[j] = swap;
    }
}

void terse_train_split(int64_t n, uint64_t seed, int64_t *order, int64_t *ret_held)
{
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    shuffle(order, n, terse_lanes_random(seed));
    *ret_held = n / 10 < 1 ? 1 : n / 10 > MAX_HELD_OUT ? MAX_HELD_OUT : n / 10;
}

/* A tenth is held out. */
static int split_samples(trainer *t, terse_error *error)
{
    const int64_t n = t->samples.samples;
    if (n < 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%" PRId64 " sample is there, training needs at least 2: one is held out", n);
    t->order = malloc((size_t)n * sizeof *t->order);
    if (!t->order)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRId64 " samples", n);
    terse_train_split(n, t->options.seed, t->order, &t->n_held);
    t->n_train = n - t->n_held;
    return TERSE_OK;
}

/* How many samples there is time for: by the epochs, or by what the network has to multiply. The speed of this machine
 * does not matter, so that a training that goes on elsewhere has the same steps. */
static double samples_to_come(const trainer *t)
{
    const terse_train_options *o = &t->options;
    double samples = o->epochs > 0 ? (double)o->epochs * (double)t->n_train : (double)INFINITY;
    int64_t macs = 0;
    size_t ignored;
    if (o->seconds > 0 && terse_validate_cost(t->student, &macs, &ignored, NULL) == TERSE_OK && macs > 0)
        samples = fmin(samples, o->seconds * usual_speed / (double)macs);
    return samples;
}

/* Adam moves weights by about the rate a step, so a training of few steps goes nowhere, and the gradient towards a
 * teacher is good with few samples. */
static void choose_batch(trainer *t)
{
    terse_train_options *o = &t->options;
    if (o->batch == 0) {
        o->batch = MOST_BATCH;
        while (o->steps > 0 && o->batch > LEAST_BATCH && samples_to_come(t) / (double)o->batch < (double)o->steps)
            o->batch /= 2;
    }
    o->batch = o->batch > t->n_train ? t->n_train : o->batch;
}

/* What decides about every bit of a training: a checkpoint goes on only there. */
static uint64_t key_of(const trainer *t)
{
    const terse_train_options *o = &t->options;
    const double numbers[] = {(double)o->epochs,
                              o->seconds,
                              (double)o->batch,
                              o->lr,
                              o->temperature,
                              o->decay,
                              o->clip,
                              o->warm_up,
                              o->features,
                              (double)o->patience,
                              o->patience_share,
                              o->average,
                              o->find_rate,
                              o->relative,
                              o->batch_statistics,
                              o->flip,
                              (double)o->shift,
                              o->mix,
                              (double)t->samples.samples};
    uint64_t key = XXH3_64bits_withSeed(numbers, sizeof numbers, o->seed);
    const terse_graph *graphs[] = {t->teacher, t->student};
    for (int g = 0; g < 2; g++)
        for (int v = 0; v < graphs[g]->n_values; v++)
            if (graphs[g]->values[v].data)
                key = XXH3_64bits_withSeed(
                    graphs[g]->values[v].data,
                    (size_t)terse_dims_count(graphs[g]->values[v].dims, graphs[g]->values[v].rank) *
                        terse_dtype_size(graphs[g]->values[v].dtype),
                    key);
    for (int i = 0; i < t->student->n_inputs; i++)
        key = XXH3_64bits_withSeed(t->samples.tensors[i]->data, (size_t)terse_tensor_bytes(t->samples.tensors[i]), key);
    return key;
}

/* Quantized constants and operators without a gradient leave a student nothing to learn with. */
static int check_trained(const trainer *t, terse_error *error)
{
    for (int i = 0; i < t->parameters.n; i++)
        if (t->parameters.list[i].trained &&
            terse_tape_parameter_gradient(t->lanes.lanes[0].student, t->parameters.list[i].value))
            return TERSE_OK;
    for (int i = 0; i < t->student->n_nodes; i++)
        if (terse_tape_blocked(t->lanes.lanes[0].student, i))
            return terse_fail(error, TERSE_UNIMPLEMENTED,
                              "the student cannot be trained: no gradient passes node '%s' (%s)",
                              t->student->nodes[i].name, terse_op_name(t->student->nodes[i].op));
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "the student has no FP32 weights to train: found %d constants that could be", t->parameters.n);
}

/* INT8 weights keep their scales. */
static int say(trainer *t, terse_error *error)
{
    terse_train_options *o = &t->options;
    t->said = calloc((size_t)o->n_parameters + (size_t)t->bytes.n + 1, sizeof *t->said);
    if (!t->said)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d parameters", o->n_parameters);
    int n = 0;
    for (; n < o->n_parameters; n++) {
        t->said[n] = o->parameters[n];
        const terse_train_byte *byte = terse_train_bytes_find(&t->bytes, t->said[n].value);
        if (byte)
            t->said[n].quantizer = byte->quantizer;
    }
    for (int i = 0; i < t->bytes.n; i++) {
        bool there = false;
        for (int k = 0; k < o->n_parameters; k++)
            there = there || o->parameters[k].value == t->bytes.list[i].value;
        if (!there && terse_parameters_may_train(t->student, t->bytes.list[i].value))
            t->said[n++] =
                (terse_train_parameter){.value = t->bytes.list[i].value, .quantizer = t->bytes.list[i].quantizer};
    }
    o->parameters = t->said;
    o->n_parameters = n;
    return TERSE_OK;
}

static int prepare(trainer *t, const terse_graph *teacher, const terse_graph *student, const terse_npz *data,
                   terse_error *error)
{
    int status = check_inputs(teacher, student, error);
    if (status == TERSE_OK)
        status = terse_unfuse(teacher, &t->teacher, error);
    if (status == TERSE_OK)
        status = terse_unfuse(student, &t->student, error);
    if (status == TERSE_OK)
        status = terse_train_bytes_expose(t->student, &t->bytes, error);
    if (status == TERSE_OK)
        status = say(t, error);
    if (status == TERSE_OK)
        status = terse_samples_open(teacher, data, &t->samples, error);
    if (status == TERSE_OK)
        status = check_samples(&t->samples, error);
    if (status == TERSE_OK)
        status = split_samples(t, error);
    if (status == TERSE_OK) {
        choose_batch(t);
        status = terse_distance_new(t->teacher, t->student, t->options.features, &t->distance, error);
    }
    if (status == TERSE_OK)
        status = terse_parameters_new(t->student, &t->options, &t->parameters, error);
    if (status != TERSE_OK)
        return status;
    terse_parameters_round(t->student, &t->parameters);
    t->lanes = (terse_lanes){.teacher = t->teacher,
                             .student = t->student,
                             .samples = &t->samples,
                             .options = &t->options,
                             .distance = &t->distance,
                             .parameters = &t->parameters};
    status = terse_lanes_new(&t->lanes, t->options.batch, error);
    if (status == TERSE_OK)
        status = check_trained(t, error);
    const size_t kept = (size_t)(t->parameters.n_numbers + t->parameters.n_statistic_numbers);
    t->state.parameters = &t->parameters;
    t->state.best = calloc(kept + 1, sizeof *t->state.best);
    t->state.key = key_of(t);
    if (status == TERSE_OK && !t->state.best)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu parameters", kept);
    return status;
}

/* --- progress ---------------------------------------------------------------------------------------------------- */

static double elapsed(const trainer *t)
{
    return t->seconds_before + (double)(terse_now_ns() - t->started_ns) * 1e-9;
}

/* Is this share of the time over? */
static bool is_late(const trainer *t, double share)
{
    return t->options.seconds > 0 && elapsed(t) >= share * t->options.seconds;
}

/* How far the training is, 0 to 1. */
static double done_share(const trainer *t)
{
    const terse_train_options *o = &t->options;
    const int64_t steps = t->n_train / o->batch;
    const double by_steps = o->epochs ? (double)t->state.marks.step / (double)(o->epochs * steps) : 0;
    const double by_time = o->seconds > 0 ? elapsed(t) / o->seconds : 0;
    return by_steps > by_time ? by_steps : by_time;
}

static void tell(trainer *t, bool now)
{
    const uint64_t at = terse_now_ns();
    if (!t->report || (!now && at - t->reported_ns < 100000000u))
        return;
    t->reported_ns = at;
    terse_train_progress *p = &t->progress;
    const terse_train_marks *m = &t->state.marks;
    const double share = done_share(t);
    p->seconds = elapsed(t);
    p->left = share > 0.01 ? p->seconds * (1 - share) / share : -1;
    p->samples_per_second = m->train_seconds > 0 ? m->trained_samples / m->train_seconds : 0;
    p->best_agreement = m->best_agreement;
    if (!t->report(t->context, p))
        t->stopped = true;
    p->evaluated = false;
}

/* --- training ---------------------------------------------------------------------------------------------------- */

static int evaluate(trainer *t, double *ret_agreement, double *ret_divergence, terse_error *error)
{
    terse_distance_sum total = {0};
    const int64_t chunk = 256;
    for (int64_t first = 0; first < t->n_held; first += chunk) {
        terse_distance_sum sum;
        const int64_t n = t->n_held - first < chunk ? t->n_held - first : chunk;
        const int status = terse_lanes_run(&t->lanes, t->order + t->n_train + first, n, false, 0, &sum, error);
        if (status != TERSE_OK)
            return status;
        total.divergence += sum.divergence;
        total.error += sum.error;
        total.same += sum.same;
        total.rows += sum.rows;
        total.n_errors += sum.n_errors;
    }
    const double error_share = total.n_errors ? total.error / (double)total.n_errors : 0;
    *ret_agreement = total.rows ? (double)total.same / (double)total.rows : 1 - error_share;
    *ret_divergence = (total.rows ? total.divergence / (double)total.rows : 0) + error_share;
    if (!isfinite(*ret_divergence)) {
        *ret_agreement = -1;
        *ret_divergence = (double)INFINITY;
    }
    return TERSE_OK;
}

static void keep(trainer *t)
{
    const terse_parameters *p = &t->parameters;
    memcpy(t->state.best, p->weights, (size_t)p->n_numbers * sizeof(float));
    memcpy(t->state.best + p->n_numbers, p->running, (size_t)p->n_statistic_numbers * sizeof(float));
}

/* Has it not become better for as long as the options bear? */
static bool is_enough(const trainer *t)
{
    const terse_train_options *o = &t->options;
    return (o->patience > 0 && t->state.marks.bad_epochs >= o->patience) ||
           (o->patience_share > 0 && t->state.marks.bad_epochs >= FEW_EPOCHS &&
            done_share(t) >= t->state.marks.good_share + o->patience_share);
}

/* Where nothing has become better for a third of the patience, the rate is too high for what is there: back to the best
 * weights, and smaller steps from there. */
static void slow_down(trainer *t)
{
    const terse_train_options *o = &t->options;
    terse_train_marks *m = &t->state.marks;
    terse_parameters *p = &t->parameters;
    const double since = m->cuts > 0 && m->cut_share > m->good_share ? m->cut_share : m->good_share;
    if (o->patience_share <= 0 || m->bad_epochs < SLOW_EPOCHS || done_share(t) < since + o->patience_share / MOST_CUTS)
        return;
    const size_t bytes = (size_t)p->n_numbers * sizeof(float);
    memcpy(p->weights, t->state.best, bytes);
    memcpy(p->averaged, t->state.best, bytes);
    memcpy(p->running, t->state.best + p->n_numbers, (size_t)p->n_statistic_numbers * sizeof(float));
    memset(p->first, 0, bytes);
    m->rate *= cut;
    m->cuts++;
    m->cut_share = done_share(t);
}

/* The means of the weights in their place, or the other way round, where they are wanted. */
static void use_averages(trainer *t)
{
    if (t->options.average > 0)
        terse_parameters_swap(&t->parameters);
    terse_parameters_round(t->student, &t->parameters);
}

static int finish_epoch(trainer *t, terse_error *error)
{
    terse_train_marks *m = &t->state.marks;
    double agreement, divergence;
    use_averages(t);
    const int status = evaluate(t, &agreement, &divergence, error);
    if (status != TERSE_OK)
        return status;
    /* With few samples held out agreement is mostly luck: what is kept is where divergence is least. */
    const bool agrees = agreement > m->most_agreement, better = divergence < m->best_divergence;
    m->most_agreement = agrees ? agreement : m->most_agreement;
    if (better) {
        m->best_agreement = agreement;
        m->best_divergence = divergence;
        keep(t);
    }
    use_averages(t);
    m->bad_epochs = better || agrees ? 0 : m->bad_epochs + 1;
    m->good_share = better || agrees ? done_share(t) : m->good_share;
    m->epoch++;
    m->seconds = elapsed(t);
    t->early = is_enough(t);
    slow_down(t);
    t->progress.evaluated = true;
    t->progress.agreement = agreement;
    t->progress.divergence = divergence;
    t->progress.epoch = m->epoch;
    tell(t, true);
    return t->options.checkpoint ? terse_checkpoint_write(t->options.checkpoint, &t->state, error) : TERSE_OK;
}

/* Up linearly, then down as half a cosine. */
static double rate_at(const terse_train_options *o, double share)
{
    if (share < o->warm_up)
        return o->lr * (share + 1e-3) / (o->warm_up + 1e-3);
    const double rest = (share - o->warm_up) / (1 - o->warm_up);
    return o->lr * 0.5 * (1 + cos(3.14159265358979 * (rest < 1 ? rest : 1)));
}

/* One batch, forwards and backwards, and what follows from it. */
static int run_step(trainer *t, const int64_t *batch, uint64_t key, double rate, double *ret_loss, terse_error *error)
{
    terse_train_marks *m = &t->state.marks;
    terse_distance_sum sum;
    terse_parameters_round(t->student, &t->parameters);
    const int status = terse_lanes_run(&t->lanes, batch, t->options.batch, true, key, &sum, error);
    if (status != TERSE_OK)
        return status;
    m->step++;
    terse_parameters_step(&t->parameters, m->step, rate, t->options.decay, t->options.clip);
    if (t->options.average > 0)
        terse_parameters_average(&t->parameters, m->step, t->options.average);
    *ret_loss = sum.loss;
    return TERSE_OK;
}

static int run_epoch(trainer *t, int64_t *order, terse_error *error)
{
    terse_train_marks *m = &t->state.marks;
    const int64_t steps = t->n_train / t->options.batch;
    const uint64_t key = terse_lanes_random(t->options.seed ^ (uint64_t)(m->epoch + 1) << 20);
    memcpy(order, t->order, (size_t)t->n_train * sizeof *order);
    shuffle(order, t->n_train, key);
    t->progress.steps = steps;
    t->progress.loss = 0;
    for (int64_t s = 0; s < steps && !t->stopped; s++) {
        double loss = 0;
        const uint64_t began = terse_now_ns();
        const double share = done_share(t);
        if (is_late(t, 1))
            break;
        const int status = run_step(t, order + s * t->options.batch, key ^ (uint64_t)(s + 1) << 40,
                                    rate_at(&t->options, share) * m->rate, &loss, error);
        if (status != TERSE_OK)
            return status;
        m->train_seconds += (double)(terse_now_ns() - began) * 1e-9;
        m->trained_samples += (double)t->options.batch;
        t->progress.step = s + 1;
        t->progress.loss += (loss - t->progress.loss) / (double)(s + 1);
        tell(t, false);
    }
    return t->stopped ? TERSE_OK : finish_epoch(t, error);
}

/* Goes on from these weights, as nothing had happened before. */
static void start_from(trainer *t, const float *kept)
{
    terse_parameters *p = &t->parameters;
    const size_t bytes = (size_t)p->n_numbers * sizeof(float);
    memcpy(p->weights, kept, bytes);
    memcpy(p->averaged, kept, bytes);
    memcpy(p->running, kept + p->n_numbers, (size_t)p->n_statistic_numbers * sizeof(float));
    memset(p->first, 0, bytes);
    memset(p->second, 0, bytes);
    t->state.marks.step = 0;
    terse_parameters_round(t->student, p);
}

/* A few steps from where the student is; *ret_divergence is infinite where time was over before. */
static int try_rate(trainer *t, int64_t *order, double factor, double *ret_divergence, terse_error *error)
{
    const terse_train_options *o = &t->options;
    terse_train_marks *m = &t->state.marks;
    const int64_t steps = t->n_train / o->batch;
    double agreement, loss;
    int64_t s = 0;
    int status = TERSE_OK;
    memcpy(order, t->order, (size_t)t->n_train * sizeof *order);
    shuffle(order, t->n_train, o->seed ^ 0x7261746573u);
    for (; s < TRIAL_STEPS && status == TERSE_OK && !t->stopped && !is_late(t, 0.25); s++) {
        const double warm = s < TRIAL_STEPS / 4 ? 4 * (double)(s + 1) / TRIAL_STEPS : 1;
        status =
            run_step(t, order + s % steps * o->batch, (uint64_t)(s + 1) << 40, factor * o->lr * warm, &loss, error);
        t->progress.step = s + 1;
        tell(t, false);
    }
    *ret_divergence = (double)INFINITY;
    if (status != TERSE_OK || s < TRIAL_STEPS)
        return status;
    use_averages(t);
    status = evaluate(t, &agreement, ret_divergence, error);
    if (status == TERSE_OK && *ret_divergence < m->best_divergence) {
        m->best_agreement = agreement;
        m->best_divergence = *ret_divergence;
        keep(t);
    }
    return status;
}

/* A few steps with lr, 3 lr, a third of it and 10 lr: that which leaves the held-out samples closest is taken, and the
 * training goes on from there: what was spent on it is not lost. Steps, not seconds, decide, but not beyond a part of
 * the time; where a quarter of it is over before one was tried, the careful one is taken. */
static int find_rate(trainer *t, int64_t *order, terse_error *error)
{
    static const double factors[] = {1, 3, 1.0 / 3, 10};
    const terse_train_options *o = &t->options;
    const size_t numbers = (size_t)(t->parameters.n_numbers + t->parameters.n_statistic_numbers);
    double least = INFINITY;
    t->state.marks.rate = o->find_rate ? factors[2] : 1; /* the careful one where there is no time to try */
    if (!o->find_rate || (o->epochs > 0 && o->epochs * (t->n_train / o->batch) < 6 * TRIAL_STEPS))
        return TERSE_OK;
    TERSE_AUTO(terse_freep) float *start = malloc((numbers + 1) * sizeof *start);
    if (!start)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu parameters", numbers);
    memcpy(start, t->state.best, numbers * sizeof *start);
    int status = TERSE_OK;
    for (int f = 0; f < 4 && status == TERSE_OK && !t->stopped && (f == 0 || !is_late(t, last_trial)); f++) {
        double divergence;
        start_from(t, start);
        status = try_rate(t, order, factors[f], &divergence, error);
        if (divergence < least)
            t->state.marks.rate = factors[f];
        least = divergence < least ? divergence : least;
    }
    start_from(t, t->state.best);
    return status;
}

static int begin(trainer *t, int64_t *order, terse_error *error)
{
    terse_train_marks *m = &t->state.marks;
    t->started_ns = terse_now_ns();
    t->progress = (terse_train_progress){
        .epochs = t->options.epochs, .left = -1, .bytes = t->lanes.bytes, .samples = t->n_train, .held_out = t->n_held};
    if (t->options.checkpoint && t->options.resume) {
        const int status = terse_checkpoint_read(t->options.checkpoint, &t->state, error);
        if (status != TERSE_NOT_FOUND) {
            t->seconds_before = m->seconds;
            t->progress.epoch = m->epoch;
            terse_parameters_round(t->student, &t->parameters);
            t->early = m->epoch > 0 && is_enough(t);
            tell(t, true);
            return status;
        }
    }
    const int status = evaluate(t, &m->agreement_before, &m->divergence_before, error);
    m->best_agreement = m->most_agreement = m->agreement_before;
    m->best_divergence = m->divergence_before;
    memcpy(t->parameters.averaged, t->parameters.weights, (size_t)t->parameters.n_numbers * sizeof(float));
    keep(t);
    tell(t, true);
    return status == TERSE_OK ? find_rate(t, order, error) : status;
}

static bool goes_on(const trainer *t)
{
    const terse_train_options *o = &t->options;
    return !t->stopped && !t->early && (o->epochs == 0 || t->state.marks.epoch < o->epochs) &&
           (o->stop == 0 || t->state.marks.epoch < o->stop) && !is_late(t, 1);
}

static int train(trainer *t, terse_error *error)
{
    int64_t *order = malloc((size_t)t->n_train * sizeof *order);
    int status =
        order ? begin(t, order, error) : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    while (status == TERSE_OK && goes_on(t))
        status = run_epoch(t, order, error);
    free(order);
    return status;
}

/* --- after ------------------------------------------------------------------------------------------------------- */

static void list_frozen(const trainer *t, terse_train_summary *to)
{
    const terse_tape *tape = t->lanes.lanes[0].student;
    size_t at = 0;
    for (int i = 0; i < t->student->n_nodes; i++)
        if (terse_tape_blocked(tape, i) && at + 60 < sizeof to->frozen)
            at += (size_t)snprintf(to->frozen + at, sizeof to->frozen - at, "%s%s '%.30s'", at ? ", " : "",
                                   terse_op_name(t->student->nodes[i].op), t->student->nodes[i].name);
    for (int i = 0; i < t->parameters.n; i++)
        if (!terse_tape_parameter_gradient((terse_tape *)(uintptr_t)tape, t->parameters.list[i].value))
            to->frozen_parameters += t->parameters.list[i].n;
        else
            to->parameters += t->parameters.list[i].n;
}

static void summarize(const trainer *t, terse_train_summary *to)
{
    const terse_train_marks *m = &t->state.marks;
    *to = (terse_train_summary){.epochs = m->epoch,
                                .steps = m->step,
                                .samples = t->n_train,
                                .held_out = t->n_held,
                                .seconds = elapsed(t),
                                .samples_per_second = m->train_seconds > 0 ? m->trained_samples / m->train_seconds : 0,
                                .agreement_before = m->agreement_before,
                                .agreement = m->best_agreement,
                                .divergence_before = m->divergence_before,
                                .divergence = m->best_divergence,
                                .n_features = t->distance.n_features,
                                .bytes = t->lanes.bytes,
                                .stopped = t->stopped,
                                .early = t->early};
    list_frozen(t, to);
}

int terse_train_recover(const terse_graph *teacher, terse_graph *student, const terse_npz *data,
                        const terse_train_options *options, terse_train_report *report, void *context,
                        terse_train_summary *ret_summary, terse_error *error)
{
    trainer t = {.report = report, .context = context};
    int status = take_options(&t, options, error);
    if (status == TERSE_OK)
        status = prepare(&t, teacher, student, data, error);
    if (status == TERSE_OK)
        status = train(&t, error);
    if (status == TERSE_OK) {
        const terse_parameters *p = &t.parameters;
        memcpy(p->weights, t.state.best, (size_t)p->n_numbers * sizeof(float));
        memcpy(p->running, t.state.best + p->n_numbers, (size_t)p->n_statistic_numbers * sizeof(float));
        terse_parameters_round(t.student, &t.parameters);
        summarize(&t, ret_summary);
        status = terse_parameters_store(&t.parameters, &t.bytes, student, error);
    }
    trainer_done(&t);
    return status;
}
