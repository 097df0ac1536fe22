/* SPDX-License-Identifier: Apache-2.0 */
/* mixed.h: which products keep 8 bits where the others' weights become 4, `--keep-int8`.
 * Runs in: terse-compress (and the tests), between the passes PREPARE and FINISH: weights are plain.
 * Ownership: a terse_mixed owns its names; the graph is only read. */
#ifndef TERSE_QUANTIZE_MIXED_H
#define TERSE_QUANTIZE_MIXED_H

#include "common/npz.h"
#include "compress/passes/edit.h"

/* The products, by name: numbers of nodes do not outlive the passes. */
typedef struct terse_mixed {
    char **names;
    int n, of;       /* of how many that could become 4 bits */
    double more;     /* bytes of weights and scales beside those of 4 bits alone, as a share of these */
    double lost;     /* KL in nats, or noise over signal, summed over products tried alone; 0: not measured */
    double lost_all; /* the same with none kept */
    bool classes;    /* it is KL */
    bool automatic;  /* chosen by that */
} terse_mixed;

/* `text`: "none", names of products with commas between (a name stands also for "name/..."), or "auto" (and NULL; also
 * as one of the names): then, with samples, those that cost most for their bytes, as long as what the others cost is
 * not next to nothing, and for at most a fifth more bytes. INVALID_ARGUMENT for a name that no product has. */
int terse_mixed_choose(const terse_graph *graph, int group, const char *text, const terse_npz *data,
                       void (*progress)(void *context, const char *text), void *context, terse_mixed *ret_mixed,
                       terse_error *error);
void terse_mixed_done(terse_mixed *mixed); /* accepts a zeroed one */

/* Does the product of that name keep 8 bits? NULL: none does. */
bool terse_mixed_keeps(const terse_mixed *mixed, const char *name);

/* Will --quantize int4-weights (or, `bits` 8, int8-weights) take the weights of this constant? Those that something
 * else than such products reads stay as they are. */
bool terse_mixed_takes(const terse_graph *graph, int value, int bits);

#endif
