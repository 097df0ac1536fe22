/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/pack.h"
#include "daemon/frontend/frontend.h"

terse_served *terse_ops_find_model(terse_frontend *fe, terse_wire_text name)
{
    for (uint32_t i = 0; i < fe->n_models; i++)
        if (fe->models[i] && fe->models[i]->state == TERSE_SERVED_READY &&
            terse_wire_text_is(name, fe->models[i]->name))
            return fe->models[i];
    return NULL;
}

bool terse_ops_ready(const terse_frontend *fe)
{
    for (uint32_t i = 0; i < fe->n_workers; i++)
        if (fe->workers[i].state == TERSE_POOL_IDLE || fe->workers[i].state == TERSE_POOL_RUNNING)
            return true;
    return false;
}

static void answer_error(terse_frontend *fe, terse_client *client, const terse_error *error)
{
    fe->failed++;
    terse_reply_error(fe, client, fe->request->id, error->status, error->message);
}

static void send_reply(terse_frontend *fe, terse_client *client)
{
    terse_error error;
    size_t size = 0;
    if (terse_wire_encode_reply(&fe->reply, fe->header, sizeof fe->header, &size, &error))
        answer_error(fe, client, &error);
    else
        terse_reply_header(fe, client, fe->header, size);
}

/* The model that a request names; answers NOT_FOUND and gives NULL when it is not served. */
static terse_served *wanted_model(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    terse_error error;
    terse_served *model = terse_ops_find_model(fe, wire->model);
    if (model && (!wire->version.data || terse_wire_text_is(wire->version, model->version)))
        return model;
    const terse_wire_text missing = model ? wire->version : wire->model;
    terse_fail(&error, TERSE_NOT_FOUND, model ? "the model has no version '%.*s'" : "no model '%.*s' is served",
               (int)(missing.length < 200 ? missing.length : 200), missing.data);
    answer_error(fe, client, &error);
    return NULL;
}

static void answer_ready(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    terse_error error;
    if (wire->model.data && !wanted_model(fe, client, wire))
        return;
    if (fe->draining)
        terse_fail(&error, TERSE_UNAVAILABLE, "the daemon is shutting down");
    else if (!terse_ops_ready(fe))
        terse_fail(&error, TERSE_UNAVAILABLE, "no worker has warmed the models yet");
    else {
        send_reply(fe, client);
        return;
    }
    answer_error(fe, client, &error);
}

/* Every worker in service holds every model that serves: those become ready together. */
static const char *model_state(const terse_frontend *fe, const terse_served *model)
{
    return terse_served_state_name(model->state == TERSE_SERVED_READY && !terse_ops_ready(fe) ? TERSE_SERVED_PENDING
                                                                                              : model->state);
}

/* Calls `each` for every version that is there but does not serve: on its way in or out, or asked for and not heard of
 * yet. */
static void for_others(const terse_frontend *fe, void *context,
                       void (*each)(void *context, const char *name, const char *version, const char *state))
{
    for (uint32_t i = 0; i < fe->n_models; i++)
        if (fe->models[i] && fe->models[i]->state != TERSE_SERVED_READY)
            each(context, fe->models[i]->name, fe->models[i]->version, model_state(fe, fe->models[i]));
    for (uint32_t i = 0; i < TERSE_MAX_ORDERS; i++) {
        const terse_order *order = &fe->orders[i];
        bool seen = !order->client || order->message.kind != TERSE_ADMIN_LOAD;
        for (uint32_t k = 0; k < fe->n_models && !seen; k++)
            seen = fe->models[k] && fe->models[k]->state == TERSE_SERVED_PENDING &&
                   strcmp(fe->models[k]->name, order->message.name) == 0;
        if (!seen)
            each(context, order->message.name, *order->message.version ? order->message.version : "1",
                 terse_served_state_name(TERSE_SERVED_PENDING));
    }
}

static void list_other(void *context, const char *name, const char *version, const char *state)
{
    terse_wire_reply *reply = context;
    if (reply->n_models < TERSE_WIRE_MAX_MODELS)
        reply->models[reply->n_models++] =
            (terse_wire_model){terse_wire_text_of(name), terse_wire_text_of(version), terse_wire_text_of(state)};
}

/* Those that serve first; of the others as many as there is room for. */
static void answer_models(terse_frontend *fe, terse_client *client)
{
    terse_wire_reply *reply = &fe->reply;
    reply->has_models = true;
    for (uint32_t i = 0; i < fe->n_models; i++)
        if (fe->models[i] && fe->models[i]->state == TERSE_SERVED_READY)
            list_other(reply, fe->models[i]->name, fe->models[i]->version, model_state(fe, fe->models[i]));
    for_others(fe, reply, list_other);
    send_reply(fe, client);
}

