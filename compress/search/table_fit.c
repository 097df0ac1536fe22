/* SPDX-License-Identifier: Apache-2.0 */
/* Samples walk through the exact network; at each layer its inputs' second moments say which weights fit best what it
 * puts out: chains of every form and rank that is faster, 4x1 weights of every share that is, codebooks. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/encoding.h"
#include "compress/cluster/book.h"
#include "compress/low_rank/steps.h"
#include "compress/prune/obs.h"
#include "compress/search/table_steps.h"

enum { SAMPLES = 64, MAX_RANKS = 8, LEAST_PER_CODE = 4, COARSE = 3 };
#define ROOM ((size_t)512 << 20)         /* bytes that the samples' numbers may take */
#define WEIGHTS_ROOM ((size_t)768 << 20) /* ... and the weights of all options */
static const double worth = 0.97;
static const double late_share = 1.25; /* of the time for all: layers behind that have nothing */

typedef struct fitting {
    const terse_table *table;
    const terse_table_options *options;
    terse_table_layer *layer;
    terse_low_rank_product product;
    terse_metric metric;
    size_t room;       /* for the weights of one layer's options */
    uint64_t deadline; /* of this layer: what is coarse is looked at all the same, what is fine is not */
    bool late;         /* there is no time for anything */
} fitting;

static bool is_over(const fitting *f)
{
    return terse_now_ns() > f->deadline;
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the table of choices");
}

/* m [o][k] in the order of the node's weights. NULL where the layer has no more room for options. */
static float *keep(const fitting *f, const double *m)
{
    const int64_t o = f->product.o, k = f->product.k;
    float *w = terse_arena_alloc(f->table->state->arena, (size_t)(o * k) * sizeof *w + 1);
    for (int64_t i = 0; w && i < o; i++)
        for (int64_t j = 0; j < k; j++)
            w[f->product.conv ? i * k + j : j * o + i] = (float)m[i * k + j];
    return w;
}

static bool has_room(const fitting *f)
{
    size_t used = 0;
    for (int i = 0; i < f->layer->n; i++)
        used += f->layer->options[i].weights ? (size_t)f->layer->weights * sizeof(float) : 0;
    return used + (size_t)f->layer->weights * sizeof(float) <= f->room && f->layer->n < TERSE_TABLE_OPTIONS;
}

/* --- low rank --------------------------------------------------------------------------------------------------------
 */

/* Candidates that nothing beats in both work and loss, at most MAX_RANKS of them, evenly over their work. */
static int thin_out(terse_low_rank_choice *choice)
{
    int n = 1;
    for (int i = 1; i < choice->n; i++) {
        bool beaten = false;
        for (int j = 1; j < choice->n && !beaten; j++) {
            const terse_low_rank_candidate *a = &choice->list[i], *b = &choice->list[j];
            beaten =
                j != i && b->macs <= a->macs && b->lost <= a->lost && (b->macs < a->macs || b->lost < a->lost || j < i);
        }
        if (!beaten)
            choice->list[n++] = choice->list[i]; /* n <= i: what stands there is read no more, but compared */
    }
    for (int i = 2; i < n; i++)
        for (int j = i; j > 1 && choice->list[j].macs < choice->list[j - 1].macs; j--) {
            const terse_low_rank_candidate swap = choice->list[j];
            choice->list[j] = choice->list[j - 1];
            choice->list[j - 1] = swap;
        }
    const int found = n - 1, kept = found < MAX_RANKS ? found : MAX_RANKS;
    for (int i = 0; i < kept; i++)
        choice->list[1 + i] = choice->list[1 + i * found / (kept ? kept : 1)];
    return choice->n = kept + 1;
}

static void refuse_rank(terse_table_layer *layer, const terse_low_rank_candidate *c, double macs, double ratio)
{
    terse_table_refuse(layer, "%s rank %" PRId64 " saves %.0f %% of the MACs and is %.0f %% %s",
                       terse_low_rank_form_name(c->form), c->rank, 100.0 - 100.0 * (double)c->macs / macs,
                       fabs(100.0 * (ratio - 1)), ratio >= 1 ? "slower" : "faster, which is too little");
}

