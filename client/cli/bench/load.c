/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/bench/load.h"

#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/cli/bench/load_internal.h"
#include "common/bytes.h"
#include "common/turn.h"

/* GROUP: requests that are sent before replies are looked for, however many are due. HOPELESS: so many more may be
 * outstanding than the time says, for bursts. */
enum { WAKE_NS = 100000, GROUP = 512, HOPELESS = 256 };

typedef struct run {
    terse_load *load;
    const terse_load_plan *plan;
    terse_load_result *result;
    double rate;
    uint64_t measure_from_ns, end_ns, now_ns; /* now_ns: when the last reply was taken */
    uint64_t first_ns, last_ns;               /* of measured completions */
    uint64_t submitted, outstanding;
    unsigned next; /* connection */
    terse_error *error;
} run;

static int out_of_memory(const run *r)
{
    return terse_fail(r->error, TERSE_RESOURCE_EXHAUSTED, "out of memory for latencies");
}

static int client_failed(const run *r, terse_status status)
{
    return terse_fail(r->error, status, "%s", terse_last_error());
}

static bool stopped(const run *r)
{
    return r->plan->stop && *r->plan->stop;
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

static void note_first_error(terse_load_result *result, const char *text)
{
    if (!*result->first_error)
        snprintf(result->first_error, sizeof result->first_error, "%s", text);
}

/* A measured reply's latency and batch; false: out of memory. */
static bool count_reply(run *r, const terse_reply *reply, uint64_t ns)
{
    terse_load_result *to = r->result;
    const terse_status status = terse_reply_status(reply);
    if (status != TERSE_OK) {
        to->errors[(unsigned)status < TERSE_LOAD_STATUSES ? status : TERSE_INTERNAL]++;
        note_first_error(to, terse_reply_error(reply));
        return terse_latencies_add(&to->refused, ns);
    }
    uint32_t batch = 0;
    terse_reply_timing(reply, NULL, NULL, &batch);
    to->ok++;
    to->batch_sum += batch;
    to->in_batch[batch < TERSE_LOAD_BATCHES ? batch : TERSE_LOAD_BATCHES - 1]++;
    return terse_latencies_add(&to->answered, ns);
}

static int take_reply(run *r, load_connection *c, terse_reply *reply)
{
    terse_load *load = r->load;
    const uint64_t now = terse_now_ns();
    const size_t at = terse_reply_id(reply) % load->ring;
    const uint64_t due = c->due_ns[at];
    r->now_ns = now;
    r->result->replies++;
    if (due == 0) { /* answered before */
        r->result->duplicates++;
        terse_reply_free(reply);
        return TERSE_OK;
    }
    c->due_ns[at] = 0;
    r->outstanding--;
    bool kept = false, room = true;
    if (terse_reply_status(reply) == TERSE_OK && load->verify) {
        if (!load->reference) {
            load->reference = reply;
            kept = true;
        } else if (!same_outputs(load->reference, reply)) {
            r->result->mismatches++;
        }
    }
    if (due >= r->measure_from_ns) {
        if (!r->first_ns)
            r->first_ns = due;
        r->last_ns = now;
        room = count_reply(r, reply, now - due);
    }
    if (load->shm)
        c->places[c->n_free++] = c->used[at];
    if (!kept)
        terse_reply_free(reply);
    return room ? TERSE_OK : out_of_memory(r);
}

/* A submission that the library refuses is an answer too: it is counted by its status. */
static terse_status submit(run *r, load_connection *c, uint64_t due)
{
    const terse_load *load = r->load;
    uint64_t id = 0;
    terse_request *request = load->shm ? (c->n_free ? c->places[c->n_free - 1] : NULL) : load->request;
    const terse_status status = request ? terse_client_submit(c->client, request, &id) : TERSE_RESOURCE_EXHAUSTED;
    if (!status && load->shm) {
        c->used[id % load->ring] = request;
        c->n_free--;
    }
    if (due >= r->measure_from_ns)
        r->result->sent++;
    if (!status) {
        c->due_ns[id % load->ring] = due;
        r->outstanding++;
    } else if (due >= r->measure_from_ns) {
        r->result->errors[status]++;
        note_first_error(r->result,
                         request ? terse_last_error() : "no more places in shared memory for what is outstanding");
    }
    return status;
}

/* Takes all replies that are there; *ret_any (may be NULL) becomes true when there was one. Waits up to wait_ms (-1:
 * as long as it takes) for the first, which one connection can. */
static int take_replies(run *r, load_connection *c, int wait_ms, bool *ret_any)
{
    while (terse_client_outstanding(c->client) > 0) {
        terse_reply *reply = NULL;
        const terse_status polled = terse_client_poll(c->client, wait_ms, &reply);
        if (polled)
            return client_failed(r, polled);
        if (!reply)
            break;
        wait_ms = 0;
        if (ret_any)
            *ret_any = true;
        const int status = take_reply(r, c, reply);
        if (status)
            return status;
    }
    return TERSE_OK;
}

/* Waits for a reply on any connection, or until `until_ns`, at most a second. To wake for each of many requests and
 * replies would cost the daemon the processor that is to answer them: where they come closer than WAKE_NS they are sent
 * in small groups, each charged from when it was due, and replies are looked for as often. */
static void wait_readable(const run *r, uint64_t until_ns)
{
    const uint64_t now = terse_now_ns(), second = now + 1000000000u;
    if (until_ns <= now)
        return;
    if (r->rate * WAKE_NS > 1e9) {
        nanosleep(&(struct timespec){.tv_nsec = WAKE_NS}, NULL);
        return;
    }
    struct pollfd watched[TERSE_LOAD_CONNECTIONS];
    for (unsigned i = 0; i < r->load->n; i++)
        watched[i] = (struct pollfd){.fd = terse_client_fd(r->load->connections[i].client), .events = POLLIN};
    const uint64_t left = (until_ns < second ? until_ns : second) - now;
    const struct timespec wait = {(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
    ppoll(watched, r->load->n, &wait, NULL);
}

static bool all_sent(const run *r, uint64_t moment)
{
    return r->plan->requests ? r->submitted >= r->plan->requests : moment >= r->end_ns;
}

static int closed_loop(run *r)
{
    const unsigned n = r->load->n;
    const uint64_t c_each = r->plan->concurrency / n, c_more = r->plan->concurrency % n;
    uint64_t now = terse_now_ns();
    bool sending = true;
    while (sending || r->outstanding > 0) {
        bool any = false;
        if (stopped(r))
            return terse_fail(r->error, TERSE_CANCELLED, "interrupted");
        for (unsigned i = 0; i < n; i++) {
            load_connection *c = &r->load->connections[i];
            while (sending && terse_client_outstanding(c->client) < c_each + (i < c_more)) {
                if (all_sent(r, now)) {
                    sending = false;
                    break;
                }
                now = terse_now_ns();
                const terse_status status = submit(r, c, now);
                if (status)
                    return client_failed(r, status);
                r->submitted++;
            }
            /* Sent again as soon as one is there, not when all that are have been taken. */
            terse_reply *reply = NULL;
            if (terse_client_outstanding(c->client) == 0)
                continue;
            const terse_status polled = terse_client_poll(c->client, n == 1 ? -1 : 0, &reply);
            if (polled)
                return client_failed(r, polled);
            const int status = reply ? take_reply(r, c, reply) : TERSE_OK;
            if (status)
                return status;
            any = any || reply;
        }
        if (!any && n > 1)
            wait_readable(r, UINT64_MAX);
        now = any ? r->now_ns : terse_now_ns();
    }
    return TERSE_OK;
}

/* Sends what is due, up to GROUP of them; *due_ns is then when the next one is. */
static int send_due(run *r, terse_arrivals *arrivals, uint64_t start, uint64_t *due_ns, bool *ret_sending)
{
    const uint64_t now = terse_now_ns();
    for (int i = 0; *due_ns <= now && i < GROUP; i++) {
        if (all_sent(r, *due_ns)) {
            *ret_sending = false;
            break;
        }
        const uint64_t sent = terse_now_ns();
        if (r->plan->hopeless_s > 0 && sent > *due_ns && (double)(sent - *due_ns) > r->plan->hopeless_s * 1e9) {
            r->result->gave_up = true; /* this program cannot send so many */
            *ret_sending = false;
            break;
        }
        submit(r, &r->load->connections[r->next], *due_ns);
        r->submitted++;
        r->next = (r->next + 1) % r->load->n;
        if (*due_ns >= r->measure_from_ns &&
            !terse_latencies_add(&r->result->behind, sent > *due_ns ? sent - *due_ns : 0))
            return out_of_memory(r);
        *due_ns = start + (uint64_t)(terse_arrivals_next(arrivals) * 1e9);
    }
    return TERSE_OK;
}

static int open_loop(run *r)
{
    const uint64_t start = terse_now_ns();
    const double most = r->plan->hopeless_s > 0 ? HOPELESS + r->rate * r->plan->hopeless_s : INFINITY;
    terse_arrivals arrivals = terse_arrivals_begin(r->plan->traffic, r->plan->rate, r->plan->seed);
    uint64_t due = start + (uint64_t)(terse_arrivals_next(&arrivals) * 1e9);
    bool sending = true;
    while (sending || r->outstanding > 0) {
        bool any = false;
        int status = sending ? send_due(r, &arrivals, start, &due, &sending) : TERSE_OK;
        for (unsigned i = 0; !status && i < r->load->n; i++)
            status = take_replies(r, &r->load->connections[i], 0, &any);
        if (status)
            return status;
        if (stopped(r))
            return terse_fail(r->error, TERSE_CANCELLED, "interrupted");
        if (sending && (double)r->outstanding > most) {
            r->result->gave_up = true;
            sending = false;
        }
        if (!any)
            wait_readable(r, sending ? due : UINT64_MAX);
    }
    return TERSE_OK;
}

static uint64_t own_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t refused_here(const terse_load *load)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < load->n; i++)
        n += terse_client_throttled(load->connections[i].client);
    return n;
}

int terse_load_run(terse_load *load, const terse_load_plan *plan, terse_load_result *result, terse_error *error)
{
    terse_turn_short();
    const uint64_t here = refused_here(load);
    const uint64_t start = terse_now_ns(), cpu = own_cpu_ns();
    run r = {.load = load, .plan = plan, .result = result, .error = error};
    r.rate = plan->rate > 0 || !plan->traffic ? plan->rate : terse_traffic_rate(plan->traffic);
    r.measure_from_ns = start + (uint64_t)((plan->requests ? 0 : plan->warmup) * 1e9);
    r.end_ns = r.measure_from_ns + (uint64_t)(plan->seconds * 1e9);
    const int status = plan->traffic ? open_loop(&r) : closed_loop(&r);
    result->here += load->retries ? 0 : refused_here(load) - here; /* one that comes again is answered by the daemon */
    result->own_share = (double)(own_cpu_ns() - cpu) / (double)(terse_now_ns() - start);
    result->seconds += (double)(r.last_ns - r.first_ns) / 1e9;
    return status;
}

double terse_load_rate(const terse_load_result *result)
{
    return result->seconds > 0 ? (double)result->ok / result->seconds : 0;
}

double terse_load_batch(const terse_load_result *result)
{
    return result->ok ? (double)result->batch_sum / (double)result->ok : 0;
}

bool terse_load_join(terse_load_result *to, const terse_load_result *from)
{
    to->sent += from->sent;
    to->replies += from->replies;
    to->here += from->here;
    to->ok += from->ok;
    for (int i = 0; i < TERSE_LOAD_STATUSES; i++)
        to->errors[i] += from->errors[i];
    for (int i = 0; i < TERSE_LOAD_BATCHES; i++)
        to->in_batch[i] += from->in_batch[i];
    to->mismatches += from->mismatches;
    to->duplicates += from->duplicates;
    to->batch_sum += from->batch_sum;
    to->seconds += from->seconds;
    to->own_share = from->own_share;
    to->gave_up = to->gave_up || from->gave_up;
    if (*from->first_error)
        note_first_error(to, from->first_error);
    return terse_latencies_join(&to->answered, &from->answered) && terse_latencies_join(&to->refused, &from->refused) &&
           terse_latencies_join(&to->behind, &from->behind);
}

void terse_load_sort(terse_load_result *result)
{
    terse_latencies_sort(&result->answered);
    terse_latencies_sort(&result->refused);
    terse_latencies_sort(&result->behind);
}

void terse_load_done(terse_load_result *result)
{
    terse_latencies_done(&result->answered);
    terse_latencies_done(&result->refused);
    terse_latencies_done(&result->behind);
}
