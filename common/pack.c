/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pack.h"

#include <inttypes.h>
#include <string.h>

static uint64_t big_endian(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* What the first byte says: how many bytes of length or value follow it, and what they mean. */
typedef struct form {
    uint8_t type;  /* terse_pack_type */
    uint8_t bytes; /* of the value or the length after the first byte */
    uint8_t kind;  /* FORM_... */
} form;

enum { FORM_BAD, FORM_CONSTANT, FORM_UINT, FORM_INT, FORM_FLOAT, FORM_BYTES, FORM_EXT, FORM_FIXEXT, FORM_COUNT };

/* Rows for 0xc0..0xdf (msgpack specification, "Formats"); all other first bytes hold their value themselves. */
static const form forms[32] = {
    [0x00] = {TERSE_PACK_NIL, 0, FORM_CONSTANT},  [0x02] = {TERSE_PACK_BOOL, 0, FORM_CONSTANT},
    [0x03] = {TERSE_PACK_BOOL, 0, FORM_CONSTANT}, [0x04] = {TERSE_PACK_BIN, 1, FORM_BYTES},
    [0x05] = {TERSE_PACK_BIN, 2, FORM_BYTES},     [0x06] = {TERSE_PACK_BIN, 4, FORM_BYTES},
    [0x07] = {TERSE_PACK_EXT, 1, FORM_EXT},       [0x08] = {TERSE_PACK_EXT, 2, FORM_EXT},
    [0x09] = {TERSE_PACK_EXT, 4, FORM_EXT},       [0x0a] = {TERSE_PACK_FLOAT, 4, FORM_FLOAT},
    [0x0b] = {TERSE_PACK_FLOAT, 8, FORM_FLOAT},   [0x0c] = {TERSE_PACK_UINT, 1, FORM_UINT},
    [0x0d] = {TERSE_PACK_UINT, 2, FORM_UINT},     [0x0e] = {TERSE_PACK_UINT, 4, FORM_UINT},
    [0x0f] = {TERSE_PACK_UINT, 8, FORM_UINT},     [0x10] = {TERSE_PACK_INT, 1, FORM_INT},
    [0x11] = {TERSE_PACK_INT, 2, FORM_INT},       [0x12] = {TERSE_PACK_INT, 4, FORM_INT},
    [0x13] = {TERSE_PACK_INT, 8, FORM_INT},       [0x14] = {TERSE_PACK_EXT, 1, FORM_FIXEXT},
    [0x15] = {TERSE_PACK_EXT, 2, FORM_FIXEXT},    [0x16] = {TERSE_PACK_EXT, 4, FORM_FIXEXT},
    [0x17] = {TERSE_PACK_EXT, 8, FORM_FIXEXT},    [0x18] = {TERSE_PACK_EXT, 16, FORM_FIXEXT},
    [0x19] = {TERSE_PACK_STR, 1, FORM_BYTES},     [0x1a] = {TERSE_PACK_STR, 2, FORM_BYTES},
    [0x1b] = {TERSE_PACK_STR, 4, FORM_BYTES},     [0x1c] = {TERSE_PACK_ARRAY, 2, FORM_COUNT},
    [0x1d] = {TERSE_PACK_ARRAY, 4, FORM_COUNT},   [0x1e] = {TERSE_PACK_MAP, 2, FORM_COUNT},
    [0x1f] = {TERSE_PACK_MAP, 4, FORM_COUNT},
};

/* Takes `length` payload bytes from `at` on, or refuses. */
static bool take_bytes(terse_pack_reader *reader, const uint8_t *at, terse_pack_type type, uint64_t length,
                       terse_pack_item *item)
{
    if (length > (uint64_t)(reader->end - at))
        return false;
    item->type = type;
    item->length = (uint32_t)length;
    item->data = (const char *)at;
    reader->at = at + length;
    return true;
}

/* Takes an array's or a map's head; each member needs one byte at least. */
static bool take_count(terse_pack_reader *reader, const uint8_t *at, terse_pack_type type, uint64_t count,
                       terse_pack_item *item)
{
    if ((type == TERSE_PACK_MAP ? 2 * count : count) > (uint64_t)(reader->end - at))
        return false;
    item->type = type;
    item->length = (uint32_t)count;
    reader->at = at;
    return true;
}

static bool take_number(terse_pack_reader *reader, const uint8_t *at, const form *f, terse_pack_item *item)
{
    const uint64_t value = big_endian(at, f->bytes);
    item->type = f->type;
    item->length = 0;
    reader->at = at + f->bytes;
    if (f->kind == FORM_UINT) {
        item->u = value;
    } else if (f->kind == FORM_INT) {
        /* Sign extension by shifting the sign to the top and back. */
        const unsigned shift = 64 - 8u * f->bytes;
        const int64_t number = (int64_t)(value << shift) >> shift;
        item->type = number < 0 ? TERSE_PACK_INT : TERSE_PACK_UINT;
        item->i = number;
    } else if (f->bytes == 4) {
        const uint32_t bits = (uint32_t)value;
        float number;
        memcpy(&number, &bits, sizeof number);
        item->f = (double)number;
    } else {
        memcpy(&item->f, &value, sizeof value);
    }
    return true;
}

static bool take_formed(terse_pack_reader *reader, uint8_t first, terse_pack_item *item)
{
    const form *f = &forms[first - 0xc0];
    const uint8_t *at = reader->at + 1;
    const size_t left = (size_t)(reader->end - at);
    if (f->kind == FORM_BAD)
        return false;
    if (f->kind == FORM_FIXEXT)
        return take_bytes(reader, at, f->type, 1u + f->bytes, item);
    if (left < f->bytes)
        return false;
    switch (f->kind) {
    case FORM_CONSTANT:
        item->type = f->type;
        item->length = 0;
        item->u = 0;
        item->boolean = first == 0xc3;
        reader->at = at;
        return true;
    case FORM_BYTES:
        return take_bytes(reader, at + f->bytes, f->type, big_endian(at, f->bytes), item);
    case FORM_EXT: /* the ext type is one byte more, in front of the payload */
        return take_bytes(reader, at + f->bytes, f->type, 1 + big_endian(at, f->bytes), item);
    case FORM_COUNT:
        return take_count(reader, at + f->bytes, f->type, big_endian(at, f->bytes), item);
    default:
        return take_number(reader, at, f, item);
    }
}

bool terse_pack_next(terse_pack_reader *reader, terse_pack_item *ret_item)
{
    if (reader->at >= reader->end)
        return false;
    const uint8_t first = *reader->at;
    if (first < 0x80 || first >= 0xe0) {
        ret_item->type = first < 0x80 ? TERSE_PACK_UINT : TERSE_PACK_INT;
        ret_item->length = 0;
        ret_item->i = (int8_t)first;
        reader->at++;
        return true;
    }
    if (first < 0x90)
        return take_count(reader, reader->at + 1, TERSE_PACK_MAP, first & 15u, ret_item);
    if (first < 0xa0)
        return take_count(reader, reader->at + 1, TERSE_PACK_ARRAY, first & 15u, ret_item);
    if (first < 0xc0)
        return take_bytes(reader, reader->at + 1, TERSE_PACK_STR, first & 31u, ret_item);
    return take_formed(reader, first, ret_item);
}

static uint64_t members(const terse_pack_item *item)
{
    if (item->type == TERSE_PACK_ARRAY)
        return item->length;
    return item->type == TERSE_PACK_MAP ? 2 * (uint64_t)item->length : 0;
}

bool terse_pack_skip(terse_pack_reader *reader)
{
    terse_pack_reader ahead = *reader;
    terse_pack_item item;
    /* Every item takes a byte, so that this ends; a sum of claims beyond the bytes left fails early. */
    for (uint64_t pending = 1; pending > 0; pending--) {
        if (pending > (uint64_t)(ahead.end - ahead.at) || !terse_pack_next(&ahead, &item))
            return false;
        pending += members(&item);
    }
    *reader = ahead;
    return true;
}

const char *terse_pack_type_name(terse_pack_type type)
{
    static const char *const names[] = {"nil",      "a boolean",   "an integer", "a negative integer", "a float",
                                        "a string", "binary data", "an ext",     "an array",           "a map"};
    return (unsigned)type < sizeof names / sizeof names[0] ? names[type] : "an unknown type";
}

int terse_pack_check(const void *data, size_t size, uint32_t max_items, unsigned max_depth, size_t *ret_used,
                     terse_error *error)
{
    terse_pack_reader reader = terse_pack_reader_over(data, size);
    uint64_t open[TERSE_PACK_MAX_DEPTH]; /* members still to come, per nested container */
    unsigned depth = 0;
    terse_pack_item item;
    if (max_depth > TERSE_PACK_MAX_DEPTH)
        max_depth = TERSE_PACK_MAX_DEPTH;
    for (uint32_t n = 0;; n++) {
        const size_t offset = (size_t)(reader.at - (const uint8_t *)data);
        if (n >= max_items)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "msgpack has more than %" PRIu32 " items", max_items);
        if (!terse_pack_next(&reader, &item))
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "msgpack item %" PRIu32 " at byte %zu is invalid or passes the end at byte %zu", n,
                              offset, size);
        const uint64_t count = members(&item);
        if (count > 0) {
            if (depth >= max_depth)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "msgpack at byte %zu nests deeper than %u levels",
                                  offset, max_depth);
            open[depth++] = count;
            continue;
        }
        while (depth > 0 && --open[depth - 1] == 0)
            depth--;
        if (depth == 0)
            break;
    }
    if (ret_used)
        *ret_used = (size_t)(reader.at - (const uint8_t *)data);
    return TERSE_OK;
}

