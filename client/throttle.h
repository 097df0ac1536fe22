/* SPDX-License-Identifier: Apache-2.0 */
/* throttle.h: refuses here what a flooded daemon would only refuse there.
 * Ownership: a client owns its throttles; a sent entry names the one that it counts for.
 *
 * Design notes
 *   To read a request and to refuse it costs a daemon a part of what it costs to answer a small one. A client that
 * offers many times what the daemon can do so takes from the answers of everybody, its own among them. Client-side
 * throttling (Beyer et al., Site Reliability Engineering, 2016, chapter 21) leaves such refusals to the client: one
 * that is refused more than `spare` times a second sends HEADROOM times what the daemon takes of it, by a token bucket,
 * and refuses the rest with the status, the reason and the time that the daemon last named. The rate follows
 * what is taken half way in each window of 50 ms; a daemon that refuses next to nothing of what it is sent is sent a
 * quarter more each time. When nothing had to be refused for a window, here or there, it is over.
 *
 *   Requests that differ in what a daemon decides by (model, version, priority, the order of magnitude of their time)
 * are counted apart: what is refused of one says nothing about the other. */
#ifndef TERSE_CLIENT_THROTTLE_H
#define TERSE_CLIENT_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/terse.h"

enum { TERSE_THROTTLES = 16, TERSE_THROTTLE_TEXT = 256 };

typedef struct terse_throttle {
    uint64_t key;            /* 0: free */
    bool active;             /* it refuses */
    uint64_t window_ns;      /* since when these are counted: */
    uint64_t taken, refused; /* answers of the daemon */
    uint64_t here;           /* refused here */
    double rate;             /* that the daemon takes a second */
    double tokens;           /* requests that may go */
    uint64_t filled_ns;      /* when it was given the last of them */
    terse_status status;     /* of the daemon's last refusal, with its */
    uint64_t retry_after_ms; /* ... and: */
    char text[TERSE_THROTTLE_TEXT];
} terse_throttle;

/* Never 0. */
uint64_t terse_throttle_key(const char *model, const char *version, unsigned priority, uint64_t timeout_us);
/* The one of `list` [TERSE_THROTTLES] for that key. NULL: there is none. */
terse_throttle *terse_throttle_find(terse_throttle *list, uint64_t key);
/* A new one where there is none; of a few places that of the key that has been quiet for longest is taken for it. */
terse_throttle *terse_throttle_of(terse_throttle *list, uint64_t key);
/* No daemon is there, or another one comes: nothing is known of it. */
void terse_throttle_forget(terse_throttle *list);
/* The daemon took one, or refused it. `spare`: so many refusals a second are its own to make. */
void terse_throttle_taken(terse_throttle *throttle);
void terse_throttle_refused(terse_throttle *throttle, uint64_t now_ns, uint64_t spare, terse_status status,
                            uint64_t retry_after_ms);
/* true: one that would be sent now is refused here. Of an active one only. */
bool terse_throttle_refuses(terse_throttle *throttle, uint64_t now_ns, uint64_t spare);

#endif
