/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include "common/graph/plan.h"

#include <stdlib.h>
#include <string.h>

/* Shape operands are tiny; larger values are left to the engine. A whole probe computes no more than TOTAL. */
enum { MAX_KNOWN_BYTES = 256 << 10, MAX_KNOWN_TOTAL = 16 << 20, MAX_FULL_VALUES = 1 << 16, NODES_PER_ARENA = 64 };

/* One choice of the symbols, being walked. */
typedef struct walker {
    const terse_graph *graph;
    const terse_kernels *kernels;
    const int64_t *bound;
    terse_tensor *views;
    terse_arena *arena;   /* lives as long as the probe: computed values */
    terse_arena *scratch; /* replaced now and then: what plan functions leave behind */
    const char *wanted;   /* per value: why its elements are */
    char *noted;          /* per node: its reason is in the report already */
    terse_onnx_report *report;
    terse_tensor *outputs; /* TERSE_MAX_NODE_IO of them */
    size_t known_bytes;
    int n_failed;
    terse_error first;
} walker;

static bool is_heavy(terse_op op)
{
    return op == TERSE_OP_CONV || op == TERSE_OP_CONV_TRANSPOSE || op == TERSE_OP_GEMM || op == TERSE_OP_MATMUL ||
           op == TERSE_OP_EINSUM || op == TERSE_OP_RNN || op == TERSE_OP_GRU || op == TERSE_OP_LSTM;
}

/* Shapes depend on them; they only say which rows are picked, for the proof of batchable.c. */
enum { FOR_SHAPES = 2, FOR_PICKING = 1 };

static char more_wanted(char a, char b)
{
    return a > b ? a : b;
}

static char any_wanted(const terse_node *node, const char *wanted)
{
    char most = 0;
    for (int i = 0; i < node->n_outputs; i++)
        most = node->outputs[i] >= 0 ? more_wanted(most, wanted[node->outputs[i]]) : most;
    return most;
}

/* Backwards from the operands that decide. */
static void mark_wanted(const terse_graph *graph, char *wanted)
{
    for (int n = graph->n_nodes - 1; n >= 0; n--) {
        const terse_node *node = &graph->nodes[n];
        const terse_op_impl *impl = terse_op_find(node->op);
        const bool picks = node->op == TERSE_OP_GATHER || node->op == TERSE_OP_GATHER_ND;
        const char all = node->op == TERSE_OP_SHAPE ? 0 : any_wanted(node, wanted);
        for (int i = 0; i < node->n_inputs; i++) {
            if (node->inputs[i] < 0)
                continue;
            char *w = &wanted[node->inputs[i]];
            *w = more_wanted(*w, all);
            if (impl && i < 32 && impl->value_inputs >> i & 1u)
                *w = FOR_SHAPES;
            else if (picks && i == 1)
                *w = more_wanted(*w, FOR_PICKING);
        }
    }
}

/* What the file said, in symbols that are bound: for nodes that no shape can be found for. */
static void use_statement(walker *walk, int index)
{
    const terse_value *value = &walk->graph->values[index];
    int64_t dims[TERSE_MAX_RANK];
    if (value->rank < 0 || value->dtype == TERSE_DTYPE_NONE)
        return;
    for (int i = 0; i < value->rank; i++) {
        dims[i] = value->dims[i] >= 0 ? value->dims[i] : walk->bound[TERSE_SYMBOL_OF_DIM(value->dims[i])];
        if (dims[i] < 0)
            return;
    }
    walk->views[index] = terse_tensor_view(NULL, value->dtype, value->rank, dims);
}

static void fail_node(walker *walk, int n, const terse_error *why)
{
    const terse_node *node = &walk->graph->nodes[n];
    walk->n_failed++;
    if (walk->first.status == TERSE_OK) {
        walk->first = *why;
        terse_error_prefix(&walk->first, "node '%.200s' (%s)", node->name, terse_op_name(node->op));
    }
    if (why->status == TERSE_UNIMPLEMENTED && walk->report && !walk->noted[n]) {
        terse_onnx_unsupported(walk->report, node->name, "op '%s' where %s", terse_op_name(node->op), why->message);
        walk->noted[n] = 1;
    }
}

