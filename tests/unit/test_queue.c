/* SPDX-License-Identifier: Apache-2.0 */
/* test_queue.c: the order in which requests leave their lanes, and their deadlines, against plain sorting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/frontend/queue.h"

enum { MANY = 500 };

static terse_request requests[MANY];
static terse_share shares[3];

static terse_request *request_of(terse_lane *lane, int index, unsigned priority)
{
    requests[index] = (terse_request){.lane = lane,
                                      .arrival_ns = 1000 + (uint64_t)index,
                                      .deadline_ns = TERSE_NO_DEADLINE,
                                      .rows = 1,
                                      .work_ns = 10,
                                      .priority = (uint8_t)priority};
    return &requests[index];
}

static terse_request *pop(terse_queue *queue, terse_lane *lane)
{
    terse_request *first = terse_queue_first(lane, 0);
    if (first) {
        terse_queue_take(queue, first);
        first->state = TERSE_REQUEST_RUNNING;
    }
    return first;
}

static void priority_goes_first_then_arrival(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {.share = &shares[0]};
    static const unsigned priorities[] = {0, 9, 3, 0, 9, 3};
    static const int order[] = {1, 4, 2, 5, 0, 3};
    for (int i = 0; i < 6; i++)
        terse_queue_push(&queue, request_of(&lane, i, priorities[i]));
    assert_int_equal(lane.n_requests, 6);
    assert_ptr_equal(queue.busy, &lane);
    assert_int_equal(terse_queue_oldest_ns(&lane), 1000);
    for (int i = 0; i < 6; i++)
        assert_ptr_equal(pop(&queue, &lane), &requests[order[i]]);
    assert_null(pop(&queue, &lane));
    assert_null(queue.busy);
    assert_int_equal(queue.n_requests + lane.n_rows + lane.mask + shares[0].n_requests + shares[0].work_ns, 0);
    assert_null(queue.busy_shares);
    assert_true(terse_queue_oldest_ns(&lane) == UINT64_MAX);
    terse_queue_done(&queue);
}

static void who_comes_back_stands_where_it_stood(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {.share = &shares[0]};
    for (int i = 0; i < 5; i++)
        terse_queue_push(&queue, request_of(&lane, i, 0));
    terse_request *first = pop(&queue, &lane), *second = pop(&queue, &lane);
    terse_queue_push(&queue, request_of(&lane, 5, 0));
    terse_queue_push(&queue, second); /* in the wrong order */
    terse_queue_push(&queue, first);
    for (int i = 0; i < 6; i++)
        assert_ptr_equal(pop(&queue, &lane), &requests[i]);
    terse_queue_done(&queue);
}

static void suspects_leave_the_lanes_alone(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {.share = &shares[0]};
    terse_queue_push_suspect(&queue, request_of(&lane, 0, 0));
    terse_queue_push_suspect(&queue, request_of(&lane, 1, 9));
    assert_int_equal(queue.n_requests, 2);
    assert_int_equal(lane.n_requests, 0);
    assert_ptr_equal(queue.suspects.first, &requests[0]);
    terse_queue_remove(&queue, &requests[0]);
    assert_ptr_equal(queue.suspects.first, &requests[1]);
    terse_queue_remove(&queue, &requests[1]);
    assert_null(queue.suspects.first);
    assert_null(queue.suspects.last);
    terse_queue_done(&queue);
}