static int add_chain(fitting *f, const terse_low_rank_candidate *c, double us, terse_error *error)
{
    terse_chain chain;
    int status = terse_chain_make(&f->product, &f->metric, c->form, c->rank, c->rank_in, &chain, error);
    if (status != TERSE_OK)
        return status;
    TERSE_AUTO(terse_freep) double *m = malloc((size_t)(f->product.o * f->product.k) * sizeof *m);
    status = m ? terse_chain_dense(&f->product, &chain, m, error) : out_of_memory(error);
    terse_chain_done(&chain);
    terse_table_option *o = status == TERSE_OK ? terse_table_add(f->layer, TERSE_OPTION_LOW_RANK) : NULL;
    if (!o)
        return status;
    snprintf(o->choice.form, sizeof o->choice.form, "%s", terse_low_rank_form_name(c->form));
    o->choice.rank = c->rank;
    o->choice.rank_in = c->rank_in;
    o->us = us;
    o->bytes = f->layer->options[0].bytes * (double)c->macs / (double)f->layer->macs;
    o->weights = keep(f, m);
    return o->weights ? TERSE_OK : out_of_memory(error);
}

/* The candidates lie by their work: first some all over it, then those between. */
static int in_order(int index, int n)
{
    static const int order[MAX_RANKS] = {4, 2, 6, 8, 1, 3, 5, 7};
    for (int i = 0; i < MAX_RANKS; i++)
        if (order[i] < n && index-- == 0)
            return order[i];
    return 0;
}

static int add_chains(fitting *f, terse_error *error)
{
    terse_low_rank_choice choice;
    terse_low_rank_candidate least = {0};
    double dense_us = 0, best = INFINITY;
    bool any = false;
    int status = terse_ranks_list(&f->product, &f->metric, TERSE_FORM_BEST, &choice, error);
    if (status == TERSE_OK) {
        f->layer->macs = choice.list[0].macs;
        thin_out(&choice);
        status = terse_times_candidate(f->table->graph, f->product.node, &choice.list[0], f->options->bytes, &dense_us,
                                       error);
    }
    for (int i = 1; i < choice.n && status == TERSE_OK && dense_us > 0 && has_room(f); i++) {
        const terse_low_rank_candidate *c = &choice.list[in_order(i - 1, choice.n)];
        double us;
        if (i > COARSE && is_over(f))
            break;
        status = terse_times_candidate(f->table->graph, f->product.node, c, f->options->bytes, &us, error);
        if (status != TERSE_OK || !(us > 0))
            break;
        const double ratio = us / dense_us, base = f->layer->options[0].us;
        if (ratio < worth) {
            status = add_chain(f, c, (base > 0 ? base : dense_us) * ratio, error);
            any = true;
        } else if (ratio < best) {
            best = ratio;
            least = *c;
        }
    }
    if (status == TERSE_OK && isfinite(best))
        refuse_rank(f->layer, &least, (double)choice.list[0].macs, best);
    else if (status == TERSE_OK && !any)
        terse_table_refuse(f->layer, "low rank: %s",
                           choice.n > 1 ? "the layer alone could not be timed" : "no rank saves work");
    return status;
}

/* --- 4x1
 * -------------------------------------------------------------------------------------------------------------- */

