/* SPDX-License-Identifier: Apache-2.0 */
/* engine_ops.h: small operators for the tests of the engine, strict about what they are handed: an output that
 * overlaps an input without permission, or rows that are strided where they may not be, end the test. FP32 only,
 * except for shapes. */
#ifndef TERSE_TESTS_ENGINE_OPS_H
#define TERSE_TESTS_ENGINE_OPS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/graph/plan.h"

static int ops_planned; /* calls of same_shape() since it was last set to 0 */

static const terse_op_impl *find_test_op(terse_op op);

static int64_t rows(const terse_tensor *t)
{
    return t->rank ? terse_dims_count(t->dims, t->rank - 1) : 1;
}

static int64_t columns(const terse_tensor *t)
{
    return t->rank ? t->dims[t->rank - 1] : 1;
}

static float *row(const terse_tensor *t, int64_t r)
{
    return (float *)t->data + r * t->row_stride;
}

static bool overlaps(const terse_tensor *a, const terse_tensor *b)
{
    /* Rows of strided tensors interleave without touching: compare row by row. */
    for (int64_t i = 0; i < rows(a); i++)
        for (int64_t j = 0; j < rows(b); j++) {
            const float *ra = row(a, i), *rb = row(b, j);
            if (ra < rb + columns(b) && rb < ra + columns(a))
                return true;
        }
    return false;
}

static void check_call(const terse_op_call *call)
{
    const terse_op_impl *impl = find_test_op(call->node->op);
    for (int o = 0; o < call->n_outputs; o++) {
        const terse_tensor *out = &call->outputs[o];
        if (!out->data) {
            assert_true(call->n_outputs > 1);
            continue;
        }
        if (!terse_tensor_dense(out))
            assert_true(o == 0 && (impl->flags & TERSE_OP_STRIDED_OUTPUT) && out->row_stride > columns(out));
        for (int i = 0; i < call->n_inputs; i++) {
            const terse_tensor *in = call->inputs[i];
            if (!in || in->dtype != TERSE_FP32)
                continue;
            assert_non_null(in->data);
            if (!terse_tensor_dense(in))
                assert_true((impl->flags & TERSE_OP_STRIDED_INPUTS) && in->row_stride > columns(in));
            if (!overlaps(in, out))
                continue;
            assert_ptr_equal(in->data, out->data);
            assert_true(o == 0 && in->row_stride == out->row_stride);
            assert_true((impl->flags & TERSE_OP_IN_PLACE_ANY) || ((impl->flags & TERSE_OP_IN_PLACE) && i == 0) ||
                        ((impl->flags & TERSE_OP_IN_PLACE_RESIDUAL) && i == 3));
        }
    }
}

static int same_shape(terse_op_plan *plan, terse_error *error)
{
    ops_planned++;
    for (int i = 0; i < plan->n_outputs; i++)
        terse_op_output(plan, i, plan->inputs[0]->dtype, plan->inputs[0]->rank, plan->inputs[0]->dims, error);
    return TERSE_OK;
}

/* y = 3 x + k of each element; k differs by operator so that no two operators agree. */
static int affine(const terse_op_call *call, float k)
{
    check_call(call);
    for (int64_t r = 0; r < rows(call->outputs); r++)
        for (int64_t c = 0; c < columns(call->outputs); c++) {
            const float x = row(call->inputs[0], r)[c];
            row(call->outputs, r)[c] = 3 * x + k - 8192 * (float)(int)((3 * x + k) / 8192);
        }
    return TERSE_OK;
}

static int run_conv(const terse_op_call *call, terse_error *error)
{
    (void)error;
    return affine(call, 1);
}

static int run_relu(const terse_op_call *call, terse_error *error)
{
    (void)error;
    return affine(call, 2);
}

static int run_sigmoid(const terse_op_call *call, terse_error *error)
{
    (void)error;
    return affine(call, 3);
}

static int run_tanh(const terse_op_call *call, terse_error *error)
{
    (void)error;
    return affine(call, 4);
}

static int plan_add(terse_op_plan *plan, terse_error *error)
{
    int64_t dims[TERSE_MAX_RANK];
    int rank;
    const terse_tensor *a = plan->inputs[0], *b = plan->inputs[1];
    const int status = terse_op_broadcast(a->dims, a->rank, b->dims, b->rank, dims, &rank, error);
    return status == TERSE_OK ? terse_op_output(plan, 0, a->dtype, rank, dims, error) : status;
}

