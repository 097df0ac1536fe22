/* SPDX-License-Identifier: Apache-2.0 */
/* test_overload.c: who is turned away, by CoDel and by prediction, and what they are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/frontend/overload.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

/* --- CoDel ------------------------------------------------------------------------------------------------------ */

static void a_burst_that_drains_in_an_interval_is_spared(void **state)
{
    (void)state;
    terse_codel codel = {0};
    for (uint64_t t = 0; t < 99; t++)
        assert_false(terse_codel_drop(&codel, 50 * MS, SECOND + t * MS, 20 * MS, false));
    assert_false(terse_codel_drop(&codel, 19 * MS, SECOND + 100 * MS, 20 * MS, false)); /* below the target once */
    for (uint64_t t = 101; t < 200; t++)
        assert_false(terse_codel_drop(&codel, 50 * MS, SECOND + t * MS, 20 * MS, false));
}

static void a_queue_that_stands_is_cut_ever_faster(void **state)
{
    (void)state;
    terse_codel codel = {0};
    uint64_t dropped[50], n = 0;
    for (uint64_t t = 0; n < 50; t++)
        if (terse_codel_drop(&codel, 50 * MS, SECOND + t * MS / 10, 20 * MS, false))
            dropped[n++] = t * 100 * US;
    assert_int_equal(dropped[0], 100 * MS);
    /* RFC 8289: the next comes interval / sqrt(count) after the last. */
    for (uint64_t i = 1; i < 50; i++) {
        const uint64_t gap = dropped[i] - dropped[i - 1];
        assert_true(i == 1 || gap <= dropped[i - 1] - dropped[i - 2] + MS / 10);
    }
    assert_in_range(dropped[1] - dropped[0], 99 * MS, 101 * MS);
    assert_in_range(dropped[4] - dropped[3], 49 * MS, 51 * MS);
    assert_in_range(dropped[49] - dropped[48], 14 * MS, 15 * MS);
}

static void it_stops_at_once_and_goes_on_where_it_was(void **state)
{
    (void)state;
    terse_codel codel = {0};
    uint64_t now = SECOND;
    for (int n = 0; n < 20; now += MS)
        n += terse_codel_drop(&codel, 50 * MS, now, 20 * MS, false);
    assert_false(terse_codel_drop(&codel, MS, now, 20 * MS, false));
    for (uint64_t until = now + 99 * MS; now < until; now += MS)
        assert_false(terse_codel_drop(&codel, 50 * MS, now, 20 * MS, false));
    uint64_t first = 0, second = 0;
    for (; !second; now += MS)
        if (terse_codel_drop(&codel, 50 * MS, now, 20 * MS, false))
            *(first ? &second : &first) = now;
    assert_in_range(second - first, 20 * MS, 30 * MS); /* not 100 again */
    /* Nothing is cut where hardly anything waits, however long it does. */
    terse_codel small = {0};
    for (uint64_t t = 0; t < 500; t++)
        assert_false(terse_codel_drop(&small, SECOND, SECOND + t * MS, 20 * MS, true));
}

/* --- prediction --------------------------------------------------------------------------------------------------- */

static void a_wait_is_work_over_workers(void **state)
{
    (void)state;
    terse_predict_input input = {.ahead_ns = 60 * MS, .others_ns = 20 * MS, .running_ns = 10 * MS, .workers = 3};
    assert_int_equal(terse_predict_wait(&input), 30 * MS);
    input.workers = 0;
    assert_int_equal(terse_predict_wait(&input), 0);
}

static void errors_correct_what_is_predicted(void **state)
{
    (void)state;
    terse_predict predict = {0};
    uint64_t now = SECOND;
    assert_int_equal(terse_predict_correct(&predict, 10 * MS, now), 10 * MS);
    for (int i = 0; i < 1000; i++, now += MS)
        terse_predict_learn(&predict, 20 * MS, 30 * MS, now);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now), 14 * MS, 16 * MS);
    for (int i = 0; i < 2000; i++, now += MS)
        terse_predict_learn(&predict, 20 * MS, 18 * MS, now);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now), 8500 * US, 9500 * US);
    /* Waits of an idle pool, all wake-up and no queue, say nothing. */
    predict = (terse_predict){0};
    for (int i = 0; i < 1000; i++, now += MS)
        terse_predict_learn(&predict, 0, 40 * US, now);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now), 10 * MS, 12500 * US);
    /* Bounded, so that nobody is shut out for good. */
    for (int i = 0; i < 1000; i++, now += MS)
        terse_predict_learn(&predict, MS, 100 * SECOND, now);
    assert_in_range(terse_predict_correct(&predict, MS, now), 7800 * US, 8 * MS);
    for (int i = 0; i < 10000; i++, now += MS)
        terse_predict_learn(&predict, SECOND, 0, now);
    assert_in_range(terse_predict_correct(&predict, MS, now), MS / 2, 510 * US);
}

