/* SPDX-License-Identifier: Apache-2.0 */
/* test_batcher.c: the batcher's decisions as a table, and the cost curve that it reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/frontend/batcher.h"

#define MS UINT64_C(1000000)
#define NONE UINT64_MAX

/* Curves: nothing known; t(n) = n ms; t(n) = 1 us whatever n; t(n) = 3 + n ms. */
typedef enum curve { UNKNOWN, PER_ROW, TINY, AFFINE } curve;

static terse_cost cost_of(curve which)
{
    terse_cost cost = {0};
    for (uint32_t rows = 1; which != UNKNOWN && rows <= 64; rows *= 2)
        terse_cost_learn(&cost, rows, which == PER_ROW ? rows * MS : which == TINY ? 1000 : (3 + rows) * MS);
    return cost;
}

typedef struct row {
    const char *says;
    curve cost;
    uint64_t rows;
    uint32_t max_batch, idle;
    uint64_t left[3]; /* busy workers, 0: no more */
    uint64_t now, oldest, timeout, deadline;
    bool draining;
    uint32_t want_rows;
    terse_batcher_reason want_reason;
    uint64_t want_wake;
} row;

/* clang-format off */
static const row table[] = {
    {"one request on an idle pool runs at once", AFFINE, 1, 32, 2, {0}, 0, 0, 0, NONE, false, 1, TERSE_CLOSE_IDLE, 0},
    {"a burst is spread over idle workers", AFFINE, 10, 32, 2, {0}, 0, 0, 0, NONE, false, 5, TERSE_CLOSE_SPLIT, 0},
    {"a share is rounded up", AFFINE, 11, 32, 2, {0}, 0, 0, 0, NONE, false, 6, TERSE_CLOSE_SPLIT, 0},
    {"without measurements idle workers share", UNKNOWN, 9, 32, 3, {0}, 0, 0, 0, NONE, false, 3, TERSE_CLOSE_SPLIT, 0},
    {"without measurements busy ones do not", UNKNOWN, 9, 32, 1, {1}, 0, 0, 0, NONE, false, 9, TERSE_CLOSE_IDLE, 0},
    {"max_batch bounds", AFFINE, 100, 8, 2, {0}, 0, 0, 0, NONE, false, 8, TERSE_CLOSE_FULL, 0},
    {"exactly full", AFFINE, 8, 8, 1, {0}, 0, 0, 0, NONE, false, 8, TERSE_CLOSE_FULL, 0},
    {"a worker that is done soon gets a share", AFFINE, 10, 32, 1, {1 * MS}, 0, 0, 0, NONE, false, 5,
     TERSE_CLOSE_SPLIT, 0},
    {"one that is done late does not", AFFINE, 10, 32, 1, {9 * MS}, 0, 0, 0, NONE, false, 10, TERSE_CLOSE_IDLE, 0},
    {"only those who are soon enough count", AFFINE, 12, 32, 1, {1 * MS, 50 * MS}, 0, 0, 0, NONE, false, 6,
     TERSE_CLOSE_SPLIT, 0},
    {"a tiny model is not worth a second wake-up", TINY, 10, 32, 2, {0}, 0, 0, 0, NONE, false, 10, TERSE_CLOSE_IDLE, 0},
    {"fixed costs are weighed in", AFFINE, 8, 32, 1, {5 * MS}, 0, 0, 0, NONE, false, 8, TERSE_CLOSE_IDLE, 0},
    {"no batches where max_batch is 1", AFFINE, 10, 1, 2, {0}, 0, 0, 9 * MS, NONE, false, 1, TERSE_CLOSE_IDLE, 0},
    {"held for the timeout", AFFINE, 3, 32, 2, {0}, 5 * MS, 4 * MS, 2 * MS, NONE, false, 0, TERSE_CLOSE_TIMEOUT,
     6 * MS},
    {"the timeout counts from the arrival of the oldest", AFFINE, 3, 32, 1, {0}, 6 * MS, 4 * MS, 2 * MS, NONE, false,
     3, TERSE_CLOSE_TIMEOUT, 0},
    {"a full batch is not held", AFFINE, 32, 32, 1, {0}, 5 * MS, 5 * MS, 9 * MS, NONE, false, 32, TERSE_CLOSE_FULL, 0},
    {"a deadline ends the hold in time to run", TINY, 3, 32, 1, {0}, 1 * MS, 1 * MS, 100 * MS, 5 * MS, false, 0,
     TERSE_CLOSE_DEADLINE, 5 * MS - 2000 - TERSE_BATCHER_MARGIN_NS},
    {"and then runs", TINY, 3, 32, 1, {0}, 4 * MS, 1 * MS, 100 * MS, 5 * MS, false, 3, TERSE_CLOSE_DEADLINE, 0},
    {"rows that cost the same run alone", PER_ROW, 10, 32, 2, {0}, 0, 0, 0, NONE, false, 1, TERSE_CLOSE_FULL, 0},
    {"the last of them too", PER_ROW, 1, 32, 2, {0}, 0, 0, 0, NONE, false, 1, TERSE_CLOSE_IDLE, 0},
    {"unless fuller batches are asked for", PER_ROW, 10, 32, 2, {0}, 9 * MS, 0, MS, NONE, false, 5,
     TERSE_CLOSE_TIMEOUT, 0},
    {"a batch is as small as a deadline needs", AFFINE, 20, 32, 1, {0}, MS, 0, 0, 14 * MS, false, 10,
     TERSE_CLOSE_DEADLINE, 0},
    {"but never empty", AFFINE, 20, 32, 1, {0}, 9 * MS, 0, 0, 8 * MS, false, 1, TERSE_CLOSE_DEADLINE, 0},
    {"a far deadline changes nothing", AFFINE, 20, 32, 1, {0}, MS, 0, 0, 24 * MS, false, 20, TERSE_CLOSE_IDLE, 0},
    {"a drain holds nothing", AFFINE, 3, 32, 1, {0}, 5 * MS, 5 * MS, 9 * MS, NONE, true, 3, TERSE_CLOSE_DRAIN, 0},
};

