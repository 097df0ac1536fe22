/* SPDX-License-Identifier: Apache-2.0 */
/* What each operator does to channels. A rule either says where the labels of the inputs are found in the outputs, or
 * pins them: an operator without a rule is one that may mix them. Constants that run along the channels need no labels:
 * cut.c finds them by the same alignment. */
#include <string.h>

#include "compress/prune/couple_parts.h"

void couple_pin_inputs(terse_couple *c, int node, const char *why)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    for (int i = 0; i < n->n_inputs; i++)
        if (couple_is_tracked(c, n->inputs[i]))
            terse_couple_pin_value(c, n->inputs[i], "read by %s '%.40s', %s", terse_op_name(n->op), n->name, why);
}

int32_t *couple_give(terse_couple *c, int value, int axis)
{
    const terse_value *v = couple_value(c, value);
    if (axis < 0 || axis >= v->rank || v->dims[axis] < 1)
        return NULL;
    int32_t *labels = terse_arena_alloc(c->arena, (size_t)v->dims[axis] * sizeof *labels);
    c->failed = c->failed || !labels;
    if (labels)
        c->values[value] = (terse_channels){axis, v->dims[axis], labels};
    return labels;
}

void couple_hand_on(terse_couple *c, int node, int output, int axis)
{
    const terse_channels from = c->values[c->edit->graph->nodes[node].inputs[0]];
    const int y = c->edit->graph->nodes[node].outputs[output];
    if (y < 0)
        return;
    if (axis < 0 || axis >= couple_value(c, y)->rank || couple_value(c, y)->dims[axis] != from.n) {
        couple_pin_inputs(c, node, COUPLE_MIXES);
        return;
    }
    int32_t *labels = couple_give(c, y, axis);
    if (labels)
        memcpy(labels, from.labels, (size_t)from.n * sizeof *labels);
}

bool couple_input_ints(const terse_couple *c, int node, int slot, int64_t *values, int *ret_n)
{
    const int value = terse_edit_input(c->edit, node, slot);
    const int n = value < 0 ? -1 : terse_edit_ints(c->edit, value, values, 2 * TERSE_MAX_RANK);
    *ret_n = n;
    return n >= 0;
}

/* --- element by element ------------------------------------------------------------------------------------------- */

/* The axis of the output that all inputs with channels share, -1: they do not. */
static int common_axis(const terse_couple *c, const terse_node *n, const terse_value *y)
{
    int axis = -1;
    for (int i = 0; i < n->n_inputs; i++) {
        if (!couple_is_tracked(c, n->inputs[i]))
            continue;
        const terse_channels *from = &c->values[n->inputs[i]];
        const int here = from->axis + y->rank - couple_value(c, n->inputs[i])->rank;
        if (here < 0 || here >= y->rank || (from->n == 1 && y->dims[here] != 1))
            continue; /* a number for all channels */
        if (y->dims[here] != from->n || (axis >= 0 && axis != here))
            return -1;
        axis = here;
    }
    return axis;
}

/* Does the input have nothing, or one for all, along the output's axis? */
static bool is_broadcast(const terse_value *x, const terse_value *y, int axis)
{
    const int here = axis - (y->rank - x->rank);
    return here < 0 || (x->rank > here && x->dims[here] == 1 && y->dims[axis] != 1);
}

void couple_elementwise(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int out = n->outputs[0];
    if (out < 0)
        return;
    const terse_value *y = couple_value(c, out);
    const int axis = y->rank < 0 ? -1 : common_axis(c, n, y);
    bool good = axis >= 0;
    for (int i = 0; i < n->n_inputs && good; i++)
        if (couple_is_activation(c, n->inputs[i]) && !is_broadcast(couple_value(c, n->inputs[i]), y, axis))
            good = couple_is_tracked(c, n->inputs[i]); /* else something unknown meets the channels */
    if (!good) {
        couple_pin_inputs(c, node, "whose operands have channels along different axes");
        return;
    }
    int32_t *labels = couple_give(c, out, axis);
    bool first = true;
    for (int i = 0; i < n->n_inputs && labels; i++) {
        if (!couple_is_tracked(c, n->inputs[i]))
            continue;
        const terse_channels *from = &c->values[n->inputs[i]];
        if (is_broadcast(couple_value(c, n->inputs[i]), y, axis)) {
            terse_couple_pin_value(c, n->inputs[i], "read by %s '%.40s' for all channels", terse_op_name(n->op),
                                   n->name);
            continue;
        }
        for (int64_t j = 0; j < from->n; j++)
            if (first)
                labels[j] = from->labels[j];
            else
                terse_couple_unite(c, labels[j], from->labels[j]);
        first = false;
    }
}

