/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beyond this many lines only those that say something of a new kind are kept: a thousand nodes of one unknown operator
 * must not hide another one. */
enum { PLENTY = TERSE_ONNX_MAX_LINES / 2, MAX_LINE = 1200 };

/* What a line is about, without the node: its text up to here. */
static size_t kind_length(const char *line)
{
    const char *node = strstr(line, " (node '"), *end = strstr(line, " is not supported");
    return node ? (size_t)(node - line) : end ? (size_t)(end - line) : strlen(line);
}

static bool same_kind(const char *a, const char *b)
{
    const size_t length = kind_length(a);
    return length == kind_length(b) && memcmp(a, b, length) == 0;
}

/* Memory that is out loses a line's text, never its count. */
static void add_line(terse_onnx_lines *lines, char *text)
{
    bool new_kind = true;
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    for (int i = 0; i < lines->n; i++) {
        if (strcmp(lines->lines[i], text) == 0)
            return;
        new_kind = new_kind && !same_kind(lines->lines[i], text);
    }
    if (lines->n_all < INT32_MAX)
        lines->n_all++;
    if (lines->n >= TERSE_ONNX_MAX_LINES || (lines->n >= PLENTY && !new_kind))
        return;
    if (!lines->lines)
        lines->lines = calloc(TERSE_ONNX_MAX_LINES, sizeof *lines->lines);
    char *copy = lines->lines ? strdup(text) : NULL;
    if (copy)
        lines->lines[lines->n++] = copy;
}

void terse_onnx_unsupported(terse_onnx_report *report, const char *node, const char *format, ...)
{
    char what[MAX_LINE / 2], line[MAX_LINE];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (node)
        snprintf(line, sizeof line, "%s (node '%.300s', opset %" PRId64 ") is not supported", what, node,
                 report->opset);
    else
        snprintf(line, sizeof line, "%s is not supported (opset %" PRId64 ")", what, report->opset);
    add_line(&report->unsupported, line);
}

void terse_onnx_warn(terse_onnx_report *report, const char *format, ...)
{
    if (!report)
        return;
    char line[MAX_LINE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    add_line(&report->warnings, line);
}

/* "36 not supported: op 'A' (node 'x', opset 13) and 17 alike; op 'B' (node 'y', opset 13) and 17 alike". */
int terse_onnx_report_status(const terse_onnx_report *report, terse_error *error)
{
    const terse_onnx_lines *lines = &report->unsupported;
    if (lines->n_all == 0)
        return TERSE_OK;
    char text[400];
    size_t at = 0;
    for (int i = 0; i < lines->n && at < sizeof text; i++) {
        int alike = 0;
        bool told = false;
        for (int k = 0; k < lines->n; k++)
            if (k != i && same_kind(lines->lines[i], lines->lines[k])) {
                alike++;
                told = told || k < i;
            }
        if (told)
            continue;
        const char *line = lines->lines[i];
        const char *end = strstr(line, " is not supported");
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%.*s", at ? "; " : "",
                               (int)(end ? end - line : (ptrdiff_t)strlen(line)), line);
        if (alike && at < sizeof text)
            at += (size_t)snprintf(text + at, sizeof text - at, " and %d alike", alike);
    }
    return terse_fail(error, TERSE_UNIMPLEMENTED, "%d not supported: %s", lines->n_all, lines->n ? text : "");
}

static void lines_done(terse_onnx_lines *lines)
{
    for (int i = 0; i < lines->n; i++)
        free(lines->lines[i]);
    free(lines->lines);
    *lines = (terse_onnx_lines){0};
}

void terse_onnx_report_done(terse_onnx_report *report)
{
    lines_done(&report->unsupported);
    lines_done(&report->warnings);
}
