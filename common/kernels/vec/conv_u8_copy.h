/* SPDX-License-Identifier: Apache-2.0 */
/* conv_u8_copy.h: pixels of bytes copied out of an image with its padding filled in. */
#ifndef TERSE_KERNELS_VEC_CONV_U8_COPY_H
#define TERSE_KERNELS_VEC_CONV_U8_COPY_H

#include <stdbool.h>
#include <string.h>

#include "common/kernels/quantized.h"
#include "common/kernels/vec/v16.h"

static bool conv_is_gemm(const terse_conv_u8s8_args *args)
{
    for (int axis = 0; axis < 3; axis++)
        if (args->kernel[axis] != 1 || args->stride[axis] != 1 || args->pad[axis] != 0 ||
            args->in[axis] != args->out[axis])
            return false;
    return true;
}

/* Never touches anything but the n bytes. */
INLINE void conv_copy_bytes(uint8_t *to, const uint8_t *from, int64_t n)
{
    if (n >= 16) {
        for (int64_t i = 0; i < n - 16; i += 16)
            memcpy(to + i, from + i, 16);
        memcpy(to + n - 16, from + n - 16, 16);
    } else if (n >= 4) {
        for (int64_t i = 0; i < n - 4; i += 4)
            memcpy(to + i, from + i, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    } else {
        for (int64_t i = 0; i < n; i++)
            to[i] = from[i];
    }
}

/* `count` pixels from index `at` of an input row on, which may lie in the padding, `step` apart. row: NULL in it. */
static void conv_copy_pixels(const terse_conv_u8s8_args *args, const uint8_t *row, int64_t channels, int64_t at,
                             int64_t step, int64_t count, uint8_t *to)
{
    const int64_t size = args->in[2];
    int64_t skip = at >= 0 ? 0 : (-at + step - 1) / step; /* pixels before the row */
    int64_t end = at >= size ? 0 : (size - at + step - 1) / step;
    end = !row || end < 0 ? 0 : end < count ? end : count;
    skip = skip < end ? skip : end;
    memset(to, args->x_zero_point, (size_t)(skip * channels));
    const uint8_t *from = row ? row + (at + skip * step) * args->in_stride : NULL;
    if (step == 1 && args->in_stride == channels && end > skip)
        memcpy(to + skip * channels, from, (size_t)((end - skip) * channels));
    else
        for (int64_t i = skip; i < end; i++, from += step * args->in_stride)
            conv_copy_bytes(to + i * channels, from, channels);
    memset(to + end * channels, args->x_zero_point, (size_t)((count - end) * channels));
}

#endif
