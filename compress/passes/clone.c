/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/passes/edit.h"

static bool copy_attribute(terse_graph *graph, terse_node *node, const terse_attr *attr)
{
    switch (attr->kind) {
    case TERSE_ATTR_INT:
        return terse_node_set_int(graph, node, attr->name, attr->i);
    case TERSE_ATTR_FLOAT:
        return terse_node_set_float(graph, node, attr->name, attr->f);
    case TERSE_ATTR_TEXT:
        return terse_node_set_text(graph, node, attr->name, attr->text);
    case TERSE_ATTR_INTS:
        return terse_node_set_ints(graph, node, attr->name, attr->ints, attr->n);
    case TERSE_ATTR_FLOATS:
        return terse_node_set_floats(graph, node, attr->name, attr->floats, attr->n);
    case TERSE_ATTR_TEXTS:
        return terse_node_set_texts(graph, node, attr->name, attr->texts, attr->n);
    }
    return false;
}

static bool copy_node(terse_graph *graph, const terse_node *from)
{
    terse_node *node =
        terse_graph_add_node(graph, from->op, from->name, from->inputs, from->n_inputs, from->outputs, from->n_outputs);
    if (!node)
        return false;
    node->compression = from->compression; /* a literal or text of a graph that outlives this one */
    for (int i = 0; i < from->n_attrs; i++)
        if (!copy_attribute(graph, node, &from->attrs[i]))
            return false;
    return true;
}

static bool copy_value(terse_graph *graph, const terse_value *from)
{
    const int index = terse_graph_add_value(graph, from->name);
    if (index < 0)
        return false;
    const char *name = graph->values[index].name;
    graph->values[index] = *from;
    graph->values[index].name = name;
    return true;
}

static int *copy_numbers(terse_graph *graph, const int *numbers, int n)
{
    int *copy = terse_arena_alloc(graph->arena, (size_t)(n + 1) * sizeof *copy);
    for (int i = 0; copy && i < n; i++)
        copy[i] = numbers[i];
    return copy;
}

int terse_edit_clone(const terse_graph *graph, terse_graph **ret_clone, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *clone = terse_graph_new();
    bool good = clone != NULL;
    for (int i = 0; good && i < graph->n_symbols; i++)
        good = terse_graph_symbol(clone, graph->symbols[i]) == i;
    for (int i = 0; good && i < graph->n_values; i++)
        good = copy_value(clone, &graph->values[i]);
    for (int i = 0; good && i < graph->n_nodes; i++)
        good = copy_node(clone, &graph->nodes[i]);
    if (good) {
        clone->name = graph->name;
        clone->batchable = graph->batchable;
        clone->n_inputs = graph->n_inputs;
        clone->n_outputs = graph->n_outputs;
        clone->inputs = copy_numbers(clone, graph->inputs, graph->n_inputs);
        clone->outputs = copy_numbers(clone, graph->outputs, graph->n_outputs);
        good = clone->inputs && clone->outputs;
    }
    if (!good)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a copy of %d nodes", graph->n_nodes);
    *ret_clone = TERSE_TAKE(clone);
    return TERSE_OK;
}
