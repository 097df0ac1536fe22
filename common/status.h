/* SPDX-License-Identifier: Apache-2.0 */
/* status.h: status codes and the error object.
 * Runs in: every program. Owns nothing: a terse_error lives where its caller puts it.
 *
 * Codes 0..9 are those of gRPC that terse uses, and go over the wire by name; their numbers are pinned and
 * append-only (client/terse.h repeats them). TERSE_SYSTEM never leaves a process. */
#ifndef TERSE_COMMON_STATUS_H
#define TERSE_COMMON_STATUS_H

#ifndef TERSE_API /* what libterse exports, as client/terse.h defines it */
#define TERSE_API __attribute__((visibility("default")))
#endif

#ifndef TERSE_STATUS_CODES
#define TERSE_STATUS_CODES
typedef enum terse_status {
    TERSE_OK = 0,
    TERSE_INVALID_ARGUMENT = 1,
    TERSE_NOT_FOUND = 2,
    TERSE_RESOURCE_EXHAUSTED = 3,
    TERSE_DEADLINE_EXCEEDED = 4,
    TERSE_UNAVAILABLE = 5,
    TERSE_CANCELLED = 6,
    TERSE_INTERNAL = 7,
    TERSE_UNIMPLEMENTED = 8,
    TERSE_PERMISSION_DENIED = 9,
    TERSE_SYSTEM = 10, /* a system call failed: errno is in the message */
} terse_status;
#endif

typedef struct terse_error {
    terse_status status;
    char message[500]; /* one line, no newline at its end */
} terse_error;

/* Fills `error` (which may be NULL) and returns `status`, so that `return terse_fail(...)` reads well. With
 * TERSE_SYSTEM ": " and strerror(errno) are appended. Control characters in the text become '?'. */
int terse_fail(terse_error *error, terse_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "PREFIX: " in front of the message (used on the way out: file, node, tensor). Returns error->status. */
int terse_error_prefix(terse_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "INVALID_ARGUMENT" and so on; "UNKNOWN" for a number outside the enum. */
TERSE_API const char *terse_status_name(terse_status status);
/* The code of a name from the wire; TERSE_INTERNAL for a name that is not known. */
terse_status terse_status_from_name(const char *name, unsigned long length);

#endif
