/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "compress/low_rank/steps.h"

enum { STEPS = 15, LARGE_K = 1500, LARGE_STEPS = 6 };

/* Ranks that kernels like: multiples of 16 where there are many, else of 4 or 2. */
static int64_t grain(int64_t full)
{
    return full >= 128 ? 16 : full >= 32 ? 4 : full >= 8 ? 2 : 1;
}

static int64_t rounded(double rank, int64_t full)
{
    const int64_t step = grain(full), r = (int64_t)lround(rank / (double)step) * step;
    return r < 1 ? (step < full ? step : full) : r > full ? full : r;
}

/* Adds a candidate if it saves work and is not there already. */
static int add(const terse_low_rank_product *p, const terse_metric *m, terse_low_rank_form form, int64_t rank,
               int64_t rank_in, terse_low_rank_choice *choice, terse_error *error)
{
    const int64_t macs = terse_select_macs(p, form, rank, rank_in, false);
    if (macs >= choice->list[0].macs || choice->n == TERSE_LOW_RANK_CANDIDATES)
        return TERSE_OK;
    for (int i = 1; i < choice->n; i++)
        if (choice->list[i].form == form && choice->list[i].rank == rank && choice->list[i].rank_in == rank_in)
            return TERSE_OK;
    terse_chain chain;
    const int status = terse_chain_make(p, m, form, rank, rank_in, &chain, error);
    if (status != TERSE_OK)
        return status;
    choice->list[choice->n++] = (terse_low_rank_candidate){.form = form,
                                                           .rank = rank,
                                                           .rank_in = rank_in,
                                                           .macs = macs,
                                                           .work = (double)macs,
                                                           .lost = fmax(0, 1 - chain.kept),
                                                           .cost = fmax(0, 1 - chain.kept)};
    terse_chain_done(&chain);
    return TERSE_OK;
}

int terse_ranks_list(const terse_low_rank_product *p, const terse_metric *m, terse_low_rank_form wanted,
                     terse_low_rank_choice *choice, terse_error *error)
{
    choice->n = 1;
    choice->chosen = 0;
    choice->list[0] =
        (terse_low_rank_candidate){.macs = terse_select_macs(p, TERSE_FORM_SVD, 0, 0, false), .form = TERSE_FORM_SVD};
    choice->list[0].work = (double)choice->list[0].macs;
    int status = TERSE_OK;
    for (terse_low_rank_form form = TERSE_FORM_SVD; form <= TERSE_FORM_SPATIAL && status == TERSE_OK; form++) {
        if (!terse_select_allows(p, form) || (wanted != TERSE_FORM_BEST && wanted != form && p->taps > 1))
            continue;
        const int64_t rows = form == TERSE_FORM_SPATIAL ? p->c * p->kernel[0] : p->k;
        const int64_t columns = form == TERSE_FORM_SPATIAL ? p->o * p->kernel[1] : p->o;
        const int64_t full = form == TERSE_FORM_TUCKER ? p->o : rows < columns ? rows : columns;
        const int steps = p->k > LARGE_K && form != TERSE_FORM_SVD && form != TERSE_FORM_CHANNEL ? LARGE_STEPS : STEPS;
        for (int i = 1; i <= steps && status == TERSE_OK; i++) {
            const double share = (double)i / (double)(steps + 1);
            const double work = form == TERSE_FORM_TUCKER ? sqrt(share) : share;
            /* as many multiply-accumulates per pixel as that share of the dense layer's, or of the ranks for Tucker */
            const double limit = (double)p->k * (double)p->o / (double)(rows + columns);
            const double of = form == TERSE_FORM_TUCKER ? (double)full : limit;
            const int64_t in = form == TERSE_FORM_TUCKER ? rounded(work * (double)p->c, p->c) : 0;
            status = add(p, m, form, rounded(work * of, full), in, choice, error);
        }
    }
    return status;
}

void terse_ranks_weigh(terse_low_rank_choice *choice, const int *measured, const double *costs, int n)
{
    for (int i = 1; i < choice->n && n > 0; i++) {
        double from = 0, from_cost = 0, to = choice->list[measured[0]].lost, to_cost = costs[0];
        for (int m = 1; m < n && choice->list[i].lost > to; m++) {
            from = to;
            from_cost = to_cost;
            to = choice->list[measured[m]].lost;
            to_cost = fmax(costs[m], from_cost);
        }
        const double slope = to > from ? (to_cost - from_cost) / (to - from) : 0;
        choice->list[i].cost = from_cost + slope * (choice->list[i].lost - from);
    }
}

