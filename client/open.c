/* SPDX-License-Identifier: Apache-2.0 */
/* A client's beginning and end. */
#include "client/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "client/links.h"
#include "client/loop.h"
#include "common/bytes.h"

enum {
    DEFAULT_CONNECT_MS = 5000,
    DEFAULT_RECONNECT_MS = 30000,
    DEFAULT_RETRY_MS = 30000,
    DEFAULT_RESEND_MS = 1000,
    DEFAULT_OUTSTANDING = 4096,
    DEFAULT_REFUSALS = 30000,
    MAX_OUTSTANDING = 1 << 20,
};

const char *terse_default_endpoint(void)
{
    static _Thread_local char endpoint[512];
    const char *set = getenv("TERSE_ENDPOINT"), *runtime = getenv("XDG_RUNTIME_DIR");
    if (set && *set)
        return set;
    if (geteuid() == 0 || access("/run/terse/tersed.sock", F_OK) == 0 || !runtime || !*runtime)
        return "ipc:///run/terse/tersed.sock";
    snprintf(endpoint, sizeof endpoint, "ipc://%s/terse/tersed.sock", runtime);
    return endpoint;
}

static terse_status greet(terse_client *client, uint32_t timeout_ms)
{
    uint64_t id;
    terse_reply *reply = NULL;
    terse_wire_request_init(&client->wire_request);
    terse_status status = terse_client_send(client, TERSE_WIRE_LIVE, PENDING_OWN, NULL, 0, &id);
    if (!status)
        status = terse_client_finish(client, id, timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms, &reply);
    terse_reply_free(reply);
    if (status == TERSE_DEADLINE_EXCEEDED)
        status =
            CLIENT_FAIL(TERSE_UNAVAILABLE, "no daemon answers at '%.300s' within %u ms", client->endpoint, timeout_ms);
    return status;
}

static terse_status open_client(terse_client *client, const terse_client_options *options)
{
    client->endpoint = strdup(options->endpoint && *options->endpoint ? options->endpoint : terse_default_endpoint());
    client->max_outstanding = options->max_outstanding ? options->max_outstanding : DEFAULT_OUTSTANDING;
    if (client->max_outstanding > MAX_OUTSTANDING)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "max_outstanding is %zu, at most %d are allowed",
                           client->max_outstanding, MAX_OUTSTANDING);
    client->reconnect_ns =
        1000000u * (uint64_t)(options->reconnect_timeout_ms ? options->reconnect_timeout_ms : DEFAULT_RECONNECT_MS);
    client->next_id = 1;
    client->spin_ns = 1000 * (uint64_t)(options->spin_us < 1000000 ? options->spin_us : 1000000);
    client->resend_ns = 1000000u * (uint64_t)(options->resend_ms ? options->resend_ms : DEFAULT_RESEND_MS);
    client->max_retries = options->max_retries;
    client->max_refusals = options->max_refusals_per_s ? options->max_refusals_per_s : DEFAULT_REFUSALS;
    client->retry_budget_ns =
        1000000u * (uint64_t)(options->retry_budget_ms ? options->retry_budget_ms : DEFAULT_RETRY_MS);
    client->lost_since_ns = terse_now_ns();
    /* Room beside the requests for operations of our own and for replies that nobody has taken yet. */
    if (!client->endpoint || !terse_table_init(&client->table, client->max_outstanding * 2 + 64))
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a client");
    if (getrandom(client->session, sizeof client->session, 0) != (ssize_t)sizeof client->session)
        return CLIENT_FAIL(TERSE_SYSTEM, "cannot draw a session number");
    memcpy(&client->random, client->session, sizeof client->random);
    client->random |= 1;
    const terse_status status = terse_links_open(client, options);
    client->unsure = true;
    return status ? status
                  : greet(client, options->connect_timeout_ms ? options->connect_timeout_ms : DEFAULT_CONNECT_MS);
}

terse_status terse_client_open(const terse_client_options *options, terse_client **ret_client)
{
    terse_client_options known = TERSE_CLIENT_OPTIONS_INIT;
    if (options && options->size < offsetof(terse_client_options, connect_timeout_ms))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "options have size %zu: start from TERSE_CLIENT_OPTIONS_INIT",
                           options->size);
    if (options)
        memcpy(&known, options, options->size < sizeof known ? options->size : sizeof known);
    terse_client *client = calloc(1, sizeof *client);
    if (!client)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a client");
    client->epoll_fd = client->timer_fd = client->event_fd = -1;
    const terse_status status = open_client(client, &known);
    if (status) {
        terse_client_close(client);
        return status;
    }
    *ret_client = client;
    return TERSE_OK;
}

static void free_entries(terse_client *client)
{
    for (size_t i = 0; client->table.slots && i <= client->table.mask; i++)
        for (pending *entry; (entry = client->table.slots[i]);) {
            client->table.slots[i] = entry->table_next;
            terse_pending_free(client, entry);
        }
    for (pending *entry = client->spare, *next; entry; entry = next) {
        next = entry->next;
        free(entry);
    }
    terse_table_done(&client->table);
    free(client->due);
}

void terse_client_close(terse_client *client)
{
    if (!client)
        return;
    terse_arena_detach(client->arena);
    free_entries(client);
    terse_loop_close(client);
    terse_links_close(client);
    free(client->endpoint);
    free(client);
}
