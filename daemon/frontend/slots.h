/* SPDX-License-Identifier: Apache-2.0 */
/* slots.h: the request arena: byte ranges for tensors in memory that workers map too.
 * Runs in: frontend (owner); workers read input slots and write output slots.
 * Ownership: the front end owns every slot; a worker is lent those of one batch until it completes or is gone.
 *
 * Design notes
 *   Two-level segregated fit (Masmano et al., "TLSF", ECRTS 2004): ranges of any size, 64-byte aligned, taken and given
 *   back in constant time, neighbours merged at once. Sizes are counted in units of 64 bytes; a free range of u units
 * is in list (log2 u, next 4 bits of u). A request is rounded up to the next list, so that any range in it is large
 * enough. Nothing of the bookkeeping lies in the shared memory: a worker that writes wild cannot corrupt it. */
#ifndef TERSE_FRONTEND_SLOTS_H
#define TERSE_FRONTEND_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum { TERSE_SLOT_ALIGN = 64 };
#define TERSE_SLOT_NONE UINT32_MAX

typedef struct terse_slots terse_slots;

/* A range of `bytes` (a multiple of 64 at least) of new shared memory, mapped here for writing. The descriptor cannot
 * change its size; with `read_only` nobody who gets it can map it for writing. */
int terse_slots_open(const char *name, uint64_t bytes, bool read_only, terse_slots **ret_slots, terse_error *error);
void terse_slots_close(terse_slots *slots);

int terse_slots_fd(const terse_slots *slots);
uint64_t terse_slots_bytes(const terse_slots *slots);
uint64_t terse_slots_used(const terse_slots *slots);

/* Takes a range; returns its handle or TERSE_SLOT_NONE when there is no room. 0 bytes take one unit. */
uint32_t terse_slots_take(terse_slots *slots, uint64_t bytes);
void terse_slots_give(terse_slots *slots, uint32_t slot);
uint64_t terse_slots_offset(const terse_slots *slots, uint32_t slot);
uint64_t terse_slots_size(const terse_slots *slots, uint32_t slot);
void *terse_slots_data(const terse_slots *slots, uint32_t slot);

#endif
