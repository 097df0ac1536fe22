/* SPDX-License-Identifier: Apache-2.0 */
/* What libterse spares a flooded daemon: the rule by a made-up clock, and a client beside a daemon that refuses. */
#include "client/throttle.h"

#include "tests/unit/client_fake.h"

enum { SPARE = 10000 };
static const uint64_t second = 1000000000;

/* --- the rule --------------------------------------------------------------------------------------------------- */

typedef struct load {
    uint64_t now, sent, here, taken;
    double credit; /* what the daemon can take now */
} load;

/* `offered` requests a second for so long, at a daemon that takes `capacity` a second and answers at once. */
static void offer(terse_throttle *t, load *l, double offered, double capacity, double seconds)
{
    const uint64_t step = (uint64_t)(1e9 / offered), end = l->now + (uint64_t)(seconds * 1e9);
    *l = (load){.now = l->now, .credit = 1};
    for (; l->now < end; l->now += step) {
        l->credit += capacity * (double)step / 1e9;
        l->credit = l->credit < 10 ? l->credit : 10;
        if (t->active && terse_throttle_refuses(t, l->now, SPARE)) {
            l->here++;
            continue;
        }
        l->sent++;
        if (l->credit >= 1) {
            l->credit -= 1;
            l->taken++;
            terse_throttle_taken(t);
        } else {
            terse_throttle_refused(t, l->now, SPARE, TERSE_RESOURCE_EXHAUSTED, 7);
        }
    }
}

static void a_flood_is_sent_at_a_quarter_more_than_is_taken(void **state)
{
    terse_throttle t = {.key = 1};
    load l = {.now = 5 * second};
    (void)state;
    offer(&t, &l, 1e6, 100e3, 0.3);
    assert_true(t.active);
    offer(&t, &l, 1e6, 100e3, 1);
    assert_in_range(l.taken, 97000, 101000); /* all that it can */
    assert_in_range(l.sent, 115000, 135000);
    assert_int_equal(l.here, 1000000 - l.sent);
    assert_int_equal(t.status, TERSE_RESOURCE_EXHAUSTED);
    assert_int_equal(t.retry_after_ms, 7);
    assert_non_null(strstr(t.text, "refused by libterse"));
}

static void a_daemon_that_can_do_more_is_soon_sent_more(void **state)
{
    terse_throttle t = {.key = 1};
    load l = {.now = 5 * second};
    (void)state;
    offer(&t, &l, 1e6, 20e3, 0.5);
    assert_true(t.active);
    offer(&t, &l, 1e6, 200e3, 1.2); /* ten times as much */
    offer(&t, &l, 1e6, 200e3, 0.5);
    assert_true(l.taken > 95000);
    offer(&t, &l, 1e6, 100, 2); /* next to nothing: still asked, a thousand times a second */
    offer(&t, &l, 1e6, 100, 1);
    assert_in_range(l.sent, 900, 1100);
}

/* Others came: of what fits its limit much is refused there. */
static void a_daemon_that_takes_less_is_sent_less(void **state)
{
    terse_throttle t = {.key = 1};
    load l = {.now = 5 * second};
    (void)state;
    offer(&t, &l, 1e6, 100e3, 0.3);
    offer(&t, &l, 110e3, 20e3, 0.5);
    offer(&t, &l, 110e3, 20e3, 1);
    assert_in_range(l.sent, 22000, 30000);
}

static void it_ends_when_the_flood_does(void **state)
{
    terse_throttle t = {.key = 1};
    load l = {.now = 5 * second};
    (void)state;
    offer(&t, &l, 1e6, 100e3, 0.5);
    assert_true(t.active);
    offer(&t, &l, 50e3, 100e3, 0.11);
    assert_false(t.active);
    offer(&t, &l, 50e3, 100e3, 1);
    assert_int_equal(l.here, 0);
    offer(&t, &l, 1e6, 100e3, 0.5);
    assert_true(t.active);
    l.now += 10 * second; /* nothing is known of it any more */
    assert_false(terse_throttle_refuses(&t, l.now, SPARE));
    assert_false(t.active);
}

static void few_refusals_are_the_daemons(void **state)
{
    terse_throttle t = {.key = 1};
    load l = {.now = 5 * second};
    (void)state;
    offer(&t, &l, 10e3, 1e3, 3);
    assert_int_equal(l.here, 0);
    offer(&t, &l, 108e3, 100e3, 3); /* slightly too much */
    assert_int_equal(l.here, 0);
}

static void what_daemons_decide_by_is_told_apart(void **state)
{
    terse_throttle list[TERSE_THROTTLES] = {0};
    (void)state;
    const uint64_t key = terse_throttle_key("m", NULL, 0, 100000);
    assert_int_equal(key, terse_throttle_key("m", NULL, 0, 100001));
    assert_int_not_equal(key, terse_throttle_key("n", NULL, 0, 100000));
    assert_int_not_equal(key, terse_throttle_key("m", "1", 0, 100000));
    assert_int_not_equal(key, terse_throttle_key("m", NULL, 1, 100000));
    assert_int_not_equal(key, terse_throttle_key("m", NULL, 0, 1000));
    assert_int_not_equal(key, terse_throttle_key("m", NULL, 0, 0));
    assert_null(terse_throttle_find(list, key));
    terse_throttle *t = terse_throttle_of(list, key);
    t->active = true;
    assert_ptr_equal(terse_throttle_find(list, key), t);
    assert_ptr_equal(terse_throttle_of(list, key), t);
    assert_true(t->active);
    for (uint64_t other = 1; other < 1000; other++) /* many others want its place: one that is of use stays */
        assert_non_null(terse_throttle_of(list, other));
    assert_ptr_equal(terse_throttle_find(list, key), t);
    assert_true(t->active);
    t->active = false;
    for (uint64_t other = 1; other < 1000; other++)
        terse_throttle_of(list, other)->active = true;
    assert_null(terse_throttle_find(list, key));
    terse_throttle_of(list, key)->active = true;
    terse_throttle_forget(list);
    assert_null(terse_throttle_find(list, key));
}

