/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h: kernels on bytes element by element, VB of them at a time; what is left over goes through copies. */
#ifndef TERSE_KERNELS_VEC_BYTES_H
#define TERSE_KERNELS_VEC_BYTES_H

#include "common/kernels/vec/fixed.h"
#include "common/kernels/vec/tier.h"

/* --- add, mul ----------------------------------------------------------------------------------------------------- */

typedef struct binary {
    const terse_binary_u8_args *args;
    fixed_range range;
    float a_scale, b_scale;
} binary;

static __attribute__((noinline)) void exact_binary(const terse_binary_u8_args *args, bool product, const uint8_t *a,
                                                   const uint8_t *b, uint8_t ret_y[VB])
{
    const int32_t a_zero = args->a_zero_point, b_zero = args->b_zero_point;
    const double a_scale = args->a_scale, b_scale = args->b_scale;
    double v[VB];
    if (product)
        for (int i = 0; i < VB; i++)
            v[i] = (double)((a[i] - a_zero) * (b[i] - b_zero)) * a_scale;
    else
        for (int i = 0; i < VB; i++)
            v[i] = (double)(a[i] - a_zero) * a_scale + (double)(b[i] - b_zero) * b_scale;
    fixed_exact_all(v, args->zero_point, args->low, args->high, ret_y);
}

INLINE vb binary_vector(const binary *f, bool product, vb a, vb b)
{
    const vf begin = vf_set1(f->range.begin), a_scale = vf_set1(f->a_scale), b_scale = vf_set1(f->b_scale);
    const vi a_zero = vi_set1(f->args->a_zero_point), b_zero = vi_set1(f->args->b_zero_point);
    vf t[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        if (product) {
            const vf x = vf_from(vi_sub(vb_widen(a, i), a_zero)), y = vf_from(vi_sub(vb_widen(b, i), b_zero));
            t[i] = vf_fma(vf_mul(x, y), a_scale, begin); /* the product of the bytes is exact */
        } else {
            t[i] = vf_fma(vf_from(vb_widen(b, i)), b_scale, begin);
            t[i] = vf_fma(vf_from(vb_widen(a, i)), a_scale, t[i]);
        }
    }
    bool near;
    vb y = fixed_pack(&f->range, t, &near);
    if (__builtin_expect(near, 0)) {
        uint8_t left[VB], right[VB], bytes[VB];
        vb_store(left, a);
        vb_store(right, b);
        exact_binary(f->args, product, left, right, bytes);
        y = vb_load(bytes);
    }
    return y;
}

INLINE void binary_all(const binary *f, bool product)
{
    const terse_binary_u8_args *args = f->args;
    const vb one_a = vb_set1(args->n > 0 ? args->a[0] : 0), one_b = vb_set1(args->n > 0 ? args->b[0] : 0);
    const bool many_a = args->stride_a != 0, many_b = args->stride_b != 0;
    int64_t i = 0;
    for (; i + VB <= args->n; i += VB) {
        const vb a = many_a ? vb_load(args->a + i) : one_a, b = many_b ? vb_load(args->b + i) : one_b;
        vb_store(args->y + i, binary_vector(f, product, a, b));
    }
    const int left = (int)(args->n - i);
    if (left > 0) {
        const vb a = many_a ? vb_load_n(args->a + i, left) : one_a, b = many_b ? vb_load_n(args->b + i, left) : one_b;
        vb_store_n(args->y + i, binary_vector(f, product, a, b), left);
    }
}

/* Each of the two scales is rounded, the begin and two sums as well: with M = 512 + 255 (|a| + |b|) none of these is
 * more than M 2^-24 but the last, half a unit: (765 (|a| + |b|) + 1024) / 512 + 1/2. */
void TIER_NAME(terse_add_u8)(const terse_binary_u8_args *args)
{
    const double slack = ceil(3.0 + 1.5 * (fabs(args->a_scale) + fabs(args->b_scale)));
    const double move = -(double)args->a_zero_point * args->a_scale - (double)args->b_zero_point * args->b_scale;
    const binary f = {args, fixed_for(args->zero_point, args->low, args->high, slack, move, false),
                      (float)args->a_scale, (float)args->b_scale};
    binary_all(&f, false);
}

/* The scale is rounded: at most |v| 2^-24, less than a unit; and the sum: half a unit. */
void TIER_NAME(terse_mul_u8)(const terse_binary_u8_args *args)
{
    const bool exact = !(fabs(args->a_scale) < 1e30);
    const binary f = {args, fixed_for(args->zero_point, args->low, args->high, 2.0, 0.0, exact), (float)args->a_scale,
                      0.0f};
    binary_all(&f, true);
}

/* --- table -------------------------------------------------------------------------------------------------------- */

