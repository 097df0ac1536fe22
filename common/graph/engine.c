/* SPDX-License-Identifier: Apache-2.0 */
/* engine.c: what is known of a graph before any shape is; the checks of the caller's inputs; the cache of plans and the
 * arena that they share. */
#include "common/graph/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

/* The graph's constants as tensors. */
static bool make_fixed(terse_engine *engine)
{
    const terse_graph *graph = engine->graph;
    size_t n_constants = 0;
    for (int v = 0; v < graph->n_values; v++)
        n_constants += graph->values[v].data != NULL;
    terse_tensor *tensors = terse_arena_alloc(engine->tables, (n_constants + 1) * sizeof *tensors);
    if (!tensors)
        return false;
    for (int v = 0; v < graph->n_values; v++) {
        const terse_value *value = &graph->values[v];
        if (!value->data)
            continue;
        *tensors = terse_tensor_view((void *)(uintptr_t)value->data, value->dtype, value->rank, value->dims);
        tensors->layout = value->layout;
        engine->fixed[v] = tensors++;
    }
    return true;
}

/* Makers and readers of every value. */
static bool make_uses(terse_engine *engine)
{
    const terse_graph *graph = engine->graph;
    size_t n_uses = 0;
    for (int v = 0; v < graph->n_values; v++)
        engine->maker[v] = -1;
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        for (int i = 0; i < node->n_outputs; i++)
            if (node->outputs[i] >= 0)
                engine->maker[node->outputs[i]] = n;
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0) {
                engine->use_start[node->inputs[i] + 1]++;
                n_uses++;
            }
    }
    for (int v = 0; v < graph->n_values; v++)
        engine->use_start[v + 1] += engine->use_start[v];
    engine->uses = terse_arena_alloc(engine->tables, (n_uses + 1) * sizeof *engine->uses);
    TERSE_AUTO(terse_freep) int *next = malloc((size_t)(graph->n_values + 1) * sizeof *next);
    if (!engine->uses || !next)
        return false;
    memcpy(next, engine->use_start, (size_t)graph->n_values * sizeof *next);
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_inputs; i++)
            if (graph->nodes[n].inputs[i] >= 0)
                engine->uses[next[graph->nodes[n].inputs[i]]++] = n;
    for (int i = 0; i < graph->n_outputs; i++)
        engine->is_output[graph->outputs[i]] = true;
    return true;
}

/* Backwards from the operands that must be known when a plan is made. Shape ends the walk: it needs no data. */
static void find_value_inputs(terse_engine *engine)
{
    const terse_graph *graph = engine->graph;
    for (int n = graph->n_nodes - 1; n >= 0; n--) {
        const terse_node *node = &graph->nodes[n];
        const unsigned operands = engine->impls[n] ? engine->impls[n]->value_inputs : 0;
        bool needed = false;
        for (int i = 0; i < node->n_outputs; i++)
            needed = needed || (node->outputs[i] >= 0 && engine->needed[node->outputs[i]]);
        needed = needed && node->op != TERSE_OP_SHAPE;
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0 && (needed || (i < 32 && operands >> i & 1u)))
                engine->needed[node->inputs[i]] = true;
    }
    for (int i = 0; i < graph->n_inputs && i < 64; i++)
        if (engine->needed[graph->inputs[i]])
            engine->value_inputs |= (uint64_t)1 << i;
}

/* All tables whose size is known from the counts alone. */
static bool make_tables(terse_engine *engine)
{
    const terse_graph *graph = engine->graph;
    const size_t n_values = (size_t)graph->n_values + 2, n_nodes = (size_t)graph->n_nodes + 1;
    terse_arena *arena = engine->tables;
    terse_workspace *work = &engine->work;
    engine->impls = terse_arena_alloc(arena, n_nodes * sizeof *engine->impls);
    engine->fixed = terse_arena_alloc(arena, n_values * sizeof *engine->fixed);
    engine->maker = terse_arena_alloc(arena, n_values * sizeof *engine->maker);
    engine->use_start = terse_arena_alloc(arena, n_values * sizeof *engine->use_start);
    engine->is_output = terse_arena_alloc(arena, n_values * sizeof *engine->is_output);
    engine->needed = terse_arena_alloc(arena, n_values * sizeof *engine->needed);
    work->params = terse_arena_alloc(arena, n_nodes * sizeof *work->params);
    work->scratch_bytes = terse_arena_alloc(arena, n_nodes * sizeof *work->scratch_bytes);
    work->made = terse_arena_alloc(arena, n_nodes * sizeof *work->made);
    work->state = terse_arena_alloc(arena, n_nodes * sizeof *work->state);
    work->scratch_group = terse_arena_alloc(arena, n_nodes * sizeof *work->scratch_group);
    work->last_use = terse_arena_alloc(arena, n_values * sizeof *work->last_use);
    work->places = terse_arena_alloc(arena, n_values * sizeof *work->places);
    /* At most one group for each value and one for the scratch of each node. */
    work->groups = terse_arena_alloc(arena, (n_values + n_nodes) * sizeof *work->groups);
    work->order = terse_arena_alloc(arena, (n_values + n_nodes) * sizeof *work->order);
    return engine->impls && engine->fixed && engine->maker && engine->use_start && engine->is_output &&
           engine->needed && work->params && work->scratch_bytes && work->made && work->state && work->scratch_group &&
           work->last_use && work->places && work->groups && work->order && make_fixed(engine) && make_uses(engine);
}

