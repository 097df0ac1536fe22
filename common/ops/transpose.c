/* SPDX-License-Identifier: Apache-2.0 */
/* Transpose, DepthToSpace, Expand and Tile: one strided copy each. */
#include "common/ops/walk.h"

#include <inttypes.h>
#include <string.h>

#include "common/ops/op.h"

enum { STRIDED = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT };

typedef struct transpose {
    int perm[TERSE_MAX_RANK];
} transpose;

static int plan_transpose(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    const terse_attr *perm = terse_node_attr(plan->node, "perm");
    if (perm && (perm->kind != TERSE_ATTR_INTS || perm->n != x->rank))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "perm has %d elements, the input has rank %d", perm->n,
                          x->rank);
    transpose *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    int64_t dims[TERSE_MAX_RANK];
    unsigned seen = 0;
    for (int i = 0; i < x->rank; i++) {
        const int64_t from = perm ? perm->ints[i] : x->rank - 1 - i;
        if (from < 0 || from >= x->rank || seen >> from & 1u)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "perm[%d] is %" PRId64 ", allowed is each of 0 to %d once",
                              i, from, x->rank - 1);
        seen |= 1u << from;
        params->perm[i] = (int)from;
        dims[i] = x->dims[from];
    }
    return terse_op_output(plan, 0, x->dtype, x->rank, dims, error);
}

static int run_transpose(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const transpose *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    int64_t to[TERSE_MAX_RANK], from[TERSE_MAX_RANK], permuted[TERSE_MAX_RANK];
    terse_walk_strides(y, to);
    terse_walk_strides(x, from);
    for (int i = 0; i < x->rank; i++)
        permuted[i] = from[params->perm[i]];
    terse_walk_copy(call->kernels, (int64_t)terse_dtype_size(x->dtype), y->rank, y->dims, y->data, to, x->data,
                    permuted);
    return TERSE_OK;
}

typedef struct depth_to_space {
    int64_t block;
    bool columns_first; /* CRD: the channel is the outer part of axis 1; DCR: the block's position is */
} depth_to_space;

static int plan_depth_to_space(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (x->rank != 4)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input has rank %d, allowed is 4", x->rank);
    const int64_t block = terse_node_int(plan->node, "blocksize", 0);
    int64_t area, height, width;
    if (block < 1 || __builtin_mul_overflow(block, block, &area) || x->dims[1] % area != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "blocksize is %" PRId64 ", its square must divide the %" PRId64 " channels", block,
                          x->dims[1]);
    const char *mode = terse_node_text(plan->node, "mode", "DCR");
    if (strcmp(mode, "DCR") != 0 && strcmp(mode, "CRD") != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "mode is '%s', allowed are DCR and CRD", mode);
    if (__builtin_mul_overflow(x->dims[2], block, &height) || __builtin_mul_overflow(x->dims[3], block, &width))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "blocksize %" PRId64 " makes the image too large", block);
    depth_to_space *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->block = block;
    params->columns_first = mode[0] == 'C';
    return terse_op_output(plan, 0, x->dtype, 4, (const int64_t[]){x->dims[0], x->dims[1] / area, height, width},
                           error);
}

static int run_depth_to_space(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const depth_to_space *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const int64_t b = params->block, channels = y->dims[1];
    int64_t to[4], from[4];
    terse_walk_strides(y, to);
    terse_walk_strides(x, from);
    /* How far apart in the input two channels of the output, and two rows and columns of a block are. */
    const int64_t channel = from[1] * (params->columns_first ? b * b : 1);
    const int64_t row = from[1] * (params->columns_first ? b : b * channels);
    const int64_t column = from[1] * (params->columns_first ? 1 : channels);
    const int64_t dims[6] = {x->dims[0], channels, x->dims[2], b, x->dims[3], b};
    const int64_t to6[6] = {to[0], to[1], to[2] * b, to[2], to[3] * b, to[3]};
    const int64_t from6[6] = {from[0], channel, from[2], row, from[3], column};
    terse_walk_copy(call->kernels, (int64_t)terse_dtype_size(x->dtype), 6, dims, y->data, to6, x->data, from6);
    return TERSE_OK;
}

static int plan_expand(terse_op_plan *plan, terse_error *error)
{
    int64_t shape[TERSE_MAX_RANK], dims[TERSE_MAX_RANK];
    int n, rank;
    int status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ANY, error);
    if (!status)
        status = terse_op_ints(plan, 1, "shape", shape, TERSE_MAX_RANK, &n, error);
    if (!status)
        status = terse_op_broadcast(plan->inputs[0]->dims, plan->inputs[0]->rank, shape, n, dims, &rank, error);
    return status ? status : terse_op_output(plan, 0, plan->inputs[0]->dtype, rank, dims, error);
}

static int run_expand(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    int64_t to[TERSE_MAX_RANK], own[TERSE_MAX_RANK], from[TERSE_MAX_RANK];
    terse_walk_strides(y, to);
    terse_walk_strides(x, own);
    const int lead = y->rank - x->rank;
    for (int i = 0; i < y->rank; i++)
        from[i] = i < lead || x->dims[i - lead] != y->dims[i] ? 0 : own[i - lead];
    terse_walk_copy(call->kernels, (int64_t)terse_dtype_size(x->dtype), y->rank, y->dims, y->data, to, x->data, from);
    return TERSE_OK;
}

static int plan_tile(terse_op_plan *plan, terse_error *error)
{
    int64_t repeats[TERSE_MAX_RANK], dims[TERSE_MAX_RANK];
    int n;
    int status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ANY, error);
    if (!status)
        status = terse_op_ints(plan, 1, "repeats", repeats, TERSE_MAX_RANK, &n, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (n != x->rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "repeats has %d elements, the input has rank %d", n, x->rank);
    for (int i = 0; i < n; i++)
        if (repeats[i] < 0 || __builtin_mul_overflow(x->dims[i], repeats[i], &dims[i]))
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "repeats[%d] is %" PRId64 ", allowed is 0 and more, as far as a tensor goes", i,
                              repeats[i]);
    return terse_op_output(plan, 0, x->dtype, x->rank, dims, error);
}

static int run_tile(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    int64_t to[TERSE_MAX_RANK], from[TERSE_MAX_RANK];
    int64_t dims2[2 * TERSE_MAX_RANK], to2[2 * TERSE_MAX_RANK], from2[2 * TERSE_MAX_RANK];
    terse_walk_strides(y, to);
    terse_walk_strides(x, from);
    for (int i = 0; i < x->rank; i++) {
        dims2[2 * i] = y->dims[i] / x->dims[i];
        to2[2 * i] = to[i] * x->dims[i];
        from2[2 * i] = 0;
        dims2[2 * i + 1] = x->dims[i];
        to2[2 * i + 1] = to[i];
        from2[2 * i + 1] = from[i];
    }
    terse_walk_copy(call->kernels, (int64_t)terse_dtype_size(x->dtype), 2 * x->rank, dims2, y->data, to2, x->data,
                    from2);
    return TERSE_OK;
}

const terse_op_impl terse_op_transpose = {"Transpose", 1, 1, 1, 1, STRIDED, 0, plan_transpose, run_transpose};
const terse_op_impl terse_op_depth_to_space = {"DepthToSpace",    1, 1, 1, 1, STRIDED, 0, plan_depth_to_space,
                                               run_depth_to_space};
const terse_op_impl terse_op_expand = {"Expand", 2, 2, 1, 1, STRIDED, 2, plan_expand, run_expand};
const terse_op_impl terse_op_tile = {"Tile", 2, 2, 1, 1, STRIDED, 2, plan_tile, run_tile};
