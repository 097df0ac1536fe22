/* SPDX-License-Identifier: Apache-2.0 */
/* Whole channels as a technique: what goes binds layers together, so it is no choice of one layer but a share of the
 * network's work, a property of the plan in front of all choices. How time, bytes and drop follow from that share is
 * known only from networks that were built: points, between which the search goes in straight lines. What each layer
 * has left at them says how much the table's options still weigh on top. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/prune/channels.h"
#include "compress/search/search_steps.h"
#include "compress/search/table_steps.h"

enum { TRIALS_OF_DROP = 5 };
static const double first_amount = 0.2, least_amount = 0.03, most_amount = 0.8;
static const double step = 0.005; /* amounts are multiples of it: people read them, and equal ones meet */
static const double narrow = 0.02;

static double rounded(double amount)
{
    return terse_search_plan_number(step * round(amount / step));
}

/* --- what a share brings ---------------------------------------------------------------------------------------------
 */

void terse_search_channels_done(search *s)
{
    for (int i = 0; i < s->n_points; i++) {
        terse_choices_done(&s->points[i].layers);
        free(s->points[i].kept);
    }
    free(s->at.kept);
    terse_prune_report_done(&s->pinned);
}

/* Of each layer of the table; what is not told of is taken to lose as much as the whole. */
static bool map_layers(const search *s, channels_point *p)
{
    if (p->kept || s->table.n == 0)
        return true;
    p->kept = malloc((size_t)s->table.n * sizeof *p->kept);
    bool told = false; /* of one that was built in an earlier search nothing is */
    for (int i = 0; i < p->layers.n; i++)
        told = told || p->layers.list[i].kept > 0;
    for (int l = 0; p->kept && l < s->table.n; l++) {
        const terse_choice *c = terse_choices_find(&p->layers, s->table.layers[l].name);
        p->kept[l] = c && c->kept > 0 ? c->kept : told ? 1 : 1 - p->amount;
    }
    return p->kept != NULL;
}

/* A number that is `none` where nothing goes, at `amount`; behind the last point it goes on as from nothing to there.
 */
typedef struct place {
    int before, behind; /* points, -1: nothing goes */
    double share;       /* of the way from one to the other; above 1 behind the last */
} place;

static place find_place(const search *s, double amount)
{
    place p = {-1, -1, 0};
    for (int i = 0; i < s->n_points; i++)
        if (s->points[i].amount <= amount)
            p.before = i;
    if (s->n_points == 0 || (p.before >= 0 && s->points[p.before].amount == amount)) {
        p.behind = p.before;
        return p;
    }
    if (p.before == s->n_points - 1) {
        p.behind = p.before;
        p.before = -1;
        p.share = amount / s->points[p.behind].amount;
        return p;
    }
    p.behind = p.before + 1;
    const double from = p.before < 0 ? 0 : s->points[p.before].amount;
    p.share = (amount - from) / (s->points[p.behind].amount - from);
    return p;
}

static double between(const place *p, double from, double to)
{
    return p->behind == p->before ? from : from + (to - from) * p->share;
}

/* The first channels cost next to nothing, and each further one more: a parabola from there to the first point. */
static double drop_at(const search *s, const place *p)
{
    const double from = p->before < 0 ? 0 : s->points[p->before].drop,
                 to = p->behind < 0 ? 0 : s->points[p->behind].drop;
    if (p->before < 0 && p->behind >= 0)
        return to * p->share * p->share;
    return between(p, from, to);
}

