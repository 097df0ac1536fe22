/* SPDX-License-Identifier: Apache-2.0 */
/* buckets.h: histograms of whole numbers: exact up to 16, then eight buckets for each power of two, so that a
 * percentile is known within an eighth. Runs in: frontend (which counts), terse and terse-gateway (which read). Plain
 * numbers, owns nothing; one writer.
 *
 * A bucket holds the numbers above the bound of the one before it up to its own: 0, 1, ... 16, 18, 20 ... 32, 36 ...
 * 2^40. All powers of two are bounds, and what is beyond the last counts there. Times are rounded up to whole
 * microseconds: then what is at most a bound is exactly what was counted up to it. */
#ifndef TERSE_COMMON_BUCKETS_H
#define TERSE_COMMON_BUCKETS_H

#include <stdint.h>

enum { TERSE_BUCKETS_EXACT = 16, TERSE_BUCKETS = TERSE_BUCKETS_EXACT + 1 + (40 - 4) * 8 };

typedef struct terse_buckets {
    uint64_t count, sum;
    uint64_t at[TERSE_BUCKETS];
} terse_buckets;

static inline unsigned terse_buckets_index(uint64_t value)
{
    if (value <= TERSE_BUCKETS_EXACT)
        return (unsigned)value;
    const uint64_t below = value - 1; /* its leading bit and the three behind it name the bucket */
    const unsigned bit = 63 - (unsigned)__builtin_clzll(below);
    const unsigned index = TERSE_BUCKETS_EXACT + 1 + (bit - 4) * 8 + (unsigned)(below >> (bit - 3) & 7);
    return index < TERSE_BUCKETS ? index : TERSE_BUCKETS - 1;
}

/* The largest number that bucket `index` holds. */
static inline uint64_t terse_buckets_bound(unsigned index)
{
    if (index <= TERSE_BUCKETS_EXACT)
        return index;
    const unsigned step = index - TERSE_BUCKETS_EXACT - 1;
    return (uint64_t)(9 + step % 8) << (step / 8 + 1);
}

/* `share` in 0..1: the number that so much of what was counted does not exceed; between the bounds of a bucket on a
 * straight line. 0 when nothing was counted. */
double terse_buckets_percentile(const terse_buckets *buckets, double share);
double terse_buckets_mean(const terse_buckets *buckets); /* 0 when nothing was counted */
/* How many of what was counted are at most `bound`, which is the bound of a bucket. */
uint64_t terse_buckets_up_to(const terse_buckets *buckets, uint64_t bound);
void terse_buckets_merge(terse_buckets *to, const terse_buckets *from);
/* What was counted between two looks at the same histogram. All of `later` when that is not what `earlier` became: its
 * process is a new one. */
void terse_buckets_between(const terse_buckets *later, const terse_buckets *earlier, terse_buckets *ret_between);

#endif
