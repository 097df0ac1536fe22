/* SPDX-License-Identifier: Apache-2.0 */
/* train.h: a network trained to answer as another one does, on samples without labels.
 * Runs in: terse-compress (and the tests). Ownership: the caller owns graphs, samples and everything that options point
 * to; all must stay until the call returns. The teacher is only read.
 *
 * Sources: knowledge distillation at temperature T, loss T^2 KL(teacher || student) (Hinton et al., arXiv:1503.02531,
 * section 2); outputs that are no classes, and features in between, by mean squared error over the teacher's mean
 * square (Romero et al., arXiv:1412.6550, equation 3); Adam (Kingma and Ba, arXiv:1412.6980, algorithm 1) with
 * decoupled decay and a cosine schedule (Loshchilov and Hutter, arXiv:1711.05101 and 1608.03983); fake quantization
 * with straight-through gradients (Jacob et al., arXiv:1712.05877, section 3); mixed samples (Zhang et al.,
 * arXiv:1710.09412; Beyer et al., arXiv:2106.05237).
 *
 * Bits: a batch is always cut in two halves whose gradients are added in that order, one thread for each, so a result
 * does not depend on the number of threads. With `epochs` alone it depends on graphs, samples, options and seed only;
 * with `seconds` also on how fast the machine is. */
#ifndef TERSE_TRAIN_TRAIN_H
#define TERSE_TRAIN_TRAIN_H

#include "common/npz.h"
#include "compress/prune/kept.h"
#include "compress/train/tape.h"

/* Weights as bytes or less would have them: round(w / scale) cut to -127..127 (bits 8) or -8..7 (bits 4), times scale.
 */
typedef struct terse_train_quantizer {
    int bits;            /* 0: FP32; 4 or 8 */
    int axis;            /* of the channels that have a scale each: 0 for Conv, 1 for [K,N]; -1: one for all */
    int64_t group;       /* 0: whole channels; else entries along the other axis of a matrix that share a scale */
    const float *scales; /* NULL: from the largest magnitude at every step; else [channels], or [groups][channels] */
} terse_train_quantizer;

/* What is said about one constant of the student. Those that nothing is said about are trained where they are weights,
 * biases, scales per channel or rows of an embedding. */
typedef struct terse_train_parameter {
    int value;           /* its number in the student */
    bool frozen;         /* keeps its numbers (but may be quantized) */
    const uint8_t *mask; /* per element: 0 stays zero (pruned); NULL: all are trained */
    terse_train_quantizer quantizer;
} terse_train_parameter;

typedef struct terse_train_progress {
    int64_t epoch, epochs; /* epochs: 0 where time decides */
    int64_t step, steps;   /* of this epoch */
    double seconds, left;  /* so far; estimated, -1 while unknown */
    double loss;           /* mean over the epoch so far */
    double samples_per_second;
    bool evaluated;    /* an epoch has just ended: the following are new */
    double agreement;  /* held-out: share of equal largest outputs; 1 - relative error where there are no classes */
    double divergence; /* held-out: KL in nats plus relative error */
    double best_agreement;
    size_t bytes; /* what training takes beside graphs and samples */
    int64_t samples, held_out;
} terse_train_progress;

/* Called before the first step, about ten times a second, and behind every epoch. false: stop, the best so far counts.
 */
typedef bool terse_train_report(void *context, const terse_train_progress *progress);

typedef struct terse_train_options {
    int64_t epochs;     /* at most; 0: `seconds` decides */
    double seconds;     /* at most; 0: `epochs` decides */
    int64_t stop;       /* ends behind that epoch, as if it had been stopped there; 0: does not */
    int64_t batch;      /* samples a step; 0: 32, or what follows from `steps` */
    int64_t steps;      /* that a training should have; with fewer a step is of fewer than 32 samples, down to 8; 0: any
                         * number will do. Not looked at where `batch` is given */
    double lr;          /* at its highest; 0: 1e-3 */
    bool relative;      /* weights move as much of their own size, not all alike */
    bool find_rate;     /* a third, 3 and 10 times `lr` are tried for a few steps too, and what leaves held-out samples
                         * closest is taken: the rate and the weights that it led to */
    double temperature; /* 0: 2 */
    double decay;       /* of weights with two axes and more, decoupled; default 0 */
    double clip;        /* largest norm of the gradient; 0: 1 */
    double warm_up;     /* share of the training until lr is reached; 0: 0.05 */
    double average;     /* what is judged and kept is the mean of the weights, older ones counting `average` a step less
                         * (Polyak and Juditsky 1992; at most (1 + step) / (10 + step)); 0: the weights */
    double features;    /* weight of the squared error of features; 0: none */
    const terse_kept *kept; /* features with fewer channels than the teacher's are compared with those; or NULL */
    uint64_t seed;
    double tolerance;      /* weights of a later epoch are kept unless held-out samples are farther by more standard
                              errors than this (paired, sample by sample) than they were at the least; 0: only those of
                              the closest epoch */
    int64_t patience;      /* epochs without a better held-out agreement or divergence until it ends; 0: never early */
    double patience_share; /* the same as a share of the whole training (and five epochs), a third of it lowers the
                              rate; 0: never */
    bool batch_statistics; /* BatchNormalization trains by its batch and learns its constants */
    bool flip;             /* mirror images [N,C,H,W] left to right, half of them */
    int shift;             /* move them by up to this many pixels, zeros from outside */
    bool mix;              /* half of the samples become mixtures with another one */
    int n_threads;         /* 1 or 2; 0: what is measured to be faster */
    size_t max_bytes;      /* 0: no limit; else fewer samples run at a time */
    const terse_train_parameter *parameters;
    int n_parameters;
    const terse_train_affine *affine; /* per value of the student: fake quantizers of activations; NULL: none */
    const char *checkpoint;           /* file written behind every epoch; NULL: none */
    bool resume;                      /* go on from there when the file exists */
} terse_train_options;

typedef struct terse_train_summary {
    int64_t epochs, steps, samples, held_out;
    double seconds, samples_per_second; /* of training alone */
    double agreement_before, agreement; /* held-out; `agreement` of what was kept */
    double divergence_before, divergence;
    int64_t parameters; /* numbers that were trained */
    int n_features;     /* pairs of features that were compared */
    size_t bytes;
    bool stopped, early;       /* by the report; by patience */
    char frozen[400];          /* operators without a gradient on the way: "Floor 'n3', ..."; "" when none */
    int64_t frozen_parameters; /* numbers that no gradient reaches */
} terse_train_summary;

/* In which order samples are dealt out: order[n], the last *ret_held of which are never trained on. Whoever fits
 * weights before they are trained should leave those out too: they would not tell what is unseen. */
void terse_train_split(int64_t n, uint64_t seed, int64_t *order, int64_t *ret_held);

/* Trains `student` on `data` (every input under its name, axis 0 = samples; labels are not read) and changes its
 * constants in place: new bytes in its arena, never through pointers that the teacher may share. What is kept is what
 * diverged least on held-out samples (a tenth of all, never trained on), the student as it came included; see
 * tolerance. Both graphs: canonical ONNX form, before the passes FINISH (fused activations are understood); same
 * inputs, outputs of equal dims in the same order. On failure the student is as it was. INVALID_ARGUMENT names the
 * input, output, option or sample that does not fit; UNIMPLEMENTED the node; RESOURCE_EXHAUSTED when max_bytes does not
 * allow a single sample. */
int terse_train_recover(const terse_graph *teacher, terse_graph *student, const terse_npz *data,
                        const terse_train_options *options, terse_train_report *report, void *context,
                        terse_train_summary *ret_summary, terse_error *error);

#endif
