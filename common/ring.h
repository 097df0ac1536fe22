/* SPDX-License-Identifier: Apache-2.0 */
/* ring.h: a queue of messages in memory that two processes share: one writes, one reads, and neither trusts the other.
 * Runs in: frontend, clients (libterse). Ownership: a terse_ring borrows the memory; its own position is private.
 *
 * Design notes
 *   Shared are two positions, two flags and `size` bytes. Positions count bytes and never go back; each lies on a cache
 *   line of its own and is written by one side only. An entry is a uint32_t length, four zero bytes, that many bytes
 *   and padding to 8; it may wrap around the end. Whoever goes to sleep raises its flag first and looks once more; who
 *   finds the other's flag raised takes it down and rings the doorbell.
 *   A side uses its own position from private memory only. Of the other's it believes no more than that it is between
 *   its own and one whole ring away: everything else is TERSE_RING_BROKEN, for good. A length is read once, and an
 * entry is copied before it is looked at. */
#ifndef TERSE_COMMON_RING_H
#define TERSE_COMMON_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TERSE_RING_HEAD_BYTES = 4096, /* the positions and flags, then the bytes */
    TERSE_RING_ENTRY_HEAD = 8,
    TERSE_RING_MIN_BYTES = 4096,
};

typedef struct terse_ring_shared {
    _Alignas(64) _Atomic uint64_t taken;         /* by the reader */
    _Alignas(64) _Atomic uint64_t put;           /* by the writer */
    _Alignas(64) _Atomic uint32_t reader_sleeps; /* until something is put */
    _Alignas(64) _Atomic uint32_t writer_sleeps; /* until there is room */
} terse_ring_shared;

typedef struct terse_ring {
    terse_ring_shared *shared;
    uint8_t *bytes;
    uint64_t size;      /* a power of two */
    uint64_t position;  /* our own */
    uint64_t published; /* what the other side was told of it */
    bool broken;
} terse_ring;

typedef enum terse_ring_result {
    TERSE_RING_DONE,
    TERSE_RING_WAIT,   /* nothing is there, or no room */
    TERSE_RING_BROKEN, /* the other side wrote what cannot be */
} terse_ring_result;

/* Over TERSE_RING_HEAD_BYTES + size zeroed bytes; `size` is a power of two. */
void terse_ring_open(terse_ring *ring, void *memory, uint64_t size);

/* The writer's. Copies one message; the reader sees it after terse_ring_tell. */
terse_ring_result terse_ring_put(terse_ring *ring, const void *data, uint32_t bytes);
bool terse_ring_tell(terse_ring *ring); /* true: the reader sleeps, ring for it */
/* Before the writer sleeps for room for `bytes`: true when it may, false when there is some. */
bool terse_ring_await_room(terse_ring *ring, uint32_t bytes);

/* The reader's. Copies the next message of at most `capacity` bytes; a longer one is BROKEN. */
terse_ring_result terse_ring_take(terse_ring *ring, void *buffer, uint32_t capacity, uint32_t *ret_bytes);
bool terse_ring_release(terse_ring *ring);     /* gives the room of what was taken back; true: the writer sleeps */
bool terse_ring_there(const terse_ring *ring); /* something is to be taken, or the ring is broken */
bool terse_ring_await(terse_ring *ring);       /* before the reader sleeps: true when it may */
bool terse_ring_awake(terse_ring *ring);       /* it sleeps no more; true: no doorbell was rung for it */

#endif
