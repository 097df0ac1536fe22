/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "daemon/frontend/loop.h"
#include "daemon/sandbox.h"

#define SECOND_NS UINT64_C(1000000000)

/* Requests, where the configuration leaves it to us: what time allows is mostly less (overload.c). */
enum { MOST_QUEUED = 65536, MOST_OF_CLIENT = 16384 };

void terse_control_give_up(terse_frontend *fe, const char *format, ...)
{
    char why[256];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    if (!fe->broken)
        terse_log(TERSE_LOG_ERROR, "%s", why);
    fe->broken = true;
}

static void tell(terse_frontend *fe, const void *message, uint32_t bytes)
{
    (void)terse_control_send(fe, message, bytes);
}

/* What the supervisor's socket had no room for. */
struct terse_untold {
    terse_untold *next;
    uint32_t bytes;
    _Alignas(8) unsigned char data[];
};

static void watch_room(terse_frontend *fe, bool wanted)
{
    struct epoll_event event = {.events = wanted ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.u64 = TERSE_LOOP_CONTROL};
    epoll_ctl(fe->epoll_fd, EPOLL_CTL_MOD, fe->control_fd, &event);
}

/* In order, as far as there is room. */
static void tell_untold(terse_frontend *fe)
{
    for (terse_untold *first; (first = fe->untold_first);) {
        if (!terse_msg_send(fe->control_fd, first->data, first->bytes, NULL, 0) && errno == EAGAIN)
            return;
        fe->untold_first = first->next;
        free(first);
    }
    fe->untold_last = NULL;
    watch_room(fe, false);
}

static bool keep_untold(terse_frontend *fe, const void *message, uint32_t bytes)
{
    terse_untold *untold = malloc(sizeof *untold + bytes);
    if (!untold)
        return false;
    untold->next = NULL;
    untold->bytes = bytes;
    memcpy(untold->data, message, bytes);
    if (fe->untold_last)
        fe->untold_last->next = untold;
    else
        fe->untold_first = untold;
    fe->untold_last = untold;
    watch_room(fe, true);
    return true;
}

/* ALIVE comes again, and who ordered something hears that it was not taken. */
static bool may_be_lost(uint32_t kind)
{
    return kind == TERSE_MSG_ALIVE || kind == TERSE_MSG_ADMIN;
}

bool terse_control_send(terse_frontend *fe, const void *message, uint32_t bytes)
{
    if (!fe->untold_first && terse_msg_send(fe->control_fd, message, bytes, NULL, 0))
        return true;
    const uint32_t kind = ((const terse_msg *)message)->kind;
    if ((fe->untold_first || errno == EAGAIN) && (kind == TERSE_MSG_ALIVE || keep_untold(fe, message, bytes)))
        return true;
    if (errno != EPIPE && !may_be_lost(kind))
        terse_control_give_up(fe, "cannot tell the supervisor: %s", strerror(errno));
    return false;
}

void terse_control_done(terse_frontend *fe)
{
    for (terse_untold *next; fe->untold_first; fe->untold_first = next) {
        next = fe->untold_first->next;
        free(fe->untold_first);
    }
}

void terse_control_tell(terse_frontend *fe, terse_msg_kind kind)
{
    const terse_msg message = {kind, sizeof message};
    tell(fe, &message, sizeof message);
}

void terse_control_alive(terse_frontend *fe)
{
    const terse_msg_alive message = {
        .head = {TERSE_MSG_ALIVE, sizeof message},
        .served = fe->served,
        .failed = fe->failed,
        .queued = fe->queue.n_requests,
        .clients = fe->clients.n,
    };
    fe->alive_ns = fe->now_ns + SECOND_NS;
    tell(fe, &message, sizeof message);
}

void terse_control_kill_worker(terse_frontend *fe, uint32_t worker)
{
    const terse_msg_worker message = {
        .head = {TERSE_MSG_KILL_WORKER, sizeof message}, .worker = worker, .pid = fe->workers[worker].pid};
    tell(fe, &message, sizeof message);
}

