/* SPDX-License-Identifier: Apache-2.0 */
/* channels_last.h: what the two halves of the channels-last pass share: channels_last.c (forms of values, the walk)
 * and channels_last_rules.c (what each operator does).
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

/* Visits one node: rewrites it for twins, or lets it read plain forms. */
void terse_region_visit(terse_region *region, int node);

#endif
