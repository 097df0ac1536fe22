/* SPDX-License-Identifier: Apache-2.0 */
/* Looks up in quarters of the window on CPUs without VBMI (Cascade Lake); the others have sparse_u8_avx512vbmi.c. */
#include "common/kernels/vec/v16.h"
#undef TIER
#define TIER avx512quarters
#include "common/kernels/vec/sparse_u8.h"

void terse_sparse_u8s8_avx512vbmi(const terse_sparse_u8s8_args *args);
void terse_sparse_u8s8_avx512vnni(const terse_sparse_u8s8_args *args);
size_t terse_sparse_u8s8_scratch_avx512vnni(const terse_sparse_u8s8_args *args);

void terse_sparse_u8s8_avx512vnni(const terse_sparse_u8s8_args *args)
{
    if (__builtin_cpu_supports("avx512vbmi"))
        terse_sparse_u8s8_avx512vbmi(args);
    else
        terse_sparse_u8s8_avx512quarters(args);
}

size_t terse_sparse_u8s8_scratch_avx512vnni(const terse_sparse_u8s8_args *args)
{
    return terse_sparse_u8s8_scratch_avx512quarters(args); /* both are the same */
}
