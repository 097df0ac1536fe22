/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/search/plan.h"

static terse_tuned *add(terse_search_plan *plan, terse_tuned_kind kind, const char *node)
{
    terse_tuned *list = realloc(plan->tuned, ((size_t)plan->n_tuned + 1) * sizeof *list);
    if (!list)
        return NULL;
    plan->tuned = list;
    terse_tuned *t = &list[plan->n_tuned++];
    *t = (terse_tuned){.kind = kind};
    snprintf(t->node, sizeof t->node, "%s", node);
    return t;
}

static const terse_tuned *find(const terse_search_plan *plan, terse_tuned_kind kind, const char *node)
{
    char name[TERSE_CHOICE_NAME];
    snprintf(name, sizeof name, "%s", node);
    for (int i = 0; i < plan->n_tuned; i++)
        if (plan->tuned[i].kind == kind && strcmp(plan->tuned[i].node, name) == 0)
            return &plan->tuned[i];
    return NULL;
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for measured choices");
}

int terse_tuning_algorithms(terse_search_plan *plan, terse_graph *graph, terse_error *error)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        terse_node *node = &graph->nodes[i];
        const char *algorithm = terse_node_text(node, "algorithm", "");
        const terse_tuned *known = plan->is_tuned ? find(plan, TERSE_TUNED_ALGORITHM, node->name) : NULL;
        terse_tuned *kept = NULL;
        if (node->op != TERSE_OP_CONV)
            continue;
        if (!plan->is_tuned && *algorithm && !(kept = add(plan, TERSE_TUNED_ALGORITHM, node->name)))
            return out_of_memory(error);
        if (kept)
            snprintf(kept->text, sizeof kept->text, "%s", algorithm);
        if (known && !terse_node_set_text(graph, node, "algorithm", known->text))
            return out_of_memory(error);
    }
    return TERSE_OK;
}

static int keep_sparse(terse_search_plan *plan, terse_prune_report *report, terse_error *error)
{
    for (int i = 0; i < report->n; i++) {
        terse_prune_layer *l = &report->layers[i];
        l->us_dense = terse_search_plan_number(l->us_dense);
        l->us_sparse = terse_search_plan_number(l->us_sparse);
        if (!l->pruned)
            continue;
        terse_tuned *kept = add(plan, TERSE_TUNED_SPARSE, l->name);
        if (!kept)
            return out_of_memory(error);
        kept->sparse = l->sparse;
        kept->us_dense = l->us_dense;
        kept->us_sparse = l->us_sparse;
        snprintf(kept->text, sizeof kept->text, "%s", l->reason);
    }
    return TERSE_OK;
}

/* Layers that the plan knows nothing of (somebody has changed it) follow the fixed rule. */
static int choose_unknown(const terse_search_plan *plan, terse_graph *graph, terse_prune_report *report,
                          terse_error *error)
{
    TERSE_AUTO(terse_freep) bool *pruned = calloc((size_t)report->n + 1, sizeof *pruned);
    if (!pruned)
        return out_of_memory(error);
    for (int i = 0; i < report->n; i++) {
        pruned[i] = report->layers[i].pruned;
        report->layers[i].pruned = pruned[i] && !find(plan, TERSE_TUNED_SPARSE, report->layers[i].name);
    }
    const int status = terse_prune_choose(graph, false, report, error);
    for (int i = 0; i < report->n; i++)
        report->layers[i].pruned = pruned[i];
    return status;
}

static int set_sparse(const terse_search_plan *plan, terse_graph *graph, terse_prune_layer *l, terse_error *error)
{
    const terse_tuned *known = l->pruned ? find(plan, TERSE_TUNED_SPARSE, l->name) : NULL;
    if (!known)
        return TERSE_OK;
    l->sparse = known->sparse;
    l->us_dense = known->us_dense;
    l->us_sparse = known->us_sparse;
    snprintf(l->reason, sizeof l->reason, "%.120s", known->text);
    for (int n = 0; n < graph->n_nodes && l->sparse; n++)
        if (graph->nodes[n].op == TERSE_OP_CONV && strcmp(graph->nodes[n].name, l->name) == 0 &&
            !terse_node_set_text(graph, &graph->nodes[n], "algorithm", "direct"))
            return out_of_memory(error);
    return TERSE_OK;
}

int terse_tuning_sparse(terse_search_plan *plan, terse_graph *graph, terse_prune_report *report, bool measure,
                        terse_error *error)
{
    int status =
        plan->is_tuned ? choose_unknown(plan, graph, report, error) : terse_prune_choose(graph, measure, report, error);
    if (status == TERSE_OK && !plan->is_tuned)
        return keep_sparse(plan, report, error);
    for (int i = 0; i < report->n && status == TERSE_OK; i++)
        status = set_sparse(plan, graph, &report->layers[i], error);
    return status;
}

int terse_tuning_tiles(terse_search_plan *plan, terse_graph *graph, terse_error *error)
{
    static const char prefix[] = "tuned_";
    for (int i = 0; i < graph->n_nodes; i++) {
        terse_node *node = &graph->nodes[i];
        const terse_tuned *known = plan->is_tuned ? find(plan, TERSE_TUNED_TILES, node->name) : NULL;
        if (known) {
            const int64_t tiling[] = {known->rows, known->bytes};
            if (!terse_node_set_ints(graph, node, known->text, tiling, 2))
                return out_of_memory(error);
        }
        for (int a = 0; a < node->n_attrs && !plan->is_tuned; a++) {
            const terse_attr *attr = &node->attrs[a];
            if (attr->kind != TERSE_ATTR_INTS || attr->n != 2 || strncmp(attr->name, prefix, sizeof prefix - 1) != 0)
                continue;
            terse_tuned *kept = add(plan, TERSE_TUNED_TILES, node->name);
            if (!kept)
                return out_of_memory(error);
            snprintf(kept->text, sizeof kept->text, "%s", attr->name);
            kept->rows = attr->ints[0];
            kept->bytes = attr->ints[1];
        }
    }
    return TERSE_OK;
}
