/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/finished.h"

#include <stdlib.h>
#include <string.h>

/* WAYS positions to a set; BYTES_PER_WAY: about the smallest entry, so that the index never forgets before the ring. */
enum { WAYS = 4, BYTES_PER_WAY = 256, ALIGN = 8 };

typedef struct entry {
    uint8_t session[TERSE_WIRE_SESSION_BYTES];
    uint64_t id;
    uint32_t n_parts;
    uint32_t sizes[TERSE_FINISHED_MAX_PARTS]; /* only n_parts of them are there, then the parts' bytes */
} entry;

struct terse_finished {
    uint8_t *ring;
    uint64_t capacity;
    uint64_t end;           /* position behind the newest entry; positions start at `capacity`, so that 0 is none */
    uint64_t (*sets)[WAYS]; /* the newest first */
    uint64_t n_sets;        /* a power of two */
};

static uint64_t *set_of(const terse_finished *finished, const uint8_t *session, uint64_t id)
{
    uint64_t half;
    memcpy(&half, session, sizeof half); /* random bytes: as good as a hash */
    const uint64_t hash = (half + id) * UINT64_C(0x9e3779b97f4a7c15);
    return finished->sets[(hash >> 32) & (finished->n_sets - 1)];
}

terse_finished *terse_finished_new(uint64_t bytes)
{
    terse_finished *finished = calloc(1, sizeof *finished);
    if (!finished || bytes == 0)
        return finished;
    finished->capacity = finished->end = bytes / ALIGN * ALIGN;
    finished->n_sets = 1;
    while (finished->n_sets * WAYS * BYTES_PER_WAY < bytes)
        finished->n_sets *= 2;
    finished->ring = malloc(finished->capacity);
    finished->sets = calloc(finished->n_sets, sizeof *finished->sets);
    if (!finished->ring || !finished->sets) {
        terse_finished_free(finished);
        return NULL;
    }
    return finished;
}

void terse_finished_free(terse_finished *finished)
{
    if (!finished)
        return;
    free(finished->ring);
    free(finished->sets);
    free(finished);
}

static size_t head_bytes(uint32_t n_parts)
{
    return offsetof(entry, sizes) + n_parts * sizeof(uint32_t);
}

void terse_finished_keep(terse_finished *finished, const uint8_t *session, uint64_t id,
                         const terse_finished_part *parts, uint32_t n)
{
    const uint64_t most = finished->capacity / TERSE_FINISHED_PART;
    uint64_t bytes = 0;
    if (n < 1 || n > TERSE_FINISHED_MAX_PARTS)
        return;
    for (uint32_t i = 0; i < n; i++) {
        if (parts[i].bytes > most)
            return;
        bytes += parts[i].bytes;
    }
    const uint64_t taken = (head_bytes(n) + bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (taken > most)
        return;
    entry head = {.id = id, .n_parts = n};
    memcpy(head.session, session, sizeof head.session);
    for (uint32_t i = 0; i < n; i++)
        head.sizes[i] = (uint32_t)parts[i].bytes;
    uint64_t position = finished->end, at = position % finished->capacity;
    if (at + taken > finished->capacity) { /* no entry lies across the ring's end */
        position += finished->capacity - at;
        at = 0;
    }
    uint8_t *to = finished->ring + at;
    memcpy(to, &head, head_bytes(n));
    to += head_bytes(n);
    for (uint32_t i = 0; i < n; i++) {
        if (parts[i].bytes > 0)
            memcpy(to, parts[i].data, parts[i].bytes);
        to += parts[i].bytes;
    }
    finished->end = position + taken;
    uint64_t *set = set_of(finished, session, id);
    memmove(set + 1, set, (WAYS - 1) * sizeof *set);
    set[0] = position;
}

uint32_t terse_finished_find(const terse_finished *finished, const uint8_t *session, uint64_t id,
                             terse_finished_part *ret_parts)
{
    if (finished->capacity == 0)
        return 0;
    const uint64_t *set = set_of(finished, session, id);
    for (int way = 0; way < WAYS; way++) {
        if (set[way] == 0 || set[way] + finished->capacity < finished->end)
            continue; /* none, or overwritten since */
        entry head;
        const uint8_t *from = finished->ring + set[way] % finished->capacity;
        memcpy(&head, from, offsetof(entry, sizes));
        if (head.id != id || memcmp(head.session, session, sizeof head.session) != 0)
            continue;
        memcpy(head.sizes, from + offsetof(entry, sizes), head.n_parts * sizeof head.sizes[0]);
        from += head_bytes(head.n_parts);
        for (uint32_t i = 0; i < head.n_parts; i++) {
            ret_parts[i] = (terse_finished_part){from, head.sizes[i]};
            from += head.sizes[i];
        }
        return head.n_parts;
    }
    return 0;
}
