/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/search.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/search/search_steps.h"

enum { BISECTIONS = 6, SINGLE_BISECTIONS = 3, PROPOSALS = 12, PATIENCE = 4 };
static const double table_share = 0.45;   /* of the time that is left */
static const double channels_share = 0.3; /* of the time in front of the table, for channels alone */
static const double singles_share = 0.45; /* of what the table leaves, for single techniques */
static const double near = 0.01;          /* budgets that differ less are the same */

/* --- dense networks
 * ----------------------------------------------------------------------------------------------------- */

static int measure_dense(search *s, terse_quantize_mode mode, bool bf16, const char *label,
                         const terse_graph **ret_graph, const terse_quantize_report **ret_int8, int *ret_index,
                         terse_error *error)
{
    terse_search_plan plan;
    int status = terse_search_plan_copy(&s->base, &plan, error);
    if (status != TERSE_OK)
        return status;
    plan.quantize = mode;
    plan.bf16 = bf16;
    status = terse_search_measure(s, &plan, label, OF_ONE_TECHNIQUE | OF_DENSE_LAYERS, ret_index, error);
    if (status == TERSE_OK)
        status = s->hooks->hold(s->hooks->context, ret_graph, ret_int8, error);
    terse_search_plan_done(&plan);
    return status;
}

/* Is there anything to compress? */
static bool has_layers(const terse_graph *graph)
{
    const terse_edit edit = {.graph = (terse_graph *)(uintptr_t)graph};
    for (int n = 0; n < graph->n_nodes; n++)
        if (terse_edit_is_weighted(&edit, n))
            return true;
    return false;
}

/* Do matrices hold most of the weights? Then 8 or 4 bits of weights alone are worth a try. */
static bool is_of_matrices(const terse_graph *graph)
{
    const terse_edit edit = {.graph = (terse_graph *)(uintptr_t)graph};
    double all = 0, matrices = 0;
    for (int n = 0; n < graph->n_nodes; n++) {
        if (!terse_edit_is_weighted(&edit, n))
            continue;
        const double bytes = (double)graph->values[graph->nodes[n].inputs[1]].bytes;
        all += bytes;
        matrices += graph->nodes[n].op == TERSE_OP_GEMM || graph->nodes[n].op == TERSE_OP_MATMUL ? bytes : 0;
    }
    return matrices > 0.5 * all;
}

typedef struct dense_one {
    const terse_graph *graph;
    const terse_quantize_report *int8;
    int index;
    terse_quantize_mode mode;
    bool bf16;
} dense_one;

/* The fastest dense network within the drop, or of all where none is. */
static void choose_dense(search *s, const dense_one *list, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        const terse_measured *a = &s->book.measured[list[i].index], *b = &s->book.measured[list[best].index];
        const bool within_a = s->goal->max_drop < 0 || a->drop <= s->goal->max_drop;
        const bool within_b = s->goal->max_drop < 0 || b->drop <= s->goal->max_drop;
        if (within_a != within_b ? within_a : a->us < b->us)
            best = i;
    }
    s->dense = list[best].graph;
    s->dense_us = s->book.measured[list[best].index].us;
}

