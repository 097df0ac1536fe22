/* SPDX-License-Identifier: Apache-2.0 */
/* terse compare: two models on the same samples: sizes, work, time, right answers, errors. */
#include "client/cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/open.h"
#include "common/bytes.h"
#include "common/json.h"
#include "compress/paired.h"
#include "compress/runner.h"
#include "compress/samples.h"

enum { WARM_RUNS = 3, MIN_RUNS = 5, MAX_RUNS = 201 };
static const uint64_t max_timing_ns = 3000000000u;

/* One of the two. */
typedef struct side {
    const char *path;
    terse_model *model;
    terse_samples samples;
    terse_runner runner;
    int *outputs; /* its number of each of A's outputs */
    terse_tensor *views;
    const void **pointers;
    uint64_t file_bytes;
    int64_t macs, right;
    double us;
} side;

typedef struct apart {
    double max, sum;
    int64_t elements;
} apart;

typedef struct comparison {
    side sides[2]; /* A, B */
    const char *data_path;
    terse_npz *data;
    apart *outputs; /* per output of A */
    bool classes;   /* output 0 is FP32 [samples, classes] in every run */
    bool shares;    /* and has been, so far, of shares that add up to 1 */
    int64_t same, gained, lost, rows;
    double kl_sum, kl_max;               /* of output 0 as logits */
    double kl_shares_sum, kl_shares_max; /* the same as if it were shares */
} comparison;

static void comparison_done(comparison *c)
{
    for (int s = 0; s < 2; s++) {
        side *x = &c->sides[s];
        terse_runner_done(&x->runner);
        terse_samples_done(&x->samples);
        terse_model_close(x->model);
        free(x->outputs);
        free(x->views);
        free(x->pointers);
    }
    terse_npz_free(c->data);
    free(c->outputs);
}

/* --- do the two fit? ---------------------------------------------------------------------------------------------- */

static const terse_value *find_port(const terse_graph *graph, const int *numbers, int n, const char *name,
                                    int *ret_index)
{
    for (int i = 0; i < n; i++)
        if (strcmp(graph->values[numbers[i]].name, name) == 0) {
            *ret_index = i;
            return &graph->values[numbers[i]];
        }
    return NULL;
}

/* Free dimensions fit any size. Ranks that are not known fit too: the run tells. */
static bool ports_fit(const terse_value *a, const terse_value *b)
{
    bool fit = a->dtype == b->dtype && (a->rank == b->rank || a->rank < 0 || b->rank < 0);
    for (int d = 0; fit && a->rank == b->rank && d < a->rank; d++)
        fit = a->dims[d] < 0 || b->dims[d] < 0 || a->dims[d] == b->dims[d];
    return fit;
}

/* "image FP32[N,1,8,8], mask ...": as far as there is room. */
static void list_ports(const terse_graph *graph, const int *numbers, int n, char *text, size_t size)
{
    size_t at = 0;
    *text = 0;
    for (int i = 0; i < n && at + 1 < size; i++) {
        const terse_value *value = &graph->values[numbers[i]];
        char dims[128];
        at += (size_t)snprintf(text + at, size - at, "%s%.40s %s%.60s", i ? ", " : "", value->name,
                               terse_dtype_name(value->dtype), terse_value_text(graph, value, dims, sizeof dims));
    }
}

static int check_ports(const comparison *c, bool inputs, terse_error *error)
{
    const terse_graph *a = c->sides[0].model->graph, *b = c->sides[1].model->graph;
    const int *of_a = inputs ? a->inputs : a->outputs, *of_b = inputs ? b->inputs : b->outputs;
    const int n = inputs ? a->n_inputs : a->n_outputs, n_b = inputs ? b->n_inputs : b->n_outputs;
    bool fit = n == n_b;
    for (int i = 0; fit && i < n; i++) {
        int index = 0;
        const terse_value *other = find_port(b, of_b, n_b, a->values[of_a[i]].name, &index);
        fit = other && ports_fit(&a->values[of_a[i]], other);
        if (fit && !inputs)
            c->sides[1].outputs[i] = index;
    }
    if (fit)
        return TERSE_OK;
    char text_a[160], text_b[160];
    list_ports(a, of_a, n, text_a, sizeof text_a);
    list_ports(b, of_b, n_b, text_b, sizeof text_b);
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s differ: A has %s; B has %s", inputs ? "inputs" : "outputs",
                      text_a, text_b);
}

