/* SPDX-License-Identifier: Apache-2.0 */
/* What channels_last leaves between regions, and what exporters write around attention, channel shuffles and heads of
 * detectors.
 *
 * A Reshape between two Transposes keeps them apart. Where it only splits axes, the first Transpose can be done behind
 * it, and where it only merges axes, the second one before it; then the two meet and become one. */
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

#include <stdlib.h>

/* The order of axes of a Transpose of rank >= 1; false when it is not one. */
static bool perm_of(const terse_edit *edit, int node, int rank, int64_t *perm)
{
    const terse_attr *attr = terse_node_attr(&edit->graph->nodes[node], "perm");
    if (rank < 1 || (attr && (attr->kind != TERSE_ATTR_INTS || attr->n != rank)))
        return false;
    for (int i = 0; i < rank; i++) {
        perm[i] = attr ? attr->ints[i] : rank - 1 - i;
        if (perm[i] < 0 || perm[i] >= rank)
            return false;
    }
    return true;
}

/* Reads through the Transposes in front of this one. They stay for other readers, or are pruned. */
static bool merge(terse_edit *edit, int node, int rank, int64_t *perm)
{
    bool merged = false;
    for (;;) {
        const int x = terse_edit_input(edit, node, 0), before = terse_edit_maker(edit, x, TERSE_OP_TRANSPOSE);
        int64_t first[TERSE_MAX_RANK];
        if (before < 0 || !perm_of(edit, before, rank, first))
            return merged;
        for (int i = 0; i < rank; i++)
            perm[i] = first[perm[i]];
        terse_edit_set_input(edit, node, 0, terse_edit_input(edit, before, 0));
        merged = true;
    }
}

/* Does axis i of `narrow` consist of the axes first[i] .. first[i+1]-1 of `wide`, in this order? Symbols only match
 * alone. */
static bool group_axes(const terse_value *narrow, const terse_value *wide, int *first)
{
    int at = 0;
    for (int i = 0; i < narrow->rank; i++) {
        first[i] = at;
        int64_t left = narrow->dims[i];
        if (at < wide->rank && wide->dims[at] == left) {
            at++;
            continue;
        }
        while (left > 1 && at < wide->rank && wide->dims[at] > 0 && left % wide->dims[at] == 0)
            left /= wide->dims[at++];
        if (left != 1 || at == first[i])
            return false;
    }
    first[narrow->rank] = at;
    return narrow->rank >= 1 && at == wide->rank;
}

/* A Reshape of `from` to the dims of `to`, a value without producer. Returns the node or -1 when symbols forbid it. */
static int add_reshape(terse_edit *edit, int from, int to, const char *name)
{
    const terse_value *f = &edit->graph->values[from], *t = &edit->graph->values[to];
    int64_t shape[TERSE_MAX_RANK];
    bool open = false; /* a -1 is in the shape */
    for (int i = 0; i < t->rank; i++) {
        shape[i] = t->dims[i];
        if (t->dims[i] > 0)
            continue;
        if (t->dims[i] == 0)
            return -1;
        const bool copies = i < f->rank && f->dims[i] == t->dims[i];
        if (!copies && open)
            return -1;
        shape[i] = copies ? 0 : -1;
        open = open || !copies;
    }
    const int rank = t->rank, operand = terse_edit_add_ints(edit, "shape", shape, rank);
    return terse_edit_add_node(edit, TERSE_OP_RESHAPE, name, (int[]){from, operand}, 2, &to, 1);
}

/* The axes of `wide` in the order in which `order` (over the axes of the narrow value) takes their groups. */
static int expand_order(const int64_t *order, int rank, const int *first, int64_t *ret_axes)
{
    int n = 0;
    for (int i = 0; i < rank; i++)
        for (int axis = first[order[i]]; axis < first[order[i] + 1]; axis++)
            ret_axes[n++] = axis;
    return n;
}

/* Like `value` with its axes in this order. */
static int add_ordered(terse_edit *edit, int value, const int64_t *axes)
{
    const int made = terse_edit_add_like(edit, value, "/moved");
    if (made < 0)
        return -1;
    const terse_value *from = &edit->graph->values[value];
    for (int i = 0; i < from->rank; i++)
        edit->graph->values[made].dims[i] = from->dims[axes[i]];
    return made;
}

/* x -> Transpose -> u -> Reshape that splits -> v -> this Transpose: x -> Reshape -> this Transpose. */
static bool pass_split(terse_edit *edit, int node, const terse_value *u, const terse_value *v, int before,
                       int64_t *perm)
{
    int first[TERSE_MAX_RANK + 1];
    int64_t before_perm[TERSE_MAX_RANK], inverse[TERSE_MAX_RANK], axes[TERSE_MAX_RANK], where[TERSE_MAX_RANK];
    if (!group_axes(u, v, first) || !perm_of(edit, before, u->rank, before_perm))
        return false;
    for (int i = 0; i < u->rank; i++)
        inverse[before_perm[i]] = i;
    expand_order(inverse, u->rank, first, axes); /* axes[i]: the axis of v that is axis i when x is split directly */
    for (int i = 0; i < v->rank; i++)
        where[axes[i]] = i;
    const int rank = v->rank, split = terse_edit_input(edit, node, 0), x = terse_edit_input(edit, before, 0);
    const int moved = add_ordered(edit, split, axes);
    if (moved < 0 || add_reshape(edit, x, moved, edit->graph->nodes[node].name) < 0)
        return false;
    for (int i = 0; i < rank; i++)
        perm[i] = where[perm[i]];
    terse_edit_set_input(edit, node, 0, moved);
    return true;
}

