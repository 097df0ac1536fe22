/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/gate/gate.h"

enum { RETRY_MS = 50 };

/* One message: the peer, then the header and at most TERSE_WIRE_MAX_IO frames that are kept. */
typedef struct incoming {
    zmq_msg_t peer, parts[TERSE_GATE_PARTS];
    uint32_t n_parts, n_surplus;
    uint64_t bytes; /* of the frames */
} incoming;

static bool take(terse_gate *gate, incoming *in)
{
    in->n_parts = in->n_surplus = 0;
    in->bytes = 0;
    zmq_msg_init(&in->peer);
    if (zmq_msg_recv(&in->peer, gate->router, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&in->peer);
        return false;
    }
    for (bool more = zmq_msg_more(&in->peer); more;) {
        zmq_msg_t surplus, *part = in->n_parts < TERSE_GATE_PARTS ? &in->parts[in->n_parts] : &surplus;
        zmq_msg_init(part);
        while (zmq_msg_recv(part, gate->router, 0) < 0 && errno == EINTR) /* parts come together */
            ;
        more = zmq_msg_more(part);
        in->bytes += in->n_parts ? zmq_msg_size(part) : 0;
        if (part == &surplus) {
            in->n_surplus++;
            zmq_msg_close(part);
        } else {
            in->n_parts++;
        }
    }
    return true;
}

static void close_incoming(incoming *in)
{
    zmq_msg_close(&in->peer);
    for (uint32_t i = 0; i < in->n_parts; i++)
        zmq_msg_close(&in->parts[i]);
}

/* The ids that ZeroMQ gives are a zero byte and four more; no peer can choose one that begins so. */
static bool given_id(zmq_msg_t *peer, uint32_t *ret_id)
{
    const uint8_t *id = zmq_msg_data(peer);
    if (zmq_msg_size(peer) != 1 + sizeof *ret_id || id[0] != 0)
        return false;
    memcpy(ret_id, id + 1, sizeof *ret_id);
    return true;
}

/* Answers by the name under which the message came; a header that names no id cannot be answered. */
static void refuse(terse_gate *gate, incoming *in, const terse_error *error)
{
    uint8_t header[TERSE_WIRE_ERROR_BYTES];
    gate->refused_requests++;
    if (!gate->request.has_id)
        return;
    const bool later = error->status == TERSE_RESOURCE_EXHAUSTED && in->bytes <= gate->settings.max_request_bytes;
    const size_t size = terse_wire_encode_rejection(gate->request.id, error->status, error->message,
                                                    later ? RETRY_MS : TERSE_WIRE_NO_RETRY, header);
    if (zmq_msg_send(&in->peer, gate->router, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        zmq_send(gate->router, header, size, ZMQ_DONTWAIT);
}

static bool names_shared_memory(const terse_wire_request *wire)
{
    for (uint32_t i = 0; i < wire->n_inputs; i++)
        if (wire->inputs[i].has_shm)
            return true;
    for (uint32_t i = 0; i < wire->n_outputs; i++)
        if (wire->outputs[i].has_shm)
            return true;
    return false;
}

/* What no client from elsewhere may do, whatever the front end thinks of it. */
static int check_op(const terse_wire_request *wire, terse_error *error)
{
    if (wire->op == TERSE_WIRE_LOAD || wire->op == TERSE_WIRE_UNLOAD || wire->op == TERSE_WIRE_CONFIGURE)
        return terse_fail(error, TERSE_PERMISSION_DENIED,
                          "only root and the daemon's own user may load, unload and configure, over ipc; this is tcp");
    if (names_shared_memory(wire))
        return terse_fail(error, TERSE_PERMISSION_DENIED,
                          "shared memory is for clients on the daemon's host, over ipc; this is tcp");
    return TERSE_OK;
}

static int check(terse_gate *gate, incoming *in, terse_error *error)
{
    const int status =
        terse_wire_decode_request(zmq_msg_data(&in->parts[0]), zmq_msg_size(&in->parts[0]), &gate->request, error);
    if (status)
        return status;
    if (in->n_surplus)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the message has %" PRIu32 " frames, allowed are %d",
                          in->n_parts - 1 + in->n_surplus, TERSE_WIRE_MAX_IO);
    if (in->bytes > gate->settings.max_request_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "the request's tensors have %" PRIu64 " bytes, %" PRIu64 " are allowed", in->bytes,
                          gate->settings.max_request_bytes);
    if (atomic_load(&gate->request_bytes) + in->bytes > gate->share_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "requests over tcp with %" PRIu64 " bytes wait to be taken, %" PRIu64 " are allowed",
                          atomic_load(&gate->request_bytes), gate->share_bytes);
    return check_op(&gate->request, error);
}

static void hand_on(terse_gate *gate, terse_gate_remote *remote, incoming *in)
{
    for (uint32_t i = 0; i < in->n_parts; i++) {
        terse_gate_pin(&in->parts[i], &gate->request_bytes, NULL);
        const int flags = ZMQ_DONTWAIT | (i + 1 < in->n_parts ? ZMQ_SNDMORE : 0);
        if (zmq_msg_send(&in->parts[i], remote->dealer, flags) < 0) {
            terse_gate_remote_drop(gate, remote); /* no connection to the front end any more */
            return;
        }
    }
    gate->forwarded++;
    if (remote->n_asked++ == 0)
        remote->asked_ns = gate->now_ns;
    terse_gate_remote_touch(gate, (uint32_t)(remote - gate->remotes));
}

/* It came in with a key, which may have been taken away behind it. */
static bool may_send(const terse_gate *gate, zmq_msg_t *peer)
{
    uint8_t key[TERSE_KEY_BYTES];
    return !gate->settings.curve || (terse_gate_key_of(peer, key) && terse_gate_knows(gate, key));
}

static void handle(terse_gate *gate, incoming *in)
{
    uint32_t id = 0;
    terse_error error;
    const terse_tap_id connection = terse_tap_find(zmq_msg_gets(&in->peer, "__fd"));
    terse_tap_took(connection);
    if (!may_send(gate, &in->peer)) {
        terse_tap_drop(connection);
        return;
    }
    if (in->n_parts == 0)
        return;
    int status = check(gate, in, &error);
    if (!given_id(&in->peer, &id))
        status = terse_fail(&error, TERSE_INVALID_ARGUMENT,
                            "a routing id chosen by the client is refused: leave it to ZeroMQ");
    if (status) {
        refuse(gate, in, &error);
        return;
    }
    terse_gate_remote *remote = terse_gate_remote_of(gate, id, &in->peer);
    if (remote) {
        if (gate->request.op != TERSE_WIRE_UNKNOWN && !remote->slow)
            terse_tap_good(connection, in->n_parts);
        hand_on(gate, remote, in);
        return;
    }
    if (gate->n_remotes < gate->max_remotes) { /* the system refused: it connects and sends again */
        terse_tap_drop(connection);
        return;
    }
    terse_fail(&error, TERSE_RESOURCE_EXHAUSTED, "%" PRIu32 " clients are served over tcp, %" PRIu32 " are allowed",
               gate->n_remotes, gate->max_remotes);
    refuse(gate, in, &error);
}

unsigned terse_gate_forward(terse_gate *gate, unsigned limit)
{
    incoming in;
    unsigned n = 0;
    for (; n < limit && take(gate, &in); n++) {
        handle(gate, &in);
        close_incoming(&in);
    }
    return n;
}