static int measure_all_dense(search *s, dense_one list[5], int *ret_n, terse_error *error)
{
    static const struct {
        terse_quantize_mode mode;
        bool bf16, of_matrices, by_time;
        const char *label;
    } kinds[5] = {{TERSE_QUANTIZE_NONE, false, false, false, "FP32"},
                  {TERSE_QUANTIZE_INT8, false, false, false, "int8"},
                  {TERSE_QUANTIZE_NONE, true, false, true, "bf16"},
                  {TERSE_QUANTIZE_INT8_WEIGHTS, false, true, false, "int8 weights"},
                  {TERSE_QUANTIZE_INT4_WEIGHTS, false, true, false, "int4 weights"}};
    const bool matrices = is_of_matrices(s->in->prepared), any = has_layers(s->in->prepared);
    int n = 0, status = TERSE_OK;
    for (int i = 0; i < 5 && status == TERSE_OK; i++) {
        const bool ended = s->hooks->stopped && s->hooks->stopped(s->hooks->context);
        if ((n > 0 && ended) || (n > 1 && terse_search_is_over(s)))
            break;
        if ((i > 0 && !any) || (kinds[i].of_matrices && !matrices) || (kinds[i].by_time && terse_goal_by_size(s->goal)))
            continue;
        status = measure_dense(s, kinds[i].mode, kinds[i].bf16, any ? kinds[i].label : "as it came", &list[n].graph,
                               &list[n].int8, &list[n].index, error);
        if (status != TERSE_OK)
            break;
        list[n].mode = kinds[i].mode;
        list[n++].bf16 = kinds[i].bf16;
        choose_dense(s, list, n);
    }
    *ret_n = n;
    return status;
}

/* int8 where it is within the drop, or fast; else FP32. */
static void choose_base(search *s, const dense_one *list, int n)
{
    const terse_measured *in_float = &s->book.measured[list[0].index],
                         *int8 = n > 1 ? &s->book.measured[list[1].index] : NULL;
    bool any = false;
    for (int i = 0; n > 1 && list[1].int8 && i < list[1].int8->n; i++)
        any = any || !list[1].int8->layers[i].kept;
    const bool bytes = int8 && any && (terse_goal_by_size(s->goal) || int8->us < in_float->us);
    const terse_measured *base = bytes ? int8 : in_float;
    s->base.quantize = bytes ? TERSE_QUANTIZE_INT8 : TERSE_QUANTIZE_NONE;
    s->base_us = base->us;
    s->base_bytes = (double)base->bytes;
    s->base_drop = base->drop;
}

static int open_table(search *s, const dense_one *list, terse_error *error)
{
    const bool bytes = s->base.quantize == TERSE_QUANTIZE_INT8;
    const double seconds = fmax(1, ((double)s->deadline - (double)terse_now_ns()) / 1e9);
    const terse_table_options options = {.bytes = bytes,
                                         .by_size = terse_goal_by_size(s->goal),
                                         .seconds = table_share * seconds,
                                         .dense = list[bytes ? 1 : 0].graph,
                                         .dense_float = list[0].graph,
                                         .int8 = bytes ? list[1].int8 : NULL,
                                         .progress = s->hooks->progress,
                                         .stopped = s->hooks->stopped,
                                         .context = s->hooks->context};
    const int status = terse_table_make(s->in->prepared, s->in->fit, &options, &s->table, error);
    double cost = 0;
    for (int l = 0; l < s->table.n && status == TERSE_OK; l++)
        cost += s->table.layers[l].options[0].cost;
    s->per_cost = cost > 0 && s->base_drop > 0 ? s->base_drop / cost : terse_judge_classifies(s->judge) ? 20 : 100;
    terse_search_refuse_channels(s);
    return status;
}

/* --- one family of techniques
 * ------------------------------------------------------------------------------------------- */

typedef struct family {
    unsigned kinds;
    const char *label;
    unsigned flags;
    int most; /* networks that it may build */
} family;

static int measure_chosen(search *s, const int *chosen, const char *label, unsigned flags, int *ret_index,
                          terse_error *error)
{
    terse_search_plan plan;
    int status = terse_search_plan_of(s, chosen, &plan, error);
    if (status != TERSE_OK)
        return status;
    status = terse_search_measure(s, &plan, label, flags, ret_index, error);
    terse_search_plan_done(&plan);
    return status;
}

static void learn(search *s, const int *chosen, const terse_measured *m)
{
    const double cost = terse_search_cost(s, chosen), drop = m->drop - (s->at.amount > 0 ? s->at.drop : 0);
    if (cost > 0 && drop > 0.2 * m->drop)                /* else it is the channels' */
        s->per_cost = sqrt(s->per_cost * (drop / cost)); /* half way, in logarithms */
}

