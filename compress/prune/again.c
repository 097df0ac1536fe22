/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/again.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void terse_prune_again_done(terse_prune_again *again)
{
    for (int i = 0; i < again->n; i++) {
        terse_graph_free(again->list[i].graph);
        terse_prune_report_done(&again->list[i].report);
    }
    *again = (terse_prune_again){0};
}

static bool copy_report(const terse_prune_report *from, terse_prune_report *ret_report)
{
    terse_prune_report r = *from;
    r.layers = malloc((size_t)from->n * sizeof *r.layers + 1);
    r.capacity = r.n;
    if (r.layers)
        memcpy(r.layers, from->layers, (size_t)from->n * sizeof *r.layers);
    r.kept = (terse_kept){0};
    if (!r.layers || !terse_kept_copy(&from->kept, &r.kept)) {
        terse_prune_report_done(&r);
        return false;
    }
    *ret_report = r;
    return true;
}

bool terse_prune_again_find(const terse_prune_again *again, double amount, const void *of, terse_graph **ret_graph,
                            terse_prune_report *ret_report)
{
    const struct terse_prune_made *made = NULL;
    for (int i = 0; i < again->n; i++)
        if (again->list[i].amount == amount && again->list[i].of == of)
            made = &again->list[i];
    terse_graph *copy = NULL;
    if (!made || terse_edit_clone(made->graph, &copy, NULL) != TERSE_OK)
        return false;
    if (!copy_report(&made->report, ret_report)) {
        terse_graph_free(copy);
        return false;
    }
    *ret_graph = copy;
    return true;
}

static bool own_text(terse_graph *graph, const char **text)
{
    return !*text || (*text = terse_arena_text(graph->arena, *text, strlen(*text)));
}

/* The arena of a graph that was worked on holds whatever its constants have been, several times what they are now: what
 * a clone still has of another graph becomes its own, so that nothing of that one has to stay. */
static bool own_all(terse_graph *clone)
{
    bool good = own_text(clone, &clone->name);
    for (int n = 0; good && n < clone->n_nodes; n++)
        good = own_text(clone, &clone->nodes[n].compression);
    for (int v = 0; good && v < clone->n_values; v++) {
        terse_value *value = &clone->values[v];
        if (!value->data)
            continue;
        assert(!value->origin); /* nothing is packed yet */
        void *data = terse_arena_alloc(clone->arena, value->bytes);
        good = data != NULL;
        if (good)
            memcpy(data, value->data, value->bytes);
        value->data = data;
    }
    return good;
}

int terse_prune_again_keep(terse_prune_again *again, double amount, const void *of, const terse_graph *graph,
                           const terse_prune_report *report, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *copy = NULL;
    size_t bytes = 0;
    for (int v = 0; v < graph->n_values; v++)
        bytes += graph->values[v].data ? graph->values[v].bytes : 0;
    if (again->n == TERSE_PRUNE_AGAIN || again->bytes + bytes > TERSE_PRUNE_AGAIN_BYTES)
        return TERSE_OK;
    const int status = terse_edit_clone(graph, &copy, error);
    if (status != TERSE_OK)
        return status;
    struct terse_prune_made made = {.amount = amount, .of = of};
    if (!own_all(copy) || !copy_report(report, &made.report))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a network without channels");
    made.graph = TERSE_TAKE(copy);
    again->list[again->n++] = made;
    again->bytes += bytes;
    return TERSE_OK;
}
