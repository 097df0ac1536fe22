/* SPDX-License-Identifier: Apache-2.0 */
/* again.h: networks without channels that were made before. A search builds many networks on top of the same share of
 * channels, and to fit what is left of the weights takes a third of the time of each.
 * Runs in: terse-compress (and the tests). Ownership: `again` owns its graphs, with constants of their own; what is
 * found has those too, so that none of them goes before the end. Only the first few, and not too many bytes, are kept:
 * those are the shares that come again. */
#ifndef TERSE_PRUNE_AGAIN_H
#define TERSE_PRUNE_AGAIN_H

#include "compress/prune/prune.h"

enum { TERSE_PRUNE_AGAIN = 8, TERSE_PRUNE_AGAIN_BYTES = 256 << 20 }; /* networks and their constants, at most */

typedef struct terse_prune_again {
    struct terse_prune_made {
        double amount;
        const void *of; /* tells apart what was fitted to */
        terse_graph *graph;
        terse_prune_report report;
    } list[TERSE_PRUNE_AGAIN];
    int n;
    size_t bytes; /* of their constants */
} terse_prune_again;

void terse_prune_again_done(terse_prune_again *again); /* accepts a zeroed one */

/* A copy of what was kept for that amount. False: there is none, or memory is out. */
bool terse_prune_again_find(const terse_prune_again *again, double amount, const void *of, terse_graph **ret_graph,
                            terse_prune_report *ret_report);
/* Keeps a copy of that graph, constants included, where there is room. */
int terse_prune_again_keep(terse_prune_again *again, double amount, const void *of, const terse_graph *graph,
                           const terse_prune_report *report, terse_error *error);

#endif
