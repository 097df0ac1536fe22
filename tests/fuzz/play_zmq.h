/* SPDX-License-Identifier: Apache-2.0 */
/* play_zmq.h: the ROUTER socket that the front end sees while it is fuzzed: peers, pipes that fill up, peers that go,
 * memory that comes back late; and the clock. No thread, no libzmq: the same input always plays the same.
 * Kept as libzmq keeps it: its descriptor tells once, and any call on the socket may take that word away. */
#ifndef TERSE_FUZZ_PLAY_ZMQ_H
#define TERSE_FUZZ_PLAY_ZMQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PLAY_PEERS = 8, PLAY_PARTS = 80 };

typedef struct play_part {
    const void *data;
    size_t size;
} play_part;

void play_reset(unsigned pipe); /* messages that a peer's pipe holds */
void play_connect(unsigned peer);
void play_disconnect(unsigned peer); /* what it has not read is gone */
bool play_connected(unsigned peer);
/* A message from a peer; with `own_name` under a routing id that it chose. */
void play_send(unsigned peer, bool own_name, const play_part *parts, unsigned n);
bool play_unread(void); /* messages that the front end has not taken */
/* Gives the next message of a peer's pipe to `read`; false: there is none. */
bool play_read(unsigned peer, void (*read)(unsigned peer, const play_part *parts, unsigned n));

extern uint64_t play_now_ns;

#endif
