/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h: ownership helpers (TERSE_AUTO, TERSE_TAKE), an arena and small file helpers.
 * Runs in: every program. */
#ifndef TERSE_COMMON_BYTES_H
#define TERSE_COMMON_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* TERSE_AUTO(f) T x: calls f(&x) when x leaves its scope. TERSE_TAKE(x): moves a pointer out, leaving NULL. */
#define TERSE_AUTO(function) __attribute__((cleanup(function)))
#define TERSE_TAKE(pointer)                                                                                            \
    __extension__({                                                                                                    \
        __typeof__(pointer) taken_ = (pointer);                                                                        \
        (pointer) = NULL;                                                                                              \
        taken_;                                                                                                        \
    })

void terse_freep(void *pointer_to_pointer); /* free(*p), for TERSE_AUTO */
void terse_close_fdp(int *fd);              /* close(*fd) when >= 0; keeps errno */

/* An arena: many small allocations with one lifetime. Not thread-safe. */
typedef struct terse_arena terse_arena;
terse_arena *terse_arena_new(void);
void terse_arena_free(terse_arena *arena);
/* Zeroed, aligned to 64 bytes for sizes of 64 and more, else to 16. NULL when memory is out. */
void *terse_arena_alloc(terse_arena *arena, size_t size);
char *terse_arena_text(terse_arena *arena, const char *text, size_t length); /* adds the final 0 */

/* Rounds up to a multiple of `alignment` (a power of two). */
static inline size_t terse_align(size_t value, size_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

/* Maps a whole file PROT_READ, MAP_PRIVATE. *ret_base is NULL for an empty file. */
int terse_file_map(const char *path, const void **ret_base, size_t *ret_size, terse_error *error);
/* Reads at most `size` bytes, retrying EINTR and short reads; returns the bytes read or -1. */
int64_t terse_read_full(int fd, void *buffer, size_t size);
bool terse_write_full(int fd, const void *buffer, size_t size);

/* A file that appears under its name only when it is whole: written beside it, renamed. `durable`: on the disk before
 * that, so that a power cut leaves the old file or the new one (a model); results that can be made again need not wait.
 */
typedef struct terse_atomic_file {
    int fd;
    char path[4096];
    char temporary[4128];
} terse_atomic_file;
int terse_atomic_open(const char *path, terse_atomic_file *ret_file, terse_error *error);
int terse_atomic_commit(terse_atomic_file *file, bool durable, terse_error *error);
void terse_atomic_discard(terse_atomic_file *file); /* no effect after a commit */

/* Monotonic clock, nanoseconds. */
uint64_t terse_now_ns(void);

#endif
