/* SPDX-License-Identifier: Apache-2.0 */
/* In which order the units of each group go, and what that costs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/prune/channels_parts.h"
#include "compress/prune/rank.h"
#include "compress/quantize/steps.h"
#include "compress/spill.h"

enum { MAX_SIDE = 4608, TRIAL_SAMPLES = 32 }; /* of second moments; that the outputs' loss is measured on */
#define MOMENTS_ROOM ((size_t)3 << 29)        /* bytes of all layers' moments; the others go by size */
#define PROBE 0.4                             /* of a group's units, gone to see what that does to the outputs */
/* A probe changes one layer; in the end all layers behind are fitted to what they get then. Of what the first layer's
 * probe costs they make up for so much, of the last one's for nothing. 0.5 chose as well for SqueezeNet. */
#define MADE_UP 0.3

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the order of channels");
}

/* --- what layers read ---------------------------------------------------------------------------------------------
 */

/* Weights as doubles, [o][k]. */
static double *layer_matrix(const channel_plan *p, const channel_layer *l)
{
    const terse_graph *graph = p->choice->edit.graph;
    const terse_node *n = &graph->nodes[l->node];
    const float *from = graph->values[n->inputs[1]].data;
    double *w = malloc((size_t)(l->o * l->k) * sizeof *w + 1);
    const bool rows = n->op == TERSE_OP_CONV; /* else [k][o] */
    for (int64_t o = 0; w && o < l->o; o++)
        for (int64_t k = 0; k < l->k; k++) {
            const double x = (double)(rows ? from[o * l->k + k] : from[k * l->o + o]);
            w[o * l->k + k] = isfinite(x) ? x : 0;
        }
    return w;
}

static bool reads_units(const channel_plan *p, int layer)
{
    int64_t n;
    const int32_t *labels = channel_layer_labels(p, &p->layers[layer], false, &n);
    for (int64_t i = 0; i < n; i++)
        if (p->unit_group[terse_couple_unit(&p->choice->couple, labels[i])] >= 0)
            return true;
    return false;
}

static int keep_moments(channel_plan *p, const terse_walk *walk, channel_layer *l, terse_error *error)
{
    terse_low_rank_product product = {0};
    terse_moments moments = {0};
    char reason[96];
    if (!terse_select_product(&p->choice->edit, l->node, &product, reason, sizeof reason))
        return TERSE_OK; /* its weights are no numbers: by size */
    double samples = 0;
    for (int i = 0; i < walk->n; i++)
        samples += (double)terse_replay_chunk_samples(walk->replay, i);
    int status = terse_moments_init(&product, false, samples * (double)product.positions_out, &moments, error);
    for (int i = 0; i < walk->n && status == TERSE_OK; i++)
        status = terse_moments_add(walk->graph, &product, walk->exact[i], walk->exact[i], &moments, error);
    if (status == TERSE_OK && moments.rows > 0) {
        terse_moments_finish(&moments);
        const size_t kk = (size_t)l->k * (size_t)l->k;
        void *piece = NULL;
        l->spilled = terse_spill_is_on();
        if (l->spilled)
            status = terse_spill_new(kk * sizeof *l->moments, &piece, error);
        l->moments = l->spilled ? piece : malloc(kk * sizeof *l->moments + 1);
        l->mean = TERSE_TAKE(moments.mean);
        for (size_t i = 0; l->moments && i < kk; i++)
            l->moments[i] = (float)moments.hat[i];
        if (l->spilled)
            terse_spill_rest(l->moments);
        else
            status = l->moments ? TERSE_OK : out_of_memory(error);
    }
    terse_moments_done(&moments);
    terse_select_done(&product);
    return status;
}

