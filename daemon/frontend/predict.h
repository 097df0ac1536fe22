/* SPDX-License-Identifier: Apache-2.0 */
/* predict.h: when a request that comes now will be done, and how far such predictions can be trusted.
 * Runs in: frontend. Plain numbers, owns nothing, reads no clock. A zeroed terse_predict trusts what is reckoned.
 *
 * Design notes
 *   The pool is seen as a fluid: w workers finish w nanoseconds of work each nanosecond, models that wait have equal
 *   parts of them (share.h). With W ahead of a request in its own model, another model j with W_j waiting gets done
 *   min(W_j, W) in the same time; what runs already has to end too. So the wait is
 *       (left of running batches + W + sum over j of min(W_j, W)) / w
 *   What this leaves out (other processes on the cores, later arrivals of higher priority, workers that died) shows in
 *   how long requests really wait. The ratio of both, taken over about half a second, corrects the next prediction: of
 *   means, not a mean of ratios, so that long waits, which decide who is let in, weigh more than short ones.
 *   A correction is as good as it is fresh, and as those are many that it was learnt from: one that says "too late"
 *   keeps out all who could prove it wrong. So a few count for less, and in half a second without news it becomes its
 *   square root.
 *   Who has a late deadline or a low priority is overtaken by those that come later, and errs otherwise than they: each
 *   priority and each length of time (by powers of 2) has its own correction. */
#ifndef TERSE_FRONTEND_PREDICT_H
#define TERSE_FRONTEND_PREDICT_H

#include <stdint.h>

typedef struct terse_predict_input {
    uint64_t ahead_ns;   /* worker time of what goes first in the own model */
    uint64_t others_ns;  /* sum over other models of min(what waits there, ahead_ns) */
    uint64_t running_ns; /* what is left of running batches, summed */
    uint32_t workers;
} terse_predict_input;

/* How long requests waited beside what was reckoned for them. */
typedef struct terse_predict {
    struct {
        double n, reckoned_ns, waited_ns;
    } late, fresh;      /* sums: of late, fading; and of those that are not among them yet */
    uint64_t folded_ns; /* when the fresh ones were last added */
    double factor;      /* 0: nothing is known, taken as 1 */
} terse_predict;

enum { TERSE_PREDICT_TIMES = 16 };
/* Which correction is that of requests that have so much time: 0 below 2 ms ... the last from 32 s on, and for ever. */
unsigned terse_predict_class(uint64_t time_ns);

/* Time until its batch begins. 0 workers: nobody knows, 0. */
uint64_t terse_predict_wait(const terse_predict_input *input);

/* A request whose wait was reckoned (not corrected) has begun to run after `waited_ns`, or waited in vain. */
void terse_predict_learn(terse_predict *predict, uint64_t reckoned_ns, uint64_t waited_ns, uint64_t now_ns);
/* A reckoned wait, corrected by what was learnt until now. */
uint64_t terse_predict_correct(const terse_predict *predict, uint64_t reckoned_ns, uint64_t now_ns);

#endif
