/* SPDX-License-Identifier: Apache-2.0 */
/* knapsack.h: one option for each layer, so that together they weigh at most so much and cost least.
 * Runs in: terse-compress (and the tests). Owns nothing.
 *
 * The multiple-choice knapsack by dynamic programming over buckets of weight (as SPDY does: Frantar and Alistarh 2022,
 * "SPDY: Accurate Pruning with Speedup Guarantees", section 3.2). Weights are rounded up to buckets, so what is found
 * never weighs more than the budget; it costs least among what fits after rounding. */
#ifndef TERSE_SEARCH_KNAPSACK_H
#define TERSE_SEARCH_KNAPSACK_H

#include <stdbool.h>

enum { TERSE_KNAPSACK_BUCKETS = 10000 };

typedef struct terse_knapsack_layer {
    int n;                       /* options, at least one */
    const double *weight, *cost; /* >= 0, finite */
} terse_knapsack_layer;

typedef enum terse_knapsack_outcome {
    TERSE_KNAPSACK_FOUND,
    TERSE_KNAPSACK_TOO_LITTLE, /* the lightest options weigh more than the budget; chosen are they */
    TERSE_KNAPSACK_NO_MEMORY
} terse_knapsack_outcome;

/* chosen[layer]: the option. */
terse_knapsack_outcome terse_knapsack_solve(const terse_knapsack_layer *layers, int n, double budget, int *ret_chosen);

#endif
