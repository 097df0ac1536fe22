/* SPDX-License-Identifier: Apache-2.0 */
/* The report of terse bench: client/report/ draws it. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "client/cli/bench/bench.h"
#include "client/cli/look.h"
#include "client/cli/tune/cost_fit.h"
#include "client/report/chart.h"
#include "client/report/figures.h"
#include "common/page.h"

enum { NAME = 256 };

static void name_of(const terse_bench *b, const terse_bench_side *side, char *text, size_t size)
{
    if (b->n_sides > 1 && side->endpoint)
        snprintf(text, size, "%s at %s", side->model, side->endpoint);
    else
        snprintf(text, size, "%s", side->model);
}

static void row(FILE *out, const terse_bench *b, const char *what, const char *format,
                double of(const terse_bench_side *side))
{
    fprintf(out, "<tr><td>%s</td>", what);
    for (unsigned s = 0; s < b->n_sides; s++) {
        const double value = of(&b->sides[s]);
        fputs("<td>", out);
        if (isfinite(value))
            fprintf(out, format, value);
        else
            fputc('-', out);
        fputs("</td>", out);
    }
    fputs("</tr>\n", out);
}

static double rate_of(const terse_bench_side *side)
{
    return terse_load_rate(&side->all);
}

static double sent_of(const terse_bench_side *side)
{
    return (double)side->all.sent;
}

static double ok_of(const terse_bench_side *side)
{
    return (double)side->all.ok;
}

static double batch_of(const terse_bench_side *side)
{
    return terse_load_batch(&side->all);
}

static double p50_of(const terse_bench_side *side)
{
    return terse_latencies_us(&side->all.answered, 0.5);
}

static double p99_of(const terse_bench_side *side)
{
    return terse_latencies_us(&side->all.answered, 0.99);
}

static double p999_of(const terse_bench_side *side)
{
    return terse_latencies_us(&side->all.answered, 0.999);
}

static double cpu_of(const terse_bench_side *side)
{
    return side->has_cpu && side->all.replies > side->all.here
               ? side->cpu_seconds * 1000 / (double)(side->all.replies - side->all.here)
               : NAN;
}

static double joules_of(const terse_bench_side *side)
{
    return side->has_joules && side->all.replies > side->all.here
               ? side->joules * 1000 / (double)(side->all.replies - side->all.here)
               : NAN;
}

static void write_table(const terse_bench *b, FILE *out)
{
    fputs("<h2>Numbers</h2><div class=\"s\" tabindex=\"0\"><table id=\"numbers\"><tr><th></th>", out);
    for (unsigned s = 0; s < b->n_sides; s++) {
        char name[NAME];
        name_of(b, &b->sides[s], name, sizeof name);
        fputs("<th>", out);
        terse_page_text(out, name);
        fputs("</th>", out);
    }
    fputs("</tr>\n", out);
    row(out, b, "answers a second", "%.1f", rate_of);
    row(out, b, "requests sent", "%.0f", sent_of);
    row(out, b, "answered", "%.0f", ok_of);
    row(out, b, "mean rows of a batch", "%.2f", batch_of);
    row(out, b, "p50, microseconds", "%.0f", p50_of);
    row(out, b, "p99, microseconds", "%.0f", p99_of);
    row(out, b, "p99.9, microseconds", "%.0f", p999_of);
    if (isfinite(cpu_of(&b->sides[0])))
        row(out, b, "the daemon's processor seconds for 1000 requests", "%.4f", cpu_of);
    if (isfinite(joules_of(&b->sides[0])))
        row(out, b, "the processor's joules for 1000 requests", "%.4f", joules_of);
    fputs("</table></div>\n", out);
    if (b->n_sides > 1)
        fprintf(
            out,
            "<p id=\"ratio\">The first by the second: %.3f times the rate (95 %%: %.3f to %.3f), %.3f times the p50 "
            "(%.3f to %.3f), %.3f times the p99 (%.3f to %.3f).</p>\n",
            b->ratio.rate.mean, b->ratio.rate.low, b->ratio.rate.high, b->ratio.p50.mean, b->ratio.p50.low,
            b->ratio.p50.high, b->ratio.p99.mean, b->ratio.p99.low, b->ratio.p99.high);
}

static void write_rounds(const terse_bench *b, FILE *out)
{
    terse_chart_series series[TERSE_BENCH_SIDES];
    char names[TERSE_BENCH_SIDES][NAME];
    double *x[TERSE_BENCH_SIDES] = {0}, *y[TERSE_BENCH_SIDES] = {0};
    bool room = true;
    for (unsigned s = 0; s < b->n_sides; s++) {
        x[s] = calloc(b->n_rounds, sizeof *x[s]);
        y[s] = calloc(b->n_rounds, sizeof *y[s]);
        room = room && x[s] && y[s];
        for (size_t i = 0; room && i < b->n_rounds; i++) {
            x[s][i] = b->sides[s].rounds[i].rate;
            y[s][i] = b->sides[s].rounds[i].p99_us;
        }
        name_of(b, &b->sides[s], names[s], NAME);
        series[s] =
            (terse_chart_series){.name = names[s], .x = x[s], .y = y[s], .n = b->n_rounds, .style = s, .large = true};
    }
    const terse_chart chart = {.id = "rounds",
                               .title = "Latency against throughput",
                               .text =
                                   "Each point is a round: what was answered, and the latency that 99 % did not pass.",
                               .x = {.label = "answers a second", .mark = NAN},
                               .y = {.label = "p99, microseconds", .log = true, .mark = NAN},
                               .series = series,
                               .n = b->n_sides};
    if (room)
        terse_chart_write(&chart, out);
    for (unsigned s = 0; s < b->n_sides; s++) {
        free(x[s]);
        free(y[s]);
    }
}

static void write_costs(const terse_bench *b, FILE *out)
{
    terse_cost_point points[TERSE_VIEW_COSTS];
    terse_figures_cost drawn[TERSE_VIEW_COSTS];
    terse_cost_line line = {NAN, NAN};
    terse_view *view = NULL;
    terse_error error;
    if (terse_cli_look(terse_load_client(b->sides[0].load), (int)b->connect_ms, &view, &error))
        return; /* of several daemons nobody asks */
    const terse_view_model *model = terse_view_find(view, b->sides[0].model);
    const size_t n = model ? model->n_costs : 0;
    for (size_t i = 0; i < n; i++) {
        points[i] = (terse_cost_point){(double)model->costs[i].rows, (double)model->costs[i].us};
        drawn[i] = (terse_figures_cost){points[i].rows, points[i].us};
    }
    terse_cost_fit(points, n, &line);
    terse_figures_costs(drawn, n, line.a_us, line.b_us, out);
    terse_view_free(view);
}

