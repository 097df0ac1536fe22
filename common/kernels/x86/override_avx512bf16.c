/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that tier avx512bf16 has in place of those of avx512vnni. */
#include "common/kernels/tables.h"
#include "common/kernels/vec/tier.h"

void terse_kernels_override_avx512bf16(terse_kernels *table)
{
    table->gemm_bf16 = TIER_NAME(terse_gemm_bf16);
    table->conv_bf16 = TIER_NAME(terse_conv_bf16);
    table->conv_bf16_scratch = TIER_NAME(terse_conv_bf16_scratch);
}
