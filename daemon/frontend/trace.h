/* SPDX-License-Identifier: Apache-2.0 */
/* trace.h: when a request was where: for clients that ask ("trace" in a request) and, of a sample, for the log.
 * Runs in: frontend. Plain numbers, owns nothing.
 *
 * Only a request that is traced reads the clock at its stations; all others go by the time of the loop's turn.
 * Stations: received (its header was read), queued (let in, its tensors copied), dispatched (its batch was sent to a
 * worker), computed (the worker's answer was read), replied (its reply is made). */
#ifndef TERSE_FRONTEND_TRACE_H
#define TERSE_FRONTEND_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/wire.h"

struct terse_frontend;
struct terse_request;
struct terse_pool_worker;

/* Of a request. */
typedef struct terse_trace {
    bool asked, sampled; /* by its client; for the log */
    uint64_t received_ns, queued_ns, dispatched_ns;
} terse_trace;

/* Of the front end. */
typedef struct terse_traces {
    uint32_t millionths; /* of the requests are sampled */
    uint64_t state;      /* of the generator that draws them */
    uint64_t second_ns;  /* when the second began in which `logged` lines were written and `passed_over` were not */
    uint32_t logged, passed_over;
} terse_traces;

static inline bool terse_trace_on(const terse_trace *trace)
{
    return trace->asked || trace->sampled;
}

/* For an infer request that was just read. */
terse_trace terse_trace_begin(terse_traces *traces, const terse_wire_request *wire);
/* What the reply tells; `computed_ns` is when the worker's answer was read. The clock only for clients that share it.
 */
void terse_trace_tell(const terse_trace *trace, uint64_t computed_ns, uint32_t worker, bool share_clock,
                      terse_wire_reply *reply);

/* What there is to say of a sampled request in the log. */
typedef struct terse_trace_end {
    const char *model;
    uint64_t id;
    terse_status status;
    uint64_t computed_ns, compute_us; /* 0: it did not run to its end */
    uint32_t worker, rows;            /* of its batch */
} terse_trace_end;
void terse_trace_log(terse_traces *traces, const terse_trace *trace, const terse_trace_end *end);

#endif
