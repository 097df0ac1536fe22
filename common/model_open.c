/* SPDX-License-Identifier: Apache-2.0 */
/* From a path to a model: in a file of its own, so that what reads models from memory needs no libzstd. */
#include "common/model.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/expand.h"
#include "common/model_format.h"

/* The plain form of a packed file, in memory of its own. */
static int expand(const char *path, const void *base, size_t size, unsigned checks, const void **ret_image,
                  size_t *ret_bytes, terse_error *error)
{
    terse_expansion expansion;
    size_t ignored;
    int status = terse_model_check_head(base, size, checks, &ignored, error);
    if (status)
        return terse_error_prefix(error, "model '%s'", path);
    if ((status = terse_expand_open(base, size, path, &expansion, error)))
        return status;
    const uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    void *image = MAP_FAILED;
    if (expansion.bytes <= memory)
        image = mmap(NULL, expansion.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (image == MAP_FAILED)
        status =
            terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "model '%s': expands to %zu bytes, the machine has %" PRIu64,
                       path, expansion.bytes, memory);
    else
        status = terse_expand_into(&expansion, image, error);
    if (!status) {
        *ret_image = image;
        *ret_bytes = expansion.bytes;
    } else if (image != MAP_FAILED) {
        munmap(image, expansion.bytes);
    }
    terse_expand_done(&expansion);
    return status;
}

int terse_model_open(const char *path, unsigned checks, terse_model **ret_model, terse_error *error)
{
    const void *base;
    size_t size;
    int status = terse_file_map(path, &base, &size, error);
    if (status)
        return status;
    if (base && terse_expand_is_packed(base, size)) {
        const void *image = NULL;
        size_t bytes = 0;
        status = expand(path, base, size, checks, &image, &bytes, error);
        munmap((void *)(uintptr_t)base, size);
        if (status)
            return status;
        base = image;
        size = bytes;
        checks &= ~(unsigned)TERSE_MODEL_CHECK_SHA256; /* done, and the digest is the file's */
    }
    status = terse_model_parse(base, size, path, checks, ret_model, error);
    if (!status)
        (*ret_model)->mapped = true;
    else if (base)
        munmap((void *)(uintptr_t)base, size);
    return status;
}

void terse_model_prefault(const terse_model *model)
{
    enum { MOST = 256 << 20 }; /* beyond, faults are little beside the work, and the file may not fit in memory */
    if (model->mapped && model->size > 0 && model->size <= MOST)
        (void)madvise((void *)(uintptr_t)model->base, model->size, MADV_POPULATE_READ);
}
