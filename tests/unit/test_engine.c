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

/* x [N,3] and y [N,T] are added up after a look at each: symbols must agree. */
static terse_graph *two_inputs(void)
{
    terse_graph *graph = terse_graph_new();
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int64_t t = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "T"));
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(n, 3));
    const int y = add_input(graph, "y", TERSE_FP32, 3, DIMS(t, n, t));
    add_output(graph, ADD_OP(graph, TERSE_OP_RELU, "a", x));
    add_output(graph, ADD_OP(graph, TERSE_OP_RELU, "b", y));
    return graph;
}

static void expect_refusal(terse_engine *engine, terse_tensor x, terse_tensor y, terse_status status,
                           const char *message)
{
    terse_plan *plan = NULL;
    terse_error error = {0};
    assert_int_equal(terse_engine_plan(engine, (terse_tensor[]){x, y}, &plan, &error), status);
    assert_int_equal(error.status, status);
    assert_null(plan);
    assert_string_equal(error.message, message);
}

static void inputs_that_do_not_fit_are_refused_by_name(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = two_inputs();
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 4, 0);
    const terse_tensor x = shape_of(TERSE_FP32, 2, DIMS(2, 3)), y = shape_of(TERSE_FP32, 3, DIMS(5, 2, 5));
    terse_plan *plan;
    terse_error error;
    assert_int_equal(terse_engine_plan(engine, (terse_tensor[]){x, y}, &plan, &error), TERSE_OK);
    assert_int_equal(terse_engine_value_inputs(engine), 0);
    expect_refusal(engine, shape_of(TERSE_INT64, 2, DIMS(2, 3)), y, TERSE_INVALID_ARGUMENT,
                   "input 'x' is INT64, FP32 is needed");
    expect_refusal(engine, shape_of(TERSE_FP32, 1, DIMS(2)), y, TERSE_INVALID_ARGUMENT,
                   "input 'x' has shape [2], [N,3] is needed");
    expect_refusal(engine, shape_of(TERSE_FP32, 2, DIMS(2, 4)), y, TERSE_INVALID_ARGUMENT,
                   "input 'x' has shape [2,4], [N,3] is needed: axis 1 must be 3");
    expect_refusal(engine, shape_of(TERSE_FP32, 2, DIMS(-1, 3)), y, TERSE_INVALID_ARGUMENT,
                   "input 'x' has shape [-1,3], which is negative or too large");
    expect_refusal(engine, shape_of(TERSE_FP32, 2, DIMS(INT64_MAX, 3)), y, TERSE_INVALID_ARGUMENT,
                   "input 'x' has shape [9223372036854775807,3], which is negative or too large");
    expect_refusal(engine, x, shape_of(TERSE_FP32, 3, DIMS(5, 4, 5)), TERSE_INVALID_ARGUMENT,
                   "input 'y' has shape [5,4,5], [T,N,T] is needed: 'N' is 4 on axis 1, input 'x' made it 2");
    expect_refusal(engine, x, shape_of(TERSE_FP32, 3, DIMS(5, 2, 6)), TERSE_INVALID_ARGUMENT,
                   "input 'y' has shape [5,2,6], [T,N,T] is needed: 'T' is 6 on axis 2, input 'y' made it 5");
    terse_tensor wild = x;
    wild.rank = 99;
    expect_refusal(engine, wild, y, TERSE_INVALID_ARGUMENT, "input 'x' has rank 99, 2 is needed");
    wild.rank = -1;
    expect_refusal(engine, wild, y, TERSE_INVALID_ARGUMENT, "input 'x' has rank -1, 2 is needed");
    assert_int_equal(engine->n_plans, 1);
}

