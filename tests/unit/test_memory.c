/* SPDX-License-Identifier: Apache-2.0 */
/* What a run needs: sizes as written, the estimate's order, what groups leave; pieces in files keep their bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "compress/memory.h"
#include "compress/spill.h"

static const uint64_t mib = 1 << 20;

static void sizes_are_read(void **state)
{
    (void)state;
    assert_int_equal(terse_memory_parse("1"), 1);
    assert_int_equal(terse_memory_parse("500M"), 500 * mib);
    assert_int_equal(terse_memory_parse("2G"), 2048 * mib);
    assert_int_equal(terse_memory_parse("1.5GiB"), 1536 * mib);
    assert_int_equal(terse_memory_parse("64kB"), 65536);
    static const char *const wrong[] = {"", "0", "-1", "2X", "2GG", "G", "nan", "inf", " 2G", "2G ", "1e30", "0.1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (terse_memory_parse(wrong[i]) != 0)
            fail_msg("'%s' was taken", wrong[i]);
}

/* A network of 10 MiB that has 1 MiB of numbers a sample, for 100 samples. */
static terse_memory_of network(void)
{
    return (terse_memory_of){.file = 10 * mib,
                             .matrices = 2 * mib,
                             .other = 8 * mib,
                             .samples = 20 * mib,
                             .sample = 20 * mib / 100,
                             .n_samples = 100,
                             .live = mib,
                             .all = 4 * mib,
                             .widest = 8 * mib,
                             .squares = 40 * mib,
                             .widest_weights = 4 * mib};
}

static void check_parts(const terse_memory *m)
{
    const uint64_t sum = m->weights + m->samples + m->numbers + m->moments;
    assert_true(m->least <= m->need);
    assert_true(m->need <= sum + 4 && sum <= m->need + 4);
}

static void parts_make_the_need(void **state)
{
    (void)state;
    terse_memory_of of = network();
    terse_options o = {.goal = {.max_drop = -1}};
    const terse_memory plain = terse_memory_estimate(&of, &o);
    o.low_rank.target = TERSE_LOW_RANK_SHARE;
    const terse_memory factored = terse_memory_estimate(&of, &o);
    o.low_rank.target = TERSE_LOW_RANK_NONE;
    o.prune = 0.5;
    o.prune_kind = TERSE_PRUNE_CHANNELS;
    const terse_memory cut = terse_memory_estimate(&of, &o);
    check_parts(&plain);
    check_parts(&factored);
    check_parts(&cut);
    assert_int_equal(plain.numbers, 0);
    /* all hundred samples, before and after; under a bound a chunk of them */
    assert_true(factored.numbers > 200 * mib && factored.numbers < 250 * mib);
    assert_true(factored.least + 150 * mib < factored.need);
    assert_true(cut.need > factored.need); /* the second moments of all layers */
    of.live = 64 * mib;                    /* room for eight samples only */
    o.prune_kind = TERSE_PRUNE_4X1;
    const terse_memory few = terse_memory_estimate(&of, &o);
    check_parts(&few);
    assert_true(few.numbers > 1024 * mib && few.numbers < 1100 * mib);
    char text[TERSE_MEMORY_TEXT];
    assert_non_null(strstr(terse_memory_text(&few, text), "GiB of memory: weights "));
}

static void put(const char *root, const char *path, const char *text)
{
    char whole[600], *slash;
    snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (slash = strchr(whole + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *file = fopen(whole, "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void groups_leave_less(void **state)
{
    (void)state;
    char root[] = "/tmp/terse-memory-XXXXXX", command[64];
    assert_non_null(mkdtemp(root));
    assert_true(terse_memory_free(root) == UINT64_MAX);
    put(root, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n");
    assert_int_equal(terse_memory_free(root), 5000 * 1024);
    put(root, "proc/self/cgroup", "1:cpu:/x\n0::/a.slice/b.service\n");
    put(root, "sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
    put(root, "sys/fs/cgroup/a.slice/memory.max", "3000000\n");
    put(root, "sys/fs/cgroup/a.slice/memory.current", "1000000\n");
    assert_int_equal(terse_memory_free(root), 2000000);
    put(root, "sys/fs/cgroup/a.slice/memory.current", "4000000\n");
    assert_int_equal(terse_memory_free(root), 0);
    snprintf(command, sizeof command, "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
}

static void pieces_keep_their_bytes(void **state)
{
    (void)state;
    enum { PIECES = 9, STEP = 40961 };
    unsigned char *pieces[PIECES], *from = malloc(PIECES * STEP);
    assert_non_null(from);
    for (size_t i = 0; i < PIECES * STEP; i++)
        from[i] = (unsigned char)(i * 2654435761u >> 13);
    terse_error error = {0};
    assert_false(terse_spill_is_on());
    terse_spill_into("/tmp");
    for (size_t i = 0; i < PIECES; i++) {
        void *piece;
        assert_int_equal(terse_spill_copy(from, i * STEP, &piece, &error), TERSE_OK);
        pieces[i] = piece;
        assert_int_equal((uintptr_t)piece % 64, 0);
    }
    for (size_t i = 1; i < PIECES; i++) {
        assert_memory_equal(pieces[i], from, i * STEP);
        pieces[i][i] ^= 1;
        terse_spill_rest(pieces[i]);
        assert_int_equal(pieces[i][i], from[i] ^ 1);
        terse_spill_free(pieces[i]);
    }
    terse_spill_free(pieces[0]);
    terse_spill_free(NULL);
    void *zeros;
    assert_int_equal(terse_spill_new(100000, &zeros, &error), TERSE_OK);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(((unsigned char *)zeros)[i], 0);
    terse_spill_free(zeros);
    terse_spill_into("/nonexistent/terse");
    assert_int_equal(terse_spill_new(1, &zeros, &error), TERSE_SYSTEM);
    assert_non_null(strstr(error.message, "/nonexistent/terse"));
    terse_spill_into(NULL);
    free(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(parts_make_the_need),
        cmocka_unit_test(groups_leave_less),
        cmocka_unit_test(pieces_keep_their_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
