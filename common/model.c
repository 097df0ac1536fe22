/* SPDX-License-Identifier: Apache-2.0 */
/* The reader. Nothing of the file is used before it has been checked: the fixed head, the header's XXH3, then every
 * number in the header against the sizes that are really there, then the graph as a whole (terse_graph_check). */
#include "common/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <sodium.h>
#include <xxhash.h>

#include "common/encoding.h"
#include "common/model_format.h"
#include "common/pack.h"

typedef struct reader {
    const uint8_t *base;
    size_t size, data_start; /* tensor bytes lie in data_start..size */
    unsigned checks;
    terse_graph *graph;
    terse_model *model;
} reader;

static uint64_t little_endian(const uint8_t *bytes, int n)
{
    uint64_t value = 0;
    for (int i = n - 1; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

int terse_model_sha256(const void *base, size_t size, uint8_t ret_digest[static 32])
{
    static const uint8_t zeros[32];
    crypto_hash_sha256_state state;
    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, base, TERSE_MODEL_DIGEST_AT);
    crypto_hash_sha256_update(&state, zeros, sizeof zeros);
    crypto_hash_sha256_update(&state, (const uint8_t *)base + TERSE_MODEL_DIGEST_AT + 32,
                              size - TERSE_MODEL_DIGEST_AT - 32);
    crypto_hash_sha256_final(&state, ret_digest);
    return TERSE_OK;
}

int terse_model_check_head(const uint8_t *base, size_t size, unsigned checks, size_t *ret_header_bytes,
                           terse_error *error)
{
    if (size < TERSE_MODEL_HEAD_BYTES + 8)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %zu bytes, a .terse file has at least %d", size,
                          TERSE_MODEL_HEAD_BYTES + 8);
    if (memcmp(base, TERSE_MODEL_MAGIC, 8) != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "is not a .terse file (it does not start with " TERSE_MODEL_MAGIC ")");
    const uint64_t version = little_endian(base + 8, 4);
    if (version < 1 || version > TERSE_MODEL_VERSION)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "has format version %" PRIu64 ", this terse reads 1 to %d",
                          version, TERSE_MODEL_VERSION);
    const uint64_t header = little_endian(base + 12, 4), file = little_endian(base + 16, 8);
    if (file != size)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "states %" PRIu64 " bytes, the file has %zu", file, size);
    if (header > TERSE_MODEL_MAX_HEADER || header > size - TERSE_MODEL_HEAD_BYTES - 8)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "states a header of %" PRIu64 " bytes, %zu are there and %d allowed", header,
                          size - TERSE_MODEL_HEAD_BYTES - 8, TERSE_MODEL_MAX_HEADER);
    if (little_endian(base + 56, 8) != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "bytes 56 to 63 are not zero");
    const uint64_t stated = little_endian(base + TERSE_MODEL_HEAD_BYTES + header, 8);
    const uint64_t found = XXH3_64bits(base + TERSE_MODEL_HEAD_BYTES, (size_t)header);
    if (stated != found)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "header has XXH3 %016" PRIx64 ", %016" PRIx64 " is stated",
                          found, stated);
    if (checks & TERSE_MODEL_CHECK_SHA256) {
        uint8_t digest[32];
        terse_model_sha256(base, size, digest);
        if (memcmp(digest, base + TERSE_MODEL_DIGEST_AT, sizeof digest) != 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "SHA-256 does not match the file's bytes");
    }
    *ret_header_bytes = (size_t)header;
    return TERSE_OK;
}

/* A text of the header, copied into the graph's arena; "" when the key is absent. */
static int read_text(const reader *in, const msgpack_object *map, const char *key, const char **ret_text,
                     terse_error *error)
{
    const char *text = "";
    size_t length = 0;
    if (terse_pack_find(map, key)) {
        const int status = terse_pack_get_str(map, key, TERSE_MODEL_MAX_TEXT, &text, &length, error);
        if (status)
            return status;
    }
    *ret_text = terse_arena_text(in->graph->arena, text, length);
    return *ret_text ? TERSE_OK
                     : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a text of %zu bytes", length);
}

