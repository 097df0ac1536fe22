/* SPDX-License-Identifier: Apache-2.0 */
/* The memory plan: shared bytes change no result, and nothing is moved that need not be. */
#include "tests/unit/engine_ops.h"

enum { MAX_OUTPUTS = 16, MAX_INPUTS = 4 };

static terse_engine *new_engine(const terse_graph *graph)
{
    terse_engine *engine;
    terse_error error;
    if (terse_engine_new_with(graph, NULL, 2, 0, find_test_op, &engine, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    return engine;
}

/* Inputs filled with small numbers; outputs in buffers of exactly their size, so that ASan sees any step beyond. */
typedef struct buffers {
    void *inputs[MAX_INPUTS], *copies[MAX_INPUTS], *outputs[MAX_OUTPUTS];
    terse_tensor shapes[MAX_INPUTS];
} buffers;

static void fill_inputs(const terse_graph *graph, const int64_t *symbols, buffers *b)
{
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        int64_t dims[TERSE_MAX_RANK];
        for (int d = 0; d < value->rank; d++)
            dims[d] = value->dims[d] < 0 ? symbols[TERSE_SYMBOL_OF_DIM(value->dims[d])] : value->dims[d];
        b->shapes[i] = terse_tensor_view(NULL, value->dtype, value->rank, dims);
        const size_t bytes = (size_t)terse_tensor_bytes(&b->shapes[i]);
        b->inputs[i] = malloc(bytes + 1);
        b->copies[i] = malloc(bytes + 1);
        for (size_t e = 0; e < bytes / sizeof(float); e++)
            ((float *)b->inputs[i])[e] = (float)(rand() % 1000);
        memcpy(b->copies[i], b->inputs[i], bytes);
    }
}

static void free_buffers(buffers *b)
{
    for (int i = 0; i < MAX_INPUTS; i++) {
        free(b->inputs[i]);
        free(b->copies[i]);
    }
    for (int i = 0; i < MAX_OUTPUTS; i++)
        free(b->outputs[i]);
}

/* Runs with every byte of the arena and of the outputs spoiled before. */
static terse_plan *run(terse_engine *engine, buffers *b, unsigned nulls)
{
    terse_plan *plan;
    terse_error error;
    if (terse_engine_plan(engine, b->shapes, &plan, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    memset(engine->base, 0xfe, engine->base_bytes);
    void *outputs[MAX_OUTPUTS];
    for (int o = 0; o < engine->graph->n_outputs; o++) {
        const size_t bytes = (size_t)terse_tensor_bytes(terse_plan_output(plan, o));
        free(b->outputs[o]);
        b->outputs[o] = malloc(bytes ? bytes : 1);
        memset(b->outputs[o], 0xfd, bytes);
        outputs[o] = nulls >> o & 1u ? NULL : b->outputs[o];
    }
    if (terse_plan_run(plan, (const void *const *)b->inputs, outputs, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    for (int i = 0; i < engine->graph->n_inputs; i++)
        assert_memory_equal(b->inputs[i], b->copies[i], (size_t)terse_tensor_bytes(&b->shapes[i]) + 0);
    return plan;
}

/* Compares the graph's outputs with those of an engine that gives every value bytes of its own. */
static terse_plan *compare(terse_engine *engine, const int64_t *symbols, unsigned nulls)
{
    const terse_graph *graph = engine->graph;
    buffers b = {0}, plain = {0};
    fill_inputs(graph, symbols, &b);
    memcpy(plain.shapes, b.shapes, sizeof b.shapes);
    TERSE_AUTO(terse_engine_freep) terse_engine *separate = new_engine(graph);
    terse_engine_set_separate(separate, true);
    for (int i = 0; i < graph->n_inputs; i++) {
        const size_t bytes = (size_t)terse_tensor_bytes(&b.shapes[i]);
        plain.inputs[i] = malloc(bytes + 1);
        plain.copies[i] = malloc(bytes + 1);
        memcpy(plain.inputs[i], b.inputs[i], bytes);
        memcpy(plain.copies[i], b.inputs[i], bytes);
    }
    run(separate, &plain, 0);
    terse_plan *plan = run(engine, &b, nulls);
    for (int o = 0; o < graph->n_outputs; o++)
        if (!(nulls >> o & 1u)) {
            const size_t bytes = (size_t)terse_tensor_bytes(terse_plan_output(plan, o));
            if (bytes)
                assert_memory_equal(b.outputs[o], plain.outputs[o], bytes);
        }
    free_buffers(&b);
    free_buffers(&plain);
    return plan;
}

static int steps_of(const terse_plan *plan)
{
    return plan->n_steps;
}

static void inputs_of_a_concat_are_written_where_they_belong(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int x = add_input(graph, "x", TERSE_FP32, 3, DIMS(n, 5, 3));
    const int a = ADD_OP(graph, TERSE_OP_CONV, "a", x);
    const int b = ADD_OP(graph, TERSE_OP_CONV, "b", a); /* a has a reader that takes strides */
    const int c = ADD_OP(graph, TERSE_OP_CONV, "c", x);
    const int ab = ADD_JOINED(graph, "ab", 2, a, b);
    const int abc = ADD_JOINED(graph, "abc", 2, ab, c); /* nested */
    add_output(graph, ADD_OP(graph, TERSE_OP_TANH, "y", abc));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    const terse_plan *plan = compare(engine, DIMS(4), 0);
    assert_int_equal(steps_of(plan), 4); /* no Concat */
    assert_int_equal(plan->live[ab]->row_stride, 9);
    assert_int_equal(plan->live[a]->row_stride, 9);
    assert_int_equal(terse_plan_arena_bytes(plan), terse_align(4 * 5 * 9 * 4, 64) + terse_align(4 * 5 * 9 * 4, 64));
    compare(engine, DIMS(1), 0);
    compare(engine, DIMS(0), 0);
    compare(engine, DIMS(7), 1);
}

static void a_concat_copies_only_what_cannot_be_written_in_place(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(4, 3));
    const int a = ADD_OP(graph, TERSE_OP_CONV, "a", x);
    const int b = ADD_OP(graph, TERSE_OP_CONV, "b", x);
    const int kept = ADD_OP(graph, TERSE_OP_SIGMOID, "kept", b); /* reads b densely: b stays dense */
    const int twice = ADD_OP(graph, TERSE_OP_CONV, "twice", x);
    const int dense = ADD_OP(graph, TERSE_OP_SIGMOID, "dense", x); /* its maker writes densely */
    const int all = ADD_JOINED(graph, "all", -1, a, x, b, twice, dense, twice);
    add_output(graph, all);
    add_output(graph, kept);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    const terse_plan *plan = compare(engine, NULL, 0);
    assert_int_equal(plan->live[a]->row_stride, 18);
    assert_int_equal(plan->live[b]->row_stride, 3);
    assert_int_equal(plan->live[twice]->row_stride, 18);
    assert_int_equal(plan->live[dense]->row_stride, 3);
    assert_int_equal(plan->n_copies, 0); /* the concat is the caller's buffer */
}

static void along_a_first_axis_any_operator_writes_into_the_concat(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 3, DIMS(1, 2, 6));
    const int two = terse_graph_add_ints(graph, "dims", DIMS(1, 4, 3), 3);
    const int s = ADD_OP(graph, TERSE_OP_SIGMOID, "s", x);
    const int r = ADD_OP(graph, TERSE_OP_RESHAPE, "r", s, two); /* the view and what it views move along */
    const int t = ADD_OP(graph, TERSE_OP_SIGMOID, "t", r);
    const int y = ADD_JOINED(graph, "y", 1, r, t);
    add_output(graph, ADD_OP(graph, TERSE_OP_RELU, "z", y));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    const terse_plan *plan = compare(engine, NULL, 0);
    assert_int_equal(steps_of(plan), 3);
    assert_int_equal(plan->n_copies, 0);
    assert_ptr_equal(plan->live[s]->data, plan->live[y]->data);
}

static void parts_of_a_split_are_read_where_they_lie(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(n, 6));
    const int starts = terse_graph_add_ints(graph, "starts", DIMS(1), 1);
    const int ends = terse_graph_add_ints(graph, "ends", DIMS(3), 1);
    const int axes = terse_graph_add_ints(graph, "axes", DIMS(1), 1);
    int parts[3];
    for (int i = 0; i < 3; i++)
        parts[i] = terse_graph_add_value(graph, "part");
    assert_true(
        terse_node_set_int(graph, terse_graph_add_node(graph, TERSE_OP_SPLIT, "split", &x, 1, parts, 3), "axis", 1));
    const int a = ADD_OP(graph, TERSE_OP_CONV, "a", parts[0]); /* takes strides */
    const int b = ADD_OP(graph, TERSE_OP_RELU, "b", parts[1]); /* does not */
    const int c = ADD_OP(graph, TERSE_OP_SLICE, "c", x, starts, ends, axes);
    const int d = ADD_OP(graph, TERSE_OP_ADD, "d", a, b);
    add_output(graph, d);
    add_output(graph, ADD_OP(graph, TERSE_OP_TANH, "e", c));
    add_output(graph, parts[2]);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    const terse_plan *plan = compare(engine, DIMS(3), 0);
    assert_int_equal(plan->live[parts[0]]->row_stride, 6);
    assert_int_equal(plan->live[parts[1]]->row_stride, 2);
    assert_int_equal(plan->live[c]->row_stride, 6);
    plan =
        compare(engine, DIMS(1), 0); /* one row: all parts are dense where they lie, the output is copied by the step */
    assert_int_equal(steps_of(plan), 5);
    compare(engine, DIMS(2), 5);
}

static void a_value_that_is_read_later_is_not_overwritten(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(4, 4));
    const int flat = terse_graph_add_ints(graph, "flat", DIMS(16), 1);
    const int a = ADD_OP(graph, TERSE_OP_SIGMOID, "a", x);
    const int view = ADD_OP(graph, TERSE_OP_RESHAPE, "view", a, flat);
    const int b = ADD_OP(graph, TERSE_OP_RELU, "b", a);    /* a lives on in its view */
    const int c = ADD_OP(graph, TERSE_OP_RELU, "c", view); /* here both end */
    const int d = ADD_OP(graph, TERSE_OP_ADD, "d", b, b);  /* the same value twice */
    const int e = ADD_OP(graph, TERSE_OP_SOFTMAX, "e", x); /* inputs of the graph are not overwritten */
    add_output(graph, ADD_OP(graph, TERSE_OP_ADD, "f", c,
                             ADD_OP(graph, TERSE_OP_RESHAPE, "de", ADD_OP(graph, TERSE_OP_ADD, "g", d, e), flat)));
    add_output(graph, d);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    const terse_plan *plan = compare(engine, NULL, 0);
    assert_ptr_not_equal(plan->live[a]->data, plan->live[b]->data);
    assert_ptr_equal(plan->live[view]->data, plan->live[c]->data);
    compare(engine, NULL, 2);
}

static void a_residual_that_ends_is_overwritten(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(4, 4));
    const int a = ADD_OP(graph, TERSE_OP_SIGMOID, "a", x);
    const int b = ADD_OP(graph, TERSE_OP_CONV, "b", a);
    const int c = ADD_OP(graph, TERSE_OP_MATMUL, "c", b, TERSE_NO_VALUE, TERSE_NO_VALUE, a);
    const int d = ADD_OP(graph, TERSE_OP_MATMUL, "d", c, TERSE_NO_VALUE, TERSE_NO_VALUE, c); /* also multiplied: kept */
    add_output(graph, ADD_OP(graph, TERSE_OP_SIGMOID, "y", d));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    const terse_plan *plan = compare(engine, NULL, 0);
    assert_ptr_equal(plan->live[a]->data, plan->live[c]->data);
    assert_ptr_not_equal(plan->live[c]->data, plan->live[d]->data);
}

