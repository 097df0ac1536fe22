/* SPDX-License-Identifier: Apache-2.0 */
/* read_json.h: a JSON text as a tree: plans that people have changed.
 * Runs in: terse-compress (and the tests). Ownership: the tree lies in the arena that is given. */
#ifndef TERSE_SEARCH_READ_JSON_H
#define TERSE_SEARCH_READ_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "common/bytes.h"

typedef enum terse_json_kind {
    TERSE_JSON_NULL,
    TERSE_JSON_BOOL,
    TERSE_JSON_NUMBER,
    TERSE_JSON_TEXT,
    TERSE_JSON_ARRAY,
    TERSE_JSON_OBJECT
} terse_json_kind;

typedef struct terse_json_value {
    terse_json_kind kind;
    const char *name;                      /* of a member, else NULL */
    bool truth;                            /* BOOL */
    double number;                         /* NUMBER */
    const char *text;                      /* TEXT: UTF-8; escapes are resolved, a zero in it is refused */
    struct terse_json_value *first, *next; /* of ARRAY and OBJECT; the next of the same list */
    int line;                              /* where it begins */
} terse_json_value;

/* RFC 8259, at most 32 deep; INVALID_ARGUMENT says in which line what is wrong. Names may come twice: the first one is
 * found. */
int terse_read_json(const char *text, size_t length, terse_arena *arena, terse_json_value **ret_value,
                    terse_error *error);
/* A member of an object, NULL when there is none. */
const terse_json_value *terse_read_json_find(const terse_json_value *object, const char *name);
/* "a number", for messages */
const char *terse_read_json_kind(terse_json_kind kind);

#endif
