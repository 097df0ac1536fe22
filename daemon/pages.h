/* SPDX-License-Identifier: Apache-2.0 */
/* pages.h: large pages under a model's memory.
 * Runs in: terse-loader (makes them), terse-worker (maps them). Ownership: descriptors and mappings are the caller's.
 *
 * A model of 200 MB in small pages costs every process that maps it 30 ms of page tables, 10 ms more when it lets go,
 * and whoever closes it last 26 ms in one piece. In large ones all of that is less than a millisecond. Where the system
 * gives none everything works with small ones. */
#ifndef TERSE_DAEMON_PAGES_H
#define TERSE_DAEMON_PAGES_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of memory that lie free in large pages; UINT64_MAX where the system does not tell. Opens a file. */
uint64_t terse_pages_at_hand(void);

/* Puts large pages under the memfd `fd`, which has `bytes` and nothing in it yet: as far as `at_hand` goes, and only
 * while the system is quick with them. Moves the file position. */
void terse_pages_enlarge(int fd, uint64_t bytes, uint64_t at_hand);

/* mmap at an address where large pages can be mapped as such; MAP_FAILED with errno as mmap has it. */
void *terse_pages_map(int fd, uint64_t bytes, int protection, int flags);

/* munmap in pieces, each short. */
void terse_pages_unmap(void *base, size_t bytes);

#endif
