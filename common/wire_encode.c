/* SPDX-License-Identifier: Apache-2.0 */
#include "common/wire_walk.h"

#include <inttypes.h>
#include <string.h>

/* Headers are written on the way of every request: straight into the buffer, a length check per item, the shortest
 * form of msgpack for each value as its specification asks. One check of `full` at the end is enough. */

typedef terse_pack_buffer sink;

static uint8_t *room(sink *out, size_t size)
{
    if (out->full || out->capacity - out->size < size) {
        out->full = true;
        return NULL;
    }
    uint8_t *at = out->data + out->size;
    out->size += size;
    return at;
}

static void put_byte(sink *out, unsigned value)
{
    uint8_t *at = room(out, 1);
    if (at)
        *at = (uint8_t)value;
}

static inline __attribute__((always_inline)) void put_big_endian(sink *out, uint8_t first, uint64_t value,
                                                                 unsigned bytes)
{
    uint8_t *at = room(out, 1 + bytes);
    if (!at)
        return;
    *at = first;
    for (unsigned i = bytes; i > 0; i--, value >>= 8)
        at[i] = (uint8_t)value;
}

static void put_u64(sink *out, uint64_t value)
{
    if (value < 128)
        put_byte(out, (unsigned)value);
    else if (value <= UINT8_MAX)
        put_big_endian(out, 0xcc, value, 1);
    else if (value <= UINT16_MAX)
        put_big_endian(out, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        put_big_endian(out, 0xce, value, 4);
    else
        put_big_endian(out, 0xcf, value, 8);
}

static void put_bytes(sink *out, const void *data, size_t length)
{
    uint8_t *at = room(out, length);
    if (at && length > 0)
        memcpy(at, data, length);
}

static void put_text(sink *out, const char *text, size_t length)
{
    if (length < 32)
        put_byte(out, 0xa0 | (unsigned)length);
    else if (length <= UINT8_MAX)
        put_big_endian(out, 0xd9, length, 1);
    else
        put_big_endian(out, 0xda, length, 2);
    put_bytes(out, text, length);
}

/* Of a length that the compiler knows, below 32: a few moves. */
static inline __attribute__((always_inline)) void put_key(sink *out, const char *key, size_t length)
{
    uint8_t *at = room(out, 1 + length);
    if (!at)
        return;
    at[0] = (uint8_t)(0xa0 | length);
    memcpy(at + 1, key, length);
}

#define PUT_KEY(out, key) put_key(out, key, sizeof key - 1)

static void put_wire_text(sink *out, terse_wire_text text)
{
    put_text(out, text.data ? text.data : "", text.length);
}

static void put_map(sink *out, unsigned n)
{
    if (n < 16)
        put_byte(out, 0x80 | n);
    else
        put_big_endian(out, 0xde, n, 2);
}

static void put_array(sink *out, unsigned n)
{
    if (n < 16)
        put_byte(out, 0x90 | n);
    else
        put_big_endian(out, 0xdc, n, 2);
}

static void put_bool(sink *out, bool value)
{
    put_byte(out, value ? 0xc3 : 0xc2);
}

static void put_cstr(sink *out, const char *text)
{
    put_text(out, text, strlen(text));
}

static void put_shape(sink *out, const terse_wire_tensor *tensor)
{
    PUT_KEY(out, "shape");
    put_array(out, (unsigned)tensor->rank);
    for (int i = 0; i < tensor->rank; i++) {
        if (tensor->dims[i] >= 0)
            put_u64(out, (uint64_t)tensor->dims[i]);
        else
            put_wire_text(out, tensor->symbols[i]);
    }
}

static void put_tensor(sink *out, const terse_wire_tensor *tensor)
{
    const bool dtype = tensor->dtype != TERSE_DTYPE_NONE, shape = tensor->rank >= 0, frame = tensor->frame > 0;
    put_map(out, 1u + dtype + shape + frame + tensor->has_shm);
    PUT_KEY(out, "name");
    put_wire_text(out, tensor->name);
    if (dtype) {
        PUT_KEY(out, "dtype");
        put_cstr(out, terse_dtype_name(tensor->dtype));
    }
    if (shape)
        put_shape(out, tensor);
    if (frame) {
        PUT_KEY(out, "frame");
        put_u64(out, tensor->frame);
    }
    if (tensor->has_shm) {
        PUT_KEY(out, "shm");
        put_map(out, 2);
        PUT_KEY(out, "offset");
        put_u64(out, tensor->shm_offset);
        PUT_KEY(out, "size");
        put_u64(out, tensor->shm_size);
    }
}

static void put_tensors(sink *out, const terse_wire_tensor *tensors, uint32_t n)
{
    put_array(out, n);
    for (uint32_t i = 0; i < n; i++)
        put_tensor(out, &tensors[i]);
}

static int finish(const sink *out, size_t *ret_size, terse_error *error)
{
    if (out->full)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "the header needs more than the %zu bytes that it may have",
                          out->capacity);
    *ret_size = out->size;
    return TERSE_OK;
}

