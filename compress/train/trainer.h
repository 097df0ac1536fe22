/* SPDX-License-Identifier: Apache-2.0 */
/* trainer.h: one training on its way, shared by the files that it is made of; nobody else includes it.
 * Runs in: terse-compress. Ownership: train.c's trainer owns everything but what the options point to.
 *
 * train.c: epochs, what is kept, what is told; prepare.c: what is there before the first step; rates.c: how large the
 * steps are. */
#ifndef TERSE_TRAIN_TRAINER_H
#define TERSE_TRAIN_TRAINER_H

#include "compress/train/checkpoint.h"
#include "compress/train/lanes.h"
#include "compress/train/train.h"

typedef struct terse_trainer {
    terse_train_options options;
    terse_graph *teacher, *student; /* unfused copies */
    terse_samples samples;
    terse_train_bytes bytes;     /* the student's INT8 weights */
    terse_train_parameter *said; /* what the options say about weights, and what follows from the bytes */
    terse_distance distance;
    terse_parameters parameters;
    terse_lanes lanes;
    terse_train_state state;
    int64_t *order; /* of all samples: those to train on, then those held out */
    int64_t n_train, n_held;
    double *held; /* [n_held] how far each of them is now */
    terse_train_report *report;
    void *context;
    uint64_t started_ns, reported_ns;
    double seconds_before; /* of the part that a checkpoint has */
    terse_train_progress progress;
    bool stopped, early;
} terse_trainer;

/* --- prepare.c ---------------------------------------------------------------------------------------------------- */

int terse_trainer_take_options(terse_trainer *t, const terse_train_options *from, terse_error *error);
/* Everything that training needs, but for the options. */
int terse_trainer_prepare(terse_trainer *t, const terse_graph *teacher, const terse_graph *student,
                          const terse_npz *data, terse_error *error);

/* --- train.c ------------------------------------------------------------------------------------------------------ */

void terse_trainer_shuffle(int64_t *list, int64_t n, uint64_t key);
/* Is this share of the time over? */
bool terse_trainer_is_late(const terse_trainer *t, double share);
/* How far the training is, 0 to 1. */
double terse_trainer_done_share(const terse_trainer *t);
void terse_trainer_tell(terse_trainer *t, bool now);
int terse_trainer_evaluate(terse_trainer *t, double *ret_agreement, double *ret_divergence, terse_error *error);
/* Keeps the weights that have just been evaluated if all held-out samples together are closer than ever, or no more
 * than `tolerance` standard errors farther than that. */
bool terse_trainer_keep(terse_trainer *t, double agreement, double divergence, double tolerance);
/* The means of the weights in their place, or the other way round, where they are wanted. */
void terse_trainer_use_averages(terse_trainer *t);
/* One batch, forwards and backwards, and what follows from it. */
int terse_trainer_step(terse_trainer *t, const int64_t *batch, uint64_t key, double rate, double *ret_loss,
                       terse_error *error);

/* --- rates.c ------------------------------------------------------------------------------------------------------ */

/* When `share` of the training is done. */
double terse_trainer_rate(const terse_train_options *options, double share);
/* Has it not become better for as long as the options bear? */
bool terse_trainer_is_enough(const terse_trainer *t);
/* Where nothing has become better for a third of the patience, the rate is too high for what is there: back to the best
 * weights, and smaller steps from there. */
void terse_trainer_slow_down(terse_trainer *t);
/* A few steps with lr, 3 lr, a third of it and 10 lr: that which leaves the held-out samples closest is taken, and the
 * training goes on from there: what was spent on it is not lost. Steps, not seconds, decide, but not beyond a part of
 * the time; where a quarter of it is over before one was tried, the careful one is taken. */
int terse_trainer_find_rate(terse_trainer *t, int64_t *order, terse_error *error);

#endif
