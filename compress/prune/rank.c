/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>
#include <lapacke.h>

#include "common/bytes.h"

#define DAMPING 0.01   /* of the mean diagonal */
enum { BATCHES = 64 }; /* that units go in; costs are new for each */

/* A reader on the way down. */
typedef struct state {
    const terse_rank_reader *reader;
    double *inverse, *w; /* [k][k], [o][k]; NULL without moments */
    double total, lost;
    int32_t most; /* columns of a unit, at most */
} state;

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the order of channels");
}

static void state_done(state *s)
{
    free(s->inverse);
    free(s->w);
}

static double unit_norm(const terse_rank_reader *r, int unit)
{
    double sum = 0;
    for (int32_t i = r->first[unit]; i < r->first[unit + 1]; i++)
        for (int64_t o = 0; o < r->o; o++)
            sum += r->w[o * r->k + r->columns[i]] * r->w[o * r->k + r->columns[i]];
    return sum * (r->power ? r->power[unit] : 1);
}

static int open_plain(state *s, int n_units)
{
    for (int u = 0; u < n_units; u++)
        s->total += unit_norm(s->reader, u);
    return TERSE_OK;
}

static int open_state(state *s, int n_units, terse_error *error)
{
    const terse_rank_reader *r = s->reader;
    const int o = (int)r->o, k = (int)r->k;
    const size_t kk = (size_t)k * (size_t)k, ok = (size_t)o * (size_t)k;
    for (int u = 0; u < n_units; u++)
        s->most = r->first[u + 1] - r->first[u] > s->most ? r->first[u + 1] - r->first[u] : s->most;
    if (!r->moments)
        return open_plain(s, n_units);
    s->inverse = malloc(kk * sizeof *s->inverse + 1);
    s->w = malloc(ok * sizeof *s->w + 1);
    TERSE_AUTO(terse_freep) double *product = malloc(ok * sizeof *product + 1);
    if (!s->inverse || !s->w || !product)
        return out_of_memory(error);
    memcpy(s->w, r->w, ok * sizeof *s->w);
    double mean = 0;
    for (size_t i = 0; i < kk; i++)
        s->inverse[i] = (double)r->moments[i];
    for (size_t i = 0; i < (size_t)k; i++)
        mean += s->inverse[i * (size_t)k + i] / k;
    for (size_t i = 0; i < (size_t)k; i++)
        s->inverse[i * (size_t)k + i] += DAMPING * mean + 1e-30;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, o, k, k, 1.0, s->w, k, s->inverse, k, 0.0, product, k);
    s->total = cblas_ddot((int)ok, s->w, 1, product, 1);
    if (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', k, s->inverse, k) != 0 ||
        LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'U', k, s->inverse, k) != 0) {
        /* samples that say nothing here: by size, then */
        free(s->inverse);
        s->inverse = NULL;
        s->total = 0;
        return open_plain(s, n_units);
    }
    for (size_t i = 0; i < (size_t)k; i++)
        for (size_t j = 0; j < i; j++)
            s->inverse[i * (size_t)k + j] = s->inverse[j * (size_t)k + i];
    return TERSE_OK;
}

/* root: [n][n], the lower Cholesky factor of [H^-1]_cc; block: [n][o], root^-1 W_c^T. Returns what the columns cost, -1
 * when there is no factor. */
static double open_block(const state *s, const int32_t *columns, int n, double *root, double *block)
{
    const int k = (int)s->reader->k, o = (int)s->reader->o;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j <= i; j++)
            root[i * n + j] = s->inverse[(size_t)columns[i] * (size_t)k + (size_t)columns[j]];
        for (int j = 0; j < o; j++)
            block[i * o + j] = s->w[(size_t)j * (size_t)k + (size_t)columns[i]];
    }
    if (n == 1) {
        const double d = root[0] > 0 ? sqrt(root[0]) : 0;
        root[0] = d;
        cblas_dscal(o, d > 0 ? 1 / d : 0, block, 1);
    } else {
        if (LAPACKE_dpotrf_work(LAPACK_ROW_MAJOR, 'L', n, root, n) != 0)
            return -1;
        cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, n, o, 1.0, root, n, block, o);
    }
    return cblas_ddot(n * o, block, 1, block, 1);
}

/* Columns c go: with L the root and G = L^-1 [H^-1]_c:, W -= (L^-1 W_c^T)^T G and H^-1 -= G^T G. */
static bool take_out(state *s, const int32_t *columns, int n)
{
    const int k = (int)s->reader->k, o = (int)s->reader->o;
    TERSE_AUTO(terse_freep) double *root = malloc((size_t)n * (size_t)n * sizeof *root + 1);
    TERSE_AUTO(terse_freep) double *block = malloc((size_t)n * (size_t)o * sizeof *block + 1);
    TERSE_AUTO(terse_freep) double *rows = malloc((size_t)n * (size_t)k * sizeof *rows + 1);
    if (!root || !block || !rows || n == 0)
        return n == 0;
    const double cost = open_block(s, columns, n, root, block);
    if (cost < 0 || root[0] == 0.0)
        return true; /* nothing but rounding is left of it */
    for (int i = 0; i < n; i++)
        memcpy(rows + (size_t)i * (size_t)k, s->inverse + (size_t)columns[i] * (size_t)k, (size_t)k * sizeof *rows);
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, n, k, 1.0, root, n, rows, k);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, o, k, n, -1.0, block, o, rows, k, 1.0, s->w, k);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, k, k, n, -1.0, rows, k, rows, k, 1.0, s->inverse, k);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < o; j++)
            s->w[(size_t)j * (size_t)k + (size_t)columns[i]] = 0.0;
    s->lost += s->total > 0 ? cost / s->total : 0;
    return true;
}

