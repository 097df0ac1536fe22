/* SPDX-License-Identifier: Apache-2.0 */
/* terse top: a daemon as it goes on. Looks once an interval, draws after each look and each key. */
#include "client/cli/top/top.h"

#include <dlfcn.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/look.h"
#include "common/bytes.h"

enum { LEAST_MS = 100, MOST_MS = 60000, ANSWER_MS = 1000 };

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static int load_screen(const terse_screen **ret_screen, terse_error *error)
{
    char path[PATH_MAX];
    if (!terse_cli_helper("terse-screen.so", path, sizeof path))
        return terse_fail(error, TERSE_NOT_FOUND,
                          "a terminal needs terse-screen.so, which is neither beside terse nor in ../lib/terse; "
                          "`terse status` shows what is there without it");
    const terse_screen *(*get)(void) = NULL;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* stays until the process ends */
    if (handle)
        *(void **)&get = dlsym(handle, "terse_screen_get");
    if (!get)
        return terse_fail(error, TERSE_NOT_FOUND, "cannot load '%s': %s", path, dlerror());
    *ret_screen = get();
    return TERSE_OK;
}

/* Asks the daemon once. Without an answer what was there stays, and is told to be old. */
static void look(terse_top *top, terse_client *client)
{
    terse_error error = {0};
    terse_view *view = NULL;
    if (terse_cli_look(client, ANSWER_MS, &view, &error)) {
        if (!top->lost_ns)
            top->lost_ns = terse_now_ns();
        snprintf(top->why, sizeof top->why, "%.255s", error.message);
        return;
    }
    top->lost_ns = 0;
    terse_view_free(top->earlier);
    top->earlier = top->view;
    top->view = view;
}

static void change_interval(terse_top *top, bool longer)
{
    const uint64_t ms = longer ? top->interval_ms * 2 : top->interval_ms / 2;
    top->interval_ms = ms < LEAST_MS ? LEAST_MS : ms > MOST_MS ? MOST_MS : ms;
}

static void scroll(terse_top *top, int lines)
{
    top->scroll += lines; /* the drawing knows how far that goes */
    if (top->scroll < 0)
        top->scroll = 0;
}

/* false: to end. */
static bool handle_key(terse_top *top, int key)
{
    switch (key) {
    case 'q':
    case 'Q':
    case 4: /* Ctrl-D */
    case TERSE_KEY_END:
        return false;
    case 27: /* Escape, and every other key, leave the help */
        top->help = false;
        return true;
    case 'p':
    case ' ':
        top->paused = !top->paused;
        return true;
    case 's':
    case TERSE_KEY_RIGHT:
        top->sort = (top->sort + 1) % TERSE_TOP_SORTS;
        return true;
    case 'S':
    case TERSE_KEY_LEFT:
        top->sort = (top->sort + TERSE_TOP_SORTS - 1) % TERSE_TOP_SORTS;
        return true;
    case 'r':
        top->reversed = !top->reversed;
        return true;
    case 'c':
        top->since_start = !top->since_start;
        return true;
    case '+':
    case '-':
        change_interval(top, key == '+');
        return true;
    case TERSE_KEY_UP:
    case TERSE_KEY_DOWN:
        scroll(top, key == TERSE_KEY_UP ? -1 : 1);
        return true;
    case TERSE_KEY_PAGE_UP:
    case TERSE_KEY_PAGE_DOWN:
        scroll(top, key == TERSE_KEY_PAGE_UP ? -10 : 10);
        return true;
    case 'h':
    case '?':
        top->help = !top->help;
        return true;
    default:
        return true;
    }
}

static void run(terse_top *top, terse_client *client, uint64_t limit)
{
    uint64_t next_ns = terse_now_ns();
    for (uint64_t looks = 0; !stopped && (!limit || looks < limit);) {
        uint64_t now = terse_now_ns();
        if (!top->paused && now >= next_ns) {
            look(top, client);
            looks++;
            now = terse_now_ns();
            /* The second look comes soon: the first has nothing to compare with. */
            next_ns = now + (looks == 1 ? LEAST_MS : top->interval_ms) * UINT64_C(1000000);
        }
        terse_top_draw(top, now);
        const uint64_t left_ns = next_ns > now ? next_ns - now : 0;
        const int key = top->screen->key(top->paused ? MOST_MS : (int)(left_ns / 1000000) + 1);
        if (key == '+' || key == '-')
            next_ns = now;
        if (!handle_key(top, key))
            return;
    }
}

int terse_cli_top(int argc, char **argv)
{
    terse_top top = {.interval_ms = 1000, .sort = TERSE_TOP_RATE};
    const char *endpoint = NULL;
    uint64_t connect_ms = 5000, looks = 0;
    const terse_cli_usage usage = {
        "top", "[-e ENDPOINT] [--interval-ms T]",
        "Shows a daemon's models and workers as it goes on. Keys: q quits, h tells the others.", 0, 0};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &endpoint, 0, 0,
         "the daemon's (default: $TERSE_ENDPOINT, else this host's)"},
        {"interval-ms", 'd', TERSE_CLI_COUNT, "T", &top.interval_ms, LEAST_MS, MOST_MS,
         "look every T ms (default 1000)"},
        {"looks", 'n', TERSE_CLI_COUNT, "N", &looks, 1, 1e9, "end after N looks"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &connect_ms, 1, 1e9, "how long to wait for a daemon (default 5000)"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    const int parsed = terse_cli_parse(&usage, options, argc, argv, NULL, &n);
    if (parsed >= 0)
        return parsed;
    terse_error error = {0};
    if (load_screen(&top.screen, &error))
        return terse_cli_fail("top", &error);
    const char *why = top.screen->why_not();
    if (why) {
        terse_fail(&error, TERSE_UNAVAILABLE, "%s; `terse status` prints once what is there", why);
        return terse_cli_fail("top", &error);
    }
    terse_client *client = terse_cli_connect("top", endpoint, connect_ms);
    if (!client)
        return TERSE_CLI_FAILED;
    top.endpoint = endpoint ? endpoint : terse_default_endpoint();
    if (!top.screen->open()) {
        terse_client_close(client);
        terse_fail(&error, TERSE_UNAVAILABLE, "the terminal cannot be prepared");
        return terse_cli_fail("top", &error);
    }
    struct sigaction action = {.sa_handler = stop};
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
    run(&top, client, looks);
    top.screen->close();
    terse_view_free(top.view);
    terse_view_free(top.earlier);
    terse_client_close(client);
    return TERSE_CLI_DONE;
}
