/* SPDX-License-Identifier: Apache-2.0 */
/* share.h: tensors of short requests in memory that is shared with the daemon, where it is of this host and shares any:
 * such a request travels through a ring, without a socket. What does not fit goes in messages, as everything else.
 * Runs in: terse-gateway, its loop. Ownership: a loan is an exchange's, from its reading until its answer is written.
 *
 * The memory for outputs is asked for with the request, when nobody knows yet how large they become. Each form of a
 * request (model, inputs with their shapes, outputs asked for) is therefore sent without such memory once, and again
 * whenever the answer says that the outputs are others now. */
#ifndef TERSE_GATEWAY_SHARE_H
#define TERSE_GATEWAY_SHARE_H

#include <stdbool.h>

#include "client/terse.h"

enum { TERSE_LOAN_TENSORS = 4, TERSE_LOAN_FORM = 512 };

typedef struct terse_share terse_share;

typedef struct terse_loan {
    terse_share *share;    /* NULL: nothing is to be shared */
    unsigned n, n_outputs; /* ranges, of which so many are outputs */
    void *ranges[2 * TERSE_LOAN_TENSORS];
    bool partly; /* an input lies elsewhere, or the form is too long: outputs travel in messages */
    size_t form_size;
    char form[TERSE_LOAN_FORM];
} terse_loan;

/* Asks the client's daemon for memory; without any nothing is lent. NULL: out of memory. */
terse_share *terse_share_new(terse_client *client);
void terse_share_free(terse_share *share);

/* An empty loan. `share` may be NULL. */
void terse_loan_begin(terse_loan *loan, terse_share *share);
/* What is part of the form. */
void terse_loan_note(terse_loan *loan, const void *bytes, size_t size);
/* What terse_request_place_input wants. */
terse_client_arena *terse_loan_arena(const terse_loan *loan);
/* A place with a copy of `bytes` of `data`; NULL: it is to travel as usual. */
void *terse_loan_input(terse_loan *loan, const void *data, size_t bytes);
/* Gives everything back. */
void terse_loan_end(terse_loan *loan);

/* Places the outputs, if it is known how large they are. */
void terse_share_place(terse_share *share, terse_loan *loan, terse_request *request);
/* A reply whose outputs were not placed: they are the next time. */
void terse_share_learn(terse_share *share, const terse_loan *loan, const terse_reply *reply);
/* They were, and are others now. */
void terse_share_forget(terse_share *share, const terse_loan *loan);
/* A request with a loan found no daemon: nothing is lent any more, for a daemon that shares no memory may be there
 * instead. */
void terse_share_doubt(terse_share *share);
/* A request without a loan was answered well: memory that is wanting is asked for again, now and then. */
void terse_share_mend(terse_share *share);

#endif
