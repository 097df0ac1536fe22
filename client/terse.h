/* SPDX-License-Identifier: Apache-2.0 */
/* terse.h: libterse, the C client of tersed.
 *
 * A terse_client is a connection to a daemon, or to several; any number of requests may be outstanding on it. A
 * terse_request says what to compute, a terse_reply holds the answer. All three are opaque. Links libzmq and msgpack-c,
 * nothing else.
 *
 *     terse_client *client;
 *     if (terse_client_open(NULL, &client) != TERSE_OK)
 *         die(terse_last_error());
 *     terse_request *request = terse_request_new("digits");
 *     terse_request_add_input(request, "image", TERSE_FP32, 4, (int64_t[]){1, 1, 8, 8}, pixels);
 *     terse_reply *reply;
 *     if (terse_client_infer(client, request, &reply) != TERSE_OK)
 *         die(terse_last_error());
 *     const float *logits = terse_reply_data(reply, 0, NULL);
 *
 * client/examples/classify.c is a whole program.
 *
 * Errors. Functions that can fail return a terse_status; TERSE_OK is 0. terse_last_error() then says in one line what
 * was found and what is allowed; it belongs to the calling thread and holds until that thread's next failing call. What
 * a ret_ parameter points to is written on success only.
 *
 * Threads. A terse_client may be used by one thread at a time: share it under a lock of your own, or open one per
 * thread. A terse_request and a terse_reply likewise. Different handles are independent of each other.
 *
 * Ownership. What a _new, _open or ret_ parameter gives is the caller's, to be ended with _free or _close; these accept
 * NULL. Strings and data returned by an accessor belong to the handle that they were asked of.
 *
 * Lost connections. libterse reconnects by itself and sends what is unanswered again under the same request id; the
 * daemon knows ids that it has seen, and every request is completed here exactly once: with the daemon's answer, with
 * TERSE_DEADLINE_EXCEEDED when its own time is over, or with TERSE_UNAVAILABLE when no daemon has been reachable for
 * reconnect_timeout_ms.
 *
 * Several daemons. An endpoint may name up to 16 daemons that serve the same models, with commas between:
 * "tcp://a:5555,tcp://b:5555". Each request goes to the one with the fewest unanswered ones. What a daemon has whose
 * connection is lost goes to the others at once; what one has that falls silent (its process stopped, its network cut)
 * goes to them after resend_ms. That counts from the daemon's last word and not from the request's submission: one that
 * computes for long still answers that it lives. A daemon that is full or shutting down is passed over for as long as
 * it says, and what it refused goes to the others. A request may then run more than once; it is answered once.
 *
 * Overload. A daemon that cannot answer a request in time refuses it at once, and its reply says when to come again
 * (max_retries makes libterse do so). To refuse costs the daemon a part of what it costs to answer small requests. So a
 * client that gets more than max_refusals_per_s of these a second sends a quarter more than the daemon takes of it and
 * refuses the rest here, with the status and the time that the daemon last named; such a reply's error begins with
 * "refused by libterse", and terse_client_throttled counts them. Requests for different models, versions, priorities
 * and times (by powers of two) are judged apart. It ends within a tenth of a second when no more is asked than is
 * taken; a daemon that can suddenly do more is sent a quarter more every twentieth of a second until then.
 */
#ifndef TERSE_H
#define TERSE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef TERSE_API
#if defined(__GNUC__)
#define TERSE_API __attribute__((visibility("default")))
#else
#define TERSE_API
#endif
#endif

/* Status codes, named as gRPC names them. Numbers are pinned; new ones may be added at the end. */
#ifndef TERSE_STATUS_CODES
#define TERSE_STATUS_CODES
typedef enum terse_status {
    TERSE_OK = 0,
    TERSE_INVALID_ARGUMENT = 1,   /* the call or the request is wrong; sending it again will not help */
    TERSE_NOT_FOUND = 2,          /* no such model or version */
    TERSE_RESOURCE_EXHAUSTED = 3, /* the daemon is full, or too much is outstanding: try later */
    TERSE_DEADLINE_EXCEEDED = 4,  /* not done in the time given */
    TERSE_UNAVAILABLE = 5,        /* no daemon answers, or it is draining: try later */
    TERSE_CANCELLED = 6,          /* terse_client_cancel came in time */
    TERSE_INTERNAL = 7,           /* a fault of the daemon's, or a request that kills its workers */
    TERSE_UNIMPLEMENTED = 8,
    TERSE_PERMISSION_DENIED = 9,
    TERSE_SYSTEM = 10, /* a system call failed here; terse_last_error has errno's text */
} terse_status;
#endif

