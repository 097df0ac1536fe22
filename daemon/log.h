/* SPDX-License-Identifier: Apache-2.0 */
/* log.h: one line per event on stderr.
 * Runs in: tersed, terse-loader, terse-frontend, terse-worker. Owns nothing; the program's name is borrowed.
 * When stderr is the journal (JOURNAL_STREAM names it) a line starts with "<priority>", which the journal turns into a
 * field; elsewhere with the time. A line is one write: lines of several processes never mix. */
#ifndef TERSE_DAEMON_LOG_H
#define TERSE_DAEMON_LOG_H

/* As syslog numbers them. */
typedef enum terse_log_priority {
    TERSE_LOG_ERROR = 3,
    TERSE_LOG_WARNING = 4,
    TERSE_LOG_NOTICE = 5,
    TERSE_LOG_INFO = 6,
} terse_log_priority;

/* `program` ("terse-worker[2]") must outlive the process. Call it once, first. */
void terse_log_init(const char *program);
/* Prints one line; control characters become '?', a long line is cut. errno is kept. */
void terse_log(terse_log_priority priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