/* The groups that a constant was packed by must be those that its reader takes it apart by. */
static int check_groups(const terse_graph *graph, terse_error *error)
{
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        for (int i = 0; i < node->n_inputs; i++) {
            const terse_value *value = node->inputs[i] < 0 ? NULL : &graph->values[node->inputs[i]];
            if (!value || !value->data || value->layout == TERSE_LAYOUT_PLAIN ||
                value->layout == TERSE_LAYOUT_F32_DW16 || value->layout == TERSE_LAYOUT_S8_DW ||
                value->groups == terse_node_int(node, "group", 1))
                continue;
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "node '%s' (%s) has group %lld, tensor '%s' is packed by %lld groups", node->name,
                              terse_op_name(node->op), (long long)terse_node_int(node, "group", 1), value->name,
                              (long long)value->groups);
        }
    }
    return TERSE_OK;
}

int terse_engine_new_with(const terse_graph *graph, const terse_kernels *kernels, int max_plans, size_t max_arena_bytes,
                          terse_op_finder *find, terse_engine **ret_engine, terse_error *error)
{
    int status = terse_graph_check(graph, error);
    if (status == TERSE_OK)
        status = check_groups(graph, error);
    if (status != TERSE_OK)
        return status;
    if (graph->n_symbols > TERSE_MAX_SYMBOLS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the graph has %d symbols, at most %d are allowed",
                          graph->n_symbols, TERSE_MAX_SYMBOLS);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = calloc(1, sizeof *engine);
    if (engine) {
        engine->graph = graph;
        engine->kernels = kernels;
        engine->max_plans = max_plans > 1 ? max_plans : 1;
        engine->max_arena_bytes = max_arena_bytes;
        engine->tables = terse_arena_new();
    }
    if (!engine || !engine->tables || !make_tables(engine))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a graph of %d nodes", graph->n_nodes);
    for (int n = 0; n < graph->n_nodes; n++)
        engine->impls[n] = find(graph->nodes[n].op);
    find_value_inputs(engine);
    *ret_engine = TERSE_TAKE(engine);
    return TERSE_OK;
}

int terse_engine_new(const terse_graph *graph, const terse_kernels *kernels, int max_plans, size_t max_arena_bytes,
                     terse_engine **ret_engine, terse_error *error)
{
    return terse_engine_new_with(graph, kernels, max_plans, max_arena_bytes, terse_op_find, ret_engine, error);
}

void terse_engine_free(terse_engine *engine)
{
    if (!engine)
        return;
    for (terse_plan *plan = engine->newest, *older; plan; plan = older) {
        older = plan->older;
        terse_plan_free(plan);
    }
    terse_arena_free(engine->tables);
    free(engine->base);
    free(engine->key);
    free(engine->split);
    free(engine);
}

void terse_engine_freep(terse_engine **engine)
{
    terse_engine_free(*engine);
}

uint64_t terse_engine_value_inputs(const terse_engine *engine)
{
    return engine->value_inputs;
}

int terse_engine_use_threads(terse_engine *engine, terse_threads *threads, int n, terse_error *error)
{
    if (n <= 1 || terse_threads_count(threads) <= 1)
        return TERSE_OK;
    if (engine->n_plans > 0)
        return terse_fail(error, TERSE_INTERNAL, "threads come after the first plan");
    if (!engine->split && !(engine->split = malloc(sizeof *engine->split)))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a table of kernels");
    terse_split_init(engine->split, engine->kernels, threads, n);
    return TERSE_OK;
}

