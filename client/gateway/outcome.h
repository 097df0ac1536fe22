/* SPDX-License-Identifier: Apache-2.0 */
/* outcome.h: a reply of libterse becomes the body of an infer answer, in the form that was wished.
 * Runs in: terse-gateway. Owns nothing. */
#ifndef TERSE_GATEWAY_OUTCOME_H
#define TERSE_GATEWAY_OUTCOME_H

#include "client/gateway/intake.h"
#include "client/gateway/text.h"

/* Appends to `body`. *ret_header_size: bytes of the JSON when binary tensors follow it, else 0. A wish that cannot be
 * (classes of too many values) is INVALID_ARGUMENT. */
terse_status terse_outcome_write(const terse_reply *reply, const char *model, const terse_wish *wish, terse_text *body,
                                 size_t *ret_header_size, terse_error *error);
/* Whether output `index` goes out as its bytes are. */
bool terse_outcome_is_binary(const terse_wish *wish, int index);

#endif
