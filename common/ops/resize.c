/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. All modes are products of one-dimensional ones, so axis after axis is resized, the last one first, each
 * by a table that plan() makes (resize_taps.c). Axes that stay as they are cost nothing. nearest moves elements of any
 * dtype; linear and cubic are fp32, and bytes through fp32, cut off at the end as
 * ONNX does it, or rounded (ties to even) where the attribute `rounds` is 1. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/ops/resize_taps.h"
#include "common/ops/support.h"
#include "common/ops/walk.h"

typedef struct resize_step {
    resize_axis table;
    int64_t outer, inner;
    size_t to; /* scratch; the last step writes the output */
} resize_step;

typedef struct resize_params {
    resize_rule rule;
    int n_steps;
    resize_step steps[TERSE_MAX_RANK];
    float extrapolation;
    bool bytes; /* linear or cubic, of bytes */
    bool rounds;
    int64_t zero_point; /* rounds: around it */
    size_t floats;      /* then: scratch for the input as floats */
} resize_params;

/* The axes that roi, scales and sizes speak of, in their order. */
static int read_axes(const terse_op_plan *plan, int *ret_axes, int *ret_n, terse_error *error)
{
    const int rank = plan->inputs[0]->rank;
    const terse_attr *attr = terse_node_attr(plan->node, "axes");
    bool seen[TERSE_MAX_RANK] = {false};
    const int n = attr && attr->kind == TERSE_ATTR_INTS ? attr->n : rank;
    if (n > rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute axes has %d axes, the input has rank %d", n, rank);
    for (int i = 0; i < n; i++) {
        const int status =
            terse_op_axis(attr && attr->kind == TERSE_ATTR_INTS ? attr->ints[i] : i, rank, &ret_axes[i], error);
        if (status != TERSE_OK)
            return status;
        if (seen[ret_axes[i]])
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute axes names axis %d twice", ret_axes[i]);
        seen[ret_axes[i]] = true;
    }
    *ret_n = n;
    return TERSE_OK;
}

/* An input that is there and not empty. */
static const terse_tensor *given(const terse_op_plan *plan, int index)
{
    const terse_tensor *tensor = terse_op_input(plan, index);
    return tensor && terse_tensor_count(tensor) > 0 ? tensor : NULL;
}

static int read_floats(const terse_op_plan *plan, int index, const char *what, int n, double *ret_values,
                       terse_error *error)
{
    const int status = terse_op_expect(plan, index, what, 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *tensor = plan->inputs[index];
    if (tensor->rank != 1 || tensor->dims[0] != n)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has %" PRId64 " numbers, %d are needed", index,
                          what, terse_tensor_count(tensor), n);
    if (!tensor->data)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "input %d (%s) depends on the data, only on shapes is allowed",
                          index, what);
    for (int i = 0; i < n; i++)
        ret_values[i] = (double)((const float *)tensor->data)[i];
    return TERSE_OK;
}

static int apply_scales(const terse_op_plan *plan, const int *axes, int n, resize_axis *tables, terse_error *error)
{
    double scales[TERSE_MAX_RANK];
    const int status = read_floats(plan, 2, "scales", n, scales, error);
    if (status != TERSE_OK)
        return status;
    for (int i = 0; i < n; i++) {
        resize_axis *t = &tables[axes[i]];
        const float size = floorf((float)t->in * (float)scales[i]);
        if (!(scales[i] > 0) || !(size <= (float)TERSE_MAX_TENSOR_BYTES))
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "input 2 (scales) has %g for an axis of %" PRId64 ": a positive size is needed",
                              scales[i], t->in);
        t->scale = scales[i];
        t->out = (int64_t)size;
    }
    return TERSE_OK;
}