static void describe(const terse_served *model, const terse_served_tensor *tensors, uint32_t n,
                     terse_wire_tensor *ret_tensors)
{
    for (uint32_t i = 0; i < n; i++) {
        terse_wire_tensor *tensor = &ret_tensors[i];
        terse_wire_tensor_init(tensor);
        tensor->name = (terse_wire_text){tensors[i].name, tensors[i].name_length};
        tensor->dtype = tensors[i].dtype;
        tensor->rank = tensors[i].rank;
        for (int axis = 0; axis < tensors[i].rank; axis++) {
            const int64_t dim = tensors[i].dims[axis];
            tensor->dims[axis] = dim < 0 ? -1 : dim;
            tensor->symbols[axis] = terse_wire_text_of(dim < 0 ? model->symbols[-1 - dim] : NULL);
        }
    }
}

static void answer_metadata(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    const terse_served *model = wanted_model(fe, client, wire);
    if (!model)
        return;
    terse_wire_reply *reply = &fe->reply;
    reply->has_inputs = reply->has_outputs = reply->has_batchable = reply->has_max_batch = true;
    reply->model = terse_wire_text_of(model->name);
    reply->version = terse_wire_text_of(model->version);
    reply->n_inputs = model->n_inputs;
    reply->n_outputs = model->n_outputs;
    reply->batchable = model->batchable;
    reply->max_batch = model->max_batch;
    describe(model, model->inputs, model->n_inputs, reply->inputs);
    describe(model, model->outputs, model->n_outputs, reply->outputs);
    send_reply(fe, client);
}

static void answer_cancel(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    terse_error error;
    terse_request *target = wire->has_session ? terse_sessions_find(&fe->sessions, wire->session, wire->target) : NULL;
    for (terse_request *r = target ? NULL : client->requests; r && !target; r = r->client_next)
        if (r->id == wire->target && !r->answered)
            target = r;
    if (!target || target->state == TERSE_REQUEST_RUNNING) {
        terse_fail(&error, TERSE_NOT_FOUND, "request %" PRIu64 " %s", wire->target,
                   target ? "is already running" : "does not wait here");
        answer_error(fe, client, &error);
        return;
    }
    terse_request_fail(fe, target, TERSE_CANCELLED, "request %" PRIu64 " was cancelled", wire->target);
    send_reply(fe, client);
}

/* --- stats --------------------------------------------------------------------------------------------------- */

static void pack_u64(msgpack_packer *packer, const char *key, uint64_t value)
{
    terse_pack_cstr(packer, key);
    msgpack_pack_uint64(packer, value);
}

static const char *const pool_states[] = {
    [TERSE_POOL_ABSENT] = "absent", [TERSE_POOL_WARMING] = "warming", [TERSE_POOL_IDLE] = "idle",
    [TERSE_POOL_RUNNING] = "busy",  [TERSE_POOL_HUNG] = "hung",       [TERSE_POOL_WAITING] = "crash loop",
};

static void pack_workers(const terse_frontend *fe, msgpack_packer *packer)
{
    terse_pack_cstr(packer, "workers");
    msgpack_pack_array(packer, fe->n_workers);
    for (uint32_t i = 0; i < fe->n_workers; i++) {
        const terse_pool_worker *worker = &fe->workers[i];
        const bool waits = worker->state == TERSE_POOL_WAITING, runs = worker->n_members > 0;
        msgpack_pack_map(packer, 8u + (waits ? 2 : 0) + (runs ? 3 : 0));
        pack_u64(packer, "worker", i);
        if (waits) {
            pack_u64(packer, "failed_starts", worker->failures);
            pack_u64(packer, "next_start_ms",
                     worker->next_start_ns > fe->now_ns ? (worker->next_start_ns - fe->now_ns) / 1000000 : 0);
        }
        pack_u64(packer, "pid", (uint64_t)worker->pid);
        terse_pack_cstr(packer, "state");
        terse_pack_cstr(packer, pool_states[worker->state]);
        pack_u64(packer, "restarts", worker->restarts);
        if (runs) { /* its batch, and for how long it has it */
            terse_pack_cstr(packer, "model");
            terse_pack_cstr(packer, fe->models[worker->lane->model]->name);
            pack_u64(packer, "rows", worker->rows);
            pack_u64(packer, "since_us", (fe->now_ns - worker->started_ns) / 1000);
        }
        pack_u64(packer, "private_bytes", worker->private_bytes);
        pack_u64(packer, "shared_bytes", worker->shared_bytes);
        pack_u64(packer, "batches", worker->batches);
        pack_u64(packer, "busy_us", worker->busy_ns / 1000);
    }
}

