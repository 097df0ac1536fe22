/* SPDX-License-Identifier: Apache-2.0 */
/* prune.h: weights set to zero where the network loses least, `terse compress --prune AMOUNT[:KIND]`.
 * Runs in: terse-compress (and the tests), between the passes PREPARE and FINISH (weights plain, activations fused) and
 * before `--quantize int8`, which leaves zeros zero; and once more behind FINISH, where 4x1 weights get a sparse
 * layout. Ownership: the report owns its layers; the graph is changed in place.
 *
 * A layer's weights are one matrix W, [N outputs][K] in the order that ONNX has (K of a convolution: channel, kernel
 * position). prune.c walks the layers, mask.c chooses by size and obs.c by what the layer's output loses, execute.c
 * decides which layers run sparse. */
#ifndef TERSE_PRUNE_PRUNE_H
#define TERSE_PRUNE_PRUNE_H

#include "common/model.h"
#include "common/npz.h"
#include "compress/passes/edit.h"
#include "compress/prune/kept.h"
#include "compress/search/choices.h"

typedef enum terse_prune_kind {
    TERSE_PRUNE_4X1 = 0,      /* four outputs keep or lose the same input: runs sparse */
    TERSE_PRUNE_UNSTRUCTURED, /* any single weight: stored small, run dense */
    TERSE_PRUNE_2TO4,         /* two of four neighbours in K stay: AMOUNT is 0.5 */
    TERSE_PRUNE_CHANNELS,     /* whole channels (channels.h): a smaller dense network */
    TERSE_PRUNE_KINDS
} terse_prune_kind;

const char *terse_prune_kind_name(terse_prune_kind kind); /* "4x1", as --prune takes it */

/* What was decided for one layer with constant weights. */
typedef struct terse_prune_layer {
    char name[96];
    terse_op op;
    char shape[64]; /* of the weights as ONNX has them */
    bool pruned, sparse;
    double kept;     /* share of blocks (4x1) or weights that are left; of a cut layer's weights */
    double error;    /* share of the output's energy that the samples lose by this layer alone; -1: not measured */
    double us_dense; /* of the node on this machine, both ways; 0: not measured */
    double us_sparse;
    int64_t bytes_stored, bytes_memory; /* of the weights, in the file and as kernels read them; 0: not known */
    char stored[TERSE_ENCODING_TEXT];   /* "bitmap"; "" as in memory */
    char reason[160];                   /* "OBS", "magnitude", why it stays dense ... */
} terse_prune_layer;

/* What else becomes of the products of the network. */
typedef enum terse_prune_beside {
    TERSE_PRUNE_BESIDE_FP32 = 0, /* or int8: both have a sparse form */
    TERSE_PRUNE_BESIDE_BF16,     /* marked by terse_pass_bf16_mark: a sparse layer stays FP32 and loses its mark */
    TERSE_PRUNE_BESIDE_WEIGHTS,  /* weights of 8 or 4 bits, activations FP32: no sparse form */
} terse_prune_beside;

typedef struct terse_prune_report {
    terse_prune_kind kind;
    terse_prune_beside beside;      /* set by who calls terse_prune_choose */
    double amount;                  /* 0: not asked for */
    int64_t samples;                /* 0: no data, chosen by magnitude */
    double macs_before, macs_after; /* channels: of products, a sample */
    terse_kept kept;                /* channels: what is left of the network's values */
    terse_prune_layer *layers;
    int n, capacity;
} terse_prune_report;

void terse_prune_report_done(terse_prune_report *report); /* accepts a zeroed one */

typedef struct terse_prune_options {
    double amount; /* 0 < amount < 1: share of what is removed in each layer; channels: of the network's work */
    terse_prune_kind kind;
    const terse_choices *choices;         /* amounts of layers, in the place of `amount` (then the largest); or NULL */
    struct terse_channels_orders *orders; /* channels: those of an earlier amount, or to be filled; or NULL */
    void (*progress)(void *context, const char *text); /* or NULL */
    void *context;
} terse_prune_options;

/* Prunes `graph`. `data`: samples (inputs by name, axis 0 = samples), or NULL: by magnitude alone. */
int terse_prune_run(terse_graph *graph, const terse_npz *data, const terse_prune_options *options,
                    terse_prune_report *ret_report, terse_error *error);

/* --- execute.c -------------------------------------------------------------------------------------------------- */

/* Decides for each pruned layer of `graph` (before FINISH) whether it runs sparse: by measuring both ways on this
 * machine, or, when `measure` is false, by a fixed rule. Convolutions that do get algorithm "direct". Lines of those
 * that do not say why. */
int terse_prune_choose(terse_graph *graph, bool measure, terse_prune_report *report, terse_error *error);
/* Beside BF16: layers that run sparse lose their mark. */
int terse_prune_unmark(terse_graph *graph, terse_prune_report *report, terse_error *error);
/* Gives those layers of the finished graph their sparse layout. */
int terse_prune_pack(terse_graph *graph, terse_prune_report *report, terse_error *error);
/* Is any layer's weights full of zeros in the memory of the finished graph, so that the file is worth packing? */
bool terse_prune_wants_packing(const terse_prune_report *report);
/* How the file has the weights of pruned layers: packed[value] of the finished graph. */
void terse_prune_stored(const terse_graph *graph, const terse_model_packed *packed, terse_prune_report *report);

/* --- mask.c ----------------------------------------------------------------------------------------------------- */

/* A layer's weights: w[n * k + i]. */
typedef struct terse_prune_matrix {
    double *w;
    int64_t n, k;
} terse_prune_matrix;

/* Zeroes the share `amount` of the blocks with the least sum of squares, within the layer; blocks of four outputs by
 * one input (4x1), single weights, or two of each four (2:4). Returns the share kept; -1 when memory is out. */
double terse_prune_by_magnitude(terse_prune_matrix *matrix, terse_prune_kind kind, double amount);

/* Says at the node what was done to it, once. */
void terse_prune_mark(terse_edit *edit, int node, terse_prune_kind kind, double kept);

/* The share of 4x1 blocks, or weights, that are not zero. */
double terse_prune_kept(const terse_prune_matrix *matrix, terse_prune_kind kind);

#endif
