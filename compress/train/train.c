/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/train/trainer.h"

enum { MAX_HELD_OUT = 512 };

static void trainer_done(terse_trainer *t)
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
    free(t->state.least);
    free(t->held);
    free(t->order);
}

void terse_trainer_shuffle(int64_t *list, int64_t n, uint64_t key)
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
    terse_trainer_shuffle(order, n, terse_lanes_random(seed));
    *ret_held = n / 10 < 1 ? 1 : n / 10 > MAX_HELD_OUT ? MAX_HELD_OUT : n / 10;
}

/* --- progress ---------------------------------------------------------------------------------------------------- */

static double elapsed(const terse_trainer *t)
{
    return t->seconds_before + (double)(terse_now_ns() - t->started_ns) * 1e-9;
}

bool terse_trainer_is_late(const terse_trainer *t, double share)
{
    return t->options.seconds > 0 && elapsed(t) >= share * t->options.seconds;
}

double terse_trainer_done_share(const terse_trainer *t)
{
    const terse_train_options *o = &t->options;
    const int64_t steps = t->n_train / o->batch;
    const double by_steps = o->epochs ? (double)t->state.marks.step / (double)(o->epochs * steps) : 0;
    const double by_time = o->seconds > 0 ? elapsed(t) / o->seconds : 0;
    return by_steps > by_time ? by_steps : by_time;
}

void terse_trainer_tell(terse_trainer *t, bool now)
{
    const uint64_t at = terse_now_ns();
    if (!t->report || (!now && at - t->reported_ns < 100000000u))
        return;
    t->reported_ns = at;
    terse_train_progress *p = &t->progress;
    const terse_train_marks *m = &t->state.marks;
    const double share = terse_trainer_done_share(t);
    p->seconds = elapsed(t);
    p->left = share > 0.01 ? p->seconds * (1 - share) / share : -1;
    p->samples_per_second = m->train_seconds > 0 ? m->trained_samples / m->train_seconds : 0;
    p->best_agreement = m->best_agreement;
    if (!t->report(t->context, p))
        t->stopped = true;
    p->evaluated = false;
}

/* --- training ---------------------------------------------------------------------------------------------------- */

