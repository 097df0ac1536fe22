/* SPDX-License-Identifier: Apache-2.0 */
/* dot_finish_panels.h: what dot_finish.h declares, and describes. */
#ifndef TERSE_KERNELS_VEC_DOT_FINISH_PANELS_H
#define TERSE_KERNELS_VEC_DOT_FINISH_PANELS_H

#include "common/kernels/vec/dot_finish.h"

/* Half of the distance between floats of the size of x. */
static double dot_half_ulp(double x)
{
    int exponent = 0;
    (void)frexp(x, &exponent);
    return ldexp(1.0, exponent - 25);
}

static dot_scale dot_scale_for(const terse_requantize *to)
{
    const double unit = (double)DOT_UNIT, zero = to->residual ? (double)to->residual_zero_point : 0.0;
    const double scale = to->residual ? to->residual_scale : 0.0, begin = to->zero_point + 0.5 - zero * scale;
    const double reach = fabs(scale) * (zero > 255.0 - zero ? zero : 255.0 - zero), v = 256.0 + reach;
    double error = 2.0 * v * unit / 16777216.0 + 0.76;
    if (to->residual) {
        const double most = (fmax(fabs(begin), fabs(begin + 255.0 * scale)) + 1.0) * unit; /* and the slack */
        error += 255.0 * fabs((double)(float)(scale * unit) - scale * unit) + 2.0 * dot_half_ulp(most);
    }
    const double slack = floor(error);
    const bool fits = slack < 16000.0; /* NaN does not */
    return (dot_scale){.begin = (float)(begin * unit + (fits ? slack : 0.0)),
                       .residual = (float)(scale * unit),
                       .low = (int16_t)to->low,
                       .high = (int16_t)to->high,
                       .near = fits ? (uint16_t)(2.0 * slack) : UINT16_MAX};
}

void SHARED_NAME(terse_dot_finish_init)(dot_finish *f, const terse_requantize *to, int64_t first, int64_t columns,
                                        void *c, int64_t ldc)
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
#ifdef DOT_ROWWISE
    if (to->to == TERSE_SUMS_TO_U8)
        dot_row_begin(&f->row, &f->scale);
#endif
    if (f->cut_panel < 0)
        return;
    const size_t at = (size_t)(columns / 16 * 16), bytes = (size_t)(columns % 16) * 4;
    memset(f->cut_bias, 0, sizeof f->cut_bias);
    memset(f->cut_multiplier, 0, sizeof f->cut_multiplier);
    if (f->bias)
        memcpy(f->cut_bias, f->bias + at, bytes);
    if (f->multiplier)
        memcpy(f->cut_multiplier, f->multiplier + at, bytes);
}

uint8_t SHARED_NAME(terse_dot_exact)(const dot_finish *f, int32_t sum, int32_t residual, int64_t column)
{
    const terse_requantize *to = f->to;
    const double low = f->multiplier_low ? (double)f->multiplier_low[column] : 0.0;
    double v = (double)sum * ((double)f->multiplier[column] + low);
    if (f->residual)
        v += (double)(residual - to->residual_zero_point) * to->residual_scale;
    double q = rint(v) + (double)to->zero_point;
    q = q > (double)to->low ? q : (double)to->low; /* a NaN becomes low */
    q = q < (double)to->high ? q : (double)to->high;
    return (uint8_t)(int32_t)q;
}

/* Those of four times sixteen outputs that are too near to a tie. Sixteens lie side by side in rows of `panels`, the
 * residual's rows `ldr` and the outputs' `ldc` apart. */
static __attribute__((noinline)) void dot_correct(const dot_finish *f, const int32_t *sums, uint64_t near, int panels,
                                                  int rows, int64_t panel, const uint8_t *residual, int64_t ldr,
                                                  uint8_t *c, int64_t ldc)
{
    for (; near; near &= near - 1) {
        const int i = __builtin_ctzll(near), r = i / 16 / panels, j = i / 16 % panels * 16 + i % 16;
        if (r < rows && panel * 16 + j < f->columns)
            c[r * ldc + j] =
                SHARED_NAME(terse_dot_exact)(f, sums[i], residual ? residual[r * ldr + j] : 0, panel * 16 + j);
    }
}

