/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/batchable.h"

#include <stdlib.h>
#include <string.h>

enum { N_ONLY = 3 }; /* bindings 0, 1, 2 differ in N alone */

bool terse_onnx_find_each(const terse_onnx_lanes *lanes, int value, int axis, terse_onnx_split *split)
{
    for (int b = 0; b < lanes->probe->n_bindings; b++) {
        const int64_t rows = terse_onnx_lanes_n(lanes, b) * split->outer[b];
        const int64_t size = terse_onnx_lanes_view(lanes, b, value)->dims[axis];
        split->each[b] = rows > 0 ? size / rows : 0;
        if (split->each[b] < 1 || size % rows != 0 ||
            (b < N_ONLY && (split->each[b] != split->each[0] || split->outer[b] != split->outer[0])))
            return false;
    }
    return true;
}

bool terse_onnx_is_fixed(const int64_t *numbers, int n)
{
    for (int b = 1; b < n; b++)
        if (numbers[b] != numbers[0])
            return false;
    return true;
}

terse_onnx_split terse_onnx_one_each(void)
{
    terse_onnx_split split;
    for (int b = 0; b < TERSE_ONNX_BINDINGS; b++)
        split.outer[b] = split.each[b] = 1;
    return split;
}

bool terse_onnx_same_split(const terse_onnx_split *a, const terse_onnx_split *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* The axis has as many entries as the lane says, for every N. */
static bool follows_n(const terse_onnx_lanes *lanes, int value, const terse_onnx_lane *lane)
{
    terse_onnx_split found = lane->split;
    return terse_onnx_find_each(lanes, value, lane->axis, &found) && terse_onnx_same_split(&found, &lane->split);
}

static bool has_axis(terse_onnx_lane_kind kind)
{
    return kind >= TERSE_ONNX_ROWS;
}

static bool ignores_n(const terse_onnx_lanes *lanes, int value, int axis)
{
    for (int b = 1; b < N_ONLY; b++)
        if (terse_onnx_lanes_view(lanes, b, value)->dims[axis] != terse_onnx_lanes_view(lanes, 0, value)->dims[axis])
            return false;
    return true;
}

/* Whether the shapes that were seen are those of the lane. */
static bool shape_fits(const terse_onnx_lanes *lanes, int value, terse_onnx_lane lane)
{
    const int rank = terse_onnx_lanes_view(lanes, 0, value)->rank;
    for (int b = 0; b < lanes->probe->n_bindings; b++)
        if (terse_onnx_lanes_view(lanes, b, value)->dtype == TERSE_DTYPE_NONE ||
            terse_onnx_lanes_view(lanes, b, value)->rank != rank)
            return false;
    if (has_axis(lane.kind) && (lane.axis < 0 || lane.axis >= rank || !follows_n(lanes, value, &lane)))
        return false;
    for (int a = 0; a < rank; a++)
        if (!(has_axis(lane.kind) && a == lane.axis) && !ignores_n(lanes, value, a))
            return false;
    return true;
}

/* A list that was the same for three N is free of N: its elements are at most linear in N (count_rule sees to that). */
static bool same_elements(const terse_onnx_lanes *lanes, int value)
{
    const terse_tensor *first = terse_onnx_lanes_view(lanes, 0, value);
    for (int b = 0; b < N_ONLY; b++) {
        const terse_tensor *view = terse_onnx_lanes_view(lanes, b, value);
        if (!view->data || terse_tensor_bytes(view) != terse_tensor_bytes(first) ||
            memcmp(view->data, first->data, (size_t)terse_tensor_bytes(first)) != 0)
            return false;
    }
    return true;
}

static terse_onnx_lane_kind kind_of(const terse_onnx_lanes *lanes, const terse_node *node, int input)
{
    return terse_onnx_lane_of(lanes, node, input).kind;
}

/* The one axis along which a value made from a COUNT shape has entries for each row; FREE when none has. */
static bool spread(const terse_onnx_lanes *lanes, int value, terse_onnx_lane *ret_lane)
{
    const terse_tensor *view = terse_onnx_lanes_view(lanes, 0, value);
    *ret_lane = (terse_onnx_lane){.kind = TERSE_ONNX_FREE};
    for (int a = 0; a < view->rank; a++)
        if (!ignores_n(lanes, value, a)) {
            if (ret_lane->kind == TERSE_ONNX_ROWS)
                return false;
            *ret_lane = (terse_onnx_lane){.kind = TERSE_ONNX_ROWS, .axis = a, .split = terse_onnx_one_each()};
            if (!terse_onnx_find_each(lanes, value, a, &ret_lane->split) ||
                !terse_onnx_is_fixed(ret_lane->split.each, lanes->probe->n_bindings))
                return false;
        }
    return true;
}

static bool negative_everywhere(const terse_onnx_lanes *lanes, int value)
{
    const terse_value *v = &lanes->graph->values[value];
    if (!v->data || v->dtype != TERSE_INT64)
        return false;
    for (size_t i = 0; i < v->bytes / sizeof(int64_t); i++)
        if (((const int64_t *)v->data)[i] >= 0)
            return false;
    return true;
}

static bool is_dimension_list(const terse_onnx_lanes *lanes, int value)
{
    const terse_value *v = &lanes->graph->values[value];
    return v->data ? v->dtype == TERSE_INT64 : lanes->of[value].dimensions;
}

/* Made of Shape's results and constants by operators that only move elements. */
static bool makes_dimensions(const terse_onnx_lanes *lanes, const terse_node *node)
{
    switch (node->op) {
    case TERSE_OP_SHAPE:
        return true;
    case TERSE_OP_GATHER:
    case TERSE_OP_SLICE:
    case TERSE_OP_UNSQUEEZE:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_RESHAPE:
    case TERSE_OP_IDENTITY:
        return is_dimension_list(lanes, node->inputs[0]);
    case TERSE_OP_CONCAT:
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] < 0 || !is_dimension_list(lanes, node->inputs[i]))
                return false;
        return true;
    default:
        return false;
    }
}

