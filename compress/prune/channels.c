/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/channels.h"

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
/* Kernels take sixteen columns at a time; a few channels less are worth it only where there are few. */
enum { FEW = 64, STEP_FEW = 8, STEP_MANY = 16 };

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the choice of channels");
}

void terse_channels_done(terse_channels_choice *choice)
{
    if (choice->open) {
        terse_couple_done(&choice->couple);
        terse_edit_close(&choice->edit, NULL);
    }
    free(choice->gone);
    *choice = (terse_channels_choice){0};
}

int terse_channels_finish(terse_channels_choice *choice, terse_error *error)
{
    terse_couple_done(&choice->couple);
    choice->open = false;
    return terse_edit_close(&choice->edit, error);
}

static void plan_done(channel_plan *p)
{
    for (int i = 0; i < p->n_layers; i++) {
        (p->layers[i].spilled ? terse_spill_free : free)(p->layers[i].moments);
        free(p->layers[i].mean);
    }
    free(p->layers);
    free(p->groups);
    free(p->unit_group);
    free(p->unit_index);
    terse_arena_free(p->arena);
}

static void *room(channel_plan *p, size_t count, size_t size)
{
    return terse_arena_alloc(p->arena, count * size + 1);
}

/* --- layers -------------------------------------------------------------------------------------------------------
 */

/* A sample's pixels that the weights meet. */
static double positions(const terse_graph *graph, const terse_node *n)
{
    const bool conv = n->op == TERSE_OP_CONV;
    const terse_value *v = &graph->values[n->op == TERSE_OP_CONV_TRANSPOSE ? n->inputs[0] : n->outputs[0]];
    const int channel = conv || n->op == TERSE_OP_CONV_TRANSPOSE ? 1 : v->rank - 1;
    double count = 1;
    for (int i = 0; i < v->rank; i++)
        if (i != channel && v->dims[i] > 0)
            count *= (double)v->dims[i];
    return count;
}

static int list_layers(channel_plan *p, terse_error *error)
{
    const terse_edit *edit = &p->choice->edit;
    const terse_graph *graph = edit->graph;
    p->layers = calloc((size_t)graph->n_nodes + 1, sizeof *p->layers);
    if (!p->layers)
        return out_of_memory(error);
    for (int node = 0; node < graph->n_nodes; node++) {
        channel_layer l = {.node = node, .taps = 1};
        if (!terse_couple_role_of(edit, node, &l.role))
            continue;
        const terse_node *n = &graph->nodes[node];
        const terse_value *w = &graph->values[n->inputs[1]];
        const int64_t count = terse_dims_count(w->dims, w->rank);
        l.macs = (double)count * positions(graph, n);
        l.product = l.role.groups == 1 && n->op != TERSE_OP_CONV_TRANSPOSE;
        if (n->op == TERSE_OP_CONV)
            l.taps = terse_dims_count(w->dims + 2, w->rank - 2);
        l.k = n->op == TERSE_OP_CONV ? w->dims[1] * l.taps : w->dims[0];
        l.o = count / (l.k ? l.k : 1);
        p->layers[p->n_layers++] = l;
    }
    return TERSE_OK;
}

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

/* --- groups -------------------------------------------------------------------------------------------------------
 */

static channel_group *group_of(channel_plan *p, int32_t label)
{
    for (int i = 0; i < p->n_groups; i++)
        if (p->groups[i].label == label)
            return &p->groups[i];
    channel_group *groups = realloc(p->groups, ((size_t)p->n_groups + 1) * sizeof *groups);
    if (!groups)
        return NULL;
    p->groups = groups;
    groups[p->n_groups] = (channel_group){.label = label};
    return &groups[p->n_groups++];
}

