/* SPDX-License-Identifier: Apache-2.0 */
#include "common/wire_walk.h"

#include <inttypes.h>
#include <string.h>

/* Decoding is one pass over the bytes with wire_walk.h; wire_form.c has what goes faster, wire_encode.c encoding. */

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

static const char *const op_names[] = {
    [TERSE_WIRE_UNKNOWN] = "unknown", [TERSE_WIRE_INFER] = "infer",         [TERSE_WIRE_LIVE] = "live",
    [TERSE_WIRE_READY] = "ready",     [TERSE_WIRE_MODELS] = "models",       [TERSE_WIRE_METADATA] = "metadata",
    [TERSE_WIRE_STATS] = "stats",     [TERSE_WIRE_CANCEL] = "cancel",       [TERSE_WIRE_LOAD] = "load",
    [TERSE_WIRE_UNLOAD] = "unload",   [TERSE_WIRE_CONFIGURE] = "configure",
};

const char *terse_wire_op_name(terse_wire_op op)
{
    return (unsigned)op < N_OF(op_names) ? op_names[op] : op_names[0];
}

terse_wire_text terse_wire_text_of(const char *text)
{
    return text ? (terse_wire_text){text, (uint32_t)strlen(text)} : (terse_wire_text){NULL, 0};
}

bool terse_wire_text_is(terse_wire_text text, const char *other)
{
    return text.data && strlen(other) == text.length && memcmp(text.data, other, text.length) == 0;
}

void terse_wire_request_init(terse_wire_request *request)
{
    memset(request, 0, offsetof(terse_wire_request, inputs));
}

void terse_wire_reply_init(terse_wire_reply *reply)
{
    memset(reply, 0, offsetof(terse_wire_reply, inputs));
}

void terse_wire_tensor_init(terse_wire_tensor *tensor)
{
    tensor->name = (terse_wire_text){"", 0};
    tensor->dtype = TERSE_DTYPE_NONE;
    tensor->rank = -1;
    tensor->frame = 0;
    tensor->has_shm = false;
    tensor->shm_offset = tensor->shm_size = 0;
}

/* --- requests ---------------------------------------------------------------------------------------------- */

enum {
    REQUEST_V,
    REQUEST_OP,
    REQUEST_ID,
    REQUEST_SESSION,
    REQUEST_MODEL,
    REQUEST_VERSION,
    REQUEST_TIMEOUT,
    REQUEST_SENT,
    REQUEST_PRIORITY,
    REQUEST_INPUTS,
    REQUEST_OUTPUTS,
    REQUEST_TARGET,
    REQUEST_FILE,
    REQUEST_MAX_BATCH,
    REQUEST_BATCH_TIMEOUT,
    REQUEST_WORKERS,
    REQUEST_ARENA,
    REQUEST_TRACE,
};

static const terse_wire_walk_key request_keys[] = {
    [REQUEST_V] = TERSE_WIRE_WALK_KEY("v"),
    [REQUEST_OP] = TERSE_WIRE_WALK_KEY("op"),
    [REQUEST_ID] = TERSE_WIRE_WALK_KEY("id"),
    [REQUEST_SESSION] = TERSE_WIRE_WALK_KEY("session"),
    [REQUEST_MODEL] = TERSE_WIRE_WALK_KEY("model"),
    [REQUEST_VERSION] = TERSE_WIRE_WALK_KEY("version"),
    [REQUEST_TIMEOUT] = TERSE_WIRE_WALK_KEY("timeout_us"),
    [REQUEST_SENT] = TERSE_WIRE_WALK_KEY("sent_ns"),
    [REQUEST_PRIORITY] = TERSE_WIRE_WALK_KEY("priority"),
    [REQUEST_INPUTS] = TERSE_WIRE_WALK_KEY("inputs"),
    [REQUEST_OUTPUTS] = TERSE_WIRE_WALK_KEY("outputs"),
    [REQUEST_TARGET] = TERSE_WIRE_WALK_KEY("target"),
    [REQUEST_FILE] = TERSE_WIRE_WALK_KEY("file"),
    [REQUEST_MAX_BATCH] = TERSE_WIRE_WALK_KEY("max_batch"),
    [REQUEST_BATCH_TIMEOUT] = TERSE_WIRE_WALK_KEY("batch_timeout_us"),
    [REQUEST_WORKERS] = TERSE_WIRE_WALK_KEY("workers"),
    [REQUEST_ARENA] = TERSE_WIRE_WALK_KEY("arena"),
    [REQUEST_TRACE] = TERSE_WIRE_WALK_KEY("trace"),
};

