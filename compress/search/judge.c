/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/judge.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/paired.h"
#include "compress/quantize/steps.h"
#include "compress/runner.h"

enum { MIN_RUNS = 7, MAX_RUNS = 401, WARM_RUNS = 3 };
#define ROOM ((size_t)512 << 20) /* bytes that the original's answers may take */
static const uint64_t max_timing_ns = 1200000000u, max_noisy_ns = 4000000000u;
static const double z95 = 1.959963984540054;

struct terse_judge {
    const terse_graph *original;
    terse_samples samples;
    int64_t n;       /* samples that are judged */
    int64_t classes; /* 0: no classifier */
    float **answers; /* per chunk: classifier: probabilities of output 0; else all FP32 outputs side by side */
    size_t *counts;  /* per chunk: numbers in it */
    int chunks;
};

void terse_judge_free(terse_judge *judge)
{
    if (!judge)
        return;
    for (int i = 0; i < judge->chunks; i++)
        free(judge->answers[i]);
    free(judge->answers);
    free(judge->counts);
    terse_samples_done(&judge->samples);
    free(judge);
}

int64_t terse_judge_samples(const terse_judge *judge)
{
    return judge->n;
}

bool terse_judge_classifies(const terse_judge *judge)
{
    return judge->classes > 0;
}

bool terse_judge_has_labels(const terse_judge *judge)
{
    return judge->classes > 0 && judge->samples.labels;
}

/* --- answers --------------------------------------------------------------------------------------------------------
 */

/* Output 0's row as probabilities: itself where it is some, else its softmax. */
static void probabilities(const float *row, int64_t n, double *p)
{
    double sum = 0, most = -INFINITY;
    bool are = true;
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)row[i];
        sum += x;
        are = are && x >= 0;
        most = x > most ? x : most;
    }
    are = are && fabs(sum - 1) < 1e-3;
    double all = 0;
    for (int64_t i = 0; i < n; i++)
        all += p[i] = are ? (double)row[i] : exp((double)row[i] - most);
    for (int64_t i = 0; i < n; i++)
        p[i] /= all;
}

static bool is_classifier(const terse_tensor *output, int64_t samples)
{
    return output->dtype == TERSE_FP32 && output->rank == 2 && output->dims[0] == samples && output->dims[1] > 1;
}

static int plan_chunk(const terse_samples *f, int64_t first, int64_t n, terse_runner *r, terse_tensor *views,
                      const void **pointers, int64_t *planned, terse_error *error)
{
    terse_samples_views(f, first, n, views, pointers);
    if (n == *planned && !terse_engine_value_inputs(r->engine))
        return TERSE_OK;
    *planned = n;
    return terse_runner_plan(r, views, error);
}

/* All FP32 outputs of the runner behind each other; NULL where memory is out. */
static float *gather(const terse_graph *graph, const terse_runner *r, size_t *ret_count)
{
    size_t count = 0;
    for (int i = 0; i < graph->n_outputs; i++)
        if (terse_plan_output(r->plan, i)->dtype == TERSE_FP32)
            count += (size_t)terse_tensor_count(terse_plan_output(r->plan, i));
    float *all = malloc(count * sizeof *all + 1), *at = all;
    for (int i = 0; all && i < graph->n_outputs; i++) {
        const terse_tensor *t = terse_plan_output(r->plan, i);
        if (t->dtype != TERSE_FP32)
            continue;
        memcpy(at, r->outputs[i], (size_t)terse_tensor_count(t) * sizeof *at);
        at += terse_tensor_count(t);
    }
    *ret_count = count;
    return all;
}

static int keep_chunk(terse_judge *j, const terse_runner *r, int64_t n, terse_error *error)
{
    const terse_tensor *output = terse_plan_output(r->plan, 0);
    if (j->chunks == 0)
        j->classes = is_classifier(output, n) ? output->dims[1] : 0;
    const int c = j->chunks;
    if (j->classes == 0) {
        j->answers[c] = gather(j->original, r, &j->counts[c]);
    } else {
        TERSE_AUTO(terse_freep) double *p = malloc((size_t)j->classes * sizeof *p);
        j->counts[c] = (size_t)(n * j->classes);
        j->answers[c] = p ? malloc(j->counts[c] * sizeof(float)) : NULL;
        for (int64_t s = 0; j->answers[c] && s < n; s++) {
            probabilities((const float *)r->outputs[0] + s * j->classes, j->classes, p);
            for (int64_t i = 0; i < j->classes; i++)
                j->answers[c][s * j->classes + i] = (float)p[i];
        }
    }
    if (!j->answers[c])
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the network's answers");
    j->chunks++;
    return TERSE_OK;
}

