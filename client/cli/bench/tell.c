/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "client/cli/bench/bench.h"
#include "common/json.h"

static void json_errors(const terse_load_result *all, terse_json *json)
{
    terse_json_object(json, "errors");
    for (int s = 1; s < TERSE_LOAD_STATUSES; s++)
        if (all->errors[s])
            terse_json_uint(json, terse_status_name((terse_status)s), all->errors[s]);
    terse_json_end(json);
    if (*all->first_error)
        terse_json_text(json, "first_error", all->first_error);
    terse_json_uint(json, "refused_here", all->here); /* also of the warm-up */
}

static void json_latencies(const terse_load_result *all, terse_json *json)
{
    static const struct {
        const char *key;
        double q;
    } of[] = {{"p50_us", 0.5}, {"p90_us", 0.9}, {"p99_us", 0.99}, {"p999_us", 0.999}, {"max_us", 1}};
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++)
        terse_json_double(json, of[i].key, terse_latencies_us(&all->answered, of[i].q));
    if (all->refused.n) {
        terse_json_double(json, "refused_p50_us", terse_latencies_us(&all->refused, 0.5));
        terse_json_double(json, "refused_p99_us", terse_latencies_us(&all->refused, 0.99));
        terse_json_double(json, "refused_max_us", terse_latencies_us(&all->refused, 1));
    }
    if (all->behind.n) {
        terse_json_double(json, "behind_p50_us", terse_latencies_us(&all->behind, 0.5));
        terse_json_double(json, "behind_p99_us", terse_latencies_us(&all->behind, 0.99));
        terse_json_double(json, "behind_max_us", terse_latencies_us(&all->behind, 1));
    }
}

static void json_batches(const terse_load_result *all, terse_json *json)
{
    terse_json_double(json, "mean_batch", terse_load_batch(all));
    terse_json_object(json, "batch_sizes"); /* answers by rows of their batch */
    for (unsigned rows = 0; rows < TERSE_LOAD_BATCHES; rows++) {
        char key[16];
        snprintf(key, sizeof key, "%u", rows);
        if (all->in_batch[rows])
            terse_json_uint(json, key, all->in_batch[rows]);
    }
    terse_json_end(json);
}

static void json_mean(terse_json *json, const char *key, const terse_mean *mean)
{
    terse_json_object(json, key);
    terse_json_double(json, "mean", mean->mean);
    terse_json_double(json, "low", mean->low);
    terse_json_double(json, "high", mean->high);
    terse_json_end(json);
}

/* The members of one side, in an object that is open. */
static void json_side(const terse_bench *b, const terse_bench_side *side, terse_json *json)
{
    const terse_load_result *all = &side->all;
    terse_json_text(json, "model", side->model);
    if (b->open) {
        terse_json_double(json, "offered_rate", b->rate > 0 ? b->rate : terse_traffic_rate(&b->traffic));
        terse_json_text(json, "traffic", b->traffic.text);
    } else {
        terse_json_uint(json, "concurrency", b->concurrency);
    }
    terse_json_uint(json, "connections", b->connections);
    terse_json_double(json, "seconds", all->seconds);
    terse_json_double(json, "rate", terse_load_rate(all));
    terse_json_uint(json, "sent", all->sent);
    terse_json_uint(json, "ok", all->ok);
    json_errors(all, json);
    if (b->verify) {
        char hash[17];
        snprintf(hash, sizeof hash, "%016" PRIx64, terse_load_hash(side->load));
        terse_json_uint(json, "mismatches", all->mismatches);
        terse_json_uint(json, "duplicates", all->duplicates);
        terse_json_text(json, "outputs_hash", hash);
    }
    json_latencies(all, json);
    terse_json_double(json, "own_share", all->own_share);
    json_batches(all, json);
    if (b->n_rounds > 1) {
        json_mean(json, "rate_over_rounds", &side->rate);
        json_mean(json, "p99_us_over_rounds", &side->p99_us);
    }
    if (side->has_cpu && all->replies > all->here)
        terse_json_double(json, "cpu_seconds_per_1000", side->cpu_seconds * 1000 / (double)(all->replies - all->here));
    if (side->has_joules && all->replies > all->here)
        terse_json_double(json, "joules_per_1000", side->joules * 1000 / (double)(all->replies - all->here));
}

