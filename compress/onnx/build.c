/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include "common/ops/op.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int terse_onnx_no_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory, or more than %d tensors or nodes",
                      TERSE_MAX_VALUES);
}

bool terse_onnx_own_domain(const char *domain)
{
    return !domain || !*domain || strcmp(domain, "ai.onnx") == 0;
}

/* The version of ONNX's own operators; 0 when the file states none. */
static int read_opset(terse_onnx_builder *builder, terse_error *error)
{
    const Onnx__Model *model = builder->parsed->model;
    terse_onnx_report *report = builder->report;
    for (size_t i = 0; i < model->n_opset_import; i++) {
        const Onnx__OperatorSet *set = model->opset_import[i];
        if (!terse_onnx_own_domain(set->domain))
            continue;
        if (report->opset && report->opset != set->version)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "opset %" PRId64 " and opset %" PRId64 " are both stated",
                              report->opset, set->version);
        report->opset = set->version;
        if (set->version < TERSE_ONNX_MIN_OPSET || set->version > TERSE_ONNX_MAX_OPSET) {
            terse_onnx_unsupported(report, NULL, "this version of ONNX's operators");
            return terse_fail(error, TERSE_UNIMPLEMENTED, "opset %" PRId64 " is not supported, %d to %d are",
                              set->version, TERSE_ONNX_MIN_OPSET, TERSE_ONNX_MAX_OPSET);
        }
    }
    if (model->n_opset_import == 0 && model->has_ir_version && model->ir_version < 3)
        report->opset = 1; /* files older than opset_import */
    builder->opset = (int)report->opset;
    return TERSE_OK;
}

static bool good_name(const char *name)
{
    return name && *name && strlen(name) < TERSE_MAX_NAME;
}

/* A new value of that name, which must be new. */
static int declare(terse_onnx_builder *builder, const char *name, int *ret_value, terse_error *error)
{
    if (!good_name(name))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "a tensor has no name or one of %d and more bytes",
                          TERSE_MAX_NAME);
    if (terse_onnx_names_find(&builder->names, name) >= 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "tensor '%.300s' is made twice", name);
    const int value = terse_graph_add_value(builder->graph, name);
    if (value < 0 || !terse_onnx_names_add(&builder->names, value))
        return terse_onnx_no_memory(error);
    *ret_value = value;
    return TERSE_OK;
}

static void make_constant(terse_graph *graph, int index, terse_dtype dtype, int rank, const int64_t *dims,
                          const void *data)
{
    terse_value *value = &graph->values[index];
    value->dtype = dtype;
    value->rank = rank;
    for (int i = 0; i < rank; i++)
        value->dims[i] = dims[i];
    value->data = data;
    value->bytes = (size_t)terse_dims_count(dims, rank) * terse_dtype_size(dtype);
}

/* A tensor whose element type terse does not know stays a value without data: its readers still find it. */
static int read_constant(terse_onnx_builder *builder, Onnx__Tensor *tensor, int value, const char *node,
                         terse_error *error)
{
    terse_dtype dtype;
    int rank;
    int64_t dims[TERSE_MAX_RANK];
    const void *data;
    const int status = terse_onnx_tensor_read(builder, tensor, node, &dtype, &rank, dims, &data, error);
    if (status == TERSE_OK && dtype != TERSE_DTYPE_NONE)
        make_constant(builder->graph, value, dtype, rank, dims, data);
    return status;
}

static int read_initializers(terse_onnx_builder *builder, terse_error *error)
{
    const Onnx__Graph *graph = builder->parsed->model->graph;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        int value;
        int status = declare(builder, graph->initializer[i]->name, &value, error);
        if (status == TERSE_OK)
            status = read_constant(builder, graph->initializer[i], value, NULL, error);
        if (status != TERSE_OK)
            return status;
    }
    for (size_t i = 0; i < graph->n_sparse_initializer; i++)
        terse_onnx_unsupported(builder->report, NULL, "sparse initializer %zu", i);
    return TERSE_OK;
}

