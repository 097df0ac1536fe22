/* SPDX-License-Identifier: Apache-2.0 */
#include "common/wire_walk.h"

#include <inttypes.h>
#include <string.h>

/* --- items ------------------------------------------------------------------------------------------------- */

/* How many bytes from the first on are ASCII and not zero, as far as eight at a time tell. */
static size_t walk_ascii(const uint8_t *s, size_t length)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    size_t i = 0;
    for (uint64_t word; i + sizeof word <= length; i += sizeof word) {
        memcpy(&word, s + i, sizeof word);
        if (((word | (word - ones)) & tops) != 0)
            break;
    }
    return i;
}

/* How many bytes of well-formed UTF-8 (Unicode 15, table 3-7) without a zero byte begin `text`. */
size_t terse_wire_walk_utf8(const char *text, size_t length)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t i = walk_ascii(s, length);
    while (i < length) {
        const uint8_t c = s[i];
        if (c == 0)
            break;
        if (c < 0x80) {
            i++;
            continue;
        }
        const unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || length - i <= more)
            break;
        const uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
        const uint8_t high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        if (s[i + 1] < low || s[i + 1] > high)
            break;
        unsigned k = 2;
        while (k <= more && (s[i + k] & 0xc0) == 0x80)
            k++;
        if (k <= more)
            break;
        i += 1 + more;
    }
    return i;
}

static int cut_off(terse_wire_walk *w)
{
    return terse_fail(w->error, TERSE_INVALID_ARGUMENT,
                      "the header is no valid msgpack: a value is cut off or claims more than the %zu bytes left",
                      (size_t)(w->reader.end - w->reader.at));
}

int terse_wire_walk_item(terse_wire_walk *w, terse_pack_item *item)
{
    return terse_pack_next(&w->reader, item) ? TERSE_OK : cut_off(w);
}

int terse_wire_walk_wrong(terse_wire_walk *w, const char *key, const terse_pack_item *found, const char *allowed)
{
    return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key '%s' is %s, allowed is %s", key,
                      terse_pack_type_name(found->type), allowed);
}

int terse_wire_walk_key_of(terse_wire_walk *w, const terse_wire_walk_key *keys, size_t n_keys, uint32_t *seen,
                           int *ret_index)
{
    terse_pack_item item;
    const terse_pack_reader start = w->reader;
    /* Our own writers keep the order of the tables: the next key is most likely the one behind the last. */
    const size_t likely = *seen ? 32u - (unsigned)__builtin_clz(*seen) : 0;
    const size_t left = (size_t)(start.end - start.at);
    if (likely < n_keys && keys[likely].length < 32 && left > keys[likely].length &&
        start.at[0] == (0xa0 | keys[likely].length) &&
        terse_pack_same((const char *)start.at + 1, keys[likely].name, keys[likely].length)) {
        w->reader.at += 1 + keys[likely].length;
        *seen |= UINT32_C(1) << likely;
        *ret_index = (int)likely;
        return TERSE_OK;
    }
    const int status = terse_wire_walk_item(w, &item);
    if (status)
        return status;
    if (item.type == TERSE_PACK_STR)
        for (size_t k = 0; k < n_keys; k++) {
            const size_t i = likely + k < n_keys ? likely + k : likely + k - n_keys;
            if (!terse_pack_is(&item, keys[i].name, keys[i].length))
                continue;
            if (*seen & UINT32_C(1) << i)
                return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key '%s' is there twice", keys[i].name);
            *seen |= UINT32_C(1) << i;
            *ret_index = (int)i;
            return TERSE_OK;
        }
    w->reader = start;
    *ret_index = -1;
    if (terse_pack_skip(&w->reader) && terse_pack_skip(&w->reader))
        return TERSE_OK;
    return cut_off(w);
}

int terse_wire_walk_u64(terse_wire_walk *w, const char *key, uint64_t max, uint64_t *ret_value, bool *ret_there)
{
    terse_pack_item item;
    const uint8_t *from = w->reader.at;
    const int status = terse_wire_walk_item(w, &item);
    if (status || item.type == TERSE_PACK_NIL)
        return status;
    if (item.type != TERSE_PACK_UINT)
        return terse_wire_walk_wrong(w, key, &item, "an integer from 0 on");
    if (w->form && max == UINT64_MAX)
        terse_wire_walk_mark(w, from, ret_value, TERSE_WIRE_HOLE_U64);
    if (item.u > max)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key '%s' is %" PRIu64 ", allowed are 0 to %" PRIu64, key,
                          item.u, max);
    *ret_value = item.u;
    *ret_there = true;
    return TERSE_OK;
}

