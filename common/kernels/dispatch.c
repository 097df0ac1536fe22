/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

#include "common/kernels/tables.h"

static const char *const names[TERSE_ISA_COUNT] = {
    [TERSE_ISA_SCALAR] = "scalar",         [TERSE_ISA_AVX2] = "avx2",
    [TERSE_ISA_AVX512VNNI] = "avx512vnni", [TERSE_ISA_NEON] = "neon",
    [TERSE_ISA_AVX2VNNI] = "avx2vnni",     [TERSE_ISA_NEONDOT] = "neondot",
    [TERSE_ISA_AVX512BF16] = "avx512bf16",
};

const char *terse_isa_name(terse_isa isa)
{
    return (unsigned)isa < TERSE_ISA_COUNT ? names[isa] : "?";
}

const terse_kernels *terse_kernels_of(terse_isa isa)
{
    if (isa == TERSE_ISA_SCALAR)
        return &terse_kernels_scalar;
#if defined(__x86_64__)
    /* __builtin_cpu_supports asks XGETBV too: a tier counts only when the system saves its registers. */
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == TERSE_ISA_AVX2 && avx2)
        return &terse_kernels_avx2;
    if (isa == TERSE_ISA_AVX512VNNI && avx2 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return &terse_kernels_avx512vnni;
#elif defined(__aarch64__)
    if (isa == TERSE_ISA_NEON) /* every AArch64 CPU that runs Debian has it */
        return &terse_kernels_neon;
#endif
    return NULL;
}

int terse_kernels_get(const terse_kernels **ret_kernels, terse_error *error)
{
    static const terse_isa best_first[] = {TERSE_ISA_AVX512VNNI, TERSE_ISA_AVX2, TERSE_ISA_NEON, TERSE_ISA_SCALAR};
    const char *wanted = getenv("TERSE_ISA");
    bool forced = wanted && *wanted;
    const terse_kernels *found = NULL;
    for (size_t i = 0; !found && i < sizeof best_first / sizeof *best_first; i++)
        if (!forced || strcmp(wanted, names[best_first[i]]) == 0)
            found = terse_kernels_of(best_first[i]);
    if (!found)
        return terse_fail(error, TERSE_UNIMPLEMENTED,
                          "TERSE_ISA=%.40s is not a tier of this CPU and build; here are: scalar%s%s%s", wanted,
                          terse_kernels_of(TERSE_ISA_AVX2) ? ", avx2" : "",
                          terse_kernels_of(TERSE_ISA_AVX512VNNI) ? ", avx512vnni" : "",
                          terse_kernels_of(TERSE_ISA_NEON) ? ", neon" : "");
    *ret_kernels = found;
    return TERSE_OK;
}