/* Node names are for messages: an unnamed node goes by its first output. */
static const char *node_name(const Onnx__Node *node)
{
    if (node->name && *node->name)
        return node->name;
    for (size_t i = 0; i < node->n_output; i++)
        if (node->output[i] && *node->output[i])
            return node->output[i];
    return "";
}

static const char *op_type(const Onnx__Node *node)
{
    return node->op_type ? node->op_type : "";
}

/* Constant: one of its attributes is the value. */
static int read_constant_node(terse_onnx_builder *builder, const Onnx__Node *node, int value, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const Onnx__Attribute *from = node->n_attribute == 1 ? node->attribute[0] : NULL;
    const char *name = from && from->name ? from->name : "";
    if (!from)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %zu attributes, 1 is needed", node->n_attribute);
    if (strcmp(name, "value") == 0 && from->t)
        return read_constant(builder, from->t, value, node_name(node), error);
    const bool list = strcmp(name, "value_ints") == 0 || strcmp(name, "value_floats") == 0;
    const bool ints = strncmp(name, "value_int", 9) == 0;
    if (!list && strcmp(name, "value_int") != 0 && strcmp(name, "value_float") != 0) {
        terse_onnx_unsupported(builder->report, node_name(node), "attribute '%.100s' of op 'Constant'", name);
        return TERSE_OK;
    }
    const int64_t n = !list ? 1 : ints ? (int64_t)from->n_ints : (int64_t)from->n_floats;
    const size_t element = ints ? sizeof(int64_t) : sizeof(float);
    void *data = terse_arena_alloc(graph->arena, n ? (size_t)n * element : 1);
    if (!data)
        return terse_onnx_no_memory(error);
    if (n)
        memcpy(data,
               !list  ? (ints ? (const void *)&from->i : &from->f)
               : ints ? (const void *)from->ints
                      : from->floats,
               (size_t)n * element);
    make_constant(graph, value, ints ? TERSE_INT64 : TERSE_FP32, list, &n, data);
    return TERSE_OK;
}

static bool is_constant_node(const Onnx__Node *node)
{
    return terse_onnx_own_domain(node->domain) && strcmp(op_type(node), "Constant") == 0;
}

static int bad_node(const Onnx__Node *node, terse_error *error)
{
    return terse_error_prefix(error, "node '%.200s' (%.60s)", node_name(node), op_type(node));
}

/* Every name that a node makes, so that nodes may come in any order. */
static int declare_outputs(terse_onnx_builder *builder, const Onnx__Node *node, terse_error *error)
{
    if (node->n_output > TERSE_MAX_NODE_IO || node->n_input > TERSE_MAX_NODE_IO)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %zu inputs and %zu outputs, at most %d are allowed",
                          node->n_input, node->n_output, TERSE_MAX_NODE_IO);
    if (node->n_attribute > 64)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %zu attributes, at most 64 are allowed",
                          node->n_attribute);
    if (!node->op_type || !*node->op_type)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has no operator");
    int value = -1;
    for (size_t i = 0; i < node->n_output; i++) {
        if (!*node->output[i])
            continue;
        const int status = declare(builder, node->output[i], &value, error);
        if (status != TERSE_OK)
            return status;
    }
    if (!is_constant_node(node))
        return TERSE_OK;
    if (node->n_output != 1 || value < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %zu outputs, 1 is needed", node->n_output);
    return read_constant_node(builder, node, value, error);
}

static int mark_used(terse_onnx_builder *builder, terse_error *error)
{
    const Onnx__Graph *graph = builder->parsed->model->graph;
    builder->n_used = builder->graph->n_values;
    builder->used = calloc((size_t)builder->n_used + 1, 1);
    if (!builder->used)
        return terse_onnx_no_memory(error);
    for (size_t n = 0; n < graph->n_node; n++)
        for (size_t i = 0; i < graph->node[n]->n_input; i++) {
            const char *name = graph->node[n]->input[i];
            const int value = *name ? terse_onnx_names_find(&builder->names, name) : -1;
            if (value >= 0)
                builder->used[value] = 1;
            else if (*name) {
                terse_fail(error, TERSE_INVALID_ARGUMENT, "reads '%.200s', which nothing makes", name);
                return bad_node(graph->node[n], error);
            }
        }
    for (int i = 0; i < builder->graph->n_outputs; i++)
        builder->used[builder->graph->outputs[i]] = 1;
    return TERSE_OK;
}