/* The 16 bytes of a session or an arena. */
static int take_token(terse_wire_walk *w, const char *key, uint8_t *ret_token, bool *ret_there)
{
    terse_pack_item item;
    const int status = terse_wire_walk_item(w, &item);
    if (status || item.type == TERSE_PACK_NIL)
        return status;
    if (item.type != TERSE_PACK_BIN)
        return terse_wire_walk_wrong(w, key, &item, "16 bytes of binary data");
    if (item.length != TERSE_WIRE_SESSION_BYTES)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key '%s' has %" PRIu32 " bytes, allowed are %d", key,
                          item.length, TERSE_WIRE_SESSION_BYTES);
    if (w->form)
        terse_wire_walk_mark(w, (const uint8_t *)item.data, ret_token, TERSE_WIRE_HOLE_TOKEN);
    memcpy(ret_token, item.data, TERSE_WIRE_SESSION_BYTES);
    *ret_there = true;
    return TERSE_OK;
}

static int take_version(terse_wire_walk *w)
{
    uint64_t version = TERSE_WIRE_VERSION;
    bool there = false;
    const int status = terse_wire_walk_u64(w, "v", UINT64_MAX, &version, &there);
    if (status || version == TERSE_WIRE_VERSION)
        return status;
    return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key 'v' is %" PRIu64 ", the protocol's version here is %d",
                      version, TERSE_WIRE_VERSION);
}

static int take_request_value(terse_wire_walk *w, int index, terse_wire_request *request)
{
    bool unused;
    switch (index) {
    case REQUEST_V:
        return take_version(w);
    case REQUEST_OP:
        return terse_wire_walk_text(w, "op", &request->op_name);
    case REQUEST_ID:
        return terse_wire_walk_u64(w, "id", UINT64_MAX, &request->id, &request->has_id);
    case REQUEST_SESSION:
        return take_token(w, "session", request->session, &request->has_session);
    case REQUEST_MODEL:
        return terse_wire_walk_text(w, "model", &request->model);
    case REQUEST_VERSION:
        return terse_wire_walk_text(w, "version", &request->version);
    case REQUEST_TIMEOUT:
        return terse_wire_walk_u64(w, "timeout_us", UINT64_MAX, &request->timeout_us, &request->has_timeout);
    case REQUEST_SENT:
        return terse_wire_walk_u64(w, "sent_ns", UINT64_MAX, &request->sent_ns, &request->has_sent);
    case REQUEST_PRIORITY:
        return terse_wire_walk_u32(w, "priority", TERSE_WIRE_MAX_PRIORITY, &request->priority, &unused);
    case REQUEST_INPUTS:
        return terse_wire_walk_tensors(w, "inputs", TERSE_WIRE_WALK_FULL, request->inputs, &request->n_inputs, &unused);
    case REQUEST_OUTPUTS:
        return terse_wire_walk_tensors(w, "outputs", TERSE_WIRE_WALK_WISH, request->outputs, &request->n_outputs,
                                       &request->has_outputs);
    case REQUEST_FILE:
        return terse_wire_walk_path(w, "file", &request->file);
    case REQUEST_MAX_BATCH:
        return terse_wire_walk_u64(w, "max_batch", UINT64_MAX, &request->max_batch, &request->has_max_batch);
    case REQUEST_BATCH_TIMEOUT:
        return terse_wire_walk_u64(w, "batch_timeout_us", UINT64_MAX, &request->batch_timeout_us,
                                   &request->has_batch_timeout);
    case REQUEST_WORKERS:
        return terse_wire_walk_u64(w, "workers", UINT64_MAX, &request->workers, &request->has_workers);
    case REQUEST_ARENA:
        return take_token(w, "arena", request->arena, &request->has_arena);
    case REQUEST_TRACE:
        return terse_wire_walk_bool(w, "trace", &request->trace, &unused);
    default:
        return terse_wire_walk_u64(w, "target", UINT64_MAX, &request->target, &request->has_target);
    }
}

