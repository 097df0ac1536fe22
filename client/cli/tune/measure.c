/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>
#include <time.h>

#include "client/cli/look.h"
#include "client/cli/tune/tune.h"
#include "common/bytes.h"

enum { ANSWER_MS = 15000, READY_MS = 60000, PAUSE_MS = 2, AGAIN = 4, PRIMING = 16, MANY = 32 };
/* SAMPLES: that a percentile of 99 wants at least. HOPELESS: so many deadlines' requests outstanding. LATE: of the time
 * that was given. */
#define SAMPLES 600.0
#define HOPELESS 3.0
#define USUAL_SECONDS 120.0
#define LATE 1.15

volatile sig_atomic_t terse_tune_interrupted;

/* What tells whether somebody died between two looks, or others asked as well. */
typedef struct state {
    uint64_t uptime_us, requests, restarts;
    unsigned ready;
} state;

static int look(terse_tune *t, state *ret_state, terse_error *error)
{
    terse_view *view = NULL;
    const int status = terse_cli_look(terse_load_client(t->load), ANSWER_MS, &view, error);
    if (status)
        return status;
    *ret_state = (state){.uptime_us = view->uptime_us};
    for (unsigned i = 0; i < view->n_models; i++)
        ret_state->requests += view->models[i].requests;
    for (unsigned i = 0; i < view->n_workers; i++) {
        const char *name = view->workers[i].state;
        ret_state->restarts += view->workers[i].restarts;
        ret_state->ready += strcmp(name, "idle") == 0 || strcmp(name, "busy") == 0;
    }
    terse_view_free(view);
    return TERSE_OK;
}

static void pause_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000}, NULL);
}

static int interrupted(terse_error *error)
{
    return terse_fail(error, TERSE_CANCELLED, "interrupted");
}

/* Puts the setting in force and waits until all its workers take batches. */
static int apply(terse_tune *t, const terse_tune_setting *setting, state *ret_state, terse_error *error)
{
    const uint64_t until = terse_now_ns() + (uint64_t)READY_MS * 1000000u;
    const bool there = t->current.workers == setting->workers && t->current.max_batch == setting->max_batch &&
                       t->current.timeout_us == setting->timeout_us;
    int status = there ? TERSE_OK : terse_keeper_set(terse_load_client(t->load), t->model, setting, ANSWER_MS, error);
    if (!status)
        t->current = *setting;
    while (!status) {
        status = look(t, ret_state, error);
        if (status || ret_state->ready >= setting->workers)
            break;
        if (terse_tune_interrupted)
            return interrupted(error);
        if (terse_now_ns() >= until)
            return terse_fail(error, TERSE_UNAVAILABLE, "%u of %u workers are ready after %d s", ret_state->ready,
                              setting->workers, READY_MS / 1000);
        pause_a_little();
    }
    return status;
}

/* Less where little time is given. */
static double scale_of(const terse_tune *t)
{
    return fmin(1, fmax(0.2, t->seconds / USUAL_SECONDS));
}

/* Long enough for the percentile, and for a queue to outgrow the deadline where a little more comes than can be done.
 */
static double trial_seconds(const terse_tune *t, double rate)
{
    const double samples = fmax(0.5, SAMPLES / rate) * scale_of(t), queue = 12 * t->deadline_ms / 1e3;
    return fmin(2.5, fmax(samples, queue));
}

static int run_once(terse_tune *t, double rate, double seconds, terse_load_result *result, terse_error *error)
{
    const double deadline = t->deadline_ms / 1e3;
    const terse_load_plan plan = {.rate = rate,
                                  .traffic = &t->traffic,
                                  .seed = t->seed + t->trials++,
                                  .warmup = fmin(0.3, 0.08 + 2 * deadline) * fmax(0.3, scale_of(t)),
                                  .seconds = seconds,
                                  .hopeless_s = HOPELESS * deadline,
                                  .stop = &terse_tune_interrupted};
    *result = (terse_load_result){0};
    const int status = terse_load_run(t->load, &plan, result, error);
    if (!status)
        terse_load_sort(result);
    return status;
}

static void judge(terse_tune *t, const terse_load_result *result, terse_tune_trial *ret_trial)
{
    const double p99 = terse_latencies_us(&result->answered, 0.99);
    const bool all = !result->gave_up && result->ok == result->sent && result->ok > 0;
    *ret_trial = (terse_tune_trial){.rate = terse_load_rate(result),
                                    .p50_us = terse_latencies_us(&result->answered, 0.5),
                                    .p99_us = p99,
                                    .mean_batch = terse_load_batch(result),
                                    .passed = all && p99 <= t->deadline_ms * 1e3};
    if (terse_latencies_us(&result->behind, 0.99) > t->deadline_ms * 1e3 / 2)
        t->told_late = true;
}