/* --- one model ---------------------------------------------------------------------------------------------------- */

static int open_side(side *x, bool *ret_told, terse_error *error)
{
    const int status = terse_cli_open("compare", x->path, TERSE_CLI_TO_RUN, 0, &x->model, ret_told, error);
    if (status != TERSE_OK)
        return status;
    terse_model_prefault(x->model);
    x->file_bytes = terse_cli_file_size(x->path);
    const terse_graph *graph = x->model->graph;
    x->outputs = calloc((size_t)graph->n_outputs + 1, sizeof *x->outputs);
    x->views = calloc((size_t)graph->n_inputs + 1, sizeof *x->views);
    x->pointers = calloc((size_t)graph->n_inputs + 1, sizeof *x->pointers);
    if (!x->outputs || !x->views || !x->pointers)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    for (int i = 0; i < graph->n_outputs; i++)
        x->outputs[i] = i;
    return TERSE_OK;
}

static int plan_side(side *x, int64_t first, int64_t n, bool *planned, terse_error *error)
{
    terse_samples_views(&x->samples, first, n, x->views, x->pointers);
    if (*planned && !terse_engine_value_inputs(x->runner.engine))
        return TERSE_OK;
    const int status = terse_runner_plan(&x->runner, x->views, error);
    *planned = status == TERSE_OK;
    return status;
}

static int run_side(side *x, terse_error *error)
{
    return terse_plan_run(x->runner.plan, x->pointers, x->runner.outputs, error);
}

static const terse_tensor *made(const side *x, int output, const void **ret_data)
{
    const int own = x->outputs[output];
    *ret_data = x->runner.outputs[own];
    return terse_plan_output(x->runner.plan, own);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static int compare_output(comparison *c, int output, terse_error *error)
{
    const void *data_a, *data_b;
    const terse_tensor *a = made(&c->sides[0], output, &data_a), *b = made(&c->sides[1], output, &data_b);
    const terse_graph *graph = c->sides[0].model->graph;
    if (a->dtype != b->dtype || a->rank != b->rank ||
        memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) != 0) {
        char ta[128], tb[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%s' is %s%s of A and %s%s of B",
                          graph->values[graph->outputs[output]].name, terse_dtype_name(a->dtype),
                          terse_dims_text(a->dims, a->rank, ta, sizeof ta), terse_dtype_name(b->dtype),
                          terse_dims_text(b->dims, b->rank, tb, sizeof tb));
    }
    apart *sum = &c->outputs[output];
    const int64_t count = terse_tensor_count(a);
    for (int64_t i = 0; i < count; i++) {
        const double x = terse_runner_number(a, data_a, i), y = terse_runner_number(b, data_b, i);
        const double by = x == y || (isnan(x) && isnan(y)) ? 0.0 : isnan(x - y) ? (double)INFINITY : fabs(x - y);
        sum->max = by > sum->max ? by : sum->max;
        sum->sum += by;
    }
    sum->elements += count;
    return TERSE_OK;
}

/* log of the sum of the row's exponentials */
static double log_sum(const float *row, int64_t n)
{
    double top = -(double)INFINITY, sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        top = (double)row[i] > top ? (double)row[i] : top;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)row[i] - top);
    return top + log(sum);
}

static bool adds_to_one(const float *row, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (!(row[i] >= 0.0f))
            return false;
        sum += (double)row[i];
    }
    return fabs(sum - 1.0) < 1e-3;
}

/* Kullback-Leibler divergence of B's row from A's, in nats: as logits, and as shares where they are. */
static void diverge(comparison *c, const float *a, const float *b, int64_t n)
{
    const double all_a = log_sum(a, n), all_b = log_sum(b, n);
    double logits = 0.0, shares = 0.0;
    c->shares = c->shares && adds_to_one(a, n) && adds_to_one(b, n);
    for (int64_t i = 0; i < n; i++) {
        const double log_a = (double)a[i] - all_a, p = exp(log_a);
        if (p > 0.0)
            logits += p * (log_a - ((double)b[i] - all_b));
        if (c->shares && a[i] > 0.0f)
            shares += (double)a[i] * log((double)a[i] / fmax((double)b[i], 1e-12));
    }
    logits = logits > 0.0 || isnan(logits) ? logits : 0.0;
    shares = shares > 0.0 ? shares : 0.0;
    c->kl_sum += logits;
    c->kl_max = logits > c->kl_max ? logits : c->kl_max;
    c->kl_shares_sum += shares;
    c->kl_shares_max = shares > c->kl_shares_max ? shares : c->kl_shares_max;
    c->rows++;
}

