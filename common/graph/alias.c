/* SPDX-License-Identifier: Apache-2.0 */
/* alias.c: which values share bytes, so that Concat, Split, Slice, Reshape and elementwise operators move nothing.
 *
 * A place is (group, offset, row stride). Groups of concats are made walking backwards, so that the outermost concat
 * hands out the places of its inputs, they those of theirs, and every producer writes where its value ends up. All else
 * is decided walking forwards. A value whose place has more than one row and a stride wider than its rows is
 * "strided"; it arises only where its maker and all its readers can deal with that.
 *
 * What keeps shared bytes right: a group ends with the last use of any of its members, and something is overwritten (in
 * place) only by the node at which its group ends. */
#include <stdlib.h>
#include <string.h>

#include "common/graph/plan.h"

static int64_t rows_of(const terse_tensor *tensor)
{
    return tensor->rank ? terse_dims_count(tensor->dims, tensor->rank - 1) : 1;
}

static bool strided(const terse_tensor *shape, const terse_place *place)
{
    return shape->rank > 0 && place->row_stride != shape->dims[shape->rank - 1];
}

int terse_alias_group(terse_workspace *work, terse_group_kind kind, size_t size)
{
    work->groups[work->n_groups] =
        (terse_group){.kind = kind, .output = -1, .start = INT32_MAX, .end = -1, .size = size};
    return work->n_groups++;
}

void terse_alias_put(terse_workspace *work, int value, terse_place place)
{
    terse_group *group = &work->groups[place.group];
    work->places[value] = place;
    if (group->end < work->last_use[value])
        group->end = work->last_use[value];
}

/* Only along the last axis, or along one before which all axes are 1, is a part a place of its own. */
static bool axis_splits(const terse_tensor *whole, int axis)
{
    return axis >= 0 && axis < whole->rank && (axis == whole->rank - 1 || terse_dims_count(whole->dims, axis) == 1);
}

bool terse_alias_part(const terse_tensor *whole, terse_place place, const terse_tensor *part, int axis, int64_t before,
                      terse_place *ret_place)
{
    if (!axis_splits(whole, axis))
        return false;
    const int64_t size = (int64_t)terse_dtype_size(whole->dtype);
    const int last = whole->rank - 1;
    const int64_t skipped =
        axis == last ? before : before * terse_dims_count(whole->dims + axis + 1, last - axis - 1) * place.row_stride;
    place.offset += (size_t)(skipped * size);
    if (rows_of(part) <= 1)
        place.row_stride = part->dims[last];
    *ret_place = place;
    return true;
}

bool terse_alias_is_part(const terse_tensor *whole, terse_place place, const terse_tensor *part, int axis,
                         int64_t before, const terse_place *found)
{
    terse_place wanted;
    return found->group == place.group && terse_alias_part(whole, place, part, axis, before, &wanted) &&
           found->offset == wanted.offset;
}

int terse_alias_axis(const terse_node *node, int rank)
{
    const int64_t axis = terse_node_int(node, "axis", 0);
    if (axis < -rank || axis >= rank)
        return -1;
    return (int)(axis < 0 ? axis + rank : axis);
}

/* Concat and Split: the engine's own copy of rows obeys strides on both sides. */
static bool copies_rows(const terse_engine *engine, const terse_plan *plan, int n)
{
    const terse_node *node = &engine->graph->nodes[n];
    const terse_tensor *whole = node->op == TERSE_OP_CONCAT  ? plan->values[node->outputs[0]]
                                : node->op == TERSE_OP_SPLIT ? plan->values[node->inputs[0]]
                                                             : NULL;
    return whole && axis_splits(whole, terse_alias_axis(node, whole->rank));
}

/* A value with very many readers stays dense: the walk would be repeated for each of them. */
enum { MAX_READERS = 256 };

static bool readers_take_strides(const terse_engine *engine, const terse_plan *plan, int value)
{
    if (engine->use_start[value + 1] - engine->use_start[value] > MAX_READERS)
        return false;
    for (int i = engine->use_start[value]; i < engine->use_start[value + 1]; i++) {
        const int n = engine->uses[i];
        if (engine->work.state[n] != TERSE_NODE_KNOWN && !(engine->impls[n]->flags & TERSE_OP_STRIDED_INPUTS) &&
            !copies_rows(engine, plan, n))
            return false;
    }
    return true;
}

