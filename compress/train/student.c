/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Every value has at most one axis that is narrowed. Walking the nodes in order, each says how wide its
 * output becomes; a node that cannot follow its inputs pins the products that they come from (they keep their width),
 * and the walk starts again. Each round pins at least one more, so it ends. Then sizes are known, and constants along
 * narrowed axes are made anew. */
#include "compress/train/student.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/onnx/import.h"
#include "compress/passes/edit.h"
#include "compress/train/lanes.h"

typedef struct narrow {
    int axis; /* -1: as wide as in the teacher */
    int64_t before, now;
} narrow;

typedef struct deriving {
    terse_graph *g;
    double width;
    uint64_t random;
    narrow *values; /* per value */
    char *pinned;   /* per node */
    int *producer;  /* per value */
    int *visited;   /* per node: the last walk that came by */
    int walk;
    bool failed; /* memory is out */
} deriving;

static int64_t narrowed(const deriving *d, int64_t channels)
{
    const double wanted = (double)channels * d->width;
    const int64_t step = wanted >= 8 ? 4 : 1;
    int64_t now = (int64_t)(wanted / (double)step + 0.5) * step;
    now = now < 1 ? 1 : now;
    return now < channels ? now : channels;
}

static bool constant(const deriving *d, int value)
{
    return value >= 0 && d->g->values[value].data;
}

static int input_of(const terse_node *node, int slot)
{
    return slot < node->n_inputs ? node->inputs[slot] : TERSE_NO_VALUE;
}

static const narrow whole = {.axis = -1};

static narrow state_of(const deriving *d, int value)
{
    return value < 0 || d->g->values[value].data ? whole : d->values[value];
}

/* A product by constant weights: where its width can be chosen. */
static bool is_layer(const deriving *d, const terse_node *node)
{
    const int w = input_of(node, 1);
    if (!constant(d, w) || d->g->values[w].dtype != TERSE_FP32 || constant(d, input_of(node, 0)))
        return false;
    if (node->op == TERSE_OP_CONV)
        return true;
    return (node->op == TERSE_OP_GEMM && !terse_node_int(node, "transA", 0)) ||
           (node->op == TERSE_OP_MATMUL && d->g->values[w].rank == 2);
}

static int64_t groups_of(const terse_node *node)
{
    return node->op == TERSE_OP_CONV ? terse_node_int(node, "group", 1) : 1;
}

static bool is_depthwise(const deriving *d, const terse_node *node)
{
    const int64_t groups = groups_of(node);
    return node->op == TERSE_OP_CONV && groups > 1 && d->g->values[node->inputs[1]].dims[1] == 1;
}

/* Pins the layers that `value` comes from, through everything else. Returns how many were not pinned before. */
static int pin(deriving *d, int value)
{
    const int n = value < 0 ? -1 : d->producer[value];
    if (n < 0 || d->visited[n] == d->walk)
        return 0;
    d->visited[n] = d->walk;
    const terse_node *node = &d->g->nodes[n];
    if (is_layer(d, node) && !is_depthwise(d, node)) {
        const bool fresh = !d->pinned[n];
        d->pinned[n] = 1;
        return fresh;
    }
    int fresh = 0;
    for (int i = 0; i < node->n_inputs; i++)
        fresh += pin(d, node->inputs[i]);
    return fresh;
}

static int pin_inputs(deriving *d, const terse_node *node)
{
    int fresh = 0;
    d->walk++;
    for (int i = 0; i < node->n_inputs; i++)
        fresh += pin(d, node->inputs[i]);
    return fresh;
}

/* --- how nodes follow -------------------------------------------------------------------------------------------- */

