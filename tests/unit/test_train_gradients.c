/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of every operator against finite differences: each input is moved by a little and the loss, a random
 * linear function of the outputs, must change as the gradient says. Shapes are random; the seed is printed. */
#include "tests/unit/graph_maker.h"

#include "compress/train/back.h"
#include "compress/train/tape.h"

static int tried[TERSE_OP_COUNT];
static uint32_t seed;

static int pick(int low, int high)
{
    random_state = random_state * 1664525u + 1013904223u;
    return low + (int)((random_state >> 8) % (uint32_t)(high - low + 1));
}

typedef enum filling { ANY, POSITIVE, APART, SMALL } filling;

/* APART: no two numbers closer than 0.06, none near zero: maxima and kinks stay where they are. */
static void fill(float *data, int64_t n, filling how)
{
    for (int64_t i = 0; i < n; i++)
        data[i] = how == POSITIVE ? 0.8f + 0.7f * (random_number() + 1)
                  : how == SMALL  ? 0.3f * random_number()
                                  : random_number();
    if (how != APART)
        return;
    for (int64_t i = 0; i < n; i++)
        data[i] = 0.06f * (float)(i - n / 2) + 0.03f;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = pick(0, (int)i);
        const float t = data[i];
        data[i] = data[j];
        data[j] = t;
    }
}

typedef struct checked {
    terse_graph *graph;
    terse_tape *tape;
    const void *inputs[16];
    terse_tensor views[16];
    float *weights[16]; /* per output: the loss is their product with it */
    filling how[16];
} checked;

/* Sum of the loss's change between two points, output by output, without losing digits. */
static double change(checked *c, float *at, float x, double h)
{
    terse_error error = {0};
    double total = 0;
    double *low[16] = {NULL};
    for (int side = 0; side < 2; side++) {
        *at = (float)((double)x + (side ? h : -h));
        assert_int_equal(terse_tape_forward(c->tape, c->inputs, &error), TERSE_OK);
        for (int o = 0; o < c->graph->n_outputs; o++) {
            const terse_tensor *y = terse_tape_value(c->tape, c->graph->outputs[o]);
            const int64_t n = terse_tensor_count(y);
            if (!low[o])
                low[o] = calloc((size_t)n + 1, sizeof **low);
            for (int64_t i = 0; i < n; i++) {
                const double value = (double)((float *)y->data)[i];
                if (side)
                    total += (value - low[o][i]) * (double)c->weights[o][i];
                else
                    low[o][i] = value;
            }
        }
    }
    for (int o = 0; o < c->graph->n_outputs; o++)
        free(low[o]);
    *at = x;
    return total / (2 * h);
}

static void check_input(checked *c, int input, const char *what)
{
    const int v = c->graph->inputs[input];
    if (c->graph->values[v].dtype != TERSE_FP32 || c->how[input] == (filling)-1)
        return;
    const int64_t n = terse_tensor_count(&c->views[input]);
    float *data = (float *)(uintptr_t)c->inputs[input], *kept = malloc((size_t)(n + 1) * sizeof *kept);
    const float *gradient = terse_tape_gradient(c->tape, v);
    if (!gradient)
        fail_msg("%s: input %d has no gradient", what, input);
    memcpy(kept, gradient, (size_t)n * sizeof *kept);
    double largest = 0.05;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)kept[i]));
    for (int k = 0; k < 24 && n > 0; k++) {
        const int64_t i = n <= 24 ? k % n : pick(0, (int)n - 1);
        const double h = 0.016;
        /* Richardson: the error of the central difference is of fourth order. */
        const double d = (4 * change(c, &data[i], data[i], h / 2) - change(c, &data[i], data[i], h)) / 3;
        if (!(fabs(d - (double)kept[i]) <= 2e-3 * largest + 2e-4))
            fail_msg("seed %u: %s: input %d element %d of %d: gradient %g, by differences %g", seed, what, input,
                     (int)i, (int)n, (double)kept[i], d);
    }
    free(kept);
}