static void compare_rows(comparison *c)
{
    const void *data_a, *data_b;
    const terse_tensor *a = made(&c->sides[0], 0, &data_a);
    made(&c->sides[1], 0, &data_b);
    const int64_t n = a->rank > 0 && a->dtype == TERSE_FP32 ? a->dims[a->rank - 1] : 0;
    const int64_t count = terse_tensor_count(a);
    for (int64_t at = 0; n > 1 && at < count; at += n)
        diverge(c, (const float *)data_a + at, (const float *)data_b + at, n);
}

static int compare_classes(comparison *c, int64_t first, int64_t n, terse_error *error)
{
    const void *data[2];
    const terse_tensor *a = made(&c->sides[0], 0, &data[0]);
    made(&c->sides[1], 0, &data[1]);
    c->classes = c->classes && a->dtype == TERSE_FP32 && a->rank == 2 && a->dims[0] == n && a->dims[1] > 1;
    const int64_t classes = c->classes ? a->dims[1] : 0;
    const terse_tensor *labels = c->sides[0].samples.labels;
    for (int64_t i = 0; c->classes && i < n; i++) {
        const int64_t x = terse_paired_largest((const float *)data[0] + i * classes, classes),
                      y = terse_paired_largest((const float *)data[1] + i * classes, classes);
        c->same += x == y;
        if (!labels)
            continue;
        const double label = terse_runner_number(labels, labels->data, first + i);
        if (label < 0 || label >= (double)classes)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "'labels' has %.0f for sample %" PRId64 ", allowed are 0 to %" PRId64, label, first + i,
                              classes - 1);
        const bool right_a = (double)x == label, right_b = (double)y == label;
        c->sides[0].right += right_a;
        c->sides[1].right += right_b;
        c->gained += right_b && !right_a;
        c->lost += right_a && !right_b;
    }
    return TERSE_OK;
}

static int compare_answers(comparison *c, terse_error *error)
{
    side *a = &c->sides[0], *b = &c->sides[1];
    const int64_t samples = a->samples.samples,
                  batch = a->samples.batch < b->samples.batch ? a->samples.batch : b->samples.batch;
    bool planned[2] = {false, false};
    c->classes = c->shares = true;
    for (int64_t first = 0; first < samples; first += batch) {
        const int64_t n = samples - first < batch ? samples - first : batch;
        int status = TERSE_OK;
        for (int s = 0; s < 2 && status == TERSE_OK; s++) {
            planned[s] = planned[s] && n == batch;
            status = plan_side(&c->sides[s], first, n, &planned[s], error);
            if (status == TERSE_OK)
                status = run_side(&c->sides[s], error);
            if (status != TERSE_OK)
                return terse_error_prefix(error, "'%s', sample %" PRId64, c->sides[s].path, first);
        }
        for (int i = 0; i < a->runner.n_outputs && status == TERSE_OK; i++)
            status = compare_output(c, i, error);
        if (status == TERSE_OK)
            status = compare_classes(c, first, n, error);
        if (status != TERSE_OK)
            return status;
        compare_rows(c);
    }
    if (a->samples.labels && !c->classes)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "'%s': 'labels' are given, but output 0 is not FP32 [samples, classes]", c->data_path);
    return TERSE_OK;
}

/* --- time --------------------------------------------------------------------------------------------------------- */

/* One sample, run by run in turn, so that whatever else the machine does falls on both. */
static int measure(comparison *c, terse_error *error)
{
    static double times[2][MAX_RUNS];
    for (int s = 0; s < 2; s++) {
        bool planned = false;
        int status = plan_side(&c->sides[s], 0, 1, &planned, error);
        for (int i = 0; status == TERSE_OK && terse_plan_measuring(c->sides[s].runner.plan) && i < MAX_RUNS; i++)
            status = run_side(&c->sides[s], error);
        if (status != TERSE_OK)
            return status;
        c->sides[s].macs = terse_plan_macs(c->sides[s].runner.plan);
    }
    const uint64_t start = terse_now_ns();
    int n = -WARM_RUNS;
    for (; n < MAX_RUNS && (n < MIN_RUNS || terse_now_ns() - start < max_timing_ns); n++)
        for (int k = 0; k < 2; k++) {
            const int s = (n & 1) ^ k; /* none is always the first */
            const uint64_t from = terse_now_ns();
            const int status = run_side(&c->sides[s], error);
            if (status != TERSE_OK)
                return status;
            if (n >= 0)
                times[s][n] = (double)(terse_now_ns() - from) / 1e3;
        }
    for (int s = 0; s < 2; s++)
        c->sides[s].us = terse_runner_median(times[s], n);
    return TERSE_OK;
}

