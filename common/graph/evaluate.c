/* SPDX-License-Identifier: Apache-2.0 */
/* evaluate.c: one node alone: the checks around an operator's plan(), and computing it at once. */
#include <stdlib.h>
#include <string.h>

#include "common/graph/plan.h"

/* Packed constants mean something to the products only; elsewhere their bytes would be read as plain ones. */
static bool takes_packed(terse_op op, int input)
{
    switch (op) {
    case TERSE_OP_CONV:
    case TERSE_OP_CONV_TRANSPOSE:
    case TERSE_OP_GEMM:
    case TERSE_OP_MATMUL:
    case TERSE_OP_WGEMM:
    case TERSE_OP_BCONV:
    case TERSE_OP_BGEMM:
    case TERSE_OP_QCONV:
    case TERSE_OP_QGEMM:
    case TERSE_OP_CONV_INTEGER:
        return input == 1;
    case TERSE_OP_RNN:
    case TERSE_OP_GRU:
    case TERSE_OP_LSTM:
        return input == 1 || input == 2;
    default:
        return false;
    }
}

static int check_node(const terse_op_impl *impl, const terse_op_plan *op_plan, terse_error *error)
{
    const int n_in = op_plan->n_inputs, n_out = op_plan->n_outputs;
    if (n_in < impl->min_inputs || n_in > impl->max_inputs)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%d inputs, %d to %d are allowed", n_in, impl->min_inputs,
                          impl->max_inputs);
    if (n_out < impl->min_outputs || n_out > impl->max_outputs)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%d outputs, %d to %d are allowed", n_out, impl->min_outputs,
                          impl->max_outputs);
    for (int i = 0; i < n_in; i++) {
        const terse_tensor *input = op_plan->inputs[i];
        if (!input && i < impl->min_inputs)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d is missing", i);
        if (input && input->layout != TERSE_LAYOUT_PLAIN && !takes_packed(op_plan->node->op, i))
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "input %d is a packed constant (layout %d), plain is needed", i, (int)input->layout);
    }
    return TERSE_OK;
}

int terse_evaluate_plan(const terse_op_impl *impl, terse_op_plan *op_plan, terse_error *error)
{
    int status = check_node(impl, op_plan, error);
    if (status == TERSE_OK)
        status = impl->plan(op_plan, error);
    if (status != TERSE_OK)
        return status;
    for (int i = 0; i < op_plan->n_outputs; i++) {
        terse_tensor *output = &op_plan->outputs[i];
        if (output->dtype == TERSE_DTYPE_NONE && op_plan->node->outputs[i] == TERSE_NO_VALUE)
            continue;
        const int64_t size = (int64_t)terse_dtype_size(output->dtype);
        const int64_t count =
            output->rank >= 0 && output->rank <= TERSE_MAX_RANK ? terse_dims_count(output->dims, output->rank) : -1;
        if (size == 0 || count < 0 || count > TERSE_MAX_TENSOR_BYTES / size)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "output %d has no element type or no shape, or is too large", i);
        *output = terse_tensor_view(NULL, output->dtype, output->rank, output->dims);
    }
    return TERSE_OK;
}

static bool wanted(const terse_op_plan *op_plan, int output)
{
    return op_plan->n_outputs == 1 || op_plan->node->outputs[output] != TERSE_NO_VALUE;
}

size_t terse_evaluate_bytes(const terse_op_plan *op_plan)
{
    size_t bytes = op_plan->scratch_bytes;
    for (int i = 0; i < op_plan->n_outputs; i++)
        if (wanted(op_plan, i) &&
            __builtin_add_overflow(bytes, terse_align((size_t)terse_tensor_bytes(&op_plan->outputs[i]), 64), &bytes))
            return SIZE_MAX;
    return bytes;
}

int terse_evaluate_run(const terse_op_impl *impl, const terse_op_plan *op_plan, terse_error *error)
{
    TERSE_AUTO(terse_freep) void *scratch = NULL;
    if (op_plan->scratch_bytes > 0) {
        scratch = aligned_alloc(64, terse_align(op_plan->scratch_bytes, 64));
        if (!scratch)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes of scratch",
                              op_plan->scratch_bytes);
    }
    bool empty = true;
    for (int i = 0; i < op_plan->n_outputs; i++) {
        terse_tensor *output = &op_plan->outputs[i];
        if (!wanted(op_plan, i))
            continue;
        const size_t bytes = (size_t)terse_tensor_bytes(output);
        output->data = terse_arena_alloc(op_plan->arena, bytes ? bytes : 1);
        if (!output->data)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for an output of %zu bytes", bytes);
        empty = empty && bytes == 0;
    }
    if (empty)
        return TERSE_OK;
    const terse_op_call call = {.node = op_plan->node,
                                .kernels = op_plan->kernels,
                                .params = op_plan->params,
                                .n_inputs = op_plan->n_inputs,
                                .n_outputs = op_plan->n_outputs,
                                .inputs = op_plan->inputs,
                                .outputs = op_plan->outputs,
                                .scratch = scratch};
    return impl->run(&call, error);
}

static int evaluate(const terse_op_impl *impl, terse_op_plan *op_plan, size_t max_bytes, terse_error *error)
{
    const terse_node *node = op_plan->node;
    for (int i = 0; i < op_plan->n_inputs; i++)
        if (op_plan->inputs[i] && !op_plan->inputs[i]->data && node->op != TERSE_OP_SHAPE &&
            terse_tensor_count(op_plan->inputs[i]) != 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d is not known", i);
    const int status = terse_evaluate_plan(impl, op_plan, error);
    if (status != TERSE_OK)
        return status;
    const size_t bytes = terse_evaluate_bytes(op_plan);
    if (bytes > max_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "computing it needs %zu bytes, at most %zu are allowed",
                          bytes, max_bytes);
    return terse_evaluate_run(impl, op_plan, error);
}

int terse_node_evaluate(const terse_node *node, const terse_kernels *kernels, const terse_tensor *const *inputs,
                        terse_arena *arena, size_t max_bytes, terse_tensor *ret_outputs, terse_error *error)
{
    const terse_op_impl *impl = terse_op_find(node->op);
    if (!impl)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "node '%s' (%s): this build has no such operator", node->name,
                          terse_op_name(node->op));
    terse_op_plan op_plan = {.node = node,
                             .kernels = kernels,
                             .n_inputs = node->n_inputs,
                             .n_outputs = node->n_outputs,
                             .inputs = inputs,
                             .arena = arena};
    op_plan.outputs = terse_arena_alloc(arena, (size_t)(node->n_outputs + 1) * sizeof *op_plan.outputs);
    if (!op_plan.outputs)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "node '%s': out of memory", node->name);
    const int status = evaluate(impl, &op_plan, max_bytes, error);
    if (status != TERSE_OK) {
        terse_error_prefix(error, "node '%s' (%s)", node->name, terse_op_name(node->op));
        return status;
    }
    memcpy(ret_outputs, op_plan.outputs, (size_t)node->n_outputs * sizeof *ret_outputs);
    return TERSE_OK;
}
