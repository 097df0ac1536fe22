/* SPDX-License-Identifier: Apache-2.0 */
/* What one core of this machine can do, as JSON: multiplications per second with registers alone, and the bytes per
 * second that it reads from each level. The bench prints ratios to these, measured in the same run. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#if defined(__x86_64__)
enum { ROUNDS = 400000, TRIES = 9 };

/* Twelve chains in registers that code for the baseline does not have: nothing to save, nothing to spill. */
#define CHAIN(instruction, to) instruction " %%zmm16, %%zmm17, %%zmm" #to "\n\t"
#define CHAINS(instruction)                                                                                            \
    CHAIN(instruction, 18)                                                                                             \
    CHAIN(instruction, 19)                                                                                             \
    CHAIN(instruction, 20) CHAIN(instruction, 21) CHAIN(instruction, 22) CHAIN(instruction, 23) CHAIN(instruction, 24) \
        CHAIN(instruction, 25) CHAIN(instruction, 26) CHAIN(instruction, 27) CHAIN(instruction, 28)                    \
            CHAIN(instruction, 29)

/* Best of some tries: operations per second, `each` per instruction. */
#define PEAK(name, instruction, each)                                                                                  \
    static double name(void)                                                                                           \
    {                                                                                                                  \
        double best = 0;                                                                                               \
        for (int attempt = 0; attempt < TRIES; attempt++) {                                                            \
            const double start = now();                                                                                \
            for (int round = 0; round < ROUNDS; round++)                                                               \
                __asm__ volatile(CHAINS(instruction)::: "memory");                                                     \
            const double rate = (double)ROUNDS * 12 * (each) / (now() - start);                                        \
            best = rate > best ? rate : best;                                                                          \
        }                                                                                                              \
        return best;                                                                                                   \
    }
PEAK(peak_fma, "vfmadd231ps", 32.0)
PEAK(peak_vnni, "vpdpbusd", 128.0)
PEAK(peak_bf16, "vdpbf16ps", 64.0)

static double read_once(const uint8_t *data, size_t bytes)
{
    const double start = now();
    for (size_t at = 0; at < bytes; at += 512)
        __asm__ volatile("vmovdqa64 (%0), %%zmm16\n\tvmovdqa64 64(%0), %%zmm17\n\tvmovdqa64 128(%0), %%zmm18\n\t"
                         "vmovdqa64 192(%0), %%zmm19\n\tvmovdqa64 256(%0), %%zmm20\n\tvmovdqa64 320(%0), %%zmm21\n\t"
                         "vmovdqa64 384(%0), %%zmm22\n\tvmovdqa64 448(%0), %%zmm23" ::"r"(data + at)
                         : "memory");
    return now() - start;
}

/* Bytes per second of the best of many passes over the same `bytes`. */
static double read_rate(const uint8_t *data, size_t bytes)
{
    double best = 1;
    const double start = now();
    for (int pass = 0; pass < 5 || now() - start < 0.2; pass++) {
        const double spent = read_once(data, bytes);
        best = spent < best ? spent : best;
    }
    return (double)bytes / best;
}

static void print_peaks(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f")) {
        printf("{}\n");
        return;
    }
    /* A virtual machine may state the third-level cache of the whole host: 12 MB are in it, 256 MB are in none. */
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    const size_t in_l2 = (size_t)(l2 > 0 ? l2 : 1 << 20) / 2, in_l3 = (size_t)12 << 20, in_memory = (size_t)256 << 20;
    uint8_t *data = aligned_alloc(64, in_memory);
    if (!data)
        return;
    memset(data, 1, in_memory);
    printf("{\"fma_flops\": %.4g, \"vnni_ops\": %.4g, \"bf16_flops\": %.4g, ", peak_fma(),
           __builtin_cpu_supports("avx512vnni") ? peak_vnni() : 0.0,
           __builtin_cpu_supports("avx512bf16") ? peak_bf16() : 0.0);
    printf("\"l2_bytes\": %zu, \"l2_rate\": %.4g, \"l3_rate\": %.4g, \"memory_rate\": %.4g}\n", 2 * in_l2,
           read_rate(data, in_l2), read_rate(data, in_l3), read_rate(data, in_memory));
    free(data);
}
#else
static void print_peaks(void)
{
    (void)now;
    printf("{}\n");
}
#endif

int main(void)
{
    print_peaks();
    return 0;
}