const terse_kernels *terse_engine_kernels(const terse_engine *engine)
{
    return engine->split ? &engine->split->table : engine->kernels;
}

void terse_engine_set_split_mode(terse_engine *engine, terse_split_mode mode)
{
    engine->split_mode = mode;
}

void terse_engine_set_separate(terse_engine *engine, bool separate)
{
    engine->separate = separate;
}

/* Which input bound a symbol: the first that names it. */
static const char *binder(const terse_graph *graph, int symbol)
{
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        for (int axis = 0; axis < value->rank; axis++)
            if (value->dims[axis] < 0 && TERSE_SYMBOL_OF_DIM(value->dims[axis]) == symbol)
                return value->name;
    }
    return "?";
}

static int fail_shape(const terse_graph *graph, const terse_value *stated, const terse_tensor *input, int axis,
                      const int64_t *symbols, terse_error *error)
{
    char found[128], allowed[TERSE_MAX_NAME];
    terse_dims_text(input->dims, input->rank, found, sizeof found);
    terse_value_text(graph, stated, allowed, sizeof allowed);
    if (axis < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' has shape %s, %s is needed", stated->name, found,
                          allowed);
    const int64_t dim = stated->dims[axis];
    if (dim >= 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input '%s' has shape %s, %s is needed: axis %d must be %" PRId64, stated->name, found,
                          allowed, axis, dim);
    const int symbol = TERSE_SYMBOL_OF_DIM(dim);
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "input '%s' has shape %s, %s is needed: '%s' is %" PRId64
                      " on axis %d, input '%s' made it %" PRId64,
                      stated->name, found, allowed, graph->symbols[symbol], input->dims[axis], axis,
                      binder(graph, symbol), symbols[symbol]);
}

static int check_input(const terse_engine *engine, int index, const terse_tensor *input, int64_t *symbols,
                       terse_error *error)
{
    const terse_graph *graph = engine->graph;
    const terse_value *stated = &graph->values[graph->inputs[index]];
    if (input->dtype != stated->dtype)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' is %s, %s is needed", stated->name,
                          terse_dtype_name(input->dtype), terse_dtype_name(stated->dtype));
    if (input->rank < 0 || input->rank > TERSE_MAX_RANK)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' has rank %d, %d is needed", stated->name,
                          input->rank, stated->rank);
    const int64_t count = terse_dims_count(input->dims, input->rank);
    if (count < 0 || count > TERSE_MAX_TENSOR_BYTES / (int64_t)terse_dtype_size(input->dtype)) {
        char found[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' has shape %s, which is negative or too large",
                          stated->name, terse_dims_text(input->dims, input->rank, found, sizeof found));
    }
    int axis;
    if (!terse_plan_fits(stated, input->dims, input->rank, symbols, &axis))
        return fail_shape(graph, stated, input, axis, symbols, error);
    if (index >= 64 || !(engine->value_inputs >> index & 1u) || count == 0)
        return TERSE_OK;
    if (!input->data)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the values of input '%s' are needed: shapes depend on them",
                          stated->name);
    const size_t bytes = (size_t)terse_tensor_bytes(input);
    if (bytes > TERSE_KNOWN_NEEDED_BYTES)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "input '%s', on whose values shapes depend, has %zu bytes, at most %zu are allowed",
                          stated->name, bytes, TERSE_KNOWN_NEEDED_BYTES);
    return TERSE_OK;
}

/* The key of a plan: all dims (ranks are fixed by the graph), then the bytes of the value inputs. */
static int make_key(terse_engine *engine, const terse_tensor *inputs, size_t *ret_bytes, terse_error *error)
{
    const int n = engine->graph->n_inputs;
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        bytes += (size_t)inputs[i].rank * sizeof(int64_t);
        if (i < 64 && engine->value_inputs >> i & 1u)
            bytes += (size_t)terse_tensor_bytes(&inputs[i]);
    }
    if (bytes > engine->key_capacity) {
        unsigned char *bigger = realloc(engine->key, bytes);
        if (!bigger)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes of inputs", bytes);
        engine->key = bigger;
        engine->key_capacity = bytes;
    }
    unsigned char *at = engine->key;
    for (int i = 0; i < n; i++) {
        const size_t dims = (size_t)inputs[i].rank * sizeof(int64_t);
        if (dims)
            memcpy(at, inputs[i].dims, dims);
        at += dims;
    }
    for (int i = 0; i < n && i < 64; i++)
        if (engine->value_inputs >> i & 1u) {
            const size_t size = (size_t)terse_tensor_bytes(&inputs[i]);
            if (size)
                memcpy(at, inputs[i].data, size);
            at += size;
        }
    *ret_bytes = bytes;
    return TERSE_OK;
}