/* Element types, named as the Open Inference Protocol names them. Numbers are pinned. */
#ifndef TERSE_DTYPE_CODES
#define TERSE_DTYPE_CODES
typedef enum terse_dtype {
    TERSE_DTYPE_NONE = 0, /* no type: what an accessor gives for an index that is out of range */
    TERSE_FP32 = 1,
    TERSE_FP64 = 2,
    TERSE_FP16 = 3,
    TERSE_BF16 = 4,
    TERSE_INT8 = 5,
    TERSE_INT16 = 6,
    TERSE_INT32 = 7,
    TERSE_INT64 = 8,
    TERSE_UINT8 = 9,
    TERSE_UINT16 = 10,
    TERSE_UINT32 = 11,
    TERSE_UINT64 = 12,
    TERSE_BOOL = 13, /* one byte, 0 or 1 */
} terse_dtype;
#endif

typedef struct terse_client terse_client;
typedef struct terse_request terse_request;
typedef struct terse_reply terse_reply;
typedef struct terse_client_arena terse_client_arena;

/* "0.1.0": of the library that is loaded. */
TERSE_API const char *terse_version(void);
/* One line on the last failure in this thread, never NULL. */
TERSE_API const char *terse_last_error(void);
/* "OK", "INVALID_ARGUMENT" ...; "UNKNOWN" for a number that is no status. */
TERSE_API const char *terse_status_name(terse_status status);
/* "FP32" ..., and the bytes of one element (0 for a number that is no type). */
TERSE_API const char *terse_dtype_name(terse_dtype dtype);
TERSE_API size_t terse_dtype_size(terse_dtype dtype);

/* --- the connection --------------------------------------------------------------------------------------- */

/* Start from TERSE_CLIENT_OPTIONS_INIT: it sets `size`, by which the library knows which fields the program that was
 * compiled against this header has. A field that is 0 or NULL takes the default in brackets. */
typedef struct terse_client_options {
    size_t size;
    /* "ipc:///run/terse/tersed.sock" or "tcp://HOST:PORT", or several with commas between [$TERSE_ENDPOINT, else what
     * terse_default_endpoint says] */
    const char *endpoint;
    uint32_t connect_timeout_ms;   /* how long terse_client_open waits for the daemon's answer [5000] */
    uint32_t reconnect_timeout_ms; /* how long a lost daemon is waited for before requests fail [30000] */
    uint32_t max_outstanding;      /* unanswered requests at most; more are RESOURCE_EXHAUSTED [4096] */
    /* A request that is refused because the daemon is full (RESOURCE_EXHAUSTED) is sent again by itself after the time
     * that the daemon names, up to so many times [0: never]; unless that would be later than so long after its
     * submission [30000], or behind its own timeout. Then its refusal is its reply. (One that a daemon refuses because
     * it shuts down waits for the next daemon as if the connection were lost already.) */
    uint32_t max_retries;
    uint32_t retry_budget_ms;
    /* With shared memory: how long a wait looks for the answer before it sleeps, at most a second [0: 15 microseconds,
     * and only while answers come so soon, as they do to a client with many requests outstanding]. Worth it when a core
     * is free and answers take tens of microseconds; the daemon has a setting of the same name. */
    uint32_t spin_us;
    /* Encrypted tcp (CURVE): the daemon's public key, as its 40 characters or as a file that has it
     * [$TERSE_CURVE_SERVER], and the file with this client's secret key, mode 0600 [$TERSE_CURVE_KEY]: `terse keygen`
     * makes both kinds. Both or none; not looked at over ipc. A daemon that does not know the key does not answer:
     * UNAVAILABLE. Of several daemons curve_server is everyone's key, or one for each with commas between. */
    const char *curve_server, *curve_key;
    /* With several daemons: for how long one may bring no word while it owes answers, before others get what it has
     * [1000]. */
    uint32_t resend_ms;
    /* So many refusals a second are the daemon's to make [30000; UINT32_MAX: all are]: see "Overload". */
    uint32_t max_refusals_per_s;
} terse_client_options;
#define TERSE_CLIENT_OPTIONS_INIT                                                                                      \
    {                                                                                                                  \
        sizeof(terse_client_options), NULL, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, 0                                         \
    }

