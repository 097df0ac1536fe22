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
#include "common/expand.h"
#include "common/model.h"
#include "common/model_format.h"
#include "daemon/pages.h"

enum { CHUNK_BYTES = 32 << 10 }; /* a system call's worth: turns end between them (behind.h) */

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
    void *base = terse_pages_map(fd, bytes, PROT_READ, MAP_PRIVATE);
    if (base == MAP_FAILED)
        return terse_fail(error, TERSE_SYSTEM, "cannot map the copy of '%s'", path);
    terse_model *model = NULL;
    const int status = terse_model_parse(base, bytes, path, TERSE_MODEL_CHECK_SECTIONS, &model, error);
    if (status == TERSE_OK)
        *ret_batchable = model->graph->batchable;
    terse_model_close(model);
    terse_pages_unmap(base, bytes);
    return status;
}

/* What is no model at all need not be copied to be found out. */
static int peek(const char *path, int file, bool *ret_packed, terse_error *error)
{
    enum { MAGIC_BYTES = sizeof TERSE_MODEL_MAGIC - 1 };
    char head[TERSE_EXPAND_PEEK_BYTES];
    const ssize_t got = pread(file, head, sizeof head, 0);
    if (got < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot read '%s'", path);
    if (got < MAGIC_BYTES || memcmp(head, TERSE_MODEL_MAGIC, MAGIC_BYTES) != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "'%s' is not a .terse file (it does not start with " TERSE_MODEL_MAGIC ")", path);
    *ret_packed = terse_expand_is_packed(head, (size_t)got);
    return TERSE_OK;
}

/* Memory of that size, in large pages where there are some; without a system call that the filter takes away. */
static bool extend(int memory, uint64_t bytes, uint64_t large_at_hand)
{
    if (lseek(memory, (off_t)bytes - 1, SEEK_SET) < 0 || !terse_write_full(memory, "", 1))
        return false;
    terse_pages_enlarge(memory, bytes, large_at_hand);
    return lseek(memory, 0, SEEK_SET) == 0;
}

/* The plain form of the packed model in `packed`, in `memory`. */
static int expand(const char *path, int packed, uint64_t packed_bytes, uint64_t max_bytes, uint64_t large_at_hand,
                  int memory, uint64_t *ret_bytes, terse_error *error)
{
    const void *base = mmap(NULL, packed_bytes, PROT_READ, MAP_PRIVATE, packed, 0);
    if (base == MAP_FAILED)
        return terse_fail(error, TERSE_SYSTEM, "cannot map the copy of '%s'", path);
    terse_expansion expansion = {0};
    void *image = MAP_FAILED;
    int status = terse_expand_open(base, packed_bytes, path, &expansion, error);
    const uint64_t bytes = expansion.bytes;
    if (!status && max_bytes && bytes > max_bytes)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                            "'%s' expands to %" PRIu64 " bytes, there is memory for %" PRIu64 " now", path, bytes,
                            max_bytes);
    if (!status && (!extend(memory, bytes, large_at_hand) ||
                    (image = terse_pages_map(memory, bytes, PROT_READ | PROT_WRITE, MAP_SHARED)) == MAP_FAILED))
        status =
            terse_fail(error, TERSE_SYSTEM, "no memory for the %" PRIu64 " bytes that '%s' expands to", bytes, path);
    if (!status)
        status = terse_expand_into(&expansion, image, error);
    if (image != MAP_FAILED)
        munmap(image, bytes);
    terse_expand_done(&expansion);
    munmap((void *)(uintptr_t)base, packed_bytes);
    if (!status)
        *ret_bytes = bytes;
    return status;
}

int terse_loader_load(const char *path, uint64_t max_bytes, uint64_t large_at_hand, void (*confine)(uint64_t bytes),
                      terse_loaded *ret_loaded, terse_error *error)
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
    uint64_t bytes = (uint64_t)info.st_size;
    bool packed = false;
    int status = peek(path, file, &packed, error);
    if (status)
        return status;
    if (max_bytes && bytes > max_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "'%s' has %" PRIu64 " bytes, there is memory for %" PRIu64 " now", path, bytes, max_bytes);
    TERSE_AUTO(terse_close_fdp) int memory = make_memory();
    TERSE_AUTO(terse_close_fdp) int copy = packed ? make_memory() : -1;
    if (memory < 0 || (packed && copy < 0))
        return terse_fail(error, TERSE_SYSTEM, "cannot make memory for '%s'", path);
    if (!packed && !extend(memory, bytes, large_at_hand))
        return terse_fail(error, TERSE_SYSTEM, "no memory for the %" PRIu64 " bytes of '%s'", bytes, path);
    if ((status = copy_file(path, file, packed ? copy : memory, bytes, error)))
        return status;
    if (confine)
        confine(!packed ? bytes : bytes + (max_bytes ? max_bytes : (uint64_t)TERSE_MAX_TENSOR_BYTES));
    bool batchable = false;
    if (packed && (status = expand(path, copy, bytes, max_bytes, large_at_hand, memory, &bytes, error)))
        return status;
    if ((status = verify(path, memory, bytes, &batchable, error)))
        return status;
    if (fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot seal the copy of '%s'", path);
    *ret_loaded = (terse_loaded){.fd = memory, .bytes = bytes, .batchable = batchable};
    memory = -1;
    return TERSE_OK;
}
