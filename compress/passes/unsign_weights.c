/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Kernels multiply by INT8 weights without zero points. Constant weights of a product get there exactly:
 * - a Transpose behind their DequantizeLinear is done on the bytes;
 * - where all numbers minus their zero points fit 8 bits, those are the weights;
 * - where they do not (they have up to 9 bits), the weights are the sum of two or three tensors that do, side by side
 * along the axis that is summed over, and the activation is repeated as often: x * (a + b) = [x, x] * [a; b]. */
#include "compress/passes/unsign.h"

#include <stdlib.h>
#include <string.h>

static bool is_product(terse_op op)
{
    return op == TERSE_OP_CONV || op == TERSE_OP_CONV_TRANSPOSE || op == TERSE_OP_GEMM || op == TERSE_OP_MATMUL;
}

int *terse_unsign_weight_uses(const terse_edit *edit)
{
    const terse_graph *graph = edit->graph;
    int *uses = calloc((size_t)graph->n_values + 1, sizeof *uses);
    for (int n = 0; uses && n < graph->n_nodes; n++)
        if (is_product(graph->nodes[n].op) && terse_edit_input(edit, n, 1) >= 0)
            uses[terse_edit_input(edit, n, 1)]++;
    return uses;
}

/* A DequantizeLinear of constant bytes by constants, of one scale or one axis (then *ret_axis, else -1). */
static bool read_weights(const terse_edit *edit, int node, int *ret_axis)
{
    const int x = terse_edit_input(edit, node, 0), scale = terse_edit_input(edit, node, 1);
    const int zero = terse_edit_input(edit, node, 2);
    if (!terse_edit_is_constant(edit, x) || !terse_edit_floats(edit, scale) ||
        (zero >= 0 && !terse_edit_is_constant(edit, zero)) ||
        terse_node_int(&edit->graph->nodes[node], "block_size", 0) != 0)
        return false;
    const terse_value *v = &edit->graph->values[x], *s = &edit->graph->values[scale];
    const terse_value *z = zero >= 0 ? &edit->graph->values[zero] : s;
    if (v->layout != TERSE_LAYOUT_PLAIN || (v->dtype != TERSE_INT8 && v->dtype != TERSE_UINT8) || s->rank > 1 ||
        z->rank > 1)
        return false;
    const int64_t n = terse_dims_count(s->dims, s->rank), m = terse_dims_count(z->dims, z->rank);
    *ret_axis = n == 1 ? -1 : terse_edit_axis(edit, node, "axis", 1, v->rank);
    return n == 1 ? m == 1 : *ret_axis >= 0 && n == m && n == v->dims[*ret_axis];
}

static int add_dequantize(terse_edit *edit, int like, const int *inputs, int n_inputs, int axis, int output)
{
    const char *name = edit->graph->nodes[like].name;
    const int node = terse_edit_add_node(edit, TERSE_OP_DEQUANTIZE_LINEAR, name, inputs, n_inputs, &output, 1);
    if (node >= 0 && axis >= 0 && !terse_node_set_int(edit->graph, &edit->graph->nodes[node], "axis", axis))
        edit->failed = true;
    return node;
}

/* The bytes of a constant with its axes in another order. */
static int permuted(terse_edit *edit, int value, const int64_t *perm)
{
    const terse_value old = edit->graph->values[value];
    int64_t dims[TERSE_MAX_RANK], stride[TERSE_MAX_RANK], at[TERSE_MAX_RANK] = {0}, from = 0;
    char *to = terse_edit_alloc(edit, old.bytes + 1);
    for (int i = 0; i < old.rank; i++) {
        dims[i] = old.dims[perm[i]];
        stride[i] = 1;
        for (int j = (int)perm[i] + 1; j < old.rank; j++)
            stride[i] *= old.dims[j];
    }
    for (size_t done = 0; to && done < old.bytes; done++) {
        to[done] = ((const char *)old.data)[from];
        for (int axis = old.rank - 1; axis >= 0; axis--) {
            from += stride[axis];
            if (++at[axis] < dims[axis])
                break;
            from -= stride[axis] * dims[axis];
            at[axis] = 0;
        }
    }
    return to ? terse_edit_add_constant(edit, old.name, old.dtype, old.rank, dims, to) : -1;
}

