/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/bytes.h"

/* In front of a piece; its size is that of head, piece and slack. */
enum { HEAD = 64, SLACK = 128 };

static const char *spill_directory;

void terse_spill_into(const char *directory)
{
    spill_directory = directory;
}

bool terse_spill_is_on(void)
{
    return spill_directory != NULL;
}

/* A file that has no name (any more). */
static int open_nameless(void)
{
    char path[4096];
    int fd = open(spill_directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    if ((size_t)snprintf(path, sizeof path, "%s/terse-XXXXXX", spill_directory) >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

int terse_spill_new(size_t size, void **ret_memory, terse_error *error)
{
    if (size > SIZE_MAX / 4)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", size);
    const size_t whole = size + HEAD + SLACK;
    TERSE_AUTO(terse_close_fdp) int fd = open_nameless();
    if (fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "--mem: cannot make a file in '%.500s'", spill_directory);
    const int code = posix_fallocate(fd, 0, (off_t)whole);
    if (code != 0) {
        errno = code;
        return terse_fail(error, TERSE_SYSTEM, "--mem: no room for %zu bytes in '%.500s'", whole, spill_directory);
    }
    char *base = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return terse_fail(error, TERSE_SYSTEM, "--mem: cannot map %zu bytes of a file", whole);
    memcpy(base, &whole, sizeof whole);
    *ret_memory = base + HEAD;
    return TERSE_OK;
}

static char *base_of(void *memory, size_t *ret_size)
{
    char *base = (char *)memory - HEAD;
    memcpy(ret_size, base, sizeof *ret_size);
    return base;
}

void terse_spill_free(void *memory)
{
    size_t size;
    char *base = memory ? base_of(memory, &size) : NULL;
    if (base)
        munmap(base, size);
}

void terse_spill_rest(void *memory)
{
    size_t size;
    char *base = memory ? base_of(memory, &size) : NULL;
    if (base)
        madvise(base, size, MADV_DONTNEED); /* of a shared mapping: the file has it */
}

int terse_spill_copy(const void *bytes, size_t size, void **ret_memory, terse_error *error)
{
    void *memory;
    const int status = terse_spill_new(size, &memory, error);
    if (status != TERSE_OK)
        return status;
    if (size)
        memcpy(memory, bytes, size);
    terse_spill_rest(memory);
    *ret_memory = memory;
    return TERSE_OK;
}
