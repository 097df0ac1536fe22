/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/clients.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_BUCKETS = 64 };
#define SECOND_NS UINT64_C(1000000000)
#define FORGOTTEN_NS (10 * SECOND_NS)

static uint32_t bucket_of(uint32_t peer, uint32_t n_buckets)
{
    return (peer * UINT32_C(2654435769) >> 7) & (n_buckets - 1);
}

bool terse_clients_init(terse_clients *clients)
{
    clients->buckets = calloc(FIRST_BUCKETS, sizeof(terse_client *));
    clients->n_buckets = clients->buckets ? FIRST_BUCKETS : 0;
    return clients->buckets != NULL;
}

void terse_client_drop_late(terse_client *client)
{
    for (terse_late_reply *late = client->late_first, *next; late; late = next) {
        next = late->next;
        for (uint32_t i = 0; i < late->n_parts; i++)
            zmq_msg_close(&late->parts[i]);
        free(late);
    }
    client->late_first = client->late_last = NULL;
}

static void free_client(terse_client *client)
{
    terse_client_drop_late(client);
    free(client);
}

void terse_clients_done(terse_clients *clients)
{
    for (uint32_t i = 0; i < clients->n_buckets; i++)
        for (terse_client *client = clients->buckets[i], *next; client; client = next) {
            next = client->next;
            free_client(client);
        }
    free(clients->buckets);
    *clients = (terse_clients){0};
}

/* Twice the buckets when there are as many clients; without memory the chains just get longer. */
static void grow(terse_clients *clients)
{
    const uint32_t n = 2 * clients->n_buckets;
    terse_client **buckets = calloc(n, sizeof(terse_client *));
    if (!buckets)
        return;
    for (uint32_t i = 0; i < clients->n_buckets; i++)
        for (terse_client *client = clients->buckets[i], *next; client; client = next) {
            next = client->next;
            terse_client **head = &buckets[bucket_of(client->peer, n)];
            client->next = *head;
            *head = client;
        }
    free(clients->buckets);
    clients->buckets = buckets;
    clients->n_buckets = n;
}

terse_client *terse_clients_get(terse_clients *clients, uint32_t peer, uint64_t now_ns)
{
    terse_client *client = clients->buckets[bucket_of(peer, clients->n_buckets)];
    while (client && client->peer != peer)
        client = client->next;
    if (!client) {
        if (clients->n >= clients->n_buckets)
            grow(clients);
        client = calloc(1, sizeof *client);
        if (!client)
            return NULL;
        client->peer = peer;
        terse_client **head = &clients->buckets[bucket_of(peer, clients->n_buckets)];
        client->next = *head;
        *head = client;
        clients->n++;
    }
    client->seen_ns = now_ns;
    return client;
}

/* A number that ends with `end`; moves *at behind that. */
static bool take_number(const char **at, char end, uint32_t *ret_value)
{
    uint64_t value = 0;
    const char *c = *at;
    for (; *c >= '0' && *c <= '9' && value <= UINT32_MAX; c++)
        value = 10 * value + (uint64_t)(*c - '0');
    if (c == *at || *c != end || value > UINT32_MAX)
        return false;
    *at = c + 1;
    *ret_value = (uint32_t)value;
    return true;
}

void terse_client_identify(terse_client *client, const char *address, uint32_t gate_pid)
{
    /* "localhost:UID:GID:PID" on ipc; on tcp a numeric address, which may have colons but no letters beyond f. */
    static const char local[] = "localhost:";
    uint32_t uid = 0, gid = 0, pid = 0;
    client->known = true;
    client->remote = true;
    if (!address || strncmp(address, local, sizeof local - 1) != 0)
        return;
    const char *at = address + sizeof local - 1;
    if (!take_number(&at, ':', &uid) || !take_number(&at, ':', &gid) || !take_number(&at, 0, &pid))
        return;
    client->remote = gate_pid && pid == gate_pid;
    client->uid = uid;
    client->pid = pid;
}

