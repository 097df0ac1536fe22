/* SPDX-License-Identifier: Apache-2.0 */
/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
 *
 * Design notes. A number r is stored as q with r = (q - zero_point) * scale. Quantizing divides in the precision of the
 * scale, which is FP32, as ONNX defines it, and rounds ties to even. That matters: pixels scaled to [-1, 1] lie midway
 * between two steps of 2 / 255, where a quotient in double goes either way and one in FP32 is a tie. Attribute
 * `precision` asks for double. NaN becomes the zero point, infinities the ends of the range. Scale and zero point
 * belong to the whole tensor, to one entry of `axis`, or to a block of `block_size` entries of it: in each case they
 * are one more operand of a walk, and where they stand still along a run the kernels do that run. INT8 is UINT8 with
 * all numbers 128 higher, that is with the top bit turned, so one kernel serves both. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/ops/op.h"
#include "common/ops/walk.h"

enum { PER_TENSOR = -1 };

/* How scale and zero point lie over the tensor. */
typedef struct quantize_params {
    int axis; /* or PER_TENSOR */
    int64_t block;
    bool exact; /* the quotient in double */
} quantize_params;

static int check_zero_point(const terse_op_plan *plan, const terse_tensor *scale, terse_error *error)
{
    const terse_tensor *zero_point = terse_op_input(plan, 2);
    if (!zero_point)
        return TERSE_OK;
    bool same = zero_point->rank == scale->rank;
    for (int i = 0; same && i < scale->rank; i++)
        same = zero_point->dims[i] == scale->dims[i];
    if (same || (terse_tensor_count(zero_point) == 1 && terse_tensor_count(scale) == 1))
        return TERSE_OK;
    char text[128], wanted[128];
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 2 (zero point) has shape %s, must have the scale's %s",
                      terse_dims_text(zero_point->dims, zero_point->rank, text, sizeof text),
                      terse_dims_text(scale->dims, scale->rank, wanted, sizeof wanted));
}

/* One scale for `block` entries of the axis; all other axes are as those of the tensor. */
static bool blocked_shape(const terse_tensor *x, const terse_tensor *scale, int axis, int64_t block)
{
    bool fits = scale->rank == x->rank;
    for (int i = 0; fits && i < x->rank; i++)
        fits = scale->dims[i] == (i == axis ? (x->dims[i] + block - 1) / block : x->dims[i]);
    return fits;
}

static int plan_scales(terse_op_plan *plan, terse_error *error)
{
    const terse_tensor *x = plan->inputs[0], *scale = terse_op_input(plan, 1);
    int status = terse_op_expect(plan, 1, "scale", TERSE_TYPES_FLOAT, error);
    if (status == TERSE_OK)
        status = check_zero_point(plan, scale, error);
    quantize_params *params = status == TERSE_OK ? terse_op_params(plan, sizeof *params, error) : NULL;
    if (!params)
        return status ? status : TERSE_RESOURCE_EXHAUSTED;
    params->axis = PER_TENSOR;
    params->block = 1;
    params->exact = terse_node_int(plan->node, "precision", TERSE_FP32) == TERSE_FP64;
    const int64_t block = terse_node_int(plan->node, "block_size", 0);
    if (block < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "block_size is %" PRId64 ", at least 0 is allowed", block);
    if (block == 0 && terse_tensor_count(scale) == 1 && scale->rank <= 1)
        return TERSE_OK;
    status = terse_op_axis(terse_node_int(plan->node, "axis", 1), x->rank, &params->axis, error);
    if (status != TERSE_OK)
        return status;
    params->block = block ? block : 1;
    if (block ? blocked_shape(x, scale, params->axis, block)
              : scale->rank == 1 && scale->dims[0] == x->dims[params->axis])
        return TERSE_OK;
    char text[128], wanted[128];
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "input 1 (scale) has shape %s, does not fit shape %s, axis %d and block_size %" PRId64,
                      terse_dims_text(scale->dims, scale->rank, text, sizeof text),
                      terse_dims_text(x->dims, x->rank, wanted, sizeof wanted), params->axis, block);
}

/* Strides of scale (zero point: by its size) over the axes of x, in elements; along `axis` one per block. */
static void scale_strides(const quantize_params *params, const terse_tensor *x, const terse_tensor *scale,
                          int64_t *ret_strides)
{
    int64_t stride = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        ret_strides[i] = 0;
        if (params->axis == PER_TENSOR || (scale->rank <= 1 && i != params->axis))
            continue;
        ret_strides[i] = stride;
        stride *= scale->rank <= 1 ? 1 : scale->dims[i];
    }
}