static int run_all(comparison *c, bool *ret_told, terse_error *error)
{
    int status = TERSE_OK;
    for (int s = 0; s < 2 && status == TERSE_OK; s++)
        status = open_side(&c->sides[s], ret_told, error);
    if (status == TERSE_OK)
        status = check_ports(c, true, error);
    if (status == TERSE_OK)
        status = check_ports(c, false, error);
    if (status == TERSE_OK)
        status = terse_npz_read(c->data_path, &c->data, error);
    for (int s = 0; s < 2 && status == TERSE_OK; s++) {
        status = terse_samples_open(c->sides[s].model->graph, c->data, &c->sides[s].samples, error);
        if (status != TERSE_OK)
            return terse_error_prefix(error, "'%s' for '%s'", c->data_path, c->sides[s].path);
        status = terse_runner_init(c->sides[s].model->graph, &c->sides[s].runner, error);
    }
    if (status != TERSE_OK)
        return status;
    if (c->sides[0].samples.samples != c->sides[1].samples.samples)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "'%s' has %" PRId64 " samples for A and %" PRId64 " for B, whose axis 0 differs",
                          c->data_path, c->sides[0].samples.samples, c->sides[1].samples.samples);
    c->outputs = calloc((size_t)c->sides[0].model->graph->n_outputs + 1, sizeof *c->outputs);
    if (!c->outputs)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    status = compare_answers(c, error);
    return status == TERSE_OK ? measure(c, error) : status;
}

/* --- what is told ------------------------------------------------------------------------------------------------- */

static double mean_kl(const comparison *c)
{
    return (c->shares ? c->kl_shares_sum : c->kl_sum) / (double)c->rows;
}

static double max_kl(const comparison *c)
{
    return c->shares ? c->kl_shares_max : c->kl_max;
}

static const char *output_name(const comparison *c, int i)
{
    const terse_graph *graph = c->sides[0].model->graph;
    return graph->values[graph->outputs[i]].name;
}

static double mean_error(const apart *a)
{
    return a->elements ? a->sum / (double)a->elements : 0.0;
}

static void print_json(const comparison *c)
{
    const double samples = (double)c->sides[0].samples.samples;
    const bool labelled = c->sides[0].samples.labels != NULL;
    terse_json json = terse_json_to(stdout);
    terse_json_object(&json, NULL);
    for (int s = 0; s < 2; s++) {
        const side *x = &c->sides[s];
        terse_json_object(&json, s ? "b" : "a");
        terse_json_text(&json, "file", x->path);
        terse_json_text(&json, "model", x->model->graph->name);
        terse_json_uint(&json, "bytes", x->file_bytes);
        terse_json_int(&json, "macs", x->macs);
        terse_json_double(&json, "latency_us", x->us);
        if (labelled)
            terse_json_double(&json, "top1", (double)x->right / samples);
        terse_json_end(&json);
    }
    terse_json_int(&json, "samples", c->sides[0].samples.samples);
    if (c->classes)
        terse_json_double(&json, "agreement", (double)c->same / samples);
    if (labelled) {
        const terse_paired p = terse_paired_compare(c->sides[0].samples.samples, c->gained, c->lost);
        terse_json_object(&json, "top1_difference");
        terse_json_double(&json, "value", p.difference);
        terse_json_double(&json, "low", p.low);
        terse_json_double(&json, "high", p.high);
        terse_json_double(&json, "p", p.p);
        terse_json_int(&json, "only_a_right", c->lost);
        terse_json_int(&json, "only_b_right", c->gained);
        terse_json_end(&json);
    }
    if (c->rows) {
        terse_json_object(&json, "kl");
        terse_json_text(&json, "of", c->shares ? "shares" : "logits");
        terse_json_double(&json, "mean", mean_kl(c));
        terse_json_double(&json, "max", max_kl(c));
        terse_json_end(&json);
    }
    terse_json_array(&json, "outputs");
    for (int i = 0; i < c->sides[0].runner.n_outputs; i++) {
        terse_json_object(&json, NULL);
        terse_json_text(&json, "name", output_name(c, i));
        terse_json_double(&json, "max_error", c->outputs[i].max);
        terse_json_double(&json, "mean_error", mean_error(&c->outputs[i]));
        terse_json_end(&json);
    }
    terse_json_end(&json);
    terse_json_end(&json);
    putchar('\n');
}

