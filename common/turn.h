/* SPDX-License-Identifier: Apache-2.0 */
/* turn.h: how soon a process gets the processor after it slept.
 * Runs in: terse-frontend, terse bench. */
#ifndef TERSE_COMMON_TURN_H
#define TERSE_COMMON_TURN_H

/* From here on this thread, and those that it starts, take the processor in short turns and therefore soon after they
 * wake, also from who computes for long. Their share of it stays the same, and no privilege is needed. Kernels that do
 * not know of it (before Linux 6.12) pass it over; nothing depends on it. */
void terse_turn_short(void);

#endif