/* Operands of the walk: 0 output, 1 input, 2 scale, 3 zero point. */
typedef struct quantize_call {
    const terse_op_call *call;
    terse_dtype dtype; /* of the integers */
} quantize_call;

/* Walks over `n` blocks of `block` entries of the axis that start at entry `first` (a multiple of block size). */
static void walk_blocks(const quantize_call *context, int64_t first, int64_t n, int64_t block, terse_walk_row *row)
{
    static const int64_t none = 0;
    const terse_op_call *call = context->call;
    const quantize_params *params = call->params;
    const terse_tensor *x = call->inputs[0], *scale = call->inputs[1], *y = &call->outputs[0];
    const terse_tensor *zero_point = call->n_inputs > 2 ? call->inputs[2] : NULL;
    int64_t x_strides[TERSE_MAX_RANK], y_strides[TERSE_MAX_RANK], strides[TERSE_MAX_RANK];
    terse_walk_strides(x, x_strides);
    terse_walk_strides(y, y_strides);
    scale_strides(params, x, scale, strides);
    const int64_t scale_size = sizeof(float), zero_size = zero_point ? (int64_t)terse_dtype_size(zero_point->dtype) : 0;
    char *at[4] = {y->data, x->data, scale->data, zero_point ? zero_point->data : (char *)(uintptr_t)&none};
    terse_walk walk;
    terse_walk_init(&walk, 4);
    for (int i = 0; i < x->rank; i++) {
        if (i == params->axis) {
            const int64_t steps[] = {y_strides[i] * params->block, x_strides[i] * params->block,
                                     strides[i] * scale_size, strides[i] * zero_size};
            for (int o = 0; o < 4; o++)
                at[o] += first * steps[o];
            terse_walk_axis(&walk, n, steps);
            terse_walk_axis(&walk, block, (int64_t[]){y_strides[i], x_strides[i], 0, 0});
        } else {
            terse_walk_axis(&walk, x->dims[i],
                            (int64_t[]){y_strides[i], x_strides[i], strides[i] * scale_size, strides[i] * zero_size});
        }
    }
    terse_walk_unit(&walk, (int64_t[]){(int64_t)terse_dtype_size(y->dtype), (int64_t)terse_dtype_size(x->dtype),
                                       scale_size, zero_size});
    terse_walk_run(&walk, at, row, context);
}

static void walk_all(const quantize_call *context, terse_walk_row *row)
{
    const quantize_params *params = context->call->params;
    const terse_tensor *x = context->call->inputs[0];
    if (terse_tensor_count(x) == 0)
        return;
    const int64_t entries = params->axis == PER_TENSOR ? 1 : x->dims[params->axis];
    const int64_t whole = entries / params->block, rest = entries % params->block;
    if (whole)
        walk_blocks(context, 0, whole, params->block, row);
    if (rest) /* a last block that is cut off */
        walk_blocks(context, whole, 1, rest, row);
}

static int32_t zero_point_at(terse_dtype dtype, const char *at)
{
    int32_t number;
    if (dtype == TERSE_UINT8)
        return *(const uint8_t *)at;
    if (dtype == TERSE_INT8)
        return *(const int8_t *)at;
    memcpy(&number, at, sizeof number);
    return number;
}

static double quantize_one(float x, float scale, int32_t zero_point, bool exact, double low, double high)
{
    const double quotient = exact ? (double)x / (double)scale : (double)(x / scale);
    const double v = rint(quotient) + zero_point;
    return v != v ? zero_point : v < low ? low : v > high ? high : v;
}

static void quantize_run(const terse_op_call *call, const float *x, float scale, int32_t zero_point, bool is_signed,
                         uint8_t *y, int64_t n)
{
    const quantize_params *params = call->params;
    const int32_t zero = is_signed ? zero_point + 128 : zero_point;
    (params->exact ? call->kernels->quantize_u8 : call->kernels->quantize_float_u8)(x, scale, zero, y, n);
    for (int64_t i = 0; is_signed && i < n; i++)
        y[i] ^= 0x80;
}

