/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/quantize/round.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/steps.h"
#include "compress/quantize/steps.h"

enum { MAX_SIDE = 4608, SAMPLES = 64, JUDGED_OF = 4 };
static const double room_bytes = 400e6;

/* --- one product ------------------------------------------------------------------------------------------------- */

static bool round_as(const terse_round_rows *rows, terse_rounding how, const double *fit)
{
    if (how == TERSE_ROUNDING_GPTQ)
        return terse_round_gptq(rows, fit);
    if (how == TERSE_ROUNDING_ADAROUND)
        return terse_round_adaround(rows, fit);
    return true;
}

bool terse_round_choose(const terse_round_rows *rows, terse_rounding how, const double *fit, const double *judge,
                        terse_rounding *ret_taken, terse_rounding_report *report)
{
    const size_t count = (size_t)(rows->o * rows->k);
    TERSE_AUTO(terse_freep) int8_t *q = malloc(count + 1);
    const double nearest = terse_round_error(rows, judge);
    double least = nearest;
    if (!q || nearest < 0)
        return false;
    *ret_taken = TERSE_ROUNDING_NEAREST;
    for (int way = TERSE_ROUNDING_GPTQ; way <= TERSE_ROUNDING_ADAROUND; way++) {
        if (how != TERSE_ROUNDING_AUTO && how != (terse_rounding)way)
            continue;
        terse_round_rows trial = *rows;
        trial.q = q;
        memcpy(q, rows->q, count);
        if (!round_as(&trial, (terse_rounding)way, fit))
            continue; /* nothing was seen, or memory is out: the others remain */
        const double lost = terse_round_error(&trial, judge);
        if (lost < 0 || !(lost < least))
            continue;
        least = lost;
        memcpy(rows->q, q, count);
        *ret_taken = (terse_rounding)way;
    }
    if (report) {
        report->products[*ret_taken]++;
        report->lost += nearest > 0 ? least / nearest : 1;
        report->lost_nearest += 1;
    }
    return true;
}

/* --- all products of bytes --------------------------------------------------------------------------------------- */

typedef struct walking {
    terse_walk walk;
    const terse_graph *graph;
    terse_rounding how;
    terse_int8_weights *int8;
    float *const *weights;
    terse_rounding_report report;
} walking;

/* Moments of what the bytes before give: of every fourth chunk of samples to judge by, of the others to fit to. */
static int watch(const walking *w, const terse_low_rank_product *p, terse_moments *fit, terse_moments *judge,
                 terse_error *error)
{
    double samples = 0;
    for (int c = 0; c < w->walk.n; c++)
        samples += (double)terse_replay_chunk_samples(w->walk.replay, c);
    int status = terse_moments_init(p, false, samples * (double)p->positions_out, fit, error);
    if (status == TERSE_OK)
        status = terse_moments_init(p, false, samples * (double)p->positions_out, judge, error);
    for (int c = 0; c < w->walk.n && status == TERSE_OK; c++) {
        const bool both = w->walk.n < JUDGED_OF, judged = c % JUDGED_OF == JUDGED_OF - 1;
        if (both || judged)
            status = terse_moments_add(w->graph, p, w->walk.found[c], w->walk.found[c], judge, error);
        if (status == TERSE_OK && (both || !judged))
            status = terse_moments_add(w->graph, p, w->walk.found[c], w->walk.found[c], fit, error);
    }
    if (status == TERSE_OK) {
        terse_moments_finish(fit);
        terse_moments_finish(judge);
    }
    return status;
}

/* Rows as low rank has them; integers of Gemm and MatMul lie the other way round. */
static int64_t place(const terse_low_rank_product *p, int64_t o, int64_t k)
{
    return p->conv ? o * p->k + k : k * p->o + o;
}

static int round_rows(walking *w, const terse_low_rank_product *p, const double *fit, const double *judge,
                      terse_error *error)
{
    const size_t count = (size_t)(p->o * p->k);
    terse_int8_weights *to = &w->int8[p->node];
    TERSE_AUTO(terse_freep) float *rows = malloc(count * sizeof *rows + 1);
    TERSE_AUTO(terse_freep) int8_t *q = malloc(count + 1);
    terse_rounding taken = TERSE_ROUNDING_NEAREST;
    bool good = rows && q;
    for (int64_t o = 0; good && o < p->o; o++)
        for (int64_t k = 0; k < p->k; k++) {
            rows[o * p->k + k] = (float)p->w[o * p->k + k];
            q[o * p->k + k] = to->q[place(p, o, k)];
        }
    const terse_round_rows r = {
        .w = rows, .o = p->o, .k = p->k, .group = p->k, .low = -127, .high = 127, .scales = to->scales, .q = q};
    good = good && terse_round_choose(&r, w->how, fit, judge, &taken, &w->report);
    if (!good)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the weights of '%s'",
                          w->graph->nodes[p->node].name);
    for (int64_t o = 0; o < p->o; o++)
        for (int64_t k = 0; k < p->k; k++) {
            const int64_t at = place(p, o, k);
            to->q[at] = q[o * p->k + k];
            w->weights[p->node][at] = (float)to->q[at] * to->scales[o];
        }
    return TERSE_OK;
}

