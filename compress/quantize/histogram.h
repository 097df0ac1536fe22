/* SPDX-License-Identifier: Apache-2.0 */
/* histogram.h: how the numbers of one tensor are distributed, gathered sample by sample, and the ranges that follow.
 * Runs in: terse-compress (and the tests), with --calibrate. Ownership: in place; nothing to release.
 *
 * Design notes. 2,048 bins for positive and as many for negative numbers, all of one width that is a power of two. When
 * a number lies beyond the last bin the width doubles and neighbours merge. So the size does not depend on how many
 * numbers were seen, and the result does not depend on their order (but for the moving average). Zeros are counted
 * apart: they are exact under every scale. */
#ifndef TERSE_QUANTIZE_HISTOGRAM_H
#define TERSE_QUANTIZE_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>

enum { TERSE_HISTOGRAM_BINS = 2048 };

typedef struct terse_histogram {
    double width; /* of a bin: a power of two; 0: only zeros so far */
    int64_t n, zeros;
    float min, max;
    double moving_low, moving_high; /* least and greatest of a sample, averaged with momentum 0.9 */
    int64_t negative[TERSE_HISTOGRAM_BINS], positive[TERSE_HISTOGRAM_BINS]; /* bin i: width * [i, i+1) */
} terse_histogram;

/* Adds the numbers of one sample, n >= 0. False, with nothing added, when one of them is NaN or infinite. */
bool terse_histogram_add(terse_histogram *histogram, const float *numbers, int64_t n);
/* Adds what `from` has seen. The moving ends become those of both. */
void terse_histogram_merge(terse_histogram *histogram, const terse_histogram *from);

/* --- ranges (ranges.c) ------------------------------------------------------------------------------------------- */

/* low <= 0 <= high: zero is always a number that bytes can hold. */
typedef struct terse_range {
    double low, high;
} terse_range;

/* q = round(x / scale) + zero_point, x = (q - zero_point) * scale. scale 0: the tensor stays FP32. */
typedef struct terse_affine {
    float scale;
    int32_t zero_point; /* 0..255 */
} terse_affine;

/* The bytes that hold a range: scale = (high - low) / 255, the zero point next to -low / scale (Jacob et al. 2018,
 * "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3.1). */
terse_affine terse_affine_of(terse_range range);
int32_t terse_affine_quantize(terse_affine affine, double x); /* 0..255, ties to even */
/* What becomes of a number that goes through the bytes and back. */
double terse_affine_apply(terse_affine affine, double x);

/* Pinned: --calibration names them in this order. */
typedef enum terse_calibration {
    TERSE_CALIBRATION_AUTO = 0, /* per tensor, whichever of the others costs least at the output of the layers behind */
    TERSE_CALIBRATION_MINMAX,
    TERSE_CALIBRATION_MOVING,     /* Jacob et al. 2018, section 3: exponential moving averages of the ends */
    TERSE_CALIBRATION_PERCENTILE, /* 0.01 % cut at each end */
    TERSE_CALIBRATION_ENTROPY, /* least KL(float || bytes): Migacz 2017, "8-bit Inference with TensorRT", slides 25-38
                                */
    TERSE_CALIBRATION_MSE,     /* least mean square of what the bytes lose: Choukroun et al. 2019, eq. 3 */
    TERSE_CALIBRATIONS
} terse_calibration;

const char *terse_calibration_name(terse_calibration method); /* "auto", "minmax" ... */

/* The range that a method (not AUTO) finds. {0, 0} when nothing but zeros was seen. */
terse_range terse_range_of(const terse_histogram *histogram, terse_calibration method);

/* Mean square error when the numbers seen are held in the bytes of `range`, each taken as the middle of its bin. */
double terse_range_error(const terse_histogram *histogram, terse_range range);
/* Share of the numbers seen, 0..1, that the bytes of `range` cannot hold: they become its ends. To a bin. */
double terse_range_clipped(const terse_histogram *histogram, terse_range range);
/* KL divergence of the numbers seen (without zeros) from their bytes, in nats. Numbers outside count at the ends. */
double terse_range_divergence(const terse_histogram *histogram, terse_range range);

#endif
