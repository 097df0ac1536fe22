/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/stats.h"

#include "common/pack.h"

static void pack_u64(msgpack_packer *packer, const char *key, uint64_t value)
{
    terse_pack_cstr(packer, key);
    msgpack_pack_uint64(packer, value);
}

void terse_stats_batch(terse_stats *stats, uint32_t rows, uint32_t n_requests, uint64_t compute_ns)
{
    stats->batch_rows.sum += rows;
    stats->batch_rows.at[terse_buckets_index(rows)]++;
    stats->rows_log2[terse_stats_log2(rows)]++;
    terse_stats_time(&stats->compute_us, compute_ns, n_requests);
}

static void pack_log2(msgpack_packer *packer, const uint64_t *log2)
{
    unsigned n = TERSE_HISTOGRAM_LOG2;
    while (n > 0 && log2[n - 1] == 0) /* what is behind the last that counted anything is left out */
        n--;
    terse_pack_cstr(packer, "log2");
    msgpack_pack_array(packer, n);
    for (unsigned i = 0; i < n; i++)
        msgpack_pack_uint64(packer, log2[i]);
}

/* `unit` is what the sum is divided by. */
static void pack_histogram(msgpack_packer *packer, const char *key, const terse_buckets *buckets, uint64_t unit,
                           const uint64_t *log2)
{
    uint64_t count = 0;
    unsigned used = 0;
    for (unsigned i = 0; i < TERSE_BUCKETS; i++) {
        count += buckets->at[i];
        used += buckets->at[i] > 0;
    }
    terse_pack_cstr(packer, key);
    msgpack_pack_map(packer, 4);
    pack_u64(packer, "count", count);
    pack_u64(packer, "sum", buckets->sum / unit);
    pack_log2(packer, log2);
    terse_pack_cstr(packer, "fine");
    msgpack_pack_array(packer, 2 * used);
    for (unsigned i = 0; i < TERSE_BUCKETS; i++)
        if (buckets->at[i] > 0) {
            msgpack_pack_uint64(packer, terse_buckets_bound(i));
            msgpack_pack_uint64(packer, buckets->at[i]);
        }
}

/* Times up to a bound, rounded up, are those below it, cut; and all powers of two are bounds: no time is in two
 * entries. */
static void pack_times(msgpack_packer *packer, const char *key, const terse_buckets *times)
{
    uint64_t log2[TERSE_HISTOGRAM_LOG2] = {0};
    for (unsigned i = 0; i < TERSE_BUCKETS; i++)
        log2[terse_stats_log2(i ? terse_buckets_bound(i) - 1 : 0)] += times->at[i];
    pack_histogram(packer, key, times, 1000, log2);
}

static void pack_errors(msgpack_packer *packer, const terse_stats *stats)
{
    unsigned n = 0;
    for (unsigned i = 1; i < TERSE_STATUS_COUNT; i++)
        n += stats->by_status[i] > 0;
    terse_pack_cstr(packer, "errors");
    msgpack_pack_map(packer, n);
    for (unsigned i = 1; i < TERSE_STATUS_COUNT; i++)
        if (stats->by_status[i] > 0)
            pack_u64(packer, terse_status_name((terse_status)i), stats->by_status[i]);
}

void terse_stats_add(terse_stats *to, const terse_stats *from)
{
    uint64_t *sums = (uint64_t *)to;
    const uint64_t *more = (const uint64_t *)from;
    for (size_t i = 0; i < sizeof *to / sizeof *sums; i++)
        sums[i] += more[i];
}

static void pack_costs(msgpack_packer *packer, const terse_cost *cost)
{
    unsigned n = 0;
    for (unsigned i = 0; cost && i < TERSE_COST_STEPS; i++)
        n += cost->steps[i].samples > 0;
    terse_pack_cstr(packer, "costs");
    msgpack_pack_array(packer, n);
    for (unsigned i = 0; n > 0 && i < TERSE_COST_STEPS; i++) {
        if (!cost->steps[i].samples)
            continue;
        msgpack_pack_map(packer, 3);
        pack_u64(packer, "rows", (uint64_t)(cost->steps[i].rows + 0.5));
        pack_u64(packer, "us", (uint64_t)(cost->steps[i].ns / 1000 + 0.5));
        pack_u64(packer, "batches", cost->steps[i].samples);
    }
}