int terse_pack_unpack(const void *data, size_t size, uint32_t max_items, msgpack_zone *zone, msgpack_object *ret_object,
                      terse_error *error)
{
    size_t used = 0;
    const int status = terse_pack_check(data, size, max_items, TERSE_PACK_MAX_DEPTH, &used, error);
    if (status)
        return status;
    if (used != size)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "msgpack ends at byte %zu, %zu bytes were given", used, size);
    size_t offset = 0;
    msgpack_object object;
    if (msgpack_unpack((const char *)data, size, &offset, zone, &object) != MSGPACK_UNPACK_SUCCESS)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for a msgpack value of %zu bytes", size);
    *ret_object = object;
    return TERSE_OK;
}

const msgpack_object *terse_pack_find(const msgpack_object *map, const char *key)
{
    if (!map || map->type != MSGPACK_OBJECT_MAP)
        return NULL;
    const size_t length = strlen(key);
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *name = &map->via.map.ptr[i].key;
        if (name->type == MSGPACK_OBJECT_STR && name->via.str.size == length &&
            memcmp(name->via.str.ptr, key, length) == 0)
            return &map->via.map.ptr[i].val;
    }
    return NULL;
}

int terse_pack_unique_keys(const msgpack_object *map, terse_error *error)
{
    if (map->type != MSGPACK_OBJECT_MAP)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "a value is no map");
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *name = &map->via.map.ptr[i].key;
        if (name->type != MSGPACK_OBJECT_STR)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "key %" PRIu32 " of a map is no string", i);
        for (uint32_t j = 0; j < i; j++) {
            const msgpack_object *other = &map->via.map.ptr[j].key;
            if (other->via.str.size == name->via.str.size &&
                memcmp(other->via.str.ptr, name->via.str.ptr, name->via.str.size) == 0)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%.*s' is there twice",
                                  (int)(name->via.str.size < 100 ? name->via.str.size : 100), name->via.str.ptr);
        }
    }
    return TERSE_OK;
}

