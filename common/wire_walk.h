/* SPDX-License-Identifier: Apache-2.0 */
/* wire_walk.h: one pass over a msgpack header, for wire.c and wire_form.c alone: keys against a table, typed values,
 * lists of tensors. Runs in: clients (libterse), frontend. Owns nothing: texts point into the bytes that are walked.
 *
 * All return TERSE_OK or INVALID_ARGUMENT with a message. nil counts as absent: the value and *ret_there stay as they
 * are. */
#ifndef TERSE_COMMON_WIRE_WALK_H
#define TERSE_COMMON_WIRE_WALK_H

#include "common/wire.h"

typedef struct terse_wire_walk {
    terse_pack_reader reader;
    terse_error *error;
    terse_wire_form *form; /* learns where the values lie that differ from header to header; NULL: nobody does */
    void *values;          /* the request or the reply that is read, and its size: where such values are */
    size_t values_bytes;
} terse_wire_walk;

/* The value from `from` to the reader's place goes to `value`. */
void terse_wire_walk_mark(terse_wire_walk *w, const uint8_t *from, const void *value, terse_wire_hole_kind kind);

/* Whole headers: terse_wire_decode_request and terse_wire_decode_reply, for a form that learns. */
int terse_wire_walk_request(const void *header, size_t size, terse_wire_form *form, terse_wire_request *request,
                            terse_error *error);
int terse_wire_walk_reply(const void *header, size_t size, terse_wire_form *form, terse_wire_reply *reply,
                          terse_error *error);

/* A known key of a map; its place in the table is its number and its bit in `seen`. */
typedef struct terse_wire_walk_key {
    const char *name;
    uint32_t length;
} terse_wire_walk_key;

#define TERSE_WIRE_WALK_KEY(text)                                                                                      \
    {                                                                                                                  \
        text, sizeof text - 1                                                                                          \
    }

enum { TERSE_WIRE_WALK_ANY_KEYS = 1 << 16 }; /* keys of a map: as many as the bytes hold */

/* What a list of tensors holds: wishes of a request may be bare names, signatures may have symbols for dimensions. */
typedef enum terse_wire_walk_role {
    TERSE_WIRE_WALK_FULL,
    TERSE_WIRE_WALK_WISH,
    TERSE_WIRE_WALK_SIGNATURE
} terse_wire_walk_role;

int terse_wire_walk_item(terse_wire_walk *w, terse_pack_item *item);
int terse_wire_walk_wrong(terse_wire_walk *w, const char *key, const terse_pack_item *found, const char *allowed);
/* Reads the next key. *ret_index is its row in `keys`, or -1 after a stranger was passed over with its value. */
int terse_wire_walk_key_of(terse_wire_walk *w, const terse_wire_walk_key *keys, size_t n_keys, uint32_t *seen,
                           int *ret_index);
int terse_wire_walk_u64(terse_wire_walk *w, const char *key, uint64_t max, uint64_t *ret_value, bool *ret_there);
int terse_wire_walk_u32(terse_wire_walk *w, const char *key, uint32_t max, uint32_t *ret_value, bool *ret_there);
int terse_wire_walk_bool(terse_wire_walk *w, const char *key, bool *ret_value, bool *ret_there);
int terse_wire_walk_text(terse_wire_walk *w, const char *key, terse_wire_text *ret_text);
/* A text of up to TERSE_WIRE_MAX_PATH bytes. */
int terse_wire_walk_path(terse_wire_walk *w, const char *key, terse_wire_text *ret_text);
/* A number; an array in its place is passed over. */
int terse_wire_walk_count(terse_wire_walk *w, const char *key, uint32_t *ret_value, bool *ret_there);
/* Begins an array or a map of at most `max` members (for a map: pairs). */
int terse_wire_walk_container(terse_wire_walk *w, const char *key, terse_pack_type type, uint32_t max, uint32_t *ret_n,
                              bool *ret_there);
int terse_wire_walk_tensors(terse_wire_walk *w, const char *key, terse_wire_walk_role role, terse_wire_tensor *tensors,
                            uint32_t *ret_n, bool *ret_there);

/* How many bytes of well-formed UTF-8 without a zero byte begin `text`. */
size_t terse_wire_walk_utf8(const char *text, size_t length);

#endif
