/* SPDX-License-Identifier: Apache-2.0 */
/* spawn.h: starts a program of ours as a child process.
 * Runs in: tersed (one thread: what happens between fork and exec may use all of libc). */
#ifndef TERSE_SUPERVISOR_SPAWN_H
#define TERSE_SUPERVISOR_SPAWN_H

#include <sys/types.h>

#include "common/status.h"

/* Runs `path` with `control` as its descriptor 3 (TERSE_CONTROL_FD) and no other of ours but 0, 1 and 2, in a session
 * of its own (a terminal's Ctrl-C is the supervisor's alone), without core dumps, and killed when the supervisor is.
 * `control` stays the caller's to close. Returns once exec has happened; a failed exec is an error and is reaped. */
int terse_spawn(const char *path, char *const *argv, int control, pid_t *ret_pid, int *ret_pidfd, terse_error *error);

#endif
