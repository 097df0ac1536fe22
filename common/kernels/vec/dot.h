/* SPDX-License-Identifier: Apache-2.0 */
/* dot.h: what a tier gives to the products of bytes, beside v16.h:
 *   dot_sums    sixteen 32-bit sums (in a form of the tier's own), begun with a bias and stored at the end
 *   dot_a, dot_b  four of K: the same for all columns, and of sixteen columns
 *   dot_bytes   four times sixteen requantized bytes */
#ifndef TERSE_KERNELS_VEC_DOT_H
#define TERSE_KERNELS_VEC_DOT_H

#include <stdbool.h>

#include "common/kernels/vec/v16.h"

/* Constants of dot_finish.h's fixed point. */
typedef struct dot_scale {
    float begin, low, high, residual; /* begin: 256.5 + zero point + slack - the residual's zero point */
    uint16_t near;                    /* twice the distance that is too near to a tie */
} dot_scale;

#if defined(__AVX512VNNI__)
#include "common/kernels/x86/dot_avx512.h"
#endif

#endif
