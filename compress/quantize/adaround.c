/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/quantize/adaround.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "common/bytes.h"
#include "compress/quantize/gptq.h"

enum { BLOCK = 64, STEPS = 300, LEAST_STEPS = 40, PASSES = 12 };
static const double work = 6e10; /* multiply-accumulates that a layer may take */
static const float stretch = 1.2f, below = -0.1f, rate = 0.05f, warm_up = 0.2f, beta_high = 20, beta_low = 2;

const char *terse_rounding_name(terse_rounding rounding)
{
    static const char *const names[TERSE_ROUNDINGS] = {"", "nearest", "gptq", "adaround", "auto"};
    return names[rounding];
}

static int64_t groups_of(const terse_round_rows *r)
{
    return (r->k + r->group - 1) / r->group;
}

static float scale_at(const terse_round_rows *r, int64_t row, int64_t i)
{
    return r->scales[row * groups_of(r) + i / r->group];
}

static float cut(const terse_round_rows *r, float q)
{
    return q < (float)r->low ? (float)r->low : q > (float)r->high ? (float)r->high : q;
}

/* Weights that are zero were pruned, and stay. */
static bool is_fixed(const terse_round_rows *r, int64_t row, int64_t i)
{
    return r->w[row * r->k + i] == 0 || scale_at(r, row, i) == 0;
}

void terse_round_nearest(const terse_round_rows *r)
{
    for (int64_t o = 0; o < r->o; o++)
        for (int64_t i = 0; i < r->k; i++) {
            const int64_t at = o * r->k + i;
            r->q[at] = is_fixed(r, o, i) ? 0 : (int8_t)cut(r, rintf(r->w[at] / scale_at(r, o, i)));
        }
}

/* d = q s - w of a row, g = H d; returns d^T g. */
static double row_error(const terse_round_rows *r, int64_t row, const int8_t *q, const double *h, double *d, double *g)
{
    for (int64_t i = 0; i < r->k; i++)
        d[i] = (double)q[i] * (double)scale_at(r, row, i) - (double)r->w[row * r->k + i];
    cblas_dsymv(CblasRowMajor, CblasUpper, (int)r->k, 1.0, h, (int)r->k, d, 1, 0.0, g, 1);
    return cblas_ddot((int)r->k, d, 1, g, 1);
}

double terse_round_error(const terse_round_rows *r, const double *moments)
{
    TERSE_AUTO(terse_freep) double *room = malloc(2 * (size_t)r->k * sizeof *room + 1);
    double sum = 0;
    openblas_set_num_threads(1); /* the same bits whatever the machine */
    for (int64_t o = 0; room && o < r->o; o++)
        sum += row_error(r, o, r->q + o * r->k, moments, room, room + r->k);
    return room ? sum : -1;
}

/* --- GPTQ -------------------------------------------------------------------------------------------------------- */

bool terse_round_gptq(const terse_round_rows *r, const double *moments)
{
    const size_t k = (size_t)r->k;
    TERSE_AUTO(terse_freep) double *u = malloc(k * k * sizeof *u + 1);
    TERSE_AUTO(terse_freep) double *row = malloc(k * sizeof *row + 1);
    if (!u || !row)
        return false;
    memcpy(u, moments, k * k * sizeof *u);
    if (!terse_gptq_factor(u, r->k))
        return false;
    for (int64_t o = 0; o < r->o; o++) {
        for (int64_t i = 0; i < r->k; i++)
            row[i] = (double)r->w[o * r->k + i];
        for (int64_t i = 0; i < r->k; i++) {
            const double s = (double)scale_at(r, o, i);
            const float q = is_fixed(r, o, i) ? 0 : cut(r, (float)nearbyint(row[i] / s));
            const double lost = (row[i] - (double)q * s) / u[i * r->k + i];
            r->q[o * r->k + i] = (int8_t)q;
            for (int64_t later = i + 1; later < r->k; later++)
                row[later] -= lost * u[i * r->k + later];
        }
    }
    return true;
}

/* --- one integer after the other --------------------------------------------------------------------------------- */