/* With `price` a multiply-accumulate, each layer takes what is cheapest; returns the work in sum. */
static double take(terse_low_rank_choice *choices, int n, double price)
{
    double work = 0;
    for (int l = 0; l < n; l++) {
        terse_low_rank_choice *c = &choices[l];
        double best = INFINITY;
        for (int i = 0; i < c->n; i++) {
            const double cost = c->list[i].cost + price * c->list[i].work;
            if (cost < best) {
                best = cost;
                c->chosen = i;
            }
        }
        work += c->list[c->chosen].work;
    }
    return work;
}

/* The single change that costs least for the work that it frees, while too much is left; then what can be given back.
 */
static void refine(terse_low_rank_choice *choices, int n, double work, double limit)
{
    for (;;) {
        int layer = -1, to = 0;
        double best = 0;
        for (int l = 0; l < n; l++) {
            const terse_low_rank_choice *c = &choices[l];
            const terse_low_rank_candidate *now = &c->list[c->chosen];
            for (int i = 0; i < c->n; i++) {
                const double more = c->list[i].work - now->work;
                const double gain = now->cost - c->list[i].cost;
                if (gain > 0 && more <= limit - work && gain > best) {
                    best = gain;
                    layer = l;
                    to = i;
                }
            }
        }
        if (layer < 0)
            return;
        terse_low_rank_choice *c = &choices[layer];
        work += c->list[to].work - c->list[c->chosen].work;
        c->chosen = to;
    }
}

void terse_ranks_choose(terse_low_rank_choice *choices, int n, double limit)
{
    double low = 0, high = 1e-12;
    double work = take(choices, n, 0);
    if (work <= limit)
        return;
    while (take(choices, n, high) > limit && high < 1e6)
        high *= 4;
    for (int i = 0; i < 100; i++) {
        const double price = 0.5 * (low + high);
        if (take(choices, n, price) > limit)
            low = price;
        else
            high = price;
    }
    work = take(choices, n, high);
    refine(choices, n, work, limit);
}

static double cost_of(const terse_low_rank_choice *choices, int n)
{
    double cost = 0;
    for (int l = 0; l < n; l++)
        cost += choices[l].list[choices[l].chosen].cost;
    return cost;
}

void terse_ranks_choose_cost(terse_low_rank_choice *choices, int n, double cost)
{
    double low = 0, high = 1e6; /* the price of a multiply-accumulate: nothing, and more than any loss */
    for (int i = 0; i < 200; i++) {
        const double price = i < 100 && low == 0 ? high * 0.5 : 0.5 * (low + high);
        take(choices, n, price);
        if (cost_of(choices, n) > cost)
            high = price;
        else
            low = price;
    }
    take(choices, n, low);
}

/* --- EVBMF
 * ------------------------------------------------------------------------------------------------------------- */

static double tau(double x, double alpha)
{
    const double t = x - (1 + alpha);
    return t * t > 4 * alpha ? 0.5 * (t + sqrt(t * t - 4 * alpha)) : sqrt(alpha);
}

/* The free energy as a function of the noise's variance (their equation 24), up to a factor and constants. */
static double free_energy(const double *s, int64_t n, int64_t larger, double variance, double x_bar)
{
    const double alpha = (double)n / (double)larger;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = s[i] * s[i] / ((double)larger * variance);
        if (x <= 0)
            continue;
        if (x > x_bar) {
            const double t = tau(x, alpha);
            sum += x - t + log((t + 1) / x) + alpha * log(t / alpha + 1);
        } else {
            sum += x - log(x);
        }
    }
    return sum;
}

int64_t terse_ranks_evbmf(const double *s, int64_t n, int64_t larger)
{
    const double alpha = (double)n / (double)larger, tau_bar = 2.5129 * sqrt(alpha);
    const double x_bar = (1 + tau_bar) * (1 + alpha / tau_bar);
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += s[i] * s[i];
    if (!(total > 0))
        return 1;
    /* between the noise that all of it is and the one that the smallest values leave, by golden sections on a grid */
    const double upper = total / ((double)n * (double)larger);
    const int64_t beyond = (int64_t)fmin(ceil((double)n / (1 + alpha)) - 1, (double)n - 1);
    double tail = 0;
    for (int64_t i = beyond; i < n; i++)
        tail += s[i] * s[i];
    double lower =
        fmax(s[beyond] * s[beyond] / ((double)larger * x_bar), tail / ((double)(n - beyond) * (double)larger));
    lower = fmin(fmax(lower, upper * 1e-12), upper);
    double best = INFINITY, variance = upper;
    for (int i = 0; i <= 400; i++) {
        const double v = lower * pow(upper / lower, i / 400.0);
        const double energy = free_energy(s, n, larger, v, x_bar);
        if (energy < best) {
            best = energy;
            variance = v;
        }
    }
    int64_t rank = 0;
    while (rank < n && s[rank] * s[rank] > (double)larger * variance * x_bar)
        rank++;
    return rank < 1 ? 1 : rank;
}
