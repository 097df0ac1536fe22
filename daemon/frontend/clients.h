/* SPDX-License-Identifier: Apache-2.0 */
/* clients.h: the peers of the ROUTER socket, and requests by session and id.
 * Runs in: frontend. Ownership: the table owns its clients; requests and pins point at them, so that a client stays
 * until none does. */
#ifndef TERSE_FRONTEND_CLIENTS_H
#define TERSE_FRONTEND_CLIENTS_H

#include <zmq.h>

#include "daemon/frontend/queue.h"
#include "daemon/tap.h"

/* A reply that could not be sent yet. Its parts behind the header may be pinned. */
typedef struct terse_late_reply {
    struct terse_late_reply *next;
    uint32_t n_parts;
    zmq_msg_t parts[];
} terse_late_reply;

/* How long a slow client may take nothing before what it sends is refused. */
#define TERSE_SLOW_NS UINT64_C(1000000000)

typedef struct terse_client {
    struct terse_client *next; /* same bucket */
    struct terse_client *slow_previous, *slow_next;
    uint32_t peer;        /* routing id: a zero byte, then this number as the bytes stand */
    bool slow;            /* in the list of slow readers */
    bool parked;          /* its waiting requests are parked */
    bool gone;            /* the socket does not know it any more */
    uint32_t outstanding; /* requests that wait or run */
    uint32_t pins;
    uint32_t n_late;
    uint64_t owed_bytes;  /* pinned or copied, not yet sent by ZeroMQ */
    uint64_t input_bytes; /* held by its requests */
    uint64_t work_ns;     /* that they take a worker, as it was estimated */
    uint64_t seen_ns;     /* its last message */
    uint64_t slow_ns;     /* since when it is slow */
    uint64_t moved_ns;    /* when it last took something, while it is slow */
    uint64_t dropped;     /* replies that it never got */
    terse_tap_id connection;
    bool known;        /* terse_client_identify was asked */
    bool remote;       /* not a process of this host whose user the kernel vouches for */
    uint32_t uid, pid; /* of its process when it is not remote */
    terse_request *requests;
    terse_late_reply *late_first, *late_last;
    struct terse_client_arena *arena; /* whose completion ring takes its replies; NULL: a peer of the ROUTER */
} terse_client;

typedef struct terse_clients {
    terse_client **buckets;
    uint32_t n_buckets, n;
    uint32_t n_asking;  /* clients, those of arenas too, that have requests outstanding */
    uint64_t work_ns;   /* of these requests */
    terse_client *slow; /* those who do not read fast enough */
    uint64_t swept_ns;
} terse_clients;

/* Frees the replies that it never got. */
void terse_client_drop_late(terse_client *client);

bool terse_clients_init(terse_clients *clients);
void terse_clients_done(terse_clients *clients);
/* The client of a peer, made if it is new; NULL when memory is out. */
terse_client *terse_clients_get(terse_clients *clients, uint32_t peer, uint64_t now_ns);
/* Who a client is: `address` is what ZeroMQ says of its connection ("Peer-Address" of a message; NULL: nothing). On ipc
 * the kernel tells the user and the process there; everybody else, the gate's clients too, is remote. */
void terse_client_identify(terse_client *client, const char *address, uint32_t gate_pid);
/* A request becomes a client's, or is its no more (no client's, too). */
void terse_client_join(terse_clients *clients, terse_client *client, terse_request *request);
void terse_client_leave(terse_clients *clients, terse_request *request);
/* Whether it may load, unload and configure: a process of root's or of the daemon's own user, over ipc. */
bool terse_client_is_admin(const terse_client *client);
/* Drops those who hold nothing and were not heard of for ten seconds; does it once a second at most. */
void terse_clients_sweep(terse_clients *clients, uint64_t now_ns);

/* Requests by (session, id). */
typedef struct terse_sessions {
    terse_request **buckets;
    uint32_t n_buckets, n;
} terse_sessions;

bool terse_sessions_init(terse_sessions *sessions, uint32_t expected);
void terse_sessions_done(terse_sessions *sessions);
void terse_sessions_add(terse_sessions *sessions, terse_request *request);
void terse_sessions_remove(terse_sessions *sessions, terse_request *request);
terse_request *terse_sessions_find(const terse_sessions *sessions, const uint8_t *session, uint64_t id);

#endif