static int measure_layers(channel_plan *p, terse_error *error)
{
    terse_walk walk = {0};
    const terse_graph *graph = p->choice->edit.graph;
    size_t bytes = 0;
    int status = terse_walk_open(p->samples, p->n_samples, NULL, &walk, error);
    for (int node = 0, next = 0; node < graph->n_nodes && status == TERSE_OK; node++) {
        if (next < p->n_layers && p->layers[next].node == node) {
            channel_layer *l = &p->layers[next++];
            const size_t more = (size_t)l->k * (size_t)l->k * sizeof(float);
            char text[160];
            snprintf(text, sizeof text, "looking at layer %d of %d: %.90s", next, p->n_layers, graph->nodes[node].name);
            if (p->options->progress)
                p->options->progress(p->options->context, text);
            if (l->product && l->k <= MAX_SIDE && bytes + more <= MOMENTS_ROOM && reads_units(p, next - 1)) {
                bytes += more;
                status = keep_moments(p, &walk, l, error);
            }
        }
        if (status == TERSE_OK)
            status = terse_walk_step(&walk, node, error);
    }
    terse_walk_done(&walk);
    return status;
}

/* --- the order of a group -----------------------------------------------------------------------------------------
 */

/* How large what the units hand over is, as far as weights tell: squares of their rows where they are made. */
static double *find_power(channel_plan *p, int group)
{
    const channel_group *g = &p->groups[group];
    double *power = channel_plan_room(p, (size_t)g->n_units, sizeof *power);
    for (int t = 0; t < g->n_touches && power; t++) {
        const channel_layer *l = &p->layers[g->touches[t].layer];
        const terse_graph *graph = p->choice->edit.graph;
        const terse_value *w = &graph->values[graph->nodes[l->node].inputs[1]];
        int64_t n;
        const int32_t *labels = channel_layer_labels(p, l, true, &n);
        if (!g->touches[t].out)
            continue;
        const int64_t inner = terse_dims_count(w->dims + l->role.out_axis + 1, w->rank - l->role.out_axis - 1);
        const int64_t count = terse_dims_count(w->dims, w->rank);
        for (int64_t i = 0; i < count; i++) {
            const int32_t unit = terse_couple_unit(&p->choice->couple, labels[i / inner % n]);
            const double x = (double)((const float *)w->data)[i];
            if (p->unit_group[unit] == group && isfinite(x))
                power[p->unit_index[unit]] += x * x / (double)count;
        }
    }
    return power;
}

/* Columns of each unit in a layer's matrix: counted, then dealt out. */
static bool find_columns(channel_plan *p, int group, const channel_layer *l, terse_rank_reader *reader)
{
    const int n_units = p->groups[group].n_units;
    int64_t n;
    const int32_t *labels = channel_layer_labels(p, l, false, &n);
    int32_t *first = channel_plan_room(p, (size_t)n_units + 2, sizeof *first);
    int32_t *columns = channel_plan_room(p, (size_t)l->k, sizeof *columns);
    if (!first || !columns || n * l->taps != l->k || l->k > INT32_MAX)
        return false;
    for (int round = 0; round < 2; round++) {
        for (int64_t i = 0; i < n; i++) {
            const int32_t unit = terse_couple_unit(&p->choice->couple, labels[i]);
            if (p->unit_group[unit] != group)
                continue;
            int32_t *at = &first[p->unit_index[unit] + 1 + (round == 0)];
            for (int64_t t = 0; t < l->taps; t++, (*at)++)
                if (round == 1)
                    columns[*at] = (int32_t)(i * l->taps + t);
        }
        for (int u = 0; round == 0 && u < n_units; u++)
            first[u + 2] += first[u + 1];
    }
    /* dealing has moved each begin to the next one's */
    reader->first = first;
    reader->columns = columns;
    return true;
}

