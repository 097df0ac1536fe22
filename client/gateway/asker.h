/* SPDX-License-Identifier: Apache-2.0 */
/* asker.h: a thread that asks the daemon what libterse answers only to those who wait, and opens the clients.
 * Runs in: terse-gateway. The asker owns its client; an exchange belongs to it from terse_asker_ask until
 * terse_asker_take gives it back, with its answer. `wake_fd` (an eventfd) is rung when something is to be taken. */
#ifndef TERSE_GATEWAY_ASKER_H
#define TERSE_GATEWAY_ASKER_H

#include "client/gateway/gateway.h"
#include "client/gateway/live.h"

typedef struct terse_asker terse_asker;

int terse_asker_start(const terse_gateway_options *options, int wake_fd, terse_asker **ret_asker, terse_error *error);
/* Waits for the thread; exchanges that it still has are answered UNAVAILABLE and to be taken. */
void terse_asker_stop(terse_asker *asker);
void terse_asker_free(terse_asker *asker);
/* false: too many questions wait already. */
bool terse_asker_ask(terse_asker *asker, terse_exchange *exchange);
/* The next exchange that is answered, NULL: none. */
terse_exchange *terse_asker_take(terse_asker *asker);
/* The client for inferences, once a daemon has been seen, and what it shares with that; given once. */
terse_client *terse_asker_take_client(terse_asker *asker, terse_share **ret_share);

/* about.c: answers one question. Runs in the asker's thread, as the next. */
terse_status terse_about(terse_client *client, const terse_live *live, const terse_route *route, terse_answer *answer);
/* The daemon's numbers; `error` may be NULL. */
terse_status terse_about_view(terse_client *client, terse_view **ret_view, terse_error *error);

#endif
