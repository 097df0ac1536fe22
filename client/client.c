/* SPDX-License-Identifier: Apache-2.0 */
/* What is on its way: sending, receiving, and what time does. links.h has the connections. */
#include "client/arena.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/links.h"
#include "client/loop.h"
#include "common/bytes.h"

enum {
    GRACE_NS = 100 * 1000 * 1000, /* how much later than the daemon we end a request ourselves */
    BEHIND_NS = 10 * 1000 * 1000, /* next_unsent */
    WINDOW_GROWTH = 8,            /* a link's window grows back by such a part of what is answered */
    GLANCES = 16,                 /* at the completion ring for one look at everything */
};

/* --- sending ---------------------------------------------------------------------------------------------- */

/* Sends one entry whole; false when the socket takes no more (libzmq takes a message whole or not at all: only its
 * first frame can be refused). */
static bool send_over(terse_client *client, terse_link *link, pending *entry)
{
    client->unsure = true;
    for (int i = 0; i < entry->n_frames; i++) {
        zmq_msg_t copy;
        zmq_msg_init(&copy);
        zmq_msg_copy(&copy, &entry->frames[i]);
        int sent;
        do
            sent = zmq_msg_send(&copy, link->socket, ZMQ_DONTWAIT | (i + 1 < entry->n_frames ? ZMQ_SNDMORE : 0));
        while (sent < 0 && errno == EINTR);
        if (sent < 0) {
            zmq_msg_close(&copy);
            return false;
        }
    }
    if (client->n_links > 1 && link->n_sent == 0 && !link->probed)
        link->waiting_ns = terse_now_ns();
    terse_pending_sent(client, entry, link);
    return true;
}

static bool send_entry(terse_client *client, pending *entry)
{
    for (terse_link *link; (link = terse_links_choose(client, entry)); link->full = true)
        if (send_over(client, link, entry))
            return true;
    return false;
}

static void try_all_again(terse_client *client)
{
    for (int i = 0; i < client->n_links; i++)
        client->links[i].full = false;
}

/* In the order of submission, unless that has kept the first waiting for BEHIND_NS: a daemon that cannot take all would
 * get every request when its time is nearly over, and could answer none. The latest have the most time left, so they go
 * first then, and every eighth turn is left to the one that waits for longest. */
static pending *next_unsent(terse_client *client, uint64_t now)
{
    pending *first = client->unsent_first;
    if (first->unsent_ns + BEHIND_NS > now || ++client->turns % 8 == 0)
        return first;
    return client->unsent_last;
}

static void send_unsent(terse_client *client)
{
    const uint64_t now = terse_now_ns();
    try_all_again(client);
    while (client->unsent_first && send_entry(client, next_unsent(client, now)))
        ;
}

/* What lies in the arena goes out in the order of submission, through the ring or over the socket. */
static void send_shared(terse_client *client)
{
    terse_client_arena *arena = client->arena;
    try_all_again(client);
    for (pending *entry; (entry = client->shared_first) && arena->state == ARENA_ATTACHED;) {
        if (!entry->ring) {
            if (!send_entry(client, entry))
                return;
        } else if (terse_ring_submit(arena, zmq_msg_data(&entry->frames[0]), zmq_msg_size(&entry->frames[0]))) {
            terse_pending_sent(client, entry, NULL);
        } else {
            return;
        }
    }
}

static void append(terse_client *client, pending *entry)
{
    terse_table_put(&client->table, entry);
    entry->previous = client->last;
    *(client->last ? &client->last->next : &client->first) = entry;
    client->last = entry;
    client->n_unanswered++;
}

/* --- what a flooded daemon is spared --------------------------------------------------------------------------- */

/* The entry waits to be sent again, or its reply is there. */
static void refuse_here(terse_client *client, pending *entry, const terse_throttle *throttle)
{
    client->n_throttled++;
    if (terse_pending_retry(client, entry, throttle->status, throttle->retry_after_ms))
        return;
    terse_reply *reply = terse_reply_make_failed(entry->id, throttle->status, throttle->text);
    if (reply)
        reply->retry_after_ms = throttle->retry_after_ms;
    entry->here = true;
    terse_pending_complete(client, entry, reply);
}

