/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW "auto_pad=s dilations=I kernel_shape=I pads=I strides=I "
#define LEGACY_BROADCAST "broadcast=i axis=i "
#define RECURRENT                                                                                                      \
    "activations=S activation_alpha=F activation_beta=F clip=f direction=s hidden_size=i layout=i output_sequence=i "

/* What each operator may carry, in any opset that terse reads; the rewrites deal with what is of old opsets. */
static const terse_onnx_operator operators[] = {
    {"Abs", TERSE_OP_ABS, "", NULL, false},
    {"Add", TERSE_OP_ADD, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"And", TERSE_OP_AND, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"ArgMax", TERSE_OP_ARG_MAX, "axis=i keepdims=i select_last_index=i", NULL, false},
    {"ArgMin", TERSE_OP_ARG_MAX, "axis=i keepdims=i select_last_index=i", terse_onnx_compose_arg_min, false},
    {"AveragePool", TERSE_OP_AVERAGE_POOL, WINDOW "ceil_mode=i count_include_pad=i", terse_onnx_rewrite_windows, false},
    {"BatchNormalization", TERSE_OP_BATCH_NORMALIZATION, "epsilon=f momentum=f spatial=i is_test=i training_mode=i",
     terse_onnx_rewrite_batch_normalization, true},
    {"Cast", TERSE_OP_CAST, "to=* saturate=i round_mode=s", terse_onnx_rewrite_cast, false},
    {"Ceil", TERSE_OP_CEIL, "", NULL, false},
    {"Celu", TERSE_OP_MUL, "alpha=f", terse_onnx_compose_celu, false},
    {"Clip", TERSE_OP_CLIP, "min=f! max=f!", terse_onnx_rewrite_clip, false},
    {"Concat", TERSE_OP_CONCAT, "axis=i", terse_onnx_rewrite_concat, false},
    {"Constant", TERSE_OP_COUNT,
     "value=t value_float=f! value_floats=F! value_int=i value_ints=I value_string=s value_strings=S", NULL, false},
    {"ConstantOfShape", TERSE_OP_CONSTANT_OF_SHAPE, "value=t", NULL, false},
    {"Conv", TERSE_OP_CONV, WINDOW "group=i", terse_onnx_rewrite_windows, false},
    {"ConvInteger", TERSE_OP_CONV_INTEGER, WINDOW "group=i", terse_onnx_rewrite_windows, false},
    {"ConvTranspose", TERSE_OP_CONV_TRANSPOSE, WINDOW "group=i output_padding=I output_shape=I",
     terse_onnx_rewrite_windows, false},
    {"Cos", TERSE_OP_COS, "", NULL, false},
    {"CumSum", TERSE_OP_CUM_SUM, "exclusive=i reverse=i", NULL, false},
    {"DepthToSpace", TERSE_OP_DEPTH_TO_SPACE, "blocksize=i mode=s", NULL, false},
    {"DequantizeLinear", TERSE_OP_DEQUANTIZE_LINEAR, "axis=i block_size=i output_dtype=i", terse_onnx_rewrite_quantize,
     false},
    {"Div", TERSE_OP_DIV, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"Dropout", TERSE_OP_IDENTITY, "ratio=f is_test=i seed=i", terse_onnx_rewrite_dropout, true},
    {"DynamicQuantizeLinear", TERSE_OP_DYNAMIC_QUANTIZE_LINEAR, "", NULL, false},
    {"Einsum", TERSE_OP_EINSUM, "equation=s", NULL, false},
    {"Elu", TERSE_OP_ELU, "alpha=f", NULL, false},
    {"Equal", TERSE_OP_EQUAL, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"Erf", TERSE_OP_ERF, "", NULL, false},
    {"Exp", TERSE_OP_EXP, "", NULL, false},
    {"Expand", TERSE_OP_EXPAND, "", NULL, false},
    {"Flatten", TERSE_OP_FLATTEN, "axis=i", NULL, false},
    {"Floor", TERSE_OP_FLOOR, "", NULL, false},
    {"GRU", TERSE_OP_GRU, RECURRENT "linear_before_reset=i", terse_onnx_rewrite_recurrent, false},
    {"Gather", TERSE_OP_GATHER, "axis=i", NULL, false},
    {"GatherElements", TERSE_OP_GATHER_ELEMENTS, "axis=i", NULL, false},
    {"GatherND", TERSE_OP_GATHER_ND, "batch_dims=i", NULL, false},
    {"Gelu", TERSE_OP_GELU, "approximate=s", terse_onnx_rewrite_gelu, false},
    {"Gemm", TERSE_OP_GEMM, "alpha=f beta=f broadcast=i transA=i transB=i", terse_onnx_rewrite_gemm, false},
    {"GlobalAveragePool", TERSE_OP_GLOBAL_AVERAGE_POOL, "", NULL, false},
    {"GlobalMaxPool", TERSE_OP_GLOBAL_MAX_POOL, "", NULL, false},
    {"Greater", TERSE_OP_GREATER, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"GreaterOrEqual", TERSE_OP_GREATER_OR_EQUAL, "", NULL, false},
    {"GroupNormalization", TERSE_OP_GROUP_NORMALIZATION, "epsilon=f num_groups=i stash_type=i",
     terse_onnx_rewrite_group_normalization, false},
    {"HardSigmoid", TERSE_OP_HARD_SIGMOID, "alpha=f beta=f", NULL, false},
    {"HardSwish", TERSE_OP_HARD_SWISH, "", NULL, false},
    {"Identity", TERSE_OP_IDENTITY, "", NULL, false},
    {"InstanceNormalization", TERSE_OP_INSTANCE_NORMALIZATION, "epsilon=f", NULL, false},
    {"IsNaN", TERSE_OP_NOT, "", terse_onnx_compose_is_nan, false},
    {"LRN", TERSE_OP_LRN, "alpha=f beta=f bias=f size=i", NULL, false},
    {"LSTM", TERSE_OP_LSTM, RECURRENT "input_forget=i", terse_onnx_rewrite_recurrent, false},
    {"LayerNormalization", TERSE_OP_LAYER_NORMALIZATION, "axis=i epsilon=f stash_type=i",
     terse_onnx_rewrite_layer_normalization, true},
    {"LeakyRelu", TERSE_OP_LEAKY_RELU, "alpha=f", NULL, false},
    {"Less", TERSE_OP_LESS, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"LessOrEqual", TERSE_OP_LESS_OR_EQUAL, "", NULL, false},
    {"Log", TERSE_OP_LOG, "", NULL, false},
    {"LogSoftmax", TERSE_OP_LOG_SOFTMAX, "axis=i", terse_onnx_rewrite_softmax, false},
    {"LpNormalization", TERSE_OP_DIV, "axis=i p=i", terse_onnx_compose_lp_normalization, false},
    {"MatMul", TERSE_OP_MATMUL, "", NULL, false},
    {"MatMulInteger", TERSE_OP_MATMUL_INTEGER, "", NULL, false},
    {"Max", TERSE_OP_MAX, "", NULL, false},
    {"MaxPool", TERSE_OP_MAX_POOL, WINDOW "ceil_mode=i storage_order=i", terse_onnx_rewrite_windows, true},
    {"Mean", TERSE_OP_ADD, "", terse_onnx_compose_mean, false},
    {"Min", TERSE_OP_MIN, "", NULL, false},
    {"Mish", TERSE_OP_MUL, "", terse_onnx_compose_mish, false},
    {"Mod", TERSE_OP_MOD, "fmod=i", NULL, false},
    {"Mul", TERSE_OP_MUL, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"Neg", TERSE_OP_NEG, "", NULL, false},
    {"Not", TERSE_OP_NOT, "", NULL, false},
    {"OneHot", TERSE_OP_WHERE, "axis=i", terse_onnx_compose_one_hot, false},
    {"Or", TERSE_OP_OR, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"PRelu", TERSE_OP_PRELU, "", terse_onnx_rewrite_prelu, false},
    {"Pad", TERSE_OP_PAD, "mode=s pads=I paddings=I value=f!", terse_onnx_rewrite_pad, false},
    {"Pow", TERSE_OP_POW, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"QLinearConv", TERSE_OP_QLINEAR_CONV, WINDOW "group=i", terse_onnx_rewrite_qlinear_conv, false},
    {"QLinearMatMul", TERSE_OP_QLINEAR_MATMUL, "", terse_onnx_rewrite_qlinear_matmul, false},
    {"QuantizeLinear", TERSE_OP_QUANTIZE_LINEAR, "axis=i block_size=i output_dtype=i precision=i saturate=i",
     terse_onnx_rewrite_quantize, false},
    {"RMSNormalization", TERSE_OP_MUL, "axis=i epsilon=f stash_type=i", terse_onnx_compose_rms_normalization, false},
    {"RNN", TERSE_OP_RNN, RECURRENT, terse_onnx_rewrite_recurrent, false},
    {"Range", TERSE_OP_RANGE, "", NULL, false},
    {"Reciprocal", TERSE_OP_RECIPROCAL, "", NULL, false},
    {"ReduceL1", TERSE_OP_REDUCE_SUM, "axes=I keepdims=i noop_with_empty_axes=i", terse_onnx_compose_reduce_l1, false},
    {"ReduceL2", TERSE_OP_REDUCE_SUM, "axes=I keepdims=i noop_with_empty_axes=i", terse_onnx_compose_reduce_l2, false},
    {"ReduceLogSum", TERSE_OP_REDUCE_SUM, "axes=I keepdims=i noop_with_empty_axes=i", terse_onnx_compose_reduce_log_sum,
     false},
    {"ReduceLogSumExp", TERSE_OP_REDUCE_SUM, "axes=I keepdims=i noop_with_empty_axes=i",
     terse_onnx_compose_reduce_log_sum_exp, false},
    {"ReduceMax", TERSE_OP_REDUCE_MAX, "axes=I keepdims=i noop_with_empty_axes=i", terse_onnx_rewrite_reduce, false},
    {"ReduceMean", TERSE_OP_REDUCE_MEAN, "axes=I keepdims=i noop_with_empty_axes=i", terse_onnx_rewrite_reduce, false},
    {"ReduceMin", TERSE_OP_REDUCE_MAX, "axes=I keepdims=i noop_with_empty_axes=i", terse_onnx_compose_reduce_min,
     false},
    {"ReduceProd", TERSE_OP_REDUCE_PROD, "axes=I keepdims=i noop_with_empty_axes=i", terse_onnx_rewrite_reduce, false},
    {"ReduceSum", TERSE_OP_REDUCE_SUM, "axes=I keepdims=i noop_with_empty_axes=i", terse_onnx_rewrite_reduce, false},
    {"ReduceSumSquare", TERSE_OP_REDUCE_SUM, "axes=I keepdims=i noop_with_empty_axes=i",
     terse_onnx_compose_reduce_sum_square, false},
    {"Relu", TERSE_OP_RELU, "", NULL, false},
    {"Reshape", TERSE_OP_RESHAPE, "shape=I allowzero=i", terse_onnx_rewrite_reshape, false},
    {"Resize", TERSE_OP_RESIZE,
     "antialias=i axes=I coordinate_transformation_mode=s cubic_coeff_a=f exclude_outside=i extrapolation_value=f! "
     "keep_aspect_ratio_policy=s mode=s nearest_mode=s",
     terse_onnx_rewrite_resize, false},
    {"Round", TERSE_OP_ROUND, "", NULL, false},
    {"ScatterND", TERSE_OP_SCATTER_ND, "reduction=s", NULL, false},
    {"Selu", TERSE_OP_SELU, "alpha=f gamma=f", terse_onnx_rewrite_selu, false},
    {"Shape", TERSE_OP_SHAPE, "start=i end=i", NULL, false},
    {"Sigmoid", TERSE_OP_SIGMOID, "", NULL, false},
    {"Sign", TERSE_OP_SIGN, "", NULL, false},
    {"Sin", TERSE_OP_SIN, "", NULL, false},
    {"Size", TERSE_OP_REDUCE_PROD, "", terse_onnx_compose_size, false},
    {"Slice", TERSE_OP_SLICE, "starts=I ends=I axes=I", terse_onnx_rewrite_slice, false},
    {"Softmax", TERSE_OP_SOFTMAX, "axis=i", terse_onnx_rewrite_softmax, false},
    {"Softplus", TERSE_OP_SOFTPLUS, "", NULL, false},
    {"Softsign", TERSE_OP_SOFTSIGN, "", NULL, false},
    {"SpaceToDepth", TERSE_OP_CONCAT, "blocksize=i", terse_onnx_compose_space_to_depth, false},
    {"Split", TERSE_OP_SPLIT, "axis=i split=I num_outputs=i", terse_onnx_rewrite_split, false},
    {"Sqrt", TERSE_OP_SQRT, "", NULL, false},
    {"Squeeze", TERSE_OP_SQUEEZE, "axes=I", terse_onnx_rewrite_squeeze, false},
    {"Sub", TERSE_OP_SUB, LEGACY_BROADCAST, terse_onnx_rewrite_broadcast, false},
    {"Sum", TERSE_OP_ADD, "", terse_onnx_compose_sum, false},
    {"Swish", TERSE_OP_MUL, "alpha=f", terse_onnx_compose_swish, false},
    {"Tan", TERSE_OP_DIV, "", terse_onnx_compose_tan, false},
    {"Tanh", TERSE_OP_TANH, "", NULL, false},
    {"ThresholdedRelu", TERSE_OP_WHERE, "alpha=f", terse_onnx_compose_thresholded_relu, false},
    {"Tile", TERSE_OP_TILE, "", terse_onnx_rewrite_tile, false},
    {"TopK", TERSE_OP_TOP_K, "axis=i k=i largest=i sorted=i", terse_onnx_rewrite_top_k, false},
    {"Transpose", TERSE_OP_TRANSPOSE, "perm=I", NULL, false},
    {"Trilu", TERSE_OP_TRILU, "upper=i", NULL, false},
    {"Unsqueeze", TERSE_OP_UNSQUEEZE, "axes=I", terse_onnx_rewrite_squeeze, false},
    {"Upsample", TERSE_OP_RESIZE, "mode=s scales=F height_scale=f width_scale=f", terse_onnx_rewrite_upsample, false},
    {"Where", TERSE_OP_WHERE, "", NULL, false},
    {"Xor", TERSE_OP_NOT, LEGACY_BROADCAST, terse_onnx_compose_xor, false},
};