static const row energy_table[] = {
    {"for energy a worker waits for half of the time", AFFINE, 3, 32, 2, {0}, 5 * MS, 4 * MS, 0, 104 * MS, false, 0,
     TERSE_CLOSE_TIMEOUT, 54 * MS},
    {"or as long as the deadline leaves", AFFINE, 3, 32, 2, {0}, 5 * MS, 4 * MS, 0, 24 * MS, false, 0,
     TERSE_CLOSE_DEADLINE, 11 * MS},
    {"or for one batch time without a deadline", AFFINE, 3, 32, 2, {0}, 5 * MS, 4 * MS, 0, NONE, false, 0,
     TERSE_CLOSE_TIMEOUT, 39 * MS},
    {"or for batch_timeout_us", AFFINE, 3, 32, 2, {0}, 5 * MS, 4 * MS, 2 * MS, NONE, false, 0, TERSE_CLOSE_TIMEOUT,
     6 * MS},
    {"and then takes all", AFFINE, 3, 32, 1, {0}, 54 * MS, 4 * MS, 0, 104 * MS, false, 3, TERSE_CLOSE_TIMEOUT, 0},
    {"but not where rows get no cheaper", PER_ROW, 3, 32, 1, {0}, 5 * MS, 4 * MS, 0, NONE, false, 3, TERSE_CLOSE_IDLE,
     0},
};
/* clang-format on */

static void check(const row *r, terse_objective objective)
{
    const terse_cost cost = cost_of(r->cost);
    terse_batcher_input input = {
        .now_ns = r->now,
        .rows = r->rows,
        .oldest_ns = r->oldest,
        .deadline_ns = r->deadline,
        .max_batch = r->max_batch,
        .timeout_ns = r->timeout,
        .objective = objective,
        .draining = r->draining,
        .cost = &cost,
        .idle = r->idle,
        .left_ns = r->left,
    };
    while (input.busy < 3 && r->left[input.busy])
        input.busy++;
    const terse_batcher_decision got = terse_batcher_decide(&input);
    if (got.rows != r->want_rows || got.reason != r->want_reason || (got.rows == 0 && got.wake_ns != r->want_wake))
        fail_msg("%s: got %u rows, %s, wake %llu", r->says, got.rows, terse_batcher_reason_name(got.reason),
                 (unsigned long long)got.wake_ns);
}

static void decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        check(&table[i], TERSE_OBJECTIVE_LATENCY);
    for (size_t i = 0; i < sizeof energy_table / sizeof energy_table[0]; i++)
        check(&energy_table[i], TERSE_OBJECTIVE_ENERGY);
}

/* Whatever is asked, the answer is within its bounds. */
static void decisions_stay_within_bounds(void **state)
{
    (void)state;
    const terse_cost costs[] = {cost_of(UNKNOWN), cost_of(PER_ROW), cost_of(TINY), cost_of(AFFINE)};
    const uint64_t left[] = {MS, 2 * MS, UINT64_MAX};
    for (uint64_t rows = 1; rows < 200; rows++)
        for (uint32_t max_batch = 1; max_batch <= 64; max_batch *= 2)
            for (uint32_t idle = 1; idle < 9; idle++)
                for (uint32_t busy = 0; busy <= 3; busy++)
                    for (int c = 0; c < 4; c++) {
                        const terse_batcher_input input = {.rows = rows,
                                                           .deadline_ns = NONE,
                                                           .max_batch = max_batch,
                                                           .cost = &costs[c],
                                                           .idle = idle,
                                                           .busy = busy,
                                                           .left_ns = left};
                        const terse_batcher_decision got = terse_batcher_decide(&input);
                        assert_in_range(got.rows, 1, max_batch);
                        assert_true(got.rows <= rows);
                        /* Never more than the whole, never less than the even share of all workers. */
                        const uint64_t even = (rows + idle + busy - 1) / (idle + busy);
                        assert_true(got.rows == terse_batcher_limit(&costs[c], max_batch, 0, TERSE_OBJECTIVE_LATENCY) ||
                                    got.rows >= even);
                    }
}

