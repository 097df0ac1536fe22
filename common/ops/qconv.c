/* SPDX-License-Identifier: Apache-2.0 */
/* QConv: a channels-last convolution of bytes. Padding holds the zero point of x; -zero point * sum of the weights is
 * part of the bias. Where the zero point is known at run time only, the bias is completed then. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/quantized.h"
#include "common/ops/sparse.h"
#include "common/ops/support.h"
#include "common/ops/window.h"

typedef struct qconv_params {
    terse_conv_u8s8_args args; /* all but the pointers and strides */
    bool depthwise, sparse;
    terse_quantized_dynamic dynamic;
    size_t kernel; /* what the kernel has of scratch begins there */
} qconv_params;

static int check_weights(const terse_op_plan *plan, const terse_window *w, int64_t groups, qconv_params *params,
                         terse_error *error)
{
    const terse_tensor *weights = plan->inputs[1];
    char text[128];
    if (terse_tensor_count(weights) < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the weights' shape %s is empty",
                          terse_dims_text(weights->dims, weights->rank, text, sizeof text));
    const int64_t filters = weights->dims[0];
    if (w->channels % groups != 0 || filters % groups != 0 || w->channels / groups != weights->dims[1])
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%" PRId64 " channels in, weights %s and group %" PRId64 " do not go together", w->channels,
                          terse_dims_text(weights->dims, weights->rank, text, sizeof text), groups);
    const bool depthwise = weights->layout == TERSE_LAYOUT_S8_DW;
    const bool sparse = weights->layout == TERSE_LAYOUT_S8_4X1;
    if (depthwise ? groups != w->channels || groups != filters
        : sparse  ? groups != 1
                  : weights->layout != TERSE_LAYOUT_S8_N16K4)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "weights in layout %d do not fit group %" PRId64,
                          (int)weights->layout, groups);
    params->depthwise = depthwise;
    params->sparse = sparse;
    return TERSE_OK;
}

static int read_window(const terse_op_plan *plan, int64_t *ret_groups, terse_window *ret_window, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "x", 1u << TERSE_UINT8, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "w", 1u << TERSE_INT8, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0], *weights = plan->inputs[1];
    if (weights->rank != x->rank || !weights->data)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the weights have rank %d, input 0 has %d; they must be constant and have the same",
                          weights->rank, x->rank);
    if (terse_node_int(plan->node, "channels_last", 0) == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute channels_last is 0, allowed is 1");
    status = terse_window_read(plan, weights->dims + 2, ret_window, error);
    if (status == TERSE_OK)
        status = terse_window_slide(plan->node, false, ret_window, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "group", 1, 1, TERSE_WINDOW_MAX, ret_groups, error);
    return status;
}

static void fill_args(const terse_window *w, int64_t filters, int64_t groups, terse_conv_u8s8_args *a)
{
    *a = (terse_conv_u8s8_args){.n = w->n,
                                .channels = w->channels,
                                .filters = filters,
                                .groups = groups,
                                .in_stride = w->channels,
                                .out_stride = filters,
                                .x_zero_point = a->x_zero_point};
    memcpy(a->in, w->in, sizeof a->in);
    memcpy(a->out, w->out, sizeof a->out);
    memcpy(a->kernel, w->kernel, sizeof a->kernel);
    memcpy(a->stride, w->stride, sizeof a->stride);
    memcpy(a->dilation, w->dilation, sizeof a->dilation);
    memcpy(a->pad, w->pad, sizeof a->pad);
}

static int plan_qconv(terse_op_plan *plan, terse_error *error)
{
    terse_window w;
    int64_t groups, dims[TERSE_MAX_RANK];
    int32_t zero_point;
    int status = read_window(plan, &groups, &w, error);
    qconv_params *params = status == TERSE_OK ? terse_op_params(plan, sizeof *params, error) : NULL;
    if (!params)
        return status ? status : TERSE_RESOURCE_EXHAUSTED;
    status = check_weights(plan, &w, groups, params, error);
    if (status == TERSE_OK)
        status = terse_quantized_byte(plan->node, "x_zero_point", 0, &zero_point, error);
    if (status != TERSE_OK)
        return status;
    const int64_t filters = plan->inputs[1]->dims[0];
    terse_conv_u8s8_args *a = &params->args;
    a->x_zero_point = (uint8_t)zero_point;
    fill_args(&w, filters, groups, a);
    const int rank = terse_window_dims(&w, filters, dims);
    status = terse_quantized_plan(plan, filters, rank, dims, &a->requantize, error);
    if (status == TERSE_OK)
        status = terse_quantized_tiling(plan, &a->tiling, error);
    if (status != TERSE_OK)
        return status;
    if (params->sparse ? !plan->kernels->sparse_u8s8
                       : !(params->depthwise ? plan->kernels->dwconv_u8s8 : plan->kernels->conv_u8s8))
        return terse_fail(error, TERSE_UNIMPLEMENTED, "this build has no kernel for it");
    size_t total = 0;
    const size_t bytes = params->sparse      ? plan->kernels->sparse_u8s8_scratch(&(terse_sparse_u8s8_args){.conv = *a})
                         : params->depthwise ? plan->kernels->dwconv_u8s8_scratch(a)
                                             : plan->kernels->conv_u8s8_scratch(a);
    status = terse_quantized_dynamic_plan(plan, filters, a->requantize.to, &total, &params->dynamic, error);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &params->kernel, error, (int64_t)(bytes / sizeof(float) + 1));
    if (status != TERSE_OK)
        return status;
    plan->scratch_bytes = params->dynamic.on ? total : bytes;
    plan->macs = TERSE_PRODUCT(w.n, filters, w.out[0], w.out[1], w.out[2], w.channels / groups, w.kernel[0],
                               w.kernel[1], w.kernel[2]);
    if (params->sparse)
        plan->macs = terse_sparse_macs(plan->inputs[1], TERSE_PRODUCT(w.n, w.out[0], w.out[1], w.out[2]), plan->macs);
    return TERSE_OK;
}

static int run_qconv(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const qconv_params *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    terse_conv_u8s8_args args = params->args;
    args.input = x->data;
    args.in_stride = x->row_stride;
    args.weights = call->inputs[1]->data;
    args.output = y->data;
    args.out_stride = y->row_stride;
    args.ahead = call->ahead;
    args.requantize = terse_quantized_bind(call, &params->args.requantize);
    args.scratch = params->dynamic.on ? (void *)terse_support_at(call->scratch, params->kernel) : call->scratch;
    if (params->dynamic.on)
        args.x_zero_point = terse_quantized_complete(call, &params->dynamic, &args.requantize);
    if (params->sparse)
        call->kernels->sparse_u8s8(
            &(terse_sparse_u8s8_args){args, terse_sparse_view(TERSE_LAYOUT_S8_4X1, args.filters, args.weights)});
    else if (params->depthwise)
        call->kernels->dwconv_u8s8(&args);
    else
        call->kernels->conv_u8s8(&args);
    return TERSE_OK;
}

const terse_op_impl terse_op_qconv = {
    .name = "QConv",
    .min_inputs = 2,
    .max_inputs = 9,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT | TERSE_OP_IN_PLACE_FOURTH,
    .plan = plan_qconv,
    .run = run_qconv,
};