static void walk_quantize(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const quantize_call *quantize = context;
    const bool is_signed = quantize->dtype == TERSE_INT8;
    const float *x = (const void *)at[1], *scale = (const void *)at[2];
    uint8_t *y = (void *)at[0];
    if (strides[2] == 0 || n == 1) {
        quantize_run(quantize->call, x, *scale, zero_point_at(quantize->dtype, at[3]), is_signed, y, n);
        return;
    }
    const bool exact = ((const quantize_params *)quantize->call->params)->exact;
    const double low = is_signed ? -128 : 0, high = is_signed ? 127 : 255;
    for (int64_t i = 0; i < n; i++) {
        const int32_t zero_point = zero_point_at(quantize->dtype, at[3] + i * strides[3]);
        const double v = quantize_one(x[i], scale[i], zero_point, exact, low, high);
        y[i] = is_signed ? (uint8_t)(int8_t)v : (uint8_t)v;
    }
}

static int plan_quantize(terse_op_plan *plan, terse_error *error)
{
    const unsigned bytes = 1u << TERSE_UINT8 | 1u << TERSE_INT8;
    int status = terse_op_expect(plan, 0, "x", 1u << TERSE_FP32 | 1u << TERSE_INT32, error);
    if (status == TERSE_OK && terse_op_input(plan, 2))
        status = terse_op_expect(plan, 2, "zero point", bytes, error);
    if (status == TERSE_OK)
        status = plan_scales(plan, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0], *zero_point = terse_op_input(plan, 2);
    const int64_t stated = terse_node_int(plan->node, "output_dtype", TERSE_DTYPE_NONE);
    const terse_dtype dtype = zero_point                          ? zero_point->dtype
                              : stated == TERSE_DTYPE_NONE        ? TERSE_UINT8
                              : stated < 0 || stated > TERSE_BOOL ? TERSE_DTYPE_NONE
                                                                  : (terse_dtype)stated;
    if (!(bytes >> dtype & 1u))
        return terse_fail(error, TERSE_UNIMPLEMENTED, "output_dtype is %s, allowed are UINT8 and INT8",
                          terse_dtype_name(dtype));
    if (stated != TERSE_DTYPE_NONE && stated != (int64_t)dtype)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "output_dtype and the zero point's dtype %s differ",
                          terse_dtype_name(dtype));
    return terse_op_output(plan, 0, dtype, x->rank, x->dims, error);
}

/* INT32 is exact in double only. */
static void walk_quantize_i32(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const quantize_call *quantize = context;
    const bool is_signed = quantize->dtype == TERSE_INT8;
    const int32_t *x = (const void *)at[1];
    const float *scale = (const void *)at[2];
    uint8_t *y = (void *)at[0];
    for (int64_t i = 0; i < n; i++) {
        const int32_t zero_point = zero_point_at(quantize->dtype, at[3] + i * strides[3]);
        double v = rint((double)x[i] / (double)scale[strides[2] ? i : 0]) + zero_point;
        v = v != v ? zero_point : v < (is_signed ? -128 : 0) ? (is_signed ? -128 : 0) : v;
        v = v > (is_signed ? 127 : 255) ? (is_signed ? 127 : 255) : v;
        y[i] = is_signed ? (uint8_t)(int8_t)v : (uint8_t)v;
    }
}

static int run_quantize(const terse_op_call *call, terse_error *error)
{
    (void)error;
    walk_all(&(quantize_call){call, call->outputs[0].dtype},
             call->inputs[0]->dtype == TERSE_FP32 ? walk_quantize : walk_quantize_i32);
    return TERSE_OK;
}

const terse_op_impl terse_op_quantize_linear = {
    .name = "QuantizeLinear",
    .min_inputs = 2,
    .max_inputs = 3,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,
    .plan = plan_quantize,
    .run = run_quantize,
};

#define DEQUANTIZE(name, type)                                                                                         \
    static void name(const void *context, char *const *at, const int64_t *strides, int64_t n)                          \
    {                                                                                                                  \
        const quantize_call *quantize = context;                                                                       \
        const type *x = (const void *)at[1];                                                                           \
        const float *scale = (const void *)at[2];                                                                      \
        float *y = (void *)at[0];                                                                                      \
        if (strides[2] == 0 && strides[3] == 0) {                                                                      \
            const int32_t zero_point = zero_point_at(quantize->dtype, at[3]);                                          \
            const float factor = *scale;                                                                               \
            for (int64_t i = 0; i < n; i++)                                                                            \
                y[i] = (float)(x[i] - zero_point) * factor;                                                            \
            return;                                                                                                    \
        }                                                                                                              \
        for (int64_t i = 0; i < n; i++)                                                                                \
            y[i] = (float)(x[i] - zero_point_at(quantize->dtype, at[3] + i * strides[3])) * scale[strides[2] ? i : 0]; \
    }
