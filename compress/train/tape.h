/* SPDX-License-Identifier: Apache-2.0 */
/* tape.h: a network computed forwards with what its gradients need kept, and then backwards.
 * Runs in: terse-compress (and the tests). Ownership: a tape borrows graph and kernels, owns all tensors but inputs and
 * constants. One thread at a time per tape; different tapes may run in different threads.
 *
 * Design notes. Forwards every node runs by the engine's own operator (common/ops), so training sees the numbers that
 * are served; only BatchNormalization by statistics of the batch is the tape's. Nodes that read nothing but constants
 * run once, while the tape is made. Backwards each operator has a function in back.h's table (reverse-mode
 * differentiation; Griewank and Walther, "Evaluating Derivatives", 2008, chapter 3). A tensor's room is given back
 * behind its last reader, forwards or backwards, and rooms are shared by the engine's own planner (offsets.c).
 *
 * A value with a fake quantizer has two tensors: the one its maker wrote, which the maker's gradient reads, and the
 * rounded one that all readers see; gradients pass straight through where nothing was cut off (Bengio et al.,
 * arXiv:1308.3432, section 4; Jacob et al., arXiv:1712.05877, section 3). */
#ifndef TERSE_TRAIN_TAPE_H
#define TERSE_TRAIN_TAPE_H

#include "common/graph/graph.h"
#include "common/kernels/kernels.h"

/* UINT8 bytes of an activation: round(x / scale) + zero_point, cut to 0..255. scale 0: none. */
typedef struct terse_train_affine {
    float scale;
    int32_t zero_point;
} terse_train_affine;

typedef struct terse_tape_options {
    const char *trained;              /* per value: 1 where a constant is to get a gradient; NULL: none */
    const char *targets;              /* per value: 1 where the caller puts gradients in and reads numbers */
    const terse_train_affine *affine; /* per value: fake quantizers, or NULL */
    bool backward;                    /* false: only forwards, memory given back early */
    bool grad_inputs;                 /* FP32 graph inputs get gradients too (tests) */
} terse_tape_options;

typedef struct terse_tape terse_tape;

/* Makes a tape for inputs of these dtypes and dims (graph order; data is read only where a shape depends on it).
 * The graph has no fused activations, residuals or packed constants (terse_unfuse, canonical ONNX); otherwise
 * UNIMPLEMENTED or INVALID_ARGUMENT naming the node. */
int terse_tape_new(const terse_graph *graph, const terse_tensor *inputs, const terse_tape_options *options,
                   terse_tape **ret_tape, terse_error *error);
void terse_tape_free(terse_tape *tape);
void terse_tape_freep(terse_tape **tape);
size_t terse_tape_bytes(const terse_tape *tape); /* of tensors and gradients */

/* The numbers of a constant from now on (floats of its dims): a parameter being trained. */
void terse_tape_set_constant(terse_tape *tape, int value, const float *data);
/* BatchNormalization by the statistics of the batch (true) or by its constants (false, the default). */
void terse_tape_set_training(terse_tape *tape, bool training);
/* Computes all nodes for these inputs (dense, graph order). */
int terse_tape_forward(terse_tape *tape, const void *const *inputs, terse_error *error);
/* The tensor of a value as its readers see it; of a target as its maker wrote it. */
const terse_tensor *terse_tape_value(const terse_tape *tape, int value);
/* Where the caller adds the gradient of the loss, between forward and backward: NULL when no parameter is behind the
 * value. Zeroed by terse_tape_forward. */
float *terse_tape_gradient(terse_tape *tape, int value);
/* Adds gradients of the trained constants to what terse_tape_parameter_gradient gives, which the caller zeroes. */
int terse_tape_backward(terse_tape *tape, terse_error *error);
/* NULL where no gradient can reach the constant. */
float *terse_tape_parameter_gradient(terse_tape *tape, int value);
/* Mean and unbiased variance of the batch at a BatchNormalization (node number), C floats each; NULL elsewhere and for
 * a tape that is not training. */
const float *terse_tape_statistics(const terse_tape *tape, int node, int64_t *ret_channels);

/* An operator without a gradient stands between a parameter and the targets there. */
bool terse_tape_blocked(const terse_tape *tape, int node);

#endif