/* Who is refused because of a correction cannot prove it wrong: time does. */
static void a_correction_that_nothing_renews_fades(void **state)
{
    (void)state;
    terse_predict predict = {0};
    uint64_t now = SECOND;
    for (int i = 0; i < 1000; i++, now += MS)
        terse_predict_learn(&predict, MS, 100 * SECOND, now);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now), 78 * MS, 80 * MS);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now + 100 * MS), 78 * MS, 80 * MS);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now + 700 * MS), 26 * MS, 31 * MS);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now + 5 * SECOND), 10 * MS, 10100 * US);
    terse_predict_learn(&predict, MS, 100 * SECOND, now + 5 * SECOND);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now + 5 * SECOND), 78 * MS, 80 * MS);
    /* One alone, who happened to wait for long, says little. */
    predict = (terse_predict){0};
    terse_predict_learn(&predict, 10 * MS, 100 * SECOND, now);
    assert_in_range(terse_predict_correct(&predict, 10 * MS, now), 20 * MS, 30 * MS);
}

static void each_length_of_time_has_a_class(void **state)
{
    (void)state;
    assert_int_equal(terse_predict_class(0), 0);
    assert_int_equal(terse_predict_class(2 * MS - 1), 0);
    assert_int_equal(terse_predict_class(2 * MS), 1);
    assert_int_equal(terse_predict_class(100 * MS), 6);
    assert_int_equal(terse_predict_class(33 * SECOND), TERSE_PREDICT_TIMES - 1);
    assert_int_equal(terse_predict_class(UINT64_MAX), TERSE_PREDICT_TIMES - 1);
}

/* --- who is let in ------------------------------------------------------------------------------------------------ */

/* One model of 1 ms a row, two workers that run, and a queue. */
typedef struct room {
    terse_frontend *fe;
    terse_served *model;
    terse_lane lane;
    terse_client client, other, many[50];
    terse_request waiting[200];
} room;

static room *begin(void)
{
    room *r = calloc(1, sizeof *r);
    assert_non_null(r);
    terse_frontend *fe = r->fe = calloc(1, sizeof *fe);
    r->model = fe->models[0] = calloc(1, sizeof *r->model);
    fe->workers = calloc(2, sizeof *fe->workers);
    assert_true(fe && r->model && fe->workers);
    fe->n_models = 1;
    fe->n_workers = 2;
    fe->now_ns = SECOND;
    fe->queue_automatic = fe->client_automatic = true;
    fe->max_queue = 100;
    fe->max_client_outstanding = 150;
    fe->max_request_bytes = 1000;
    fe->max_queue_bytes = fe->max_client_bytes = 100000;
    *r->model = (terse_served){.max_batch = 8, .batchable = true, .lanes = &r->lane};
    r->lane = (terse_lane){.share = &r->model->share};
    for (uint32_t rows = 1; rows <= 8; rows *= 2)
        terse_cost_learn(&r->lane.cost, rows, rows * MS);
    for (int i = 0; i < 2; i++) {
        fe->workers[i].state = TERSE_POOL_RUNNING;
        fe->workers[i].started_ns = fe->now_ns;
        fe->workers[i].expected_ns = MS;
    }
    return r;
}

static void fill(room *r, terse_client *client, int n)
{
    for (int i = 0; i < n; i++) {
        terse_request *request = &r->waiting[r->fe->queue.n_requests];
        *request =
            (terse_request){.lane = &r->lane, .rows = 1, .work_ns = MS, .deadline_ns = 2 * SECOND, .input_bytes = 100};
        terse_client_join(&r->fe->clients, client, request);
        terse_queue_push(&r->fe->queue, request);
    }
}

