/* SPDX-License-Identifier: Apache-2.0 */
/* paired.h: two models on the same samples: how far apart their shares of right answers are, and how sure that is.
 * Runs in: terse (compare), terse-compress and the tests. Owns nothing.
 *
 * Of n samples both right and both wrong tell nothing about the difference; `gained` are those that only the second
 * gets right, `lost` those that only the first does. */
#ifndef TERSE_COMPRESS_PAIRED_H
#define TERSE_COMPRESS_PAIRED_H

#include <stdint.h>

typedef struct terse_paired {
    double difference; /* (gained - lost) / n */
    double low, high;  /* 95 %: Tango's score interval for paired proportions (Statistics in Medicine 17, 1998) */
    double p;          /* McNemar's exact test, two-sided: that nothing but chance parts them */
} terse_paired;

/* n >= 1, gained and lost >= 0, gained + lost <= n. */
terse_paired terse_paired_compare(int64_t n, int64_t gained, int64_t lost);

/* The class that a row of n >= 1 scores stands for: the first of the largest. */
static inline int64_t terse_paired_largest(const float *row, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (row[i] > row[best])
            best = i;
    return best;
}

#endif
