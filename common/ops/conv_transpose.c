/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Image by image, channels-last in scratch: for each group and each kernel position one product
 * (input pixels) x (C/group, M/group), whose rows are then added to the output pixels that they fall on. For one
 * position an output pixel gets at most one row, so its sum runs over the positions in order, after the bias. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/support.h"
#include "common/ops/window.h"

enum { CHUNK_FLOATS = 1 << 16 }; /* product rows held at a time, about */

typedef struct transpose_params {
    terse_window window; /* in: the input, out: the output; pad: cut off the output's begin */
    int64_t filters, groups, positions, chunk;
    size_t weights, input, output, product; /* offsets in scratch */
} transpose_params;

/* Sizes and paddings of one axis, ONNX's two ways: from the pads, or the pads from output_shape or auto_pad. */
static int size_axis(terse_window *w, int axis, int64_t extra, int64_t wanted, bool upper, terse_error *error)
{
    const int64_t reach = (w->kernel[axis] - 1) * w->dilation[axis] + 1;
    int64_t full;
    /* reach and extra are below 2^61 together; in is below 2^40, stride at most 2^30 */
    if (__builtin_mul_overflow(w->stride[axis], w->in[axis] - 1, &full) || full > INT64_MAX / 4)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "stride %" PRId64 " makes the output too large",
                          w->stride[axis]);
    full += reach + extra;
    if (wanted >= 0) {
        const int64_t total = full > wanted ? full - wanted : 0;
        w->pad[axis] = upper ? total / 2 : total - total / 2;
        w->pad_end[axis] = total - w->pad[axis];
        w->out[axis] = wanted;
    } else {
        w->out[axis] = full - w->pad[axis] - w->pad_end[axis];
    }
    if (w->out[axis] < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the output's size is %" PRId64 ", at least 1 is needed",
                          w->out[axis]);
    return TERSE_OK;
}

static int size_output(const terse_node *node, terse_window *w, terse_error *error)
{
    const char *mode = terse_node_text(node, "auto_pad", "NOTSET");
    const bool upper = strcmp(mode, "SAME_UPPER") == 0, lower = strcmp(mode, "SAME_LOWER") == 0;
    const bool valid = strcmp(mode, "VALID") == 0, given = terse_node_attr(node, "output_shape") != NULL;
    int64_t pads[6] = {0}, extra[3], wanted[3] = {-1, -1, -1};
    if (!upper && !lower && !valid && strcmp(mode, "NOTSET") != 0 && *mode != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "attribute auto_pad is '%.40s', allowed are NOTSET, SAME_UPPER, SAME_LOWER and VALID", mode);
    int status = terse_window_ints(node, "output_padding", w->rank, 0, 0, TERSE_WINDOW_MAX, extra, error);
    if (status == TERSE_OK && given)
        status = terse_window_ints(node, "output_shape", w->rank, 1, 1, TERSE_MAX_TENSOR_BYTES, wanted, error);
    else if (status == TERSE_OK && !upper && !lower && !valid)
        status = terse_window_ints(node, "pads", 2 * w->rank, 0, 0, TERSE_WINDOW_MAX, pads, error);
    for (int i = 0; i < w->rank && status == TERSE_OK; i++) {
        const int axis = 3 - w->rank + i;
        w->pad[axis] = pads[i];
        w->pad_end[axis] = pads[w->rank + i];
        if (!given && (upper || lower) && __builtin_mul_overflow(w->in[axis], w->stride[axis], &wanted[i]))
            wanted[i] = INT64_MAX;
        status = size_axis(w, axis, extra[i], wanted[i], upper, error);
    }
    return status;
}

static int read_shapes(const terse_op_plan *plan, transpose_params *p, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "X", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "W", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0], *weights = plan->inputs[1], *bias = terse_op_input(plan, 2);
    if (weights->rank != x->rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the weights have rank %d, input 0 has %d", weights->rank,
                          x->rank);
    status = terse_window_read(plan, weights->dims + 2, &p->window, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "group", 1, 1, TERSE_WINDOW_MAX, &p->groups, error);
    if (status == TERSE_OK)
        status = size_output(plan->node, &p->window, error);
    if (status != TERSE_OK)
        return status;
    char text[128];
    if (p->window.channels_last || weights->layout != TERSE_LAYOUT_PLAIN || terse_tensor_count(weights) < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "weights %s in layout %d, channels_last %d: not allowed",
                          terse_dims_text(weights->dims, weights->rank, text, sizeof text), (int)weights->layout,
                          p->window.channels_last);
    if (weights->dims[0] != p->window.channels || p->window.channels % p->groups != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%" PRId64 " channels in, weights %s and group %" PRId64 " do not go together",
                          p->window.channels, terse_dims_text(weights->dims, weights->rank, text, sizeof text),
                          p->groups);
    if (__builtin_mul_overflow(weights->dims[1], p->groups, &p->filters))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%" PRId64 " filters in %" PRId64 " groups are too many",
                          weights->dims[1], p->groups);
    if (bias)
        status = terse_op_expect(plan, 2, "B", 1u << TERSE_FP32, error);
    if (status == TERSE_OK && bias && (bias->rank != 1 || bias->dims[0] != p->filters))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 2 (B) has shape %s, needed is [%" PRId64 "]",
                          terse_dims_text(bias->dims, bias->rank, text, sizeof text), p->filters);
    return status;
}

