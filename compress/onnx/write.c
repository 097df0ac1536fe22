/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/write.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/onnx/internal.h"
#include "compress/passes/unfuse.h"

enum { MIN_OPSET = 18 };

typedef struct writer {
    terse_graph *graph; /* an unfused copy: its values may be renamed */
    terse_arena *arena;
    terse_onnx_names names;
    Onnx__Graph *out;
    size_t node_capacity;
    int opset;
    bool failed; /* memory is out */
} writer;

static void *take(writer *w, size_t bytes)
{
    void *memory = terse_arena_alloc(w->arena, bytes ? bytes : 1);
    w->failed = w->failed || !memory;
    return memory;
}

/* protobuf-c's structs hold plain char pointers and do not write through them. */
static char *text_of(const char *text)
{
    return (char *)(uintptr_t)text;
}

static void need(writer *w, int opset)
{
    w->opset = w->opset > opset ? w->opset : opset;
}

static int32_t number_of(terse_dtype dtype)
{
    for (int32_t type = 1; type < 32; type++)
        if (terse_onnx_dtype(type) == dtype)
            return type;
    return 0;
}

/* --- names ------------------------------------------------------------------------------------------------------- */

static bool name_value(writer *w, int value, bool keep)
{
    terse_value *v = &w->graph->values[value];
    if (keep || (*v->name && terse_onnx_names_find(&w->names, v->name) < 0))
        return terse_onnx_names_add(&w->names, value);
    char name[TERSE_MAX_NAME + 32];
    const char *stem = *v->name ? v->name : "value";
    for (int k = value;; k += w->graph->n_values) {
        snprintf(name, sizeof name, "%.900s_%d", stem, k);
        if (terse_onnx_names_find(&w->names, name) < 0)
            break;
    }
    const char *copy = terse_arena_text(w->arena, name, strlen(name));
    if (!copy)
        return false;
    v->name = copy;
    return terse_onnx_names_add(&w->names, value);
}

/* Inputs and outputs first: their names stay. */
static bool name_values(writer *w)
{
    terse_graph *g = w->graph;
    char *named = take(w, (size_t)g->n_values + 1);
    bool good = named != NULL;
    for (int i = 0; good && i < g->n_inputs + g->n_outputs; i++) {
        const int v = i < g->n_inputs ? g->inputs[i] : g->outputs[i - g->n_inputs];
        if (named[v])
            continue;
        named[v] = 1;
        good = name_value(w, v, true);
    }
    for (int v = 0; good && v < g->n_values; v++)
        if (!named[v])
            good = name_value(w, v, false);
    return good;
}

static int by_name(const void *a, const void *b)
{
    const terse_node *const *x = a, *const *y = b;
    const int order = strcmp((*x)->name, (*y)->name);
    return order ? order : *x < *y ? -1 : *x > *y;
}

/* Names of nodes must be unique where they are stated: only the first of each keeps it. */
static bool name_nodes(writer *w)
{
    terse_graph *g = w->graph;
    terse_node **sorted = take(w, (size_t)(g->n_nodes + 1) * sizeof *sorted);
    if (!sorted)
        return false;
    for (int i = 0; i < g->n_nodes; i++)
        sorted[i] = &g->nodes[i];
    qsort(sorted, (size_t)g->n_nodes, sizeof *sorted, by_name);
    const char *last = "";
    for (int i = 0; i < g->n_nodes; i++) {
        const char *name = sorted[i]->name;
        if (strcmp(name, last) == 0)
            sorted[i]->name = "";
        last = name;
    }
    return true;
}

/* --- tensors, inputs, outputs ------------------------------------------------------------------------------------ */