/* Inputs as views; false when one of them is not known well enough. Large constants are shown without their bytes where
 * only their shape matters: nobody shall pack them here. */
static bool gather_inputs(const walker *walk, const terse_node *node, unsigned value_inputs, terse_tensor *copies,
                          const terse_tensor **inputs, bool *ret_all_known)
{
    bool known = true;
    for (int i = 0; i < node->n_inputs; i++) {
        inputs[i] = NULL;
        if (node->inputs[i] == TERSE_NO_VALUE)
            continue;
        const terse_tensor *view = &walk->views[node->inputs[i]];
        if (view->dtype == TERSE_DTYPE_NONE)
            return false;
        const bool decides = i < 32 && value_inputs >> i & 1u;
        if (decides && !view->data && terse_tensor_count(view) != 0)
            return false;
        copies[i] = *view;
        known = known && (view->data || terse_tensor_count(view) == 0);
        if (!decides && walk->graph->values[node->inputs[i]].data &&
            walk->graph->values[node->inputs[i]].bytes > MAX_KNOWN_BYTES) {
            copies[i].data = NULL;
            known = false;
        }
        inputs[i] = &copies[i];
    }
    *ret_all_known = known || node->op == TERSE_OP_SHAPE;
    return true;
}

static int plan_node(walker *walk, const terse_node *node, const terse_op_impl *impl, const terse_tensor *const *inputs,
                     bool known, terse_error *error)
{
    const char wanted = any_wanted(node, walk->wanted);
    const bool compute = known && wanted && !is_heavy(node->op);
    const size_t room = wanted == FOR_SHAPES ? MAX_KNOWN_TOTAL : MAX_KNOWN_TOTAL / 4;
    terse_op_plan plan = {.node = node,
                          .kernels = walk->kernels,
                          .n_inputs = node->n_inputs,
                          .n_outputs = node->n_outputs,
                          .inputs = inputs,
                          .outputs = walk->outputs,
                          .arena = compute ? walk->arena : walk->scratch};
    memset(walk->outputs, 0, (size_t)node->n_outputs * sizeof *walk->outputs);
    const int status = terse_evaluate_plan(impl, &plan, error);
    if (status != TERSE_OK || !compute)
        return status;
    const size_t bytes = terse_evaluate_bytes(&plan);
    if (bytes > MAX_KNOWN_BYTES || walk->known_bytes + bytes > room)
        return TERSE_OK;
    walk->known_bytes += bytes;
    return terse_evaluate_run(impl, &plan, error);
}

static void visit(walker *walk, int n)
{
    const terse_node *node = &walk->graph->nodes[n];
    const terse_op_impl *impl = terse_op_find(node->op);
    const terse_tensor *inputs[TERSE_MAX_NODE_IO];
    terse_tensor copies[TERSE_MAX_NODE_IO];
    terse_error why = {0};
    bool known = false, done = false;
    if (terse_node_attr(node, TERSE_ONNX_BROADCAST_AXIS) && node->n_outputs == 1 && node->inputs[0] >= 0) {
        /* Operands of old opsets are brought to the shape of the first one. */
        terse_tensor *output = &walk->views[node->outputs[0]];
        *output = walk->views[node->inputs[0]];
        output->data = NULL;
        if (node->op == TERSE_OP_EQUAL || node->op == TERSE_OP_LESS || node->op == TERSE_OP_GREATER)
            output->dtype = output->dtype == TERSE_DTYPE_NONE ? TERSE_DTYPE_NONE : TERSE_BOOL;
        return;
    }
    if (impl && gather_inputs(walk, node, impl->value_inputs, copies, inputs, &known)) {
        done = plan_node(walk, node, impl, inputs, known, &why) == TERSE_OK;
        if (!done)
            fail_node(walk, n, &why);
    }
    for (int i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i] < 0)
            continue;
        if (done)
            walk->views[node->outputs[i]] = walk->outputs[i];
        else
            use_statement(walk, node->outputs[i]);
    }
}

