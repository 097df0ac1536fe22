/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/channels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/prune/channels_parts.h"
#include "compress/spill.h"

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

void *channel_plan_room(channel_plan *p, size_t count, size_t size)
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
        g->units = channel_plan_room(p, (size_t)g->n_units, sizeof *g->units);
        if (!g->units)
            return out_of_memory(error);
    }
    for (int32_t i = 0; i < c->n_labels; i++)
        if (p->unit_group[i] >= 0)
            p->groups[p->unit_group[i]].units[p->unit_index[i]] = i;
    return TERSE_OK;
}

const int32_t *channel_layer_labels(const channel_plan *p, const channel_layer *l, bool out, int64_t *ret_n)
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
    g->readers = channel_plan_room(p, (size_t)p->n_layers, sizeof *g->readers);
    g->touches = channel_plan_room(p, 2 * (size_t)p->n_layers, sizeof *g->touches);
    if (!g->readers || !g->touches)
        return out_of_memory(error);
    int64_t each = 0, fewest = INT64_MAX;
    for (int l = 0; l < p->n_layers; l++)
        for (int out = 0; out < 2; out++) {
            int64_t n, here = 0;
            const int32_t *labels = channel_layer_labels(p, &p->layers[l], out, &n);
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
    double *cost = g->cost ? NULL : channel_plan_room(p, levels, sizeof *cost); /* else known */
    if (!g->cost && !cost)
        return out_of_memory(error);
    for (int r = 0; cost && r < g->n_readers; r++)
        for (int i = 0; i < g->n_units; i++)
            cost[i + 1] += g->readers[r].weight * g->readers[r].lost[i];
    g->cost = cost ? cost : g->cost;
    for (int t = 0; t < g->n_touches; t++) {
        channel_touch *touch = &g->touches[t];
        int64_t n;
        const int32_t *labels = channel_layer_labels(p, &p->layers[touch->layer], touch->out, &n);
        touch->without = channel_plan_room(p, levels, sizeof *touch->without);
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
        status = channel_plan_order(p, error);
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
