/* SPDX-License-Identifier: Apache-2.0 */
/* To the canonical form, second part: what moves elements. Lists that were attributes become inputs. */
#include "compress/onnx/internal.h"

#include <inttypes.h>
#include <string.h>

static terse_node *node_of(terse_onnx_builder *builder, int index)
{
    return &builder->graph->nodes[index];
}

/* Attribute `name` (ints) as input `position`. */
static int ints_input(terse_onnx_builder *builder, int index, int position, const char *name, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const terse_attr *attr = terse_node_attr(&graph->nodes[index], name);
    if (!attr)
        return TERSE_OK;
    const int value = terse_graph_add_ints(graph, name, attr->ints, attr->n);
    if (value < 0 || !terse_onnx_set_input(graph, index, position, value))
        return terse_onnx_no_memory(error);
    terse_onnx_attribute_drop(&graph->nodes[index], name);
    return TERSE_OK;
}

/* From opset `since` on the list is an input: then its attribute is a stranger. Before, the input is. */
static int moved_list(terse_onnx_builder *builder, int index, int since, int position, const char *name,
                      terse_error *error)
{
    const terse_node *node = node_of(builder, index);
    if (builder->opset < since && node->n_inputs > position)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d inputs, %d are allowed before opset %d",
                          node->n_inputs, position, since);
    if (builder->opset < since)
        return ints_input(builder, index, position, name, error);
    if (terse_node_attr(node, name))
        terse_onnx_unsupported(builder->report, node->name, "attribute '%s' of op '%s'", name, terse_op_name(node->op));
    return TERSE_OK;
}

/* Opset 1: "paddings"; to 10: attributes "pads" and "value"; since then inputs. */
int terse_onnx_rewrite_pad(terse_onnx_builder *builder, int index, terse_error *error)
{
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    terse_graph *graph = builder->graph;
    const char *mode = terse_node_text(node_of(builder, index), "mode", "constant");
    bool known = false;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        known = known || strcmp(mode, modes[i]) == 0;
    if (!known)
        terse_onnx_unsupported(builder->report, node_of(builder, index)->name, "mode '%.60s' of op 'Pad'", mode);
    const char *name = builder->opset < 2 ? "paddings" : "pads";
    int status = moved_list(builder, index, 11, 1, name, error);
    const terse_attr *value = terse_node_attr(node_of(builder, index), "value");
    if (status != TERSE_OK || !value)
        return status;
    if (builder->opset >= 11) {
        terse_onnx_unsupported(builder->report, node_of(builder, index)->name, "attribute 'value' of op 'Pad'");
        return TERSE_OK;
    }
    float *fill = terse_arena_alloc(graph->arena, sizeof *fill);
    if (!fill)
        return terse_onnx_no_memory(error);
    *fill = (float)value->f;
    const int constant = terse_graph_add_constant(graph, "value", TERSE_FP32, 0, NULL, fill);
    if (constant < 0 || !terse_onnx_set_input(graph, index, 2, constant))
        return terse_onnx_no_memory(error);
    terse_onnx_attribute_drop(node_of(builder, index), "value");
    return TERSE_OK;
}

int terse_onnx_rewrite_slice(terse_onnx_builder *builder, int index, terse_error *error)
{
    int status = moved_list(builder, index, 10, 1, "starts", error);
    if (status == TERSE_OK && builder->opset < 10)
        status = ints_input(builder, index, 2, "ends", error);
    if (status == TERSE_OK && builder->opset < 10)
        status = ints_input(builder, index, 3, "axes", error);
    return status;
}

/* Opset 1 had both an attribute and an optional input. */
int terse_onnx_rewrite_split(terse_onnx_builder *builder, int index, terse_error *error)
{
    const terse_node *node = node_of(builder, index);
    const int64_t parts = terse_node_int(node, "num_outputs", node->n_outputs);
    if (parts != node->n_outputs)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "num_outputs is %" PRId64 ", the node has %d outputs", parts,
                          node->n_outputs);
    if (builder->opset < 2 && node->n_inputs > 1) {
        terse_onnx_attribute_drop(node_of(builder, index), "split");
        return TERSE_OK;
    }
    return moved_list(builder, index, 13, 1, "split", error);
}

int terse_onnx_rewrite_squeeze(terse_onnx_builder *builder, int index, terse_error *error)
{
    return moved_list(builder, index, 13, 1, "axes", error);
}

int terse_onnx_rewrite_reshape(terse_onnx_builder *builder, int index, terse_error *error)
{
    return moved_list(builder, index, 5, 1, "shape", error);
}

int terse_onnx_rewrite_top_k(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const terse_attr *k = terse_node_attr(node_of(builder, index), "k");
    if (builder->opset >= 10) {
        if (k)
            terse_onnx_unsupported(builder->report, node_of(builder, index)->name, "attribute 'k' of op 'TopK'");
        return TERSE_OK;
    }
    if (!k || node_of(builder, index)->n_inputs > 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "takes 1 input and attribute 'k' before opset 10");
    const int value = terse_graph_add_ints(graph, "k", &k->i, 1);
    if (value < 0 || !terse_onnx_set_input(graph, index, 1, value))
        return terse_onnx_no_memory(error);
    terse_onnx_attribute_drop(node_of(builder, index), "k");
    return TERSE_OK;
}

int terse_onnx_reduce_axes(terse_onnx_builder *builder, int index, int since, terse_error *error)
{
    return moved_list(builder, index, since, 1, "axes", error);
}

int terse_onnx_rewrite_reduce(terse_onnx_builder *builder, int index, terse_error *error)
{
    return terse_onnx_reduce_axes(builder, index, node_of(builder, index)->op == TERSE_OP_REDUCE_SUM ? 13 : 18, error);
}

/* Opset 1: `tiles` copies along `axis`, both inputs of one element. That is a Concat of the input with itself. */
int terse_onnx_rewrite_tile(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    terse_node *node = node_of(builder, index);
    if (builder->opset >= 6)
        return TERSE_OK;
    int64_t tiles, axis;
    if (node->n_inputs != 3 || terse_onnx_constant_ints(graph, node->inputs[1], &tiles, 1) != 1 ||
        terse_onnx_constant_ints(graph, node->inputs[2], &axis, 1) != 1 || tiles < 1 || tiles > TERSE_MAX_NODE_IO) {
        terse_onnx_unsupported(builder->report, node->name,
                               "op 'Tile' with other than constant integer tiles and axis");
        return TERSE_OK;
    }
    const int input = node->inputs[0];
    node->op = TERSE_OP_CONCAT;
    node->n_inputs = 1;
    for (int i = (int)tiles - 1; i >= 1; i--)
        if (!terse_onnx_set_input(graph, index, i, input))
            return terse_onnx_no_memory(error);
    return terse_node_set_int(graph, node_of(builder, index), "axis", axis) ? TERSE_OK : terse_onnx_no_memory(error);
}

int terse_onnx_rewrite_concat(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    if (terse_node_attr(node, "axis"))
        return TERSE_OK;
    if (builder->opset >= 4)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "lacks attribute 'axis'");
    return terse_node_set_int(builder->graph, node, "axis", 1) ? TERSE_OK : terse_onnx_no_memory(error);
}