/* Where a daemon on this host listens by default: $TERSE_ENDPOINT when set, else ipc:///run/terse/tersed.sock for root
 * and wherever that socket exists, else ipc://$XDG_RUNTIME_DIR/terse/tersed.sock. Valid until this thread's next call.
 */
TERSE_API const char *terse_default_endpoint(void);

/* Connects and waits until the daemon (one of several) has answered once. `options` may be NULL: all defaults.
 * UNAVAILABLE when nothing answers in connect_timeout_ms, INVALID_ARGUMENT for an endpoint that cannot be. */
TERSE_API terse_status terse_client_open(const terse_client_options *options, terse_client **ret_client);
/* Ends the connection; unanswered requests are forgotten. Replies that were taken stay valid. */
TERSE_API void terse_client_close(terse_client *client);

/* --- requests --------------------------------------------------------------------------------------------- */

/* A request for `model` (copied), all outputs, no deadline, priority 0. NULL when memory is out or the name is empty or
 * longer than 1024 bytes. It may be submitted any number of times, also while an earlier submission is outstanding. */
TERSE_API terse_request *terse_request_new(const char *model);
TERSE_API void terse_request_free(terse_request *request);

/* Adds an input tensor: row-major, `rank` (0..8) sizes in `dims`, dense little-endian elements at `data`, which are
 * copied before this returns. Naming an input again replaces it. The first dimension counts rows: 1 to the model's
 * max_batch of them may travel in one request, and they are answered together. */
TERSE_API terse_status terse_request_add_input(terse_request *request, const char *name, terse_dtype dtype, int rank,
                                               const int64_t *dims, const void *data);
/* Asks for this output only (and for those named by further calls, in that order). */
TERSE_API terse_status terse_request_add_output(terse_request *request, const char *name);
/* The version of the model ["1" or whatever is served]; NULL for any. */
TERSE_API terse_status terse_request_set_version(terse_request *request, const char *version);
/* Time from submission to answer, in microseconds; 0 for none. When it is over the request is completed with
 * DEADLINE_EXCEEDED, by the daemon as soon as it knows that it cannot be in time. */
TERSE_API void terse_request_set_timeout(terse_request *request, uint64_t timeout_us);
/* 0 (the default) to 9 (most urgent); more is taken as 9. The more urgent go first, among equals those with the earlier
 * deadline, those without one last; a few of each turn are left to who waits for long. */
TERSE_API void terse_request_set_priority(terse_request *request, unsigned priority);

/* With `on` other than 0 the reply tells when the request was where: terse_reply_trace. Costs a few clock readings. */
TERSE_API void terse_request_set_trace(terse_request *request, int on);

/* Submits and waits for the answer: OK with a reply to free, or the status of whatever went wrong. */
TERSE_API terse_status terse_client_infer(terse_client *client, const terse_request *request, terse_reply **ret_reply);

/* --- many requests at once -------------------------------------------------------------------------------- */

/* Sends a request and returns at once. *ret_id (may be NULL) names it on this client: never 0, never used again.
 * `request` may be changed or freed afterwards. RESOURCE_EXHAUSTED when max_outstanding are unanswered. */
TERSE_API terse_status terse_client_submit(terse_client *client, const terse_request *request, uint64_t *ret_id);
/* Gives the next completed request, whichever it is, waiting at most timeout_ms (0: not at all, -1: for ever).
 * OK with *ret_reply NULL: nothing was completed in that time. How the request ended is terse_reply_status's to say:
 * a request that failed is a reply too. UNAVAILABLE when nothing is outstanding and the wait would be for ever. */