/* What a name has waiting and running, in all its versions. */
static terse_stats_about about(const terse_frontend *fe, const terse_served *model)
{
    terse_stats_about about = {.version = model->version,
                               .state = model_state(fe, model),
                               .cost = model->lanes ? &model->lanes->cost : NULL,
                               .recent = &model->recent,
                               .now_ns = fe->now_ns};
    for (uint32_t i = 0; i < fe->n_models; i++)
        if (fe->models[i] && strcmp(fe->models[i]->name, model->name) == 0) {
            about.queued += fe->models[i]->share.n_requests;
            about.queued_bytes += fe->models[i]->share.n_bytes;
        }
    for (const terse_request *r = fe->queue.suspects.first; r; r = r->next)
        if (strcmp(fe->models[r->lane->model]->name, model->name) == 0) {
            about.queued++;
            about.queued_bytes += r->input_bytes;
        }
    for (uint32_t i = 0; i < fe->n_workers; i++) {
        const terse_pool_worker *worker = &fe->workers[i];
        if (worker->n_members > 0 && strcmp(fe->models[worker->lane->model]->name, model->name) == 0)
            about.running += worker->n_members;
    }
    return about;
}

static void pack_models(const terse_frontend *fe, msgpack_packer *packer)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < fe->n_models; i++)
        n += fe->models[i] && fe->models[i]->state == TERSE_SERVED_READY;
    terse_pack_cstr(packer, "models");
    msgpack_pack_map(packer, n);
    for (uint32_t i = 0; i < fe->n_models; i++) {
        const terse_served *model = fe->models[i];
        if (!model || model->state != TERSE_SERVED_READY)
            continue;
        terse_stats stats = model->stats; /* with what an old version still finishes */
        for (uint32_t k = 0; k < fe->n_models; k++)
            if (fe->models[k] && fe->models[k]->state != TERSE_SERVED_READY &&
                strcmp(fe->models[k]->name, model->name) == 0)
                terse_stats_add(&stats, &fe->models[k]->stats);
        terse_pack_cstr(packer, model->name);
        const terse_stats_about more = about(fe, model);
        terse_stats_pack(&stats, &more, packer);
    }
}

static void count_other(void *context, const char *name, const char *version, const char *state)
{
    (void)name;
    (void)version;
    (void)state;
    ++*(uint32_t *)context;
}

static void pack_other(void *context, const char *name, const char *version, const char *state)
{
    msgpack_packer *packer = context;
    msgpack_pack_map(packer, 3);
    terse_pack_cstr(packer, "model");
    terse_pack_cstr(packer, name);
    terse_pack_cstr(packer, "version");
    terse_pack_cstr(packer, version);
    terse_pack_cstr(packer, "state");
    terse_pack_cstr(packer, state);
}

static void pack_changes(const terse_frontend *fe, msgpack_packer *packer)
{
    uint32_t n = 0;
    for_others(fe, &n, count_other);
    terse_pack_cstr(packer, "changes");
    msgpack_pack_array(packer, n);
    for_others(fe, packer, pack_other);
}

static void pack_gate(const terse_msg_gate *gate, msgpack_packer *packer)
{
    terse_pack_cstr(packer, "gate");
    if (!gate->pid) {
        msgpack_pack_nil(packer);
        return;
    }
    msgpack_pack_map(packer, 13);
    pack_u64(packer, "pid", (uint64_t)gate->pid);
    pack_u64(packer, "restarts", gate->restarts);
    pack_u64(packer, "connections", gate->connections);
    pack_u64(packer, "clients", gate->clients);
    pack_u64(packer, "forwarded", gate->forwarded);
    pack_u64(packer, "replies", gate->replies);
    pack_u64(packer, "refused_connections", gate->refused_connections);
    pack_u64(packer, "refused_keys", gate->refused_keys);
    pack_u64(packer, "refused_requests", gate->refused_requests);
    pack_u64(packer, "cut_off_connections", gate->cut_off);
    pack_u64(packer, "held_connections", gate->held);
    pack_u64(packer, "delayed_connections", gate->delayed);
    pack_u64(packer, "dropped_clients", gate->dropped);
}

/* Seven entries. */
static void pack_connections(const terse_frontend *fe, msgpack_packer *packer)
{
    const terse_tap_counts counts = terse_tap_count();
    pack_u64(packer, "connections", counts.connections);
    pack_u64(packer, "refused_connections", counts.refused);
    pack_u64(packer, "cut_off_connections", counts.cut_off);
    pack_u64(packer, "held_connections", counts.held);
    pack_u64(packer, "delayed_connections", counts.delayed);
    pack_u64(packer, "dropped_clients", fe->dropped_clients);
    pack_gate(&fe->gate, packer);
}

