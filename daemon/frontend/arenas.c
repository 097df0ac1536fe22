/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/arenas.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/bytes.h"

enum { PAGE = 4096, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };
#define MAX_BYTES (UINT64_C(1) << 40) /* far below what the upper bits of an offset name */

uint64_t terse_arena_rings_bytes(void)
{
    return 2 * (uint64_t)(TERSE_RING_HEAD_BYTES + TERSE_ARENA_RING_BYTES);
}

static uint32_t bucket_of(const uint8_t *token)
{
    return token[0] % TERSE_ARENA_BUCKETS; /* random bytes */
}

/* --- quotas -------------------------------------------------------------------------------------------------- */

/* What is gone counts until the last worker has let go of it: it is memory that is in use. */
static int check_quota(const terse_arenas *arenas, uint32_t uid, uint64_t bytes, terse_error *error)
{
    uint32_t n = 0;
    uint64_t used = 0;
    for (uint32_t i = 1; i < TERSE_MAX_ARENAS; i++) {
        const terse_client_arena *arena = arenas->at[i];
        if (!arena || arena->uid != uid)
            continue;
        n++;
        used += arena->input_bytes + arena->output_bytes;
    }
    if (n >= arenas->per_uid)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "user %" PRIu32 " has %" PRIu32 " shared memories, %" PRIu32 " are allowed (arenas_per_uid)",
                          uid, n, arenas->per_uid);
    if (bytes > arenas->bytes_per_uid || used > arenas->bytes_per_uid - bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "%" PRIu64 " bytes beside the %" PRIu64 " that user %" PRIu32 " has: %" PRIu64
                          " are allowed (arena_bytes_per_uid)",
                          bytes, used, uid, arenas->bytes_per_uid);
    return TERSE_OK;
}

static uint32_t free_number(const terse_arenas *arenas)
{
    for (uint32_t i = 1; i < TERSE_MAX_ARENAS; i++)
        if (!arenas->at[i])
            return i;
    return 0;
}

/* --- making -------------------------------------------------------------------------------------------------- */

static int make_memory(const char *name, uint64_t bytes, int *ret_fd, terse_error *error)
{
    const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
        terse_fail(error, TERSE_SYSTEM, "cannot make %" PRIu64 " bytes of %s", bytes, name);
        if (fd >= 0)
            close(fd);
        return TERSE_SYSTEM;
    }
    *ret_fd = fd;
    return TERSE_OK;
}

static int make_rings(terse_client_arena *arena, terse_arena_fds *fds, terse_error *error)
{
    const uint64_t bytes = terse_arena_rings_bytes();
    const int status = make_memory("terse-rings", bytes, &fds->rings, error);
    if (status)
        return status;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds->rings, 0);
    if (base == MAP_FAILED)
        return terse_fail(error, TERSE_SYSTEM, "cannot map the rings");
    arena->rings = base;
    terse_ring_open(&arena->submission, base, TERSE_ARENA_RING_BYTES);
    terse_ring_open(&arena->completion, (uint8_t *)base + bytes / 2, TERSE_ARENA_RING_BYTES);
    atomic_store(&arena->submission.shared->reader_sleeps, 1);
    return TERSE_OK;
}

/* Both sides hold the same open eventfd: a client that took O_NONBLOCK off it and filled it up could stop us in a write
 * or a read. So the submission's is never read here (epoll tells each ring, edge-triggered), and the completion's is
 * a pipe, whose writing end only we have: to the client it reads like an eventfd. */
static int make_doorbells(terse_client_arena *arena, terse_arena_fds *fds, terse_error *error)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot make a doorbell");
    fds->complete = ends[0];
    arena->complete_fd = ends[1];
    fds->submit = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    arena->submit_fd = fds->submit < 0 ? -1 : fcntl(fds->submit, F_DUPFD_CLOEXEC, 0);
    return arena->submit_fd < 0 ? terse_fail(error, TERSE_SYSTEM, "cannot make a doorbell") : TERSE_OK;
}

