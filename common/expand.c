/* SPDX-License-Identifier: Apache-2.0 */
/* The header is walked as bytes, not unpacked: its numbers are replaced where they lie, which keeps its size. */
#include "common/expand.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "common/bytes.h"
#include "common/encoding.h"
#include "common/graph/graph.h"
#include "common/model_format.h"
#include "common/pack.h"
#include "common/winograd.h"

/* A constant: where the header tells of it, and what it says. */
typedef struct terse_expansion_part {
    size_t offset_at, xxh3_at; /* in the file: the last 8 bytes of 9-byte integers */
    uint64_t offset, bytes, stored, xxh3;
    terse_encoding encoding;
    bool encoded;
    terse_dtype dtype;
    int64_t n, c; /* of weights that become Winograd's */
    size_t image_offset;
    size_t same_as;   /* the part whose bytes it shares, or itself */
    const char *name; /* in the file, without a final 0 */
    int name_length;
} part;

static const char packed_key[] = "\xa6"
                                 "packed";

bool terse_expand_is_packed(const void *head, size_t size)
{
    const uint8_t *bytes = head;
    if (size < TERSE_EXPAND_PEEK_BYTES || memcmp(bytes, TERSE_MODEL_MAGIC, 8) != 0)
        return false;
    bytes += TERSE_MODEL_HEAD_BYTES;
    if (bytes[0] >> 4 == 8) /* a map of at most 15, of at most 65,535, of more entries */
        bytes += 1;
    else if (bytes[0] == 0xde)
        bytes += 3;
    else
        return false;
    return memcmp(bytes, packed_key, sizeof packed_key - 1) == 0 && bytes[sizeof packed_key - 1] == 0xc3;
}

static void store(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static void store_big(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> (56 - 8 * i));
}

/* --- the walk ----------------------------------------------------------------------------------------------------- */

/* What a tensor's map holds, as far as it matters here. */
typedef struct entry {
    part part;
    int64_t dims[TERSE_MAX_RANK];
    int rank;
    bool fixed, placed; /* shape of integers alone; has "offset" */
    terse_layout layout;
    uint64_t groups;
} entry;

enum { SHOWN_NAME = 100 };

static int bad_key(const char *key, terse_error *error)
{
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' is not what a packed file has there", key);
}

static bool read_shape(terse_pack_reader *reader, entry *e)
{
    terse_pack_item item;
    if (!terse_pack_next(reader, &item))
        return false;
    if (item.type == TERSE_PACK_NIL)
        return true;
    if (item.type != TERSE_PACK_ARRAY || item.length > TERSE_MAX_RANK)
        return false;
    e->rank = (int)item.length;
    e->fixed = true;
    for (int i = 0; i < e->rank; i++) {
        if (!terse_pack_next(reader, &item) || (item.type != TERSE_PACK_UINT && item.type != TERSE_PACK_STR))
            return false;
        if (item.type == TERSE_PACK_STR || item.u > (uint64_t)TERSE_MAX_TENSOR_BYTES)
            e->fixed = false;
        else
            e->dims[i] = (int64_t)item.u;
    }
    return true;
}

/* An integer that is told in 9 bytes, so that another one can take its place. */
static bool read_fixed(terse_pack_reader *reader, const uint8_t *base, size_t *ret_at, uint64_t *ret_number)
{
    const uint8_t *start = reader->at;
    terse_pack_item item;
    if (start >= reader->end || *start != 0xcf || !terse_pack_next(reader, &item))
        return false;
    *ret_at = (size_t)(reader->at - 8 - base);
    *ret_number = item.u;
    return true;
}

static bool read_number(terse_pack_reader *reader, uint64_t *ret_number)
{
    terse_pack_item item;
    if (!terse_pack_next(reader, &item) || item.type != TERSE_PACK_UINT)
        return false;
    *ret_number = item.u;
    return true;
}

static bool read_word(terse_pack_reader *reader, terse_pack_item *ret_item)
{
    return terse_pack_next(reader, ret_item) && ret_item->type == TERSE_PACK_STR;
}

