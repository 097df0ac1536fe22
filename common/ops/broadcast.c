/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic of two inputs with numpy's broadcasting: Add, Sub, Mul, Div, Mod, Pow, PRelu, and Min, Max of any number.
 * A row function computes one run: y[i] = a[i * sa] op b[i * sb], sa and sb being 0 or 1. Integers wrap around;
 * division by zero gives 0. Min and Max hand NaN on. */
#include "common/ops/walk.h"

#include <math.h>

#include "common/ops/op.h"

typedef void binary_row(const terse_kernels *kernels, const void *a, int64_t sa, const void *b, int64_t sb, void *y,
                        int64_t n);

#define ROW_KERNEL(name)                                                                                               \
    static void name##_f32(const terse_kernels *kernels, const void *a, int64_t sa, const void *b, int64_t sb,         \
                           void *y, int64_t n)                                                                         \
    {                                                                                                                  \
        kernels->name##_f32(a, sa, b, sb, y, n);                                                                       \
    }
ROW_KERNEL(add)
ROW_KERNEL(sub)
ROW_KERNEL(mul)
ROW_KERNEL(div)

/* Three loops, so that each of the usual cases is one the compiler can vectorize. */
#define ROW(name, type, expression)                                                                                    \
    static void name(const terse_kernels *kernels, const void *a, int64_t sa, const void *b, int64_t sb, void *y,      \
                     int64_t n)                                                                                        \
    {                                                                                                                  \
        (void)kernels;                                                                                                 \
        const type *left = a, *right = b;                                                                              \
        type *to = y;                                                                                                  \
        if (sa && sb) {                                                                                                \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const type u = left[i], v = right[i];                                                                  \
                to[i] = (type)(expression);                                                                            \
            }                                                                                                          \
        } else if (sa) {                                                                                               \
            const type v = *right;                                                                                     \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const type u = left[i];                                                                                \
                to[i] = (type)(expression);                                                                            \
            }                                                                                                          \
        } else {                                                                                                       \
            const type u = *left;                                                                                      \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const type v = right[i * sb];                                                                          \
                to[i] = (type)(expression);                                                                            \
            }                                                                                                          \
        }                                                                                                              \
    }
/* One loop: what is no vector in any case. */
#define ROW_ONE(name, type, expression)                                                                                \
    static void name(const terse_kernels *kernels, const void *a, int64_t sa, const void *b, int64_t sb, void *y,      \
                     int64_t n)                                                                                        \
    {                                                                                                                  \
        (void)kernels;                                                                                                 \
        const type *left = a, *right = b;                                                                              \
        type *to = y;                                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const type u = left[i * sa], v = right[i * sb];                                                            \
            to[i] = (type)(expression);                                                                                \
        }                                                                                                              \
    }