static int get(const msgpack_object *map, const char *key, const msgpack_object **ret_value, terse_error *error)
{
    *ret_value = terse_pack_find(map, key);
    if (!*ret_value)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%s' is missing", key);
    return TERSE_OK;
}

static int wrong_type(const char *key, const char *wanted, terse_error *error)
{
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%s' is not %s", key, wanted);
}

int terse_pack_get_u64(const msgpack_object *map, const char *key, uint64_t max, uint64_t *ret_value,
                       terse_error *error)
{
    const msgpack_object *value;
    const int status = get(map, key, &value, error);
    if (status)
        return status;
    if (value->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return wrong_type(key, "a non-negative integer", error);
    if (value->via.u64 > max)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%s' is %" PRIu64 ", at most %" PRIu64 " is allowed", key,
                          value->via.u64, max);
    *ret_value = value->via.u64;
    return TERSE_OK;
}

int terse_pack_get_i64(const msgpack_object *map, const char *key, int64_t min, int64_t max, int64_t *ret_value,
                       terse_error *error)
{
    const msgpack_object *value;
    const int status = get(map, key, &value, error);
    if (status)
        return status;
    if (value->type != MSGPACK_OBJECT_POSITIVE_INTEGER && value->type != MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return wrong_type(key, "an integer", error);
    if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER && value->via.u64 > INT64_MAX)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%s' is %" PRIu64 ", at most %" PRId64 " is allowed", key,
                          value->via.u64, max);
    if (value->via.i64 < min || value->via.i64 > max)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%s' is %" PRId64 ", allowed are %" PRId64 " to %" PRId64,
                          key, value->via.i64, min, max);
    *ret_value = value->via.i64;
    return TERSE_OK;
}

