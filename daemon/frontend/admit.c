/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "daemon/frontend/overload.h"

#define BELIEVED_NS UINT64_C(60000000000)

/* A request that is sent again while the first one still waits or runs: its answer goes where the last one came from.
 * true when that was so. */
static bool attach(terse_frontend *fe, terse_client *client, const terse_wire_request *wire,
                   const terse_client_arena *arena)
{
    if (!wire->has_session)
        return false;
    terse_request *request = terse_sessions_find(&fe->sessions, wire->session, wire->id);
    if (!request || request->answered || request->arena != arena)
        return false;
    if (request->client == client)
        return true;
    terse_client_leave(&fe->clients, request);
    terse_client_join(&fe->clients, client, request);
    if (request->state == TERSE_REQUEST_PARKED && !client->parked) {
        request->queued_ns = fe->now_ns;
        if (request->alone)
            terse_queue_push_suspect(&fe->queue, request);
        else
            terse_queue_push(&fe->queue, request);
    }
    return true;
}

static int find_served(terse_frontend *fe, const terse_wire_request *wire, terse_served **ret_model, terse_error *error)
{
    terse_served *model = terse_ops_find_model(fe, wire->model);
    if (!model)
        return terse_fail(error, TERSE_NOT_FOUND, "no model '%.*s' is served",
                          (int)(wire->model.length < 200 ? wire->model.length : 200), wire->model.data);
    if (wire->version.data && !terse_wire_text_is(wire->version, model->version))
        return terse_fail(error, TERSE_NOT_FOUND, "model '%s' has no version '%.*s', it is version '%s'", model->name,
                          (int)(wire->version.length < 100 ? wire->version.length : 100), wire->version.data,
                          model->version);
    *ret_model = model;
    return TERSE_OK;
}

/* Reads from the inputs of an arena: the client may write there meanwhile, but not into the copy. */
static bool read_shared(const terse_client_arena *arena, uint8_t *to, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        const ssize_t got = pread(arena->input_fd, to, bytes, (off_t)offset);
        if (got <= 0)
            return false;
        to += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return true;
}

/* Copies into the slot what does not stay in shared memory, and notes where each input is. */
static int copy_inputs(terse_frontend *fe, const terse_request *request, const terse_served *model,
                       const terse_served_call *call, zmq_msg_t *frames, terse_error *error)
{
    uint8_t *at = request->input_slot == TERSE_SLOT_NONE ? NULL : terse_slots_data(fe->inputs, request->input_slot);
    for (uint32_t i = 0; i < model->n_inputs; i++) {
        const terse_wire_tensor *input = call->inputs[i];
        size_t bytes;
        if (!input->has_shm) {
            zmq_msg_t *frame = &frames[input->frame - 1];
            bytes = zmq_msg_size(frame);
            if (bytes > 0)
                memcpy(at, zmq_msg_data(frame), bytes);
        } else if (terse_served_copies(model, input)) {
            bytes = input->shm_size;
            if (!read_shared(request->arena, at, input->shm_offset, bytes))
                return terse_fail(error, TERSE_SYSTEM, "input '%s' cannot be read from shared memory",
                                  model->inputs[i].name);
        } else {
            request->places->inputs[i] = terse_msg_at(request->arena->number, input->shm_offset);
            continue;
        }
        if (request->places)
            request->places->inputs[i] = TERSE_PLACE_SLOT;
        at += terse_align(bytes, TERSE_SLOT_ALIGN);
    }
    return TERSE_OK;
}

/* Marks the places of the outputs; on failure those marked here are free again. */
static int claim_outputs(terse_client_arena *arena, const terse_served *model, const terse_served_call *call,
                         terse_places *places, terse_error *error)
{
    for (uint32_t i = 0; i < call->n_wanted; i++)
        places->outputs[call->wanted[i]].bytes = TERSE_PLACE_SLOT;
    places->n_outputs = 0;
    for (uint32_t i = 0; i < call->n_wanted && call->n_placed > 0; i++) {
        const terse_wire_tensor *wish = &call->wishes[i];
        if (!wish->has_shm)
            continue;
        if (terse_arena_claim(arena, wish->shm_offset, wish->shm_size)) {
            places->outputs[call->wanted[i]].offset = wish->shm_offset;
            places->outputs[call->wanted[i]].bytes = wish->shm_size;
            places->n_outputs++;
            continue;
        }
        for (uint32_t k = 0; k < i; k++)
            if (call->wishes[k].has_shm)
                terse_arena_unclaim(arena, call->wishes[k].shm_offset, call->wishes[k].shm_size);
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "output '%s': bytes %" PRIu64 " to %" PRIu64
                          " of the shared memory belong to another output or to a request that is not answered yet",
                          model->outputs[call->wanted[i]].name, wish->shm_offset, wish->shm_offset + wish->shm_size);
    }
    return TERSE_OK;
}

