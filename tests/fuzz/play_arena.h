/* SPDX-License-Identifier: Apache-2.0 */
/* play_arena.h: clients of the fuzzed front end that share memory with it, over real sockets and memfds. Good ones put
 * tensors at places of their own and requests into the ring; bad ones write what they like over positions and flags,
 * ask to be attached by nonsense, and go whenever it suits them. */
#ifndef TERSE_FUZZ_PLAY_ARENA_H
#define TERSE_FUZZ_PLAY_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"
#include "tests/fuzz/play_pool.h"

enum { PLAY_ARENAS = 3 };

int play_arenas_listen(void); /* the socket at which they will attach: it becomes the front end's */
void play_arenas_end(void);

/* Attaches, hears what came of it, leaves or does harm, as the input has it. True: what it has asked for may be lost.
 */
bool play_arena_step(unsigned arena, play_input *in);
bool play_arena_good(unsigned arena); /* it is attached, and nothing in it is broken */

/* Lays a request's inputs, `fill` all over, and room for its outputs into the arena. False: no place is free. */
bool play_arena_lay(unsigned arena, terse_wire_request *request, uint8_t fill);
void play_arena_answered(uint64_t id); /* the places of a request are free */
/* The bytes of an answered request's output; NULL: its arena is gone. */
const uint8_t *play_arena_output(uint64_t id, uint64_t offset, uint64_t size);

/* Puts a header into the submission ring; false: no room. */
bool play_arena_submit(unsigned arena, const void *header, size_t size, bool rings);
/* Gives the next completion to `read`; false: there is none. */
bool play_arena_read(unsigned arena, void (*read)(const void *header, size_t size));
void play_arenas_ring(void);  /* every doorbell */
void play_arenas_leave(void); /* every client */

#endif
