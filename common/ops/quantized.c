/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ops/quantized.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/ops/support.h"

/* Factors beyond this mean nothing, and below it no product of them leaves the range of double. */
#define LARGEST 1e30

int terse_quantized_byte(const terse_node *node, const char *name, int64_t fallback, int32_t *ret_value,
                         terse_error *error)
{
    int64_t value;
    const int status = terse_support_int(node, name, fallback, 0, 255, &value, error);
    if (status == TERSE_OK)
        *ret_value = (int32_t)value;
    return status;
}

int terse_quantized_scale(const terse_node *node, const char *name, double *ret_value, terse_error *error)
{
    const double value = terse_node_float(node, name, (double)NAN);
    if (!(fabs(value) <= LARGEST))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute %s is %g, a finite number is needed", name, value);
    *ret_value = value;
    return TERSE_OK;
}

int terse_quantized_range(const terse_node *node, int32_t *ret_low, int32_t *ret_high, terse_error *error)
{
    int status = terse_quantized_byte(node, "low", 0, ret_low, error);
    if (status == TERSE_OK)
        status = terse_quantized_byte(node, "high", 255, ret_high, error);
    if (status == TERSE_OK && *ret_low > *ret_high)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute low is %d, above high, which is %d", *ret_low,
                          *ret_high);
    return status;
}

/* A constant of `rows` times n numbers (rows 0: just n) or absent. */
static int check_columns(const terse_op_plan *plan, int index, const char *what, terse_dtype dtype, int64_t rows,
                         int64_t n, terse_error *error)
{
    const terse_tensor *tensor = terse_op_input(plan, index);
    if (!tensor)
        return TERSE_OK;
    const int status = terse_op_expect(plan, index, what, 1u << dtype, error);
    if (status != TERSE_OK)
        return status;
    const int64_t wanted[2] = {rows ? rows : n, n};
    char text[128], needed[128];
    if (tensor->rank != (rows ? 2 : 1) || memcmp(tensor->dims, wanted, (rows ? 2 : 1) * sizeof *wanted) != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has shape %s, needed is %s", index, what,
                          terse_dims_text(tensor->dims, tensor->rank, text, sizeof text),
                          terse_dims_text(wanted, rows ? 2 : 1, needed, sizeof needed));
    if (!tensor->data)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) depends on the data, a constant is needed",
                          index, what);
    for (int64_t i = 0; dtype == TERSE_FP32 && i < terse_tensor_count(tensor); i++)
        if (!(fabs((double)((const float *)tensor->data)[i]) <= LARGEST))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has %g, finite numbers are needed", index,
                              what, (double)((const float *)tensor->data)[i]);
    return TERSE_OK;
}

static int check_residual(terse_op_plan *plan, int rank, const int64_t *dims, terse_requantize *to, terse_error *error)
{
    if (!terse_op_input(plan, TERSE_QUANTIZED_RESIDUAL))
        return TERSE_OK;
    if (to->to == TERSE_SUMS_TO_S32)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (residual) does not go with sums as output",
                          TERSE_QUANTIZED_RESIDUAL);
    int status = terse_support_residual(plan, TERSE_QUANTIZED_RESIDUAL,
                                        to->to == TERSE_SUMS_TO_U8 ? TERSE_UINT8 : TERSE_FP32, rank, dims, error);
    if (status != TERSE_OK)
        return status;
    if (to->to != TERSE_SUMS_TO_U8)
        return TERSE_OK;
    status = terse_quantized_byte(plan->node, "residual_zero_point", 0, &to->residual_zero_point, error);
    return status == TERSE_OK ? terse_quantized_scale(plan->node, "residual_scale", &to->residual_scale, error)
                              : status;
}

static int read_target(const terse_node *node, terse_sums_to *ret_to, terse_dtype *ret_dtype, terse_error *error)
{
    static const struct {
        const char *name;
        terse_sums_to to;
        terse_dtype dtype;
    } targets[] = {
        {"u8", TERSE_SUMS_TO_U8, TERSE_UINT8},
        {"f32", TERSE_SUMS_TO_F32, TERSE_FP32},
        {"s32", TERSE_SUMS_TO_S32, TERSE_INT32},
    };
    const char *text = terse_node_text(node, "to", "");
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (strcmp(text, targets[i].name) == 0) {
            *ret_to = targets[i].to;
            *ret_dtype = targets[i].dtype;
            return TERSE_OK;
        }
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute to is '%.40s', allowed are u8, f32 and s32", text);
}