/* Moves integers of a row where that makes d^T H d less: by t, the error changes by 2 t s g_i + t^2 s^2 H_ii. */
static void polish_row(const terse_round_rows *r, int64_t row, int8_t *q, const double *h, double *d, double *g)
{
    const int64_t k = r->k;
    row_error(r, row, q, h, d, g);
    bool moved = true;
    for (int pass = 0; pass < PASSES && moved; pass++) {
        moved = false;
        for (int64_t i = 0; i < k; i++) {
            const double s = (double)scale_at(r, row, i), own = h[i * k + i];
            if (is_fixed(r, row, i) || !(own > 0))
                continue;
            const float to = cut(r, (float)q[i] - (float)nearbyint(fmin(fmax(g[i] / (s * own), -1000), 1000)));
            const double t = (double)to - (double)q[i], by = t * s;
            if (t == 0 || !(2 * by * g[i] + by * by * own < 0))
                continue;
            q[i] = (int8_t)to;
            cblas_daxpy((int)k, by, h + i * k, 1, g, 1);
            moved = true;
        }
    }
}

/* --- AdaRound ---------------------------------------------------------------------------------------------------- */

/* Rows at a time. */
typedef struct soft {
    const terse_round_rows *r;
    int64_t first, rows;
    const float *h;                         /* [k][k] */
    float *v, *m1, *m2, *d, *gradient, *up; /* [rows][k] each; up: h(V) */
    double nearest;                         /* error of the rows as they came */
} soft;

static float floor_at(const soft *s, int64_t row, int64_t i)
{
    const terse_round_rows *r = s->r;
    return floorf(r->w[row * r->k + i] / scale_at(r, row, i));
}

/* V so that h(V) is what floor leaves: the weights themselves. */
static void begin(soft *s)
{
    const terse_round_rows *r = s->r;
    for (int64_t o = 0; o < s->rows; o++)
        for (int64_t i = 0; i < r->k; i++) {
            const int64_t row = s->first + o;
            const float rest =
                is_fixed(r, row, i) ? 0.5f : r->w[row * r->k + i] / scale_at(r, row, i) - floor_at(s, row, i);
            s->v[o * r->k + i] = -logf(stretch / (rest - below) - 1);
        }
    memset(s->m1, 0, (size_t)(s->rows * r->k) * sizeof *s->m1);
    memset(s->m2, 0, (size_t)(s->rows * r->k) * sizeof *s->m2);
}

static void forward(soft *s)
{
    const terse_round_rows *r = s->r;
    for (int64_t o = 0; o < s->rows; o++)
        for (int64_t i = 0; i < r->k; i++) {
            const int64_t row = s->first + o, at = o * r->k + i;
            const float x = stretch / (1 + expf(-s->v[at])) + below;
            s->up[at] = x < 0 ? 0 : x > 1 ? 1 : x;
            s->d[at] = is_fixed(r, row, i)
                           ? -r->w[row * r->k + i]
                           : cut(r, floor_at(s, row, i) + s->up[at]) * scale_at(r, row, i) - r->w[row * r->k + i];
        }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)s->rows, (int)r->k, (int)r->k, 1, s->d, (int)r->k, s->h,
                (int)r->k, 0, s->gradient, (int)r->k);
}

/* Adam on V: the error as a share of that of the nearest, and the regularizer as a mean. */
static void step(soft *s, int number, float regular, float beta)
{
    const terse_round_rows *r = s->r;
    const float share = (float)((double)(s->rows * r->k) / s->nearest);
    const float c1 = 1 - powf(0.9f, (float)number), c2 = 1 - powf(0.999f, (float)number);
    for (int64_t o = 0; o < s->rows; o++)
        for (int64_t i = 0; i < r->k; i++) {
            const int64_t at = o * r->k + i, row = s->first + o;
            const float up = s->up[at], p = 1 / (1 + expf(-s->v[at]));
            if (is_fixed(r, row, i) || up <= 0 || up >= 1)
                continue;
            const float side = 2 * up - 1;
            const float slope = 2 * s->gradient[at] * scale_at(r, row, i) * share -
                                regular * 2 * beta * copysignf(powf(fabsf(side), beta - 1), side);
            const float g = slope * stretch * p * (1 - p);
            s->m1[at] = 0.9f * s->m1[at] + 0.1f * g;
            s->m2[at] = 0.999f * s->m2[at] + 0.001f * g * g;
            s->v[at] -= rate * (s->m1[at] / c1) / (sqrtf(s->m2[at] / c2) + 1e-8f);
        }
}

