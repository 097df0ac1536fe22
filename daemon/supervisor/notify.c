/* SPDX-License-Identifier: Apache-2.0 */
/* Notify: what the service manager is told: READY, STOPPING, STATUS and the watchdog. Without one all of it is silent.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "daemon/log.h"
#include "daemon/supervisor/supervisor.h"

/* Appends; a text that is full stays as it is. */
__attribute__((format(printf, 3, 4))) static void add(char *text, size_t size, const char *format, ...)
{
    const size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

static void describe_trouble(const terse_child *child, char *text, size_t size)
{
    if (child->state == TERSE_CHILD_WAITING)
        add(text, size, "; %s in a crash loop: %u failed starts, next in %" PRIu64 " ms", child->name, child->failures,
            terse_child_wait_ms(child));
}

static void describe(const terse_supervisor *s, char *text, size_t size)
{
    const unsigned n_models = terse_models_count(s);
    unsigned n_ready = 0, n_restarts = s->frontend.restarts + s->gate.restarts;
    for (unsigned i = 0; i < s->n_workers; i++) {
        n_ready += s->workers[i].state == TERSE_CHILD_READY;
        n_restarts += s->workers[i].restarts;
    }
    *text = 0;
    add(text, size, "%s %u model%s, %u of %u workers ready", terse_phase_name(s->phase), n_models,
        n_models == 1 ? "" : "s", n_ready, s->n_workers);
    if (s->phase == TERSE_PHASE_SERVING && s->frontend.state != TERSE_CHILD_READY)
        add(text, size, ", front end %s", terse_child_state_name(s->frontend.state));
    if (n_restarts)
        add(text, size, ", %u restart%s", n_restarts, n_restarts == 1 ? "" : "s");
    describe_trouble(&s->frontend, text, size);
    describe_trouble(&s->gate, text, size);
    for (unsigned i = 0; i < s->n_workers; i++)
        describe_trouble(&s->workers[i], text, size);
}

void terse_notify_status(terse_supervisor *s, const char *lines)
{
    char status[sizeof s->status];
    describe(s, status, sizeof status);
    if (!*lines && strcmp(status, s->status) == 0)
        return;
    memcpy(s->status, status, sizeof status);
    sd_notifyf(0, "%sSTATUS=%s", lines, status);
}

/* The manager is to restart us when the loop hangs, and when no front end that could answer comes back. */
static int on_watchdog(sd_event_source *source, uint64_t now_us, void *user)
{
    terse_supervisor *s = user;
    (void)now_us;
    if (!terse_front_silent(s))
        sd_notify(0, "WATCHDOG=1");
    sd_event_source_set_time_relative(source, s->watchdog_us / 3);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

int terse_notify_init(terse_supervisor *s, terse_error *error)
{
    int r = sd_watchdog_enabled(0, &s->watchdog_us);
    if (r > 0)
        r = sd_event_add_time_relative(s->loop, &s->watchdog_timer, CLOCK_MONOTONIC, 0, 1000, on_watchdog, s);
    if (r < 0) {
        errno = -r;
        return terse_fail(error, TERSE_SYSTEM, "cannot set up the watchdog");
    }
    return TERSE_OK;
}

void terse_notify_done(terse_supervisor *s)
{
    s->watchdog_timer = sd_event_source_disable_unref(s->watchdog_timer);
}
