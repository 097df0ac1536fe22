/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/work.h"

#include <stdlib.h>

#include "client/gateway/outcome.h"

/* Bytes of JSON that are read or written in the loop: well below a millisecond. */
enum { LONG = 128 * 1024, BINARY = 32 /* bytes that are copied in the time of one that is read */, DIGITS = 10 };

/* deflate's best: so many bytes come out of one. */
enum { MOST_UNPACKED = 1032 };

static const char *header(const terse_exchange *exchange, const char *name)
{
    return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

/* --- reading ---------------------------------------------------------------------------------------------- */

static bool take_header_size(terse_exchange *exchange)
{
    const char *text = header(exchange, "Inference-Header-Content-Length");
    char *end = NULL;
    if (!text)
        return true;
    exchange->has_header = true;
    exchange->header_size = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && !*end)
        return true;
    terse_answer_refuse(&exchange->answer, MHD_HTTP_BAD_REQUEST,
                        "Inference-Header-Content-Length is '%.40s', a number is wanted", text);
    return false;
}

/* What a packed body may become, counted as held until it is known. */
static bool reserve(terse_exchange *exchange)
{
    const terse_gateway *gateway = exchange->gateway;
    const uint64_t most = gateway->options->max_memory, size = exchange->body.size, used = gateway->memory;
    const uint64_t max_body = gateway->options->max_body, left = used < most ? most - used : 0;
    exchange->most = size > max_body / MOST_UNPACKED ? max_body : size * MOST_UNPACKED;
    if (exchange->most > left) {
        terse_answer_refuse(&exchange->answer, MHD_HTTP_SERVICE_UNAVAILABLE,
                            "the gateway has no memory left for bodies");
        return false;
    }
    terse_serve_hold(exchange, exchange->held + exchange->most);
    return true;
}

bool terse_work_begin(terse_exchange *exchange)
{
    exchange->packed = terse_coding_of(header(exchange, MHD_HTTP_HEADER_CONTENT_ENCODING));
    exchange->accepted = terse_coding_accepted(header(exchange, MHD_HTTP_HEADER_ACCEPT_ENCODING));
    if (exchange->body.size == 0)
        exchange->packed = TERSE_CODING_NONE;
    return take_header_size(exchange) && (exchange->packed == TERSE_CODING_NONE || reserve(exchange));
}

bool terse_work_reading_is_long(const terse_exchange *exchange)
{
    const size_t size = exchange->body.size;
    const size_t json = exchange->has_header && exchange->header_size < size ? exchange->header_size : size;
    /* Nobody knows yet what a packed one becomes. */
    return exchange->packed != TERSE_CODING_NONE || json + (size - json) / BINARY > LONG;
}

static bool unpack(terse_exchange *exchange)
{
    terse_error error = {0};
    if (exchange->packed == TERSE_CODING_NONE)
        return true;
    const terse_status status = terse_coding_unpack(exchange->packed, exchange->most, &exchange->body, &error);
    if (status == TERSE_RESOURCE_EXHAUSTED && exchange->most == exchange->gateway->options->max_body)
        terse_answer_refuse(&exchange->answer, MHD_HTTP_CONTENT_TOO_LARGE, "%s", error.message);
    else if (status)
        terse_answer_error(&exchange->answer, status, -1, error.message);
    return status == TERSE_OK;
}

void terse_work_read(terse_exchange *exchange, terse_share *share)
{
    terse_error error = {0};
    terse_loan_begin(&exchange->loan, share);
    if (unpack(exchange)) {
        const terse_intake intake = {.model = exchange->route.model,
                                     .version = exchange->route.version,
                                     .body = exchange->body.data,
                                     .size = exchange->body.size,
                                     .has_header = exchange->has_header,
                                     .header_size = exchange->header_size,
                                     .loan = share ? &exchange->loan : NULL};
        const terse_status status = terse_intake_read(&intake, &exchange->request, &exchange->wish, &error);
        if (status)
            terse_answer_error(&exchange->answer, status, -1, error.message);
    }
    exchange->taken = exchange->body.capacity; /* the caller knows whether it is needed once more */
}

/* --- writing ---------------------------------------------------------------------------------------------- */

bool terse_work_writing_is_long(const terse_exchange *exchange)
{
    size_t cost = 0;
    const int n = terse_reply_n_outputs(exchange->reply);
    for (int i = 0; i < n; i++) {
        size_t bytes = 0;
        const terse_dtype dtype = terse_reply_dtype(exchange->reply, i);
        terse_reply_data(exchange->reply, i, &bytes);
        cost += terse_outcome_is_binary(&exchange->wish, i) ? bytes / BINARY : bytes / terse_dtype_size(dtype) * DIGITS;
        if (exchange->accepted != TERSE_CODING_NONE) /* packing takes far longer than writing */
            cost += bytes;
    }
    return cost > LONG;
}

void terse_work_write(terse_exchange *exchange)
{
    terse_answer *answer = &exchange->answer;
    terse_error error = {0};
    const terse_status status = terse_outcome_write(exchange->reply, exchange->route.model, &exchange->wish,
                                                    &answer->body, &answer->header_size, &error);
    if (status) {
        terse_answer_error(answer, status, -1, error.message);
        return;
    }
    answer->status = MHD_HTTP_OK;
    answer->type = answer->header_size ? "application/octet-stream" : "application/json";
    terse_answer_pack(answer, exchange->accepted);
}
