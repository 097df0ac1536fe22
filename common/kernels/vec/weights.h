/* SPDX-License-Identifier: Apache-2.0 */
/* weights.h: gemm_f32s8, the tiles of tile.h over weights of one byte.
 *
 * A panel's step of k is 16 bytes instead of 64. They become floats in registers on the way: conversions run beside the
 * FMAs on ports of their own, so that many rows cost what they cost with FP32 weights and one row is bound by a quarter
 * of the bytes. The sum over k is the chain of gemm_f32; the column's scale comes behind it. */
#ifndef TERSE_KERNELS_VEC_WEIGHTS_H
#define TERSE_KERNELS_VEC_WEIGHTS_H

#include "common/kernels/vec/math.h"
#include "common/kernels/vec/tier.h"

/* Sixteen bytes as floats. */
INLINE v16 v16_load_s8(const int8_t *p)
{
#if defined(__AVX512F__)
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
#elif defined(__AVX2__)
    const __m128i a = _mm_loadl_epi64((const __m128i *)(const void *)p);
    const __m128i b = _mm_loadl_epi64((const __m128i *)(const void *)(p + 8));
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b))};
#elif defined(__aarch64__)
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return (v16){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
                  vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
#endif
}

/* What both products end in: bias, residual, activation. */
typedef struct weights_end {
    float *c;
    const float *bias, *residual;
    const terse_activation *activation;
    int64_t ldc, ldr, columns;
} weights_end;

/* Any activation, and a panel that is cut off: `panels` vectors of each of `rows` rows, in the order of the rows. */
APART void weights_finish_any(const weights_end *end, const v16 *sums, int rows, int panels, int64_t row,
                              int64_t first_column)
{
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < panels; v++) {
            const int64_t column = first_column + v * 16, left = end->columns - column;
            v16 x = *sums++;
            if (end->bias)
                x = v16_add(x, v16_load_up_to(end->bias + column, left));
            if (end->residual)
                x = v16_add(x, v16_load_up_to(end->residual + (row + r) * end->ldr + column, left));
            v16_store_up_to(end->c + (row + r) * end->ldc + column, v16_activate_near(x, end->activation), left);
        }
}

/* A tile, most of them from the registers. Its rows lie `panels` vectors apart in memory only where they must. */
INLINE void weights_finish(const weights_end *end, const v16 *x, int stride, int n_rows, int n_panels, int64_t row,
                           int64_t panel)
{
    const int64_t column = panel * 16;
    const bool clip = end->activation->kind == TERSE_ACT_CLIP;
    if (!TILE_ENDS_IN_REGISTERS(n_rows) || column + n_panels * 16 > end->columns ||
        !(clip || end->activation->kind == TERSE_ACT_NONE)) {
        v16 sums[TILE_ROWS * TILE_PANELS];
        UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++) sums[r * n_panels + v] =
            x[r * stride + v];
        weights_finish_any(end, sums, n_rows, n_panels, row, column);
        return;
    }
    const v16 alpha = v16_set1(end->activation->alpha), beta = v16_set1(end->activation->beta);
    UNROLL for (int v = 0; v < n_panels; v++)
    {
        const v16 bias = end->bias ? v16_load(end->bias + column + v * 16) : v16_zero();
        UNROLL for (int r = 0; r < n_rows; r++)
        {
            v16 y = x[r * stride + v];
            if (end->bias)
                y = v16_add(y, bias);
            if (end->residual)
                y = v16_add(y, v16_load(end->residual + (row + r) * end->ldr + column + v * 16));
            v16_store(end->c + (row + r) * end->ldc + column + v * 16, clip ? v16_clip(y, alpha, beta) : y);
        }
    }
}

#ifndef WEIGHTS_S4_ONLY
INLINE void s8_tile(int n_rows, int n_panels, const terse_gemm_f32s8_args *args, int64_t row, int64_t panel)
{
    const float *a[TILE_ROWS];
    const int64_t panel_bytes = args->k * 16;
    const int8_t *b = args->b + panel * panel_bytes;
    v16 acc[TILE_ROWS][TILE_PANELS];
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        a[r] = args->a + (row + r) * args->lda;
        UNROLL for (int v = 0; v < n_panels; v++) acc[r][v] = v16_zero();
    }
    for (int64_t k = 0; n_rows == 1 && k < args->k; k++, b += 16) {
        const v16 y = v16_set1(a[0][k]); /* panel by panel: few registers for the weights */
        UNROLL for (int v = 0; v < n_panels; v++) acc[0][v] = v16_fma(y, v16_load_s8(b + v * panel_bytes), acc[0][v]);
    }
    for (int64_t k = 0; n_rows > 1 && k < args->k; k++, b += 16) {
        v16 x[TILE_PANELS];
        UNROLL for (int v = 0; v < n_panels; v++) x[v] = v16_load_s8(b + v * panel_bytes);
        UNROLL for (int r = 0; r < n_rows; r++)
        {
            v16 y = v16_set1(a[r][k]);
            UNROLL for (int v = 0; v < n_panels; v++) acc[r][v] = v16_fma(y, x[v], acc[r][v]);
        }
    }
    const weights_end end = {args->c, args->bias, args->residual, &args->activation, args->ldc, args->ldr, args->n};
    UNROLL for (int v = 0; v < n_panels; v++)
    {
        const int64_t column = (panel + v) * 16, left = args->n - column;
        const v16 scale = v16_load_up_to(args->scale + column, left);
        UNROLL for (int r = 0; r < n_rows; r++) acc[r][v] = v16_mul(acc[r][v], scale);
    }
    weights_finish(&end, &acc[0][0], TILE_PANELS, n_rows, n_panels, row, panel);
}

typedef void s8_function(const terse_gemm_f32s8_args *args, int64_t row, int64_t panel);
#define S8_DEFINE(r, v)                                                                                                \
    static void s8_tile_##r##_##v(const terse_gemm_f32s8_args *args, int64_t row, int64_t panel)                       \
    {                                                                                                                  \
        s8_tile(r, v, args, row, panel);                                                                               \
    }
TILE_LIST(S8_DEFINE)
#define S8_ENTRY(r, v) [r][v] = s8_tile_##r##_##v,
static s8_function *const s8_tiles[TILE_ROWS + 1][TILE_PANELS + 1] = {TILE_LIST(S8_ENTRY)};

/* Rows of A that are worked through for one group of panels before the next: about what half of L2 holds. */
enum { S8_BLOCK_FLOATS = 128 * 1024 };

void TIER_NAME(terse_gemm_f32s8)(const terse_gemm_f32s8_args *args)
{
    const int64_t panels = (args->n + 15) / 16;
    int64_t block = S8_BLOCK_FLOATS / (args->k > 0 ? args->k : 1) / TILE_ROWS * TILE_ROWS;
    block = block < TILE_ROWS ? TILE_ROWS : block;
    for (int64_t first = 0; first < args->m; first += block) {
        const int64_t rows = args->m - first < block ? args->m - first : block;
        /* Dealt out evenly: 15 rows are 8 + 7, not 14 + 1. */
        const int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, base = rows / tiles, extra = rows % tiles;
        for (int64_t panel = 0; panel < panels;) {
            const int least = (int)base, most = (int)(base + (extra > 0));
            int n = TILE_WIDE(most);
            while (n > panels - panel || !s8_tiles[most][n] || !s8_tiles[least][n])
                n--;
            for (int64_t t = 0, row = first; t < tiles; row += base + (t < extra), t++)
                s8_tiles[base + (t < extra)][n](args, row, panel);
            panel += n;
        }
    }
}

#endif

#endif
