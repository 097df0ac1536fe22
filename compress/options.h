/* SPDX-License-Identifier: Apache-2.0 */
/* options.h: the command line of `terse compress`. One table drives the parser, --help and the manual.
 * Runs in: terse-compress. The texts point into argv. */
#ifndef TERSE_COMPRESS_OPTIONS_H
#define TERSE_COMPRESS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/status.h"
#include "compress/cluster/cluster.h"
#include "compress/low_rank/low_rank.h"
#include "compress/prune/prune.h"
#include "compress/quantize/histogram.h"
#include "compress/quantize/quantize.h"
#include "compress/quantize/round.h"
#include "compress/recover.h"
#include "compress/search/goal.h"

/* --quantize: what becomes of the weights of products. */
typedef enum terse_quantize_mode {
    TERSE_QUANTIZE_NONE = 0,
    TERSE_QUANTIZE_INT8,         /* weights and activations of 8 bits: needs calibration */
    TERSE_QUANTIZE_INT8_WEIGHTS, /* weights of 8 bits, activations FP32 */
    TERSE_QUANTIZE_INT4_WEIGHTS, /* weights of 4 bits in groups along K, activations of 8 bits made row by row */
} terse_quantize_mode;

enum { TERSE_QUANTIZE_GROUP = 32, TERSE_QUANTIZE_MAX_GROUP = 4096 }; /* of int4-weights */

typedef struct terse_options {
    const char *input, *output;
    const char *name;                /* NULL: from the input's file name */
    const char *validate;            /* NULL: not asked for */
    const char *report;              /* NULL: no page */
    terse_low_rank_options low_rank; /* without data and progress */
    double prune;                    /* share of what is removed; 0: not asked for */
    terse_prune_kind prune_kind;
    double
        channels; /* share of the work that goes with channels, in front of all else: where a plan says so; 0: none */
    terse_equalization equalization; /* where a plan says so */
    bool correct;                    /* --correct statistics */
    bool bf16;                       /* --float bf16 */
    terse_quantize_mode quantize;
    const char *calibrate;         /* NULL: not given */
    terse_calibration calibration; /* how ranges are chosen */
    const char *keep_float;        /* NULL: automatically */
    const char *keep_int8;         /* NULL: automatically */
    terse_rounding rounding;       /* --rounding */
    int quantize_group;            /* int4-weights: rows of K that share a scale */
    terse_recover_options recover; /* without progress */
    int cluster;                   /* --cluster BITS; 0: not asked for */
    bool pack;                     /* --pack zstd */
    bool onnx;                     /* the output's name ends in .onnx */
    terse_search_goal goal;        /* --max-drop, --target-..., --plan */
    const terse_choices *choices;  /* what layers become where a plan says so; or NULL */
    uint64_t mem;                  /* --mem; 0: no bound */
    bool no_tune, json, quiet, plain, help;
} terse_options;

typedef struct terse_option {
    const char *name;     /* "--low-rank" */
    char letter;          /* 'o' for -o, 0 for none */
    const char *argument; /* "ENERGY", NULL when it takes none */
    const char *help;
    bool hidden; /* for other programs of terse: not in --help */
    int (*set)(terse_options *options, const char *argument, terse_error *error);
} terse_option;

extern const terse_option terse_options_table[];
extern const int terse_options_n;

/* INVALID_ARGUMENT with one line that says what was found and what is allowed. */
int terse_options_parse(int argc, char **argv, terse_options *ret_options, terse_error *error);
void terse_options_help(FILE *out);
/* The same for manuals and completions, a row a line, words parted by tabs: packaging/man/README.md. */
void terse_options_print_table(FILE *out);
/* Words of `text`, broken before column 100, each further line indented by `indent`. */
void terse_options_print_wrapped(FILE *out, const char *text, int indent);
/* "int8", "int4-weights:32" as --quantize takes it; writes and returns `text`. */
enum { TERSE_QUANTIZE_TEXT = 32 };
const char *terse_options_quantize(const terse_options *options, char text[TERSE_QUANTIZE_TEXT]);

#endif
