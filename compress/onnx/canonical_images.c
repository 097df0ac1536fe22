/* SPDX-License-Identifier: Apache-2.0 */
/* To the canonical form, third part: Resize and Upsample. */
#include "compress/onnx/internal.h"

#include <math.h>
#include <string.h>

static terse_node *node_of(terse_onnx_builder *builder, int index)
{
    return &builder->graph->nodes[index];
}

/* Inputs of no element stand for absent ones. */
static void drop_empty(terse_onnx_builder *builder, int index, int position)
{
    terse_node *node = node_of(builder, index);
    if (position >= node->n_inputs || node->inputs[position] < 0)
        return;
    const terse_value *value = &builder->graph->values[node->inputs[position]];
    if (value->data && value->rank == 1 && value->dims[0] == 0)
        node->inputs[position] = TERSE_NO_VALUE;
}

/* The scales of a constant input: how many, or -1. */
static int constant_scales(const terse_graph *graph, int value, const float **ret_scales)
{
    const terse_value *v = value >= 0 ? &graph->values[value] : NULL;
    if (!v || !v->data || v->dtype != TERSE_FP32 || v->rank != 1 || v->dims[0] > TERSE_MAX_RANK)
        return -1;
    *ret_scales = v->data;
    return (int)v->dims[0];
}

static bool set_modes(terse_graph *graph, terse_node *node, const char *nearest)
{
    return terse_node_set_text(graph, node, "coordinate_transformation_mode", "asymmetric") &&
           terse_node_set_text(graph, node, "nearest_mode", nearest);
}

/* Enlarging took the pixel below, reducing the one above. An operator that does both becomes two, one for each: nearest
 * neighbours are found axis by axis. */
static int split_directions(terse_onnx_builder *builder, int index, const float *scales, int n, terse_error *error)
{
    terse_graph *graph = builder->graph;
    float *up = terse_arena_alloc(graph->arena, (size_t)n * sizeof *up);
    float *down = terse_arena_alloc(graph->arena, (size_t)n * sizeof *down);
    if (!up || !down)
        return terse_onnx_no_memory(error);
    for (int i = 0; i < n; i++) {
        up[i] = scales[i] > 1 ? scales[i] : 1;
        down[i] = scales[i] < 1 ? scales[i] : 1;
    }
    const int64_t dims[] = {n};
    const int up_value = terse_graph_add_constant(graph, "scales_up", TERSE_FP32, 1, dims, up);
    const int down_value = terse_graph_add_constant(graph, "scales_down", TERSE_FP32, 1, dims, down);
    const int between = terse_graph_add_value(graph, "resize.enlarged");
    if (up_value < 0 || down_value < 0 || between < 0)
        return terse_onnx_no_memory(error);
    const char *name = graph->nodes[index].name;
    const int input = graph->nodes[index].inputs[0];
    graph->nodes[index].inputs[0] = between;
    graph->nodes[index].inputs[2] = down_value;
    terse_node *first =
        terse_graph_add_node(graph, TERSE_OP_RESIZE, name, (int[]){input, TERSE_NO_VALUE, up_value}, 3, &between, 1);
    if (!first || !set_modes(graph, first, "floor") || !terse_node_set_text(graph, first, "mode", "nearest") ||
        !set_modes(graph, node_of(builder, index), "ceil"))
        return terse_onnx_no_memory(error);
    return TERSE_OK;
}

/* Opset 10: no choice of coordinates, and "nearest" without a choice either. Inputs x, scales. */
static int old_resize(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    terse_node *node = node_of(builder, index);
    if (node->n_inputs != 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d inputs, 2 are allowed in opset %d", node->n_inputs,
                          builder->opset);
    const int scales = node->inputs[1];
    if (!terse_onnx_set_input(graph, index, 2, scales))
        return terse_onnx_no_memory(error);
    node = node_of(builder, index);
    node->inputs[1] = TERSE_NO_VALUE;
    const float *known = NULL;
    const int n = constant_scales(graph, scales, &known);
    bool up = false, down = false;
    for (int i = 0; i < n; i++) {
        up = up || known[i] > 1;
        down = down || known[i] < 1;
    }
    if (up && down && strcmp(terse_node_text(node, "mode", "nearest"), "nearest") == 0)
        return split_directions(builder, index, known, n, error);
    return set_modes(graph, node, down ? "ceil" : "floor") ? TERSE_OK : terse_onnx_no_memory(error);
}

