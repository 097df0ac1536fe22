/* SPDX-License-Identifier: Apache-2.0 */
/* standing.h: what somebody's connections have cost for nothing, and how long the next one waits for it.
 * Runs in: terse-frontend, terse-gate. Ownership: the caller's struct; no pointers.
 *
 * Somebody is a number made of what the system tells of a peer: a process of a user over ipc, an address over tcp. A
 * connection that ends without ever having brought a good message is charged with what it took of a processor. Each may
 * take a fortieth of a core, all of them together a thirtieth; who has taken more waits until that is paid back. Of
 * whom nothing is known nothing is asked. */
#ifndef TERSE_DAEMON_STANDING_H
#define TERSE_DAEMON_STANDING_H

#include <stdbool.h>
#include <stdint.h>

enum { TERSE_STANDING_SETS = 256, TERSE_STANDING_WAYS = 4 };

typedef struct terse_standing_one {
    uint64_t key;     /* 0: free */
    uint64_t paid_ns; /* when all is paid back */
    uint64_t last_ns; /* when it was charged last */
} terse_standing_one;

typedef struct terse_standing {
    terse_standing_one known[TERSE_STANDING_SETS][TERSE_STANDING_WAYS];
    uint64_t all_paid_ns; /* the same for all together */
} terse_standing;

/* A key for `bytes` that name somebody; never 0. */
uint64_t terse_standing_key(const void *bytes, uint32_t n);
void terse_standing_charge(terse_standing *standing, uint64_t key, uint64_t cost_ns, uint64_t now_ns);
/* Gives back what was charged by mistake. */
void terse_standing_refund(terse_standing *standing, uint64_t key, uint64_t cost_ns);
/* Whether something of its came to nothing within half a minute. */
bool terse_standing_suspects(const terse_standing *standing, uint64_t key, uint64_t now_ns);
/* How long somebody's next connection is to wait; 0: comes in. */
uint64_t terse_standing_wait(const terse_standing *standing, uint64_t key, uint64_t now_ns);

#endif
