/* SPDX-License-Identifier: Apache-2.0 */
/* ConvInteger and QLinearConv: integer.h has the algebra, kernels->conv_u8s8 the sums, channels-last and image by
 * image. Where filters have zero points, each group gets one filter more, all ones: it makes sum(a). Padding is the
 * zero point of x, so that it adds nothing.
 *
 * ConvInteger's weights may come packed (TERSE_LAYOUT_S8_N16K4, INT8, the filters of ones among them), with the sums of
 * weights minus zero points as input 4: the compressor does that to constant ones. Others are packed at every run. */
#include "common/ops/integer.h"

#include <inttypes.h>
#include <string.h>

#include "common/ops/window.h"

enum { SUMS = 4 }; /* ConvInteger's input beside packed weights */

typedef struct conv_params {
    terse_conv_u8s8_args args;                           /* filters with the extra ones; all but the pointers */
    bool requantize, ready;                              /* the weights are packed */
    int64_t filters, positions;                          /* without the extra ones; of the kernel */
    int x, w, x_zero, w_zero, bias;                      /* inputs; zero points and bias may be absent */
    size_t dense, packed, constant, image, sums, kernel; /* offsets in scratch */
} conv_params;

static int64_t filters_of_group(const conv_params *p)
{
    return p->args.filters / p->args.groups;
}

static int check_zero_points(const terse_op_plan *plan, const conv_params *p, terse_error *error)
{
    const terse_tensor *x_zero = terse_op_input(plan, p->x_zero), *w_zero = terse_op_input(plan, p->w_zero);
    int status = TERSE_OK;
    if (x_zero)
        status = terse_op_same(plan, p->x_zero, "zero point", p->x, error);
    if (status == TERSE_OK && w_zero)
        status = terse_op_same(plan, p->w_zero, "zero point", p->w, error);
    if (status == TERSE_OK && x_zero && terse_tensor_count(x_zero) != 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (zero point) has %" PRId64 " elements, allowed is 1",
                          p->x_zero, terse_tensor_count(x_zero));
    if (status == TERSE_OK && w_zero && terse_tensor_count(w_zero) != 1 &&
        (w_zero->rank != 1 || w_zero->dims[0] != p->filters))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input %d (zero point) has %" PRId64 " elements, allowed are 1 and %" PRId64, p->w_zero,
                          terse_tensor_count(w_zero), p->filters);
    return status;
}

/* Packed weights and the sums of filters come together. */
static int check_sums(const terse_op_plan *plan, const conv_params *p, terse_error *error)
{
    if (p->requantize)
        return TERSE_OK;
    const terse_tensor *w = plan->inputs[p->w], *sums = terse_op_input(plan, SUMS);
    if (!p->ready && !sums && w->layout == TERSE_LAYOUT_PLAIN)
        return TERSE_OK;
    if (!p->ready || w->dtype != TERSE_INT8 || !w->data)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the weights are %s in layout %d, constant INT8 in layout %d go with sums",
                          terse_dtype_name(w->dtype), (int)w->layout, (int)TERSE_LAYOUT_S8_N16K4);
    const int status = terse_op_expect(plan, SUMS, "sums", 1u << TERSE_INT32, error);
    if (status == TERSE_OK && (sums->rank != 1 || sums->dims[0] != p->filters))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (sums) has %" PRId64 " numbers, needed are %" PRId64,
                          SUMS, terse_tensor_count(sums), p->filters);
    return status;
}

static int plan_scratch(terse_op_plan *plan, conv_params *p, terse_error *error)
{
    const terse_conv_u8s8_args *a = &p->args;
    const int64_t channels = a->channels / a->groups, rows = a->kernel[0] * a->kernel[1];
    const int64_t row = (a->kernel[2] * channels + 3) / 4 * 4, panels = (filters_of_group(p) + 15) / 16 * 16;
    const int64_t pixels_in = a->in[0] * a->in[1] * a->in[2], pixels_out = a->out[0] * a->out[1] * a->out[2];
    size_t total = 0;
    int64_t bytes = TERSE_PRODUCT(panels, rows, row);
    int status = p->ready ? TERSE_OK : terse_integer_reserve(&total, a->groups, bytes, &p->packed, error);
    if (status == TERSE_OK && !p->ready)
        status =
            terse_integer_reserve(&total, filters_of_group(p), TERSE_PRODUCT(p->positions, channels), &p->dense, error);
    if (status == TERSE_OK)
        status = terse_integer_reserve(&total, a->filters, sizeof(int32_t), &p->constant, error);
    if (status == TERSE_OK)
        status = terse_integer_reserve(&total, a->channels, pixels_in, &p->image, error);
    bytes = TERSE_PRODUCT(pixels_out, (int64_t)sizeof(int32_t));
    if (status == TERSE_OK)
        status = terse_integer_reserve(&total, a->filters, bytes, &p->sums, error);
    if (status == TERSE_OK)
        status = terse_integer_reserve(&total, 1, (int64_t)plan->kernels->conv_u8s8_scratch(a), &p->kernel, error);
    plan->scratch_bytes = total;
    return status;
}

