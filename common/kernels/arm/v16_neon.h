/* SPDX-License-Identifier: Apache-2.0 */
/* v16_neon.h: v16 as four NEON registers. max and min are compares and selects: FMAX treats NaN and zeros otherwise. */
#ifndef TERSE_KERNELS_V16_NEON_H
#define TERSE_KERNELS_V16_NEON_H

#include <arm_neon.h>

typedef struct v16 {
    float32x4_t q[4];
} v16;

/* Thirty-two registers: 5 x 16 takes 20 accumulators, 4 of B and 5 of A, which compilers load early. */
enum { TILE_ROWS = 5, TILE_PANELS = 4, WINDOW_BLOCK = 4 };
#define TILE_WIDE(rows) ((rows) == 1 ? 4 : (rows) == 2 ? 2 : 1)
/* The tiles that are compiled: (rows, panels). */
#define TILE_LIST(X) X(1, 1) X(1, 2) X(1, 4) X(2, 1) X(2, 2) X(3, 1) X(4, 1) X(5, 1)
#define TILE_ENDS_IN_REGISTERS(rows) ((rows) >= 4)

INLINE v16 v16_load(const float *p)
{
    return (v16){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}

INLINE void v16_store(float *p, v16 x)
{
    UNROLL for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.q[i]);
}

INLINE v16 v16_load_n(const float *p, int n)
{
    float lanes[16] = {0};
    memcpy(lanes, p, (size_t)n * sizeof *p);
    return v16_load(lanes);
}

INLINE void v16_store_n(float *p, v16 x, int n)
{
    float lanes[16];
    v16_store(lanes, x);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}

INLINE v16 v16_set1(float x)
{
    float32x4_t v = vdupq_n_f32(x);
    return (v16){{v, v, v, v}};
}

INLINE v16 v16_zero(void)
{
    return v16_set1(0.0f);
}

#define V16_BINARY(name, op)                                                                                           \
    INLINE v16 v16_##name(v16 x, v16 y)                                                                                \
    {                                                                                                                  \
        return (v16){{op(x.q[0], y.q[0]), op(x.q[1], y.q[1]), op(x.q[2], y.q[2]), op(x.q[3], y.q[3])}};                \
    }

INLINE float32x4_t v16_max4(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

INLINE float32x4_t v16_min4(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

/* m when m > x or m is a NaN. */
INLINE float32x4_t v16_max_nan4(float32x4_t m, float32x4_t x)
{
    return vbslq_f32(vorrq_u32(vcgtq_f32(m, x), vmvnq_u32(vceqq_f32(m, m))), m, x);
}

INLINE float32x4_t v16_copysign4(float32x4_t magnitude, float32x4_t sign)
{
    return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude);
}

V16_BINARY(add, vaddq_f32)
V16_BINARY(sub, vsubq_f32)
V16_BINARY(mul, vmulq_f32)
V16_BINARY(div, vdivq_f32)
V16_BINARY(max, v16_max4)
V16_BINARY(min, v16_min4)
/* The maximum in which a NaN wins. */
V16_BINARY(max_nan, v16_max_nan4)
V16_BINARY(copysign, v16_copysign4)

INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
    return (v16){{vfmaq_f32(z.q[0], x.q[0], y.q[0]), vfmaq_f32(z.q[1], x.q[1], y.q[1]),
                  vfmaq_f32(z.q[2], x.q[2], y.q[2]), vfmaq_f32(z.q[3], x.q[3], y.q[3])}};
}

INLINE v16 v16_abs(v16 x)
{
    return (v16){{vabsq_f32(x.q[0]), vabsq_f32(x.q[1]), vabsq_f32(x.q[2]), vabsq_f32(x.q[3])}};
}

/* a < b ? x : y */
INLINE v16 v16_less(v16 a, v16 b, v16 x, v16 y)
{
    v16 z;
    UNROLL for (int i = 0; i < 4; i++) z.q[i] = vbslq_f32(vcltq_f32(a.q[i], b.q[i]), x.q[i], y.q[i]);
    return z;
}

INLINE float32x4_t v16_scale4(float32x4_t p, float32x4_t z, float32x4_t round)
{
    const int32x4_t bias = vdupq_n_s32(127);
    int32x4_t whole = vsubq_s32(vreinterpretq_s32_f32(z), vreinterpretq_s32_f32(round));
    int32x4_t half = vshrq_n_s32(whole, 1), rest = vsubq_s32(whole, half);
    p = vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23)));
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23)));
}

/* p * 2^n, n = z - round being whole numbers. */
INLINE v16 v16_scale(v16 p, v16 z, v16 round)
{
    v16 x;
    UNROLL for (int i = 0; i < 4; i++) x.q[i] = v16_scale4(p.q[i], z.q[i], round.q[i]);
    return x;
}

INLINE float v16_reduce_add(v16 x)
{
    float32x4_t a = vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

/* 4 x 4: x[i] lane j becomes x[j] lane i. */
INLINE void v16_transpose4(float32x4_t x[4])
{
    float32x4_t a = vtrn1q_f32(x[0], x[1]), b = vtrn2q_f32(x[0], x[1]);
    float32x4_t c = vtrn1q_f32(x[2], x[3]), d = vtrn2q_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    x[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    x[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    x[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}

/* x[i] lane j becomes x[j] lane i. */
INLINE void v16_transpose(v16 x[16])
{
    v16 y[16];
    UNROLL for (int row = 0; row < 4; row++)
    {
        UNROLL for (int column = 0; column < 4; column++)
        {
            float32x4_t t[4];
            UNROLL for (int i = 0; i < 4; i++) t[i] = x[4 * row + i].q[column];
            v16_transpose4(t);
            UNROLL for (int i = 0; i < 4; i++) y[4 * column + i].q[row] = t[i];
        }
    }
    UNROLL for (int i = 0; i < 16; i++) x[i] = y[i];
}

/* x, in registers from here on: here nothing else can be. */
INLINE v16 v16_keep(v16 x)
{
    return x;
}

/* Into the second-level cache. */
INLINE void v16_prefetch(const float *p)
{
    __builtin_prefetch(p, 0, 2);
}

#endif
