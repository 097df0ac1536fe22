/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/frontend/frontend.h"

/* One message: the peer, the header, then at most TERSE_WIRE_MAX_IO frames that are kept. */
typedef struct incoming {
    zmq_msg_t header, frames[TERSE_WIRE_MAX_IO];
    uint32_t n_frames;  /* kept */
    uint32_t n_surplus; /* passed over */
    bool has_header;
} incoming;

/* A peer that named itself is refused: two of the same name would take each other's replies. The ids that ZeroMQ gives
 * are a zero byte and four more, and no peer can choose one that begins so. */
static bool given_peer(zmq_msg_t *part, uint32_t *ret_peer)
{
    const uint8_t *id = zmq_msg_data(part);
    if (zmq_msg_size(part) != 1 + sizeof *ret_peer || id[0] != 0)
        return false;
    memcpy(ret_peer, id + 1, sizeof *ret_peer);
    return true;
}

static void take_part(terse_frontend *fe, zmq_msg_t *part)
{
    zmq_msg_init(part);
    /* The parts of a message come together: after the first none is waited for. */
    while (zmq_msg_recv(part, fe->router, 0) < 0 && errno == EINTR)
        ;
}

static void take_rest(terse_frontend *fe, incoming *in, bool more)
{
    in->n_frames = in->n_surplus = 0;
    in->has_header = more;
    if (more) {
        take_part(fe, &in->header);
        more = zmq_msg_more(&in->header);
    }
    while (more) {
        zmq_msg_t surplus;
        zmq_msg_t *part = in->n_frames < TERSE_WIRE_MAX_IO ? &in->frames[in->n_frames] : &surplus;
        take_part(fe, part);
        more = zmq_msg_more(part);
        if (part == &surplus) {
            in->n_surplus++;
            zmq_msg_close(part);
        } else {
            in->n_frames++;
        }
    }
}

static void close_incoming(incoming *in)
{
    if (in->has_header)
        zmq_msg_close(&in->header);
    for (uint32_t i = 0; i < in->n_frames; i++)
        zmq_msg_close(&in->frames[i]);
}

/* A header that names no id cannot be answered: it is counted, no more. */
static void refuse(terse_frontend *fe, terse_client *client, const terse_error *error)
{
    fe->malformed++;
    fe->blamed++;
    if (fe->request->has_id)
        terse_reply_error(fe, client, fe->request->id, error->status, error->message);
}

void terse_receive_entry(terse_frontend *fe, terse_client_arena *arena, size_t bytes)
{
    terse_error error;
    if (terse_wire_decode_like(&fe->forms, fe->entry, bytes, &fe->request, &error))
        refuse(fe, &arena->client, &error);
    else if (fe->request->op == TERSE_WIRE_INFER)
        terse_admit(fe, &arena->client, fe->request, NULL, 0);
    else
        terse_ops_answer(fe, &arena->client, fe->request);
}

static void handle(terse_frontend *fe, terse_client *client, incoming *in)
{
    terse_error error;
    if (terse_wire_decode_like(&fe->forms, zmq_msg_data(&in->header), zmq_msg_size(&in->header), &fe->request,
                               &error)) {
        refuse(fe, client, &error);
        return;
    }
    const terse_wire_request *wire = fe->request;
    if (in->n_surplus) {
        terse_fail(&error, TERSE_INVALID_ARGUMENT, "the message has %" PRIu32 " frames, allowed are %d",
                   in->n_frames + in->n_surplus, TERSE_WIRE_MAX_IO);
        refuse(fe, client, &error);
        return;
    }
    if (wire->op == TERSE_WIRE_INFER)
        terse_admit(fe, client, wire, in->frames, in->n_frames);
    else
        terse_ops_answer(fe, client, wire);
}

/* Tells a peer that named itself why it gets nothing: by its own name, without a client to keep anything for. */
static void refuse_peer(terse_frontend *fe, zmq_msg_t *peer, incoming *in)
{
    terse_error error;
    uint8_t header[TERSE_WIRE_ERROR_BYTES];
    fe->refused_peers++;
    if (!in->has_header)
        return;
    (void)terse_wire_decode_like(&fe->forms, zmq_msg_data(&in->header), zmq_msg_size(&in->header), &fe->request,
                                 &error);
    const terse_wire_request *wire = fe->request;
    if (!wire->has_id)
        return;
    const size_t size = terse_wire_encode_error(
        wire->id, TERSE_INVALID_ARGUMENT, "a routing id chosen by the client is refused: leave it to ZeroMQ", header);
    fe->router_unsure = true;
    if (zmq_msg_send(peer, fe->router, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        zmq_send(fe->router, header, size, ZMQ_DONTWAIT);
}

static void meet(terse_frontend *fe, terse_client *client, zmq_msg_t *part)
{
    terse_client_identify(client, zmq_msg_gets(part, "Peer-Address"), (uint32_t)fe->gate.pid);
    client->connection = terse_tap_find(zmq_msg_gets(part, "__fd"));
    client->remote |= terse_tap_is_trusted(client->connection);
}

unsigned terse_receive(terse_frontend *fe, unsigned limit)
{
    unsigned n = 0;
    for (; n < limit; n++) {
        zmq_msg_t first;
        incoming in;
        uint32_t peer = 0;
        zmq_msg_init(&first);
        if (zmq_msg_recv(&first, fe->router, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&first);
            fe->router_unsure = false;
            break;
        }
        take_rest(fe, &in, zmq_msg_more(&first));
        if (given_peer(&first, &peer)) {
            terse_client *client = terse_clients_get(&fe->clients, peer, fe->now_ns);
            if (client && !client->known)
                meet(fe, client, &first);
            const uint64_t blamed = fe->blamed;
            if (client)
                terse_tap_took(client->connection);
            if (client && in.has_header)
                handle(fe, client, &in);
            if (client && in.has_header && fe->blamed == blamed && !client->slow)
                terse_tap_good(client->connection, 1 + in.n_frames);
        } else {
            refuse_peer(fe, &first, &in);
        }
        close_incoming(&in);
        zmq_msg_close(&first);
    }
    return n;
}
