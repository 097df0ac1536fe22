/* SPDX-License-Identifier: Apache-2.0 */
/* chart_internal.h: what the kinds of charts share.
 * Runs in: terse. */
#ifndef TERSE_REPORT_CHART_INTERNAL_H
#define TERSE_REPORT_CHART_INTERNAL_H

#include "client/report/chart.h"

enum { CHART_WIDTH = 820, CHART_LEFT = 84, CHART_RIGHT = 800, CHART_TOP = 16, CHART_BOTTOM = 340 };

/* Values from low to high lie between two coordinates. */
typedef struct chart_range {
    double low, high, from, to;
    bool log;
} chart_range;

double terse_chart_place(const chart_range *range, double value);
void terse_chart_number(double value, char *text, size_t size);
void terse_chart_axis_write(const terse_chart_axis *axis, const chart_range *range, bool vertical, FILE *out);
/* The element's beginning, up to where > or /> is due. */
void terse_chart_marker(double x, double y, double radius, unsigned style, FILE *out);
void terse_chart_begin(const char *id, const char *title, const char *text, int height, FILE *out);

#endif
