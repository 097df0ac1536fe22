/* SPDX-License-Identifier: Apache-2.0 */
/* ref.h: the scalar reference kernels, gathered by table_ref.c. */
#ifndef TERSE_KERNELS_REF_H
#define TERSE_KERNELS_REF_H

#include "common/kernels/kernels.h"

void terse_gemm_f32_ref(const terse_gemm_f32_args *args);
void terse_conv_f32_ref(const terse_conv_f32_args *args);
size_t terse_conv_f32_scratch_ref(const terse_conv_f32_args *args);
void terse_dwconv_f32_ref(const terse_conv_f32_args *args);
void terse_max_pool_f32_ref(const terse_pool_f32_args *args);
void terse_average_pool_f32_ref(const terse_pool_f32_args *args);

#endif