/* The layer's weights without that share of their blocks; *ret_w is malloc'd. */
static int pruned(const fitting *f, double amount, double **ret_w, terse_error *error)
{
    const size_t count = (size_t)(f->product.o * f->product.k);
    TERSE_AUTO(terse_freep) double *w = malloc(count * sizeof *w + 1);
    terse_obs obs = {0};
    terse_error why = {0};
    if (!w)
        return out_of_memory(error);
    int status = f->metric.cov ? terse_obs_open(f->metric.target, f->product.o, f->product.k, f->metric.cov,
                                                TERSE_PRUNE_4X1, false, &obs, &why)
                               : TERSE_INTERNAL;
    double lost;
    if (status == TERSE_OK)
        status = terse_obs_prune(&obs, amount, w, &lost, &why);
    terse_obs_done(&obs);
    if (status == TERSE_RESOURCE_EXHAUSTED)
        return out_of_memory(error);
    if (status != TERSE_OK) {
        memcpy(w, f->metric.target, count * sizeof *w);
        terse_prune_matrix m = {.w = w, .n = f->product.o, .k = f->product.k};
        if (terse_prune_by_magnitude(&m, TERSE_PRUNE_4X1, amount) < 0)
            return out_of_memory(error);
    }
    *ret_w = TERSE_TAKE(w);
    return TERSE_OK;
}

/* Those that were found to be faster get their weights; without room they go. */
static int fill_sparse(fitting *f, terse_error *error)
{
    int status = TERSE_OK;
    for (int i = 0; i < f->layer->n && status == TERSE_OK; i++) {
        terse_table_option *o = &f->layer->options[i];
        if (o->kind != TERSE_OPTION_SPARSE || o->weights)
            continue;
        TERSE_AUTO(terse_freep) double *w = NULL;
        if (has_room(f))
            status = pruned(f, o->choice.prune, &w, error);
        if (status == TERSE_OK && w && !(o->weights = keep(f, w)))
            status = out_of_memory(error);
        if (!w && status == TERSE_OK)
            f->layer->options[i--] = f->layer->options[--f->layer->n];
    }
    return status;
}

/* --- clusters
 * --------------------------------------------------------------------------------------------------------- */

static int packed_bytes(const void *data, size_t bytes, size_t element, double *ret_bytes, terse_error *error)
{
    terse_encoding encoding;
    uint8_t *stored = NULL;
    size_t size = bytes;
    const int status = terse_encoding_pack(data, bytes, element, true, &encoding, &stored, &size, error);
    *ret_bytes = (double)(stored ? size : bytes);
    free(stored);
    return status;
}

/* The numbers of each weight in its book, as the file would hold them. */
static int clustered_bytes(const terse_assign *a, const terse_book *book, double *ret_bytes, terse_error *error)
{
    const size_t count = (size_t)(a->o * a->k);
    TERSE_AUTO(terse_freep) uint8_t *codes = malloc(count + 1);
    if (!codes)
        return out_of_memory(error);
    for (size_t i = 0; i < count; i++) {
        const double w = a->w[i];
        int best = 0;
        for (int low = 0, high = book->n - 1; low <= high;) {
            const int middle = (low + high) / 2;
            best = fabs(book->entries[middle] - w) < fabs(book->entries[best] - w) ? middle : best;
            if (book->entries[middle] < w)
                low = middle + 1;
            else
                high = middle - 1;
        }
        codes[i] = (uint8_t)best;
    }
    const int status = packed_bytes(codes, count, 1, ret_bytes, error);
    *ret_bytes += 4.0 * book->n;
    return status;
}

/* `from` (NULL: the layer's own) with at most 2^bits different weights. */
static int add_cluster(fitting *f, const double *from, double amount, int bits, terse_error *error)
{
    const size_t kk = (size_t)(f->product.k * f->product.k), count = (size_t)(f->product.o * f->product.k);
    if (!has_room(f) || count < (size_t)LEAST_PER_CODE << bits)
        return TERSE_OK;
    TERSE_AUTO(terse_freep) double *w = malloc(count * sizeof *w + 1);
    TERSE_AUTO(terse_freep) double *cov = f->metric.cov ? malloc(kk * sizeof *cov) : NULL;
    if (!w || (f->metric.cov && !cov))
        return out_of_memory(error);
    memcpy(w, from ? from : f->metric.target, count * sizeof *w);
    if (cov)
        memcpy(cov, f->metric.cov, kk * sizeof *cov);
    terse_assign a = {.o = f->product.o, .k = f->product.k, .w = w, .cov = cov, .bits = bits, .entropy = true};
    terse_book book;
    if (!terse_assign_run(&a, &book))
        return out_of_memory(error);
    terse_table_option *o = terse_table_add(f->layer, amount > 0 ? TERSE_OPTION_SPARSE_CLUSTER : TERSE_OPTION_CLUSTER);
    o->choice.cluster = bits;
    o->choice.prune = amount;
    o->us = f->layer->options[0].us;
    o->weights = keep(f, w);
    return o->weights ? clustered_bytes(&a, &book, &o->bytes, error) : out_of_memory(error);
}

