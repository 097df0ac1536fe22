/* SPDX-License-Identifier: Apache-2.0 */
/* The products by sparse weights once more, for CPUs with VBMI: sparse_u8_avx512vnni.c asks for them. */
#include "common/kernels/vec/v16.h"
#undef TIER
#define TIER avx512vbmi
#include "common/kernels/vec/sparse_u8.h"
