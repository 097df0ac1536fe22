/* SPDX-License-Identifier: Apache-2.0 */
/* terse bench: a daemon's latency and throughput.
 *
 * Closed loop (--concurrency C): C requests are always outstanding; a latency counts from the submission. Open loop
 * (--rate R): requests are due at Poisson moments whatever the daemon does, and a latency counts from the moment at
 * which its request was due, so that a stall is charged to all requests that it delayed (no coordinated omission). How
 * far this program itself was behind is reported beside it: a rate that it cannot offer shows there. */
#include "client/cli/cli.h"
#include "client/cli/shared.h"

#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "common/bytes.h"
#include "common/json.h"
#include "common/npz.h"
#include "common/turn.h"

enum { N_STATUS = TERSE_SYSTEM + 1, MAX_IO = 64, RING = 1 << 21 };
/* Requests of an open loop that may be outstanding in shared memory: what fits, within these. */
/* GROUP: requests that are sent before replies are looked for, however many are due. */
enum { WAKE_NS = 100000, GROUP = 512 };
enum { LEAST_PLACES = 64, MOST_PLACES = 16384, PLACES_BYTES = 640 << 20 };

typedef struct samples {
    uint64_t *ns;
    size_t n, capacity;
} samples;

typedef struct bench {
    const char *model, *endpoint, *input;
    bool json, verify, shm;
    uint64_t concurrency, rows, requests, timeout_ms, seed, connect_ms, spin_us, retries;
    double rate, seconds, warmup;
    terse_cli_texts dims;
    terse_client *client;
    terse_signature *signature;
    terse_npz *npz;
    terse_tensor inputs[MAX_IO]; /* random ones, ours to free */
    terse_request *request;
    terse_reply *reference; /* --verify: the first answer */
    terse_request **places; /* --shm: requests with memory of their own each, those in [0, n_free) are free */
    uint32_t n_places, n_free;
    terse_request **used; /* by id modulo RING */

    uint64_t *due_ns;                         /* by id modulo RING */
    uint64_t measure_from_ns, end_ns, now_ns; /* now_ns: when the last reply was taken */
    samples answered, refused;                /* latencies of measured requests: that were answered OK, that were not */
    samples behind;                           /* open loop: how late each was sent */
    char first_error[512];                    /* the text of the first reply that was no OK */
    uint64_t sent, ok, errors[N_STATUS], mismatches, duplicates,
        batches;                /* batches: sum over replies of their batch's rows */
    double elapsed, own_share;  /* processor time of this process by the time that passed, from the first request on */
    uint64_t first_ns, last_ns; /* of measured completions */
} bench;

static int prepare_request(bench *b, terse_error *error)
{
    int status = TERSE_OK;
    if (b->input)
        status = terse_npz_read(b->input, &b->npz, error);
    else
        status = terse_cli_random_inputs(b->signature, b->rows, &b->dims, b->seed, b->inputs, error);
    if (status)
        return status;
    b->request = terse_request_new(b->model);
    terse_status added = b->request ? TERSE_OK : TERSE_INTERNAL;
    const int n = b->npz ? b->npz->n : terse_signature_count(b->signature, 0);
    for (int i = 0; !added && i < n; i++) {
        const terse_tensor *tensor = b->npz ? &b->npz->tensors[i] : &b->inputs[i];
        const char *name = b->npz && *b->npz->names[i] ? b->npz->names[i] : terse_signature_name(b->signature, 0, i);
        added = terse_request_add_input(b->request, name ? name : "", tensor->dtype, tensor->rank, tensor->dims,
                                        tensor->data);
    }
    if (added)
        return terse_fail(error, added, "%s", terse_last_error());
    terse_request_set_timeout(b->request, b->timeout_ms * 1000);
    return TERSE_OK;
}

static bool same_outputs(const terse_reply *a, const terse_reply *b)
{
    if (terse_reply_n_outputs(a) != terse_reply_n_outputs(b))
        return false;
    for (int i = 0; i < terse_reply_n_outputs(a); i++) {
        size_t size_a = 0, size_b = 0;
        const void *data_a = terse_reply_data(a, i, &size_a), *data_b = terse_reply_data(b, i, &size_b);
        if (size_a != size_b || memcmp(data_a, data_b, size_a) != 0)
            return false;
    }
    return true;
}

/* Of the first answer's bytes: the same in every run with the same inputs. */
static uint64_t outputs_hash(const terse_reply *reply)
{
    uint64_t hash = 0;
    for (int i = 0; reply && i < terse_reply_n_outputs(reply); i++) {
        size_t size = 0;
        const void *data = terse_reply_data(reply, i, &size);
        hash = XXH3_64bits_withSeed(data, size, hash);
    }
    return hash;
}

