/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h: kernels on bytes that are no dense product, in plain C that compilers turn into the tier's vectors;
 * bytes_range.h has the arithmetic.
 */
#ifndef TERSE_KERNELS_VEC_BYTES_H
#define TERSE_KERNELS_VEC_BYTES_H

#include "common/kernels/vec/bytes_range.h"

/* --- element by element ------------------------------------------------------------------------------------------ */

/* `n` elements from `x`, or one element `n` times. */
INLINE const uint8_t *bytes_operand(const uint8_t *x, int64_t stride, int64_t i, uint8_t spread[BYTES_BLOCK])
{
    return stride ? x + i : spread;
}

INLINE void bytes_add_block(const terse_binary_u8_args *args, const bytes_range *range, const uint8_t *a,
                            const uint8_t *b, uint8_t *y, int64_t n)
{
    const float sa = (float)args->a_scale, sb = (float)args->b_scale;
    uint8_t out[BYTES_BLOCK];
    uint32_t least = UINT32_MAX;
    for (int64_t i = 0; i < n; i++) {
        const float t = fmaf((float)a[i], sa, fmaf((float)b[i], sb, range->begin));
        const uint32_t bits = bytes_bits(t, range), distance = bits & 0x7fff;
        out[i] = (uint8_t)(bits >> 15);
        least = distance < least ? distance : least;
    }
    if (__builtin_expect(least <= range->near, 0))
        for (int64_t i = 0; i < n; i++)
            out[i] = bytes_exact((double)(a[i] - args->a_zero_point) * args->a_scale +
                                     (double)(b[i] - args->b_zero_point) * args->b_scale,
                                 args->zero_point, args->low, args->high);
    memcpy(y, out, (size_t)n);
}

INLINE void bytes_mul_block(const terse_binary_u8_args *args, const bytes_range *range, const uint8_t *a,
                            const uint8_t *b, uint8_t *y, int64_t n)
{
    const float scale = (float)args->a_scale;
    uint8_t out[BYTES_BLOCK];
    uint32_t least = UINT32_MAX;
    for (int64_t i = 0; i < n; i++) {
        const int32_t product = (a[i] - args->a_zero_point) * (b[i] - args->b_zero_point);
        const uint32_t bits = bytes_bits(fmaf((float)product, scale, range->begin), range), distance = bits & 0x7fff;
        out[i] = (uint8_t)(bits >> 15);
        least = distance < least ? distance : least;
    }
    if (__builtin_expect(least <= range->near, 0))
        for (int64_t i = 0; i < n; i++)
            out[i] = bytes_exact((double)((a[i] - args->a_zero_point) * (b[i] - args->b_zero_point)) * args->a_scale,
                                 args->zero_point, args->low, args->high);
    memcpy(y, out, (size_t)n);
}

typedef void bytes_block(const terse_binary_u8_args *args, const bytes_range *range, const uint8_t *a, const uint8_t *b,
                         uint8_t *y, int64_t n);

INLINE void bytes_binary(const terse_binary_u8_args *args, const bytes_range *range, bytes_block *block)
{
    uint8_t spread_a[BYTES_BLOCK], spread_b[BYTES_BLOCK];
    if (args->n < 1)
        return;
    memset(spread_a, args->a[0], sizeof spread_a);
    memset(spread_b, args->b[0], sizeof spread_b);
    int64_t i = 0;
    for (; i + BYTES_BLOCK <= args->n; i += BYTES_BLOCK)
        block(args, range, bytes_operand(args->a, args->stride_a, i, spread_a),
              bytes_operand(args->b, args->stride_b, i, spread_b), args->y + i, BYTES_BLOCK);
    if (i < args->n)
        block(args, range, bytes_operand(args->a, args->stride_a, i, spread_a),
              bytes_operand(args->b, args->stride_b, i, spread_b), args->y + i, args->n - i);
}

/* In units of 2^-15: the two scales as floats and their sum's roundings, (|a| + |b|) / 2 and 1 + |b| / 2; `begin` as a
 * float, 1 + (|a| + |b|) / 2; the last rounding 1/2. */
