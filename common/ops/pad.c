/* SPDX-License-Identifier: Apache-2.0 */
/* Pad in all modes, and Trilu. Negative pads cut away; the other modes then reflect, repeat or wrap what is left.
 * Reflecting and wrapping go on for as long as the padding does, as numpy has it. */
#include "common/ops/walk.h"

#include <inttypes.h>
#include <string.h>

#include "common/ops/op.h"

typedef enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP } pad_mode;
static const char *const mode_names[] = {"constant", "reflect", "edge", "wrap"};

typedef struct pad {
    pad_mode mode;
    /* Per axis: elements put before the `kept` ones, which begin at `first` of the input. */
    int64_t before[TERSE_MAX_RANK], first[TERSE_MAX_RANK], kept[TERSE_MAX_RANK];
} pad;

static int read_mode(const terse_node *node, pad_mode *ret_mode, terse_error *error)
{
    const char *mode = terse_node_text(node, "mode", "constant");
    for (int i = 0; i < 4; i++)
        if (strcmp(mode, mode_names[i]) == 0) {
            *ret_mode = (pad_mode)i;
            return TERSE_OK;
        }
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "mode is '%s', allowed are constant, reflect, edge and wrap",
                      mode);
}

/* begins and ends of every axis, from the inputs pads and axes. */
static int read_pads(const terse_op_plan *plan, int rank, int64_t *begins, int64_t *ends, terse_error *error)
{
    int64_t pads[2 * TERSE_MAX_RANK], axes[TERSE_MAX_RANK];
    int n_pads, n_axes = rank;
    unsigned seen = 0;
    int status = terse_op_ints(plan, 1, "pads", pads, 2 * TERSE_MAX_RANK, &n_pads, error);
    for (int i = 0; i < rank; i++) {
        axes[i] = i;
        begins[i] = ends[i] = 0;
    }
    if (!status && terse_op_input(plan, 3))
        status = terse_op_ints(plan, 3, "axes", axes, TERSE_MAX_RANK, &n_axes, error);
    if (!status && n_pads != 2 * n_axes)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "pads has %d elements, must have 2 for each of %d axes",
                            n_pads, n_axes);
    for (int i = 0; !status && i < n_axes; i++) {
        int axis;
        status = terse_op_axis(axes[i], rank, &axis, error);
        if (!status && seen >> axis & 1u)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "axes has axis %d twice", axis);
        if (status)
            break;
        seen |= 1u << axis;
        begins[axis] = pads[i];
        ends[axis] = pads[n_axes + i];
    }
    return status;
}

static int pad_axis(pad *params, int axis, int64_t size, int64_t begin, int64_t end, int64_t *ret_size,
                    terse_error *error)
{
    int64_t total;
    const int64_t cut = begin < 0 ? begin : 0, cut_end = end < 0 ? end : 0;
    /* -size <= cut, so that neither the sum nor the difference can overflow. */
    if (cut < -size || cut_end < -size || size + cut + cut_end < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "pads %" PRId64 " and %" PRId64 " of axis %d cut more than its size %" PRId64, begin, end,
                          axis, size);
    params->first[axis] = -cut;
    params->kept[axis] = size + cut + cut_end;
    params->before[axis] = begin > 0 ? begin : 0;
    if (__builtin_add_overflow(params->before[axis], end > 0 ? end : 0, &total) ||
        __builtin_add_overflow(total, params->kept[axis], &total))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "pads %" PRId64 " and %" PRId64 " of axis %d are more than a tensor can have", begin, end,
                          axis);
    if (params->kept[axis] == 0 && total > 0 && params->mode != PAD_CONSTANT)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis %d is empty, mode %s has nothing to pad it with", axis,
                          mode_names[params->mode]);
    *ret_size = total;
    return TERSE_OK;
}

static int plan_pad(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "data", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0], *value = terse_op_input(plan, 2);
    pad *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    int64_t begins[TERSE_MAX_RANK], ends[TERSE_MAX_RANK], dims[TERSE_MAX_RANK];
    status = read_mode(plan->node, &params->mode, error);
    if (!status)
        status = read_pads(plan, x->rank, begins, ends, error);
    for (int i = 0; !status && i < x->rank; i++)
        status = pad_axis(params, i, x->dims[i], begins[i], ends[i], &dims[i], error);
    if (!status && value && params->mode == PAD_CONSTANT) {
        status = terse_op_same(plan, 2, "constant_value", 0, error);
        if (!status && terse_tensor_count(value) != 1)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT,
                                "input 2 (constant_value) has %" PRId64 " elements, allowed is 1",
                                terse_tensor_count(value));
    }
    return status ? status : terse_op_output(plan, 0, x->dtype, x->rank, dims, error);
}