bool terse_onnx_is_used(const terse_onnx_builder *builder, int value)
{
    return value >= 0 && (value >= builder->n_used || builder->used[value]);
}

/* The fill value goes into two attributes; integers beyond 2^53 would not survive. */
static int read_fill(terse_onnx_builder *builder, const Onnx__Node *from, int node, terse_error *error)
{
    const Onnx__Attribute *attribute = terse_onnx_attribute_find(from, "value");
    terse_graph *graph = builder->graph;
    terse_dtype dtype = TERSE_FP32;
    double fill = 0;
    if (attribute && attribute->t) {
        int rank;
        int64_t dims[TERSE_MAX_RANK];
        const void *data;
        const int status =
            terse_onnx_tensor_read(builder, attribute->t, graph->nodes[node].name, &dtype, &rank, dims, &data, error);
        if (status != TERSE_OK || dtype == TERSE_DTYPE_NONE)
            return status;
        if (terse_dims_count(dims, rank) != 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "value has %" PRId64 " elements, 1 is needed",
                              terse_dims_count(dims, rank));
        switch (dtype) {
        case TERSE_FP32:
            fill = (double)*(const float *)data;
            break;
        case TERSE_INT64:
            fill = (double)*(const int64_t *)data;
            break;
        case TERSE_INT32:
            fill = (double)*(const int32_t *)data;
            break;
        case TERSE_INT16:
            fill = (double)*(const int16_t *)data;
            break;
        case TERSE_INT8:
            fill = (double)*(const int8_t *)data;
            break;
        case TERSE_UINT64:
            fill = (double)*(const uint64_t *)data;
            break;
        case TERSE_UINT32:
            fill = (double)*(const uint32_t *)data;
            break;
        case TERSE_UINT16:
            fill = (double)*(const uint16_t *)data;
            break;
        default:
            fill = (double)*(const uint8_t *)data;
            break;
        }
        if (dtype != TERSE_FP32 && fabs(fill) > 9007199254740992.0)
            terse_onnx_unsupported(builder->report, graph->nodes[node].name,
                                   "value %.0f (beyond 2^53) of op 'ConstantOfShape'", fill);
    }
    return terse_node_set_int(graph, &graph->nodes[node], "dtype", dtype) &&
                   terse_node_set_float(graph, &graph->nodes[node], "value", fill)
               ? TERSE_OK
               : terse_onnx_no_memory(error);
}

/* After the rewrite: what the operator's own implementation takes. */
static int check_counts(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = &builder->graph->nodes[index];
    const terse_op_impl *impl = terse_op_find(node->op);
    while (node->n_inputs > 0 && node->inputs[node->n_inputs - 1] == TERSE_NO_VALUE)
        node->n_inputs--;
    if (!impl)
        return TERSE_OK;
    if (node->n_inputs < impl->min_inputs || node->n_inputs > impl->max_inputs)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d inputs, %d to %d are allowed", node->n_inputs,
                          impl->min_inputs, impl->max_inputs);
    for (int i = 0; i < impl->min_inputs; i++)
        if (node->inputs[i] == TERSE_NO_VALUE)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "lacks input %d", i);
    if (node->n_outputs < impl->min_outputs)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d outputs, %d to %d are allowed", node->n_outputs,
                          impl->min_outputs, impl->max_outputs);
    for (int i = impl->max_outputs; i < node->n_outputs; i++)
        if (node->outputs[i] != TERSE_NO_VALUE)
            terse_onnx_unsupported(builder->report, node->name, "output %d of op '%s'", i, terse_op_name(node->op));
    if (node->n_outputs > impl->max_outputs)
        node->n_outputs = impl->max_outputs;
    return TERSE_OK;
}