static void the_least_recently_used_plan_goes_first(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = two_inputs();
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 2, 0);
    const struct {
        int64_t rows;
        bool made;
    } calls[] = {{1, true}, {2, true}, {1, false}, {3, true}, {1, false}, {3, false}, {2, true}, {3, false}, {1, true}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        const int64_t n = calls[i].rows;
        const terse_tensor in[2] = {shape_of(TERSE_FP32, 2, DIMS(n, 3)), shape_of(TERSE_FP32, 3, DIMS(4, n, 4))};
        terse_plan *plan;
        ops_planned = 0;
        assert_int_equal(terse_engine_plan(engine, in, &plan, NULL), TERSE_OK);
        assert_int_equal(ops_planned, calls[i].made ? 2 : 0);
        assert_int_equal(terse_plan_output(plan, 0)->dims[0], n);
        assert_true(engine->n_plans <= 2);
    }
}

static void a_larger_plan_moves_the_arena_and_smaller_ones_follow(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(n, 4));
    const int a = ADD_OP(graph, TERSE_OP_SOFTMAX, "a", x);
    add_output(graph, ADD_OP(graph, TERSE_OP_SIGMOID, "b", a));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 8, 0);
    for (int round = 0; round < 3; round++)
        for (int64_t rows_now = 1; rows_now <= 100000; rows_now *= 100) {
            const terse_tensor in = shape_of(TERSE_FP32, 2, DIMS(rows_now, 4));
            const size_t count = (size_t)rows_now * 4;
            TERSE_AUTO(terse_freep) float *data = malloc(count * sizeof *data);
            TERSE_AUTO(terse_freep) float *out = malloc(count * sizeof *out);
            for (size_t i = 0; i < count; i++)
                data[i] = (float)(i % 100);
            terse_plan *plan;
            assert_int_equal(terse_engine_plan(engine, &in, &plan, NULL), TERSE_OK);
            assert_true(engine->base_bytes >= terse_plan_arena_bytes(plan));
            assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){out}, NULL), TERSE_OK);
            for (size_t i = 0; i < count; i++)
                assert_true(out[i] == (data[i / 4 * 4 + 3 - i % 4] + 0.25f) * 3 + 3);
        }
    assert_int_equal(engine->n_plans, 3);
}

/* y = Reshape(x, shape + [0,0]): the shape is an input, through a computation. */
static void a_shape_that_is_an_input_is_part_of_the_key(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int x = add_input(graph, "x", TERSE_FP32, 1, DIMS(n));
    const int shape = add_input(graph, "shape", TERSE_INT64, 1, DIMS(2));
    const int more = terse_graph_add_ints(graph, "more", DIMS(1, 0), 2);
    const int sum = ADD_OP(graph, TERSE_OP_ADD, "sum", shape, more);
    add_output(graph, ADD_OP(graph, TERSE_OP_RESHAPE, "y", x, sum));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 4, 0);
    assert_int_equal(terse_engine_value_inputs(engine), 2);
    int64_t values[2] = {1, 3};
    terse_tensor in[2] = {shape_of(TERSE_FP32, 1, DIMS(6)), shape_of(TERSE_INT64, 1, DIMS(2))};
    expect_refusal(engine, in[0], in[1], TERSE_INVALID_ARGUMENT,
                   "the values of input 'shape' are needed: shapes depend on them");
    in[1].data = values;
    terse_plan *first, *second, *third;
    assert_int_equal(terse_engine_plan(engine, in, &first, NULL), TERSE_OK);
    assert_int_equal(terse_plan_output(first, 0)->dims[0], 2);
    const terse_tensor *known = terse_plan_value(first, sum);
    assert_int_equal(((const int64_t *)known->data)[0], 2);
    values[0] = 2; /* the plan keeps what it was made for */
    assert_int_equal(((const int64_t *)terse_plan_value(first, shape)->data)[0], 1);
    values[1] = 2;
    assert_int_equal(terse_engine_plan(engine, in, &second, NULL), TERSE_OK);
    assert_ptr_not_equal(first, second);
    assert_int_equal(terse_plan_output(second, 0)->dims[0], 3);
    assert_int_equal(terse_engine_plan(engine, in, &third, NULL), TERSE_OK);
    assert_ptr_equal(third, second);
    values[1] = 5;
    expect_refusal(engine, in[0], in[1], TERSE_INVALID_ARGUMENT, "node 'y' (Reshape): cannot reshape");
    assert_int_equal(engine->n_plans, 2);
    const float data[6] = {0, 1, 2, 3, 4, 5};
    float out[6] = {9};
    assert_int_equal(terse_plan_run(third, (const void *[]){data, values}, (void *[]){out}, NULL), TERSE_OK);
    assert_memory_equal(out, data, sizeof out);
}

