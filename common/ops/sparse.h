/* SPDX-License-Identifier: Apache-2.0 */
/* sparse.h: what the products by sparse weights share: a matrix as the kernels want it, and what it costs.
 * Runs in: terse-worker, terse run, terse-compress. Owns nothing. */
#ifndef TERSE_OPS_SPARSE_H
#define TERSE_OPS_SPARSE_H

#include "common/ops/op.h"

/* The sizes of arguments of a convolution for a product of M rows by [K,N]. */
#define TERSE_SPARSE_MATRIX(conv, rows, columns, depth)                                                                \
    do {                                                                                                               \
        (conv)->n = (conv)->groups = 1;                                                                                \
        (conv)->channels = (depth);                                                                                    \
        (conv)->filters = (columns);                                                                                   \
        for (int axis = 0; axis < 3; axis++) {                                                                         \
            (conv)->in[axis] = (conv)->out[axis] = axis == 2 ? (rows) : 1;                                             \
            (conv)->kernel[axis] = (conv)->stride[axis] = (conv)->dilation[axis] = 1;                                  \
        }                                                                                                              \
    } while (0)

/* Multiply-accumulates of `rows` rows by sparse weights that would cost `dense` with all their zeros. */
int64_t terse_sparse_macs(const terse_tensor *weights, int64_t rows, int64_t dense);

/* Scratch of an FP32 product behind *total; and the product, args->b being the bytes of a constant in
 * TERSE_LAYOUT_F32_4X1. */
int terse_sparse_reserve(const terse_kernels *kernels, int64_t m, int64_t n, int64_t k, size_t *total,
                         size_t *ret_offset, terse_error *error);
void terse_sparse_multiply(const terse_kernels *kernels, const terse_gemm_f32_args *args, void *scratch);

#endif
