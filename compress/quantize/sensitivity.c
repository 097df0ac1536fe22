/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "compress/quantize/steps.h"

/* One layer on bytes on top of the exact numbers of a chunk. */
static int try_layer(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise, int chunk,
                     const terse_numbers *exact, int node, terse_loss *loss, terse_error *error)
{
    terse_numbers *trial = NULL;
    const int n_outputs = graph->nodes[node].n_outputs;
    TERSE_AUTO(terse_freep) terse_tensor *outputs = calloc((size_t)n_outputs + 1, sizeof *outputs);
    terse_arena *arena = terse_arena_new();
    int status = outputs && arena ? terse_numbers_new(replay, chunk, false, NULL, exact, &trial, error)
                                  : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a trial");
    if (status == TERSE_OK)
        status = terse_numbers_try(exact, node, disguise, arena, outputs, error);
    if (status != TERSE_OK) {
        terse_arena_free(arena);
        terse_numbers_free(trial);
        return status;
    }
    terse_numbers_put(trial, node, outputs, arena);
    for (int n = node + 1; n < graph->n_nodes && status == TERSE_OK; n++)
        status = terse_numbers_step(trial, n, error);
    if (status == TERSE_OK)
        terse_loss_add(loss, exact, trial);
    terse_numbers_free(trial);
    return status;
}

int terse_sensitivity_measure(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise,
                              terse_loss *loss, void (*progress)(void *, const char *), void *context,
                              terse_error *error)
{
    const int n_chunks = terse_replay_chunks(replay);
    int status = TERSE_OK;
    for (int chunk = 0; chunk < n_chunks && status == TERSE_OK; chunk++) {
        terse_numbers *exact = NULL;
        status = terse_numbers_new(replay, chunk, true, NULL, NULL, &exact, error);
        for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++)
            status = terse_numbers_step(exact, n, error);
        for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
            if (disguise->scheme->kinds[n] != TERSE_SCHEME_PRODUCT)
                continue;
            char text[128];
            snprintf(text, sizeof text, "sensitivity %d/%d: %.80s", chunk + 1, n_chunks, graph->nodes[n].name);
            if (progress)
                progress(context, text);
            status = try_layer(replay, graph, disguise, chunk, exact, n, &loss[n], error);
        }
        terse_numbers_free(exact);
    }
    return status;
}

int terse_sensitivity_total(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise,
                            terse_loss *loss, terse_error *error)
{
    int status = TERSE_OK;
    for (int chunk = 0; chunk < terse_replay_chunks(replay) && status == TERSE_OK; chunk++) {
        terse_numbers *exact = NULL, *found = NULL;
        status = terse_numbers_new(replay, chunk, false, NULL, NULL, &exact, error);
        if (status == TERSE_OK)
            status = terse_numbers_new(replay, chunk, false, disguise, NULL, &found, error);
        for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
            status = terse_numbers_step(exact, n, error);
            if (status == TERSE_OK)
                status = terse_numbers_step(found, n, error);
        }
        if (status == TERSE_OK)
            terse_loss_add(loss, exact, found);
        terse_numbers_free(exact);
        terse_numbers_free(found);
    }
    return status;
}