static int list_units(channel_plan *p, terse_error *error)
{
    const terse_couple *c = &p->choice->couple;
    p->unit_group = malloc(((size_t)c->n_labels + 1) * sizeof *p->unit_group);
    p->unit_index = malloc(((size_t)c->n_labels + 1) * sizeof *p->unit_index);
    if (!p->unit_group || !p->unit_index)
        return out_of_memory(error);
    for (int32_t i = 0; i < c->n_labels; i++) {
        p->unit_group[i] = p->unit_index[i] = -1;
        if (terse_couple_unit(c, i) != i)
            continue;
        channel_group *g = group_of(p, terse_couple_group(c, i));
        if (!g)
            return out_of_memory(error);
        if (terse_couple_pin(c, i)) {
            g->n_fixed++;
            continue;
        }
        p->unit_group[i] = (int32_t)(g - p->groups);
        p->unit_index[i] = g->n_units++;
    }
    for (int i = 0; i < p->n_groups; i++) {
        channel_group *g = &p->groups[i];
        g->units = room(p, (size_t)g->n_units, sizeof *g->units);
        if (!g->units)
            return out_of_memory(error);
    }
    for (int32_t i = 0; i < c->n_labels; i++)
        if (p->unit_group[i] >= 0)
            p->groups[p->unit_group[i]].units[p->unit_index[i]] = i;
    return TERSE_OK;
}

/* The labels on one side of a layer; n 0: none. */
static const int32_t *side_labels(const channel_plan *p, const channel_layer *l, bool out, int64_t *ret_n)
{
    const terse_node *n = &p->choice->edit.graph->nodes[l->node];
    const terse_channels *side = &p->choice->couple.values[out ? n->outputs[0] : n->inputs[0]];
    const bool none = side->axis < 0 || (!out && l->role.in_axis < 0);
    *ret_n = none ? 0 : out ? side->n : side->n / l->role.groups;
    return side->labels;
}

/* Which layers have units of the group, on which side; channels of a unit in the first of them set the step. */
static int find_layers(channel_plan *p, int group, terse_error *error)
{
    channel_group *g = &p->groups[group];
    g->readers = room(p, (size_t)p->n_layers, sizeof *g->readers);
    g->touches = room(p, 2 * (size_t)p->n_layers, sizeof *g->touches);
    if (!g->readers || !g->touches)
        return out_of_memory(error);
    int64_t each = 0, fewest = INT64_MAX;
    for (int l = 0; l < p->n_layers; l++)
        for (int out = 0; out < 2; out++) {
            int64_t n, here = 0;
            const int32_t *labels = side_labels(p, &p->layers[l], out, &n);
            for (int64_t i = 0; i < n; i++)
                here += p->unit_group[terse_couple_unit(&p->choice->couple, labels[i])] == group;
            if (here == 0)
                continue;
            g->touches[g->n_touches++] = (channel_touch){.layer = l, .out = out};
            if (out && each == 0)
                each = n / (g->n_units + g->n_fixed);
            if (out && n < fewest)
                fewest = n;
            if (!out)
                g->readers[g->n_readers++] = (channel_reader){.layer = l, .weight = 1};
        }
    const int64_t channels = (each > 0 ? each : 1) * (g->n_units + g->n_fixed);
    const int step = channels >= FEW && fewest >= FEW ? STEP_MANY : STEP_FEW;
    g->step = each > 1 && step % each == 0 ? step / (int)each : each > step ? 1 : step;
    g->least = each > 1 ? (int)((CHANNEL_LEAST + each - 1) / each) : CHANNEL_LEAST;
    return TERSE_OK;
}

/* --- what layers read ---------------------------------------------------------------------------------------------
 */

