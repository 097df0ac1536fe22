/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/cli/tune/tune.h"
#include "common/bytes.h"
#include "common/json.h"

const char *terse_tune_setting_text(const terse_tune_setting *setting, char *text, size_t size)
{
    snprintf(text, size, "workers %" PRIu32 ", max_batch %" PRIu32 ", batch_timeout_us %" PRIu64, setting->workers,
             setting->max_batch, setting->timeout_us);
    return text;
}

/* What is left: by the settings that are still to come, each as long as those so far, and the time that was given. */
static double seconds_left(const terse_tune *t, const terse_tune_found *found)
{
    const double spent = terse_tune_spent((void *)(uintptr_t)t) * t->seconds;
    if (found->rounds || t->exhaustive)
        return t->exhaustive && found->n_points
                   ? spent / found->n_points * fmax(0, (double)found->planned - found->n_points)
                   : fmax(0, t->seconds - spent);
    const double each = found->n_points ? spent / found->n_points : 0;
    const double sweep = each * fmax(0, (double)found->planned - found->n_points);
    return fmin(fmax(0, t->seconds - spent), sweep + t->seconds * 0.4);
}

void terse_tune_progress(void *tune, const terse_tune_found *found)
{
    const terse_tune *t = tune;
    const terse_tune_trial *last = &found->trials[found->n_trials - 1];
    char text[96];
    double best = 0;
    if (!isatty(STDERR_FILENO))
        return;
    for (unsigned i = 0; i < found->n_points; i++)
        best = fmax(best, found->points[i].estimate);
    fprintf(stderr, "\r\033[K");
    if (found->rounds)
        fprintf(stderr, "finals %u", found->rounds);
    else
        fprintf(stderr, "setting %u of about %u", found->n_points,
                found->planned > found->n_points ? found->planned : found->n_points);
    fprintf(stderr, ": %s at %.0f/s %s, best %.0f/s, about %.0f s left",
            terse_tune_setting_text(&last->setting, text, sizeof text), last->offered,
            last->passed ? "holds" : "does not hold", best, seconds_left(t, found));
}

void terse_tune_progress_end(const terse_tune *tune)
{
    (void)tune;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}

static void json_setting(const terse_tune_setting *setting, terse_json *json)
{
    terse_json_uint(json, "workers", setting->workers);
    terse_json_uint(json, "max_batch", setting->max_batch);
    terse_json_uint(json, "batch_timeout_us", setting->timeout_us);
}

static void json_trial(const terse_tune_trial *trial, terse_json *json)
{
    terse_json_double(json, "offered_rate", trial->offered);
    terse_json_double(json, "rate", trial->rate);
    terse_json_double(json, "p50_us", trial->p50_us);
    terse_json_double(json, "p99_us", trial->p99_us);
    terse_json_double(json, "mean_batch", trial->mean_batch);
    terse_json_bool(json, "holds", trial->passed);
}

static void json_point(const terse_tune_point *p, terse_json *json)
{
    terse_json_object(json, NULL);
    json_setting(&p->setting, json);
    terse_json_double(json, "rate_at_deadline", p->estimate);
    terse_json_double(json, "held", p->held);
    terse_json_double(json, "p99_us", p->held > 0 ? p->best.p99_us : NAN);
    terse_json_double(json, "p50_us", p->held > 0 ? p->best.p50_us : NAN);
    terse_json_double(json, "mean_batch", p->held > 0 ? p->best.mean_batch : NAN);
    terse_json_uint(json, "trials", p->trials);
    terse_json_bool(json, "finalist", p->finalist);
    terse_json_end(json);
}

static void json_costs(const terse_tune *t, terse_json *json)
{
    terse_json_object(json, "cost");
    terse_json_double(json, "a_us", t->known.line.a_us);
    terse_json_double(json, "b_us", t->known.line.b_us);
    terse_json_array(json, "measured");
    for (size_t i = 0; i < t->n_costs; i++) {
        terse_json_object(json, NULL);
        terse_json_double(json, "rows", t->costs[i].rows);
        terse_json_double(json, "us", t->costs[i].us);
        terse_json_end(json);
    }
    terse_json_end(json);
    terse_json_end(json);
}

