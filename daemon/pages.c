/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/pages.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define LARGE ((size_t)2 << 20) /* where small ones have 4 KiB */
/* Clearing one takes 0.2 ms; ten times that and more where pages have to be moved out of the way, or where a virtual
 * machine has to get the memory first. Small pages are there sooner then. */
#define SLOW_NS UINT64_C(1000000)
/* The kernel waits for threads of its own on every processor, behind whatever keeps these busy. */
#define LATE_NS UINT64_C(20000000)

static size_t small_page(void)
{
    const long bytes = sysconf(_SC_PAGESIZE);
    return bytes > 0 ? (size_t)bytes : 4096;
}

static uint64_t read_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* One page; false: there is none, or it took too long. */
static bool make_one(uint8_t *at)
{
    const uint64_t used = read_ns(CLOCK_THREAD_CPUTIME_ID), start = read_ns(CLOCK_MONOTONIC);
    return madvise(at, LARGE, MADV_COLLAPSE) == 0 && read_ns(CLOCK_THREAD_CPUTIME_ID) - used < SLOW_NS &&
           read_ns(CLOCK_MONOTONIC) - start < LATE_NS;
}

/* Where none is free the system makes some, which can take a third of a second: it is not asked for that. */
uint64_t terse_pages_at_hand(void)
{
    FILE *file = fopen("/proc/buddyinfo", "re");
    char line[512];
    uint64_t bytes = 0;
    if (!file)
        return UINT64_MAX;
    while (fgets(line, sizeof line, file)) { /* "Node 0, zone Normal", then blocks of 1, 2, 4 ... small pages */
        int read = 0;
        size_t block = small_page();
        if (sscanf(line, "Node %*d, zone %*s%n", &read) < 0 || read == 0)
            continue;
        char *at = line + read, *end;
        for (uint64_t n = strtoull(at, &end, 10); end != at; n = strtoull(at, &end, 10), block *= 2) {
            bytes += block >= LARGE ? n * block : 0;
            at = end;
        }
    }
    fclose(file);
    return bytes;
}

void terse_pages_enlarge(int fd, uint64_t bytes, uint64_t at_hand)
{
    /* A rest of less than half a page stays in small ones. */
    const size_t length = (size_t)((bytes + LARGE / 2) / LARGE * LARGE);
    uint8_t *base =
        length && small_page() == 4096 ? terse_pages_map(fd, length, PROT_READ | PROT_WRITE, MAP_SHARED) : MAP_FAILED;
    if (base == MAP_FAILED)
        return;
    for (size_t at = 0; at < length && at + LARGE <= at_hand; at += LARGE)
        /* What is all hole is not collapsed. Not by a store: where memory is out that would be SIGBUS. */
        if (lseek(fd, (off_t)at, SEEK_SET) < 0 || write(fd, "", 1) != 1 || !make_one(base + at))
            break;
    munmap(base, length);
}

void *terse_pages_map(int fd, uint64_t bytes, int protection, int flags)
{
    if (bytes < LARGE / 2)
        return mmap(NULL, bytes, protection, flags, fd, 0);
    uint8_t *all = mmap(NULL, bytes + LARGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return MAP_FAILED;
    const size_t page = small_page(), before = (LARGE - (uintptr_t)all % LARGE) % LARGE;
    const size_t kept = before + (bytes + page - 1) / page * page, length = (bytes + LARGE + page - 1) / page * page;
    void *base = mmap(all + before, bytes, protection, flags | MAP_FIXED, fd, 0);
    if (base == MAP_FAILED) {
        munmap(all, length);
        return MAP_FAILED;
    }
    if (before)
        munmap(all, before);
    if (length > kept)
        munmap(all + kept, length - kept);
    return base;
}

/* From the end: what is left is one mapping. */
void terse_pages_unmap(void *base, size_t bytes)
{
    while (bytes > LARGE / 2) {
        const size_t rest = bytes % (LARGE / 2), piece = rest ? rest : LARGE / 2;
        bytes -= piece;
        munmap((uint8_t *)base + bytes, piece);
    }
    munmap(base, bytes);
}
