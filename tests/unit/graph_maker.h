/* SPDX-License-Identifier: Apache-2.0 */
/* graph_maker.h: small networks with random weights for tests of passes, and their answers by the engine. */
#ifndef TERSE_TESTS_GRAPH_MAKER_H
#define TERSE_TESTS_GRAPH_MAKER_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/graph/engine.h"
#include "common/npz.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define DIMS(...)                                                                                                      \
    COUNT(((const int64_t[]){__VA_ARGS__})), (const int64_t[])                                                         \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }
#define INPUTS(...) (const int[]){__VA_ARGS__}, COUNT(((const int[]){__VA_ARGS__}))

static uint32_t random_state = 1;

static inline float random_number(void) /* -1..1 */
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / 8388608.0f - 1.0f;
}

static inline int make_input(terse_graph *g, const char *name, int rank, const int64_t *dims)
{
    const int value = terse_graph_add_value(g, name);
    assert_true(value >= 0);
    g->values[value].dtype = TERSE_FP32;
    g->values[value].rank = rank;
    memcpy(g->values[value].dims, dims, (size_t)rank * sizeof *dims);
    if (!g->inputs)
        g->inputs = terse_arena_alloc(g->arena, 16 * sizeof *g->inputs);
    g->inputs[g->n_inputs++] = value;
    return value;
}

static inline void make_output(terse_graph *g, int value)
{
    if (!g->outputs)
        g->outputs = terse_arena_alloc(g->arena, 16 * sizeof *g->outputs);
    g->outputs[g->n_outputs++] = value;
}

/* Random numbers around `mean`, spread by `scale`. */
static inline int make_weights(terse_graph *g, float mean, float scale, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank);
    float *data = terse_arena_alloc(g->arena, (size_t)(count + 1) * sizeof *data);
    for (int64_t i = 0; i < count; i++)
        data[i] = mean + scale * random_number();
    return terse_graph_add_constant(g, "w", TERSE_FP32, rank, dims, data);
}

static inline int make_number(terse_graph *g, float number)
{
    return make_weights(g, number, 0, 0, NULL);
}

static inline int make_ints(terse_graph *g, int n, const int64_t *values)
{
    return terse_graph_add_ints(g, "ints", values, n);
}

/* Appends a node with one output; its value. The node is the last of the graph. */
static inline int make_node(terse_graph *g, terse_op op, const int *inputs, int n_inputs)
{
    char name[32];
    snprintf(name, sizeof name, "v%d", g->n_values);
    const int value = terse_graph_add_value(g, name);
    assert_non_null(terse_graph_add_node(g, op, terse_op_name(op), inputs, n_inputs, &value, 1));
    return value;
}

static inline terse_node *last_node(terse_graph *g)
{
    return &g->nodes[g->n_nodes - 1];
}

static inline int make_relu(terse_graph *g, int x)
{
    return make_node(g, TERSE_OP_RELU, INPUTS(x));
}

/* 2-D convolution with square kernel and the same padding on all sides. */
static inline int make_conv(terse_graph *g, int x, int64_t channels, int64_t filters, int64_t kernel, int64_t stride,
                            int64_t pad, int64_t group)
{
    const int w = make_weights(g, 0, 0.4f, DIMS(filters, channels / group, kernel, kernel));
    const int b = make_weights(g, 0, 0.5f, DIMS(filters));
    const int y = make_node(g, TERSE_OP_CONV, INPUTS(x, w, b));
    terse_node_set_ints(g, last_node(g), "strides", (int64_t[]){stride, stride}, 2);
    terse_node_set_ints(g, last_node(g), "pads", (int64_t[]){pad, pad, pad, pad}, 4);
    terse_node_set_int(g, last_node(g), "group", group);
    return y;
}

static inline int make_batch_norm(terse_graph *g, int x, int64_t channels)
{
    return make_node(g, TERSE_OP_BATCH_NORMALIZATION,
                     INPUTS(x, make_weights(g, 1, 0.5f, DIMS(channels)), make_weights(g, 0, 0.5f, DIMS(channels)),
                            make_weights(g, 0, 0.5f, DIMS(channels)), make_weights(g, 1, 0.5f, DIMS(channels))));
}

/* --- answers --------------------------------------------------------------------------------------------------- */

typedef struct answers {
    int n;
    terse_tensor tensors[16]; /* data on the heap */
} answers;

static inline void answers_done(answers *a)
{
    for (int i = 0; i < a->n; i++)
        free(a->tensors[i].data);
    a->n = 0;
}

/* The dims of every input with symbols bound to `n`, filled with the same random numbers for the same seed. */
static inline void random_inputs(const terse_graph *g, int64_t n, uint32_t seed, terse_tensor *inputs)
{
    random_state = seed;
    for (int i = 0; i < g->n_inputs; i++) {
        const terse_value *v = &g->values[g->inputs[i]];
        int64_t dims[TERSE_MAX_RANK];
        for (int j = 0; j < v->rank; j++)
            dims[j] = v->dims[j] < 0 ? n : v->dims[j];
        inputs[i] = terse_tensor_view(NULL, v->dtype, v->rank, dims);
        const int64_t count = terse_tensor_count(&inputs[i]);
        float *data = malloc((size_t)(count + 1) * sizeof *data);
        for (int64_t k = 0; k < count; k++)
            data[k] = random_number();
        inputs[i].data = data;
    }
}

