/* SPDX-License-Identifier: Apache-2.0 */
/* The writer: the header is packed first (its size decides where the tensors go, so it is packed twice: the offsets are
 * written as fixed 9-byte integers, which keeps the size the same), then head, header and tensors go out in one pass.
 */
#include "common/model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>
#include <xxhash.h>

#include "common/model_format.h"
#include "common/pack.h"

/* Sections of one file; equal bytes are stored once. */
typedef struct section {
    uint64_t hash;
    size_t offset, bytes; /* offset relative to the first section */
    const void *data;
    const terse_encoding *encoding; /* NULL: as it is */
    bool written;                   /* false: shares an earlier section's bytes */
} section;

static void pack_u64_fixed(msgpack_packer *packer, uint64_t value)
{
    msgpack_pack_fix_uint64(packer, value);
}

static void pack_key_text(msgpack_packer *packer, const char *key, const char *text)
{
    terse_pack_cstr(packer, key);
    terse_pack_cstr(packer, text ? text : "");
}

static void pack_shape(msgpack_packer *packer, const terse_graph *graph, const terse_value *value)
{
    terse_pack_cstr(packer, "shape");
    if (value->rank < 0) {
        msgpack_pack_nil(packer);
        return;
    }
    msgpack_pack_array(packer, (size_t)value->rank);
    for (int i = 0; i < value->rank; i++) {
        if (value->dims[i] < 0)
            terse_pack_cstr(packer, graph->symbols[TERSE_SYMBOL_OF_DIM(value->dims[i])]);
        else
            msgpack_pack_int64(packer, value->dims[i]);
    }
}

static void pack_tensor(msgpack_packer *packer, const terse_graph *graph, int index, const section *at,
                        size_t data_start)
{
    const terse_value *value = &graph->values[index];
    msgpack_pack_map(packer, !value->data ? 3 : at->encoding ? 10 : 8);
    pack_key_text(packer, "name", value->name);
    pack_key_text(packer, "dtype", terse_dtype_name(value->dtype));
    pack_shape(packer, graph, value);
    if (!value->data)
        return;
    pack_key_text(packer, "layout", terse_layout_name(value->layout));
    terse_pack_cstr(packer, "groups");
    msgpack_pack_int64(packer, value->groups);
    terse_pack_cstr(packer, "offset");
    pack_u64_fixed(packer, data_start + at->offset);
    terse_pack_cstr(packer, "bytes");
    msgpack_pack_uint64(packer, value->bytes);
    terse_pack_cstr(packer, "xxh3");
    pack_u64_fixed(packer, at->hash);
    if (at->encoding) {
        char text[TERSE_ENCODING_TEXT];
        pack_key_text(packer, "encoding", terse_encoding_text(*at->encoding, text));
        terse_pack_cstr(packer, "stored");
        msgpack_pack_uint64(packer, at->bytes);
    }
}

static void pack_attr(msgpack_packer *packer, const terse_attr *attr)
{
    terse_pack_cstr(packer, attr->name);
    switch (attr->kind) {
    case TERSE_ATTR_INT:
        msgpack_pack_int64(packer, attr->i);
        return;
    case TERSE_ATTR_FLOAT:
        msgpack_pack_double(packer, attr->f);
        return;
    case TERSE_ATTR_TEXT:
        terse_pack_cstr(packer, attr->text);
        return;
    case TERSE_ATTR_INTS:
    case TERSE_ATTR_FLOATS:
    case TERSE_ATTR_TEXTS:
        break;
    }
    msgpack_pack_array(packer, (size_t)attr->n);
    for (int i = 0; i < attr->n; i++) {
        if (attr->kind == TERSE_ATTR_INTS)
            msgpack_pack_int64(packer, attr->ints[i]);
        else if (attr->kind == TERSE_ATTR_FLOATS)
            msgpack_pack_float(packer, attr->floats[i]);
        else
            terse_pack_cstr(packer, attr->texts[i]);
    }
}

static void pack_numbers(msgpack_packer *packer, const char *key, const int *numbers, int n)
{
    terse_pack_cstr(packer, key);
    msgpack_pack_array(packer, (size_t)n);
    for (int i = 0; i < n; i++) {
        if (numbers[i] == TERSE_NO_VALUE)
            msgpack_pack_nil(packer);
        else
            msgpack_pack_int(packer, numbers[i]);
    }
}

