/* SPDX-License-Identifier: Apache-2.0 */
#include "client/links.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/loop.h"
#include "common/bytes.h"

enum {
    /* What may lie in sockets and pipes on its way. What is beyond waits here, where its time can end without costing
     * the daemon anything: a daemon that falls behind gets what can still be answered, not what is over. */
    SEND_MARK = 512,
    HANDSHAKE_MS = 5000, /* who accepts and then says nothing is asked anew */
    NS_PER_BYTE = 50,    /* a link with much on its way is given that much longer before it counts as silent */
    GIVE_UP_MS = 10000,  /* several links: a connection whose data nobody acknowledges for so long is made anew */
    REFUSES_MS = 1000,   /* who refuses without saying for how long */
    MAX_REFUSES_MS = 60 * 1000,
};

/* --- beginning and end ---------------------------------------------------------------------------------------- */

static bool set_options(const terse_client *client, void *socket)
{
    const int zero = 0, yes = 1, mark = SEND_MARK, first_ms = 1, last_ms = 100, give_up = GIVE_UP_MS,
              handshake_ms = HANDSHAKE_MS;
    const int64_t max_frame = TERSE_MAX_TENSOR_BYTES;
    return zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero) == 0 &&
           zmq_setsockopt(socket, ZMQ_SNDHWM, &mark, sizeof mark) == 0 &&
           zmq_setsockopt(socket, ZMQ_RCVHWM, &zero, sizeof zero) == 0 &&
           zmq_setsockopt(socket, ZMQ_IMMEDIATE, &yes, sizeof yes) == 0 &&
           zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_frame, sizeof max_frame) == 0 &&
           zmq_setsockopt(socket, ZMQ_HANDSHAKE_IVL, &handshake_ms, sizeof handshake_ms) == 0 &&
           zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &first_ms, sizeof first_ms) == 0 &&
           zmq_setsockopt(socket, ZMQ_RECONNECT_IVL_MAX, &last_ms, sizeof last_ms) == 0 &&
           (client->n_links == 1 || zmq_setsockopt(socket, ZMQ_TCP_MAXRT, &give_up, sizeof give_up) == 0);
}

static terse_status open_link(terse_client *client, terse_link *link, const terse_client_options *options)
{
    char monitor[64];
    snprintf(monitor, sizeof monitor, "inproc://monitor-%d", (int)(link - client->links));
    link->socket = zmq_socket(client->context, ZMQ_DEALER);
    link->monitor = zmq_socket(client->context, ZMQ_PAIR);
    if (!link->socket || !link->monitor || !set_options(client, link->socket) ||
        zmq_socket_monitor(link->socket, monitor, ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED) < 0 ||
        zmq_connect(link->monitor, monitor) < 0)
        return CLIENT_FAIL(TERSE_UNAVAILABLE, "cannot make a ZeroMQ socket: %s", zmq_strerror(zmq_errno()));
    const terse_status keys = terse_client_set_keys(client, link, options);
    if (keys)
        return keys;
    if (zmq_connect(link->socket, link->endpoint) < 0)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT,
                           "endpoint '%.300s' cannot be used: %s (ipc://PATH and tcp://HOST:PORT can)", link->endpoint,
                           zmq_strerror(zmq_errno()));
    link->socket_fd = terse_loop_descriptor(link->socket);
    link->monitor_fd = terse_loop_descriptor(link->monitor);
    return TERSE_OK;
}

terse_status terse_links_open(terse_client *client, const terse_client_options *options)
{
    int n = 1;
    for (const char *c = client->endpoint; *c; c++)
        n += *c == ',';
    if (n > TERSE_MAX_LINKS)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "endpoint '%.300s' names %d daemons, at most %d are allowed",
                           client->endpoint, n, TERSE_MAX_LINKS);
    client->links = calloc((size_t)n, sizeof *client->links);
    if (!client->links)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a client");
    client->n_links = n;
    client->context = zmq_ctx_new();
    client->local = true;
    const char *at = client->endpoint;
    for (int i = 0; i < n; i++, at++) {
        const size_t length = strcspn(at, ",");
        terse_link *link = &client->links[i];
        if (!client->context || !(link->endpoint = strndup(at, length)))
            return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a client");
        client->local &= strncmp(at, "ipc://", 6) == 0;
        const terse_status status = open_link(client, link, options);
        if (status)
            return status;
        at += length;
    }
    return TERSE_OK;
}

