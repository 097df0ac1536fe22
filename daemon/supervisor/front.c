/* SPDX-License-Identifier: Apache-2.0 */
/* The front end: started with every model, listening socket and living worker, and replaced when it dies; the workers
 * and the clients' connections in the backlog outlive it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/supervisor.h"

static void start_again(terse_supervisor *s, uint64_t delay_ms)
{
    terse_child *frontend = &s->frontend;
    frontend->restarts++;
    if (delay_ms == 0) {
        terse_front_start(s);
        return;
    }
    terse_log(TERSE_LOG_WARNING, "front end: failed to start %u times in a row; next attempt in %" PRIu64 " ms",
              frontend->failures, delay_ms);
    terse_child_wait(frontend, delay_ms);
    terse_notify_status(s, "");
}

void terse_front_configure(terse_supervisor *s)
{
    const uint64_t *value = s->config->value;
    terse_msg_configured message = {
        .n_models = terse_models_count(s),
        .n_workers = s->n_workers,
        .input_bytes = s->input_bytes,
        .output_bytes = s->output_bytes,
        .max_request_bytes = value[TERSE_SET_MAX_REQUEST],
        .max_queue_bytes = value[TERSE_SET_MAX_QUEUE_BYTES],
        .max_client_bytes = value[TERSE_SET_MAX_CLIENT_BYTES],
        .finished_bytes = value[TERSE_SET_FINISHED_MEMORY],
        .max_queue = (uint32_t)value[TERSE_SET_MAX_QUEUE],
        .max_user_connections = (uint32_t)value[TERSE_SET_MAX_USER],
        .max_client_outstanding = (uint32_t)value[TERSE_SET_MAX_CLIENT],
        .arena_bytes_per_uid = s->arena_bytes,
        .arenas_per_uid = (uint32_t)value[TERSE_SET_ARENAS],
        .spin_us = (uint32_t)value[TERSE_SET_SPIN],
        .statistics = value[TERSE_SET_STATISTICS] != 0,
        .trace_millionths = (uint32_t)value[TERSE_SET_TRACE_SAMPLE],
    };
    terse_child_send(&s->frontend, TERSE_MSG_CONFIGURED, &message.head, sizeof message, -1);
    terse_msg_settings settings;
    terse_config_describe(s->config, settings.text, sizeof settings.text);
    terse_child_send(&s->frontend, TERSE_MSG_SETTINGS, &settings.head,
                     (uint32_t)(sizeof settings.head + strlen(settings.text) + 1), -1);
}

void terse_front_start(terse_supervisor *s)
{
    terse_child *frontend = &s->frontend;
    char *argv[] = {(char[]){"terse-frontend"}, NULL};
    terse_error error;
    if (terse_child_start(frontend, s->programs->frontend, argv, &error) != TERSE_OK) {
        terse_log(TERSE_LOG_ERROR, "front end: %s", error.message);
        frontend->was_ready = false;
        if (s->phase == TERSE_PHASE_STARTING && frontend->failures + 1 >= TERSE_START_ATTEMPTS)
            terse_supervisor_fail(s);
        else {
            const uint64_t delay_ms = terse_child_back_off(frontend, W_EXITCODE(127, 0), 0);
            start_again(s, delay_ms ? delay_ms : 100);
        }
        return;
    }
    terse_child_arm(frontend, s->config->value[TERSE_SET_WARM_TIMEOUT]);
    terse_models_send(s, frontend);
    terse_gate_introduce(s);
    for (unsigned i = 0; i < s->listeners.n; i++) {
        if (s->listeners.at[i].tcp)
            continue;
        terse_msg_listen message = {.endpoint = ""};
        memcpy(message.endpoint, s->listeners.at[i].endpoint, sizeof message.endpoint);
        terse_child_send(frontend, TERSE_MSG_LISTEN, &message.head, sizeof message, s->listeners.at[i].fd);
    }
    for (unsigned i = 0; i < s->n_workers; i++) {
        terse_pool_connect(s, &s->workers[i]);
        if (s->workers[i].state == TERSE_CHILD_WAITING)
            terse_front_tell_waiting(s, &s->workers[i]);
    }
    terse_front_configure(s);
    terse_operations_front_started(s);
    terse_notify_status(s, "");
}

void terse_front_tell_worker(terse_supervisor *s, const terse_child *worker, int data)
{
    terse_msg_worker message = {.worker = worker->index, .pid = worker->pid, .restarts = worker->restarts};
    terse_child_send(&s->frontend, TERSE_MSG_WORKER, &message.head, sizeof message, data);
}

void terse_front_tell_waiting(terse_supervisor *s, const terse_child *worker)
{
    terse_msg_worker_waits message = {
        .worker = worker->index,
        .restarts = worker->restarts,
        .failures = worker->failures,
        .wait_ms = (uint32_t)terse_child_wait_ms(worker),
    };
    terse_child_send(&s->frontend, TERSE_MSG_WORKER_WAITS, &message.head, sizeof message, -1);
}

void terse_front_tell_exit(terse_supervisor *s, const terse_child *worker, int wait_status)
{
    terse_msg_worker message = {
        .worker = worker->index,
        .restarts = worker->restarts,
        .wait_status = wait_status,
        .killed_hung = worker->killed_hung,
        .expected = s->phase >= TERSE_PHASE_STOPPING || worker->leaving,
    };
    terse_child_send(&s->frontend, TERSE_MSG_WORKER_EXIT, &message.head, sizeof message, -1);
}

void terse_front_drain(terse_supervisor *s)
{
    terse_msg message = {0};
    terse_child_send(&s->frontend, TERSE_MSG_DRAIN, &message, sizeof message, -1);
}

bool terse_front_silent(const terse_supervisor *s)
{
    return s->frontend.state == TERSE_CHILD_READY &&
           terse_now_ns() - s->alive_ns > s->config->value[TERSE_SET_FRONTEND_TIMEOUT] * 1000000;
}

static void show_life(terse_supervisor *s)
{
    s->alive_ns = terse_now_ns();
    terse_child_arm(&s->frontend, s->config->value[TERSE_SET_FRONTEND_TIMEOUT]);
}

static void on_serving(terse_supervisor *s)
{
    terse_child *frontend = &s->frontend;
    if (frontend->state != TERSE_CHILD_STARTING)
        return;
    terse_child_ready(frontend);
    show_life(s);
    for (unsigned i = 0; i < s->listeners.n; i++)
        if (!s->listeners.at[i].tcp)
            terse_log(TERSE_LOG_INFO, "front end (pid %d): listening at %s", frontend->pid,
                      s->listeners.at[i].endpoint);
    if (s->workers_warm)
        terse_supervisor_ready(s);
    terse_notify_status(s, "");
}

/* True when the message is one that a front end sends, with its size. */
static bool handle(terse_supervisor *s, const terse_msg *message)
{
    switch (message->kind) {
    case TERSE_MSG_SERVING:
        on_serving(s);
        return message->bytes == sizeof *message;
    case TERSE_MSG_READY:
        s->workers_warm = true;
        if (s->frontend.state == TERSE_CHILD_READY)
            terse_supervisor_ready(s);
        return message->bytes == sizeof *message;
    case TERSE_MSG_ALIVE:
        if (message->bytes != sizeof s->alive)
            return false;
        memcpy(&s->alive, message, sizeof s->alive);
        if (s->frontend.state == TERSE_CHILD_READY)
            show_life(s);
        return true;
    case TERSE_MSG_KILL_WORKER:
        if (message->bytes != sizeof(terse_msg_worker))
            return false;
        terse_pool_kill_hung(s, (const terse_msg_worker *)message);
        return true;
    case TERSE_MSG_WORKER_FREE:
        if (message->bytes != sizeof(terse_msg_worker))
            return false;
        terse_pool_free(s, (const terse_msg_worker *)message);
        return true;
    case TERSE_MSG_ADMIN:
        if (message->bytes != sizeof(terse_msg_admin))
            return false;
        terse_operations_order(s, (const terse_msg_admin *)message);
        return true;
    case TERSE_MSG_MODEL_SWITCHED:
    case TERSE_MSG_MODEL_FAILED:
    case TERSE_MSG_MODEL_GONE:
        if (message->bytes != sizeof(terse_msg_model_state))
            return false;
        terse_operations_message(s, (const terse_msg_model_state *)message);
        return true;
    case TERSE_MSG_DRAINED:
        if (s->phase == TERSE_PHASE_DRAINING)
            terse_supervisor_drained(s);
        return message->bytes == sizeof *message;
    default:
        return false;
    }
}

