/* SPDX-License-Identifier: Apache-2.0 */
/* Comparisons, logic and Where, with numpy's broadcasting. BOOL results are 0 or 1; any other byte read is true. */
#include "common/ops/walk.h"

#include "common/ops/op.h"

typedef void compare_row(const void *a, int64_t sa, const void *b, int64_t sb, uint8_t *y, int64_t n);

#define ROW(name, type, expression)                                                                                    \
    static void name(const void *a, int64_t sa, const void *b, int64_t sb, uint8_t *y, int64_t n)                      \
    {                                                                                                                  \
        const type *left = a, *right = b;                                                                              \
        if (sa && sb) {                                                                                                \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const type u = left[i], v = right[i];                                                                  \
                y[i] = expression;                                                                                     \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const type u = left[i * sa], v = right[i * sb];                                                            \
            y[i] = expression;                                                                                         \
        }                                                                                                              \
    }
#define ROWS(suffix, type)                                                                                             \
    ROW(less_##suffix, type, u < v)                                                                                    \
    ROW(less_or_equal_##suffix, type, u <= v)
ROWS(f32, float)
ROWS(i8, int8_t)
ROWS(i32, int32_t)
ROWS(i64, int64_t)
ROWS(u8, uint8_t)
ROW(equal_f32, float, u == v)
ROW(equal_i32, int32_t, u == v)
ROW(equal_i64, int64_t, u == v)
ROW(equal_u8, uint8_t, u == v)
ROW(equal_bool, uint8_t, (u != 0) == (v != 0))
ROW(and_bool, uint8_t, (u != 0) & (v != 0))
ROW(or_bool, uint8_t, (u | v) != 0)

typedef struct compare_type {
    terse_op op;
    bool swapped; /* Greater is Less of the second and the first */
    compare_row *f32, *i8, *i32, *i64, *u8, *boolean;
} compare_type;

#define TYPES(name) name##_f32, name##_i8, name##_i32, name##_i64, name##_u8
static const compare_type types[] = {
    {TERSE_OP_EQUAL, false, equal_f32, equal_u8, equal_i32, equal_i64, equal_u8, equal_bool},
    {TERSE_OP_LESS, false, TYPES(less), NULL},
    {TERSE_OP_LESS_OR_EQUAL, false, TYPES(less_or_equal), NULL},
    {TERSE_OP_GREATER, true, TYPES(less), NULL},
    {TERSE_OP_GREATER_OR_EQUAL, true, TYPES(less_or_equal), NULL},
    {.op = TERSE_OP_AND, .boolean = and_bool},
    {.op = TERSE_OP_OR, .boolean = or_bool},
};

static const compare_type *type_of(terse_op op)
{
    const compare_type *type = types;
    while (type->op != op)
        type++;
    return type;
}

static compare_row *row_of(const compare_type *type, terse_dtype dtype)
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
        return type->boolean;
    }
}

typedef struct compare {
    compare_row *row;
    bool swapped;
} compare;

static int plan_compare(terse_op_plan *plan, terse_error *error)
{
    const compare_type *type = type_of(plan->node->op);
    int rank;
    int64_t dims[TERSE_MAX_RANK];
    int status = terse_op_expect(
        plan, 0, "A",
        (type->f32 ? (unsigned)TERSE_TYPES_NUMBER : 0u) | (type->boolean ? (unsigned)TERSE_TYPES_BOOL : 0u), error);
    if (!status)
        status = terse_op_same(plan, 1, "B", 0, error);
    if (!status)
        status = terse_op_broadcast(plan->inputs[0]->dims, plan->inputs[0]->rank, plan->inputs[1]->dims,
                                    plan->inputs[1]->rank, dims, &rank, error);
    if (status)
        return status;
    compare *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->row = row_of(type, plan->inputs[0]->dtype);
    params->swapped = type->swapped;
    return terse_op_output(plan, 0, TERSE_BOOL, rank, dims, error);
}

static void walk_compare(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const compare *params = context;
    const int a = params->swapped ? 2 : 1, b = 3 - a;
    params->row(at[a], strides[a] != 0, at[b], strides[b] != 0, (uint8_t *)at[0], n);
}

static int run_compare(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *a = call->inputs[0], *b = call->inputs[1], *y = &call->outputs[0];
    const int64_t size = (int64_t)terse_dtype_size(a->dtype);
    terse_walk walk;
    terse_walk_tensors(&walk, (const terse_tensor *const[]){y, a, b}, 3);
    terse_walk_unit(&walk, (const int64_t[]){1, size, size});
    terse_walk_run(&walk, (char *const[]){y->data, a->data, b->data}, walk_compare, call->params);
    return TERSE_OK;
}

