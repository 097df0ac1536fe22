/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FEW_EPOCHS = 5, TRIAL_STEPS = 24, SLOW_EPOCHS = 2, MOST_CUTS = 3 };
static const double cut = 1.0 / 3;     /* of the rate, where it leads nowhere */
static const double last_trial = 0.15; /* of the time: when it is over no further rate is tried */

/* Up linearly, then down as half a cosine. */
double terse_trainer_rate(const terse_train_options *o, double share)
{
    if (share < o->warm_up)
        return o->lr * (share + 1e-3) / (o->warm_up + 1e-3);
    const double rest = (share - o->warm_up) / (1 - o->warm_up);
    return o->lr * 0.5 * (1 + cos(3.14159265358979 * (rest < 1 ? rest : 1)));
}

/* --- patience ------------------------------------------------------------------------------------------------------
 */

bool terse_trainer_is_enough(const terse_trainer *t)
{
    const terse_train_options *o = &t->options;
    return (o->patience > 0 && t->state.marks.bad_epochs >= o->patience) ||
           (o->patience_share > 0 && t->state.marks.bad_epochs >= FEW_EPOCHS &&
            terse_trainer_done_share(t) >= t->state.marks.good_share + o->patience_share);
}

void terse_trainer_slow_down(terse_trainer *t)
{
    const terse_train_options *o = &t->options;
    terse_train_marks *m = &t->state.marks;
    terse_parameters *p = &t->parameters;
    const double since = m->cuts > 0 && m->cut_share > m->good_share ? m->cut_share : m->good_share;
    if (o->patience_share <= 0 || m->bad_epochs < SLOW_EPOCHS ||
        terse_trainer_done_share(t) < since + o->patience_share / MOST_CUTS)
        return;
    const size_t bytes = (size_t)p->n_numbers * sizeof(float);
    memcpy(p->weights, t->state.best, bytes);
    memcpy(p->averaged, t->state.best, bytes);
    memcpy(p->running, t->state.best + p->n_numbers, (size_t)p->n_statistic_numbers * sizeof(float));
    memset(p->first, 0, bytes);
    m->rate *= cut;
    m->cuts++;
    m->cut_share = terse_trainer_done_share(t);
}

/* --- trials --------------------------------------------------------------------------------------------------------
 */

/* Goes on from these weights, as nothing had happened before. */
static void start_from(terse_trainer *t, const float *kept)
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
static int try_rate(terse_trainer *t, int64_t *order, double factor, double *ret_divergence, terse_error *error)
{
    const terse_train_options *o = &t->options;
    const int64_t steps = t->n_train / o->batch;
    double agreement, loss;
    int64_t s = 0;
    int status = TERSE_OK;
    memcpy(order, t->order, (size_t)t->n_train * sizeof *order);
    terse_trainer_shuffle(order, t->n_train, o->seed ^ 0x7261746573u);
    for (; s < TRIAL_STEPS && status == TERSE_OK && !t->stopped && !terse_trainer_is_late(t, 0.25); s++) {
        const double warm = s < TRIAL_STEPS / 4 ? 4 * (double)(s + 1) / TRIAL_STEPS : 1;
        status = terse_trainer_step(t, order + s % steps * o->batch, (uint64_t)(s + 1) << 40, factor * o->lr * warm,
                                    &loss, error);
        t->progress.step = s + 1;
        terse_trainer_tell(t, false);
    }
    *ret_divergence = (double)INFINITY;
    if (status != TERSE_OK || s < TRIAL_STEPS)
        return status;
    terse_trainer_use_averages(t);
    status = terse_trainer_evaluate(t, &agreement, ret_divergence, error);
    if (status == TERSE_OK)
        terse_trainer_keep(t, agreement, *ret_divergence, 0);
    return status;
}

int terse_trainer_find_rate(terse_trainer *t, int64_t *order, terse_error *error)
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
    for (int f = 0; f < 4 && status == TERSE_OK && !t->stopped && (f == 0 || !terse_trainer_is_late(t, last_trial));
         f++) {
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
