/* SPDX-License-Identifier: Apache-2.0 */
/* From ONNX's forms of all opsets to the one in common/ops/README.md: arithmetic, normalization, recurrent layers. */
#include "compress/onnx/internal.h"

#include "common/ops/op.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool terse_onnx_set_input(terse_graph *graph, int index, int position, int value)
{
    terse_node *node = &graph->nodes[index];
    if (position >= node->n_inputs) {
        int *inputs = terse_arena_alloc(graph->arena, (size_t)(position + 1) * sizeof *inputs);
        if (!inputs)
            return false;
        for (int i = 0; i <= position; i++)
            inputs[i] = i < node->n_inputs ? node->inputs[i] : TERSE_NO_VALUE;
        node->inputs = inputs;
        node->n_inputs = position + 1;
    }
    node->inputs[position] = value;
    return true;
}

int terse_onnx_constant_ints(const terse_graph *graph, int value, int64_t *ret_values, int max)
{
    if (value < 0)
        return -1;
    const terse_value *v = &graph->values[value];
    const int64_t n = v->rank == 0 ? 1 : v->rank == 1 ? v->dims[0] : -1;
    if (!v->data || n < 0 || n > max || (v->dtype != TERSE_INT64 && v->dtype != TERSE_INT32))
        return -1;
    for (int64_t i = 0; i < n; i++)
        ret_values[i] = v->dtype == TERSE_INT64 ? ((const int64_t *)v->data)[i] : ((const int32_t *)v->data)[i];
    return (int)n;
}

static terse_node *node_of(terse_onnx_builder *builder, int index)
{
    return &builder->graph->nodes[index];
}

/* Before opset 7 operands were broadcast only when asked, and `axis` said where the second one starts. Without `axis`
 * that is what numpy does; with it the second operand waits for axes at its end until ranks are known. */
int terse_onnx_rewrite_broadcast(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    const bool asked = terse_node_int(node, "broadcast", 0) != 0;
    const terse_attr *axis = terse_node_attr(node, "axis");
    const int64_t at = axis ? axis->i : 0;
    const bool old = terse_node_attr(node, "broadcast") || axis;
    terse_onnx_attribute_drop(node, "broadcast");
    terse_onnx_attribute_drop(node, "axis");
    if (old && builder->opset >= 7)
        terse_onnx_unsupported(builder->report, node->name, "attribute 'broadcast' or 'axis' of op '%s'",
                               terse_op_name(node->op));
    if (!asked || !axis || builder->opset >= 7)
        return TERSE_OK;
    return terse_node_set_int(builder->graph, node, TERSE_ONNX_BROADCAST_AXIS, at) ? TERSE_OK
                                                                                   : terse_onnx_no_memory(error);
}

/* Before opset 7 a slope of C elements belongs to the channels, axis 1. */
int terse_onnx_rewrite_prelu(terse_onnx_builder *builder, int index, terse_error *error)
{
    if (builder->opset >= 7)
        return TERSE_OK;
    return terse_node_set_int(builder->graph, node_of(builder, index), TERSE_ONNX_BROADCAST_AXIS, 1)
               ? TERSE_OK
               : terse_onnx_no_memory(error);
}

static int float_input(terse_onnx_builder *builder, int index, int position, const char *attribute, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const terse_attr *attr = terse_node_attr(&graph->nodes[index], attribute);
    if (!attr)
        return TERSE_OK;
    float *data = terse_arena_alloc(graph->arena, sizeof *data);
    if (!data)
        return terse_onnx_no_memory(error);
    *data = (float)attr->f;
    const int value = terse_graph_add_constant(graph, attribute, TERSE_FP32, 0, NULL, data);
    if (value < 0 || !terse_onnx_set_input(graph, index, position, value))
        return terse_onnx_no_memory(error);
    terse_onnx_attribute_drop(&graph->nodes[index], attribute);
    return TERSE_OK;
}

/* An attribute where the opset has an input (or the other way round) is not part of that opset. */
static void refuse_attribute(terse_onnx_builder *builder, int index, const char *name)
{
    const terse_node *node = node_of(builder, index);
    if (terse_node_attr(node, name))
        terse_onnx_unsupported(builder->report, node->name, "attribute '%s' of op '%s'", name, terse_op_name(node->op));
}

int terse_onnx_rewrite_clip(terse_onnx_builder *builder, int index, terse_error *error)
{
    if (builder->opset >= 11) {
        refuse_attribute(builder, index, "min");
        refuse_attribute(builder, index, "max");
        return TERSE_OK;
    }
    const int status = float_input(builder, index, 1, "min", error);
    return status == TERSE_OK ? float_input(builder, index, 2, "max", error) : status;
}

/* Since opset 13 along one axis, the last by default; before, over everything from `axis` (1) on. */
int terse_onnx_rewrite_softmax(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    const bool old = builder->opset < 13;
    if (!terse_node_set_int(builder->graph, node, "axis", terse_node_int(node, "axis", old ? 1 : -1)) ||
        (old && !terse_node_set_int(builder->graph, node, "coerce_2d", 1)))
        return terse_onnx_no_memory(error);
    return TERSE_OK;
}

