/* SPDX-License-Identifier: Apache-2.0 */
/* loop.h: one descriptor by which an event loop watches a client.
 *
 * libzmq's own descriptor is edge-triggered and falls silent while messages wait. So the user gets an epoll descriptor
 * over libzmq's two, a timer for the next deadline, and an eventfd that we raise whenever something is already there.
 */
#ifndef TERSE_CLIENT_LOOP_H
#define TERSE_CLIENT_LOOP_H

#include "client/internal.h"

/* After every call that may have changed what there is to do. No effect until terse_client_fd has been called. */
void terse_loop_update(terse_client *client);
/* Adds the arena's descriptors; they leave when they are closed. */
void terse_loop_watch_arena(terse_client *client);
int terse_loop_descriptor(void *socket); /* libzmq's, of one socket */
void terse_loop_close(terse_client *client);

/* client.c: receives, resends, expires, without waiting; the next moment at which time alone will do something. */
void terse_client_process(terse_client *client);
uint64_t terse_client_next_event_ns(const terse_client *client);
/* Whether something waits for the link's socket to take more. */
bool terse_client_wants_out(const terse_client *client, const struct terse_link *link);

#endif
