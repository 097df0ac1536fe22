/* SPDX-License-Identifier: Apache-2.0 */
/* share.h: how models share the workers: by the worker time that each has had.
 * Runs in: frontend. Plain numbers, owns nothing. A zeroed terse_share is a model that nothing waits for.
 *
 * Design notes
 *   Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996), a batch being a packet and its time its length. A
 *   model's clock advances by the time that its batches take; the pool's clock is that of the batch begun last. Among
 *   models that wait, the one whose clock is behind goes first, so that each gets an equal part of the workers however
 *   many requests it has and however long its batches are. Who was idle starts at the pool's clock: idleness earns
 *   nothing. A batch is charged as it begins with what it should take and corrected when it is done. */
#ifndef TERSE_FRONTEND_SHARE_H
#define TERSE_FRONTEND_SHARE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct terse_share {
    struct terse_share *previous_busy, *next_busy; /* of the queue: those for which something waits */
    uint32_t n_requests;                           /* that wait */
    uint64_t n_bytes;                              /* of their inputs */
    uint64_t work_ns;                              /* worker time that these will take, as it was estimated */
    uint64_t clock_ns;
} terse_share;

/* Something waits for a model for which nothing did. */
static inline void terse_share_wake(terse_share *share, uint64_t pool_clock_ns)
{
    if (share->clock_ns < pool_clock_ns)
        share->clock_ns = pool_clock_ns;
}

/* A batch begins. */
static inline void terse_share_charge(terse_share *share, uint64_t *pool_clock_ns, uint64_t expected_ns)
{
    if (*pool_clock_ns < share->clock_ns)
        *pool_clock_ns = share->clock_ns;
    share->clock_ns += expected_ns;
}

/* It is done, or lost. */
static inline void terse_share_correct(terse_share *share, uint64_t expected_ns, uint64_t took_ns)
{
    share->clock_ns += took_ns;
    share->clock_ns -= share->clock_ns < expected_ns ? share->clock_ns : expected_ns;
}

#endif
