/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. BConv: a channels-last convolution with weights in BF16, accumulated in FP32. x is BF16, or FP32 that
 * is rounded into scratch, image by image; there an odd number of channels gets a zero more, as the weights have it
 * (the kernel takes K in pairs). Depthwise weights are FP32, which costs no time, and x is BF16. Output and residual
 * are what attribute `to` says: "bf16" or "f32". */
#include <inttypes.h>
#include <string.h>

#include "common/ops/support.h"
#include "common/ops/window.h"

typedef struct bconv_params {
    terse_conv_bf16_args args; /* all but the pointers and strides */
    bool depthwise, rounds;    /* rounds: x goes through scratch */
    int64_t images, pixels, channels;
    size_t input, kernel; /* offsets in scratch */
} bconv_params;

static int check_weights(const terse_op_plan *plan, const terse_window *w, bconv_params *params, terse_error *error)
{
    const terse_tensor *x = plan->inputs[0], *weights = plan->inputs[1];
    const int64_t groups = terse_node_int(plan->node, "group", 1), filters = weights->dims[0];
    const int64_t even = w->channels + w->channels % 2;
    params->depthwise = weights->layout == TERSE_LAYOUT_F32_DW16;
    const bool fits =
        params->depthwise
            ? groups == w->channels && filters == groups && weights->dims[1] == 1 && x->dtype == TERSE_BF16
            : weights->layout == TERSE_LAYOUT_BF16_N16K2 && groups == 1 && weights->dims[1] == even && filters > 0;
    char text[128];
    if (!fits || w->channels < 1 || !w->channels_last)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "weights %s in layout %s, group %" PRId64 " and %s x with %" PRId64
                          " channels do not go together",
                          terse_dims_text(weights->dims, weights->rank, text, sizeof text),
                          terse_layout_name(weights->layout), groups, terse_dtype_name(x->dtype), w->channels);
    return TERSE_OK;
}

/* Bias [N]; a residual like the output. */
static int check_extras(const terse_op_plan *plan, terse_error *error)
{
    const terse_tensor *y = &plan->outputs[0];
    const int status = terse_support_bias(plan, 2, "bias", y->dims[y->rank - 1], error);
    return status == TERSE_OK ? terse_support_residual(plan, 3, y->dtype, y->rank, y->dims, error) : status;
}

static int read_output(const terse_op_plan *plan, terse_dtype *ret_dtype, terse_error *error)
{
    const char *to = terse_node_text(plan->node, "to", "f32");
    const bool narrow = strcmp(to, "bf16") == 0;
    if (!narrow && strcmp(to, "f32") != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute to is '%.40s', allowed are bf16 and f32", to);
    *ret_dtype = narrow ? TERSE_BF16 : TERSE_FP32;
    return TERSE_OK;
}

static int plan_scratch(terse_op_plan *plan, bconv_params *params, terse_error *error)
{
    const terse_conv_bf16_args *a = &params->args;
    size_t total = 0;
    int status = TERSE_OK;
    if (params->rounds) /* two numbers have the bytes of a float */
        status = TERSE_RESERVE(&total, &params->input, error, params->pixels, a->channels / 2);
    if (status == TERSE_OK && !params->depthwise)
        status = TERSE_RESERVE(&total, &params->kernel, error,
                               (int64_t)(plan->kernels->conv_bf16_scratch(a) / sizeof(float)) + 16);
    plan->scratch_bytes = total;
    return status;
}

static void fill_args(const terse_window *w, const terse_tensor *x, int64_t filters, bconv_params *params)
{
    params->images = w->n;
    params->pixels = terse_window_pixels_in(w);
    params->channels = w->channels;
    params->rounds = !params->depthwise && (x->dtype == TERSE_FP32 || w->channels % 2 != 0);
    terse_conv_bf16_args *a = &params->args;
    *a = (terse_conv_bf16_args){.n = params->rounds ? 1 : w->n,
                                .channels = params->depthwise ? w->channels : w->channels + w->channels % 2,
                                .filters = filters};
    a->in_stride = a->channels;
    memcpy(a->in, w->in, sizeof a->in);
    memcpy(a->out, w->out, sizeof a->out);
    memcpy(a->kernel, w->kernel, sizeof a->kernel);
    memcpy(a->stride, w->stride, sizeof a->stride);
    memcpy(a->dilation, w->dilation, sizeof a->dilation);
    memcpy(a->pad, w->pad, sizeof a->pad);
}

static int plan_bconv(terse_op_plan *plan, terse_error *error)
{
    terse_window w;
    terse_dtype dtype = TERSE_FP32;
    int64_t dims[TERSE_MAX_RANK];
    int status = terse_op_expect(plan, 0, "x", 1u << TERSE_FP32 | 1u << TERSE_BF16, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "weights", 1u << TERSE_FP32 | 1u << TERSE_BF16, error);
    if (status == TERSE_OK && plan->inputs[1]->rank != plan->inputs[0]->rank)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "the weights have rank %d, input 0 has %d",
                            plan->inputs[1]->rank, plan->inputs[0]->rank);
    if (status == TERSE_OK)
        status = terse_window_read(plan, plan->inputs[1]->dims + 2, &w, error);
    if (status == TERSE_OK)
        status = terse_window_slide(plan->node, false, &w, error);
    if (status == TERSE_OK)
        status = read_output(plan, &dtype, error);
    bconv_params *params = status == TERSE_OK ? terse_op_params(plan, sizeof *params, error) : NULL;
    if (!params)
        return status == TERSE_OK ? TERSE_RESOURCE_EXHAUSTED : status;
    status = check_weights(plan, &w, params, error);
    if (status != TERSE_OK)
        return status;
    if (params->depthwise && dtype != TERSE_BF16)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute to is 'f32', depthwise weights allow bf16 only");
    const int64_t filters = plan->inputs[1]->dims[0];
    fill_args(&w, plan->inputs[0], filters, params);
    params->args.wide = dtype == TERSE_FP32;
    status = terse_op_output(plan, 0, dtype, terse_window_dims(&w, filters, dims), dims, error);
    if (status == TERSE_OK)
        status = check_extras(plan, error);
    if (status == TERSE_OK)
        status = terse_support_activation(plan->node, &params->args.activation, error);
    plan->macs = TERSE_PRODUCT(w.n, filters, w.out[0], w.out[1], w.out[2], params->depthwise ? 1 : w.channels,
                               w.kernel[0] * w.kernel[1] * w.kernel[2]);
    return status == TERSE_OK ? plan_scratch(plan, params, error) : status;
}

