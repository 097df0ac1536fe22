/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/slots.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/bytes.h"

enum { SECOND_BITS = 4, SECOND = 1 << SECOND_BITS, FIRST = 40 };

/* A range, free or taken, in the order of its addresses. Handles are indices: the array may move. */
typedef struct range {
    uint64_t at, units;      /* in units of TERSE_SLOT_ALIGN bytes */
    uint32_t before, behind; /* neighbours in memory */
    uint32_t previous, next; /* of the same free list; `next` also chains unused entries */
    bool free;
} range;

struct terse_slots {
    int fd;
    uint8_t *base;
    uint64_t bytes, used;
    range *ranges;
    uint32_t n_ranges, unused; /* entries made so far; first unused one */
    uint64_t first_map;
    uint32_t second_map[FIRST];
    uint32_t lists[FIRST][SECOND];
};

static unsigned log2_of(uint64_t value)
{
    return 63u - (unsigned)__builtin_clzll(value);
}

static void list_of(uint64_t units, unsigned *first, unsigned *second)
{
    *first = log2_of(units);
    *second = *first >= SECOND_BITS ? (unsigned)(units >> (*first - SECOND_BITS)) & (SECOND - 1)
                                    : (unsigned)(units << (SECOND_BITS - *first)) & (SECOND - 1);
}

static void unlink_free(terse_slots *slots, uint32_t index)
{
    range *r = &slots->ranges[index];
    unsigned first, second;
    list_of(r->units, &first, &second);
    if (r->next != TERSE_SLOT_NONE)
        slots->ranges[r->next].previous = r->previous;
    if (r->previous != TERSE_SLOT_NONE)
        slots->ranges[r->previous].next = r->next;
    else
        slots->lists[first][second] = r->next;
    if (slots->lists[first][second] == TERSE_SLOT_NONE) {
        slots->second_map[first] &= ~(1u << second);
        if (!slots->second_map[first])
            slots->first_map &= ~(UINT64_C(1) << first);
    }
    r->free = false;
}

static void link_free(terse_slots *slots, uint32_t index)
{
    range *r = &slots->ranges[index];
    unsigned first, second;
    list_of(r->units, &first, &second);
    r->previous = TERSE_SLOT_NONE;
    r->next = slots->lists[first][second];
    if (r->next != TERSE_SLOT_NONE)
        slots->ranges[r->next].previous = index;
    slots->lists[first][second] = index;
    slots->second_map[first] |= 1u << second;
    slots->first_map |= UINT64_C(1) << first;
    r->free = true;
}

/* An entry for one more range; TERSE_SLOT_NONE when memory is out. */
static uint32_t new_entry(terse_slots *slots)
{
    if (slots->unused == TERSE_SLOT_NONE) {
        const uint32_t grown = slots->n_ranges ? 2 * slots->n_ranges : 256;
        range *ranges = grown > slots->n_ranges ? reallocarray(slots->ranges, grown, sizeof *ranges) : NULL;
        if (!ranges)
            return TERSE_SLOT_NONE;
        slots->ranges = ranges;
        for (uint32_t i = grown; i > slots->n_ranges; i--) {
            ranges[i - 1] = (range){.next = slots->unused};
            slots->unused = i - 1;
        }
        slots->n_ranges = grown;
    }
    const uint32_t index = slots->unused;
    slots->unused = slots->ranges[index].next;
    return index;
}

static void drop_entry(terse_slots *slots, uint32_t index)
{
    slots->ranges[index].next = slots->unused;
    slots->unused = index;
}

