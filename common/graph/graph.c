/* SPDX-License-Identifier: Apache-2.0 */
#include "common/graph/graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sparse.h"

static const char *const op_names[] = {
#define NAME(upper, lower, name) [TERSE_OP_##upper] = name,
    TERSE_OPS(NAME)
#undef NAME
};

const char *terse_op_name(terse_op op)
{
    return (unsigned)op < TERSE_OP_COUNT ? op_names[op] : "?";
}

terse_op terse_op_from_name(const char *name, size_t length)
{
    for (int i = 0; i < TERSE_OP_COUNT; i++)
        if (strlen(op_names[i]) == length && memcmp(op_names[i], name, length) == 0)
            return (terse_op)i;
    return TERSE_OP_COUNT;
}

bool terse_op_is_arithmetic(terse_op op)
{
    switch (op) {
    case TERSE_OP_RELU:
    case TERSE_OP_LEAKY_RELU:
    case TERSE_OP_CLIP:
    case TERSE_OP_SIGMOID:
    case TERSE_OP_HARD_SIGMOID:
    case TERSE_OP_HARD_SWISH:
    case TERSE_OP_TANH:
    case TERSE_OP_ERF:
    case TERSE_OP_GELU:
    case TERSE_OP_EXP:
    case TERSE_OP_LOG:
    case TERSE_OP_SQRT:
    case TERSE_OP_NEG:
    case TERSE_OP_ABS:
    case TERSE_OP_RECIPROCAL:
    case TERSE_OP_SIN:
    case TERSE_OP_COS:
    case TERSE_OP_FLOOR:
    case TERSE_OP_CEIL:
    case TERSE_OP_ROUND:
    case TERSE_OP_SIGN:
    case TERSE_OP_ELU:
    case TERSE_OP_SELU:
    case TERSE_OP_SOFTPLUS:
    case TERSE_OP_SOFTSIGN:
    case TERSE_OP_ADD:
    case TERSE_OP_SUB:
    case TERSE_OP_MUL:
    case TERSE_OP_DIV:
    case TERSE_OP_POW:
    case TERSE_OP_MOD:
    case TERSE_OP_MIN:
    case TERSE_OP_MAX:
    case TERSE_OP_PRELU:
        return true;
    default:
        return false;
    }
}

terse_graph *terse_graph_new(void)
{
    terse_graph *graph = calloc(1, sizeof *graph);
    if (!graph)
        return NULL;
    graph->arena = terse_arena_new();
    if (!graph->arena) {
        free(graph);
        return NULL;
    }
    graph->name = "";
    return graph;
}

void terse_graph_free(terse_graph *graph)
{
    if (!graph)
        return;
    free(graph->nodes);
    free(graph->values);
    terse_arena_free(graph->arena);
    free(graph);
}

void terse_graph_freep(terse_graph **graph)
{
    terse_graph_free(*graph);
}

/* Makes room for one more element; capacity doubles up to `limit`. */
static void *grow(void *array, int count, int *capacity, int limit, size_t element)
{
    if (count < *capacity)
        return array;
    if (count >= limit)
        return NULL;
    int wanted = *capacity ? *capacity * 2 : 64;
    if (wanted > limit)
        wanted = limit;
    void *bigger = realloc(array, (size_t)wanted * element);
    if (bigger)
        *capacity = wanted;
    return bigger;
}

int terse_graph_symbol(terse_graph *graph, const char *name)
{
    for (int i = 0; i < graph->n_symbols; i++)
        if (strcmp(graph->symbols[i], name) == 0)
            return i;
    if (graph->n_symbols >= TERSE_MAX_SYMBOLS)
        return -1;
    if (!graph->symbols)
        graph->symbols = terse_arena_alloc(graph->arena, TERSE_MAX_SYMBOLS * sizeof *graph->symbols);
    char *copy = terse_arena_text(graph->arena, name, strlen(name));
    if (!graph->symbols || !copy)
        return -1;
    graph->symbols[graph->n_symbols] = copy;
    return graph->n_symbols++;
}

int terse_graph_add_value(terse_graph *graph, const char *name)
{
    terse_value *values =
        grow(graph->values, graph->n_values, &graph->value_capacity, TERSE_MAX_VALUES, sizeof *values);
    if (!values)
        return -1;
    graph->values = values;
    char *copy = terse_arena_text(graph->arena, name, strlen(name));
    if (!copy)
        return -1;
    values[graph->n_values] = (terse_value){.name = copy, .rank = -1, .groups = 1};
    return graph->n_values++;
}

