/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Gemm and MatMul end in kernels->gemm_f32: one FMA chain over k per output element, so a row's bits
 * never depend on how many rows there are. Whatever is not in the kernel's form is brought into it in scratch: B packed
 * (times alpha), A turned when transA is set. C becomes the bias when it is the same for every row; else beta * C is
 * laid into the output first and added by the kernel as its residual. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/sparse.h"
#include "common/ops/support.h"

typedef struct gemm_params {
    int64_t m, n, k;
    float alpha, beta;
    bool trans_a, trans_b, packed, sparse, row_bias;
    terse_activation activation;
    size_t b, a, bias, kernel; /* offsets in scratch */
} gemm_params;

static int check_c(const terse_op_plan *plan, gemm_params *g, terse_error *error)
{
    const terse_tensor *c = terse_op_input(plan, 2);
    if (!c)
        return TERSE_OK;
    const int status = terse_op_expect(plan, 2, "C", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const int64_t columns = c->rank > 0 ? c->dims[c->rank - 1] : 1, rows = c->rank > 1 ? c->dims[0] : 1;
    if (c->rank > 2 || (columns != 1 && columns != g->n) || (rows != 1 && rows != g->m)) {
        char text[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input 2 (C) of shape %s does not broadcast to [%" PRId64 ",%" PRId64 "]",
                          terse_dims_text(c->dims, c->rank, text, sizeof text), g->m, g->n);
    }
    /* Asked of the rank, not of the size, so that a row's bits are the same when there is one row only. */
    g->row_bias = c->rank < 2 || (rows == 1 && c->data);
    return TERSE_OK;
}

static int read_shapes(const terse_op_plan *plan, gemm_params *g, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "A", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "B", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *a = plan->inputs[0], *b = plan->inputs[1];
    if (a->rank != 2 || b->rank != 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "A and B have rank %d and %d, both need 2", a->rank, b->rank);
    g->trans_a = terse_node_int(plan->node, "transA", 0) != 0;
    g->trans_b = terse_node_int(plan->node, "transB", 0) != 0;
    g->alpha = (float)terse_node_float(plan->node, "alpha", 1);
    g->beta = (float)terse_node_float(plan->node, "beta", 1);
    g->m = a->dims[g->trans_a];
    g->k = a->dims[!g->trans_a];
    g->n = b->dims[!g->trans_b];
    g->sparse = b->layout == TERSE_LAYOUT_F32_4X1;
    g->packed = b->layout == TERSE_LAYOUT_F32_N16 || g->sparse;
    if (b->layout != TERSE_LAYOUT_PLAIN && !g->packed)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "B is in layout %d, allowed are %d, %d and %d", (int)b->layout,
                          (int)TERSE_LAYOUT_PLAIN, (int)TERSE_LAYOUT_F32_N16, (int)TERSE_LAYOUT_F32_4X1);
    if (g->packed && (g->trans_a || g->trans_b || g->alpha != 1 || g->beta != 1))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "a packed B needs alpha = beta = 1 and no transposition");
    if (b->dims[g->trans_b] != g->k) {
        char ta[128], tb[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shapes %s and %s (transA %d, transB %d) do not multiply",
                          terse_dims_text(a->dims, 2, ta, sizeof ta), terse_dims_text(b->dims, 2, tb, sizeof tb),
                          g->trans_a, g->trans_b);
    }
    return TERSE_OK;
}

static int plan_gemm(terse_op_plan *plan, terse_error *error)
{
    gemm_params *g = terse_op_params(plan, sizeof *g, error);
    if (!g)
        return TERSE_RESOURCE_EXHAUSTED;
    int status = read_shapes(plan, g, error);
    if (status == TERSE_OK)
        status = check_c(plan, g, error);
    if (status == TERSE_OK)
        status = terse_support_residual(plan, 3, TERSE_FP32, 2, (int64_t[]){g->m, g->n}, error);
    if (status == TERSE_OK)
        status = terse_support_activation(plan->node, &g->activation, error);
    if (status == TERSE_OK)
        status = terse_op_output(plan, 0, TERSE_FP32, 2, (int64_t[]){g->m, g->n}, error);
    size_t total = 0;
    if (status == TERSE_OK && !g->packed)
        status = TERSE_RESERVE(&total, &g->b, error, g->k, (g->n + 15) / 16, 16);
    if (status == TERSE_OK && g->trans_a)
        status = TERSE_RESERVE(&total, &g->a, error, g->m, g->k);
    if (status == TERSE_OK && g->row_bias)
        status = TERSE_RESERVE(&total, &g->bias, error, g->n);
    if (status == TERSE_OK && g->sparse)
        status = terse_sparse_reserve(plan->kernels, g->m, g->n, g->k, &total, &g->kernel, error);
    plan->scratch_bytes = total;
    plan->macs = TERSE_PRODUCT(g->m, g->n, g->k);
    if (g->sparse)
        plan->macs = terse_sparse_macs(plan->inputs[1], g->m, plan->macs);
    return status;
}

