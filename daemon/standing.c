/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/standing.h"

#include <stddef.h>
#include <string.h>

/* What may be owed before anybody waits; nobody owes more than the most, so that all waiting has an end. */
enum { SHARE = 40, SHARE_OF_ALL = 30 };
#define FREE_NS UINT64_C(100000000)
#define MOST_NS UINT64_C(1000000000)
#define SUSPECTED_NS UINT64_C(30000000000)

uint64_t terse_standing_key(const void *bytes, uint32_t n)
{
    const uint8_t *byte = bytes;
    uint64_t key = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < n; i++)
        key = (key ^ byte[i]) * UINT64_C(0x100000001b3);
    key ^= key >> 29;
    return key ? key : 1;
}

static size_t set_of(uint64_t key)
{
    return (key * UINT64_C(0x9e3779b97f4a7c15) >> 32) % TERSE_STANDING_SETS;
}

static uint64_t later(uint64_t paid_ns, uint64_t more_ns, uint64_t now_ns)
{
    const uint64_t from = paid_ns > now_ns ? paid_ns : now_ns, most = now_ns + MOST_NS;
    return from + more_ns < most ? from + more_ns : most;
}

/* The place of a key, or of whoever in its set owes least. */
static terse_standing_one *place_of(terse_standing *standing, uint64_t key)
{
    terse_standing_one *set = standing->known[set_of(key)], *least = &set[0];
    for (int i = 0; i < TERSE_STANDING_WAYS; i++) {
        if (set[i].key == key)
            return &set[i];
        if (set[i].paid_ns < least->paid_ns)
            least = &set[i];
    }
    *least = (terse_standing_one){.key = key};
    return least;
}

void terse_standing_charge(terse_standing *standing, uint64_t key, uint64_t cost_ns, uint64_t now_ns)
{
    terse_standing_one *one = place_of(standing, key);
    one->paid_ns = later(one->paid_ns, cost_ns * SHARE, now_ns);
    one->last_ns = now_ns;
    standing->all_paid_ns = later(standing->all_paid_ns, cost_ns * SHARE_OF_ALL, now_ns);
}

static uint64_t less(uint64_t paid_ns, uint64_t ns)
{
    return paid_ns > ns ? paid_ns - ns : 0;
}

void terse_standing_refund(terse_standing *standing, uint64_t key, uint64_t cost_ns)
{
    terse_standing_one *one = place_of(standing, key);
    one->paid_ns = less(one->paid_ns, cost_ns * SHARE);
    standing->all_paid_ns = less(standing->all_paid_ns, cost_ns * SHARE_OF_ALL);
}

/* NULL: nothing is known of it. */
static const terse_standing_one *find(const terse_standing *standing, uint64_t key)
{
    const terse_standing_one *set = standing->known[set_of(key)];
    for (int i = 0; i < TERSE_STANDING_WAYS; i++)
        if (set[i].key == key)
            return &set[i];
    return NULL;
}

bool terse_standing_suspects(const terse_standing *standing, uint64_t key, uint64_t now_ns)
{
    const terse_standing_one *one = find(standing, key);
    return one && one->last_ns && now_ns - one->last_ns < SUSPECTED_NS;
}

uint64_t terse_standing_wait(const terse_standing *standing, uint64_t key, uint64_t now_ns)
{
    const terse_standing_one *one = find(standing, key);
    if (!terse_standing_suspects(standing, key, now_ns))
        return 0;
    const uint64_t own = less(one->paid_ns, now_ns + FREE_NS), all = less(standing->all_paid_ns, now_ns + FREE_NS);
    return own > all ? own : all;
}