int terse_graph_add_constant(terse_graph *graph, const char *name, terse_dtype dtype, int rank, const int64_t *dims,
                             const void *data)
{
    const int64_t count = rank >= 0 && rank <= TERSE_MAX_RANK ? terse_dims_count(dims, rank) : -1;
    if (count < 0 || !data)
        return -1;
    const int index = terse_graph_add_value(graph, name);
    if (index < 0)
        return -1;
    terse_value *value = &graph->values[index];
    value->dtype = dtype;
    value->rank = rank;
    for (int i = 0; i < rank; i++)
        value->dims[i] = dims[i];
    value->data = data;
    value->bytes = (size_t)count * terse_dtype_size(dtype);
    return index;
}

int terse_graph_add_ints(terse_graph *graph, const char *name, const int64_t *values, int n)
{
    int64_t *copy = terse_arena_alloc(graph->arena, (size_t)(n > 0 ? n : 1) * sizeof *copy);
    if (!copy)
        return -1;
    if (n > 0)
        memcpy(copy, values, (size_t)n * sizeof *copy);
    return terse_graph_add_constant(graph, name, TERSE_INT64, 1, &(int64_t){n}, copy);
}

static int *copy_numbers(terse_graph *graph, const int *numbers, int n)
{
    int *copy = terse_arena_alloc(graph->arena, (size_t)(n > 0 ? n : 1) * sizeof *copy);
    if (copy && n > 0)
        memcpy(copy, numbers, (size_t)n * sizeof *copy);
    return copy;
}

terse_node *terse_graph_add_node(terse_graph *graph, terse_op op, const char *name, const int *inputs, int n_inputs,
                                 const int *outputs, int n_outputs)
{
    if (n_inputs > TERSE_MAX_NODE_IO || n_outputs > TERSE_MAX_NODE_IO)
        return NULL;
    terse_node *nodes = grow(graph->nodes, graph->n_nodes, &graph->node_capacity, TERSE_MAX_NODES, sizeof *nodes);
    if (!nodes)
        return NULL;
    graph->nodes = nodes;
    terse_node node = {.op = op, .n_inputs = n_inputs, .n_outputs = n_outputs, .compression = ""};
    node.name = terse_arena_text(graph->arena, name, strlen(name));
    node.inputs = copy_numbers(graph, inputs, n_inputs);
    node.outputs = copy_numbers(graph, outputs, n_outputs);
    if (!node.name || !node.inputs || !node.outputs)
        return NULL;
    nodes[graph->n_nodes] = node;
    return &nodes[graph->n_nodes++];
}

void terse_graph_move_last(terse_graph *graph, int index)
{
    const int last = graph->n_nodes - 1;
    const terse_node moved = graph->nodes[last];
    memmove(&graph->nodes[index + 1], &graph->nodes[index], (size_t)(last - index) * sizeof moved);
    graph->nodes[index] = moved;
}

void terse_graph_compact(terse_graph *graph)
{
    int kept = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].op != TERSE_OP_COUNT)
            graph->nodes[kept++] = graph->nodes[i];
    graph->n_nodes = kept;
}

/* producer[v] = index of the node that makes v, or -1. */
static int *producers(const terse_graph *graph)
{
    int *made_by = malloc((size_t)(graph->n_values + 1) * sizeof *made_by);
    if (!made_by)
        return NULL;
    for (int v = 0; v < graph->n_values; v++)
        made_by[v] = -1;
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_outputs; i++)
            if (graph->nodes[n].outputs[i] >= 0)
                made_by[graph->nodes[n].outputs[i]] = n;
    return made_by;
}

/* Depth-first with an explicit stack: a hostile graph may be a million nodes deep. A node is placed after all
 * producers of its inputs, and otherwise in the order it had. */
