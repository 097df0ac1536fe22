/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_comb_avx512.h: images of few channels laid in planes (sparse_planes_avx512.h), for CPUs with VBMI: the bytes
 * of a channel lie `pitch` apart, and are combed out of as many registers. */
#ifndef TERSE_KERNELS_SPARSE_COMB_AVX512_H
#define TERSE_KERNELS_SPARSE_COMB_AVX512_H

#include <immintrin.h>

#include "common/kernels/quantized.h"

enum { PLANES_MOST_PITCH = 16 };

typedef struct planes {
    const terse_conv_u8s8_args *c;
    int64_t width, band;         /* output rows of a band */
    int64_t phases[2], halo[2];  /* y, x; rows and columns that the kernel reaches beyond an output */
    int64_t filled, apart, size; /* bytes of a plane; from one to the next; of all */
} planes;

#if defined(__AVX512VBMI__)
/* Every `pitch`-th byte: 64 of them from `pitch` registers. */
typedef struct planes_comb {
    __m512i index[PLANES_MOST_PITCH];
    __mmask64 of[PLANES_MOST_PITCH];
    int64_t pitch;
} planes_comb;

static planes_comb planes_comb_for(int64_t pitch)
{
    planes_comb comb = {.pitch = pitch};
    for (int64_t j = 0; j < pitch; j++) {
        uint8_t index[64] = {0};
        for (int64_t i = 0; i < 64; i++)
            if (i * pitch >= j * 64 && i * pitch < (j + 1) * 64) {
                index[i] = (uint8_t)(i * pitch - j * 64);
                comb.of[j] |= (__mmask64)1 << i;
            }
        comb.index[j] = _mm512_loadu_si512(index);
    }
    return comb;
}

static __mmask64 planes_first(int64_t n)
{
    return n >= 64 ? ~(__mmask64)0 : n <= 0 ? 0 : ((__mmask64)1 << n) - 1;
}

/* `count` bytes of `from`, which lie pitch apart. */
static void planes_pick(const planes_comb *comb, const uint8_t *from, int64_t count, uint8_t *to)
{
    for (const uint8_t *end = from + (count - 1) * comb->pitch + 1; count > 0;
         count -= 64, to += 64, from += 64 * comb->pitch) {
        __m512i x = _mm512_setzero_si512();
        for (int64_t j = 0; j < comb->pitch && from + j * 64 < end; j++) {
            const __m512i part = _mm512_maskz_loadu_epi8(planes_first(end - from - j * 64), from + j * 64);
            x = _mm512_mask_permutexvar_epi8(x, comb->of[j], comb->index[j], part);
        }
        _mm512_mask_storeu_epi8(to, planes_first(count), x);
    }
}

/* The same for few channels, row by row. */
static void planes_pick_phase(const planes *p, const planes_comb *comb, const uint8_t *image, int64_t first_row,
                              const int64_t phase[2], uint8_t *to)
{
    const terse_conv_u8s8_args *c = p->c;
    const int64_t step = p->phases[0] * p->phases[1] * p->apart, before = c->pad[2] - phase[1];
    const int64_t begin = before > 0 ? (before + c->stride[2] - 1) / c->stride[2] : 0;
    const int64_t inside = c->in[2] + before; /* columns times the stride that lie before the image's end */
    int64_t end = inside > 0 ? (inside + c->stride[2] - 1) / c->stride[2] : 0;
    end = end < p->width ? end : p->width;
    for (int64_t channel = 0; channel < c->channels; channel++, to += step) {
        memset(to, c->x_zero_point, (size_t)p->filled);
        for (int64_t row = 0; row < p->band + p->halo[0]; row++) {
            const int64_t y = (first_row + row) * c->stride[1] + phase[0] - c->pad[1];
            if (y < 0 || y >= c->in[1] || end <= begin)
                continue;
            const int64_t x = begin * c->stride[2] - before;
            planes_pick(comb, image + (y * c->in[2] + x) * c->in_stride + channel, end - begin,
                        to + row * p->width + begin);
        }
    }
}
static void planes_fill_few(const planes *p, const uint8_t *image, int64_t first_row, uint8_t *to)
{
    const planes_comb comb = planes_comb_for(p->c->in_stride * p->c->stride[2]);
    for (int64_t y = 0; y < p->phases[0]; y++)
        for (int64_t x = 0; x < p->phases[1]; x++, to += p->apart) {
            const int64_t phase[2] = {y, x};
            planes_pick_phase(p, &comb, image, first_row, phase, to);
        }
}
#define SPARSE_FILL_FEW planes_fill_few
#endif

#endif
