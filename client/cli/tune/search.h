/* SPDX-License-Identifier: Apache-2.0 */
/* search.h: which settings of a daemon to try, at which rates, and which one is the best: a function of what is
 * measured. Runs in: terse tune. Plain numbers: reads no clock and speaks to nobody; whoever calls it measures, and a
 * test plays tables of measurements against it.
 *
 * Design notes
 *   For each setting the highest rate is wanted at which 99 % of the requests are answered by the deadline and none is
 *   refused. It is closed in on from both sides, geometrically, from what the cost curve and the settings before let
 *   one expect. On a shared machine a trial may fail by mischance: one that failed is tried once more.
 *   All workers and no waiting come first, batches from large to small, until they answer clearly less; the space has
 *   none so large that the curve says that they gain nothing, or that two of them take longer than the deadline. Fewer
 *   workers are tried around the batch that was the best with more of them, and waiting for batches to fill
 *   (batch_timeout_us) with the best of all that.
 *   Finalists then take turns, each at a rate of its own that rises by a step when it held and falls when it did not:
 *   the mean of such a staircase is the rate that holds every other time, whatever the machine does to all of them.
 *   Of those that are as good as equal one that waits for nothing is taken, with the lower p99.
 *   In the end they are tried at lower rates as well, for the picture of latency against throughput. */
#ifndef TERSE_TUNE_SEARCH_H
#define TERSE_TUNE_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/cli/tune/cost_fit.h"
#include "common/status.h"

enum { TERSE_TUNE_WORKERS = 12, TERSE_TUNE_BATCHES = 12, TERSE_TUNE_TIMEOUTS = 8, TERSE_TUNE_FINALISTS = 5 };
enum { TERSE_TUNE_POINTS = TERSE_TUNE_WORKERS * TERSE_TUNE_BATCHES * TERSE_TUNE_TIMEOUTS };

typedef struct terse_tune_setting {
    uint32_t workers, max_batch;
    uint64_t timeout_us;
} terse_tune_setting;

typedef struct terse_tune_trial {
    terse_tune_setting setting;
    double offered, rate; /* requests a second: sent, answered */
    double p50_us, p99_us, mean_batch;
    bool passed; /* the deadline held, nothing was refused */
    bool front;  /* no other one that passed answers as much at a lower p99 */
} terse_tune_trial;

/* What to choose from, ascending. */
typedef struct terse_tune_space {
    uint32_t workers[TERSE_TUNE_WORKERS], batches[TERSE_TUNE_BATCHES];
    uint64_t timeouts[TERSE_TUNE_TIMEOUTS]; /* mostly 0 first */
    unsigned n_workers, n_batches, n_timeouts;
    terse_cost_line line; /* t(n) = a + b n, for a first guess */
    double first_rate;    /* where to begin; 0: where the line says */
    uint32_t rows;        /* of each request */
    double tolerance;     /* how near the rates that held and did not come in the sweep: 1.1 */
    double patience;      /* part of the time, above 1, in which anything at all must have held: 1.4 */
    bool exhaustive;      /* every combination, and no finals */
    char why[160];        /* why there are no larger batches */
} terse_tune_space;

/* What the space depends on. */
typedef struct terse_tune_known {
    uint32_t workers, cores; /* that it has now; that it could have */
    uint32_t rows;           /* of each request */
    bool batchable;
    terse_cost_line line;
    double deadline_us;
    double rate; /* what it answers as it is, about; 0: not known */
} terse_tune_known;

/* What is known of one setting. */
typedef struct terse_tune_point {
    terse_tune_setting setting;
    double held, failed;   /* highest rate that held (0: none), lowest above it that did not (INFINITY: none) */
    double estimate;       /* of the rate at the deadline */
    terse_tune_trial best; /* the trial at `held` */
    double log_sum;        /* of a finalist's staircase */
    double level;
    unsigned steps, trials;
    bool finalist, chosen;
} terse_tune_point;

typedef struct terse_tune_found {
    terse_tune_point points[TERSE_TUNE_POINTS];
    unsigned n_points;
    terse_tune_trial *trials; /* all, in order */
    size_t n_trials, room;
    unsigned planned; /* settings that will have been tried, as far as it is known */
    unsigned rounds;  /* of the finals */
    bool out_of_time;
    char why[400]; /* what ended the search, in words */
} terse_tune_found;

typedef struct terse_tune_means {
    /* One trial. Sets all of *ret_trial but `setting` and `offered`. */
    int (*measure)(void *context, const terse_tune_setting *setting, double rate, terse_tune_trial *ret_trial,
                   terse_error *error);
    /* The part of the time that is over: 0 to 1 and more. */
    double (*spent)(void *context);
    void (*tell)(void *context, const terse_tune_found *found); /* after each trial; may be NULL */
    void *context;
} terse_tune_means;

void terse_tune_space_make(const terse_tune_known *known, terse_tune_space *ret_space);
/* Only what these lists have ("1,2,8"; NULL: as it was). INVALID_ARGUMENT. */
int terse_tune_space_restrict(terse_tune_space *space, const char *workers, const char *batches, const char *timeouts,
                              terse_error *error);
/* *found begins zeroed and is ended with terse_tune_found_done, whatever comes back. NOT_FOUND when no setting held at
 * any rate. */
int terse_tune_search(const terse_tune_space *space, const terse_tune_means *means, terse_tune_found *found,
                      terse_error *error);
void terse_tune_found_done(terse_tune_found *found);
const terse_tune_point *terse_tune_chosen(const terse_tune_found *found);
/* Marks the trials that no other beats in both throughput and p99. */
void terse_tune_mark_front(terse_tune_found *found);

#endif