static void pack_node(msgpack_packer *packer, const terse_node *node)
{
    msgpack_pack_map(packer, 6);
    pack_key_text(packer, "op", terse_op_name(node->op));
    pack_key_text(packer, "name", node->name);
    pack_numbers(packer, "inputs", node->inputs, node->n_inputs);
    pack_numbers(packer, "outputs", node->outputs, node->n_outputs);
    terse_pack_cstr(packer, "attrs");
    msgpack_pack_map(packer, (size_t)node->n_attrs);
    for (int i = 0; i < node->n_attrs; i++)
        pack_attr(packer, &node->attrs[i]);
    pack_key_text(packer, "compression", node->compression);
}

static void pack_header(msgpack_packer *packer, const terse_graph *graph, const terse_model *about,
                        const section *sections, size_t data_start)
{
    msgpack_pack_map(packer, 10u + (about->report != NULL) + (about->packed != NULL));
    if (about->packed) {
        terse_pack_cstr(packer, "packed");
        msgpack_pack_true(packer);
    }
    pack_key_text(packer, "name", graph->name);
    pack_key_text(packer, "tool", about->tool);
    pack_key_text(packer, "source_sha256", about->source_sha256);
    pack_key_text(packer, "command", about->command);
    terse_pack_cstr(packer, "batchable");
    graph->batchable ? msgpack_pack_true(packer) : msgpack_pack_false(packer);
    terse_pack_cstr(packer, "symbols");
    msgpack_pack_array(packer, (size_t)graph->n_symbols);
    for (int i = 0; i < graph->n_symbols; i++)
        terse_pack_cstr(packer, graph->symbols[i]);
    pack_numbers(packer, "inputs", graph->inputs, graph->n_inputs);
    pack_numbers(packer, "outputs", graph->outputs, graph->n_outputs);
    terse_pack_cstr(packer, "tensors");
    msgpack_pack_array(packer, (size_t)graph->n_values);
    for (int i = 0; i < graph->n_values; i++)
        pack_tensor(packer, graph, i, &sections[i], data_start);
    terse_pack_cstr(packer, "nodes");
    msgpack_pack_array(packer, (size_t)graph->n_nodes);
    for (int i = 0; i < graph->n_nodes; i++)
        pack_node(packer, &graph->nodes[i]);
    if (about->report) {
        terse_pack_cstr(packer, "report");
        terse_pack_bin(packer, about->report, about->report_bytes);
    }
}

typedef struct by_hash {
    uint64_t hash;
    int value;
} by_hash;

static int compare_by_hash(const void *a, const void *b)
{
    const by_hash *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->value - y->value;
}

/* Places every constant, those that are read where they lie first, at multiples of 64; returns the bytes of all
 * sections, or SIZE_MAX when memory is out. */
static size_t place_sections(const terse_graph *graph, const terse_model_packed *packed, section *sections)
{
    TERSE_AUTO(terse_freep) by_hash *order = malloc(((size_t)graph->n_values + 1) * sizeof *order);
    TERSE_AUTO(terse_freep) int *same_as = malloc(((size_t)graph->n_values + 1) * sizeof *same_as);
    if (!order || !same_as)
        return SIZE_MAX;
    size_t n = 0;
    for (int v = 0; v < graph->n_values; v++) {
        const terse_value *value = &graph->values[v];
        same_as[v] = v;
        if (!value->data)
            continue;
        sections[v] = (section){.bytes = value->bytes, .data = value->data};
        if (packed && packed[v].data)
            sections[v] = (section){.bytes = packed[v].bytes, .data = packed[v].data, .encoding = &packed[v].encoding};
        sections[v].hash = XXH3_64bits(sections[v].data, sections[v].bytes);
        order[n++] = (by_hash){sections[v].hash, v};
    }
    qsort(order, n, sizeof *order, compare_by_hash);
    for (size_t i = 1; i < n; i++) {
        const int v = order[i].value, u = same_as[order[i - 1].value];
        if (order[i].hash == order[i - 1].hash && sections[v].bytes == sections[u].bytes &&
            !sections[v].encoding == !sections[u].encoding &&
            memcmp(sections[v].data, sections[u].data, sections[u].bytes) == 0)
            same_as[v] = u;
    }
    size_t end = 0;
    for (int encoded = 0; encoded < 2; encoded++)
        for (int v = 0; v < graph->n_values; v++)
            if (sections[v].data && same_as[v] == v && encoded == (sections[v].encoding != NULL)) {
                sections[v].written = true;
                sections[v].offset = end;
                end += encoded ? sections[v].bytes : terse_align(sections[v].bytes, TERSE_MODEL_ALIGNMENT);
            }
    for (int v = 0; v < graph->n_values; v++)
        sections[v].offset = sections[same_as[v]].offset;
    return end;
}

