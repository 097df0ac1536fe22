/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/validate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/energy.h"
#include "compress/paired.h"
#include "compress/runner.h"
#include "compress/samples.h"

enum {
    WARM_RUNS = 3,
    MIN_RUNS = 5,
    MAX_RUNS = 201,
};
static const uint64_t max_timing_ns = 3000000000u, energy_ns = 500000000u;

/* --- comparison ---------------------------------------------------------------------------------------------- */

typedef struct tally {
    int64_t same, right_before, right_after, gained, lost, elements;
    double max_error, sum_error;
} tally;

static int compare_output(const terse_runner *before, const terse_runner *after, int index, tally *t,
                          terse_error *error)
{
    const terse_tensor *a = terse_plan_output(before->plan, index), *b = terse_plan_output(after->plan, index);
    if (a->dtype != b->dtype || a->rank != b->rank ||
        memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) != 0) {
        char ta[128], tb[128];
        return terse_fail(error, TERSE_INTERNAL, "output %d became %s%s, was %s%s", index, terse_dtype_name(b->dtype),
                          terse_dims_text(b->dims, b->rank, tb, sizeof tb), terse_dtype_name(a->dtype),
                          terse_dims_text(a->dims, a->rank, ta, sizeof ta));
    }
    const int64_t count = terse_tensor_count(a);
    for (int64_t i = 0; i < count; i++) {
        const double x = terse_runner_number(a, before->outputs[index], i),
                     y = terse_runner_number(b, after->outputs[index], i);
        const double apart = x == y || (isnan(x) && isnan(y)) ? 0.0 : isnan(x - y) ? (double)INFINITY : fabs(x - y);
        t->max_error = apart > t->max_error ? apart : t->max_error;
        t->sum_error += apart;
    }
    t->elements += count;
    return TERSE_OK;
}

/* [samples, classes]: one row a sample. */
static bool is_classifier(const terse_tensor *output, int64_t samples)
{
    return output->dtype == TERSE_FP32 && output->rank == 2 && output->dims[0] == samples && output->dims[1] > 1;
}

static int compare_classes(const terse_samples *f, int64_t first, int64_t n, const terse_runner *before,
                           const terse_runner *after, tally *t, terse_error *error)
{
    const int64_t classes = terse_plan_output(before->plan, 0)->dims[1];
    for (int64_t i = 0; i < n; i++) {
        const int64_t x = terse_paired_largest((const float *)before->outputs[0] + i * classes, classes);
        const int64_t y = terse_paired_largest((const float *)after->outputs[0] + i * classes, classes);
        t->same += x == y;
        if (!f->labels)
            continue;
        const double label = terse_runner_number(f->labels, f->labels->data, first + i);
        if (label < 0 || label >= (double)classes)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "'labels' has %.0f for sample %" PRId64 ", allowed are 0 to %" PRId64, label, first + i,
                              classes - 1);
        t->right_before += (double)x == label;
        t->right_after += (double)y == label;
        t->gained += (double)y == label && (double)x != label;
        t->lost += (double)x == label && (double)y != label;
    }
    return TERSE_OK;
}

static int compare_all(const terse_samples *f, terse_tensor *views, const void **pointers, terse_runner *before,
                       terse_runner *after, terse_validation *v, terse_error *error)
{
    tally t = {0};
    int64_t planned = 0;
    v->has_agreement = true;
    for (int64_t first = 0; first < f->samples; first += f->batch) {
        const int64_t left = f->samples - first, n = left < f->batch ? left : f->batch;
        terse_samples_views(f, first, n, views, pointers);
        int status = TERSE_OK;
        if (n != planned || terse_engine_value_inputs(before->engine) || terse_engine_value_inputs(after->engine)) {
            status = terse_runner_plan(before, views, error);
            if (status == TERSE_OK)
                status = terse_runner_plan(after, views, error);
            planned = n;
        }
        if (status == TERSE_OK)
            status = terse_plan_run(before->plan, pointers, before->outputs, error);
        if (status == TERSE_OK)
            status = terse_plan_run(after->plan, pointers, after->outputs, error);
        for (int i = 0; i < before->n_outputs && status == TERSE_OK; i++)
            status = compare_output(before, after, i, &t, error);
        v->has_agreement =
            v->has_agreement && status == TERSE_OK && is_classifier(terse_plan_output(before->plan, 0), n);
        if (v->has_agreement)
            status = compare_classes(f, first, n, before, after, &t, error);
        if (status != TERSE_OK)
            return terse_error_prefix(error, "sample %" PRId64, first);
    }
    if (f->labels && !v->has_agreement)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "'labels' are given, but output 0 is not FP32 [samples, classes]");
    const double samples = (double)f->samples;
    v->samples = f->samples;
    v->has_top1 = f->labels != NULL;
    v->agreement = (double)t.same / samples;
    v->top1_before = (double)t.right_before / samples;
    v->top1_after = (double)t.right_after / samples;
    if (v->has_top1 && f->samples > 0) {
        const terse_paired paired = terse_paired_compare(f->samples, t.gained, t.lost);
        v->drop = 0 - paired.difference; /* no -0 */
        v->drop_low = 0 - paired.high;
        v->drop_high = 0 - paired.low;
    }
    v->max_error = t.max_error;
    v->mean_error = t.elements ? t.sum_error / (double)t.elements : 0.0;
    return TERSE_OK;
}

/* --- times --------------------------------------------------------------------------------------------------- */