static void tell_json(const terse_bench *b)
{
    terse_json json = terse_json_to(stdout);
    terse_json_object(&json, NULL);
    json_side(b, &b->sides[0], &json);
    terse_json_uint(&json, "rounds", b->n_rounds);
    if (b->repeat > 1)
        terse_json_text(&json, "ended_by", b->precise ? "precision" : "limit");
    if (b->n_sides > 1) {
        terse_json_object(&json, "vs");
        if (b->sides[1].endpoint)
            terse_json_text(&json, "endpoint", b->sides[1].endpoint);
        json_side(b, &b->sides[1], &json);
        terse_json_end(&json);
        terse_json_object(&json, "ratio");
        json_mean(&json, "rate", &b->ratio.rate);
        json_mean(&json, "p50_us", &b->ratio.p50);
        json_mean(&json, "p99_us", &b->ratio.p99);
        terse_json_end(&json);
    }
    terse_json_end(&json);
    putchar('\n');
}

static void tell_side(const terse_bench *b, const terse_bench_side *side)
{
    const terse_load_result *all = &side->all;
    printf("%s%s%s: %" PRIu64 " sent, %" PRIu64 " ok in %.2f s: %.0f requests/s, mean batch %.2f\n", side->model,
           b->n_sides > 1 && side->endpoint ? " at " : "", b->n_sides > 1 && side->endpoint ? side->endpoint : "",
           all->sent, all->ok, all->seconds, terse_load_rate(all), terse_load_batch(all));
    for (int s = 1; s < TERSE_LOAD_STATUSES; s++)
        if (all->errors[s])
            printf("  %s: %" PRIu64 "\n", terse_status_name((terse_status)s), all->errors[s]);
    if (*all->first_error)
        printf("  the first: %s\n", all->first_error);
    if (all->here)
        printf("  %" PRIu64 " refusals were spared the daemon and made here, those of the warm-up too\n", all->here);
    if (b->verify)
        printf("  replies that differ from the first: %" PRIu64 ", second replies to a request: %" PRIu64 "\n",
               all->mismatches, all->duplicates);
    if (all->answered.n)
        printf("  latency: p50 %.0f us, p90 %.0f us, p99 %.0f us, p99.9 %.0f us\n",
               terse_latencies_us(&all->answered, 0.5), terse_latencies_us(&all->answered, 0.9),
               terse_latencies_us(&all->answered, 0.99), terse_latencies_us(&all->answered, 0.999));
    if (all->refused.n)
        printf("  refused after: p50 %.0f us, p99 %.0f us, at most %.0f us\n", terse_latencies_us(&all->refused, 0.5),
               terse_latencies_us(&all->refused, 0.99), terse_latencies_us(&all->refused, 1));
    if (all->behind.n && terse_latencies_us(&all->behind, 0.99) > 1000)
        printf("  sent late by this program itself: p50 %.0f us, p99 %.0f us\n", terse_latencies_us(&all->behind, 0.5),
               terse_latencies_us(&all->behind, 0.99));
    if (b->n_rounds > 1)
        printf("  over %zu rounds: %.0f requests/s (95 %%: %.0f to %.0f), p99 %.0f us (%.0f to %.0f)\n", b->n_rounds,
               side->rate.mean, side->rate.low, side->rate.high, side->p99_us.mean, side->p99_us.low,
               side->p99_us.high);
    if (side->has_cpu && all->replies > all->here)
        printf("  the daemon took %.3f processor seconds for 1000 requests",
               side->cpu_seconds * 1000 / (double)(all->replies - all->here));
    if (side->has_cpu && side->has_joules && all->replies > all->here)
        printf(", the processor %.3f joules", side->joules * 1000 / (double)(all->replies - all->here));
    if (side->has_cpu && all->replies > all->here)
        putchar('\n');
}

static void tell_ratio(const char *what, const terse_mean *ratio)
{
    printf("  %-10s %.3f times (95 %%: %.3f to %.3f)\n", what, ratio->mean, ratio->low, ratio->high);
}

void terse_bench_tell(const terse_bench *b)
{
    if (b->json) {
        tell_json(b);
        return;
    }
    for (unsigned s = 0; s < b->n_sides; s++)
        tell_side(b, &b->sides[s]);
    if (b->n_sides > 1) {
        puts("the first by the second:");
        tell_ratio("requests/s", &b->ratio.rate);
        tell_ratio("p50", &b->ratio.p50);
        tell_ratio("p99", &b->ratio.p99);
    }
    if (b->repeat > 1 && b->precise)
        printf("ended after %zu rounds: all intervals are within %g %%\n", b->n_rounds, b->within);
    else if (b->repeat > 1)
        printf("ended by the limit of %zu rounds: not all intervals are within %g %%\n", b->n_rounds, b->within);
}