/* Where moves elements by size. */
typedef uint8_t __attribute__((may_alias)) element_1;
typedef uint16_t __attribute__((may_alias)) element_2;
typedef uint32_t __attribute__((may_alias)) element_4;
typedef uint64_t __attribute__((may_alias)) element_8;

#define WHERE_LOOP(size, sx, sy)                                                                                       \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        const element_##size u = x[i * (sx)], v = y[i * (sy)];                                                         \
        to[i] = condition[i] ? u : v;                                                                                  \
    }
/* The usual strides each have a loop of their own, which the compiler can vectorize. */
#define WHERE(size)                                                                                                    \
    static void where_##size(const void *context, char *const *at, const int64_t *strides, int64_t n)                  \
    {                                                                                                                  \
        (void)context;                                                                                                 \
        const uint8_t *condition = (const uint8_t *)at[1];                                                             \
        const element_##size *x = (const void *)at[2], *y = (const void *)at[3];                                       \
        element_##size *to = (void *)at[0];                                                                            \
        const int64_t sx = strides[2] != 0, sy = strides[3] != 0;                                                      \
        if (strides[1] == 0) {                                                                                         \
            const element_##size *from = *condition ? x : y;                                                           \
            const int64_t stride = *condition ? sx : sy;                                                               \
            for (int64_t i = 0; i < n; i++)                                                                            \
                to[i] = from[i * stride];                                                                              \
        } else if (sx && sy) {                                                                                         \
            WHERE_LOOP(size, 1, 1)                                                                                     \
        } else if (sx) {                                                                                               \
            WHERE_LOOP(size, 1, 0)                                                                                     \
        } else if (sy) {                                                                                               \
            WHERE_LOOP(size, 0, 1)                                                                                     \
        } else {                                                                                                       \
            WHERE_LOOP(size, 0, 0)                                                                                     \
        }                                                                                                              \
    }
WHERE(1)
WHERE(2)
WHERE(4)
WHERE(8)

static int plan_where(terse_op_plan *plan, terse_error *error)
{
    int rank;
    int64_t dims[TERSE_MAX_RANK];
    int status = terse_op_expect(plan, 0, "condition", TERSE_TYPES_BOOL, error);
    if (!status)
        status = terse_op_expect(plan, 1, "X", TERSE_TYPES_ANY, error);
    if (!status)
        status = terse_op_same(plan, 2, "Y", 1, error);
    if (status)
        return status;
    const terse_tensor *condition = plan->inputs[0], *x = plan->inputs[1], *y = plan->inputs[2];
    status = terse_op_broadcast(condition->dims, condition->rank, x->dims, x->rank, dims, &rank, error);
    if (!status)
        status = terse_op_broadcast(dims, rank, y->dims, y->rank, dims, &rank, error);
    return status ? status : terse_op_output(plan, 0, x->dtype, rank, dims, error);
}

static int run_where(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *condition = call->inputs[0], *x = call->inputs[1], *y = call->inputs[2];
    const terse_tensor *to = &call->outputs[0];
    const int64_t size = (int64_t)terse_dtype_size(x->dtype);
    terse_walk walk;
    terse_walk_tensors(&walk, (const terse_tensor *const[]){to, condition, x, y}, 4);
    terse_walk_unit(&walk, (const int64_t[]){size, 1, size, size});
    terse_walk_run(&walk, (char *const[]){to->data, condition->data, x->data, y->data},
                   size == 1   ? where_1
                   : size == 2 ? where_2
                   : size == 4 ? where_4
                               : where_8,
                   NULL);
    return TERSE_OK;
}

#define COMPARE(lower, name)                                                                                           \
    const terse_op_impl terse_op_##lower = {name,                                                                      \
                                            2,                                                                         \
                                            2,                                                                         \
                                            1,                                                                         \
                                            1,                                                                         \
                                            TERSE_OP_IN_PLACE_ANY | TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT, \
                                            0,                                                                         \
                                            plan_compare,                                                              \
                                            run_compare};
COMPARE(equal, "Equal")
COMPARE(less, "Less")
COMPARE(less_or_equal, "LessOrEqual")
COMPARE(greater, "Greater")
COMPARE(greater_or_equal, "GreaterOrEqual")
COMPARE(and, "And")
COMPARE(or, "Or")

const terse_op_impl terse_op_where = {
    "Where", 3,          3,         1, 1, TERSE_OP_IN_PLACE_ANY | TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT,
    0,       plan_where, run_where,
};