int terse_wire_walk_u32(terse_wire_walk *w, const char *key, uint32_t max, uint32_t *ret_value, bool *ret_there)
{
    uint64_t value = *ret_value;
    const int status = terse_wire_walk_u64(w, key, max, &value, ret_there);
    *ret_value = (uint32_t)value;
    return status;
}

int terse_wire_walk_bool(terse_wire_walk *w, const char *key, bool *ret_value, bool *ret_there)
{
    terse_pack_item item;
    const int status = terse_wire_walk_item(w, &item);
    if (status || item.type == TERSE_PACK_NIL)
        return status;
    if (item.type != TERSE_PACK_BOOL)
        return terse_wire_walk_wrong(w, key, &item, "a boolean");
    *ret_value = item.boolean;
    *ret_there = true;
    return TERSE_OK;
}

int terse_wire_walk_count(terse_wire_walk *w, const char *key, uint32_t *ret_value, bool *ret_there)
{
    terse_pack_reader ahead = w->reader;
    terse_pack_item item;
    if (terse_pack_next(&ahead, &item) && item.type == TERSE_PACK_ARRAY && terse_pack_skip(&w->reader))
        return TERSE_OK;
    return terse_wire_walk_u32(w, key, UINT32_MAX, ret_value, ret_there);
}

static int check_text(terse_wire_walk *w, const char *key, const terse_pack_item *item, uint32_t most,
                      terse_wire_text *ret_text)
{
    if (item->length > most)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key '%s' has %" PRIu32 " bytes, allowed are %" PRIu32, key,
                          item->length, most);
    const size_t good = terse_wire_walk_utf8(item->data, item->length);
    if (good != item->length)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key '%s' is no UTF-8 without zero bytes (byte %zu)", key,
                          good);
    *ret_text = (terse_wire_text){item->data, item->length};
    return TERSE_OK;
}

static int take_text(terse_wire_walk *w, const char *key, uint32_t most, terse_wire_text *ret_text)
{
    terse_pack_item item;
    const int status = terse_wire_walk_item(w, &item);
    if (status || item.type == TERSE_PACK_NIL)
        return status;
    if (item.type != TERSE_PACK_STR)
        return terse_wire_walk_wrong(w, key, &item, "a string");
    return check_text(w, key, &item, most, ret_text);
}

int terse_wire_walk_text(terse_wire_walk *w, const char *key, terse_wire_text *ret_text)
{
    return take_text(w, key, TERSE_WIRE_MAX_TEXT, ret_text);
}

int terse_wire_walk_path(terse_wire_walk *w, const char *key, terse_wire_text *ret_text)
{
    return take_text(w, key, TERSE_WIRE_MAX_PATH, ret_text);
}

int terse_wire_walk_container(terse_wire_walk *w, const char *key, terse_pack_type type, uint32_t max, uint32_t *ret_n,
                              bool *ret_there)
{
    terse_pack_item item;
    const int status = terse_wire_walk_item(w, &item);
    if (status || item.type == TERSE_PACK_NIL)
        return status;
    if (item.type != type)
        return terse_wire_walk_wrong(w, key, &item, terse_pack_type_name(type));
    if (item.length > max)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key '%s' has %" PRIu32 " entries, allowed are %" PRIu32,
                          key, item.length, max);
    *ret_n = item.length;
    *ret_there = true;
    return TERSE_OK;
}

/* --- tensors ----------------------------------------------------------------------------------------------- */

static int take_shm(terse_wire_walk *w, terse_wire_tensor *tensor)
{
    static const terse_wire_walk_key keys[] = {TERSE_WIRE_WALK_KEY("offset"), TERSE_WIRE_WALK_KEY("size")};
    uint32_t n = 0, seen = 0;
    bool there = false, unused;
    int status = terse_wire_walk_container(w, "shm", TERSE_PACK_MAP, TERSE_WIRE_WALK_ANY_KEYS, &n, &there);
    for (uint32_t i = 0; !status && i < n; i++) {
        int index = -1;
        status = terse_wire_walk_key_of(w, keys, sizeof keys / sizeof keys[0], &seen, &index);
        if (!status && index == 0)
            status = terse_wire_walk_u64(w, "offset", UINT64_MAX, &tensor->shm_offset, &unused);
        else if (!status && index == 1)
            status = terse_wire_walk_u64(w, "size", UINT64_MAX, &tensor->shm_size, &unused);
    }
    if (!status && there && seen != 3)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key 'shm' lacks 'offset' or 'size'");
    tensor->has_shm = there;
    return status;
}

