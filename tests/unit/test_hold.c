/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that an epoll is not told of for a while, and those that wait outside: with an epoll, a listener and
 * sockets of our own in ZeroMQ's place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/hold.h"

enum { DESCRIPTORS = 1024, LISTENER = 7, CONNECTION = 9 };

static int epoll, listener, ends[2];
static bool open_door;

static bool may_enter(int fd, uint64_t key)
{
    (void)fd;
    return open_door || key == 1;
}

static void watch(int fd, uint64_t data, bool is_listener)
{
    struct epoll_event event = {.data.u64 = data};
    assert_int_equal(terse_hold_control(epoll, EPOLL_CTL_ADD, fd, &event, is_listener), 0);
    event.events = EPOLLIN;
    assert_int_equal(terse_hold_control(epoll, EPOLL_CTL_MOD, fd, &event, is_listener), 0);
}

static int begin(void **state)
{
    (void)state;
    int pair[2];
    open_door = false;
    epoll = epoll_create1(0);
    if (!terse_hold_open(DESCRIPTORS) || epoll < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        return -1;
    listener = pair[0];
    close(pair[1]);
    return 0;
}

static int end(void **state)
{
    (void)state;
    terse_hold_done();
    close(epoll);
    close(listener);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* The next event within `ms`: its data, 0 for none. A listener's is the timer's here: nobody is at the door. */
static uint64_t next(int ms)
{
    struct epoll_event event;
    return epoll_wait(epoll, &event, 1, ms) > 0 ? event.data.u64 : 0;
}

static void whoever_is_held_is_not_told_of_until_his_time(void **state)
{
    (void)state;
    struct epoll_event both = {.events = EPOLLIN | EPOLLOUT, .data.u64 = CONNECTION + 1};
    watch(ends[0], CONNECTION, false);
    assert_false(terse_hold_connection(ends[0], 0)); /* without a listener nobody would ever tell */
    close(listener);
    listener = epoll_create1(0); /* something that is never readable */
    watch(listener, LISTENER, true);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(next(1000), CONNECTION);
    const uint64_t until = terse_now_ns() + 50000000;
    assert_true(terse_hold_connection(ends[0], until));
    assert_true(terse_hold_holds(ends[0]));
    assert_int_equal(terse_hold_control(epoll, EPOLL_CTL_MOD, ends[0], &both, false), 0);
    close(ends[1]); /* of which epoll would tell without end */
    ends[1] = -1;
    uint64_t told = 0;
    while ((told = next(1000)) == LISTENER)
        assert_int_equal(terse_hold_turn(terse_now_ns(), may_enter), -1);
    assert_int_equal(told, CONNECTION + 1); /* as it was wanted last */
    assert_true(terse_now_ns() >= until);
    assert_false(terse_hold_holds(ends[0]));
    while (next(0) == LISTENER)
        terse_hold_turn(terse_now_ns(), may_enter);
    assert_int_equal(terse_hold_control(epoll, EPOLL_CTL_DEL, ends[0], NULL, false), 0);
    assert_int_equal(next(30), 0); /* nobody is held: the timer rests */
}

static void a_held_one_may_be_closed(void **state)
{
    (void)state;
    close(listener);
    listener = epoll_create1(0);
    watch(listener, LISTENER, true);
    watch(ends[0], CONNECTION, false);
    assert_true(terse_hold_connection(ends[0], terse_now_ns()));
    assert_false(terse_hold_connection(ends[0], terse_now_ns()));
    assert_int_equal(terse_hold_control(epoll, EPOLL_CTL_DEL, ends[0], NULL, false), 0);
    assert_false(terse_hold_holds(ends[0]));
    watch(ends[0], CONNECTION, false);
    assert_true(terse_hold_connection(ends[0], terse_now_ns() + UINT64_C(3600000000000)));
    terse_hold_forget(ends[0]);
    assert_false(terse_hold_holds(ends[0]));
}

static void the_end_of_the_listener_lets_all_go(void **state)
{
    (void)state;
    close(listener);
    listener = epoll_create1(0);
    watch(listener, LISTENER, true);
    watch(ends[0], CONNECTION, false);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_true(terse_hold_connection(ends[0], terse_now_ns() + UINT64_C(3600000000000)));
    assert_int_equal(terse_hold_control(epoll, EPOLL_CTL_DEL, listener, NULL, true), 0);
    assert_int_equal(next(1000), CONNECTION);
}

/* Those who have gone meanwhile make room and are never handed over; whose time it is comes in, in order. */
static void who_waits_outside_comes_in_when_he_may(void **state)
{
    int mine[300], theirs[300], n = 0, pair[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_false(terse_hold_outside(pair[0], 1)); /* without a listener nobody would ever come in */
    close(listener);
    listener = epoll_create1(0);
    watch(listener, LISTENER, true);
    assert_true(terse_hold_outside(pair[0], 1));
    for (bool taken = true; taken; n += taken) {
        int both[2];
        assert_true(n < 300);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, both), 0);
        taken = terse_hold_outside(both[0], 2);
        mine[n] = both[0];
        theirs[n] = both[1];
    }
    close(theirs[1]); /* the one that has gone makes room for the one that found none */
    assert_true(terse_hold_outside(mine[n], 2));
    int came = -1;
    while (came < 0 && next(1000) == LISTENER)
        came = terse_hold_turn(terse_now_ns(), may_enter);
    assert_int_equal(came, pair[0]); /* another one waits for himself only */
    close(theirs[0]);
    open_door = true;
    for (int i = 2; i <= n; i++) {
        came = -1;
        while (came < 0 && next(1000) == LISTENER)
            came = terse_hold_turn(terse_now_ns(), may_enter);
        assert_int_equal(came, mine[i]);
        close(mine[i]);
        close(theirs[i]);
    }
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whoever_is_held_is_not_told_of_until_his_time, begin, end),
        cmocka_unit_test_setup_teardown(a_held_one_may_be_closed, begin, end),
        cmocka_unit_test_setup_teardown(the_end_of_the_listener_lets_all_go, begin, end),
        cmocka_unit_test_setup_teardown(who_waits_outside_comes_in_when_he_may, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
