/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that move elements: where the channels lie behind them. */
#include <string.h>

#include "compress/prune/couple_parts.h"

/* --- shapes ------------------------------------------------------------------------------------------------------- */

/* Elements behind an axis; symbols count as the same on both sides only where whole tails are equal. */
static int64_t behind(const terse_value *v, int axis, int end)
{
    return terse_dims_count(v->dims + axis + 1, end - axis - 1);
}

int terse_couple_reshaped(const terse_value *from, int axis, const terse_value *to, int64_t *ret_each)
{
    int a_end = from->rank, b_end = to->rank;
    while (a_end > axis + 1 && b_end > 0 && from->dims[a_end - 1] == to->dims[b_end - 1]) {
        a_end--;
        b_end--;
    }
    const int64_t inner = behind(from, axis, a_end), n = from->dims[axis];
    for (int b = b_end - 1; b >= 0 && inner > 0; b--) {
        const int64_t here = behind(to, b, b_end), size = to->dims[b];
        if (here < 0 || size < 1 || here > inner)
            return -1;
        if (inner % here != 0)
            continue;
        const int64_t each = inner / here;
        if (size % (n * each) == 0 || (each == 1 && size > 1 && n % size == 0)) {
            *ret_each = each;
            return b;
        }
    }
    return -1;
}

static void reshape(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int x = n->inputs[0], y = n->outputs[0];
    int64_t each, ints[2 * TERSE_MAX_RANK];
    int count = 0;
    /* all that says the shape must be known, and Squeeze name its axes: what is cut to 1 is not to vanish */
    const bool known = n->op == TERSE_OP_FLATTEN || couple_input_ints(c, node, 1, ints, &count);
    const int axis = !known || y < 0 || couple_value(c, y)->rank < 1
                         ? -1
                         : terse_couple_reshaped(couple_value(c, x), c->values[x].axis, couple_value(c, y), &each);
    const terse_channels from = c->values[x];
    int32_t *labels = axis < 0 ? NULL : couple_give(c, y, axis);
    if (!labels) {
        couple_pin_inputs(c, node, "which moves them to where they cannot be told apart");
        return;
    }
    const int64_t size = c->values[y].n;
    for (int64_t i = 0; i < size; i++)
        labels[i] = from.labels[i / each % from.n];
    for (int64_t i = size; i < from.n; i++) /* shorter: a channel of each part, and those tied */
        terse_couple_unite(c, labels[i % size], from.labels[i]);
}

static void transpose(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int axis = c->values[n->inputs[0]].axis, rank = couple_value(c, n->inputs[0])->rank;
    const terse_attr *perm = terse_node_attr(n, "perm");
    int to = perm ? -1 : rank - 1 - axis;
    for (int i = 0; perm && perm->kind == TERSE_ATTR_INTS && i < perm->n; i++)
        if (perm->ints[i] == axis)
            to = i;
    couple_hand_on(c, node, 0, to);
}

static void depth_to_space(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const terse_channels from = c->values[n->inputs[0]];
    const int64_t block = terse_node_int(n, "blocksize", 0);
    const bool crd = strcmp(terse_node_text(n, "mode", "DCR"), "CRD") == 0;
    const int y = n->outputs[0];
    if (y < 0 || from.axis != 1 || block < 1 || block > 64 || from.n % (block * block) != 0 ||
        couple_value(c, y)->dims[1] != from.n / (block * block)) {
        couple_pin_inputs(c, node, COUPLE_MIXES);
        return;
    }
    int32_t *labels = couple_give(c, y, 1);
    const int64_t size = from.n / (block * block);
    for (int64_t i = 0; labels && i < size; i++)
        labels[i] = from.labels[crd ? i * block * block : i];
    for (int64_t i = 0; labels && i < from.n; i++)
        terse_couple_unite(c, labels[crd ? i / (block * block) : i % size], from.labels[i]);
}

