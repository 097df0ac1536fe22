/* SPDX-License-Identifier: Apache-2.0 */
/* test_ring.c: messages arrive whole and in order, and a side that lies breaks the ring, not its reader. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/ring.h"

enum { SIZE = 4096, LONGEST = 600 };

typedef struct pair {
    _Alignas(64) uint8_t memory[TERSE_RING_HEAD_BYTES + SIZE];
    uint8_t guard[64];
    terse_ring writer, reader;
} pair;

static pair *make_pair(void)
{
    pair *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    assert_non_null(p);
    memset(p, 0, sizeof *p);
    memset(p->guard, 0xa5, sizeof p->guard);
    terse_ring_open(&p->writer, p->memory, SIZE);
    terse_ring_open(&p->reader, p->memory, SIZE);
    return p;
}

static void free_pair(pair *p)
{
    for (size_t i = 0; i < sizeof p->guard; i++)
        assert_int_equal(p->guard[i], 0xa5);
    free(p);
}

static void fill(uint8_t *bytes, uint32_t n, unsigned seed)
{
    for (uint32_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(seed * 31 + i);
}

static void messages_come_whole_and_in_order(void **state)
{
    (void)state;
    const unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    pair *p = make_pair();
    unsigned sizes[100000], put = 0, taken = 0;
    uint8_t bytes[LONGEST], got[LONGEST];
    while (taken < 20000) {
        if (put < 20000 && rand() % 2) {
            const uint32_t n = (uint32_t)rand() % (LONGEST + 1);
            fill(bytes, n, put);
            if (terse_ring_put(&p->writer, bytes, n) == TERSE_RING_DONE)
                sizes[put++] = n;
            if (rand() % 3 == 0)
                terse_ring_tell(&p->writer);
            continue;
        }
        uint32_t n = UINT32_MAX;
        terse_ring_tell(&p->writer);
        const terse_ring_result result = terse_ring_take(&p->reader, got, sizeof got, &n);
        assert_int_not_equal(result, TERSE_RING_BROKEN);
        if (result == TERSE_RING_DONE) {
            assert_int_equal(n, sizes[taken]);
            fill(bytes, n, taken++);
            assert_memory_equal(bytes, got, n);
        } else {
            assert_int_equal(put, taken);
        }
        if (rand() % 3 == 0 || result == TERSE_RING_WAIT)
            terse_ring_release(&p->reader);
    }
    free_pair(p);
}

static void a_full_ring_waits_and_what_is_not_told_is_not_seen(void **state)
{
    (void)state;
    pair *p = make_pair();
    uint8_t bytes[LONGEST] = {0};
    uint32_t n;
    int put = 0;
    while (terse_ring_put(&p->writer, bytes, 504) == TERSE_RING_DONE)
        put++;
    assert_int_equal(put, SIZE / 512);
    assert_false(terse_ring_there(&p->reader));
    assert_false(terse_ring_tell(&p->writer)); /* nobody sleeps */
    assert_true(terse_ring_there(&p->reader));
    assert_true(terse_ring_await_room(&p->writer, 504));
    assert_int_equal(terse_ring_take(&p->reader, bytes, sizeof bytes, &n), TERSE_RING_DONE);
    assert_int_equal(terse_ring_put(&p->writer, bytes, 504), TERSE_RING_WAIT); /* not given back yet */
    assert_true(terse_ring_release(&p->reader));                               /* the writer sleeps: ring */
    assert_false(terse_ring_await_room(&p->writer, 504));
    assert_int_equal(terse_ring_put(&p->writer, bytes, 504), TERSE_RING_DONE);
    /* What can never fit waits for ever, and breaks nothing. */
    assert_int_equal(terse_ring_put(&p->writer, bytes, 1 << 20), TERSE_RING_WAIT);
    free_pair(p);
}

static void a_sleeper_is_woken_once(void **state)
{
    (void)state;
    pair *p = make_pair();
    uint8_t bytes[8] = {0};
    uint32_t n;
    assert_true(terse_ring_await(&p->reader));
    terse_ring_put(&p->writer, bytes, 8);
    assert_true(terse_ring_tell(&p->writer));
    terse_ring_put(&p->writer, bytes, 8);
    assert_false(terse_ring_tell(&p->writer)); /* it has been rung for */
    assert_false(terse_ring_awake(&p->reader));
    assert_int_equal(terse_ring_take(&p->reader, bytes, sizeof bytes, &n), TERSE_RING_DONE);
    assert_false(terse_ring_await(&p->reader)); /* there is one more */
    assert_int_equal(terse_ring_take(&p->reader, bytes, sizeof bytes, &n), TERSE_RING_DONE);
    assert_true(terse_ring_await(&p->reader));
    assert_true(terse_ring_awake(&p->reader)); /* nobody rang */
    free_pair(p);
}

static void positions_and_lengths_that_cannot_be_break_it(void **state)
{
    (void)state;
    static const uint64_t puts[] = {4, 12, SIZE + 8, UINT64_MAX, UINT64_MAX - 7, UINT64_C(1) << 40, 8};
    uint8_t bytes[LONGEST];
    uint32_t n;
    for (size_t i = 0; i < sizeof puts / sizeof puts[0]; i++) {
        pair *p = make_pair();
        memset(p->memory + TERSE_RING_HEAD_BYTES, 0xff, 8); /* a length far beyond, for the last one */
        atomic_store(&p->reader.shared->put, puts[i]);
        assert_true(terse_ring_there(&p->reader));
        assert_int_equal(terse_ring_take(&p->reader, bytes, sizeof bytes, &n), TERSE_RING_BROKEN);
        atomic_store(&p->reader.shared->put, 0); /* for good */
        assert_int_equal(terse_ring_take(&p->reader, bytes, sizeof bytes, &n), TERSE_RING_BROKEN);
        free_pair(p);
    }
    static const uint64_t takens[] = {8, 4, UINT64_MAX, SIZE, UINT64_C(1) << 63};
    for (size_t i = 0; i < sizeof takens / sizeof takens[0]; i++) {
        pair *p = make_pair();
        atomic_store(&p->writer.shared->taken, takens[i]);
        assert_int_equal(terse_ring_put(&p->writer, bytes, 8), TERSE_RING_BROKEN);
        assert_int_equal(terse_ring_put(&p->writer, bytes, 8), TERSE_RING_BROKEN);
        free_pair(p);
    }
}

