/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. HeadAttention: y[b,t,h,:] = sum over s of softmax_s(scale * q[b,t,h,:] . k[b,s,h,:] + mask[b,h,t,s]) *
 * v[b,s,h,:]. q [B,T,H,D], k [B,S,H,D], v [B,S,H,E], mask broadcasting to [B,H,T,S] with its last axis S, y [B,T,H,E].
 *
 * The heads stay where the projections in front left them: the products read q and write y with the stride of a whole
 * row, k (times scale) and v are packed per head. Scores live in scratch, few enough rows at a time to stay close. Each
 * row of y is one chain of operations of its own, whatever B, T and the number of rows at a time are. */
#include <inttypes.h>
#include <string.h>

#include "common/bytes.h"
#include "common/graph/split.h"
#include "common/ops/support.h"

enum { SCORES = 16 * 1024 }; /* floats at a time */

typedef struct attention_params {
    int64_t b, t, s, h, d, e;
    int64_t rows; /* of scores at a time */
    float scale;
    int64_t mask_step[3]; /* b, h, t: 0 where the mask is broadcast */
    size_t k, v, scores;  /* offsets in scratch, of which each thread has its own */
    size_t scratch_bytes;
} attention_params;

static int read_shapes(const terse_op_plan *plan, attention_params *p, terse_error *error)
{
    static const char *const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) {
        const int status = terse_op_expect(plan, i, names[i], 1u << TERSE_FP32, error);
        if (status != TERSE_OK)
            return status;
        if (plan->inputs[i]->rank != 4)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s has rank %d, needed is 4", names[i],
                              plan->inputs[i]->rank);
    }
    const int64_t *q = plan->inputs[0]->dims, *k = plan->inputs[1]->dims, *v = plan->inputs[2]->dims;
    if (q[0] != k[0] || q[0] != v[0] || q[2] != k[2] || q[2] != v[2] || q[3] != k[3] || k[1] != v[1]) {
        char tq[128], tk[128], tv[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "q %s, k %s and v %s do not go together",
                          terse_dims_text(q, 4, tq, sizeof tq), terse_dims_text(k, 4, tk, sizeof tk),
                          terse_dims_text(v, 4, tv, sizeof tv));
    }
    *p = (attention_params){.b = q[0],
                            .t = q[1],
                            .s = k[1],
                            .h = q[2],
                            .d = q[3],
                            .e = v[3],
                            .scale = (float)terse_node_float(plan->node, "scale", 1.0)};
    return TERSE_OK;
}

static int read_mask(const terse_op_plan *plan, attention_params *p, terse_error *error)
{
    const terse_tensor *mask = terse_op_input(plan, 3);
    if (!mask)
        return TERSE_OK;
    const int status = terse_op_expect(plan, 3, "mask", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const int64_t whole[4] = {p->b, p->h, p->t, p->s};
    bool good = mask->rank >= 1 && mask->rank <= 4;
    int64_t step = 1;
    for (int i = 3, from = mask->rank - 1; good && i >= 0; i--, from--) {
        const int64_t dim = from >= 0 ? mask->dims[from] : 1;
        good = dim == whole[i] || (dim == 1 && i < 3);
        if (i < 3)
            p->mask_step[i] = dim == 1 ? 0 : step;
        step *= dim;
    }
    char text[128], wanted[128];
    return good ? TERSE_OK
                : terse_fail(error, TERSE_INVALID_ARGUMENT, "input 3 (mask) of shape %s does not broadcast to %s",
                             terse_dims_text(mask->dims, mask->rank, text, sizeof text),
                             terse_dims_text(whole, 4, wanted, sizeof wanted));
}

static int plan_attention(terse_op_plan *plan, terse_error *error)
{
    attention_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    int status = read_shapes(plan, p, error);
    if (status == TERSE_OK)
        status = read_mask(plan, p, error);
    if (status == TERSE_OK)
        status = terse_op_output(plan, 0, TERSE_FP32, 4, (int64_t[]){p->b, p->t, p->h, p->e}, error);
    if (status != TERSE_OK)
        return status;
    /* Blocks of about the same size, so that no block is a row or two. */
    const int64_t most = p->s > 0 && SCORES / p->s > 14 ? SCORES / p->s : 14;
    const int64_t blocks = p->t > 0 ? (p->t + most - 1) / most : 1;
    p->rows = (p->t + blocks - 1) / blocks;
    size_t total = 0;
    status = TERSE_RESERVE(&total, &p->k, error, p->d, (p->s + 15) / 16, 16);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->v, error, p->s, (p->e + 15) / 16, 16);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->scores, error, p->rows, p->s);
    p->scratch_bytes = terse_align(total, 64);
    plan->scratch_bytes = (size_t)terse_split_threads(plan->kernels) * p->scratch_bytes;
    plan->macs = TERSE_PRODUCT(p->b, p->t, p->h, p->s, p->d + p->e);
    return status;
}

