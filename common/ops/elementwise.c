/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of one input, element by element. A row function computes dense rows of one dtype; which one serves an
 * operator for a dtype stands in the table below. What has a kernel runs there; the rest is libm, element by element,
 * so that the bits of an element never depend on its neighbours. */
#include "common/ops/walk.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/ops/op.h"

typedef struct unary unary;
typedef void unary_row(const unary *params, const terse_kernels *kernels, const void *x, void *y, int64_t n);

struct unary {
    unary_row *row;
    terse_activation activation;
    float alpha, gamma;
};

static void row_activate(const unary *params, const terse_kernels *kernels, const void *x, void *y, int64_t n)
{
    kernels->activate_f32(x, y, n, params->activation);
}

#define ROW_KERNEL(name)                                                                                               \
    static void row_##name(const unary *params, const terse_kernels *kernels, const void *x, void *y, int64_t n)       \
    {                                                                                                                  \
        (void)params;                                                                                                  \
        kernels->name##_f32(x, y, n);                                                                                  \
    }
ROW_KERNEL(exp)
ROW_KERNEL(erf)
ROW_KERNEL(tanh)
ROW_KERNEL(sigmoid)

#define ROW(name, type, expression)                                                                                    \
    static void row_##name(const unary *params, const terse_kernels *kernels, const void *x, void *y, int64_t n)       \
    {                                                                                                                  \
        (void)params;                                                                                                  \
        (void)kernels;                                                                                                 \
        const type *from = x;                                                                                          \
        type *to = y;                                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const type v = from[i];                                                                                    \
            to[i] = (type)(expression);                                                                                \
        }                                                                                                              \
    }
ROW(log, float, logf(v))
ROW(sqrt, float, sqrtf(v))
ROW(neg_f32, float, -v)
ROW(abs_f32, float, fabsf(v))
ROW(reciprocal, float, 1.0f / v)
ROW(sin, float, sinf(v))
ROW(cos, float, cosf(v))
ROW(floor, float, floorf(v))
ROW(ceil, float, ceilf(v))
ROW(round, float, rintf(v))
ROW(sign_f32, float, v > 0 ? 1.0f : v < 0 ? -1.0f : v == 0 ? 0.0f : v)
ROW(softsign, float, v / (1.0f + fabsf(v)))
ROW(not, uint8_t, v == 0)