int terse_pack_get_f64(const msgpack_object *map, const char *key, double *ret_value, terse_error *error)
{
    const msgpack_object *value;
    const int status = get(map, key, &value, error);
    if (status)
        return status;
    switch (value->type) {
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        *ret_value = value->via.f64;
        return TERSE_OK;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        *ret_value = (double)value->via.u64;
        return TERSE_OK;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        *ret_value = (double)value->via.i64;
        return TERSE_OK;
    default:
        return wrong_type(key, "a number", error);
    }
}

int terse_pack_get_bool(const msgpack_object *map, const char *key, bool *ret_value, terse_error *error)
{
    const msgpack_object *value;
    const int status = get(map, key, &value, error);
    if (status)
        return status;
    if (value->type != MSGPACK_OBJECT_BOOLEAN)
        return wrong_type(key, "a boolean", error);
    *ret_value = value->via.boolean;
    return TERSE_OK;
}

int terse_pack_get_str(const msgpack_object *map, const char *key, size_t max_length, const char **ret_text,
                       size_t *ret_length, terse_error *error)
{
    const msgpack_object *value;
    const int status = get(map, key, &value, error);
    if (status)
        return status;
    if (value->type != MSGPACK_OBJECT_STR)
        return wrong_type(key, "a string", error);
    if (value->via.str.size > max_length)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%s' has %" PRIu32 " bytes, at most %zu are allowed", key,
                          value->via.str.size, max_length);
    if (value->via.str.size > 0 && memchr(value->via.str.ptr, 0, value->via.str.size))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%s' holds a string with a zero byte", key);
    *ret_text = value->via.str.ptr;
    *ret_length = value->via.str.size;
    return TERSE_OK;
}

int terse_pack_get_bin(const msgpack_object *map, const char *key, size_t max_size, const void **ret_data,
                       size_t *ret_size, terse_error *error)
{
    const msgpack_object *value;
    const int status = get(map, key, &value, error);
    if (status)
        return status;
    if (value->type != MSGPACK_OBJECT_BIN)
        return wrong_type(key, "binary data", error);
    if (value->via.bin.size > max_size)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "key '%s' has %" PRIu32 " bytes, at most %zu are allowed", key,
                          value->via.bin.size, max_size);
    *ret_data = value->via.bin.ptr;
    *ret_size = value->via.bin.size;
    return TERSE_OK;
}

int terse_pack_get_array(const msgpack_object *map, const char *key, uint32_t max_length,
                         const msgpack_object_array **ret_array, terse_error *error)
{
    const msgpack_object *value;
    const int status = get(map, key, &value, error);
    if (status)
        return status;
    if (value->type != MSGPACK_OBJECT_ARRAY)
        return wrong_type(key, "an array", error);
    if (value->via.array.size > max_length)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "key '%s' has %" PRIu32 " items, at most %" PRIu32 " are allowed", key, value->via.array.size,
                          max_length);
    *ret_array = &value->via.array;
    return TERSE_OK;
}

int terse_pack_get_map(const msgpack_object *map, const char *key, const msgpack_object **ret_map, terse_error *error)
{
    const msgpack_object *value;
    const int status = get(map, key, &value, error);
    if (status)
        return status;
    if (value->type != MSGPACK_OBJECT_MAP)
        return wrong_type(key, "a map", error);
    *ret_map = value;
    return TERSE_OK;
}

int terse_pack_buffer_write(void *buffer, const char *data, size_t length)
{
    terse_pack_buffer *to = (terse_pack_buffer *)buffer;
    if (to->full || length > to->capacity - to->size) {
        to->full = true;
        return -1;
    }
    memcpy(to->data + to->size, data, length);
    to->size += length;
    return 0;
}

void terse_pack_str(msgpack_packer *packer, const char *text, size_t length)
{
    msgpack_pack_str(packer, length);
    msgpack_pack_str_body(packer, text, length);
}

void terse_pack_cstr(msgpack_packer *packer, const char *text)
{
    terse_pack_str(packer, text, strlen(text));
}

void terse_pack_bin(msgpack_packer *packer, const void *data, size_t size)
{
    msgpack_pack_bin(packer, size);
    msgpack_pack_bin_body(packer, data, size);
}
