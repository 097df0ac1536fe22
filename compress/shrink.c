/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/shrink.h"

#include <stdlib.h>
#include <string.h>

#include "common/winograd.h"

/* "encoding" and "stored" take bytes of the header. */
enum { NOTE_BYTES = 40 };

void terse_shrink_done(terse_shrunk *shrunk)
{
    for (int v = 0; v < shrunk->n && shrunk->packed; v++)
        free((void *)(uintptr_t)shrunk->packed[v].data);
    free(shrunk->packed);
    *shrunk = (terse_shrunk){0};
}

/* Weights that Winograd's algorithm reads are told as those that they were made of. */
static int shrink_winograd(const terse_value *value, bool zstd, terse_model_packed *packed, terse_error *error)
{
    const int64_t n = value->dims[0], c = value->dims[1];
    const size_t bytes = (size_t)(n * c) * 9 * sizeof(float);
    TERSE_AUTO(terse_freep) float *made = calloc(value->bytes + 1, 1);
    uint8_t *stored = NULL;
    if (!made)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", value->bytes);
    terse_winograd_expand(value->origin, n, c, made);
    if (memcmp(made, value->data, value->bytes) != 0)
        return TERSE_OK; /* somebody has changed them since */
    int status = terse_encoding_pack(value->origin, bytes, sizeof(float), zstd, &packed->encoding, &stored,
                                     &packed->bytes, error);
    if (status == TERSE_OK && !stored)
        status = terse_encoding_store(value->origin, bytes, &packed->encoding, &stored, &packed->bytes, error);
    packed->encoding.winograd = 1;
    packed->data = stored;
    return status;
}

/* data stays NULL where nothing takes fewer bytes than the value itself. */
static int shrink_value(const terse_value *value, bool zstd, terse_model_packed *packed, terse_error *error)
{
    const size_t element = terse_dtype_size(value->dtype);
    if (element == 0 || value->bytes <= NOTE_BYTES || value->bytes % element != 0)
        return TERSE_OK;
    int status = TERSE_OK;
    uint8_t *stored = NULL;
    if (value->layout == TERSE_LAYOUT_F32_WINOGRAD4 && value->origin)
        status = shrink_winograd(value, zstd, packed, error);
    if (status == TERSE_OK && !packed->data) {
        packed->encoding.winograd = 0;
        status = terse_encoding_pack(value->data, value->bytes, element, zstd, &packed->encoding, &stored,
                                     &packed->bytes, error);
        packed->data = stored;
    }
    if (packed->data &&
        (packed->bytes + NOTE_BYTES >= value->bytes || !terse_encoding_allows(packed->bytes, value->bytes))) {
        free((void *)(uintptr_t)packed->data);
        packed->data = NULL;
    }
    return status;
}

int terse_shrink_run(const terse_graph *graph, bool zstd, terse_shrunk *ret_shrunk, terse_error *error)
{
    terse_shrunk s = {.n = graph->n_values, .packed = calloc((size_t)graph->n_values + 1, sizeof *s.packed)};
    if (!s.packed)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d tensors", s.n);
    bool any = false;
    for (int v = 0; v < graph->n_values; v++) {
        const terse_value *value = &graph->values[v];
        if (!value->data)
            continue;
        s.bytes_plain += (int64_t)value->bytes;
        s.bytes_stored += (int64_t)value->bytes;
        const int status = shrink_value(value, zstd, &s.packed[v], error);
        if (status != TERSE_OK) {
            terse_shrink_done(&s);
            return terse_error_prefix(error, "tensor '%s'", value->name);
        }
        if (!s.packed[v].data)
            continue;
        s.bytes_stored -= (int64_t)(value->bytes - s.packed[v].bytes);
        any = true;
    }
    if (!any) {
        free(s.packed);
        s.packed = NULL;
    }
    *ret_shrunk = s;
    return TERSE_OK;
}
