/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ONNX's TensorProto.DataType, by number. Types with terse = NONE are refused. */
static const struct {
    const char *name;
    terse_dtype terse;
} types[] = {
    [0] = {"UNDEFINED", TERSE_DTYPE_NONE},
    [1] = {"FLOAT", TERSE_FP32},
    [2] = {"UINT8", TERSE_UINT8},
    [3] = {"INT8", TERSE_INT8},
    [4] = {"UINT16", TERSE_UINT16},
    [5] = {"INT16", TERSE_INT16},
    [6] = {"INT32", TERSE_INT32},
    [7] = {"INT64", TERSE_INT64},
    [8] = {"STRING", TERSE_DTYPE_NONE},
    [9] = {"BOOL", TERSE_BOOL},
    [10] = {"FLOAT16", TERSE_FP16},
    [11] = {"DOUBLE", TERSE_FP64},
    [12] = {"UINT32", TERSE_UINT32},
    [13] = {"UINT64", TERSE_UINT64},
    [14] = {"COMPLEX64", TERSE_DTYPE_NONE},
    [15] = {"COMPLEX128", TERSE_DTYPE_NONE},
    [16] = {"BFLOAT16", TERSE_BF16},
    [17] = {"FLOAT8E4M3FN", TERSE_DTYPE_NONE},
    [18] = {"FLOAT8E4M3FNUZ", TERSE_DTYPE_NONE},
    [19] = {"FLOAT8E5M2", TERSE_DTYPE_NONE},
    [20] = {"FLOAT8E5M2FNUZ", TERSE_DTYPE_NONE},
    [21] = {"UINT4", TERSE_DTYPE_NONE},
    [22] = {"INT4", TERSE_DTYPE_NONE},
    [23] = {"FLOAT4E2M1", TERSE_DTYPE_NONE},
    [24] = {"FLOAT8E8M0", TERSE_DTYPE_NONE},
    [25] = {"UINT2", TERSE_DTYPE_NONE},
    [26] = {"INT2", TERSE_DTYPE_NONE},
};

enum { N_TYPES = sizeof types / sizeof types[0] };

terse_dtype terse_onnx_dtype(int32_t type)
{
    return type >= 0 && type < N_TYPES ? types[type].terse : TERSE_DTYPE_NONE;
}

const char *terse_onnx_dtype_name(int32_t type)
{
    static _Thread_local char text[32];
    if (type >= 0 && type < N_TYPES)
        return types[type].name;
    snprintf(text, sizeof text, "number %" PRId32, type);
    return text;
}

terse_dtype terse_onnx_dtype_from_text(const char *name)
{
    for (int i = 1; i < N_TYPES; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].terse;
    return TERSE_DTYPE_NONE;
}

/* Rank and dims, and how many elements they make. */
static int read_dims(const Onnx__Tensor *tensor, int64_t *ret_dims, int64_t *ret_count, terse_error *error)
{
    if (tensor->n_dims > TERSE_MAX_RANK)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "rank %zu, at most %d is allowed", tensor->n_dims,
                          TERSE_MAX_RANK);
    for (size_t i = 0; i < tensor->n_dims; i++)
        ret_dims[i] = tensor->dims[i];
    *ret_count = terse_dims_count(ret_dims, (int)tensor->n_dims);
    if (*ret_count < 0 || *ret_count > TERSE_MAX_TENSOR_BYTES / 8) {
        char text[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shape %s is negative or too large",
                          terse_dims_text(ret_dims, (int)tensor->n_dims, text, sizeof text));
    }
    return TERSE_OK;
}

static int wrong_count(const char *field, size_t found, int64_t needed, terse_error *error)
{
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s holds %zu elements, the shape needs %" PRId64, field, found,
                      needed);
}

