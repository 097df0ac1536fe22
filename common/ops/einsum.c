/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Einsum of two operands that is a batched matrix product. Labels fall into four kinds: batch (A, B and
 * output), row (A and output), column (B and output), summed (A and B). Both operands are gathered into
 * [batch][rows][summed] and [batch][summed][columns], multiplied by the packed kernel, and the product is scattered
 * into the output's order. "..." stands for batch axes that broadcast. All else is refused, with the equation. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "common/ops/support.h"
#include "common/ops/walk.h"

enum { N_LABELS = 52 + TERSE_MAX_RANK, MAX_AXES = 2 * TERSE_MAX_RANK };

typedef struct term {
    int rank, ellipsis; /* label numbers in order; axes that "..." stands for; -1 without it */
    int labels[TERSE_MAX_RANK];
} term;

/* Axes in one order, with the strides of each tensor over them (0: broadcast). */
typedef struct order {
    int rank;
    int64_t dims[MAX_AXES], strides[MAX_AXES];
} order;

typedef struct einsum_params {
    int64_t batch, rows, columns, summed;
    int batch_axes; /* the first ones of a, b and y */
    order a, b, y;
    size_t room_a, room_b, room_y, packed;
} einsum_params;

static int refuse(const char *equation, const char *why, terse_error *error)
{
    return terse_fail(error, TERSE_UNIMPLEMENTED,
                      "equation '%.100s' %s; allowed is a matrix product of two operands without repeated labels",
                      equation, why);
}

/* Reads one term up to `end`. known_rank: the operand's rank, or -1 for the output, whose "..." has `ellipsis` axes. */
static int read_term(const char *equation, const char *at, const char *end, int known_rank, int ellipsis,
                     term *ret_term, terse_error *error)
{
    term t = {.ellipsis = -1};
    int letters = 0;
    for (const char *c = at; c < end; c++)
        letters += isalpha((unsigned char)*c) != 0;
    const int axes = known_rank >= 0 ? known_rank - letters : ellipsis;
    for (; at < end; at++) {
        int first = 0, n = 1;
        if (*at == ' ')
            continue;
        if (end - at >= 3 && strncmp(at, "...", 3) == 0 && t.ellipsis < 0 && axes >= 0) {
            first = N_LABELS - axes; /* the last axes of all ellipses are the same labels */
            n = t.ellipsis = axes;
            at += 2;
        } else if (*at >= 'a' && *at <= 'z') {
            first = *at - 'a';
        } else if (*at >= 'A' && *at <= 'Z') {
            first = *at - 'A' + 26;
        } else {
            return refuse(equation, "cannot be read", error);
        }
        for (int i = first; i < first + n; i++) {
            if (t.rank == TERSE_MAX_RANK)
                return refuse(equation, "has too many axes", error);
            for (int k = 0; k < t.rank; k++)
                if (t.labels[k] == i)
                    return refuse(equation, "repeats a label in one term", error);
            t.labels[t.rank++] = i;
        }
    }
    if (known_rank >= 0 && t.rank != known_rank)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "equation '%.100s' has %d labels for an operand of rank %d",
                          equation, t.rank, known_rank);
    *ret_term = t;
    return TERSE_OK;
}

static int position_of(const term *t, int label)
{
    for (int i = 0; i < t->rank; i++)
        if (t->labels[i] == label)
            return i;
    return -1;
}

/* Without "->" the output has "..." first and then, in order of their letters, the labels that are there once. */
static int implicit_output(const char *equation, const term *a, const term *b, term *ret_term, terse_error *error)
{
    term t = {.ellipsis = -1};
    const int axes = a->ellipsis > b->ellipsis ? a->ellipsis : b->ellipsis;
    for (int i = 0; i < axes; i++)
        t.labels[t.rank++] = N_LABELS - axes + i;
    for (int i = 0; i < 52; i++) {
        const int label = i < 26 ? i + 26 : i - 26; /* numpy's order: capitals first */
        if ((position_of(a, label) >= 0) == (position_of(b, label) >= 0))
            continue;
        if (t.rank == TERSE_MAX_RANK)
            return refuse(equation, "has too many axes", error);
        t.labels[t.rank++] = label;
    }
    *ret_term = t;
    return TERSE_OK;
}

