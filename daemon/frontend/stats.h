/* SPDX-License-Identifier: Apache-2.0 */
/* stats.h: counters and histograms of a served model.
 * Runs in: frontend. Plain numbers, owns nothing. */
#ifndef TERSE_FRONTEND_STATS_H
#define TERSE_FRONTEND_STATS_H

#include <msgpack.h>

#include "common/status.h"
#include "daemon/frontend/batcher.h"

enum { TERSE_HISTOGRAM_BUCKETS = 40, TERSE_STATUS_COUNT = TERSE_SYSTEM + 1 };

/* Bucket 0 counts the value 0, bucket i the values from 2^(i-1) to 2^i - 1; the last one all beyond. */
typedef struct terse_histogram {
    uint64_t count, sum;
    uint64_t buckets[TERSE_HISTOGRAM_BUCKETS];
} terse_histogram;

static inline void terse_histogram_add(terse_histogram *histogram, uint64_t value)
{
    unsigned bucket = value ? 64u - (unsigned)__builtin_clzll(value) : 0;
    if (bucket >= TERSE_HISTOGRAM_BUCKETS)
        bucket = TERSE_HISTOGRAM_BUCKETS - 1;
    histogram->count++;
    histogram->sum += value;
    histogram->buckets[bucket]++;
}

/* Nothing but uint64_t: terse_stats_add counts on it. */
typedef struct terse_stats {
    uint64_t requests;                      /* infer requests that named the model */
    uint64_t by_status[TERSE_STATUS_COUNT]; /* replies */
    uint64_t rows, batches;                 /* that workers completed */
    uint64_t crashed_batches, retries;      /* batches lost with a worker; requests run again */
    uint64_t turned_away;                   /* by CoDel, when their turn came */
    uint64_t closed[TERSE_CLOSE_REASONS];
    terse_histogram queue_us, compute_us, total_us; /* per answered request: waiting, its batch's run, all in all */
    terse_histogram batch_rows;                     /* per batch */
} terse_stats;

void terse_stats_add(terse_stats *to, const terse_stats *from);
/* The map of one model in the reply of "stats"; `cost` is what its batches take, NULL when none ran. */
void terse_stats_pack(const terse_stats *stats, const char *version, const char *state, const terse_cost *cost,
                      msgpack_packer *packer);

#endif