/* The shared memory that a request names: that of the ring it came through, or the one of its token. */
static int find_arena(const terse_frontend *fe, const terse_client *client, const terse_wire_request *wire,
                      terse_client_arena **ret_arena, terse_error *error)
{
    terse_client_arena *arena = client->arena;
    *ret_arena = arena;
    if (!wire->has_arena)
        return TERSE_OK;
    if (arena)
        return memcmp(arena->token, wire->arena, sizeof arena->token) == 0
                   ? TERSE_OK
                   : terse_fail(error, TERSE_INVALID_ARGUMENT,
                                "key 'arena' names another shared memory than that of the ring");
    arena = terse_arenas_find(&fe->arenas, wire->arena);
    if (!arena)
        return terse_fail(error, TERSE_NOT_FOUND, "key 'arena' names no shared memory that is attached here");
    if (client->remote || !client->known || client->uid != arena->uid)
        return terse_fail(error, TERSE_PERMISSION_DENIED, "key 'arena' names the shared memory of another user");
    *ret_arena = arena;
    return TERSE_OK;
}

/* When a request was sent, as far as that is known: a client of this host has our clock. What lay in sockets for long
 * is not taken for new then. A time that cannot be is passed over. */
static uint64_t sent_at(const terse_frontend *fe, const terse_client *client, const terse_wire_request *wire)
{
    const bool known = wire->has_sent && client->known && !client->remote && wire->sent_ns <= fe->now_ns &&
                       fe->now_ns - wire->sent_ns < BELIEVED_NS;
    return known ? wire->sent_ns : fe->now_ns;
}

static uint64_t deadline_of(const terse_frontend *fe, const terse_client *client, const terse_served *model,
                            const terse_wire_request *wire)
{
    uint64_t deadline = TERSE_NO_DEADLINE, after;
    const uint64_t sent = sent_at(fe, client, wire);
    if (!wire->has_timeout)
        return model->deadline_ns ? sent + model->deadline_ns : TERSE_NO_DEADLINE;
    if (__builtin_mul_overflow(wire->timeout_us, UINT64_C(1000), &after) ||
        __builtin_add_overflow(sent, after, &deadline))
        return TERSE_NO_DEADLINE;
    return deadline;
}

/* Takes slots, copies the tensors and puts the request into its lane. */
static int enter(terse_frontend *fe, terse_client *client, const terse_wire_request *wire, const terse_served *model,
                 terse_lane *lane, terse_client_arena *arena, const terse_served_call *call,
                 const terse_overload_request *asked, zmq_msg_t *frames, terse_error *error)
{
    terse_request *request = terse_request_new(fe);
    if (!request || (arena && !(request->places = terse_places_new(fe)))) {
        if (request)
            terse_request_free(fe, request);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for a request");
    }
    request->state = TERSE_REQUEST_PARKED;
    request->id = wire->id;
    request->arrival_ns = request->queued_ns = fe->now_ns;
    request->deadline_ns = asked->deadline_ns;
    request->work_ns = asked->work_ns;
    request->reckoned_ns = asked->reckoned_ns;
    request->priority = (uint8_t)wire->priority;
    request->rows = call->rows;
    request->n_wanted = call->n_wanted;
    memcpy(request->wanted, call->wanted, call->n_wanted);
    for (uint32_t i = 0; i < call->n_wanted; i++)
        request->wanted_mask |= UINT64_C(1) << call->wanted[i];
    request->lane = lane;
    lane->n_users++;
    if (!terse_queue_deadline_add(&fe->queue, request)) {
        terse_request_free(fe, request);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for a request");
    }
    if (arena) {
        const int status = claim_outputs(arena, model, call, request->places, error);
        if (!status)
            terse_arena_join(arena, request);
        else
            terse_request_free(fe, request);
        if (status)
            return status;
    }
    if (call->bytes > 0 || !arena)
        request->input_slot = terse_slots_take(fe->inputs, call->bytes);
    if (request->input_slot == TERSE_SLOT_NONE && (call->bytes > 0 || !arena)) {
        terse_request_free(fe, request);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "no room for %" PRIu64 " bytes of tensors: %" PRIu64 " of %" PRIu64 " are in use",
                          call->bytes, terse_slots_used(fe->inputs), fe->input_bytes);
    }
    request->input_bytes = call->bytes;
    const int status = copy_inputs(fe, request, model, call, frames, error);
    if (status) {
        request->input_bytes = 0; /* of no client yet */
        terse_request_free(fe, request);
        return status;
    }
    if (wire->has_session) {
        request->has_session = true;
        memcpy(request->session, wire->session, TERSE_WIRE_SESSION_BYTES);
        terse_sessions_add(&fe->sessions, request);
    }
    terse_client_join(&fe->clients, client, request);
    if (!client->parked) /* else it stays so */
        terse_queue_push(&fe->queue, request);
    request->trace = asked->trace;
    if (terse_trace_on(&request->trace))
        request->trace.queued_ns = terse_now_ns();
    return TERSE_OK;
}

