/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. One kernel does all the work: channels-last pixels times packed weights. A Conv that the passes have
 * converted goes straight to it, all images in one call. Any other (NCHW activations, weights in ONNX's order or
 * computed) is brought into that form in scratch, image by image, so both ways give the same bits.
 *
 * K of a group runs over (kernel position, input channel of the group): packed weights are
 * [groups][ceil(M/16)][positions][C/groups][16] with M = filters per group (TERSE_LAYOUT_F32_N16). Constant weights in
 * TERSE_LAYOUT_F32_WINOGRAD4 choose the other algorithm, whose rounding differs. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/sparse.h"
#include "common/ops/support.h"
#include "common/ops/window.h"

typedef struct conv_params {
    terse_conv_f32_args args; /* all but the pointers and strides */
    bool channels_last, depthwise, packed, winograd, sparse;
    int64_t positions;                                              /* of the kernel */
    size_t weights, dense_weights, input, output, residual, kernel; /* offsets in scratch */
} conv_params;

static int check_weights(const terse_op_plan *plan, const terse_window *w, int64_t groups, conv_params *params,
                         terse_error *error)
{
    const terse_tensor *weights = terse_op_input(plan, 1);
    char text[128];
    if (terse_tensor_count(weights) < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the weights' shape %s is empty",
                          terse_dims_text(weights->dims, weights->rank, text, sizeof text));
    const int64_t filters = weights->dims[0], per_group = weights->dims[1];
    if (w->channels % groups != 0 || filters % groups != 0 || w->channels / groups != per_group)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%" PRId64 " channels in, weights %s and group %" PRId64 " do not go together", w->channels,
                          terse_dims_text(weights->dims, weights->rank, text, sizeof text), groups);
    params->depthwise = groups == w->channels && groups == filters && groups > 1;
    params->packed = weights->layout != TERSE_LAYOUT_PLAIN;
    params->winograd = weights->layout == TERSE_LAYOUT_F32_WINOGRAD4;
    params->sparse = weights->layout == TERSE_LAYOUT_F32_4X1 && groups == 1;
    if (weights->layout == TERSE_LAYOUT_F32_N16 || params->winograd || params->sparse)
        params->depthwise = false;
    else if (weights->layout == TERSE_LAYOUT_F32_DW16 ? !(groups == w->channels && groups == filters) : params->packed)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "weights in layout %d do not fit group %" PRId64,
                          (int)weights->layout, groups);
    else if (params->packed)
        params->depthwise = true;
    const bool fits = groups == 1 && w->kernel[0] == 1 && w->kernel[1] == 3 && w->kernel[2] == 3 && w->stride[1] == 1 &&
                      w->stride[2] == 1;
    if (params->winograd && !fits)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "weights in layout %s are for 3x3 with strides of 1 and one group",
                          terse_layout_name(weights->layout));
    params->positions = w->kernel[0] * w->kernel[1] * w->kernel[2];
    return TERSE_OK;
}

static int plan_scratch(const terse_op_plan *plan, conv_params *params, size_t *total, terse_error *error)
{
    const terse_conv_f32_args *a = &params->args;
    const int64_t pixels_in = a->in[0] * a->in[1] * a->in[2], pixels_out = a->out[0] * a->out[1] * a->out[2];
    int status = TERSE_OK;
    if (!params->packed) {
        const int64_t per_group = (a->filters / a->groups + 15) / 16 * 16;
        status = params->depthwise
                     ? TERSE_RESERVE(total, &params->weights, error, params->positions, (a->channels + 15) / 16 * 16)
                     : TERSE_RESERVE(total, &params->weights, error, a->groups, per_group, params->positions,
                                     a->channels / a->groups);
        if (status == TERSE_OK && !plan->inputs[1]->data) /* computed weights may have strided rows */
            status = TERSE_RESERVE(total, &params->dense_weights, error, a->filters, a->channels / a->groups,
                                   params->positions);
    }
    if (status == TERSE_OK && !params->channels_last)
        status = TERSE_RESERVE(total, &params->input, error, a->channels, pixels_in);
    if (status == TERSE_OK && !params->channels_last)
        status = TERSE_RESERVE(total, &params->output, error, a->filters, pixels_out);
    if (status == TERSE_OK && !params->channels_last && terse_op_input(plan, 3))
        status = TERSE_RESERVE(total, &params->residual, error, a->filters, pixels_out);
    if (status == TERSE_OK && !params->depthwise)
        status = TERSE_RESERVE(
            total, &params->kernel, error,
            (int64_t)((params->winograd ? plan->kernels->winograd_f32_scratch(a)
                       : params->sparse ? plan->kernels->sparse_f32_scratch(&(terse_sparse_f32_args){.conv = *a})
                                        : plan->kernels->conv_f32_scratch(a)) /
                      sizeof(float)) +
                16);
    return status;
}

static int read_window(const terse_op_plan *plan, int64_t *ret_groups, terse_window *ret_window, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "X", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "W", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0], *weights = plan->inputs[1];
    if (weights->rank != x->rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the weights have rank %d, input 0 has %d", weights->rank,
                          x->rank);
    status = terse_window_read(plan, weights->dims + 2, ret_window, error);
    if (status == TERSE_OK)
        status = terse_window_slide(plan->node, false, ret_window, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "group", 1, 1, TERSE_WINDOW_MAX, ret_groups, error);
    return status;
}

