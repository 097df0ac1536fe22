/* SPDX-License-Identifier: Apache-2.0 */
/* Cast and Clip: one input, element by element, every dtype.
 *
 * Cast: to BOOL is "not zero" (NaN is true). From FP32 to integers: truncated towards zero, numbers out of range
 * become the nearest end of the range, NaN becomes 0. Between integers: the low bits, as numpy has it. */
#include "common/ops/walk.h"

#include <inttypes.h>
#include <math.h>

#include "common/kernels/bf16.h"
#include "common/ops/op.h"

typedef void cast_row(const void *x, void *y, int64_t n);

#define CAST(name, from_type, to_type, expression)                                                                     \
    static void cast_##name(const void *x, void *y, int64_t n)                                                         \
    {                                                                                                                  \
        const from_type *from = x;                                                                                     \
        to_type *to = y;                                                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const from_type v = from[i];                                                                               \
            to[i] = (to_type)(expression);                                                                             \
        }                                                                                                              \
    }

/* low and high: the first float at or below the range, and the first above it. */
#define SATURATE(low, high, min, max) (v >= (high) ? (max) : v <= (low) ? (min) : v != v ? 0 : (int64_t)v)
CAST(f32_i8, float, int8_t, SATURATE(-128.0f, 128.0f, INT8_MIN, INT8_MAX))
CAST(f32_i32, float, int32_t, SATURATE(-0x1p31f, 0x1p31f, INT32_MIN, INT32_MAX))
CAST(f32_i64, float, int64_t, SATURATE(-0x1p63f, 0x1p63f, INT64_MIN, INT64_MAX))
CAST(f32_u8, float, uint8_t, SATURATE(0.0f, 256.0f, 0, UINT8_MAX))
CAST(f32_bool, float, uint8_t, v != 0)
CAST(i8_f32, int8_t, float, v)
CAST(i8_i32, int8_t, int32_t, v)
CAST(i8_i64, int8_t, int64_t, v)
CAST(i32_f32, int32_t, float, v)
CAST(i32_i8, int32_t, int8_t, v)
CAST(i32_i64, int32_t, int64_t, v)
CAST(i32_bool, int32_t, uint8_t, v != 0)
CAST(i64_f32, int64_t, float, v)
CAST(i64_i8, int64_t, int8_t, v)
CAST(i64_i32, int64_t, int32_t, v)
CAST(i64_bool, int64_t, uint8_t, v != 0)
CAST(u8_f32, uint8_t, float, v)
CAST(u8_i32, uint8_t, int32_t, v)
CAST(u8_i64, uint8_t, int64_t, v)
CAST(u8_bool, uint8_t, uint8_t, v != 0)
CAST(f32_bf16, float, uint16_t, bf16_from(v))
CAST(bf16_f32, uint16_t, float, bf16_to(v))
CAST(copy_1, uint8_t, uint8_t, v)
CAST(copy_4, uint32_t, uint32_t, v)
CAST(copy_8, uint64_t, uint64_t, v)

enum { N_CAST = 6 };
static const terse_dtype cast_dtypes[N_CAST] = {TERSE_FP32,  TERSE_INT8,  TERSE_INT32,
                                                TERSE_INT64, TERSE_UINT8, TERSE_BOOL};
/* [from][to] in the order of cast_dtypes. */
static cast_row *const casts[N_CAST][N_CAST] = {
    {cast_copy_4, cast_f32_i8, cast_f32_i32, cast_f32_i64, cast_f32_u8, cast_f32_bool},
    {cast_i8_f32, cast_copy_1, cast_i8_i32, cast_i8_i64, cast_copy_1, cast_u8_bool},
    {cast_i32_f32, cast_i32_i8, cast_copy_4, cast_i32_i64, cast_i32_i8, cast_i32_bool},
    {cast_i64_f32, cast_i64_i8, cast_i64_i32, cast_copy_8, cast_i64_i8, cast_i64_bool},
    {cast_u8_f32, cast_copy_1, cast_u8_i32, cast_u8_i64, cast_copy_1, cast_u8_bool},
    {cast_u8_f32, cast_copy_1, cast_u8_i32, cast_u8_i64, cast_copy_1, cast_copy_1},
};

static int cast_index(terse_dtype dtype)
{
    for (int i = 0; i < N_CAST; i++)
        if (cast_dtypes[i] == dtype)
            return i;
    return -1;
}

/* NULL where there is none: BF16 goes to FP32 and back only. */
static cast_row *find_cast(terse_dtype from, terse_dtype to)
{
    if (from == TERSE_BF16)
        return to == TERSE_FP32 ? cast_bf16_f32 : NULL;
    if (to == TERSE_BF16)
        return from == TERSE_FP32 ? cast_f32_bf16 : NULL;
    return cast_index(from) < 0 || cast_index(to) < 0 ? NULL : casts[cast_index(from)][cast_index(to)];
}

typedef struct cast {
    cast_row *row;
} cast;

