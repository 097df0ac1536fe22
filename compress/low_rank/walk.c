/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "compress/low_rank/steps.h"

enum { MAX_SIDE = 4608 }; /* of second moments */

void terse_walk_done(terse_walk *s)
{
    for (int i = 0; s->exact && i < s->n; i++)
        terse_numbers_free(s->exact[i]);
    for (int i = 0; s->found && s->found != s->exact && i < s->n; i++)
        terse_numbers_free(s->found[i]);
    if (s->found != s->exact)
        free(s->found);
    free(s->exact);
    terse_replay_free(s->replay);
    *s = (terse_walk){0};
}

int terse_walk_bytes(const terse_samples *samples, size_t *ret_bytes, terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    TERSE_AUTO(terse_numbers_freep) terse_numbers *numbers = NULL;
    int status = terse_replay_new(samples->graph, samples, 1, 1, &replay, error);
    if (status == TERSE_OK)
        status = terse_numbers_new(replay, 0, false, NULL, NULL, &numbers, error);
    *ret_bytes = 1;
    for (int n = 0; n < samples->graph->n_nodes && status == TERSE_OK; n++) {
        status = terse_numbers_step(numbers, n, error);
        if (terse_numbers_bytes(numbers) > *ret_bytes)
            *ret_bytes = terse_numbers_bytes(numbers);
    }
    terse_numbers_freep(&numbers);
    numbers = NULL;
    return status;
}

int terse_walk_open(const terse_samples *samples, int64_t n_samples, const terse_disguise *disguise, terse_walk *s,
                    terse_error *error)
{
    int status = terse_replay_new(samples->graph, samples, n_samples, TERSE_WALK_CHUNK, &s->replay, error);
    if (status != TERSE_OK)
        return status;
    s->graph = samples->graph;
    s->n = terse_replay_chunks(s->replay);
    s->exact = calloc((size_t)s->n + 1, sizeof(void *));
    s->found = disguise ? calloc((size_t)s->n + 1, sizeof(void *)) : s->exact;
    if (!s->exact || !s->found)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    for (int i = 0; i < s->n && status == TERSE_OK; i++) {
        status = terse_numbers_new(s->replay, i, false, NULL, NULL, &s->exact[i], error);
        if (status == TERSE_OK && disguise)
            status = terse_numbers_new(s->replay, i, false, disguise, NULL, &s->found[i], error);
    }
    return status;
}

int terse_walk_step(terse_walk *s, int node, terse_error *error)
{
    int status = TERSE_OK;
    for (int i = 0; i < s->n && status == TERSE_OK; i++) {
        status = terse_numbers_step(s->exact[i], node, error);
        if (status == TERSE_OK && s->found != s->exact)
            status = terse_numbers_step(s->found[i], node, error);
    }
    return status;
}

/* Can samples help this layer? Else its weights alone are approximated. */
static bool is_watched(const terse_low_rank_product *product)
{
    return !product->transposed && product->k <= MAX_SIDE;
}

int terse_walk_measure(const terse_walk *s, const terse_low_rank_product *product, bool residual,
                       terse_moments *moments, terse_metric *metric, terse_error *error)
{
    const bool watched = s && is_watched(product);
    int status = TERSE_OK;
    if (watched) {
        double samples = 0;
        for (int i = 0; i < s->n; i++)
            samples += (double)terse_replay_chunk_samples(s->replay, i);
        status = terse_moments_init(product, residual, samples * (double)product->positions_out, moments, error);
        for (int i = 0; i < s->n && status == TERSE_OK; i++)
            status = terse_moments_add(s->graph, product, s->exact[i], s->found[i], moments, error);
        if (status == TERSE_OK)
            terse_moments_finish(moments);
    }
    return status == TERSE_OK ? terse_metric_init(product, watched && moments->rows > 0 ? moments : NULL, metric, error)
                              : status;
}
