/* SPDX-License-Identifier: Apache-2.0 */
/* frontend.h: the front end's one struct, and what its rooms do for each other.
 * Runs in: terse-frontend, one thread (ZeroMQ has its own for the sockets; it only meets us in pins.h).
 * Ownership: the struct owns everything below it. Requests live in a pool that only grows; a request is known by
 * pointer and, where it may be gone meanwhile, by its generation too.
 *
 * Rooms: main.c starts; loop.c waits; control.c hears the supervisor; receive.c takes messages apart; admit.c lets
 * infer requests in, overload.c says whether; ops.c answers everything else; choose.c makes batches, dispatch.c sends
 * them; complete.c takes results and deaths; reply.c sends; clients.c knows the peers. Rooms with state of their own:
 * served, queue, share, batcher, cost, codel, predict, slots, stats.

 * infer requests in; ops.c answers everything else; dispatch.c fills workers; complete.c takes results and deaths;
 * reply.c sends; reload.c brings models to workers and takes them away; admin.c hears those who run the daemon;
 * clients.c knows the peers. Rooms with state of their own: served, queue, batcher, cost, slots, stats.
 */
#ifndef TERSE_FRONTEND_FRONTEND_H
#define TERSE_FRONTEND_FRONTEND_H

#include <zmq.h>

#include "daemon/frontend/arenas.h"
#include "daemon/frontend/attach.h"
#include "daemon/frontend/clients.h"
#include "daemon/frontend/finished.h"
#include "daemon/frontend/pins.h"
#include "daemon/frontend/served.h"
#include "daemon/frontend/slots.h"
#include "daemon/log.h"

typedef struct terse_frontend terse_frontend;

typedef enum terse_pool_state {
    TERSE_POOL_ABSENT,  /* never there, or gone */
    TERSE_POOL_WARMING, /* has our HELLO */
    TERSE_POOL_IDLE,
    TERSE_POOL_RUNNING,
    TERSE_POOL_HUNG,    /* we asked for its end */
    TERSE_POOL_WAITING, /* in a crash loop: its next start is delayed */
} terse_pool_state;

/* A request that may be gone: valid while the generation agrees. */
typedef struct terse_request_ref {
    terse_request *request;
    uint64_t generation;
} terse_request_ref;

/* A worker process as seen from here. */
typedef struct terse_pool_worker {
    int fd; /* -1: none */
    terse_pool_state state;
    int32_t pid;
    uint32_t restarts;
    uint64_t private_bytes, shared_bytes;
    uint32_t failures;      /* WAITING: starts in a row that came to nothing */
    uint64_t next_start_ns; /* WAITING */
    uint64_t batches, busy_ns;
    /* the batch that it has */
    uint64_t batch, started_ns, expected_ns, hang_ns; /* hang_ns: when it counts as hung */
    terse_lane *lane;
    bool traced; /* a member is */
    uint32_t rows, n_members;
    uint64_t output_bytes[TERSE_MAX_IO]; /* room given per row */
    terse_request *members[TERSE_MAX_BATCH];
    /* who is to be judged when the supervisor tells how it died: the one request that ran alone, or the batch */
    bool exit_known, exit_counts, exit_foreign; /* told before the end of its socket was seen */
    uint32_t n_judged;
    terse_request_ref *judged; /* TERSE_MAX_BATCH of them once it is needed */
    bool judged_alone;
    /* reload.c: the models that it holds, by index: serials, 0 for none; what it was sent and has not answered */
    bool warmed, leaving;                      /* has told what it holds; is to get nothing more and go */
    uint32_t loading, unloading, died_loading; /* index + 1; 0: none */
    uint64_t loading_serial, died_serial;
    uint64_t held[TERSE_MODEL_SLOTS];
} terse_pool_worker;

enum { TERSE_MAX_ORDERS = 64 };
typedef struct terse_untold terse_untold;

/* What an admin asked for and has no answer yet. */
typedef struct terse_order {
    terse_client *client; /* NULL: free */
    terse_msg_admin message;
} terse_order;

enum { TERSE_MAX_LISTENERS = 64 };

