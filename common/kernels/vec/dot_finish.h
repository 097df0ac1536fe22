/* SPDX-License-Identifier: Apache-2.0 */
/* dot_finish.h: from the sums of a tile to its outputs, as quantized.h defines them.
 *
 * Bytes, the fast way: t = 256.5 + zero_point + v in float, clamped to 256.5 + low .. 256.5 + high. As 256 <= t < 512,
 * the upper eight bits of t's mantissa are the output byte (v rounded half up, plus the zero point), and the lower
 * fifteen its distance to the next tie below in units of 2^-15. Float errs by at most `slack` of these units:
 *
 *   sum to float, multiplier        2 * 2^-24 * |v| with |v| <= 256 (+ 255 scale), else t is clamped      1 (+ scale)
 *   last rounding of t                                                                                    1/2
 *   with a residual: its scale, zero point and its own addition                             (2 + 3/2 scale)
 *
 * t is moved up by `slack` units; where the distance is then at most 2 * slack, float may have decided wrongly, or the
 * value is a tie, which goes to the even number: these sixty-four outputs are computed again in double. */
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
    int32_t cut_bias[16];
    float cut_multiplier[16], cut_low[16];
} dot_finish;

static const int32_t dot_zeros[16];
static const float dot_no_low[16];

INLINE const int32_t *dot_bias_of(const dot_finish *f, int64_t panel)
{
    return panel == f->cut_panel ? f->cut_bias : f->bias ? f->bias + panel * 16 : dot_zeros;
}

INLINE const float *dot_multiplier_of(const dot_finish *f, int64_t panel)
{
    return panel == f->cut_panel ? f->cut_multiplier : f->multiplier + panel * 16;
}

INLINE const float *dot_low_of(const dot_finish *f, int64_t panel)
{
    return panel == f->cut_panel ? f->cut_low : f->multiplier_low ? f->multiplier_low + panel * 16 : dot_no_low;
}

INLINE int dot_width_of(const dot_finish *f, int64_t panel)
{
    int64_t left = f->columns - panel * 16;
    return left < 16 ? (int)left : 16;
}

static dot_scale dot_scale_for(const terse_requantize *to)
{
    const double scale = to->residual ? fabs(to->residual_scale) : 0.0;
    const double slack = to->residual ? ceil(3.5 + 2.5 * scale) : 1.0, unit = 1.0 / 32768.0;
    const bool fits = slack < 4000.0; /* NaN does not */
    const double move = to->residual ? (double)to->residual_zero_point * to->residual_scale : 0.0;
    return (dot_scale){.begin = (float)(256.5 + to->zero_point + (fits ? slack * unit : 0.0) - move),
                       .low = 256.5f + (float)to->low,
                       .high = 256.5f + (float)to->high,
                       .residual = (float)to->residual_scale,
                       .near = fits ? (uint16_t)(4.0 * slack) : UINT16_MAX};
}

/* `first`: of the group's columns among all. */
static void dot_finish_init(dot_finish *f, const terse_requantize *to, int64_t first, int64_t columns, void *c,
                            int64_t ldc)
{
    const int64_t size = to->to == TERSE_SUMS_TO_U8 ? 1 : 4;
    f->to = to;
    f->columns = columns;
    f->cut_panel = columns % 16 ? columns / 16 : -1;
    f->c = (uint8_t *)c + first * size;
    f->ldc = ldc;
    f->bias = to->bias ? to->bias + first : NULL;
    f->multiplier = to->multiplier ? to->multiplier + first : NULL;
    f->multiplier_low = to->multiplier_low ? to->multiplier_low + first : NULL;
    f->bias_f32 = to->bias_f32 ? to->bias_f32 + first : NULL;
    f->residual = to->residual ? to->residual + first : NULL;
    f->residual_f32 = to->residual_f32 ? to->residual_f32 + first : NULL;
    if (to->to == TERSE_SUMS_TO_U8)
        f->scale = dot_scale_for(to);
    if (f->cut_panel < 0)
        return;
    const size_t at = (size_t)(columns / 16 * 16), bytes = (size_t)(columns % 16) * 4;
    memset(f->cut_bias, 0, sizeof f->cut_bias);
    memset(f->cut_multiplier, 0, sizeof f->cut_multiplier);
    memset(f->cut_low, 0, sizeof f->cut_low);
    if (f->bias)
        memcpy(f->cut_bias, f->bias + at, bytes);
    if (f->multiplier)
        memcpy(f->cut_multiplier, f->multiplier + at, bytes);
    if (f->multiplier_low)
        memcpy(f->cut_low, f->multiplier_low + at, bytes);
}

/* Sixteen sums in double, the definition itself. */
INLINE void dot_exact_sixteen(const terse_requantize *to, const int32_t sums[16], const float multiplier[16],
                              const float low[16], const uint8_t *residual, uint8_t ret_bytes[16])
{
    double v[16];
    for (int j = 0; j < 16; j++)
        v[j] = (double)sums[j] * ((double)multiplier[j] + (double)low[j]);
    if (residual)
        for (int j = 0; j < 16; j++)
            v[j] += (double)(residual[j] - to->residual_zero_point) * to->residual_scale;
    const double zero = (double)to->zero_point, least = (double)to->low, most = (double)to->high;
    for (int j = 0; j < 16; j++) {
        double q = rint(v[j]) + zero;
        q = q > least ? q : least; /* a NaN becomes low */
        v[j] = q < most ? q : most;
    }
    for (int j = 0; j < 16; j++)
        ret_bytes[j] = (uint8_t)(int32_t)v[j];
}

