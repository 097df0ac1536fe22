/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that tier avx2vnni has in place of those of avx2. */
#include "common/kernels/tables.h"

void terse_gemm_u8s8_avx2vnni(const terse_gemm_u8s8_args *args);
void terse_conv_u8s8_avx2vnni(const terse_conv_u8s8_args *args);
size_t terse_conv_u8s8_scratch_avx2vnni(const terse_conv_u8s8_args *args);
void terse_dwconv_u8s8_avx2vnni(const terse_conv_u8s8_args *args);
size_t terse_dwconv_u8s8_scratch_avx2vnni(const terse_conv_u8s8_args *args);
void terse_gemm_f32s4_avx2vnni(const terse_gemm_f32s4_args *args);
void terse_sparse_u8s8_avx2vnni(const terse_sparse_u8s8_args *args);
size_t terse_sparse_u8s8_scratch_avx2vnni(const terse_sparse_u8s8_args *args);

void terse_kernels_override_avx2vnni(terse_kernels *table)
{
    table->gemm_u8s8 = terse_gemm_u8s8_avx2vnni;
    table->gemm_f32s4 = terse_gemm_f32s4_avx2vnni;
    table->conv_u8s8 = terse_conv_u8s8_avx2vnni;
    table->conv_u8s8_scratch = terse_conv_u8s8_scratch_avx2vnni;
    table->dwconv_u8s8 = terse_dwconv_u8s8_avx2vnni;
    table->dwconv_u8s8_scratch = terse_dwconv_u8s8_scratch_avx2vnni;
    table->sparse_u8s8 = terse_sparse_u8s8_avx2vnni;
    table->sparse_u8s8_scratch = terse_sparse_u8s8_scratch_avx2vnni;
}