static int read_equation(const terse_op_plan *plan, term *a, term *b, term *y, terse_error *error)
{
    const char *equation = terse_node_text(plan->node, "equation", "");
    const char *comma = strchr(equation, ','), *arrow = strstr(equation, "->");
    if (plan->n_inputs != 2 || !comma || strchr(comma + 1, ',') || (arrow && arrow < comma))
        return refuse(equation, "does not have two operands", error);
    const char *end = arrow ? arrow : equation + strlen(equation);
    int status = read_term(equation, equation, comma, plan->inputs[0]->rank, 0, a, error);
    if (status == TERSE_OK)
        status = read_term(equation, comma + 1, end, plan->inputs[1]->rank, 0, b, error);
    if (status != TERSE_OK)
        return status;
    const int axes = a->ellipsis > b->ellipsis ? a->ellipsis : b->ellipsis;
    return arrow ? read_term(equation, arrow + 2, equation + strlen(equation), -1, axes, y, error)
                 : implicit_output(equation, a, b, y, error);
}

static int64_t stride_of(const terse_tensor *tensor, int axis)
{
    int64_t stride = 1;
    for (int i = axis + 1; i < tensor->rank; i++)
        stride *= tensor->dims[i];
    return tensor->dims[axis] == 1 ? 0 : stride;
}

static void push(order *o, int64_t dim, int64_t stride)
{
    o->dims[o->rank] = dim;
    o->strides[o->rank++] = stride;
}

/* The size of a label; both operands must agree unless it is one of "..." and one of them has 1. */
static int size_label(const terse_op_plan *plan, const term *a, const term *b, int label, int64_t *ret_size,
                      terse_error *error)
{
    const int in_a = position_of(a, label), in_b = position_of(b, label);
    const int64_t size_a = in_a >= 0 ? plan->inputs[0]->dims[in_a] : 1,
                  size_b = in_b >= 0 ? plan->inputs[1]->dims[in_b] : 1;
    const bool may_broadcast = label >= 52 || in_a < 0 || in_b < 0;
    if (size_a != size_b && !(may_broadcast && (size_a == 1 || size_b == 1)))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "equation '%.100s' gives one label the sizes %" PRId64 " and %" PRId64,
                          terse_node_text(plan->node, "equation", ""), size_a, size_b);
    *ret_size = size_a == 1 ? size_b : size_a;
    return TERSE_OK;
}

enum { BATCH, ROW, COLUMN, SUMMED };

static int kind_of(const term *a, const term *b, const term *y, int label)
{
    const bool in_a = position_of(a, label) >= 0, in_b = position_of(b, label) >= 0, in_y = position_of(y, label) >= 0;
    if (!in_y)
        return in_a && in_b ? SUMMED : -1;
    /* a broadcast axis that only one operand has is a batch axis of the other */
    return label >= 52 || (in_a && in_b) ? BATCH : in_a ? ROW : in_b ? COLUMN : -1;
}

/* Appends the labels of one kind to the orders that have them. */
static int add_kind(const terse_op_plan *plan, const term *a, const term *b, const term *y, int kind, einsum_params *p,
                    int64_t *product, terse_error *error)
{
    for (int label = 0; label < N_LABELS; label++) {
        const int in_a = position_of(a, label), in_b = position_of(b, label), in_y = position_of(y, label);
        if ((in_a < 0 && in_b < 0 && in_y < 0) || kind_of(a, b, y, label) != kind)
            continue;
        int64_t size, stride = 1;
        const int status = size_label(plan, a, b, label, &size, error);
        if (status != TERSE_OK)
            return status;
        *product *= size; /* bounded by the tensors that hold these labels, checked by the caller */
        if (kind != COLUMN)
            push(&p->a, size, in_a >= 0 ? stride_of(plan->inputs[0], in_a) : 0);
        if (kind != ROW)
            push(&p->b, size, in_b >= 0 ? stride_of(plan->inputs[1], in_b) : 0);
        for (int i = in_y + 1; i < y->rank && in_y >= 0; i++)
            stride *= plan->outputs[0].dims[i];
        if (kind != SUMMED)
            push(&p->y, size, stride);
    }
    return TERSE_OK;
}

static int plan_output(terse_op_plan *plan, const term *a, const term *b, const term *y, terse_error *error)
{
    const char *equation = terse_node_text(plan->node, "equation", "");
    int64_t dims[TERSE_MAX_RANK];
    for (int label = 0; label < N_LABELS; label++) {
        const bool used = position_of(a, label) >= 0 || position_of(b, label) >= 0 || position_of(y, label) >= 0;
        if (used && kind_of(a, b, y, label) < 0)
            return refuse(equation, "sums over a label of one operand only or makes one up", error);
        if (used && label >= 52 && kind_of(a, b, y, label) != BATCH)
            return refuse(equation, "sums over '...'", error);
    }
    for (int i = 0; i < y->rank; i++) {
        const int status = size_label(plan, a, b, y->labels[i], &dims[i], error);
        if (status != TERSE_OK)
            return status;
    }
    return terse_op_output(plan, 0, TERSE_FP32, y->rank, dims, error);
}

