/* SPDX-License-Identifier: Apache-2.0 */
/* adaround.h: weights rounded up or down for what their product gives on samples, scales fixed.
 * Runs in: terse-compress (and the tests). Owns nothing; the caller's arrays.
 *
 * Rows of weights w are rounded to integers q times scales. With H the second moments of what the layer reads, a row's
 * output loses d^T H d, d = q s - w. Three ways: to the nearest; GPTQ (gptq.h); AdaRound (Nagel et al. 2020, "Up or
 * Down? Adaptive Rounding for Post-Training Quantization", equations 21 to 24: rectified sigmoids h(V) between floor
 * and floor + 1, driven to 0 or 1 by a regularizer whose exponent falls), whose objective is quadratic for a product,
 * so that its gradient is 2 (d H) s h'(V); behind it single integers move by what is best for the row while that helps.
 */
#ifndef TERSE_QUANTIZE_ADAROUND_H
#define TERSE_QUANTIZE_ADAROUND_H

#include <stdbool.h>
#include <stdint.h>

typedef enum terse_rounding {
    TERSE_ROUNDING_DEFAULT = 0, /* int8: nearest; int4-weights with samples: auto */
    TERSE_ROUNDING_NEAREST,
    TERSE_ROUNDING_GPTQ,
    TERSE_ROUNDING_ADAROUND,
    TERSE_ROUNDING_AUTO, /* for each layer the one that loses least on samples that it was not fitted to */
    TERSE_ROUNDINGS
} terse_rounding;

const char *terse_rounding_name(terse_rounding rounding); /* "nearest", as --rounding takes it; "" for the default */

typedef struct terse_round_rows {
    const float *w;      /* [o][k]; 0 stays 0 */
    int64_t o, k, group; /* `group` entries of a row share a scale */
    int low, high;
    const float *scales; /* [o][ceil(k / group)]; 0: all its weights are 0 */
    int8_t *q;           /* [o][k] */
} terse_round_rows;

/* The sum over rows of d^T H d; moments [k][k], symmetric. -1 when memory is out. */
double terse_round_error(const terse_round_rows *rows, const double *moments);

void terse_round_nearest(const terse_round_rows *rows);
/* False when memory is out or the moments have no factor: q is as it was. */
bool terse_round_gptq(const terse_round_rows *rows, const double *moments);
/* From q, which is kept for each row that nothing better is found for. False when memory is out: q is as it was, or
 * better. */
bool terse_round_adaround(const terse_round_rows *rows, const double *moments);

#endif