/* Known integers of a value, as many as `like` has or one; NULL: they are not. */
static const int64_t *integers_like(const terse_tensor *view, const terse_tensor *like, int64_t *ret_step)
{
    const int64_t n = terse_tensor_count(view);
    *ret_step = n != 1;
    return view->dtype == TERSE_INT64 && view->data && (n == 1 || n == terse_tensor_count(like)) ? view->data : NULL;
}

/* A list that depends on N alone, and linearly, by a constant that divides it for two N that follow on each other: it
 * divides it for every N. */
static bool divides(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const terse_tensor *first = terse_onnx_lanes_view(lanes, 0, node->inputs[0]);
    const terse_tensor *next = terse_onnx_lanes_view(lanes, 1, node->inputs[0]);
    const int64_t n = terse_onnx_lanes_n(lanes, 0);
    int64_t step, step_by;
    const int64_t *a = integers_like(first, first, &step), *b = integers_like(next, first, &step);
    const int64_t *by = integers_like(terse_onnx_lanes_view(lanes, 0, node->inputs[1]), first, &step_by);
    if (!a || !b || !by || terse_onnx_lanes_n(lanes, 1) != n + 1)
        return false;
    for (int k = 0; k < lanes->probe->n_bindings; k++) {
        int64_t ignored;
        const int64_t *x = integers_like(terse_onnx_lanes_view(lanes, k, node->inputs[0]), first, &ignored);
        const int64_t *d = integers_like(terse_onnx_lanes_view(lanes, k, node->inputs[1]), first, &ignored);
        const int64_t more = terse_onnx_lanes_n(lanes, k) - n;
        if (!x || !d || ignored != step_by)
            return false;
        for (int64_t i = 0; i < terse_tensor_count(first); i++) {
            const int64_t divisor = by[i * step_by];
            if (divisor == 0 || d[i * step_by] != divisor || x[i] != a[i] + (b[i] - a[i]) * more || x[i] % divisor != 0)
                return false;
        }
    }
    return true;
}

