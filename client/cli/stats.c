/* SPDX-License-Identifier: Apache-2.0 */
/* terse stats: a daemon's counters and histograms: as a table, as JSON, as OpenMetrics text for a scraper. */
#include "client/cli/cli.h"
#include "client/cli/look.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/json.h"

/* --- for people -------------------------------------------------------------------------------------------------- */

/* `whole`: what was counted are whole numbers, and so is what is between them. */
static void print_histogram(const char *name, const terse_buckets *buckets, bool whole)
{
    printf("  %-12s %12" PRIu64 " %12.1f", name, buckets->count, terse_buckets_mean(buckets));
    static const double shares[] = {0.5, 0.9, 0.99, 0.999};
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++)
        whole ? printf(" %10.0f", ceil(terse_buckets_percentile(buckets, shares[i])))
              : printf(" %10.1f", terse_buckets_percentile(buckets, shares[i]));
    putchar('\n');
}

static void print_counts(const char *name, const terse_view_counts *counts)
{
    const char *between = "";
    if (terse_view_sum(counts) == 0)
        return;
    printf("  %-12s ", name);
    for (unsigned i = 0; i < counts->n; i++)
        if (counts->at[i].count > 0) {
            printf("%s%s %" PRIu64, between, counts->at[i].name, counts->at[i].count);
            between = ", ";
        }
    putchar('\n');
}

static void print_model(const terse_view *view, const terse_view *earlier, const terse_view_model *model)
{
    terse_view_interval in;
    terse_view_between(view, earlier, model, &in);
    printf("%s version %s, %s: %" PRIu64 " requests wait, %" PRIu64 " run; in %.1f s %.1f requests and %.1f batches a "
           "second\n",
           model->name, model->version, model->state, model->queued, model->running, in.seconds, in.requests,
           in.batches);
    print_counts("errors", &in.errors);
    print_counts("refused", &in.rejected);
    print_counts("closed", &in.closed);
    printf("  %-12s %12s %12s %10s %10s %10s %10s\n", "", "COUNT", "MEAN", "P50", "P90", "P99", "P99.9");
    print_histogram("total us", &in.total_us, false);
    print_histogram("queue us", &in.queue_us, false);
    print_histogram("compute us", &in.compute_us, false);
    print_histogram("batch rows", &in.batch_rows, true);
}

static void print_text(const terse_view *view, const terse_view *earlier)
{
    for (unsigned i = 0; i < view->n_models; i++)
        print_model(view, earlier, &view->models[i]);
    printf("%" PRIu64 " requests served, %" PRIu64 " failed, %" PRIu64 " wait; %" PRIu64 " clients; up for %.0f s\n",
           view->served, view->failed, view->queued, view->clients, (double)view->uptime_us / 1e6);
}

/* --- JSON ----------------------------------------------------------------------------------------------------------
 */

static void json_counts(terse_json *json, const char *key, const terse_view_counts *counts)
{
    terse_json_object(json, key);
    for (unsigned i = 0; i < counts->n; i++)
        terse_json_uint(json, counts->at[i].name, counts->at[i].count);
    terse_json_end(json);
}

static void json_histogram(terse_json *json, const char *key, const terse_buckets *buckets)
{
    terse_json_object(json, key);
    terse_json_uint(json, "count", buckets->count);
    terse_json_double(json, "mean", terse_buckets_mean(buckets));
    terse_json_double(json, "p50", terse_buckets_percentile(buckets, 0.5));
    terse_json_double(json, "p90", terse_buckets_percentile(buckets, 0.9));
    terse_json_double(json, "p99", terse_buckets_percentile(buckets, 0.99));
    terse_json_double(json, "p999", terse_buckets_percentile(buckets, 0.999));
    terse_json_array(json, "buckets"); /* [bound, count], those that are not empty */
    for (unsigned i = 0; i < TERSE_BUCKETS; i++)
        if (buckets->at[i] > 0) {
            terse_json_array(json, NULL);
            terse_json_uint(json, NULL, terse_buckets_bound(i));
            terse_json_uint(json, NULL, buckets->at[i]);
            terse_json_end(json);
        }
    terse_json_end(json);
    terse_json_end(json);
}

static void json_model(terse_json *json, const terse_view *view, const terse_view *earlier,
                       const terse_view_model *model)
{
    terse_view_interval in;
    terse_view_between(view, earlier, model, &in);
    terse_json_object(json, NULL);
    terse_json_text(json, "name", model->name);
    terse_json_text(json, "version", model->version);
    terse_json_text(json, "state", model->state);
    terse_json_double(json, "seconds", in.seconds);
    terse_json_double(json, "requests_per_second", in.requests);
    terse_json_double(json, "ok_per_second", in.ok);
    terse_json_double(json, "rows_per_second", in.rows);
    terse_json_double(json, "batches_per_second", in.batches);
    terse_json_double(json, "mean_batch", in.mean_rows);
    terse_json_uint(json, "queued", model->queued);
    terse_json_uint(json, "queued_bytes", model->queued_bytes);
    terse_json_uint(json, "running", model->running);
    terse_json_uint(json, "requests", model->requests);
    terse_json_uint(json, "ok", model->ok);
    json_counts(json, "errors", &in.errors);
    json_counts(json, "rejected", &in.rejected);
    json_counts(json, "closed", &in.closed);
    json_histogram(json, "total_us", &in.total_us);
    json_histogram(json, "queue_us", &in.queue_us);
    json_histogram(json, "compute_us", &in.compute_us);
    json_histogram(json, "batch_rows", &in.batch_rows);
    terse_json_end(json);
}

