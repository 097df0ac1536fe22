/* SPDX-License-Identifier: Apache-2.0 */
/* The gate: started when a listener is a tcp one, given those listeners and the keys, and replaced when it dies. Its
 * clients connect again: the listening sockets stay. What it says is handed on to the front end. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/supervisor.h"

enum { BACKLOG = 1024 };

/* --- where it meets the front end ------------------------------------------------------------------------------ */

static bool has_tcp(const terse_supervisor *s)
{
    for (unsigned i = 0; i < s->listeners.n; i++)
        if (s->listeners.at[i].tcp)
            return true;
    return false;
}

/* A directory of ours that nobody else may enter, new or left behind by a daemon that was killed. */
static bool make_directory(const char *path)
{
    struct stat info;
    if (mkdir(path, 0700) == 0)
        return true;
    return errno == EEXIST && lstat(path, &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == geteuid() &&
           (info.st_mode & 077) == 0;
}

/* Beside the first socket file, which no other daemon has; else in the runtime directory; else somewhere temporary. */
static bool choose_directory(const terse_supervisor *s, char *directory)
{
    enum { ROOM = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof "/front" };
    const char *runtime = getenv("RUNTIME_DIRECTORY");
    for (unsigned i = 0; i < s->listeners.n; i++)
        if (strncmp(s->listeners.at[i].endpoint, "ipc://", 6) == 0 &&
            snprintf(directory, TERSE_ENDPOINT_BYTES, "%s.gate", s->listeners.at[i].endpoint + strlen("ipc://")) <
                ROOM &&
            make_directory(directory))
            return true;
    if (runtime && *runtime &&
        snprintf(directory, TERSE_ENDPOINT_BYTES, "%.*s/gate", (int)strcspn(runtime, ":"), runtime) < ROOM &&
        make_directory(directory))
        return true;
    snprintf(directory, TERSE_ENDPOINT_BYTES, "/tmp/terse-gate-XXXXXX");
    return mkdtemp(directory) != NULL;
}

int terse_gate_open(terse_supervisor *s, terse_error *error)
{
    terse_gate_socket *gate = &s->gate_socket;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!has_tcp(s))
        return TERSE_OK;
    if (access(s->programs->gate, X_OK) < 0)
        return terse_fail(error, TERSE_SYSTEM, "tcp endpoints want '%s'", s->programs->gate);
    if (!choose_directory(s, gate->directory)) {
        terse_fail(error, TERSE_SYSTEM, "cannot make the gate's directory '%s'", gate->directory);
        gate->directory[0] = 0;
        return TERSE_SYSTEM;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/front", gate->directory);
    snprintf(gate->path, sizeof gate->path, "%s", address.sun_path);
    gate->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(gate->path); /* a killed daemon's; a living one would have the socket beside the directory */
    if (gate->fd < 0 || bind(gate->fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
        listen(gate->fd, BACKLOG) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot listen at '%s'", gate->path);
    return TERSE_OK;
}

/* --- the process ----------------------------------------------------------------------------------------------- */

/* Once for each of its lives, and whenever it tells something. */
static void tell_front(terse_supervisor *s, const terse_msg_gate *what)
{
    terse_msg_gate message = {.pid = s->gate.pid};
    if (what)
        message = *what;
    message.pid = s->gate.pid;
    message.restarts = s->gate.restarts;
    terse_child_send(&s->frontend, TERSE_MSG_GATE, &message.head, sizeof message, -1);
}

void terse_gate_introduce(terse_supervisor *s)
{
    if (s->gate_socket.fd < 0)
        return;
    terse_msg_listen message = {.trusted = 1};
    snprintf(message.endpoint, sizeof message.endpoint, "ipc://%.200s", s->gate_socket.path);
    terse_child_send(&s->frontend, TERSE_MSG_LISTEN, &message.head, sizeof message, s->gate_socket.fd);
    tell_front(s, NULL);
}

void terse_gate_front_ended(terse_supervisor *s)
{
    terse_msg message = {0};
    terse_child_send(&s->gate, TERSE_MSG_GATE_FRONT, &message, sizeof message, -1);
}

void terse_gate_send_keys(terse_supervisor *s)
{
    const terse_config *config = s->config;
    terse_msg_gate_keys *message = calloc(1, sizeof *message);
    for (unsigned at = 0; message && at < config->n_client_keys; at += message->n) {
        const unsigned left = config->n_client_keys - at;
        message->n = left < TERSE_GATE_KEYS ? left : TERSE_GATE_KEYS;
        message->first = at == 0;
        message->last = message->n == left;
        memcpy(message->keys, config->client_keys[at], (size_t)message->n * TERSE_KEY_BYTES);
        const size_t bytes = offsetof(terse_msg_gate_keys, keys) + (size_t)message->n * TERSE_KEY_BYTES;
        terse_child_send(&s->gate, TERSE_MSG_GATE_KEYS, &message->head, (uint32_t)bytes, -1);
    }
    if (!message) { /* a gate that knows other keys than it should is worse than none */
        terse_log(TERSE_LOG_ERROR, "gate: no memory for the keys of clients");
        terse_child_kill(&s->gate);
    }
    free(message);
}

/* Requests, replies and messages without end may each take a quarter: the largest request fits several times. */
static uint64_t memory_bytes(const uint64_t *value)
{
    const uint64_t least = UINT64_C(512) << 20, wanted = 16 * value[TERSE_SET_MAX_REQUEST];
    return value[TERSE_SET_GATE_MEMORY] ? value[TERSE_SET_GATE_MEMORY] : wanted < least ? least : wanted;
}

static void send_configuration(terse_supervisor *s)
{
    const uint64_t *value = s->config->value;
    terse_msg_gate_configured message = {
        .max_connections = (uint32_t)value[TERSE_SET_MAX_TCP],
        .curve = s->config->curve,
        .memory_bytes = memory_bytes(value),
        .max_request_bytes = value[TERSE_SET_MAX_REQUEST],
    };
    memcpy(message.secret_key, s->config->curve_secret, sizeof message.secret_key);
    snprintf(message.frontend, sizeof message.frontend, "ipc://%.200s", s->gate_socket.path);
    terse_child_send(&s->gate, TERSE_MSG_GATE_CONFIGURED, &message.head, sizeof message, -1);
    explicit_bzero(&message, sizeof message);
}

static void start_again(terse_supervisor *s, uint64_t delay_ms)
{
    s->gate.restarts++;
    if (delay_ms == 0) {
        terse_gate_start(s);
        return;
    }
    terse_log(TERSE_LOG_WARNING, "gate: failed to start %u times in a row; next attempt in %" PRIu64 " ms",
              s->gate.failures, delay_ms);
    s->gate.state = TERSE_CHILD_WAITING;
    terse_child_arm(&s->gate, delay_ms);
    terse_notify_status(s, "");
}

void terse_gate_start(terse_supervisor *s)
{
    char *argv[] = {(char[]){"terse-gate"}, NULL};
    terse_error error;
    terse_msg go = {0};
    if (s->gate_socket.fd < 0)
        return;
    if (terse_child_start(&s->gate, s->programs->gate, argv, &error) != TERSE_OK) {
        terse_log(TERSE_LOG_ERROR, "gate: %s", error.message);
        const uint64_t delay_ms = terse_child_back_off(&s->gate, W_EXITCODE(127, 0), 0);
        start_again(s, delay_ms ? delay_ms : 100);
        return;
    }
    terse_child_arm(&s->gate, s->config->value[TERSE_SET_FRONTEND_TIMEOUT]);
    tell_front(s, NULL); /* before it can connect there */
    send_configuration(s);
    terse_gate_send_keys(s);
    for (unsigned i = 0; i < s->listeners.n; i++) {
        if (!s->listeners.at[i].tcp)
            continue;
        terse_msg_listen message = {.endpoint = ""};
        memcpy(message.endpoint, s->listeners.at[i].endpoint, sizeof message.endpoint);
        terse_child_send(&s->gate, TERSE_MSG_LISTEN, &message.head, sizeof message, s->listeners.at[i].fd);
    }
    terse_child_send(&s->gate, TERSE_MSG_GATE_START, &go, sizeof go, -1);
    terse_notify_status(s, "");
}

static void on_serving(terse_supervisor *s)
{
    if (s->gate.state != TERSE_CHILD_STARTING)
        return;
    terse_child_ready(&s->gate);
    for (unsigned i = 0; i < s->listeners.n; i++)
        if (s->listeners.at[i].tcp)
            terse_log(TERSE_LOG_INFO, "gate (pid %d): listening at %s%s", s->gate.pid, s->listeners.at[i].endpoint,
                      s->config->curve ? ", encrypted" : "");
    terse_notify_status(s, "");
}

static void on_message(terse_child *gate, const terse_msg *message, int fd)
{
    terse_supervisor *s = gate->owner;
    TERSE_AUTO(terse_close_fdp) int unwanted = fd;
    (void)unwanted;
    if (message->kind == TERSE_MSG_SERVING && message->bytes == sizeof *message) {
        on_serving(s);
    } else if (message->kind == TERSE_MSG_GATE_ALIVE && message->bytes == sizeof(terse_msg_gate)) {
        tell_front(s, (const terse_msg_gate *)message);
    } else {
        terse_log(TERSE_LOG_ERROR, "gate (pid %d): sent message %u of %u bytes, which it should not", gate->pid,
                  message->kind, message->bytes);
        terse_child_kill(gate);
        return;
    }
    if (gate->state == TERSE_CHILD_READY)
        terse_child_arm(gate, s->config->value[TERSE_SET_FRONTEND_TIMEOUT]);
}

static void on_timer(terse_child *gate)
{
    terse_supervisor *s = gate->owner;
    if (gate->state == TERSE_CHILD_WAITING) {
        terse_gate_start(s);
    } else if (terse_child_serves(gate)) {
        terse_log(TERSE_LOG_ERROR, "gate (pid %d): no sign of life for %" PRIu64 " ms (frontend_timeout_ms): killed",
                  gate->pid, s->config->value[TERSE_SET_FRONTEND_TIMEOUT]);
        terse_child_kill(gate);
    }
}

static void on_exit_status(terse_child *gate, int wait_status)
{
    terse_supervisor *s = gate->owner;
    char text[64];
    if (s->phase >= TERSE_PHASE_STOPPING) {
        terse_supervisor_reaped(s);
        return;
    }
    const uint64_t lived_ms = (terse_now_ns() - gate->started_ns) / 1000000;
    const uint64_t delay_ms = terse_child_back_off(gate, wait_status, lived_ms);
    terse_log(TERSE_LOG_WARNING, "gate: ended with %s", terse_wait_status_text(wait_status, text, sizeof text));
    tell_front(s, NULL);
    if (s->phase == TERSE_PHASE_STARTING && gate->failures >= TERSE_START_ATTEMPTS) {
        terse_log(TERSE_LOG_ERROR, "gate: failed to start %u times in a row and never succeeded: giving up",
                  gate->failures);
        terse_supervisor_fail(s);
        return;
    }
    start_again(s, delay_ms);
}

static const terse_child_events events = {.message = on_message, .exited = on_exit_status, .timer = on_timer};

void terse_gate_init(terse_supervisor *s)
{
    terse_child_init(&s->gate, s->loop, &events, s, "gate", 0);
}

void terse_gate_done(terse_supervisor *s)
{
    terse_child_done(&s->gate);
    if (s->gate_socket.fd >= 0)
        close(s->gate_socket.fd);
    s->gate_socket.fd = -1;
    if (s->gate_socket.path[0])
        unlink(s->gate_socket.path);
    if (s->gate_socket.directory[0])
        rmdir(s->gate_socket.directory);
}
