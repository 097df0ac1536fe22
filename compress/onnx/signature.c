/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* -1 is how some exporters write "not known"; other negative numbers are refused. */
static bool is_open(const Onnx__Dimension *dim)
{
    return !dim->has_dim_value || dim->dim_value == -1;
}

static bool is_named(const Onnx__Dimension *dim)
{
    return !dim->has_dim_value && dim->dim_param && *dim->dim_param;
}

static const Onnx__Shape *shape_of(const Onnx__Value *value)
{
    return value->type && value->type->tensor_type ? value->type->tensor_type->shape : NULL;
}

/* Ranks and numbers; names are met elsewhere. */
static int check_shape(const Onnx__Shape *shape, terse_error *error)
{
    if (shape->n_dim > TERSE_MAX_RANK)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has rank %zu, at most %d is allowed", shape->n_dim,
                          TERSE_MAX_RANK);
    int64_t fixed[TERSE_MAX_RANK];
    for (size_t i = 0; i < shape->n_dim; i++) {
        const Onnx__Dimension *dim = shape->dim[i];
        fixed[i] = is_open(dim) ? 1 : dim->dim_value;
        if (fixed[i] < 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis %zu has dimension %" PRId64, i, fixed[i]);
        if (is_named(dim) && strlen(dim->dim_param) >= TERSE_MAX_NAME)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis %zu has a name of %zu bytes", i,
                              strlen(dim->dim_param));
    }
    const int64_t count = terse_dims_count(fixed, (int)shape->n_dim);
    if (count < 0 || count > TERSE_MAX_TENSOR_BYTES / 8) {
        char text[200];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "shape %s is too large",
                          terse_dims_text(fixed, (int)shape->n_dim, text, sizeof text));
    }
    return TERSE_OK;
}

static int too_many_symbols(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "more than %d symbolic dimensions", TERSE_MAX_SYMBOLS);
}

/* A symbol for a dimension without a name: "x_dim_1", or with more underscores when the file uses that name. */
static int fresh_symbol(terse_graph *graph, const char *tensor, size_t axis)
{
    char name[TERSE_MAX_NAME + 64];
    for (int underscores = 1; underscores < 32; underscores++) {
        snprintf(name, sizeof name, "%s%.*sdim_%zu", tensor, underscores, "________________________________", axis);
        const int before = graph->n_symbols;
        const int symbol = terse_graph_symbol(graph, name);
        if (symbol < 0 || symbol == before)
            return symbol;
    }
    return -1;
}

static int state_shape(terse_graph *graph, int value, const Onnx__Shape *shape, terse_error *error)
{
    int64_t dims[TERSE_MAX_RANK];
    for (size_t i = 0; i < shape->n_dim; i++) {
        const Onnx__Dimension *dim = shape->dim[i];
        dims[i] = dim->dim_value;
        if (!is_open(dim))
            continue;
        const int symbol = is_named(dim) ? terse_graph_symbol(graph, dim->dim_param)
                                         : fresh_symbol(graph, graph->values[value].name, i);
        if (symbol < 0)
            return too_many_symbols(error);
        dims[i] = TERSE_DIM_OF_SYMBOL(symbol);
    }
    graph->values[value].rank = (int)shape->n_dim;
    memcpy(graph->values[value].dims, dims, shape->n_dim * sizeof *dims);
    return TERSE_OK;
}

/* Which element types may come in and go out. */
static terse_dtype served_dtype(int32_t type)
{
    const terse_dtype dtype = terse_onnx_dtype(type);
    return dtype == TERSE_FP64 || dtype == TERSE_FP16 || dtype == TERSE_BF16 ? TERSE_DTYPE_NONE : dtype;
}

/* Element type of an input or output; NONE when it is missing or refused (noted). */
static terse_dtype read_type(terse_onnx_builder *builder, const Onnx__Value *value, const char *kind)
{
    const Onnx__Type *type = value->type;
    if (type && !type->tensor_type) {
        terse_onnx_unsupported(builder->report, NULL, "other than a tensor as %s '%.300s'", kind, value->name);
        return TERSE_DTYPE_NONE;
    }
    if (!type || !type->tensor_type->elem_type)
        return TERSE_DTYPE_NONE;
    const terse_dtype dtype = served_dtype(type->tensor_type->elem_type);
    if (dtype == TERSE_DTYPE_NONE)
        terse_onnx_unsupported(builder->report, NULL, "element type %s of %s '%.300s'",
                               terse_onnx_dtype_name(type->tensor_type->elem_type), kind, value->name);
    return dtype;
}

