/* SPDX-License-Identifier: Apache-2.0 */
/* aside.h: a thread that reads bodies and writes answers which would keep the loop for too long.
 * Runs in: terse-gateway. An exchange belongs to it from terse_aside_give until terse_aside_take gives it back;
 * `wake_fd` (an eventfd) is rung when something is to be taken. */
#ifndef TERSE_GATEWAY_ASIDE_H
#define TERSE_GATEWAY_ASIDE_H

#include "client/gateway/gateway.h"

typedef struct terse_aside terse_aside;

int terse_aside_start(int wake_fd, terse_aside **ret_aside, terse_error *error);
/* Waits for the thread, which finishes what it is at; what it had not begun is answered UNAVAILABLE and to be taken. */
void terse_aside_stop(terse_aside *aside);
void terse_aside_free(terse_aside *aside);
void terse_aside_give(terse_aside *aside, terse_exchange *exchange);
/* The next that is done, NULL: none. */
terse_exchange *terse_aside_take(terse_aside *aside);

#endif