TERSE_API terse_status terse_client_poll(terse_client *client, int timeout_ms, terse_reply **ret_reply);
/* The same for one request. NOT_FOUND when `id` is not outstanding here or its reply has been taken already. */
TERSE_API terse_status terse_client_wait(terse_client *client, uint64_t id, int timeout_ms, terse_reply **ret_reply);
/* Asks the daemon to drop a request. It is still completed: CANCELLED, or with its answer when that was quicker. */
TERSE_API terse_status terse_client_cancel(terse_client *client, uint64_t id);
/* How many requests are unanswered or answered and not yet taken. */
TERSE_API size_t terse_client_outstanding(const terse_client *client);

/* How often a request was refused here and not by the daemon, see "Overload"; of one that comes again by itself each
 * time counts, there and among its max_retries. */
TERSE_API uint64_t terse_client_throttled(const terse_client *client);

/* A descriptor for poll, epoll or select of your own event loop: readable whenever terse_client_poll(client, 0, ...)
 * has something to do; call that until it gives NULL. It stays the client's; never read from it or close it. -1 (and
 * terse_last_error) when the system gives no descriptor. */
TERSE_API int terse_client_fd(terse_client *client);

/* --- replies ---------------------------------------------------------------------------------------------- */

TERSE_API void terse_reply_free(terse_reply *reply);
TERSE_API uint64_t terse_reply_id(const terse_reply *reply);
TERSE_API terse_status terse_reply_status(const terse_reply *reply);
/* One line when the status is not OK, else "". */
TERSE_API const char *terse_reply_error(const terse_reply *reply);
/* After how many milliseconds the same request may do better, as the daemon reckons; -1: it told none. */
TERSE_API int64_t terse_reply_retry_after_ms(const terse_reply *reply);
/* The model's version that answered, "" when unknown. */
TERSE_API const char *terse_reply_version(const terse_reply *reply);
/* Outputs: 0 when the status is not OK. */
TERSE_API int terse_reply_n_outputs(const terse_reply *reply);
/* The index of an output by name, -1 when there is none. */
TERSE_API int terse_reply_find(const terse_reply *reply, const char *name);
/* Of output `index`; NULL, TERSE_DTYPE_NONE and -1 when it is out of range. terse_reply_shape returns the rank. */
TERSE_API const char *terse_reply_name(const terse_reply *reply, int index);
TERSE_API terse_dtype terse_reply_dtype(const terse_reply *reply, int index);
TERSE_API int terse_reply_shape(const terse_reply *reply, int index, const int64_t **ret_dims);
/* Dense, row-major, aligned to 16 bytes; *ret_bytes (may be NULL) is their number. Valid until terse_reply_free. */
TERSE_API const void *terse_reply_data(const terse_reply *reply, int index, size_t *ret_bytes);
/* What the daemon measured: microseconds in the queue and in the engine, and rows in the batch. Each may be NULL. */
TERSE_API void terse_reply_timing(const terse_reply *reply, uint64_t *ret_queue_us, uint64_t *ret_compute_us,
                                  uint32_t *ret_batch);

/* When a request was where, in nanoseconds since its submission (the first one, when it was sent again). Start from
 * TERSE_TRACE_INIT. */
typedef struct terse_trace {
    size_t size;
    uint64_t received_ns;   /* the daemon had read its header */
    uint64_t queued_ns;     /* it was let in, its tensors copied where they travel in frames */
    uint64_t dispatched_ns; /* its batch was sent to a worker */
    uint64_t computed_ns;   /* the worker's answer was read */
    uint64_t replied_ns;    /* its reply was made */
    uint64_t completed_ns;  /* libterse had read it */
    unsigned worker;        /* the number of the worker that ran it */
    /* Not 0: daemon and client share a host and its clock. 0: what the daemon measured is exact, and the way there and
     * the way back are taken as equally long. */
    int same_clock;
} terse_trace;
#define TERSE_TRACE_INIT                                                                                               \
    {                                                                                                                  \
        sizeof(terse_trace), 0, 0, 0, 0, 0, 0, 0, 0                                                                    \
    }
/* NOT_FOUND when the reply has none: it was not asked for, the request failed, or the daemon is too old to know. */
TERSE_API terse_status terse_reply_trace(const terse_reply *reply, terse_trace *ret_trace);

/* --- shared memory ------------------------------------------------------------------------------------------ */

