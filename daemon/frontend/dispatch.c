/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/frontend/frontend.h"

/* Design notes
 *   Every turn of the loop each idle worker is offered work: suspects first, then what choose.c finds.
 *   A request's outputs get their slot when its batch forms. Without room the batch shrinks, and when not even one
 *   request fits dispatch waits until ZeroMQ has sent something. */

#define SECOND_NS UINT64_C(1000000000)
enum { HANG_TIMES = 10 };

/* Bytes of the outputs that a request wants, as they lie in its slot. */
static uint64_t room_of(const terse_served *model, const terse_pool_worker *worker, const terse_request *request)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < model->n_outputs; i++)
        if (terse_request_in_slot(request, i))
            bytes += terse_align(worker->output_bytes[i] * request->rows, TERSE_SLOT_ALIGN);
    return bytes;
}

/* The time after which a batch counts as hung. Where nothing of its size and shape was measured it is scaled from what
 * was: by the square of the inputs' growth, since attention grows so. */
static uint64_t hang_limit(const terse_served *model, const terse_lane *lane, uint32_t rows)
{
    if (model->hang_ns)
        return model->hang_ns;
    if (terse_cost_known(&lane->cost)) {
        const uint64_t limit = HANG_TIMES * terse_cost_peak(&lane->cost, rows);
        return limit > SECOND_NS ? limit : SECOND_NS;
    }
    uint64_t limit = 0;
    for (const terse_lane *other = model->lanes; other; other = other->next) {
        if (!terse_cost_known(&other->cost))
            continue;
        double growth = ((double)lane->input_total + 1) / ((double)other->input_total + 1);
        if (growth < 1)
            growth = 1;
        const double scaled = HANG_TIMES * growth * growth * (double)terse_cost_peak(&other->cost, rows);
        if (scaled < 1e18 && (uint64_t)scaled > limit)
            limit = (uint64_t)scaled;
    }
    if (!limit)
        return 60 * SECOND_NS;
    return limit > 5 * SECOND_NS ? limit : 5 * SECOND_NS;
}

static void put(uint8_t **at, const void *data, size_t size)
{
    memcpy(*at, data, size);
    *at += size;
}

static void put_u64(uint8_t **at, uint64_t value)
{
    put(at, &value, sizeof value);
}

static uint8_t *put_inputs(const terse_served *model, const terse_pool_worker *worker, uint8_t *at)
{
    const terse_lane *lane = worker->lane;
    for (uint32_t i = 0; i < model->n_inputs; i++) {
        terse_msg_tensor tensor = {.dtype = model->inputs[i].dtype, .rank = model->inputs[i].rank};
        memcpy(tensor.dims, lane->dims[i], sizeof tensor.dims);
        tensor.bytes = lane->input_bytes[i] * worker->rows;
        if (model->batchable)
            tensor.dims[0] = worker->rows;
        put(&at, &tensor, sizeof tensor);
    }
    return at;
}

static uint8_t *put_member(const terse_frontend *fe, const terse_served *model, const terse_pool_worker *worker,
                           const terse_request *request, uint8_t *at)
{
    put_u64(&at, request->rows);
    uint64_t offset = request->input_slot == TERSE_SLOT_NONE ? 0 : terse_slots_offset(fe->inputs, request->input_slot);
    for (uint32_t i = 0; i < model->n_inputs; i++) {
        if (request->places && request->places->inputs[i] != TERSE_PLACE_SLOT) {
            put_u64(&at, request->places->inputs[i]);
            continue;
        }
        put_u64(&at, offset);
        offset += terse_align(worker->lane->input_bytes[i] * request->rows, TERSE_SLOT_ALIGN);
    }
    offset = request->output_slot == TERSE_SLOT_NONE ? 0 : terse_slots_offset(fe->outputs, request->output_slot);
    for (uint32_t i = 0; i < model->n_outputs; i++) {
        const bool in_slot = terse_request_in_slot(request, i);
        const bool wanted = request->wanted_mask & UINT64_C(1) << i;
        const uint64_t bytes = worker->output_bytes[i] * request->rows;
        if (wanted && !in_slot) {
            put_u64(&at, terse_msg_at(request->arena->number, request->places->outputs[i].offset));
            put_u64(&at, request->places->outputs[i].bytes);
            continue;
        }
        put_u64(&at, wanted ? offset : 0);
        put_u64(&at, wanted ? bytes : TERSE_MSG_UNWANTED);
        if (wanted)
            offset += terse_align(bytes, TERSE_SLOT_ALIGN);
    }
    return at;
}

/* Gives every member a slot for its outputs; takes all back and returns false when one gets none. */
static bool take_output_slots(terse_frontend *fe, terse_pool_worker *worker)
{
    const terse_served *model = fe->models[worker->lane->model];
    memcpy(worker->output_bytes, worker->lane->output_bytes, model->n_outputs * sizeof worker->output_bytes[0]);
    for (uint32_t i = 0; i < worker->n_members; i++) {
        terse_request *request = worker->members[i];
        if (request->places && request->places->n_outputs == request->n_wanted)
            continue;
        request->output_slot = terse_slots_take(fe->outputs, room_of(model, worker, request));
        if (request->output_slot != TERSE_SLOT_NONE)
            continue;
        for (uint32_t k = 0; k < i; k++)
            terse_request_give_output(fe, worker->members[k]);
        return false;
    }
    return true;
}