static int read_symbols(const reader *in, const msgpack_object *header, terse_error *error)
{
    const msgpack_object_array *symbols;
    int status = terse_pack_get_array(header, "symbols", TERSE_MAX_SYMBOLS, &symbols, error);
    for (uint32_t i = 0; !status && i < symbols->size; i++) {
        const msgpack_object *symbol = &symbols->ptr[i];
        char name[TERSE_MAX_NAME + 1];
        if (symbol->type != MSGPACK_OBJECT_STR || symbol->via.str.size == 0 || symbol->via.str.size > TERSE_MAX_NAME)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "symbol %" PRIu32 " is no text of 1 to %d bytes", i,
                              TERSE_MAX_NAME);
        memcpy(name, symbol->via.str.ptr, symbol->via.str.size);
        name[symbol->via.str.size] = 0;
        if (terse_graph_symbol(in->graph, name) != (int)i)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "symbol %" PRIu32 " '%s' is there twice or memory is out",
                              i, name);
    }
    return status;
}

static int read_dim(const reader *in, const msgpack_object *dim, int64_t *ret_dim, terse_error *error)
{
    if (dim->type == MSGPACK_OBJECT_POSITIVE_INTEGER && dim->via.u64 <= (uint64_t)TERSE_MAX_TENSOR_BYTES) {
        *ret_dim = (int64_t)dim->via.u64;
        return TERSE_OK;
    }
    if (dim->type == MSGPACK_OBJECT_STR)
        for (int i = 0; i < in->graph->n_symbols; i++)
            if (strlen(in->graph->symbols[i]) == dim->via.str.size &&
                memcmp(in->graph->symbols[i], dim->via.str.ptr, dim->via.str.size) == 0) {
                *ret_dim = TERSE_DIM_OF_SYMBOL(i);
                return TERSE_OK;
            }
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "shape has an entry that is neither an integer of 0 to %" PRId64 " nor one of the %d symbols",
                      TERSE_MAX_TENSOR_BYTES, in->graph->n_symbols);
}

static int read_shape(const reader *in, const msgpack_object *map, terse_value *value, terse_error *error)
{
    const msgpack_object *found = terse_pack_find(map, "shape");
    if (!found || found->type == MSGPACK_OBJECT_NIL)
        return TERSE_OK; /* rank stays -1 */
    const msgpack_object_array *shape;
    int status = terse_pack_get_array(map, "shape", TERSE_MAX_RANK, &shape, error);
    if (status)
        return status;
    for (uint32_t i = 0; i < shape->size; i++)
        if ((status = read_dim(in, &shape->ptr[i], &value->dims[i], error)))
            return status;
    value->rank = (int)shape->size;
    return TERSE_OK;
}

static int check_section(const msgpack_object *map, const terse_value *value, terse_error *error)
{
    uint64_t stated;
    const int status = terse_pack_get_u64(map, "xxh3", UINT64_MAX, &stated, error);
    if (status)
        return status;
    const uint64_t found = XXH3_64bits(value->data, value->bytes);
    if (stated != found)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "bytes have XXH3 %016" PRIx64 ", %016" PRIx64 " is stated",
                          found, stated);
    const uint8_t *bytes = value->data;
    for (size_t i = 0; value->dtype == TERSE_BOOL && i < value->bytes; i++)
        if (bytes[i] > 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "BOOL element %zu is %d, allowed are 0 and 1", i,
                              bytes[i]);
    return TERSE_OK;
}

