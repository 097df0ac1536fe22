/* SPDX-License-Identifier: Apache-2.0 */
/* One family of techniques: the lightest network within a drop, or the one within a target that loses least. */
#include <math.h>
#include <stdio.h>

#include "compress/search/search_steps.h"

enum { REPEATS = 4 }; /* what was built before may be chosen again so often */

int terse_search_measure_chosen(search *s, const int *chosen, const char *label, unsigned flags, int *ret_index,
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

void terse_search_learn(search *s, const int *chosen, const terse_measured *m)
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
static int reach_drop(search *s, const search_family *f, int *chosen, terse_error *error)
{
    const double all = terse_goal_by_size(s->goal) ? s->base_bytes : s->base_us;
    double low = terse_search_lightest(s, f->kinds), high = all;
    int status = TERSE_OK;
    for (int round = 0;
         round < f->most && status == TERSE_OK && !terse_aim_is_same(low, high, all) && !terse_search_is_over(s);
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
            status = terse_search_measure_chosen(s, chosen, f->label, f->flags, &index, error);
        if (status != TERSE_OK)
            break;
        const terse_measured *m = &s->book.measured[index];
        if (s->book.n_measured > before)
            terse_search_learn(s, chosen, m);
        if (m->drop > s->goal->max_drop)
            low = total;
        else
            high = fmin(total, terse_search_predict(s, chosen));
    }
    return status;
}

/* The network that loses least within the target. What was built says how far off the table is, and the next one is
 * chosen by that: deeper, where the last one missed, by as much as it missed. */
static int reach_target(search *s, const search_family *f, double target, int *chosen, terse_error *error)
{
    const bool bytes = terse_goal_by_size(s->goal);
    double aim = terse_aim_for(target, bytes);
    bool reached = false;
    int status = TERSE_OK;
    for (int built = 0, tries = 0; built < f->most && tries < f->most + REPEATS && !terse_search_is_over(s); tries++) {
        int index = 0;
        const double least = terse_search_lightest(s, f->kinds);
        const int before = s->book.n_measured;
        status = terse_search_pick_any(s, f->kinds, aim, chosen, error);
        const bool deepest = terse_search_predict(s, chosen) <= least * (1 + 1e-6);
        if (status == TERSE_OK)
            status = terse_search_measure_chosen(s, chosen, f->label, f->flags, &index, error);
        if (status != TERSE_OK)
            break;
        const terse_measured *m = &s->book.measured[index];
        const double found = bytes ? (double)m->bytes : m->us;
        const bool fresh = s->book.n_measured > before;
        built += fresh;
        terse_search_learn_time(s, chosen, m->us);
        if (fresh)
            terse_search_learn(s, chosen, m);
        if (terse_aim_is_there(found, target) || (found > target && (reached || deepest)))
            break;
        reached = reached || found <= target;
        if (bytes || !fresh)
            aim = terse_aim_again(aim, found, target);
    }
    return status;
}

double terse_search_target_us(const search *s)
{
    if (s->goal->target_ms > 0)
        return s->goal->target_ms * 1000;
    return s->goal->target_speedup > 0 ? s->dense_us / s->goal->target_speedup : 0;
}

double terse_search_target(const search *s)
{
    return s->goal->target_bytes > 0 ? (double)s->goal->target_bytes : terse_search_target_us(s);
}

bool terse_search_has_kind(const search *s, unsigned kinds)
{
    if (kinds & WITH_CHANNELS && s->n_points > 0)
        return true;
    for (int l = 0; l < s->table.n; l++)
        for (int i = 1; i < s->table.layers[l].n; i++)
            if (kinds >> s->table.layers[l].options[i].kind & 1u)
                return true;
    return false;
}

int terse_search_reach(search *s, const search_family *f, int *chosen, terse_error *error)
{
    if (!terse_search_has_kind(s, f->kinds))
        return TERSE_OK;
    return terse_search_target(s) > 0 ? reach_target(s, f, terse_search_target(s), chosen, error)
                                      : reach_drop(s, f, chosen, error);
}

int terse_search_reach_uniform(search *s, int *chosen, terse_error *error)
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
        status = terse_search_measure_chosen(s, chosen, label, OF_ONE_TECHNIQUE, &index, error);
        if (status != TERSE_OK)
            break;
        const terse_measured *m = &s->book.measured[index];
        terse_search_learn(s, chosen, m);
        if (target > 0 ? (double)m->bytes <= target : m->drop > s->goal->max_drop)
            break;
    }
    return status;
}
