/* SPDX-License-Identifier: Apache-2.0 */
/* What channels_last leaves between regions, and what exporters write around attention and layer normalization. */
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

static void simplify(terse_edit *edit, int node, int *alias)
{
    terse_graph *graph = edit->graph;
    const int y = graph->nodes[node].outputs[0], rank = graph->values[terse_edit_input(edit, node, 0)].rank;
    int64_t perm[TERSE_MAX_RANK], shape[TERSE_MAX_RANK];
    if (y < 0 || !perm_of(edit, node, rank, perm))
        return;
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

int terse_pass_transposes(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    const int n_values = graph->n_values;
    TERSE_AUTO(terse_freep) int *alias = malloc(((size_t)n_values + 1) * sizeof *alias);
    edit.failed = !alias;
    for (int v = 0; alias && v < n_values; v++)
        alias[v] = v;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++) {
        for (int i = 0; i < graph->nodes[node].n_inputs; i++) { /* producers come first: one step is enough */
            const int value = graph->nodes[node].inputs[i];
            if (value >= 0 && value < n_values && alias[value] != value)
                terse_edit_set_input(&edit, node, i, alias[value]);
        }
        if (graph->nodes[node].op == TERSE_OP_TRANSPOSE)
            simplify(&edit, node, alias);
    }
    return terse_edit_close(&edit, error);
}
