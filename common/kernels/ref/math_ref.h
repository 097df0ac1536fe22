/* SPDX-License-Identifier: Apache-2.0 */
/* math_ref.h: the scalar meaning of the elementwise functions. What these lines compute, every tier computes.
 * NaN: max and min keep their second operand when either is NaN (as x86 does), so a NaN x passes through every
 * activation, and a NaN bound of a clip is no bound. */
#ifndef TERSE_KERNELS_MATH_REF_H
#define TERSE_KERNELS_MATH_REF_H

#include <math.h>
#include <string.h>

#include "common/kernels/kernels.h"
#include "common/kernels/poly.h"

static inline float ref_max(float a, float b)
{
    return a > b ? a : b;
}

static inline float ref_min(float a, float b)
{
    return a < b ? a : b;
}

/* The maximum in which a NaN wins: for pools and reductions. */
static inline float ref_max_nan(float m, float x)
{
    return m > x || m != m ? m : x;
}

static inline uint32_t ref_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float ref_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float ref_exp(float x)
{
    if (x < EXP_LOW)
        return 0.0f;
    x = ref_min(EXP_HIGH, x);
    float z = fmaf(x, EXP_LOG2E, EXP_ROUND);
    float n = z - EXP_ROUND;
    float r = fmaf(n, -EXP_LN2_HIGH, x);
    r = fmaf(n, -EXP_LN2_LOW, r);
    float p = fmaf(EXP_C6, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* 2^n in two halves, each a normal number. A NaN makes the halves meaningless, and stays a NaN. */
    uint32_t whole = ref_bits(z) - ref_bits(EXP_ROUND);
    uint32_t half = (uint32_t)((int32_t)whole >> 1);
    return p * ref_from_bits((half + 127u) << 23) * ref_from_bits((whole - half + 127u) << 23);
}

static inline float ref_sigmoid(float x)
{
    float e = ref_exp(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

static inline float ref_tanh(float x)
{
    float t = fabsf(x);
    if (t < TANH_SPLIT) {
        float s = x * x;
        float p = fmaf(TANH_C0, s, TANH_C1);
        p = fmaf(p, s, TANH_C2);
        p = fmaf(p, s, TANH_C3);
        p = fmaf(p, s, TANH_C4);
        return fmaf(p * s, x, x);
    }
    float y = 1.0f - 2.0f / (ref_exp(t + t) + 1.0f);
    return copysignf(y, x);
}

static inline float ref_erf(float x)
{
    float t = ref_min(ERF_HIGH, fabsf(x));
    if (!(t > ERF_SPLIT)) {
        float s = x * x;
        float r = fmaf(ERF_B0, s, ERF_B1);
        r = fmaf(r, s, ERF_B2);
        r = fmaf(r, s, ERF_B3);
        r = fmaf(r, s, ERF_B4);
        r = fmaf(r, s, ERF_B5);
        return fmaf(r, x, x);
    }
    float s = t * t;
    float r = fmaf(ERF_A0, t, ERF_A1);
    float u = fmaf(ERF_A2, t, ERF_A3);
    r = fmaf(r, s, u);
    r = fmaf(r, t, ERF_A4);
    r = fmaf(r, t, ERF_A5);
    r = fmaf(r, t, ERF_A6);
    r = fmaf(r, t, -t);
    return copysignf(1.0f - ref_exp(r), x);
}

static inline float ref_activate(float x, const terse_activation *f)
{
    switch (f->kind) {
    case TERSE_ACT_CLIP:
        return ref_min(f->beta, ref_max(f->alpha, x));
    case TERSE_ACT_LEAKY_RELU:
        return x < 0.0f ? f->alpha * x : x;
    case TERSE_ACT_SIGMOID:
        return ref_sigmoid(x);
    case TERSE_ACT_HARD_SIGMOID:
        return ref_max(0.0f, ref_min(1.0f, fmaf(f->alpha, x, f->beta)));
    case TERSE_ACT_HARD_SWISH:
        return x * ref_max(0.0f, ref_min(1.0f, fmaf(x, SIXTH, 0.5f)));
    case TERSE_ACT_TANH:
        return ref_tanh(x);
    case TERSE_ACT_GELU:
        return 0.5f * x * (1.0f + ref_erf(x * GELU_SQRT_HALF));
    case TERSE_ACT_SWISH:
        return x * ref_sigmoid(x);
    case TERSE_ACT_NONE:
        break;
    }
    return x;
}

/* + bias, + residual, activation. */
static inline float ref_finish(float sum, const float *bias, const float *residual, const terse_activation *f)
{
    if (bias)
        sum += *bias;
    if (residual)
        sum += *residual;
    return ref_activate(sum, f);
}

#endif
