/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes
 *   ZeroMQ's descriptors are edge-triggered, and sending on a socket may swallow its ring. So whoever was sent
 * something is touched and looked at again, and the loop sleeps only when nobody is touched and no client's message was
 * there. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/gate/gate.h"

enum { FORWARD_AT_ONCE = 64, EVENTS = 64, RETRY_MS = 5, QUIET_MS = 50, LAST_MS = 1000 };

static int wait_ms(const terse_gate *gate, bool busy)
{
    if (busy)
        return 0;
    if (gate->n_slow)
        return RETRY_MS;
    if (!gate->serving)
        return -1;
    const uint64_t now = terse_now_ns();
    return gate->alive_ns > now ? (int)((gate->alive_ns - now) / 1000000) + 1 : 0;
}

/* false: the supervisor is gone, or told to go. */
static bool handle_events(terse_gate *gate, const struct epoll_event *events, int n)
{
    bool control = false;
    for (int i = 0; i < n; i++) {
        const uint64_t what = events[i].data.u64;
        if (what < gate->max_remotes)
            terse_gate_remote_touch(gate, (uint32_t)what);
        else if (what == TERSE_GATE_DOOR)
            terse_gate_door_answer(gate);
        else if (what == TERSE_GATE_CONTROL)
            control = true;
    }
    return !control || terse_gate_hear(gate);
}

static void handle_time(terse_gate *gate)
{
    if (gate->n_slow)
        terse_gate_retry_slow(gate);
    if (gate->now_ns < gate->alive_ns)
        return;
    terse_tap_trim();
    terse_gate_sweep(gate);
    terse_gate_remotes_drop_lost(gate);
    terse_gate_tell_alive(gate);
}

/* The front end has answered everything before it ended: the rest of that goes out. */
static void finish(terse_gate *gate)
{
    struct epoll_event events[EVENTS];
    const uint64_t until = terse_now_ns() + UINT64_C(1000000) * LAST_MS;
    epoll_ctl(gate->epoll_fd, EPOLL_CTL_DEL, gate->control_fd, NULL);
    for (bool busy = true; busy && terse_now_ns() < until;) {
        const int n = epoll_wait(gate->epoll_fd, events, EVENTS, QUIET_MS);
        for (int i = 0; i < n; i++)
            if (events[i].data.u64 < gate->max_remotes)
                terse_gate_remote_touch(gate, (uint32_t)events[i].data.u64);
        busy = n > 0;
        busy |= terse_gate_bring_back(gate);
    }
    const int linger = LAST_MS;
    zmq_setsockopt(gate->router, ZMQ_LINGER, &linger, sizeof linger);
}

int terse_gate_run(terse_gate *gate)
{
    struct epoll_event events[EVENTS];
    for (bool busy = false;;) {
        const int n = epoll_wait(gate->epoll_fd, events, EVENTS, wait_ms(gate, busy));
        gate->now_ns = terse_now_ns();
        if (n < 0 && errno != EINTR) {
            terse_log(TERSE_LOG_ERROR, "epoll: %s", strerror(errno));
            return 1;
        }
        if (n > 0 && !handle_events(gate, events, n))
            break;
        if (!gate->serving)
            continue;
        handle_time(gate);
        busy = terse_gate_bring_back(gate);
        busy |= terse_gate_forward(gate, FORWARD_AT_ONCE) > 0;
        busy |= gate->touched != TERSE_GATE_NOBODY;
    }
    if (!gate->serving)
        return 1;
    finish(gate);
    return 0;
}
