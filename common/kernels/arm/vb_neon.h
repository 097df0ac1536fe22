/* SPDX-License-Identifier: Apache-2.0 */
/* vb_neon.h: vb as one register; with the dot product of ARMv8.2 where the file's flags have it. */
#ifndef TERSE_KERNELS_VB_NEON_H
#define TERSE_KERNELS_VB_NEON_H

#include <arm_neon.h>

typedef uint8x16_t vb;
typedef int32x4_t vi;
typedef float32x4_t vf;

#if defined(__ARM_FEATURE_DOTPROD)
enum { VB = 16, VB_SIGNED = 1, VB_BLOCK = 4 };
#else
enum { VB = 16, VB_SIGNED = 0, VB_BLOCK = 2 };
#endif

INLINE vb vb_load(const uint8_t *p)
{
    return vld1q_u8(p);
}

INLINE void vb_store(uint8_t *p, vb x)
{
    vst1q_u8(p, x);
}

INLINE vb vb_set1(uint8_t x)
{
    return vdupq_n_u8(x);
}

INLINE vb vb_max(vb a, vb b)
{
    return vmaxq_u8(a, b);
}

/* Less 128, as signed bytes. */
INLINE vb vb_flip(vb x)
{
    return veorq_u8(x, vdupq_n_u8(128));
}

INLINE vb vb_zip_lo8(vb a, vb b)
{
    return vzip1q_u8(a, b);
}

INLINE vb vb_zip_hi8(vb a, vb b)
{
    return vzip2q_u8(a, b);
}

#define VB_ZIP(name, zip, type)                                                                                        \
    INLINE vb name(vb a, vb b)                                                                                         \
    {                                                                                                                  \
        return vreinterpretq_u8_##type(zip##_##type(vreinterpretq_##type##_u8(a), vreinterpretq_##type##_u8(b)));      \
    }
VB_ZIP(vb_zip_lo16, vzip1q, u16)
VB_ZIP(vb_zip_hi16, vzip2q, u16)

INLINE vi vb_widen(vb x, int i)
{
    const uint16x8_t half = i < 2 ? vmovl_u8(vget_low_u8(x)) : vmovl_high_u8(x);
    return vreinterpretq_s32_u32(i % 2 ? vmovl_high_u16(half) : vmovl_u16(vget_low_u16(half)));
}

INLINE vi vi_from_bytes(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    const uint16x8_t wide = vmovl_u8(vcreate_u8(four));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)));
}

INLINE vi vi_load(const int32_t *p)
{
    return vld1q_s32(p);
}

INLINE void vi_store(int32_t *p, vi x)
{
    vst1q_s32(p, x);
}

INLINE vi vi_zero(void)
{
    return vdupq_n_s32(0);
}

INLINE vi vi_set1(int32_t x)
{
    return vdupq_n_s32(x);
}

INLINE vi vi_sub(vi a, vi b)
{
    return vsubq_s32(a, b);
}

#if defined(__ARM_FEATURE_DOTPROD)
/* Signed by signed: x comes less 128. */
INLINE vi vi_dot(vi sum, vb x, vb w)
{
    return vdotq_s32(sum, vreinterpretq_s8_u8(x), vreinterpretq_s8_u8(w));
}
#else
INLINE vi vi_dot(vi sum, vb x, vb w)
{
    const int8x16_t v = vreinterpretq_s8_u8(w);
    const int16x8_t x_low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
    const int16x8_t x_high = vreinterpretq_s16_u16(vmovl_high_u8(x));
    const int16x8_t w_low = vmovl_s8(vget_low_s8(v)), w_high = vmovl_high_s8(v);
    const int32x4_t a = vpaddq_s32(vmull_s16(vget_low_s16(x_low), vget_low_s16(w_low)), vmull_high_s16(x_low, w_low));
    const int32x4_t b =
        vpaddq_s32(vmull_s16(vget_low_s16(x_high), vget_low_s16(w_high)), vmull_high_s16(x_high, w_high));
    return vaddq_s32(sum, vpaddq_s32(a, b));
}
#endif

INLINE vf vf_from(vi x)
{
    return vcvtq_f32_s32(x);
}

INLINE vf vf_load(const float *p)
{
    return vld1q_f32(p);
}

INLINE void vf_store(float *p, vf x)
{
    vst1q_f32(p, x);
}

INLINE vf vf_set1(float x)
{
    return vdupq_n_f32(x);
}

INLINE vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}

INLINE vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}

INLINE vf vf_clamp(vf x, vf low, vf high)
{
    return vminnmq_f32(vmaxnmq_f32(x, low), high); /* of a NaN and a number the number */
}

INLINE vf vf_nan_to_zero(vf x)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vceqq_f32(x, x)));
}

INLINE vb vb_from_fixed(const vf t[4], uint16_t near, bool *ret_near)
{
    uint16x8_t x[4];
    UNROLL for (int i = 0; i < 4; i++) x[i] =
        vreinterpretq_u16_u32(vshlq_n_u32(vreinterpretq_u32_f32(t[i]), 1)); /* byte above, distance below */
    const uint16x8_t least = vminq_u16(vminq_u16(x[0], x[1]), vminq_u16(x[2], x[3]));
    *ret_near = vminvq_u16(least) <= near;
    return vuzp1q_u8(vreinterpretq_u8_u16(vuzp2q_u16(x[0], x[1])), vreinterpretq_u8_u16(vuzp2q_u16(x[2], x[3])));
}

INLINE vb vb_by_vector(vb x)
{
    return x;
}

INLINE void vb_store_lane(uint8_t *p, vb x, int lane, int n)
{
    (void)lane;
    if (n >= 16) {
        vst1q_u8(p, x);
    } else {
        uint8_t bytes[16];
        vst1q_u8(bytes, x);
        memcpy(p, bytes, (size_t)n);
    }
}

typedef struct vb_table {
    uint8x16x4_t part[4];
} vb_table;

INLINE void vb_table_init(vb_table *t, const uint8_t table[256])
{
    for (int i = 0; i < 4; i++)
        t->part[i] = vld1q_u8_x4(table + 64 * i);
}

/* An index beyond the sixty-four leaves the byte as it is. */
INLINE vb vb_lookup(const vb_table *t, vb x)
{
    vb y = vqtbl4q_u8(t->part[0], x);
    y = vqtbx4q_u8(y, t->part[1], vsubq_u8(x, vdupq_n_u8(64)));
    y = vqtbx4q_u8(y, t->part[2], vsubq_u8(x, vdupq_n_u8(128)));
    return vqtbx4q_u8(y, t->part[3], vsubq_u8(x, vdupq_n_u8(192)));
}

#endif