static int answer_all(terse_judge *j, terse_error *error)
{
    const terse_samples *f = &j->samples;
    terse_runner r = {0};
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)j->original->n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)j->original->n_inputs + 1, sizeof *pointers);
    const int64_t most = f->samples / f->batch + 1;
    j->answers = calloc((size_t)most + 1, sizeof(float *));
    j->counts = calloc((size_t)most + 1, sizeof *j->counts);
    int status = views && pointers && j->answers && j->counts
                     ? terse_runner_init(j->original, &r, error)
                     : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the network's answers");
    int64_t planned = 0;
    size_t bytes = 0;
    for (int64_t first = 0; first < f->samples && status == TERSE_OK && bytes < ROOM; first += f->batch) {
        const int64_t left = f->samples - first, n = left < f->batch ? left : f->batch;
        status = plan_chunk(f, first, n, &r, views, pointers, &planned, error);
        if (status == TERSE_OK)
            status = terse_plan_run(r.plan, pointers, r.outputs, error);
        if (status == TERSE_OK)
            status = keep_chunk(j, &r, n, error);
        if (status == TERSE_OK) {
            j->n = first + n;
            bytes += j->counts[j->chunks - 1] * sizeof(float);
        }
    }
    terse_runner_done(&r);
    return status;
}

int terse_judge_new(const terse_graph *original, const terse_npz *held, terse_judge **ret_judge, terse_error *error)
{
    terse_judge *j = calloc(1, sizeof *j);
    if (!j)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a judge");
    j->original = original;
    int status = terse_samples_open(original, held, &j->samples, error);
    if (status == TERSE_OK)
        status = answer_all(j, error);
    if (status != TERSE_OK) {
        terse_judge_free(j);
        return status;
    }
    *ret_judge = j;
    return TERSE_OK;
}

/* --- comparing ------------------------------------------------------------------------------------------------------
 */

typedef struct tally {
    double sum, squares; /* of what each sample is expected to lose */
    double kl, noise, signal, noise_squares;
    int64_t n, same, gained, lost;
} tally;

static void compare_sample(const terse_judge *j, const float *original, const float *found, int64_t sample, double *p,
                           tally *t)
{
    const int64_t a = terse_paired_largest(original, j->classes), b = terse_paired_largest(found, j->classes);
    const double loss = a == b ? 0 : (double)original[a] - (double)original[b];
    probabilities(found, j->classes, p);
    for (int64_t i = 0; i < j->classes; i++)
        if (original[i] > 0)
            t->kl += (double)original[i] * log((double)original[i] / fmax(p[i], 1e-12));
    t->n++;
    t->same += a == b;
    t->sum += loss;
    t->squares += loss * loss;
    if (!j->samples.labels)
        return;
    const double label = terse_runner_number(j->samples.labels, j->samples.labels->data, sample);
    t->gained += (double)b == label && (double)a != label;
    t->lost += (double)a == label && (double)b != label;
}

static int compare_chunk(const terse_judge *j, int chunk, int64_t first, int64_t n, const terse_graph *graph,
                         const terse_runner *r, tally *t, terse_error *error)
{
    if (j->classes > 0) {
        TERSE_AUTO(terse_freep) double *p = malloc((size_t)j->classes * sizeof *p);
        if (!p)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for answers");
        for (int64_t s = 0; s < n; s++)
            compare_sample(j, j->answers[chunk] + s * j->classes, (const float *)r->outputs[0] + s * j->classes,
                           first + s, p, t);
        return TERSE_OK;
    }
    size_t count;
    TERSE_AUTO(terse_freep) float *found = gather(graph, r, &count);
    if (!found || count != j->counts[chunk])
        return terse_fail(error, found ? TERSE_INTERNAL : TERSE_RESOURCE_EXHAUSTED, "answers cannot be compared");
    double noise = 0, signal = 0;
    for (size_t i = 0; i < count; i++) {
        const double x = (double)j->answers[chunk][i], d = (double)found[i] - x;
        const bool finite = isfinite(x);
        signal += finite ? x * x : 0;
        noise += !finite ? 0 : isfinite(d) ? d * d : x * x + 1;
    }
    t->signal += signal;
    t->noise += noise;
    t->noise_squares += noise * noise;
    t->n++;
    return TERSE_OK;
}