static int round_product(walking *w, int node, terse_error *error)
{
    const terse_edit edit = {.graph = (terse_graph *)(uintptr_t)w->graph};
    terse_low_rank_product product = {0};
    terse_moments fit = {0}, judge = {0};
    char reason[96];
    int status = TERSE_OK;
    if (!terse_select_product(&edit, node, &product, reason, sizeof reason))
        return TERSE_OK; /* grouped and depthwise: to the nearest */
    if (!product.transposed && product.k <= MAX_SIDE) {
        status = watch(w, &product, &fit, &judge, error);
        if (status == TERSE_OK && fit.rows > 0 && judge.rows > 0)
            status = round_rows(w, &product, fit.hat, judge.hat, error);
    }
    terse_moments_done(&fit);
    terse_moments_done(&judge);
    terse_select_done(&product);
    return status;
}

static int walk_products(walking *w, const terse_samples *samples, const terse_disguise *disguise,
                         const terse_round_bytes *to, terse_error *error)
{
    size_t bytes = 1;
    int status = terse_walk_bytes(samples, &bytes, error);
    const double fits = room_bytes / 2 / (double)bytes;
    const int64_t n = fits > SAMPLES ? SAMPLES : fits < TERSE_WALK_CHUNK ? TERSE_WALK_CHUNK : (int64_t)fits;
    if (status == TERSE_OK)
        status = terse_walk_open(samples, n, disguise, &w->walk, error);
    for (int node = 0; node < w->graph->n_nodes && status == TERSE_OK; node++) {
        if (disguise->scheme->kinds[node] == TERSE_SCHEME_PRODUCT) {
            char text[160];
            snprintf(text, sizeof text, "rounding %.100s", w->graph->nodes[node].name);
            if (to->progress)
                to->progress(to->context, text);
            status = round_product(w, node, error);
        }
        if (status == TERSE_OK)
            status = terse_walk_step(&w->walk, node, error);
    }
    terse_walk_done(&w->walk);
    return status;
}

/* --- and back ---------------------------------------------------------------------------------------------------- */

static size_t count_of(const terse_graph *graph, const terse_scheme *scheme, int node)
{
    if (scheme->kinds[node] != TERSE_SCHEME_PRODUCT)
        return 0;
    const terse_value *w = &graph->values[graph->nodes[node].inputs[1]];
    return (size_t)terse_dims_count(w->dims, w->rank);
}

/* Integers of all products, and what they stand for, there or back. */
static void copy(const terse_graph *graph, const terse_scheme *scheme, const terse_round_bytes *bytes, int8_t *q,
                 float *weights, bool back)
{
    size_t at = 0;
    for (int n = 0; n < graph->n_nodes; n++) {
        const size_t count = count_of(graph, scheme, n);
        if (count && back) {
            memcpy(bytes->int8[n].q, q + at, count);
            memcpy(bytes->weights[n], weights + at, count * sizeof *weights);
        } else if (count) {
            memcpy(q + at, bytes->int8[n].q, count);
            memcpy(weights + at, bytes->weights[n], count * sizeof *weights);
        }
        at += count;
    }
}

int terse_round_int8(const terse_replay *replay, const terse_graph *graph, const terse_samples *samples,
                     const terse_disguise *disguise, terse_rounding how, const terse_round_bytes *bytes,
                     terse_rounding_report *ret_report, double ret_shares[2], terse_error *error)
{
    walking w = {.graph = graph, .how = how, .int8 = bytes->int8, .weights = bytes->weights};
    terse_loss before = {0}, after = {0};
    size_t count = 0;
    for (int n = 0; n < graph->n_nodes; n++)
        count += count_of(graph, disguise->scheme, n);
    TERSE_AUTO(terse_freep) int8_t *q = malloc(count + 1);
    TERSE_AUTO(terse_freep) float *weights = malloc(count * sizeof *weights + 1);
    if (!q || !weights)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu weights", count);
    copy(graph, disguise->scheme, bytes, q, weights, false);
    int status = terse_sensitivity_total(replay, graph, disguise, &before, error);
    if (status == TERSE_OK)
        status = walk_products(&w, samples, disguise, bytes, error);
    if (status == TERSE_OK)
        status = terse_sensitivity_total(replay, graph, disguise, &after, error);
    if (status != TERSE_OK)
        return status;
    ret_shares[0] = terse_loss_share(&before);
    ret_shares[1] = terse_loss_share(&after);
    if (ret_shares[1] > ret_shares[0])
        copy(graph, disguise->scheme, bytes, q, weights, true);
    else
        *ret_report = w.report;
    return TERSE_OK;
}
