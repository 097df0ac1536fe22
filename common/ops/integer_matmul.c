/* SPDX-License-Identifier: Apache-2.0 */
/* MatMulInteger and QLinearMatMul: integer.h has the algebra. With one B for all rows, all rows go in one call. */
#include "common/ops/integer.h"

#include <inttypes.h>
#include <string.h>

/* How a zero point or scale lies over the rows of A (columns of B): one for all, one for each of a matrix, or one for
 * each of every matrix. */
typedef enum spread { SPREAD_ONE, SPREAD_MATRIX, SPREAD_ALL } spread;

typedef struct factor {
    int input; /* -1: absent */
    spread spread;
} factor;

typedef struct matmul_params {
    bool requantize;
    int64_t rows, m, n, k; /* rows of one matrix of A, rows of one call */
    int batch_rank;
    int64_t batch[TERSE_MAX_RANK];                          /* the output's batch dims */
    int64_t a_step[TERSE_MAX_RANK], b_step[TERSE_MAX_RANK]; /* matrices to move per step of a batch axis; 0: shared */
    int64_t a_matrices, b_matrices;
    int a, b; /* inputs */
    factor a_zero, b_zero, a_scale, b_scale;
    size_t packed, dense_b, b_sums, bias, dense_a, a_sums, sums; /* offsets in scratch */
} matmul_params;

int terse_integer_scalar(const terse_op_plan *plan, int scale, int zero_point, terse_error *error)
{
    int status = terse_op_expect(plan, scale, "scale", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, zero_point, "zero point", TERSE_TYPES_BYTES, error);
    for (int i = 0; status == TERSE_OK && i < 2; i++) {
        const int64_t n = terse_tensor_count(plan->inputs[i ? zero_point : scale]);
        if (n != 1)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d has %" PRId64 " elements, allowed is 1",
                                i ? zero_point : scale, n);
    }
    return status;
}

/* A zero point or scale of A has one number, M, or A's shape with 1 for K; likewise of B. */
static int read_factor(const terse_op_plan *plan, int input, int operand, bool is_rows, factor *ret_factor,
                       terse_error *error)
{
    const terse_tensor *z = terse_op_input(plan, input), *of = plan->inputs[operand];
    *ret_factor = (factor){.input = z ? input : -1};
    if (!z || terse_tensor_count(z) == 1)
        return TERSE_OK;
    const int axis = is_rows ? of->rank - 2 : of->rank - 1, summed = is_rows ? of->rank - 1 : of->rank - 2;
    if (z->rank == 1 && of->rank > 1 && z->dims[0] == of->dims[axis]) {
        ret_factor->spread = SPREAD_MATRIX;
        return TERSE_OK;
    }
    bool fits = z->rank == of->rank && of->rank > 1;
    for (int i = 0; fits && i < z->rank; i++)
        fits = z->dims[i] == (i == summed ? 1 : of->dims[i]);
    ret_factor->spread = SPREAD_ALL;
    if (fits)
        return TERSE_OK;
    char text[128], wanted[128];
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d has shape %s, does not fit the %s of shape %s", input,
                      terse_dims_text(z->dims, z->rank, text, sizeof text), is_rows ? "rows" : "columns",
                      terse_dims_text(of->dims, of->rank, wanted, sizeof wanted));
}

static int64_t factor_index(const factor *f, int64_t matrix, int64_t per_matrix, int64_t i)
{
    return f->spread == SPREAD_ONE ? 0 : f->spread == SPREAD_MATRIX ? i % per_matrix : matrix * per_matrix + i;
}

static int32_t zero_at(const terse_op_call *call, const factor *f, int64_t matrix, int64_t per_matrix, int64_t i)
{
    return f->input < 0 ? 0 : terse_integer_byte(call->inputs[f->input], factor_index(f, matrix, per_matrix, i));
}

static double scale_at(const terse_op_call *call, const factor *f, int64_t matrix, int64_t per_matrix, int64_t i)
{
    return (double)((const float *)call->inputs[f->input]->data)[factor_index(f, matrix, per_matrix, i)];
}

