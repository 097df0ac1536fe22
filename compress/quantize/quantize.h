/* SPDX-License-Identifier: Apache-2.0 */
/* quantize.h: a network of FP32 becomes one of bytes: 8-bit weights and 8-bit activations with fixed ranges.
 * Runs in: terse-compress (and the tests), between the passes PREPARE and FINISH: weights are plain.
 * Ownership: the report owns its layers; the graph is changed in place.
 *
 * The way: scheme.c (what runs on bytes) -> equalize.c -> calibrate.c (histograms of all samples, histogram.c,
 * ranges.c)
 * -> choose.c (the range that costs least) -> int8.c -> sensitivity.c (each layer alone, what stays FP32) -> bias.c ->
 * insert.c (QuantizeLinear, DequantizeLinear). What a choice costs is measured by replay.c on a few of the samples. */
#ifndef TERSE_QUANTIZE_QUANTIZE_H
#define TERSE_QUANTIZE_QUANTIZE_H

#include "common/npz.h"
#include "compress/cluster/cluster.h"
#include "compress/quantize/histogram.h"
#include "compress/quantize/round.h"
#include "compress/samples.h"

/* How products that follow each other share their ranges; the first one: whatever loses least on a few samples. */
typedef enum terse_equalization {
    TERSE_EQUALIZATION_TRIED = 0,
    TERSE_EQUALIZATION_NONE,
    TERSE_EQUALIZATION_WEIGHTS,
    TERSE_EQUALIZATION_ACTIVATIONS,
} terse_equalization;

const char *terse_equalization_name(terse_equalization equalization); /* "tried", "none", ... */

typedef struct terse_quantize_options {
    const char *source; /* the samples' file, for messages */
    /* Where it is known how, nothing is looked for that says so: no trials, and where layers are named that stay FP32,
     * no losses of layers alone. How each range is chosen and what biases become is then found on a third as many
     * samples, which tells on networks of more than about 200 million multiply-accumulates: below, both are as many as
     * are ever taken. */
    terse_equalization equalization;
    terse_calibration calibration;
    /* NULL or "auto": as measured; "none": every layer that can be runs on bytes; else node names with commas between.
     */
    const char *keep_float;
    terse_rounding rounding;                           /* of weights */
    const terse_cluster_options *cluster;              /* weights of few different integers; NULL: any */
    void (*progress)(void *context, const char *text); /* or NULL */
    void *context;
} terse_quantize_options;

typedef struct terse_quantize_layer {
    char name[96];
    terse_op op;
    char shape[64];  /* of the weights as ONNX has them */
    int64_t macs;    /* per sample */
    bool kept;       /* FP32 */
    char reason[96]; /* why it is kept, or "int8" */
    bool measured;   /* what is below was taken; the next two only where that is not told (equalization) */
    bool alone;
    double sqnr_db;           /* of the network's outputs when only this layer runs on bytes; INFINITY: equal */
    double divergence;        /* KL of output 0 (its last axis) when only this layer runs on bytes, nats per row */
    terse_calibration method; /* that found the range of its input */
    double low, high;         /* the numbers that its input can hold */
    double clipped;           /* share of the numbers seen there that it cannot, 0..1 */
} terse_quantize_layer;

enum { TERSE_QUANTIZE_WARNINGS = 8 };

typedef struct terse_quantize_report {
    terse_quantize_layer *layers; /* every product with constant weights */
    int n;
    int64_t samples;                /* that ranges were taken from */
    double sqnr_db;                 /* of the network's outputs on samples of the calibration, all choices made */
    double divergence;              /* as above */
    bool rows_known;                /* divergence was taken: output 0 has rows */
    terse_cluster_report clustered; /* with `cluster` */
    terse_rounding_report rounding; /* where more than the nearest was asked for */
    terse_equalization equalized;
    char equalization[96]; /* "none: 30.1 dB without, 29.0 with", ... */
    char warnings[TERSE_QUANTIZE_WARNINGS][256];
    int n_warnings;
} terse_quantize_report;

void terse_quantize_report_done(terse_quantize_report *report); /* accepts a zeroed one */

/* Quantizes `graph` on the samples in `data` (inputs by name, axis 0 = samples, labels optional).
 * INVALID_ARGUMENT names what is wrong with the samples or with a name to keep. */
int terse_quantize_run(terse_graph *graph, const terse_npz *data, const terse_quantize_options *options,
                       terse_quantize_report *ret_report, terse_error *error);

#endif