bool terse_search_set_amount(search *s, double amount)
{
    const place p = find_place(s, amount);
    const channels_point *a = p.before < 0 ? NULL : &s->points[p.before],
                         *b = p.behind < 0 ? NULL : &s->points[p.behind];
    channels_at *at = &s->at;
    at->amount = amount;
    at->us = fmax(0.1 * s->base_us, between(&p, a ? a->us : s->base_us, b ? b->us : s->base_us));
    at->bytes = fmax(0.05 * s->base_bytes, between(&p, a ? a->bytes : s->base_bytes, b ? b->bytes : s->base_bytes));
    at->drop = drop_at(s, &p);
    if (s->table.n == 0)
        return true;
    if (!at->kept && !(at->kept = malloc((size_t)s->table.n * sizeof *at->kept)))
        return false;
    double dense = 0, left = 0;
    for (int i = 0; i < s->n_points; i++)
        if (!map_layers(s, &s->points[i]))
            return false;
    for (int l = 0; l < s->table.n; l++) {
        at->kept[l] = fmin(1, fmax(0.02, between(&p, a ? a->kept[l] : 1, b ? b->kept[l] : 1)));
        dense += s->table.layers[l].options[0].us;
        left += s->table.layers[l].options[0].us * at->kept[l];
    }
    /* kernels need more for what is left than its share of the work */
    at->slower = left > 0 && amount > 0 ? at->us / s->base_us * dense / left : 1;
    return true;
}

double terse_search_settle(search *s, double amount)
{
    double gone;
    if (amount <= 0 || !s->hooks || !s->hooks->foresee || !s->hooks->foresee(s->hooks->context, amount, &gone))
        return amount;
    if (gone < 1e-9)
        return 0;
    for (int i = 0; i < s->n_seen; i++)
        if (fabs(s->seen[i].gone - gone) < 1e-9)
            return s->seen[i].amount;
    if (s->n_seen < CHANNELS_SEEN)
        s->seen[s->n_seen++] = (struct channels_seen){amount, gone};
    return amount;
}

static const channels_point *point_at(const search *s, double amount)
{
    for (int i = 0; i < s->n_points; i++)
        if (fabs(s->points[i].amount - amount) < 0.5 * step)
            return &s->points[i];
    return NULL;
}

int terse_search_amounts(search *s, unsigned kinds, double *ret_list)
{
    int n = 0;
    ret_list[n++] = 0;
    if (!(kinds & WITH_CHANNELS))
        return n;
    for (int i = 0; i < s->n_points; i++) {
        const double here = s->points[i].amount, last = i > 0 ? s->points[i - 1].amount : 0,
                     half = rounded((last + here) / 2);
        const double settled = terse_search_settle(s, half);
        if (settled > last && settled < here && settled >= least_amount && !point_at(s, settled))
            ret_list[n++] = settled;
        ret_list[n++] = here;
    }
    return n;
}

/* --- by channels alone
 * ------------------------------------------------------------------------------------------------ */

static int add_point(search *s, double amount, const terse_search_plan *plan, const terse_measured *m,
                     terse_error *error)
{
    if (s->n_points == CHANNELS_POINTS)
        return TERSE_OK;
    int at = s->n_points;
    while (at > 0 && s->points[at - 1].amount > amount)
        at--;
    terse_search_plan copy; /* of its layers */
    const int status = terse_search_plan_copy(plan, &copy, error);
    if (status != TERSE_OK)
        return status;
    memmove(&s->points[at + 1], &s->points[at], (size_t)(s->n_points - at) * sizeof *s->points);
    s->points[at] = (channels_point){.amount = amount,
                                     .us = m->us,
                                     .bytes = (double)m->bytes,
                                     .drop = fmax(0, m->drop - s->base_drop),
                                     .layers = copy.layers};
    copy.layers = (terse_choices){0};
    terse_search_plan_done(&copy);
    s->n_points++;
    return TERSE_OK;
}

static int try_amount(search *s, double amount, int *ret_index, terse_error *error)
{
    const bool bytes = s->base.quantize == TERSE_QUANTIZE_INT8;
    TERSE_AUTO(terse_freep) int *dense = calloc((size_t)s->table.n + 1, sizeof *dense);
    terse_search_plan plan;
    if (!dense || !terse_search_set_amount(s, amount))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    int status = terse_search_plan_of(s, dense, &plan, error);
    if (status != TERSE_OK)
        return status;
    status = terse_search_measure(s, &plan, bytes ? "int8, channels" : "channels", OF_ONE_TECHNIQUE, ret_index, error);
    if (status == TERSE_OK)
        status = add_point(s, amount, &plan, &s->book.measured[*ret_index], error);
    terse_search_settle(s, amount); /* known from here on */
    terse_search_plan_done(&plan);
    return status;
}

