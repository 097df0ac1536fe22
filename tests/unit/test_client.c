/* SPDX-License-Identifier: Apache-2.0 */
/* libterse against a daemon that misbehaves on demand: a ROUTER in this process, driven step by step. */
#include "tests/unit/client_fake.h"

/* --- stories -------------------------------------------------------------------------------------------------- */

static void answers_come_in_any_order_and_once(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    const uint64_t a = submit(client, 1), b = submit(client, 2), c = submit(client, 3);
    while (f.n_held < 3)
        assert_true(fake_take(&f, 20000));
    fake_answer(&f, &f.held[2], &(float){30});
    fake_answer(&f, &f.held[2], &(float){31}); /* again: to be dropped */
    fake_answer(&f, &f.held[0], &(float){10});
    fake_refuse(&f, &f.held[1], TERSE_RESOURCE_EXHAUSTED, "full");
    terse_reply *reply = NULL;
    assert_int_equal(terse_client_wait(client, a, 20000, &reply), TERSE_OK);
    assert_int_equal(terse_reply_id(reply), a);
    assert_true(*(const float *)terse_reply_data(reply, terse_reply_find(reply, "y"), NULL) == 10);
    uint64_t queue_us, compute_us;
    uint32_t batch;
    terse_reply_timing(reply, &queue_us, &compute_us, &batch);
    assert_true(queue_us == 5 && compute_us == 7 && batch == 2);
    assert_null(terse_reply_name(reply, 1));
    assert_int_equal(terse_reply_find(reply, "z"), -1);
    terse_reply_free(reply);
    reply = next_reply(client);
    assert_int_equal(terse_reply_id(reply), c);
    assert_true(*(const float *)terse_reply_data(reply, 0, NULL) == 30);
    terse_reply_free(reply);
    reply = next_reply(client);
    assert_int_equal(terse_reply_id(reply), b);
    assert_int_equal(terse_reply_status(reply), TERSE_RESOURCE_EXHAUSTED);
    assert_string_equal(terse_reply_error(reply), "full");
    terse_reply_free(reply);
    assert_int_equal(terse_client_wait(client, a, 0, &reply), TERSE_NOT_FOUND);
    assert_int_equal(terse_client_poll(client, 0, &reply), TERSE_OK);
    assert_null(reply);
    assert_int_equal(terse_client_outstanding(client), 0);
    assert_int_equal(terse_client_poll(client, -1, &reply), TERSE_UNAVAILABLE);
    terse_client_close(client);
    fake_done(&f);
}

static void a_lost_daemon_gets_everything_again_under_the_same_ids(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    uint64_t ids[40];
    uint8_t session[TERSE_WIRE_SESSION_BYTES];
    for (int i = 0; i < 40; i++)
        ids[i] = submit(client, (float)i);
    for (int i = 0; i < 20; i++)
        assert_true(fake_take(&f, 20000));
    memcpy(session, f.held[0].session, sizeof session);
    for (int i = 0; i < 10; i++)
        fake_answer(&f, &f.held[i], &(float){(float)i});
    for (int i = 0; i < 10; i++) {
        terse_reply *reply = NULL;
        assert_int_equal(terse_client_wait(client, ids[i], 20000, &reply), TERSE_OK);
        terse_reply_free(reply);
    }
    fake_unbind(&f);
    fake_bind(&f);
    /* The client must be given its turn to notice: nothing of it runs by itself. */
    bool seen[40] = {false};
    for (int n = 10, turns = 0; n < 40; turns++) {
        terse_reply *none = NULL;
        assert_true(turns < 3000); /* of 20 ms at most */
        assert_int_equal(terse_client_poll(client, 10, &none), TERSE_OK);
        assert_null(none);
        while (fake_take(&f, 10)) {
            const held *h = &f.held[f.n_held - 1];
            assert_memory_equal(h->session, session, sizeof session);
            const int i = (int)h->first;
            assert_int_equal(h->id, ids[i]);
            n += !seen[i];
            seen[i] = true;
        }
    }
    for (int i = 0; i < f.n_held; i++)
        fake_answer(&f, &f.held[i], &(float){f.held[i].first});
    for (int i = 10; i < 40; i++) {
        terse_reply *reply = next_reply(client);
        assert_int_equal(terse_reply_status(reply), TERSE_OK);
        terse_reply_free(reply);
    }
    assert_int_equal(terse_client_outstanding(client), 0);
    terse_client_close(client);
    fake_done(&f);
}

