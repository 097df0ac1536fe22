/* SPDX-License-Identifier: Apache-2.0 */
/* shrink.h: each constant in the encoding (common/encoding.h) that takes fewest bytes in the file: `--pack`, and
 * codebooks of `--cluster`. Runs in: terse-compress (and the tests), before the file is written.
 * Ownership: what is made belongs to the caller; the graph is not changed. */
#ifndef TERSE_COMPRESS_SHRINK_H
#define TERSE_COMPRESS_SHRINK_H

#include "common/model.h"

typedef struct terse_shrunk {
    terse_model_packed *packed; /* per value of the graph; NULL: nothing is shorter than it was */
    int n;
    int64_t bytes_plain, bytes_stored; /* of all constants  */
} terse_shrunk;

/* zstd false: codebooks and places only. */
int terse_shrink_run(const terse_graph *graph, bool zstd, terse_shrunk *ret_shrunk, terse_error *error);
void terse_shrink_done(terse_shrunk *shrunk); /* accepts a zeroed one */

#endif
