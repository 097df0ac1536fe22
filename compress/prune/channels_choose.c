/* SPDX-License-Identifier: Apache-2.0 */
/* How many units of each group go. The work of a layer is the product of what is left on its two sides, so what a unit
 * saves depends on what has gone before: step by step the group and the number of units that cost least for the time
 * they save go, until enough multiply-accumulates are saved.
 *
 * Time is not quite the multiply-accumulates. Kernels take two panels of sixteen columns at a time, and one alone takes
 * most of the time of two; and to make an output of its sum and to write it takes as long as some more inputs would.
 * Measured with int8 and AVX512-VNNI on layers of 3 x 3 and 1 x 1, and taken for every tier and for FP32: where one
 * panel takes no more than half of two, a choice loses a little by it. */
#include <math.h>
#include <stdlib.h>

#include "compress/prune/channels_parts.h"

/* Channels left of each layer, both sides, and as they were. */
typedef struct sides {
    double *in, *out, *all_in, *all_out;
} sides;

/* What a layer costs, in multiply-accumulates: as they are counted, and as long as it takes. */
typedef struct work {
    double macs, time;
} work;

static const double output_inputs = 32; /* what an output takes beside its sum */
static const double lone_panel = 23;    /* columns of full pairs that take as long as one panel alone */

static double columns_of(const channel_layer *l, double out)
{
    const double pairs = 32 * floor(out / 32), left = out - pairs;
    return l->product ? pairs + (left > 16 ? 32 : left > 0 ? lone_panel : 0) : out;
}

static work layer_work(const channel_plan *p, const sides *s, int layer, double in, double out)
{
    const channel_layer *l = &p->layers[layer];
    const double share_in = l->role.in_axis < 0 ? 1 : in / s->all_in[layer], each = l->macs / s->all_out[layer];
    return (work){.macs = each * share_in * out,
                  .time = each * (share_in + output_inputs / (double)(l->k > 0 ? l->k : 1)) * columns_of(l, out)};
}

/* Work of all layers that the group touches, with `r` of its units gone instead of `chosen`. */
static work touched_work(const channel_plan *p, const sides *s, const channel_group *g, int r)
{
    work sum = {0};
    for (int t = 0; t < g->n_touches; t++) {
        const channel_touch *a = &g->touches[t];
        double in = s->in[a->layer], out = s->out[a->layer];
        bool counted = false; /* with its other side */
        for (int o = 0; o < g->n_touches; o++) {
            const channel_touch *b = &g->touches[o];
            if (b->layer != a->layer)
                continue;
            counted = counted || o < t;
            *(b->out ? &out : &in) += b->without[r] - b->without[g->chosen];
        }
        if (counted)
            continue;
        const work more = layer_work(p, s, a->layer, in, out);
        sum.macs += more.macs;
        sum.time += more.time;
    }
    return sum;
}

static void apply(sides *s, channel_group *g, int r)
{
    for (int t = 0; t < g->n_touches; t++) {
        const channel_touch *a = &g->touches[t];
        (a->out ? s->out : s->in)[a->layer] += a->without[r] - a->without[g->chosen];
    }
    g->chosen = r;
}

/* May the group lose r units? What is left is a multiple of the step; and a layer that has only some of the group's
 * units (shortcuts that add channels tie narrow layers to wide ones) is not emptied for the others. */
static bool is_level(const channel_plan *p, const sides *s, const channel_group *g, int r)
{
    const int left = g->n_units + g->n_fixed - r;
    bool good = left >= g->least && left % g->step == 0;
    for (int t = 0; t < g->n_touches && good; t++) {
        const channel_touch *a = &g->touches[t];
        const double all = (a->out ? s->all_out : s->all_in)[a->layer];
        good = !p->layers[a->layer].product || all + a->without[r] >= fmin(CHANNEL_LEAST, all);
    }
    return good;
}

/* The next step: which group, and to what. False: nothing can go. */
static bool best_step(const channel_plan *p, const sides *s, double needed, int *ret_group, int *ret_to, double *saved)
{
    double best = INFINITY;
    for (int i = 0; i < p->n_groups; i++) {
        const channel_group *g = &p->groups[i];
        const work here = touched_work(p, s, g, g->chosen);
        for (int r = g->chosen + 1; r <= g->n_units; r++) {
            if (!is_level(p, s, g, r))
                continue;
            const work there = touched_work(p, s, g, r);
            const double saves = here.macs - there.macs, useful = saves > needed ? needed / saves : 1;
            const double time = (here.time - there.time) * useful;
            const double price = time > 0 && saves > 0 ? (g->cost[r] - g->cost[g->chosen]) / time : INFINITY;
            if (price < best) {
                best = price;
                *ret_group = i;
                *ret_to = r;
                *saved = saves;
            }
        }
    }
    return isfinite(best);
}

int channel_plan_choose(channel_plan *p, double amount, double *ret_before, double *ret_after, terse_error *error)
{
    const size_t n = (size_t)p->n_layers + 1;
    TERSE_AUTO(terse_freep) double *numbers = calloc(4 * n, sizeof *numbers);
    if (!numbers)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the choice of channels");
    sides s = {numbers, numbers + n, numbers + 2 * n, numbers + 3 * n};
    double before = 0, saved = 0;
    for (int l = 0; l < p->n_layers; l++) {
        const terse_node *node = &p->choice->edit.graph->nodes[p->layers[l].node];
        const terse_value *w = &p->choice->edit.graph->values[node->inputs[1]];
        const terse_couple_role *role = &p->layers[l].role;
        s.in[l] = s.all_in[l] = role->in_axis < 0 ? 1 : (double)w->dims[role->in_axis];
        s.out[l] = s.all_out[l] = (double)w->dims[role->out_axis];
        before += p->layers[l].macs;
    }
    double step_saves = 0;
    for (int group = 0, to = 0;
         saved < amount * before * (1 - 1e-9) && best_step(p, &s, amount * before - saved, &group, &to, &step_saves);) {
        apply(&s, &p->groups[group], to);
        saved += step_saves;
    }
    *ret_before = before;
    *ret_after = before - saved;
    return TERSE_OK;
}