/* --- limits: what our own decoder would refuse is not sent --------------------------------------------------- */

static int check_length(terse_wire_text text, uint32_t most, const char *what, terse_error *error)
{
    if (text.data && (text.length > most || terse_wire_walk_utf8(text.data, text.length) != text.length))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s has %" PRIu32 " bytes, allowed are %" PRIu32 " of UTF-8 without zero bytes", what,
                          text.length, most);
    return TERSE_OK;
}

static int check_text(terse_wire_text text, const char *what, terse_error *error)
{
    return check_length(text, TERSE_WIRE_MAX_TEXT, what, error);
}

static int check_tensors(const terse_wire_tensor *tensors, uint32_t n, const char *what, terse_error *error)
{
    if (n > TERSE_WIRE_MAX_IO)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%" PRIu32 " %s, allowed are %d", n, what, TERSE_WIRE_MAX_IO);
    for (uint32_t i = 0; i < n; i++) {
        const terse_wire_tensor *tensor = &tensors[i];
        if (check_text(tensor->name, what, error))
            return TERSE_INVALID_ARGUMENT;
        if (tensor->rank > TERSE_MAX_RANK)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "tensor '%.*s' has %d dimensions, allowed are %d",
                              (int)tensor->name.length, tensor->name.data, tensor->rank, TERSE_MAX_RANK);
        for (int axis = 0; axis < tensor->rank; axis++)
            if (tensor->dims[axis] < 0 && !tensor->symbols[axis].data)
                return terse_fail(error, TERSE_INVALID_ARGUMENT,
                                  "tensor '%.*s': dimension %d is %" PRId64 ", allowed are 0 and more",
                                  (int)tensor->name.length, tensor->name.data, axis, tensor->dims[axis]);
    }
    return TERSE_OK;
}

static int check_request(const terse_wire_request *request, terse_error *error)
{
    if (request->priority > TERSE_WIRE_MAX_PRIORITY)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "priority %" PRIu32 ", allowed are 0 to %d", request->priority,
                          TERSE_WIRE_MAX_PRIORITY);
    int status = check_text(request->op_name, "the op", error);
    if (!status)
        status = check_text(request->model, "the model's name", error);
    if (!status)
        status = check_text(request->version, "the model's version", error);
    if (!status)
        status = check_length(request->file, TERSE_WIRE_MAX_PATH, "the file's path", error);
    if (!status)
        status = check_tensors(request->inputs, request->n_inputs, "inputs", error);
    if (!status)
        status = check_tensors(request->outputs, request->has_outputs ? request->n_outputs : 0, "outputs", error);
    return status;
}

/* --- messages ------------------------------------------------------------------------------------------------ */

static void put_head(sink *out, unsigned n_pairs)
{
    put_map(out, n_pairs);
    PUT_KEY(out, "v");
    put_u64(out, TERSE_WIRE_VERSION);
}

static inline __attribute__((always_inline)) void put_optional_text(sink *out, const char *key, terse_wire_text text)
{
    if (!text.data)
        return;
    put_key(out, key, strlen(key));
    put_wire_text(out, text);
}

static inline __attribute__((always_inline)) void put_optional_u64(sink *out, const char *key, bool there,
                                                                   uint64_t value)
{
    if (!there)
        return;
    put_key(out, key, strlen(key));
    put_u64(out, value);
}