static void a_part_of_itself_added_to_a_value_keeps_it_whole(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(4, 4));
    const int one = terse_graph_add_ints(graph, "one", DIMS(1), 1),
              two = terse_graph_add_ints(graph, "two", DIMS(2), 1);
    const int zero = terse_graph_add_ints(graph, "zero", DIMS(0), 1);
    const int a = ADD_OP(graph, TERSE_OP_SIGMOID, "a", x);
    const int second_row = ADD_OP(graph, TERSE_OP_SLICE, "second row", a, one, two, zero);
    const int sum = ADD_OP(graph, TERSE_OP_ADD, "sum", a, second_row); /* in place it would change under its own feet */
    add_output(graph, ADD_OP(graph, TERSE_OP_TANH, "y", sum));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    const terse_plan *plan = compare(engine, NULL, 0);
    assert_int_equal(steps_of(plan), 3);
    assert_ptr_not_equal(plan->live[a]->data, plan->live[sum]->data);
}

static void outputs_may_be_inputs_constants_views_and_repeated(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    static const float numbers[4] = {1, 2, 3, 4};
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(2, 2));
    const int c = terse_graph_add_constant(graph, "c", TERSE_FP32, 2, DIMS(2, 2), numbers);
    const int flat = terse_graph_add_ints(graph, "flat", DIMS(4), 1);
    const int a = ADD_OP(graph, TERSE_OP_SIGMOID, "a", x);
    add_output(graph, x);
    add_output(graph, c);
    add_output(graph, ADD_OP(graph, TERSE_OP_RESHAPE, "viewed input", x, flat));
    add_output(graph, a);
    add_output(graph, ADD_OP(graph, TERSE_OP_RESHAPE, "viewed output", a, flat));
    add_output(graph, a);
    add_output(graph, ADD_OP(graph, TERSE_OP_RELU, "b", a));
    add_output(graph, ADD_OP(graph, TERSE_OP_SHAPE, "shape", x));
    add_output(graph, ADD_OP(graph, TERSE_OP_RELU, "known", c));
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    compare(engine, NULL, 0);
    for (unsigned nulls = 0; nulls < 512; nulls++)
        compare(engine, NULL, nulls);
}