static void reduce(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int axis = c->values[n->inputs[0]].axis, rank = couple_value(c, n->inputs[0])->rank;
    int64_t axes[2 * TERSE_MAX_RANK];
    int count = 0, before = 0;
    bool good = couple_input_ints(c, node, 1, axes, &count) && count > 0;
    for (int i = 0; i < count && good; i++) {
        const int64_t at = axes[i] < 0 ? axes[i] + rank : axes[i];
        good = at != axis;
        before += at < axis;
    }
    if (good)
        couple_hand_on(c, node, 0, terse_node_int(n, "keepdims", 1) ? axis : axis - before);
    else
        couple_pin_inputs(c, node, COUPLE_MIXES);
}

/* --- Concat and Split --------------------------------------------------------------------------------------------- */

/* A part of the channels that nothing is known of: they stay. */
static void label_unknown(terse_couple *c, int node, int value, int32_t *labels, int64_t n)
{
    const int32_t first = terse_couple_new(c, n);
    if (first < 0)
        return;
    for (int64_t i = 0; i < n; i++)
        labels[i] = first + (int32_t)i;
    const terse_channels was = c->values[value];
    c->values[value] = (terse_channels){0, n, labels};
    terse_couple_pin_value(c, value, "coupled to other numbers in %s '%.40s'",
                           terse_op_name(c->edit->graph->nodes[node].op), c->edit->graph->nodes[node].name);
    c->values[value] = was;
}

static void concat_channels(terse_couple *c, int node, int axis)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    int64_t total = 0;
    for (int i = 0; i < n->n_inputs; i++) {
        const int64_t size = n->inputs[i] < 0 ? -1 : couple_value(c, n->inputs[i])->dims[axis];
        if (size < 0) {
            couple_pin_inputs(c, node, COUPLE_MIXES);
            return;
        }
        total += size;
    }
    int32_t *labels = couple_value(c, n->outputs[0])->dims[axis] == total ? couple_give(c, n->outputs[0], axis) : NULL;
    if (!labels) {
        couple_pin_inputs(c, node, COUPLE_MIXES);
        return;
    }
    for (int i = 0; i < n->n_inputs; i++) {
        const int64_t size = couple_value(c, n->inputs[i])->dims[axis];
        if (couple_is_tracked(c, n->inputs[i]))
            memcpy(labels, c->values[n->inputs[i]].labels, (size_t)size * sizeof *labels);
        else if (size > 0)
            label_unknown(c, node, n->inputs[i], labels, size);
        labels += size;
    }
}

static void concat(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int y = n->outputs[0];
    int channels = -1;
    bool same = y >= 0, all = true;
    for (int i = 0; i < n->n_inputs; i++) {
        if (!couple_is_tracked(c, n->inputs[i])) {
            all = all && n->inputs[i] >= 0 && !couple_is_activation(c, n->inputs[i]);
            continue;
        }
        same = same && (channels < 0 || channels == c->values[n->inputs[i]].axis);
        channels = c->values[n->inputs[i]].axis;
    }
    const int axis = y < 0 ? -1 : terse_edit_axis(c->edit, node, "axis", 0, couple_value(c, y)->rank);
    if (!same || axis < 0 || (axis != channels && !all)) {
        couple_pin_inputs(c, node, "whose parts have channels along different axes");
        return;
    }
    if (axis == channels)
        concat_channels(c, node, axis);
    else
        couple_elementwise(c, node); /* all parts have the same channels; constants along them are cut */
}

static void split(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const terse_channels from = c->values[n->inputs[0]];
    const int axis = terse_edit_axis(c->edit, node, "axis", 0, couple_value(c, n->inputs[0])->rank);
    int64_t sum = 0;
    for (int i = 0; i < n->n_outputs; i++) {
        const int64_t size = n->outputs[i] < 0 || axis < 0 ? -1 : couple_value(c, n->outputs[i])->dims[axis];
        sum = size < 1 || sum < 0 ? -1 : sum + size;
    }
    if (axis >= 0 && axis != from.axis) {
        for (int i = 0; i < n->n_outputs; i++)
            couple_hand_on(c, node, i, from.axis);
        return;
    }
    if (axis < 0 || sum != from.n) {
        couple_pin_inputs(c, node, COUPLE_MIXES);
        return;
    }
    const int32_t *labels = from.labels;
    for (int i = 0; i < n->n_outputs; i++) {
        int32_t *to = couple_give(c, n->outputs[i], axis);
        if (!to)
            return;
        memcpy(to, labels, (size_t)c->values[n->outputs[i]].n * sizeof *to);
        labels += c->values[n->outputs[i]].n;
    }
}

