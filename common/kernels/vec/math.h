/* SPDX-License-Identifier: Apache-2.0 */
/* math.h: ref/math_ref.h over v16, operation for operation. */
#ifndef TERSE_KERNELS_VEC_MATH_H
#define TERSE_KERNELS_VEC_MATH_H

#include "common/kernels/kernels.h"
#include "common/kernels/poly.h"
#include "common/kernels/vec/v16.h"

/* p * x + c */
INLINE v16 v16_step(v16 p, v16 x, float c)
{
    return v16_fma(p, x, v16_set1(c));
}

/* What is below EXP_LOW, as masked scores are, is 0 before it is scaled: a result that underflows takes a processor of
 * Intel's ten times as long. */
INLINE v16 v16_exp(v16 given)
{
    const v16 round = v16_set1(EXP_ROUND), low = v16_set1(EXP_LOW);
    const v16 x = v16_min(v16_set1(EXP_HIGH), v16_max(low, given));
    v16 z = v16_fma(x, v16_set1(EXP_LOG2E), round);
    v16 n = v16_sub(z, round);
    v16 r = v16_fma(n, v16_set1(-EXP_LN2_HIGH), x);
    r = v16_fma(n, v16_set1(-EXP_LN2_LOW), r);
    v16 p = v16_step(v16_set1(EXP_C6), r, EXP_C5);
    p = v16_step(p, r, EXP_C4);
    p = v16_step(p, r, EXP_C3);
    p = v16_step(p, r, EXP_C2);
    p = v16_step(p, r, 1.0f);
    p = v16_step(p, r, 1.0f);
    return v16_scale(v16_less(given, low, v16_zero(), p), z, round);
}

INLINE v16 v16_sigmoid(v16 x)
{
    const v16 one = v16_set1(1.0f), zero = v16_zero();
    v16 e = v16_exp(v16_copysign(x, v16_set1(-1.0f)));
    return v16_div(v16_less(x, zero, e, one), v16_add(one, e));
}

INLINE v16 v16_tanh(v16 x)
{
    const v16 one = v16_set1(1.0f), two = v16_set1(2.0f);
    v16 t = v16_abs(x), s = v16_mul(x, x);
    v16 p = v16_step(v16_set1(TANH_C0), s, TANH_C1);
    p = v16_step(p, s, TANH_C2);
    p = v16_step(p, s, TANH_C3);
    p = v16_step(p, s, TANH_C4);
    v16 small = v16_fma(v16_mul(p, s), x, x);
    v16 large = v16_sub(one, v16_div(two, v16_add(v16_exp(v16_add(t, t)), one)));
    return v16_less(t, v16_set1(TANH_SPLIT), small, v16_copysign(large, x));
}

INLINE v16 v16_erf(v16 x)
{
    v16 t = v16_min(v16_set1(ERF_HIGH), v16_abs(x)), s = v16_mul(x, x);
    v16 p = v16_step(v16_set1(ERF_B0), s, ERF_B1);
    p = v16_step(p, s, ERF_B2);
    p = v16_step(p, s, ERF_B3);
    p = v16_step(p, s, ERF_B4);
    p = v16_step(p, s, ERF_B5);
    v16 small = v16_fma(p, x, x);
    s = v16_mul(t, t);
    v16 r = v16_step(v16_set1(ERF_A0), t, ERF_A1);
    r = v16_fma(r, s, v16_step(v16_set1(ERF_A2), t, ERF_A3));
    r = v16_step(r, t, ERF_A4);
    r = v16_step(r, t, ERF_A5);
    r = v16_step(r, t, ERF_A6);
    r = v16_fma(r, t, v16_sub(v16_zero(), t));
    v16 large = v16_copysign(v16_sub(v16_set1(1.0f), v16_exp(r)), x);
    return v16_less(v16_set1(ERF_SPLIT), t, large, small);
}

INLINE v16 v16_clip(v16 x, v16 alpha, v16 beta)
{
    return v16_min(beta, v16_max(alpha, x));
}

INLINE v16 v16_gelu(v16 x)
{
    v16 e = v16_erf(v16_mul(x, v16_set1(GELU_SQRT_HALF)));
    return v16_mul(v16_mul(v16_set1(0.5f), x), v16_add(v16_set1(1.0f), e));
}

INLINE v16 v16_activate(v16 x, const terse_activation *f)
{
    const v16 one = v16_set1(1.0f), zero = v16_zero();
    switch (f->kind) {
    case TERSE_ACT_CLIP:
        return v16_clip(x, v16_set1(f->alpha), v16_set1(f->beta));
    case TERSE_ACT_LEAKY_RELU:
        return v16_less(x, zero, v16_mul(v16_set1(f->alpha), x), x);
    case TERSE_ACT_SIGMOID:
        return v16_sigmoid(x);
    case TERSE_ACT_HARD_SIGMOID:
        return v16_max(zero, v16_min(one, v16_fma(v16_set1(f->alpha), x, v16_set1(f->beta))));
    case TERSE_ACT_HARD_SWISH:
        return v16_mul(x, v16_max(zero, v16_min(one, v16_step(x, v16_set1(SIXTH), 0.5f))));
    case TERSE_ACT_TANH:
        return v16_tanh(x);
    case TERSE_ACT_GELU:
        return v16_gelu(x);
    case TERSE_ACT_SWISH:
        return v16_mul(x, v16_sigmoid(x));
    case TERSE_ACT_NONE:
        break;
    }
    return x;
}

/* The same out of line, as it is much code. Defined in table.h. */
v16 SHARED_NAME(terse_activate)(v16 x, const terse_activation *f);

/* For the ends of inner loops: the usual activations in place, the others out of line. */
INLINE v16 v16_activate_near(v16 x, const terse_activation *f)
{
    if (f->kind == TERSE_ACT_NONE)
        return x;
    if (f->kind == TERSE_ACT_CLIP)
        return v16_clip(x, v16_set1(f->alpha), v16_set1(f->beta));
    return SHARED_NAME(terse_activate)(x, f);
}

#endif