static void tell_json(const terse_tune *t)
{
    terse_json json = terse_json_to(stdout);
    const terse_tune_point *chosen = terse_tune_chosen(&t->found);
    terse_json_object(&json, NULL);
    terse_json_text(&json, "model", t->model);
    terse_json_double(&json, "deadline_ms", t->deadline_ms);
    terse_json_text(&json, "traffic", t->traffic.text);
    json_costs(t, &json);
    terse_json_object(&json, "before");
    json_setting(&t->before, &json);
    terse_json_end(&json);
    terse_json_object(&json, "recommended");
    json_setting(&chosen->setting, &json);
    terse_json_double(&json, "rate_at_deadline", chosen->estimate);
    terse_json_object(&json, "measured");
    json_trial(&t->final_trial, &json);
    terse_json_end(&json);
    terse_json_end(&json);
    terse_json_array(&json, "front");
    for (size_t i = 0; i < t->found.n_trials; i++) {
        if (!t->found.trials[i].front)
            continue;
        terse_json_object(&json, NULL);
        json_setting(&t->found.trials[i].setting, &json);
        json_trial(&t->found.trials[i], &json);
        terse_json_end(&json);
    }
    terse_json_end(&json);
    terse_json_array(&json, "settings");
    for (unsigned i = 0; i < t->found.n_points; i++)
        json_point(&t->found.points[i], &json);
    terse_json_end(&json);
    terse_json_text(&json, "why", t->found.why);
    terse_json_uint(&json, "trials", t->found.n_trials);
    terse_json_double(&json, "seconds", (double)(terse_now_ns() - t->begun_ns) / 1e9);
    terse_json_uint(&json, "foreign_requests", t->foreign);
    terse_json_bool(&json, "applied", t->applied);
    terse_json_end(&json);
    putchar('\n');
}

static int by_rate(const void *a, const void *b)
{
    const terse_tune_trial *x = *(const terse_tune_trial *const *)a, *y = *(const terse_tune_trial *const *)b;
    return x->rate < y->rate ? 1 : x->rate > y->rate ? -1 : 0;
}

static bool same(const terse_tune_setting *a, const terse_tune_setting *b)
{
    return a->workers == b->workers && a->max_batch == b->max_batch && a->timeout_us == b->timeout_us;
}

/* The front from fast to quick; of a long one rows that lie evenly, both ends among them. */
static void print_front(const terse_tune *t, const terse_tune_setting *chosen)
{
    enum { ROWS = 12 };
    const terse_tune_trial **front = calloc(t->found.n_trials + 1, sizeof *front);
    size_t n = 0;
    for (size_t i = 0; front && i < t->found.n_trials; i++)
        if (t->found.trials[i].front)
            front[n++] = &t->found.trials[i];
    if (n)
        qsort(front, n, sizeof *front, by_rate);
    printf("\nlatency against throughput, the front (* is the recommended setting):\n");
    printf("   %12s %10s %10s %11s   %7s %9s %16s\n", "REQUESTS/S", "P50 US", "P99 US", "MEAN BATCH", "WORKERS",
           "MAX_BATCH", "BATCH_TIMEOUT_US");
    const size_t rows = n < ROWS ? n : ROWS;
    for (size_t r = 0; r < rows; r++) {
        const terse_tune_trial *p = front[rows < n ? r * (n - 1) / (rows - 1) : r];
        printf(" %c %12.0f %10.0f %10.0f %11.1f   %7" PRIu32 " %9" PRIu32 " %16" PRIu64 "\n",
               same(&p->setting, chosen) ? '*' : ' ', p->rate, p->p50_us, p->p99_us, p->mean_batch, p->setting.workers,
               p->setting.max_batch, p->setting.timeout_us);
    }
    free((void *)front);
}

static void print_recommended(const terse_tune *t, const terse_tune_point *chosen)
{
    printf("\nrecommended, for the configuration file:\n\n    [server]\n    workers = %" PRIu32 "\n\n    [model %s]\n"
           "    max_batch = %" PRIu32 "\n    batch_timeout_us = %" PRIu64 "\n\n",
           chosen->setting.workers, t->model, chosen->setting.max_batch, chosen->setting.timeout_us);
    if (t->final_trial.passed)
        printf(
            "It holds %.0f requests/s with a p99 of %.0f us (p50 %.0f us, mean batch %.1f); its limit is about %.0f.\n",
            t->final_trial.rate, t->final_trial.p99_us, t->final_trial.p50_us, t->final_trial.mean_batch,
            chosen->estimate);
    else
        printf("Its limit was about %.0f requests/s, but in the end it did not hold %.0f/s: the machine is busy with "
               "other "
               "things.\n",
               chosen->estimate, t->final_trial.offered);
}

void terse_tune_tell(const terse_tune *t)
{
    const terse_tune_point *chosen = terse_tune_chosen(&t->found);
    if (t->json) {
        tell_json(t);
        return;
    }
    printf("%s, %s traffic, p99 within %g ms: %zu trials of %u settings in %.0f s\n", t->model, t->traffic.text,
           t->deadline_ms, t->found.n_trials, t->found.n_points, (double)(terse_now_ns() - t->begun_ns) / 1e9);
    printf("a batch of n rows takes about %.4g + %.4g n microseconds of one worker\n", t->known.line.a_us,
           t->known.line.b_us);
    if (*t->found.why)
        printf("%s\n", t->found.why);
    print_front(t, &chosen->setting);
    print_recommended(t, chosen);
    if (t->foreign)
        printf("Others sent the daemon %" PRIu64 " requests meanwhile: figures are of what was left.\n", t->foreign);
    if (t->told_late)
        printf("This program itself was late in some trials: it could not offer more than this machine leaves it.\n");
    char text[96];
    if (t->applied)
        printf("It is in force now; a restart brings back what the configuration says.\n");
    else
        printf("In force is again what was: %s.\n", terse_tune_setting_text(&t->before, text, sizeof text));
}