/* msgpack-c drops a failed write without a word. */
typedef struct header_buffer {
    msgpack_sbuffer bytes;
    bool failed;
} header_buffer;

static int header_write(void *data, const char *bytes, size_t n)
{
    header_buffer *header = data;
    if (msgpack_sbuffer_write(&header->bytes, bytes, n) != 0)
        header->failed = true;
    return header->failed ? -1 : 0;
}

/* Writes and hashes at once. */
typedef struct output {
    int fd;
    crypto_hash_sha256_state sha;
} output;

static bool put(output *out, const void *bytes, size_t n)
{
    crypto_hash_sha256_update(&out->sha, bytes, n);
    return terse_write_full(out->fd, bytes, n);
}

static bool put_zeros(output *out, size_t n)
{
    static const uint8_t zeros[TERSE_MODEL_ALIGNMENT];
    return n == 0 || put(out, zeros, n);
}

static void store(uint8_t *to, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static bool put_file(int fd, const msgpack_sbuffer *header, const terse_graph *graph, const section *sections,
                     size_t data_start, size_t file_bytes)
{
    output out = {.fd = fd};
    crypto_hash_sha256_init(&out.sha);
    uint8_t head[TERSE_MODEL_HEAD_BYTES] = TERSE_MODEL_MAGIC, hash[8], digest[32];
    store(head + 8, TERSE_MODEL_VERSION, 4);
    store(head + 12, header->size, 4);
    store(head + 16, file_bytes, 8);
    store(hash, XXH3_64bits(header->data, header->size), 8);
    if (!put(&out, head, sizeof head) || !put(&out, header->data, header->size) || !put(&out, hash, sizeof hash) ||
        !put_zeros(&out, data_start - TERSE_MODEL_HEAD_BYTES - header->size - sizeof hash))
        return false;
    for (int encoded = 0; encoded < 2; encoded++)
        for (int v = 0; v < graph->n_values; v++) {
            const section *s = &sections[v];
            if (!s->written || encoded != (s->encoding != NULL))
                continue;
            const size_t padding = encoded ? 0 : terse_align(s->bytes, TERSE_MODEL_ALIGNMENT) - s->bytes;
            if (!put(&out, s->data, s->bytes) || !put_zeros(&out, padding))
                return false;
        }
    crypto_hash_sha256_final(&out.sha, digest);
    return pwrite(fd, digest, sizeof digest, TERSE_MODEL_DIGEST_AT) == (ssize_t)sizeof digest;
}

int terse_model_write_fd(int fd, const terse_graph *graph, const terse_model *about, terse_error *error)
{
    TERSE_AUTO(terse_freep) section *sections = calloc((size_t)graph->n_values + 1, sizeof *sections);
    const size_t data_bytes = sections ? place_sections(graph, about->packed, sections) : SIZE_MAX;
    if (data_bytes == SIZE_MAX)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d tensors", graph->n_values);
    header_buffer header = {.failed = false};
    size_t data_start = 0;
    for (int round = 0; round < 2; round++) {
        msgpack_sbuffer_clear(&header.bytes);
        msgpack_packer packer;
        msgpack_packer_init(&packer, &header, header_write);
        pack_header(&packer, graph, about, sections, data_start);
        data_start = terse_align(TERSE_MODEL_HEAD_BYTES + header.bytes.size + 8, TERSE_MODEL_ALIGNMENT);
    }
    int status = TERSE_OK;
    if (header.failed)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the header");
    else if (header.bytes.size > TERSE_MODEL_MAX_HEADER)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "the header has %zu bytes, at most %d are allowed",
                            header.bytes.size, TERSE_MODEL_MAX_HEADER);
    else if (!put_file(fd, &header.bytes, graph, sections, data_start, data_start + data_bytes))
        status = terse_fail(error, TERSE_SYSTEM, "cannot write the model");
    msgpack_sbuffer_destroy(&header.bytes);
    return status;
}

int terse_model_write(const char *path, const terse_graph *graph, const terse_model *about, terse_error *error)
{
    terse_atomic_file file;
    int status = terse_atomic_open(path, &file, error);
    if (status)
        return status;
    status = terse_model_write_fd(file.fd, graph, about, error);
    if (status) {
        terse_error_prefix(error, "model '%s'", path);
        terse_atomic_discard(&file);
        return status;
    }
    return terse_atomic_commit(&file, true, error);
}
