/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ring.h"

#include <string.h>

void terse_ring_open(terse_ring *ring, void *memory, uint64_t size)
{
    *ring = (terse_ring){.shared = memory, .bytes = (uint8_t *)memory + TERSE_RING_HEAD_BYTES, .size = size};
}

static uint64_t entry_bytes(uint32_t bytes)
{
    return TERSE_RING_ENTRY_HEAD + (((uint64_t)bytes + 7) & ~UINT64_C(7));
}

static void copy_in(terse_ring *ring, uint64_t position, const void *data, size_t bytes)
{
    const uint64_t at = position & (ring->size - 1);
    const size_t first = bytes < ring->size - at ? bytes : (size_t)(ring->size - at);
    memcpy(ring->bytes + at, data, first);
    if (bytes > first)
        memcpy(ring->bytes, (const uint8_t *)data + first, bytes - first);
}

static void copy_out(const terse_ring *ring, uint64_t position, void *data, size_t bytes)
{
    const uint64_t at = position & (ring->size - 1);
    const size_t first = bytes < ring->size - at ? bytes : (size_t)(ring->size - at);
    memcpy(data, ring->bytes + at, first);
    if (bytes > first)
        memcpy((uint8_t *)data + first, ring->bytes, bytes - first);
}

/* --- the writer ---------------------------------------------------------------------------------------------- */

/* Bytes that are put and not taken, by the reader's word; more than a ring means that the word is no good. */
static uint64_t used(const terse_ring *ring)
{
    return ring->position - atomic_load_explicit(&ring->shared->taken, memory_order_acquire);
}

terse_ring_result terse_ring_put(terse_ring *ring, const void *data, uint32_t bytes)
{
    const uint64_t in_use = used(ring), needed = entry_bytes(bytes);
    const uint32_t head[2] = {bytes, 0};
    if (ring->broken || in_use > ring->size || in_use % 8 != 0) {
        ring->broken = true;
        return TERSE_RING_BROKEN;
    }
    if (needed > ring->size - in_use)
        return TERSE_RING_WAIT;
    copy_in(ring, ring->position, head, sizeof head);
    if (bytes > 0)
        copy_in(ring, ring->position + TERSE_RING_ENTRY_HEAD, data, bytes);
    ring->position += needed;
    return TERSE_RING_DONE;
}

bool terse_ring_tell(terse_ring *ring)
{
    if (ring->published == ring->position)
        return false;
    ring->published = ring->position;
    /* seq_cst against the flag: either we see it raised, or the reader, which looks again after raising it, sees the
     * new position. */
    atomic_store(&ring->shared->put, ring->position);
    return atomic_load(&ring->shared->reader_sleeps) && atomic_exchange(&ring->shared->reader_sleeps, 0);
}

bool terse_ring_await_room(terse_ring *ring, uint32_t bytes)
{
    atomic_store(&ring->shared->writer_sleeps, 1);
    atomic_thread_fence(memory_order_seq_cst);
    const uint64_t in_use = used(ring);
    if (in_use <= ring->size && entry_bytes(bytes) > ring->size - in_use)
        return true;
    atomic_store_explicit(&ring->shared->writer_sleeps, 0, memory_order_relaxed);
    return false;
}

/* --- the reader ---------------------------------------------------------------------------------------------- */

static uint64_t available(const terse_ring *ring)
{
    return atomic_load_explicit(&ring->shared->put, memory_order_acquire) - ring->position;
}

terse_ring_result terse_ring_take(terse_ring *ring, void *buffer, uint32_t capacity, uint32_t *ret_bytes)
{
    const uint64_t there = available(ring);
    if (there == 0 && !ring->broken)
        return TERSE_RING_WAIT;
    uint32_t bytes = UINT32_MAX;
    if (!ring->broken && there <= ring->size && there >= TERSE_RING_ENTRY_HEAD && there % 8 == 0)
        copy_out(ring, ring->position, &bytes, sizeof bytes);
    if (bytes > capacity || entry_bytes(bytes) > there) {
        ring->broken = true;
        return TERSE_RING_BROKEN;
    }
    copy_out(ring, ring->position + TERSE_RING_ENTRY_HEAD, buffer, bytes);
    ring->position += entry_bytes(bytes);
    *ret_bytes = bytes;
    return TERSE_RING_DONE;
}

bool terse_ring_release(terse_ring *ring)
{
    if (ring->published == ring->position)
        return false;
    ring->published = ring->position;
    atomic_store(&ring->shared->taken, ring->position);
    return atomic_load(&ring->shared->writer_sleeps) && atomic_exchange(&ring->shared->writer_sleeps, 0);
}

bool terse_ring_there(const terse_ring *ring)
{
    return ring->broken || available(ring) != 0;
}

bool terse_ring_await(terse_ring *ring)
{
    atomic_store(&ring->shared->reader_sleeps, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (!terse_ring_there(ring))
        return true;
    terse_ring_awake(ring);
    return false;
}

bool terse_ring_awake(terse_ring *ring)
{
    return atomic_exchange(&ring->shared->reader_sleeps, 0) != 0;
}