/* The least share that should bring the network to `target`. */
static double amount_for(search *s, double target)
{
    double amount = rounded(least_amount);
    for (; amount < s->most_channels; amount = rounded(amount + step)) {
        terse_search_set_amount(s, amount);
        if ((terse_goal_by_size(s->goal) ? s->at.bytes : s->at.us) <= target)
            break;
    }
    return amount;
}

/* The next one to build: where that is a network that misses the target, the first one that is another. */
static double next_for(search *s, double target)
{
    /* behind the last point the line may be wrong by far */
    const double most = fmin(s->most_channels, rounded(1.6 * s->points[s->n_points - 1].amount));
    for (double amount = amount_for(s, 0.99 * target);; amount = rounded(amount + step)) {
        const double settled = terse_search_settle(s, fmin(amount, most));
        const channels_point *known = point_at(s, settled);
        const bool misses =
            settled <= 0 || (known && (terse_goal_by_size(s->goal) ? known->bytes : known->us) > target);
        if (!misses || amount >= most)
            return settled;
    }
}

/* Is one of them at the target? */
static bool is_reached(const search *s, double target)
{
    const bool bytes = terse_goal_by_size(s->goal);
    for (int i = 0; i < s->n_points; i++)
        if (terse_aim_is_there(bytes ? s->points[i].bytes : s->points[i].us, target))
            return true;
    return false;
}

static int reach_target(search *s, double target, int trials, terse_error *error)
{
    const double whole = terse_goal_by_size(s->goal) ? s->base_bytes : s->base_us;
    /* a little more than that share, as time follows it not quite: a first network that just misses is of little use */
    double amount = s->n_points > 0 ? next_for(s, target)
                                    : rounded(fmin(s->most_channels, fmax(least_amount, 1 - 0.98 * target / whole)));
    int status = TERSE_OK;
    for (int i = 0; i < trials && !is_reached(s, target) && amount > 0 && !point_at(s, amount); i++) {
        int index;
        if (i == 0 ? terse_search_is_over(s) : !terse_search_has_time(s))
            break;
        status = try_amount(s, amount, &index, error);
        if (status != TERSE_OK)
            break;
        amount = next_for(s, target);
    }
    return status;
}

/* One with half as many gone as the first: how the drop comes with them is not to be told from one point. */
static int halve(search *s, terse_error *error)
{
    const double half = s->n_points == 1 ? terse_search_settle(s, rounded(0.5 * s->points[0].amount)) : 0;
    int index;
    return half >= least_amount && !point_at(s, half) && terse_search_has_time(s) ? try_amount(s, half, &index, error)
                                                                                  : TERSE_OK;
}

/* The largest share that should lose no more than it may: between one that does not and one that does. */
static double amount_within(search *s, double low, double high)
{
    double amount = low;
    for (double next = rounded(low + step); next < high; next = rounded(next + step)) {
        terse_search_set_amount(s, next);
        if (s->at.drop + s->base_drop > s->goal->max_drop)
            break;
        amount = next;
    }
    /* the lines may be wrong by far */
    return rounded(fmin(fmax(amount, low + (high - low) / 6), high - (high - low) / 6));
}

static bool is_within(const search *s, const channels_point *p)
{
    return p->drop + s->base_drop <= s->goal->max_drop;
}

/* The next amount to build; what would be a network that is known narrows the bracket. 0: none is left. */
static double next_within(search *s, double *low, double *high)
{
    while (*high - *low >= narrow && *high > least_amount) {
        const double amount = amount_within(s, *low, *high), settled = terse_search_settle(s, amount);
        const channels_point *known = point_at(s, settled);
        if (settled > 0 && !known)
            return settled;
        *(settled <= 0 || is_within(s, known) ? low : high) = amount;
    }
    return 0;
}

static int reach_drop(search *s, terse_error *error)
{
    double low = 0, high = s->most_channels, amount = rounded(fmin(first_amount, high));
    int status = TERSE_OK;
    for (int i = 0; i < TRIALS_OF_DROP && status == TERSE_OK && amount > 0 && !terse_search_is_over(s); i++) {
        int index;
        status = try_amount(s, amount, &index, error);
        if (status != TERSE_OK)
            break;
        *(s->book.measured[index].drop > s->goal->max_drop ? &high : &low) = amount;
        amount = next_within(s, &low, &high);
    }
    return status;
}

