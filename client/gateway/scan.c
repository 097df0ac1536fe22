/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/gateway/decimal.h"

terse_scan terse_scan_over(const char *data, size_t size, terse_error *error)
{
    return (terse_scan){data, data, data + size, error};
}

bool terse_scan_fail(const terse_scan *scan, const char *at, const char *what)
{
    char found[40];
    int n = 0;
    for (const char *c = at; c < scan->end && n < 24 && *c > 0x20 && *c < 0x7f; c++) {
        if (n > 0 && (*c == ',' || *c == ']' || *c == '}')) /* a value, not those behind it */
            break;
        found[n++] = *c;
    }
    found[n] = 0;
    if (at >= scan->end)
        terse_fail(scan->error, TERSE_INVALID_ARGUMENT, "JSON ends at byte %zd, %s is wanted", at - scan->start, what);
    else if (n == 0)
        terse_fail(scan->error, TERSE_INVALID_ARGUMENT, "JSON, byte %zd: found the byte 0x%02x, %s is wanted",
                   at - scan->start, (unsigned char)*at, what);
    else
        terse_fail(scan->error, TERSE_INVALID_ARGUMENT, "JSON, byte %zd: found '%s', %s is wanted", at - scan->start,
                   found, what);
    return false;
}

char terse_scan_peek(terse_scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
        scan->at++;
    return scan->at < scan->end ? *scan->at : 0;
}

static bool take(terse_scan *scan, char wanted, const char *what)
{
    if (terse_scan_peek(scan) != wanted)
        return terse_scan_fail(scan, scan->at, what);
    scan->at++;
    return true;
}

bool terse_scan_open(terse_scan *scan, char bracket, const char *what)
{
    return take(scan, bracket, what);
}

/* After a bracket or a value: goes on, or leaves at `bracket`. */
static bool next(terse_scan *scan, bool first, char bracket, bool *ret_end)
{
    const char c = terse_scan_peek(scan);
    *ret_end = c == bracket;
    if (*ret_end)
        scan->at++;
    else if (!first)
        return take(scan, ',', bracket == '}' ? "',' or '}'" : "',' or ']'");
    return true;
}

bool terse_scan_item(terse_scan *scan, bool first, bool *ret_end)
{
    return next(scan, first, ']', ret_end);
}

bool terse_scan_members(terse_scan *scan, const char *what, terse_scan_take *take_value, void *user)
{
    terse_scan_text name;
    bool end = false;
    if (!take(scan, '{', what))
        return false;
    for (bool first = true;; first = false) {
        if (!next(scan, first, '}', &end))
            return false;
        if (end)
            return true;
        if (!terse_scan_string(scan, "a member's name", &name) || !take(scan, ':', "':'") || !take_value(user, &name))
            return false;
    }
}

bool terse_scan_items(terse_scan *scan, const char *what, terse_scan_take *take_value, void *user)
{
    bool end = false;
    if (!take(scan, '[', what))
        return false;
    for (bool first = true;; first = false) {
        if (!next(scan, first, ']', &end))
            return false;
        if (end)
            return true;
        if (!take_value(user, NULL))
            return false;
    }
}

static bool hex4(const char *at, const char *end, uint32_t *ret_value)
{
    uint32_t value = 0;
    if (end - at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        const char c = at[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return false;
        value = value << 4 | (uint32_t)digit;
    }
    *ret_value = value;
    return true;
}

static size_t put_utf8(uint32_t code, char *to)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    const size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, code >>= 6)
        to[i] = (char)(0x80 | (code & 0x3f));
    to[0] = (char)((0xf0u << (4 - n)) | code);
    return n;
}