static Onnx__Tensor *make_tensor(writer *w, const char *name, terse_dtype dtype, int rank, const int64_t *dims,
                                 const void *data)
{
    Onnx__Tensor *t = take(w, sizeof *t);
    int64_t *copy = take(w, (size_t)(rank + 1) * sizeof *copy);
    if (w->failed)
        return NULL;
    onnx__tensor__init(t);
    memcpy(copy, dims, (size_t)rank * sizeof *copy);
    t->n_dims = (size_t)rank;
    t->dims = copy;
    t->has_data_type = 1;
    t->data_type = number_of(dtype);
    t->name = text_of(name);
    t->has_raw_data = 1;
    t->raw_data.data = (uint8_t *)(uintptr_t)data;
    t->raw_data.len = (size_t)terse_dims_count(dims, rank) * terse_dtype_size(dtype);
    return t;
}

static Onnx__Value *make_value(writer *w, const terse_value *from)
{
    Onnx__Value *value = take(w, sizeof *value);
    Onnx__Type *type = take(w, sizeof *type);
    Onnx__TensorType *tensor = take(w, sizeof *tensor);
    Onnx__Shape *shape = take(w, sizeof *shape);
    Onnx__Dimension *dims = take(w, (size_t)(from->rank + 1) * sizeof *dims);
    Onnx__Dimension **list = take(w, (size_t)(from->rank + 1) * sizeof *list);
    if (w->failed)
        return NULL;
    onnx__value__init(value);
    onnx__type__init(type);
    onnx__tensor_type__init(tensor);
    onnx__shape__init(shape);
    for (int i = 0; i < from->rank; i++) {
        list[i] = &dims[i];
        onnx__dimension__init(list[i]);
        if (from->dims[i] < 0) {
            dims[i].dim_param = text_of(w->graph->symbols[TERSE_SYMBOL_OF_DIM(from->dims[i])]);
            continue;
        }
        dims[i].has_dim_value = 1;
        dims[i].dim_value = from->dims[i];
    }
    shape->n_dim = (size_t)(from->rank < 0 ? 0 : from->rank);
    shape->dim = list;
    tensor->has_elem_type = 1;
    tensor->elem_type = number_of(from->dtype);
    tensor->shape = from->rank >= 0 ? shape : NULL;
    type->tensor_type = tensor;
    value->name = text_of(from->name);
    value->type = type;
    return value;
}

static void write_signature(writer *w)
{
    const terse_graph *g = w->graph;
    w->out->input = take(w, (size_t)(g->n_inputs + 1) * sizeof(void *));
    w->out->output = take(w, (size_t)(g->n_outputs + 1) * sizeof(void *));
    for (int i = 0; i < g->n_inputs && !w->failed; i++)
        w->out->input[w->out->n_input++] = make_value(w, &g->values[g->inputs[i]]);
    for (int i = 0; i < g->n_outputs && !w->failed; i++)
        w->out->output[w->out->n_output++] = make_value(w, &g->values[g->outputs[i]]);
}

/* Constants that a node or an output reads. */
static int write_constants(writer *w, terse_error *error)
{
    const terse_graph *g = w->graph;
    char *read = take(w, (size_t)g->n_values + 1);
    w->out->initializer = take(w, (size_t)(g->n_values + 1) * sizeof(void *));
    if (w->failed)
        return terse_onnx_no_memory(error);
    for (int i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_inputs; k++)
            if (g->nodes[i].inputs[k] >= 0)
                read[g->nodes[i].inputs[k]] = 1;
    for (int i = 0; i < g->n_outputs; i++)
        read[g->outputs[i]] = 1;
    for (int v = 0; v < g->n_values && !w->failed; v++) {
        const terse_value *value = &g->values[v];
        if (!read[v] || !value->data)
            continue;
        if (value->layout != TERSE_LAYOUT_PLAIN)
            return terse_fail(error, TERSE_UNIMPLEMENTED, "ONNX cannot say constant '%s': its layout is %s",
                              value->name, terse_layout_name(value->layout));
        w->out->initializer[w->out->n_initializer++] =
            make_tensor(w, value->name, value->dtype, value->rank, value->dims, value->data);
    }
    return w->failed ? terse_onnx_no_memory(error) : TERSE_OK;
}

