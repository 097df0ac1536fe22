/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h: runs a graph: plans (one per set of input shapes) over one shared arena.
 * Runs in: terse-worker, terse run, terse-compress. One thread at a time per engine.
 * Ownership: the engine borrows the graph (and the model mapping under it) and owns its plans and arena. */
#ifndef TERSE_GRAPH_ENGINE_H
#define TERSE_GRAPH_ENGINE_H

#include "common/graph/graph.h"
#include "common/graph/threads.h"
#include "common/kernels/kernels.h"

typedef struct terse_engine terse_engine;
typedef struct terse_plan terse_plan;

/* max_plans: how many plans are kept (the least recently used goes first); at least 1.
 * max_arena_bytes: plans that need more fail with RESOURCE_EXHAUSTED; 0 means no limit. */
int terse_engine_new(const terse_graph *graph, const terse_kernels *kernels, int max_plans, size_t max_arena_bytes,
                     terse_engine **ret_engine, terse_error *error);
void terse_engine_free(terse_engine *engine);
void terse_engine_freep(terse_engine **engine);

/* Plans made from now on may do a step in parts on up to n threads of the pool, which outlives the engine and serves
 * one engine at a time. A plan's first runs measure which steps become faster by that; no bit of a result depends on
 * it. */
int terse_engine_use_threads(terse_engine *engine, terse_threads *threads, int n, terse_error *error);

/* The plan for inputs of these dtypes and dims (n = graph->n_inputs, graph order), made if it is not cached.
 * inputs[i].data is read only for the inputs in terse_engine_value_inputs: there the plan depends on the values.
 * Fails with INVALID_ARGUMENT naming the input when rank, dtype, a fixed dimension or a symbol does not fit.
 * The plan stays valid until the next call of this function. */
int terse_engine_plan(terse_engine *engine, const terse_tensor *inputs, terse_plan **ret_plan, terse_error *error);
/* Bit i: a plan depends on the values of input i (it is a shape operand somewhere). Inputs 64 and up never are. */
uint64_t terse_engine_value_inputs(const terse_engine *engine);

/* Shape and dtype of output i (data is NULL). */
const terse_tensor *terse_plan_output(const terse_plan *plan, int index);
/* Shape and dtype of any value (constants and inputs too); data is set for constants and for values known when the plan
 * was made (computed from shapes and constants), else NULL. NULL for a value that no node of this plan makes. */
const terse_tensor *terse_plan_value(const terse_plan *plan, int value);
size_t terse_plan_arena_bytes(const terse_plan *plan);
int64_t terse_plan_macs(const terse_plan *plan); /* multiply-accumulates of Conv, Gemm, MatMul, ConvTranspose, RNNs */

/* Runs: inputs and outputs are dense buffers of the plan's sizes, any alignment that suits the dtype; an output
 * pointer may be NULL (the output is not copied out). Outputs may not overlap inputs. Allocates nothing. */
int terse_plan_run(terse_plan *plan, const void *const *inputs, void *const *outputs, terse_error *error);

/* Whether the next run still measures what is faster in parts; false where there is one thread. */
bool terse_plan_measuring(const terse_plan *plan);

/* Per-node times of the next runs: nanoseconds are added to times[node] (graph->n_nodes of them); NULL stops. */
void terse_plan_profile(terse_plan *plan, uint64_t *times);
/* Observes every computed tensor of the next runs, for calibration; NULL stops. */
typedef void terse_observer(void *context, int value, const terse_tensor *tensor);
void terse_plan_observe(terse_plan *plan, terse_observer *observer, void *context);

/* Runs one node on known inputs (NULL where absent); outputs (node->n_outputs of them) get bytes in `arena`. Fails with
 * RESOURCE_EXHAUSTED when outputs and scratch need more than max_bytes. For constant folding and shape subgraphs. */
int terse_node_evaluate(const terse_node *node, const terse_kernels *kernels, const terse_tensor *const *inputs,
                        terse_arena *arena, size_t max_bytes, terse_tensor *ret_outputs, terse_error *error);

#endif