static int open_reader(channel_plan *p, int group, channel_reader *r, const double *power, terse_rank_reader *reader,
                       terse_error *error)
{
    const channel_layer *l = &p->layers[r->layer];
    *reader = (terse_rank_reader){.o = l->o, .k = l->k, .moments = l->moments, .weight = 1};
    reader->power = l->moments ? NULL : power;
    reader->w = layer_matrix(p, l);
    r->lost = channel_plan_room(p, (size_t)p->groups[group].n_units, sizeof *r->lost);
    r->probe = l->moments ? channel_plan_room(p, (size_t)(l->o * l->k), sizeof *r->probe) : NULL;
    reader->lost = r->lost;
    reader->probe = r->probe;
    if (!reader->w || !r->lost || (l->moments && !r->probe) || !find_columns(p, group, l, reader))
        return out_of_memory(error);
    return TERSE_OK;
}

/* The bias that goes with a probe, and its weights as the node has them. */
static int finish_probe(channel_plan *p, channel_reader *r, const double *w, terse_error *error)
{
    const channel_layer *l = &p->layers[r->layer];
    const terse_graph *graph = p->choice->edit.graph;
    const terse_low_rank_product product = {.node = l->node, .o = l->o, .k = l->k};
    TERSE_AUTO(terse_freep) double *bias = terse_select_bias(graph, &product);
    if (bias && !(r->probe_bias = channel_plan_room(p, (size_t)l->o, sizeof *r->probe_bias)))
        return out_of_memory(error);
    for (int64_t o = 0; o < l->o && bias; o++) {
        for (int64_t k = 0; k < l->k; k++)
            bias[o] += (w[o * l->k + k] - (double)r->probe[o * l->k + k]) * l->mean[k];
        r->probe_bias[o] = (float)bias[o];
    }
    if (graph->nodes[l->node].op == TERSE_OP_CONV)
        return TERSE_OK;
    float *other = channel_plan_room(p, (size_t)(l->o * l->k), sizeof *other);
    for (int64_t o = 0; o < l->o && other; o++)
        for (int64_t k = 0; k < l->k; k++)
            other[k * l->o + o] = r->probe[o * l->k + k];
    r->probe = other;
    return other ? TERSE_OK : out_of_memory(error);
}

static int order_group(channel_plan *p, int group, int *ret_probed, terse_error *error)
{
    channel_group *g = &p->groups[group];
    TERSE_AUTO(terse_freep) terse_rank_reader *readers = calloc((size_t)g->n_readers + 1, sizeof *readers);
    TERSE_AUTO(terse_freep) int32_t *order = calloc((size_t)g->n_units + 1, sizeof *order);
    const double *power = find_power(p, group);
    int status = readers && order && power ? TERSE_OK : out_of_memory(error);
    for (int r = 0; r < g->n_readers && status == TERSE_OK; r++)
        status = open_reader(p, group, &g->readers[r], power, &readers[r], error);
    if (status == TERSE_OK)
        status =
            terse_rank_units(readers, g->n_readers, g->n_units, (int)(PROBE * g->n_units), order, ret_probed, error);
    for (int r = 0; r < g->n_readers && status == TERSE_OK; r++)
        if (g->readers[r].probe)
            status = finish_probe(p, &g->readers[r], readers[r].w, error);
    for (int r = 0; readers && r < g->n_readers; r++)
        free((double *)(uintptr_t)readers[r].w);
    for (int r = 0; r < g->n_readers; r++)
        if (p->layers[g->readers[r].layer].spilled)
            terse_spill_rest(p->layers[g->readers[r].layer].moments);
    if (status != TERSE_OK)
        return status;
    int32_t *sorted = channel_plan_room(p, (size_t)g->n_units, sizeof *sorted);
    if (!sorted)
        return out_of_memory(error);
    for (int i = 0; i < g->n_units; i++)
        sorted[i] = g->units[order[i]];
    g->units = sorted;
    for (int i = 0; i < g->n_units; i++)
        p->unit_index[sorted[i]] = i;
    return TERSE_OK;
}

/* --- what that does to the network's outputs ----------------------------------------------------------------------
 */