static void random_traffic_agrees_with_sorting(void **state)
{
    (void)state;
    const unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    terse_queue queue = {0};
    terse_lane lanes[3] = {{.share = &shares[0]}, {.share = &shares[1]}, {.share = &shares[1]}};
    int waiting = 0;
    bool in[MANY] = {false};
    for (int step = 0; step < 20000; step++) {
        const int i = rand() % MANY;
        if (in[i]) {
            terse_queue_remove(&queue, &requests[i]);
            terse_queue_deadline_remove(&queue, &requests[i]);
            waiting--;
        } else {
            terse_request *r = request_of(&lanes[rand() % 3], i, (unsigned)rand() % TERSE_PRIORITIES);
            r->deadline_ns = rand() % 4 ? (uint64_t)rand() % 1000 : TERSE_NO_DEADLINE;
            r->rows = 1 + (uint32_t)rand() % 8;
            terse_queue_push(&queue, r);
            assert_true(terse_queue_deadline_add(&queue, r));
            waiting++;
        }
        in[i] = !in[i];
        assert_int_equal(queue.n_requests, waiting);
        uint64_t earliest = TERSE_NO_DEADLINE, rows = 0;
        for (int k = 0; k < MANY; k++) {
            if (!in[k])
                continue;
            rows += requests[k].rows;
            if (requests[k].deadline_ns < earliest)
                earliest = requests[k].deadline_ns;
        }
        const terse_request *first = terse_queue_deadline_first(&queue);
        assert_true((first ? first->deadline_ns : TERSE_NO_DEADLINE) == earliest);
        assert_int_equal(lanes[0].n_rows + lanes[1].n_rows + lanes[2].n_rows, rows);
        assert_int_equal(shares[0].n_requests + shares[1].n_requests, waiting);
        assert_int_equal(shares[0].work_ns + shares[1].work_ns, 10 * waiting);
    }
    for (int l = 0; l < 3; l++) {
        const terse_request *last = NULL;
        for (terse_request *r; (r = pop(&queue, &lanes[l])); last = r) {
            if (last && last->priority == r->priority)
                assert_true(last->deadline_ns < r->deadline_ns ||
                            (last->deadline_ns == r->deadline_ns && last->sequence < r->sequence));
            else if (last)
                assert_true(last->priority > r->priority);
            waiting--;
        }
    }
    assert_int_equal(waiting, 0);
    terse_queue_done(&queue);
}

static void earlier_deadlines_go_first_and_the_endless_last(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {.share = &shares[0]};
    static const uint64_t deadlines[] = {50, TERSE_NO_DEADLINE, 20, TERSE_NO_DEADLINE, 10, 20};
    static const int order[] = {4, 2, 5, 0, 1, 3};
    for (int i = 0; i < 6; i++) {
        request_of(&lane, i, 0)->deadline_ns = deadlines[i];
        terse_queue_push(&queue, &requests[i]);
    }
    assert_int_equal(terse_queue_deadline_ns(&lane), 10);
    for (int i = 0; i < 6; i++)
        assert_ptr_equal(pop(&queue, &lane), &requests[order[i]]);
    assert_true(terse_queue_deadline_ns(&lane) == TERSE_NO_DEADLINE);
    terse_queue_done(&queue);
}

static void who_has_waited_long_gets_every_eighth_turn(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {.share = &shares[0]};
    enum { OLD = 5, FLOOD = 100 };
    const uint64_t now = TERSE_QUEUE_AGE_NS + 5000;
    for (int i = 0; i < OLD; i++) /* of the lowest priority, without a deadline */
        terse_queue_push(&queue, request_of(&lane, i, 0));
    for (int i = OLD; i < OLD + FLOOD; i++) {
        terse_request *r = request_of(&lane, i, 9);
        r->arrival_ns = now;
        r->deadline_ns = now + 1;
        terse_queue_push(&queue, r);
    }
    int next_old = 0;
    for (int turn = 1; lane.n_requests > 0; turn++) {
        terse_request *r = terse_queue_first(&lane, now);
        terse_queue_take(&queue, r);
        r->state = TERSE_REQUEST_RUNNING;
        const bool aged = r->priority == 0;
        assert_int_equal(aged, turn % TERSE_QUEUE_TURNS == 0 && turn <= OLD * TERSE_QUEUE_TURNS);
        if (aged)
            assert_ptr_equal(r, &requests[next_old++]);
    }
    assert_int_equal(next_old, OLD);
    /* Before they are old they get nothing. */
    terse_queue_push(&queue, request_of(&lane, 0, 0));
    for (int i = 1; i < 30; i++)
        terse_queue_push(&queue, request_of(&lane, i, 9));
    for (int i = 1; i < 30; i++) {
        terse_request *r = terse_queue_first(&lane, 2000);
        assert_int_equal(r->priority, 9);
        terse_queue_take(&queue, r);
        r->state = TERSE_REQUEST_RUNNING;
    }
    terse_queue_done(&queue);
}