static int apply_sizes(const terse_op_plan *plan, const int *axes, int n, resize_axis *tables, terse_error *error)
{
    int64_t sizes[TERSE_MAX_RANK];
    int found;
    const int status = terse_op_ints(plan, 3, "sizes", sizes, TERSE_MAX_RANK, &found, error);
    if (status != TERSE_OK)
        return status;
    if (found != n)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 3 (sizes) has %d numbers, %d are needed", found, n);
    const char *policy = terse_node_text(plan->node, "keep_aspect_ratio_policy", "stretch");
    const bool larger = strcmp(policy, "not_smaller") == 0, smaller = strcmp(policy, "not_larger") == 0;
    if (!larger && !smaller && strcmp(policy, "stretch") != 0)
        return terse_fail(
            error, TERSE_INVALID_ARGUMENT,
            "attribute keep_aspect_ratio_policy is '%.40s', allowed are stretch, not_larger and not_smaller", policy);
    double common = 0;
    for (int i = 0; i < n; i++) {
        resize_axis *t = &tables[axes[i]];
        if (sizes[i] < 1 || sizes[i] > TERSE_MAX_TENSOR_BYTES)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 3 (sizes) has %" PRId64 ", at least 1 is needed",
                              sizes[i]);
        t->out = sizes[i];
        t->scale = (double)sizes[i] / (double)(t->in > 0 ? t->in : 1);
        if (i == 0 || (larger ? t->scale > common : t->scale < common))
            common = t->scale;
    }
    for (int i = 0; i < n && (larger || smaller); i++) {
        resize_axis *t = &tables[axes[i]];
        const double size = floor(common * (double)t->in + 0.5);
        t->scale = common;
        t->out = size < (double)TERSE_MAX_TENSOR_BYTES ? (int64_t)size : TERSE_MAX_TENSOR_BYTES;
    }
    return TERSE_OK;
}

/* Sizes, scales and regions of all axes. */
static int read_targets(const terse_op_plan *plan, const resize_rule *rule, resize_axis *tables, terse_error *error)
{
    const terse_tensor *x = plan->inputs[0];
    int axes[TERSE_MAX_RANK] = {0}, n = 0;
    double roi[2 * TERSE_MAX_RANK];
    for (int i = 0; i < x->rank; i++)
        tables[i] = (resize_axis){.axis = i, .in = x->dims[i], .out = x->dims[i], .scale = 1, .roi_end = 1};
    int status = read_axes(plan, axes, &n, error);
    if (status != TERSE_OK)
        return status;
    const bool scales = given(plan, 2) != NULL, sizes = given(plan, 3) != NULL;
    if (scales == sizes)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s of the inputs scales and sizes %s given, one is needed",
                          scales ? "both" : "none", scales ? "are" : "is");
    status = scales ? apply_scales(plan, axes, n, tables, error) : apply_sizes(plan, axes, n, tables, error);
    if (status == TERSE_OK && rule->coordinates == RESIZE_TF_CROP_AND_RESIZE) {
        status = read_floats(plan, 1, "roi", 2 * n, roi, error);
        for (int i = 0; i < n && status == TERSE_OK; i++) {
            tables[axes[i]].roi_start = roi[i];
            tables[axes[i]].roi_end = roi[n + i];
        }
    }
    return status;
}

static int plan_steps(const terse_op_plan *plan, resize_params *p, resize_axis *tables, size_t *total,
                      terse_error *error)
{
    int64_t dims[TERSE_MAX_RANK];
    const int rank = plan->inputs[0]->rank;
    memcpy(dims, plan->inputs[0]->dims, sizeof dims);
    for (int i = rank - 1; i >= 0; i--) {
        if (terse_resize_identity(&p->rule, &tables[i]))
            continue;
        if (tables[i].in < 1 || tables[i].out < 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "axis %d goes from %" PRId64 " to %" PRId64 ", at least 1 is needed", i, tables[i].in,
                              tables[i].out);
        int status = terse_resize_taps(&p->rule, plan->arena, &tables[i], error);
        if (status != TERSE_OK)
            return status;
        resize_step *step = &p->steps[p->n_steps++];
        step->table = tables[i];
        step->outer = terse_dims_count(dims, i);
        step->inner = terse_dims_count(dims + i + 1, rank - i - 1);
        dims[i] = tables[i].out;
        status = TERSE_RESERVE(total, &step->to, error, plan->inputs[0]->dtype == TERSE_INT64 ? 2 : 1, step->outer,
                               dims[i], step->inner);
        if (status != TERSE_OK)
            return status;
    }
    return TERSE_OK;
}