typedef struct terse_listener {
    char endpoint[sizeof((terse_msg_listen *)0)->endpoint + 1];
    int fd; /* -1: ZeroMQ has it */
    bool trusted;
} terse_listener;

struct terse_frontend {
    /* sockets */
    void *context, *router;
    int control_fd, epoll_fd, wake_fd; /* wake_fd: rung by pins when room is awaited */
    bool router_unsure;                /* the ROUTER may have something of which epoll does not tell again */
    bool broken; /* something failed without which nothing goes on: it ends, and another one is started */
    bool control_closed, configured, serving, ready_told, draining, drained_told;

    terse_listener listeners[TERSE_MAX_LISTENERS];
    uint32_t n_listeners;
    char *settings;      /* what is in force, as terse_msg_settings has it; NULL: nothing was told */
    terse_msg_gate gate; /* what it told last; pid 0: none runs */

    /* limits */
    uint64_t input_bytes, output_bytes, max_request_bytes;
    uint64_t max_queue_bytes, max_client_bytes;
    uint32_t max_queue, max_client_outstanding, max_user_connections;
    bool histograms; /* are kept */
    terse_traces traces;
    bool queue_automatic, client_automatic; /* those two were not configured: time limits the queue too */

    terse_served *models[TERSE_MODEL_SLOTS];
    uint32_t n_models; /* highest index + 1 */
    terse_pool_worker *workers;
    uint32_t n_workers; /* highest index + 1 */
    uint32_t epoch;
    uint64_t next_batch, next_generation;

    terse_slots *inputs, *outputs;
    terse_pins *pins;
    terse_queue queue;
    terse_clients clients;
    terse_sessions sessions;
    terse_finished *finished; /* replies that were sent */
    terse_arena *arena;       /* of the requests */
    terse_request *unused_requests;
    terse_places *unused_places; /* linked by their first word */
    terse_arenas arenas;
    terse_attach attach;
    uint64_t spin_ns, busy_ns; /* how long the loop looks for more; when there was something last */
    uint32_t n_live;           /* requests that are not unused */

    /* reload.c, admin.c */
    bool models_moved, models_drain; /* something is to be done; something waits for its last requests */
    bool models_again;               /* a worker's socket was full */
    terse_order orders[TERSE_MAX_ORDERS];
    terse_untold *untold_first, *untold_last; /* to the supervisor, whose socket was full */
    uint32_t next_token;

    /* totals */
    uint64_t blamed; /* messages that came to nothing by the client's own fault: what they cost it owes (tap.h) */
    uint64_t started_ns, served, failed, malformed, dropped_replies, dropped_clients, refused_peers, repeated;

    /* times */
    uint64_t now_ns, alive_ns; /* of this turn of the loop; when ALIVE is due */
    uint64_t hold_ns;          /* when the batcher wants to be asked again */
    uint64_t refused_ns;       /* when a request was refused for want of time or room last */
    bool starved;              /* no room for outputs: dispatch waits for pins */

    /* scratch */
    terse_wire_forms forms;
    terse_wire_request *request; /* the last that was decoded, one of `forms` */
    terse_wire_reply reply;
    uint8_t header[TERSE_WIRE_HEADER_BYTES];
    uint8_t entry[TERSE_WIRE_HEADER_BYTES]; /* of a ring, copied before it is looked at */
    _Alignas(16) uint8_t message[TERSE_MSG_BYTES];
};

/* control.c */
bool terse_control_receive(terse_frontend *fe); /* takes all that the supervisor sent; false at its end */
void terse_control_alive(terse_frontend *fe);
/* A system call failed that everything depends on. The next front end begins from a known state, in less time than most
 * clients notice; patching up this one would leave states that nobody has ever tried. */
void terse_control_give_up(terse_frontend *fe, const char *format, ...) __attribute__((format(printf, 2, 3)));
void terse_control_tell(terse_frontend *fe, terse_msg_kind kind);
/* Sends, or keeps until there is room. false: it was not taken. */
bool terse_control_send(terse_frontend *fe, const void *message, uint32_t bytes);
void terse_control_done(terse_frontend *fe);
void terse_control_kill_worker(terse_frontend *fe, uint32_t worker);