static void shapes_are_computed_when_the_plan_is_made(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int64_t t = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "T"));
    const int x = add_input(graph, "x", TERSE_FP32, 3, DIMS(n, t, 2));
    const int zero = terse_graph_add_ints(graph, "zero", DIMS(0), 1),
              one = terse_graph_add_ints(graph, "one", DIMS(1), 1);
    const int shape = ADD_OP(graph, TERSE_OP_SHAPE, "shape", ADD_OP(graph, TERSE_OP_SIGMOID, "only its shape", x));
    const int first = ADD_OP(graph, TERSE_OP_SLICE, "first", shape, zero, one, zero);
    const int rest = terse_graph_add_ints(graph, "rest", DIMS(-1), 1);
    const int dims = ADD_JOINED(graph, "dims", 0, first, rest);
    add_output(graph, ADD_OP(graph, TERSE_OP_RESHAPE, "y", ADD_OP(graph, TERSE_OP_RELU, "a", x), dims));
    add_output(graph, shape);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 4, 0);
    assert_int_equal(terse_engine_value_inputs(engine), 0);
    terse_plan *plan;
    const terse_tensor in = shape_of(TERSE_FP32, 3, DIMS(2, 3, 2));
    assert_int_equal(terse_engine_plan(engine, &in, &plan, NULL), TERSE_OK);
    assert_int_equal(terse_plan_output(plan, 0)->rank, 2);
    assert_int_equal(terse_plan_output(plan, 0)->dims[0], 2);
    assert_int_equal(terse_plan_output(plan, 0)->dims[1], 6);
    assert_int_equal(plan->n_steps, 1); /* not even the Sigmoid whose shape was asked for */
    float data[12] = {0}, out[12];
    int64_t out_shape[3];
    assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){out, out_shape}, NULL), TERSE_OK);
    assert_memory_equal(out_shape, DIMS(2, 3, 2), sizeof out_shape);
}

static void an_arena_beyond_the_limit_is_refused_and_the_engine_lives_on(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = two_inputs();
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 4, 1000);
    const terse_tensor small[2] = {shape_of(TERSE_FP32, 2, DIMS(2, 3)), shape_of(TERSE_FP32, 3, DIMS(2, 2, 2))};
    terse_plan *plan;
    assert_int_equal(terse_engine_plan(engine, small, &plan, NULL), TERSE_OK);
    expect_refusal(engine, shape_of(TERSE_FP32, 2, DIMS(1, 3)), shape_of(TERSE_FP32, 3, DIMS(1000, 1, 1000)),
                   TERSE_RESOURCE_EXHAUSTED,
                   "these shapes need 4000064 bytes of activations, at most 1000 are allowed");
    expect_refusal(engine, shape_of(TERSE_FP32, 2, DIMS(1 << 30, 3)), shape_of(TERSE_FP32, 3, DIMS(1, 1 << 30, 1)),
                   TERSE_RESOURCE_EXHAUSTED,
                   "these shapes need 17179869184 bytes of activations, at most 1000 are allowed");
    assert_true(engine->base_bytes <= 1000);
    terse_plan *again;
    assert_int_equal(terse_engine_plan(engine, small, &again, NULL), TERSE_OK);
    assert_ptr_equal(again, plan);
}

