/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/pages.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define LARGE ((size_t)2 << 20) /* where small ones have 4 KiB */
/* Clearing one takes 0.2 ms, during which nobody else gets this processor; ten times that and more where pages have to
 * be moved out of the way, or where a virtual machine has to get the memory first. Small pages make others wait less.
 */
#define SLOW_NS UINT64_C(1000000)

static size_t small_page(void)
{
    const long bytes = sysconf(_SC_PAGESIZE);
    return bytes > 0 ? (size_t)bytes : 4096;
}

/* Processor time: who is preempted has not been slow. */
static uint64_t used_ns(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void terse_pages_enlarge(int fd, uint64_t bytes, bool while_served)
{
    /* A rest of less than half a page stays in small ones. */
    const size_t length = (size_t)((bytes + LARGE / 2) / LARGE * LARGE);
    uint8_t *base =
        length && small_page() == 4096 ? terse_pages_map(fd, length, PROT_READ | PROT_WRITE, MAP_SHARED) : MAP_FAILED;
    if (base == MAP_FAILED)
        return;
    bool slow = false;
    for (size_t at = 0; at < length && !slow; at += LARGE) {
        const uint64_t start = used_ns();
        /* What is all hole is not collapsed. Not by a store: where memory is out that would be SIGBUS. */
        if (lseek(fd, (off_t)at, SEEK_SET) < 0 || write(fd, "", 1) != 1)
            break;
        slow = madvise(base + at, LARGE, MADV_COLLAPSE) != 0 || (while_served && used_ns() - start > SLOW_NS);
    }
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
