/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/search/knapsack.h"
#include "compress/search/search_steps.h"

/* Where channels go, a chain of thin factors loses those of one side in each factor: about the root of the layer's. */
static double left_of(const search *s, int layer, const terse_table_option *o)
{
    const double kept = s->at.kept && s->at.amount > 0 ? s->at.kept[layer] : 1;
    return o->kind == TERSE_OPTION_LOW_RANK ? sqrt(kept) : kept;
}

static double us_of(const search *s, int layer, const terse_table_option *o)
{
    return o->us * left_of(s, layer, o) * (s->at.amount > 0 ? s->at.slower : 1);
}

static double weight_of(const search *s, int layer, const terse_table_option *o)
{
    return terse_goal_by_size(s->goal) ? o->bytes * left_of(s, layer, o) : us_of(s, layer, o);
}

static double weight(const search *s, const int *chosen)
{
    double sum = 0;
    for (int l = 0; l < s->table.n; l++)
        sum += weight_of(s, l, &s->table.layers[l].options[chosen ? chosen[l] : 0]);
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

/* Of layers alone. */
static double lightest(const search *s, unsigned kinds)
{
    double sum = 0;
    for (int l = 0; l < s->table.n; l++) {
        const terse_table_layer *layer = &s->table.layers[l];
        double least = INFINITY;
        for (int i = 0; i < layer->n; i++)
            if (allowed(&layer->options[i], kinds))
                least = fmin(least, weight_of(s, l, &layer->options[i]));
        sum += least;
    }
    return sum;
}

static bool pick(const search *s, unsigned kinds, double budget, const double *factors, int *chosen)
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
                weight[found] = weight_of(s, (int)l, &layer->options[i]);
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

/* --- of the whole network --------------------------------------------------------------------------------------------
 */

/* The whole network is so many times what its layers and the rest of it weigh, and `rest`. */
typedef struct whole {
    double times, rest;
} whole;

static whole whole_of(const search *s)
{
    const double us = s->at.amount > 0 ? s->at.us : s->base_us, bytes = s->at.amount > 0 ? s->at.bytes : s->base_bytes;
    const double dense = weight(s, NULL), other = s->base_us > 0 ? s->table.other_us * us / s->base_us : 0;
    if (terse_goal_by_size(s->goal))
        return (whole){1, bytes - dense};
    const double times = dense + other > 0 ? us / (dense + other) : 0;
    return (whole){times, times > 0 ? times * other : us};
}

/* What the table's sum comes to with those choices (NULL: none). */
static double model_of(const search *s, const int *chosen)
{
    const whole w = whole_of(s);
    return w.times * weight(s, chosen) + w.rest;
}

/* Bytes add up. */
static double saves_of(const search *s)
{
    return terse_goal_by_size(s->goal) || !(s->saves > 0) ? 1 : s->saves;
}

static double corrected(const search *s, double model)
{
    return terse_aim_corrected(model_of(s, NULL), model, saves_of(s));
}

double terse_search_predict(const search *s, const int *chosen)
{
    return corrected(s, model_of(s, chosen));
}

void terse_search_learn_time(search *s, const int *chosen, double us)
{
    /* networks differ in what they save beside the table: one alone does not say it, or the next ones swing */
    const double found = terse_aim_learn(saves_of(s), model_of(s, NULL), model_of(s, chosen), us);
    if (!terse_goal_by_size(s->goal))
        s->saves = s->saves > 0 ? 0.5 * (s->saves + found) : found;
}

double terse_search_expect(const search *s, const int *chosen)
{
    return terse_search_cost(s, chosen) * s->per_cost + (s->at.amount > 0 ? s->at.drop : 0);
}

int terse_search_pick(const search *s, unsigned kinds, double total, const double *factors, int *chosen, bool *ret_fits,
                      terse_error *error)
{
    const whole w = whole_of(s);
    const double least = lightest(s, kinds), model = terse_aim_model(model_of(s, NULL), total, saves_of(s)),
                 budget = w.times > 0 ? (model - w.rest) / w.times : least;
    *ret_fits = budget >= least * (1 - 1e-9) && model >= w.rest * (1 - 1e-9);
    return pick(s, kinds, fmax(budget, least), factors, chosen)
               ? TERSE_OK
               : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
}

int terse_search_pick_any(search *s, unsigned kinds, double total, int *chosen, terse_error *error)
{
    double amounts[CHANNELS_AMOUNTS], best = 0, least = INFINITY, weighs = INFINITY;
    const int n = terse_search_amounts(s, kinds, amounts);
    bool any = false, fits = false;
    int status = TERSE_OK;
    for (int i = 0; i < n && status == TERSE_OK; i++) {
        if (!terse_search_set_amount(s, amounts[i]))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
        status = terse_search_pick(s, kinds, total, NULL, chosen, &fits, error);
        const double drop = terse_search_expect(s, chosen), here = terse_search_predict(s, chosen);
        if (fits != any ? fits : fits ? drop < least : here < weighs) {
            any = fits;
            best = amounts[i];
            least = drop;
            weighs = here;
        }
    }
    if (status == TERSE_OK && !terse_search_set_amount(s, best))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    return status == TERSE_OK ? terse_search_pick(s, kinds, total, NULL, chosen, &fits, error) : status;
}

double terse_search_lightest(search *s, unsigned kinds)
{
    double amounts[CHANNELS_AMOUNTS], least = INFINITY;
    const int n = terse_search_amounts(s, kinds, amounts);
    for (int i = 0; i < n && terse_search_set_amount(s, amounts[i]); i++) {
        const whole w = whole_of(s);
        least = fmin(least, corrected(s, w.times * lightest(s, kinds) + w.rest));
    }
    return least;
}

/* --- a plan and its reasons ------------------------------------------------------------------------------------------
 */

static const char *unit_of(const search *s)
{
    return terse_judge_classifies(s->judge) ? "nats" : "of the outputs' power";
}

static void say_why(const search *s, int number, int chosen, terse_choice *c)
{
    const terse_table_layer *layer = &s->table.layers[number];
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
                 terse_choice_text(&o->choice, text, sizeof text), o->bytes * left_of(s, number, o),
                 dense->bytes * left_of(s, number, dense), o->cost, unit_of(s));
    } else {
        snprintf(c->why, sizeof c->why, "%s: %.1f us in the place of %.1f, %.3g %s",
                 terse_choice_text(&o->choice, text, sizeof text), us_of(s, number, o), us_of(s, number, dense),
                 o->cost, unit_of(s));
    }
}