bool terse_control_read_only(terse_frontend *fe, uint32_t arena, int fd)
{
    const terse_msg_read_only message = {.head = {TERSE_MSG_READ_ONLY, sizeof message}, .arena = arena};
    return terse_msg_send(fe->control_fd, &message, sizeof message, &fd, 1);
}

/* ZeroMQ takes the listening socket over and closes it at its end. */
static void listen_on(terse_frontend *fe, terse_listener *listener)
{
    terse_tap_listener(listener->fd, listener->trusted ? TERSE_TAP_TRUSTED : TERSE_TAP_ANYONE);
    if (zmq_setsockopt(fe->router, ZMQ_USE_FD, &listener->fd, sizeof listener->fd) != 0 ||
        zmq_bind(fe->router, listener->endpoint) != 0) {
        terse_control_give_up(fe, "cannot listen on '%s': %s", listener->endpoint, zmq_strerror(errno));
        return;
    }
    listener->fd = -1;
}

/* Nobody is let in before the limits are known: ZeroMQ takes them over when it begins to listen. */
static void take_listener(terse_frontend *fe, const terse_msg_listen *message, int *fd)
{
    if (strncmp(message->endpoint, TERSE_ATTACH_SCHEME, sizeof TERSE_ATTACH_SCHEME - 1) == 0) {
        terse_attach_listen(fe, *fd);
        *fd = -1;
        return;
    }
    if (fe->n_listeners == TERSE_MAX_LISTENERS) {
        terse_log(TERSE_LOG_ERROR, "more than %d endpoints", TERSE_MAX_LISTENERS);
        return;
    }
    terse_listener *listener = &fe->listeners[fe->n_listeners++];
    memcpy(listener->endpoint, message->endpoint, sizeof message->endpoint);
    listener->fd = *fd;
    listener->trusted = message->trusted;
    *fd = -1;
    if (fe->configured)
        listen_on(fe, listener);
}

static void send_hello(terse_frontend *fe, terse_pool_worker *worker, uint32_t index)
{
    const terse_msg_hello hello = {
        .head = {TERSE_MSG_HELLO, sizeof hello},
        .worker = index,
        .epoch = fe->epoch,
        .input_bytes = terse_slots_bytes(fe->inputs),
        .output_bytes = terse_slots_bytes(fe->outputs),
        .spin_us = (uint32_t)(fe->spin_ns / 1000),
    };
    const int fds[2] = {terse_slots_fd(fe->inputs), terse_slots_fd(fe->outputs)};
    worker->state = TERSE_POOL_WARMING;
    if (!terse_msg_send(worker->fd, &hello, sizeof hello, fds, 2) && errno != EPIPE && errno != ECONNRESET)
        terse_control_give_up(fe, "cannot greet worker %d: %s", worker->pid, strerror(errno));
}

static void take_worker(terse_frontend *fe, const terse_msg_worker *message, int *fd)
{
    if (message->worker >= TERSE_MAX_WORKERS) {
        terse_log(TERSE_LOG_ERROR, "worker number %" PRIu32 ", allowed are %d", message->worker, TERSE_MAX_WORKERS);
        return;
    }
    terse_pool_worker *worker = &fe->workers[message->worker];
    /* The end of the old socket may not have been seen yet. */
    terse_complete_gone(fe, worker);
    fcntl(*fd, F_SETFL, fcntl(*fd, F_GETFL) | O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = message->worker};
    if (epoll_ctl(fe->epoll_fd, EPOLL_CTL_ADD, *fd, &event) != 0) {
        terse_control_give_up(fe, "cannot watch worker %d: %s", message->pid, strerror(errno));
        return;
    }
    worker->fd = *fd;
    *fd = -1;
    worker->pid = message->pid;
    worker->restarts = message->restarts;
    worker->private_bytes = worker->shared_bytes = 0;
    if (message->worker >= fe->n_workers)
        fe->n_workers = message->worker + 1;
    if (fe->inputs)
        send_hello(fe, worker, message->worker);
}

