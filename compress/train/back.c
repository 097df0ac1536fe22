/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/back.h"

#include <string.h>

#define IN TERSE_BACK_READS_INPUTS
#define OUT TERSE_BACK_READS_OUTPUTS

static const terse_back_row rows[TERSE_OP_COUNT] = {
    [TERSE_OP_CONV] = {terse_back_conv, IN, 7, terse_back_conv_scratch},
    [TERSE_OP_GEMM] = {terse_back_gemm, IN, 7, NULL},
    [TERSE_OP_MATMUL] = {terse_back_matmul, IN, 3, NULL},
    [TERSE_OP_MAX_POOL] = {terse_back_max_pool, IN | OUT, 1, NULL},
    [TERSE_OP_AVERAGE_POOL] = {terse_back_average_pool, 0, 1, NULL},
    [TERSE_OP_GLOBAL_AVERAGE_POOL] = {terse_back_global_average_pool, 0, 1, NULL},
    [TERSE_OP_GLOBAL_MAX_POOL] = {terse_back_global_max_pool, IN | OUT, 1, NULL},
    [TERSE_OP_RELU] = {terse_back_unary, OUT, 1, NULL},
    [TERSE_OP_LEAKY_RELU] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_CLIP] = {terse_back_clip, IN, 1, NULL},
    [TERSE_OP_SIGMOID] = {terse_back_unary, OUT, 1, NULL},
    [TERSE_OP_HARD_SIGMOID] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_HARD_SWISH] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_TANH] = {terse_back_unary, OUT, 1, NULL},
    [TERSE_OP_ERF] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_GELU] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_EXP] = {terse_back_unary, OUT, 1, NULL},
    [TERSE_OP_LOG] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_SQRT] = {terse_back_unary, OUT, 1, NULL},
    [TERSE_OP_NEG] = {terse_back_unary, 0, 1, NULL},
    [TERSE_OP_ABS] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_RECIPROCAL] = {terse_back_unary, OUT, 1, NULL},
    [TERSE_OP_SIN] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_COS] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_ELU] = {terse_back_unary, IN | OUT, 1, NULL},
    [TERSE_OP_SELU] = {terse_back_unary, IN | OUT, 1, NULL},
    [TERSE_OP_SOFTPLUS] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_SOFTSIGN] = {terse_back_unary, IN, 1, NULL},
    [TERSE_OP_CAST] = {terse_back_view, 0, 1, NULL},
    [TERSE_OP_ADD] = {terse_back_binary, 0, 3, NULL},
    [TERSE_OP_SUB] = {terse_back_binary, 0, 3, NULL},
    [TERSE_OP_MUL] = {terse_back_binary, IN, 3, NULL},
    [TERSE_OP_DIV] = {terse_back_binary, IN, 3, NULL},
    [TERSE_OP_POW] = {terse_back_binary, IN, 3, NULL},
    [TERSE_OP_MIN] = {terse_back_binary, IN, 3, NULL},
    [TERSE_OP_MAX] = {terse_back_binary, IN, 3, NULL},
    [TERSE_OP_PRELU] = {terse_back_binary, IN, 3, NULL},
    [TERSE_OP_WHERE] = {terse_back_where, IN, 6, NULL},
    [TERSE_OP_CONCAT] = {terse_back_concat, 0, 0xffffffffu, NULL},
    [TERSE_OP_SPLIT] = {terse_back_moved, TERSE_BACK_MOVES, 1, NULL},
    [TERSE_OP_SLICE] = {terse_back_moved, TERSE_BACK_MOVES, 1, NULL},
    [TERSE_OP_RESHAPE] = {terse_back_view, 0, 1, NULL},
    [TERSE_OP_FLATTEN] = {terse_back_view, 0, 1, NULL},
    [TERSE_OP_SQUEEZE] = {terse_back_view, 0, 1, NULL},
    [TERSE_OP_UNSQUEEZE] = {terse_back_view, 0, 1, NULL},
    [TERSE_OP_IDENTITY] = {terse_back_view, 0, 1, NULL},
    [TERSE_OP_TRANSPOSE] = {terse_back_moved, TERSE_BACK_MOVES, 1, NULL},
    [TERSE_OP_EXPAND] = {terse_back_moved, TERSE_BACK_MOVES, 1, NULL},
    [TERSE_OP_PAD] = {terse_back_moved, TERSE_BACK_MOVES, 1, NULL},
    [TERSE_OP_TILE] = {terse_back_moved, TERSE_BACK_MOVES, 1, NULL},
    [TERSE_OP_DEPTH_TO_SPACE] = {terse_back_moved, TERSE_BACK_MOVES, 1, NULL},
    [TERSE_OP_RESIZE] = {terse_back_moved, TERSE_BACK_MOVES, 1, NULL},
    [TERSE_OP_GATHER] = {terse_back_gather, IN, 1, NULL},
    [TERSE_OP_REDUCE_MEAN] = {terse_back_reduce, 0, 1, NULL},
    [TERSE_OP_REDUCE_SUM] = {terse_back_reduce, 0, 1, NULL},
    [TERSE_OP_REDUCE_MAX] = {terse_back_reduce, IN | OUT, 1, NULL},
    [TERSE_OP_SOFTMAX] = {terse_back_softmax, OUT, 1, NULL},
    [TERSE_OP_LOG_SOFTMAX] = {terse_back_softmax, OUT, 1, NULL},
    [TERSE_OP_BATCH_NORMALIZATION] = {terse_back_batch_normalization, IN, 7, NULL},
    [TERSE_OP_LAYER_NORMALIZATION] = {terse_back_layer_normalization, IN, 7, NULL},
    [TERSE_OP_INSTANCE_NORMALIZATION] = {terse_back_instance_normalization, IN, 7, NULL},
    [TERSE_OP_GROUP_NORMALIZATION] = {terse_back_group_normalization, IN, 7, NULL},
    [TERSE_OP_LRN] = {terse_back_lrn, IN, 1, NULL},
    [TERSE_OP_QUANTIZE_LINEAR] = {terse_back_quantize, IN | TERSE_BACK_ANY_DTYPE, 1, NULL},
    [TERSE_OP_DEQUANTIZE_LINEAR] = {terse_back_dequantize, TERSE_BACK_ANY_DTYPE, 1, NULL},
};

