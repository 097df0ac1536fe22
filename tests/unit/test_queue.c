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

static terse_request *request_of(terse_lane *lane, int index, unsigned priority)
{
    requests[index] = (terse_request){.lane = lane,
                                      .arrival_ns = 1000 + (uint64_t)index,
                                      .deadline_ns = TERSE_NO_DEADLINE,
                                      .rows = 1,
                                      .priority = (uint8_t)priority};
    return &requests[index];
}

static terse_request *pop(terse_queue *queue, terse_lane *lane)
{
    terse_request *first = terse_queue_first(lane);
    if (first) {
        terse_queue_remove(queue, first);
        first->state = TERSE_REQUEST_RUNNING;
    }
    return first;
}

static void priority_goes_first_then_arrival(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {0};
    static const unsigned priorities[] = {0, 9, 3, 0, 9, 3};
    static const int order[] = {1, 4, 2, 5, 0, 3};
    for (int i = 0; i < 6; i++)
        terse_queue_push(&queue, request_of(&lane, i, priorities[i]));
    assert_int_equal(lane.n_requests, 6);
    assert_ptr_equal(queue.busy, &lane);
    const terse_request *walked = terse_queue_first(&lane);
    for (int i = 0; i < 6; i++, walked = terse_queue_next(walked))
        assert_ptr_equal(walked, &requests[order[i]]);
    assert_null(walked);
    assert_int_equal(terse_queue_oldest_ns(&lane), 1000);
    for (int i = 0; i < 6; i++)
        assert_ptr_equal(pop(&queue, &lane), &requests[order[i]]);
    assert_null(pop(&queue, &lane));
    assert_null(queue.busy);
    assert_int_equal(queue.n_requests + lane.n_rows + lane.mask, 0);
    assert_true(terse_queue_oldest_ns(&lane) == UINT64_MAX);
    terse_queue_done(&queue);
}

static void who_comes_back_stands_where_it_stood(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {0};
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
    terse_lane lane = {0};
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
    terse_lane lanes[3] = {0};
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
    }
    for (int l = 0; l < 3; l++) {
        const terse_request *last = NULL;
        for (terse_request *r; (r = pop(&queue, &lanes[l])); last = r) {
            if (last && last->priority == r->priority)
                assert_true(last->sequence < r->sequence);
            else if (last)
                assert_true(last->priority > r->priority);
            waiting--;
        }
    }
    assert_int_equal(waiting, 0);
    terse_queue_done(&queue);
}

static void the_earliest_deadline_is_looked_for_among_the_first(void **state)
{
    (void)state;
    terse_queue queue = {0};
    terse_lane lane = {0};
    static const uint64_t deadlines[] = {50, TERSE_NO_DEADLINE, 20, 10};
    for (int i = 0; i < 4; i++) {
        request_of(&lane, i, 0)->deadline_ns = deadlines[i];
        terse_queue_push(&queue, &requests[i]);
    }
    assert_int_equal(terse_queue_deadline_ns(&lane, 2), 50);
    assert_int_equal(terse_queue_deadline_ns(&lane, 3), 20);
    assert_int_equal(terse_queue_deadline_ns(&lane, 100), 10);
    while (pop(&queue, &lane))
        ;
    terse_queue_done(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(priority_goes_first_then_arrival),
        cmocka_unit_test(who_comes_back_stands_where_it_stood),
        cmocka_unit_test(suspects_leave_the_lanes_alone),
        cmocka_unit_test(random_traffic_agrees_with_sorting),
        cmocka_unit_test(the_earliest_deadline_is_looked_for_among_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
