/* SPDX-License-Identifier: Apache-2.0 */
/* served.h: a served model as the front end knows it: signature, limits, lanes, counters.
 * Runs in: frontend. Ownership: a terse_served owns its copy of the signature and its lanes; the model's mapping is
 * only looked at while it is opened. */
#ifndef TERSE_FRONTEND_SERVED_H
#define TERSE_FRONTEND_SERVED_H

#include "common/bytes.h"
#include "daemon/frontend/predict.h"
#include "daemon/frontend/queue.h"
#include "daemon/frontend/stats.h"
#include "daemon/protocol.h"

typedef struct terse_served_tensor {
    const char *name;
    uint32_t name_length;
    terse_dtype dtype;
    int rank;
    int64_t dims[TERSE_MAX_RANK]; /* < 0: a symbol, as in graph.h */
} terse_served_tensor;

/* X(ID, text for clients) */
#define TERSE_SERVED_STATES(X)                                                                                         \
    X(PENDING, "loading")   /* workers warm it; its name means another version, or nothing yet */                      \
    X(READY, "ready")       /* what its name means */                                                                  \
    X(DRAINING, "draining") /* finishes the requests that it has */                                                    \
    X(LEAVING, "draining")  /* has none; workers let go of it */

typedef enum terse_served_state {
#define SERVED_ID(id, text) TERSE_SERVED_##id,
    TERSE_SERVED_STATES(SERVED_ID)
#undef SERVED_ID
} terse_served_state;

typedef struct terse_served {
    char name[TERSE_MODEL_NAME];
    char version[TERSE_VERSION_BYTES];
    terse_served_state state;
    uint64_t serial;
    int memory;              /* the sealed memfd, for workers that lack it */
    terse_msg_model message; /* as it came: for them too */
    uint32_t n_deaths;       /* of workers that warmed it and were killed by somebody else */
    uint32_t index, max_batch;
    uint32_t max_members;                            /* of a batch: what fits one message */
    uint64_t batch_timeout_ns, deadline_ns, hang_ns; /* 0: none, or automatic */
    terse_objective objective;
    bool batchable;
    uint32_t n_inputs, n_outputs, n_symbols;
    terse_served_tensor *inputs, *outputs;
    const char **symbols;
    terse_arena *arena;
    terse_lane *lanes;
    uint32_t n_lanes;
    terse_share share;
    terse_predict predict[TERSE_PRIORITIES][TERSE_PREDICT_TIMES];
    double offered, let_in; /* requests of late: that came, and that were let in (overload.c) */
    terse_stats stats;
    terse_stats_recent recent;
} terse_served;

/* Reads the signature of the model in `fd` (sealed, message->bytes long), which is the model's on success. */
int terse_served_open(const terse_msg_model *message, int fd, terse_served **ret_served, terse_error *error);
void terse_served_close(terse_served *served);
/* Limits that may change while it is served: those of `message`. */
void terse_served_limit(terse_served *served, const terse_msg_model *message);
const char *terse_served_state_name(terse_served_state state);
/* Whether no request waits in it or runs. */
bool terse_served_unused(const terse_served *served);

/* What a request asks of a model, checked. */
typedef struct terse_served_call {
    uint32_t rows;  /* 1 for a model that is not batchable */
    uint64_t bytes; /* of the inputs that are copied, each rounded up to TERSE_SLOT_ALIGN */
    const terse_wire_tensor *inputs[TERSE_WIRE_MAX_IO]; /* in the model's order */
    uint8_t n_wanted;
    uint8_t wanted[TERSE_WIRE_MAX_IO];
    const terse_wire_tensor *wishes; /* the request's outputs in the order of `wanted`; NULL: it names none */
    uint32_t n_placed;               /* of these lie in shared memory */
} terse_served_call;

/* What a request may send beside its header: frames, and the sizes of the shared memory that it names (has: false). */
typedef struct terse_served_bytes {
    uint32_t n_frames;
    const size_t *frame_bytes;
    bool has_arena;
    bool only_arena; /* it came through a ring: everything lies in shared memory */
    uint64_t arena_input_bytes, arena_output_bytes;
} terse_served_bytes;

/* Whether the bytes of input `index` in shared memory are copied before anything looks at them: those that can decide
 * an index or a shape, which the client could change between the check and the use. */
bool terse_served_copies(const terse_served *served, const terse_wire_tensor *input);

/* Checks names, dtypes, shapes, symbols, frames, places and rows. INVALID_ARGUMENT names the thing, what was found and
 * what is allowed. */
int terse_served_match(const terse_served *served, const terse_wire_request *request, const terse_served_bytes *bytes,
                       terse_served_call *ret_call, terse_error *error);
/* The lane of a call's dimensions, made if it is new; NULL when memory is out. */
terse_lane *terse_served_lane(terse_served *served, const terse_served_call *call, uint64_t now_ns);
/* The lane of a model whose inputs have no symbols but the batch; NULL for others. */
terse_lane *terse_served_plain_lane(terse_served *served, uint64_t now_ns);

#endif
