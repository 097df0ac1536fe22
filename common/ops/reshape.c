/* SPDX-License-Identifier: Apache-2.0 */
/* Operators whose output has its input's bytes in the same order: Reshape, Flatten, Squeeze, Unsqueeze, Identity. The
 * engine usually gives both the same memory; where it cannot, run() copies. */
#include "common/ops/walk.h"

#include <inttypes.h>
#include <string.h>

#include "common/ops/op.h"

static int run_view(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const int64_t bytes = terse_tensor_bytes(y);
    if (bytes && y->data != x->data)
        memcpy(y->data, x->data, (size_t)bytes);
    return TERSE_OK;
}

static int plan_identity(terse_op_plan *plan, terse_error *error)
{
    const int status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    return terse_op_output(plan, 0, x->dtype, x->rank, x->dims, error);
}

/* Fills in 0 (as the input has it) and finds the one dimension that is -1 (or none: -1). */
static int read_shape(const terse_tensor *x, bool allow_zero, int rank, int64_t *dims, int *ret_unknown,
                      terse_error *error)
{
    int unknown = -1;
    bool zero = false;
    for (int i = 0; i < rank; i++) {
        if (dims[i] == 0 && !allow_zero) {
            if (i >= x->rank)
                return terse_fail(error, TERSE_INVALID_ARGUMENT,
                                  "shape[%d] is 0 (copy the dimension), the input has rank %d", i, x->rank);
            dims[i] = x->dims[i];
        } else if (dims[i] == 0) {
            zero = true;
        } else if (dims[i] == -1 && unknown >= 0) {
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "shape has -1 at %d and %d, allowed is one", unknown, i);
        } else if (dims[i] == -1) {
            unknown = i;
        } else if (dims[i] < 0) {
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "shape[%d] is %" PRId64 ", at least -1 is allowed", i,
                              dims[i]);
        }
    }
    if (zero && unknown >= 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shape has both 0 and -1, not allowed with allowzero = 1");
    *ret_unknown = unknown;
    return TERSE_OK;
}

static int plan_reshape(terse_op_plan *plan, terse_error *error)
{
    int64_t dims[TERSE_MAX_RANK];
    int rank, unknown = -1;
    int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (!status)
        status = terse_op_ints(plan, 1, "shape", dims, TERSE_MAX_RANK, &rank, error);
    if (!status)
        status =
            read_shape(plan->inputs[0], terse_node_int(plan->node, "allowzero", 0) != 0, rank, dims, &unknown, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    const int64_t count = terse_tensor_count(x);
    if (unknown >= 0) {
        dims[unknown] = 1;
        const int64_t others = terse_dims_count(dims, rank);
        dims[unknown] = others > 0 ? count / others : 0;
    }
    if (terse_dims_count(dims, rank) != count) {
        char from[128], to[128];
        if (unknown >= 0)
            dims[unknown] = -1;
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "cannot reshape %s into %s",
                          terse_dims_text(x->dims, x->rank, from, sizeof from),
                          terse_dims_text(dims, rank, to, sizeof to));
    }
    return terse_op_output(plan, 0, x->dtype, rank, dims, error);
}

static int plan_flatten(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    int64_t axis = terse_node_int(plan->node, "axis", 1);
    if (axis < -x->rank || axis > x->rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis %" PRId64 ", allowed for rank %d are %d to %d", axis,
                          x->rank, -x->rank, x->rank);
    if (axis < 0)
        axis += x->rank;
    const int64_t dims[2] = {terse_dims_count(x->dims, (int)axis),
                             terse_dims_count(x->dims + axis, x->rank - (int)axis)};
    return terse_op_output(plan, 0, x->dtype, 2, dims, error);
}

/* Reads axes of a tensor of `rank` into a bit mask. */
static int read_axes(const terse_op_plan *plan, int rank, unsigned *ret_mask, int *ret_n, terse_error *error)
{
    int64_t axes[TERSE_MAX_RANK];
    unsigned mask = 0;
    int status = terse_op_ints(plan, 1, "axes", axes, TERSE_MAX_RANK, ret_n, error);
    for (int i = 0; !status && i < *ret_n; i++) {
        int axis;
        status = terse_op_axis(axes[i], rank, &axis, error);
        if (!status && mask >> axis & 1u)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "axes has axis %d twice", axis);
        if (!status)
            mask |= 1u << axis;
    }
    if (!status)
        *ret_mask = mask;
    return status;
}

static int plan_squeeze(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    const bool all = !terse_op_input(plan, 1);
    unsigned mask = 0;
    int n, rank = 0;
    if (!all && (status = read_axes(plan, x->rank, &mask, &n, error)))
        return status;
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        if (mask >> i & 1u && x->dims[i] != 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis %d has size %" PRId64 ", only 1 can be squeezed", i,
                              x->dims[i]);
        if (!(mask >> i & 1u) && !(all && x->dims[i] == 1))
            dims[rank++] = x->dims[i];
    }
    return terse_op_output(plan, 0, x->dtype, rank, dims, error);
}

static int plan_unsqueeze(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0], *axes = terse_op_input(plan, 1);
    const int64_t n_axes = axes ? terse_tensor_count(axes) : 0;
    if (n_axes > TERSE_MAX_RANK - x->rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "output has rank %d + %" PRId64 ", at most %d is allowed",
                          x->rank, n_axes, TERSE_MAX_RANK);
    unsigned mask = 0;
    int n, at = 0;
    status = read_axes(plan, x->rank + (int)n_axes, &mask, &n, error);
    if (status)
        return status;
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < x->rank + n; i++)
        dims[i] = mask >> i & 1u ? 1 : x->dims[at++];
    return terse_op_output(plan, 0, x->dtype, x->rank + n, dims, error);
}

const terse_op_impl terse_op_identity = {"Identity", 1, 1, 1, 1, TERSE_OP_VIEW, 0, plan_identity, run_view};
const terse_op_impl terse_op_reshape = {"Reshape", 2, 2, 1, 1, TERSE_OP_VIEW, 2, plan_reshape, run_view};
const terse_op_impl terse_op_flatten = {"Flatten", 1, 1, 1, 1, TERSE_OP_VIEW, 0, plan_flatten, run_view};
const terse_op_impl terse_op_squeeze = {"Squeeze", 1, 2, 1, 1, TERSE_OP_VIEW, 2, plan_squeeze, run_view};
const terse_op_impl terse_op_unsqueeze = {"Unsqueeze", 2, 2, 1, 1, TERSE_OP_VIEW, 2, plan_unsqueeze, run_view};