/* Of a memory that it shares with a client the workers get a descriptor that only reads. */
static bool open_read_only(terse_child *frontend, const terse_msg *message, int fd)
{
    if (message->kind != TERSE_MSG_READ_ONLY || message->bytes != sizeof(terse_msg_read_only) || fd < 0)
        return false;
    terse_msg_read_only answer;
    memcpy(&answer, message, sizeof answer);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    TERSE_AUTO(terse_close_fdp) int opened = open(path, O_RDONLY | O_CLOEXEC);
    if (opened < 0)
        terse_log(TERSE_LOG_WARNING, "cannot open a shared memory for reading only: %s", strerror(errno));
    terse_child_send(frontend, TERSE_MSG_READ_ONLY, &answer.head, sizeof answer, opened);
    return true;
}

static void on_message(terse_child *frontend, const terse_msg *message, int fd)
{
    terse_supervisor *s = frontend->owner;
    TERSE_AUTO(terse_close_fdp) int unwanted = fd;
    if (open_read_only(frontend, message, unwanted))
        return;
    if (handle(s, message))
        return;
    terse_log(TERSE_LOG_ERROR, "front end (pid %d): sent message %u of %u bytes, which it should not", frontend->pid,
              message->kind, message->bytes);
    terse_child_kill(frontend);
}

