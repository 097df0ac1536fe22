/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. ReduceSum, ReduceMean, ReduceMax, ReduceProd over any set of axes. Neighbouring axes of the same kind
 * are merged, so what is left alternates between kept and reduced ones. When the last axis is reduced, each output
 * element is made of dense rows: fp32 rows go through the kernels' 16-lane sum and the rows' results are added in index
 * order. When the last axis is kept, whole rows are accumulated in index order. Either order is fixed per output
 * element. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/support.h"

typedef enum reduce_kind { REDUCE_SUM, REDUCE_MEAN, REDUCE_MAX, REDUCE_PROD } reduce_kind;

typedef struct axes_walk {
    int rank;
    int64_t dims[TERSE_MAX_RANK], strides[TERSE_MAX_RANK];
    int64_t count;
} axes_walk;

typedef struct reduce_params {
    reduce_kind kind;
    bool last_reduced;
    axes_walk kept, reduced; /* without the innermost axis */
    int64_t width;           /* of the innermost axis */
    int64_t elements;        /* reduced into one */
} reduce_params;

/* The element offset of step `index` of a walk. */
static int64_t offset_of(const axes_walk *walk, int64_t index)
{
    int64_t offset = 0;
    for (int i = walk->rank - 1; i >= 0; i--) {
        offset += index % walk->dims[i] * walk->strides[i];
        index /= walk->dims[i];
    }
    return offset;
}

static int read_axes(const terse_op_plan *plan, bool *ret_reduced, terse_error *error)
{
    const int rank = plan->inputs[0]->rank;
    int64_t axes[TERSE_MAX_RANK];
    int n = 0;
    if (terse_op_input(plan, 1)) {
        const int status = terse_op_ints(plan, 1, "axes", axes, TERSE_MAX_RANK, &n, error);
        if (status != TERSE_OK)
            return status;
    }
    const bool all = n == 0 && terse_node_int(plan->node, "noop_with_empty_axes", 0) == 0;
    for (int i = 0; i < rank; i++)
        ret_reduced[i] = all;
    for (int i = 0; i < n; i++) {
        int axis;
        const int status = terse_op_axis(axes[i], rank, &axis, error);
        if (status != TERSE_OK)
            return status;
        if (ret_reduced[axis])
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 1 (axes) names axis %d twice", axis);
        ret_reduced[axis] = true;
    }
    return TERSE_OK;
}

static void push(axes_walk *walk, int64_t dim, int64_t stride)
{
    walk->dims[walk->rank] = dim;
    walk->strides[walk->rank++] = stride;
    walk->count *= dim;
}

/* Merges neighbours and splits them into the two walks and the innermost axis. */
static void set_walks(const terse_tensor *x, const bool *reduced, reduce_params *params)
{
    int64_t dims[TERSE_MAX_RANK + 1], strides[TERSE_MAX_RANK + 1];
    bool kind[TERSE_MAX_RANK + 1];
    int n = 0;
    for (int i = 0; i < x->rank; i++) {
        if (x->dims[i] == 1) /* neither kind */
            continue;
        if (n > 0 && kind[n - 1] == reduced[i]) {
            dims[n - 1] *= x->dims[i];
        } else {
            dims[n] = x->dims[i];
            kind[n++] = reduced[i];
        }
    }
    int64_t stride = 1;
    for (int i = n - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= dims[i];
    }
    params->kept = params->reduced = (axes_walk){.count = 1};
    params->width = n > 0 ? dims[n - 1] : 1;
    params->last_reduced = n > 0 && kind[n - 1];
    for (int i = 0; i < n - 1; i++)
        push(kind[i] ? &params->reduced : &params->kept, dims[i], strides[i]);
    params->elements = params->reduced.count * (params->last_reduced ? params->width : 1);
}

