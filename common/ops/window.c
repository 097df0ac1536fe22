/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ops/window.h"

#include <inttypes.h>
#include <string.h>

#include "common/ops/support.h"

int terse_window_ints(const terse_node *node, const char *name, int n, int64_t fallback, int64_t min, int64_t max,
                      int64_t *ret_values, terse_error *error)
{
    const terse_attr *attr = terse_node_attr(node, name);
    if (attr && attr->kind != TERSE_ATTR_INTS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute %s is no list of integers", name);
    if (attr && attr->n != n)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute %s has %d numbers, %d are needed", name, attr->n,
                          n);
    for (int i = 0; i < n; i++) {
        const int64_t value = attr ? attr->ints[i] : fallback;
        if (value < min || value > max)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "attribute %s has %" PRId64 ", allowed are %" PRId64 " to %" PRId64, name, value, min,
                              max);
        ret_values[i] = value;
    }
    return TERSE_OK;
}

static int read_kernel(const terse_node *node, const int64_t *kernel_dims, terse_window *w, terse_error *error)
{
    const int first = 3 - w->rank;
    if (!kernel_dims && !terse_node_attr(node, "kernel_shape"))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute kernel_shape is missing");
    int status = terse_window_ints(node, "kernel_shape", w->rank, 1, 1, TERSE_WINDOW_MAX, &w->kernel[first], error);
    if (status != TERSE_OK || !kernel_dims)
        return status;
    for (int i = 0; i < w->rank; i++) {
        if (kernel_dims[i] < 1 || kernel_dims[i] > TERSE_WINDOW_MAX)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "the weights' kernel size is %" PRId64 ", allowed are 1 to %" PRId64, kernel_dims[i],
                              TERSE_WINDOW_MAX);
        if (terse_node_attr(node, "kernel_shape") && w->kernel[first + i] != kernel_dims[i])
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "attribute kernel_shape has %" PRId64 " where the weights have %" PRId64,
                              w->kernel[first + i], kernel_dims[i]);
        w->kernel[first + i] = kernel_dims[i];
    }
    return TERSE_OK;
}

int terse_window_read(const terse_op_plan *plan, const int64_t *kernel_dims, terse_window *ret_window,
                      terse_error *error)
{
    const terse_node *node = plan->node;
    const terse_tensor *x = terse_op_input(plan, 0);
    terse_window w = {.rank = x->rank - 2, .channels_last = terse_node_int(node, "channels_last", 0) != 0};
    if (w.rank < 1 || w.rank > 3)
        return terse_fail(error, w.rank < 1 ? TERSE_INVALID_ARGUMENT : TERSE_UNIMPLEMENTED,
                          "input 0 has rank %d, allowed are 3 to 5 (1 to 3 spatial axes)", x->rank);
    for (int i = 0; i < 3; i++)
        w.in[i] = w.out[i] = w.kernel[i] = w.stride[i] = w.dilation[i] = 1;
    const int first = 3 - w.rank;
    w.n = x->dims[0];
    w.channels = x->dims[w.channels_last ? x->rank - 1 : 1];
    for (int i = 0; i < w.rank; i++) {
        w.in[first + i] = x->dims[(w.channels_last ? 1 : 2) + i];
        if (w.in[first + i] < 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "spatial axis %d of input 0 is empty", i);
    }
    int status = read_kernel(node, kernel_dims, &w, error);
    if (status == TERSE_OK)
        status = terse_window_ints(node, "strides", w.rank, 1, 1, TERSE_WINDOW_MAX, &w.stride[first], error);
    if (status == TERSE_OK)
        status = terse_window_ints(node, "dilations", w.rank, 1, 1, TERSE_WINDOW_MAX, &w.dilation[first], error);
    if (status == TERSE_OK)
        *ret_window = w;
    return status;
}