int terse_quantized_plan(terse_op_plan *plan, int64_t n, int rank, const int64_t *dims,
                         terse_requantize *ret_requantize, terse_error *error)
{
    terse_requantize to = {.low = 0, .high = 255};
    terse_dtype dtype = TERSE_DTYPE_NONE;
    int status = read_target(plan->node, &to.to, &dtype, error);
    if (status == TERSE_OK)
        status = terse_op_output(plan, 0, dtype, rank, dims, error);
    if (status == TERSE_OK && to.to != TERSE_SUMS_TO_S32 && !terse_op_input(plan, TERSE_QUANTIZED_MULTIPLIER))
        status =
            terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (multiplier) is missing", TERSE_QUANTIZED_MULTIPLIER);
    if (status == TERSE_OK)
        status = check_columns(plan, TERSE_QUANTIZED_MULTIPLIER, "multiplier", TERSE_FP32, 2, n, error);
    if (status == TERSE_OK)
        status = check_columns(plan, TERSE_QUANTIZED_BIAS, "bias", TERSE_INT32, 0, n, error);
    if (status == TERSE_OK)
        status = check_columns(plan, TERSE_QUANTIZED_BIAS_F32, "bias_f32", TERSE_FP32, 0, n, error);
    if (status == TERSE_OK)
        status = check_residual(plan, rank, dims, &to, error);
    if (status == TERSE_OK)
        status = terse_quantized_byte(plan->node, "y_zero_point", 0, &to.zero_point, error);
    if (status == TERSE_OK)
        status = terse_quantized_range(plan->node, &to.low, &to.high, error);
    if (status == TERSE_OK)
        status = terse_support_activation(plan->node, &to.activation, error);
    if (status == TERSE_OK && to.to != TERSE_SUMS_TO_F32 &&
        (to.activation.kind != TERSE_ACT_NONE || terse_op_input(plan, TERSE_QUANTIZED_BIAS_F32)))
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "bias_f32 and activation go with an FP32 output only");
    if (status == TERSE_OK)
        *ret_requantize = to;
    return status;
}

static const terse_tensor *input_of(const terse_op_call *call, int index)
{
    return index < call->n_inputs ? call->inputs[index] : NULL;
}

terse_requantize terse_quantized_bind(const terse_op_call *call, const terse_requantize *planned)
{
    terse_requantize to = *planned;
    const terse_tensor *multiplier = input_of(call, TERSE_QUANTIZED_MULTIPLIER),
                       *bias = input_of(call, TERSE_QUANTIZED_BIAS),
                       *residual = input_of(call, TERSE_QUANTIZED_RESIDUAL),
                       *bias_f32 = input_of(call, TERSE_QUANTIZED_BIAS_F32);
    if (multiplier) {
        to.multiplier = multiplier->data;
        to.multiplier_low = to.multiplier + multiplier->dims[1];
    }
    to.bias = bias ? bias->data : NULL;
    to.bias_f32 = bias_f32 ? bias_f32->data : NULL;
    if (residual) {
        to.residual = to.to == TERSE_SUMS_TO_U8 ? residual->data : NULL;
        to.residual_f32 = to.to == TERSE_SUMS_TO_F32 ? residual->data : NULL;
        to.residual_stride = residual->row_stride;
    }
    return to;
}

static int check_scalar(const terse_op_plan *plan, int index, const char *what, terse_dtype dtype, terse_error *error)
{
    const int status = terse_op_expect(plan, index, what, 1u << dtype, error);
    if (status == TERSE_OK && terse_tensor_count(plan->inputs[index]) != 1) {
        char text[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has shape %s, one number is needed", index,
                          what,
                          terse_dims_text(plan->inputs[index]->dims, plan->inputs[index]->rank, text, sizeof text));
    }
    return status;
}

