/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients along axes: ReduceMean, ReduceSum, ReduceMax, Softmax, LogSoftmax, LayerNormalization. */
#include <math.h>

#include "compress/train/back.h"

/* Which axes a reduction takes away; false when that is not known here. */
static bool reduced_axes(const terse_back *back, bool *ret_reduced)
{
    const terse_tensor *x = back->x[0], *axes = back->n_inputs > 1 ? back->x[1] : NULL;
    const int64_t n = axes ? terse_tensor_count(axes) : 0;
    const bool all = n == 0 && terse_node_int(back->node, "noop_with_empty_axes", 0) == 0;
    for (int i = 0; i < x->rank; i++)
        ret_reduced[i] = all;
    for (int64_t i = 0; i < n; i++) {
        int axis;
        if (!axes->data || terse_op_axis(terse_op_index(axes, i), x->rank, &axis, NULL) != TERSE_OK)
            return false;
        ret_reduced[axis] = true;
    }
    return true;
}

void terse_back_reduce(const terse_back *back)
{
    const terse_tensor *x = back->x[0];
    bool reduced[TERSE_MAX_RANK];
    int64_t step[TERSE_MAX_RANK], at[TERSE_MAX_RANK] = {0}, stride = 1;
    float *dx = back->dx[0];
    if (!dx || !back->dy[0] || !reduced_axes(back, reduced))
        return;
    for (int i = x->rank - 1; i >= 0; i--) {
        step[i] = reduced[i] ? 0 : stride;
        stride *= reduced[i] ? 1 : x->dims[i];
    }
    const int64_t n = terse_tensor_count(x), outs = terse_tensor_count(back->y[0]);
    const bool max = back->node->op == TERSE_OP_REDUCE_MAX;
    const float factor = back->node->op == TERSE_OP_REDUCE_MEAN && n > 0 ? (float)outs / (float)n : 1;
    const float *from = max ? x->data : NULL, *y = max ? back->y[0]->data : NULL;
    int64_t out = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!max || from[i] == y[out])
            dx[i] += factor * back->dy[0][out];
        for (int a = x->rank - 1; a >= 0; a--) { /* to the next element */
            out += step[a];
            if (++at[a] < x->dims[a])
                break;
            out -= step[a] * x->dims[a];
            at[a] = 0;
        }
    }
}

/* Softmax: dx = y (dy - sum(dy y)). LogSoftmax: dx = dy - exp(y) sum(dy). */
void terse_back_softmax(const terse_back *back)
{
    const terse_tensor *t = back->y[0];
    const float *y = t->data, *dy = back->dy[0];
    float *dx = back->dx[0];
    int axis;
    if (!dx || !dy || terse_tensor_count(t) == 0 ||
        terse_op_axis(terse_node_int(back->node, "axis", -1), t->rank, &axis, NULL) != TERSE_OK)
        return;
    const bool coerce = terse_node_int(back->node, "coerce_2d", 0) != 0, log = back->node->op == TERSE_OP_LOG_SOFTMAX;
    const int64_t n = coerce ? terse_dims_count(t->dims + axis, t->rank - axis) : t->dims[axis];
    const int64_t inner = coerce ? 1 : terse_dims_count(t->dims + axis + 1, t->rank - axis - 1);
    const int64_t outer = terse_tensor_count(t) / (n * inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            const int64_t first = o * n * inner + i;
            double sum = 0;
            for (int64_t k = 0; k < n; k++)
                sum += (double)dy[first + k * inner] * (log ? 1.0 : (double)y[first + k * inner]);
            const float total = (float)sum;
            for (int64_t k = 0; k < n; k++) {
                const int64_t at = first + k * inner;
                dx[at] += log ? dy[at] - expf(y[at]) * total : y[at] * (dy[at] - total);
            }
        }
}

/* Where element k of a row lies in an operand that broadcasts to the row's dims. */
static int64_t operand_at(const terse_tensor *operand, const int64_t *dims, int rank, int64_t k)
{
    int64_t at = 0, step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        const int64_t index = k % dims[i];
        k /= dims[i];
        const int axis = i - (rank - operand->rank);
        if (axis < 0)
            continue;
        at += (operand->dims[axis] == 1 ? 0 : index) * step;
        step *= operand->dims[axis];
    }
    return at;
}

/* With xh = (x - mean) / s and g = dy scale: dx = (g - mean(g) - xh mean(g xh)) / s (Ba et al., arXiv:1607.06450). */
void terse_back_layer_normalization(const terse_back *back)
{
    const terse_tensor *t = back->x[0], *scale = back->x[1], *bias = back->n_inputs > 2 ? back->x[2] : NULL;
    int axis;
    if (!back->dy[0] || terse_op_axis(terse_node_int(back->node, "axis", -1), t->rank, &axis, NULL) != TERSE_OK)
        return;
    const int rank = t->rank - axis;
    const int64_t *dims = t->dims + axis;
    const int64_t n = terse_dims_count(dims, rank), rows = n ? terse_tensor_count(t) / n : 0;
    const double epsilon = terse_node_float(back->node, "epsilon", 1e-5);
    float *d_scale = back->dx[1], *d_bias = bias ? back->dx[2] : NULL;
    const bool dense = terse_tensor_count(scale) == n, dense_bias = bias && terse_tensor_count(bias) == n;
    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)t->data + r * n, *dy = back->dy[0] + r * n, *s = scale->data;
        double sum = 0, squares = 0, mean_g = 0, mean_gx = 0;
        for (int64_t k = 0; k < n; k++)
            sum += (double)x[k];
        const double mean = sum / (double)n;
        for (int64_t k = 0; k < n; k++)
            squares += ((double)x[k] - mean) * ((double)x[k] - mean);
        const double inverse = 1 / sqrt(squares / (double)n + epsilon);
        for (int64_t k = 0; k < n; k++) {
            const int64_t at = dense ? k : operand_at(scale, dims, rank, k);
            const double xh = ((double)x[k] - mean) * inverse, g = (double)dy[k] * (double)s[at];
            mean_g += g;
            mean_gx += g * xh;
            if (d_scale)
                d_scale[at] += (float)((double)dy[k] * xh);
            if (d_bias)
                d_bias[dense_bias ? k : operand_at(bias, dims, rank, k)] += dy[k];
        }
        mean_g /= (double)n;
        mean_gx /= (double)n;
        for (int64_t k = 0; back->dx[0] && k < n; k++) {
            const int64_t at = dense ? k : operand_at(scale, dims, rank, k);
            const double xh = ((double)x[k] - mean) * inverse;
            back->dx[0][r * n + k] += (float)(((double)dy[k] * (double)s[at] - mean_g - xh * mean_gx) * inverse);
        }
    }
}
