/* SPDX-License-Identifier: Apache-2.0 */
/* validate.h: the imported and the compressed network side by side on real samples.
 * Runs in: terse-compress (and the tests). Owns nothing beyond a call.
 *
 * Outputs are compared with those of the graph as imported, before any pass, so that a wrong pass shows too. Times are
 * compared with the graph that the exact passes alone give: what terse serves without compression. */
#ifndef TERSE_COMPRESS_VALIDATE_H
#define TERSE_COMPRESS_VALIDATE_H

#include "common/graph/graph.h"
#include "common/npz.h"

enum { TERSE_VALIDATE_BATCH = 8 };

typedef struct terse_validation {
    int64_t samples;
    bool has_top1;                              /* labels are there and output 0 is [samples, classes] */
    bool has_agreement;                         /* output 0 is [samples, classes], classes > 1 */
    double top1_before, top1_after;             /* shares, 0..1 */
    double agreement;                           /* share of samples with the same largest output */
    double drop, drop_low, drop_high;           /* of top-1, shares: paired, with its 95 % interval */
    double joules_before, joules_after;         /* of one sample; 0: not readable here */
    double max_error, mean_error;               /* of all elements of all outputs, absolute */
    double latency_before_us, latency_after_us; /* median, one sample */
    bool has_batch;                             /* batchable, and TERSE_VALIDATE_BATCH samples are there */
    double batch_before_us, batch_after_us;     /* median of one run of TERSE_VALIDATE_BATCH samples */
} terse_validation;

/* `data`: every input under its name, axis 0 = samples, optionally "labels" (integers, one a sample); nothing else.
 * Fails with INVALID_ARGUMENT naming the key. `imported`, `exact` and `compressed` have the same inputs and outputs. */
int terse_validate_run(const terse_graph *imported, const terse_graph *exact, const terse_graph *compressed,
                       const terse_npz *data, terse_validation *ret_validation, terse_error *error);

/* Multiply-accumulates and arena bytes for one sample, symbols bound to 1. Fails when the graph cannot be planned so
 * (a dimension that must be larger): then there is nothing to report. */
int terse_validate_cost(const terse_graph *graph, int64_t *ret_macs, size_t *ret_arena_bytes, terse_error *error);

#endif