static void outputs_that_nobody_wants_get_no_memory(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 2, DIMS(2, 2));
    const int first[2] = {terse_graph_add_value(graph, "unused"), terse_graph_add_value(graph, "used")};
    terse_graph_add_node(graph, TERSE_OP_TOP_K, "named", &x, 1, first, 2);
    const int second[2] = {terse_graph_add_value(graph, "wanted"), TERSE_NO_VALUE};
    terse_graph_add_node(graph, TERSE_OP_TOP_K, "absent", &first[1], 1, second, 2);
    ADD_OP(graph, TERSE_OP_GATHER, "dead: would fail", x);
    add_output(graph, second[0]);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
    const terse_plan *plan = compare(engine, NULL, 0);
    assert_int_equal(steps_of(plan), 2);
    assert_null(plan->steps[0].call.outputs[0].data);
    assert_non_null(plan->steps[0].call.outputs[1].data);
    assert_null(plan->steps[1].call.outputs[1].data);
    assert_int_equal(terse_plan_arena_bytes(plan), 128);
}

/* With the real operators: Transpose of x [2,1,3,1] by `perm`. */
static void expect_transposed(const int64_t *perm, bool moves, const float *expected)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    const int x = add_input(graph, "x", TERSE_FP32, 4, DIMS(2, 1, 3, 1));
    const int y = ADD_OP(graph, TERSE_OP_TRANSPOSE, "y", ADD_OP(graph, TERSE_OP_NEG, "negative", x));
    terse_node_set_ints(graph, &graph->nodes[1], "perm", perm, 4);
    add_output(graph, y);
    terse_engine *made;
    const terse_kernels *kernels;
    assert_int_equal(terse_kernels_get(&kernels, NULL), TERSE_OK);
    assert_int_equal(terse_engine_new(graph, kernels, 1, 0, &made, NULL), TERSE_OK);
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = made;
    terse_plan *plan;
    const terse_tensor shape = terse_tensor_view(NULL, TERSE_FP32, 4, DIMS(2, 1, 3, 1));
    assert_int_equal(terse_engine_plan(engine, &shape, &plan, NULL), TERSE_OK);
    assert_int_equal(steps_of(plan), moves ? 2 : 1);
    const float data[6] = {1, 2, 3, 4, 5, 6};
    float out[6];
    assert_int_equal(terse_plan_run(plan, (const void *[]){data}, (void *[]){out}, NULL), TERSE_OK);
    assert_memory_equal(out, expected, sizeof out);
}