/* Quantized operators of onnxruntime, domain com.microsoft. */
static const terse_onnx_operator contributed[] = {
    {"DequantizeLinear", TERSE_OP_DEQUANTIZE_LINEAR, "axis=i", terse_onnx_rewrite_quantize, false},
    {"DynamicQuantizeMatMul", TERSE_OP_MATMUL_INTEGER, "", terse_onnx_rewrite_dynamic_quantize_matmul, false},
    {"MatMulIntegerToFloat", TERSE_OP_MATMUL_INTEGER, "", terse_onnx_rewrite_matmul_integer_to_float, false},
    {"QGemm", TERSE_OP_GEMM, "alpha=f transA=i transB=i", terse_onnx_rewrite_qgemm, false},
    {"QLinearAdd", TERSE_OP_ADD, "", terse_onnx_rewrite_qlinear_binary, false},
    {"QLinearAveragePool", TERSE_OP_AVERAGE_POOL, WINDOW "ceil_mode=i channels_last=i count_include_pad=i",
     terse_onnx_rewrite_qlinear_unary, false},
    {"QLinearConcat", TERSE_OP_CONCAT, "axis=i", terse_onnx_rewrite_qlinear_concat, false},
    {"QLinearGlobalAveragePool", TERSE_OP_GLOBAL_AVERAGE_POOL, "channels_last=i", terse_onnx_rewrite_qlinear_unary,
     false},
    {"QLinearLeakyRelu", TERSE_OP_LEAKY_RELU, "alpha=f", terse_onnx_rewrite_qlinear_unary, false},
    {"QLinearMul", TERSE_OP_MUL, "", terse_onnx_rewrite_qlinear_binary, false},
    {"QLinearSigmoid", TERSE_OP_SIGMOID, "", terse_onnx_rewrite_qlinear_unary, false},
    {"QLinearSoftmax", TERSE_OP_SOFTMAX, "axis=i opset=i", terse_onnx_rewrite_qlinear_unary, false},
    {"QLinearWhere", TERSE_OP_WHERE, "", terse_onnx_rewrite_qlinear_where, false},
    {"QuantizeLinear", TERSE_OP_QUANTIZE_LINEAR, "axis=i", terse_onnx_rewrite_quantize, false},
};

