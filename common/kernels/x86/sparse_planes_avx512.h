/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_planes_avx512.h: images of bytes by sparse weights, without turning each kernel position.
 *
 * The image lies as planes: one for each channel and each phase of the strides, rows of `width` side by side, padding
 * filled in. Along a row of outputs each row of K is then a run of bytes of one plane, whatever the kernel's position:
 * 64 outputs side by side, from one row of outputs on to the next, are one load from plane + offset of that row of K,
 * which is stored where turned rows would be, as all groups of columns read them.
 * Outputs that lie in what a row of a plane is wider than a row of outputs are computed and left out. Where nothing is
 * strided a row's padding to the right is that to the left of the row below.
 *
 * Images whose planes would not stay in the second-level cache are cut into bands of output rows. */
#ifndef TERSE_KERNELS_SPARSE_PLANES_AVX512_H
#define TERSE_KERNELS_SPARSE_PLANES_AVX512_H

#include "common/kernels/x86/sparse_comb_avx512.h"

enum { PLANES_BYTES = 320 * 1024, PLANES_MOST_BYTES = 1024 * 1024, PLANES_LEAST_STEPS = 6, PLANES_BLOCK = 16 };

static bool planes_fit(const terse_conv_u8s8_args *c)
{
    return c->in[0] == 1 && c->out[0] == 1 && c->kernel[0] == 1 && c->pad[0] == 0 && !conv_is_gemm(c) &&
           c->out[1] > 0 && c->out[2] > 0;
}

static int64_t planes_width(const terse_conv_u8s8_args *c, int64_t halo)
{
    if (c->stride[2] > 1)
        return c->out[2] + halo;
    const int64_t inside = c->pad[2] + c->in[2], span = c->out[2] + halo;
    const int64_t beyond = span > inside + c->pad[2] ? span - c->pad[2] : inside;
    return beyond > c->out[2] ? beyond : c->out[2];
}

static void planes_cut(planes *p, int64_t band)
{
    const int64_t chunk = 64, rows = band + p->halo[0], reach = p->halo[0] * p->width + p->halo[1];
    const int64_t read = (band * p->width + chunk - 1) / chunk * chunk + reach, held = rows * p->width + p->width;
    p->band = band;
    p->filled = ((read > held ? read : held) + chunk - 1) / chunk * chunk;
    p->apart = p->filled % 512 == 0 ? p->filled + chunk : p->filled;
    p->size = p->apart * p->c->channels * p->phases[0] * p->phases[1];
}

static planes planes_for(const terse_conv_u8s8_args *c)
{
    planes p = {.c = c};
    for (int i = 0; i < 2; i++) {
        p.phases[i] = c->kernel[i + 1] > 1 ? c->stride[i + 1] : 1;
        p.halo[i] = (c->kernel[i + 1] - 1) * c->dilation[i + 1] / c->stride[i + 1];
    }
    p.width = planes_width(c, p.halo[1]);
    int64_t bands = 1;
    for (planes_cut(&p, c->out[1]); p.size > PLANES_BYTES && p.band > 1; bands++)
        planes_cut(&p, (c->out[1] + bands) / (bands + 1));
    return p;
}

static size_t planes_scratch(const terse_conv_u8s8_args *c)
{
    if (!planes_fit(c))
        return 0;
    const planes p = planes_for(c);
    if (p.size > PLANES_MOST_BYTES)
        return 0;
    return (size_t)(p.size + sparse_rows_of_k(c) * (LANES_ROWS + (int64_t)sizeof(int32_t))) +
           lanes_ends_bytes(c->filters);
}

/* Is it worth it? Else rows of K are copied. */
static bool planes_wanted(const sparse_tier *tier, const terse_sparse_u8s8_args *args)
{
    const terse_conv_u8s8_args *c = &args->conv;
    if (!planes_fit(c))
        return false;
    const int64_t panels = terse_sparse_panels(c->filters), pitch = c->in_stride * c->stride[2];
    const bool few = tier->fill_few && pitch <= PLANES_MOST_PITCH;
    const planes p = planes_for(c);
    const int64_t computed = ((p.band - 1) * p.width + c->out[2] + 63) / 64 * 64;
    return (c->channels >= PLANES_BLOCK || (few && pitch > 0)) && p.size <= PLANES_MOST_BYTES &&
           computed * 2 <= 3 * p.band * c->out[2] &&
           (int64_t)args->weights.starts[panels] >= PLANES_LEAST_STEPS * panels;
}

/* --- filling --------------------------------------------------------------------------------------------------------
 */

/* Where in the input the 64 places from `at` on of a phase come from; `none` for padding. */
static void planes_sources(const planes *p, const uint8_t *image, int64_t first_row, const int64_t phase[2], int64_t at,
                           const uint8_t *none, const uint8_t *from[64])
{
    const terse_conv_u8s8_args *c = p->c;
    int64_t row = at / p->width, column = at % p->width;
    for (int i = 0; i < 64;) {
        const int64_t y = (first_row + row) * c->stride[1] + phase[0] - c->pad[1];
        const bool inside = y >= 0 && y < c->in[1] && row < p->band + p->halo[0];
        const uint8_t *line = inside ? image + y * c->in[2] * c->in_stride : none;
        for (; column < p->width && i < 64; column++, i++) {
            const int64_t x = column * c->stride[2] + phase[1] - c->pad[2];
            from[i] = inside && x >= 0 && x < c->in[2] ? line + x * c->in_stride : none;
        }
        column = 0;
        row++;
    }
}

