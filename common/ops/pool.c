/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. fp32 pools without Indices run in the channels-last kernels, NCHW activations through scratch image by
 * image (as conv.c). MaxPool of channels-last UINT8 has a kernel too; other 8-bit MaxPools and those with Indices walk
 * the windows here, in either layout. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/support.h"
#include "common/ops/window.h"

typedef struct pool_params {
    terse_pool_f32_args args;                               /* all but the pointers and strides */
    bool channels_last, column_major, by_hand, bytes, half; /* half: BF16 */
    int64_t images;
    size_t input, output; /* offsets in scratch */
} pool_params;

static void fill_args(const terse_window *w, pool_params *params)
{
    terse_pool_f32_args *a = &params->args;
    *a = (terse_pool_f32_args){
        .n = w->channels_last ? w->n : 1, .channels = w->channels, .in_stride = w->channels, .out_stride = w->channels};
    memcpy(a->in, w->in, sizeof a->in);
    memcpy(a->out, w->out, sizeof a->out);
    memcpy(a->kernel, w->kernel, sizeof a->kernel);
    memcpy(a->stride, w->stride, sizeof a->stride);
    memcpy(a->dilation, w->dilation, sizeof a->dilation);
    memcpy(a->pad, w->pad, sizeof a->pad);
    memcpy(a->pad_end, w->pad_end, sizeof a->pad_end);
    params->channels_last = w->channels_last;
    params->images = w->n;
}

static int plan_scratch(terse_op_plan *plan, pool_params *params, const terse_window *w, terse_error *error)
{
    size_t total = 0;
    if (params->channels_last || params->by_hand)
        return TERSE_OK;
    int status = TERSE_RESERVE(&total, &params->input, error, w->channels, terse_window_pixels_in(w));
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &params->output, error, w->channels, terse_window_pixels_out(w));
    plan->scratch_bytes = total;
    return status;
}

/* Window and parameters of MaxPool and AveragePool; the caller checks the dtype first. */
static int plan_window(terse_op_plan *plan, terse_window *w, pool_params **ret_params, terse_error *error)
{
    const int status = terse_window_pool(plan, w, error);
    if (status != TERSE_OK)
        return status;
    pool_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    fill_args(w, params);
    *ret_params = params;
    return TERSE_OK;
}

/* BF16 has the channels-last kernels only. */
static int check_half(const terse_op_plan *plan, pool_params *params, terse_error *error)
{
    params->half = plan->inputs[0]->dtype == TERSE_BF16;
    if (params->half && (!params->channels_last || plan->n_outputs > 1))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "X is BF16, which is for channels-last without Indices");
    return TERSE_OK;
}

static int plan_max(terse_op_plan *plan, terse_error *error)
{
    terse_window w;
    pool_params *params;
    int64_t order, dims[TERSE_MAX_RANK];
    int status = terse_op_expect(plan, 0, "X",
                                 1u << TERSE_FP32 | 1u << TERSE_INT8 | 1u << TERSE_UINT8 | 1u << TERSE_BF16, error);
    if (status == TERSE_OK)
        status = plan_window(plan, &w, &params, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "storage_order", 0, 0, 1, &order, error);
    if (status != TERSE_OK)
        return status;
    params->column_major = order == 1;
    if ((status = check_half(plan, params, error)) != TERSE_OK)
        return status;
    params->bytes = plan->inputs[0]->dtype == TERSE_UINT8 && w.channels_last && plan->n_outputs == 1 &&
                    plan->kernels->max_pool_u8 != NULL;
    params->by_hand = !params->bytes && !params->half && (plan->inputs[0]->dtype != TERSE_FP32 || plan->n_outputs > 1);
    const int rank = terse_window_dims(&w, w.channels, dims);
    status = terse_op_output(plan, 0, plan->inputs[0]->dtype, rank, dims, error);
    if (status == TERSE_OK)
        status = terse_op_output(plan, 1, TERSE_INT64, rank, dims, error);
    return status == TERSE_OK ? plan_scratch(plan, params, &w, error) : status;
}

