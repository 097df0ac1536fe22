/* SPDX-License-Identifier: Apache-2.0 */
/* log.h: one line per event, on stderr or in the journal.
 * Runs in: every process of the daemon. Owns the socket to the journal; the program's name is borrowed.
 * When stderr is the journal (JOURNAL_STREAM names it) a line goes there as a record with fields, by the journal's own
 * protocol: a datagram of NAME=value lines (https://systemd.io/JOURNAL_NATIVE_PROTOCOL). Where there is no such socket
 * it starts with "<priority>", which the journal turns into a field; elsewhere with the time. A line is one write:
 * lines of several processes never mix. */
#ifndef TERSE_DAEMON_LOG_H
#define TERSE_DAEMON_LOG_H

#include <stdint.h>

/* As syslog numbers them. */
typedef enum terse_log_priority {
    TERSE_LOG_ERROR = 3,
    TERSE_LOG_WARNING = 4,
    TERSE_LOG_NOTICE = 5,
    TERSE_LOG_INFO = 6,
} terse_log_priority;

typedef struct terse_log_number {
    const char *name; /* of the field, "QUEUE_US" */
    uint64_t value;
} terse_log_number;

/* What a line is about, for `journalctl MODEL=digits`; people read it in the line's text. Borrowed; NULL: nothing. */
typedef struct terse_log_about {
    const char *model;       /* MODEL= */
    const char *worker;      /* WORKER=, its number as text; a "worker 3" gives "3" */
    const char *reason;      /* REASON=, one line */
    const uint64_t *request; /* REQUEST_ID= */
    const char *status;      /* STATUS= */
    const terse_log_number *numbers;
    unsigned n_numbers;
} terse_log_about;

/* `program` ("terse-worker[2]") must outlive the process; the number in brackets is WORKER= of all its lines. Call it
 * once, first: later on the process may not be allowed to open a socket any more. */
void terse_log_init(const char *program);
/* Prints one line; control characters become '?', a long line is cut. errno is kept. */
void terse_log(terse_log_priority priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with fields. */
void terse_log_with(const terse_log_about *about, terse_log_priority priority, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* terse_log_of((.model = name, .reason = why), TERSE_LOG_ERROR, "model '%s': %s", name, why) */
#define TERSE_LOG_FIELDS(...) __VA_ARGS__
#define terse_log_of(fields, ...) terse_log_with(&(const terse_log_about){TERSE_LOG_FIELDS fields}, __VA_ARGS__)

#endif