/* A note of what the tensor took in the packed file that these bytes were expanded from. */
static int read_note(const reader *in, const msgpack_object *map, int index, terse_error *error)
{
    terse_model_note *note = &in->model->notes[index];
    const char *encoding;
    size_t length;
    int status = terse_pack_get_str(map, "encoding", TERSE_ENCODING_TEXT, &encoding, &length, error);
    if (!status)
        status = terse_pack_get_u64(map, "stored", UINT64_MAX, &note->stored, error);
    if (!status && !(note->encoding = terse_arena_text(in->graph->arena, encoding, length)))
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a text of %zu bytes", length);
    return status;
}

/* Place, layout and bytes of a constant. */
static int read_constant(const reader *in, const msgpack_object *map, terse_value *value, terse_error *error)
{
    uint64_t offset, bytes, groups = 1;
    int status;
    if ((status = terse_pack_get_u64(map, "offset", UINT64_MAX, &offset, error)) ||
        (status = terse_pack_get_u64(map, "bytes", UINT64_MAX, &bytes, error)))
        return status;
    if (terse_pack_find(map, "groups") && (status = terse_pack_get_u64(map, "groups", INT32_MAX, &groups, error)))
        return status;
    if (offset % TERSE_MODEL_ALIGNMENT != 0 || offset < in->data_start)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "starts at byte %" PRIu64 ", allowed are multiples of %d from %zu", offset,
                          TERSE_MODEL_ALIGNMENT, in->data_start);
    if (offset > in->size || bytes > in->size - offset)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "ends at byte %" PRIu64 ", the file has %zu", offset + bytes,
                          in->size);
    const msgpack_object *layout = terse_pack_find(map, "layout");
    if (layout && (layout->type != MSGPACK_OBJECT_STR ||
                   !terse_layout_from_name(layout->via.str.ptr, layout->via.str.size, &value->layout)))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has a layout that is not known");
    if (value->rank < 0 || terse_dims_count(value->dims, value->rank) < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "is a constant without a fixed shape");
    value->groups = (int64_t)groups;
    value->data = in->base + offset;
    value->bytes = (size_t)bytes;
    return in->checks & TERSE_MODEL_CHECK_SECTIONS ? check_section(map, value, error) : TERSE_OK;
}

static int read_tensor(const reader *in, const msgpack_object *map, int index, terse_error *error)
{
    const char *name, *dtype;
    size_t length;
    int status;
    if (map->type != MSGPACK_OBJECT_MAP)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "tensor %d is no map", index);
    if ((status = read_text(in, map, "name", &name, error)))
        return status;
    if (terse_graph_add_value(in->graph, name) != index)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for tensor %d", index);
    terse_value *value = &in->graph->values[index];
    status = terse_pack_get_str(map, "dtype", 16, &dtype, &length, error);
    if (!status && !(length == 4 && memcmp(dtype, "NONE", 4) == 0) &&
        (value->dtype = terse_dtype_from_name(dtype, length)) == TERSE_DTYPE_NONE)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "has element type '%.*s', which is not known", (int)length,
                            dtype);
    if (!status)
        status = read_shape(in, map, value, error);
    if (!status && terse_pack_find(map, "offset"))
        status = read_constant(in, map, value, error);
    if (!status && value->data && in->model->notes && terse_pack_find(map, "encoding"))
        status = read_note(in, map, index, error);
    if (status)
        terse_error_prefix(error, "tensor %d '%s'", index, name);
    return status;
}

static int read_numbers(const reader *in, const msgpack_object *map, const char *key, int limit, bool nil_allowed,
                        int **ret_numbers, int *ret_n, terse_error *error)
{
    const msgpack_object_array *array;
    const int status = terse_pack_get_array(map, key, (uint32_t)limit, &array, error);
    if (status)
        return status;
    int *numbers = terse_arena_alloc(in->graph->arena, (array->size + 1) * sizeof *numbers);
    if (!numbers)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for '%s'", key);
    for (uint32_t i = 0; i < array->size; i++) {
        const msgpack_object *number = &array->ptr[i];
        if (nil_allowed && number->type == MSGPACK_OBJECT_NIL)
            numbers[i] = TERSE_NO_VALUE;
        else if (number->type == MSGPACK_OBJECT_POSITIVE_INTEGER && number->via.u64 < (uint64_t)in->graph->n_values)
            numbers[i] = (int)number->via.u64;
        else
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' entry %" PRIu32 " names no tensor of 0 to %d", key,
                              i, in->graph->n_values - 1);
    }
    *ret_numbers = numbers;
    *ret_n = (int)array->size;
    return TERSE_OK;
}

