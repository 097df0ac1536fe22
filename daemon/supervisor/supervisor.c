/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes.
 *
 * One thread, one sd-event loop, no waiting anywhere else: children are watched by pidfd, told things over their
 * control sockets (link.c queues when one is full) and delayed by timers. The supervisor reads no model, no request and
 * no tensor, so there is little that could end it; everything that touches bytes from outside is a child, and every
 * child can be replaced.
 *
 *   LOADING   a loader per model, as many at once as workers; all must succeed, all failures are told
 *   STARTING  front end and workers; the first warm worker ends it. A child that fails five times in a row here ends
 *             tersed with exit code 1: a daemon that never worked should say so to whoever starts it
 *   SERVING   a dead child is started again at once, with growing delays while its starts fail, without end
 *   DRAINING  SIGTERM: the front end answers what it has (drain_timeout_ms); dead workers are still replaced
 *   STOPPING  control sockets closed, which tells a child to exit; after TERSE_STOP_MS SIGKILL
 *
 * The listening sockets and the models' memory belong to the supervisor for its whole life. A dead worker costs its
 * batch's time only: the front end has the requests. A dead front end costs its clients a resend: the sockets' backlog
 * keeps them, the workers keep their models and get a new data socket. When the supervisor itself is killed, so are all
 * children (PR_SET_PDEATHSIG, and the end of their control sockets); no memory has a name, so none is left behind, and
 * a socket file that nobody listens at is replaced at the next start. */
#include "daemon/supervisor/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/cores.h"

const char *terse_phase_name(terse_phase phase)
{
    static const char *const names[] = {
#define PHASE_NAME(id, text) [TERSE_PHASE_##id] = text,
        TERSE_PHASES(PHASE_NAME)
#undef PHASE_NAME
    };
    return (size_t)phase < sizeof names / sizeof names[0] ? names[phase] : "?";
}

static void enter(terse_supervisor *s, terse_phase phase, const char *notify_lines)
{
    s->phase = phase;
    terse_notify_status(s, notify_lines);
}

static void each_child(terse_supervisor *s, void (*act)(terse_child *child))
{
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++) {
        act(&s->models[i].loader);
        act(&s->models[i].trial);
    }
    act(&s->frontend);
    act(&s->gate);
    for (unsigned i = 0; i < TERSE_MAX_WORKERS; i++)
        act(&s->workers[i]);
}

static unsigned count_running(const terse_supervisor *s)
{
    unsigned n = (unsigned)terse_child_runs(&s->frontend) + terse_child_runs(&s->gate);
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++)
        n += (unsigned)terse_child_runs(&s->models[i].loader) + terse_child_runs(&s->models[i].trial);
    for (unsigned i = 0; i < TERSE_MAX_WORKERS; i++)
        n += terse_child_runs(&s->workers[i]);
    return n;
}

/* --- stopping ------------------------------------------------------------------------------------------------ */

static int on_stop_timer(sd_event_source *source, uint64_t now_us, void *user);

static void arm_stop_timer(terse_supervisor *s, uint64_t after_ms)
{
    int r;
    if (!s->stop_timer) {
        r = sd_event_add_time_relative(s->loop, &s->stop_timer, CLOCK_MONOTONIC, after_ms * 1000, 1000, on_stop_timer,
                                       s);
    } else {
        r = sd_event_source_set_time_relative(s->stop_timer, after_ms * 1000);
        if (r >= 0)
            r = sd_event_source_set_enabled(s->stop_timer, SD_EVENT_ONESHOT);
    }
    if (r < 0) { /* without a timer nothing could be waited for */
        terse_log(TERSE_LOG_ERROR, "no timer to stop by: %s; killing every child", strerror(-r));
        each_child(s, terse_child_kill);
    }
}

static void begin_stopping(terse_supervisor *s)
{
    if (s->phase >= TERSE_PHASE_STOPPING)
        return;
    terse_operations_stop(s);
    enter(s, TERSE_PHASE_STOPPING, "STOPPING=1\n");
    arm_stop_timer(s, TERSE_STOP_MS);
    each_child(s, terse_child_stop);
    terse_supervisor_reaped(s);
}