static int open_memory(terse_slots *slots, const char *name, bool read_only, terse_error *error)
{
    slots->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (slots->fd < 0 || ftruncate(slots->fd, (off_t)slots->bytes) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot make %" PRIu64 " bytes of %s", slots->bytes, name);
    void *base = mmap(NULL, slots->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, slots->fd, 0);
    if (base == MAP_FAILED)
        return terse_fail(error, TERSE_SYSTEM, "cannot map %" PRIu64 " bytes of %s", slots->bytes, name);
    slots->base = base;
    /* Our own mapping was made before the seal and stays writable. */
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | (read_only ? F_SEAL_FUTURE_WRITE : 0);
    if (fcntl(slots->fd, F_ADD_SEALS, seals) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot seal %s", name);
    return TERSE_OK;
}

int terse_slots_open(const char *name, uint64_t bytes, bool read_only, terse_slots **ret_slots, terse_error *error)
{
    terse_slots *slots = calloc(1, sizeof *slots);
    if (!slots)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for %s", name);
    slots->fd = -1;
    slots->bytes = bytes & ~(uint64_t)(TERSE_SLOT_ALIGN - 1);
    slots->unused = TERSE_SLOT_NONE;
    memset(slots->lists, 0xff, sizeof slots->lists);
    int status = slots->bytes ? TERSE_OK : terse_fail(error, TERSE_INVALID_ARGUMENT, "%s of 0 bytes", name);
    if (!status)
        status = open_memory(slots, name, read_only, error);
    const uint32_t whole = status ? 0 : new_entry(slots);
    if (!status && whole == TERSE_SLOT_NONE)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for %s", name);
    if (status) {
        terse_slots_close(slots);
        return status;
    }
    slots->ranges[whole] =
        (range){.units = slots->bytes / TERSE_SLOT_ALIGN, .before = TERSE_SLOT_NONE, .behind = TERSE_SLOT_NONE};
    link_free(slots, whole);
    *ret_slots = slots;
    return TERSE_OK;
}

void terse_slots_close(terse_slots *slots)
{
    if (!slots)
        return;
    if (slots->base)
        munmap(slots->base, slots->bytes);
    terse_close_fdp(&slots->fd);
    free(slots->ranges);
    free(slots);
}

int terse_slots_fd(const terse_slots *slots)
{
    return slots->fd;
}

uint64_t terse_slots_bytes(const terse_slots *slots)
{
    return slots->bytes;
}

uint64_t terse_slots_used(const terse_slots *slots)
{
    return slots->used;
}

/* The first free range of a list whose ranges all have `units` at least. */
static uint32_t find(const terse_slots *slots, uint64_t units)
{
    unsigned first, second;
    const unsigned top = log2_of(units);
    const uint64_t step = top > SECOND_BITS ? (UINT64_C(1) << (top - SECOND_BITS)) - 1 : 0;
    list_of(units + step, &first, &second);
    const uint32_t in_first = slots->second_map[first] & (~0u << second);
    if (in_first)
        return slots->lists[first][__builtin_ctz(in_first)];
    const uint64_t larger = slots->first_map & (~UINT64_C(0) << (first + 1));
    if (larger) {
        first = (unsigned)__builtin_ctzll(larger);
        return slots->lists[first][__builtin_ctz(slots->second_map[first])];
    }
    /* No list is large enough for sure; the list of the size itself may still hold a range that fits. */
    list_of(units, &first, &second);
    uint32_t i = slots->lists[first][second];
    for (int tries = 0; tries < 16 && i != TERSE_SLOT_NONE; tries++, i = slots->ranges[i].next)
        if (slots->ranges[i].units >= units)
            return i;
    return TERSE_SLOT_NONE;
}

uint32_t terse_slots_take(terse_slots *slots, uint64_t bytes)
{
    if (bytes > slots->bytes)
        return TERSE_SLOT_NONE;
    const uint64_t units = bytes ? (bytes + TERSE_SLOT_ALIGN - 1) / TERSE_SLOT_ALIGN : 1;
    const uint32_t index = find(slots, units);
    if (index == TERSE_SLOT_NONE)
        return index;
    uint32_t rest = TERSE_SLOT_NONE;
    if (slots->ranges[index].units > units) {
        rest = new_entry(slots);
        if (rest == TERSE_SLOT_NONE)
            return rest;
    }
    unlink_free(slots, index);
    range *r = &slots->ranges[index];
    if (rest != TERSE_SLOT_NONE) {
        slots->ranges[rest] =
            (range){.at = r->at + units, .units = r->units - units, .before = index, .behind = r->behind};
        if (r->behind != TERSE_SLOT_NONE)
            slots->ranges[r->behind].before = rest;
        r->behind = rest;
        r->units = units;
        link_free(slots, rest);
    }
    slots->used += units * TERSE_SLOT_ALIGN;
    return index;
}

/* Appends `second` to `first`, its neighbour in memory. */
static void merge(terse_slots *slots, uint32_t first, uint32_t second)
{
    range *r = &slots->ranges[first];
    r->units += slots->ranges[second].units;
    r->behind = slots->ranges[second].behind;
    if (r->behind != TERSE_SLOT_NONE)
        slots->ranges[r->behind].before = first;
    drop_entry(slots, second);
}

void terse_slots_give(terse_slots *slots, uint32_t slot)
{
    assert(slot < slots->n_ranges && !slots->ranges[slot].free);
    slots->used -= slots->ranges[slot].units * TERSE_SLOT_ALIGN;
    const uint32_t behind = slots->ranges[slot].behind, before = slots->ranges[slot].before;
    if (behind != TERSE_SLOT_NONE && slots->ranges[behind].free) {
        unlink_free(slots, behind);
        merge(slots, slot, behind);
    }
    if (before != TERSE_SLOT_NONE && slots->ranges[before].free) {
        unlink_free(slots, before);
        merge(slots, before, slot);
        slot = before;
    }
    link_free(slots, slot);
}

uint64_t terse_slots_offset(const terse_slots *slots, uint32_t slot)
{
    return slots->ranges[slot].at * TERSE_SLOT_ALIGN;
}

uint64_t terse_slots_size(const terse_slots *slots, uint32_t slot)
{
    return slots->ranges[slot].units * TERSE_SLOT_ALIGN;
}

void *terse_slots_data(const terse_slots *slots, uint32_t slot)
{
    return slots->base + terse_slots_offset(slots, slot);
}
