/* SPDX-License-Identifier: Apache-2.0 */
/* plan.c: makes a plan: asks every operator for the shapes of its outputs and computes at once what depends on shapes
 * and known values only, so that Reshape, Slice, Expand, Range or Resize further down find their operands. */
#include "common/graph/plan.h"

#include <inttypes.h>
#include <string.h>

bool terse_plan_fits(const terse_value *value, const int64_t *dims, int rank, int64_t *symbols, int *ret_axis)
{
    *ret_axis = -1;
    if (value->rank != rank)
        return false;
    for (int i = 0; i < rank; i++) {
        int64_t allowed = value->dims[i];
        if (allowed < 0) {
            int64_t *symbol = &symbols[TERSE_SYMBOL_OF_DIM(allowed)];
            if (*symbol < 0)
                *symbol = dims[i];
            allowed = *symbol;
        }
        if (allowed != dims[i]) {
            *ret_axis = i;
            return false;
        }
    }
    return true;
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
}

/* Value inputs are copied: the caller's bytes may change between making the plan and running it. */
static int add_inputs(terse_engine *engine, terse_plan *plan, const terse_tensor *inputs, terse_error *error)
{
    const terse_graph *graph = engine->graph;
    terse_tensor *copies = terse_arena_alloc(plan->arena, (size_t)(graph->n_inputs + 1) * sizeof *copies);
    if (!copies)
        return out_of_memory(error);
    for (int i = 0; i < graph->n_inputs; i++) {
        copies[i] = terse_tensor_view(NULL, inputs[i].dtype, inputs[i].rank, inputs[i].dims);
        plan->values[graph->inputs[i]] = &copies[i];
        if (i >= 64 || !(engine->value_inputs >> i & 1u))
            continue;
        const size_t bytes = (size_t)terse_tensor_bytes(&copies[i]);
        copies[i].data = terse_arena_alloc(plan->arena, bytes ? bytes : 1);
        if (!copies[i].data)
            return out_of_memory(error);
        if (bytes)
            memcpy(copies[i].data, inputs[i].data, bytes);
    }
    return TERSE_OK;
}

/* Whether the node's outputs can be computed while the plan is made, and are worth it. */
static bool compute_now(const terse_engine *engine, const terse_plan *plan, const terse_op_plan *op_plan)
{
    const terse_node *node = op_plan->node;
    for (int i = 0; i < op_plan->n_inputs; i++)
        if (op_plan->inputs[i] && !op_plan->inputs[i]->data && node->op != TERSE_OP_SHAPE)
            return false;
    bool needed = false;
    for (int i = 0; i < node->n_outputs; i++)
        needed = needed || (node->outputs[i] >= 0 && engine->needed[node->outputs[i]]);
    const size_t bytes = terse_evaluate_bytes(op_plan);
    return bytes <= (needed ? TERSE_KNOWN_NEEDED_BYTES : TERSE_KNOWN_SPARED_BYTES) &&
           bytes <= TERSE_KNOWN_TOTAL_BYTES - plan->known_bytes;
}

static int plan_node(terse_engine *engine, terse_plan *plan, int n, terse_error *error)
{
    const terse_node *node = &engine->graph->nodes[n];
    const terse_op_impl *impl = engine->impls[n];
    terse_workspace *work = &engine->work;
    if (!impl)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "this build has no such operator");
    const terse_tensor *inputs[TERSE_MAX_NODE_IO];
    for (int i = 0; i < node->n_inputs; i++)
        inputs[i] = node->inputs[i] == TERSE_NO_VALUE ? NULL : plan->values[node->inputs[i]];
    terse_op_plan op_plan = {.node = node,
                             .kernels = terse_engine_kernels(engine),
                             .n_inputs = node->n_inputs,
                             .n_outputs = node->n_outputs,
                             .inputs = inputs,
                             .arena = plan->arena};
    op_plan.outputs = terse_arena_alloc(plan->arena, (size_t)(node->n_outputs + 1) * sizeof *op_plan.outputs);
    if (!op_plan.outputs)
        return out_of_memory(error);
    int status = terse_evaluate_plan(impl, &op_plan, error);
    if (status != TERSE_OK)
        return status;
    work->params[n] = op_plan.params;
    work->scratch_bytes[n] = op_plan.scratch_bytes;
    work->made[n] = op_plan.outputs;
    work->state[n] = compute_now(engine, plan, &op_plan) ? TERSE_NODE_KNOWN : TERSE_NODE_RUN;
    if (work->state[n] == TERSE_NODE_KNOWN) {
        status = terse_evaluate_run(impl, &op_plan, error);
        plan->known_bytes += terse_evaluate_bytes(&op_plan) - op_plan.scratch_bytes;
    } else {
        const int64_t macs = terse_macs_count(node, inputs, node->n_inputs, &op_plan.outputs[0]);
        if (__builtin_add_overflow(plan->macs, macs, &plan->macs))
            plan->macs = INT64_MAX;
    }
    for (int i = 0; i < node->n_outputs; i++)
        if (node->outputs[i] >= 0)
            plan->values[node->outputs[i]] = &op_plan.outputs[i];
    return status;
}

