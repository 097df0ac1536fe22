/* SPDX-License-Identifier: Apache-2.0 */
/* couple.h: which channels of a network hang together, and what is left of the network without some of them.
 * Runs in: terse-compress (and the tests), between the passes PREPARE and FINISH. Ownership: a couple owns its tables
 * and borrows the graph, which terse_couple_cut changes; the couple is of no use behind that.
 *
 * Every value of which one axis is understood as channels has a label for each of them. A product makes labels of its
 * own; what passes numbers on hands labels on (couple_rules.c); where two are added, multiplied, or tied in groups,
 * their labels become one (union-find). A unit is what is left: channels all over the network that go or stay together.
 * Labels are pinned, with a reason, where the graph's inputs and outputs have them and where an operator mixes channels
 * in a way that does not let them go. A channel that is gone is worth nothing to those who read it, as if their weights
 * for it were zero: what it was between does not matter. */
#ifndef TERSE_PRUNE_COUPLE_H
#define TERSE_PRUNE_COUPLE_H

#include "compress/passes/edit.h"

typedef struct terse_channels {
    int axis; /* -1: not understood */
    int64_t n;
    int32_t *labels;
} terse_channels;

typedef struct terse_couple {
    const terse_edit *edit;
    terse_arena *arena;
    terse_channels *values; /* per value of the graph as it was: more may have been added */
    int n_values;
    int32_t *parent, *pin; /* per label: union-find; of a root: index of the reason, -1: may go */
    int32_t *group;        /* per label: union-find of those that one product makes */
    int32_t n_labels, room;
    const char **reasons;
    int n_reasons, reasons_room;
    bool failed; /* memory is out */
} terse_couple;

/* `edit` is an open one of a checked graph. done is due only behind TERSE_OK. */
int terse_couple_open(const terse_edit *edit, terse_couple *ret_couple, terse_error *error);
void terse_couple_done(terse_couple *couple); /* accepts a zeroed one */

int32_t terse_couple_unit(const terse_couple *couple, int32_t label);   /* the label that stands for its unit */
int32_t terse_couple_group(const terse_couple *couple, int32_t label);  /* and for all that the same products make */
const char *terse_couple_pin(const terse_couple *couple, int32_t unit); /* why it stays; NULL: it may go */

/* The weights of a node as labels see them: axes of input 1 that run over what it reads and makes; -1: none does. A
 * convolution of several groups reads the labels of its first group's channels (all groups' are tied). */
typedef struct terse_couple_role {
    int in_axis, out_axis;
    int64_t groups;
    bool depthwise; /* a channel for itself: reads and makes the same labels */
} terse_couple_role;

/* False: it has no weights of its own that are constant. */
bool terse_couple_role_of(const terse_edit *edit, int node, terse_couple_role *ret_role);

/* gone[label] of units. Keeps at least one channel of every value: the first of those that would all go. */
void terse_couple_repair(const terse_couple *couple, bool *gone);
/* Channels of `value` that stay. */
int64_t terse_couple_left(const terse_couple *couple, const bool *gone, int value);
/* Takes the units out of the graph of `edit`, the one that the couple was opened with. */
void terse_couple_cut(terse_couple *couple, const bool *gone, terse_edit *edit);

/* --- couple.c for couple_rules.c and cut.c ------------------------------------------------------------------------ */

/* `n` new labels, of a group of their own; -1 when memory is out. */
int32_t terse_couple_new(terse_couple *couple, int64_t n);
void terse_couple_unite(terse_couple *couple, int32_t a, int32_t b);
/* Those of the value stay. */
void terse_couple_pin_value(terse_couple *couple, int value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What the node's outputs have, from what its inputs have. */
void terse_couple_node(terse_couple *couple, int node);
/* The axis of `to` on which the channels of `from` lie behind a Reshape, -1: none. Label i of it is label (i / ret_each
 * % n) of `from`, or, where the axis is shorter than n, stands for all that are its length apart. */
int terse_couple_reshaped(const terse_value *from, int axis, const terse_value *to, int64_t *ret_each);

#endif
