/* SPDX-License-Identifier: Apache-2.0 */
#include "common/buckets.h"

double terse_buckets_percentile(const terse_buckets *buckets, double share)
{
    /* By the buckets' own sum: a reader may have them from somebody whose count says otherwise. */
    double total = 0, before = 0;
    for (unsigned i = 0; i < TERSE_BUCKETS; i++)
        total += (double)buckets->at[i];
    const double rank = (share < 0 ? 0 : share > 1 ? 1 : share) * total;
    for (unsigned i = 0; i < TERSE_BUCKETS && total > 0; i++) {
        const double here = (double)buckets->at[i];
        if (here > 0 && before + here >= rank) {
            const double low = i ? (double)terse_buckets_bound(i - 1) : 0;
            return low + ((double)terse_buckets_bound(i) - low) * (rank - before) / here;
        }
        before += here;
    }
    return total > 0 ? (double)terse_buckets_bound(TERSE_BUCKETS - 1) : 0;
}

double terse_buckets_mean(const terse_buckets *buckets)
{
    return buckets->count ? (double)buckets->sum / (double)buckets->count : 0;
}

uint64_t terse_buckets_up_to(const terse_buckets *buckets, uint64_t bound)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < TERSE_BUCKETS && terse_buckets_bound(i) <= bound; i++)
        n += buckets->at[i];
    return n;
}

void terse_buckets_merge(terse_buckets *to, const terse_buckets *from)
{
    to->count += from->count;
    to->sum += from->sum;
    for (unsigned i = 0; i < TERSE_BUCKETS; i++)
        to->at[i] += from->at[i];
}

void terse_buckets_between(const terse_buckets *later, const terse_buckets *earlier, terse_buckets *ret_between)
{
    terse_buckets between = *later;
    int same = later->count >= earlier->count && later->sum >= earlier->sum;
    for (unsigned i = 0; same && i < TERSE_BUCKETS; i++) {
        same = later->at[i] >= earlier->at[i];
        between.at[i] = later->at[i] - earlier->at[i];
    }
    between.count = later->count - earlier->count;
    between.sum = later->sum - earlier->sum;
    *ret_between = same ? between : *later;
}
