/* SPDX-License-Identifier: Apache-2.0 */
#include "client/report/chart.h"

#include <math.h>
#include <string.h>

#include "client/report/chart_internal.h"
#include "common/page.h"

/* Colours after Okabe and Ito, which people with any kind of colour vision can tell apart. */
const char terse_chart_style[] =
    "figure{margin:1.5em 0}figcaption{max-width:60em}svg{display:block;width:100%;max-width:820px;height:auto}"
    "svg .x{stroke:currentColor;stroke-opacity:.35;fill:none}svg .g{stroke:currentColor;stroke-opacity:.12;fill:none}"
    "svg .m{stroke:currentColor;stroke-dasharray:3 4;fill:none}.f{opacity:.38}"
    ".c0{color:#0072b2}.c1{color:#d55e00}.c2{color:#00795a}.c3{color:#a8447c}.c4{color:#8a6100}.c5{color:#4d5a66}"
    ".p{stroke:currentColor;fill:currentColor}.l{stroke:currentColor;fill:none;stroke-width:2}"
    "summary{cursor:pointer}:focus-visible{outline:3px solid #0072b2;outline-offset:2px}"
    ".s{overflow-x:auto}pre{padding:.8em;overflow-x:auto;border:1px solid #8884;border-radius:.3em}"
    "@media(prefers-color-scheme:dark){.c0{color:#56b4e9}.c1{color:#f08a3c}.c2{color:#2fc9a0}.c3{color:#e59ac3}"
    ".c4{color:#f0e442}.c5{color:#aab4be}}"
    "@media print{body{max-width:none}}";

static const char *const dashes[TERSE_CHART_STYLES] = {"", "7 4", "2 4", "9 3 2 3", "4 2", "1 2"};

double terse_chart_place(const chart_range *r, double value)
{
    const double low = r->log ? log10(r->low) : r->low, high = r->log ? log10(r->high) : r->high;
    const double at = r->log ? log10(value) : value;
    return r->from + (r->to - r->from) * (high > low ? (at - low) / (high - low) : 0.5);
}

static bool shown(const chart_range *r, double value)
{
    return isfinite(value) && (!r->log || value > 0);
}

static void widen(chart_range *r, double value)
{
    if (!shown(r, value))
        return;
    r->low = fmin(r->low, value);
    r->high = fmax(r->high, value);
}

static void round_out(chart_range *r, bool from_zero)
{
    if (!(r->low <= r->high)) { /* nothing to show */
        r->low = r->log ? 1 : 0;
        r->high = r->log ? 10 : 1;
    }
    if (r->log) {
        r->low /= 1.2;
        r->high *= 1.2;
        return;
    }
    if (from_zero)
        r->low = fmin(0, r->low);
    const double span = r->high > r->low ? r->high - r->low : fabs(r->high) + 1;
    r->high += span * 0.06;
    if (!from_zero)
        r->low -= span * 0.06;
}

void terse_chart_number(double value, char *text, size_t size)
{
    const double a = fabs(value);
    if (a >= 1e9)
        snprintf(text, size, "%.4gG", value / 1e9);
    else if (a >= 1e6)
        snprintf(text, size, "%.4gM", value / 1e6);
    else if (a >= 1e4)
        snprintf(text, size, "%.4gk", value / 1e3);
    else
        snprintf(text, size, "%.4g", value);
}

/* Round numbers in the range: 1, 2 or 5 times a power of ten; of a short logarithmic range too. */
static size_t round_ticks(const chart_range *r, double *ret, size_t room)
{
    size_t n = 0;
    if (r->log) {
        const bool few = log10(r->high / r->low) > 2.2;
        for (double decade = pow(10, floor(log10(r->low))); decade <= r->high && n + 3 <= room; decade *= 10)
            for (int i = 0; i < (few ? 1 : 3); i++) {
                const double value = decade * (i == 0 ? 1 : i == 1 ? 2 : 5);
                if (value >= r->low && value <= r->high)
                    ret[n++] = value;
            }
        return n;
    }
    const double rough = (r->high - r->low) / 5, power = pow(10, floor(log10(rough)));
    const double step = rough / power > 5   ? 10 * power
                        : rough / power > 2 ? 5 * power
                        : rough / power > 1 ? 2 * power
                                            : power;
    for (double at = ceil(r->low / step) * step; at <= r->high + step * 1e-9 && n < room; at += step)
        ret[n++] = fabs(at) < step * 1e-9 ? 0 : at;
    return n;
}

