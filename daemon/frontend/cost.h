/* SPDX-License-Identifier: Apache-2.0 */
/* cost.h: what a batch of n rows costs: learnt from the completions of one model at one set of dimensions.
 * Runs in: frontend. Plain numbers, owns nothing. A zeroed terse_cost knows nothing yet. */
#ifndef TERSE_FRONTEND_COST_H
#define TERSE_FRONTEND_COST_H

#include <stdbool.h>
#include <stdint.h>

enum { TERSE_COST_STEPS = 12 }; /* batches of 1, 2, 3-4, 5-8 ... rows */

typedef struct terse_cost {
    struct {
        double rows, ns; /* running means of this step's batches */
        double peak_ns;  /* largest of late: stands for the 99th percentile */
        uint64_t samples;
    } steps[TERSE_COST_STEPS];
} terse_cost;

void terse_cost_learn(terse_cost *cost, uint32_t rows, uint64_t ns);
bool terse_cost_known(const terse_cost *cost);
uint64_t terse_cost_samples(const terse_cost *cost, uint32_t rows); /* batches of about that size so far */
/* Expected time of a batch: between measured sizes on a straight line, beyond them in proportion to the rows (never
 * less than the smaller size took). 0 when nothing was measured. */
uint64_t terse_cost_of(const terse_cost *cost, uint32_t rows);
/* The time that 99 of 100 such batches need, by the same reckoning. 0 when nothing was measured. */
uint64_t terse_cost_peak(const terse_cost *cost, uint32_t rows);

/* The smallest batch, `most` rows at most, in which a row costs no more than `near` times what it costs in the best
 * one: a larger one would only make its members wait for each other. Where nothing larger has been measured, the next
 * step: it is tried when there is enough to do. `most` when nothing was measured at all. */
uint32_t terse_cost_limit(const terse_cost *cost, uint32_t most, double near);

#endif
