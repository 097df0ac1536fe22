/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/overload.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Design notes
 *   A reply is sent without waiting. When the client's pipe is full (it reads too slowly) the reply is kept, and the
 *   client is slow: what it has waiting is parked, so that no worker works for it and no further reply piles up;
 *   all other clients are served as before. The same when ZeroMQ holds OWED_BYTES of large replies for it.
 *   A slow client that takes nothing for STUCK_NS loses its kept replies, its parked requests and its connection.
 *   Who shares memory with us is parked only when it stays slow for PARK_NS: its ring is small beside what it may be
 * sent in one turn of the scheduler, and to park and to put back all that it has for each of them costs more than the
 *   replies. It waits for every answer, whatever its deadline, since until then the memory is ours too:
 *   its replies are all kept, no more than were let in, and where one is lost its arena ends: then it knows, attaches
 *   again and asks again.
 *   Large outputs go out from the output slab itself, pinned until ZeroMQ has sent them; a client may pin an eighth of
 *   the slab, what is beyond is copied. Small outputs are copied at once. */
enum { COPY_BELOW = 1024, LATE_REPLIES = 4096, MAX_PARTS = 1 + TERSE_MAX_IO };
#define OWED_BYTES (UINT64_C(64) << 20)
#define STUCK_NS UINT64_C(10000000000)
#define PARK_NS UINT64_C(100000000)

typedef enum send_result { SENT, FULL, GONE } send_result;

static send_result ring_send(terse_frontend *fe, terse_client *client, const void *header, size_t bytes)
{
    switch (terse_ring_send(fe, client->arena, header, bytes)) {
    case TERSE_RING_DONE:
        return SENT;
    case TERSE_RING_WAIT:
        return FULL;
    default:
        return GONE;
    }
}

