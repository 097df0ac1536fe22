/* SPDX-License-Identifier: Apache-2.0 */
/* work.h: the two ends of an inference that take time by the byte: its body is unpacked and read, its answer written
 * and packed. Either may be done in the loop or aside of it: nothing is touched here but what is the exchange's own.
 * Runs in: terse-gateway, its loop and the thread of aside.h. */
#ifndef TERSE_GATEWAY_WORK_H
#define TERSE_GATEWAY_WORK_H

#include "client/gateway/gateway.h"

/* Takes what else is told in the head; false, and an answer, when that is wrong. In the loop. */
bool terse_work_begin(terse_exchange *exchange);
/* Whether that would keep the loop longer than a millisecond or so. */
bool terse_work_reading_is_long(const terse_exchange *exchange);
bool terse_work_writing_is_long(const terse_exchange *exchange);

/* `body` becomes `request`, or there is an answer that says why not; `taken` is what it had. Shared memory is for the
 * loop alone: aside `share` is NULL. */
void terse_work_read(terse_exchange *exchange, terse_share *share);
/* `reply` becomes the answer. */
void terse_work_write(terse_exchange *exchange);

#endif