void TIER_NAME(terse_add_u8)(const terse_binary_u8_args *args)
{
    const double slack = ceil(3.5 + 2.0 * (fabs(args->a_scale) + fabs(args->b_scale)));
    const bytes_range range =
        bytes_range_for(slack, args->a_zero_point * args->a_scale + args->b_zero_point * args->b_scale,
                        args->zero_point, args->low, args->high);
    bytes_binary(args, &range, bytes_add_block);
}

/* The scale as a float errs by 512 * 2^-24 at most where the result is not clamped, that is 1; roundings 1/2 each. */
void TIER_NAME(terse_mul_u8)(const terse_binary_u8_args *args)
{
    const bytes_range range = bytes_range_for(3.0, 0.0, args->zero_point, args->low, args->high);
    bytes_binary(args, &range, bytes_mul_block);
}

/* `inverse`: 1 / scale as a float. Where the result is not clamped, it and the product err by 1 (as above) together. */
INLINE void bytes_quantize_block(const float *x, float scale, float inverse, const bytes_range *range,
                                 int32_t zero_point, uint8_t *y, int64_t n)
{
    uint8_t out[BYTES_BLOCK];
    uint32_t least = UINT32_MAX, nans = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = bytes_bits(x[i] * inverse + range->begin, range), distance = bits & 0x7fff;
        out[i] = (uint8_t)(bits >> 15);
        least = distance < least ? distance : least;
        nans |= x[i] != x[i];
    }
    if (__builtin_expect(least <= range->near || nans, 0))
        for (int64_t i = 0; i < n; i++)
            out[i] = isnan(x[i]) ? (uint8_t)zero_point : bytes_exact((double)x[i] / (double)scale, zero_point, 0, 255);
    memcpy(y, out, (size_t)n);
}

void TIER_NAME(terse_quantize_u8)(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n)
{
    const float inverse = 1.0f / scale;
    const bool normal = fabsf(inverse) >= 0x1p-126f && fabsf(inverse) < INFINITY; /* else all are computed in double */
    const bytes_range range = bytes_range_for(normal ? 3.0 : INFINITY, 0.0, zero_point, 0, 255);
    int64_t i = 0;
    for (; i + BYTES_BLOCK <= n; i += BYTES_BLOCK)
        bytes_quantize_block(x + i, scale, inverse, &range, zero_point, y + i, BYTES_BLOCK);
    if (i < n)
        bytes_quantize_block(x + i, scale, inverse, &range, zero_point, y + i, n - i);
}

void TIER_NAME(terse_dequantize_u8)(const uint8_t *x, float scale, int32_t zero_point, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)(x[i] - zero_point) * scale;
}

void TIER_NAME(terse_table_u8)(const uint8_t *x, const uint8_t table[256], uint8_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = table[x[i]];
}

/* --- pools ----------------------------------------------------------------------------------------------------------
 */

/* Taps first..last-1 of one axis lie inside the input. */
INLINE void bytes_taps(const terse_pool_u8_args *args, int axis, int64_t out, int64_t *ret_first, int64_t *ret_last)
{
    const int64_t start = out * args->stride[axis] - args->pad[axis], dilation = args->dilation[axis];
    int64_t first = start < 0 ? -start : 0, last = start >= args->in[axis] ? 0 : args->in[axis] - start;
    if (dilation != 1) { /* divisions are slow */
        first = (first + dilation - 1) / dilation;
        last = (last + dilation - 1) / dilation;
    }
    last = last < args->kernel[axis] ? last : args->kernel[axis];
    *ret_first = first;
    *ret_last = last > first ? last : first;
}

/* The divisor's share of one axis, as in the scalar tier. */
static int64_t bytes_count(const terse_pool_u8_args *args, int axis, int64_t out)
{
    int64_t count = 0;
    for (int64_t at = 0; at < args->kernel[axis]; at++) {
        const int64_t i = out * args->stride[axis] - args->pad[axis] + at * args->dilation[axis];
        count += args->count_include_pad ? i < args->in[axis] + args->pad_end[axis] : i >= 0 && i < args->in[axis];
    }
    return count;
}

/* Pixels of the window that lie inside, in order; `visit` sees each one's channels from `c` on. */
typedef struct bytes_window {
    int64_t first[3], last[3], start[3];
} bytes_window;

