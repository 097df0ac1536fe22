/* SPDX-License-Identifier: Apache-2.0 */
/* queue.h: requests that wait: in lanes, by priority and arrival; and their deadlines.
 * Runs in: frontend. Ownership: lanes and queue link requests, whoever made them owns them.
 *
 * Design notes
 *   A lane is one model at one set of dimensions: what may share a batch. Requests of several rows count as so many and
 *   stay whole. In a lane the higher priority goes first, within one the earlier sequence number.
 *   A request that comes back (its worker died, there was no room) goes to its old place, which is the front.
 *   Suspects are requests whose batch failed as a whole: before everything else, and each alone.
 *   Every change is O(1) but two: a return walks over younger ones in front, an old deadline moves in a heap. */
#ifndef TERSE_FRONTEND_QUEUE_H
#define TERSE_FRONTEND_QUEUE_H

#include "common/wire.h"
#include "daemon/frontend/cost.h"

enum { TERSE_PRIORITIES = TERSE_WIRE_MAX_PRIORITY + 1 };
#define TERSE_NO_DEADLINE UINT64_MAX

typedef struct terse_request terse_request;
typedef struct terse_lane terse_lane;
struct terse_client;

typedef enum terse_request_state {
    TERSE_REQUEST_UNUSED,
    TERSE_REQUEST_QUEUED,  /* in its lane */
    TERSE_REQUEST_SUSPECT, /* waits to run alone */
    TERSE_REQUEST_PARKED,  /* waits until its client reads what it was sent */
    TERSE_REQUEST_RUNNING,
} terse_request_state;

struct terse_request {
    /* the queue's own */
    terse_request *previous, *next;
    terse_lane *lane;
    uint64_t sequence;
    uint32_t heap_at; /* place among the deadlines + 1; 0: not there */
    terse_request_state state;
    /* set by whoever pushes */
    uint64_t arrival_ns, deadline_ns;
    uint32_t rows;
    uint8_t priority;

    /* the front end's */
    bool alone;    /* runs in no batch with others any more */
    bool answered; /* while it ran: the result is to be dropped */
    bool has_session;
    uint8_t crashes, kills; /* workers that it took with it; foreign kills while it ran alone */
    uint8_t n_wanted;
    uint64_t wanted_mask;              /* bit i: output i is wanted */
    uint8_t wanted[TERSE_WIRE_MAX_IO]; /* outputs by index, in the order of the reply */
    uint8_t session[TERSE_WIRE_SESSION_BYTES];
    uint64_t id;
    uint64_t generation; /* of this use of the struct */
    uint64_t start_ns;
    struct terse_client *client;
    terse_request *client_previous, *client_next;
    terse_request *session_next; /* same bucket of the session table */
    uint32_t input_slot, output_slot;
    uint64_t input_bytes;
};

typedef struct terse_request_list {
    terse_request *first, *last;
} terse_request_list;

struct terse_lane {
    terse_lane *next;                      /* of the same model */
    terse_lane *previous_busy, *next_busy; /* lanes in which something waits */
    uint32_t model;
    uint32_t n_requests, mask; /* mask: bit p when something waits at priority p */
    uint64_t n_rows;
    terse_request_list waiting[TERSE_PRIORITIES];
    /* the front end's */
    uint32_t n_users; /* requests that point here, waiting or running */
    uint64_t hash, used_ns;
    terse_cost cost;
    uint64_t *input_bytes;           /* per input: bytes of one row (batchable) or all (not) */
    uint64_t input_total;            /* their sum: how much there is to compute, roughly */
    uint64_t *output_bytes;          /* per output the same; a guess until a batch came back */
    int64_t (*dims)[TERSE_MAX_RANK]; /* per input; dims[0] of a batchable model is 1 */
};

typedef struct terse_queue {
    terse_lane *busy;
    terse_request_list suspects;
    uint32_t n_requests; /* in lanes and suspects */
    uint64_t next_sequence;
    terse_request **heap; /* all requests with a deadline, the earliest at 0 */
    uint32_t heap_size, heap_capacity;
} terse_queue;

void terse_queue_done(terse_queue *queue); /* frees the heap; a zeroed queue is empty */

/* Behind all others of its priority. Gives it its sequence number when it has none (0). */
void terse_queue_push(terse_queue *queue, terse_request *request);
void terse_queue_push_suspect(terse_queue *queue, terse_request *request);
/* Takes a queued or suspect request out; its state is the caller's to set. */
void terse_queue_remove(terse_queue *queue, terse_request *request);

terse_request *terse_queue_first(const terse_lane *lane);      /* NULL when nothing waits */
terse_request *terse_queue_next(const terse_request *request); /* the one that would go after it in its lane */
uint64_t terse_queue_oldest_ns(const terse_lane *lane);        /* earliest arrival; UINT64_MAX when nothing waits */
/* The earliest deadline among the first `limit` requests. */
uint64_t terse_queue_deadline_ns(const terse_lane *lane, uint32_t limit);

/* Deadlines are kept while a request waits and while it runs. false: no memory. */
bool terse_queue_deadline_add(terse_queue *queue, terse_request *request);
void terse_queue_deadline_remove(terse_queue *queue, terse_request *request);
terse_request *terse_queue_deadline_first(const terse_queue *queue);

#endif
