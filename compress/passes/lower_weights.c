/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of a product of bytes. Weights minus their zero points must fit 8 bits (the pass `unsign` sees to that);
 * a product of others goes on in FP32. */
#include "compress/passes/lower.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PANEL = 16, STEP = 4 };

/* One number per column of a constant with 1 or n elements; `dtype` may be FP32, or one of the integers. */
static bool column_number(const terse_edit *edit, int value, int64_t n, int64_t column, double *ret_number)
{
    *ret_number = 0;
    if (value < 0)
        return true;
    const terse_value *v = &edit->graph->values[value];
    const int64_t count = v->rank > 1 ? -1 : terse_dims_count(v->dims, v->rank);
    if (!v->data || v->layout != TERSE_LAYOUT_PLAIN || (count != 1 && count != n))
        return false;
    const int64_t at = count == 1 ? 0 : column;
    switch (v->dtype) {
    case TERSE_FP32:
        *ret_number = (double)((const float *)v->data)[at];
        return true;
    case TERSE_INT8:
        *ret_number = ((const int8_t *)v->data)[at];
        return true;
    case TERSE_UINT8:
        *ret_number = ((const uint8_t *)v->data)[at];
        return true;
    case TERSE_INT32:
        *ret_number = ((const int32_t *)v->data)[at];
        return true;
    default:
        return false;
    }
}

/* Scale and zero point lie over the whole tensor or over `axis`. */
static bool scales_lie_on(const terse_edit *edit, int dequantize, int axis, int rank)
{
    const terse_node *node = &edit->graph->nodes[dequantize];
    const terse_value *scale = &edit->graph->values[node->inputs[1]];
    if (terse_node_int(node, "block_size", 0) != 0 || scale->rank > 1)
        return false;
    return terse_dims_count(scale->dims, scale->rank) == 1 ||
           terse_edit_axis(edit, dequantize, "axis", 1, rank) == axis;
}

/* [n][k] of integers minus zero points; false when one needs 9 bits. */
static bool read_numbers(terse_lower *lower, int dequantize, bool columns_last, terse_lower_weights *w)
{
    terse_edit *edit = &lower->edit;
    const terse_value from = edit->graph->values[terse_edit_input(edit, dequantize, 0)];
    const int zero_point = terse_edit_input(edit, dequantize, 2);
    const int64_t step_n = columns_last ? 1 : w->k, step_k = columns_last ? w->n : 1;
    w->numbers = terse_edit_alloc(edit, (size_t)(w->n * w->k));
    for (int64_t n = 0; w->numbers && n < w->n; n++) {
        double zero;
        if (!column_number(edit, zero_point, w->n, n, &zero))
            return false;
        for (int64_t k = 0; k < w->k; k++) {
            const int64_t at = n * step_n + k * step_k;
            const int stored =
                from.dtype == TERSE_INT8 ? ((const int8_t *)from.data)[at] : ((const uint8_t *)from.data)[at];
            const int number = stored - (int)zero;
            if (number < -128 || number > 127)
                return false;
            w->numbers[n * w->k + k] = (int8_t)number;
        }
    }
    return w->numbers != NULL;
}

static bool read_scales(terse_lower *lower, int dequantize, double x_scale, double alpha, terse_lower_weights *w)
{
    terse_edit *edit = &lower->edit;
    w->scales = terse_edit_alloc(edit, (size_t)w->n * sizeof *w->scales);
    for (int64_t n = 0; w->scales && n < w->n; n++) {
        double scale;
        if (!column_number(edit, terse_edit_input(edit, dequantize, 1), w->n, n, &scale) || !(scale >= 0) ||
            !(scale < 1e30))
            return false;
        w->scales[n] = x_scale * scale * alpha;
    }
    return w->scales != NULL;
}

bool terse_lower_read_weights(terse_lower *lower, int node, const terse_form *x, terse_lower_weights *ret_weights)
{
    const terse_edit *edit = &lower->edit;
    const terse_node *n = &edit->graph->nodes[node];
    const int dequantize = terse_edit_is_bytes_product(edit, node) ? terse_edit_bytes(edit, n->inputs[1]) : -1;
    if (dequantize < 0)
        return false;
    const terse_value *from = &edit->graph->values[terse_edit_input(edit, dequantize, 0)];
    terse_lower_weights w = {.rank = from->rank, .name = from->name, .groups = 1};
    memcpy(w.dims, from->dims, sizeof w.dims);
    const bool turned = n->op == TERSE_OP_GEMM && terse_node_int(n, "transB", 0) != 0;
    int axis = turned ? 0 : 1;
    if (n->op == TERSE_OP_CONV) {
        axis = 0;
        w.groups = terse_node_int(n, "group", 1);
        if (w.groups < 1 || w.dims[0] % w.groups != 0)
            return false;
        w.depthwise = w.groups > 1 && w.groups == w.dims[0] && w.dims[1] == 1;
    } else {
        w.matrix = true;
        w.dims[0] = from->dims[1 - axis];
        w.dims[1] = from->dims[axis];
    }
    w.n = from->dims[axis];
    w.k = terse_dims_count(from->dims, from->rank) / w.n;
    const double alpha = n->op == TERSE_OP_GEMM ? terse_node_float(n, "alpha", 1.0) : 1.0;
    if (!scales_lie_on(edit, dequantize, axis, from->rank) || !isfinite(alpha) ||
        !read_numbers(lower, dequantize, w.matrix && !turned, &w) || !read_scales(lower, dequantize, x->s, alpha, &w))
        return false;
    *ret_weights = w;
    return true;
}

