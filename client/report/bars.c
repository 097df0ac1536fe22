/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "client/report/chart_internal.h"
#include "common/page.h"

static void write_bar(const terse_chart_bars *bars, size_t series, size_t i, const chart_range *y, FILE *out)
{
    const double group = (double)(CHART_RIGHT - CHART_LEFT) / (double)bars->n;
    const double wide = fmin(60, group * 0.8 / (double)bars->n_series);
    const double left = CHART_LEFT + group * ((double)i + 0.5) + wide * ((double)series - (double)bars->n_series / 2);
    const double value = bars->values[series * bars->n + i], top = terse_chart_place(y, value);
    char text[32];
    if (!isfinite(value) || value <= 0)
        return;
    terse_chart_number(value, text, sizeof text);
    /* Hatched or not: series can be told apart without colours. */
    fprintf(out, "<rect class=\"p\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill-opacity=\"%s\"><title>",
            left + 1, top, wide - 2, CHART_BOTTOM - top, series % 2 ? ".25" : ".85");
    terse_page_text(out, bars->names[i]);
    fprintf(out, ": %s</title></rect>\n", text);
}

static void write_names(const terse_chart_bars *bars, FILE *out)
{
    const double group = (double)(CHART_RIGHT - CHART_LEFT) / (double)bars->n;
    for (size_t i = 0; i < bars->n; i++) {
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", CHART_LEFT + group * ((double)i + 0.5),
                CHART_BOTTOM + 18);
        terse_page_text(out, bars->names[i]);
        fputs("</text>\n", out);
    }
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (CHART_LEFT + CHART_RIGHT) / 2, CHART_BOTTOM + 40);
    terse_page_text(out, bars->x_label);
    fputs("</text>\n", out);
    for (size_t s = 0; bars->series && s < bars->n_series; s++) {
        const int y = CHART_BOTTOM + 62 + (int)s * 20;
        fprintf(
            out,
            "<g class=\"c%zu\"><rect class=\"p\" x=\"%d\" y=\"%d\" width=\"28\" height=\"10\" fill-opacity=\"%s\"/></g>"
            "<text x=\"%d\" y=\"%d\">",
            s % TERSE_CHART_STYLES, CHART_LEFT + 2, y - 5, s % 2 ? ".25" : ".85", CHART_LEFT + 38, y + 4);
        terse_page_text(out, bars->series[s]);
        fputs("</text>\n", out);
    }
}

void terse_chart_bars_write(const terse_chart_bars *bars, FILE *out)
{
    chart_range y = {.low = 0, .high = 0, .from = CHART_BOTTOM, .to = CHART_TOP};
    for (size_t i = 0; i < bars->n * bars->n_series; i++)
        if (isfinite(bars->values[i]))
            y.high = fmax(y.high, bars->values[i]);
    y.high = y.high > 0 ? y.high * 1.06 : 1;
    const terse_chart_axis axis = {.label = bars->y_label, .mark = NAN};
    terse_chart_begin(bars->id, bars->title, bars->text,
                      CHART_BOTTOM + 54 + (bars->series ? (int)bars->n_series * 20 : 0), out);
    terse_chart_axis_write(&axis, &y, true, out);
    fprintf(out, "<path class=\"x\" d=\"M%d %dV%dH%d\"/>\n", CHART_LEFT, CHART_TOP, CHART_BOTTOM, CHART_RIGHT);
    for (size_t s = 0; s < bars->n_series; s++) {
        fprintf(out, "<g class=\"c%zu\">\n", s % TERSE_CHART_STYLES);
        for (size_t i = 0; i < bars->n; i++)
            write_bar(bars, s, i, &y, out);
        fputs("</g>\n", out);
    }
    write_names(bars, out);
    fputs("</svg></figure>\n", out);
}
