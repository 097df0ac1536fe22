/* SPDX-License-Identifier: Apache-2.0 */
/* The rings of clients' shared memories: requests come out of the one, replies go into the other. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "daemon/frontend/frontend.h"

/* Design notes
 *   An arena is active while its submission ring may have entries: from a ring of its doorbell (or a look while the
 * loop spins) until a look found nothing with `reader_sleeps` raised. Of an active one up to ENTRIES_AT_ONCE are taken
 * per turn, so that no ring starves others or the ROUTER. Completions are written at once and published when the turn's
 * work is done, with one doorbell for all of them. An entry is copied out first, then decoded as what comes over ZeroMQ
 * is; only positions that cannot be end the arena: after that nothing in the ring means anything. */
enum { ENTRIES_AT_ONCE = 64, SWAMPED_NS = 2000000, MANY_LATE = 2048 };

static void activate(terse_frontend *fe, terse_client_arena *arena)
{
    if (arena->active)
        return;
    arena->active = true;
    arena->next_active = fe->arenas.active;
    fe->arenas.active = arena;
}

void terse_ring_look(terse_frontend *fe, terse_client_arena *arena)
{
    if (!arena->gone)
        activate(fe, arena);
}

void terse_ring_rung(terse_frontend *fe, uint32_t number)
{
    terse_client_arena *arena = number < TERSE_MAX_ARENAS ? fe->arenas.at[number] : NULL;
    if (!arena || arena->gone)
        return;
    activate(fe, arena);
    /* It may have made room in its completion ring. */
    if (arena->client.slow)
        terse_reply_retry_client(fe, &arena->client);
}

static void ring_doorbell(const terse_client_arena *arena)
{
    const uint64_t one = 1;
    if (write(arena->complete_fd, &one, sizeof one) < 0)
        return; /* full: it rings already */
}

static void broken(terse_frontend *fe, terse_client_arena *arena)
{
    fe->malformed++;
    terse_log(TERSE_LOG_WARNING, "the rings of process %d hold positions that cannot be: it is detached", arena->pid);
    terse_arenas_drop(fe, arena);
}

/* Many replies wait for room already: what else would be answered stays where it is, so that no more wait than was let
 * in. terse_ring_look comes when they are gone. */
static bool rest(terse_client_arena *arena)
{
    if (!arena->gone && terse_ring_release(&arena->submission))
        ring_doorbell(arena);
    return false;
}

/* Takes some entries; false when the arena needs no more looks. */
static bool take_entries(terse_frontend *fe, terse_client_arena *arena, unsigned *n)
{
    terse_ring_result result = TERSE_RING_DONE;
    int taken = 0;
    for (; taken < ENTRIES_AT_ONCE && !arena->gone && arena->client.n_late < MANY_LATE; taken++) {
        uint32_t bytes = 0;
        result = terse_ring_take(&arena->submission, fe->entry, sizeof fe->entry, &bytes);
        if (result != TERSE_RING_DONE)
            break;
        (*n)++;
        terse_receive_entry(fe, arena, bytes);
    }
    if (arena->gone || arena->client.n_late >= MANY_LATE)
        return rest(arena);
    if (result == TERSE_RING_BROKEN) {
        broken(fe, arena);
        return false;
    }
    if (terse_ring_release(&arena->submission))
        ring_doorbell(arena);
    /* While the loop spins or looks by the clock it looks by itself: the client need not ring. Nor need one that sent
     * several: while it goes on a look costs less than its doorbell. */
    return result == TERSE_RING_DONE || taken > 1 || fe->spin_ns > 0 || terse_ring_swamped(fe) ||
           !terse_ring_await(&arena->submission);
}

unsigned terse_ring_receive(terse_frontend *fe)
{
    unsigned n = 0;
    /* Out of the list first: handling an entry may end this arena or others of the list. */
    for (terse_client_arena *arena; (arena = fe->arenas.active);) {
        fe->arenas.active = arena->next_active;
        arena->active = false;
        if (take_entries(fe, arena, &n)) {
            arena->active = true;
            arena->next_active = fe->arenas.again;
            fe->arenas.again = arena;
        }
    }
    fe->arenas.active = fe->arenas.again;
    fe->arenas.again = NULL;
    return n;
}

bool terse_ring_pending(const terse_frontend *fe)
{
    for (const terse_client_arena *arena = fe->arenas.active; arena; arena = arena->next_active)
        if (terse_ring_there(&arena->submission))
            return true;
    return false;
}

bool terse_ring_swamped(const terse_frontend *fe)
{
    if (fe->now_ns - fe->refused_ns > SWAMPED_NS || fe->refused_ns == 0)
        return false;
    for (uint32_t i = 0; i < fe->n_workers; i++)
        if (fe->workers[i].state == TERSE_POOL_IDLE)
            return false;
    return true;
}

