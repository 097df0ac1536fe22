/* SPDX-License-Identifier: Apache-2.0 */
/* pack.h: msgpack from outside, read without trusting one claimed length; and small helpers over msgpack-c.
 * Runs in: every program. Owns nothing: readers and buffers point into bytes of the caller.
 *
 * msgpack-c 4.0.0 allocates what a length header claims, so bytes from outside are either walked by the reader
 * below, which allocates nothing, or checked by terse_pack_check before msgpack-c unpacks them. */
#ifndef TERSE_COMMON_PACK_H
#define TERSE_COMMON_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <msgpack.h>

#include "common/status.h"

/* --- a reader: one item at a time from bytes that may lie ------------------------------------------------- */

typedef enum terse_pack_type {
    TERSE_PACK_NIL,
    TERSE_PACK_BOOL,
    TERSE_PACK_UINT, /* every integer that is not negative, however it was written */
    TERSE_PACK_INT,  /* a negative integer */
    TERSE_PACK_FLOAT,
    TERSE_PACK_STR,
    TERSE_PACK_BIN,
    TERSE_PACK_EXT,
    TERSE_PACK_ARRAY,
    TERSE_PACK_MAP,
} terse_pack_type;

typedef struct terse_pack_item {
    terse_pack_type type;
    uint32_t length; /* STR, BIN, EXT: bytes at `data`; ARRAY: items that follow; MAP: key-value pairs that follow */
    union {
        bool boolean;
        uint64_t u;
        int64_t i;
        double f;
        const char *data; /* points into the reader's bytes, no final 0 */
    };
} terse_pack_item;

typedef struct terse_pack_reader {
    const uint8_t *at, *end;
} terse_pack_reader;

static inline terse_pack_reader terse_pack_reader_over(const void *data, size_t size)
{
    const uint8_t *bytes = (const uint8_t *)data;
    return (terse_pack_reader){.at = bytes, .end = bytes + size};
}

/* Reads the next item. Payloads of STR, BIN and EXT are passed over; the members of an ARRAY or a MAP come with
 * the next calls, and there are bytes left for all of them (one at least for each). false at the end of the
 * bytes, for a length beyond them and for the byte that msgpack never uses; the reader then stays put. */
bool terse_pack_next(terse_pack_reader *reader, terse_pack_item *ret_item);
/* Passes over one value with all that it contains, however deep. false as above. */
bool terse_pack_skip(terse_pack_reader *reader);
/* "a string", "an integer" ...: for messages. */
const char *terse_pack_type_name(terse_pack_type type);

/* Keys are short and compared at every turn: two words that may overlap, where a call would cost more. */
static inline bool terse_pack_same(const char *a, const char *b, size_t length)
{
    uint64_t a8[2], b8[2];
    uint32_t a4[2], b4[2];
    if (length > 16)
        return memcmp(a, b, length) == 0;
    if (length >= 8) {
        memcpy(&a8[0], a, 8);
        memcpy(&a8[1], a + length - 8, 8);
        memcpy(&b8[0], b, 8);
        memcpy(&b8[1], b + length - 8, 8);
        return ((a8[0] ^ b8[0]) | (a8[1] ^ b8[1])) == 0;
    }
    if (length >= 4) {
        memcpy(&a4[0], a, 4);
        memcpy(&a4[1], a + length - 4, 4);
        memcpy(&b4[0], b, 4);
        memcpy(&b4[1], b + length - 4, 4);
        return ((a4[0] ^ b4[0]) | (a4[1] ^ b4[1])) == 0;
    }
    return length == 0 || (a[0] == b[0] && a[length / 2] == b[length / 2] && a[length - 1] == b[length - 1]);
}

static inline bool terse_pack_is(const terse_pack_item *item, const char *text, size_t length)
{
    return item->type == TERSE_PACK_STR && item->length == length && terse_pack_same(item->data, text, length);
}

/* --- over msgpack-c: for headers that are read once (model files) ------------------------------------------ */

enum { TERSE_PACK_MAX_DEPTH = 24 }; /* msgpack-c's own stack ends at 32 */

/* Walks one value: every length fits the bytes left, at most `max_items` items and `max_depth` nested arrays
 * and maps (<= TERSE_PACK_MAX_DEPTH). *ret_used (may be NULL) gets its bytes. INVALID_ARGUMENT otherwise. */
int terse_pack_check(const void *data, size_t size, uint32_t max_items, unsigned max_depth, size_t *ret_used,
                     terse_error *error);
/* terse_pack_check, then msgpack-c's unpacking. Bytes behind the value are refused. The object lives in `zone`
 * and points into `data`: both must outlive it. */
int terse_pack_unpack(const void *data, size_t size, uint32_t max_items, msgpack_zone *zone, msgpack_object *ret_object,
                      terse_error *error);

/* The value of a key; NULL when it is absent or `map` is no map. A key that is there twice gives the first. */
const msgpack_object *terse_pack_find(const msgpack_object *map, const char *key);
/* Fails when any key of the map is no string or is there twice. */
int terse_pack_unique_keys(const msgpack_object *map, terse_error *error);

/* Typed getters. An absent key, a wrong type and a value out of range are INVALID_ARGUMENT with a message that
 * names key, found and allowed. Find first where a key is optional. */
int terse_pack_get_u64(const msgpack_object *map, const char *key, uint64_t max, uint64_t *ret_value,
                       terse_error *error);
int terse_pack_get_i64(const msgpack_object *map, const char *key, int64_t min, int64_t max, int64_t *ret_value,
                       terse_error *error);
int terse_pack_get_f64(const msgpack_object *map, const char *key, double *ret_value, terse_error *error);
int terse_pack_get_bool(const msgpack_object *map, const char *key, bool *ret_value, terse_error *error);
/* Strings may not contain the byte 0. The view has no final 0. */
int terse_pack_get_str(const msgpack_object *map, const char *key, size_t max_length, const char **ret_text,
                       size_t *ret_length, terse_error *error);
int terse_pack_get_bin(const msgpack_object *map, const char *key, size_t max_size, const void **ret_data,
                       size_t *ret_size, terse_error *error);
int terse_pack_get_array(const msgpack_object *map, const char *key, uint32_t max_length,
                         const msgpack_object_array **ret_array, terse_error *error);
int terse_pack_get_map(const msgpack_object *map, const char *key, const msgpack_object **ret_map, terse_error *error);

/* --- writing ---------------------------------------------------------------------------------------------- */

/* A buffer of fixed size for msgpack_packer_init(&packer, &buffer, terse_pack_buffer_write): what does not fit is
 * refused, and `full` stays set, so that one check at the end is enough. */
typedef struct terse_pack_buffer {
    uint8_t *data;
    size_t capacity, size;
    bool full;
} terse_pack_buffer;
int terse_pack_buffer_write(void *buffer, const char *data, size_t length);

void terse_pack_str(msgpack_packer *packer, const char *text, size_t length);
void terse_pack_cstr(msgpack_packer *packer, const char *text); /* keys and other strings that end with 0 */
void terse_pack_bin(msgpack_packer *packer, const void *data, size_t size);

#endif
