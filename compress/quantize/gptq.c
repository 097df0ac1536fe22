/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/quantize/gptq.h"

#include <math.h>
#include <stdlib.h>

#include <cblas.h>
#include <lapacke.h>

#include "compress/quantize/replay.h"
#include "compress/quantize/weights.h"
#include "compress/spill.h"

enum { CHUNK_SAMPLES = 8, JUDGED_OF = 4 };

void terse_gptq_moments_done(terse_gptq_moments *moments)
{
    for (int v = 0; moments->moments && v < moments->n_values; v++)
        (moments->spilled ? terse_spill_free : free)(moments->moments[v]);
    for (int v = 0; moments->judged && v < moments->n_values; v++)
        (moments->spilled ? terse_spill_free : free)(moments->judged[v]);
    free(moments->moments);
    free(moments->judged);
    *moments = (terse_gptq_moments){0};
}

void terse_gptq_moments_rest(const terse_gptq_moments *m, int value)
{
    if (m->spilled && m->moments && m->moments[value])
        terse_spill_rest(m->moments[value]);
    if (m->spilled && m->judged && m->judged[value])
        terse_spill_rest(m->judged[value]);
}

/* --- watching ----------------------------------------------------------------------------------------------------- */

/* Only the upper half. Numbers that are not finite are left out with their row. */
static void add_rows(const terse_tensor *x, int64_t k, double *moments)
{
    const int64_t rows = terse_dims_count(x->dims, x->rank - 1);
    for (int64_t r = 0; r < rows; r++) {
        const float *row = (const float *)x->data + r * x->row_stride;
        bool good = true;
        for (int64_t i = 0; i < k; i++)
            good = good && isfinite(row[i]);
        for (int64_t i = 0; good && i < k; i++) {
            const double factor = (double)row[i];
            double *to = moments + i * k;
            for (int64_t j = i; factor != 0.0 && j < k; j++)
                to[j] += factor * (double)row[j];
        }
    }
}

/* The rows of one chunk into one of the sums. */
static int add_chunk(const terse_tensor *x, int64_t k, double **sum, terse_error *error)
{
    void *piece = NULL;
    if (!*sum && terse_spill_is_on()) {
        const int status = terse_spill_new((size_t)(k * k) * sizeof **sum, &piece, error);
        if (status != TERSE_OK)
            return status;
        *sum = piece;
    } else if (!*sum) {
        *sum = calloc((size_t)(k * k), sizeof **sum);
    }
    if (!*sum)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for what a layer has seen");
    add_rows(x, k, *sum);
    return TERSE_OK;
}

/* All chunks of one node: its input's moments where they are wanted, then its outputs. */
static int step(const terse_graph *graph, int node, bool wanted, terse_numbers *const *numbers, int n_chunks,
                terse_gptq_moments *found, terse_error *error)
{
    const terse_node *n = &graph->nodes[node];
    int status = TERSE_OK;
    for (int c = 0; c < n_chunks && status == TERSE_OK; c++) {
        const terse_tensor *x = wanted ? terse_numbers_value(numbers[c], n->inputs[0]) : NULL;
        const int64_t k = wanted ? graph->values[n->inputs[1]].dims[0] : 0;
        const bool both = n_chunks < JUDGED_OF, judged = c % JUDGED_OF == JUDGED_OF - 1;
        if (x && x->dtype == TERSE_FP32 && x->rank >= 1 && x->dims[x->rank - 1] == k && k <= TERSE_GPTQ_MAX_K) {
            if (both || !judged)
                status = add_chunk(x, k, &found->moments[n->inputs[1]], error);
            if (status == TERSE_OK && (both || judged))
                status = add_chunk(x, k, &found->judged[n->inputs[1]], error);
        }
        if (status == TERSE_OK)
            status = terse_numbers_step(numbers[c], node, error);
    }
    if (wanted)
        terse_gptq_moments_rest(found, n->inputs[1]);
    return status;
}

/* The lower half as the upper one. */
static void mirror(const terse_graph *graph, double *const *sums, bool spilled)
{
    for (int v = 0; v < graph->n_values; v++) {
        for (int64_t i = 0, k = graph->values[v].dims[0]; sums[v] && i < k; i++)
            for (int64_t j = 0; j < i; j++)
                sums[v][i * k + j] = sums[v][j * k + i];
        if (sums[v] && spilled)
            terse_spill_rest(sums[v]);
    }
}