static void end(room *r)
{
    terse_queue_done(&r->fe->queue);
    free(r->fe->workers);
    free(r->model);
    free(r->fe);
    free(r);
}

static int ask(room *r, terse_client *client, uint64_t timeout_ns, terse_overload_request *ret_asked)
{
    terse_error error;
    *ret_asked = (terse_overload_request){
        .rows = 1, .bytes = 100, .deadline_ns = timeout_ns ? r->fe->now_ns + timeout_ns : TERSE_NO_DEADLINE};
    return terse_overload_check(r->fe, client, r->model, &r->lane, ret_asked, &error);
}

static void what_can_be_done_in_time_is_let_in(void **state)
{
    (void)state;
    room *r = begin();
    terse_overload_request asked;
    fill(r, &r->other, 40); /* 20 ms for two workers, and one until those that run are done; deadlines far off */
    assert_int_equal(ask(r, &r->client, 3000 * MS, &asked), TERSE_OK);
    assert_int_equal(asked.work_ns, MS);
    assert_int_equal(asked.reckoned_ns, 21 * MS);
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_OK);
    /* An earlier deadline goes before them: nothing to wait for. */
    assert_int_equal(ask(r, &r->client, 10 * MS, &asked), TERSE_OK);
    assert_int_equal(asked.reckoned_ns, MS);
    end(r);
}

/* So that all that waits goes before whoever comes. */
static void hasten(room *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        terse_queue_remove(&r->fe->queue, &r->waiting[i]);
        r->waiting[i].deadline_ns = SECOND + MS;
    }
    for (uint32_t i = 0; i < n; i++)
        terse_queue_push(&r->fe->queue, &r->waiting[i]);
}

static void who_would_be_late_or_stand_is_refused_with_a_time(void **state)
{
    (void)state;
    room *r = begin();
    terse_overload_request asked;
    fill(r, &r->other, 24);
    fill(r, &r->client, 16);
    hasten(r, 40);
    assert_int_equal(ask(r, &r->client, 15 * MS, &asked), TERSE_DEADLINE_EXCEEDED); /* 21 + 1 are needed */
    assert_in_range(asked.retry_after_ms, 7, 30);
    assert_int_equal(ask(r, &r->client, 30 * MS, &asked), TERSE_RESOURCE_EXHAUSTED); /* 20 > 30 / 2 */
    assert_in_range(asked.retry_after_ms, 5, 60);
    assert_int_equal(ask(r, &r->client, 50 * MS, &asked), TERSE_OK);
    /* The other holds 12 ms of the queue's 25; twice what is left is 10. */
    assert_int_equal(ask(r, &r->other, 50 * MS, &asked), TERSE_RESOURCE_EXHAUSTED);
    assert_int_equal(ask(r, &r->other, 200 * MS, &asked), TERSE_OK);
    /* Who is refused while most are is told to wait longer. */
    for (int i = 0; i < 1000; i++)
        ask(r, &r->client, 30 * MS, &asked);
    assert_in_range(asked.retry_after_ms, 100, 10000);
    /* A number that was configured is the limit instead. */
    r->fe->queue_automatic = r->fe->client_automatic = false;
    assert_int_equal(ask(r, &r->other, 30 * MS, &asked), TERSE_OK);
    r->fe->max_queue = 40;
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_RESOURCE_EXHAUSTED);
    assert_in_range(asked.retry_after_ms, 1, 10000);
    end(r);
}