/* The escape behind a backslash at `at`; returns what follows it, NULL when it is none. */
static const char *read_escape(const char *at, const char *end, char *to, size_t *ret_length)
{
    static const char from[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    const char *plain = at < end && *at ? strchr(from, *at) : NULL;
    uint32_t code = 0, low = 0;
    if (plain) {
        *to = means[plain - from];
        *ret_length = 1;
        return at + 1;
    }
    if (at >= end || *at != 'u' || !hex4(at + 1, end, &code) || code == 0 || (code >= 0xdc00 && code < 0xe000))
        return NULL;
    at += 5;
    if (code >= 0xd800 && code < 0xdc00) { /* two of them are one character */
        if (end - at < 6 || at[0] != '\\' || at[1] != 'u' || !hex4(at + 2, end, &low) || low < 0xdc00 || low > 0xdfff)
            return NULL;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        at += 6;
    }
    *ret_length = put_utf8(code, to);
    return at;
}

bool terse_scan_string(terse_scan *scan, const char *what, terse_scan_text *ret_text)
{
    if (!take(scan, '"', what))
        return false;
    size_t n = 0;
    const char *at = scan->at;
    while (at < scan->end && *at != '"') {
        size_t length = 1;
        char bytes[4] = {*at};
        if ((unsigned char)*at < 0x20)
            return terse_scan_fail(scan, at, "a text without control characters");
        if (*at == '\\') {
            const char *behind = read_escape(at + 1, scan->end, bytes, &length);
            if (!behind)
                return terse_scan_fail(scan, at, "an escape of JSON other than \\u0000");
            at = behind;
        } else {
            at++;
        }
        if (n + length > TERSE_SCAN_TEXT)
            return terse_scan_fail(scan, scan->at, "a text of at most 1024 bytes");
        memcpy(ret_text->data + n, bytes, length);
        n += length;
    }
    if (at >= scan->end)
        return terse_scan_fail(scan, at, "the end of a text");
    ret_text->data[n] = 0;
    ret_text->length = n;
    scan->at = at + 1;
    return true;
}

static bool take_word(terse_scan *scan, const char *word)
{
    const size_t length = strlen(word);
    if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

bool terse_scan_bool(terse_scan *scan, const char *what, bool *ret_value)
{
    terse_scan_peek(scan);
    *ret_value = take_word(scan, "true");
    return *ret_value || take_word(scan, "false") || terse_scan_fail(scan, scan->at, what);
}

bool terse_scan_int(terse_scan *scan, const char *what, int64_t min, int64_t max, int64_t *ret_value)
{
    uint64_t magnitude = 0;
    bool negative = false;
    terse_scan_peek(scan);
    const char *behind = terse_decimal_whole(scan->at, scan->end, &magnitude, &negative);
    const int64_t value = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    char range[160];
    if (!behind || (negative ? magnitude > (uint64_t)INT64_MAX + 1 : magnitude > INT64_MAX) || value < min ||
        value > max) {
        snprintf(range, sizeof range, "%.60s, a whole number from %" PRId64 " to %" PRId64 ",", what, min, max);
        return terse_scan_fail(scan, scan->at, range);
    }
    scan->at = behind;
    *ret_value = value;
    return true;
}

/* A string that nobody wants may be of any length. */
static bool skip_string(terse_scan *scan)
{
    const char *at = scan->at + 1;
    for (; at < scan->end && *at != '"'; at++) {
        if ((unsigned char)*at < 0x20)
            return terse_scan_fail(scan, at, "a text without control characters");
        at += *at == '\\';
    }
    if (at >= scan->end)
        return terse_scan_fail(scan, scan->end, "the end of a text");
    scan->at = at + 1;
    return true;
}

static bool skip_scalar(terse_scan *scan)
{
    double number;
    const char *behind = NULL;
    const char c = terse_scan_peek(scan);
    if (c == '"')
        return skip_string(scan);
    if (take_word(scan, "true") || take_word(scan, "false") || take_word(scan, "null"))
        return true;
    if (!(behind = terse_decimal_read(scan->at, scan->end, &number)))
        return terse_scan_fail(scan, scan->at, "a value");
    scan->at = behind;
    return true;
}

bool terse_scan_skip(terse_scan *scan)
{
    char closing[TERSE_SCAN_DEPTH];
    int depth = 0;
    bool first = true; /* of the innermost */
    do {
        bool end = false;
        if (depth > 0 && !next(scan, first, closing[depth - 1], &end))
            return false;
        first = false;
        if (end) {
            depth--;
            continue;
        }
        if (depth > 0 && closing[depth - 1] == '}') {
            if (terse_scan_peek(scan) != '"')
                return terse_scan_fail(scan, scan->at, "a member's name");
            if (!skip_string(scan) || !take(scan, ':', "':'"))
                return false;
        }
        const char c = terse_scan_peek(scan);
        if (c == '{' || c == '[') {
            if (depth == TERSE_SCAN_DEPTH)
                return terse_scan_fail(scan, scan->at, "a value at most 64 deep");
            closing[depth++] = c == '{' ? '}' : ']';
            scan->at++;
            first = true;
        } else if (!skip_scalar(scan)) {
            return false;
        }
    } while (depth > 0);
    return true;
}

bool terse_scan_done(terse_scan *scan)
{
    terse_scan_peek(scan);
    return scan->at == scan->end || terse_scan_fail(scan, scan->at, "nothing behind the value");
}