static int plan_conv(terse_op_plan *plan, conv_params *p, terse_dtype dtype, terse_error *error)
{
    terse_window window;
    int64_t groups = 1, dims[TERSE_MAX_RANK];
    int status = terse_op_expect(plan, p->x, "x", TERSE_TYPES_BYTES, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, p->w, "w", TERSE_TYPES_BYTES, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[p->x], *w = plan->inputs[p->w];
    char text[128];
    if (w->rank != x->rank || terse_tensor_count(w) < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the weights' shape is %s, input 0 has rank %d",
                          terse_dims_text(w->dims, w->rank, text, sizeof text), x->rank);
    status = terse_window_read(plan, w->dims + 2, &window, error);
    if (status == TERSE_OK)
        status = terse_window_slide(plan->node, false, &window, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "group", 1, 1, TERSE_WINDOW_MAX, &groups, error);
    if (status != TERSE_OK)
        return status;
    p->ready = w->layout == TERSE_LAYOUT_S8_N16K4;
    p->filters = w->dims[0] - (p->ready && terse_op_input(plan, p->w_zero) ? groups : 0);
    if (p->filters < 1 || window.channels % groups != 0 || p->filters % groups != 0 ||
        window.channels / groups != w->dims[1])
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%" PRId64 " channels in, weights %s and group %" PRId64 " do not go together",
                          window.channels, terse_dims_text(w->dims, w->rank, text, sizeof text), groups);
    status = check_zero_points(plan, p, error);
    if (status == TERSE_OK)
        status = check_sums(plan, p, error);
    if (status == TERSE_OK)
        status = terse_op_output(plan, 0, dtype, terse_window_dims(&window, p->filters, dims), dims, error);
    if (status != TERSE_OK)
        return status;
    const bool zeros = (!p->ready && w->dtype == TERSE_UINT8) || terse_op_input(plan, p->w_zero);
    p->args = (terse_conv_u8s8_args){.n = 1,
                                     .channels = window.channels,
                                     .filters = p->filters + (zeros ? groups : 0),
                                     .groups = groups,
                                     .in_stride = window.channels,
                                     .out_stride = p->filters + (zeros ? groups : 0),
                                     .requantize = {.to = TERSE_SUMS_TO_S32}};
    memcpy(p->args.in, window.in, sizeof window.in);
    memcpy(p->args.out, window.out, sizeof window.out);
    memcpy(p->args.kernel, window.kernel, sizeof window.kernel);
    memcpy(p->args.stride, window.stride, sizeof window.stride);
    memcpy(p->args.dilation, window.dilation, sizeof window.dilation);
    memcpy(p->args.pad, window.pad, sizeof window.pad);
    p->positions = window.kernel[0] * window.kernel[1] * window.kernel[2];
    plan->macs = TERSE_PRODUCT(terse_tensor_count(&plan->outputs[0]), w->dims[1], p->positions);
    return plan_scratch(plan, p, error);
}

static int plan_conv_integer(terse_op_plan *plan, terse_error *error)
{
    conv_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    *p = (conv_params){.x = 0, .w = 1, .x_zero = 2, .w_zero = 3, .bias = -1};
    return plan_conv(plan, p, TERSE_INT32, error);
}