static inline answers answer(const terse_graph *g, int64_t n, uint32_t seed)
{
    const terse_kernels *kernels;
    terse_engine *engine = NULL;
    terse_plan *plan;
    terse_error error = {0};
    terse_tensor inputs[16];
    const void *in[16];
    void *out[16];
    answers a = {.n = g->n_outputs};
    if (terse_kernels_get(&kernels, &error) != TERSE_OK ||
        terse_engine_new(g, kernels, 2, 0, &engine, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    random_inputs(g, n, seed, inputs);
    if (terse_engine_plan(engine, inputs, &plan, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    for (int i = 0; i < g->n_outputs; i++) {
        a.tensors[i] = *terse_plan_output(plan, i);
        out[i] = a.tensors[i].data = malloc((size_t)terse_tensor_bytes(&a.tensors[i]) + 1);
    }
    for (int i = 0; i < g->n_inputs; i++)
        in[i] = inputs[i].data;
    if (terse_plan_run(plan, in, out, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    for (int i = 0; i < g->n_inputs; i++)
        free(inputs[i].data);
    terse_engine_free(engine);
    return a;
}

/* The largest difference of two answers relative to the largest number in the first; shapes must agree. */
static inline double apart(const answers *a, const answers *b)
{
    double worst = 0;
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        const terse_tensor *x = &a->tensors[i], *y = &b->tensors[i];
        assert_int_equal(x->dtype, y->dtype);
        assert_int_equal(x->rank, y->rank);
        assert_memory_equal(x->dims, y->dims, (size_t)x->rank * sizeof *x->dims);
        if (x->dtype != TERSE_FP32) {
            if (memcmp(x->data, y->data, (size_t)terse_tensor_bytes(x)) != 0)
                worst = (double)INFINITY;
            continue;
        }
        double scale = 1e-6, diff = 0;
        for (int64_t k = 0; k < terse_tensor_count(x); k++) {
            const double p = (double)((float *)x->data)[k], q = (double)((float *)y->data)[k];
            scale = fmax(scale, fabs(p));
            diff = isnan(p) || isnan(q) ? (double)INFINITY : fmax(diff, fabs(p - q));
        }
        worst = fmax(worst, diff / scale);
    }
    return worst;
}

/* States dtype and dims of every computed value as the importer does: a dimension that changes with the symbols is
 * symbol 0. */
static inline void state_values(terse_graph *g)
{
    const terse_kernels *kernels;
    terse_engine *engine = NULL;
    terse_plan *plan;
    terse_error error = {0};
    terse_tensor inputs[16];
    if (terse_kernels_get(&kernels, &error) != TERSE_OK ||
        terse_engine_new(g, kernels, 2, 0, &engine, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    terse_value *stated = calloc((size_t)g->n_values, sizeof *stated);
    for (int64_t n = 2; n <= 3; n++) {
        random_inputs(g, n, 1, inputs);
        if (terse_engine_plan(engine, inputs, &plan, &error) != TERSE_OK)
            fail_msg("%s", error.message);
        for (int v = 0; v < g->n_values; v++) {
            const terse_tensor *t = terse_plan_value(plan, v);
            for (int i = 0; t && i < t->rank; i++)
                stated[v].dims[i] = n == 3 && stated[v].dims[i] != t->dims[i] ? TERSE_DIM_OF_SYMBOL(0) : t->dims[i];
            stated[v].rank = t ? t->rank : -1;
            stated[v].dtype = t ? t->dtype : TERSE_DTYPE_NONE;
        }
        for (int i = 0; i < g->n_inputs; i++)
            free(inputs[i].data);
    }
    for (int v = 0; v < g->n_values; v++) {
        if (g->values[v].rank >= 0) /* a constant or an input */
            continue;
        g->values[v].rank = stated[v].rank;
        g->values[v].dtype = stated[v].dtype;
        memcpy(g->values[v].dims, stated[v].dims, sizeof stated[v].dims);
    }
    free(stated);
    terse_engine_free(engine);
}

/* Random numbers in [-2, 2), the same every time, as the only input "x"; samples_done ends them. */
static inline terse_npz random_samples(int rank, const int64_t *dims)
{
    terse_npz npz = {.n = 1, .names = calloc(1, sizeof(char *)), .tensors = calloc(1, sizeof(terse_tensor))};
    const int64_t n = terse_dims_count(dims, rank);
    float *data = malloc((size_t)n * sizeof *data);
    random_state = 4321;
    for (int64_t i = 0; i < n; i++)
        data[i] = 2 * random_number();
    npz.names[0] = strdup("x");
    npz.tensors[0] = terse_tensor_view(data, TERSE_FP32, rank, dims);
    return npz;
}

static inline void samples_done(terse_npz *npz)
{
    free(npz->tensors[0].data);
    free(npz->names[0]);
    free(npz->names);
    free(npz->tensors);
}

static inline int count_ops(const terse_graph *g, terse_op op)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op == op;
    return n;
}

#endif
