/* SPDX-License-Identifier: Apache-2.0 */
/* test_slots.c: ranges of shared memory never overlap, and come back whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/frontend/slots.h"

enum { MEMORY = 1 << 20, MANY = 200 };

static terse_slots *open_slots(uint64_t bytes, bool read_only)
{
    terse_slots *slots = NULL;
    terse_error error;
    if (terse_slots_open("test", bytes, read_only, &slots, &error))
        fail_msg("%s", error.message);
    return slots;
}

static void everything_can_be_taken_and_comes_back(void **state)
{
    (void)state;
    terse_slots *slots = open_slots(MEMORY, false);
    const uint32_t whole = terse_slots_take(slots, MEMORY);
    assert_int_not_equal(whole, TERSE_SLOT_NONE);
    assert_int_equal(terse_slots_take(slots, 1), TERSE_SLOT_NONE);
    terse_slots_give(slots, whole);
    uint32_t taken[MEMORY / 64];
    for (int i = 0; i < MEMORY / 64; i++) {
        taken[i] = terse_slots_take(slots, 0);
        assert_int_not_equal(taken[i], TERSE_SLOT_NONE);
    }
    assert_int_equal(terse_slots_used(slots), MEMORY);
    assert_int_equal(terse_slots_take(slots, 0), TERSE_SLOT_NONE);
    for (int i = 0; i < MEMORY / 64; i += 2) /* every other: nothing to merge */
        terse_slots_give(slots, taken[i]);
    assert_int_equal(terse_slots_take(slots, 128), TERSE_SLOT_NONE);
    for (int i = 1; i < MEMORY / 64; i += 2)
        terse_slots_give(slots, taken[i]);
    assert_int_equal(terse_slots_used(slots), 0);
    assert_int_not_equal(terse_slots_take(slots, MEMORY), TERSE_SLOT_NONE);
    assert_int_equal(terse_slots_take(slots, UINT64_MAX), TERSE_SLOT_NONE);
    terse_slots_close(slots);
}

static void random_ranges_keep_their_bytes(void **state)
{
    (void)state;
    const unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    terse_slots *slots = open_slots(MEMORY, false);
    uint32_t taken[MANY];
    uint64_t sizes[MANY], used = 0;
    memset(taken, 0xff, sizeof taken);
    int refused = 0;
    for (int step = 0; step < 50000; step++) {
        const int i = rand() % MANY;
        if (taken[i] == TERSE_SLOT_NONE) {
            sizes[i] = (uint64_t)rand() % (rand() % 8 ? 2000 : 100000);
            taken[i] = terse_slots_take(slots, sizes[i]);
            if (taken[i] == TERSE_SLOT_NONE) {
                refused++;
                continue;
            }
            assert_int_equal(terse_slots_offset(slots, taken[i]) % TERSE_SLOT_ALIGN, 0);
            assert_true(terse_slots_size(slots, taken[i]) >= sizes[i]);
            assert_true(terse_slots_offset(slots, taken[i]) + terse_slots_size(slots, taken[i]) <= MEMORY);
            memset(terse_slots_data(slots, taken[i]), i, sizes[i]);
            used += terse_slots_size(slots, taken[i]);
        } else {
            const uint8_t *data = terse_slots_data(slots, taken[i]);
            for (uint64_t k = 0; k < sizes[i]; k++)
                if (data[k] != (uint8_t)i)
                    fail_msg("byte %d of range %d is %d", (int)k, i, data[k]);
            used -= terse_slots_size(slots, taken[i]);
            terse_slots_give(slots, taken[i]);
            taken[i] = TERSE_SLOT_NONE;
        }
        assert_int_equal(terse_slots_used(slots), used);
    }
    for (int i = 0; i < MANY; i++)
        if (taken[i] != TERSE_SLOT_NONE)
            terse_slots_give(slots, taken[i]);
    assert_int_not_equal(terse_slots_take(slots, MEMORY), TERSE_SLOT_NONE); /* all merged again */
    print_message("%d refused\n", refused);
    terse_slots_close(slots);
}

static void nobody_else_writes_inputs_or_resizes(void **state)
{
    (void)state;
    terse_slots *slots = open_slots(MEMORY, true);
    const int fd = terse_slots_fd(slots);
    assert_true(mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 2 * MEMORY), -1);
    uint8_t *seen = mmap(NULL, MEMORY, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(seen != MAP_FAILED);
    const uint32_t slot = terse_slots_take(slots, 100);
    memset(terse_slots_data(slots, slot), 42, 100);
    assert_int_equal(seen[terse_slots_offset(slots, slot) + 99], 42);
    munmap(seen, MEMORY);
    terse_slots_close(slots);
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    terse_slots *slots = NULL;
    terse_error error;
    assert_int_not_equal(terse_slots_open("test", 0, false, &slots, &error), TERSE_OK);
    assert_int_not_equal(terse_slots_open("test", UINT64_MAX, false, &slots, &error), TERSE_OK);
    assert_null(slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_can_be_taken_and_comes_back),
        cmocka_unit_test(random_ranges_keep_their_bytes),
        cmocka_unit_test(nobody_else_writes_inputs_or_resizes),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
