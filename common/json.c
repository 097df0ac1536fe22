/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

size_t terse_json_utf8(const char *bytes, size_t left)
{
    const unsigned char *text = (const unsigned char *)bytes, c = text[0];
    const size_t n = c < 0x80                ? 1
                     : c >= 0xc2 && c < 0xe0 ? 2
                     : c >= 0xe0 && c < 0xf0 ? 3
                     : c >= 0xf0 && c < 0xf5 ? 4
                                             : 0;
    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && text[1] < 0xa0) || (c == 0xed && text[1] > 0x9f) || (c == 0xf0 && text[1] < 0x90) ||
        (c == 0xf4 && text[1] > 0x8f))
        return 0;
    return n;
}

static void put_string(FILE *out, const char *text, size_t length)
{
    fputc('"', out);
    for (size_t i = 0; i < length;) {
        const unsigned char c = (unsigned char)text[i];
        const size_t n = terse_json_utf8(text + i, length - i);
        if (n == 0)
            fputc('?', out);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fwrite(text + i, 1, n, out);
        i += n ? n : 1;
    }
    fputc('"', out);
}

static void begin(terse_json *json, const char *key)
{
    if (json->depth > 0) {
        if (json->filled[json->depth - 1])
            fputs(", ", json->out);
        json->filled[json->depth - 1] = true;
    }
    if (key) {
        put_string(json->out, key, strlen(key));
        fputs(": ", json->out);
    }
}

static void open_container(terse_json *json, const char *key, char first, char last)
{
    begin(json, key);
    fputc(first, json->out);
    json->filled[json->depth] = false;
    json->close[json->depth++] = last;
}

void terse_json_object(terse_json *json, const char *key)
{
    open_container(json, key, '{', '}');
}

void terse_json_array(terse_json *json, const char *key)
{
    open_container(json, key, '[', ']');
}

void terse_json_end(terse_json *json)
{
    fputc(json->close[--json->depth], json->out);
}

void terse_json_text_n(terse_json *json, const char *key, const char *text, size_t length)
{
    begin(json, key);
    put_string(json->out, text, length);
}

void terse_json_text(terse_json *json, const char *key, const char *text)
{
    terse_json_text_n(json, key, text, strlen(text));
}

void terse_json_int(terse_json *json, const char *key, int64_t value)
{
    begin(json, key);
    fprintf(json->out, "%" PRId64, value);
}

void terse_json_uint(terse_json *json, const char *key, uint64_t value)
{
    begin(json, key);
    fprintf(json->out, "%" PRIu64, value);
}

void terse_json_double(terse_json *json, const char *key, double value)
{
    begin(json, key);
    if (isfinite(value))
        fprintf(json->out, "%.9g", value);
    else
        fputs("null", json->out);
}

void terse_json_bool(terse_json *json, const char *key, bool value)
{
    begin(json, key);
    fputs(value ? "true" : "false", json->out);
}

void terse_json_null(terse_json *json, const char *key)
{
    begin(json, key);
    fputs("null", json->out);
}
