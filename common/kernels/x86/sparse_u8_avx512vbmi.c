/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles of sparse weights for CPUs with VBMI: sparse_u8_avx512vnni.c asks for them. */
#include "common/kernels/vec/v16.h"
#undef TIER
#define TIER avx512vbmi
#include "common/kernels/x86/sparse_comb_avx512.h"

#include "common/kernels/vec/sparse_tile.h"