int terse_search_total_for(search *s, unsigned kinds, double drop, double low, double high, int *chosen,
                           double *ret_total, terse_error *error)
{
    for (int i = 0; i < 14; i++) {
        const double middle = 0.5 * (low + high);
        const int status = terse_search_pick_any(s, kinds, middle, chosen, error);
        if (status != TERSE_OK)
            return status;
        if (terse_search_expect(s, chosen) > drop)
            low = middle;
        else
            high = middle;
    }
    *ret_total = high;
    return terse_search_pick_any(s, kinds, high, chosen, error);
}

/* The lightest network within the drop: between a budget that loses too much and one that does not. */
static int reach_drop(search *s, const family *f, int *chosen, terse_error *error)
{
    const double all = terse_goal_by_size(s->goal) ? s->base_bytes : s->base_us;
    double low = terse_search_lightest(s, f->kinds), high = all;
    int status = TERSE_OK;
    for (int round = 0; round < f->most && status == TERSE_OK && high - low > near * all && !terse_search_is_over(s);
         round++) {
        double total = high;
        int index = 0;
        status = terse_search_total_for(s, f->kinds, s->goal->max_drop, low, high, chosen, &total, error);
        /* the model may be wrong by far: never less than an eighth of what is left to either side */
        total = round == 0 ? total : fmin(fmax(total, low + (high - low) / 8), high - (high - low) / 8);
        if (status == TERSE_OK)
            status = terse_search_pick_any(s, f->kinds, total, chosen, error);
        const int before = s->book.n_measured;
        if (status == TERSE_OK)
            status = measure_chosen(s, chosen, f->label, f->flags, &index, error);
        if (status != TERSE_OK)
            break;
        const terse_measured *m = &s->book.measured[index];
        if (s->book.n_measured > before)
            learn(s, chosen, m);
        if (m->drop > s->goal->max_drop)
            low = total;
        else
            high = fmin(total, terse_search_predict(s, chosen));
    }
    return status;
}

/* The network that loses least within the target; the prediction is corrected by what was measured. */
static int reach_target(search *s, const family *f, double target, int *chosen, terse_error *error)
{
    double aim = target;
    int status = TERSE_OK;
    for (int round = 0; round < f->most && status == TERSE_OK && !terse_search_is_over(s); round++) {
        int index;
        status = terse_search_pick_any(s, f->kinds, aim, chosen, error);
        const int before = s->book.n_measured;
        if (status == TERSE_OK)
            status = measure_chosen(s, chosen, f->label, f->flags, &index, error);
        if (status != TERSE_OK || s->book.n_measured == before)
            break;
        const terse_measured *m = &s->book.measured[index];
        const double found = terse_goal_by_size(s->goal) ? (double)m->bytes : m->us;
        if (found <= target && found > 0.97 * target)
            break;
        aim *= fmin(1.5, fmax(0.5, (found > target ? 0.995 : 0.999) * target / found));
    }
    return status;
}

static double target_of(const search *s)
{
    if (s->goal->target_bytes > 0)
        return (double)s->goal->target_bytes;
    if (s->goal->target_ms > 0)
        return s->goal->target_ms * 1000;
    return s->goal->target_speedup > 0 ? s->dense_us / s->goal->target_speedup : 0;
}

static bool has_kind(const search *s, unsigned kinds)
{
    if (kinds & WITH_CHANNELS && s->n_points > 0)
        return true;
    for (int l = 0; l < s->table.n; l++)
        for (int i = 1; i < s->table.layers[l].n; i++)
            if (kinds >> s->table.layers[l].options[i].kind & 1u)
                return true;
    return false;
}

