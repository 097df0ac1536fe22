/* SPDX-License-Identifier: Apache-2.0 */
/* dot_finish.h: from the sums of a tile to its outputs, as quantized.h defines them.
 *
 * Bytes, the fast way: t = zero_point + 1/2 + v in units of 2^-16, in float and then as an integer. Its upper half is
 * the output before clamping (v rounded half up, plus the zero point), its lower half the distance to the tie below.
 * Where the output is within 0..255 (|v| <= 256 + what the residual adds), t errs by at most, in units,
 *
 *   sum as float, multiplier      2 * 2^-24 * 2^16 * |v|
 *   last addition, conversion     1/4 + 1/2, or 1/2 + 0 from 2^23 on
 *   with a residual               its scale's error * 255, half an ulp for its zero point, half an ulp for its addition
 *
 * and by whole units no more than `slack`, the integer below.
 * t is moved up by `slack`; where the lower half is then at most 2 * slack, float may have decided wrongly, or v is a
 * tie, which goes to the even number: such outputs are computed again in double. The same happens where t
 * does not fit 32 bits: conversion gives 0x80000000 then, or on some tiers the largest integer, which clamps rightly.
 */
#ifndef TERSE_KERNELS_VEC_DOT_FINISH_H
#define TERSE_KERNELS_VEC_DOT_FINISH_H

#include <string.h>

#include "common/kernels/vec/math.h"
#include "common/kernels/vec/dot.h"

/* What all tiles of a product share, for the columns of one group. Numbers per column are read in sixteens; the last
 * panel has copies of its own when it is not full. */
typedef struct dot_finish {
    const terse_requantize *to;
    int64_t columns, cut_panel; /* cut_panel: the one that is not full, or -1 */
    uint8_t *c;                 /* row 0, first column of the group; of any type */
    int64_t ldc;                /* in elements */
    const int32_t *bias;
    const float *multiplier, *multiplier_low, *bias_f32;
    const uint8_t *residual;
    const float *residual_f32;
    dot_scale scale;
#ifdef DOT_ROWWISE
    dot_row_constants row;
#endif
    int32_t cut_bias[16];
    float cut_multiplier[16];
} dot_finish;

static const int32_t dot_zeros[16];

INLINE const int32_t *dot_bias_of(const dot_finish *f, int64_t panel)
{
    return panel == f->cut_panel ? f->cut_bias : f->bias ? f->bias + panel * 16 : dot_zeros;
}

INLINE const float *dot_multiplier_of(const dot_finish *f, int64_t panel)
{
    return panel == f->cut_panel ? f->cut_multiplier : f->multiplier + panel * 16;
}

INLINE int dot_width_of(const dot_finish *f, int64_t panel)
{
    int64_t left = f->columns - panel * 16;
    return left < 16 ? (int)left : 16;
}

/* What follows is once in the program for all tiers with the same registers: dot_finish_panels.h.
 *
 * `first`: of the group's columns among all. */
void SHARED_NAME(terse_dot_finish_init)(dot_finish *f, const terse_requantize *to, int64_t first, int64_t columns,
                                        void *c, int64_t ldc);
/* To bytes: by 1, 2 or 4 panels (DOT_PANELS at most), with a residual, and with the panel that is not full. */
typedef void dot_bytes_function(const dot_finish *f, const int32_t *sums, int rows, int64_t row, int64_t panel);
extern dot_bytes_function *const SHARED_NAME(terse_dot_bytes)[5][2][2];
/* To floats or as they are. */
void SHARED_NAME(terse_dot_to_words)(const dot_finish *f, const int32_t *sums, int rows, int panels, int64_t row,
                                     int64_t panel);
/* One output in double, the definition itself. */
uint8_t SHARED_NAME(terse_dot_exact)(const dot_finish *f, int32_t sum, int32_t residual, int64_t column);
#ifdef DOT_ROWWISE
/* Puts right what of a tile, as dot_finish_tile has it, was finished in registers and lies too near to a tie.
 * `residual`: rows of 16 * panels. */
void SHARED_NAME(terse_dot_correct_tile)(const dot_finish *f, const int32_t *sums, int rows, int panels,
                                         const uint8_t *residual, int64_t row, int64_t panel);
#endif

/* The sums of `rows` rows, the first one being row `row` of the output, of at most four panels. */
INLINE void dot_finish_panels(const dot_finish *f, const int32_t *sums, int rows, int panels, int64_t row,
                              int64_t panel)
{
    if (f->to->to == TERSE_SUMS_TO_U8) {
        const bool cut = panel + panels - 1 == f->cut_panel;
        SHARED_NAME(terse_dot_bytes)[panels][f->residual != NULL][cut](f, sums, rows, row, panel);
        return;
    }
    SHARED_NAME(terse_dot_to_words)(f, sums, rows, panels, row, panel);
}

/* As tiles leave their sums: four panels, then the next four. */
INLINE void dot_finish_tile(const dot_finish *f, const int32_t *sums, int rows, int panels, int64_t row, int64_t panel)
{
    for (; panels > 4; panels -= 4, panel += 4, sums += rows * 64)
        dot_finish_panels(f, sums, rows, 4, row, panel);
    dot_finish_panels(f, sums, rows, panels, row, panel);
}

#endif