static bool is_refused_here(terse_client *client, pending *entry, uint64_t now)
{
    terse_throttle *throttle = terse_throttle_find(client->throttles, entry->throttle_key);
    if (!throttle || !throttle->active || !terse_throttle_refuses(throttle, now, client->max_refusals))
        return false;
    refuse_here(client, entry, throttle);
    return true;
}

/* The same of one that is not to be sent ever: without its frames. */
static terse_status submit_refused(terse_client *client, const terse_throttle *throttle, uint64_t *ret_id)
{
    pending *entry = terse_pending_new(client, PENDING_INFER, 0);
    if (!entry)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a request");
    entry->id = client->next_id++;
    append(client, entry);
    if (ret_id)
        *ret_id = entry->id;
    refuse_here(client, entry, throttle);
    return TERSE_OK;
}

/* What the daemon says of a request counts for those that are like it. */
static void note_verdict(terse_client *client, const pending *entry, const terse_wire_reply *wire)
{
    terse_throttle *throttle = terse_throttle_find(client->throttles, entry->throttle_key);
    if (wire->status == TERSE_UNAVAILABLE)
        terse_throttle_forget(client->throttles);
    if (!throttle || wire->status == TERSE_UNAVAILABLE)
        return;
    if (wire->has_retry_after && (wire->status == TERSE_RESOURCE_EXHAUSTED || wire->status == TERSE_DEADLINE_EXCEEDED))
        terse_throttle_refused(throttle, terse_now_ns(), client->max_refusals, wire->status, wire->retry_after_ms);
    else
        terse_throttle_taken(throttle);
}

/* --- sending one -------------------------------------------------------------------------------------------------- */

static terse_status send_request(terse_client *client, terse_link *only, terse_wire_op op, pending_kind kind,
                                 const terse_request *request, uint64_t timeout_us, uint64_t *ret_id)
{
    /* Operations of our own pass the limit: a cancel must not fail because everything is full. */
    if ((kind == PENDING_INFER && client->n_unanswered >= client->max_outstanding) ||
        client->table.n > client->table.mask / 2)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "%zu requests are outstanding, %zu are allowed", client->table.n,
                           client->max_outstanding);
    terse_wire_request *wire = &client->wire_request;
    terse_throttle *throttle = request ? terse_throttle_of(client->throttles, request->throttle_key) : NULL;
    const bool throttled = throttle && throttle->active;
    const uint64_t now = wire->has_timeout || wire->trace || timeout_us || client->max_retries || throttled
                             ? terse_now_ns()
                             : 0; /* else not needed */
    if (throttled && !client->max_retries && terse_throttle_refuses(throttle, now, client->max_refusals))
        return submit_refused(client, throttle, ret_id);
    wire->op = op;
    wire->has_sent = client->local && wire->has_timeout;
    wire->sent_ns = now;
    wire->has_id = wire->has_session = true;
    wire->id = client->next_id;
    memcpy(wire->session, client->session, sizeof wire->session);
    size_t size;
    const int status =
        terse_wire_encode_request(wire, client->buffer, sizeof client->buffer, &size, terse_client_error_slot());
    if (status)
        return (terse_status)status;
    int n_inputs = 0;
    for (int i = 0; request && i < request->n_inputs; i++)
        n_inputs += !request->inputs[i].placed;
    pending *entry = terse_due_reserve(client) ? terse_pending_new(client, kind, n_inputs + 1) : NULL;
    if (!entry || zmq_msg_init_size(&entry->frames[0], size) < 0) {
        if (entry)
            terse_pending_free(client, entry);
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a request");
    }
    memcpy(zmq_msg_data(&entry->frames[0]), client->buffer, size);
    n_inputs = 0;
    for (int i = 0; request && i < request->n_inputs; i++) /* shares the bytes; the request is not changed by it */
        if (!request->inputs[i].placed)
            zmq_msg_copy(&entry->frames[++n_inputs], (zmq_msg_t *)(uintptr_t)&request->inputs[i].data);
    entry->shared = request && request->arena;
    entry->ring = request && terse_request_is_placed(request);
    entry->id = client->next_id++;
    entry->only = only;
    entry->throttle_key = throttle ? throttle->key : 0;
    entry->submitted_ns = wire->trace ? now : 0;
    for (int i = 0; i < entry->n_frames; i++)
        entry->bytes += zmq_msg_size(&entry->frames[i]);
    append(client, entry);
    if (timeout_us > 0 && timeout_us < UINT64_MAX / 4000)
        entry->deadline_ns = now + timeout_us * 1000;
    entry->no_retry_ns = now + client->retry_budget_ns;
    if (entry->no_retry_ns > entry->deadline_ns)
        entry->no_retry_ns = entry->deadline_ns;
    terse_due_set(client, entry, entry->deadline_ns);
    if (ret_id)
        *ret_id = entry->id;
    if (throttled && client->max_retries && is_refused_here(client, entry, now))
        return TERSE_OK;
    terse_pending_queue(client, entry);
    if (client->unsent_first == entry) /* what waits is sent first */
        send_entry(client, entry);
    else if (client->shared_first == entry)
        send_shared(client);
    return TERSE_OK;
}