/* Transpose(DequantizeLinear(constant)) is DequantizeLinear(another constant). */
static void pull_transpose(terse_edit *edit, int node)
{
    const int dequantize = terse_edit_maker(edit, terse_edit_input(edit, node, 0), TERSE_OP_DEQUANTIZE_LINEAR);
    int axis, moved = -1;
    if (dequantize < 0 || !read_weights(edit, dequantize, &axis))
        return;
    const int x = terse_edit_input(edit, dequantize, 0), rank = edit->graph->values[x].rank;
    const terse_attr *attr = terse_node_attr(&edit->graph->nodes[node], "perm");
    int64_t perm[TERSE_MAX_RANK];
    unsigned seen = 0;
    for (int i = 0; i < rank; i++) {
        perm[i] = !attr ? rank - 1 - i : attr->n == rank ? attr->ints[i] : -1;
        if (perm[i] < 0 || perm[i] >= rank || seen >> perm[i] & 1u)
            return;
        seen |= 1u << perm[i];
        moved = perm[i] == axis ? i : moved;
    }
    const int made = permuted(edit, x, perm), output = edit->graph->nodes[node].outputs[0];
    const int inputs[] = {made, terse_edit_input(edit, dequantize, 1), terse_edit_input(edit, dequantize, 2)};
    if (made < 0)
        return;
    terse_edit_remove(edit, node);
    add_dequantize(edit, dequantize, inputs, inputs[2] < 0 ? 2 : 3, moved, output);
}

static int number_at(const terse_value *value, int64_t i)
{
    return value->dtype == TERSE_INT8 ? ((const int8_t *)value->data)[i] : ((const uint8_t *)value->data)[i];
}

/* Weights minus their zero points; NULL when memory is out. */
static int16_t *read_differences(const terse_edit *edit, int dequantize, int axis)
{
    const terse_value *w = &edit->graph->values[terse_edit_input(edit, dequantize, 0)];
    const int zero = terse_edit_input(edit, dequantize, 2);
    const int64_t n = terse_dims_count(w->dims, w->rank);
    const int64_t inner = axis < 0 ? 1 : terse_dims_count(w->dims + axis + 1, w->rank - axis - 1);
    int16_t *to = malloc((size_t)(n + 1) * sizeof *to);
    for (int64_t i = 0; to && i < n; i++) {
        const int64_t at = axis < 0 ? 0 : i / inner % w->dims[axis];
        to[i] = (int16_t)(number_at(w, i) - (zero < 0 ? 0 : number_at(&edit->graph->values[zero], at)));
    }
    return to;
}

/* How many bytes one number must be the sum of. */
static int parts_of(int number)
{
    return number < 0 ? (-number + 127) / 128 : number == 0 ? 1 : (number + 126) / 127;
}

static int max_parts(const int16_t *numbers, int64_t n)
{
    int parts = 1;
    for (int64_t i = 0; i < n; i++)
        if (parts_of(numbers[i]) > parts)
            parts = parts_of(numbers[i]);
    return parts;
}

/* Of each run of `inner` numbers, its parts one behind the other, as an INT8 constant. */
static int split_constant(terse_edit *edit, const terse_value *like, int16_t *numbers, int parts, int axis)
{
    const int64_t n = terse_dims_count(like->dims, like->rank);
    const int64_t inner = terse_dims_count(like->dims + axis, like->rank - axis);
    int64_t dims[TERSE_MAX_RANK];
    memcpy(dims, like->dims, sizeof dims);
    dims[axis] *= parts;
    int8_t *to = n > TERSE_MAX_TENSOR_BYTES / 8 ? NULL : terse_edit_alloc(edit, (size_t)(n * parts) + 1);
    for (int64_t i = 0; to && i < n; i++)
        for (int part = 0; part < parts; part++) {
            const int16_t taken = numbers[i] > 127 ? 127 : numbers[i] < -128 ? -128 : numbers[i];
            to[(i / inner * parts + part) * inner + i % inner] = (int8_t)taken;
            numbers[i] = (int16_t)(numbers[i] - taken);
        }
    return to ? terse_edit_add_constant(edit, like->name, TERSE_INT8, like->rank, dims, to) : -1;
}

