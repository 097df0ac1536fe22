/* SPDX-License-Identifier: Apache-2.0 */
/* The report as a page: a table of figures, with --quantize int8 what each layer costs
 * alone, two bar charts (time and error of each layer) and a table of layers. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/page.h"
#include "compress/report/report.h"
#include "compress/search/tell.h"

enum { LABEL_WIDTH = 220, BAR_WIDTH = 560, ROW_HEIGHT = 30, BAR_HEIGHT = 11, NUMBER_WIDTH = 90, WATERFALL_STEPS = 16 };

static const char style[] = ".b{fill:#9aa7b5}.a{fill:#1f77b4}.e{fill:#c2571a}@media(prefers-color-scheme:dark){.a{fill:"
                            "#4a9fdc}.e{fill:#e0793c}}";

static void write_drop(const terse_validation *v, FILE *out)
{
    fprintf(out, "<p id=\"drop\">Compared on %" PRId64 " samples", v->samples);
    if (v->has_top1)
        fprintf(out, ": top-1 drops by %.2f points (95 %%, paired: %.2f to %.2f)", 100 * v->drop, 100 * v->drop_low,
                100 * v->drop_high);
    if (v->joules_after > 0)
        fprintf(out, "; joules of one: %.4g before, %.4g after", v->joules_before, v->joules_after);
    fputs(".</p>\n", out);
}

static void write_figures(const terse_report *report, FILE *out)
{
    terse_figure list[TERSE_REPORT_FIGURES];
    terse_report_figures(report, list);
    fputs("<table><tr><th></th><th>before</th><th>after</th><th>after / before</th></tr>\n", out);
    for (int i = 0; i < TERSE_REPORT_FIGURES; i++) {
        if (!list[i].known)
            continue;
        char before[64], after[64], ratio[32] = "";
        terse_report_number(list[i].kind, list[i].before, before, sizeof before);
        terse_report_number(list[i].kind, list[i].after, after, sizeof after);
        if ((list[i].kind == TERSE_FIGURE_COUNT || list[i].kind == TERSE_FIGURE_MICROSECONDS) && list[i].before > 0)
            snprintf(ratio, sizeof ratio, "%.3f", list[i].after / list[i].before);
        fprintf(out, "<tr><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n", list[i].label, before, after, ratio);
    }
    fputs("</table>\n", out);
    if (report->validated)
        fprintf(out, "<p>Compared on %" PRId64 " samples; error of the layers on %" PRId64 " of them.</p>\n",
                report->validation.samples, report->measured.samples);
}

static void open_chart(const char *title, const char *text, int rows, FILE *out)
{
    fprintf(
        out,
        "<h2>%s</h2><p>%s</p>\n<svg role=\"img\" width=\"%d\" height=\"%d\" xmlns=\"http://www.w3.org/2000/svg\">\n",
        title, text, LABEL_WIDTH + BAR_WIDTH + NUMBER_WIDTH, rows * ROW_HEIGHT + 4);
}

static void row_label(int row, const char *name, FILE *out)
{
    char shortened[36];
    const size_t length = strlen(name);
    if (length < sizeof shortened)
        snprintf(shortened, sizeof shortened, "%s", name);
    else /* the end of a name tells layers apart */
        snprintf(shortened, sizeof shortened, "...%s", name + length - sizeof shortened + 4);
    fprintf(out, "<text x=\"0\" y=\"%d\">", row * ROW_HEIGHT + 19);
    terse_page_text(out, shortened);
    fputs("</text>\n", out);
}

static void bar(int x, int y, double share, const char *class_name, const char *text, FILE *out)
{
    const double width = share > 0 ? share * BAR_WIDTH : 0;
    fprintf(out,
            "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\"/><text x=\"%.1f\" y=\"%d\">%s</text>\n",
            class_name, x, y, width, BAR_HEIGHT, x + width + 4, y + BAR_HEIGHT - 1, text);
}

static void time_row(int row, const char *name, double before, double after, double largest, FILE *out)
{
    char text[2][32];
    snprintf(text[0], sizeof text[0], "%.1f", before);
    snprintf(text[1], sizeof text[1], "%.1f", after);
    row_label(row, name, out);
    bar(LABEL_WIDTH, row * ROW_HEIGHT + 3, before / largest, "b", text[0], out);
    bar(LABEL_WIDTH, row * ROW_HEIGHT + 4 + BAR_HEIGHT, after / largest, "a", text[1], out);
}