bool terse_ring_park(terse_frontend *fe)
{
    for (terse_client_arena **at = &fe->arenas.active; *at;) {
        terse_client_arena *arena = *at;
        if (!terse_ring_await(&arena->submission))
            return false;
        *at = arena->next_active;
        arena->active = false;
    }
    return true;
}

/* --- replies ------------------------------------------------------------------------------------------------- */

terse_ring_result terse_ring_send(terse_frontend *fe, terse_client_arena *arena, const void *header, size_t bytes)
{
    if (arena->gone)
        return TERSE_RING_BROKEN;
    const terse_ring_result result = terse_ring_put(&arena->completion, header, (uint32_t)bytes);
    if (result == TERSE_RING_WAIT && !terse_ring_await_room(&arena->completion, (uint32_t)bytes))
        return terse_ring_send(fe, arena, header, bytes); /* some came just now */
    if (result == TERSE_RING_DONE && !arena->untold) {
        arena->untold = true;
        arena->next_untold = fe->arenas.untold;
        fe->arenas.untold = arena;
    }
    return result;
}

void terse_ring_tell_all(terse_frontend *fe)
{
    for (terse_client_arena *arena; (arena = fe->arenas.untold);) {
        fe->arenas.untold = arena->next_untold;
        arena->untold = false;
        if (terse_ring_tell(&arena->completion))
            ring_doorbell(arena);
    }
}

/* --- the end of an arena ------------------------------------------------------------------------------------- */

void terse_arenas_drop(terse_frontend *fe, terse_client_arena *arena)
{
    if (arena->gone)
        return;
    epoll_ctl(fe->epoll_fd, EPOLL_CTL_DEL, arena->connection, NULL);
    epoll_ctl(fe->epoll_fd, EPOLL_CTL_DEL, arena->submit_fd, NULL);
    terse_arenas_close(&fe->arenas, arena);
    terse_reply_gone(fe, &arena->client);
    for (terse_request *request = arena->requests; request;) {
        if (request->answered) {
            request = request->arena_next;
            continue;
        }
        terse_request_fail(fe, request, TERSE_CANCELLED, "the shared memory of the request was detached");
        request = arena->requests; /* sending may have ended others */
    }
}

/* Tells a worker that an arena is gone. Its socket may be full while it runs a batch: tried again later. */
static void tell_gone(terse_frontend *fe, terse_client_arena *arena, uint32_t index)
{
    const terse_msg_arena message = {.head = {TERSE_MSG_ARENA_GONE, sizeof message}, .arena = arena->number};
    terse_pool_worker *worker = &fe->workers[index];
    if (worker->fd >= 0 && !terse_msg_send(worker->fd, &message, sizeof message, NULL, 0) && errno == EAGAIN)
        return;
    arena->told[index / 64] &= ~(UINT64_C(1) << index % 64);
}

void terse_arenas_settle(terse_frontend *fe)
{
    for (uint32_t i = 1; fe->arenas.n_leaving > 0 && i < TERSE_MAX_ARENAS; i++) {
        terse_client_arena *arena = fe->arenas.at[i];
        if (!arena || !arena->gone)
            continue;
        for (uint32_t w = 0; w < fe->n_workers; w++)
            if (terse_arena_told(arena, w))
                tell_gone(fe, arena, w);
        terse_arenas_settled(&fe->arenas, arena);
    }
}

void terse_arenas_forget_worker(terse_frontend *fe, const terse_pool_worker *worker)
{
    const uint32_t index = (uint32_t)(worker - fe->workers);
    for (uint32_t i = 1; i < TERSE_MAX_ARENAS; i++)
        if (fe->arenas.at[i])
            fe->arenas.at[i]->told[index / 64] &= ~(UINT64_C(1) << index % 64);
}

bool terse_arenas_tell_worker(terse_frontend *fe, const terse_pool_worker *worker, terse_client_arena *arena)
{
    const uint32_t index = (uint32_t)(worker - fe->workers);
    if (terse_arena_told(arena, index))
        return true;
    const terse_msg_arena message = {.head = {TERSE_MSG_ARENA, sizeof message},
                                     .arena = arena->number,
                                     .input_bytes = arena->input_bytes,
                                     .output_bytes = arena->output_bytes};
    const int fds[2] = {arena->input_fd, arena->output_fd};
    if (!terse_msg_send(worker->fd, &message, sizeof message, fds, 2))
        return errno == EPIPE || errno == ECONNRESET; /* its end brings everything back */
    arena->told[index / 64] |= UINT64_C(1) << index % 64;
    return true;
}
