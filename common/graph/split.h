/* SPDX-License-Identifier: Apache-2.0 */
/* split.h: kernels that do a call in parts on several threads.
 * Runs in: terse-worker, terse run. Ownership: a split borrows the pool and lives in the engine.
 *
 * terse_split has a table like that of a tier; operators that are given it need to know nothing. Products are cut by
 * rows (pixels), or by columns where the weights are the larger operand; pools by rows; what goes element by element
 * by elements. Every piece is a call of the tier's own kernel, whose bits do not depend on the cut (kernels.h), so
 * neither do those of the whole. Scratch is asked for through the same table: each thread gets a share. */
#ifndef TERSE_GRAPH_SPLIT_H
#define TERSE_GRAPH_SPLIT_H

#include "common/graph/threads.h"
#include "common/kernels/kernels.h"

typedef struct terse_split {
    terse_kernels table;
    const terse_kernels *base;
    terse_threads *threads;
    int n; /* threads to use at most */
} terse_split;

/* `n` is cut to what the pool has. */
void terse_split_init(terse_split *split, const terse_kernels *base, terse_threads *threads, int n);

/* The split whose table this thread calls from now on; NULL when it is through. Returns the one before. Must be set
 * around every use of the table, asking for scratch included. */
const terse_split *terse_split_enter(const terse_split *split);

/* For operators with loops of their own: calls run(context, kernels, first, last, thread) for ranges that together are
 * 0..count-1, none but the last shorter than `grain`. With the table of a split they run side by side, `thread` being
 * less than terse_split_threads(kernels), and get the tier's own kernels; with any other table there is one range,
 * `kernels` is handed on and `thread` is 0. Ranges must not share memory that they write: an operator that needs
 * scratch plans for terse_split_threads(plan->kernels) shares. */
typedef void terse_split_range(void *context, const terse_kernels *kernels, int64_t first, int64_t last, int thread);
void terse_split_for(const terse_kernels *kernels, int64_t count, int64_t grain, terse_split_range *run, void *context);
int terse_split_threads(const terse_kernels *kernels);

#endif
