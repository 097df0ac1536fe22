/* SPDX-License-Identifier: Apache-2.0 */
/* What a client may ask about the daemon: ready, models, metadata, stats. Each is one request whose reply's header is
 * kept: names point into it. */
#include "client/internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

/* Asks, waits, and decodes the reply's header into `wire`, whose texts point into *ret_reply. */
static terse_status ask(terse_client *client, terse_wire_op op, const char *model, int timeout_ms,
                        terse_wire_reply *wire, terse_reply **ret_reply)
{
    uint64_t id;
    terse_reply *reply = NULL;
    terse_wire_request_init(&client->wire_request);
    client->wire_request.model = terse_wire_text_of(model);
    terse_status status = terse_client_send(client, op, PENDING_OWN, NULL, 0, &id);
    if (!status)
        status = terse_client_finish(client, id, timeout_ms, &reply);
    if (!status && wire) {
        terse_wire_reply_init(wire);
        status = (terse_status)terse_wire_decode_reply(zmq_msg_data(&reply->header), zmq_msg_size(&reply->header), wire,
                                                       terse_client_error_slot());
    }
    if (status) {
        terse_reply_free(reply);
        return status;
    }
    *ret_reply = reply;
    return TERSE_OK;
}

terse_status terse_client_ready(terse_client *client, const char *model, int timeout_ms)
{
    terse_reply *reply = NULL;
    const terse_status status = ask(client, TERSE_WIRE_READY, model, timeout_ms, NULL, &reply);
    if (!status)
        terse_reply_free(reply);
    return status;
}

/* Texts of a reply end with a 0 only in a copy. */
static char *copy_text(terse_arena *arena, terse_wire_text text)
{
    return terse_arena_text(arena, text.data ? text.data : "", text.length);
}

struct terse_models {
    terse_arena *arena;
    int n;
    struct {
        const char *name, *version, *state;
    } models[TERSE_WIRE_MAX_MODELS];
};

terse_status terse_client_models(terse_client *client, int timeout_ms, terse_models **ret_models)
{
    terse_reply *reply = NULL;
    terse_wire_reply *wire = &client->wire_reply;
    const terse_status status = ask(client, TERSE_WIRE_MODELS, NULL, timeout_ms, wire, &reply);
    if (status)
        return status;
    terse_models *models = calloc(1, sizeof *models);
    bool whole = models && (models->arena = terse_arena_new());
    for (uint32_t i = 0; whole && i < wire->n_models; i++) {
        models->models[i].name = copy_text(models->arena, wire->models[i].name);
        models->models[i].version = copy_text(models->arena, wire->models[i].version);
        models->models[i].state = copy_text(models->arena, wire->models[i].state);
        whole = models->models[i].name && models->models[i].version && models->models[i].state;
        models->n++;
    }
    terse_reply_free(reply);
    if (!whole) {
        terse_models_free(models);
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for the list of models");
    }
    *ret_models = models;
    return TERSE_OK;
}

void terse_models_free(terse_models *models)
{
    if (!models)
        return;
    terse_arena_free(models->arena);
    free(models);
}

int terse_models_count(const terse_models *models)
{
    return models->n;
}

const char *terse_models_name(const terse_models *models, int index)
{
    return index >= 0 && index < models->n ? models->models[index].name : NULL;
}

const char *terse_models_version(const terse_models *models, int index)
{
    return index >= 0 && index < models->n ? models->models[index].version : NULL;
}

const char *terse_models_state(const terse_models *models, int index)
{
    return index >= 0 && index < models->n ? models->models[index].state : NULL;
}

typedef struct port {
    const char *name;
    terse_dtype dtype;
    int rank;
    int64_t dims[TERSE_MAX_RANK];
    const char *symbols[TERSE_MAX_RANK];
} port;

struct terse_signature {
    terse_arena *arena;
    int batchable;
    unsigned max_batch;
    int n[2]; /* inputs, outputs */
    port ports[2][TERSE_WIRE_MAX_IO];
};

