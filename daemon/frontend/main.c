/* SPDX-License-Identifier: Apache-2.0 */
/* terse-frontend: queue, batches and replies between the clients' ZeroMQ socket and the workers. tersed starts it with
 * the control socket as descriptor 3. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/turn.h"
#include "daemon/accept.h"
#include "daemon/begin.h"
#include "daemon/frontend/loop.h"

/* Replies and requests that may lie in ZeroMQ's pipes, per client. */
enum { SEND_MARK = 4096, RECEIVE_MARK = 128 };

static bool set_option(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool open_router(terse_frontend *fe)
{
    fe->context = zmq_ctx_new();
    fe->router = fe->context ? zmq_socket(fe->context, ZMQ_ROUTER) : NULL;
    return fe->router && set_option(fe->router, ZMQ_ROUTER_MANDATORY, 1) && set_option(fe->router, ZMQ_LINGER, 0) &&
           set_option(fe->router, ZMQ_SNDHWM, SEND_MARK) && set_option(fe->router, ZMQ_RCVHWM, RECEIVE_MARK);
}

static bool watch(const terse_frontend *fe, int fd, uint32_t flags, uint64_t what)
{
    struct epoll_event event = {.events = EPOLLIN | flags, .data.u64 = what};
    return epoll_ctl(fe->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool open_all(terse_frontend *fe)
{
    int router_fd = -1;
    size_t size = sizeof router_fd;
    fe->control_fd = TERSE_CONTROL_FD;
    fe->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    fe->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fe->workers = calloc(TERSE_MAX_WORKERS, sizeof *fe->workers);
    fe->arena = terse_arena_new();
    fe->pins = terse_pins_new(fe->wake_fd);
    if (fe->epoll_fd < 0 || fe->wake_fd < 0 || !fe->workers || !fe->arena || !fe->pins ||
        !terse_clients_init(&fe->clients))
        return false;
    for (int i = 0; i < TERSE_MAX_WORKERS; i++)
        fe->workers[i].fd = -1;
    terse_attach_init(&fe->attach);
    return terse_accept_prepare() && open_router(fe) && zmq_getsockopt(fe->router, ZMQ_FD, &router_fd, &size) == 0 &&
           fcntl(fe->control_fd, F_SETFL, fcntl(fe->control_fd, F_GETFL) | O_NONBLOCK) == 0 &&
           watch(fe, fe->control_fd, 0, TERSE_LOOP_CONTROL) && watch(fe, fe->wake_fd, 0, TERSE_LOOP_WAKE) &&
           watch(fe, router_fd, EPOLLET, TERSE_LOOP_ROUTER);
}

static void close_all(terse_frontend *fe)
{
    if (fe->router)
        zmq_close(fe->router);
    if (fe->context)
        zmq_ctx_term(fe->context); /* ends ZeroMQ's thread: no pin comes back any more */
    terse_tap_done();
    terse_clients_done(&fe->clients);
    terse_attach_done(&fe->attach);
    terse_arenas_done(&fe->arenas);
    if (fe->pins)
        for (terse_pin *pin = terse_pins_collect(fe->pins), *next; pin; pin = next) {
            next = pin->next;
            terse_pins_give(fe->pins, pin);
        }
    terse_pins_free(fe->pins);
    terse_sessions_done(&fe->sessions);
    terse_finished_free(fe->finished);
    free(fe->settings);
    terse_queue_done(&fe->queue);
    terse_control_done(fe);
    for (uint32_t i = 0; i < fe->n_models; i++)
        terse_served_close(fe->models[i]);
    for (uint32_t i = 0; fe->workers && i < TERSE_MAX_WORKERS; i++) {
        terse_close_fdp(&fe->workers[i].fd);
        free(fe->workers[i].judged);
    }
    free(fe->workers);
    for (uint32_t i = 0; i < fe->n_listeners; i++)
        terse_close_fdp(&fe->listeners[i].fd);
    terse_slots_close(fe->inputs);
    terse_slots_close(fe->outputs);
    terse_arena_free(fe->arena);
    terse_close_fdp(&fe->epoll_fd);
    terse_close_fdp(&fe->wake_fd);
    free(fe);
}

int main(void)
{
    if (!terse_begin("terse-frontend"))
        return 2;
    terse_frontend *fe = calloc(1, sizeof *fe);
    if (!fe) {
        terse_log(TERSE_LOG_ERROR, "no memory");
        return 1;
    }
    fe->epoll_fd = fe->wake_fd = -1;
    fe->router_unsure = true;
    fe->started_ns = fe->now_ns = terse_now_ns();
    fe->epoch = (uint32_t)getpid();
    fe->hold_ns = UINT64_MAX;
    terse_turn_short();
    int code = 1;
    if (open_all(fe))
        code = terse_loop_run(fe);
    else
        terse_log(TERSE_LOG_ERROR, "cannot start: %s", zmq_strerror(errno));
    close_all(fe);
    return code;
}