static bool record(samples *to, uint64_t ns)
{
    if (to->n == to->capacity) {
        const size_t capacity = to->capacity ? to->capacity * 2 : 1 << 16;
        uint64_t *more = realloc(to->ns, capacity * sizeof *more);
        if (!more)
            return false;
        to->ns = more;
        to->capacity = capacity;
    }
    to->ns[to->n++] = ns;
    return true;
}

static bool take_reply(bench *b, terse_reply *reply)
{
    const uint64_t now = terse_now_ns(), due = b->due_ns[terse_reply_id(reply) % RING];
    b->now_ns = now;
    const terse_status status = terse_reply_status(reply);
    if (due == 0) { /* answered before */
        b->duplicates++;
        terse_reply_free(reply);
        return true;
    }
    b->due_ns[terse_reply_id(reply) % RING] = 0;
    bool kept = false, room = true;
    if (status == TERSE_OK && b->verify) {
        if (!b->reference) {
            b->reference = reply;
            kept = true;
        } else if (!same_outputs(b->reference, reply)) {
            b->mismatches++;
        }
    }
    if (due >= b->measure_from_ns) {
        if (!b->first_ns)
            b->first_ns = due;
        b->last_ns = now;
        if (status == TERSE_OK) {
            uint32_t batch = 0;
            terse_reply_timing(reply, NULL, NULL, &batch);
            b->ok++;
            b->batches += batch;
            room = record(&b->answered, now - due);
        } else {
            b->errors[(unsigned)status < N_STATUS ? status : TERSE_INTERNAL]++;
            room = record(&b->refused, now - due);
            if (!*b->first_error)
                snprintf(b->first_error, sizeof b->first_error, "%s", terse_reply_error(reply));
        }
    }
    if (b->shm)
        b->places[b->n_free++] = b->used[terse_reply_id(reply) % RING];
    if (!kept)
        terse_reply_free(reply);
    return room;
}

/* A submission that the library refuses is an answer too: it is counted by its status. */
static terse_status submit(bench *b, uint64_t due)
{
    uint64_t id = 0;
    terse_request *request = b->shm ? (b->n_free ? b->places[b->n_free - 1] : NULL) : b->request;
    const terse_status status = request ? terse_client_submit(b->client, request, &id) : TERSE_RESOURCE_EXHAUSTED;
    if (!status && b->shm) {
        b->used[id % RING] = request;
        b->n_free--;
    }
    if (due >= b->measure_from_ns)
        b->sent++;
    if (!status)
        b->due_ns[id % RING] = due;
    else if (due >= b->measure_from_ns) {
        b->errors[status]++;
        if (!*b->first_error)
            snprintf(b->first_error, sizeof b->first_error, "%s",
                     request ? terse_last_error() : "no more places in shared memory for what is outstanding");
    }
    return status;
}

static uint64_t own_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int closed_loop(bench *b)
{
    uint64_t submitted = 0, now = terse_now_ns();
    bool sending = true;
    while (sending || terse_client_outstanding(b->client) > 0) {
        while (sending && terse_client_outstanding(b->client) < b->concurrency) {
            if ((b->requests && submitted >= b->requests) || (!b->requests && now >= b->end_ns)) {
                sending = false;
                break;
            }
            now = terse_now_ns();
            if (submit(b, now) == TERSE_OK)
                submitted++;
            else
                return terse_cli_fail_client("bench");
        }
        terse_reply *reply = NULL;
        if (!sending && terse_client_outstanding(b->client) == 0)
            break;
        if (terse_client_poll(b->client, -1, &reply))
            return terse_cli_fail_client("bench");
        if (!take_reply(b, reply))
            return terse_cli_fail("bench", &(terse_error){.message = "out of memory for latencies"});
        now = b->now_ns;
    }
    return TERSE_CLI_DONE;
}

static double uniform(uint64_t *state) /* in (0, 1]: xorshift64* (Vigna 2016) */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)((*state * 0x2545f4914f6cdd1du >> 11) + 1) / 9007199254740992.0;
}

/* Waits for a reply or until `until_ns`. To wake for each of many requests and replies would cost the daemon the
 * processor that is to answer them: where they come closer than WAKE_NS they are sent in small groups, each charged
 * from when it was due, and replies are looked for as often. */