static int slide_axis(terse_window *w, int axis, bool ceil_mode, terse_error *error)
{
    /* in < 2^40 and all the rest <= 2^30: nothing here passes 2^62. */
    const int64_t reach = (w->kernel[axis] - 1) * w->dilation[axis] + 1;
    const int64_t room = w->in[axis] + w->pad[axis] + w->pad_end[axis] - reach;
    if (room < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the kernel covers %" PRId64 " positions, the padded axis has %" PRId64, reach, room + reach);
    int64_t out = room / w->stride[axis] + 1;
    /* A last window that would start behind the data and its leading padding is left out. */
    if (ceil_mode && room % w->stride[axis] != 0 && out * w->stride[axis] < w->in[axis] + w->pad[axis])
        out++;
    w->out[axis] = out;
    return TERSE_OK;
}

int terse_window_slide(const terse_node *node, bool ceil_mode, terse_window *w, terse_error *error)
{
    const char *mode = terse_node_text(node, "auto_pad", "NOTSET");
    const bool upper = strcmp(mode, "SAME_UPPER") == 0, lower = strcmp(mode, "SAME_LOWER") == 0;
    const bool valid = strcmp(mode, "VALID") == 0;
    if (!upper && !lower && !valid && strcmp(mode, "NOTSET") != 0 && *mode != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "attribute auto_pad is '%.40s', allowed are NOTSET, SAME_UPPER, SAME_LOWER and VALID", mode);
    const int first = 3 - w->rank;
    int64_t pads[6] = {0};
    if (!upper && !lower && !valid) {
        const int status = terse_window_ints(node, "pads", 2 * w->rank, 0, 0, TERSE_WINDOW_MAX, pads, error);
        if (status != TERSE_OK)
            return status;
    }
    for (int i = 0; i < w->rank; i++) {
        const int axis = first + i;
        w->pad[axis] = pads[i];
        w->pad_end[axis] = pads[w->rank + i];
        if (upper || lower) {
            const int64_t reach = (w->kernel[axis] - 1) * w->dilation[axis] + 1;
            const int64_t out = (w->in[axis] - 1) / w->stride[axis] + 1;
            const int64_t needed = (out - 1) * w->stride[axis] + reach - w->in[axis];
            const int64_t total = needed > 0 ? needed : 0;
            w->pad[axis] = upper ? total / 2 : total - total / 2;
            w->pad_end[axis] = total - w->pad[axis];
            w->out[axis] = out;
            continue;
        }
        const int status = slide_axis(w, axis, ceil_mode, error);
        if (status != TERSE_OK)
            return status;
    }
    return TERSE_OK;
}

int terse_window_pool(const terse_op_plan *plan, terse_window *ret_window, terse_error *error)
{
    int64_t ceil_mode;
    terse_window w;
    int status = terse_window_read(plan, NULL, &w, error);
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "ceil_mode", 0, 0, 1, &ceil_mode, error);
    if (status == TERSE_OK)
        status = terse_window_slide(plan->node, ceil_mode == 1, &w, error);
    if (status != TERSE_OK)
        return status;
    for (int i = 0; i < 3; i++) {
        const int64_t reach = (w.kernel[i] - 1) * w.dilation[i] + 1;
        if (w.pad[i] >= reach || w.pad_end[i] >= reach)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "pads are %" PRId64 " and %" PRId64 ", less than the window's %" PRId64 " is allowed",
                              w.pad[i], w.pad_end[i], reach);
    }
    if (terse_dims_count(w.kernel, 3) < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the window has more than %" PRId64 " positions",
                          TERSE_MAX_TENSOR_BYTES);
    *ret_window = w;
    return TERSE_OK;
}

int terse_window_dims(const terse_window *w, int64_t channels, int64_t *ret_dims)
{
    ret_dims[0] = w->n;
    ret_dims[w->channels_last ? w->rank + 1 : 1] = channels;
    for (int i = 0; i < w->rank; i++)
        ret_dims[(w->channels_last ? 1 : 2) + i] = w->out[3 - w->rank + i];
    return w->rank + 2;
}

int64_t terse_window_pixels_in(const terse_window *w)
{
    return w->in[0] * w->in[1] * w->in[2];
}

int64_t terse_window_pixels_out(const terse_window *w)
{
    return w->out[0] * w->out[1] * w->out[2];
}
