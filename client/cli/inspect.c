/* SPDX-License-Identifier: Apache-2.0 */
/* terse inspect: signature, nodes, tensors, sizes, compression and report of a model. */
#include "client/cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/msgpack_json.h"
#include "client/cli/open.h"
#include "common/bytes.h"
#include "common/graph/engine.h"
#include "common/json.h"
#include "common/model.h"

/* What a row of the node table says beyond the node: bytes of its constants, and, at size 1 of every free dimension,
 * what the engine would do. macs is -1 when no plan can be made at that size. */
typedef struct facts {
    uint64_t constant_bytes, stored_bytes; /* in memory, in the file */
    int n_constants;
    int64_t macs;
    size_t arena_bytes;
} facts;

/* Bytes of a constant in the file. */
static uint64_t stored_bytes(const terse_model *model, int value)
{
    const terse_model_note *note = model->notes ? &model->notes[value] : NULL;
    return note && note->encoding ? note->stored : model->graph->values[value].bytes;
}

/* How it is stored there; "" as it is in memory. */
static const char *encoding_of(const terse_model *model, int value)
{
    const terse_model_note *note = model->notes ? &model->notes[value] : NULL;
    return note && note->encoding ? note->encoding : "";
}

static uint64_t node_constant_bytes(const terse_graph *graph, const terse_node *node)
{
    uint64_t bytes = 0;
    for (int i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] >= 0 && graph->values[node->inputs[i]].data)
            bytes += graph->values[node->inputs[i]].bytes;
    return bytes;
}

static void plan_facts(const terse_graph *graph, facts *ret_facts)
{
    terse_engine *engine = NULL;
    terse_plan *plan;
    const terse_kernels *kernels;
    TERSE_AUTO(terse_freep) terse_tensor *inputs = calloc((size_t)graph->n_inputs + 1, sizeof *inputs);
    TERSE_AUTO(terse_freep) void *zeros = NULL;
    ret_facts->macs = -1;
    if (!inputs || terse_kernels_get(&kernels, NULL) || terse_engine_new(graph, kernels, 1, 0, &engine, NULL))
        return;
    int64_t largest = 0;
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        int64_t dims[TERSE_MAX_RANK];
        for (int d = 0; d < value->rank; d++)
            dims[d] = value->dims[d] < 0 ? 1 : value->dims[d];
        const int64_t count = terse_dims_count(dims, value->rank);
        largest = count > largest ? count : largest;
        inputs[i] = terse_tensor_view(NULL, value->dtype, value->rank, dims);
    }
    if (terse_engine_value_inputs(engine) && largest < 1 << 24) {
        zeros = calloc((size_t)largest + 1, 8);
        for (int i = 0; i < graph->n_inputs; i++)
            inputs[i].data = zeros;
    }
    if ((!terse_engine_value_inputs(engine) || zeros) && !terse_engine_plan(engine, inputs, &plan, NULL)) {
        ret_facts->macs = terse_plan_macs(plan);
        ret_facts->arena_bytes = terse_plan_arena_bytes(plan);
    }
    terse_engine_free(engine);
}

static facts collect(const terse_model *model)
{
    const terse_graph *graph = model->graph;
    facts f = {.macs = -1};
    for (int v = 0; v < graph->n_values; v++)
        if (graph->values[v].data) {
            f.constant_bytes += graph->values[v].bytes;
            f.stored_bytes += stored_bytes(model, v);
            f.n_constants++;
        }
    plan_facts(graph, &f);
    return f;
}

