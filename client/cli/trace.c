/* SPDX-License-Identifier: Apache-2.0 */
/* The bars of `terse infer --trace`: a line for each part of a request's way, as long as it took and where it was. */
#include "client/cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { BAR_COLUMNS = 48, FEW = 4, STAGES = 6 };

typedef struct way {
    double end_us[STAGES]; /* since submission */
    double compute_us;
    bool same_clock;
    uint32_t batch;
    unsigned worker;
} way;

static bool way_of(const terse_reply *reply, way *ret_way)
{
    terse_trace trace = TERSE_TRACE_INIT;
    uint64_t compute_us = 0;
    if (terse_reply_trace(reply, &trace))
        return false;
    terse_reply_timing(reply, NULL, &compute_us, &ret_way->batch);
    const uint64_t ends[STAGES] = {trace.received_ns, trace.queued_ns,  trace.dispatched_ns,
                                   trace.computed_ns, trace.replied_ns, trace.completed_ns};
    for (int i = 0; i < STAGES; i++)
        ret_way->end_us[i] = (double)ends[i] / 1000;
    ret_way->compute_us = (double)compute_us;
    ret_way->worker = trace.worker;
    ret_way->same_clock = trace.same_clock != 0;
    return true;
}

/* Where in the bar a moment is. */
static int column_of(double us, double all_us)
{
    const double at = all_us > 0 ? us / all_us * BAR_COLUMNS : 0;
    return at < 0 ? 0 : at > BAR_COLUMNS ? BAR_COLUMNS : (int)(at + 0.5);
}

static void print_way(const way *w)
{
    static const char *const names[STAGES] = {"to the daemon", "admitted", "queued",
                                              "worker",        "replied",  "to the client"};
    const double all_us = w->end_us[STAGES - 1];
    double begin = 0;
    for (int i = 0; i < STAGES; i++) {
        char bar[BAR_COLUMNS + 1];
        const double end = w->end_us[i];
        int from = column_of(begin, all_us), to = column_of(end, all_us);
        from -= from == BAR_COLUMNS;
        to += to <= from; /* what took no time that can be seen still has its place */
        memset(bar, ' ', BAR_COLUMNS);
        bar[BAR_COLUMNS] = 0;
        memset(bar + from, '=', (size_t)(to - from));
        printf("  %-14s |%s| %9.1f us", names[i], bar, end > begin ? end - begin : 0);
        if (i == 3)
            printf(", computed %.0f us", w->compute_us);
        putchar('\n');
        begin = end;
    }
}

void terse_cli_print_traces(terse_reply *const *replies, int64_t n)
{
    way sum = {.same_clock = true};
    int64_t counted = 0;
    for (int64_t i = 0; i < n; i++) {
        way w;
        if (!way_of(replies[i], &w))
            continue;
        counted++;
        sum.same_clock &= w.same_clock;
        sum.compute_us += w.compute_us;
        for (int k = 0; k < STAGES; k++)
            sum.end_us[k] += w.end_us[k];
        if (n <= FEW) {
            printf("request %" PRId64 ": %.1f us, worker %u, in a batch of %" PRIu32 " rows\n", i + 1,
                   w.end_us[STAGES - 1], w.worker, w.batch);
            print_way(&w);
        }
    }
    if (n > FEW && counted > 0) {
        for (int k = 0; k < STAGES; k++)
            sum.end_us[k] /= (double)counted;
        sum.compute_us /= (double)counted;
        printf("mean of %" PRId64 " requests: %.1f us\n", counted, sum.end_us[STAGES - 1]);
        print_way(&sum);
    }
    if (counted == 0)
        printf("the daemon told no traces\n");
    else if (!sum.same_clock)
        printf("  (the daemon has another clock: the ways there and back are taken as equally long)\n");
}