/* The second operand has the first's shape, one element, or one row. */
static int run_add(const terse_op_call *call, terse_error *error)
{
    (void)error;
    if (call->outputs[0].dtype == TERSE_INT64) {
        for (int64_t i = 0; i < terse_tensor_count(call->outputs); i++)
            ((int64_t *)call->outputs[0].data)[i] =
                ((int64_t *)call->inputs[0]->data)[i] + ((int64_t *)call->inputs[1]->data)[i];
        return TERSE_OK;
    }
    check_call(call);
    const int64_t n = terse_tensor_count(call->outputs);
    for (int64_t i = 0; i < n; i++) {
        const float *a = call->inputs[0]->data, *b = call->inputs[1]->data;
        const float sum = a[i % terse_tensor_count(call->inputs[0])] + 2 * b[i % terse_tensor_count(call->inputs[1])];
        ((float *)call->outputs[0].data)[i] = sum - 8192 * (float)(int)(sum / 8192);
    }
    return TERSE_OK;
}

/* y = 2 x + residual, both strided or not. */
static int run_matmul(const terse_op_call *call, terse_error *error)
{
    (void)error;
    check_call(call);
    for (int64_t r = 0; r < rows(call->outputs); r++)
        for (int64_t c = 0; c < columns(call->outputs); c++) {
            const float sum = 2 * row(call->inputs[0], r)[c] + row(call->inputs[3], r)[c];
            row(call->outputs, r)[c] = sum - 8192 * (float)(int)(sum / 8192);
        }
    return TERSE_OK;
}

static int plan_concat(terse_op_plan *plan, terse_error *error)
{
    const terse_tensor *first = plan->inputs[0];
    int axis;
    const int status = terse_op_axis(terse_node_int(plan->node, "axis", 0), first->rank, &axis, error);
    if (status != TERSE_OK)
        return status;
    int64_t dims[TERSE_MAX_RANK];
    memcpy(dims, first->dims, sizeof dims);
    for (int i = 1; i < plan->n_inputs; i++)
        dims[axis] += plan->inputs[i]->dims[axis];
    return terse_op_output(plan, 0, first->dtype, first->rank, dims, error);
}

/* Moves between a whole and the range [before, before + part's dim) of its axis. */
static void move_part(const terse_tensor *whole, const terse_tensor *part, int axis, int64_t before, bool join)
{
    const int64_t size = (int64_t)terse_dtype_size(whole->dtype);
    const int64_t outer = terse_dims_count(whole->dims, axis);
    const int64_t inner = terse_dims_count(whole->dims + axis + 1, whole->rank - axis - 1) * size;
    for (int64_t o = 0; o < outer; o++) {
        char *w = (char *)whole->data + (o * whole->dims[axis] + before) * inner;
        char *p = (char *)part->data + o * part->dims[axis] * inner;
        memcpy(join ? w : p, join ? p : w, (size_t)(part->dims[axis] * inner));
    }
}

static int run_concat(const terse_op_call *call, terse_error *error)
{
    if (call->outputs[0].dtype == TERSE_FP32)
        check_call(call);
    int axis;
    int64_t before = 0;
    terse_op_axis(terse_node_int(call->node, "axis", 0), call->outputs[0].rank, &axis, error);
    for (int i = 0; i < call->n_inputs; i++) {
        move_part(&call->outputs[0], call->inputs[i], axis, before, true);
        before += call->inputs[i]->dims[axis];
    }
    return TERSE_OK;
}

/* Into n_outputs parts, the first one smaller when it does not divide. */
static int plan_split(terse_op_plan *plan, terse_error *error)
{
    const terse_tensor *in = plan->inputs[0];
    int axis;
    int status = terse_op_axis(terse_node_int(plan->node, "axis", 0), in->rank, &axis, error);
    int64_t dims[TERSE_MAX_RANK], left = in->dims[axis];
    memcpy(dims, in->dims, sizeof dims);
    for (int i = plan->n_outputs - 1; i >= 0 && status == TERSE_OK; i--) {
        dims[axis] = i ? (in->dims[axis] + plan->n_outputs - 1) / plan->n_outputs : left;
        if (dims[axis] > left)
            dims[axis] = left;
        left -= dims[axis];
        status = terse_op_output(plan, i, in->dtype, in->rank, dims, error);
    }
    return status;
}

static int run_split(const terse_op_call *call, terse_error *error)
{
    check_call(call);
    int axis;
    int64_t before = 0;
    terse_op_axis(terse_node_int(call->node, "axis", 0), call->inputs[0]->rank, &axis, error);
    for (int i = 0; i < call->n_outputs; i++) {
        if (call->outputs[i].data)
            move_part(call->inputs[0], &call->outputs[i], axis, before, false);
        before += call->outputs[i].dims[axis];
    }
    return TERSE_OK;
}

