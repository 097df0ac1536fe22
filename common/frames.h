/* SPDX-License-Identifier: Apache-2.0 */
/* frames.h: counts the frames that come out of a ZeroMQ socket whose connection may end under a message.
 * Runs in: libterse, the gate. Errors: none.
 *
 * Design notes
 *   libzmq carries out its commands when nothing is there to receive, and at every hundredth frame (inbound_poll_rate),
 * that one in the middle of a message too. The command that tells of a lost connection ends its pipe at once, with
 * ZMQ_IMMEDIATE and with a ZMQ_RECONNECT_IVL of -1: what is left of the message is gone, and the process dies of an
 * assertion (fq.cpp: !_more). So it is made to look before a message that the hundredth frame may be in. It stays
 * possible that the command comes in the microsecond behind that look, or in a message longer than any before, or that
 * the count is one behind since the socket was empty for an instant. */
#ifndef TERSE_COMMON_FRAMES_H
#define TERSE_COMMON_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <zmq.h>

enum { TERSE_FRAMES_PER_LOOK = 100 };

typedef struct terse_frames {
    uint32_t n_received; /* since libzmq last looked for commands by itself */
    uint32_t most;       /* of one message */
} terse_frames;

/* Before the first frame of a message is asked for. */
static inline void terse_frames_begin(const terse_frames *frames, void *socket)
{
    int events;
    size_t size = sizeof events;
    if (frames->n_received + frames->most >= TERSE_FRAMES_PER_LOOK)
        zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size);
}

/* A frame was received, or (false) none is there. */
static inline void terse_frames_count(terse_frames *frames, bool received)
{
    frames->n_received = received ? (frames->n_received + 1) % TERSE_FRAMES_PER_LOOK : 0;
}

/* A message was received whole. */
static inline void terse_frames_end(terse_frames *frames, uint32_t n)
{
    if (n > frames->most)
        frames->most = n;
}

#endif
