/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that tier neondot has in place of those of neon. */
#include "common/kernels/tables.h"

void terse_gemm_u8s8_neondot(const terse_gemm_u8s8_args *args);
void terse_conv_u8s8_neondot(const terse_conv_u8s8_args *args);
size_t terse_conv_u8s8_scratch_neondot(const terse_conv_u8s8_args *args);
void terse_dwconv_u8s8_neondot(const terse_conv_u8s8_args *args);
size_t terse_dwconv_u8s8_scratch_neondot(const terse_conv_u8s8_args *args);
void terse_gemm_f32s4_neondot(const terse_gemm_f32s4_args *args);
void terse_sparse_u8s8_neondot(const terse_sparse_u8s8_args *args);
size_t terse_sparse_u8s8_scratch_neondot(const terse_sparse_u8s8_args *args);

void terse_kernels_override_neondot(terse_kernels *table)
{
    table->gemm_u8s8 = terse_gemm_u8s8_neondot;
    table->gemm_f32s4 = terse_gemm_f32s4_neondot;
    table->conv_u8s8 = terse_conv_u8s8_neondot;
    table->conv_u8s8_scratch = terse_conv_u8s8_scratch_neondot;
    table->dwconv_u8s8 = terse_dwconv_u8s8_neondot;
    table->dwconv_u8s8_scratch = terse_dwconv_u8s8_scratch_neondot;
    table->sparse_u8s8 = terse_sparse_u8s8_neondot;
    table->sparse_u8s8_scratch = terse_sparse_u8s8_scratch_neondot;
}
