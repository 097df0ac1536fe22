/* SPDX-License-Identifier: Apache-2.0 */
/* report.h: what a compression did, for people, as JSON and for the "report" of the .terse file.
 * Runs in: terse-compress. Ownership: a report owns its layers. */
#ifndef TERSE_COMPRESS_REPORT_H
#define TERSE_COMPRESS_REPORT_H

#include <msgpack.h>

#include "compress/low_rank/low_rank.h"
#include "compress/validate.h"

typedef struct terse_report {
    const char *input, *output; /* as given; not stored in the file */
    const char *name;
    double low_rank; /* 0: not asked for */
    terse_low_rank_report layers;
    uint64_t bytes_before, bytes_after;
    int64_t macs_before, macs_after; /* per sample; -1: not known */
    int64_t arena_bytes;             /* of one sample; -1: not known */
    int n_nodes_before, n_nodes_after;
    bool validated;
    terse_validation validation;
} terse_report;

void terse_report_done(terse_report *report); /* accepts a zeroed one */

/* One table for people. */
void terse_report_print(const terse_report *report, FILE *out);
/* One JSON object in one line. */
void terse_report_json(const terse_report *report, FILE *out);
/* The same as a msgpack map. Its size does not depend on bytes_after, so that it can hold the size of the file that
 * it is in. Fails when memory is out. */
int terse_report_pack(const terse_report *report, msgpack_sbuffer *buffer, terse_error *error);

#endif