/* The queue is full of what was let in as if it took no time. */
static void who_has_next_to_nothing_may_have_all_of_its_time(void **state)
{
    (void)state;
    room *r = begin();
    terse_overload_request asked;
    fill(r, &r->other, 40);
    hasten(r, 40);
    assert_int_equal(ask(r, &r->other, 30 * MS, &asked), TERSE_RESOURCE_EXHAUSTED); /* 20 > 30 / 2 */
    assert_int_equal(ask(r, &r->client, 30 * MS, &asked), TERSE_OK);
    assert_int_equal(ask(r, &r->client, 15 * MS, &asked), TERSE_DEADLINE_EXCEEDED); /* late is late */
    end(r);
    r = begin(); /* those without a deadline: minutes */
    fill(r, &r->other, 1);
    r->other.work_ns = r->fe->clients.work_ns = r->model->share.work_ns = r->lane.levels[0].work_ns = 150 * SECOND;
    assert_int_equal(ask(r, &r->other, 0, &asked), TERSE_RESOURCE_EXHAUSTED); /* 75 s */
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_OK);
    end(r);
    /* Thousands that have one each fill no more than half, and one that has nothing is as good as they. */
    r = begin();
    for (int i = 0; i < 40; i++)
        fill(r, &r->many[i], 1);
    hasten(r, 40);
    assert_int_equal(ask(r, &r->client, 30 * MS, &asked), TERSE_RESOURCE_EXHAUSTED);
    /* Nor may those who have little have more together than the flood, which has 22 here. */
    end(r);
    r = begin();
    for (int i = 0; i < 18; i++)
        fill(r, &r->many[i], 1);
    fill(r, &r->other, 22);
    hasten(r, 40);
    assert_int_equal(ask(r, &r->client, 30 * MS, &asked), TERSE_OK);
    for (int i = 18; i < 21; i++)
        fill(r, &r->many[i], 1);
    hasten(r, 43);
    assert_int_equal(ask(r, &r->client, 30 * MS, &asked), TERSE_RESOURCE_EXHAUSTED);
    end(r);
}

/* What is found and allowed stands in the text, however it is written there. */
static void refusals_say_what_was_found_and_is_allowed(void **state)
{
    (void)state;
    room *r = begin();
    terse_overload_request asked = {.rows = 1, .bytes = 100, .deadline_ns = SECOND + 15 * MS};
    terse_error error;
    fill(r, &r->other, 24);
    fill(r, &r->client, 16);
    hasten(r, 40);
    assert_int_equal(terse_overload_check(r->fe, &r->client, r->model, &r->lane, &asked, &error),
                     TERSE_DEADLINE_EXCEEDED);
    assert_int_equal(error.status, TERSE_DEADLINE_EXCEEDED);
    assert_string_equal(error.message,
                        "the request would be done in 22000 us (1000 us of them its batch), 15000 us are allowed");
    asked.deadline_ns = SECOND + 30 * MS;
    assert_int_equal(terse_overload_check(r->fe, &r->client, r->model, &r->lane, &asked, &error),
                     TERSE_RESOURCE_EXHAUSTED);
    assert_string_equal(error.message, "the queue is full: 40 requests wait and need 20000 us, 15000 us are allowed");
    asked.deadline_ns = SECOND + 40 * MS;
    assert_int_equal(terse_overload_check(r->fe, &r->client, r->model, &r->lane, &asked, &error),
                     TERSE_RESOURCE_EXHAUSTED);
    assert_string_equal(error.message, "16 requests of this client are outstanding and need 8000 us, 0 us are allowed");
    end(r);
}

/* CoDel cuts what stands, of those who make it stand. */
static void who_has_next_to_nothing_is_not_turned_away(void **state)
{
    (void)state;
    room *r = begin();
    fill(r, &r->other, 90);
    terse_request one = {
        .lane = &r->lane, .rows = 1, .work_ns = MS, .deadline_ns = TERSE_NO_DEADLINE, .queued_ns = SECOND};
    terse_client_join(&r->fe->clients, &r->client, &one);
    int cut = 0, spared = 0;
    for (int i = 0; i < 90; i++) {
        r->waiting[i].deadline_ns = TERSE_NO_DEADLINE;
        r->waiting[i].queued_ns = SECOND;
    }
    for (int i = 0; i < 90; i++) {
        r->fe->now_ns = 2 * SECOND + (uint64_t)i * 10 * MS;
        cut += terse_overload_stands(r->fe, &r->lane, &r->waiting[i]);
        spared += !terse_overload_stands(r->fe, &r->lane, &one);
    }
    assert_int_equal(spared, 90);
    assert_in_range(cut, 5, 89);
    end(r);
}

