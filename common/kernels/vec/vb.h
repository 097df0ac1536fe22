/* SPDX-License-Identifier: Apache-2.0 */
/* vb.h: a register of VB bytes, the unit of the kernels on bytes that are no dense product: one zmm, ymm or NEON
 * register.
 *   vb, vi, vf       VB bytes; VB / 4 32-bit integers; VB / 4 floats
 *   zips             within every sixteen bytes, so that widening by zips or by vb_widen gives the "quarters": quarter
 *                    i holds bytes 4 i to 4 i + 3 of every sixteen
 *   vi_dot           adds the products of four neighbouring bytes (x less 128 where VB_SIGNED) and weights
 *   vb_from_fixed    packs four quarters back, in order (fixed.h) */
#ifndef TERSE_KERNELS_VEC_VB_H
#define TERSE_KERNELS_VEC_VB_H

#include <stdbool.h>

#include "common/kernels/vec/v16.h"

#if defined(__AVX512F__)
#include "common/kernels/x86/vb_avx512.h"
#elif defined(__AVX2__)
#include "common/kernels/x86/vb_avx2.h"
#elif defined(__aarch64__)
#include "common/kernels/arm/vb_neon.h"
#endif

#if !defined(__AVX512F__)
/* Only the n bytes are read; the others are zero. */
static inline vb vb_load_n(const uint8_t *p, int n)
{
    uint8_t bytes[VB] = {0};
    memcpy(bytes, p, (size_t)n);
    return vb_load(bytes);
}

static inline void vb_store_n(uint8_t *p, vb x, int n)
{
    uint8_t bytes[VB];
    vb_store(bytes, x);
    memcpy(p, bytes, (size_t)n);
}
#endif

INLINE vb vb_load_up_to(const uint8_t *p, int64_t n)
{
    return n >= VB ? vb_load(p) : vb_load_n(p, (int)n);
}

INLINE void vb_store_up_to(uint8_t *p, vb x, int64_t n)
{
    if (n >= VB)
        vb_store(p, x);
    else
        vb_store_n(p, x, (int)n);
}

/* Four bytes of each column side by side: quarter i has columns 4 i to 4 i + 3 of every sixteen. */
INLINE void vb_quads(vb a, vb b, vb c, vb d, vb ret_quarters[4])
{
    const vb low_ab = vb_zip_lo8(a, b), low_cd = vb_zip_lo8(c, d);
    const vb high_ab = vb_zip_hi8(a, b), high_cd = vb_zip_hi8(c, d);
    ret_quarters[0] = vb_zip_lo16(low_ab, low_cd);
    ret_quarters[1] = vb_zip_hi16(low_ab, low_cd);
    ret_quarters[2] = vb_zip_lo16(high_ab, high_cd);
    ret_quarters[3] = vb_zip_hi16(high_ab, high_cd);
}

#endif