int terse_search_plan_of(const search *s, const int *chosen, terse_search_plan *ret_plan, terse_error *error)
{
    terse_search_plan p;
    int status = terse_search_plan_copy(&s->base, &p, error);
    if (status != TERSE_OK)
        return status;
    terse_choices_done(&p.layers);
    p.channels = s->at.amount;
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
        c->us = terse_search_plan_number(us_of(s, l, o));
        c->cost = terse_search_plan_number(o->cost);
        c->bytes = (int64_t)(o->bytes * left_of(s, l, o));
        say_why(s, l, chosen[l], c);
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
    return us_of(s, layer, exact) - us;
}

static void name_culprit(search *s, int culprit, double sum)
{
    const terse_choice *c = &s->best.layers.list[culprit];
    const double more = without_loss(s, culprit, c->us);
    const int at = snprintf(s->best.culprit, sizeof s->best.culprit, "%.0f %% of the drop comes from %s",
                            100 * c->cost / sum, c->name);
    if (more > 0 && at > 0)
        snprintf(s->best.culprit + at, sizeof s->best.culprit - (size_t)at, "; keeping it %s costs %.3g ms",
                 s->base.quantize == TERSE_QUANTIZE_INT8 ? "FP32" : "dense", more / 1000);
}

void terse_search_find_culprit(search *s)
{
    double sum = 0, most = 0;
    int culprit = -1;
    const double before = s->at.amount;
    s->best.culprit[0] = 0;
    terse_search_set_amount(s, s->best.channels);
    for (int l = 0; l < s->best.layers.n && l < s->table.n; l++) {
        sum += s->best.layers.list[l].cost;
        if (s->best.layers.list[l].cost > most) {
            most = s->best.layers.list[l].cost;
            culprit = l;
        }
    }
    if (s->best.channels > 0) {
        const double channels = s->at.drop / fmax(s->per_cost, 1e-9);
        sum += channels;
        culprit = channels > most ? -1 : culprit;
        if (channels > most)
            snprintf(s->best.culprit, sizeof s->best.culprit,
                     "%.0f %% of the drop comes from channels that are gone; keeping all costs %.3g ms",
                     100 * channels / sum, (s->base_us - s->at.us) / 1000);
    }
    if (culprit >= 0)
        name_culprit(s, culprit, sum);
    terse_search_set_amount(s, before);
}
