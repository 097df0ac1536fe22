/* SPDX-License-Identifier: Apache-2.0 */
/* arena.h: the memory that a client shares with the daemon, as the files of libterse see it.
 * Ownership: an arena owns its mappings, descriptors and lists of ranges; the client it belongs to outlives it.
 *
 * The connection is the arena's life at the daemon. When it ends (the front end died) the memory here stays: a new one
 * is asked for and mapped over the old, with what was in it, so that no pointer of the user's changes. */
#ifndef TERSE_CLIENT_ARENA_H
#define TERSE_CLIENT_ARENA_H

#include "client/internal.h"
#include "client/ranges.h"
#include "common/ring.h"

typedef enum arena_state {
    ARENA_LOST,  /* asked again at retry_ns */
    ARENA_ASKED, /* `connection` waits for the answer */
    ARENA_ATTACHED,
} arena_state;

struct terse_client_arena {
    terse_client *client;
    arena_state state;
    bool hung_up;                       /* the connection has something to say: its end */
    bool armed;                         /* the daemon rings complete_fd for the next completion */
    bool full;                          /* and for room in the submission ring, which it may have done */
    uint32_t leave_out, looks_left_out; /* ring.c: waits that sleep at once */
    int connection, input_fd, output_fd, submit_fd, complete_fd;
    uint8_t token[TERSE_WIRE_ARENA_BYTES];
    uint64_t input_bytes, output_bytes, ring_bytes;
    uint8_t *inputs, *outputs, *rings;
    terse_ring submission, completion;
    terse_ranges input_ranges, output_ranges;
    uint64_t retry_ns, lost_since_ns;
};

/* arena.c */
/* Notices the end of the connection (`look`: or was told of it), asks again, takes the answer; without waiting. */
void terse_arena_process(terse_client *client, bool look);
/* Offset of [data, data + bytes) in the memory at `base`; false when it is not all inside. */
bool terse_arena_offset(const uint8_t *base, uint64_t size, const void *data, uint64_t bytes, uint64_t *ret_offset);

/* ring.c */
/* Puts an entry's header into the submission ring; false: no room now. */
bool terse_ring_submit(terse_client_arena *arena, const void *header, size_t bytes);
void terse_ring_receive(terse_client *client); /* takes all completions */
/* Before sleeping: looks for a completion, for spin_ns, or without that for a moment if that was of use lately; never
 * beyond until_ns. */
bool terse_ring_look(const terse_client *client, uint64_t until_ns);
/* Before sleeping: true when the doorbell will tell of the next completion. And after it. */
bool terse_ring_arm(terse_client_arena *arena);
void terse_ring_disarm(terse_client_arena *arena);

/* client.c: a reply's header from the ring. */
void terse_client_take_completion(terse_client *client, const void *header, size_t bytes);
/* All that lies in the arena goes out again: it is a new one. */
void terse_client_arena_renewed(terse_client *client, const uint8_t *old_token);
void terse_client_arena_detached(terse_client *client); /* all that lies in it ends */

#endif