/* --- nodes ------------------------------------------------------------------------------------------------------- */

static Onnx__Node *add_node(writer *w, const char *op, const char *name, int n_inputs, int n_outputs, int n_attributes)
{
    if (w->out->n_node == w->node_capacity) {
        const size_t capacity = w->node_capacity ? 2 * w->node_capacity : 64;
        Onnx__Node **larger = take(w, capacity * sizeof *larger);
        if (w->failed)
            return NULL;
        if (w->out->n_node)
            memcpy(larger, w->out->node, w->out->n_node * sizeof *larger);
        w->out->node = larger;
        w->node_capacity = capacity;
    }
    Onnx__Node *node = take(w, sizeof *node);
    char **inputs = take(w, (size_t)(n_inputs + 1) * sizeof *inputs);
    char **outputs = take(w, (size_t)(n_outputs + 1) * sizeof *outputs);
    Onnx__Attribute **attributes = take(w, (size_t)(n_attributes + 1) * sizeof *attributes);
    if (w->failed)
        return NULL;
    onnx__node__init(node);
    node->op_type = text_of(op);
    node->name = text_of(name);
    node->input = inputs;
    node->n_input = (size_t)n_inputs;
    node->output = outputs;
    node->n_output = (size_t)n_outputs;
    node->attribute = attributes;
    for (int i = 0; i < n_inputs; i++)
        inputs[i] = text_of("");
    for (int i = 0; i < n_outputs; i++)
        outputs[i] = text_of("");
    w->out->node[w->out->n_node++] = node;
    return node;
}

static Onnx__Attribute *add_attribute(writer *w, Onnx__Node *node, const char *name, int type)
{
    Onnx__Attribute *a = take(w, sizeof *a);
    if (w->failed)
        return NULL;
    onnx__attribute__init(a);
    a->name = text_of(name);
    a->has_type = 1;
    a->type = type;
    node->attribute[node->n_attribute++] = a;
    return a;
}

enum { FLOAT = 1, INT = 2, STRING = 3, TENSOR = 4, FLOATS = 6, INTS = 7, STRINGS = 8 };

static void set_text(ProtobufCBinaryData *to, const char *text)
{
    to->data = (uint8_t *)(uintptr_t)text;
    to->len = strlen(text);
}

static void add_int(writer *w, Onnx__Node *node, const char *name, int64_t value)
{
    Onnx__Attribute *a = add_attribute(w, node, name, INT);
    if (!a)
        return;
    a->has_i = 1;
    a->i = value;
}

static void copy_attribute(writer *w, Onnx__Node *node, const terse_attr *from)
{
    static const int types[] = {[TERSE_ATTR_INT] = INT,   [TERSE_ATTR_FLOAT] = FLOAT,   [TERSE_ATTR_TEXT] = STRING,
                                [TERSE_ATTR_INTS] = INTS, [TERSE_ATTR_FLOATS] = FLOATS, [TERSE_ATTR_TEXTS] = STRINGS};
    Onnx__Attribute *a = add_attribute(w, node, from->name, types[from->kind]);
    if (!a)
        return;
    switch (from->kind) {
    case TERSE_ATTR_INT:
        a->has_i = 1;
        a->i = from->i;
        break;
    case TERSE_ATTR_FLOAT:
        a->has_f = 1;
        a->f = (float)from->f;
        break;
    case TERSE_ATTR_TEXT:
        a->has_s = 1;
        set_text(&a->s, from->text);
        break;
    case TERSE_ATTR_INTS:
        a->n_ints = (size_t)from->n;
        a->ints = (int64_t *)(uintptr_t)from->ints;
        break;
    case TERSE_ATTR_FLOATS:
        a->n_floats = (size_t)from->n;
        a->floats = (float *)(uintptr_t)from->floats;
        break;
    case TERSE_ATTR_TEXTS:
        a->n_strings = (size_t)from->n;
        a->strings = take(w, (size_t)(from->n + 1) * sizeof *a->strings);
        for (int i = 0; i < from->n && a->strings; i++)
            set_text(&a->strings[i], from->texts[i]);
        break;
    }
}

