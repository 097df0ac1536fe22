/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/overload.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

terse_request *terse_request_new(terse_frontend *fe)
{
    terse_request *request = fe->unused_requests;
    if (request)
        fe->unused_requests = request->next;
    else if (!(request = terse_arena_alloc(fe->arena, sizeof *request)))
        return NULL;
    *request = (terse_request){
        .generation = ++fe->next_generation,
        .input_slot = TERSE_SLOT_NONE,
        .output_slot = TERSE_SLOT_NONE,
        .deadline_ns = TERSE_NO_DEADLINE,
    };
    fe->n_live++;
    return request;
}

/* Chained by their first word; never given back, as requests are. */
terse_places *terse_places_new(terse_frontend *fe)
{
    terse_places *places = fe->unused_places;
    if (!places)
        return terse_arena_alloc(fe->arena, sizeof *places);
    memcpy(&fe->unused_places, places, sizeof fe->unused_places);
    return places;
}

void terse_request_give_output(terse_frontend *fe, terse_request *request)
{
    if (request->output_slot != TERSE_SLOT_NONE)
        terse_slots_give(fe->outputs, request->output_slot);
    request->output_slot = TERSE_SLOT_NONE;
}

void terse_request_free(terse_frontend *fe, terse_request *request)
{
    assert(request->state != TERSE_REQUEST_UNUSED);
    terse_queue_deadline_remove(&fe->queue, request);
    if (request->has_session)
        terse_sessions_remove(&fe->sessions, request);
    terse_client_leave(&fe->clients, request);
    if (request->arena)
        terse_arena_leave(request);
    if (request->places) {
        memcpy(request->places, &fe->unused_places, sizeof fe->unused_places);
        fe->unused_places = request->places;
    }
    if (request->input_slot != TERSE_SLOT_NONE)
        terse_slots_give(fe->inputs, request->input_slot);
    terse_request_give_output(fe, request);
    if (request->lane)
        request->lane->n_users--;
    request->state = TERSE_REQUEST_UNUSED;
    request->generation = 0;
    request->next = fe->unused_requests;
    fe->unused_requests = request;
    fe->n_live--;
}

void terse_request_withdraw(terse_frontend *fe, terse_request *request)
{
    if (request->state == TERSE_REQUEST_QUEUED || request->state == TERSE_REQUEST_SUSPECT)
        terse_queue_remove(&fe->queue, request);
    request->state = TERSE_REQUEST_PARKED;
}

/* An end that stays one when the client asks again: a request that crashed workers must not crash more. What was
 * refused for want of room or time is another matter: asked again it may find both. */
static void keep_failure(terse_frontend *fe, const terse_request *request, terse_status status, const char *message)
{
    uint8_t header[TERSE_WIRE_ERROR_BYTES];
    if (!request->has_session || status == TERSE_RESOURCE_EXHAUSTED || status == TERSE_UNAVAILABLE)
        return;
    const terse_finished_part part = {header, terse_wire_encode_error(request->id, status, message, header)};
    terse_finished_keep(fe->finished, request->session, request->id, &part, 1);
}

void terse_request_fail(terse_frontend *fe, terse_request *request, terse_status status, const char *format, ...)
{
    terse_client *client = request->client;
    if (!request->answered) {
        char message[sizeof((terse_error *)0)->message];
        va_list args;
        va_start(args, format);
        vsnprintf(message, sizeof message, format, args);
        va_end(args);
        fe->models[request->lane->model]->stats.by_status[status]++;
        fe->failed++;
        request->answered = true;
        if (request->trace.sampled)
            terse_trace_log(&fe->traces, &request->trace,
                            &(terse_trace_end){
                                .model = fe->models[request->lane->model]->name, .id = request->id, .status = status});
        keep_failure(fe, request, status, message);
        /* Out of the client's list first: sending may find the client gone and end all that it has waiting. */
        const uint64_t id = request->id;
        const bool lasting = request->lasting;
        if (request->state != TERSE_REQUEST_RUNNING) {
            terse_request_withdraw(fe, request);
            terse_request_free(fe, request);
        } else {
            terse_queue_deadline_remove(&fe->queue, request);
        }
        if (lasting)
            terse_reply_rejection(fe, client, id, status, message, TERSE_WIRE_NO_RETRY);
        else
            terse_reply_error(fe, client, id, status, message);
        return;
    }
    if (request->state != TERSE_REQUEST_RUNNING) {
        terse_request_withdraw(fe, request);
        terse_request_free(fe, request);
    }
}

void terse_request_end_late(terse_frontend *fe, terse_request *request)
{
    const uint64_t allowed_us = (request->deadline_ns - request->arrival_ns) / 1000;
    terse_request_rejected(fe, request, TERSE_REJECTED_EXPIRED);
    terse_request_fail(fe, request, TERSE_DEADLINE_EXCEEDED, "the request's %" PRIu64 " us are over while it %s",
                       allowed_us, request->state == TERSE_REQUEST_RUNNING || request->late ? "runs" : "waits");
}

void terse_request_expire(terse_frontend *fe)
{
    for (terse_request *request; (request = terse_queue_deadline_first(&fe->queue));) {
        if (request->deadline_ns > fe->now_ns)
            return;
        if (request->state == TERSE_REQUEST_RUNNING && request->places && request->places->n_outputs > 0) {
            /* The answer says that the memory is the client's again: not while a worker writes there. */
            request->late = true;
            terse_queue_deadline_remove(&fe->queue, request);
            continue;
        }
        if (request->state != TERSE_REQUEST_RUNNING)
            terse_overload_learn(fe, request);
        terse_request_end_late(fe, request);
    }
}