terse_status terse_client_send(terse_client *client, terse_wire_op op, pending_kind kind, const terse_request *request,
                               uint64_t timeout_us, uint64_t *ret_id)
{
    return send_request(client, NULL, op, kind, request, timeout_us, ret_id);
}

terse_status terse_client_send_over(terse_client *client, terse_link *link, terse_wire_op op, pending_kind kind)
{
    return send_request(client, link, op, kind, NULL, 0, NULL);
}

terse_status terse_client_want_one(const terse_client *client, const char *what)
{
    return client->n_links == 1
               ? TERSE_OK
               : CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "%s is asked of one daemon; the endpoint '%.300s' names %d", what,
                             client->endpoint, client->n_links);
}

/* --- receiving -------------------------------------------------------------------------------------------- */

/* What libterse knows of the times of a traced request. */
static void note_trace(const pending *entry, const terse_wire_reply *wire, terse_reply *reply)
{
    if (!reply || !entry->submitted_ns || !wire->has_trace)
        return;
    reply->has_trace = true;
    reply->trace = wire->trace;
    reply->submitted_ns = entry->submitted_ns;
    reply->completed_ns = terse_now_ns();
}

/* false: the daemon's word is the answer. */
static bool is_retried(terse_client *client, pending *entry, const terse_wire_reply *wire)
{
    note_verdict(client, entry, wire);
    return wire->has_retry_after && terse_pending_retry(client, entry, wire->status, wire->retry_after_ms);
}

static void handle_message(terse_client *client, terse_link *link, zmq_msg_t *frames, int n)
{
    terse_error error = {0};
    terse_wire_reply *wire = &client->wire_reply;
    terse_wire_reply_init(wire);
    const int status = n == 0
                           ? TERSE_INTERNAL
                           : terse_wire_decode_reply(zmq_msg_data(&frames[0]), zmq_msg_size(&frames[0]), wire, &error);
    pending *entry = n > 0 && wire->has_id ? terse_table_find(&client->table, wire->id) : NULL;
    if (!entry || entry->state == PENDING_DONE)
        return; /* a second answer, or not for us */
    const size_t growth = entry->bytes / WINDOW_GROWTH;
    link->window_cut -= growth < link->window_cut ? growth : link->window_cut;
    if (client->n_links > 1 && entry->link != link && (status || wire->status != TERSE_OK))
        return; /* given up there: another daemon has it, whose word counts */
    if (!status && (terse_links_turn_away(client, link, entry, wire) || is_retried(client, entry, wire)))
        return;
    if (entry->kind != PENDING_INFER)
        wire->n_outputs = 0; /* metadata's have no frames; whoever waits decodes the header that is kept */
    terse_reply *reply = NULL;
    if (status)
        reply = terse_reply_make_failed(wire->id, TERSE_INTERNAL, error.message);
    else if (terse_reply_make(wire, &frames[0], frames + 1, n - 1, entry->kind == PENDING_OWN,
                              entry->shared ? client->arena : NULL, &reply))
        reply = terse_reply_make_failed(wire->id, TERSE_INTERNAL, terse_last_error());
    note_trace(entry, wire, reply);
    terse_pending_complete(client, entry, reply);
}

