/* SPDX-License-Identifier: Apache-2.0 */
/* kept.h: which channels of a network's values are left of those that it had.
 * Runs in: terse-compress (and the tests). Ownership: a list owns everything in it. */
#ifndef TERSE_PRUNE_KEPT_H
#define TERSE_PRUNE_KEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

typedef struct terse_kept_value {
    char *name;        /* of the value, before and after */
    int axis;          /* of its channels, 1 and above */
    int64_t n, before; /* channels that are left, and that there were */
    int32_t *channels; /* [n] ascending: channel i is what channel channels[i] was */
} terse_kept_value;

/* Values that are not listed have all their channels. */
typedef struct terse_kept {
    terse_kept_value *list;
    int n;
} terse_kept;

void terse_kept_done(terse_kept *kept);                             /* accepts a zeroed one */
bool terse_kept_copy(const terse_kept *from, terse_kept *ret_kept); /* false: memory is out */
/* NULL: not listed. */
const terse_kept_value *terse_kept_find(const terse_kept *kept, const char *name);

#endif