static int wait_readable(const bench *b, uint64_t until_ns)
{
    const uint64_t now = terse_now_ns();
    if (until_ns <= now)
        return 0;
    if (b->rate * WAKE_NS > 1e9)
        return nanosleep(&(struct timespec){.tv_nsec = WAKE_NS}, NULL);
    struct pollfd watched = {.fd = terse_client_fd(b->client), .events = POLLIN};
    const struct timespec left = {(time_t)((until_ns - now) / 1000000000u), (long)((until_ns - now) % 1000000000u)};
    return ppoll(&watched, 1, &left, NULL);
}

static int open_loop(bench *b)
{
    uint64_t state = b->seed * 2654435761u + 88172645463325252u, due = terse_now_ns(), submitted = 0;
    bool sending = true;
    while (sending || terse_client_outstanding(b->client) > 0) {
        const uint64_t now = terse_now_ns();
        for (int n = 0; sending && due <= now && n < GROUP; n++, submitted++) {
            if ((b->requests && submitted >= b->requests) || (!b->requests && due >= b->end_ns)) {
                sending = false;
                break;
            }
            const uint64_t sent = terse_now_ns();
            submit(b, due);
            if (due >= b->measure_from_ns && !record(&b->behind, sent > due ? sent - due : 0))
                return terse_cli_fail("bench", &(terse_error){.message = "out of memory for latencies"});
            due += (uint64_t)(-log(uniform(&state)) * 1e9 / b->rate);
        }
        bool any = false;
        for (terse_reply *reply; (reply = NULL, terse_client_outstanding(b->client) > 0); any = true) {
            if (terse_client_poll(b->client, sending || any ? 0 : 1000, &reply))
                return terse_cli_fail_client("bench");
            if (!reply)
                break;
            if (!take_reply(b, reply))
                return terse_cli_fail("bench", &(terse_error){.message = "out of memory for latencies"});
        }
        if (!any && sending)
            wait_readable(b, due);
    }
    return TERSE_CLI_DONE;
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The smallest latency that at least a part of q of all do not pass (nearest rank). */
static double percentile_us(const samples *of, double q)
{
    if (of->n == 0)
        return NAN;
    size_t rank = (size_t)ceil(q * (double)of->n);
    rank = rank < 1 ? 1 : rank;
    return (double)of->ns[rank - 1] / 1e3;
}

static void sort(samples *of)
{
    if (of->n)
        qsort(of->ns, of->n, sizeof *of->ns, compare_u64);
}

static void report(bench *b)
{
    sort(&b->answered);
    sort(&b->refused);
    sort(&b->behind);
    const double seconds = (double)(b->last_ns - b->first_ns) / 1e9;
    const double rate = seconds > 0 ? (double)b->ok / seconds : 0;
    const double mean_batch = b->ok ? (double)b->batches / (double)b->ok : 0;
    if (b->json) {
        terse_json json = terse_json_to(stdout);
        terse_json_object(&json, NULL);
        terse_json_text(&json, "model", b->model);
        if (b->rate > 0)
            terse_json_double(&json, "offered_rate", b->rate);
        else
            terse_json_uint(&json, "concurrency", b->concurrency);
        terse_json_double(&json, "seconds", seconds);
        terse_json_double(&json, "rate", rate);
        terse_json_uint(&json, "sent", b->sent);
        terse_json_uint(&json, "ok", b->ok);
        terse_json_object(&json, "errors");
        for (int s = 1; s < N_STATUS; s++)
            if (b->errors[s])
                terse_json_uint(&json, terse_status_name((terse_status)s), b->errors[s]);
        terse_json_end(&json);
        if (*b->first_error)
            terse_json_text(&json, "first_error", b->first_error);
        if (b->verify) {
            char hash[17];
            snprintf(hash, sizeof hash, "%016" PRIx64, outputs_hash(b->reference));
            terse_json_uint(&json, "mismatches", b->mismatches);
            terse_json_uint(&json, "duplicates", b->duplicates);
            terse_json_text(&json, "outputs_hash", hash);
        }
        terse_json_double(&json, "p50_us", percentile_us(&b->answered, 0.5));
        terse_json_double(&json, "p90_us", percentile_us(&b->answered, 0.9));
        terse_json_double(&json, "p99_us", percentile_us(&b->answered, 0.99));
        terse_json_double(&json, "p999_us", percentile_us(&b->answered, 0.999));
        terse_json_double(&json, "max_us", percentile_us(&b->answered, 1));
        if (b->refused.n) {
            terse_json_double(&json, "refused_p50_us", percentile_us(&b->refused, 0.5));
            terse_json_double(&json, "refused_p99_us", percentile_us(&b->refused, 0.99));
            terse_json_double(&json, "refused_max_us", percentile_us(&b->refused, 1));
        }
        if (b->behind.n) {
            terse_json_double(&json, "behind_p50_us", percentile_us(&b->behind, 0.5));
            terse_json_double(&json, "behind_p99_us", percentile_us(&b->behind, 0.99));
            terse_json_double(&json, "behind_max_us", percentile_us(&b->behind, 1));
        }
        terse_json_double(&json, "own_share", b->own_share);
        terse_json_double(&json, "mean_batch", mean_batch);
        terse_json_end(&json);
        putchar('\n');
        return;
    }
    printf("%s: %" PRIu64 " sent, %" PRIu64 " ok in %.2f s: %.0f requests/s, mean batch %.2f\n", b->model, b->sent,
           b->ok, seconds, rate, mean_batch);
    for (int s = 1; s < N_STATUS; s++)
        if (b->errors[s])
            printf("  %s: %" PRIu64 "\n", terse_status_name((terse_status)s), b->errors[s]);
    if (*b->first_error)
        printf("  the first: %s\n", b->first_error);
    if (b->verify)
        printf("  replies that differ from the first: %" PRIu64 ", second replies to a request: %" PRIu64 "\n",
               b->mismatches, b->duplicates);
    if (b->answered.n)
        printf("  latency: p50 %.0f us, p90 %.0f us, p99 %.0f us, p99.9 %.0f us\n", percentile_us(&b->answered, 0.5),
               percentile_us(&b->answered, 0.9), percentile_us(&b->answered, 0.99), percentile_us(&b->answered, 0.999));
    if (b->refused.n)
        printf("  refused after: p50 %.0f us, p99 %.0f us, at most %.0f us\n", percentile_us(&b->refused, 0.5),
               percentile_us(&b->refused, 0.99), percentile_us(&b->refused, 1));
    if (b->behind.n && percentile_us(&b->behind, 0.99) > 1000)
        printf("  sent late by this program itself: p50 %.0f us, p99 %.0f us\n", percentile_us(&b->behind, 0.5),
               percentile_us(&b->behind, 0.99));
}

/* As many requests as may be outstanding, each with places of its own in shared memory. The first answer to compare
 * with comes from outside of it: memory there is written to again. */
static int prepare_places(bench *b, terse_error *error)
{
    size_t inputs, outputs;
    terse_client_arena *arena = NULL;
    const char *const *names = b->npz ? (const char *const *)b->npz->names : NULL;
    const terse_cli_arrays arrays = {b->signature, b->npz ? b->npz->tensors : b->inputs, names,
                                     b->npz ? b->npz->n : terse_signature_count(b->signature, 0)};
    terse_cli_shared_bytes(&arrays, &inputs, &outputs);
    const size_t fit = PLACES_BYTES / (inputs + outputs + 1);
    const size_t most = fit < LEAST_PLACES ? LEAST_PLACES : fit > MOST_PLACES ? MOST_PLACES : fit;
    b->n_places = b->rate > 0 ? (uint32_t)most : (uint32_t)b->concurrency;
    b->places = calloc(b->n_places, sizeof(terse_request *));
    b->used = calloc(RING, sizeof(terse_request *));
    if (!b->places || !b->used)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRIu32 " requests", b->n_places);
    terse_status status = terse_arena_attach(b->client, inputs * b->n_places, outputs * b->n_places, &arena);
    for (; !status && b->n_free < b->n_places; b->n_free++) {
        terse_request *request = b->places[b->n_free] = terse_request_new(b->model);
        status = request ? terse_cli_place(request, &arrays, arena) : TERSE_INTERNAL;
        if (request)
            terse_request_set_timeout(request, b->timeout_ms * 1000);
    }
    for (uint32_t i = 0; i < b->n_free / 2; i++) { /* the last is taken first: neighbours are to go in order */
        terse_request *swapped = b->places[i];
        b->places[i] = b->places[b->n_free - 1 - i];
        b->places[b->n_free - 1 - i] = swapped;
    }
    if (!status && b->verify)
        status = terse_client_infer(b->client, b->request, &b->reference);
    return status ? terse_fail(error, status, "%s", terse_last_error()) : TERSE_OK;
}

