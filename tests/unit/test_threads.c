/* SPDX-License-Identifier: Apache-2.0 */
/* The pool of threads, and networks on several threads, which give the bits of one. */
#include <stdatomic.h>

#include "tests/unit/threads_case.h"

/* --- the pool ------------------------------------------------------------------------------------------------ */

typedef struct tally {
    _Atomic int done[200];
    _Atomic int inside[TERSE_MAX_THREADS];
    _Atomic int wrong;
    int limit, work;
    long total;
} tally;

static void count_part(void *context, int part, int thread)
{
    tally *t = context;
    if (thread < 0 || thread >= t->limit || atomic_fetch_add(&t->inside[thread], 1) != 0)
        t->wrong++;
    volatile int spent = 0;
    while (spent < t->work)
        spent = spent + 1;
    atomic_fetch_add(&t->done[part], 1);
    if (thread >= 0 && thread < t->limit)
        atomic_fetch_sub(&t->inside[thread], 1);
}

static void check_job(terse_threads *pool, int limit, int parts, int work)
{
    tally t = {.limit = limit, .work = work};
    terse_threads_run(pool, limit, parts, count_part, &t);
    assert_int_equal(t.wrong, 0);
    for (int i = 0; i < 200; i++)
        assert_int_equal(t.done[i], i < parts);
}

static void test_pool(void **test_state)
{
    (void)test_state;
    terse_error error;
    for (int n = 1; n <= 6; n++) {
        terse_threads *pool = NULL;
        assert_int_equal(terse_threads_new(n, &pool, &error), TERSE_OK);
        assert_int_equal(terse_threads_count(pool), n);
        for (int round = 0; round < 400; round++)
            check_job(pool, (int)random_in(1, n), (int)random_in(0, 12), round % 8 ? 100 : 20000);
        check_job(pool, n, 200, 1000);
        terse_threads_free(pool);
    }
    terse_threads_free(NULL);
}

/* Started and stopped at once, asleep and awake: nobody is waited for in vain. */
static void test_pool_ends(void **test_state)
{
    (void)test_state;
    terse_error error;
    for (int round = 0; round < 50; round++) {
        TERSE_AUTO(terse_threads_freep) terse_threads *pool = NULL;
        assert_int_equal(terse_threads_new(4, &pool, &error), TERSE_OK);
        for (int i = 0; i < round % 3; i++)
            check_job(pool, 4, 3, 0);
    }
}

static void test_pool_bounds(void **test_state)
{
    (void)test_state;
    terse_threads *pool = NULL;
    terse_error error = {0};
    assert_int_equal(terse_threads_new(0, &pool, &error), TERSE_INVALID_ARGUMENT);
    assert_int_equal(terse_threads_new(TERSE_MAX_THREADS + 1, &pool, &error), TERSE_INVALID_ARGUMENT);
    assert_null(pool);
    assert_non_null(strstr(error.message, "allowed are 1 to 64"));
}

/* Ranges meet without holes, whatever the numbers are. */
static void test_ranges(void **test_state)
{
    (void)test_state;
    for (int round = 0; round < 20000; round++) {
        const int64_t units = random_in(0, 300), align = random_in(1, 70), parts = random_in(1, 40);
        int64_t next = 0;
        for (int64_t i = 0; i < parts; i++) {
            int64_t first, last;
            terse_split_part(units, align, parts, i, &first, &last);
            if (first >= last)
                continue;
            assert_int_equal(first, next);
            assert_int_equal(first % align, 0);
            assert_true(last == units || last % align == 0);
            next = last;
        }
        assert_int_equal(next, units);
    }
}

/* --- the engine ---------------------------------------------------------------------------------------------- */

