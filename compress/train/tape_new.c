/* SPDX-License-Identifier: Apache-2.0 */
/* tape_new.c: making a tape: shapes node by node, what needs a gradient, where every tensor lies.
 *
 * Time for the planner of rooms: node i runs at i, the loss at n, node i goes backwards at 2 n - i. */
#include <stdlib.h>
#include <string.h>

#include "common/graph/plan.h"
#include "compress/train/tape_internal.h"

typedef struct making {
    terse_tape *tape;
    char *varies;        /* per value: depends on an input or a trained constant */
    char *wants;         /* per value: a gradient can be made use of behind it (a trained constant is) */
    char *useful;        /* per value: a target depends on it through operators with gradients */
    int *start, *end;    /* per value: when it is made and read last */
    int *back_start;     /* per value: when its gradient begins; it ends with its maker's turn */
    terse_group *groups; /* three per value: made, read (where it differs), gradient */
    int *order;
} making;

static int no_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a tape");
}

static bool is_trained(const terse_tape *tape, int value)
{
    return tape->options.trained && tape->options.trained[value];
}

static bool is_target(const terse_tape *tape, int value)
{
    return tape->options.targets && tape->options.targets[value];
}

static bool has_affine(const terse_tape *tape, int value)
{
    return tape->options.affine && tape->options.affine[value].scale > 0 && tape->made[value].dtype == TERSE_FP32;
}

/* --- shapes ------------------------------------------------------------------------------------------------------ */

static int take_inputs(making *m, const terse_tensor *inputs, terse_error *error)
{
    terse_tape *t = m->tape;
    for (int v = 0; v < t->graph->n_values; v++) {
        const terse_value *value = &t->graph->values[v];
        if (!value->data)
            continue;
        if (value->layout != TERSE_LAYOUT_PLAIN)
            return terse_fail(error, TERSE_UNIMPLEMENTED, "constant '%s' is packed, training needs it plain",
                              value->name);
        t->made[v] = terse_tensor_view((void *)(uintptr_t)value->data, value->dtype, value->rank, value->dims);
        t->read[v] = t->made[v];
        m->varies[v] = m->wants[v] = is_trained(t, v) && t->options.backward;
    }
    for (int i = 0; i < t->graph->n_inputs; i++) {
        const int v = t->graph->inputs[i];
        t->made[v] = t->read[v] = terse_tensor_view(NULL, inputs[i].dtype, inputs[i].rank, inputs[i].dims);
        m->varies[v] = 1;
        m->wants[v] = t->options.grad_inputs && inputs[i].dtype == TERSE_FP32;
    }
    return TERSE_OK;
}

/* A value of the graph whose shape follows from data gets it from the caller's inputs, as the engine does. */
static const terse_tensor *known_input(const making *m, int value, const terse_tensor *inputs)
{
    for (int i = 0; i < m->tape->graph->n_inputs; i++)
        if (m->tape->graph->inputs[i] == value)
            return inputs[i].data ? &inputs[i] : NULL;
    return NULL;
}

/* Computes a node whose inputs never change. */
static int run_once(terse_tape *t, const terse_op_impl *impl, const terse_op_plan *plan, terse_error *error)
{
    t->fixed_bytes += terse_evaluate_bytes(plan);
    return terse_evaluate_run(impl, plan, error);
}

