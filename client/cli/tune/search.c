/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/tune/search.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* EQUAL: estimates that differ by less are equal. */
#define EQUAL 0.99
#define GAINED 1.02
#define FAR_BELOW 0.75
#define SWEEP_TIME 0.60
#define FINAL_TIME 0.86
#define WALK_TIME 0.94
enum { MOST_TRIALS = 14, MOST_ROUNDS = 40, LEAST_ROUNDS = 5, SETTLING = 2 };
#define LEAST_RATE 0.2

typedef struct search {
    const terse_tune_space *space;
    const terse_tune_means *means;
    terse_tune_found *found;
    double calibration; /* what the last settings reached by what the curve lets one expect */
    terse_error *error;
} search;

static bool same(const terse_tune_setting *a, const terse_tune_setting *b)
{
    return a->workers == b->workers && a->max_batch == b->max_batch && a->timeout_us == b->timeout_us;
}

static terse_tune_point *point_of(search *s, const terse_tune_setting *setting)
{
    terse_tune_found *found = s->found;
    for (unsigned i = 0; i < found->n_points; i++)
        if (same(&found->points[i].setting, setting))
            return &found->points[i];
    if (found->n_points == TERSE_TUNE_POINTS)
        return NULL;
    terse_tune_point *point = &found->points[found->n_points++];
    *point = (terse_tune_point){.setting = *setting, .failed = INFINITY};
    return point;
}

static bool out_of(search *s, double part)
{
    const bool over = s->means->spent(s->means->context) >= part;
    s->found->out_of_time = s->found->out_of_time || over;
    return over;
}

