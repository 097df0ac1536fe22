/* SPDX-License-Identifier: Apache-2.0 */
#include "client/links.h"

#include <stdlib.h>

#include "common/bytes.h"

enum {
    MAX_SPARE = 1024,
    MAX_RETRY_MS = 3600 * 1000, /* nobody waits for longer */
};

pending *terse_pending_new(terse_client *client, pending_kind kind, int n_frames)
{
    pending *entry = client->spare;
    if (entry) {
        client->spare = entry->next;
        client->n_spare--;
    } else if (!(entry = malloc(sizeof *entry))) {
        return NULL;
    }
    entry->kind = kind;
    entry->state = PENDING_WAITING;
    entry->deadline_ns = entry->due_ns = entry->no_retry_ns = entry->ended_ns = NEVER;
    entry->due_at = 0;
    entry->retries = entry->refused = 0;
    entry->throttle_key = 0;
    entry->link = entry->only = NULL;
    entry->bytes = 0;
    entry->shared = entry->ring = entry->here = false;
    entry->unsent_next = entry->unsent_previous = NULL;
    entry->reply = NULL;
    entry->next = entry->previous = entry->next_done = NULL;
    entry->n_frames = n_frames;
    entry->frames = n_frames <= INLINE_FRAMES ? entry->inline_frames : malloc((size_t)n_frames * sizeof *entry->frames);
    if (!entry->frames) {
        free(entry);
        return NULL;
    }
    for (int i = 0; i < n_frames; i++)
        zmq_msg_init(&entry->frames[i]);
    return entry;
}

static void drop_frames(pending *entry)
{
    for (int i = 0; i < entry->n_frames; i++)
        zmq_msg_close(&entry->frames[i]);
    if (entry->frames != entry->inline_frames)
        free(entry->frames);
    entry->frames = entry->inline_frames;
    entry->n_frames = 0;
}

/* The entry is in no table and no list any more (or never was). */
void terse_pending_free(terse_client *client, pending *entry)
{
    drop_frames(entry);
    terse_reply_free(entry->reply);
    if (client->n_spare >= MAX_SPARE) {
        free(entry);
        return;
    }
    entry->next = client->spare;
    client->spare = entry;
    client->n_spare++;
}

static void unlink_entry(terse_client *client, pending *entry)
{
    *(entry->previous ? &entry->previous->next : &client->first) = entry->next;
    *(entry->next ? &entry->next->previous : &client->last) = entry->previous;
}

/* --- what is to be sent -------------------------------------------------------------------------------------- */

void terse_pending_hold(terse_client *client, pending *entry)
{
    if (entry->state == PENDING_UNSENT) {
        pending **first = entry->shared ? &client->shared_first : &client->unsent_first;
        pending **last = entry->shared ? &client->shared_last : &client->unsent_last;
        *(entry->unsent_previous ? &entry->unsent_previous->unsent_next : first) = entry->unsent_next;
        *(entry->unsent_next ? &entry->unsent_next->unsent_previous : last) = entry->unsent_previous;
        entry->unsent_next = entry->unsent_previous = NULL;
    } else if (entry->state == PENDING_SENT) {
        if (entry->link) {
            entry->link->sent_bytes -= entry->bytes;
            entry->link->n_sent--;
        }
        entry->link = NULL;
    }
    entry->state = PENDING_WAITING;
}

void terse_pending_queue(terse_client *client, pending *entry)
{
    terse_pending_hold(client, entry);
    entry->state = PENDING_UNSENT;
    entry->unsent_ns = entry->shared ? 0 : terse_now_ns(); /* what is shared goes in order, however long it waits */
    pending **first = entry->shared ? &client->shared_first : &client->unsent_first;
    pending **last = entry->shared ? &client->shared_last : &client->unsent_last;
    entry->unsent_previous = *last;
    *(*last ? &(*last)->unsent_next : first) = entry;
    *last = entry;
}

void terse_pending_sent(terse_client *client, pending *entry, terse_link *link)
{
    terse_pending_hold(client, entry);
    entry->state = PENDING_SENT;
    entry->link = link;
    if (link) {
        link->sent_bytes += entry->bytes;
        link->n_sent++;
    }
}

static uint64_t next_random(uint64_t *state) /* xorshift64* (Vigna 2016) */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

/* A daemon that shuts down takes nothing more in. Whoever comes after it does: its refusal is a connection lost a
 * little early, for as long as a lost daemon would be waited for. */
static bool wait_for_next(terse_client *client, pending *entry, uint64_t now)
{
    if (entry->ended_ns == NEVER)
        entry->ended_ns = now;
    return now - entry->ended_ns < client->reconnect_ns;
}

/* A refused request that may be sent again waits for as long as the daemon says and up to half of that more, so that
 * those who were refused together do not come together. It is the same request under the same id: it did not run, and
 * the daemon has forgotten it. */
bool terse_pending_retry(terse_client *client, pending *entry, terse_status refusal, uint64_t retry_after_ms)
{
    const uint64_t now = terse_now_ns();
    if (entry->kind != PENDING_INFER || retry_after_ms > MAX_RETRY_MS)
        return false;
    const uint64_t after_ns = retry_after_ms * 1000000u;
    uint64_t due_ns = now + after_ns + next_random(&client->random) % (after_ns / 2 + 1);
    if (refusal == TERSE_UNAVAILABLE) {
        if (!wait_for_next(client, entry, now))
            return false;
        due_ns = due_ns < entry->deadline_ns ? due_ns : entry->deadline_ns; /* the next may come before that */
    } else {
        if (refusal != TERSE_RESOURCE_EXHAUSTED || entry->retries >= client->max_retries ||
            due_ns >= entry->no_retry_ns)
            return false;
        entry->retries++;
    }
    entry->refused = 0;
    terse_pending_hold(client, entry);
    terse_due_set(client, entry, due_ns);
    return true;
}

void terse_pending_next_came(terse_client *client, pending *entry)
{
    if (entry->state != PENDING_WAITING || entry->ended_ns == NEVER)
        return;
    terse_due_set(client, entry, entry->deadline_ns);
    terse_pending_queue(client, entry);
}

/* From unanswered to done; `reply` may be NULL when memory was out, which is told as such when it is taken. */
void terse_pending_complete(terse_client *client, pending *entry, terse_reply *reply)
{
    terse_pending_hold(client, entry);
    terse_due_set(client, entry, NEVER);
    unlink_entry(client, entry);
    client->n_unanswered--;
    drop_frames(entry);
    entry->state = PENDING_DONE;
    entry->reply = reply;
    if (entry->kind == PENDING_FORGET) {
        terse_table_remove(&client->table, entry->id);
        terse_pending_free(client, entry);
        return;
    }
    if (entry->kind != PENDING_INFER)
        return;
    entry->next_done = NULL;
    *(client->done_first ? &client->done_last->next_done : &client->done_first) = entry;
    client->done_last = entry;
}