/* Rows of `row` numbers, `rows` of them, for the columns first..first+count-1; number (column, row, i) is at
 * from[column * k + offset(row, i)]. */
static int8_t *pack_panel(const terse_lower_weights *w, int64_t first, int64_t count, int64_t rows, int64_t last,
                          int64_t channels, int8_t *to)
{
    const int64_t row = last * channels, positions = rows * last;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < row; i += STEP, to += PANEL * STEP)
            for (int64_t column = 0; column < count; column++)
                for (int64_t j = 0; j < STEP && i + j < row; j++) {
                    const int64_t position = r * last + (i + j) / channels, channel = (i + j) % channels;
                    to[column * STEP + j] = w->numbers[(first + column) * w->k + channel * positions + position];
                }
    return to;
}

static void pack_products(const terse_lower_weights *w, int8_t *to)
{
    const int64_t last = w->matrix ? 1 : w->dims[w->rank - 1], channels = w->matrix ? w->k : w->dims[1];
    const int64_t rows = w->k / (last * channels), filters = w->n / w->groups;
    for (int64_t g = 0; g < w->groups; g++)
        for (int64_t n = 0; n < filters; n += PANEL)
            to = pack_panel(w, g * filters + n, filters - n < PANEL ? filters - n : PANEL, rows, last, channels, to);
}

/* [ceil(C/16)][leading axes][k_last][ceil(k_before_last/4)][16][4] */
static void pack_depthwise(const terse_lower_weights *w, int8_t *to)
{
    const int64_t width = w->dims[w->rank - 1], height = w->rank > 3 ? w->dims[w->rank - 2] : 1;
    const int64_t planes = w->k / (width * height), steps = (height + STEP - 1) / STEP;
    for (int64_t c = 0; c < w->n; c++) {
        int8_t *panel = to + c / PANEL * planes * width * steps * PANEL * STEP;
        for (int64_t i = 0; i < w->k; i++) {
            const int64_t x = i % width, y = i / width % height, plane = i / width / height;
            panel[((plane * width + x) * steps + y / STEP) * PANEL * STEP + c % PANEL * STEP + y % STEP] =
                w->numbers[c * w->k + i];
        }
    }
}

int terse_lower_pack_weights(terse_lower *lower, const terse_lower_weights *w)
{
    terse_edit *edit = &lower->edit;
    const terse_layout layout = w->depthwise ? TERSE_LAYOUT_S8_DW : TERSE_LAYOUT_S8_N16K4;
    const int64_t groups = w->depthwise ? 1 : w->groups;
    const int64_t bytes = terse_layout_bytes(layout, TERSE_INT8, w->rank, w->dims, groups);
    int8_t *to = bytes < 0 ? NULL : terse_edit_alloc(edit, (size_t)bytes); /* zeroed */
    const int made = to ? terse_edit_add_constant(edit, w->name, TERSE_INT8, w->rank, w->dims, to) : -1;
    if (made < 0) {
        edit->failed = true;
        return -1;
    }
    if (w->depthwise)
        pack_depthwise(w, to);
    else
        pack_products(w, to);
    terse_value *value = &edit->graph->values[made];
    value->layout = layout;
    value->groups = groups;
    value->bytes = (size_t)bytes;
    return made;
}

/* --- bias ------------------------------------------------------------------------------------------------------ */

/* What the bias of column n is as a number, and, when it is INT32 on the scale of the sums, as that. */
typedef struct bias_source {
    int value, zero_point, scale; /* scale -1: FP32 */
    double beta;
} bias_source;

