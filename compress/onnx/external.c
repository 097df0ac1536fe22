/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A tensor used under several names is fine, a thousand views of one file are not. */
enum { MAX_FILES = 4096, MAX_READINGS = 4 };

typedef struct place {
    const char *location;
    uint64_t offset, length;
    bool has_length;
} place;

static bool parse_number(const char *text, uint64_t *ret_number)
{
    uint64_t number = 0;
    if (!text || !*text)
        return false;
    for (; *text; text++)
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
            return false;
    *ret_number = number;
    return true;
}

static int parse_place(const Onnx__Tensor *tensor, place *ret_place, terse_error *error)
{
    place found = {0};
    for (size_t i = 0; i < tensor->n_external_data; i++) {
        const char *key = tensor->external_data[i]->key ? tensor->external_data[i]->key : "";
        const char *value = tensor->external_data[i]->value ? tensor->external_data[i]->value : "";
        if (strcmp(key, "location") == 0)
            found.location = value;
        else if (strcmp(key, "offset") == 0 && !parse_number(value, &found.offset))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "external offset '%.40s' is not a number", value);
        else if (strcmp(key, "length") == 0 && !(found.has_length = parse_number(value, &found.length)))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "external length '%.40s' is not a number", value);
    }
    if (!found.location || !*found.location)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "external data names no file");
    *ret_place = found;
    return TERSE_OK;
}

/* For kernels (and containers) without openat2: each step from the directory down, and no link at all. */
static int open_step_by_step(int directory, const char *location)
{
    TERSE_AUTO(terse_close_fdp) int at = fcntl(directory, F_DUPFD_CLOEXEC, 0);
    char part[256];
    while (at >= 0) {
        const char *slash = strchr(location, '/');
        const size_t length = slash ? (size_t)(slash - location) : strlen(location);
        if (length >= sizeof part) {
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(part, location, length);
        part[length] = 0;
        if (!slash)
            return openat(at, part, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        location = slash + 1;
        if (length == 0 || strcmp(part, ".") == 0)
            continue;
        const int next = openat(at, part, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        terse_close_fdp(&at);
        at = next;
    }
    return -1;
}

static int open_beneath(int directory, const char *location)
{
    const struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    const long fd = syscall(SYS_openat2, directory, location, &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_step_by_step(directory, location);
    return (int)fd;
}

static bool leaves_directory(const char *location)
{
    if (location[0] == '/')
        return true;
    for (const char *part = location; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL)
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == 0))
            return true;
    return false;
}

/* Each file adds its size to what may be read, once. */
static bool count_file(terse_onnx_external *external, const struct stat *st)
{
    if (!external->files)
        external->files = calloc(MAX_FILES, sizeof *external->files);
    if (!external->files)
        return false;
    for (int i = 0; i < external->n_files; i++)
        if (external->files[i].device == (uint64_t)st->st_dev && external->files[i].inode == (uint64_t)st->st_ino)
            return true;
    if (external->n_files == MAX_FILES)
        return false;
    external->files[external->n_files++] = (terse_onnx_file){(uint64_t)st->st_dev, (uint64_t)st->st_ino};
    external->budget += MAX_READINGS * (uint64_t)st->st_size;
    return true;
}

/* Makes `location` the current file. */
static int open_location(terse_onnx_external *external, const char *location, terse_error *error)
{
    if (external->fd >= 0 && strcmp(external->location, location) == 0)
        return TERSE_OK;
    if (leaves_directory(location) || strlen(location) >= sizeof external->location)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "external data '%.200s' must lie in the model's directory or below", location);
    if (external->directory_fd < 0)
        external->directory_fd = open(external->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (external->directory_fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot open directory '%.200s'", external->directory);
    TERSE_AUTO(terse_close_fdp) int fd = open_beneath(external->directory_fd, location);
    if (fd < 0 && (errno == EXDEV || errno == ELOOP))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "external data '%.200s' is a link that leaves the model's directory", location);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot open external data '%.200s'", location);
    if (!S_ISREG(st.st_mode))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "external data '%.200s' is not a regular file", location);
    if (!count_file(external, &st))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "external data lies in more than %d files", MAX_FILES);
    terse_close_fdp(&external->fd);
    external->fd = fd;
    fd = -1;
    external->fd_bytes = (uint64_t)st.st_size;
    memcpy(external->location, location, strlen(location) + 1);
    return TERSE_OK;
}

int terse_onnx_external_read(terse_onnx_external *external, const Onnx__Tensor *tensor, uint64_t bytes,
                             terse_arena *arena, void **ret_data, terse_error *error)
{
    place from = {0};
    if (!external->directory)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "external data is not allowed here");
    int status = parse_place(tensor, &from, error);
    if (status == TERSE_OK)
        status = open_location(external, from.location, error);
    if (status != TERSE_OK)
        return status;
    const uint64_t left = from.offset <= external->fd_bytes ? external->fd_bytes - from.offset : 0;
    const uint64_t length = from.has_length ? from.length : left;
    if (length != bytes)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "external data has %" PRIu64 " bytes, its shape needs %" PRIu64, length, bytes);
    if (bytes > left)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "external data ends at byte %" PRIu64 "+%" PRIu64 ", file '%.200s' has %" PRIu64, from.offset,
                          bytes, from.location, external->fd_bytes);
    if (__builtin_add_overflow(external->granted, bytes, &external->granted) || external->granted > external->budget)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "external tensors overlap: they add up to %" PRIu64 " bytes",
                          external->granted);
    char *data = terse_arena_alloc(arena, bytes ? bytes : 1);
    if (!data)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRIu64 " bytes", bytes);
    for (uint64_t done = 0; done < bytes;) {
        const ssize_t n = pread(external->fd, data + done, bytes - done, (off_t)(from.offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return terse_fail(error, n < 0 ? TERSE_SYSTEM : TERSE_INVALID_ARGUMENT,
                              "cannot read external data '%.200s' at byte %" PRIu64, from.location, from.offset + done);
        done += (uint64_t)n;
    }
    *ret_data = data;
    return TERSE_OK;
}

void terse_onnx_external_done(terse_onnx_external *external)
{
    terse_close_fdp(&external->fd);
    terse_close_fdp(&external->directory_fd);
    free(external->files);
    external->files = NULL;
}