static int on_stop_timer(sd_event_source *source, uint64_t now_us, void *user)
{
    terse_supervisor *s = user;
    (void)source;
    (void)now_us;
    if (s->phase == TERSE_PHASE_DRAINING) {
        terse_log(TERSE_LOG_WARNING, "not drained after %" PRIu64 " ms (drain_timeout_ms): stopping",
                  s->config->value[TERSE_SET_DRAIN_TIMEOUT]);
        begin_stopping(s);
    } else {
        terse_log(TERSE_LOG_WARNING, "%u processes did not exit by themselves: killed", count_running(s));
        each_child(s, terse_child_kill);
    }
    return 0;
}

void terse_supervisor_fail(terse_supervisor *s)
{
    s->exit_code = 1;
    begin_stopping(s);
}

void terse_supervisor_drained(terse_supervisor *s)
{
    begin_stopping(s);
}

void terse_supervisor_reaped(terse_supervisor *s)
{
    if (s->phase != TERSE_PHASE_STOPPING || count_running(s) > 0)
        return;
    s->phase = TERSE_PHASE_FINISHED;
    sd_event_exit(s->loop, s->exit_code);
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *user)
{
    terse_supervisor *s = user;
    (void)source;
    const char *name = info->ssi_signo == SIGINT ? "SIGINT" : "SIGTERM";
    if (s->phase >= TERSE_PHASE_DRAINING) {
        terse_log(TERSE_LOG_WARNING, "%s again: not waiting any longer", name);
        begin_stopping(s);
        each_child(s, terse_child_kill);
    } else if (s->frontend.state == TERSE_CHILD_READY) {
        terse_log(TERSE_LOG_NOTICE, "%s: draining", name);
        terse_operations_stop(s);
        enter(s, TERSE_PHASE_DRAINING, "STOPPING=1\n");
        arm_stop_timer(s, s->config->value[TERSE_SET_DRAIN_TIMEOUT]);
        terse_front_drain(s);
    } else {
        terse_log(TERSE_LOG_NOTICE, "%s: stopping", name);
        begin_stopping(s);
    }
    return 0;
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *user)
{
    (void)source;
    terse_reread_begin(user, (pid_t)info->ssi_pid);
    return 0;
}

/* --- starting ------------------------------------------------------------------------------------------------ */

void terse_supervisor_loaded(terse_supervisor *s)
{
    if (s->phase != TERSE_PHASE_LOADING)
        return;
    if (s->n_bad_models) {
        terse_log(TERSE_LOG_ERROR, "%u of %u models cannot be served", s->n_bad_models, s->n_models);
        terse_supervisor_fail(s);
        return;
    }
    terse_store_sweep(&s->store);
    enter(s, TERSE_PHASE_STARTING, "");
    terse_front_start(s);
    if (s->phase == TERSE_PHASE_STARTING)
        terse_pool_start(s);
    if (s->phase == TERSE_PHASE_STARTING)
        terse_gate_start(s);
}

void terse_supervisor_ready(terse_supervisor *s)
{
    if (s->phase != TERSE_PHASE_STARTING)
        return;
    char lines[64];
    snprintf(lines, sizeof lines, "READY=1\nMAINPID=%d\n", (int)getpid());
    enter(s, TERSE_PHASE_SERVING, lines);
    terse_log(TERSE_LOG_NOTICE, "ready: %s", s->status);
}

/* Enough for many requests, little enough for the machine; pages cost nothing until a request touches them. */
static uint64_t default_slots(uint64_t max_request_bytes)
{
    const uint64_t least = UINT64_C(64) << 20, most = UINT64_C(1) << 30;
    uint64_t bytes = terse_cores_memory("") / 8;
    bytes = bytes < least ? least : bytes > most ? most : bytes;
    return bytes < 2 * max_request_bytes ? 2 * max_request_bytes : bytes;
}

static uint64_t default_arenas(void)
{
    const uint64_t least = UINT64_C(128) << 20, most = UINT64_C(4) << 30, quarter = terse_cores_memory("") / 4;
    return quarter < least ? least : quarter > most ? most : quarter;
}

unsigned terse_supervisor_workers(const terse_config *config)
{
    const uint64_t *value = config->value;
    const unsigned n = value[TERSE_SET_WORKERS] ? (unsigned)value[TERSE_SET_WORKERS]
                                                : terse_cores_workers("", (unsigned)value[TERSE_SET_THREADS]);
    return n > TERSE_MAX_WORKERS ? TERSE_MAX_WORKERS : n;
}