/* The value of one key of a tensor's map. */
static bool read_key(terse_pack_reader *reader, const terse_pack_item *key, const uint8_t *base, entry *e)
{
    terse_pack_item item;
    part *p = &e->part;
#define IS(text) terse_pack_is(key, text, sizeof text - 1)
    if (IS("name")) {
        if (!read_word(reader, &item))
            return false;
        p->name = item.data;
        p->name_length = item.length < SHOWN_NAME ? (int)item.length : SHOWN_NAME;
        return true;
    }
    if (IS("dtype")) {
        if (!read_word(reader, &item))
            return false;
        p->dtype = terse_dtype_from_name(item.data, item.length);
        return true;
    }
    if (IS("layout"))
        return read_word(reader, &item) && terse_layout_from_name(item.data, item.length, &e->layout);
    if (IS("encoding")) {
        if (p->encoded)
            return false; /* twice, as below */
        p->encoded = true;
        return read_word(reader, &item) && terse_encoding_from_text(item.data, item.length, &p->encoding);
    }
    if (IS("shape"))
        return read_shape(reader, e);
    if (IS("offset")) {
        e->placed = true;
        return p->offset_at == 0 && read_fixed(reader, base, &p->offset_at, &p->offset);
    }
    if (IS("xxh3"))
        return p->xxh3_at == 0 && read_fixed(reader, base, &p->xxh3_at, &p->xxh3);
    if (IS("bytes"))
        return read_number(reader, &p->bytes);
    if (IS("stored"))
        return read_number(reader, &p->stored);
    if (IS("groups"))
        return read_number(reader, &e->groups);
#undef IS
    return terse_pack_skip(reader);
}

/* Sizes against file, shape and each other. */
static int check_part(const terse_expansion *x, size_t data_start, const entry *e, terse_error *error)
{
    const part *p = &e->part;
    if (p->offset_at == 0 || p->xxh3_at == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has no 'xxh3'");
    if (p->offset < data_start || p->offset > x->size || p->stored > x->size - p->offset)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "takes %" PRIu64 " bytes from byte %" PRIu64 ", the file has tensors from %zu to %zu",
                          p->stored, p->offset, data_start, x->size);
    if (!e->fixed || terse_dims_count(e->dims, e->rank) < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "is a constant without a fixed shape");
    const int64_t needed =
        terse_layout_bytes(e->layout, p->dtype, e->rank, e->dims, e->groups > INT32_MAX ? -1 : (int64_t)e->groups);
    if (needed >= 0 && p->bytes != (uint64_t)needed)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %" PRIu64 " bytes, its shape needs %" PRId64, p->bytes,
                          needed);
    if (p->bytes > (uint64_t)TERSE_MAX_TENSOR_BYTES)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %" PRIu64 " bytes, at most %" PRId64 " are allowed",
                          p->bytes, TERSE_MAX_TENSOR_BYTES);
    if (p->encoded && !terse_encoding_allows(p->stored, p->bytes))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "states %" PRIu64 " bytes in %" PRIu64 " stored ones, at most %d times as many are allowed",
                          p->bytes, p->stored, TERSE_ENCODING_MOST_TIMES);
    return TERSE_OK;
}

/* Weights [n,c,3,3] that are told plain. */
static int check_winograd(entry *e, terse_error *error)
{
    /* with a layout's known bytes n and c are small enough to be multiplied */
    if (e->layout != TERSE_LAYOUT_F32_WINOGRAD4 || e->rank != 4 ||
        terse_layout_bytes(e->layout, e->part.dtype, e->rank, e->dims, (int64_t)e->groups) != (int64_t)e->part.bytes)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "is told as for winograd and has layout %s",
                          terse_layout_name(e->layout));
    e->part.n = e->dims[0];
    e->part.c = e->dims[1];
    return TERSE_OK;
}

