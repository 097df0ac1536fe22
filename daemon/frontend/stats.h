/* SPDX-License-Identifier: Apache-2.0 */
/* stats.h: counters and histograms of a served model.
 * Runs in: frontend, whose one thread writes and reads them: no lock, no atomic. Plain numbers, owns nothing. */
#ifndef TERSE_FRONTEND_STATS_H
#define TERSE_FRONTEND_STATS_H

#include <msgpack.h>

#include "common/buckets.h"
#include "common/status.h"
#include "daemon/frontend/batcher.h"

enum { TERSE_HISTOGRAM_LOG2 = 40, TERSE_STATUS_COUNT = TERSE_SYSTEM + 1 };

/* Entry 0 of a histogram by powers of two counts the value 0, entry i the values from 2^(i-1) to 2^i - 1; the last one
 * all beyond. */
static inline unsigned terse_stats_log2(uint64_t value)
{
    const unsigned bits = value ? 64u - (unsigned)__builtin_clzll(value) : 0;
    return bits < TERSE_HISTOGRAM_LOG2 ? bits : TERSE_HISTOGRAM_LOG2 - 1;
}

/* A time of `n` requests, rounded up to whole microseconds. Their sum is kept in nanoseconds, their number is the
 * buckets' sum: this runs several times for each request. */
static inline void terse_stats_time(terse_buckets *buckets, uint64_t ns, uint64_t n)
{
    buckets->sum += ns * n;
    buckets->at[terse_buckets_index((ns + 999) / 1000)] += n;
}

/* Why requests got no result, beside what went wrong while they ran. X(ID, name in "stats") */
#define TERSE_REJECTIONS(X)                                                                                            \
    X(QUEUE_FULL, "queue_full")   /* more requests, bytes or work than may wait */                                     \
    X(CLIENT_FULL, "client_full") /* one connection has too much of that */                                            \
    X(LATE, "late")               /* could not be done in its time, which was told when it came */                     \
    X(EXPIRED, "expired")         /* its time was over while it waited or ran */                                       \
    X(STANDING, "standing_queue") /* turned away by CoDel when its turn came */                                        \
    X(SLOW_CLIENT, "slow_client") /* its client does not read */                                                       \
    X(TOO_LARGE, "too_large")     /* more bytes than any request may have */                                           \
    X(NO_ROOM, "no_room")         /* no memory for it or its outputs */                                                \
    X(DRAINING, "draining")       /* the daemon is shutting down */                                                    \
    X(INVALID, "invalid")         /* does not fit the model */

typedef enum terse_rejection {
#define REJECTION_ID(id, name) TERSE_REJECTED_##id,
    TERSE_REJECTIONS(REJECTION_ID)
#undef REJECTION_ID
        TERSE_REJECTION_REASONS
} terse_rejection;

/* Nothing but uint64_t: terse_stats_add counts on it. */
typedef struct terse_stats {
    uint64_t requests;                      /* infer requests that named the model */
    uint64_t by_status[TERSE_STATUS_COUNT]; /* replies */
    uint64_t rejected[TERSE_REJECTION_REASONS];
    uint64_t rows, batches;            /* that workers completed */
    uint64_t crashed_batches, retries; /* batches lost with a worker; requests run again */
    uint64_t turned_away;              /* by CoDel, when their turn came */
    uint64_t closed[TERSE_CLOSE_REASONS];
    terse_buckets queue_us, compute_us, total_us; /* per answered request: waiting, its batch's run, all in all */
    terse_buckets batch_rows;                     /* per batch */
    uint64_t rows_log2[TERSE_HISTOGRAM_LOG2]; /* the same by powers of two, of which not all are bounds of buckets */
} terse_stats;

void terse_stats_add(terse_stats *to, const terse_stats *from);
void terse_stats_batch(terse_stats *stats, uint32_t rows, uint32_t n_requests, uint64_t compute_ns);

/* What counters were some seconds ago, so that one look tells what happens now. A new mark is made every
 * TERSE_RECENT_NS; what is told is since the one before: of the last one or two of that time. */
#define TERSE_RECENT_NS UINT64_C(5000000000)
typedef struct terse_stats_recent {
    uint64_t at_ns[2]; /* 0: not marked yet */
    terse_stats at[2];
} terse_stats_recent;

void terse_stats_mark(terse_stats_recent *recent, const terse_stats *stats, uint64_t now_ns);

/* What there is to say of a model beside its counters. */
typedef struct terse_stats_about {
    const char *version, *state;
    uint64_t queued, queued_bytes; /* requests that wait, and their tensors */
    uint64_t running;              /* requests in batches */
    const terse_cost *cost;        /* what its batches take, NULL when none ran */
    const terse_stats_recent *recent;
    uint64_t now_ns;
} terse_stats_about;
/* The map of one model in the reply of "stats". */
void terse_stats_pack(const terse_stats *stats, const terse_stats_about *about, msgpack_packer *packer);

#endif