/* Tensors that a client and a daemon of the same host share are copied by nobody: the daemon's workers read inputs
 * where they lie and write outputs where they are to be. A request whose tensors all lie there travels through a ring
 * in that memory too, without a socket; that happens by itself.
 *
 *     terse_client_arena *arena;
 *     if (terse_arena_attach(client, 1 << 20, 1 << 20, &arena) != TERSE_OK)
 *         die(terse_last_error());
 *     float *image = terse_arena_take_input(arena, 64 * sizeof *image);
 *     float *logits = terse_arena_take_output(arena, 10 * sizeof *logits);
 *     terse_request_place_input(request, "image", TERSE_FP32, 4, (int64_t[]){1, 1, 8, 8}, arena, image);
 *     terse_request_place_output(request, "logits", arena, logits, 10 * sizeof *logits);
 *     for (;;) {
 *         fill(image);
 *         if (terse_client_infer(client, request, &reply) != TERSE_OK) ...
 *         use(logits);                         (what terse_reply_data points to as well)
 *         terse_reply_free(reply);
 *     }
 *
 * From its submission to its answer a request's inputs must not be written and its outputs not be read; an output may
 * belong to one unanswered request only. Where several requests' inputs lie one behind the other and their outputs too
 * (as ranges that are taken in turn do, when their sizes are multiples of 64 bytes) they run as one batch without a
 * copy. With a deadline the answer comes when the memory is free again, which may be a little later than the deadline.
 *
 * The memory belongs to this connection. If the daemon's front end dies a new one is mapped at the same addresses with
 * the same content, and what is unanswered is sent again: pointers stay good. (What another thread writes into it in
 * the moment of that copy may be lost.) It is the kernel's when the process ends, however it ends; nothing is left
 * behind. */

/* Asks for memory: so many bytes for inputs and for outputs, rounded up to pages. RESOURCE_EXHAUSTED beyond what the
 * daemon allows a user, UNAVAILABLE when it shares none, INVALID_ARGUMENT on tcp and when the client has one already.
 */
TERSE_API terse_status terse_arena_attach(terse_client *client, size_t input_bytes, size_t output_bytes,
                                          terse_client_arena **ret_arena);
/* Gives it back at once; unanswered requests that lie in it end as CANCELLED. Requests must not be submitted again and
 * outputs of replies not be read. terse_client_close does it too. NULL is accepted. */
TERSE_API void terse_arena_detach(terse_client_arena *arena);
/* The whole memory, for those who keep account themselves; *ret_bytes may be NULL. */
TERSE_API void *terse_arena_inputs(const terse_client_arena *arena, size_t *ret_bytes);
TERSE_API void *terse_arena_outputs(const terse_client_arena *arena, size_t *ret_bytes);
/* A range of it, aligned to 64 bytes; NULL when no room is left. The lowest that is free. */
TERSE_API void *terse_arena_take_input(terse_client_arena *arena, size_t bytes);
TERSE_API void *terse_arena_take_output(terse_client_arena *arena, size_t bytes);
/* Gives back what one of these two gave. */
TERSE_API void terse_arena_give(terse_client_arena *arena, void *range);

/* As terse_request_add_input, but `data` lies among the arena's inputs (at a multiple of 64 bytes) and is not copied.
 * Of one request some inputs may be placed and others added. */
TERSE_API terse_status terse_request_place_input(terse_request *request, const char *name, terse_dtype dtype, int rank,
                                                 const int64_t *dims, terse_client_arena *arena, const void *data);
/* Asks for an output, as terse_request_add_output, or says of one that is asked for that it goes to `data` among the
 * arena's outputs, where `bytes` are free for it. RESOURCE_EXHAUSTED names the bytes needed when they are too few. */
TERSE_API terse_status terse_request_place_output(terse_request *request, const char *name, terse_client_arena *arena,
                                                  void *data, size_t bytes);

/* --- about the daemon ------------------------------------------------------------------------------------- */

/* Of several daemons any one is asked; stats, shared memory, load, unload and configure want one daemon and are
 * INVALID_ARGUMENT with several. */

/* OK when every model (or `model`, when not NULL) has a warmed worker; UNAVAILABLE while not; NOT_FOUND. */
TERSE_API terse_status terse_client_ready(terse_client *client, const char *model, int timeout_ms);

