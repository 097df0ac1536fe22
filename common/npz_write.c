/* SPDX-License-Identifier: Apache-2.0 */
#include "common/npz.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/npz_archive.h"

static const char *descr_of(terse_dtype dtype)
{
    static const char *const codes[] = {
        [TERSE_FP32] = "<f4",   [TERSE_FP64] = "<f8",   [TERSE_FP16] = "<f2",   [TERSE_INT8] = "|i1",
        [TERSE_INT16] = "<i2",  [TERSE_INT32] = "<i4",  [TERSE_INT64] = "<i8",  [TERSE_UINT8] = "|u1",
        [TERSE_UINT16] = "<u2", [TERSE_UINT32] = "<u4", [TERSE_UINT64] = "<u8", [TERSE_BOOL] = "|b1",
    };
    return (size_t)dtype < sizeof codes / sizeof codes[0] ? codes[dtype] : NULL;
}

/* A whole .npy (version 1.0, its data 64-byte aligned in the file) on the heap. */
static int make_npy(const terse_tensor *tensor, uint8_t **ret_bytes, size_t *ret_size, terse_error *error)
{
    const char *descr = descr_of(tensor->dtype);
    if (!descr)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "%s cannot be stored in a .npy", terse_dtype_name(tensor->dtype));
    char text[512];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < tensor->rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%" PRId64 "%s", tensor->dims[i],
                      tensor->rank == 1      ? ","
                      : i + 1 < tensor->rank ? ", "
                                             : "");
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    const size_t head = terse_align(10 + (size_t)n + 1, 64), data = (size_t)terse_tensor_bytes(tensor);
    uint8_t *bytes = malloc(head + data);
    if (!bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", head + data);
    memset(bytes, ' ', head);
    memcpy(bytes, "\x93NUMPY\x01\x00", 8);
    bytes[8] = (uint8_t)((head - 10) & 0xff);
    bytes[9] = (uint8_t)((head - 10) >> 8);
    memcpy(bytes + 10, text, (size_t)n);
    bytes[head - 1] = '\n';
    if (data)
        memcpy(bytes + head, tensor->data, data);
    *ret_bytes = bytes;
    *ret_size = head + data;
    return TERSE_OK;
}

static void free_all(uint8_t **bytes, int n)
{
    for (int i = 0; bytes && i < n; i++)
        free(bytes[i]);
    free(bytes);
}

static int make_npz(int n, const char *const *names, const terse_tensor *tensors, uint8_t **ret_bytes, size_t *ret_size,
                    terse_error *error)
{
    uint8_t **bytes = calloc((size_t)n, sizeof *bytes);
    TERSE_AUTO(terse_freep) size_t *sizes = calloc((size_t)n, sizeof *sizes);
    int status =
        bytes && sizes ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d arrays", n);
    for (int i = 0; !status && i < n; i++)
        if ((status = make_npy(&tensors[i], &bytes[i], &sizes[i], error)))
            terse_error_prefix(error, "array '%s'", names[i]);
    if (!status)
        status = terse_npz_pack(n, names, (const uint8_t *const *)bytes, sizes, ret_bytes, ret_size, error);
    free_all(bytes, n);
    return status;
}

int terse_npz_write(const char *path, int n, const char *const *names, const terse_tensor *tensors, terse_error *error)
{
    const size_t length = strlen(path);
    const bool alone = length > 4 && strcmp(path + length - 4, ".npy") == 0;
    TERSE_AUTO(terse_freep) uint8_t *bytes = NULL;
    size_t size = 0;
    terse_atomic_file file;
    int status = TERSE_OK;
    if (alone && n != 1)
        status =
            terse_fail(error, TERSE_INVALID_ARGUMENT, "a .npy file takes one array, there are %d: name it .npz", n);
    else if (n == 0) /* libzip writes no archive without a member: an empty one is this end record */
        status = (size = 22, bytes = calloc(1, size)) ? TERSE_OK
                                                      : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    else
        status =
            alone ? make_npy(&tensors[0], &bytes, &size, error) : make_npz(n, names, tensors, &bytes, &size, error);
    if (!status && n == 0)
        memcpy(bytes, "PK\x05\x06", 4);
    if (status) {
        terse_error_prefix(error, "'%s'", path);
        return status;
    }
    if ((status = terse_atomic_open(path, &file, error)))
        return status;
    if (!terse_write_full(file.fd, bytes, size)) {
        status = terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", path);
        terse_atomic_discard(&file);
        return status;
    }
    return terse_atomic_commit(&file, false, error);
}
