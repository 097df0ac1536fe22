/* SPDX-License-Identifier: Apache-2.0 */
/* Concat, Split and Slice: boxes of one tensor copied to a box of another. */
#include "common/ops/walk.h"

#include <inttypes.h>

#include "common/ops/op.h"

static int plan_concat(terse_op_plan *plan, terse_error *error)
{
    int axis, status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *first = plan->inputs[0];
    if (!terse_node_attr(plan->node, "axis"))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute axis is missing");
    status = terse_op_axis(terse_node_int(plan->node, "axis", 0), first->rank, &axis, error);
    if (status)
        return status;
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < first->rank; i++)
        dims[i] = first->dims[i];
    for (int k = 1; k < plan->n_inputs; k++) {
        status = terse_op_same(plan, k, "input", 0, error);
        if (status)
            return status;
        const terse_tensor *x = plan->inputs[k];
        bool fits = x->rank == first->rank;
        for (int i = 0; fits && i < x->rank; i++)
            fits = i == axis || x->dims[i] == dims[i];
        if (!fits) {
            char a[128], b[128];
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "input %d has shape %s, input 0 has %s: only axis %d may differ", k,
                              terse_dims_text(x->dims, x->rank, a, sizeof a),
                              terse_dims_text(first->dims, first->rank, b, sizeof b), axis);
        }
        if (__builtin_add_overflow(dims[axis], x->dims[axis], &dims[axis]))
            dims[axis] = -1; /* refused as an output shape */
        if (dims[axis] < 0)
            break;
    }
    int *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    *params = axis;
    return terse_op_output(plan, 0, first->dtype, first->rank, dims, error);
}

static int run_concat(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const int axis = *(const int *)call->params;
    const terse_tensor *y = &call->outputs[0];
    if (!y->data)
        return TERSE_OK;
    int64_t to[TERSE_MAX_RANK], from[TERSE_MAX_RANK];
    terse_walk_strides(y, to);
    char *at = y->data;
    for (int k = 0; k < call->n_inputs; k++) {
        const terse_tensor *x = call->inputs[k];
        /* The engine may have let an input be computed where it belongs. */
        if (x->data != at) {
            terse_walk_strides(x, from);
            terse_walk_copy(call->kernels, (int64_t)terse_dtype_size(x->dtype), x->rank, x->dims, at, to, x->data,
                            from);
        }
        at += x->dims[axis] * to[axis];
    }
    return TERSE_OK;
}

/* The sizes of n parts of `size`: all ceil(size / n) but the last. */
static int even_parts(int64_t size, int n, int64_t *ret_parts, terse_error *error)
{
    const int64_t part = size / n + (size % n != 0);
    const int64_t last = size - part * (n - 1);
    if (last < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "cannot split size %" PRId64 " into %d parts of %" PRId64,
                          size, n, part);
    for (int i = 0; i < n; i++)
        ret_parts[i] = i < n - 1 ? part : last;
    return TERSE_OK;
}

static int read_parts(const terse_op_plan *plan, int64_t size, int64_t *ret_parts, terse_error *error)
{
    const int n = plan->n_outputs;
    if (!terse_op_input(plan, 1)) {
        const int64_t asked = terse_node_int(plan->node, "num_outputs", n);
        if (asked != n)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "num_outputs is %" PRId64 ", the node has %d outputs",
                              asked, n);
        return even_parts(size, n, ret_parts, error);
    }
    int found;
    const int status = terse_op_ints(plan, 1, "split", ret_parts, TERSE_MAX_NODE_IO, &found, error);
    if (status)
        return status;
    if (found != n)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "split has %d sizes, the node has %d outputs", found, n);
    int64_t left = size;
    for (int i = 0; i < n; i++) {
        if (ret_parts[i] < 0 || ret_parts[i] > left)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "split[%d] is %" PRId64 ", allowed are 0 to %" PRId64, i,
                              ret_parts[i], left);
        left -= ret_parts[i];
    }
    if (left)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "split adds up to %" PRId64 ", the axis has size %" PRId64,
                          size - left, size);
    return TERSE_OK;
}

static int plan_split(terse_op_plan *plan, terse_error *error)
{
    int axis, status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    int64_t dims[TERSE_MAX_RANK], parts[TERSE_MAX_NODE_IO];
    status = terse_op_axis(terse_node_int(plan->node, "axis", 0), x->rank, &axis, error);
    if (!status)
        status = read_parts(plan, x->dims[axis], parts, error);
    for (int i = 0; i < x->rank; i++)
        dims[i] = x->dims[i];
    for (int k = 0; !status && k < plan->n_outputs; k++) {
        dims[axis] = parts[k];
        status = terse_op_output(plan, k, x->dtype, x->rank, dims, error);
    }
    if (status)
        return status;
    int *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    *params = axis;
    return TERSE_OK;
}