/* Run by run in turn, so that whatever else the machine does falls on both. */
static int time_both(const terse_samples *f, int64_t samples, terse_tensor *views, const void **pointers,
                     terse_runner *both[2], double *ret_us, terse_error *error)
{
    double times[2][MAX_RUNS];
    terse_samples_views(f, 0, samples, views, pointers);
    int status = terse_runner_plan(both[0], views, error);
    if (status == TERSE_OK)
        status = terse_runner_plan(both[1], views, error);
    const uint64_t start = terse_now_ns();
    int n = -WARM_RUNS;
    for (; n < MAX_RUNS && (n < MIN_RUNS || terse_now_ns() - start < max_timing_ns) && status == TERSE_OK; n++)
        for (int side = 0; side < 2 && status == TERSE_OK; side++) {
            const uint64_t from = terse_now_ns();
            status = terse_plan_run(both[side]->plan, pointers, both[side]->outputs, error);
            if (n >= 0)
                times[side][n] = (double)(terse_now_ns() - from) / 1000.0;
        }
    if (status != TERSE_OK)
        return status;
    ret_us[0] = terse_runner_median(times[0], n);
    ret_us[1] = terse_runner_median(times[1], n);
    return TERSE_OK;
}

/* What the package takes meanwhile, each network by itself: nothing where that cannot be read. */
static int spend_both(const terse_samples *f, terse_tensor *views, const void **pointers, terse_runner *both[2],
                      double *ret_joules, terse_error *error)
{
    double before, after;
    terse_samples_views(f, 0, 1, views, pointers);
    ret_joules[0] = ret_joules[1] = 0;
    for (int side = 0; side < 2; side++) {
        if (!terse_energy_read(&before))
            return TERSE_OK;
        const uint64_t start = terse_now_ns();
        int64_t n = 0;
        for (; terse_now_ns() - start < energy_ns; n++) {
            const int status = terse_plan_run(both[side]->plan, pointers, both[side]->outputs, error);
            if (status != TERSE_OK)
                return status;
        }
        if (!terse_energy_read(&after) || after < before) /* the counter has begun again */
            return TERSE_OK;
        ret_joules[side] = (after - before) / (double)n;
    }
    return TERSE_OK;
}

/* One sample, and a batch where the network takes batches. */
static int time_all(const terse_samples *f, terse_tensor *views, const void **pointers, terse_runner *before,
                    terse_runner *after, terse_validation *v, terse_error *error)
{
    terse_runner *both[2] = {before, after};
    double us[2];
    int status = time_both(f, 1, views, pointers, both, us, error);
    if (status != TERSE_OK)
        return status;
    v->latency_before_us = us[0];
    v->latency_after_us = us[1];
    double joules[2];
    status = spend_both(f, views, pointers, both, joules, error);
    if (status != TERSE_OK)
        return status;
    if (joules[0] > 0 && joules[1] > 0) {
        v->joules_before = joules[0];
        v->joules_after = joules[1];
    }
    v->has_batch = f->batch > 1 && f->samples >= TERSE_VALIDATE_BATCH;
    if (!v->has_batch)
        return TERSE_OK;
    status = time_both(f, TERSE_VALIDATE_BATCH, views, pointers, both, us, error);
    v->batch_before_us = us[0];
    v->batch_after_us = us[1];
    return status;
}

int terse_validate_run(const terse_graph *imported, const terse_graph *exact, const terse_graph *compressed,
                       const terse_npz *data, terse_validation *ret_validation, terse_error *error)
{
    terse_samples f = {0};
    terse_runner r[3] = {0};
    terse_validation v = {0};
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)imported->n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)imported->n_inputs + 1, sizeof *pointers);
    const terse_graph *graphs[3] = {imported, exact, compressed};
    int status = views && pointers ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    if (status == TERSE_OK)
        status = terse_samples_open(imported, data, &f, error);
    for (int i = 0; i < 3 && status == TERSE_OK; i++)
        status = terse_runner_init(graphs[i], &r[i], error);
    if (status == TERSE_OK)
        status = compare_all(&f, views, pointers, &r[0], &r[2], &v, error);
    if (status == TERSE_OK)
        status = time_all(&f, views, pointers, &r[1], &r[2], &v, error);
    if (status == TERSE_OK)
        *ret_validation = v;
    for (int i = 0; i < 3; i++)
        terse_runner_done(&r[i]);
    terse_samples_done(&f);
    return status;
}

int terse_validate_cost(const terse_graph *graph, int64_t *ret_macs, size_t *ret_arena_bytes, terse_error *error)
{
    terse_plan *plan;
    terse_runner r = {0};
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)graph->n_inputs + 1, sizeof *views);
    int status = views ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    if (status == TERSE_OK)
        status = terse_runner_init(graph, &r, error);
    const uint64_t needed = status == TERSE_OK ? terse_engine_value_inputs(r.engine) : 0;
    for (int i = 0; i < graph->n_inputs && status == TERSE_OK; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        views[i] = terse_tensor_view(NULL, value->dtype, value->rank, value->dims);
        for (int j = 0; j < value->rank; j++)
            views[i].dims[j] = value->dims[j] < 0 ? 1 : value->dims[j];
        views[i].row_stride = value->rank ? views[i].dims[value->rank - 1] : 1;
        if (i < 64 && (needed >> i & 1u))
            status =
                terse_fail(error, TERSE_UNIMPLEMENTED, "the cost depends on the values of input '%s'", value->name);
    }
    if (status == TERSE_OK)
        status = terse_engine_plan(r.engine, views, &plan, error);
    if (status == TERSE_OK) {
        *ret_macs = terse_plan_macs(plan);
        *ret_arena_bytes = terse_plan_arena_bytes(plan);
    }
    terse_runner_done(&r);
    return status;
}
