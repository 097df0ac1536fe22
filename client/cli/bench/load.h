/* SPDX-License-Identifier: Apache-2.0 */
/* load.h: requests for one model of one daemon, sent and timed.
 * Runs in: terse bench, terse tune. Ownership: a terse_load owns its connections, inputs and memory; a result owns its
 * samples. Prints nothing.
 *
 * Closed loop: so many requests are always outstanding; a latency counts from the submission. Open loop: requests are
 * due at the moments of the traffic whatever the daemon does, and a latency counts from the moment at which its request
 * was due, so that a stall is charged to all requests that it delayed (no coordinated omission). How far this program
 * itself was behind is kept beside it: a rate that it cannot offer shows there. */
#ifndef TERSE_CLI_LOAD_H
#define TERSE_CLI_LOAD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/cli/bench/latencies.h"
#include "client/cli/bench/traffic.h"
#include "client/cli/cli.h"

enum { TERSE_LOAD_STATUSES = TERSE_SYSTEM + 1, TERSE_LOAD_BATCHES = 1025, TERSE_LOAD_CONNECTIONS = 64 };

typedef struct terse_load_options {
    const char *endpoint, *model, *input; /* input NULL: random ones */
    const terse_cli_texts *dims;
    uint64_t connections, connect_ms, spin_us, retries, rows, seed, timeout_ms;
    uint64_t max_refusals; /* a second, that the daemon makes itself; 0: all */
    uint64_t
        concurrency; /* most that a closed loop will have outstanding: places in shared memory; 0: only open loops */
    bool shm, verify;
} terse_load_options;

typedef struct terse_load terse_load;

typedef struct terse_load_plan {
    double rate;                  /* requests a second; 0: closed loop, or what a trace has by itself */
    const terse_traffic *traffic; /* NULL: closed loop */
    uint64_t concurrency, seed;
    uint64_t requests; /* send so many, all measured; 0: for `seconds` */
    double warmup, seconds;
    double hopeless_s; /* open loop: given up once so much time's requests are outstanding, or unsent; 0: never */
    const volatile sig_atomic_t *stop; /* given up when it is not 0; may be NULL */
} terse_load_plan;

typedef struct terse_load_result {
    terse_latencies answered, refused; /* latencies of measured requests: that were answered OK, that were not */
    terse_latencies behind;            /* open loop: how late each was sent */
    uint64_t sent, ok, errors[TERSE_LOAD_STATUSES], mismatches, duplicates;
    uint64_t replies;                      /* of any kind, those of the warm-up too */
    uint64_t here;                         /* of these: refused by libterse, the daemon never saw them */
    uint64_t batch_sum;                    /* over OK replies, rows of their batch */
    uint64_t in_batch[TERSE_LOAD_BATCHES]; /* OK replies by rows of their batch; the last has all that are larger */
    double seconds;                        /* from the first measured request to the last answer; sums over rounds */
    double own_share;                      /* processor time of this process by the time that passed */
    bool gave_up;
    char first_error[512]; /* the text of the first reply that was no OK */
} terse_load_result;

int terse_load_open(const terse_load_options *options, terse_load **ret_load, terse_error *error);
void terse_load_close(terse_load *load);
/* Sends, and waits for all answers. Adds to *result, which begins zeroed. The samples come unsorted. */
int terse_load_run(terse_load *load, const terse_load_plan *plan, terse_load_result *result, terse_error *error);
/* Of the first answer's bytes, with `verify`: the same in every run with the same inputs. */
uint64_t terse_load_hash(const terse_load *load);
/* The first connection, for questions while nothing runs. */
terse_client *terse_load_client(const terse_load *load);
const terse_signature *terse_load_signature(const terse_load *load);

double terse_load_rate(const terse_load_result *result);  /* OK answers a second */
double terse_load_batch(const terse_load_result *result); /* mean rows of an answer's batch */
bool terse_load_join(terse_load_result *to, const terse_load_result *from);
void terse_load_sort(terse_load_result *result);
void terse_load_done(terse_load_result *result);

#endif
