/* SPDX-License-Identifier: Apache-2.0 */
/* BatchNormalization (inference), LayerNormalization, InstanceNormalization, GroupNormalization and LRN. Means and
 * variances are two-pass, in the kernels' 16-lane order over one row. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/ops/support.h"

/* --- BatchNormalization: y = (x - mean) * (scale / sqrt(var + epsilon)) + bias, per channel --------------------- */

typedef struct batch_params {
    int64_t n, channels, pixels;
    float epsilon;
    size_t factor; /* scratch: scale / sqrt(var + epsilon) */
} batch_params;

/* An FP32 vector of n elements as input `index`. */
static int expect_vector(const terse_op_plan *plan, int index, const char *what, int64_t n, terse_error *error)
{
    const int status = terse_op_expect(plan, index, what, 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *tensor = plan->inputs[index];
    if (tensor->rank != 1 || tensor->dims[0] != n) {
        char text[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has shape %s, needed is [%" PRId64 "]", index,
                          what, terse_dims_text(tensor->dims, tensor->rank, text, sizeof text), n);
    }
    return TERSE_OK;
}

static int plan_batch(terse_op_plan *plan, terse_error *error)
{
    static const char *const names[] = {"X", "scale", "B", "mean", "var"};
    int status = terse_op_expect(plan, 0, names[0], 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (x->rank < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 0 (X) is a scalar");
    if (terse_node_int(plan->node, "training_mode", 0) != 0)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "attribute training_mode is 1, allowed is 0");
    batch_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    *params = (batch_params){.n = x->dims[0],
                             .channels = x->rank > 1 ? x->dims[1] : 1,
                             .pixels = x->rank > 2 ? terse_dims_count(x->dims + 2, x->rank - 2) : 1,
                             .epsilon = (float)terse_node_float(plan->node, "epsilon", 1e-5)};
    for (int i = 1; i < 5 && status == TERSE_OK; i++)
        status = expect_vector(plan, i, names[i], params->channels, error);
    size_t total = 0;
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &params->factor, error, params->channels);
    plan->scratch_bytes = total;
    return status == TERSE_OK ? terse_op_output(plan, 0, TERSE_FP32, x->rank, x->dims, error) : status;
}

static int run_batch(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const batch_params *p = call->params;
    const float *x = call->inputs[0]->data, *scale = call->inputs[1]->data, *bias = call->inputs[2]->data;
    const float *mean = call->inputs[3]->data, *var = call->inputs[4]->data;
    float *y = call->outputs[0].data, *factor = terse_support_at(call->scratch, p->factor);
    for (int64_t c = 0; c < p->channels; c++)
        factor[c] = scale[c] / sqrtf(var[c] + p->epsilon);
    if (p->pixels == 1) {
        for (int64_t i = 0; i < p->n; i++, x += p->channels, y += p->channels)
            for (int64_t c = 0; c < p->channels; c++)
                y[c] = (x[c] - mean[c]) * factor[c] + bias[c];
        return TERSE_OK;
    }
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t c = 0; c < p->channels; c++, x += p->pixels, y += p->pixels)
            for (int64_t k = 0; k < p->pixels; k++)
                y[k] = (x[k] - mean[c]) * factor[c] + bias[c];
    return TERSE_OK;
}

const terse_op_impl terse_op_batch_normalization = {
    .name = "BatchNormalization",
    .min_inputs = 5,
    .max_inputs = 5,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_IN_PLACE,
    .plan = plan_batch,
    .run = run_batch,
};

/* --- InstanceNormalization, GroupNormalization: rows of (group of channels, pixels) ----------------------------- */

typedef struct group_params {
    int64_t rows, groups, channels, pixels; /* rows = n * groups; channels per group */
    float epsilon;
    size_t squares; /* scratch: one row */
} group_params;

static int plan_groups(terse_op_plan *plan, bool instance, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "X", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (x->rank < 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 0 (X) has rank %d, at least 2 is needed", x->rank);
    const int64_t groups = instance ? x->dims[1] : terse_node_int(plan->node, "num_groups", 0);
    if (!instance && (groups < 1 || x->dims[1] % groups != 0))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "attribute num_groups is %" PRId64 ", a divisor of the %" PRId64 " channels is needed",
                          groups, x->dims[1]);
    group_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    const int64_t total_dims[] = {x->dims[0], groups};
    *params = (group_params){.rows = terse_dims_count(total_dims, 2),
                             .groups = groups,
                             .channels = groups > 0 ? x->dims[1] / groups : 0,
                             .pixels = terse_dims_count(x->dims + 2, x->rank - 2),
                             .epsilon = (float)terse_node_float(plan->node, "epsilon", 1e-5)};
    status = expect_vector(plan, 1, "scale", x->dims[1], error);
    if (status == TERSE_OK)
        status = expect_vector(plan, 2, "B", x->dims[1], error);
    size_t total = 0;
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &params->squares, error, params->channels, params->pixels);
    plan->scratch_bytes = total;
    return status == TERSE_OK ? terse_op_output(plan, 0, TERSE_FP32, x->rank, x->dims, error) : status;
}

