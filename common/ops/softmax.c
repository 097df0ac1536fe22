/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax and LogSoftmax. Rows along the last axis go straight to the kernel. Along another axis a block of columns is
 * turned into rows in scratch and back, so the bits are those of the last axis. coerce_2d (opset < 13): a row is all
 * that follows `axis`. */
#include "common/ops/support.h"

enum { COLUMNS = 64 }; /* turned at a time */

typedef struct softmax_params {
    int64_t outer, length, inner;
    size_t columns; /* in scratch */
} softmax_params;

static int plan_softmax(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "input", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    const bool coerce = terse_node_int(plan->node, "coerce_2d", 0) != 0;
    const int64_t wanted = terse_node_int(plan->node, "axis", coerce ? 1 : -1);
    int axis = 0;
    if (!(coerce && wanted == x->rank) && x->rank > 0) /* [N] with axis 1: rows of one */
        status = terse_op_axis(wanted, x->rank, &axis, error);
    if (status != TERSE_OK)
        return status;
    if (coerce && wanted == x->rank)
        axis = x->rank;
    softmax_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    const int end = coerce || axis >= x->rank ? x->rank : axis + 1;
    *params = (softmax_params){.outer = terse_dims_count(x->dims, axis),
                               .length = terse_dims_count(x->dims + axis, end - axis),
                               .inner = terse_dims_count(x->dims + end, x->rank - end)};
    size_t total = 0;
    if (params->inner > 1)
        status = TERSE_RESERVE(&total, &params->columns, error, params->length, COLUMNS);
    plan->scratch_bytes = total;
    return status == TERSE_OK ? terse_op_output(plan, 0, TERSE_FP32, x->rank, x->dims, error) : status;
}

static void run_columns(const terse_op_call *call, const float *x, float *y, int64_t columns,
                        void (*row)(const float *x, float *y, int64_t n))
{
    const softmax_params *p = call->params;
    float *rows = terse_support_at(call->scratch, p->columns);
    call->kernels->transpose_32((const uint32_t *)(const void *)x, p->inner, (uint32_t *)(void *)rows, p->length,
                                p->length, columns);
    for (int64_t i = 0; i < columns; i++)
        row(rows + i * p->length, rows + i * p->length, p->length);
    call->kernels->transpose_32((const uint32_t *)(const void *)rows, p->length, (uint32_t *)(void *)y, p->inner,
                                columns, p->length);
}

static int run_rows(const terse_op_call *call, void (*row)(const float *x, float *y, int64_t n))
{
    const softmax_params *p = call->params;
    const float *x = call->inputs[0]->data;
    float *y = call->outputs[0].data;
    const int64_t image = p->length * p->inner;
    if (terse_tensor_count(&call->outputs[0]) == 0)
        return TERSE_OK;
    for (int64_t i = 0; i < p->outer; i++, x += image, y += image) {
        if (p->inner == 1)
            row(x, y, p->length);
        for (int64_t at = 0; p->inner > 1 && at < p->inner; at += COLUMNS)
            run_columns(call, x + at, y + at, p->inner - at < COLUMNS ? p->inner - at : COLUMNS, row);
    }
    return TERSE_OK;
}

static int run_softmax(const terse_op_call *call, terse_error *error)
{
    (void)error;
    return run_rows(call, call->kernels->softmax_f32);
}

static int run_log_softmax(const terse_op_call *call, terse_error *error)
{
    (void)error;
    return run_rows(call, call->kernels->log_softmax_f32);
}

const terse_op_impl terse_op_softmax = {
    .name = "Softmax",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_IN_PLACE,
    .plan = plan_softmax,
    .run = run_softmax,
};

const terse_op_impl terse_op_log_softmax = {
    .name = "LogSoftmax",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_IN_PLACE,
    .plan = plan_softmax,
    .run = run_log_softmax,
};
