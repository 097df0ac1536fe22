/* SPDX-License-Identifier: Apache-2.0 */
/* look.h: what is odd about samples that may be used nevertheless: all alike, empty of content, of one class.
 * Runs in: terse-compress (and the tests). Ownership: the caller's. */
#ifndef TERSE_COMPRESS_LOOK_H
#define TERSE_COMPRESS_LOOK_H

#include "compress/samples.h"

enum { TERSE_LOOK_TEXT = 256 };

/* One line about the first oddity, or "" where there is none. Some samples are run for their classes; INVALID_ARGUMENT
 * where an answer is NaN. */
int terse_look_at(const terse_graph *graph, const terse_npz *data, char ret_text[TERSE_LOOK_TEXT], terse_error *error);

#endif