static int plan_instance(terse_op_plan *plan, terse_error *error)
{
    return plan_groups(plan, true, error);
}

static int plan_group(terse_op_plan *plan, terse_error *error)
{
    return plan_groups(plan, false, error);
}

static int run_groups(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const group_params *p = call->params;
    const terse_kernels *k = call->kernels;
    const float *x = call->inputs[0]->data, *scale = call->inputs[1]->data, *bias = call->inputs[2]->data;
    float *y = call->outputs[0].data, *squares = terse_support_at(call->scratch, p->squares);
    const int64_t width = p->channels * p->pixels;
    for (int64_t row = 0; width > 0 && row < p->rows; row++, x += width, y += width) {
        const float mean = k->sum_f32(x, width) / (float)width;
        k->sub_f32(x, 1, &mean, 0, y, width);
        k->mul_f32(y, 1, y, 1, squares, width);
        const float factor = 1.0f / sqrtf(k->sum_f32(squares, width) / (float)width + p->epsilon);
        for (int64_t c = 0; c < p->channels; c++) {
            const int64_t channel = row % p->groups * p->channels + c;
            const float f = factor * scale[channel], b = bias[channel];
            float *at = y + c * p->pixels;
            for (int64_t i = 0; i < p->pixels; i++)
                at[i] = at[i] * f + b;
        }
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_instance_normalization = {
    .name = "InstanceNormalization",
    .min_inputs = 3,
    .max_inputs = 3,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_IN_PLACE,
    .plan = plan_instance,
    .run = run_groups,
};

const terse_op_impl terse_op_group_normalization = {
    .name = "GroupNormalization",
    .min_inputs = 3,
    .max_inputs = 3,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_IN_PLACE,
    .plan = plan_group,
    .run = run_groups,
};

/* --- LRN: y = x / (bias + alpha / size * sum of squares of neighbouring channels) ^ beta ------------------------ */

typedef struct lrn_params {
    int64_t n, channels, pixels, before, after;
    float factor, beta, bias;
    size_t squares, sum; /* scratch: a row of pixels each */
} lrn_params;

static int plan_lrn(terse_op_plan *plan, terse_error *error)
{
    int64_t size = 0;
    int status = terse_op_expect(plan, 0, "X", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "size", 0, 1, INT32_MAX, &size, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (x->rank < 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 0 (X) has rank %d, at least 2 is needed", x->rank);
    lrn_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    *params = (lrn_params){.n = x->dims[0],
                           .channels = x->dims[1],
                           .pixels = terse_dims_count(x->dims + 2, x->rank - 2),
                           .before = (size - 1) / 2,
                           .after = size / 2,
                           .factor = (float)(terse_node_float(plan->node, "alpha", 1e-4) / (double)size),
                           .beta = (float)terse_node_float(plan->node, "beta", 0.75),
                           .bias = (float)terse_node_float(plan->node, "bias", 1)};
    size_t total = 0;
    status = TERSE_RESERVE(&total, &params->squares, error, params->pixels);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &params->sum, error, params->pixels);
    plan->scratch_bytes = total;
    return status == TERSE_OK ? terse_op_output(plan, 0, TERSE_FP32, x->rank, x->dims, error) : status;
}

static void lrn_channel(const terse_op_call *call, const lrn_params *p, const float *image, int64_t c, float *y)
{
    const terse_kernels *k = call->kernels;
    float *squares = terse_support_at(call->scratch, p->squares), *sum = terse_support_at(call->scratch, p->sum);
    const int64_t first = c > p->before ? c - p->before : 0;
    const int64_t last = c + p->after < p->channels - 1 ? c + p->after : p->channels - 1;
    const float *x = image + c * p->pixels;
    for (int64_t i = first; i <= last; i++) {
        k->mul_f32(image + i * p->pixels, 1, image + i * p->pixels, 1, i == first ? sum : squares, p->pixels);
        if (i > first)
            k->add_f32(sum, 1, squares, 1, sum, p->pixels);
    }
    if (p->beta == 0.75f) /* the usual one, without pow */
        for (int64_t i = 0; i < p->pixels; i++) {
            const float root = sqrtf(p->bias + p->factor * sum[i]);
            y[i] = x[i] / (root * sqrtf(root));
        }
    else
        for (int64_t i = 0; i < p->pixels; i++)
            y[i] = x[i] / powf(p->bias + p->factor * sum[i], p->beta);
}

static int run_lrn(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const lrn_params *p = call->params;
    const int64_t image = p->channels * p->pixels;
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t c = 0; c < p->channels; c++)
            lrn_channel(call, p, (const float *)call->inputs[0]->data + i * image, c,
                        (float *)call->outputs[0].data + i * image + c * p->pixels);
    return TERSE_OK;
}

const terse_op_impl terse_op_lrn = {
    .name = "LRN",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_outputs = 1,
    .max_outputs = 1,
    .plan = plan_lrn,
    .run = run_lrn,
};
