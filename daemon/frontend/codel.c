/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/codel.h"

#include <math.h>

static uint64_t after(uint64_t from_ns, uint32_t count)
{
    return from_ns + (uint64_t)((double)TERSE_CODEL_INTERVAL_NS / sqrt(count));
}

/* Whether waits have been above the target for an interval. */
static bool stands(terse_codel *codel, uint64_t waited_ns, uint64_t now_ns, uint64_t target_ns, bool small)
{
    if (waited_ns < target_ns || small) {
        codel->above_ns = 0;
        return false;
    }
    if (codel->above_ns == 0) {
        codel->above_ns = now_ns + TERSE_CODEL_INTERVAL_NS;
        return false;
    }
    return now_ns >= codel->above_ns;
}

bool terse_codel_drop(terse_codel *codel, uint64_t waited_ns, uint64_t now_ns, uint64_t target_ns, bool small)
{
    const bool standing = stands(codel, waited_ns, now_ns, target_ns, small);
    if (codel->dropping) {
        codel->dropping = standing;
        if (!standing || now_ns < codel->next_ns)
            return false;
        codel->next_ns = after(codel->next_ns, ++codel->count);
        return true;
    }
    if (!standing)
        return false;
    /* Soon after the last time it goes on where that ended: the control law had found its pace (RFC 8289, 5.4). */
    const uint32_t grown = codel->count - codel->last_count;
    const bool recent = now_ns < codel->next_ns || now_ns - codel->next_ns < 16 * TERSE_CODEL_INTERVAL_NS;
    codel->count = grown > 1 && recent ? grown : 1;
    codel->last_count = codel->count;
    codel->next_ns = after(now_ns, codel->count);
    codel->dropping = true;
    return true;
}
