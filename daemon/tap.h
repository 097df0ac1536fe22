/* SPDX-License-Identifier: Apache-2.0 */
/* tap.h: limits on connections that ZeroMQ does not have: how many there are, and how much of a message that never
 * ends it keeps.
 * Runs in: terse-frontend, terse-gate. Ownership: one table of descriptors for the process.
 *
 * ZeroMQ takes a message's parts in until the last one is there, however many there are, and its high-water marks count
 * whole messages only: a peer that never ends a message grows the process without limit. It cannot be asked how much
 * that is. But it reads and accepts through the C library, and tap_calls.c, linked into the program, stands in
 * front of these calls: accept4, recv, close. There every connection's frames are followed by their lengths, and what
 * they cost since the last whole message is known at any time. A connection that passes its limit is ended where it
 * reads, as if the peer had gone: ZeroMQ then frees all that it kept. So is one whose message has too many parts.
 *
 * Messages that come to nothing are work all the same. A connection may owe a little of that, and pays it back with
 * time or by good messages; beyond that it is not read for a while (hold.h). Who comes again and again and never brings
 * a good message waits outside (standing.h).
 *
 * The calls come from ZeroMQ's one I/O thread; the main thread takes messages (terse_tap_took), ends connections, and
 * accepts those that speak another protocol. */
#ifndef TERSE_DAEMON_TAP_H
#define TERSE_DAEMON_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A request has 65 parts at most; one with a few more is answered with an error, one with more than this is ended
 * before its end: nobody sends such by mistake, and each of them costs memory and time. */
enum { TERSE_TAP_MOST_PARTS = 80 };

enum { TERSE_TAP_ANYONE = 1, TERSE_TAP_TRUSTED = 2 }; /* listeners: who comes in there counts, or does not */

typedef struct terse_tap_limits {
    uint32_t connections;          /* all together */
    uint32_t connections_per_user; /* of one uid over ipc; 0: no limit */
    uint64_t connection_bytes;     /* that one may cost since its last whole message */
    uint64_t total_bytes;          /* all together: beyond it the largest is ended */
} terse_tap_limits;

typedef struct terse_tap_counts {
    uint32_t connections; /* now */
    uint64_t refused;     /* because there were too many */
    uint64_t cut_off;     /* because of unfinished messages */
    uint64_t dropped;     /* by terse_tap_drop */
    uint64_t bytes;       /* of unfinished messages, now */
    uint64_t held;        /* times that one was not read for a while */
    uint64_t delayed;     /* connections that had to wait before they came in */
} terse_tap_counts;

/* Before the first listener. False: no memory. Without it every call passes through. */
bool terse_tap_open(const terse_tap_limits *limits);
void terse_tap_done(void);                 /* when ZeroMQ's threads have ended */
void terse_tap_listener(int fd, int kind); /* of ZeroMQ's */

/* A connection by its descriptor, which is ZeroMQ's "__fd" of a message: -1 for an unknown one. */
typedef struct terse_tap_id {
    int fd;
    uint32_t generation;
} terse_tap_id;
terse_tap_id terse_tap_find(const char *fd_text);
bool terse_tap_is_trusted(terse_tap_id id);
bool terse_tap_is_open(terse_tap_id id);
/* A whole message of it was taken: what it may cost begins anew. */
void terse_tap_took(terse_tap_id id);
/* It was a good one, or one that is not to blame: what it took is not owed. */
void terse_tap_good(terse_tap_id id, uint32_t n_parts);
/* Ends it: its peer is seen to be gone. */
void terse_tap_drop(terse_tap_id id);
/* The caller knows whose it is. The others are ended: all that nobody knows and nobody trusts. */
void terse_tap_know(terse_tap_id id);
void terse_tap_drop_unknown(void);

terse_tap_counts terse_tap_count(void);
/* Called each second: gives the memory of connections that were ended back to the kernel, once no more are. */
void terse_tap_trim(void);

/* --- for tap_calls.c and the tests ------------------------------------------------------------------------------- */

/* After accept: false (errno is ECONNABORTED): the caller closes it. */
bool terse_tap_accepted(int listener, int fd);
/* After recv of `got` bytes into a buffer of `room`: false: it has passed a limit. */
bool terse_tap_received(int fd, const void *data, size_t got, size_t room);
void terse_tap_closed(int fd);
/* How many bytes of `room` may be read now: 0 of one that is held. */
size_t terse_tap_room(int fd, size_t room);
/* An accepted connection that ZeroMQ is not to know yet: it is kept. */
bool terse_tap_waits(int listener, int fd);
/* When a listener is asked: one whose wait is over, or -1. */
int terse_tap_waited(int listener);
typedef enum terse_tap_what { TERSE_TAP_NOTHING, TERSE_TAP_LISTENER, TERSE_TAP_CONNECTION } terse_tap_what;
terse_tap_what terse_tap_kind(int fd);

#endif