/* --- can any go?
 * ------------------------------------------------------------------------------------------------------ */

/* The reasons of layers, as the choice by size alone has them. */
static int list_reasons(search *s, const terse_channels_choice *c, terse_error *error)
{
    const terse_graph *graph = c->edit.graph;
    s->pinned.layers = calloc((size_t)graph->n_nodes + 1, sizeof *s->pinned.layers);
    if (!s->pinned.layers)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for channels");
    for (int node = 0; node < graph->n_nodes; node++) {
        if (!terse_edit_is_weighted(&c->edit, node))
            continue;
        terse_prune_layer *line = &s->pinned.layers[s->pinned.n++];
        snprintf(line->name, sizeof line->name, "%s", graph->nodes[node].name);
        line->pruned = terse_channels_line(c, node, line);
    }
    return TERSE_OK;
}

/* By the weights alone, which takes next to no time: how much of the work could go at most? */
static int look(search *s, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = NULL;
    terse_channels_choice choice = {0};
    const terse_prune_options options = {.amount = most_amount, .kind = TERSE_PRUNE_CHANNELS};
    int status = terse_edit_clone(s->in->prepared, &graph, error);
    if (status == TERSE_OK)
        status = terse_channels_choose(graph, NULL, 0, &options, &choice, error);
    if (status == TERSE_OK)
        status = list_reasons(s, &choice, error);
    if (status == TERSE_OK && choice.macs_before > 0)
        s->most_channels = fmin(most_amount, rounded(1 - choice.macs_after / choice.macs_before));
    terse_channels_done(&choice);
    if (status != TERSE_OK || s->most_channels >= least_amount)
        return status;
    s->most_channels = 0;
    const terse_prune_layer *first = s->pinned.n > 0 ? &s->pinned.layers[0] : NULL;
    for (int i = 0; i < s->pinned.n; i++)
        first = first->pruned ? &s->pinned.layers[i] : first;
    snprintf(s->base.channels_why, sizeof s->base.channels_why, "none can go: %.90s%s%.90s",
             first ? first->name : "no layer has weights of its own", first ? " is " : "", first ? first->reason : "");
    return TERSE_OK;
}

void terse_search_refuse_channels(search *s)
{
    for (int l = 0; l < s->table.n && s->most_channels == 0; l++)
        for (int i = 0; i < s->pinned.n; i++)
            if (strcmp(s->pinned.layers[i].name, s->table.layers[l].name) == 0)
                terse_table_refuse(&s->table.layers[l], "channels: %s", s->pinned.layers[i].reason);
}

int terse_search_channels(search *s, double target, int trials, terse_error *error)
{
    int status = TERSE_OK;
    if (!s->pinned.layers) {
        status = look(s, error);
        terse_search_refuse_channels(s); /* of a table that is there; one that is made later asks itself */
    }
    if (status != TERSE_OK || s->most_channels == 0)
        return status;
    if (!(target > 0))
        return reach_drop(s, error);
    status = reach_target(s, target, trials == FIRST_TRIALS ? 1 : trials, error);
    return status == TERSE_OK && trials == FIRST_TRIALS ? halve(s, error) : status;
}

/* What was tried says why no channels go where none do. */
void terse_search_say_channels(const search *s, terse_search_plan *plan)
{
    if (plan->channels > 0)
        return;
    if (s->n_points == 0) {
        snprintf(plan->channels_why, sizeof plan->channels_why, "%s",
                 *s->base.channels_why ? s->base.channels_why : "there was no time to take any");
        return;
    }
    const channels_point *p = &s->points[0];
    snprintf(plan->channels_why, sizeof plan->channels_why,
             "none go: without %.3g %% of the work the drop is %.2f, %.4g ms, %.0f bytes", 100 * p->amount,
             p->drop + s->base_drop, p->us / 1000, p->bytes);
}
