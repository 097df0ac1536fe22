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
    [TERSE_LAYOUT_S8_N16K4] = "s8_n16k4",
    [TERSE_LAYOUT_S8_DW] = "s8_dw",
    [TERSE_LAYOUT_S8_N16] = "s8_n16",
    [TERSE_LAYOUT_BF16_N16K2] = "bf16_n16k2",
    [TERSE_LAYOUT_S4_N16K8] = "s4_n16k8",
    [TERSE_LAYOUT_F32_WINOGRAD4] = "f32_winograd4",
    [TERSE_LAYOUT_S8_4X1] = "s8_4x1",
    [TERSE_LAYOUT_F32_4X1] = "f32_4x1",
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

static int64_t up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Columns in panels of 16 and, within a row of the kernel, `pack` elements of K side by side. */
static int64_t panel_elements(int64_t pack, int rank, const int64_t *dims, int64_t groups, int64_t count)
{
    if (rank == 2) /* [K,N] */
        return groups != 1 ? -1 : up(dims[0], pack) * up(dims[1], 16);
    if (dims[0] % groups != 0)
        return -1;
    const int64_t row = dims[1] * dims[rank - 1], rows = count / dims[0] / row;
    return groups * up(dims[0] / groups, 16) * rows * up(row, pack);
}

int64_t terse_layout_bytes(terse_layout layout, terse_dtype dtype, int rank, const int64_t *dims, int64_t groups)
{
    static const terse_dtype needed[N_LAYOUTS] = {
        [TERSE_LAYOUT_F32_N16] = TERSE_FP32,   [TERSE_LAYOUT_F32_DW16] = TERSE_FP32,
        [TERSE_LAYOUT_S8_N16K4] = TERSE_INT8,  [TERSE_LAYOUT_S8_DW] = TERSE_INT8,
        [TERSE_LAYOUT_S8_N16] = TERSE_INT8,    [TERSE_LAYOUT_BF16_N16K2] = TERSE_BF16,
        [TERSE_LAYOUT_S4_N16K8] = TERSE_UINT8, [TERSE_LAYOUT_F32_WINOGRAD4] = TERSE_FP32,
    };
    const int64_t count = terse_dims_count(dims, rank);
    const int64_t size = (int64_t)terse_dtype_size(dtype);
    if (count < 0 || size == 0)
        return -1;
    if (layout == TERSE_LAYOUT_PLAIN)
        return count * size;
    if ((unsigned)layout >= N_LAYOUTS || dtype != needed[layout] || rank < 2 || count == 0 || groups < 1)
        return -1;
    switch (layout) {
    case TERSE_LAYOUT_F32_N16:
    case TERSE_LAYOUT_S8_N16:
        return panel_elements(1, rank, dims, groups, count) * size; /* -1 stays negative */
    case TERSE_LAYOUT_S8_N16K4:
        return panel_elements(4, rank, dims, groups, count);
    case TERSE_LAYOUT_BF16_N16K2:
        return panel_elements(2, rank, dims, groups, count) * size;
    case TERSE_LAYOUT_F32_DW16:
        return rank < 3 || dims[1] != 1 ? -1 : count / dims[0] * up(dims[0], 16) * size;
    case TERSE_LAYOUT_S8_DW: {
        const int64_t height = rank > 3 ? dims[rank - 2] : 1;
        return rank < 3 || dims[1] != 1 ? -1 : count / dims[0] / height * up(height, 4) * up(dims[0], 16);
    }
    case TERSE_LAYOUT_S4_N16K8:
        return rank != 2 || groups != 1 ? -1 : up(dims[0], 8) / 2 * up(dims[1], 16);
    case TERSE_LAYOUT_F32_WINOGRAD4:
        return rank != 4 || groups != 1 || dims[2] != 3 || dims[3] != 3 ? -1 : 36 * up(dims[0], 16) * dims[1] * size;
    default:
        return -1;
    }
}
