/* SPDX-License-Identifier: Apache-2.0 */
/* ConvInteger whose sums are wanted as they are: its constant weights are packed here once, not at every run. UINT8
 * weights become INT8, 128 lower, and so do their zero points. Where these are not 0 then, each group gets one filter
 * more, all ones, which sums up x (common/ops/integer_conv.c). */
#include "compress/passes/lower.h"

#include <string.h>

static int number_at(const terse_value *value, int64_t i)
{
    return value->dtype == TERSE_INT8 ? ((const int8_t *)value->data)[i] : ((const uint8_t *)value->data)[i] - 128;
}

/* The zero point of each filter, 128 lower where weights are UINT8; *ret_any: some are not 0. NULL: not constant, or
 * of another shape, or memory is out. */
static int8_t *read_zeros(terse_edit *edit, const terse_value *w, int zero, bool *ret_any)
{
    const terse_value *z = zero < 0 ? NULL : &edit->graph->values[zero];
    const int64_t filters = w->dims[0], count = z ? terse_dims_count(z->dims, z->rank) : 1;
    if (z && (!terse_edit_is_constant(edit, zero) || z->dtype != w->dtype ||
              (count != 1 && (z->rank != 1 || count != filters))))
        return NULL;
    int8_t *zeros = terse_edit_alloc(edit, (size_t)filters);
    *ret_any = false;
    for (int64_t f = 0; zeros && f < filters; f++) {
        const int number = z ? number_at(z, count == 1 ? 0 : f) : w->dtype == TERSE_UINT8 ? -128 : 0;
        zeros[f] = (int8_t)number;
        *ret_any = *ret_any || number != 0;
    }
    return zeros;
}

/* The filters in their order, one of ones behind each group where `ones`; sums less zero points. */
static bool read_filters(terse_edit *edit, const terse_value *w, const int8_t *zeros, bool ones,
                         terse_lower_weights *numbers, int32_t *sums)
{
    const int64_t own = w->dims[0] / numbers->groups, k = numbers->k;
    numbers->numbers = terse_edit_alloc(edit, (size_t)(numbers->n * k));
    int8_t *to = numbers->numbers;
    for (int64_t f = 0; to && f < w->dims[0]; f++) {
        int64_t sum = -k * zeros[f];
        for (int64_t i = 0; i < k; i++) {
            to[i] = (int8_t)number_at(w, f * k + i);
            sum += to[i];
        }
        sums[f] = (int32_t)(uint32_t)sum;
        to += k;
        if (ones && f % own == own - 1) {
            memset(to, 1, (size_t)k);
            to += k;
        }
    }
    return to != NULL;
}

void terse_lower_conv_integer(terse_lower *lower, int node)
{
    terse_edit *edit = &lower->edit;
    const int x = terse_edit_input(edit, node, 0), weights = terse_edit_input(edit, node, 1);
    const int64_t groups = terse_node_int(&edit->graph->nodes[node], "group", 1);
    if (x < 0 || !terse_edit_is_constant(edit, weights))
        return;
    const terse_value w = edit->graph->values[weights];
    if (w.layout != TERSE_LAYOUT_PLAIN || (w.dtype != TERSE_INT8 && w.dtype != TERSE_UINT8) || w.rank < 3 ||
        w.bytes == 0 || edit->graph->values[x].rank != w.rank || groups < 1 || w.dims[0] % groups != 0)
        return;
    bool ones = false;
    const int8_t *zeros = read_zeros(edit, &w, terse_edit_input(edit, node, 3), &ones);
    int32_t *sums = zeros ? terse_edit_alloc(edit, (size_t)w.dims[0] * sizeof *sums) : NULL;
    terse_lower_weights packed = {.n = w.dims[0] + (ones ? groups : 0),
                                  .k = (int64_t)w.bytes / w.dims[0],
                                  .groups = groups,
                                  .rank = w.rank,
                                  .name = w.name};
    memcpy(packed.dims, w.dims, sizeof packed.dims);
    packed.dims[0] = packed.n;
    if (!sums || !read_filters(edit, &w, zeros, ones, &packed, sums))
        return;
    const int inputs[5] = {x, terse_lower_pack_weights(lower, &packed), terse_edit_input(edit, node, 2),
                           ones ? terse_edit_add_constant(edit, "zero_points", TERSE_INT8, 1, w.dims, zeros)
                                : TERSE_NO_VALUE,
                           terse_edit_add_constant(edit, "sums", TERSE_INT32, 1, w.dims, sums)};
    const terse_node old = edit->graph->nodes[node];
    const int y = old.outputs[0];
    if (edit->failed)
        return;
    terse_edit_remove(edit, node);
    const int made = terse_edit_add_node(edit, TERSE_OP_CONV_INTEGER, old.name, inputs, 5, &y, 1);
    if (made < 0)
        return;
    edit->graph->nodes[made].attrs = old.attrs;
    edit->graph->nodes[made].n_attrs = old.n_attrs;
}
