/* SPDX-License-Identifier: Apache-2.0 */
/* search_steps.h: what the files of a search share. */
#ifndef TERSE_SEARCH_SEARCH_STEPS_H
#define TERSE_SEARCH_SEARCH_STEPS_H

#include "compress/search/aim.h"
#include "compress/search/judge.h"
#include "compress/search/search.h"
#include "compress/search/table.h"

enum { CHANNELS_POINTS = 12, CHANNELS_SEEN = 64 };

/* A network of dense layers without that share of the work. */
typedef struct channels_point {
    double amount, us, bytes;
    double drop;          /* more than that of `base` */
    terse_choices layers; /* what each has left */
    double *kept;         /* the same for the table's */
} channels_point;

/* What is expected of dense layers without a share of the work: what layers become is chosen on top of that. */
typedef struct channels_at {
    double amount, us, bytes, drop;
    double *kept;  /* share of each layer's weights */
    double slower; /* than that share says */
} channels_at;

/* What the time goes into. */
typedef enum search_stage {
    SEARCH_DENSE,
    SEARCH_CHANNELS,
    SEARCH_TABLE,
    SEARCH_SINGLES,
    SEARCH_TOGETHER,
    SEARCH_VARIANTS,
    SEARCH_TRAINING,
    SEARCH_OTHER,
    SEARCH_STAGES
} search_stage;

/* A network that could be trained: as fast as is asked for, or nearly. */
typedef struct search_candidate {
    terse_search_plan plan;
    int index; /* in the book */
} search_candidate;

enum { SEARCH_POOL = 4 };

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
    int best_index;                         /* in the book */
    bool dense_known;                       /* all dense networks are measured */
    double dense_us;                        /* of the fastest dense network within the drop */
    const terse_graph *dense;               /* that one */
    double base_us, base_bytes, base_drop;  /* measured of `base` */
    channels_point points[CHANNELS_POINTS]; /* by amount */
    int n_points;
    struct channels_seen {
        double amount, gone;
    } seen[CHANNELS_SEEN]; /* the first amount of each network */
    int n_seen;
    channels_at at;
    double most_channels;      /* share of the work that could go; 0: none */
    terse_prune_report pinned; /* why not more, layer by layer */
    double per_cost;           /* drop for a unit of the table's cost, as seen */
    double saves;              /* share of the time that the table says is saved, as seen; 0: not yet */
    uint64_t start, deadline;  /* of what is done now; in the end that of the goal */
    double build_seconds;      /* the mean of those so far */
    int n_builds;              /* networks, each counted once */
    uint64_t lot;
    bool in_part;                /* of the time: what would take more than is left of it is not begun */
    double spent[SEARCH_STAGES]; /* seconds */
    search_stage stage;
    uint64_t entered;                   /* it */
    search_candidate pool[SEARCH_POOL]; /* the most promising one first */
    int n_pool;
    int n_trained;                   /* by this search */
    char trained[TERSE_PLAN_TEXT];   /* which ones were, and what came of it */
    char untrained[TERSE_PLAN_TEXT]; /* why what is not trained is not, where that is not for want of time */
} search;

/* Techniques that are used together. */
typedef struct search_family {
    unsigned kinds;
    const char *label;
    unsigned flags;
    int most; /* networks that it may build */
} search_family;

/* --- pick.c: from the table to plans ---------------------------------------------------------------------------------
 */

/* Bit k: options of kind k may be chosen (dense always); and channels may go. */
enum { WITH_CHANNELS = 1 << TERSE_OPTION_KINDS, EVERY_KIND = 2 * WITH_CHANNELS - 1 };

/* All of these are about layers without the share of channels that is set (terse_search_set_amount). */

double terse_search_cost(const search *s, const int *chosen);
/* What the whole network should weigh: microseconds or bytes, whichever the goal is about; and lose. */
double terse_search_predict(const search *s, const int *chosen);
double terse_search_expect(const search *s, const int *chosen);
/* What that network has taken says how far the table's times are to be trusted. */
void terse_search_learn_time(search *s, const int *chosen, double us);
/* Whether anything that those kinds allow can weigh so little, and what of it costs least; losses are multiplied by
 * factors[layer] (NULL: 1). */
int terse_search_pick(const search *s, unsigned kinds, double total, const double *factors, int *ret_chosen,
                      bool *ret_fits, terse_error *error);
