/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/paired.h"

#include <math.h>

static const double z95 = 1.959963984540054;

/* How many standard deviations the counts are above what a difference of `d` makes likely, with the share of samples
 * that only the first gets right at its most likely for that difference. */
static double score(double n, double gained, double lost, double d)
{
    const double b = -gained - lost + (2.0 * n - gained + lost) * d, c = -lost * d * (1.0 - d);
    const double root = b * b - 8.0 * n * c;
    const double share = (sqrt(root > 0.0 ? root : 0.0) - b) / (4.0 * n);
    const double variance = n * (2.0 * share + d * (1.0 - d));
    const double above = gained - lost - n * d;
    if (variance > 0.0)
        return above / sqrt(variance);
    return above > 0.0 ? (double)INFINITY : above < 0.0 ? -(double)INFINITY : 0.0;
}

/* The difference between `low` and `high` at which the score, which falls, passes `at`. */
static double cross(double n, double gained, double lost, double at, double low, double high)
{
    for (int i = 0; i < 80; i++) {
        const double middle = (low + high) / 2.0;
        if (score(n, gained, lost, middle) > at)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2.0;
}

/* Each of the samples that part the two is a fair coin: how likely is a split at least as uneven. */
static double mcnemar(int64_t gained, int64_t lost)
{
    const int64_t n = gained + lost, few = gained < lost ? gained : lost;
    double sum = 0.0;
    for (int64_t k = 0; k <= few; k++)
        sum += exp(lgamma((double)n + 1.0) - lgamma((double)k + 1.0) - lgamma((double)(n - k) + 1.0) -
                   (double)n * log(2.0));
    return 2.0 * sum < 1.0 ? 2.0 * sum : 1.0;
}

terse_paired terse_paired_compare(int64_t n, int64_t gained, int64_t lost)
{
    const double all = (double)n, up = (double)gained, down = (double)lost;
    terse_paired p = {.difference = (up - down) / all, .p = mcnemar(gained, lost)};
    p.low = cross(all, up, down, z95, -1.0, p.difference);
    p.high = cross(all, up, down, -z95, p.difference, 1.0);
    return p;
}
