/* SPDX-License-Identifier: Apache-2.0 */
/* wire.h: the msgpack header (frame 0) of requests and replies, as structs; both directions.
 * Runs in: clients (libterse), frontend. Owns nothing: texts of a decoded header point into its bytes.
 *
 * Decoding allocates nothing and trusts nothing: at most TERSE_WIRE_HEADER_BYTES, TERSE_WIRE_MAX_IO tensors,
 * TERSE_MAX_RANK dimensions, texts of TERSE_WIRE_MAX_TEXT bytes. Unknown keys are passed over; a known key with a
 * wrong type, a key that is there twice and bytes behind the map are refused. Which frames exist, and what a
 * model wants, is the caller's to check.
 *
 * The structs are large because their arrays are inside: keep one as scratch; `init` and `decode` touch only what
 * is used. */
#ifndef TERSE_COMMON_WIRE_H
#define TERSE_COMMON_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pack.h"
#include "common/status.h"
#include "common/tensor.h"

enum {
    TERSE_WIRE_VERSION = 1,
    TERSE_WIRE_HEADER_BYTES = 65536, /* of a request, and of every reply but that of "stats" */
    TERSE_WIRE_STATS_BYTES = 4 << 20,
    TERSE_WIRE_MAX_IO = 64, /* inputs, and outputs */
    TERSE_WIRE_MAX_MODELS = 256,
    TERSE_WIRE_MAX_TEXT = 1024, /* bytes of a name, a version or an error */
    TERSE_WIRE_MAX_PATH = 4095, /* bytes of "file" */
    TERSE_WIRE_SESSION_BYTES = 16,
    TERSE_WIRE_ARENA_BYTES = 16, /* the token of shared memory */
    TERSE_WIRE_MAX_PRIORITY = 9,
};

typedef enum terse_wire_op {
    TERSE_WIRE_UNKNOWN = 0, /* readable, not ours: answer UNIMPLEMENTED with `op_name` */
    TERSE_WIRE_INFER,
    TERSE_WIRE_LIVE,
    TERSE_WIRE_READY,
    TERSE_WIRE_MODELS,
    TERSE_WIRE_METADATA,
    TERSE_WIRE_STATS,
    TERSE_WIRE_CANCEL,
    /* for who runs the daemon */
    TERSE_WIRE_LOAD,
    TERSE_WIRE_UNLOAD,
    TERSE_WIRE_CONFIGURE,
} terse_wire_op;

/* A view of UTF-8 without zero bytes and without a final 0. data == NULL: the key was absent (or nil). */
typedef struct terse_wire_text {
    const char *data;
    uint32_t length;
} terse_wire_text;

terse_wire_text terse_wire_text_of(const char *text); /* strlen; NULL gives the absent text */
bool terse_wire_text_is(terse_wire_text text, const char *other);

typedef struct terse_wire_tensor {
    terse_wire_text name;                    /* never absent */
    terse_dtype dtype;                       /* TERSE_DTYPE_NONE in a request's "outputs" */
    int rank;                                /* -1: no "shape" (only in a request's "outputs") */
    int64_t dims[TERSE_MAX_RANK];            /* >= 0; in "metadata" -1 where a symbol stands */
    terse_wire_text symbols[TERSE_MAX_RANK]; /* set only where dims[i] is -1 ("metadata" replies) */
    uint32_t frame;                          /* counts from the header = 0; 0: the bytes are not in a frame */
    bool has_shm;
    uint64_t shm_offset, shm_size;
} terse_wire_tensor;

typedef struct terse_wire_request {
    terse_wire_op op;
    bool has_id, has_session, has_timeout, has_target, has_sent, has_arena;
    bool has_outputs; /* "outputs" was there: only those are wanted, in that order; else all */
    bool has_max_batch, has_batch_timeout, has_workers; /* configure: what is to change */
    bool trace;                                         /* infer: the reply is to tell when what happened */
    uint8_t session[TERSE_WIRE_SESSION_BYTES];
    uint8_t arena[TERSE_WIRE_ARENA_BYTES]; /* in which tensors with `has_shm` lie */
    uint32_t priority;                     /* 0..9, 0 when absent */
    uint64_t id;
    uint64_t timeout_us;
    uint64_t sent_ns; /* CLOCK_MONOTONIC of its submission: means something on the same host only */
    uint64_t target;  /* cancel: the id that is to end */
    terse_wire_text op_name, model, version;
    terse_wire_text file; /* load: a path on the daemon's host */
    uint64_t max_batch, batch_timeout_us, workers;
    uint32_t n_inputs, n_outputs;
    terse_wire_tensor inputs[TERSE_WIRE_MAX_IO], outputs[TERSE_WIRE_MAX_IO];
} terse_wire_request;

/* When a request was where, in nanoseconds: the first by CLOCK_MONOTONIC of the daemon's host, the others since that.
 */
typedef struct terse_wire_trace {
    bool has_received; /* told to clients of the same host, who have that clock */
    uint64_t received_ns;
    uint64_t queued_ns, dispatched_ns, computed_ns, replied_ns;
    uint32_t worker; /* that ran it */
} terse_wire_trace;

typedef struct terse_wire_model {
    terse_wire_text name, version, state;
} terse_wire_model;

