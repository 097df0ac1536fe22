/* SPDX-License-Identifier: Apache-2.0 */
/* scheme.h: which nodes of a network run on bytes, which tensors are bytes, and which of them share a scale.
 * Runs in: terse-compress (and the tests). Ownership: a scheme owns its arrays and borrows the graph.
 *
 * Design notes. A product with constant weights (Conv, Gemm, MatMul) that is not kept at FP32 is a layer of bytes: it
 * reads bytes, so its input is demanded. Walking backwards, what hands a demanded tensor on (Concat, pools, Reshape
 * ...) or computes it out of bytes (Add, Mul, a function of one tensor) runs on bytes too, where all that it reads can
 * be had as bytes; its inputs are demanded in turn. A product whose output is not demanded gives FP32. A demanded
 * tensor is quantized where it is made; nodes read the bytes, graph outputs keep the FP32 numbers. */
#ifndef TERSE_QUANTIZE_SCHEME_H
#define TERSE_QUANTIZE_SCHEME_H

#include "compress/passes/edit.h"
#include "compress/quantize/histogram.h"

typedef enum terse_scheme_kind {
    TERSE_SCHEME_FLOAT = 0, /* runs on FP32 */
    TERSE_SCHEME_PRODUCT,   /* INT8 weights */
    TERSE_SCHEME_MOVE,      /* the same bytes: input and output share a scale */
    TERSE_SCHEME_COMPUTE,   /* bytes to bytes, each with a scale of its own */
} terse_scheme_kind;

typedef struct terse_scheme {
    const terse_graph *graph;
    terse_scheme_kind *kinds; /* per node */
    bool *demanded;           /* per value: becomes bytes */
    int *group;               /* per value: the value that stands for all that share its scale (itself when alone) */
    bool *given;              /* per value: demanded, but what makes it gives FP32 (or it is an input) */
    bool *source;             /* per value: demanded, and its numbers are in no other tensor of the group */
} terse_scheme;

/* kept[node]: a layer that stays at FP32. May be NULL: none does. */
int terse_scheme_build(const terse_graph *graph, const bool *kept, terse_scheme *ret_scheme, terse_error *error);
void terse_scheme_done(terse_scheme *scheme); /* accepts a zeroed one */

/* Can the node be a layer of bytes at all? Else `reason` says why not (when it is a product). */
bool terse_scheme_can_quantize(const terse_graph *graph, int node, char *reason, size_t size);

/* Products whose activation has no form on bytes but is a table (Sigmoid, HardSwish ...) hand it to a node behind them;
 * so do those with LeakyRelu and the like, and convolutions with a Swish. Clip stays: it is in the range. Gelu and the
 * Swish of a matrix product stay, computed in FP32. */
int terse_scheme_split_activations(terse_graph *graph, terse_error *error);

/* Does a node read the bytes of its input `slot` (turned back into FP32)? */
bool terse_scheme_reads_bytes(const terse_scheme *scheme, int node, int slot);

/* Writes QuantizeLinear and DequantizeLinear nodes for everything that the scheme wants: activations as UINT8 with
 * `affine[value]` (members of a group have the same), weights as INT8 per output channel. `weights[node]`: the integers
 * in ONNX's order and one scale per output channel, for each product of the scheme. The graph is changed in place; bias
 * and everything else stays FP32. Node and value names: that of the layer or value, "/" and what it is. */
typedef struct terse_int8_weights {
    int8_t *q;     /* as many as the constant has; in memory that outlives the graph, or in its arena */
    float *scales; /* one per output channel */
    int codes;     /* different integers, where --cluster made them few; else 0 */
} terse_int8_weights;
int terse_scheme_insert(terse_graph *graph, const terse_scheme *scheme, const terse_affine *affine,
                        const terse_int8_weights *weights, terse_error *error);

/* The axis of output channels in the weights (input 1) of a product: 0 for Conv, 1 else; and how many there are. */
int terse_scheme_channel_axis(const terse_node *node);

#endif
