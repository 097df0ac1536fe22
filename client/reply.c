/* SPDX-License-Identifier: Apache-2.0 */
/* A reply is one block of memory: the struct, the outputs, the frames that are kept, small or badly aligned tensors
 * copied, and the texts. Large tensors stay in libzmq's frames. */
#include "client/arena.h"

#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

enum { COPY_BELOW = 4096, ALIGNMENT = 16 };

static bool must_copy(zmq_msg_t *frame)
{
    return zmq_msg_size(frame) < COPY_BELOW || (uintptr_t)zmq_msg_data(frame) % ALIGNMENT != 0;
}

static const char *put_text(char **at, terse_wire_text text)
{
    char *start = *at;
    if (text.length)
        memcpy(start, text.data, text.length);
    start[text.length] = 0;
    *at += text.length + 1;
    return start;
}

static terse_status check_output(const terse_wire_tensor *tensor, zmq_msg_t *frames, int n_frames,
                                 const terse_client_arena *arena, int64_t *ret_bytes)
{
    if (tensor->has_shm && tensor->frame == 0 && tensor->rank >= 0 && arena) {
        const int64_t n = terse_dims_count(tensor->dims, tensor->rank);
        *ret_bytes = n * (int64_t)terse_dtype_size(tensor->dtype);
        if (n < 0 || (uint64_t)*ret_bytes != tensor->shm_size || tensor->shm_offset > arena->output_bytes ||
            tensor->shm_size > arena->output_bytes - tensor->shm_offset)
            return CLIENT_FAIL(TERSE_INTERNAL, "the daemon's reply has an output beyond the shared memory");
        return TERSE_OK;
    }
    if (tensor->rank < 0 || tensor->frame < 1 || tensor->frame > (uint32_t)n_frames)
        return CLIENT_FAIL(TERSE_INTERNAL, "the daemon's reply names frame %u of %d", tensor->frame, n_frames);
    const int64_t count = terse_dims_count(tensor->dims, tensor->rank);
    const int64_t bytes = count * (int64_t)terse_dtype_size(tensor->dtype);
    if (count < 0 || (uint64_t)bytes != zmq_msg_size(&frames[tensor->frame - 1]))
        return CLIENT_FAIL(TERSE_INTERNAL, "the daemon's reply has an output whose shape and bytes disagree");
    *ret_bytes = bytes;
    return TERSE_OK;
}

/* Bytes of the whole block. */
static terse_status measure(const terse_wire_reply *wire, zmq_msg_t *frames, int n_frames,
                            const terse_client_arena *arena, size_t *ret_bytes)
{
    size_t bytes = terse_align(sizeof(terse_reply), ALIGNMENT) + wire->n_outputs * sizeof(reply_output) +
                   (size_t)n_frames * sizeof(zmq_msg_t) + ALIGNMENT + wire->error.length + wire->version.length + 2;
    for (uint32_t i = 0; i < wire->n_outputs; i++) {
        int64_t size = 0;
        const terse_status status = check_output(&wire->outputs[i], frames, n_frames, arena, &size);
        if (status)
            return status;
        bytes += wire->outputs[i].name.length + 1;
        if (wire->outputs[i].frame && must_copy(&frames[wire->outputs[i].frame - 1]))
            bytes += terse_align((size_t)size, ALIGNMENT);
    }
    *ret_bytes = bytes;
    return TERSE_OK;
}

terse_status terse_reply_make(const terse_wire_reply *wire, zmq_msg_t *header, zmq_msg_t *frames, int n_frames,
                              bool keep_header, const terse_client_arena *arena, terse_reply **ret_reply)
{
    size_t bytes = 0;
    const terse_status status = measure(wire, frames, n_frames, arena, &bytes);
    if (status)
        return status;
    char *block = malloc(bytes);
    if (!block)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a reply of %zu bytes", bytes);
    terse_reply *reply = (terse_reply *)block;
    *reply = (terse_reply){.id = wire->id,
                           .status = wire->status,
                           .queue_us = wire->queue_us,
                           .compute_us = wire->compute_us,
                           .batch = wire->batch,
                           .retry_after_ms = wire->has_retry_after ? wire->retry_after_ms : NEVER,
                           .n_outputs = wire->status == TERSE_OK ? (int)wire->n_outputs : 0};
    char *at = block + terse_align(sizeof *reply, ALIGNMENT);
    reply->outputs = (reply_output *)at;
    at += wire->n_outputs * sizeof(reply_output);
    reply->frames = (zmq_msg_t *)at;
    at += (size_t)n_frames * sizeof(zmq_msg_t);
    at += (ALIGNMENT - (uintptr_t)at % ALIGNMENT) % ALIGNMENT;
    for (uint32_t i = 0; i < wire->n_outputs; i++) {
        if (!wire->outputs[i].frame) {
            reply->outputs[i].bytes = wire->outputs[i].shm_size;
            reply->outputs[i].data = arena->outputs + wire->outputs[i].shm_offset;
            continue;
        }
        zmq_msg_t *frame = &frames[wire->outputs[i].frame - 1];
        reply->outputs[i].bytes = zmq_msg_size(frame);
        reply->outputs[i].data = zmq_msg_data(frame);
        if (must_copy(frame)) {
            memcpy(at, zmq_msg_data(frame), zmq_msg_size(frame));
            reply->outputs[i].data = at;
            at += terse_align(zmq_msg_size(frame), ALIGNMENT);
        }
    }
    for (uint32_t i = 0; i < wire->n_outputs; i++) {
        const terse_wire_tensor *tensor = &wire->outputs[i];
        reply_output *output = &reply->outputs[i];
        output->name = put_text(&at, tensor->name);
        output->dtype = tensor->dtype;
        output->rank = tensor->rank;
        memcpy(output->dims, tensor->dims, sizeof output->dims);
    }
    reply->error = put_text(&at, wire->error);
    reply->version = put_text(&at, wire->version);
    for (int i = 0; i < n_frames; i++) /* a moved message keeps its bytes in place when they are not inside it */
        if (!must_copy(&frames[i])) {
            zmq_msg_init(&reply->frames[reply->n_frames]);
            zmq_msg_move(&reply->frames[reply->n_frames++], &frames[i]);
        }
    zmq_msg_init(&reply->header);
    if (keep_header)
        zmq_msg_move(&reply->header, header);
    *ret_reply = reply;
    return TERSE_OK;
}

