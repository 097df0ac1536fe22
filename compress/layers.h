/* SPDX-License-Identifier: Apache-2.0 */
/* layers.h: what compression did to each layer: stored bytes, work, error of its output, time.
 * Runs in: terse-compress (and the tests), with --validate. Ownership: a report owns its layers.
 *
 * A layer is a node with constant weights in the network that the exact passes alone give. In the compressed network it
 * is every node whose name is the layer's, or the layer's with something behind a '/' (the factors of low rank). */
#ifndef TERSE_COMPRESS_LAYERS_H
#define TERSE_COMPRESS_LAYERS_H

#include "compress/samples.h"

typedef struct terse_layer {
    char name[96];
    terse_op op_before, op_after;
    char shape[64];                    /* of the weights as ONNX has them */
    int64_t macs_before, macs_after;   /* per sample */
    int64_t bytes_before, bytes_after; /* of all its constants as stored */
    /* 10 log10(sum y^2 / sum (y - y~)^2) over the layer's output y, both networks fed with the same samples, so errors
     * of the layers before are in it. INFINITY: equal; NAN: the outputs cannot be compared. Stored integers are
     * compared after the scale and offset that fit each channel best (least squares; equalization gives channels scales
     * of their own), and then against the variance of y. */
    double sqnr_db;
    double us_before, us_after; /* median of a run of one sample */
    char compression[96];       /* the compressed node's own words, "" when nothing was done */
} terse_layer;

typedef struct terse_layers {
    terse_layer *layers;
    int n;
    double other_us_before, other_us_after; /* all nodes that belong to no layer */
    int64_t samples;                        /* that SQNR was taken from */
} terse_layers;

/* Compares `exact` and `compressed` (same inputs) on the first samples of `data`, and times them in turn. */
int terse_layers_measure(const terse_graph *exact, const terse_graph *compressed, const terse_npz *data,
                         terse_layers *ret_layers, terse_error *error);
void terse_layers_done(terse_layers *layers);                                       /* accepts a zeroed one */
const terse_layer *terse_layers_find(const terse_layers *layers, const char *name); /* NULL when there is none */

/* Gives every node a name of its own: the name of its first output where it has none, a number behind it where it is
 * taken. */
int terse_layers_name_nodes(terse_graph *graph, terse_error *error);

#endif
