/* SPDX-License-Identifier: Apache-2.0 */
/* listeners.h: the sockets at which clients connect.
 * Runs in: tersed, which owns them for its whole life: a front end gets duplicates and may die and come back while
 * clients wait in the backlog. */
#ifndef TERSE_SUPERVISOR_LISTENERS_H
#define TERSE_SUPERVISOR_LISTENERS_H

#include <sys/types.h>

#include "daemon/supervisor/store.h"

typedef struct terse_listener {
    char endpoint[TERSE_ENDPOINT_BYTES];
    char path[TERSE_ENDPOINT_BYTES]; /* of the socket file that we made; "": none, or the service manager's */
    dev_t device;                    /* of that file: another one at the same path is not ours to remove */
    ino_t inode;
    int pin; /* keeps the inode, and with it the number, from being used again; -1: none */
    int fd;
    bool tcp; /* the gate's, not the front end's */
} terse_listener;

typedef struct terse_listeners {
    terse_listener at[3 * TERSE_MAX_LISTEN]; /* what is configured, then the sockets for shared memory beside them */
    unsigned n;
} terse_listeners;

/* Takes over the sockets that the service manager passed (`store`; NULL: none), then opens what the configuration lists
 * and they do not cover, and the default endpoint when there is none at all. A socket file that nobody listens at any
 * more is replaced; a live one is an error. On failure nothing stays behind.
 *
 * Beside every ipc endpoint PATH a socket PATH.attach is opened for shared memory, endpoint "attach:PATH.attach";
 * beside the first also `attach.sock` in its directory, unless another daemon has it. What keeps them away is logged:
 * requests do without. None with arenas_per_uid = 0. The service manager
 * may pass such sockets too (SOCK_SEQPACKET). */
int terse_listeners_open(terse_listeners *listeners, terse_store *store, const terse_config *config,
                         terse_error *error);
void terse_listeners_close(terse_listeners *listeners);

#endif