/* Integers wrap around: the negative and the absolute value of the smallest number are that number. */
#define ROWS_SIGNED(suffix, type, wide)                                                                                \
    ROW(relu_##suffix, type, v > 0 ? v : 0)                                                                            \
    ROW(neg_##suffix, type, (wide)0 - (wide)v)                                                                         \
    ROW(abs_##suffix, type, v < 0 ? (wide)0 - (wide)v : (wide)v)                                                       \
    ROW(sign_##suffix, type, (v > 0) - (v < 0))
ROWS_SIGNED(i8, int8_t, uint32_t)
ROWS_SIGNED(i32, int32_t, uint32_t)
ROWS_SIGNED(i64, int64_t, uint64_t)
ROW(same_u8, uint8_t, v)
ROW(sign_u8, uint8_t, v > 0)

enum { BLOCK = 256 };

/* 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
static void row_gelu_tanh(const unary *params, const terse_kernels *kernels, const void *x, void *y, int64_t n)
{
    (void)params;
    const float *from = x;
    float *to = y;
    for (int64_t start = 0; start < n; start += BLOCK) {
        float inner[BLOCK];
        const int64_t count = n - start < BLOCK ? n - start : BLOCK;
        for (int64_t i = 0; i < count; i++) {
            const float v = from[start + i];
            inner[i] = 0.79788456080286536f * (v + 0.044715f * v * v * v);
        }
        kernels->tanh_f32(inner, inner, count);
        for (int64_t i = 0; i < count; i++)
            to[start + i] = 0.5f * from[start + i] * (1.0f + inner[i]);
    }
}

/* y = f(x, exp(argument)), in blocks, so that the exponentials come from the kernel. */
#define ROW_EXP(name, argument, expression)                                                                            \
    static void row_##name(const unary *params, const terse_kernels *kernels, const void *x, void *y, int64_t n)       \
    {                                                                                                                  \
        const float alpha = params->alpha, gamma = params->gamma;                                                      \
        (void)alpha;                                                                                                   \
        (void)gamma;                                                                                                   \
        const float *from = x;                                                                                         \
        float *to = y;                                                                                                 \
        for (int64_t start = 0; start < n; start += BLOCK) {                                                           \
            float power[BLOCK];                                                                                        \
            const int64_t count = n - start < BLOCK ? n - start : BLOCK;                                               \
            for (int64_t i = 0; i < count; i++) {                                                                      \
                const float v = from[start + i];                                                                       \
                power[i] = argument;                                                                                   \
            }                                                                                                          \
            kernels->exp_f32(power, power, count);                                                                     \
            for (int64_t i = 0; i < count; i++) {                                                                      \
                const float v = from[start + i], e = power[i];                                                         \
                to[start + i] = expression;                                                                            \
            }                                                                                                          \
        }                                                                                                              \
    }

/* log(1 + e) with the rounding error of 1 + e taken out again (Higham 2002, Accuracy and Stability, problem 1.5) */
static float log_of_one_more(float e)
{
    const float sum = 1.0f + e;
    return sum == 1.0f ? e : logf(sum) * (e / (sum - 1.0f));
}

ROW_EXP(elu, (v > 0 ? 0.0f : v), (v > 0 ? v : alpha * (e - 1.0f)))
ROW_EXP(selu, (v > 0 ? 0.0f : v), (gamma * (v > 0 ? v : alpha * (e - 1.0f))))
/* log(1 + exp(x)) without overflow */
ROW_EXP(softplus, -fabsf(v), (v > 0 ? v : 0.0f) + log_of_one_more(e))

typedef struct unary_type {
    terse_op op;
    unary_row *f32, *i8, *i32, *i64, *u8, *boolean;
} unary_type;

static const unary_type types[] = {
    {.op = TERSE_OP_RELU, .f32 = row_activate, .i8 = row_relu_i8, .i32 = row_relu_i32, .i64 = row_relu_i64},
    {.op = TERSE_OP_LEAKY_RELU, .f32 = row_activate},
    {.op = TERSE_OP_SIGMOID, .f32 = row_sigmoid},
    {.op = TERSE_OP_HARD_SIGMOID, .f32 = row_activate},
    {.op = TERSE_OP_HARD_SWISH, .f32 = row_activate},
    {.op = TERSE_OP_TANH, .f32 = row_tanh},
    {.op = TERSE_OP_ERF, .f32 = row_erf},
    {.op = TERSE_OP_GELU, .f32 = row_activate},
    {.op = TERSE_OP_EXP, .f32 = row_exp},
    {.op = TERSE_OP_LOG, .f32 = row_log},
    {.op = TERSE_OP_SQRT, .f32 = row_sqrt},
    {.op = TERSE_OP_NEG, .f32 = row_neg_f32, .i8 = row_neg_i8, .i32 = row_neg_i32, .i64 = row_neg_i64},
    {TERSE_OP_ABS, row_abs_f32, row_abs_i8, row_abs_i32, row_abs_i64, row_same_u8, NULL},
    {.op = TERSE_OP_RECIPROCAL, .f32 = row_reciprocal},
    {.op = TERSE_OP_SIN, .f32 = row_sin},
    {.op = TERSE_OP_COS, .f32 = row_cos},
    {.op = TERSE_OP_FLOOR, .f32 = row_floor},
    {.op = TERSE_OP_CEIL, .f32 = row_ceil},
    {.op = TERSE_OP_ROUND, .f32 = row_round},
    {TERSE_OP_SIGN, row_sign_f32, row_sign_i8, row_sign_i32, row_sign_i64, row_sign_u8, NULL},
    {.op = TERSE_OP_ELU, .f32 = row_elu},
    {.op = TERSE_OP_SELU, .f32 = row_selu},
    {.op = TERSE_OP_SOFTPLUS, .f32 = row_softplus},
    {.op = TERSE_OP_SOFTSIGN, .f32 = row_softsign},
    {.op = TERSE_OP_NOT, .boolean = row_not},
};

static unary_row *row_of(const unary_type *type, terse_dtype dtype)
{
    switch (dtype) {
    case TERSE_FP32:
        return type->f32;
    case TERSE_INT8:
        return type->i8;
    case TERSE_INT32:
        return type->i32;
    case TERSE_INT64:
        return type->i64;
    case TERSE_UINT8:
        return type->u8;
    case TERSE_BOOL:
        return type->boolean;
    default:
        return NULL;
    }
}

static int read_attributes(const terse_node *node, unary *params, terse_error *error)
{
    terse_activation *act = &params->activation;
    switch (node->op) {
    case TERSE_OP_RELU:
        *act = (terse_activation){TERSE_ACT_CLIP, 0.0f, INFINITY};
        break;
    case TERSE_OP_LEAKY_RELU:
        *act = (terse_activation){TERSE_ACT_LEAKY_RELU, (float)terse_node_float(node, "alpha", 0.01), 0.0f};
        break;
    case TERSE_OP_HARD_SIGMOID:
        *act = (terse_activation){TERSE_ACT_HARD_SIGMOID, (float)terse_node_float(node, "alpha", 0.2),
                                  (float)terse_node_float(node, "beta", 0.5)};
        break;
    case TERSE_OP_HARD_SWISH:
        act->kind = TERSE_ACT_HARD_SWISH;
        break;
    case TERSE_OP_ELU:
        params->alpha = (float)terse_node_float(node, "alpha", 1.0);
        break;
    case TERSE_OP_SELU:
        params->alpha = (float)terse_node_float(node, "alpha", 1.67326319217681884765625);
        params->gamma = (float)terse_node_float(node, "gamma", 1.05070102214813232421875);
        break;
    case TERSE_OP_GELU: {
        act->kind = TERSE_ACT_GELU;
        const char *approximate = terse_node_text(node, "approximate", "none");
        if (strcmp(approximate, "tanh") == 0)
            params->row = row_gelu_tanh;
        else if (strcmp(approximate, "none") != 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "approximate is '%s', allowed are none and tanh",
                              approximate);
        break;
    }
    default:
        break;
    }
    return TERSE_OK;
}

static int plan_unary(terse_op_plan *plan, terse_error *error)
{
    static const terse_dtype dtypes[] = {TERSE_FP32, TERSE_INT8, TERSE_INT32, TERSE_INT64, TERSE_UINT8, TERSE_BOOL};
    const unary_type *type = types;
    while (type->op != plan->node->op)
        type++;
    unsigned allowed = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (row_of(type, dtypes[i]))
            allowed |= 1u << dtypes[i];
    int status = terse_op_expect(plan, 0, "X", allowed, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    unary *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->row = row_of(type, x->dtype);
    status = read_attributes(plan->node, params, error);
    return status ? status : terse_op_output(plan, 0, x->dtype, x->rank, x->dims, error);
}

static void walk_row(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    (void)strides;
    const terse_op_call *call = context;
    const unary *params = call->params;
    params->row(params, call->kernels, at[1], at[0], n);
}

static int run_unary(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const int64_t size = (int64_t)terse_dtype_size(x->dtype);
    terse_walk walk;
    terse_walk_tensors(&walk, (const terse_tensor *const[]){y, x}, 2);
    terse_walk_unit(&walk, (const int64_t[]){size, size});
    terse_walk_run(&walk, (char *const[]){y->data, x->data}, walk_row, call);
    return TERSE_OK;
}

#define UNARY(lower, name)                                                                                             \
    const terse_op_impl terse_op_##lower = {                                                                           \
        name, 1,          1,        1, 1, TERSE_OP_IN_PLACE | TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,       \
        0,    plan_unary, run_unary};
UNARY(relu, "Relu")
UNARY(leaky_relu, "LeakyRelu")
UNARY(sigmoid, "Sigmoid")
UNARY(hard_sigmoid, "HardSigmoid")
UNARY(hard_swish, "HardSwish")
UNARY(tanh, "Tanh")
UNARY(erf, "Erf")
UNARY(gelu, "Gelu")
UNARY(exp, "Exp")
UNARY(log, "Log")
UNARY(sqrt, "Sqrt")
UNARY(neg, "Neg")
UNARY(abs, "Abs")
UNARY(reciprocal, "Reciprocal")
UNARY(sin, "Sin")
UNARY(cos, "Cos")
UNARY(floor, "Floor")
UNARY(ceil, "Ceil")
UNARY(round, "Round")
UNARY(sign, "Sign")
UNARY(elu, "Elu")
UNARY(selu, "Selu")
UNARY(softplus, "Softplus")
UNARY(softsign, "Softsign")
UNARY(not, "Not")
