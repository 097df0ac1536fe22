/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Samples walk through the network as it was and, in lockstep, as it is so far (compress/low_rank has the
 * walk and the moments). At each product the best weights for what the pruned prefix really hands over are the target,
 * and what goes is chosen by what the output loses of that; the bias takes up the means. Products that are not pruned
 * themselves but read what others changed are fitted to it too. Weights are written behind the walk, which needs a
 * graph that stays as it is. */
#include "compress/prune/prune.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/steps.h"
#include "compress/prune/channels.h"
#include "compress/prune/obs.h"
#include "compress/quantize/steps.h"

enum { LEAST_K = 16 };         /* of fewer inputs nothing is taken: there is nothing to gain */
enum { SAMPLES = 512 };        /* at most */
#define ROOM ((size_t)1 << 30) /* bytes that the samples' numbers may take */

/* A layer on its way. */
typedef struct job_layer {
    int node, report; /* report: its line */
    bool pruned;
    double *weights, *bias; /* what it gets; NULL: what it has */
} job_layer;

typedef struct job {
    terse_graph *graph;
    const terse_prune_options *options;
    terse_samples samples;
    bool with_samples;
    job_layer *layers;
    int n;
    terse_channels_choice channels; /* of that kind */
    terse_prune_report report;
} job;

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for pruning");
}

void terse_prune_report_done(terse_prune_report *report)
{
    free(report->layers);
    terse_kept_done(&report->kept);
    *report = (terse_prune_report){0};
}

static void job_done(job *j)
{
    for (int i = 0; i < j->n; i++) {
        free(j->layers[i].weights);
        free(j->layers[i].bias);
    }
    free(j->layers);
    terse_channels_done(&j->channels);
    if (j->with_samples)
        terse_samples_done(&j->samples);
    terse_prune_report_done(&j->report);
}

/* The share of a layer that goes. */
static double amount_of(const terse_prune_options *o, const char *name)
{
    const terse_choice *c = o->choices ? terse_choices_find(o->choices, name) : NULL;
    return !o->choices ? o->amount : c ? c->prune : 0;
}

/* --- which layers ---------------------------------------------------------------------------------------------------
 */

static terse_prune_layer *add_layer(terse_prune_report *report, const terse_edit *edit, int node)
{
    if (report->n == report->capacity) {
        const int wanted = report->capacity ? 2 * report->capacity : 64;
        terse_prune_layer *layers = realloc(report->layers, (size_t)wanted * sizeof *layers);
        if (!layers)
            return NULL;
        report->layers = layers;
        report->capacity = wanted;
    }
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *w = &edit->graph->values[n->inputs[1]], *y = &edit->graph->values[n->outputs[0]];
    terse_prune_layer *layer = &report->layers[report->n++];
    *layer = (terse_prune_layer){.op = n->op, .kept = 1.0, .error = -1.0};
    snprintf(layer->name, sizeof layer->name, "%s", n->name[0] ? n->name : y->name);
    terse_dims_text(w->dims, w->rank, layer->shape, sizeof layer->shape);
    return layer;
}

/* Whether a weighted node can be pruned; else the reason. */
static bool select_layer(const terse_edit *edit, int node, terse_prune_layer *layer)
{
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *w = &edit->graph->values[n->inputs[1]];
    const int64_t groups = n->op == TERSE_OP_CONV ? terse_node_int(n, "group", 1) : 1;
    const int64_t outputs = n->op == TERSE_OP_CONV ? w->dims[0] : w->dims[1];
    const int64_t k = terse_dims_count(w->dims, w->rank) / (outputs ? outputs : 1);
    if (n->op == TERSE_OP_CONV_TRANSPOSE)
        snprintf(layer->reason, sizeof layer->reason, "a transposed convolution has no sparse form");
    else if (groups != 1)
        snprintf(layer->reason, sizeof layer->reason, "%" PRId64 " groups, only one can be pruned", groups);
    else if (edit->uses[n->inputs[1]] > 1)
        snprintf(layer->reason, sizeof layer->reason, "its weights are another layer's too");
    else if (k < LEAST_K || outputs < 4)
        snprintf(layer->reason, sizeof layer->reason, "%" PRId64 " inputs by %" PRId64 " outputs, %d by 4 are needed",
                 k, outputs, LEAST_K);
    else
        return true;
    return false;
}