static bool find_bias(const terse_lower *lower, int node, int64_t n, bias_source *ret_source)
{
    const terse_edit *edit = &lower->edit;
    const terse_node *from = &edit->graph->nodes[node];
    bias_source s = {.value = terse_edit_input(edit, node, 2), .zero_point = -1, .scale = -1, .beta = 1};
    if (from->op == TERSE_OP_GEMM)
        s.beta = terse_node_float(from, "beta", 1.0);
    const int dequantize = terse_edit_maker(edit, s.value, TERSE_OP_DEQUANTIZE_LINEAR);
    if (dequantize >= 0) {
        s.value = terse_edit_input(edit, dequantize, 0);
        s.scale = terse_edit_input(edit, dequantize, 1);
        s.zero_point = terse_edit_input(edit, dequantize, 2);
        if (!scales_lie_on(edit, dequantize, 0, edit->graph->values[s.value].rank))
            return false;
    }
    if (s.value >= 0) {
        const terse_value *v = &edit->graph->values[s.value];
        const int64_t count = v->rank < 0 ? -1 : terse_dims_count(v->dims, v->rank);
        const bool row = v->rank == 2 && v->dims[0] == 1 && from->op == TERSE_OP_GEMM;
        if (!v->data || v->layout != TERSE_LAYOUT_PLAIN || (count != 1 && count != n) || (v->rank > 1 && !row) ||
            (count == 1 && n != 1 && from->op != TERSE_OP_GEMM) || (row && v->dims[1] != count) ||
            (v->dtype != TERSE_FP32 && v->dtype != TERSE_INT32) || (v->dtype == TERSE_FP32) != (s.scale < 0))
            return false;
    }
    *ret_source = s;
    return true;
}

/* Column n of the bias: a number, and, when it is an integer on the scale of the sums, that. */
static bool bias_number(const terse_edit *edit, const bias_source *source, const terse_lower_weights *w, int64_t n,
                        double *ret_number, double *ret_integer, bool *ret_is_integer)
{
    *ret_number = *ret_integer = 0;
    *ret_is_integer = true;
    if (source->value < 0 || source->beta == 0)
        return true;
    const terse_value *v = &edit->graph->values[source->value];
    const int64_t at = terse_dims_count(v->dims, v->rank) == 1 ? 0 : n;
    if (source->scale < 0) {
        *ret_number = (double)((const float *)v->data)[at] * source->beta;
        *ret_is_integer = *ret_number == 0;
        return isfinite(*ret_number);
    }
    double scale, zero;
    if (!column_number(edit, source->scale, w->n, n, &scale) ||
        !column_number(edit, source->zero_point, w->n, n, &zero))
        return false;
    *ret_integer = (double)((const int32_t *)v->data)[at] - zero;
    *ret_number = *ret_integer * scale * source->beta;
    *ret_is_integer = *ret_integer == 0 || (source->beta == 1 && fabs(scale - w->scales[n]) <= 1e-6 * w->scales[n]);
    return isfinite(*ret_number);
}

/* Where the sum of a column may end for any bytes of x, without its bias. */
typedef struct column_range {
    int64_t sum, least, most;
} column_range;

static column_range range_of(const terse_lower_weights *w, int64_t n)
{
    column_range range = {0};
    for (int64_t k = 0; k < w->k; k++) {
        const int8_t number = w->numbers[n * w->k + k];
        range.sum += number;
        *(number < 0 ? &range.least : &range.most) += 255 * number;
    }
    return range;
}

bool terse_lower_read_bias(terse_lower *lower, int node, int32_t x_zero_point, bool exact, terse_lower_weights *w,
                           terse_lower_bias *ret_bias)
{
    terse_edit *edit = &lower->edit;
    bias_source source;
    terse_lower_bias bias = {0};
    if (!find_bias(lower, node, w->n, &source))
        return false;
    bias.sums = terse_edit_alloc(edit, (size_t)w->n * sizeof *bias.sums);
    float *floats = terse_edit_alloc(edit, (size_t)w->n * sizeof *floats);
    for (int64_t n = 0; bias.sums && floats && n < w->n; n++) {
        const column_range range = range_of(w, n);
        double number, integer;
        bool is_integer;
        if (!bias_number(edit, &source, w, n, &number, &integer, &is_integer))
            return false;
        if (!is_integer && exact) {
            floats[n] = (float)number;
            bias.floats = floats;
            integer = 0;
        } else if (!is_integer) {
            /* A column of zeros has whatever scale makes its bias an integer. */
            if (range.least == 0 && range.most == 0)
                w->scales[n] = fabs(number) / 0x1p23;
            integer = rint(number / w->scales[n]);
        }
        integer -= (double)x_zero_point * (double)range.sum;
        if (!(integer + (double)range.least >= INT32_MIN && integer + (double)range.most <= INT32_MAX))
            return false;
        bias.sums[n] = (int32_t)integer;
    }
    *ret_bias = bias;
    return bias.sums && floats;
}
