/* SPDX-License-Identifier: Apache-2.0 */
/* What connections cost while their messages have no end, and when they are ended for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "daemon/tap.h"

enum { CONNECTION = 1 << 20, TOTAL = 2 << 20, MOST = 4, FRAME = 64, BUFFER = 8192 };

static const terse_tap_limits limits = {
    .connections = MOST, .connections_per_user = 3, .connection_bytes = CONNECTION, .total_bytes = TOTAL};

typedef struct peer {
    int ours, theirs;
} peer;

/* The kernel says of both ends of a pair that they are ours: one user. */
static bool come(peer *p, int listener)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    *p = (peer){ends[0], ends[1]};
    return terse_tap_accepted(listener, p->ours);
}

static void go(peer *p)
{
    terse_tap_closed(p->ours);
    close(p->ours);
    close(p->theirs);
}

static terse_tap_id id_of(const peer *p)
{
    char text[16];
    snprintf(text, sizeof text, "%d", p->ours);
    return terse_tap_find(text);
}

static bool receive(const peer *p, const void *data, size_t bytes)
{
    return terse_tap_received(p->ours, data, bytes, BUFFER);
}

static void greet(const peer *p)
{
    uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    const uint8_t ready[] = {4, 6, 5, 'R', 'E', 'A', 'D', 'Y'};
    assert_true(receive(p, greeting, sizeof greeting));
    assert_true(receive(p, ready, sizeof ready));
}

/* A whole frame of `bytes`, byte after byte when `torn`. */
static bool frame(const peer *p, bool more, uint64_t bytes, bool torn)
{
    static uint8_t data[9 + (2 << 20)];
    size_t n = 2;
    data[0] = (uint8_t)(more | (bytes > 255 ? 2 : 0));
    data[1] = (uint8_t)bytes;
    if (bytes > 255) {
        n = 9;
        for (int i = 0; i < 8; i++)
            data[1 + i] = (uint8_t)(bytes >> (56 - 8 * i));
    }
    memset(data + n, 0xff, bytes);
    if (!torn)
        return receive(p, data, n + bytes);
    for (size_t i = 0; i < n + bytes; i++)
        if (!receive(p, data + i, 1))
            return false;
    return true;
}

static void frames_are_counted_by_their_lengths(void **state)
{
    (void)state;
    for (int torn = 0; torn < 2; torn++) {
        peer p;
        assert_true(come(&p, -1));
        greet(&p);
        assert_int_equal(terse_tap_count().bytes, 0); /* commands cost nothing */
        assert_true(frame(&p, true, 0, torn));
        assert_int_equal(terse_tap_count().bytes, FRAME);
        assert_true(frame(&p, true, 33, torn));
        assert_int_equal(terse_tap_count().bytes, 2 * FRAME + 33);
        assert_true(frame(&p, true, 200, torn)); /* its body holds the buffer that it was read into */
        assert_int_equal(terse_tap_count().bytes, 3 * FRAME + 233 + BUFFER);
        assert_true(frame(&p, true, 100000, torn));
        assert_int_equal(terse_tap_count().bytes, 4 * FRAME + 100233 + BUFFER);
        terse_tap_took(id_of(&p));
        assert_int_equal(terse_tap_count().bytes, 0);
        go(&p);
    }
}

/* The room for a body is taken when its length is known, not when it is there. */
static void an_announced_length_counts(void **state)
{
    peer p;
    (void)state;
    assert_true(come(&p, -1));
    greet(&p);
    const uint8_t half[] = {3, 0, 0, 0, 0, 0, 8, 0, 0}, huge[] = {3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    assert_true(receive(&p, half, sizeof half));
    assert_int_equal(terse_tap_count().bytes, FRAME + (8 << 16));
    go(&p);
    assert_true(come(&p, -1));
    greet(&p);
    const uint64_t before = terse_tap_count().cut_off;
    assert_false(receive(&p, huge, sizeof huge));
    assert_int_equal(terse_tap_count().cut_off, before + 1);
    go(&p);
    assert_int_equal(terse_tap_count().bytes, 0);
}

static void a_message_without_end_ends_its_connection(void **state)
{
    static const uint64_t sizes[] = {0, 1, 33, 34, 1000, 8191, 8192, 100000, CONNECTION - 1};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        peer p;
        assert_true(come(&p, -1));
        greet(&p);
        const uint64_t before = terse_tap_count().cut_off;
        unsigned n = 0;
        while (frame(&p, true, sizes[i], false))
            assert_true(++n <= CONNECTION / FRAME);
        assert_true(sizes[i] + FRAME >= CONNECTION || n > 0);
        assert_int_equal(terse_tap_count().cut_off, before + 1);
        assert_false(frame(&p, false, 1, false)); /* nor does it come back */
        assert_int_equal(terse_tap_count().cut_off, before + 1);
        go(&p);
        assert_int_equal(terse_tap_count().bytes, 0);
    }
}

/* However little its parts cost: as many as a request can have and some more, then no more. */
static void a_message_of_too_many_parts_ends_its_connection(void **state)
{
    peer p;
    (void)state;
    for (unsigned n = TERSE_TAP_MOST_PARTS; n <= TERSE_TAP_MOST_PARTS + 1; n++) {
        assert_true(come(&p, -1));
        greet(&p);
        const uint64_t before = terse_tap_count().cut_off;
        for (unsigned i = 0; i < TERSE_TAP_MOST_PARTS; i++)
            assert_true(frame(&p, true, 0, false));
        /* The last part ends the message, and the next may have as many again; one more of it ends the connection. */
        assert_int_equal(frame(&p, n > TERSE_TAP_MOST_PARTS, 0, false), n == TERSE_TAP_MOST_PARTS);
        assert_int_equal(terse_tap_count().cut_off - before, n > TERSE_TAP_MOST_PARTS);
        for (unsigned i = 0; n == TERSE_TAP_MOST_PARTS && i < TERSE_TAP_MOST_PARTS; i++)
            assert_true(frame(&p, true, 0, false));
        go(&p);
    }
}

