/* SPDX-License-Identifier: Apache-2.0 */
/* goal.h: what a search is to reach, and what it may take: --max-drop, --target-*, --time and their like.
 * Runs in: terse-compress (and the tests). Owns nothing; `plan` points into argv. */
#ifndef TERSE_SEARCH_GOAL_H
#define TERSE_SEARCH_GOAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

typedef struct terse_search_goal {
    double max_drop; /* points of top-1, or percent; below 0: not asked for */
    double target_ms, target_speedup;
    int64_t target_bytes; /* 0: not asked for, all three */
    bool smallest;        /* with max_drop alone: the smallest file, not the fastest network */
    double seconds;       /* that the search may take */
    int threads;          /* of the runs that are timed */
    int64_t batch;        /* samples of one of them */
    uint64_t seed;
    double recover_seconds; /* of `seconds`, for winning back what is lost; 0: a third, below 0: none */
    int64_t recover_epochs; /* at most, of one network; 0: as time allows */
    const char *plan;       /* NULL: none */
    const char *stray;      /* an option that goes with a search only */
} terse_search_goal;

/* Is a search asked for? */
bool terse_goal_is_set(const terse_search_goal *goal);
/* By bytes, else by time. */
bool terse_goal_by_size(const terse_search_goal *goal);
/* "the fastest network with a drop of at most 1", for people; writes and returns `text`. */
const char *terse_goal_text(const terse_search_goal *goal, char *text, unsigned long size);

/* One option's argument each; INVALID_ARGUMENT says what was found and what is allowed. */
int terse_goal_set_max_drop(terse_search_goal *goal, const char *argument, terse_error *error);
int terse_goal_set_target_ms(terse_search_goal *goal, const char *argument, terse_error *error);
int terse_goal_set_target_speedup(terse_search_goal *goal, const char *argument, terse_error *error);
int terse_goal_set_target_size(terse_search_goal *goal, const char *argument, terse_error *error);
int terse_goal_set_time(terse_search_goal *goal, const char *argument, terse_error *error);
int terse_goal_set_threads(terse_search_goal *goal, const char *argument, terse_error *error);
int terse_goal_set_batch(terse_search_goal *goal, const char *argument, terse_error *error);
int terse_goal_set_seed(terse_search_goal *goal, const char *argument, terse_error *error);

/* What was not given; and what does not go together. */
void terse_goal_init(terse_search_goal *goal);
int terse_goal_check(const terse_search_goal *goal, terse_error *error);

#endif
