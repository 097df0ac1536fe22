/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "daemon/frontend/overload.h"

/* Design notes
 *   Which lane: that of the highest priority, among equals that of the model whose workers' time is behind, and now and
 *   then that of the oldest request (queue.h). The batcher says how many rows of it; a lane that it holds is passed
 *   over. Which requests: in the lane's order, as they fit. Those that cannot be done in time, and those that CoDel
 * turns away, are answered instead and the batcher is asked again. Of every PROBE_TURNS batches the first PROBES may be
 * twice as large as pays by what is known: a moment in which large batches were slow would be believed for ever. */

enum { NEW_ARENAS = 32, PROBES = 4, PROBE_TURNS = 64 };

void terse_choose_add(terse_frontend *fe, terse_pool_worker *worker, terse_request *request)
{
    if (!request->alone) /* what comes back after a death was not foreseen */
        terse_overload_learn(fe, request);
    terse_queue_take(&fe->queue, request);
    request->state = TERSE_REQUEST_RUNNING;
    request->start_ns = fe->now_ns;
    worker->members[worker->n_members++] = request;
    worker->rows += request->rows;
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* What is expected of a running batch. One that is a little late is done any moment: as long again as it is late, since
 * that is how long things take of which nothing else is known. Who is later than that, or was never measured, never is.
 */
static uint64_t left_of(const terse_pool_worker *worker, uint64_t now_ns)
{
    const uint64_t end = worker->started_ns + worker->expected_ns;
    if (end > now_ns)
        return end - now_ns;
    return now_ns - end < worker->expected_ns / 2 ? now_ns - end : UINT64_MAX;
}

/* The pool as the batcher sees it. `left_ns` has room for all workers. */
static void describe_pool(const terse_frontend *fe, terse_batcher_input *input, uint64_t *left_ns)
{
    input->idle = input->busy = 0;
    for (uint32_t i = 0; i < fe->n_workers; i++) {
        const terse_pool_worker *worker = &fe->workers[i];
        if (worker->state == TERSE_POOL_IDLE)
            input->idle++;
        if (worker->state == TERSE_POOL_RUNNING)
            left_ns[input->busy++] = left_of(worker, fe->now_ns);
    }
    if (input->busy > 1)
        qsort(left_ns, input->busy, sizeof *left_ns, compare_u64);
    input->left_ns = left_ns;
}

static terse_batcher_decision decide(const terse_frontend *fe, const terse_lane *lane, terse_batcher_input *input)
{
    const terse_served *model = fe->models[lane->model];
    input->rows = lane->n_rows;
    input->max_batch = model->max_batch;
    input->timeout_ns = model->batch_timeout_ns;
    input->objective = model->objective;
    input->cost = &lane->cost;
    input->oldest_ns = terse_queue_oldest_ns(lane);
    input->deadline_ns = terse_queue_deadline_ns(lane);
    return terse_batcher_decide(input);
}

/* The lane to serve now, with the batcher's word on it; NULL when all are held or empty. */
static terse_lane *choose_lane(terse_frontend *fe, terse_batcher_input *input, terse_batcher_decision *ret_decision)
{
    terse_lane *best = terse_queue_aged_lane(&fe->queue, fe->now_ns);
    if (best) {
        *ret_decision = decide(fe, best, input);
        if (ret_decision->rows > 0)
            return best;
        best = NULL;
    }
    for (terse_lane *lane = fe->queue.busy; lane; lane = lane->next_busy) {
        if (best && !terse_queue_lane_before(lane, best))
            continue;
        const terse_batcher_decision decision = decide(fe, lane, input);
        if (decision.rows == 0) {
            if (decision.wake_ns < fe->hold_ns)
                fe->hold_ns = decision.wake_ns;
            continue;
        }
        best = lane;
        *ret_decision = decision;
    }
    return best;
}

/* Answers the request whose turn it is when it must not run; false when it may. */
static bool turn_away(terse_frontend *fe, terse_lane *lane, terse_request *request)
{
    if (terse_overload_doomed(fe, lane, request)) {
        terse_overload_learn(fe, request);
        terse_request_rejected(fe, request, TERSE_REJECTED_EXPIRED);
        terse_request_fail(fe, request, TERSE_DEADLINE_EXCEEDED,
                           "the request cannot be done any more in its %" PRIu64 " us",
                           (request->deadline_ns - request->arrival_ns) / 1000);
        return true;
    }
    if (!fe->draining && terse_overload_stands(fe, lane, request)) {
        fe->models[lane->model]->stats.turned_away++;
        terse_request_rejected(fe, request, TERSE_REJECTED_STANDING);
        terse_request_fail(fe, request, TERSE_RESOURCE_EXHAUSTED,
                           "the queue stands: this request waited for %" PRIu64 " us",
                           (fe->now_ns - request->queued_ns) / 1000);
        return true;
    }
    return false;
}

terse_chosen terse_choose_batch(terse_frontend *fe, terse_pool_worker *worker, terse_batcher_reason *ret_reason)
{
    uint64_t left_ns[TERSE_MAX_WORKERS];
    terse_batcher_input input = {.now_ns = fe->now_ns, .draining = fe->draining};
    input.probe = fe->queue.turns % PROBE_TURNS < PROBES;
    terse_batcher_decision decision = {0};
    describe_pool(fe, &input, left_ns);
    terse_lane *lane = choose_lane(fe, &input, &decision);
    if (!lane)
        return TERSE_CHOSEN_NOTHING;
    const terse_served *model = fe->models[lane->model];
    const uint32_t most = TERSE_MAX_BATCH < model->max_members ? TERSE_MAX_BATCH : model->max_members;
    worker->lane = lane;
    worker->n_members = worker->rows = 0;
    uint32_t n_new = 0; /* too many when several requests lie in one: then the batch is a little smaller */
    for (terse_request *request; worker->n_members < most && (request = terse_queue_first(lane, fe->now_ns));) {
        if (worker->n_members > 0 && worker->rows + request->rows > decision.rows)
            break;
        /* Each arena that is new to the worker is a message of its own, for which its socket has so much room. */
        if (request->arena && !terse_arena_told(request->arena, (uint32_t)(worker - fe->workers)) &&
            n_new++ == NEW_ARENAS)
            break;
        if (!turn_away(fe, lane, request))
            terse_choose_add(fe, worker, request);
        else if (worker->n_members == 0)
            return TERSE_CHOSEN_AGAIN;
    }
    if (worker->n_members == 0)
        return TERSE_CHOSEN_AGAIN;
    fe->queue.turns++;
    *ret_reason = decision.reason;
    return TERSE_CHOSEN_BATCH;
}