static int compare(const void *name, const void *row)
{
    return strcmp(name, ((const terse_onnx_operator *)row)->name);
}

const terse_onnx_operator *terse_onnx_operator_find(const char *domain, const char *name)
{
    if (domain && strcmp(domain, "com.microsoft") == 0)
        return bsearch(name, contributed, sizeof contributed / sizeof contributed[0], sizeof contributed[0], compare);
    if (!terse_onnx_own_domain(domain))
        return NULL;
    return bsearch(name, operators, sizeof operators / sizeof operators[0], sizeof operators[0], compare);
}

Onnx__Attribute *terse_onnx_attribute_find(const Onnx__Node *node, const char *name)
{
    for (size_t i = 0; i < node->n_attribute; i++)
        if (node->attribute[i]->name && strcmp(node->attribute[i]->name, name) == 0)
            return node->attribute[i];
    return NULL;
}

void terse_onnx_attribute_drop(terse_node *node, const char *name)
{
    for (int i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, name) == 0) {
            memmove(&node->attrs[i], &node->attrs[i + 1], (size_t)(node->n_attrs - i - 1) * sizeof *node->attrs);
            node->n_attrs--;
            return;
        }
}

/* The kind letter of attribute `name`, 0 when the operator has none such; *ret_infinite: infinities make sense. */
static char kind_of(const terse_onnx_operator *operator, const char * name, bool *ret_infinite)
{
    const size_t length = strlen(name);
    for (const char *at = operator->attributes; *at;) {
        const size_t this_length = strcspn(at, "=");
        const char *kind = at + this_length + 1;
        if (this_length == length && memcmp(at, name, length) == 0) {
            *ret_infinite = kind[1] == '!';
            return *kind;
        }
        at = kind + strcspn(kind, " ");
        at += strspn(at, " ");
    }
    return 0;
}

