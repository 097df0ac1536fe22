/* SPDX-License-Identifier: Apache-2.0 */
/* op_case.h: one operator run by itself, for tests: inputs, attributes, plan, run, guarded outputs. */
#ifndef TERSE_TESTS_OP_CASE_H
#define TERSE_TESTS_OP_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/ops/op.h"

enum { CASE_INPUTS = 10, CASE_OUTPUTS = 4, CASE_GUARD = 64 };

typedef struct op_case {
    terse_graph *graph;
    terse_node *node;
    const terse_kernels *kernels;
    terse_op op;
    int n_inputs, n_outputs;
    terse_tensor inputs[CASE_INPUTS];
    bool present[CASE_INPUTS], constant[CASE_INPUTS];
    terse_tensor outputs[CASE_OUTPUTS];
    int64_t macs;
    terse_error error;
} op_case;

static unsigned case_seed;

static inline float case_random(void)
{
    case_seed = case_seed * 1664525u + 1013904223u;
    return (float)(case_seed >> 8) / 8388608.0f - 1.0f;
}

static inline int64_t case_pick(int64_t least, int64_t most)
{
    case_seed = case_seed * 1664525u + 1013904223u;
    return least + (int64_t)(case_seed >> 8) % (most - least + 1);
}

static inline op_case case_new(terse_op op, int n_outputs)
{
    op_case c = {.graph = terse_graph_new(), .op = op, .n_outputs = n_outputs};
    assert_non_null(c.graph);
    assert_int_equal(terse_kernels_get(&c.kernels, &c.error), TERSE_OK);
    int numbers[CASE_OUTPUTS] = {0, 1, 2, 3};
    for (int i = 0; i < CASE_OUTPUTS; i++)
        terse_graph_add_value(c.graph, "y");
    c.node = terse_graph_add_node(c.graph, op, "node", NULL, 0, numbers, n_outputs);
    assert_non_null(c.node);
    return c;
}

static inline void case_free(op_case *c)
{
    for (int i = 0; i < CASE_INPUTS; i++)
        free(c->present[i] ? c->inputs[i].data : NULL);
    for (int i = 0; i < CASE_OUTPUTS; i++)
        free(c->outputs[i].data);
    terse_graph_free(c->graph);
}

/* Input `index`, random FP32 between -1 and 1, not known when planned. */
static inline float *case_input(op_case *c, int index, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank);
    float *data = malloc((size_t)count * sizeof *data + 1);
    for (int64_t i = 0; i < count; i++)
        data[i] = case_random();
    c->inputs[index] = terse_tensor_view(data, TERSE_FP32, rank, dims);
    c->present[index] = true;
    c->n_inputs = c->n_inputs > index + 1 ? c->n_inputs : index + 1;
    return data;
}
#define CASE_DIMS(...)                                                                                                 \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[])                                             \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

/* Input `index` with these bytes (copied), known when planned. */
static inline void case_constant(op_case *c, int index, terse_dtype dtype, int rank, const int64_t *dims,
                                 const void *data)
{
    c->inputs[index] = terse_tensor_view(NULL, dtype, rank, dims);
    const size_t bytes = (size_t)terse_tensor_bytes(&c->inputs[index]);
    c->inputs[index].data = malloc(bytes + 1);
    memcpy(c->inputs[index].data, data, bytes);
    c->present[index] = c->constant[index] = true;
    c->n_inputs = c->n_inputs > index + 1 ? c->n_inputs : index + 1;
}
#define CASE_FLOATS(c, index, shape, ...) case_constant(c, index, TERSE_FP32, shape, (float[]){__VA_ARGS__})
#define CASE_INTS(c, index, ...)                                                                                       \
    case_constant(c, index, TERSE_INT64, 1, (int64_t[]){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)},           \
                  (int64_t[]){__VA_ARGS__})

static inline void case_set_ints(op_case *c, const char *name, int n, const int64_t *values)
{
    assert_true(terse_node_set_ints(c->graph, c->node, name, values, n));
}
#define CASE_ATTR_INTS(c, name, ...) case_set_ints(c, name, CASE_DIMS(__VA_ARGS__))

