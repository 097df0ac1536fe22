/* SPDX-License-Identifier: Apache-2.0 */
/* gateway.h: what the files of terse-gateway share: the process, its visitors (connections) and exchanges (requests).
 * Runs in: terse-gateway.
 *
 * Three threads. The main thread has everything here: HTTP (libmicrohttpd, driven by our loop) and the client that
 * sends inferences, whose exchanges are suspended until their replies come. Another (asker.h) has a client of its own
 * for questions that libterse answers only to those who wait: health, metadata, statistics. The third (aside.h) reads
 * and writes what is long, so that nobody waits behind that.
 *
 * Ownership: an exchange lives from its request line to the end of its answer, a visitor as long as its connection.
 * Both are made and freed by libmicrohttpd's callbacks in serve.c. */
#ifndef TERSE_GATEWAY_GATEWAY_H
#define TERSE_GATEWAY_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <microhttpd.h>

#include "client/gateway/coding.h"
#include "client/gateway/intake.h"
#include "client/gateway/route.h"
#include "client/gateway/text.h"
#include "client/terse.h"
#include "common/status.h"

typedef struct terse_gateway_options {
    const char *endpoint, *listen;
    uint64_t max_body, max_memory; /* bytes: of one body, of all together */
    uint64_t max_connections, max_requests;
    uint64_t transfer_s, idle_s; /* seconds for a request to come or an answer to go; for a silent connection */
    uint64_t reconnect_ms, drain_ms, step_s; /* step_s: seconds between two looks at the daemon for the page */
} terse_gateway_options;

typedef enum terse_phase {
    TERSE_PHASE_HEAD,      /* the request line is there */
    TERSE_PHASE_BODY,      /* the headers are there */
    TERSE_PHASE_SUSPENDED, /* the daemon has it, or another thread */
    TERSE_PHASE_ANSWERED,  /* `answer` is there */
    TERSE_PHASE_LEAVING,   /* libmicrohttpd has the answer */
} terse_phase;

typedef struct terse_answer {
    unsigned status;                            /* of HTTP; 0: there is none yet */
    const char *type, *allow, *coding, *policy; /* headers; NULL: not there */
    bool constant;                              /* the body is `fixed`, which is never freed */
    terse_text body;
    const char *fixed;
    size_t fixed_size;
    size_t header_size;     /* Inference-Header-Content-Length; 0: no such header */
    unsigned retry_after_s; /* 0: no such header */
} terse_answer;

typedef struct terse_visitor {
    struct terse_visitor *next, *previous;
    struct terse_exchange *exchange; /* the one that is going on */
    int fd;
    bool surplus;      /* beyond max_connections: is told so, and leaves */
    bool cut;          /* its time was over */
    uint64_t since_ns; /* of what it does now: being silent, sending, receiving */
} terse_visitor;

typedef struct terse_exchange {
    struct terse_gateway *gateway;
    struct MHD_Connection *connection;
    terse_visitor *visitor;
    struct terse_exchange *next_same; /* in the table of inferences, or in the asker's queues */
    terse_phase phase;
    terse_route route;
    bool known; /* its path is there */
    uint64_t pieces;
    size_t held; /* bytes of memory that it has, as the gateway counts them */
    terse_text body;
    terse_answer answer;
    uint64_t id; /* libterse's, while it is there */
    terse_wish wish;
    /* Of an inference, from here on; with the thread of aside.h, while it has the exchange. */
    terse_coding packed, accepted; /* how its body came, how its answer may go */
    size_t most;                   /* bytes that a packed body may have unpacked; the reservation is among `held` */
    bool has_header;
    size_t header_size; /* Inference-Header-Content-Length */
    size_t taken;       /* bytes that the body had when it was read */
    terse_request *request;
    terse_reply *reply;
    terse_loan loan;
} terse_exchange;

enum { TERSE_TABLE = 4096, TERSE_STATUSES = 16 };

typedef struct terse_gateway {
    const terse_gateway_options *options;
    struct MHD_Daemon *http;
    int epoll_fd, signal_fd, wake_fd;
    struct terse_asker *asker;
    struct terse_aside *aside;
    terse_client *client; /* NULL until a daemon has been seen */
    terse_share *share;   /* NULL: this one shares no memory */
    terse_visitor *visitors;
    uint64_t n_visitors, n_exchanges;
    uint64_t n_inferring, n_aside;      /* with the daemon; being read or written aside */
    size_t memory;                      /* bytes of bodies and answers */
    terse_exchange *table[TERSE_TABLE]; /* inferences by id */
    bool draining;
    uint64_t swept_ns;
    uint64_t answers[TERSE_STATUSES]; /* so far, by TERSE_METRICS_STATUSES */
    uint64_t cut_connections, refused_connections;
    uint64_t shared_requests; /* answered wholly through shared memory */
} terse_gateway;

/* --- serve.c: libmicrohttpd's callbacks, limits --- */
/* Listens on `fd`; everything but the clients is ready. */
int terse_serve_start(terse_gateway *gateway, int fd, terse_error *error);
void terse_serve_stop(terse_gateway *gateway);
/* The exchange has so many bytes now. */
void terse_serve_hold(terse_exchange *exchange, size_t bytes);
/* Waits outside libmicrohttpd until terse_serve_resume. */
void terse_serve_suspend(terse_exchange *exchange);
/* The answer is there. */
void terse_serve_resume(terse_exchange *exchange);
/* Connections that have been at one thing for too long are cut. */
void terse_serve_sweep(terse_gateway *gateway, uint64_t now_ns);

/* Whether a connection has bytes that nobody has looked at yet. */
bool terse_serve_unread(const terse_gateway *gateway);

/* --- answer.c: what goes out --- */
/* {"error": "..."} with the HTTP status that belongs to it. retry_after_ms < 0: none was told. */
void terse_answer_error(terse_answer *answer, terse_status status, int64_t retry_after_ms, const char *text);
/* The same with a status of HTTP's own. */
void terse_answer_refuse(terse_answer *answer, unsigned http_status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Packs a body that is worth it. */
void terse_answer_pack(terse_answer *answer, terse_coding coding);
enum MHD_Result terse_answer_send(terse_exchange *exchange);
void terse_answer_free(terse_answer *answer);

/* --- metrics.c: puts the gateway's own numbers behind those of the daemon, and gives the text the type that is
 * accepted */
void terse_metrics_finish(const terse_gateway *gateway, const char *accept, terse_answer *answer);
/* An answer goes out. */
void terse_metrics_count(terse_gateway *gateway, const terse_answer *answer);

/* --- infer.c: inferences on their way --- */
/* Reads and submits the body, or has it read aside; answers at once when it cannot. */
void terse_infer_begin(terse_exchange *exchange);
/* Goes on with all that were read or written aside. */
void terse_infer_go_on(terse_gateway *gateway);
/* Takes all replies that are there. */
void terse_infer_take(terse_gateway *gateway);
/* The client ends (the process does): what is on its way is answered UNAVAILABLE. */
void terse_infer_abandon(terse_gateway *gateway);

#endif
