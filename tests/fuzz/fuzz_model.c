/* SPDX-License-Identifier: Apache-2.0 */
/* The .terse reader, and behind it the plans and operators, over hostile bytes. The sizes and the header's hash are put
 * right first, so that what is mutated in the header gets past them. */
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "common/bytes.h"
#include "common/expand.h"
#include "common/graph/engine.h"
#include "common/model.h"
#include "common/model_format.h"
#include "tests/fuzz/replay.h"

enum { MAX_ARENA = 4 << 20, MAX_ELEMENTS = 1 << 20 };
static const int64_t max_macs = 1 << 22;

static void store(uint8_t *to, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static void mend(uint8_t *bytes, size_t size)
{
    if (size < TERSE_MODEL_HEAD_BYTES + 8)
        return;
    uint64_t header = 0;
    for (int i = 3; i >= 0; i--)
        header = header << 8 | bytes[12 + i];
    if (header > size - TERSE_MODEL_HEAD_BYTES - 8)
        return;
    store(bytes + 16, size, 8);
    store(bytes + TERSE_MODEL_HEAD_BYTES + header, XXH3_64bits(bytes + TERSE_MODEL_HEAD_BYTES, header), 8);
}

static void run_plan(const terse_graph *graph, terse_plan *plan, const terse_tensor *inputs)
{
    terse_error error;
    const void *from[TERSE_MAX_NODE_IO];
    void *to[TERSE_MAX_NODE_IO] = {NULL};
    for (int i = 0; i < graph->n_inputs; i++)
        from[i] = inputs[i].data;
    for (int i = 0; i < graph->n_outputs; i++)
        if (!(to[i] = aligned_alloc(64, terse_align((size_t)terse_tensor_bytes(terse_plan_output(plan, i)) + 1, 64))))
            abort();
    if (terse_plan_macs(plan) <= max_macs && terse_plan_run(plan, from, to, &error) != TERSE_OK && !*error.message)
        abort();
    for (int i = 0; i < graph->n_outputs; i++)
        free(to[i]);
}

static void try_engine(const terse_graph *graph)
{
    terse_error error = {0};
    terse_engine *engine = NULL;
    terse_plan *plan;
    if (graph->n_inputs > TERSE_MAX_NODE_IO || graph->n_outputs > TERSE_MAX_NODE_IO ||
        terse_engine_new(graph, terse_kernels_of(TERSE_ISA_SCALAR), 1, MAX_ARENA, &engine, &error) != TERSE_OK)
        return;
    terse_tensor *inputs = calloc((size_t)graph->n_inputs + 1, sizeof *inputs);
    bool small = true;
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        int64_t dims[TERSE_MAX_RANK];
        for (int d = 0; d < value->rank; d++)
            dims[d] = value->dims[d] < 0 ? 2 : value->dims[d];
        inputs[i] = terse_tensor_view(NULL, value->dtype, value->rank, dims);
        const int64_t count = terse_dims_count(dims, value->rank);
        small = small && count >= 0 && count <= MAX_ELEMENTS;
        if (small)
            inputs[i].data = calloc((size_t)count + 1, 8);
    }
    if (small && terse_engine_plan(engine, inputs, &plan, &error) == TERSE_OK) {
        int64_t bytes = 0;
        for (int i = 0; i < graph->n_outputs; i++)
            bytes += terse_tensor_bytes(terse_plan_output(plan, i));
        if (bytes <= MAX_ARENA)
            run_plan(graph, plan, inputs);
    } else if (small && !*error.message) {
        abort(); /* a failure that does not say why */
    }
    for (int i = 0; i < graph->n_inputs; i++)
        free(inputs[i].data);
    free(inputs);
    terse_engine_free(engine);
}

/* The plain form of a packed file, in a block of its own; NULL when it has none. */
static uint8_t *expand(const uint8_t *bytes, size_t size, size_t *ret_bytes)
{
    enum { MAX_EXPANDED = 64 << 20 };
    terse_error error = {0};
    terse_expansion expansion;
    uint8_t *image = NULL;
    if (terse_expand_open(bytes, size, "fuzz", &expansion, &error) != TERSE_OK) {
        if (!*error.message)
            abort();
        return NULL;
    }
    if (expansion.bytes <= MAX_EXPANDED && posix_memalign((void **)&image, 64, expansion.bytes) == 0) {
        memset(image, 0, expansion.bytes);
        if (terse_expand_into(&expansion, image, &error) != TERSE_OK) {
            if (!*error.message)
                abort();
            free(image);
            image = NULL;
        }
    }
    *ret_bytes = expansion.bytes;
    terse_expand_done(&expansion);
    return image;
}

static void try_model(const uint8_t *bytes, size_t size, unsigned checks)
{
    terse_error error = {0};
    terse_model *model = NULL;
    if (terse_model_parse(bytes, size, "fuzz", checks, &model, &error) == TERSE_OK) {
        try_engine(model->graph);
        terse_model_close(model);
    } else if (!*error.message) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A block of the very size, so that a sanitizer sees a read behind its end. */
    uint8_t *bytes = NULL;
    if (posix_memalign((void **)&bytes, 64, size + 1) != 0)
        return 0;
    memcpy(bytes, data, size);
    for (int mended = 0; mended < 2; mended++) {
        if (mended)
            mend(bytes, size);
        size_t expanded = 0;
        uint8_t *image = terse_expand_is_packed(bytes, size) ? expand(bytes, size, &expanded) : NULL;
        if (image)
            try_model(image, expanded, TERSE_MODEL_CHECK_SECTIONS);
        free(image);
        try_model(bytes, size, mended ? 0 : TERSE_MODEL_CHECK_SHA256);
    }
    free(bytes);
    return 0;
}
