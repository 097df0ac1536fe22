/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox.h: what each process of the daemon gives up, for good.
 * Runs in: terse-loader, terse-worker, terse-frontend, terse-gate, terse-gateway; never in tersed, which starts them.
 * Owns nothing.
 *
 * Two steps. terse_sandbox_drop, first thing in main: no new privileges, no capabilities (the daemon may run as root),
 * no core dump, no debugger of the same user. terse_sandbox_filter, when a process has opened all that it will ever
 * open: a list of system calls (libseccomp), for all of its threads.
 *
 *   role      what it still may do, beside memory that is not executable, its descriptors, clocks and its end
 *   loader    nothing
 *   worker    receive descriptors and map them
 *   frontend  take connections in, talk on them, make sealed memory, eventfds and pipes
 *   gate      take connections in, talk on them, connect to Unix sockets
 *   gateway   the same, start threads, and receive and map the memory that a daemon shares
 *   remote    the same of a gateway whose daemon is reached over tcp: connect to other hosts, and open files for
 *             reading (names of hosts are looked up again whenever a connection is made again)
 *
 * A call that is not on the list fails with EPERM: some C library's forgotten call must not become an outage. What only
 * somebody who has taken a process over would try (a new program, a new process, another process's memory) ends it,
 * SIGSYS, and so does every other call in a loader, which lives for one file. */
#ifndef TERSE_DAEMON_SANDBOX_H
#define TERSE_DAEMON_SANDBOX_H

#include <stdbool.h>

typedef enum terse_role {
    TERSE_ROLE_LOADER,
    TERSE_ROLE_WORKER,
    TERSE_ROLE_FRONTEND,
    TERSE_ROLE_GATE,
    TERSE_ROLE_GATEWAY,
    TERSE_ROLE_REMOTE,
} terse_role;

/* Both do nothing in sanitizer builds, whose reports need more, and with TERSE_NO_SECCOMP in the environment. */
void terse_sandbox_drop(void);
/* False, and a line in the log, when this kernel has no filters; everything else holds all the same. */
bool terse_sandbox_filter(terse_role role);
/* Whether a build or the environment leaves the sandbox out. */
bool terse_sandbox_absent(void);

#endif
