/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/table_steps.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/steps.h"
#include "compress/tune.h"

const char *terse_table_kind_name(terse_table_kind kind)
{
    static const char *const names[] = {"dense", "FP32", "low rank", "4x1", "clusters", "4x1 and clusters"};
    return names[kind];
}

int64_t terse_table_samples(const terse_table *table)
{
    return table->state ? table->state->samples.samples : 0;
}

void terse_table_done(terse_table *table)
{
    if (table->state) {
        terse_replay_free(table->state->replay);
        terse_samples_done(&table->state->samples);
        terse_arena_free(table->state->arena);
        free(table->state);
    }
    free(table->layers);
    *table = (terse_table){0};
}

void terse_table_refuse(terse_table_layer *layer, const char *format, ...)
{
    if (layer->n_refused == TERSE_CHOICE_REFUSED)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(layer->refused[layer->n_refused++], TERSE_CHOICE_WHY, format, arguments);
    va_end(arguments);
}

terse_table_option *terse_table_add(terse_table_layer *layer, terse_table_kind kind)
{
    if (layer->n == TERSE_TABLE_OPTIONS)
        return NULL;
    terse_table_option *o = &layer->options[layer->n++];
    *o = (terse_table_option){.kind = kind};
    return o;
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the table of choices");
}

/* --- layers ---------------------------------------------------------------------------------------------------------
 */

static int list_layers(terse_table *t, terse_error *error)
{
    const terse_edit edit = {.graph = (terse_graph *)(uintptr_t)t->graph};
    t->layers = calloc((size_t)t->graph->n_nodes + 1, sizeof *t->layers);
    if (!t->layers)
        return out_of_memory(error);
    for (int n = 0; n < t->graph->n_nodes; n++) {
        const terse_node *node = &t->graph->nodes[n];
        if (!terse_edit_is_weighted(&edit, n))
            continue;
        const terse_value *w = &t->graph->values[node->inputs[1]];
        terse_table_layer *layer = &t->layers[t->n++];
        layer->node = n;
        layer->weights = terse_dims_count(w->dims, w->rank);
        snprintf(layer->name, sizeof layer->name, "%s", node->name);
        terse_table_add(layer, TERSE_OPTION_DENSE);
    }
    return TERSE_OK;
}

/* --- times of dense layers -------------------------------------------------------------------------------------------
 */

static bool is_of(const terse_node *node, const char *name)
{
    const size_t length = strlen(name);
    return strncmp(node->name, name, length) == 0 && (node->name[length] == 0 || node->name[length] == '/');
}

/* Microseconds of each layer's nodes; *ret_other of all others. Nothing where the network cannot be run like that. */
static int dense_times(const terse_table *t, const terse_graph *graph, double *us, double *ret_other,
                       terse_error *error)
{
    TERSE_AUTO(terse_freep) uint64_t *ns = NULL;
    const int status = terse_tune_times(graph, NULL, &ns, NULL, error);
    *ret_other = 0;
    for (int l = 0; l < t->n; l++)
        us[l] = 0;
    for (int n = 0; ns && status == TERSE_OK && n < graph->n_nodes; n++) {
        int of = -1;
        for (int l = 0; l < t->n && of < 0; l++)
            of = is_of(&graph->nodes[n], t->layers[l].name) ? l : -1;
        *(of < 0 ? ret_other : &us[of]) += (double)ns[n] / 1000.0;
    }
    return status;
}

static const terse_quantize_layer *find_int8(const terse_quantize_report *r, const char *name)
{
    for (int i = 0; r && i < r->n; i++)
        if (strcmp(r->layers[i].name, name) == 0)
            return &r->layers[i];
    return NULL;
}

/* Dense, and FP32 beside it. */
static int fill_dense(terse_table *t, const terse_table_options *o, terse_error *error)
{
    TERSE_AUTO(terse_freep) double *us = calloc(2 * (size_t)t->n + 2, sizeof *us);
    double ignored;
    int status = us ? dense_times(t, o->dense, us, &t->other_us, error) : out_of_memory(error);
    if (status == TERSE_OK && o->bytes && o->dense_float)
        status = dense_times(t, o->dense_float, us + t->n, &ignored, error);
    for (int l = 0; l < t->n && status == TERSE_OK; l++) {
        terse_table_layer *layer = &t->layers[l];
        terse_table_option *dense = &layer->options[0];
        const terse_quantize_layer *int8 = find_int8(o->int8, layer->name);
        const bool kept = o->bytes && (!int8 || int8->kept);
        dense->us = us[l];
        dense->bytes = (double)layer->weights * (o->bytes && !kept ? 1.0 : 4.0);
        if (!o->bytes)
            continue;
        if (kept) {
            terse_table_refuse(layer, "int8: %s", int8 ? int8->reason : "has no form on bytes");
            continue;
        }
        dense->cost = !int8->measured        ? 0
                      : t->state->has_rows   ? fmax(0, int8->divergence)
                      : isinf(int8->sqnr_db) ? 0
                                             : pow(10, -int8->sqnr_db / 10);
        terse_table_option *in_float = terse_table_add(layer, TERSE_OPTION_FLOAT);
        in_float->choice.keep_float = true;
        in_float->us = us[t->n + l];
        in_float->bytes = 4.0 * (double)layer->weights;
    }
    return status;
}

/* --- what each option costs alone
 * ------------------------------------------------------------------------------------- */

/* The option with number `index` among those of its layer that have weights of their own. */
static int nth_weighted(const terse_table_layer *layer, int index)
{
    for (int i = 0; i < layer->n; i++)
        if (layer->options[i].weights && index-- == 0)
            return i;
    return -1;
}