int terse_graph_sort(terse_graph *graph, terse_error *error)
{
    if (graph->n_nodes == 0)
        return TERSE_OK;
    const size_t n = (size_t)graph->n_nodes;
    TERSE_AUTO(terse_freep) int *made_by = producers(graph);
    TERSE_AUTO(terse_freep) terse_node *sorted = malloc(n * sizeof *sorted);
    TERSE_AUTO(terse_freep) char *state = calloc(n, 1); /* 0 unseen, 1 on the stack, 2 placed */
    TERSE_AUTO(terse_freep) int *stack = malloc(n * sizeof *stack);
    TERSE_AUTO(terse_freep) int *next_input = calloc(n, sizeof *next_input);
    if (!made_by || !sorted || !state || !stack || !next_input)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d nodes", graph->n_nodes);
    int placed = 0;
    for (int root = 0; root < graph->n_nodes; root++) {
        if (state[root])
            continue;
        int depth = 0;
        stack[depth++] = root;
        state[root] = 1;
        while (depth > 0) {
            const int at = stack[depth - 1];
            const terse_node *node = &graph->nodes[at];
            if (next_input[at] == node->n_inputs) {
                state[at] = 2;
                sorted[placed++] = *node;
                depth--;
                continue;
            }
            const int value = node->inputs[next_input[at]++];
            const int maker = value < 0 ? -1 : made_by[value];
            if (maker < 0 || state[maker] == 2)
                continue;
            if (state[maker] == 1)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "node '%s' (%s) is part of a cycle",
                                  graph->nodes[maker].name, terse_op_name(graph->nodes[maker].op));
            state[maker] = 1;
            stack[depth++] = maker;
        }
    }
    memcpy(graph->nodes, sorted, n * sizeof *sorted);
    return TERSE_OK;
}

static void renumber(int *numbers, int n, const int *to)
{
    for (int i = 0; i < n; i++)
        if (numbers[i] >= 0)
            numbers[i] = to[numbers[i]];
}

int terse_graph_prune(terse_graph *graph, terse_error *error)
{
    TERSE_AUTO(terse_freep) int *to = calloc((size_t)graph->n_values + 1, sizeof *to); /* 1: needed */
    if (!to)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d values", graph->n_values);
    for (int i = 0; i < graph->n_inputs; i++)
        to[graph->inputs[i]] = 1;
    for (int i = 0; i < graph->n_outputs; i++)
        to[graph->outputs[i]] = 1;
    for (int n = graph->n_nodes - 1; n >= 0; n--) {
        terse_node *node = &graph->nodes[n];
        bool wanted = false;
        for (int i = 0; i < node->n_outputs; i++)
            wanted = wanted || (node->outputs[i] >= 0 && to[node->outputs[i]]);
        if (!wanted) {
            node->op = TERSE_OP_COUNT;
            continue;
        }
        for (int i = 0; i < node->n_outputs; i++)
            if (node->outputs[i] >= 0)
                to[node->outputs[i]] = 1;
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0)
                to[node->inputs[i]] = 1;
    }
    terse_graph_compact(graph);
    int kept = 0;
    for (int v = 0; v < graph->n_values; v++) {
        if (to[v]) {
            graph->values[kept] = graph->values[v];
            to[v] = kept++;
        } else {
            to[v] = TERSE_NO_VALUE;
        }
    }
    graph->n_values = kept;
    renumber(graph->inputs, graph->n_inputs, to);
    renumber(graph->outputs, graph->n_outputs, to);
    for (int n = 0; n < graph->n_nodes; n++) {
        renumber(graph->nodes[n].inputs, graph->nodes[n].n_inputs, to);
        renumber(graph->nodes[n].outputs, graph->nodes[n].n_outputs, to);
    }
    return TERSE_OK;
}

static int check_value(const terse_graph *graph, int index, terse_error *error)
{
    const terse_value *value = &graph->values[index];
    if (value->rank < -1 || value->rank > TERSE_MAX_RANK)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "tensor '%s' has rank %d, at most %d is allowed", value->name,
                          value->rank, TERSE_MAX_RANK);
    for (int i = 0; i < value->rank; i++)
        if (value->dims[i] < 0 && TERSE_SYMBOL_OF_DIM(value->dims[i]) >= graph->n_symbols)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "tensor '%s' axis %d names symbol %" PRId64 " of %d",
                              value->name, i, -1 - value->dims[i], graph->n_symbols);
    if (!value->data)
        return TERSE_OK;
    if (terse_sparse_layout(value->layout)) {
        const int status = value->groups == 1
                               ? terse_sparse_check(value->layout, value->dtype, value->rank, value->dims, value->data,
                                                    value->bytes, error)
                               : terse_fail(error, TERSE_INVALID_ARGUMENT,
                                            "sparse weights have %" PRId64 " groups, 1 is allowed", value->groups);
        return status == TERSE_OK ? status : terse_error_prefix(error, "tensor '%s'", value->name);
    }
    const int64_t bytes =
        value->rank < 0 ? -1 : terse_layout_bytes(value->layout, value->dtype, value->rank, value->dims, value->groups);
    if (bytes < 0 || (uint64_t)bytes != value->bytes) {
        char dims[128] = "?";
        if (value->rank >= 0)
            terse_dims_text(value->dims, value->rank, dims, sizeof dims);
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "tensor '%s' %s%s in layout %d has %zu bytes, %" PRId64 " are needed", value->name,
                          terse_dtype_name(value->dtype), dims, (int)value->layout, value->bytes, bytes);
    }
    return TERSE_OK;
}

