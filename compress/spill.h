/* SPDX-License-Identifier: Apache-2.0 */
/* spill.h: numbers that wait for their turn lie in files without a name, where --mem bounds the memory.
 * Runs in: terse-compress (and the tests). Ownership: memory is the caller's, freed with terse_spill_free.
 *
 * Design notes. What a step needs of all samples (their numbers at a layer, second moments of layers) is made once and
 * read once, so it may as well wait on the disk: the results are the same bits, which fewer samples would not give.
 * Each piece is a mapped file of its own, whole on the disk before it is written (a full disk is an error, no signal);
 * a piece at rest takes no memory of the process, and the system writes it out when it wants its memory. Off, which is
 * the default, nothing here is used. */
#ifndef TERSE_COMPRESS_SPILL_H
#define TERSE_COMPRESS_SPILL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

/* From now on pieces are made in `directory` (which must outlive that); NULL: no longer. Not while pieces are made. */
void terse_spill_into(const char *directory);
bool terse_spill_is_on(void);

/* `size` zeroed bytes, aligned to 64, readable a little beyond. SYSTEM names the directory and the reason. */
int terse_spill_new(size_t size, void **ret_memory, terse_error *error);
void terse_spill_free(void *memory); /* accepts NULL */
/* The piece leaves the memory until it is touched again; it keeps its bytes. */
void terse_spill_rest(void *memory);

/* A copy of `bytes` at rest. */
int terse_spill_copy(const void *bytes, size_t size, void **ret_memory, terse_error *error);

#endif