static int measure_wave(terse_table *t, int wave, const terse_table_options *o, int *ret_n, terse_error *error)
{
    const terse_graph *graph = t->graph;
    const size_t nodes = (size_t)graph->n_nodes + 1;
    TERSE_AUTO(terse_freep) terse_scheme_kind *kinds = calloc(nodes, sizeof *kinds);
    TERSE_AUTO(terse_freep) bool *none = calloc((size_t)graph->n_values + 1, sizeof *none);
    TERSE_AUTO(terse_freep) float **weights = calloc(nodes, sizeof *weights);
    TERSE_AUTO(terse_freep) terse_loss *losses = calloc(nodes, sizeof *losses);
    *ret_n = 0;
    if (!kinds || !none || !weights || !losses)
        return out_of_memory(error);
    for (int l = 0; l < t->n; l++) {
        const int at = nth_weighted(&t->layers[l], wave);
        if (at < 0)
            continue;
        weights[t->layers[l].node] = t->layers[l].options[at].weights;
        kinds[t->layers[l].node] = TERSE_SCHEME_PRODUCT;
        ++*ret_n;
    }
    if (*ret_n == 0)
        return TERSE_OK;
    const terse_scheme scheme = {.graph = graph, .kinds = kinds, .demanded = none, .given = none, .source = none};
    const terse_disguise disguise = {.scheme = &scheme, .weights = weights};
    const int status =
        terse_sensitivity_measure(t->state->replay, graph, &disguise, losses, o->progress, o->context, error);
    for (int l = 0; l < t->n && status == TERSE_OK; l++) {
        const int at = nth_weighted(&t->layers[l], wave);
        const terse_loss *loss = &losses[t->layers[l].node];
        if (at < 0)
            continue;
        t->layers[l].options[at].cost =
            t->layers[l].options[0].cost + fmax(0, loss->rows > 0 ? terse_loss_kl(loss) : terse_loss_share(loss));
    }
    return status;
}

static int measure_costs(terse_table *t, const terse_table_options *o, terse_error *error)
{
    int status = TERSE_OK, n = 1;
    for (int wave = 0; n > 0 && status == TERSE_OK; wave++)
        status = measure_wave(t, wave, o, &n, error);
    return status;
}

int terse_table_score(const terse_table *t, const int *chosen, double *ret_cost, terse_error *error)
{
    TERSE_AUTO(terse_freep) float **weights = calloc((size_t)t->graph->n_nodes + 1, sizeof *weights);
    if (!weights)
        return out_of_memory(error);
    double base = 0;
    for (int l = 0; l < t->n; l++) {
        const terse_table_option *o = &t->layers[l].options[chosen[l]];
        weights[t->layers[l].node] = o->weights;
        base += o->choice.keep_float ? 0 : t->layers[l].options[0].cost;
    }
    terse_loss loss = {0};
    const terse_disguise disguise = {.weights = weights};
    const int status = terse_sensitivity_total(t->state->replay, t->graph, &disguise, &loss, error);
    if (status == TERSE_OK)
        *ret_cost = base + fmax(0, loss.rows > 0 ? terse_loss_kl(&loss) : terse_loss_share(&loss));
    return status;
}

/* --- the whole -------------------------------------------------------------------------------------------------------
 */

enum { MIN_TRIAL = 4, MAX_TRIAL = 32, TRIAL_ROWS = 4 };

/* Samples that losses are measured on: as many as there is time for. One run takes `seconds`. */
static int64_t trial_samples(const terse_table *t, const terse_table_options *o, double seconds)
{
    double waves = 0;
    for (int l = 0; l < t->n; l++)
        for (int i = 0; i < t->layers[l].n; i++)
            waves += t->layers[l].options[i].weights ? 0.5 : 0; /* on average half of the network is behind a layer */
    const double n = 0.4 * o->seconds / (seconds * (waves + 1) + 1e-9);
    return n < MIN_TRIAL ? MIN_TRIAL : n > MAX_TRIAL ? MAX_TRIAL : (int64_t)n;
}

static int make(terse_table *t, const terse_npz *fit, const terse_table_options *o, terse_error *error)
{
    t->state = calloc(1, sizeof *t->state);
    if (!t->state || !(t->state->arena = terse_arena_new()))
        return out_of_memory(error);
    double seconds = 0;
    int status = terse_samples_open(t->graph, fit, &t->state->samples, error);
    if (status == TERSE_OK)
        status = list_layers(t, error);
    if (status == TERSE_OK) {
        const terse_value *output = &t->graph->values[t->graph->outputs[0]];
        t->state->has_rows = output->dtype == TERSE_FP32 && output->rank > 0 && output->dims[output->rank - 1] > 1;
        status = fill_dense(t, o, error);
    }
    if (status == TERSE_OK && !o->by_size)
        status = terse_table_time_sparse(t, fit, o, error);
    if (status == TERSE_OK)
        status = terse_table_walk(t, o, &seconds, error);
    if (status == TERSE_OK)
        status = terse_replay_new(t->graph, &t->state->samples, trial_samples(t, o, seconds), TRIAL_ROWS,
                                  &t->state->replay, error);
    return status == TERSE_OK ? measure_costs(t, o, error) : status;
}

int terse_table_make(const terse_graph *graph, const terse_npz *fit, const terse_table_options *options,
                     terse_table *ret_table, terse_error *error)
{
    terse_table t = {.graph = graph};
    const int status = make(&t, fit, options, error);
    if (status == TERSE_OK)
        *ret_table = t;
    else
        terse_table_done(&t);
    return status;
}