/* The graph's inputs are filled as `how` says (one for each; -1: an input without gradient) unless already set. */
static void check_with(terse_graph *g, const filling *how, bool training, void *const *given)
{
    checked c = {.graph = g};
    terse_error error = {0};
    char targets[64] = {0};
    const terse_tape_options options = {.targets = targets, .backward = true, .grad_inputs = true};
    assert_int_equal(terse_graph_check(g, &error), TERSE_OK);
    for (int i = 0; i < g->n_inputs; i++) {
        const terse_value *v = &g->values[g->inputs[i]];
        c.views[i] = terse_tensor_view(NULL, v->dtype, v->rank, v->dims);
        const int64_t n = terse_tensor_count(&c.views[i]);
        c.how[i] = how[i];
        void *data = given ? given[i] : NULL;
        if (!data) {
            data = malloc((size_t)(n + 1) * sizeof(float));
            fill(data, n, how[i] == (filling)-1 ? ANY : how[i]);
        }
        c.inputs[i] = data;
    }
    for (int o = 0; o < g->n_outputs; o++)
        targets[g->outputs[o]] = 1;
    if (terse_tape_new(g, c.views, &options, &c.tape, &error) != TERSE_OK)
        fail_msg("seed %u: %s", seed, error.message);
    terse_tape_set_training(c.tape, training);
    if (terse_tape_forward(c.tape, c.inputs, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    for (int o = 0; o < g->n_outputs; o++) {
        const int64_t n = terse_tensor_count(terse_tape_value(c.tape, g->outputs[o]));
        c.weights[o] = malloc((size_t)(n + 1) * sizeof(float));
        fill(c.weights[o], n, ANY);
        float *dy = terse_tape_gradient(c.tape, g->outputs[o]);
        assert_non_null(dy);
        memcpy(dy, c.weights[o], (size_t)n * sizeof(float));
    }
    assert_int_equal(terse_tape_backward(c.tape, &error), TERSE_OK);
    for (int i = 0; i < g->n_nodes; i++) {
        assert_false(terse_tape_blocked(c.tape, i));
        tried[g->nodes[i].op]++;
    }
    for (int i = 0; i < g->n_inputs; i++)
        check_input(&c, i, terse_op_name(g->nodes[g->n_nodes - 1].op));
    terse_tape_free(c.tape);
    for (int i = 0; i < g->n_inputs; i++)
        free((void *)(uintptr_t)c.inputs[i]);
    for (int o = 0; o < g->n_outputs; o++)
        free(c.weights[o]);
    terse_graph_free(g);
}

static void check(terse_graph *g, const filling *how)
{
    check_with(g, how, false, NULL);
}

#define HOW(...)                                                                                                       \
    (const filling[])                                                                                                  \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

static void finish(terse_graph *g, int y)
{
    make_output(g, y);
    g->values[y].dtype = TERSE_FP32; /* the rest is found by the tape */
    g->values[y].rank = 0;
}

static void elementwise_functions(void **state)
{
    (void)state;
    static const struct {
        terse_op op;
        filling how;
    } rows[] = {
        {TERSE_OP_RELU, APART},     {TERSE_OP_LEAKY_RELU, APART},
        {TERSE_OP_SIGMOID, ANY},    {TERSE_OP_HARD_SIGMOID, SMALL},
        {TERSE_OP_HARD_SWISH, ANY}, {TERSE_OP_TANH, ANY},
        {TERSE_OP_ERF, ANY},        {TERSE_OP_GELU, ANY},
        {TERSE_OP_EXP, ANY},        {TERSE_OP_LOG, POSITIVE},
        {TERSE_OP_SQRT, POSITIVE},  {TERSE_OP_NEG, ANY},
        {TERSE_OP_ABS, APART},      {TERSE_OP_RECIPROCAL, POSITIVE},
        {TERSE_OP_SIN, ANY},        {TERSE_OP_COS, ANY},
        {TERSE_OP_ELU, APART},      {TERSE_OP_SELU, APART},
        {TERSE_OP_SOFTPLUS, ANY},   {TERSE_OP_SOFTSIGN, APART},
        {TERSE_OP_IDENTITY, ANY},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int form = 0; form < 2; form++) {
            terse_graph *g = terse_graph_new();
            const int y = make_node(g, rows[i].op, INPUTS(make_input(g, "x", DIMS(pick(1, 4), pick(1, 7)))));
            if (rows[i].op == TERSE_OP_GELU)
                terse_node_set_text(g, last_node(g), "approximate", form ? "tanh" : "none");
            else if (form && (rows[i].op == TERSE_OP_LEAKY_RELU || rows[i].op == TERSE_OP_ELU))
                terse_node_set_float(g, last_node(g), "alpha", 0.4);
            finish(g, y);
            check(g, HOW(rows[i].how));
        }
}

static void clip_and_cast(void **state)
{
    (void)state;
    for (int bounds = 0; bounds < 4; bounds++) { /* Clip(0, 6) is ReLU6; the other halves too */
        terse_graph *g = terse_graph_new();
        const int x = make_input(g, "x", DIMS(5, 31));
        const int low = bounds & 1 ? make_number(g, 0) : TERSE_NO_VALUE,
                  high = bounds & 2 ? make_number(g, 2.1f) : TERSE_NO_VALUE;
        finish(g, make_node(g, TERSE_OP_CLIP, INPUTS(x, low, high)));
        check(g, HOW(APART));
    }
    terse_graph *g = terse_graph_new();
    const int y = make_node(g, TERSE_OP_CAST, INPUTS(make_input(g, "x", DIMS(3, 4))));
    terse_node_set_int(g, last_node(g), "to", TERSE_FP32);
    finish(g, y);
    check(g, HOW(ANY));
}

static void two_operands_broadcast(void **state)
{
    (void)state;
    static const struct {
        terse_op op;
        filling a, b;
    } rows[] = {{TERSE_OP_ADD, ANY, ANY},      {TERSE_OP_SUB, ANY, ANY},      {TERSE_OP_MUL, ANY, ANY},
                {TERSE_OP_DIV, ANY, POSITIVE}, {TERSE_OP_POW, POSITIVE, ANY}, {TERSE_OP_MIN, APART, SMALL},
                {TERSE_OP_MAX, APART, SMALL},  {TERSE_OP_PRELU, APART, ANY}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int form = 0; form < 6; form++) {
            terse_graph *g = terse_graph_new();
            const int64_t p = pick(1, 3), q = pick(2, 5), r = pick(2, 4);
            const int a = make_input(g, "a", DIMS(p, q, r));
            const int64_t shapes[][3] = {{p, q, r}, {1, q, 1}, {1, 1, r}, {p, 1, r}, {1, 1, 1}, {p, q, 1}};
            int b = make_input(g, "b", 3, shapes[form]);
            if (rows[i].op == TERSE_OP_MIN || rows[i].op == TERSE_OP_MAX) /* far from any tie: all below or above */
                b = make_node(g, TERSE_OP_ADD, INPUTS(b, make_number(g, form & 1 ? 9 : -9)));
            finish(g, make_node(g, rows[i].op, INPUTS(a, b)));
            check(g, HOW(rows[i].a, rows[i].b));
            if (rows[i].op == TERSE_OP_PRELU || form == 0)
                continue;
            g = terse_graph_new(); /* the small operand first */
            const int small = make_input(g, "a", 3, shapes[form]);
            int large = make_input(g, "b", DIMS(p, q, r));
            if (rows[i].op == TERSE_OP_MIN || rows[i].op == TERSE_OP_MAX)
                large = make_node(g, TERSE_OP_ADD, INPUTS(large, make_number(g, form & 1 ? 9 : -9)));
            finish(g, make_node(g, rows[i].op, INPUTS(small, large)));
            check(g, HOW(rows[i].a, rows[i].b));
        }
}

static void where_and_a_value_read_twice(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    const int a = make_input(g, "a", DIMS(3, 4, 5)), b = make_input(g, "b", DIMS(4, 1));
    uint8_t *choice = terse_arena_alloc(g->arena, 20);
    for (int i = 0; i < 20; i++)
        choice[i] = (uint8_t)pick(0, 1);
    const int c = terse_graph_add_constant(g, "c", TERSE_BOOL, 2, (int64_t[]){4, 5}, choice);
    finish(g, make_node(g, TERSE_OP_WHERE, INPUTS(c, a, b)));
    check(g, HOW(ANY, ANY));
    g = terse_graph_new(); /* Swish, and x twice in one product */
    const int x = make_input(g, "x", DIMS(2, 6));
    const int swish = make_node(g, TERSE_OP_MUL, INPUTS(x, make_node(g, TERSE_OP_SIGMOID, INPUTS(x))));
    finish(g, make_node(g, TERSE_OP_MUL, INPUTS(swish, swish)));
    check(g, HOW(ANY));
}

static void convolutions(void **state)
{
    (void)state;
    for (int round = 0; round < 40; round++) {
        terse_graph *g = terse_graph_new();
        const int spatial = round % 4 == 0 ? 1 : round % 13 == 12 ? 3 : 2;
        const int groups = round % 3 == 0 ? 1 : pick(1, 3), depthwise = round % 5 == 4;
        const int64_t channels = depthwise ? groups + 1 : groups * pick(1, 3);
        const int64_t filters = depthwise ? channels : groups * pick(1, 3), of = depthwise ? channels : groups;
        int64_t x_dims[5] = {pick(1, 3), channels}, w_dims[5] = {filters, channels / of};
        int64_t strides[3], dilations[3], pads[6];
        for (int i = 0; i < spatial; i++) {
            x_dims[2 + i] = pick(5, 7); /* a dilated kernel covers 5 */
            w_dims[2 + i] = round % 7 == 6 ? 1 : pick(1, 3);
            strides[i] = pick(1, 2);
            dilations[i] = pick(1, 2);
            pads[i] = pick(0, 2);
            pads[spatial + i] = pick(0, 2);
            if (round % 7 == 6)
                strides[i] = dilations[i] = 1, pads[i] = pads[spatial + i] = 0;
        }
        const int x = make_input(g, "x", 2 + spatial, x_dims), w = make_input(g, "w", 2 + spatial, w_dims);
        const int b = round % 2 ? make_input(g, "b", DIMS(filters)) : TERSE_NO_VALUE;
        const int y = make_node(g, TERSE_OP_CONV, INPUTS(x, w, b));
        terse_node_set_ints(g, last_node(g), "strides", strides, spatial);
        terse_node_set_ints(g, last_node(g), "dilations", dilations, spatial);
        terse_node_set_ints(g, last_node(g), "pads", pads, 2 * spatial);
        terse_node_set_int(g, last_node(g), "group", of);
        finish(g, y);
        check(g, HOW(ANY, ANY, ANY));
    }
}

static void matrix_products(void **state)
{
    (void)state;
    for (int round = 0; round < 16; round++) {
        terse_graph *g = terse_graph_new();
        const int64_t m = pick(1, 5), k = pick(1, 6), n = pick(1, 5);
        const bool ta = round & 1, tb = round & 2;
        const int a = make_input(g, "a", DIMS(ta ? k : m, ta ? m : k)),
                  b = make_input(g, "b", DIMS(tb ? n : k, tb ? k : n));
        const int c = round & 4 ? make_input(g, "c", DIMS(round & 8 ? m : 1, n)) : TERSE_NO_VALUE;
        const int y = make_node(g, TERSE_OP_GEMM, INPUTS(a, b, c));
        terse_node_set_int(g, last_node(g), "transA", ta);
        terse_node_set_int(g, last_node(g), "transB", tb);
        terse_node_set_float(g, last_node(g), "alpha", 0.7);
        terse_node_set_float(g, last_node(g), "beta", 1.3);
        finish(g, y);
        check(g, HOW(ANY, ANY, ANY));
    }
    for (int round = 0; round < 8; round++) {
        terse_graph *g = terse_graph_new();
        const int64_t p = pick(2, 3), q = pick(2, 3), m = pick(1, 4), k = pick(1, 5), n = pick(1, 4);
        const int64_t as[][4] = {{m, k}, {p, m, k}, {p, q, m, k}, {q, m, k}, {p, 1, m, k}, {k}, {p, m, k}, {k}};
        const int64_t bs[][4] = {{k, n}, {k, n}, {p, q, k, n}, {p, 1, k, n}, {1, q, k, n}, {k, n}, {k}, {k}};
        const int a_rank[] = {2, 3, 4, 3, 4, 1, 3, 1}, b_rank[] = {2, 2, 4, 4, 4, 2, 1, 1};
        const int a = make_input(g, "a", a_rank[round], as[round]), b = make_input(g, "b", b_rank[round], bs[round]);
        finish(g, make_node(g, TERSE_OP_MATMUL, INPUTS(a, b)));
        check(g, HOW(ANY, ANY));
    }
}

static void pools(void **state)
{
    (void)state;
    for (int round = 0; round < 24; round++) {
        terse_graph *g = terse_graph_new();
        const int spatial = round % 6 == 5 ? 1 : 2;
        const terse_op op = round % 2 ? TERSE_OP_MAX_POOL : TERSE_OP_AVERAGE_POOL;
        int64_t dims[4] = {2, pick(1, 2), pick(5, 7), pick(5, 7)}, kernel[2], strides[2], pads[4];
        for (int i = 0; i < spatial; i++) {
            kernel[i] = pick(2, 3);
            strides[i] = pick(1, 3);
            pads[i] = pick(0, 1);
            pads[spatial + i] = pick(0, 1);
        }
        const int y = make_node(g, op, INPUTS(make_input(g, "x", 2 + spatial, dims)));
        terse_node_set_ints(g, last_node(g), "kernel_shape", kernel, spatial);
        terse_node_set_ints(g, last_node(g), "strides", strides, spatial);
        terse_node_set_ints(g, last_node(g), "pads", pads, 2 * spatial);
        terse_node_set_int(g, last_node(g), "ceil_mode", pick(0, 1));
        if (op == TERSE_OP_AVERAGE_POOL)
            terse_node_set_int(g, last_node(g), "count_include_pad", pick(0, 1));
        finish(g, y);
        check(g, HOW(APART));
    }
    for (int round = 0; round < 4; round++) {
        terse_graph *g = terse_graph_new();
        const terse_op op = round % 2 ? TERSE_OP_GLOBAL_MAX_POOL : TERSE_OP_GLOBAL_AVERAGE_POOL;
        finish(g, make_node(g, op, INPUTS(make_input(g, "x", DIMS(2, 3, pick(1, 4), pick(1, 4))))));
        check(g, HOW(APART));
    }
}

static void reductions(void **state)
{
    (void)state;
    static const terse_op ops[] = {TERSE_OP_REDUCE_MEAN, TERSE_OP_REDUCE_SUM, TERSE_OP_REDUCE_MAX};
    static const int64_t axes[][2] = {{0, 0}, {1, 1}, {-1, -1}, {0, 2}, {1, 2}};
    for (int i = 0; i < 3; i++)
        for (int form = 0; form < 12; form++) {
            terse_graph *g = terse_graph_new();
            const int x = make_input(g, "x", DIMS(pick(1, 3), pick(2, 4), pick(2, 4)));
            const int64_t *some = axes[form % 5];
            const int which = form < 10 ? make_ints(g, some[0] == some[1] ? 1 : 2, some) : TERSE_NO_VALUE;
            const int y = make_node(g, ops[i], INPUTS(x, which));
            terse_node_set_int(g, last_node(g), "keepdims", form % 2);
            finish(g, y);
            check(g, HOW(APART));
        }
}

static void softmaxes(void **state)
{
    (void)state;
    for (int form = 0; form < 12; form++) {
        terse_graph *g = terse_graph_new();
        const int x = make_input(g, "x", DIMS(pick(1, 3), pick(2, 4), pick(2, 5)));
        const int y = make_node(g, form & 1 ? TERSE_OP_SOFTMAX : TERSE_OP_LOG_SOFTMAX, INPUTS(x));
        terse_node_set_int(g, last_node(g), "axis", form / 2 % 3 - 1);
        if (form >= 6)
            terse_node_set_int(g, last_node(g), "coerce_2d", 1);
        finish(g, y);
        check(g, HOW(ANY));
    }
}

/* Sets of enough numbers that none is almost constant: there the functions bend more than differences can follow. */
static void normalizations(void **state)
{
    (void)state;
    for (int form = 0; form < 8; form++) {
        terse_graph *g = terse_graph_new();
        const int64_t c = pick(2, 4), h = pick(1, 4);
        const int64_t dims[] = {pick(6, 8), c, h, 3};
        const int x = make_input(g, "x", form % 4 == 3 ? 2 : 4, dims);
        const int scale = make_input(g, "scale", DIMS(c)), bias = make_input(g, "bias", DIMS(c));
        finish(g, make_node(
                      g, TERSE_OP_BATCH_NORMALIZATION,
                      INPUTS(x, scale, bias, make_weights(g, 0, 0.5f, DIMS(c)), make_weights(g, 1.5f, 0.5f, DIMS(c)))));
        check_with(g, HOW(ANY, ANY, ANY), form < 4, NULL);
    }
    for (int form = 0; form < 6; form++) {
        terse_graph *g = terse_graph_new();
        const int64_t p = pick(2, 3), q = pick(2, 4), r = pick(7, 9);
        const int x = make_input(g, "x", DIMS(p, q, r));
        const int scale = form < 4 ? make_input(g, "scale", DIMS(r)) : make_input(g, "scale", DIMS(q, r));
        const int bias = form % 2 ? make_input(g, "bias", DIMS(r)) : TERSE_NO_VALUE;
        const int y = make_node(g, TERSE_OP_LAYER_NORMALIZATION, INPUTS(x, scale, bias));
        terse_node_set_int(g, last_node(g), "axis", form < 2 ? -1 : 1);
        finish(g, y);
        check(g, HOW(ANY, ANY, ANY));
    }
    for (int form = 0; form < 6; form++) {
        terse_graph *g = terse_graph_new();
        const int64_t c = 4;
        const int x = make_input(g, "x", DIMS(2, c, pick(3, 4), pick(3, 4)));
        const int scale = make_input(g, "scale", DIMS(c)), bias = make_input(g, "bias", DIMS(c));
        const int y = make_node(g, form % 2 ? TERSE_OP_GROUP_NORMALIZATION : TERSE_OP_INSTANCE_NORMALIZATION,
                                INPUTS(x, scale, bias));
        if (form % 2)
            terse_node_set_int(g, last_node(g), "num_groups", 2);
        finish(g, y);
        check(g, HOW(APART, ANY, ANY));
    }
    for (int size = 1; size < 6; size++) {
        terse_graph *g = terse_graph_new();
        const int y = make_node(g, TERSE_OP_LRN, INPUTS(make_input(g, "x", DIMS(2, pick(3, 6), 2, 3))));
        terse_node_set_int(g, last_node(g), "size", size);
        terse_node_set_float(g, last_node(g), "alpha", 0.5);
        finish(g, y);
        check(g, HOW(ANY));
    }
}

/* RMS norm as a Llama has it, and attention of one head: chains of what is checked alone above. */
static void patterns(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    int x = make_input(g, "x", DIMS(2, 3, 5));
    int mean =
        make_node(g, TERSE_OP_REDUCE_MEAN,
                  INPUTS(make_node(g, TERSE_OP_POW, INPUTS(x, make_number(g, 2))), make_ints(g, 1, (int64_t[]){-1})));
    int root = make_node(g, TERSE_OP_SQRT, INPUTS(make_node(g, TERSE_OP_ADD, INPUTS(mean, make_number(g, 1e-5f)))));
    int scaled = make_node(g, TERSE_OP_MUL, INPUTS(x, make_node(g, TERSE_OP_RECIPROCAL, INPUTS(root))));
    finish(g, make_node(g, TERSE_OP_MUL, INPUTS(scaled, make_input(g, "scale", DIMS(5)))));
    check(g, HOW(POSITIVE, ANY));
    g = terse_graph_new();
    const int q = make_input(g, "q", DIMS(2, 3, 4)), k = make_input(g, "k", DIMS(2, 3, 4)),
              v = make_input(g, "v", DIMS(2, 3, 4));
    const int kt = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(k));
    terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 2, 1}, 3);
    const int share = make_node(g, TERSE_OP_SOFTMAX, INPUTS(make_node(g, TERSE_OP_MATMUL, INPUTS(q, kt))));
    finish(g, make_node(g, TERSE_OP_MATMUL, INPUTS(share, v)));
    check(g, HOW(ANY, ANY, ANY));
}

