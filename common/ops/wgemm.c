/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. WGemm: x [...,K] by weights [K,N] that are stored in 8 or 4 bits (common/kernels/weights.h). All axes
 * of x but the last are rows of one product; every row is computed from itself alone. Inputs 2 and 3 are those of
 * MatMul (bias [N], residual of the output's shape), input 4 the scales: [N] for INT8, [ceil(N/16),ceil(K/group),16]
 * for 4 bits. */
#include <inttypes.h>
#include <string.h>

#include "common/graph/split.h"
#include "common/ops/support.h"

typedef struct wgemm_params {
    int64_t m, n, k, group;
    terse_activation activation;
} wgemm_params;

static int read_shapes(const terse_op_plan *plan, wgemm_params *p, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "x", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "weights", 1u << TERSE_INT8 | 1u << TERSE_UINT8, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 4, "scales", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0], *w = plan->inputs[1];
    const terse_layout needed = w->dtype == TERSE_INT8 ? TERSE_LAYOUT_S8_N16 : TERSE_LAYOUT_S4_N16K8;
    if (w->layout != needed || w->rank != 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s weights of rank %d are in layout %s, needed is %s and rank 2", terse_dtype_name(w->dtype),
                          w->rank, terse_layout_name(w->layout), terse_layout_name(needed));
    if (x->rank < 1 || x->dims[x->rank - 1] != w->dims[0]) {
        char tx[128], tw[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shapes %s and %s do not multiply",
                          terse_dims_text(x->dims, x->rank, tx, sizeof tx), terse_dims_text(w->dims, 2, tw, sizeof tw));
    }
    p->m = terse_dims_count(x->dims, x->rank - 1);
    p->k = w->dims[0];
    p->n = w->dims[1];
    return needed == TERSE_LAYOUT_S8_N16 ? TERSE_OK
                                         : terse_support_int(plan->node, "k_group", 32, 8, 4096, &p->group, error);
}

static int check_scales(const terse_op_plan *plan, const wgemm_params *p, terse_error *error)
{
    const terse_tensor *scales = plan->inputs[4];
    char text[128];
    if (p->group % 8 != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "k_group is %" PRId64 ", allowed are multiples of 8",
                          p->group);
    if (!p->group && (scales->rank != 1 || scales->dims[0] != p->n))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 4 (scales) has shape %s, needed is [%" PRId64 "]",
                          terse_dims_text(scales->dims, scales->rank, text, sizeof text), p->n);
    const int64_t panels = (p->n + 15) / 16, groups = p->group ? (p->k + p->group - 1) / p->group : 0;
    if (p->group &&
        (scales->rank != 3 || scales->dims[0] != panels || scales->dims[1] != groups || scales->dims[2] != 16))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input 4 (scales) has shape %s, needed is [%" PRId64 ",%" PRId64 ",16]",
                          terse_dims_text(scales->dims, scales->rank, text, sizeof text), panels, groups);
    return TERSE_OK;
}

static int check_extras(const terse_op_plan *plan, const wgemm_params *p, terse_error *error)
{
    const terse_tensor *y = &plan->outputs[0];
    const int status = terse_support_bias(plan, 2, "bias", p->n, error);
    return status == TERSE_OK ? terse_support_residual(plan, 3, TERSE_FP32, y->rank, y->dims, error) : status;
}

static int plan_wgemm(terse_op_plan *plan, terse_error *error)
{
    wgemm_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    int status = read_shapes(plan, p, error);
    if (status == TERSE_OK)
        status = check_scales(plan, p, error);
    if (status == TERSE_OK)
        status = terse_support_activation(plan->node, &p->activation, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    int64_t dims[TERSE_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    dims[x->rank - 1] = p->n;
    status = terse_op_output(plan, 0, TERSE_FP32, x->rank, dims, error);
    if (status == TERSE_OK)
        status = check_extras(plan, p, error);
    plan->scratch_bytes =
        p->group ? (size_t)terse_split_threads(plan->kernels) * terse_gemm_f32s4_scratch(p->k, p->group) : 0;
    plan->macs = TERSE_PRODUCT(p->m, p->n, p->k);
    return status;
}

static int run_wgemm(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const wgemm_params *p = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0], *bias = call->inputs[2],
                       *residual = call->inputs[3];
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    if (p->group)
        call->kernels->gemm_f32s4(&(terse_gemm_f32s4_args){.m = p->m,
                                                           .n = p->n,
                                                           .k = p->k,
                                                           .group = p->group,
                                                           .a = x->data,
                                                           .lda = x->row_stride,
                                                           .b = call->inputs[1]->data,
                                                           .scale = call->inputs[4]->data,
                                                           .c = y->data,
                                                           .ldc = y->row_stride,
                                                           .bias = bias ? bias->data : NULL,
                                                           .residual = residual ? residual->data : NULL,
                                                           .ldr = residual ? residual->row_stride : 0,
                                                           .activation = p->activation,
                                                           .scratch = call->scratch});
    else
        call->kernels->gemm_f32s8(&(terse_gemm_f32s8_args){.m = p->m,
                                                           .n = p->n,
                                                           .k = p->k,
                                                           .a = x->data,
                                                           .lda = x->row_stride,
                                                           .b = call->inputs[1]->data,
                                                           .scale = call->inputs[4]->data,
                                                           .c = y->data,
                                                           .ldc = y->row_stride,
                                                           .bias = bias ? bias->data : NULL,
                                                           .residual = residual ? residual->data : NULL,
                                                           .ldr = residual ? residual->row_stride : 0,
                                                           .activation = p->activation});
    return TERSE_OK;
}

const terse_op_impl terse_op_wgemm = {
    .name = "WGemm",
    .min_inputs = 2,
    .max_inputs = 5,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT | TERSE_OP_IN_PLACE_RESIDUAL,
    .plan = plan_wgemm,
    .run = run_wgemm,
};