static void write_times(const terse_layers *layers, FILE *out)
{
    double largest = 1e-9;
    for (int i = 0; i < layers->n; i++)
        largest = fmax(largest, fmax(layers->layers[i].us_before, layers->layers[i].us_after));
    largest = fmax(largest, fmax(layers->other_us_before, layers->other_us_after));
    open_chart("Time of each layer", "Microseconds of one sample, one thread: grey before, blue after.", layers->n + 1,
               out);
    for (int i = 0; i < layers->n; i++)
        time_row(i, layers->layers[i].name, layers->layers[i].us_before, layers->layers[i].us_after, largest, out);
    time_row(layers->n, "everything else", layers->other_us_before, layers->other_us_after, largest, out);
    fputs("</svg>\n", out);
}

/* From the time before to the time after: each layer goes on where the one before it ended, those that matter most
 * first, the many small ones together. */
static double saved(const terse_layers *layers, int i)
{
    return i < layers->n ? layers->layers[i].us_before - layers->layers[i].us_after
                         : layers->other_us_before - layers->other_us_after;
}

static void step(int row, const char *name, double from, double to, double all, const char *class_name, FILE *out)
{
    const double low = fmax(0, fmin(from, to)), high = fmax(from, to);
    row_label(row, name, out);
    fprintf(out,
            "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>"
            "<text x=\"%.1f\" y=\"%d\">%+.1f</text>\n",
            class_name, LABEL_WIDTH + low / all * BAR_WIDTH, row * ROW_HEIGHT + 8,
            fmax(1, (high - low) / all * BAR_WIDTH), BAR_HEIGHT, LABEL_WIDTH + high / all * BAR_WIDTH + 4,
            row * ROW_HEIGHT + 8 + BAR_HEIGHT - 1, to - from);
}

static void write_waterfall(const terse_layers *layers, FILE *out)
{
    double before = layers->other_us_before, after = layers->other_us_after, at;
    TERSE_AUTO(terse_freep) bool *shown = calloc((size_t)layers->n + 2, sizeof *shown);
    for (int i = 0; i < layers->n; i++) {
        before += layers->layers[i].us_before;
        after += layers->layers[i].us_after;
    }
    const double all = fmax(fmax(before, after), 1e-9) * 1.1;
    const int steps = layers->n + 1 < WATERFALL_STEPS ? layers->n + 1 : WATERFALL_STEPS;
    if (!shown)
        return;
    open_chart("From before to after",
               "Microseconds of one sample: what each layer takes away or adds, the most first.", steps + 3, out);
    step(0, "before", 0, before, all, "b", out);
    at = before;
    for (int row = 1; row <= steps; row++) {
        int most = -1;
        for (int i = 0; i <= layers->n; i++)
            if (!shown[i] && (most < 0 || fabs(saved(layers, i)) > fabs(saved(layers, most))))
                most = i;
        shown[most] = true;
        const double to = at - saved(layers, most);
        step(row, most < layers->n ? layers->layers[most].name : "everything else", at, to, all, to <= at ? "a" : "e",
             out);
        at = to;
    }
    step(steps + 1, "the others", at, after, all, after <= at ? "a" : "e", out);
    step(steps + 2, "after", 0, after, all, "b", out);
    fputs("</svg>\n", out);
}

/* Shown as the share of noise, 10^(-dB/20), on a scale of decibels: 60 dB is nothing, 0 dB is the whole width. */
static void write_errors(const terse_layers *layers, FILE *out)
{
    open_chart("Error of each layer",
               "Signal to noise of the layer's output in dB (the errors of all layers before it included): "
               "the longer the bar, the larger the error; empty is 60 dB or better.",
               layers->n, out);
    for (int i = 0; i < layers->n; i++) {
        const double db = layers->layers[i].sqnr_db;
        char text[32];
        terse_report_decibels(db, text, sizeof text);
        row_label(i, layers->layers[i].name, out);
        const double share = isnan(db) ? 0 : fmin(1.0, fmax(0.0, (60.0 - db) / 60.0));
        bar(LABEL_WIDTH, i * ROW_HEIGHT + 9, share, "e", text, out);
    }
    fputs("</svg>\n", out);
}

