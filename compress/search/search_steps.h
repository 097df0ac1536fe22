/* SPDX-License-Identifier: Apache-2.0 */
/* search_steps.h: what the files of a search share. */
#ifndef TERSE_SEARCH_SEARCH_STEPS_H
#define TERSE_SEARCH_SEARCH_STEPS_H

#include "compress/search/judge.h"
#include "compress/search/search.h"
#include "compress/search/table.h"

typedef struct search {
    const terse_search_input *in;
    const terse_search_hooks *hooks;
    const terse_search_goal *goal;
    terse_judge *judge;
    terse_table table;
    terse_search_plan base; /* all layers dense, in the mode that the table is for */
    terse_search_plan best; /* with all that was measured */
    terse_search_plan book; /* `measured`: everything */
    bool has_best;
    int best_index;             /* in the book */
    bool dense_known;           /* all dense networks are measured */
    double dense_us;            /* of the fastest dense network within the drop */
    const terse_graph *dense;   /* that one */
    double base_us, base_bytes; /* measured of `base` */
    double per_cost;            /* drop for a unit of the table's cost, as seen */
    uint64_t start, deadline;   /* of what is done now; in the end that of the goal */
    double build_seconds;       /* the mean of those so far */
    int n_builds;
    uint64_t lot;
} search;

/* --- pick.c: from the table to plans ---------------------------------------------------------------------------------
 */

/* Bit k: options of kind k may be chosen (dense always). */
enum { EVERY_KIND = (1 << TERSE_OPTION_KINDS) - 1 };

/* The sum over layers of what is chosen: microseconds or bytes, whichever the goal is about; cost. */
double terse_search_weight(const search *s, const int *chosen);
double terse_search_cost(const search *s, const int *chosen);
/* The least weight that those kinds allow. */
double terse_search_lightest(const search *s, unsigned kinds);
/* What costs least with at most that weight; losses are multiplied by factors[layer] (NULL: 1). False: memory is out.
 */
bool terse_search_pick(const search *s, unsigned kinds, double budget, const double *factors, int *ret_chosen);
/* What the whole network should weigh: microseconds or bytes. */
double terse_search_predict(const search *s, const int *chosen);
int terse_search_plan_of(const search *s, const int *chosen, terse_search_plan *ret_plan, terse_error *error);
/* Names the layer that loses most, in s->best. */
void terse_search_find_culprit(search *s);

/* --- measure.c: plans that are built and judged ----------------------------------------------------------------------
 */

/* Builds and measures a plan, unless one like it was measured; the better one becomes the best. *ret_index in the book.
 * Graphs are good until the next call. */
int terse_search_measure(search *s, terse_search_plan *plan, const char *label, unsigned flags, int *ret_index,
                         terse_error *error);
enum { OF_ONE_TECHNIQUE = 1, OF_DENSE_LAYERS = 2, OF_TRAINED = 4 };
/* Builds a plan that was measured, which becomes the best. */
int terse_search_take(search *s, terse_search_plan *plan, int index, terse_error *error);
/* Gives the best one all that was measured, and writes it again. */
int terse_search_write(search *s, terse_error *error);
/* Whether a is better for the goal. */
bool terse_search_better(const search *s, const terse_measured *a, const terse_measured *b);
bool terse_search_meets(const search *s, const terse_measured *m);
void terse_search_tell(const search *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* No time for one more. */
bool terse_search_is_over(const search *s);
/* Which ones nothing beats in drop, time and bytes. */
void terse_search_mark_pareto(terse_search_plan *plan);

/* --- search.c --------------------------------------------------------------------------------------------------------
 */

/* The least budget whose choice should lose at most `drop`, by what was seen so far. */
int terse_search_budget_for(search *s, unsigned kinds, double drop, double low, double high, int *chosen,
                            double *ret_budget, terse_error *error);
/* The choices of the best plan, by its names. */
void terse_search_choices_of_best(const search *s, int *chosen);

/* --- train.c ---------------------------------------------------------------------------------------------------------
 */

/* How much of the goal's time is for training. */
double terse_search_training_seconds(const terse_search_goal *goal);
/* Trains networks until the time is up; the best one so far stays where none becomes better. */
int terse_search_train(search *s, terse_error *error);

#endif