static const float *load_b(const terse_op_call *call, const gemm_params *g)
{
    const terse_tensor *b = call->inputs[1];
    if (g->packed)
        return b->data;
    float *packed = terse_support_at(call->scratch, g->b);
    call->kernels->pack_n16_f32(b->data, g->trans_b ? 1 : b->row_stride, g->trans_b ? b->row_stride : 1, g->k, g->n,
                                packed);
    if (g->alpha != 1)
        call->kernels->mul_f32(packed, 1, &g->alpha, 0, packed, g->k * ((g->n + 15) / 16 * 16));
    return packed;
}

/* C as N floats, times beta. */
static const float *load_bias(const terse_op_call *call, const gemm_params *g, const terse_tensor *c)
{
    const int64_t columns = c->rank > 0 ? c->dims[c->rank - 1] : 1;
    if (columns == g->n && g->beta == 1)
        return c->data;
    float *bias = terse_support_at(call->scratch, g->bias);
    call->kernels->mul_f32(c->data, columns == g->n ? 1 : 0, &g->beta, 0, bias, g->n);
    return bias;
}

/* beta * C (+ residual), laid out over the output. */
static void spread_c(const terse_op_call *call, const gemm_params *g, const terse_tensor *c,
                     const terse_tensor *residual)
{
    const terse_tensor *y = &call->outputs[0];
    for (int64_t i = 0; i < g->m; i++) {
        float *row = (float *)y->data + i * y->row_stride;
        const float *from = (const float *)c->data + (c->dims[0] == 1 ? 0 : i * c->row_stride);
        call->kernels->mul_f32(from, c->dims[1] == g->n ? 1 : 0, &g->beta, 0, row, g->n);
        if (residual)
            call->kernels->add_f32(row, 1, (const float *)residual->data + i * residual->row_stride, 1, row, g->n);
    }
}

static int run_gemm(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const gemm_params *g = call->params;
    const terse_tensor *a = call->inputs[0], *y = &call->outputs[0];
    const terse_tensor *c = call->n_inputs > 2 ? call->inputs[2] : NULL;
    const terse_tensor *residual = call->n_inputs > 3 ? call->inputs[3] : NULL;
    if (g->m == 0 || g->n == 0)
        return TERSE_OK;
    terse_gemm_f32_args args = {.m = g->m,
                                .n = g->n,
                                .k = g->k,
                                .a = a->data,
                                .lda = a->row_stride,
                                .b = load_b(call, g),
                                .c = y->data,
                                .ldc = y->row_stride,
                                .activation = g->activation};
    if (g->trans_a) {
        float *turned = terse_support_at(call->scratch, g->a);
        call->kernels->transpose_32(a->data, a->row_stride, (uint32_t *)(void *)turned, g->k, g->k, g->m);
        args.a = turned;
        args.lda = g->k;
    }
    if (residual) {
        args.residual = residual->data;
        args.ldr = residual->row_stride;
    }
    if (c && g->beta != 0 && g->row_bias) {
        args.bias = load_bias(call, g, c);
    } else if (c && g->beta != 0) {
        spread_c(call, g, c, residual);
        args.residual = y->data;
        args.ldr = y->row_stride;
    }
    if (g->sparse)
        terse_sparse_multiply(call->kernels, &args, terse_support_at(call->scratch, g->kernel));
    else
        call->kernels->gemm_f32(&args);
    return TERSE_OK;
}

const terse_op_impl terse_op_gemm = {
    .name = "Gemm",
    .min_inputs = 2,
    .max_inputs = 4,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,
    .plan = plan_gemm,
    .run = run_gemm,
};
