/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/samples.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BATCH = 32 };

static int check_names(const terse_graph *graph, const terse_npz *data, terse_error *error)
{
    for (int i = 0; i < data->n; i++) {
        bool known = strcmp(data->names[i], "labels") == 0 || data->names[i][0] == 0;
        for (int j = 0; j < graph->n_inputs; j++)
            known = known || strcmp(data->names[i], graph->values[graph->inputs[j]].name) == 0;
        if (!known)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' is no input of the model and not 'labels'",
                              data->names[i]);
    }
    return TERSE_OK;
}

static int check_input(terse_samples *f, int index, terse_error *error)
{
    const terse_value *value = &f->graph->values[f->graph->inputs[index]];
    const terse_tensor *tensor = f->tensors[index];
    char found[128], wanted[512];
    if (tensor->dtype != value->dtype)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' is %s, the model takes %s", value->name,
                          terse_dtype_name(tensor->dtype), terse_dtype_name(value->dtype));
    bool fits = tensor->rank == value->rank;
    for (int i = 1; fits && i < value->rank; i++)
        fits = value->dims[i] < 0 ? tensor->dims[i] > 0 : tensor->dims[i] == value->dims[i];
    if (!fits)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input '%s' has shape %s, the model takes %s, axis 0 = samples", value->name,
                          terse_dims_text(tensor->dims, tensor->rank, found, sizeof found),
                          terse_value_text(f->graph, value, wanted, sizeof wanted));
    if (value->rank == 0) {
        f->rows[index] = 0;
        return TERSE_OK;
    }
    const int64_t rows = value->dims[0] > 0 ? value->dims[0] : 1;
    f->rows[index] = rows;
    if (tensor->dims[0] < 1 || tensor->dims[0] % rows != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "input '%s' has %" PRId64 " rows, needed is a multiple of %" PRId64 ", at least one",
                          value->name, tensor->dims[0], rows);
    const int64_t samples = tensor->dims[0] / rows;
    if (f->samples != 0 && f->samples != samples)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' has %" PRId64 " samples, others have %" PRId64,
                          value->name, samples, f->samples);
    f->samples = samples;
    return TERSE_OK;
}

static int check_labels(const terse_samples *f, terse_error *error)
{
    const terse_tensor *labels = f->labels;
    if (!labels)
        return TERSE_OK;
    char text[128];
    if (labels->dtype < TERSE_INT8 || labels->dtype > TERSE_UINT64)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'labels' is %s, needed are integers",
                          terse_dtype_name(labels->dtype));
    if (labels->rank < 1 || labels->dims[0] != f->samples || terse_tensor_count(labels) != f->samples)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'labels' has shape %s, needed is [%" PRId64 "]",
                          terse_dims_text(labels->dims, labels->rank, text, sizeof text), f->samples);
    return TERSE_OK;
}

void terse_samples_done(terse_samples *f)
{
    free(f->tensors);
    free(f->rows);
}

int terse_samples_open(const terse_graph *graph, const terse_npz *data, terse_samples *f, terse_error *error)
{
    *f = (terse_samples){.graph = graph, .batch = graph->batchable ? MAX_BATCH : 1};
    f->tensors = calloc((size_t)graph->n_inputs + 1, sizeof(void *));
    f->rows = calloc((size_t)graph->n_inputs + 1, sizeof *f->rows);
    if (!f->tensors || !f->rows)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d inputs", graph->n_inputs);
    int status = check_names(graph, data, error);
    for (int i = 0; i < graph->n_inputs && status == TERSE_OK; i++) {
        const char *name = graph->values[graph->inputs[i]].name;
        f->tensors[i] = terse_npz_find(data, name);
        status = f->tensors[i] ? check_input(f, i, error)
                               : terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' is missing", name);
    }
    if (status != TERSE_OK)
        return status;
    if (f->samples == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the model has no input with samples along axis 0");
    for (int i = 0; i < data->n; i++)
        if (strcmp(data->names[i], "labels") == 0)
            f->labels = &data->tensors[i];
    return check_labels(f, error);
}

/* Views of samples first .. first + n - 1. */
void terse_samples_views(const terse_samples *f, int64_t first, int64_t n, terse_tensor *views, const void **pointers)
{
    for (int i = 0; i < f->graph->n_inputs; i++) {
        const terse_tensor *from = f->tensors[i];
        views[i] = *from;
        if (f->rows[i] > 0) {
            const int64_t row_bytes = terse_tensor_bytes(from) / from->dims[0];
            views[i] = terse_tensor_view((char *)from->data + first * f->rows[i] * row_bytes, from->dtype, from->rank,
                                         from->dims);
            views[i].dims[0] = n * f->rows[i];
            views[i].row_stride = views[i].dims[from->rank - 1];
        }
        pointers[i] = views[i].data;
    }
}
