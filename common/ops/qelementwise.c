/* SPDX-License-Identifier: Apache-2.0 */
/* QAdd, QMul (numpy's broadcasting) and QTable, on bytes. */
#include <string.h>

#include "common/ops/quantized.h"
#include "common/ops/walk.h"

typedef struct qbinary {
    terse_binary_u8_args args; /* all but the pointers and strides */
    void (*kernel)(const terse_binary_u8_args *args);
} qbinary;

static int plan_qbinary(terse_op_plan *plan, terse_error *error)
{
    int rank, status = terse_op_expect(plan, 0, "a", 1u << TERSE_UINT8, error);
    int64_t dims[TERSE_MAX_RANK];
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "b", 1u << TERSE_UINT8, error);
    qbinary *p = status == TERSE_OK ? terse_op_params(plan, sizeof *p, error) : NULL;
    if (!p)
        return status ? status : TERSE_RESOURCE_EXHAUSTED;
    const terse_node *node = plan->node;
    terse_binary_u8_args *a = &p->args;
    status = terse_quantized_scale(node, "a_scale", &a->a_scale, error);
    a->b_scale = 1;
    if (status == TERSE_OK && node->op == TERSE_OP_QADD)
        status = terse_quantized_scale(node, "b_scale", &a->b_scale, error);
    if (status == TERSE_OK)
        status = terse_quantized_byte(node, "a_zero_point", 0, &a->a_zero_point, error);
    if (status == TERSE_OK)
        status = terse_quantized_byte(node, "b_zero_point", 0, &a->b_zero_point, error);
    if (status == TERSE_OK)
        status = terse_quantized_byte(node, "y_zero_point", 0, &a->zero_point, error);
    if (status == TERSE_OK)
        status = terse_quantized_range(node, &a->low, &a->high, error);
    const terse_tensor *x = plan->inputs[0], *y = plan->inputs[1];
    if (status == TERSE_OK)
        status = terse_op_broadcast(x->dims, x->rank, y->dims, y->rank, dims, &rank, error);
    if (status != TERSE_OK)
        return status;
    p->kernel = node->op == TERSE_OP_QADD ? plan->kernels->add_u8 : plan->kernels->mul_u8;
    if (!p->kernel)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "this build has no kernel for it");
    return terse_op_output(plan, 0, TERSE_UINT8, rank, dims, error);
}

static void binary_row(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    const qbinary *p = context;
    terse_binary_u8_args args = p->args;
    args.n = n;
    args.y = (uint8_t *)at[0];
    args.a = (const uint8_t *)at[1];
    args.b = (const uint8_t *)at[2];
    args.stride_a = strides[1];
    args.stride_b = strides[2];
    p->kernel(&args);
}

static int run_qbinary(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *tensors[3] = {&call->outputs[0], call->inputs[0], call->inputs[1]};
    terse_walk walk;
    if (terse_tensor_count(tensors[0]) == 0)
        return TERSE_OK;
    terse_walk_tensors(&walk, tensors, 3);
    terse_walk_unit(&walk, (int64_t[]){1, 1, 1});
    terse_walk_run(&walk, (char *const[]){tensors[0]->data, tensors[1]->data, tensors[2]->data}, binary_row,
                   call->params);
    return TERSE_OK;
}

static int plan_qtable(terse_op_plan *plan, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "x", 1u << TERSE_UINT8, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 1, "table", 1u << TERSE_UINT8, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0], *table = plan->inputs[1];
    if (table->rank != 1 || table->dims[0] != 256) {
        char text[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input 1 (table) has shape %s, needed is [256]",
                          terse_dims_text(table->dims, table->rank, text, sizeof text));
    }
    if (!plan->kernels->table_u8)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "this build has no kernel for it");
    return terse_op_output(plan, 0, TERSE_UINT8, x->rank, x->dims, error);
}

static void table_row(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    (void)strides;
    const terse_op_call *call = context;
    call->kernels->table_u8((const uint8_t *)at[1], call->inputs[1]->data, (uint8_t *)at[0], n);
}

static int run_qtable(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const terse_tensor *tensors[2] = {&call->outputs[0], call->inputs[0]};
    terse_walk walk;
    if (terse_tensor_count(tensors[0]) == 0)
        return TERSE_OK;
    terse_walk_tensors(&walk, tensors, 2);
    terse_walk_unit(&walk, (int64_t[]){1, 1});
    terse_walk_run(&walk, (char *const[]){tensors[0]->data, tensors[1]->data}, table_row, call);
    return TERSE_OK;
}

enum { STRIDED = TERSE_OP_STRIDED_INPUTS | TERSE_OP_STRIDED_OUTPUT };
const terse_op_impl terse_op_qadd = {"QAdd", 2, 2, 1, 1, STRIDED | TERSE_OP_IN_PLACE_ANY, 0, plan_qbinary, run_qbinary};
const terse_op_impl terse_op_qmul = {"QMul", 2, 2, 1, 1, STRIDED | TERSE_OP_IN_PLACE_ANY, 0, plan_qbinary, run_qbinary};
const terse_op_impl terse_op_qtable = {"QTable", 2, 2, 1, 1, STRIDED | TERSE_OP_IN_PLACE, 0, plan_qtable, run_qtable};
