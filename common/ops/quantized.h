/* SPDX-License-Identifier: Apache-2.0 */
/* quantized.h: what the integer operators share: how sums of bytes become outputs, checked once when a plan is made.
 * Runs in: terse-worker, terse run, terse-compress. Owns nothing. */
#ifndef TERSE_OPS_QUANTIZED_H
#define TERSE_OPS_QUANTIZED_H

#include "common/ops/op.h"

/* Where a product (QConv, QGemm) has what its epilogue reads. */
enum {
    TERSE_QUANTIZED_MULTIPLIER = 2,
    TERSE_QUANTIZED_BIAS = 3,
    TERSE_QUANTIZED_RESIDUAL = 4,
    TERSE_QUANTIZED_BIAS_F32 = 5,
    TERSE_QUANTIZED_X_SCALE = 6,
    TERSE_QUANTIZED_X_ZERO_POINT = 7,
    TERSE_QUANTIZED_SUMS = 8,
};

/* Reads attributes and checks inputs 2 to 5 of a product with `n` columns and an output of these dims; fills output 0
 * and all of *ret_requantize but its pointers. */
int terse_quantized_plan(terse_op_plan *plan, int64_t n, int rank, const int64_t *dims,
                         terse_requantize *ret_requantize, terse_error *error);
/* The same with the pointers of a call. */
terse_requantize terse_quantized_bind(const terse_op_call *call, const terse_requantize *planned);

/* Scale and zero point of x may be known only at run time (inputs 6 and 7, dynamic quantization). Then the multiplier
 * is that of the weights alone and the bias lacks what the zero point adds; both are completed in scratch, with the
 * sums of the weights' columns (input 8). */
typedef struct terse_quantized_dynamic {
    bool on;
    int64_t n;
    size_t multiplier, bias; /* offsets in scratch */
} terse_quantized_dynamic;

/* Checks inputs 6 to 8 and reserves scratch behind *total. */
int terse_quantized_dynamic_plan(const terse_op_plan *plan, int64_t n, terse_sums_to to, size_t *total,
                                 terse_quantized_dynamic *ret_dynamic, terse_error *error);
/* Multiplier and bias of this call; the zero point of x. */
uint8_t terse_quantized_complete(const terse_op_call *call, const terse_quantized_dynamic *dynamic,
                                 terse_requantize *to);

/* A zero point or limit, 0..255. */
int terse_quantized_byte(const terse_node *node, const char *name, int64_t fallback, int32_t *ret_value,
                         terse_error *error);
/* A finite number of reasonable size; it must be there. */
int terse_quantized_scale(const terse_node *node, const char *name, double *ret_value, terse_error *error);
/* 0 <= low <= high <= 255. */
int terse_quantized_range(const terse_node *node, int32_t *ret_low, int32_t *ret_high, terse_error *error);
/* What the compressor measured for this tier (attribute "tuned_<isa>": rows, part_bytes), else zeros: the fixed choice.
 */
int terse_quantized_tiling(const terse_op_plan *plan, terse_tiling *ret_tiling, terse_error *error);

#endif