static int plan_node(making *m, int index, const terse_tensor *inputs, terse_error *error)
{
    terse_tape *t = m->tape;
    terse_tape_node *n = &t->nodes[index];
    const terse_node *node = n->node = &t->graph->nodes[index];
    const size_t n_in = (size_t)node->n_inputs + 1, n_out = (size_t)node->n_outputs + 1;
    n->impl = terse_op_find(node->op);
    n->inputs = terse_arena_alloc(t->arena, n_in * sizeof *n->inputs);
    n->outputs = terse_arena_alloc(t->arena, n_out * sizeof *n->outputs);
    n->run_outputs = terse_arena_alloc(t->arena, n_out * sizeof *n->run_outputs);
    n->dx = terse_arena_alloc(t->arena, n_in * sizeof *n->dx);
    n->dy = terse_arena_alloc(t->arena, n_out * sizeof *n->dy);
    n->fresh = terse_arena_alloc(t->arena, n_in * sizeof *n->fresh);
    n->moved = terse_arena_alloc(t->arena, n_out * sizeof *n->moved);
    terse_op_plan plan = {.node = node,
                          .kernels = t->kernels,
                          .n_inputs = node->n_inputs,
                          .n_outputs = node->n_outputs,
                          .outputs = n->run_outputs,
                          .arena = t->arena};
    const terse_tensor **seen = terse_arena_alloc(t->arena, n_in * sizeof *seen);
    if (!n->inputs || !n->outputs || !n->run_outputs || !n->dx || !n->dy || !n->fresh || !n->moved || !seen)
        return no_memory(error);
    if (!n->impl)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "this build has no such operator");
    if (terse_node_attr(node, "activation") || terse_node_int(node, "channels_last", 0))
        return terse_fail(error, TERSE_UNIMPLEMENTED, "it is not in ONNX's form");
    bool varies = false;
    for (int i = 0; i < node->n_inputs; i++) {
        const int v = node->inputs[i];
        seen[i] = n->inputs[i] = v < 0 ? NULL : &t->read[v];
        if (v < 0)
            continue;
        varies = varies || m->varies[v];
        const terse_tensor *known = n->impl->value_inputs >> i & 1 ? known_input(m, v, inputs) : NULL;
        seen[i] = known ? known : seen[i];
    }
    plan.inputs = seen;
    varies = varies && node->op != TERSE_OP_SHAPE;
    int status = terse_evaluate_plan(n->impl, &plan, error);
    if (status == TERSE_OK && !varies)
        status = run_once(t, n->impl, &plan, error);
    if (status != TERSE_OK)
        return status;
    n->params = plan.params;
    n->scratch_bytes = plan.scratch_bytes;
    n->runs = varies;
    for (int o = 0; o < node->n_outputs; o++) {
        const int v = node->outputs[o];
        n->outputs[o] = v < 0 ? &n->run_outputs[o] : &t->made[v];
        if (v < 0)
            continue;
        t->made[v] = t->read[v] = n->run_outputs[o];
        m->varies[v] = varies;
    }
    return TERSE_OK;
}

/* --- gradients --------------------------------------------------------------------------------------------------- */

/* Integers have no gradient, unless they stand for numbers (bytes). */
static bool can_want(const terse_tape *t, const terse_node *node, const terse_back_row *row, int value)
{
    return t->made[value].dtype == TERSE_FP32 ||
           (row->flags & TERSE_BACK_ANY_DTYPE && node->op == TERSE_OP_QUANTIZE_LINEAR);
}

static void find_wants(making *m)
{
    terse_tape *t = m->tape;
    for (int i = 0; i < t->graph->n_nodes && t->options.backward; i++) {
        const terse_node *node = &t->graph->nodes[i];
        const terse_back_row *row = terse_back_find(node);
        bool wants = false, passes = false;
        for (int k = 0; k < node->n_inputs; k++)
            if (node->inputs[k] >= 0 && m->wants[node->inputs[k]]) {
                wants = true;
                passes = passes || (row && k < 32 && row->inputs >> k & 1);
            }
        /* What a mover does must not depend on the data. */
        for (int k = 1; passes && row->flags & TERSE_BACK_MOVES && k < node->n_inputs; k++)
            passes = node->inputs[k] < 0 || !m->varies[node->inputs[k]];
        bool floats = false;
        for (int o = 0; o < node->n_outputs; o++) {
            const int v = node->outputs[o];
            if (v < 0)
                continue;
            floats = floats || t->made[v].dtype == TERSE_FP32;
            m->wants[v] = wants && passes && can_want(t, node, row, v);
        }
        t->nodes[i].blocked = wants && !passes && floats;
        t->nodes[i].back = wants && passes ? row : NULL;
    }
}