static void what_goes_before_a_request_is_foreseen(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {.share = &shares[0]};
    for (int i = 0; i < 10; i++) { /* deadlines 100 .. 1000, then two without, then one that is urgent */
        request_of(&lane, i, 3)->deadline_ns = 100 * (uint64_t)(i + 1);
        terse_queue_push(&queue, &requests[i]);
    }
    terse_queue_push(&queue, request_of(&lane, 10, 3));
    terse_queue_push(&queue, request_of(&lane, 11, 3));
    terse_queue_push(&queue, request_of(&lane, 12, 9));
    assert_int_equal(terse_queue_ahead_ns(&lane, 3, 5000), 110);
    assert_int_equal(terse_queue_ahead_ns(&lane, 3, TERSE_NO_DEADLINE), 130);
    assert_int_equal(terse_queue_ahead_ns(&lane, 3, 50), 10);
    assert_int_equal(terse_queue_ahead_ns(&lane, 3, 550), 10 + 50);
    assert_int_equal(terse_queue_ahead_ns(&lane, 9, 5000), 0);
    assert_int_equal(terse_queue_ahead_ns(&lane, 9, TERSE_NO_DEADLINE), 10);
    assert_int_equal(terse_queue_ahead_ns(&lane, 0, TERSE_NO_DEADLINE), 130);
    while (pop(&queue, &lane))
        ;
    terse_queue_done(&queue);
}

/* Two models, one of which has batches three times as long and many more requests. */
static void models_share_the_time_of_workers(void **state)
{
    (void)state;
    terse_queue queue = {0};
    memset(shares, 0, sizeof shares);
    terse_lane lanes[2] = {{.share = &shares[0]}, {.share = &shares[1]}};
    uint64_t had[2] = {0};
    for (int i = 0; i < 400; i++)
        terse_queue_push(&queue, request_of(&lanes[i % 4 == 0], i, 0));
    for (int batch = 0; batch < 100; batch++) {
        const int which = terse_queue_lane_before(&lanes[1], &lanes[0]);
        const uint64_t took = which ? 1000 : 3000;
        assert_non_null(pop(&queue, &lanes[which]));
        terse_share_charge(&shares[which], &queue.clock_ns, 2000); /* a wrong guess for both */
        terse_share_correct(&shares[which], 2000, took);
        had[which] += took;
    }
    assert_true(had[0] <= had[1] + 3000 && had[1] <= had[0] + 3000);
    /* A model that was idle in the meantime starts where the others are: it gets no more than its part from now on. */
    terse_lane late = {.share = &shares[2]};
    for (int i = 400; i < 420; i++)
        terse_queue_push(&queue, request_of(&late, i, 0));
    assert_true(shares[2].clock_ns == queue.clock_ns && queue.clock_ns > 0);
    /* Priority goes before all that. */
    shares[0].clock_ns += 1000000;
    terse_queue_push(&queue, request_of(&lanes[0], 420, 1));
    assert_true(terse_queue_lane_before(&lanes[0], &late));
    terse_queue_done(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(priority_goes_first_then_arrival),
        cmocka_unit_test(who_comes_back_stands_where_it_stood),
        cmocka_unit_test(suspects_leave_the_lanes_alone),
        cmocka_unit_test(random_traffic_agrees_with_sorting),
        cmocka_unit_test(earlier_deadlines_go_first_and_the_endless_last),
        cmocka_unit_test(who_has_waited_long_gets_every_eighth_turn),
        cmocka_unit_test(what_goes_before_a_request_is_foreseen),
        cmocka_unit_test(models_share_the_time_of_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
