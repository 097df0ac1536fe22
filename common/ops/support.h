/* SPDX-License-Identifier: Apache-2.0 */
/* support.h: what several operator families share: fused activations, scratch layout, images to channels-last and back.
 * Runs in: terse-worker, terse run, terse-compress. Owns nothing. */
#ifndef TERSE_OPS_SUPPORT_H
#define TERSE_OPS_SUPPORT_H

#include "common/ops/op.h"

/* The attributes `activation`, `activation_alpha`, `activation_beta` that passes add. None without them. */
int terse_support_activation(const terse_node *node, terse_activation *ret_activation, terse_error *error);

/* What the epilogue of a product reads, where the input is there: a bias [n] in FP32, a residual of these dims. `what`
 * names the bias in messages. */
int terse_support_bias(const terse_op_plan *plan, int index, const char *what, int64_t n, terse_error *error);
int terse_support_residual(const terse_op_plan *plan, int index, terse_dtype dtype, int rank, const int64_t *dims,
                           terse_error *error);

/* Reserves n floats (n: the product of the given dims) behind *total, 64-byte aligned; *ret_offset is in bytes.
 * Fails when the sum passes what a tensor may have. */
int terse_support_reserve(size_t *total, int n_dims, const int64_t *dims, size_t *ret_offset, terse_error *error);
#define TERSE_RESERVE(total, ret_offset, error, ...)                                                                   \
    terse_support_reserve(total, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__},  \
                          ret_offset, error)
static inline float *terse_support_at(void *scratch, size_t offset)
{
    return scratch ? (float *)(void *)((char *)scratch + offset) : NULL; /* NULL: a plan that needs no scratch */
}

/* The product of non-negative numbers, INT64_MAX when it is larger: for MACs, which are only reported. */
int64_t terse_support_product(int n, const int64_t *factors);
#define TERSE_PRODUCT(...)                                                                                             \
    terse_support_product((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

/* Attributes with bounds: fails naming attribute, value found and what is allowed. */
int terse_support_int(const terse_node *node, const char *name, int64_t fallback, int64_t min, int64_t max,
                      int64_t *ret_value, terse_error *error);

/* Image `index` of an activation [N,C,spatial...] to dense [spatial...][C] floats and back. The innermost rows may be
 * strided (tensor->row_stride). */
void terse_support_image_load(const terse_kernels *kernels, const terse_tensor *tensor, int64_t index, float *pixels);
void terse_support_image_store(const terse_kernels *kernels, const terse_tensor *tensor, int64_t index,
                               const float *pixels);
/* The bytes of a tensor without gaps: its own when it is dense, else copied to `room` (terse_tensor_bytes). */
const void *terse_support_dense(const terse_tensor *tensor, void *room);

#endif
