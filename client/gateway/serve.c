/* SPDX-License-Identifier: Apache-2.0 */
/* libmicrohttpd's callbacks: connections come and go, requests are taken in piece by piece within limits, and routed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/gateway/asker.h"
#include "client/gateway/gateway.h"
#include "client/gateway/page.h"
#include "common/bytes.h"

enum {
    POOL = 48 * 1024,    /* bytes of each connection for headers and what is read at once */
    SURPLUS = 64,        /* connections beyond the limit that are taken in to be told so */
    SURPLUS_S = 2,       /* and for how long */
    MAX_PIECES = 100000, /* chunks of one body */
    FIRST_BODY = 65536,  /* a body's first memory: what it claims to have may never come */
    SWEEP_NS = 500 * 1000 * 1000,
};

#define SECOND_NS UINT64_C(1000000000)

/* --- visitors --------------------------------------------------------------------------------------------- */

static void arrive(terse_gateway *gateway, struct MHD_Connection *connection, void **visitor_slot)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    terse_visitor *visitor = info ? calloc(1, sizeof *visitor) : NULL;
    *visitor_slot = visitor;
    if (!visitor) /* its requests are refused */
        return;
    visitor->fd = info->connect_fd;
    visitor->since_ns = terse_now_ns();
    visitor->surplus = gateway->n_visitors >= gateway->options->max_connections;
    gateway->refused_connections += visitor->surplus;
    visitor->next = gateway->visitors;
    if (visitor->next)
        visitor->next->previous = visitor;
    gateway->visitors = visitor;
    gateway->n_visitors++;
}

static void leave(terse_gateway *gateway, terse_visitor *visitor)
{
    if (!visitor)
        return;
    if (visitor->next)
        visitor->next->previous = visitor->previous;
    *(visitor->previous ? &visitor->previous->next : &gateway->visitors) = visitor->next;
    gateway->n_visitors--;
    free(visitor);
}

static void on_connection(void *user, struct MHD_Connection *connection, void **visitor_slot,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        arrive(user, connection, visitor_slot);
    else
        leave(user, *visitor_slot);
}

static void cut(terse_gateway *gateway, terse_visitor *visitor)
{
    if (!visitor->cut)
        gateway->cut_connections++;
    visitor->cut = true;
    shutdown(visitor->fd, SHUT_RDWR); /* libmicrohttpd sees its end and closes it */
}