/* One axis, step 1. */
static int plan_slice(terse_op_plan *plan, terse_error *error)
{
    int64_t start, end, axis, dims[TERSE_MAX_RANK];
    int n;
    if (terse_op_ints(plan, 1, "starts", &start, 1, &n, error) || terse_op_ints(plan, 2, "ends", &end, 1, &n, error) ||
        terse_op_ints(plan, 3, "axes", &axis, 1, &n, error))
        return (int)error->status;
    memcpy(dims, plan->inputs[0]->dims, sizeof dims);
    dims[axis] = end - start;
    return terse_op_output(plan, 0, plan->inputs[0]->dtype, plan->inputs[0]->rank, dims, error);
}

static int run_slice(const terse_op_call *call, terse_error *error)
{
    (void)error;
    if (call->outputs[0].dtype == TERSE_FP32)
        check_call(call);
    move_part(call->inputs[0], &call->outputs[0], (int)*(int64_t *)call->inputs[3]->data,
              *(int64_t *)call->inputs[1]->data, false);
    return TERSE_OK;
}

static int plan_reshape(terse_op_plan *plan, terse_error *error)
{
    int64_t dims[TERSE_MAX_RANK];
    int n;
    const int status = terse_op_ints(plan, 1, "shape", dims, TERSE_MAX_RANK, &n, error);
    if (status != TERSE_OK)
        return status;
    const int64_t count = terse_tensor_count(plan->inputs[0]);
    for (int i = 0; i < n; i++)
        if (dims[i] == -1) {
            dims[i] = 1;
            dims[i] = count / terse_dims_count(dims, n);
        }
    if (terse_dims_count(dims, n) != count)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "cannot reshape");
    return terse_op_output(plan, 0, plan->inputs[0]->dtype, n, dims, error);
}

static int run_reshape(const terse_op_call *call, terse_error *error)
{
    (void)error;
    memmove(call->outputs[0].data, call->inputs[0]->data, (size_t)terse_tensor_bytes(call->inputs[0]));
    return TERSE_OK;
}

static int plan_shape(terse_op_plan *plan, terse_error *error)
{
    return terse_op_output(plan, 0, TERSE_INT64, 1, &(int64_t){plan->inputs[0]->rank}, error);
}

static int run_shape(const terse_op_call *call, terse_error *error)
{
    (void)error;
    memcpy(call->outputs[0].data, call->inputs[0]->dims, (size_t)call->inputs[0]->rank * sizeof(int64_t));
    return TERSE_OK;
}

/* Two outputs: 3 x + 5 and 3 x + 6. */
static int run_top_k(const terse_op_call *call, terse_error *error)
{
    (void)error;
    check_call(call);
    for (int o = 0; o < call->n_outputs; o++)
        for (int64_t i = 0; call->outputs[o].data && i < terse_tensor_count(&call->outputs[o]); i++)
            ((float *)call->outputs[o].data)[i] = ((const float *)call->inputs[0]->data)[i] * 0.5f + (float)(5 + o);
    return TERSE_OK;
}

static int plan_softmax(terse_op_plan *plan, terse_error *error)
{
    plan->scratch_bytes = (size_t)terse_tensor_bytes(plan->inputs[0]);
    return same_shape(plan, error);
}

/* Turns every row round, through scratch. */
static int run_softmax(const terse_op_call *call, terse_error *error)
{
    (void)error;
    check_call(call);
    assert_true((uintptr_t)call->scratch % 64 == 0);
    const terse_tensor *x = call->inputs[0];
    const size_t bytes = (size_t)terse_tensor_bytes(x);
    const terse_tensor copy = terse_tensor_view(call->scratch, x->dtype, x->rank, x->dims);
    assert_false(overlaps(&copy, x) || overlaps(&copy, call->outputs));
    memcpy(call->scratch, x->data, bytes);
    for (int64_t r = 0; r < rows(x); r++)
        for (int64_t c = 0; c < columns(x); c++)
            row(call->outputs, r)[c] = row(&copy, r)[columns(x) - 1 - c] + 0.25f;
    return TERSE_OK;
}

static int fail_run(const terse_op_call *call, terse_error *error)
{
    (void)call;
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "index 9, allowed are 0 to 3");
}

#define TEST_OP(variable, text, most_in, most_out, flag_bits, value_bits, plan_function, run_function)                 \
    static const terse_op_impl variable = {.name = text,                                                               \
                                           .min_inputs = 1,                                                            \
                                           .max_inputs = most_in,                                                      \
                                           .min_outputs = 1,                                                           \
                                           .max_outputs = most_out,                                                    \
                                           .flags = flag_bits,                                                         \
                                           .value_inputs = value_bits,                                                 \
                                           .plan = plan_function,                                                      \
                                           .run = run_function}
