/* SPDX-License-Identifier: Apache-2.0 */
/* client_fake.h: a daemon for tests of libterse that vanishes, lies and stays silent as it is told.
 * Runs in: tests. Ownership: a fixture owns its sockets and its thread. */
#ifndef TERSE_TESTS_CLIENT_FAKE_H
#define TERSE_TESTS_CLIENT_FAKE_H

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#include "client/terse.h"
#include "common/bytes.h"
#include "common/wire.h"

/* --- the fake: answers "live" by itself in a thread, and hands everything else to the test -------------------- */

enum { MAX_HELD = 256 };

typedef struct held {
    zmq_msg_t peer;
    uint64_t id;
    uint8_t session[TERSE_WIRE_SESSION_BYTES];
    terse_wire_op op;
    uint64_t target;
    float first; /* of its first input frame */
} held;

typedef struct fake {
    char endpoint[128];
    void *context, *router;
    held held[MAX_HELD];
    int n_held;
    terse_wire_request request;
    uint32_t max_retries, retry_budget_ms, max_refusals_per_s; /* of the client */
} fake;

static inline void fake_bind(fake *f)
{
    const int zero = 0, one = 1;
    f->router = zmq_socket(f->context, ZMQ_ROUTER);
    zmq_setsockopt(f->router, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(f->router, ZMQ_ROUTER_MANDATORY, &one, sizeof one);
    assert_int_equal(zmq_bind(f->router, f->endpoint), 0);
}

static inline void fake_init_at(fake *f, const char *name)
{
    memset(f, 0, sizeof *f);
    snprintf(f->endpoint, sizeof f->endpoint, "ipc:///tmp/terse-test-client-%d%s.sock", (int)getpid(), name);
    f->context = zmq_ctx_new();
    fake_bind(f);
}

static inline void fake_init(fake *f)
{
    fake_init_at(f, "");
}

static inline void fake_forget(fake *f)
{
    for (int i = 0; i < f->n_held; i++)
        zmq_msg_close(&f->held[i].peer);
    f->n_held = 0;
}

static inline void fake_unbind(fake *f)
{
    fake_forget(f);
    zmq_close(f->router);
}

static inline void fake_done(fake *f)
{
    fake_unbind(f);
    zmq_ctx_term(f->context);
    unlink(f->endpoint + strlen("ipc://"));
}

static inline void fake_send(fake *f, const held *to, const void *header, size_t size, const float *output)
{
    zmq_msg_t peer;
    zmq_msg_init(&peer);
    zmq_msg_copy(&peer, (zmq_msg_t *)(uintptr_t)&to->peer);
    assert_true(zmq_msg_send(&peer, f->router, ZMQ_SNDMORE) >= 0);
    assert_true(zmq_send(f->router, header, size, output ? ZMQ_SNDMORE : 0) >= 0);
    if (output)
        assert_true(zmq_send(f->router, output, sizeof *output, 0) >= 0);
}

/* OK; `output` becomes the one output "y" of shape [1]. */
static inline void fake_answer(fake *f, const held *to, const float *output)
{
    static terse_wire_reply reply;
    uint8_t buffer[4096];
    size_t size;
    terse_wire_reply_init(&reply);
    reply.has_id = true;
    reply.id = to->id;
    if (output) {
        reply.has_outputs = reply.has_timing = true;
        reply.queue_us = 5;
        reply.compute_us = 7;
        reply.batch = 2;
        reply.n_outputs = 1;
        terse_wire_tensor_init(&reply.outputs[0]);
        reply.outputs[0].name = terse_wire_text_of("y");
        reply.outputs[0].dtype = TERSE_FP32;
        reply.outputs[0].rank = 1;
        reply.outputs[0].dims[0] = 1;
        reply.outputs[0].frame = 1;
    }
    assert_int_equal(terse_wire_encode_reply(&reply, buffer, sizeof buffer, &size, NULL), TERSE_OK);
    fake_send(f, to, buffer, size, output);
}

static inline void fake_refuse(fake *f, const held *to, terse_status status, const char *text)
{
    uint8_t buffer[TERSE_WIRE_ERROR_BYTES];
    fake_send(f, to, buffer, terse_wire_encode_error(to->id, status, text, buffer), NULL);
}

static inline void fake_refuse_for(fake *f, const held *to, terse_status status, uint64_t retry_after_ms)
{
    uint8_t buffer[TERSE_WIRE_ERROR_BYTES];
    fake_send(f, to, buffer, terse_wire_encode_rejection(to->id, status, "full", retry_after_ms, buffer), NULL);
}

/* Takes one message off the socket, waiting at most ms; "live" is answered at once and not counted. */
static inline bool fake_take(fake *f, int ms)
{
    for (;;) {
        zmq_pollitem_t item = {f->router, 0, ZMQ_POLLIN, 0};
        if (zmq_poll(&item, 1, ms) <= 0)
            return false;
        held *h = &f->held[f->n_held];
        zmq_msg_t part;
        zmq_msg_init(&h->peer);
        zmq_msg_init(&part);
        assert_true(zmq_msg_recv(&h->peer, f->router, 0) >= 0);
        assert_true(zmq_msg_recv(&part, f->router, 0) >= 0);
        assert_int_equal(terse_wire_decode_request(zmq_msg_data(&part), zmq_msg_size(&part), &f->request, NULL),
                         TERSE_OK);
        h->id = f->request.id;
        h->op = f->request.op;
        h->target = f->request.target;
        memcpy(h->session, f->request.session, sizeof h->session);
        for (int frame = 0; zmq_msg_more(&part); frame++) {
            assert_true(zmq_msg_recv(&part, f->router, 0) >= 0);
            if (frame == 0 && zmq_msg_size(&part) >= sizeof h->first)
                memcpy(&h->first, zmq_msg_data(&part), sizeof h->first);
        }
        zmq_msg_close(&part);
        if (h->op == TERSE_WIRE_LIVE) {
            fake_answer(f, h, NULL);
            zmq_msg_close(&h->peer);
            continue;
        }
        f->n_held++;
        return true;
    }
}

/* terse_client_open waits for an answer, so that it needs the fake in another thread for a moment. */
static inline void *open_thread(void *user)
{
    fake *f = user;
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    terse_client *client = NULL;
    options.endpoint = f->endpoint;
    options.reconnect_timeout_ms = 20000;
    options.max_outstanding = 100;
    options.max_retries = f->max_retries;
    options.retry_budget_ms = f->retry_budget_ms;
    options.max_refusals_per_s = f->max_refusals_per_s;
    return terse_client_open(&options, &client) == TERSE_OK ? client : NULL;
}

static inline terse_client *connect_to(fake *f)
{
    pthread_t thread;
    void *client = NULL;
    assert_int_equal(pthread_create(&thread, NULL, open_thread, f), 0);
    while (pthread_tryjoin_np(thread, &client) != 0)
        fake_take(f, 10);
    assert_non_null(client);
    return client;
}

static inline terse_request *request_of(float value)
{
    terse_request *request = terse_request_new("m");
    assert_int_equal(terse_request_add_input(request, "x", TERSE_FP32, 1, (int64_t[]){1}, &value), TERSE_OK);
    return request;
}

static inline uint64_t submit(terse_client *client, float value)
{
    uint64_t id = 0;
    terse_request *request = request_of(value);
    assert_int_equal(terse_client_submit(client, request, &id), TERSE_OK);
    terse_request_free(request);
    return id;
}

/* Polls the client while the fake's socket is served too, until a reply is there. */
static inline terse_reply *next_reply(terse_client *client)
{
    terse_reply *reply = NULL;
    assert_int_equal(terse_client_poll(client, 20000, &reply), TERSE_OK);
    assert_non_null(reply);
    return reply;
}

#endif
