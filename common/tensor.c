/* SPDX-License-Identifier: Apache-2.0 */
#include "common/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [TERSE_DTYPE_NONE] = {"NONE", 0}, [TERSE_FP32] = {"FP32", 4},     [TERSE_FP64] = {"FP64", 8},
    [TERSE_FP16] = {"FP16", 2},       [TERSE_BF16] = {"BF16", 2},     [TERSE_INT8] = {"INT8", 1},
    [TERSE_INT16] = {"INT16", 2},     [TERSE_INT32] = {"INT32", 4},   [TERSE_INT64] = {"INT64", 8},
    [TERSE_UINT8] = {"UINT8", 1},     [TERSE_UINT16] = {"UINT16", 2}, [TERSE_UINT32] = {"UINT32", 4},
    [TERSE_UINT64] = {"UINT64", 8},   [TERSE_BOOL] = {"BOOL", 1},
};

enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

size_t terse_dtype_size(terse_dtype dtype)
{
    return (unsigned)dtype < N_DTYPES ? dtypes[dtype].size : 0;
}

const char *terse_dtype_name(terse_dtype dtype)
{
    return (unsigned)dtype < N_DTYPES ? dtypes[dtype].name : "?";
}

terse_dtype terse_dtype_from_name(const char *name, size_t length)
{
    for (unsigned i = 1; i < N_DTYPES; i++)
        if (strlen(dtypes[i].name) == length && memcmp(dtypes[i].name, name, length) == 0)
            return (terse_dtype)i;
    return TERSE_DTYPE_NONE;
}

static const char *const layouts[] = {
    [TERSE_LAYOUT_PLAIN] = "plain",
    [TERSE_LAYOUT_F32_N16] = "f32_n16",
    [TERSE_LAYOUT_F32_DW16] = "f32_dw16",
};

enum { N_LAYOUTS = sizeof layouts / sizeof layouts[0] };

const char *terse_layout_name(terse_layout layout)
{
    return (unsigned)layout < N_LAYOUTS ? layouts[layout] : "?";
}

bool terse_layout_from_name(const char *name, size_t length, terse_layout *ret_layout)
{
    for (unsigned i = 0; i < N_LAYOUTS; i++)
        if (strlen(layouts[i]) == length && memcmp(layouts[i], name, length) == 0) {
            *ret_layout = (terse_layout)i;
            return true;
        }
    return false;
}

int64_t terse_dims_count(const int64_t *dims, int rank)
{
    int64_t count = 1;
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0)
            return -1;
        if (dims[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(count, dims[i], &count) || count > TERSE_MAX_TENSOR_BYTES)
            return -1;
    }
    return empty ? 0 : count;
}

int64_t terse_tensor_count(const terse_tensor *tensor)
{
    return terse_dims_count(tensor->dims, tensor->rank);
}

int64_t terse_tensor_bytes(const terse_tensor *tensor)
{
    return terse_tensor_count(tensor) * (int64_t)terse_dtype_size(tensor->dtype);
}

bool terse_tensor_dense(const terse_tensor *tensor)
{
    return tensor->rank == 0 || tensor->row_stride == tensor->dims[tensor->rank - 1];
}

terse_tensor terse_tensor_view(void *data, terse_dtype dtype, int rank, const int64_t *dims)
{
    terse_tensor tensor = {.data = data, .dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++)
        tensor.dims[i] = dims[i];
    tensor.row_stride = rank ? dims[rank - 1] : 1;
    return tensor;
}

char *terse_dims_text(const int64_t *dims, int rank, char *text, size_t size)
{
    size_t at = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%" PRId64, i ? "," : "", dims[i]);
    if (at < size)
        snprintf(text + at, size - at, "]");
    return text;
}

int64_t terse_layout_bytes(terse_layout layout, terse_dtype dtype, int rank, const int64_t *dims, int64_t groups)
{
    const int64_t count = terse_dims_count(dims, rank);
    const int64_t size = (int64_t)terse_dtype_size(dtype);
    if (count < 0 || size == 0)
        return -1;
    if (layout == TERSE_LAYOUT_PLAIN)
        return count * size;
    if (dtype != TERSE_FP32 || rank < 2 || count == 0 || groups < 1)
        return -1;
    if (layout == TERSE_LAYOUT_F32_DW16)
        return rank < 3 || dims[1] != 1 ? -1 : count / dims[0] * ((dims[0] + 15) / 16 * 16) * size;
    if (layout != TERSE_LAYOUT_F32_N16)
        return -1;
    if (rank == 2) /* [K,N] */
        return groups != 1 ? -1 : dims[0] * ((dims[1] + 15) / 16 * 16) * size;
    if (dims[0] % groups != 0)
        return -1;
    const int64_t per_group = dims[0] / groups;
    return groups * (count / dims[0]) * ((per_group + 15) / 16 * 16) * size;
}