static void decide(const soft *s)
{
    const terse_round_rows *r = s->r;
    for (int64_t o = 0; o < s->rows; o++)
        for (int64_t i = 0; i < r->k; i++) {
            const int64_t row = s->first + o;
            r->q[row * r->k + i] =
                is_fixed(r, row, i) ? 0 : (int8_t)cut(r, floor_at(s, row, i) + (s->up[o * r->k + i] >= 0.5f ? 1 : 0));
        }
}

static void learn(soft *s, int steps)
{
    begin(s);
    for (int n = 1; n <= steps; n++) {
        const float share = ((float)n / (float)steps - warm_up) / (1 - warm_up);
        const float beta = beta_low + 0.5f * (beta_high - beta_low) * (1 + cosf(3.14159265f * (share > 0 ? share : 0)));
        forward(s);
        step(s, n, share > 0 ? 1 : 0, beta);
    }
    forward(s);
    decide(s);
}

/* The better of the two for each row, both polished. came: [rows][k]; room: 2 k doubles. */
static void take_better(const soft *s, int8_t *came, const double *h, double *room)
{
    const terse_round_rows *r = s->r;
    for (int64_t o = 0; o < s->rows; o++) {
        const int64_t row = s->first + o;
        int8_t *q = r->q + row * r->k, *old = came + o * r->k;
        polish_row(r, row, q, h, room, room + r->k);
        polish_row(r, row, old, h, room, room + r->k);
        if (row_error(r, row, old, h, room, room + r->k) <= row_error(r, row, q, h, room, room + r->k))
            memcpy(q, old, (size_t)r->k);
    }
}

bool terse_round_adaround(const terse_round_rows *r, const double *moments)
{
    const size_t k = (size_t)r->k, rows = (size_t)(r->o < BLOCK ? r->o : BLOCK), count = rows * k;
    TERSE_AUTO(terse_freep) float *h = malloc(k * k * sizeof *h + 1);
    TERSE_AUTO(terse_freep) float *arrays = malloc(6 * count * sizeof *arrays + 1);
    TERSE_AUTO(terse_freep) int8_t *came = malloc(count + 1);
    TERSE_AUTO(terse_freep) double *room = malloc(2 * k * sizeof *room + 1);
    if (!h || !arrays || !came || !room)
        return false;
    openblas_set_num_threads(1);
    for (size_t i = 0; i < k * k; i++)
        h[i] = (float)moments[i];
    const double affordable = work / ((double)r->o * (double)k * (double)k + 1);
    const int steps = affordable < LEAST_STEPS ? 0 : affordable > STEPS ? STEPS : (int)affordable;
    soft s = {.r = r, .h = h};
    float **const parts[] = {&s.v, &s.m1, &s.m2, &s.d, &s.gradient, &s.up};
    for (size_t i = 0; i < 6; i++)
        *parts[i] = arrays + i * count;
    for (s.first = 0; s.first < r->o; s.first += BLOCK) {
        s.rows = r->o - s.first < BLOCK ? r->o - s.first : BLOCK;
        memcpy(came, r->q + s.first * r->k, (size_t)(s.rows * r->k));
        s.nearest = 0;
        for (int64_t o = 0; o < s.rows; o++)
            s.nearest += row_error(r, s.first + o, r->q + (s.first + o) * r->k, moments, room, room + k);
        if (steps > 0 && s.nearest > 0)
            learn(&s, steps);
        take_better(&s, came, moments, room);
    }
    return true;
}
