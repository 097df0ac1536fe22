/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "client/cli/bench/bench.h"
#include "client/cli/bench/spent.h"

static int open_side(const terse_bench *b, terse_bench_side *side, terse_error *error)
{
    const terse_load_options options = {.endpoint = side->endpoint,
                                        .model = side->model,
                                        .input = b->input,
                                        .dims = &b->dims,
                                        .connections = b->connections,
                                        .connect_ms = b->connect_ms,
                                        .spin_us = b->spin_us,
                                        .retries = b->retries,
                                        .max_refusals = b->max_refusals,
                                        .rows = b->rows,
                                        .seed = b->seed,
                                        .timeout_ms = b->timeout_ms,
                                        .concurrency = b->open ? 0 : b->concurrency,
                                        .shm = b->shm,
                                        .verify = b->verify};
    side->rounds = calloc(b->repeat, sizeof *side->rounds);
    if (!side->rounds)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu rounds", (size_t)b->repeat);
    return terse_load_open(&options, &side->load, error);
}

static void count_spent(const terse_bench *b, terse_bench_side *side, const terse_spent *before)
{
    terse_spent after;
    double cpu = 0, joules = 0;
    terse_spent_look(terse_load_client(side->load), side->endpoint, (int)b->connect_ms, &after);
    side->has_cpu = side->has_cpu && terse_spent_seconds(before, &after, &cpu);
    side->has_joules = side->has_joules && terse_spent_joules(before, &after, &joules);
    side->cpu_seconds += cpu;
    side->joules += joules;
}

static int measure_side(const terse_bench *b, terse_bench_side *side, size_t round, terse_error *error)
{
    const terse_load_plan plan = {.rate = b->rate,
                                  .traffic = b->open ? &b->traffic : NULL,
                                  .concurrency = b->concurrency,
                                  .seed = b->seed + round,
                                  .requests = b->requests,
                                  .warmup = b->warmup,
                                  .seconds = b->seconds};
    terse_load_result one = {0};
    terse_spent before;
    terse_spent_look(terse_load_client(side->load), side->endpoint, (int)b->connect_ms, &before);
    if (round == 0)
        side->has_cpu = side->has_joules = true;
    int status = terse_load_run(side->load, &plan, &one, error);
    if (!status) {
        count_spent(b, side, &before);
        terse_latencies_sort(&one.answered);
        side->rounds[round] = (terse_bench_round){terse_load_rate(&one), terse_latencies_us(&one.answered, 0.5),
                                                  terse_latencies_us(&one.answered, 0.99)};
        if (!terse_load_join(&side->all, &one))
            status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for latencies");
    }
    terse_load_done(&one);
    return status;
}

static terse_mean mean_over(const terse_bench_side *side, size_t n, double of(const terse_bench_round *))
{
    double *values = calloc(n, sizeof *values);
    for (size_t i = 0; values && i < n; i++)
        values[i] = of(&side->rounds[i]);
    const terse_mean mean = values ? terse_mean_of(values, n) : (terse_mean){NAN, NAN, NAN};
    free(values);
    return mean;
}

static double rate_of(const terse_bench_round *round)
{
    return round->rate;
}

static double p50_of(const terse_bench_round *round)
{
    return round->p50_us;
}

static double p99_of(const terse_bench_round *round)
{
    return round->p99_us;
}

static terse_mean ratio_over(const terse_bench *b, double of(const terse_bench_round *))
{
    double *ratios = calloc(b->n_rounds, sizeof *ratios);
    for (size_t i = 0; ratios && i < b->n_rounds; i++)
        ratios[i] = of(&b->sides[0].rounds[i]) / of(&b->sides[1].rounds[i]);
    const terse_mean mean = ratios ? terse_mean_of_ratios(ratios, b->n_rounds) : (terse_mean){NAN, NAN, NAN};
    free(ratios);
    return mean;
}

static bool narrow(const terse_mean *mean, double within)
{
    return terse_mean_spread(mean) <= within / 100;
}

/* Means and intervals of what there is so far, and whether they are as narrow as is asked for. */
static bool judge(terse_bench *b)
{
    bool precise = b->n_rounds >= TERSE_BENCH_LEAST_ROUNDS;
    for (unsigned s = 0; s < b->n_sides; s++) {
        terse_bench_side *side = &b->sides[s];
        side->rate = mean_over(side, b->n_rounds, rate_of);
        side->p99_us = mean_over(side, b->n_rounds, p99_of);
        precise = precise && (b->n_sides > 1 || (narrow(&side->rate, b->within) && narrow(&side->p99_us, b->within)));
    }
    if (b->n_sides > 1) {
        b->ratio.rate = ratio_over(b, rate_of);
        b->ratio.p50 = ratio_over(b, p50_of);
        b->ratio.p99 = ratio_over(b, p99_of);
        precise = precise && narrow(&b->ratio.rate, b->within) && narrow(&b->ratio.p50, b->within) &&
                  narrow(&b->ratio.p99, b->within);
    }
    return precise;
}

int terse_bench_measure(terse_bench *b, terse_error *error)
{
    int status = TERSE_OK;
    for (unsigned s = 0; !status && s < b->n_sides; s++)
        status = open_side(b, &b->sides[s], error);
    while (!status && b->n_rounds < b->repeat && !b->precise) {
        /* Who is first changes from round to round: what drifts is no side's. */
        for (unsigned i = 0; !status && i < b->n_sides; i++)
            status = measure_side(b, &b->sides[(i + b->n_rounds) % b->n_sides], b->n_rounds, error);
        b->n_rounds++;
        b->precise = !status && judge(b);
    }
    for (unsigned s = 0; s < b->n_sides; s++)
        terse_load_sort(&b->sides[s].all);
    return status;
}
