/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

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

/* --- tiers that are another one with a few faster kernels ------------------------------------------------------- */

typedef struct derived_tier {
    const terse_kernels *base;
    void (*override)(terse_kernels *table); /* puts its own kernels in; the file's suffix gives it its instructions */
    terse_kernels table;
} derived_tier;

static derived_tier derived[TERSE_ISA_COUNT] = {
#if defined(__x86_64__)
    [TERSE_ISA_AVX2VNNI] = {.base = &terse_kernels_avx2, .override = terse_kernels_override_avx2vnni},
    [TERSE_ISA_AVX512BF16] = {.base = &terse_kernels_avx512vnni, .override = terse_kernels_override_avx512bf16},
#elif defined(__aarch64__)
    [TERSE_ISA_NEONDOT] = {.base = &terse_kernels_neon, .override = terse_kernels_override_neondot},
#endif
};

static void derive_all(void)
{
    for (int isa = 0; isa < TERSE_ISA_COUNT; isa++) {
        derived_tier *tier = &derived[isa];
        if (!tier->base)
            continue;
        tier->table = *tier->base;
        tier->table.isa = (terse_isa)isa;
        tier->table.name = names[isa];
        tier->override(&tier->table);
    }
}

static const terse_kernels *derived_table(terse_isa isa)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, derive_all);
    return &derived[isa].table;
}

/* --- what this machine has -------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* gcc 12 has no name for it: leaf 7, subleaf 1, EAX bit 4. Its registers are those of AVX2. */
static bool has_avx_vnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1) != 0;
}

/* __builtin_cpu_supports asks XGETBV too: a tier counts only when the system saves its registers. */
static bool has(terse_isa isa)
{
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512vnni");
    switch (isa) {
    case TERSE_ISA_AVX2:
        return avx2;
    case TERSE_ISA_AVX2VNNI:
        return avx2 && has_avx_vnni();
    case TERSE_ISA_AVX512VNNI:
        return avx512;
    case TERSE_ISA_AVX512BF16:
        return avx512 && __builtin_cpu_supports("avx512bf16");
    default:
        return false;
    }
}
#elif defined(__aarch64__)
static bool has(terse_isa isa)
{
    return isa == TERSE_ISA_NEON || /* every AArch64 CPU that runs Debian has it */
           (isa == TERSE_ISA_NEONDOT && (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0);
}
#else
static bool has(terse_isa isa)
{
    (void)isa;
    return false;
}
#endif

const terse_kernels *terse_kernels_of(terse_isa isa)
{
    if (isa == TERSE_ISA_SCALAR)
        return &terse_kernels_scalar;
    if ((unsigned)isa >= TERSE_ISA_COUNT || !has(isa))
        return NULL;
#if defined(__x86_64__)
    if (isa == TERSE_ISA_AVX2)
        return &terse_kernels_avx2;
    if (isa == TERSE_ISA_AVX512VNNI)
        return &terse_kernels_avx512vnni;
#elif defined(__aarch64__)
    if (isa == TERSE_ISA_NEON)
        return &terse_kernels_neon;
#endif
    return derived_table(isa);
}

static const terse_isa best_first[] = {TERSE_ISA_AVX512BF16, TERSE_ISA_AVX512VNNI, TERSE_ISA_AVX2VNNI, TERSE_ISA_AVX2,
                                       TERSE_ISA_NEONDOT,    TERSE_ISA_NEON,       TERSE_ISA_SCALAR};
enum { N_TIERS = sizeof best_first / sizeof best_first[0] };

int terse_kernels_get(const terse_kernels **ret_kernels, terse_error *error)
{
    const char *wanted = getenv("TERSE_ISA");
    const bool forced = wanted && *wanted;
    const terse_kernels *found = NULL;
    for (int i = 0; !found && i < N_TIERS; i++)
        if (!forced || strcmp(wanted, names[best_first[i]]) == 0)
            found = terse_kernels_of(best_first[i]);
    if (!found) {
        char here[128] = "scalar";
        for (int i = N_TIERS - 1; i-- > 0;)
            if (terse_kernels_of(best_first[i]))
                snprintf(here + strlen(here), sizeof here - strlen(here), ", %s", names[best_first[i]]);
        return terse_fail(error, TERSE_UNIMPLEMENTED,
                          "TERSE_ISA=%.40s is not a tier of this CPU and build; here are: %s", wanted, here);
    }
    *ret_kernels = found;
    return TERSE_OK;
}