static int plan_resize(terse_op_plan *plan, terse_error *error)
{
    const unsigned any = 1u << TERSE_FP32 | 1u << TERSE_INT8 | 1u << TERSE_UINT8 | 1u << TERSE_INT32 |
                         1u << TERSE_INT64 | 1u << TERSE_BOOL;
    resize_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    resize_axis tables[TERSE_MAX_RANK];
    int status = terse_resize_rule(plan->node, &p->rule, error);
    if (status == TERSE_OK)
        status = terse_op_expect(
            plan, 0, "X",
            p->rule.mode == RESIZE_NEAREST ? any : 1u << TERSE_FP32 | 1u << TERSE_UINT8 | 1u << TERSE_INT8, error);
    if (status == TERSE_OK)
        status = read_targets(plan, &p->rule, tables, error);
    if (status != TERSE_OK)
        return status;
    p->extrapolation = (float)terse_node_float(plan->node, "extrapolation_value", 0);
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < plan->inputs[0]->rank; i++)
        dims[i] = tables[i].out;
    status = terse_op_output(plan, 0, plan->inputs[0]->dtype, plan->inputs[0]->rank, dims, error);
    size_t total = 0;
    p->rounds = terse_node_int(plan->node, "rounds", 0) != 0;
    if (status == TERSE_OK)
        status = terse_support_int(plan->node, "y_zero_point", 0, 0, 255, &p->zero_point, error);
    p->bytes = p->rule.mode != RESIZE_NEAREST && plan->inputs[0]->dtype != TERSE_FP32;
    if (status == TERSE_OK && p->bytes)
        status = TERSE_RESERVE(&total, &p->floats, error, terse_tensor_count(plan->inputs[0]));
    if (status == TERSE_OK)
        status = plan_steps(plan, p, tables, &total, error);
    /* the last step needs no room of its own, unless it makes floats that are to be rounded */
    plan->scratch_bytes = p->bytes ? total : p->n_steps > 0 ? p->steps[p->n_steps - 1].to : 0;
    return status;
}

static void put_number(char *to, terse_dtype dtype, float value)
{
    const double wide = value == value ? (double)value : 0;
    if (dtype == TERSE_FP32)
        memcpy(to, &value, sizeof value);
    else if (dtype == TERSE_INT64)
        *(int64_t *)(void *)to = wide >= 0x1p63 ? INT64_MAX : wide < -0x1p63 ? INT64_MIN : (int64_t)wide;
    else if (dtype == TERSE_INT32)
        *(int32_t *)(void *)to = wide >= 0x1p31 ? INT32_MAX : wide < -0x1p31 ? INT32_MIN : (int32_t)wide;
    else if (dtype == TERSE_INT8)
        *(int8_t *)to = wide >= 127 ? INT8_MAX : wide <= -128 ? INT8_MIN : (int8_t)wide;
    else
        *(uint8_t *)to = dtype == TERSE_BOOL ? wide != 0 : wide >= 255 ? UINT8_MAX : wide <= 0 ? 0 : (uint8_t)wide;
}

static void step_nearest(const resize_params *p, const resize_step *step, terse_dtype dtype, const char *x, char *y)
{
    const resize_axis *t = &step->table;
    const int64_t size = (int64_t)terse_dtype_size(dtype), row = step->inner * size;
    for (int64_t o = 0; o < step->outer; o++, x += t->in * row)
        for (int64_t i = 0; i < t->out; i++, y += row) {
            if (t->first[i] >= 0)
                terse_walk_bytes(y, x + t->first[i] * row, row);
            for (int64_t k = 0; k < row && t->first[i] < 0; k += size)
                put_number(y + k, dtype, p->extrapolation);
        }
}

