/* SPDX-License-Identifier: Apache-2.0 */
/* QAveragePool and QGlobalAveragePool: channels-last averages of bytes. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/quantized.h"
#include "common/ops/support.h"
#include "common/ops/window.h"

static int read_scales(const terse_op_plan *plan, terse_pool_u8_args *a, terse_error *error)
{
    int status = terse_quantized_scale(plan->node, "scale", &a->scale, error);
    if (status == TERSE_OK)
        status = terse_quantized_byte(plan->node, "x_zero_point", 0, &a->x_zero_point, error);
    if (status == TERSE_OK)
        status = terse_quantized_byte(plan->node, "y_zero_point", 0, &a->y_zero_point, error);
    if (status == TERSE_OK && !plan->kernels->average_pool_u8)
        status = terse_fail(error, TERSE_UNIMPLEMENTED, "this build has no kernel for it");
    return status;
}

static int expect_channels_last(const terse_op_plan *plan, terse_error *error)
{
    const int status = terse_op_expect(plan, 0, "x", 1u << TERSE_UINT8, error);
    if (status == TERSE_OK && terse_node_int(plan->node, "channels_last", 0) == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute channels_last is 0, allowed is 1");
    return status;
}

static int plan_average(terse_op_plan *plan, terse_error *error)
{
    terse_window w;
    int64_t dims[TERSE_MAX_RANK], count = 0;
    int status = expect_channels_last(plan, error);
    if (status == TERSE_OK)
        status = terse_window_pool(plan, &w, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "count_include_pad", 0, 0, 1, &count, error);
    terse_pool_u8_args *a = status == TERSE_OK ? terse_op_params(plan, sizeof *a, error) : NULL;
    if (!a)
        return status ? status : TERSE_RESOURCE_EXHAUSTED;
    a->n = w.n;
    a->channels = w.channels;
    a->count_include_pad = count == 1;
    memcpy(a->in, w.in, sizeof a->in);
    memcpy(a->out, w.out, sizeof a->out);
    memcpy(a->kernel, w.kernel, sizeof a->kernel);
    memcpy(a->stride, w.stride, sizeof a->stride);
    memcpy(a->dilation, w.dilation, sizeof a->dilation);
    memcpy(a->pad, w.pad, sizeof a->pad);
    memcpy(a->pad_end, w.pad_end, sizeof a->pad_end);
    status = read_scales(plan, a, error);
    const int rank = terse_window_dims(&w, w.channels, dims);
    return status == TERSE_OK ? terse_op_output(plan, 0, TERSE_UINT8, rank, dims, error) : status;
}

static int plan_global(terse_op_plan *plan, terse_error *error)
{
    int status = expect_channels_last(plan, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (x->rank < 3 || x->rank > 5)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 0 has rank %d, allowed are 3 to 5", x->rank);
    terse_pool_u8_args *a = terse_op_params(plan, sizeof *a, error);
    if (!a)
        return TERSE_RESOURCE_EXHAUSTED;
    int64_t dims[TERSE_MAX_RANK] = {x->dims[0]};
    a->n = x->dims[0];
    a->channels = dims[x->rank - 1] = x->dims[x->rank - 1];
    for (int i = 1; i < x->rank - 1; i++)
        dims[i] = 1;
    for (int i = 0; i < 3; i++) {
        const int axis = x->rank - 4 + i;
        a->in[i] = a->kernel[i] = axis >= 1 ? x->dims[axis] : 1;
        a->out[i] = a->stride[i] = a->dilation[i] = 1;
        if (a->in[i] < 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "the image has no pixels");
    }
    status = read_scales(plan, a, error);
    return status == TERSE_OK ? terse_op_output(plan, 0, TERSE_UINT8, x->rank, dims, error) : status;
}

static int run_pool(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    terse_pool_u8_args args = *(const terse_pool_u8_args *)call->params;
    args.input = x->data;
    args.in_stride = x->row_stride;
    args.output = y->data;
    args.out_stride = y->row_stride;
    call->kernels->average_pool_u8(&args);
    return TERSE_OK;
}

enum { STRIDED = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT };
const terse_op_impl terse_op_qaverage_pool = {"QAveragePool", 1, 1, 1, 1, STRIDED, 0, plan_average, run_pool};
const terse_op_impl terse_op_qglobal_average_pool = {"QGlobalAveragePool", 1,       1, 1, 1, STRIDED, 0,
                                                     plan_global,          run_pool};
