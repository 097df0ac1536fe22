/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h: what the files of libterse share. Nothing here is part of its interface.
 *
 * A submission is a `pending`: it is in the client's table (by id) and in its list (in the order of submission) from
 * submit until its reply is taken. Frames are shared with the request by libzmq's reference counts: nothing is copied
 * again. */
#ifndef TERSE_CLIENT_INTERNAL_H
#define TERSE_CLIENT_INTERNAL_H

#include <stdbool.h>

#include <zmq.h>

#include "client/terse.h"
#include "common/wire.h"

enum { INLINE_FRAMES = 3 };

typedef struct request_input {
    char *name;
    terse_dtype dtype;
    int rank;
    int64_t dims[TERSE_MAX_RANK];
    zmq_msg_t data;
} request_input;

struct terse_request {
    char *model, *version; /* version NULL: any */
    uint64_t timeout_us;
    unsigned priority;
    int n_inputs, n_outputs;
    request_input inputs[TERSE_WIRE_MAX_IO];
    char *outputs[TERSE_WIRE_MAX_IO];
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
    uint32_t batch;
    int n_outputs, n_frames;
    reply_output *outputs;
    zmq_msg_t *frames; /* those whose bytes the outputs point into */
    zmq_msg_t header;  /* kept for the replies of our own operations */
};

typedef enum pending_state {
    PENDING_UNSENT, /* also again, after a connection was lost */
    PENDING_SENT,
    PENDING_DONE, /* `reply` is there */
} pending_state;

typedef enum pending_kind {
    PENDING_INFER,
    PENDING_OWN,    /* an operation of ours that somebody waits for: never given by terse_client_poll */
    PENDING_FORGET, /* nobody waits: gone with its reply */
} pending_kind;

typedef struct pending {
    struct pending *next, *previous; /* the client's list */
    struct pending *table_next;      /* same slot of the table */
    struct pending *next_done;       /* completed requests, first come first served */
    uint64_t id, deadline_ns;        /* 0: none */
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
    void *context, *socket, *monitor;
    char *endpoint;
    uint8_t session[TERSE_WIRE_SESSION_BYTES];
    uint64_t next_id, next_deadline_ns, lost_since_ns, reconnect_ns;
    size_t max_outstanding, n_unanswered;
    bool connected;
    pending_table table;
    pending *first, *last; /* in the order of submission */
    pending *done_first, *done_last;
    pending *spare; /* freed entries, to be used again */
    size_t n_spare;
    bool unsent;                      /* something waits to be sent */
    int epoll_fd, timer_fd, event_fd; /* -1 until terse_client_fd is asked */
    uint64_t timer_set_ns;
    bool event_set;
    terse_wire_request wire_request; /* scratch */
    terse_wire_reply wire_reply;     /* scratch */
    uint8_t buffer[TERSE_WIRE_HEADER_BYTES];
};

/* error.c: the thread's last failure. */
terse_error *terse_client_error_slot(void);
#define CLIENT_FAIL(...) ((terse_status)terse_fail(terse_client_error_slot(), __VA_ARGS__))

/* table.c */
bool terse_table_init(pending_table *table, size_t capacity);
void terse_table_done(pending_table *table);
void terse_table_put(pending_table *table, pending *entry);
pending *terse_table_find(const pending_table *table, uint64_t id);
void terse_table_remove(pending_table *table, uint64_t id);

/* request.c: fills a wire header over the request's texts. */
void terse_request_describe(const terse_request *request, terse_wire_request *wire);

/* reply.c: makes a reply of a decoded header; takes over the frames (and the header when keep_header) on success. */
terse_status terse_reply_make(const terse_wire_reply *wire, zmq_msg_t *header, zmq_msg_t *frames, int n_frames,
                              bool keep_header, terse_reply **ret_reply);
terse_reply *terse_reply_make_failed(uint64_t id, terse_status status, const char *text);

/* pending.c */
pending *terse_pending_new(terse_client *client, pending_kind kind, int n_frames);
void terse_pending_free(terse_client *client, pending *entry);
void terse_pending_complete(terse_client *client, pending *entry, terse_reply *reply);

/* client.c */
/* Sends client->wire_request (id, session and op are filled in here). `request` may be NULL: no frames. */
terse_status terse_client_send(terse_client *client, terse_wire_op op, pending_kind kind, const terse_request *request,
                               uint64_t timeout_us, uint64_t *ret_id);
/* Waits for an operation of ours; a reply whose status is not OK becomes this thread's error. */
terse_status terse_client_finish(terse_client *client, uint64_t id, int timeout_ms, terse_reply **ret_reply);

#endif
