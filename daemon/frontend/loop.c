/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/loop.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* Design notes
 *   One turn: what epoll told (workers first, they give replies and room), deadlines, dispatch, then messages.
 *   ZeroMQ's descriptor is edge-triggered: it may only be waited for after the socket said that nothing is there, and
 * any send may have swallowed its ring (`router_unsure`). So a turn ends with receiving, and the loop sleeps only when
 * that found nothing and nothing was sent behind it. To ask the socket for nothing costs two system calls, so requests
 * that come through rings and are answered there do not. Under load a turn takes up to RECEIVE_AT_ONCE messages before
 * workers are looked at again, which fills batches. */
enum { RECEIVE_AT_ONCE = 64, EVENTS = 64 };
#define RETRY_NS UINT64_C(5000000)
#define LOOK_NS UINT64_C(500000)
#define LINGER_MS 2000

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When something is due without any message. */
static uint64_t next_wake(const terse_frontend *fe)
{
    uint64_t wake = earlier(fe->alive_ns, fe->hold_ns);
    const terse_request *first = terse_queue_deadline_first(&fe->queue);
    if (first)
        wake = earlier(wake, first->deadline_ns);
    if (fe->clients.slow)
        wake = earlier(wake, fe->now_ns + RETRY_NS);
    for (uint32_t i = 0; i < fe->n_workers; i++)
        if (fe->workers[i].state == TERSE_POOL_RUNNING)
            wake = earlier(wake, fe->workers[i].hang_ns);
    return wake;
}

/* epoll_pwait2 counts in nanoseconds; kernels and sandboxes without it get milliseconds, rounded up. */
static int wait_until(terse_frontend *fe, struct epoll_event *events, uint64_t wake_ns)
{
    static bool coarse;
    const uint64_t now = terse_now_ns();
    const uint64_t left = wake_ns > now ? wake_ns - now : 0;
    int n = -1;
    if (!coarse) {
        const struct timespec time = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
        n = epoll_pwait2(fe->epoll_fd, events, EVENTS, &time, NULL);
        if (n < 0 && (errno == ENOSYS || errno == EPERM))
            coarse = true;
    }
    if (coarse)
        n = epoll_wait(fe->epoll_fd, events, EVENTS, (int)((left + 999999) / 1000000));
    return n;
}

/* Looks for events and entries until nothing came for spin_us; other processes get the core between two looks. What is
 * due meanwhile waits for no longer than that. */
static int spin(terse_frontend *fe, struct epoll_event *events)
{
    for (;;) {
        const int n = epoll_wait(fe->epoll_fd, events, EVENTS, 0);
        if (n != 0 || terse_ring_pending(fe))
            return n;
        if (terse_now_ns() - fe->busy_ns >= fe->spin_ns)
            return 0;
        sched_yield();
    }
}

static int next_events(terse_frontend *fe, struct epoll_event *events, bool more)
{
    if (more)
        return wait_until(fe, events, 0);
    if (fe->arenas.active && terse_ring_swamped(fe))
        return wait_until(fe, events, earlier(next_wake(fe), fe->now_ns + LOOK_NS));
    if (fe->spin_ns && terse_now_ns() - fe->busy_ns < fe->spin_ns)
        return spin(fe, events);
    return wait_until(fe, events, terse_ring_park(fe) ? next_wake(fe) : 0);
}

/* false: the supervisor is gone. */
static bool handle_events(terse_frontend *fe, const struct epoll_event *events, int n)
{
    bool control = false;
    for (int i = 0; i < n; i++) {
        const uint64_t what = events[i].data.u64;
        if (what < fe->n_workers)
            terse_complete_receive(fe, &fe->workers[what]);
        else if (what == TERSE_LOOP_CONTROL)
            control = true;
        else if (what == TERSE_LOOP_ROUTER)
            fe->router_unsure = true;
        else if (what == TERSE_LOOP_WAKE) {
            uint64_t count;
            if (read(fe->wake_fd, &count, sizeof count) < 0)
                continue; /* rung already taken */
        } else if (what >= TERSE_LOOP_RING)
            terse_ring_rung(fe, (uint32_t)(what - TERSE_LOOP_RING));
        else if (what >= TERSE_LOOP_ARENA)
            terse_attach_hear_arena(fe, (uint32_t)(what - TERSE_LOOP_ARENA));
        else if (what >= TERSE_LOOP_ATTACH_WAITING)
            terse_attach_hear(fe, (uint32_t)(what - TERSE_LOOP_ATTACH_WAITING));
        else if (what >= TERSE_LOOP_ATTACH_SOCKET)
            terse_attach_accept(fe, (uint32_t)(what - TERSE_LOOP_ATTACH_SOCKET));
    }
    /* Last: it may replace workers whose events stand above. */
    return !control || terse_control_receive(fe);
}

