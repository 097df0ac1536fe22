/* SPDX-License-Identifier: Apache-2.0 */
/* bf16.h: one number between FP32 and BF16.
 * Runs in: terse-worker, terse run, terse-compress. */
#ifndef TERSE_KERNELS_BF16_H
#define TERSE_KERNELS_BF16_H

#include <stdint.h>
#include <string.h>

/* Rounds to nearest even; a NaN stays a NaN. */
static inline uint16_t bf16_from(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return (uint16_t)(((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded) >> 16);
}

static inline float bf16_to(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

#endif