static void an_own_deadline_ends_what_the_daemon_never_answers(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    terse_request *request = request_of(1);
    terse_request_set_timeout(request, 20 * 1000);
    assert_int_equal(terse_client_submit(client, request, NULL), TERSE_OK);
    assert_true(fake_take(&f, 20000));
    terse_reply *reply = next_reply(client);
    assert_int_equal(terse_reply_status(reply), TERSE_DEADLINE_EXCEEDED);
    assert_int_equal(terse_reply_n_outputs(reply), 0);
    terse_reply_free(reply);
    fake_answer(&f, &f.held[0], &(float){1}); /* late: to be dropped */
    const uint64_t id = submit(client, 2);
    assert_true(fake_take(&f, 20000));
    fake_answer(&f, &f.held[1], &(float){2});
    assert_int_equal(terse_client_wait(client, id, 20000, &reply), TERSE_OK);
    assert_true(*(const float *)terse_reply_data(reply, 0, NULL) == 2);
    terse_reply_free(reply);
    terse_request_free(request);
    terse_client_close(client);
    fake_done(&f);
}

/* Lets the client work until the fake has one more request. */
static void take_while_polling(fake *f, terse_client *client)
{
    terse_reply *reply = NULL;
    const int n = f->n_held;
    while (f->n_held == n) {
        assert_int_equal(terse_client_poll(client, 5, &reply), TERSE_OK);
        assert_null(reply);
        fake_take(f, 0);
    }
}

/* Without retries, and long before the time that the daemon named. */
static void what_a_daemon_that_ends_refuses_goes_to_the_next(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    const uint64_t id = submit(client, 1);
    assert_true(fake_take(&f, 20000));
    fake_refuse_for(&f, &f.held[0], TERSE_UNAVAILABLE, 3600000);
    terse_reply *reply = NULL;
    assert_int_equal(terse_client_poll(client, 50, &reply), TERSE_OK);
    assert_null(reply);
    fake_unbind(&f);
    fake_bind(&f);
    take_while_polling(&f, client);
    assert_true(f.held[0].id == id);
    fake_answer(&f, &f.held[0], &(float){7});
    reply = next_reply(client);
    assert_int_equal(terse_reply_status(reply), TERSE_OK);
    terse_reply_free(reply);
    terse_client_close(client);
    fake_done(&f);
}

static void a_refused_request_comes_again_when_it_is_told_to(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    f.max_retries = 2;
    terse_client *client = connect_to(&f);
    const uint64_t first = submit(client, 1);
    assert_true(fake_take(&f, 20000));
    const uint64_t refused_ns = terse_now_ns();
    fake_refuse_for(&f, &f.held[0], TERSE_RESOURCE_EXHAUSTED, 50);
    take_while_polling(&f, client);
    assert_true(terse_now_ns() - refused_ns >= 50000000);
    assert_true(f.held[1].id == first && f.held[1].first == 1);
    fake_refuse_for(&f, &f.held[1], TERSE_UNAVAILABLE, 1);
    take_while_polling(&f, client);
    fake_answer(&f, &f.held[2], &(float){7});
    terse_reply *reply = next_reply(client);
    assert_int_equal(terse_reply_status(reply), TERSE_OK);
    assert_int_equal(terse_reply_id(reply), first);
    assert_int_equal(terse_reply_retry_after_ms(reply), -1);
    terse_reply_free(reply);
    /* No more often than allowed; and only for what passes. */
    submit(client, 2);
    assert_true(fake_take(&f, 20000));
    fake_refuse_for(&f, &f.held[3], TERSE_RESOURCE_EXHAUSTED, 1);
    take_while_polling(&f, client);
    fake_refuse_for(&f, &f.held[4], TERSE_RESOURCE_EXHAUSTED, 1);
    take_while_polling(&f, client);
    fake_refuse_for(&f, &f.held[5], TERSE_RESOURCE_EXHAUSTED, 3);
    reply = next_reply(client);
    assert_int_equal(terse_reply_status(reply), TERSE_RESOURCE_EXHAUSTED);
    assert_int_equal(terse_reply_retry_after_ms(reply), 3);
    terse_reply_free(reply);
    static const terse_status lasting[] = {TERSE_INVALID_ARGUMENT, TERSE_DEADLINE_EXCEEDED, TERSE_INTERNAL};
    for (int i = 0; i < 3; i++) {
        submit(client, 3);
        assert_true(fake_take(&f, 20000));
        fake_refuse_for(&f, &f.held[6 + i], lasting[i], 1);
        reply = next_reply(client);
        assert_int_equal(terse_reply_status(reply), lasting[i]);
        terse_reply_free(reply);
    }
    assert_false(fake_take(&f, 20));
    terse_client_close(client);
    fake_done(&f);
}