static void take_waiting(terse_frontend *fe, const terse_msg_worker_waits *message)
{
    if (message->worker >= TERSE_MAX_WORKERS)
        return;
    terse_pool_worker *worker = &fe->workers[message->worker];
    terse_complete_gone(fe, worker);
    worker->state = TERSE_POOL_WAITING;
    worker->pid = 0;
    worker->restarts = message->restarts;
    worker->failures = message->failures;
    worker->next_start_ns = terse_now_ns() + message->wait_ms * UINT64_C(1000000);
    if (message->worker >= fe->n_workers)
        fe->n_workers = message->worker + 1;
}

/* A connection may have a few requests of the largest size on their way in; all together hold twice that, or an eighth
 * of the memory for tensors. */
static void open_tap(const terse_frontend *fe)
{
    const uint64_t one = 4 * fe->max_request_bytes + (UINT64_C(16) << 20);
    const uint64_t eighth = fe->input_bytes / 8;
    const terse_tap_limits limits = {
        .connections = UINT32_MAX,
        .connections_per_user = fe->max_user_connections,
        .connection_bytes = one,
        .total_bytes = 2 * one > eighth ? 2 * one : eighth,
    };
    if (!terse_tap_open(&limits))
        terse_log(TERSE_LOG_WARNING, "no memory to watch connections: they have no limits");
}

/* Slots are made once their sizes are known; workers that came before get their HELLO now. */
static bool take_configured(terse_frontend *fe, const terse_msg_configured *message)
{
    terse_error error;
    fe->input_bytes = message->input_bytes;
    fe->output_bytes = message->output_bytes;
    fe->max_request_bytes = message->max_request_bytes;
    fe->queue_automatic = message->max_queue == 0;
    fe->client_automatic = message->max_client_outstanding == 0;
    fe->max_queue = message->max_queue ? message->max_queue : MOST_QUEUED;
    fe->max_client_outstanding = message->max_client_outstanding ? message->max_client_outstanding : MOST_OF_CLIENT;
    fe->max_queue_bytes = message->max_queue_bytes ? message->max_queue_bytes : UINT64_MAX;
    fe->max_client_bytes = message->max_client_bytes ? message->max_client_bytes : fe->input_bytes / 2;
    fe->arenas.bytes_per_uid = message->arena_bytes_per_uid;
    fe->arenas.per_uid = message->arenas_per_uid;
    fe->spin_ns = message->spin_us * UINT64_C(1000);
    fe->max_user_connections = message->max_user_connections;
    fe->histograms = message->statistics;
    fe->traces.millionths = message->trace_millionths;
    if (fe->configured)
        return true;
    if (terse_slots_open("terse-inputs", fe->input_bytes, true, &fe->inputs, &error) ||
        terse_slots_open("terse-outputs", fe->output_bytes, false, &fe->outputs, &error)) {
        terse_control_give_up(fe, "%s", error.message);
        return false;
    }
    fe->finished = terse_finished_new(message->finished_bytes);
    if (!fe->finished || !terse_sessions_init(&fe->sessions, fe->max_queue)) {
        terse_control_give_up(fe, "no memory for %" PRIu32 " requests", fe->max_queue);
        return false;
    }
    /* Twice what a request may have: whoever is a little above gets an answer, whoever is far above is cut off. */
    const int64_t max_frame = (int64_t)(2 * fe->max_request_bytes + TERSE_WIRE_HEADER_BYTES);
    zmq_setsockopt(fe->router, ZMQ_MAXMSGSIZE, &max_frame, sizeof max_frame);
    open_tap(fe);
    fe->configured = true;
    for (uint32_t i = 0; i < fe->n_listeners; i++)
        listen_on(fe, &fe->listeners[i]);
    for (uint32_t i = 0; i < fe->n_workers; i++)
        if (fe->workers[i].fd >= 0)
            send_hello(fe, &fe->workers[i], i);
    /* ZeroMQ's threads run and all sockets listen: nothing is opened any more. */
    terse_sandbox_filter(TERSE_ROLE_FRONTEND);
    fe->serving = true;
    terse_control_tell(fe, TERSE_MSG_SERVING);
    return true;
}

/* Without memory those before stay: nobody but a reader misses anything. */
static void take_settings(terse_frontend *fe, size_t size)
{
    const char *text = (const char *)fe->message + sizeof(terse_msg);
    char *copy = size > sizeof(terse_msg) ? strndup(text, size - sizeof(terse_msg)) : NULL;
    if (!copy)
        return;
    free(fe->settings);
    fe->settings = copy;
}

