/* SPDX-License-Identifier: Apache-2.0 */
/* batcher.h: how many rows the next batch takes, and when: a pure function.
 * Runs in: frontend. Owns nothing, reads no clock.
 *
 * Design notes
 *   Batches form as late as possible: when a worker is idle. Of q queued rows it takes
 *       m = min(limit, ceil(q / (idle + soon)))
 *   so that a burst is spread over the workers that are idle, or will be before this batch could be done.
 *   A busy worker counts as soon idle when waiting for it beats doing its share here: with k workers so far, when its
 *   time left is below t(q/k) - t(q/(k+1)), t being the measured cost curve. An idle worker counts as long as its
 *   share is worth its wake-up, TERSE_BATCHER_WAKE_NS: two batches of a tiny model cost more than one.
 *   With nothing measured yet every idle worker counts and no busy one does.
 *
 *   The limit is the smallest batch that serves rows (nearly) as fast as any: terse_cost_limit. Where rows of a larger
 * one cost the same, its members only wait for each other (while little waits it may be some percent
 *   slower). It is max_batch where fuller batches are asked for, by
 *   batch_timeout_us or the objective energy. A batch that would end behind the earliest deadline is made smaller.
 *
 *   While a worker is idle nothing waits, unless batch_timeout_us says so: then until that long after the arrival of
 *   the oldest request, or until the earliest deadline leaves just the time to run. With the objective energy, as long
 *   as rows would get cheaper: for half of the time that the oldest request has, or for one batch time if that is
 *   endless. */
#ifndef TERSE_FRONTEND_BATCHER_H
#define TERSE_FRONTEND_BATCHER_H

#include "daemon/frontend/cost.h"
#include "daemon/protocol.h"

/* A row of the smallest sufficient batch costs so many times what it costs in the best one: when much waits, little. */
#define TERSE_BATCHER_NEAR 1.04
#define TERSE_BATCHER_NEAR_SHORT 1.15

enum { TERSE_BATCHER_WAKE_NS = 30000, TERSE_BATCHER_PROBE_NS = 2000000, TERSE_BATCHER_MARGIN_NS = 1000000 };

typedef struct terse_batcher_input {
    uint64_t now_ns;
    /* the queue of one model at one set of dimensions */
    uint64_t rows;        /* queued, > 0 */
    uint64_t oldest_ns;   /* arrival */
    uint64_t deadline_ns; /* earliest, UINT64_MAX: none */
    uint32_t max_batch;   /* 1: each request alone */
    uint64_t timeout_ns;
    terse_objective objective;
    bool draining;
    bool probe; /* take twice the limit if so much waits and it is short: larger batches are only learnt from them */
    const terse_cost *cost;
    /* the pool */
    uint32_t idle; /* > 0 */
    uint32_t busy;
    const uint64_t *left_ns; /* per busy worker: expected time to its completion, ascending */
} terse_batcher_input;

/* Why a batch was closed; counted in "stats". */
typedef enum terse_batcher_reason {
    TERSE_CLOSE_IDLE,     /* took all that waited */
    TERSE_CLOSE_SPLIT,    /* left a share to other workers */
    TERSE_CLOSE_FULL,     /* the limit */
    TERSE_CLOSE_TIMEOUT,  /* batch_timeout_us was over */
    TERSE_CLOSE_DEADLINE, /* a deadline allowed no longer wait, or no larger batch */
    TERSE_CLOSE_DRAIN,    /* the daemon ends */
    TERSE_CLOSE_REASONS
} terse_batcher_reason;

typedef struct terse_batcher_decision {
    uint32_t rows;    /* to take now (a request of several rows stays whole); 0: hold */
    uint64_t wake_ns; /* when to ask again, if held */
    terse_batcher_reason reason;
} terse_batcher_decision;

/* Rows of a batch at most when much waits, see above. */
uint32_t terse_batcher_limit(const terse_cost *cost, uint32_t max_batch, uint64_t timeout_ns,
                             terse_objective objective);
terse_batcher_decision terse_batcher_decide(const terse_batcher_input *input);
const char *terse_batcher_reason_name(terse_batcher_reason reason);

#endif
