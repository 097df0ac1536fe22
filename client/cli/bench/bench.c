/* SPDX-License-Identifier: Apache-2.0 */
/* terse bench: a daemon's latency and throughput. load.h says what is measured. */
#include "client/cli/bench/bench.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VERSUS_ROUNDS = 10 };

static void bench_done(terse_bench *b)
{
    for (unsigned s = 0; s < b->n_sides; s++) {
        terse_load_close(b->sides[s].load);
        terse_load_done(&b->sides[s].all);
        free(b->sides[s].rounds);
    }
    terse_traffic_done(&b->traffic);
}

/* What options ask for together; -1 to go on, else the exit code. */
static int prepare(terse_bench *b)
{
    terse_error error;
    if (terse_traffic_read(b->traffic_text ? b->traffic_text : "poisson", &b->traffic, &error))
        return terse_cli_fail("bench", &error);
    b->open = b->rate > 0 || terse_traffic_rate(&b->traffic) > 0;
    if (b->traffic_text && !b->open)
        return terse_cli_usage_error("bench", "--traffic %s wants a --rate", b->traffic_text);
    if (b->versus && !*b->versus)
        return terse_cli_usage_error("bench", "--vs is empty, allowed are an endpoint and a model's name");
    if (b->report && !*b->report)
        return terse_cli_usage_error("bench", "--report is empty, a file's name is wanted");
    const bool other_daemon = b->versus && strstr(b->versus, "://");
    b->n_sides = b->versus ? 2 : 1;
    b->sides[1] = (terse_bench_side){.endpoint = other_daemon ? b->versus : b->sides[0].endpoint,
                                     .model = b->versus && !other_daemon ? b->versus : b->sides[0].model};
    if (!b->repeat)
        b->repeat = b->versus ? VERSUS_ROUNDS : 1;
    if (isnan(b->seconds))
        b->seconds = b->repeat > 1 ? 1 : 5;
    if (isnan(b->warmup))
        b->warmup = b->repeat > 1 ? 0.2 : 0.5;
    if (!b->open && b->connections > b->concurrency)
        return terse_cli_usage_error("bench", "--connections is %zu, allowed are at most as many as --concurrency, %zu",
                                     (size_t)b->connections, (size_t)b->concurrency);
    return -1;
}

static int bench_run(terse_bench *b)
{
    terse_error error = {0};
    bool wrong = false;
    const int prepared = prepare(b);
    if (prepared >= 0)
        return prepared;
    if (terse_bench_measure(b, &error))
        return terse_cli_fail("bench", &error);
    terse_bench_tell(b);
    if (b->report && terse_bench_page(b, &error))
        return terse_cli_fail("bench", &error);
    for (unsigned s = 0; s < b->n_sides; s++)
        wrong = wrong || b->sides[s].all.mismatches || b->sides[s].all.duplicates;
    return wrong ? TERSE_CLI_FAILED : TERSE_CLI_DONE;
}