static void no_retry_passes_the_timeout_or_the_budget(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    f.max_retries = 1000;
    f.retry_budget_ms = 10000;
    terse_client *client = connect_to(&f);
    terse_request *request = request_of(1);
    terse_request_set_timeout(request, 5000000);
    assert_int_equal(terse_client_submit(client, request, NULL), TERSE_OK);
    assert_true(fake_take(&f, 20000));
    fake_refuse_for(&f, &f.held[0], TERSE_RESOURCE_EXHAUSTED, 5000); /* behind the timeout */
    terse_reply *reply = next_reply(client);
    assert_int_equal(terse_reply_status(reply), TERSE_RESOURCE_EXHAUSTED);
    terse_reply_free(reply);
    static const uint64_t beyond[] = {10000, UINT64_MAX - 1, UINT64_MAX / 1000000 + 1};
    for (int i = 0; i < 3; i++) { /* behind the budget, or no time at all */
        submit(client, 2);
        assert_true(fake_take(&f, 20000));
        fake_refuse_for(&f, &f.held[1 + i], TERSE_RESOURCE_EXHAUSTED, beyond[i]);
        reply = next_reply(client);
        assert_int_equal(terse_reply_status(reply), TERSE_RESOURCE_EXHAUSTED);
        terse_reply_free(reply);
    }
    assert_false(fake_take(&f, 20));
    /* One that waits for its retry can still be over in the meantime: its connection was lost and nobody is there. */
    terse_request_set_timeout(request, 60000);
    assert_int_equal(terse_client_submit(client, request, NULL), TERSE_OK);
    assert_true(fake_take(&f, 20000));
    fake_refuse_for(&f, &f.held[4], TERSE_RESOURCE_EXHAUSTED, 20);
    fake_unbind(&f);
    reply = next_reply(client);
    assert_int_equal(terse_reply_status(reply), TERSE_DEADLINE_EXCEEDED);
    terse_reply_free(reply);
    terse_request_free(request);
    terse_client_close(client);
    zmq_ctx_term(f.context);
}

/* What a daemon that falls behind has not taken yet waits with the client, and its time ends there. */
static void a_daemon_that_falls_behind_is_not_flooded(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    terse_request *request = terse_request_new("m");
    const int64_t n = 10 << 20; /* 40 MB each: two do not travel together */
    float *data = calloc((size_t)n, sizeof *data);
    assert_int_equal(terse_request_add_input(request, "x", TERSE_FP32, 1, &n, data), TERSE_OK);
    terse_request_set_timeout(request, 30 * 1000 * 1000);
    uint64_t ids[3];
    for (int i = 0; i < 3; i++) {
        if (i == 1)
            terse_request_set_timeout(request, 20 * 1000);
        if (i == 2)
            terse_request_set_timeout(request, 30 * 1000 * 1000);
        assert_int_equal(terse_client_submit(client, request, &ids[i]), TERSE_OK);
    }
    assert_true(fake_take(&f, 20000));
    assert_int_equal(f.held[0].id, ids[0]);
    terse_reply *reply = next_reply(client);
    assert_int_equal(terse_reply_id(reply), ids[1]);
    assert_int_equal(terse_reply_status(reply), TERSE_DEADLINE_EXCEEDED);
    terse_reply_free(reply);
    assert_int_equal(f.n_held, 1);
    fake_answer(&f, &f.held[0], &(float){1});
    reply = next_reply(client);
    assert_int_equal(terse_reply_id(reply), ids[0]);
    terse_reply_free(reply);
    take_while_polling(&f, client);
    assert_int_equal(f.held[1].id, ids[2]);
    free(data);
    terse_request_free(request);
    terse_client_close(client);
    fake_done(&f);
}