static bool follow_layer(const deriving *d, int n, const terse_node *node, narrow x, narrow *y)
{
    const terse_value *w = &d->g->values[node->inputs[1]], *out = &d->g->values[node->outputs[0]];
    const int axis = node->op == TERSE_OP_CONV ? 1 : out->rank - 1;
    if (out->rank < 2 ||
        (x.axis >= 0 && x.axis != (node->op == TERSE_OP_CONV ? 1 : d->g->values[node->inputs[0]].rank - 1)))
        return false;
    if (is_depthwise(d, node)) {
        if (x.axis >= 0)
            *y = (narrow){1, w->dims[0], x.now * (w->dims[0] / groups_of(node))};
        return true;
    }
    if (groups_of(node) > 1)
        return x.axis < 0;
    const int64_t channels = node->op == TERSE_OP_CONV                                        ? w->dims[0]
                             : node->op == TERSE_OP_GEMM && terse_node_int(node, "transB", 0) ? w->dims[0]
                                                                                              : w->dims[1];
    const int c = input_of(node, 2); /* Gemm's may be a matrix */
    if (d->pinned[n] || (c >= 0 && !(constant(d, c) && d->g->values[c].rank == 1)))
        return true;
    *y = (narrow){axis, channels, narrowed(d, channels)};
    return true;
}

/* A constant operand along the narrowed axis only (counted from the end), or one number. */
static bool fits_axis(const terse_value *c, int from_end, int64_t before)
{
    for (int i = 0; i < c->rank; i++)
        if (c->dims[i] != 1 && !(c->rank - i == from_end && c->dims[i] == before))
            return false;
    return true;
}

static bool follow_elementwise(const deriving *d, const terse_node *node, narrow *y)
{
    const int rank = d->g->values[node->outputs[0]].rank;
    narrow found = whole;
    for (int i = 0; i < node->n_inputs; i++) {
        const narrow x = state_of(d, node->inputs[i]);
        if (x.axis < 0)
            continue;
        const narrow here = {x.axis + rank - d->g->values[node->inputs[i]].rank, x.before, x.now};
        if (found.axis >= 0 && (found.axis != here.axis || found.now != here.now || found.before != here.before))
            return false;
        found = here;
    }
    for (int i = 0; found.axis >= 0 && i < node->n_inputs; i++) {
        const int v = node->inputs[i];
        if (v < 0 || state_of(d, v).axis >= 0)
            continue;
        const terse_value *value = &d->g->values[v];
        const int at = found.axis - (rank - value->rank);
        if (value->data ? !fits_axis(value, rank - found.axis, found.before) : at >= 0 && value->dims[at] != 1)
            return false;
    }
    *y = found;
    return true;
}

static bool follow_concat(const deriving *d, const terse_node *node, narrow *y)
{
    const int rank = d->g->values[node->outputs[0]].rank;
    int64_t axis = terse_node_int(node, "axis", 0), before = 0, now = 0;
    axis = axis < 0 ? axis + rank : axis;
    for (int i = 0; i < node->n_inputs; i++) {
        const narrow x = state_of(d, node->inputs[i]);
        const int64_t size = d->g->values[node->inputs[i]].dims[axis];
        if ((x.axis >= 0 && x.axis != axis) || size < 0)
            return false;
        before += size;
        now += x.axis >= 0 ? x.now : size;
    }
    *y = (narrow){(int)axis, before, now};
    return true;
}

/* [N,C,spatial...] to [N,C x spatial]. */
static bool follow_flatten(const deriving *d, const terse_node *node, narrow x, narrow *y)
{
    const terse_value *in = &d->g->values[node->inputs[0]], *out = &d->g->values[node->outputs[0]];
    int64_t rest = 1;
    for (int i = 1; i < in->rank; i++) {
        if (in->dims[i] < 0)
            return false;
        rest *= i == x.axis ? 1 : in->dims[i];
    }
    if (x.axis < 1 || out->rank != 2 || out->dims[0] != in->dims[0] || out->dims[1] != x.before * rest)
        return false;
    *y = (narrow){1, x.before * rest, x.now * rest};
    return true;
}

