/* SPDX-License-Identifier: Apache-2.0 */
/* Gather, GatherElements, GatherND. Indices count from the end when negative; one out of range fails the run. */
#include "common/ops/walk.h"

#include <inttypes.h>
#include <string.h>

#include "common/ops/gather.h"
#include "common/ops/op.h"

int terse_gather_check(const terse_tensor *indices, int64_t count, const int64_t *sizes, int64_t n_sizes,
                       terse_error *error)
{
    for (int64_t i = 0; i < count; i++) {
        const int64_t index = terse_op_index(indices, i), size = sizes[i % n_sizes];
        if (index < -size || index >= size)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "indices has %" PRId64 " at element %" PRId64 ", allowed are %" PRId64 " to %" PRId64,
                              index, i, -size, size - 1);
    }
    return TERSE_OK;
}

static int plan_gather(terse_op_plan *plan, terse_error *error)
{
    int axis, status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (!status)
        status = terse_op_expect(plan, 1, "indices", TERSE_TYPES_INDEX, error);
    if (!status)
        status = terse_op_axis(terse_node_int(plan->node, "axis", 0), plan->inputs[0]->rank, &axis, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0], *indices = plan->inputs[1];
    const int rank = x->rank - 1 + indices->rank;
    if (rank > TERSE_MAX_RANK)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "output has rank %d, at most %d is allowed", rank,
                          TERSE_MAX_RANK);
    int64_t dims[TERSE_MAX_RANK];
    int at = 0;
    for (int i = 0; i < axis; i++)
        dims[at++] = x->dims[i];
    for (int i = 0; i < indices->rank; i++)
        dims[at++] = indices->dims[i];
    for (int i = axis + 1; i < x->rank; i++)
        dims[at++] = x->dims[i];
    int *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    *params = axis;
    return terse_op_output(plan, 0, x->dtype, rank, dims, error);
}

static int run_gather(const terse_op_call *call, terse_error *error)
{
    const int axis = *(const int *)call->params;
    const terse_tensor *x = call->inputs[0], *indices = call->inputs[1], *y = &call->outputs[0];
    const int64_t count = terse_tensor_count(indices), size = x->dims[axis];
    const int status = terse_gather_check(indices, count, &size, 1, error);
    if (status || terse_tensor_count(y) == 0)
        return status;
    const int64_t outer = terse_dims_count(x->dims, axis);
    const int64_t bytes =
        terse_dims_count(x->dims + axis + 1, x->rank - axis - 1) * (int64_t)terse_dtype_size(x->dtype);
    char *to = y->data;
    for (int64_t o = 0; o < outer; o++) {
        const char *from = (const char *)x->data + o * size * bytes;
        for (int64_t i = 0; i < count; i++) {
            const int64_t index = terse_op_index(indices, i);
            terse_walk_bytes(to, from + (index < 0 ? index + size : index) * bytes, bytes);
            to += bytes;
        }
    }
    return TERSE_OK;
}

static int plan_gather_elements(terse_op_plan *plan, terse_error *error)
{
    int axis, status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (!status)
        status = terse_op_expect(plan, 1, "indices", TERSE_TYPES_INDEX, error);
    if (!status)
        status = terse_op_axis(terse_node_int(plan->node, "axis", 0), plan->inputs[0]->rank, &axis, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0], *indices = plan->inputs[1];
    bool fits = indices->rank == x->rank;
    for (int i = 0; fits && i < x->rank; i++)
        fits = i == axis || indices->dims[i] <= x->dims[i];
    if (!fits) {
        char a[128], b[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "indices has shape %s, data has %s: only axis %d may be larger, the ranks must be equal",
                          terse_dims_text(indices->dims, indices->rank, a, sizeof a),
                          terse_dims_text(x->dims, x->rank, b, sizeof b), axis);
    }
    int *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    *params = axis;
    return terse_op_output(plan, 0, x->dtype, indices->rank, indices->dims, error);
}

