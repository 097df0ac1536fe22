/* SPDX-License-Identifier: Apache-2.0 */
/* v16.h: sixteen floats as one value, the unit in which all vector tiers are written: one zmm, two ymm or four
 * NEON registers. The kernels in this folder are templates over it, compiled once per tier.
 * max(a, b) is a > b ? a : b and min(a, b) is a < b ? a : b on every tier, NaN and signed zeros included. */
#ifndef TERSE_KERNELS_V16_H
#define TERSE_KERNELS_V16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* loops that are not unrolled when not optimizing */
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define INLINE static inline __attribute__((always_inline))
/* Once in the program, whatever is known where it is called. */
#ifdef __clang__
#define APART static __attribute__((noinline, unused))
#else
#define APART static __attribute__((noinline, noclone, unused))
#endif

#if defined(__AVX512BF16__)
#include "common/kernels/x86/v16_avx512.h"
#define TIER avx512bf16
#define REGISTERS avx512vnni
#elif defined(__AVX512F__)
#include "common/kernels/x86/v16_avx512.h"
#define TIER avx512vnni
#define REGISTERS avx512vnni
#define TIER_TEXT "avx512vnni"
#define TIER_ISA TERSE_ISA_AVX512VNNI
#elif defined(__AVX2__)
#include "common/kernels/x86/v16_avx2.h"
#define TIER avx2
#define REGISTERS avx2
#define TIER_TEXT "avx2"
#define TIER_ISA TERSE_ISA_AVX2
#elif defined(__aarch64__)
#include "common/kernels/arm/v16_neon.h"
#define TIER neon
#define REGISTERS neon
#define TIER_TEXT "neon"
#define TIER_ISA TERSE_ISA_NEON
#endif

/* TIER_NAME(terse_gemm_f32) is terse_gemm_f32_avx2 in the avx2 tier. */
#define TIER_PASTE(name, tier) name##_##tier
#define TIER_EXPAND(name, tier) TIER_PASTE(name, tier)
#define TIER_NAME(name) TIER_EXPAND(name, TIER)
/* What is once in the program for all tiers and files with the same registers: _avx2 in the tier avx2vnni too. */
#define SHARED_NAME(name) TIER_EXPAND(name, REGISTERS)

/* The first n of sixteen when n < 16, the rest zero on load and untouched on store. */
INLINE v16 v16_load_up_to(const float *p, int64_t n)
{
    return n >= 16 ? v16_load(p) : v16_load_n(p, (int)n);
}

INLINE void v16_store_up_to(float *p, v16 x, int64_t n)
{
    if (n >= 16)
        v16_store(p, x);
    else
        v16_store_n(p, x, (int)n);
}

#endif