static int reach(search *s, const family *f, int *chosen, terse_error *error)
{
    if (!has_kind(s, f->kinds))
        return TERSE_OK;
    return target_of(s) > 0 ? reach_target(s, f, target_of(s), chosen, error) : reach_drop(s, f, chosen, error);
}

/* All layers with as many bits, as --cluster does it: fewer, until that loses too much or the file is small enough. */
static int reach_uniform(search *s, int *chosen, terse_error *error)
{
    const bool bytes = s->base.quantize == TERSE_QUANTIZE_INT8;
    int status = TERSE_OK;
    terse_search_set_amount(s, 0);
    for (int bits = 7; bits >= 2 && status == TERSE_OK && !terse_search_is_over(s); bits--) {
        int index = 0, with = 0;
        for (int l = 0; l < s->table.n; l++) {
            chosen[l] = 0;
            for (int i = 1; i < s->table.layers[l].n; i++)
                if (s->table.layers[l].options[i].kind == TERSE_OPTION_CLUSTER &&
                    s->table.layers[l].options[i].choice.cluster == bits) {
                    chosen[l] = i;
                    with++;
                }
        }
        const double target = (double)s->goal->target_bytes, predicted = terse_search_predict(s, chosen);
        if (with == 0 || (target > 0 && predicted > 1.1 * target) ||
            (target <= 0 && terse_search_cost(s, chosen) * s->per_cost < 0.25 * s->goal->max_drop))
            continue; /* too large, or far from losing too much */
        char label[48];
        snprintf(label, sizeof label, "%s%d bits in every layer", bytes ? "int8, " : "", bits);
        status = measure_chosen(s, chosen, label, OF_ONE_TECHNIQUE, &index, error);
        if (status != TERSE_OK)
            break;
        const terse_measured *m = &s->book.measured[index];
        learn(s, chosen, m);
        if (target > 0 ? (double)m->bytes <= target : m->drop > s->goal->max_drop)
            break;
    }
    return status;
}

/* --- variants of the best one
 * ------------------------------------------------------------------------------------------- */

/* xorshift64*: the same on every machine. */
static double lot(search *s)
{
    s->lot ^= s->lot >> 12;
    s->lot ^= s->lot << 25;
    s->lot ^= s->lot >> 27;
    return (double)(s->lot * 2685821657736338717u >> 11) / 9007199254740992.0;
}

/* Some losses are taken for up to four times as large or small as they were measured. */
static void draw(search *s, double *factors)
{
    for (int l = 0; l < s->table.n; l++)
        factors[l] = lot(s) < 0.5 ? 1 : pow(4, 2 * lot(s) - 1);
}

static bool was_measured(const search *s, const int *chosen, terse_error *error)
{
    terse_search_plan plan;
    char key[TERSE_PLAN_TEXT];
    if (terse_search_plan_of(s, chosen, &plan, error) != TERSE_OK)
        return true;
    terse_search_plan_key(&plan, key);
    terse_search_plan_done(&plan);
    for (int i = 0; i < s->book.n_measured; i++)
        if (strcmp(s->book.measured[i].key, key) == 0)
            return true;
    return false;
}

/* A few channels more or less than the best one has, or as many. */
static double draw_amount(search *s, double around)
{
    const double last = s->n_points > 0 ? s->points[s->n_points - 1].amount : 0;
    const double by = lot(s), to = around > 0 ? around * (0.75 + 0.5 * lot(s)) : s->n_points > 0 ? last * lot(s) : 0;
    const double amount = terse_search_plan_number(round(200 * fmin(to, fmin(1.2 * last, s->most_channels))) / 200);
    return by < 0.4 ? around : terse_search_settle(s, amount);
}

/* The best of a few choices that should weigh about that, as the network with all their weights put together loses; its
 * channels are set. */
