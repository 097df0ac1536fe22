/* SPDX-License-Identifier: Apache-2.0 */
/* samples.h: the samples of an .npz file as inputs of a graph: for validation and calibration.
 * Runs in: terse-compress (and the tests). Ownership: samples borrow the graph and the file, and own two arrays. */
#ifndef TERSE_COMPRESS_SAMPLES_H
#define TERSE_COMPRESS_SAMPLES_H

#include "common/graph/graph.h"
#include "common/npz.h"

typedef struct terse_samples {
    const terse_graph *graph;
    const terse_tensor **tensors; /* per input */
    int64_t *rows; /* rows of axis 0 that one sample has: 1, or what the graph fixes; 0: rank 0, the same always */
    const terse_tensor *labels; /* or NULL */
    int64_t samples;
    int64_t batch; /* samples a run at most: 1 unless the graph is batchable */
} terse_samples;

/* `data`: every input under its name, axis 0 = samples, optionally "labels" (integers, one a sample); nothing else.
 * Fails with INVALID_ARGUMENT naming the key; terse_samples_done is due also then. */
int terse_samples_open(const terse_graph *graph, const terse_npz *data, terse_samples *f, terse_error *error);
void terse_samples_done(terse_samples *f);

/* Views of samples first .. first + n - 1: dims for a plan, pointers for a run (graph->n_inputs of each). */
void terse_samples_views(const terse_samples *f, int64_t first, int64_t n, terse_tensor *views, const void **pointers);

#endif