static void json_worker(terse_json *json, const terse_view_worker *worker)
{
    terse_json_object(json, NULL);
    terse_json_uint(json, "worker", worker->number);
    terse_json_uint(json, "pid", worker->pid);
    terse_json_text(json, "state", worker->state);
    terse_json_uint(json, "restarts", worker->restarts);
    terse_json_uint(json, "private_bytes", worker->private_bytes);
    terse_json_uint(json, "shared_bytes", worker->shared_bytes);
    terse_json_uint(json, "batches", worker->batches);
    terse_json_uint(json, "busy_us", worker->busy_us);
    if (*worker->model) {
        terse_json_text(json, "model", worker->model);
        terse_json_uint(json, "rows", worker->rows);
        terse_json_uint(json, "since_us", worker->since_us);
    }
    terse_json_end(json);
}

static void print_json(const terse_view *view, const terse_view *earlier)
{
    terse_json json = terse_json_to(stdout);
    terse_json_object(&json, NULL);
    terse_json_uint(&json, "uptime_us", view->uptime_us);
#define TOTAL(key, ...) terse_json_uint(&json, #key, view->key);
    TERSE_VIEW_TOTALS(TOTAL)
#undef TOTAL
    terse_json_array(&json, "models");
    for (unsigned i = 0; i < view->n_models; i++)
        json_model(&json, view, earlier, &view->models[i]);
    terse_json_end(&json);
    terse_json_array(&json, "workers");
    for (unsigned i = 0; i < view->n_workers; i++)
        json_worker(&json, &view->workers[i]);
    terse_json_end(&json);
    terse_json_end(&json);
    putchar('\n');
}

/* -------------------------------------------------------------------------------------------------------------------
 */

typedef struct options {
    const char *endpoint;
    uint64_t connect_ms, interval_ms;
    bool json, openmetrics;
} options;

static int print_openmetrics(const terse_view *view, terse_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    const int status = terse_view_openmetrics(view, &text, &bytes, error);
    if (!status)
        fwrite(text, 1, bytes, stdout);
    free(text);
    return status;
}

static int show(terse_client *client, const options *o, terse_error *error)
{
    terse_view *earlier = NULL, *view = NULL;
    int status = TERSE_OK;
    if (o->interval_ms) {
        const struct timespec pause = {(time_t)(o->interval_ms / 1000), (long)(o->interval_ms % 1000) * 1000000};
        status = terse_cli_look(client, (int)o->connect_ms, &earlier, error);
        if (!status)
            nanosleep(&pause, NULL);
    }
    if (!status)
        status = terse_cli_look(client, (int)o->connect_ms, &view, error);
    if (!status && o->openmetrics)
        status = print_openmetrics(view, error);
    else if (!status && o->json)
        print_json(view, earlier);
    else if (!status)
        print_text(view, earlier);
    terse_view_free(earlier);
    terse_view_free(view);
    return status;
}

int terse_cli_stats(int argc, char **argv)
{
    options o = {.connect_ms = 5000};
    const terse_cli_usage usage = {
        "stats", "[-e ENDPOINT] [--interval-ms T] [--openmetrics | --json]",
        "Prints a daemon's counters, and latencies and batch sizes as percentiles: since its "
        "start, or of an interval.",
        0, 0};
    const terse_cli_option table[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &o.endpoint, 0, 0,
         "the daemon's (default: $TERSE_ENDPOINT, else this host's)"},
        {"interval-ms", 0, TERSE_CLI_COUNT, "T", &o.interval_ms, 1, 3600000,
         "look twice, T ms apart, and tell what was between"},
        {"openmetrics", 0, TERSE_CLI_FLAG, NULL, &o.openmetrics, 0, 0,
         "print OpenMetrics text, as Prometheus reads it"},
        {"json", 0, TERSE_CLI_FLAG, NULL, &o.json, 0, 0, "print one JSON object, with the histograms' buckets"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &o.connect_ms, 1, 1e9, "how long to wait for a daemon (default 5000)"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    const int parsed = terse_cli_parse(&usage, table, argc, argv, NULL, &n);
    if (parsed >= 0)
        return parsed;
    if (o.openmetrics && (o.json || o.interval_ms))
        return terse_cli_usage_error("stats",
                                     "--openmetrics goes with neither --json nor --interval-ms: a scraper does that");
    terse_client *client = terse_cli_connect("stats", o.endpoint, o.connect_ms);
    if (!client)
        return TERSE_CLI_FAILED;
    terse_error error = {0};
    const int code = show(client, &o, &error) ? terse_cli_fail("stats", &error) : TERSE_CLI_DONE;
    terse_client_close(client);
    return code;
}