/* Attributes that are terse's own or hold its numbers: written otherwise, or not at all. */
static bool is_rewritten(const terse_node *node, const char *name)
{
    if (node->op == TERSE_OP_CONSTANT_OF_SHAPE)
        return true;
    if (node->op == TERSE_OP_SOFTMAX || node->op == TERSE_OP_LOG_SOFTMAX)
        return strcmp(name, "coerce_2d") == 0;
    if (node->op == TERSE_OP_SPLIT)
        return strcmp(name, "num_outputs") == 0;
    if (strcmp(name, "algorithm") == 0) /* a choice for the kernels: another one gives the same network */
        return true;
    return (node->op == TERSE_OP_CAST && strcmp(name, "to") == 0) || strcmp(name, "output_dtype") == 0 ||
           strcmp(name, "precision") == 0;
}

/* ConstantOfShape's value, in its dtype. */
static void add_fill(writer *w, Onnx__Node *node, const terse_node *from)
{
    const terse_dtype dtype = (terse_dtype)terse_node_int(from, "dtype", TERSE_FP32);
    const double value = terse_node_float(from, "value", 0);
    uint8_t *bytes = take(w, 8);
    Onnx__Attribute *a = add_attribute(w, node, "value", TENSOR);
    if (w->failed || !a)
        return;
    const float single = (float)value;
    const int64_t whole = dtype == TERSE_FP32 || dtype == TERSE_FP64 ? 0 : (int64_t)value;
    if (dtype == TERSE_FP32)
        memcpy(bytes, &single, sizeof single);
    else if (dtype == TERSE_FP64)
        memcpy(bytes, &value, sizeof value);
    else
        memcpy(bytes, &whole, sizeof whole); /* little endian: the low bytes are the number in any width */
    a->t = make_tensor(w, "value", dtype, 1, (const int64_t[]){1}, bytes);
}

static void add_rewritten(writer *w, Onnx__Node *node, const terse_node *from)
{
    if (from->op == TERSE_OP_CONSTANT_OF_SHAPE)
        add_fill(w, node, from);
    if (from->op == TERSE_OP_CAST)
        add_int(w, node, "to", number_of((terse_dtype)terse_node_int(from, "to", TERSE_FP32)));
    if (from->op == TERSE_OP_SPLIT && (from->n_inputs < 2 || from->inputs[1] < 0))
        add_int(w, node, "num_outputs", from->n_outputs);
    if (from->op == TERSE_OP_QUANTIZE_LINEAR && terse_node_attr(from, "output_dtype")) {
        add_int(w, node, "output_dtype", number_of((terse_dtype)terse_node_int(from, "output_dtype", TERSE_UINT8)));
        need(w, 21);
    }
    if (from->op == TERSE_OP_QUANTIZE_LINEAR && terse_node_attr(from, "precision")) {
        add_int(w, node, "precision", number_of((terse_dtype)terse_node_int(from, "precision", TERSE_FP32)));
        need(w, 23);
    }
}

/* The opset that brought an operator, or an attribute of it, in the form used here. */
static void find_opset(writer *w, const terse_node *node)
{
    const char *mode = terse_node_text(node, "mode", "");
    const bool quantized = node->op == TERSE_OP_QUANTIZE_LINEAR || node->op == TERSE_OP_DEQUANTIZE_LINEAR;
    if ((node->op == TERSE_OP_AVERAGE_POOL && terse_node_attr(node, "dilations")) ||
        (node->op == TERSE_OP_PAD && strcmp(mode, "wrap") == 0) || node->op == TERSE_OP_RESIZE)
        need(w, 19);
    if (node->op == TERSE_OP_GELU)
        need(w, 20);
    if (node->op == TERSE_OP_GROUP_NORMALIZATION)
        need(w, 21);
    for (int i = 0; quantized && i < node->n_inputs; i++) {
        const terse_dtype dtype = node->inputs[i] >= 0 ? w->graph->values[node->inputs[i]].dtype : TERSE_FP32;
        if (dtype == TERSE_INT16 || dtype == TERSE_UINT16 || terse_node_attr(node, "block_size"))
            need(w, 21);
    }
}

