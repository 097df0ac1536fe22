/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c: the memory plan: which nodes run at all, where every value lies, and how large the arena must be. */
#include <stdlib.h>
#include <string.h>

#include "common/graph/plan.h"

/* Last uses, and nodes whose outputs nobody wants. */
static void find_uses(terse_engine *engine, const terse_plan *plan)
{
    const terse_graph *graph = engine->graph;
    terse_workspace *work = &engine->work;
    for (int v = 0; v < graph->n_values; v++)
        work->last_use[v] = -1;
    for (int i = 0; i < graph->n_outputs; i++)
        work->last_use[graph->outputs[i]] = graph->n_nodes;
    for (int n = graph->n_nodes - 1; n >= 0; n--) {
        const terse_node *node = &graph->nodes[n];
        if (work->state[n] == TERSE_NODE_KNOWN)
            continue;
        bool wanted = false;
        for (int i = 0; i < node->n_outputs; i++)
            wanted = wanted || (node->outputs[i] >= 0 && work->last_use[node->outputs[i]] >= 0);
        if (!wanted) {
            work->state[n] = TERSE_NODE_KNOWN;
            continue;
        }
        for (int i = 0; i < node->n_inputs; i++) {
            const int v = node->inputs[i];
            if (v >= 0 && !plan->values[v]->data && work->last_use[v] < n)
                work->last_use[v] = n;
        }
    }
}

static void reset(terse_engine *engine, const terse_plan *plan)
{
    const terse_graph *graph = engine->graph;
    terse_workspace *work = &engine->work;
    work->n_groups = 0;
    for (int v = 0; v < graph->n_values; v++)
        work->places[v].group = -1;
    for (int n = 0; n < graph->n_nodes; n++)
        work->scratch_group[n] = -1;
    for (int i = 0; i < graph->n_inputs; i++) {
        const int v = graph->inputs[i];
        if (plan->values[v]->data || work->last_use[v] < 0)
            continue;
        const int group = terse_alias_group(work, TERSE_GROUP_INPUT, (size_t)terse_tensor_bytes(plan->values[v]));
        work->groups[group].index = i;
        terse_alias_put(work, v, (terse_place){.group = group, .row_stride = plan->values[v]->row_stride});
    }
}

/* Nothing to compute: an operator need not cope with an empty output. */
static bool makes_nothing(const terse_engine *engine, int n)
{
    const terse_node *node = &engine->graph->nodes[n];
    for (int i = 0; i < node->n_outputs; i++)
        if (node->outputs[i] >= 0 && engine->work.last_use[node->outputs[i]] >= 0 &&
            terse_tensor_count(&engine->work.made[n][i]) > 0)
            return false;
    return true;
}

static void place_backwards(terse_engine *engine, const terse_plan *plan)
{
    for (int n = engine->graph->n_nodes - 1; n >= 0; n--) {
        if (engine->work.state[n] != TERSE_NODE_RUN || makes_nothing(engine, n))
            continue;
        if (engine->graph->nodes[n].op == TERSE_OP_CONCAT)
            terse_alias_concat(engine, plan, n);
        else
            terse_alias_view_back(engine, plan, n);
    }
}

static void place_node(terse_engine *engine, const terse_plan *plan, int n)
{
    terse_workspace *work = &engine->work;
    const terse_node *node = &engine->graph->nodes[n];
    if (makes_nothing(engine, n)) {
        work->state[n] = TERSE_NODE_ALIAS;
    } else if (!engine->separate) {
        if (node->op == TERSE_OP_CONCAT)
            terse_alias_joined(engine, plan, n);
        else if (node->op == TERSE_OP_SPLIT || node->op == TERSE_OP_SLICE)
            terse_alias_parts(engine, plan, n);
        else if (!terse_alias_view(engine, plan, n))
            terse_alias_in_place(engine, plan, n);
    }
    for (int i = 0; i < node->n_outputs; i++) {
        const int v = node->outputs[i];
        if (v < 0 || work->last_use[v] < 0)
            continue;
        if (work->places[v].group < 0) {
            const terse_tensor *shape = plan->values[v];
            const int group = terse_alias_group(work, TERSE_GROUP_ARENA, (size_t)terse_tensor_bytes(shape));
            terse_alias_put(work, v, (terse_place){.group = group, .row_stride = shape->row_stride});
        }
        terse_group *group = &work->groups[work->places[v].group];
        if (group->start > n)
            group->start = n;
    }
    if (work->state[n] == TERSE_NODE_RUN && work->scratch_bytes[n] > 0) {
        const int group = terse_alias_group(work, TERSE_GROUP_ARENA, work->scratch_bytes[n]);
        work->scratch_group[n] = group;
        work->groups[group].start = work->groups[group].end = n;
    }
}

/* A group that is one graph output and nothing more lies in the caller's buffer. */
static void bind_outputs(terse_engine *engine, const terse_plan *plan)
{
    const terse_graph *graph = engine->graph;
    terse_workspace *work = &engine->work;
    for (int i = 0; i < graph->n_outputs && !engine->separate; i++) {
        const int v = graph->outputs[i];
        const terse_place *place = &work->places[v];
        if (place->group < 0 || plan->values[v]->data)
            continue;
        terse_group *group = &work->groups[place->group];
        if (group->kind == TERSE_GROUP_ARENA && group->output < 0 && place->offset == 0 &&
            group->size == (size_t)terse_tensor_bytes(plan->values[v]))
            group->output = i;
    }
}

int terse_memory_plan(terse_engine *engine, terse_plan *plan, terse_error *error)
{
    terse_workspace *work = &engine->work;
    const int n_nodes = engine->graph->n_nodes;
    for (int n = 0; n < n_nodes; n++)
        if (work->state[n] != TERSE_NODE_KNOWN && work->scratch_bytes[n] > (size_t)TERSE_MAX_TENSOR_BYTES)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                              "node '%s' needs %zu bytes of scratch, at most %lld are allowed",
                              engine->graph->nodes[n].name, work->scratch_bytes[n], (long long)TERSE_MAX_TENSOR_BYTES);
    find_uses(engine, plan);
    reset(engine, plan);
    if (!engine->separate)
        place_backwards(engine, plan);
    for (int n = 0; n < n_nodes; n++)
        if (work->state[n] != TERSE_NODE_KNOWN)
            place_node(engine, plan, n);
    bind_outputs(engine, plan);
    plan->arena_bytes = engine->separate ? terse_offsets_separate(work->groups, work->n_groups)
                                         : terse_offsets_assign(work->groups, work->n_groups, work->order);
    if (engine->max_arena_bytes > 0 && plan->arena_bytes > engine->max_arena_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "these shapes need %zu bytes of activations, at most %zu are allowed", plan->arena_bytes,
                          engine->max_arena_bytes);
    return TERSE_OK;
}
