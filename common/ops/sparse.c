/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ops/sparse.h"

#include "common/ops/support.h"

int64_t terse_sparse_macs(const terse_tensor *weights, int64_t rows, int64_t dense)
{
    const int64_t each = TERSE_SPARSE_PANEL * terse_sparse_quad(weights->layout); /* of a step */
    int64_t macs;
    if (!weights->data || __builtin_mul_overflow(((const uint32_t *)weights->data)[0] * each, rows, &macs))
        return dense;
    return macs < dense ? macs : dense;
}

int terse_sparse_reserve(const terse_kernels *kernels, int64_t m, int64_t n, int64_t k, size_t *total,
                         size_t *ret_offset, terse_error *error)
{
    terse_sparse_f32_args args = {0};
    TERSE_SPARSE_MATRIX(&args.conv, m, n, k);
    return TERSE_RESERVE(total, ret_offset, error, (int64_t)(kernels->sparse_f32_scratch(&args) / sizeof(float)));
}

void terse_sparse_multiply(const terse_kernels *kernels, const terse_gemm_f32_args *args, void *scratch)
{
    terse_sparse_f32_args sparse = {.conv = {.input = args->a,
                                             .in_stride = args->lda,
                                             .bias = args->bias,
                                             .residual = args->residual,
                                             .residual_stride = args->ldr,
                                             .output = args->c,
                                             .out_stride = args->ldc,
                                             .activation = args->activation,
                                             .scratch = scratch},
                                    .weights = terse_sparse_view(TERSE_LAYOUT_F32_4X1, args->n, args->b)};
    TERSE_SPARSE_MATRIX(&sparse.conv, args->m, args->n, args->k);
    kernels->sparse_f32(&sparse);
}