/* The axes that a product sums over: of its weights and of its activation. False where it is not that simple. */
static bool summed_axes(const terse_edit *edit, int node, int x_rank, int w_rank, int *ret_x, int *ret_w)
{
    const terse_node *n = &edit->graph->nodes[node];
    switch (n->op) {
    case TERSE_OP_CONV:
        *ret_x = *ret_w = 1;
        return x_rank >= 3 && w_rank == x_rank && terse_node_int(n, "channels_last", 0) == 0;
    case TERSE_OP_GEMM:
        *ret_x = terse_node_int(n, "transA", 0) ? 0 : 1;
        *ret_w = terse_node_int(n, "transB", 0) ? 1 : 0;
        return x_rank == 2 && w_rank == 2;
    case TERSE_OP_MATMUL:
        *ret_x = x_rank - 1;
        *ret_w = w_rank - 2;
        return x_rank >= 2 && w_rank >= 2;
    default:
        return false;
    }
}

/* Channel numbers of an activation whose channels are repeated `parts` times within each group. */
static int repeated_channels(terse_edit *edit, int64_t channels, int64_t groups, int parts)
{
    int64_t *index = terse_edit_alloc(edit, (size_t)(channels * parts + 1) * sizeof *index), at = 0;
    const int64_t size = channels / groups;
    for (int64_t g = 0; index && g < groups; g++)
        for (int part = 0; part < parts; part++)
            for (int64_t c = 0; c < size; c++)
                index[at++] = g * size + c;
    return index ? terse_edit_add_constant(edit, "channels", TERSE_INT64, 1, &at, index) : -1;
}

/* `bytes` repeated along the axis; the new value. */
static int repeat(terse_edit *edit, int bytes, int axis, int64_t size, int64_t groups, int parts)
{
    const char *name = edit->graph->values[bytes].name;
    const int made = terse_edit_add_like(edit, bytes, "/repeated");
    const int channels = groups > 1 ? repeated_channels(edit, size, groups, parts) : -1;
    if (made < 0 || (groups > 1 && channels < 0))
        return -1;
    edit->graph->values[made].dims[axis] = size * parts;
    const int inputs[] = {bytes, groups > 1 ? channels : bytes, bytes};
    const int node = terse_edit_add_node(edit, groups > 1 ? TERSE_OP_GATHER : TERSE_OP_CONCAT, name, inputs,
                                         groups > 1 ? 2 : parts, &made, 1);
    if (node >= 0 && !terse_node_set_int(edit->graph, &edit->graph->nodes[node], "axis", axis))
        edit->failed = true;
    return node < 0 ? -1 : made;
}

/* A scale of the whole tensor, which may be known at run time only. */
static bool is_one_number(const terse_value *scale)
{
    return scale->dtype == TERSE_FP32 && (scale->rank == 0 || (scale->rank == 1 && scale->dims[0] == 1));
}

