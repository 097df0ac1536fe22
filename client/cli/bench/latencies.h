/* SPDX-License-Identifier: Apache-2.0 */
/* latencies.h: latencies and what is known of them: percentiles, means with their intervals.
 * Runs in: terse bench, terse tune. Ownership: terse_latencies owns its numbers. Reads no clock. */
#ifndef TERSE_CLI_LATENCIES_H
#define TERSE_CLI_LATENCIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct terse_latencies {
    uint64_t *ns;
    size_t n, capacity;
} terse_latencies;

bool terse_latencies_add(terse_latencies *to, uint64_t ns); /* false: out of memory */
bool terse_latencies_join(terse_latencies *to, const terse_latencies *from);
void terse_latencies_sort(terse_latencies *of);
void terse_latencies_done(terse_latencies *of);
/* Microseconds that a part of q of all do not pass (nearest rank); NAN without any. Of sorted ones. */
double terse_latencies_us(const terse_latencies *sorted, double q);

/* A mean of repeated rounds and its 95 % interval (Student's t). With one round the interval is not known: NAN. */
typedef struct terse_mean {
    double mean, low, high;
} terse_mean;
terse_mean terse_mean_of(const double *values, size_t n);
/* The same of positive ratios, by their logarithms. */
terse_mean terse_mean_of_ratios(const double *ratios, size_t n);
/* Half the width of the interval as a part of the mean; INFINITY when it is not known. */
double terse_mean_spread(const terse_mean *mean);
/* The middle one of n > 0 numbers, which are put in order. */
double terse_median(double *values, size_t n);

#endif
