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

static const row table[] = {
    {"one request on an idle pool runs at once", PER_ROW, 1, 32, 2, {0}, 0, 0, 0, NONE, false, 1, TERSE_CLOSE_IDLE, 0},
    {"a burst is spread over idle workers", PER_ROW, 10, 32, 2, {0}, 0, 0, 0, NONE, false, 5, TERSE_CLOSE_SPLIT, 0},
    {"a share is rounded up", PER_ROW, 11, 32, 2, {0}, 0, 0, 0, NONE, false, 6, TERSE_CLOSE_SPLIT, 0},
    {"without measurements idle workers share", UNKNOWN, 9, 32, 3, {0}, 0, 0, 0, NONE, false, 3, TERSE_CLOSE_SPLIT, 0},
    {"without measurements busy ones do not", UNKNOWN, 9, 32, 1, {1}, 0, 0, 0, NONE, false, 9, TERSE_CLOSE_IDLE, 0},
    {"max_batch bounds", PER_ROW, 100, 8, 2, {0}, 0, 0, 0, NONE, false, 8, TERSE_CLOSE_FULL, 0},
    {"exactly full", PER_ROW, 8, 8, 1, {0}, 0, 0, 0, NONE, false, 8, TERSE_CLOSE_FULL, 0},
    {"a worker that is done soon gets a share",
     PER_ROW,
     10,
     32,
     1,
     {1 * MS},
     0,
     0,
     0,
     NONE,
     false,
     5,
     TERSE_CLOSE_SPLIT,
     0},
    {"one that is done late does not", PER_ROW, 10, 32, 1, {9 * MS}, 0, 0, 0, NONE, false, 10, TERSE_CLOSE_IDLE, 0},
    {"only those who are soon enough count",
     PER_ROW,
     12,
     32,
     1,
     {1 * MS, 50 * MS},
     0,
     0,
     0,
     NONE,
     false,
     6,
     TERSE_CLOSE_SPLIT,
     0},
    {"a tiny model is not worth a second wake-up", TINY, 10, 32, 2, {0}, 0, 0, 0, NONE, false, 10, TERSE_CLOSE_IDLE, 0},
    {"fixed costs are weighed in", AFFINE, 8, 32, 1, {5 * MS}, 0, 0, 0, NONE, false, 8, TERSE_CLOSE_IDLE, 0},
    {"no batches where max_batch is 1", PER_ROW, 10, 1, 2, {0}, 0, 0, 9 * MS, NONE, false, 1, TERSE_CLOSE_IDLE, 0},
    {"held for the timeout",
     PER_ROW,
     3,
     32,
     2,
     {0},
     5 * MS,
     4 * MS,
     2 * MS,
     NONE,
     false,
     0,
     TERSE_CLOSE_TIMEOUT,
     6 * MS},
    {"the timeout counts from the arrival of the oldest",
     PER_ROW,
     3,
     32,
     1,
     {0},
     6 * MS,
     4 * MS,
     2 * MS,
     NONE,
     false,
     3,
     TERSE_CLOSE_TIMEOUT,
     0},
    {"a full batch is not held", PER_ROW, 32, 32, 1, {0}, 5 * MS, 5 * MS, 9 * MS, NONE, false, 32, TERSE_CLOSE_FULL, 0},
    {"a deadline ends the hold in time to run",
     TINY,
     3,
     32,
     1,
     {0},
     1 * MS,
     1 * MS,
     100 * MS,
     5 * MS,
     false,
     0,
     TERSE_CLOSE_DEADLINE,
     5 * MS - 2000 - TERSE_BATCHER_MARGIN_NS},
    {"and then runs", TINY, 3, 32, 1, {0}, 5 * MS, 1 * MS, 100 * MS, 5 * MS, false, 3, TERSE_CLOSE_DEADLINE, 0},
    {"a drain holds nothing", PER_ROW, 3, 32, 1, {0}, 5 * MS, 5 * MS, 9 * MS, NONE, true, 3, TERSE_CLOSE_DRAIN, 0},
};

static void decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const row *r = &table[i];
        const terse_cost cost = cost_of(r->cost);
        terse_batcher_input input = {
            .now_ns = r->now,
            .rows = r->rows,
            .oldest_ns = r->oldest,
            .deadline_ns = r->deadline,
            .max_batch = r->max_batch,
            .timeout_ns = r->timeout,
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
                        assert_true(got.rows == max_batch || got.rows >= even);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions),
        cmocka_unit_test(decisions_stay_within_bounds),
        cmocka_unit_test(the_curve_is_what_was_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