static void bytes_window_of(const terse_pool_u8_args *args, const int64_t out[3], bytes_window *w)
{
    for (int axis = 0; axis < 3; axis++) {
        bytes_taps(args, axis, out[axis], &w->first[axis], &w->last[axis]);
        w->start[axis] = out[axis] * args->stride[axis] - args->pad[axis];
    }
}

#define BYTES_EACH_PIXEL(args, w, n, x)                                                                                \
    for (int64_t d = (w)->first[0]; d < (w)->last[0]; d++)                                                             \
        for (int64_t h = (w)->first[1]; h < (w)->last[1]; h++)                                                         \
            for (int64_t v = (w)->first[2]; v < (w)->last[2]; v++)                                                     \
                for (const uint8_t *x =                                                                                \
                         (args)->input +                                                                               \
                         ((((n) * (args)->in[0] + (w)->start[0] + d * (args)->dilation[0]) * (args)->in[1] +           \
                           (w)->start[1] + h * (args)->dilation[1]) *                                                  \
                              (args)->in[2] +                                                                          \
                          (w)->start[2] + v * (args)->dilation[2]) *                                                   \
                             (args)->in_stride;                                                                        \
                     x; x = NULL)

enum { BYTES_TAPS = 9 };

/* Channels c.. of the maximum of `taps` pixels. */
INLINE void bytes_max_block(const uint8_t *const *x, int taps, int64_t c, int64_t wide, uint8_t *y)
{
    uint8_t best[BYTES_BLOCK];
    memcpy(best, x[0] + c, (size_t)wide);
    UNROLL for (int t = 1; t < taps; t++)
    {
        for (int64_t i = 0; i < wide; i++)
            best[i] = best[i] > x[t][c + i] ? best[i] : x[t][c + i];
    }
    memcpy(y + c, best, (size_t)wide);
}

INLINE void bytes_max_channels(const uint8_t *const *x, int taps, int64_t channels, uint8_t *y)
{
    int64_t c = 0;
    for (; c + BYTES_BLOCK <= channels; c += BYTES_BLOCK)
        bytes_max_block(x, taps, c, BYTES_BLOCK, y);
    for (; c + 16 <= channels; c += 16)
        bytes_max_block(x, taps, c, 16, y);
    if (c < channels)
        bytes_max_block(x, taps, c, channels - c, y);
}

/* At most BYTES_TAPS pixels, filled up to a number that the compiler knows. */
static void bytes_max_taps(const uint8_t **x, int taps, int64_t channels, uint8_t *y)
{
    const int filled = taps <= 4 ? 4 : BYTES_TAPS;
    for (int t = taps; t < filled; t++)
        x[t] = x[0];
    if (filled == 4)
        bytes_max_channels(x, 4, channels, y);
    else
        bytes_max_channels(x, BYTES_TAPS, channels, y);
}

static void bytes_max_pixel(const terse_pool_u8_args *args, const bytes_window *w, int64_t n, uint8_t *y)
{
    const uint8_t *x[BYTES_TAPS];
    const int64_t step = args->dilation[2] * args->in_stride;
    int taps = 0;
    for (int64_t d = w->first[0]; d < w->last[0]; d++)
        for (int64_t h = w->first[1]; h < w->last[1]; h++) {
            const uint8_t *row = args->input + (((n * args->in[0] + w->start[0] + d * args->dilation[0]) * args->in[1] +
                                                 w->start[1] + h * args->dilation[1]) *
                                                    args->in[2] +
                                                w->start[2]) *
                                                   args->in_stride;
            for (int64_t v = w->first[2]; v < w->last[2]; v++) {
                if (taps == BYTES_TAPS) { /* go on from what was found so far */
                    bytes_max_taps(x, taps, args->channels, y);
                    x[0] = y;
                    taps = 1;
                }
                x[taps++] = row + v * step;
            }
        }
    if (taps > 0)
        bytes_max_taps(x, taps, args->channels, y);
    else
        memset(y, 0, (size_t)args->channels);
}