/* Four of sixteen sums, from 4 / panels rows of which `rows` exist. */
INLINE void dot_four_to_bytes(const dot_finish *f, const dot_constants *constants, int panels, bool has_residual,
                              bool cut, const int32_t *sums, int rows, int64_t row, int64_t panel, int width)
{
    const int step = 4 / panels;
    const uint8_t *add[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        const int r = i / panels < rows ? i / panels : rows - 1;
        add[i] = has_residual ? f->residual + (row + r) * f->to->residual_stride + (panel + i % panels) * 16 : NULL;
    }
    dot_bytes bytes;
    const int last = cut ? width - (panels - 1) * 16 : 16;
    if (__builtin_expect(dot_requantize(constants, sums, panels, has_residual ? add : NULL, last, &bytes), 0)) {
        uint8_t all[64];
        dot_get(&bytes, all);
        dot_correct(f, sums, dot_near(&bytes), panels, rows, panel, add[0], f->to->residual_stride, all, panels * 16);
        dot_set(&bytes, all);
    }
    UNROLL for (int i = 0; i < step; i++) if (i < rows)
        dot_put(f->c + (row + i) * f->ldc + panel * 16, bytes, i, panels, cut ? width : panels * 16);
}

/* `panels` (1, 2 or 4) panels of a tile as bytes. The sums of a row lie behind those of the row before. Where the last
 * rows do not fill up four, zeros do: what is behind them may hold anything and could look too near to a tie. */
INLINE void dot_to_bytes(const dot_finish *f, int panels, bool has_residual, bool cut, const int32_t *sums, int rows,
                         int64_t row, int64_t panel)
{
    const int step = 4 / panels, width = (panels - 1) * 16 + dot_width_of(f, panel + panels - 1);
    const float *multiplier[4];
    UNROLL for (int v = 0; v < panels; v++) multiplier[v] = dot_multiplier_of(f, panel + v);
    const dot_constants constants = dot_constants_for(&f->scale, multiplier, panels);
    int32_t four[64];
    for (; rows > 0; rows -= step, row += step, sums += 64) {
        if (step > 1 && rows < step) {
            memset(four, 0, sizeof four);
            memcpy(four, sums, (size_t)(rows * panels) * 64);
            sums = four; /* the last turn */
        }
        dot_four_to_bytes(f, &constants, panels, has_residual, cut, sums, rows < step ? rows : step, row, panel, width);
    }
}

#define DOT_TO_BYTES(n, name, residual, cut)                                                                           \
    static void dot_bytes_##n##_##name(const dot_finish *f, const int32_t *sums, int rows, int64_t row, int64_t panel) \
    {                                                                                                                  \
        dot_to_bytes(f, n, residual, cut, sums, rows, row, panel);                                                     \
    }
#define DOT_TO_BYTES_ALL(n)                                                                                            \
    DOT_TO_BYTES(n, plain, false, false)                                                                               \
    DOT_TO_BYTES(n, plain_cut, false, true)                                                                            \
    DOT_TO_BYTES(n, residual, true, false)                                                                             \
    DOT_TO_BYTES(n, residual_cut, true, true)
DOT_TO_BYTES_ALL(1)
DOT_TO_BYTES_ALL(2)
#ifdef DOT_ROWWISE /* no other tier has four panels side by side */
DOT_TO_BYTES_ALL(4)
#endif

