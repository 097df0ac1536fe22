/* SPDX-License-Identifier: Apache-2.0 */
/* What whoever runs the daemon may ask of it: load, unload, configure. */
#include "client/internal.h"

/* Sends client->wire_request and waits; *wire (NULL: not wanted) is the decoded reply without its texts. */
static terse_status order(terse_client *client, terse_wire_op op, int timeout_ms, terse_wire_reply *wire)
{
    uint64_t id;
    terse_reply *reply = NULL;
    terse_status status = terse_client_want_one(client, terse_wire_op_name(op));
    if (!status)
        status = terse_client_send(client, op, PENDING_OWN, NULL, 0, &id);
    if (!status)
        status = terse_client_finish(client, id, timeout_ms, &reply);
    if (!status && wire)
        status = (terse_status)terse_wire_decode_reply(zmq_msg_data(&reply->header), zmq_msg_size(&reply->header), wire,
                                                       terse_client_error_slot());
    terse_reply_free(reply);
    return status;
}

terse_status terse_client_load(terse_client *client, const char *model, const char *file, const char *version,
                               int timeout_ms)
{
    terse_wire_request *wire = &client->wire_request;
    if (!model || !file)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "load wants a model's name and a file");
    terse_wire_request_init(wire);
    wire->model = terse_wire_text_of(model);
    wire->file = terse_wire_text_of(file);
    wire->version = terse_wire_text_of(version);
    return order(client, TERSE_WIRE_LOAD, timeout_ms, NULL);
}

terse_status terse_client_unload(terse_client *client, const char *model, int timeout_ms)
{
    if (!model)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "unload wants a model's name");
    terse_wire_request_init(&client->wire_request);
    client->wire_request.model = terse_wire_text_of(model);
    return order(client, TERSE_WIRE_UNLOAD, timeout_ms, NULL);
}

/* A setting that is to stay is -1; what else is negative was a mistake. */
static bool take_setting(int64_t value, bool *ret_there, uint64_t *ret_value)
{
    *ret_there = value >= 0;
    *ret_value = value >= 0 ? (uint64_t)value : 0;
    return value >= -1;
}

terse_status terse_client_configure(terse_client *client, const char *model, terse_live_settings *settings,
                                    int timeout_ms)
{
    terse_wire_request *wire = &client->wire_request;
    terse_wire_reply *reply = &client->wire_reply;
    if (settings->size < sizeof *settings)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "settings have size %zu: start from TERSE_LIVE_SETTINGS_INIT",
                           settings->size);
    terse_wire_request_init(wire);
    wire->model = terse_wire_text_of(model);
    if (!take_setting(settings->max_batch, &wire->has_max_batch, &wire->max_batch) ||
        !take_setting(settings->batch_timeout_us, &wire->has_batch_timeout, &wire->batch_timeout_us) ||
        !take_setting(settings->workers, &wire->has_workers, &wire->workers))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "a setting is below -1, which leaves one as it is");
    const terse_status status = order(client, TERSE_WIRE_CONFIGURE, timeout_ms, reply);
    if (status)
        return status;
    settings->max_batch = reply->has_max_batch ? (int64_t)reply->max_batch : -1;
    settings->batch_timeout_us =
        reply->has_batch_timeout && reply->batch_timeout_us <= INT64_MAX ? (int64_t)reply->batch_timeout_us : -1;
    settings->workers = reply->has_workers ? (int64_t)reply->workers : -1;
    return TERSE_OK;
}