static void random_damage_is_survived(void **state)
{
    (void)state;
    const unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 3000; round++) {
        pair *p = make_pair();
        uint8_t bytes[LONGEST] = {0};
        for (int i = 0; i < 30; i++) {
            uint32_t n = 0;
            uint64_t word = (uint64_t)rand() % (3 * SIZE);
            if (rand() % 4 == 0)
                word = (uint64_t)rand() << 33 ^ (uint64_t)rand();
            memcpy(p->memory + 64 * (size_t)(rand() % 4), &word, sizeof word);
            memcpy(p->memory + TERSE_RING_HEAD_BYTES + rand() % (SIZE - 8), &word, sizeof word);
            if (terse_ring_take(&p->reader, bytes, sizeof bytes, &n) == TERSE_RING_DONE)
                assert_true(n <= sizeof bytes);
            terse_ring_put(&p->writer, bytes, (uint32_t)rand() % LONGEST);
            terse_ring_tell(&p->writer);
            terse_ring_release(&p->reader);
            terse_ring_await(&p->reader);
        }
        free_pair(p);
    }
}

/* --- two threads ---------------------------------------------------------------------------------------------- */

enum { MANY = 200000 };

static void *write_many(void *user)
{
    pair *p = user;
    for (uint64_t i = 0; i < MANY;) {
        const uint64_t message[2] = {i, i * i};
        if (terse_ring_put(&p->writer, message, sizeof message) == TERSE_RING_DONE)
            i++;
        terse_ring_tell(&p->writer);
    }
    return NULL;
}

static void two_threads_lose_nothing(void **state)
{
    (void)state;
    pair *p = make_pair();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_many, p), 0);
    for (uint64_t i = 0; i < MANY;) {
        uint64_t message[2];
        uint32_t n = 0;
        if (terse_ring_take(&p->reader, message, sizeof message, &n) == TERSE_RING_DONE) {
            assert_int_equal(n, sizeof message);
            assert_int_equal(message[0], i);
            assert_int_equal(message[1], i * i);
            i++;
        }
        terse_ring_release(&p->reader);
    }
    pthread_join(thread, NULL);
    free_pair(p);
}

/* Both sleep as processes do, each until the other rings: a doorbell that is missing once keeps both asleep. */
typedef struct sleepers {
    pair *pair;
    sem_t there, room;
    _Atomic bool lost;
} sleepers;

static void sleep_for(sleepers *s, sem_t *bell)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 60;
    if (sem_timedwait(bell, &end) != 0)
        s->lost = true;
}

static void *write_and_sleep(void *user)
{
    sleepers *s = user;
    terse_ring *ring = &s->pair->writer;
    uint8_t message[LONGEST] = {0};
    for (uint64_t i = 0; i < MANY && !s->lost;) {
        memcpy(message, &i, sizeof i);
        const uint32_t bytes = i / 1000 % 2 ? LONGEST : sizeof i; /* that wait for room, and that wait for more */
        if (terse_ring_put(ring, message, bytes) == TERSE_RING_DONE) {
            i++;
            if (terse_ring_tell(ring))
                sem_post(&s->there);
        } else if (terse_ring_await_room(ring, bytes)) {
            sleep_for(s, &s->room);
        }
    }
    return NULL;
}

static void no_doorbell_is_missing(void **state)
{
    (void)state;
    sleepers s = {.pair = make_pair()};
    pthread_t thread;
    sem_init(&s.there, 0, 0);
    sem_init(&s.room, 0, 0);
    assert_int_equal(pthread_create(&thread, NULL, write_and_sleep, &s), 0);
    uint64_t taken = 0, sleeps = 0;
    while (taken < MANY && !s.lost) {
        uint8_t message[LONGEST];
        uint64_t number = UINT64_MAX;
        uint32_t n = 0;
        if (terse_ring_take(&s.pair->reader, message, sizeof message, &n) == TERSE_RING_DONE) {
            memcpy(&number, message, sizeof number);
            s.lost |= number != taken++;
            continue;
        }
        if (terse_ring_release(&s.pair->reader))
            sem_post(&s.room);
        if (!terse_ring_await(&s.pair->reader))
            continue;
        sleep_for(&s, &s.there);
        sleeps++;
    }
    pthread_join(thread, NULL);
    assert_false(s.lost);
    print_message("%llu sleeps\n", (unsigned long long)sleeps);
    sem_destroy(&s.there);
    sem_destroy(&s.room);
    free_pair(s.pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_whole_and_in_order),
        cmocka_unit_test(a_full_ring_waits_and_what_is_not_told_is_not_seen),
        cmocka_unit_test(a_sleeper_is_woken_once),
        cmocka_unit_test(positions_and_lengths_that_cannot_be_break_it),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(two_threads_lose_nothing),
        cmocka_unit_test(no_doorbell_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
