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

void terse_queue_push(terse_queue *queue, terse_request *request)
{
    terse_lane *lane = request->lane;
    terse_request_list *list = &lane->waiting[request->priority];
    if (request->sequence == 0)
        request->sequence = ++queue->next_sequence;
    if (lane->n_requests++ == 0)
        lane_gets_busy(queue, lane);
    lane->n_rows += request->rows;
    lane->mask |= 1u << request->priority;
    queue->n_requests++;
    request->state = TERSE_REQUEST_QUEUED;
    terse_request *after = list->last;
    if (after && after->sequence > request->sequence) {
        /* It comes back: those that are older still stand at the front, and are few. */
        after = NULL;
        for (terse_request *r = list->first; r && r->sequence < request->sequence; r = r->next)
            after = r;
    }
    link_behind(list, after, request);
}

void terse_queue_push_suspect(terse_queue *queue, terse_request *request)
{
    queue->n_requests++;
    request->state = TERSE_REQUEST_SUSPECT;
    link_behind(&queue->suspects, queue->suspects.last, request);
}

void terse_queue_remove(terse_queue *queue, terse_request *request)
{
    assert(request->state == TERSE_REQUEST_QUEUED || request->state == TERSE_REQUEST_SUSPECT);
    queue->n_requests--;
    if (request->state == TERSE_REQUEST_SUSPECT) {
        unlink_from(&queue->suspects, request);
        return;
    }
    terse_lane *lane = request->lane;
    terse_request_list *list = &lane->waiting[request->priority];
    unlink_from(list, request);
    if (!list->first)
        lane->mask &= ~(1u << request->priority);
    lane->n_rows -= request->rows;
    if (--lane->n_requests == 0)
        lane_gets_empty(queue, lane);
}

static terse_request *first_of_mask(const terse_lane *lane, uint32_t mask)
{
    return mask ? lane->waiting[31 - __builtin_clz(mask)].first : NULL;
}

terse_request *terse_queue_first(const terse_lane *lane)
{
    return first_of_mask(lane, lane->mask);
}

terse_request *terse_queue_next(const terse_request *request)
{
    if (request->next)
        return request->next;
    return first_of_mask(request->lane, request->lane->mask & ((1u << request->priority) - 1));
}

uint64_t terse_queue_oldest_ns(const terse_lane *lane)
{
    uint64_t oldest = UINT64_MAX;
    for (uint32_t mask = lane->mask; mask; mask &= mask - 1) {
        const terse_request *first = lane->waiting[__builtin_ctz(mask)].first;
        if (first->arrival_ns < oldest)
            oldest = first->arrival_ns;
    }
    return oldest;
}

uint64_t terse_queue_deadline_ns(const terse_lane *lane, uint32_t limit)
{
    uint64_t earliest = TERSE_NO_DEADLINE;
    for (const terse_request *r = terse_queue_first(lane); r && limit > 0; r = terse_queue_next(r), limit--)
        if (r->deadline_ns < earliest)
            earliest = r->deadline_ns;
    return earliest;
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