#if defined(__AVX512F__)
/* Two halves of the table, each found at once; for CPUs with VBMI, asked for by the caller. */
static __attribute__((target("avx512vbmi"))) void table_vbmi(const uint8_t *x, const uint8_t table[256], uint8_t *y,
                                                             int64_t n)
{
    const __m512i a = _mm512_loadu_si512(table), b = _mm512_loadu_si512(table + 64);
    const __m512i c = _mm512_loadu_si512(table + 128), d = _mm512_loadu_si512(table + 192);
    for (int64_t i = 0; i < n; i += 64) {
        const __mmask64 mask = n - i >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - i)) - 1;
        const __m512i v = _mm512_maskz_loadu_epi8(mask, x + i);
        const __m512i low = _mm512_permutex2var_epi8(a, v, b), high = _mm512_permutex2var_epi8(c, v, d);
        _mm512_mask_storeu_epi8(y + i, mask, _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(v), high));
    }
}
#endif

void TIER_NAME(terse_table_u8)(const uint8_t *x, const uint8_t table[256], uint8_t *y, int64_t n)
{
    int64_t i = 0;
#if defined(__AVX512F__)
    if (__builtin_cpu_supports("avx512vbmi")) {
        table_vbmi(x, table, y, n);
        return;
    }
#endif
    if (n >= 2 * VB) {
        vb_table t;
        vb_table_init(&t, table);
        for (; i + VB <= n; i += VB)
            vb_store(y + i, vb_lookup(&t, vb_load(x + i)));
    }
    for (; i < n; i++)
        y[i] = table[x[i]];
}

/* --- quantize, dequantize ----------------------------------------------------------------------------------------- */

enum { QUARTER = VB / 4 };

/* v = x * (1 / scale): the reciprocal and the sum are rounded, each half a unit at most. */
INLINE void quantize_vector(const fixed_range *f, const float *x, float scale, float inverse, int32_t zero_point,
                            uint8_t *y)
{
    vf t[4];
    bool near;
    UNROLL for (int i = 0; i < 4; i++) t[i] =
        vf_fma(vf_nan_to_zero(vf_load(x + i * QUARTER)), vf_set1(inverse), vf_set1(f->begin));
    const vb bytes = fixed_pack(f, t, &near);
    if (__builtin_expect(!near, 1)) {
        vb_store(y, vb_by_vector(bytes));
        return;
    }
    double v[VB];
    for (int i = 0; i < VB; i++)
        v[i] = x[i] == x[i] ? (double)x[i] / (double)scale : 0.0;
    fixed_exact_all(v, zero_point, 0, 255, y);
}

void TIER_NAME(terse_quantize_u8)(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n)
{
    const float inverse = 1.0f / scale;
    const bool exact = !(fabsf(inverse) > 1e-30f && fabsf(inverse) < 1e30f);
    const fixed_range f = fixed_for(zero_point, 0, 255, 2.0, 0.0, exact);
    int64_t i = 0;
    for (; i + VB <= n; i += VB)
        quantize_vector(&f, x + i, scale, inverse, zero_point, y + i);
    if (i < n) {
        float last[VB] = {0};
        uint8_t bytes[VB];
        memcpy(last, x + i, (size_t)(n - i) * sizeof *x);
        quantize_vector(&f, last, scale, inverse, zero_point, bytes);
        memcpy(y + i, bytes, (size_t)(n - i));
    }
}

void TIER_NAME(terse_dequantize_u8)(const uint8_t *x, float scale, int32_t zero_point, float *y, int64_t n)
{
    const vi zero = vi_set1(zero_point);
    const vf scales = vf_set1(scale);
    int64_t i = 0;
    for (; i + QUARTER <= n; i += QUARTER)
        vf_store(y + i, vf_mul(vf_from(vi_sub(vi_from_bytes(x + i), zero)), scales));
    for (; i < n; i++)
        y[i] = (float)(x[i] - zero_point) * scale;
}

/* --- transpose ---------------------------------------------------------------------------------------------------- */

/* Rows r..r+15 of VB columns: lane l of x[c] becomes column 16 l + c. */
INLINE void transpose_lanes(vb x[16])
{
    vb y[16];
    UNROLL for (int i = 0; i < 8; i++) /* rows i and i + 8 */
    {
        y[2 * i] = vb_zip_lo8(x[i], x[i + 8]);
        y[2 * i + 1] = vb_zip_hi8(x[i], x[i + 8]);
    }
    UNROLL for (int i = 0; i < 8; i++)
    {
        x[2 * i] = vb_zip_lo8(y[i], y[i + 8]);
        x[2 * i + 1] = vb_zip_hi8(y[i], y[i + 8]);
    }
    UNROLL for (int i = 0; i < 8; i++)
    {
        y[2 * i] = vb_zip_lo8(x[i], x[i + 8]);
        y[2 * i + 1] = vb_zip_hi8(x[i], x[i + 8]);
    }
    UNROLL for (int i = 0; i < 8; i++)
    {
        x[2 * i] = vb_zip_lo8(y[i], y[i + 8]);
        x[2 * i + 1] = vb_zip_hi8(y[i], y[i + 8]);
    }
}

