/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.h: the weights of each layer become at most 2^BITS different numbers (`--cluster BITS`; of 1 bit two and
 * zero), zero among them, so that the file can hold a codebook and a short number for each weight. Runs in:
 * terse-compress (and the tests), between the passes PREPARE and FINISH: weights are plain, activations fused. With
 * --quantize int8 it runs in there, where the integers have been chosen and biases have not been corrected yet.
 * Ownership: the report owns its layers.
 *
 * The way: cluster.c walks the layers with the samples, book.c makes the codebook, assign.c gives each weight its code
 * for what the layer's outputs lose. */
#ifndef TERSE_CLUSTER_CLUSTER_H
#define TERSE_CLUSTER_CLUSTER_H

#include "common/npz.h"
#include "compress/quantize/scheme.h"
#include "compress/samples.h"
#include "compress/search/choices.h"

enum { TERSE_CLUSTER_MAX_BITS = 8 };

typedef struct terse_cluster_layer {
    char name[96];
    terse_op op;
    char shape[64]; /* of the weights as ONNX has them */
    int codes;      /* different numbers, zero among them; 0: not clustered */
    double entropy; /* bits that a code takes at least */
    double sqnr_db; /* of the layer's output on the samples, of the weights without them; what clustering alone costs */
    char reason[96];
} terse_cluster_layer;

typedef struct terse_cluster_report {
    int bits;        /* 0: not asked for */
    int64_t samples; /* 0: without data */
    terse_cluster_layer *layers;
    int n;
} terse_cluster_report;

void terse_cluster_report_done(terse_cluster_report *report); /* accepts a zeroed one */

typedef struct terse_cluster_options {
    int bits;                                          /* 1..8 */
    const terse_choices *choices;                      /* bits of layers, in the place of `bits`; or NULL */
    bool entropy;                                      /* codes will be entropy-coded: frequent ones are cheaper */
    void (*progress)(void *context, const char *text); /* or NULL */
    void *context;
} terse_cluster_options;

/* Clusters the FP32 weights of every product of `graph`, in place; with `data` (or NULL: inputs by name, axis 0 =
 * samples) for what the products give on the samples, and with biases that take up the means. */
int terse_cluster_run(terse_graph *graph, const terse_npz *data, const terse_cluster_options *options,
                      terse_cluster_report *ret_report, terse_error *error);

/* The same of INT8 weights: the integers of the scheme's products and the numbers that they stand for (`weights`, per
 * node) are changed, scales stay. */
int terse_cluster_int8(const terse_graph *graph, const terse_samples *samples, const terse_scheme *scheme,
                       const terse_affine *affine, terse_int8_weights *int8, float **weights,
                       const terse_cluster_options *options, terse_cluster_report *ret_report, terse_error *error);

#endif