/* One probe of each layer at a time; a layer that reads two groups has two. */
static int try_probes(channel_plan *p, const terse_replay *replay, int round, const int *probed, bool *ret_any,
                      terse_error *error)
{
    const terse_graph *graph = p->choice->edit.graph;
    const size_t n = (size_t)graph->n_nodes + 1;
    TERSE_AUTO(terse_freep) terse_scheme_kind *kinds = calloc(n, sizeof *kinds);
    TERSE_AUTO(terse_freep) bool *none = calloc((size_t)graph->n_values + 1, sizeof *none);
    TERSE_AUTO(terse_freep) float **weights = calloc(n, sizeof *weights), **bias = calloc(n, sizeof *bias);
    TERSE_AUTO(terse_freep) channel_reader **at = calloc(n, sizeof *at);
    TERSE_AUTO(terse_freep) int *seen = calloc(n, sizeof *seen), *when = calloc(n, sizeof *when);
    TERSE_AUTO(terse_freep) terse_loss *losses = calloc(n, sizeof *losses);
    if (!kinds || !none || !weights || !bias || !at || !seen || !when || !losses)
        return out_of_memory(error);
    *ret_any = false;
    for (int g = 0; g < p->n_groups; g++)
        for (int r = 0; r < p->groups[g].n_readers; r++) {
            channel_reader *reader = &p->groups[g].readers[r];
            const int node = p->layers[reader->layer].node;
            if (!reader->probe || seen[node]++ != round)
                continue;
            kinds[node] = TERSE_SCHEME_PRODUCT;
            weights[node] = reader->probe;
            bias[node] = reader->probe_bias;
            at[node] = reader;
            when[node] = probed[g];
            *ret_any = true;
        }
    const terse_scheme scheme = {.graph = graph, .kinds = kinds, .demanded = none, .given = none, .source = none};
    const terse_disguise disguise = {.scheme = &scheme, .weights = weights, .bias = bias};
    const int status = *ret_any ? terse_sensitivity_measure(replay, graph, &disguise, losses, p->options->progress,
                                                            p->options->context, error)
                                : TERSE_OK;
    for (int node = 0; node < graph->n_nodes && status == TERSE_OK; node++) {
        const double lost = at[node] && when[node] > 0 ? at[node]->lost[when[node] - 1] : 0;
        const terse_loss *loss = &losses[node];
        const double before = (double)node / graph->n_nodes;
        if (lost > 0)
            at[node]->weight =
                (1 - MADE_UP * (1 - before)) * (loss->rows > 0 ? terse_loss_kl(loss) : terse_loss_share(loss)) / lost;
    }
    return status;
}

static int weigh_readers(channel_plan *p, const int *probed, terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    int status = terse_replay_new(p->choice->edit.graph, p->samples, TRIAL_SAMPLES, TERSE_WALK_CHUNK, &replay, error);
    bool any = true;
    for (int round = 0; status == TERSE_OK && any; round++)
        status = try_probes(p, replay, round, probed, &any, error);
    /* those that could not be tried weigh like the others do in the mean */
    double sum = 0;
    int n = 0;
    for (int g = 0; g < p->n_groups; g++)
        for (int r = 0; r < p->groups[g].n_readers; r++)
            if (p->groups[g].readers[r].probe) {
                sum += p->groups[g].readers[r].weight;
                n++;
            }
    for (int g = 0; g < p->n_groups; g++)
        for (int r = 0; r < p->groups[g].n_readers; r++)
            if (!p->groups[g].readers[r].probe && n > 0)
                p->groups[g].readers[r].weight = sum / n;
    return status;
}

/* --- narrow layers ------------------------------------------------------------------------------------------------
 */

/* Units of the group that each touch has, by their place in the order. */
static int32_t *count_units(channel_plan *p, int group, const channel_touch *touch, int64_t *ret_all)
{
    int32_t *counts = channel_plan_room(p, (size_t)p->groups[group].n_units, sizeof *counts);
    const int32_t *labels = channel_layer_labels(p, &p->layers[touch->layer], touch->out, ret_all);
    for (int64_t i = 0; counts && i < *ret_all; i++) {
        const int32_t unit = terse_couple_unit(&p->choice->couple, labels[i]);
        if (p->unit_group[unit] == group)
            counts[p->unit_index[unit]]++;
    }
    return counts;
}