static bool is_number(const msgpack_object *item)
{
    return item->type == MSGPACK_OBJECT_FLOAT64 || item->type == MSGPACK_OBJECT_FLOAT32;
}

static bool is_integer(const msgpack_object *item)
{
    return item->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ||
           (item->type == MSGPACK_OBJECT_POSITIVE_INTEGER && item->via.u64 <= INT64_MAX);
}

/* An array attribute: all integers, all floats or all texts; an empty one is of integers. */
static bool set_array(const reader *in, terse_node *node, const char *name, const msgpack_object_array *array)
{
    const size_t n = array->size;
    TERSE_AUTO(terse_freep) void *buffer = malloc((n + 1) * sizeof(int64_t));
    int64_t *ints = buffer;
    float *floats = buffer;
    const char **texts = buffer;
    if (!buffer)
        return false;
    const msgpack_object_type kind = n ? array->ptr[0].type : MSGPACK_OBJECT_POSITIVE_INTEGER;
    for (size_t i = 0; i < n; i++) {
        const msgpack_object *item = &array->ptr[i];
        if (kind == MSGPACK_OBJECT_STR && item->type == MSGPACK_OBJECT_STR)
            texts[i] = terse_arena_text(in->graph->arena, item->via.str.ptr, item->via.str.size);
        else if (is_number(&array->ptr[0]) && is_number(item))
            floats[i] = (float)item->via.f64;
        else if (is_integer(&array->ptr[0]) && is_integer(item))
            ints[i] = item->via.i64;
        else
            return false;
        if (kind == MSGPACK_OBJECT_STR && !texts[i])
            return false;
    }
    if (kind == MSGPACK_OBJECT_STR)
        return terse_node_set_texts(in->graph, node, name, texts, (int)n);
    return n && is_number(&array->ptr[0]) ? terse_node_set_floats(in->graph, node, name, floats, (int)n)
                                          : terse_node_set_ints(in->graph, node, name, ints, (int)n);
}

static int read_attrs(const reader *in, const msgpack_object *map, terse_node *node, terse_error *error)
{
    const msgpack_object *attrs = terse_pack_find(map, "attrs");
    if (!attrs)
        return TERSE_OK;
    if (attrs->type != MSGPACK_OBJECT_MAP || attrs->via.map.size > TERSE_MODEL_MAX_ATTRS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'attrs' is no map of at most %d entries",
                          TERSE_MODEL_MAX_ATTRS);
    const int status = terse_pack_unique_keys(attrs, error);
    for (uint32_t i = 0; !status && i < attrs->via.map.size; i++) {
        const msgpack_object *key = &attrs->via.map.ptr[i].key, *value = &attrs->via.map.ptr[i].val;
        char name[TERSE_MODEL_MAX_ATTR_NAME + 1];
        bool done = false;
        if (key->via.str.size <= TERSE_MODEL_MAX_ATTR_NAME) {
            memcpy(name, key->via.str.ptr, key->via.str.size);
            name[key->via.str.size] = 0;
            if (is_integer(value))
                done = terse_node_set_int(in->graph, node, name, value->via.i64);
            else if (is_number(value))
                done = terse_node_set_float(in->graph, node, name, value->via.f64);
            else if (value->type == MSGPACK_OBJECT_STR) {
                const char *text = terse_arena_text(in->graph->arena, value->via.str.ptr, value->via.str.size);
                done = text && terse_node_set_text(in->graph, node, name, text);
            } else if (value->type == MSGPACK_OBJECT_ARRAY)
                done = set_array(in, node, name, &value->via.array);
        }
        if (!done)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "attribute %" PRIu32 " '%.*s' has a name or value that is not allowed", i,
                              (int)(key->via.str.size < 100 ? key->via.str.size : 100), key->via.str.ptr);
    }
    return status;
}

