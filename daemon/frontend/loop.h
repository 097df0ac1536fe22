/* SPDX-License-Identifier: Apache-2.0 */
/* loop.h: the front end's one loop.
 * Runs in: terse-frontend. */
#ifndef TERSE_FRONTEND_LOOP_H
#define TERSE_FRONTEND_LOOP_H

#include "daemon/frontend/frontend.h"

/* What epoll tells beside the number of a worker. */
enum {
    TERSE_LOOP_CONTROL = 1 << 20,
    TERSE_LOOP_ROUTER,
    TERSE_LOOP_WAKE,
    /* and behind these an index */
    TERSE_LOOP_ATTACH_SOCKET = 1 << 21,
    TERSE_LOOP_ATTACH_WAITING = 1 << 22,
    TERSE_LOOP_ARENA = 1 << 23,
    TERSE_LOOP_RING = 1 << 24,
};

/* Serves until the supervisor closes the control socket. Returns the exit code. */
int terse_loop_run(terse_frontend *fe);

#endif
