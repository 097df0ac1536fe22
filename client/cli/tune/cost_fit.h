/* SPDX-License-Identifier: Apache-2.0 */
/* cost_fit.h: the straight line t(n) = a + b * n through what batches of n rows take, and what follows from it.
 * Runs in: terse bench, terse tune. Plain numbers. */
#ifndef TERSE_TUNE_COST_FIT_H
#define TERSE_TUNE_COST_FIT_H

#include <stddef.h>

typedef struct terse_cost_point {
    double rows, us;
} terse_cost_point;

typedef struct terse_cost_line {
    double a_us, b_us; /* both at least 0 */
} terse_cost_line;

/* Least squares of the relative errors, so that small batches count as much as large ones. 0 with no point, else 1. */
int terse_cost_fit(const terse_cost_point *points, size_t n, terse_cost_line *ret_line);
/* Rows of a batch from which on twice as many save less than `gain` (0.02) of a row's time; `extra_us` is what each
 * batch costs besides. At most `most`. */
unsigned terse_cost_enough(const terse_cost_line *line, double extra_us, double gain, unsigned most);

#endif