/* One head of one sample: `mask` at its first row, or NULL. */
static void run_head(const terse_kernels *kernels, const attention_params *p, void *scratch, const float *q,
                     const float *mask, float *y)
{
    const float *k = terse_support_at(scratch, p->k), *v = terse_support_at(scratch, p->v);
    float *scores = terse_support_at(scratch, p->scores);
    for (int64_t first = 0; first < p->t; first += p->rows) {
        const int64_t rows = p->t - first < p->rows ? p->t - first : p->rows;
        kernels->gemm_f32(&(terse_gemm_f32_args){.m = rows,
                                                 .n = p->s,
                                                 .k = p->d,
                                                 .a = q + first * p->h * p->d,
                                                 .lda = p->h * p->d,
                                                 .b = k,
                                                 .c = scores,
                                                 .ldc = p->s,
                                                 .residual = mask ? mask + first * p->mask_step[2] : NULL,
                                                 .ldr = p->mask_step[2]});
        for (int64_t r = 0; r < rows; r++)
            kernels->softmax_f32(scores + r * p->s, scores + r * p->s, p->s);
        kernels->gemm_f32(&(terse_gemm_f32_args){.m = rows,
                                                 .n = p->e,
                                                 .k = p->s,
                                                 .a = scores,
                                                 .lda = p->s,
                                                 .b = v,
                                                 .c = y + first * p->h * p->e,
                                                 .ldc = p->h * p->e});
    }
}

/* Heads first..last-1, numbered through all samples. */
static void run_heads(void *context, const terse_kernels *kernels, int64_t first, int64_t last, int thread)
{
    const terse_op_call *call = context;
    const attention_params *p = call->params;
    const float *q = call->inputs[0]->data, *k = call->inputs[1]->data, *v = call->inputs[2]->data;
    const terse_tensor *mask = call->n_inputs > 3 ? call->inputs[3] : NULL;
    float *y = call->outputs[0].data;
    void *scratch = (char *)call->scratch + (size_t)thread * p->scratch_bytes;
    float *packed_k = terse_support_at(scratch, p->k), *packed_v = terse_support_at(scratch, p->v);
    for (int64_t i = first; i < last; i++) {
        const int64_t b = i / p->h, h = i % p->h, rows = b * p->s;
        kernels->pack_n16_f32(k + (rows * p->h + h) * p->d, 1, p->h * p->d, p->d, p->s, packed_k);
        if (p->scale != 1.0f)
            kernels->mul_f32(packed_k, 1, &p->scale, 0, packed_k, p->d * ((p->s + 15) / 16 * 16));
        kernels->pack_n16_f32(v + (rows * p->h + h) * p->e, p->h * p->e, 1, p->s, p->e, packed_v);
        const float *of_head = mask ? (const float *)mask->data + b * p->mask_step[0] + h * p->mask_step[1] : NULL;
        run_head(kernels, p, scratch, q + (b * p->t * p->h + h) * p->d, of_head, y + (b * p->t * p->h + h) * p->e);
    }
}

static int run_attention(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const attention_params *p = call->params;
    if (terse_tensor_count(&call->outputs[0]) > 0)
        terse_split_for(call->kernels, p->b * p->h, 1, run_heads, (void *)(uintptr_t)call);
    return TERSE_OK;
}

const terse_op_impl terse_op_head_attention = {
    .name = "HeadAttention",
    .min_inputs = 3,
    .max_inputs = 4,
    .min_outputs = 1,
    .max_outputs = 1,
    .plan = plan_attention,
    .run = run_attention,
};
