/* SPDX-License-Identifier: Apache-2.0 */
/* codel.h: which waiting requests without a deadline to turn away, by how long they waited.
 * Runs in: frontend. Plain numbers, owns nothing, reads no clock. A zeroed terse_codel has seen nothing.
 *
 * Design notes
 *   CoDel (Nichols and Jacobson, RFC 8289), a request being a packet. A queue that absorbs a burst empties again; one
 *   that stands only delays. When what is taken out has waited for longer than the target during a whole interval, the
 *   oldest is turned away, and then one more after interval / sqrt(count), until waits are below the target again.
 *   The target is the caller's: two batch times at least, since a batch that is full waits for one; and as long as an
 *   interval, since who sets no deadline sends a burst rather than be turned away. */
#ifndef TERSE_FRONTEND_CODEL_H
#define TERSE_FRONTEND_CODEL_H

#include <stdbool.h>
#include <stdint.h>

#define TERSE_CODEL_INTERVAL_NS UINT64_C(100000000)
#define TERSE_CODEL_LEAST_TARGET_NS TERSE_CODEL_INTERVAL_NS

typedef struct terse_codel {
    uint64_t above_ns; /* when waits will have been above the target for an interval; 0: they are not above */
    uint64_t next_ns;  /* when the next one is turned away, while dropping */
    uint32_t count, last_count;
    bool dropping;
} terse_codel;

/* For each request as it is taken out at `now_ns` after `waited_ns`. `small`: hardly anything waits behind it, no
 * reason to turn anybody away. true: turn it away. */
bool terse_codel_drop(terse_codel *codel, uint64_t waited_ns, uint64_t now_ns, uint64_t target_ns, bool small);

#endif