/* Takes what came back from ZeroMQ, tells that it is awaited when dispatch needs it, and does what the clock says. */
static void handle_time(terse_frontend *fe)
{
    terse_reply_collect(fe);
    if (fe->starved) {
        terse_pins_await(fe->pins);
        terse_reply_collect(fe);
    }
    terse_request_expire(fe);
    terse_complete_check_hung(fe);
    terse_reload_step(fe);
    if (fe->clients.slow)
        terse_reply_retry(fe);
    if (fe->now_ns < fe->alive_ns)
        return;
    terse_tap_trim();
    terse_control_alive(fe);
    for (uint32_t i = 0; i < fe->n_models; i++)
        if (fe->models[i] && fe->models[i]->state == TERSE_SERVED_READY)
            terse_stats_mark(&fe->models[i]->recent, &fe->models[i]->stats, fe->now_ns);
    terse_attach_tick(fe);
    terse_clients_sweep(&fe->clients, fe->now_ns);
}

/* Everything answered: hands the last replies to the clients, then tells. The supervisor ends us. */
static void finish_drain(terse_frontend *fe)
{
    const int linger = LINGER_MS;
    zmq_setsockopt(fe->router, ZMQ_LINGER, &linger, sizeof linger);
    zmq_close(fe->router);
    zmq_ctx_term(fe->context);
    fe->router = fe->context = NULL;
    fe->drained_told = true;
    terse_control_tell(fe, TERSE_MSG_DRAINED);
}

static bool drained(const terse_frontend *fe)
{
    return fe->draining && fe->n_live == 0 && !fe->clients.slow;
}

static void wait_for_end(terse_frontend *fe)
{
    int fds[4], n_fds;
    struct epoll_event event;
    while (epoll_wait(fe->epoll_fd, &event, 1, 1000) >= 0 || errno == EINTR) {
        const int64_t size = terse_msg_receive(fe->control_fd, fe->message, fds, &n_fds);
        for (int i = 0; i < n_fds; i++)
            close(fds[i]);
        if (size == 0 || (size < 0 && errno != EAGAIN))
            return;
    }
}

/* Rings that may have something are looked at at once; of a swamped loop's when the last look found as much as it took.
 */
static bool looks_now(const terse_frontend *fe, unsigned received)
{
    return fe->arenas.active && !fe->spin_ns && (received >= RECEIVE_AT_ONCE || !terse_ring_swamped(fe));
}

int terse_loop_run(terse_frontend *fe)
{
    struct epoll_event events[EVENTS];
    unsigned received = 0;
    for (;;) {
        const int n = next_events(fe, events, fe->router_unsure || looks_now(fe, received));
        fe->now_ns = terse_now_ns();
        if (n > 0 || received)
            fe->busy_ns = fe->now_ns;
        if (n < 0 && errno != EINTR) {
            terse_log(TERSE_LOG_ERROR, "epoll: %s", strerror(errno));
            return 1;
        }
        if (n > 0 && !handle_events(fe, events, n))
            return fe->broken;
        handle_time(fe);
        terse_dispatch(fe);
        terse_ring_tell_all(fe);
        received = fe->serving && fe->router_unsure ? terse_receive(fe, RECEIVE_AT_ONCE) : 0;
        received += fe->serving ? terse_ring_receive(fe) : 0;
        if (received)
            terse_dispatch(fe);
        terse_ring_tell_all(fe);
        if (fe->arenas.n_leaving > 0)
            terse_arenas_settle(fe);
        if (fe->broken)
            return 1;
        if (drained(fe) && received == 0 && !fe->router_unsure) {
            finish_drain(fe);
            wait_for_end(fe);
            return 0;
        }
    }
}