/* libmicrohttpd goes on waiting for the rest of a request line whose sender said that nothing follows. */
static bool has_hung_up(const terse_visitor *visitor, uint64_t now_ns)
{
    char byte;
    return now_ns > visitor->since_ns + SECOND_NS && recv(visitor->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void terse_serve_sweep(terse_gateway *gateway, uint64_t now_ns)
{
    if (now_ns - gateway->swept_ns < SWEEP_NS)
        return;
    gateway->swept_ns = now_ns;
    for (terse_visitor *visitor = gateway->visitors; visitor; visitor = visitor->next) {
        const terse_exchange *exchange = visitor->exchange;
        if (exchange && (exchange->phase == TERSE_PHASE_SUSPENDED || exchange->phase == TERSE_PHASE_ANSWERED))
            continue;
        const uint64_t limit_s = visitor->surplus ? SURPLUS_S
                                 : exchange       ? gateway->options->transfer_s
                                                  : gateway->options->idle_s;
        if (now_ns > visitor->since_ns + limit_s * SECOND_NS || (!exchange && has_hung_up(visitor, now_ns)))
            cut(gateway, visitor);
    }
}

bool terse_serve_unread(const terse_gateway *gateway)
{
    char byte;
    for (const terse_visitor *visitor = gateway->visitors; visitor; visitor = visitor->next)
        if (!visitor->exchange && recv(visitor->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
            return true;
    return false;
}

/* --- exchanges -------------------------------------------------------------------------------------------- */

void terse_serve_hold(terse_exchange *exchange, size_t bytes)
{
    exchange->gateway->memory += bytes - exchange->held;
    exchange->held = bytes;
}

static void *on_request_line(void *user, const char *target, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    terse_exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange || !info || !info->socket_context) {
        free(exchange);
        return NULL;
    }
    exchange->gateway = user;
    exchange->connection = connection;
    exchange->visitor = info->socket_context;
    exchange->visitor->exchange = exchange;
    exchange->visitor->since_ns = terse_now_ns();
    exchange->known = terse_route_find(target, &exchange->route);
    exchange->gateway->n_exchanges++;
    return exchange;
}

static void on_completed(void *user, struct MHD_Connection *connection, void **exchange_slot,
                         enum MHD_RequestTerminationCode code)
{
    terse_exchange *exchange = *exchange_slot;
    (void)user;
    (void)connection;
    (void)code;
    if (!exchange)
        return;
    terse_serve_hold(exchange, 0);
    exchange->gateway->n_exchanges--;
    exchange->visitor->exchange = NULL;
    exchange->visitor->since_ns = terse_now_ns();
    terse_text_free(&exchange->body);
    terse_request_free(exchange->request);
    terse_loan_end(&exchange->loan);
    terse_answer_free(&exchange->answer);
    free(exchange);
    *exchange_slot = NULL;
}

void terse_serve_suspend(terse_exchange *exchange)
{
    exchange->phase = TERSE_PHASE_SUSPENDED;
    MHD_suspend_connection(exchange->connection);
}

void terse_serve_resume(terse_exchange *exchange)
{
    exchange->phase = TERSE_PHASE_ANSWERED;
    MHD_resume_connection(exchange->connection);
}

/* --- a request comes in ------------------------------------------------------------------------------------ */

static const char *header(const terse_exchange *exchange, const char *name)
{
    return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

/* Anything that is wrong before the body is looked at. */
static void check_head(terse_exchange *exchange, const char *method)
{
    terse_answer *answer = &exchange->answer;
    const terse_gateway_options *options = exchange->gateway->options;
    const bool get = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    const char *length = header(exchange, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *encoding = header(exchange, MHD_HTTP_HEADER_CONTENT_ENCODING);
    if (exchange->visitor->surplus) {
        terse_answer_refuse(answer, MHD_HTTP_SERVICE_UNAVAILABLE,
                            "the gateway has all the %" PRIu64 " connections it takes", options->max_connections);
    } else if (!exchange->known) {
        terse_answer_refuse(answer, MHD_HTTP_NOT_FOUND, "there is nothing at this path");
    } else if (exchange->route.post ? strcmp(method, MHD_HTTP_METHOD_POST) != 0 : !get) {
        terse_answer_refuse(answer, MHD_HTTP_METHOD_NOT_ALLOWED, "the method %.20s is not allowed here, %s is", method,
                            exchange->route.post ? "POST" : "GET");
        answer->allow = exchange->route.post ? "POST" : "GET, HEAD";
    } else if (length && strtoull(length, NULL, 10) > options->max_body) {
        terse_answer_refuse(answer, MHD_HTTP_CONTENT_TOO_LARGE, "the body has %.20s bytes, %" PRIu64 " are allowed",
                            length, options->max_body);
    } else if (terse_coding_of(encoding) == TERSE_CODING_UNKNOWN) {
        terse_answer_refuse(answer, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE,
                            "Content-Encoding '%.40s' is not taken; gzip, deflate and identity are", encoding);
    }
}

static enum MHD_Result send_answer(terse_exchange *exchange)
{
    if (exchange->route.kind == TERSE_ROUTE_METRICS && exchange->answer.status == MHD_HTTP_OK)
        terse_metrics_finish(exchange->gateway, header(exchange, MHD_HTTP_HEADER_ACCEPT), &exchange->answer);
    terse_answer_pack(&exchange->answer, terse_coding_accepted(header(exchange, MHD_HTTP_HEADER_ACCEPT_ENCODING)));
    terse_text_free(&exchange->body);
    terse_serve_hold(exchange, exchange->answer.body.capacity);
    exchange->visitor->since_ns = terse_now_ns();
    terse_metrics_count(exchange->gateway, &exchange->answer);
    return terse_answer_send(exchange);
}

/* A body that is refused is read to its end all the same: a client that still sends would not hear why. One that waits
 * to be told to send is told at once. */
static enum MHD_Result begin(terse_exchange *exchange, const char *method)
{
    exchange->phase = TERSE_PHASE_BODY;
    check_head(exchange, method);
    return exchange->answer.status && header(exchange, MHD_HTTP_HEADER_EXPECT) ? send_answer(exchange) : MHD_YES;
}

static void take_piece(terse_exchange *exchange, const char *data, size_t size)
{
    terse_gateway *gateway = exchange->gateway;
    terse_text *body = &exchange->body;
    if (exchange->answer.status)
        return;
    size_t capacity = body->capacity ? body->capacity : FIRST_BODY;
    while (capacity < body->size + size)
        capacity *= 2;
    if (body->size + size > gateway->options->max_body)
        terse_answer_refuse(&exchange->answer, MHD_HTTP_CONTENT_TOO_LARGE,
                            "the body has more than the %" PRIu64 " bytes that are allowed",
                            gateway->options->max_body);
    else if (++exchange->pieces > MAX_PIECES)
        terse_answer_refuse(&exchange->answer, MHD_HTTP_CONTENT_TOO_LARGE, "the body comes in more than %d chunks",
                            MAX_PIECES);
    else if (gateway->memory - exchange->held + capacity > gateway->options->max_memory)
        terse_answer_refuse(&exchange->answer, MHD_HTTP_SERVICE_UNAVAILABLE,
                            "the gateway has no memory left for bodies");
    if (!exchange->answer.status && capacity > body->capacity && !terse_text_room(body, capacity - body->size))
        terse_answer_refuse(&exchange->answer, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory for a body");
    if (exchange->answer.status) {
        terse_text_free(body);
        terse_serve_hold(exchange, 0);
        return;
    }
    terse_serve_hold(exchange, body->capacity);
    terse_text_put(body, data, size);
}

static void answer_with(terse_answer *answer, const char *type, const char *text)
{
    answer->status = MHD_HTTP_OK;
    answer->type = type;
    terse_text_cstr(&answer->body, text);
}

/* Clients of Triton, its own examples among them, go on only where the server has this name. */
static void answer_server(terse_answer *answer)
{
    answer_with(answer, "application/json",
                "{\"name\":\"triton\",\"version\":\"terse " TERSE_VERSION
                "\",\"extensions\":[\"binary_tensor_data\",\"classification\",\"model_configuration\","
                "\"model_repository\",\"parameters\",\"schedule_policy\",\"statistics\"]}");
}

static void ask(terse_exchange *exchange)
{
    exchange->phase = TERSE_PHASE_SUSPENDED;
    if (!terse_asker_ask(exchange->gateway->asker, exchange)) {
        exchange->phase = TERSE_PHASE_BODY;
        terse_answer_error(&exchange->answer, TERSE_RESOURCE_EXHAUSTED, -1, "too many questions wait already");
        return;
    }
    terse_serve_suspend(exchange);
}

/* The whole request is there: an answer, or the exchange is suspended. */
static void dispatch(terse_exchange *exchange)
{
    terse_answer *answer = &exchange->answer;
    switch (exchange->route.kind) {
    case TERSE_ROUTE_LIVE:
        answer_with(answer, "application/json", "{\"live\":true}");
        return;
    case TERSE_ROUTE_SERVER:
        answer_server(answer);
        return;
    case TERSE_ROUTE_INFER:
        terse_infer_begin(exchange);
        return;
    case TERSE_ROUTE_ELSEWHERE:
        terse_answer_error(
            answer, TERSE_UNIMPLEMENTED, -1,
            "models are loaded and unloaded by `terse load` and `terse unload`, not through the gateway");
        return;
    case TERSE_ROUTE_READY:
        if (exchange->gateway->draining) {
            terse_answer_error(answer, TERSE_UNAVAILABLE, -1, "the gateway ends");
            return;
        }
        ask(exchange);
        return;
    case TERSE_ROUTE_PAGE:
        *answer = (terse_answer){
            .status = MHD_HTTP_OK, .type = "text/html; charset=utf-8", .policy = terse_page_policy(), .constant = true};
        answer->fixed = terse_page(&answer->fixed_size);
        return;
    case TERSE_ROUTE_NONE:
        terse_answer_refuse(answer, MHD_HTTP_NOT_FOUND, "there is nothing at this path");
        return;
    case TERSE_ROUTE_MODEL:
    case TERSE_ROUTE_MODEL_READY:
    case TERSE_ROUTE_CONFIG:
    case TERSE_ROUTE_STATS:
    case TERSE_ROUTE_INDEX:
    case TERSE_ROUTE_METRICS:
    case TERSE_ROUTE_PICTURE:
        ask(exchange);
        return;
    }
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **exchange_slot)
{
    terse_exchange *exchange = *exchange_slot;
    (void)user;
    (void)connection;
    (void)url;
    (void)version;
    if (!exchange)
        return MHD_NO;
    if (exchange->phase == TERSE_PHASE_HEAD)
        return begin(exchange, method);
    if (*upload_size > 0) {
        take_piece(exchange, upload, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    }
    if (exchange->phase == TERSE_PHASE_BODY && !exchange->answer.status)
        dispatch(exchange);
    if (exchange->phase == TERSE_PHASE_SUSPENDED)
        return MHD_YES;
    return send_answer(exchange);
}

/* --- beginning and end ------------------------------------------------------------------------------------ */

/* Paths are taken apart as they came (route.c); libmicrohttpd is to leave them alone. */
static size_t keep_escapes(void *user, struct MHD_Connection *connection, char *text)
{
    (void)user;
    (void)connection;
    return strlen(text);
}

int terse_serve_start(terse_gateway *gateway, int fd, terse_error *error)
{
    const unsigned limit = (unsigned)gateway->options->max_connections + SURPLUS;
    gateway->http = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, gateway, MHD_OPTION_LISTEN_SOCKET,
        (MHD_socket)fd, MHD_OPTION_CONNECTION_LIMIT, limit, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, gateway, MHD_OPTION_NOTIFY_CONNECTION, on_connection, gateway,
        MHD_OPTION_URI_LOG_CALLBACK, on_request_line, gateway, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    return gateway->http ? TERSE_OK
                         : terse_fail(error, TERSE_INTERNAL, "libmicrohttpd does not start at this descriptor");
}

void terse_serve_stop(terse_gateway *gateway)
{
    if (gateway->http)
        MHD_stop_daemon(gateway->http);
    gateway->http = NULL;
}