static void transposing_around_axes_of_size_1_moves_nothing(void **state)
{
    (void)state;
    const float same[6] = {-1, -2, -3, -4, -5, -6}, turned[6] = {-1, -4, -2, -5, -3, -6};
    expect_transposed(DIMS(0, 2, 3, 1), false, same);
    expect_transposed(DIMS(3, 1, 0, 2), false, same);
    expect_transposed(DIMS(2, 1, 0, 3), true, turned);
    expect_transposed(DIMS(1, 2, 3, 0), true, turned);
}

static int64_t at_most(int64_t n)
{
    return 1 + rand() % n;
}

/* A value of the pool whose shape matches `like` (any when -1) on all axes but `axis`; -1 when there is none. */
static int pick(const int *pool, int n_pool, int64_t (*shapes)[3], int like, int axis)
{
    const int start = rand() % n_pool;
    for (int i = 0; i < n_pool; i++) {
        const int v = pool[(start + i) % n_pool];
        bool fits = true;
        for (int d = 0; d < 3 && like >= 0; d++)
            fits = fits && (d == axis || shapes[v][d] == shapes[like][d]);
        if (fits)
            return v;
    }
    return -1;
}

static void random_concat(terse_graph *graph, int *pool, int *n_pool, int64_t (*shapes)[3])
{
    const int axis = rand() % 3;
    int parts[4];
    const int n = 1 + rand() % 4;
    int64_t dim = 0;
    for (int i = 0; i < n; i++) {
        parts[i] = pick(pool, *n_pool, shapes, i ? parts[0] : -1, axis);
        dim += shapes[parts[i]][axis];
    }
    if (dim > 24)
        return;
    const int y = add_joined(graph, "concat", axis, n, parts);
    memcpy(shapes[y], shapes[parts[0]], sizeof shapes[y]);
    shapes[y][axis] = dim;
    pool[(*n_pool)++] = y;
}