static void json_value(terse_json *json, const terse_model *model, int number)
{
    const terse_graph *graph = model->graph;
    const terse_value *value = &graph->values[number];
    terse_json_object(json, NULL);
    terse_json_text(json, "name", value->name);
    terse_json_text(json, "dtype", terse_dtype_name(value->dtype));
    if (value->rank < 0) {
        terse_json_null(json, "shape");
    } else {
        terse_json_array(json, "shape");
        for (int i = 0; i < value->rank; i++) {
            if (value->dims[i] < 0)
                terse_json_text(json, NULL, graph->symbols[TERSE_SYMBOL_OF_DIM(value->dims[i])]);
            else
                terse_json_int(json, NULL, value->dims[i]);
        }
        terse_json_end(json);
    }
    if (value->data) {
        terse_json_text(json, "layout", terse_layout_name(value->layout));
        terse_json_uint(json, "bytes", value->bytes);
        terse_json_text(json, "encoding", *encoding_of(model, number) ? encoding_of(model, number) : "none");
        terse_json_uint(json, "stored_bytes", stored_bytes(model, number));
    }
    terse_json_end(json);
}

static void json_attr(terse_json *json, const terse_attr *attr)
{
    switch (attr->kind) {
    case TERSE_ATTR_INT:
        terse_json_int(json, attr->name, attr->i);
        return;
    case TERSE_ATTR_FLOAT:
        terse_json_double(json, attr->name, attr->f);
        return;
    case TERSE_ATTR_TEXT:
        terse_json_text(json, attr->name, attr->text);
        return;
    case TERSE_ATTR_INTS:
    case TERSE_ATTR_FLOATS:
    case TERSE_ATTR_TEXTS:
        break;
    }
    terse_json_array(json, attr->name);
    for (int i = 0; i < attr->n; i++) {
        if (attr->kind == TERSE_ATTR_INTS)
            terse_json_int(json, NULL, attr->ints[i]);
        else if (attr->kind == TERSE_ATTR_FLOATS)
            terse_json_double(json, NULL, (double)attr->floats[i]);
        else
            terse_json_text(json, NULL, attr->texts[i]);
    }
    terse_json_end(json);
}

static void json_names(terse_json *json, const char *key, const terse_graph *graph, const int *numbers, int n)
{
    terse_json_array(json, key);
    for (int i = 0; i < n; i++) {
        if (numbers[i] < 0)
            terse_json_null(json, NULL);
        else
            terse_json_text(json, NULL, graph->values[numbers[i]].name);
    }
    terse_json_end(json);
}

static void json_node(terse_json *json, const terse_graph *graph, const terse_node *node)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "op", terse_op_name(node->op));
    terse_json_text(json, "name", node->name);
    json_names(json, "inputs", graph, node->inputs, node->n_inputs);
    json_names(json, "outputs", graph, node->outputs, node->n_outputs);
    terse_json_object(json, "attributes");
    for (int i = 0; i < node->n_attrs; i++)
        json_attr(json, &node->attrs[i]);
    terse_json_end(json);
    terse_json_uint(json, "constant_bytes", node_constant_bytes(graph, node));
    terse_json_text(json, "compression", node->compression);
    terse_json_end(json);
}

/* Tensors of one element type that are stored in one way. */
typedef struct technique {
    terse_dtype dtype;
    const char *encoding;
    int n;
    uint64_t bytes, stored;
} technique;

enum { MAX_TECHNIQUES = 64 }; /* more than encodings and types in use can make */

/* In the order in which the model has them; returns how many. */
static int list_techniques(const terse_model *model, technique list[MAX_TECHNIQUES])
{
    int n = 0;
    for (int v = 0; v < model->graph->n_values; v++) {
        const terse_value *value = &model->graph->values[v];
        if (!value->data)
            continue;
        int at = 0;
        while (at < n && (list[at].dtype != value->dtype || strcmp(list[at].encoding, encoding_of(model, v)) != 0))
            at++;
        if (at == n && n == MAX_TECHNIQUES)
            continue;
        if (at == n)
            list[n++] = (technique){.dtype = value->dtype, .encoding = encoding_of(model, v)};
        list[at].n++;
        list[at].bytes += value->bytes;
        list[at].stored += stored_bytes(model, v);
    }
    return n;
}

