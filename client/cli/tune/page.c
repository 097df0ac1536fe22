/* SPDX-License-Identifier: Apache-2.0 */
/* The report of terse tune: client/report/ draws it. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "client/cli/tune/tune.h"
#include "client/report/chart.h"
#include "client/report/figures.h"
#include "common/page.h"

enum { LABEL = 160, GROUPS = 4 };

/* Trials as points of one series: those that held, those that did not, the front, the recommended one. */
typedef struct points {
    double *x, *y;
    char (*labels)[LABEL];
    const char **pointers;
    size_t n;
} points;

static bool points_new(points *p, size_t room)
{
    p->x = calloc(room, sizeof *p->x);
    p->y = calloc(room, sizeof *p->y);
    p->labels = calloc(room, sizeof *p->labels);
    p->pointers = calloc(room, sizeof *p->pointers);
    return p->x && p->y && p->labels && p->pointers;
}

static void points_free(points *p)
{
    free(p->x);
    free(p->y);
    free(p->labels);
    free((void *)p->pointers);
}

static void add(points *p, const terse_tune_trial *trial)
{
    char text[96];
    p->x[p->n] = trial->rate;
    p->y[p->n] = trial->p99_us;
    snprintf(p->labels[p->n], LABEL, "%s: %.0f/s, p99 %.0f us",
             terse_tune_setting_text(&trial->setting, text, sizeof text), trial->rate, trial->p99_us);
    p->pointers[p->n] = p->labels[p->n];
    p->n++;
}

static int by_x(const void *a, const void *b)
{
    const terse_tune_trial *x = *(const terse_tune_trial *const *)a, *y = *(const terse_tune_trial *const *)b;
    return x->rate < y->rate ? -1 : x->rate > y->rate;
}

static void add_front(points *p, const terse_tune_found *found)
{
    const terse_tune_trial **front = calloc(found->n_trials + 1, sizeof *front);
    size_t n = 0;
    for (size_t i = 0; front && i < found->n_trials; i++)
        if (found->trials[i].front)
            front[n++] = &found->trials[i];
    if (n)
        qsort(front, n, sizeof *front, by_x);
    for (size_t i = 0; i < n; i++)
        add(p, front[i]);
    free((void *)front);
}

static void write_balance(const terse_tune *t, FILE *out)
{
    points groups[GROUPS] = {{0}};
    bool room = true;
    for (int i = 0; i < GROUPS; i++)
        room = points_new(&groups[i], t->found.n_trials + 1) && room;
    for (size_t i = 0; room && i < t->found.n_trials; i++)
        add(&groups[t->found.trials[i].passed ? 1 : 0], &t->found.trials[i]);
    if (room) {
        add_front(&groups[2], &t->found);
        add(&groups[3], &t->final_trial);
        const terse_chart_series series[GROUPS] = {
            {.name = "too late, or refused", .style = 4, .faint = true},
            {.name = "held the deadline", .style = 0},
            {.name = "nothing answers more at a lower p99", .style = 2, .line = true, .large = true},
            {.name = "recommended, measured once more", .style = 3, .large = true}};
        terse_chart_series drawn[GROUPS];
        for (int i = 0; i < GROUPS; i++) {
            drawn[i] = series[i];
            drawn[i].x = groups[i].x;
            drawn[i].y = groups[i].y;
            drawn[i].n = groups[i].n;
            drawn[i].labels = groups[i].pointers;
        }
        const terse_chart chart = {
            .id = "balance",
            .title = "Latency against throughput",
            .text =
                "Each point is a trial of one setting at one rate: what was answered, and the latency that 99 % did "
                "not pass. Lower and further to the right is better.",
            .x = {.label = "answers a second", .from_zero = true, .mark = NAN},
            .y = {.label = "p99, microseconds", .log = true, .mark = t->deadline_ms * 1e3, .mark_label = "deadline"},
            .series = drawn,
            .n = GROUPS};
        terse_chart_write(&chart, out);
    }
    for (int i = 0; i < GROUPS; i++)
        points_free(&groups[i]);
}

