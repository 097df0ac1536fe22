/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of the rings (common/ring.h).
 *
 * Design notes
 *   To sleep and to be woken costs both sides, and the core between them, more than a batch of small requests takes. A
 * client that has many of them outstanding finds the next answers within microseconds after it has taken the last. So a
 * wait looks for GLIMPSE_NS before it sleeps; where that found nothing the next waits sleep at once, 1, 3, 7 ... at
 * most MOST_LEFT_OUT of them: a client whose answers take longer spends nothing worth speaking of. It does not yield
 * meanwhile: who yields to somebody that computes gets the core back a whole turn later, who sleeps when it is woken.
 */
#include <sched.h>
#include <unistd.h>

#include "client/arena.h"
#include "common/bytes.h"

enum { GLIMPSE_NS = 15000, MOST_LEFT_OUT = 63 };

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

/* Looks for a completion until the clock says `until_ns`. */
static bool look(const terse_client_arena *arena, uint64_t now, uint64_t until_ns, bool yields)
{
    enum { LOOKS = 32 }; /* between two glances at the clock */
    for (; now < until_ns; now = terse_now_ns()) {
        for (int i = 0; i < LOOKS; i++) {
            if (terse_ring_there(&arena->completion))
                return true;
            RELAX();
        }
        if (yields) /* whoever else wants this core gets it */
            sched_yield();
    }
    return false;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

bool terse_ring_look(const terse_client *client, uint64_t until_ns)
{
    terse_client_arena *arena = client->arena;
    const uint64_t now = terse_now_ns();
    if (client->spin_ns)
        return look(arena, now, earlier(until_ns, now + client->spin_ns), true);
    if (arena->looks_left_out > 0) {
        arena->looks_left_out--;
        return false;
    }
    if (look(arena, now, earlier(until_ns, now + GLIMPSE_NS), false)) {
        arena->leave_out = 0;
        return true;
    }
    arena->leave_out = arena->leave_out < MOST_LEFT_OUT ? 2 * arena->leave_out + 1 : MOST_LEFT_OUT;
    arena->looks_left_out = arena->leave_out;
    return false;
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