/* The shapes of the operands as matrices, and of the output. */
static int read_shapes(const terse_op_plan *plan, matmul_params *p, int64_t *ret_dims, int *ret_rank,
                       terse_error *error)
{
    int status = terse_op_expect(plan, p->a, "A", TERSE_TYPES_BYTES, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, p->b, "B", TERSE_TYPES_BYTES, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *a = plan->inputs[p->a], *b = plan->inputs[p->b];
    const int rank_a = a->rank - 2, rank_b = b->rank - 2; /* -1: a vector */
    const int64_t k = a->rank ? a->dims[a->rank - 1] : -1;
    if (a->rank < 1 || b->rank < 1 || k != b->dims[rank_b < 0 ? 0 : rank_b]) {
        char ta[128], tb[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shapes %s and %s do not multiply",
                          terse_dims_text(a->dims, a->rank, ta, sizeof ta),
                          terse_dims_text(b->dims, b->rank, tb, sizeof tb));
    }
    p->k = k;
    p->m = p->rows = rank_a < 0 ? 1 : a->dims[rank_a];
    p->n = rank_b < 0 ? 1 : b->dims[rank_b + 1];
    status = terse_op_broadcast(a->dims, rank_a < 0 ? 0 : rank_a, b->dims, rank_b < 0 ? 0 : rank_b, p->batch,
                                &p->batch_rank, error);
    if (status != TERSE_OK)
        return status;
    int64_t *const matrices[] = {&p->a_matrices, &p->b_matrices};
    for (int o = 0; o < 2; o++) {
        const terse_tensor *x = o ? b : a;
        int64_t step = 1, *steps = o ? p->b_step : p->a_step;
        for (int i = p->batch_rank - 1, from = x->rank - 3; i >= 0; i--, from--) {
            steps[i] = from >= 0 && x->dims[from] != 1 ? step : 0;
            step *= from >= 0 ? x->dims[from] : 1;
        }
        *matrices[o] = step;
    }
    *ret_rank = p->batch_rank;
    memcpy(ret_dims, p->batch, sizeof p->batch);
    if (rank_a >= 0)
        ret_dims[(*ret_rank)++] = p->m;
    if (rank_b >= 0)
        ret_dims[(*ret_rank)++] = p->n;
    return TERSE_OK;
}

static int plan_scratch(terse_op_plan *plan, matmul_params *p, terse_error *error)
{
    size_t total = 0;
    const int64_t columns = (p->n + 15) / 16 * 16, i32 = sizeof(int32_t);
    int status = terse_integer_reserve(&total, columns, (p->k + 3) / 4 * 4, &p->packed, error);
    if (status == TERSE_OK && plan->inputs[p->b]->dtype == TERSE_UINT8)
        status = terse_integer_reserve(&total, p->k, p->n, &p->dense_b, error);
    if (status == TERSE_OK)
        status = terse_integer_reserve(&total, p->n, i32, &p->b_sums, error);
    if (status == TERSE_OK)
        status = terse_integer_reserve(&total, p->n, i32, &p->bias, error);
    if (status == TERSE_OK && plan->inputs[p->a]->dtype == TERSE_INT8)
        status = terse_integer_reserve(&total, p->m, p->k, &p->dense_a, error);
    if (status == TERSE_OK)
        status = terse_integer_reserve(&total, p->m, i32, &p->a_sums, error);
    if (status == TERSE_OK && p->requantize)
        status =
            terse_integer_reserve(&total, p->m, p->n > TERSE_MAX_TENSOR_BYTES / i32 ? -1 : p->n * i32, &p->sums, error);
    plan->scratch_bytes = total;
    return status;
}

static int plan_product(terse_op_plan *plan, matmul_params *p, terse_dtype dtype, terse_error *error)
{
    int64_t dims[TERSE_MAX_RANK];
    int rank = 0;
    int status = read_shapes(plan, p, dims, &rank, error);
    if (status == TERSE_OK && terse_op_input(plan, p->a_zero.input))
        status = terse_op_same(plan, p->a_zero.input, "zero point", p->a, error);
    if (status == TERSE_OK && terse_op_input(plan, p->b_zero.input))
        status = terse_op_same(plan, p->b_zero.input, "zero point", p->b, error);
    if (status == TERSE_OK)
        status = read_factor(plan, p->a_zero.input, p->a, true, &p->a_zero, error);
    if (status == TERSE_OK)
        status = read_factor(plan, p->b_zero.input, p->b, false, &p->b_zero, error);
    if (status == TERSE_OK)
        status = terse_op_output(plan, 0, dtype, rank, dims, error);
    if (status != TERSE_OK)
        return status;
    const int64_t batches = terse_dims_count(p->batch, p->batch_rank);
    plan->macs = TERSE_PRODUCT(batches, p->m, p->n, p->k);
    if (batches > 0 && p->b_matrices == 1 && p->a_matrices == batches) { /* all matrices of A are rows of one */
        p->m *= batches;
        p->batch_rank = 0;
    }
    return plan_scratch(plan, p, error);
}

static int plan_matmul_integer(terse_op_plan *plan, terse_error *error)
{
    matmul_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    *p = (matmul_params){.a = 0, .b = 1, .a_zero = {.input = 2}, .b_zero = {.input = 3}};
    return plan_product(plan, p, TERSE_INT32, error);
}

static int plan_qlinear_matmul(terse_op_plan *plan, terse_error *error)
{
    matmul_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    *p = (matmul_params){.requantize = true, .a = 0, .b = 3, .a_zero = {.input = 2}, .b_zero = {.input = 5}};
    int status = terse_integer_scalar(plan, 6, 7, error);
    if (status == TERSE_OK)
        status = plan_product(plan, p, plan->inputs[7]->dtype, error);
    for (int i = 1; status == TERSE_OK && i <= 4; i += 3) {
        status = terse_op_expect(plan, i, "scale", 1u << TERSE_FP32, error);
        if (status == TERSE_OK)
            status = read_factor(plan, i, i - 1, i == 1, i == 1 ? &p->a_scale : &p->b_scale, error);
    }
    return status;
}

/* Where the walk over the batch axes stands: matrices of A and B. */
typedef struct position {
    int64_t a, b;
} position;

static void pack_b(const terse_op_call *call, const matmul_params *p, int64_t matrix)
{
    const terse_tensor *b = call->inputs[p->b];
    const int64_t bytes = p->k * p->n;
    const uint8_t *from = (const uint8_t *)b->data + matrix * bytes;
    char *scratch = call->scratch;
    if (b->dtype == TERSE_UINT8) {
        terse_integer_copy(from, 0x80, (uint8_t *)scratch + p->dense_b, bytes);
        from = (const uint8_t *)scratch + p->dense_b;
    }
    call->kernels->pack_n16k4_s8((const int8_t *)from, p->n, 1, p->k, p->n, (int8_t *)scratch + p->packed,
                                 (void *)(scratch + p->b_sums));
}

/* c -= zero point of B's column * sum of A's row: only where B has such. */
static void correct_rows(const terse_op_call *call, const matmul_params *p, position at, const uint8_t *a, int32_t *c)
{
    const int32_t lowered = call->inputs[p->b]->dtype == TERSE_UINT8 ? 128 : 0;
    int32_t *zeros = (void *)((char *)call->scratch + p->bias); /* read by the product, free again */
    bool any = false;
    for (int64_t j = 0; j < p->n; j++) {
        zeros[j] = zero_at(call, &p->b_zero, at.b, p->n, j) - lowered;
        any = any || zeros[j] != 0;
    }
    for (int64_t i = 0; any && i < p->m; i++) {
        uint32_t sum = 0;
        for (int64_t k = 0; k < p->k; k++)
            sum += a[i * p->k + k];
        for (int64_t j = 0; j < p->n; j++)
            c[i * p->n + j] = (int32_t)((uint32_t)c[i * p->n + j] - (uint32_t)zeros[j] * sum);
    }
}

/* bias = -za * (sum of the column - K * zb) for a zero point that is one for all rows. */
static void set_bias(const terse_op_call *call, const matmul_params *p, position at, int32_t a_zero, int32_t *bias)
{
    const int32_t lowered = call->inputs[p->b]->dtype == TERSE_UINT8 ? 128 : 0;
    const int32_t *sums = (const void *)((const char *)call->scratch + p->b_sums);
    for (int64_t j = 0; j < p->n; j++) {
        const uint32_t zero = (uint32_t)(zero_at(call, &p->b_zero, at.b, p->n, j) - lowered);
        bias[j] = (int32_t)((uint32_t)-a_zero * ((uint32_t)sums[j] - (uint32_t)p->k * zero));
    }
}

static void product(const terse_op_call *call, const matmul_params *p, position at, int32_t *c)
{
    if (p->k == 0) {
        memset(c, 0, (size_t)(p->m * p->n) * sizeof *c);
        return;
    }
    const terse_tensor *a = call->inputs[p->a];
    const int32_t raised = a->dtype == TERSE_INT8 ? 128 : 0;
    char *scratch = call->scratch;
    int32_t *bias = (void *)(scratch + p->bias);
    const uint8_t *rows = (const uint8_t *)a->data + at.a * p->rows * p->k;
    if (raised) {
        terse_integer_copy(rows, 0x80, (uint8_t *)scratch + p->dense_a, p->m * p->k);
        rows = (const uint8_t *)scratch + p->dense_a;
    }
    const bool one = p->a_zero.spread == SPREAD_ONE;
    const int64_t step = one ? p->m : 1; /* a zero point for each row: row by row */
    for (int64_t i = 0; i < p->m; i += step) {
        set_bias(call, p, at, zero_at(call, &p->a_zero, at.a, p->rows, i) + raised, bias);
        call->kernels->gemm_u8s8(&(terse_gemm_u8s8_args){.m = step,
                                                         .n = p->n,
                                                         .k = p->k,
                                                         .a = rows + i * p->k,
                                                         .lda = p->k,
                                                         .b = (const int8_t *)scratch + p->packed,
                                                         .c = c + i * p->n,
                                                         .ldc = p->n,
                                                         .requantize = {.to = TERSE_SUMS_TO_S32, .bias = bias}});
    }
    correct_rows(call, p, at, rows, c);
}

static void requantize(const terse_op_call *call, const matmul_params *p, position at, const int32_t *sums, uint8_t *y)
{
    const double y_scale = (double)*(const float *)call->inputs[6]->data;
    const int32_t zero = terse_integer_byte(call->inputs[7], 0);
    const bool is_signed = call->inputs[7]->dtype == TERSE_INT8;
    for (int64_t i = 0; i < p->m; i++) {
        const double a_scale = scale_at(call, &p->a_scale, at.a, p->rows, i);
        for (int64_t j = 0; j < p->n; j++) {
            const double multiplier = a_scale * scale_at(call, &p->b_scale, at.b, p->n, j) / y_scale;
            y[i * p->n + j] = terse_integer_round((double)sums[i * p->n + j] * multiplier, zero, is_signed);
        }
    }
}

static int run_product(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const matmul_params *p = call->params;
    const terse_tensor *y = &call->outputs[0];
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    int64_t index[TERSE_MAX_RANK] = {0}, last_b = -1;
    position at = {0, 0};
    const int64_t batches = terse_dims_count(p->batch, p->batch_rank);
    for (int64_t i = 0; i < batches; i++) {
        int32_t *sums =
            p->requantize ? (void *)((char *)call->scratch + p->sums) : (int32_t *)y->data + i * p->m * p->n;
        if (at.b != last_b)
            pack_b(call, p, at.b);
        last_b = at.b;
        product(call, p, at, sums);
        if (p->requantize)
            requantize(call, p, at, sums, (uint8_t *)y->data + i * p->m * p->n);
        for (int axis = p->batch_rank - 1; axis >= 0; axis--) {
            at.a += p->a_step[axis];
            at.b += p->b_step[axis];
            if (++index[axis] < p->batch[axis])
                break;
            at.a -= p->a_step[axis] * p->batch[axis];
            at.b -= p->b_step[axis] * p->batch[axis];
            index[axis] = 0;
        }
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_matmul_integer = {
    .name = "MatMulInteger",
    .min_inputs = 2,
    .max_inputs = 4,
    .min_outputs = 1,
    .max_outputs = 1,
    .plan = plan_matmul_integer,
    .run = run_product,
};

const terse_op_impl terse_op_qlinear_matmul = {
    .name = "QLinearMatMul",
    .min_inputs = 8,
    .max_inputs = 8,
    .min_outputs = 1,
    .max_outputs = 1,
    .plan = plan_qlinear_matmul,
    .run = run_product,
};