static int plan_transpose(terse_op_plan *plan, terse_error *error)
{
    transpose_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    int status = read_shapes(plan, p, error);
    if (status != TERSE_OK)
        return status;
    const terse_window *w = &p->window;
    const int64_t per_group = p->filters / p->groups, pixels = terse_window_pixels_in(w);
    int64_t dims[TERSE_MAX_RANK];
    const int rank = terse_window_dims(w, p->filters, dims);
    status = terse_op_output(plan, 0, TERSE_FP32, rank, dims, error);
    p->positions = w->kernel[0] * w->kernel[1] * w->kernel[2];
    p->chunk = per_group < CHUNK_FLOATS ? CHUNK_FLOATS / per_group : 1;
    p->chunk = p->chunk < pixels ? p->chunk : pixels;
    size_t total = 0;
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->weights, error, w->channels, p->positions, (per_group + 15) / 16, 16);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->input, error, w->channels, pixels);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->output, error, p->filters, w->out[0], w->out[1], w->out[2]);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->product, error, p->chunk, per_group);
    plan->scratch_bytes = total;
    plan->macs = TERSE_PRODUCT(w->n, pixels, w->channels, per_group, p->positions);
    return status;
}

/* The output pixel of an input pixel and a kernel position, or -1 when it is cut off. */
static int64_t output_of(const terse_window *w, int64_t pixel, int64_t position)
{
    int64_t index = 0, scale = 1;
    for (int axis = 2; axis >= 0; axis--) {
        const int64_t at =
            pixel % w->in[axis] * w->stride[axis] + position % w->kernel[axis] * w->dilation[axis] - w->pad[axis];
        if (at < 0 || at >= w->out[axis])
            return -1;
        index += at * scale;
        scale *= w->out[axis];
        pixel /= w->in[axis];
        position /= w->kernel[axis];
    }
    return index;
}

static void pack_weights(const terse_op_call *call, const transpose_params *p, float *packed)
{
    const float *weights = call->inputs[1]->data;
    const int64_t k = p->window.channels / p->groups, n = p->filters / p->groups;
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t i = 0; i < p->positions; i++, packed += k * ((n + 15) / 16 * 16))
            call->kernels->pack_n16_f32(weights + g * k * n * p->positions + i, n * p->positions, p->positions, k, n,
                                        packed);
}

/* Adds what one group and one kernel position contribute to an image. */
static void add_position(const terse_op_call *call, const transpose_params *p, int64_t group, int64_t position)
{
    const terse_window *w = &p->window;
    const int64_t k = w->channels / p->groups, n = p->filters / p->groups, pixels = terse_window_pixels_in(w);
    const float *input = terse_support_at(call->scratch, p->input);
    const float *weights = terse_support_at(call->scratch, p->weights);
    float *output = terse_support_at(call->scratch, p->output), *product = terse_support_at(call->scratch, p->product);
    for (int64_t at = 0; at < pixels; at += p->chunk) {
        const int64_t m = pixels - at < p->chunk ? pixels - at : p->chunk;
        call->kernels->gemm_f32(
            &(terse_gemm_f32_args){.m = m,
                                   .n = n,
                                   .k = k,
                                   .a = input + at * w->channels + group * k,
                                   .lda = w->channels,
                                   .b = weights + (group * p->positions + position) * k * ((n + 15) / 16 * 16),
                                   .c = product,
                                   .ldc = n});
        for (int64_t i = 0; i < m; i++) {
            const int64_t to = output_of(w, at + i, position);
            if (to < 0)
                continue;
            float *row = output + to * p->filters + group * n;
            for (int64_t j = 0; j < n; j++)
                row[j] += product[i * n + j];
        }
    }
}

static int run_transpose(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const transpose_params *p = call->params;
    const terse_tensor *bias = call->n_inputs > 2 ? call->inputs[2] : NULL;
    float *output = terse_support_at(call->scratch, p->output);
    const int64_t pixels = terse_window_pixels_out(&p->window);
    pack_weights(call, p, terse_support_at(call->scratch, p->weights));
    for (int64_t image = 0; image < p->window.n; image++) {
        terse_support_image_load(call->kernels, call->inputs[0], image, terse_support_at(call->scratch, p->input));
        for (int64_t i = 0; i < pixels; i++)
            for (int64_t f = 0; f < p->filters; f++)
                output[i * p->filters + f] = bias ? ((const float *)bias->data)[f] : 0.0f;
        for (int64_t g = 0; g < p->groups; g++)
            for (int64_t i = 0; i < p->positions; i++)
                add_position(call, p, g, i);
        terse_support_image_store(call->kernels, &call->outputs[0], image, output);
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_conv_transpose = {
    .name = "ConvTranspose",
    .min_inputs = 2,
    .max_inputs = 3,
    .min_outputs = 1,
    .max_outputs = 1,
    .plan = plan_transpose,
    .run = run_transpose,
};