static void shapes_of_the_same_numbers(void **state)
{
    (void)state;
    static const terse_op ops[] = {TERSE_OP_RESHAPE, TERSE_OP_FLATTEN, TERSE_OP_SQUEEZE, TERSE_OP_UNSQUEEZE};
    for (int i = 0; i < 4; i++) {
        terse_graph *g = terse_graph_new();
        const int x = make_input(g, "x", DIMS(2, 1, 6));
        const int operand = i == 0   ? make_ints(g, 2, (int64_t[]){3, -1})
                            : i == 1 ? TERSE_NO_VALUE
                                     : make_ints(g, 1, (int64_t[]){1});
        finish(g, make_node(g, ops[i], (const int[]){x, operand}, i == 1 ? 1 : 2));
        check(g, HOW(ANY));
    }
}

static void moves(void **state)
{
    (void)state;
    for (int form = 0; form < 17; form++) {
        terse_graph *g = terse_graph_new();
        const int x = make_input(g, "x", form == 8 ? 4 : 3, (int64_t[]){2, 4, form == 8 ? 2 : 5, 3});
        int y;
        if (form == 0) {
            y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
            terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){2, 0, 1}, 3);
        } else if (form == 1) {
            y = make_node(g, TERSE_OP_SLICE,
                          INPUTS(x, make_ints(g, 2, (int64_t[]){1, -1}), make_ints(g, 2, (int64_t[]){4, -6}),
                                 make_ints(g, 2, (int64_t[]){1, 2}), make_ints(g, 2, (int64_t[]){2, -2})));
        } else if (form <= 5) {
            static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
            y = make_node(g, TERSE_OP_PAD,
                          INPUTS(x, make_ints(g, 6, (int64_t[]){0, 1, 2, 1, -1, 1}),
                                 form == 2 ? make_number(g, 7) : TERSE_NO_VALUE));
            terse_node_set_text(g, last_node(g), "mode", modes[form - 2]);
            if (form == 3)
                ((int64_t *)(uintptr_t)g->values[last_node(g)->inputs[1]].data)[3] = 0;
        } else if (form == 6) {
            y = make_node(g, TERSE_OP_EXPAND,
                          INPUTS(make_node(g, TERSE_OP_UNSQUEEZE, INPUTS(x, make_ints(g, 1, (int64_t[]){1}))),
                                 make_ints(g, 4, (int64_t[]){2, 3, 4, 5})));
        } else if (form == 7) {
            y = make_node(g, TERSE_OP_TILE, INPUTS(x, make_ints(g, 3, (int64_t[]){1, 2, 3})));
        } else if (form == 8) {
            y = make_node(g, TERSE_OP_DEPTH_TO_SPACE, INPUTS(x));
            terse_node_set_int(g, last_node(g), "blocksize", 2);
        } else if (form <= 12) {
            const float scales[] = {1, 2, form & 1 ? 1.6f : 0.5f};
            float *data = terse_arena_alloc(g->arena, sizeof scales);
            memcpy(data, scales, sizeof scales);
            const int s = terse_graph_add_constant(g, "s", TERSE_FP32, 1, (int64_t[]){3}, data);
            y = make_node(g, TERSE_OP_RESIZE, INPUTS(x, TERSE_NO_VALUE, s));
            terse_node_set_text(g, last_node(g), "coordinate_transformation_mode",
                                form < 11 ? "asymmetric" : "half_pixel");
            terse_node_set_text(g, last_node(g), "nearest_mode", "floor");
        } else if (form < 15) {
            const int other = make_input(g, "z", 3, form == 13 ? (int64_t[]){2, 3, 5} : (int64_t[]){2, 4, 2});
            y = make_node(g, TERSE_OP_CONCAT, INPUTS(x, other, x));
            terse_node_set_int(g, last_node(g), "axis", form == 13 ? 1 : -1);
        } else { /* three parts that come together in another order, one of them unused in the last form */
            int parts[3];
            for (int i = 0; i < 3; i++)
                parts[i] = terse_graph_add_value(g, "part");
            terse_graph_add_node(g, TERSE_OP_SPLIT, "split", INPUTS(x, make_ints(g, 3, (int64_t[]){2, 1, 2})), parts,
                                 3);
            terse_node_set_int(g, last_node(g), "axis", 2);
            y = form == 15 ? make_node(g, TERSE_OP_CONCAT, INPUTS(parts[2], parts[0], parts[1]))
                           : make_node(g, TERSE_OP_CONCAT, INPUTS(parts[2], parts[0]));
            terse_node_set_int(g, last_node(g), "axis", 2);
        }
        finish(g, y);
        check(g, HOW(ANY, ANY));
    }
}