/* place[i]: of the units in their order those that leave enough of every layer, then those that do not. */
static int sort_out(channel_plan *p, int group, int32_t *place, terse_error *error)
{
    const channel_group *g = &p->groups[group];
    int32_t **counts = channel_plan_room(p, (size_t)g->n_touches, sizeof *counts);
    int64_t *left = channel_plan_room(p, (size_t)g->n_touches, sizeof *left),
            *least = channel_plan_room(p, (size_t)g->n_touches, sizeof *least);
    bool *late = channel_plan_room(p, (size_t)g->n_units, sizeof *late);
    if (!counts || !left || !least || !late)
        return out_of_memory(error);
    for (int t = 0; t < g->n_touches; t++) {
        if (!(counts[t] = count_units(p, group, &g->touches[t], &left[t])))
            return out_of_memory(error);
        least[t] = !p->layers[g->touches[t].layer].product ? 0 : left[t] < CHANNEL_LEAST ? left[t] : CHANNEL_LEAST;
    }
    int n = 0;
    for (int i = 0; i < g->n_units; i++) {
        for (int t = 0; t < g->n_touches; t++)
            late[i] = late[i] || (counts[t][i] > 0 && left[t] - counts[t][i] < least[t]);
        for (int t = 0; t < g->n_touches && !late[i]; t++)
            left[t] -= counts[t][i];
        if (!late[i])
            place[n++] = i;
    }
    for (int i = 0; i < g->n_units; i++)
        if (late[i])
            place[n++] = i;
    return TERSE_OK;
}

/* Shortcuts that add channels tie narrow layers to wide ones: the last channels of a narrow one go behind all others,
 * whatever they cost, or nothing of it would be left when much of the group goes. */
static int spare_narrow_layers(channel_plan *p, int group, terse_error *error)
{
    channel_group *g = &p->groups[group];
    const size_t n = (size_t)g->n_units;
    int32_t *place = channel_plan_room(p, n, sizeof *place), *units = channel_plan_room(p, n, sizeof *units);
    double *lost = channel_plan_room(p, n, sizeof *lost);
    const int status = place && units && lost ? sort_out(p, group, place, error) : out_of_memory(error);
    if (status != TERSE_OK)
        return status;
    for (int r = 0; r < g->n_readers; r++) {
        double sum = 0;
        const double *was = g->readers[r].lost;
        for (size_t i = 0; i < n; i++) {
            sum += was[place[i]] - (place[i] > 0 ? was[place[i] - 1] : 0);
            lost[i] = sum;
        }
        memcpy(g->readers[r].lost, lost, n * sizeof *lost);
    }
    for (size_t i = 0; i < n; i++)
        units[i] = g->units[place[i]];
    memcpy(g->units, units, n * sizeof *units);
    for (size_t i = 0; i < n; i++)
        p->unit_index[units[i]] = (int32_t)i;
    return TERSE_OK;
}

int channel_plan_order(channel_plan *p, terse_error *error)
{
    int status = p->samples ? measure_layers(p, error) : TERSE_OK;
    TERSE_AUTO(terse_freep) int *probed = calloc((size_t)p->n_groups + 1, sizeof *probed);
    if (status == TERSE_OK && !probed)
        status = out_of_memory(error);
    for (int g = 0; g < p->n_groups && status == TERSE_OK; g++)
        if (p->groups[g].n_units > 0)
            status = order_group(p, g, &probed[g], error);
    if (status == TERSE_OK && p->samples)
        status = weigh_readers(p, probed, error);
    for (int g = 0; g < p->n_groups && status == TERSE_OK; g++)
        if (p->groups[g].n_units > 0)
            status = spare_narrow_layers(p, g, error);
    return status;
}
