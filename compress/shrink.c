/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/shrink.h"

#include <stdlib.h>
#include <string.h>

/* "encoding" and "stored" take bytes of the header. */
enum { NOTE_BYTES = 40 };

void terse_shrink_done(terse_shrunk *shrunk)
{
    for (int v = 0; v < shrunk->n && shrunk->packed; v++)
        free((void *)(uintptr_t)shrunk->packed[v].data);
    free(shrunk->packed);
    *shrunk = (terse_shrunk){0};
}

int terse_shrink_run(const terse_graph *graph, bool zstd, terse_shrunk *ret_shrunk, terse_error *error)
{
    terse_shrunk s = {.n = graph->n_values, .packed = calloc((size_t)graph->n_values + 1, sizeof *s.packed)};
    if (!s.packed)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d tensors", s.n);
    bool any = false;
    for (int v = 0; v < graph->n_values; v++) {
        const terse_value *value = &graph->values[v];
        const size_t element = terse_dtype_size(value->dtype);
        if (!value->data)
            continue;
        s.bytes_plain += (int64_t)value->bytes;
        s.bytes_stored += (int64_t)value->bytes;
        if (element == 0 || value->bytes <= NOTE_BYTES || value->bytes % element != 0)
            continue;
        uint8_t *stored = NULL;
        size_t bytes = 0;
        const int status = terse_encoding_pack(value->data, value->bytes, element, zstd, &s.packed[v].encoding, &stored,
                                               &bytes, error);
        if (status != TERSE_OK) {
            terse_shrink_done(&s);
            return terse_error_prefix(error, "tensor '%s'", value->name);
        }
        if (!stored || bytes + NOTE_BYTES >= value->bytes) {
            free(stored);
            continue;
        }
        s.packed[v].data = stored;
        s.packed[v].bytes = bytes;
        s.bytes_stored -= (int64_t)(value->bytes - bytes);
        any = true;
    }
    if (!any) {
        free(s.packed);
        s.packed = NULL;
    }
    *ret_shrunk = s;
    return TERSE_OK;
}
