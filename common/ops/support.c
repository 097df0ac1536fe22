/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ops/support.h"

#include <inttypes.h>
#include <string.h>

int terse_support_activation(const terse_node *node, terse_activation *ret_activation, terse_error *error)
{
    static const struct {
        const char *name;
        terse_activation_kind kind;
    } kinds[] = {
        {"", TERSE_ACT_NONE},
        {"Clip", TERSE_ACT_CLIP},
        {"LeakyRelu", TERSE_ACT_LEAKY_RELU},
        {"Sigmoid", TERSE_ACT_SIGMOID},
        {"HardSigmoid", TERSE_ACT_HARD_SIGMOID},
        {"HardSwish", TERSE_ACT_HARD_SWISH},
        {"Tanh", TERSE_ACT_TANH},
        {"Gelu", TERSE_ACT_GELU},
        {"Swish", TERSE_ACT_SWISH},
    };
    const char *name = terse_node_text(node, "activation", "");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].name, name) == 0) {
            *ret_activation = (terse_activation){.kind = kinds[i].kind,
                                                 .alpha = (float)terse_node_float(node, "activation_alpha", 0),
                                                 .beta = (float)terse_node_float(node, "activation_beta", 0)};
            return TERSE_OK;
        }
    return terse_fail(error, TERSE_UNIMPLEMENTED,
                      "attribute activation is '%.40s', allowed are Clip, LeakyRelu, Sigmoid, HardSigmoid, HardSwish, "
                      "Tanh, Gelu and Swish",
                      name);
}

int terse_support_reserve(size_t *total, int n_dims, const int64_t *dims, size_t *ret_offset, terse_error *error)
{
    const int64_t count = terse_dims_count(dims, n_dims);
    const size_t offset = terse_align(*total, 64);
    if (count < 0 || count > TERSE_MAX_TENSOR_BYTES / 4 || offset > (size_t)TERSE_MAX_TENSOR_BYTES)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "needs more than %" PRId64 " bytes of working memory",
                          TERSE_MAX_TENSOR_BYTES);
    *total = offset + (size_t)count * sizeof(float);
    *ret_offset = offset;
    return TERSE_OK;
}

int64_t terse_support_product(int n, const int64_t *factors)
{
    int64_t product = 1;
    for (int i = 0; i < n; i++)
        if (__builtin_mul_overflow(product, factors[i], &product))
            return INT64_MAX;
    return product;
}

int terse_support_int(const terse_node *node, const char *name, int64_t fallback, int64_t min, int64_t max,
                      int64_t *ret_value, terse_error *error)
{
    const int64_t value = terse_node_int(node, name, fallback);
    if (value < min || value > max)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "attribute %s is %" PRId64 ", allowed are %" PRId64 " to %" PRId64, name, value, min, max);
    *ret_value = value;
    return TERSE_OK;
}

/* Rows of one image: channels, and per channel `rows` innermost rows of `width` elements. */
typedef struct image_shape {
    int64_t channels, rows, width, row_stride;
} image_shape;

static image_shape shape_of(const terse_tensor *tensor)
{
    image_shape shape = {.channels = tensor->dims[1], .rows = 1, .width = 1, .row_stride = 1};
    for (int i = 2; i < tensor->rank - 1; i++)
        shape.rows *= tensor->dims[i];
    if (tensor->rank > 2) {
        shape.width = tensor->dims[tensor->rank - 1];
        shape.row_stride = tensor->row_stride;
    }
    if (shape.row_stride == shape.width) { /* dense: one long row */
        shape.width *= shape.rows;
        shape.row_stride = shape.width;
        shape.rows = 1;
    }
    return shape;
}

void terse_support_image_load(const terse_kernels *kernels, const terse_tensor *tensor, int64_t index, float *pixels)
{
    const image_shape s = shape_of(tensor);
    const uint32_t *image = (const uint32_t *)tensor->data + index * s.channels * s.rows * s.row_stride;
    for (int64_t r = 0; r < s.rows; r++)
        kernels->transpose_32(image + r * s.row_stride, s.rows * s.row_stride,
                              (uint32_t *)(void *)pixels + r * s.width * s.channels, s.channels, s.channels, s.width);
}

void terse_support_image_store(const terse_kernels *kernels, const terse_tensor *tensor, int64_t index,
                               const float *pixels)
{
    const image_shape s = shape_of(tensor);
    uint32_t *image = (uint32_t *)tensor->data + index * s.channels * s.rows * s.row_stride;
    for (int64_t r = 0; r < s.rows; r++)
        kernels->transpose_32((const uint32_t *)(const void *)pixels + r * s.width * s.channels, s.channels,
                              image + r * s.row_stride, s.rows * s.row_stride, s.width, s.channels);
}

const void *terse_support_dense(const terse_tensor *tensor, void *room)
{
    if (terse_tensor_dense(tensor))
        return tensor->data;
    const int64_t width = tensor->dims[tensor->rank - 1];
    const size_t size = terse_dtype_size(tensor->dtype);
    const int64_t rows = width ? terse_tensor_count(tensor) / width : 0;
    for (int64_t r = 0; r < rows; r++)
        memcpy((char *)room + (size_t)(r * width) * size,
               (const char *)tensor->data + (size_t)(r * tensor->row_stride) * size, (size_t)width * size);
    return room;
}

int terse_support_bias(const terse_op_plan *plan, int index, const char *what, int64_t n, terse_error *error)
{
    const terse_tensor *bias = terse_op_input(plan, index);
    if (!bias)
        return TERSE_OK;
    const int status = terse_op_expect(plan, index, what, 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    char text[128];
    if (bias->rank != 1 || bias->dims[0] != n)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has shape %s, needed is [%" PRId64 "]", index,
                          what, terse_dims_text(bias->dims, bias->rank, text, sizeof text), n);
    return TERSE_OK;
}

int terse_support_residual(const terse_op_plan *plan, int index, terse_dtype dtype, int rank, const int64_t *dims,
                           terse_error *error)
{
    const terse_tensor *residual = terse_op_input(plan, index);
    if (!residual)
        return TERSE_OK;
    const int status = terse_op_expect(plan, index, "residual", 1u << dtype, error);
    if (status != TERSE_OK)
        return status;
    char text[128], wanted[128];
    if (residual->rank != rank || memcmp(residual->dims, dims, (size_t)rank * sizeof *dims) != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (residual) has shape %s, the output has %s", index,
                          terse_dims_text(residual->dims, residual->rank, text, sizeof text),
                          terse_dims_text(dims, rank, wanted, sizeof wanted));
    return TERSE_OK;
}