static int run_split(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const int axis = *(const int *)call->params;
    const terse_tensor *x = call->inputs[0];
    int64_t to[TERSE_MAX_RANK], from[TERSE_MAX_RANK];
    terse_walk_strides(x, from);
    const char *at = x->data;
    for (int k = 0; k < call->n_outputs; k++) {
        const terse_tensor *y = &call->outputs[k];
        if (y->data && at) {
            terse_walk_strides(y, to);
            terse_walk_copy(call->kernels, (int64_t)terse_dtype_size(x->dtype), y->rank, y->dims, y->data, to, at,
                            from);
        }
        if (at)
            at += y->dims[axis] * from[axis];
    }
    return TERSE_OK;
}

typedef struct slice {
    int64_t start[TERSE_MAX_RANK], step[TERSE_MAX_RANK];
} slice;

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* One axis of size d, with ONNX's clamping. */
static int slice_axis(int64_t d, int64_t start, int64_t end, int64_t step, int64_t *ret_start, int64_t *ret_size,
                      terse_error *error)
{
    if (step == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "step is 0");
    /* Neither sum overflows: one is negative, the other is not. */
    start = start < 0 ? start + d : start;
    end = end < 0 ? end + d : end;
    *ret_start = 0;
    *ret_size = 0;
    if (d == 0)
        return TERSE_OK;
    start = step > 0 ? clamp(start, 0, d) : clamp(start, 0, d - 1);
    end = step > 0 ? clamp(end, 0, d) : clamp(end, -1, d - 1);
    const int64_t span = step > 0 ? end - start : start - end;
    if (span <= 0)
        return TERSE_OK;
    const uint64_t stride = step > 0 ? (uint64_t)step : (uint64_t)0 - (uint64_t)step;
    *ret_size = (int64_t)((uint64_t)(span - 1) / stride) + 1;
    *ret_start = start;
    return TERSE_OK;
}

static int plan_slice(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    int64_t starts[TERSE_MAX_RANK], ends[TERSE_MAX_RANK], axes[TERSE_MAX_RANK], steps[TERSE_MAX_RANK];
    int n, n_ends, n_axes, n_steps;
    status = terse_op_ints(plan, 1, "starts", starts, TERSE_MAX_RANK, &n, error);
    if (!status)
        status = terse_op_ints(plan, 2, "ends", ends, TERSE_MAX_RANK, &n_ends, error);
    n_axes = n_steps = n;
    for (int i = 0; !status && i < n; i++) {
        axes[i] = i;
        steps[i] = 1;
    }
    if (!status && terse_op_input(plan, 3))
        status = terse_op_ints(plan, 3, "axes", axes, TERSE_MAX_RANK, &n_axes, error);
    if (!status && terse_op_input(plan, 4))
        status = terse_op_ints(plan, 4, "steps", steps, TERSE_MAX_RANK, &n_steps, error);
    if (status)
        return status;
    if (n_ends != n || n_axes != n || n_steps != n)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "starts, ends, axes, steps have %d, %d, %d, %d elements, must have equally many", n, n_ends,
                          n_axes, n_steps);
    slice *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        dims[i] = x->dims[i];
        params->step[i] = 1;
    }
    unsigned seen = 0;
    for (int i = 0; i < n; i++) {
        int axis;
        status = terse_op_axis(axes[i], x->rank, &axis, error);
        if (!status && seen >> axis & 1u)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "axes has axis %d twice", axis);
        if (!status)
            status = slice_axis(x->dims[axis], starts[i], ends[i], steps[i], &params->start[axis], &dims[axis], error);
        if (status)
            return status;
        seen |= 1u << axis;
        /* A step is never taken from the only element; it could be too large to multiply. */
        params->step[axis] = dims[axis] > 1 ? steps[i] : 1;
    }
    return terse_op_output(plan, 0, x->dtype, x->rank, dims, error);
}

static int run_slice(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const slice *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    int64_t to[TERSE_MAX_RANK], from[TERSE_MAX_RANK];
    terse_walk_strides(y, to);
    terse_walk_strides(x, from);
    const char *at = x->data;
    for (int i = 0; i < x->rank; i++) {
        at += params->start[i] * from[i];
        from[i] *= params->step[i];
    }
    terse_walk_copy(call->kernels, (int64_t)terse_dtype_size(x->dtype), y->rank, y->dims, y->data, to, at, from);
    return TERSE_OK;
}

enum { STRIDED = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT };
const terse_op_impl terse_op_concat = {"Concat", 1, TERSE_MAX_NODE_IO, 1, 1, STRIDED, 0, plan_concat, run_concat};
const terse_op_impl terse_op_split = {"Split", 1, 2, 1, TERSE_MAX_NODE_IO, STRIDED, 2, plan_split, run_split};
const terse_op_impl terse_op_slice = {"Slice", 3, 5, 1, 1, STRIDED, 2 | 4 | 8 | 16, plan_slice, run_slice};
