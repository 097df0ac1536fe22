/* SPDX-License-Identifier: Apache-2.0 */
/* load, unload and configure: asked here by those who may, done by the supervisor, answered here. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/frontend/frontend.h"

static void refuse(terse_frontend *fe, terse_client *client, uint64_t id, const terse_error *error)
{
    fe->failed++;
    terse_reply_error(fe, client, id, error->status, error->message);
}

/* An order that is sent again while it is carried out: its answer goes where it came from last. */
static bool attach(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    for (uint32_t i = 0; wire->has_session && i < TERSE_MAX_ORDERS; i++) {
        terse_order *order = &fe->orders[i];
        if (!order->client || !order->message.has_session || order->message.id != wire->id ||
            memcmp(order->message.session, wire->session, sizeof wire->session) != 0)
            continue;
        order->client->outstanding--;
        order->client = client;
        client->outstanding++;
        return true;
    }
    return false;
}

static int check_text(const char *what, terse_wire_text text, size_t room, terse_error *error)
{
    if (text.length < room && (text.length > 0 || !text.data))
        return TERSE_OK;
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "the %s has %" PRIu32 " bytes, allowed are 1 to %zu", what,
                      text.length, room - 1);
}

static int check(const terse_frontend *fe, const terse_client *client, const terse_wire_request *wire,
                 terse_error *error)
{
    if (!terse_client_is_admin(client))
        return terse_fail(error, TERSE_PERMISSION_DENIED,
                          "%s is for root and the daemon's own user, on a socket of this host (ipc)",
                          terse_wire_op_name(wire->op));
    if (fe->draining)
        return terse_fail(error, TERSE_UNAVAILABLE, "the daemon is shutting down");
    if (check_text("model's name", wire->model, TERSE_MODEL_NAME, error) ||
        check_text("model's version", wire->version, TERSE_VERSION_BYTES, error) ||
        check_text("file's path", wire->file, sizeof((terse_msg_admin *)0)->path, error))
        return error->status;
    return TERSE_OK;
}

static void copy(char *to, terse_wire_text text)
{
    if (text.data)
        memcpy(to, text.data, text.length); /* checked, and zero behind */
}

static terse_msg_admin message_of(const terse_wire_request *wire, uint32_t token)
{
    terse_msg_admin message = {
        .head = {TERSE_MSG_ADMIN, sizeof message},
        .kind = wire->op == TERSE_WIRE_LOAD     ? TERSE_ADMIN_LOAD
                : wire->op == TERSE_WIRE_UNLOAD ? TERSE_ADMIN_UNLOAD
                                                : TERSE_ADMIN_CONFIGURE,
        .token = token,
        .id = wire->id,
        .has_session = wire->has_session,
        .has_max_batch = wire->has_max_batch,
        .has_batch_timeout = wire->has_batch_timeout,
        .has_workers = wire->has_workers,
        .max_batch = wire->max_batch,
        .batch_timeout_us = wire->batch_timeout_us,
        .workers = wire->workers,
    };
    memcpy(message.session, wire->session, sizeof message.session);
    copy(message.name, wire->model);
    copy(message.version, wire->version);
    copy(message.path, wire->file);
    return message;
}

static terse_order *free_order(terse_frontend *fe)
{
    for (uint32_t i = 0; i < TERSE_MAX_ORDERS; i++)
        if (!fe->orders[i].client)
            return &fe->orders[i];
    return NULL;
}

void terse_admin_order(terse_frontend *fe, terse_client *client, const terse_wire_request *wire)
{
    terse_error error;
    if (check(fe, client, wire, &error)) {
        refuse(fe, client, wire->id, &error);
        return;
    }
    if (attach(fe, client, wire))
        return;
    terse_order *order = free_order(fe);
    if (!order) {
        terse_fail(&error, TERSE_RESOURCE_EXHAUSTED, "%d operations are under way already", TERSE_MAX_ORDERS);
        refuse(fe, client, wire->id, &error);
        return;
    }
    order->message = message_of(wire, ++fe->next_token);
    if (!terse_control_send(fe, &order->message, sizeof order->message)) {
        terse_fail(&error, TERSE_UNAVAILABLE, "the supervisor does not hear: try again");
        refuse(fe, client, wire->id, &error);
        return;
    }
    order->client = client;
    client->outstanding++; /* keeps it until it is answered */
}

static void answer(terse_frontend *fe, terse_client *client, const terse_msg_admin *order, uint32_t workers)
{
    terse_wire_reply *reply = &fe->reply;
    terse_error error;
    size_t size = 0;
    const terse_served *model = *order->name ? terse_ops_find_model(fe, terse_wire_text_of(order->name)) : NULL;
    terse_wire_reply_init(reply);
    reply->has_id = true;
    reply->id = order->id;
    reply->model = terse_wire_text_of(*order->name ? order->name : NULL);
    if (model)
        reply->version = terse_wire_text_of(model->version);
    if (order->kind == TERSE_ADMIN_CONFIGURE) {
        reply->has_workers = true;
        reply->workers = workers;
        reply->has_max_batch = model || order->has_max_batch;
        reply->max_batch = model ? model->max_batch : (uint32_t)order->max_batch;
        reply->has_batch_timeout = model || order->has_batch_timeout;
        reply->batch_timeout_us = model ? model->batch_timeout_ns / 1000 : order->batch_timeout_us;
    }
    if (terse_wire_encode_reply(reply, fe->header, sizeof fe->header, &size, &error))
        refuse(fe, client, order->id, &error);
    else
        terse_reply_header(fe, client, fe->header, size);
}

void terse_admin_done(terse_frontend *fe, const terse_msg_admin_done *done)
{
    for (uint32_t i = 0; i < TERSE_MAX_ORDERS; i++) {
        terse_order *order = &fe->orders[i];
        if (!order->client || order->message.token != done->token)
            continue;
        terse_client *client = order->client;
        order->client = NULL;
        client->outstanding--;
        if (done->status == TERSE_OK) {
            answer(fe, client, &order->message, done->workers);
        } else {
            terse_error error;
            terse_fail(&error,
                       (unsigned)done->status < TERSE_STATUS_COUNT ? (terse_status)done->status : TERSE_INTERNAL,
                       "%.*s", (int)sizeof done->error - 1, done->error);
            refuse(fe, client, order->message.id, &error);
        }
        return;
    }
}
