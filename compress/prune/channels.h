/* SPDX-License-Identifier: Apache-2.0 */
/* channels.h: `--prune AMOUNT:channels`: which channels of a network go, so that AMOUNT of its multiply-accumulates do.
 * Runs in: terse-compress (and the tests). Ownership: a choice holds an open edit of the graph, which must not be
 * changed by others until terse_channels_finish or terse_channels_done.
 *
 * The way: couple.c (what hangs together) -> channels.c (which layers have it) -> channels_order.c and rank.c (in which
 * order the units of each group go, what its readers lose, how that weighs at the network's outputs) ->
 * channels_choose.c (how many of each group) -> prune.c (readers are fitted to what is left) -> cut.c (the smaller
 * network). */
#ifndef TERSE_PRUNE_CHANNELS_H
#define TERSE_PRUNE_CHANNELS_H

#include "compress/low_rank/steps.h"
#include "compress/prune/couple.h"
#include "compress/prune/prune.h"

typedef struct terse_channels_choice {
    bool open;
    terse_edit edit;
    terse_couple couple;
    bool *gone;                     /* per label: of units that go */
    double macs_before, macs_after; /* of products, a sample */
} terse_channels_choice;

/* In which order the units of each group go, and what is lost without the first of them: the same for every amount that
 * is taken of a network on the same samples. Whoever tries many lends it (options->orders): the first one fills it. */
typedef struct terse_channels_order {
    int n_units;
    int32_t *units;
    double *cost; /* [n_units + 1] */
} terse_channels_order;

typedef struct terse_channels_orders {
    terse_channels_order *groups;
    int n; /* 0: not filled */
} terse_channels_orders;

void terse_channels_orders_done(terse_channels_orders *orders); /* accepts a zeroed one */

/* samples NULL: by size alone. */
int terse_channels_choose(terse_graph *graph, const terse_samples *samples, int64_t n_samples,
                          const terse_prune_options *options, terse_channels_choice *ret_choice, terse_error *error);
void terse_channels_done(terse_channels_choice *choice); /* accepts a zeroed one */
/* Closes the edit: the graph is what it has become. done is due all the same. */
int terse_channels_finish(terse_channels_choice *choice, terse_error *error);

/* keep[k]: what of the product's inputs is left. Returns how many are not. */
int64_t terse_channels_keep(const terse_channels_choice *choice, const terse_low_rank_product *product, bool *keep);
/* The weights [o][k] that do best with what is left of the inputs, by least squares, for `target` in the metric `cov`
 * [k][k] (NULL: target itself without them), and the share of the output's energy that they lose (-1 without cov). */
int terse_channels_fit(const double *target, const double *cov, int64_t o, int64_t k, const bool *keep, double *ret_w,
                       double *ret_lost, terse_error *error);
/* Weights of nodes that are no products (grouped and transposed convolutions) with zeros for what they no longer read:
 * weights[node] in `arena`, for the walk. */
int terse_channels_disguise(const terse_channels_choice *choice, terse_arena *arena, float **weights,
                            terse_error *error);
/* Fills the line of a weighted node: what is left of it, and why not less. True: something is gone. */
bool terse_channels_line(const terse_channels_choice *choice, int node, terse_prune_layer *line);
/* Values of which channels are gone, before the choice is finished. */
int terse_channels_kept(const terse_channels_choice *choice, terse_kept *ret_kept, terse_error *error);

#endif
