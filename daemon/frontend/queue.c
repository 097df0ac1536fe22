/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/queue.h"

#include <assert.h>
#include <stdlib.h>

void terse_queue_done(terse_queue *queue)
{
    free(queue->heap);
    *queue = (terse_queue){0};
}

static void unlink_from(terse_request_list *list, terse_request *request)
{
    if (request->previous)
        request->previous->next = request->next;
    else
        list->first = request->next;
    if (request->next)
        request->next->previous = request->previous;
    else
        list->last = request->previous;
    request->previous = request->next = NULL;
}

/* Links `request` behind `after`, first when that is NULL. */
static void link_behind(terse_request_list *list, terse_request *after, terse_request *request)
{
    request->previous = after;
    request->next = after ? after->next : list->first;
    if (request->next)
        request->next->previous = request;
    else
        list->last = request;
    if (after)
        after->next = request;
    else
        list->first = request;
}

/* --- one level: those with a deadline in a pairing heap -------------------------------------------------------- */

static bool sooner(const terse_request *a, const terse_request *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->sequence < b->sequence;
}

/* One heap of two; either may be NULL. */
static terse_request *meld(terse_request *a, terse_request *b)
{
    if (!a || !b)
        return a ? a : b;
    if (sooner(b, a)) {
        terse_request *swap = a;
        a = b;
        b = swap;
    }
    b->heap_next = a->heap_child;
    if (b->heap_next)
        b->heap_next->heap_previous = b;
    b->heap_previous = a;
    a->heap_child = b;
    return a;
}

/* Melds a row of siblings: in pairs first, then the pairs from the last to the first. */
static terse_request *meld_row(terse_request *first)
{
    terse_request *pairs = NULL, *whole = NULL;
    while (first) {
        terse_request *a = first, *b = a->heap_next;
        first = b ? b->heap_next : NULL;
        a->heap_next = a->heap_previous = NULL;
        if (b)
            b->heap_next = b->heap_previous = NULL;
        terse_request *pair = meld(a, b);
        pair->heap_next = pairs;
        pairs = pair;
    }
    while (pairs) {
        terse_request *next = pairs->heap_next;
        pairs->heap_next = NULL;
        whole = meld(whole, pairs);
        pairs = next;
    }
    return whole;
}

static void heap_remove(terse_level *level, terse_request *request)
{
    terse_request *children = meld_row(request->heap_child);
    if (level->soonest == request) {
        level->soonest = children;
    } else {
        if (request->heap_previous->heap_child == request)
            request->heap_previous->heap_child = request->heap_next;
        else
            request->heap_previous->heap_next = request->heap_next;
        if (request->heap_next)
            request->heap_next->heap_previous = request->heap_previous;
        level->soonest = meld(level->soonest, children);
    }
    request->heap_child = request->heap_next = request->heap_previous = NULL;
}

static void level_add(terse_level *level, terse_request *request)
{
    terse_request *after = level->arrived.last;
    if (after && after->sequence > request->sequence) {
        /* It comes back: those that are older still stand at the front, and are few. */
        after = NULL;
        for (terse_request *r = level->arrived.first; r && r->sequence < request->sequence; r = r->next)
            after = r;
    }
    link_behind(&level->arrived, after, request);
    level->work_ns += request->work_ns;
    if (request->deadline_ns == TERSE_NO_DEADLINE) {
        level->endless_ns += request->work_ns;
        return;
    }
    if (level->n_deadlines++ == 0 || level->latest_ns < request->deadline_ns)
        level->latest_ns = request->deadline_ns;
    level->soonest = meld(level->soonest, request);
}

static void level_remove(terse_level *level, terse_request *request)
{
    unlink_from(&level->arrived, request);
    level->work_ns -= request->work_ns;
    if (request->deadline_ns == TERSE_NO_DEADLINE) {
        level->endless_ns -= request->work_ns;
        return;
    }
    level->n_deadlines--;
    heap_remove(level, request);
}

/* Where none has a deadline all stand in the order of arrival. */
static terse_request *level_first(const terse_level *level)
{
    return level->soonest ? level->soonest : level->arrived.first;
}

/* --- lanes --------------------------------------------------------------------------------------------------- */

static void lane_gets_busy(terse_queue *queue, terse_lane *lane)
{
    lane->previous_busy = NULL;
    lane->next_busy = queue->busy;
    if (queue->busy)
        queue->busy->previous_busy = lane;
    queue->busy = lane;
}

