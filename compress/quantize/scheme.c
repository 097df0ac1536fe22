/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/quantize/scheme.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A sum of K products of a byte with a weight of at most 127 has to fit in 31 bits, with room for the bias. */
enum { MAX_K = 60000 };

int terse_scheme_channel_axis(const terse_node *node)
{
    return node->op == TERSE_OP_CONV ? 0 : 1;
}

static bool is_plain_floats(const terse_value *value)
{
    return value->data && value->dtype == TERSE_FP32 && value->layout == TERSE_LAYOUT_PLAIN && value->bytes > 0;
}

bool terse_scheme_can_quantize(const terse_graph *graph, int node, char *reason, size_t size)
{
    const terse_node *n = &graph->nodes[node];
    *reason = 0;
    if ((n->op != TERSE_OP_CONV && n->op != TERSE_OP_GEMM && n->op != TERSE_OP_MATMUL) || n->n_inputs < 2 ||
        n->inputs[0] < 0 || n->inputs[1] < 0 || n->n_outputs < 1 || n->outputs[0] < 0)
        return false;
    const terse_value *x = &graph->values[n->inputs[0]], *w = &graph->values[n->inputs[1]];
    if (!w->data)
        return false;
    const bool matrix = n->op != TERSE_OP_CONV;
    const char *why = NULL;
    if (!is_plain_floats(w) || x->dtype != TERSE_FP32)
        why = "its weights or inputs are not FP32";
    else if (x->data)
        why = "its input is a constant";
    else if (matrix ? w->rank != 2 : w->rank < 3 || w->rank > 5)
        why = "its weights have a shape that bytes have no kernel for";
    else if (matrix && (terse_node_int(n, "transA", 0) != 0 || terse_node_int(n, "transB", 0) != 0 ||
                        terse_node_float(n, "alpha", 1.0) != 1.0 || terse_node_float(n, "beta", 1.0) != 1.0))
        why = "it is not in normal form";
    else if ((matrix ? w->dims[0] : terse_dims_count(w->dims + 1, w->rank - 1)) > MAX_K)
        why = "its sums are too long for 32 bits";
    if (why)
        snprintf(reason, size, "%s", why);
    return !why;
}

/* --- what a node could be ------------------------------------------------------------------------------------ */

/* Nodes that hand numbers on: output 0 has none that its data inputs have not. */
static bool is_move(const terse_graph *graph, const terse_node *node)
{
    switch (node->op) {
    case TERSE_OP_CONCAT:
    case TERSE_OP_RESHAPE:
    case TERSE_OP_FLATTEN:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
    case TERSE_OP_TRANSPOSE:
    case TERSE_OP_IDENTITY:
    case TERSE_OP_SLICE:
    case TERSE_OP_SPLIT:
    case TERSE_OP_DEPTH_TO_SPACE:
    case TERSE_OP_GATHER:
    case TERSE_OP_EXPAND:
    case TERSE_OP_TILE:
    case TERSE_OP_GLOBAL_MAX_POOL:
        return true;
    case TERSE_OP_MAX_POOL:
        return node->n_outputs < 2 || node->outputs[1] < 0;
    case TERSE_OP_RESIZE:
        return strcmp(terse_node_text(node, "mode", "nearest"), "nearest") == 0 &&
               strcmp(terse_node_text(node, "coordinate_transformation_mode", "half_pixel"), "tf_crop_and_resize") != 0;
    case TERSE_OP_PAD: /* of zeros, or edges: both are numbers that are there */
        return strcmp(terse_node_text(node, "mode", "constant"), "constant") != 0;
    default:
        (void)graph;
        return false;
    }
}

static bool is_compute(const terse_node *node)
{
    switch (node->op) {
    case TERSE_OP_ADD:
    case TERSE_OP_MUL:
        return node->n_inputs == 2;
    case TERSE_OP_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_AVERAGE_POOL:
    case TERSE_OP_RELU:
    case TERSE_OP_CLIP:
    case TERSE_OP_LEAKY_RELU:
    case TERSE_OP_SIGMOID:
    case TERSE_OP_HARD_SIGMOID:
    case TERSE_OP_HARD_SWISH:
    case TERSE_OP_TANH:
    case TERSE_OP_ELU:
        return true;
    default:
        return false;
    }
}

