/* SPDX-License-Identifier: Apache-2.0 */
/* int8.h: weights of a product as INT8 with one scale per output channel.
 * Runs in: terse-compress (and the tests). Owns nothing. */
#ifndef TERSE_QUANTIZE_INT8_H
#define TERSE_QUANTIZE_INT8_H

#include "common/graph/graph.h"

/* Symmetric, -127..127. Each channel's range is clipped where that makes the mean square error less (Choukroun et al.
 * 2019, "Low-bit Quantization of Neural Networks for Efficient Inference", eq. 3, over a grid). A scale is made larger
 * where the bias, counted in input_scale * scale, would not fit 30 bits. `weights`: plain FP32 with channels along
 * `axis` (0, or 1 of two). `bias` may be NULL. q has as many numbers as the weights, in their order; scales one per
 * channel. */
int terse_int8_quantize(const terse_value *weights, int axis, const float *bias, float input_scale, int8_t *q,
                        float *scales, terse_error *error);
/* The FP32 numbers that the integers stand for. */
void terse_int8_dequantize(const terse_value *weights, int axis, const int8_t *q, const float *scales, float *w);

#endif