static terse_verdict judge_classes(const terse_judge *j, const tally *t)
{
    const double n = (double)t->n, mean = t->sum / n, variance = fmax(0, t->squares / n - mean * mean);
    /* no change seen in n samples is no proof that there is none: the rule of three */
    const double half = fmax(z95 * sqrt(variance / n), t->same == t->n ? 3.0 / n : 0);
    terse_verdict v = {.drop = 100 * mean, .agreement = (double)t->same / n, .kl = t->kl / n};
    v.low = 100 * fmax(0, mean - half);
    v.high = 100 * fmin(1, mean + half);
    if (!j->samples.labels)
        return v;
    const terse_paired paired = terse_paired_compare(t->n, t->gained, t->lost);
    if (-100 * paired.difference > v.drop) {
        v.drop = -100 * paired.difference;
        v.low = -100 * paired.high;
        v.high = -100 * paired.low;
    }
    return v;
}

static terse_verdict judge_noise(const tally *t)
{
    const double n = (double)t->n, mean = t->noise / n, variance = fmax(0, t->noise_squares / n - mean * mean);
    /* one sample says nothing of how others differ */
    const double signal = t->signal / n, half = t->n > 1 ? z95 * sqrt(variance / n) : mean + signal;
    if (!(signal > 0))
        return (terse_verdict){
            .drop = mean > 0 ? 100 : 0, .high = mean > 0 ? 100 : 0, .agreement = (double)NAN, .kl = (double)NAN};
    return (terse_verdict){.drop = 100 * mean / signal,
                           .low = 100 * fmax(0, mean - half) / signal,
                           .high = 100 * (mean + half) / signal,
                           .agreement = (double)NAN,
                           .kl = (double)NAN};
}

int terse_judge_run(const terse_judge *j, const terse_graph *graph, terse_verdict *ret_verdict, terse_error *error)
{
    const terse_samples *f = &j->samples;
    terse_runner r = {0};
    tally t = {0};
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)graph->n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)graph->n_inputs + 1, sizeof *pointers);
    int status = views && pointers ? terse_runner_init(graph, &r, error)
                                   : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a judge");
    int64_t planned = 0;
    for (int64_t first = 0; first < j->n && status == TERSE_OK; first += f->batch) {
        const int64_t left = f->samples - first, n = left < f->batch ? left : f->batch;
        status = plan_chunk(f, first, n, &r, views, pointers, &planned, error);
        if (status == TERSE_OK)
            status = terse_plan_run(r.plan, pointers, r.outputs, error);
        if (status == TERSE_OK)
            status = compare_chunk(j, (int)(first / f->batch), first, n, graph, &r, &t, error);
    }
    terse_runner_done(&r);
    if (status == TERSE_OK)
        *ret_verdict = j->classes > 0 ? judge_classes(j, &t) : judge_noise(&t);
    return status;
}

/* --- times ----------------------------------------------------------------------------------------------------------
 */

typedef struct timed {
    terse_runner runner;
    double us[MAX_RUNS];
} timed;

static int open_timed(const terse_judge *j, const terse_graph *graph, int64_t batch, terse_threads *pool,
                      terse_tensor *views, const void **pointers, timed *t, terse_error *error)
{
    int status = terse_runner_init(graph, &t->runner, error);
    if (status == TERSE_OK && pool)
        status = terse_engine_use_threads(t->runner.engine, pool, terse_threads_count(pool), error);
    terse_samples_views(&j->samples, 0, batch, views, pointers);
    return status == TERSE_OK ? terse_runner_plan(&t->runner, views, error) : status;
}

static double quartile(const double *us, int n)
{
    double sorted[MAX_RUNS];
    memcpy(sorted, us, (size_t)n * sizeof *us);
    terse_runner_median(sorted, n); /* sorts */
    return sorted[n / 4];
}