static void a_cancel_names_its_target_and_passes_the_limit(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    uint64_t id = 0;
    for (int i = 0; i < 100; i++)
        id = submit(client, (float)i);
    terse_request *request = request_of(1);
    assert_int_equal(terse_client_submit(client, request, NULL), TERSE_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(terse_last_error(), "100"));
    assert_int_equal(terse_client_cancel(client, id), TERSE_OK);
    assert_int_equal(terse_client_cancel(client, id + 1000), TERSE_NOT_FOUND);
    while (f.n_held < 101)
        assert_true(fake_take(&f, 20000));
    assert_int_equal(f.held[100].op, TERSE_WIRE_CANCEL);
    assert_int_equal(f.held[100].target, id);
    fake_answer(&f, &f.held[100], NULL);
    fake_refuse(&f, &f.held[99], TERSE_CANCELLED, "cancelled by the client");
    terse_reply *reply = next_reply(client);
    assert_int_equal(terse_reply_id(reply), id);
    assert_int_equal(terse_reply_status(reply), TERSE_CANCELLED);
    terse_reply_free(reply);
    terse_request_free(request);
    terse_client_close(client); /* with 99 unanswered */
    fake_done(&f);
}

static bool is_readable(int fd, int ms)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    return poll(&watched, 1, ms) == 1;
}

static void the_descriptor_tells_of_every_reply_and_deadline(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    const int fd = terse_client_fd(client);
    terse_reply *reply = NULL;
    assert_true(fd >= 0);
    assert_int_equal(terse_client_fd(client), fd);
    for (int round = 0; round < 200; round++) {
        const int burst = 1 + round % 3;
        for (int i = 0; i < burst; i++)
            submit(client, (float)i);
        while (f.n_held < burst)
            assert_true(fake_take(&f, 20000));
        for (int i = 0; i < burst; i++)
            fake_answer(&f, &f.held[i], &(float){1});
        fake_forget(&f);
        for (int got = 0; got < burst;) {
            assert_true(is_readable(fd, 20000));
            assert_int_equal(terse_client_poll(client, 0, &reply), TERSE_OK);
            got += reply != NULL;
            terse_reply_free(reply);
        }
    }
    terse_request *request = request_of(1);
    terse_request_set_timeout(request, 1000);
    assert_int_equal(terse_client_submit(client, request, NULL), TERSE_OK);
    for (reply = NULL; !reply;) { /* nobody answers: the timer makes it readable */
        assert_true(is_readable(fd, 20000));
        assert_int_equal(terse_client_poll(client, 0, &reply), TERSE_OK);
    }
    assert_int_equal(terse_reply_status(reply), TERSE_DEADLINE_EXCEEDED);
    terse_reply_free(reply);
    terse_request_free(request);
    terse_client_close(client);
    fake_done(&f);
}

static void a_reply_that_lies_is_an_internal_error(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    submit(client, 1);
    assert_true(fake_take(&f, 20000));
    fake_send(&f, &f.held[0], "\x81", 1, NULL);                        /* no id: for nobody */
    fake_send(&f, &f.held[0], "\xdf\xff\xff\xff\xff", 5, &(float){1}); /* a map of 4 billion keys */
    static terse_wire_reply reply;
    uint8_t buffer[4096];
    size_t size;
    terse_wire_reply_init(&reply); /* an output of 7 elements in a frame of one */
    reply.has_id = reply.has_outputs = true;
    reply.id = f.held[0].id;
    reply.n_outputs = 1;
    terse_wire_tensor_init(&reply.outputs[0]);
    reply.outputs[0].name = terse_wire_text_of("y");
    reply.outputs[0].dtype = TERSE_FP32;
    reply.outputs[0].rank = 1;
    reply.outputs[0].dims[0] = 7;
    reply.outputs[0].frame = 1;
    assert_int_equal(terse_wire_encode_reply(&reply, buffer, sizeof buffer, &size, NULL), TERSE_OK);
    fake_send(&f, &f.held[0], buffer, size, &(float){1});
    terse_reply *got = next_reply(client);
    assert_int_equal(terse_reply_status(got), TERSE_INTERNAL);
    terse_reply_free(got);
    terse_client_close(client);
    fake_done(&f);
}