static void unlink_plan(terse_engine *engine, terse_plan *plan)
{
    *(plan->newer ? &plan->newer->older : &engine->newest) = plan->older;
    *(plan->older ? &plan->older->newer : &engine->oldest) = plan->newer;
    plan->newer = plan->older = NULL;
    engine->n_plans--;
}

static void link_plan(terse_engine *engine, terse_plan *plan)
{
    plan->older = engine->newest;
    *(engine->newest ? &engine->newest->newer : &engine->oldest) = plan;
    engine->newest = plan;
    engine->n_plans++;
}

static terse_plan *find_plan(terse_engine *engine, uint64_t hash, size_t key_bytes)
{
    for (terse_plan *plan = engine->newest; plan; plan = plan->older) {
        if (plan->hash != hash || plan->key_bytes != key_bytes ||
            (key_bytes && memcmp(plan->key, engine->key, key_bytes) != 0))
            continue;
        if (plan != engine->newest) {
            unlink_plan(engine, plan);
            link_plan(engine, plan);
        }
        return plan;
    }
    return NULL;
}

enum { HUGE_PAGE = 2 * 1024 * 1024 }; /* on x86-64, and with pages of 4 KiB on aarch64 */

/* The arena only grows; what it held is of no use to the next run, so it is not copied. */
static int grow_arena(terse_engine *engine, size_t bytes, terse_error *error)
{
    bytes = terse_align(bytes ? bytes : 1, 64);
    if (engine->base && engine->base_bytes >= bytes)
        return TERSE_OK;
    free(engine->base);
    engine->base_bytes = 0;
    const bool huge = terse_align(bytes, HUGE_PAGE) - bytes <= bytes / 4;
    if (huge)
        bytes = terse_align(bytes, HUGE_PAGE);
    engine->base = aligned_alloc(huge ? HUGE_PAGE : 64, bytes);
    if (!engine->base)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes of activations", bytes);
    if (huge)
        (void)madvise(engine->base, bytes, MADV_HUGEPAGE); /* a hint: fewer faults and misses of the TLB */
    engine->base_bytes = bytes;
    return TERSE_OK;
}

static int new_plan(terse_engine *engine, const terse_tensor *inputs, int64_t *symbols, uint64_t hash, size_t key_bytes,
                    terse_plan **ret_plan, terse_error *error)
{
    terse_plan *plan;
    const terse_split *before = terse_split_enter(engine->split);
    const int status = terse_plan_make(engine, inputs, symbols, &plan, error);
    terse_split_enter(before);
    if (status != TERSE_OK)
        return status;
    void *key = terse_arena_alloc(plan->arena, key_bytes + 1);
    if (!key) {
        terse_plan_free(plan);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
    }
    if (key_bytes)
        memcpy(key, engine->key, key_bytes);
    plan->key = key;
    plan->key_bytes = key_bytes;
    plan->hash = hash;
    while (engine->n_plans >= engine->max_plans) {
        terse_plan *last = engine->oldest;
        unlink_plan(engine, last);
        terse_plan_free(last);
    }
    link_plan(engine, plan);
    *ret_plan = plan;
    return TERSE_OK;
}

int terse_engine_plan(terse_engine *engine, const terse_tensor *inputs, terse_plan **ret_plan, terse_error *error)
{
    int64_t symbols[TERSE_MAX_SYMBOLS];
    memset(symbols, -1, (size_t)engine->graph->n_symbols * sizeof *symbols);
    int status = TERSE_OK;
    for (int i = 0; i < engine->graph->n_inputs && status == TERSE_OK; i++)
        status = check_input(engine, i, &inputs[i], symbols, error);
    size_t key_bytes = 0;
    if (status == TERSE_OK)
        status = make_key(engine, inputs, &key_bytes, error);
    if (status != TERSE_OK)
        return status;
    const uint64_t hash = XXH3_64bits(engine->key, key_bytes);
    terse_plan *plan = find_plan(engine, hash, key_bytes);
    if (!plan)
        status = new_plan(engine, inputs, symbols, hash, key_bytes, &plan, error);
    if (status == TERSE_OK)
        status = grow_arena(engine, plan->arena_bytes, error);
    if (status != TERSE_OK)
        return status;
    if (plan->base != engine->base)
        terse_run_bind(plan);
    *ret_plan = plan;
    return TERSE_OK;
}
