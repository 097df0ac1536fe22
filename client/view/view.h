/* SPDX-License-Identifier: Apache-2.0 */
/* view.h: what a daemon tells of itself (the reply of "stats", terse-protocol(7)) as plain structs; rates and
 * percentiles between two looks; and all of it as OpenMetrics text. Runs in: terse, terse-gateway. Not a part of
 * libterse. Ownership: a view is the caller's and holds copies: the bytes that it was read from may go.
 *
 * The bytes are taken from whoever answers at the endpoint: lengths, types and numbers of entries are checked, nothing
 * is allocated on their word, and a view has at most TERSE_VIEW_MODELS models and TERSE_VIEW_WORKERS workers. Keys that
 * are not known are passed over, those that are missing count 0: daemons older and newer than this code can be looked
 * at. Texts are valid UTF-8: what was none in them is '?'. */
#ifndef TERSE_VIEW_VIEW_H
#define TERSE_VIEW_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buckets.h"
#include "common/status.h"

enum {
    TERSE_VIEW_MODELS = 256,
    TERSE_VIEW_CHANGES = 512,
    TERSE_VIEW_WORKERS = 256,
    TERSE_VIEW_NAME = 128, /* bytes with the 0 */
    TERSE_VIEW_WORD = 32,
    TERSE_VIEW_COUNTS = 24,
    TERSE_VIEW_COSTS = 16,
};

/* Counters by name: replies by status, refusals by reason ... */
typedef struct terse_view_counts {
    unsigned n;
    struct {
        char name[TERSE_VIEW_WORD];
        uint64_t count;
    } at[TERSE_VIEW_COUNTS];
} terse_view_counts;

/* What happened in the last 5 to 10 seconds, `us` microseconds, as the daemon reckons: for those who look once. */
typedef struct terse_view_recent {
    uint64_t us, requests, ok, rejected, rows, batches, p50_us, p99_us;
} terse_view_recent;

typedef struct terse_view_model {
    char name[TERSE_VIEW_NAME];
    char version[TERSE_VIEW_WORD], state[TERSE_VIEW_WORD]; /* "ready", "loading" */
    uint64_t requests, ok, rows, batches, crashed_batches, retries, turned_away;
    uint64_t queued, queued_bytes, running; /* requests that wait, their tensors; requests in batches */
    terse_view_recent recent;
    terse_view_counts errors, closed, rejected;   /* by status; batches by why they were closed; refusals by reason */
    terse_buckets queue_us, compute_us, total_us; /* per answered request, microseconds */
    terse_buckets batch_rows;                     /* per batch */
    unsigned n_costs;
    struct {
        uint64_t rows, us, batches;
    } costs[TERSE_VIEW_COSTS]; /* what batches take */
} terse_view_model;

/* A version that is on its way in or out. */
typedef struct terse_view_change {
    char model[TERSE_VIEW_NAME], version[TERSE_VIEW_WORD], state[TERSE_VIEW_WORD];
} terse_view_change;

typedef struct terse_view_worker {
    uint64_t number, pid, restarts, private_bytes, shared_bytes, batches, busy_us;
    uint64_t failed_starts, next_start_ms; /* in a crash loop */
    char state[TERSE_VIEW_WORD];
    char model[TERSE_VIEW_NAME]; /* of the batch that it runs; "" for none */
    uint64_t rows, since_us;     /* of that batch */
} terse_view_worker;

/* X(key, OpenMetrics name, type, help): the daemon's totals, each a member of that name. A counter's name is without
 * _total. */
#define TERSE_VIEW_TOTALS(X)                                                                                           \
    X(served, "terse_served", counter, "Requests answered with a result.")                                             \
    X(failed, "terse_failed", counter, "Requests and operations answered with an error.")                              \
    X(malformed, "terse_malformed_messages", counter, "Messages that could not be read.")                              \
    X(dropped_replies, "terse_dropped_replies", counter, "Replies of clients that went or did not read.")              \
    X(dropped_clients, "terse_dropped_clients", counter, "Clients dropped because they read no reply.")                \
    X(refused_peers, "terse_refused_peers", counter, "Messages of peers that named themselves.")                       \
    X(repeated_replies, "terse_repeated_replies", counter, "Replies given again to requests that were sent again.")    \
    X(refused_connections, "terse_refused_connections", counter, "Connections refused for want of a place.")           \
    X(cut_off_connections, "terse_cut_off_connections", counter, "Connections ended for messages without end.")        \
    X(queued, "terse_queued_requests", gauge, "Requests that wait, all models together.")                              \
    X(queued_bytes, "terse_queued_bytes", gauge, "Tensors of the requests that wait.")                                 \
    X(clients, "terse_clients", gauge, "Clients that have sent something.")                                            \
    X(connections, "terse_connections", gauge, "Open connections.")                                                    \
    X(input_bytes_used, "terse_input_memory_bytes", gauge, "Memory in use for the tensors of requests.")               \
    X(output_bytes_used, "terse_output_memory_bytes", gauge, "Memory in use for the tensors of replies.")              \
    X(arenas, "terse_shared_memories", gauge, "Clients with shared memory.")                                           \
    X(arena_bytes, "terse_shared_memory_bytes", gauge, "Memory shared with clients.")

typedef struct terse_view {
    uint64_t uptime_us; /* of the process that counts: less than at the last look when it is a new one */
#define TERSE_VIEW_MEMBER(key, ...) uint64_t key;
    TERSE_VIEW_TOTALS(TERSE_VIEW_MEMBER)
#undef TERSE_VIEW_MEMBER
    unsigned n_models, n_changes, n_workers;
    terse_view_model *models;
    terse_view_change *changes;
    terse_view_worker *workers;
} terse_view;

/* INVALID_ARGUMENT names what is wrong with the bytes, RESOURCE_EXHAUSTED: no memory. */
int terse_view_read(const void *stats, size_t bytes, terse_view **ret_view, terse_error *error);
void terse_view_free(terse_view *view);

const terse_view_model *terse_view_find(const terse_view *view, const char *model); /* NULL: not served */
uint64_t terse_view_count(const terse_view_counts *counts, const char *name);       /* 0 when it is not there */
uint64_t terse_view_sum(const terse_view_counts *counts);

/* What a model did between two looks at the same daemon; `earlier` may be NULL: since its start. When the daemon's
 * front end is a new one since then, or the model was not there, it is what the new one counted. */
typedef struct terse_view_interval {
    double seconds;
    double requests, replies, ok, refused, rows,
        batches;                            /* per second; refused: what terse_view_model.rejected counts */
    double mean_rows;                       /* of a batch */
    double p50_us, p90_us, p99_us, p999_us; /* of total_us; 0 when nothing was answered */
    double queue_p99_us, compute_p50_us;
    terse_buckets queue_us, compute_us, total_us, batch_rows;
    terse_view_counts errors, rejected, closed; /* in the interval */
} terse_view_interval;
void terse_view_between(const terse_view *later, const terse_view *earlier, const terse_view_model *model,
                        terse_view_interval *ret_interval);

/* The Content-Type of the text below. */
#define TERSE_VIEW_OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
/* OpenMetrics text, its "# EOF" included; the caller frees *ret_text. RESOURCE_EXHAUSTED: no memory. */
int terse_view_openmetrics(const terse_view *view, char **ret_text, size_t *ret_bytes, terse_error *error);

#endif
