/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/look.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/paired.h"
#include "compress/runner.h"

enum { CLASSED = 16 };

/* An input that is the same number throughout, or the same sample again and again. */
static void look_for_dullness(const terse_samples *s, char *text)
{
    bool alike = s->samples > 1;
    for (int i = 0; i < s->graph->n_inputs; i++) {
        const terse_tensor *x = s->tensors[i];
        const int64_t n = terse_tensor_count(x);
        const size_t size = terse_dtype_size(x->dtype), bytes = (size_t)n * size, one = bytes / (size_t)s->samples;
        const char *data = x->data;
        bool even = n > 1 && one > size;
        for (int64_t k = 1; even && k < n; k++)
            even = memcmp(data, data + (size_t)k * size, size) == 0;
        if (even) {
            snprintf(text, TERSE_LOOK_TEXT,
                     "input '%.80s' is %g in all %" PRId64 " samples: nothing can be learnt there",
                     s->graph->values[s->graph->inputs[i]].name, terse_runner_number(x, data, 0), s->samples);
            return;
        }
        for (int64_t k = 1; alike && s->rows[i] > 0 && k < s->samples; k++)
            alike = memcmp(data, data + (size_t)k * one, one) == 0;
    }
    if (s->samples == 1)
        snprintf(text, TERSE_LOOK_TEXT, "there is one sample: others may lose more than the figures say");
    if (alike)
        snprintf(text, TERSE_LOOK_TEXT, "all %" PRId64 " samples are the same one", s->samples);
}

static bool has_nan(const terse_tensor *out, const float *data)
{
    const int64_t n = terse_tensor_count(out);
    for (int64_t i = 0; i < n; i++)
        if (isnan(data[i]))
            return true;
    return false;
}

/* Some samples, one by one: can the network bear them, and do all have the same largest class? */
static int find_class(const terse_samples *s, char *text, terse_error *error)
{
    const terse_value *y = &s->graph->values[s->graph->outputs[0]];
    terse_runner r = {0};
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)s->graph->n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)s->graph->n_inputs + 1, sizeof *pointers);
    const int64_t n = s->samples < CLASSED ? s->samples : CLASSED;
    int64_t first = -1, same = 0;
    if (!views || !pointers)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    if (y->dtype != TERSE_FP32)
        return TERSE_OK;
    int status = terse_runner_init(s->graph, &r, error);
    for (int64_t i = 0; i < n && status == TERSE_OK; i++) {
        terse_samples_views(s, i * s->samples / n, 1, views, pointers);
        if (i == 0 || terse_engine_value_inputs(r.engine) != 0)
            status = terse_runner_plan(&r, views, error);
        if (status == TERSE_OK)
            status = terse_plan_run(r.plan, pointers, r.outputs, error);
        const terse_tensor *out = status == TERSE_OK ? terse_plan_output(r.plan, 0) : NULL;
        if (out && has_nan(out, r.outputs[0])) {
            terse_runner_done(&r);
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "the network's answer to sample %" PRId64 " is NaN: nothing can be fitted to that",
                              i * s->samples / n);
        }
        if (!out || out->rank != 2 || out->dims[0] != 1 || out->dims[1] < 2)
            break;
        const int64_t found = terse_paired_largest(r.outputs[0], out->dims[1]);
        first = i == 0 ? found : first;
        same += found == first;
    }
    terse_runner_done(&r);
    if (same == n && n > 1 && !*text && status == TERSE_OK)
        snprintf(text, TERSE_LOOK_TEXT, "all %" PRId64 " samples that were looked at are of class %" PRId64 "%s", n,
                 first, ": others may lose more than the figures say");
    return TERSE_OK; /* what cannot be run is told where it is needed */
}

int terse_look_at(const terse_graph *graph, const terse_npz *data, char ret_text[TERSE_LOOK_TEXT], terse_error *error)
{
    terse_samples samples = {0};
    ret_text[0] = 0;
    int status = terse_samples_open(graph, data, &samples, error);
    if (status == TERSE_OK) {
        look_for_dullness(&samples, ret_text);
        status = find_class(&samples, ret_text, error);
    }
    terse_samples_done(&samples);
    return status;
}