static bool take_message(terse_frontend *fe, size_t size, int *fd)
{
    /* A copy: handling may use fe->message for another. */
    union {
        terse_msg head;
        terse_msg_model model;
        terse_msg_listen listen;
        terse_msg_worker worker;
        terse_msg_configured configured;
        terse_msg_worker_waits waits;
        terse_msg_read_only read_only;
        terse_msg_model_state state;
        terse_msg_admin_done done;
        terse_msg_gate gate;
    } m = {0};
    memcpy(&m, fe->message, size < sizeof m ? size : sizeof m);
    switch (m.head.kind) {
    case TERSE_MSG_MODEL:
        if (size == sizeof m.model && *fd >= 0)
            terse_reload_take(fe, &m.model, fd);
        return true;
    case TERSE_MSG_MODEL_LIMITS:
        if (size == sizeof m.model)
            terse_reload_limit(fe, &m.model);
        return true;
    case TERSE_MSG_MODEL_DROP:
        if (size == sizeof m.state)
            terse_reload_drop(fe, &m.state);
        return true;
    case TERSE_MSG_MODEL_DRAIN:
        if (size == sizeof m.state)
            terse_reload_drain(fe, &m.state);
        return true;
    case TERSE_MSG_ADMIN_DONE:
        if (size == sizeof m.done)
            terse_admin_done(fe, &m.done);
        return true;
    case TERSE_MSG_WORKER_LEAVE:
        if (size == sizeof m.worker && m.worker.worker < fe->n_workers &&
            fe->workers[m.worker.worker].pid == m.worker.pid)
            fe->workers[m.worker.worker].leaving = fe->models_moved = true;
        return true;
    case TERSE_MSG_LISTEN:
        if (size == sizeof m.listen && *fd >= 0)
            take_listener(fe, &m.listen, fd);
        return true;
    case TERSE_MSG_WORKER:
        if (size == sizeof m.worker && *fd >= 0)
            take_worker(fe, &m.worker, fd);
        return true;
    case TERSE_MSG_WORKER_EXIT:
        if (size == sizeof m.worker && m.worker.worker < fe->n_workers)
            terse_complete_exit(fe, &fe->workers[m.worker.worker], &m.worker);
        return true;
    case TERSE_MSG_WORKER_WAITS:
        if (size == sizeof m.waits)
            take_waiting(fe, &m.waits);
        return true;
    case TERSE_MSG_READ_ONLY:
        if (size == sizeof m.read_only)
            terse_attach_read_only(fe, m.read_only.arena, fd);
        return true;
    case TERSE_MSG_CONFIGURED:
        return size != sizeof m.configured || take_configured(fe, &m.configured);
    case TERSE_MSG_SETTINGS:
        take_settings(fe, size);
        return true;
    case TERSE_MSG_GATE:
        if (size == sizeof m.gate)
            fe->gate = m.gate;
        return true;
    case TERSE_MSG_DRAIN:
        fe->draining = true;
        return true;
    default:
        terse_log(TERSE_LOG_WARNING, "the supervisor sent a message of kind %" PRIu32 " that is not known here",
                  m.head.kind);
        return true;
    }
}

bool terse_control_receive(terse_frontend *fe)
{
    int fds[4], n_fds = 0;
    if (fe->untold_first)
        tell_untold(fe);
    for (;;) {
        const int64_t size = terse_msg_receive(fe->control_fd, fe->message, fds, &n_fds);
        if (size < 0 && errno == EAGAIN)
            return true;
        if (size == 0)
            return false;
        if (size < 0) {
            terse_control_give_up(fe, "the supervisor sends what cannot be read: %s", strerror(errno));
            return false;
        }
        int fd = n_fds > 0 ? fds[0] : -1;
        for (int i = 1; i < n_fds; i++)
            close(fds[i]);
        const bool good = take_message(fe, (size_t)size, &fd);
        if (fd >= 0)
            close(fd);
        if (!good)
            return false;
    }
}