/* The inputs that are data: shapes, axes and limits are not. */
static int data_inputs(const terse_node *node)
{
    return node->op == TERSE_OP_CONCAT || node->op == TERSE_OP_ADD || node->op == TERSE_OP_MUL ? node->n_inputs : 1;
}

/* An FP32 product with an activation that bytes have no form for gives FP32. */
static bool gives_bytes(const terse_node *product)
{
    const char *activation = terse_node_text(product, "activation", "Clip");
    return strcmp(activation, "Clip") == 0;
}

/* Can all that the node reads be had as bytes, at least one of them from an activation? */
static bool reads_bytes(const terse_graph *graph, const terse_node *node, const bool *available)
{
    bool active = false;
    for (int i = 0; i < data_inputs(node); i++) {
        const int v = node->inputs[i];
        if (v < 0 || graph->values[v].dtype != TERSE_FP32)
            return false;
        const bool constant = graph->values[v].data != NULL;
        if (constant ? !is_plain_floats(&graph->values[v]) : !available[v])
            return false;
        active = active || !constant;
    }
    return active;
}

/* --- building ---------------------------------------------------------------------------------------------------- */

static int root_of(int *group, int value)
{
    while (group[value] != value)
        value = group[value] = group[group[value]];
    return value;
}

static void join(int *group, int a, int b)
{
    a = root_of(group, a);
    b = root_of(group, b);
    if (a < b)
        group[b] = a;
    else
        group[a] = b;
}

/* Forwards: what each node may be, as far as bytes can reach it. */
static void find_kinds(const terse_graph *graph, const bool *kept, terse_scheme *s, bool *available)
{
    for (int i = 0; i < graph->n_inputs; i++)
        available[graph->inputs[i]] = graph->values[graph->inputs[i]].dtype == TERSE_FP32;
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        char reason[96];
        if (terse_scheme_can_quantize(graph, n, reason, sizeof reason)) {
            if (kept && kept[n])
                continue;
            s->kinds[n] = TERSE_SCHEME_PRODUCT;
            available[node->outputs[0]] = gives_bytes(node);
            continue;
        }
        if (node->n_inputs < 1 || node->n_outputs < 1 || !(is_move(graph, node) || is_compute(node)) ||
            !reads_bytes(graph, node, available))
            continue;
        s->kinds[n] = is_move(graph, node) ? TERSE_SCHEME_MOVE : TERSE_SCHEME_COMPUTE;
        for (int o = 0; o < node->n_outputs; o++)
            if (node->outputs[o] >= 0)
                available[node->outputs[o]] = true;
    }
}

static bool any_demanded(const terse_scheme *s, const terse_node *node)
{
    for (int o = 0; o < node->n_outputs; o++)
        if (node->outputs[o] >= 0 && s->demanded[node->outputs[o]])
            return true;
    return false;
}

/* Backwards: who is asked for bytes. A product asks for its input, and for its residual when it gives bytes. */
static void find_demand(const terse_graph *graph, terse_scheme *s)
{
    for (int n = graph->n_nodes - 1; n >= 0; n--) {
        const terse_node *node = &graph->nodes[n];
        if (s->kinds[n] == TERSE_SCHEME_PRODUCT) {
            s->demanded[node->inputs[0]] = true;
            const int residual = node->n_inputs > 3 ? node->inputs[3] : TERSE_NO_VALUE;
            if (residual >= 0 && gives_bytes(node) && s->demanded[node->outputs[0]])
                s->demanded[residual] = true;
            continue;
        }
        if (s->kinds[n] == TERSE_SCHEME_FLOAT)
            continue;
        if (!any_demanded(s, node)) {
            s->kinds[n] = TERSE_SCHEME_FLOAT;
            continue;
        }
        for (int i = 0; i < data_inputs(node); i++)
            s->demanded[node->inputs[i]] = true;
        for (int o = 0; o < node->n_outputs && s->kinds[n] == TERSE_SCHEME_MOVE; o++)
            if (node->outputs[o] >= 0)
                s->demanded[node->outputs[o]] = true; /* all parts of a Split are bytes when one is */
    }
}

/* Add, Mul and pools with a Relu or Clip behind them that alone reads them: the range holds it, nothing lies between.
 */
