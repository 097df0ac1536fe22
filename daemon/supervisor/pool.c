/* SPDX-License-Identifier: Apache-2.0 */
/* Workers: each is started, given every model and a data socket to the front end, and started again when it dies; there
 * may be more or fewer of them while requests come. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/supervisor.h"

static void start_worker(terse_supervisor *s, terse_child *worker);

/* A worker that is to go has so long to finish its batch. */
enum { LEAVE_MS = 120000 };

static uint64_t lived_ms(const terse_child *child)
{
    return (terse_now_ns() - child->started_ns) / 1000000;
}

/* The delay is announced once it is one: a crash loop must show in the log without flooding it. */
static void start_again(terse_supervisor *s, terse_child *worker, uint64_t delay_ms)
{
    worker->restarts++;
    if (delay_ms == 0) {
        start_worker(s, worker);
        return;
    }
    terse_log_of((.worker = worker->name), TERSE_LOG_WARNING,
                 "%s: failed to start %u times in a row; next attempt in %" PRIu64 " ms", worker->name,
                 worker->failures, delay_ms);
    terse_child_wait(worker, delay_ms);
    terse_front_tell_waiting(s, worker);
    terse_notify_status(s, "");
}

static void start_worker(terse_supervisor *s, terse_child *worker)
{
    char index[16];
    snprintf(index, sizeof index, "%u", worker->index);
    char *argv[] = {(char[]){"terse-worker"}, index, NULL};
    terse_error error;
    if (terse_child_start(worker, s->programs->worker, argv, &error) != TERSE_OK) {
        terse_log_of((.worker = worker->name, .reason = error.message), TERSE_LOG_ERROR, "%s: %s", worker->name,
                     error.message);
        worker->was_ready = false;
        if (s->phase == TERSE_PHASE_STARTING && worker->failures + 1 >= TERSE_START_ATTEMPTS)
            terse_supervisor_fail(s);
        else {
            /* What keeps fork from working (memory, processes) lasts a while: wait as for a failed start. */
            const uint64_t delay_ms = terse_child_back_off(worker, W_EXITCODE(127, 0), 0);
            start_again(s, worker, delay_ms ? delay_ms : 100);
        }
        return;
    }
    terse_models_send(s, worker);
    terse_pool_connect(s, worker);
    terse_notify_status(s, "");
}

void terse_pool_connect(terse_supervisor *s, terse_child *worker)
{
    int ends[2];
    if (!terse_child_serves(worker) || !terse_child_serves(&s->frontend) || worker->leaving)
        return;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        terse_log_of((.worker = worker->name), TERSE_LOG_ERROR, "%s: no data socket: %s", worker->name,
                     strerror(errno));
        terse_child_kill(worker); /* its restart tries again */
        return;
    }
    terse_msg message = {0};
    worker->state = TERSE_CHILD_STARTING;
    terse_child_arm(worker, s->config->value[TERSE_SET_WARM_TIMEOUT]);
    terse_child_send(worker, TERSE_MSG_DATA, &message, sizeof message, ends[0]);
    terse_front_tell_worker(s, worker, ends[1]);
    close(ends[0]);
    close(ends[1]);
}

static void on_message(terse_child *worker, const terse_msg *message, int fd)
{
    terse_supervisor *s = worker->owner;
    TERSE_AUTO(terse_close_fdp) int unwanted = fd;
    (void)unwanted;
    if (message->kind != TERSE_MSG_WARMED || !terse_models_learn(s, message)) {
        terse_log_of((.worker = worker->name), TERSE_LOG_ERROR,
                     "%s (pid %d): sent message %u of %u bytes, which it should not", worker->name, worker->pid,
                     message->kind, message->bytes);
        terse_child_kill(worker);
        return;
    }
    if (worker->state != TERSE_CHILD_STARTING)
        return;
    if (!worker->was_ready)
        terse_log_of((.worker = worker->name), TERSE_LOG_INFO, "%s (pid %d): ready after %" PRIu64 " ms", worker->name,
                     worker->pid, lived_ms(worker));
    terse_child_ready(worker);
    terse_notify_status(s, "");
}

static void on_timer(terse_child *worker)
{
    terse_supervisor *s = worker->owner;
    if (worker->state == TERSE_CHILD_WAITING) {
        start_worker(s, worker);
    } else if (worker->leaving && terse_child_serves(worker)) {
        terse_log_of((.worker = worker->name), TERSE_LOG_WARNING,
                     "%s (pid %d): has not finished its batch: ended all the same", worker->name, worker->pid);
        terse_child_kill(worker);
    } else if (worker->state == TERSE_CHILD_STARTING) {
        terse_log_of((.worker = worker->name), TERSE_LOG_ERROR,
                     "%s (pid %d): not ready after %" PRIu64 " ms (warm_timeout_ms): killed", worker->name, worker->pid,
                     s->config->value[TERSE_SET_WARM_TIMEOUT]);
        terse_child_kill(worker);
    }
}