static int take_dim(terse_wire_walk *w, bool symbols, terse_wire_tensor *tensor, uint32_t axis)
{
    terse_pack_item item;
    const int status = terse_wire_walk_item(w, &item);
    if (status)
        return status;
    if (symbols && item.type == TERSE_PACK_STR) {
        tensor->dims[axis] = -1;
        return check_text(w, "shape", &item, TERSE_WIRE_MAX_TEXT, &tensor->symbols[axis]);
    }
    if (item.type != TERSE_PACK_UINT || item.u > INT64_MAX)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT,
                          "dimension %" PRIu32 " of 'shape' is %s, allowed is an integer from 0 to %" PRId64, axis,
                          item.type == TERSE_PACK_UINT ? "too large" : terse_pack_type_name(item.type), INT64_MAX);
    tensor->dims[axis] = item.i;
    tensor->symbols[axis] = (terse_wire_text){NULL, 0};
    return TERSE_OK;
}

static int take_shape(terse_wire_walk *w, bool symbols, terse_wire_tensor *tensor)
{
    uint32_t rank = 0;
    bool there = false;
    int status = terse_wire_walk_container(w, "shape", TERSE_PACK_ARRAY, TERSE_MAX_RANK, &rank, &there);
    for (uint32_t axis = 0; !status && axis < rank; axis++)
        status = take_dim(w, symbols, tensor, axis);
    if (!status && there)
        tensor->rank = (int)rank;
    return status;
}

static int take_dtype(terse_wire_walk *w, terse_wire_tensor *tensor)
{
    terse_wire_text name = {NULL, 0};
    const int status = terse_wire_walk_text(w, "dtype", &name);
    if (status || !name.data)
        return status;
    tensor->dtype = terse_dtype_from_name(name.data, name.length);
    if (tensor->dtype == TERSE_DTYPE_NONE)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "dtype '%.*s' is not known (FP32, INT64, UINT8 ...)",
                          (int)(name.length < 40 ? name.length : 40), name.data);
    return TERSE_OK;
}

static int take_tensor(terse_wire_walk *w, terse_wire_walk_role role, terse_wire_tensor *tensor)
{
    static const terse_wire_walk_key keys[] = {TERSE_WIRE_WALK_KEY("name"), TERSE_WIRE_WALK_KEY("dtype"),
                                               TERSE_WIRE_WALK_KEY("shape"), TERSE_WIRE_WALK_KEY("frame"),
                                               TERSE_WIRE_WALK_KEY("shm")};
    uint32_t n = 0, seen = 0;
    bool there = false;
    terse_wire_tensor_init(tensor);
    tensor->name.data = NULL;
    int status = terse_wire_walk_container(w, "tensor", TERSE_PACK_MAP, TERSE_WIRE_WALK_ANY_KEYS, &n, &there);
    for (uint32_t i = 0; !status && i < n; i++) {
        int index = -1;
        status = terse_wire_walk_key_of(w, keys, sizeof keys / sizeof keys[0], &seen, &index);
        if (status || index < 0)
            continue;
        bool unused;
        switch (index) {
        case 0:
            status = terse_wire_walk_text(w, "name", &tensor->name);
            break;
        case 1:
            status = take_dtype(w, tensor);
            break;
        case 2:
            status = take_shape(w, role == TERSE_WIRE_WALK_SIGNATURE, tensor);
            break;
        case 3:
            status = terse_wire_walk_u32(w, "frame", UINT32_MAX, &tensor->frame, &unused);
            break;
        default:
            status = take_shm(w, tensor);
        }
    }
    if (status)
        return status;
    if (!tensor->name.data)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key 'name' is missing");
    if (role != TERSE_WIRE_WALK_WISH && (tensor->dtype == TERSE_DTYPE_NONE || tensor->rank < 0))
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "key '%s' is missing",
                          tensor->dtype == TERSE_DTYPE_NONE ? "dtype" : "shape");
    return TERSE_OK;
}

int terse_wire_walk_tensors(terse_wire_walk *w, const char *key, terse_wire_walk_role role, terse_wire_tensor *tensors,
                            uint32_t *ret_n, bool *ret_there)
{
    uint32_t n = 0;
    int status = terse_wire_walk_container(w, key, TERSE_PACK_ARRAY, TERSE_WIRE_MAX_IO, &n, ret_there);
    for (uint32_t i = 0; !status && i < n; i++) {
        status = take_tensor(w, role, &tensors[i]);
        if (status)
            terse_error_prefix(w->error, "%s[%" PRIu32 "]", key, i);
    }
    if (!status)
        *ret_n = n;
    return status;
}
