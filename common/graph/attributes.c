/* SPDX-License-Identifier: Apache-2.0 */
/* The attributes of nodes: graph.h says what they may be. */
#include <string.h>

#include "common/graph/graph.h"

/* The attribute's slot, made when absent. Attribute arrays grow by copying: nodes have a handful. */
static terse_attr *attr_slot(terse_graph *graph, terse_node *node, const char *name)
{
    for (int i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, name) == 0) {
            node->attrs[i] = (terse_attr){.name = node->attrs[i].name};
            return &node->attrs[i];
        }
    terse_attr *attrs = terse_arena_alloc(graph->arena, (size_t)(node->n_attrs + 1) * sizeof *attrs);
    char *copy = terse_arena_text(graph->arena, name, strlen(name));
    if (!attrs || !copy)
        return NULL;
    if (node->n_attrs)
        memcpy(attrs, node->attrs, (size_t)node->n_attrs * sizeof *attrs);
    node->attrs = attrs;
    attrs[node->n_attrs].name = copy;
    return &attrs[node->n_attrs++];
}

bool terse_node_set_int(terse_graph *graph, terse_node *node, const char *name, int64_t value)
{
    terse_attr *attr = attr_slot(graph, node, name);
    if (!attr)
        return false;
    attr->kind = TERSE_ATTR_INT;
    attr->i = value;
    return true;
}

bool terse_node_set_float(terse_graph *graph, terse_node *node, const char *name, double value)
{
    terse_attr *attr = attr_slot(graph, node, name);
    if (!attr)
        return false;
    attr->kind = TERSE_ATTR_FLOAT;
    attr->f = value;
    return true;
}

bool terse_node_set_text(terse_graph *graph, terse_node *node, const char *name, const char *value)
{
    terse_attr *attr = attr_slot(graph, node, name);
    char *copy = terse_arena_text(graph->arena, value, strlen(value));
    if (!attr || !copy)
        return false;
    attr->kind = TERSE_ATTR_TEXT;
    attr->text = copy;
    return true;
}

static void *copy_array(terse_graph *graph, const void *values, int n, size_t element)
{
    void *copy = terse_arena_alloc(graph->arena, (size_t)(n > 0 ? n : 1) * element);
    if (copy && n > 0)
        memcpy(copy, values, (size_t)n * element);
    return copy;
}

bool terse_node_set_ints(terse_graph *graph, terse_node *node, const char *name, const int64_t *values, int n)
{
    terse_attr *attr = attr_slot(graph, node, name);
    const int64_t *copy = copy_array(graph, values, n, sizeof *values);
    if (!attr || !copy)
        return false;
    attr->kind = TERSE_ATTR_INTS;
    attr->n = n;
    attr->ints = copy;
    return true;
}

bool terse_node_set_floats(terse_graph *graph, terse_node *node, const char *name, const float *values, int n)
{
    terse_attr *attr = attr_slot(graph, node, name);
    const float *copy = copy_array(graph, values, n, sizeof *values);
    if (!attr || !copy)
        return false;
    attr->kind = TERSE_ATTR_FLOATS;
    attr->n = n;
    attr->floats = copy;
    return true;
}

bool terse_node_set_texts(terse_graph *graph, terse_node *node, const char *name, const char *const *values, int n)
{
    terse_attr *attr = attr_slot(graph, node, name);
    const char **copy = terse_arena_alloc(graph->arena, (size_t)(n > 0 ? n : 1) * sizeof *copy);
    if (!attr || !copy)
        return false;
    for (int i = 0; i < n; i++)
        if (!(copy[i] = terse_arena_text(graph->arena, values[i], strlen(values[i]))))
            return false;
    attr->kind = TERSE_ATTR_TEXTS;
    attr->n = n;
    attr->texts = copy;
    return true;
}

const terse_attr *terse_node_attr(const terse_node *node, const char *name)
{
    for (int i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, name) == 0)
            return &node->attrs[i];
    return NULL;
}

int64_t terse_node_int(const terse_node *node, const char *name, int64_t fallback)
{
    const terse_attr *attr = terse_node_attr(node, name);
    return attr && attr->kind == TERSE_ATTR_INT ? attr->i : fallback;
}

double terse_node_float(const terse_node *node, const char *name, double fallback)
{
    const terse_attr *attr = terse_node_attr(node, name);
    return attr && attr->kind == TERSE_ATTR_FLOAT ? attr->f : fallback;
}

const char *terse_node_text(const terse_node *node, const char *name, const char *fallback)
{
    const terse_attr *attr = terse_node_attr(node, name);
    return attr && attr->kind == TERSE_ATTR_TEXT ? attr->text : fallback;
}
