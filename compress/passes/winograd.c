/* SPDX-License-Identifier: Apache-2.0 */
/* The fixed rule is from measurements of one core with 1 MiB of second-level cache: F(4x4,3x3) is 1.5 to 3 times as
 * fast as the direct convolution, down to maps of 4x4, where its weights (four times as many bytes) come from the
 * caches. Larger ones come from memory once per call, and then only maps with enough tiles pay for them. */
#include "compress/passes/winograd.h"

#include <math.h>
#include <string.h>

#include "common/kernels/winograd.h"
#include "common/winograd.h"

enum {
    LEAST_CHANNELS = 8,
    MOST_CHANNELS = 2048, /* a block of tiles has at least 28, in all channels */
    LEAST_FILTERS = 8,
    LEAST_PIXELS = 36, /* of the output */
    LEAST_PIXELS_FAR = 144,
    SYMBOL_PIXELS = 56, /* along an axis whose size is not known yet */
};
static const int64_t NEAR_BYTES = 4 << 20;

/* All elements of a list of INTS are `value`, or it is absent. */
static bool all_are(const terse_node *node, const char *name, int64_t value)
{
    const terse_attr *list = terse_node_attr(node, name);
    for (int i = 0; list && i < list->n; i++)
        if (!list->ints || list->ints[i] != value)
            return false;
    return true;
}

static int64_t dilation(const terse_node *node, int axis)
{
    const terse_attr *list = terse_node_attr(node, "dilations");
    return list && list->ints && axis < list->n ? list->ints[axis] : 1;
}

/* Along an axis, in whole tiles: with a dilation those of each phase. */
static int64_t computed_pixels(int64_t size, int64_t dilation)
{
    const int64_t phases = size < dilation ? size : dilation;
    const int64_t outputs = (size + dilation - 1) / dilation;
    return phases * ((outputs + WINOGRAD_TILE - 1) / WINOGRAD_TILE * WINOGRAD_TILE);
}

/* Far from where its transform or products of it would overflow. */
static bool is_moderate(const terse_value *weights)
{
    const float *data = weights->data;
    for (size_t i = 0; i < weights->bytes / sizeof *data; i++)
        if (!(fabsf(data[i]) < 1e18f))
            return false;
    return true;
}

bool terse_pass_winograd_wins(const terse_graph *graph, const terse_node *conv)
{
    const terse_value *w = &graph->values[conv->inputs[1]], *y = &graph->values[conv->outputs[0]];
    if (w->rank != 4 || y->rank != 4 || w->dims[2] != 3 || w->dims[3] != 3 || terse_node_int(conv, "group", 1) != 1 ||
        !all_are(conv, "strides", 1))
        return false;
    if (w->dims[1] < LEAST_CHANNELS || w->dims[1] > MOST_CHANNELS || w->dims[0] < LEAST_FILTERS)
        return false;
    const int64_t bytes = terse_layout_bytes(TERSE_LAYOUT_F32_WINOGRAD4, TERSE_FP32, 4, w->dims, 1);
    const char *measured = terse_node_text(conv, "algorithm", ""); /* compress/tune.h */
    if (measured[0])
        return strcmp(measured, "winograd") == 0 && bytes > 0 && is_moderate(w);
    double pixels = 1, computed = 1; /* computed: whole tiles */
    for (int axis = 1; axis <= 2; axis++) {
        const int64_t size = y->dims[axis] < 0 ? SYMBOL_PIXELS : y->dims[axis];
        pixels *= (double)size;
        computed *= (double)computed_pixels(size, dilation(conv, axis - 1));
    }
    return bytes > 0 && pixels >= (bytes > NEAR_BYTES ? LEAST_PIXELS_FAR : LEAST_PIXELS) && computed <= 2 * pixels &&
           is_moderate(w);
}

void terse_pass_winograd_pack(const terse_value *weights, float *to)
{
    terse_winograd_expand(weights->data, weights->dims[0], weights->dims[1], to);
}