static int plan_qlinear_conv(terse_op_plan *plan, terse_error *error)
{
    conv_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    *p = (conv_params){.requantize = true, .x = 0, .w = 3, .x_zero = 2, .w_zero = 5, .bias = 8};
    int status = terse_integer_scalar(plan, 6, 7, error);
    if (status == TERSE_OK)
        status = terse_integer_scalar(plan, 1, 2, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 4, "w_scale", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = plan_conv(plan, p, plan->inputs[7]->dtype, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *w_scale = plan->inputs[4], *bias = terse_op_input(plan, 8);
    if (terse_tensor_count(w_scale) != 1 && (w_scale->rank != 1 || w_scale->dims[0] != p->filters))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input 4 (w_scale) has %" PRId64 " elements, allowed are 1 and %" PRId64,
                          terse_tensor_count(w_scale), p->filters);
    if (!bias)
        return TERSE_OK;
    status = terse_op_expect(plan, 8, "B", 1u << TERSE_INT32, error);
    if (status == TERSE_OK && (bias->rank != 1 || bias->dims[0] != p->filters))
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "input 8 (B) has %" PRId64 " elements, needed are %" PRId64,
                            terse_tensor_count(bias), p->filters);
    return status;
}

static const terse_tensor *optional(const terse_op_call *call, int input)
{
    return input >= 0 && input < call->n_inputs ? call->inputs[input] : NULL;
}

static int32_t filter_zero(const terse_op_call *call, const conv_params *p, int64_t filter)
{
    const terse_tensor *zero = optional(call, p->w_zero);
    const int32_t lowered = call->inputs[p->w]->dtype == TERSE_UINT8 ? 128 : 0;
    return (zero ? terse_integer_byte(zero, terse_tensor_count(zero) == 1 ? 0 : filter) : 0) - lowered;
}

/* One filter [C][positions] of ONNX to [positions][C], and the sum of its weights. */
static int32_t turn_filter(const uint8_t *from, uint8_t flip, int64_t channels, int64_t positions, int8_t *to)
{
    int32_t sum = 0;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < positions; i++) {
            const int8_t w = (int8_t)(from[c * positions + i] ^ flip);
            to[i * channels + c] = w;
            sum = (int32_t)((uint32_t)sum + (uint32_t)w);
        }
    return sum;
}

/* Packs the weights of all groups; `constant` gets what is added to each filter's sum: the bias and what the zero point
 * of x makes. */
static void pack_weights(const terse_op_call *call, const conv_params *p, int32_t x_zero)
{
    const terse_conv_u8s8_args *a = &p->args;
    const terse_tensor *w = call->inputs[p->w], *bias = optional(call, p->bias);
    char *scratch = call->scratch;
    int8_t *dense = (int8_t *)scratch + p->dense, *packed = (int8_t *)scratch + p->packed;
    int32_t *constant = (void *)(scratch + p->constant);
    const int64_t channels = a->channels / a->groups, size = channels * p->positions;
    const int64_t own = p->filters / a->groups, all = filters_of_group(p), rows = a->kernel[0] * a->kernel[1];
    const int64_t row = a->kernel[2] * channels, packed_row = (row + 3) / 4 * 64;
    for (int64_t g = 0; g < a->groups; g++) {
        for (int64_t f = 0; f < own; f++) {
            const int64_t filter = g * own + f;
            const uint32_t sum =
                (uint32_t)turn_filter((const uint8_t *)w->data + filter * size, w->dtype == TERSE_UINT8 ? 0x80 : 0,
                                      channels, p->positions, dense + f * size);
            const uint32_t corrected = sum - (uint32_t)size * (uint32_t)filter_zero(call, p, filter);
            constant[filter] =
                (int32_t)((bias ? (uint32_t)((const int32_t *)bias->data)[filter] : 0) - (uint32_t)x_zero * corrected);
        }
        if (all > own)
            memset(dense + own * size, 1, (size_t)size);
        for (int64_t f = 0; f < all; f += 16)
            for (int64_t r = 0; r < rows; r++, packed += packed_row)
                call->kernels->pack_n16k4_s8(dense + f * size + r * row, 1, size, row, all - f < 16 ? all - f : 16,
                                             packed, NULL);
    }
}

/* The same where the weights are packed. */
static void read_sums(const terse_op_call *call, const conv_params *p, int32_t x_zero)
{
    const int32_t *sums = call->inputs[SUMS]->data;
    int32_t *constant = (void *)((char *)call->scratch + p->constant);
    for (int64_t filter = 0; filter < p->filters; filter++)
        constant[filter] = (int32_t)(0 - (uint32_t)x_zero * (uint32_t)sums[filter]);
}

