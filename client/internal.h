/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h: what the files of libterse share. Nothing here is part of its interface.
 *
 * A client has a `terse_link` for each endpoint (links.h). A submission is a `pending`: it is in the client's table (by
 * id) and in its list (in the order of submission) from submit until its reply is taken. Frames are shared with the
 * request by libzmq's reference counts: nothing is copied again. */
#ifndef TERSE_CLIENT_INTERNAL_H
#define TERSE_CLIENT_INTERNAL_H

#include <stdbool.h>

#include <zmq.h>

#include "client/terse.h"
#include "client/throttle.h"
#include "common/wire.h"

enum { INLINE_FRAMES = 3 };
#define NEVER UINT64_MAX

typedef struct request_input {
    char *name;
    terse_dtype dtype;
    int rank;
    int64_t dims[TERSE_MAX_RANK];
    bool placed; /* in the arena at `offset`; else `data` has it */
    uint64_t offset;
    zmq_msg_t data;
} request_input;

typedef struct request_output {
    char *name;
    bool placed;
    uint64_t offset, bytes;
} request_output;

struct terse_request {
    char *model, *version;             /* version NULL: any */
    uint64_t timeout_us, throttle_key; /* the latter follows from what is above */
    unsigned priority;
    bool trace;
    int n_inputs, n_outputs;
    request_input inputs[TERSE_WIRE_MAX_IO];
    request_output outputs[TERSE_WIRE_MAX_IO];
    terse_client_arena *arena; /* where the placed ones lie; NULL: none are */
};

typedef struct reply_output {
    const char *name;
    terse_dtype dtype;
    int rank;
    int64_t dims[TERSE_MAX_RANK];
    const void *data;
    size_t bytes;
} reply_output;

struct terse_reply {
    uint64_t id;
    terse_status status;
    const char *error, *version; /* in `texts` */
    uint64_t queue_us, compute_us;
    uint64_t retry_after_ms; /* NEVER: the daemon told none */
    uint32_t batch;
    bool has_trace;
    terse_wire_trace trace; /* as the daemon told it */
    uint64_t submitted_ns, completed_ns;
    int n_outputs, n_frames;
    reply_output *outputs;
    zmq_msg_t *frames; /* those whose bytes the outputs point into */
    zmq_msg_t header;  /* kept for the replies of our own operations */
};

typedef enum pending_state {
    PENDING_UNSENT, /* in the list of those; also again, after a connection was lost or for a retry */
    PENDING_SENT,
    PENDING_WAITING, /* was refused and waits to be sent again */
    PENDING_DONE,    /* `reply` is there */
} pending_state;

typedef enum pending_kind {
    PENDING_INFER,
    PENDING_OWN,    /* an operation of ours that somebody waits for: never given by terse_client_poll */
    PENDING_FORGET, /* nobody waits: gone with its reply */
} pending_kind;

struct terse_link;

typedef struct pending {
    struct pending *next, *previous; /* the client's list */
    struct pending *table_next;      /* same slot of the table */
    struct pending *next_done;       /* completed requests, first come first served */
    struct pending *unsent_next, *unsent_previous;
    uint64_t id;
    uint64_t deadline_ns;    /* the user's, NEVER: none */
    uint64_t due_ns;         /* when time will do something, NEVER: not */
    size_t due_at;           /* place in the heap of those + 1; 0: not there */
    uint64_t unsent_ns;      /* since when it is to be sent */
    uint64_t no_retry_ns;    /* a retry that would come later is not made */
    uint64_t submitted_ns;   /* of one that is traced, else 0 */
    uint64_t ended_ns;       /* when a daemon that shuts down first refused it, NEVER: none has */
    uint32_t retries;        /* made so far */
    uint32_t refused;        /* a bit for each link that had no room for it since the last of these */
    struct terse_link *link; /* SENT: over which; NULL: through the ring */
    uint64_t throttle_key;   /* of the one that it counts for, 0: none */
    struct terse_link *only; /* goes over this one or not at all; NULL: over any */
    size_t bytes;            /* of all frames */
    bool shared;             /* its tensors lie in the client's arena */
    bool ring;               /* it goes through the arena's ring */
    bool here;               /* it was refused here */
    pending_kind kind;
    pending_state state;
    int n_frames; /* the header counts */
    zmq_msg_t *frames;
    zmq_msg_t inline_frames[INLINE_FRAMES];
    terse_reply *reply;
} pending;

/* By id, chained. */
typedef struct pending_table {
    pending **slots;
    size_t mask, n;
} pending_table;

