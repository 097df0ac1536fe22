/* SPDX-License-Identifier: Apache-2.0 */
/* accept.h: the end of descriptors, for ZeroMQ's listeners.
 * Runs in: terse-frontend, terse-gate. Ownership: one spare descriptor of the process.
 *
 * ZeroMQ aborts the process when accept fails for want of descriptors, so that anybody who opens enough connections
 * would end the front end. accept4 of tap_calls.c, which the dynamic linker finds before the C library's, leaves the
 * last descriptors to what is more important than another client (the sockets of new workers, shared memories), and
 * takes a connection that has no room out of the backlog by a spare descriptor and ends it: that client sees it, and
 * comes again. */
#ifndef TERSE_DAEMON_ACCEPT_H
#define TERSE_DAEMON_ACCEPT_H

#include <stdbool.h>

/* Once, before the first listener: makes the spare and reads the limit. False with errno. */
bool terse_accept_prepare(void);
/* For tap_calls.c: what became of an accept that gave `fd`, or -1 with errno: an fd to use, or -1 with an errno that
 * ZeroMQ bears. */
int terse_accept_judge(int listener, int fd);

#endif
