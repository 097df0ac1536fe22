/* SPDX-License-Identifier: Apache-2.0 */
/* weights.h: arguments of the products whose weights alone are stored small: FP32 in, FP32 out.
 * Runs in: terse-worker, terse run, terse-compress. Kernels allocate nothing and keep no state.
 *
 * Where a product is bound by the bandwidth that its weights come with (few rows), a quarter or an eighth of the bytes
 * is a multiple of the speed. Every output is one fixed chain of operations, so all tiers agree bit for bit. */
#ifndef TERSE_KERNELS_WEIGHTS_H
#define TERSE_KERNELS_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "common/kernels/activation.h"

/* C[M,N] = act(sum * scale[n] + bias[n] + residual), sum one chain of FMAs over k of A[m,k] and the weight as a float.
 * B is TERSE_LAYOUT_S8_N16, scale has N floats. Rows are lda, ldc, ldr elements apart; residual may be C itself. */
typedef struct terse_gemm_f32s8_args {
    int64_t m, n, k;
    const float *a;
    int64_t lda;
    const int8_t *b;
    const float *scale;
    float *c;
    int64_t ldc;
    const float *bias;     /* or NULL */
    const float *residual; /* or NULL */
    int64_t ldr;
    terse_activation activation;
} terse_gemm_f32s8_args;

/* Weights of 4 bits, `group` rows of K sharing a scale per column, B in TERSE_LAYOUT_S4_N16K8. A row of A becomes bytes
 * first: q[k] = round_half_even(a[k] * (127 / most)) with most = max |a|, worth most / 127 each (all 0 when 127 / most
 * is not finite; a row with a NaN or an infinity gives NaN). Then with s[g] the exact sum of q[k] * w[k][n] over group
 * g and x = fma((float)s[g], scale[g], x) from 0 over the groups: C = act(x * (most / 127) + bias[n] + residual),
 * product and sums rounded one by one. */
typedef struct terse_gemm_f32s4_args {
    int64_t m, n, k;
    int64_t group; /* a multiple of 8, at most 4096; the last group may be shorter */
    const float *a;
    int64_t lda;
    const uint8_t *b;
    const float *scale; /* [ceil(N/16)][ceil(K/group)][16] */
    float *c;
    int64_t ldc;
    const float *bias;
    const float *residual;
    int64_t ldr;
    terse_activation activation;
    void *scratch; /* terse_gemm_f32s4_scratch bytes, 64-byte aligned */
} terse_gemm_f32s4_args;

enum { TERSE_S4_ROWS = 24 }; /* rows of A that are bytes at a time */

/* Scratch for any number of rows of length k: bytes, what each group of them sums up to, what a step is worth. */
static inline size_t terse_gemm_f32s4_scratch(int64_t k, int64_t group)
{
    const size_t bytes = ((size_t)k + 63) / 64 * 64, groups = ((size_t)(k + group - 1) / (size_t)group + 15) / 16 * 16;
    return TERSE_S4_ROWS * (bytes + groups * sizeof(int32_t) + 64);
}

#endif
