/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ops/op.h"

#include <inttypes.h>
#include <string.h>

const terse_op_impl *terse_op_find(terse_op op)
{
    static const terse_op_impl *const table[] = {
#define ROW(upper, lower, name) [TERSE_OP_##upper] = &terse_op_##lower,
        TERSE_OPS(ROW)
#undef ROW
    };
    return (unsigned)op < TERSE_OP_COUNT ? table[op] : NULL;
}

int terse_op_output(terse_op_plan *plan, int index, terse_dtype dtype, int rank, const int64_t *dims,
                    terse_error *error)
{
    if (index >= plan->n_outputs)
        return TERSE_OK;
    if (rank > TERSE_MAX_RANK)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "output has rank %d, at most %d is allowed", rank,
                          TERSE_MAX_RANK);
    const int64_t count = terse_dims_count(dims, rank);
    if (count < 0 || count > TERSE_MAX_TENSOR_BYTES / 8) {
        char text[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "output shape %s is not a shape or too large",
                          terse_dims_text(dims, rank, text, sizeof text));
    }
    plan->outputs[index] = terse_tensor_view(NULL, dtype, rank, dims);
    return TERSE_OK;
}

void *terse_op_params(terse_op_plan *plan, size_t bytes, terse_error *error)
{
    plan->params = terse_arena_alloc(plan->arena, bytes);
    if (!plan->params)
        terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes of parameters", bytes);
    return plan->params;
}

int terse_op_axis(int64_t axis, int rank, int *ret_axis, terse_error *error)
{
    if (axis < -rank || axis >= rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis %" PRId64 ", allowed for rank %d are %d to %d", axis,
                          rank, -rank, rank - 1);
    *ret_axis = (int)(axis < 0 ? axis + rank : axis);
    return TERSE_OK;
}

int terse_op_ints(const terse_op_plan *plan, int index, const char *what, int64_t *ret_values, int max, int *ret_n,
                  terse_error *error)
{
    const terse_tensor *tensor = terse_op_input(plan, index);
    if (!tensor)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) is missing", index, what);
    if (tensor->dtype != TERSE_INT64 && tensor->dtype != TERSE_INT32)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) is %s, allowed are INT64 and INT32", index,
                          what, terse_dtype_name(tensor->dtype));
    const int64_t count = terse_tensor_count(tensor);
    if (tensor->rank > 1 || count > max)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input %d (%s) has rank %d and %" PRId64 " elements, at most rank 1 and %d are allowed",
                          index, what, tensor->rank, count, max);
    if (!tensor->data && count > 0)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "input %d (%s) depends on the data, only on shapes is allowed",
                          index, what);
    for (int64_t i = 0; i < count; i++)
        ret_values[i] = terse_op_index(tensor, i);
    *ret_n = (int)count;
    return TERSE_OK;
}

int terse_op_expect(const terse_op_plan *plan, int index, const char *what, unsigned dtypes, terse_error *error)
{
    const terse_tensor *tensor = terse_op_input(plan, index);
    if (!tensor)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) is missing", index, what);
    if (dtypes >> tensor->dtype & 1u)
        return TERSE_OK;
    char allowed[128] = "";
    for (unsigned d = 1; d <= TERSE_BOOL; d++)
        if (dtypes >> d & 1u) {
            strncat(allowed, *allowed ? ", " : "", sizeof allowed - strlen(allowed) - 1);
            strncat(allowed, terse_dtype_name((terse_dtype)d), sizeof allowed - strlen(allowed) - 1);
        }
    return terse_fail(error, TERSE_UNIMPLEMENTED, "input %d (%s) is %s, allowed: %s", index, what,
                      terse_dtype_name(tensor->dtype), allowed);
}

int terse_op_same(const terse_op_plan *plan, int index, const char *what, int other, terse_error *error)
{
    const terse_tensor *tensor = terse_op_input(plan, index);
    const terse_tensor *model = terse_op_input(plan, other);
    if (!tensor || !model)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) is missing", tensor ? other : index, what);
    if (tensor->dtype != model->dtype)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) is %s, must be %s as input %d is", index, what,
                          terse_dtype_name(tensor->dtype), terse_dtype_name(model->dtype), other);
    return TERSE_OK;
}

int terse_op_broadcast(const int64_t *a, int rank_a, const int64_t *b, int rank_b, int64_t *ret_dims, int *ret_rank,
                       terse_error *error)
{
    const int rank = rank_a > rank_b ? rank_a : rank_b;
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        const int64_t da = i < rank - rank_a ? 1 : a[i - (rank - rank_a)];
        const int64_t db = i < rank - rank_b ? 1 : b[i - (rank - rank_b)];
        if (da != db && da != 1 && db != 1) {
            char ta[128], tb[128];
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "shapes %s and %s do not broadcast",
                              terse_dims_text(a, rank_a, ta, sizeof ta), terse_dims_text(b, rank_b, tb, sizeof tb));
        }
        dims[i] = da == 1 ? db : da;
    }
    for (int i = 0; i < rank; i++)
        ret_dims[i] = dims[i];
    *ret_rank = rank;
    return TERSE_OK;
}
