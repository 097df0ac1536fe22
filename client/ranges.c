/* SPDX-License-Identifier: Apache-2.0 */
#include "client/ranges.h"

#include <stdlib.h>
#include <string.h>

static bool grow(terse_ranges *ranges)
{
    if (ranges->n < ranges->capacity)
        return true;
    const size_t capacity = ranges->capacity ? 2 * ranges->capacity : 32;
    terse_range *taken = realloc(ranges->taken, capacity * sizeof *taken);
    if (!taken)
        return false;
    ranges->taken = taken;
    ranges->capacity = capacity;
    return true;
}

int64_t terse_ranges_take(terse_ranges *ranges, uint64_t bytes)
{
    if (bytes > ranges->size || !grow(ranges))
        return TERSE_RANGE_NONE;
    const uint64_t wanted =
        bytes ? (bytes + TERSE_RANGE_ALIGN - 1) & ~(uint64_t)(TERSE_RANGE_ALIGN - 1) : TERSE_RANGE_ALIGN;
    uint64_t at = 0;
    size_t i = 0;
    for (; i < ranges->n && ranges->taken[i].at - at < wanted; i++)
        at = ranges->taken[i].at + ranges->taken[i].bytes;
    if (wanted > ranges->size - at)
        return TERSE_RANGE_NONE;
    memmove(&ranges->taken[i + 1], &ranges->taken[i], (ranges->n - i) * sizeof ranges->taken[0]);
    ranges->taken[i] = (terse_range){at, wanted};
    ranges->n++;
    return (int64_t)at;
}

bool terse_ranges_give(terse_ranges *ranges, uint64_t at)
{
    size_t low = 0, high = ranges->n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (ranges->taken[middle].at < at)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == ranges->n || ranges->taken[low].at != at)
        return false;
    ranges->n--;
    memmove(&ranges->taken[low], &ranges->taken[low + 1], (ranges->n - low) * sizeof ranges->taken[0]);
    return true;
}

void terse_ranges_done(terse_ranges *ranges)
{
    free(ranges->taken);
    *ranges = (terse_ranges){0};
}