static int list_layers(job *j, terse_error *error)
{
    terse_edit edit;
    int status = terse_edit_open(j->graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    j->layers = calloc((size_t)j->graph->n_nodes + 1, sizeof *j->layers);
    edit.failed = !j->layers;
    for (int node = 0; node < j->graph->n_nodes && !edit.failed; node++) {
        if (!terse_edit_is_weighted(&edit, node))
            continue;
        terse_low_rank_product product = {0};
        char reason[96];
        terse_prune_layer *layer = add_layer(&j->report, &edit, node);
        if (!layer) {
            edit.failed = true;
            break;
        }
        const bool asked = amount_of(j->options, layer->name) > 0, selected = asked && select_layer(&edit, node, layer);
        if (!asked)
            snprintf(layer->reason, sizeof layer->reason, "not asked for");
        if (!terse_select_product(&edit, node, &product, reason, sizeof reason)) {
            if (selected)
                snprintf(layer->reason, sizeof layer->reason, "%s", reason);
            continue;
        }
        terse_select_done(&product);
        if (edit.uses[j->graph->nodes[node].inputs[1]] == 1)
            j->layers[j->n++] = (job_layer){.node = node, .report = j->report.n - 1, .pruned = selected};
    }
    return terse_edit_close(&edit, error);
}

/* --- one layer ------------------------------------------------------------------------------------------------------
 */

/* By what the output loses; where the moments are of no use, by size. */
static int choose_weights(const job *j, const terse_low_rank_product *product, const terse_metric *metric,
                          double *weights, terse_prune_layer *line, terse_error *error)
{
    const terse_prune_options *o = j->options;
    terse_obs obs = {0};
    terse_error why = {0};
    int status = TERSE_INTERNAL;
    if (metric->cov)
        status = terse_obs_open(metric->target, product->o, product->k, metric->cov, o->kind, true, &obs, &why);
    if (status == TERSE_OK)
        status = terse_obs_prune(&obs, amount_of(o, line->name), weights, &line->error, &why);
    if (status == TERSE_RESOURCE_EXHAUSTED)
        *error = why;
    if (status == TERSE_OK)
        snprintf(line->reason, sizeof line->reason, obs.order ? "OBS" : "OBS in the order of the inputs");
    terse_obs_done(&obs);
    if (status == TERSE_OK || status == TERSE_RESOURCE_EXHAUSTED)
        return status;
    memcpy(weights, metric->target, (size_t)(product->o * product->k) * sizeof *weights);
    terse_prune_matrix m = {.w = weights, .n = product->o, .k = product->k};
    if (terse_prune_by_magnitude(&m, o->kind, amount_of(o, line->name)) < 0)
        return out_of_memory(error);
    snprintf(line->reason, sizeof line->reason, "by size%s%.90s", metric->cov ? ": " : "",
             metric->cov       ? why.message
             : j->with_samples ? ": too many inputs for their second moments"
                               : "");
    return TERSE_OK;
}

/* What is left of a layer's inputs, fitted. */
static int keep_channels(const job *j, const terse_low_rank_product *product, const terse_metric *metric,
                         double *weights, terse_prune_layer *line, terse_error *error)
{
    TERSE_AUTO(terse_freep) bool *keep = malloc((size_t)product->k * sizeof *keep + 1);
    if (!keep)
        return out_of_memory(error);
    double lost;
    const bool gone = terse_channels_keep(&j->channels, product, keep) > 0;
    if (!gone) {
        memcpy(weights, metric->target, (size_t)(product->o * product->k) * sizeof *weights);
        return TERSE_OK;
    }
    const int status =
        terse_channels_fit(metric->target, metric->cov, product->o, product->k, keep, weights, &lost, error);
    line->error = lost;
    return status;
}

/* float weights and bias for the walk */
static int pretend(const double *from, int64_t n, terse_arena *arena, float **ret_to, terse_error *error)
{
    float *to = terse_arena_alloc(arena, (size_t)n * sizeof *to + 1);
    for (int64_t i = 0; to && i < n; i++)
        to[i] = (float)from[i];
    *ret_to = to;
    return to ? TERSE_OK : out_of_memory(error);
}

/* `m` [o][k] in the order of the node's weights. */
static int pretend_weights(const terse_low_rank_product *p, const double *m, terse_arena *arena, float **ret_to,
                           terse_error *error)
{
    int status = pretend(m, p->o * p->k, arena, ret_to, error);
    for (int64_t o = 0; status == TERSE_OK && !p->conv && o < p->o; o++)
        for (int64_t k = 0; k < p->k; k++)
            (*ret_to)[k * p->o + o] = (float)m[o * p->k + k];
    return status;
}

static int fit(job *j, job_layer *l, const terse_low_rank_product *product, const terse_walk *s, float **weights,
               float **biases, terse_arena *arena, terse_error *error)
{
    terse_moments moments = {0};
    terse_metric metric = {0};
    terse_prune_layer *line = &j->report.layers[l->report];
    const size_t count = (size_t)(product->o * product->k);
    int status =
        terse_walk_measure(s, product, s && terse_select_has_residual(j->graph, l->node), &moments, &metric, error);
    l->weights = malloc(count * sizeof *l->weights + 1);
    if (status == TERSE_OK && !l->weights)
        status = out_of_memory(error);
    if (status == TERSE_OK && j->channels.open)
        status = keep_channels(j, product, &metric, l->weights, line, error);
    else if (status == TERSE_OK && l->pruned)
        status = choose_weights(j, product, &metric, l->weights, line, error);
    else if (status == TERSE_OK)
        memcpy(l->weights, metric.target, count * sizeof *l->weights);
    if (status == TERSE_OK && metric.cov && (l->bias = terse_select_bias(j->graph, product)))
        terse_metric_bias(product, &moments, l->weights, l->bias);
    if (status == TERSE_OK && s)
        status = pretend_weights(product, l->weights, arena, &weights[l->node], error);
    if (status == TERSE_OK && s && l->bias)
        status = pretend(l->bias, product->o, arena, &biases[l->node], error);
    terse_metric_done(&metric);
    terse_moments_done(&moments);
    return status;
}

static int fit_layer(job *j, job_layer *l, const terse_walk *s, float **weights, float **biases, terse_arena *arena,
                     terse_error *error)
{
    const terse_edit edit = {.graph = j->graph};
    terse_low_rank_product product = {0};
    char text[160];
    if (!terse_select_product(&edit, l->node, &product, text, sizeof text))
        return out_of_memory(error);
    snprintf(text, sizeof text, "pruning layer %d of %d: %.90s", l->report + 1, j->report.n,
             j->report.layers[l->report].name);
    if (j->options->progress)
        j->options->progress(j->options->context, text);
    const int status = fit(j, l, &product, s, weights, biases, arena, error);
    if (status == TERSE_OK && l->pruned && !j->channels.open) {
        const terse_prune_matrix m = {.w = l->weights, .n = product.o, .k = product.k};
        j->report.layers[l->report].pruned = true;
        j->report.layers[l->report].kept = terse_prune_kept(&m, j->options->kind);
    }
    terse_select_done(&product);
    return status;
}

static int fit_layers(job *j, int64_t samples, terse_error *error)
{
    terse_walk s = {0};
    TERSE_AUTO(terse_freep) float **weights = calloc((size_t)j->graph->n_nodes + 1, sizeof *weights);
    TERSE_AUTO(terse_freep) float **biases = calloc((size_t)j->graph->n_nodes + 1, sizeof *biases);
    terse_arena *arena = terse_arena_new();
    int status = weights && biases && arena ? TERSE_OK : out_of_memory(error);
    const terse_disguise disguise = {.weights = weights, .bias = biases};
    if (status == TERSE_OK && j->channels.open)
        status = terse_channels_disguise(&j->channels, arena, weights, error);
    if (status == TERSE_OK && j->with_samples)
        status = terse_walk_open(&j->samples, samples, &disguise, &s, error);
    bool changed = false; /* what comes behind a layer that is no longer exact is fitted too */
    for (int node = 0, next = 0; node < j->graph->n_nodes && status == TERSE_OK; node++) {
        if (next < j->n && j->layers[next].node == node) {
            job_layer *l = &j->layers[next++];
            changed = changed || l->pruned;
            if (l->pruned || (changed && j->with_samples))
                status = fit_layer(j, l, j->with_samples ? &s : NULL, weights, biases, arena, error);
        }
        if (status == TERSE_OK && j->with_samples)
            status = terse_walk_step(&s, node, error);
    }
    terse_walk_done(&s);
    terse_arena_free(arena);
    return status;
}

/* --- the graph ------------------------------------------------------------------------------------------------------
 */

static void write_layer(job *j, const job_layer *l, terse_edit *edit)
{
    terse_low_rank_product product = {0};
    char reason[96];
    if (!l->weights)
        return;
    if (!terse_select_product(edit, l->node, &product, reason, sizeof reason)) {
        edit->failed = true;
        return;
    }
    terse_factor_refit(edit, &product, l->weights);
    if (l->bias)
        terse_factor_bias(edit, &product, l->bias);
    if (l->pruned)
        terse_prune_mark(edit, l->node, j->options->kind, j->report.layers[l->report].kept);
    terse_select_done(&product);
}

static int write_layers(job *j, terse_error *error)
{
    terse_edit edit;
    int status = terse_edit_open(j->graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int i = 0; i < j->n && !edit.failed; i++)
        write_layer(j, &j->layers[i], &edit);
    return terse_edit_close(&edit, error);
}

/* --- channels -------------------------------------------------------------------------------------------------------
 */

/* The lines of all layers say what is left of them; products are fitted to it. */
static void tell_channels(job *j)
{
    const terse_edit *edit = &j->channels.edit;
    for (int i = 0; i < j->n; i++)
        j->layers[i].pruned = false;
    for (int node = 0, line = 0, next = 0; node < j->graph->n_nodes; node++) {
        if (!terse_edit_is_weighted(edit, node))
            continue;
        terse_prune_layer *l = &j->report.layers[line++];
        l->pruned = terse_channels_line(&j->channels, node, l);
        while (next < j->n && j->layers[next].node < node)
            next++;
        if (next < j->n && j->layers[next].node == node)
            j->layers[next].pruned = l->pruned;
    }
    j->report.macs_before = j->channels.macs_before;
    j->report.macs_after = j->channels.macs_after;
}

static int run_channels(job *j, int64_t samples, terse_error *error)
{
    terse_channels_choice *c = &j->channels;
    int status = terse_channels_choose(j->graph, j->with_samples ? &j->samples : NULL, samples, j->options, c, error);
    if (status != TERSE_OK)
        return status;
    tell_channels(j);
    status = terse_channels_kept(c, &j->report.kept, error);
    if (status == TERSE_OK)
        status = fit_layers(j, samples, error);
    if (status != TERSE_OK)
        return status;
    for (int i = 0; i < j->n && !c->edit.failed; i++)
        write_layer(j, &j->layers[i], &c->edit);
    for (int node = 0, line = 0; node < j->graph->n_nodes && !c->edit.failed; node++)
        if (terse_edit_is_weighted(&c->edit, node) && j->report.layers[line++].pruned)
            terse_prune_mark(&c->edit, node, TERSE_PRUNE_CHANNELS, j->report.layers[line - 1].kept);
    terse_couple_cut(&c->couple, c->gone, &c->edit);
    return terse_channels_finish(c, error);
}

static int run(job *j, const terse_npz *data, terse_error *error)
{
    int64_t samples = 0;
    int status = TERSE_OK;
    if (data) {
        status = terse_bias_prepare(j->graph, error);
        if (status == TERSE_OK) {
            j->with_samples = true;
            status = terse_samples_open(j->graph, data, &j->samples, error);
        }
        size_t bytes = 1;
        if (status == TERSE_OK)
            status = terse_walk_bytes(&j->samples, &bytes, error);
        samples = (int64_t)fmin(SAMPLES, fmax(TERSE_WALK_CHUNK, (double)(ROOM / 2 / bytes)));
        j->report.samples = samples < j->samples.samples ? samples : j->samples.samples;
    }
    if (status == TERSE_OK)
        status = list_layers(j, error);
    if (status == TERSE_OK && j->options->kind == TERSE_PRUNE_CHANNELS)
        return run_channels(j, samples, error);
    if (status == TERSE_OK)
        status = fit_layers(j, samples, error);
    return status == TERSE_OK ? write_layers(j, error) : status;
}

int terse_prune_run(terse_graph *graph, const terse_npz *data, const terse_prune_options *options,
                    terse_prune_report *ret_report, terse_error *error)
{
    job j = {.graph = graph, .options = options};
    j.report.kind = options->kind;
    j.report.amount = options->amount;
    const int status = run(&j, data, error);
    if (status == TERSE_OK) {
        *ret_report = j.report;
        j.report = (terse_prune_report){0};
    }
    job_done(&j);
    return status;
}