typedef struct terse_wire_reply {
    bool has_id;
    bool has_timing, has_models, has_inputs, has_outputs, has_batchable, has_max_batch; /* keys that are there */
    bool has_retry_after; /* errors: the same request may do better after that time */
    bool has_batch_timeout, has_workers;
    bool has_trace;
    bool batchable;
    uint64_t id;
    terse_status status;
    terse_wire_text error, model, version;
    uint64_t queue_us, compute_us;
    uint64_t retry_after_ms;
    uint32_t batch;
    uint32_t max_batch, workers;
    uint64_t batch_timeout_us;
    terse_wire_trace trace;
    uint32_t n_inputs, n_outputs, n_models;
    terse_wire_tensor inputs[TERSE_WIRE_MAX_IO]; /* metadata only */
    terse_wire_tensor outputs[TERSE_WIRE_MAX_IO];
    terse_wire_model models[TERSE_WIRE_MAX_MODELS];
} terse_wire_reply;

/* Everything absent, no tensors, status OK, rank of tensors not touched. */
void terse_wire_request_init(terse_wire_request *request);
void terse_wire_reply_init(terse_wire_reply *reply);
/* A tensor entry with nothing but a name (an empty text until it is set). */
void terse_wire_tensor_init(terse_wire_tensor *tensor);

/* Decodes a header. On INVALID_ARGUMENT the message is precise and `request->has_id` and `id` (and `has_session`)
 * still hold what could be read, so that the error can be answered; nothing else of *request may be used.
 * What an op needs is checked here: an id always, a model for infer, metadata, load and unload, a target for cancel, a
 * file for load. */
int terse_wire_decode_request(const void *header, size_t size, terse_wire_request *request, terse_error *error);

/* A reply; an unknown status name becomes INTERNAL. "models" as a map (the reply of "stats") is passed over: walk those
 * bytes with pack.h. */
int terse_wire_decode_reply(const void *header, size_t size, terse_wire_reply *reply, terse_error *error);

/* Requests of one client, and mostly those of all, differ in a few numbers, and so do their replies. A form is a header
 * that was decoded once, and where its numbers (id, session, times, places in shared memory) lie; one that is the same
 * but for them is read by comparing bytes. Nothing is accepted that decoding whole would not. */
enum { TERSE_WIRE_FORMS = 4, TERSE_WIRE_FORM_BYTES = 512, TERSE_WIRE_FORM_HOLES = 24 };
typedef enum terse_wire_hole_kind {
    TERSE_WIRE_HOLE_U64, /* an integer however it is written */
    TERSE_WIRE_HOLE_U32,
    TERSE_WIRE_HOLE_TOKEN, /* 16 bytes */
} terse_wire_hole_kind;

typedef struct terse_wire_hole {
    uint16_t from, to; /* bytes of the header */
    terse_wire_hole_kind kind;
    uint32_t value; /* its place in the request or the reply */
} terse_wire_hole;

typedef struct terse_wire_form {
    uint32_t bytes, n_holes; /* bytes 0: none */
    terse_wire_hole holes[TERSE_WIRE_FORM_HOLES];
    uint8_t header[TERSE_WIRE_FORM_BYTES];
} terse_wire_form;

/* Both are large: keep one, zeroed at first. */
typedef struct terse_wire_forms {
    uint32_t last;
    terse_wire_form forms[TERSE_WIRE_FORMS];
    terse_wire_request requests[TERSE_WIRE_FORMS], plain;
} terse_wire_forms;

typedef struct terse_wire_reply_forms {
    uint32_t last;
    terse_wire_form forms[TERSE_WIRE_FORMS];
    terse_wire_reply replies[TERSE_WIRE_FORMS], plain;
} terse_wire_reply_forms;

/* As terse_wire_decode_request; the request is one of `forms` until the next call, its texts may point into `header`.
 * It is set in any case. */
int terse_wire_decode_like(terse_wire_forms *forms, const void *header, size_t size, terse_wire_request **ret_request,
                           terse_error *error);
/* The same of replies to infer. */
int terse_wire_decode_reply_like(terse_wire_reply_forms *forms, const void *header, size_t size,
                                 const terse_wire_reply **ret_reply, terse_error *error);

/* Encode into `buffer` and set *ret_size. RESOURCE_EXHAUSTED when `capacity` is too small; INVALID_ARGUMENT when a
 * request is beyond the limits above. */
int terse_wire_encode_request(const terse_wire_request *request, void *buffer, size_t capacity, size_t *ret_size,
                              terse_error *error);
int terse_wire_encode_reply(const terse_wire_reply *reply, void *buffer, size_t capacity, size_t *ret_size,
                            terse_error *error);
/* An error reply, shorter: any text is cut to TERSE_WIRE_MAX_TEXT. Needs at most TERSE_WIRE_ERROR_BYTES. */
enum { TERSE_WIRE_ERROR_BYTES = TERSE_WIRE_MAX_TEXT + 128 };
size_t terse_wire_encode_error(uint64_t id, terse_status status, const char *message,
                               uint8_t buffer[static TERSE_WIRE_ERROR_BYTES]);
/* The same with "retry_after_ms", unless that is TERSE_WIRE_NO_RETRY. */
#define TERSE_WIRE_NO_RETRY UINT64_MAX
size_t terse_wire_encode_rejection(uint64_t id, terse_status status, const char *message, uint64_t retry_after_ms,
                                   uint8_t buffer[static TERSE_WIRE_ERROR_BYTES]);

/* Begins a reply map by hand ("stats"): v, id and status are written, `n_more` key-value pairs must follow. */
void terse_wire_pack_head(msgpack_packer *packer, uint64_t id, terse_status status, unsigned n_more);

const char *terse_wire_op_name(terse_wire_op op); /* "infer" ... */

#endif