/* Plans and runs; outputs end at a guard that must survive. row_stride > 0 asks for outputs[0] in wider rows. */
static inline int case_run_strided(op_case *c, int64_t row_stride)
{
    const terse_op_impl *impl = terse_op_find(c->op);
    assert_non_null(impl);
    TERSE_AUTO(terse_freep) void *scratch = NULL;
    terse_arena *arena = terse_arena_new();
    terse_tensor known[CASE_INPUTS];
    const terse_tensor *planned[CASE_INPUTS] = {0}, *given[CASE_INPUTS] = {0};
    for (int i = 0; i < c->n_inputs; i++) {
        known[i] = c->inputs[i];
        if (!c->constant[i])
            known[i].data = NULL;
        if (c->present[i]) {
            planned[i] = &known[i];
            given[i] = &c->inputs[i];
        }
    }
    terse_op_plan plan = {.node = c->node,
                          .kernels = c->kernels,
                          .n_inputs = c->n_inputs,
                          .n_outputs = c->n_outputs,
                          .inputs = planned,
                          .outputs = c->outputs,
                          .arena = arena};
    int status = impl->plan(&plan, &c->error);
    if (status == TERSE_OK) {
        const size_t room = terse_align(plan.scratch_bytes + CASE_GUARD, 64);
        scratch = aligned_alloc(64, room);
        assert_non_null(scratch);
        memset(scratch, 0xff, room);
        if (row_stride > 0)
            c->outputs[0].row_stride = row_stride;
        for (int i = 0; i < c->n_outputs; i++) {
            const int64_t width = c->outputs[i].rank ? c->outputs[i].dims[c->outputs[i].rank - 1] : 1;
            const int64_t bytes = width ? terse_tensor_bytes(&c->outputs[i]) / width * c->outputs[i].row_stride : 0;
            c->outputs[i].data = malloc((size_t)bytes + CASE_GUARD);
            memset(c->outputs[i].data, 0xa5, (size_t)bytes + CASE_GUARD);
        }
        const terse_op_call call = {.node = c->node,
                                    .kernels = c->kernels,
                                    .params = plan.params,
                                    .n_inputs = c->n_inputs,
                                    .n_outputs = c->n_outputs,
                                    .inputs = given,
                                    .outputs = c->outputs,
                                    .scratch = scratch};
        status = impl->run(&call, &c->error);
        for (int i = 0; i < CASE_GUARD; i++)
            assert_int_equal(((uint8_t *)scratch)[plan.scratch_bytes + (size_t)i], 0xff);
        for (int k = 0; k < c->n_outputs; k++) {
            const int64_t width = c->outputs[k].rank ? c->outputs[k].dims[c->outputs[k].rank - 1] : 1;
            const int64_t bytes = width ? terse_tensor_bytes(&c->outputs[k]) / width * c->outputs[k].row_stride : 0;
            for (int i = 0; i < CASE_GUARD; i++)
                assert_int_equal(((uint8_t *)c->outputs[k].data)[bytes + i], 0xa5);
        }
        c->macs = plan.macs;
    }
    terse_arena_free(arena);
    return status;
}

static inline int case_run(op_case *c)
{
    return case_run_strided(c, 0);
}

static inline void case_ok(op_case *c)
{
    if (case_run(c) != TERSE_OK)
        fail_msg("%s", c->error.message);
}

/* Refused when planned, with `text` somewhere in the message. */
static inline void case_refused(op_case *c, const char *text)
{
    assert_int_not_equal(case_run(c), TERSE_OK);
    if (!strstr(c->error.message, text))
        fail_msg("the message is '%s', '%s' is missed", c->error.message, text);
}

static inline void case_close(const float *got, const float *want, int64_t n, double tolerance)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * (1.0 + fabs((double)want[i]))))
            fail_msg("element %lld is %.9g, wanted %.9g (seed %u)", (long long)i, (double)got[i], (double)want[i],
                     case_seed);
}
#define CASE_WANT(c, index, tolerance, ...)                                                                            \
    do {                                                                                                               \
        const float want_[] = {__VA_ARGS__};                                                                           \
        assert_int_equal(terse_tensor_count(&(c)->outputs[index]), sizeof want_ / sizeof want_[0]);                    \
        case_close((c)->outputs[index].data, want_, (int64_t)(sizeof want_ / sizeof want_[0]), tolerance);             \
    } while (0)

#endif