/* start + i step, with as many entries for each row and none to spare. */
static bool range_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lane)
{
    *ret_lane = (terse_onnx_lane){.kind = TERSE_ONNX_INDEX, .split = terse_onnx_one_each()};
    if (kind_of(lanes, node, 0) != TERSE_ONNX_FREE || kind_of(lanes, node, 2) != TERSE_ONNX_FREE ||
        !terse_onnx_find_each(lanes, node->outputs[0], 0, &ret_lane->split) ||
        !terse_onnx_is_fixed(ret_lane->split.each, lanes->probe->n_bindings))
        return false;
    for (int b = 0; b < lanes->probe->n_bindings; b++) {
        int64_t number[3];
        for (int i = 0; i < 3; i++) {
            const terse_tensor *view = terse_onnx_lanes_view(lanes, b, node->inputs[i]);
            if (!view->data || view->dtype != TERSE_INT64 || terse_tensor_count(view) != 1)
                return false;
            number[i] = *(const int64_t *)view->data;
        }
        if (number[2] == 0 || (number[1] - number[0]) % number[2] != 0)
            return false;
    }
    return true;
}

/* Inputs FREE and COUNT only, at least one COUNT. Lists stay linear in N, so that three values of N tell all. */
static bool count_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lane)
{
    *ret_lane = (terse_onnx_lane){.kind = TERSE_ONNX_COUNT};
    bool operands_free = true;
    for (int i = 1; i < node->n_inputs; i++)
        operands_free = operands_free && kind_of(lanes, node, i) == TERSE_ONNX_FREE;
    switch (node->op) {
    case TERSE_OP_GATHER:
    case TERSE_OP_SLICE:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
    case TERSE_OP_RESHAPE:
    case TERSE_OP_SPLIT:
    case TERSE_OP_IDENTITY:
        return operands_free;
    case TERSE_OP_CAST:
        return terse_node_int(node, "to", 0) == TERSE_INT64;
    case TERSE_OP_CONCAT:
    case TERSE_OP_ADD:
    case TERSE_OP_SUB:
        return true;
    case TERSE_OP_MUL:
        return kind_of(lanes, node, 0) != kind_of(lanes, node, 1);
    case TERSE_OP_DIV:
        return kind_of(lanes, node, 1) == TERSE_ONNX_FREE && divides(lanes, node);
    case TERSE_OP_WHERE:
        return kind_of(lanes, node, 0) == TERSE_ONNX_FREE;
    case TERSE_OP_EQUAL: /* exporters ask whether a dimension is -1: it never is, and a constant is or is not */
        *ret_lane = (terse_onnx_lane){.kind = TERSE_ONNX_FREE};
        return node->n_inputs == 2 &&
               ((negative_everywhere(lanes, node->inputs[1]) && is_dimension_list(lanes, node->inputs[0])) ||
                (negative_everywhere(lanes, node->inputs[0]) && is_dimension_list(lanes, node->inputs[1])));
    case TERSE_OP_CONSTANT_OF_SHAPE: /* all entries are equal */
        return spread(lanes, node->outputs[0], ret_lane);
    case TERSE_OP_RANGE:
        return range_rule(lanes, node, ret_lane);
    case TERSE_OP_TILE:   /* the operand again for each row */
    case TERSE_OP_EXPAND: /* all entries along a new axis are equal: the operand has 1 there, whatever N is */
        return kind_of(lanes, node, 0) == TERSE_ONNX_FREE && spread(lanes, node->outputs[0], ret_lane);
    default:
        return false;
    }
}

/* Shape of rows: a list that names N, unless it takes other axes only. */
static terse_onnx_lane shape_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const terse_onnx_lane lane = lanes->of[node->inputs[0]];
    const int rank = terse_onnx_lanes_view(lanes, 0, node->inputs[0])->rank;
    int64_t start = terse_node_int(node, "start", 0), end = terse_node_int(node, "end", rank);
    start = start < 0 ? start + rank : start;
    end = end < 0 ? end + rank : end;
    const bool names_n = has_axis(lane.kind) && lane.axis >= start && lane.axis < end;
    return (terse_onnx_lane){.kind = names_n ? TERSE_ONNX_COUNT : TERSE_ONNX_FREE};
}

