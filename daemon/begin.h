/* SPDX-License-Identifier: Apache-2.0 */
/* begin.h: how each long-lived child of tersed begins.
 * Runs in: terse-frontend, terse-gate, terse-worker. Owns nothing. */
#ifndef TERSE_DAEMON_BEGIN_H
#define TERSE_DAEMON_BEGIN_H

#include <stdbool.h>

/* Opens the log under `name`, drops privileges, checks that descriptor TERSE_CONTROL_FD is a control socket (false,
 * told in the log, when it is none: somebody started the program by hand), and ties the process to the supervisor:
 * signals to the whole group are not for us, its end is ours. */
bool terse_begin(const char *name);

#endif