static bool follow_axes(const deriving *d, const terse_node *node, narrow x, narrow *y)
{
    const terse_value *axes = input_of(node, 1) >= 0 ? &d->g->values[node->inputs[1]] : NULL;
    const bool keeps =
        node->op != TERSE_OP_SQUEEZE && node->op != TERSE_OP_UNSQUEEZE && terse_node_int(node, "keepdims", 1);
    const int rank =
        node->op == TERSE_OP_UNSQUEEZE ? d->g->values[node->outputs[0]].rank : d->g->values[node->inputs[0]].rank;
    if (!axes || !axes->data || axes->dtype != TERSE_INT64 || axes->rank > 1)
        return false;
    const int64_t n = terse_dims_count(axes->dims, axes->rank), *list = axes->data;
    bool taken[TERSE_MAX_RANK] = {false};
    for (int64_t i = 0; i < n; i++)
        if (list[i] >= -rank && list[i] < rank)
            taken[list[i] < 0 ? list[i] + rank : list[i]] = true;
    int to = 0;
    if (node->op == TERSE_OP_UNSQUEEZE) { /* the axis of the output that is the x.axis-th old one */
        for (int left = x.axis + 1; to < rank && (left -= !taken[to]) > 0;)
            to++;
    } else {
        if (taken[x.axis])
            return false;
        for (int i = 0; i < x.axis; i++)
            to += keeps || !taken[i];
    }
    *y = (narrow){to, x.before, x.now};
    return true;
}

static bool follow_transpose(const terse_node *node, narrow x, narrow *y)
{
    const terse_attr *perm = terse_node_attr(node, "perm");
    for (int i = 0; perm && i < perm->n; i++)
        if (perm->ints[i] == x.axis) {
            *y = (narrow){i, x.before, x.now};
            return true;
        }
    return false;
}

static bool follow_resize(const deriving *d, const terse_node *node, narrow x, narrow *y)
{
    const int scales = input_of(node, 2);
    const terse_value *v = constant(d, scales) ? &d->g->values[scales] : NULL;
    *y = x;
    return v && v->dtype == TERSE_FP32 && v->rank == 1 && v->dims[0] > x.axis && !terse_node_attr(node, "axes") &&
           ((const float *)v->data)[x.axis] == 1;
}

static bool follow_pad(const deriving *d, const terse_node *node, narrow x, narrow *y)
{
    const int pads = input_of(node, 1), rank = d->g->values[node->inputs[0]].rank;
    const terse_value *v = constant(d, pads) ? &d->g->values[pads] : NULL;
    *y = x;
    if (!v || v->dtype != TERSE_INT64 || v->rank != 1 || v->dims[0] != 2 * rank || input_of(node, 3) >= 0)
        return false;
    return ((const int64_t *)v->data)[x.axis] == 0 && ((const int64_t *)v->data)[x.axis + rank] == 0;
}

/* How wide output 0 becomes; false: the inputs cannot be followed. */
static bool follow(const deriving *d, int n, narrow *y)
{
    const terse_node *node = &d->g->nodes[n];
    const narrow x = state_of(d, input_of(node, 0));
    *y = whole;
    if (is_layer(d, node))
        return follow_layer(d, n, node, x, y);
    bool any = false;
    for (int i = 0; i < node->n_inputs; i++)
        any = any || state_of(d, node->inputs[i]).axis >= 0;
    if (!any)
        return true;
    if (terse_op_is_arithmetic(node->op) || node->op == TERSE_OP_PRELU || node->op == TERSE_OP_CLIP)
        return follow_elementwise(d, node, y);
    switch (node->op) {
    case TERSE_OP_BATCH_NORMALIZATION:
    case TERSE_OP_INSTANCE_NORMALIZATION:
    case TERSE_OP_LRN:
    case TERSE_OP_MAX_POOL:
    case TERSE_OP_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_MAX_POOL:
        *y = x;
        return x.axis == 1;
    case TERSE_OP_LAYER_NORMALIZATION:
        *y = x;
        return x.axis == d->g->values[node->inputs[0]].rank - 1 && d->g->values[node->inputs[1]].rank == 1 &&
               terse_node_int(node, "axis", -1) == -1;
    case TERSE_OP_SOFTMAX:
    case TERSE_OP_LOG_SOFTMAX:
    case TERSE_OP_IDENTITY:
    case TERSE_OP_CAST:
        *y = x;
        return !terse_node_int(node, "coerce_2d", 0);
    case TERSE_OP_CONCAT:
        return follow_concat(d, node, y);
    case TERSE_OP_FLATTEN:
        return terse_node_int(node, "axis", 1) == 1 && follow_flatten(d, node, x, y);
    case TERSE_OP_RESHAPE:
        return constant(d, input_of(node, 1)) && follow_flatten(d, node, x, y);
    case TERSE_OP_REDUCE_MEAN:
    case TERSE_OP_REDUCE_SUM:
    case TERSE_OP_REDUCE_MAX:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
        return follow_axes(d, node, x, y);
    case TERSE_OP_TRANSPOSE:
        return follow_transpose(node, x, y);
    case TERSE_OP_RESIZE:
        return follow_resize(d, node, x, y);
    case TERSE_OP_PAD:
        return follow_pad(d, node, x, y);
    default:
        return false;
    }
}

