/* SPDX-License-Identifier: Apache-2.0 */
/* run.c: runs a plan. Nothing here allocates. */
#include <string.h>

#include "common/graph/plan.h"

void terse_run_bind(terse_plan *plan)
{
    char *base = plan->engine->base;
    for (int i = 0; i < plan->n_arena_patches; i++)
        *plan->arena_patches[i].slot = base + plan->arena_patches[i].arena_offset;
    plan->base = base;
}

/* Points the plan's tensors at the caller's buffers. */
static int bind_buffers(terse_plan *plan, const void *const *inputs, void *const *outputs, terse_error *error)
{
    char *base = plan->base;
    for (int i = 0; i < plan->n_input_patches; i++) {
        const terse_patch *patch = &plan->input_patches[i];
        const char *data = inputs[patch->index];
        if (!data && !patch->empty) {
            const terse_graph *graph = plan->engine->graph;
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' has no data",
                              graph->values[graph->inputs[patch->index]].name);
        }
        *patch->slot = data ? (void *)(uintptr_t)(data + patch->offset) : base;
    }
    for (int i = 0; i < plan->n_output_patches; i++) {
        const terse_patch *patch = &plan->output_patches[i];
        char *data = outputs[patch->index];
        *patch->slot = data ? data + patch->offset : base + patch->arena_offset;
    }
    return TERSE_OK;
}

static int fail_step(const terse_plan *plan, const terse_step *step, int status, terse_error *error)
{
    const terse_node *node = &plan->engine->graph->nodes[step->node];
    terse_error_prefix(error, "node '%s' (%s)", node->name, terse_op_name(node->op));
    return status;
}

/* --- several threads ----------------------------------------------------------------------------------------- */

/* A step is done in parts when that was clearly faster: threads that wait for one another lose what others take. */
static void choose(terse_plan *plan)
{
    const terse_engine *engine = plan->engine;
    for (int i = 0; i < plan->n_steps; i++) {
        terse_step *step = &plan->steps[i];
        const bool faster = (double)step->times[1] < 0.95 * (double)step->times[0];
        step->call.kernels =
            engine->split_mode == TERSE_SPLIT_ALWAYS || faster ? &engine->split->table : engine->kernels;
    }
}

/* One run that measures. Both ways give the same bits. */
static int run_trial(terse_plan *plan, terse_error *error)
{
    const terse_engine *engine = plan->engine;
    const int trial = plan->trial, way = trial & 1;
    for (int i = 0; i < plan->n_steps; i++) {
        terse_step *step = &plan->steps[i];
        step->call.kernels = way ? &engine->split->table : engine->kernels;
        const uint64_t begin = terse_now_ns();
        const int status = step->run(&step->call, error);
        const uint64_t time = terse_now_ns() - begin;
        if (status != TERSE_OK)
            return fail_step(plan, step, status, error);
        if (trial <= 2 || time < step->times[way])
            step->times[way] = trial == 0 ? UINT64_MAX : time;
    }
    plan->trial++;
    if (plan->trial == TERSE_TRIALS)
        choose(plan);
    return TERSE_OK;
}

bool terse_plan_measuring(const terse_plan *plan)
{
    return plan->engine->split && plan->engine->split_mode == TERSE_SPLIT_MEASURED && plan->trial < TERSE_TRIALS;
}

static int run_steps(const terse_plan *plan, terse_error *error)
{
    const terse_step *end = plan->steps + plan->n_steps;
    for (const terse_step *step = plan->steps; step < end; step++) {
        const int status = step->run(&step->call, error);
        if (__builtin_expect(status != TERSE_OK, 0))
            return fail_step(plan, step, status, error);
    }
    return TERSE_OK;
}

static void observe(const terse_plan *plan, const terse_node *node)
{
    for (int i = 0; i < node->n_outputs; i++)
        if (node->outputs[i] >= 0 && plan->live[node->outputs[i]])
            plan->observer(plan->observer_context, node->outputs[i], plan->live[node->outputs[i]]);
}

/* Node by node, so that values without a step of their own (aliases) are seen too. */
static int run_watched(const terse_plan *plan, terse_error *error)
{
    const terse_graph *graph = plan->engine->graph;
    const terse_step *step = plan->steps, *end = plan->steps + plan->n_steps;
    for (int n = 0; n < graph->n_nodes; n++) {
        if (step < end && step->node == n) {
            const uint64_t begin = plan->times ? terse_now_ns() : 0;
            const int status = step->run(&step->call, error);
            if (plan->times)
                plan->times[n] += terse_now_ns() - begin;
            if (status != TERSE_OK)
                return fail_step(plan, step, status, error);
            step++;
        }
        if (plan->observer)
            observe(plan, &graph->nodes[n]);
    }
    return TERSE_OK;
}

int terse_plan_run(terse_plan *plan, const void *const *inputs, void *const *outputs, terse_error *error)
{
    int status = bind_buffers(plan, inputs, outputs, error);
    if (status != TERSE_OK)
        return status;
    const terse_split *before = terse_split_enter(plan->engine->split);
    if (plan->engine->split && plan->engine->split_mode == TERSE_SPLIT_ALWAYS)
        choose(plan);
    if (plan->times || plan->observer)
        status = run_watched(plan, error);
    else
        status = terse_plan_measuring(plan) ? run_trial(plan, error) : run_steps(plan, error);
    terse_split_enter(before);
    if (status != TERSE_OK)
        return status;
    for (int i = 0; i < plan->n_copies; i++) {
        const terse_copy *copy = &plan->copies[i];
        if (outputs[copy->output])
            memcpy(outputs[copy->output], copy->from->data, copy->bytes);
    }
    return TERSE_OK;
}

void terse_plan_profile(terse_plan *plan, uint64_t *times)
{
    plan->times = times;
}

void terse_plan_observe(terse_plan *plan, terse_observer *observer, void *context)
{
    plan->observer = observer;
    plan->observer_context = context;
}