int terse_cli_bench(int argc, char **argv)
{
    terse_bench b = {.concurrency = 1,
                     .connections = 1,
                     .rows = 1,
                     .seconds = NAN,
                     .warmup = NAN,
                     .within = 5,
                     .seed = 1,
                     .connect_ms = 5000,
                     .max_refusals = 30000,
                     .n_sides = 1};
    char joined[PATH_MAX + 32];
    const terse_cli_usage usage = {
        "bench", "[-e ENDPOINT] MODEL [--concurrency C | --rate R] [--vs ENDPOINT|MODEL]",
        "Measures latency and throughput of a running daemon. With --concurrency that many requests are\n"
        "always outstanding; with --rate they arrive at the moments of --traffic, and a latency counts\n"
        "from the moment at which its request was due.",
        1, 1};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &b.sides[0].endpoint, 0, 0,
         "the daemon's, or those of several, with commas between (default: $TERSE_ENDPOINT, else this host's)"},
        {"concurrency", 'c', TERSE_CLI_COUNT, "C", &b.concurrency, 1, 1 << 16,
         "closed loop with C outstanding (default 1)"},
        {"rate", 'r', TERSE_CLI_NUMBER, "R", &b.rate, 1e-3, 1e7, "open loop with R requests a second"},
        {"traffic", 0, TERSE_CLI_TEXT, "KIND", &b.traffic_text, 0, 0,
         "moments of the open loop: poisson (default), constant, burst, burst:N or trace FILE"},
        {"connections", 0, TERSE_CLI_COUNT, "K", &b.connections, 1, TERSE_LOAD_CONNECTIONS,
         "clients that share the requests (default 1)"},
        {"duration", 'd', TERSE_CLI_NUMBER, "S", &b.seconds, 0.01, 86400,
         "seconds measured (default 5; 1 for each of several rounds)"},
        {"warmup", 0, TERSE_CLI_NUMBER, "S", &b.warmup, 0, 3600, "seconds before that (default 0.5; 0.2)"},
        {"requests", 'n', TERSE_CLI_COUNT, "N", &b.requests, 1, 1e12, "send N requests instead, all measured"},
        {"repeat", 0, TERSE_CLI_COUNT, "N", &b.repeat, 1, TERSE_BENCH_ROUNDS,
         "rounds, at most N, until the 95 % intervals of rate and p99 are narrow (default 1; 10 with --vs)"},
        {"within", 0, TERSE_CLI_NUMBER, "PCT", &b.within, 0.01, 100,
         "narrow: to both sides so many percent of the mean (default 5)"},
        {"vs", 0, TERSE_CLI_TEXT, "ENDPOINT|MODEL", &b.versus, 0, 0,
         "measure another daemon, or another model, in alternating rounds, and tell the ratio"},
        {"rows", 0, TERSE_CLI_COUNT, "B", &b.rows, 1, 1 << 20, "rows in each request (default 1)"},
        {"input", 'i', TERSE_CLI_TEXT, "IN.npz", &b.input, 0, 0, "send these arrays (default: random ones)"},
        {"dim", 0, TERSE_CLI_TEXTS, "NAME=SIZE", &b.dims, 0, 0,
         "size of a free dimension of random inputs (default 1)"},
        {"seed", 0, TERSE_CLI_COUNT, "S", &b.seed, 1, 1e15, "of random inputs and arrivals (default 1)"},
        {"timeout-ms", 0, TERSE_CLI_COUNT, "T", &b.timeout_ms, 1, 1e9, "deadline of each request (default: none)"},
        {"retries", 0, TERSE_CLI_COUNT, "N", &b.retries, 0, 1e6,
         "how often a refused request comes again, when the daemon says so (default 0)"},
        {"max-refusals", 0, TERSE_CLI_COUNT, "N", &b.max_refusals, 0, 1e9,
         "more refusals a second than that are spared the daemon and made here (default 30000; 0: it makes them all)"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &b.connect_ms, 1, 1e9, "how long to wait for a daemon (default 5000)"},
        {"shm", 0, TERSE_CLI_FLAG, NULL, &b.shm, 0, 0,
         "share memory with the daemon: tensors in place, requests through a ring"},
        {"spin-us", 0, TERSE_CLI_COUNT, "T", &b.spin_us, 0, 1e6,
         "with --shm: look for so long before sleeping (default 0)"},
        {"verify", 0, TERSE_CLI_FLAG, NULL, &b.verify, 0, 0,
         "compare every reply with the first, bit by bit; exit 1 if one differs or comes twice"},
        {"report", 0, TERSE_CLI_TEXT, "OUT.html", &b.report, 0, 0, "write a page with charts as well"},
        {"json", 0, TERSE_CLI_FLAG, NULL, &b.json, 0, 0, "print one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    argc = terse_traffic_join(argc, argv, joined, sizeof joined);
    const int parsed = terse_cli_parse(&usage, options, argc, argv, &b.sides[0].model, &n);
    if (parsed >= 0)
        return parsed;
    const int code = bench_run(&b);
    bench_done(&b);
    return code;
}