/* Convolutions, dense and depthwise, pools, products with one row and with many, and attention by heads. */
static terse_graph *mixed_graph(void)
{
    terse_graph *g = terse_graph_new();
    const int image = make_input(g, "image", 4, (int64_t[]){2, 8, 40, 37});
    int x = make_relu(g, make_conv(g, image, 8, 32, 3, 1, 1, 1));
    x = make_conv(g, x, 32, 32, 3, 2, 1, 32);
    x = make_conv(g, x, 32, 96, 1, 1, 0, 1);
    x = make_node(g, TERSE_OP_SIGMOID, INPUTS(x));
    const int pooled = make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(x));
    const int flat = make_node(g, TERSE_OP_RESHAPE, INPUTS(pooled, make_ints(g, 2, (int64_t[]){2, 96})));
    make_output(g, make_node(g, TERSE_OP_GEMM, INPUTS(flat, make_weights(g, 0, 0.3f, DIMS(96, 2500)))));
    const int q = make_input(g, "q", 4, (int64_t[]){2, 70, 3, 20});
    const int k = make_input(g, "k", 4, (int64_t[]){2, 65, 3, 20}), v = make_input(g, "v", 4, (int64_t[]){2, 65, 3, 9});
    make_output(g, make_node(g, TERSE_OP_HEAD_ATTENTION, INPUTS(q, k, v)));
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(q, make_weights(g, 0, 0.3f, DIMS(20, 150)))));
    return g;
}

/* Runs `runs` times on n threads; every answer must be `want`. */
static void check_engine(const terse_graph *g, const answers *want, int n, terse_split_mode mode, int runs)
{
    TERSE_AUTO(terse_threads_freep) terse_threads *pool = NULL;
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = NULL;
    const terse_kernels *kernels;
    terse_error error;
    terse_plan *plan;
    terse_tensor inputs[16];
    const void *in[16];
    void *out[16];
    assert_int_equal(terse_kernels_get(&kernels, &error), TERSE_OK);
    assert_int_equal(terse_threads_new(n, &pool, &error), TERSE_OK);
    assert_int_equal(terse_engine_new(g, kernels, 2, 0, &engine, &error), TERSE_OK);
    assert_int_equal(terse_engine_use_threads(engine, pool, n, &error), TERSE_OK);
    terse_engine_set_split_mode(engine, mode);
    random_inputs(g, 1, 7, inputs);
    assert_int_equal(terse_engine_plan(engine, inputs, &plan, &error), TERSE_OK);
    for (int i = 0; i < g->n_inputs; i++)
        in[i] = inputs[i].data;
    for (int run = 0; run < runs; run++) {
        if (mode == TERSE_SPLIT_MEASURED)
            assert_int_equal(terse_plan_measuring(plan), n > 1 && run < TERSE_TRIALS);
        for (int i = 0; i < want->n; i++)
            out[i] = calloc(1, (size_t)terse_tensor_bytes(&want->tensors[i]) + 1);
        assert_int_equal(terse_plan_run(plan, in, out, &error), TERSE_OK);
        for (int i = 0; i < want->n; i++) {
            assert_memory_equal(out[i], want->tensors[i].data, (size_t)terse_tensor_bytes(&want->tensors[i]));
            free(out[i]);
        }
    }
    for (int i = 0; i < g->n_inputs; i++)
        free(inputs[i].data);
    if (n > 1)
        assert_int_equal(terse_engine_use_threads(engine, pool, n, &error), TERSE_INTERNAL);
}

static void test_engine(void **test_state)
{
    (void)test_state;
    TERSE_AUTO(terse_graph_freep) terse_graph *g = mixed_graph();
    answers want = answer(g, 1, 7);
    for (int n = 1; n <= 4; n++) {
        check_engine(g, &want, n, TERSE_SPLIT_ALWAYS, 3);
        check_engine(g, &want, n, TERSE_SPLIT_MEASURED, TERSE_TRIALS + 3);
    }
    answers_done(&want);
}

int main(void)
{
    random_begin();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool),   cmocka_unit_test(test_pool_ends), cmocka_unit_test(test_pool_bounds),
        cmocka_unit_test(test_ranges), cmocka_unit_test(test_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
