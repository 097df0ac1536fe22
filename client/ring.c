/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of the rings (common/ring.h). */
#include <sched.h>
#include <unistd.h>

#include "client/arena.h"
#include "common/bytes.h"

static void ring_doorbell(const terse_client_arena *arena)
{
    const uint64_t one = 1;
    if (write(arena->submit_fd, &one, sizeof one) < 0)
        return; /* it rings already, or nobody is there any more: the connection tells */
}

bool terse_ring_submit(terse_client_arena *arena, const void *header, size_t bytes)
{
    terse_ring_result result;
    do
        result = terse_ring_put(&arena->submission, header, (uint32_t)bytes);
    while (result == TERSE_RING_WAIT && !terse_ring_await_room(&arena->submission, (uint32_t)bytes));
    if (result == TERSE_RING_DONE && terse_ring_tell(&arena->submission))
        ring_doorbell(arena);
    arena->full |= result == TERSE_RING_WAIT;
    return result == TERSE_RING_DONE;
}

void terse_ring_receive(terse_client *client)
{
    terse_client_arena *arena = client->arena;
    uint32_t bytes = 0;
    terse_ring_result result;
    while ((result = terse_ring_take(&arena->completion, client->buffer, sizeof client->buffer, &bytes)) ==
           TERSE_RING_DONE)
        terse_client_take_completion(client, client->buffer, bytes);
    if (terse_ring_release(&arena->completion))
        ring_doorbell(arena);
}

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

bool terse_ring_spin(const terse_client *client, uint64_t until_ns)
{
    /* Looks between two glances at the clock; then whoever else wants this core gets it. */
    enum { LOOKS = 32 };
    const terse_client_arena *arena = client->arena;
    const uint64_t start = terse_now_ns();
    for (;;) {
        for (int i = 0; i < LOOKS; i++) {
            if (terse_ring_there(&arena->completion))
                return true;
            RELAX();
        }
        const uint64_t now = terse_now_ns();
        if (now - start >= client->spin_ns || now >= until_ns)
            return false;
        sched_yield();
    }
}

bool terse_ring_arm(terse_client_arena *arena)
{
    if (arena->state != ARENA_ATTACHED)
        return true;
    if (arena->armed)
        return !terse_ring_there(&arena->completion);
    arena->armed = terse_ring_await(&arena->completion);
    return arena->armed;
}

void terse_ring_disarm(terse_client_arena *arena)
{
    uint64_t counts[16];
    if (!arena->armed || arena->state != ARENA_ATTACHED)
        return;
    arena->armed = false;
    /* The flag is still up: nobody rang, unless for room. Else the ring is there, or comes a moment later and makes the
     * next sleep short. One that is left there would make every sleep short. */
    if ((!terse_ring_awake(&arena->completion) || arena->full) && read(arena->complete_fd, counts, sizeof counts) > 0)
        arena->full = false;
}
