/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of functions of one element: dx += dy f'(x), from x or from y, whichever is cheaper. */
#include <math.h>

#include "compress/train/back.h"

#define ROOT_HALF 0.70710678118654752440f        /* 1 / sqrt(2) */
#define ROOT_TWO_PI_INVERSE 0.39894228040143268f /* 1 / sqrt(2 pi) */
#define TWO_OVER_ROOT_PI 1.12837916709551257f
#define ROOT_TWO_OVER_PI 0.79788456080286536f

/* x Phi(x): Phi(x) + x phi(x) (Hendrycks and Gimpel, arXiv:1606.08415). */
static float gelu_slope(float x)
{
    return 0.5f * (1 + erff(x * ROOT_HALF)) + x * ROOT_TWO_PI_INVERSE * expf(-0.5f * x * x);
}

static float gelu_tanh_slope(float x)
{
    const float t = tanhf(ROOT_TWO_OVER_PI * (x + 0.044715f * x * x * x));
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * ROOT_TWO_OVER_PI * (1 + 3 * 0.044715f * x * x);
}

static float logistic(float x)
{
    return 1 / (1 + expf(-x));
}

static float slope(const terse_node *node, float alpha, float beta, bool tanh_form, float x, float y)
{
    switch (node->op) {
    case TERSE_OP_RELU:
        return y > 0 ? 1 : 0;
    case TERSE_OP_LEAKY_RELU:
        return x > 0 ? 1 : alpha;
    case TERSE_OP_SIGMOID:
        return y * (1 - y);
    case TERSE_OP_HARD_SIGMOID:
        return alpha * x + beta > 0 && alpha * x + beta < 1 ? alpha : 0;
    case TERSE_OP_HARD_SWISH:
        return x <= -3 ? 0 : x >= 3 ? 1 : (2 * x + 3) / 6;
    case TERSE_OP_TANH:
        return 1 - y * y;
    case TERSE_OP_ERF:
        return TWO_OVER_ROOT_PI * expf(-x * x);
    case TERSE_OP_GELU:
        return tanh_form ? gelu_tanh_slope(x) : gelu_slope(x);
    case TERSE_OP_EXP:
        return y;
    case TERSE_OP_LOG:
        return 1 / x;
    case TERSE_OP_SQRT:
        return y > 0 ? 0.5f / y : 0;
    case TERSE_OP_NEG:
        return -1;
    case TERSE_OP_ABS:
        return x > 0 ? 1 : x < 0 ? -1 : 0;
    case TERSE_OP_RECIPROCAL:
        return -y * y;
    case TERSE_OP_SIN:
        return cosf(x);
    case TERSE_OP_COS:
        return -sinf(x);
    case TERSE_OP_ELU:
        return x > 0 ? 1 : y + alpha;
    case TERSE_OP_SELU:
        return x > 0 ? beta : y + alpha * beta;
    case TERSE_OP_SOFTPLUS:
        return logistic(x);
    case TERSE_OP_SOFTSIGN:
        return 1 / ((1 + fabsf(x)) * (1 + fabsf(x)));
    default:
        return 0;
    }
}

static void numbers_of(const terse_node *node, float *alpha, float *beta)
{
    switch (node->op) {
    case TERSE_OP_LEAKY_RELU:
        *alpha = (float)terse_node_float(node, "alpha", 0.01);
        return;
    case TERSE_OP_HARD_SIGMOID:
        *alpha = (float)terse_node_float(node, "alpha", 0.2);
        *beta = (float)terse_node_float(node, "beta", 0.5);
        return;
    case TERSE_OP_SELU:
        *alpha = (float)terse_node_float(node, "alpha", 1.67326319217681884765625);
        *beta = (float)terse_node_float(node, "gamma", 1.05070102214813232421875);
        return;
    default:
        *alpha = (float)terse_node_float(node, "alpha", 1);
    }
}

void terse_back_unary(const terse_back *back)
{
    const terse_node *node = back->node;
    const float *x = back->x[0]->data, *y = back->y[0]->data, *dy = back->dy[0];
    float *dx = back->dx[0], alpha = 0, beta = 0;
    const int64_t n = terse_tensor_count(back->y[0]);
    if (!dx || !dy)
        return;
    if (node->op == TERSE_OP_RELU) { /* by far the most frequent */
        for (int64_t i = 0; i < n; i++) {
            const float d = dy[i]; /* read in any case: only then is the loop made vectors */
            dx[i] += y[i] > 0 ? d : 0;
        }
        return;
    }
    numbers_of(node, &alpha, &beta);
    const terse_back_row *row = terse_back_find(node);
    const bool reads_x = row->flags & TERSE_BACK_READS_INPUTS, reads_y = row->flags & TERSE_BACK_READS_OUTPUTS;
    const bool tanh_form = node->op == TERSE_OP_GELU && terse_node_text(node, "approximate", "none")[0] == 't';
    for (int64_t i = 0; i < n; i++)
        dx[i] += dy[i] * slope(node, alpha, beta, tanh_form, reads_x ? x[i] : 0, reads_y ? y[i] : 0);
}

/* Bounds are inputs 1 and 2; at a bound nothing comes back. */
void terse_back_clip(const terse_back *back)
{
    const float low = back->n_inputs > 1 && back->x[1] ? *(const float *)back->x[1]->data : -INFINITY;
    const float high = back->n_inputs > 2 && back->x[2] ? *(const float *)back->x[2]->data : INFINITY;
    const float *x = back->x[0]->data, *dy = back->dy[0];
    float *dx = back->dx[0];
    const int64_t n = terse_tensor_count(back->y[0]);
    for (int64_t i = 0; dx && dy && i < n; i++) {
        const float d = dy[i];
        dx[i] += (x[i] > low) & (x[i] < high) ? d : 0;
    }
}