/* Asks for a descriptor that only reads an arena's inputs; false: the supervisor does not hear now. */
bool terse_control_read_only(terse_frontend *fe, uint32_t arena, int fd);

/* receive.c: takes up to `limit` messages; returns how many there were. */
unsigned terse_receive(terse_frontend *fe, unsigned limit);
/* A request of `bytes` in fe->entry, from an arena's ring. */
void terse_receive_entry(terse_frontend *fe, terse_client_arena *arena, size_t bytes);

/* ring.c: requests from the rings of shared memories, replies into them. */
void terse_ring_rung(terse_frontend *fe, uint32_t arena);            /* its doorbell */
void terse_ring_look(terse_frontend *fe, terse_client_arena *arena); /* it may have entries */
unsigned terse_ring_receive(terse_frontend *fe);                     /* takes entries of those that may have some */
bool terse_ring_pending(const terse_frontend *fe);                   /* an active ring has some */
/* More comes than can be done: nobody is idle and requests are refused. Rings are then looked at every so often, and
 * their doorbells are left alone: to wake for each request would take the processor from those who compute. */
bool terse_ring_swamped(const terse_frontend *fe);
bool terse_ring_park(terse_frontend *fe); /* before the loop sleeps: true when it may */
terse_ring_result terse_ring_send(terse_frontend *fe, terse_client_arena *arena, const void *header, size_t bytes);
void terse_ring_tell_all(terse_frontend *fe); /* publishes what was sent */
/* The client of an arena is gone, or must go: what waits is dropped, what runs ends into memory that nobody else gets.
 * The struct stays until terse_arenas_settle, which is called between two turns of the loop. */
void terse_arenas_drop(terse_frontend *fe, terse_client_arena *arena);
void terse_arenas_settle(terse_frontend *fe);
/* Makes an arena known to a worker that is to run a batch in it. false: the worker does not listen now. */
bool terse_arenas_tell_worker(terse_frontend *fe, const terse_pool_worker *worker, terse_client_arena *arena);
void terse_arenas_forget_worker(terse_frontend *fe, const terse_pool_worker *worker); /* it is gone */

/* admit.c: an infer request; its frames stay the caller's. (From a ring: none.) */
void terse_admit(terse_frontend *fe, terse_client *client, const terse_wire_request *wire, zmq_msg_t *frames,
                 uint32_t n_frames);

/* ops.c: any other request. */
void terse_ops_answer(terse_frontend *fe, terse_client *client, const terse_wire_request *wire);
terse_served *terse_ops_find_model(terse_frontend *fe, terse_wire_text name);
bool terse_ops_ready(const terse_frontend *fe); /* a warmed worker serves */

/* choose.c: fills `worker` with the members of its next batch. */
typedef enum terse_chosen {
    TERSE_CHOSEN_NOTHING, /* all is held, or nothing waits */
    TERSE_CHOSEN_AGAIN,   /* some were answered instead: ask again */
    TERSE_CHOSEN_BATCH,
} terse_chosen;
terse_chosen terse_choose_batch(terse_frontend *fe, terse_pool_worker *worker, terse_batcher_reason *ret_reason);
/* Moves a waiting request into the batch of `worker`. */
void terse_choose_add(terse_frontend *fe, terse_pool_worker *worker, terse_request *request);

/* admin.c: load, unload, configure; and what became of one of them. */
void terse_admin_order(terse_frontend *fe, terse_client *client, const terse_wire_request *wire);
void terse_admin_done(terse_frontend *fe, const terse_msg_admin_done *done);

/* reload.c: models that come and go while others are served. */
void terse_reload_take(terse_frontend *fe, const terse_msg_model *message, int *fd); /* *fd is -1 when it was taken */
void terse_reload_limit(terse_frontend *fe, const terse_msg_model *message);
void terse_reload_drop(terse_frontend *fe, const terse_msg_model_state *message);
void terse_reload_drain(terse_frontend *fe, const terse_msg_model_state *message);
void terse_reload_held(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_held *held, uint32_t n);
void terse_reload_warmed(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_model_state *message);
void terse_reload_unloaded(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_model_state *message);
void terse_reload_worker_gone(terse_frontend *fe, terse_pool_worker *worker);
/* How it ended is known: a model that it was warming may be to blame. */
void terse_reload_worker_died(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_worker *message);
void terse_reload_step(terse_frontend *fe); /* does what there is to do */

