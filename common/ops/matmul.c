/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. As gemm.c: kernels->gemm_f32 does the work. With one B for all rows (B of rank 2, or all its batch dims
 * 1) B is packed once and all rows of A go in one call. Otherwise matrix by matrix, B packed anew whenever it is
 * another one than before. Integers wrap. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/sparse.h"
#include "common/ops/support.h"

typedef struct matmul_params {
    terse_dtype dtype;
    int64_t m, n, k;
    int batch_rank;
    int64_t batch[TERSE_MAX_RANK];                          /* the output's batch dims */
    int64_t a_step[TERSE_MAX_RANK], b_step[TERSE_MAX_RANK]; /* matrices to move per step of a batch axis; 0: shared */
    bool packed, sparse, a_vector, b_vector;
    terse_activation activation;
    size_t b, kernel; /* offsets in scratch */
} matmul_params;

static int read_operands(const terse_op_plan *plan, matmul_params *p, int64_t *a_dims, int *a_rank, int64_t *b_dims,
                         int *b_rank, terse_error *error)
{
    const unsigned allowed = 1u << TERSE_FP32 | 1u << TERSE_INT32 | 1u << TERSE_INT64;
    int status = terse_op_expect(plan, 0, "A", allowed, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "B", allowed, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *a = plan->inputs[0], *b = plan->inputs[1];
    if (a->dtype != b->dtype)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "A is %s and B is %s", terse_dtype_name(a->dtype),
                          terse_dtype_name(b->dtype));
    p->dtype = a->dtype;
    p->sparse = b->layout == TERSE_LAYOUT_F32_4X1;
    p->packed = b->layout == TERSE_LAYOUT_F32_N16 || p->sparse;
    if ((b->layout != TERSE_LAYOUT_PLAIN && !p->packed) || (p->packed && b->rank != 2))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "B is in layout %d with rank %d", (int)b->layout, b->rank);
    p->a_vector = a->rank == 1;
    p->b_vector = b->rank == 1;
    *a_rank = p->a_vector ? 2 : a->rank;
    *b_rank = p->b_vector ? 2 : b->rank;
    memcpy(a_dims, p->a_vector ? (int64_t[TERSE_MAX_RANK]){1, a->dims[0]} : a->dims, sizeof a->dims);
    memcpy(b_dims, p->b_vector ? (int64_t[TERSE_MAX_RANK]){b->dims[0], 1} : b->dims, sizeof b->dims);
    if (a->rank < 1 || b->rank < 1 || a_dims[*a_rank - 1] != b_dims[*b_rank - 2]) {
        char ta[128], tb[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shapes %s and %s do not multiply",
                          terse_dims_text(a->dims, a->rank, ta, sizeof ta),
                          terse_dims_text(b->dims, b->rank, tb, sizeof tb));
    }
    p->m = a_dims[*a_rank - 2];
    p->k = a_dims[*a_rank - 1];
    p->n = b_dims[*b_rank - 1];
    return TERSE_OK;
}

/* How many matrices to move per step of each of the output's batch axes. */
static void set_steps(const int64_t *dims, int rank, int batch_rank, int64_t *ret_steps)
{
    int64_t step = 1;
    for (int i = batch_rank - 1, from = rank - 3; i >= 0; i--, from--) {
        ret_steps[i] = from >= 0 && dims[from] != 1 ? step : 0;
        step *= from >= 0 ? dims[from] : 1;
    }
}

/* Batch axes over which B does not move are rows of A: the trailing ones when A moves over all of them. */
static void merge_rows(matmul_params *p)
{
    int64_t rows = p->m;
    for (int i = p->batch_rank - 1; i >= 0; i--) {
        if (p->b_step[i] != 0 || (p->batch[i] != 1 && p->a_step[i] == 0))
            return;
        rows *= p->batch[i];
        p->m = rows;
        p->batch_rank = i;
        for (int j = 0; j < i; j++) /* A's and the output's matrices have grown by that factor */
            p->a_step[j] /= p->batch[i] ? p->batch[i] : 1;
    }
}

static int check_extras(const terse_op_plan *plan, matmul_params *p, const int64_t *dims, int rank, terse_error *error)
{
    const bool extras = terse_op_input(plan, 2) || terse_op_input(plan, 3);
    int status = terse_support_bias(plan, 2, "bias", p->n, error);
    if (status == TERSE_OK)
        status = terse_support_residual(plan, 3, TERSE_FP32, rank, dims, error);
    if (status == TERSE_OK)
        status = terse_support_activation(plan->node, &p->activation, error);
    if (status == TERSE_OK && p->dtype != TERSE_FP32 && (extras || p->activation.kind != TERSE_ACT_NONE))
        return terse_fail(error, TERSE_UNIMPLEMENTED, "bias, residual and activation need FP32, A is %s",
                          terse_dtype_name(p->dtype));
    return status;
}

