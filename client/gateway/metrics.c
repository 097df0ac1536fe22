/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "client/gateway/gateway.h"
#include "client/view/view.h"

/* Statuses that are answered; the last stands for any other. */
static const unsigned statuses[TERSE_STATUSES] = {200, 400, 403, 404, 405, 413, 415, 500, 501, 503, 504, 0};

static const char end_mark[] = "# EOF\n";

void terse_metrics_count(terse_gateway *gateway, const terse_answer *answer)
{
    unsigned i = 0;
    while (statuses[i] && statuses[i] != answer->status)
        i++;
    gateway->answers[i]++;
}

static void put(terse_text *text, const char *name, const char *type, const char *help, uint64_t value)
{
    terse_text_format(text, "# TYPE %s %s\n# HELP %s %s\n%s%s %" PRIu64 "\n", name, type, name, help, name,
                      strcmp(type, "counter") == 0 ? "_total" : "", value);
}

void terse_metrics_finish(const terse_gateway *gateway, const char *accept, terse_answer *answer)
{
    terse_text *text = &answer->body;
    const size_t mark = sizeof end_mark - 1;
    if (text->size >= mark && memcmp(text->data + text->size - mark, end_mark, mark) == 0)
        text->size -= mark;
    put(text, "terse_gateway_connections", "gauge", "Open connections of HTTP.", gateway->n_visitors);
    put(text, "terse_gateway_inferences", "gauge", "Inferences that wait for the daemon.", gateway->n_inferring);
    put(text, "terse_gateway_aside", "gauge", "Long bodies and answers that are read or written beside the others.",
        gateway->n_aside);
    put(text, "terse_gateway_memory_bytes", "gauge", "Memory of requests and answers.", gateway->memory);
    put(text, "terse_gateway_refused_connections", "counter", "Connections beyond the limit.",
        gateway->refused_connections);
    put(text, "terse_gateway_cut_connections", "counter", "Connections cut because they were too slow or silent.",
        gateway->cut_connections);
    put(text, "terse_gateway_shared_requests", "counter", "Inferences that went through memory shared with the daemon.",
        gateway->shared_requests);
    terse_text_cstr(text, "# TYPE terse_gateway_answers counter\n# HELP terse_gateway_answers Answers by status.\n");
    for (unsigned i = 0; i < TERSE_STATUSES && (i == 0 || statuses[i - 1]); i++) {
        if (statuses[i])
            terse_text_format(text, "terse_gateway_answers_total{code=\"%u\"} %" PRIu64 "\n", statuses[i],
                              gateway->answers[i]);
        else
            terse_text_format(text, "terse_gateway_answers_total{code=\"other\"} %" PRIu64 "\n", gateway->answers[i]);
    }
    terse_text_cstr(text, end_mark);
    /* What is new in OpenMetrics is a comment or a name to readers of the older text. */
    if (!accept || !strstr(accept, "application/openmetrics-text"))
        answer->type = "text/plain; version=0.0.4; charset=utf-8";
}
