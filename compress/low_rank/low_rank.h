/* SPDX-License-Identifier: Apache-2.0 */
/* low_rank.h: dense weights replaced by chains of thin ones where that saves work.
 * Runs in: terse-compress (and the tests), between the passes PREPARE and FINISH: weights are plain.
 * Ownership: the report owns its layers; the graph is changed in place.
 *
 * A layer is a product y = W x + b with W [O,K]; a convolution is one over its im2col rows, K = channels * taps.
 * Without samples W itself is approximated. With them, the layer's output is: for x of the network as it was and x^ of
 * the network compressed so far (both centred), M* = W E[x x^^T] (E[x^ x^^T] + eps I)^-1 is the best that any weights
 * can do, and what a chain keeps is measured in the metric E[x^ x^^T] (Zhang et al. 2016, "Accelerating Very Deep
 * Convolutional Networks", section 3.3, for the asymmetric form; eps = 1e-3 of the mean diagonal). The bias takes up
 * the means.
 *
 * The way: select.c (which layers) -> walk.c, moments.c, metric.c (what is to be approximated) -> forms.c (a chain for
 * given ranks, and what it loses) -> choose.c, ranks.c (which ranks) -> factor.c (the nodes). */
#ifndef TERSE_LOW_RANK_LOW_RANK_H
#define TERSE_LOW_RANK_LOW_RANK_H

#include "common/npz.h"
#include "compress/passes/edit.h"
#include "compress/search/choices.h"

/* What a layer becomes. k x k is any window of more than one tap. */
typedef enum terse_low_rank_form {
    TERSE_FORM_BEST = 0, /* what loses least for its work */
    TERSE_FORM_SVD,      /* Gemm, MatMul, 1x1 Conv: [K,r] [r,O] */
    TERSE_FORM_CHANNEL,  /* k x k Conv: k x k to r channels, 1x1 to O */
    TERSE_FORM_TUCKER,   /* k x k Conv: 1x1 to r1, k x k to r2, 1x1 to O (Kim et al. 2016; HOOI, core refitted) */
    TERSE_FORM_SPATIAL,  /* k x k Conv: k x 1 to r, 1 x k to O (Jaderberg et al. 2014; second factor refitted) */
} terse_low_rank_form;

const char *terse_low_rank_form_name(terse_low_rank_form form); /* "channel" */

/* How ranks are found. */
typedef enum terse_low_rank_target {
    TERSE_LOW_RANK_NONE = 0, /* layers are listed, nothing is changed */
    TERSE_LOW_RANK_ENERGY,   /* the smallest that keep this share of what each layer puts out (of its squared singular
                                values without samples) */
    TERSE_LOW_RANK_SHARE,    /* those that lose least while this share of the network's multiply-accumulates is left */
    TERSE_LOW_RANK_RANKS,    /* as named */
    TERSE_LOW_RANK_SPEED,    /* those that lose least while layers take at most 1 / amount of their time */
    TERSE_LOW_RANK_AUTO,     /* with samples: as fast as the network's outputs bear; without: EVBMF */
} terse_low_rank_target;

typedef struct terse_low_rank_options {
    terse_low_rank_target target;
    double amount;     /* ENERGY, SHARE: 0 < amount <= 1; SPEED: above 1 */
    const char *ranks; /* RANKS: "64" for all layers, or "NAME=64,NAME=16x24" (two ranks for Tucker) */
    terse_low_rank_form form;
    const terse_choices *choices; /* RANKS: forms and ranks of layers, in the place of `ranks`; or NULL */
    const terse_npz *data;        /* samples (inputs by name, axis 0 = samples), or NULL */
    /* SPEED, AUTO with samples: layers are timed, as FP32 or as bytes, and none is taken that is no faster than the
     * dense one. Else work is counted in multiply-accumulates. */
    bool measure, bytes;
    /* Told before each layer that is decomposed; may be NULL. */
    void (*progress)(void *context, int layer, int n_layers, const char *name);
    void *context;
} terse_low_rank_options;

/* "0.9", "50%", "1.5x", "64", "conv1=64,conv2=16x24", "auto", each with ":svd", ":channel", ":tucker" or ":spatial"
 * behind it. INVALID_ARGUMENT says what was found and what is allowed. `text` must outlive the options. */
int terse_low_rank_parse(const char *text, terse_low_rank_options *options, terse_error *error);

/* What was decided for one layer with constant weights. */
typedef struct terse_low_rank_layer {
    char name[96]; /* of the node, or of its output where it has none */
    terse_op op;
    char shape[64]; /* of the weights as ONNX has them: "[512,784]" */
    terse_low_rank_form form;
    int64_t rank;                    /* 0: left dense */
    int64_t rank_in;                 /* Tucker: of the input's channels; else 0 */
    int64_t full;                    /* the rank that W could have: min(O,K); 0 where W is not a matrix */
    double energy;                   /* share of the output (of the squared singular values) that is kept; 1: dense */
    int64_t macs_before, macs_after; /* per sample; symbols other than the batch count as 1 */
    char reason[96];                 /* "factored", "2 groups", "rank 300 saves nothing (less than 256 would)" ... */
} terse_low_rank_layer;

typedef struct terse_low_rank_report {
    terse_low_rank_layer *layers;
    int n, capacity;
    int64_t samples; /* that chains were fitted to; 0: to the weights alone */
} terse_low_rank_report;

void terse_low_rank_report_done(terse_low_rank_report *report); /* accepts a zeroed one */

/* Factors the layers of `graph` as the options say. A layer that gains nothing stays dense, with the reason.
 * INVALID_ARGUMENT names a key of the samples that is wrong, or a layer in `ranks` that is none. */
int terse_low_rank_run(terse_graph *graph, const terse_low_rank_options *options, terse_low_rank_report *ret_report,
                       terse_error *error);

#endif