static int read_input(terse_onnx_builder *builder, const Onnx__Value *from, int value, terse_error *error)
{
    terse_graph *graph = builder->graph;
    graph->values[value].dtype = read_type(builder, from, "input");
    if (graph->values[value].dtype == TERSE_DTYPE_NONE &&
        !(from->type && (!from->type->tensor_type || from->type->tensor_type->elem_type)))
        terse_onnx_unsupported(builder->report, NULL, "input '%.300s' without an element type", from->name);
    const Onnx__Shape *shape = shape_of(from);
    if (shape)
        return state_shape(graph, value, shape, error);
    if (from->type && from->type->tensor_type)
        terse_onnx_unsupported(builder->report, NULL, "input '%.300s' without a shape", from->name);
    graph->values[value].rank = 0; /* only read after the report stopped the import */
    return TERSE_OK;
}

/* The names that the file gives to dimensions come first: made-up ones must not meet them. */
static int collect_symbols(terse_onnx_builder *builder, const Onnx__Value *from, terse_error *error)
{
    const Onnx__Shape *shape = shape_of(from);
    if (!shape)
        return TERSE_OK;
    const int status = check_shape(shape, error);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "input '%.300s'", from->name ? from->name : "");
    for (size_t i = 0; i < shape->n_dim; i++)
        if (is_named(shape->dim[i]) && terse_graph_symbol(builder->graph, shape->dim[i]->dim_param) < 0)
            return too_many_symbols(error);
    return TERSE_OK;
}

int terse_onnx_signature_inputs(terse_onnx_builder *builder, terse_error *error)
{
    const Onnx__Graph *file = builder->parsed->model->graph;
    terse_graph *graph = builder->graph;
    const int n_constants = graph->n_values;
    graph->inputs = terse_arena_alloc(graph->arena, (file->n_input + 1) * sizeof *graph->inputs);
    if (!graph->inputs)
        return terse_onnx_no_memory(error);
    for (size_t i = 0; i < file->n_input; i++) {
        const Onnx__Value *from = file->input[i];
        if (!from->name || !*from->name || strlen(from->name) >= TERSE_MAX_NAME)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %zu has no name or one of %d and more bytes", i,
                              TERSE_MAX_NAME);
        const int known = terse_onnx_names_find(&builder->names, from->name);
        if (known >= n_constants)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%.300s' is stated twice", from->name);
        if (known >= 0)
            continue; /* an initializer that older files list here too: a constant */
        const int value = terse_graph_add_value(graph, from->name);
        if (value < 0 || !terse_onnx_names_add(&builder->names, value))
            return terse_onnx_no_memory(error);
        const int status = collect_symbols(builder, from, error);
        if (status != TERSE_OK)
            return status;
        graph->inputs[graph->n_inputs++] = value;
    }
    for (size_t i = 0; i < file->n_input; i++) {
        const int value = terse_onnx_names_find(&builder->names, file->input[i]->name);
        const int status = value < n_constants ? TERSE_OK : read_input(builder, file->input[i], value, error);
        if (status != TERSE_OK)
            return terse_error_prefix(error, "input '%.300s'", file->input[i]->name);
    }
    return TERSE_OK;
}

/* What the file says of a value in between, used where nothing can be inferred: only whole statements in symbols that
 * the inputs have. */
static void take_hint(terse_onnx_builder *builder, const Onnx__Value *from)
{
    terse_graph *graph = builder->graph;
    const int index = from->name ? terse_onnx_names_find(&builder->names, from->name) : -1;
    const Onnx__Shape *shape = shape_of(from);
    if (index < 0 || graph->values[index].rank >= 0 || !shape || check_shape(shape, NULL) != TERSE_OK)
        return;
    int64_t dims[TERSE_MAX_RANK];
    for (size_t i = 0; i < shape->n_dim; i++) {
        const Onnx__Dimension *dim = shape->dim[i];
        dims[i] = dim->dim_value;
        if (!is_open(dim))
            continue;
        int symbol = -1;
        for (int s = 0; s < graph->n_symbols && is_named(dim); s++)
            if (strcmp(graph->symbols[s], dim->dim_param) == 0)
                symbol = s;
        if (symbol < 0)
            return;
        dims[i] = TERSE_DIM_OF_SYMBOL(symbol);
    }
    terse_value *value = &graph->values[index];
    value->dtype = served_dtype(from->type->tensor_type->elem_type);
    value->rank = (int)shape->n_dim;
    memcpy(value->dims, dims, shape->n_dim * sizeof *dims);
}

