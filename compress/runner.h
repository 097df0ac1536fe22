/* SPDX-License-Identifier: Apache-2.0 */
/* runner.h: a graph that is run for its answers or its times: an engine, the plan for the inputs at hand, room for
 * outputs. Runs in: terse-compress (and the tests). Ownership: a runner borrows the graph and owns engine, plan and
 * outputs. */
#ifndef TERSE_COMPRESS_RUNNER_H
#define TERSE_COMPRESS_RUNNER_H

#include "common/graph/engine.h"

typedef struct terse_runner {
    terse_engine *engine;
    terse_plan *plan;
    void **outputs; /* per graph output, 64-byte aligned */
    int n_outputs;
} terse_runner;

/* With the kernels of this machine (or TERSE_ISA); terse_runner_done is due also after a failure. */
int terse_runner_init(const terse_graph *graph, terse_runner *r, terse_error *error);
void terse_runner_done(terse_runner *r); /* accepts a zeroed one */
/* The plan for these inputs (graph->n_inputs views), with room for its outputs. */
int terse_runner_plan(terse_runner *r, const terse_tensor *views, terse_error *error);

/* Element i of dense or strided bytes of the tensor's dtype, as a number. */
double terse_runner_number(const terse_tensor *tensor, const void *data, int64_t i);
/* Sorts `values`; n >= 1. */
double terse_runner_median(double *values, int n);

#endif