/* Sixteen rows of VB bytes. */
INLINE void transpose_block(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride)
{
    vb x[16];
    UNROLL for (int r = 0; r < 16; r++) x[r] = vb_load(src + r * src_stride);
    transpose_lanes(x);
    UNROLL for (int lane = 0; lane < VB / 16; lane++) UNROLL for (int c = 0; c < 16; c++)
        vb_store_lane(dst + (16 * lane + c) * dst_stride, x[c], lane, 16);
}

/* A block that is cut off, by way of whole ones. */
APART void transpose_block_cut(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride, int64_t rows,
                               int64_t columns)
{
    uint8_t from[16 * VB], to[16 * VB];
    memset(from, 0, sizeof from);
    for (int64_t r = 0; r < rows; r++)
        memcpy(from + r * VB, src + r * src_stride, (size_t)columns);
    transpose_block(from, VB, to, 16);
    for (int64_t c = 0; c < columns; c++)
        memcpy(dst + c * dst_stride, to + c * 16, (size_t)rows);
}

typedef uint8_t sixteen __attribute__((vector_size(16)));

INLINE sixteen load_sixteen(const uint8_t *p)
{
    sixteen x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE void store_sixteen(uint8_t *p, sixteen x)
{
    memcpy(p, &x, sizeof x);
}

/* The planes of an image to its pixels: a b c a b c ... */
INLINE int64_t transpose_three(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t columns)
{
    int64_t c = 0;
    for (; c + 16 <= columns; c += 16, dst += 48) {
        const sixteen r = load_sixteen(src + c), g = load_sixteen(src + src_stride + c),
                      b = load_sixteen(src + 2 * src_stride + c);
        const sixteen rg0 = __builtin_shufflevector(r, g, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
        const sixteen rg1 = __builtin_shufflevector(r, g, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
        const sixteen rg2 = __builtin_shufflevector(r, g, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
        store_sixteen(dst, __builtin_shufflevector(rg0, b, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15));
        store_sixteen(dst + 16,
                      __builtin_shufflevector(rg1, b, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15));
        store_sixteen(dst + 32,
                      __builtin_shufflevector(rg2, b, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31));
    }
    return c;
}

INLINE sixteen zip_lo(sixteen a, sixteen b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

INLINE sixteen zip_hi(sixteen a, sixteen b)
{
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/* Two or four rows into dense columns, as an image's planes become pixels. */
INLINE int64_t transpose_planes(const uint8_t *src, int64_t stride, uint8_t *dst, int rows, int64_t columns)
{
    int64_t c = 0;
    for (; c + 16 <= columns; c += 16, dst += 16 * rows) {
        sixteen a = load_sixteen(src + c), b = load_sixteen(src + stride + c);
        if (rows == 2) {
            store_sixteen(dst, zip_lo(a, b));
            store_sixteen(dst + 16, zip_hi(a, b));
            continue;
        }
        const sixteen d = load_sixteen(src + 2 * stride + c), e = load_sixteen(src + 3 * stride + c);
        const sixteen ad = zip_lo(a, d), be = zip_lo(b, e), ad_hi = zip_hi(a, d), be_hi = zip_hi(b, e);
        store_sixteen(dst, zip_lo(ad, be));
        store_sixteen(dst + 16, zip_hi(ad, be));
        store_sixteen(dst + 32, zip_lo(ad_hi, be_hi));
        store_sixteen(dst + 48, zip_hi(ad_hi, be_hi));
    }
    return c;
}

void TIER_NAME(terse_transpose_8)(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride,
                                  int64_t rows, int64_t columns)
{
    if (rows <= 4 && rows > 1 && dst_stride == rows) {
        int64_t done = rows == 2   ? transpose_planes(src, src_stride, dst, 2, columns)
                       : rows == 3 ? transpose_three(src, src_stride, dst, columns)
                                   : transpose_planes(src, src_stride, dst, 4, columns);
        for (int64_t c = done; c < columns; c++)
            for (int64_t r = 0; r < rows; r++)
                dst[c * dst_stride + r] = src[r * src_stride + c];
        return;
    }
    for (int64_t c = 0; c < columns; c += VB)
        for (int64_t r = 0; r < rows; r += 16) {
            const uint8_t *s = src + r * src_stride + c;
            uint8_t *d = dst + c * dst_stride + r;
            if (rows - r >= 16 && columns - c >= VB)
                transpose_block(s, src_stride, d, dst_stride);
            else
                transpose_block_cut(s, src_stride, d, dst_stride, rows - r < 16 ? rows - r : 16,
                                    columns - c < VB ? columns - c : VB);
        }
}

#endif