void terse_links_close(terse_client *client)
{
    for (int i = 0; i < client->n_links; i++) {
        terse_link *link = &client->links[i];
        if (link->socket) {
            zmq_socket_monitor(link->socket, NULL, 0);
            zmq_close(link->socket);
        }
        if (link->monitor) {
            const int zero = 0;
            zmq_setsockopt(link->monitor, ZMQ_LINGER, &zero, sizeof zero);
            zmq_close(link->monitor);
        }
        free(link->endpoint);
    }
    if (client->context) /* messages in replies that live on do not need it */
        zmq_ctx_term(client->context);
    free(client->links);
}

/* --- which one ------------------------------------------------------------------------------------------------- */

/* The lower the better; -1: not at all. */
static int rank_of(const terse_link *link, uint64_t now)
{
    return !link->connected ? -1 : link->silent ? 2 : link->refuses_until_ns > now;
}

static int best_rank(const terse_client *client, uint64_t now)
{
    int best = -1;
    for (int i = 0; i < client->n_links; i++) {
        const int rank = rank_of(&client->links[i], now);
        if (rank >= 0 && (best < 0 || rank < best))
            best = rank;
    }
    return best;
}

static bool has_room(const terse_link *link, const pending *entry)
{
    return link->sent_bytes == 0 || link->sent_bytes + entry->bytes <= TERSE_WINDOW_BYTES - link->window_cut;
}

terse_link *terse_links_choose(terse_client *client, const pending *entry)
{
    const uint64_t now = client->n_links > 1 ? terse_now_ns() : 0;
    const int best = best_rank(client, now), n = client->n_links;
    terse_link *chosen = NULL;
    client->next_link = client->next_link + 1 < n ? client->next_link + 1 : 0; /* equal ones take turns */
    for (int i = 0; i < n && best >= 0; i++) {
        terse_link *link = &client->links[(client->next_link + i) % n];
        if (entry->only ? entry->only != link || !link->connected : rank_of(link, now) != best)
            continue;
        if (!link->full && has_room(link, entry) && (!chosen || link->n_sent < chosen->n_sent))
            chosen = link;
    }
    return chosen;
}

/* --- loss, silence, refusal --------------------------------------------------------------------------------------- */

/* What went over the link and is not answered is to go out again, but for what is meant for nobody else. */
static void requeue(terse_client *client, const terse_link *link)
{
    for (pending *entry = client->first, *next; entry; entry = next) {
        next = entry->next;
        if (entry->only == link)
            terse_pending_complete(client, entry, NULL);
        else if (entry->state == PENDING_SENT && entry->link == link)
            terse_pending_queue(client, entry);
    }
}

static bool others_there(const terse_client *client, const terse_link *link)
{
    for (int i = 0; i < client->n_links; i++)
        if (&client->links[i] != link && client->links[i].connected && !client->links[i].silent)
            return true;
    return false;
}

void terse_links_heard(terse_client *client, terse_link *link)
{
    if (client->n_links == 1)
        return;
    link->silent = link->probed = false;
    link->waiting_ns = terse_now_ns();
}

/* In the order of submission: all that is unsent, and all that was sent to where nobody is any more. */
static void connected(terse_client *client, terse_link *link)
{
    client->n_connected += !link->connected;
    link->connected = true;
    link->refuses_until_ns = 0;
    terse_links_heard(client, link);
    for (pending *entry = client->first; entry; entry = entry->next) {
        if (entry->ring)
            continue;
        if (entry->state == PENDING_UNSENT ||
            (entry->state == PENDING_SENT && (entry->link == link || !entry->link->connected)))
            terse_pending_queue(client, entry);
        terse_pending_next_came(client, entry);
    }
}

static void lost(terse_client *client, terse_link *link)
{
    client->n_connected -= link->connected;
    if (link->connected && client->n_connected == 0)
        client->lost_since_ns = terse_now_ns();
    if (client->n_connected == 0)
        terse_throttle_forget(client->throttles);
    link->window_cut = TERSE_WINDOW_BYTES - TERSE_LOST_WINDOW_BYTES;
    link->connected = false;
    if (client->n_connected > 0)
        requeue(client, link);
}

static void read_monitor(terse_client *client, terse_link *link)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    while (zmq_msg_recv(&frame, link->monitor, ZMQ_DONTWAIT) >= 0) {
        uint16_t event = 0;
        if (zmq_msg_size(&frame) >= sizeof event)
            memcpy(&event, zmq_msg_data(&frame), sizeof event);
        if (zmq_msg_more(&frame)) /* the endpoint: there is only one */
            zmq_msg_recv(&frame, link->monitor, 0);
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            connected(client, link);
        else if (event == ZMQ_EVENT_DISCONNECTED)
            lost(client, link);
    }
    zmq_msg_close(&frame);
}