static int read_tensor(terse_expansion *x, terse_pack_reader *reader, size_t data_start, part *ret_part,
                       bool *ret_placed, terse_error *error)
{
    entry e = {.groups = 1};
    terse_pack_item map, key;
    if (!terse_pack_next(reader, &map) || map.type != TERSE_PACK_MAP)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "is no map");
    for (uint32_t i = 0; i < map.length; i++) {
        if (!terse_pack_next(reader, &key) || key.type != TERSE_PACK_STR)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "has a key that is no text");
        if (!read_key(reader, &key, x->base, &e)) {
            char text[24] = "";
            memcpy(text, key.data, key.length < sizeof text - 1 ? key.length : sizeof text - 1);
            return bad_key(text, error);
        }
    }
    if (!e.part.encoded)
        e.part.stored = e.part.bytes;
    *ret_placed = e.placed;
    int status = e.placed ? check_part(x, data_start, &e, error) : TERSE_OK;
    if (!status && e.placed && e.part.encoded && e.part.encoding.winograd)
        status = check_winograd(&e, error);
    *ret_part = e.part;
    return status ? terse_error_prefix(error, "'%.*s'", e.part.name_length, e.part.name ? e.part.name : "") : TERSE_OK;
}

static int read_tensors(terse_expansion *x, terse_pack_reader *reader, size_t data_start, terse_error *error)
{
    terse_pack_item array;
    if (!terse_pack_next(reader, &array) || array.type != TERSE_PACK_ARRAY || x->parts ||
        array.length > TERSE_MAX_VALUES)
        return bad_key("tensors", error);
    /* the reader has seen to it that there is a byte of the header for each */
    if (!(x->parts = calloc((size_t)array.length + 1, sizeof *x->parts)))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRIu32 " tensors", array.length);
    for (uint32_t i = 0; i < array.length; i++) {
        bool placed = false;
        const int status = read_tensor(x, reader, data_start, &x->parts[x->n_parts], &placed, error);
        if (status)
            return terse_error_prefix(error, "tensor %" PRIu32, i);
        x->n_parts += placed;
    }
    return TERSE_OK;
}

static int walk(terse_expansion *x, size_t data_start, terse_error *error)
{
    const uint8_t *header = x->base + TERSE_MODEL_HEAD_BYTES;
    terse_pack_reader reader = terse_pack_reader_over(header, x->header_bytes);
    terse_pack_item map, item;
    if (!terse_pack_next(&reader, &map) || map.type != TERSE_PACK_MAP)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the header is no map");
    for (uint32_t i = 0; i < map.length; i++) {
        if (!terse_pack_next(&reader, &item) || item.type != TERSE_PACK_STR)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "the header has a key that is no text");
        int status = TERSE_OK;
        if (i == 0)
            x->packed_at = (size_t)(reader.at - x->base);
        if (terse_pack_is(&item, "tensors", 7))
            status = read_tensors(x, &reader, data_start, error);
        else if (!terse_pack_skip(&reader))
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "the header ends early");
        if (status)
            return status;
    }
    return x->parts ? TERSE_OK : terse_fail(error, TERSE_INVALID_ARGUMENT, "'tensors' is missing");
}

/* --- places in the plain file ------------------------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b)
{
    const part *x = *(const part *const *)a, *y = *(const part *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x < y ? -1 : x > y;
}

static bool is_same(const part *a, const part *b)
{
    return a->offset == b->offset && a->stored == b->stored && a->bytes == b->bytes && a->encoded == b->encoded &&
           a->dtype == b->dtype && a->n == b->n && a->c == b->c &&
           memcmp(&a->encoding, &b->encoding, sizeof a->encoding) == 0;
}

/* Tensors that share their stored bytes share the expanded ones. */
static int place(terse_expansion *x, size_t data_start, terse_error *error)
{
    TERSE_AUTO(terse_freep) part **order = malloc((x->n_parts + 1) * sizeof *order);
    if (!order)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu tensors", x->n_parts);
    for (size_t i = 0; i < x->n_parts; i++) {
        order[i] = &x->parts[i];
        x->parts[i].same_as = i;
    }
    qsort(order, x->n_parts, sizeof *order, compare_places);
    for (size_t i = 1; i < x->n_parts; i++)
        if (is_same(order[i], order[i - 1]))
            order[i]->same_as = order[i - 1]->same_as;
    size_t end = data_start;
    for (size_t i = 0; i < x->n_parts; i++) {
        part *p = &x->parts[i];
        p->image_offset = end;
        if (p->same_as != i)
            p->image_offset = x->parts[p->same_as].image_offset;
        else
            end = terse_align(end + (size_t)p->bytes, TERSE_MODEL_ALIGNMENT);
        if (end > (size_t)TERSE_MAX_TENSOR_BYTES)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "expands to more than %" PRId64 " bytes",
                              TERSE_MAX_TENSOR_BYTES);
    }
    x->bytes = end;
    return TERSE_OK;
}