static void load_image(const terse_op_call *call, const conv_params *p, int64_t index)
{
    const terse_tensor *x = call->inputs[p->x];
    const uint8_t flip = x->dtype == TERSE_INT8 ? 0x80 : 0;
    const int64_t channels = p->args.channels, pixels = p->args.in[0] * p->args.in[1] * p->args.in[2];
    const uint8_t *from = (const uint8_t *)x->data + index * channels * pixels;
    uint8_t *to = (uint8_t *)call->scratch + p->image;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < pixels; i++)
            to[i * channels + c] = from[c * pixels + i] ^ flip;
}

/* The exact sum of each filter and pixel, to INT32 or requantized, in ONNX's order. */
static void store_image(const terse_op_call *call, const conv_params *p, int64_t index)
{
    const int32_t *sums = (const void *)((const char *)call->scratch + p->sums);
    const int32_t *constant = (const void *)((const char *)call->scratch + p->constant);
    const int64_t pixels = p->args.out[0] * p->args.out[1] * p->args.out[2], all = filters_of_group(p);
    const int64_t own = p->filters / p->args.groups;
    const terse_tensor *w_scale = p->requantize ? call->inputs[4] : NULL, *y = &call->outputs[0];
    const terse_tensor *y_zero = p->requantize ? call->inputs[7] : NULL;
    for (int64_t filter = 0; filter < p->filters; filter++) {
        const int64_t base = filter / own * all, column = base + filter % own;
        const uint32_t zero = all > own ? (uint32_t)filter_zero(call, p, filter) : 0;
        const int64_t at = (index * p->filters + filter) * pixels;
        double multiplier = 0;
        if (p->requantize)
            multiplier = (double)*(const float *)call->inputs[1]->data *
                         (double)((const float *)w_scale->data)[terse_tensor_count(w_scale) == 1 ? 0 : filter] /
                         (double)*(const float *)call->inputs[6]->data;
        for (int64_t i = 0; i < pixels; i++) {
            const int32_t *pixel = sums + i * p->args.filters;
            uint32_t sum = (uint32_t)pixel[column] + (uint32_t)constant[filter];
            if (zero)
                sum -= zero * (uint32_t)pixel[base + own];
            if (p->requantize)
                ((uint8_t *)y->data)[at + i] = terse_integer_round(
                    (double)(int32_t)sum * multiplier, terse_integer_byte(y_zero, 0), y->dtype == TERSE_INT8);
            else
                ((int32_t *)y->data)[at + i] = (int32_t)sum;
        }
    }
}

static int run_conv(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const conv_params *p = call->params;
    const terse_tensor *x = call->inputs[p->x], *x_zero = optional(call, p->x_zero);
    if (terse_tensor_count(&call->outputs[0]) == 0)
        return TERSE_OK;
    const int32_t zero = (x_zero ? terse_integer_byte(x_zero, 0) : 0) + (x->dtype == TERSE_INT8 ? 128 : 0);
    char *scratch = call->scratch;
    terse_conv_u8s8_args args = p->args;
    args.input = (const uint8_t *)scratch + p->image;
    args.weights = p->ready ? (const int8_t *)call->inputs[p->w]->data : (const int8_t *)scratch + p->packed;
    args.x_zero_point = (uint8_t)zero;
    args.output = scratch + p->sums;
    args.scratch = scratch + p->kernel;
    if (p->ready)
        read_sums(call, p, zero);
    else
        pack_weights(call, p, zero);
    for (int64_t i = 0; i < x->dims[0]; i++) {
        load_image(call, p, i);
        call->kernels->conv_u8s8(&args);
        store_image(call, p, i);
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_conv_integer = {
    .name = "ConvInteger",
    .min_inputs = 2,
    .max_inputs = 5,
    .min_outputs = 1,
    .max_outputs = 1,
    .plan = plan_conv_integer,
    .run = run_conv,
};

const terse_op_impl terse_op_qlinear_conv = {
    .name = "QLinearConv",
    .min_inputs = 8,
    .max_inputs = 9,
    .min_outputs = 1,
    .max_outputs = 1,
    .plan = plan_qlinear_conv,
    .run = run_conv,
};