/* All of them, also those that never happened: a rate is known only of what was there before. */
static void pack_rejected(msgpack_packer *packer, const terse_stats *stats)
{
    static const char *const names[] = {
#define NAME(id, name) [TERSE_REJECTED_##id] = (name),
        TERSE_REJECTIONS(NAME)
#undef NAME
    };
    terse_pack_cstr(packer, "rejected");
    msgpack_pack_map(packer, TERSE_REJECTION_REASONS);
    for (unsigned i = 0; i < TERSE_REJECTION_REASONS; i++)
        pack_u64(packer, names[i], stats->rejected[i]);
}

void terse_stats_mark(terse_stats_recent *recent, const terse_stats *stats, uint64_t now_ns)
{
    if (recent->at_ns[1] && now_ns - recent->at_ns[1] < TERSE_RECENT_NS)
        return;
    const unsigned first = recent->at_ns[1] ? 1 : 0; /* at first both are of now */
    if (first) {
        recent->at[0] = recent->at[1];
        recent->at_ns[0] = recent->at_ns[1];
    }
    for (unsigned i = first; i < 2; i++) {
        recent->at[i] = *stats;
        recent->at_ns[i] = now_ns;
    }
}

static uint64_t rejected_in_all(const terse_stats *stats)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < TERSE_REJECTION_REASONS; i++)
        n += stats->rejected[i];
    return n;
}

static void pack_recent(msgpack_packer *packer, const terse_stats *stats, const terse_stats_recent *recent,
                        uint64_t now_ns)
{
    const terse_stats *then = &recent->at[0];
    const uint64_t at_ns = recent->at_ns[0] ? recent->at_ns[0] : now_ns;
    terse_buckets times;
    terse_buckets_between(&stats->total_us, &then->total_us, &times);
    terse_pack_cstr(packer, "recent");
    msgpack_pack_map(packer, 8);
    pack_u64(packer, "us", (now_ns - at_ns) / 1000);
    pack_u64(packer, "requests", stats->requests - then->requests);
    pack_u64(packer, "ok", stats->by_status[TERSE_OK] - then->by_status[TERSE_OK]);
    pack_u64(packer, "rejected", rejected_in_all(stats) - rejected_in_all(then));
    pack_u64(packer, "rows", stats->rows - then->rows);
    pack_u64(packer, "batches", stats->batches - then->batches);
    pack_u64(packer, "p50_us", (uint64_t)(terse_buckets_percentile(&times, 0.5) + 0.5));
    pack_u64(packer, "p99_us", (uint64_t)(terse_buckets_percentile(&times, 0.99) + 0.5));
}

void terse_stats_pack(const terse_stats *stats, const terse_stats_about *about, msgpack_packer *packer)
{
    msgpack_pack_map(packer, 21);
    terse_pack_cstr(packer, "version");
    terse_pack_cstr(packer, about->version);
    terse_pack_cstr(packer, "state");
    terse_pack_cstr(packer, about->state);
    pack_u64(packer, "queued", about->queued);
    pack_u64(packer, "queued_bytes", about->queued_bytes);
    pack_u64(packer, "running", about->running);
    pack_u64(packer, "requests", stats->requests);
    pack_u64(packer, "ok", stats->by_status[TERSE_OK]);
    pack_errors(packer, stats);
    pack_rejected(packer, stats);
    pack_u64(packer, "rows", stats->rows);
    pack_u64(packer, "batches", stats->batches);
    pack_u64(packer, "crashed_batches", stats->crashed_batches);
    pack_u64(packer, "retries", stats->retries);
    pack_u64(packer, "turned_away", stats->turned_away);
    terse_pack_cstr(packer, "closed");
    msgpack_pack_map(packer, TERSE_CLOSE_REASONS);
    for (unsigned i = 0; i < TERSE_CLOSE_REASONS; i++)
        pack_u64(packer, terse_batcher_reason_name((terse_batcher_reason)i), stats->closed[i]);
    pack_times(packer, "queue_us", &stats->queue_us);
    pack_times(packer, "compute_us", &stats->compute_us);
    pack_times(packer, "total_us", &stats->total_us);
    pack_histogram(packer, "batch_rows", &stats->batch_rows, 1, stats->rows_log2);
    pack_costs(packer, about->cost);
    pack_recent(packer, stats, about->recent, about->now_ns);
}
