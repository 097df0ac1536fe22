/* SPDX-License-Identifier: Apache-2.0 */
/* load_internal.h: what load.c and load_open.c share.
 * Runs in: terse bench, terse tune. */
#ifndef TERSE_CLI_LOAD_INTERNAL_H
#define TERSE_CLI_LOAD_INTERNAL_H

#include "client/cli/bench/load.h"
#include "common/npz.h"

enum { LOAD_MAX_IO = 64, LOAD_RING = 1 << 21 };

typedef struct load_connection {
    terse_client *client;
    terse_request **places; /* --shm: requests with memory of their own each, those in [0, n_free) are free */
    uint32_t n_places, n_free;
    terse_request **used; /* by id modulo ring */
    uint64_t *due_ns;     /* by id modulo ring */
} load_connection;

struct terse_load {
    load_connection connections[TERSE_LOAD_CONNECTIONS];
    unsigned n;
    uint32_t ring;
    terse_signature *signature;
    terse_npz *npz;
    terse_tensor inputs[LOAD_MAX_IO]; /* random ones, ours to free */
    terse_request *request;
    terse_reply *reference; /* verify: the first answer */
    bool verify, shm, retries;
};

#endif
