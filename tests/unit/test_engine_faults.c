/* SPDX-License-Identifier: Apache-2.0 */
/* The engine without memory: whichever allocation fails, it says so, leaks nothing and works when there is memory
 * again. */
#include <dlfcn.h>
#include <errno.h>

#include "tests/unit/engine_ops.h"

static int calls_left = -1; /* allocations until one fails; negative: none fails */

#ifndef __SANITIZE_ADDRESS__ /* which has an allocator of its own: there nothing fails, and the stories are skipped */
#define MAY_FAIL 1
/* Arenas of both kinds come from here. */
void *aligned_alloc(size_t alignment, size_t size)
{
    static void *(*real)(size_t, size_t);
    if (!real) {
        void *symbol = dlsym(RTLD_NEXT, "aligned_alloc");
        memcpy(&real, &symbol, sizeof real);
    }
    if (calls_left >= 0 && calls_left-- == 0) {
        errno = ENOMEM;
        return NULL;
    }
    return real(alignment, size);
}
#else
#define MAY_FAIL 0
#endif

/* A concat with a view, known shapes, scratch, and more nodes than one block of an arena holds. */
static terse_graph *large_graph(void)
{
    terse_graph *graph = terse_graph_new();
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(n, 4));
    const int flat = terse_graph_add_ints(graph, "flat", DIMS(-1), 1);
    const int a = ADD_OP(graph, TERSE_OP_CONV, "a", x);
    const int b = ADD_OP(graph, TERSE_OP_SIGMOID, "b", x);
    int y = ADD_JOINED(graph, "joined", 1, a, b, a);
    for (int i = 0; i < 1500; i++)
        y = ADD_OP(graph, i % 3 ? TERSE_OP_SIGMOID : TERSE_OP_SOFTMAX, "y", y);
    add_output(graph, ADD_OP(graph, TERSE_OP_RESHAPE, "flattened", y, flat));
    add_output(graph, ADD_OP(graph, TERSE_OP_SHAPE, "shape", y));
    return graph;
}

static int plan_and_run(terse_engine *engine, float *ret_first, terse_error *error)
{
    const terse_tensor in = terse_tensor_view(NULL, TERSE_FP32, 2, DIMS(2, 4));
    terse_plan *plan;
    const int status = terse_engine_plan(engine, &in, &plan, error);
    if (status != TERSE_OK)
        return status;
    const float data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    float out[24];
    int64_t shape[2];
    const int left = calls_left;
    assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){out, shape}, NULL), TERSE_OK);
    assert_int_equal(calls_left, left); /* running allocates nothing */
    *ret_first = out[0];
    return TERSE_OK;
}

static void any_allocation_may_fail_while_an_engine_is_made(void **state)
{
    (void)state;
    if (!MAY_FAIL)
        skip();
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = large_graph();
    int failures = 0;
    for (int status = TERSE_RESOURCE_EXHAUSTED; status != TERSE_OK;) {
        TERSE_AUTO(terse_engine_freep) terse_engine *engine = NULL;
        terse_error error;
        calls_left = failures;
        status = terse_engine_new_with(graph, NULL, 2, 0, find_test_op, &engine, &error);
        calls_left = -1;
        if (status == TERSE_OK)
            break;
        assert_int_equal(status, TERSE_RESOURCE_EXHAUSTED);
        assert_null(engine);
        failures++;
    }
    assert_true(failures > 1);
}

static void any_allocation_may_fail_while_a_plan_is_made(void **state)
{
    (void)state;
    if (!MAY_FAIL)
        skip();
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = large_graph();
    TERSE_AUTO(terse_engine_freep) terse_engine *sound = NULL;
    assert_int_equal(terse_engine_new_with(graph, NULL, 2, 0, find_test_op, &sound, NULL), TERSE_OK);
    float expected, found = 0;
    assert_int_equal(plan_and_run(sound, &expected, NULL), TERSE_OK);
    int failures = 0;
    for (int status = TERSE_RESOURCE_EXHAUSTED; status != TERSE_OK; failures++) {
        TERSE_AUTO(terse_engine_freep) terse_engine *engine = NULL;
        assert_int_equal(terse_engine_new_with(graph, NULL, 2, 0, find_test_op, &engine, NULL), TERSE_OK);
        terse_error error;
        calls_left = failures;
        status = plan_and_run(engine, &found, &error);
        calls_left = -1;
        if (status != TERSE_OK) {
            assert_int_equal(status, TERSE_RESOURCE_EXHAUSTED);
            assert_int_equal(plan_and_run(engine, &found, NULL), TERSE_OK);
        }
        assert_true(found == expected);
    }
    assert_true(failures > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_allocation_may_fail_while_an_engine_is_made),
        cmocka_unit_test(any_allocation_may_fail_while_a_plan_is_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
