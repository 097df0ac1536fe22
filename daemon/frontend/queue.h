/* SPDX-License-Identifier: Apache-2.0 */
/* queue.h: requests that wait: in lanes, by priority and deadline; and all deadlines.
 * Runs in: frontend. Ownership: lanes and queue link requests, whoever made them owns them.
 *
 * Design notes
 *   A lane is one model at one set of dimensions: what may share a batch. Requests of several rows count as so many and
 *   stay whole. In a lane the higher priority goes first, within one the earlier deadline, those without one behind
 *   those with, and among equals who came first. So that nobody waits for ever, every TERSE_QUEUE_TURNS-th turn belongs
 *   to the one that has waited for longest, if that is longer than TERSE_QUEUE_AGE_NS: bounded, because all that wait
 *   in an overload are old, and priorities must count most then.
 *   A request that comes back (its worker died, there was no room) goes to its old place, which is the front.
 *   Suspects are requests whose batch failed as a whole: before everything else, and each alone.
 *   Deadlines of a level lie in a pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986) that is linked through the
 *   requests. Every change is O(1) or O(log n) on average, but a return, which walks over younger ones in front. */
#ifndef TERSE_FRONTEND_QUEUE_H
#define TERSE_FRONTEND_QUEUE_H

#include "common/wire.h"
#include "daemon/frontend/codel.h"
#include "daemon/frontend/cost.h"
#include "daemon/frontend/share.h"
#include "daemon/frontend/trace.h"

enum { TERSE_PRIORITIES = TERSE_WIRE_MAX_PRIORITY + 1, TERSE_QUEUE_TURNS = 8 };
#define TERSE_NO_DEADLINE UINT64_MAX
#define TERSE_QUEUE_AGE_NS UINT64_C(200000000)

typedef struct terse_request terse_request;
typedef struct terse_lane terse_lane;
struct terse_client;
struct terse_client_arena;
struct terse_places;

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
    terse_request *heap_child, *heap_next, *heap_previous; /* previous: the parent of a first child */
    terse_lane *lane;
    uint64_t sequence;
    uint32_t heap_at; /* place among the deadlines + 1; 0: not there */
    terse_request_state state;
    /* set by whoever pushes */
    uint64_t arrival_ns, deadline_ns;
    uint64_t work_ns; /* worker time, estimated; the same as long as it waits */
    uint32_t rows;
    uint8_t priority;

    /* the front end's */
    bool alone;    /* runs in no batch with others any more */
    bool answered; /* while it ran: the result is to be dropped */
    bool lasting;  /* what it fails for: it would fail again, and no time is told to come again */
    bool has_session;
    bool late;              /* its time ended while it ran into its client's memory: told when the batch has ended */
    uint8_t crashes, kills; /* workers that it took with it; foreign kills while it ran alone */
    uint8_t n_wanted;
    uint64_t wanted_mask;              /* bit i: output i is wanted */
    uint8_t wanted[TERSE_WIRE_MAX_IO]; /* outputs by index, in the order of the reply */
    uint8_t session[TERSE_WIRE_SESSION_BYTES];
    uint64_t id;
    uint64_t generation; /* of this use of the struct */
    uint64_t queued_ns;  /* since when it could run: its arrival, or when its client read again */
    uint64_t start_ns;
    uint64_t reckoned_ns; /* wait that was foreseen when it came, not corrected */
    struct terse_client *client;
    terse_request *client_previous, *client_next;
    terse_request *session_next; /* same bucket of the session table */
    uint32_t input_slot, output_slot;
    struct terse_client_arena *arena; /* where its tensors lie; NULL: in slots */
    struct terse_places *places;
    terse_request *arena_previous, *arena_next;
    uint64_t input_bytes;
    terse_trace trace;
};

typedef struct terse_request_list {
    terse_request *first, *last;
} terse_request_list;

/* What waits at one priority. */
typedef struct terse_level {
    terse_request_list arrived; /* all, in the order of arrival */
    terse_request *soonest;     /* heap of those with a deadline */
    uint32_t n_deadlines;
    uint64_t work_ns, endless_ns; /* of all; of those without a deadline */
    uint64_t latest_ns;           /* latest deadline since there was none */
} terse_level;

struct terse_lane {
    terse_lane *next;                      /* of the same model */
    terse_lane *previous_busy, *next_busy; /* lanes in which something waits */
    terse_share *share;                    /* of the model */
    uint32_t model;
    uint32_t n_requests, mask; /* mask: bit p when something waits at priority p */
    uint32_t turns;
    uint32_t too_long; /* refused because a batch alone takes too long */
    uint64_t n_rows;
    terse_level levels[TERSE_PRIORITIES];
    /* the front end's */
    uint32_t n_users; /* requests that point here, waiting or running */
    uint64_t hash, used_ns;
    terse_cost cost;
    terse_codel codel;
    uint64_t *input_bytes;           /* per input: bytes of one row (batchable) or all (not) */
    uint64_t input_total;            /* their sum: how much there is to compute, roughly */
    uint64_t *output_bytes;          /* per output the same; a guess until a batch came back */
    int64_t (*dims)[TERSE_MAX_RANK]; /* per input; dims[0] of a batchable model is 1 */
};

typedef struct terse_queue {
    terse_lane *busy;
    terse_share *busy_shares;
    terse_request_list suspects;
    uint32_t n_requests; /* in lanes and suspects */
    uint32_t turns;      /* of lanes */
    uint64_t n_bytes;    /* of their inputs */
    uint64_t clock_ns;   /* share.h's, of the pool */
    uint64_t next_sequence;
    terse_request **heap; /* all requests with a deadline, the earliest at 0 */
    uint32_t heap_size, heap_capacity;
} terse_queue;

void terse_queue_done(terse_queue *queue); /* frees the heap; a zeroed queue is empty */

/* Gives it its sequence number when it has none (0). */
void terse_queue_push(terse_queue *queue, terse_request *request);
void terse_queue_push_suspect(terse_queue *queue, terse_request *request);
/* Takes a queued or suspect request out; its state is the caller's to set. */
void terse_queue_remove(terse_queue *queue, terse_request *request);

/* Whose turn it is in a lane; NULL when nothing waits. */
terse_request *terse_queue_first(const terse_lane *lane, uint64_t now_ns);
/* Takes out what terse_queue_first gave: the turn is over. */
void terse_queue_take(terse_queue *queue, terse_request *request);
/* true when lane a goes before lane b: by priority, then by what their models had, then by their first requests. */
bool terse_queue_lane_before(const terse_lane *a, const terse_lane *b);
/* The lane whose turn it is out of order: that of the oldest request of all, every TERSE_QUEUE_TURNS-th time; else
 * NULL. The caller counts queue->turns. */
terse_lane *terse_queue_aged_lane(const terse_queue *queue, uint64_t now_ns);

uint64_t terse_queue_oldest_ns(const terse_lane *lane);   /* earliest arrival; UINT64_MAX when nothing waits */
uint64_t terse_queue_deadline_ns(const terse_lane *lane); /* earliest deadline */
/* Worker time of what would go before a request of that priority and deadline in the lane; deadlines are taken as
 * spread evenly. */
uint64_t terse_queue_ahead_ns(const terse_lane *lane, unsigned priority, uint64_t deadline_ns);

/* Deadlines are kept while a request waits and while it runs. false: no memory. */
bool terse_queue_deadline_add(terse_queue *queue, terse_request *request);
void terse_queue_deadline_remove(terse_queue *queue, terse_request *request);
terse_request *terse_queue_deadline_first(const terse_queue *queue);

#endif
