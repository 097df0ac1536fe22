/* SPDX-License-Identifier: Apache-2.0 */
/* QGemm: rows of bytes times a constant matrix. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/quantized.h"
#include "common/ops/sparse.h"
#include "common/ops/support.h"

typedef struct qgemm_params {
    terse_gemm_u8s8_args args;
    terse_quantized_dynamic dynamic;
    bool sparse;
    size_t kernel; /* what a sparse product has of scratch begins there */
} qgemm_params;

/* A matrix is a row of pixels. */
static terse_conv_u8s8_args as_convolution(const terse_gemm_u8s8_args *a)
{
    terse_conv_u8s8_args c = {
        .input = a->a, .in_stride = a->lda, .output = a->c, .out_stride = a->ldc, .requantize = a->requantize};
    TERSE_SPARSE_MATRIX(&c, a->m, a->n, a->k);
    return c;
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
    p->sparse = w->layout == TERSE_LAYOUT_S8_4X1;
    if (w->rank != 2 || (w->layout != TERSE_LAYOUT_S8_N16K4 && !p->sparse) || !w->data)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the weights have rank %d and layout %d, a constant matrix in layout %d or %d is needed",
                          w->rank, (int)w->layout, (int)TERSE_LAYOUT_S8_N16K4, (int)TERSE_LAYOUT_S8_4X1);
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
        status = terse_quantized_dynamic_plan(plan, p->args.n, p->args.requantize.to, &plan->scratch_bytes, &p->dynamic,
                                              error);
    if (status == TERSE_OK && !(p->sparse ? plan->kernels->sparse_u8s8 != NULL : plan->kernels->gemm_u8s8 != NULL))
        status = terse_fail(error, TERSE_UNIMPLEMENTED, "this build has no kernel for it");
    plan->macs = TERSE_PRODUCT(p->args.m, p->args.n, p->args.k);
    if (status == TERSE_OK && p->sparse) {
        const terse_sparse_u8s8_args args = {.conv = as_convolution(&p->args)};
        const size_t bytes = plan->kernels->sparse_u8s8_scratch(&args);
        status = TERSE_RESERVE(&plan->scratch_bytes, &p->kernel, error, (int64_t)(bytes / sizeof(float) + 1));
        plan->macs = terse_sparse_macs(w, p->args.m, plan->macs);
    }
    return status;
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
    args.ahead = call->ahead;
    args.requantize = terse_quantized_bind(call, &p->args.requantize);
    if (p->dynamic.on)
        terse_quantized_complete(call, &p->dynamic, &args.requantize);
    if (!p->sparse) {
        call->kernels->gemm_u8s8(&args);
        return TERSE_OK;
    }
    terse_sparse_u8s8_args sparse = {as_convolution(&args),
                                     terse_sparse_view(TERSE_LAYOUT_S8_4X1, args.n, call->inputs[1]->data)};
    sparse.conv.scratch = terse_support_at(call->scratch, p->kernel);
    call->kernels->sparse_u8s8(&sparse);
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