int terse_trainer_evaluate(terse_trainer *t, double *ret_agreement, double *ret_divergence, terse_error *error)
{
    terse_distance_sum total = {0};
    const int64_t chunk = 256;
    for (int64_t first = 0; first < t->n_held; first += chunk) {
        terse_distance_sum sum;
        const int64_t n = t->n_held - first < chunk ? t->n_held - first : chunk;
        const int status =
            terse_lanes_run(&t->lanes, t->order + t->n_train + first, n, false, 0, t->held + first, &sum, error);
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

/* By how many standard errors held-out samples are farther than they were at the least, sample by sample: what differs
 * between samples, which is much more, does not count. */
static double farther(const terse_trainer *t)
{
    const double n = (double)t->n_held;
    double mean = 0, square = 0;
    for (int64_t i = 0; i < t->n_held; i++)
        mean += (t->held[i] - t->state.least[i]) / n;
    for (int64_t i = 0; i < t->n_held; i++) {
        const double d = t->held[i] - t->state.least[i] - mean;
        square += d * d;
    }
    return n < 2 ? (double)INFINITY : mean / sqrt(square / (n * (n - 1)) + 1e-30);
}

static void take(terse_trainer *t, double agreement, double divergence)
{
    const terse_parameters *p = &t->parameters;
    memcpy(t->state.best, p->weights, (size_t)p->n_numbers * sizeof(float));
    memcpy(t->state.best + p->n_numbers, p->running, (size_t)p->n_statistic_numbers * sizeof(float));
    t->state.marks.best_agreement = agreement;
    t->state.marks.best_divergence = divergence;
}

bool terse_trainer_keep(terse_trainer *t, double agreement, double divergence, double tolerance)
{
    terse_train_marks *m = &t->state.marks;
    const bool least = divergence < m->least_divergence;
    if (!least && !(tolerance > 0 && isfinite(divergence) && farther(t) < tolerance))
        return false;
    take(t, agreement, divergence);
    if (least) {
        m->least_divergence = divergence;
        memcpy(t->state.least, t->held, (size_t)t->n_held * sizeof *t->held);
    }
    return true;
}

void terse_trainer_use_averages(terse_trainer *t)
{
    if (t->options.average > 0)
        terse_parameters_swap(&t->parameters);
    terse_parameters_round(t->student, &t->parameters);
}

static int finish_epoch(terse_trainer *t, terse_error *error)
{
    terse_train_marks *m = &t->state.marks;
    double agreement, divergence;
    terse_trainer_use_averages(t);
    const int status = terse_trainer_evaluate(t, &agreement, &divergence, error);
    if (status != TERSE_OK)
        return status;
    /* With few samples held out agreement is mostly luck, and of divergence much: what has been trained for longer is
     * kept unless they are sure that it is worse. */
    const bool agrees = agreement > m->most_agreement,
               better = terse_trainer_keep(t, agreement, divergence, t->options.tolerance);
    m->most_agreement = agrees ? agreement : m->most_agreement;
    terse_trainer_use_averages(t);
    m->bad_epochs = better || agrees ? 0 : m->bad_epochs + 1;
    m->good_share = better || agrees ? terse_trainer_done_share(t) : m->good_share;
    m->epoch++;
    m->seconds = elapsed(t);
    t->early = terse_trainer_is_enough(t);
    terse_trainer_slow_down(t);
    t->progress.evaluated = true;
    t->progress.agreement = agreement;
    t->progress.divergence = divergence;
    t->progress.epoch = m->epoch;
    terse_trainer_tell(t, true);
    return t->options.checkpoint ? terse_checkpoint_write(t->options.checkpoint, &t->state, error) : TERSE_OK;
}

int terse_trainer_step(terse_trainer *t, const int64_t *batch, uint64_t key, double rate, double *ret_loss,
                       terse_error *error)
{
    terse_train_marks *m = &t->state.marks;
    terse_distance_sum sum;
    terse_parameters_round(t->student, &t->parameters);
    const int status = terse_lanes_run(&t->lanes, batch, t->options.batch, true, key, NULL, &sum, error);
    if (status != TERSE_OK)
        return status;
    m->step++;
    terse_parameters_step(&t->parameters, m->step, rate, t->options.decay, t->options.clip);
    if (t->options.average > 0)
        terse_parameters_average(&t->parameters, m->step, t->options.average);
    *ret_loss = sum.loss;
    return TERSE_OK;
}

static int run_epoch(terse_trainer *t, int64_t *order, terse_error *error)
{
    terse_train_marks *m = &t->state.marks;
    const int64_t steps = t->n_train / t->options.batch;
    const uint64_t key = terse_lanes_random(t->options.seed ^ (uint64_t)(m->epoch + 1) << 20);
    memcpy(order, t->order, (size_t)t->n_train * sizeof *order);
    terse_trainer_shuffle(order, t->n_train, key);
    t->progress.steps = steps;
    t->progress.loss = 0;
    for (int64_t s = 0; s < steps && !t->stopped; s++) {
        double loss = 0;
        const uint64_t began = terse_now_ns();
        const double share = terse_trainer_done_share(t);
        if (terse_trainer_is_late(t, 1))
            break;
        const int status = terse_trainer_step(t, order + s * t->options.batch, key ^ (uint64_t)(s + 1) << 40,
                                              terse_trainer_rate(&t->options, share) * m->rate, &loss, error);
        if (status != TERSE_OK)
            return status;
        m->train_seconds += (double)(terse_now_ns() - began) * 1e-9;
        m->trained_samples += (double)t->options.batch;
        t->progress.step = s + 1;
        t->progress.loss += (loss - t->progress.loss) / (double)(s + 1);
        terse_trainer_tell(t, false);
    }
    return t->stopped ? TERSE_OK : finish_epoch(t, error);
}

static int begin(terse_trainer *t, int64_t *order, terse_error *error)
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
            t->early = m->epoch > 0 && terse_trainer_is_enough(t);
            terse_trainer_tell(t, true);
            return status;
        }
    }
    const int status = terse_trainer_evaluate(t, &m->agreement_before, &m->divergence_before, error);
    m->most_agreement = m->agreement_before;
    m->least_divergence = (double)INFINITY;
    memcpy(t->parameters.averaged, t->parameters.weights, (size_t)t->parameters.n_numbers * sizeof(float));
    take(t, m->agreement_before, m->divergence_before);
    terse_trainer_keep(t, m->agreement_before, m->divergence_before, 0);
    terse_trainer_tell(t, true);
    return status == TERSE_OK ? terse_trainer_find_rate(t, order, error) : status;
}

static bool goes_on(const terse_trainer *t)
{
    const terse_train_options *o = &t->options;
    return !t->stopped && !t->early && (o->epochs == 0 || t->state.marks.epoch < o->epochs) &&
           (o->stop == 0 || t->state.marks.epoch < o->stop) && !terse_trainer_is_late(t, 1);
}

static int train(terse_trainer *t, terse_error *error)
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

static void list_frozen(const terse_trainer *t, terse_train_summary *to)
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

static void summarize(const terse_trainer *t, terse_train_summary *to)
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
    terse_trainer t = {.report = report, .context = context};
    int status = terse_trainer_take_options(&t, options, error);
    if (status == TERSE_OK)
        status = terse_trainer_prepare(&t, teacher, student, data, error);
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
