/* SPDX-License-Identifier: Apache-2.0 */
/* finished.h: replies of requests that have ended, for clients that ask again because the first reply was lost.
 * Runs in: frontend. Ownership: one block of memory of a fixed size; replies are copied in, and what is found points
 * into it until the next one is kept.
 *
 * Design notes
 *   A ring of bytes: a new reply takes the place of the oldest ones. Positions only grow, so a reply is there as long
 *   as its position is not further back than the ring is long, and nothing is ever taken out. An index of small sets
 * finds a position by session and id; in a full set the oldest goes. It is a cache: a reply that is not there any more,
 * or was too large for it, is computed again, with the same bits. */
#ifndef TERSE_FRONTEND_FINISHED_H
#define TERSE_FRONTEND_FINISHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

/* Replies of more than this part of the memory are not kept: a few large ones would push out thousands. */
enum { TERSE_FINISHED_PART = 32, TERSE_FINISHED_MAX_PARTS = 1 + TERSE_WIRE_MAX_IO };

typedef struct terse_finished terse_finished;

typedef struct terse_finished_part {
    const void *data;
    size_t bytes;
} terse_finished_part;

/* `bytes` 0: keeps nothing. NULL when memory is out. */
terse_finished *terse_finished_new(uint64_t bytes);
void terse_finished_free(terse_finished *finished);

/* Copies a reply of 1 to TERSE_FINISHED_MAX_PARTS parts; one that is too large is passed over. */
void terse_finished_keep(terse_finished *finished, const uint8_t *session, uint64_t id,
                         const terse_finished_part *parts, uint32_t n);
/* The newest reply kept for a request: returns the number of its parts, 0 when there is none. */
uint32_t terse_finished_find(const terse_finished *finished, const uint8_t *session, uint64_t id,
                             terse_finished_part *ret_parts);

#endif
