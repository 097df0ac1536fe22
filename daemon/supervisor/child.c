/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/spawn.h"

enum { LAST_MOMENT_MS = 1000, QUICK_MS = 1000, QUICK_DEATHS = 3, FIRST_DELAY_MS = 100, MAX_DELAY_MS = 5000 };

const char *terse_child_state_name(terse_child_state state)
{
    static const char *const names[] = {
#define STATE_NAME(id, text) [TERSE_CHILD_##id] = text,
        TERSE_CHILD_STATES(STATE_NAME)
#undef STATE_NAME
    };
    return (size_t)state < sizeof names / sizeof names[0] ? names[state] : "?";
}

void terse_child_init(terse_child *child, sd_event *loop, const terse_child_events *events, void *owner,
                      const char *name, unsigned index)
{
    *child =
        (terse_child){.index = index, .owner = owner, .events = events, .loop = loop, .pidfd = -1, .link = {.fd = -1}};
    snprintf(child->name, sizeof child->name, "%s", name);
}

bool terse_child_runs(const terse_child *child)
{
    return child->pid != 0;
}

bool terse_child_serves(const terse_child *child)
{
    return child->state == TERSE_CHILD_STARTING || child->state == TERSE_CHILD_READY;
}

/* The sources go before their descriptors do; the timer's stays for the slot's whole life. */
static void release(terse_child *child)
{
    child->exit_source = sd_event_source_disable_unref(child->exit_source);
    child->io_source = sd_event_source_disable_unref(child->io_source);
    terse_child_arm(child, 0);
    terse_link_close(&child->link);
    if (child->pidfd >= 0)
        close(child->pidfd);
    child->pidfd = -1;
    child->pid = 0;
}

void terse_child_done(terse_child *child)
{
    terse_child_kill(child);
    release(child);
    child->timer_source = sd_event_source_disable_unref(child->timer_source);
    child->state = TERSE_CHILD_DEAD;
}