static void json_techniques(terse_json *json, const terse_model *model)
{
    technique list[MAX_TECHNIQUES];
    const int n = list_techniques(model, list);
    terse_json_array(json, "techniques");
    for (int i = 0; i < n; i++) {
        terse_json_object(json, NULL);
        terse_json_text(json, "dtype", terse_dtype_name(list[i].dtype));
        terse_json_text(json, "encoding", *list[i].encoding ? list[i].encoding : "none");
        terse_json_int(json, "tensors", list[i].n);
        terse_json_uint(json, "bytes", list[i].bytes);
        terse_json_uint(json, "stored_bytes", list[i].stored);
        terse_json_end(json);
    }
    terse_json_end(json);
}

static void print_techniques(const terse_model *model)
{
    technique list[MAX_TECHNIQUES];
    const int n = list_techniques(model, list);
    printf("\n%-6s %-24s %8s %12s %12s\n", "dtype", "stored as", "tensors", "on disk", "in memory");
    for (int i = 0; i < n; i++)
        printf("%-6s %-24s %8d %12" PRIu64 " %12" PRIu64 "\n", terse_dtype_name(list[i].dtype),
               *list[i].encoding ? list[i].encoding : "none", list[i].n, list[i].stored, list[i].bytes);
}

static void print_json(const terse_model *model, const char *path, uint64_t file_bytes, bool verified)
{
    const terse_graph *graph = model->graph;
    const facts f = collect(model);
    terse_json json = terse_json_to(stdout);
    terse_json_object(&json, NULL);
    terse_json_text(&json, "file", path);
    terse_json_uint(&json, "bytes", file_bytes);
    terse_json_text(&json, "name", graph->name);
    terse_json_text(&json, "tool", model->tool);
    terse_json_text(&json, "source_sha256", model->source_sha256);
    terse_json_text(&json, "command", model->command);
    terse_json_bool(&json, "verified", verified);
    terse_json_bool(&json, "batchable", graph->batchable);
    terse_json_uint(&json, "constant_bytes", f.constant_bytes);
    terse_json_uint(&json, "stored_bytes", f.stored_bytes);
    json_techniques(&json, model);
    if (f.macs >= 0) {
        terse_json_int(&json, "macs", f.macs);
        terse_json_uint(&json, "arena_bytes", f.arena_bytes);
    }
    terse_json_array(&json, "inputs");
    for (int i = 0; i < graph->n_inputs; i++)
        json_value(&json, model, graph->inputs[i]);
    terse_json_end(&json);
    terse_json_array(&json, "outputs");
    for (int i = 0; i < graph->n_outputs; i++)
        json_value(&json, model, graph->outputs[i]);
    terse_json_end(&json);
    terse_json_array(&json, "nodes");
    for (int i = 0; i < graph->n_nodes; i++)
        json_node(&json, graph, &graph->nodes[i]);
    terse_json_end(&json);
    terse_json_array(&json, "tensors");
    for (int i = 0; i < graph->n_values; i++)
        json_value(&json, model, i);
    terse_json_end(&json);
    terse_msgpack_json_bytes(&json, "report", model->report, model->report_bytes);
    terse_json_end(&json);
    putchar('\n');
}

static void print_ports(const char *title, const terse_graph *graph, const int *numbers, int n)
{
    for (int i = 0; i < n; i++) {
        const terse_value *value = &graph->values[numbers[i]];
        char dims[256];
        printf("%-10s %s  %s%s\n", i ? "" : title, value->name, terse_dtype_name(value->dtype),
               terse_value_text(graph, value, dims, sizeof dims));
    }
}

