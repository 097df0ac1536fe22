/* SPDX-License-Identifier: Apache-2.0 */
/* op_list.h: the one list of operators. A row is X(ENUM, lower_name, "OnnxName"): it gives TERSE_OP_ENUM, the
 * implementation terse_op_lower_name (common/ops/), and the name in files, messages and ONNX.
 *
 * Semantics are those of ONNX's newest opset for that operator, except as common/ops/README.md says: the
 * importer rewrites older forms. Names, not numbers, go into the file, so rows may be reordered. */
#ifndef TERSE_GRAPH_OP_LIST_H
#define TERSE_GRAPH_OP_LIST_H

/* clang-format off */
#define TERSE_OPS(X) \
    /* convolution and matrix products */ \
    X(CONV, conv, "Conv") X(CONV_TRANSPOSE, conv_transpose, "ConvTranspose") X(GEMM, gemm, "Gemm") \
    X(MATMUL, matmul, "MatMul") X(EINSUM, einsum, "Einsum") \
    /* pooling */ \
    X(MAX_POOL, max_pool, "MaxPool") X(AVERAGE_POOL, average_pool, "AveragePool") \
    X(GLOBAL_AVERAGE_POOL, global_average_pool, "GlobalAveragePool") \
    X(GLOBAL_MAX_POOL, global_max_pool, "GlobalMaxPool") \
    /* element by element, one input */ \
    X(RELU, relu, "Relu") X(LEAKY_RELU, leaky_relu, "LeakyRelu") X(CLIP, clip, "Clip") \
    X(SIGMOID, sigmoid, "Sigmoid") X(HARD_SIGMOID, hard_sigmoid, "HardSigmoid") \
    X(HARD_SWISH, hard_swish, "HardSwish") X(TANH, tanh, "Tanh") X(ERF, erf, "Erf") X(GELU, gelu, "Gelu") \
    X(EXP, exp, "Exp") X(LOG, log, "Log") X(SQRT, sqrt, "Sqrt") X(NEG, neg, "Neg") X(ABS, abs, "Abs") \
    X(RECIPROCAL, reciprocal, "Reciprocal") X(SIN, sin, "Sin") X(COS, cos, "Cos") X(FLOOR, floor, "Floor") \
    X(CEIL, ceil, "Ceil") X(ROUND, round, "Round") X(SIGN, sign, "Sign") X(ELU, elu, "Elu") X(SELU, selu, "Selu") \
    X(SOFTPLUS, softplus, "Softplus") X(SOFTSIGN, softsign, "Softsign") X(NOT, not, "Not") X(CAST, cast, "Cast") \
    /* element by element, two and more inputs, broadcasting */ \
    X(ADD, add, "Add") X(SUB, sub, "Sub") X(MUL, mul, "Mul") X(DIV, div, "Div") X(POW, pow, "Pow") \
    X(MOD, mod, "Mod") X(MIN, min, "Min") X(MAX, max, "Max") X(PRELU, prelu, "PRelu") X(EQUAL, equal, "Equal") \
    X(LESS, less, "Less") X(LESS_OR_EQUAL, less_or_equal, "LessOrEqual") X(GREATER, greater, "Greater") \
    X(GREATER_OR_EQUAL, greater_or_equal, "GreaterOrEqual") X(AND, and, "And") X(OR, or, "Or") \
    X(WHERE, where, "Where") \
    /* moving elements */ \
    X(CONCAT, concat, "Concat") X(SPLIT, split, "Split") X(SLICE, slice, "Slice") X(RESHAPE, reshape, "Reshape") \
    X(FLATTEN, flatten, "Flatten") X(SQUEEZE, squeeze, "Squeeze") X(UNSQUEEZE, unsqueeze, "Unsqueeze") \
    X(TRANSPOSE, transpose, "Transpose") X(EXPAND, expand, "Expand") X(PAD, pad, "Pad") X(TILE, tile, "Tile") \
    X(DEPTH_TO_SPACE, depth_to_space, "DepthToSpace") X(GATHER, gather, "Gather") \
    X(GATHER_ELEMENTS, gather_elements, "GatherElements") X(GATHER_ND, gather_nd, "GatherND") \
    X(SCATTER_ND, scatter_nd, "ScatterND") X(TRILU, trilu, "Trilu") X(IDENTITY, identity, "Identity") \
    /* made from shapes */ \
    X(SHAPE, shape, "Shape") X(RANGE, range, "Range") X(CONSTANT_OF_SHAPE, constant_of_shape, "ConstantOfShape") \
    /* along an axis */ \
    X(REDUCE_MEAN, reduce_mean, "ReduceMean") X(REDUCE_SUM, reduce_sum, "ReduceSum") \
    X(REDUCE_MAX, reduce_max, "ReduceMax") X(REDUCE_PROD, reduce_prod, "ReduceProd") X(SOFTMAX, softmax, "Softmax") X(LOG_SOFTMAX, log_softmax, "LogSoftmax") \
    X(ARG_MAX, arg_max, "ArgMax") X(TOP_K, top_k, "TopK") X(CUM_SUM, cum_sum, "CumSum") \
    /* normalization */ \
    X(BATCH_NORMALIZATION, batch_normalization, "BatchNormalization") X(LRN, lrn, "LRN") \
    X(LAYER_NORMALIZATION, layer_normalization, "LayerNormalization") \
    X(INSTANCE_NORMALIZATION, instance_normalization, "InstanceNormalization") \
    X(GROUP_NORMALIZATION, group_normalization, "GroupNormalization") \
    /* images and sequences */ \
    X(RESIZE, resize, "Resize") X(RNN, rnn, "RNN") X(GRU, gru, "GRU") X(LSTM, lstm, "LSTM") \
    /* quantized tensors as ONNX has them */ \
    X(QUANTIZE_LINEAR, quantize_linear, "QuantizeLinear") \
    X(DEQUANTIZE_LINEAR, dequantize_linear, "DequantizeLinear") \
    X(DYNAMIC_QUANTIZE_LINEAR, dynamic_quantize_linear, "DynamicQuantizeLinear") \
    X(MATMUL_INTEGER, matmul_integer, "MatMulInteger") X(CONV_INTEGER, conv_integer, "ConvInteger") \
    X(QLINEAR_MATMUL, qlinear_matmul, "QLinearMatMul") X(QLINEAR_CONV, qlinear_conv, "QLinearConv") \
    /* only passes make these: see common/ops/README.md */ \
    X(WGEMM, wgemm, "WGemm") X(BCONV, bconv, "BConv") X(BGEMM, bgemm, "BGemm") X(HEAD_ATTENTION, head_attention, "HeadAttention") \
    X(QCONV, qconv, "QConv") X(QGEMM, qgemm, "QGemm") X(QADD, qadd, "QAdd") X(QMUL, qmul, "QMul") \
    X(QTABLE, qtable, "QTable") X(QAVERAGE_POOL, qaverage_pool, "QAveragePool") \
    X(QGLOBAL_AVERAGE_POOL, qglobal_average_pool, "QGlobalAveragePool")
/* clang-format on */

#endif