int terse_onnx_rewrite_batch_normalization(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    const bool training = terse_node_int(node, "training_mode", 0) != 0;
    if (terse_node_int(node, "spatial", 1) != 1)
        terse_onnx_unsupported(builder->report, node->name,
                               "attribute 'spatial' = %" PRId64 " of op 'BatchNormalization'",
                               terse_node_int(node, "spatial", 1));
    for (int i = training ? 3 : 1; i < node->n_outputs; i++)
        if (node->outputs[i] != TERSE_NO_VALUE)
            terse_onnx_unsupported(builder->report, node->name, "output %d of op 'BatchNormalization'", i);
    terse_onnx_attribute_drop(node, "training_mode");
    terse_onnx_attribute_drop(node, "spatial");
    terse_onnx_attribute_drop(node, "is_test");
    if (training)
        return terse_onnx_compose_batch_statistics(builder, index, error);
    node->n_outputs = 1;
    terse_onnx_attribute_drop(node, "momentum");
    return TERSE_OK;
}

/* Before opset 21 scale and bias belong to the groups. Then each group is one channel of an InstanceNormalization
 * between two Reshapes: to [N, groups, rest] and back to the shape of the input. */
static int per_group(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const terse_node old = graph->nodes[index];
    if (old.n_inputs != 3 || old.inputs[0] < 0)
        return TERSE_OK; /* refused by its count of inputs */
    const int64_t groups = terse_node_int(&old, "num_groups", 0);
    const double epsilon = terse_node_float(&old, "epsilon", 1e-5);
    const int shape = terse_graph_add_value(graph, "group_normalization.shape");
    const int grouped = terse_graph_add_value(graph, "group_normalization.grouped");
    const int normal = terse_graph_add_value(graph, "group_normalization.normal");
    const int to = terse_graph_add_ints(graph, "group_normalization.groups", (int64_t[]){0, groups, -1}, 3);
    if (shape < 0 || grouped < 0 || normal < 0 || to < 0 ||
        !terse_graph_add_node(graph, TERSE_OP_SHAPE, old.name, &old.inputs[0], 1, &shape, 1) ||
        !terse_graph_add_node(graph, TERSE_OP_RESHAPE, old.name, (int[]){old.inputs[0], to}, 2, &grouped, 1) ||
        !terse_graph_add_node(graph, TERSE_OP_RESHAPE, old.name, (int[]){normal, shape}, 2, old.outputs, 1))
        return terse_onnx_no_memory(error);
    terse_node *node = &graph->nodes[index];
    *node = (terse_node){.op = TERSE_OP_INSTANCE_NORMALIZATION, .name = old.name, .compression = ""};
    node->n_inputs = 3;
    node->inputs = old.inputs;
    node->inputs[0] = grouped;
    node->n_outputs = 1;
    node->outputs = terse_arena_alloc(graph->arena, sizeof *node->outputs);
    if (!node->outputs || !terse_node_set_float(graph, node, "epsilon", epsilon))
        return terse_onnx_no_memory(error);
    node->outputs[0] = normal;
    return TERSE_OK;
}

int terse_onnx_rewrite_group_normalization(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    terse_onnx_attribute_drop(node, "stash_type"); /* all is computed in FP32 */
    const int64_t groups = terse_node_int(node, "num_groups", 0);
    if (groups < 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "num_groups is %" PRId64 ", at least 1 is allowed", groups);
    return builder->opset < 21 ? per_group(builder, index, error) : TERSE_OK;
}

int terse_onnx_rewrite_layer_normalization(terse_onnx_builder *builder, int index, terse_error *error)
{
    (void)error;
    terse_onnx_attribute_drop(node_of(builder, index), "stash_type");
    return TERSE_OK;
}

/* `to` becomes terse's own number. FP16, BF16 and FP64 exist in constants only. */
int terse_onnx_rewrite_cast(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    const terse_attr *to = terse_node_attr(node, "to");
    if (!to)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "lacks attribute 'to'");
    const bool text = to->kind == TERSE_ATTR_TEXT;
    const int32_t number = text || to->i < 0 || to->i > INT32_MAX ? -1 : (int32_t)to->i;
    const terse_dtype dtype = text ? terse_onnx_dtype_from_text(to->text) : terse_onnx_dtype(number);
    terse_onnx_attribute_drop(node, "saturate");
    terse_onnx_attribute_drop(node, "round_mode");
    if (dtype == TERSE_DTYPE_NONE || dtype == TERSE_FP64 || dtype == TERSE_FP16 || dtype == TERSE_BF16) {
        terse_onnx_unsupported(builder->report, node->name, "element type %.60s of op 'Cast'",
                               text ? to->text : terse_onnx_dtype_name(number));
        return TERSE_OK;
    }
    return terse_node_set_int(builder->graph, node, "to", dtype) ? TERSE_OK : terse_onnx_no_memory(error);
}