/* What the attribute holds: a kind letter, 'g' for what terse never reads. Files of the first version lack the type:
 * then what is there decides, and nothing at all stands for an empty list (0). */
static char kind_found(const Onnx__Attribute *attribute)
{
    static const char by_type[] = "?fistgFISgg?gg";
    if (attribute->ref_attr_name && *attribute->ref_attr_name)
        return 'r';
    if (attribute->has_type && attribute->type != 0)
        return attribute->type > 0 && attribute->type < (int)sizeof by_type - 1 ? by_type[attribute->type] : '?';
    if (attribute->has_g || attribute->n_graphs || attribute->has_tp || attribute->n_type_protos ||
        attribute->has_sparse_tensor || attribute->n_sparse_tensors || attribute->n_tensors)
        return 'g';
    return attribute->t           ? 't'
           : attribute->has_s     ? 's'
           : attribute->has_i     ? 'i'
           : attribute->has_f     ? 'f'
           : attribute->n_floats  ? 'F'
           : attribute->n_ints    ? 'I'
           : attribute->n_strings ? 'S'
                                  : 0;
}

static bool sane(float value, bool infinite)
{
    return infinite ? !isnan(value) : isfinite(value);
}

static char *copy_text(terse_graph *graph, ProtobufCBinaryData text)
{
    if (text.len > TERSE_MAX_NAME || (text.len && memchr(text.data, 0, text.len)))
        return NULL;
    return terse_arena_text(graph->arena, (const char *)text.data, text.len);
}