static void absorb_clips(const terse_edit *edit, terse_scheme *s)
{
    const terse_graph *graph = edit->graph;
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        if (s->kinds[n] != TERSE_SCHEME_COMPUTE || (node->op != TERSE_OP_RELU && node->op != TERSE_OP_CLIP))
            continue;
        const int x = node->inputs[0], maker = edit->producer[x];
        if (edit->uses[x] == 1 && maker >= 0 && s->kinds[maker] == TERSE_SCHEME_COMPUTE)
            s->demanded[x] = false;
    }
}

/* x * sigmoid(x) is one function of x: nothing lies between. */
static void absorb_swishes(const terse_edit *edit, terse_scheme *s)
{
    const terse_graph *graph = edit->graph;
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        for (int i = 0; i < 2 && s->kinds[n] == TERSE_SCHEME_COMPUTE && node->op == TERSE_OP_MUL; i++) {
            const int x = node->inputs[1 - i], sigmoid = node->inputs[i], maker = edit->producer[sigmoid];
            if (maker >= 0 && graph->nodes[maker].op == TERSE_OP_SIGMOID && graph->nodes[maker].inputs[0] == x &&
                edit->uses[sigmoid] == 1 && s->kinds[maker] == TERSE_SCHEME_COMPUTE)
                s->demanded[sigmoid] = false;
        }
    }
}

static void find_groups(const terse_graph *graph, terse_scheme *s)
{
    for (int v = 0; v < graph->n_values; v++) {
        s->group[v] = v;
        s->source[v] = s->demanded[v];
    }
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        if (s->kinds[n] != TERSE_SCHEME_MOVE)
            continue;
        for (int o = 0; o < node->n_outputs; o++) {
            if (node->outputs[o] < 0)
                continue;
            s->source[node->outputs[o]] = false;
            for (int i = 0; i < data_inputs(node); i++)
                join(s->group, node->outputs[o], node->inputs[i]);
        }
    }
    for (int v = 0; v < graph->n_values; v++)
        s->group[v] = root_of(s->group, v);
}

/* Demanded values that are there in FP32 anyway. */
static void find_given(const terse_edit *edit, terse_scheme *s)
{
    for (int v = 0; v < s->graph->n_values; v++) {
        const int maker = edit->producer[v];
        const bool bytes =
            maker >= 0 && (s->kinds[maker] == TERSE_SCHEME_PRODUCT ? gives_bytes(&s->graph->nodes[maker])
                                                                   : s->kinds[maker] != TERSE_SCHEME_FLOAT);
        s->given[v] = s->demanded[v] && !s->graph->values[v].data && !bytes;
    }
}

bool terse_scheme_reads_bytes(const terse_scheme *scheme, int node, int slot)
{
    const terse_node *n = &scheme->graph->nodes[node];
    const terse_scheme_kind kind = scheme->kinds[node];
    const int value = n->inputs[slot];
    if (value < 0 || !scheme->demanded[value])
        return false;
    if (kind == TERSE_SCHEME_MOVE || kind == TERSE_SCHEME_COMPUTE)
        return slot < data_inputs(n) || !scheme->given[value];
    if (scheme->graph->values[value].data) /* an operand elsewhere, weights or a bias here */
        return false;
    if (kind == TERSE_SCHEME_PRODUCT && (slot == 0 || (slot == 3 && gives_bytes(n) && scheme->demanded[n->outputs[0]])))
        return true;
    return !scheme->given[value];
}

void terse_scheme_done(terse_scheme *s)
{
    free(s->given);
    free(s->kinds);
    free(s->demanded);
    free(s->group);
    free(s->source);
    *s = (terse_scheme){0};
}

int terse_scheme_build(const terse_graph *graph, const bool *kept, terse_scheme *ret_scheme, terse_error *error)
{
    const size_t values = (size_t)graph->n_values + 1, nodes = (size_t)graph->n_nodes + 1;
    terse_scheme s = {.graph = graph};
    s.kinds = calloc(nodes, sizeof *s.kinds);
    s.demanded = calloc(values, sizeof *s.demanded);
    s.source = calloc(values, sizeof *s.source);
    s.given = calloc(values, sizeof *s.given);
    s.group = calloc(values, sizeof *s.group);
    TERSE_AUTO(terse_freep) bool *available = calloc(values, sizeof *available);
    terse_edit edit = {0};
    int status = s.kinds && s.demanded && s.source && s.given && s.group && available
                     ? terse_edit_open((terse_graph *)(uintptr_t)graph, &edit, error) /* only read */
                     : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d nodes", graph->n_nodes);
    if (status != TERSE_OK) {
        terse_scheme_done(&s);
        return status;
    }
    find_kinds(graph, kept, &s, available);
    find_demand(graph, &s);
    absorb_clips(&edit, &s);
    absorb_swishes(&edit, &s);
    find_groups(graph, &s);
    find_given(&edit, &s);
    free(edit.producer);
    free(edit.uses);
    *ret_scheme = s;
    return TERSE_OK;
}

