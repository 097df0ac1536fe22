/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/couple.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void terse_couple_done(terse_couple *c)
{
    terse_arena_free(c->arena);
    free(c->values);
    free(c->parent);
    free(c->pin);
    free(c->group);
    free(c->reasons);
    *c = (terse_couple){0};
}

/* --- labels ------------------------------------------------------------------------------------------------------- */

static bool grow(terse_couple *c, int64_t wanted)
{
    if (wanted <= c->room)
        return true;
    if (wanted > INT32_MAX / 2)
        return false;
    const size_t room = (size_t)wanted * 2;
    int32_t **lists[] = {&c->parent, &c->pin, &c->group};
    for (int i = 0; i < 3; i++) {
        int32_t *list = realloc(*lists[i], room * sizeof *list);
        if (!list)
            return false;
        *lists[i] = list;
    }
    c->room = (int32_t)room;
    return true;
}

int32_t terse_couple_new(terse_couple *c, int64_t n)
{
    if (c->failed || n < 1 || n > INT32_MAX / 4 || !grow(c, c->n_labels + n)) {
        c->failed = true;
        return -1;
    }
    const int32_t first = c->n_labels;
    for (int32_t i = 0; i < n; i++) {
        c->parent[first + i] = first + i;
        c->pin[first + i] = -1;
        c->group[first + i] = first;
    }
    c->n_labels += (int32_t)n;
    return first;
}

static int32_t find(int32_t *parent, int32_t i)
{
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

int32_t terse_couple_unit(const terse_couple *c, int32_t label)
{
    return find(c->parent, label);
}

int32_t terse_couple_group(const terse_couple *c, int32_t label)
{
    return find(c->group, find(c->parent, label));
}

const char *terse_couple_pin(const terse_couple *c, int32_t unit)
{
    return c->pin[unit] < 0 ? NULL : c->reasons[c->pin[unit]];
}

/* The lower number stands for both, so that nothing depends on the order. */
void terse_couple_unite(terse_couple *c, int32_t a, int32_t b)
{
    a = find(c->parent, a);
    b = find(c->parent, b);
    const int32_t low = a < b ? a : b, high = a < b ? b : a;
    if (low == high)
        return;
    c->parent[high] = low;
    if (c->pin[low] < 0)
        c->pin[low] = c->pin[high];
    const int32_t x = find(c->group, low), y = find(c->group, high);
    c->group[x < y ? y : x] = x < y ? x : y;
}

void terse_couple_pin_value(terse_couple *c, int value, const char *format, ...)
{
    char text[120];
    va_list list;
    if (value < 0 || c->values[value].axis < 0)
        return;
    if (c->n_reasons == c->reasons_room) {
        const int wanted = c->reasons_room ? 2 * c->reasons_room : 64;
        const char **reasons = realloc(c->reasons, (size_t)wanted * sizeof *reasons);
        if (!reasons) {
            c->failed = true;
            return;
        }
        c->reasons = reasons;
        c->reasons_room = wanted;
    }
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    const char *kept = terse_arena_text(c->arena, text, strlen(text));
    if (!kept) {
        c->failed = true;
        return;
    }
    c->reasons[c->n_reasons] = kept;
    const terse_channels *channels = &c->values[value];
    for (int64_t i = 0; i < channels->n; i++) {
        const int32_t unit = find(c->parent, channels->labels[i]);
        if (c->pin[unit] < 0)
            c->pin[unit] = c->n_reasons;
    }
    c->n_reasons++;
}

/* --- the walk ----------------------------------------------------------------------------------------------------- */

bool terse_couple_role_of(const terse_edit *edit, int node, terse_couple_role *ret_role)
{
    const terse_node *n = &edit->graph->nodes[node];
    if (n->n_inputs < 2 || n->inputs[1] < 0 || !terse_edit_is_weighted(edit, node) || edit->uses[n->inputs[1]] != 1)
        return false;
    const terse_value *w = &edit->graph->values[n->inputs[1]];
    terse_couple_role role = {.in_axis = 0, .out_axis = 1, .groups = 1};
    if (n->op == TERSE_OP_CONV || n->op == TERSE_OP_CONV_TRANSPOSE)
        role.groups = terse_node_int(n, "group", 1);
    if (role.groups < 1 || (n->op == TERSE_OP_CONV_TRANSPOSE && role.groups != 1))
        return false;
    if (n->op == TERSE_OP_CONV) {
        role.depthwise = role.groups > 1 && w->dims[1] == 1;
        role.in_axis = role.depthwise ? -1 : 1;
        role.out_axis = 0;
        if (w->dims[0] % role.groups != 0)
            return false;
    }
    if ((n->op == TERSE_OP_GEMM && terse_node_int(n, "transA", 0) != 0))
        return false;
    *ret_role = role;
    return true;
}

/* What a graph input has: the axis that its readers take for channels, if they agree; all of it stays. */
static void label_input(terse_couple *c, int value)
{
    const terse_value *v = &c->edit->graph->values[value];
    const int axis = v->rank >= 2 && v->dims[1] > 0 ? 1 : -1;
    if (axis < 0 || v->dtype != TERSE_FP32)
        return;
    const int32_t first = terse_couple_new(c, v->dims[axis]);
    int32_t *labels = terse_arena_alloc(c->arena, (size_t)v->dims[axis] * sizeof *labels);
    if (first < 0 || !labels) {
        c->failed = true;
        return;
    }
    for (int64_t i = 0; i < v->dims[axis]; i++)
        labels[i] = first + (int32_t)i;
    c->values[value] = (terse_channels){axis, v->dims[axis], labels};
    terse_couple_pin_value(c, value, "coupled to the network's input '%.60s'", v->name);
}

int terse_couple_open(const terse_edit *edit, terse_couple *ret_couple, terse_error *error)
{
    const terse_graph *graph = edit->graph;
    terse_couple c = {.edit = edit, .arena = terse_arena_new(), .n_values = graph->n_values};
    c.values = calloc((size_t)graph->n_values + 1, sizeof *c.values);
    c.failed = !c.arena || !c.values;
    for (int v = 0; v < graph->n_values && !c.failed; v++)
        c.values[v].axis = -1;
    for (int i = 0; i < graph->n_inputs && !c.failed; i++)
        label_input(&c, graph->inputs[i]);
    for (int node = 0; node < graph->n_nodes && !c.failed; node++)
        if (graph->nodes[node].op != TERSE_OP_COUNT)
            terse_couple_node(&c, node);
    for (int i = 0; i < graph->n_outputs && !c.failed; i++)
        terse_couple_pin_value(&c, graph->outputs[i], "coupled to the network's output '%.60s'",
                               graph->values[graph->outputs[i]].name);
    if (c.failed) {
        terse_couple_done(&c);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the network's channels");
    }
    *ret_couple = c;
    return TERSE_OK;
}

int64_t terse_couple_left(const terse_couple *c, const bool *gone, int value)
{
    const terse_channels *channels = &c->values[value];
    int64_t left = 0;
    for (int64_t i = 0; channels->axis >= 0 && i < channels->n; i++)
        left += !gone[find(c->parent, channels->labels[i])];
    return left;
}

void terse_couple_repair(const terse_couple *c, bool *gone)
{
    for (int v = 0; v < c->n_values; v++)
        if (c->values[v].axis >= 0 && c->values[v].n > 0 && terse_couple_left(c, gone, v) == 0)
            gone[find(c->parent, c->values[v].labels[0])] = false;
}