TEST_OP(test_conv, "Conv", 1, 1, TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT, 0, same_shape, run_conv);
TEST_OP(test_relu, "Relu", 1, 1, TERSE_OP_IN_PLACE, 0, same_shape, run_relu);
TEST_OP(test_sigmoid, "Sigmoid", 1, 1, 0, 0, same_shape, run_sigmoid);
TEST_OP(test_tanh, "Tanh", 1, 1, TERSE_OP_STRIDED_INPUTS, 0, same_shape, run_tanh);
TEST_OP(test_add, "Add", 2, 1, TERSE_OP_IN_PLACE_ANY, 0, plan_add, run_add);
TEST_OP(test_matmul, "MatMul", 4, 1, TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT | TERSE_OP_IN_PLACE_RESIDUAL, 0,
        same_shape, run_matmul);
TEST_OP(test_concat, "Concat", TERSE_MAX_NODE_IO, 1, 0, 0, plan_concat, run_concat);
TEST_OP(test_split, "Split", 1, TERSE_MAX_NODE_IO, 0, 0, plan_split, run_split);
TEST_OP(test_slice, "Slice", 4, 1, 0, 14, plan_slice, run_slice);
TEST_OP(test_reshape, "Reshape", 2, 1, TERSE_OP_VIEW, 2, plan_reshape, run_reshape);
TEST_OP(test_shape, "Shape", 1, 1, 0, 0, plan_shape, run_shape);
TEST_OP(test_top_k, "TopK", 1, 2, 0, 0, same_shape, run_top_k);
TEST_OP(test_softmax, "Softmax", 1, 1, TERSE_OP_IN_PLACE, 0, plan_softmax, run_softmax);
TEST_OP(test_gather, "Gather", 1, 1, 0, 0, same_shape, fail_run);

static const terse_op_impl *find_test_op(terse_op op)
{
    switch (op) {
    case TERSE_OP_CONV:
        return &test_conv;
    case TERSE_OP_RELU:
        return &test_relu;
    case TERSE_OP_SIGMOID:
        return &test_sigmoid;
    case TERSE_OP_TANH:
        return &test_tanh;
    case TERSE_OP_ADD:
        return &test_add;
    case TERSE_OP_MATMUL:
        return &test_matmul;
    case TERSE_OP_CONCAT:
        return &test_concat;
    case TERSE_OP_SPLIT:
        return &test_split;
    case TERSE_OP_SLICE:
        return &test_slice;
    case TERSE_OP_RESHAPE:
        return &test_reshape;
    case TERSE_OP_SHAPE:
        return &test_shape;
    case TERSE_OP_TOP_K:
        return &test_top_k;
    case TERSE_OP_SOFTMAX:
        return &test_softmax;
    case TERSE_OP_GATHER:
        return &test_gather;
    default:
        return NULL;
    }
}

/* --- building graphs --------------------------------------------------------------------------------- */

static int add_input(terse_graph *graph, const char *name, terse_dtype dtype, int rank, const int64_t *dims)
{
    const int v = terse_graph_add_value(graph, name);
    assert_true(v >= 0);
    graph->values[v].dtype = dtype;
    graph->values[v].rank = rank;
    memcpy(graph->values[v].dims, dims, (size_t)rank * sizeof *dims);
    int *inputs = terse_arena_alloc(graph->arena, (size_t)(graph->n_inputs + 1) * sizeof *inputs);
    if (graph->n_inputs)
        memcpy(inputs, graph->inputs, (size_t)graph->n_inputs * sizeof *inputs);
    inputs[graph->n_inputs++] = v;
    graph->inputs = inputs;
    return v;
}

static void add_output(terse_graph *graph, int value)
{
    int *outputs = terse_arena_alloc(graph->arena, (size_t)(graph->n_outputs + 1) * sizeof *outputs);
    if (graph->n_outputs)
        memcpy(outputs, graph->outputs, (size_t)graph->n_outputs * sizeof *outputs);
    outputs[graph->n_outputs++] = value;
    graph->outputs = outputs;
}

static int add_op(terse_graph *graph, terse_op op, const char *name, int n_inputs, const int *inputs)
{
    const int v = terse_graph_add_value(graph, name);
    assert_non_null(terse_graph_add_node(graph, op, name, inputs, n_inputs, &v, 1));
    return v;
}

__attribute__((unused)) static int add_joined(terse_graph *graph, const char *name, int64_t axis, int n_inputs,
                                              const int *inputs)
{
    const int v = add_op(graph, TERSE_OP_CONCAT, name, n_inputs, inputs);
    assert_true(terse_node_set_int(graph, &graph->nodes[graph->n_nodes - 1], "axis", axis));
    return v;
}

#define ADD_OP(graph, op, name, ...)                                                                                   \
    add_op(graph, op, name, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (int[]){__VA_ARGS__})
#define ADD_JOINED(graph, name, axis, ...)                                                                             \
    add_joined(graph, name, axis, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (int[]){__VA_ARGS__})
#define DIMS(...) ((int64_t[]){__VA_ARGS__})

#endif