/* The models served. Name, version and state of number `index`, NULL when out of range. A model is "ready", "loading"
 * (also beside a ready version that it is going to replace) or "draining" (what it had is being finished). */
typedef struct terse_models terse_models;
TERSE_API terse_status terse_client_models(terse_client *client, int timeout_ms, terse_models **ret_models);
TERSE_API void terse_models_free(terse_models *models);
TERSE_API int terse_models_count(const terse_models *models);
TERSE_API const char *terse_models_name(const terse_models *models, int index);
TERSE_API const char *terse_models_version(const terse_models *models, int index);
TERSE_API const char *terse_models_state(const terse_models *models, int index);

/* What a model takes and gives. */
typedef struct terse_signature terse_signature;
TERSE_API terse_status terse_client_metadata(terse_client *client, const char *model, int timeout_ms,
                                             terse_signature **ret_signature);
TERSE_API void terse_signature_free(terse_signature *signature);
/* Whether requests are grouped into batches, and how many rows one request may have. */
TERSE_API int terse_signature_batchable(const terse_signature *signature);
TERSE_API unsigned terse_signature_max_batch(const terse_signature *signature);
/* Ports: inputs when `output` is 0, else outputs. Name NULL, type NONE and rank -1 when index is out of range.
 * A size of -1 is free; terse_signature_symbol has its name ("batch"), NULL for a fixed one. */
TERSE_API int terse_signature_count(const terse_signature *signature, int output);
TERSE_API const char *terse_signature_name(const terse_signature *signature, int output, int index);
TERSE_API terse_dtype terse_signature_dtype(const terse_signature *signature, int output, int index);
TERSE_API int terse_signature_shape(const terse_signature *signature, int output, int index, const int64_t **ret_dims);
TERSE_API const char *terse_signature_symbol(const terse_signature *signature, int output, int index, int axis);

/* Counters and histograms of the daemon: the msgpack map as it came ("models", "workers" ...; see terse-protocol).
 * Free it with terse_stats_free. */
typedef struct terse_stats terse_stats;
TERSE_API terse_status terse_client_stats(terse_client *client, int timeout_ms, terse_stats **ret_stats);
TERSE_API const void *terse_stats_msgpack(const terse_stats *stats, size_t *ret_bytes);
TERSE_API void terse_stats_free(terse_stats *stats);

/* --- running the daemon ----------------------------------------------------------------------------------- */

/* For root and the daemon's own user, over ipc; PERMISSION_DENIED for others. */

/* Serves `file` (an absolute path on the daemon's host) as `model`: a new one, or a new version of one that is served.
 * OK when the new version serves: from then on it gets all requests, and those that the old one has are finished by it.
 * Any other status: nothing has changed, and terse_last_error says why. `version` is told to clients ["1" when NULL].
 * timeout_ms limits the wait only (-1: none); a load that was not waited for goes on. */
TERSE_API terse_status terse_client_load(terse_client *client, const char *model, const char *file, const char *version,
                                         int timeout_ms);
/* Takes a model out of service: new requests are NOT_FOUND at once. OK when those that it had are answered and its
 * memory is given up. */
TERSE_API terse_status terse_client_unload(terse_client *client, const char *model, int timeout_ms);

/* Settings that can change while the daemon runs; -1 leaves one as it is. Start from TERSE_LIVE_SETTINGS_INIT. */
typedef struct terse_live_settings {
    size_t size;
    int64_t max_batch;        /* of a model: most rows that run together, 1 to 1024 */
    int64_t batch_timeout_us; /* of a model: how long an idle worker may wait for a batch to fill */
    int64_t workers;          /* processes, 1 to 256 */
} terse_live_settings;
#define TERSE_LIVE_SETTINGS_INIT                                                                                       \
    {                                                                                                                  \
        sizeof(terse_live_settings), -1, -1, -1                                                                        \
    }
/* Changes settings of `model`, or of all models when it is NULL. On success *settings has what is in force: -1 for
 * what has no one value (settings of models when `model` is NULL and they were not set). With nothing set it only asks.
 * What a restart brings is what the configuration says. */
TERSE_API terse_status terse_client_configure(terse_client *client, const char *model, terse_live_settings *settings,
                                              int timeout_ms);

#ifdef __cplusplus
}
#endif

#endif
