/* SPDX-License-Identifier: Apache-2.0 */
/* terse infer: the arrays of an .npz through a daemon. More rows than the model's max_batch go as several requests at
 * once. */
#include "client/cli/cli.h"
#include "client/cli/shared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/npz.h"

enum { MAX_ARRAYS = 64 };

typedef struct job {
    const char *model, *endpoint, *output, *version;
    uint64_t timeout_ms, connect_ms, priority, retries;
    bool shm, trace;
    terse_client *client;
    terse_client_arena *arena; /* with --shm */
    terse_signature *signature;
    terse_npz *npz;
    int64_t n_parts;
    uint64_t *ids;
    terse_reply **replies; /* one per part */
    int n_outputs;
    terse_tensor outputs[MAX_ARRAYS];
    const char *names[MAX_ARRAYS];
} job;

/* Rows first..first+n of every array (all of them when n is 0), in place. */
static terse_cli_arrays part_of(const job *j, int64_t first, int64_t n, terse_tensor *parts)
{
    for (int i = 0; i < j->npz->n; i++) {
        parts[i] = j->npz->tensors[i];
        if (n == 0)
            continue;
        const size_t row = (size_t)terse_tensor_bytes(&parts[i]) / (size_t)parts[i].dims[0];
        parts[i].data = (char *)parts[i].data + row * (size_t)first;
        parts[i].dims[0] = n;
    }
    return (terse_cli_arrays){j->signature, parts, (const char *const *)j->npz->names, j->npz->n};
}

/* Memory for all parts of the file: replies are read when all have come. */
static terse_status share(job *j, int64_t rows, int64_t part)
{
    terse_tensor parts[MAX_ARRAYS];
    size_t inputs, outputs;
    const terse_cli_arrays arrays = part_of(j, 0, rows ? part : 0, parts);
    terse_cli_shared_bytes(&arrays, &inputs, &outputs);
    return terse_arena_attach(j->client, inputs * (size_t)j->n_parts, outputs * (size_t)j->n_parts, &j->arena);
}

/* Adds rows first..first+n of every array in the file (all of them when n is 0). The daemon checks names and shapes. */
static terse_request *make_request(const job *j, int64_t first, int64_t n)
{
    terse_request *request = terse_request_new(j->model);
    if (!request)
        return NULL;
    terse_request_set_timeout(request, j->timeout_ms * 1000);
    terse_request_set_priority(request, (unsigned)j->priority);
    terse_request_set_trace(request, j->trace);
    terse_status status = terse_request_set_version(request, j->version);
    terse_tensor parts[MAX_ARRAYS];
    const terse_cli_arrays arrays = part_of(j, first, n, parts);
    if (!status && j->arena)
        status = terse_cli_place(request, &arrays, j->arena);
    for (int i = 0; !status && !j->arena && i < arrays.n; i++) {
        const char *name = arrays.names[i];
        if (!*name) /* a .npy: the one input */
            name = terse_signature_name(j->signature, 0, 0);
        status = terse_request_add_input(request, name ? name : "", parts[i].dtype, parts[i].rank, parts[i].dims,
                                         parts[i].data);
    }
    if (status) {
        terse_request_free(request);
        return NULL;
    }
    return request;
}

/* Rows of the file when it has to be split, else 0: all arrays agree in axis 0 and have more than max_batch of them. */
static int64_t rows_to_split(const job *j)
{
    int64_t rows = 0;
    for (int i = 0; i < j->npz->n; i++) {
        const terse_tensor *tensor = &j->npz->tensors[i];
        if (tensor->rank < 1 || (i > 0 && tensor->dims[0] != rows))
            return 0;
        rows = tensor->dims[0];
    }
    return terse_signature_batchable(j->signature) && rows > (int64_t)terse_signature_max_batch(j->signature) ? rows
                                                                                                              : 0;
}

/* At most this many parts are outstanding: the daemon's own caps are not to be met by one file. */
enum { WINDOW = 16 };

static int exchange(job *j)
{
    const int64_t rows = rows_to_split(j), part = (int64_t)terse_signature_max_batch(j->signature);
    j->n_parts = rows ? (rows + part - 1) / part : 1;
    j->ids = calloc((size_t)j->n_parts, sizeof *j->ids);
    j->replies = calloc((size_t)j->n_parts, sizeof *j->replies);
    if (!j->ids || !j->replies) {
        terse_error error;
        terse_fail(&error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRId64 " requests", j->n_parts);
        return terse_cli_fail("infer", &error);
    }
    if (j->shm && share(j, rows, part))
        return terse_cli_fail_client("infer");
    for (int64_t sent = 0, got = 0; got < j->n_parts;) {
        if (sent < j->n_parts && sent - got < WINDOW) {
            const int64_t first = sent * part;
            terse_request *request = make_request(j, first, rows ? (rows - first < part ? rows - first : part) : 0);
            const terse_status status =
                request ? terse_client_submit(j->client, request, &j->ids[sent]) : TERSE_INTERNAL;
            terse_request_free(request);
            if (status)
                return terse_cli_fail_client("infer");
            sent++;
            continue;
        }
        if (terse_client_wait(j->client, j->ids[got], -1, &j->replies[got]))
            return terse_cli_fail_client("infer");
        const terse_reply *reply = j->replies[got++];
        if (terse_reply_status(reply) != TERSE_OK) {
            fprintf(stderr, "terse infer: %s: %s\n", terse_status_name(terse_reply_status(reply)),
                    terse_reply_error(reply));
            return TERSE_CLI_FAILED;
        }
    }
    return TERSE_CLI_DONE;
}