static int make_all(terse_client_arena *arena, terse_arena_fds *fds, terse_error *error)
{
    int status = make_memory("terse-arena-inputs", arena->input_bytes, &fds->inputs, error);
    if (!status)
        status = make_memory("terse-arena-outputs", arena->output_bytes, &fds->outputs, error);
    if (!status)
        status = make_rings(arena, fds, error);
    if (!status)
        status = make_doorbells(arena, fds, error);
    if (status)
        return status;
    arena->output_fd = fcntl(fds->outputs, F_DUPFD_CLOEXEC, 0);
    const uint64_t units = arena->output_bytes / TERSE_ARENA_ALIGN;
    arena->claimed = calloc((size_t)(units + 63) / 64 + 1, sizeof *arena->claimed);
    if (arena->output_fd < 0 || !arena->claimed)
        return terse_fail(error, TERSE_SYSTEM, "cannot keep a shared memory");
    if (getrandom(arena->token, sizeof arena->token, 0) != (ssize_t)sizeof arena->token)
        return terse_fail(error, TERSE_SYSTEM, "cannot draw a token");
    return TERSE_OK;
}

void terse_arena_fds_close(terse_arena_fds *fds)
{
    terse_close_fdp(&fds->inputs);
    terse_close_fdp(&fds->outputs);
    terse_close_fdp(&fds->rings);
    terse_close_fdp(&fds->submit);
    terse_close_fdp(&fds->complete);
}

static void let_go(terse_client_arena *arena)
{
    if (arena->rings)
        munmap(arena->rings, terse_arena_rings_bytes());
    arena->rings = NULL;
    terse_close_fdp(&arena->input_fd);
    terse_close_fdp(&arena->output_fd);
    terse_close_fdp(&arena->submit_fd);
    terse_close_fdp(&arena->complete_fd);
    terse_close_fdp(&arena->connection);
    terse_arena_fds_close(&arena->fds);
    free(arena->claimed);
    arena->claimed = NULL;
}

static bool page_up(uint64_t bytes, uint64_t *ret_bytes)
{
    *ret_bytes = terse_align(bytes ? bytes : 1, PAGE);
    return bytes <= MAX_BYTES;
}

int terse_arenas_open(terse_arenas *arenas, uint32_t uid, uint64_t input_bytes, uint64_t output_bytes,
                      terse_client_arena **ret_arena, terse_error *error)
{
    uint64_t inputs, outputs;
    if (!page_up(input_bytes, &inputs) || !page_up(output_bytes, &outputs))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%" PRIu64 " bytes, allowed are %" PRIu64,
                          input_bytes > output_bytes ? input_bytes : output_bytes, MAX_BYTES);
    int status = check_quota(arenas, uid, inputs + outputs, error);
    if (status)
        return status;
    const uint32_t number = free_number(arenas);
    if (!number)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "%d shared memories are in use, no more are allowed",
                          TERSE_MAX_ARENAS - 1);
    terse_client_arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for a client's shared memory");
    arena->number = number;
    arena->uid = arena->client.uid = uid;
    arena->input_bytes = inputs;
    arena->output_bytes = outputs;
    arena->connection = arena->input_fd = arena->output_fd = arena->submit_fd = arena->complete_fd = -1;
    arena->fds = (terse_arena_fds){-1, -1, -1, -1, -1};
    arena->client.arena = arena;
    arena->client.known = true;
    status = make_all(arena, &arena->fds, error);
    if (status) {
        let_go(arena);
        free(arena);
        return status;
    }
    arenas->at[number] = arena;
    arena->next = arenas->buckets[bucket_of(arena->token)];
    arenas->buckets[bucket_of(arena->token)] = arena;
    arenas->n++;
    *ret_arena = arena;
    return TERSE_OK;
}

terse_client_arena *terse_arenas_find(const terse_arenas *arenas, const uint8_t *token)
{
    terse_client_arena *arena = arenas->buckets[bucket_of(token)];
    while (arena && memcmp(arena->token, token, sizeof arena->token) != 0)
        arena = arena->next;
    return arena;
}

/* --- ending -------------------------------------------------------------------------------------------------- */

static void unlink_from(terse_client_arena **list, const terse_client_arena *arena, size_t link)
{
    for (terse_client_arena **at = list; *at; at = (terse_client_arena **)(void *)((char *)*at + link))
        if (*at == arena) {
            *at = *(terse_client_arena *const *)(const void *)((const char *)arena + link);
            return;
        }
}

