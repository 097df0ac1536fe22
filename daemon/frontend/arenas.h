/* SPDX-License-Identifier: Apache-2.0 */
/* arenas.h: memory that the daemon shares with a client: inputs, outputs and two rings.
 * Runs in: frontend. Ownership: the table owns its arenas; requests that lie in one and workers that have mapped it
 * keep its number taken after it is gone, its memory not.
 *
 * Design notes
 *   An arena is two sealed memfds made here, so that the client can neither shrink them under a worker nor grow them
 *   past its quota. Of the inputs workers get a descriptor that cannot be mapped for writing. The front end maps only
 * the rings: tensors in place are none of its business, and what it must read (indices, shapes) it reads with pread.
 * Outputs that belong to unanswered requests are marked in a bitmap, one bit per 64 bytes: no two requests write to the
 * same place. */
#ifndef TERSE_FRONTEND_ARENAS_H
#define TERSE_FRONTEND_ARENAS_H

#include "common/ring.h"
#include "daemon/frontend/clients.h"
#include "daemon/protocol.h"

enum { TERSE_ARENA_ALIGN = 64, TERSE_ARENA_RING_BYTES = 256 * 1024 };

/* Descriptors for the client. */
typedef struct terse_arena_fds {
    int inputs, outputs, rings, submit, complete;
} terse_arena_fds;

typedef struct terse_client_arena {
    struct terse_client_arena *next;        /* same bucket, by token */
    struct terse_client_arena *next_active; /* its ring may have entries */
    struct terse_client_arena *next_untold; /* its completions are not published yet */
    uint32_t number;                        /* 1..TERSE_MAX_ARENAS - 1: names it in BATCH */
    bool gone;                              /* the client detached: nothing below but numbers and requests is left */
    bool active, untold;
    uint8_t token[TERSE_WIRE_ARENA_BYTES];
    uint32_t uid;
    int32_t pid;
    int connection;             /* its end is the arena's */
    int input_fd, output_fd;    /* input_fd: read-only, once the client is welcome */
    terse_arena_fds fds;        /* until then */
    int submit_fd, complete_fd; /* doorbells: rung by the client; by us */
    uint64_t input_bytes, output_bytes;
    void *rings;
    terse_ring submission, completion;
    terse_client client;                   /* in whose name requests from the ring run */
    uint64_t *claimed;                     /* a bit per TERSE_ARENA_ALIGN bytes of the outputs */
    terse_request *requests;               /* that lie in it, waiting or running */
    uint64_t told[TERSE_MAX_WORKERS / 64]; /* workers that have mapped it */
} terse_client_arena;

/* Where the tensors of a request lie. */
typedef struct terse_places {
    uint64_t inputs[TERSE_MAX_IO]; /* by the model's order; TERSE_PLACE_SLOT: copied into the request's slot */
    struct {
        uint64_t offset, bytes; /* bytes TERSE_PLACE_SLOT: not in the arena */
    } outputs[TERSE_MAX_IO];
    uint32_t n_outputs; /* that are in the arena */
} terse_places;
#define TERSE_PLACE_SLOT UINT64_MAX

enum { TERSE_ARENA_BUCKETS = 256 };

typedef struct terse_arenas {
    terse_client_arena *at[TERSE_MAX_ARENAS];
    terse_client_arena *buckets[TERSE_ARENA_BUCKETS];
    terse_client_arena *active, *again, *untold; /* again: active ones that had their share of this turn */
    uint32_t n, n_leaving;                       /* alive; gone, but a worker or a request still knows them */
    uint64_t bytes_per_uid;
    uint32_t per_uid;
} terse_arenas;

/* Bytes of the memfd of the rings: the submission ring, then the completion ring. */
uint64_t terse_arena_rings_bytes(void);

/* Makes an arena for a process of `uid`, its sizes rounded up to pages. RESOURCE_EXHAUSTED beyond the user's quota. */
int terse_arenas_open(terse_arenas *arenas, uint32_t uid, uint64_t input_bytes, uint64_t output_bytes,
                      terse_client_arena **ret_arena, terse_error *error);
void terse_arena_fds_close(terse_arena_fds *fds);
terse_client_arena *terse_arenas_find(const terse_arenas *arenas, const uint8_t *token);
/* Lets its memory go and forgets the token. The struct stays until terse_arenas_settled. */
void terse_arenas_close(terse_arenas *arenas, terse_client_arena *arena);
/* Frees a closed arena that no request and no worker knows any more. */
void terse_arenas_settled(terse_arenas *arenas, terse_client_arena *arena);
void terse_arenas_done(terse_arenas *arenas);

/* Whether [offset, offset + bytes) is 64-byte aligned and inside `size` bytes; and the same with a message. */
static inline bool terse_arena_fits(uint64_t offset, uint64_t bytes, uint64_t size)
{
    return offset % TERSE_ARENA_ALIGN == 0 && offset <= size && bytes <= size - offset;
}
/* `what` begins the message. */
int terse_arena_check(uint64_t offset, uint64_t bytes, uint64_t size, const char *what, terse_error *error);
/* Marks a checked place of the outputs; false when a part of it is marked already: nothing changes. */
bool terse_arena_claim(terse_client_arena *arena, uint64_t offset, uint64_t bytes);
void terse_arena_unclaim(terse_client_arena *arena, uint64_t offset, uint64_t bytes);

/* Requests that lie in an arena: in its list from admission to their end. */
void terse_arena_join(terse_client_arena *arena, terse_request *request);
void terse_arena_leave(terse_request *request); /* unmarks its outputs too */

static inline bool terse_arena_told(const terse_client_arena *arena, uint32_t worker)
{
    return arena->told[worker / 64] >> worker % 64 & 1;
}

#endif