static void pack_daemon(const terse_frontend *fe, msgpack_packer *packer)
{
    pack_u64(packer, "uptime_us", (fe->now_ns - fe->started_ns) / 1000);
    pack_u64(packer, "served", fe->served);
    pack_u64(packer, "failed", fe->failed);
    pack_u64(packer, "malformed", fe->malformed);
    pack_u64(packer, "dropped_replies", fe->dropped_replies);
    pack_u64(packer, "refused_peers", fe->refused_peers);
    pack_u64(packer, "repeated_replies", fe->repeated);
    pack_u64(packer, "queued", fe->queue.n_requests);
    pack_u64(packer, "queued_bytes", fe->queue.n_bytes);
    pack_u64(packer, "clients", fe->clients.n);
    pack_u64(packer, "input_bytes_used", terse_slots_used(fe->inputs));
    pack_u64(packer, "output_bytes_used", terse_slots_used(fe->outputs));
    uint64_t arena_bytes = 0;
    for (uint32_t i = 0; i < TERSE_MAX_ARENAS; i++)
        arena_bytes += fe->arenas.at[i] ? fe->arenas.at[i]->input_bytes + fe->arenas.at[i]->output_bytes : 0;
    pack_u64(packer, "arenas", fe->arenas.n);
    pack_u64(packer, "arenas_leaving", fe->arenas.n_leaving);
    pack_u64(packer, "arena_bytes", arena_bytes);
}

static uint32_t count_lines(const char *text)
{
    uint32_t n = 0;
    for (; text && (text = strchr(text, '\n')); text++)
        n++;
    return n;
}

/* NAME: {"value", "unit", "from"}, of lines whose words are parted by tabs. */
static void pack_settings(const terse_frontend *fe, msgpack_packer *packer)
{
    static const char *const keys[] = {"", "value", "unit", "from"};
    const char *at = fe->settings;
    terse_pack_cstr(packer, "settings");
    msgpack_pack_map(packer, count_lines(at));
    for (; at && strchr(at, '\n'); at = strchr(at, '\n') + 1) {
        for (int i = 0; i < 4; i++) {
            const size_t length = strcspn(at, "\t\n");
            if (i)
                terse_pack_cstr(packer, keys[i]);
            msgpack_pack_str(packer, length);
            msgpack_pack_str_body(packer, at, length);
            if (i == 0)
                msgpack_pack_map(packer, 3);
            at += length + (at[length] == '\t');
        }
    }
}

static void answer_stats(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    terse_error error;
    uint8_t *bytes = malloc(TERSE_WIRE_STATS_BYTES);
    terse_pack_buffer buffer = {.data = bytes, .capacity = bytes ? TERSE_WIRE_STATS_BYTES : 0};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &buffer, terse_pack_buffer_write);
    terse_wire_pack_head(&packer, wire->id, TERSE_OK, 26);
    pack_daemon(fe, &packer);
    pack_connections(fe, &packer);
    pack_workers(fe, &packer);
    pack_models(fe, &packer);
    pack_changes(fe, &packer);
    pack_settings(fe, &packer);
    if (buffer.full) {
        terse_fail(&error, TERSE_RESOURCE_EXHAUSTED, "the counters need more than %d bytes", TERSE_WIRE_STATS_BYTES);
        answer_error(fe, client, &error);
    } else {
        terse_reply_header(fe, client, bytes, buffer.size);
    }
    free(bytes);
}

static void answer_unknown(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    terse_error error;
    terse_fail(&error, TERSE_UNIMPLEMENTED, "op '%.*s' is not known here",
               (int)(wire->op_name.length < 100 ? wire->op_name.length : 100), wire->op_name.data);
    answer_error(fe, client, &error);
}

void terse_ops_answer(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    terse_wire_reply_init(&fe->reply);
    fe->reply.has_id = true;
    fe->reply.id = wire->id;
    switch (wire->op) {
    case TERSE_WIRE_LIVE:
        send_reply(fe, client);
        return;
    case TERSE_WIRE_READY:
        answer_ready(fe, client, wire);
        return;
    case TERSE_WIRE_MODELS:
        answer_models(fe, client);
        return;
    case TERSE_WIRE_METADATA:
        answer_metadata(fe, client, wire);
        return;
    case TERSE_WIRE_STATS:
        answer_stats(fe, client, wire);
        return;
    case TERSE_WIRE_CANCEL:
        answer_cancel(fe, client, wire);
        return;
    case TERSE_WIRE_LOAD:
    case TERSE_WIRE_UNLOAD:
    case TERSE_WIRE_CONFIGURE:
        terse_admin_order(fe, client, wire);
        return;
    default:
        answer_unknown(fe, client, wire);
    }
}
