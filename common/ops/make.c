/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that make a tensor from a shape or from scalars: Shape, Range, ConstantOfShape. */
#include <inttypes.h>
#include <math.h>

#include "common/ops/op.h"
#include "common/ops/walk.h"

typedef struct shape {
    int start, end;
} shape;

/* start and end as a slice has them: negative ones count from the end, what is out of range is clamped. */
static int clamp_axis(int64_t axis, int rank)
{
    axis = axis < 0 ? axis + rank : axis;
    return (int)(axis < 0 ? 0 : axis > rank ? rank : axis);
}

static int plan_shape(terse_op_plan *plan, terse_error *error)
{
    const int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const int rank = plan->inputs[0]->rank;
    shape *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->start = clamp_axis(terse_node_int(plan->node, "start", 0), rank);
    params->end = clamp_axis(terse_node_int(plan->node, "end", rank), rank);
    const int64_t n = params->end > params->start ? params->end - params->start : 0;
    return terse_op_output(plan, 0, TERSE_INT64, 1, &n, error);
}

/* Reads the input's dims only: its data need not be there. */
static int run_shape(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const shape *params = call->params;
    int64_t *to = call->outputs[0].data;
    for (int i = params->start; i < params->end; i++)
        to[i - params->start] = call->inputs[0]->dims[i];
    return TERSE_OK;
}

static int64_t range_integer(int64_t start, int64_t limit, int64_t delta)
{
    if (delta > 0 ? start >= limit : start <= limit)
        return 0;
    const uint64_t span = delta > 0 ? (uint64_t)limit - (uint64_t)start : (uint64_t)start - (uint64_t)limit;
    const uint64_t step = delta > 0 ? (uint64_t)delta : (uint64_t)0 - (uint64_t)delta;
    const uint64_t n = (span - 1) / step + 1;
    return n > INT64_MAX ? -1 : (int64_t)n;
}

static int plan_range(terse_op_plan *plan, terse_error *error)
{
    static const char *const names[] = {"start", "limit", "delta"};
    double reals[3] = {0};
    int64_t integers[3] = {0}, n;
    for (int i = 0; i < 3; i++) {
        int count, status = terse_op_expect(plan, i, names[i], TERSE_TYPES_FLOAT | TERSE_TYPES_INDEX, error);
        if (!status)
            status = terse_op_same(plan, i, names[i], 0, error);
        if (status)
            return status;
        const terse_tensor *x = plan->inputs[i];
        if (terse_tensor_count(x) != 1 || x->rank > 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has %" PRId64 " elements, allowed is 1", i,
                              names[i], terse_tensor_count(x));
        if (!x->data)
            return terse_fail(error, TERSE_UNIMPLEMENTED,
                              "input %d (%s) depends on the data, only on shapes is allowed", i, names[i]);
        if (x->dtype == TERSE_FP32)
            reals[i] = (double)*(const float *)x->data;
        else if ((status = terse_op_ints(plan, i, names[i], &integers[i], 1, &count, error)))
            return status;
    }
    const terse_dtype dtype = plan->inputs[0]->dtype;
    if (dtype == TERSE_FP32 ? reals[2] == 0 : integers[2] == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 2 (delta) is 0");
    if (dtype == TERSE_FP32) {
        const double steps = ceil((reals[1] - reals[0]) / reals[2]);
        /* NaN and what no tensor can hold become -1, which is refused as a shape. */
        n = steps <= 0 ? 0 : steps <= (double)TERSE_MAX_TENSOR_BYTES ? (int64_t)steps : -1;
    } else {
        n = range_integer(integers[0], integers[1], integers[2]);
    }
    return terse_op_output(plan, 0, dtype, 1, &n, error);
}

static int run_range(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *start = call->inputs[0], *delta = call->inputs[2], *y = &call->outputs[0];
    const int64_t n = y->dims[0];
    if (y->dtype == TERSE_FP32) {
        const float first = *(const float *)start->data, step = *(const float *)delta->data;
        for (int64_t i = 0; i < n; i++)
            ((float *)y->data)[i] = first + (float)i * step;
        return TERSE_OK;
    }
    const uint64_t first = (uint64_t)terse_op_index(start, 0), step = (uint64_t)terse_op_index(delta, 0);
    for (int64_t i = 0; i < n; i++) {
        const int64_t value = (int64_t)(first + (uint64_t)i * step);
        if (y->dtype == TERSE_INT64)
            ((int64_t *)y->data)[i] = value;
        else
            ((int32_t *)y->data)[i] = (int32_t)value;
    }
    return TERSE_OK;
}

typedef struct constant {
    int64_t bits; /* the first bytes are the element's */
} constant;

static int plan_constant_of_shape(terse_op_plan *plan, terse_error *error)
{
    int64_t dims[TERSE_MAX_RANK];
    int rank;
    const int status = terse_op_ints(plan, 0, "shape", dims, TERSE_MAX_RANK, &rank, error);
    if (status)
        return status;
    const int64_t dtype = terse_node_int(plan->node, "dtype", TERSE_FP32);
    const double value = terse_node_float(plan->node, "value", 0.0);
    if (dtype < 0 || dtype > TERSE_BOOL || !((unsigned)TERSE_TYPES_ALL >> dtype & 1u))
        return terse_fail(error, TERSE_UNIMPLEMENTED,
                          "dtype is %s, allowed are FP32, INT8, INT32, INT64, UINT8 and BOOL",
                          dtype < 0 || dtype > TERSE_BOOL ? "none" : terse_dtype_name((terse_dtype)dtype));
    constant *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    const int64_t integer = value >= 0x1p63 ? INT64_MAX : value >= -0x1p63 ? (int64_t)value : INT64_MIN;
    void *bits = &params->bits;
    if (dtype == TERSE_FP32)
        *(float *)bits = (float)value;
    else if (dtype == TERSE_INT64)
        *(int64_t *)bits = integer;
    else if (dtype == TERSE_INT32)
        *(int32_t *)bits = (int32_t)integer;
    else
        *(uint8_t *)bits = dtype == TERSE_BOOL ? value != 0 : (uint8_t)integer;
    return terse_op_output(plan, 0, (terse_dtype)dtype, rank, dims, error);
}

static int run_constant_of_shape(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const constant *params = call->params;
    const terse_tensor *y = &call->outputs[0];
    terse_walk_fill(y->data, (const char *)&params->bits, (int64_t)terse_dtype_size(y->dtype), terse_tensor_count(y));
    return TERSE_OK;
}

const terse_op_impl terse_op_shape = {"Shape", 1, 1, 1, 1, 0, 0, plan_shape, run_shape};
const terse_op_impl terse_op_range = {"Range", 3, 3, 1, 1, 0, 1 | 2 | 4, plan_range, run_range};
const terse_op_impl terse_op_constant_of_shape = {
    "ConstantOfShape", 1, 1, 1, 1, 0, 1, plan_constant_of_shape, run_constant_of_shape,
};
