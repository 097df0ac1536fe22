/* SPDX-License-Identifier: Apache-2.0 */
/* winograd.h: weights of a 3x3 convolution in the form that Winograd's F(4x4,3x3) reads (common/kernels/winograd.h).
 * Runs in: terse-compress; terse and terse-loader, which make it of the weights that a packed file has in its place, a
 * quarter of the bytes. Owns nothing. */
#ifndef TERSE_COMMON_WINOGRAD_H
#define TERSE_COMMON_WINOGRAD_H

#include <stdint.h>

/* [n,c,3,3] into TERSE_LAYOUT_F32_WINOGRAD4; `to` is zeroed. The same bits on every CPU. */
void terse_winograd_expand(const float *from, int64_t n, int64_t c, float *to);

#endif