/* Checks, then lets in: nothing is copied before all is known to be good and to have a place. */
static int let_in(terse_frontend *fe, terse_client *client, const terse_wire_request *wire, terse_served *model,
                  terse_client_arena *arena, zmq_msg_t *frames, uint32_t n_frames, terse_overload_request *asked,
                  terse_error *error)
{
    terse_served_call call;
    size_t frame_bytes[TERSE_WIRE_MAX_IO];
    for (uint32_t i = 0; i < n_frames; i++)
        frame_bytes[i] = zmq_msg_size(&frames[i]);
    const terse_served_bytes bytes = {n_frames,
                                      frame_bytes,
                                      arena != NULL,
                                      client->arena != NULL,
                                      arena ? arena->input_bytes : 0,
                                      arena ? arena->output_bytes : 0};
    asked->reason = TERSE_REJECTED_INVALID;
    int status = terse_served_match(model, wire, &bytes, &call, error);
    if (status)
        return status;
    asked->reason = TERSE_REJECTED_NO_ROOM;
    terse_lane *lane = terse_served_lane(model, &call, fe->now_ns);
    if (!lane)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for a request");
    asked->rows = call.rows;
    asked->bytes = call.bytes;
    asked->priority = wire->priority;
    asked->deadline_ns = deadline_of(fe, client, model, wire);
    asked->reason = TERSE_REJECTED_LATE;
    if (asked->deadline_ns <= fe->now_ns)
        return terse_fail(error, TERSE_DEADLINE_EXCEEDED, "the request's %" PRIu64 " us were over when it came",
                          wire->has_timeout ? wire->timeout_us : model->deadline_ns / 1000);
    status = terse_overload_check(fe, client, model, lane, asked, error);
    if (status) {
        fe->refused_ns = fe->now_ns;
        return status;
    }
    asked->retry_after_ms = terse_overload_retry_ms(fe);
    status = enter(fe, client, wire, model, lane, arena, &call, asked, frames, error);
    asked->reason = status == TERSE_INVALID_ARGUMENT ? TERSE_REJECTED_INVALID : TERSE_REJECTED_NO_ROOM;
    return status;
}

void terse_admit(terse_frontend *fe, terse_client *client, const terse_wire_request *wire, zmq_msg_t *frames,
                 uint32_t n_frames)
{
    terse_error error;
    terse_served *model = NULL;
    terse_client_arena *arena = NULL;
    terse_overload_request asked = {.retry_after_ms = TERSE_WIRE_NO_RETRY};
    int status = find_arena(fe, client, wire, &arena, &error);
    if (!status && (attach(fe, client, wire, arena) ||
                    (!arena && wire->has_session && terse_reply_repeat(fe, client, wire->session, wire->id))))
        return;
    if (!status)
        status = find_served(fe, wire, &model, &error);
    if (!status) {
        model->stats.requests++;
        asked.trace = terse_trace_begin(&fe->traces, wire);
        status = let_in(fe, client, wire, model, arena, frames, n_frames, &asked, &error);
    }
    if (!status)
        return;
    if (model) {
        model->stats.by_status[status]++;
        model->stats.rejected[asked.reason]++;
        if (asked.trace.sampled)
            terse_trace_log(&fe->traces, &asked.trace,
                            &(terse_trace_end){.model = model->name, .id = wire->id, .status = (terse_status)status});
    }
    fe->failed++;
    terse_reply_rejection(fe, client, wire->id, (terse_status)status, error.message, asked.retry_after_ms);
}
