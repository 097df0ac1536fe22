/* SPDX-License-Identifier: Apache-2.0 */
/* Entries for which time alone will do something (a deadline, a retry), as a binary heap by that time. */
#include "client/internal.h"

#include <stdlib.h>

static void place(terse_client *client, size_t at, pending *entry)
{
    client->due[at] = entry;
    entry->due_at = at + 1;
}

static void sift_up(terse_client *client, size_t at, pending *entry)
{
    for (; at > 0 && client->due[(at - 1) / 2]->due_ns > entry->due_ns; at = (at - 1) / 2)
        place(client, at, client->due[(at - 1) / 2]);
    place(client, at, entry);
}

static void sift_down(terse_client *client, size_t at, pending *entry)
{
    for (size_t child; (child = 2 * at + 1) < client->n_due; at = child) {
        if (child + 1 < client->n_due && client->due[child + 1]->due_ns < client->due[child]->due_ns)
            child++;
        if (client->due[child]->due_ns >= entry->due_ns)
            break;
        place(client, at, client->due[child]);
    }
    place(client, at, entry);
}

bool terse_due_reserve(terse_client *client)
{
    if (client->table.n < client->due_capacity)
        return true;
    const size_t capacity = client->due_capacity ? 2 * client->due_capacity : 64;
    pending **due = reallocarray(client->due, capacity, sizeof(pending *));
    if (!due)
        return false;
    client->due = due;
    client->due_capacity = capacity;
    return true;
}

static void remove_entry(terse_client *client, pending *entry)
{
    const size_t at = entry->due_at - 1;
    pending *last = client->due[--client->n_due];
    entry->due_at = 0;
    if (last == entry)
        return;
    if (at > 0 && client->due[(at - 1) / 2]->due_ns > last->due_ns)
        sift_up(client, at, last);
    else
        sift_down(client, at, last);
}

void terse_due_set(terse_client *client, pending *entry, uint64_t due_ns)
{
    if (entry->due_at)
        remove_entry(client, entry);
    entry->due_ns = due_ns;
    if (due_ns != NEVER)
        sift_up(client, client->n_due++, entry);
}

uint64_t terse_due_next(const terse_client *client)
{
    return client->n_due ? client->due[0]->due_ns : NEVER;
}
