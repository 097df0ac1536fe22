/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "client/cli/bench/load_internal.h"
#include "client/cli/shared.h"

enum { LEAST_RING = 1 << 17 };
/* Requests of an open loop that may be outstanding in shared memory: what fits, within these. */
enum { LEAST_PLACES = 64, MOST_PLACES = 16384, PLACES_BYTES = 640 << 20 };

static int client_failed(terse_status status, terse_error *error)
{
    return terse_fail(error, status, "%s", terse_last_error());
}

static int connect_to(const terse_load_options *o, terse_client **ret_client, terse_error *error)
{
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    options.endpoint = o->endpoint;
    options.connect_timeout_ms = (uint32_t)o->connect_ms;
    options.max_outstanding = 1 << 16;
    options.spin_us = (uint32_t)o->spin_us;
    options.max_retries = (uint32_t)o->retries;
    options.retry_budget_ms = 3600 * 1000;
    options.max_refusals_per_s = o->max_refusals ? (uint32_t)o->max_refusals : UINT32_MAX;
    const terse_status status = terse_client_open(&options, ret_client);
    return status ? client_failed(status, error) : TERSE_OK;
}

static int prepare_request(terse_load *load, const terse_load_options *o, terse_error *error)
{
    const int n_inputs = terse_signature_count(load->signature, 0);
    int status = TERSE_OK;
    if (!o->input && n_inputs > LOAD_MAX_IO)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' has %d inputs, random ones are made for %d at most",
                          o->model, n_inputs, LOAD_MAX_IO);
    if (o->input)
        status = terse_npz_read(o->input, &load->npz, error);
    else
        status = terse_cli_random_inputs(load->signature, o->rows, o->dims, o->seed, load->inputs, error);
    if (status)
        return status;
    load->request = terse_request_new(o->model);
    terse_status added = load->request ? TERSE_OK : TERSE_INTERNAL;
    const int n = load->npz ? load->npz->n : n_inputs;
    for (int i = 0; !added && i < n; i++) {
        const terse_tensor *tensor = load->npz ? &load->npz->tensors[i] : &load->inputs[i];
        const char *name =
            load->npz && *load->npz->names[i] ? load->npz->names[i] : terse_signature_name(load->signature, 0, i);
        added = terse_request_add_input(load->request, name ? name : "", tensor->dtype, tensor->rank, tensor->dims,
                                        tensor->data);
    }
    if (added)
        return client_failed(added, error);
    terse_request_set_timeout(load->request, o->timeout_ms * 1000);
    return TERSE_OK;
}

/* The last is taken first: neighbours are to go in order. */
static void turn_around(terse_request **places, uint32_t n)
{
    for (uint32_t i = 0; i < n / 2; i++) {
        terse_request *swapped = places[i];
        places[i] = places[n - 1 - i];
        places[n - 1 - i] = swapped;
    }
}

/* As many requests as may be outstanding, each with places of its own in shared memory. */
static int prepare_places(terse_load *load, load_connection *c, const terse_load_options *o, terse_error *error)
{
    size_t inputs, outputs;
    terse_client_arena *arena = NULL;
    const char *const *names = load->npz ? (const char *const *)load->npz->names : NULL;
    const terse_cli_arrays arrays = {load->signature, load->npz ? load->npz->tensors : load->inputs, names,
                                     load->npz ? load->npz->n : terse_signature_count(load->signature, 0)};
    terse_cli_shared_bytes(&arrays, &inputs, &outputs);
    const size_t fit = PLACES_BYTES / (inputs + outputs + 1) / load->n;
    const size_t most = fit < LEAST_PLACES ? LEAST_PLACES : fit > MOST_PLACES ? MOST_PLACES : fit;
    c->n_places = (uint32_t)(o->concurrency ? o->concurrency / load->n + 1 : most);
    c->places = calloc(c->n_places, sizeof(terse_request *));
    c->used = calloc(load->ring, sizeof(terse_request *));
    if (!c->places || !c->used)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRIu32 " requests", c->n_places);
    terse_status status = terse_arena_attach(c->client, inputs * c->n_places, outputs * c->n_places, &arena);
    for (; !status && c->n_free < c->n_places; c->n_free++) {
        terse_request *request = c->places[c->n_free] = terse_request_new(o->model);
        status = request ? terse_cli_place(request, &arrays, arena) : TERSE_INTERNAL;
        if (request)
            terse_request_set_timeout(request, o->timeout_ms * 1000);
    }
    turn_around(c->places, c->n_free);
    return status ? client_failed(status, error) : TERSE_OK;
}

static int open_all(terse_load *load, const terse_load_options *o, terse_error *error)
{
    int status = TERSE_OK;
    for (unsigned i = 0; !status && i < load->n; i++) {
        load_connection *c = &load->connections[i];
        c->due_ns = calloc(load->ring, sizeof *c->due_ns);
        status = c->due_ns ? connect_to(o, &c->client, error)
                           : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for connection %u", i + 1);
    }
    if (status)
        return status;
    terse_client *first = load->connections[0].client;
    const terse_status told = terse_client_metadata(first, o->model, (int)o->connect_ms, &load->signature);
    if (told)
        return client_failed(told, error);
    status = prepare_request(load, o, error);
    for (unsigned i = 0; !status && o->shm && i < load->n; i++)
        status = prepare_places(load, &load->connections[i], o, error);
    if (status || !o->shm || !o->verify)
        return status;
    /* The first answer to compare with comes from outside of shared memory: memory there is written to again. */
    const terse_status answered = terse_client_infer(first, load->request, &load->reference);
    return answered ? client_failed(answered, error) : TERSE_OK;
}

int terse_load_open(const terse_load_options *o, terse_load **ret_load, terse_error *error)
{
    terse_load *load = calloc(1, sizeof *load);
    if (!load)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    load->n = (unsigned)(o->connections < 1                        ? 1
                         : o->connections > TERSE_LOAD_CONNECTIONS ? TERSE_LOAD_CONNECTIONS
                                                                   : o->connections);
    load->ring = LOAD_RING;
    while (load->ring > LEAST_RING && load->ring > LOAD_RING / load->n)
        load->ring /= 2;
    load->shm = o->shm;
    load->retries = o->retries > 0;
    load->verify = o->verify;
    const int status = open_all(load, o, error);
    if (status) {
        terse_load_close(load);
        return status;
    }
    *ret_load = load;
    return TERSE_OK;
}

void terse_load_close(terse_load *load)
{
    if (!load)
        return;
    for (unsigned i = 0; i < load->n; i++) {
        load_connection *c = &load->connections[i];
        for (uint32_t k = 0; c->places && k < c->n_free; k++)
            terse_request_free(c->places[k]);
        free(c->places);
        free(c->used);
        free(c->due_ns);
        terse_client_close(c->client);
    }
    for (int i = 0; i < LOAD_MAX_IO; i++)
        free(load->inputs[i].data);
    terse_reply_free(load->reference);
    terse_request_free(load->request);
    terse_npz_free(load->npz);
    terse_signature_free(load->signature);
    free(load);
}

uint64_t terse_load_hash(const terse_load *load)
{
    uint64_t hash = 0;
    for (int i = 0; load->reference && i < terse_reply_n_outputs(load->reference); i++) {
        size_t size = 0;
        const void *data = terse_reply_data(load->reference, i, &size);
        hash = XXH3_64bits_withSeed(data, size, hash);
    }
    return hash;
}

terse_client *terse_load_client(const terse_load *load)
{
    return load->connections[0].client;
}

const terse_signature *terse_load_signature(const terse_load *load)
{
    return load->signature;
}
