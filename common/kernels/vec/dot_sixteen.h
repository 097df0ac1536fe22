/* SPDX-License-Identifier: Apache-2.0 */
/* dot_sixteen.h: requantization for tiers that finish sixteen sums at a time with what they give as dot_sixteen. */
#ifndef TERSE_KERNELS_VEC_DOT_SIXTEEN_H
#define TERSE_KERNELS_VEC_DOT_SIXTEEN_H

/* Four times sixteen bytes, in order, and which of them are too near to a tie. */
typedef struct dot_bytes {
    uint8_t all[64];
    uint64_t near;
} dot_bytes;

typedef struct dot_constants {
    v16 multiplier[4];
    const dot_scale *scale;
} dot_constants;

INLINE dot_constants dot_constants_for(const dot_scale *s, const float *const *multiplier, int panels)
{
    dot_constants k = {.scale = s};
    UNROLL for (int v = 0; v < panels; v++) k.multiplier[v] = v16_mul(v16_load(multiplier[v]), v16_set1(DOT_UNIT));
    return k;
}

/* Four times sixteen sums, times multipliers (plus bytes of a residual), as dot_finish.h has it. The last panel has
 * only `last` columns. Returns whether one of the values is too near to a tie. */
INLINE bool dot_requantize(const dot_constants *k, const int32_t *sums, int panels, const uint8_t *const *add, int last,
                           dot_bytes *ret_bytes)
{
    ret_bytes->near = 0;
    UNROLL for (int i = 0; i < 4; i++)
    {
        v16 t = v16_set1(k->scale->begin);
        if (add) {
            uint8_t few[16] = {0};
            const bool cut = i % panels == panels - 1 && last != 16;
            if (cut)
                memcpy(few, add[i], (size_t)last);
            t = v16_fma(dot_bytes_to_float(cut ? few : add[i]), v16_set1(k->scale->residual), t);
        }
        t = v16_fma(dot_to_float(sums + i * 16), k->multiplier[i % panels], t);
        ret_bytes->near |= (uint64_t)dot_sixteen(t, k->scale, ret_bytes->all + i * 16) << (i * 16);
    }
    return ret_bytes->near != 0;
}

INLINE uint64_t dot_near(const dot_bytes *bytes)
{
    return bytes->near;
}

INLINE void dot_get(const dot_bytes *bytes, uint8_t to[64])
{
    memcpy(to, bytes->all, 64);
}

INLINE void dot_set(dot_bytes *bytes, const uint8_t from[64])
{
    memcpy(bytes->all, from, 64);
}

/* Row i of those that `bytes` holds. */
INLINE void dot_put(uint8_t *c, dot_bytes bytes, int i, int panels, int width)
{
    if (width == panels * 16)
        memcpy(c, bytes.all + i * panels * 16, (size_t)panels * 16);
    else
        memcpy(c, bytes.all + i * panels * 16, (size_t)width);
}

#endif
