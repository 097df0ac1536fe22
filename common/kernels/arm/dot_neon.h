/* SPDX-License-Identifier: Apache-2.0 */
/* dot_neon.h: products of bytes with SDOT where it is, else with SMULL and SADALP. Both want signed bytes of A: 128 is
 * taken away from each, and a row of zeros treated alike says what that did to the sums. */
#ifndef TERSE_KERNELS_DOT_NEON_H
#define TERSE_KERNELS_DOT_NEON_H

#include <arm_neon.h>

#define DOT_SIGNED 1

typedef struct dot_b {
    int8x16_t q[4];
} dot_b;
typedef int8x16_t dot_a;

INLINE dot_b dot_load(const int8_t *b)
{
    return (dot_b){{vld1q_s8(b), vld1q_s8(b + 16), vld1q_s8(b + 32), vld1q_s8(b + 48)}};
}

INLINE dot_a dot_four(uint32_t bytes)
{
    return vreinterpretq_s8_u32(vdupq_n_u32(bytes ^ 0x80808080u));
}

#if defined(__ARM_FEATURE_DOTPROD)
typedef struct dot_sums {
    int32x4_t q[4];
} dot_sums;

/* 20 sums, 4 of the row of zeros, 4 of B, 1 of A. */
enum { DOT_ROWS = 5, DOT_PANELS = 2 };
#define DOT_WIDE(rows) ((rows) <= 1 ? 2 : 1)
#define DOT_LIST(X) X(1, 1) X(1, 2) X(2, 1) X(3, 1) X(4, 1) X(5, 1)

INLINE dot_sums dot_begin(const int32_t *bias)
{
    return (dot_sums){{vld1q_s32(bias), vld1q_s32(bias + 4), vld1q_s32(bias + 8), vld1q_s32(bias + 12)}};
}

INLINE dot_sums dot_add(dot_sums sums, dot_a a, dot_b b)
{
    UNROLL for (int i = 0; i < 4; i++) sums.q[i] = vdotq_s32(sums.q[i], b.q[i], a);
    return sums;
}

INLINE dot_sums dot_without(dot_sums sums, dot_sums zeros)
{
    UNROLL for (int i = 0; i < 4; i++) sums.q[i] = vsubq_s32(sums.q[i], zeros.q[i]);
    return sums;
}

INLINE void dot_store(int32_t *to, dot_sums sums)
{
    UNROLL for (int i = 0; i < 4; i++) vst1q_s32(to + 4 * i, sums.q[i]);
}
#else
/* Two columns in a register, two sums each: of the first and the second pair of K. */
typedef struct dot_sums {
    int32x4_t q[8];
} dot_sums;

/* 16 sums, 8 of the row of zeros, 4 of B, 2 of A. */
enum { DOT_ROWS = 2, DOT_PANELS = 1 };
#define DOT_WIDE(rows) 1
#define DOT_LIST(X) X(1, 1) X(2, 1)

INLINE dot_sums dot_begin(const int32_t *bias)
{
    dot_sums sums;
    UNROLL for (int i = 0; i < 4; i++)
    {
        int32x4_t x = vld1q_s32(bias + 4 * i), zero = vdupq_n_s32(0);
        sums.q[2 * i] = vzip1q_s32(x, zero);
        sums.q[2 * i + 1] = vzip2q_s32(x, zero);
    }
    return sums;
}

INLINE dot_sums dot_add(dot_sums sums, dot_a a, dot_b b)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        sums.q[2 * i] = vpadalq_s16(sums.q[2 * i], vmull_s8(vget_low_s8(b.q[i]), vget_low_s8(a)));
        sums.q[2 * i + 1] = vpadalq_s16(sums.q[2 * i + 1], vmull_high_s8(b.q[i], a));
    }
    return sums;
}

INLINE dot_sums dot_without(dot_sums sums, dot_sums zeros)
{
    UNROLL for (int i = 0; i < 8; i++) sums.q[i] = vsubq_s32(sums.q[i], zeros.q[i]);
    return sums;
}

INLINE void dot_store(int32_t *to, dot_sums sums)
{
    UNROLL for (int i = 0; i < 4; i++) vst1q_s32(to + 4 * i, vpaddq_s32(sums.q[2 * i], sums.q[2 * i + 1]));
}
#endif

INLINE v16 dot_to_float(const int32_t *sums)
{
    v16 x;
    UNROLL for (int i = 0; i < 4; i++) x.q[i] = vcvtq_f32_s32(vld1q_s32(sums + 4 * i));
    return x;
}

INLINE v16 dot_bytes_to_float(const uint8_t *bytes)
{
    uint8x16_t x = vld1q_u8(bytes);
    uint16x8_t low = vmovl_u8(vget_low_u8(x)), high = vmovl_high_u8(x);
    return (v16){{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_high_u16(low)),
                  vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_high_u16(high))}};
}

/* Bytes of sixteen values in the fixed point of dot_finish.h; returns a bit for each that is too near to a tie. Out of
 * range: a NaN becomes 0 and the least integer, both near, and the largest integer, whose upper half is clamped. */
INLINE uint32_t dot_sixteen(v16 t, const dot_scale *s, uint8_t *to)
{
    int32x4_t x[4];
    UNROLL for (int i = 0; i < 4; i++) x[i] = vcvtnq_s32_f32(t.q[i]);
    uint16x8_t lower[2], least = vdupq_n_u16(UINT16_MAX);
    int16x8_t upper[2];
    UNROLL for (int i = 0; i < 2; i++)
    {
        int16x8_t a = vreinterpretq_s16_s32(x[2 * i]), b = vreinterpretq_s16_s32(x[2 * i + 1]);
        lower[i] = vreinterpretq_u16_s16(vuzp1q_s16(a, b));
        least = vminq_u16(least, lower[i]);
        upper[i] = vminq_s16(vmaxq_s16(vuzp2q_s16(a, b), vdupq_n_s16(s->low)), vdupq_n_s16(s->high));
    }
    vst1q_u8(to, vcombine_u8(vqmovun_s16(upper[0]), vqmovun_s16(upper[1])));
    if (__builtin_expect(vminvq_u16(least) > s->near, 1))
        return 0;
    uint16_t lanes[16];
    uint32_t near = 0;
    vst1q_u16(lanes, lower[0]);
    vst1q_u16(lanes + 8, lower[1]);
    for (int i = 0; i < 16; i++)
        near |= (uint32_t)(lanes[i] <= s->near) << i;
    return near;
}

#include "common/kernels/vec/dot_sixteen.h"

#endif