/* --- a client ----------------------------------------------------------------------------------------------------- */

/* Refuses all that comes until the client refuses by itself. */
static void flood(fake *f, terse_client *client)
{
    while (terse_client_throttled(client) == 0) {
        terse_reply *reply = NULL;
        if (terse_client_outstanding(client) < 90)
            submit(client, 1);
        while (fake_take(f, 0))
            fake_refuse_for(f, &f->held[f->n_held - 1], TERSE_RESOURCE_EXHAUSTED, 7), fake_forget(f);
        assert_int_equal(terse_client_poll(client, 0, &reply), TERSE_OK);
        terse_reply_free(reply);
    }
}

static void refuse_all(fake *f, terse_client *client)
{
    while (terse_client_outstanding(client) > 0) {
        terse_reply *reply = NULL;
        while (fake_take(f, 0))
            fake_refuse_for(f, &f->held[f->n_held - 1], TERSE_RESOURCE_EXHAUSTED, 7), fake_forget(f);
        assert_int_equal(terse_client_poll(client, 1, &reply), TERSE_OK);
        terse_reply_free(reply);
    }
}

static void a_client_that_is_refused_too_often_refuses_itself(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    f.max_refusals_per_s = 1;
    terse_client *client = connect_to(&f);
    flood(&f, client);
    refuse_all(&f, client);

    /* Those that are spared end as the daemon's do. */
    terse_reply *reply = NULL;
    for (uint64_t before = terse_client_throttled(client); terse_client_throttled(client) == before;) {
        terse_reply_free(reply);
        const uint64_t id = submit(client, 1);
        while (fake_take(&f, 0))
            fake_refuse_for(&f, &f.held[f.n_held - 1], TERSE_RESOURCE_EXHAUSTED, 7), fake_forget(&f);
        reply = next_reply(client);
        assert_int_equal(terse_reply_id(reply), id);
        assert_int_equal(terse_reply_status(reply), TERSE_RESOURCE_EXHAUSTED);
        assert_int_equal(terse_reply_retry_after_ms(reply), 7);
    }
    assert_non_null(strstr(terse_reply_error(reply), "refused by libterse"));
    terse_reply_free(reply);

    /* What is more urgent is another matter. */
    const uint64_t before = terse_client_throttled(client);
    terse_request *urgent = request_of(2);
    terse_request_set_priority(urgent, 5);
    for (int i = 0; i < 50; i++)
        assert_int_equal(terse_client_submit(client, urgent, NULL), TERSE_OK);
    while (f.n_held < 50)
        assert_true(fake_take(&f, 20000));
    assert_int_equal(terse_client_throttled(client), before);

    /* Who is refused here all the time hears of the daemon's answers all the same. */
    fake_answer(&f, &f.held[0], &(float){2});
    bool heard = false;
    while (!heard) {
        submit(client, 1);
        assert_int_equal(terse_client_poll(client, 0, &reply), TERSE_OK);
        heard = reply && terse_reply_status(reply) == TERSE_OK;
        terse_reply_free(reply);
        while (terse_client_outstanding(client) > 90) { /* those that the bucket lets through */
            assert_int_equal(terse_client_poll(client, 0, &reply), TERSE_OK);
            terse_reply_free(reply);
            while (fake_take(&f, 0))
                fake_refuse_for(&f, &f.held[f.n_held - 1], TERSE_RESOURCE_EXHAUSTED, 7);
            if (f.n_held > MAX_HELD / 2)
                fake_forget(&f);
        }
    }
    terse_request_free(urgent);
    terse_client_close(client);
    fake_done(&f);
}

static void one_that_may_come_again_does(void **state)
{
    fake f;
    (void)state;
    fake_init(&f);
    f.max_refusals_per_s = 1;
    f.max_retries = 1000;
    terse_client *client = connect_to(&f);
    while (terse_client_throttled(client) == 0) {
        if (terse_client_outstanding(client) < 90)
            submit(client, 1);
        terse_reply *none = NULL;
        while (fake_take(&f, 0))
            fake_refuse_for(&f, &f.held[f.n_held - 1], TERSE_RESOURCE_EXHAUSTED, 1), fake_forget(&f);
        assert_int_equal(terse_client_poll(client, 0, &none), TERSE_OK);
        assert_null(none); /* nobody is told no */
    }
    while (terse_client_outstanding(client) > 0) {
        terse_reply *reply = NULL;
        while (fake_take(&f, 0))
            fake_answer(&f, &f.held[f.n_held - 1], &(float){1}), fake_forget(&f);
        assert_int_equal(terse_client_poll(client, 1, &reply), TERSE_OK);
        if (reply)
            assert_int_equal(terse_reply_status(reply), TERSE_OK);
        terse_reply_free(reply);
    }
    terse_client_close(client);
    fake_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_is_sent_at_a_quarter_more_than_is_taken),
        cmocka_unit_test(a_daemon_that_can_do_more_is_soon_sent_more),
        cmocka_unit_test(a_daemon_that_takes_less_is_sent_less),
        cmocka_unit_test(it_ends_when_the_flood_does),
        cmocka_unit_test(few_refusals_are_the_daemons),
        cmocka_unit_test(what_daemons_decide_by_is_told_apart),
        cmocka_unit_test(a_client_that_is_refused_too_often_refuses_itself),
        cmocka_unit_test(one_that_may_come_again_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
