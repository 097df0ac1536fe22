/* SPDX-License-Identifier: Apache-2.0 */
/* attach.h: the Unix socket at which clients of this host ask for shared memory.
 * Runs in: frontend. Ownership: connections without an arena belong to this room, the others to their arena.
 *
 * One SOCK_SEQPACKET datagram each way, a msgpack map:
 *     {"v":1, "op":"attach", "input_bytes":u64, "output_bytes":u64}
 *     {"v":1, "status":"OK", "arena":bin16, "input_bytes":u64, "output_bytes":u64, "ring_bytes":u64}
 * and with the answer five descriptors: inputs, outputs, rings, the doorbell that the client rings (an eventfd), the
 * one that it hears (read it like an eventfd). Sizes are rounded up to pages. The rings' memory is the submission ring,
 * then the completion ring: each TERSE_RING_HEAD_BYTES of positions, then ring_bytes of entries (common/ring.h). An
 * error is {"v":1, "status", "error"} and the end of the connection. The connection's end detaches. */
#ifndef TERSE_FRONTEND_ATTACH_H
#define TERSE_FRONTEND_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

typedef struct terse_frontend terse_frontend;

#define TERSE_ATTACH_SCHEME "attach:"

enum { TERSE_MAX_ATTACHING = 64, TERSE_MAX_ATTACH_SOCKETS = 32 };

typedef struct terse_attach {
    int sockets[TERSE_MAX_ATTACH_SOCKETS]; /* they listen */
    uint32_t n_sockets;
    bool paused; /* no descriptor was left: tried again a second later */
    struct {
        int fd; /* -1: free */
        uint64_t since_ns;
    } waiting[TERSE_MAX_ATTACHING]; /* connected, nothing asked yet */
} terse_attach;

void terse_attach_init(terse_attach *attach);
void terse_attach_done(terse_attach *attach);

/* Takes over a listening socket. */
void terse_attach_listen(terse_frontend *fe, int fd);
void terse_attach_accept(terse_frontend *fe, uint32_t socket);    /* somebody knocks */
void terse_attach_hear(terse_frontend *fe, uint32_t waiting);     /* a connection without an arena has something */
void terse_attach_hear_arena(terse_frontend *fe, uint32_t arena); /* one with an arena: mostly its end */
/* The supervisor has opened the inputs of an arena for reading only (takes *fd; -1: it could not): now the client is
 * told.
 */
void terse_attach_read_only(terse_frontend *fe, uint32_t arena, int *fd);
void terse_attach_tick(terse_frontend *fe); /* once a second: who asks nothing is let go */

#endif