static void lane_gets_empty(terse_queue *queue, terse_lane *lane)
{
    if (lane->previous_busy)
        lane->previous_busy->next_busy = lane->next_busy;
    else
        queue->busy = lane->next_busy;
    if (lane->next_busy)
        lane->next_busy->previous_busy = lane->previous_busy;
    lane->previous_busy = lane->next_busy = NULL;
}

static void share_add(terse_queue *queue, terse_share *share, const terse_request *request)
{
    share->work_ns += request->work_ns;
    share->n_bytes += request->input_bytes;
    if (share->n_requests++ > 0)
        return;
    terse_share_wake(share, queue->clock_ns);
    share->previous_busy = NULL;
    share->next_busy = queue->busy_shares;
    if (queue->busy_shares)
        queue->busy_shares->previous_busy = share;
    queue->busy_shares = share;
}

static void share_remove(terse_queue *queue, terse_share *share, const terse_request *request)
{
    share->work_ns -= request->work_ns;
    share->n_bytes -= request->input_bytes;
    if (--share->n_requests > 0)
        return;
    if (share->previous_busy)
        share->previous_busy->next_busy = share->next_busy;
    else
        queue->busy_shares = share->next_busy;
    if (share->next_busy)
        share->next_busy->previous_busy = share->previous_busy;
    share->previous_busy = share->next_busy = NULL;
}

void terse_queue_push(terse_queue *queue, terse_request *request)
{
    terse_lane *lane = request->lane;
    if (request->sequence == 0)
        request->sequence = ++queue->next_sequence;
    if (lane->n_requests++ == 0)
        lane_gets_busy(queue, lane);
    share_add(queue, lane->share, request);
    lane->n_rows += request->rows;
    lane->mask |= 1u << request->priority;
    queue->n_requests++;
    queue->n_bytes += request->input_bytes;
    request->state = TERSE_REQUEST_QUEUED;
    level_add(&lane->levels[request->priority], request);
}

void terse_queue_push_suspect(terse_queue *queue, terse_request *request)
{
    queue->n_requests++;
    queue->n_bytes += request->input_bytes;
    request->state = TERSE_REQUEST_SUSPECT;
    link_behind(&queue->suspects, queue->suspects.last, request);
}

void terse_queue_remove(terse_queue *queue, terse_request *request)
{
    assert(request->state == TERSE_REQUEST_QUEUED || request->state == TERSE_REQUEST_SUSPECT);
    queue->n_requests--;
    queue->n_bytes -= request->input_bytes;
    if (request->state == TERSE_REQUEST_SUSPECT) {
        unlink_from(&queue->suspects, request);
        return;
    }
    terse_lane *lane = request->lane;
    terse_level *level = &lane->levels[request->priority];
    level_remove(level, request);
    if (!level->arrived.first)
        lane->mask &= ~(1u << request->priority);
    lane->n_rows -= request->rows;
    share_remove(queue, lane->share, request);
    if (--lane->n_requests == 0)
        lane_gets_empty(queue, lane);
}

/* --- whose turn it is ---------------------------------------------------------------------------------------- */

static terse_request *oldest_of(const terse_lane *lane)
{
    terse_request *oldest = NULL;
    for (uint32_t mask = lane->mask; mask; mask &= mask - 1) {
        terse_request *first = lane->levels[__builtin_ctz(mask)].arrived.first;
        if (!oldest || first->arrival_ns < oldest->arrival_ns)
            oldest = first;
    }
    return oldest;
}

static const terse_level *top_level(const terse_lane *lane)
{
    return &lane->levels[31 - __builtin_clz(lane->mask)];
}

static bool is_aged(const terse_request *request, uint64_t now_ns)
{
    return request && now_ns > request->arrival_ns && now_ns - request->arrival_ns >= TERSE_QUEUE_AGE_NS;
}

terse_request *terse_queue_first(const terse_lane *lane, uint64_t now_ns)
{
    if (!lane->mask)
        return NULL;
    if (lane->turns % TERSE_QUEUE_TURNS == TERSE_QUEUE_TURNS - 1) {
        terse_request *oldest = oldest_of(lane);
        if (is_aged(oldest, now_ns))
            return oldest;
    }
    return level_first(top_level(lane));
}

void terse_queue_take(terse_queue *queue, terse_request *request)
{
    if (request->state == TERSE_REQUEST_QUEUED)
        request->lane->turns++;
    terse_queue_remove(queue, request);
}