/* Dense weights as the file holds them: integers of 8 bits per channel, or floats. */
static int dense_bytes(fitting *f, terse_error *error)
{
    const int64_t o = f->product.o, k = f->product.k;
    const size_t count = (size_t)(o * k);
    terse_table_option *dense = &f->layer->options[0];
    TERSE_AUTO(terse_freep) float *floats = malloc(count * sizeof *floats + 1);
    TERSE_AUTO(terse_freep) int8_t *integers = malloc(count + 1);
    if (!floats || !integers)
        return out_of_memory(error);
    for (int64_t i = 0; i < o; i++) {
        double most = 0;
        for (int64_t j = 0; j < k; j++)
            most = fmax(most, fabs(f->product.w[i * k + j]));
        for (int64_t j = 0; j < k; j++) {
            floats[i * k + j] = (float)f->product.w[i * k + j];
            integers[i * k + j] = (int8_t)(most > 0 ? lround(f->product.w[i * k + j] / most * 127) : 0);
        }
    }
    const bool bytes = f->options->bytes && dense->bytes < 2.0 * (double)count;
    int status = packed_bytes(bytes ? (const void *)integers : floats, count * (bytes ? 1 : sizeof(float)),
                              bytes ? 1 : sizeof(float), &dense->bytes, error);
    for (int i = 1; i < f->layer->n && status == TERSE_OK; i++)
        if (f->layer->options[i].kind == TERSE_OPTION_FLOAT)
            status = packed_bytes(floats, count * sizeof(float), sizeof(float), &f->layer->options[i].bytes, error);
    return status;
}

static int add_clusters(fitting *f, terse_error *error)
{
    static const double amounts[] = {0.3, 0.5, 0.7};
    int status = dense_bytes(f, error);
    for (int bits = f->options->bytes ? 7 : 8; bits >= 2 && status == TERSE_OK; bits--)
        if (!f->late || (bits >= 4 && bits <= 6))
            status = add_cluster(f, NULL, 0, bits, error);
    for (int i = 0; i < 3 && !is_over(f) && status == TERSE_OK && f->product.o >= 4 && f->product.k >= 16; i++) {
        TERSE_AUTO(terse_freep) double *w = NULL;
        status = pruned(f, amounts[i], &w, error);
        for (int bits = 6; bits >= 4 && status == TERSE_OK; bits--)
            status = add_cluster(f, w, amounts[i], bits, error);
    }
    return status;
}

/* --- the walk
 * ---------------------------------------------------------------------------------------------------------- */

static int fit_layer(const terse_walk *s, fitting *f, terse_error *error)
{
    const terse_edit edit = {.graph = (terse_graph *)(uintptr_t)f->table->graph};
    const terse_graph *graph = f->table->graph;
    terse_moments moments = {0};
    char reason[96];
    if (!terse_select_product(&edit, f->layer->node, &f->product, reason, sizeof reason)) {
        terse_table_refuse(f->layer, "%s", reason);
        return TERSE_OK;
    }
    int status = TERSE_OK;
    f->layer->macs = terse_select_macs(&f->product, TERSE_FORM_SVD, 0, 0, false);
    if (terse_graph_count_uses(graph, graph->nodes[f->layer->node].inputs[1]) > 1)
        terse_table_refuse(f->layer, "its weights are another layer's too");
    else if (f->layer->options[0].choice.keep_float)
        terse_table_refuse(f->layer, "stays FP32");
    else
        status = terse_walk_measure(f->late ? NULL : s, &f->product, false, &moments, &f->metric, error);
    if (status == TERSE_OK && f->metric.target)
        status = f->options->by_size ? add_clusters(f, error) : fill_sparse(f, error);
    if (status == TERSE_OK && f->metric.target && !f->options->by_size)
        status = add_chains(f, error);
    terse_metric_done(&f->metric);
    terse_moments_done(&moments);
    terse_select_done(&f->product);
    return status;
}

