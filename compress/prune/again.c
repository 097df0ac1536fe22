/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/again.h"

#include <stdlib.h>
#include <string.h>

#define ROOM ((size_t)256 << 20) /* bytes of constants */

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

int terse_prune_again_keep(terse_prune_again *again, double amount, const void *of, terse_graph **graph,
                           const terse_prune_report *report, terse_error *error)
{
    size_t bytes = 0;
    for (int v = 0; v < (*graph)->n_values; v++)
        bytes += (*graph)->values[v].data ? (*graph)->values[v].bytes : 0;
    if (again->n == TERSE_PRUNE_AGAIN || again->bytes + bytes > ROOM)
        return TERSE_OK;
    terse_graph *copy = NULL;
    const int status = terse_edit_clone(*graph, &copy, error);
    if (status != TERSE_OK)
        return status;
    struct terse_prune_made made = {.amount = amount, .of = of, .graph = *graph};
    if (!copy_report(report, &made.report)) {
        terse_graph_free(copy);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a network without channels");
    }
    again->list[again->n++] = made;
    again->bytes += bytes;
    *graph = copy;
    return TERSE_OK;
}