/* One node of `op` on x [2,2]; what planning it says. */
static void expect_node_error(terse_op op, int n_inputs, const int *inputs, int n_outputs, const char *message)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    add_input(graph, "x", TERSE_FP32, 2, DIMS(2, 2));
    int outputs[3];
    for (int i = 0; i < n_outputs; i++)
        outputs[i] = terse_graph_add_value(graph, "y");
    assert_non_null(terse_graph_add_node(graph, op, "the node", inputs, n_inputs, outputs, n_outputs));
    add_output(graph, outputs[0]);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 1, 0);
    terse_plan *plan;
    terse_error error;
    const terse_tensor x = shape_of(TERSE_FP32, 2, DIMS(2, 2));
    assert_int_not_equal(terse_engine_plan(engine, &x, &plan, &error), TERSE_OK);
    assert_string_equal(error.message, message);
}

static void errors_name_the_node_and_its_operator(void **state)
{
    (void)state;
    expect_node_error(TERSE_OP_LSTM, 1, (int[]){0}, 1, "node 'the node' (LSTM): this build has no such operator");
    expect_node_error(TERSE_OP_RELU, 2, (int[]){0, 0}, 1, "node 'the node' (Relu): 2 inputs, 1 to 1 are allowed");
    expect_node_error(TERSE_OP_RELU, 1, (int[]){0}, 2, "node 'the node' (Relu): 2 outputs, 1 to 1 are allowed");
    expect_node_error(TERSE_OP_RELU, 1, (int[]){TERSE_NO_VALUE}, 1, "node 'the node' (Relu): input 0 is missing");
}

static void a_value_that_run_refuses_is_named_too(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(2, 2));
    add_output(graph, ADD_OP(graph, TERSE_OP_GATHER, "pick", x));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 1, 0);
    terse_plan *plan;
    terse_error error;
    const terse_tensor in = shape_of(TERSE_FP32, 2, DIMS(2, 2));
    float data[4] = {0}, out[4];
    assert_int_equal(terse_engine_plan(engine, &in, &plan, &error), TERSE_OK);
    assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){out}, &error), TERSE_INVALID_ARGUMENT);
    assert_string_equal(error.message, "node 'pick' (Gather): index 9, allowed are 0 to 3");
    assert_int_equal(terse_plan_run(plan, (const void *[]){NULL}, (void *[]){out}, &error), TERSE_INVALID_ARGUMENT);
    assert_string_equal(error.message, "input 'x' has no data");
}

static void outputs_must_be_what_the_model_states(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = two_inputs();
    terse_value *stated = &graph->values[graph->outputs[1]];
    stated->dtype = TERSE_FP32;
    stated->rank = 3;
    memcpy(stated->dims, DIMS(TERSE_DIM_OF_SYMBOL(1), 7, TERSE_DIM_OF_SYMBOL(1)), 3 * sizeof *stated->dims);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 4, 0);
    const terse_tensor x = shape_of(TERSE_FP32, 2, DIMS(2, 3)), y = shape_of(TERSE_FP32, 3, DIMS(5, 2, 5));
    expect_refusal(engine, x, y, TERSE_INVALID_ARGUMENT, "output 'b' has shape [5,2,5], the model states [T,7,T]");
    graph->values[graph->outputs[0]].dtype = TERSE_INT8;
    expect_refusal(engine, x, y, TERSE_INVALID_ARGUMENT, "output 'a' is FP32, the model states INT8");
}

typedef struct seen {
    int n;
    int values[8];
    float first[8];
} seen;

static void note(void *context, int value, const terse_tensor *tensor)
{
    seen *s = context;
    s->values[s->n] = value;
    s->first[s->n++] = *(const float *)tensor->data;
}