static int check_node(const terse_node *node, terse_error *error)
{
    const char *why = NULL;
    if (node->op >= TERSE_OP_WGEMM)
        why = "ONNX has no such operator";
    else if (terse_node_int(node, "channels_last", 0))
        why = "ONNX has no channels-last form of it";
    for (int i = 0; i < node->n_attrs && !why; i++) {
        const char *name = node->attrs[i].name;
        const size_t length = strlen(name);
        bool known = is_rewritten(node, name);
        const terse_onnx_operator *row = terse_onnx_operator_find("", terse_op_name(node->op));
        for (const char *at = row ? row->attributes : ""; !known && *at; at += strspn(at, " ")) {
            known = strncmp(at, name, length) == 0 && at[length] == '=';
            at += strcspn(at, " ");
        }
        if (!known)
            return terse_fail(error, TERSE_UNIMPLEMENTED, "ONNX cannot say node '%s' (%s): it has no attribute '%s'",
                              node->name, terse_op_name(node->op), name);
    }
    if (why)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "ONNX cannot say node '%s' (%s): %s", node->name,
                          terse_op_name(node->op), why);
    return TERSE_OK;
}

/* Softmax as opsets before 13 had it: rows are everything from `axis` on. Flatten, Softmax, Reshape to what it was. */
static void write_old_softmax(writer *w, const terse_node *node)
{
    char *names[3];
    const char *x = w->graph->values[node->inputs[0]].name;
    for (int i = 0; i < 3; i++) {
        static const char *const suffixes[] = {"rows", "shares", "shape"};
        char name[TERSE_MAX_NAME + 32];
        for (int k = 0;; k++) {
            snprintf(name, sizeof name, "%.900s.%s%d", w->graph->values[node->outputs[0]].name, suffixes[i], k);
            if (terse_onnx_names_find(&w->names, name) < 0)
                break;
        }
        names[i] = terse_arena_text(w->arena, name, strlen(name));
        w->failed = w->failed || !names[i];
    }
    Onnx__Node *rows = add_node(w, "Flatten", "", 1, 1, 1);
    Onnx__Node *shares = add_node(w, terse_op_name(node->op), node->name, 1, 1, 1);
    Onnx__Node *shape = add_node(w, "Shape", "", 1, 1, 0), *back = add_node(w, "Reshape", "", 2, 1, 0);
    if (w->failed)
        return;
    add_int(w, rows, "axis", terse_node_int(node, "axis", 1));
    add_int(w, shares, "axis", 1);
    rows->input[0] = shape->input[0] = text_of(x);
    rows->output[0] = shares->input[0] = names[0];
    shares->output[0] = back->input[0] = names[1];
    shape->output[0] = back->input[1] = names[2];
    back->output[0] = text_of(w->graph->values[node->outputs[0]].name);
}