/* The outer map of requests and replies, with nothing behind it. */
static int begin_map(terse_wire_walk *w, size_t size, size_t max, uint32_t *ret_n)
{
    terse_pack_item item;
    if (size > max)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "the header has %zu bytes, allowed are %zu", size, max);
    const int status = terse_wire_walk_item(w, &item);
    if (status)
        return status;
    if (item.type != TERSE_PACK_MAP)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "the header is %s, allowed is a map",
                          terse_pack_type_name(item.type));
    *ret_n = item.length;
    return TERSE_OK;
}

static int check_end(terse_wire_walk *w)
{
    if (w->reader.at == w->reader.end)
        return TERSE_OK;
    return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "%zu bytes lie behind the header's map",
                      (size_t)(w->reader.end - w->reader.at));
}

static int walk_request(terse_wire_walk *w, size_t size, terse_wire_request *request)
{
    uint32_t n = 0, seen = 0;
    int status = begin_map(w, size, TERSE_WIRE_HEADER_BYTES, &n);
    for (uint32_t i = 0; !status && i < n; i++) {
        int index = -1;
        status = terse_wire_walk_key_of(w, request_keys, N_OF(request_keys), &seen, &index);
        if (!status && index >= 0)
            status = take_request_value(w, index, request);
    }
    return status ? status : check_end(w);
}

static int missing(terse_error *error, const char *op, const char *key)
{
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s%skey '%s' is missing", op, *op ? ": " : "", key);
}

static int check_request(terse_wire_request *request, terse_error *error)
{
    request->op = TERSE_WIRE_UNKNOWN;
    if (!request->has_id)
        return missing(error, "", "id");
    if (!request->op_name.data)
        return missing(error, "", "op");
    for (size_t i = 1; i < N_OF(op_names); i++)
        if (terse_wire_text_is(request->op_name, op_names[i]))
            request->op = (terse_wire_op)i;
    if ((request->op == TERSE_WIRE_INFER || request->op == TERSE_WIRE_METADATA || request->op == TERSE_WIRE_LOAD ||
         request->op == TERSE_WIRE_UNLOAD) &&
        !request->model.data)
        return missing(error, terse_wire_op_name(request->op), "model");
    if (request->op == TERSE_WIRE_CANCEL && !request->has_target)
        return missing(error, "cancel", "target");
    if (request->op == TERSE_WIRE_LOAD && !request->file.data)
        return missing(error, "load", "file");
    return TERSE_OK;
}

/* Looks for id and session in a header that was refused: the first of each that can be read. */
static void salvage(const void *header, size_t size, terse_wire_request *request)
{
    terse_wire_walk w = {
        terse_pack_reader_over(header, size < TERSE_WIRE_HEADER_BYTES ? size : TERSE_WIRE_HEADER_BYTES), NULL, NULL,
        NULL, 0};
    terse_pack_item item;
    request->has_id = request->has_session = false;
    /* The count is not held against the bytes that are left: the map may be cut off behind the id. */
    if (w.reader.at < w.reader.end && *w.reader.at >= 0x80 && *w.reader.at < 0x90)
        w.reader.at++;
    else if (w.reader.end - w.reader.at > 3 && *w.reader.at == 0xde)
        w.reader.at += 3;
    else if (w.reader.end - w.reader.at > 5 && *w.reader.at == 0xdf)
        w.reader.at += 5;
    else
        return;
    while (!(request->has_id && request->has_session) && terse_pack_next(&w.reader, &item)) {
        bool unused = false;
        const terse_pack_reader value = w.reader;
        if (!request->has_id && terse_pack_is(&item, "id", 2) &&
            !terse_wire_walk_u64(&w, "id", UINT64_MAX, &request->id, &unused))
            request->has_id = unused;
        else if (!request->has_session && terse_pack_is(&item, "session", 7))
            take_token(&w, "session", request->session, &request->has_session);
        w.reader = value;
        if (item.type == TERSE_PACK_ARRAY || item.type == TERSE_PACK_MAP || !terse_pack_skip(&w.reader))
            return;
    }
}

