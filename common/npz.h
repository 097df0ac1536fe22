/* SPDX-License-Identifier: Apache-2.0 */
/* npz.h: named arrays in numpy's .npz and .npy files (numpy's NEP 1; versions 1.0 to 3.0 of .npy).
 * Runs in: terse, terse-compress. Ownership: a terse_npz owns its names and bytes.
 *
 * Read: .npz stored or deflated, .npy alone (its one array then has the name ""), C and Fortran order, little and big
 * endian; bool, i1..i8, u1..u8, f2, f4, f8. Objects and pickles are refused. Claimed sizes are checked against the
 * bytes there before anything is allocated. */
#ifndef TERSE_COMMON_NPZ_H
#define TERSE_COMMON_NPZ_H

#include "common/tensor.h"

typedef struct terse_npz {
    int n;
    char **names;
    terse_tensor *tensors; /* dense, C order, host endian, 64-byte aligned */
} terse_npz;

/* Fails with INVALID_ARGUMENT naming the file and the member, NOT_FOUND/SYSTEM when it cannot be opened. */
int terse_npz_read(const char *path, terse_npz **ret_npz, terse_error *error);
void terse_npz_free(terse_npz *npz);
void terse_npz_freep(terse_npz **npz);
/* The array of that name, or NULL. A .npy's array answers to every name. */
const terse_tensor *terse_npz_find(const terse_npz *npz, const char *name);

/* Writes atomically: deflated members when the path does not end in .npy (which takes exactly one array). */
int terse_npz_write(const char *path, int n, const char *const *names, const terse_tensor *tensors, terse_error *error);

#endif
