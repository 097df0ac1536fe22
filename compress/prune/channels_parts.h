/* SPDX-License-Identifier: Apache-2.0 */
/* channels_parts.h: what channels.c, channels_order.c and channels_choose.c share; nobody else includes it.
 * Runs in: terse-compress. Ownership: the plan of channels.c owns everything. */
#ifndef TERSE_PRUNE_CHANNELS_PARTS_H
#define TERSE_PRUNE_CHANNELS_PARTS_H

#include "compress/prune/channels.h"

enum { CHANNEL_LEAST = 8 }; /* that are left of a group, and of each side of a layer */

/* A node with weights of its own. */
typedef struct channel_layer {
    int node;
    terse_couple_role role;
    bool product;   /* one that the walk can measure */
    int64_t o, k;   /* the matrix that units are columns of */
    int64_t taps;   /* columns of a channel */
    double macs;    /* of a sample, as it is */
    float *moments; /* [k][k] of what it reads, or NULL */
    bool spilled;   /* they lie in a file (compress/spill.h) */
    double *mean;   /* [k] with them */
} channel_layer;

/* A layer that reads units of a group. */
typedef struct channel_reader {
    int layer;
    double *lost; /* [n_units] */
    float *probe; /* in the walk's order, and the bias that goes with it; NULL */
    float *probe_bias;
    double weight; /* what the network's outputs lose for a share of this layer's that is lost */
} channel_reader;

/* Channels that a layer has on one side, without the first r units of a group. */
typedef struct channel_touch {
    int layer;
    bool out;
    int32_t *without; /* [n_units + 1] */
} channel_touch;

/* Units that the same products make. */
typedef struct channel_group {
    int32_t label;
    int n_units, n_fixed; /* that may go; that are pinned */
    int32_t *units;       /* labels; in the order in which they go, once that is known */
    int step, least;      /* channels that are left: multiples of step units, at least so many */
    channel_reader *readers;
    int n_readers;
    channel_touch *touches;
    int n_touches;
    const double *cost; /* [n_units + 1] without the first r units */
    int chosen;         /* units that go */
} channel_group;

typedef struct channel_plan {
    terse_channels_choice *choice;
    const terse_prune_options *options;
    const terse_samples *samples;
    int64_t n_samples;
    channel_layer *layers;
    int n_layers;
    channel_group *groups;
    int n_groups;
    int32_t *unit_group, *unit_index; /* per label of a unit that may go; -1 */
    terse_arena *arena;
} channel_plan;

/* channels.c: zeroed, as long as the plan; NULL: memory is out. */
void *channel_plan_room(channel_plan *plan, size_t count, size_t size);
/* The labels on one side of a layer; *ret_n 0: none. */
const int32_t *channel_layer_labels(const channel_plan *plan, const channel_layer *layer, bool out, int64_t *ret_n);
/* channels_order.c: the order of all groups' units, and what their readers lose. */
int channel_plan_order(channel_plan *plan, terse_error *error);
/* channels_choose.c: fills `chosen` of all groups. */
int channel_plan_choose(channel_plan *plan, double amount, double *ret_before, double *ret_after, terse_error *error);

#endif