struct terse_client {
    void *context;
    char *endpoint; /* as it was given: one, or several with commas between */
    struct terse_link *links;
    int n_links, n_connected, next_link;
    uint64_t resend_ns; /* several links: one that is silent for so long is passed over */
    uint8_t session[TERSE_WIRE_SESSION_BYTES];
    uint64_t next_id, lost_since_ns, reconnect_ns, retry_budget_ns;
    uint64_t random; /* state of the generator that spreads retries */
    uint32_t max_retries, max_refusals;
    uint64_t n_throttled; /* were refused here */
    uint32_t polls_here;  /* that had such a one to give */
    terse_throttle throttles[TERSE_THROTTLES];
    size_t max_outstanding, n_unanswered;
    bool local;     /* every daemon is on this host: it has our clock */
    uint32_t turns; /* of those that wait to be sent */
    pending_table table;
    pending *first, *last; /* in the order of submission */
    pending *done_first, *done_last;
    pending *spare; /* freed entries, to be used again */
    size_t n_spare;
    pending *unsent_first, *unsent_last; /* in the order in which they are to go */
    pending *shared_first, *shared_last; /* the same of those that lie in the arena */
    terse_client_arena *arena;           /* NULL: none is attached */
    uint64_t spin_ns;
    uint32_t glances; /* at the completion ring since everything was looked at */
    bool unsure;      /* the sockets may have something of which their descriptors do not tell again */
    pending **due;    /* heap: due.c */
    size_t n_due, due_capacity;
    int epoll_fd, timer_fd, event_fd; /* -1 until terse_client_fd is asked */
    uint64_t timer_set_ns;
    bool event_set;
    terse_wire_request wire_request; /* scratch */
    terse_wire_reply wire_reply;     /* scratch */
    terse_wire_reply_forms replies;  /* of the ring's */
    uint8_t buffer[TERSE_WIRE_HEADER_BYTES];
};

/* error.c: the thread's last failure. */
terse_error *terse_client_error_slot(void);
#define CLIENT_FAIL(...) ((terse_status)terse_fail(terse_client_error_slot(), __VA_ARGS__))

/* curve.c: gives the link's socket the keys that options or environment name; before it connects. */
terse_status terse_client_set_keys(const terse_client *client, struct terse_link *link,
                                   const terse_client_options *options);

/* table.c */
bool terse_table_init(pending_table *table, size_t capacity);
void terse_table_done(pending_table *table);
void terse_table_put(pending_table *table, pending *entry);
pending *terse_table_find(const pending_table *table, uint64_t id);
void terse_table_remove(pending_table *table, uint64_t id);

/* due.c. Room for every entry of the table and one more; false: no memory. */
bool terse_due_reserve(terse_client *client);
void terse_due_set(terse_client *client, pending *entry, uint64_t due_ns); /* NEVER takes it out */
uint64_t terse_due_next(const terse_client *client);                       /* NEVER: nothing is due ever */

/* request.c: fills a wire header over the request's texts. */
/* All inputs and outputs lie in the arena. */
bool terse_request_is_placed(const terse_request *request);
void terse_request_describe(const terse_request *request, terse_wire_request *wire);

/* reply.c: makes a reply of a decoded header; takes over the frames (and the header when keep_header) on success. */
terse_status terse_reply_make(const terse_wire_reply *wire, zmq_msg_t *header, zmq_msg_t *frames, int n_frames,
                              bool keep_header, const terse_client_arena *arena, terse_reply **ret_reply);
terse_reply *terse_reply_make_failed(uint64_t id, terse_status status, const char *text);

/* pending.c */
void terse_pending_queue(terse_client *client, pending *entry); /* to be sent, behind all others */
void terse_pending_sent(terse_client *client, pending *entry, struct terse_link *link); /* NULL: the ring */
void terse_pending_hold(terse_client *client, pending *entry); /* neither sent nor to be sent */
pending *terse_pending_new(terse_client *client, pending_kind kind, int n_frames);
void terse_pending_free(terse_client *client, pending *entry);
/* A refusal that is to be no answer: the entry waits to be sent again. false: it is the answer. retry_after_ms NEVER:
 * none was told. */
bool terse_pending_retry(terse_client *client, pending *entry, terse_status refusal, uint64_t retry_after_ms);
/* A daemon is there: it may take what one that shut down has refused. */
void terse_pending_next_came(terse_client *client, pending *entry);
void terse_pending_complete(terse_client *client, pending *entry, terse_reply *reply);

/* client.c */
/* The client speaks with one daemon; INVALID_ARGUMENT names `what` cannot be asked of several. */
terse_status terse_client_want_one(const terse_client *client, const char *what);
/* Sends client->wire_request (id, session and op are filled in here). `request` may be NULL: no frames. */
terse_status terse_client_send(terse_client *client, terse_wire_op op, pending_kind kind, const terse_request *request,
                               uint64_t timeout_us, uint64_t *ret_id);
/* The same over one link only: dropped when that is lost. */
terse_status terse_client_send_over(terse_client *client, struct terse_link *link, terse_wire_op op, pending_kind kind);
/* Waits for an operation of ours; a reply whose status is not OK becomes this thread's error. */
terse_status terse_client_finish(terse_client *client, uint64_t id, int timeout_ms, terse_reply **ret_reply);

#endif