static int run_gather_elements(const terse_op_call *call, terse_error *error)
{
    const int axis = *(const int *)call->params;
    const terse_tensor *x = call->inputs[0], *indices = call->inputs[1], *y = &call->outputs[0];
    const int64_t count = terse_tensor_count(indices), along = x->dims[axis];
    const int64_t size = (int64_t)terse_dtype_size(x->dtype);
    const int status = terse_gather_check(indices, count, &along, 1, error);
    if (status)
        return status;
    int64_t strides[TERSE_MAX_RANK], position[TERSE_MAX_RANK] = {0};
    terse_walk_strides(x, strides);
    const int64_t stride = strides[axis];
    strides[axis] = 0;
    const char *from = x->data;
    for (int64_t i = 0; i < count; i++) {
        const int64_t index = terse_op_index(indices, i);
        terse_walk_bytes((char *)y->data + i * size, from + (index < 0 ? index + along : index) * stride, size);
        for (int a = x->rank - 1; a >= 0; a--) {
            from += strides[a];
            if (++position[a] < indices->dims[a])
                break;
            from -= strides[a] * indices->dims[a];
            position[a] = 0;
        }
    }
    return TERSE_OK;
}

typedef struct gather_nd {
    int batch_dims;
    int depth; /* how many axes one tuple of indices fixes */
} gather_nd;

static int plan_gather_nd(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (!status)
        status = terse_op_expect(plan, 1, "indices", TERSE_TYPES_INDEX, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0], *indices = plan->inputs[1];
    if (x->rank < 1 || indices->rank < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "data and indices have ranks %d and %d, at least 1 is allowed",
                          x->rank, indices->rank);
    const int least = x->rank < indices->rank ? x->rank : indices->rank;
    const int64_t batch = terse_node_int(plan->node, "batch_dims", 0), depth = indices->dims[indices->rank - 1];
    if (batch < 0 || batch >= least)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "batch_dims is %" PRId64 ", allowed are 0 to %d", batch,
                          least - 1);
    if (depth < 1 || depth > x->rank - batch)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the last dimension of indices is %" PRId64 ", allowed are 1 to %" PRId64, depth,
                          x->rank - batch);
    for (int i = 0; i < batch; i++)
        if (x->dims[i] != indices->dims[i])
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "axis %d is a batch axis of size %" PRId64 " in data and %" PRId64 " in indices", i,
                              x->dims[i], indices->dims[i]);
    int64_t dims[2 * TERSE_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < indices->rank - 1; i++)
        dims[rank++] = indices->dims[i];
    for (int i = (int)(batch + depth); i < x->rank; i++)
        dims[rank++] = x->dims[i];
    gather_nd *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->batch_dims = (int)batch;
    params->depth = (int)depth;
    return terse_op_output(plan, 0, x->dtype, rank, dims, error);
}

static int run_gather_nd(const terse_op_call *call, terse_error *error)
{
    const gather_nd *params = call->params;
    const terse_tensor *x = call->inputs[0], *indices = call->inputs[1], *y = &call->outputs[0];
    const int batch = params->batch_dims, depth = params->depth;
    const int64_t *sizes = x->dims + batch;
    const int64_t count = terse_tensor_count(indices);
    const int status = terse_gather_check(indices, count, sizes, depth, error);
    if (status || terse_tensor_count(y) == 0)
        return status;
    const int64_t bytes =
        terse_dims_count(sizes + depth, x->rank - batch - depth) * (int64_t)terse_dtype_size(x->dtype);
    const int64_t batches = terse_dims_count(x->dims, batch), tuples = count / depth / batches;
    const int64_t batch_bytes = terse_dims_count(sizes, depth) * bytes;
    char *to = y->data;
    for (int64_t t = 0; t < batches * tuples; t++) {
        const int64_t offset = terse_gather_offset(indices, t, sizes, depth);
        terse_walk_bytes(to, (const char *)x->data + t / tuples * batch_bytes + offset * bytes, bytes);
        to += bytes;
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_gather = {"Gather", 2, 2, 1, 1, 0, 0, plan_gather, run_gather};
const terse_op_impl terse_op_gather_elements = {
    "GatherElements", 2, 2, 1, 1, 0, 0, plan_gather_elements, run_gather_elements,
};
const terse_op_impl terse_op_gather_nd = {"GatherND", 2, 2, 1, 1, 0, 0, plan_gather_nd, run_gather_nd};