/* Of all shares of channels too: sets the best. The lightest of all where nothing fits. */
int terse_search_pick_any(search *s, unsigned kinds, double total, int *ret_chosen, terse_error *error);
/* The least that those kinds allow. */
double terse_search_lightest(search *s, unsigned kinds);
int terse_search_plan_of(const search *s, const int *chosen, terse_search_plan *ret_plan, terse_error *error);
/* Names the layer that loses most, or channels, in s->best. */
void terse_search_find_culprit(search *s);

/* --- channels.c ------------------------------------------------------------------------------------------------------
 */

/* What goes before layers become something: everything above is on top of that. False: memory is out. */
bool terse_search_set_amount(search *s, double amount);
/* The amount that was first seen of those that make the same network. */
double terse_search_settle(search *s, double amount);
/* Shares that are worth a look: 0, and around what was measured. */
enum { CHANNELS_AMOUNTS = 2 * CHANNELS_POINTS + 1 };
int terse_search_amounts(search *s, unsigned kinds, double *ret_list);
/* Builds networks of this technique alone: for `target`, or by the drop (target 0). FIRST_TRIALS: for a target, one for
 * it and one with half as many channels gone, so that there is something between that other choices can go on top of.
 */
enum { FIRST_TRIALS = 2, ALL_TRIALS = 4 };
int terse_search_channels(search *s, double target, int trials, terse_error *error);
/* Where none can go the table's layers say why; once, when both the table and what can go are there. */
void terse_search_refuse_channels(search *s);
void terse_search_say_channels(const search *s, terse_search_plan *plan);
void terse_search_channels_done(search *s);

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
/* As long as a network takes, and a little more, is left of this part of the time. */
bool terse_search_has_time(const search *s);
/* Which ones nothing beats in drop, time and bytes. */
void terse_search_mark_pareto(terse_search_plan *plan);

/* --- reach.c: a family of techniques -------------------------------------------------------------------------------
 */

/* Builds networks that use the family's techniques alone until one is what is asked for. */
int terse_search_reach(search *s, const search_family *f, int *chosen, terse_error *error);
/* All layers with as many bits, as --cluster does it: fewer, until that loses too much or the file is small enough. */
int terse_search_reach_uniform(search *s, int *chosen, terse_error *error);
/* The lightest network that should lose at most `drop`, by what was seen so far, between `low` and `high`. */
int terse_search_total_for(search *s, unsigned kinds, double drop, double low, double high, int *chosen,
                           double *ret_total, terse_error *error);
int terse_search_measure_chosen(search *s, const int *chosen, const char *label, unsigned flags, int *ret_index,
                                terse_error *error);
/* What its drop says of the table's losses. */
void terse_search_learn(search *s, const int *chosen, const terse_measured *m);
/* Is there anything of those kinds? */
bool terse_search_has_kind(const search *s, unsigned kinds);
/* Of a run, in microseconds; 0: no speed is asked for (or how fast dense networks are is not known yet). */
double terse_search_target_us(const search *s);
/* That or bytes; 0: none is asked for. */
double terse_search_target(const search *s);

/* --- variants.c ------------------------------------------------------------------------------------------------------
 */

/* Variants of what is chosen, until time is up or nothing better comes. */
int terse_search_improve(search *s, int *chosen, terse_error *error);

/* --- account.c: what was done, and what could be trained ------------------------------------------------------------
 */

/* From here on the time goes into that. */
void terse_search_enter(search *s, search_stage stage, uint64_t now);
/* In words; writes and returns `text`. */
const char *terse_search_say_spent(const search *s, uint64_t now, char text[TERSE_PLAN_TEXT]);
/* Adds to s->trained what fits there whole; the report has all networks in its list. */
void terse_search_note(search *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Keeps that network if it is among the most promising ones. */
int terse_search_pool_offer(search *s, const terse_search_plan *plan, int index, terse_error *error);
/* How many of them have their turn: those that are as fast as is asked for or, where none is, those that miss it by
 * little. */
int terse_search_pool_turns(const search *s);
void terse_search_pool_done(search *s);

/* --- search.c --------------------------------------------------------------------------------------------------------
 */

/* The choices of the best plan, by its names; sets its channels. */
void terse_search_choices_of_best(search *s, int *chosen);

/* --- train.c ---------------------------------------------------------------------------------------------------------
 */

/* How much of the goal's time is for training. */
double terse_search_training_seconds(const terse_search_goal *goal);
/* Trains networks until the time is up; the best one so far stays where none becomes better. */
int terse_search_train(search *s, terse_error *error);

#endif
