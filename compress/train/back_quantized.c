/* SPDX-License-Identifier: Apache-2.0 */
/* Straight-through estimators (Bengio et al., arXiv:1308.3432, section 4) for QuantizeLinear and DequantizeLinear as
 * ONNX has them. The "gradient" of a tensor of bytes is that of the numbers that its bytes stand for. */
#include <math.h>

#include "compress/train/back.h"

static void bounds(terse_dtype dtype, float *low, float *high)
{
    *low = dtype == TERSE_INT8 ? -128 : dtype == TERSE_INT16 ? -32768 : 0;
    *high = dtype == TERSE_INT8 ? 127 : dtype == TERSE_INT16 ? 32767 : dtype == TERSE_UINT16 ? 65535 : 255;
}

static float zero_point_of(const terse_tensor *zero, int64_t at)
{
    if (!zero || !zero->data)
        return 0;
    at = terse_tensor_count(zero) == 1 ? 0 : at;
    switch (zero->dtype) {
    case TERSE_INT8:
        return (float)((const int8_t *)zero->data)[at];
    case TERSE_UINT8:
        return (float)((const uint8_t *)zero->data)[at];
    case TERSE_INT16:
        return (float)((const int16_t *)zero->data)[at];
    case TERSE_UINT16:
        return (float)((const uint16_t *)zero->data)[at];
    default:
        return 0;
    }
}

/* Where the number was cut off nothing comes back. Blocks along an axis count as not cut off. */
void terse_back_quantize(const terse_back *back)
{
    const terse_tensor *t = back->x[0], *scale = back->x[1], *zero = back->n_inputs > 2 ? back->x[2] : NULL;
    const float *x = t->data, *scales = scale->data, *dy = back->dy[0];
    const int64_t n = terse_tensor_count(t), n_scales = terse_tensor_count(scale);
    float low, high;
    int axis = 0;
    if (!back->dx[0] || !dy)
        return;
    bounds(back->y[0]->dtype, &low, &high);
    const bool known = n_scales == 1 || (scale->rank == 1 && terse_op_axis(terse_node_int(back->node, "axis", 1),
                                                                           t->rank, &axis, NULL) == TERSE_OK);
    const int64_t inner = n_scales == 1 || !known ? 1 : terse_dims_count(t->dims + axis + 1, t->rank - axis - 1);
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = n_scales == 1 ? 0 : i / inner % n_scales;
        const float q = known ? x[i] / scales[at] + zero_point_of(zero, at) : 0;
        if (!known || (q >= low - 0.5f && q <= high + 0.5f))
            back->dx[0][i] += dy[i];
    }
}

void terse_back_dequantize(const terse_back *back)
{
    const int64_t n = terse_tensor_count(back->y[0]);
    for (int64_t i = 0; back->dx[0] && back->dy[0] && i < n; i++)
        back->dx[0][i] += back->dy[0][i];
}
