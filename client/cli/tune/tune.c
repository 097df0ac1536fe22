/* SPDX-License-Identifier: Apache-2.0 */
/* terse tune: finds the setting of a running daemon that answers most by a deadline. search.h says how. */
#include "client/cli/tune/tune.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <string.h>

#include "common/bytes.h"

enum { LITTLE_TIME = 40 }; /* seconds */

static void on_signal(int number)
{
    (void)number;
    terse_tune_interrupted = 1;
}

/* A second one ends this process at once; the keeper restores what was. */
static void hear_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

static uint32_t cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

/* Ten times what a row takes, at least 10 ms, in a round number. */
static double usual_deadline_ms(const terse_cost_line *line)
{
    const double ms = fmax(10, (line->a_us + line->b_us) / 100), unit = pow(10, floor(log10(ms)));
    return ceil(ms / unit) * unit;
}

/* Told before minutes of work, not behind them. */
static bool writable(const char *path, terse_error *error)
{
    terse_atomic_file file;
    if (terse_atomic_open(path, &file, error))
        return false;
    terse_atomic_discard(&file);
    return true;
}

/* Everything that changes nothing. */
static int prepare(terse_tune *t, terse_error *error)
{
    const terse_load_options options = {.endpoint = t->endpoint,
                                        .model = t->model,
                                        .input = t->input,
                                        .dims = &t->dims,
                                        .connections = t->connections,
                                        .connect_ms = t->connect_ms,
                                        .rows = t->rows,
                                        .seed = t->seed,
                                        .shm = t->shm};
    int status = terse_load_open(&options, &t->load, error);
    if (!status)
        status = terse_tune_learn(t, error);
    if (status)
        return status;
    const double row_us = t->known.line.a_us + t->known.line.b_us;
    if (isnan(t->deadline_ms))
        t->deadline_ms = usual_deadline_ms(&t->known.line);
    if (row_us > 2e3 * t->deadline_ms)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the deadline is %g ms, but one request alone takes about %.3g ms: nothing can keep it",
                          t->deadline_ms, row_us / 1e3);
    t->known.workers = t->before.workers;
    t->known.cores = cores();
    t->known.rows = (uint32_t)t->rows;
    t->known.deadline_us = t->deadline_ms * 1e3;
    terse_tune_space_make(&t->known, &t->space);
    t->space.exhaustive = t->exhaustive;
    t->space.patience = fmax(1.4, LITTLE_TIME / t->seconds);
    t->space.tolerance = t->seconds < LITTLE_TIME && !t->exhaustive ? 1.25 : 1.1;
    return terse_tune_space_restrict(&t->space, t->only_workers, t->only_batches, t->only_timeouts, error);
}

static int search(terse_tune *t, terse_error *error)
{
    const terse_tune_means means = {terse_tune_measure, terse_tune_spent, terse_tune_progress, t};
    t->begun_ns = terse_now_ns();
    int status = terse_tune_search(&t->space, &means, &t->found, error);
    if (!status)
        status = terse_tune_confirm(t, error);
    terse_tune_progress_end(t);
    return status;
}

static int tune_run(terse_tune *t)
{
    terse_keeper *keeper = NULL;
    terse_error error = {0}, kept = {0};
    if (terse_traffic_read(t->traffic_text, &t->traffic, &error))
        return terse_cli_fail("tune", &error);
    if (t->report && !*t->report)
        return terse_cli_usage_error("tune", "--report is empty, a file's name is wanted");
    if (t->report && !writable(t->report, &error))
        return terse_cli_fail("tune", &error);
    if (terse_keeper_begin(t->endpoint, t->model, (unsigned)t->connect_ms, &keeper, &error))
        return terse_cli_fail("tune", &error);
    t->before = terse_keeper_setting(keeper);
    hear_signals();
    int status = prepare(t, &error);
    if (!status)
        status = search(t, &error);
    const terse_tune_point *chosen = status ? NULL : terse_tune_chosen(&t->found);
    const int put = terse_keeper_end(keeper, t->apply && chosen ? &chosen->setting : NULL, &kept);
    t->applied = t->apply && chosen && !put;
    if (put) {
        char text[96];
        terse_error both;
        terse_fail(&both, (terse_status)put, "%.200s%scould not set %s again: %.250s", status ? error.message : "",
                   status ? "; and " : "", terse_tune_setting_text(&t->before, text, sizeof text), kept.message);
        return terse_cli_fail("tune", &both);
    }
    if (status == TERSE_CANCELLED)
        terse_fail(&error, TERSE_CANCELLED, "interrupted; the settings are what they were");
    if (status)
        return terse_cli_fail("tune", &error);
    terse_tune_tell(t);
    return t->report && terse_tune_page(t, &error) ? terse_cli_fail("tune", &error) : TERSE_CLI_DONE;
}

