/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_neon.h: rows of activations looked up by TBL in four registers, the whole window at once. */
#ifndef TERSE_KERNELS_SPARSE_NEON_H
#define TERSE_KERNELS_SPARSE_NEON_H

#include <arm_neon.h>

typedef uint8x16_t sparse_index;

/* Each group's four bytes over a register, made signed as dot_four makes them. */
typedef struct sparse_a {
    dot_a q[4];
} sparse_a;

typedef uint8x16x4_t sparse_window;

enum { SPARSE_ROWS = DOT_ROWS, SPARSE_HALVES = 1 };

INLINE sparse_window sparse_load_window(const uint8_t *window)
{
    return (sparse_window){{vld1q_u8(window), vld1q_u8(window + 16), vld1q_u8(window + 32), vld1q_u8(window + 48)}};
}

INLINE sparse_index sparse_load_index(const uint8_t *index)
{
    return vld1q_u8(index);
}

INLINE sparse_a sparse_lookup(sparse_window window, sparse_index index)
{
    const uint32x4_t x = vreinterpretq_u32_u8(veorq_u8(vqtbl4q_u8(window, index), vdupq_n_u8(0x80)));
    return (sparse_a){{vreinterpretq_s8_u32(vdupq_laneq_u32(x, 0)), vreinterpretq_s8_u32(vdupq_laneq_u32(x, 1)),
                       vreinterpretq_s8_u32(vdupq_laneq_u32(x, 2)), vreinterpretq_s8_u32(vdupq_laneq_u32(x, 3))}};
}

#if defined(__ARM_FEATURE_DOTPROD)
INLINE dot_sums sparse_add(dot_sums sums, sparse_a a, dot_b b)
{
    UNROLL for (int i = 0; i < 4; i++) sums.q[i] = vdotq_s32(sums.q[i], b.q[i], a.q[i]);
    return sums;
}
#else
INLINE dot_sums sparse_add(dot_sums sums, sparse_a a, dot_b b)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        sums.q[2 * i] = vpadalq_s16(sums.q[2 * i], vmull_s8(vget_low_s8(b.q[i]), vget_low_s8(a.q[i])));
        sums.q[2 * i + 1] = vpadalq_s16(sums.q[2 * i + 1], vmull_high_s8(b.q[i], a.q[i]));
    }
    return sums;
}
#endif

#endif
