/* SPDX-License-Identifier: Apache-2.0 */
/* test_arenas.c: shared memory is given by quota and token, and no two outputs get the same place. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/frontend/arenas.h"

enum { ALICE = 1000, BOB = 1001 };

static terse_client_arena *open_arena(terse_arenas *arenas, uint32_t uid, uint64_t inputs, uint64_t outputs, int wanted)
{
    terse_client_arena *arena = NULL;
    terse_error error = {0};
    const int status = terse_arenas_open(arenas, uid, inputs, outputs, &arena, &error);
    if (status != wanted)
        fail_msg("status %d, wanted %d: %s", status, wanted, error.message);
    return arena;
}

static void end(terse_arenas *arenas, terse_client_arena *arena)
{
    terse_arenas_close(arenas, arena);
    terse_arenas_settled(arenas, arena);
}

static void quotas_are_by_user_and_come_back(void **state)
{
    (void)state;
    terse_arenas *arenas = calloc(1, sizeof *arenas);
    arenas->bytes_per_uid = 64 * 1024;
    arenas->per_uid = 3;
    terse_client_arena *a = open_arena(arenas, ALICE, 1, 4097, TERSE_OK);
    assert_int_equal(a->input_bytes, 4096);
    assert_int_equal(a->output_bytes, 8192);
    open_arena(arenas, ALICE, 32 * 1024, 32 * 1024, TERSE_RESOURCE_EXHAUSTED);
    open_arena(arenas, ALICE, UINT64_MAX, 1, TERSE_INVALID_ARGUMENT);
    open_arena(arenas, ALICE, UINT64_C(1) << 40, UINT64_C(1) << 40, TERSE_RESOURCE_EXHAUSTED);
    terse_client_arena *b = open_arena(arenas, BOB, 32 * 1024, 32 * 1024, TERSE_OK);
    terse_client_arena *c = open_arena(arenas, ALICE, 1, 1, TERSE_OK), *d = open_arena(arenas, ALICE, 1, 1, TERSE_OK);
    open_arena(arenas, ALICE, 1, 1, TERSE_RESOURCE_EXHAUSTED);
    /* A worker that still has it counts: the memory is in use. */
    terse_arenas_close(arenas, c);
    c->told[0] = 1;
    terse_arenas_settled(arenas, c);
    open_arena(arenas, ALICE, 1, 1, TERSE_RESOURCE_EXHAUSTED);
    c->told[0] = 0;
    terse_arenas_settled(arenas, c);
    c = open_arena(arenas, ALICE, 1, 1, TERSE_OK);
    end(arenas, a);
    end(arenas, b);
    end(arenas, c);
    end(arenas, d);
    assert_int_equal(arenas->n + arenas->n_leaving, 0);
    terse_arenas_done(arenas);
    free(arenas);
}

static void tokens_name_the_living(void **state)
{
    (void)state;
    terse_arenas *arenas = calloc(1, sizeof *arenas);
    arenas->bytes_per_uid = UINT64_C(1) << 30;
    arenas->per_uid = TERSE_MAX_ARENAS;
    enum { MANY = 100 };
    terse_client_arena *all[MANY];
    uint8_t token[TERSE_WIRE_ARENA_BYTES] = {0};
    for (int i = 0; i < MANY; i++)
        all[i] = open_arena(arenas, ALICE, 1, 1, TERSE_OK);
    assert_null(terse_arenas_find(arenas, token));
    for (int i = 0; i < MANY; i++) {
        assert_ptr_equal(terse_arenas_find(arenas, all[i]->token), all[i]);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(all[i]->number, all[k]->number);
    }
    memcpy(token, all[7]->token, sizeof token);
    end(arenas, all[7]);
    assert_null(terse_arenas_find(arenas, token));
    terse_arenas_done(arenas);
    free(arenas);
}

static void the_memory_is_sealed(void **state)
{
    (void)state;
    terse_arenas *arenas = calloc(1, sizeof *arenas);
    arenas->bytes_per_uid = 1 << 20;
    arenas->per_uid = 1;
    const terse_client_arena *arena = open_arena(arenas, ALICE, 8192, 8192, TERSE_OK);
    const int fds[] = {arena->fds.inputs, arena->fds.outputs, arena->fds.rings};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        struct stat info;
        assert_int_not_equal(ftruncate(fds[i], 0), 0);
        assert_int_not_equal(ftruncate(fds[i], 1 << 20), 0);
        assert_int_not_equal(fcntl(fds[i], F_ADD_SEALS, F_SEAL_WRITE), 0);
        assert_int_equal(fstat(fds[i], &info), 0);
    }
    terse_arenas_done(arenas);
    free(arenas);
}

static void places_are_inside_and_aligned(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset, bytes;
        bool good;
    } cases[] = {
        {0, 0, true},
        {0, 4096, true},
        {0, 4097, false},
        {4096, 0, true},
        {4096, 1, false},
        {64, 4032, true},
        {64, 4033, false},
        {1, 1, false},
        {63, 1, false},
        {4095, 1, false},
        {UINT64_MAX, 1, false},
        {UINT64_MAX - 63, 64, false},
        {64, UINT64_MAX, false},
        {UINT64_MAX - 63, UINT64_MAX, false},
        {UINT64_C(1) << 48, 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        terse_error error;
        const int status = terse_arena_check(cases[i].offset, cases[i].bytes, 4096, "input 'x'", &error);
        if ((status == TERSE_OK) != cases[i].good)
            fail_msg("case %zu", i);
        if (status)
            assert_non_null(strstr(error.message, "input 'x'"));
    }
}

static void claims_never_overlap(void **state)
{
    (void)state;
    const unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    enum { BYTES = 1 << 16, UNITS = BYTES / 64, MANY = 40 };
    terse_arenas *arenas = calloc(1, sizeof *arenas);
    arenas->bytes_per_uid = 1 << 20;
    arenas->per_uid = 1;
    terse_client_arena *arena = open_arena(arenas, ALICE, 1, BYTES, TERSE_OK);
    static uint8_t owner[UNITS];
    uint64_t offsets[MANY] = {0}, sizes[MANY] = {0};
    for (int turn = 0; turn < 200000; turn++) {
        const int i = rand() % MANY;
        if (sizes[i]) {
            terse_arena_unclaim(arena, offsets[i], sizes[i]);
            for (uint64_t u = offsets[i] / 64; u < (offsets[i] + sizes[i] + 63) / 64; u++)
                owner[u] = 0;
            sizes[i] = 0;
            continue;
        }
        const uint64_t offset = 64 * (uint64_t)(rand() % UNITS);
        const uint64_t bytes = 1 + (uint64_t)rand() % (rand() % 4 ? 300 : 20000);
        if (offset + bytes > BYTES)
            continue;
        bool free_there = true;
        for (uint64_t u = offset / 64; u < (offset + bytes + 63) / 64; u++)
            free_there = free_there && !owner[u];
        assert_int_equal(terse_arena_claim(arena, offset, bytes), free_there);
        if (!free_there)
            continue;
        offsets[i] = offset;
        sizes[i] = bytes;
        for (uint64_t u = offset / 64; u < (offset + bytes + 63) / 64; u++)
            owner[u] = 1;
    }
    terse_arenas_done(arenas);
    free(arenas);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas_are_by_user_and_come_back),
        cmocka_unit_test(tokens_name_the_living),
        cmocka_unit_test(the_memory_is_sealed),
        cmocka_unit_test(places_are_inside_and_aligned),
        cmocka_unit_test(claims_never_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