static int plan_average(terse_op_plan *plan, terse_error *error)
{
    terse_window w;
    pool_params *params;
    int64_t count, dims[TERSE_MAX_RANK];
    int status = terse_op_expect(plan, 0, "X", 1u << TERSE_FP32 | 1u << TERSE_BF16, error);
    if (status == TERSE_OK)
        status = plan_window(plan, &w, &params, error);
    if (status == TERSE_OK)
        status = check_half(plan, params, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "count_include_pad", 0, 0, 1, &count, error);
    if (status != TERSE_OK)
        return status;
    params->args.count_include_pad = count == 1;
    const int rank = terse_window_dims(&w, w.channels, dims);
    status = terse_op_output(plan, 0, plan->inputs[0]->dtype, rank, dims, error);
    return status == TERSE_OK ? plan_scratch(plan, params, &w, error) : status;
}

static void run_kernel(const terse_op_call *call, void (*kernel)(const terse_pool_f32_args *args))
{
    const pool_params *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    terse_pool_f32_args args = params->args;
    if (terse_tensor_count(y) == 0)
        return;
    if (params->channels_last) {
        args.input = x->data;
        args.in_stride = x->row_stride;
        args.output = y->data;
        args.out_stride = y->row_stride;
        kernel(&args);
        return;
    }
    float *input = terse_support_at(call->scratch, params->input);
    float *output = terse_support_at(call->scratch, params->output);
    args.input = input;
    args.output = output;
    for (int64_t i = 0; i < params->images; i++) {
        terse_support_image_load(call->kernels, x, i, input);
        kernel(&args);
        terse_support_image_store(call->kernels, y, i, output);
    }
}

/* Where pixel (a, b, c) of a channel lies: element offsets that obey row_stride in both layouts. */
typedef struct place {
    int64_t image, channel, a, b, c;
} place;

static place place_of(const terse_tensor *tensor, const int64_t *size, int64_t channels, bool channels_last)
{
    if (channels_last) {
        const int64_t pixel = tensor->row_stride;
        return (place){.image = size[0] * size[1] * size[2] * pixel,
                       .channel = 1,
                       .a = size[1] * size[2] * pixel,
                       .b = size[2] * pixel,
                       .c = pixel};
    }
    const int64_t row = tensor->row_stride;
    return (place){.image = channels * size[0] * size[1] * row,
                   .channel = size[0] * size[1] * row,
                   .a = size[1] * row,
                   .b = row,
                   .c = 1};
}

/* First and one-past-last kernel positions of the window at `out` that lie inside the data. */
static void clip(const terse_pool_f32_args *a, int axis, int64_t out, int64_t *ret_first, int64_t *ret_end)
{
    const int64_t start = out * a->stride[axis] - a->pad[axis], step = a->dilation[axis];
    const int64_t left = a->in[axis] - start;
    const int64_t end = left <= 0 ? 0 : (left - 1) / step + 1;
    *ret_first = start < 0 ? (-start - 1) / step + 1 : 0;
    *ret_end = end < a->kernel[axis] ? end : a->kernel[axis];
}

static double value_of(const void *data, terse_dtype dtype, int64_t at)
{
    if (dtype == TERSE_FP32)
        return (double)((const float *)data)[at];
    return dtype == TERSE_INT8 ? (double)((const int8_t *)data)[at] : (double)((const uint8_t *)data)[at];
}

/* The maximum of one window: its element offset in the image's channel, or -1 when the window holds no data. */
static int64_t find_max(const pool_params *params, const terse_tensor *x, int64_t base, const place *p,
                        const int64_t *out, int64_t *ret_index)
{
    const terse_pool_f32_args *g = &params->args;
    int64_t first[3], end[3], best = -1, index = 0;
    double most = 0;
    for (int i = 0; i < 3; i++)
        clip(g, i, out[i], &first[i], &end[i]);
    for (int64_t i = first[0]; i < end[0]; i++)
        for (int64_t j = first[1]; j < end[1]; j++)
            for (int64_t k = first[2]; k < end[2]; k++) {
                const int64_t a = out[0] * g->stride[0] - g->pad[0] + i * g->dilation[0];
                const int64_t b = out[1] * g->stride[1] - g->pad[1] + j * g->dilation[1];
                const int64_t c = out[2] * g->stride[2] - g->pad[2] + k * g->dilation[2];
                const int64_t at = base + a * p->a + b * p->b + c * p->c;
                const double value = value_of(x->data, x->dtype, at);
                const bool first_nan = value != value && most == most; /* NaN wins, as in the kernels */
                if (best >= 0 && !(value > most) && !first_nan)
                    continue;
                best = at;
                most = value;
                index = params->column_major ? a + g->in[0] * (b + g->in[1] * c) : c + g->in[2] * (b + g->in[1] * a);
            }
    *ret_index = index;
    return best;
}

