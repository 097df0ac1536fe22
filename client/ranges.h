/* SPDX-License-Identifier: Apache-2.0 */
/* ranges.h: which ranges of a shared memory are handed out.
 * Runs in: libterse. Owns its list only; the memory is the arena's. */
#ifndef TERSE_CLIENT_RANGES_H
#define TERSE_CLIENT_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TERSE_RANGE_ALIGN = 64, TERSE_RANGE_NONE = -1 };

typedef struct terse_range {
    uint64_t at, bytes;
} terse_range;

typedef struct terse_ranges {
    terse_range *taken; /* by address */
    size_t n, capacity;
    uint64_t size;
} terse_ranges;

/* The lowest free place of `bytes`; TERSE_RANGE_NONE when there is none (or no memory for the list). Ranges are
 * multiples of 64 bytes, so that what is taken in turn lies one behind the other. */
int64_t terse_ranges_take(terse_ranges *ranges, uint64_t bytes);
bool terse_ranges_give(terse_ranges *ranges, uint64_t at); /* false: no range begins there */
void terse_ranges_done(terse_ranges *ranges);

#endif