/* One walk over all nodes; false when something was pinned and it must start again. */
static bool walk(deriving *d)
{
    for (int i = 0; i < d->g->n_nodes; i++) {
        const terse_node *node = &d->g->nodes[i];
        narrow y;
        if (!follow(d, i, &y)) {
            if (pin_inputs(d, node) > 0)
                return false;
            y = whole; /* narrowed by nobody that could be pinned: checked by inference later */
        }
        if (y.axis >= 0 && y.now == y.before)
            y = whole;
        for (int o = 0; o < node->n_outputs; o++)
            if (node->outputs[o] >= 0)
                d->values[node->outputs[o]] = o == 0 ? y : whole;
    }
    return true;
}

/* --- new constants ----------------------------------------------------------------------------------------------- */

static double uniform(deriving *d)
{
    return (double)(terse_lanes_random(d->random++) >> 11) * 0x1p-53;
}

static double normal(deriving *d) /* Box and Muller, 1958 */
{
    const double u = uniform(d), v = uniform(d);
    return sqrt(-2 * log(u > 1e-300 ? u : 1e-300)) * cos(6.283185307179586 * v);
}

/* Input `slot` of a node becomes a constant of these dims: normal numbers of that deviation around `mean`. */
static void renew(deriving *d, int n, int slot, int rank, const int64_t *dims, double mean, double deviation)
{
    const int64_t count = terse_dims_count(dims, rank);
    float *data = terse_arena_alloc(d->g->arena, (size_t)(count + 1) * sizeof *data);
    for (int64_t i = 0; data && i < count; i++)
        data[i] = (float)(deviation > 0 ? mean + deviation * normal(d) : mean);
    const int value = data ? terse_graph_add_constant(d->g, d->g->values[d->g->nodes[n].inputs[slot]].name, TERSE_FP32,
                                                      rank, dims, data)
                           : -1;
    if (value < 0)
        d->failed = true;
    else
        d->g->nodes[n].inputs[slot] = value;
}

static void renew_vector(deriving *d, int n, int slot, int64_t size, double number)
{
    if (constant(d, input_of(&d->g->nodes[n], slot)))
        renew(d, n, slot, 1, &size, number, 0);
}

static void renew_layer(deriving *d, int n, narrow x, narrow y)
{
    const terse_node *node = &d->g->nodes[n];
    const terse_value *w = &d->g->values[node->inputs[1]];
    int64_t dims[TERSE_MAX_RANK], fan_in;
    const int rank = w->rank;
    const bool by_rows = node->op == TERSE_OP_CONV || (node->op == TERSE_OP_GEMM && terse_node_int(node, "transB", 0));
    memcpy(dims, w->dims, sizeof dims);
    int64_t *out = by_rows ? &dims[0] : &dims[1], *in = by_rows ? &dims[1] : &dims[0];
    if (y.axis >= 0)
        *out = y.now;
    if (is_depthwise(d, node)) {
        if (x.axis >= 0 && !terse_node_set_int(d->g, &d->g->nodes[n], "group", x.now))
            d->failed = true;
    } else if (x.axis >= 0) {
        *in = x.now;
    }
    fan_in = node->op == TERSE_OP_CONV ? terse_dims_count(dims + 1, rank - 1) : *in;
    const int64_t filters = *out;
    renew(d, n, 1, rank, dims, 0, sqrt(2 / (double)(fan_in > 0 ? fan_in : 1)));
    if (d->g->nodes[n].op != TERSE_OP_MATMUL && constant(d, input_of(&d->g->nodes[n], 2)) &&
        d->g->values[d->g->nodes[n].inputs[2]].rank == 1)
        renew_vector(d, n, 2, filters, 0);
}