static void embeddings(void **state)
{
    (void)state;
    for (int axis = 0; axis < 2; axis++) {
        terse_graph *g = terse_graph_new();
        const int table = make_input(g, "table", DIMS(5, 6)), at = make_input(g, "at", DIMS(2, 3));
        g->values[at].dtype = TERSE_INT64;
        const int y = make_node(g, TERSE_OP_GATHER, INPUTS(table, at));
        terse_node_set_int(g, last_node(g), "axis", axis);
        finish(g, y);
        int64_t *indices = malloc(6 * sizeof *indices);
        for (int i = 0; i < 6; i++)
            indices[i] = pick(-5, 4);
        check_with(g, HOW(ANY, ANY), false, (void *const[]){NULL, indices});
    }
}

static void quantizers_pass_gradients_straight_through(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    const int x = make_input(g, "x", DIMS(1, 40));
    const int scale = make_number(g, 0.05f);
    uint8_t *zero = terse_arena_alloc(g->arena, 1);
    *zero = 20;
    const int z = terse_graph_add_constant(g, "z", TERSE_UINT8, 0, NULL, zero);
    const int q = make_node(g, TERSE_OP_QUANTIZE_LINEAR, INPUTS(x, scale, z));
    finish(g, make_node(g, TERSE_OP_DEQUANTIZE_LINEAR, INPUTS(q, scale, z)));
    terse_tensor view = terse_tensor_view(NULL, TERSE_FP32, 2, g->values[x].dims);
    char targets[16] = {0};
    targets[g->outputs[0]] = 1;
    const terse_tape_options options = {.targets = targets, .backward = true, .grad_inputs = true};
    terse_tape *tape = NULL;
    terse_error error = {0};
    assert_int_equal(terse_tape_new(g, &view, &options, &tape, &error), TERSE_OK);
    float numbers[40];
    for (int i = 0; i < 40; i++)
        numbers[i] = -2.0f + (float)i * 0.4f; /* -1 .. 11.75 can be said in bytes */
    assert_int_equal(terse_tape_forward(tape, (const void *const[]){numbers}, &error), TERSE_OK);
    for (int i = 0; i < 40; i++)
        terse_tape_gradient(tape, g->outputs[0])[i] = (float)(i + 1);
    assert_int_equal(terse_tape_backward(tape, &error), TERSE_OK);
    for (int i = 0; i < 40; i++) {
        const bool inside = numbers[i] >= -1.025f && numbers[i] <= 11.775f;
        assert_true(terse_tape_gradient(tape, x)[i] == (inside ? (float)(i + 1) : 0));
    }
    tried[TERSE_OP_QUANTIZE_LINEAR]++;
    tried[TERSE_OP_DEQUANTIZE_LINEAR]++;
    terse_tape_free(tape);
    terse_graph_free(g);
}