static void tune_done(terse_tune *t)
{
    terse_load_close(t->load);
    terse_load_done(&t->final);
    terse_tune_found_done(&t->found);
    terse_traffic_done(&t->traffic);
}

int terse_cli_tune(int argc, char **argv)
{
    static terse_tune t = {.traffic_text = "poisson",
                           .connections = 1,
                           .rows = 1,
                           .seed = 1,
                           .connect_ms = 5000,
                           .deadline_ms = NAN,
                           .seconds = 120};
    char joined[PATH_MAX + 32];
    const terse_cli_usage usage = {
        "tune", "[-e ENDPOINT] MODEL [--deadline-ms D] [-o OUT.html] [--apply]",
        "Finds the workers, max_batch and batch_timeout_us with which a running daemon answers most\n"
        "requests a second while 99 % of them are answered by the deadline: tries them on the daemon,\n"
        "at rising rates, and puts back what was.",
        1, 1};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &t.endpoint, 0, 0,
         "the daemon's (default: $TERSE_ENDPOINT, else this host's)"},
        {"deadline-ms", 0, TERSE_CLI_NUMBER, "D", &t.deadline_ms, 0.05, 1e6,
         "what p99 must not pass (default: ten times what one row takes, 10 at least)"},
        {"traffic", 0, TERSE_CLI_TEXT, "KIND", &t.traffic_text, 0, 0,
         "when requests come: poisson (default), constant, burst, burst:N or trace FILE"},
        {"report", 'o', TERSE_CLI_TEXT, "OUT.html", &t.report, 0, 0, "write a page with charts as well"},
        {"apply", 0, TERSE_CLI_FLAG, NULL, &t.apply, 0, 0, "leave the recommended setting in force"},
        {"time", 0, TERSE_CLI_NUMBER, "S", &t.seconds, 5, 86400, "seconds to take, about (default 120)"},
        {"exhaustive", 0, TERSE_CLI_FLAG, NULL, &t.exhaustive, 0, 0,
         "try every combination, however long it takes, to judge the search by"},
        {"workers", 0, TERSE_CLI_TEXT, "LIST", &t.only_workers, 0, 0, "try these only: numbers with commas between"},
        {"max-batch", 0, TERSE_CLI_TEXT, "LIST", &t.only_batches, 0, 0, "the same"},
        {"batch-timeout-us", 0, TERSE_CLI_TEXT, "LIST", &t.only_timeouts, 0, 0, "the same"},
        {"connections", 0, TERSE_CLI_COUNT, "K", &t.connections, 1, TERSE_LOAD_CONNECTIONS,
         "clients that share the requests (default 1)"},
        {"shm", 0, TERSE_CLI_FLAG, NULL, &t.shm, 0, 0,
         "share memory with the daemon: tensors in place, requests through a ring"},
        {"rows", 0, TERSE_CLI_COUNT, "B", &t.rows, 1, 1024, "rows in each request (default 1)"},
        {"input", 'i', TERSE_CLI_TEXT, "IN.npz", &t.input, 0, 0, "send these arrays (default: random ones)"},
        {"dim", 0, TERSE_CLI_TEXTS, "NAME=SIZE", &t.dims, 0, 0,
         "size of a free dimension of random inputs (default 1)"},
        {"seed", 0, TERSE_CLI_COUNT, "S", &t.seed, 1, 1e15, "of random inputs and arrivals (default 1)"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &t.connect_ms, 1, 1e9, "how long to wait for a daemon (default 5000)"},
        {"json", 0, TERSE_CLI_FLAG, NULL, &t.json, 0, 0, "print one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    argc = terse_traffic_join(argc, argv, joined, sizeof joined);
    const int parsed = terse_cli_parse(&usage, options, argc, argv, &t.model, &n);
    if (parsed >= 0)
        return parsed;
    const int code = tune_run(&t);
    tune_done(&t);
    return code;
}
