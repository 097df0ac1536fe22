/* SPDX-License-Identifier: Apache-2.0 */
/* The fixed rule is from measurements of one core with 1 MiB of second-level cache: F(4x4,3x3) is 1.5 to 3 times as
 * fast as the direct convolution, down to maps of 4x4, where its weights (four times as many bytes) come from the
 * caches. Larger ones come from memory once per call, and then only maps with enough tiles pay for them. */
#include "compress/passes/winograd.h"

#include <math.h>
#include <string.h>

#include "common/kernels/winograd.h"

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
        !all_are(conv, "strides", 1) || !all_are(conv, "dilations", 1))
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
        computed *= (double)((size + WINOGRAD_TILE - 1) / WINOGRAD_TILE * WINOGRAD_TILE);
    }
    return bytes > 0 && pixels >= (bytes > NEAR_BYTES ? LEAST_PIXELS_FAR : LEAST_PIXELS) && computed <= 2 * pixels &&
           is_moderate(w);
}

/* 36 numbers G g G^T of one filter and channel; g: nine numbers. */
static void transform(const float *g, double u[WINOGRAD_POINTS])
{
    const double a = WINOGRAD_A, b = WINOGRAD_B;
    const double rows[WINOGRAD_WINDOW][3] = {{1, 0, 0},
                                             {-2.0 / 3, -2 * a / 3, -1.0 / 3},
                                             {-2.0 / 3, 2 * a / 3, -1.0 / 3},
                                             {1.0 / 6, b / 6, 1.0 / 3},
                                             {1.0 / 6, -b / 6, 1.0 / 3},
                                             {0, 0, 1}};
    double half[WINOGRAD_WINDOW][3];
    for (int i = 0; i < WINOGRAD_WINDOW; i++)
        for (int j = 0; j < 3; j++)
            half[i][j] = rows[i][0] * (double)g[j] + rows[i][1] * (double)g[3 + j] + rows[i][2] * (double)g[6 + j];
    for (int i = 0; i < WINOGRAD_POINTS; i++) {
        const double *left = half[i / WINOGRAD_WINDOW], *right = rows[i % WINOGRAD_WINDOW];
        u[i] = left[0] * right[0] + left[1] * right[1] + left[2] * right[2];
    }
}

void terse_pass_winograd_pack(const terse_value *weights, float *to)
{
    const int64_t filters = weights->dims[0], channels = weights->dims[1], panels = (filters + 15) / 16;
    const float *from = weights->data;
    for (int64_t f = 0; f < filters; f++)
        for (int64_t c = 0; c < channels; c++) {
            double u[WINOGRAD_POINTS];
            transform(from + (f * channels + c) * 9, u);
            for (int64_t i = 0; i < WINOGRAD_POINTS; i++)
                to[((i * panels + f / 16) * channels + c) * 16 + f % 16] = (float)u[i];
        }
}