static int propose(search *s, double total, double around, double *factors, int *trial, int *best, bool *ret_found,
                   terse_error *error)
{
    double least = INFINITY, amount = around;
    int status = TERSE_OK;
    *ret_found = false;
    for (int i = 0; i < PROPOSALS && status == TERSE_OK && !terse_search_is_over(s); i++) {
        bool fits;
        draw(s, factors);
        if (!terse_search_set_amount(s, draw_amount(s, around)))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
        status = terse_search_pick(s, EVERY_KIND, total, factors, trial, &fits, error);
        if (status != TERSE_OK || !fits || was_measured(s, trial, error))
            continue;
        double cost = 0;
        terse_search_tell(s, "comparing variants, %d of %d", i + 1, PROPOSALS);
        status = terse_table_score(&s->table, trial, &cost, error);
        cost = cost * s->per_cost + (s->at.amount > 0 ? s->at.drop : 0);
        if (status == TERSE_OK && cost < least) {
            least = cost;
            amount = s->at.amount;
            memcpy(best, trial, (size_t)s->table.n * sizeof *best);
            *ret_found = true;
        }
    }
    return terse_search_set_amount(s, amount) || status != TERSE_OK
               ? status
               : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
}

/* What the next one should weigh: a little less than the best where the goal is to be light, the target where there is
 * one. */
static double next_total(search *s, double around, int failures)
{
    const double target = target_of(s);
    if (target > 0)
        return target * (1 - 0.01 * failures);
    return around * (1 - 0.02 / (1 + failures));
}

static int improve(search *s, int *chosen, terse_error *error)
{
    const size_t n = (size_t)s->table.n;
    TERSE_AUTO(terse_freep) double *factors = calloc(n + 1, sizeof *factors);
    TERSE_AUTO(terse_freep) int *trial = calloc(n + 1, sizeof *trial), *found = calloc(n + 1, sizeof *found);
    int status = factors && trial && found ? TERSE_OK
                                           : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    double around = terse_search_predict(s, chosen), amount = s->at.amount;
    for (int failures = 0, number = 1; failures < PATIENCE && status == TERSE_OK && !terse_search_is_over(s);) {
        bool any;
        int index, best = s->best_index;
        char label[32];
        status = propose(s, next_total(s, around, failures), amount, factors, trial, found, &any, error);
        if (status != TERSE_OK || terse_search_is_over(s))
            break;
        if (!any) {
            failures++;
            continue;
        }
        snprintf(label, sizeof label, "variant %d", number++);
        status = measure_chosen(s, found, label, 0, &index, error);
        if (status == TERSE_OK && s->best_index != best) {
            failures = 0;
            around = terse_search_predict(s, found);
            amount = s->at.amount;
            memcpy(chosen, found, n * sizeof *chosen);
        } else {
            failures++;
        }
    }
    return status;
}

/* --- the whole
 * ----------------------------------------------------------------------------------------------------------- */

void terse_search_choices_of_best(search *s, int *chosen)
{
    terse_search_set_amount(s, s->best.channels);
    for (int l = 0; l < s->table.n; l++) {
        const terse_choice *c = terse_choices_find(&s->best.layers, s->table.layers[l].name);
        chosen[l] = 0;
        for (int i = 0; c && i < s->table.layers[l].n; i++)
            if (terse_choice_same(c, &s->table.layers[l].options[i].choice))
                chosen[l] = i;
    }
}

