/* SPDX-License-Identifier: Apache-2.0 */
/* report.h: what a compression did, for people, as JSON and for the "report" of the .terse file.
 * Runs in: terse-compress. Ownership: a report owns its layers. */
#ifndef TERSE_COMPRESS_REPORT_REPORT_H
#define TERSE_COMPRESS_REPORT_REPORT_H

#include <msgpack.h>

#include "compress/layers.h"
#include "compress/low_rank/low_rank.h"
#include "compress/cluster/cluster.h"
#include "compress/prune/prune.h"
#include "compress/quantize/quantize.h"
#include "compress/recover.h"
#include "compress/statistics.h"
#include "compress/validate.h"

/* The estimate before the work, the bound that was given (0: none) and what the process came to. */
typedef struct terse_report_memory {
    uint64_t need, least, weights, samples, numbers, moments, bound;
    bool spilled;
} terse_report_memory;

typedef struct terse_report {
    const char *input, *output; /* as given; not stored in the file */
    const char *name;
    bool low_rank; /* asked for */
    terse_low_rank_report layers;
    terse_prune_report channels;       /* that went first, where a plan says so; amount 0: none */
    terse_prune_report pruned;         /* amount 0: not asked for */
    terse_cluster_report clustered;    /* bits 0: not asked for; those of int8 weights are in int8.clustered */
    terse_recovered recovered;         /* --recover */
    terse_statistics_report corrected; /* --correct statistics */
    int64_t texts;                     /* that a language model added to its samples */
    terse_mixed mixed;                 /* of int4-weights: what keeps 8 bits */
    bool quantized;                    /* --quantize int8 */
    terse_quantize_report int8;
    terse_rounding_report rounding;         /* of int4-weights; that of int8 is in `int8` */
    const struct terse_search_plan *search; /* what a search found, or the plan that was followed; or NULL */
    uint64_t bytes_before, bytes_after;
    int64_t macs_before, macs_after; /* per sample; -1: not known */
    int64_t arena_bytes;             /* of one sample; -1: not known */
    int n_nodes_before, n_nodes_after;
    bool packed;                         /* the file is smaller than what it becomes in memory */
    int64_t memory_before, memory_after; /* bytes of constants, with `packed` */
    terse_report_memory memory;          /* of the run; not stored in the file */
    bool validated;
    terse_validation validation;
    terse_layers measured; /* with validation: error and time of each layer */
} terse_report;

void terse_report_done(terse_report *report); /* accepts a zeroed one */

/* --- the list that all forms show: what each side has ------------------------------------------------------------- */

typedef enum terse_figure_kind {
    TERSE_FIGURE_COUNT,
    TERSE_FIGURE_SHARE,
    TERSE_FIGURE_ERROR,
    TERSE_FIGURE_MICROSECONDS
} terse_figure_kind;

typedef struct terse_figure {
    const char *key, *label;
    terse_figure_kind kind;
    bool known;
    double before, after;
} terse_figure;

enum { TERSE_REPORT_FIGURES = 9 };

void terse_report_figures(const terse_report *report, terse_figure *ret_list); /* TERSE_REPORT_FIGURES of them */
void terse_report_number(terse_figure_kind kind, double number, char *text, size_t size);
/* Of what was rounded: the products of int8, or those of int4 weights. */
const terse_rounding_report *terse_report_rounding(const terse_report *report);
void terse_report_decibels(double db, char *text, size_t size); /* "32.1", "equal", "-" */

/* One table for people. */
void terse_report_print(const terse_report *report, FILE *out);
/* One JSON object in one line. */
void terse_report_json(const terse_report *report, FILE *out);
/* html.c: a page that stands alone: no script, no other file; charts are inline SVG. `path` appears when it is
 * whole. */
int terse_report_html(const terse_report *report, const char *path, terse_error *error);
/* The same as a msgpack map. Its size does not depend on bytes_after, so that it can hold the size of the file that
 * it is in. Fails when memory is out. */
int terse_report_pack(const terse_report *report, msgpack_sbuffer *buffer, terse_error *error);

#endif
