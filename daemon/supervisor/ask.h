/* SPDX-License-Identifier: Apache-2.0 */
/* ask.h: `tersed --reload PID`: SIGHUP, and waiting until what it asks for is in force.
 * Runs in: tersed, both the one that serves and the one that asks. Owns nothing.
 *
 * The kernel tells a receiver of a signal who sent it. Whoever wants to hear the end listens at the abstract Unix
 * address "terse-reload-PID" with its own number before it sends SIGHUP; the daemon sends one datagram there: "" when
 * all went well, else a line that says what did not. A unit's ExecReload= is such a sender: `systemctl reload` returns
 * when the new state is in force, and fails when it is not. */
#ifndef TERSE_SUPERVISOR_ASK_H
#define TERSE_SUPERVISOR_ASK_H

#include <sys/types.h>

/* Asks and waits; returns the exit code after saying what is wrong. */
int terse_ask_reload(const char *pid);
/* To who asked; where nobody listens nothing happens. */
void terse_ask_answer(pid_t asked, const char *why);

#endif