static void limits_in_numbers_hold_whatever_time_says(void **state)
{
    (void)state;
    room *r = begin();
    terse_overload_request asked;
    terse_error error;
    fill(r, &r->other, 5);
    asked = (terse_overload_request){.rows = 1, .bytes = 1001, .deadline_ns = TERSE_NO_DEADLINE};
    assert_int_equal(terse_overload_check(r->fe, &r->client, r->model, &r->lane, &asked, &error),
                     TERSE_RESOURCE_EXHAUSTED);
    assert_true(asked.retry_after_ms == TERSE_WIRE_NO_RETRY); /* never fits */
    r->fe->max_queue_bytes = 550;
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_RESOURCE_EXHAUSTED);
    r->fe->max_queue_bytes = 600;
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_OK);
    r->client.input_bytes = 100;
    r->fe->max_client_bytes = 199;
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_RESOURCE_EXHAUSTED);
    r->client.input_bytes = 0;
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_OK);
    r->client.outstanding = 150;
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_RESOURCE_EXHAUSTED);
    r->client.outstanding = 0;
    r->fe->draining = true;
    assert_int_equal(ask(r, &r->client, 0, &asked), TERSE_UNAVAILABLE);
    assert_int_equal(asked.retry_after_ms, 1000);
    end(r);
}

/* Nor may it where the pool is never idle: now and then one is let in to find out. */
static void a_busy_pool_tries_what_seems_too_long(void **state)
{
    (void)state;
    room *r = begin();
    terse_overload_request asked;
    int let_in = 0;
    for (int i = 0; i < 50; i++)
        terse_cost_learn(&r->lane.cost, 1, SECOND);
    for (int i = 0; i < 160; i++)
        let_in += ask(r, &r->client, 10 * MS, &asked) == TERSE_OK;
    assert_int_equal(let_in, 10);
    /* A time that is too short for a full batch is enough for a small one. */
    room *other = begin();
    fill(other, &other->other, 40);
    assert_int_equal(ask(other, &other->client, 6 * MS, &asked), TERSE_OK);
    end(other);
    end(r);
}

/* A cost that was measured far too high must not shut everybody out: an idle pool takes all. */
static void an_idle_pool_takes_what_comes(void **state)
{
    (void)state;
    room *r = begin();
    terse_overload_request asked;
    for (int i = 0; i < 50; i++)
        terse_cost_learn(&r->lane.cost, 1, SECOND);
    assert_int_equal(ask(r, &r->client, 10 * MS, &asked), TERSE_DEADLINE_EXCEEDED);
    r->fe->workers[1].state = TERSE_POOL_IDLE;
    assert_int_equal(ask(r, &r->client, 10 * MS, &asked), TERSE_OK);
    r->fe->workers[0].state = r->fe->workers[1].state = TERSE_POOL_WARMING; /* nobody knows when */
    assert_int_equal(ask(r, &r->client, 10 * MS, &asked), TERSE_OK);
    /* And when its turn comes the last one runs, late as it is: it may be wrong, and nobody else waits. */
    fill(r, &r->other, 2);
    r->waiting[0].deadline_ns = r->waiting[1].deadline_ns = SECOND + 10 * MS;
    assert_true(terse_overload_doomed(r->fe, &r->lane, &r->waiting[0]));
    terse_queue_remove(&r->fe->queue, &r->waiting[0]);
    assert_false(terse_overload_doomed(r->fe, &r->lane, &r->waiting[1]));
    end(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_that_drains_in_an_interval_is_spared),
        cmocka_unit_test(a_queue_that_stands_is_cut_ever_faster),
        cmocka_unit_test(it_stops_at_once_and_goes_on_where_it_was),
        cmocka_unit_test(a_wait_is_work_over_workers),
        cmocka_unit_test(errors_correct_what_is_predicted),
        cmocka_unit_test(a_correction_that_nothing_renews_fades),
        cmocka_unit_test(each_length_of_time_has_a_class),
        cmocka_unit_test(what_can_be_done_in_time_is_let_in),
        cmocka_unit_test(who_would_be_late_or_stand_is_refused_with_a_time),
        cmocka_unit_test(who_has_next_to_nothing_may_have_all_of_its_time),
        cmocka_unit_test(refusals_say_what_was_found_and_is_allowed),
        cmocka_unit_test(who_has_next_to_nothing_is_not_turned_away),
        cmocka_unit_test(limits_in_numbers_hold_whatever_time_says),
        cmocka_unit_test(a_busy_pool_tries_what_seems_too_long),
        cmocka_unit_test(an_idle_pool_takes_what_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
