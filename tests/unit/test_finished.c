/* SPDX-License-Identifier: Apache-2.0 */
/* The replies that are kept: what is found is what was kept, and what is not there any more is not found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/frontend/finished.h"

enum { SESSIONS = 3, ROUNDS = 20000 };

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(0x2545f4914f6cdd1d)) >> 33) % below;
}

/* The bytes of a reply follow from whose it is and how often it was kept. */
static void fill(uint8_t *data, size_t bytes, uint32_t who, uint64_t id, uint32_t part)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 7 + who * 31 + id * 13 + part);
}

static void session_of(uint32_t who, uint8_t *session)
{
    memset(session, (int)who + 1, TERSE_WIRE_SESSION_BYTES);
}

static size_t size_of(uint64_t id, uint32_t part)
{
    return (size_t)((id * 97 + part * 41) % 230);
}

static void keep(terse_finished *finished, uint32_t who, uint64_t id)
{
    uint8_t session[TERSE_WIRE_SESSION_BYTES], data[3][256];
    terse_finished_part parts[3];
    const uint32_t n = 1 + (uint32_t)(id % 3);
    session_of(who, session);
    for (uint32_t i = 0; i < n; i++) {
        fill(data[i], size_of(id, i), who, id, i);
        parts[i] = (terse_finished_part){data[i], size_of(id, i)};
    }
    terse_finished_keep(finished, session, id, parts, n);
}

/* Whether it is there; if it is, it must be the very one. */
static bool found(const terse_finished *finished, uint32_t who, uint64_t id)
{
    uint8_t session[TERSE_WIRE_SESSION_BYTES], want[256];
    terse_finished_part parts[TERSE_FINISHED_MAX_PARTS];
    session_of(who, session);
    const uint32_t n = terse_finished_find(finished, session, id, parts);
    if (n == 0)
        return false;
    assert_int_equal(n, 1 + id % 3);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(parts[i].bytes, size_of(id, i));
        fill(want, parts[i].bytes, who, id, i);
        assert_memory_equal(parts[i].data, want, parts[i].bytes);
    }
    return true;
}

static void what_was_kept_is_found_until_newer_ones_took_its_place(void **unused)
{
    (void)unused;
    terse_finished *finished = terse_finished_new(UINT64_C(64) << 10);
    assert_non_null(finished);
    uint64_t next[SESSIONS] = {1, 1, 1};
    uint64_t hits = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const uint32_t who = draw(SESSIONS);
        keep(finished, who, next[who]++);
        assert_true(found(finished, who, next[who] - 1)); /* the newest always is */
        const uint32_t other = draw(SESSIONS);
        if (next[other] > 1)
            hits +=
                found(finished, other, next[other] - 1 - draw(next[other] - 1 < 20 ? (uint32_t)next[other] - 1 : 20));
        assert_false(found(finished, other, next[other])); /* not yet */
    }
    assert_true(hits > ROUNDS * 9 / 10); /* 60 younger ones take a quarter of the memory */
    assert_false(found(finished, 0, 1)); /* pushed out long ago */
    terse_finished_free(finished);
}

static void what_is_too_large_or_nobody_wants_is_passed_over(void **unused)
{
    (void)unused;
    static const uint8_t session[TERSE_WIRE_SESSION_BYTES] = {1}, data[8192];
    terse_finished_part part = {data, sizeof data}, got[TERSE_FINISHED_MAX_PARTS];
    terse_finished *finished = terse_finished_new(UINT64_C(64) << 10);
    terse_finished_keep(finished, session, 1, &part, 1); /* an eighth */
    assert_int_equal(terse_finished_find(finished, session, 1, got), 0);
    part.bytes = 1024;
    terse_finished_keep(finished, session, 2, &part, 1);
    assert_int_equal(terse_finished_find(finished, session, 2, got), 1);
    part.bytes = SIZE_MAX;
    terse_finished_part two[2] = {{data, 16}, part};
    terse_finished_keep(finished, session, 3, two, 2);
    assert_int_equal(terse_finished_find(finished, session, 3, got), 0);
    terse_finished_free(finished);
    finished = terse_finished_new(0);
    part.bytes = 8;
    terse_finished_keep(finished, session, 1, &part, 1);
    assert_int_equal(terse_finished_find(finished, session, 1, got), 0);
    terse_finished_free(finished);
    finished = terse_finished_new(100); /* too little for anything */
    terse_finished_keep(finished, session, 1, &part, 1);
    assert_int_equal(terse_finished_find(finished, session, 1, got), 0);
    terse_finished_free(finished);
}

static void the_newest_reply_of_a_request_counts(void **unused)
{
    (void)unused;
    static const uint8_t session[TERSE_WIRE_SESSION_BYTES] = {7};
    terse_finished_part got[TERSE_FINISHED_MAX_PARTS];
    terse_finished *finished = terse_finished_new(UINT64_C(64) << 10);
    terse_finished_keep(finished, session, 5, &(terse_finished_part){"old", 3}, 1);
    terse_finished_keep(finished, session, 5, &(terse_finished_part){"new!", 4}, 1);
    assert_int_equal(terse_finished_find(finished, session, 5, got), 1);
    assert_int_equal(got[0].bytes, 4);
    assert_memory_equal(got[0].data, "new!", 4);
    terse_finished_free(finished);
}

int main(void)
{
    const char *seed = getenv("TERSE_SEED");
    state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    state = state * 2 + 1;
    print_message("# seed %llu\n", (unsigned long long)(state / 2));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_kept_is_found_until_newer_ones_took_its_place),
        cmocka_unit_test(what_is_too_large_or_nobody_wants_is_passed_over),
        cmocka_unit_test(the_newest_reply_of_a_request_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