void terse_chart_axis_write(const terse_chart_axis *axis, const chart_range *r, bool vertical, FILE *out)
{
    double round[32];
    const size_t n = axis->ticks ? axis->n_ticks : round_ticks(r, round, sizeof round / sizeof round[0]);
    for (size_t i = 0; i < n; i++) {
        const double value = axis->ticks ? axis->ticks[i] : round[i];
        char text[32];
        if (value < r->low || value > r->high)
            continue;
        const double at = terse_chart_place(r, value);
        terse_chart_number(value, text, sizeof text);
        if (vertical)
            fprintf(out, "<path class=\"g\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
                    CHART_LEFT, at, CHART_RIGHT, CHART_LEFT - 8, at + 4);
        else
            fprintf(out, "<path class=\"g\" d=\"M%.1f %dV%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", at,
                    CHART_TOP, CHART_BOTTOM, at, CHART_BOTTOM + 18);
        terse_page_text(out, axis->ticks && axis->tick_labels ? axis->tick_labels[i] : text);
        fputs("</text>\n", out);
    }
    if (vertical)
        fprintf(out, "<text x=\"16\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 16 %d)\">",
                (CHART_TOP + CHART_BOTTOM) / 2, (CHART_TOP + CHART_BOTTOM) / 2);
    else
        fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (CHART_LEFT + CHART_RIGHT) / 2,
                CHART_BOTTOM + 40);
    terse_page_text(out, axis->label);
    fputs("</text>\n", out);
}

static void write_mark(const terse_chart_axis *axis, const chart_range *r, bool vertical, FILE *out)
{
    if (!axis->mark_label || !shown(r, axis->mark))
        return;
    const double at = terse_chart_place(r, axis->mark);
    if (vertical)
        fprintf(out, "<path class=\"m\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\">", CHART_LEFT, at, CHART_RIGHT,
                CHART_LEFT + 6, at - 5);
    else
        fprintf(out, "<path class=\"m\" d=\"M%.1f %dV%d\"/><text x=\"%.1f\" y=\"%d\">", at, CHART_TOP, CHART_BOTTOM,
                at + 5, CHART_TOP + 12);
    terse_page_text(out, axis->mark_label);
    fputs("</text>\n", out);
}

