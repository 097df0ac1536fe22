/* SPDX-License-Identifier: Apache-2.0 */
/* Inferences on their way: submitted without waiting, found again by their id when the reply comes. */
#include <stdlib.h>

#include "client/gateway/gateway.h"
#include "client/gateway/outcome.h"

static terse_exchange **place_of(terse_gateway *gateway, uint64_t id)
{
    return &gateway->table[id % TERSE_TABLE];
}

static bool read_header_size(const terse_exchange *exchange, terse_intake *intake, terse_error *error)
{
    const char *text =
        MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Inference-Header-Content-Length");
    char *end = NULL;
    if (!text)
        return true;
    intake->has_header = true;
    intake->header_size = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end) {
        terse_fail(error, TERSE_INVALID_ARGUMENT, "Inference-Header-Content-Length is '%.40s', a number is wanted",
                   text);
        return false;
    }
    return true;
}

/* The request that the body is; NULL, and `error`, when it is none. */
static terse_request *read_body(terse_exchange *exchange, terse_error *error)
{
    terse_intake intake = {.model = exchange->route.model,
                           .version = exchange->route.version,
                           .body = exchange->body.data,
                           .size = exchange->body.size};
    terse_request *request = NULL;
    if (!read_header_size(exchange, &intake, error) ||
        terse_intake_read(&intake, &request, &exchange->wish, error) != TERSE_OK)
        return NULL;
    return request;
}

void terse_infer_begin(terse_exchange *exchange)
{
    terse_gateway *gateway = exchange->gateway;
    terse_error error = {0};
    if (!gateway->client) {
        terse_answer_error(&exchange->answer, TERSE_UNAVAILABLE, -1, "no daemon answers yet");
        return;
    }
    if (gateway->n_inferring >= gateway->options->max_requests) {
        terse_answer_error(&exchange->answer, TERSE_RESOURCE_EXHAUSTED, -1,
                           "the gateway has as many requests as it takes");
        return;
    }
    terse_request *request = read_body(exchange, &error);
    terse_status status = request ? TERSE_OK : error.status;
    if (!status && (status = terse_client_submit(gateway->client, request, &exchange->id)))
        terse_fail(&error, status, "%s", terse_last_error());
    terse_request_free(request);
    if (status) {
        terse_answer_error(&exchange->answer, status, -1, error.message);
        return;
    }
    terse_exchange **place = place_of(gateway, exchange->id);
    exchange->next_same = *place;
    *place = exchange;
    gateway->n_inferring++;
    terse_serve_suspend(exchange);
}

static terse_exchange *take_out(terse_gateway *gateway, uint64_t id)
{
    terse_exchange **place = place_of(gateway, id);
    while (*place && (*place)->id != id)
        place = &(*place)->next_same;
    terse_exchange *exchange = *place;
    if (exchange) {
        *place = exchange->next_same;
        gateway->n_inferring--;
    }
    return exchange;
}

static void finish(terse_exchange *exchange, const terse_reply *reply)
{
    terse_answer *answer = &exchange->answer;
    terse_error error = {0};
    terse_status status = terse_reply_status(reply);
    if (status == TERSE_NOT_FOUND) { /* in words that clients of Triton look for */
        terse_answer_refuse(answer, MHD_HTTP_NOT_FOUND, "Request for unknown model: %s", terse_reply_error(reply));
        return;
    }
    if (status) {
        terse_answer_error(answer, status, terse_reply_retry_after_ms(reply), terse_reply_error(reply));
        return;
    }
    status =
        terse_outcome_write(reply, exchange->route.model, &exchange->wish, &answer->body, &answer->header_size, &error);
    if (status) {
        terse_answer_error(answer, status, -1, error.message);
        return;
    }
    answer->status = MHD_HTTP_OK;
    answer->type = answer->header_size ? "application/octet-stream" : "application/json";
}

void terse_infer_take(terse_gateway *gateway)
{
    terse_reply *reply = NULL;
    while (gateway->client) {
        const terse_status status = terse_client_poll(gateway->client, 0, &reply);
        if (status || !reply) /* out of memory for a reply: its exchange is found when the client ends */
            return;
        terse_exchange *exchange = take_out(gateway, terse_reply_id(reply));
        if (exchange) {
            finish(exchange, reply);
            terse_serve_resume(exchange);
        }
        terse_reply_free(reply);
    }
}

void terse_infer_abandon(terse_gateway *gateway)
{
    for (int i = 0; i < TERSE_TABLE; i++)
        for (terse_exchange *exchange; (exchange = gateway->table[i]);) {
            take_out(gateway, exchange->id);
            terse_answer_error(&exchange->answer, TERSE_UNAVAILABLE, -1, "the gateway ends");
            terse_serve_resume(exchange);
        }
}