static void find_useful(making *m)
{
    terse_tape *t = m->tape;
    for (int v = 0; v < t->graph->n_values; v++)
        m->useful[v] = is_target(t, v) && m->wants[v];
    for (int i = t->graph->n_nodes - 1; i >= 0; i--) {
        terse_tape_node *n = &t->nodes[i];
        bool useful = false;
        for (int o = 0; o < n->node->n_outputs; o++)
            useful = useful || (n->node->outputs[o] >= 0 && m->useful[n->node->outputs[o]]);
        if (!useful)
            n->back = NULL;
        for (int k = 0; n->back && k < n->node->n_inputs; k++)
            if (k < 32 && n->back->inputs >> k & 1 && n->node->inputs[k] >= 0 && m->wants[n->node->inputs[k]])
                m->useful[n->node->inputs[k]] = 1;
    }
    /* A blocked node matters only where a target is behind it. */
    char *reached = terse_arena_alloc(t->arena, (size_t)t->graph->n_values + 1);
    for (int v = 0; reached && v < t->graph->n_values; v++)
        reached[v] = is_target(t, v);
    for (int i = t->graph->n_nodes - 1; reached && i >= 0; i--) {
        const terse_node *node = t->nodes[i].node;
        bool reaches = false;
        for (int o = 0; o < node->n_outputs; o++)
            reaches = reaches || (node->outputs[o] >= 0 && reached[node->outputs[o]]);
        t->nodes[i].blocked = t->nodes[i].blocked && reaches;
        for (int k = 0; reaches && k < node->n_inputs; k++)
            if (node->inputs[k] >= 0)
                reached[node->inputs[k]] = 1;
    }
}

/* --- rooms ------------------------------------------------------------------------------------------------------- */

static void later(int *time, int when)
{
    *time = *time > when ? *time : when;
}

static void find_times(making *m)
{
    const terse_tape *t = m->tape;
    const int n_nodes = t->graph->n_nodes, n_values = t->graph->n_values;
    for (int v = 0; v < n_values; v++) {
        m->start[v] = 0;
        m->end[v] = is_target(t, v) ? n_nodes : 0;
        m->back_start[v] = is_target(t, v) ? n_nodes : 2 * n_nodes + 1;
    }
    for (int i = 0; i < n_nodes; i++) {
        const terse_tape_node *n = &t->nodes[i];
        const int back = 2 * n_nodes - i;
        for (int k = 0; k < n->node->n_inputs; k++) {
            const int v = n->node->inputs[k];
            if (v < 0)
                continue;
            later(&m->end[v], i);
            if (n->back && n->back->flags & TERSE_BACK_READS_INPUTS)
                later(&m->end[v], back);
            if (n->back && m->useful[v] && back < m->back_start[v])
                m->back_start[v] = back;
        }
        for (int o = 0; o < n->node->n_outputs; o++) {
            const int v = n->node->outputs[o];
            if (v < 0)
                continue;
            m->start[v] = i;
            later(&m->end[v], i);
            if (n->back && (n->back->flags & TERSE_BACK_READS_OUTPUTS || has_affine(t, v)))
                later(&m->end[v], back);
        }
    }
    for (int i = 0; i < t->graph->n_outputs; i++)
        later(&m->end[t->graph->outputs[i]], 2 * n_nodes + 1);
    for (int v = 0; v < n_values; v++)
        if (is_target(t, v))
            later(&m->end[v], t->options.backward ? n_nodes : 2 * n_nodes + 1);
}

/* Bytes of a value's numbers where it has a room of its own, else 0. */
static size_t room_of(const making *m, int value)
{
    const terse_tape *t = m->tape;
    return t->made[value].dtype == TERSE_DTYPE_NONE || t->graph->values[value].data || t->made[value].data
               ? 0
               : (size_t)terse_tensor_bytes(&t->made[value]);
}

static bool is_input(const terse_graph *graph, int value)
{
    for (int i = 0; i < graph->n_inputs; i++)
        if (graph->inputs[i] == value)
            return true;
    return false;
}

static void make_groups(making *m)
{
    const terse_tape *t = m->tape;
    const int n_nodes = t->graph->n_nodes;
    int *maker = m->order; /* its first use is over before it is needed for the planner */
    for (int v = 0; v < t->graph->n_values; v++)
        maker[v] = -1;
    for (int i = 0; i < n_nodes; i++)
        for (int o = 0; o < t->graph->nodes[i].n_outputs; o++)
            if (t->graph->nodes[i].outputs[o] >= 0)
                maker[t->graph->nodes[i].outputs[o]] = i;
    for (int v = 0; v < t->graph->n_values; v++) {
        terse_group *g = &m->groups[3 * v];
        for (int k = 0; k < 3; k++)
            g[k] = (terse_group){.kind = TERSE_GROUP_ARENA, .output = -1, .start = m->start[v], .end = m->end[v]};
        const bool input = is_input(t->graph, v);
        g[0].size = input ? 0 : room_of(m, v);
        g[1].size = has_affine(t, v) && m->varies[v] && !t->graph->values[v].data ? room_of(m, v) : 0;
        if (!m->useful[v])
            continue;
        const bool stays = t->graph->values[v].data || input; /* parameters: until the caller has read them */
        g[2].size = (size_t)terse_tensor_count(&t->made[v]) * sizeof(float);
        g[2].start = stays ? 0 : m->back_start[v];
        g[2].end = stays ? 2 * n_nodes + 1 : 2 * n_nodes - maker[v];
    }
}

