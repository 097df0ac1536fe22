/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"

enum { FIRST = 1024 };

void terse_text_free(terse_text *text)
{
    free(text->data);
    *text = (terse_text){0};
}

char *terse_text_room(terse_text *text, size_t bytes)
{
    if (text->broken || bytes > SIZE_MAX / 4 - text->size)
        text->broken = true;
    else if (!text->data || text->size + bytes > text->capacity) { /* room for nothing is a place too */
        size_t capacity = text->capacity ? text->capacity : FIRST;
        while (capacity < text->size + bytes)
            capacity *= 2;
        char *data = realloc(text->data, capacity);
        if (data) {
            text->data = data;
            text->capacity = capacity;
        }
        text->broken = !data;
    }
    return text->broken ? NULL : text->data + text->size;
}

char *terse_text_take(terse_text *text, size_t *ret_size)
{
    char *data = text->data;
    *ret_size = text->size;
    *text = (terse_text){0};
    return data;
}

void terse_text_cstr(terse_text *text, const char *words)
{
    terse_text_put(text, words, strlen(words));
}

void terse_text_format(terse_text *text, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    terse_text_put(text, line, n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

void terse_text_json(terse_text *text, const char *words)
{
    const size_t length = strlen(words);
    bool plain = true;
    for (size_t i = 0; i < length; i++)
        plain &= words[i] >= 0x20 && words[i] < 0x7f && words[i] != '"' && words[i] != '\\';
    if (plain) { /* nearly all are */
        terse_text_put(text, "\"", 1);
        terse_text_put(text, words, length);
        terse_text_put(text, "\"", 1);
        return;
    }
    char *escaped = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&escaped, &size);
    if (stream) {
        terse_json json = terse_json_to(stream);
        terse_json_text_n(&json, NULL, words, length);
        text->broken |= ferror(stream) != 0;
        text->broken |= fclose(stream) != 0;
    } else {
        text->broken = true;
    }
    if (!text->broken)
        terse_text_put(text, escaped, size);
    free(escaped);
}
