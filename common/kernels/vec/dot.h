/* SPDX-License-Identifier: Apache-2.0 */
/* dot.h: what a tier gives to the products of bytes, beside v16.h:
 *   dot_sums    sixteen 32-bit sums (in a form of the tier's own), begun with a bias and stored at the end
 *   dot_a, dot_b  four of K: the same for all columns, and of sixteen columns
 *   dot_bytes   four times sixteen requantized bytes */
#ifndef TERSE_KERNELS_VEC_DOT_H
#define TERSE_KERNELS_VEC_DOT_H

#include <stdbool.h>
#include <string.h>

#include "common/kernels/vec/v16.h"

/* dot_finish.h's fixed point: units of 1. */
#define DOT_UNIT 65536.0f

typedef struct dot_scale {
    float begin, residual; /* zero point + 1/2 - the residual's zero point, with the slack; its scale. In units */
    int16_t low, high;
    uint16_t near; /* the distance that is too near to a tie */
} dot_scale;

#if defined(__AVX512VNNI__)
#include "common/kernels/x86/dot_avx512.h"
#elif defined(__AVX2__)
#include "common/kernels/x86/dot_avx2.h"
#elif defined(__aarch64__)
#include "common/kernels/arm/dot_neon.h"
#endif

#endif
