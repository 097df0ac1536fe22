/* SPDX-License-Identifier: Apache-2.0 */
#include "common/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void terse_freep(void *pointer_to_pointer)
{
    void *pointer;
    memcpy(&pointer, pointer_to_pointer, sizeof pointer);
    free(pointer);
}

void terse_close_fdp(int *fd)
{
    if (*fd < 0)
        return;
    const int saved = errno;
    close(*fd);
    errno = saved;
    *fd = -1;
}

/* Blocks are chained; a request larger than a block gets a block of its own. */
enum { BLOCK_BYTES = 64 * 1024 };

typedef struct block {
    struct block *next;
    size_t used, size;
} block;

struct terse_arena {
    block *blocks;
};

terse_arena *terse_arena_new(void)
{
    return calloc(1, sizeof(terse_arena));
}

void terse_arena_free(terse_arena *arena)
{
    if (!arena)
        return;
    for (block *b = arena->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(arena);
}

void *terse_arena_alloc(terse_arena *arena, size_t size)
{
    const size_t alignment = size >= 64 ? 64 : 16;
    block *b = arena->blocks;
    if (b) {
        const size_t at = terse_align(b->used, alignment);
        if (at <= b->size && size <= b->size - at) {
            b->used = at + size;
            return memset((char *)b + at, 0, size);
        }
    }
    if (size > SIZE_MAX / 2)
        return NULL;
    const size_t head = terse_align(sizeof(block), 64);
    const size_t whole = terse_align(head + (size > BLOCK_BYTES / 4 ? size : BLOCK_BYTES), 64);
    block *fresh = aligned_alloc(64, whole);
    if (!fresh)
        return NULL;
    fresh->size = whole; /* zeroed piece by piece: what is never handed out stays untouched, and costs no page */
    fresh->used = head + size;
    if (size > BLOCK_BYTES / 4 && b) { /* keep filling the current block */
        fresh->next = b->next;
        b->next = fresh;
    } else {
        fresh->next = b;
        arena->blocks = fresh;
    }
    return memset((char *)fresh + head, 0, size);
}

char *terse_arena_text(terse_arena *arena, const char *text, size_t length)
{
    char *copy = terse_arena_alloc(arena, length + 1);
    if (copy && length)
        memcpy(copy, text, length);
    return copy;
}

int terse_file_map(const char *path, const void **ret_base, size_t *ret_size, terse_error *error)
{
    TERSE_AUTO(terse_close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot open '%s'", path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot stat '%s'", path);
    if (!S_ISREG(st.st_mode))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' is not a regular file", path);
    const void *base = NULL;
    if (st.st_size > 0) {
        base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (base == MAP_FAILED)
            return terse_fail(error, TERSE_SYSTEM, "cannot map '%s'", path);
    }
    *ret_base = base;
    *ret_size = (size_t)st.st_size;
    return TERSE_OK;
}

int64_t terse_read_full(int fd, void *buffer, size_t size)
{
    size_t done = 0;
    while (done < size) {
        const ssize_t n = read(fd, (char *)buffer + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

bool terse_write_full(int fd, const void *buffer, size_t size)
{
    size_t done = 0;
    while (done < size) {
        const ssize_t n = write(fd, (const char *)buffer + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

int terse_atomic_open(const char *path, terse_atomic_file *ret_file, terse_error *error)
{
    terse_atomic_file file = {.fd = -1};
    const int length = snprintf(file.path, sizeof file.path, "%s", path);
    if (length < 0 || (size_t)length >= sizeof file.path)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "output path has %zu bytes, at most %zu are allowed",
                          strlen(path), sizeof file.path - 1);
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) { /* /dev/null, a pipe: written in place */
        file.fd = open(path, O_WRONLY | O_CLOEXEC);
        if (file.fd < 0)
            return terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", path);
        *ret_file = file;
        return TERSE_OK;
    }
    snprintf(file.temporary, sizeof file.temporary, "%s.XXXXXX.tmp", path);
    file.fd = mkostemps(file.temporary, 4, O_CLOEXEC);
    if (file.fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", path);
    const mode_t mask = umask(0);
    umask(mask);
    if (fchmod(file.fd, 0666 & ~mask) < 0) {
        const int status = terse_fail(error, TERSE_SYSTEM, "cannot set the mode of '%s'", path);
        terse_atomic_discard(&file);
        return status;
    }
    *ret_file = file;
    return TERSE_OK;
}

int terse_atomic_commit(terse_atomic_file *file, bool durable, terse_error *error)
{
    const bool in_place = !file->temporary[0];
    bool written = in_place || !durable || fsync(file->fd) == 0;
    if (written) {
        written = close(file->fd) == 0;
        file->fd = -1;
    }
    if (!written || (!in_place && rename(file->temporary, file->path) < 0)) {
        const int status = terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", file->path);
        terse_atomic_discard(file);
        return status;
    }
    file->temporary[0] = 0;
    return TERSE_OK;
}

void terse_atomic_discard(terse_atomic_file *file)
{
    terse_close_fdp(&file->fd);
    if (file->temporary[0])
        unlink(file->temporary);
    file->temporary[0] = 0;
}

uint64_t terse_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