static void random_split(terse_graph *graph, int *pool, int *n_pool, int64_t (*shapes)[3])
{
    const int x = pick(pool, *n_pool, shapes, -1, 0), axis = rand() % 3;
    int parts[3];
    const int n = 1 + rand() % 3;
    int64_t left = shapes[x][axis];
    const int64_t each = (left + n - 1) / n;
    for (int i = 0; i < n; i++)
        parts[i] = terse_graph_add_value(graph, "part");
    for (int i = n - 1; i >= 0; i--) {
        memcpy(shapes[parts[i]], shapes[x], sizeof shapes[x]);
        shapes[parts[i]][axis] = i == 0 ? left : each < left ? each : left;
        left -= shapes[parts[i]][axis];
        if (rand() % 4)
            pool[(*n_pool)++] = parts[i];
    }
    terse_node_set_int(graph, terse_graph_add_node(graph, TERSE_OP_SPLIT, "split", &x, 1, parts, n), "axis", axis);
}

static void random_slice(terse_graph *graph, int *pool, int *n_pool, int64_t (*shapes)[3])
{
    const int x = pick(pool, *n_pool, shapes, -1, 0), axis = rand() % 3;
    if (shapes[x][axis] == 0)
        return;
    const int64_t start = rand() % shapes[x][axis], end = start + at_most(shapes[x][axis] - start);
    const int y = ADD_OP(graph, TERSE_OP_SLICE, "slice", x, terse_graph_add_ints(graph, "", &start, 1),
                         terse_graph_add_ints(graph, "", &end, 1), terse_graph_add_ints(graph, "", DIMS(axis), 1));
    memcpy(shapes[y], shapes[x], sizeof shapes[y]);
    shapes[y][axis] = end - start;
    pool[(*n_pool)++] = y;
}

