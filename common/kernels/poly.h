/* SPDX-License-Identifier: Apache-2.0 */
/* poly.h: the constants of the transcendental kernels. Every tier evaluates the same polynomials by the same
 * sequence of FMAs, so that their results agree bit for bit.
 *
 * exp:  x = n ln2 + r, |r| <= ln2 / 2, degree 6, then scaled by 2^(n/2) twice: right into the denormals; 1 ulp.
 * erf:  two intervals; below 0.9277 an odd polynomial, above it 1 - exp(polynomial in |x|); 1 ulp.
 * tanh: below 0.625 an odd polynomial (Cephes), above it 1 - 2 / (exp(2|x|) + 1); 2 ulp.
 * sigmoid: e / (1 + e) or 1 / (1 + e) with e = exp(-|x|); 2 ulp.
 * exp and erf after N. Juffa's published single precision minimax coefficients. */
#ifndef TERSE_KERNELS_POLY_H
#define TERSE_KERNELS_POLY_H

#define EXP_LOW (-104.0f) /* exp of it rounds to 0 */
#define EXP_HIGH 89.0f    /* exp of it overflows */
#define EXP_LOG2E 1.442695041f
#define EXP_ROUND 12582912.0f /* 1.5 * 2^23: adding it leaves round(x) in the low bits */
#define EXP_LN2_HIGH 6.93145752e-1f
#define EXP_LN2_LOW 1.42860677e-6f
#define EXP_C6 1.37805939e-3f
#define EXP_C5 8.37312452e-3f
#define EXP_C4 4.16695364e-2f
#define EXP_C3 1.66664720e-1f
#define EXP_C2 4.99999851e-1f

#define ERF_SPLIT 0.927734375f
#define ERF_HIGH 4.0f /* erf of it is 1 in single precision */
#define ERF_A0 -1.72853470e-5f
#define ERF_A1 3.83197126e-4f
#define ERF_A2 -3.88396438e-3f
#define ERF_A3 2.42546219e-2f
#define ERF_A4 -1.06777877e-1f
#define ERF_A5 -6.34846687e-1f
#define ERF_A6 -1.28717512e-1f
#define ERF_B0 -5.96761703e-4f
#define ERF_B1 4.99119423e-3f
#define ERF_B2 -2.67681349e-2f
#define ERF_B3 1.12819925e-1f
#define ERF_B4 -3.76125336e-1f
#define ERF_B5 1.28379166e-1f

#define TANH_SPLIT 0.625f
#define TANH_C0 -5.70498872745e-3f
#define TANH_C1 2.06390887954e-2f
#define TANH_C2 -5.37397155531e-2f
#define TANH_C3 1.33314422036e-1f
#define TANH_C4 -3.33332819422e-1f

#define GELU_SQRT_HALF 0.707106781f
#define SIXTH 0.166666667f

#endif