static __attribute__((noinline)) void dot_exact(const dot_finish *f, const int32_t *sums, int64_t row, int64_t panel)
{
    uint8_t residual[16] = {0}, bytes[16];
    const size_t width = (size_t)dot_width_of(f, panel);
    if (f->residual)
        memcpy(residual, f->residual + row * f->to->residual_stride + panel * 16, width);
    dot_exact_sixteen(f->to, sums, dot_multiplier_of(f, panel), dot_low_of(f, panel), f->residual ? residual : NULL,
                      bytes);
    memcpy(f->c + row * f->ldc + panel * 16, bytes, width);
}

/* `panels` (1, 2 or 4) panels of a tile as bytes: in turn four of sixteen sums, from 4, 2 or 1 rows. `stride`: sums
 * between rows. */
INLINE void dot_to_bytes(const dot_finish *f, int panels, bool has_residual, bool cut, const int32_t *sums,
                         int64_t stride, int rows, int64_t first, int64_t panel)
{
    const int step = 4 / panels, width = (panels - 1) * 16 + dot_width_of(f, panel + panels - 1);
    const float *multiplier[4];
    UNROLL for (int i = 0; i < 4; i++) multiplier[i] = dot_multiplier_of(f, panel + i % panels);
    const int64_t ldr = f->to->residual_stride, ldc = f->ldc;
    uint8_t *c = f->c + first * ldc + panel * 16;
    const uint8_t *residual = has_residual ? f->residual + first * ldr + panel * 16 : NULL;
    for (int r = 0; r < rows; r += step) {
        const int32_t *from[4];
        const uint8_t *add[4];
        dot_bytes bytes;
        UNROLL for (int i = 0; i < 4; i++)
        {
            const int row = r + i / panels < rows ? r + i / panels : rows - 1;
            from[i] = sums + row * stride + i % panels * 16;
            add[i] = has_residual ? residual + row * ldr + i % panels * 16 : NULL;
        }
        bool near = dot_requantize(&f->scale, from, multiplier, has_residual ? add : NULL, cut ? panels - 1 : 4, panels,
                                   width & 15, &bytes);
        if (__builtin_expect(near, 0)) {
            for (int i = 0; i < 4 && r + i / panels < rows; i++)
                dot_exact(f, from[i], first + r + i / panels, panel + i % panels);
            continue;
        }
        UNROLL for (int i = 0; i < step; i++) if (r + i < rows)
            dot_put(c + (r + i) * ldc, &bytes, i, panels, cut ? width : panels * 16);
    }
}

#define DOT_TO_BYTES(n, name, residual, cut)                                                                           \
    static void dot_bytes_##n##_##name(const dot_finish *f, const int32_t *sums, int64_t stride, int rows,             \
                                       int64_t first, int64_t panel)                                                   \
    {                                                                                                                  \
        dot_to_bytes(f, n, residual, cut, sums, stride, rows, first, panel);                                           \
    }
#define DOT_TO_BYTES_ALL(n)                                                                                            \
    DOT_TO_BYTES(n, plain, false, false)                                                                               \
    DOT_TO_BYTES(n, plain_cut, false, true)                                                                            \
    DOT_TO_BYTES(n, residual, true, false)                                                                             \
    DOT_TO_BYTES(n, residual_cut, true, true)
DOT_TO_BYTES_ALL(1)
DOT_TO_BYTES_ALL(2)
DOT_TO_BYTES_ALL(4)

typedef void dot_bytes_function(const dot_finish *f, const int32_t *sums, int64_t stride, int rows, int64_t first,
                                int64_t panel);

#define DOT_TO_BYTES_ENTRY(n)                                                                                          \
    [n] = {{dot_bytes_##n##_plain, dot_bytes_##n##_plain_cut}, {dot_bytes_##n##_residual, dot_bytes_##n##_residual_cut}}
static dot_bytes_function *const dot_bytes_functions[5][2][2] = {DOT_TO_BYTES_ENTRY(1), DOT_TO_BYTES_ENTRY(2),
                                                                 DOT_TO_BYTES_ENTRY(4)};

static void dot_to_floats(const dot_finish *f, const int32_t *sums, int64_t row, int64_t panel)
{
    const int64_t width = dot_width_of(f, panel);
    float *c = (float *)(void *)f->c + row * f->ldc + panel * 16;
    v16 add = f->bias_f32 ? v16_load_up_to(f->bias_f32 + panel * 16, width) : v16_zero();
    v16 x = v16_fma(dot_to_float(sums), v16_load(dot_multiplier_of(f, panel)), add);
    if (f->residual_f32)
        x = v16_add(x, v16_load_up_to(f->residual_f32 + row * f->to->residual_stride + panel * 16, width));
    v16_store_up_to(c, v16_activate_near(x, &f->to->activation), width);
}

/* The sums of `rows` rows, the first one being row `first` of the output, of `panels` panels. */
static void dot_finish_tile(const dot_finish *f, const int32_t *sums, int rows, int panels, int64_t first,
                            int64_t panel)
{
    if (f->to->to == TERSE_SUMS_TO_U8) {
        for (int v = 0; v < panels; v += 4) {
            const int n = panels < 4 ? panels : 4;
            const bool cut = panel + v + n - 1 == f->cut_panel;
            dot_bytes_functions[n][f->residual != NULL][cut](f, sums + v * 16, panels * 16, rows, first, panel + v);
        }
        return;
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < panels; v++, sums += 16) {
            if (f->to->to == TERSE_SUMS_TO_F32)
                dot_to_floats(f, sums, first + r, panel + v);
            else
                memcpy(f->c + ((first + r) * f->ldc + (panel + v) * 16) * 4, sums,
                       (size_t)dot_width_of(f, panel + v) * 4);
        }
}

#endif
