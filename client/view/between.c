/* SPDX-License-Identifier: Apache-2.0 */
#include "client/view/view.h"

#include <stdio.h>
#include <string.h>

const terse_view_model *terse_view_find(const terse_view *view, const char *model)
{
    for (unsigned i = 0; i < view->n_models; i++)
        if (strcmp(view->models[i].name, model) == 0)
            return &view->models[i];
    return NULL;
}

uint64_t terse_view_count(const terse_view_counts *counts, const char *name)
{
    for (unsigned i = 0; i < counts->n; i++)
        if (strcmp(counts->at[i].name, name) == 0)
            return counts->at[i].count;
    return 0;
}

uint64_t terse_view_sum(const terse_view_counts *counts)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < counts->n; i++)
        sum += counts->at[i].count;
    return sum;
}

/* Counters only grow: one that is smaller belongs to a process that began anew. */
static uint64_t grown(uint64_t later, uint64_t earlier)
{
    return later >= earlier ? later - earlier : later;
}

static void counts_between(const terse_view_counts *later, const terse_view_counts *earlier,
                           terse_view_counts *ret_between)
{
    *ret_between = *later;
    for (unsigned i = 0; i < ret_between->n; i++)
        ret_between->at[i].count = grown(later->at[i].count, terse_view_count(earlier, later->at[i].name));
}

void terse_view_between(const terse_view *later, const terse_view *earlier, const terse_view_model *model,
                        terse_view_interval *ret_interval)
{
    static const terse_view_model nothing;
    terse_view_interval *in = ret_interval;
    const bool same = earlier && earlier->uptime_us <= later->uptime_us;
    const terse_view_model *then = same ? terse_view_find(earlier, model->name) : NULL;
    const double seconds = (double)(later->uptime_us - (same ? earlier->uptime_us : 0)) / 1e6;
    const double per_second = seconds > 0 ? 1 / seconds : 0;
    if (!then)
        then = &nothing;
    in->seconds = seconds;
    const uint64_t batches = grown(model->batches, then->batches), rows = grown(model->rows, then->rows);
    counts_between(&model->errors, &then->errors, &in->errors);
    counts_between(&model->rejected, &then->rejected, &in->rejected);
    counts_between(&model->closed, &then->closed, &in->closed);
    in->requests = (double)grown(model->requests, then->requests) * per_second;
    in->ok = (double)grown(model->ok, then->ok) * per_second;
    in->replies = in->ok + (double)terse_view_sum(&in->errors) * per_second;
    in->refused = (double)terse_view_sum(&in->rejected) * per_second;
    in->rows = (double)rows * per_second;
    in->batches = (double)batches * per_second;
    in->mean_rows = batches ? (double)rows / (double)batches : 0;
    terse_buckets_between(&model->queue_us, &then->queue_us, &in->queue_us);
    terse_buckets_between(&model->compute_us, &then->compute_us, &in->compute_us);
    terse_buckets_between(&model->total_us, &then->total_us, &in->total_us);
    terse_buckets_between(&model->batch_rows, &then->batch_rows, &in->batch_rows);
    in->p50_us = terse_buckets_percentile(&in->total_us, 0.5);
    in->p90_us = terse_buckets_percentile(&in->total_us, 0.9);
    in->p99_us = terse_buckets_percentile(&in->total_us, 0.99);
    in->p999_us = terse_buckets_percentile(&in->total_us, 0.999);
    in->queue_p99_us = terse_buckets_percentile(&in->queue_us, 0.99);
    in->compute_p50_us = terse_buckets_percentile(&in->compute_us, 0.5);
}