static void bad_arguments_are_refused_before_they_travel(void **state)
{
    (void)state;
    assert_null(terse_request_new(""));
    assert_null(terse_request_new(NULL));
    terse_request *request = terse_request_new("m");
    float value = 1;
    const int64_t negative = -1, huge[] = {INT64_MAX, INT64_MAX};
    assert_int_equal(terse_request_add_input(request, "x", TERSE_FP32, 9, huge, &value), TERSE_INVALID_ARGUMENT);
    assert_int_equal(terse_request_add_input(request, "x", TERSE_FP32, 1, &negative, &value), TERSE_INVALID_ARGUMENT);
    assert_int_equal(terse_request_add_input(request, "x", TERSE_FP32, 2, huge, &value), TERSE_INVALID_ARGUMENT);
    assert_int_equal(terse_request_add_input(request, "x", (terse_dtype)77, 0, NULL, &value), TERSE_INVALID_ARGUMENT);
    assert_int_equal(terse_request_add_input(request, "", TERSE_FP32, 0, NULL, &value), TERSE_INVALID_ARGUMENT);
    assert_int_equal(terse_request_add_input(request, "x", TERSE_FP32, 0, NULL, NULL), TERSE_INVALID_ARGUMENT);
    for (int i = 0; i < TERSE_WIRE_MAX_IO; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        assert_int_equal(terse_request_add_input(request, name, TERSE_FP32, 0, NULL, &value), TERSE_OK);
    }
    assert_int_equal(terse_request_add_input(request, "x0", TERSE_FP32, 0, NULL, &value), TERSE_OK); /* replaced */
    assert_int_equal(terse_request_add_input(request, "y", TERSE_FP32, 0, NULL, &value), TERSE_INVALID_ARGUMENT);
    terse_request_free(request);
    terse_request_free(NULL);
    terse_reply_free(NULL);
    terse_client_close(NULL);
}

static void nobody_there_is_told_in_time(void **state)
{
    (void)state;
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    terse_client *client = NULL;
    options.connect_timeout_ms = 50;
    options.endpoint = "ipc:///tmp/terse-test-nobody.sock";
    assert_int_equal(terse_client_open(&options, &client), TERSE_UNAVAILABLE);
    assert_non_null(strstr(terse_last_error(), "/tmp/terse-test-nobody.sock"));
    options.endpoint = "carrier-pigeon://x";
    assert_int_equal(terse_client_open(&options, &client), TERSE_INVALID_ARGUMENT);
    options.size = 1;
    assert_int_equal(terse_client_open(&options, &client), TERSE_INVALID_ARGUMENT);
    assert_null(client);
}

/* --- several daemons ------------------------------------------------------------------------------------------ */

enum { RESEND_MS = 200 };

typedef struct pair {
    fake a, b;
    terse_client *client;
    char endpoints[300];
} pair;

static void *open_pair(void *user)
{
    const pair *p = user;
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    terse_client *client = NULL;
    options.endpoint = p->endpoints;
    options.resend_ms = RESEND_MS;
    return terse_client_open(&options, &client) == TERSE_OK ? client : NULL;
}

static void no_reply(const pair *p, int ms)
{
    terse_reply *none = NULL;
    assert_int_equal(terse_client_poll(p->client, ms, &none), TERSE_OK);
    assert_null(none);
}