static bool node_lanes(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes)
{
    bool rows = false, count = false, places = false;
    for (int i = 0; i < node->n_inputs; i++) {
        rows = rows || kind_of(lanes, node, i) == TERSE_ONNX_ROWS;
        count = count || kind_of(lanes, node, i) == TERSE_ONNX_COUNT;
        places = places || kind_of(lanes, node, i) > TERSE_ONNX_ROWS;
    }
    if (places && node->op != TERSE_OP_SHAPE)
        return terse_onnx_places_rule(lanes, node, ret_lanes);
    if (rows && node->op != TERSE_OP_SHAPE)
        return terse_onnx_rows_rule(lanes, node, ret_lanes);
    terse_onnx_lane lane = {.kind = TERSE_ONNX_FREE};
    if (node->op == TERSE_OP_SHAPE)
        lane = shape_rule(lanes, node);
    else if (count && !count_rule(lanes, node, &lane))
        return false;
    for (int i = 0; i < node->n_outputs; i++)
        ret_lanes[i] = lane;
    return true;
}

static bool walk(const terse_onnx_lanes *lanes, terse_onnx_lane *made)
{
    const terse_graph *graph = lanes->graph;
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        for (int i = 0; i < node->n_outputs; i++)
            made[i] = (terse_onnx_lane){.kind = TERSE_ONNX_FREE};
        if (!node_lanes(lanes, node, made))
            return false;
        for (int i = 0; i < node->n_outputs; i++) {
            const int v = node->outputs[i];
            if (v < 0)
                continue;
            if (made[i].kind == TERSE_ONNX_COUNT && same_elements(lanes, v))
                made[i].kind = TERSE_ONNX_FREE;
            if (!shape_fits(lanes, v, made[i]))
                return false;
            made[i].dimensions = makes_dimensions(lanes, node);
            lanes->of[v] = made[i];
        }
    }
    for (int i = 0; i < graph->n_outputs; i++) {
        const terse_onnx_lane *lane = &lanes->of[graph->outputs[i]];
        if (lane->kind != TERSE_ONNX_ROWS || lane->axis != 0)
            return false;
        const terse_onnx_split one_each = terse_onnx_one_each();
        if (!terse_onnx_same_split(&lane->split, &one_each))
            return false;
    }
    return true;
}

/* Axis 0 of all inputs is one symbol, which is at no other axis. */
static bool start_lanes(const terse_onnx_lanes *lanes)
{
    const terse_graph *graph = lanes->graph;
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *input = &graph->values[graph->inputs[i]];
        for (int a = 0; a < input->rank || a == 0; a++) {
            const bool is_batch = a < input->rank && input->dims[a] == TERSE_DIM_OF_SYMBOL(lanes->probe->batch);
            if (is_batch != (a == 0))
                return false;
        }
        terse_onnx_lane *lane = &lanes->of[graph->inputs[i]];
        *lane = (terse_onnx_lane){.kind = TERSE_ONNX_ROWS, .split = terse_onnx_one_each()};
    }
    return graph->n_inputs > 0;
}

int terse_onnx_batchable(terse_graph *graph, terse_error *error)
{
    graph->batchable = false;
    terse_onnx_probe probe;
    const int status = terse_onnx_probe_run(graph, NULL, &probe, error);
    if (status != TERSE_OK)
        return status;
    TERSE_AUTO(terse_freep) terse_onnx_lane *of = calloc((size_t)graph->n_values + 1, sizeof *of);
    TERSE_AUTO(terse_freep) terse_onnx_lane *made = calloc(TERSE_MAX_NODE_IO, sizeof *made);
    const terse_onnx_lanes lanes = {graph, &probe, of};
    if (of && made && probe.batch >= 0 && probe.n_bindings == TERSE_ONNX_BINDINGS && probe.n_failed == 0)
        graph->batchable = start_lanes(&lanes) && walk(&lanes, made);
    terse_onnx_probe_done(&probe);
    return of && made ? TERSE_OK : terse_onnx_no_memory(error);
}