int terse_wire_encode_request(const terse_wire_request *request, void *buffer, size_t capacity, size_t *ret_size,
                              terse_error *error)
{
    sink out = {.data = buffer, .capacity = capacity};
    const bool inputs = request->op == TERSE_WIRE_INFER || request->n_inputs > 0;
    const int status = check_request(request, error);
    if (status)
        return status;
    put_head(&out, 2u + request->has_id + request->has_session + (request->model.data != NULL) +
                       (request->version.data != NULL) + request->has_timeout + (request->priority > 0) + inputs +
                       request->has_outputs + request->has_target + request->has_sent + (request->file.data != NULL) +
                       request->has_max_batch + request->has_batch_timeout + request->has_workers + request->has_arena +
                       request->trace);
    PUT_KEY(&out, "op");
    if (request->op == TERSE_WIRE_UNKNOWN)
        put_wire_text(&out, request->op_name);
    else
        put_cstr(&out, terse_wire_op_name(request->op));
    put_optional_u64(&out, "id", request->has_id, request->id);
    if (request->has_session) {
        PUT_KEY(&out, "session");
        put_big_endian(&out, 0xc4, TERSE_WIRE_SESSION_BYTES, 1);
        put_bytes(&out, request->session, TERSE_WIRE_SESSION_BYTES);
    }
    if (request->has_arena) {
        PUT_KEY(&out, "arena");
        put_big_endian(&out, 0xc4, TERSE_WIRE_ARENA_BYTES, 1);
        put_bytes(&out, request->arena, TERSE_WIRE_ARENA_BYTES);
    }
    put_optional_text(&out, "model", request->model);
    put_optional_text(&out, "version", request->version);
    put_optional_u64(&out, "timeout_us", request->has_timeout, request->timeout_us);
    put_optional_u64(&out, "sent_ns", request->has_sent, request->sent_ns);
    put_optional_u64(&out, "priority", request->priority > 0, request->priority);
    if (request->trace) {
        PUT_KEY(&out, "trace");
        put_bool(&out, true);
    }
    put_optional_u64(&out, "target", request->has_target, request->target);
    put_optional_text(&out, "file", request->file);
    put_optional_u64(&out, "max_batch", request->has_max_batch, request->max_batch);
    put_optional_u64(&out, "batch_timeout_us", request->has_batch_timeout, request->batch_timeout_us);
    put_optional_u64(&out, "workers", request->has_workers, request->workers);
    if (inputs) {
        PUT_KEY(&out, "inputs");
        put_tensors(&out, request->inputs, request->n_inputs);
    }
    if (request->has_outputs) {
        PUT_KEY(&out, "outputs");
        put_tensors(&out, request->outputs, request->n_outputs);
    }
    return finish(&out, ret_size, error);
}

static void put_models(sink *out, const terse_wire_reply *reply)
{
    PUT_KEY(out, "models");
    put_array(out, reply->n_models);
    for (uint32_t i = 0; i < reply->n_models; i++) {
        const terse_wire_model *model = &reply->models[i];
        put_map(out,
                (unsigned)(model->name.data != NULL) + (model->version.data != NULL) + (model->state.data != NULL));
        put_optional_text(out, "name", model->name);
        put_optional_text(out, "version", model->version);
        put_optional_text(out, "state", model->state);
    }
}

static void put_timing(sink *out, const terse_wire_reply *reply)
{
    PUT_KEY(out, "timing");
    put_map(out, 3);
    PUT_KEY(out, "queue_us");
    put_u64(out, reply->queue_us);
    PUT_KEY(out, "compute_us");
    put_u64(out, reply->compute_us);
    PUT_KEY(out, "batch");
    put_u64(out, reply->batch);
}

static void put_trace(sink *out, const terse_wire_trace *trace)
{
    PUT_KEY(out, "trace");
    put_map(out, 5u + trace->has_received);
    put_optional_u64(out, "received_ns", trace->has_received, trace->received_ns);
    put_optional_u64(out, "queued_ns", true, trace->queued_ns);
    put_optional_u64(out, "dispatched_ns", true, trace->dispatched_ns);
    put_optional_u64(out, "computed_ns", true, trace->computed_ns);
    put_optional_u64(out, "replied_ns", true, trace->replied_ns);
    put_optional_u64(out, "worker", true, trace->worker);
}

