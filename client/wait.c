/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for replies and giving them out; the verbs of the interface. */
#include "client/arena.h"

#include <poll.h>
#include <string.h>

#include "client/links.h"
#include "client/loop.h"
#include "common/bytes.h"

enum { POLLS_HERE = 64 };

static uint64_t deadline_after(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : terse_now_ns() + (uint64_t)timeout_ms * 1000000u;
}

/* The same with the ring, on bare descriptors: asking the sockets costs more system calls than all the rest. They have
 * been asked since anything was sent, so their descriptors tell. */
static void wait_for_ring(terse_client *client, long ms)
{
    terse_client_arena *arena = client->arena;
    struct pollfd watched[] = {{.fd = arena->complete_fd, .events = POLLIN},
                               {.fd = arena->connection, .events = POLLIN},
                               {.fd = client->links[0].socket_fd, .events = POLLIN},
                               {.fd = client->links[0].monitor_fd, .events = POLLIN}};
    if (client->unsure || !terse_ring_arm(arena))
        return;
    const int n = poll(watched, sizeof watched / sizeof watched[0], ms > INT32_MAX ? INT32_MAX : (int)ms);
    arena->hung_up = watched[1].revents != 0;
    client->unsure = n < 0 || watched[2].revents || watched[3].revents;
    terse_ring_disarm(arena);
}

/* Waits for libzmq, a deadline of ours or `until_ns`, whichever is first. */
static void wait_for_events(terse_client *client, uint64_t until_ns)
{
    terse_client_arena *arena = client->arena;
    if (arena && arena->state == ARENA_ATTACHED && terse_ring_look(client, until_ns))
        return;
    const uint64_t next = terse_client_next_event_ns(client), now = terse_now_ns();
    if (next < until_ns)
        until_ns = next;
    long ms = -1;
    if (until_ns != UINT64_MAX)
        ms = until_ns <= now ? 0 : (long)((until_ns - now + 999999) / 1000000);
    /* The handshake may be told before there is a pipe: what could not be sent then waits for one. */
    zmq_pollitem_t items[2 * TERSE_MAX_LINKS + 1];
    bool wants_out = false;
    int n = 0;
    for (int i = 0; i < client->n_links; i++) {
        const terse_link *link = &client->links[i];
        const bool out = terse_client_wants_out(client, link);
        wants_out |= out;
        items[n++] = (zmq_pollitem_t){link->socket, 0, (short)(out ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN), 0};
        items[n++] = (zmq_pollitem_t){link->monitor, 0, ZMQ_POLLIN, 0};
    }
    if (arena && arena->state == ARENA_ATTACHED && !wants_out) {
        wait_for_ring(client, ms);
        return;
    }
    client->unsure = true;
    if (arena && arena->connection >= 0)
        items[n++] = (zmq_pollitem_t){NULL, arena->connection, ZMQ_POLLIN, 0};
    zmq_poll(items, n, ms);
}

/* --- taking replies --------------------------------------------------------------------------------------- */

static terse_reply *take(terse_client *client, pending *entry)
{
    terse_reply *reply = entry->reply;
    entry->reply = NULL;
    terse_table_remove(&client->table, entry->id);
    terse_pending_free(client, entry);
    return reply;
}

static void remove_done(terse_client *client, const pending *entry)
{
    pending *before = NULL;
    for (pending *at = client->done_first; at != entry; at = at->next_done)
        before = at;
    *(before ? &before->next_done : &client->done_first) = entry->next_done;
    if (client->done_last == entry)
        client->done_last = before;
}

static terse_status hand_out(terse_client *client, pending *entry, terse_reply **ret_reply)
{
    terse_reply *reply = take(client, entry);
    if (!reply)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a reply");
    *ret_reply = reply;
    return TERSE_OK;
}

terse_status terse_client_poll(terse_client *client, int timeout_ms, terse_reply **ret_reply)
{
    const uint64_t until = deadline_after(timeout_ms);
    if (client->done_first && client->done_first->here && ++client->polls_here % POLLS_HERE == 0)
        terse_client_process(client); /* who is refused here all the time would never hear of the daemon's answers */
    while (!client->done_first) {
        terse_client_process(client);
        if (client->done_first)
            break;
        if (timeout_ms < 0 && !client->first)
            return CLIENT_FAIL(TERSE_UNAVAILABLE, "nothing is outstanding: a wait without an end would never end");
        if (until != UINT64_MAX && terse_now_ns() >= until) {
            terse_loop_update(client);
            *ret_reply = NULL;
            return TERSE_OK;
        }
        wait_for_events(client, until);
    }
    pending *entry = client->done_first;
    client->done_first = entry->next_done;
    if (!client->done_first)
        client->done_last = NULL;
    const terse_status status = hand_out(client, entry, ret_reply);
    terse_loop_update(client);
    return status;
}