static int run_binding(walker *walk, terse_error *error)
{
    const terse_graph *graph = walk->graph;
    for (int v = 0; v < graph->n_values; v++) {
        const terse_value *value = &graph->values[v];
        if (!value->data)
            continue;
        walk->views[v] = terse_tensor_view((void *)(uintptr_t)value->data, value->dtype, value->rank, value->dims);
        walk->views[v].layout = value->layout;
    }
    for (int i = 0; i < graph->n_inputs; i++)
        use_statement(walk, graph->inputs[i]);
    for (int n = 0; n < graph->n_nodes; n++) {
        if (n % NODES_PER_ARENA == 0) {
            terse_arena_free(walk->scratch);
            walk->scratch = terse_arena_new();
        }
        if (!walk->scratch)
            return terse_onnx_no_memory(error);
        visit(walk, n);
    }
    terse_arena_free(walk->scratch);
    walk->scratch = NULL;
    return TERSE_OK;
}

/* How symbols are chosen. Networks differ in what they take: windows want large images, encoders and decoders multiples
 * of 32, tables of positions limit the length, and some take equal dimensions only. The first style that fits is used.
 */
typedef enum binding_style { SMALL_BATCH, LARGE, ALL_LARGE, SMALL, EQUAL_OTHERS, EQUAL, N_STYLES } binding_style;

static int64_t choose(binding_style style, bool is_batch, int symbol, int binding)
{
    static const int64_t batches[TERSE_ONNX_BINDINGS] = {2, 3, 5, 7, 3};
    static const int64_t steps[TERSE_ONNX_BINDINGS] = {0, 0, 0, 1, 2};
    static const int64_t varied[TERSE_ONNX_BINDINGS] = {1, 2, 3, 4, 5};
    const int64_t step = steps[binding];
    const int64_t other = symbol + 2 + step * (symbol % 7 + 1); /* 2.. ; moves by another amount for each symbol */
    if (is_batch && style != ALL_LARGE && style != EQUAL)
        return batches[binding];
    switch (style) {
    case SMALL_BATCH:
        return 32 * other;
    case LARGE:
        return 64 * (other + 3);
    case ALL_LARGE:
        return is_batch ? 96 * varied[binding] : 64 * (other + 3);
    case SMALL:
        return other + 9;
    case EQUAL_OTHERS:
        return 32 * (step + 2);
    default:
        return 32 * varied[binding];
    }
}

/* Sets what the inputs have symbols for; true when there is any. */
static bool bind(terse_onnx_probe *probe, binding_style style)
{
    const terse_graph *graph = probe->graph;
    bool any = false;
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *input = &graph->values[graph->inputs[i]];
        for (int a = 0; a < input->rank; a++) {
            if (input->dims[a] >= 0)
                continue;
            any = true;
            const int symbol = TERSE_SYMBOL_OF_DIM(input->dims[a]);
            for (int b = 0; b < TERSE_ONNX_BINDINGS; b++)
                probe->bound[(size_t)b * (size_t)graph->n_symbols + (size_t)symbol] =
                    choose(style, symbol == probe->batch, symbol, b);
        }
    }
    return any;
}

