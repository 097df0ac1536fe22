/* SPDX-License-Identifier: Apache-2.0 */
/* passes.h: the list of passes that turn an imported graph into the one that is served.
 * Runs in: terse-compress (and the tests). Ownership: passes change the graph in place; new bytes go into its arena.
 *
 * Every pass keeps what the network computes (up to rounding), never moves axis 0 and leaves a graph that
 * terse_graph_check accepts, so `batchable` stays true or false as the importer proved it. Each pass is one file. */
#ifndef TERSE_PASSES_PASSES_H
#define TERSE_PASSES_PASSES_H

#include "common/graph/graph.h"

/* The passes in their order. PREPARE: canonical products and fused patterns, weights still as ONNX has them; what
 * compresses weights (compress/low_rank) comes behind it. FINISH: the form for the engine: layouts and packed weights.
 */
typedef enum terse_passes_stage { TERSE_PASSES_PREPARE, TERSE_PASSES_FINISH } terse_passes_stage;

typedef struct terse_pass {
    const char *name;
    const char *purpose; /* one line */
    terse_passes_stage stage;
    int (*run)(terse_graph *graph, terse_error *error);
} terse_pass;

extern const terse_pass terse_passes_list[];
extern const int terse_passes_n;

/* Runs the passes of one stage; a failure is prefixed with the pass's name. */
int terse_passes_run(terse_graph *graph, terse_passes_stage stage, terse_error *error);

/* Dynamic quantization in the form of all quantized networks: products of dequantized x and weights. */
int terse_pass_dynamic(terse_graph *graph, terse_error *error);
/* Quantized activations become UINT8, quantized constant weights INT8 without zero points; inputs and outputs of the
 * network keep their dtype. */
int terse_pass_unsign(terse_graph *graph, terse_error *error);
/* Brings Gemm and MatMul by a constant to the normal form: alpha = beta = 1, transB = 0, B [K,N], bias [N]. */
int terse_pass_products(terse_graph *graph, terse_error *error);
/* BatchNormalization, constant Mul/Div/Add/Sub per channel, Pad and scales of products go into weights and attributes.
 */
int terse_pass_fold(terse_graph *graph, terse_error *error);
/* Gelu, HardSwish, HardSigmoid and LayerNormalization written out in small operators become one node. */
int terse_pass_patterns(terse_graph *graph, terse_error *error);
/* Activations and residual additions go into the Conv, Gemm or MatMul in front of them. */
int terse_pass_fuse(terse_graph *graph, terse_error *error);
/* Convolutions, pools and what lies between them move to channels-last activations. */
int terse_pass_channels_last(terse_graph *graph, terse_error *error);
/* Transposes in a row become one, those that move nothing become Reshapes or vanish. */
int terse_pass_transposes(terse_graph *graph, terse_error *error);
/* Attention over heads, written out between Transposes, becomes one node that moves nothing. */
int terse_pass_attention(terse_graph *graph, terse_error *error);
/* Products of bytes whose scale is known at run time only become QGemm and QConv. */
int terse_pass_lower_dynamic(terse_graph *graph, terse_error *error);
/* DequantizeLinear -> float operators -> QuantizeLinear become operators on bytes (common/ops/README.md). */
int terse_pass_lower(terse_graph *graph, terse_error *error);
/* Constants behind DequantizeLinear become FP32, and the products that read them get their normal form. */
int terse_pass_dequantize(terse_graph *graph, terse_error *error);
/* Products that terse_pass_bf16_mark has marked become BConv and BGemm; what flows between them becomes BF16. */
int terse_pass_bf16(terse_graph *graph, terse_error *error);
/* Marks all products (`--float bf16`); call it before the passes FINISH. */
int terse_pass_bf16_mark(terse_graph *graph, terse_error *error);
/* Constant weights of products and channels-last convolutions get the layout that the kernels read. */
int terse_pass_pack(terse_graph *graph, terse_error *error);

#endif