/* An operator that gains a gradient must be tried above; runs last. */
static void every_operator_with_a_gradient_was_tried(void **state)
{
    (void)state;
    int n = 0;
    for (int op = 0; op < TERSE_OP_COUNT; op++) {
        const terse_node node = {.op = (terse_op)op, .n_inputs = 2, .n_outputs = 1};
        if (!terse_back_find(&node))
            continue;
        n++;
        if (!tried[op])
            fail_msg("%s has a gradient that no test checks", terse_op_name((terse_op)op));
    }
    assert_true(n > 50);
}

static void an_operator_without_a_gradient_is_told(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    const int x = make_input(g, "x", DIMS(2, 4));
    const int w = make_weights(g, 0, 1, DIMS(4)), late = make_weights(g, 0, 1, DIMS(4));
    const int floor = make_node(g, TERSE_OP_FLOOR, INPUTS(make_node(g, TERSE_OP_MUL, INPUTS(x, w))));
    finish(g, make_node(g, TERSE_OP_ADD, INPUTS(floor, late)));
    terse_tensor view = terse_tensor_view(NULL, TERSE_FP32, 2, g->values[x].dims);
    char targets[16] = {0}, trained[16] = {0};
    targets[g->outputs[0]] = trained[w] = trained[late] = 1;
    const terse_tape_options options = {.targets = targets, .trained = trained, .backward = true};
    terse_tape *tape = NULL;
    terse_error error = {0};
    assert_int_equal(terse_tape_new(g, &view, &options, &tape, &error), TERSE_OK);
    assert_true(terse_tape_blocked(tape, 1));
    assert_false(terse_tape_blocked(tape, 2));
    assert_null(terse_tape_parameter_gradient(tape, w));
    assert_non_null(terse_tape_parameter_gradient(tape, late));
    terse_tape_free(tape);
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise_functions),
        cmocka_unit_test(clip_and_cast),
        cmocka_unit_test(two_operands_broadcast),
        cmocka_unit_test(where_and_a_value_read_twice),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(matrix_products),
        cmocka_unit_test(pools),
        cmocka_unit_test(reductions),
        cmocka_unit_test(softmaxes),
        cmocka_unit_test(normalizations),
        cmocka_unit_test(patterns),
        cmocka_unit_test(shapes_of_the_same_numbers),
        cmocka_unit_test(moves),
        cmocka_unit_test(embeddings),
        cmocka_unit_test(quantizers_pass_gradients_straight_through),
        cmocka_unit_test(an_operator_without_a_gradient_is_told),
        cmocka_unit_test(every_operator_with_a_gradient_was_tried),
    };
    const char *given = getenv("TERSE_SEED");
    seed = given ? (uint32_t)strtoul(given, NULL, 10) : (uint32_t)terse_now_ns();
    printf("# seed %u (TERSE_SEED repeats it)\n", seed);
    random_state = seed;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