static bool one_of(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static void check_word(terse_onnx_builder *builder, int index, const char *attribute, const char *fallback,
                       const char *const *words)
{
    const terse_node *node = node_of(builder, index);
    const char *word = terse_node_text(node, attribute, fallback);
    if (!one_of(word, words))
        terse_onnx_unsupported(builder->report, node->name, "%s '%.60s' of op 'Resize'", attribute, word);
}

static void check_words(terse_onnx_builder *builder, int index)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", NULL};
    static const char *const coordinates[] = {
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
        "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize", NULL};
    static const char *const nearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil", NULL};
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller", NULL};
    check_word(builder, index, "mode", "nearest", modes);
    check_word(builder, index, "coordinate_transformation_mode", "half_pixel", coordinates);
    check_word(builder, index, "nearest_mode", "round_prefer_floor", nearest);
    check_word(builder, index, "keep_aspect_ratio_policy", "stretch", policies);
}

int terse_onnx_rewrite_resize(terse_onnx_builder *builder, int index, terse_error *error)
{
    check_words(builder, index);
    if (builder->opset < 11)
        return old_resize(builder, index, error);
    for (int i = 1; i < 4; i++)
        drop_empty(builder, index, i);
    return TERSE_OK;
}

/* Scales as attributes (opsets 1 and 7) become a constant. */
static int scales_input(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    terse_node *node = node_of(builder, index);
    const terse_attr *list = terse_node_attr(node, "scales");
    const float pair[] = {1, 1, (float)terse_node_float(node, "height_scale", 0),
                          (float)terse_node_float(node, "width_scale", 0)};
    const int64_t n = list ? list->n : 4;
    if (n > TERSE_MAX_RANK || (!list && (pair[2] < 1 || pair[3] < 1)))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "lacks usable scales");
    float *data = terse_arena_alloc(graph->arena, (size_t)(n ? n : 1) * sizeof *data);
    if (!data)
        return terse_onnx_no_memory(error);
    if (n)
        memcpy(data, list ? list->floats : pair, (size_t)n * sizeof *data);
    const int value = terse_graph_add_constant(graph, "scales", TERSE_FP32, 1, &n, data);
    if (value < 0 || !terse_onnx_set_input(graph, index, 1, value))
        return terse_onnx_no_memory(error);
    return TERSE_OK;
}

/* Upsample repeats pixels or interpolates from corner to corner: Resize with "asymmetric" coordinates. */
int terse_onnx_rewrite_upsample(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const char *mode = terse_node_text(node_of(builder, index), "mode", "nearest");
    const bool linear = strcmp(mode, "linear") == 0 || strcmp(mode, "bilinear") == 0;
    if (!linear && strcmp(mode, "nearest") != 0)
        terse_onnx_unsupported(builder->report, node_of(builder, index)->name, "mode '%.60s' of op 'Upsample'", mode);
    if (builder->opset < 9) {
        if (node_of(builder, index)->n_inputs != 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d inputs, 1 is allowed before opset 9",
                              node_of(builder, index)->n_inputs);
        const int status = scales_input(builder, index, error);
        if (status != TERSE_OK)
            return status;
    } else if (node_of(builder, index)->n_inputs != 2) {
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d inputs, 2 are needed since opset 9",
                          node_of(builder, index)->n_inputs);
    }
    terse_onnx_attribute_drop(node_of(builder, index), "scales");
    terse_onnx_attribute_drop(node_of(builder, index), "height_scale");
    terse_onnx_attribute_drop(node_of(builder, index), "width_scale");
    const int scales = node_of(builder, index)->inputs[1];
    if (!terse_onnx_set_input(graph, index, 2, scales))
        return terse_onnx_no_memory(error);
    node_of(builder, index)->inputs[1] = TERSE_NO_VALUE;
    return set_modes(graph, node_of(builder, index), "floor") &&
                   terse_node_set_text(graph, node_of(builder, index), "mode", linear ? "linear" : "nearest")
               ? TERSE_OK
               : terse_onnx_no_memory(error);
}
