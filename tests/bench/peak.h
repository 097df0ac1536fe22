/* SPDX-License-Identifier: Apache-2.0 */
/* peak.h: what one core can do with nothing else in the way: multiplications with registers alone, bytes read.
 * In the bench program only; nothing is allocated. */
#ifndef TERSE_TESTS_BENCH_PEAK_H
#define TERSE_TESTS_BENCH_PEAK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum peak_kind { PEAK_FMA, PEAK_VNNI, PEAK_BF16, PEAK_COUNT } peak_kind;

/* Seconds of this thread on the core: what others do there meanwhile does not count. */
double peak_now(void);

/* Whether this CPU has the instruction on 64-byte registers. */
bool peak_has(peak_kind kind);
/* Runs rounds x 12 of the instruction in 12 chains; returns how many operations (two per product) that were. */
double peak_burst(peak_kind kind, int rounds);
/* Reads `bytes` (a multiple of 512, aligned to 64) from front to back; needs peak_has(PEAK_FMA). `ahead`: with
 * prefetches in front, which some caches answer faster. */
void peak_read(const uint8_t *data, size_t bytes, bool ahead);

#endif
