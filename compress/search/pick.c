/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/search/knapsack.h"
#include "compress/search/search_steps.h"

static double weight_of(const search *s, const terse_table_option *o)
{
    return terse_goal_by_size(s->goal) ? o->bytes : o->us;
}

double terse_search_weight(const search *s, const int *chosen)
{
    double sum = 0;
    for (int l = 0; l < s->table.n; l++)
        sum += weight_of(s, &s->table.layers[l].options[chosen[l]]);
    return sum;
}

double terse_search_cost(const search *s, const int *chosen)
{
    double sum = 0;
    for (int l = 0; l < s->table.n; l++)
        sum += s->table.layers[l].options[chosen[l]].cost;
    return sum;
}

static bool allowed(const terse_table_option *o, unsigned kinds)
{
    return o->kind == TERSE_OPTION_DENSE || (kinds >> o->kind & 1u);
}

double terse_search_lightest(const search *s, unsigned kinds)
{
    double sum = 0;
    for (int l = 0; l < s->table.n; l++) {
        const terse_table_layer *layer = &s->table.layers[l];
        double least = INFINITY;
        for (int i = 0; i < layer->n; i++)
            if (allowed(&layer->options[i], kinds))
                least = fmin(least, weight_of(s, &layer->options[i]));
        sum += least;
    }
    return sum;
}

bool terse_search_pick(const search *s, unsigned kinds, double budget, const double *factors, int *chosen)
{
    const size_t n = (size_t)s->table.n;
    terse_knapsack_layer *layers = calloc(n + 1, sizeof *layers);
    double *numbers = calloc(2 * n * TERSE_TABLE_OPTIONS + 1, sizeof *numbers);
    int *map = calloc(n * TERSE_TABLE_OPTIONS + 1, sizeof *map);
    bool good = layers && numbers && map;
    for (size_t l = 0; good && l < n; l++) {
        const terse_table_layer *layer = &s->table.layers[l];
        double *weight = numbers + 2 * l * TERSE_TABLE_OPTIONS, *cost = weight + TERSE_TABLE_OPTIONS;
        int found = 0;
        for (int i = 0; i < layer->n; i++)
            if (allowed(&layer->options[i], kinds)) {
                weight[found] = weight_of(s, &layer->options[i]);
                cost[found] = layer->options[i].cost * (factors ? factors[l] : 1);
                map[l * TERSE_TABLE_OPTIONS + (size_t)found++] = i;
            }
        layers[l] = (terse_knapsack_layer){.n = found, .weight = weight, .cost = cost};
    }
    if (good)
        good = terse_knapsack_solve(layers, (int)n, budget, chosen) != TERSE_KNAPSACK_NO_MEMORY;
    for (size_t l = 0; good && l < n; l++)
        chosen[l] = map[l * TERSE_TABLE_OPTIONS + (size_t)chosen[l]];
    free(layers);
    free(numbers);
    free(map);
    return good;
}

double terse_search_predict(const search *s, const int *chosen)
{
    double dense = 0;
    for (int l = 0; l < s->table.n; l++)
        dense += weight_of(s, &s->table.layers[l].options[0]);
    if (terse_goal_by_size(s->goal))
        return s->base_bytes - dense + terse_search_weight(s, chosen);
    const double all = dense + s->table.other_us;
    return all > 0 ? s->base_us * (terse_search_weight(s, chosen) + s->table.other_us) / all : s->base_us;
}

/* --- a plan and its reasons ------------------------------------------------------------------------------------------
 */

static const char *unit_of(const search *s)
{
    return terse_judge_classifies(s->judge) ? "nats" : "of the outputs' power";
}

static void say_why(const search *s, const terse_table_layer *layer, int chosen, terse_choice *c)
{
    const terse_table_option *o = &layer->options[chosen], *dense = &layer->options[0];
    char text[TERSE_CHOICE_WHY];
    if (chosen == 0) {
        int others = 0;
        for (int i = 1; i < layer->n; i++)
            others += layer->options[i].kind != TERSE_OPTION_FLOAT;
        snprintf(c->why, sizeof c->why, "%s",
                 others == 0 ? terse_goal_by_size(s->goal) ? "nothing else is smaller" : "nothing else is faster"
                             : "every other choice loses more than it is worth");
    } else if (terse_goal_by_size(s->goal)) {
        snprintf(c->why, sizeof c->why, "%s: %.0f bytes in the place of %.0f, %.3g %s",
                 terse_choice_text(&o->choice, text, sizeof text), o->bytes, dense->bytes, o->cost, unit_of(s));
    } else {
        snprintf(c->why, sizeof c->why, "%s: %.1f us in the place of %.1f, %.3g %s",
                 terse_choice_text(&o->choice, text, sizeof text), o->us, dense->us, o->cost, unit_of(s));
    }
}

int terse_search_plan_of(const search *s, const int *chosen, terse_search_plan *ret_plan, terse_error *error)
{
    terse_search_plan p;
    int status = terse_search_plan_copy(&s->base, &p, error);
    if (status != TERSE_OK)
        return status;
    terse_choices_done(&p.layers);
    for (int l = 0; l < s->table.n; l++) {
        const terse_table_layer *layer = &s->table.layers[l];
        const terse_table_option *o = &layer->options[chosen[l]];
        terse_choice *c = terse_choices_add(&p.layers, layer->name);
        if (!c) {
            terse_search_plan_done(&p);
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
        }
        *c = o->choice;
        snprintf(c->name, sizeof c->name, "%s", layer->name);
        c->us = terse_search_plan_number(o->us);
        c->cost = terse_search_plan_number(o->cost);
        c->bytes = (int64_t)o->bytes;
        say_why(s, layer, chosen[l], c);
        memcpy(c->refused, layer->refused, sizeof c->refused);
        c->n_refused = layer->n_refused;
    }
    *ret_plan = p;
    return TERSE_OK;
}

/* What the layer takes longer where it loses nothing: FP32, or dense where FP32 is dense. */
static double without_loss(const search *s, int layer, double us)
{
    const terse_table_layer *l = &s->table.layers[layer];
    const terse_table_option *exact = &l->options[0];
    for (int i = 1; i < l->n; i++)
        exact = l->options[i].kind == TERSE_OPTION_FLOAT ? &l->options[i] : exact;
    return exact->us - us;
}

void terse_search_find_culprit(search *s)
{
    double sum = 0, most = 0;
    int culprit = -1;
    for (int l = 0; l < s->best.layers.n && l < s->table.n; l++) {
        sum += s->best.layers.list[l].cost;
        if (s->best.layers.list[l].cost > most) {
            most = s->best.layers.list[l].cost;
            culprit = l;
        }
    }
    s->best.culprit[0] = 0;
    if (culprit < 0)
        return;
    const terse_choice *c = &s->best.layers.list[culprit];
    const double more = without_loss(s, culprit, c->us);
    const int at = snprintf(s->best.culprit, sizeof s->best.culprit, "%.0f %% of the drop comes from %s",
                            100 * most / sum, c->name);
    if (more > 0 && at > 0)
        snprintf(s->best.culprit + at, sizeof s->best.culprit - (size_t)at, "; keeping it %s costs %.3g ms",
                 s->base.quantize == TERSE_QUANTIZE_INT8 ? "FP32" : "dense", more / 1000);
}