/* --- products ----------------------------------------------------------------------------------------------------- */

/* What is added to a product's output, residual or bias, has labels of it; what is not understood pins it. */
static void add_to_output(terse_couple *c, int node, int slot)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int other = terse_edit_input(c->edit, node, slot), y = n->outputs[0];
    if (!couple_is_activation(c, other))
        return;
    if (!couple_is_tracked(c, y)) {
        terse_couple_pin_value(c, other, "added to '%.40s', whose channels are not known", n->name);
        return;
    }
    const terse_channels *a = &c->values[y], *b = &c->values[other];
    const int shift = couple_value(c, y)->rank - couple_value(c, other)->rank;
    if (b->axis < 0 || b->axis + shift != a->axis || b->n != a->n) {
        terse_couple_pin_value(c, other, "added to '%.40s' along another axis", n->name);
        terse_couple_pin_value(c, y, "added to something whose channels are not known, in '%.40s'", n->name);
        return;
    }
    for (int64_t i = 0; i < a->n; i++)
        terse_couple_unite(c, a->labels[i], b->labels[i]);
}

/* Channels of all groups go together, so that groups stay equal. */
static void tie_groups(terse_couple *c, const terse_channels *channels, int64_t groups)
{
    const int64_t each = channels->n / groups;
    for (int64_t i = each; i < channels->n; i++)
        terse_couple_unite(c, channels->labels[i % each], channels->labels[i]);
}

static void depthwise(terse_couple *c, int node, const terse_couple_role *role)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const terse_channels *from = &c->values[n->inputs[0]];
    const terse_value *y = couple_value(c, n->outputs[0]);
    if (!couple_is_tracked(c, n->inputs[0]) || from->axis != 1 || from->n != role->groups ||
        y->dims[1] % from->n != 0) {
        couple_pin_inputs(c, node, COUPLE_MIXES);
        return;
    }
    int32_t *labels = couple_give(c, n->outputs[0], 1);
    const int64_t each = y->dims[1] / from->n;
    for (int64_t i = 0; labels && i < y->dims[1]; i++)
        labels[i] = from->labels[i / each];
}

static void product(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    terse_couple_role role;
    const int x = n->inputs[0], y = n->outputs[0];
    const bool conv = n->op == TERSE_OP_CONV || n->op == TERSE_OP_CONV_TRANSPOSE;
    if (y < 0 || !terse_couple_role_of(c->edit, node, &role)) {
        couple_pin_inputs(c, node,
                          n->op == TERSE_OP_CONV || n->op == TERSE_OP_GEMM || n->op == TERSE_OP_MATMUL
                              ? "whose weights are computed, or another layer's too"
                              : COUPLE_MIXES);
        return;
    }
    if (role.depthwise) {
        depthwise(c, node, &role);
    } else {
        const terse_value *w = couple_value(c, n->inputs[1]);
        const int64_t in = w->dims[role.in_axis] * (role.in_axis == 1 ? role.groups : 1);
        const int axis = conv ? 1 : couple_value(c, x)->rank - 1;
        if (couple_is_tracked(c, x) && (c->values[x].axis != axis || c->values[x].n != in))
            couple_pin_inputs(c, node, "which reads along another axis");
        else if (couple_is_tracked(c, x) && role.groups > 1)
            tie_groups(c, &c->values[x], role.groups);
        const int out_axis = conv ? 1 : couple_value(c, y)->rank - 1;
        const int64_t out = w->dims[role.out_axis];
        int32_t *labels = couple_value(c, y)->dims[out_axis] == out ? couple_give(c, y, out_axis) : NULL;
        const int32_t first = labels ? terse_couple_new(c, out / role.groups) : -1;
        for (int64_t i = 0; first >= 0 && i < out; i++)
            labels[i] = first + (int32_t)(i % (out / role.groups));
    }
    add_to_output(c, node, 2);
    add_to_output(c, node, 3);
}