DEQUANTIZE(walk_dequantize_i8, int8_t)
DEQUANTIZE(walk_dequantize_bytes, uint8_t)

static void walk_dequantize_u8(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const quantize_call *quantize = context;
    if (strides[2] == 0 && strides[3] == 0 && quantize->call->kernels->dequantize_u8)
        quantize->call->kernels->dequantize_u8((const void *)at[1], *(const float *)(const void *)at[2],
                                               zero_point_at(TERSE_UINT8, at[3]), (void *)at[0], n);
    else
        walk_dequantize_bytes(context, at, strides, n);
}

/* INT32: the difference and the product are made in double, then rounded once. */
static void walk_dequantize_i32(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    (void)context;
    const int32_t *x = (const void *)at[1];
    const float *scale = (const void *)at[2];
    float *y = (void *)at[0];
    for (int64_t i = 0; i < n; i++) {
        const double difference = (double)x[i] - (double)zero_point_at(TERSE_INT32, at[3] + i * strides[3]);
        y[i] = (float)(difference * (double)scale[strides[2] ? i : 0]);
    }
}

static int plan_dequantize(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "x", 1u << TERSE_UINT8 | 1u << TERSE_INT8 | 1u << TERSE_INT32, error);
    if (status == TERSE_OK && terse_op_input(plan, 2))
        status = terse_op_same(plan, 2, "zero point", 0, error);
    if (status == TERSE_OK)
        status = plan_scales(plan, error);
    return status ? status : terse_op_output(plan, 0, TERSE_FP32, plan->inputs[0]->rank, plan->inputs[0]->dims, error);
}

static int run_dequantize(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_dtype dtype = call->inputs[0]->dtype;
    walk_all(&(quantize_call){call, dtype}, dtype == TERSE_UINT8  ? walk_dequantize_u8
                                            : dtype == TERSE_INT8 ? walk_dequantize_i8
                                                                  : walk_dequantize_i32);
    return TERSE_OK;
}

const terse_op_impl terse_op_dequantize_linear = {
    .name = "DequantizeLinear",
    .min_inputs = 2,
    .max_inputs = 3,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,
    .plan = plan_dequantize,
    .run = run_dequantize,
};

static int plan_dynamic(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "x", TERSE_TYPES_FLOAT, error);
    if (status == TERSE_OK)
        status = terse_op_output(plan, 0, TERSE_UINT8, plan->inputs[0]->rank, plan->inputs[0]->dims, error);
    if (status == TERSE_OK)
        status = terse_op_output(plan, 1, TERSE_FP32, 0, NULL, error);
    return status ? status : terse_op_output(plan, 2, TERSE_UINT8, 0, NULL, error);
}

/* In float, as ONNX defines it. All zeros have scale 1, and so has what is too small for a scale; a range that float
 * cannot hold has the scale that it should have, with infinities the largest there is. */
static float scale_of(float low, float high)
{
    const float scale = (high - low) / 255.0f;
    if (isfinite(scale))
        return scale > 0 ? scale : 1.0f;
    const double exact = ((double)high - (double)low) / 255;
    return exact < (double)FLT_MAX ? (float)exact : FLT_MAX;
}

static int run_dynamic(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0];
    const int64_t n = terse_tensor_count(x);
    float low, high;
    call->kernels->range_f32(x->data, n, &low, &high);
    const float scale = scale_of(low, high);
    const float zero = rintf(-low / scale);
    const uint8_t zero_point = (uint8_t)(zero < 0 ? 0 : zero > 255 ? 255 : zero);
    /* The quotient is rounded to float, ties to even: that is what ONNX's examples need, for the scale is rounded too.
     */
    if (call->outputs[0].data)
        call->kernels->quantize_float_u8(x->data, scale, zero_point, call->outputs[0].data, n);
    if (call->n_outputs > 1 && call->outputs[1].data)
        *(float *)call->outputs[1].data = scale;
    if (call->n_outputs > 2 && call->outputs[2].data)
        *(uint8_t *)call->outputs[2].data = zero_point;
    return TERSE_OK;
}

const terse_op_impl terse_op_dynamic_quantize_linear = {
    .name = "DynamicQuantizeLinear",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_outputs = 1,
    .max_outputs = 3,
    .plan = plan_dynamic,
    .run = run_dynamic,
};