static bool maker_takes_strides(const terse_engine *engine, const terse_plan *plan, int value)
{
    const int n = engine->maker[value];
    return copies_rows(engine, plan, n) ||
           ((engine->impls[n]->flags & TERSE_OP_STRIDED_OUTPUT) && engine->graph->nodes[n].outputs[0] == value);
}

/* A value whose maker can be told where to write. Outputs of the graph are written into the caller's buffers. */
static bool movable(const terse_engine *engine, const terse_plan *plan, int value)
{
    const int n = engine->maker[value];
    return n >= 0 && engine->work.state[n] == TERSE_NODE_RUN && !plan->values[value]->data &&
           !engine->is_output[value] && engine->work.places[value].group < 0;
}

void terse_alias_concat(terse_engine *engine, const terse_plan *plan, int n)
{
    terse_workspace *work = &engine->work;
    const terse_node *node = &engine->graph->nodes[n];
    const int y = node->outputs[0];
    const terse_tensor *whole = plan->values[y];
    const int axis = terse_alias_axis(node, whole->rank);
    if (!axis_splits(whole, axis))
        return;
    if (work->places[y].group < 0) {
        const int group = terse_alias_group(work, TERSE_GROUP_ARENA, (size_t)terse_tensor_bytes(whole));
        terse_alias_put(work, y, (terse_place){.group = group, .row_stride = whole->row_stride});
    }
    int64_t before = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        const int x = node->inputs[i];
        if (x < 0)
            continue;
        const terse_tensor *part = plan->values[x];
        terse_place place;
        if (movable(engine, plan, x) && terse_tensor_count(part) > 0 &&
            terse_alias_part(whole, work->places[y], part, axis, before, &place) &&
            (!strided(part, &place) || (maker_takes_strides(engine, plan, x) && readers_take_strides(engine, plan, x))))
            terse_alias_put(work, x, place);
        before += part->dims[axis];
    }
}

/* Transposing around axes of size 1 moves nothing. */
static bool keeps_order(const terse_node *node, const terse_tensor *input)
{
    const terse_attr *perm = terse_node_attr(node, "perm");
    if (!perm || perm->kind != TERSE_ATTR_INTS || perm->n != input->rank)
        return false;
    int64_t previous = -1;
    for (int i = 0; i < perm->n; i++) {
        if (perm->ints[i] < 0 || perm->ints[i] >= input->rank)
            return false;
        if (input->dims[perm->ints[i]] == 1)
            continue;
        if (perm->ints[i] < previous)
            return false;
        previous = perm->ints[i];
    }
    return true;
}

static bool is_view(const terse_engine *engine, const terse_plan *plan, int n)
{
    const terse_node *node = &engine->graph->nodes[n];
    if (node->n_inputs < 1 || node->n_outputs != 1 || node->inputs[0] < 0)
        return false;
    const terse_tensor *in = plan->values[node->inputs[0]], *out = plan->values[node->outputs[0]];
    if (in->layout != TERSE_LAYOUT_PLAIN || in->dtype != out->dtype ||
        terse_tensor_count(in) != terse_tensor_count(out))
        return false;
    switch (node->op) {
    case TERSE_OP_TRANSPOSE:
        return keeps_order(node, in);
    case TERSE_OP_CAST:
    case TERSE_OP_EXPAND:
    case TERSE_OP_TILE:
        return true; /* the same type, or as many elements: nothing to do */
    default:
        return engine->impls[n]->flags & TERSE_OP_VIEW;
    }
}

void terse_alias_view_back(terse_engine *engine, const terse_plan *plan, int n)
{
    terse_workspace *work = &engine->work;
    const terse_node *node = &engine->graph->nodes[n];
    if (!is_view(engine, plan, n))
        return;
    const int in = node->inputs[0], out = node->outputs[0];
    terse_place place = work->places[out];
    if (place.group < 0 || strided(plan->values[out], &place) || !movable(engine, plan, in))
        return;
    place.row_stride = plan->values[in]->row_stride;
    terse_alias_put(work, in, place);
}

