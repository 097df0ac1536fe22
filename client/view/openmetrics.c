/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenMetrics text (https://github.com/OpenObservability/OpenMetrics, version 1.0): one family after the other,
 * each with all its samples, units in names, histograms cumulative up to +Inf. */
#include "client/view/view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Labels of a sample, as they stand between the braces. The longest: a name of which each byte is escaped, and two
 * words. */
typedef struct labels {
    char text[2 * TERSE_VIEW_NAME + 4 * TERSE_VIEW_WORD + 64];
    size_t used;
} labels;

static void add_label(labels *l, const char *name, const char *value)
{
    l->used += (size_t)snprintf(l->text + l->used, sizeof l->text - l->used, "%s%s=\"", l->used ? "," : "", name);
    for (; *value && l->used + 4 < sizeof l->text; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            l->text[l->used++] = '\\';
        l->text[l->used++] = *value == '\n' ? 'n' : *value;
    }
    l->text[l->used++] = '"';
    l->text[l->used] = 0;
}

static labels label(const char *name, const char *value)
{
    labels l = {.used = 0};
    add_label(&l, name, value);
    return l;
}

static labels label_number(const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return label(name, text);
}

static void family(FILE *out, const char *name, const char *type, const char *unit, const char *help)
{
    fprintf(out, "# TYPE %s %s\n", name, type);
    if (unit)
        fprintf(out, "# UNIT %s %s\n", name, unit);
    fprintf(out, "# HELP %s %s\n", name, help);
}

/* Floats as Go writes them, with a point or an exponent: le="1.0", le="1e+06". */
static void put_float(FILE *out, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.10g", value);
    fprintf(out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

/* --- models ------------------------------------------------------------------------------------------------------ */

/* A counter or a gauge that a model has one of. */
static void model_values(FILE *out, const terse_view *view, const char *name, const char *type, size_t at,
                         const char *unit, const char *help)
{
    family(out, name, type, unit, help);
    for (unsigned i = 0; i < view->n_models; i++) {
        const terse_view_model *model = &view->models[i];
        uint64_t value;
        memcpy(&value, (const char *)model + at, sizeof value);
        fprintf(out, "%s%s{%s} %" PRIu64 "\n", name, strcmp(type, "counter") == 0 ? "_total" : "",
                label("model", model->name).text, value);
    }
}

static void requests(FILE *out, const terse_view *view)
{
    family(out, "terse_requests", "counter", NULL, "Infer requests that named the model.");
    for (unsigned i = 0; i < view->n_models; i++) {
        labels l = label("model", view->models[i].name);
        add_label(&l, "version", view->models[i].version);
        fprintf(out, "terse_requests_total{%s} %" PRIu64 "\n", l.text, view->models[i].requests);
    }
}

/* Every status, also those that nobody got: a rate is known only of what was there before. */
static void replies(FILE *out, const terse_view *view)
{
    family(out, "terse_replies", "counter", NULL, "Replies by status.");
    for (unsigned i = 0; i < view->n_models; i++)
        for (terse_status status = TERSE_OK; status < TERSE_SYSTEM; status++) {
            const terse_view_model *model = &view->models[i];
            const char *name = terse_status_name(status);
            labels l = label("model", model->name);
            add_label(&l, "status", name);
            fprintf(out, "terse_replies_total{%s} %" PRIu64 "\n", l.text,
                    status == TERSE_OK ? model->ok : terse_view_count(&model->errors, name));
        }
}

static void model_counts(FILE *out, const terse_view *view, const char *name, size_t at, const char *help)
{
    family(out, name, "counter", NULL, help);
    for (unsigned i = 0; i < view->n_models; i++) {
        const terse_view_counts *counts =
            (const terse_view_counts *)(const void *)((const char *)&view->models[i] + at);
        for (unsigned k = 0; k < counts->n; k++) {
            labels l = label("model", view->models[i].name);
            add_label(&l, "reason", counts->at[k].name);
            fprintf(out, "%s_total{%s} %" PRIu64 "\n", name, l.text, counts->at[k].count);
        }
    }
}

/* Every power of two and the middle between two where most is: enough for a picture, and the same for all histograms,
 * as who adds them up over models and hosts needs it. */
static bool next_bound(uint64_t *bound, uint64_t halves_from, uint64_t halves_to, uint64_t most)
{
    const uint64_t power = UINT64_C(1) << (63 - __builtin_clzll(*bound));
    const bool halves = power >= halves_from && power < halves_to;
    *bound = *bound == power && halves ? power / 2 * 3 : 2 * power;
    return *bound <= most;
}

/* In seconds when `scale` is 1e-6, the histogram's own microseconds. */
static void histogram(FILE *out, const char *name, const char *labels_text, const terse_buckets *buckets, double scale,
                      uint64_t halves_from, uint64_t halves_to, uint64_t most)
{
    uint64_t bound = 1, all = 0;
    for (unsigned i = 0; i < TERSE_BUCKETS; i++)
        all += buckets->at[i];
    do {
        fprintf(out, "%s_bucket{%s,le=\"", name, labels_text);
        put_float(out, (double)bound * scale);
        fprintf(out, "\"} %" PRIu64 "\n", terse_buckets_up_to(buckets, bound));
    } while (next_bound(&bound, halves_from, halves_to, most));
    fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels_text, all);
    fprintf(out, "%s_sum{%s} ", name, labels_text);
    put_float(out, (double)buckets->sum * scale);
    fprintf(out, "\n%s_count{%s} %" PRIu64 "\n", name, labels_text, all);
}

static void time_histograms(FILE *out, const terse_view *view, const char *name, size_t at, const char *help)
{
    family(out, name, "histogram", "seconds", help);
    for (unsigned i = 0; i < view->n_models; i++)
        histogram(out, name, label("model", view->models[i].name).text,
                  (const terse_buckets *)(const void *)((const char *)&view->models[i] + at), 1e-6, 16, 1 << 22,
                  1 << 26);
}

static void row_histograms(FILE *out, const terse_view *view)
{
    family(out, "terse_batch_rows", "histogram", "rows", "Rows of batches.");
    for (unsigned i = 0; i < view->n_models; i++)
        histogram(out, "terse_batch_rows", label("model", view->models[i].name).text, &view->models[i].batch_rows, 1, 2,
                  64, 1024);
}

static void costs(FILE *out, const terse_view *view)
{
    family(out, "terse_batch_cost_seconds", "gauge", "seconds", "What a batch of so many rows takes.");
    for (unsigned i = 0; i < view->n_models; i++)
        for (unsigned k = 0; k < view->models[i].n_costs; k++) {
            const bool again = k > 0 && view->models[i].costs[k].rows <= view->models[i].costs[k - 1].rows;
            if (again) /* two samples of the same labels are no text */
                continue;
            labels l = label("model", view->models[i].name);
            char rows[24];
            snprintf(rows, sizeof rows, "%" PRIu64, view->models[i].costs[k].rows);
            add_label(&l, "rows", rows);
            fprintf(out, "terse_batch_cost_seconds{%s} ", l.text);
            put_float(out, (double)view->models[i].costs[k].us * 1e-6);
            fputc('\n', out);
        }
}

#define AT(key) offsetof(terse_view_model, key)
static void models(FILE *out, const terse_view *view)
{
    requests(out, view);
    replies(out, view);
    model_counts(out, view, "terse_rejections", AT(rejected), "Requests that were refused or given up, by reason.");
    time_histograms(out, view, "terse_request_seconds", AT(total_us), "From a request's arrival to its reply.");
    time_histograms(out, view, "terse_queue_seconds", AT(queue_us),
                    "From a request's arrival to the start of its batch.");
    time_histograms(out, view, "terse_compute_seconds", AT(compute_us),
                    "What the batch of a request took in its worker.");
    row_histograms(out, view);
    model_values(out, view, "terse_rows", "counter", AT(rows), NULL, "Rows that workers completed.");
    model_values(out, view, "terse_batches", "counter", AT(batches), NULL, "Batches that workers completed.");
    model_counts(out, view, "terse_batches_closed", AT(closed), "Batches by why they took no more rows.");
    model_values(out, view, "terse_crashed_batches", "counter", AT(crashed_batches), NULL,
                 "Batches lost with their worker.");
    model_values(out, view, "terse_retries", "counter", AT(retries), NULL, "Requests that ran again.");
    model_values(out, view, "terse_queue_depth", "gauge", AT(queued), NULL, "Requests that wait.");
    model_values(out, view, "terse_queue_bytes", "gauge", AT(queued_bytes), "bytes",
                 "Tensors of the requests that wait.");
    model_values(out, view, "terse_running_requests", "gauge", AT(running), NULL, "Requests in batches that run.");
    costs(out, view);
}

/* --- workers and the daemon ------------------------------------------------------------------------------------- */

static void worker_states(FILE *out, const terse_view *view)
{
    static const char *const states[] = {"absent", "warming", "idle", "busy", "hung", "crash loop"};
    family(out, "terse_workers", "gauge", NULL, "Worker processes by state.");
    for (size_t s = 0; s < sizeof states / sizeof states[0]; s++) {
        unsigned n = 0;
        for (unsigned i = 0; i < view->n_workers; i++)
            n += strcmp(view->workers[i].state, states[s]) == 0;
        fprintf(out, "terse_workers{%s} %u\n", label("state", states[s]).text, n);
    }
}

static void worker_values(FILE *out, const terse_view *view, const char *name, const char *type, size_t at,
                          const char *unit, const char *help)
{
    const bool counts = strcmp(type, "counter") == 0, seconds = unit && strcmp(unit, "seconds") == 0;
    family(out, name, type, unit, help);
    for (unsigned i = 0; i < view->n_workers; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&view->workers[i] + at, sizeof value);
        fprintf(out, "%s%s{%s} ", name, counts ? "_total" : "", label_number("worker", i).text);
        if (seconds)
            put_float(out, (double)value * 1e-6);
        else
            fprintf(out, "%" PRIu64, value);
        fputc('\n', out);
    }
}
#undef AT

#define AT(key) offsetof(terse_view_worker, key)
static void workers(FILE *out, const terse_view *view)
{
    worker_states(out, view);
    worker_values(out, view, "terse_worker_restarts", "counter", AT(restarts), NULL,
                  "Times that a worker was started anew.");
    worker_values(out, view, "terse_worker_batches", "counter", AT(batches), NULL, "Batches that a worker completed.");
    worker_values(out, view, "terse_worker_busy_seconds", "counter", AT(busy_us), "seconds",
                  "Time that a worker had a batch.");
    worker_values(out, view, "terse_worker_private_bytes", "gauge", AT(private_bytes), "bytes",
                  "Memory of a worker alone.");
    worker_values(out, view, "terse_worker_shared_bytes", "gauge", AT(shared_bytes), "bytes",
                  "Memory of a worker that others have too: models, slots, programs.");
}
#undef AT

static void total(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
    const size_t length = strlen(name);
    const bool bytes = length > 6 && strcmp(name + length - 6, "_bytes") == 0;
    family(out, name, type, bytes ? "bytes" : NULL, help);
    fprintf(out, "%s%s %" PRIu64 "\n", name, strcmp(type, "counter") == 0 ? "_total" : "", value);
}

static void totals(FILE *out, const terse_view *view)
{
#define TOTAL(key, name, type, help) total(out, name, #type, help, view->key);
    TERSE_VIEW_TOTALS(TOTAL)
#undef TOTAL
    family(out, "terse_uptime_seconds", "gauge", "seconds", "Since the front end, which counts, was started.");
    fputs("terse_uptime_seconds ", out);
    put_float(out, (double)view->uptime_us * 1e-6);
    fputc('\n', out);
}

int terse_view_openmetrics(const terse_view *view, char **ret_text, size_t *ret_bytes, terse_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out) {
        models(out, view);
        workers(out, view);
        totals(out, view);
        fputs("# EOF\n", out);
    }
    const bool failed = !out || ferror(out);
    if ((out && fclose(out) != 0) || failed || !text) {
        free(text);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for the metrics");
    }
    *ret_text = text;
    *ret_bytes = bytes;
    return TERSE_OK;
}