int terse_wire_walk_request(const void *header, size_t size, terse_wire_form *form, terse_wire_request *request,
                            terse_error *error)
{
    terse_wire_walk w = {terse_pack_reader_over(header, size), error, form, request, sizeof *request};
    terse_wire_request_init(request);
    int status = walk_request(&w, size, request);
    if (!status)
        return check_request(request, error);
    salvage(header, size, request);
    return status;
}

int terse_wire_decode_request(const void *header, size_t size, terse_wire_request *request, terse_error *error)
{
    return terse_wire_walk_request(header, size, NULL, request, error);
}

/* --- replies ----------------------------------------------------------------------------------------------- */

/* Differs from reply to reply, as 64-bit numbers do, so that forms have a hole there. */
static int take_batch(terse_wire_walk *w, terse_wire_reply *reply)
{
    bool there = false;
    const uint8_t *from = w->reader.at;
    const int status = terse_wire_walk_u32(w, "batch", UINT32_MAX, &reply->batch, &there);
    if (!status && there && w->form)
        terse_wire_walk_mark(w, from, &reply->batch, TERSE_WIRE_HOLE_U32);
    return status;
}

static int take_timing(terse_wire_walk *w, terse_wire_reply *reply)
{
    static const terse_wire_walk_key keys[] = {TERSE_WIRE_WALK_KEY("queue_us"), TERSE_WIRE_WALK_KEY("compute_us"),
                                               TERSE_WIRE_WALK_KEY("batch")};
    uint32_t n = 0, seen = 0;
    bool unused;
    int status =
        terse_wire_walk_container(w, "timing", TERSE_PACK_MAP, TERSE_WIRE_WALK_ANY_KEYS, &n, &reply->has_timing);
    for (uint32_t i = 0; !status && i < n; i++) {
        int index = -1;
        status = terse_wire_walk_key_of(w, keys, N_OF(keys), &seen, &index);
        if (!status && index == 0)
            status = terse_wire_walk_u64(w, "queue_us", UINT64_MAX, &reply->queue_us, &unused);
        else if (!status && index == 1)
            status = terse_wire_walk_u64(w, "compute_us", UINT64_MAX, &reply->compute_us, &unused);
        else if (!status && index == 2)
            status = take_batch(w, reply);
    }
    return status;
}

static int take_trace(terse_wire_walk *w, terse_wire_reply *reply)
{
    static const terse_wire_walk_key keys[] = {TERSE_WIRE_WALK_KEY("received_ns"),   TERSE_WIRE_WALK_KEY("queued_ns"),
                                               TERSE_WIRE_WALK_KEY("dispatched_ns"), TERSE_WIRE_WALK_KEY("computed_ns"),
                                               TERSE_WIRE_WALK_KEY("replied_ns"),    TERSE_WIRE_WALK_KEY("worker")};
    terse_wire_trace *trace = &reply->trace;
    uint64_t *const times[] = {&trace->received_ns, &trace->queued_ns, &trace->dispatched_ns, &trace->computed_ns,
                               &trace->replied_ns};
    uint32_t n = 0, seen = 0;
    bool unused;
    int status = terse_wire_walk_container(w, "trace", TERSE_PACK_MAP, TERSE_WIRE_WALK_ANY_KEYS, &n, &reply->has_trace);
    for (uint32_t i = 0; !status && i < n; i++) {
        int index = -1;
        status = terse_wire_walk_key_of(w, keys, N_OF(keys), &seen, &index);
        if (!status && index >= 0 && index < (int)N_OF(times))
            status = terse_wire_walk_u64(w, keys[index].name, UINT64_MAX, times[index],
                                         index == 0 ? &trace->has_received : &unused);
        else if (!status && index == (int)N_OF(times))
            status = terse_wire_walk_u32(w, "worker", UINT32_MAX, &trace->worker, &unused);
    }
    return status;
}

