/* SPDX-License-Identifier: Apache-2.0 */
/* spent.h: processor time and energy that a daemon of this host spends.
 * Runs in: terse bench, terse tune. Plain numbers.
 *
 * The daemon is its supervisor, front end, gate and workers: the workers of "stats" tell the supervisor (their parent),
 * and its children are the others. Nothing is told where that cannot be known: over tcp, in another pid namespace,
 * without /proc. Joules are those of the processor packages, whoever used them (RAPL); silence where they cannot be
 * read. */
#ifndef TERSE_CLI_SPENT_H
#define TERSE_CLI_SPENT_H

#include <stdbool.h>
#include <stdint.h>

#include "client/terse.h"

enum { TERSE_SPENT_PROCESSES = 512, TERSE_SPENT_ZONES = 16 };

typedef struct terse_spent {
    unsigned n;
    struct {
        int pid;
        uint64_t started; /* by which a number that is used again is known */
        uint64_t ticks;
    } processes[TERSE_SPENT_PROCESSES];
    unsigned n_zones;
    uint64_t uj[TERSE_SPENT_ZONES], most_uj[TERSE_SPENT_ZONES];
} terse_spent;

/* What was spent so far; nothing (n, n_zones 0) where it cannot be known. */
void terse_spent_look(terse_client *client, const char *endpoint, int timeout_ms, terse_spent *ret_spent);
/* Between two looks, in seconds and joules; false and untouched when it is not known. */
bool terse_spent_seconds(const terse_spent *before, const terse_spent *after, double *ret_seconds);
bool terse_spent_joules(const terse_spent *before, const terse_spent *after, double *ret_joules);

#endif
