/* SPDX-License-Identifier: Apache-2.0 */
/* loader.h: terse-loader: from a path to a sealed memfd that holds a verified model.
 * Runs in: terse-loader, one process per file, which ends with its answer.
 *
 * The file is copied first (a packed one: expanded into the memory that is handed over, common/expand.h) and the copy
 * is verified: what happens to the file meanwhile or later can harm nobody. The copy is unmapped before it is sealed
 * (F_SEAL_WRITE wants no writable mapping). */
#ifndef TERSE_LOADER_LOADER_H
#define TERSE_LOADER_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

typedef struct terse_loaded {
    int fd; /* the caller's to close */
    uint64_t bytes;
    bool batchable;
} terse_loaded;

/* A file of more than max_bytes (0: any size), or one that expands to more, is RESOURCE_EXHAUSTED. So many bytes of the
 * copy may lie in large pages (daemon/pages.h). `confine`, called between the copy and the first look at its bytes, may
 * be NULL. */
int terse_loader_load(const char *path, uint64_t max_bytes, uint64_t large_at_hand, void (*confine)(uint64_t bytes),
                      terse_loaded *ret_loaded, terse_error *error);

/* Gives up what reading hostile bytes does not need: memory, processor time, core dumps, every system call but a few
 * (libseccomp; left out of sanitizer builds, which need more). */
void terse_loader_confine(uint64_t bytes);

#endif