/* Sixteen channels of 64 places, turned; planes `apart`. */
static void planes_turn(const uint8_t *const from[64], int64_t channel, int64_t apart, uint8_t *to)
{
    __m512i a[16], b[16];
    UNROLL for (int i = 0; i < 16; i++)
    {
        __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(from[i] + channel)));
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(from[i + 16] + channel)), 1);
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(from[i + 32] + channel)), 2);
        a[i] = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(from[i + 48] + channel)), 3);
    }
    lanes_transpose(a, b);
    UNROLL for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * apart, b[i]);
}

/* All channels of one phase, where there are sixteen of them at least; the last ones with some before them again. */
static void planes_fill_phase(const planes *p, const uint8_t *image, int64_t first_row, const int64_t phase[2],
                              uint8_t *to)
{
    const terse_conv_u8s8_args *c = p->c;
    const int64_t step = p->phases[0] * p->phases[1] * p->apart;
    uint8_t padding[PLANES_BLOCK];
    memset(padding, c->x_zero_point, sizeof padding);
    for (int64_t at = 0; at < p->filled; at += 64) {
        const uint8_t *from[64], *block[64];
        planes_sources(p, image, first_row, phase, at, padding, from);
        for (int64_t k = 0; k < c->channels; k += PLANES_BLOCK) {
            const int64_t channel = k + PLANES_BLOCK <= c->channels ? k : c->channels - PLANES_BLOCK;
            for (int i = 0; i < 64; i++)
                block[i] = from[i] == padding ? padding : from[i] + channel;
            planes_turn(block, 0, step, to + channel * step + at);
        }
    }
}

static void planes_fill(const sparse_tier *tier, const planes *p, const uint8_t *image, int64_t first_row, uint8_t *to)
{
    if (p->c->channels < PLANES_BLOCK) { /* only where the tier has it */
        tier->fill_few(p, image, first_row, to);
        return;
    }
    for (int64_t y = 0; y < p->phases[0]; y++)
        for (int64_t x = 0; x < p->phases[1]; x++, to += p->apart) {
            const int64_t phase[2] = {y, x};
            planes_fill_phase(p, image, first_row, phase, to);
        }
}

/* Of each row of K: where its plane is, moved by the kernel's position. */
static void planes_offsets(const planes *p, int32_t *to)
{
    const terse_conv_u8s8_args *c = p->c;
    for (int64_t ky = 0; ky < c->kernel[1]; ky++)
        for (int64_t kx = 0; kx < c->kernel[2]; kx++)
            for (int64_t channel = 0; channel < c->channels; channel++) {
                const int64_t y = ky * c->dilation[1], x = kx * c->dilation[2];
                const int64_t plane = (channel * p->phases[0] + y % c->stride[1]) * p->phases[1] + x % c->stride[2];
                *to++ = (int32_t)(plane * p->apart + y / c->stride[1] * p->width + x / c->stride[2]);
            }
}

/* --- the product ----------------------------------------------------------------------------------------------------
 */

/* Which of 64 places from `at` on are outputs: their rows among those that are; returns how many. */
static int planes_places(const planes *p, int64_t at, int64_t end, int16_t place[64], int64_t *ret_first)
{
    int64_t row = at / p->width, column = at % p->width;
    int n = 0, i = 0;
    *ret_first = row * p->c->out[2] + (column < p->c->out[2] ? column : p->c->out[2]);
    for (end = end - at < LANES_ROWS ? end - at : LANES_ROWS; i < end; column = 0) {
        for (; column < p->c->out[2] && i < end; column++)
            place[i++] = (int16_t)n++;
        for (; column < p->width && i < end; column++)
            place[i++] = LANES_ROWS;
    }
    for (; i < LANES_ROWS; i++)
        place[i] = LANES_ROWS;
    return n;
}

static void sparse_by_planes(const sparse_product *product, const terse_conv_u8s8_args *c)
{
    planes p = planes_for(c);
    uint8_t *bytes = c->scratch;
    const int64_t band = p.band, k = sparse_rows_of_k(c);
    uint8_t *turned = bytes + p.size;
    int32_t *offsets = (int32_t *)(void *)(turned + k * LANES_ROWS);
    uint32_t *ends = (uint32_t *)(void *)(offsets + k);
    lanes_ends(product, ends);
    planes_offsets(&p, offsets);
    for (int64_t n = 0; n < c->n; n++)
        for (int64_t first = 0; first < c->out[1]; first += band) {
            const int64_t rows = c->out[1] - first < band ? c->out[1] - first : band;
            const int64_t end = (rows - 1) * p.width + c->out[2], out = (n * c->out[1] + first) * c->out[2];
            planes_fill(product->tier, &p, c->input + n * c->in[1] * c->in[2] * c->in_stride, first, bytes);
            for (int64_t at = 0; at < end; at += LANES_ROWS) {
                int16_t place[LANES_ROWS];
                int64_t row;
                const int count = planes_places(&p, at, end, place, &row);
                for (int64_t i = 0; i < k; i++)
                    _mm512_store_si512(turned + i * LANES_ROWS, _mm512_loadu_si512(bytes + at + offsets[i]));
                lanes_block(product, turned, ends, place, out + row, count);
            }
        }
}

#endif
