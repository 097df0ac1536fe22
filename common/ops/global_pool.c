/* SPDX-License-Identifier: Apache-2.0 */
/* GlobalAveragePool and GlobalMaxPool: channels-last through the pool kernels with a window as large as the image; NCHW
 * row by row, each channel of an image being one dense row. Any number of spatial axes in NCHW. */
#include "common/ops/support.h"
#include "common/ops/window.h"

typedef struct global_params {
    terse_pool_f32_args args;
    bool channels_last;
    int64_t pixels;
    size_t plane; /* room for one channel whose rows are strided */
} global_params;

static int plan_channels_last(terse_op_plan *plan, global_params *params, int64_t *ret_dims, terse_error *error)
{
    const terse_tensor *x = plan->inputs[0];
    if (x->rank > 5)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "channels_last input has rank %d, allowed are 3 to 5", x->rank);
    terse_pool_f32_args *a = &params->args;
    *a = (terse_pool_f32_args){.n = x->dims[0], .channels = x->dims[x->rank - 1]};
    for (int i = 0; i < 3; i++) {
        const int axis = x->rank - 4 + i;
        a->in[i] = a->kernel[i] = axis >= 1 ? x->dims[axis] : 1;
        a->out[i] = a->stride[i] = a->dilation[i] = 1;
    }
    for (int i = 1; i < x->rank - 1; i++)
        ret_dims[i] = 1;
    ret_dims[x->rank - 1] = a->channels;
    return TERSE_OK;
}

static int plan_global(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "X", 1u << TERSE_FP32 | 1u << TERSE_BF16, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (x->rank < 3)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 0 has rank %d, at least 3 is needed", x->rank);
    global_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->channels_last = terse_node_int(plan->node, "channels_last", 0) != 0;
    if (x->dtype == TERSE_BF16 && !params->channels_last)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "X is BF16, which is for channels-last");
    int64_t dims[TERSE_MAX_RANK] = {x->dims[0], x->dims[1]};
    if (params->channels_last) {
        params->pixels = terse_dims_count(x->dims + 1, x->rank - 2);
        status = plan_channels_last(plan, params, dims, error);
    } else {
        params->pixels = terse_dims_count(x->dims + 2, x->rank - 2);
        for (int i = 2; i < x->rank; i++)
            dims[i] = 1;
    }
    if (status == TERSE_OK && params->pixels < 1)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "the image has no pixels");
    if (status == TERSE_OK)
        status = terse_op_output(plan, 0, x->dtype, x->rank, dims, error);
    size_t total = 0;
    if (status == TERSE_OK && !params->channels_last)
        status = TERSE_RESERVE(&total, &params->plane, error, params->pixels);
    plan->scratch_bytes = total;
    return status;
}

/* One channel of one image as a dense row. */
static const float *plane_at(const terse_op_call *call, const global_params *params, int64_t index)
{
    const terse_tensor *x = call->inputs[0];
    const int64_t rows = params->pixels / x->dims[x->rank - 1];
    terse_tensor plane = *x;
    plane.data = (float *)x->data + index * rows * x->row_stride;
    plane.rank = 2;
    plane.dims[0] = rows;
    plane.dims[1] = x->dims[x->rank - 1];
    return terse_support_dense(&plane, terse_support_at(call->scratch, params->plane));
}

static int run_global(const terse_op_call *call, bool average)
{
    const global_params *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const int64_t count = terse_tensor_count(y);
    if (count == 0)
        return TERSE_OK;
    if (params->channels_last) {
        terse_pool_f32_args args = params->args;
        args.input = x->data;
        args.in_stride = x->row_stride;
        args.output = y->data;
        args.out_stride = y->row_stride;
        if (x->dtype == TERSE_BF16)
            (average ? call->kernels->average_pool_bf16 : call->kernels->max_pool_bf16)(&args);
        else
            (average ? call->kernels->average_pool_f32 : call->kernels->max_pool_f32)(&args);
        return TERSE_OK;
    }
    for (int64_t i = 0; i < count; i++) {
        const float *plane = plane_at(call, params, i);
        ((float *)y->data)[i * y->row_stride] =
            average ? call->kernels->sum_f32(plane, params->pixels) / (float)params->pixels
                    : call->kernels->max_f32(plane, params->pixels);
    }
    return TERSE_OK;
}

static int run_average(const terse_op_call *call, terse_error *error)
{
    (void)error;
    return run_global(call, true);
}

static int run_max(const terse_op_call *call, terse_error *error)
{
    (void)error;
    return run_global(call, false);
}

const terse_op_impl terse_op_global_average_pool = {
    .name = "GlobalAveragePool",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,
    .plan = plan_global,
    .run = run_average,
};

const terse_op_impl terse_op_global_max_pool = {
    .name = "GlobalMaxPool",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,
    .plan = plan_global,
    .run = run_max,
};