static int watch(const terse_graph *graph, const bool *wanted, const terse_replay *replay, terse_gptq_moments *found,
                 terse_error *error)
{
    const int n_chunks = terse_replay_chunks(replay);
    terse_numbers **numbers = calloc((size_t)n_chunks + 1, sizeof *numbers);
    int status = numbers ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    for (int c = 0; c < n_chunks && status == TERSE_OK; c++)
        status = terse_numbers_new(replay, c, false, NULL, NULL, &numbers[c], error);
    for (int node = 0; node < graph->n_nodes && status == TERSE_OK; node++)
        status = step(graph, node, wanted[node], numbers, n_chunks, found, error);
    for (int c = 0; numbers && c < n_chunks; c++)
        terse_numbers_free(numbers[c]);
    free(numbers);
    return status;
}

int terse_gptq_watch(const terse_graph *graph, const bool *wanted, const terse_npz *data,
                     terse_gptq_moments *ret_moments, terse_error *error)
{
    terse_samples samples = {0};
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    terse_gptq_moments found = {.n_values = graph->n_values, .spilled = terse_spill_is_on()};
    int status = terse_samples_open(graph, data, &samples, error);
    if (status == TERSE_OK)
        status = terse_replay_new(graph, &samples, TERSE_GPTQ_SAMPLES, CHUNK_SAMPLES, &replay, error);
    if (status == TERSE_OK) {
        found.moments = calloc((size_t)graph->n_values + 1, sizeof *found.moments);
        found.judged = calloc((size_t)graph->n_values + 1, sizeof *found.judged);
        status = found.moments && found.judged
                     ? watch(graph, wanted, replay, &found, error)
                     : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for what layers have seen");
    }
    terse_replay_freep(&replay);
    replay = NULL;
    terse_samples_done(&samples);
    if (status != TERSE_OK) {
        terse_gptq_moments_done(&found);
        return status;
    }
    mirror(graph, found.moments, found.spilled);
    mirror(graph, found.judged, found.spilled);
    *ret_moments = found;
    return TERSE_OK;
}

/* --- rounding ----------------------------------------------------------------------------------------------------- */

bool terse_gptq_factor(double *h, int64_t k)
{
    double mean = 0.0;
    for (int64_t i = 0; i < k; i++)
        mean += h[i * k + i] / (double)k;
    if (!(mean > 0.0) || !isfinite(mean))
        return false;
    for (int64_t i = 0; i < k; i++)
        h[i * k + i] += 0.01 * mean;
    openblas_set_num_threads(1); /* the same bytes whatever the machine */
    const lapack_int n = (lapack_int)k;
    if (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', n, h, n) != 0 || LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'U', n, h, n) != 0 ||
        LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', n, h, n) != 0)
        return false;
    for (int64_t i = 0; i < k; i++)
        if (!(h[i * k + i] > 0.0) || !isfinite(h[i * k + i]))
            return false;
    return true;
}

/* Scales of the group that begins at row `first`, from the weights as they are now. */
static void choose_scales(const float *w, int64_t first, int64_t count, int64_t n, int8_t *room, float *scales)
{
    for (int64_t j = 0; j < n; j++)
        scales[j] = terse_quantize_round(w + first * n + j, count, n, -8, 7, room);
}

bool terse_gptq_round(float *w, int64_t k, int64_t n, int64_t group, double *moments, int8_t *ret_integers,
                      float *ret_scales)
{
    int8_t *room = malloc((size_t)group);
    float *lost = malloc((size_t)n * sizeof *lost);
    const bool good = room && lost && terse_gptq_factor(moments, k);
    for (int64_t i = 0; i < k && good; i++) {
        float *scales = ret_scales + i / group * n, *row = w + i * n;
        if (i % group == 0)
            choose_scales(w, i, k - i < group ? k - i : group, n, room, scales);
        const double *u = moments + i * k;
        for (int64_t j = 0; j < n; j++) {
            const float q = scales[j] == 0.0f ? 0.0f : fminf(fmaxf(nearbyintf(row[j] / scales[j]), -8.0f), 7.0f);
            ret_integers[i * n + j] = (int8_t)q;
            lost[j] = (float)((double)(row[j] - q * scales[j]) / u[i]);
        }
        for (int64_t later = i + 1; later < k; later++) {
            const float share = (float)u[later];
            float *to = w + later * n;
            for (int64_t j = 0; j < n; j++)
                to[j] -= lost[j] * share;
        }
    }
    free(room);
    free(lost);
    return good;
}