/* Which element of the input stands at position `at` of an axis; -1: the constant. */
static int64_t source(const pad *params, int axis, int64_t at)
{
    const int64_t n = params->kept[axis], first = params->first[axis];
    int64_t i = at - params->before[axis];
    if (i >= 0 && i < n)
        return first + i;
    switch (params->mode) {
    case PAD_EDGE:
        return first + (i < 0 ? 0 : n - 1);
    case PAD_WRAP:
        i %= n;
        return first + (i < 0 ? i + n : i);
    case PAD_REFLECT: {
        const int64_t period = n > 1 ? 2 * (n - 1) : 1;
        i %= period;
        i = i < 0 ? i + period : i;
        return first + (i < n ? i : period - i);
    }
    default:
        return -1;
    }
}

/* One row of the output; from: the row of the input, or NULL for constants only. */
static void pad_row(const pad *params, int axis, int64_t width, int64_t size, char *to, const char *from,
                    const char *value)
{
    const int64_t before = params->before[axis], kept = params->kept[axis];
    if (!from || (params->mode == PAD_CONSTANT && kept == 0)) {
        terse_walk_fill(to, value, size, width);
        return;
    }
    if (params->mode == PAD_CONSTANT) {
        terse_walk_fill(to, value, size, before);
        terse_walk_fill(to + (before + kept) * size, value, size, width - before - kept);
    } else {
        for (int64_t i = 0; i < before; i++)
            terse_walk_bytes(to + i * size, from + source(params, axis, i) * size, size);
        for (int64_t i = before + kept; i < width; i++)
            terse_walk_bytes(to + i * size, from + source(params, axis, i) * size, size);
    }
    memcpy(to + before * size, from + params->first[axis] * size, (size_t)(kept * size));
}

static int run_pad(const terse_op_call *call, terse_error *error)
{
    (void)error;
    static const int64_t zero = 0;
    const pad *params = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const terse_tensor *constant = call->n_inputs > 2 ? call->inputs[2] : NULL;
    const char *value = constant ? constant->data : (const char *)&zero;
    const int64_t size = (int64_t)terse_dtype_size(x->dtype);
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    if (x->rank == 0) {
        terse_walk_bytes(y->data, x->data, size);
        return TERSE_OK;
    }
    const int last = x->rank - 1;
    int64_t index[TERSE_MAX_RANK] = {0}, strides[TERSE_MAX_RANK];
    terse_walk_strides(x, strides);
    char *to = y->data;
    for (;;) {
        const char *from = x->data;
        for (int i = 0; from && i < last; i++) {
            const int64_t at = source(params, i, index[i]);
            from = at < 0 ? NULL : from + at * strides[i];
        }
        pad_row(params, last, y->dims[last], size, to, from, value);
        to += y->row_stride * size;
        int axis = last - 1;
        while (axis >= 0 && ++index[axis] == y->dims[axis])
            index[axis--] = 0;
        if (axis < 0)
            return TERSE_OK;
    }
}

static int plan_trilu(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "input", TERSE_TYPES_ANY, error);
    if (status)
        return status;
    const terse_tensor *x = plan->inputs[0], *k = terse_op_input(plan, 1);
    if (x->rank < 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input has rank %d, at least 2 is allowed", x->rank);
    if (k) {
        status = terse_op_expect(plan, 1, "k", TERSE_TYPES_INDEX, error);
        if (!status && terse_tensor_count(k) != 1)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "input 1 (k) has %" PRId64 " elements, allowed is 1",
                                terse_tensor_count(k));
    }
    bool *upper = status ? NULL : terse_op_params(plan, sizeof *upper, error);
    if (!upper)
        return status ? status : TERSE_RESOURCE_EXHAUSTED;
    *upper = terse_node_int(plan->node, "upper", 1) != 0;
    return terse_op_output(plan, 0, x->dtype, x->rank, x->dims, error);
}

/* Keeps columns begin..end-1 of each row. */
static int run_trilu(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    const terse_tensor *shift = call->n_inputs > 1 ? call->inputs[1] : NULL;
    const bool upper = *(const bool *)call->params;
    const int64_t rows = x->dims[x->rank - 2], columns = x->dims[x->rank - 1];
    const int64_t size = (int64_t)terse_dtype_size(x->dtype), count = terse_tensor_count(x);
    int64_t k = shift ? terse_op_index(shift, 0) : 0;
    k = k > columns ? columns : k < -rows ? -rows : k;
    const char *from = x->data;
    char *to = y->data;
    for (int64_t row = 0; count && row < count / columns; row++) {
        int64_t edge = row % rows + k + (upper ? 0 : 1);
        edge = edge < 0 ? 0 : edge > columns ? columns : edge;
        const int64_t begin = upper ? edge : 0, end = upper ? columns : edge;
        memset(to, 0, (size_t)(begin * size));
        if (to != from)
            memcpy(to + begin * size, from + begin * size, (size_t)((end - begin) * size));
        memset(to + end * size, 0, (size_t)((columns - end) * size));
        from += columns * size;
        to += columns * size;
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_pad = {
    "Pad", 2, 4, 1, 1, TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT, 2 | 8, plan_pad, run_pad,
};
const terse_op_impl terse_op_trilu = {"Trilu", 1, 2, 1, 1, TERSE_OP_IN_PLACE, 0, plan_trilu, run_trilu};
