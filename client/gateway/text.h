/* SPDX-License-Identifier: Apache-2.0 */
/* text.h: bytes that grow at their end: a body that comes in, an answer that is put together.
 * Runs in: terse-gateway. A text owns its bytes until terse_text_take gives them away.
 *
 * Writing never fails at once: when memory is out the text is `broken`, takes nothing more, and one check at the end is
 * enough. */
#ifndef TERSE_GATEWAY_TEXT_H
#define TERSE_GATEWAY_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct terse_text {
    char *data;
    size_t size, capacity;
    bool broken;
} terse_text;

void terse_text_free(terse_text *text);
/* Room for `bytes` more at data + size; NULL when memory is out. What is written there counts when size says so. */
char *terse_text_room(terse_text *text, size_t bytes);
/* The bytes, which are the caller's to free; the text is empty then. */
char *terse_text_take(terse_text *text, size_t *ret_size);

static inline void terse_text_put(terse_text *text, const void *data, size_t bytes)
{
    char *to = terse_text_room(text, bytes);
    if (to && bytes) {
        memcpy(to, data, bytes);
        text->size += bytes;
    }
}
void terse_text_cstr(terse_text *text, const char *words);
void terse_text_format(terse_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes; bytes that are no UTF-8 become '?'. */
void terse_text_json(terse_text *text, const char *words);

#endif