void terse_arenas_close(terse_arenas *arenas, terse_client_arena *arena)
{
    unlink_from(&arenas->buckets[bucket_of(arena->token)], arena, offsetof(terse_client_arena, next));
    unlink_from(&arenas->active, arena, offsetof(terse_client_arena, next_active));
    unlink_from(&arenas->again, arena, offsetof(terse_client_arena, next_active));
    unlink_from(&arenas->untold, arena, offsetof(terse_client_arena, next_untold));
    arena->gone = true;
    arenas->n--;
    arenas->n_leaving++;
    let_go(arena);
}

void terse_arenas_settled(terse_arenas *arenas, terse_client_arena *arena)
{
    /* Outstanding are its requests, and what an administrator has ordered through its ring. */
    bool known = !arena->gone || arena->requests || arena->client.outstanding > 0 || arena->client.pins > 0;
    for (size_t i = 0; i < sizeof arena->told / sizeof arena->told[0]; i++)
        known = known || arena->told[i] != 0;
    if (known)
        return;
    arenas->at[arena->number] = NULL;
    arenas->n_leaving--;
    free(arena);
}

void terse_arenas_done(terse_arenas *arenas)
{
    for (uint32_t i = 0; i < TERSE_MAX_ARENAS; i++)
        if (arenas->at[i]) {
            let_go(arenas->at[i]);
            terse_client_drop_late(&arenas->at[i]->client);
            free(arenas->at[i]);
        }
    *arenas = (terse_arenas){0};
}

/* --- places -------------------------------------------------------------------------------------------------- */

int terse_arena_check(uint64_t offset, uint64_t bytes, uint64_t size, const char *what, terse_error *error)
{
    if (offset % TERSE_ARENA_ALIGN != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s lies at offset %" PRIu64 ", allowed are multiples of %d",
                          what, offset, TERSE_ARENA_ALIGN);
    if (offset > size || bytes > size - offset)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s lies at offset %" PRIu64 " with %" PRIu64 " bytes, the shared memory has %" PRIu64, what,
                          offset, bytes, size);
    return TERSE_OK;
}

/* Calls for each word of the bitmap with the bits of [offset, offset + bytes) in it: 0: any set?, 1: set, 2: clear. */
static bool walk(uint64_t *bits, uint64_t offset, uint64_t bytes, int what)
{
    uint64_t at = offset / TERSE_ARENA_ALIGN;
    const uint64_t end = at + (bytes + TERSE_ARENA_ALIGN - 1) / TERSE_ARENA_ALIGN;
    while (at < end) {
        const uint64_t first = at % 64, n = end - at < 64 - first ? end - at : 64 - first;
        const uint64_t mask = (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << first;
        if (what == 0 && (bits[at / 64] & mask))
            return true;
        if (what == 1)
            bits[at / 64] |= mask;
        if (what == 2)
            bits[at / 64] &= ~mask;
        at += n;
    }
    return false;
}

bool terse_arena_claim(terse_client_arena *arena, uint64_t offset, uint64_t bytes)
{
    if (walk(arena->claimed, offset, bytes, 0))
        return false;
    walk(arena->claimed, offset, bytes, 1);
    return true;
}

void terse_arena_unclaim(terse_client_arena *arena, uint64_t offset, uint64_t bytes)
{
    if (arena->claimed)
        walk(arena->claimed, offset, bytes, 2);
}

void terse_arena_join(terse_client_arena *arena, terse_request *request)
{
    request->arena = arena;
    request->arena_previous = NULL;
    request->arena_next = arena->requests;
    if (arena->requests)
        arena->requests->arena_previous = request;
    arena->requests = request;
}

void terse_arena_leave(terse_request *request)
{
    terse_client_arena *arena = request->arena;
    const terse_places *places = request->places;
    if (request->arena_previous)
        request->arena_previous->arena_next = request->arena_next;
    else
        arena->requests = request->arena_next;
    if (request->arena_next)
        request->arena_next->arena_previous = request->arena_previous;
    for (uint32_t i = 0; places && places->n_outputs > 0 && i < request->n_wanted; i++) {
        const uint32_t output = request->wanted[i];
        if (places->outputs[output].bytes != TERSE_PLACE_SLOT)
            terse_arena_unclaim(arena, places->outputs[output].offset, places->outputs[output].bytes);
    }
    request->arena = NULL;
}