static int plan_cast(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ALL | 1u << TERSE_BF16, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    const int64_t to = terse_node_int(plan->node, "to", TERSE_DTYPE_NONE);
    cast_row *row = to < 0 || to > TERSE_BOOL ? NULL : find_cast(x->dtype, (terse_dtype)to);
    if (!row)
        return terse_fail(error, TERSE_UNIMPLEMENTED,
                          "to is %s, allowed are FP32, INT8, INT32, INT64, UINT8 and BOOL (BF16 from and to FP32)",
                          to < 0 || to > TERSE_BOOL ? "no dtype" : terse_dtype_name((terse_dtype)to));
    cast *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->row = row;
    return terse_op_output(plan, 0, (terse_dtype)to, x->rank, x->dims, error);
}

static void walk_cast(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    (void)strides;
    const cast *params = context;
    params->row(at[1], at[0], n);
}

static int run_cast(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    terse_walk walk;
    terse_walk_tensors(&walk, (const terse_tensor *const[]){y, x}, 2);
    terse_walk_unit(&walk, (const int64_t[]){(int64_t)terse_dtype_size(y->dtype), (int64_t)terse_dtype_size(x->dtype)});
    terse_walk_run(&walk, (char *const[]){y->data, x->data}, walk_cast, call->params);
    return TERSE_OK;
}

const terse_op_impl terse_op_cast = {
    "Cast", 1, 1, 1, 1, TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT, 0, plan_cast, run_cast,
};

/* Clip: min(max(x, low), high); the bounds are scalars, read when the node runs, absent ones do not bound. */
#define CLIP(name, type)                                                                                               \
    static void clip_##name(const void *context, char *const *at, const int64_t *strides, int64_t n)                   \
    {                                                                                                                  \
        (void)strides;                                                                                                 \
        const terse_op_call *call = context;                                                                           \
        const terse_tensor *low = call->n_inputs > 1 ? call->inputs[1] : NULL;                                         \
        const terse_tensor *high = call->n_inputs > 2 ? call->inputs[2] : NULL;                                        \
        const type *from = (const void *)at[1];                                                                        \
        type *to = (void *)at[0];                                                                                      \
        const type least = low ? *(const type *)low->data : 0, most = high ? *(const type *)high->data : 0;            \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            type v = from[i];                                                                                          \
            if (low && v < least)                                                                                      \
                v = least;                                                                                             \
            if (high && v > most)                                                                                      \
                v = most;                                                                                              \
            to[i] = v;                                                                                                 \
        }                                                                                                              \
    }
CLIP(i8, int8_t)
CLIP(i32, int32_t)
CLIP(i64, int64_t)
CLIP(u8, uint8_t)

static void clip_f32(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    (void)strides;
    const terse_op_call *call = context;
    const terse_tensor *low = call->n_inputs > 1 ? call->inputs[1] : NULL;
    const terse_tensor *high = call->n_inputs > 2 ? call->inputs[2] : NULL;
    const terse_activation clip = {TERSE_ACT_CLIP, low ? *(const float *)low->data : -INFINITY,
                                   high ? *(const float *)high->data : INFINITY};
    call->kernels->activate_f32((const void *)at[1], (void *)at[0], n, clip);
}

static int plan_clip(terse_op_plan *plan, terse_error *error)
{
    static const char *const names[] = {"input", "min", "max"};
    int status = terse_op_expect(plan, 0, names[0], TERSE_TYPES_NUMBER, error);
    for (int i = 1; !status && i <= 2; i++) {
        const terse_tensor *bound = terse_op_input(plan, i);
        if (!bound)
            continue;
        status = terse_op_same(plan, i, names[i], 0, error);
        if (!status && terse_tensor_count(bound) != 1)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has %" PRId64 " elements, allowed is 1",
                                i, names[i], terse_tensor_count(bound));
    }
    return status
               ? status
               : terse_op_output(plan, 0, plan->inputs[0]->dtype, plan->inputs[0]->rank, plan->inputs[0]->dims, error);
}

static int run_clip(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const int64_t size = (int64_t)terse_dtype_size(x->dtype);
    terse_walk_row *row = x->dtype == TERSE_FP32    ? clip_f32
                          : x->dtype == TERSE_INT8  ? clip_i8
                          : x->dtype == TERSE_INT32 ? clip_i32
                          : x->dtype == TERSE_INT64 ? clip_i64
                                                    : clip_u8;
    terse_walk walk;
    terse_walk_tensors(&walk, (const terse_tensor *const[]){y, x}, 2);
    terse_walk_unit(&walk, (const int64_t[]){size, size});
    terse_walk_run(&walk, (char *const[]){y->data, x->data}, row, call);
    return TERSE_OK;
}

const terse_op_impl terse_op_clip = {
    "Clip", 1, 3, 1, 1, TERSE_OP_IN_PLACE | TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT, 0, plan_clip, run_clip,
};