static int copy_texts(terse_graph *graph, int node, const Onnx__Attribute *from, terse_error *error)
{
    if (from->n_strings > TERSE_MAX_NODE_IO)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute '%.100s' has %zu texts, at most %d are allowed",
                          from->name, from->n_strings, TERSE_MAX_NODE_IO);
    TERSE_AUTO(terse_freep) const char **texts = calloc(from->n_strings + 1, sizeof *texts);
    if (!texts)
        return terse_onnx_no_memory(error);
    for (size_t i = 0; i < from->n_strings; i++)
        if (!(texts[i] = copy_text(graph, from->strings[i])))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute '%.100s' element %zu is no short text",
                              from->name, i);
    return terse_node_set_texts(graph, &graph->nodes[node], from->name, texts, (int)from->n_strings)
               ? TERSE_OK
               : terse_onnx_no_memory(error);
}

/* Lists in attributes are shapes, axes, pads ... Constants (value_ints) are read elsewhere. */
static int copy_list(terse_graph *graph, int node, const Onnx__Attribute *from, char kind, bool infinite,
                     terse_error *error)
{
    const size_t n = kind == 'I' ? from->n_ints : from->n_floats;
    if (n > 65536)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "attribute '%.100s' has %zu elements, at most 65536 are allowed", from->name, n);
    for (size_t i = 0; kind == 'F' && i < n; i++)
        if (!sane(from->floats[i], infinite))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute '%.100s' element %zu is %g", from->name, i,
                              (double)from->floats[i]);
    const bool done = kind == 'I' ? terse_node_set_ints(graph, &graph->nodes[node], from->name, from->ints, (int)n)
                                  : terse_node_set_floats(graph, &graph->nodes[node], from->name, from->floats, (int)n);
    return done ? TERSE_OK : terse_onnx_no_memory(error);
}

