/* SPDX-License-Identifier: Apache-2.0 */
/* Ids are consecutive, so that id & mask spreads them without hashing: runs are as long as the span of ids that are
 * open. */
#include "client/internal.h"

#include <stdlib.h>

bool terse_table_init(pending_table *table, size_t capacity)
{
    size_t size = 64;
    while (size < capacity * 2)
        size *= 2;
    table->slots = calloc(size, sizeof *table->slots);
    table->mask = size - 1;
    table->n = 0;
    return table->slots != NULL;
}

void terse_table_done(pending_table *table)
{
    free(table->slots);
    table->slots = NULL;
}

void terse_table_put(pending_table *table, pending *entry)
{
    size_t at = (size_t)entry->id & table->mask;
    while (table->slots[at])
        at = (at + 1) & table->mask;
    table->slots[at] = entry;
    table->n++;
}

static size_t slot_of(const pending_table *table, uint64_t id)
{
    size_t at = (size_t)id & table->mask;
    while (table->slots[at] && table->slots[at]->id != id)
        at = (at + 1) & table->mask;
    return at;
}

pending *terse_table_find(const pending_table *table, uint64_t id)
{
    return table->slots[slot_of(table, id)];
}

void terse_table_remove(pending_table *table, uint64_t id)
{
    size_t hole = slot_of(table, id);
    if (!table->slots[hole])
        return;
    table->n--;
    /* Knuth, The Art of Computer Programming 3, 6.4, algorithm R: close the hole with entries that probed past it. */
    for (size_t at = hole;;) {
        table->slots[hole] = NULL;
        for (;;) {
            at = (at + 1) & table->mask;
            if (!table->slots[at])
                return;
            const size_t home = (size_t)table->slots[at]->id & table->mask;
            if (((at - home) & table->mask) >= ((at - hole) & table->mask))
                break;
        }
        table->slots[hole] = table->slots[at];
        hole = at;
    }
}