static void *room_at(const terse_tape *t, const terse_group *group)
{
    return group->size ? t->memory + group->offset : NULL;
}

/* Points everything at its room, and lists whose gradients begin where. */
static void place(making *m)
{
    terse_tape *t = m->tape;
    const int n_nodes = t->graph->n_nodes;
    for (int v = 0; v < t->graph->n_values; v++) {
        const terse_group *g = &m->groups[3 * v];
        if (g[0].size)
            t->made[v].data = t->read[v].data = room_at(t, &g[0]);
        if (g[1].size)
            t->read[v].data = room_at(t, &g[1]);
        t->gradients[v] = room_at(t, &g[2]);
    }
    for (int i = 0; i < n_nodes; i++) {
        terse_tape_node *n = &t->nodes[i];
        for (int o = 0; o < n->node->n_outputs && n->back; o++)
            n->dy[o] = n->node->outputs[o] < 0 ? NULL : t->gradients[n->node->outputs[o]];
        for (int k = 0; k < n->node->n_inputs && n->back; k++) {
            const int v = n->node->inputs[k];
            n->dx[k] = v >= 0 && k < 32 && n->back->inputs >> k & 1 ? t->gradients[v] : NULL;
            bool fresh = n->dx[k] && m->back_start[v] == 2 * n_nodes - i && !t->graph->values[v].data;
            for (int before = 0; before < n->n_fresh; before++)
                fresh = fresh && n->fresh[before] != v;
            if (fresh)
                n->fresh[n->n_fresh++] = v;
        }
    }
}

static int make_rooms(making *m, terse_error *error)
{
    terse_tape *t = m->tape;
    find_times(m);
    make_groups(m);
    t->memory_bytes = terse_offsets_assign(m->groups, 3 * t->graph->n_values, m->order);
    t->memory = aligned_alloc(64, terse_align(t->memory_bytes + 64, 64));
    if (!t->memory)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes of activations and gradients",
                          t->memory_bytes);
    place(m);
    return TERSE_OK;
}

/* --- what gradients need beside tensors -------------------------------------------------------------------------- */

/* Runs a node that only moves elements on their numbers: where each one came from. */
static int trace_moves(terse_tape *t, terse_tape_node *n, terse_error *error)
{
    const terse_tensor *x = n->inputs[0];
    const int64_t count = terse_tensor_count(x);
    const char *mode = terse_node_text(n->node, "coordinate_transformation_mode", "");
    if (count >= INT32_MAX || strcmp(mode, "tf_crop_and_resize") == 0)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "its gradient is not supported for such a size or mode");
    TERSE_AUTO(terse_freep) int32_t *numbers = malloc((size_t)(count + 1) * sizeof *numbers);
    int32_t nowhere = -1;
    terse_tensor traced = terse_tensor_view(numbers, TERSE_INT32, x->rank, x->dims);
    terse_tensor fill = terse_tensor_view(&nowhere, TERSE_INT32, 0, NULL);
    const terse_tensor *inputs[8] = {NULL};
    terse_node node = *n->node;
    if (!numbers || node.n_inputs > 8)
        return no_memory(error);
    for (int64_t i = 0; i < count; i++)
        numbers[i] = (int32_t)i;
    for (int k = 1; k < node.n_inputs; k++)
        inputs[k] = n->inputs[k];
    inputs[0] = &traced;
    if (node.op == TERSE_OP_PAD) {
        inputs[2] = &fill;
        node.n_inputs = node.n_inputs > 3 ? node.n_inputs : 3;
    }
    terse_tensor *outputs = terse_arena_alloc(t->arena, (size_t)(node.n_outputs + 1) * sizeof *outputs);
    if (!outputs)
        return no_memory(error);
    const int status =
        terse_node_evaluate(&node, t->kernels, inputs, t->arena, (size_t)TERSE_MAX_TENSOR_BYTES, outputs, error);
    for (int o = 0; status == TERSE_OK && o < node.n_outputs; o++) {
        n->moved[o] = outputs[o].data;
        t->fixed_bytes += outputs[o].data ? (size_t)terse_tensor_bytes(&outputs[o]) : 0;
    }
    return status;
}

