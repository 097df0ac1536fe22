/* SPDX-License-Identifier: Apache-2.0 */
/* The engine: inputs are checked, plans cached, values that shapes depend on known, errors named. */
#include "tests/unit/engine_ops.h"

static terse_engine *new_engine(const terse_graph *graph, int max_plans, size_t max_arena)
{
    terse_engine *engine;
    terse_error error;
    if (terse_engine_new_with(graph, NULL, max_plans, max_arena, find_test_op, &engine, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    return engine;
}

static terse_tensor shape_of(terse_dtype dtype, int rank, const int64_t *dims)
{
    return terse_tensor_view(NULL, dtype, rank, dims);
}

static void a_chain_runs_from_the_callers_input_into_the_callers_output(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(n, 3));
    const int a = ADD_OP(graph, TERSE_OP_SIGMOID, "a", x);
    const int b = ADD_OP(graph, TERSE_OP_RELU, "b", a);
    const int c = ADD_OP(graph, TERSE_OP_RELU, "c", b);
    add_output(graph, c);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 4, 0);
    terse_plan *plan;
    terse_error error;
    const terse_tensor in = shape_of(TERSE_FP32, 2, DIMS(2, 3));
    assert_int_equal(terse_engine_plan(engine, &in, &plan, &error), TERSE_OK);
    assert_int_equal(terse_plan_output(plan, 0)->dims[0], 2);
    assert_null(terse_plan_output(plan, 0)->data);
    assert_null(terse_plan_value(plan, a)->data);
    assert_int_equal(plan->n_copies, 0);
    assert_int_equal(terse_plan_arena_bytes(plan), 64); /* one buffer, in place twice */
    const float data[6] = {0, 1, 2, 3, 4, 5};
    float out[6] = {0};
    assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){out}, &error), TERSE_OK);
    for (int i = 0; i < 6; i++)
        assert_true(out[i] == ((data[i] * 3 + 3) * 3 + 2) * 3 + 2);
    assert_ptr_equal(plan->steps[0].call.outputs[0].data, out);
    /* Nobody wants a copy: it still runs. */
    assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){NULL}, &error), TERSE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_runs_from_the_callers_input_into_the_callers_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