static void the_curve_is_what_was_measured(void **state)
{
    (void)state;
    terse_cost cost = {0};
    assert_false(terse_cost_known(&cost));
    assert_int_equal(terse_cost_of(&cost, 5), 0);
    assert_int_equal(terse_cost_peak(&cost, 5), 0);
    terse_cost_learn(&cost, 8, 800);
    assert_int_equal(terse_cost_of(&cost, 8), 800);
    assert_int_equal(terse_cost_of(&cost, 4), 400); /* in proportion below and above */
    assert_int_equal(terse_cost_of(&cost, 16), 1600);
    terse_cost_learn(&cost, 16, 1200);
    assert_int_equal(terse_cost_of(&cost, 12), 1000); /* on a line between */
    assert_int_equal(terse_cost_of(&cost, 32), 2400);
    for (int i = 0; i < 100; i++)
        terse_cost_learn(&cost, 8, 1000);
    assert_in_range(terse_cost_of(&cost, 8), 990, 1000);
    terse_cost_learn(&cost, 8, 50000); /* one slow batch: the peak knows it, the mean hardly */
    assert_in_range(terse_cost_peak(&cost, 8), 45000, 50000);
    assert_in_range(terse_cost_of(&cost, 8), 1000, 6000);
    for (int i = 0; i < 1000; i++)
        terse_cost_learn(&cost, 8, 1000);
    assert_in_range(terse_cost_peak(&cost, 8), 990, 1100); /* and forgets it */
}

static void a_batch_is_no_larger_than_it_pays(void **state)
{
    (void)state;
    terse_cost cost = {0};
    assert_int_equal(terse_cost_limit(&cost, 32, 1.04), 32); /* nothing is known */
    terse_cost_learn(&cost, 1, 1000);
    assert_int_equal(terse_cost_limit(&cost, 32, 1.04), 2); /* the next size is tried */
    terse_cost_learn(&cost, 2, 1500);
    assert_int_equal(terse_cost_limit(&cost, 32, 1.04), 4);
    assert_int_equal(terse_cost_limit(&cost, 3, 1.04), 3);
    terse_cost_learn(&cost, 3, 2250);
    assert_int_equal(terse_cost_limit(&cost, 32, 1.04), 2); /* no gain: that is enough */
    terse_cost_learn(&cost, 32, 16000);
    assert_int_equal(terse_cost_limit(&cost, 32, 1.04), 32);
    for (int i = 0; i < 50; i++) {
        terse_cost_learn(&cost, 32, 24000);
        terse_cost_learn(&cost, 2, 1500);
    }
    assert_int_equal(terse_cost_limit(&cost, 32, 1.04), 2); /* it follows what is measured */
    assert_int_equal(terse_cost_limit(&cost, 1, 1.04), 1);
}

static void one_stalled_batch_is_no_trend_but_many_are(void **state)
{
    (void)state;
    terse_cost cost = {0};
    for (int i = 0; i < 20; i++)
        terse_cost_learn(&cost, 4, 1000);
    terse_cost_learn(&cost, 4, 1000000000);
    assert_in_range(terse_cost_of(&cost, 4), 1000, 1200);
    for (int i = 0; i < 60; i++)
        terse_cost_learn(&cost, 4, 10000);
    assert_in_range(terse_cost_of(&cost, 4), 9000, 10000);
}

/* All sizes get slower, one of them is seen: the others are not taken for cheap now. And back. */
static void sizes_that_are_not_used_follow(void **state)
{
    (void)state;
    terse_cost cost = {0};
    for (uint32_t rows = 1; rows <= 32; rows *= 2)
        terse_cost_learn(&cost, rows, rows * 1000);
    for (int i = 0; i < 100; i++)
        terse_cost_learn(&cost, 1, 4000);
    assert_in_range(terse_cost_of(&cost, 32), 32000 * 2 * 9 / 10, 32000 * 4);
    for (int i = 0; i < 200; i++)
        terse_cost_learn(&cost, 1, 1000);
    assert_in_range(terse_cost_of(&cost, 32), 32000 * 8 / 10, 32000 * 12 / 10);
    /* Noise in two of them moves a third nowhere. */
    for (int i = 0; i < 100000; i++)
        terse_cost_learn(&cost, i % 2 ? 1 : 2, i % 4 < 2 ? 900 : 2300);
    assert_in_range(terse_cost_of(&cost, 1), 900, 2300);
    assert_in_range(terse_cost_of(&cost, 32), 16000, 64000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions),
        cmocka_unit_test(decisions_stay_within_bounds),
        cmocka_unit_test(the_curve_is_what_was_measured),
        cmocka_unit_test(a_batch_is_no_larger_than_it_pays),
        cmocka_unit_test(sizes_that_are_not_used_follow),
        cmocka_unit_test(one_stalled_batch_is_no_trend_but_many_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
