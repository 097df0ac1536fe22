/* SPDX-License-Identifier: Apache-2.0 */
/* behind.h: for processes that prepare something while others serve.
 * Runs in: terse-loader, terse-worker on trial. */
#ifndef TERSE_DAEMON_BEHIND_H
#define TERSE_DAEMON_BEHIND_H

/* From here on this process gives way to all others: it gets the processor when nobody else wants it, a seventh of one
 * at most and in short turns, and is the first to go when memory is short. As far as the system lets it; nothing
 * depends on that. Takes SIGALRM. */
void terse_behind_all(void);

#endif