static void write_settings(const terse_tune *t, FILE *out)
{
    fputs("<h2>All settings</h2><p>At the highest rate that held the deadline; the recommended one is marked.</p><div "
          "class=\"s\" tabindex=\"0\"><table id=\"settings\"><tr><th>workers</th><th>max_batch</th>"
          "<th>batch_timeout_us</th><th>limit, requests/s</th><th>held, requests/s</th><th>p50 us</th><th>p99 us</th>"
          "<th>mean batch</th><th>trials</th><th class=\"t\"></th></tr>\n",
          out);
    for (unsigned i = 0; i < t->found.n_points; i++) {
        const terse_tune_point *p = &t->found.points[i];
        fprintf(out, "<tr%s><td>%" PRIu32 "</td><td>%" PRIu32 "</td><td>%" PRIu64 "</td>",
                p->chosen ? " class=\"k\"" : "", p->setting.workers, p->setting.max_batch, p->setting.timeout_us);
        if (p->held > 0)
            fprintf(out, "<td>%.0f</td><td>%.0f</td><td>%.0f</td><td>%.0f</td><td>%.1f</td>", p->estimate, p->best.rate,
                    p->best.p50_us, p->best.p99_us, p->best.mean_batch);
        else
            fputs("<td>-</td><td>-</td><td>-</td><td>-</td><td>-</td>", out);
        fprintf(out, "<td>%u</td><td class=\"t\">%s</td></tr>\n", p->trials,
                p->chosen     ? "recommended"
                : p->finalist ? "in the finals"
                              : "");
    }
    fputs("</table></div>\n", out);
}

static void write_recommended(const terse_tune *t, FILE *out)
{
    const terse_tune_point *chosen = terse_tune_chosen(&t->found);
    fprintf(out, "<h2>Recommended</h2><pre tabindex=\"0\">[server]\nworkers = %" PRIu32 "\n\n[model ",
            chosen->setting.workers);
    terse_page_text(out, t->model);
    fprintf(out, "]\nmax_batch = %" PRIu32 "\nbatch_timeout_us = %" PRIu64 "</pre>\n", chosen->setting.max_batch,
            chosen->setting.timeout_us);
    fprintf(
        out,
        "<p id=\"measured\">Measured once more at %.0f requests a second: %.0f answered a second, p50 %.0f, p99 %.0f "
        "microseconds, mean batch %.1f. Its limit is about %.0f requests a second.</p>\n",
        t->final_trial.offered, t->final_trial.rate, t->final_trial.p50_us, t->final_trial.p99_us,
        t->final_trial.mean_batch, chosen->estimate);
    fprintf(out, "<p>A batch of n rows takes about %.4g + %.4g n microseconds of one worker", t->known.line.a_us,
            t->known.line.b_us);
    if (*t->found.why) {
        fputs("; ", out);
        terse_page_text(out, t->found.why);
    }
    fputs(".</p>\n", out);
}

static void write_body(const terse_tune *t, FILE *out)
{
    terse_figures_cost costs[TERSE_VIEW_COSTS];
    const terse_figures_load load = {"the recommended setting", t->final.answered.ns, t->final.answered.n,
                                     t->final.in_batch, TERSE_LOAD_BATCHES};
    fputs("<h1>terse tune: ", out);
    terse_page_text(out, t->model);
    fputs("</h1>\n<p>Most requests a second of which 99 % are answered ", out);
    fprintf(out, "within %g ms; traffic: ", t->deadline_ms);
    terse_page_text(out, t->traffic.text);
    fprintf(out, "; %zu trials of %u settings.</p>\n", t->found.n_trials, t->found.n_points);
    write_recommended(t, out);
    write_balance(t, out);
    terse_figures_percentiles(&load, 1, out);
    terse_figures_batches(&load, 1, out);
    for (size_t i = 0; i < t->n_costs; i++)
        costs[i] = (terse_figures_cost){t->costs[i].rows, t->costs[i].us};
    terse_figures_costs(costs, t->n_costs, t->known.line.a_us, t->known.line.b_us, out);
    write_settings(t, out);
}

int terse_tune_page(const terse_tune *t, terse_error *error)
{
    terse_page page;
    char title[LABEL];
    snprintf(title, sizeof title, "terse tune: %s", t->model);
    const int status = terse_page_open(t->report, title, terse_chart_style, &page, error);
    if (status)
        return status;
    write_body(t, page.out);
    return terse_page_close(&page, error);
}