/* --- activations that are tables --------------------------------------------------------------------------------- */

static terse_op table_of(const char *activation)
{
    static const terse_op tables[] = {TERSE_OP_LEAKY_RELU, TERSE_OP_SIGMOID, TERSE_OP_HARD_SIGMOID, TERSE_OP_HARD_SWISH,
                                      TERSE_OP_TANH};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (strcmp(activation, terse_op_name(tables[i])) == 0)
            return tables[i];
    return TERSE_OP_COUNT;
}

static void drop_activation(terse_edit *edit, int node)
{
    terse_node *n = &edit->graph->nodes[node];
    terse_attr *attrs = terse_edit_alloc(edit, (size_t)(n->n_attrs + 1) * sizeof *attrs);
    if (!attrs)
        return;
    int kept = 0;
    for (int i = 0; i < n->n_attrs; i++)
        if (strncmp(n->attrs[i].name, "activation", 10) != 0)
            attrs[kept++] = n->attrs[i];
    n->attrs = attrs;
    n->n_attrs = kept;
}

/* The product without its activation, which reads the value that is returned; -1 when memory is out. */
static int bare_product(terse_edit *edit, int node)
{
    const int before = terse_edit_add_like(edit, edit->graph->nodes[node].outputs[0], "/before");
    if (before < 0)
        return -1;
    drop_activation(edit, node);
    terse_edit_set_output(edit, node, 0, before);
    return before;
}

static void split(terse_edit *edit, int node)
{
    terse_graph *graph = edit->graph;
    const terse_op op = table_of(terse_node_text(&graph->nodes[node], "activation", ""));
    if (op == TERSE_OP_COUNT)
        return;
    const double alpha = terse_node_float(&graph->nodes[node], "activation_alpha", 0);
    const double beta = terse_node_float(&graph->nodes[node], "activation_beta", 0);
    const int y = graph->nodes[node].outputs[0], before = bare_product(edit, node);
    if (before < 0)
        return;
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s/%s", graph->nodes[node].name, terse_op_name(op));
    const int behind = terse_edit_add_node(edit, op, name, &before, 1, &y, 1);
    if (behind < 0)
        return;
    terse_node *n = &graph->nodes[behind];
    bool good = true;
    if (op == TERSE_OP_LEAKY_RELU || op == TERSE_OP_HARD_SIGMOID)
        good = terse_node_set_float(graph, n, "alpha", alpha);
    if (op == TERSE_OP_HARD_SIGMOID)
        good = good && terse_node_set_float(graph, n, "beta", beta);
    edit->failed = edit->failed || !good;
}

/* A convolution's Swish: of images, where a table costs little; the gates of language models stay FP32. */
static void split_swish(terse_edit *edit, int node)
{
    terse_graph *graph = edit->graph;
    if (graph->nodes[node].op != TERSE_OP_CONV ||
        strcmp(terse_node_text(&graph->nodes[node], "activation", ""), "Swish") != 0)
        return;
    const int y = graph->nodes[node].outputs[0], before = bare_product(edit, node);
    const int sigmoid = before < 0 ? -1 : terse_edit_add_like(edit, y, "/sigmoid");
    if (sigmoid < 0)
        return;
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s/Sigmoid", graph->nodes[node].name);
    terse_edit_add_node(edit, TERSE_OP_SIGMOID, name, &before, 1, &sigmoid, 1);
    snprintf(name, sizeof name, "%.900s/Swish", graph->nodes[node].name);
    terse_edit_add_node(edit, TERSE_OP_MUL, name, (int[]){before, sigmoid}, 2, &y, 1);
}

int terse_scheme_split_activations(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    char reason[96];
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++)
        if (terse_scheme_can_quantize(graph, node, reason, sizeof reason)) {
            split(&edit, node);
            split_swish(&edit, node);
        }
    return terse_edit_close(&edit, error);
}