typedef struct scored {
    double cost;
    int32_t unit;
} scored;

static int by_cost(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->cost != y->cost ? (x->cost > y->cost) - (x->cost < y->cost) : (x->unit > y->unit) - (x->unit < y->unit);
}

/* Room that all steps share. */
typedef struct rank_desk {
    double *root, *block;
    scored *list;
    int32_t *columns;
} rank_desk;

static void score(const state *states, int n_readers, const rank_desk *desk, int left)
{
    for (int i = 0; i < left; i++) {
        scored *s = &desk->list[i];
        s->cost = 0;
        for (int r = 0; r < n_readers; r++) {
            const terse_rank_reader *reader = states[r].reader;
            const int32_t *columns = reader->columns + reader->first[s->unit];
            const int n = reader->first[s->unit + 1] - reader->first[s->unit];
            const double cost = n == 0              ? 0
                                : states[r].inverse ? open_block(&states[r], columns, n, desk->root, desk->block)
                                                    : unit_norm(reader, s->unit);
            if (states[r].total > 0 && cost > 0)
                s->cost += reader->weight * cost / states[r].total;
        }
    }
    qsort(desk->list, (size_t)left, sizeof *desk->list, by_cost);
}

/* The first `n` units of the list go, as one block. */
static bool remove_units(state *s, const rank_desk *desk, int n)
{
    const terse_rank_reader *r = s->reader;
    int32_t count = 0;
    for (int i = 0; i < n; i++) {
        const int unit = desk->list[i].unit;
        if (!s->inverse && s->total > 0)
            s->lost += unit_norm(r, unit) / s->total;
        for (int32_t c = r->first[unit]; c < r->first[unit + 1] && s->inverse; c++)
            desk->columns[count++] = r->columns[c];
    }
    return !s->inverse || take_out(s, desk->columns, count);
}

static void take_probe(const state *s)
{
    const terse_rank_reader *r = s->reader;
    for (int64_t i = 0; r->probe && i < r->o * r->k; i++)
        r->probe[i] = (float)(s->w ? s->w[i] : r->w[i]);
}

static int go_down(state *states, int n_readers, int n_units, int probe_at, const rank_desk *desk, int32_t *order,
                   int *ret_probed, terse_error *error)
{
    const int batch = n_units / BATCHES > 1 ? n_units / BATCHES : 1;
    int gone = 0;
    *ret_probed = 0;
    while (gone < n_units) {
        const int n = n_units - gone < batch ? n_units - gone : batch;
        score(states, n_readers, desk, n_units - gone);
        for (int r = 0; r < n_readers; r++) {
            const double before = states[r].lost;
            if (!remove_units(&states[r], desk, n))
                return out_of_memory(error);
            for (int i = 0; i < n; i++)
                states[r].reader->lost[gone + i] = before + (states[r].lost - before) * (i + 1) / n;
        }
        for (int i = 0; i < n; i++)
            order[gone + i] = desk->list[i].unit;
        gone += n;
        if (*ret_probed == 0 && gone >= probe_at) {
            *ret_probed = gone;
            for (int r = 0; r < n_readers; r++)
                take_probe(&states[r]);
        }
        memmove(desk->list, desk->list + n, (size_t)(n_units - gone) * sizeof *desk->list);
    }
    return TERSE_OK;
}

int terse_rank_units(const terse_rank_reader *readers, int n_readers, int n_units, int probe_at, int32_t *order,
                     int *ret_probed, terse_error *error)
{
    TERSE_AUTO(terse_freep) state *states = calloc((size_t)n_readers + 1, sizeof *states);
    size_t most = 1, outputs = 1, columns = 1;
    int status = states ? TERSE_OK : out_of_memory(error);
    openblas_set_num_threads(1); /* the same bits whatever the machine */
    for (int r = 0; r < n_readers && status == TERSE_OK; r++) {
        states[r].reader = &readers[r];
        status = open_state(&states[r], n_units, error);
        most = (size_t)states[r].most > most ? (size_t)states[r].most : most;
        outputs = (size_t)readers[r].o > outputs ? (size_t)readers[r].o : outputs;
        columns = (size_t)readers[r].first[n_units] > columns ? (size_t)readers[r].first[n_units] : columns;
    }
    rank_desk desk = {.root = malloc(most * most * sizeof(double)),
                      .block = malloc(most * outputs * sizeof(double)),
                      .list = malloc(((size_t)n_units + 1) * sizeof(scored)),
                      .columns = malloc(columns * sizeof(int32_t))};
    if (status == TERSE_OK && (!desk.root || !desk.block || !desk.list || !desk.columns))
        status = out_of_memory(error);
    for (int u = 0; u < n_units && status == TERSE_OK; u++)
        desk.list[u] = (scored){0, u};
    if (status == TERSE_OK)
        status = go_down(states, n_readers, n_units, probe_at, &desk, order, ret_probed, error);
    free(desk.root);
    free(desk.block);
    free(desk.list);
    free(desk.columns);
    for (int r = 0; states && r < n_readers; r++)
        state_done(&states[r]);
    return status;
}