void terse_chart_marker(double x, double y, double r, unsigned style, FILE *out)
{
    switch (style % TERSE_CHART_STYLES) {
    case 0:
        fprintf(out, "<circle class=\"p\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"", x, y, r);
        break;
    case 1:
        fprintf(out, "<rect class=\"p\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"", x - r, y - r, 2 * r,
                2 * r);
        break;
    case 2:
        fprintf(out, "<path class=\"p\" d=\"M%.1f %.1fl%.1f %.1fh%.1fz\"", x, y - r, r, 2 * r, -2 * r);
        break;
    case 3:
        fprintf(out, "<path class=\"p\" d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\"", x, y - r * 1.3, r * 1.3,
                r * 1.3, -r * 1.3, r * 1.3, -r * 1.3, -r * 1.3);
        break;
    case 4:
        fprintf(out, "<path class=\"l\" d=\"M%.1f %.1fl%.1f %.1fm0 %.1fl%.1f %.1f\"", x - r, y - r, 2 * r, 2 * r,
                -2 * r, -2 * r, 2 * r);
        break;
    default:
        fprintf(out, "<path class=\"l\" d=\"M%.1f %.1fv%.1fm%.1f %.1fh%.1f\"", x, y - r, 2 * r, -r, -r, 2 * r);
    }
}

static void write_line(const terse_chart_series *s, const chart_range *x, const chart_range *y, FILE *out)
{
    bool begun = false;
    for (size_t i = 0; i < s->n; i++) {
        if (!shown(x, s->x[i]) || !shown(y, s->y[i]))
            continue;
        fprintf(out, begun ? "L%.1f %.1f" : "<path class=\"l\" d=\"M%.1f %.1f", terse_chart_place(x, s->x[i]),
                terse_chart_place(y, s->y[i]));
        begun = true;
    }
    if (begun)
        fprintf(out, "\" stroke-dasharray=\"%s\"/>\n",
                *dashes[s->style % TERSE_CHART_STYLES] ? dashes[s->style % TERSE_CHART_STYLES] : "none");
}

static void write_series(const terse_chart_series *s, const chart_range *x, const chart_range *y, FILE *out)
{
    fprintf(out, "<g class=\"c%u%s\">\n", s->style % TERSE_CHART_STYLES, s->faint ? " f" : "");
    if (s->line)
        write_line(s, x, y, out);
    for (size_t i = 0; i < s->n && (!s->line || s->labels); i++) {
        char text[2][32];
        if (!shown(x, s->x[i]) || !shown(y, s->y[i]))
            continue;
        terse_chart_marker(terse_chart_place(x, s->x[i]), terse_chart_place(y, s->y[i]), s->large ? 6 : 3.5, s->style,
                           out);
        fputs("><title>", out);
        if (s->labels && s->labels[i]) {
            terse_page_text(out, s->labels[i]);
        } else {
            terse_chart_number(s->x[i], text[0], sizeof text[0]);
            terse_chart_number(s->y[i], text[1], sizeof text[1]);
            fprintf(out, "%s, %s", text[0], text[1]);
        }
        fprintf(out, "</title></%s>\n",
                s->style % TERSE_CHART_STYLES == 0   ? "circle"
                : s->style % TERSE_CHART_STYLES == 1 ? "rect"
                                                     : "path");
    }
    fputs("</g>\n", out);
}

void terse_chart_begin(const char *id, const char *title, const char *text, int height, FILE *out)
{
    fputs("<figure><h2>", out);
    terse_page_text(out, title);
    fputs("</h2><figcaption>", out);
    terse_page_text(out, text);
    fprintf(out,
            "</figcaption>\n<svg id=\"%s\" role=\"img\" aria-labelledby=\"%s-title %s-text\" viewBox=\"0 0 %d %d\" "
            "xmlns=\"http://www.w3.org/2000/svg\">\n<title id=\"%s-title\">",
            id, id, id, CHART_WIDTH, height, id);
    terse_page_text(out, title);
    fprintf(out, "</title><desc id=\"%s-text\">", id);
    terse_page_text(out, text);
    fputs("</desc>\n", out);
}

/* Lines of the legend below the axis; returns how many. */
static int write_legend(const terse_chart *chart, FILE *out)
{
    enum { COLUMN = 380 };
    int n = 0;
    for (size_t i = 0; i < chart->n; i++) {
        const terse_chart_series *s = &chart->series[i];
        if (!s->name)
            continue;
        const double x = CHART_LEFT + 12 + (n % 2) * COLUMN, y = CHART_BOTTOM + 62 + (n / 2) * 20;
        fprintf(out, "<g class=\"c%u%s\">", s->style % TERSE_CHART_STYLES, s->faint ? " f" : "");
        if (s->line)
            fprintf(out, "<path class=\"l\" d=\"M%.1f %.1fh28\" stroke-dasharray=\"%s\"/>", x - 10, y,
                    *dashes[s->style % TERSE_CHART_STYLES] ? dashes[s->style % TERSE_CHART_STYLES] : "none");
        if (!s->line || s->labels) {
            terse_chart_marker(x + 4, y, s->large ? 6 : 3.5, s->style, out);
            fputs("/>", out);
        }
        fprintf(out, "</g><text x=\"%.1f\" y=\"%.1f\">", x + 26, y + 4);
        terse_page_text(out, s->name);
        fputs("</text>\n", out);
        n++;
    }
    return (n + 1) / 2;
}

void terse_chart_write(const terse_chart *chart, FILE *out)
{
    chart_range x = {.low = INFINITY, .high = -INFINITY, .from = CHART_LEFT, .to = CHART_RIGHT, .log = chart->x.log};
    chart_range y = {.low = INFINITY, .high = -INFINITY, .from = CHART_BOTTOM, .to = CHART_TOP, .log = chart->y.log};
    int named = 0;
    for (size_t i = 0; i < chart->n; i++) {
        named += chart->series[i].name != NULL;
        for (size_t k = 0; k < chart->series[i].n; k++) {
            widen(&x, chart->series[i].x[k]);
            widen(&y, chart->series[i].y[k]);
        }
    }
    if (chart->x.mark_label)
        widen(&x, chart->x.mark);
    if (chart->y.mark_label)
        widen(&y, chart->y.mark);
    round_out(&x, chart->x.from_zero);
    round_out(&y, chart->y.from_zero);
    terse_chart_begin(chart->id, chart->title, chart->text, CHART_BOTTOM + 54 + (named + 1) / 2 * 20, out);
    terse_chart_axis_write(&chart->x, &x, false, out);
    terse_chart_axis_write(&chart->y, &y, true, out);
    fprintf(out, "<path class=\"x\" d=\"M%d %dV%dH%d\"/>\n", CHART_LEFT, CHART_TOP, CHART_BOTTOM, CHART_RIGHT);
    write_mark(&chart->x, &x, false, out);
    write_mark(&chart->y, &y, true, out);
    for (size_t i = 0; i < chart->n; i++)
        write_series(&chart->series[i], &x, &y, out);
    write_legend(chart, out);
    fputs("</svg></figure>\n", out);
}
