/* SPDX-License-Identifier: Apache-2.0 */
/* The last part of a search: networks that lose more than they may are trained until they lose less, or not. How many
 * epochs is decided before, by what a sample takes, and how many there were is kept in the plan: it gives the same
 * bytes again. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "compress/search/search_steps.h"

enum { ATTEMPTS = 6, LEAST_SAMPLES = 16, MIN_EPOCHS = 2, MAX_EPOCHS = 300 };
static const double default_share = 1.0 / 3;
static const double first_aim = 3;  /* times the drop that is allowed: what training should win back */
static const double building = 1.3; /* times what a network took: it is built with what was trained */
static const double steps_per_run =
    12e-6; /* a training step of a sample, beside microseconds of a run, until measured */

double terse_search_training_seconds(const terse_search_goal *g)
{
    if (g->recover_seconds < 0 || terse_goal_by_size(g)) /* codebooks are not trained */
        return 0;
    if (g->recover_seconds > 0)
        return fmin(g->recover_seconds, g->seconds);
    return g->seconds * (g->recover_epochs > 0 ? 0.5 : default_share);
}

bool terse_search_trains(const terse_search_goal *goal)
{
    return terse_search_training_seconds(goal) > 0;
}

typedef struct attempt {
    double pace; /* seconds a sample */
    double seconds;
    int64_t samples;
    bool refused; /* this network cannot be trained */
} attempt;

static double seconds_left(const search *s)
{
    const uint64_t now = terse_now_ns();
    return now < s->deadline ? (double)(s->deadline - now) / 1e9 : 0;
}

static bool is_ended(const search *s)
{
    return s->hooks->stopped && s->hooks->stopped(s->hooks->context);
}

static int64_t epochs_for(const search *s, const attempt *a)
{
    if (s->goal->recover_epochs > 0)
        return s->goal->recover_epochs;
    const double epochs = a->seconds / (a->pace * (double)a->samples + 1e-9);
    return epochs < MIN_EPOCHS ? MIN_EPOCHS : epochs > MAX_EPOCHS ? MAX_EPOCHS : (int64_t)epochs;
}

/* `before`: the same one untrained, in the book; below 0: it was not built. */
static void note_trained(search *s, int index, int before)
{
    const terse_measured *m = &s->book.measured[index], *was = before >= 0 ? &s->book.measured[before] : NULL;
    const double missed = terse_aim_missed(m->us, terse_search_target_us(s));
    char drop[48] = "", speed[48] = "";
    if (was)
        snprintf(drop, sizeof drop, ", before %.2f", was->drop);
    if (missed > 0)
        snprintf(speed, sizeof speed, ", misses the speed by up to %.0f %%", missed);
    terse_search_note(s, "%.60s: drop %.2f%s%s", was ? was->label : m->label, m->drop, drop, speed);
}

/* Trains that network (`before` as above). What cannot be trained is no failure of the search. */
static int train(search *s, terse_search_plan *plan, const char *label, int before, attempt *a, int *ret_index,
                 terse_error *error)
{
    const int n_before = s->book.n_measured;
    plan->recover_epochs = epochs_for(s, a);
    plan->recover_seconds = a->seconds;
    const int status = terse_search_measure(s, plan, label, OF_TRAINED, ret_index, error);
    a->pace = plan->recover_pace > 0 ? plan->recover_pace : a->pace;
    a->refused = status == TERSE_UNIMPLEMENTED || status == TERSE_INVALID_ARGUMENT;
    if (a->refused)
        snprintf(s->untrained, sizeof s->untrained, "not trained: %.200s", error ? error->message : "");
    if (status == TERSE_OK && s->book.n_measured > n_before) {
        s->n_trained++;
        note_trained(s, *ret_index, before);
    }
    return a->refused ? TERSE_OK : status;
}

static int train_chosen(search *s, const int *chosen, attempt *a, int *ret_index, terse_error *error)
{
    terse_search_plan plan;
    int status = terse_search_plan_of(s, chosen, &plan, error);
    if (status != TERSE_OK)
        return status;
    const bool bytes = s->base.quantize == TERSE_QUANTIZE_INT8;
    bool any = false;
    for (int l = 0; l < s->table.n; l++)
        any = any || chosen[l];
    char label[TERSE_PLAN_LABEL];
    snprintf(label, sizeof label, "%s%s, trained", bytes ? "int8, " : "", any ? "all together" : "channels");
    status = train(s, &plan, label, -1, a, ret_index, error);
    terse_search_plan_done(&plan);
    return status;
}

/* Is there time for one more? A network is built and trained in it. */
static bool take_time(const search *s, attempt *a, double share)
{
    a->seconds = share * seconds_left(s) - building * s->build_seconds;
    const double least = s->goal->recover_epochs > 0 ? 0 : MIN_EPOCHS * a->pace * (double)a->samples;
    return !is_ended(s) && !a->refused && a->seconds > 0.1 && a->seconds >= least;
}

