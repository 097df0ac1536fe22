/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/stats.h"

#include "common/pack.h"

static void pack_u64(msgpack_packer *packer, const char *key, uint64_t value)
{
    terse_pack_cstr(packer, key);
    msgpack_pack_uint64(packer, value);
}

static unsigned count_fine(const terse_buckets *buckets)
{
    unsigned n = 0;
    for (unsigned i = 0; i < TERSE_BUCKETS; i++)
        n += buckets->at[i] > 0;
    return n;
}

/* Of log2 what is behind the last that counted anything is left out, of the fine buckets those that are empty. `unit`
 * is what the sum is divided by. */
static void pack_histogram(msgpack_packer *packer, const char *key, const terse_histogram *histogram, uint64_t unit)
{
    const terse_buckets *fine = &histogram->fine;
    unsigned n = TERSE_HISTOGRAM_LOG2;
    while (n > 0 && histogram->log2[n - 1] == 0)
        n--;
    terse_pack_cstr(packer, key);
    msgpack_pack_map(packer, 4);
    pack_u64(packer, "count", fine->count);
    pack_u64(packer, "sum", fine->sum / unit);
    terse_pack_cstr(packer, "log2");
    msgpack_pack_array(packer, n);
    for (unsigned i = 0; i < n; i++)
        msgpack_pack_uint64(packer, histogram->log2[i]);
    terse_pack_cstr(packer, "fine");
    msgpack_pack_array(packer, 2 * count_fine(fine));
    for (unsigned i = 0; i < TERSE_BUCKETS; i++)
        if (fine->at[i] > 0) {
            msgpack_pack_uint64(packer, terse_buckets_bound(i));
            msgpack_pack_uint64(packer, fine->at[i]);
        }
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

void terse_stats_pack(const terse_stats *stats, const terse_stats_about *about, msgpack_packer *packer)
{
    msgpack_pack_map(packer, 20);
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
    pack_histogram(packer, "queue_us", &stats->queue_us, 1000);
    pack_histogram(packer, "compute_us", &stats->compute_us, 1000);
    pack_histogram(packer, "total_us", &stats->total_us, 1000);
    pack_histogram(packer, "batch_rows", &stats->batch_rows, 1);
    pack_costs(packer, about->cost);
}
