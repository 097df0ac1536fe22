/* SPDX-License-Identifier: Apache-2.0 */
/* CumSum, ArgMax and TopK: along one axis, in order. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/op.h"
#include "common/ops/walk.h"

/* --- CumSum ------------------------------------------------------------------------------------------------ */

#define CUM_SUM(suffix, type, wide)                                                                                    \
    static void cum_sum_##suffix(const void *x, void *y, int64_t n, int64_t inner, bool exclusive, bool reverse)       \
    {                                                                                                                  \
        const type *from = x;                                                                                          \
        type *to = y;                                                                                                  \
        for (int64_t j = 0; j < inner; j++) {                                                                          \
            type sum = 0;                                                                                              \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const int64_t at = (reverse ? n - 1 - i : i) * inner + j;                                              \
                const type next = (type)((wide)sum + (wide)from[at]);                                                  \
                to[at] = exclusive ? sum : next;                                                                       \
                sum = next;                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
    }
CUM_SUM(f32, float, float)
CUM_SUM(i32, int32_t, uint32_t)
CUM_SUM(i64, int64_t, uint64_t)

typedef struct cum_sum {
    bool exclusive, reverse;
} cum_sum;

static int plan_cum_sum(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "x", TERSE_TYPES_FLOAT | TERSE_TYPES_INDEX, error);
    if (!status)
        status = terse_op_expect(plan, 1, "axis", TERSE_TYPES_INDEX, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0], *axis = plan->inputs[1];
    if (terse_tensor_count(axis) != 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 1 (axis) has %" PRId64 " elements, allowed is 1",
                          terse_tensor_count(axis));
    cum_sum *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->exclusive = terse_node_int(plan->node, "exclusive", 0) != 0;
    params->reverse = terse_node_int(plan->node, "reverse", 0) != 0;
    return terse_op_output(plan, 0, x->dtype, x->rank, x->dims, error);
}

static int run_cum_sum(const terse_op_call *call, terse_error *error)
{
    const cum_sum *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    int axis;
    const int status = terse_op_axis(terse_op_index(call->inputs[1], 0), x->rank, &axis, error);
    if (status || terse_tensor_count(x) == 0)
        return status;
    const int64_t outer = terse_dims_count(x->dims, axis), n = x->dims[axis];
    const int64_t inner = terse_dims_count(x->dims + axis + 1, x->rank - axis - 1);
    const int64_t bytes = n * inner * (int64_t)terse_dtype_size(x->dtype);
    for (int64_t o = 0; o < outer; o++) {
        const char *from = (const char *)x->data + o * bytes;
        char *to = (char *)y->data + o * bytes;
        (x->dtype == TERSE_FP32    ? cum_sum_f32
         : x->dtype == TERSE_INT32 ? cum_sum_i32
                                   : cum_sum_i64)(from, to, n, inner, params->exclusive, params->reverse);
    }
    return TERSE_OK;
}

/* --- ArgMax ------------------------------------------------------------------------------------------------ */

typedef struct arg_max {
    int axis;
    bool last; /* of equal elements, the last */
} arg_max;

/* As numpy has it, the first NaN is the maximum. Along rows one by one; across columns a block of them side by side. */
enum { ARG_BLOCK = 256 };
#define ARG_MAX(suffix, type)                                                                                          \
    static int64_t arg_max_row_##suffix(const type *x, int64_t n, int64_t stride, bool last)                           \
    {                                                                                                                  \
        int64_t best = 0;                                                                                              \
        type most = x[0];                                                                                              \
        for (int64_t i = 1; i < n && most == most; i++) {                                                              \
            const type value = x[i * stride];                                                                          \
            if (value > most || value != value || (last && value == most)) {                                           \
                most = value;                                                                                          \
                best = i;                                                                                              \
            }                                                                                                          \
        }                                                                                                              \
        return best;                                                                                                   \
    }                                                                                                                  \
    static void arg_max_##suffix(const void *x, int64_t *y, int64_t n, int64_t inner, bool last)                       \
    {                                                                                                                  \
        const type *from = x;                                                                                          \
        int64_t start = 0;                                                                                             \
        for (; n <= INT32_MAX && inner - start >= ARG_BLOCK; start += ARG_BLOCK) {                                     \
            type most[ARG_BLOCK];                                                                                      \
            int32_t best[ARG_BLOCK] = {0};                                                                             \
            memcpy(most, from + start, sizeof most);                                                                   \
            for (int32_t i = 1; i < (int32_t)n; i++) {                                                                 \
                const type *values = from + i * inner + start;                                                         \
                for (int j = 0; j < ARG_BLOCK; j++) {                                                                  \
                    const type u = values[j], v = most[j];                                                             \
                    const bool more = (u > v) | ((u != u) & (v == v)) | (last & (u == v));                             \
                    most[j] = more ? u : v;                                                                            \
                    best[j] = more ? i : best[j];                                                                      \
                }                                                                                                      \
            }                                                                                                          \
            for (int j = 0; j < ARG_BLOCK; j++)                                                                        \
                y[start + j] = best[j];                                                                                \
        }                                                                                                              \
        for (; start < inner; start++)                                                                                 \
            y[start] = arg_max_row_##suffix(from + start, n, inner, last);                                             \
    }