/* u -> Reshape that merges -> v -> this Transpose -> y: u -> Transpose -> Reshape -> y. The new Transpose is returned.
 */
static int pass_merge(terse_edit *edit, int node, int u, const terse_value *v, const int64_t *perm)
{
    int first[TERSE_MAX_RANK + 1];
    int64_t axes[TERSE_MAX_RANK];
    const terse_value wide = edit->graph->values[u];
    if (!group_axes(v, &wide, first))
        return -1;
    expand_order(perm, v->rank, first, axes);
    const char *name = edit->graph->nodes[node].name;
    const int y = edit->graph->nodes[node].outputs[0], moved = add_ordered(edit, u, axes);
    if (moved < 0 || add_reshape(edit, moved, y, name) < 0)
        return -1;
    terse_edit_set_output(edit, node, 0, moved);
    edit->producer[y] = edit->graph->n_nodes - 1;
    terse_edit_set_input(edit, node, 0, u);
    if (!terse_node_set_ints(edit->graph, &edit->graph->nodes[node], "perm", axes, wide.rank))
        edit->failed = true;
    return node;
}

/* Brings this Transpose and the one before it together when a Reshape that nobody else reads is between them. */
static bool pass_reshape(terse_edit *edit, int node, int rank, int64_t *perm)
{
    const int x = terse_edit_input(edit, node, 0), reshape = terse_edit_maker(edit, x, TERSE_OP_RESHAPE);
    const int from = reshape < 0 ? -1 : terse_edit_input(edit, reshape, 0);
    const int before = from < 0 ? -1 : terse_edit_maker(edit, from, TERSE_OP_TRANSPOSE);
    if (before < 0 || edit->uses[x] != 1 || edit->graph->values[from].rank < 1 || edit->failed)
        return false;
    const terse_value u = edit->graph->values[from], v = edit->graph->values[x];
    if (pass_split(edit, node, &u, &v, before, perm)) {
        if (!terse_node_set_ints(edit->graph, &edit->graph->nodes[node], "perm", perm, rank))
            edit->failed = true;
        return true;
    }
    return !edit->failed && pass_merge(edit, node, from, &v, perm) >= 0;
}

static void simplify(terse_edit *edit, int node, int *alias)
{
    terse_graph *graph = edit->graph;
    int rank = graph->values[terse_edit_input(edit, node, 0)].rank;
    int64_t perm[TERSE_MAX_RANK], shape[TERSE_MAX_RANK];
    if (graph->nodes[node].outputs[0] < 0 || !perm_of(edit, node, rank, perm))
        return;
    if (pass_reshape(edit, node, rank, perm)) {
        rank = graph->values[terse_edit_input(edit, node, 0)].rank;
        if (edit->failed || !perm_of(edit, node, rank, perm))
            return;
    }
    const int y = graph->nodes[node].outputs[0];
    if (merge(edit, node, rank, perm) && !terse_node_set_ints(graph, &graph->nodes[node], "perm", perm, rank))
        edit->failed = true;
    const int x = terse_edit_input(edit, node, 0);
    bool same = true;
    for (int i = 0; i < rank; i++)
        same = same && perm[i] == i;
    if (same) {
        alias[y] = x; /* a graph output keeps the node */
    } else if (terse_edit_move_is_view(graph->values[x].dims, rank, perm, shape)) {
        const int operand = terse_edit_add_ints(edit, "shape", shape, rank);
        const char *name = graph->nodes[node].name;
        terse_edit_remove(edit, node);
        terse_edit_add_node(edit, TERSE_OP_RESHAPE, name, (int[]){x, operand}, 2, &y, 1);
    }
}

static void read_aliases(terse_edit *edit, int node, const int *alias)
{
    for (int i = 0; i < edit->graph->nodes[node].n_inputs; i++) {
        const int value = edit->graph->nodes[node].inputs[i];
        if (value >= 0 && alias[value] != value)
            terse_edit_set_input(edit, node, i, alias[value]);
    }
}

int terse_pass_transposes(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    const int n = graph->n_nodes;
    const size_t n_values = (size_t)graph->n_values + 8 * (size_t)n + 8; /* no Transpose adds more than 8 */
    TERSE_AUTO(terse_freep) int *alias = malloc(n_values * sizeof *alias);
    edit.failed = !alias;
    for (size_t v = 0; alias && v < n_values; v++)
        alias[v] = (int)v;
    for (int node = 0; node < n && !edit.failed; node++) {
        read_aliases(&edit, node, alias); /* producers come first: one step is enough */
        if (graph->nodes[node].op == TERSE_OP_TRANSPOSE)
            simplify(&edit, node, alias);
    }
    for (int node = n; node < graph->n_nodes && !edit.failed; node++)
        read_aliases(&edit, node, alias);
    return terse_edit_close(&edit, error);
}