static void print_text(const terse_model *model, const char *path, uint64_t file_bytes, bool verified, bool tensors)
{
    const terse_graph *graph = model->graph;
    const facts f = collect(model);
    char dims[256];
    printf("%-10s %s, %" PRIu64 " bytes%s\n", "file", path, file_bytes, verified ? ", SHA-256 verified" : "");
    printf("%-10s %s%s\n", "model", graph->name, graph->batchable ? ", batchable" : ", not batchable");
    if (*model->tool)
        printf("%-10s %s: %s\n", "made by", model->tool, model->command);
    if (*model->source_sha256)
        printf("%-10s SHA-256 %s\n", "source", model->source_sha256);
    print_ports("input", graph, graph->inputs, graph->n_inputs);
    print_ports("output", graph, graph->outputs, graph->n_outputs);
    printf("%-10s %d with %" PRIu64 " bytes", "constants", f.n_constants, f.constant_bytes);
    if (model->notes)
        printf(" in memory, %" PRIu64 " on disk", f.stored_bytes);
    putchar('\n');
    if (f.macs >= 0)
        printf("%-10s %" PRId64 " multiply-accumulates, %zu bytes of activations (free dimensions at 1)\n", "work",
               f.macs, f.arena_bytes);
    printf("\n%5s  %-20s %-28s %12s  %s\n", "node", "operator", "output", "constants", "name, compression");
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        const int v = node->outputs[0];
        const char *act = terse_node_text(node, "activation", "");
        char op[64];
        snprintf(op, sizeof op, "%s%s%s", terse_op_name(node->op), *act ? "+" : "", act);
        printf("%5d  %-20s %-28s %12" PRIu64 "  %s%s%s\n", n, op,
               v >= 0 ? terse_value_text(graph, &graph->values[v], dims, sizeof dims) : "",
               node_constant_bytes(graph, node), node->name, *node->compression ? ", " : "", node->compression);
    }
    if (model->notes)
        print_techniques(model);
    if (!tensors)
        return;
    printf("\n%5s  %-6s %-28s %-13s %12s %12s  %-24s %s\n", "const", "dtype", "shape", "layout", "in memory", "on disk",
           "stored as", "name");
    for (int v = 0; v < graph->n_values; v++) {
        const terse_value *value = &graph->values[v];
        if (value->data)
            printf("%5d  %-6s %-28s %-13s %12zu %12" PRIu64 "  %-24s %s\n", v, terse_dtype_name(value->dtype),
                   terse_value_text(graph, value, dims, sizeof dims), terse_layout_name(value->layout), value->bytes,
                   stored_bytes(model, v), *encoding_of(model, v) ? encoding_of(model, v) : "none", value->name);
    }
}

int terse_cli_inspect(int argc, char **argv)
{
    bool json = false, verify = false, tensors = false, told = false;
    const terse_cli_usage usage = {"inspect", "MODEL.terse|MODEL.onnx [--json] [--verify] [--tensors]",
                                   "Shows signature, nodes, tensors, sizes and what was compressed.", 1, 1};
    const terse_cli_option options[] = {
        {"json", 0, TERSE_CLI_FLAG, NULL, &json, 0, 0, "print everything as one JSON object"},
        {"verify", 0, TERSE_CLI_FLAG, NULL, &verify, 0, 0, "check SHA-256 and every section's XXH3 too"},
        {"tensors", 0, TERSE_CLI_FLAG, NULL, &tensors, 0, 0, "list the constants too"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    const char *path;
    int n;
    const int code = terse_cli_parse(&usage, options, argc, argv, &path, &n);
    if (code >= 0)
        return code;
    TERSE_AUTO(terse_model_closep) terse_model *model = NULL;
    terse_error error = {0};
    const unsigned checks = verify ? TERSE_MODEL_CHECK_SECTIONS | TERSE_MODEL_CHECK_SHA256 : 0;
    const int status = terse_cli_open("inspect", path, TERSE_CLI_AS_IT_IS, checks, &model, &told, &error);
    if (status)
        return told ? TERSE_CLI_FAILED : terse_cli_fail("inspect", &error);
    if (json)
        print_json(model, path, terse_cli_file_size(path), verify);
    else
        print_text(model, path, terse_cli_file_size(path), verify, tensors);
    return TERSE_CLI_DONE;
}
