/* SPDX-License-Identifier: Apache-2.0 */
/* Inferences on their way: submitted without waiting, found again by their id when the reply comes. */
#include "client/gateway/aside.h"
#include "client/gateway/gateway.h"
#include "client/gateway/work.h"

static terse_exchange **place_of(terse_gateway *gateway, uint64_t id)
{
    return &gateway->table[id % TERSE_TABLE];
}

/* Sends what was read; an answer when it cannot. */
static void submit(terse_exchange *exchange)
{
    terse_gateway *gateway = exchange->gateway;
    terse_share_place(gateway->share, &exchange->loan, exchange->request);
    if (exchange->loan.n == 0) /* else it may have to be read once more */
        terse_text_free(&exchange->body);
    const terse_status status = terse_client_submit(gateway->client, exchange->request, &exchange->id);
    terse_request_free(exchange->request);
    exchange->request = NULL;
    if (status) {
        terse_answer_error(&exchange->answer, status, -1, terse_last_error());
        return;
    }
    terse_exchange **place = place_of(gateway, exchange->id);
    exchange->next_same = *place;
    *place = exchange;
    gateway->n_inferring++;
}

static void give_aside(terse_exchange *exchange)
{
    exchange->gateway->n_aside++;
    terse_aside_give(exchange->gateway->aside, exchange);
}

void terse_infer_begin(terse_exchange *exchange)
{
    terse_gateway *gateway = exchange->gateway;
    if (!gateway->client) {
        terse_answer_error(&exchange->answer, TERSE_UNAVAILABLE, -1, "no daemon answers yet");
        return;
    }
    if (gateway->n_inferring + gateway->n_aside >= gateway->options->max_requests) {
        terse_answer_error(&exchange->answer, TERSE_RESOURCE_EXHAUSTED, -1,
                           "the gateway has as many requests as it takes");
        return;
    }
    if (!terse_work_begin(exchange))
        return;
    if (terse_work_reading_is_long(exchange)) {
        terse_serve_suspend(exchange);
        give_aside(exchange);
        return;
    }
    terse_work_read(exchange, gateway->share);
    if (!exchange->answer.status)
        submit(exchange);
    if (!exchange->answer.status)
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

/* The answer is there, and what it was made from is not needed any more. */
static void leave(terse_exchange *exchange)
{
    terse_reply_free(exchange->reply);
    exchange->reply = NULL;
    terse_loan_end(&exchange->loan);
    terse_serve_resume(exchange);
}

/* Once more without shared memory, when that may be why a request failed: its outputs are others than memory was asked
 * for, because the model is another one by now; or the memory is lost, and the daemon has no other. */
static bool again(terse_exchange *exchange)
{
    const terse_status status = terse_reply_status(exchange->reply);
    const bool lost = status == TERSE_UNAVAILABLE && exchange->loan.n > 0;
    const bool others = status == TERSE_INVALID_ARGUMENT || status == TERSE_NOT_FOUND ||
                        (status == TERSE_RESOURCE_EXHAUSTED && terse_reply_retry_after_ms(exchange->reply) < 0);
    if (lost)
        terse_share_doubt(exchange->gateway->share);
    else if (others && exchange->loan.n_outputs > 0)
        terse_share_forget(exchange->gateway->share, &exchange->loan);
    else
        return false;
    terse_loan_end(&exchange->loan);
    terse_reply_free(exchange->reply);
    exchange->reply = NULL;
    terse_work_read(exchange, NULL);
    if (!exchange->answer.status)
        submit(exchange);
    if (exchange->answer.status)
        leave(exchange);
    return true;
}

static void note_success(terse_exchange *exchange)
{
    terse_gateway *gateway = exchange->gateway;
    gateway->shared_requests += exchange->loan.n_outputs > 0;
    terse_share_learn(gateway->share, &exchange->loan, exchange->reply);
    if (exchange->loan.n == 0)
        terse_share_mend(gateway->share);
}

static void finish(terse_exchange *exchange)
{
    terse_answer *answer = &exchange->answer;
    const terse_reply *reply = exchange->reply;
    const terse_status status = terse_reply_status(reply);
    if (status == TERSE_OK)
        note_success(exchange);
    else if (again(exchange))
        return;
    if (status == TERSE_NOT_FOUND) { /* in words that clients of Triton look for */
        terse_answer_refuse(answer, MHD_HTTP_NOT_FOUND, "Request for unknown model: %s", terse_reply_error(reply));
    } else if (status) {
        terse_answer_error(answer, status, terse_reply_retry_after_ms(reply), terse_reply_error(reply));
    } else if (terse_work_writing_is_long(exchange)) {
        give_aside(exchange);
        return;
    } else {
        terse_work_write(exchange);
    }
    leave(exchange);
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
            exchange->reply = reply;
            finish(exchange);
        } else {
            terse_reply_free(reply);
        }
    }
}

void terse_infer_go_on(terse_gateway *gateway)
{
    for (terse_exchange *exchange; (exchange = terse_aside_take(gateway->aside));) {
        gateway->n_aside--;
        if (!exchange->reply && !exchange->answer.status) {
            terse_serve_hold(exchange, exchange->taken); /* libterse has it now */
            submit(exchange);
        }
        if (exchange->answer.status)
            leave(exchange);
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