void terse_client_take_completion(terse_client *client, const void *header, size_t bytes)
{
    terse_error error = {0};
    const terse_wire_reply *wire = NULL;
    const int status = terse_wire_decode_reply_like(&client->replies, header, bytes, &wire, &error);
    pending *entry = wire->has_id ? terse_table_find(&client->table, wire->id) : NULL;
    terse_reply *reply = NULL;
    if (!entry || entry->state == PENDING_DONE || !entry->ring || (!status && is_retried(client, entry, wire)))
        return;
    if (status)
        reply = terse_reply_make_failed(wire->id, TERSE_INTERNAL, error.message);
    else if (terse_reply_make(wire, NULL, NULL, 0, false, client->arena, &reply))
        reply = terse_reply_make_failed(wire->id, TERSE_INTERNAL, terse_last_error());
    note_trace(entry, wire, reply);
    terse_pending_complete(client, entry, reply);
}

static void receive_all(terse_client *client)
{
    zmq_msg_t frames[TERSE_LINK_FRAMES];
    int n = 0;
    for (int i = 0; i < client->n_links; i++) {
        terse_link *link = &client->links[i];
        while (terse_links_receive(link, frames, &n)) {
            terse_links_heard(client, link);
            handle_message(client, link, frames, n);
            for (int k = 0; k < n; k++)
                zmq_msg_close(&frames[k]);
        }
    }
}

/* --- loss and time ---------------------------------------------------------------------------------------- */

static void fail_entry(terse_client *client, pending *entry, terse_status status, const char *text)
{
    terse_pending_complete(client, entry, terse_reply_make_failed(entry->id, status, text));
}

static void fail_all_lost(terse_client *client, uint64_t now)
{
    char text[TERSE_WIRE_MAX_TEXT + 128];
    snprintf(text, sizeof text, "no daemon at '%.1000s' for %llu ms", client->endpoint,
             (unsigned long long)((now - client->lost_since_ns) / 1000000u));
    while (client->first)
        fail_entry(client, client->first, TERSE_UNAVAILABLE, text);
}

/* --- the arena ------------------------------------------------------------------------------------------------ */

/* The header names the arena by its token, once: the new one takes the old one's place. */
static void rename_arena(pending *entry, const uint8_t *old_token, const uint8_t *token)
{
    zmq_msg_t header;
    const size_t size = zmq_msg_size(&entry->frames[0]);
    const uint8_t *bytes = zmq_msg_data(&entry->frames[0]);
    const uint8_t *found = memmem(bytes, size, old_token, TERSE_WIRE_ARENA_BYTES);
    /* A copy: the socket may still hold the old one. */
    if (!found || zmq_msg_init_size(&header, size) < 0)
        return;
    memcpy(zmq_msg_data(&header), bytes, size);
    memcpy((uint8_t *)zmq_msg_data(&header) + (found - bytes), token, TERSE_WIRE_ARENA_BYTES);
    zmq_msg_move(&entry->frames[0], &header);
    zmq_msg_close(&header);
}

