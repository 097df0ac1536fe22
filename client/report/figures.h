/* SPDX-License-Identifier: Apache-2.0 */
/* figures.h: the figures that reports of measurements share: percentiles of latencies, batch sizes, the cost curve.
 * Runs in: terse. Owns nothing; writes into the stream of the page. */
#ifndef TERSE_REPORT_FIGURES_H
#define TERSE_REPORT_FIGURES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* One measurement. */
typedef struct terse_figures_load {
    const char *name;
    const uint64_t *sorted_ns; /* latencies, ascending */
    size_t n;
    const uint64_t *in_batch; /* answers by rows of their batch: [0, n_batches) */
    size_t n_batches;
} terse_figures_load;

enum { TERSE_FIGURES_LOADS = 6 };

/* Latency by percentile, the axis of percentiles being logarithmic in what is slower. At most TERSE_FIGURES_LOADS. */
void terse_figures_percentiles(const terse_figures_load *loads, size_t n, FILE *out);
/* Shares of the answers by the size of their batch: 1, 2, 3-4, 5-8 ... rows. */
void terse_figures_batches(const terse_figures_load *loads, size_t n, FILE *out);

/* What batches take, and the straight line a + b * rows through it (b NAN: none). */
typedef struct terse_figures_cost {
    double rows, us;
} terse_figures_cost;
void terse_figures_costs(const terse_figures_cost *costs, size_t n, double a_us, double b_us, FILE *out);

#endif