static void watch_writable(terse_child *child)
{
    if (child->io_source)
        sd_event_source_set_io_events(child->io_source, child->link.first ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* EOF comes with the end of the process, which then has a moment to end in its own way, so that its exit status is the
 * true one. A process that goes on without its control socket, or says what no message is, is of no use. */
static void lose_control(terse_child *child, bool at_once)
{
    child->io_source = sd_event_source_disable_unref(child->io_source);
    if (child->state == TERSE_CHILD_STOPPING || child->state == TERSE_CHILD_KILLED)
        return;
    child->state = TERSE_CHILD_STOPPING;
    terse_child_arm(child, LAST_MOMENT_MS);
    if (at_once)
        terse_child_kill(child);
}

/* Takes one message; false when there is none now, or never again. */
static bool receive(terse_child *child)
{
    static _Alignas(8) unsigned char buffer[TERSE_MSG_BYTES];
    int fds[4], n_fds = 0;
    const int64_t bytes = terse_msg_receive(child->link.fd, buffer, fds, &n_fds);
    if (bytes < 0 && errno == EAGAIN)
        return false;
    if (bytes <= 0) {
        if (bytes < 0)
            terse_log(TERSE_LOG_ERROR, "%s (pid %d): its control socket: %s", child->name, child->pid, strerror(errno));
        lose_control(child, bytes < 0);
        return false;
    }
    for (int i = 1; i < n_fds; i++)
        close(fds[i]);
    child->events->message(child, (const terse_msg *)buffer, n_fds ? fds[0] : -1);
    return true;
}

static int on_control(sd_event_source *source, int fd, uint32_t events, void *user)
{
    terse_child *child = user;
    (void)source;
    (void)fd;
    if (events & EPOLLOUT) {
        if (!terse_link_flush(&child->link))
            terse_child_kill(child);
        watch_writable(child);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(child);
    return 0;
}

/* A pidfd is readable once its process has ended. Watched as any descriptor: the loop's own sources for children abort
 * the whole process when the kernel has no memory to watch one. */
static int on_exit_of(sd_event_source *source, int fd, uint32_t events, void *user)
{
    terse_child *child = user;
    int wait_status = W_EXITCODE(255, 0);
    (void)source;
    (void)fd;
    (void)events;
    if (waitpid(child->pid, &wait_status, WNOHANG) == 0)
        return 0;
    while (child->io_source && receive(child)) /* its last words */
        ;
    release(child);
    child->state = TERSE_CHILD_DEAD;
    child->events->exited(child, wait_status);
    return 0;
}

static int watch(terse_child *child)
{
    int r = sd_event_add_io(child->loop, &child->io_source, child->link.fd, EPOLLIN, on_control, child);
    if (r >= 0)
        r = sd_event_add_io(child->loop, &child->exit_source, child->pidfd, EPOLLIN, on_exit_of, child);
    return r;
}

int terse_child_start(terse_child *child, const char *path, char *const *argv, terse_error *error)
{
    TERSE_AUTO(terse_close_fdp) int child_end = -1;
    int r = terse_link_open(&child->link, &child_end, error);
    if (r != TERSE_OK)
        return r;
    r = terse_spawn(path, argv, child_end, &child->pid, &child->pidfd, error);
    if (r != TERSE_OK) {
        terse_link_close(&child->link);
        child->state = TERSE_CHILD_DEAD;
        return r;
    }
    const int watched = watch(child);
    if (watched < 0) {
        kill(child->pid, SIGKILL);
        while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        release(child);
        child->state = TERSE_CHILD_DEAD;
        errno = -watched;
        return terse_fail(error, TERSE_SYSTEM, "cannot watch %s", child->name);
    }
    child->state = TERSE_CHILD_STARTING;
    child->started_ns = terse_now_ns();
    child->was_ready = false;
    child->killed_hung = false;
    child->leaving = false;
    return TERSE_OK;
}

void terse_child_send(terse_child *child, terse_msg_kind kind, terse_msg *message, uint32_t bytes, int fd)
{
    if (!terse_child_serves(child))
        return;
    if (!terse_link_send(&child->link, kind, message, bytes, fd)) {
        if (errno != EPIPE && errno != ECONNRESET) /* else it is dead, and its exit comes next */
            terse_log(TERSE_LOG_ERROR, "%s (pid %d): cannot send it a message: %s", child->name, child->pid,
                      strerror(errno));
        terse_child_kill(child);
        return;
    }
    watch_writable(child);
}

void terse_child_ready(terse_child *child)
{
    if (child->state != TERSE_CHILD_STARTING)
        return;
    child->state = TERSE_CHILD_READY;
    child->was_ready = true;
    terse_child_arm(child, 0);
}

void terse_child_stop(terse_child *child)
{
    if (!terse_child_runs(child) || child->state == TERSE_CHILD_KILLED)
        return;
    child->io_source = sd_event_source_disable_unref(child->io_source);
    terse_link_close(&child->link);
    child->state = TERSE_CHILD_STOPPING;
}

void terse_child_kill(terse_child *child)
{
    if (!terse_child_runs(child))
        return;
    child->state = TERSE_CHILD_KILLED;
    pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0); /* fails only when it is dead */
}

static int on_timer(sd_event_source *source, uint64_t now_us, void *user)
{
    terse_child *child = user;
    (void)source;
    (void)now_us;
    if (terse_child_runs(child) && !child->io_source)
        terse_child_kill(child); /* its last moment is over */
    else
        child->events->timer(child);
    return 0;
}

void terse_child_arm(terse_child *child, uint64_t after_ms)
{
    int r = 0;
    if (!child->timer_source && after_ms)
        r = sd_event_add_time_relative(child->loop, &child->timer_source, CLOCK_MONOTONIC, after_ms * 1000, 1000,
                                       on_timer, child);
    else if (child->timer_source && after_ms) {
        r = sd_event_source_set_time_relative(child->timer_source, after_ms * 1000);
        if (r >= 0)
            r = sd_event_source_set_enabled(child->timer_source, SD_EVENT_ONESHOT);
    } else if (child->timer_source)
        sd_event_source_set_enabled(child->timer_source, SD_EVENT_OFF);
    if (r < 0)
        terse_log(TERSE_LOG_ERROR, "%s: no timer: %s", child->name, strerror(-r));
}

void terse_child_wait(terse_child *child, uint64_t delay_ms)
{
    child->state = TERSE_CHILD_WAITING;
    child->due_ns = terse_now_ns() + delay_ms * 1000000;
    terse_child_arm(child, delay_ms);
}

uint64_t terse_child_wait_ms(const terse_child *child)
{
    const uint64_t now = terse_now_ns();
    return child->state == TERSE_CHILD_WAITING && child->due_ns > now ? (child->due_ns - now + 999999) / 1000000 : 0;
}

/* A child that was killed by somebody else did not fail by itself, unless it never became ready: the OOM killer's
 * work on a machine that has no room for it must not make a storm of restarts. */
uint64_t terse_child_back_off(terse_child *child, int wait_status, uint64_t lived_ms)
{
    const bool foreign = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL && !child->killed_hung;
    const bool failed = !child->was_ready || (lived_ms < QUICK_MS && !foreign);
    child->failures = failed ? child->failures + 1 : 0;
    if (child->failures < QUICK_DEATHS)
        return 0;
    const unsigned doublings = child->failures - QUICK_DEATHS;
    return doublings >= 6 ? MAX_DELAY_MS : (uint64_t)FIRST_DELAY_MS << doublings;
}

const char *terse_wait_status_text(int wait_status, char *text, size_t size)
{
    if (WIFSIGNALED(wait_status))
        snprintf(text, size, "signal %d (%s)", WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    else
        snprintf(text, size, "exit status %d", WEXITSTATUS(wait_status));
    return text;
}
