/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/blas.h"

#include <limits.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include <cblas.h>

/* Core types without AVX2 that a processor which has it can be taken for. */
static const char *const old[] = {"Prescott", "Core2",     "Penryn", "Dunnington",  "Nehalem", "Atom",
                                  "Opteron",  "Barcelona", "Bobcat", "Sandybridge", "Katmai",  "Coppermine"};

const char *terse_blas_better(const char *found, bool avx2, bool avx512)
{
    bool is_old = false;
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        is_old = is_old || strcasecmp(found, old[i]) == 0;
    return !is_old || !avx2 ? NULL : avx512 ? "SkylakeX" : "Haswell";
}

void terse_blas_choose(char **argv)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    char path[PATH_MAX]; /* not /proc/self/exe: the process would be called exe */
    const char *better = terse_blas_better(openblas_get_corename(), avx2, avx512);
    const ssize_t length = better ? readlink("/proc/self/exe", path, sizeof path - 1) : 0;
    if (length <= 0 || getenv("OPENBLAS_CORETYPE") || setenv("OPENBLAS_CORETYPE", better, 1) != 0)
        return;
    path[length] = '\0';
    execv(path, argv);
#else
    (void)argv;
#endif
}