static void whoever_ends_messages_may_send_for_ever(void **state)
{
    peer p;
    (void)state;
    assert_true(come(&p, -1));
    greet(&p);
    const terse_tap_id id = id_of(&p);
    for (int i = 0; i < 100; i++) {
        assert_true(frame(&p, true, 100, false));
        assert_true(frame(&p, false, CONNECTION / 2, false));
        terse_tap_took(id);
    }
    go(&p);
}

static void old_protocols_are_charged_by_the_byte(void **state)
{
    static const uint8_t old[] = {1, 0}, second[] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1, 5};
    static uint8_t zeros[CONNECTION / 64 + 1];
    (void)state;
    for (int i = 0; i < 2; i++) {
        peer p;
        assert_true(come(&p, -1));
        assert_true(i ? receive(&p, second, sizeof second) : receive(&p, old, sizeof old));
        assert_false(receive(&p, zeros, sizeof zeros));
        go(&p);
    }
}

/* Together they have too much: who has had most for longest goes, a large request that is coming in stays. */
static void the_worst_goes_when_all_have_too_much(void **state)
{
    peer bad, honest, third, trusted;
    (void)state;
    assert_true(come(&bad, -1));
    greet(&bad);
    assert_true(frame(&bad, true, CONNECTION * 3 / 4, false));
    usleep(20000);
    assert_true(come(&honest, -1));
    assert_true(come(&third, -1));
    greet(&honest);
    greet(&third);
    terse_tap_listener(200, TERSE_TAP_TRUSTED);
    assert_true(come(&trusted, 200));
    greet(&trusted);
    for (int i = 0; i < 100; i++)
        assert_true(frame(&trusted, true, CONNECTION, false)); /* the gate's own connections have no limit */
    const uint64_t before = terse_tap_count().cut_off;
    char byte;
    assert_true(frame(&honest, true, CONNECTION * 3 / 4, false));
    assert_int_equal(terse_tap_count().cut_off, before); /* 1.5 of 2 */
    assert_true(frame(&third, true, CONNECTION * 3 / 4, false));
    assert_int_equal(terse_tap_count().cut_off, before + 1);
    assert_int_equal(recv(bad.theirs, &byte, 1, MSG_DONTWAIT), 0);
    assert_true(frame(&honest, false, 100, false)); /* one was enough, although it has not been closed yet */
    assert_true(frame(&third, false, 100, false));
    assert_int_equal(terse_tap_count().cut_off, before + 1);
    go(&trusted);
    go(&third);
    go(&honest);
    go(&bad);
    assert_int_equal(terse_tap_count().connections, 0);
    assert_int_equal(terse_tap_count().bytes, 0);
}

static void connections_have_limits(void **state)
{
    peer p[4], trusted;
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(come(&p[i], -1));
    const uint64_t before = terse_tap_count().refused;
    assert_false(come(&p[3], -1)); /* the user has three */
    close(p[3].ours);
    close(p[3].theirs);
    assert_int_equal(terse_tap_count().refused, before + 1);
    assert_int_equal(terse_tap_count().connections, 3);
    terse_tap_listener(200, TERSE_TAP_TRUSTED);
    assert_true(come(&trusted, 200));
    assert_int_equal(terse_tap_count().connections, 3); /* which does not count */
    assert_true(terse_tap_is_trusted(id_of(&trusted)));
    assert_false(terse_tap_is_trusted(id_of(&p[0])));
    go(&trusted);
    go(&p[0]);
    assert_true(come(&p[0], -1));
    for (int i = 0; i < 3; i++)
        go(&p[i]);
    assert_int_equal(terse_tap_count().connections, 0);
}

static void a_dropped_one_sees_the_end_and_its_successor_does_not(void **state)
{
    peer first, second;
    char byte;
    (void)state;
    assert_true(come(&first, -1));
    const terse_tap_id id = id_of(&first);
    assert_true(terse_tap_is_open(id));
    terse_tap_drop(id);
    assert_int_equal(recv(first.theirs, &byte, 1, MSG_DONTWAIT), 0);
    assert_false(receive(&first, "x", 1)); /* what it had sent before is not looked at */
    go(&first);
    assert_false(terse_tap_is_open(id));
    assert_true(come(&second, -1));
    assert_int_equal(second.ours, id.fd); /* the kernel gives the lowest number */
    assert_false(terse_tap_is_open(id));
    terse_tap_drop(id);
    assert_int_equal(recv(second.theirs, &byte, 1, MSG_DONTWAIT), -1);
    go(&second);
    assert_int_equal(terse_tap_find("").fd, -1);
    assert_int_equal(terse_tap_find("7x").fd, -1);
    assert_int_equal(terse_tap_find("99999999999999999999").fd, -1);
    assert_int_equal(terse_tap_find(NULL).fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_counted_by_their_lengths),
        cmocka_unit_test(an_announced_length_counts),
        cmocka_unit_test(a_message_without_end_ends_its_connection),
        cmocka_unit_test(a_message_of_too_many_parts_ends_its_connection),
        cmocka_unit_test(whoever_ends_messages_may_send_for_ever),
        cmocka_unit_test(old_protocols_are_charged_by_the_byte),
        cmocka_unit_test(the_worst_goes_when_all_have_too_much),
        cmocka_unit_test(connections_have_limits),
        cmocka_unit_test(a_dropped_one_sees_the_end_and_its_successor_does_not),
    };
    return terse_tap_open(&limits) ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
