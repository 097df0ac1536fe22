/* SPDX-License-Identifier: Apache-2.0 */
/* replay.h: a network computed node by node on a few samples, with some of its tensors and weights as bytes would have
 * them: what quantization costs, before there is a quantized network.
 * Runs in: terse-compress (and the tests). Ownership: a replay borrows graph and samples and owns the numbers.
 *
 * Design notes. Samples come in chunks (several rows where the graph is batchable, else one sample), each with its own
 * numbers; so nodes can be walked in lockstep over all chunks, or chunks one after the other. A value's numbers are
 * released behind the last node that reads them, unless all are to be kept. A trial is a second set of numbers on top
 * of a kept one: only what differs is computed, so trying one layer costs what is behind it. */
#ifndef TERSE_QUANTIZE_REPLAY_H
#define TERSE_QUANTIZE_REPLAY_H

#include "common/kernels/kernels.h"
#include "compress/quantize/scheme.h"
#include "compress/samples.h"

/* What stands in the place of the FP32 network; every member may be NULL: then nothing does. */
typedef struct terse_disguise {
    const terse_scheme *scheme;
    const terse_affine *affine; /* per value; scale 0: FP32 */
    float *const *weights;      /* per node: input 1 in its place, or NULL */
    float *const *bias;         /* per node: input 2 in its place, or NULL */
} terse_disguise;

typedef struct terse_replay terse_replay;
typedef struct terse_numbers terse_numbers; /* the tensors of one chunk */

/* `n_samples` of the samples, evenly spread, in chunks of at most `rows`. */
int terse_replay_new(const terse_graph *graph, const terse_samples *samples, int64_t n_samples, int64_t rows,
                     terse_replay **ret_replay, terse_error *error);
void terse_replay_free(terse_replay *replay);
void terse_replay_freep(terse_replay **replay);
int terse_replay_chunks(const terse_replay *replay);
int64_t terse_replay_chunk_samples(const terse_replay *replay, int chunk);

/* The inputs of a chunk, nothing computed yet. keep: numbers stay until the set is freed. base: NULL, or a kept set of
 * which this is a trial: nothing differs yet. */
int terse_numbers_new(const terse_replay *replay, int chunk, bool keep, const terse_disguise *disguise,
                      const terse_numbers *base, terse_numbers **ret_numbers, terse_error *error);
void terse_numbers_free(terse_numbers *numbers);
void terse_numbers_freep(terse_numbers **numbers);

/* Computes one node; its inputs must be there. A trial computes it only when an input differs from the base's.
 * What it makes becomes bytes as the disguise says. */
int terse_numbers_step(terse_numbers *numbers, int node, terse_error *error);
/* Computes `node` from the numbers of a set without disguise as `disguise` would have it: inputs go through the bytes
 * as they are read, weights and bias are replaced. Outputs in `arena`, FP32. */
int terse_numbers_try(const terse_numbers *numbers, int node, const terse_disguise *disguise, terse_arena *arena,
                      terse_tensor *ret_outputs, terse_error *error);
/* In a trial: these are the outputs of `node`; the set owns the arena from now on. */
void terse_numbers_put(terse_numbers *numbers, int node, const terse_tensor *outputs, terse_arena *arena);
/* Input `slot` of `node` as it is read there, in memory of the set, the graph or `arena`. False when it is not there.
 */
bool terse_numbers_read(const terse_numbers *numbers, int node, int slot, terse_arena *arena, terse_tensor *ret_tensor);
/* Numbers of a value as it was made, NULL when they are not there (any more). */
const terse_tensor *terse_numbers_value(const terse_numbers *numbers, int value);
/* Those of a graph output, before they became bytes. NULL behind the last one. */
const terse_tensor *terse_numbers_output(const terse_numbers *numbers, int index);
/* Nobody reads the inputs of `node` for now: they may leave the memory (compress/spill.h). A step does so itself. */
void terse_numbers_rest(const terse_numbers *numbers, int node);
/* Bytes of all values held now. */
size_t terse_numbers_bytes(const terse_numbers *numbers);

/* Computes `node` (a copy of one of the graph, changed or not) from these inputs; outputs in `arena`. */
int terse_replay_evaluate(const terse_replay *replay, const terse_node *node, const terse_tensor *const *inputs,
                          terse_arena *arena, terse_tensor *ret_outputs, terse_error *error);

/* x through the bytes and back. */
void terse_replay_round(terse_affine affine, const float *x, float *y, int64_t n);

/* --- comparing ------------------------------------------------------------------------------------------------ */

/* What the outputs lost: noise over signal, the mean of all FP32 outputs, and KL of the first one's last axis. */
typedef struct terse_loss {
    double signal[64], noise[64]; /* sums of squares per output, for the first 64 */
    double divergence;
    int64_t rows; /* that divergence was summed over */
} terse_loss;

void terse_loss_add(terse_loss *loss, const terse_numbers *exact, const terse_numbers *found);
double terse_loss_share(const terse_loss *loss); /* noise / signal; 0: equal */
double terse_loss_decibels(double share);        /* -10 log10(share); INFINITY for 0 */
double terse_loss_kl(const terse_loss *loss);    /* per row, in nats */

#endif