ARG_MAX(f32, float)
ARG_MAX(i8, int8_t)
ARG_MAX(i32, int32_t)
ARG_MAX(i64, int64_t)
ARG_MAX(u8, uint8_t)

static int plan_arg_max(terse_op_plan *plan, terse_error *error)
{
    int axis, status = terse_op_expect(plan, 0, "data", TERSE_TYPES_NUMBER, error);
    if (!status)
        status = terse_op_axis(terse_node_int(plan->node, "axis", 0), plan->inputs[0]->rank, &axis, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (x->dims[axis] == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis %d has size 0, at least 1 is allowed", axis);
    const bool keep = terse_node_int(plan->node, "keepdims", 1) != 0;
    int64_t dims[TERSE_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < x->rank; i++)
        if (i != axis || keep)
            dims[rank++] = i == axis ? 1 : x->dims[i];
    arg_max *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->axis = axis;
    params->last = terse_node_int(plan->node, "select_last_index", 0) != 0;
    return terse_op_output(plan, 0, TERSE_INT64, rank, dims, error);
}

static int run_arg_max(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const arg_max *params = call->params;
    const terse_tensor *x = call->inputs[0];
    if (terse_tensor_count(x) == 0)
        return TERSE_OK;
    const int axis = params->axis;
    const int64_t outer = terse_dims_count(x->dims, axis), n = x->dims[axis];
    const int64_t inner = terse_dims_count(x->dims + axis + 1, x->rank - axis - 1);
    const int64_t bytes = n * inner * (int64_t)terse_dtype_size(x->dtype);
    for (int64_t o = 0; o < outer; o++)
        (x->dtype == TERSE_FP32    ? arg_max_f32
         : x->dtype == TERSE_INT8  ? arg_max_i8
         : x->dtype == TERSE_INT32 ? arg_max_i32
         : x->dtype == TERSE_INT64 ? arg_max_i64
                                   : arg_max_u8)((const char *)x->data + o * bytes,
                                                 (int64_t *)call->outputs[0].data + o * inner, n, inner, params->last);
    return TERSE_OK;
}

/* --- TopK -------------------------------------------------------------------------------------------------- */

/* Elements become 64-bit keys of the same order, so that one search serves every dtype; the smallest are the largest
 * of the complements. Equal elements: the lower index first. NaN counts as larger than every number. A heap of k
 * indices keeps the worst at its root, then it is taken apart from the back: always sorted, which `sorted = 0` allows.
 */
typedef struct top_k {
    int axis;
    int64_t k;
    bool smallest;
} top_k;

static int plan_top_k(terse_op_plan *plan, terse_error *error)
{
    int64_t k;
    int n, axis, status = terse_op_expect(plan, 0, "X", TERSE_TYPES_NUMBER, error);
    if (!status)
        status = terse_op_ints(plan, 1, "K", &k, 1, &n, error);
    if (!status)
        status = terse_op_axis(terse_node_int(plan->node, "axis", -1), plan->inputs[0]->rank, &axis, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0];
    if (n != 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 1 (K) has %d elements, allowed is 1", n);
    if (k < 0 || k > x->dims[axis])
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "K is %" PRId64 ", allowed are 0 to %" PRId64, k,
                          x->dims[axis]);
    top_k *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    params->axis = axis;
    params->k = k;
    params->smallest = terse_node_int(plan->node, "largest", 1) == 0;
    plan->scratch_bytes = (size_t)(x->dims[axis] + k) * sizeof(int64_t);
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < x->rank; i++)
        dims[i] = i == axis ? k : x->dims[i];
    status = terse_op_output(plan, 0, x->dtype, x->rank, dims, error);
    return status ? status : terse_op_output(plan, 1, TERSE_INT64, x->rank, dims, error);
}

static int64_t key_of_float(float value)
{
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value)
        return INT64_MAX;
    /* Negative floats order backwards as integers; both zeros become 0. */
    return bits < 0 ? -(int64_t)(bits & INT32_MAX) : bits;
}