/* dispatch.c: gives every idle worker what the batcher decides. */
void terse_dispatch(terse_frontend *fe);
/* Sends a batch (members, lane, rows are in `worker`) with room for its outputs; false: no room. */
bool terse_dispatch_send(terse_frontend *fe, terse_pool_worker *worker);

/* complete.c */
void terse_complete_receive(terse_frontend *fe, terse_pool_worker *worker); /* its socket has something */
void terse_complete_exit(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_worker *message);
void terse_complete_gone(terse_frontend *fe, terse_pool_worker *worker); /* its socket ended */
void terse_complete_check_hung(terse_frontend *fe);
void terse_complete_ready(terse_frontend *fe, terse_pool_worker *worker); /* it has warmed and holds all models */

/* Counts why a request is going to be failed. */
static inline void terse_request_rejected(terse_frontend *fe, const terse_request *request, terse_rejection reason)
{
    fe->models[request->lane->model]->stats.rejected[reason] += !request->answered;
}

/* requests.c */
terse_request *terse_request_new(terse_frontend *fe); /* NULL: no memory */
/* Ends a request that neither waits nor runs any more: slots, deadline, session, client are let go. */
void terse_request_free(terse_frontend *fe, terse_request *request);
/* Takes a waiting request out of wherever it waits. */
void terse_request_withdraw(terse_frontend *fe, terse_request *request);
/* Answers a request with an error: at once, wherever it is. A running one is marked, its result dropped later. Those
 * that are full or not there now say when to come again. */
void terse_request_fail(terse_frontend *fe, terse_request *request, terse_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void terse_request_expire(terse_frontend *fe);                           /* answers those whose deadline has passed */
void terse_request_end_late(terse_frontend *fe, terse_request *request); /* its time is over */
terse_places *terse_places_new(terse_frontend *fe); /* uninitialized; goes with its request. NULL: no memory */

/* Whether output i of a request is wanted and goes into its output slot, not into shared memory. */
static inline bool terse_request_in_slot(const terse_request *request, uint32_t i)
{
    return (request->wanted_mask >> i & 1) &&
           (!request->places || request->places->outputs[i].bytes == TERSE_PLACE_SLOT);
}
void terse_request_give_output(terse_frontend *fe, terse_request *request); /* its output slot, if it has one */

/* reply.c */
void terse_reply_error(terse_frontend *fe, terse_client *client, uint64_t id, terse_status status, const char *message);
/* The same, with when to come again (TERSE_WIRE_NO_RETRY: not told). */
void terse_reply_rejection(terse_frontend *fe, terse_client *client, uint64_t id, terse_status status,
                           const char *message, uint64_t retry_after_ms);
/* Sends fe->header[0..size) alone. */
void terse_reply_header(terse_frontend *fe, terse_client *client, const void *header, size_t size);
/* Sends the result of a running request; computed_ns is when its worker's answer was read, for traces. `outputs`
 * describes the batch, in the model's order. The output slot of the request is given away. */
void terse_reply_result(terse_frontend *fe, const terse_pool_worker *worker, terse_request *request,
                        const terse_msg_tensor *outputs, uint64_t compute_ns, uint64_t computed_ns);
/* Sends the reply of a request that has ended once more, as far as it is still there. */
bool terse_reply_repeat(terse_frontend *fe, terse_client *client, const uint8_t *session, uint64_t id);
/* Takes back what ZeroMQ has sent, and tries again to send what waits for slow readers. */
void terse_reply_collect(terse_frontend *fe);
void terse_reply_retry(terse_frontend *fe);
void terse_reply_retry_client(terse_frontend *fe, terse_client *client);
/* The client is there no more: what it has waiting is dropped. */
void terse_reply_gone(terse_frontend *fe, terse_client *client);

#endif