/* The narrow types travel as int32; each must fit. */
static int narrow(const Onnx__Tensor *tensor, terse_dtype dtype, int64_t count, void *target, terse_error *error)
{
    static const int32_t least[] = {[TERSE_INT8] = INT8_MIN, [TERSE_INT16] = INT16_MIN, [TERSE_BOOL] = 0};
    static const int32_t most[] = {
        [TERSE_INT8] = INT8_MAX,   [TERSE_INT16] = INT16_MAX, [TERSE_UINT8] = UINT8_MAX, [TERSE_UINT16] = UINT16_MAX,
        [TERSE_FP16] = UINT16_MAX, [TERSE_BF16] = UINT16_MAX, [TERSE_BOOL] = 1};
    if (tensor->n_int32_data != (size_t)count)
        return wrong_count("int32_data", tensor->n_int32_data, count, error);
    const int32_t lowest = dtype == TERSE_INT8 || dtype == TERSE_INT16 ? least[dtype] : 0;
    for (int64_t i = 0; i < count; i++) {
        const int32_t v = tensor->int32_data[i];
        if (v < lowest || v > most[dtype])
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "element %" PRId64 " is %" PRId32 ", no %s", i, v,
                              terse_dtype_name(dtype));
        if (terse_dtype_size(dtype) == 1)
            ((uint8_t *)target)[i] = (uint8_t)v;
        else
            ((uint16_t *)target)[i] = (uint16_t)v;
    }
    return TERSE_OK;
}

static int read_typed(const Onnx__Tensor *tensor, terse_dtype dtype, int64_t count, void *target, terse_error *error)
{
    const size_t n = (size_t)count;
    const void *from = NULL;
    switch (dtype) {
    case TERSE_FP32:
        if (tensor->n_float_data != n)
            return wrong_count("float_data", tensor->n_float_data, count, error);
        from = tensor->float_data;
        break;
    case TERSE_FP64:
        if (tensor->n_double_data != n)
            return wrong_count("double_data", tensor->n_double_data, count, error);
        from = tensor->double_data;
        break;
    case TERSE_INT32:
        if (tensor->n_int32_data != n)
            return wrong_count("int32_data", tensor->n_int32_data, count, error);
        from = tensor->int32_data;
        break;
    case TERSE_INT64:
        if (tensor->n_int64_data != n)
            return wrong_count("int64_data", tensor->n_int64_data, count, error);
        from = tensor->int64_data;
        break;
    case TERSE_UINT32:
    case TERSE_UINT64:
        if (tensor->n_uint64_data != n)
            return wrong_count("uint64_data", tensor->n_uint64_data, count, error);
        for (size_t i = 0; dtype == TERSE_UINT32 && i < n; i++) {
            if (tensor->uint64_data[i] > UINT32_MAX)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "element %zu is %" PRIu64 ", no UINT32", i,
                                  tensor->uint64_data[i]);
            ((uint32_t *)target)[i] = (uint32_t)tensor->uint64_data[i];
        }
        from = dtype == TERSE_UINT64 ? tensor->uint64_data : NULL;
        break;
    default:
        return narrow(tensor, dtype, count, target, error);
    }
    if (from && n)
        memcpy(target, from, n * terse_dtype_size(dtype));
    return TERSE_OK;
}

static float from_half(uint16_t half)
{
    const int exponent = half >> 10 & 31;
    const int fraction = half & 1023;
    float value;
    if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    else
        value = exponent ? ldexpf((float)(fraction + 1024), exponent - 25) : ldexpf((float)fraction, -24);
    return half & 0x8000 ? -value : value;
}

/* Finite doubles beyond float's range are masks ("minus infinity" that must not become a NaN): they stay finite. */
static float from_double(double value)
{
    if (isfinite(value) && fabs(value) > (double)FLT_MAX)
        return value < 0 ? -FLT_MAX : FLT_MAX;
    return (float)value;
}

static void to_fp32(terse_dtype dtype, const void *from, int64_t count, float *target)
{
    for (int64_t i = 0; i < count; i++) {
        if (dtype == TERSE_FP64) {
            double value;
            memcpy(&value, (const char *)from + i * 8, sizeof value);
            target[i] = from_double(value);
            continue;
        }
        uint16_t half;
        memcpy(&half, (const char *)from + i * 2, sizeof half);
        if (dtype == TERSE_FP16) {
            target[i] = from_half(half);
        } else {
            const uint32_t bits = (uint32_t)half << 16;
            memcpy(&target[i], &bits, sizeof bits);
        }
    }
}