/* For requests and for our own operations. */
static terse_status wait_for(terse_client *client, pending *entry, int timeout_ms, terse_reply **ret_reply)
{
    const uint64_t until = deadline_after(timeout_ms);
    while (entry->state != PENDING_DONE) {
        terse_client_process(client);
        if (entry->state == PENDING_DONE)
            break;
        if (until != UINT64_MAX && terse_now_ns() >= until) {
            terse_loop_update(client);
            *ret_reply = NULL;
            return TERSE_OK;
        }
        wait_for_events(client, until);
    }
    if (entry->kind == PENDING_INFER)
        remove_done(client, entry);
    const terse_status status = hand_out(client, entry, ret_reply);
    terse_loop_update(client);
    return status;
}

terse_status terse_client_wait(terse_client *client, uint64_t id, int timeout_ms, terse_reply **ret_reply)
{
    pending *entry = terse_table_find(&client->table, id);
    if (!entry || entry->kind != PENDING_INFER)
        return CLIENT_FAIL(TERSE_NOT_FOUND, "request %llu is not outstanding", (unsigned long long)id);
    return wait_for(client, entry, timeout_ms, ret_reply);
}

/* --- the interface's verbs -------------------------------------------------------------------------------- */

terse_status terse_client_submit(terse_client *client, const terse_request *request, uint64_t *ret_id)
{
    terse_wire_request_init(&client->wire_request);
    terse_request_describe(request, &client->wire_request);
    if (request->arena && request->arena != client->arena)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT,
                           "the request lies in shared memory that is not attached to this client");
    if (request->arena && !terse_request_is_placed(request)) { /* over the socket, which many share */
        client->wire_request.has_arena = true;
        memcpy(client->wire_request.arena, client->arena->token, sizeof client->wire_request.arena);
    }
    const terse_status status =
        terse_client_send(client, TERSE_WIRE_INFER, PENDING_INFER, request, request->timeout_us, ret_id);
    terse_loop_update(client);
    return status;
}

/* A reply that says no becomes the thread's error. */
static terse_status reply_verdict(terse_reply *reply, terse_reply **ret_reply)
{
    if (reply->status == TERSE_OK) {
        *ret_reply = reply;
        return TERSE_OK;
    }
    const terse_status status =
        CLIENT_FAIL(reply->status == TERSE_SYSTEM ? TERSE_INTERNAL : reply->status, "%s", reply->error);
    terse_reply_free(reply);
    return status;
}

terse_status terse_client_infer(terse_client *client, const terse_request *request, terse_reply **ret_reply)
{
    uint64_t id;
    terse_reply *reply = NULL;
    terse_status status = terse_client_submit(client, request, &id);
    if (!status)
        status = terse_client_wait(client, id, -1, &reply);
    return status ? status : reply_verdict(reply, ret_reply);
}

terse_status terse_client_finish(terse_client *client, uint64_t id, int timeout_ms, terse_reply **ret_reply)
{
    pending *entry = terse_table_find(&client->table, id);
    terse_reply *reply = NULL;
    const terse_status status = wait_for(client, entry, timeout_ms, &reply);
    if (status)
        return status;
    if (!reply) { /* it may still come: then nobody waits for it */
        entry->kind = PENDING_FORGET;
        return CLIENT_FAIL(TERSE_DEADLINE_EXCEEDED, "the daemon at '%.300s' did not answer within %d ms",
                           client->endpoint, timeout_ms);
    }
    return reply_verdict(reply, ret_reply);
}

terse_status terse_client_cancel(terse_client *client, uint64_t id)
{
    const pending *entry = terse_table_find(&client->table, id);
    if (!entry || entry->kind != PENDING_INFER)
        return CLIENT_FAIL(TERSE_NOT_FOUND, "request %llu is not outstanding", (unsigned long long)id);
    if (entry->state == PENDING_DONE)
        return TERSE_OK;
    terse_wire_request_init(&client->wire_request);
    client->wire_request.has_target = true;
    client->wire_request.target = id;
    terse_link *link = client->n_links > 1 && entry->link && entry->link->connected ? entry->link : NULL;
    const terse_status status = terse_client_send_over(client, link, TERSE_WIRE_CANCEL, PENDING_FORGET);
    terse_loop_update(client);
    return status;
}

size_t terse_client_outstanding(const terse_client *client)
{
    return client->table.n;
}

uint64_t terse_client_throttled(const terse_client *client)
{
    return client->n_throttled;
}