static int take_model(terse_wire_walk *w, terse_wire_model *model)
{
    static const terse_wire_walk_key keys[] = {TERSE_WIRE_WALK_KEY("name"), TERSE_WIRE_WALK_KEY("version"),
                                               TERSE_WIRE_WALK_KEY("state")};
    uint32_t n = 0, seen = 0;
    bool there = false;
    *model = (terse_wire_model){0};
    int status = terse_wire_walk_container(w, "model", TERSE_PACK_MAP, TERSE_WIRE_WALK_ANY_KEYS, &n, &there);
    for (uint32_t i = 0; !status && i < n; i++) {
        int index = -1;
        status = terse_wire_walk_key_of(w, keys, N_OF(keys), &seen, &index);
        if (!status && index >= 0)
            status = terse_wire_walk_text(w, keys[index].name,
                                          index == 0   ? &model->name
                                          : index == 1 ? &model->version
                                                       : &model->state);
    }
    return status;
}

static int take_models(terse_wire_walk *w, terse_wire_reply *reply)
{
    uint32_t n = 0;
    terse_pack_reader ahead = w->reader;
    terse_pack_item item;
    if (terse_pack_next(&ahead, &item) && item.type == TERSE_PACK_MAP && terse_pack_skip(&w->reader))
        return TERSE_OK; /* the reply of "stats" */
    int status =
        terse_wire_walk_container(w, "models", TERSE_PACK_ARRAY, TERSE_WIRE_MAX_MODELS, &n, &reply->has_models);
    for (uint32_t i = 0; !status && i < n; i++)
        status = take_model(w, &reply->models[i]);
    reply->n_models = status ? 0 : n;
    return status;
}

enum {
    REPLY_V,
    REPLY_ID,
    REPLY_STATUS,
    REPLY_ERROR,
    REPLY_MODEL,
    REPLY_VERSION,
    REPLY_INPUTS,
    REPLY_OUTPUTS,
    REPLY_TIMING,
    REPLY_MODELS,
    REPLY_BATCHABLE,
    REPLY_MAX_BATCH,
    REPLY_RETRY_AFTER,
    REPLY_BATCH_TIMEOUT,
    REPLY_WORKERS,
    REPLY_TRACE,
};

static const terse_wire_walk_key reply_keys[] = {
    [REPLY_V] = TERSE_WIRE_WALK_KEY("v"),
    [REPLY_ID] = TERSE_WIRE_WALK_KEY("id"),
    [REPLY_STATUS] = TERSE_WIRE_WALK_KEY("status"),
    [REPLY_ERROR] = TERSE_WIRE_WALK_KEY("error"),
    [REPLY_MODEL] = TERSE_WIRE_WALK_KEY("model"),
    [REPLY_VERSION] = TERSE_WIRE_WALK_KEY("version"),
    [REPLY_INPUTS] = TERSE_WIRE_WALK_KEY("inputs"),
    [REPLY_OUTPUTS] = TERSE_WIRE_WALK_KEY("outputs"),
    [REPLY_TIMING] = TERSE_WIRE_WALK_KEY("timing"),
    [REPLY_MODELS] = TERSE_WIRE_WALK_KEY("models"),
    [REPLY_BATCHABLE] = TERSE_WIRE_WALK_KEY("batchable"),
    [REPLY_MAX_BATCH] = TERSE_WIRE_WALK_KEY("max_batch"),
    [REPLY_RETRY_AFTER] = TERSE_WIRE_WALK_KEY("retry_after_ms"),
    [REPLY_BATCH_TIMEOUT] = TERSE_WIRE_WALK_KEY("batch_timeout_us"),
    [REPLY_WORKERS] = TERSE_WIRE_WALK_KEY("workers"),
    [REPLY_TRACE] = TERSE_WIRE_WALK_KEY("trace"),
};

