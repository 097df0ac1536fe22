/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "compress/search/search_steps.h"

enum { BISECTIONS = 6, SINGLE_BISECTIONS = 3 };
static const double table_share = 0.45;   /* of the time that is left */
static const double coarse_share = 0.3;   /* the same for a speed: what is built corrects it */
static const double channels_share = 0.3; /* of the time in front of the table, for channels alone */
static const double singles_share = 0.45; /* of what the table leaves, for single techniques */
static const double told_share = 0.7;     /* of what the first int8 network takes: those behind it try nothing */
static const double behind_share = 0.3;   /* the same where what takes all of them was built before */

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

static bool is_within(const search *s, const terse_measured *m)
{
    return s->goal->max_drop < 0 || m->drop <= s->goal->max_drop;
}

/* FP32 and int8 in the list say that bf16 need not be built. */
static bool cannot_win(const search *s, const dense_one *list)
{
    const terse_measured *in_float = &s->book.measured[list[0].index], *int8 = &s->book.measured[list[1].index];
    return is_within(s, int8) && !terse_aim_bf16_may_win(in_float->us, int8->us, terse_search_target_us(s));
}

/* The fastest dense network within the drop, or of all where none is. */
static void choose_dense(search *s, const dense_one *list, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        const terse_measured *a = &s->book.measured[list[i].index], *b = &s->book.measured[list[best].index];
        const bool within_a = is_within(s, a), within_b = is_within(s, b);
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
        if (kinds[i].bf16 && n == 2 && cannot_win(s, list))
            continue;
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
    s->base.equalization = bytes ? list[1].int8->equalized : TERSE_EQUALIZATION_TRIED;
    s->build_seconds *= bytes ? told_share : 1;
}

