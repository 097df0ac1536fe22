/* SPDX-License-Identifier: Apache-2.0 */
/* channels_last.h: what the parts of the channels-last pass share: channels_last.c (forms of values, the walk),
 * channels_last_rules.c and channels_last_moves.c (what each operator does).
 * Runs in: terse-compress.
 *
 * Design notes. A value [N,C,spatial...] of the imported graph may have a twin [N,spatial...,C]. Nodes are visited in
 * execution order. A convolution reads and makes twins always; pools, elementwise operators, Concat and so on
 * follow when most of what they read has twins already. Whoever needs the plain form of a value that exists as
 * a twin only gets a Transpose (a Reshape where just axes of size 1 move), made once per value. So Transposes stand at
 * the borders of regions only, and a Transpose of the network itself that goes from or to channels-last costs nothing.
 */
#ifndef TERSE_PASSES_CHANNELS_LAST_H
#define TERSE_PASSES_CHANNELS_LAST_H

#include "compress/passes/edit.h"

typedef struct terse_region {
    terse_edit edit;
    unsigned convolution_ranks; /* bit r: there are convolutions on tensors of rank r */
    int n;                      /* values of the graph before the pass; the arrays below have so many entries */
    int *twin;                  /* the channels-last form of a value, or -1 */
    char *native;               /* the twin costs nothing: a channels-last node makes it */
    char *plain;                /* something makes the plain form */
    int *alias;                 /* a value that is the same bytes and shape, to be read instead; or -1 */
    int *flat; /* [N, spatial * C]: the twin flattened, where the value is the flattened plain form; or -1 */
    int64_t *flat_channels;
} terse_region;

/* The number under which the plain form of `value` may be read, made when it is not there. Passes -1 on. */
int terse_region_plain(terse_region *region, int value);
/* The number of the channels-last form (rank >= 3), made when it is not there; constants are copied. */
int terse_region_twin(terse_region *region, int value);
/* A copy of a constant of rank >= 3 with its axes as in a twin. */
int terse_region_constant_twin(terse_region *region, int constant);
/* Output `slot` of `node` becomes a channels-last value: the twin of what it was. */
void terse_region_make_twin(terse_region *region, int node, int slot);
/* Where plain axis `axis` of a value of `rank` is in its twin. */
int terse_region_axis(int axis, int rank);

/* --- what the rules share (channels_last_rules.c) ------------------------------------------------------------ */

const terse_value *terse_region_value(const terse_region *region, int value);
int terse_region_rank(const terse_region *region, int value);  /* -1 for an absent value */
int terse_region_output(const terse_region *region, int node); /* output 0, or TERSE_NO_VALUE */
/* Input 0 exists as a twin that costs nothing. */
bool terse_region_has_twin(const terse_region *region, int node);
/* Inputs first..last are read in their plain form, as far as there are so many. */
void terse_region_read_plain(terse_region *region, int node, int first, int last);
/* Input 0 and output 0 become twins, the other inputs are plain. True. */
bool terse_region_follow(terse_region *region, int node);
/* Input `slot` becomes a constant of these numbers. */
void terse_region_set_ints(terse_region *region, int node, int slot, const int64_t *values, int n);

/* Rules of channels_last_moves.c: true when they rewrote the node, false when it reads plain forms. */
bool terse_region_visit_flatten(terse_region *region, int node);
bool terse_region_visit_pad(terse_region *region, int node);
bool terse_region_visit_product(terse_region *region, int node);
bool terse_region_visit_reshape(terse_region *region, int node);
bool terse_region_visit_resize(terse_region *region, int node);
bool terse_region_visit_shape(terse_region *region, int node);
bool terse_region_visit_slice(terse_region *region, int node);
bool terse_region_visit_squeeze(terse_region *region, int node);
bool terse_region_visit_transpose(terse_region *region, int node);

/* Visits one node: rewrites it for twins, or lets it read plain forms. */
void terse_region_visit(terse_region *region, int node);

#endif