/* Lighter ones than the best, that lose as much more as training should win back; by what it did, the next. */
static int reach_by_training(search *s, int *chosen, attempt *a, terse_error *error)
{
    const double allowed = fmax(s->goal->max_drop, 0.1);
    const double all = terse_search_predict(s, chosen);
    double low = terse_search_lightest(s, EVERY_KIND), high = all, aim = first_aim;
    int status = TERSE_OK;
    for (int i = 0;
         i < ATTEMPTS && status == TERSE_OK && !terse_aim_is_same(low, high, all) && take_time(s, a, i ? 0.85 : 0.5);
         i++) {
        double total;
        int index = -1;
        status = terse_search_total_for(s, EVERY_KIND, aim * allowed, low, high, chosen, &total, error);
        if (status == TERSE_OK && terse_aim_is_same(total, high, all))
            break; /* nothing lighter loses so little */
        if (status == TERSE_OK)
            status = train_chosen(s, chosen, a, &index, error);
        if (status != TERSE_OK || a->refused)
            break;
        const double drop = s->book.measured[index].drop;
        if (terse_search_meets(s, &s->book.measured[index])) {
            high = total;
            aim *= fmin(2, fmax(1.2, 0.9 * allowed / fmax(drop, 0.1 * allowed)));
        } else {
            low = total;
            aim /= fmin(2.5, fmax(1.25, drop / allowed));
        }
    }
    return status;
}

/* One of those that are as fast as is asked for, or nearly. What was measured for its kernels was so for weights, and
 * perhaps channels, that training changes. */
static int train_candidate(search *s, const search_candidate *c, attempt *a, terse_error *error)
{
    terse_search_plan plan;
    int status = terse_search_plan_copy(&c->plan, &plan, error), index = -1;
    if (status != TERSE_OK)
        return status;
    char label[TERSE_PLAN_LABEL];
    snprintf(label, sizeof label, "%.80s, trained", s->book.measured[c->index].label);
    plan.n_tuned = 0;
    plan.is_tuned = false;
    status = train(s, &plan, label, c->index, a, &index, error);
    terse_search_plan_done(&plan);
    return status;
}

/* The most promising ones, as many as there is time for. What is told of it is so when training begins: the search may
 * go on behind it. */
static int train_candidates(search *s, attempt *a, terse_error *error)
{
    const int turns = terse_search_pool_turns(s);
    const bool near = turns > 0 && s->book.measured[s->pool[0].index].us > terse_search_target_us(s);
    int status = TERSE_OK;
    if (turns == 0)
        terse_search_note(
            s, "none: when training began nothing that loses something was as fast as is asked for, or nearly");
    for (int i = 0; i < turns && status == TERSE_OK && !a->refused; i++) {
        const int n = terse_aim_divide(0.9 * seconds_left(s), building * s->build_seconds, a->pace * (double)a->samples,
                                       s->goal->recover_epochs, turns - i);
        if (!take_time(s, a, 0.9 / n)) {
            if (i == 0)
                terse_search_note(s, "none: too little time was left for it");
            break;
        }
        status = train_candidate(s, &s->pool[i], a, error);
        if (near && i == 0 && s->n_trained > 0)
            terse_search_note(s, "nothing was as fast as is asked for when training began: these missed it by little");
    }
    return status;
}

/* What an earlier search has trained. */
static int take_trained(search *s, terse_error *error)
{
    if (!s->in->known || s->in->known->recover_epochs == 0)
        return TERSE_OK;
    terse_search_plan plan;
    int index;
    int status = terse_search_plan_copy(s->in->known, &plan, error);
    if (status == TERSE_OK)
        status = terse_search_measure(s, &plan, "trained before", OF_TRAINED, &index, error);
    terse_search_plan_done(&plan);
    return status;
}

/* That weights are fitted to; also where there was no time for a table. */
static int64_t count_samples(const search *s)
{
    terse_samples f = {0};
    if (s->table.n > 0)
        return terse_table_samples(&s->table);
    const int64_t n = terse_samples_open(s->in->imported, s->in->fit, &f, NULL) == TERSE_OK ? f.samples : 0;
    terse_samples_done(&f);
    return n;
}

int terse_search_train(search *s, terse_error *error)
{
    TERSE_AUTO(terse_freep) int *chosen = calloc((size_t)s->table.n + 1, sizeof *chosen);
    attempt a = {.pace = steps_per_run * fmax(1, s->book.measured[0].us) / (double)s->goal->batch,
                 .samples = count_samples(s)};
    if (!chosen)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    if (!terse_search_trains(s->goal) || is_ended(s))
        return TERSE_OK;
    if (a.samples < LEAST_SAMPLES && s->goal->recover_epochs == 0 && s->goal->recover_seconds == 0) {
        snprintf(s->untrained, sizeof s->untrained, "none: %" PRId64 " samples are too few to train on", a.samples);
        return TERSE_OK;
    }
    int status = take_trained(s, error);
    terse_search_choices_of_best(s, chosen);
    const bool for_speed = terse_search_target_us(s) > 0;
    if (status != TERSE_OK)
        return status;
    if (!for_speed && s->table.n == 0)
        return TERSE_OK; /* what is best loses no more than it may */
    if (!for_speed)
        return reach_by_training(s, chosen, &a, error);
    return s->best.recover_epochs == 0 ? train_candidates(s, &a, error) : TERSE_OK;
}
