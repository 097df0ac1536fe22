/* SPDX-License-Identifier: Apache-2.0 */
/* ZeroMQ's authentication protocol (ZAP, RFC 27): during a CURVE handshake it asks the socket bound to
 * inproc://zeromq.zap.01 whether the client's public key may come in. Clients without CURVE never get so far. The
 * answer names the key as the user, which is then written on each of the client's messages: when a list of keys takes
 * the place of another, that tells whose connections end. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/curve.h"
#include "daemon/gate/gate.h"

enum { QUESTION = 7, KEY_AT = 6, ID_AT = 1, MECHANISM_AT = 5 };

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, TERSE_KEY_BYTES);
}

static bool add_keys(terse_gate *gate, const terse_msg_gate_keys *message)
{
    const size_t bytes = offsetof(terse_msg_gate_keys, keys) + (size_t)message->n * TERSE_KEY_BYTES;
    if (message->n == 0 || message->n > TERSE_GATE_KEYS || bytes != message->head.bytes)
        return false;
    uint8_t(*keys)[TERSE_KEY_BYTES] = realloc(gate->coming, ((size_t)gate->n_coming + message->n) * TERSE_KEY_BYTES);
    if (!keys)
        return false;
    memcpy(keys[gate->n_coming], message->keys, (size_t)message->n * TERSE_KEY_BYTES);
    gate->coming = keys;
    gate->n_coming += message->n;
    return true;
}

/* How many of `keys` are none of `others`, which are sorted. */
static uint32_t count_others(uint8_t (*keys)[TERSE_KEY_BYTES], uint32_t n, uint8_t (*others)[TERSE_KEY_BYTES],
                             uint32_t n_others)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        count += n_others == 0 || !bsearch(keys[i], others, n_others, TERSE_KEY_BYTES, by_bytes);
    return count;
}

bool terse_gate_take_keys(terse_gate *gate, const terse_msg_gate_keys *message)
{
    if (message->first)
        gate->n_coming = 0;
    if (!add_keys(gate, message)) {
        terse_log(TERSE_LOG_ERROR, "keys of clients cannot be taken");
        return false;
    }
    if (!message->last)
        return true;
    qsort(gate->coming, gate->n_coming, TERSE_KEY_BYTES, by_bytes);
    const uint32_t n_new = count_others(gate->coming, gate->n_coming, gate->keys, gate->n_keys);
    const uint32_t n_gone = count_others(gate->keys, gate->n_keys, gate->coming, gate->n_coming);
    free(gate->keys);
    gate->keys = gate->coming;
    gate->n_keys = gate->n_coming;
    gate->coming = NULL;
    gate->n_coming = 0;
    if (gate->serving)
        terse_log(TERSE_LOG_NOTICE, "%" PRIu32 " keys of clients: %" PRIu32 " are new, %" PRIu32 " are gone",
                  gate->n_keys, n_new, n_gone);
    if (gate->serving && n_gone)
        terse_gate_remotes_drop_strangers(gate);
    return true;
}

bool terse_gate_knows(const terse_gate *gate, const uint8_t key[TERSE_KEY_BYTES])
{
    return gate->n_keys > 0 && bsearch(key, gate->keys, gate->n_keys, TERSE_KEY_BYTES, by_bytes);
}

bool terse_gate_key_of(zmq_msg_t *part, uint8_t ret_key[TERSE_KEY_BYTES])
{
    const char *text = zmq_msg_gets(part, "User-Id");
    return text && terse_curve_decode(text, ret_key);
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
           zmq_msg_size(&parts[KEY_AT]) == TERSE_KEY_BYTES && terse_gate_knows(gate, zmq_msg_data(&parts[KEY_AT]));
}

static void send_text(void *socket, const char *text, bool more)
{
    zmq_send(socket, text, strlen(text), more ? ZMQ_SNDMORE : 0);
}

static void answer(terse_gate *gate, zmq_msg_t *parts, bool whole)
{
    const bool known = whole && is_known(gate, parts);
    char user[TERSE_CURVE_TEXT] = "";
    if (known)
        terse_curve_encode(zmq_msg_data(&parts[KEY_AT]), user);
    gate->refused_keys += !known;
    send_text(gate->zap, "1.0", true);
    zmq_msg_send(&parts[ID_AT], gate->zap, ZMQ_SNDMORE);
    send_text(gate->zap, known ? "200" : "400", true);
    send_text(gate->zap, known ? "OK" : "unknown key", true);
    send_text(gate->zap, user, true);
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
