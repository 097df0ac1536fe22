/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/trace.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/bytes.h"
#include "daemon/log.h"

#define SECOND_NS UINT64_C(1000000000)
enum { LINES_A_SECOND = 200 };

static bool draw(terse_traces *traces)
{
    if (traces->millionths == 0)
        return false;
    if (traces->state == 0)
        traces->state = terse_now_ns() | 1;
    traces->state ^= traces->state >> 12; /* xorshift64* (Vigna 2016) */
    traces->state ^= traces->state << 25;
    traces->state ^= traces->state >> 27;
    return ((traces->state * UINT64_C(0x2545f4914f6cdd1d)) >> 32) * 1000000 >> 32 < traces->millionths;
}

terse_trace terse_trace_begin(terse_traces *traces, const terse_wire_request *wire)
{
    terse_trace trace = {.asked = wire->trace, .sampled = draw(traces)};
    if (terse_trace_on(&trace))
        trace.received_ns = terse_now_ns();
    return trace;
}

/* 0 where a request did not come, and where a clock did not move as it should. */
static uint64_t since(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? to_ns - from_ns : 0;
}

void terse_trace_tell(const terse_trace *trace, uint64_t computed_ns, uint32_t worker, bool share_clock,
                      terse_wire_reply *reply)
{
    reply->has_trace = true;
    reply->trace = (terse_wire_trace){
        .has_received = share_clock,
        .received_ns = trace->received_ns,
        .queued_ns = since(trace->received_ns, trace->queued_ns),
        .dispatched_ns = since(trace->received_ns, trace->dispatched_ns),
        .computed_ns = since(trace->received_ns, computed_ns),
        .replied_ns = since(trace->received_ns, terse_now_ns()),
        .worker = worker,
    };
}

/* Whether a line may be written now: a log that is written faster than it is read would hold up everybody. */
static bool may_log(terse_traces *traces, uint64_t now)
{
    if (now - traces->second_ns >= SECOND_NS) {
        if (traces->passed_over)
            terse_log(TERSE_LOG_INFO, "%" PRIu32 " sampled requests were not logged: more than %d in a second",
                      traces->passed_over, LINES_A_SECOND);
        traces->second_ns = now;
        traces->logged = traces->passed_over = 0;
    }
    if (traces->logged < LINES_A_SECOND) {
        traces->logged++;
        return true;
    }
    traces->passed_over++;
    return false;
}

void terse_trace_log(terse_traces *traces, const terse_trace *trace, const terse_trace_end *end)
{
    const uint64_t now = terse_now_ns(), begun = trace->received_ns;
    if (!trace->sampled || !may_log(traces, now))
        return;
    const uint64_t total = since(begun, now) / 1000, admit = since(begun, trace->queued_ns) / 1000;
    const uint64_t left = trace->dispatched_ns ? trace->dispatched_ns : now; /* the queue, without having run */
    const uint64_t queue = since(trace->queued_ns, left) / 1000;
    const uint64_t work = since(trace->dispatched_ns, end->computed_ns) / 1000;
    const terse_log_number numbers[] = {
        {"TOTAL_US", total},
        {"ADMIT_US", admit},
        {"QUEUE_US", queue},
        {"WORK_US", work},
        {"COMPUTE_US", end->compute_us},
        {"BATCH_ROWS", end->rows},
    };
    char worker[16];
    snprintf(worker, sizeof worker, "%" PRIu32, end->worker);
    const char *status = terse_status_name(end->status);
    const terse_log_about about = {.model = end->model,
                                   .request = &end->id,
                                   .status = status,
                                   .worker = end->computed_ns ? worker : NULL,
                                   .numbers = numbers,
                                   .n_numbers = sizeof numbers / sizeof numbers[0]};
    if (end->computed_ns)
        terse_log_with(&about, TERSE_LOG_INFO,
                       "request %" PRIu64 " of model '%s': %s in %" PRIu64 " us: admitted %" PRIu64 ", queued %" PRIu64
                       ", worker %s %" PRIu64 " (computed %" PRIu64 ", %" PRIu32 " rows), replied %" PRIu64,
                       end->id, end->model, status, total, admit, queue, worker, work, end->compute_us, end->rows,
                       since(end->computed_ns, now) / 1000);
    else
        terse_log_with(&about, TERSE_LOG_INFO,
                       "request %" PRIu64 " of model '%s': %s after %" PRIu64 " us: admitted %" PRIu64
                       ", queued %" PRIu64,
                       end->id, end->model, status, total, admit, queue);
}
