/* SPDX-License-Identifier: Apache-2.0 */
/* ZeroMQ's authentication protocol (ZAP, RFC 27): during a CURVE handshake it asks the socket bound to
 * inproc://zeromq.zap.01 whether the client's public key may come in. Clients without CURVE never get so far. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/gate/gate.h"

enum { QUESTION = 7, KEY_AT = 6, ID_AT = 1, MECHANISM_AT = 5 };

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, TERSE_KEY_BYTES);
}

void terse_gate_add_keys(terse_gate *gate, const terse_msg_gate_keys *message)
{
    const size_t bytes = offsetof(terse_msg_gate_keys, keys) + (size_t)message->n * TERSE_KEY_BYTES;
    uint8_t(*keys)[TERSE_KEY_BYTES] = NULL;
    if (message->n <= TERSE_GATE_KEYS && bytes == message->head.bytes)
        keys = realloc(gate->keys, ((size_t)gate->n_keys + message->n) * TERSE_KEY_BYTES);
    if (!keys) {
        terse_log(TERSE_LOG_ERROR, "keys of clients cannot be taken: those who have them are refused");
        return;
    }
    memcpy(keys[gate->n_keys], message->keys, (size_t)message->n * TERSE_KEY_BYTES);
    gate->keys = keys;
    gate->n_keys += message->n;
    qsort(gate->keys, gate->n_keys, TERSE_KEY_BYTES, by_bytes);
}

bool terse_gate_door_open(terse_gate *gate)
{
    const int on = 1, zero = 0;
    gate->zap = zmq_socket(gate->context, ZMQ_REP);
    return gate->zap && zmq_setsockopt(gate->zap, ZMQ_LINGER, &zero, sizeof zero) == 0 &&
           zmq_bind(gate->zap, "inproc://zeromq.zap.01") == 0 &&
           zmq_setsockopt(gate->router, ZMQ_CURVE_SERVER, &on, sizeof on) == 0 &&
           zmq_setsockopt(gate->router, ZMQ_CURVE_SECRETKEY, gate->settings.secret_key, TERSE_KEY_BYTES) == 0 &&
           zmq_setsockopt(gate->router, ZMQ_ZAP_DOMAIN, "terse", 5) == 0;
}

static bool is_known(const terse_gate *gate, zmq_msg_t *parts)
{
    return zmq_msg_size(&parts[MECHANISM_AT]) == 5 && memcmp(zmq_msg_data(&parts[MECHANISM_AT]), "CURVE", 5) == 0 &&
           zmq_msg_size(&parts[KEY_AT]) == TERSE_KEY_BYTES && gate->n_keys > 0 &&
           bsearch(zmq_msg_data(&parts[KEY_AT]), gate->keys, gate->n_keys, TERSE_KEY_BYTES, by_bytes);
}

static void send_text(void *socket, const char *text, bool more)
{
    zmq_send(socket, text, strlen(text), more ? ZMQ_SNDMORE : 0);
}

static void answer(terse_gate *gate, zmq_msg_t *parts, bool whole)
{
    const bool known = whole && is_known(gate, parts);
    gate->refused_keys += !known;
    send_text(gate->zap, "1.0", true);
    zmq_msg_send(&parts[ID_AT], gate->zap, ZMQ_SNDMORE);
    send_text(gate->zap, known ? "200" : "400", true);
    send_text(gate->zap, known ? "OK" : "unknown key", true);
    send_text(gate->zap, "", true);  /* user */
    send_text(gate->zap, "", false); /* metadata */
}

/* The parts of one question; how many there are, 0: none is there. Those beyond QUESTION are passed over. */
static int take_question(terse_gate *gate, zmq_msg_t *parts)
{
    int n = 0;
    for (bool more = true; more;) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        int got;
        do
            got = zmq_msg_recv(&part, gate->zap, n ? 0 : ZMQ_DONTWAIT);
        while (got < 0 && errno == EINTR);
        if (got < 0)
            return 0;
        more = zmq_msg_more(&part);
        if (n < QUESTION)
            zmq_msg_move(&parts[n], &part);
        zmq_msg_close(&part);
        n++;
    }
    return n;
}

void terse_gate_door_answer(terse_gate *gate)
{
    zmq_msg_t parts[QUESTION];
    for (int n = 1; n > 0;) {
        for (int i = 0; i < QUESTION; i++)
            zmq_msg_init(&parts[i]);
        n = take_question(gate, parts);
        if (n > 0)
            answer(gate, parts, n == QUESTION);
        for (int i = 0; i < QUESTION; i++)
            zmq_msg_close(&parts[i]);
    }
}