int terse_wire_encode_reply(const terse_wire_reply *reply, void *buffer, size_t capacity, size_t *ret_size,
                            terse_error *error)
{
    sink out = {.data = buffer, .capacity = capacity};
    put_head(&out, 2u + reply->has_id + (reply->error.data != NULL) + (reply->model.data != NULL) +
                       (reply->version.data != NULL) + reply->has_inputs + reply->has_outputs + reply->has_timing +
                       reply->has_models + reply->has_batchable + reply->has_max_batch + reply->has_batch_timeout +
                       reply->has_workers + reply->has_retry_after + reply->has_trace);
    put_optional_u64(&out, "id", reply->has_id, reply->id);
    PUT_KEY(&out, "status");
    put_cstr(&out, terse_status_name(reply->status));
    put_optional_text(&out, "error", reply->error);
    put_optional_text(&out, "model", reply->model);
    put_optional_text(&out, "version", reply->version);
    if (reply->has_inputs) {
        PUT_KEY(&out, "inputs");
        put_tensors(&out, reply->inputs, reply->n_inputs);
    }
    if (reply->has_outputs) {
        PUT_KEY(&out, "outputs");
        put_tensors(&out, reply->outputs, reply->n_outputs);
    }
    if (reply->has_timing)
        put_timing(&out, reply);
    if (reply->has_trace)
        put_trace(&out, &reply->trace);
    if (reply->has_models)
        put_models(&out, reply);
    if (reply->has_batchable) {
        PUT_KEY(&out, "batchable");
        put_bool(&out, reply->batchable);
    }
    put_optional_u64(&out, "max_batch", reply->has_max_batch, reply->max_batch);
    put_optional_u64(&out, "retry_after_ms", reply->has_retry_after, reply->retry_after_ms);
    put_optional_u64(&out, "batch_timeout_us", reply->has_batch_timeout, reply->batch_timeout_us);
    put_optional_u64(&out, "workers", reply->has_workers, reply->workers);
    return finish(&out, ret_size, error);
}

/* Messages quote what clients sent, so that cutting may have split a character: what is no UTF-8 becomes '?'. */
static size_t clean_text(const char *text, uint8_t *clean)
{
    size_t length = strnlen(text, TERSE_WIRE_MAX_TEXT);
    for (size_t done = 0; done < length;) {
        const size_t good = terse_wire_walk_utf8(text + done, length - done);
        memcpy(clean + done, text + done, good);
        done += good;
        if (done < length)
            clean[done++] = '?';
    }
    return length;
}

size_t terse_wire_encode_error(uint64_t id, terse_status status, const char *message,
                               uint8_t buffer[static TERSE_WIRE_ERROR_BYTES])
{
    return terse_wire_encode_rejection(id, status, message, TERSE_WIRE_NO_RETRY, buffer);
}

size_t terse_wire_encode_rejection(uint64_t id, terse_status status, const char *message, uint64_t retry_after_ms,
                                   uint8_t buffer[static TERSE_WIRE_ERROR_BYTES])
{
    sink out = {.data = buffer, .capacity = TERSE_WIRE_ERROR_BYTES};
    uint8_t clean[TERSE_WIRE_MAX_TEXT];
    const size_t length = clean_text(message, clean);
    const bool retry = retry_after_ms != TERSE_WIRE_NO_RETRY;
    put_head(&out, 4u + retry);
    put_optional_u64(&out, "id", true, id);
    PUT_KEY(&out, "status");
    put_cstr(&out, terse_status_name(status));
    PUT_KEY(&out, "error");
    put_text(&out, (const char *)clean, length);
    put_optional_u64(&out, "retry_after_ms", retry, retry_after_ms);
    return out.size;
}

void terse_wire_pack_head(msgpack_packer *packer, uint64_t id, terse_status status, unsigned n_more)
{
    msgpack_pack_map(packer, 3 + n_more);
    terse_pack_cstr(packer, "v");
    msgpack_pack_int(packer, TERSE_WIRE_VERSION);
    terse_pack_cstr(packer, "id");
    msgpack_pack_uint64(packer, id);
    terse_pack_cstr(packer, "status");
    terse_pack_cstr(packer, terse_status_name(status));
}