static int plan_einsum(terse_op_plan *plan, terse_error *error)
{
    term a, b, y;
    for (int i = 0; i < plan->n_inputs; i++) {
        const int status = terse_op_expect(plan, i, "operand", 1u << TERSE_FP32, error);
        if (status != TERSE_OK)
            return status;
    }
    einsum_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    p->batch = p->rows = p->columns = p->summed = 1;
    int status = read_equation(plan, &a, &b, &y, error);
    if (status == TERSE_OK)
        status = plan_output(plan, &a, &b, &y, error);
    if (status == TERSE_OK)
        status = add_kind(plan, &a, &b, &y, BATCH, p, &p->batch, error);
    p->batch_axes = p->b.rank;
    if (status == TERSE_OK)
        status = add_kind(plan, &a, &b, &y, ROW, p, &p->rows, error);
    if (status == TERSE_OK)
        status = add_kind(plan, &a, &b, &y, SUMMED, p, &p->summed, error);
    if (status == TERSE_OK)
        status = add_kind(plan, &a, &b, &y, COLUMN, p, &p->columns, error);
    size_t total = 0;
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->room_a, error, p->batch, p->rows, p->summed);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->room_b, error, p->summed, p->columns);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->packed, error, p->summed, (p->columns + 15) / 16, 16);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(&total, &p->room_y, error, p->batch, p->rows, p->columns);
    plan->scratch_bytes = total;
    plan->macs = TERSE_PRODUCT(p->batch, p->rows, p->columns, p->summed);
    return status;
}

/* Copies between a tensor and the dense form of the axes from `first` on. */
static void move(const terse_op_call *call, const order *o, int first, const float *from, float *to, bool scatter)
{
    int64_t strides[MAX_AXES], dense[MAX_AXES], step = sizeof(float);
    for (int i = o->rank - 1; i >= first; i--) {
        strides[i] = o->strides[i] * (int64_t)sizeof(float);
        dense[i] = step;
        step *= o->dims[i];
    }
    terse_walk_copy(call->kernels, sizeof(float), o->rank - first, o->dims + first, (char *)to,
                    (scatter ? strides : dense) + first, (const char *)from, (scatter ? dense : strides) + first);
}

static int64_t batch_offset(const order *o, int axes, int64_t index)
{
    int64_t offset = 0;
    for (int i = axes - 1; i >= 0; i--) {
        offset += index % o->dims[i] * o->strides[i];
        index /= o->dims[i];
    }
    return offset;
}

static int run_einsum(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const einsum_params *p = call->params;
    const float *b = call->inputs[1]->data;
    float *rows = terse_support_at(call->scratch, p->room_a), *block = terse_support_at(call->scratch, p->room_b);
    float *packed = terse_support_at(call->scratch, p->packed), *product = terse_support_at(call->scratch, p->room_y);
    if (terse_tensor_count(&call->outputs[0]) == 0)
        return TERSE_OK;
    move(call, &p->a, 0, call->inputs[0]->data, rows, false);
    for (int64_t i = 0; i < p->batch; i++) {
        move(call, &p->b, p->batch_axes, b + batch_offset(&p->b, p->batch_axes, i), block, false);
        call->kernels->pack_n16_f32(block, p->columns, 1, p->summed, p->columns, packed);
        call->kernels->gemm_f32(&(terse_gemm_f32_args){.m = p->rows,
                                                       .n = p->columns,
                                                       .k = p->summed,
                                                       .a = rows + i * p->rows * p->summed,
                                                       .lda = p->summed,
                                                       .b = packed,
                                                       .c = product + i * p->rows * p->columns,
                                                       .ldc = p->columns});
    }
    move(call, &p->y, 0, product, call->outputs[0].data, true);
    return TERSE_OK;
}

const terse_op_impl terse_op_einsum = {
    .name = "Einsum",
    .min_inputs = 1,
    .max_inputs = TERSE_MAX_NODE_IO,
    .min_outputs = 1,
    .max_outputs = 1,
    .plan = plan_einsum,
    .run = run_einsum,
};