/* Outputs of "infer" and of "metadata" look alike but for symbols in shapes, which only the latter has; where they
 * stand the dimension is -1, so that a reader who expects numbers notices. */
static int take_reply_value(terse_wire_walk *w, int index, terse_wire_text *status_name, terse_wire_reply *reply)
{
    switch (index) {
    case REPLY_V:
        return take_version(w);
    case REPLY_ID:
        return terse_wire_walk_u64(w, "id", UINT64_MAX, &reply->id, &reply->has_id);
    case REPLY_STATUS:
        return terse_wire_walk_text(w, "status", status_name);
    case REPLY_ERROR:
        return terse_wire_walk_text(w, "error", &reply->error);
    case REPLY_MODEL:
        return terse_wire_walk_text(w, "model", &reply->model);
    case REPLY_VERSION:
        return terse_wire_walk_text(w, "version", &reply->version);
    case REPLY_INPUTS:
        return terse_wire_walk_tensors(w, "inputs", TERSE_WIRE_WALK_SIGNATURE, reply->inputs, &reply->n_inputs,
                                       &reply->has_inputs);
    case REPLY_OUTPUTS:
        return terse_wire_walk_tensors(w, "outputs", TERSE_WIRE_WALK_SIGNATURE, reply->outputs, &reply->n_outputs,
                                       &reply->has_outputs);
    case REPLY_TIMING:
        return take_timing(w, reply);
    case REPLY_MODELS:
        return take_models(w, reply);
    case REPLY_BATCHABLE:
        return terse_wire_walk_bool(w, "batchable", &reply->batchable, &reply->has_batchable);
    case REPLY_RETRY_AFTER:
        return terse_wire_walk_u64(w, "retry_after_ms", UINT64_MAX, &reply->retry_after_ms, &reply->has_retry_after);
    case REPLY_BATCH_TIMEOUT:
        return terse_wire_walk_u64(w, "batch_timeout_us", UINT64_MAX, &reply->batch_timeout_us,
                                   &reply->has_batch_timeout);
    case REPLY_WORKERS:
        /* The list of "stats" is passed over, as its models are. */
        return terse_wire_walk_count(w, "workers", &reply->workers, &reply->has_workers);
    case REPLY_TRACE:
        return take_trace(w, reply);
    default:
        return terse_wire_walk_u32(w, "max_batch", UINT32_MAX, &reply->max_batch, &reply->has_max_batch);
    }
}

int terse_wire_walk_reply(const void *header, size_t size, terse_wire_form *form, terse_wire_reply *reply,
                          terse_error *error)
{
    terse_wire_walk w = {terse_pack_reader_over(header, size), error, form, reply, sizeof *reply};
    uint32_t n = 0, seen = 0;
    terse_wire_text name = {NULL, 0};
    terse_wire_reply_init(reply);
    int status = begin_map(&w, size, TERSE_WIRE_STATS_BYTES, &n);
    for (uint32_t i = 0; !status && i < n; i++) {
        int index = -1;
        status = terse_wire_walk_key_of(&w, reply_keys, N_OF(reply_keys), &seen, &index);
        if (!status && index >= 0)
            status = take_reply_value(&w, index, &name, reply);
    }
    if (!status)
        status = check_end(&w);
    if (!status && !reply->has_id)
        status = missing(error, "", "id");
    if (!status && !name.data)
        status = missing(error, "", "status");
    if (!status)
        reply->status = terse_status_from_name(name.data, name.length);
    return status;
}

int terse_wire_decode_reply(const void *header, size_t size, terse_wire_reply *reply, terse_error *error)
{
    return terse_wire_walk_reply(header, size, NULL, reply, error);
}