#define DOT_TO_BYTES_ENTRY(n)                                                                                          \
    [n] = {{dot_bytes_##n##_plain, dot_bytes_##n##_plain_cut}, {dot_bytes_##n##_residual, dot_bytes_##n##_residual_cut}}
dot_bytes_function *const SHARED_NAME(terse_dot_bytes)[5][2][2] = {
    DOT_TO_BYTES_ENTRY(1),
    DOT_TO_BYTES_ENTRY(2),
#ifdef DOT_ROWWISE
    DOT_TO_BYTES_ENTRY(4),
#endif
};

/* One panel of `rows` rows, whose sums lie `step` apart, as floats. `kind` is known where this is compiled: the usual
 * activations stay in place, a Gelu has its constants in registers. */
INLINE void dot_panel_to_floats(const dot_finish *f, terse_activation_kind kind, const int32_t *sums, int step,
                                int rows, int64_t row, int64_t panel)
{
    const int64_t width = dot_width_of(f, panel), ldr = f->to->residual_stride;
    const terse_activation *activation = &f->to->activation;
    const v16 alpha = v16_set1(activation->alpha), beta = v16_set1(activation->beta);
    const v16 multiplier = v16_load(dot_multiplier_of(f, panel));
    const v16 add = f->bias_f32 ? v16_load_up_to(f->bias_f32 + panel * 16, width) : v16_zero();
    float *c = (float *)(void *)f->c + row * f->ldc + panel * 16;
    const float *residual = f->residual_f32 ? f->residual_f32 + row * ldr + panel * 16 : NULL;
    for (int r = 0; r < rows; r++, sums += step, c += f->ldc) {
        v16 x = v16_fma(dot_to_float(sums), multiplier, add);
        if (residual)
            x = v16_add(x, v16_load_up_to(residual + r * ldr, width));
        x = kind == TERSE_ACT_NONE   ? x
            : kind == TERSE_ACT_CLIP ? v16_clip(x, alpha, beta)
            : kind == TERSE_ACT_GELU ? v16_gelu(x)
                                     : SHARED_NAME(terse_activate)(x, activation);
        v16_store_up_to(c, x, width);
    }
}

static void dot_to_floats(const dot_finish *f, const int32_t *sums, int rows, int panels, int64_t row, int64_t panel)
{
    for (int v = 0; v < panels; v++, sums += 16, panel++)
        switch (f->to->activation.kind) {
        case TERSE_ACT_NONE:
            dot_panel_to_floats(f, TERSE_ACT_NONE, sums, panels * 16, rows, row, panel);
            break;
        case TERSE_ACT_CLIP:
            dot_panel_to_floats(f, TERSE_ACT_CLIP, sums, panels * 16, rows, row, panel);
            break;
        case TERSE_ACT_GELU:
            dot_panel_to_floats(f, TERSE_ACT_GELU, sums, panels * 16, rows, row, panel);
            break;
        default:
            dot_panel_to_floats(f, TERSE_ACT_SWISH, sums, panels * 16, rows, row, panel);
            break;
        }
}

void SHARED_NAME(terse_dot_to_words)(const dot_finish *f, const int32_t *sums, int rows, int panels, int64_t row,
                                     int64_t panel)
{
    if (f->to->to == TERSE_SUMS_TO_F32) {
        dot_to_floats(f, sums, rows, panels, row, panel);
        return;
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < panels; v++, sums += 16)
            memcpy(f->c + ((row + r) * f->ldc + (panel + v) * 16) * 4, sums, (size_t)dot_width_of(f, panel + v) * 4);
}

#ifdef DOT_ROWWISE
/* Puts right what of `panels` panels that were finished in registers lies too near to a tie. `residual`: their
 * columns, rows ldr apart. */
INLINE void dot_correct_panels(const dot_finish *f, int panels, const int32_t *sums, int rows, const uint8_t *residual,
                               int64_t ldr, int64_t row, int64_t panel)
{
    const int step = 4 / panels;
    const float *multiplier[4];
    UNROLL for (int v = 0; v < panels; v++) multiplier[v] = dot_multiplier_of(f, panel + v);
    const dot_constants constants = dot_constants_for(&f->scale, multiplier, panels);
    for (int r = 0; r < rows; r += step, sums += 64, residual += step * ldr) {
        const int left = rows - r < step ? rows - r : step;
        const uint8_t *add[4];
        UNROLL for (int i = 0; i < 4; i++) add[i] =
            residual + (i / panels < left ? i / panels : 0) * ldr + i % panels * 16;
        dot_bytes bytes;
        if (dot_requantize(&constants, sums, panels, f->residual ? add : NULL, 16, &bytes))
            dot_correct(f, sums, dot_near(&bytes), panels, left, panel, f->residual ? residual : NULL, ldr,
                        f->c + (row + r) * f->ldc + panel * 16, f->ldc);
    }
}

void SHARED_NAME(terse_dot_correct_tile)(const dot_finish *f, const int32_t *sums, int rows, int panels,
                                         const uint8_t *residual, int64_t row, int64_t panel)
{
    if (panels == 1)
        dot_correct_panels(f, 1, sums, rows, residual, 16, row, panel);
    else if (panels == 2)
        dot_correct_panels(f, 2, sums, rows, residual, 32, row, panel);
    else
        for (int v = 0; v < panels; v += 4)
            dot_correct_panels(f, 4, sums + v * rows * 16, rows, residual + v * 16, panels * 16, row, panel + v);
}
#endif

#endif
