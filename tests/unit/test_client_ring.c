/* SPDX-License-Identifier: Apache-2.0 */
/* test_client_ring.c: a client looks for the next answer before it sleeps, only where that was of use lately. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/arena.h"

enum { SIZE = 4096, MOST_LEFT_OUT = 63 };

typedef struct fixture {
    _Alignas(64) uint8_t memory[TERSE_RING_HEAD_BYTES + SIZE];
    terse_client client;
    terse_client_arena arena;
    terse_ring daemon; /* that side of the completion ring */
} fixture;

static fixture *make_fixture(void)
{
    fixture *f = aligned_alloc(64, (sizeof *f + 63) / 64 * 64);
    assert_non_null(f);
    memset(f, 0, sizeof *f);
    terse_ring_open(&f->daemon, f->memory, SIZE);
    terse_ring_open(&f->arena.completion, f->memory, SIZE);
    f->client.arena = &f->arena;
    f->arena.client = &f->client;
    return f;
}

static void answer(fixture *f)
{
    assert_int_equal(terse_ring_put(&f->daemon, "answer", 6), TERSE_RING_DONE);
    terse_ring_tell(&f->daemon);
}

static void take(fixture *f)
{
    uint8_t buffer[64];
    uint32_t bytes = 0;
    assert_int_equal(terse_ring_take(&f->arena.completion, buffer, sizeof buffer, &bytes), TERSE_RING_DONE);
    assert_int_equal(bytes, 6);
}

/* How many waits sleep at once before one looks again: those that do not see the answer that is there. */
static unsigned waits_that_sleep(fixture *f)
{
    unsigned n = 0;
    answer(f);
    while (!terse_ring_look(&f->client, UINT64_MAX))
        n++;
    take(f);
    return n;
}

static void looks_that_find_nothing_are_left_out(void **state)
{
    (void)state;
    fixture *f = make_fixture();
    assert_int_equal(waits_that_sleep(f), 0);
    unsigned expected = 0;
    for (int misses = 1; misses < 12; misses++) {
        expected = 2 * expected + 1 < MOST_LEFT_OUT ? 2 * expected + 1 : MOST_LEFT_OUT;
        while (f->arena.looks_left_out > 0)
            assert_false(terse_ring_look(&f->client, UINT64_MAX));
        assert_false(terse_ring_look(&f->client, UINT64_MAX));
        assert_int_equal(f->arena.looks_left_out, expected);
    }
    assert_int_equal(waits_that_sleep(f), MOST_LEFT_OUT);
    assert_int_equal(waits_that_sleep(f), 0); /* the last look found something */
    free(f);
}

static void a_client_that_is_told_to_looks_always(void **state)
{
    (void)state;
    fixture *f = make_fixture();
    f->client.spin_ns = 1000;
    for (int i = 0; i < 10; i++)
        assert_false(terse_ring_look(&f->client, UINT64_MAX));
    assert_int_equal(waits_that_sleep(f), 0);
    free(f);
}

static void nobody_looks_beyond_the_end_of_its_wait(void **state)
{
    (void)state;
    fixture *f = make_fixture();
    f->client.spin_ns = UINT64_C(1000000000) * 3600;
    assert_false(terse_ring_look(&f->client, 0));
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looks_that_find_nothing_are_left_out),
        cmocka_unit_test(a_client_that_is_told_to_looks_always),
        cmocka_unit_test(nobody_looks_beyond_the_end_of_its_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
