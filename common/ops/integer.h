/* SPDX-License-Identifier: Apache-2.0 */
/* integer.h: products of bytes as ONNX has them (MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv): any mix of
 * UINT8 and INT8, zero points of any shape. Runs in: terse-worker, terse run, terse-compress. Owns nothing.
 *
 * Design notes. The kernels multiply UINT8 by INT8, so an INT8 left operand is raised by 128 (its top bit turned) and a
 * UINT8 right operand lowered by 128, their zero points with them. With those a, za, b, zb the sum over K of
 * (a - za) * (b - zb) is sum(a*b) - za * sum(b) - zb * sum(a) + K * za * zb; all of it wraps around in 32 bits, so the
 * result is exact whenever the true one fits. */
#ifndef TERSE_OPS_INTEGER_H
#define TERSE_OPS_INTEGER_H

#include "common/ops/support.h"

#define TERSE_TYPES_BYTES (1u << TERSE_UINT8 | 1u << TERSE_INT8)

/* Bytes reserved behind *total, 64-byte aligned. */
static inline int terse_integer_reserve(size_t *total, int64_t a, int64_t b, size_t *ret_offset, terse_error *error)
{
    const int64_t bytes = a > 0 && b > TERSE_MAX_TENSOR_BYTES / a ? -1 : a * b;
    return TERSE_RESERVE(total, ret_offset, error, bytes < 0 ? -1 : bytes / 4 + 1);
}

static inline int32_t terse_integer_byte(const terse_tensor *tensor, int64_t index)
{
    return tensor->dtype == TERSE_INT8 ? ((const int8_t *)tensor->data)[index] : ((const uint8_t *)tensor->data)[index];
}

/* Copies n bytes, the top bit turned where `flip` is 0x80. */
static inline void terse_integer_copy(const uint8_t *from, uint8_t flip, uint8_t *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] ^ flip;
}

/* The integer nearest to v, ties to even, plus zero_point, within the output's dtype. */
static inline uint8_t terse_integer_round(double v, int32_t zero_point, bool is_signed)
{
    const double low = is_signed ? -128 : 0, high = is_signed ? 127 : 255;
    v = __builtin_rint(v) + zero_point;
    v = v != v ? zero_point : v < low ? low : v > high ? high : v;
    return is_signed ? (uint8_t)(int8_t)v : (uint8_t)v;
}

/* Fails unless scale (FP32) and zero point (of the dtype of input `like`) at these inputs are there, one element each.
 */
int terse_integer_scalar(const terse_op_plan *plan, int scale, int zero_point, terse_error *error);

#endif