static int open_table(search *s, const dense_one *list, terse_error *error)
{
    const bool bytes = s->base.quantize == TERSE_QUANTIZE_INT8;
    terse_search_enter(s, SEARCH_TABLE, terse_now_ns());
    const double seconds = fmax(1, ((double)s->deadline - (double)terse_now_ns()) / 1e9);
    const terse_table_options options = {.bytes = bytes,
                                         .by_size = terse_goal_by_size(s->goal),
                                         .seconds =
                                             (terse_search_target_us(s) > 0 ? coarse_share : table_share) * seconds,
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

/* What there is to beat. It must not take the time of what should beat it. */
static int reach_singles(search *s, const search_family *families, int n, double share, int *chosen, terse_error *error)
{
    const uint64_t deadline = s->deadline, now = terse_now_ns();
    int status = TERSE_OK;
    terse_search_enter(s, SEARCH_SINGLES, terse_now_ns());
    s->deadline = deadline > now ? now + (uint64_t)((double)(deadline - now) * share) : deadline;
    s->in_part = !terse_goal_by_size(s->goal);
    if (terse_goal_by_size(s->goal) || terse_search_target(s) > 0)
        status = terse_search_channels(s, terse_search_target(s), ALL_TRIALS, error);
    for (int i = 0; i < n && status == TERSE_OK && !terse_search_is_over(s); i++)
        status = terse_search_reach(s, &families[i], chosen, error);
    s->in_part = false;
    s->deadline = deadline;
    return status;
}

static int reach_together(search *s, int *chosen, terse_error *error)
{
    const search_family all = {
        EVERY_KIND, s->base.quantize == TERSE_QUANTIZE_INT8 ? "int8, all together" : "all together", 0, BISECTIONS};
    terse_search_enter(s, SEARCH_TOGETHER, terse_now_ns());
    return terse_search_reach(s, &all, chosen, error);
}

static int vary(search *s, int *chosen, terse_error *error)
{
    if (!terse_search_has_kind(s, EVERY_KIND) || terse_search_is_over(s))
        return TERSE_OK;
    terse_search_enter(s, SEARCH_VARIANTS, terse_now_ns());
    terse_search_choices_of_best(s, chosen);
    return terse_search_improve(s, chosen, error);
}

/* All together, and single techniques by themselves. A speed that is asked for may be out of reach of each technique:
 * there what takes all of them is built first, so that something reaches it. */
static int search_layers(search *s, terse_error *error)
{
    const bool bytes = s->base.quantize == TERSE_QUANTIZE_INT8;
    const search_family families[] = {
        {1u << TERSE_OPTION_LOW_RANK, bytes ? "int8, low rank" : "low rank", OF_ONE_TECHNIQUE, SINGLE_BISECTIONS},
        {1u << TERSE_OPTION_SPARSE, bytes ? "int8, 4x1" : "4x1", OF_ONE_TECHNIQUE, SINGLE_BISECTIONS},
        {1u << TERSE_OPTION_CLUSTER, bytes ? "int8, clusters" : "clusters", 0, BISECTIONS}};
    TERSE_AUTO(terse_freep) int *chosen = calloc((size_t)s->table.n + 1, sizeof *chosen);
    int status = chosen ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    const int singles = sizeof families / sizeof families[0];
    const bool for_speed = terse_search_target_us(s) > 0;
    terse_search_enter(s, SEARCH_SINGLES, terse_now_ns());
    if (status == TERSE_OK && terse_goal_by_size(s->goal))
        status = terse_search_reach_uniform(s, chosen, error);
    if (status == TERSE_OK && !for_speed)
        status = reach_singles(s, families, singles, singles_share, chosen, error);
    if (status == TERSE_OK && !terse_search_is_over(s))
        status = reach_together(s, chosen, error);
    if (status == TERSE_OK && for_speed && !terse_search_is_over(s))
        status = reach_singles(s, families, singles, behind_share, chosen, error);
    return status == TERSE_OK ? vary(s, chosen, error) : status;
}

/* Nothing was trained, and what would have been the time for it is left. */
static int search_on(search *s, terse_error *error)
{
    TERSE_AUTO(terse_freep) int *chosen = calloc((size_t)s->table.n + 1, sizeof *chosen);
    int status = chosen ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    if (status == TERSE_OK && !terse_search_is_over(s))
        status = reach_together(s, chosen, error);
    return status == TERSE_OK ? vary(s, chosen, error) : status;
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
    terse_search_enter(s, SEARCH_CHANNELS, terse_now_ns());
    s->deadline = deadline > now ? now + (uint64_t)((double)(deadline - now) * channels_share) : deadline;
    const int status = terse_search_channels(s, terse_search_target(s), FIRST_TRIALS, error);
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
    terse_search_enter(s, SEARCH_TRAINING, terse_now_ns());
    if (status == TERSE_OK && (s->table.n > 0 || s->best.channels > 0))
        status = terse_search_train(s, error);
    if (status == TERSE_OK && s->table.n > 0 && terse_search_target_us(s) > 0 && s->n_trained == 0)
        status = search_on(s, error);
    if (status == TERSE_OK && s->table.n > 0)
        status = explain_dense(s, error);
    for (int l = 0; l < s->best.layers.n && status == TERSE_OK && s->table.n == 0; l++)
        snprintf(s->best.layers.list[l].why, TERSE_CHOICE_WHY, "there was no time to look at single layers");
    if (status == TERSE_OK)
        terse_search_say_channels(s, &s->best);
    terse_search_enter(s, SEARCH_OTHER, terse_now_ns());
    return status == TERSE_OK ? terse_search_write(s, error) : status;
}

int terse_search_run(const terse_search_input *input, const terse_search_hooks *hooks, terse_search_plan *ret_plan,
                     bool *ret_reached, terse_error *error)
{
    search s = {.in = input, .hooks = hooks, .goal = input->goal, .start = terse_now_ns()};
    s.entered = s.start;
    s.deadline = s.start + (uint64_t)((input->goal->seconds - terse_search_training_seconds(input->goal)) * 1e9);
    s.lot = input->goal->seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
    s.base = (terse_search_plan){.seed = input->goal->seed, .pack = input->pack, .held_out = input->held_out};
    snprintf(s.base.of, sizeof s.base.of, "%s", input->of);
    terse_goal_text(input->goal, s.base.goal, sizeof s.base.goal);
    const int status = run(&s, error);
    terse_search_pool_done(&s);
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