static void print_text(const comparison *c)
{
    const side *a = &c->sides[0], *b = &c->sides[1];
    const double samples = (double)a->samples.samples;
    printf("A is %s\nB is %s\n\n%-26s %16s %16s %10s\n", a->path, b->path, "", "A", "B", "B / A");
    printf("%-26s %16" PRIu64 " %16" PRIu64 " %10.3f\n", "bytes on disk", a->file_bytes, b->file_bytes,
           (double)b->file_bytes / (double)a->file_bytes);
    printf("%-26s %16" PRId64 " %16" PRId64, "multiply-accumulates", a->macs, b->macs);
    if (a->macs > 0)
        printf(" %10.3f", (double)b->macs / (double)a->macs);
    printf("\n%-26s %16.1f %16.1f %10.3f\n", "microseconds, one sample", a->us, b->us, b->us / a->us);
    if (a->samples.labels) {
        const terse_paired p = terse_paired_compare(a->samples.samples, c->gained, c->lost);
        printf("%-26s %14.2f %% %14.2f %%\n\n", "top-1", 100.0 * (double)a->right / samples,
               100.0 * (double)b->right / samples);
        printf("top-1 of B minus A: %+.2f points, 95 %% interval %+.2f to %+.2f; only A is right on %" PRId64
               " samples, only B on %" PRId64 " (McNemar p = %.3g)\n",
               100.0 * p.difference, 100.0 * p.low, 100.0 * p.high, c->lost, c->gained, p.p);
    } else {
        putchar('\n');
    }
    if (c->classes)
        printf("agreement: %.2f %%\n", 100.0 * (double)c->same / samples);
    if (c->rows)
        printf("KL of B from A, output '%s' as %s: mean %.3g, largest %.3g nats\n", output_name(c, 0),
               c->shares ? "shares" : "logits", mean_kl(c), max_kl(c));
    for (int i = 0; i < a->runner.n_outputs; i++)
        printf("output '%s': largest error %.3g, mean %.3g\n", output_name(c, i), c->outputs[i].max,
               mean_error(&c->outputs[i]));
    printf("compared on %" PRId64 " samples\n", a->samples.samples);
}

int terse_cli_compare(int argc, char **argv)
{
    bool json = false, told = false;
    comparison c = {0};
    const terse_cli_usage usage = {
        "compare", "A.terse B.terse --data DATA.npz [--json]",
        "Runs two models on the same samples and tells how far apart they are in size, time and answers.\n"
        "Either may be an .onnx file, which runs as it would be served without compression. DATA.npz has\n"
        "an array per input, axis 0 = samples, and if there are, 'labels'.",
        2, 2};
    const terse_cli_option options[] = {
        {"data", 0, TERSE_CLI_TEXT, "DATA.npz", &c.data_path, 0, 0, "the samples"},
        {"json", 0, TERSE_CLI_FLAG, NULL, &json, 0, 0, "print one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    const char *paths[2];
    int n = 0;
    const int code = terse_cli_parse(&usage, options, argc, argv, paths, &n);
    if (code >= 0)
        return code;
    if (!c.data_path)
        return terse_cli_usage_error("compare", "--data DATA.npz is missing");
    for (int s = 0; s < 2; s++)
        c.sides[s].path = paths[s];
    terse_error error = {0};
    const int status = run_all(&c, &told, &error);
    if (status == TERSE_OK && json)
        print_json(&c);
    else if (status == TERSE_OK)
        print_text(&c);
    comparison_done(&c);
    if (status != TERSE_OK)
        return told ? TERSE_CLI_FAILED : terse_cli_fail("compare", &error);
    return TERSE_CLI_DONE;
}