static int plan_reduce(terse_op_plan *plan, reduce_kind kind, unsigned dtypes, terse_error *error)
{
    bool reduced[TERSE_MAX_RANK];
    int64_t dims[TERSE_MAX_RANK];
    int status = terse_op_expect(plan, 0, "data", dtypes, error);
    if (status == TERSE_OK)
        status = read_axes(plan, reduced, error);
    if (status != TERSE_OK)
        return status;
    reduce_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    const terse_tensor *x = plan->inputs[0];
    const bool keep = terse_node_int(plan->node, "keepdims", 1) != 0;
    int rank = 0;
    for (int i = 0; i < x->rank; i++)
        if (!reduced[i] || keep)
            dims[rank++] = reduced[i] ? 1 : x->dims[i];
    params->kind = kind;
    set_walks(x, reduced, params);
    return terse_op_output(plan, 0, x->dtype, rank, dims, error);
}

static void add_row(const terse_op_call *call, reduce_kind kind, const float *row, float *y, int64_t n)
{
    if (kind == REDUCE_PROD) {
        call->kernels->mul_f32(y, 1, row, 1, y, n);
        return;
    }
    if (kind != REDUCE_MAX) {
        call->kernels->add_f32(y, 1, row, 1, y, n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        y[i] = y[i] > row[i] || y[i] != y[i] ? y[i] : row[i];
}

static float product_of(const float *row, int64_t n)
{
    float product = 1.0f;
    for (int64_t i = 0; i < n; i++)
        product *= row[i];
    return product;
}

static void reduce_f32(const terse_op_call *call, const reduce_params *p)
{
    const float *x = call->inputs[0]->data;
    float *y = call->outputs[0].data;
    const float count = (float)p->elements;
    const int64_t step = p->last_reduced ? 1 : p->width;
    for (int64_t i = 0; i < p->kept.count; i++, y += step) {
        const float *from = x + offset_of(&p->kept, i);
        for (int64_t r = 0; r < p->reduced.count; r++) {
            const float *row = from + offset_of(&p->reduced, r);
            float value;
            if (p->last_reduced) {
                value = p->kind == REDUCE_MAX    ? call->kernels->max_f32(row, p->width)
                        : p->kind == REDUCE_PROD ? product_of(row, p->width)
                                                 : call->kernels->sum_f32(row, p->width);
                row = &value;
            }
            if (r == 0)
                memcpy(y, row, (size_t)step * sizeof *y);
            else
                add_row(call, p->kind, row, y, step);
        }
        if (p->kind == REDUCE_MEAN)
            call->kernels->div_f32(y, 1, &count, 0, y, step);
    }
}

/* Integers: sums and products wrap, means truncate towards zero. */
#define REDUCE_INTEGERS(name, type)                                                                                    \
    static void name(const terse_op_call *call, const reduce_params *p)                                                \
    {                                                                                                                  \
        const type *x = call->inputs[0]->data;                                                                         \
        type *y = call->outputs[0].data;                                                                               \
        const int64_t step = p->last_reduced ? 1 : p->width, width = p->last_reduced ? p->width : 1;                   \
        for (int64_t i = 0; i < p->kept.count; i++)                                                                    \
            for (int64_t j = 0; j < step; j++) {                                                                       \
                const type *from = x + offset_of(&p->kept, i) + j;                                                     \
                uint64_t sum = 0, product = 1;                                                                         \
                type most = *from;                                                                                     \
                for (int64_t r = 0; r < p->reduced.count; r++)                                                         \
                    for (int64_t k = 0; k < width; k++) {                                                              \
                        const type value = from[offset_of(&p->reduced, r) + k];                                        \
                        sum += (uint64_t)value;                                                                        \
                        product *= (uint64_t)value;                                                                    \
                        most = value > most ? value : most;                                                            \
                    }                                                                                                  \
                *y++ = (type)(p->kind == REDUCE_MAX    ? most                                                          \
                              : p->kind == REDUCE_PROD ? (type)product                                                 \
                              : p->kind == REDUCE_SUM  ? (type)sum                                                     \
                                                       : (type)((type)sum / (type)p->elements));                        \
            }                                                                                                          \
    }
REDUCE_INTEGERS(reduce_i8, int8_t)
REDUCE_INTEGERS(reduce_u8, uint8_t)
REDUCE_INTEGERS(reduce_i32, int32_t)
REDUCE_INTEGERS(reduce_i64, int64_t)

/* What nothing at all reduces to: 0, 1, or the least number of the type. */
static void fill_identity(const terse_tensor *y, reduce_kind kind)
{
    const int64_t count = terse_tensor_count(y);
    for (int64_t i = 0; i < count; i++) {
        if (y->dtype == TERSE_FP32)
            ((float *)y->data)[i] = kind == REDUCE_MAX    ? -__builtin_inff()
                                    : kind == REDUCE_SUM  ? 0.0f
                                    : kind == REDUCE_PROD ? 1.0f
                                                          : __builtin_nanf("");
        else if (y->dtype == TERSE_INT32)
            ((int32_t *)y->data)[i] = kind == REDUCE_MAX ? INT32_MIN : kind == REDUCE_PROD;
        else if (y->dtype == TERSE_INT64)
            ((int64_t *)y->data)[i] = kind == REDUCE_MAX ? INT64_MIN : kind == REDUCE_PROD;
        else
            ((int8_t *)y->data)[i] = y->dtype == TERSE_INT8 ? INT8_MIN : 0;
    }
}

static int run_reduce(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const reduce_params *p = call->params;
    if (terse_tensor_count(&call->outputs[0]) == 0)
        return TERSE_OK;
    if (p->elements == 0) {
        fill_identity(&call->outputs[0], p->kind);
        return TERSE_OK;
    }
    switch (call->inputs[0]->dtype) {
    case TERSE_FP32:
        reduce_f32(call, p);
        break;
    case TERSE_INT32:
        reduce_i32(call, p);
        break;
    case TERSE_INT64:
        reduce_i64(call, p);
        break;
    case TERSE_INT8:
        reduce_i8(call, p);
        break;
    default:
        reduce_u8(call, p);
    }
    return TERSE_OK;
}

enum { SUM_DTYPES = 1 << TERSE_FP32 | 1 << TERSE_INT32 | 1 << TERSE_INT64 };

static int plan_sum(terse_op_plan *plan, terse_error *error)
{
    return plan_reduce(plan, REDUCE_SUM, SUM_DTYPES, error);
}

static int plan_mean(terse_op_plan *plan, terse_error *error)
{
    return plan_reduce(plan, REDUCE_MEAN, SUM_DTYPES, error);
}

static int plan_prod(terse_op_plan *plan, terse_error *error)
{
    return plan_reduce(plan, REDUCE_PROD, SUM_DTYPES, error);
}

static int plan_max(terse_op_plan *plan, terse_error *error)
{
    return plan_reduce(plan, REDUCE_MAX, SUM_DTYPES | 1u << TERSE_INT8 | 1u << TERSE_UINT8 | 1u << TERSE_BOOL, error);
}

#define REDUCE_IMPL(lower, upper_name, plan_function)                                                                  \
    const terse_op_impl terse_op_##lower = {                                                                           \
        .name = upper_name,                                                                                            \
        .min_inputs = 1,                                                                                               \
        .max_inputs = 2,                                                                                               \
        .min_outputs = 1,                                                                                              \
        .max_outputs = 1,                                                                                              \
        .value_inputs = 1u << 1,                                                                                       \
        .plan = plan_function,                                                                                         \
        .run = run_reduce,                                                                                             \
    }
REDUCE_IMPL(reduce_sum, "ReduceSum", plan_sum);
REDUCE_IMPL(reduce_mean, "ReduceMean", plan_mean);
REDUCE_IMPL(reduce_max, "ReduceMax", plan_max);
REDUCE_IMPL(reduce_prod, "ReduceProd", plan_prod);
