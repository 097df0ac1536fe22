/* SPDX-License-Identifier: Apache-2.0 */
/* The search on the page: what was measured as a picture (time and drop; the larger the circle, the larger the file)
 * and as a table, and what each layer became. */
#include <inttypes.h>
#include <math.h>

#include "compress/search/tell.h"

enum { TECHNIQUES = 16, WIDTH = 760, HEIGHT = 380, LEFT = 60, BOTTOM = 44, TOP = 16, RIGHT = 150 };

typedef struct range {
    double low, high;
} range;

static void widen(range *r, double x)
{
    r->low = fmin(r->low, x);
    r->high = fmax(r->high, x);
}

static double place(const range *r, double x, double from, double to)
{
    const double wide = r->high - r->low;
    return from + (to - from) * (wide > 0 ? (x - r->low) / wide : 0.5);
}

static void write_axes(const range *us, const range *drop, FILE *out)
{
    const double bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;
    fprintf(out, "<path d=\"M%d %d V%.0f H%.0f\" fill=\"none\" stroke=\"currentColor\" stroke-opacity=\".4\"/>\n", LEFT,
            TOP, bottom, right);
    for (int i = 0; i <= 4; i++) {
        const double x = us->low + (us->high - us->low) * i / 4, y = drop->low + (drop->high - drop->low) * i / 4;
        fprintf(out, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">%.3g</text>\n",
                place(us, x, LEFT + 20, right - 20), bottom + 18, x / 1000);
        fprintf(out, "<text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">%.2g</text>\n", LEFT - 8,
                place(drop, y, bottom - 12, TOP + 12) + 4, y);
    }
    fprintf(out, "<text x=\"%.0f\" y=\"%d\" text-anchor=\"middle\">milliseconds a run</text>\n", (LEFT + right) / 2,
            HEIGHT - 6);
    fprintf(out, "<text x=\"14\" y=\"%.0f\" text-anchor=\"middle\" transform=\"rotate(-90 14 %.0f)\">drop</text>\n",
            (TOP + bottom) / 2, (TOP + bottom) / 2);
}

/* Measured networks only; those far outside of the goal would squeeze the rest, and are left to the table. */
static void write_picture(const terse_search_plan *plan, void (*escaped)(FILE *, const char *), FILE *out)
{
    range us = {INFINITY, -INFINITY}, drop = {0, 0.1}, bytes = {INFINITY, 1};
    const terse_measured *chosen = terse_tell_chosen(plan);
    const double most = chosen ? fmax(5, 4 * chosen->drop) : 100;
    for (int i = 0; i < plan->n_measured; i++) {
        const terse_measured *m = &plan->measured[i];
        if (m->drop > most)
            continue;
        widen(&us, m->us);
        widen(&drop, m->drop);
        widen(&bytes, (double)m->bytes);
    }
    fprintf(out, "<svg role=\"img\" id=\"pareto\" width=\"%d\" height=\"%d\" xmlns=\"http://www.w3.org/2000/svg\">\n",
            WIDTH, HEIGHT);
    write_axes(&us, &drop, out);
    for (int i = 0; i < plan->n_measured; i++) {
        const terse_measured *m = &plan->measured[i];
        if (m->drop > most)
            continue;
        const double x = place(&us, m->us, LEFT + 20, WIDTH - RIGHT - 20);
        const double y = place(&drop, m->drop, HEIGHT - BOTTOM - 12, TOP + 12);
        const double radius = 3 + 15 * sqrt((double)m->bytes / bytes.high);
        fprintf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill-opacity=\".55\"%s><title>",
                m->chosen   ? "e"
                : m->pareto ? "a"
                            : "b",
                x, y, radius, m->single ? " stroke=\"currentColor\"" : "");
        escaped(out, m->label);
        fprintf(out, ": %.4g ms, drop %.2f, %" PRId64 " bytes</title></circle>\n", m->us / 1000, m->drop, m->bytes);
        if (m->chosen || m->pareto || m->single) {
            fprintf(out, "<text x=\"%.1f\" y=\"%.1f\">", x + radius + 3, y + 4);
            escaped(out, m->label);
            fputs("</text>\n", out);
        }
    }
    fputs("</svg>\n", out);
}

static void write_measured(const terse_search_plan *plan, void (*escaped)(FILE *, const char *), FILE *out)
{
    fputs("<table id=\"measured\"><tr><th>network</th><th>drop</th><th>95 "
          "%</th><th>agreement</th><th>ms</th><th>speed</th>"
          "<th>bytes</th><th>in memory</th><th class=\"t\"></th></tr>\n",
          out);
    for (int i = 0; i < plan->n_measured; i++) {
        const terse_measured *m = &plan->measured[i];
        char agreement[16] = "-";
        if (!isnan(m->agreement))
            snprintf(agreement, sizeof agreement, "%.2f %%", 100 * m->agreement);
        fprintf(out, "<tr%s><td>", m->chosen ? " class=\"k\"" : "");
        escaped(out, m->label);
        fprintf(out,
                "</td><td>%.2f</td><td>%.2f to %.2f</td><td>%s</td><td>%.4g</td><td>%.2fx</td><td>%" PRId64
                "</td><td>%" PRId64 "</td><td class=\"t\">%s%s%s%s</td></tr>\n",
                m->drop, m->low, m->high, agreement, m->us / 1000, m->us > 0 ? plan->dense_us / m->us : 0, m->bytes,
                m->memory, m->chosen ? "chosen " : "", m->single ? "one technique " : "",
                m->pareto ? "not beaten " : "", m->meets ? "" : "misses the goal");
    }
    fputs("</table>\n", out);
}

