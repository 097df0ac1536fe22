/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/tune/search.h"

/* What each batch costs besides its rows: messages, wake-ups. MOST_ROWS: the daemon's own limit. */
#define EXTRA_US 30.0
#define GAIN 0.02
enum { MOST_ROWS = 1024 };

/* 1, 2, 4 ... and `most` itself; those beyond the room are left out from the small end. */
static unsigned doublings(uint32_t most, uint32_t *ret, unsigned room)
{
    unsigned steps = 1, n = 0;
    while (steps < 31 && ((uint32_t)1 << steps) < most)
        steps++;
    const unsigned skip = steps + 1 > room ? steps + 1 - room : 0;
    for (unsigned i = skip; i < steps; i++)
        ret[n++] = (uint32_t)1 << i;
    if (n == 0 || ret[n - 1] != most)
        ret[n++] = most;
    return n;
}

/* The largest batch of which two fit into the deadline: a request waits for one and is in the next. */
static uint32_t fits(const terse_cost_line *line, double deadline_us)
{
    uint32_t rows = 1;
    while (rows < MOST_ROWS && 2 * (line->a_us + line->b_us * 2 * rows) <= deadline_us)
        rows *= 2;
    return rows;
}

static void make_batches(const terse_tune_known *known, terse_tune_space *space)
{
    if (!known->batchable) {
        space->batches[0] = 1; /* what the daemon says then, whatever is set */
        space->n_batches = 1;
        snprintf(space->why, sizeof space->why, "the model's rows are not independent: each request runs alone");
        return;
    }
    const uint32_t in_time = fits(&known->line, known->deadline_us);
    const uint32_t enough = terse_cost_enough(&known->line, EXTRA_US, GAIN, MOST_ROWS);
    const uint32_t most = enough < in_time ? enough : in_time;
    space->n_batches = doublings(most, space->batches, TERSE_TUNE_BATCHES);
    unsigned small = 0; /* smaller ones than a request would refuse it */
    while (small + 1 < space->n_batches && space->batches[small] < space->rows)
        small++;
    space->n_batches -= small;
    memmove(space->batches, space->batches + small, space->n_batches * sizeof space->batches[0]);
    if (space->batches[0] < space->rows)
        space->batches[0] = space->rows;
    if (enough <= in_time && enough < MOST_ROWS)
        snprintf(space->why, sizeof space->why,
                 "no batches above %u rows: twice as many would save less than %.0f %% of a row's time", most,
                 GAIN * 100);
    else if (in_time < MOST_ROWS)
        snprintf(space->why, sizeof space->why,
                 "no batches above %u rows: two larger ones would take longer than the deadline", most);
}

void terse_tune_space_make(const terse_tune_known *known, terse_tune_space *ret_space)
{
    terse_tune_space space = {.line = known->line,
                              .rows = known->rows ? known->rows : 1,
                              .tolerance = 1.1,
                              .patience = 1.4,
                              .first_rate = known->rate,
                              .n_timeouts = 1};
    const uint32_t workers = known->workers > known->cores ? known->workers : known->cores;
    space.n_workers = doublings(workers ? workers : 1, space.workers, TERSE_TUNE_WORKERS);
    make_batches(known, &space);
    const uint32_t largest = space.batches[space.n_batches - 1];
    /* To wait for so long leaves time for the batch that is waited for, and the one before it. */
    const double spare = known->deadline_us - 2 * (known->line.a_us + known->line.b_us);
    static const double parts[] = {1 / 32.0, 1 / 16.0, 1 / 8.0, 1 / 4.0, 1 / 2.0};
    for (size_t i = 0; largest > space.rows && i < sizeof parts / sizeof parts[0]; i++) {
        const double us = known->deadline_us * parts[i], unit = pow(10, floor(log10(fmax(us, 10))) - 1);
        const uint64_t round = (uint64_t)(floor(us / unit) * unit);
        if (round >= 10 && us <= spare && round > space.timeouts[space.n_timeouts - 1])
            space.timeouts[space.n_timeouts++] = round;
    }
    *ret_space = space;
}

/* Whole numbers from `least` to `most`, ascending, with commas between; 0 when it is none such. */
static unsigned numbers(const char *text, uint64_t least, uint64_t most, uint64_t *ret, unsigned room)
{
    unsigned n = 0;
    while (n < room) {
        char *end;
        errno = 0;
        const uint64_t value = strtoull(text, &end, 10);
        if (errno || end == text || *text < '0' || *text > '9' || value < least || value > most ||
            (n > 0 && value <= ret[n - 1]))
            return 0;
        ret[n++] = value;
        if (!*end)
            return n;
        if (*end != ',')
            return 0;
        text = end + 1;
    }
    return 0;
}

static int restrict_list(const char *name, const char *text, uint64_t least, uint64_t most, unsigned room,
                         uint64_t *ret, unsigned *ret_n, terse_error *error)
{
    *ret_n = numbers(text, least, most, ret, room);
    if (*ret_n)
        return TERSE_OK;
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "--%s is '%s', allowed are up to %u ascending whole numbers from %" PRIu64 " to %" PRIu64
                      " with commas between",
                      name, text, room, least, most);
}

int terse_tune_space_restrict(terse_tune_space *space, const char *workers, const char *batches, const char *timeouts,
                              terse_error *error)
{
    uint64_t list[TERSE_TUNE_BATCHES];
    unsigned n = 0;
    if (workers) {
        if (restrict_list("workers", workers, 1, 256, TERSE_TUNE_WORKERS, list, &n, error))
            return (int)error->status;
        space->n_workers = n;
        for (unsigned i = 0; i < n; i++)
            space->workers[i] = (uint32_t)list[i];
    }
    if (batches) {
        if (restrict_list("max-batch", batches, space->rows, MOST_ROWS, TERSE_TUNE_BATCHES, list, &n, error))
            return (int)error->status;
        space->n_batches = n;
        for (unsigned i = 0; i < n; i++)
            space->batches[i] = (uint32_t)list[i];
        *space->why = 0;
    }
    if (timeouts) {
        if (restrict_list("batch-timeout-us", timeouts, 0, 10000000, TERSE_TUNE_TIMEOUTS, list, &n, error))
            return (int)error->status;
        space->n_timeouts = n;
        memcpy(space->timeouts, list, n * sizeof list[0]);
    }
    return TERSE_OK;
}