static bool reads_units(const channel_plan *p, int layer)
{
    int64_t n;
    const int32_t *labels = side_labels(p, &p->layers[layer], false, &n);
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
    double *power = room(p, (size_t)g->n_units, sizeof *power);
    for (int t = 0; t < g->n_touches && power; t++) {
        const channel_layer *l = &p->layers[g->touches[t].layer];
        const terse_graph *graph = p->choice->edit.graph;
        const terse_value *w = &graph->values[graph->nodes[l->node].inputs[1]];
        int64_t n;
        const int32_t *labels = side_labels(p, l, true, &n);
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
    const int32_t *labels = side_labels(p, l, false, &n);
    int32_t *first = room(p, (size_t)n_units + 2, sizeof *first);
    int32_t *columns = room(p, (size_t)l->k, sizeof *columns);
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
    r->lost = room(p, (size_t)p->groups[group].n_units, sizeof *r->lost);
    r->probe = l->moments ? room(p, (size_t)(l->o * l->k), sizeof *r->probe) : NULL;
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
    if (bias && !(r->probe_bias = room(p, (size_t)l->o, sizeof *r->probe_bias)))
        return out_of_memory(error);
    for (int64_t o = 0; o < l->o && bias; o++) {
        for (int64_t k = 0; k < l->k; k++)
            bias[o] += (w[o * l->k + k] - (double)r->probe[o * l->k + k]) * l->mean[k];
        r->probe_bias[o] = (float)bias[o];
    }
    if (graph->nodes[l->node].op == TERSE_OP_CONV)
        return TERSE_OK;
    float *other = room(p, (size_t)(l->o * l->k), sizeof *other);
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
    int32_t *sorted = room(p, (size_t)g->n_units, sizeof *sorted);
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
        if (lost > 0)
            at[node]->weight = (loss->rows > 0 ? terse_loss_kl(loss) : terse_loss_share(loss)) / lost;
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

/* --- what was found out, for another amount -----------------------------------------------------------------------
 */

void terse_channels_orders_done(terse_channels_orders *orders)
{
    for (int g = 0; g < orders->n; g++) {
        free(orders->groups[g].units);
        free(orders->groups[g].cost);
    }
    free(orders->groups);
    *orders = (terse_channels_orders){0};
}

static int keep_orders(const channel_plan *p, terse_channels_orders *orders, terse_error *error)
{
    orders->groups = calloc((size_t)p->n_groups + 1, sizeof *orders->groups);
    for (int i = 0; orders->groups && i < p->n_groups; i++) {
        const channel_group *g = &p->groups[i];
        const size_t n = (size_t)g->n_units;
        terse_channels_order *o = &orders->groups[orders->n++];
        *o = (terse_channels_order){.n_units = g->n_units,
                                    .units = malloc(n * sizeof *o->units + 1),
                                    .cost = malloc((n + 1) * sizeof *o->cost)};
        if (!o->units || !o->cost) {
            terse_channels_orders_done(orders);
            break;
        }
        memcpy(o->units, g->units, n * sizeof *o->units);
        memcpy(o->cost, g->cost, (n + 1) * sizeof *o->cost);
    }
    return orders->groups ? TERSE_OK : out_of_memory(error);
}

/* Of another network they say nothing. */
static bool take_orders(channel_plan *p, const terse_channels_orders *orders)
{
    bool good = orders && orders->n > 0 && orders->n == p->n_groups;
    for (int g = 0; good && g < p->n_groups; g++)
        good = orders->groups[g].n_units == p->groups[g].n_units;
    for (int g = 0; good && g < p->n_groups; g++) {
        p->groups[g].cost = orders->groups[g].cost;
        for (int i = 0; i < p->groups[g].n_units; i++) {
            p->groups[g].units[i] = orders->groups[g].units[i];
            p->unit_index[p->groups[g].units[i]] = i;
        }
    }
    return good;
}

/* --- the choice ---------------------------------------------------------------------------------------------------
 */

/* Costs of the group's levels, and what each side of a layer has at them. */
static int finish_group(channel_plan *p, int group, terse_error *error)
{
    channel_group *g = &p->groups[group];
    const size_t levels = (size_t)g->n_units + 1;
    double *cost = g->cost ? NULL : room(p, levels, sizeof *cost); /* else known */
    if (!g->cost && !cost)
        return out_of_memory(error);
    for (int r = 0; cost && r < g->n_readers; r++)
        for (int i = 0; i < g->n_units; i++)
            cost[i + 1] += g->readers[r].weight * g->readers[r].lost[i];
    g->cost = cost ? cost : g->cost;
    for (int t = 0; t < g->n_touches; t++) {
        channel_touch *touch = &g->touches[t];
        int64_t n;
        const int32_t *labels = side_labels(p, &p->layers[touch->layer], touch->out, &n);
        touch->without = room(p, levels, sizeof *touch->without);
        if (!touch->without)
            return out_of_memory(error);
        for (int64_t i = 0; i < n; i++) {
            const int32_t unit = terse_couple_unit(&p->choice->couple, labels[i]);
            if (p->unit_group[unit] == group)
                touch->without[p->unit_index[unit] + 1]--;
        }
        for (size_t i = 1; i < levels; i++)
            touch->without[i] += touch->without[i - 1];
    }
    return TERSE_OK;
}

/* Units of the group that each touch has, by their place in the order. */
static int32_t *count_units(channel_plan *p, int group, const channel_touch *touch, int64_t *ret_all)
{
    int32_t *counts = room(p, (size_t)p->groups[group].n_units, sizeof *counts);
    const int32_t *labels = side_labels(p, &p->layers[touch->layer], touch->out, ret_all);
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
    int32_t **counts = room(p, (size_t)g->n_touches, sizeof *counts);
    int64_t *left = room(p, (size_t)g->n_touches, sizeof *left), *least = room(p, (size_t)g->n_touches, sizeof *least);
    bool *late = room(p, (size_t)g->n_units, sizeof *late);
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
    int32_t *place = room(p, n, sizeof *place), *units = room(p, n, sizeof *units);
    double *lost = room(p, n, sizeof *lost);
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

static int order_groups(channel_plan *p, terse_error *error)
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

static int choose(channel_plan *p, terse_error *error)
{
    terse_channels_choice *c = p->choice;
    int status = list_layers(p, error);
    if (status == TERSE_OK)
        status = list_units(p, error);
    for (int g = 0; g < p->n_groups && status == TERSE_OK; g++)
        status = find_layers(p, g, error);
    terse_channels_orders *orders = p->options->orders;
    const bool known = status == TERSE_OK && take_orders(p, orders);
    if (status == TERSE_OK && !known)
        status = order_groups(p, error);
    for (int g = 0; g < p->n_groups && status == TERSE_OK; g++)
        status = finish_group(p, g, error);
    if (status == TERSE_OK && orders && orders->n == 0)
        status = keep_orders(p, orders, error);
    if (status == TERSE_OK)
        status = channel_plan_choose(p, p->options->amount, &c->macs_before, &c->macs_after, error);
    for (int g = 0; g < p->n_groups && status == TERSE_OK; g++)
        for (int i = 0; i < p->groups[g].chosen; i++)
            c->gone[p->groups[g].units[i]] = true;
    if (status == TERSE_OK)
        terse_couple_repair(&c->couple, c->gone);
    return status;
}

int terse_channels_choose(terse_graph *graph, const terse_samples *samples, int64_t n_samples,
                          const terse_prune_options *options, terse_channels_choice *ret_choice, terse_error *error)
{
    terse_channels_choice *c = ret_choice;
    channel_plan p = {.choice = c, .options = options, .samples = samples, .n_samples = n_samples};
    int status = terse_edit_open(graph, &c->edit, error);
    if (status != TERSE_OK)
        return status;
    status = terse_couple_open(&c->edit, &c->couple, error);
    if (status != TERSE_OK) {
        terse_edit_close(&c->edit, NULL);
        return status;
    }
    c->open = true;
    c->gone = calloc((size_t)c->couple.n_labels + 1, sizeof *c->gone);
    p.arena = terse_arena_new();
    status = c->gone && p.arena ? choose(&p, error) : out_of_memory(error);
    plan_done(&p);
    return status;
}
