/* SPDX-License-Identifier: Apache-2.0 */
/* Pace: what prepares a model while others are served gets a tenth of one processor.
 *
 * It already yields the processor to everybody else (daemon/behind.h). What it cannot yield is the way to memory:
 * copying, hashing and trying 200 MB pushes a worker's weights out of the cache that both share and keeps it waiting
 * for its own. In short turns that slows all requests a little instead of some of them a lot. SIGSTOP and SIGCONT do
 * that from outside, whatever the process is busy with; SIGKILL reaches a stopped one as well. */
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>

#include "daemon/log.h"
#include "daemon/supervisor/supervisor.h"

enum { RUN_US = 500, REST_US = 4500 };

static void let_run(const terse_child *child)
{
    if (child && terse_child_runs(child))
        pidfd_send_signal(child->pidfd, SIGCONT, NULL, 0);
}

/* Processor time that it has had; 0 where that cannot be told: then turns are by the clock. */
static uint64_t used_us(const terse_child *child)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(child->pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000;
}

/* On a busy machine a turn is long on the clock before it has been had: who waits for the processor does not rest too.
 */
static bool had_its_turn(terse_supervisor *s, const terse_child *child)
{
    const uint64_t used = used_us(child);
    if (used && used - s->paced_used_us < RUN_US * 4 / 5)
        return false;
    s->paced_used_us = used;
    return true;
}

static int on_tick(sd_event_source *source, uint64_t now_us, void *user)
{
    terse_supervisor *s = user;
    const terse_child *child = s->paced;
    (void)now_us;
    if (!child || !terse_child_serves(child)) {
        let_run(child); /* to its end */
        s->paced = NULL;
        return 0;
    }
    if (s->paced_rests) {
        s->paced_rests = false;
        let_run(child);
    } else if (had_its_turn(s, child)) {
        s->paced_rests = true;
        pidfd_send_signal(child->pidfd, SIGSTOP, NULL, 0); /* fails only when it is dead */
    }
    int r = sd_event_source_set_time_relative(source, s->paced_rests ? REST_US : RUN_US);
    if (r >= 0)
        r = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    if (r < 0) {
        terse_log(TERSE_LOG_ERROR, "%s: no timer to pace it: %s", child->name, strerror(-r));
        let_run(child);
    }
    return 0;
}

void terse_pace(terse_supervisor *s, const terse_child *child)
{
    int r;
    let_run(s->paced); /* a loader that has answered has still to end */
    s->paced = child;
    s->paced_rests = false;
    s->paced_used_us = used_us(child);
    if (!s->pace_timer) {
        r = sd_event_add_time_relative(s->loop, &s->pace_timer, CLOCK_MONOTONIC, RUN_US, 1, on_tick, s);
    } else {
        r = sd_event_source_set_time_relative(s->pace_timer, RUN_US);
        if (r >= 0)
            r = sd_event_source_set_enabled(s->pace_timer, SD_EVENT_ONESHOT);
    }
    if (r < 0)
        terse_log(TERSE_LOG_ERROR, "%s: no timer to pace it: %s", child->name, strerror(-r));
}
