/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/ref/math_ref.h"
#include "common/kernels/ref/ref.h"

void terse_gemm_f32_ref(const terse_gemm_f32_args *args)
{
    for (int64_t m = 0; m < args->m; m++) {
        const float *a = args->a + m * args->lda;
        for (int64_t n = 0; n < args->n; n++) {
            const float *b = args->b + n / 16 * args->k * 16 + n % 16;
            float sum = 0.0f;
            for (int64_t k = 0; k < args->k; k++)
                sum = fmaf(a[k], b[k * 16], sum);
            args->c[m * args->ldc + n] =
                ref_finish(sum, args->bias ? args->bias + n : NULL,
                           args->residual ? args->residual + m * args->ldr + n : NULL, &args->activation);
        }
    }
}
