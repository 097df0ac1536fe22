/* SPDX-License-Identifier: Apache-2.0 */
/* link.h: the supervisor's end of a child's control socket: sends in order, never waits.
 * Runs in: tersed. Ownership: a link owns its descriptor and what is queued. */
#ifndef TERSE_SUPERVISOR_LINK_H
#define TERSE_SUPERVISOR_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/protocol.h"

enum { TERSE_LINK_MESSAGES = 8192 }; /* a child that leaves more unread is stuck */

typedef struct terse_link_message terse_link_message;

typedef struct terse_link {
    int fd; /* not blocking; -1: closed */
    terse_link_message *first, *last;
    unsigned n_queued;
} terse_link;

/* Makes the pair; the child's end (blocking, CLOEXEC) is the caller's to close. */
int terse_link_open(terse_link *link, int *ret_child_end, terse_error *error);
void terse_link_close(terse_link *link);

/* Fills message->kind and bytes, then sends it, or queues it with duplicates of its descriptor (-1: none) while the
 * socket is full. False with errno when the child cannot be reached any more. */
bool terse_link_send(terse_link *link, terse_msg_kind kind, terse_msg *message, uint32_t bytes, int fd);
/* Sends what is queued, as far as there is room. */
bool terse_link_flush(terse_link *link);

#endif