/* The product reads weights in parts, and its activation as often. */
static void split(terse_edit *edit, int node, int dequantize, int axis, int16_t *numbers, int parts)
{
    const int x = terse_edit_input(edit, node, 0), from = terse_edit_maker(edit, x, TERSE_OP_DEQUANTIZE_LINEAR);
    if (from < 0 || edit->uses[terse_edit_input(edit, node, 1)] != 1)
        return;
    const terse_value w = edit->graph->values[terse_edit_input(edit, dequantize, 0)];
    const int bytes = terse_edit_input(edit, from, 0), scale = terse_edit_input(edit, from, 1);
    int x_axis, w_axis;
    if (bytes < 0 || edit->graph->values[bytes].rank < 0 || !is_one_number(&edit->graph->values[scale]) ||
        !summed_axes(edit, node, edit->graph->values[bytes].rank, w.rank, &x_axis, &w_axis) || axis == w_axis)
        return;
    const int64_t groups =
        edit->graph->nodes[node].op == TERSE_OP_CONV ? terse_node_int(&edit->graph->nodes[node], "group", 1) : 1;
    const int64_t size = edit->graph->values[bytes].dims[x_axis];
    if (groups < 1 || size < 1 || size != w.dims[w_axis] * groups)
        return;
    const int weights = split_constant(edit, &w, numbers, parts, w_axis);
    const int repeated = weights < 0 ? -1 : repeat(edit, bytes, x_axis, size, groups, parts);
    const int x_made = repeated < 0 ? -1 : terse_edit_add_like(edit, repeated, "/f32");
    const int w_made = x_made < 0 ? -1 : terse_edit_add_like(edit, terse_edit_input(edit, node, 1), "/parts");
    if (w_made < 0)
        return;
    edit->graph->values[x_made].dtype = TERSE_FP32;
    memcpy(edit->graph->values[w_made].dims, edit->graph->values[weights].dims, sizeof w.dims);
    const int zero = terse_edit_input(edit, from, 2);
    add_dequantize(edit, from, (int[]){repeated, scale, zero}, zero < 0 ? 2 : 3, -1, x_made);
    add_dequantize(edit, dequantize, (int[]){weights, terse_edit_input(edit, dequantize, 1)}, 2, axis, w_made);
    terse_edit_set_input(edit, node, 0, x_made);
    terse_edit_set_input(edit, node, 1, w_made);
}

/* Weights of one product: INT8 without a zero point. */
static void normalize(terse_edit *edit, const int *weight_uses, int n_values, int node)
{
    const int value = terse_edit_input(edit, node, 1);
    const int dequantize = terse_edit_maker(edit, value, TERSE_OP_DEQUANTIZE_LINEAR);
    int axis;
    if (dequantize < 0 || !read_weights(edit, dequantize, &axis) ||
        (value < n_values && weight_uses[value] != edit->uses[value]))
        return;
    const int w = terse_edit_input(edit, dequantize, 0), zero = terse_edit_input(edit, dequantize, 2);
    const terse_value old = edit->graph->values[w];
    if (old.dtype == TERSE_INT8 && zero < 0)
        return;
    const int64_t n = terse_dims_count(old.dims, old.rank);
    TERSE_AUTO(terse_freep) int16_t *numbers = read_differences(edit, dequantize, axis);
    if (!numbers) {
        edit->failed = true;
        return;
    }
    const int parts = max_parts(numbers, n);
    if (parts > 1) {
        split(edit, node, dequantize, axis, numbers, parts);
        return;
    }
    const int made = split_constant(edit, &old, numbers, 1, 0);
    if (made < 0)
        return;
    terse_edit_set_input(edit, dequantize, 0, made);
    if (zero >= 0) {
        terse_edit_set_input(edit, dequantize, 2, TERSE_NO_VALUE);
        edit->graph->nodes[dequantize].n_inputs = 2;
    }
}

int terse_unsign_weights(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    const int n_nodes = graph->n_nodes, n_values = graph->n_values;
    int *weight_uses = terse_unsign_weight_uses(&edit);
    edit.failed = !weight_uses;
    for (int node = 0; node < n_nodes && !edit.failed; node++)
        if (graph->nodes[node].op == TERSE_OP_TRANSPOSE)
            pull_transpose(&edit, node);
        else if (is_product(graph->nodes[node].op))
            normalize(&edit, weight_uses, n_values, node);
    free(weight_uses);
    return terse_edit_close(&edit, error);
}