static void tell(const terse_table_options *o, int layer, int n, const char *name)
{
    char text[160];
    snprintf(text, sizeof text, "choices of layer %d of %d: %.90s", layer + 1, n, name);
    if (o->progress)
        o->progress(o->context, text);
}

/* What a layer's options take beside those of others, roughly: something each, and by its work. */
static double effort(const terse_table *t, int layer)
{
    const terse_value *y = &t->graph->values[t->graph->nodes[t->layers[layer].node].outputs[0]];
    double positions = 1;
    for (int i = 2; i < y->rank; i++)
        positions *= y->dims[i] > 0 ? (double)y->dims[i] : 1;
    return sqrt((double)t->layers[layer].weights * positions);
}

/* What stands without weights was not measured: it goes. */
static void drop_unfitted(terse_table_layer *layer)
{
    for (int i = layer->n - 1; i > 0; i--)
        if (layer->options[i].kind == TERSE_OPTION_SPARSE && !layer->options[i].weights)
            layer->options[i] = layer->options[--layer->n];
}

int terse_table_walk(terse_table *t, const terse_table_options *o, double *ret_seconds, terse_error *error)
{
    terse_walk s = {0};
    size_t bytes = 1;
    int status = terse_walk_bytes(&t->state->samples, &bytes, error);
    const int64_t room = (int64_t)(ROOM / bytes), samples = room > SAMPLES            ? SAMPLES
                                                            : room < TERSE_WALK_CHUNK ? TERSE_WALK_CHUNK
                                                                                      : room;
    if (status == TERSE_OK)
        status = terse_walk_open(&t->state->samples, samples, NULL, &s, error);
    int64_t weights = 1;
    double efforts = 0;
    for (int l = 0; l < t->n; l++) {
        weights += t->layers[l].weights;
        efforts += effort(t, l);
    }
    uint64_t walking = 0;
    const uint64_t start = terse_now_ns();
    for (int node = 0, next = 0; node < t->graph->n_nodes && status == TERSE_OK; node++) {
        if (next < t->n && t->layers[next].node == node) {
            terse_table_layer *layer = &t->layers[next];
            fitting f = {.table = t,
                         .options = o,
                         .layer = layer,
                         .room = (size_t)((double)WEIGHTS_ROOM * ((double)layer->weights / (double)weights))};
            /* a layer has its share of what is left: the first ones must not take the time of the last */
            const double gone = (double)(terse_now_ns() - start) / 1e9, mine = effort(t, next);
            f.late = o->seconds > 0 && gone > (o->by_size ? 1 : late_share) * o->seconds;
            f.deadline = terse_now_ns() + (uint64_t)(fmax(0, o->seconds - gone) * mine / efforts * 1e9);
            efforts -= mine;
            tell(o, next++, t->n, layer->name);
            if (f.late && !o->by_size)
                terse_table_refuse(layer, "there was no time to look at it");
            else if (!o->stopped || !o->stopped(o->context))
                status = fit_layer(&s, &f, error);
            drop_unfitted(layer);
        }
        const uint64_t from = terse_now_ns();
        if (status == TERSE_OK)
            status = terse_walk_step(&s, node, error);
        walking += terse_now_ns() - from;
    }
    double walked = 0;
    for (int i = 0; i < s.n && status == TERSE_OK; i++)
        walked += (double)terse_replay_chunk_samples(s.replay, i);
    *ret_seconds = walked > 0 ? (double)walking / 1e9 / walked : 0;
    terse_walk_done(&s);
    return status;
}
