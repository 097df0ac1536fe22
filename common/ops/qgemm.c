/* SPDX-License-Identifier: Apache-2.0 */
/* QGemm: rows of bytes times a constant matrix.
 *
 * Scale and zero point of x may be known only at run time (inputs 6 and 7, dynamic quantization). Then the multiplier
 * is that of the weights alone and the bias lacks what the zero point adds; both are completed in scratch, with the
 * sums of the weights' columns (input 8). */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/ops/quantized.h"
#include "common/ops/support.h"

enum { X_SCALE = 6, X_ZERO_POINT = 7, COLUMN_SUMS = 8 };

typedef struct qgemm_params {
    terse_gemm_u8s8_args args;
    bool dynamic;
    size_t multiplier, bias; /* offsets in scratch */
} qgemm_params;

static int check_scalar(const terse_op_plan *plan, int index, const char *what, terse_dtype dtype, terse_error *error)
{
    const int status = terse_op_expect(plan, index, what, 1u << dtype, error);
    if (status == TERSE_OK && terse_tensor_count(plan->inputs[index]) != 1) {
        char text[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has shape %s, one number is needed", index,
                          what,
                          terse_dims_text(plan->inputs[index]->dims, plan->inputs[index]->rank, text, sizeof text));
    }
    return status;
}

static int plan_dynamic(terse_op_plan *plan, qgemm_params *p, terse_error *error)
{
    p->dynamic = terse_op_input(plan, X_SCALE) != NULL;
    if (!p->dynamic)
        return TERSE_OK;
    int status = check_scalar(plan, X_SCALE, "x_scale", TERSE_FP32, error);
    if (status == TERSE_OK && terse_op_input(plan, X_ZERO_POINT))
        status = check_scalar(plan, X_ZERO_POINT, "x_zero_point", TERSE_UINT8, error);
    if (status == TERSE_OK && terse_op_input(plan, X_ZERO_POINT))
        status = terse_op_expect(plan, COLUMN_SUMS, "column sums", 1u << TERSE_INT32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *sums = terse_op_input(plan, COLUMN_SUMS);
    if (sums && (sums->rank != 1 || sums->dims[0] != p->args.n))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input %d (column sums) has %" PRId64 " numbers, %" PRId64 " are needed", COLUMN_SUMS,
                          terse_tensor_count(sums), p->args.n);
    if (p->args.requantize.to != TERSE_SUMS_TO_F32)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "a scale known at run time goes with an FP32 output only");
    size_t total = 0;
    status = TERSE_RESERVE(&total, &p->multiplier, error, p->args.n);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->bias, error, p->args.n);
    plan->scratch_bytes = total;
    return status;
}

static int plan_qgemm(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "x", 1u << TERSE_UINT8, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "w", 1u << TERSE_INT8, error);
    qgemm_params *p = status == TERSE_OK ? terse_op_params(plan, sizeof *p, error) : NULL;
    if (!p)
        return status ? status : TERSE_RESOURCE_EXHAUSTED;
    const terse_tensor *x = plan->inputs[0], *w = plan->inputs[1];
    if (w->rank != 2 || w->layout != TERSE_LAYOUT_S8_N16K4 || !w->data)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the weights have rank %d and layout %d, a constant matrix in layout %d is needed", w->rank,
                          (int)w->layout, (int)TERSE_LAYOUT_S8_N16K4);
    if (x->rank < 1 || x->dims[x->rank - 1] != w->dims[0]) {
        char tx[128], tw[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shapes %s and %s do not multiply",
                          terse_dims_text(x->dims, x->rank, tx, sizeof tx),
                          terse_dims_text(w->dims, w->rank, tw, sizeof tw));
    }
    int64_t dims[TERSE_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    dims[x->rank - 1] = w->dims[1];
    p->args.m = terse_dims_count(x->dims, x->rank - 1);
    p->args.k = w->dims[0];
    p->args.n = w->dims[1];
    status = terse_quantized_plan(plan, p->args.n, x->rank, dims, &p->args.requantize, error);
    if (status == TERSE_OK)
        status = terse_quantized_tiling(plan, &p->args.tiling, error);
    if (status == TERSE_OK)
        status = plan_dynamic(plan, p, error);
    if (status == TERSE_OK && !plan->kernels->gemm_u8s8)
        status = terse_fail(error, TERSE_UNIMPLEMENTED, "this build has no kernel for it");
    plan->macs = TERSE_PRODUCT(p->args.m, p->args.n, p->args.k);
    return status;
}

/* What the scale and zero point of this call make of multiplier and bias. A scale that is no number gives 0. */
static void complete(const terse_op_call *call, const qgemm_params *p, terse_requantize *to)
{
    const float scale = *(const float *)call->inputs[X_SCALE]->data;
    const terse_tensor *zero = call->n_inputs > X_ZERO_POINT ? call->inputs[X_ZERO_POINT] : NULL;
    const int32_t zero_point = zero ? *(const uint8_t *)zero->data : 0;
    const int32_t *sums = zero ? call->inputs[COLUMN_SUMS]->data : NULL;
    float *multiplier = terse_support_at(call->scratch, p->multiplier);
    int32_t *bias = (int32_t *)(void *)terse_support_at(call->scratch, p->bias);
    for (int64_t i = 0; i < p->args.n; i++) {
        multiplier[i] = (float)((double)scale * (double)to->multiplier[i]);
        const uint32_t from = to->bias ? (uint32_t)to->bias[i] : 0;
        bias[i] = (int32_t)(from - (uint32_t)zero_point * (uint32_t)(sums ? sums[i] : 0));
    }
    to->multiplier = multiplier;
    to->bias = bias;
}

static int run_qgemm(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const qgemm_params *p = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    if (p->args.m == 0 || p->args.n == 0)
        return TERSE_OK;
    terse_gemm_u8s8_args args = p->args;
    args.a = x->data;
    args.lda = x->row_stride;
    args.b = call->inputs[1]->data;
    args.c = y->data;
    args.ldc = y->row_stride;
    args.requantize = terse_quantized_bind(call, &p->args.requantize);
    if (p->dynamic)
        complete(call, p, &args.requantize);
    call->kernels->gemm_u8s8(&args);
    return TERSE_OK;
}

const terse_op_impl terse_op_qgemm = {
    .name = "QGemm",
    .min_inputs = 2,
    .max_inputs = 9,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT | TERSE_OP_IN_PLACE_FOURTH,
    .plan = plan_qgemm,
    .run = run_qgemm,
};