static int search_layers(search *s, terse_error *error)
{
    const bool bytes = s->base.quantize == TERSE_QUANTIZE_INT8;
    const family families[] = {
        {1u << TERSE_OPTION_LOW_RANK, bytes ? "int8, low rank" : "low rank", OF_ONE_TECHNIQUE, SINGLE_BISECTIONS},
        {1u << TERSE_OPTION_SPARSE, bytes ? "int8, 4x1" : "4x1", OF_ONE_TECHNIQUE, SINGLE_BISECTIONS},
        {1u << TERSE_OPTION_CLUSTER, bytes ? "int8, clusters" : "clusters", 0, BISECTIONS},
        {EVERY_KIND, bytes ? "int8, all together" : "all together", 0, BISECTIONS}};
    TERSE_AUTO(terse_freep) int *chosen = calloc((size_t)s->table.n + 1, sizeof *chosen);
    int status = chosen ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    if (status == TERSE_OK && terse_goal_by_size(s->goal))
        status = reach_uniform(s, chosen, error);
    /* what there is to beat must not take the time of what should beat it */
    const uint64_t deadline = s->deadline, now = terse_now_ns();
    const size_t n = sizeof families / sizeof families[0];
    s->deadline = deadline > now ? now + (uint64_t)((double)(deadline - now) * singles_share) : deadline;
    if (status == TERSE_OK && terse_goal_by_size(s->goal))
        status = terse_search_channels(s, target_of(s), error);
    for (size_t i = 0; i + 1 < n && status == TERSE_OK && !terse_search_is_over(s); i++)
        status = reach(s, &families[i], chosen, error);
    s->deadline = deadline;
    if (status == TERSE_OK && !terse_search_is_over(s))
        status = reach(s, &families[n - 1], chosen, error);
    if (status != TERSE_OK || !has_kind(s, EVERY_KIND) || terse_search_is_over(s))
        return status;
    terse_search_choices_of_best(s, chosen);
    return improve(s, chosen, error);
}

/* The plan of the best one says of each layer why it stays dense, also where it was found before there was a table. */
static int explain_dense(search *s, terse_error *error)
{
    terse_search_plan plan;
    TERSE_AUTO(terse_freep) int *chosen = calloc((size_t)s->table.n + 1, sizeof *chosen);
    if (!chosen || !terse_search_set_amount(s, s->best.channels))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    for (int l = 0; l < s->best.layers.n; l++)
        if (*s->best.layers.list[l].why)
            return TERSE_OK;
    const int status = terse_search_plan_of(s, chosen, &plan, error);
    if (status != TERSE_OK)
        return status;
    const bool other = s->best.quantize != s->base.quantize || s->best.bf16;
    for (int l = 0; other && l < plan.layers.n; l++) { /* the table's figures are of another kind of dense */
        terse_choice *c = &plan.layers.list[l];
        c->us = c->cost = 0;
        c->bytes = 0;
        snprintf(c->why, sizeof c->why, "%s in all layers is better than what single layers could become",
                 s->book.measured[s->best_index].label);
    }
    for (int l = 0; l < plan.layers.n; l++) {
        const terse_choice *was = terse_choices_find(&s->best.layers, plan.layers.list[l].name);
        plan.layers.list[l].kept = was ? was->kept : 0;
        snprintf(plan.layers.list[l].left, TERSE_CHOICE_WHY, "%s", was ? was->left : "");
    }
    terse_choices_done(&s->best.layers);
    s->best.layers = plan.layers;
    plan.layers = (terse_choices){0};
    terse_search_plan_done(&plan);
    terse_search_find_culprit(s);
    return TERSE_OK;
}

/* The dense networks were timed one after the other; now each beside the fastest of them. */
static int time_dense(search *s, const dense_one *list, int n, terse_error *error)
{
    const terse_graph *fastest = s->dense;
    double fresh, ignored;
    int status = terse_judge_time(s->judge, fastest, NULL, s->goal->batch, s->goal->threads, &fresh, &ignored, error);
    for (int i = 0; i < n && status == TERSE_OK; i++) {
        double us = fresh, beside = fresh;
        if (list[i].graph != fastest)
            status = terse_judge_time(s->judge, list[i].graph, fastest, s->goal->batch, s->goal->threads, &us, &beside,
                                      error);
        s->book.measured[list[i].index].us = terse_search_plan_number(us / beside * fresh);
    }
    choose_dense(s, list, n);
    return status;
}

