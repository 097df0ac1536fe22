/* SPDX-License-Identifier: Apache-2.0 */
/* Ids are consecutive, so that id & mask spreads them without hashing; those that share a slot are linked. Open
 * addressing would make one run of all that is outstanding, which every removal would have to walk. */
#include "client/internal.h"

#include <stdlib.h>

bool terse_table_init(pending_table *table, size_t capacity)
{
    size_t size = 64;
    while (size < capacity)
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
    pending **slot = &table->slots[(size_t)entry->id & table->mask];
    entry->table_next = *slot;
    *slot = entry;
    table->n++;
}

static pending **link_to(const pending_table *table, uint64_t id)
{
    pending **at = &table->slots[(size_t)id & table->mask];
    while (*at && (*at)->id != id)
        at = &(*at)->table_next;
    return at;
}

pending *terse_table_find(const pending_table *table, uint64_t id)
{
    return *link_to(table, id);
}

void terse_table_remove(pending_table *table, uint64_t id)
{
    pending **at = link_to(table, id);
    if (!*at)
        return;
    *at = (*at)->table_next;
    table->n--;
}
