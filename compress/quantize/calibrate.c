/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/graph/engine.h"
#include "compress/quantize/steps.h"

enum { MAX_ROWS = 8 }; /* samples of a run: more make the arena larger, not the run faster */

void terse_ranges_done(terse_ranges *r)
{
    for (int v = 0; r->histograms && v < r->n_values; v++)
        free(r->histograms[v]);
    free(r->histograms);
    free(r->ranges);
    free(r->affine);
    free(r->methods);
    *r = (terse_ranges){0};
}

static int ranges_init(int n_values, terse_ranges *r, terse_error *error)
{
    const size_t n = (size_t)n_values + 1;
    r->n_values = n_values;
    r->histograms = calloc(n, sizeof(void *));
    r->ranges = calloc(n, sizeof *r->ranges);
    r->affine = calloc(n, sizeof *r->affine);
    r->methods = calloc(n, sizeof *r->methods);
    return r->histograms && r->ranges && r->affine && r->methods
               ? TERSE_OK
               : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d ranges", n_values);
}

int terse_calibrate_check(const terse_samples *samples, terse_error *error)
{
    for (int i = 0; i < samples->graph->n_inputs; i++) {
        const terse_tensor *t = samples->tensors[i];
        const float *numbers = t->data;
        const int64_t n = t->dtype == TERSE_FP32 ? terse_tensor_count(t) : 0;
        for (int64_t j = 0; j < n; j++)
            if (!isfinite(numbers[j])) {
                const int64_t each = samples->rows[i] > 0 ? n / samples->samples : n;
                return terse_fail(error, TERSE_INVALID_ARGUMENT,
                                  "input '%s' has %s in sample %" PRId64 ", needed are finite numbers",
                                  samples->graph->values[samples->graph->inputs[i]].name,
                                  isnan(numbers[j]) ? "NaN" : "infinity", j / each);
            }
    }
    return TERSE_OK;
}

/* --- observing --------------------------------------------------------------------------------------------------- */

typedef struct watching {
    const terse_graph *graph;
    const terse_scheme *scheme;
    terse_ranges *ranges;
    int64_t first, n; /* samples of this run */
    int bad_value;    /* -1: all numbers were finite */
    int64_t best_class;
    bool classified, one_class, no_memory;
} watching;

static bool add(watching *w, int value, const float *numbers, int64_t n)
{
    terse_histogram **histogram = &w->ranges->histograms[w->scheme->group[value]];
    if (!*histogram)
        *histogram = calloc(1, sizeof **histogram);
    if (!*histogram) {
        w->no_memory = true;
        return true;
    }
    return terse_histogram_add(*histogram, numbers, n);
}

/* A tensor's rows may lie apart. Each sample counts by itself for moving averages, where axis 0 is that of samples. */
static void add_tensor(watching *w, int value, const terse_tensor *t)
{
    if (t->dtype != TERSE_FP32 || w->bad_value >= 0)
        return;
    const int64_t count = terse_tensor_count(t), row = t->rank > 0 ? t->dims[t->rank - 1] : 1;
    const bool dense = terse_tensor_dense(t), by_sample = w->n > 1 && t->rank > 0 && t->dims[0] % w->n == 0;
    const int64_t run = !dense ? row : by_sample ? count / w->n : count;
    bool finite = true;
    for (int64_t i = 0; run > 0 && i < count / run; i++)
        finite = finite && add(w, value, (const float *)t->data + (dense ? i * run : i * t->row_stride), run);
    if (!finite)
        w->bad_value = value;
}

static int64_t largest(const float *row, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}

static void note_classes(watching *w, const terse_tensor *t)
{
    if (t->dtype != TERSE_FP32 || t->rank != 2 || t->dims[1] < 2 || t->dims[0] != w->n) {
        w->classified = false;
        return;
    }
    for (int64_t i = 0; i < t->dims[0]; i++) {
        const int64_t found = largest((const float *)t->data + i * t->row_stride, t->dims[1]);
        w->one_class = w->one_class && (w->best_class < 0 || found == w->best_class);
        w->best_class = found;
    }
}

static void observe(void *context, int value, const terse_tensor *tensor)
{
    watching *w = context;
    if (w->scheme->source[value])
        add_tensor(w, value, tensor);
    if (value == w->graph->outputs[0] && w->classified)
        note_classes(w, tensor);
}

