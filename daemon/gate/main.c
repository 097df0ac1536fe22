/* SPDX-License-Identifier: Apache-2.0 */
/* terse-gate: serves clients over tcp for the front end, which never listens there. tersed starts it with the control
 * socket as descriptor 3. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/accept.h"
#include "daemon/begin.h"
#include "daemon/gate/gate.h"

static bool open_all(terse_gate *gate)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = TERSE_GATE_CONTROL};
    gate->control_fd = TERSE_CONTROL_FD;
    gate->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return terse_accept_prepare() && gate->epoll_fd >= 0 &&
           epoll_ctl(gate->epoll_fd, EPOLL_CTL_ADD, gate->control_fd, &event) == 0 &&
           fcntl(gate->control_fd, F_SETFL, fcntl(gate->control_fd, F_GETFL) | O_NONBLOCK) == 0;
}

static void close_all(terse_gate *gate)
{
    terse_gate_remotes_done(gate);
    if (gate->zap)
        zmq_close(gate->zap);
    if (gate->router)
        zmq_close(gate->router);
    if (gate->context)
        zmq_ctx_term(gate->context);
    terse_tap_done();
    for (uint32_t i = 0; i < gate->n_listeners; i++)
        terse_close_fdp(&gate->listeners[i].fd);
    terse_close_fdp(&gate->epoll_fd);
    free(gate->keys);
    free(gate->coming);
    free(gate);
}

int main(void)
{
    if (!terse_begin("terse-gate"))
        return 2;
    mallopt(M_ARENA_MAX, 1); /* each further one would take address space, which is limited */
    terse_gate *gate = calloc(1, sizeof *gate);
    if (!gate) {
        terse_log(TERSE_LOG_ERROR, "no memory");
        return 1;
    }
    gate->epoll_fd = -1;
    int code = 1;
    if (open_all(gate))
        code = terse_gate_run(gate);
    else
        terse_log(TERSE_LOG_ERROR, "cannot start: %s", strerror(errno));
    close_all(gate);
    return code;
}
