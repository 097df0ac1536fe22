/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of matrix products: Y = A B gives dA += dY B^T and dB += A^T dY; operands that are broadcast over a batch
 * of matrices get the sum over it. */
#include <string.h>

#include <cblas.h>

#include "compress/train/back.h"

static CBLAS_TRANSPOSE flip(bool transposed)
{
    return transposed ? CblasTrans : CblasNoTrans;
}

/* c [M,N] broadcasts to y: sums the rest. */
static void add_broadcast(const terse_tensor *c, int64_t m, int64_t n, const float *dy, float factor, float *dc)
{
    const int64_t columns = c->rank > 0 ? c->dims[c->rank - 1] : 1;
    const int64_t rows = c->rank > 1 ? c->dims[c->rank - 2] : 1;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            dc[(rows == 1 ? 0 : i) * columns + (columns == 1 ? 0 : j)] += factor * dy[i * n + j];
}

/* Y = alpha op(A) op(B) + beta C. */
void terse_back_gemm(const terse_back *back)
{
    const terse_node *node = back->node;
    const bool ta = terse_node_int(node, "transA", 0) != 0, tb = terse_node_int(node, "transB", 0) != 0;
    const float alpha = (float)terse_node_float(node, "alpha", 1), beta = (float)terse_node_float(node, "beta", 1);
    const terse_tensor *a = back->x[0], *b = back->x[1], *y = back->y[0];
    const int m = (int)y->dims[0], n = (int)y->dims[1], k = (int)a->dims[ta ? 0 : 1];
    const int lda = (int)a->dims[1], ldb = (int)b->dims[1];
    const float *dy = back->dy[0];
    if (!dy || m == 0 || n == 0)
        return;
    if (k > 0 && back->dx[0]) {
        if (ta)
            cblas_sgemm(CblasRowMajor, flip(tb), CblasTrans, k, m, n, alpha, b->data, ldb, dy, n, 1, back->dx[0], lda);
        else
            cblas_sgemm(CblasRowMajor, CblasNoTrans, flip(!tb), m, k, n, alpha, dy, n, b->data, ldb, 1, back->dx[0],
                        lda);
    }
    if (k > 0 && back->dx[1]) {
        if (tb)
            cblas_sgemm(CblasRowMajor, CblasTrans, flip(ta), n, k, m, alpha, dy, n, a->data, lda, 1, back->dx[1], ldb);
        else
            cblas_sgemm(CblasRowMajor, flip(!ta), CblasNoTrans, k, n, m, alpha, a->data, lda, dy, n, 1, back->dx[1],
                        ldb);
    }
    if (back->n_inputs > 2 && back->dx[2])
        add_broadcast(back->x[2], m, n, dy, beta, back->dx[2]);
}

/* The matrix of a batch that belongs to matrix `index` of the output: offsets with broadcasting. `dims` of the output's
 * batch axes. */
static int64_t matrix_of(const terse_tensor *t, const terse_tensor *y, int batch_rank, int64_t index)
{
    int64_t offset = 0, step = 1;
    const int mine = t->rank - 2;
    for (int i = batch_rank - 1; i >= 0; i--) {
        const int64_t at = index % y->dims[i];
        index /= y->dims[i];
        const int axis = i - (batch_rank - mine);
        if (axis < 0)
            continue;
        offset += (t->dims[axis] == 1 ? 0 : at) * step;
        step *= t->dims[axis];
    }
    return offset;
}

/* numpy's matmul: vectors get an axis, batches broadcast. */
void terse_back_matmul(const terse_back *back)
{
    terse_tensor a = *back->x[0], b = *back->x[1], y = *back->y[0];
    const float *dy = back->dy[0];
    if (!dy)
        return;
    if (a.rank == 1)
        a = terse_tensor_view(a.data, a.dtype, 2, (const int64_t[]){1, a.dims[0]});
    if (b.rank == 1)
        b = terse_tensor_view(b.data, b.dtype, 2, (const int64_t[]){b.dims[0], 1});
    int64_t m = a.dims[a.rank - 2], batch = 1;
    const int64_t k = a.dims[a.rank - 1], n = b.dims[b.rank - 1];
    const int batch_rank = (a.rank > b.rank ? a.rank : b.rank) - 2;
    const int64_t total = terse_tensor_count(&y);
    if (total == 0 || k == 0)
        return;
    if (b.rank == 2) /* one matrix for all rows */
        m = total / n;
    else
        batch = total / (m * n);
    for (int64_t i = 0; i < batch; i++) {
        const int64_t at_a = b.rank == 2 ? 0 : matrix_of(&a, &y, batch_rank, i) * m * k;
        const int64_t at_b = b.rank == 2 ? 0 : matrix_of(&b, &y, batch_rank, i) * k * n;
        const float *out = dy + i * m * n;
        if (back->dx[0])
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)k, (int)n, 1, out, (int)n,
                        (const float *)b.data + at_b, (int)n, 1, back->dx[0] + at_a, (int)k);
        if (back->dx[1])
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)k, (int)n, (int)m, 1,
                        (const float *)a.data + at_a, (int)k, out, (int)n, 1, back->dx[1] + at_b, (int)n);
    }
}
