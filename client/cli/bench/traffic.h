/* SPDX-License-Identifier: Apache-2.0 */
/* traffic.h: when the requests of an open loop are due: numbers only, no clock.
 * Runs in: terse bench, terse tune. Ownership: a terse_traffic owns the moments of its trace.
 *
 * poisson        gaps are exponential and independent: many clients that know nothing of each other
 * constant       gaps are all alike
 * burst[:N]      N requests (16) at one moment, such moments being Poisson
 * trace:FILE     moments of a file, a number of seconds on each line, ascending, from any origin; # begins a comment.
 *                At the end it begins anew. With a rate the file's time is stretched until its mean rate is that one.
 */
#ifndef TERSE_CLI_TRAFFIC_H
#define TERSE_CLI_TRAFFIC_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

typedef enum terse_traffic_kind {
    TERSE_TRAFFIC_POISSON,
    TERSE_TRAFFIC_CONSTANT,
    TERSE_TRAFFIC_BURST,
    TERSE_TRAFFIC_TRACE
} terse_traffic_kind;

typedef struct terse_traffic {
    terse_traffic_kind kind;
    const char *text; /* as it was given, the caller's */
    uint64_t burst;
    double *moments; /* seconds, ascending from 0 */
    size_t n;
    double span; /* from the first to where it begins anew: a mean gap behind the last */
} terse_traffic;

/* `text` as above. Reads the file of a trace. */
int terse_traffic_read(const char *text, terse_traffic *ret_traffic, terse_error *error);
void terse_traffic_done(terse_traffic *traffic);
/* Requests a second that a trace has by itself; 0 for the others. */
double terse_traffic_rate(const terse_traffic *traffic);
/* "--traffic trace FILE" becomes "--traffic trace:FILE": for the parser an option has one value. Moves what is behind,
 * and returns how many arguments are left; the joined text is written into `room`. */
int terse_traffic_join(int argc, char **argv, char *room, size_t size);

typedef struct terse_arrivals {
    const terse_traffic *traffic;
    double rate, due;
    uint64_t state, left; /* left: requests of this burst; of a trace: the next line */
    double begun;         /* when this turn of the trace began */
} terse_arrivals;

/* The same seed gives the same moments. `rate` must be above 0, but for a trace, which then has its own. */
terse_arrivals terse_arrivals_begin(const terse_traffic *traffic, double rate, uint64_t seed);
/* Seconds from the beginning at which the next request is due, never less than the last. */
double terse_arrivals_next(terse_arrivals *arrivals);

#endif