static int run_style(terse_onnx_probe *probe, terse_onnx_report *report, const char *wanted, char *noted,
                     terse_error *error)
{
    const terse_graph *graph = probe->graph;
    TERSE_AUTO(terse_freep) terse_tensor *outputs = calloc(TERSE_MAX_NODE_IO, sizeof *outputs);
    probe->views = calloc((size_t)probe->n_bindings * (size_t)graph->n_values + 1, sizeof *probe->views);
    if (!outputs || !probe->views)
        return terse_onnx_no_memory(error);
    for (int b = 0; b < probe->n_bindings; b++) {
        if (!(probe->arenas[b] = terse_arena_new()))
            return terse_onnx_no_memory(error);
        walker walk = {.graph = graph,
                       .bound = &probe->bound[(size_t)b * (size_t)graph->n_symbols],
                       .views = &probe->views[(size_t)b * (size_t)graph->n_values],
                       .arena = probe->arenas[b],
                       .wanted = wanted,
                       .noted = noted,
                       .report = report,
                       .outputs = outputs,
                       .kernels = terse_kernels_of(TERSE_ISA_SCALAR)};
        const int status = run_binding(&walk, error);
        if (status != TERSE_OK)
            return status;
        if (probe->n_failed == 0)
            probe->first = walk.first;
        probe->n_failed += walk.n_failed;
    }
    return TERSE_OK;
}

static void drop_views(terse_onnx_probe *probe)
{
    for (int b = 0; b < TERSE_ONNX_BINDINGS; b++)
        terse_arena_free(probe->arenas[b]);
    free(probe->views);
    free(probe->bound);
    memset(probe->arenas, 0, sizeof probe->arenas);
    probe->views = NULL;
    probe->bound = NULL;
}

void terse_onnx_probe_done(terse_onnx_probe *probe)
{
    drop_views(probe);
}

static int start(const terse_graph *graph, binding_style style, terse_onnx_probe *probe, terse_error *error)
{
    const size_t n = TERSE_ONNX_BINDINGS * ((size_t)graph->n_symbols + 1);
    *probe =
        (terse_onnx_probe){.graph = graph, .batch = -1, .n_bindings = 1, .bound = malloc(n * sizeof *probe->bound)};
    if (!probe->bound)
        return terse_onnx_no_memory(error);
    for (size_t i = 0; i < n; i++)
        probe->bound[i] = -1;
    const terse_value *first = graph->n_inputs ? &graph->values[graph->inputs[0]] : NULL;
    if (first && first->rank > 0 && first->dims[0] < 0)
        probe->batch = TERSE_SYMBOL_OF_DIM(first->dims[0]);
    if (bind(probe, style))
        probe->n_bindings = graph->n_values <= MAX_FULL_VALUES ? TERSE_ONNX_BINDINGS : 2;
    return TERSE_OK;
}

int terse_onnx_probe_run(const terse_graph *graph, terse_onnx_report *report, terse_onnx_probe *ret_probe,
                         terse_error *error)
{
    TERSE_AUTO(terse_freep) char *wanted = calloc((size_t)graph->n_values + 1, 1);
    TERSE_AUTO(terse_freep) char *noted = calloc((size_t)graph->n_nodes + 1, 1);
    if (!wanted || !noted)
        return terse_onnx_no_memory(error);
    mark_wanted(graph, wanted);
    terse_onnx_probe best = {0};
    for (binding_style style = 0; style < N_STYLES; style++) {
        terse_onnx_probe probe;
        int status = start(graph, style, &probe, error);
        if (status == TERSE_OK)
            status = run_style(&probe, report, wanted, noted, error);
        if (status == TERSE_OK && probe.n_bindings == 1 && probe.first.status == TERSE_INVALID_ARGUMENT) {
            if (error)
                *error = probe.first;
            status = TERSE_INVALID_ARGUMENT;
        }
        if (status != TERSE_OK) {
            drop_views(&probe);
            drop_views(&best);
            return status;
        }
        if (!best.views || probe.n_failed < best.n_failed) {
            drop_views(&best);
            best = probe;
        } else {
            drop_views(&probe);
        }
        if (best.n_failed == 0 || best.n_bindings == 1 || graph->n_values > MAX_FULL_VALUES)
            break;
    }
    *ret_probe = best;
    return TERSE_OK;
}