static int plan_conv(terse_op_plan *plan, terse_error *error)
{
    terse_window w;
    int64_t groups, dims[TERSE_MAX_RANK];
    int status = read_window(plan, &groups, &w, error);
    if (status != TERSE_OK)
        return status;
    conv_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    status = check_weights(plan, &w, groups, params, error);
    if (status != TERSE_OK)
        return status;
    const int64_t filters = plan->inputs[1]->dims[0];
    params->channels_last = w.channels_last;
    terse_conv_f32_args *a = &params->args;
    *a = (terse_conv_f32_args){.n = w.channels_last ? w.n : 1,
                               .channels = w.channels,
                               .filters = filters,
                               .groups = groups,
                               .in_stride = w.channels,
                               .out_stride = filters,
                               .residual_stride = filters};
    memcpy(a->in, w.in, sizeof a->in);
    memcpy(a->out, w.out, sizeof a->out);
    memcpy(a->kernel, w.kernel, sizeof a->kernel);
    memcpy(a->stride, w.stride, sizeof a->stride);
    memcpy(a->dilation, w.dilation, sizeof a->dilation);
    memcpy(a->pad, w.pad, sizeof a->pad);
    const int rank = terse_window_dims(&w, filters, dims);
    status = terse_op_output(plan, 0, TERSE_FP32, rank, dims, error);
    if (status == TERSE_OK)
        status = terse_support_bias(plan, 2, "B", filters, error);
    if (status == TERSE_OK)
        status = terse_support_residual(plan, 3, TERSE_FP32, rank, dims, error);
    if (status == TERSE_OK)
        status = terse_support_activation(plan->node, &a->activation, error);
    size_t total = 0;
    if (status == TERSE_OK)
        status = plan_scratch(plan, params, &total, error);
    plan->scratch_bytes = total;
    plan->macs = TERSE_PRODUCT(w.n, filters, w.out[0], w.out[1], w.out[2], w.channels / groups, params->positions);
    if (params->sparse)
        plan->macs = terse_sparse_macs(plan->inputs[1], TERSE_PRODUCT(w.n, w.out[0], w.out[1], w.out[2]), plan->macs);
    return status;
}

static void pack_weights(const terse_op_call *call, const conv_params *params, const float *weights, float *packed)
{
    const int64_t p = params->positions, k = params->args.channels / params->args.groups;
    const int64_t filters = params->args.filters, per_group = filters / params->args.groups;
    if (params->depthwise) {
        const int64_t width = (filters + 15) / 16 * 16;
        for (int64_t i = 0; i < p; i++)
            for (int64_t c = 0; c < width; c++)
                packed[i * width + c] = c < filters ? weights[c * p + i] : 0;
        return;
    }
    for (int64_t first = 0; first < filters; first += per_group)
        for (int64_t n = 0; n < per_group; n += 16)
            for (int64_t i = 0; i < p; i++, packed += k * 16)
                call->kernels->pack_n16_f32(weights + (first + n) * k * p + i, p, k * p, k,
                                            per_group - n < 16 ? per_group - n : 16, packed);
}

static void convolve(const terse_op_call *call, const conv_params *params, const terse_conv_f32_args *args)
{
    if (params->depthwise)
        call->kernels->dwconv_f32(args);
    else if (params->winograd)
        call->kernels->winograd_f32(args);
    else if (params->sparse)
        call->kernels->sparse_f32(
            &(terse_sparse_f32_args){*args, terse_sparse_view(TERSE_LAYOUT_F32_4X1, args->filters, args->weights)});
    else
        call->kernels->conv_f32(args);
}

static int run_conv(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const conv_params *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const terse_tensor *bias = call->n_inputs > 2 ? call->inputs[2] : NULL;
    const terse_tensor *residual = call->n_inputs > 3 ? call->inputs[3] : NULL;
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    terse_conv_f32_args args = params->args;
    args.weights = call->inputs[1]->data;
    if (!params->packed) {
        float *packed = terse_support_at(call->scratch, params->weights);
        pack_weights(call, params,
                     terse_support_dense(call->inputs[1], terse_support_at(call->scratch, params->dense_weights)),
                     packed);
        args.weights = packed;
    }
    args.bias = bias ? bias->data : NULL;
    args.scratch = terse_support_at(call->scratch, params->kernel);
    if (params->channels_last) {
        args.input = x->data;
        args.in_stride = x->row_stride;
        args.residual = residual ? residual->data : NULL;
        args.residual_stride = residual ? residual->row_stride : 0;
        args.output = y->data;
        args.out_stride = y->row_stride;
        convolve(call, params, &args);
        return TERSE_OK;
    }
    float *input = terse_support_at(call->scratch, params->input);
    float *output = terse_support_at(call->scratch, params->output);
    float *added = residual ? terse_support_at(call->scratch, params->residual) : NULL;
    args.input = input;
    args.output = output;
    args.residual = added;
    for (int64_t i = 0; i < x->dims[0]; i++) {
        terse_support_image_load(call->kernels, x, i, input);
        if (residual)
            terse_support_image_load(call->kernels, residual, i, added);
        convolve(call, params, &args);
        terse_support_image_store(call->kernels, y, i, output);
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_conv = {
    .name = "Conv",
    .min_inputs = 2,
    .max_inputs = 4,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT | TERSE_OP_IN_PLACE_RESIDUAL,
    .plan = plan_conv,
    .run = run_conv,
};
