/* SPDX-License-Identifier: Apache-2.0 */
#include "common/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [TERSE_OK] = "OK",
    [TERSE_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
    [TERSE_NOT_FOUND] = "NOT_FOUND",
    [TERSE_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
    [TERSE_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
    [TERSE_UNAVAILABLE] = "UNAVAILABLE",
    [TERSE_CANCELLED] = "CANCELLED",
    [TERSE_INTERNAL] = "INTERNAL",
    [TERSE_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [TERSE_PERMISSION_DENIED] = "PERMISSION_DENIED",
    [TERSE_SYSTEM] = "SYSTEM",
};

enum { N_NAMES = sizeof names / sizeof names[0] };

static void clean(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

int terse_fail(terse_error *error, terse_status status, const char *format, ...)
{
    const int saved = errno;
    if (!error)
        return (int)status;
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    if (status == TERSE_SYSTEM && length >= 0 && (size_t)length < sizeof error->message)
        snprintf(error->message + length, sizeof error->message - (size_t)length, ": %s", strerror(saved));
    clean(error->message);
    error->status = status;
    return (int)status;
}

int terse_error_prefix(terse_error *error, const char *format, ...)
{
    if (!error)
        return TERSE_INTERNAL;
    char old[sizeof error->message];
    memcpy(old, error->message, sizeof old);
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    /* ": " and the old text behind it, cut where the message ends. */
    if (length >= 0 && (size_t)length + 3 < sizeof error->message) {
        const size_t left = sizeof error->message - (size_t)length - 3;
        const size_t kept = strnlen(old, left);
        memcpy(error->message + length, ": ", 2);
        memcpy(error->message + length + 2, old, kept);
        error->message[(size_t)length + 2 + kept] = 0;
    }
    clean(error->message);
    return (int)error->status;
}

const char *terse_status_name(terse_status status)
{
    return (unsigned)status < N_NAMES ? names[status] : "UNKNOWN";
}

terse_status terse_status_from_name(const char *name, unsigned long length)
{
    for (unsigned i = 0; i < N_NAMES; i++)
        if (strlen(names[i]) == length && memcmp(names[i], name, length) == 0)
            return (terse_status)i;
    return TERSE_INTERNAL;
}
