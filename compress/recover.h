/* SPDX-License-Identifier: Apache-2.0 */
/* recover.h: `terse compress ... --recover`: what low rank, pruning and rounding have lost is won back by training the
 * compressed network against the one that it was made of, on samples without labels.
 * Runs in: terse-compress, between the passes PREPARE and FINISH. Ownership: the graph is changed in place, new bytes
 * go into its arena; teacher, samples and everything that options point to are borrowed. */
#ifndef TERSE_COMPRESS_RECOVER_H
#define TERSE_COMPRESS_RECOVER_H

#include "compress/quantize/mixed.h"
#include "compress/train/train.h"

typedef struct terse_recover_options {
    const char *text;       /* as given */
    int64_t epochs;         /* 0: time decides; both 0: not asked for */
    double seconds;         /* 0: epochs decide */
    const char *checkpoint; /* NULL: none; the training of rounded weights has ".rounded" behind it */
    bool resume;
    bool off; /* "none": not even where a search would */
    uint64_t seed;
    size_t max_bytes; /* that training may take; 0: no limit */
    int64_t stop;     /* ends behind that epoch; 0: does not */
    terse_train_report *report;
    void *context;
} terse_recover_options;

typedef struct terse_recovered {
    bool floats, rounded; /* which trainings there were */
    terse_train_summary of_floats, of_rounded;
} terse_recovered;

/* EPOCHS ("3"), TIME ("90s", "10m", "2h") or "none". */
int terse_recover_parse(const char *text, terse_recover_options *options, terse_error *error);

/* Which weights are zero, by the names of the nodes that read them. */
typedef struct terse_recover_zeros {
    struct terse_recover_mask *list;
    int n;
} terse_recover_zeros;

/* Those of products of which a tenth or more are zero (`pruned`: any are). */
int terse_recover_zeros_find(const terse_graph *graph, bool pruned, terse_recover_zeros *ret_zeros, terse_error *error);
void terse_recover_zeros_done(terse_recover_zeros *zeros); /* accepts a zeroed one */

/* In which form the weights are trained. */
typedef struct terse_recover_form {
    bool rounded;  /* small steps: INT8 weights of terse_quantize_run with the scales that they have, or, ... */
    int bits;      /* ... with 8 or 4, FP32 ones as --quantize int8-weights or int4-weights will round them; else 0 */
    int64_t group; /* of 4 bits */
    const terse_mixed *mixed; /* products that keep 8 where the others take 4; or NULL */
    const terse_kept *kept;   /* channels that are left of what the teacher has; NULL: all */
} terse_recover_form;

/* Trains `graph` for `share` of what the options give. Zeros stay zero, factors stay factors. */
int terse_recover_run(const terse_graph *teacher, terse_graph *graph, const terse_npz *data,
                      const terse_recover_zeros *zeros, const terse_recover_form *form, double share,
                      const terse_recover_options *options, terse_train_summary *ret_summary, terse_error *error);

#endif
