/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/tell.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { TECHNIQUES = 16 };

const terse_measured *terse_tell_chosen(const terse_search_plan *plan)
{
    for (int i = 0; i < plan->n_measured; i++)
        if (plan->measured[i].chosen)
            return &plan->measured[i];
    return NULL;
}

const char *terse_tell_technique(const terse_measured *measured, char text[TERSE_PLAN_LABEL])
{
    snprintf(text, TERSE_PLAN_LABEL, "%s", measured->label);
    char *number = strrchr(text, '(');
    if (number && number > text + 1 && number[-1] == ' ')
        number[-1] = 0;
    return text;
}

int terse_tell_techniques(const terse_search_plan *plan, const terse_measured **list, int most)
{
    const bool by_size = strstr(plan->goal, "smallest") || strstr(plan->goal, "bytes");
    int n = 0;
    for (int i = 0; i < plan->n_measured; i++) {
        const terse_measured *m = &plan->measured[i];
        char name[TERSE_PLAN_LABEL], other[TERSE_PLAN_LABEL];
        int at = 0;
        if (!m->single)
            continue;
        terse_tell_technique(m, name);
        while (at < n && strcmp(terse_tell_technique(list[at], other), name) != 0)
            at++;
        if (at == most)
            continue;
        const terse_measured *b = at < n ? list[at] : NULL;
        const bool better = !b                     ? true
                            : m->meets != b->meets ? m->meets
                            : !m->meets            ? m->drop < b->drop
                            : by_size              ? m->bytes < b->bytes
                                                   : m->us < b->us;
        list[at] = better ? m : b;
        n += at == n;
    }
    return n;
}

/* --- for people
 * ------------------------------------------------------------------------------------------------------- */

static void print_layers(const terse_search_plan *plan, FILE *out)
{
    if (plan->layers.n == 0)
        return;
    fprintf(out, "%-32s %-26s %10s %10s %10s  %s\n", "layer", "becomes", "us", "bytes", "loses",
            "why; what was refused");
    for (int i = 0; i < plan->layers.n; i++) {
        const terse_choice *c = &plan->layers.list[i];
        char text[TERSE_CHOICE_WHY];
        fprintf(out, "%-32.32s %-26.26s %10.1f %10" PRId64 " %10.3g  %s", c->name,
                terse_choice_becomes(c, text, sizeof text), c->us, c->bytes, c->cost, c->why);
        if (*c->left)
            fprintf(out, "%s%s", *c->why ? "; channels: " : "channels: ", c->left);
        for (int r = 0; r < c->n_refused; r++)
            fprintf(out, "; %s", c->refused[r]);
        fputc('\n', out);
    }
    fputc('\n', out);
}

static void print_measured(const terse_search_plan *plan, FILE *out)
{
    fprintf(out, "%-32s %8s %18s %10s %10s %8s %12s %12s\n", "network", "drop", "95 %", "agreement", "ms", "speed",
            "bytes", "in memory");
    for (int i = 0; i < plan->n_measured; i++) {
        const terse_measured *m = &plan->measured[i];
        char agreement[16] = "-", interval[40];
        if (!isnan(m->agreement))
            snprintf(agreement, sizeof agreement, "%.2f %%", 100 * m->agreement);
        snprintf(interval, sizeof interval, "%.2f to %.2f", m->low, m->high);
        fprintf(out, "%-32.32s %8.2f %18s %10s %10.4g %7.2fx %12" PRId64 " %12" PRId64 "%s%s%s%s\n", m->label, m->drop,
                interval, agreement, m->us / 1000, m->us > 0 ? plan->dense_us / m->us : 0, m->bytes, m->memory,
                m->chosen ? "  chosen" : "", m->single ? "  one technique" : "", m->pareto ? "  not beaten" : "",
                m->meets ? "" : "  misses the goal");
    }
    fputc('\n', out);
}

/* Side by side: what one technique alone reaches with the same drop. */
static void print_techniques(const terse_search_plan *plan, const terse_measured *chosen, FILE *out)
{
    const terse_measured *list[TECHNIQUES];
    const int n = terse_tell_techniques(plan, list, TECHNIQUES);
    fprintf(out, "\n%-32s %10s %8s %12s %8s  %s\n", "one technique alone", "ms", "speed", "bytes", "drop",
            "beside it the search's takes");
    for (int i = 0; i < n; i++) {
        const terse_measured *m = list[i];
        char name[TERSE_PLAN_LABEL];
        fprintf(out, "%-32.32s %10.4g %7.2fx %12" PRId64 " %8.2f  ", terse_tell_technique(m, name), m->us / 1000,
                m->us > 0 ? plan->dense_us / m->us : 0, m->bytes, m->drop);
        if (!m->meets)
            fputs("misses the goal\n", out);
        else
            fprintf(out, "%.2f of the time, %.2f of the bytes%s\n", m->us > 0 ? chosen->us / m->us : 0,
                    (double)chosen->bytes / (double)m->bytes, m->chosen ? ": it is the one" : "");
    }
    fputc('\n', out);
}