static void every_computed_value_can_be_watched_and_timed(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(1, 2));
    const int flat = terse_graph_add_ints(graph, "flat", DIMS(2), 1);
    const int a = ADD_OP(graph, TERSE_OP_SIGMOID, "a", x);
    const int b = ADD_OP(graph, TERSE_OP_RELU, "b", a); /* overwrites a */
    const int c = ADD_OP(graph, TERSE_OP_RESHAPE, "c", b, flat);
    const int d = ADD_JOINED(graph, "d", 0, c, c);
    add_output(graph, d);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 4, 0);
    terse_plan *plan;
    const terse_tensor in = shape_of(TERSE_FP32, 2, DIMS(1, 2));
    assert_int_equal(terse_engine_plan(engine, &in, &plan, NULL), TERSE_OK);
    seen s = {0};
    uint64_t times[4] = {0};
    float out[4];
    terse_plan_observe(plan, note, &s);
    terse_plan_profile(plan, times);
    const float data[2] = {1, 2};
    assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){out}, NULL), TERSE_OK);
    assert_int_equal(s.n, 4);
    assert_memory_equal(s.values, ((int[]){a, b, c, d}), 4 * sizeof(int));
    assert_memory_equal(s.first, ((float[]){6, 20, 20, 20}), 4 * sizeof(float));
    assert_true(times[0] > 0 && times[1] > 0 && times[2] == 0 && times[3] > 0);
    terse_plan_observe(plan, NULL, NULL);
    terse_plan_profile(plan, NULL);
    assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){out}, NULL), TERSE_OK);
    assert_int_equal(s.n, 4);
    assert_null(terse_plan_value(plan, 99));
    assert_null(terse_plan_value(plan, a)->data);
}

static void a_packed_constant_is_refused_where_plain_bytes_are_read(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    static const float packed[64];
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(4, 3));
    const int w = terse_graph_add_constant(graph, "w", TERSE_FP32, 2, DIMS(4, 3), packed);
    graph->values[w].layout = TERSE_LAYOUT_F32_N16;
    graph->values[w].bytes = sizeof packed;
    add_output(graph, ADD_OP(graph, TERSE_OP_ADD, "sum", x, w));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph, 4, 0);
    terse_plan *plan;
    terse_error error;
    const terse_tensor in = shape_of(TERSE_FP32, 2, DIMS(4, 3));
    assert_int_equal(terse_engine_plan(engine, &in, &plan, &error), TERSE_INVALID_ARGUMENT);
    assert_string_equal(error.message, "node 'sum' (Add): input 1 is a packed constant (layout 1), plain is needed");
}

/* With the real operators. */
static void one_node_is_evaluated_alone(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const terse_kernels *kernels;
    terse_error error;
    assert_int_equal(terse_kernels_get(&kernels, &error), TERSE_OK);
    float a[6] = {1, 2, 3, 4, 5, 6}, b[3] = {10, 20, 30};
    const int inputs[2] = {terse_graph_add_value(graph, "a"), terse_graph_add_value(graph, "b")};
    const int y = terse_graph_add_value(graph, "y");
    const terse_node *node = terse_graph_add_node(graph, TERSE_OP_ADD, "sum", inputs, 2, &y, 1);
    terse_tensor ta = terse_tensor_view(a, TERSE_FP32, 2, DIMS(2, 3)),
                 tb = terse_tensor_view(b, TERSE_FP32, 1, DIMS(3));
    terse_tensor out = {0};
    const terse_tensor *const in[2] = {&ta, &tb};
    assert_int_equal(terse_node_evaluate(node, kernels, in, graph->arena, 1 << 20, &out, &error), TERSE_OK);
    assert_int_equal(out.dims[1], 3);
    assert_memory_equal(out.data, ((float[]){11, 22, 33, 14, 25, 36}), sizeof a);
    out.data = NULL;
    assert_int_equal(terse_node_evaluate(node, kernels, in, graph->arena, 23, &out, &error), TERSE_RESOURCE_EXHAUSTED);
    ta.data = NULL;
    assert_int_equal(terse_node_evaluate(node, kernels, in, graph->arena, 1 << 20, &out, &error),
                     TERSE_INVALID_ARGUMENT);
    assert_string_equal(error.message, "node 'sum' (Add): input 0 is not known");
    assert_null(out.data);
    node = terse_graph_add_node(graph, TERSE_OP_SHAPE, "shape", inputs, 1, &y, 1);
    assert_int_equal(terse_node_evaluate(node, kernels, in, graph->arena, 1 << 20, &out, &error), TERSE_OK);
    assert_memory_equal(out.data, DIMS(2, 3), 2 * sizeof(int64_t));
}