#define KEYS(type, key)                                                                                                \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        const type v = ((const type *)x)[i * step];                                                                    \
        keys[i] = key;                                                                                                 \
    }

static void make_keys(terse_dtype dtype, const void *x, int64_t step, int64_t n, bool complement, int64_t *keys)
{
    switch (dtype) {
    case TERSE_FP32:
        KEYS(float, key_of_float(v))
        break;
    case TERSE_INT8:
        KEYS(int8_t, v)
        break;
    case TERSE_UINT8:
        KEYS(uint8_t, v)
        break;
    case TERSE_INT32:
        KEYS(int32_t, v)
        break;
    default:
        KEYS(int64_t, v)
        break;
    }
    for (int64_t i = 0; complement && i < n; i++)
        keys[i] = ~keys[i];
}

static bool better(const int64_t *keys, int64_t a, int64_t b)
{
    return keys[a] > keys[b] || (keys[a] == keys[b] && a < b);
}

/* Puts `index` into the hole at `at` of a heap of n whose root is its worst. */
static void sift_down(int64_t *heap, int64_t n, int64_t at, int64_t index, const int64_t *keys)
{
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && better(keys, heap[child], heap[child + 1]))
            child++;
        if (!better(keys, index, heap[child]))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = index;
}

/* heap[0..k) = the indices of the k best of n keys, best first. */
static void select_best(const int64_t *keys, int64_t n, int64_t *heap, int64_t k)
{
    for (int64_t i = 0; i < k; i++)
        heap[i] = i;
    for (int64_t i = k / 2 - 1; i >= 0; i--)
        sift_down(heap, k, i, heap[i], keys);
    /* What comes later has the higher index: only a larger key is better. */
    int64_t worst = k > 0 ? keys[heap[0]] : INT64_MAX;
    for (int64_t i = k; i < n; i++)
        if (keys[i] > worst) {
            sift_down(heap, k, 0, i, keys);
            worst = keys[heap[0]];
        }
    for (int64_t i = k - 1; i > 0; i--) {
        const int64_t last = heap[i];
        heap[i] = heap[0];
        sift_down(heap, i, 0, last, keys);
    }
}

static int run_top_k(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const top_k *params = call->params;
    const terse_tensor *x = call->inputs[0];
    const int axis = params->axis;
    const int64_t n = x->dims[axis], k = params->k, size = (int64_t)terse_dtype_size(x->dtype);
    const int64_t outer = terse_dims_count(x->dims, axis);
    const int64_t inner = terse_dims_count(x->dims + axis + 1, x->rank - axis - 1);
    char *values = call->outputs[0].data;
    int64_t *indices = call->n_outputs > 1 ? call->outputs[1].data : NULL;
    int64_t *keys = call->scratch, *heap = keys + n;
    for (int64_t row = 0; k && row < outer * inner; row++) {
        const int64_t o = row / inner, j = row % inner;
        const char *from = (const char *)x->data + (o * n * inner + j) * size;
        make_keys(x->dtype, from, inner, n, params->smallest, keys);
        select_best(keys, n, heap, k);
        for (int64_t i = 0; i < k; i++) {
            const int64_t at = (o * k + i) * inner + j;
            if (values)
                memcpy(values + at * size, from + heap[i] * inner * size, (size_t)size);
            if (indices)
                indices[at] = heap[i];
        }
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_cum_sum = {"CumSum", 2, 2, 1, 1, TERSE_OP_IN_PLACE, 0, plan_cum_sum, run_cum_sum};
const terse_op_impl terse_op_arg_max = {"ArgMax", 1, 1, 1, 1, 0, 0, plan_arg_max, run_arg_max};
const terse_op_impl terse_op_top_k = {"TopK", 2, 2, 1, 2, 0, 2, plan_top_k, run_top_k};
