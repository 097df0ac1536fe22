/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/gate/gate.h"
#include "daemon/sandbox.h"

enum { SEND_MARK = 1024, RECEIVE_MARK = 256, HANDSHAKE_MS = 10000 };
#define SECOND_NS UINT64_C(1000000000)

void terse_gate_tell_alive(terse_gate *gate)
{
    const terse_tap_counts counts = terse_tap_count();
    const terse_msg_gate message = {
        .head = {TERSE_MSG_GATE_ALIVE, sizeof message},
        .pid = getpid(),
        .connections = counts.connections,
        .clients = gate->n_remotes,
        .forwarded = gate->forwarded,
        .replies = gate->replies,
        .refused_connections = counts.refused,
        .refused_keys = gate->refused_keys,
        .refused_requests = gate->refused_requests,
        .cut_off = counts.cut_off,
        .held = counts.held,
        .delayed = counts.delayed,
        .dropped = gate->dropped,
        .memory_bytes = counts.bytes + atomic_load(&gate->request_bytes) + atomic_load(&gate->reply_bytes),
    };
    gate->alive_ns = gate->now_ns + SECOND_NS;
    if (!terse_msg_send(gate->control_fd, &message, sizeof message, NULL, 0) && errno != EPIPE)
        terse_log(TERSE_LOG_WARNING, "cannot tell the supervisor: %s", strerror(errno));
}

/* --- starting ---------------------------------------------------------------------------------------------------- */