int terse_quantized_dynamic_plan(const terse_op_plan *plan, int64_t n, terse_sums_to to, size_t *total,
                                 terse_quantized_dynamic *ret_dynamic, terse_error *error)
{
    terse_quantized_dynamic dynamic = {.on = terse_op_input(plan, TERSE_QUANTIZED_X_SCALE) != NULL, .n = n};
    *ret_dynamic = dynamic;
    if (!dynamic.on)
        return TERSE_OK;
    const bool zero_point = terse_op_input(plan, TERSE_QUANTIZED_X_ZERO_POINT) != NULL;
    int status = check_scalar(plan, TERSE_QUANTIZED_X_SCALE, "x_scale", TERSE_FP32, error);
    if (status == TERSE_OK && zero_point)
        status = check_scalar(plan, TERSE_QUANTIZED_X_ZERO_POINT, "x_zero_point", TERSE_UINT8, error);
    if (status == TERSE_OK && zero_point)
        status = terse_op_expect(plan, TERSE_QUANTIZED_SUMS, "column sums", 1u << TERSE_INT32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *sums = terse_op_input(plan, TERSE_QUANTIZED_SUMS);
    if (sums && (sums->rank != 1 || sums->dims[0] != n))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input %d (column sums) has %" PRId64 " numbers, %" PRId64 " are needed",
                          TERSE_QUANTIZED_SUMS, terse_tensor_count(sums), n);
    if (to != TERSE_SUMS_TO_F32)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "a scale known at run time goes with an FP32 output only");
    status = TERSE_RESERVE(total, &dynamic.multiplier, error, n);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(total, &dynamic.bias, error, n);
    *ret_dynamic = dynamic;
    return status;
}

/* A scale that is no number gives 0. */
uint8_t terse_quantized_complete(const terse_op_call *call, const terse_quantized_dynamic *dynamic,
                                 terse_requantize *to)
{
    const float scale = *(const float *)call->inputs[TERSE_QUANTIZED_X_SCALE]->data;
    const terse_tensor *zero = input_of(call, TERSE_QUANTIZED_X_ZERO_POINT);
    const uint8_t zero_point = zero ? *(const uint8_t *)zero->data : 0;
    const int32_t *sums = zero ? call->inputs[TERSE_QUANTIZED_SUMS]->data : NULL;
    float *multiplier = terse_support_at(call->scratch, dynamic->multiplier);
    int32_t *bias = (int32_t *)(void *)terse_support_at(call->scratch, dynamic->bias);
    for (int64_t i = 0; i < dynamic->n; i++) {
        multiplier[i] = (float)((double)scale * (double)to->multiplier[i]);
        const uint32_t from = to->bias ? (uint32_t)to->bias[i] : 0;
        bias[i] = (int32_t)(from - (uint32_t)zero_point * (uint32_t)(sums ? sums[i] : 0));
    }
    to->multiplier = multiplier;
    to->bias = bias;
    return zero_point;
}

int terse_quantized_tiling(const terse_op_plan *plan, terse_tiling *ret_tiling, terse_error *error)
{
    enum { MOST_ROWS = 64, LEAST_BYTES = 1024 };
    char name[48];
    snprintf(name, sizeof name, "tuned_%s", plan->kernels->name);
    const terse_attr *tuned = terse_node_attr(plan->node, name);
    *ret_tiling = (terse_tiling){0};
    if (!tuned)
        return TERSE_OK;
    if (tuned->kind != TERSE_ATTR_INTS || tuned->n != 2 || tuned->ints[0] < 0 || tuned->ints[0] > MOST_ROWS ||
        (tuned->ints[1] != 0 && (tuned->ints[1] < LEAST_BYTES || tuned->ints[1] > INT32_MAX)))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "attribute %s is not two integers: rows 0 to %d, bytes 0 or at least %d", name, MOST_ROWS,
                          LEAST_BYTES);
    *ret_tiling = (terse_tiling){(int32_t)tuned->ints[0], (int32_t)tuned->ints[1]};
    return TERSE_OK;
}
