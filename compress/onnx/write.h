/* SPDX-License-Identifier: Apache-2.0 */
/* write.h: from a terse_graph in canonical form (common/ops/README.md) to an ONNX file.
 * Runs in: terse-compress (and the tests). Ownership: the graph is only read.
 *
 * Takes what ONNX can say: graphs as imported, after the passes PREPARE (fused activations become nodes again) and with
 * thin factors, pruned weights or QuantizeLinear and DequantizeLinear in between. The opset is the lowest, from 18 on,
 * that has all operators and attributes that occur. Names of inputs and outputs stay; others are kept where they are
 * unique. */
#ifndef TERSE_ONNX_WRITE_H
#define TERSE_ONNX_WRITE_H

#include "common/graph/graph.h"

/* Bytes of the model, to be freed with free(). UNIMPLEMENTED names the node (or constant) that ONNX cannot say: an
 * operator on bytes or packed weights, as the passes FINISH make them; RESOURCE_EXHAUSTED above 2 GB. */
int terse_onnx_write_bytes(const terse_graph *graph, void **ret_bytes, size_t *ret_size, terse_error *error);
/* The same as a file, which appears when it is whole. */
int terse_onnx_write(const char *path, const terse_graph *graph, terse_error *error);

#endif
