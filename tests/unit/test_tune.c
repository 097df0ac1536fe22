/* SPDX-License-Identifier: Apache-2.0 */
/* The search of terse tune played against tables of what each setting can do: made-up ones, and grids that were
 * measured (tests/golden/tune_*.tsv). Trials are noisy and now and then fail by mischance, as on a machine with others.
 */
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
static unsigned misses; /* of the last worst_of: plays that came out below 95 % */

static double worst_of(const table *t, const terse_tune_space *space, double noise, double mischance,
                       unsigned *ret_trials)
{
    double worst = 1;
    const double best = best_of(t);
    *ret_trials = misses = 0;
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
        misses += part < 0.95;
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

/* A grid that was measured: every combination of what the space then has. */
static bool read_grid(const char *name, terse_tune_space *space, table *t)
{
    char path[256], line[256];
    double deadline_us = 0;
    snprintf(path, sizeof path, "tests/golden/tune_%s.tsv", name);
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("cannot open %s", path);
    *space = (terse_tune_space){.rows = 1, .tolerance = 1.1, .patience = 1.4};
    t->n = 0;
    while (fgets(line, sizeof line, file)) {
        terse_tune_setting s = {0};
        double rate;
        if (*line == '#' || sscanf(line, "deadline_us\t%lf", &deadline_us) == 1 ||
            sscanf(line, "cost_us\t%lf\t%lf", &space->line.a_us, &space->line.b_us) == 2)
            continue;
        assert_int_equal(sscanf(line, "%u\t%u\t%lu\t%lf", &s.workers, &s.max_batch, &s.timeout_us, &rate), 4);
        assert_true(t->n < MOST);
        t->settings[t->n] = s;
        t->rate[t->n++] = rate;
    }
    fclose(file);
    return deadline_us > 0 && space->line.b_us > 0 && t->n > 0;
}

/* The numbers of one column, ascending. */
static unsigned column(const table *t, uint64_t of(const terse_tune_setting *), uint64_t *ret, unsigned room)
{
    unsigned n = 0;
    for (unsigned i = 0; i < t->n; i++) {
        const uint64_t value = of(&t->settings[i]);
        unsigned at = 0;
        while (at < n && ret[at] < value)
            at++;
        if (at < n && ret[at] == value)
            continue;
        assert_true(n < room);
        memmove(ret + at + 1, ret + at, (n - at) * sizeof *ret);
        ret[at] = value;
        n++;
    }
    return n;
}

static uint64_t workers_of(const terse_tune_setting *s)
{
    return s->workers;
}

static uint64_t batch_of(const terse_tune_setting *s)
{
    return s->max_batch;
}

static uint64_t timeout_of(const terse_tune_setting *s)
{
    return s->timeout_us;
}

/* What was measured on a machine of two cores: the setting that the search recommends has at least 95 % of the rate of
 * the best one; in 57 of 60 plays at least where trials scatter by 3 % and one of twenty fails for no reason. */
static void measured_grids_are_searched_as_well_as_if_all_had_been_tried(void **state)
{
    (void)state;
    static const char *const names[] = {"mlp", "squeezenet", "steep"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        terse_tune_space space;
        static table t;
        uint64_t list[16];
        unsigned trials;
        assert_true(read_grid(names[i], &space, &t));
        space.n_workers = column(&t, workers_of, list, TERSE_TUNE_WORKERS);
        for (unsigned k = 0; k < space.n_workers; k++)
            space.workers[k] = (uint32_t)list[k];
        space.n_batches = column(&t, batch_of, list, TERSE_TUNE_BATCHES);
        for (unsigned k = 0; k < space.n_batches; k++)
            space.batches[k] = (uint32_t)list[k];
        space.n_timeouts = column(&t, timeout_of, space.timeouts, TERSE_TUNE_TIMEOUTS);
        const double exact = worst_of(&t, &space, 0, 0, &trials);
        const double noisy = worst_of(&t, &space, 0.03, 0.05, &trials);
        printf("# %s: %u settings, at most %u trials; %.3f of the best, with noise %.3f\n", names[i], t.n, trials,
               exact, noisy);
        printf("# %u of 60 plays came out below 0.95\n", misses);
        assert_true(exact >= 0.95);
        assert_true(noisy >= 0.92);
        assert_true(misses <= 3);
    }
}

static terse_tune_space space_of(uint32_t workers, uint32_t rows, terse_cost_line line, double deadline_us)
{
    const terse_tune_known known = {.workers = workers,
                                    .cores = workers,
                                    .rows = rows,
                                    .batchable = true,
                                    .line = line,
                                    .deadline_us = deadline_us};
    terse_tune_space space;
    terse_tune_space_make(&known, &space);
    return space;
}

static void a_space_has_what_can_be_worth_trying(void **state)
{
    (void)state;
    const terse_cost_line steep = {5000, 100};
    terse_tune_space space = space_of(12, 1, steep, 100000);
    static const uint32_t workers[] = {1, 2, 4, 8, 12};
    assert_int_equal(space.n_workers, 5);
    assert_memory_equal(space.workers, workers, sizeof workers);
    /* two batches of 256 take 61 ms, of 512 112 ms; the time of a row falls by more than 2 % up to there */
    assert_int_equal(space.batches[space.n_batches - 1], 256);
    assert_non_null(strstr(space.why, "longer than the deadline"));
    assert_int_equal(space.timeouts[0], 0);
    for (unsigned i = 1; i < space.n_timeouts; i++)
        assert_true(space.timeouts[i] > space.timeouts[i - 1] && space.timeouts[i] <= 50000);
    space = space_of(2, 1, (terse_cost_line){0, 1000}, 1e6);
    assert_non_null(strstr(space.why, "would save less"));
    assert_true(space.batches[space.n_batches - 1] <= 2);
    space = space_of(2, 48, steep, 1e6); /* requests of 48 rows: smaller batches refuse them */
    assert_true(space.batches[0] >= 48);
    const terse_tune_known alone = {.workers = 3, .cores = 2, .rows = 1, .line = steep, .deadline_us = 1e6};
    terse_tune_space_make(&alone, &space);
    assert_true(space.n_batches == 1 && space.batches[0] == 1 && space.n_timeouts == 1);
    assert_int_equal(space.workers[space.n_workers - 1], 3);
    space = space_of(4096, 1, steep, 1e6); /* more than there is room for: the small end gives way */
    assert_int_equal(space.workers[space.n_workers - 1], 4096);
}

static void lists_restrict_a_space(void **state)
{
    (void)state;
    terse_tune_space space = space_of(4, 1, (terse_cost_line){100, 10}, 20000);
    terse_error error = {0};
    assert_int_equal(terse_tune_space_restrict(&space, "2", "1,8,32", "0,70", &error), TERSE_OK);
    assert_true(space.n_workers == 1 && space.workers[0] == 2 && space.n_batches == 3 && space.batches[2] == 32);
    assert_true(space.n_timeouts == 2 && space.timeouts[1] == 70);
    static const char *const bad[] = {"",
                                      ",",
                                      "1,",
                                      "2,1",
                                      "1,1",
                                      "0",
                                      "257",
                                      "-1",
                                      " 1",
                                      "1x",
                                      "1;2",
                                      "1,2,3,4,5,6,7,8,9,10,11,12,13",
                                      "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(terse_tune_space_restrict(&space, bad[i], NULL, NULL, &error), TERSE_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, "--workers is"));
    }
    assert_int_equal(terse_tune_space_restrict(&space, NULL, "2000", NULL, &error), TERSE_INVALID_ARGUMENT);
    assert_int_equal(terse_tune_space_restrict(&space, NULL, NULL, "10000001", &error), TERSE_INVALID_ARGUMENT);
}

static void what_no_setting_can_keep_is_told(void **state)
{
    (void)state;
    const terse_tune_space space = space_of(2, 1, (terse_cost_line){100, 10}, 20000);
    static table t;
    const model nothing = {{1e9, 1e9}, 1, 0, 2};
    fill(&space, &nothing, &t);
    play p = {.table = &t, .space = &space, .state = 1, .given = 120};
    const terse_tune_means means = {measure, spent, NULL, &p};
    terse_tune_found found = {0};
    terse_error error = {0};
    assert_int_equal(terse_tune_search(&space, &means, &found, &error), TERSE_NOT_FOUND);
    assert_null(terse_tune_chosen(&found));
    terse_tune_found_done(&found);
    /* An error of a trial is the search's. */
    const model some = {{100, 10}, 20000, 0, 2};
    fill(&space, &some, &t);
    p = (play){.table = &t, .space = &space, .state = 1, .given = 120, .at_most = 7};
    found = (terse_tune_found){0};
    assert_int_equal(terse_tune_search(&space, &means, &found, &error), TERSE_CANCELLED);
    assert_int_equal(found.n_trials, 7);
    terse_tune_found_done(&found);
}

static void the_front_is_what_no_other_trial_beats(void **state)
{
    (void)state;
    terse_tune_trial trials[] = {
        {.rate = 100, .p99_us = 50, .passed = true}, {.rate = 200, .p99_us = 60, .passed = true},
        {.rate = 150, .p99_us = 70, .passed = true}, {.rate = 300, .p99_us = 10, .passed = false},
        {.rate = 200, .p99_us = 60, .passed = true}, {.rate = 90, .p99_us = 50, .passed = true},
        {.rate = 210, .p99_us = 99, .passed = true},
    };
    static const bool wanted[] = {true, true, false, false, false, false, true};
    terse_tune_found found = {.trials = trials, .n_trials = sizeof trials / sizeof trials[0]};
    terse_tune_mark_front(&found);
    for (size_t i = 0; i < found.n_trials; i++)
        assert_int_equal(trials[i].front, wanted[i]);
}

static void every_combination_is_tried_when_that_is_asked_for(void **state)
{
    (void)state;
    terse_tune_space space = space_of(2, 1, (terse_cost_line){100, 10}, 20000);
    const model m = {{100, 10}, 20000, 40, 2};
    static table t;
    fill(&space, &m, &t);
    space.exhaustive = true;
    play p = {.table = &t, .space = &space, .state = 1, .given = 1};
    const terse_tune_means means = {measure, spent, NULL, &p};
    terse_tune_found found = {0};
    terse_error error = {0};
    assert_int_equal(terse_tune_search(&space, &means, &found, &error), TERSE_OK);
    assert_int_equal(found.n_points, found.planned);
    assert_int_equal(found.n_points, 2 * ((space.n_batches - 1) * space.n_timeouts + 1));
    for (unsigned i = 0; i < found.n_points; i++) {
        const double limit = limit_of(&t, &found.points[i].setting), part = found.points[i].estimate / limit;
        assert_true(limit == 0 || (part > 0.9 && part < 1.1) || limit < best_of(&t) * 0.4);
    }
    assert_true(limit_of(&t, &terse_tune_chosen(&found)->setting) > best_of(&t) * 0.93);
    terse_tune_found_done(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_up_daemons_get_their_best_setting),
        cmocka_unit_test(measured_grids_are_searched_as_well_as_if_all_had_been_tried),
        cmocka_unit_test(a_space_has_what_can_be_worth_trying),
        cmocka_unit_test(lists_restrict_a_space),
        cmocka_unit_test(what_no_setting_can_keep_is_told),
        cmocka_unit_test(the_front_is_what_no_other_trial_beats),
        cmocka_unit_test(every_combination_is_tried_when_that_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