void terse_client_join(terse_clients *clients, terse_client *client, terse_request *request)
{
    request->client = client;
    request->client_previous = NULL;
    request->client_next = client->requests;
    if (client->requests)
        client->requests->client_previous = request;
    else
        clients->n_asking++;
    client->requests = request;
    client->outstanding++;
    client->input_bytes += request->input_bytes;
    client->work_ns += request->work_ns;
    clients->work_ns += request->work_ns;
}

void terse_client_leave(terse_clients *clients, terse_request *request)
{
    terse_client *client = request->client;
    if (!client)
        return;
    if (request->client_previous)
        request->client_previous->client_next = request->client_next;
    else
        client->requests = request->client_next;
    if (request->client_next)
        request->client_next->client_previous = request->client_previous;
    clients->n_asking -= !client->requests;
    client->outstanding--;
    client->input_bytes -= request->input_bytes;
    client->work_ns -= request->work_ns;
    clients->work_ns -= request->work_ns;
    request->client = NULL;
}

bool terse_client_is_admin(const terse_client *client)
{
    return client->known && !client->remote && (client->uid == 0 || client->uid == geteuid());
}

void terse_clients_sweep(terse_clients *clients, uint64_t now_ns)
{
    if (now_ns - clients->swept_ns < SECOND_NS)
        return;
    clients->swept_ns = now_ns;
    for (uint32_t i = 0; i < clients->n_buckets; i++)
        for (terse_client **at = &clients->buckets[i]; *at;) {
            terse_client *client = *at;
            const bool idle = !client->outstanding && !client->pins && !client->n_late && !client->slow;
            if (!idle || (!client->gone && now_ns - client->seen_ns < FORGOTTEN_NS)) {
                at = &client->next;
                continue;
            }
            *at = client->next;
            clients->n--;
            free_client(client);
        }
}

/* --- requests by session and id -------------------------------------------------------------------------------- */

bool terse_sessions_init(terse_sessions *sessions, uint32_t expected)
{
    uint32_t n = FIRST_BUCKETS;
    while (n < expected && n < UINT32_C(1) << 20)
        n *= 2;
    sessions->buckets = calloc(n, sizeof(terse_request *));
    sessions->n_buckets = sessions->buckets ? n : 0;
    return sessions->buckets != NULL;
}

void terse_sessions_done(terse_sessions *sessions)
{
    free(sessions->buckets);
    *sessions = (terse_sessions){0};
}

static terse_request **session_bucket(const terse_sessions *sessions, const uint8_t *session, uint64_t id)
{
    uint64_t half;
    memcpy(&half, session, sizeof half); /* random bytes: as good as a hash */
    /* Neighbours in time are neighbours in memory: else each would be a line that the cache does not have. */
    const uint64_t hash = (half + id / FIRST_BUCKETS) * UINT64_C(0x9e3779b97f4a7c15);
    return &sessions->buckets[((hash >> 40) + id % FIRST_BUCKETS) & (sessions->n_buckets - 1)];
}

void terse_sessions_add(terse_sessions *sessions, terse_request *request)
{
    terse_request **head = session_bucket(sessions, request->session, request->id);
    request->session_next = *head;
    *head = request;
    sessions->n++;
}

void terse_sessions_remove(terse_sessions *sessions, terse_request *request)
{
    for (terse_request **at = session_bucket(sessions, request->session, request->id); *at; at = &(*at)->session_next)
        if (*at == request) {
            *at = request->session_next;
            sessions->n--;
            return;
        }
}

terse_request *terse_sessions_find(const terse_sessions *sessions, const uint8_t *session, uint64_t id)
{
    terse_request *request = *session_bucket(sessions, session, id);
    while (request && (request->id != id || memcmp(request->session, session, TERSE_WIRE_SESSION_BYTES) != 0))
        request = request->session_next;
    return request;
}