/* The place of something that a node reads; constants and known values get one when first asked for. */
static terse_place place_of(terse_workspace *work, const terse_plan *plan, int value)
{
    if (work->places[value].group < 0 && plan->values[value]->data) {
        const int group = terse_alias_group(work, TERSE_GROUP_FIXED, 0);
        work->groups[group].fixed = plan->values[value]->data;
        work->places[value] = (terse_place){.group = group, .row_stride = plan->values[value]->row_stride};
    }
    return work->places[value];
}

bool terse_alias_view(terse_engine *engine, const terse_plan *plan, int n)
{
    terse_workspace *work = &engine->work;
    const terse_node *node = &engine->graph->nodes[n];
    if (!is_view(engine, plan, n))
        return false;
    const int in = node->inputs[0], out = node->outputs[0];
    terse_place place = place_of(work, plan, in);
    const terse_place there = work->places[out];
    if (strided(plan->values[in], &place) || (there.group >= 0 && strided(plan->values[out], &there)))
        return false;
    work->state[n] = TERSE_NODE_ALIAS;
    if (there.group < 0) {
        place.row_stride = plan->values[out]->row_stride;
        terse_alias_put(work, out, place);
    } else if (there.group != place.group || there.offset != place.offset) {
        work->state[n] = TERSE_NODE_COPY;
    }
    return true;
}

void terse_alias_joined(terse_engine *engine, const terse_plan *plan, int n)
{
    terse_workspace *work = &engine->work;
    const terse_node *node = &engine->graph->nodes[n];
    const terse_tensor *whole = plan->values[node->outputs[0]];
    const int axis = terse_alias_axis(node, whole->rank);
    const terse_place there = work->places[node->outputs[0]];
    if (there.group < 0 || !axis_splits(whole, axis))
        return;
    int n_copied = 0, n_aliased = 0;
    bool any_strided = strided(whole, &there);
    int64_t before = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        const int x = node->inputs[i];
        if (x < 0)
            continue;
        const terse_tensor *part = plan->values[x];
        const terse_place *place = &work->places[x];
        if (terse_tensor_count(part) > 0) {
            const bool alias = terse_alias_is_part(whole, there, part, axis, before, place);
            n_aliased += alias;
            n_copied += !alias;
            any_strided = any_strided || (place->group >= 0 && strided(part, place));
        }
        before += part->dims[axis];
    }
    if (n_copied == 0)
        work->state[n] = TERSE_NODE_ALIAS;
    else if (n_aliased > 0 || any_strided)
        work->state[n] = TERSE_NODE_COPY;
}

/* Whether input `index` of node n may be overwritten by its first output. */
static bool may_overwrite(const terse_engine *engine, const terse_plan *plan, int n, int index)
{
    const terse_workspace *work = &engine->work;
    const terse_node *node = &engine->graph->nodes[n];
    const int in = node->inputs[index];
    if (in < 0 || plan->values[in]->data)
        return false;
    const terse_tensor *from = plan->values[in], *to = plan->values[node->outputs[0]];
    const terse_place *place = &work->places[in];
    const terse_group *group = &work->groups[place->group];
    if (group->kind != TERSE_GROUP_ARENA || group->end != n || strided(from, place) ||
        terse_tensor_bytes(from) != terse_tensor_bytes(to))
        return false;
    if ((engine->impls[n]->flags & TERSE_OP_IN_PLACE_ANY) &&
        (from->dtype != to->dtype || from->rank != to->rank ||
         memcmp(from->dims, to->dims, (size_t)to->rank * sizeof *to->dims) != 0))
        return false;
    for (int i = 0; i < node->n_inputs; i++)
        if (i != index && node->inputs[i] >= 0 && !plan->values[node->inputs[i]]->data &&
            work->places[node->inputs[i]].group == place->group)
            return false;
    return true;
}