static int check_outputs(terse_engine *engine, terse_plan *plan, int64_t *symbols, terse_error *error)
{
    const terse_graph *graph = engine->graph;
    plan->outputs = terse_arena_alloc(plan->arena, (size_t)(graph->n_outputs + 1) * sizeof *plan->outputs);
    if (!plan->outputs)
        return out_of_memory(error);
    for (int i = 0; i < graph->n_outputs; i++) {
        const terse_value *stated = &graph->values[graph->outputs[i]];
        const terse_tensor *made = plan->values[graph->outputs[i]];
        int axis;
        char found[128], allowed[1024];
        plan->outputs[i] = terse_tensor_view(NULL, made->dtype, made->rank, made->dims);
        if (stated->dtype != TERSE_DTYPE_NONE && stated->dtype != made->dtype)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%s' is %s, the model states %s", stated->name,
                              terse_dtype_name(made->dtype), terse_dtype_name(stated->dtype));
        if (stated->rank >= 0 && !terse_plan_fits(stated, made->dims, made->rank, symbols, &axis))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%s' has shape %s, the model states %s",
                              stated->name, terse_dims_text(made->dims, made->rank, found, sizeof found),
                              terse_value_text(graph, stated, allowed, sizeof allowed));
    }
    return TERSE_OK;
}

static int make(terse_engine *engine, terse_plan *plan, const terse_tensor *inputs, int64_t *symbols,
                terse_error *error)
{
    const terse_graph *graph = engine->graph;
    plan->values = terse_arena_alloc(plan->arena, (size_t)(graph->n_values + 1) * sizeof *plan->values);
    if (!plan->values)
        return out_of_memory(error);
    memcpy(plan->values, engine->fixed, (size_t)graph->n_values * sizeof *plan->values);
    int status = add_inputs(engine, plan, inputs, error);
    for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
        status = plan_node(engine, plan, n, error);
        if (status != TERSE_OK)
            terse_error_prefix(error, "node '%s' (%s)", graph->nodes[n].name, terse_op_name(graph->nodes[n].op));
    }
    if (status == TERSE_OK)
        status = check_outputs(engine, plan, symbols, error);
    if (status == TERSE_OK)
        status = terse_memory_plan(engine, plan, error);
    return status == TERSE_OK ? terse_steps_build(engine, plan, error) : status;
}

int terse_plan_make(terse_engine *engine, const terse_tensor *inputs, int64_t *symbols, terse_plan **ret_plan,
                    terse_error *error)
{
    terse_arena *arena = terse_arena_new();
    terse_plan *plan = arena ? terse_arena_alloc(arena, sizeof *plan) : NULL;
    if (!plan) {
        terse_arena_free(arena);
        return out_of_memory(error);
    }
    plan->arena = arena;
    plan->engine = engine;
    const int status = make(engine, plan, inputs, symbols, error);
    if (status != TERSE_OK) {
        terse_plan_free(plan);
        return status;
    }
    *ret_plan = plan;
    return TERSE_OK;
}

void terse_plan_free(terse_plan *plan)
{
    if (plan)
        terse_arena_free(plan->arena); /* the plan itself lies in it */
}

const terse_tensor *terse_plan_output(const terse_plan *plan, int index)
{
    return &plan->outputs[index];
}

const terse_tensor *terse_plan_value(const terse_plan *plan, int value)
{
    return value < 0 || value >= plan->engine->graph->n_values ? NULL : plan->values[value];
}

size_t terse_plan_arena_bytes(const terse_plan *plan)
{
    return plan->arena_bytes;
}

int64_t terse_plan_macs(const terse_plan *plan)
{
    return plan->macs;
}