/* Until the fakes hold so many messages; the client's turns come between. */
static void pump(pair *p, int in_a, int in_b)
{
    for (int turns = 0; p->a.n_held < in_a || p->b.n_held < in_b; turns++) {
        assert_true(turns < 10000);
        no_reply(p, 1);
        fake_take(&p->a, 0);
        fake_take(&p->b, 0);
    }
    assert_true(p->a.n_held == in_a && p->b.n_held == in_b);
}

static void answered(const pair *p, uint64_t id, float value)
{
    terse_reply *reply = next_reply(p->client);
    assert_int_equal(terse_reply_id(reply), id);
    assert_int_equal(terse_reply_status(reply), TERSE_OK);
    assert_true(*(const float *)terse_reply_data(reply, 0, NULL) == value);
    terse_reply_free(reply);
}

/* Both are connected: each has had a request, and answered it. */
static void pair_init(pair *p)
{
    pthread_t thread;
    void *client = NULL;
    fake_init_at(&p->a, "-a");
    fake_init_at(&p->b, "-b");
    snprintf(p->endpoints, sizeof p->endpoints, "%s,%s", p->a.endpoint, p->b.endpoint);
    assert_int_equal(pthread_create(&thread, NULL, open_pair, p), 0);
    while (pthread_tryjoin_np(thread, &client) != 0)
        if (!fake_take(&p->a, 5))
            fake_take(&p->b, 5);
    assert_non_null(client);
    p->client = client;
    for (int turns = 0; p->a.n_held == 0 || p->b.n_held == 0; turns++) {
        assert_true(turns < 200);
        submit(p->client, 0);
        no_reply(p, 5);
        while (fake_take(&p->a, 5) || fake_take(&p->b, 5))
            ;
    }
    for (int i = 0; i < p->a.n_held; i++)
        fake_answer(&p->a, &p->a.held[i], &(float){0});
    for (int i = 0; i < p->b.n_held; i++)
        fake_answer(&p->b, &p->b.held[i], &(float){0});
    while (terse_client_outstanding(p->client) > 0)
        terse_reply_free(next_reply(p->client));
    fake_forget(&p->a);
    fake_forget(&p->b);
}

static void pair_done(pair *p)
{
    terse_client_close(p->client);
    fake_done(&p->a);
    fake_done(&p->b);
}

static void a_silent_daemon_is_given_up_and_its_late_word_changes_nothing(void **state)
{
    static pair p;
    (void)state;
    pair_init(&p);
    submit(p.client, 1);
    submit(p.client, 2);
    pump(&p, 1, 1); /* each has one */
    const uint64_t mine = p.a.held[0].id, other = p.b.held[0].id;
    fake_answer(&p.b, &p.b.held[0], &(float){20});
    answered(&p, other, 20);
    for (int turns = 0; p.b.n_held < 2; turns++) { /* nobody takes from a's socket: it does not say that it lives */
        assert_true(turns < 10000);
        no_reply(&p, 1);
        fake_take(&p.b, 0);
    }
    assert_true(p.b.held[1].id == mine);
    assert_memory_equal(p.b.held[1].session, p.a.held[0].session, sizeof p.a.held[0].session);
    fake_refuse(&p.a, &p.a.held[0], TERSE_INTERNAL, "late");
    no_reply(&p, 50);
    fake_answer(&p.b, &p.b.held[1], &(float){10});
    answered(&p, mine, 10);
    fake_answer(&p.a, &p.a.held[0], &(float){11});
    no_reply(&p, 50);
    assert_int_equal(terse_client_outstanding(p.client), 0);
    pair_done(&p);
}

static void the_first_of_two_answers_counts(void **state)
{
    static pair p;
    (void)state;
    pair_init(&p);
    submit(p.client, 1);
    submit(p.client, 2);
    pump(&p, 1, 1);
    const uint64_t mine = p.a.held[0].id, other = p.b.held[0].id;
    fake_answer(&p.b, &p.b.held[0], &(float){20});
    answered(&p, other, 20);
    for (int turns = 0; p.b.n_held < 2; turns++) {
        assert_true(turns < 10000);
        no_reply(&p, 1);
        fake_take(&p.b, 0);
    }
    fake_answer(&p.a, &p.a.held[0], &(float){11});
    answered(&p, mine, 11);
    fake_answer(&p.b, &p.b.held[1], &(float){10});
    no_reply(&p, 50);
    pair_done(&p);
}