bool terse_dispatch_send(terse_frontend *fe, terse_pool_worker *worker)
{
    const terse_served *model = fe->models[worker->lane->model];
    if (!take_output_slots(fe, worker))
        return false;
    worker->traced = false;
    for (uint32_t i = 0; i < worker->n_members; i++) {
        worker->traced |= terse_trace_on(&worker->members[i]->trace);
        if (worker->members[i]->arena && !terse_arenas_tell_worker(fe, worker, worker->members[i]->arena) &&
            errno != EPIPE && errno != ECONNRESET)
            terse_control_give_up(fe, "cannot send worker %d a shared memory: %s", worker->pid, strerror(errno));
    }
    terse_msg_batch head = {
        .head = {TERSE_MSG_BATCH, 0},
        .batch = ++fe->next_batch,
        .epoch = fe->epoch,
        .model = worker->lane->model,
        .n_inputs = model->n_inputs,
        .n_outputs = model->n_outputs,
        .n_members = worker->n_members,
        .rows = worker->rows,
    };
    uint8_t *at = put_inputs(model, worker, fe->message + sizeof head);
    for (uint32_t i = 0; i < worker->n_members; i++)
        at = put_member(fe, model, worker, worker->members[i], at);
    head.head.bytes = (uint32_t)(at - fe->message);
    memcpy(fe->message, &head, sizeof head);
    worker->state = TERSE_POOL_RUNNING;
    worker->batch = head.batch;
    worker->started_ns = fe->now_ns;
    worker->expected_ns = terse_cost_of(&worker->lane->cost, worker->rows);
    terse_share_charge(worker->lane->share, &fe->queue.clock_ns, worker->expected_ns);
    worker->hang_ns = fe->now_ns + hang_limit(model, worker->lane, worker->rows);
    const uint64_t sent_ns = worker->traced ? terse_now_ns() : 0; /* the worker may run before sending returns */
    for (uint32_t i = 0; worker->traced && i < worker->n_members; i++)
        worker->members[i]->trace.dispatched_ns = sent_ns;
    /* A send that fails means that the worker is gone: the end of its socket brings the batch back. */
    if (!terse_msg_send(worker->fd, fe->message, head.head.bytes, NULL, 0) && errno != EPIPE && errno != ECONNRESET)
        terse_control_give_up(fe, "cannot send worker %d a batch: %s", worker->pid, strerror(errno));
    return true;
}

/* Puts the last members back into the queue until `keep` are left. */
static void give_back(terse_frontend *fe, terse_pool_worker *worker, uint32_t keep)
{
    while (worker->n_members > keep) {
        terse_request *request = worker->members[--worker->n_members];
        worker->rows -= request->rows;
        if (request->alone)
            terse_queue_push_suspect(&fe->queue, request);
        else
            terse_queue_push(&fe->queue, request);
    }
}

/* Sends what `worker` has gathered, fewer when there is no room for all outputs. false: not even one fits now. */
static bool send_gathered(terse_frontend *fe, terse_pool_worker *worker)
{
    while (!terse_dispatch_send(fe, worker)) {
        if (worker->n_members > 1) {
            give_back(fe, worker, worker->n_members / 2);
            continue;
        }
        terse_request *request = worker->members[0];
        const uint64_t bytes = room_of(fe->models[worker->lane->model], worker, request);
        if (terse_slots_used(fe->outputs) > 0 && bytes <= fe->output_bytes / 2) {
            give_back(fe, worker, 0);
            return false;
        }
        worker->n_members = 0;
        worker->rows = 0;
        request->state = TERSE_REQUEST_PARKED;
        terse_request_rejected(fe, request, TERSE_REJECTED_NO_ROOM);
        terse_request_fail(fe, request, TERSE_RESOURCE_EXHAUSTED,
                           "the outputs need %" PRIu64 " bytes, the daemon has %" PRIu64, bytes, fe->output_bytes / 2);
        return true;
    }
    return true;
}

static void begin(terse_pool_worker *worker, terse_lane *lane)
{
    worker->lane = lane;
    worker->n_members = 0;
    worker->rows = 0;
}

static bool run_suspect(terse_frontend *fe, terse_pool_worker *worker)
{
    terse_request *request = fe->queue.suspects.first;
    terse_served *model = fe->models[request->lane->model];
    begin(worker, request->lane);
    terse_choose_add(fe, worker, request);
    if (!send_gathered(fe, worker))
        return false;
    model->stats.retries++;
    return true;
}

static bool run_lane(terse_frontend *fe, terse_pool_worker *worker)
{
    terse_batcher_reason reason = TERSE_CLOSE_REASONS;
    const terse_chosen chosen = terse_choose_batch(fe, worker, &reason);
    if (chosen != TERSE_CHOSEN_BATCH)
        return chosen == TERSE_CHOSEN_AGAIN;
    terse_served *model = fe->models[worker->lane->model];
    if (!send_gathered(fe, worker))
        return false;
    if (worker->state == TERSE_POOL_RUNNING)
        model->stats.closed[reason]++;
    return true;
}

void terse_dispatch(terse_frontend *fe)
{
    fe->hold_ns = UINT64_MAX;
    if (fe->queue.n_requests == 0 || fe->starved)
        return;
    for (uint32_t i = 0; i < fe->n_workers; i++) {
        terse_pool_worker *worker = &fe->workers[i];
        while (worker->state == TERSE_POOL_IDLE && fe->queue.n_requests > 0) {
            const uint32_t waited = fe->queue.n_requests;
            if (!(fe->queue.suspects.first ? run_suspect(fe, worker) : run_lane(fe, worker))) {
                /* Held by the batcher, or no room: whoever frees some clears the mark. */
                if (fe->hold_ns == UINT64_MAX && fe->queue.n_requests == waited)
                    fe->starved = true;
                return;
            }
        }
    }
}
