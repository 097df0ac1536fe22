/* SPDX-License-Identifier: Apache-2.0 */
/* search.h: finds for each layer what it becomes, so that the network reaches a goal: `terse compress --max-drop`,
 * `--target-ms`, `--target-size`, `--target-speedup`.
 * Runs in: terse-compress (and the tests). Ownership: the caller owns networks and files and lends them by hooks.
 *
 * Design notes. Dense networks are built and measured first: FP32, int8. Of the faster one (or of int8, for few bytes)
 * a table says what each layer could become (table.h). A knapsack over it (knapsack.h) gives, for any budget of time or
 * bytes, the choice that should lose least; the table's losses add up only roughly, so each network that counts is
 * really built, judged on samples that nothing was fitted to (judge.h) and timed beside the dense one. Whole channels
 * are a property of the plan, in front of what layers become: how much they bring is found by building a few (for speed
 * before there is a table), and the knapsack is solved on top of each share that is worth a look (channels.c). Single
 * techniques are tried by themselves: they are what the search has to beat. Before them where bytes or a drop are asked
 * for, behind them where a speed is, come all together: by bisection over budgets, or for a target by correcting what
 * is predicted by what was measured (aim.h). Then, until time is up or nothing better comes, variants of the best one,
 * found by knapsacks over losses multiplied by lots and compared by running the network with those weights put
 * together. In the last third of the time networks that lose more than they may are trained against the original
 * (train.c), on the samples that are fitted to: for a speed the most promising of those that have it, and where none
 * has it, of those that miss it by little. What is best so far is written each time, and nothing that was trained
 * counts before it was judged. */
#ifndef TERSE_SEARCH_SEARCH_H
#define TERSE_SEARCH_SEARCH_H

#include "compress/quantize/quantize.h"
#include "compress/search/goal.h"
#include "compress/search/plan.h"

typedef struct terse_search_hooks {
    void *context;
    /* Builds what the plan says and keeps what it measured for kernels in it. The graph is good until the next call. */
    int (*build)(void *context, terse_search_plan *plan, const terse_graph **ret_graph, terse_error *error);
    /* The share of the work that would really go with channels, *ret_gone, without building anything: channels go by
     * the dozen, so many amounts make the same network. False: not known yet (before one was built). Or NULL. */
    bool (*foresee)(void *context, double amount, double *ret_gone);
    /* Bytes of the file that the last one would be, and of its constants in memory. */
    int (*size)(void *context, int64_t *ret_bytes, int64_t *ret_memory, terse_error *error);
    /* The last one's graph stays until the search ends; with what int8 alone costs each layer, or NULL. */
    int (*hold)(void *context, const terse_graph **ret_graph, const terse_quantize_report **ret_int8,
                terse_error *error);
    /* The last one is the best so far: it stays until there is a better one. */
    int (*keep)(void *context, terse_error *error);
    /* Writes the best one's plan and, where it reaches the goal, its file. */
    int (*write)(void *context, const terse_search_plan *plan, bool reached, terse_error *error);
    void (*progress)(void *context, const char *text);
    bool (*stopped)(void *context); /* somebody wants it to end */
} terse_search_hooks;

typedef struct terse_search_input {
    const terse_graph *imported, *prepared; /* the second: behind the passes PREPARE, with biases */
    const terse_npz *fit, *held;
    const terse_search_goal *goal;
    const char *of; /* what is measured, for the plan: network, batch, threads */
    bool pack;
    int held_out;                   /* of how many samples one is in `held` */
    const terse_search_plan *known; /* measured before: networks in it are not built again; or NULL */
} terse_search_input;

/* Is a part of the time for training what was compressed? */
bool terse_search_trains(const terse_search_goal *goal);

/* *ret_plan: the best one, with everything that was measured. *ret_reached false: nothing reaches the goal, the plan is
 * of the nearest. */
int terse_search_run(const terse_search_input *input, const terse_search_hooks *hooks, terse_search_plan *ret_plan,
                     bool *ret_reached, terse_error *error);

#endif