static void on_timer(terse_child *frontend)
{
    terse_supervisor *s = frontend->owner;
    if (frontend->state == TERSE_CHILD_WAITING) {
        terse_front_start(s);
        return;
    }
    if (!terse_child_serves(frontend))
        return;
    const terse_setting_id limit =
        frontend->state == TERSE_CHILD_READY ? TERSE_SET_FRONTEND_TIMEOUT : TERSE_SET_WARM_TIMEOUT;
    terse_log(TERSE_LOG_ERROR, "front end (pid %d): no sign of life for %" PRIu64 " ms (%s): killed", frontend->pid,
              s->config->value[limit], terse_settings[limit].name);
    terse_child_kill(frontend);
}

static void on_exit_status(terse_child *frontend, int wait_status)
{
    terse_supervisor *s = frontend->owner;
    char text[64];
    s->workers_warm = false;
    s->alive = (terse_msg_alive){.served = 0};
    terse_pool_front_gone(s);
    terse_operations_front_gone(s);
    terse_gate_front_ended(s);
    if (s->phase >= TERSE_PHASE_STOPPING) {
        terse_supervisor_reaped(s);
        return;
    }
    const uint64_t lived_ms = (terse_now_ns() - frontend->started_ns) / 1000000;
    const uint64_t delay_ms = terse_child_back_off(frontend, wait_status, lived_ms);
    terse_log(TERSE_LOG_WARNING, "front end: ended with %s", terse_wait_status_text(wait_status, text, sizeof text));
    if (s->phase == TERSE_PHASE_DRAINING) { /* what it had is lost: there is nothing to wait for */
        terse_supervisor_drained(s);
        return;
    }
    if (s->phase == TERSE_PHASE_STARTING && frontend->failures >= TERSE_START_ATTEMPTS) {
        terse_log(TERSE_LOG_ERROR, "front end: failed to start %u times in a row and never succeeded: giving up",
                  frontend->failures);
        terse_supervisor_fail(s);
        return;
    }
    start_again(s, delay_ms);
}

static const terse_child_events events = {.message = on_message, .exited = on_exit_status, .timer = on_timer};

void terse_front_init(terse_supervisor *s)
{
    terse_child_init(&s->frontend, s->loop, &events, s, "front end", 0);
}
