/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h: what the files of `terse bench` share.
 * Runs in: terse bench. Ownership: a terse_bench owns its sides and what they gathered. */
#ifndef TERSE_CLI_BENCH_H
#define TERSE_CLI_BENCH_H

#include "client/cli/bench/load.h"

enum { TERSE_BENCH_LEAST_ROUNDS = 3, TERSE_BENCH_ROUNDS = 10000, TERSE_BENCH_SIDES = 2 };

/* What came of one round. */
typedef struct terse_bench_round {
    double rate, p50_us, p99_us;
} terse_bench_round;

typedef struct terse_bench_side {
    const char *endpoint, *model;
    terse_load *load;
    terse_load_result all; /* of all rounds together, sorted once they are over */
    terse_bench_round *rounds;
    bool has_cpu, has_joules;
    double cpu_seconds, joules; /* sums over all rounds */
    terse_mean rate, p99_us;    /* over the rounds */
} terse_bench_side;

typedef struct terse_bench {
    const char *traffic_text, *input, *versus, *report;
    bool json, verify, shm;
    uint64_t concurrency, connections, rows, requests, timeout_ms, seed, connect_ms, spin_us, retries, repeat,
        max_refusals;
    double rate, seconds, warmup, within;
    terse_cli_texts dims;
    terse_traffic traffic;
    bool open; /* loop */
    terse_bench_side sides[TERSE_BENCH_SIDES];
    unsigned n_sides;
    size_t n_rounds;
    bool precise; /* the intervals were narrow enough before the limit */
    struct {
        terse_mean rate, p50, p99; /* first side by second */
    } ratio;
} terse_bench;

/* rounds.c: opens both sides, measures in turn until the intervals are narrow or the limit is reached. */
int terse_bench_measure(terse_bench *bench, terse_error *error);
/* tell.c: for people, or as one JSON object. */
void terse_bench_tell(const terse_bench *bench);
/* page.c: the report. */
int terse_bench_page(const terse_bench *bench, terse_error *error);

#endif