/* --- the others --------------------------------------------------------------------------------------------------- */

/* Softmax and layers that take the mean over axes from some axis on, or one. */
static void along(terse_couple *c, int node, int64_t fallback, bool to_the_end)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const int axis = c->values[n->inputs[0]].axis, rank = couple_value(c, n->inputs[0])->rank;
    const int at = terse_edit_axis(c->edit, node, "axis", fallback, rank);
    const bool coerced = terse_node_int(n, "coerce_2d", 0) != 0 || to_the_end;
    if (at < 0 || at == axis || (coerced && axis >= at))
        couple_pin_inputs(c, node, COUPLE_MIXES);
    else
        couple_hand_on(c, node, 0, axis);
}

/* Parameters per channel, all constant. */
static void per_channel(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    bool good = c->values[n->inputs[0]].axis == 1 && n->n_outputs == 1;
    for (int i = 1; i < n->n_inputs; i++)
        good = good && n->inputs[i] >= 0 && !couple_is_activation(c, n->inputs[i]);
    if (good)
        couple_hand_on(c, node, 0, 1);
    else
        couple_pin_inputs(c, node, "whose parameters are computed");
}

static void pool(terse_couple *c, int node)
{
    if (c->values[c->edit->graph->nodes[node].inputs[0]].axis == 1 && c->edit->graph->nodes[node].n_outputs == 1)
        couple_hand_on(c, node, 0, 1);
    else
        couple_pin_inputs(c, node, COUPLE_MIXES);
}

static void one_input(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    switch (n->op) {
    case TERSE_OP_MAX_POOL:
    case TERSE_OP_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_MAX_POOL:
        pool(c, node);
        return;
    case TERSE_OP_SOFTMAX:
    case TERSE_OP_LOG_SOFTMAX:
        along(c, node, -1, false);
        return;
    case TERSE_OP_LAYER_NORMALIZATION:
        along(c, node, -1, true);
        return;
    case TERSE_OP_BATCH_NORMALIZATION:
    case TERSE_OP_INSTANCE_NORMALIZATION:
        per_channel(c, node);
        return;
    case TERSE_OP_IDENTITY:
    case TERSE_OP_CAST:
        couple_elementwise(c, node);
        return;
    default:
        couple_pin_inputs(c, node, COUPLE_MIXES);
    }
}

static bool is_elementwise(terse_op op)
{
    switch (op) {
    case TERSE_OP_PRELU:
    case TERSE_OP_EQUAL:
    case TERSE_OP_LESS:
    case TERSE_OP_LESS_OR_EQUAL:
    case TERSE_OP_GREATER:
    case TERSE_OP_GREATER_OR_EQUAL:
    case TERSE_OP_AND:
    case TERSE_OP_OR:
    case TERSE_OP_WHERE:
    case TERSE_OP_NOT:
        return true;
    default:
        return terse_op_is_arithmetic(op);
    }
}

void terse_couple_node(terse_couple *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    bool any = false, others = false; /* has an input channels; one but the first */
    for (int i = 0; i < n->n_inputs; i++) {
        any = any || couple_is_tracked(c, n->inputs[i]);
        others = others || (i > 0 && couple_is_tracked(c, n->inputs[i]));
    }
    if (n->op == TERSE_OP_CONV || n->op == TERSE_OP_CONV_TRANSPOSE || n->op == TERSE_OP_GEMM ||
        n->op == TERSE_OP_MATMUL)
        product(c, node);
    else if (!any)
        return;
    else if (is_elementwise(n->op))
        couple_elementwise(c, node);
    else if (n->op == TERSE_OP_CONCAT)
        couple_move(c, node);
    else if (others || n->inputs[0] < 0)
        couple_pin_inputs(c, node, COUPLE_MIXES);
    else if (!couple_move(c, node))
        one_input(c, node);
}