static int64_t macs(terse_op op, const terse_tensor *x, const terse_tensor *w, const terse_tensor *r,
                    const terse_tensor *y)
{
    const terse_node node = {.op = op, .n_inputs = 3};
    return terse_macs_count(&node, (const terse_tensor *const[]){x, w, r}, 3, y);
}

static void multiply_accumulates_are_counted_from_shapes(void **state)
{
    (void)state;
    const terse_tensor x = shape_of(TERSE_FP32, 4, DIMS(2, 8, 5, 5)), w = shape_of(TERSE_FP32, 4, DIMS(16, 4, 3, 3));
    const terse_tensor y = shape_of(TERSE_FP32, 4, DIMS(2, 16, 5, 5));
    assert_int_equal(macs(TERSE_OP_CONV, &x, &w, NULL, &y), 2 * 16 * 25 * 4 * 9);
    const terse_tensor wt = shape_of(TERSE_FP32, 4, DIMS(8, 3, 2, 2));
    assert_int_equal(macs(TERSE_OP_CONV_TRANSPOSE, &x, &wt, NULL, &y), 2 * 8 * 25 * 3 * 4);
    const terse_tensor a = shape_of(TERSE_FP32, 2, DIMS(5, 7)), b = shape_of(TERSE_FP32, 2, DIMS(7, 3)),
                       c = shape_of(TERSE_FP32, 2, DIMS(5, 3));
    assert_int_equal(macs(TERSE_OP_GEMM, &a, &b, NULL, &c), 5 * 7 * 3);
    assert_int_equal(macs(TERSE_OP_MATMUL, &a, &b, NULL, &c), 5 * 7 * 3);
    const terse_tensor seq = shape_of(TERSE_FP32, 3, DIMS(9, 2, 4)), wl = shape_of(TERSE_FP32, 3, DIMS(1, 20, 4)),
                       rl = shape_of(TERSE_FP32, 3, DIMS(1, 20, 5));
    assert_int_equal(macs(TERSE_OP_LSTM, &seq, &wl, &rl, &y), 9 * 2 * (80 + 100));
    const terse_tensor huge = shape_of(TERSE_FP32, 2, DIMS((int64_t)1 << 20, (int64_t)1 << 20));
    const terse_tensor deep = shape_of(TERSE_FP32, 2, DIMS(1, (int64_t)1 << 37));
    assert_true(macs(TERSE_OP_MATMUL, &deep, &huge, NULL, &huge) == INT64_MAX);
    assert_int_equal(macs(TERSE_OP_RELU, &x, NULL, NULL, &y), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_runs_from_the_callers_input_into_the_callers_output),
        cmocka_unit_test(inputs_that_do_not_fit_are_refused_by_name),
        cmocka_unit_test(the_least_recently_used_plan_goes_first),
        cmocka_unit_test(a_larger_plan_moves_the_arena_and_smaller_ones_follow),
        cmocka_unit_test(a_shape_that_is_an_input_is_part_of_the_key),
        cmocka_unit_test(shapes_are_computed_when_the_plan_is_made),
        cmocka_unit_test(an_arena_beyond_the_limit_is_refused_and_the_engine_lives_on),
        cmocka_unit_test(errors_name_the_node_and_its_operator),
        cmocka_unit_test(a_value_that_run_refuses_is_named_too),
        cmocka_unit_test(outputs_must_be_what_the_model_states),
        cmocka_unit_test(every_computed_value_can_be_watched_and_timed),
        cmocka_unit_test(a_packed_constant_is_refused_where_plain_bytes_are_read),
        cmocka_unit_test(one_node_is_evaluated_alone),
        cmocka_unit_test(multiply_accumulates_are_counted_from_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