/* The tensor's own bytes, in its own type, in fresh memory of the graph. */
static int read_bytes(terse_onnx_builder *builder, const Onnx__Tensor *tensor, terse_dtype dtype, int64_t count,
                      void **ret_data, terse_error *error)
{
    const uint64_t bytes = (uint64_t)count * terse_dtype_size(dtype);
    const bool typed = tensor->n_float_data || tensor->n_int32_data || tensor->n_int64_data || tensor->n_double_data ||
                       tensor->n_uint64_data || tensor->n_string_data;
    const bool external = tensor->data_location == 1;
    if (tensor->segment || tensor->data_location < 0 || tensor->data_location > 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "data in segments or at location %" PRId32 " cannot be read",
                          tensor->data_location);
    if ((typed && tensor->raw_data.len) || (external && (typed || tensor->raw_data.len)))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "data is given twice");
    if (external)
        return terse_onnx_external_read(&builder->external, tensor, bytes, builder->graph->arena, ret_data, error);
    const bool raw = !typed && (tensor->has_raw_data || count == 0);
    if (raw && tensor->raw_data.len != bytes)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "raw_data holds %zu bytes, the shape needs %" PRIu64,
                          tensor->raw_data.len, bytes);
    /* From here on the bytes are there, so they may be asked for: 2 (narrow) to 8 times less than int32_data. */
    const size_t there = tensor->n_float_data + tensor->n_int32_data + tensor->n_int64_data + tensor->n_double_data +
                         tensor->n_uint64_data;
    if (!raw && there != (size_t)count)
        return wrong_count("data", there, count, error);
    void *data = terse_arena_alloc(builder->graph->arena, bytes ? bytes : 1);
    if (!data)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRIu64 " bytes", bytes);
    if (raw && bytes)
        memcpy(data, tensor->raw_data.data, bytes);
    const int status = raw ? TERSE_OK : read_typed(tensor, dtype, count, data, error);
    if (status != TERSE_OK)
        return status;
    for (int64_t i = 0; dtype == TERSE_BOOL && i < count; i++)
        ((uint8_t *)data)[i] = ((uint8_t *)data)[i] != 0;
    *ret_data = data;
    return TERSE_OK;
}

/* Large data lives once, not twice. */
static void free_parsed(terse_onnx_builder *builder, Onnx__Tensor *tensor)
{
    ProtobufCAllocator *allocator = &builder->parsed->allocator;
    allocator->free(allocator->allocator_data, tensor->raw_data.data);
    tensor->raw_data = (ProtobufCBinaryData){0};
    tensor->has_raw_data = 0;
    allocator->free(allocator->allocator_data, tensor->float_data);
    tensor->float_data = NULL;
    tensor->n_float_data = 0;
}

int terse_onnx_tensor_read(terse_onnx_builder *builder, Onnx__Tensor *tensor, const char *node, terse_dtype *ret_dtype,
                           int *ret_rank, int64_t *ret_dims, const void **ret_data, terse_error *error)
{
    const terse_dtype dtype = terse_onnx_dtype(tensor->data_type);
    if (dtype == TERSE_DTYPE_NONE) {
        terse_onnx_unsupported(builder->report, node, "element type %s of tensor '%.300s'",
                               terse_onnx_dtype_name(tensor->data_type), tensor->name ? tensor->name : "");
        *ret_dtype = TERSE_DTYPE_NONE;
        return TERSE_OK;
    }
    int64_t dims[TERSE_MAX_RANK], count = 0;
    void *data = NULL;
    int status = read_dims(tensor, dims, &count, error);
    if (status == TERSE_OK)
        status = read_bytes(builder, tensor, dtype, count, &data, error);
    if (status != TERSE_OK) {
        terse_error_prefix(error, "tensor '%.200s'", tensor->name ? tensor->name : node ? node : "");
        return status;
    }
    free_parsed(builder, tensor);
    *ret_dtype = dtype;
    if (dtype == TERSE_FP64 || dtype == TERSE_FP16 || dtype == TERSE_BF16) {
        float *converted = terse_arena_alloc(builder->graph->arena, count ? (size_t)count * sizeof *converted : 1);
        if (!converted)
            return terse_onnx_no_memory(error);
        to_fp32(dtype, data, count, converted);
        data = converted;
        *ret_dtype = TERSE_FP32;
    }
    *ret_rank = (int)tensor->n_dims;
    memcpy(ret_dims, dims, sizeof dims);
    *ret_data = data;
    return TERSE_OK;
}