static bool copy_port(terse_arena *arena, const terse_wire_tensor *tensor, port *to)
{
    to->name = copy_text(arena, tensor->name);
    to->dtype = tensor->dtype;
    to->rank = tensor->rank;
    bool whole = to->name;
    for (int d = 0; d < tensor->rank; d++) {
        to->dims[d] = tensor->dims[d];
        if (tensor->dims[d] < 0)
            whole = (to->symbols[d] = copy_text(arena, tensor->symbols[d])) && whole;
    }
    return whole;
}

terse_status terse_client_metadata(terse_client *client, const char *model, int timeout_ms,
                                   terse_signature **ret_signature)
{
    terse_reply *reply = NULL;
    terse_wire_reply *wire = &client->wire_reply;
    const terse_status status = ask(client, TERSE_WIRE_METADATA, model, timeout_ms, wire, &reply);
    if (status)
        return status;
    terse_signature *signature = calloc(1, sizeof *signature);
    bool whole = signature && (signature->arena = terse_arena_new());
    if (whole) {
        signature->batchable = wire->batchable;
        signature->max_batch = wire->max_batch;
        signature->n[0] = (int)wire->n_inputs;
        signature->n[1] = (int)wire->n_outputs;
        for (uint32_t i = 0; whole && i < wire->n_inputs; i++)
            whole = copy_port(signature->arena, &wire->inputs[i], &signature->ports[0][i]);
        for (uint32_t i = 0; whole && i < wire->n_outputs; i++)
            whole = copy_port(signature->arena, &wire->outputs[i], &signature->ports[1][i]);
    }
    terse_reply_free(reply);
    if (!whole) {
        terse_signature_free(signature);
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for the signature of '%s'", model);
    }
    *ret_signature = signature;
    return TERSE_OK;
}

void terse_signature_free(terse_signature *signature)
{
    if (!signature)
        return;
    terse_arena_free(signature->arena);
    free(signature);
}

int terse_signature_batchable(const terse_signature *signature)
{
    return signature->batchable;
}

unsigned terse_signature_max_batch(const terse_signature *signature)
{
    return signature->max_batch;
}

int terse_signature_count(const terse_signature *signature, int output)
{
    return signature->n[output != 0];
}

static const port *port_of(const terse_signature *signature, int output, int index)
{
    return index >= 0 && index < signature->n[output != 0] ? &signature->ports[output != 0][index] : NULL;
}

const char *terse_signature_name(const terse_signature *signature, int output, int index)
{
    const port *p = port_of(signature, output, index);
    return p ? p->name : NULL;
}

terse_dtype terse_signature_dtype(const terse_signature *signature, int output, int index)
{
    const port *p = port_of(signature, output, index);
    return p ? p->dtype : TERSE_DTYPE_NONE;
}

int terse_signature_shape(const terse_signature *signature, int output, int index, const int64_t **ret_dims)
{
    const port *p = port_of(signature, output, index);
    if (p && ret_dims)
        *ret_dims = p->dims;
    return p ? p->rank : -1;
}

const char *terse_signature_symbol(const terse_signature *signature, int output, int index, int axis)
{
    const port *p = port_of(signature, output, index);
    return p && axis >= 0 && axis < p->rank ? p->symbols[axis] : NULL;
}

struct terse_stats {
    terse_reply *reply;
};

terse_status terse_client_stats(terse_client *client, int timeout_ms, terse_stats **ret_stats)
{
    terse_reply *reply = NULL;
    terse_status status = terse_client_want_one(client, "stats");
    if (!status)
        status = ask(client, TERSE_WIRE_STATS, NULL, timeout_ms, NULL, &reply);
    if (status)
        return status;
    terse_stats *stats = malloc(sizeof *stats);
    if (!stats) {
        terse_reply_free(reply);
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for the statistics");
    }
    stats->reply = reply;
    *ret_stats = stats;
    return TERSE_OK;
}

const void *terse_stats_msgpack(const terse_stats *stats, size_t *ret_bytes)
{
    *ret_bytes = zmq_msg_size(&stats->reply->header);
    return zmq_msg_data(&stats->reply->header);
}

void terse_stats_free(terse_stats *stats)
{
    if (!stats)
        return;
    terse_reply_free(stats->reply);
    free(stats);
}