/* --- edges and sizes ---------------------------------------------------------------------------------------------- */

/* Channels of zeros before or behind the others stay, as many as they were. */
static void pad_channels(terse_couple *c, int node, int64_t before, int64_t behind_them)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const terse_channels from = c->values[n->inputs[0]];
    const int y = n->outputs[0];
    const bool zeros = strcmp(terse_node_text(n, "mode", "constant"), "constant") == 0;
    if (y < 0 || !zeros || before < 0 || behind_them < 0 ||
        couple_value(c, y)->dims[from.axis] != before + from.n + behind_them) {
        couple_pin_inputs(c, node, "which repeats or cuts channels");
        return;
    }
    int32_t *labels = couple_give(c, y, from.axis);
    if (!labels)
        return;
    if (before > 0)
        label_unknown(c, node, y, labels, before);
    memcpy(labels + before, from.labels, (size_t)from.n * sizeof *labels);
    if (behind_them > 0)
        label_unknown(c, node, y, labels + before + from.n, behind_them);
}

static void pad(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int axis = c->values[n->inputs[0]].axis, rank = couple_value(c, n->inputs[0])->rank;
    int64_t pads[2 * TERSE_MAX_RANK];
    int count;
    if (terse_edit_input(c->edit, node, 3) >= 0 || !couple_input_ints(c, node, 1, pads, &count) || count != 2 * rank)
        couple_pin_inputs(c, node, "which pads by what is not constant");
    else if (pads[axis] == 0 && pads[axis + rank] == 0)
        couple_hand_on(c, node, 0, axis);
    else
        pad_channels(c, node, pads[axis], pads[axis + rank]);
}

static void take_slice(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int axis = c->values[n->inputs[0]].axis, rank = couple_value(c, n->inputs[0])->rank;
    int64_t axes[2 * TERSE_MAX_RANK];
    int count;
    bool good = couple_input_ints(c, node, 3, axes, &count);
    for (int i = 0; i < count && good; i++)
        good = (axes[i] < 0 ? axes[i] + rank : axes[i]) != axis;
    if (good)
        couple_hand_on(c, node, 0, axis);
    else
        couple_pin_inputs(c, node, "which takes some of the channels");
}

static void resize(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int axis = c->values[n->inputs[0]].axis;
    const int scales = terse_edit_input(c->edit, node, 2), sizes = terse_edit_input(c->edit, node, 3);
    const float *scale = scales < 0 ? NULL : terse_edit_floats(c->edit, scales);
    const bool good = scale && couple_value(c, scales)->rank == 1 && couple_value(c, scales)->dims[0] > axis &&
                      scale[axis] == 1.0f && !terse_node_attr(n, "axes") &&
                      (sizes < 0 || couple_value(c, sizes)->bytes == 0);
    if (good)
        couple_hand_on(c, node, 0, axis);
    else
        couple_pin_inputs(c, node, "which is told sizes, not scales");
}

bool couple_move(terse_couple *c, int node)
{
    switch (c->edit->graph->nodes[node].op) {
    case TERSE_OP_RESHAPE:
    case TERSE_OP_FLATTEN:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
        reshape(c, node);
        return true;
    case TERSE_OP_TRANSPOSE:
        transpose(c, node);
        return true;
    case TERSE_OP_DEPTH_TO_SPACE:
        depth_to_space(c, node);
        return true;
    case TERSE_OP_REDUCE_MEAN:
    case TERSE_OP_REDUCE_SUM:
    case TERSE_OP_REDUCE_MAX:
        reduce(c, node);
        return true;
    case TERSE_OP_CONCAT:
        concat(c, node);
        return true;
    case TERSE_OP_SPLIT:
        split(c, node);
        return true;
    case TERSE_OP_PAD:
        pad(c, node);
        return true;
    case TERSE_OP_SLICE:
        take_slice(c, node);
        return true;
    case TERSE_OP_RESIZE:
        resize(c, node);
        return true;
    default:
        return false;
    }
}