static int build_node(terse_onnx_builder *builder, const Onnx__Node *from, terse_error *error)
{
    const terse_onnx_operator *operator= terse_onnx_operator_find(from->domain, op_type(from));
    if (!operator) {
        terse_onnx_unsupported(builder->report, node_name(from), "op '%.100s%s%.100s'",
                               terse_onnx_own_domain(from->domain) ? "" : from->domain,
                               terse_onnx_own_domain(from->domain) ? "" : ".", op_type(from));
        return TERSE_OK;
    }
    if (builder->opset == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the file states no opset for ONNX's own operators");
    if (is_constant_node(from))
        return TERSE_OK;
    int inputs[TERSE_MAX_NODE_IO], outputs[TERSE_MAX_NODE_IO];
    for (size_t i = 0; i < from->n_input; i++)
        inputs[i] = *from->input[i] ? terse_onnx_names_find(&builder->names, from->input[i]) : TERSE_NO_VALUE;
    for (size_t i = 0; i < from->n_output; i++) {
        outputs[i] = *from->output[i] ? terse_onnx_names_find(&builder->names, from->output[i]) : TERSE_NO_VALUE;
        if (from->n_output > 1 && !terse_onnx_is_used(builder, outputs[i]))
            outputs[i] = TERSE_NO_VALUE;
    }
    int n_outputs = (int)from->n_output;
    while (operator->one_output && n_outputs> 1 && outputs[n_outputs - 1] == TERSE_NO_VALUE)
        n_outputs--;
    const int index = builder->graph->n_nodes;
    if (n_outputs == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has no outputs");
    char name[TERSE_MAX_NAME];
    strncpy(name, node_name(from), sizeof name - 1);
    name[sizeof name - 1] = 0;
    if (!terse_graph_add_node(builder->graph, operator->op, name, inputs, (int)from->n_input, outputs, n_outputs))
        return terse_onnx_no_memory(error);
    int status = terse_onnx_attributes_read(builder, operator, from, index, error);
    if (status == TERSE_OK && operator->op == TERSE_OP_CONSTANT_OF_SHAPE)
        status = read_fill(builder, from, index, error);
    if (status == TERSE_OK && operator->rewrite)
        status = operator->rewrite(builder, index, error);
    if (status == TERSE_OK)
        status = check_counts(builder, index, error);
    return status;
}

int terse_onnx_build(terse_onnx_builder *builder, terse_error *error)
{
    const Onnx__Model *model = builder->parsed->model;
    const Onnx__Graph *graph = model->graph;
    if (!graph)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the model has no graph");
    builder->names.graph = builder->graph;
    int status = read_opset(builder, error);
    for (size_t i = 0; status == TERSE_OK && i < model->n_functions; i++)
        if (terse_onnx_own_domain(model->functions[i]->domain))
            terse_onnx_unsupported(builder->report, NULL, "function '%.100s' in ONNX's own domain",
                                   model->functions[i]->name ? model->functions[i]->name : "");
    if (status == TERSE_OK)
        status = read_initializers(builder, error);
    if (status == TERSE_OK)
        status = terse_onnx_signature_inputs(builder, error);
    for (size_t i = 0; status == TERSE_OK && i < graph->n_node; i++)
        if ((status = declare_outputs(builder, graph->node[i], error)) != TERSE_OK)
            bad_node(graph->node[i], error);
    if (status == TERSE_OK)
        status = terse_onnx_signature_outputs(builder, error);
    if (status == TERSE_OK)
        status = mark_used(builder, error);
    for (size_t i = 0; status == TERSE_OK && i < graph->n_node; i++)
        if ((status = build_node(builder, graph->node[i], error)) != TERSE_OK)
            bad_node(graph->node[i], error);
    return status;
}

void terse_onnx_builder_done(terse_onnx_builder *builder)
{
    free(builder->names.slots);
    free(builder->used);
    terse_onnx_external_done(&builder->external);
}
