/* SPDX-License-Identifier: Apache-2.0 */
/* loss.h: how far a student's answers are from its teacher's, and the gradient of that.
 * Runs in: terse-compress. Ownership: a loss owns its list of pairs. */
#ifndef TERSE_TRAIN_LOSS_H
#define TERSE_TRAIN_LOSS_H

#include "compress/prune/kept.h"
#include "compress/train/tape.h"

typedef struct terse_loss_pair {
    int teacher, student; /* values */
    bool classes;         /* logits along the last axis: KL; else squared error */
    bool feature;
    const terse_kept_value *kept; /* the teacher's channels that the student has; NULL: all */
    double weight;
    char name[128];
} terse_loss_pair;

typedef struct terse_distance {
    terse_loss_pair *pairs;
    int n, n_features;
    char *of_teacher, *of_student; /* per value: targets for tapes */
} terse_distance;

typedef struct terse_distance_sum {
    double loss;              /* weighted; over samples */
    double divergence, error; /* of the outputs: KL at temperature 1 per row, relative squared error */
    int64_t same, rows;       /* equal largest outputs */
    int64_t n_errors;
    double *each; /* of every sample that counts: its part of both is added; NULL: not wanted */
} terse_distance_sum;

/* Pairs outputs (behind a Softmax or LogSoftmax its input is taken) and, with features > 0, values of equal name in
 * between, of equal dims or with those of the teacher's channels that `kept` (borrowed; or NULL) names.
 * INVALID_ARGUMENT where signatures differ. */
int terse_distance_new(const terse_graph *teacher, const terse_graph *student, double features, const terse_kept *kept,
                       terse_distance *ret_distance, terse_error *error);
void terse_distance_done(terse_distance *d);
/* Compares what two tapes have computed for `rows` samples, of which the first `counted` count, and adds up.
 * share > 0: adds the gradient of share * loss to the student's. INVALID_ARGUMENT when dims differ. */
int terse_distance_add(const terse_distance *d, const terse_tape *teacher, terse_tape *student, int64_t rows,
                       int64_t counted, double temperature, double share, terse_distance_sum *sum, terse_error *error);

#endif
