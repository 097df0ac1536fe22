/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/runner.h"

#include <stdlib.h>
#include <string.h>

static void free_outputs(terse_runner *r)
{
    for (int i = 0; r->outputs && i < r->n_outputs; i++)
        free(r->outputs[i]);
    free(r->outputs);
    r->outputs = NULL;
}

void terse_runner_done(terse_runner *r)
{
    free_outputs(r);
    terse_engine_free(r->engine);
}

int terse_runner_init(const terse_graph *graph, terse_runner *r, terse_error *error)
{
    enum { PLANS = 4 };
    const terse_kernels *kernels;
    *r = (terse_runner){.n_outputs = graph->n_outputs};
    const int status = terse_kernels_get(&kernels, error);
    return status == TERSE_OK ? terse_engine_new(graph, kernels, PLANS, 0, &r->engine, error) : status;
}

int terse_runner_plan(terse_runner *r, const terse_tensor *views, terse_error *error)
{
    const int status = terse_engine_plan(r->engine, views, &r->plan, error);
    if (status != TERSE_OK)
        return status;
    free_outputs(r);
    r->outputs = calloc((size_t)r->n_outputs + 1, sizeof(void *));
    bool good = r->outputs != NULL;
    for (int i = 0; good && i < r->n_outputs; i++) {
        const int64_t bytes = terse_tensor_bytes(terse_plan_output(r->plan, i));
        r->outputs[i] = aligned_alloc(64, terse_align((size_t)bytes + 1, 64));
        good = r->outputs[i] != NULL;
    }
    return good ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the outputs");
}

double terse_runner_number(const terse_tensor *tensor, const void *data, int64_t i)
{
    switch (tensor->dtype) {
    case TERSE_FP32:
        return (double)((const float *)data)[i];
    case TERSE_BF16: {
        const uint32_t bits = (uint32_t)((const uint16_t *)data)[i] << 16;
        float f;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
    case TERSE_INT64:
        return (double)((const int64_t *)data)[i];
    case TERSE_INT32:
        return (double)((const int32_t *)data)[i];
    case TERSE_INT8:
        return (double)((const int8_t *)data)[i];
    case TERSE_INT16:
        return (double)((const int16_t *)data)[i];
    case TERSE_UINT16:
        return (double)((const uint16_t *)data)[i];
    case TERSE_UINT32:
        return (double)((const uint32_t *)data)[i];
    case TERSE_UINT64:
        return (double)((const uint64_t *)data)[i];
    default:
        return (double)((const uint8_t *)data)[i];
    }
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double terse_runner_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_size);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}
