/* SPDX-License-Identifier: Apache-2.0 */
#include "client/throttle.h"

#include <inttypes.h>
#include <stdio.h>

enum { PLACES = 4 }; /* that a key may have */
static const uint64_t window_ns = 50000000, stale_ns = 1000000000;
static const double headroom = 1.25, few = 0.1;
static const double least_rate = 1000; /* is sent in any case, or a daemon that recovers would never show it */
static const double burst_s = 0.005;   /* so much of the rate may go at once */

uint64_t terse_throttle_key(const char *model, const char *version, unsigned priority, uint64_t timeout_us)
{
    uint64_t key = 0xcbf29ce484222325u; /* FNV-1a */
    for (const char *c = model; *c; c++)
        key = (key ^ (uint8_t)*c) * 0x100000001b3u;
    key = (key ^ 0xff) * 0x100000001b3u;
    for (const char *c = version ? version : ""; *c; c++)
        key = (key ^ (uint8_t)*c) * 0x100000001b3u;
    key = (key ^ priority) * 0x100000001b3u;
    for (; timeout_us; timeout_us >>= 1)
        key = key * 0x100000001b3u + 1;
    return key ? key : 1;
}

static terse_throttle *place_of(terse_throttle *list, uint64_t key, int k)
{
    return &list[((key ^ key >> 32) + (uint64_t)k) % TERSE_THROTTLES];
}

terse_throttle *terse_throttle_find(terse_throttle *list, uint64_t key)
{
    for (int k = 0; k < PLACES; k++)
        if (place_of(list, key, k)->key == key)
            return place_of(list, key, k);
    return NULL;
}

terse_throttle *terse_throttle_of(terse_throttle *list, uint64_t key)
{
    terse_throttle *found = terse_throttle_find(list, key), *oldest = NULL;
    for (int k = 0; k < PLACES && !found; k++) {
        terse_throttle *t = place_of(list, key, k);
        const bool older =
            !oldest || t->active < oldest->active || (t->active == oldest->active && t->window_ns < oldest->window_ns);
        oldest = older ? t : oldest;
    }
    if (!found)
        *oldest = (terse_throttle){.key = key};
    return found ? found : oldest;
}

void terse_throttle_forget(terse_throttle *list)
{
    for (int k = 0; k < TERSE_THROTTLES; k++)
        list[k] = (terse_throttle){0};
}

static double limit_of(const terse_throttle *t)
{
    const double limit = headroom * t->rate;
    return limit > least_rate ? limit : least_rate;
}

static void fill(terse_throttle *t, uint64_t now)
{
    const double limit = limit_of(t), most = limit * burst_s + 1;
    t->tokens += limit * (double)(now - t->filled_ns) / 1e9;
    t->tokens = t->tokens < most ? t->tokens : most;
    t->filled_ns = now;
}

/* The end of a window: what the daemon took and refused in it decides about the next. */
static void turn(terse_throttle *t, uint64_t now, uint64_t spare)
{
    const double seconds = (double)(now - t->window_ns) / 1e9;
    const double taken = (double)t->taken / seconds, refused = (double)t->refused / seconds;
    const bool stale = now - t->window_ns >= stale_ns, flooded = !stale && refused > (double)spare;
    if (!t->active && flooded) {
        t->active = true;
        t->rate = taken;
        t->tokens = 0;
        t->filled_ns = now;
    } else if (t->active && (stale || (t->here == 0 && !flooded))) {
        t->active = false;
    } else if (t->active && refused < few * taken && t->rate < taken * headroom) {
        t->rate *= headroom; /* it takes nearly all that it is sent */
    } else if (t->active) {
        t->rate += 0.5 * (taken - t->rate);
    }
    if (t->active)
        snprintf(t->text, sizeof t->text,
                 "refused by libterse: the daemon takes %.0f of these requests a second; %.0f more were refused by it, "
                 "%.0f here; after %" PRIu64 " ms it may take one",
                 taken, refused, (double)t->here / seconds, t->retry_after_ms);
    t->window_ns = now;
    t->taken = t->refused = t->here = 0;
}

void terse_throttle_taken(terse_throttle *t)
{
    t->taken++;
}

void terse_throttle_refused(terse_throttle *t, uint64_t now, uint64_t spare, terse_status status,
                            uint64_t retry_after_ms)
{
    t->status = status;
    t->retry_after_ms = retry_after_ms;
    t->refused++;
    if (now - t->window_ns >= window_ns)
        turn(t, now, spare);
}

bool terse_throttle_refuses(terse_throttle *t, uint64_t now, uint64_t spare)
{
    if (now - t->window_ns >= window_ns)
        turn(t, now, spare);
    if (!t->active)
        return false;
    fill(t, now);
    if (t->tokens >= 1) {
        t->tokens -= 1;
        return false;
    }
    t->here++;
    return true;
}