/* One output row of `inner` floats: the weighted sum of `taps` input rows, in their order. */
static void blend(const resize_step *step, const float *x, const float *weights, float *y)
{
    const int64_t n = step->inner;
    if (n == 1) {
        float sum = 0;
        for (int64_t k = 0; k < step->table.taps; k++)
            sum += weights[k] * x[k];
        *y = sum;
        return;
    }
    for (int64_t i = 0; i < n; i++)
        y[i] = weights[0] * x[i];
    for (int64_t k = 1; k < step->table.taps; k++)
        for (int64_t i = 0; i < n; i++)
            y[i] += weights[k] * x[k * n + i];
}

static void step_blend(const resize_params *p, const resize_step *step, const float *x, float *y)
{
    const resize_axis *t = &step->table;
    for (int64_t o = 0; o < step->outer; o++, x += t->in * step->inner)
        for (int64_t i = 0; i < t->out; i++, y += step->inner) {
            if (t->first[i] >= 0)
                blend(step, x + t->first[i] * step->inner, t->weights + i * t->taps, y);
            for (int64_t k = 0; k < step->inner && t->first[i] < 0; k++)
                y[k] = p->extrapolation;
        }
}

static void load_floats(const terse_tensor *x, float *to)
{
    const int64_t n = terse_tensor_count(x);
    if (x->dtype == TERSE_UINT8)
        for (int64_t i = 0; i < n; i++)
            to[i] = ((const uint8_t *)x->data)[i];
    else
        for (int64_t i = 0; i < n; i++)
            to[i] = ((const int8_t *)x->data)[i];
}

static void store_bytes(const float *from, const resize_params *p, const terse_tensor *y)
{
    const int64_t n = terse_tensor_count(y);
    const float low = y->dtype == TERSE_UINT8 ? 0 : -128, high = low + 255, zero = (float)p->zero_point;
    for (int64_t i = 0; i < n; i++) {
        const float number = from[i] == from[i] ? from[i] : 0, v = p->rounds ? rintf(number - zero) + zero : number;
        const float least = v > low ? v : low;
        ((uint8_t *)y->data)[i] = (uint8_t)(int)(least < high ? least : high);
    }
}

static int run_resize(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const resize_params *p = call->params;
    const terse_tensor *x = call->inputs[0], *y = &call->outputs[0];
    if (terse_tensor_count(y) == 0)
        return TERSE_OK;
    if (p->n_steps == 0)
        memcpy(y->data, x->data, (size_t)terse_tensor_bytes(y));
    const void *from = x->data;
    if (p->bytes && p->n_steps > 0) {
        from = terse_support_at(call->scratch, p->floats);
        load_floats(x, terse_support_at(call->scratch, p->floats));
    }
    for (int i = 0; i < p->n_steps; i++) {
        void *to = i == p->n_steps - 1 && !p->bytes ? y->data : terse_support_at(call->scratch, p->steps[i].to);
        if (p->rule.mode == RESIZE_NEAREST)
            step_nearest(p, &p->steps[i], x->dtype, from, to);
        else
            step_blend(p, &p->steps[i], from, to);
        from = to;
    }
    if (p->bytes && p->n_steps > 0)
        store_bytes(from, p, y);
    return TERSE_OK;
}

const terse_op_impl terse_op_resize = {
    .name = "Resize",
    .min_inputs = 1,
    .max_inputs = 4,
    .min_outputs = 1,
    .max_outputs = 1,
    .value_inputs = 1u << 1 | 1u << 2 | 1u << 3,
    .plan = plan_resize,
    .run = run_resize,
};