int terse_expand_open(const void *base, size_t size, const char *name, terse_expansion *ret_expansion,
                      terse_error *error)
{
    terse_expansion x = {.base = base, .size = size, .name = name};
    int status = terse_model_check_head(base, size, 0, &x.header_bytes, error);
    if (!status && !terse_expand_is_packed(base, size))
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "is not packed");
    const size_t data_start = terse_align(TERSE_MODEL_HEAD_BYTES + x.header_bytes + 8, TERSE_MODEL_ALIGNMENT);
    if (!status)
        status = walk(&x, data_start, error);
    if (!status)
        status = place(&x, data_start, error);
    if (status) {
        terse_expand_done(&x);
        return terse_error_prefix(error, "model '%s'", name);
    }
    *ret_expansion = x;
    return TERSE_OK;
}

void terse_expand_done(terse_expansion *expansion)
{
    free(expansion->parts);
    *expansion = (terse_expansion){0};
}

/* --- the plain file ----------------------------------------------------------------------------------------------- */

static int expand_winograd(const part *p, const uint8_t *stored, float *to, terse_error *error)
{
    const size_t bytes = (size_t)(p->n * p->c) * 9 * sizeof(float); /* fewer than p->bytes, which holds 36 */
    TERSE_AUTO(terse_freep) float *plain = malloc(bytes + 1);
    if (!plain)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", bytes);
    const int status =
        terse_encoding_unpack(p->encoding, stored, (size_t)p->stored, sizeof *plain, plain, bytes, error);
    if (!status)
        terse_winograd_expand(plain, p->n, p->c, to);
    return status;
}

static int expand_part(const terse_expansion *x, const part *p, uint8_t *image, terse_error *error)
{
    const uint8_t *stored = x->base + p->offset;
    const uint64_t found = XXH3_64bits(stored, (size_t)p->stored);
    if (found != p->xxh3)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "bytes have XXH3 %016" PRIx64 ", %016" PRIx64 " is stated",
                          found, p->xxh3);
    if (p->encoded && p->encoding.winograd)
        return expand_winograd(p, stored, (float *)(void *)(image + p->image_offset), error);
    if (p->encoded)
        return terse_encoding_unpack(p->encoding, stored, (size_t)p->stored, terse_dtype_size(p->dtype),
                                     image + p->image_offset, (size_t)p->bytes, error);
    if (p->bytes)
        memcpy(image + p->image_offset, stored, (size_t)p->bytes);
    return TERSE_OK;
}

int terse_expand_into(const terse_expansion *x, void *image, terse_error *error)
{
    uint8_t *to = image;
    memcpy(to, x->base, TERSE_MODEL_HEAD_BYTES + x->header_bytes);
    to[x->packed_at] = 0xc2; /* false */
    store(to + 16, x->bytes);
    memset(to + TERSE_MODEL_DIGEST_AT, 0, 32); /* the SHA-256 is the file's */
    for (size_t i = 0; i < x->n_parts; i++) {
        part *p = &x->parts[i];
        const int status = p->same_as == i ? expand_part(x, p, to, error) : TERSE_OK;
        if (status)
            return terse_error_prefix(error, "model '%s': tensor '%.*s'", x->name, p->name_length,
                                      p->name ? p->name : "");
        store_big(to + p->offset_at, p->image_offset);
        store_big(to + p->xxh3_at, XXH3_64bits(to + p->image_offset, (size_t)p->bytes));
    }
    store(to + TERSE_MODEL_HEAD_BYTES + x->header_bytes, XXH3_64bits(to + TERSE_MODEL_HEAD_BYTES, x->header_bytes));
    return TERSE_OK;
}