static void on_exit_status(terse_child *worker, int wait_status)
{
    terse_supervisor *s = worker->owner;
    char text[64];
    terse_front_tell_exit(s, worker, wait_status);
    if (s->phase >= TERSE_PHASE_STOPPING) {
        terse_supervisor_reaped(s);
        return;
    }
    if (worker->leaving || worker->index >= s->n_workers) {
        terse_log_of((.worker = worker->name), TERSE_LOG_INFO, "%s: left", worker->name);
        worker->state = TERSE_CHILD_NONE;
        worker->failures = 0;
        if (worker->index < s->n_workers) /* wanted again meanwhile */
            start_worker(s, worker);
        terse_notify_status(s, "");
        return;
    }
    const uint64_t delay_ms = terse_child_back_off(worker, wait_status, lived_ms(worker));
    terse_wait_status_text(wait_status, text, sizeof text);
    terse_log_of((.worker = worker->name, .reason = worker->killed_hung ? "it hung" : text), TERSE_LOG_WARNING,
                 "%s: ended with %s%s; %s", worker->name, text, worker->killed_hung ? ", killed because it hung" : "",
                 delay_ms ? "waiting to start it again" : "starting it again");
    if (s->phase == TERSE_PHASE_STARTING && worker->failures >= TERSE_START_ATTEMPTS) {
        terse_log_of((.worker = worker->name), TERSE_LOG_ERROR,
                     "%s: failed to start %u times in a row and never succeeded: giving up", worker->name,
                     worker->failures);
        terse_supervisor_fail(s);
        return;
    }
    start_again(s, worker, delay_ms);
}

static const terse_child_events events = {.message = on_message, .exited = on_exit_status, .timer = on_timer};

int terse_pool_init(terse_supervisor *s, terse_error *error)
{
    s->workers = calloc(TERSE_MAX_WORKERS, sizeof *s->workers);
    if (!s->workers)
        return terse_fail(error, TERSE_SYSTEM, "cannot keep %d workers", TERSE_MAX_WORKERS);
    for (unsigned i = 0; i < TERSE_MAX_WORKERS; i++) {
        char name[32];
        snprintf(name, sizeof name, "worker %u", i);
        terse_child_init(&s->workers[i], s->loop, &events, s, name, i);
    }
    return TERSE_OK;
}

void terse_pool_start(terse_supervisor *s)
{
    for (unsigned i = 0; i < s->n_workers && s->phase == TERSE_PHASE_STARTING; i++)
        start_worker(s, &s->workers[i]);
}

void terse_pool_kill_hung(terse_supervisor *s, const terse_msg_worker *which)
{
    terse_child *worker = which->worker < TERSE_MAX_WORKERS ? &s->workers[which->worker] : NULL;
    /* The one that hung may have died meanwhile: its successor must not pay for it. */
    if (!worker || !terse_child_serves(worker) || worker->pid != which->pid)
        return;
    terse_log_of((.worker = worker->name, .reason = "it hangs"), TERSE_LOG_WARNING, "%s (pid %d): hangs: killed",
                 worker->name, worker->pid);
    worker->killed_hung = true;
    terse_child_kill(worker);
}

/* The front end gives it nothing more and tells when it is done; without a front end it has nothing to do. */
static void let_go(terse_supervisor *s, terse_child *worker)
{
    if (worker->state == TERSE_CHILD_WAITING) {
        terse_child_arm(worker, 0);
        worker->state = TERSE_CHILD_NONE;
        return;
    }
    if (!terse_child_serves(worker) || worker->leaving)
        return;
    worker->leaving = true;
    if (!terse_child_serves(&s->frontend)) {
        terse_child_stop(worker);
        terse_child_arm(worker, TERSE_STOP_MS);
        return;
    }
    terse_msg_worker message = {.worker = worker->index, .pid = worker->pid};
    terse_child_arm(worker, LEAVE_MS);
    terse_child_send(&s->frontend, TERSE_MSG_WORKER_LEAVE, &message.head, sizeof message, -1);
}

void terse_pool_free(terse_supervisor *s, const terse_msg_worker *which)
{
    terse_child *worker = which->worker < TERSE_MAX_WORKERS ? &s->workers[which->worker] : NULL;
    if (!worker || !worker->leaving || !terse_child_serves(worker) || worker->pid != which->pid)
        return;
    terse_child_stop(worker);
    terse_child_arm(worker, TERSE_STOP_MS);
}

void terse_pool_front_gone(terse_supervisor *s)
{
    for (unsigned i = 0; i < TERSE_MAX_WORKERS; i++)
        if (s->workers[i].leaving && terse_child_serves(&s->workers[i])) {
            terse_child_stop(&s->workers[i]);
            terse_child_arm(&s->workers[i], TERSE_STOP_MS);
        }
}

void terse_pool_resize(terse_supervisor *s, unsigned n_workers)
{
    const unsigned before = s->n_workers;
    if (n_workers == before)
        return;
    terse_log(TERSE_LOG_NOTICE, "%u workers instead of %u", n_workers, before);
    s->n_workers = n_workers;
    for (unsigned i = n_workers; i < before; i++)
        let_go(s, &s->workers[i]);
    for (unsigned i = before; i < n_workers; i++)
        if (!terse_child_runs(&s->workers[i])) /* else it is on its way out, and comes back behind that */
            start_worker(s, &s->workers[i]);
    terse_notify_status(s, "");
}

void terse_pool_done(terse_supervisor *s)
{
    for (unsigned i = 0; i < TERSE_MAX_WORKERS && s->workers; i++)
        terse_child_done(&s->workers[i]);
    free(s->workers);
    s->workers = NULL;
}
