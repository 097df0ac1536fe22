/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/read_json.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire_walk.h"

enum { MAX_DEPTH = 32, MAX_NUMBER = 64 };

typedef struct reader {
    const char *at, *end;
    int line, depth;
    terse_arena *arena;
    terse_error *error;
} reader;

static int fail(const reader *r, const char *wanted)
{
    if (r->at >= r->end)
        return terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: the text ends where %s is due", r->line, wanted);
    return terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: found '%c', needed is %s", r->line, *r->at, wanted);
}

static int out_of_memory(const reader *r)
{
    return terse_fail(r->error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a JSON text");
}

static void skip(reader *r)
{
    for (; r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at; r->at++)
        r->line += *r->at == '\n';
}

static bool take(reader *r, char c)
{
    if (r->at >= r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* --- texts ----------------------------------------------------------------------------------------------------------
 */

/* Four digits behind \u; -1. */
static int hex(reader *r)
{
    int code = 0;
    if (r->end - r->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const char c = *r->at++;
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return -1;
        code = code * 16 + digit;
    }
    return code;
}

static char *put_utf8(char *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    return to;
}

/* What stands behind a backslash; NULL when it is no escape. An escape is never shorter than its UTF-8. */
static char *escape(reader *r, char *to)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char c = r->at < r->end ? *r->at++ : 0;
    const char *known = c ? strchr(letters, c) : NULL;
    if (known) {
        *to = meant[known - letters];
        return to + 1;
    }
    const int high = c == 'u' ? hex(r) : -1;
    if (high <= 0 || (high >= 0xdc00 && high < 0xe000))
        return NULL;
    if (high < 0xd800 || high >= 0xe000)
        return put_utf8(to, (uint32_t)high);
    if (!take(r, '\\') || !take(r, 'u'))
        return NULL;
    const int low = hex(r);
    return low < 0xdc00 || low >= 0xe000
               ? NULL
               : put_utf8(to, 0x10000u + (((uint32_t)high - 0xd800u) << 10) + ((uint32_t)low - 0xdc00u));
}

static int read_text(reader *r, const char **ret_text)
{
    if (!take(r, '"'))
        return fail(r, "a text in \"\"");
    const char *close = r->at;
    while (close < r->end && *close != '"')
        close += *close == '\\' && close + 1 < r->end ? 2 : 1;
    if (close >= r->end) {
        r->at = r->end;
        return fail(r, "the end of a text, '\"',");
    }
    char *text = terse_arena_alloc(r->arena, (size_t)(close - r->at) + 1), *to = text;
    if (!text)
        return out_of_memory(r);
    while (r->at < close) {
        const char c = *r->at++;
        if ((unsigned char)c < ' ') {
            r->at--;
            return terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: a control character (%d) in a text", r->line,
                              c);
        }
        if (c != '\\')
            *to++ = c;
        else if (!(to = escape(r, to)))
            return terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: an escape in a text is none of JSON's",
                              r->line);
    }
    *to = 0;
    if (terse_wire_walk_utf8(text, (size_t)(to - text)) != (size_t)(to - text))
        return terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: a text is no UTF-8", r->line);
    r->at = close + 1;
    *ret_text = text;
    return TERSE_OK;
}

/* --- values ---------------------------------------------------------------------------------------------------------
 */

static bool digits(const char **at, const char *end)
{
    const char *from = *at;
    while (*at < end && **at >= '0' && **at <= '9')
        ++*at;
    return *at > from;
}

static int read_number(reader *r, terse_json_value *v)
{
    const char *at = r->at;
    at += at < r->end && *at == '-';
    const char *whole = at;
    bool good = digits(&at, r->end) && (*whole != '0' || at == whole + 1);
    if (good && at < r->end && *at == '.') {
        at++;
        good = digits(&at, r->end);
    }
    if (good && at < r->end && (*at == 'e' || *at == 'E')) {
        at++;
        at += at < r->end && (*at == '+' || *at == '-');
        good = digits(&at, r->end);
    }
    char text[MAX_NUMBER];
    const size_t length = (size_t)(at - r->at);
    if (!good || length >= sizeof text)
        return fail(r, "a value");
    memcpy(text, r->at, length);
    text[length] = 0;
    v->kind = TERSE_JSON_NUMBER;
    v->number = strtod(text, NULL);
    if (!isfinite(v->number))
        return terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: %s is too large", r->line, text);
    r->at = at;
    return TERSE_OK;
}

static bool word(reader *r, const char *text)
{
    const size_t length = strlen(text);
    if ((size_t)(r->end - r->at) < length || memcmp(r->at, text, length) != 0)
        return false;
    r->at += length;
    return true;
}

static int read_value(reader *r, terse_json_value **ret_value);

static int read_list(reader *r, terse_json_value *v, char close)
{
    terse_json_value **next = &v->first;
    skip(r);
    if (take(r, close))
        return TERSE_OK;
    if (++r->depth > MAX_DEPTH)
        return terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: lists are more than %d deep", r->line, MAX_DEPTH);
    for (;;) {
        const char *name = NULL;
        skip(r);
        int status = close == '}' ? read_text(r, &name) : TERSE_OK;
        skip(r);
        if (status == TERSE_OK && name && !take(r, ':'))
            status = fail(r, "':'");
        if (status == TERSE_OK)
            status = read_value(r, next);
        if (status != TERSE_OK)
            return status;
        (*next)->name = name;
        next = &(*next)->next;
        skip(r);
        if (take(r, close))
            break;
        if (!take(r, ','))
            return fail(r, close == '}' ? "',' or '}'" : "',' or ']'");
    }
    r->depth--;
    return TERSE_OK;
}

static int read_value(reader *r, terse_json_value **ret_value)
{
    skip(r);
    terse_json_value *v = terse_arena_alloc(r->arena, sizeof *v);
    if (!v)
        return out_of_memory(r);
    v->line = r->line;
    *ret_value = v;
    const char c = r->at < r->end ? *r->at : 0;
    if (c == '{' || c == '[') {
        r->at++;
        v->kind = c == '{' ? TERSE_JSON_OBJECT : TERSE_JSON_ARRAY;
        return read_list(r, v, c == '{' ? '}' : ']');
    }
    if (c == '"') {
        v->kind = TERSE_JSON_TEXT;
        return read_text(r, &v->text);
    }
    if (word(r, "true") || word(r, "false")) {
        v->kind = TERSE_JSON_BOOL;
        v->truth = c == 't';
        return TERSE_OK;
    }
    return word(r, "null") ? TERSE_OK : read_number(r, v);
}

int terse_read_json(const char *text, size_t length, terse_arena *arena, terse_json_value **ret_value,
                    terse_error *error)
{
    reader r = {.at = text, .end = text + length, .line = 1, .arena = arena, .error = error};
    terse_json_value *value;
    const int status = read_value(&r, &value);
    if (status != TERSE_OK)
        return status;
    skip(&r);
    if (r.at < r.end)
        return fail(&r, "the end");
    *ret_value = value;
    return TERSE_OK;
}

const terse_json_value *terse_read_json_find(const terse_json_value *object, const char *name)
{
    for (const terse_json_value *v = object && object->kind == TERSE_JSON_OBJECT ? object->first : NULL; v; v = v->next)
        if (strcmp(v->name, name) == 0)
            return v;
    return NULL;
}

const char *terse_read_json_kind(terse_json_kind kind)
{
    static const char *const names[] = {"null", "true or false", "a number", "a text", "a list", "an object"};
    return names[kind];
}
