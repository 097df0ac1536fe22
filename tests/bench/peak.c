/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/peak.h"

#include <time.h>

double peak_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#if defined(__x86_64__)
bool peak_has(peak_kind kind)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && (kind != PEAK_VNNI || __builtin_cpu_supports("avx512vnni")) &&
           (kind != PEAK_BF16 || __builtin_cpu_supports("avx512bf16"));
}

/* Twelve chains in registers that code for the baseline does not have: nothing to save, nothing to spill. */
#define CHAIN(name, to) name " %%zmm16, %%zmm17, %%zmm" #to "\n\t"
#define FOUR(name, a, b, c, d) CHAIN(name, a) CHAIN(name, b) CHAIN(name, c) CHAIN(name, d)
#define CHAINS(name) FOUR(name, 18, 19, 20, 21) FOUR(name, 22, 23, 24, 25) FOUR(name, 26, 27, 28, 29)

double peak_burst(peak_kind kind, int rounds)
{
    static const double each[PEAK_COUNT] = {[PEAK_FMA] = 32, [PEAK_VNNI] = 128, [PEAK_BF16] = 64};
    for (int round = 0; round < rounds; round++)
        switch (kind) {
        case PEAK_VNNI:
            __asm__ volatile(CHAINS("vpdpbusd")::: "memory");
            break;
        case PEAK_BF16:
            __asm__ volatile(CHAINS("vdpbf16ps")::: "memory");
            break;
        default:
            __asm__ volatile(CHAINS("vfmadd231ps")::: "memory");
            break;
        }
    return (double)rounds * 12 * each[kind];
}

#define LOADS                                                                                                          \
    "vmovdqa64 (%0), %%zmm16\n\tvmovdqa64 64(%0), %%zmm17\n\tvmovdqa64 128(%0), %%zmm18\n\t"                           \
    "vmovdqa64 192(%0), %%zmm19\n\tvmovdqa64 256(%0), %%zmm20\n\tvmovdqa64 320(%0), %%zmm21\n\t"                       \
    "vmovdqa64 384(%0), %%zmm22\n\tvmovdqa64 448(%0), %%zmm23\n\t"
#define AHEAD                                                                                                          \
    "prefetcht0 2048(%0)\n\tprefetcht0 2112(%0)\n\tprefetcht0 2176(%0)\n\tprefetcht0 2240(%0)\n\t"                     \
    "prefetcht0 2304(%0)\n\tprefetcht0 2368(%0)\n\tprefetcht0 2432(%0)\n\tprefetcht0 2496(%0)\n\t"

void peak_read(const uint8_t *data, size_t bytes, bool ahead)
{
    for (const uint8_t *at = data; at < data + bytes; at += 512)
        if (ahead)
            __asm__ volatile(AHEAD LOADS ::"r"(at) : "memory");
        else
            __asm__ volatile(LOADS ::"r"(at) : "memory");
}
#else
bool peak_has(peak_kind kind)
{
    (void)kind;
    return false;
}

double peak_burst(peak_kind kind, int rounds)
{
    (void)kind, (void)rounds;
    return 0;
}

void peak_read(const uint8_t *data, size_t bytes, bool ahead)
{
    (void)data, (void)bytes, (void)ahead;
}
#endif