/* Joins output i of all parts along axis 0. */
static int join(job *j, int i, terse_error *error)
{
    const int64_t *dims = NULL;
    int64_t whole[TERSE_MAX_RANK] = {0};
    const int rank = terse_reply_shape(j->replies[0], i, &dims);
    size_t bytes = 0;
    for (int d = 0; d < rank; d++)
        whole[d] = dims[d];
    for (int64_t p = 0; p < j->n_parts; p++) {
        size_t part_bytes = 0;
        const int64_t *part = NULL;
        if (terse_reply_shape(j->replies[p], i, &part) != rank || !terse_reply_data(j->replies[p], i, &part_bytes))
            return terse_fail(error, TERSE_INTERNAL, "the replies' shapes differ");
        if (p > 0 && rank > 0)
            whole[0] += part[0];
        bytes += part_bytes;
    }
    char *data = aligned_alloc(64, terse_align(bytes + 1, 64));
    if (!data)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", bytes);
    j->outputs[i] = terse_tensor_view(data, terse_reply_dtype(j->replies[0], i), rank, whole);
    for (int64_t p = 0; p < j->n_parts; p++) {
        size_t part_bytes = 0;
        const void *from = terse_reply_data(j->replies[p], i, &part_bytes);
        if (part_bytes)
            memcpy(data, from, part_bytes);
        data += part_bytes;
    }
    return TERSE_OK;
}

static int store(job *j)
{
    terse_error error = {0};
    int status = TERSE_OK;
    j->n_outputs = terse_reply_n_outputs(j->replies[0]);
    for (int i = 0; !status && i < j->n_outputs; i++) {
        j->names[i] = terse_reply_name(j->replies[0], i);
        status = join(j, i, &error);
    }
    if (!status)
        status = terse_npz_write(j->output, j->n_outputs, j->names, j->outputs, &error);
    return status ? terse_cli_fail("infer", &error) : TERSE_CLI_DONE;
}

static void job_done(job *j)
{
    for (int i = 0; i < j->n_outputs; i++)
        free(j->outputs[i].data);
    for (int64_t p = 0; j->replies && p < j->n_parts; p++)
        terse_reply_free(j->replies[p]);
    free(j->replies);
    free(j->ids);
    terse_npz_free(j->npz);
    terse_signature_free(j->signature);
    terse_client_close(j->client);
}

int terse_cli_infer(int argc, char **argv)
{
    job j = {.connect_ms = 5000, .retries = 1000};
    const terse_cli_usage usage = {
        "infer", "[-e ENDPOINT] MODEL IN.npz -o OUT.npz",
        "Sends the arrays of IN.npz, named as the model's inputs, to a daemon and writes its outputs.\n"
        "More rows than the model's max_batch travel as several requests.",
        2, 2};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &j.endpoint, 0, 0,
         "the daemon's, or those of several, with commas between (default: $TERSE_ENDPOINT, else this host's)"},
        {"output", 'o', TERSE_CLI_TEXT, "OUT.npz", &j.output, 0, 0, "write the outputs there (atomically)"},
        {"model-version", 0, TERSE_CLI_TEXT, "V", &j.version, 0, 0, "the version of the model (default: any)"},
        {"timeout-ms", 0, TERSE_CLI_COUNT, "T", &j.timeout_ms, 1, 1e9, "deadline of each request (default: none)"},
        {"priority", 0, TERSE_CLI_COUNT, "P", &j.priority, 0, 9, "0 (default) to 9"},
        {"shm", 0, TERSE_CLI_FLAG, NULL, &j.shm, 0, 0, "share memory with the daemon instead of sending the arrays"},
        {"trace", 0, TERSE_CLI_FLAG, NULL, &j.trace, 0, 0,
         "print when each request was received, queued, dispatched, computed and replied"},
        {"retries", 0, TERSE_CLI_COUNT, "N", &j.retries, 0, 1e6,
         "how often to come again when the daemon is full, as it says when (default 1000)"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &j.connect_ms, 1, 1e9, "how long to wait for a daemon (default 5000)"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    const char *positional[2];
    int n;
    int code = terse_cli_parse(&usage, options, argc, argv, positional, &n);
    if (code >= 0)
        return code;
    if (!j.output)
        return terse_cli_usage_error("infer", "-o OUT.npz is missing");
    j.model = positional[0];
    terse_error error = {0};
    if (terse_npz_read(positional[1], &j.npz, &error))
        return terse_cli_fail("infer", &error);
    if (j.npz->n > MAX_ARRAYS) {
        terse_fail(&error, TERSE_INVALID_ARGUMENT, "'%s' has %d arrays, a request %d at most", positional[1], j.npz->n,
                   MAX_ARRAYS);
        terse_npz_free(j.npz);
        return terse_cli_fail("infer", &error);
    }
    code = TERSE_CLI_FAILED;
    if ((j.client = terse_cli_connect_as("infer", j.endpoint, j.connect_ms, 0, j.retries))) {
        if (terse_client_metadata(j.client, j.model, (int)j.connect_ms, &j.signature))
            code = terse_cli_fail_client("infer");
        else if (!(code = exchange(&j)))
            code = store(&j);
        if (code == TERSE_CLI_DONE && j.trace)
            terse_cli_print_traces(j.replies, j.n_parts);
    }
    job_done(&j);
    return code;
}