int terse_onnx_rewrite_gelu(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    const char *approximate = terse_node_text(node, "approximate", "none");
    if (strcmp(approximate, "none") != 0 && strcmp(approximate, "tanh") != 0)
        terse_onnx_unsupported(builder->report, node->name, "approximate '%.60s' of op 'Gelu'", approximate);
    return terse_node_set_text(builder->graph, node, "approximate", approximate) ? TERSE_OK
                                                                                 : terse_onnx_no_memory(error);
}

/* The first version knew fewer digits of the constants. */
int terse_onnx_rewrite_selu(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    if (builder->opset >= 6)
        return TERSE_OK;
    return terse_node_set_float(builder->graph, node, "alpha", terse_node_float(node, "alpha", 1.6732)) &&
                   terse_node_set_float(builder->graph, node, "gamma", terse_node_float(node, "gamma", 1.0507))
               ? TERSE_OK
               : terse_onnx_no_memory(error);
}

/* The mask of a Dropout that drops nothing: all true (1 before opset 10), in the shape of the input. */
static int full_mask(terse_onnx_builder *builder, int index, int mask, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const int input = graph->nodes[index].inputs[0];
    const char *name = graph->nodes[index].name;
    const int shape = terse_graph_add_value(graph, "dropout.shape");
    if (shape < 0 || !terse_graph_add_node(graph, TERSE_OP_SHAPE, name, &input, 1, &shape, 1))
        return terse_onnx_no_memory(error);
    terse_node *fill = terse_graph_add_node(graph, TERSE_OP_CONSTANT_OF_SHAPE, name, &shape, 1, &mask, 1);
    if (!fill || !terse_node_set_int(graph, fill, "dtype", builder->opset < 10 ? TERSE_FP32 : TERSE_BOOL) ||
        !terse_node_set_float(graph, fill, "value", 1))
        return terse_onnx_no_memory(error);
    return TERSE_OK;
}

/* A constant that says "train", with a ratio that is not 0. */
static bool drops(const terse_graph *graph, const terse_node *node)
{
    const terse_value *training = &graph->values[node->inputs[2]];
    const terse_value *ratio = node->inputs[1] >= 0 ? &graph->values[node->inputs[1]] : NULL;
    if (training->bytes != 1 || *(const char *)training->data == 0)
        return false;
    return !ratio || !ratio->data || ratio->dtype != TERSE_FP32 || ratio->bytes != sizeof(float) ||
           *(const float *)ratio->data != 0;
}

/* Nothing is dropped when a network answers. */
int terse_onnx_rewrite_dropout(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    terse_node *node = node_of(builder, index);
    if (node->n_inputs < 1 || node->n_inputs > 3 || node->inputs[0] < 0 || node->n_outputs > 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d inputs and %d outputs", node->n_inputs,
                          node->n_outputs);
    const int training = node->n_inputs > 2 ? node->inputs[2] : TERSE_NO_VALUE;
    if (training != TERSE_NO_VALUE && graph->values[training].data && drops(graph, node))
        terse_onnx_unsupported(builder->report, node->name, "training_mode of op 'Dropout'");
    else if (training != TERSE_NO_VALUE && !graph->values[training].data)
        terse_onnx_warn(builder->report, "node '%.300s' (Dropout) never drops anything, whatever '%.300s' holds",
                        node->name, graph->values[training].name);
    terse_onnx_attribute_drop(node, "ratio");
    terse_onnx_attribute_drop(node, "is_test");
    terse_onnx_attribute_drop(node, "seed");
    const int mask = node->n_outputs > 1 ? node->outputs[1] : TERSE_NO_VALUE;
    node->n_inputs = node->n_outputs = 1;
    if (node->outputs[0] == TERSE_NO_VALUE) /* only the mask is wanted */
        node->op = TERSE_OP_COUNT;
    return mask == TERSE_NO_VALUE ? TERSE_OK : full_mask(builder, index, mask, error);
}

int terse_onnx_rewrite_gemm(terse_onnx_builder *builder, int index, terse_error *error)
{
    (void)error;
    if (builder->opset >= 7)
        refuse_attribute(builder, index, "broadcast");
    terse_onnx_attribute_drop(node_of(builder, index), "broadcast"); /* numpy's rule since; the same where it is 1 */
    return TERSE_OK;
}

int terse_onnx_rewrite_recurrent(terse_onnx_builder *builder, int index, terse_error *error)
{
    (void)error;
    terse_onnx_attribute_drop(node_of(builder, index), "output_sequence"); /* the outputs' names say what is wanted */
    return TERSE_OK;
}

/* Convolutions and pooling: only words are checked here, numbers are when a plan is made. */
int terse_onnx_rewrite_windows(terse_onnx_builder *builder, int index, terse_error *error)
{
    static const char *const words[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    (void)error;
    const terse_node *node = node_of(builder, index);
    const char *auto_pad = terse_node_text(node, "auto_pad", "NOTSET");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(auto_pad, words[i]) == 0)
            return TERSE_OK;
    terse_onnx_unsupported(builder->report, node->name, "auto_pad '%.60s' of op '%s'", auto_pad,
                           terse_op_name(node->op));
    return TERSE_OK;
}
