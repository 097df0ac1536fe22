/* SPDX-License-Identifier: Apache-2.0 */
/* steps.c: turns places into tensors, calls and lists of pointers to set, so that running is one walk over an array. */
#include <string.h>

#include "common/graph/plan.h"

/* Rows that the engine copies itself: byte counts; offsets from the data of the two tensors. */
typedef struct row_copy {
    const terse_tensor *from, *to;
    size_t from_offset, to_offset, rows, bytes, from_stride, to_stride;
} row_copy;

typedef struct copy_list {
    int n;
    row_copy copies[];
} copy_list;

static int run_copies(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const copy_list *list = call->params;
    for (int i = 0; i < list->n; i++) {
        const row_copy *copy = &list->copies[i];
        const char *from = (const char *)copy->from->data + copy->from_offset;
        char *to = (char *)copy->to->data + copy->to_offset;
        for (size_t row = 0; row < copy->rows; row++, from += copy->from_stride, to += copy->to_stride)
            memcpy(to, from, copy->bytes);
    }
    return TERSE_OK;
}

static void add_copy(copy_list *list, row_copy copy)
{
    if (copy.bytes == copy.from_stride && copy.bytes == copy.to_stride) {
        copy.bytes *= copy.rows;
        copy.rows = 1;
    }
    list->copies[list->n++] = copy;
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
}

static const terse_tensor *tensor_of(const terse_plan *plan, int value)
{
    return value < 0 ? NULL : plan->live[value] ? plan->live[value] : plan->values[value];
}

/* The rows of the parts of a Concat or Split that do not lie in the whole by themselves. */
static copy_list *part_copies(terse_engine *engine, terse_plan *plan, const terse_node *node)
{
    const terse_workspace *work = &engine->work;
    const bool join = node->op == TERSE_OP_CONCAT;
    const int whole_value = join ? node->outputs[0] : node->inputs[0];
    const int n_parts = join ? node->n_inputs : node->n_outputs;
    const int *parts = join ? node->inputs : node->outputs;
    const terse_tensor *made = join ? NULL : work->made[node - engine->graph->nodes];
    const terse_tensor *whole = tensor_of(plan, whole_value);
    const terse_place base = work->places[whole_value];
    const int axis = terse_alias_axis(node, whole->rank);
    const size_t size = terse_dtype_size(whole->dtype);
    copy_list *list = terse_arena_alloc(plan->arena, sizeof *list + (size_t)n_parts * sizeof list->copies[0]);
    int64_t before = 0;
    for (int i = 0; list && i < n_parts; i++) {
        const int v = parts[i];
        if (v < 0 && join)
            continue;
        const terse_tensor *shape = join ? tensor_of(plan, v) : &made[i];
        const terse_tensor *part = v >= 0 && (join || work->last_use[v] >= 0) ? tensor_of(plan, v) : NULL;
        terse_place at;
        if (part && terse_tensor_count(part) > 0 && terse_alias_part(whole, base, part, axis, before, &at) &&
            !terse_alias_is_part(whole, base, part, axis, before, &work->places[v])) {
            const size_t bytes = (size_t)part->dims[part->rank - 1] * size;
            const size_t whole_stride = (size_t)whole->row_stride * size, part_stride = (size_t)part->row_stride * size;
            const size_t offset = at.offset - base.offset;
            add_copy(list, (row_copy){.from = join ? part : whole,
                                      .to = join ? whole : part,
                                      .from_offset = join ? 0 : offset,
                                      .to_offset = join ? offset : 0,
                                      .rows = (size_t)terse_dims_count(part->dims, part->rank - 1),
                                      .bytes = bytes,
                                      .from_stride = join ? part_stride : whole_stride,
                                      .to_stride = join ? whole_stride : part_stride});
        }
        before += shape->dims[axis];
    }
    return list;
}

static copy_list *view_copy(terse_plan *plan, const terse_node *node)
{
    copy_list *list = terse_arena_alloc(plan->arena, sizeof *list + sizeof list->copies[0]);
    const terse_tensor *to = tensor_of(plan, node->outputs[0]);
    if (list)
        add_copy(list, (row_copy){.from = tensor_of(plan, node->inputs[0]),
                                  .to = to,
                                  .rows = 1,
                                  .bytes = (size_t)terse_tensor_bytes(to)});
    return list;
}

/* Sorts a pointer to set into the list of its kind; constants are set for good. */
static void add_patch(terse_plan *plan, const terse_group *group, size_t offset, void **slot)
{
    const terse_patch patch = {.slot = slot,
                               .offset = offset,
                               .arena_offset = group->offset + offset,
                               .empty = group->size == 0,
                               .index = group->kind == TERSE_GROUP_INPUT ? group->index : group->output};
    if (group->kind == TERSE_GROUP_FIXED)
        *slot = (char *)group->fixed + offset;
    else if (group->kind == TERSE_GROUP_INPUT)
        plan->input_patches[plan->n_input_patches++] = patch;
    else if (group->output >= 0)
        plan->output_patches[plan->n_output_patches++] = patch;
    else
        plan->arena_patches[plan->n_arena_patches++] = patch;
}

static void add_tensor(terse_engine *engine, terse_plan *plan, int value, terse_tensor *tensor)
{
    const terse_place *place = &engine->work.places[value];
    *tensor = *plan->values[value];
    tensor->row_stride = place->row_stride;
    plan->live[value] = tensor;
    add_patch(plan, &engine->work.groups[place->group], place->offset, &tensor->data);
}

