/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint.h: the state of a training in a file, so that it can go on with the same bits.
 * Runs in: terse-compress. Ownership: a state borrows the parameters and owns `best`.
 *
 *     0   "TERSETRN", u32 version = 4, u32 zero, XXH3-64 of what follows, key (XXH3-64 of graphs, samples, options)
 *     32  state's numbers, then weights, first and second moments, averages,
 *         statistics, best weights, best statistics, and how far held-out samples were at the least */
#ifndef TERSE_TRAIN_CHECKPOINT_H
#define TERSE_TRAIN_CHECKPOINT_H

#include "compress/train/parameters.h"

typedef struct terse_train_marks {
    int64_t epoch, step, bad_epochs; /* done so far; epochs without a better one */
    double seconds, train_seconds, trained_samples;
    double rate;       /* that was taken, as a multiple of `lr` */
    double good_share; /* of the whole training, when there was a better epoch last */
    int64_t cuts;      /* how often the rate was lowered since it was chosen ... */
    double cut_share;  /* ... and when that was last */
    double agreement_before, divergence_before, most_agreement, least_divergence; /* held-out */
    double best_agreement, best_divergence;                                       /* of what is kept */
} terse_train_marks;

typedef struct terse_train_state {
    terse_train_marks marks;
    terse_parameters *parameters;
    float *best;   /* [n_numbers + n_statistic_numbers] */
    double *least; /* [n_held] of every held-out sample, where all together were closest */
    int64_t n_held;
    uint64_t key;
} terse_train_state;

int terse_checkpoint_write(const char *path, const terse_train_state *state, terse_error *error);
/* NOT_FOUND when there is no such file; INVALID_ARGUMENT when it is damaged or of another training: then the state is
 * as it was. */
int terse_checkpoint_read(const char *path, terse_train_state *state, terse_error *error);

#endif