/* What is best depends on the fastest dense network, which is known now. */
static int choose_again(search *s, const dense_one *list, int n, terse_error *error)
{
    int best = 0;
    const int timed = time_dense(s, list, n, error);
    if (timed != TERSE_OK)
        return timed;
    s->dense_known = true;
    for (int i = 1; i < n; i++)
        if (terse_search_better(s, &s->book.measured[list[i].index], &s->book.measured[list[best].index]))
            best = i;
    if (list[best].index == s->best_index)
        return terse_search_write(s, error);
    terse_search_plan plan;
    int status = terse_search_plan_copy(&s->base, &plan, error);
    if (status != TERSE_OK)
        return status;
    plan.quantize = list[best].mode;
    plan.bf16 = list[best].bf16;
    status = terse_search_take(s, &plan, list[best].index, error);
    terse_search_plan_done(&plan);
    return status;
}

/* The strongest of all for speed where it goes, and it needs no table: first, lest there is no time for it. */
static int begin_with_channels(search *s, terse_error *error)
{
    const uint64_t deadline = s->deadline, now = terse_now_ns();
    s->deadline = deadline > now ? now + (uint64_t)((double)(deadline - now) * channels_share) : deadline;
    const int status = terse_search_channels(s, target_of(s), error);
    s->deadline = deadline;
    return status;
}

static int run(search *s, terse_error *error)
{
    dense_one list[5] = {0};
    int n = 0;
    int status = terse_judge_new(s->in->imported, s->in->held, &s->judge, error);
    if (status == TERSE_OK)
        status = measure_all_dense(s, list, &n, error);
    if (status == TERSE_OK)
        status = choose_again(s, list, n, error);
    if (status == TERSE_OK)
        choose_base(s, list, n);
    if (status == TERSE_OK && !terse_goal_by_size(s->goal) && !terse_search_is_over(s))
        status = begin_with_channels(s, error);
    if (status == TERSE_OK && !terse_search_is_over(s))
        status = open_table(s, list, error);
    if (status == TERSE_OK && s->table.n > 0)
        status = search_layers(s, error);
    s->deadline = s->start + (uint64_t)(s->goal->seconds * 1e9);
    if (status == TERSE_OK && (s->table.n > 0 || s->best.channels > 0))
        status = terse_search_train(s, error);
    if (status == TERSE_OK && s->table.n > 0)
        status = explain_dense(s, error);
    for (int l = 0; l < s->best.layers.n && status == TERSE_OK && s->table.n == 0; l++)
        snprintf(s->best.layers.list[l].why, TERSE_CHOICE_WHY, "there was no time to look at single layers");
    if (status == TERSE_OK)
        terse_search_say_channels(s, &s->best);
    return status == TERSE_OK ? terse_search_write(s, error) : status;
}

int terse_search_run(const terse_search_input *input, const terse_search_hooks *hooks, terse_search_plan *ret_plan,
                     bool *ret_reached, terse_error *error)
{
    search s = {.in = input, .hooks = hooks, .goal = input->goal, .start = terse_now_ns()};
    s.deadline = s.start + (uint64_t)((input->goal->seconds - terse_search_training_seconds(input->goal)) * 1e9);
    s.lot = input->goal->seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
    s.base = (terse_search_plan){.seed = input->goal->seed, .pack = input->pack, .held_out = input->held_out};
    snprintf(s.base.of, sizeof s.base.of, "%s", input->of);
    terse_goal_text(input->goal, s.base.goal, sizeof s.base.goal);
    const int status = run(&s, error);
    terse_search_channels_done(&s);
    terse_table_done(&s.table);
    terse_judge_free(s.judge);
    terse_search_plan_done(&s.base);
    terse_search_plan_done(&s.book);
    if (status != TERSE_OK) {
        terse_search_plan_done(&s.best);
        return status;
    }
    *ret_reached = s.best.measured[s.best_index].meets;
    *ret_plan = s.best;
    return TERSE_OK;
}