/* One image of x as BF16 with an even number of channels. */
static void round_image(const terse_op_call *call, const bconv_params *params, int64_t image, uint16_t *to)
{
    const terse_tensor *x = call->inputs[0];
    const int64_t channels = params->channels, even = params->args.channels;
    const int64_t first = image * params->pixels * x->row_stride;
    if (x->dtype == TERSE_FP32) {
        call->kernels->f32_rows_to_bf16((const float *)x->data + first, x->row_stride, params->pixels, channels, to);
        return;
    }
    const uint16_t *from = (const uint16_t *)x->data + first;
    for (int64_t i = 0; i < params->pixels; i++, from += x->row_stride, to += even) {
        memcpy(to, from, (size_t)channels * sizeof *to);
        if (channels != even)
            to[channels] = 0;
    }
}

static int run_bconv(const terse_op_call *call, terse_error *error)
{
    const bconv_params *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const terse_tensor *bias = call->n_inputs > 2 ? call->inputs[2] : NULL;
    const terse_tensor *residual = call->n_inputs > 3 ? call->inputs[3] : NULL;
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    terse_conv_bf16_args args = params->args;
    args.weights = call->inputs[1]->data;
    args.bias = bias ? bias->data : NULL;
    args.scratch = terse_support_at(call->scratch, params->kernel);
    args.residual = residual ? residual->data : NULL;
    args.residual_stride = residual ? residual->row_stride : 0;
    args.output = y->data;
    args.out_stride = y->row_stride;
    if (!params->rounds) {
        args.input = x->data;
        args.in_stride = x->row_stride;
        if (!params->depthwise && (x->row_stride % 2 != 0 || (uintptr_t)x->data % 4 != 0))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "x is a part of rows that do not keep pairs of BF16");
        (params->depthwise ? call->kernels->dwconv_bf16 : call->kernels->conv_bf16)(&args);
        return TERSE_OK;
    }
    const int64_t pixels = args.out[0] * args.out[1] * args.out[2];
    const size_t size = terse_dtype_size(y->dtype);
    uint16_t *image = (uint16_t *)(void *)terse_support_at(call->scratch, params->input);
    args.input = image;
    for (int64_t i = 0; i < params->images; i++) {
        round_image(call, params, i, image);
        args.output = (char *)y->data + (size_t)(i * pixels * y->row_stride) * size;
        if (residual)
            args.residual = (const char *)residual->data + (size_t)(i * pixels * residual->row_stride) * size;
        call->kernels->conv_bf16(&args);
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_bconv = {
    .name = "BConv",
    .min_inputs = 2,
    .max_inputs = 4,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT | TERSE_OP_IN_PLACE_RESIDUAL,
    .plan = plan_bconv,
    .run = run_bconv,
};