static send_result try_send(terse_frontend *fe, terse_client *client, zmq_msg_t *parts, uint32_t n)
{
    if (client->arena) /* all else lies in the client's memory already */
        return ring_send(fe, client, zmq_msg_data(&parts[0]), zmq_msg_size(&parts[0]));
    uint8_t peer[5] = {0};
    fe->router_unsure = true;
    memcpy(peer + 1, &client->peer, sizeof client->peer);
    if (zmq_send(fe->router, peer, sizeof peer, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return errno == EAGAIN ? FULL : GONE;
    for (uint32_t i = 0; i < n; i++)
        if (zmq_msg_send(&parts[i], fe->router, (i + 1 < n ? ZMQ_SNDMORE : 0) | ZMQ_DONTWAIT) < 0)
            return GONE;
    return SENT;
}

static void close_parts(zmq_msg_t *parts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        zmq_msg_close(&parts[i]);
}

static void drop_reply(terse_frontend *fe, terse_client *client, zmq_msg_t *parts, uint32_t n)
{
    close_parts(parts, n);
    client->dropped++;
    fe->dropped_replies++;
}

/* --- slow clients ------------------------------------------------------------------------------------------- */

static void park(terse_frontend *fe, terse_client *client)
{
    client->parked = true;
    for (terse_request *r = client->requests; r; r = r->client_next)
        if (r->state == TERSE_REQUEST_QUEUED || r->state == TERSE_REQUEST_SUSPECT)
            terse_request_withdraw(fe, r);
}

static void become_slow(terse_frontend *fe, terse_client *client)
{
    if (client->slow)
        return;
    client->slow = true;
    client->slow_ns = client->moved_ns = fe->now_ns;
    client->slow_previous = NULL;
    client->slow_next = fe->clients.slow;
    if (client->slow_next)
        client->slow_next->slow_previous = client;
    fe->clients.slow = client;
    if (!client->arena)
        park(fe, client);
}

static void leave_slow(terse_frontend *fe, terse_client *client)
{
    if (client->slow_previous)
        client->slow_previous->slow_next = client->slow_next;
    else
        fe->clients.slow = client->slow_next;
    if (client->slow_next)
        client->slow_next->slow_previous = client->slow_previous;
    client->slow = false;
    if (!client->parked)
        return;
    client->parked = false;
    for (terse_request *r = client->requests; r; r = r->client_next) {
        if (r->state != TERSE_REQUEST_PARKED)
            continue;
        r->queued_ns = fe->now_ns;
        if (r->alone)
            terse_queue_push_suspect(&fe->queue, r);
        else
            terse_queue_push(&fe->queue, r);
    }
}

static void drop_waiting(terse_frontend *fe, terse_client *client)
{
    for (terse_request *r = client->requests, *next; r; r = next) {
        next = r->client_next;
        if (r->state == TERSE_REQUEST_RUNNING) {
            if (!r->answered) {
                /* Its deadline is nobody's any more: one that is left would be due for ever. */
                terse_queue_deadline_remove(&fe->queue, r);
                client->dropped++;
                fe->dropped_replies++;
            }
            r->answered = true;
            continue;
        }
        terse_request_withdraw(fe, r);
        terse_request_free(fe, r);
        client->dropped++;
        fe->dropped_replies++;
    }
    for (terse_late_reply *late; (late = client->late_first);) {
        client->late_first = late->next;
        drop_reply(fe, client, late->parts, late->n_parts);
        free(late);
    }
    client->late_last = NULL;
    client->n_late = 0;
}

static void drop_client(terse_frontend *fe, terse_client *client)
{
    if (!client->arena) {
        drop_waiting(fe, client);
        if (!terse_tap_is_open(client->connection)) /* or not any more: what is left of it goes by itself */
            return;
    }
    fe->dropped_clients++;
    terse_log(TERSE_LOG_NOTICE,
              "a client of user %" PRIu32 ", process %" PRIu32 ", has read no reply for %d s: dropped", client->uid,
              client->pid, (int)(STUCK_NS / UINT64_C(1000000000)));
    if (client->arena)
        terse_arenas_drop(fe, client->arena);
    else
        terse_tap_drop(client->connection);
}

static void become_gone(terse_frontend *fe, terse_client *client)
{
    client->gone = true;
    drop_waiting(fe, client);
    if (client->slow)
        leave_slow(fe, client);
}

void terse_reply_gone(terse_frontend *fe, terse_client *client)
{
    if (!client->gone)
        become_gone(fe, client);
}

/* The ROUTER does not know it any more, or its ring is no ring. */
static void lose(terse_frontend *fe, terse_client *client)
{
    if (client->arena)
        terse_arenas_drop(fe, client->arena);
    else
        become_gone(fe, client);
}

static void keep_late(terse_frontend *fe, terse_client *client, zmq_msg_t *parts, uint32_t n)
{
    const bool room = client->n_late < LATE_REPLIES || client->arena;
    terse_late_reply *late = room ? malloc(sizeof *late + n * sizeof(zmq_msg_t)) : NULL;
    become_slow(fe, client);
    if (!late) {
        drop_reply(fe, client, parts, n);
        if (client->arena)
            lose(fe, client);
        return;
    }
    late->next = NULL;
    late->n_parts = n;
    for (uint32_t i = 0; i < n; i++) {
        zmq_msg_init(&late->parts[i]);
        zmq_msg_move(&late->parts[i], &parts[i]);
        zmq_msg_close(&parts[i]);
    }
    if (client->late_last)
        client->late_last->next = late;
    else
        client->late_first = late;
    client->late_last = late;
    client->n_late++;
}

/* Sends or keeps or drops: `parts` are no longer the caller's. */
static void send_parts(terse_frontend *fe, terse_client *client, zmq_msg_t *parts, uint32_t n)
{
    if (client->gone) {
        drop_reply(fe, client, parts, n);
        return;
    }
    if (client->n_late > 0) {
        keep_late(fe, client, parts, n);
        return;
    }
    switch (try_send(fe, client, parts, n)) {
    case SENT:
        if (client->arena)
            close_parts(parts, n);
        return;
    case FULL:
        keep_late(fe, client, parts, n);
        return;
    default:
        drop_reply(fe, client, parts, n);
        lose(fe, client);
    }
}

/* Sends kept replies as far as they go. */
void terse_reply_retry_client(terse_frontend *fe, terse_client *client)
{
    for (terse_late_reply *late; (late = client->late_first);) {
        const send_result result = try_send(fe, client, late->parts, late->n_parts);
        if (result == GONE) {
            lose(fe, client);
            return;
        }
        if (result == FULL)
            break;
        if (client->arena)
            close_parts(late->parts, late->n_parts); /* the ROUTER takes them over, the ring copies */
        client->moved_ns = fe->now_ns;
        client->late_first = late->next;
        if (!late->next)
            client->late_last = NULL;
        client->n_late--;
        free(late);
    }
    if (client->n_late == 0 && client->arena)
        terse_ring_look(fe, client->arena);
    if (client->n_late == 0 && client->owed_bytes <= OWED_BYTES / 2)
        leave_slow(fe, client);
    else if (fe->now_ns - client->moved_ns > STUCK_NS)
        drop_client(fe, client);
    else if (!client->parked && fe->now_ns - client->slow_ns > PARK_NS)
        park(fe, client);
}

void terse_reply_retry(terse_frontend *fe)
{
    for (terse_client *client = fe->clients.slow, *next; client; client = next) {
        next = client->slow_next;
        terse_reply_retry_client(fe, client);
    }
}

void terse_reply_collect(terse_frontend *fe)
{
    for (terse_pin *pin = terse_pins_collect(fe->pins), *next; pin; pin = next) {
        next = pin->next;
        terse_client *client = pin->client;
        client->pins--;
        client->owed_bytes -= pin->bytes;
        client->moved_ns = fe->now_ns;
        if (pin->slot != TERSE_SLOT_NONE) {
            terse_slots_give(fe->outputs, pin->slot);
            fe->starved = false;
        }
        terse_pins_give(fe->pins, pin);
    }
}

/* --- replies ------------------------------------------------------------------------------------------------ */

static bool part_of(zmq_msg_t *part, const void *data, size_t size)
{
    if (zmq_msg_init_size(part, size) != 0)
        return false;
    if (size > 0)
        memcpy(zmq_msg_data(part), data, size);
    return true;
}

void terse_reply_header(terse_frontend *fe, terse_client *client, const void *header, size_t size)
{
    zmq_msg_t part;
    if (client && client->arena && size > TERSE_WIRE_HEADER_BYTES) {
        terse_reply_error(fe, client, fe->request->id, TERSE_RESOURCE_EXHAUSTED, "the reply is too large for the ring");
        return;
    }
    if (client && client->arena && client->n_late == 0 && !client->gone && ring_send(fe, client, header, size) == SENT)
        return;
    if (client && part_of(&part, header, size))
        send_parts(fe, client, &part, 1);
    else if (client && client->arena)
        lose(fe, client);
}

void terse_reply_rejection(terse_frontend *fe, terse_client *client, uint64_t id, terse_status status,
                           const char *message, uint64_t retry_after_ms)
{
    uint8_t header[TERSE_WIRE_ERROR_BYTES];
    terse_reply_header(fe, client, header, terse_wire_encode_rejection(id, status, message, retry_after_ms, header));
}

void terse_reply_error(terse_frontend *fe, terse_client *client, uint64_t id, terse_status status, const char *message)
{
    const bool passes = status == TERSE_RESOURCE_EXHAUSTED || status == TERSE_UNAVAILABLE;
    fe->blamed += status == TERSE_INVALID_ARGUMENT || status == TERSE_NOT_FOUND || status == TERSE_UNIMPLEMENTED ||
                  status == TERSE_PERMISSION_DENIED;
    terse_reply_rejection(fe, client, id, status, message, passes ? terse_overload_retry_ms(fe) : TERSE_WIRE_NO_RETRY);
}

static size_t encode_result(terse_frontend *fe, const terse_pool_worker *worker, const terse_request *request,
                            const terse_msg_tensor *outputs, uint64_t compute_ns, uint64_t computed_ns)
{
    const terse_served *model = fe->models[request->lane->model];
    terse_wire_reply *reply = &fe->reply;
    terse_error error;
    size_t size = 0;
    uint32_t n_frames = 0;
    terse_wire_reply_init(reply);
    reply->has_id = reply->has_outputs = reply->has_timing = true;
    reply->id = request->id;
    reply->model = terse_wire_text_of(model->name);
    reply->version = terse_wire_text_of(model->version);
    reply->queue_us = (request->start_ns - request->arrival_ns) / 1000;
    reply->compute_us = compute_ns / 1000;
    reply->batch = worker->rows;
    reply->n_outputs = request->n_wanted;
    for (uint32_t i = 0; i < request->n_wanted; i++) {
        const terse_msg_tensor *output = &outputs[request->wanted[i]];
        const terse_served_tensor *about = &model->outputs[request->wanted[i]];
        terse_wire_tensor *tensor = &reply->outputs[i];
        terse_wire_tensor_init(tensor);
        tensor->name = (terse_wire_text){about->name, about->name_length};
        tensor->dtype = (terse_dtype)output->dtype;
        tensor->rank = output->rank;
        memcpy(tensor->dims, output->dims, sizeof tensor->dims);
        if (model->batchable)
            tensor->dims[0] = request->rows;
        tensor->has_shm = !terse_request_in_slot(request, request->wanted[i]);
        if (tensor->has_shm) {
            tensor->shm_offset = request->places->outputs[request->wanted[i]].offset;
            tensor->shm_size = output->bytes / worker->rows * request->rows;
        } else {
            tensor->frame = ++n_frames;
        }
    }
    if (request->trace.asked)
        terse_trace_tell(&request->trace, computed_ns, (uint32_t)(worker - fe->workers),
                         request->client->known && !request->client->remote, reply);
    return terse_wire_encode_reply(reply, fe->header, sizeof fe->header, &size, &error) ? 0 : size;
}

/* Makes one output's frame: small ones and those of a client that owes much are copied, others pinned. */
static bool output_part(terse_frontend *fe, terse_request *request, zmq_msg_t *part, uint8_t *data, uint64_t bytes,
                        terse_pin **slab)
{
    terse_client *client = request->client;
    if (bytes < COPY_BELOW)
        return part_of(part, data, bytes);
    const bool pin_slab = client->owed_bytes + bytes <= fe->output_bytes / 8;
    terse_pin *pin = pin_slab && *slab ? *slab : terse_pins_take(fe->pins);
    if (!pin)
        return part_of(part, data, bytes);
    if (pin != *slab) {
        pin->client = client;
        client->pins++;
    }
    if (pin_slab) {
        pin->slot = request->output_slot;
        *slab = pin;
    } else {
        pin->copy = malloc(bytes);
        if (!pin->copy) {
            client->pins--;
            terse_pins_give(fe->pins, pin);
            return false;
        }
        memcpy(pin->copy, data, bytes);
        data = pin->copy;
    }
    pin->bytes += bytes;
    client->owed_bytes += bytes;
    terse_pin_hold(pin);
    if (zmq_msg_init_data(part, data, bytes, terse_pin_release, pin) == 0)
        return true;
    terse_pin_release(NULL, pin);
    return false;
}

/* Makes all parts; returns how many, 0 when memory is out. */
static uint32_t result_parts(terse_frontend *fe, const terse_pool_worker *worker, terse_request *request,
                             const terse_msg_tensor *outputs, size_t header_size, zmq_msg_t *parts, terse_pin **slab)
{
    uint64_t offsets[TERSE_MAX_IO], at = 0;
    const terse_served *model = fe->models[request->lane->model];
    for (uint32_t i = 0; i < model->n_outputs; i++) {
        offsets[i] = at;
        if (terse_request_in_slot(request, i))
            at += terse_align(worker->output_bytes[i] * request->rows, TERSE_SLOT_ALIGN);
    }
    if (!part_of(&parts[0], fe->header, header_size))
        return 0;
    uint8_t *base =
        request->output_slot == TERSE_SLOT_NONE ? NULL : terse_slots_data(fe->outputs, request->output_slot);
    uint32_t n = 1;
    for (uint32_t i = 0; i < request->n_wanted; i++) {
        const uint32_t index = request->wanted[i];
        if (!terse_request_in_slot(request, index))
            continue;
        const uint64_t bytes = outputs[index].bytes / worker->rows * request->rows;
        if (!output_part(fe, request, &parts[n], base + offsets[index], bytes, slab)) {
            close_parts(parts, n);
            return 0;
        }
        n++;
    }
    return n;
}

/* For a client that does not get it, because its connection is lost, and asks again. */
static void keep_finished(terse_frontend *fe, const terse_request *request, zmq_msg_t *parts, uint32_t n)
{
    terse_finished_part kept[MAX_PARTS];
    for (uint32_t i = 0; i < n; i++)
        kept[i] = (terse_finished_part){zmq_msg_data(&parts[i]), zmq_msg_size(&parts[i])};
    terse_finished_keep(fe->finished, request->session, request->id, kept, n);
}

bool terse_reply_repeat(terse_frontend *fe, terse_client *client, const uint8_t *session, uint64_t id)
{
    terse_finished_part kept[TERSE_FINISHED_MAX_PARTS];
    zmq_msg_t parts[MAX_PARTS];
    const uint32_t n = terse_finished_find(fe->finished, session, id, kept);
    for (uint32_t i = 0; i < n; i++)
        if (!part_of(&parts[i], kept[i].data, kept[i].bytes)) {
            close_parts(parts, i);
            return false;
        }
    if (n == 0)
        return false;
    fe->repeated++;
    send_parts(fe, client, parts, n);
    return true;
}

void terse_reply_result(terse_frontend *fe, const terse_pool_worker *worker, terse_request *request,
                        const terse_msg_tensor *outputs, uint64_t compute_ns, uint64_t computed_ns)
{
    zmq_msg_t parts[MAX_PARTS];
    terse_pin *slab = NULL;
    terse_client *client = request->client;
    const size_t size = encode_result(fe, worker, request, outputs, compute_ns, computed_ns);
    if (size && client->arena) {
        terse_reply_header(fe, client, fe->header, size);
        return;
    }
    const uint32_t n = size ? result_parts(fe, worker, request, outputs, size, parts, &slab) : 0;
    if (slab)
        request->output_slot = TERSE_SLOT_NONE; /* the pin's now */
    if (n == 0) {
        terse_reply_error(fe, client, request->id, TERSE_RESOURCE_EXHAUSTED, "no memory for the reply");
        return;
    }
    if (request->has_session && !request->arena) /* what lies in shared memory may be something else by then */
        keep_finished(fe, request, parts, n);
    send_parts(fe, client, parts, n);
    if (client->owed_bytes > OWED_BYTES && !client->gone)
        become_slow(fe, client);
}
