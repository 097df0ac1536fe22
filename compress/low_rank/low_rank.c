/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/low_rank/low_rank.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void terse_low_rank_report_done(terse_low_rank_report *report)
{
    free(report->layers);
    *report = (terse_low_rank_report){0};
}

/* How often one sample runs through the weights: the output's elements per channel (the input's for a ConvTranspose),
 * symbols counting as 1. */
static int64_t positions(const terse_edit *edit, int node)
{
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *y = &edit->graph->values[n->outputs[0]];
    if (n->op == TERSE_OP_CONV_TRANSPOSE && n->inputs[0] >= 0)
        y = &edit->graph->values[n->inputs[0]];
    const int channel = n->op == TERSE_OP_CONV || n->op == TERSE_OP_CONV_TRANSPOSE ? 1 : y->rank - 1;
    int64_t count = 1;
    for (int i = 0; i < y->rank; i++)
        if (i != channel && y->dims[i] > 0 && __builtin_mul_overflow(count, y->dims[i], &count))
            return INT64_MAX;
    return count;
}

static int64_t times(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

static terse_low_rank_layer *add_layer(terse_low_rank_report *report, const terse_edit *edit, int node)
{
    if (report->n == report->capacity) {
        const int wanted = report->capacity ? 2 * report->capacity : 64;
        terse_low_rank_layer *layers = realloc(report->layers, (size_t)wanted * sizeof *layers);
        if (!layers)
            return NULL;
        report->layers = layers;
        report->capacity = wanted;
    }
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *weights = &edit->graph->values[n->inputs[1]], *y = &edit->graph->values[n->outputs[0]];
    terse_low_rank_layer *layer = &report->layers[report->n++];
    *layer = (terse_low_rank_layer){.op = n->op, .energy = 1.0};
    snprintf(layer->name, sizeof layer->name, "%s", n->name[0] ? n->name : y->name);
    terse_dims_text(weights->dims, weights->rank, layer->shape, sizeof layer->shape);
    layer->macs_before = layer->macs_after = times((int64_t)(weights->bytes / sizeof(float)), positions(edit, node));
    return layer;
}

/* sqrt(s) goes to both sides, so that neither factor has a wider range than needed. */
static void factor(terse_edit *edit, int node, const terse_svd *svd, int64_t rank)
{
    float *first = terse_edit_alloc(edit, (size_t)(svd->k * rank) * sizeof *first);
    float *second = terse_edit_alloc(edit, (size_t)(rank * svd->n) * sizeof *second);
    if (!first || !second)
        return;
    for (int64_t r = 0; r < rank; r++) {
        const float root = sqrtf(svd->s[r]);
        for (int64_t i = 0; i < svd->k; i++)
            first[i * rank + r] = svd->u[r * svd->k + i] * root;
        for (int64_t j = 0; j < svd->n; j++)
            second[r * svd->n + j] = svd->vt[j * svd->m + r] * root;
    }
    terse_factor_node(edit, node, first, second, rank);
}

/* Decides for one layer and factors it. Only memory that is out is an error. */
static int compress_layer(terse_edit *edit, int node, double energy, terse_low_rank_layer *layer, terse_error *error)
{
    terse_low_rank_matrix matrix;
    if (!terse_select_matrix(edit, node, &matrix, layer->reason, sizeof layer->reason))
        return TERSE_OK;
    layer->full = matrix.k < matrix.n ? matrix.k : matrix.n;
    const int64_t limit = terse_select_rank_limit(matrix.k, matrix.n);
    if (energy == 0 || limit < 1) {
        snprintf(layer->reason, sizeof layer->reason, energy == 0 ? "not asked for" : "too small to save work");
        return TERSE_OK;
    }
    terse_svd svd;
    terse_error why;
    const int status = terse_svd_compute(&matrix, &svd, &why);
    if (status == TERSE_RESOURCE_EXHAUSTED)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "layer '%s': %s", layer->name, why.message);
    if (status != TERSE_OK) {
        snprintf(layer->reason, sizeof layer->reason, "%.90s", why.message);
        return TERSE_OK;
    }
    double kept;
    const int64_t larger = matrix.k > matrix.n ? matrix.k : matrix.n;
    const int64_t rank = terse_select_rank(svd.s, svd.m, larger, energy, &kept);
    if (rank > limit) {
        snprintf(layer->reason, sizeof layer->reason, "rank %" PRId64 " saves nothing, up to %" PRId64 " would", rank,
                 limit);
    } else if (!terse_select_saves_panels(matrix.k, matrix.n, rank)) {
        snprintf(layer->reason, sizeof layer->reason, "rank %" PRId64 " saves nothing in panels of 16 columns", rank);
    } else {
        const int64_t often = positions(edit, node);
        factor(edit, node, &svd, rank);
        layer->rank = rank;
        layer->energy = kept;
        layer->macs_after = times(times(rank, matrix.k + matrix.n), often);
        snprintf(layer->reason, sizeof layer->reason, "factored");
    }
    terse_svd_done(&svd);
    return TERSE_OK;
}

int terse_low_rank_run(terse_graph *graph, double energy, terse_low_rank_progress *progress, void *context,
                       terse_low_rank_report *ret_report, terse_error *error)
{
    terse_edit edit;
    int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    terse_low_rank_report report = {0};
    const int n = graph->n_nodes;
    int n_layers = 0;
    for (int node = 0; node < n; node++)
        n_layers += terse_edit_is_weighted(&edit, node);
    for (int node = 0; node < n && status == TERSE_OK && !edit.failed; node++) {
        if (!terse_edit_is_weighted(&edit, node))
            continue;
        terse_low_rank_layer *layer = add_layer(&report, &edit, node);
        if (!layer) {
            edit.failed = true;
            break;
        }
        if (progress && energy > 0)
            progress(context, report.n, n_layers, layer->name);
        status = compress_layer(&edit, node, energy, layer, error);
    }
    const int closed = terse_edit_close(&edit, status == TERSE_OK ? error : NULL);
    status = status == TERSE_OK ? closed : status;
    if (status != TERSE_OK) {
        terse_low_rank_report_done(&report);
        return status;
    }
    *ret_report = report;
    return TERSE_OK;
}