bool terse_queue_lane_before(const terse_lane *a, const terse_lane *b)
{
    const int top_a = 31 - __builtin_clz(a->mask), top_b = 31 - __builtin_clz(b->mask);
    if (top_a != top_b)
        return top_a > top_b;
    if (a->share != b->share && a->share->clock_ns != b->share->clock_ns)
        return a->share->clock_ns < b->share->clock_ns;
    return sooner(level_first(top_level(a)), level_first(top_level(b)));
}

terse_lane *terse_queue_aged_lane(const terse_queue *queue, uint64_t now_ns)
{
    const terse_request *oldest = NULL;
    if (queue->turns % TERSE_QUEUE_TURNS != TERSE_QUEUE_TURNS - 1)
        return NULL;
    for (const terse_lane *lane = queue->busy; lane; lane = lane->next_busy) {
        const terse_request *own = oldest_of(lane);
        if (!oldest || own->arrival_ns < oldest->arrival_ns)
            oldest = own;
    }
    return is_aged(oldest, now_ns) ? oldest->lane : NULL;
}

uint64_t terse_queue_oldest_ns(const terse_lane *lane)
{
    const terse_request *oldest = oldest_of(lane);
    return oldest ? oldest->arrival_ns : UINT64_MAX;
}

uint64_t terse_queue_deadline_ns(const terse_lane *lane)
{
    uint64_t earliest = TERSE_NO_DEADLINE;
    for (uint32_t mask = lane->mask; mask; mask &= mask - 1) {
        const terse_request *first = lane->levels[__builtin_ctz(mask)].soonest;
        if (first && first->deadline_ns < earliest)
            earliest = first->deadline_ns;
    }
    return earliest;
}

uint64_t terse_queue_ahead_ns(const terse_lane *lane, unsigned priority, uint64_t deadline_ns)
{
    uint64_t ahead = 0;
    for (unsigned p = priority + 1; p < TERSE_PRIORITIES; p++)
        ahead += lane->levels[p].work_ns;
    const terse_level *level = &lane->levels[priority];
    if (deadline_ns == TERSE_NO_DEADLINE)
        return ahead + level->work_ns;
    const uint64_t work = level->work_ns - level->endless_ns;
    if (level->n_deadlines == 0 || deadline_ns < level->soonest->deadline_ns)
        return ahead;
    if (deadline_ns >= level->latest_ns)
        return ahead + work;
    const double part =
        (double)(deadline_ns - level->soonest->deadline_ns) / (double)(level->latest_ns - level->soonest->deadline_ns);
    return ahead + (uint64_t)((double)work * part);
}

/* --- deadlines: a binary heap -------------------------------------------------------------------------------- */

static void place(terse_queue *queue, uint32_t at, terse_request *request)
{
    queue->heap[at] = request;
    request->heap_at = at + 1;
}

static void sift_up(terse_queue *queue, uint32_t at, terse_request *request)
{
    while (at > 0 && queue->heap[(at - 1) / 2]->deadline_ns > request->deadline_ns) {
        place(queue, at, queue->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(queue, at, request);
}

static void sift_down(terse_queue *queue, uint32_t at, terse_request *request)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= queue->heap_size)
            break;
        if (child + 1 < queue->heap_size && queue->heap[child + 1]->deadline_ns < queue->heap[child]->deadline_ns)
            child++;
        if (queue->heap[child]->deadline_ns >= request->deadline_ns)
            break;
        place(queue, at, queue->heap[child]);
        at = child;
    }
    place(queue, at, request);
}

bool terse_queue_deadline_add(terse_queue *queue, terse_request *request)
{
    if (request->deadline_ns == TERSE_NO_DEADLINE)
        return true;
    if (queue->heap_size == queue->heap_capacity) {
        const uint32_t capacity = queue->heap_capacity ? 2 * queue->heap_capacity : 256;
        terse_request **heap = reallocarray(queue->heap, capacity, sizeof(terse_request *));
        if (!heap)
            return false;
        queue->heap = heap;
        queue->heap_capacity = capacity;
    }
    sift_up(queue, queue->heap_size++, request);
    return true;
}

void terse_queue_deadline_remove(terse_queue *queue, terse_request *request)
{
    if (request->heap_at == 0)
        return;
    const uint32_t at = request->heap_at - 1;
    terse_request *last = queue->heap[--queue->heap_size];
    request->heap_at = 0;
    if (last == request)
        return;
    if (at > 0 && queue->heap[(at - 1) / 2]->deadline_ns > last->deadline_ns)
        sift_up(queue, at, last);
    else
        sift_down(queue, at, last);
}

terse_request *terse_queue_deadline_first(const terse_queue *queue)
{
    return queue->heap_size ? queue->heap[0] : NULL;
}