/* Side by side: what one technique alone reaches with the same drop. */
static void write_techniques(const terse_search_plan *plan, void (*escaped)(FILE *, const char *), FILE *out)
{
    const terse_measured *list[TECHNIQUES], *chosen = terse_tell_chosen(plan);
    const int n = terse_tell_techniques(plan, list, TECHNIQUES);
    if (!chosen || n == 0)
        return;
    fputs("<h2>One technique alone</h2>\n<p>With the same goal; beside it what the chosen network takes.</p>\n"
          "<table id=\"techniques\"><tr><th>technique</th><th>ms</th><th>speed</th><th>bytes</th><th>drop</th>"
          "<th>of its time</th><th>of its bytes</th></tr>\n",
          out);
    for (int i = 0; i < n; i++) {
        const terse_measured *m = list[i];
        char name[TERSE_PLAN_LABEL];
        fprintf(out, "<tr%s><td>", m->chosen ? " class=\"k\"" : "");
        escaped(out, terse_tell_technique(m, name));
        fprintf(out, "</td><td>%.4g</td><td>%.2fx</td><td>%" PRId64 "</td><td>%.2f</td>", m->us / 1000,
                m->us > 0 ? plan->dense_us / m->us : 0, m->bytes, m->drop);
        if (m->meets)
            fprintf(out, "<td>%.2f</td><td>%.2f</td></tr>\n", m->us > 0 ? chosen->us / m->us : 0,
                    (double)chosen->bytes / (double)m->bytes);
        else
            fputs("<td colspan=\"2\">misses the goal</td></tr>\n", out);
    }
    fputs("</table>\n", out);
}

static void write_layers(const terse_search_plan *plan, void (*escaped)(FILE *, const char *), FILE *out)
{
    if (plan->layers.n == 0)
        return;
    fputs("<h2>What each layer became</h2>\n<table id=\"choices\"><tr><th>layer</th><th class=\"t\">becomes</th>"
          "<th>&micro;s</th><th>bytes</th><th>loses</th><th class=\"t\">why</th><th class=\"t\">refused</th></tr>\n",
          out);
    for (int i = 0; i < plan->layers.n; i++) {
        const terse_choice *c = &plan->layers.list[i];
        char text[TERSE_CHOICE_WHY];
        fputs("<tr><td>", out);
        escaped(out, c->name);
        fputs("</td><td class=\"t\">", out);
        escaped(out, terse_choice_becomes(c, text, sizeof text));
        fprintf(out, "</td><td>%.1f</td><td>%" PRId64 "</td><td>%.3g</td><td class=\"t\">", c->us, c->bytes, c->cost);
        escaped(out, c->why);
        if (*c->left) {
            fputs(*c->why ? "; channels: " : "channels: ", out);
            escaped(out, c->left);
        }
        fputs("</td><td class=\"t\">", out);
        for (int r = 0; r < c->n_refused; r++) {
            fputs(r ? "; " : "", out);
            escaped(out, c->refused[r]);
        }
        fputs("</td></tr>\n", out);
    }
    fputs("</table>\n", out);
}

static void say(const char *id, const char *what, const char *text, void (*escaped)(FILE *, const char *), FILE *out)
{
    if (!*text)
        return;
    fprintf(out, "<p id=\"%s\">%s", id, what);
    escaped(out, text);
    fputs(".</p>\n", out);
}

void terse_tell_search_html(const terse_search_plan *plan, void (*escaped)(FILE *, const char *), FILE *out)
{
    fputs("<h2>The search</h2>\n<p>Searched for ", out);
    escaped(out, *plan->goal ? plan->goal : "nothing: a plan was followed");
    fputs(". Every circle is a network that was built and measured: orange the chosen one, blue those that nothing "
          "beats, "
          "outlined those of one technique alone; its area grows with the file.</p>\n",
          out);
    if (plan->n_measured > 0) {
        write_picture(plan, escaped, out);
        write_measured(plan, escaped, out);
        write_techniques(plan, escaped, out);
    }
    say("channels", "Channels: ", plan->channels_why, escaped, out);
    say("recovered", "Training: ", plan->recovered, escaped, out);
    say("trained", "Trained: ", plan->trained, escaped, out);
    say("spent", "Time: ", plan->spent, escaped, out);
    say("culprit", "", plan->culprit, escaped, out);
    write_layers(plan, escaped, out);
}
