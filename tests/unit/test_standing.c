/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for what others of his have cost, how long, and who never does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/standing.h"

#define MS UINT64_C(1000000)
#define COST UINT64_C(150000)

static terse_standing s;

static uint64_t key(uint32_t who)
{
    return terse_standing_key(&who, sizeof who);
}

static void strangers_never_wait(void **state)
{
    (void)state;
    memset(&s, 0, sizeof s);
    assert_int_equal(terse_standing_wait(&s, key(1), 5 * MS), 0);
    for (uint32_t i = 0; i < 100; i++)
        terse_standing_charge(&s, key(2), COST, 5 * MS);
    assert_true(terse_standing_wait(&s, key(2), 5 * MS) > 0);
    assert_int_equal(terse_standing_wait(&s, key(1), 5 * MS), 0);
    assert_false(terse_standing_suspects(&s, key(1), 5 * MS));
}

/* A few come to nothing by mistake; a hundred do not. However many they are, a second is the end of all waiting. */
static void waiting_begins_late_and_ends(void **state)
{
    (void)state;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 10; i++)
        terse_standing_charge(&s, key(1), COST, MS);
    assert_true(terse_standing_suspects(&s, key(1), MS));
    assert_int_equal(terse_standing_wait(&s, key(1), MS), 0);
    for (int i = 0; i < 100000; i++)
        terse_standing_charge(&s, key(1), COST, MS);
    const uint64_t wait = terse_standing_wait(&s, key(1), MS);
    assert_true(wait > 500 * MS && wait <= 1000 * MS);
    assert_int_equal(terse_standing_wait(&s, key(1), MS + wait), 0);
    assert_true(terse_standing_suspects(&s, key(1), MS + 1000 * MS));
    assert_false(terse_standing_suspects(&s, key(1), 40000 * MS));
}

static uint32_t come_in(uint32_t n_keys, uint64_t ms)
{
    uint32_t in = 0;
    for (uint64_t now = 2000 * MS; now < (2000 + ms) * MS; now += MS / 10)
        for (uint32_t who = 0; who < n_keys; who++)
            if (terse_standing_wait(&s, key(who), now) == 0) {
                terse_standing_charge(&s, key(who), COST, now);
                in++;
            }
    return in;
}

/* What comes in again and again takes its share of a core, alone and together. */
static void what_comes_to_nothing_is_bounded(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 200; n = n * 6 + 2) {
        memset(&s, 0, sizeof s);
        for (uint32_t who = 0; who < n; who++)
            for (int i = 0; i < 50; i++)
                terse_standing_charge(&s, key(who), COST, 2000 * MS);
        const uint64_t took = come_in(n, 3000) * COST;
        assert_true(took <= 3000 * MS / 30 + 20 * COST);
        assert_true(n > 1 || took >= 3000 * MS / 50);
    }
}

static void what_was_charged_by_mistake_is_given_back(void **state)
{
    (void)state;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 30; i++)
        terse_standing_charge(&s, key(1), COST, MS);
    for (int i = 0; i < 30; i++)
        terse_standing_refund(&s, key(1), COST);
    assert_int_equal(terse_standing_wait(&s, key(1), MS), 0);
    for (int i = 0; i < 100; i++)
        terse_standing_refund(&s, key(3), COST);
    assert_int_equal(terse_standing_wait(&s, key(3), 0), 0);
}

/* Thousands of others push out whoever owes least, and nobody else's debt becomes theirs. */
static void a_full_table_forgets(void **state)
{
    (void)state;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < 100; i++)
        terse_standing_charge(&s, key(7), COST, MS);
    for (uint32_t i = 100; i < 20000; i++)
        terse_standing_charge(&s, key(i), 1, MS);
    assert_true(terse_standing_wait(&s, key(7), MS) > 0);
    assert_int_equal(terse_standing_wait(&s, key(50000), MS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_never_wait),
        cmocka_unit_test(waiting_begins_late_and_ends),
        cmocka_unit_test(what_comes_to_nothing_is_bounded),
        cmocka_unit_test(what_was_charged_by_mistake_is_given_back),
        cmocka_unit_test(a_full_table_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
