/* SPDX-License-Identifier: Apache-2.0 */
/* overload.h: who is let in when there is more to do than time: by prediction.
 * Runs in: frontend. Reads the whole front end, changes only the model's counters.
 *
 * Design notes
 *   One controller per request. One with a deadline is refused when it would not be done in time (predict.h), and when
 *   what waits before it would take more than half of its time: a queue longer than that serves nobody better, it only
 *   makes all wait. One without is refused when a minute's work waits (two for who has little, below); CoDel (codel.h)
 * keeps that from standing. A client may fill twice what the queue has left (Choudhury and Hahne, "Dynamic queue length
 * thresholds", 1998): one alone gets two thirds of it, and one more always finds room, whoever floods. Whoever has less
 * than half of what clients have on average may have all of its time, and CoDel spares it: what others were let in with
 * may take far longer than it seemed, and fill the queue until it is done. None of this applies while no more waits
 * than a batch for each worker: it must not idle, and what an idle pool takes in is how a cost that was measured too
 * high is found out. All is decided before a tensor is touched. A refused request is told when to come again: when the
 * queue will be shorter, and the later the more others are refused too, so that those who obey do not come in vain. */
#ifndef TERSE_FRONTEND_OVERLOAD_H
#define TERSE_FRONTEND_OVERLOAD_H

#include "daemon/frontend/frontend.h"

typedef struct terse_overload_request {
    uint32_t rows;
    unsigned priority;
    uint64_t bytes;
    uint64_t deadline_ns;
    /* set by terse_overload_check, also where it refuses */
    uint64_t work_ns, reckoned_ns;
    uint64_t retry_after_ms; /* TERSE_WIRE_NO_RETRY: coming again will not help */
    terse_rejection reason;  /* where it refuses */
    terse_trace trace;       /* for the request that it becomes */
} terse_overload_request;

/* Whether a request may wait in `lane`; lane NULL: only the limits that do not depend on the model's costs. */
int terse_overload_check(terse_frontend *fe, terse_client *client, terse_served *model, terse_lane *lane,
                         terse_overload_request *request, terse_error *error);
/* When to come again if nothing better is known: when about half of what waits is done. */
uint64_t terse_overload_retry_ms(const terse_frontend *fe);
/* A request begins to run, or will never: how long it waited corrects predictions. */
void terse_overload_learn(terse_frontend *fe, const terse_request *request);

/* For a request without a deadline whose turn it is: true when it is to be turned away. */
bool terse_overload_stands(const terse_frontend *fe, terse_lane *lane, const terse_request *request);
/* Whether a request whose turn it is cannot be done in time any more, and others could. */
bool terse_overload_doomed(const terse_frontend *fe, const terse_lane *lane, const terse_request *request);

#endif
