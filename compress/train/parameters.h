/* SPDX-License-Identifier: Apache-2.0 */
/* parameters.h: the numbers of a network that are trained, and how a step changes them.
 * Runs in: terse-compress. Ownership: owns all arrays; graph and options are borrowed. */
#ifndef TERSE_TRAIN_PARAMETERS_H
#define TERSE_TRAIN_PARAMETERS_H

#include "compress/train/bytes.h"

typedef struct terse_parameter {
    int value;
    int64_t first, n; /* its numbers among all */
    bool decays, trained;
    float unit; /* of a step: weights of another size are moved as much of it */
    const uint8_t *mask;
    terse_train_quantizer quantizer;
    float *rounded; /* what the network reads where there is a quantizer, else NULL */
} terse_parameter;

/* Mean and variance of a BatchNormalization: learnt from batches, not by gradients. */
typedef struct terse_statistic {
    int node, mean, variance; /* values */
    int64_t first, channels;  /* mean, then variance, among all statistics */
} terse_statistic;

typedef struct terse_parameters {
    terse_parameter *list;
    int n;
    int64_t n_numbers;
    float *weights, *first, *second, *gradient; /* [n_numbers]: masters, Adam's moments, the step's gradient */
    float *averaged;                            /* [n_numbers]: means over steps */
    terse_statistic *statistics;
    int n_statistics;
    int64_t n_statistic_numbers;
    float *running; /* [n_statistic_numbers] */
    char *trained;  /* per value, for the tape */
} terse_parameters;

int terse_parameters_new(const terse_graph *graph, const terse_train_options *options, terse_parameters *ret_parameters,
                         terse_error *error);
/* Is the value a constant that training would change, if nothing is said about it? */
bool terse_parameters_may_train(const terse_graph *graph, int value);
void terse_parameters_done(terse_parameters *p);
size_t terse_parameters_bytes(const terse_parameters *p);
/* Points a tape's constants at the numbers. */
void terse_parameters_attach(const terse_parameters *p, const terse_graph *graph, terse_tape *tape);
/* Rounds what has a quantizer. */
void terse_parameters_round(const terse_graph *graph, terse_parameters *p);
/* Adds what a tape has found to the gradient, or sets it (first). */
void terse_parameters_gather(terse_parameters *p, terse_tape *tape, bool first);
void terse_parameters_clear(const terse_parameters *p, terse_tape *tape);
/* One step of AdamW; `step` counts from 1; the gradient is cut to norm `clip` before. */
void terse_parameters_step(terse_parameters *p, int64_t step, double lr, double decay, double clip);
/* The weights of step `step` (from 1) into their means. */
void terse_parameters_average(terse_parameters *p, int64_t step, double average);
/* Weights and their means change places. */
void terse_parameters_swap(terse_parameters *p);
/* Statistics of n tapes that have run forwards in training. */
void terse_parameters_learn_statistics(terse_parameters *p, terse_tape *const *tapes, int n);
/* Writes the numbers (rounded ones where quantized) into the graph: new constants in its arena; those of `bytes` as
 * INT8. */
int terse_parameters_store(const terse_parameters *p, const terse_train_bytes *bytes, terse_graph *graph,
                           terse_error *error);

#endif
