/* SPDX-License-Identifier: Apache-2.0 */
/* macs.c: what a node costs, in multiply-accumulates, from shapes alone. */
#include "common/graph/plan.h"
#include "common/sparse.h"

static int64_t times(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

/* Weights of one output (Conv) or input (ConvTranspose) channel: dims[1..] of ONNX's weight shape. */
static int64_t filter_size(const terse_tensor *weights)
{
    return terse_dims_count(weights->dims + 1, weights->rank - 1);
}

static int64_t dense_macs(const terse_node *node, const terse_tensor *const *inputs, int n_inputs,
                          const terse_tensor *output)
{
    if (n_inputs < 2 || !inputs[0] || !inputs[1])
        return 0;
    const terse_tensor *x = inputs[0], *w = inputs[1];
    switch (node->op) {
    case TERSE_OP_CONV:
    case TERSE_OP_QCONV:
    case TERSE_OP_CONV_INTEGER:
        return w->rank < 2 ? 0 : times(terse_tensor_count(output), filter_size(w));
    case TERSE_OP_BCONV: /* its weights may have a channel of zeros more than x */
        if (w->rank < 3 || x->rank != w->rank)
            return 0;
        return times(times(terse_tensor_count(output), w->dims[1] == 1 ? 1 : x->dims[x->rank - 1]),
                     terse_dims_count(w->dims + 2, w->rank - 2));
    case TERSE_OP_CONV_TRANSPOSE:
        return w->rank < 2 ? 0 : times(terse_tensor_count(x), filter_size(w));
    case TERSE_OP_GEMM:
        return x->rank != 2 ? 0 : times(terse_tensor_count(output), x->dims[terse_node_int(node, "transA", 0) ? 0 : 1]);
    case TERSE_OP_MATMUL:
    case TERSE_OP_WGEMM:
    case TERSE_OP_BGEMM:
    case TERSE_OP_MATMUL_INTEGER:
    case TERSE_OP_QLINEAR_MATMUL:
    case TERSE_OP_QGEMM:
        return x->rank < 1 ? 0 : times(terse_tensor_count(output), x->dims[x->rank - 1]);
    case TERSE_OP_HEAD_ATTENTION: { /* q [B,T,H,D], k [B,S,H,D], y [B,T,H,E] */
        if (x->rank != 4 || w->rank != 4 || output->rank != 4)
            return 0;
        int64_t sum;
        return __builtin_add_overflow(times(terse_tensor_count(x), w->dims[1]),
                                      times(terse_tensor_count(output), w->dims[1]), &sum)
                   ? INT64_MAX
                   : sum;
    }
    case TERSE_OP_QLINEAR_CONV:
        w = n_inputs > 3 ? inputs[3] : NULL;
        return !w || w->rank < 2 ? 0 : times(terse_tensor_count(output), filter_size(w));
    case TERSE_OP_RNN:
    case TERSE_OP_GRU:
    case TERSE_OP_LSTM: {
        if (x->rank != 3 || n_inputs < 3 || !inputs[2])
            return 0;
        const int64_t weights = terse_tensor_count(w) + terse_tensor_count(inputs[2]);
        return times(times(x->dims[0], x->dims[1]), weights);
    }
    default:
        return 0;
    }
}

/* Sparse weights cost what their steps hold, once for each pixel or row. */
int64_t terse_macs_count(const terse_node *node, const terse_tensor *const *inputs, int n_inputs,
                         const terse_tensor *output)
{
    const int64_t dense = dense_macs(node, inputs, n_inputs, output);
    const terse_tensor *w = n_inputs > 1 ? inputs[1] : NULL;
    int64_t k, n;
    if (!w || !w->data || !terse_sparse_layout(w->layout) || !terse_sparse_sides(w->rank, w->dims, &k, &n))
        return dense;
    const int64_t steps = terse_sparse_view(w->layout, n, w->data).starts[terse_sparse_panels(n)];
    const int64_t macs =
        times(terse_tensor_count(output) / n, steps * TERSE_SPARSE_PANEL * terse_sparse_quad(w->layout));
    return macs < dense ? macs : dense;
}
