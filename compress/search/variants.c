/* SPDX-License-Identifier: Apache-2.0 */
/* Variants of the best one: knapsacks over losses that are multiplied by lots, compared by running the network with
 * those weights put together; the best of a few is built. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/search/search_steps.h"

enum { PROPOSALS = 12, PATIENCE = 4 };

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
    const double target = terse_search_target(s);
    if (target > 0)
        return terse_aim_for(target, terse_goal_by_size(s->goal)) * (1 - 0.005 * failures);
    return around * (1 - 0.02 / (1 + failures));
}

int terse_search_improve(search *s, int *chosen, terse_error *error)
{
    const size_t n = (size_t)s->table.n;
    TERSE_AUTO(terse_freep) double *factors = calloc(n + 1, sizeof *factors);
    TERSE_AUTO(terse_freep) int *trial = calloc(n + 1, sizeof *trial), *found = calloc(n + 1, sizeof *found);
    int status = factors && trial && found ? TERSE_OK
                                           : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choosing");
    const double target = terse_search_target(s);
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
        status = terse_search_measure_chosen(s, found, label, 0, &index, error);
        if (status == TERSE_OK && target > 0)
            terse_search_learn_time(s, found, s->book.measured[index].us);
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