static void put(const terse_tensor *x, int64_t from, const terse_tensor *y, int64_t to)
{
    if (x->dtype == TERSE_FP32)
        ((float *)y->data)[to] = from < 0 ? -__builtin_inff() : ((const float *)x->data)[from];
    else
        ((uint8_t *)y->data)[to] = from >= 0 ? ((const uint8_t *)x->data)[from] : x->dtype == TERSE_INT8 ? 0x80 : 0;
}

static void max_of_channel(const terse_op_call *call, int64_t image, int64_t channel)
{
    const pool_params *params = call->params;
    const terse_pool_f32_args *g = &params->args;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const terse_tensor *indices = call->n_outputs > 1 && call->outputs[1].data ? &call->outputs[1] : NULL;
    const place px = place_of(x, g->in, g->channels, params->channels_last);
    const place py = place_of(y, g->out, g->channels, params->channels_last);
    const int64_t base = image * px.image + channel * px.channel;
    const int64_t plane = (image * g->channels + channel) * g->in[0] * g->in[1] * g->in[2];
    const place pi = indices ? place_of(indices, g->out, g->channels, params->channels_last) : py;
    int64_t out[3];
    for (out[0] = 0; out[0] < g->out[0]; out[0]++)
        for (out[1] = 0; out[1] < g->out[1]; out[1]++)
            for (out[2] = 0; out[2] < g->out[2]; out[2]++) {
                int64_t index;
                const int64_t from = find_max(params, x, base, &px, out, &index);
                if (y->data)
                    put(x, from, y,
                        image * py.image + channel * py.channel + out[0] * py.a + out[1] * py.b + out[2] * py.c);
                if (indices)
                    ((int64_t *)indices->data)[image * pi.image + channel * pi.channel + out[0] * pi.a + out[1] * pi.b +
                                               out[2] * pi.c] = plane + index;
            }
}

static void run_bytes(const terse_op_call *call)
{
    const terse_pool_f32_args *from = &((const pool_params *)call->params)->args;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    terse_pool_u8_args args = {.n = from->n,
                               .channels = from->channels,
                               .input = x->data,
                               .in_stride = x->row_stride,
                               .output = y->data,
                               .out_stride = y->row_stride};
    memcpy(args.in, from->in, sizeof args.in);
    memcpy(args.out, from->out, sizeof args.out);
    memcpy(args.kernel, from->kernel, sizeof args.kernel);
    memcpy(args.stride, from->stride, sizeof args.stride);
    memcpy(args.dilation, from->dilation, sizeof args.dilation);
    memcpy(args.pad, from->pad, sizeof args.pad);
    memcpy(args.pad_end, from->pad_end, sizeof args.pad_end);
    if (terse_tensor_count(y) > 0)
        call->kernels->max_pool_u8(&args);
}

static int run_max(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const pool_params *params = call->params;
    if (params->bytes) {
        run_bytes(call);
        return TERSE_OK;
    }
    if (!params->by_hand) {
        run_kernel(call, params->half ? call->kernels->max_pool_bf16 : call->kernels->max_pool_f32);
        return TERSE_OK;
    }
    for (int64_t image = 0; image < params->images; image++)
        for (int64_t channel = 0; channel < params->args.channels; channel++)
            max_of_channel(call, image, channel);
    return TERSE_OK;
}

static int run_average(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const pool_params *params = call->params;
    run_kernel(call, params->half ? call->kernels->average_pool_bf16 : call->kernels->average_pool_f32);
    return TERSE_OK;
}

const terse_op_impl terse_op_max_pool = {
    .name = "MaxPool",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_outputs = 1,
    .max_outputs = 2,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,
    .plan = plan_max,
    .run = run_max,
};

const terse_op_impl terse_op_average_pool = {
    .name = "AveragePool",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,
    .plan = plan_average,
    .run = run_average,
};
