/* SPDX-License-Identifier: Apache-2.0 */
/* Times of 4x1 weights. Kernels take the same time whatever the numbers are, so blocks are zeroed by lot. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/passes/passes.h"
#include "compress/prune/prune.h"
#include "compress/search/judge.h"
#include "compress/search/table_steps.h"

static const double amounts[] = {0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9};
/* Coarse before fine, and what is fine only where more zeros (index, -1: none) have made some layer faster. */
static const struct {
    int amount, after;
} order[] = {{6, -1}, {4, 6}, {2, 4}, {5, 6}, {3, 4}, {1, 2}, {0, 1}};
static const double timing_share = 0.2; /* of the table's time, for what is fine */
enum { N_AMOUNTS = sizeof amounts / sizeof amounts[0], ROWS = 4, LEAST_K = 16 };
static const double worth = 0.97;

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for timing sparse weights");
}

/* The constant that holds a product's weights: itself, or what is dequantized to it. */
static int constant_of(const terse_edit *edit, int node)
{
    const int w = edit->graph->nodes[node].inputs[1], dequantize = terse_edit_bytes(edit, w);
    if (dequantize >= 0)
        return edit->graph->nodes[dequantize].inputs[0];
    return edit->graph->values[w].data && edit->graph->values[w].dtype == TERSE_FP32 ? w : -1;
}

static uint32_t lot(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* W is [n][k] for a convolution, [k][n] else. */
static bool zero_blocks(terse_graph *graph, int value, bool conv, double amount)
{
    terse_value *w = &graph->values[value];
    const size_t size = terse_dtype_size(w->dtype);
    char *to = terse_arena_alloc(graph->arena, w->bytes + 1);
    if (!to)
        return false;
    memcpy(to, w->data, w->bytes);
    const int64_t count = terse_dims_count(w->dims, w->rank), n = conv ? w->dims[0] : w->dims[1], k = n ? count / n : 0;
    uint32_t state = 11;
    for (int64_t block = 0; block < n; block += ROWS)
        for (int64_t i = 0; i < k; i++) {
            if ((double)lot(&state) >= amount * (double)(1 << 24))
                continue;
            for (int64_t o = block; o < n && o < block + ROWS; o++)
                memset(to + (size_t)(conv ? o * k + i : i * n + o) * size, 0, size);
        }
    w->data = to;
    return true;
}

static bool can_be_pruned(const terse_graph *graph, const terse_table_layer *layer)
{
    const terse_node *node = &graph->nodes[layer->node];
    const terse_value *w = &graph->values[node->inputs[1]];
    const bool conv = node->op == TERSE_OP_CONV;
    const int64_t n = conv ? w->dims[0] : w->dims[w->rank - 1];
    return (conv || node->op == TERSE_OP_GEMM || node->op == TERSE_OP_MATMUL) && n >= ROWS &&
           layer->weights / n >= LEAST_K && terse_node_int(node, "group", 1) == 1;
}

static int node_named(const terse_graph *graph, const char *name)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (strncmp(graph->nodes[i].name, name, TERSE_CHOICE_NAME - 1) == 0 &&
            (graph->nodes[i].op == TERSE_OP_CONV || graph->nodes[i].op == TERSE_OP_GEMM ||
             graph->nodes[i].op == TERSE_OP_MATMUL))
            return i;
    return -1;
}

/* All layers of a copy of `graph` lose the same share, and both ways to run it are timed. */
static int time_amount(const terse_table *t, const terse_graph *graph, double amount, terse_prune_report *report,
                       terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *clone = NULL;
    terse_edit edit;
    int status = terse_edit_clone(graph, &clone, error);
    if (status == TERSE_OK)
        status = terse_edit_open(clone, &edit, error);
    if (status != TERSE_OK)
        return status;
    report->kind = TERSE_PRUNE_4X1;
    report->amount = amount;
    for (int l = 0; l < t->n && !edit.failed; l++) {
        const int node = can_be_pruned(t->graph, &t->layers[l]) ? node_named(clone, t->layers[l].name) : -1;
        const int value = node >= 0 ? constant_of(&edit, node) : -1;
        terse_prune_layer *line = &report->layers[report->n++];
        *line = (terse_prune_layer){.kept = 1.0 - amount, .pruned = value >= 0};
        snprintf(line->name, sizeof line->name, "%s", t->layers[l].name);
        if (value >= 0)
            edit.failed = !zero_blocks(clone, value, clone->nodes[node].op == TERSE_OP_CONV, amount);
    }
    status = terse_edit_close(&edit, error);
    return status == TERSE_OK ? terse_prune_choose(clone, true, report, error) : status;
}

