/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of operators that move elements. Those with a fixed pattern have run once on the numbers of their elements
 * (tape_new.c), so one function serves Transpose, Slice, Pad in every mode, Resize to the nearest and more. */
#include "compress/train/back.h"

void terse_back_view(const terse_back *back)
{
    const int64_t n = terse_tensor_count(back->y[0]);
    for (int64_t i = 0; back->dx[0] && back->dy[0] && i < n; i++)
        back->dx[0][i] += back->dy[0][i];
}

void terse_back_moved(const terse_back *back)
{
    float *dx = back->dx[0];
    for (int o = 0; dx && o < back->n_outputs; o++) {
        const float *dy = back->dy[o];
        const int32_t *from = back->moved[o];
        const int64_t n = dy && from ? terse_tensor_count(back->y[o]) : 0;
        for (int64_t i = 0; i < n; i++)
            if (from[i] >= 0)
                dx[from[i]] += dy[i];
    }
}

void terse_back_concat(const terse_back *back)
{
    const terse_tensor *y = back->y[0];
    int axis;
    if (!back->dy[0] || terse_op_axis(terse_node_int(back->node, "axis", 0), y->rank, &axis, NULL) != TERSE_OK)
        return;
    const int64_t outer = terse_dims_count(y->dims, axis),
                  inner = terse_dims_count(y->dims + axis + 1, y->rank - axis - 1);
    int64_t before = 0;
    for (int k = 0; k < back->n_inputs; k++) {
        const int64_t width = back->x[k]->dims[axis] * inner;
        for (int64_t o = 0; back->dx[k] && o < outer; o++) {
            const float *dy = back->dy[0] + o * y->dims[axis] * inner + before;
            float *dx = back->dx[k] + o * width;
            for (int64_t i = 0; i < width; i++)
                dx[i] += dy[i];
        }
        before += width;
    }
}

/* Rows of a table by index (an embedding). */
void terse_back_gather(const terse_back *back)
{
    const terse_tensor *x = back->x[0], *indices = back->x[1];
    int axis;
    if (!back->dx[0] || !back->dy[0] ||
        terse_op_axis(terse_node_int(back->node, "axis", 0), x->rank, &axis, NULL) != TERSE_OK)
        return;
    const int64_t outer = terse_dims_count(x->dims, axis), size = x->dims[axis];
    const int64_t inner = terse_dims_count(x->dims + axis + 1, x->rank - axis - 1), n = terse_tensor_count(indices);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < n; k++) {
            int64_t index = terse_op_index(indices, k);
            index = index < 0 ? index + size : index; /* the forward run has refused those out of range */
            const float *dy = back->dy[0] + (o * n + k) * inner;
            float *dx = back->dx[0] + (o * size + index) * inner;
            for (int64_t i = 0; i < inner; i++)
                dx[i] += dy[i];
        }
}
