/* SPDX-License-Identifier: Apache-2.0 */
/* endpoint.h: the addresses at which clients connect, as ZeroMQ writes them.
 * Runs in: tersed. Owns nothing. */
#ifndef TERSE_SUPERVISOR_ENDPOINT_H
#define TERSE_SUPERVISOR_ENDPOINT_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/status.h"

enum { TERSE_ENDPOINT_BYTES = 256 }; /* with its 0, as terse_msg_listen carries it */

typedef struct terse_endpoint {
    struct sockaddr_storage address;
    socklen_t address_bytes;
    bool local;    /* ipc: address is a sockaddr_un */
    bool loopback; /* tcp: only processes of this host reach it */
} terse_endpoint;

/* "ipc://PATH", "tcp://ADDRESS:PORT" with a numeric IPv4 or [IPv6] address, "localhost" or "*"; port 0 or * takes a
 * free one. Names are not looked up: a daemon's start must not depend on a name server. */
int terse_endpoint_parse(const char *text, terse_endpoint *ret_endpoint, terse_error *error);

/* Writes the endpoint of a bound socket's address into `text`. An address that no endpoint can name is refused. */
int terse_endpoint_of(const struct sockaddr *address, socklen_t address_bytes, char *text, terse_error *error);

/* Where tersed listens when nothing is configured; clients look there too. */
int terse_endpoint_default(char *text, terse_error *error);

/* Equal addresses. */
bool terse_endpoint_same(const terse_endpoint *a, const terse_endpoint *b);

#endif
