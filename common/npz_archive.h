/* SPDX-License-Identifier: Apache-2.0 */
/* npz_archive.h: the zip archive that an .npz is, by libzip: names and bytes of its members, not what they mean.
 * Runs in: terse-compress; in terse by way of terse-npz.so, which client/cli/lazy.c loads when it meets an archive.
 * Ownership: nothing here keeps memory after a call. */
#ifndef TERSE_COMMON_NPZ_ARCHIVE_H
#define TERSE_COMMON_NPZ_ARCHIVE_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { TERSE_NPZ_MAX_MEMBERS = 65536, TERSE_NPZ_MAX_NAME = 1024 };

/* One member: its name without ".npy", and what it unpacks to, lent for the call. */
typedef int terse_npz_take(void *user, const char *name, const uint8_t *bytes, size_t size, terse_error *error);

/* Calls take for every member until it fails. Fails with INVALID_ARGUMENT where the archive is not readable, damaged or
 * has too many members or too long a name, always naming the array. */
int terse_npz_unpack(const char *path, terse_npz_take *take, void *user, terse_error *error);

/* An archive of n >= 1 deflated members on the heap; the same members give the same bytes. names without ".npy". */
int terse_npz_pack(int n, const char *const *names, const uint8_t *const *bytes, const size_t *sizes,
                   uint8_t **ret_bytes, size_t *ret_size, terse_error *error);

#endif