static int bench_run(bench *b)
{
    terse_error error = {0};
    if (!(b->client = terse_cli_connect_as("bench", b->endpoint, b->connect_ms, b->spin_us, b->retries)))
        return TERSE_CLI_FAILED;
    if (terse_client_metadata(b->client, b->model, (int)b->connect_ms, &b->signature))
        return terse_cli_fail_client("bench");
    if (!(b->due_ns = calloc(RING, sizeof *b->due_ns)) || prepare_request(b, &error) ||
        (b->shm && prepare_places(b, &error)))
        return terse_cli_fail("bench", &error);
    terse_turn_short();
    const uint64_t start = terse_now_ns();
    b->measure_from_ns = start + (uint64_t)((b->requests ? 0 : b->warmup) * 1e9);
    b->end_ns = b->measure_from_ns + (uint64_t)(b->seconds * 1e9);
    const uint64_t cpu = own_cpu_ns();
    const int code = b->rate > 0 ? open_loop(b) : closed_loop(b);
    b->own_share = (double)(own_cpu_ns() - cpu) / (double)(terse_now_ns() - start);
    if (code)
        return code;
    report(b);
    return b->mismatches || b->duplicates ? TERSE_CLI_FAILED : TERSE_CLI_DONE;
}

static void bench_done(bench *b)
{
    for (int i = 0; i < MAX_IO; i++)
        free(b->inputs[i].data);
    free(b->answered.ns);
    free(b->refused.ns);
    free(b->behind.ns);
    free(b->due_ns);
    for (uint32_t i = 0; b->places && i < b->n_free; i++)
        terse_request_free(b->places[i]);
    free(b->places);
    free(b->used);
    terse_reply_free(b->reference);
    terse_request_free(b->request);
    terse_npz_free(b->npz);
    terse_signature_free(b->signature);
    terse_client_close(b->client);
}

