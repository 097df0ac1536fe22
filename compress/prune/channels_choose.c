/* SPDX-License-Identifier: Apache-2.0 */
/* How many units of each group go. The work of a layer is the product of what is left on its two sides, so what a unit
 * saves depends on what has gone before: step by step the group and the number of units that cost least for the work
 * they save go, until enough is saved. */
#include <math.h>
#include <stdlib.h>

#include "compress/prune/channels_parts.h"

/* Channels left of each layer, both sides, and as they were. */
typedef struct sides {
    double *in, *out, *all_in, *all_out;
} sides;

static double layer_macs(const channel_plan *p, const sides *s, int layer, double in, double out)
{
    const channel_layer *l = &p->layers[layer];
    const double share_in = l->role.in_axis < 0 ? 1 : in / s->all_in[layer];
    return l->macs * share_in * (out / s->all_out[layer]);
}

/* Work of all layers that the group touches, with `r` of its units gone instead of `chosen`. */
static double touched_macs(const channel_plan *p, const sides *s, const channel_group *g, int r)
{
    double sum = 0;
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
        if (!counted)
            sum += layer_macs(p, s, a->layer, in, out);
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
        const double here = touched_macs(p, s, g, g->chosen);
        for (int r = g->chosen + 1; r <= g->n_units; r++) {
            if (!is_level(p, s, g, r))
                continue;
            const double saves = here - touched_macs(p, s, g, r);
            const double useful = saves < needed ? saves : needed;
            const double price = useful > 0 ? (g->cost[r] - g->cost[g->chosen]) / useful : INFINITY;
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