static void random_reshape(terse_graph *graph, int *pool, int *n_pool, int64_t (*shapes)[3])
{
    const int x = pick(pool, *n_pool, shapes, -1, 0), turn = 1 + rand() % 2;
    int64_t dims[3];
    for (int d = 0; d < 3; d++)
        dims[d] = shapes[x][(d + turn) % 3];
    const int y = ADD_OP(graph, TERSE_OP_RESHAPE, "reshape", x, terse_graph_add_ints(graph, "", dims, 3));
    memcpy(shapes[y], dims, sizeof dims);
    pool[(*n_pool)++] = y;
}

/* Something to add to x: of its shape, or one row of its width. */
static int pick_addend(const int *pool, int n_pool, int64_t (*shapes)[3], int x)
{
    const int start = rand() % n_pool;
    for (int i = 0; i < n_pool; i++) {
        const int v = pool[(start + i) % n_pool];
        if (shapes[v][0] == 1 && shapes[v][1] == 1 && shapes[v][2] == shapes[x][2])
            return v;
    }
    return pick(pool, n_pool, shapes, x, -1);
}

static void random_simple(terse_graph *graph, int *pool, int *n_pool, int64_t (*shapes)[3])
{
    static const terse_op ops[] = {TERSE_OP_CONV, TERSE_OP_CONV,    TERSE_OP_CONV,    TERSE_OP_RELU,  TERSE_OP_TANH,
                                   TERSE_OP_ADD,  TERSE_OP_SOFTMAX, TERSE_OP_SIGMOID, TERSE_OP_MATMUL};
    const terse_op op = ops[rand() % 9];
    const int x = pick(pool, *n_pool, shapes, -1, 0);
    const int y = op == TERSE_OP_ADD      ? ADD_OP(graph, op, "add", x, pick_addend(pool, *n_pool, shapes, x))
                  : op == TERSE_OP_MATMUL ? ADD_OP(graph, op, "matmul", x, TERSE_NO_VALUE, TERSE_NO_VALUE,
                                                   pick(pool, *n_pool, shapes, x, -1))
                                          : ADD_OP(graph, op, terse_op_name(op), x);
    memcpy(shapes[y], shapes[x], sizeof shapes[y]);
    pool[(*n_pool)++] = y;
}

static void random_pair(terse_graph *graph, int *pool, int *n_pool, int64_t (*shapes)[3])
{
    const int x = pick(pool, *n_pool, shapes, -1, 0);
    const int outputs[2] = {rand() % 4 ? terse_graph_add_value(graph, "top") : TERSE_NO_VALUE,
                            terse_graph_add_value(graph, "under")};
    terse_graph_add_node(graph, TERSE_OP_TOP_K, "pair", &x, 1, outputs, 2);
    for (int i = 0; i < 2; i++)
        if (outputs[i] >= 0) {
            memcpy(shapes[outputs[i]], shapes[x], sizeof shapes[x]);
            pool[(*n_pool)++] = outputs[i];
        }
}

static void random_graph(terse_graph *graph, int n_nodes)
{
    int64_t shapes[512][3];
    int pool[512], n_pool = 0;
    for (int i = 0; i < 2; i++) {
        const int64_t dims[3] = {rand() % 3 ? 1 : at_most(3), rand() % 20 ? at_most(4) : 0, at_most(6)};
        pool[n_pool] = add_input(graph, "input", TERSE_FP32, 3, dims);
        memcpy(shapes[pool[n_pool++]], dims, sizeof dims);
    }
    static float numbers[72]; /* as many as an input has at most */
    for (int i = 0; i < 72; i++)
        numbers[i] = (float)i;
    const int c = terse_graph_add_constant(graph, "constant", TERSE_FP32, 3, shapes[pool[0]], numbers);
    memcpy(shapes[c], shapes[pool[0]], sizeof shapes[c]);
    pool[n_pool++] = c;
    for (int i = 0; i < n_nodes && graph->n_values < 450; i++) {
        const int kind = rand() % 16;
        if (kind < 4)
            random_concat(graph, pool, &n_pool, shapes);
        else if (kind < 6)
            random_split(graph, pool, &n_pool, shapes);
        else if (kind < 7)
            random_slice(graph, pool, &n_pool, shapes);
        else if (kind < 9)
            random_reshape(graph, pool, &n_pool, shapes);
        else if (kind < 10)
            random_pair(graph, pool, &n_pool, shapes);
        else
            random_simple(graph, pool, &n_pool, shapes);
        /* Read the newest values more often: chains and dying values are what the plan is about. */
        if (n_pool > 12)
            memmove(pool, pool + 1, (size_t)(--n_pool) * sizeof *pool);
    }
    for (int i = 1 + rand() % 4; i > 0; i--)
        add_output(graph, pool[rand() % n_pool]);
}