/* A trial during which a process of the daemon died says nothing: it is had again. */
static int measure(terse_tune *t, const terse_tune_setting *setting, double rate, double seconds,
                   terse_load_result *result, terse_tune_trial *ret_trial, terse_error *error)
{
    for (int i = 0; i < AGAIN; i++) {
        state before, after;
        int status = terse_tune_interrupted ? interrupted(error) : apply(t, setting, &before, error);
        if (!status)
            status = run_once(t, rate, seconds, result, error);
        if (!status)
            status = look(t, &after, error);
        if (status)
            return terse_tune_interrupted ? interrupted(error) : status;
        const uint64_t own = result->replies,
                       all = after.requests > before.requests ? after.requests - before.requests : 0;
        if (after.uptime_us >= before.uptime_us && after.restarts <= before.restarts) {
            t->foreign += all > own ? all - own : 0;
            judge(t, result, ret_trial);
            return TERSE_OK;
        }
        t->current.workers = 0; /* a new daemon may have other settings */
        if (i + 1 < AGAIN)
            terse_load_done(result);
    }
    return terse_fail(error, TERSE_UNAVAILABLE, "processes of the daemon died in %d trials running", AGAIN);
}

int terse_tune_measure(void *tune, const terse_tune_setting *setting, double rate, terse_tune_trial *ret_trial,
                       terse_error *error)
{
    terse_load_result result = {0};
    const int status = measure(tune, setting, rate, trial_seconds(tune, rate), &result, ret_trial, error);
    terse_load_done(&result);
    return status;
}

double terse_tune_spent(void *tune)
{
    const terse_tune *t = tune;
    return (double)(terse_now_ns() - t->begun_ns) / 1e9 / t->seconds;
}

int terse_tune_confirm(terse_tune *t, terse_error *error)
{
    enum { TRIES = 8 };
    const terse_tune_point *chosen = terse_tune_chosen(&t->found);
    const double left = t->seconds * (1 - terse_tune_spent(t));
    const double seconds = fmin(3, fmax(trial_seconds(t, chosen->estimate), left / 3));
    t->final_rate = chosen->estimate * 0.97;
    for (int i = 0; i < TRIES; i++) {
        terse_load_done(&t->final);
        const int status = measure(t, &chosen->setting, t->final_rate, seconds, &t->final, &t->final_trial, error);
        if (status)
            return status;
        t->final_trial.setting = chosen->setting;
        t->final_trial.offered = t->final_rate;
        if (t->final_trial.passed || terse_tune_spent(t) > LATE)
            break;
        t->final_rate *= 0.96;
    }
    return TERSE_OK;
}

/* The daemon measures batches when it warms; of a model that it could not run so (no sizes) it learns from requests.
 * What it answers with the settings that it has, and this program asks, is where the search begins. */
static int prime(terse_tune *t, terse_error *error)
{
    const terse_load_plan alone = {.concurrency = 1, .requests = PRIMING, .stop = &terse_tune_interrupted};
    const terse_load_plan many = {.concurrency = MANY, .warmup = 0.1, .seconds = 0.2, .stop = &terse_tune_interrupted};
    terse_load_result result = {0};
    int status = terse_load_run(t->load, &alone, &result, error);
    terse_load_done(&result);
    if (!status) {
        result = (terse_load_result){0};
        status = terse_load_run(t->load, &many, &result, error);
        t->known.rate = terse_load_rate(&result) * 0.8;
    }
    if (!status && result.ok != result.sent)
        status = terse_fail(error, TERSE_UNAVAILABLE, "the model does not answer: %s", result.first_error);
    terse_load_done(&result);
    return status;
}

static int read_costs(terse_tune *t, terse_error *error)
{
    terse_view *view = NULL;
    const int status = terse_cli_look(terse_load_client(t->load), ANSWER_MS, &view, error);
    const terse_view_model *model = status ? NULL : terse_view_find(view, t->model);
    t->n_costs = 0;
    for (unsigned i = 0; model && i < model->n_costs; i++)
        if (model->costs[i].rows > 0 && model->costs[i].us > 0)
            t->costs[t->n_costs++] = (terse_cost_point){(double)model->costs[i].rows, (double)model->costs[i].us};
    terse_view_free(view);
    return status;
}

int terse_tune_learn(terse_tune *t, terse_error *error)
{
    int status = prime(t, error);
    if (!status)
        status = read_costs(t, error);
    if (status)
        return status;
    if (!terse_cost_fit(t->costs, t->n_costs, &t->known.line))
        return terse_fail(error, TERSE_UNAVAILABLE, "the daemon does not tell what batches of '%s' take", t->model);
    t->known.batchable = terse_signature_batchable(terse_load_signature(t->load));
    return TERSE_OK;
}