/* Room for the lists: an upper bound on each, from the kinds of the groups. */
static int make_room(terse_engine *engine, terse_plan *plan, terse_error *error)
{
    const terse_graph *graph = engine->graph;
    const terse_workspace *work = &engine->work;
    size_t n_input = 0, n_output = 0, n_arena = 0, n_steps = 0;
    for (int v = 0; v < graph->n_values; v++) {
        const terse_group *group = work->places[v].group < 0 ? NULL : &work->groups[work->places[v].group];
        if (!group || group->kind == TERSE_GROUP_FIXED)
            continue;
        n_input += group->kind == TERSE_GROUP_INPUT;
        n_output += group->kind == TERSE_GROUP_ARENA && group->output >= 0;
        n_arena += group->kind == TERSE_GROUP_ARENA && group->output < 0;
    }
    for (int n = 0; n < graph->n_nodes; n++) {
        n_steps += work->state[n] == TERSE_NODE_RUN || work->state[n] == TERSE_NODE_COPY;
        n_arena += work->scratch_group[n] >= 0;
    }
    plan->live = terse_arena_alloc(plan->arena, (size_t)(graph->n_values + 1) * sizeof *plan->live);
    plan->steps = terse_arena_alloc(plan->arena, (n_steps + 1) * sizeof *plan->steps);
    plan->copies = terse_arena_alloc(plan->arena, (size_t)(graph->n_outputs + 1) * sizeof *plan->copies);
    terse_patch *patches = terse_arena_alloc(plan->arena, (n_input + n_output + n_arena + 1) * sizeof *patches);
    if (!plan->live || !plan->steps || !plan->copies || !patches)
        return out_of_memory(error);
    plan->arena_patches = patches;
    plan->input_patches = patches + n_arena;
    plan->output_patches = patches + n_arena + n_input;
    return TERSE_OK;
}

static int build_step(terse_engine *engine, terse_plan *plan, int n, terse_error *error)
{
    const terse_node *node = &engine->graph->nodes[n];
    const terse_workspace *work = &engine->work;
    terse_tensor *outputs = terse_arena_alloc(plan->arena, (size_t)node->n_outputs * sizeof *outputs);
    const terse_tensor **inputs = terse_arena_alloc(plan->arena, (size_t)(node->n_inputs + 1) * sizeof *inputs);
    if (!outputs || !inputs)
        return out_of_memory(error);
    for (int i = 0; i < node->n_inputs; i++)
        inputs[i] = tensor_of(plan, node->inputs[i]);
    for (int i = 0; i < node->n_outputs; i++) {
        const int v = node->outputs[i];
        if (v >= 0 && work->last_use[v] >= 0)
            add_tensor(engine, plan, v, &outputs[i]);
        else
            outputs[i] = work->made[n][i];
    }
    if (work->state[n] == TERSE_NODE_ALIAS)
        return TERSE_OK;
    terse_step *step = &plan->steps[plan->n_steps++];
    step->node = n;
    step->run = engine->impls[n]->run;
    step->call = (terse_op_call){.node = node,
                                 .kernels = engine->kernels,
                                 .params = work->params[n],
                                 .n_inputs = node->n_inputs,
                                 .n_outputs = node->n_outputs,
                                 .inputs = inputs,
                                 .outputs = outputs};
    if (work->state[n] == TERSE_NODE_COPY) {
        step->run = run_copies;
        step->call.params = node->op == TERSE_OP_CONCAT || node->op == TERSE_OP_SPLIT ? part_copies(engine, plan, node)
                                                                                      : view_copy(plan, node);
        if (!step->call.params)
            return out_of_memory(error);
    }
    if (work->scratch_group[n] >= 0)
        add_patch(plan, &work->groups[work->scratch_group[n]], 0, &step->call.scratch);
    return TERSE_OK;
}

/* Products of bytes learn where the weights of the next one lie. */
static void look_ahead(terse_plan *plan)
{
    terse_ahead next = {0};
    for (int i = plan->n_steps - 1; i >= 0; i--) {
        terse_op_call *call = &plan->steps[i].call;
        const terse_tensor *weights = call->n_inputs > 1 ? call->inputs[1] : NULL;
        call->ahead = next;
        if (weights && weights->layout == TERSE_LAYOUT_S8_N16K4)
            next = (terse_ahead){weights->data, terse_tensor_bytes(weights)};
    }
}

int terse_steps_build(terse_engine *engine, terse_plan *plan, terse_error *error)
{
    const terse_graph *graph = engine->graph;
    const terse_workspace *work = &engine->work;
    int status = make_room(engine, plan, error);
    if (status != TERSE_OK)
        return status;
    terse_tensor *inputs = terse_arena_alloc(plan->arena, (size_t)(graph->n_inputs + 1) * sizeof *inputs);
    if (!inputs)
        return out_of_memory(error);
    for (int i = 0; i < graph->n_inputs; i++)
        if (work->places[graph->inputs[i]].group >= 0 && !plan->values[graph->inputs[i]]->data)
            add_tensor(engine, plan, graph->inputs[i], &inputs[i]);
    for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++)
        if (work->state[n] != TERSE_NODE_KNOWN)
            status = build_step(engine, plan, n, error);
    if (status != TERSE_OK)
        return status;
    look_ahead(plan);
    for (int i = 0; i < graph->n_outputs; i++) {
        const int v = graph->outputs[i];
        if (!plan->values[v]->data && work->groups[work->places[v].group].output == i)
            continue;
        const terse_tensor *from = tensor_of(plan, v);
        const size_t bytes = (size_t)terse_tensor_bytes(from);
        if (bytes)
            plan->copies[plan->n_copies++] = (terse_copy){.from = from, .bytes = bytes, .output = i};
    }
    return TERSE_OK;
}
