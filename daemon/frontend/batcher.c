/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/batcher.h"

static uint32_t share_of(uint64_t rows, uint64_t workers, uint32_t max_batch)
{
    const uint64_t share = (rows + workers - 1) / workers;
    return share < max_batch ? (uint32_t)share : max_batch;
}

uint32_t terse_batcher_limit(const terse_cost *cost, uint32_t max_batch, uint64_t timeout_ns, terse_objective objective)
{
    const bool fuller = timeout_ns > 0 || objective == TERSE_OBJECTIVE_ENERGY;
    return fuller || max_batch <= 1 ? max_batch : terse_cost_limit(cost, max_batch, TERSE_BATCHER_NEAR);
}

/* What one more worker saves: t(share of k) - t(share of k+1). */
static uint64_t gain_of(const terse_batcher_input *in, uint32_t limit, uint32_t k)
{
    const uint64_t with = terse_cost_of(in->cost, share_of(in->rows, (uint64_t)k + 1, limit));
    const uint64_t without = terse_cost_of(in->cost, share_of(in->rows, k, limit));
    return without > with ? without - with : 0;
}

/* Among how many workers the queue is to be divided. */
static uint32_t count_workers(const terse_batcher_input *in, uint32_t limit)
{
    if (!terse_cost_known(in->cost))
        return in->idle;
    /* Rows beyond one full batch per idle worker keep them all busy anyway. */
    if (in->rows >= (uint64_t)limit * in->idle)
        return in->idle;
    uint32_t k = 1;
    while (k < in->idle && gain_of(in, limit, k) > TERSE_BATCHER_WAKE_NS)
        k++;
    if (k < in->idle)
        return k;
    for (uint32_t i = 0; i < in->busy && in->left_ns[i] < gain_of(in, limit, k); i++)
        k++;
    return k;
}

/* How long a worker may be held for the oldest request, were there no deadlines. */
static uint64_t patience_of(const terse_batcher_input *in)
{
    if (in->objective != TERSE_OBJECTIVE_ENERGY)
        return in->timeout_ns;
    uint64_t patience = terse_cost_of(in->cost, in->max_batch);
    if (in->deadline_ns != UINT64_MAX)
        patience = in->deadline_ns > in->oldest_ns ? (in->deadline_ns - in->oldest_ns) / 2 : 0;
    return in->timeout_ns > 0 && in->timeout_ns < patience ? in->timeout_ns : patience;
}

/* The time up to which an idle worker may be held, and which of the two limits it is. */
static uint64_t hold_until(const terse_batcher_input *in, terse_batcher_reason *ret_reason)
{
    uint64_t until;
    if (__builtin_add_overflow(in->oldest_ns, patience_of(in), &until))
        until = UINT64_MAX;
    *ret_reason = TERSE_CLOSE_TIMEOUT;
    if (in->deadline_ns != UINT64_MAX) {
        const uint32_t rows = in->rows < in->max_batch ? (uint32_t)in->rows : in->max_batch;
        /* Twice the usual time of the batch and what timers and replies need, so that the result is back in time. */
        const uint64_t needed = 2 * terse_cost_of(in->cost, rows) + TERSE_BATCHER_MARGIN_NS;
        const uint64_t latest = in->deadline_ns > needed ? in->deadline_ns - needed : 0;
        if (latest < until) {
            until = latest;
            *ret_reason = TERSE_CLOSE_DEADLINE;
        }
    }
    return until;
}

/* Whether it may be worth while to wait for more rows. */
static bool may_hold(const terse_batcher_input *in)
{
    if (in->draining || in->rows >= in->max_batch)
        return false;
    if (in->objective == TERSE_OBJECTIVE_ENERGY)
        return in->rows < terse_cost_limit(in->cost, in->max_batch, TERSE_BATCHER_NEAR);
    return in->timeout_ns > 0;
}

/* The largest batch of `rows` at most that is done by the earliest deadline; 1 when none is. */
static uint32_t in_time(const terse_batcher_input *in, uint32_t rows)
{
    if (in->deadline_ns == UINT64_MAX || !terse_cost_known(in->cost))
        return rows;
    const uint64_t left = in->deadline_ns > in->now_ns ? in->deadline_ns - in->now_ns : 0;
    if (terse_cost_of(in->cost, rows) <= left)
        return rows;
    uint32_t fits = 1;
    for (uint32_t above = rows; above - fits > 1;) {
        const uint32_t middle = fits + (above - fits) / 2;
        if (terse_cost_of(in->cost, middle) <= left)
            fits = middle;
        else
            above = middle;
    }
    return fits;
}

terse_batcher_decision terse_batcher_decide(const terse_batcher_input *in)
{
    if (in->max_batch <= 1)
        return (terse_batcher_decision){.rows = 1, .reason = in->draining ? TERSE_CLOSE_DRAIN : TERSE_CLOSE_IDLE};
    terse_batcher_reason reason = TERSE_CLOSE_IDLE, waited = TERSE_CLOSE_REASONS;
    if (may_hold(in)) {
        const uint64_t until = hold_until(in, &waited);
        if (in->now_ns < until)
            return (terse_batcher_decision){.rows = 0, .wake_ns = until, .reason = waited};
    }
    uint32_t limit = terse_batcher_limit(in->cost, in->max_batch, in->timeout_ns, in->objective);
    if (limit < in->max_batch && in->rows < 2 * (uint64_t)limit * (in->idle + in->busy))
        limit = terse_cost_limit(in->cost, in->max_batch, TERSE_BATCHER_NEAR_SHORT);
    if (in->probe && limit < in->max_batch && in->rows >= 2 * (uint64_t)limit &&
        terse_cost_of(in->cost, 2 * limit) < TERSE_BATCHER_PROBE_NS)
        limit = limit < in->max_batch / 2 ? 2 * limit : in->max_batch;
    const uint32_t share = share_of(in->rows, count_workers(in, limit), limit), rows = in_time(in, share);
    if (in->draining)
        reason = TERSE_CLOSE_DRAIN;
    else if (waited != TERSE_CLOSE_REASONS)
        reason = waited;
    else if (rows < share)
        reason = TERSE_CLOSE_DEADLINE;
    else if (rows == limit && (rows < in->rows || limit == in->max_batch))
        reason = TERSE_CLOSE_FULL;
    else if (rows < in->rows)
        reason = TERSE_CLOSE_SPLIT;
    return (terse_batcher_decision){.rows = rows, .reason = reason};
}

const char *terse_batcher_reason_name(terse_batcher_reason reason)
{
    static const char *const names[] = {
        [TERSE_CLOSE_IDLE] = "idle",       [TERSE_CLOSE_SPLIT] = "split",       [TERSE_CLOSE_FULL] = "full",
        [TERSE_CLOSE_TIMEOUT] = "timeout", [TERSE_CLOSE_DEADLINE] = "deadline", [TERSE_CLOSE_DRAIN] = "drain",
    };
    return (unsigned)reason < TERSE_CLOSE_REASONS ? names[reason] : "unknown";
}
