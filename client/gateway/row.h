/* SPDX-License-Identifier: Apache-2.0 */
/* row.h: exchanges in a row, between the loop and a thread beside it. Whoever shares one locks it.
 * Runs in: terse-gateway. Owns nothing: an exchange is in one row at a time, by its `next_same`. */
#ifndef TERSE_GATEWAY_ROW_H
#define TERSE_GATEWAY_ROW_H

#include "client/gateway/gateway.h"

typedef struct terse_row {
    terse_exchange *first, *last;
    unsigned n;
} terse_row;

static inline void terse_row_put(terse_row *row, terse_exchange *exchange)
{
    exchange->next_same = NULL;
    *(row->last ? &row->last->next_same : &row->first) = exchange;
    row->last = exchange;
    row->n++;
}

/* NULL: it is empty. */
static inline terse_exchange *terse_row_take(terse_row *row)
{
    terse_exchange *exchange = row->first;
    if (!exchange)
        return NULL;
    row->first = exchange->next_same;
    if (!row->first)
        row->last = NULL;
    row->n--;
    return exchange;
}

#endif
