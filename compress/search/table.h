/* SPDX-License-Identifier: Apache-2.0 */
/* table.h: what each layer could become, how long it takes then on this machine, how many bytes it has, and what the
 * network's outputs lose by that alone. Runs in: terse-compress (and the tests).
 * Ownership: a table borrows graph and samples and owns options and the weights that they stand for.
 *
 * Times of dense layers are those of their nodes in the dense network; chains are timed alone beside the dense layer
 * alone (low_rank/times.c); 4x1 weights in the whole network, all layers pruned by the same share, beside the same
 * network run dense. What is no faster is refused, with the figures. Losses are measured for weights fitted to the
 * samples, one layer at a time on top of the exact network (quantize/sensitivity.c). */
#ifndef TERSE_SEARCH_TABLE_H
#define TERSE_SEARCH_TABLE_H

#include "compress/quantize/quantize.h"
#include "compress/search/choices.h"

enum { TERSE_TABLE_OPTIONS = 28 };

typedef enum terse_table_kind {
    TERSE_OPTION_DENSE,
    TERSE_OPTION_FLOAT, /* FP32 where dense is int8 */
    TERSE_OPTION_LOW_RANK,
    TERSE_OPTION_SPARSE,
    TERSE_OPTION_CLUSTER,
    TERSE_OPTION_SPARSE_CLUSTER,
    TERSE_OPTION_KINDS
} terse_table_kind;

typedef struct terse_table_option {
    terse_table_kind kind;
    terse_choice choice; /* without a name */
    double us;           /* 0: not known */
    double cost;         /* nats a sample, or share of the outputs' power */
    double bytes;        /* in the file, as packed where that is asked for */
    float *weights;      /* that stand for it, in the order of the node's; NULL: the layer's own */
} terse_table_option;

typedef struct terse_table_layer {
    int node; /* of the prepared graph */
    char name[TERSE_CHOICE_NAME];
    int64_t weights, macs;
    terse_table_option options[TERSE_TABLE_OPTIONS]; /* the first one is dense */
    int n;
    char refused[TERSE_CHOICE_REFUSED][TERSE_CHOICE_WHY];
    int n_refused;
} terse_table_layer;

typedef struct terse_table_options {
    bool bytes;                             /* dense layers are int8 */
    bool by_size;                           /* options for few bytes, else for little time */
    double seconds;                         /* that it may take, about; 0: what is coarse, whatever that takes */
    const terse_graph *dense, *dense_float; /* finished networks, for times; dense_float may be NULL */
    const terse_quantize_report *int8;      /* what int8 alone costs each layer, or NULL */
    void (*progress)(void *context, const char *text);
    bool (*stopped)(void *context); /* true: enough, take what there is */
    void *context;
} terse_table_options;

typedef struct terse_table {
    const terse_graph *graph; /* behind PREPARE */
    terse_table_layer *layers;
    int n;
    double other_us; /* nodes of the dense network that belong to no layer */
    struct terse_table_state *state;
} terse_table;

/* `graph` is prepared (terse_passes_run, terse_bias_prepare). */
int terse_table_make(const terse_graph *graph, const terse_npz *fit, const terse_table_options *options,
                     terse_table *ret_table, terse_error *error);
void terse_table_done(terse_table *table); /* accepts a zeroed one */
/* What the outputs lose with these options in all layers at once; chosen[layer]. */
int terse_table_score(const terse_table *table, const int *chosen, double *ret_cost, terse_error *error);
/* That it was fitted to. */
int64_t terse_table_samples(const terse_table *table);
/* "low rank", "4x1", ... */
const char *terse_table_kind_name(terse_table_kind kind);

#endif