static bool receive_frame(terse_link *link, zmq_msg_t *frame)
{
    int got;
    zmq_msg_init(frame);
    do
        got = zmq_msg_recv(frame, link->socket, ZMQ_DONTWAIT);
    while (got < 0 && errno == EINTR);
    terse_frames_count(&link->frames, got >= 0);
    if (got < 0)
        zmq_msg_close(frame);
    return got >= 0;
}

bool terse_links_receive(terse_link *link, zmq_msg_t *frames, int *ret_n)
{
    int n = 0;
    uint32_t n_frames = 0;
    bool surplus = false;
    zmq_msg_t frame;
    terse_frames_begin(&link->frames, link->socket);
    while (receive_frame(link, &frame)) {
        const bool more = zmq_msg_more(&frame);
        n_frames++;
        if (n < TERSE_LINK_FRAMES) {
            zmq_msg_init(&frames[n]);
            zmq_msg_move(&frames[n++], &frame);
        } else {
            surplus = true;
        }
        zmq_msg_close(&frame);
        if (more)
            continue;
        terse_frames_end(&link->frames, n_frames);
        for (; surplus && n > 0; n--)
            zmq_msg_close(&frames[n - 1]);
        *ret_n = n;
        return true;
    }
    return false;
}

void terse_links_watch(terse_client *client)
{
    for (int i = 0; i < client->n_links; i++)
        read_monitor(client, &client->links[i]);
}

bool terse_links_turn_away(terse_client *client, terse_link *link, pending *entry, const terse_wire_reply *wire)
{
    const bool refusal =
        wire->status == TERSE_UNAVAILABLE || (wire->status == TERSE_RESOURCE_EXHAUSTED && wire->has_retry_after);
    if (client->n_links == 1 || entry->kind != PENDING_INFER || !refusal)
        return false;
    uint64_t ms = wire->has_retry_after ? wire->retry_after_ms : REFUSES_MS;
    ms = ms < MAX_REFUSES_MS ? ms : MAX_REFUSES_MS;
    link->refuses_until_ns = terse_now_ns() + 1000000u * ms;
    entry->refused |= 1u << (link - client->links);
    for (int i = 0; i < client->n_links; i++) {
        const terse_link *other = &client->links[i];
        if (other->connected && !other->silent && !(entry->refused >> i & 1)) {
            terse_pending_queue(client, entry);
            return true;
        }
    }
    return false;
}

/* How long a link may bring nothing before it is asked, and before that is no answer. */
static uint64_t patience_ns(const terse_client *client, const terse_link *link)
{
    return client->resend_ns / 2 + link->sent_bytes * NS_PER_BYTE;
}

/* Its reply has an id that no request has, so that nobody waits for it: that it comes is all. */
static void probe(terse_client *client, terse_link *link, uint64_t now)
{
    terse_wire_request *wire = &client->wire_request;
    size_t size;
    link->probed = true;
    link->waiting_ns = now;
    terse_wire_request_init(wire);
    wire->op = TERSE_WIRE_LIVE;
    wire->has_id = true;
    wire->id = 0;
    zmq_msg_t header;
    if (terse_wire_encode_request(wire, client->buffer, sizeof client->buffer, &size, terse_client_error_slot()) ||
        zmq_msg_init_size(&header, size) < 0)
        return;
    memcpy(zmq_msg_data(&header), client->buffer, size);
    if (zmq_msg_send(&header, link->socket, ZMQ_DONTWAIT) < 0) /* a socket that takes nothing is an answer as well */
        zmq_msg_close(&header);
    client->unsure = true;
}

void terse_links_tick(terse_client *client, uint64_t now)
{
    for (int i = 0; i < client->n_links && client->n_links > 1; i++) {
        terse_link *link = &client->links[i];
        if (!link->connected || link->silent)
            continue;
        if (link->n_sent == 0 && !link->probed)
            link->waiting_ns = now; /* it owes nothing */
        else if (now - link->waiting_ns < patience_ns(client, link))
            continue;
        else if (!link->probed)
            probe(client, link, now);
        else if (others_there(client, link)) {
            link->silent = true;
            requeue(client, link);
        }
    }
}

uint64_t terse_links_next_ns(const terse_client *client)
{
    uint64_t next = NEVER;
    for (int i = 0; i < client->n_links && client->n_links > 1; i++) {
        const terse_link *link = &client->links[i];
        if (!link->connected || link->silent || (link->n_sent == 0 && !link->probed))
            continue;
        uint64_t due = link->waiting_ns + patience_ns(client, link);
        if (link->probed && !others_there(client, link)) /* nothing will come of it: another one must be made first */
            due = NEVER;
        if (due < next)
            next = due;
    }
    return next;
}