/* Do the faster runs still differ much? Then the machine is busy, and more runs are needed. */
static bool is_noisy(const timed *list, int n_sides, int n)
{
    double sorted[MAX_RUNS];
    for (int side = 0; side < n_sides; side++) {
        memcpy(sorted, list[side].us, (size_t)n * sizeof *sorted);
        terse_runner_median(sorted, n);
        if (sorted[n / 4] > 1.1 * sorted[0])
            return true;
    }
    return false;
}

static int time_in_turn(timed *list, int n_sides, const void *const *pointers, int *ret_runs, terse_error *error)
{
    const uint64_t start = terse_now_ns();
    int n = -WARM_RUNS, status = TERSE_OK;
    for (; n < MAX_RUNS && status == TERSE_OK; n++) {
        const uint64_t took = terse_now_ns() - start;
        if (n >= MIN_RUNS && took > max_timing_ns && (took > max_noisy_ns || !is_noisy(list, n_sides, n)))
            break;
        for (int side = 0; side < n_sides && status == TERSE_OK; side++) {
            const uint64_t from = terse_now_ns();
            status = terse_plan_run(list[side].runner.plan, pointers, list[side].runner.outputs, error);
            if (n >= 0)
                list[side].us[n] = (double)(terse_now_ns() - from) / 1000.0;
        }
    }
    *ret_runs = n;
    return status;
}

int terse_judge_time(const terse_judge *j, const terse_graph *graph, const terse_graph *beside, int64_t batch,
                     int threads, double *ret_us, double *ret_beside_us, terse_error *error)
{
    if (batch > 1 && (!j->original->batchable || batch > j->samples.samples))
        return terse_fail(error, TERSE_UNIMPLEMENTED,
                          j->original->batchable ? "--batch is %" PRId64 ", the samples held out are %" PRId64
                                                 : "--batch is %" PRId64 ", the network takes one sample a run",
                          batch, j->samples.samples);
    terse_threads *pool = NULL;
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)graph->n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)graph->n_inputs + 1, sizeof *pointers);
    TERSE_AUTO(terse_freep) timed *list = calloc(2, sizeof *list);
    int status = views && pointers && list ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    if (status == TERSE_OK && threads > 1)
        status = terse_threads_new(threads, &pool, error);
    if (status == TERSE_OK)
        status = open_timed(j, graph, batch, pool, views, pointers, &list[0], error);
    if (status == TERSE_OK && beside)
        status = open_timed(j, beside, batch, pool, views, pointers, &list[1], error);
    int runs = 0;
    if (status == TERSE_OK)
        status = time_in_turn(list, beside ? 2 : 1, pointers, &runs, error);
    if (status == TERSE_OK) {
        *ret_us = quartile(list[0].us, runs);
        if (beside)
            *ret_beside_us = quartile(list[1].us, runs);
    }
    for (int i = 0; list && i < 2; i++)
        terse_runner_done(&list[i].runner);
    terse_threads_free(pool);
    return status;
}

/* --- samples that nothing is fitted to
 * -------------------------------------------------------------------------------- */

static terse_npz *new_npz(int n)
{
    terse_npz *npz = calloc(1, sizeof *npz);
    if (!npz)
        return NULL;
    npz->names = calloc((size_t)n + 1, sizeof(char *));
    npz->tensors = calloc((size_t)n + 1, sizeof *npz->tensors);
    if (npz->names && npz->tensors)
        return npz;
    terse_npz_free(npz);
    return NULL;
}

/* Appends an array of these dims without its bytes; NULL when memory is out. */
static char *add_array(terse_npz *npz, const char *name, const terse_tensor *from, const int64_t *dims)
{
    terse_tensor *to = &npz->tensors[npz->n];
    *to = terse_tensor_view(NULL, from->dtype, from->rank, dims);
    npz->names[npz->n] = strdup(name);
    to->data = aligned_alloc(64, terse_align((size_t)terse_tensor_bytes(to) + 1, 64));
    npz->n++;
    return npz->names[npz->n - 1] ? to->data : NULL;
}