static void write_body(const terse_bench *b, FILE *out)
{
    terse_figures_load loads[TERSE_BENCH_SIDES];
    char names[TERSE_BENCH_SIDES][NAME];
    for (unsigned s = 0; s < b->n_sides; s++) {
        const terse_load_result *all = &b->sides[s].all;
        name_of(b, &b->sides[s], names[s], NAME);
        loads[s] = (terse_figures_load){names[s], all->answered.ns, all->answered.n, all->in_batch, TERSE_LOAD_BATCHES};
    }
    fputs("<h1>terse bench: ", out);
    terse_page_text(out, b->sides[0].model);
    fputs("</h1>\n<p>", out);
    if (b->open)
        fprintf(out, "Open loop at %.6g requests a second, traffic ",
                b->rate > 0 ? b->rate : terse_traffic_rate(&b->traffic));
    else
        fprintf(out, "Closed loop with %" PRIu64 " requests outstanding", b->concurrency);
    if (b->open)
        terse_page_text(out, b->traffic.text);
    fprintf(out, "; %zu rounds, %" PRIu64 " connections. Latencies count from when a request was due.</p>\n",
            b->n_rounds, b->connections);
    write_table(b, out);
    write_rounds(b, out);
    terse_figures_percentiles(loads, b->n_sides, out);
    terse_figures_batches(loads, b->n_sides, out);
    write_costs(b, out);
}

int terse_bench_page(const terse_bench *b, terse_error *error)
{
    terse_page page;
    char title[NAME];
    snprintf(title, sizeof title, "terse bench: %s", b->sides[0].model);
    const int status = terse_page_open(b->report, title, terse_chart_style, &page, error);
    if (status)
        return status;
    write_body(b, page.out);
    return terse_page_close(&page, error);
}