static int read_node(const reader *in, const msgpack_object *map, uint32_t index, terse_error *error)
{
    const char *op_name = "", *name = "";
    size_t op_length = 0;
    int *inputs, *outputs, n_inputs, n_outputs, status;
    if (map->type != MSGPACK_OBJECT_MAP)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "node %" PRIu32 " is no map", index);
    status = terse_pack_get_str(map, "op", 64, &op_name, &op_length, error);
    const terse_op op = status ? TERSE_OP_COUNT : terse_op_from_name(op_name, op_length);
    if (!status && op == TERSE_OP_COUNT)
        status = terse_fail(error, TERSE_UNIMPLEMENTED, "operator '%.*s' is not known", (int)op_length, op_name);
    if (!status && !(status = read_text(in, map, "name", &name, error)) &&
        !(status = read_numbers(in, map, "inputs", TERSE_MAX_NODE_IO, true, &inputs, &n_inputs, error)) &&
        !(status = read_numbers(in, map, "outputs", TERSE_MAX_NODE_IO, true, &outputs, &n_outputs, error))) {
        terse_node *node = terse_graph_add_node(in->graph, op, name, inputs, n_inputs, outputs, n_outputs);
        if (!node)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for node %" PRIu32, index);
        if (!(status = read_text(in, map, "compression", &node->compression, error)))
            status = read_attrs(in, map, node, error);
    }
    if (status)
        terse_error_prefix(error, "node %" PRIu32 " '%s'", index, name);
    return status;
}

static int check_signature(const terse_graph *graph, terse_error *error)
{
    int status = terse_graph_check(graph, error);
    for (int i = 0; !status && i < graph->n_outputs; i++) {
        const terse_value *value = &graph->values[graph->outputs[i]];
        if (value->rank < 0 || value->dtype == TERSE_DTYPE_NONE)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%s' has no shape or element type", value->name);
        for (int j = 0; !status && j < i; j++)
            if (strcmp(graph->values[graph->outputs[j]].name, value->name) == 0)
                status = terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%s' is there twice", value->name);
    }
    for (int i = 0; !status && i < graph->n_inputs; i++)
        for (int j = 0; !status && j < i; j++)
            if (strcmp(graph->values[graph->inputs[j]].name, graph->values[graph->inputs[i]].name) == 0)
                status = terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' is there twice",
                                    graph->values[graph->inputs[i]].name);
    if (status || !graph->batchable)
        return status;
    /* The daemon concatenates and splits along axis 0: that much must hold whoever wrote the file. */
    const int64_t batch = graph->n_inputs ? graph->values[graph->inputs[0]].dims[0] : 0;
    for (int i = 0; i < graph->n_inputs + graph->n_outputs; i++) {
        const int v = i < graph->n_inputs ? graph->inputs[i] : graph->outputs[i - graph->n_inputs];
        if (batch >= 0 || graph->values[v].rank < 1 || graph->values[v].dims[0] != batch)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "is marked batchable, but '%s' does not start with the batch symbol",
                              graph->values[v].name);
    }
    return TERSE_OK;
}