static void derive(terse_supervisor *s)
{
    const uint64_t *value = s->config->value;
    const uint64_t automatic = default_slots(value[TERSE_SET_MAX_REQUEST]);
    s->n_workers = terse_supervisor_workers(s->config);
    s->input_bytes = value[TERSE_SET_INPUT_MEMORY] ? value[TERSE_SET_INPUT_MEMORY] : automatic;
    s->output_bytes = value[TERSE_SET_OUTPUT_MEMORY] ? value[TERSE_SET_OUTPUT_MEMORY] : automatic;
    s->arena_bytes = value[TERSE_SET_ARENA_BYTES] ? value[TERSE_SET_ARENA_BYTES] : default_arenas();
}

static int watch_signals(terse_supervisor *s, terse_error *error)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD,
           SIG_DFL); /* whoever started us may have left it ignored, and then nobody learns how a child ended */
    int r = sd_event_add_signal(s->loop, NULL, SIGTERM, on_stop_signal, s);
    if (r >= 0)
        r = sd_event_add_signal(s->loop, NULL, SIGINT, on_stop_signal, s);
    if (r >= 0)
        r = sd_event_add_signal(s->loop, NULL, SIGHUP, on_hangup, s);
    if (r >= 0)
        return TERSE_OK;
    errno = -r;
    return terse_fail(error, TERSE_SYSTEM, "cannot watch signals");
}

static int set_up(terse_supervisor *s, terse_error *error)
{
    const int r = sd_event_new(&s->loop);
    if (r < 0) {
        errno = -r;
        return terse_fail(error, TERSE_SYSTEM, "cannot create the event loop");
    }
    derive(s);
    terse_front_init(s);
    terse_gate_init(s);
    int done = watch_signals(s, error);
    if (done == TERSE_OK)
        done = terse_notify_init(s, error);
    if (done == TERSE_OK)
        done = terse_store_open(&s->store, s->programs->loader, error);
    if (done == TERSE_OK)
        done = terse_listeners_open(&s->listeners, &s->store, s->config, error);
    if (done == TERSE_OK)
        done = terse_gate_open(s, error);
    if (done == TERSE_OK)
        done = terse_pool_init(s, error);
    if (done == TERSE_OK)
        done = terse_models_init(s, error);
    return done;
}

static void tear_down(terse_supervisor *s)
{
    terse_listeners_close(&s->listeners);
    terse_operations_stop(s);
    terse_child_done(&s->frontend);
    terse_gate_done(s);
    terse_pool_done(s);
    terse_models_done(s);
    terse_store_close(&s->store);
    terse_notify_done(s);
    s->stop_timer = sd_event_source_disable_unref(s->stop_timer);
    s->operation_timer = sd_event_source_disable_unref(s->operation_timer);
    s->loop = sd_event_unref(s->loop);
}

int terse_supervisor_run(terse_config *config, const terse_programs *programs, terse_reread *reread, void *user)
{
    terse_supervisor s = {
        .config = config,
        .programs = programs,
        .reread = reread,
        .reread_user = user,
        .frontend = {.pidfd = -1, .link = {.fd = -1}},
        .gate = {.pidfd = -1, .link = {.fd = -1}},
        .gate_socket = {.fd = -1},
    };
    terse_error error;
    int code = 1;
    if (set_up(&s, &error) == TERSE_OK) {
        terse_log(TERSE_LOG_INFO, "version %s: loading %u model%s for %u worker%s", TERSE_VERSION, s.n_models,
                  s.n_models == 1 ? "" : "s", s.n_workers, s.n_workers == 1 ? "" : "s");
        terse_notify_status(&s, "");
        terse_models_load(&s);
        code = sd_event_loop(s.loop);
        if (code < 0) {
            terse_log(TERSE_LOG_ERROR, "the event loop failed: %s", strerror(-code));
            code = 1;
        }
        terse_log(TERSE_LOG_NOTICE, "stopped");
    } else {
        terse_log(TERSE_LOG_ERROR, "%s", error.message);
    }
    tear_down(&s);
    terse_config_free(s.config);
    return code;
}