INLINE void bytes_average_block(const terse_pool_u8_args *args, const bytes_window *w, int64_t n, double count,
                                int64_t c, int64_t wide, uint8_t *y)
{
    int32_t sums[BYTES_BLOCK] = {0};
    uint8_t out[BYTES_BLOCK];
    int64_t total[BYTES_BLOCK] = {0};
    int64_t pixels = 0, since = 0;
    BYTES_EACH_PIXEL(args, w, n, x)
    {
        for (int64_t i = 0; i < wide; i++)
            sums[i] += x[c + i];
        pixels++;
        if (++since == 1 << 22) { /* 2^22 * 255 still fits */
            for (int64_t i = 0; i < wide; i++) {
                total[i] += sums[i];
                sums[i] = 0;
            }
            since = 0;
        }
    }
    const int64_t move = pixels * args->x_zero_point;
    for (int64_t i = 0; i < wide; i++) {
        const double v = count > 0.0 ? (double)(total[i] + sums[i] - move) * args->scale / count : 0.0;
        out[i] = bytes_exact(v, args->y_zero_point, 0, 255);
    }
    memcpy(y + c, out, (size_t)wide);
}

static void bytes_average_pixel(const terse_pool_u8_args *args, const bytes_window *w, int64_t n, const int64_t out[3],
                                uint8_t *y)
{
    const double count =
        (double)(bytes_count(args, 0, out[0]) * bytes_count(args, 1, out[1]) * bytes_count(args, 2, out[2]));
    int64_t c = 0;
    for (; c + BYTES_BLOCK <= args->channels; c += BYTES_BLOCK)
        bytes_average_block(args, w, n, count, c, BYTES_BLOCK, y);
    for (; c + 16 <= args->channels; c += 16)
        bytes_average_block(args, w, n, count, c, 16, y);
    if (c < args->channels)
        bytes_average_block(args, w, n, count, c, args->channels - c, y);
}

void TIER_NAME(terse_average_pool_u8)(const terse_pool_u8_args *args)
{
    uint8_t *y = args->output;
    int64_t out[3];
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                for (out[2] = 0; out[2] < args->out[2]; out[2]++, y += args->out_stride) {
                    bytes_window w;
                    bytes_window_of(args, out, &w);
                    bytes_average_pixel(args, &w, n, out, y);
                }
}

/* Output pixels first..last-1 of one output row whose windows of 3x3 lie inside along the row; `rows`: the input rows.
 */
static void bytes_max_3x3(const terse_pool_u8_args *args, const uint8_t *const rows[3], int64_t first, int64_t last,
                          uint8_t *y)
{
    const int64_t step = args->dilation[2] * args->in_stride;
    for (int64_t o = first; o < last; o++) {
        const int64_t at = (o * args->stride[2] - args->pad[2]) * args->in_stride;
        const uint8_t *const a = rows[0] + at, *const b = rows[1] + at, *const c = rows[2] + at;
        const uint8_t *const x[BYTES_TAPS] = {a, a + step, a + 2 * step, b, b + step, b + 2 * step,
                                              c, c + step, c + 2 * step};
        bytes_max_channels(x, BYTES_TAPS, args->channels, y + o * args->out_stride);
    }
}

/* One output row of a flat pool with a window of 3x3 that has at least one input row; false for any other. */
static bool bytes_max_row(const terse_pool_u8_args *args, int64_t n, int64_t row, uint8_t *y)
{
    const uint8_t *rows[3] = {NULL};
    int64_t out[3] = {0, row, 0}, first, last;
    int n_rows = 0;
    bytes_taps(args, 1, row, &first, &last);
    if (args->kernel[0] != 1 || args->in[0] != 1 || args->pad[0] != 0 || args->kernel[1] != 3 || args->kernel[2] != 3 ||
        args->dilation[2] != 1 || first == last)
        return false;
    for (int64_t h = first; h < last; h++)
        rows[n_rows++] =
            args->input + (n * args->in[1] + row * args->stride[1] - args->pad[1] + h * args->dilation[1]) *
                              args->in[2] * args->in_stride;
    while (n_rows < 3)
        rows[n_rows++] = rows[0];
    int64_t inner = (args->pad[2] + args->stride[2] - 1) / args->stride[2];
    int64_t end = args->in[2] < 3 ? 0 : (args->in[2] - 3 + args->pad[2]) / args->stride[2] + 1;
    end = end < args->out[2] ? end : args->out[2];
    inner = inner < end ? inner : end;
    bytes_max_3x3(args, rows, inner, end, y);
    for (out[2] = 0; out[2] < args->out[2]; out[2]++) {
        if (out[2] == inner)
            out[2] = end;
        if (out[2] == args->out[2])
            break;
        bytes_window w;
        bytes_window_of(args, out, &w);
        bytes_max_pixel(args, &w, n, y + out[2] * args->out_stride);
    }
    return true;
}