static void what_says_that_it_lives_keeps_what_it_has(void **state)
{
    static pair p;
    (void)state;
    pair_init(&p);
    submit(p.client, 1);
    submit(p.client, 2);
    pump(&p, 1, 1);
    const uint64_t until_ns = terse_now_ns() + 3 * RESEND_MS * UINT64_C(1000000);
    while (terse_now_ns() < until_ns) { /* "live" is answered, the requests are not */
        no_reply(&p, 1);
        fake_take(&p.a, 0);
        fake_take(&p.b, 0);
    }
    assert_true(p.a.n_held == 1 && p.b.n_held == 1);
    pair_done(&p);
}

static void a_full_daemons_refusal_is_the_answer_when_all_refuse(void **state)
{
    static pair p;
    (void)state;
    pair_init(&p);
    const uint64_t id = submit(p.client, 1);
    while (!fake_take(&p.a, 1) && !fake_take(&p.b, 1))
        no_reply(&p, 1);
    fake *first = p.a.n_held ? &p.a : &p.b, *second = first == &p.a ? &p.b : &p.a;
    fake_refuse_for(first, &first->held[0], TERSE_RESOURCE_EXHAUSTED, 1000);
    for (int turns = 0; !fake_take(second, 1); turns++) {
        assert_true(turns < 10000);
        no_reply(&p, 1);
    }
    assert_true(second->held[0].id == id);
    fake_refuse_for(second, &second->held[0], TERSE_RESOURCE_EXHAUSTED, 1000);
    terse_reply *reply = next_reply(p.client);
    assert_int_equal(terse_reply_status(reply), TERSE_RESOURCE_EXHAUSTED);
    assert_int_equal(terse_reply_retry_after_ms(reply), 1000);
    terse_reply_free(reply);
    pair_done(&p);
}

static void a_cancel_goes_where_its_target_is(void **state)
{
    static pair p;
    (void)state;
    pair_init(&p);
    submit(p.client, 1);
    submit(p.client, 2);
    pump(&p, 1, 1);
    assert_int_equal(terse_client_cancel(p.client, p.b.held[0].id), TERSE_OK);
    pump(&p, 1, 2);
    assert_int_equal(p.b.held[1].op, TERSE_WIRE_CANCEL);
    assert_true(p.b.held[1].target == p.b.held[0].id);
    assert_int_equal(terse_client_cancel(p.client, p.a.held[0].id), TERSE_OK);
    pump(&p, 2, 2);
    assert_int_equal(p.a.held[1].op, TERSE_WIRE_CANCEL);
    pair_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_in_any_order_and_once),
        cmocka_unit_test(a_lost_daemon_gets_everything_again_under_the_same_ids),
        cmocka_unit_test(an_own_deadline_ends_what_the_daemon_never_answers),
        cmocka_unit_test(what_a_daemon_that_ends_refuses_goes_to_the_next),
        cmocka_unit_test(a_refused_request_comes_again_when_it_is_told_to),
        cmocka_unit_test(no_retry_passes_the_timeout_or_the_budget),
        cmocka_unit_test(a_daemon_that_falls_behind_is_not_flooded),
        cmocka_unit_test(a_cancel_names_its_target_and_passes_the_limit),
        cmocka_unit_test(the_descriptor_tells_of_every_reply_and_deadline),
        cmocka_unit_test(a_reply_that_lies_is_an_internal_error),
        cmocka_unit_test(bad_arguments_are_refused_before_they_travel),
        cmocka_unit_test(nobody_there_is_told_in_time),
        cmocka_unit_test(a_silent_daemon_is_given_up_and_its_late_word_changes_nothing),
        cmocka_unit_test(the_first_of_two_answers_counts),
        cmocka_unit_test(what_says_that_it_lives_keeps_what_it_has),
        cmocka_unit_test(a_full_daemons_refusal_is_the_answer_when_all_refuse),
        cmocka_unit_test(a_cancel_goes_where_its_target_is),
    };
    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
