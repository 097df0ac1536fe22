/* SPDX-License-Identifier: Apache-2.0 */
#include "client/report/figures.h"

#include <math.h>
#include <string.h>

#include "client/report/chart.h"
#include "common/page.h"

enum { CURVE = 160, BINS = 12, COSTS = 16 };

static double at_part(const terse_figures_load *load, double q)
{
    size_t rank = (size_t)ceil(q * (double)load->n);
    rank = rank < 1 ? 1 : rank > load->n ? load->n : rank;
    return (double)load->sorted_ns[rank - 1] / 1e3;
}

static size_t most_samples(const terse_figures_load *loads, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = loads[i].n > most ? loads[i].n : most;
    return most;
}

static void percentile_table(const terse_figures_load *loads, size_t n, FILE *out)
{
    static const struct {
        const char *name;
        double q;
    } of[] = {{"50 %", 0.5}, {"90 %", 0.9}, {"95 %", 0.95}, {"99 %", 0.99}, {"99.9 %", 0.999}, {"all", 1}};
    fputs("<details><summary>The percentiles as numbers</summary><div class=\"s\" "
          "tabindex=\"0\"><table><tr><th>microseconds</th>",
          out);
    for (size_t k = 0; k < sizeof of / sizeof of[0]; k++)
        fprintf(out, "<th>%s</th>", of[k].name);
    fputs("</tr>\n", out);
    for (size_t i = 0; i < n; i++) {
        fputs("<tr><td>", out);
        terse_page_text(out, loads[i].name);
        fputs("</td>", out);
        for (size_t k = 0; k < sizeof of / sizeof of[0]; k++)
            fprintf(out, loads[i].n ? "<td>%.0f</td>" : "<td>-</td>", loads[i].n ? at_part(&loads[i], of[k].q) : 0);
        fputs("</tr>\n", out);
    }
    fputs("</table></div></details>\n", out);
}

void terse_figures_percentiles(const terse_figures_load *loads, size_t n, FILE *out)
{
    static const double ticks[] = {1, 2, 10, 100, 1e3, 1e4, 1e5, 1e6};
    static const char *const names[] = {"0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"};
    double x[TERSE_FIGURES_LOADS][CURVE], y[TERSE_FIGURES_LOADS][CURVE];
    terse_chart_series series[TERSE_FIGURES_LOADS];
    n = n < TERSE_FIGURES_LOADS ? n : TERSE_FIGURES_LOADS;
    const size_t most = most_samples(loads, n);
    for (size_t i = 0; i < n; i++) {
        size_t points = 0;
        for (int k = 0; k < CURVE && loads[i].n > 0; k++) {
            const double slower = pow((double)most, (double)k / (CURVE - 1));
            if (slower > (double)loads[i].n * (1 + 1e-9))
                break;
            x[i][points] = slower;
            y[i][points++] = at_part(&loads[i], 1 - 1 / slower);
        }
        series[i] = (terse_chart_series){
            .name = loads[i].name, .x = x[i], .y = y[i], .n = points, .style = (unsigned)i, .line = true};
    }
    const terse_chart chart = {
        .id = "percentiles",
        .title = "Latency by percentile",
        .text = "How many percent of the requests were answered within so many microseconds. Both axes are "
                "logarithmic: each step to the right leaves a tenth as many slower requests.",
        .x = {.label = "percent of the requests",
              .log = true,
              .ticks = ticks,
              .tick_labels = names,
              .n_ticks = sizeof ticks / sizeof ticks[0],
              .mark = NAN},
        .y = {.label = "latency, microseconds", .log = true, .mark = NAN},
        .series = series,
        .n = n};
    terse_chart_write(&chart, out);
    percentile_table(loads, n, out);
}

static size_t bin_of(size_t rows)
{
    size_t bin = 0;
    while (((size_t)1 << bin) < rows && bin + 1 < BINS)
        bin++;
    return bin;
}

void terse_figures_batches(const terse_figures_load *loads, size_t n, FILE *out)
{
    static const char *const names[BINS] = {"1",     "2",      "3-4",     "5-8",     "9-16",     "17-32",
                                            "33-64", "65-128", "129-256", "257-512", "513-1024", "more"};
    double shares[TERSE_FIGURES_LOADS][BINS] = {{0}}, packed[TERSE_FIGURES_LOADS * BINS];
    const char *series[TERSE_FIGURES_LOADS];
    size_t used = 1;
    n = n < TERSE_FIGURES_LOADS ? n : TERSE_FIGURES_LOADS;
    for (size_t i = 0; i < n; i++) {
        double all = 0;
        series[i] = loads[i].name;
        for (size_t rows = 1; rows < loads[i].n_batches; rows++) {
            const size_t bin = rows + 1 == loads[i].n_batches ? BINS - 1 : bin_of(rows);
            shares[i][bin] += (double)loads[i].in_batch[rows];
            all += (double)loads[i].in_batch[rows];
        }
        for (size_t bin = 0; bin < BINS; bin++) {
            shares[i][bin] *= all > 0 ? 100 / all : 0;
            if (shares[i][bin] > 0 && bin >= used)
                used = bin + 1;
        }
    }
    for (size_t i = 0; i < n; i++)
        memcpy(packed + i * used, shares[i], used * sizeof *packed);
    const terse_chart_bars bars = {.id = "batches",
                                   .title = "Batch sizes",
                                   .text = "How many percent of the requests ran in batches of so many rows.",
                                   .x_label = "rows of the batch",
                                   .y_label = "percent of the requests",
                                   .names = names,
                                   .n = used,
                                   .series = n > 1 ? series : NULL,
                                   .n_series = n,
                                   .values = packed};
    terse_chart_bars_write(&bars, out);
}

void terse_figures_costs(const terse_figures_cost *costs, size_t n, double a_us, double b_us, FILE *out)
{
    double x[COSTS], y[COSTS], per_row[COSTS], line_y[COSTS];
    char labels[COSTS][96];
    const char *pointers[COSTS];
    char fit[128];
    n = n < COSTS ? n : COSTS;
    for (size_t i = 0; i < n; i++) {
        x[i] = costs[i].rows;
        y[i] = costs[i].us;
        per_row[i] = costs[i].us / costs[i].rows;
        line_y[i] = a_us + b_us * costs[i].rows;
        snprintf(labels[i], sizeof labels[i], "%.0f rows: %.0f us, %.1f us for each", x[i], y[i], per_row[i]);
        pointers[i] = labels[i];
    }
    snprintf(fit, sizeof fit, "%.4g + %.4g n microseconds", a_us, b_us);
    const terse_chart_series series[] = {
        {.name = "a batch", .x = x, .y = y, .n = n, .labels = pointers, .style = 0},
        {.name = "each of its rows", .x = x, .y = per_row, .n = n, .labels = pointers, .style = 1},
        {.name = fit, .x = x, .y = line_y, .n = n, .style = 5, .line = true}};
    const terse_chart chart = {
        .id = "costs",
        .title = "What a batch costs",
        .text = "Time that one worker takes for a batch of n rows, as the daemon measured it. Where the "
                "time for each row falls no more, a larger batch gains nothing.",
        .x = {.label = "rows", .log = true, .mark = NAN},
        .y = {.label = "microseconds", .log = true, .mark = NAN},
        .series = series,
        .n = isfinite(a_us + b_us) ? 3 : 2};
    if (n > 0)
        terse_chart_write(&chart, out);
}