bool terse_alias_in_place(terse_engine *engine, const terse_plan *plan, int n)
{
    terse_workspace *work = &engine->work;
    const terse_node *node = &engine->graph->nodes[n];
    const unsigned flags = engine->impls[n]->flags;
    const int out = node->outputs[0];
    if (out < 0 || work->last_use[out] < 0 || work->places[out].group >= 0)
        return false;
    for (int i = 0; i < node->n_inputs; i++)
        if (((flags & TERSE_OP_IN_PLACE_ANY) || ((flags & TERSE_OP_IN_PLACE) && i == 0) ||
             ((flags & TERSE_OP_IN_PLACE_RESIDUAL) && i == 3) || ((flags & TERSE_OP_IN_PLACE_FOURTH) && i == 4)) &&
            may_overwrite(engine, plan, n, i)) {
            terse_place place = work->places[node->inputs[i]];
            place.row_stride = plan->values[out]->row_stride;
            terse_alias_put(work, out, place);
            return true;
        }
    return false;
}

/* Slice with steps of 1 along one axis: the axis and where the part starts. */
static bool slice_part(const terse_node *node, const terse_plan *plan, int *ret_axis, int64_t *ret_start)
{
    const terse_tensor *in = plan->values[node->inputs[0]], *out = plan->values[node->outputs[0]];
    const terse_tensor *operands[5] = {0}; /* 1 starts, 3 axes, 4 steps */
    for (int i = 1; i < node->n_inputs && i < 5; i++) {
        operands[i] = node->inputs[i] < 0 ? NULL : plan->values[node->inputs[i]];
        if (operands[i] && (!operands[i]->data || operands[i]->dtype != TERSE_INT64))
            return false;
    }
    const int64_t n = operands[1] ? terse_tensor_count(operands[1]) : 0;
    int axis = -1;
    int64_t start = 0;
    if ((operands[3] && terse_tensor_count(operands[3]) != n) || (operands[4] && terse_tensor_count(operands[4]) != n))
        return false;
    for (int64_t i = 0; i < n; i++) {
        int64_t a = operands[3] ? ((const int64_t *)operands[3]->data)[i] : i;
        a += a < 0 ? in->rank : 0;
        if (a < 0 || a >= in->rank || (operands[4] && ((const int64_t *)operands[4]->data)[i] != 1))
            return false;
        if (in->dims[a] == out->dims[a])
            continue;
        if (axis >= 0)
            return false;
        axis = (int)a;
        start = ((const int64_t *)operands[1]->data)[i];
        start += start < 0 ? in->dims[a] : 0;
    }
    if (axis < 0 || start < 0 || start > in->dims[axis] - out->dims[axis])
        return false;
    *ret_axis = axis;
    *ret_start = start;
    return true;
}

void terse_alias_parts(terse_engine *engine, const terse_plan *plan, int n)
{
    terse_workspace *work = &engine->work;
    const terse_node *node = &engine->graph->nodes[n];
    const int x = node->inputs[0];
    const terse_tensor *whole = plan->values[x];
    int axis = terse_alias_axis(node, whole->rank), n_copied = 0, n_aliased = 0;
    int64_t before = 0;
    if (node->op == TERSE_OP_SLICE && !slice_part(node, plan, &axis, &before))
        return;
    if (axis < 0)
        return;
    const terse_place from = place_of(work, plan, x);
    bool any_strided = strided(whole, &from);
    for (int i = 0; i < node->n_outputs; i++) {
        const int y = node->outputs[i];
        const terse_tensor *part = &work->made[n][i];
        terse_place place;
        if (y >= 0 && work->last_use[y] >= 0 && terse_tensor_count(part) > 0) {
            const bool alias = work->places[y].group < 0 && !engine->is_output[y] &&
                               terse_alias_part(whole, from, part, axis, before, &place) &&
                               (!strided(part, &place) || readers_take_strides(engine, plan, y));
            if (alias)
                terse_alias_put(work, y, place);
            n_aliased += alias;
            n_copied += !alias;
            any_strided = any_strided || (work->places[y].group >= 0 && !alias && strided(part, &work->places[y]));
        }
        before += node->op == TERSE_OP_SPLIT ? part->dims[axis] : 0;
    }
    if (n_copied == 0)
        work->state[n] = TERSE_NODE_ALIAS;
    else if (node->op == TERSE_OP_SPLIT && (n_aliased > 0 || any_strided) && axis_splits(whole, axis))
        work->state[n] = TERSE_NODE_COPY;
}