static int read_header(const reader *in, const msgpack_object *header, terse_model *model, terse_error *error)
{
    terse_graph *graph = in->graph;
    const msgpack_object_array *tensors, *nodes;
    int status = terse_pack_unique_keys(header, error);
    bool packed = false;
    const bool was_packed = !status && terse_pack_find(header, "packed") != NULL;
    if (was_packed && !(status = terse_pack_get_bool(header, "packed", &packed, error)) && packed)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "is packed and was not expanded ('packed' comes first)");
    if (status || (status = read_text(in, header, "name", &graph->name, error)) ||
        (status = read_text(in, header, "tool", &model->tool, error)) ||
        (status = read_text(in, header, "source_sha256", &model->source_sha256, error)) ||
        (status = read_text(in, header, "command", &model->command, error)) ||
        (status = terse_pack_get_bool(header, "batchable", &graph->batchable, error)) ||
        (status = read_symbols(in, header, error)) ||
        (status = terse_pack_get_array(header, "tensors", TERSE_MAX_VALUES, &tensors, error)))
        return status;
    if (was_packed &&
        !(model->notes = terse_arena_alloc(graph->arena, ((size_t)tensors->size + 1) * sizeof *model->notes)))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRIu32 " tensors", tensors->size);
    for (uint32_t i = 0; i < tensors->size; i++)
        if ((status = read_tensor(in, &tensors->ptr[i], (int)i, error)))
            return status;
    if ((status =
             read_numbers(in, header, "inputs", TERSE_MAX_NODE_IO, false, &graph->inputs, &graph->n_inputs, error)) ||
        (status = read_numbers(in, header, "outputs", TERSE_MAX_NODE_IO, false, &graph->outputs, &graph->n_outputs,
                               error)) ||
        (status = terse_pack_get_array(header, "nodes", TERSE_MAX_NODES, &nodes, error)))
        return status;
    for (uint32_t i = 0; i < nodes->size; i++)
        if ((status = read_node(in, &nodes->ptr[i], i, error)))
            return status;
    if (terse_pack_find(header, "report") && (status = terse_pack_get_bin(header, "report", TERSE_MODEL_MAX_HEADER,
                                                                          &model->report, &model->report_bytes, error)))
        return status;
    return check_signature(graph, error);
}

static int parse(reader *in, terse_model *model, terse_error *error)
{
    size_t header_bytes = 0;
    int status = terse_model_check_head(in->base, in->size, in->checks, &header_bytes, error);
    if (status)
        return status;
    in->data_start = terse_align(TERSE_MODEL_HEAD_BYTES + header_bytes + 8, TERSE_MODEL_ALIGNMENT);
    in->model = model;
    in->graph = model->graph = terse_graph_new();
    msgpack_zone zone;
    if (!in->graph || !msgpack_zone_init(&zone, 64 * 1024))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    msgpack_object header;
    status = terse_pack_unpack(in->base + TERSE_MODEL_HEAD_BYTES, header_bytes, TERSE_MODEL_MAX_ITEMS, &zone, &header,
                               error);
    if (!status)
        status = read_header(in, &header, model, error);
    msgpack_zone_destroy(&zone);
    return status;
}

int terse_model_parse(const void *base, size_t size, const char *name, unsigned checks, terse_model **ret_model,
                      terse_error *error)
{
    if ((uintptr_t)base % TERSE_MODEL_ALIGNMENT != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "model '%s': bytes are not aligned to %d", name,
                          TERSE_MODEL_ALIGNMENT);
    terse_model *model = calloc(1, sizeof *model);
    if (!model)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "model '%s': out of memory", name);
    model->base = base;
    model->size = size;
    reader in = {.base = base, .size = size, .checks = checks};
    const int status = parse(&in, model, error);
    if (status) {
        terse_error_prefix(error, "model '%s'", name);
        terse_model_close(model);
        return status;
    }
    *ret_model = model;
    return TERSE_OK;
}

void terse_model_close(terse_model *model)
{
    if (!model)
        return;
    terse_graph_free(model->graph);
    if (model->mapped && model->base)
        munmap((void *)(uintptr_t)model->base, model->size);
    free(model);
}

void terse_model_closep(terse_model **model)
{
    terse_model_close(*model);
}
