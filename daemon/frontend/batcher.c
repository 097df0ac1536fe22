/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/batcher.h"

static uint32_t share_of(uint64_t rows, uint64_t workers, uint32_t max_batch)
{
    const uint64_t share = (rows + workers - 1) / workers;
    return share < max_batch ? (uint32_t)share : max_batch;
}

/* What one more worker saves: t(share of k) - t(share of k+1). */
static uint64_t gain_of(const terse_batcher_input *in, uint32_t k)
{
    const uint64_t with = terse_cost_of(in->cost, share_of(in->rows, (uint64_t)k + 1, in->max_batch));
    const uint64_t without = terse_cost_of(in->cost, share_of(in->rows, k, in->max_batch));
    return without > with ? without - with : 0;
}

/* Among how many workers the queue is to be divided. */
static uint32_t count_workers(const terse_batcher_input *in)
{
    if (!terse_cost_known(in->cost))
        return in->idle;
    /* Rows beyond one full batch per idle worker keep them all busy anyway. */
    if (in->rows >= (uint64_t)in->max_batch * in->idle)
        return in->idle;
    uint32_t k = 1;
    while (k < in->idle && gain_of(in, k) > TERSE_BATCHER_WAKE_NS)
        k++;
    if (k < in->idle)
        return k;
    for (uint32_t i = 0; i < in->busy && in->left_ns[i] < gain_of(in, k); i++)
        k++;
    return k;
}

/* The time up to which an idle worker may be held, and which of the two limits it is. */
static uint64_t hold_until(const terse_batcher_input *in, terse_batcher_reason *ret_reason)
{
    uint64_t until = in->oldest_ns + in->timeout_ns;
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

terse_batcher_decision terse_batcher_decide(const terse_batcher_input *in)
{
    if (in->max_batch <= 1)
        return (terse_batcher_decision){.rows = 1, .reason = in->draining ? TERSE_CLOSE_DRAIN : TERSE_CLOSE_IDLE};
    terse_batcher_reason waited = TERSE_CLOSE_REASONS;
    if (in->timeout_ns > 0 && in->rows < in->max_batch && !in->draining) {
        const uint64_t until = hold_until(in, &waited);
        if (in->now_ns < until)
            return (terse_batcher_decision){.rows = 0, .wake_ns = until, .reason = waited};
    }
    const uint32_t rows = share_of(in->rows, count_workers(in), in->max_batch);
    terse_batcher_reason reason = TERSE_CLOSE_IDLE;
    if (in->draining)
        reason = TERSE_CLOSE_DRAIN;
    else if (waited != TERSE_CLOSE_REASONS)
        reason = waited;
    else if (rows == in->max_batch)
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