void TIER_NAME(terse_max_pool_u8)(const terse_pool_u8_args *args)
{
    uint8_t *y = args->output;
    int64_t out[3];
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++, y += args->out[2] * args->out_stride) {
                if (args->out[0] == 1 && bytes_max_row(args, n, out[1], y))
                    continue;
                for (out[2] = 0; out[2] < args->out[2]; out[2]++) {
                    bytes_window w;
                    bytes_window_of(args, out, &w);
                    bytes_max_pixel(args, &w, n, y + out[2] * args->out_stride);
                }
            }
}

/* --- transposition ---------------------------------------------------------------------------------------------------
 */

typedef uint8_t bytes_sixteen __attribute__((vector_size(16)));

INLINE bytes_sixteen bytes_load16(const uint8_t *p)
{
    bytes_sixteen x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE void bytes_store16(uint8_t *p, bytes_sixteen x)
{
    memcpy(p, &x, sizeof x);
}

INLINE bytes_sixteen bytes_zip_low(bytes_sixteen a, bytes_sixteen b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

INLINE bytes_sixteen bytes_zip_high(bytes_sixteen a, bytes_sixteen b)
{
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/* Four rounds of zipping row i with row i + 8 transpose sixteen rows. */
INLINE void bytes_transpose16(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride)
{
    bytes_sixteen x[16], y[16];
    for (int i = 0; i < 16; i++)
        x[i] = bytes_load16(src + i * src_stride);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
            y[2 * i] = bytes_zip_low(x[i], x[i + 8]);
            y[2 * i + 1] = bytes_zip_high(x[i], x[i + 8]);
        }
        memcpy(x, y, sizeof x);
    }
    for (int i = 0; i < 16; i++)
        bytes_store16(dst + i * dst_stride, x[i]);
}

/* The planes of an image to its pixels: a b c a b c ... */
INLINE int64_t bytes_three_planes(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t columns)
{
    int64_t c = 0;
    for (; c + 16 <= columns; c += 16, dst += 48) {
        const bytes_sixteen r = bytes_load16(src + c), g = bytes_load16(src + src_stride + c),
                            b = bytes_load16(src + 2 * src_stride + c);
        const bytes_sixteen rg0 = __builtin_shufflevector(r, g, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
        const bytes_sixteen rg1 = __builtin_shufflevector(r, g, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
        const bytes_sixteen rg2 =
            __builtin_shufflevector(r, g, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
        bytes_store16(dst, __builtin_shufflevector(rg0, b, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15));
        bytes_store16(dst + 16,
                      __builtin_shufflevector(rg1, b, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15));
        bytes_store16(dst + 32,
                      __builtin_shufflevector(rg2, b, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31));
    }
    return c;
}

void TIER_NAME(terse_transpose_8)(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride,
                                  int64_t rows, int64_t columns)
{
    int64_t r = 0, from = 0;
    if (rows == 3 && dst_stride == 3)
        from = bytes_three_planes(src, src_stride, dst, columns);
    else
        for (; r + 16 <= rows; r += 16) {
            int64_t c = 0;
            for (; c + 16 <= columns; c += 16)
                bytes_transpose16(src + r * src_stride + c, src_stride, dst + c * dst_stride + r, dst_stride);
            for (; c < columns; c++)
                for (int i = 0; i < 16; i++)
                    dst[c * dst_stride + r + i] = src[(r + i) * src_stride + c];
        }
    for (int64_t c = from; c < columns; c++)
        for (int64_t i = r; i < rows; i++)
            dst[c * dst_stride + i] = src[i * src_stride + c];
}

#endif
