/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of functions of two elements with numpy's broadcasting, and of Where. A walk over the output knows where
 * each operand's element lies; an operand that is broadcast gets the sum over all places where it is read. */
#include <math.h>

#include "common/ops/walk.h"
#include "compress/train/back.h"

typedef struct binary {
    terse_op op;
    const char *a, *b; /* where the walk's operands begin */
    const float *x[2]; /* NULL: not read */
    float *dx[2];      /* NULL: not wanted */
} binary;

/* df/da, or df/db. */
static inline float slope(terse_op op, int side, float a, float b)
{
    switch (op) {
    case TERSE_OP_ADD:
        return 1;
    case TERSE_OP_SUB:
        return side ? -1.0f : 1.0f;
    case TERSE_OP_MUL:
        return side ? a : b;
    case TERSE_OP_DIV:
        return side ? -a / (b * b) : 1 / b;
    case TERSE_OP_POW:
        if (side)
            return a > 0 ? powf(a, b) * logf(a) : 0;
        return b == 2 ? 2 * a : b == 0 ? 0 : b * powf(a, b - 1);
    case TERSE_OP_MIN:
        return (a <= b) != side ? 1.0f : 0.0f;
    case TERSE_OP_MAX:
        return (a >= b) != side ? 1.0f : 0.0f;
    default: /* PRelu: b is the slope below zero */
        if (side)
            return a > 0 ? 0 : a;
        return a > 0 ? 1 : b;
    }
}

/* One run, for one operand: the loop is compiled for each operator and side that is met often, as a choice per element
 * takes longer than the rest of it. */
static inline void run_side(terse_op op, int side, const binary *c, char *const *at, const int64_t *strides, int64_t n)
{
    const int64_t size = (int64_t)sizeof(float), step_y = strides[0] / size, step_a = strides[1] / size,
                  step_b = strides[2] / size, step = side ? step_b : step_a;
    const float *dy = (const float *)(const void *)at[0];
    const int64_t at_a = (at[1] - c->a) / size, at_b = (at[2] - c->b) / size;
    const float *a = c->x[0] ? c->x[0] + at_a : NULL, *b = c->x[1] ? c->x[1] + at_b : NULL;
    float *dx = c->dx[side] + (side ? at_b : at_a);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const float by = dy[i * step_y] * slope(op, side, a ? a[i * step_a] : 0, b ? b[i * step_b] : 0);
        if (step)
            dx[i * step] += by;
        else
            sum += (double)by;
    }
    if (!step)
        *dx += (float)sum;
}

static void row(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const binary *c = context;
    for (int side = 0; side < 2; side++) {
        if (!c->dx[side])
            continue;
        if (c->op == TERSE_OP_ADD)
            run_side(TERSE_OP_ADD, side, c, at, strides, n);
        else if (c->op == TERSE_OP_MUL && side == 0)
            run_side(TERSE_OP_MUL, 0, c, at, strides, n);
        else if (c->op == TERSE_OP_MUL)
            run_side(TERSE_OP_MUL, 1, c, at, strides, n);
        else
            run_side(c->op, side, c, at, strides, n);
    }
}

/* A dense Add of two tensors of the same shape, residual connections above all. */
static bool plain_add(const terse_back *back, int64_t n)
{
    if (back->node->op != TERSE_OP_ADD || terse_tensor_count(back->x[0]) != n || terse_tensor_count(back->x[1]) != n)
        return false;
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; back->dx[k] && i < n; i++)
            back->dx[k][i] += back->dy[0][i];
    return true;
}

void terse_back_binary(const terse_back *back)
{
    const int64_t n = terse_tensor_count(back->y[0]);
    if (!back->dy[0] || n == 0 || plain_add(back, n))
        return;
    const bool reads = terse_back_find(back->node)->flags & TERSE_BACK_READS_INPUTS;
    /* The walk only counts: operands that are not read may have no data. */
    static const float nothing;
    terse_tensor y = *back->y[0], a = *back->x[0], b = *back->x[1];
    y.data = (void *)(uintptr_t)back->dy[0];
    binary c = {.op = back->node->op,
                .a = reads ? a.data : (const char *)&nothing,
                .b = reads ? b.data : (const char *)&nothing,
                .x = {reads ? a.data : NULL, reads ? b.data : NULL},
                .dx = {back->dx[0], back->dx[1]}};
    const terse_tensor *tensors[] = {&y, &a, &b};
    terse_walk walk;
    terse_walk_tensors(&walk, tensors, 3);
    if (!walk.empty)
        terse_walk_run(&walk, (char *const[]){y.data, (char *)(uintptr_t)c.a, (char *)(uintptr_t)c.b}, row, &c);
}

typedef struct choice {
    const char *a, *b;
    float *dx[2];
} choice;

static void where_row(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const choice *c = context;
    for (int64_t i = 0; i < n; i++) {
        const float out = *(const float *)(const void *)(at[0] + i * strides[0]);
        const bool first = *(at[1] + i * strides[1]) != 0;
        const char *from = first ? at[2] + i * strides[2] : at[3] + i * strides[3];
        float *dx = c->dx[first ? 0 : 1];
        if (dx)
            dx[(from - (first ? c->a : c->b)) / (int64_t)sizeof(float)] += out;
    }
}

void terse_back_where(const terse_back *back)
{
    if (!back->dy[0] || terse_tensor_count(back->y[0]) == 0)
        return;
    terse_tensor y = *back->y[0];
    y.data = (void *)(uintptr_t)back->dy[0];
    const terse_tensor *tensors[] = {&y, back->x[0], back->x[1], back->x[2]};
    const choice c = {.a = back->x[1]->data, .b = back->x[2]->data, .dx = {back->dx[1], back->dx[2]}};
    terse_walk walk;
    terse_walk_tensors(&walk, tensors, 4);
    if (!walk.empty)
        terse_walk_run(&walk, (char *const[]){y.data, back->x[0]->data, back->x[1]->data, back->x[2]->data}, where_row,
                       &c);
}