void terse_tell_search_print(const terse_search_plan *plan, FILE *out)
{
    const terse_measured *chosen = terse_tell_chosen(plan);
    print_layers(plan, out);
    if (plan->n_measured > 0)
        print_measured(plan, out);
    if (*plan->goal)
        fprintf(out, "searched for %s (seed %" PRIu64 "); speed: beside the fastest dense network within the drop\n",
                plan->goal, plan->seed);
    if (chosen)
        fprintf(out, "chosen: %s, %.4g ms, %" PRId64 " bytes, drop %.2f (95 %%: %.2f to %.2f)\n", chosen->label,
                chosen->us / 1000, chosen->bytes, chosen->drop, chosen->low, chosen->high);
    if (*plan->channels_why)
        fprintf(out, "channels: %s\n", plan->channels_why);
    if (*plan->recovered)
        fprintf(out, "training: %s\n", plan->recovered);
    if (*plan->trained)
        fprintf(out, "trained: %s\n", plan->trained);
    if (*plan->spent)
        fprintf(out, "time: %s\n", plan->spent);
    if (chosen)
        print_techniques(plan, chosen, out);
    if (*plan->culprit)
        fprintf(out, "%s\n", plan->culprit);
    fputc('\n', out);
}

/* --- JSON
 * ----------------------------------------------------------------------------------------------------------------- */

static void json_measured(terse_json *json, const terse_measured *m)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "label", m->label);
    terse_json_double(json, "drop", m->drop);
    terse_json_double(json, "drop_low", m->low);
    terse_json_double(json, "drop_high", m->high);
    terse_json_double(json, "agreement", m->agreement);
    terse_json_double(json, "kl", m->kl);
    terse_json_double(json, "us", m->us);
    terse_json_int(json, "bytes", m->bytes);
    terse_json_int(json, "memory_bytes", m->memory);
    terse_json_bool(json, "dense", m->dense);
    terse_json_bool(json, "single", m->single);
    terse_json_bool(json, "meets", m->meets);
    terse_json_bool(json, "pareto", m->pareto);
    terse_json_bool(json, "chosen", m->chosen);
    terse_json_end(json);
}

static void json_layer(terse_json *json, const terse_choice *c)
{
    char text[TERSE_CHOICE_WHY];
    terse_json_object(json, NULL);
    terse_json_text(json, "name", c->name);
    terse_json_text(json, "becomes", terse_choice_becomes(c, text, sizeof text));
    if (*c->left)
        terse_json_text(json, "channels", c->left);
    terse_json_double(json, "us", c->us);
    terse_json_int(json, "bytes", c->bytes);
    terse_json_double(json, "cost", c->cost);
    terse_json_text(json, "why", c->why);
    terse_json_array(json, "refused");
    for (int r = 0; r < c->n_refused; r++)
        terse_json_text(json, NULL, c->refused[r]);
    terse_json_end(json);
    terse_json_end(json);
}

void terse_tell_search_json(const terse_search_plan *plan, terse_json *json)
{
    terse_json_object(json, "search");
    terse_json_text(json, "goal", plan->goal);
    terse_json_uint(json, "seed", plan->seed);
    terse_json_double(json, "dense_us", plan->dense_us);
    terse_json_text(json, "culprit", plan->culprit);
    terse_json_array(json, "measured");
    for (int i = 0; i < plan->n_measured; i++)
        json_measured(json, &plan->measured[i]);
    terse_json_end(json);
    terse_json_double(json, "channels", plan->channels);
    if (*plan->channels_why)
        terse_json_text(json, "channels_why", plan->channels_why);
    if (*plan->recovered)
        terse_json_text(json, "recovered", plan->recovered);
    if (*plan->trained)
        terse_json_text(json, "trained", plan->trained);
    if (*plan->spent)
        terse_json_text(json, "spent", plan->spent);
    const terse_measured *list[TECHNIQUES];
    const int n = terse_tell_techniques(plan, list, TECHNIQUES);
    terse_json_array(json, "techniques");
    for (int i = 0; i < n; i++)
        json_measured(json, list[i]);
    terse_json_end(json);
    terse_json_array(json, "layers");
    for (int i = 0; i < plan->layers.n; i++)
        json_layer(json, &plan->layers.list[i]);
    terse_json_end(json);
    terse_json_end(json);
}