/* The network on bytes, with ranges of no meaning. */
static int make_bytes(const terse_npz *fit, terse_graph *graph, terse_error *error)
{
    TERSE_AUTO(terse_npz_freep) terse_npz *few = NULL;
    int status = terse_judge_some(graph, fit, 2, &few, error);
    const terse_quantize_options options = {.source = "",
                                            .equalization = TERSE_EQUALIZATION_NONE,
                                            .calibration = TERSE_CALIBRATION_MINMAX,
                                            .keep_float = "none"};
    terse_quantize_report report = {0};
    if (status == TERSE_OK)
        status = terse_quantize_run(graph, few, &options, &report, error);
    terse_quantize_report_done(&report);
    return status;
}

static void add_options(terse_table *t, const terse_prune_report *reports)
{
    for (int l = 0; l < t->n; l++) {
        terse_table_layer *layer = &t->layers[l];
        double least = INFINITY, at = 0, dense = 0;
        for (int a = 0; a < N_AMOUNTS; a++) {
            const terse_prune_layer *line = reports[a].layers ? &reports[a].layers[l] : NULL;
            if (!line || !line->pruned || !(line->us_dense > 0) || !(line->us_sparse > 0))
                continue;
            const double ratio = line->us_sparse / line->us_dense;
            if (ratio < worth) {
                terse_table_option *o = terse_table_add(layer, TERSE_OPTION_SPARSE);
                if (!o)
                    break;
                o->choice.prune = amounts[a];
                o->us = layer->options[0].us * ratio;
                o->bytes = layer->options[0].bytes * (1.0 - amounts[a]);
            } else if (ratio < least) {
                least = ratio;
                at = amounts[a];
                dense = line->us_dense;
            }
        }
        if (isfinite(least))
            terse_table_refuse(layer, "4x1: %.0f %% of zeros is %.0f %% %s (%.1f us, dense %.1f)", 100.0 * at,
                               fabs(100.0 * (least - 1.0)), least > 1 ? "slower" : "faster, which is too little",
                               dense * least, dense);
        else if (!reports[N_AMOUNTS - 1].layers[l].pruned)
            terse_table_refuse(layer, "4x1: %s",
                               can_be_pruned(t->graph, layer) ? "its weights are not its own"
                                                              : "too small or in groups");
        else if (layer->n == 1 || layer->options[layer->n - 1].kind != TERSE_OPTION_SPARSE)
            terse_table_refuse(layer, "4x1: %s", "has no sparse form there");
    }
}

static bool is_any_faster(const terse_table *t, const terse_prune_report *report)
{
    for (int l = 0; report->layers && l < t->n; l++)
        if (report->layers[l].pruned && report->layers[l].us_sparse > 0 &&
            report->layers[l].us_sparse < worth * report->layers[l].us_dense)
            return true;
    return false;
}

int terse_table_time_sparse(terse_table *t, const terse_npz *fit, const terse_table_options *o, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = NULL;
    terse_prune_report reports[N_AMOUNTS] = {0};
    int status = terse_edit_clone(t->graph, &graph, error);
    if (status == TERSE_OK && o->bytes)
        status = make_bytes(fit, graph, error);
    const uint64_t start = terse_now_ns();
    for (int i = 0; i < N_AMOUNTS && status == TERSE_OK; i++) {
        const int a = order[i].amount, after = order[i].after;
        const double gone = (double)(terse_now_ns() - start) / 1e9;
        char text[80];
        if (after >= 0 && (!is_any_faster(t, &reports[after]) || (i > 2 && gone > timing_share * o->seconds)))
            continue;
        snprintf(text, sizeof text, "timing 4x1 weights, %.0f %% of zeros", 100.0 * amounts[a]);
        if (o->progress)
            o->progress(o->context, text);
        reports[a].layers = calloc((size_t)t->n + 1, sizeof *reports[a].layers);
        status = reports[a].layers ? time_amount(t, graph, amounts[a], &reports[a], error) : out_of_memory(error);
    }
    if (status == TERSE_OK)
        add_options(t, reports);
    for (int a = 0; a < N_AMOUNTS; a++)
        terse_prune_report_done(&reports[a]);
    return status;
}