/* Sums and products of bytes have the same bits with a sign and without. */
#define ROWS_ARITHMETIC(suffix, type, wide)                                                                            \
    ROW(add_##suffix, type, (wide)u + (wide)v)                                                                         \
    ROW(sub_##suffix, type, (wide)u - (wide)v)                                                                         \
    ROW(mul_##suffix, type, (wide)u *(wide)v)
ROWS_ARITHMETIC(i32, int32_t, uint32_t)
ROWS_ARITHMETIC(i64, int64_t, uint64_t)
ROWS_ARITHMETIC(u8, uint8_t, uint32_t)
#define ROWS_RANGE(suffix, type)                                                                                       \
    ROW(min_##suffix, type, v < u ? v : u)                                                                             \
    ROW(max_##suffix, type, v > u ? v : u)
ROWS_RANGE(i8, int8_t)
ROWS_RANGE(i32, int32_t)
ROWS_RANGE(i64, int64_t)
ROWS_RANGE(u8, uint8_t)
#define DIV_SIGNED(type, wide) (v == 0 ? 0 : v == -1 ? (type)((wide)0 - (wide)u) : (type)(u / v))
ROW_ONE(div_i8, int8_t, DIV_SIGNED(int8_t, uint32_t))
ROW_ONE(div_i32, int32_t, DIV_SIGNED(int32_t, uint32_t))
ROW_ONE(div_i64, int64_t, DIV_SIGNED(int64_t, uint64_t))
ROW_ONE(div_u8, uint8_t, v == 0 ? 0 : u / v)
/* What a division that truncates leaves has the sign of u; `floor` moves it to that of v. */
#define MOD_SIGNED(floor) (v == 0 || v == -1 ? 0 : (floor) && u % v != 0 && (u % v < 0) != (v < 0) ? u % v + v : u % v)
#define ROWS_MOD(suffix, type)                                                                                         \
    ROW_ONE(mod_##suffix, type, MOD_SIGNED(true))                                                                      \
    ROW_ONE(rest_##suffix, type, MOD_SIGNED(false))
ROWS_MOD(i8, int8_t)
ROWS_MOD(i32, int32_t)
ROWS_MOD(i64, int64_t)
ROW_ONE(mod_u8, uint8_t, v == 0 ? 0 : u % v)
ROW_ONE(rest_f32, float, fmodf(u, v))
ROW(min_f32, float, u != u || u < v ? u : v)
ROW(max_f32, float, u != u || u > v ? u : v)
/* The product is made in any case: a choice between two numbers is no branch. */
static inline float prelu_one(float x, float slope)
{
    const float product = slope * x;
    return x < 0 ? product : x;
}
ROW(prelu_f32, float, prelu_one(u, v))
ROW(prelu_i32, int32_t, u < 0 ? (uint32_t)v * (uint32_t)u : (uint32_t)u)
ROW(prelu_i64, int64_t, u < 0 ? (uint64_t)v * (uint64_t)u : (uint64_t)u)

typedef struct binary_type {
    terse_op op;
    binary_row *f32, *i8, *i32, *i64, *u8;
} binary_type;

static const binary_type types[] = {
    {TERSE_OP_ADD, add_f32, add_u8, add_i32, add_i64, add_u8},
    {TERSE_OP_SUB, sub_f32, sub_u8, sub_i32, sub_i64, sub_u8},
    {TERSE_OP_MUL, mul_f32, mul_u8, mul_i32, mul_i64, mul_u8},
    {TERSE_OP_DIV, div_f32, div_i8, div_i32, div_i64, div_u8},
    {TERSE_OP_MOD, NULL, mod_i8, mod_i32, mod_i64, mod_u8},
    {TERSE_OP_MIN, min_f32, min_i8, min_i32, min_i64, min_u8},
    {TERSE_OP_MAX, max_f32, max_i8, max_i32, max_i64, max_u8},
    {.op = TERSE_OP_PRELU, .f32 = prelu_f32, .i32 = prelu_i32, .i64 = prelu_i64},
};

/* Mod with fmod = 1, which floats must have. */
static const binary_type rest = {TERSE_OP_MOD, rest_f32, rest_i8, rest_i32, rest_i64, mod_u8};

static const binary_type *type_of(const terse_node *node)
{
    if (node->op == TERSE_OP_MOD && terse_node_int(node, "fmod", 0) != 0)
        return &rest;
    const binary_type *type = types;
    while (type->op != node->op)
        type++;
    return type;
}

static binary_row *row_of(const binary_type *type, terse_dtype dtype)
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
    default:
        return NULL;
    }
}

typedef struct binary {
    binary_row *row;
} binary;

static int plan_binary(terse_op_plan *plan, terse_error *error)
{
    static const terse_dtype dtypes[] = {TERSE_FP32, TERSE_INT8, TERSE_INT32, TERSE_INT64, TERSE_UINT8};
    const terse_op op = plan->node->op;
    unsigned allowed = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (row_of(type_of(plan->node), dtypes[i]))
            allowed |= 1u << dtypes[i];
    int status = terse_op_expect(plan, 0, "A", allowed, error);
    if (status)
        return status;
    const terse_tensor *first = plan->inputs[0];
    int rank = first->rank;
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < rank; i++)
        dims[i] = first->dims[i];
    for (int i = 1; !status && i < plan->n_inputs; i++) {
        status = terse_op_same(plan, i, "B", 0, error);
        if (!status)
            status = terse_op_broadcast(dims, rank, plan->inputs[i]->dims, plan->inputs[i]->rank, dims, &rank, error);
    }
    if (status)
        return status;
    bool grown = op == TERSE_OP_PRELU && rank != first->rank;
    for (int i = 0; op == TERSE_OP_PRELU && !grown && i < rank; i++)
        grown = dims[i] != first->dims[i];
    if (grown) {
        char slope[128], x[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "slope has shape %s, must broadcast to X's shape %s",
                          terse_dims_text(plan->inputs[1]->dims, plan->inputs[1]->rank, slope, sizeof slope),
                          terse_dims_text(first->dims, first->rank, x, sizeof x));
    }
    binary *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->row = row_of(type_of(plan->node), first->dtype);
    return terse_op_output(plan, 0, first->dtype, rank, dims, error);
}

static void walk_binary(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const terse_op_call *call = context;
    const binary *params = call->params;
    params->row(call->kernels, at[1], strides[1] != 0, at[2], strides[2] != 0, at[0], n);
}

/* Elements of four bytes that do not lie side by side (every second one, as rotary embeddings take them) are gathered
 * for the row function and spread again behind it. */
typedef uint32_t __attribute__((may_alias)) element;
enum { GATHERED = 256, FEWEST = 4 };

static const void *gather(const char *from, int64_t stride, int64_t n, element *room)
{
    if (stride == 0 || stride == (int64_t)sizeof *room)
        return from;
    for (int64_t i = 0; i < n; i++)
        room[i] = *(const element *)(from + i * stride);
    return room;
}

static void walk_gathered(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const terse_op_call *call = context;
    const binary *params = call->params;
    element a[GATHERED], b[GATHERED], y[GATHERED];
    const bool dense = strides[0] == (int64_t)sizeof *y;
    for (int64_t i = 0; i < n; i += GATHERED) {
        const int64_t some = n - i < GATHERED ? n - i : GATHERED;
        char *to = at[0] + i * strides[0];
        params->row(call->kernels, gather(at[1] + i * strides[1], strides[1], some, a), strides[1] != 0,
                    gather(at[2] + i * strides[2], strides[2], some, b), strides[2] != 0, dense ? to : (void *)y, some);
        for (int64_t k = 0; k < some && !dense; k++)
            *(element *)(to + k * strides[0]) = y[k];
    }
}

static void walk_pair(const terse_op_call *call, const terse_tensor *a, const terse_tensor *b, const terse_tensor *y,
                      terse_walk_row *row)
{
    terse_walk walk;
    terse_walk_tensors(&walk, (const terse_tensor *const[]){y, a, b}, 3);
    const int64_t sizes[3] = {(int64_t)terse_dtype_size(y->dtype), (int64_t)terse_dtype_size(a->dtype),
                              (int64_t)terse_dtype_size(b->dtype)};
    if (row == walk_binary && sizes[0] == sizeof(element) && walk.rank > 0 && walk.dims[walk.rank - 1] >= FEWEST &&
        !terse_walk_is_unit(&walk, sizes))
        row = walk_gathered;
    else
        terse_walk_unit(&walk, sizes);
    terse_walk_run(&walk, (char *const[]){y->data, a->data, b->data}, row, call);
}

/* Min and Max: the first two, then one more at a time onto the output. One alone is a copy (x op x is x). */
static int run_binary(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *y = &call->outputs[0];
    walk_pair(call, call->inputs[0], call->inputs[call->n_inputs > 1], y, walk_binary);
    for (int i = 2; i < call->n_inputs; i++)
        walk_pair(call, y, call->inputs[i], y, walk_binary);
    return TERSE_OK;
}

/* Pow: the base's dtype is the output's; the exponent may be of another. Integer powers wrap around; a negative
 * exponent truncates the exact quotient (0 for a base of 0). A floating exponent of an integer base goes through
 * double. */
static int64_t power_integer(int64_t base, int64_t exponent)
{
    if (exponent < 0)
        return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
    uint64_t result = 1, square = (uint64_t)base;
    for (uint64_t e = (uint64_t)exponent; e; e >>= 1) {
        if (e & 1)
            result *= square;
        square *= square;
    }
    return (int64_t)result;
}

static int64_t power_double(int64_t base, double exponent)
{
    const double result = pow((double)base, exponent);
    return result >= 0x1p63 ? INT64_MAX : result <= -0x1p63 ? INT64_MIN : result != result ? 0 : (int64_t)result;
}

static float power_float(float base, float exponent)
{
    return exponent == 2.0f ? base * base : powf(base, exponent);
}

static int64_t integer_at(terse_dtype dtype, const void *data, int64_t i)
{
    switch (dtype) {
    case TERSE_INT8:
        return ((const int8_t *)data)[i];
    case TERSE_UINT8:
        return ((const uint8_t *)data)[i];
    case TERSE_INT32:
        return ((const int32_t *)data)[i];
    default:
        return ((const int64_t *)data)[i];
    }
}

static int64_t power_one(int64_t base, terse_dtype dtype, const void *exponents, int64_t i)
{
    return dtype == TERSE_FP32 ? power_double(base, (double)((const float *)exponents)[i])
                               : power_integer(base, integer_at(dtype, exponents, i));
}

static int32_t clamp_i32(int64_t value)
{
    return value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

/* A square is what most of them are; its elements are those of power_float. */
static bool squares(const terse_tensor *base, const terse_tensor *exponent)
{
    return base->dtype == TERSE_FP32 && exponent->dtype == TERSE_FP32 && terse_tensor_count(exponent) == 1 &&
           *(const float *)exponent->data == 2.0f;
}

static void walk_square(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const terse_op_call *call = context;
    const int64_t stride = strides[1] != 0;
    call->kernels->mul_f32((const void *)at[1], stride, (const void *)at[1], stride, (void *)at[0], n);
}

static void walk_pow(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const terse_op_call *call = context;
    const terse_dtype base = call->inputs[0]->dtype, exponent = call->inputs[1]->dtype;
    const int64_t sa = strides[1] != 0, sb = strides[2] != 0;
    const void *a = at[1], *b = at[2];
    void *y = at[0];
    for (int64_t i = 0; i < n; i++)
        if (base == TERSE_FP32) {
            const float e =
                exponent == TERSE_FP32 ? ((const float *)b)[i * sb] : (float)integer_at(exponent, b, i * sb);
            ((float *)y)[i] = power_float(((const float *)a)[i * sa], e);
        } else if (base == TERSE_INT32) {
            const int64_t power = power_one(((const int32_t *)a)[i * sa], exponent, b, i * sb);
            ((int32_t *)y)[i] = exponent == TERSE_FP32 ? clamp_i32(power) : (int32_t)power;
        } else {
            ((int64_t *)y)[i] = power_one(((const int64_t *)a)[i * sa], exponent, b, i * sb);
        }
}

static int plan_pow(terse_op_plan *plan, terse_error *error)
{
    int rank;
    int64_t dims[TERSE_MAX_RANK];
    int status = terse_op_expect(plan, 0, "X", TERSE_TYPES_FLOAT | TERSE_TYPES_INDEX, error);
    if (!status)
        status = terse_op_expect(plan, 1, "Y", TERSE_TYPES_NUMBER, error);
    if (!status)
        status = terse_op_broadcast(plan->inputs[0]->dims, plan->inputs[0]->rank, plan->inputs[1]->dims,
                                    plan->inputs[1]->rank, dims, &rank, error);
    return status ? status : terse_op_output(plan, 0, plan->inputs[0]->dtype, rank, dims, error);
}

static int run_pow(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *base = call->inputs[0], *exponent = call->inputs[1], *y = &call->outputs[0];
    if (terse_tensor_count(y) > 0)
        walk_pair(call, base, exponent, y, squares(base, exponent) ? walk_square : walk_pow);
    return TERSE_OK;
}

#define BINARY(lower, name, in_place, most, plan, run)                                                                 \
    const terse_op_impl terse_op_##lower = {name, (most) == 2 ? 2 : 1,                                                 \
                                            most, 1,                                                                   \
                                            1,    (in_place) | TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,      \
                                            0,    plan,                                                                \
                                            run};
BINARY(add, "Add", TERSE_OP_IN_PLACE_ANY, 2, plan_binary, run_binary)
BINARY(sub, "Sub", TERSE_OP_IN_PLACE_ANY, 2, plan_binary, run_binary)
BINARY(mul, "Mul", TERSE_OP_IN_PLACE_ANY, 2, plan_binary, run_binary)
BINARY(div, "Div", TERSE_OP_IN_PLACE_ANY, 2, plan_binary, run_binary)
BINARY(mod, "Mod", TERSE_OP_IN_PLACE_ANY, 2, plan_binary, run_binary)
BINARY(pow, "Pow", TERSE_OP_IN_PLACE, 2, plan_pow, run_pow)
BINARY(prelu, "PRelu", TERSE_OP_IN_PLACE, 2, plan_binary, run_binary)
/* In place on the first only: the output is written before the third is read. */
BINARY(min, "Min", TERSE_OP_IN_PLACE, TERSE_MAX_NODE_IO, plan_binary, run_binary)
BINARY(max, "Max", TERSE_OP_IN_PLACE, TERSE_MAX_NODE_IO, plan_binary, run_binary)