/* These samples of each array; what has no samples along axis 0 is copied. */
static bool pick(const terse_npz *data, int64_t samples, const int64_t *picked, int64_t count, terse_npz *npz)
{
    for (int i = 0; i < data->n; i++) {
        const terse_tensor *from = &data->tensors[i];
        const bool sampled = from->rank > 0 && from->dims[0] > 0 && from->dims[0] % samples == 0;
        int64_t dims[TERSE_MAX_RANK];
        for (int d = 0; d < from->rank; d++)
            dims[d] = from->dims[d];
        if (sampled)
            dims[0] = from->dims[0] / samples * count;
        char *to = add_array(npz, data->names[i], from, dims);
        const size_t bytes = (size_t)terse_tensor_bytes(from), one = sampled ? bytes / (size_t)samples : bytes;
        if (!to)
            return false;
        for (int64_t k = 0; k < (sampled ? count : 1); k++)
            memcpy(to + (size_t)k * one, (const char *)from->data + (sampled ? (size_t)picked[k] * one : 0), one);
    }
    return true;
}

/* At most `most` of the samples, evenly spread: of those behind which n - 1 more are counted (held), or of the others.
 * n 1: of all. */
static int take(const terse_samples *f, const terse_npz *data, int n, bool held, int64_t most, terse_npz **ret_npz,
                terse_error *error)
{
    TERSE_AUTO(terse_freep) int64_t *picked = malloc((size_t)f->samples * sizeof *picked);
    terse_npz *npz = new_npz(data->n);
    int64_t found = 0;
    for (int64_t i = 0; picked && i < f->samples; i++)
        if ((i % n == n - 1) == held)
            picked[found++] = i;
    const int64_t count = found < most ? found : most;
    for (int64_t k = 0; picked && k < count; k++)
        picked[k] = picked[k * found / count];
    if (!npz || !picked || !pick(data, f->samples, picked, count, npz)) {
        terse_npz_free(npz);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    }
    *ret_npz = npz;
    return TERSE_OK;
}

int terse_judge_split(const terse_graph *graph, const terse_npz *data, int n, int64_t most, terse_npz **ret_fit,
                      terse_npz **ret_held, terse_error *error)
{
    terse_samples f = {0};
    terse_npz *fit = NULL;
    int status = terse_samples_open(graph, data, &f, error);
    if (status == TERSE_OK)
        status = terse_calibrate_check(&f, error);
    if (status == TERSE_OK && f.samples < n)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT,
                            "%" PRId64 " sample%s, needed are at least %d: one of %d is kept for judging", f.samples,
                            f.samples == 1 ? "" : "s", n, n);
    if (status == TERSE_OK)
        status = take(&f, data, n, false, most, &fit, error);
    if (status == TERSE_OK)
        status = take(&f, data, n, true, most, ret_held, error);
    terse_samples_done(&f);
    if (status != TERSE_OK) {
        terse_npz_free(fit);
        return status;
    }
    *ret_fit = fit;
    return TERSE_OK;
}

int terse_judge_pick(const terse_graph *graph, const terse_npz *data, const int64_t *picked, int64_t count,
                     terse_npz **ret_npz, terse_error *error)
{
    terse_samples f = {0};
    terse_npz *npz = NULL;
    int status = terse_samples_open(graph, data, &f, error);
    if (status == TERSE_OK && (!(npz = new_npz(data->n)) || !pick(data, f.samples, picked, count, npz))) {
        terse_npz_free(npz);
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    }
    terse_samples_done(&f);
    if (status == TERSE_OK)
        *ret_npz = npz;
    return status;
}

int terse_judge_some(const terse_graph *graph, const terse_npz *data, int64_t most, terse_npz **ret_npz,
                     terse_error *error)
{
    terse_samples f = {0};
    int status = terse_samples_open(graph, data, &f, error);
    if (status == TERSE_OK)
        status = take(&f, data, 1, true, most, ret_npz, error);
    terse_samples_done(&f);
    return status;
}

int terse_judge_copy(const terse_npz *data, terse_npz **ret_npz, terse_error *error)
{
    terse_npz *npz = new_npz(data->n);
    const int64_t none = 0;
    /* no array has as many samples as that: all are copied whole */
    if (!npz || !pick(data, INT64_MAX, &none, 1, npz)) {
        terse_npz_free(npz);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    }
    *ret_npz = npz;
    return TERSE_OK;
}