static int copy_one(terse_onnx_builder *builder, int node, const Onnx__Attribute *from, char kind, bool infinite,
                    terse_error *error)
{
    terse_graph *graph = builder->graph;
    terse_node *to = &graph->nodes[node];
    char *text;
    switch (kind) {
    case 'i':
        return terse_node_set_int(graph, to, from->name, from->i) ? TERSE_OK : terse_onnx_no_memory(error);
    case 'f':
        if (!sane(from->f, infinite))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute '%.100s' is %g", from->name, (double)from->f);
        return terse_node_set_float(graph, to, from->name, (double)from->f) ? TERSE_OK : terse_onnx_no_memory(error);
    case 's':
        if (!(text = copy_text(graph, from->s)))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute '%.100s' is no short text", from->name);
        return terse_node_set_text(graph, to, from->name, text) ? TERSE_OK : terse_onnx_no_memory(error);
    case 'S':
        return copy_texts(graph, node, from, error);
    case 'I':
    case 'F':
        return copy_list(graph, node, from, kind, infinite, error);
    default: /* tensors: their operator reads them */
        return TERSE_OK;
    }
}

int terse_onnx_attributes_read(terse_onnx_builder *builder, const terse_onnx_operator *operator,
                               const Onnx__Node * from, int node, terse_error *error)
{
    for (size_t i = 0; i < from->n_attribute; i++) {
        const Onnx__Attribute *attribute = from->attribute[i];
        const char *name = attribute->name ? attribute->name : "";
        if (*name == 0 || strlen(name) > TERSE_MAX_NAME)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute %zu has no name or one too long", i);
        if (terse_onnx_attribute_find(from, name) != attribute)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute '%.100s' is given twice", name);
        if (builder->opset < 6 && strcmp(name, "consumed_inputs") == 0)
            continue; /* a hint on memory reuse */
        bool infinite = false;
        char allowed = kind_of(operator, name, &infinite);
        const char found = kind_found(attribute);
        if (allowed == '*') /* Cast's `to` was a text first */
            allowed = found == 's' ? 's' : 'i';
        if (allowed == 0 || found == 'g' || found == 'r') {
            terse_onnx_unsupported(builder->report, builder->graph->nodes[node].name, "%sattribute '%.100s' of op '%s'",
                                   found == 'g'   ? "graph, sparse or type "
                                   : found == 'r' ? "referring "
                                                  : "",
                                   name, operator->name);
            continue;
        }
        if (found != allowed && !(found == 0 && allowed >= 'A' && allowed <= 'Z'))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute '%.100s' has kind %c, %c is allowed", name,
                              found ? found : '0', allowed);
        const int status = copy_one(builder, node, attribute, allowed, infinite, error);
        if (status != TERSE_OK)
            return status;
    }
    return TERSE_OK;
}