terse_reply *terse_reply_make_failed(uint64_t id, terse_status status, const char *text)
{
    const size_t length = strlen(text);
    terse_reply *reply = malloc(sizeof *reply + length + 2);
    if (!reply)
        return NULL;
    *reply = (terse_reply){.id = id, .status = status, .retry_after_ms = NEVER};
    char *copy = (char *)(reply + 1);
    memcpy(copy, text, length + 1);
    copy[length + 1] = 0;
    reply->error = copy;
    reply->version = copy + length + 1;
    zmq_msg_init(&reply->header);
    return reply;
}

void terse_reply_free(terse_reply *reply)
{
    if (!reply)
        return;
    for (int i = 0; i < reply->n_frames; i++)
        zmq_msg_close(&reply->frames[i]);
    zmq_msg_close(&reply->header);
    free(reply);
}

uint64_t terse_reply_id(const terse_reply *reply)
{
    return reply->id;
}

terse_status terse_reply_status(const terse_reply *reply)
{
    return reply->status;
}

const char *terse_reply_error(const terse_reply *reply)
{
    return reply->error;
}

int64_t terse_reply_retry_after_ms(const terse_reply *reply)
{
    return reply->retry_after_ms > INT64_MAX ? -1 : (int64_t)reply->retry_after_ms;
}

const char *terse_reply_version(const terse_reply *reply)
{
    return reply->version;
}

int terse_reply_n_outputs(const terse_reply *reply)
{
    return reply->n_outputs;
}

int terse_reply_find(const terse_reply *reply, const char *name)
{
    for (int i = 0; i < reply->n_outputs; i++)
        if (strcmp(reply->outputs[i].name, name) == 0)
            return i;
    return -1;
}

static const reply_output *output_of(const terse_reply *reply, int index)
{
    return index >= 0 && index < reply->n_outputs ? &reply->outputs[index] : NULL;
}

const char *terse_reply_name(const terse_reply *reply, int index)
{
    const reply_output *output = output_of(reply, index);
    return output ? output->name : NULL;
}

terse_dtype terse_reply_dtype(const terse_reply *reply, int index)
{
    const reply_output *output = output_of(reply, index);
    return output ? output->dtype : TERSE_DTYPE_NONE;
}

int terse_reply_shape(const terse_reply *reply, int index, const int64_t **ret_dims)
{
    const reply_output *output = output_of(reply, index);
    if (output && ret_dims)
        *ret_dims = output->dims;
    return output ? output->rank : -1;
}

const void *terse_reply_data(const terse_reply *reply, int index, size_t *ret_bytes)
{
    const reply_output *output = output_of(reply, index);
    if (output && ret_bytes)
        *ret_bytes = output->bytes;
    return output ? output->data : NULL;
}

terse_status terse_reply_trace(const terse_reply *reply, terse_trace *ret_trace)
{
    const terse_wire_trace *told = &reply->trace;
    if (!reply->has_trace)
        return CLIENT_FAIL(TERSE_NOT_FOUND, "the reply has no trace");
    /* Where the daemon's part lies in ours: by its clock when that can be ours, else in the middle. */
    const uint64_t span = reply->completed_ns - reply->submitted_ns;
    const uint64_t by_clock = told->received_ns - reply->submitted_ns;
    const bool same = told->has_received && told->received_ns >= reply->submitted_ns && told->replied_ns <= span &&
                      by_clock <= span - told->replied_ns;
    const uint64_t at = same ? by_clock : span > told->replied_ns ? (span - told->replied_ns) / 2 : 0;
    const terse_trace trace = {.size = ret_trace->size,
                               .received_ns = at,
                               .queued_ns = at + told->queued_ns,
                               .dispatched_ns = at + told->dispatched_ns,
                               .computed_ns = at + told->computed_ns,
                               .replied_ns = at + told->replied_ns,
                               .completed_ns = span,
                               .worker = told->worker,
                               .same_clock = same};
    memcpy(ret_trace, &trace, ret_trace->size < sizeof trace ? ret_trace->size : sizeof trace);
    return TERSE_OK;
}

void terse_reply_timing(const terse_reply *reply, uint64_t *ret_queue_us, uint64_t *ret_compute_us, uint32_t *ret_batch)
{
    if (ret_queue_us)
        *ret_queue_us = reply->queue_us;
    if (ret_compute_us)
        *ret_compute_us = reply->compute_us;
    if (ret_batch)
        *ret_batch = reply->batch;
}
