/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/ref/math_ref.h"
#include "common/kernels/ref/ref.h"

void terse_gemm_f32s8_ref(const terse_gemm_f32s8_args *args)
{
    for (int64_t m = 0; m < args->m; m++) {
        const float *a = args->a + m * args->lda;
        for (int64_t n = 0; n < args->n; n++) {
            const int8_t *b = args->b + n / 16 * args->k * 16 + n % 16;
            float sum = 0.0f;
            for (int64_t k = 0; k < args->k; k++)
                sum = fmaf(a[k], (float)b[k * 16], sum);
            args->c[m * args->ldc + n] =
                ref_finish(sum * args->scale[n], args->bias ? args->bias + n : NULL,
                           args->residual ? args->residual + m * args->ldr + n : NULL, &args->activation);
        }
    }
}

/* A row as bytes; returns what one step is worth. */
static float to_bytes(const float *a, int64_t k, int8_t *q)
{
    float most = 0.0f;
    for (int64_t i = 0; i < k; i++)
        most = ref_max_nan(most, fabsf(a[i]));
    float inverse = 127.0f / most;
    bool whole = most <= 3.4028234663852886e38f;
    for (int64_t i = 0; i < k; i++)
        q[i] = whole && inverse <= 3.4028234663852886e38f ? (int8_t)rintf(a[i] * inverse) : 0;
    return whole ? most / 127.0f : NAN;
}

void terse_gemm_f32s4_ref(const terse_gemm_f32s4_args *args)
{
    const int64_t groups = (args->k + args->group - 1) / args->group, blocks = (args->k + 7) / 8;
    int8_t *q = args->scratch;
    for (int64_t m = 0; m < args->m; m++) {
        float step = to_bytes(args->a + m * args->lda, args->k, q);
        for (int64_t n = 0; n < args->n; n++) {
            const uint8_t *b = args->b + n / 16 * blocks * 64 + n % 16 * 4;
            const float *scale = args->scale + n / 16 * groups * 16 + n % 16;
            float x = 0.0f;
            for (int64_t g = 0; g < groups; g++) {
                int64_t end = (g + 1) * args->group < args->k ? (g + 1) * args->group : args->k;
                int32_t sum = 0;
                for (int64_t k = g * args->group; k < end; k++) {
                    uint8_t pair = b[k / 8 * 64 + k % 4];
                    sum += ((k % 8 < 4 ? pair & 15 : pair >> 4) - 8) * q[k];
                }
                x = fmaf((float)sum, scale[g * 16], x);
            }
            args->c[m * args->ldc + n] =
                ref_finish(x * step, args->bias ? args->bias + n : NULL,
                           args->residual ? args->residual + m * args->ldr + n : NULL, &args->activation);
        }
    }
}