static int keep(search *s, const terse_tune_trial *trial)
{
    terse_tune_found *found = s->found;
    if (found->n_trials == found->room) {
        const size_t room = found->room ? found->room * 2 : 256;
        terse_tune_trial *more = realloc(found->trials, room * sizeof *more);
        if (!more)
            return terse_fail(s->error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu trials", room);
        found->trials = more;
        found->room = room;
    }
    found->trials[found->n_trials++] = *trial;
    return TERSE_OK;
}

static int try_once(search *s, terse_tune_point *point, double rate, bool *ret_passed)
{
    terse_tune_trial trial = {0};
    int status = s->means->measure(s->means->context, &point->setting, rate, &trial, s->error);
    if (status)
        return status;
    trial.setting = point->setting;
    trial.offered = rate;
    point->trials++;
    status = keep(s, &trial);
    if (status)
        return status;
    if (trial.passed && rate > point->held) {
        point->held = rate;
        point->best = trial;
    }
    *ret_passed = trial.passed;
    if (s->means->tell)
        s->means->tell(s->means->context, s->found);
    return TERSE_OK;
}

/* One that fails may have failed by mischance. */
static int try_twice(search *s, terse_tune_point *point, double rate, bool *ret_passed)
{
    const int status = try_once(s, point, rate, ret_passed);
    return status || *ret_passed ? status : try_once(s, point, rate, ret_passed);
}

/* What the curve lets one expect: all workers busy with full batches. */
static double expected(const search *s, const terse_tune_setting *setting)
{
    const terse_cost_line *line = &s->space->line;
    const double us = line->a_us + line->b_us * setting->max_batch;
    return (double)setting->workers * setting->max_batch / fmax(us, 1) * 1e6 / s->space->rows;
}

static const terse_tune_point *best_of(const terse_tune_found *found)
{
    const terse_tune_point *best = NULL;
    for (unsigned i = 0; i < found->n_points; i++)
        if (!best || found->points[i].estimate > best->estimate)
            best = &found->points[i];
    return best;
}

/* Closes in on the highest rate of a setting from both sides. */
static int close_in(search *s, terse_tune_point *point)
{
    const terse_tune_point *best = best_of(s->found);
    const double hopeless = fmax(best ? best->estimate * 0.4 : 0, LEAST_RATE);
    const bool first = s->found->n_points == 1 && s->space->first_rate > 0;
    double low = 0, high = INFINITY;
    double rate = first ? s->space->first_rate : fmax(expected(s, &point->setting) * s->calibration, LEAST_RATE);
    for (int i = 0; i < MOST_TRIALS; i++) {
        bool passed = false;
        const int status = try_twice(s, point, rate, &passed);
        if (status)
            return status;
        if (passed)
            low = rate;
        else
            high = rate;
        if ((low > 0 && high / low <= s->space->tolerance) || (low == 0 && rate <= hopeless))
            break;
        const double spent = s->space->exhaustive ? 0 : s->means->spent(s->means->context);
        if (spent >= (best && best->estimate > 0 ? FINAL_TIME : low > 0 ? 1 : s->space->patience)) {
            s->found->out_of_time = true;
            break;
        }
        /* From far away in large strides: the first guess knows the batches, not the rest of the way. */
        if (isinf(high))
            rate *= i < 2 ? 1.3 : 2;
        else if (low > 0)
            rate = sqrt(low * high);
        else
            rate /= i < 1 ? 1.3 : spent > 0.5 ? 5 : 2.5;
        rate = fmax(rate, LEAST_RATE);
    }
    point->failed = high;
    point->estimate = low == 0 ? 0 : isinf(high) ? low : sqrt(low * high);
    if (low > 0)
        s->calibration = point->estimate / expected(s, &point->setting);
    return TERSE_OK;
}

static int sweep_one(search *s, uint32_t workers, uint32_t batch, uint64_t timeout_us, terse_tune_point **ret_point)
{
    const terse_tune_setting setting = {workers, batch, timeout_us};
    terse_tune_point *point = point_of(s, &setting);
    if (!point)
        return terse_fail(s->error, TERSE_INTERNAL, "more than %d settings", TERSE_TUNE_POINTS);
    const int status = point->trials ? TERSE_OK : close_in(s, point);
    if (ret_point)
        *ret_point = point;
    return status;
}

static void add_why(terse_tune_found *found, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_why(terse_tune_found *found, const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const size_t used = strlen(found->why);
    snprintf(found->why + used, sizeof found->why - used, "%s%s", used ? "; " : "", text);
}

/* With all workers and no waiting: batches from large to small, until they answer clearly less. */
static int sweep_batches(search *s, uint32_t workers)
{
    int below = 0; /* in a row: one may have had bad luck */
    for (unsigned i = s->space->n_batches; i-- > 0;) {
        terse_tune_point *point = NULL;
        if (s->found->n_points > 0 && out_of(s, SWEEP_TIME))
            break;
        const int status = sweep_one(s, workers, s->space->batches[i], s->space->timeouts[0], &point);
        if (status)
            return status;
        const double best = best_of(s->found)->estimate;
        below = point->estimate > 0 && point->estimate < best * FAR_BELOW ? below + 1 : 0;
        if (below == 2 && i > 0) {
            add_why(s->found, "no batches below %u rows: those answer less the smaller they are",
                    point->setting.max_batch);
            break;
        }
    }
    return TERSE_OK;
}

static unsigned index_of(const terse_tune_space *space, uint32_t batch)
{
    unsigned i = 0;
    while (i + 1 < space->n_batches && space->batches[i] != batch)
        i++;
    return i;
}

/* Fewer workers, around the batch that was the best with more. */
static int sweep_workers(search *s)
{
    double above = best_of(s->found)->estimate;
    for (unsigned w = s->space->n_workers - 1; w-- > 0;) {
        const unsigned middle = index_of(s->space, best_of(s->found)->setting.max_batch);
        static const int around[] = {0, 1, -1};
        double best = 0;
        for (int k = 0; k < 3; k++) {
            terse_tune_point *point = NULL;
            const int64_t i = (int64_t)middle + around[k];
            if (i < 0 || i >= s->space->n_batches)
                continue;
            if (out_of(s, SWEEP_TIME))
                return TERSE_OK;
            const int status = sweep_one(s, s->space->workers[w], s->space->batches[i], s->space->timeouts[0], &point);
            if (status)
                return status;
            best = fmax(best, point->estimate);
            if (k == 0 && best < above * 0.8)
                break; /* neighbours will not make up for that */
        }
        if (best < above * 0.9 && w > 0) {
            add_why(s->found, "fewer than %u workers were not tried: %u were slower already", s->space->workers[w],
                    s->space->workers[w]);
            break;
        }
        above = fmax(above, best);
    }
    return TERSE_OK;
}

/* Waiting for batches to fill, with the best so far, and with the largest batch, which waiting alone can fill. */
static int sweep_timeouts(search *s)
{
    const terse_tune_setting best = best_of(s->found)->setting;
    const uint32_t largest = s->space->batches[s->space->n_batches - 1];
    for (int k = 0; k < (largest > best.max_batch ? 2 : 1); k++) {
        double so_far = best_of(s->found)->estimate;
        int without = 0;
        for (unsigned i = 1; i < s->space->n_timeouts && without < 2; i++) {
            terse_tune_point *point = NULL;
            if (out_of(s, SWEEP_TIME))
                return TERSE_OK;
            const int status = sweep_one(s, best.workers, k ? largest : best.max_batch, s->space->timeouts[i], &point);
            if (status)
                return status;
            without = point->estimate > so_far * GAINED ? 0 : without + 1;
            so_far = fmax(so_far, point->estimate);
        }
    }
    return TERSE_OK;
}

static int by_estimate(const void *a, const void *b)
{
    const terse_tune_point *x = *(terse_tune_point *const *)a, *y = *(terse_tune_point *const *)b;
    return x->estimate < y->estimate ? 1 : x->estimate > y->estimate ? -1 : 0;
}

/* Waiting that gains nothing over the same setting without it is no further candidate. */
static bool waits_for_nothing(const terse_tune_found *found, const terse_tune_point *point)
{
    for (unsigned i = 0; point->setting.timeout_us > 0 && i < found->n_points; i++) {
        const terse_tune_point *other = &found->points[i];
        if (other->setting.workers == point->setting.workers && other->setting.max_batch == point->setting.max_batch &&
            other->setting.timeout_us < point->setting.timeout_us && other->estimate * 1.04 >= point->estimate)
            return true;
    }
    return false;
}

static unsigned pick_finalists(terse_tune_found *found, terse_tune_point *ret[TERSE_TUNE_FINALISTS])
{
    terse_tune_point *all[TERSE_TUNE_POINTS];
    unsigned n = 0;
    for (unsigned i = 0; i < found->n_points; i++)
        all[i] = &found->points[i];
    qsort(all, found->n_points, sizeof all[0], by_estimate);
    for (unsigned i = 0; n < TERSE_TUNE_FINALISTS && i < found->n_points; i++) {
        if (all[i]->estimate < all[0]->estimate * 0.82 || all[i]->estimate <= 0)
            break;
        if (waits_for_nothing(found, all[i]))
            continue;
        ret[n] = all[i];
        ret[n]->finalist = true;
        ret[n]->level = ret[n]->estimate;
        n++;
    }
    return n;
}

/* Leaves out who cannot win any more: far below the best after the staircases have settled. */
static bool hopeless(const terse_tune_point *point, double best)
{
    return point->steps >= LEAST_ROUNDS && point->estimate < best * 0.86;
}

static int play_finals(search *s)
{
    static const double strides[] = {1.10, 1.07, 1.05, 1.04, 1.04, 1.03};
    terse_tune_point *finalists[TERSE_TUNE_FINALISTS];
    terse_tune_found *found = s->found;
    const unsigned n = pick_finalists(found, finalists);
    const unsigned most = n > 1 ? MOST_ROUNDS : LEAST_ROUNDS;
    for (unsigned round = 0; round < most; round++) {
        const double best = best_of(found)->estimate;
        for (unsigned i = 0; i < n; i++) {
            terse_tune_point *point = finalists[(i + round) % n];
            bool passed = false;
            const double spent = s->means->spent(s->means->context);
            if ((round >= LEAST_ROUNDS && spent >= FINAL_TIME) || spent >= 1)
                return TERSE_OK;
            if (hopeless(point, best))
                continue;
            const int status = try_twice(s, point, point->level, &passed);
            if (status)
                return status;
            const double stride = strides[round < 5 ? round : 5];
            point->level = passed ? point->level * stride : point->level / stride;
            if (round >= SETTLING) {
                point->log_sum += log(point->level);
                point->steps++;
                point->estimate = exp(point->log_sum / point->steps);
            }
        }
        found->rounds = round + 1;
    }
    return TERSE_OK;
}

/* Of finalists that are as good as equal the one with the lowest p99 for what it answers, else the best. */
static void choose(terse_tune_found *found)
{
    const terse_tune_point *best = NULL;
    terse_tune_point *chosen = NULL;
    for (unsigned i = 0; i < found->n_points; i++) {
        terse_tune_point *p = &found->points[i];
        if ((p->finalist || !found->rounds) && p->held > 0 && (!best || p->estimate > best->estimate))
            best = p;
    }
    for (unsigned i = 0; best && i < found->n_points; i++) {
        terse_tune_point *p = &found->points[i];
        if ((p->finalist || !found->rounds) && p->held > 0 && p->estimate >= best->estimate * EQUAL &&
            (!chosen || p->setting.timeout_us < chosen->setting.timeout_us ||
             (p->setting.timeout_us == chosen->setting.timeout_us && p->best.p99_us < chosen->best.p99_us)))
            chosen = p;
    }
    if (chosen)
        chosen->chosen = true;
}

void terse_tune_mark_front(terse_tune_found *found)
{
    for (size_t i = 0; i < found->n_trials; i++) {
        terse_tune_trial *p = &found->trials[i];
        p->front = p->passed;
        for (size_t k = 0; p->front && k < found->n_trials; k++) {
            const terse_tune_trial *q = &found->trials[k];
            if (k != i && q->passed && q->rate >= p->rate && q->p99_us <= p->p99_us &&
                (q->rate > p->rate || q->p99_us < p->p99_us || k < i))
                p->front = false;
        }
    }
}

/* The finalists at lower rates: what is gained in latency by asking for less. */
static int walk_down(search *s)
{
    static const double parts[] = {0.85, 0.7, 0.5, 0.3, 0.1};
    for (size_t r = 0; r < sizeof parts / sizeof parts[0]; r++)
        for (unsigned i = 0; i < s->found->n_points; i++) {
            terse_tune_point *point = &s->found->points[i];
            bool passed;
            if (s->means->spent(s->means->context) >= WALK_TIME)
                return TERSE_OK;
            if (!point->chosen && (!point->finalist || r % 2 == 0))
                continue;
            const int status = try_once(s, point, point->estimate * parts[r], &passed);
            if (status)
                return status;
        }
    return TERSE_OK;
}

static int sweep_all(search *s)
{
    for (unsigned w = 0; w < s->space->n_workers; w++)
        for (unsigned b = 0; b < s->space->n_batches; b++)
            for (unsigned t = 0; t < s->space->n_timeouts; t++) {
                const int status =
                    s->space->batches[b] == 1 && t > 0
                        ? TERSE_OK /* alone: nothing is waited for */
                        : sweep_one(s, s->space->workers[w], s->space->batches[b], s->space->timeouts[t], NULL);
                if (status)
                    return status;
            }
    return TERSE_OK;
}

int terse_tune_search(const terse_tune_space *space, const terse_tune_means *means, terse_tune_found *found,
                      terse_error *error)
{
    search s = {.space = space, .means = means, .found = found, .calibration = 0.5, .error = error};
    const unsigned timeouts = space->n_timeouts - 1;
    found->planned =
        space->exhaustive
            ? space->n_workers * (space->n_batches * space->n_timeouts - (space->batches[0] == 1) * timeouts)
            : space->n_batches + (space->n_workers > 1 ? (space->n_batches > 1 ? 3 : 1) : 0) +
                  (timeouts > 2 ? 4 : 2 * timeouts);
    snprintf(found->why, sizeof found->why, "%s", space->why);
    int status = space->exhaustive ? sweep_all(&s) : sweep_batches(&s, space->workers[space->n_workers - 1]);
    if (!status && !space->exhaustive && best_of(found)->estimate > 0)
        status = sweep_workers(&s);
    if (!status && !space->exhaustive && best_of(found)->estimate > 0)
        status = sweep_timeouts(&s);
    if (!status && best_of(found)->estimate <= 0)
        status = terse_fail(error, TERSE_NOT_FOUND,
                            found->out_of_time ? "nothing that kept the deadline was found in the time that was given"
                                               : "no setting keeps the deadline at any rate");
    if (!status && !space->exhaustive)
        status = play_finals(&s);
    if (!status && s.found->out_of_time)
        add_why(found, "the time was over before all had been tried");
    choose(found);
    if (!status && !space->exhaustive)
        status = walk_down(&s);
    terse_tune_mark_front(found);
    return status;
}

void terse_tune_found_done(terse_tune_found *found)
{
    free(found->trials);
    found->trials = NULL;
}

const terse_tune_point *terse_tune_chosen(const terse_tune_found *found)
{
    for (unsigned i = 0; i < found->n_points; i++)
        if (found->points[i].chosen)
            return &found->points[i];
    return NULL;
}