static int write_node(writer *w, const terse_node *node, terse_error *error)
{
    const int status = check_node(node, error);
    if (status != TERSE_OK)
        return status;
    find_opset(w, node);
    if ((node->op == TERSE_OP_SOFTMAX || node->op == TERSE_OP_LOG_SOFTMAX) && terse_node_int(node, "coerce_2d", 0)) {
        write_old_softmax(w, node);
        return w->failed ? terse_onnx_no_memory(error) : TERSE_OK;
    }
    int n_inputs = node->n_inputs;
    while (n_inputs > 0 && node->inputs[n_inputs - 1] < 0)
        n_inputs--;
    Onnx__Node *to = add_node(w, terse_op_name(node->op), node->name, n_inputs, node->n_outputs, node->n_attrs + 2);
    for (int i = 0; i < n_inputs && to; i++)
        if (node->inputs[i] >= 0)
            to->input[i] = text_of(w->graph->values[node->inputs[i]].name);
    for (int i = 0; i < node->n_outputs && to; i++)
        if (node->outputs[i] >= 0)
            to->output[i] = text_of(w->graph->values[node->outputs[i]].name);
    for (int i = 0; i < node->n_attrs && to; i++)
        if (!is_rewritten(node, node->attrs[i].name))
            copy_attribute(w, to, &node->attrs[i]);
    if (to)
        add_rewritten(w, to, node);
    return w->failed ? terse_onnx_no_memory(error) : TERSE_OK;
}

/* --- the model --------------------------------------------------------------------------------------------------- */

static int pack(const writer *w, void **ret_bytes, size_t *ret_size, terse_error *error)
{
    static const struct {
        int opset, ir;
    } versions[] = {{18, 8}, {20, 9}, {22, 10}, {23, 11}};
    Onnx__Model model = ONNX__MODEL__INIT;
    Onnx__OperatorSet set = ONNX__OPERATOR_SET__INIT, *sets[] = {&set};
    set.domain = text_of("");
    set.has_version = 1;
    set.version = w->opset;
    model.has_ir_version = 1;
    for (size_t i = sizeof versions / sizeof versions[0]; i-- > 0;)
        if (w->opset <= versions[i].opset)
            model.ir_version = versions[i].ir;
    model.producer_name = text_of("terse");
    model.producer_version = text_of(TERSE_VERSION);
    model.graph = w->out;
    model.opset_import = sets;
    model.n_opset_import = 1;
    const size_t size = onnx__model__get_packed_size(&model);
    if (size > INT32_MAX)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "an ONNX file has at most %d bytes, this one would have %zu",
                          INT32_MAX, size);
    uint8_t *bytes = malloc(size + 1);
    if (!bytes)
        return terse_onnx_no_memory(error);
    *ret_size = onnx__model__pack(&model, bytes);
    *ret_bytes = bytes;
    return TERSE_OK;
}

static int write_graph(writer *w, void **ret_bytes, size_t *ret_size, terse_error *error)
{
    w->out = take(w, sizeof *w->out);
    if (!w->out || !name_values(w) || !name_nodes(w))
        return terse_onnx_no_memory(error);
    onnx__graph__init(w->out);
    w->out->name = text_of(w->graph->name && *w->graph->name ? w->graph->name : "graph");
    write_signature(w);
    int status = write_constants(w, error);
    for (int i = 0; i < w->graph->n_nodes && status == TERSE_OK; i++)
        status = write_node(w, &w->graph->nodes[i], error);
    return status == TERSE_OK ? pack(w, ret_bytes, ret_size, error) : status;
}

int terse_onnx_write_bytes(const terse_graph *graph, void **ret_bytes, size_t *ret_size, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *copy = NULL;
    int status = terse_unfuse(graph, &copy, error);
    if (status != TERSE_OK)
        return status;
    writer w = {.graph = copy, .arena = copy->arena, .names = {.graph = copy}, .opset = MIN_OPSET};
    status = write_graph(&w, ret_bytes, ret_size, error);
    free(w.names.slots);
    return status;
}

int terse_onnx_write(const char *path, const terse_graph *graph, terse_error *error)
{
    TERSE_AUTO(terse_freep) void *bytes = NULL;
    size_t size;
    terse_atomic_file file;
    int status = terse_onnx_write_bytes(graph, &bytes, &size, error);
    if (status == TERSE_OK)
        status = terse_atomic_open(path, &file, error);
    if (status != TERSE_OK)
        return status;
    if (terse_write_full(file.fd, bytes, size))
        status = terse_atomic_commit(&file, true, error);
    else
        status = terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", path);
    terse_atomic_discard(&file);
    return status;
}
