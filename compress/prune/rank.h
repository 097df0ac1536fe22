/* SPDX-License-Identifier: Apache-2.0 */
/* rank.h: in which order the units of a group go, by what the products that read them lose, and how much that is.
 * Runs in: terse-compress (and the tests). Ownership: everything belongs to the caller.
 *
 * A unit is a block of columns c in each reader's weights W [o][k]. With H the second moments of what a reader reads,
 * taking the block out, the others taking up what they can, costs tr(W_c ([H^-1]_cc)^-1 W_c^T); then W -= W_c
 * ([H^-1]_cc)^-1 [H^-1]_c: and H^-1 loses the block in the same way: OBS with blocks of columns that all outputs share.
 * What is left is the least-squares solution without them. A share of each reader's energy tr(W H W^T), times its
 * weight, adds up to what a unit costs. */
#ifndef TERSE_PRUNE_RANK_H
#define TERSE_PRUNE_RANK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

typedef struct terse_rank_reader {
    int64_t o, k;
    const double *w;        /* [o][k] */
    const float *moments;   /* H [k][k], or NULL: the identity, times `power` */
    const double *power;    /* per unit: how large what it hands over is; NULL: alike. Only without moments */
    const int32_t *columns; /* of unit u: columns[first[u]] to columns[first[u + 1] - 1] */
    const int32_t *first;
    double weight;
    double *lost; /* [n_units] made here: share of its energy without the first 1, 2 ... units of the order */
    float *probe; /* [o][k] made here: the weights without the first `*ret_probed` units; NULL: not wanted */
} terse_rank_reader;

/* order[n_units]: units as they go, those that cost least first. At `probe_at` or a few more removed units the probes
 * are taken. Moments that have no inverse say nothing. RESOURCE_EXHAUSTED. */
int terse_rank_units(const terse_rank_reader *readers, int n_readers, int n_units, int probe_at, int32_t *order,
                     int *ret_probed, terse_error *error);

#endif