static void random_graphs_give_what_separate_buffers_give(void **state)
{
    (void)state;
    const char *text = getenv("TERSE_SEED");
    const unsigned seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)terse_now_ns();
    print_message("# seed %u\n", seed);
    int copied = 0, aliased = 0, nodes = 0;
    for (unsigned i = 0; i < 3000; i++) {
        srand(seed + i);
        TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
        random_graph(graph, (int)at_most(40));
        TERSE_AUTO(terse_engine_freep) terse_engine *engine = new_engine(graph);
        compare(engine, NULL, rand() % 4 ? 0 : (unsigned)rand());
        for (int n = 0; n < graph->n_nodes; n++) {
            copied += engine->work.state[n] == TERSE_NODE_COPY;
            aliased += engine->work.state[n] == TERSE_NODE_ALIAS;
            nodes++;
        }
    }
    assert_true(copied > nodes / 100 && aliased > nodes / 20); /* the interesting cases did occur */
}

static void check_offsets(const terse_group *groups, int n, size_t total)
{
    for (int i = 0; i < n; i++) {
        if (groups[i].size == 0)
            continue;
        assert_true(groups[i].offset % 64 == 0 && groups[i].offset + groups[i].size <= total);
        for (int j = 0; j < i; j++)
            assert_true(groups[j].size == 0 || groups[i].start > groups[j].end || groups[j].start > groups[i].end ||
                        groups[i].offset >= groups[j].offset + groups[j].size ||
                        groups[j].offset >= groups[i].offset + groups[i].size);
    }
}

/* Few groups, many, and many alive at once: each takes another way through offsets.c. */
static void groups_alive_together_never_overlap(void **state)
{
    (void)state;
    const struct {
        int n, alive;
    } cases[] = {{1, 1}, {60, 5}, {500, 40}, {3500, 9}, {3500, 2500}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const int n = cases[c].n;
        srand((unsigned)c + 1);
        TERSE_AUTO(terse_freep) terse_group *groups = calloc((size_t)n, sizeof *groups);
        TERSE_AUTO(terse_freep) int *order = calloc((size_t)n, sizeof *order);
        size_t sum = 0;
        for (int i = 0; i < n; i++) {
            groups[i] = (terse_group){.output = rand() % 10 ? -1 : 0, .start = i, .size = (size_t)(rand() % 5000)};
            groups[i].end = i + rand() % cases[c].alive;
            sum += terse_align(groups[i].size, 64);
        }
        const size_t total = terse_offsets_assign(groups, n, order);
        check_offsets(groups, n, total);
        assert_true(total <= sum && (n < 60 || cases[c].alive > 2000 || total < sum / 2));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inputs_of_a_concat_are_written_where_they_belong),
        cmocka_unit_test(a_concat_copies_only_what_cannot_be_written_in_place),
        cmocka_unit_test(along_a_first_axis_any_operator_writes_into_the_concat),
        cmocka_unit_test(parts_of_a_split_are_read_where_they_lie),
        cmocka_unit_test(a_value_that_is_read_later_is_not_overwritten),
        cmocka_unit_test(a_residual_that_ends_is_overwritten),
        cmocka_unit_test(a_part_of_itself_added_to_a_value_keeps_it_whole),
        cmocka_unit_test(outputs_may_be_inputs_constants_views_and_repeated),
        cmocka_unit_test(outputs_that_nobody_wants_get_no_memory),
        cmocka_unit_test(transposing_around_axes_of_size_1_moves_nothing),
        cmocka_unit_test(random_graphs_give_what_separate_buffers_give),
        cmocka_unit_test(groups_alive_together_never_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
