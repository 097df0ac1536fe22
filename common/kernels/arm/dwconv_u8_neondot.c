/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/v16.h"
#undef TIER
#define TIER neondot
#include "common/kernels/vec/dwconv_u8.h"

size_t terse_dwconv_u8s8_scratch_neondot(const terse_conv_u8s8_args *args)
{
    return dw_scratch_any(args);
}

void terse_dwconv_u8s8_neondot(const terse_conv_u8s8_args *args)
{
    dw_any(args);
}
