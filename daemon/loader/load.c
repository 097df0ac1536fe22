/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/loader/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/model.h"
#include "common/model_format.h"

enum { CHUNK_BYTES = 1 << 20 };

/* memfd without an executable mapping where the kernel knows that (6.3), else a plain one. */
static int make_memory(void)
{
#ifdef MFD_NOEXEC_SEAL
    const int fd = memfd_create("terse-model", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd >= 0 || errno != EINVAL)
        return fd;
#endif
    return memfd_create("terse-model", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

static int copy_file(const char *path, int from, int to, uint64_t bytes, terse_error *error)
{
    TERSE_AUTO(terse_freep) uint8_t *chunk = malloc(CHUNK_BYTES);
    if (!chunk)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    for (uint64_t done = 0; done < bytes;) {
        const uint64_t left = bytes - done;
        const size_t wanted = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        const int64_t got = terse_read_full(from, chunk, wanted);
        if (got < 0)
            return terse_fail(error, TERSE_SYSTEM, "cannot read '%s'", path);
        if ((size_t)got < wanted)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "'%s' ended at byte %" PRIu64 " of %" PRIu64 " while it was read", path,
                              done + (uint64_t)got, bytes);
        if (!terse_write_full(to, chunk, wanted))
            return terse_fail(error, TERSE_SYSTEM, "no memory for the %" PRIu64 " bytes of '%s'", bytes, path);
        done += wanted;
    }
    return TERSE_OK;
}

static int verify(const char *path, int fd, uint64_t bytes, bool *ret_batchable, terse_error *error)
{
    void *base = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return terse_fail(error, TERSE_SYSTEM, "cannot map the copy of '%s'", path);
    terse_model *model = NULL;
    const int status = terse_model_parse(base, bytes, path, TERSE_MODEL_CHECK_SECTIONS, &model, error);
    if (status == TERSE_OK)
        *ret_batchable = model->graph->batchable;
    terse_model_close(model);
    munmap(base, bytes);
    return status;
}

/* What is no model at all need not be copied to be found out. */
static int check_magic(const char *path, int file, terse_error *error)
{
    char magic[sizeof TERSE_MODEL_MAGIC - 1];
    const ssize_t got = pread(file, magic, sizeof magic, 0);
    if (got < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot read '%s'", path);
    if (got < (ssize_t)sizeof magic || memcmp(magic, TERSE_MODEL_MAGIC, sizeof magic) != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "'%s' is not a .terse file (it does not start with " TERSE_MODEL_MAGIC ")", path);
    return TERSE_OK;
}

int terse_loader_load(const char *path, uint64_t max_bytes, void (*confine)(uint64_t bytes), terse_loaded *ret_loaded,
                      terse_error *error)
{
    TERSE_AUTO(terse_close_fdp) int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (file < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot open '%s'", path);
    struct stat info;
    if (fstat(file, &info) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot stat '%s'", path);
    if (!S_ISREG(info.st_mode) || info.st_size <= 0 || info.st_size > TERSE_MAX_TENSOR_BYTES)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' is no regular file of 1 to %" PRId64 " bytes", path,
                          TERSE_MAX_TENSOR_BYTES);
    const uint64_t bytes = (uint64_t)info.st_size;
    int status = check_magic(path, file, error);
    if (status)
        return status;
    if (max_bytes && bytes > max_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "'%s' has %" PRIu64 " bytes, there is memory for %" PRIu64 " now", path, bytes, max_bytes);
    TERSE_AUTO(terse_close_fdp) int memory = make_memory();
    if (memory < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot make memory for '%s'", path);
    if ((status = copy_file(path, file, memory, bytes, error)))
        return status;
    if (confine)
        confine(bytes);
    bool batchable = false;
    if ((status = verify(path, memory, bytes, &batchable, error)))
        return status;
    if (fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot seal the copy of '%s'", path);
    *ret_loaded = (terse_loaded){.fd = memory, .bytes = bytes, .batchable = batchable};
    memory = -1;
    return TERSE_OK;
}