static int prepare_node(terse_tape *t, terse_tape_node *n, terse_error *error)
{
    size_t bytes = n->runs ? n->scratch_bytes : 0;
    int status = TERSE_OK;
    if (n->node->op == TERSE_OP_BATCH_NORMALIZATION && t->options.backward && n->runs) {
        n->channels = terse_tensor_count(n->inputs[1]);
        n->statistics = terse_arena_alloc(t->arena, (size_t)(4 * n->channels + 1) * sizeof(float));
        if (!n->statistics)
            return no_memory(error);
    }
    if (n->back && n->back->flags & TERSE_BACK_MOVES)
        status = trace_moves(t, n, error);
    if (n->back && n->back->scratch) {
        const terse_back back = {.node = n->node,
                                 .kernels = t->kernels,
                                 .n_inputs = n->node->n_inputs,
                                 .n_outputs = n->node->n_outputs,
                                 .x = n->inputs,
                                 .y = (const terse_tensor *const *)n->outputs,
                                 .dx = n->dx};
        const size_t floats = n->back->scratch(&back);
        bytes = floats * sizeof(float) > bytes ? floats * sizeof(float) : bytes;
    }
    t->scratch_bytes = bytes > t->scratch_bytes ? bytes : t->scratch_bytes;
    return status;
}

static int prepare(terse_tape *t, terse_error *error)
{
    for (int i = 0; i < t->graph->n_nodes; i++) {
        const int status = prepare_node(t, &t->nodes[i], error);
        if (status != TERSE_OK)
            return terse_error_prefix(error, "node '%s' (%s)", t->nodes[i].node->name,
                                      terse_op_name(t->nodes[i].node->op));
    }
    t->scratch = aligned_alloc(64, terse_align(t->scratch_bytes + 64, 64));
    return t->scratch ? TERSE_OK : no_memory(error);
}

static bool make_tables(making *m)
{
    terse_tape *t = m->tape;
    const size_t values = (size_t)t->graph->n_values + 1, nodes = (size_t)t->graph->n_nodes + 1;
    t->made = terse_arena_alloc(t->arena, values * sizeof *t->made);
    t->read = terse_arena_alloc(t->arena, values * sizeof *t->read);
    t->gradients = terse_arena_alloc(t->arena, values * sizeof *t->gradients);
    t->nodes = terse_arena_alloc(t->arena, nodes * sizeof *t->nodes);
    m->varies = terse_arena_alloc(t->arena, values);
    m->wants = terse_arena_alloc(t->arena, values);
    m->useful = terse_arena_alloc(t->arena, values);
    m->start = terse_arena_alloc(t->arena, values * sizeof *m->start);
    m->end = terse_arena_alloc(t->arena, values * sizeof *m->end);
    m->back_start = terse_arena_alloc(t->arena, values * sizeof *m->back_start);
    m->groups = terse_arena_alloc(t->arena, 3 * values * sizeof *m->groups);
    m->order = terse_arena_alloc(t->arena, 3 * values * sizeof *m->order);
    return t->made && t->read && t->gradients && t->nodes && m->varies && m->wants && m->useful && m->start && m->end &&
           m->back_start && m->groups && m->order;
}

int terse_tape_new(const terse_graph *graph, const terse_tensor *inputs, const terse_tape_options *options,
                   terse_tape **ret_tape, terse_error *error)
{
    TERSE_AUTO(terse_tape_freep) terse_tape *t = calloc(1, sizeof *t);
    if (!t || !(t->arena = terse_arena_new()))
        return no_memory(error);
    t->graph = graph;
    t->options = *options;
    making m = {.tape = t};
    if (!make_tables(&m))
        return no_memory(error);
    int status = terse_kernels_get(&t->kernels, error);
    if (status == TERSE_OK)
        status = take_inputs(&m, inputs, error);
    for (int i = 0; i < graph->n_nodes && status == TERSE_OK; i++) {
        status = plan_node(&m, i, inputs, error);
        if (status != TERSE_OK)
            terse_error_prefix(error, "node '%s' (%s)", graph->nodes[i].name, terse_op_name(graph->nodes[i].op));
    }
    if (status != TERSE_OK)
        return status;
    find_wants(&m);
    find_useful(&m);
    status = make_rooms(&m, error);
    if (status == TERSE_OK)
        status = prepare(t, error);
    if (status == TERSE_OK)
        *ret_tape = TERSE_TAKE(t);
    return status;
}
