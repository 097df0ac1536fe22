/* SPDX-License-Identifier: Apache-2.0 */
/* chart.h: charts of a page (common/page.h) as inline SVG: points and lines over two axes, and bars.
 * Runs in: terse. Owns nothing; writes into the stream of the page.
 *
 * A chart is readable without colours (each series has a marker and a dash of its own), in light and in dark, by a
 * screen reader (title, description, a title on each point) and without a script. Texts may be anybody's. */
#ifndef TERSE_REPORT_CHART_H
#define TERSE_REPORT_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct terse_chart_series {
    const char *name; /* of the legend; NULL: none */
    const double *x, *y;
    size_t n;                  /* points that are not finite are left out */
    const char *const *labels; /* titles of the points; may be NULL */
    unsigned style;            /* colour, marker and dash; modulo TERSE_CHART_STYLES */
    bool line, faint, large;
} terse_chart_series;

enum { TERSE_CHART_STYLES = 6 };

typedef struct terse_chart_axis {
    const char *label;
    bool log;
    bool from_zero;      /* of a linear one */
    const double *ticks; /* NULL: round numbers */
    const char *const *tick_labels;
    size_t n_ticks;
    double mark; /* a line across, NAN: none */
    const char *mark_label;
} terse_chart_axis;

typedef struct terse_chart {
    const char *id;           /* of the element: a word */
    const char *title, *text; /* text: what is to be seen */
    terse_chart_axis x, y;
    const terse_chart_series *series;
    size_t n;
} terse_chart;

/* What the page's style lacks for charts: for terse_page_open. */
extern const char terse_chart_style[];

void terse_chart_write(const terse_chart *chart, FILE *out);

/* Groups of bars: names[i] has values[s * n + i] of series s. */
typedef struct terse_chart_bars {
    const char *id, *title, *text, *x_label, *y_label;
    const char *const *names;
    size_t n;
    const char *const *series; /* names; NULL: one series without a legend */
    size_t n_series;
    const double *values;
} terse_chart_bars;
void terse_chart_bars_write(const terse_chart_bars *bars, FILE *out);

#endif
