/* SPDX-License-Identifier: Apache-2.0 */
/* ScatterND: a copy of data with updates put in, or added, multiplied, and so on, in the order of the indices. */
#include <inttypes.h>
#include <string.h>

#include "common/ops/gather.h"
#include "common/ops/op.h"
#include "common/ops/walk.h"

typedef void scatter_row(void *to, const void *from, int64_t n);

#define ROW(name, type, expression)                                                                                    \
    static void name(void *to, const void *from, int64_t n)                                                            \
    {                                                                                                                  \
        type *data = to;                                                                                               \
        const type *updates = from;                                                                                    \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const type u = data[i], v = updates[i];                                                                    \
            data[i] = (type)(expression);                                                                              \
        }                                                                                                              \
    }
#define ROWS(suffix, type, wide)                                                                                       \
    ROW(add_##suffix, type, (wide)u + (wide)v)                                                                         \
    ROW(mul_##suffix, type, (wide)u *(wide)v)                                                                          \
    ROW(min_##suffix, type, u != u || u < v ? u : v)                                                                   \
    ROW(max_##suffix, type, u != u || u > v ? u : v)
ROWS(f32, float, float)
ROWS(i8, int8_t, uint32_t)
ROWS(i32, int32_t, uint32_t)
ROWS(i64, int64_t, uint64_t)
ROWS(u8, uint8_t, uint32_t)

enum { N_REDUCTIONS = 4, N_TYPES = 5 };
static const char *const reductions[N_REDUCTIONS] = {"add", "mul", "min", "max"};
static const terse_dtype dtypes[N_TYPES] = {TERSE_FP32, TERSE_INT8, TERSE_INT32, TERSE_INT64, TERSE_UINT8};
static scatter_row *const rows[N_REDUCTIONS][N_TYPES] = {
    {add_f32, add_i8, add_i32, add_i64, add_u8},
    {mul_f32, mul_i8, mul_i32, mul_i64, mul_u8},
    {min_f32, min_i8, min_i32, min_i64, min_u8},
    {max_f32, max_i8, max_i32, max_i64, max_u8},
};

typedef struct scatter {
    scatter_row *row; /* NULL: updates replace */
    int depth;
} scatter;

static int read_reduction(const terse_op_plan *plan, scatter_row **ret_row, terse_error *error)
{
    const char *name = terse_node_text(plan->node, "reduction", "none");
    *ret_row = NULL;
    if (strcmp(name, "none") == 0)
        return TERSE_OK;
    int reduction = 0, type = 0;
    while (reduction < N_REDUCTIONS && strcmp(name, reductions[reduction]) != 0)
        reduction++;
    if (reduction == N_REDUCTIONS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "reduction is '%s', allowed are none, add, mul, min and max",
                          name);
    const int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_NUMBER, error);
    if (status)
        return status;
    while (dtypes[type] != plan->inputs[0]->dtype)
        type++;
    *ret_row = rows[reduction][type];
    return TERSE_OK;
}

static int check_updates(const terse_tensor *x, const terse_tensor *indices, const terse_tensor *updates, int depth,
                         terse_error *error)
{
    int64_t dims[2 * TERSE_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < indices->rank - 1; i++)
        dims[rank++] = indices->dims[i];
    for (int i = depth; i < x->rank; i++)
        dims[rank++] = x->dims[i];
    bool fits = updates->rank == rank;
    for (int i = 0; fits && i < rank; i++)
        fits = updates->dims[i] == dims[i];
    if (fits)
        return TERSE_OK;
    char found[128], allowed[256];
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "updates has shape %s, must be %s",
                      terse_dims_text(updates->dims, updates->rank, found, sizeof found),
                      terse_dims_text(dims, rank, allowed, sizeof allowed));
}

static int plan_scatter_nd(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (!status)
        status = terse_op_expect(plan, 1, "indices", TERSE_TYPES_INDEX, error);
    if (!status)
        status = terse_op_same(plan, 2, "updates", 0, error);
    scatter *params = status ? NULL : terse_op_params(plan, sizeof *params, error);
    if (!params)
        return status ? status : TERSE_RESOURCE_EXHAUSTED;
    const terse_tensor *x = plan->inputs[0], *indices = plan->inputs[1];
    if (x->rank < 1 || indices->rank < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "data and indices have ranks %d and %d, at least 1 is allowed",
                          x->rank, indices->rank);
    const int64_t depth = indices->dims[indices->rank - 1];
    if (depth < 1 || depth > x->rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the last dimension of indices is %" PRId64 ", allowed are 1 to %d", depth, x->rank);
    params->depth = (int)depth;
    status = check_updates(x, indices, plan->inputs[2], params->depth, error);
    if (!status)
        status = read_reduction(plan, &params->row, error);
    return status ? status : terse_op_output(plan, 0, x->dtype, x->rank, x->dims, error);
}

static int run_scatter_nd(const terse_op_call *call, terse_error *error)
{
    const scatter *params = call->params;
    const terse_tensor *x = call->inputs[0], *indices = call->inputs[1], *updates = call->inputs[2];
    const terse_tensor *y = &call->outputs[0];
    const int depth = params->depth;
    const int64_t count = terse_tensor_count(indices), bytes = terse_tensor_bytes(y);
    const int status = terse_gather_check(indices, count, x->dims, depth, error);
    if (status || bytes == 0)
        return status;
    if (y->data != x->data)
        memcpy(y->data, x->data, (size_t)bytes);
    const int64_t elements = terse_dims_count(x->dims + depth, x->rank - depth);
    const int64_t row_bytes = elements * (int64_t)terse_dtype_size(x->dtype);
    for (int64_t t = 0; t < count / depth; t++) {
        char *to = (char *)y->data + terse_gather_offset(indices, t, x->dims, depth) * row_bytes;
        const char *from = (const char *)updates->data + t * row_bytes;
        if (params->row)
            params->row(to, from, elements);
        else
            terse_walk_bytes(to, from, row_bytes);
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_scatter_nd = {
    "ScatterND", 3, 3, 1, 1, TERSE_OP_IN_PLACE, 0, plan_scatter_nd, run_scatter_nd,
};
