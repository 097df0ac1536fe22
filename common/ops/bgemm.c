/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. BGemm: x [...,K] by weights [K,N] in BF16, K even, accumulated in FP32. All axes of x but the last are
 * rows of one product. FP32 x is rounded into scratch. Inputs 2 and 3: bias [N] and a residual like the output, which
 * is what attribute `to` says: "bf16" or "f32". */
#include <inttypes.h>
#include <string.h>

#include "common/ops/support.h"

typedef struct bgemm_params {
    int64_t m, n, k;
    bool rounds, wide;
    terse_activation activation;
} bgemm_params;

static int read_shapes(const terse_op_plan *plan, bgemm_params *p, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "x", 1u << TERSE_FP32 | 1u << TERSE_BF16, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "weights", 1u << TERSE_BF16, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0], *w = plan->inputs[1];
    if (w->layout != TERSE_LAYOUT_BF16_N16K2 || w->rank != 2 || w->dims[0] % 2 != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the weights have rank %d and layout %s, needed are 2, bf16_n16k2 and an even K", w->rank,
                          terse_layout_name(w->layout));
    if (x->rank < 1 || x->dims[x->rank - 1] != w->dims[0]) {
        char tx[128], tw[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shapes %s and %s do not multiply",
                          terse_dims_text(x->dims, x->rank, tx, sizeof tx), terse_dims_text(w->dims, 2, tw, sizeof tw));
    }
    p->m = terse_dims_count(x->dims, x->rank - 1);
    p->k = w->dims[0];
    p->n = w->dims[1];
    p->rounds = x->dtype == TERSE_FP32;
    const char *to = terse_node_text(plan->node, "to", "f32");
    p->wide = strcmp(to, "f32") == 0;
    if (!p->wide && strcmp(to, "bf16") != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute to is '%.40s', allowed are bf16 and f32", to);
    return TERSE_OK;
}

static int check_extras(const terse_op_plan *plan, const bgemm_params *p, terse_error *error)
{
    const terse_tensor *y = &plan->outputs[0];
    const int status = terse_support_bias(plan, 2, "bias", p->n, error);
    return status == TERSE_OK ? terse_support_residual(plan, 3, y->dtype, y->rank, y->dims, error) : status;
}

static int plan_bgemm(terse_op_plan *plan, terse_error *error)
{
    bgemm_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    int status = read_shapes(plan, p, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    int64_t dims[TERSE_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    dims[x->rank - 1] = p->n;
    status = terse_op_output(plan, 0, p->wide ? TERSE_FP32 : TERSE_BF16, x->rank, dims, error);
    if (status == TERSE_OK)
        status = check_extras(plan, p, error);
    if (status == TERSE_OK)
        status = terse_support_activation(plan->node, &p->activation, error);
    size_t total = 0, at = 0;
    if (status == TERSE_OK && p->rounds)
        status = TERSE_RESERVE(&total, &at, error, p->m, p->k / 2);
    plan->scratch_bytes = total;
    plan->macs = TERSE_PRODUCT(p->m, p->n, p->k);
    return status;
}

static int run_bgemm(const terse_op_call *call, terse_error *error)
{
    const bgemm_params *p = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const terse_tensor *bias = call->n_inputs > 2 ? call->inputs[2] : NULL;
    const terse_tensor *residual = call->n_inputs > 3 ? call->inputs[3] : NULL;
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    terse_gemm_bf16_args args = {.m = p->m,
                                 .n = p->n,
                                 .k = p->k,
                                 .a = x->data,
                                 .lda = x->rank > 1 ? x->row_stride : p->k,
                                 .b = call->inputs[1]->data,
                                 .c = y->data,
                                 .ldc = y->row_stride,
                                 .bias = bias ? bias->data : NULL,
                                 .residual = residual ? residual->data : NULL,
                                 .ldr = residual ? residual->row_stride : 0,
                                 .activation = p->activation,
                                 .wide = p->wide};
    if (p->rounds) {
        uint16_t *rows = call->scratch;
        call->kernels->f32_rows_to_bf16(x->data, args.lda, p->m, p->k, rows);
        args.a = rows;
        args.lda = p->k;
    } else if (args.lda % 2 != 0 || (uintptr_t)args.a % 4 != 0) {
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "x is a part of rows that do not keep pairs of BF16");
    }
    call->kernels->gemm_bf16(&args);
    return TERSE_OK;
}

const terse_op_impl terse_op_bgemm = {
    .name = "BGemm",
    .min_inputs = 2,
    .max_inputs = 4,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT | TERSE_OP_IN_PLACE_RESIDUAL,
    .plan = plan_bgemm,
    .run = run_bgemm,
};
