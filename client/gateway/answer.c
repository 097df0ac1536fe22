/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/gateway/gateway.h"

enum { PACK_FROM = 1024 }; /* bytes of an answer that are worth packing */

static const char json_type[] = "application/json";

static unsigned http_status(terse_status status)
{
    switch (status) {
    case TERSE_OK:
        return MHD_HTTP_OK;
    case TERSE_INVALID_ARGUMENT:
        return MHD_HTTP_BAD_REQUEST;
    case TERSE_NOT_FOUND:
        return MHD_HTTP_NOT_FOUND;
    case TERSE_DEADLINE_EXCEEDED:
        return MHD_HTTP_GATEWAY_TIMEOUT;
    case TERSE_RESOURCE_EXHAUSTED:
    case TERSE_UNAVAILABLE:
    case TERSE_CANCELLED:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    case TERSE_UNIMPLEMENTED:
        return MHD_HTTP_NOT_IMPLEMENTED;
    case TERSE_PERMISSION_DENIED:
        return MHD_HTTP_FORBIDDEN;
    default:
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
}

static void put_error(terse_answer *answer, unsigned status, const char *text)
{
    terse_answer_free(answer);
    answer->status = status;
    answer->type = json_type;
    terse_text_cstr(&answer->body, "{\"error\":");
    terse_text_json(&answer->body, text);
    terse_text_cstr(&answer->body, "}");
}

void terse_answer_error(terse_answer *answer, terse_status status, int64_t retry_after_ms, const char *text)
{
    put_error(answer, http_status(status), text);
    /* Whoever may come again is told when; whole seconds are all that HTTP has. */
    if (answer->status == MHD_HTTP_SERVICE_UNAVAILABLE)
        answer->retry_after_s = retry_after_ms <= 1000 ? 1 : (unsigned)((retry_after_ms + 999) / 1000);
}

void terse_answer_refuse(terse_answer *answer, unsigned status, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put_error(answer, status, text);
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
        answer->retry_after_s = 1;
}

void terse_answer_pack(terse_answer *answer, terse_coding coding)
{
    if (coding != TERSE_CODING_NONE && !answer->constant && !answer->coding && answer->body.size >= PACK_FROM &&
        terse_coding_pack(coding, &answer->body))
        answer->coding = terse_coding_name(coding);
}

void terse_answer_free(terse_answer *answer)
{
    terse_text_free(&answer->body);
    *answer = (terse_answer){0};
}

static bool add_headers(const terse_exchange *exchange, struct MHD_Response *response)
{
    const terse_answer *answer = &exchange->answer;
    char number[24];
    bool whole = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type) == MHD_YES;
    if (answer->header_size) {
        snprintf(number, sizeof number, "%zu", answer->header_size);
        whole &= MHD_add_response_header(response, "Inference-Header-Content-Length", number) == MHD_YES;
    }
    if (answer->retry_after_s) {
        snprintf(number, sizeof number, "%u", answer->retry_after_s);
        whole &= MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, number) == MHD_YES;
    }
    if (answer->coding)
        whole &= MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, answer->coding) == MHD_YES;
    whole &= MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES;
    if (answer->policy)
        whole &= MHD_add_response_header(response, "Content-Security-Policy", answer->policy) == MHD_YES &&
                 MHD_add_response_header(response, "Referrer-Policy", "no-referrer") == MHD_YES &&
                 MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache") == MHD_YES;
    if (answer->allow)
        whole &= MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, answer->allow) == MHD_YES;
    if (exchange->gateway->draining || (exchange->visitor && exchange->visitor->surplus))
        whole &= MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES;
    return whole;
}

enum MHD_Result terse_answer_send(terse_exchange *exchange)
{
    static const char out_of_memory[] = "{\"error\":\"out of memory for an answer\"}";
    terse_answer *answer = &exchange->answer;
    if (answer->body.broken) {
        terse_answer_free(answer);
        *answer = (terse_answer){.status = MHD_HTTP_INTERNAL_SERVER_ERROR,
                                 .type = json_type,
                                 .constant = true,
                                 .fixed = out_of_memory,
                                 .fixed_size = sizeof out_of_memory - 1};
    }
    struct MHD_Response *response = NULL;
    size_t size = 0;
    if (answer->constant) {
        response = MHD_create_response_from_buffer(answer->fixed_size, (void *)(uintptr_t)answer->fixed,
                                                   MHD_RESPMEM_PERSISTENT);
    } else {
        char *body = terse_text_take(&answer->body, &size);
        response = MHD_create_response_from_buffer(size, body, MHD_RESPMEM_MUST_FREE);
        if (!response)
            free(body);
    }
    if (!response)
        return MHD_NO;
    enum MHD_Result result = MHD_NO;
    if (add_headers(exchange, response))
        result = MHD_queue_response(exchange->connection, answer->status, response);
    MHD_destroy_response(response);
    exchange->phase = TERSE_PHASE_LEAVING;
    return result;
}
