/* SPDX-License-Identifier: Apache-2.0 */
/* The search of terse tune played against tables of what each setting can do: made-up ones, and grids that were
 * measured (tests/golden/tune). Trials are noisy and now and then fail by mischance, as on a machine with others. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/cli/tune/search.h"

enum { MOST = 512 };

/* What a setting can do: a function of it, or a row of a table. */
typedef struct table {
    terse_tune_setting settings[MOST];
    double rate[MOST];
    unsigned n;
} table;

typedef struct play {
    const table *table;
    const terse_tune_space *space;
    double noise, mischance; /* standard deviation of the limit; part of trials that fail for no reason */
    uint64_t state;
    double seconds, given; /* a clock of its own */
    unsigned trials, at_most;
} play;

static double uniform(play *p)
{
    p->state ^= p->state >> 12;
    p->state ^= p->state << 25;
    p->state ^= p->state >> 27;
    return (double)(p->state * 0x2545f4914f6cdd1du >> 11) / 9007199254740992.0;
}

static double normal(play *p)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += uniform(p);
    return sum;
}

static double limit_of(const table *t, const terse_tune_setting *s)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->settings[i].workers == s->workers && t->settings[i].max_batch == s->max_batch &&
            t->settings[i].timeout_us == s->timeout_us)
            return t->rate[i];
    fail_msg("workers %u, max_batch %u, timeout %llu is no setting of the table", s->workers, s->max_batch,
             (unsigned long long)s->timeout_us);
    return 0;
}

static int measure(void *context, const terse_tune_setting *setting, double rate, terse_tune_trial *ret,
                   terse_error *error)
{
    play *p = context;
    const double limit = limit_of(p->table, setting) * (1 + p->noise * normal(p));
    if (p->at_most && p->trials >= p->at_most)
        return terse_fail(error, TERSE_CANCELLED, "enough");
    p->trials++;
    p->seconds += 0.8;
    const bool passed = rate <= limit && uniform(p) >= p->mischance;
    *ret =
        (terse_tune_trial){.rate = fmin(rate, limit), .p99_us = passed ? 5000 * rate / limit : 50000, .passed = passed};
    return TERSE_OK;
}

static double spent(void *context)
{
    const play *p = context;
    return p->seconds / p->given;
}

static double best_of(const table *t)
{
    double best = 0;
    for (unsigned i = 0; i < t->n; i++)
        best = fmax(best, t->rate[i]);
    return best;
}

/* The table of a space: every setting by a model of how a daemon behaves. */
typedef struct model {
    terse_cost_line line;
    double deadline_us, overhead_us, cores; /* overhead: of a batch outside of the workers, on the same cores */
} model;

/* Highest rate at which batches of the size that forms are done in time: busy workers, two batches in the deadline. */
static double model_limit(const model *m, const terse_tune_setting *s)
{
    double best = 0;
    for (uint32_t n = 1; n <= s->max_batch; n++) {
        const double us = m->line.a_us + m->line.b_us * n, wait = (double)s->timeout_us + 2.2 * us + m->overhead_us;
        const double busy = us + m->overhead_us * fmin(1, s->workers / m->cores);
        if (wait <= m->deadline_us)
            best = fmax(best, fmin(s->workers, m->cores) * n / busy * 1e6 * 0.93);
    }
    return best;
}

static void fill(const terse_tune_space *space, const model *m, table *t)
{
    t->n = 0;
    for (unsigned w = 0; w < space->n_workers; w++)
        for (unsigned b = 0; b < space->n_batches; b++)
            for (unsigned k = 0; k < space->n_timeouts; k++) {
                t->settings[t->n] = (terse_tune_setting){space->workers[w], space->batches[b], space->timeouts[k]};
                t->rate[t->n] = model_limit(m, &t->settings[t->n]);
                t->n++;
            }
}

/* Plays many seeds; the worst part of the best limit that a recommended setting has. */
static double worst_of(const table *t, const terse_tune_space *space, double noise, double mischance,
                       unsigned *ret_trials)
{
    double worst = 1;
    const double best = best_of(t);
    *ret_trials = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        play p = {.table = t,
                  .space = space,
                  .noise = noise,
                  .mischance = mischance,
                  .state = seed * 0x9e3779b97f4a7c15u,
                  .given = 120};
        const terse_tune_means means = {measure, spent, NULL, &p};
        terse_tune_found found = {0};
        terse_error error = {0};
        if (terse_tune_search(space, &means, &found, &error))
            fail_msg("seed %u: %s", (unsigned)seed, error.message);
        const terse_tune_point *chosen = terse_tune_chosen(&found);
        assert_non_null(chosen);
        const double part = limit_of(t, &chosen->setting) / best;
        if (part < worst)
            worst = part;
        assert_true(fabs(chosen->estimate / limit_of(t, &chosen->setting) - 1) < 0.25);
        *ret_trials = p.trials > *ret_trials ? p.trials : *ret_trials;
        assert_true(p.seconds < 126); /* what was given, and the round that was under way */
        terse_tune_found_done(&found);
    }
    return worst;
}

static void made_up_daemons_get_their_best_setting(void **state)
{
    (void)state;
    const model models[] = {
        {{60, 12}, 10000, 40, 2},    {{0, 5000}, 50000, 40, 2}, {{8000, 150}, 100000, 40, 2},
        {{900, 30}, 20000, 60, 8},   {{20, 3}, 5000, 100, 16},  {{20000, 200}, 100000, 40, 64},
        {{0, 40000}, 500000, 40, 1}, {{100, 100}, 2000, 50, 2},
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        const model *m = &models[i];
        const terse_tune_known known = {.workers = (uint32_t)m->cores,
                                        .cores = (uint32_t)m->cores,
                                        .rows = 1,
                                        .batchable = true,
                                        .line = m->line,
                                        .deadline_us = m->deadline_us};
        terse_tune_space space;
        static table t;
        unsigned trials;
        terse_tune_space_make(&known, &space);
        fill(&space, m, &t);
        const double exact = worst_of(&t, &space, 0, 0, &trials);
        const double noisy = worst_of(&t, &space, 0.03, 0.1, &trials);
        printf("# model %zu: %u settings, at most %u trials; %.3f of the best, with noise %.3f\n", i, t.n, trials,
               exact, noisy);
        assert_true(exact > 0.975);
        assert_true(noisy > 0.95);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_up_daemons_get_their_best_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