int terse_onnx_signature_outputs(terse_onnx_builder *builder, terse_error *error)
{
    const Onnx__Graph *file = builder->parsed->model->graph;
    terse_graph *graph = builder->graph;
    if (file->n_output == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the graph has no outputs");
    graph->outputs = terse_arena_alloc(graph->arena, file->n_output * sizeof *graph->outputs);
    char *seen = terse_arena_alloc(graph->arena, (size_t)graph->n_values + 1);
    if (!graph->outputs || !seen)
        return terse_onnx_no_memory(error);
    for (size_t i = 0; i < file->n_output; i++) {
        const Onnx__Value *from = file->output[i];
        const char *name = from->name ? from->name : "";
        const int value = *name ? terse_onnx_names_find(&builder->names, name) : -1;
        if (value < 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%.300s' is made by nothing", name);
        if (seen[value])
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%.300s' is stated twice", name);
        const Onnx__Shape *shape = shape_of(from);
        if (shape && check_shape(shape, error) != TERSE_OK)
            return terse_error_prefix(error, "output '%.300s'", name);
        seen[value] = 1;
        graph->outputs[graph->n_outputs++] = value;
        read_type(builder, from, "output");
        take_hint(builder, from);
    }
    for (size_t i = 0; i < file->n_value_info; i++)
        take_hint(builder, file->value_info[i]);
    return TERSE_OK;
}

/* True when the file's shape can be what was inferred: numbers agree, names are not compared. */
static bool agrees(const terse_value *value, const Onnx__Shape *shape)
{
    if ((size_t)value->rank != shape->n_dim)
        return false;
    for (int i = 0; i < value->rank; i++)
        if (!is_open(shape->dim[i]) && value->dims[i] != shape->dim[i]->dim_value)
            return false;
    return true;
}

int terse_onnx_signature_check(terse_onnx_builder *builder, terse_error *error)
{
    const Onnx__Graph *file = builder->parsed->model->graph;
    terse_graph *graph = builder->graph;
    for (size_t i = 0; i < file->n_output; i++) {
        const Onnx__Value *from = file->output[i];
        terse_value *value = &graph->values[graph->outputs[i]];
        const Onnx__Shape *shape = shape_of(from);
        const int32_t type = from->type && from->type->tensor_type ? from->type->tensor_type->elem_type : 0;
        char text[200];
        if (value->rank >= 0 && shape && !agrees(value, shape))
            terse_onnx_warn(builder->report, "output '%.300s' is stated otherwise than it is: %s%s", from->name,
                            terse_dtype_name(value->dtype), terse_value_text(graph, value, text, sizeof text));
        if (value->dtype == TERSE_DTYPE_NONE)
            value->dtype = served_dtype(type);
        else if (type && terse_onnx_dtype(type) != value->dtype)
            terse_onnx_warn(builder->report, "output '%.300s' is stated as %s, but it is %s", from->name,
                            terse_onnx_dtype_name(type), terse_dtype_name(value->dtype));
        if (value->rank < 0 && shape) {
            const int status = state_shape(graph, graph->outputs[i], shape, error);
            if (status != TERSE_OK)
                return terse_error_prefix(error, "output '%.300s'", from->name);
            value = &graph->values[graph->outputs[i]];
        }
        if (value->rank >= 0 && value->dtype != TERSE_DTYPE_NONE)
            continue;
        if (builder->failed.status != TERSE_OK)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%.200s' has no shape: %.250s", from->name,
                              builder->failed.message);
        terse_onnx_unsupported(builder->report, NULL,
                               "output '%.300s' whose shape or element type is neither stated nor can be inferred",
                               from->name);
    }
    return TERSE_OK;
}