static int plan_matmul(terse_op_plan *plan, terse_error *error)
{
    matmul_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    int64_t a_dims[TERSE_MAX_RANK], b_dims[TERSE_MAX_RANK], dims[TERSE_MAX_RANK];
    int a_rank = 0, b_rank = 0;
    int status = read_operands(plan, p, a_dims, &a_rank, b_dims, &b_rank, error);
    if (status == TERSE_OK)
        status = terse_op_broadcast(a_dims, a_rank - 2, b_dims, b_rank - 2, p->batch, &p->batch_rank, error);
    if (status != TERSE_OK)
        return status;
    set_steps(a_dims, a_rank, p->batch_rank, p->a_step);
    set_steps(b_dims, b_rank, p->batch_rank, p->b_step);
    int rank = p->batch_rank;
    memcpy(dims, p->batch, sizeof dims);
    if (!p->a_vector)
        dims[rank++] = p->m;
    if (!p->b_vector)
        dims[rank++] = p->n;
    status = terse_op_output(plan, 0, p->dtype, rank, dims, error);
    if (status == TERSE_OK)
        status = check_extras(plan, p, dims, rank, error);
    size_t total = 0;
    if (status == TERSE_OK && !p->packed && p->dtype == TERSE_FP32)
        status = TERSE_RESERVE(&total, &p->b, error, p->k, (p->n + 15) / 16, 16);
    if (status != TERSE_OK)
        return status;
    const int64_t batches = terse_dims_count(p->batch, p->batch_rank);
    plan->macs = TERSE_PRODUCT(batches, p->m, p->n, p->k);
    if (p->sparse)
        plan->macs = terse_sparse_macs(plan->inputs[1], TERSE_PRODUCT(batches, p->m), plan->macs);
    if (batches > 0)
        merge_rows(p);
    if (p->sparse)
        status = terse_sparse_reserve(plan->kernels, p->m, p->n, p->k, &total, &p->kernel, error);
    plan->scratch_bytes = total;
    return status;
}

/* One product C = A * B; strides in elements. */
typedef struct product {
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
} product;

#define INTEGER_PRODUCT(name, type, unsigned_type)                                                                     \
    static void name(const matmul_params *p, const product *x)                                                         \
    {                                                                                                                  \
        for (int64_t i = 0; i < p->m; i++) {                                                                           \
            const type *a = (const type *)x->a + i * x->lda;                                                           \
            type *c = (type *)x->c + i * x->ldc;                                                                       \
            memset(c, 0, (size_t)p->n * sizeof *c);                                                                    \
            for (int64_t k = 0; k < p->k; k++) {                                                                       \
                const type *b = (const type *)x->b + k * x->ldb;                                                       \
                for (int64_t j = 0; j < p->n; j++)                                                                     \
                    c[j] = (type)((unsigned_type)c[j] + (unsigned_type)a[k] * (unsigned_type)b[j]);                    \
            }                                                                                                          \
        }                                                                                                              \
    }
INTEGER_PRODUCT(product_i32, int32_t, uint32_t)
INTEGER_PRODUCT(product_i64, int64_t, uint64_t)

static void product_f32(const terse_op_call *call, const matmul_params *p, const product *x, bool same_b,
                        const float *residual)
{
    const terse_tensor *bias = call->n_inputs > 2 ? call->inputs[2] : NULL;
    float *packed = terse_support_at(call->scratch, p->b);
    if (!p->packed && !same_b)
        call->kernels->pack_n16_f32(x->b, x->ldb, 1, p->k, p->n, packed);
    const terse_gemm_f32_args args = {.m = p->m,
                                      .n = p->n,
                                      .k = p->k,
                                      .a = x->a,
                                      .lda = x->lda,
                                      .b = p->packed ? x->b : packed,
                                      .c = x->c,
                                      .ldc = x->ldc,
                                      .bias = bias ? bias->data : NULL,
                                      .residual = residual,
                                      .ldr = x->ldc,
                                      .activation = p->activation};
    if (p->sparse)
        terse_sparse_multiply(call->kernels, &args, terse_support_at(call->scratch, p->kernel));
    else
        call->kernels->gemm_f32(&args);
}

static int64_t row_stride(const terse_tensor *tensor, int64_t width, bool one_row)
{
    return one_row ? width : tensor->row_stride;
}

static int run_matmul(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const matmul_params *p = call->params;
    const terse_tensor *a = call->inputs[0], *b = call->inputs[1], *y = &call->outputs[0];
    const terse_tensor *residual = call->n_inputs > 3 ? call->inputs[3] : NULL;
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    const size_t size = terse_dtype_size(p->dtype);
    product x = {.lda = row_stride(a, p->k, p->a_vector), .ldb = row_stride(b, 1, p->b_vector), .ldc = p->n};
    int64_t at[TERSE_MAX_RANK] = {0}, a_index = 0, b_index = 0, last_b = -1;
    const int64_t batches = terse_dims_count(p->batch, p->batch_rank);
    for (int64_t i = 0; i < batches; i++) {
        x.a = (const char *)a->data + (size_t)(a_index * p->m * x.lda) * size;
        x.b = (const char *)b->data + (size_t)(b_index * p->k * x.ldb) * size;
        x.c = (char *)y->data + (size_t)(i * p->m * x.ldc) * size;
        if (p->dtype == TERSE_INT32)
            product_i32(p, &x);
        else if (p->dtype == TERSE_INT64)
            product_i64(p, &x);
        else
            product_f32(call, p, &x, b_index == last_b,
                        residual ? (const float *)residual->data + i * p->m * x.ldc : NULL);
        last_b = b_index;
        for (int axis = p->batch_rank - 1; axis >= 0; axis--) {
            a_index += p->a_step[axis];
            b_index += p->b_step[axis];
            if (++at[axis] < p->batch[axis])
                break;
            a_index -= p->a_step[axis] * p->batch[axis];
            b_index -= p->b_step[axis] * p->batch[axis];
            at[axis] = 0;
        }
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_matmul = {
    .name = "MatMul",
    .min_inputs = 2,
    .max_inputs = 4,
    .min_outputs = 1,
    .max_outputs = 1,
    .flags = TERSE_OP_IN_PLACE_RESIDUAL,
    .plan = plan_matmul,
    .run = run_matmul,
};
