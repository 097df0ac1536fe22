/* SPDX-License-Identifier: Apache-2.0 */
/* gate.h: the gate's one struct, and what its rooms do for each other.
 * Runs in: terse-gate, one thread (ZeroMQ has its own for the sockets; it meets us in pins.c and daemon/tap.h).
 * Ownership: the struct owns everything below it. A remote is known by its place in `remotes`.
 *
 * Rooms: main.c starts and confines; loop.c waits; control.c hears the supervisor; door.c tells who may come in;
 * forward.c takes requests apart and hands them on; remotes.c knows the clients and brings replies back; pins.c counts
 * the bytes that lie with ZeroMQ. */
#ifndef TERSE_GATE_GATE_H
#define TERSE_GATE_GATE_H

#include <stdatomic.h>
#include <zmq.h>

#include "common/frames.h"
#include "common/wire.h"
#include "daemon/log.h"
#include "daemon/protocol.h"
#include "daemon/tap.h"

enum {
    TERSE_GATE_PARTS = 1 + TERSE_WIRE_MAX_IO,
    TERSE_GATE_LISTENERS = 64,
};

#define TERSE_GATE_NOBODY UINT32_MAX

/* Descriptors of one client: its connection, ours to the front end, and what wakes that; and those of the gate. */
enum { TERSE_GATE_FILES_OF_CLIENT = 4, TERSE_GATE_FILES_BESIDE = 64 };

/* Bytes of one remote's replies that ZeroMQ still has. Outlives the remote as long as it has some. */
typedef struct terse_gate_account {
    atomic_uint users;
    _Atomic uint64_t bytes;
} terse_gate_account;

/* A client over tcp that has sent a request: it has a connection to the front end of its own, so that it is one client
 * there too, with limits and a turn of its own. */
typedef struct terse_gate_remote {
    bool used;
    bool touched;                /* its connection to the front end may have something for us */
    bool slow;                   /* takes its replies too slowly: none are taken from the front end for it */
    uint32_t id;                 /* ZeroMQ's routing id: a zero byte, then this number as the bytes stand */
    uint32_t next, next_touched; /* same bucket, or unused ones; NOBODY: the last */
    terse_tap_id connection;
    uint8_t key[TERSE_KEY_BYTES]; /* with which it came in, when there are keys */
    void *dealer;
    terse_gate_account *account;
    uint64_t made_ns, asked_ns;     /* asked_ns: when its oldest unanswered request, or the last answer, came */
    terse_frames frames;            /* that came from the front end */
    uint32_t n_asked;               /* requests without an answer */
    uint64_t moved_ns, moved_bytes; /* while it is slow: when it last took something, what it had then */
    uint32_t n_held;                /* parts of a reply that it had no room for */
    zmq_msg_t held[TERSE_GATE_PARTS];
} terse_gate_remote;

typedef struct terse_gate {
    int control_fd, epoll_fd;
    void *context, *router, *zap;
    bool configured, serving;
    struct {
        char endpoint[sizeof((terse_msg_listen *)0)->endpoint + 1];
        int fd;
    } listeners[TERSE_GATE_LISTENERS];
    uint32_t n_listeners;

    /* limits */
    terse_msg_gate_configured settings;
    uint64_t share_bytes;               /* of memory: for requests, and for replies, that lie with ZeroMQ */
    uint8_t (*keys)[TERSE_KEY_BYTES];   /* sorted */
    uint8_t (*coming)[TERSE_KEY_BYTES]; /* a list whose end is not there yet */
    uint32_t n_keys, n_coming;

    terse_gate_remote *remotes;
    uint32_t max_remotes, n_remotes, unused, touched; /* heads of lists by `next` and `next_touched` */
    uint32_t *buckets, n_buckets, n_slow;
    _Atomic uint64_t request_bytes, reply_bytes; /* that ZeroMQ has for us */

    uint64_t now_ns, alive_ns;
    uint64_t forwarded, replies, refused_keys, refused_requests, dropped;

    terse_wire_request request; /* scratch */
    _Alignas(16) uint8_t message[TERSE_MSG_BYTES];
} terse_gate;

/* loop.c: what epoll tells beside the numbers of remotes; runs until the supervisor is gone, returns the exit code. */
enum { TERSE_GATE_CONTROL = 1 << 30, TERSE_GATE_ROUTER, TERSE_GATE_DOOR };
int terse_gate_run(terse_gate *gate);

/* control.c */
bool terse_gate_hear(terse_gate *gate); /* all that the supervisor sent; false at its end */
void terse_gate_tell_alive(terse_gate *gate);

/* door.c: the handler that ZeroMQ asks about a client's key. */
bool terse_gate_door_open(terse_gate *gate);
void terse_gate_door_answer(terse_gate *gate);
/* False: the list cannot be taken, and what is in force may let in whom it should not any more. */
bool terse_gate_take_keys(terse_gate *gate, const terse_msg_gate_keys *message);
bool terse_gate_knows(const terse_gate *gate, const uint8_t key[TERSE_KEY_BYTES]);
/* The key with which a message's sender came in. False: it had none. */
bool terse_gate_key_of(zmq_msg_t *part, uint8_t ret_key[TERSE_KEY_BYTES]);

/* forward.c: takes at most `limit` messages of clients; returns how many there were. */
unsigned terse_gate_forward(terse_gate *gate, unsigned limit);

/* remotes.c */
bool terse_gate_remotes_init(terse_gate *gate, uint32_t max);
void terse_gate_remotes_done(terse_gate *gate);
/* The remote of a routing id, made when it is new; NULL: no room, or the system refused what it takes, which is logged.
 * `part` is of its first message. */
terse_gate_remote *terse_gate_remote_of(terse_gate *gate, uint32_t id, zmq_msg_t *part);
/* Ends a client whose requests are lost: it connects and sends them again. */
void terse_gate_remote_drop(terse_gate *gate, terse_gate_remote *remote);
void terse_gate_remotes_drop_all(terse_gate *gate);
/* Ends those whose keys are not known any more, and every connection of which it is not known whose it is. */
void terse_gate_remotes_drop_strangers(terse_gate *gate);
void terse_gate_remote_touch(terse_gate *gate, uint32_t index);
/* Brings replies back for those who were touched; returns whether something remains to be done at once. */
bool terse_gate_bring_back(terse_gate *gate);
/* Those who were slow; those whose connection is gone. */
void terse_gate_retry_slow(terse_gate *gate);
void terse_gate_sweep(terse_gate *gate);
/* lost.c: ends those whose connection to the front end is gone without a word. */
void terse_gate_remotes_drop_lost(terse_gate *gate);
/* Sends one message to a client. False with errno: EAGAIN leaves the parts; else it is gone. */
bool terse_gate_send_to(terse_gate *gate, uint32_t id, zmq_msg_t *parts, uint32_t n);

/* pins.c: wraps a message so that its bytes are counted until ZeroMQ has sent them: in `total`, and in `account` when
 * that is not NULL. Small ones, and those for which memory is out, stay as they are. */
void terse_gate_pin(zmq_msg_t *part, _Atomic uint64_t *total, terse_gate_account *account);
terse_gate_account *terse_gate_account_new(void);
void terse_gate_account_release(terse_gate_account *account);

#endif