/* A vector operand along the narrowed axis: the neutral number of the operator. */
static void renew_operands(deriving *d, int n, narrow y)
{
    const terse_op op = d->g->nodes[n].op;
    const double neutral = op == TERSE_OP_MUL || op == TERSE_OP_DIV || op == TERSE_OP_POW ? 1
                           : op == TERSE_OP_PRELU                                         ? 0.25
                                                                                          : 0;
    for (int k = 0; y.axis >= 0 && k < d->g->nodes[n].n_inputs; k++) {
        const int v = d->g->nodes[n].inputs[k];
        if (!constant(d, v) || d->g->values[v].dtype != TERSE_FP32)
            continue;
        int64_t dims[TERSE_MAX_RANK];
        bool along = false;
        for (int i = 0; i < d->g->values[v].rank; i++) {
            dims[i] = d->g->values[v].dims[i] == 1 ? 1 : y.now;
            along = along || d->g->values[v].dims[i] != 1;
        }
        if (along)
            renew(d, n, k, d->g->values[v].rank, dims, neutral, 0);
    }
}

static void renew_node(deriving *d, int n)
{
    const terse_node *node = &d->g->nodes[n];
    const narrow x = state_of(d, input_of(node, 0));
    const narrow y = node->n_outputs > 0 && node->outputs[0] >= 0 ? d->values[node->outputs[0]] : whole;
    if (is_layer(d, node)) {
        renew_layer(d, n, x, y);
        return;
    }
    const int scale = input_of(node, 1);
    const bool norm = node->op == TERSE_OP_BATCH_NORMALIZATION || node->op == TERSE_OP_INSTANCE_NORMALIZATION ||
                      node->op == TERSE_OP_LAYER_NORMALIZATION || node->op == TERSE_OP_GROUP_NORMALIZATION;
    if (norm && constant(d, scale) && d->g->values[scale].rank == 1) {
        const int64_t size = x.axis >= 0 ? x.now : d->g->values[scale].dims[0];
        renew_vector(d, n, 1, size, 1);
        for (int k = 2; k < 5; k++)
            renew_vector(d, n, k, size, k == 4 ? 1 : 0);
    } else if (node->op == TERSE_OP_RESHAPE && x.axis >= 0 && y.axis >= 0) {
        const int value = terse_graph_add_ints(d->g, "shape", (const int64_t[]){0, -1}, 2);
        if (value < 0)
            d->failed = true;
        else
            d->g->nodes[n].inputs[1] = value;
    } else if (terse_op_is_arithmetic(node->op) || node->op == TERSE_OP_PRELU) {
        renew_operands(d, n, y);
    } else if (node->op == TERSE_OP_GATHER && constant(d, node->inputs[0])) {
        const terse_value table = d->g->values[node->inputs[0]];
        if (table.dtype == TERSE_FP32 && table.rank == 2 && table.dims[0] > 1 && table.dims[1] > 1)
            renew(d, n, 0, 2, table.dims, 0, 0.1);
    }
}

/* --- the whole --------------------------------------------------------------------------------------------------- */

