/* SPDX-License-Identifier: Apache-2.0 */
/* lanes.h: the two halves of a batch: each with tapes of its own for teacher and student, one thread for each.
 * Runs in: terse-compress. Ownership: lanes own tapes and input buffers; graphs, samples, parameters are borrowed. */
#ifndef TERSE_TRAIN_LANES_H
#define TERSE_TRAIN_LANES_H

#include "compress/samples.h"
#include "compress/train/loss.h"
#include "compress/train/parameters.h"

enum { TERSE_LANES = 2 };

typedef struct terse_lane {
    terse_tape *teacher, *student;
    void **inputs; /* per graph input: `rows` samples */
} terse_lane;

typedef struct terse_lanes {
    const terse_graph *teacher, *student; /* unfused */
    const terse_samples *samples;
    const terse_train_options *options;
    const terse_distance *distance;
    terse_parameters *parameters;
    int64_t rows; /* samples a run */
    int n;        /* lanes in use: 1 for batches of one sample */
    size_t bytes;
    int64_t steps;     /* of training so far */
    uint64_t spent[2]; /* ns of the last steps that measured: one thread, two */
    terse_lane lanes[TERSE_LANES];
} terse_lanes;

/* As many rows a run as half a batch, max_bytes and the graphs allow. */
int terse_lanes_new(terse_lanes *l, int64_t batch, terse_error *error);
void terse_lanes_done(terse_lanes *l);

/* Samples list[0..n): forwards, the loss, and in training backwards: gradients lie in l->parameters->gradient. `key`
 * says how samples are varied (training). each[n]: how far every sample is; or NULL. */
int terse_lanes_run(terse_lanes *l, const int64_t *list, int64_t n, bool training, uint64_t key, double *each,
                    terse_distance_sum *ret_sum, terse_error *error);

/* Random numbers without state: the same for the same key. */
uint64_t terse_lanes_random(uint64_t key);

#endif