/* More than two operands of Min and Max, and outputs beside the first, have no gradient. */
const terse_back_row *terse_back_find(const terse_node *node)
{
    if ((unsigned)node->op >= TERSE_OP_COUNT || !rows[node->op].run)
        return NULL;
    if (node->op == TERSE_OP_RESIZE && strcmp(terse_node_text(node, "mode", "nearest"), "nearest") != 0)
        return NULL;
    if ((node->op == TERSE_OP_MIN || node->op == TERSE_OP_MAX) && node->n_inputs != 2)
        return NULL;
    if ((node->op == TERSE_OP_CONCAT || node->op == TERSE_OP_MAX_POOL) && node->n_inputs > 32)
        return NULL;
    for (int i = 1; i < node->n_outputs; i++)
        if (node->op != TERSE_OP_SPLIT && node->outputs[i] != TERSE_NO_VALUE)
            return NULL;
    return &rows[node->op];
}

int terse_back_window(const terse_back *back, const int64_t *kernel_dims, bool pool, terse_window *ret_window)
{
    const terse_op_plan plan = {
        .node = back->node, .kernels = back->kernels, .n_inputs = back->n_inputs, .inputs = back->x};
    if (pool)
        return terse_window_pool(&plan, ret_window, NULL);
    const int status = terse_window_read(&plan, kernel_dims, ret_window, NULL);
    return status == TERSE_OK ? terse_window_slide(back->node, false, ret_window, NULL) : status;
}