void terse_client_arena_renewed(terse_client *client, const uint8_t *old_token)
{
    for (pending *entry = client->first; entry; entry = entry->next) {
        if (!entry->shared)
            continue;
        if (!entry->ring)
            rename_arena(entry, old_token, client->arena->token);
        if (entry->state != PENDING_WAITING)
            terse_pending_queue(client, entry);
        terse_pending_next_came(client, entry);
    }
}

static void fail_shared(terse_client *client, terse_status status, const char *text)
{
    for (pending *entry = client->first, *next; entry; entry = next) {
        next = entry->next;
        if (entry->shared)
            fail_entry(client, entry, status, text);
    }
}

void terse_client_arena_detached(terse_client *client)
{
    fail_shared(client, TERSE_CANCELLED, "the shared memory was detached");
}

/* true while the arena alone will bring the entry's answer: its memory is not the user's before that. */
static bool must_wait(const terse_client *client, const pending *entry)
{
    return entry->shared && entry->state == PENDING_SENT && client->arena->state == ARENA_ATTACHED;
}

static void process_arena(terse_client *client, bool look)
{
    terse_client_arena *arena = client->arena;
    terse_ring_disarm(arena); /* somebody else's event loop slept */
    terse_arena_process(client, look);
    if (arena->state == ARENA_ATTACHED)
        terse_ring_receive(client);
    else if (client->first && terse_now_ns() - arena->lost_since_ns >= client->reconnect_ns)
        fail_shared(client, TERSE_UNAVAILABLE, "the daemon gives no shared memory any more");
    if (client->shared_first)
        send_shared(client);
}

/* Does what is due: sends again, or ends what waited too long. What the daemon has is given a little longer than the
 * daemon gives it: its answer says more than ours. */
static void expire(terse_client *client)
{
    const uint64_t now = terse_now_ns();
    terse_links_tick(client, now);
    if (client->n_connected == 0 && client->first && now - client->lost_since_ns >= client->reconnect_ns)
        fail_all_lost(client, now);
    while (terse_due_next(client) <= now) {
        pending *entry = client->due[0];
        if (now < entry->deadline_ns) { /* it waits to be sent again */
            terse_due_set(client, entry, entry->deadline_ns);
            if (entry->ended_ns != NEVER || !is_refused_here(client, entry, now))
                terse_pending_queue(client, entry);
        } else if (must_wait(client, entry)) {
            terse_due_set(client, entry, now + GRACE_NS);
        } else if (entry->state == PENDING_SENT && now < entry->deadline_ns + GRACE_NS) {
            terse_due_set(client, entry, entry->deadline_ns + GRACE_NS);
        } else {
            fail_entry(client, entry, TERSE_DEADLINE_EXCEEDED,
                       entry->state == PENDING_SENT ? "the daemon did not answer in the request's time"
                                                    : "the daemon took no more requests in the request's time");
        }
    }
    if (client->unsent_first)
        send_unsent(client);
}

bool terse_client_wants_out(const terse_client *client, const terse_link *link)
{
    return client->unsent_first && link->connected && link->full;
}

uint64_t terse_client_next_event_ns(const terse_client *client)
{
    uint64_t next = terse_due_next(client);
    const uint64_t silence = terse_links_next_ns(client);
    if (silence < next)
        next = silence;
    if (client->arena && client->arena->state == ARENA_LOST && client->arena->retry_ns < next)
        next = client->arena->retry_ns;
    if (client->n_connected == 0 && client->first && client->lost_since_ns + client->reconnect_ns < next)
        next = client->lost_since_ns + client->reconnect_ns;
    return next;
}

void terse_client_process(terse_client *client)
{
    const bool glance = client->arena && client->arena->state == ARENA_ATTACHED && ++client->glances % GLANCES;
    if (glance) {
        terse_ring_receive(client);
        if (client->done_first) /* all else can wait until nothing is there */
            return;
    }
    const bool look = !glance || client->unsure || client->epoll_fd >= 0;
    if (look) {
        client->unsure = false;
        receive_all(client);
        terse_links_watch(client);
    }
    if (client->arena)
        process_arena(client, look);
    expire(client);
}