static int check_node(const terse_graph *graph, int index, char *known, terse_error *error)
{
    const terse_node *node = &graph->nodes[index];
    if ((unsigned)node->op >= TERSE_OP_COUNT)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "node %d '%s' has unknown operator %d", index, node->name,
                          (int)node->op);
    for (int i = 0; i < node->n_inputs; i++) {
        const int v = node->inputs[i];
        if (v == TERSE_NO_VALUE)
            continue;
        if (v < 0 || v >= graph->n_values)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "node %d '%s' (%s) input %d is tensor %d of %d", index,
                              node->name, terse_op_name(node->op), i, v, graph->n_values);
        if (!known[v])
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "node %d '%s' (%s) reads tensor '%s' before anything makes it", index, node->name,
                              terse_op_name(node->op), graph->values[v].name);
    }
    for (int i = 0; i < node->n_outputs; i++) {
        const int v = node->outputs[i];
        if (v == TERSE_NO_VALUE)
            continue;
        if (v < 0 || v >= graph->n_values)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "node %d '%s' (%s) output %d is tensor %d of %d", index,
                              node->name, terse_op_name(node->op), i, v, graph->n_values);
        if (known[v])
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "tensor '%s' is made twice, the second time by node %d '%s'", graph->values[v].name,
                              index, node->name);
        known[v] = 1;
    }
    return TERSE_OK;
}

int terse_graph_check(const terse_graph *graph, terse_error *error)
{
    TERSE_AUTO(terse_freep) char *known = calloc((size_t)graph->n_values + 1, 1);
    if (!known)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d values", graph->n_values);
    for (int v = 0; v < graph->n_values; v++) {
        const int status = check_value(graph, v, error);
        if (status != TERSE_OK)
            return status;
        known[v] = graph->values[v].data != NULL;
    }
    for (int i = 0; i < graph->n_inputs; i++) {
        const int v = graph->inputs[i];
        if (v < 0 || v >= graph->n_values || known[v])
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "graph input %d is tensor %d: out of range, constant or named twice", i, v);
        if (graph->values[v].rank < 0 || terse_dtype_size(graph->values[v].dtype) == 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "graph input '%s' has no shape or element type",
                              graph->values[v].name);
        known[v] = 1;
    }
    for (int n = 0; n < graph->n_nodes; n++) {
        const int status = check_node(graph, n, known, error);
        if (status != TERSE_OK)
            return status;
    }
    for (int i = 0; i < graph->n_outputs; i++) {
        const int v = graph->outputs[i];
        if (v < 0 || v >= graph->n_values || !known[v])
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "graph output %d is tensor %d, which nothing makes", i, v);
    }
    return graph->n_outputs ? TERSE_OK : terse_fail(error, TERSE_INVALID_ARGUMENT, "the graph has no outputs");
}

int terse_graph_producer(const terse_graph *graph, int value)
{
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_outputs; i++)
            if (graph->nodes[n].op != TERSE_OP_COUNT && graph->nodes[n].outputs[i] == value)
                return n;
    return -1;
}

int terse_graph_count_uses(const terse_graph *graph, int value)
{
    int uses = 0;
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_inputs; i++)
            uses += graph->nodes[n].op != TERSE_OP_COUNT && graph->nodes[n].inputs[i] == value;
    for (int i = 0; i < graph->n_outputs; i++)
        uses += graph->outputs[i] == value;
    return uses;
}

void terse_graph_replace_uses(terse_graph *graph, int from, int to)
{
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_inputs; i++)
            if (graph->nodes[n].inputs[i] == from)
                graph->nodes[n].inputs[i] = to;
    for (int i = 0; i < graph->n_outputs; i++)
        if (graph->outputs[i] == from)
            graph->outputs[i] = to;
}

char *terse_value_text(const terse_graph *graph, const terse_value *value, char *text, size_t size)
{
    if (value->rank < 0) {
        snprintf(text, size, "?");
        return text;
    }
    size_t at = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < value->rank && at < size; i++) {
        const int64_t dim = value->dims[i];
        const char *comma = i ? "," : "";
        at += dim >= 0
                  ? (size_t)snprintf(text + at, size - at, "%s%" PRId64, comma, dim)
                  : (size_t)snprintf(text + at, size - at, "%s%s", comma, graph->symbols[TERSE_SYMBOL_OF_DIM(dim)]);
    }
    if (at < size)
        snprintf(text + at, size - at, "]");
    return text;
}
