/* SPDX-License-Identifier: Apache-2.0 */
/* Charts of nothing, of one point, of numbers that are none, with texts that would be markup: what is written is
 * well-formed and has no number that is none. */
#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/report/chart.h"
#include "client/report/figures.h"
#include "common/page.h"

#define HOSTILE "</svg><script>alert(1)</script> & \"x\" 'y' \x01 \xff \xc3\xa9"

/* Every element that begins ends, in order; quotes are paired; no text has a bare & or <. */
static void well_formed(const char *text)
{
    char open[64][32];
    int depth = 0;
    for (const char *c = text; *c; c++) {
        if (*c == '&')
            assert_true(strncmp(c, "&lt;", 4) == 0 || strncmp(c, "&gt;", 4) == 0 || strncmp(c, "&amp;", 5) == 0 ||
                        strncmp(c, "&quot;", 6) == 0 || strncmp(c, "&#39;", 5) == 0);
        if (*c != '<')
            continue;
        const bool ends = c[1] == '/';
        const char *name = c + 1 + ends;
        size_t length = 0;
        while (isalnum((unsigned char)name[length]))
            length++;
        assert_true(length > 0 && length < sizeof open[0]);
        bool quoted = false;
        for (c = name + length; *c && (quoted || *c != '>'); c++)
            quoted = quoted != (*c == '"');
        assert_int_equal(*c, '>');
        if (ends) {
            assert_true(depth > 0);
            depth--;
            assert_true(strlen(open[depth]) == length && memcmp(open[depth], name, length) == 0);
        } else if (c[-1] != '/') {
            assert_true(depth < 64);
            snprintf(open[depth++], sizeof open[0], "%.*s", (int)length, name);
        }
    }
    assert_int_equal(depth, 0);
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf\""));
    assert_null(strstr(text, "<script"));
}

static char *text;
static size_t size;

static FILE *begin(void)
{
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    return out;
}

static void end(FILE *out)
{
    assert_int_equal(fclose(out), 0);
    well_formed(text);
    free(text);
}

static void charts_of_anything_are_well_formed(void **state)
{
    (void)state;
    const double x[] = {NAN, 0, -5, 1, 1e300, INFINITY}, y[] = {1, NAN, 3, 0, 1e-300, 7};
    const char *labels[] = {HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, NULL};
    for (unsigned style = 0; style < 8; style++)
        for (int log = 0; log < 4; log++)
            for (size_t n = 0; n <= 6; n++) {
                const terse_chart_series series[] = {
                    {.name = HOSTILE, .x = x, .y = y, .n = n, .labels = labels, .style = style, .line = style % 2},
                    {.x = y, .y = x, .n = n, .style = style + 1, .line = true, .faint = true}};
                const terse_chart chart = {
                    .id = "c",
                    .title = HOSTILE,
                    .text = HOSTILE,
                    .x = {.label = HOSTILE, .log = log & 1, .mark = NAN},
                    .y = {.label = HOSTILE, .log = log & 2, .from_zero = true, .mark = 50, .mark_label = HOSTILE},
                    .series = series,
                    .n = 2};
                FILE *out = begin();
                terse_chart_write(&chart, out);
                end(out);
            }
}

static void bars_and_figures_of_anything_are_well_formed(void **state)
{
    (void)state;
    const char *names[] = {HOSTILE, "b"};
    const double values[] = {0, NAN, -3, INFINITY};
    const uint64_t ns[] = {0, 1, UINT64_MAX}, in_batch[] = {0, 3, 0, 0, 5, 1};
    FILE *out = begin();
    for (size_t n = 1; n <= 2; n++) {
        const terse_chart_bars bars = {.id = "b",
                                       .title = HOSTILE,
                                       .text = HOSTILE,
                                       .x_label = HOSTILE,
                                       .y_label = HOSTILE,
                                       .names = names,
                                       .n = n,
                                       .series = names,
                                       .n_series = n,
                                       .values = values};
        terse_chart_bars_write(&bars, out);
    }
    for (size_t n = 0; n <= 3; n++) {
        const terse_figures_load loads[] = {{HOSTILE, ns, n, in_batch, n * 2}, {"", ns, 0, in_batch, 0}};
        terse_figures_percentiles(loads, 2, out);
        terse_figures_batches(loads, 2, out);
        const terse_figures_cost costs[] = {{1, 5}, {2, 5}, {1024, 1e9}};
        terse_figures_costs(costs, n, NAN, n % 2 ? NAN : 3, out);
    }
    end(out);
}

static void shares_of_batches_add_up(void **state)
{
    (void)state;
    const uint64_t in_batch[] = {9, 25, 25, 0, 50, 0}; /* nobody is in a batch of 0; the last is "more" */
    const terse_figures_load load = {"x", NULL, 0, in_batch, 6};
    FILE *out = begin();
    terse_figures_batches(&load, 1, out);
    fflush(out);
    assert_non_null(strstr(text, "<title>1: 25</title>"));
    assert_non_null(strstr(text, "<title>2: 25</title>"));
    assert_non_null(strstr(text, "<title>3-4: 50</title>"));
    end(out);
}

static void pages_are_whole_or_not_there(void **state)
{
    (void)state;
    terse_page page;
    terse_error error = {0};
    assert_int_not_equal(terse_page_open("/nonexistent/x.html", "t", "", &page, &error), TERSE_OK);
    assert_non_null(strstr(error.message, "/nonexistent"));
    char path[] = "/tmp/terse-page-XXXXXX";
    assert_non_null(mkdtemp(path));
    char file[64];
    snprintf(file, sizeof file, "%s/page.html", path);
    assert_int_equal(terse_page_open(file, HOSTILE, terse_chart_style, &page, &error), TERSE_OK);
    assert_null(fopen(file, "r")); /* not before it is whole */
    assert_int_equal(terse_page_close(&page, &error), TERSE_OK);
    char found[16384] = "";
    FILE *in = fopen(file, "r");
    assert_non_null(in);
    found[fread(found, 1, sizeof found - 1, in)] = 0;
    fclose(in);
    assert_non_null(strstr(found, "&lt;script&gt;"));
    well_formed(strchr(found, '\n'));
    remove(file);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(charts_of_anything_are_well_formed),
        cmocka_unit_test(bars_and_figures_of_anything_are_well_formed),
        cmocka_unit_test(shares_of_batches_add_up),
        cmocka_unit_test(pages_are_whole_or_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