int terse_cli_bench(int argc, char **argv)
{
    bench b = {.concurrency = 1, .rows = 1, .seconds = 5, .warmup = 0.5, .seed = 1, .connect_ms = 5000};
    const terse_cli_usage usage = {
        "bench", "[-e ENDPOINT] MODEL [--concurrency C | --rate R]",
        "Measures latency and throughput of a running daemon. With --concurrency that many requests are\n"
        "always outstanding; with --rate they arrive at random (Poisson) moments, and a latency counts\n"
        "from the moment at which its request was due.",
        1, 1};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &b.endpoint, 0, 0,
         "the daemon's, or those of several, with commas between (default: $TERSE_ENDPOINT, else this host's)"},
        {"concurrency", 'c', TERSE_CLI_COUNT, "C", &b.concurrency, 1, 1 << 16,
         "closed loop with C outstanding (default 1)"},
        {"rate", 'r', TERSE_CLI_NUMBER, "R", &b.rate, 1e-3, 1e7, "open loop with R requests a second"},
        {"duration", 'd', TERSE_CLI_NUMBER, "S", &b.seconds, 0.01, 86400, "seconds measured (default 5)"},
        {"warmup", 0, TERSE_CLI_NUMBER, "S", &b.warmup, 0, 3600, "seconds before that (default 0.5)"},
        {"requests", 'n', TERSE_CLI_COUNT, "N", &b.requests, 1, 1e12, "send N requests instead, all measured"},
        {"rows", 0, TERSE_CLI_COUNT, "B", &b.rows, 1, 1 << 20, "rows in each request (default 1)"},
        {"input", 'i', TERSE_CLI_TEXT, "IN.npz", &b.input, 0, 0, "send these arrays (default: random ones)"},
        {"dim", 0, TERSE_CLI_TEXTS, "NAME=SIZE", &b.dims, 0, 0,
         "size of a free dimension of random inputs (default 1)"},
        {"seed", 0, TERSE_CLI_COUNT, "S", &b.seed, 1, 1e15, "of random inputs and arrivals (default 1)"},
        {"timeout-ms", 0, TERSE_CLI_COUNT, "T", &b.timeout_ms, 1, 1e9, "deadline of each request (default: none)"},
        {"retries", 0, TERSE_CLI_COUNT, "N", &b.retries, 0, 1e6,
         "how often a refused request comes again, when the daemon says so (default 0)"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &b.connect_ms, 1, 1e9, "how long to wait for a daemon (default 5000)"},
        {"shm", 0, TERSE_CLI_FLAG, NULL, &b.shm, 0, 0,
         "share memory with the daemon: tensors in place, requests through a ring"},
        {"spin-us", 0, TERSE_CLI_COUNT, "T", &b.spin_us, 0, 1e6,
         "with --shm: look for so long before sleeping (default 0)"},
        {"verify", 0, TERSE_CLI_FLAG, NULL, &b.verify, 0, 0,
         "compare every reply with the first, bit by bit; exit 1 if one differs or comes twice"},
        {"json", 0, TERSE_CLI_FLAG, NULL, &b.json, 0, 0, "print one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    const int parsed = terse_cli_parse(&usage, options, argc, argv, &b.model, &n);
    if (parsed >= 0)
        return parsed;
    const int code = bench_run(&b);
    bench_done(&b);
    return code;
}