static bool set_option(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool watch(const terse_gate *gate, void *socket, uint64_t what)
{
    int fd = -1;
    size_t size = sizeof fd;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = what};
    return zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0 && epoll_ctl(gate->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static uint32_t connections_allowed(const terse_gate *gate)
{
    struct rlimit files;
    const uint32_t wanted = gate->settings.max_connections;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 ||
        files.rlim_cur / TERSE_GATE_FILES_OF_CLIENT > wanted + TERSE_GATE_FILES_BESIDE)
        return wanted;
    const uint32_t possible = files.rlim_cur > 2 * TERSE_GATE_FILES_BESIDE
                                  ? (uint32_t)(files.rlim_cur - TERSE_GATE_FILES_BESIDE) / TERSE_GATE_FILES_OF_CLIENT
                                  : TERSE_GATE_FILES_BESIDE / TERSE_GATE_FILES_OF_CLIENT;
    terse_log(TERSE_LOG_WARNING,
              "max_tcp_connections: %" PRIu32 " instead of %" PRIu32 ": the limit of open files is %" PRIu64, possible,
              wanted, (uint64_t)files.rlim_cur);
    return possible < wanted ? possible : wanted;
}

static bool open_router(terse_gate *gate, uint32_t connections)
{
    const int64_t max_frame = (int64_t)(2 * gate->settings.max_request_bytes + TERSE_WIRE_HEADER_BYTES);
    gate->context = zmq_ctx_new();
    if (!gate->context || zmq_ctx_set(gate->context, ZMQ_MAX_SOCKETS, (int)connections + TERSE_GATE_FILES_BESIDE) != 0)
        return false;
    gate->router = zmq_socket(gate->context, ZMQ_ROUTER);
    return gate->router && set_option(gate->router, ZMQ_ROUTER_MANDATORY, 1) &&
           set_option(gate->router, ZMQ_LINGER, 0) && set_option(gate->router, ZMQ_SNDHWM, SEND_MARK) &&
           set_option(gate->router, ZMQ_RCVHWM, RECEIVE_MARK) &&
           set_option(gate->router, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) &&
           set_option(gate->router, ZMQ_TCP_KEEPALIVE, 1) && set_option(gate->router, ZMQ_TCP_KEEPALIVE_IDLE, 60) &&
           zmq_setsockopt(gate->router, ZMQ_MAXMSGSIZE, &max_frame, sizeof max_frame) == 0 &&
           watch(gate, gate->router, TERSE_GATE_ROUTER);
}

static void listen_on_all(terse_gate *gate)
{
    for (uint32_t i = 0; i < gate->n_listeners; i++) {
        int *fd = &gate->listeners[i].fd;
        terse_tap_listener(*fd, TERSE_TAP_ANYONE);
        if (zmq_setsockopt(gate->router, ZMQ_USE_FD, fd, sizeof *fd) != 0 ||
            zmq_bind(gate->router, gate->listeners[i].endpoint) != 0)
            terse_log(TERSE_LOG_ERROR, "cannot listen on '%s': %s", gate->listeners[i].endpoint, zmq_strerror(errno));
        else
            *fd = -1; /* ZeroMQ's */
    }
}

/* Beside what is mapped by now. A request for memory that goes beyond fails, and with it ZeroMQ: the gate ends and
 * comes back, nothing else notices. */
static void cap_memory(const terse_gate *gate)
{
    unsigned long long pages = 0;
    FILE *file = terse_sandbox_absent() ? NULL : fopen("/proc/self/statm", "re");
    if (!file)
        return;
    const bool read = fscanf(file, "%llu", &pages) == 1;
    fclose(file);
    const rlim_t bytes = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + gate->settings.memory_bytes;
    const struct rlimit limit = {bytes, bytes};
    if (!read || setrlimit(RLIMIT_AS, &limit) != 0)
        terse_log(TERSE_LOG_WARNING, "memory has no limit here: %s", strerror(errno));
}

static bool start(terse_gate *gate)
{
    const uint32_t connections = connections_allowed(gate);
    const uint64_t one = 2 * gate->settings.max_request_bytes + (UINT64_C(4) << 20);
    gate->share_bytes = gate->settings.memory_bytes / 4;
    const terse_tap_limits limits = {
        .connections = connections,
        .connection_bytes = one,
        .total_bytes = one > gate->share_bytes ? one : gate->share_bytes,
    };
    if (!terse_tap_open(&limits) || !terse_gate_remotes_init(gate, connections) || !open_router(gate, connections) ||
        (gate->settings.curve && (!terse_gate_door_open(gate) || !watch(gate, gate->zap, TERSE_GATE_DOOR)))) {
        terse_log(TERSE_LOG_ERROR, "cannot start: %s", zmq_strerror(errno));
        return false;
    }
    explicit_bzero(gate->settings.secret_key, sizeof gate->settings.secret_key);
    listen_on_all(gate);
    cap_memory(gate);
    terse_sandbox_filter(TERSE_ROLE_GATE);
    gate->serving = true;
    const terse_msg message = {TERSE_MSG_SERVING, sizeof message};
    return terse_msg_send(gate->control_fd, &message, sizeof message, NULL, 0);
}

/* --- hearing ----------------------------------------------------------------------------------------------------- */

static void take_listener(terse_gate *gate, const terse_msg_listen *message, int *fd)
{
    if (gate->n_listeners == TERSE_GATE_LISTENERS || gate->serving) {
        terse_log(TERSE_LOG_ERROR, "an endpoint too many, or too late");
        return;
    }
    memcpy(gate->listeners[gate->n_listeners].endpoint, message->endpoint, sizeof message->endpoint);
    gate->listeners[gate->n_listeners++].fd = *fd;
    *fd = -1;
}

/* false: the gate cannot go on. */
static bool take_message(terse_gate *gate, size_t size, int *fd)
{
    const terse_msg *head = (const terse_msg *)(const void *)gate->message;
    switch (head->kind) {
    case TERSE_MSG_GATE_CONFIGURED:
        if (size == sizeof gate->settings && !gate->configured) {
            memcpy(&gate->settings, gate->message, sizeof gate->settings);
            explicit_bzero(gate->message, sizeof gate->settings);
            gate->settings.frontend[sizeof gate->settings.frontend - 1] = 0;
            gate->configured = true;
        }
        return true;
    case TERSE_MSG_GATE_KEYS:
        return size >= offsetof(terse_msg_gate_keys, keys) &&
               terse_gate_take_keys(gate, (const terse_msg_gate_keys *)(const void *)gate->message);
    case TERSE_MSG_LISTEN:
        if (size == sizeof(terse_msg_listen) && *fd >= 0)
            take_listener(gate, (const terse_msg_listen *)(const void *)gate->message, fd);
        return true;
    case TERSE_MSG_GATE_START:
        return !gate->configured || gate->serving || start(gate);
    case TERSE_MSG_GATE_FRONT:
        if (gate->serving)
            terse_gate_remotes_drop_all(gate);
        return true;
    default:
        terse_log(TERSE_LOG_WARNING, "the supervisor sent a message of kind %" PRIu32 " that is not known here",
                  head->kind);
        return true;
    }
}

bool terse_gate_hear(terse_gate *gate)
{
    int fds[4], n_fds = 0;
    for (;;) {
        const int64_t size = terse_msg_receive(gate->control_fd, gate->message, fds, &n_fds);
        if (size < 0 && errno == EAGAIN)
            return true;
        if (size <= 0)
            return false;
        int fd = n_fds > 0 ? fds[0] : -1;
        for (int i = 1; i < n_fds; i++)
            close(fds[i]);
        const bool good = take_message(gate, (size_t)size, &fd);
        if (fd >= 0)
            close(fd);
        if (!good)
            return false;
    }
}
