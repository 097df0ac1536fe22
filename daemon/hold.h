/* SPDX-License-Identifier: Apache-2.0 */
/* hold.h: connections that ZeroMQ is not to read for a while, and those that it is not to know yet.
 * Runs in: terse-frontend, terse-gate, on ZeroMQ's one I/O thread. Ownership: one table of descriptors, one timer and
 * the connections that wait outside.
 *
 * Who floods is best served by not being read: what it sends fills its own socket, and then it waits instead of taking
 * the processors from everybody. ZeroMQ has no such thing. But it asks for events through the C library, and
 * tap_calls.c stands in front of epoll_ctl as well: a held connection is out of ZeroMQ's epoll and comes back into it
 * later as ZeroMQ left it. Who comes again and again for nothing waits outside: accepted, so that the backlog is for
 * others, and not yet handed over. A timer that stands in for the listener tells ZeroMQ's thread that something is due.
 * It comes every few milliseconds and lets few go on at a time: that bounds what all of them together take. */
#ifndef TERSE_DAEMON_HOLD_H
#define TERSE_DAEMON_HOLD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/* For descriptors below n; false: no memory. Before sandbox and listeners. */
bool terse_hold_open(uint32_t n);
void terse_hold_done(void); /* when ZeroMQ's threads have ended */

/* Stands for epoll_ctl of a listener or a connection: what it is to return. The first listener lends the timer its
 * data. */
int terse_hold_control(int epoll, int op, int fd, struct epoll_event *event, bool listener);

/* Not to be read until then; false: it cannot be held. */
bool terse_hold_connection(int fd, uint64_t until_ns);
bool terse_hold_holds(int fd);
void terse_hold_forget(int fd); /* it is closed */

/* An accepted connection of somebody who is to wait; false: no room. */
bool terse_hold_outside(int fd, uint64_t key);
/* Whether the wait of this one is over; the tap's. */
typedef bool terse_hold_may_enter(int fd, uint64_t key);
/* When ZeroMQ asks a listener: does what is due. Returns a connection whose wait is over, or -1. */
int terse_hold_turn(uint64_t now_ns, terse_hold_may_enter *may_enter);

#endif