static int judge_run(const watching *w, terse_error *error)
{
    if (w->no_memory)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a histogram");
    if (w->bad_value >= 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "tensor '%s' becomes NaN or infinite for sample %" PRId64 " or one of the %" PRId64 " behind",
                          w->graph->values[w->bad_value].name, w->first, w->n - 1);
    return TERSE_OK;
}

static int run_batch(const terse_samples *f, terse_engine *engine, int64_t first, int64_t n, watching *w,
                     terse_tensor *views, const void **pointers, void **outputs, terse_error *error)
{
    terse_plan *plan;
    terse_samples_views(f, first, n, views, pointers);
    int status = terse_engine_plan(engine, views, &plan, error);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "sample %" PRId64, first);
    w->first = first;
    w->n = n;
    for (int i = 0; i < w->graph->n_inputs; i++)
        if (w->scheme->source[w->graph->inputs[i]])
            add_tensor(w, w->graph->inputs[i], &views[i]);
    terse_plan_observe(plan, observe, w);
    status = terse_plan_run(plan, pointers, outputs, error);
    terse_plan_observe(plan, NULL, NULL);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "sample %" PRId64, first);
    return judge_run(w, error);
}

static int observe_all(const terse_graph *graph, const terse_samples *f, terse_calibrate_watch *watch, watching *w,
                       terse_error *error)
{
    const terse_kernels *kernels;
    TERSE_AUTO(terse_engine_freep) terse_engine *engine = NULL;
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)graph->n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)graph->n_inputs + 1, sizeof *pointers);
    TERSE_AUTO(terse_freep) void **outputs = calloc((size_t)graph->n_outputs + 1, sizeof *outputs);
    if (!views || !pointers || !outputs)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    int status = terse_kernels_get(&kernels, error);
    if (status == TERSE_OK)
        status = terse_engine_new(graph, kernels, 2, 0, &engine, error);
    const int64_t wanted = watch->samples > 0 && watch->samples < f->samples ? watch->samples : f->samples;
    const int64_t rows = wanted < f->samples || f->batch < MAX_ROWS ? f->batch == 1 ? 1 : 4 : MAX_ROWS;
    for (int64_t i = 0; i < wanted && status == TERSE_OK; i += rows) {
        const int64_t n = wanted - i < rows ? wanted - i : rows;
        const int64_t first = (int64_t)((double)i * (double)(f->samples - n) / (double)(wanted > n ? wanted - n : 1));
        char text[96];
        snprintf(text, sizeof text, "calibrating: sample %" PRId64 " of %" PRId64, i, wanted);
        if (watch->progress)
            watch->progress(watch->context, text);
        status = run_batch(f, engine, first < f->samples - n ? first : f->samples - n, n, w, views, pointers, outputs,
                           error);
    }
    return status;
}

/* Constants that are operands count with their own numbers. */
static void add_constants(watching *w)
{
    for (int v = 0; v < w->graph->n_values; v++) {
        const terse_value *value = &w->graph->values[v];
        if (value->data && w->scheme->source[v] && !add(w, v, value->data, terse_dims_count(value->dims, value->rank)))
            w->bad_value = v;
    }
}

int terse_calibrate_observe(const terse_graph *graph, const terse_samples *samples, const terse_scheme *scheme,
                            terse_calibrate_watch *watch, terse_ranges *ret_ranges, terse_error *error)
{
    terse_ranges ranges = {0};
    watching w = {.graph = graph,
                  .scheme = scheme,
                  .ranges = &ranges,
                  .bad_value = -1,
                  .best_class = -1,
                  .classified = true,
                  .one_class = true};
    int status = ranges_init(graph->n_values, &ranges, error);
    if (status == TERSE_OK)
        status = observe_all(graph, samples, watch, &w, error);
    if (status == TERSE_OK) {
        add_constants(&w);
        status = judge_run(&w, error);
    }
    watch->classified = w.classified && w.best_class >= 0;
    watch->one_class = watch->classified && w.one_class;
    if (status == TERSE_OK)
        *ret_ranges = ranges;
    else
        terse_ranges_done(&ranges);
    return status;
}