static void write_layers(const terse_layers *layers, FILE *out)
{
    fputs("<h2>Layers</h2>\n<table><tr><th>layer</th><th class=\"t\">operator</th><th class=\"t\">weights</th>"
          "<th>MACs</th><th>bytes before</th><th>after</th><th>SQNR dB</th><th>&micro;s before</th><th>after</th>"
          "<th class=\"t\">what was done</th></tr>\n",
          out);
    for (int i = 0; i < layers->n; i++) {
        const terse_layer *l = &layers->layers[i];
        char db[32];
        terse_report_decibels(l->sqnr_db, db, sizeof db);
        fputs("<tr><td>", out);
        terse_page_text(out, l->name);
        fprintf(out,
                "</td><td class=\"t\">%s</td><td class=\"t\">%s</td><td>%" PRId64 "</td><td>%" PRId64
                "</td><td>%" PRId64 "</td><td>%s</td><td>%.1f</td><td>%.1f</td><td class=\"t\">",
                terse_op_name(l->op_after), l->shape, l->macs_after, l->bytes_before, l->bytes_after, db, l->us_before,
                l->us_after);
        terse_page_text(out, l->compression);
        fputs("</td></tr>\n", out);
    }
    fputs("</table>\n", out);
}

/* The table of --quantize int8: what each layer costs alone at the network's outputs, and what stays. */
static void write_int8_row(const terse_quantize_layer *l, FILE *out)
{
    char db[32] = "-", kl[32] = "-", low[32] = "-", high[32] = "-", clipped[32] = "-";
    if (l->alone) {
        terse_report_decibels(l->sqnr_db, db, sizeof db);
        snprintf(kl, sizeof kl, "%.3g", l->divergence);
    }
    if (l->measured) {
        snprintf(low, sizeof low, "%.4g", l->low);
        snprintf(high, sizeof high, "%.4g", l->high);
        snprintf(clipped, sizeof clipped, "%.3f %%", 100 * l->clipped);
    }
    fprintf(out, "<tr%s><td>", l->kept ? " class=\"k\"" : "");
    terse_page_text(out, l->name);
    fprintf(out,
            "</td><td class=\"t\">%s</td><td class=\"t\">%s</td><td>%" PRId64
            "</td><td>%s</td><td>%s</td><td class=\"t\">%s</td><td>%s</td><td>%s</td><td>%s</td><td class=\"t\">%s</td>"
            "<td class=\"t\">",
            terse_op_name(l->op), l->shape, l->macs, db, kl, l->measured ? terse_calibration_name(l->method) : "-", low,
            high, clipped, l->kept ? "kept float" : "int8");
    terse_page_text(out, l->kept ? l->reason : "");
    fputs("</td></tr>\n", out);
}

static void write_int8(const terse_quantize_report *r, FILE *out)
{
    char db[32];
    fprintf(
        out,
        "<h2>Sensitivity of each layer</h2>\n<p>Error at the network's outputs when only this layer is int8: signal "
        "to noise in dB and KL divergence in nats. Ranges of the layer's input from %" PRId64 " samples.</p>\n"
        "<table id=\"sensitivity\"><tr><th>layer</th><th class=\"t\">operator</th><th class=\"t\">weights</th>"
        "<th>MACs</th><th>SQNR dB alone</th><th>KL alone</th><th class=\"t\">range "
        "by</th><th>from</th><th>to</th><th>clipped</th>"
        "<th class=\"t\">becomes</th><th class=\"t\">why</th></tr>\n",
        r->samples);
    for (int i = 0; i < r->n; i++)
        write_int8_row(&r->layers[i], out);
    terse_report_decibels(r->sqnr_db, db, sizeof db);
    fprintf(out, "</table>\n<p>All choices together: SQNR %s dB", db);
    if (r->rows_known)
        fprintf(out, ", KL %.3g", r->divergence);
    fputs(". Equalization ", out);
    terse_page_text(out, r->equalization);
    fputs(".</p>\n", out);
    for (int i = 0; i < r->n_warnings; i++) {
        fputs("<p>Warning: ", out);
        terse_page_text(out, r->warnings[i]);
        fputs("</p>\n", out);
    }
}

int terse_report_html(const terse_report *report, const char *path, terse_error *error)
{
    terse_page page;
    const int status = terse_page_open(path, report->name, style, &page, error);
    if (status != TERSE_OK)
        return status;
    FILE *out = page.out;
    fputs("<h1>", out);
    terse_page_text(out, report->name);
    fputs("</h1>\n<p>", out);
    terse_page_text(out, report->input);
    fputs(" &rarr; ", out);
    terse_page_text(out, report->output);
    fprintf(out, ", %d nodes &rarr; %d</p>\n", report->n_nodes_before, report->n_nodes_after);
    write_figures(report, out);
    if (report->validated)
        write_drop(&report->validation, out);
    if (report->search)
        terse_tell_search_html(report->search, terse_page_text, out);
    if (report->quantized)
        write_int8(&report->int8, out);
    if (report->measured.n > 0) {
        write_waterfall(&report->measured, out);
        write_times(&report->measured, out);
        write_errors(&report->measured, out);
        write_layers(&report->measured, out);
    }
    return terse_page_close(&page, error);
}
