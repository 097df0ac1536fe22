/* SPDX-License-Identifier: Apache-2.0 */
/* keep.h: which layers stay at FP32: those that are named, or those whose bytes cost more than they save.
 * Runs in: terse-compress (and the tests). Owns nothing. */
#ifndef TERSE_QUANTIZE_KEEP_H
#define TERSE_QUANTIZE_KEEP_H

#include "common/graph/graph.h"

/* `option` ("--keep-float"): sets kept[node] for the layers named in `text` (node names with commas between; a name
 * stands also for what was made of that layer, "name/..."). "none" names nobody; NULL and "auto" set *ret_auto, also as
 * one of the names. INVALID_ARGUMENT for a name that no layer has, with the names nearest to it. */
int terse_keep_named(const terse_graph *graph, const char *option, const char *text, bool *kept, bool *ret_auto,
                     terse_error *error);

/* One layer that could be kept. */
typedef struct terse_keep_candidate {
    int node;
    double noise;       /* noise over signal at the outputs when only this layer runs on bytes */
    double work;        /* its share of all multiply-accumulates */
    bool first, last;   /* nothing on bytes stands in front of it, behind it */
    bool kept;          /* in, out */
    const char *reason; /* out */
} terse_keep_candidate;

/* Keeps the layers whose bytes pay least: see keep.c. `total` is noise over signal with all of them on bytes. */
void terse_keep_choose(terse_keep_candidate *candidates, int n, double total);

#endif