static bool make_tables(deriving *d)
{
    const size_t values = (size_t)d->g->n_values + 1, nodes = (size_t)d->g->n_nodes + 1;
    d->values = malloc(values * sizeof *d->values);
    d->producer = malloc(values * sizeof *d->producer);
    d->pinned = calloc(nodes, 1);
    d->visited = calloc(nodes, sizeof *d->visited);
    if (!d->values || !d->producer || !d->pinned || !d->visited)
        return false;
    for (int v = 0; v < d->g->n_values; v++) {
        d->values[v] = whole;
        d->producer[v] = -1;
    }
    for (int i = 0; i < d->g->n_nodes; i++)
        for (int o = 0; o < d->g->nodes[i].n_outputs; o++)
            if (d->g->nodes[i].outputs[o] >= 0)
                d->producer[d->g->nodes[i].outputs[o]] = i;
    return true;
}

static int64_t count_weights(const deriving *d)
{
    int64_t sum = 0;
    for (int i = 0; i < d->g->n_nodes; i++)
        if (is_layer(d, &d->g->nodes[i])) {
            const terse_value *w = &d->g->values[d->g->nodes[i].inputs[1]];
            sum += terse_dims_count(w->dims, w->rank);
        }
    return sum;
}

/* Shapes follow from the new weights; what was stated for values in between does not hold any more. */
static int restate(terse_graph *g, const terse_graph *teacher, terse_error *error)
{
    for (int i = 0; i < g->n_nodes; i++)
        for (int o = 0; o < g->nodes[i].n_outputs; o++)
            if (g->nodes[i].outputs[o] >= 0) {
                bool is_output = false;
                for (int k = 0; k < g->n_outputs; k++)
                    is_output = is_output || g->outputs[k] == g->nodes[i].outputs[o];
                if (!is_output)
                    g->values[g->nodes[i].outputs[o]].rank = -1;
            }
    int status = terse_onnx_infer(g, NULL, error);
    for (int i = 0; i < g->n_outputs && status == TERSE_OK; i++) {
        const terse_value *a = &teacher->values[teacher->outputs[i]], *b = &g->values[g->outputs[i]];
        char x[128], y[128];
        if (a->rank != b->rank || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) != 0)
            status =
                terse_fail(error, TERSE_UNIMPLEMENTED, "output '%.100s' of a narrower network would be %s, not %s",
                           a->name, terse_value_text(g, b, x, sizeof x), terse_value_text(teacher, a, y, sizeof y));
    }
    return status == TERSE_OK ? terse_graph_prune(g, error) : status;
}

static int derive(deriving *d, const terse_graph *teacher, terse_student_summary *summary, terse_error *error)
{
    if (!make_tables(d))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a student");
    d->walk++;
    for (int i = 0; i < d->g->n_outputs; i++)
        pin(d, d->g->outputs[i]);
    while (!walk(d))
        ;
    *summary = (terse_student_summary){.parameters_before = count_weights(d)};
    for (int i = 0; i < d->g->n_nodes && !d->failed; i++) {
        const bool layer = is_layer(d, &d->g->nodes[i]);
        summary->n_layers += layer;
        summary->n_narrowed += layer && d->values[d->g->nodes[i].outputs[0]].axis >= 0;
        renew_node(d, i);
    }
    if (d->failed)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a student");
    if (summary->n_layers == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the teacher has no Conv, Gemm or MatMul with constant weights");
    summary->parameters_now = count_weights(d);
    return restate(d->g, teacher, error);
}

int terse_student_derive(const terse_graph *teacher, double width, uint64_t seed, terse_graph **ret_student,
                         terse_student_summary *ret_summary, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *student = NULL;
    if (!(width > 0 && width <= 1))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "width is %g, allowed is above 0, at most 1", width);
    int status = terse_edit_clone(teacher, &student, error);
    if (status != TERSE_OK)
        return status;
    deriving d = {.g = student, .width = width, .random = terse_lanes_random(seed ^ 0x73747564656e74u)};
    status = derive(&d, teacher, ret_summary, error);
    free(d.values);
    free(d.producer);
    free(d.pinned);
    free(d.visited);
    if (status == TERSE_OK)
        *ret_student = TERSE_TAKE(student);
    return status;
}
