/* SPDX-License-Identifier: Apache-2.0 */
#include "common/npz_archive.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zip.h>

#include "common/bytes.h"
#include "common/tensor.h"

/* What terse finds in terse-npz.so. */
#define SHOWN __attribute__((visibility("default")))

/* Unpacks one member: its size is what the archive claims, so it is read in steps and never allocated on that word. */
static int read_member(zip_t *archive, zip_uint64_t index, uint8_t **ret_bytes, size_t *ret_size, terse_error *error)
{
    zip_file_t *file = zip_fopen_index(archive, index, 0);
    if (!file)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "cannot be unpacked: %s", zip_strerror(archive));
    size_t size = 0, capacity = 0;
    uint8_t *bytes = NULL;
    int status = TERSE_OK;
    for (;;) {
        if (size == capacity) {
            capacity = capacity ? capacity * 2 : 1 << 16;
            uint8_t *more = capacity > (size_t)TERSE_MAX_TENSOR_BYTES ? NULL : realloc(bytes, capacity);
            if (!more) {
                status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", capacity);
                break;
            }
            bytes = more;
        }
        const zip_int64_t n = zip_fread(file, bytes + size, capacity - size);
        if (n < 0)
            status = terse_fail(error, TERSE_INVALID_ARGUMENT, "cannot be unpacked: %s", zip_file_strerror(file));
        if (n <= 0)
            break;
        size += (size_t)n;
    }
    /* Closing compares the CRC. */
    if (zip_fclose(file) != 0 && !status)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "is damaged: its CRC does not match");
    if (status) {
        free(bytes);
        return status;
    }
    *ret_bytes = bytes;
    *ret_size = size;
    return TERSE_OK;
}

static int take_member(zip_t *archive, zip_uint64_t index, terse_npz_take *take, void *user, terse_error *error)
{
    const char *member = zip_get_name(archive, index, ZIP_FL_ENC_RAW);
    size_t length = member ? strlen(member) : 0;
    if (length > 4 && strcmp(member + length - 4, ".npy") == 0)
        length -= 4;
    if (!member || length > TERSE_NPZ_MAX_NAME)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "member %" PRIu64 " has a name of %zu bytes, at most %d are allowed", (uint64_t)index, length,
                          TERSE_NPZ_MAX_NAME);
    char name[TERSE_NPZ_MAX_NAME + 1];
    memcpy(name, member, length);
    name[length] = 0;
    TERSE_AUTO(terse_freep) uint8_t *bytes = NULL;
    size_t size = 0;
    int status = read_member(archive, index, &bytes, &size, error);
    if (!status)
        status = take(user, name, bytes, size, error);
    if (status)
        terse_error_prefix(error, "array '%s'", name);
    return status;
}

SHOWN int terse_npz_unpack(const char *path, terse_npz_take *take, void *user, terse_error *error)
{
    int code = 0;
    zip_t *archive = zip_open(path, ZIP_RDONLY | ZIP_CHECKCONS, &code);
    if (!archive) {
        zip_error_t reason;
        zip_error_init_with_code(&reason, code);
        const int status =
            terse_fail(error, TERSE_INVALID_ARGUMENT, "is no readable .npz archive: %s", zip_error_strerror(&reason));
        zip_error_fini(&reason);
        return status;
    }
    const zip_int64_t n = zip_get_num_entries(archive, 0);
    int status = TERSE_OK;
    if (n > TERSE_NPZ_MAX_MEMBERS)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "has %" PRId64 " arrays, at most %d are allowed", (int64_t)n,
                            TERSE_NPZ_MAX_MEMBERS);
    for (zip_int64_t i = 0; !status && i < n; i++)
        status = take_member(archive, (zip_uint64_t)i, take, user, error);
    zip_discard(archive);
    return status;
}

static int add_member(zip_t *archive, const char *name, const uint8_t *bytes, size_t size, terse_error *error)
{
    char member[2048];
    snprintf(member, sizeof member, "%s.npy", name);
    zip_source_t *source = zip_source_buffer(archive, bytes, size, 0);
    const zip_int64_t index = source ? zip_file_add(archive, member, source, ZIP_FL_ENC_UTF_8) : -1;
    if (index < 0) {
        zip_source_free(source);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "cannot add it: %s", zip_strerror(archive));
    }
    /* A fixed date: the same arrays give the same file. */
    if (zip_set_file_compression(archive, (zip_uint64_t)index, ZIP_CM_DEFLATE, 1) < 0 ||
        zip_file_set_dostime(archive, (zip_uint64_t)index, 0, 33, 0) < 0)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "cannot add it: %s", zip_strerror(archive));
    return TERSE_OK;
}

/* libzip writes into a growing buffer of its own. */
SHOWN int terse_npz_pack(int n, const char *const *names, const uint8_t *const *bytes, const size_t *sizes,
                         uint8_t **ret_bytes, size_t *ret_size, terse_error *error)
{
    zip_error_t reason;
    zip_error_init(&reason);
    zip_source_t *buffer = zip_source_buffer_create(NULL, 0, 0, &reason);
    zip_t *archive = buffer ? zip_open_from_source(buffer, ZIP_TRUNCATE, &reason) : NULL;
    if (!archive) {
        zip_source_free(buffer);
        zip_error_fini(&reason);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    }
    zip_source_keep(buffer);
    int status = TERSE_OK;
    for (int i = 0; !status && i < n; i++)
        if ((status = add_member(archive, names[i], bytes[i], sizes[i], error)))
            terse_error_prefix(error, "array '%s'", names[i]);
    if (!status && zip_close(archive) < 0)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "cannot pack it: %s", zip_strerror(archive));
    if (status) {
        zip_discard(archive);
        zip_source_free(buffer);
        return status;
    }
    zip_stat_t stat = {0};
    uint8_t *made = NULL;
    if (zip_source_stat(buffer, &stat) < 0 || !(made = malloc(stat.size + 1)) || zip_source_open(buffer) < 0 ||
        zip_source_read(buffer, made, stat.size) != (zip_int64_t)stat.size)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the archive");
    zip_source_free(buffer);
    if (status) {
        free(made);
        return status;
    }
    *ret_bytes = made;
    *ret_size = stat.size;
    return TERSE_OK;
}
