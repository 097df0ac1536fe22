/* SPDX-License-Identifier: Apache-2.0 */
/* simulator.h: the front end's queue, batcher and admission in simulated time: requests come from a trace, workers are
 * numbers. What decides is the front end's own code; sockets, slots and processes are not there. */
#ifndef TERSE_TEST_SIMULATOR_H
#define TERSE_TEST_SIMULATOR_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/frontend/overload.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

enum { MAX_SIM_WORKERS = 8, MAX_SIM_MODELS = 2, MAX_SIM_CLIENTS = 4 };

typedef struct arrival {
    uint64_t at_ns, timeout_ns; /* timeout 0: none */
    uint32_t rows;
    uint8_t model, client, priority;
} arrival;

typedef struct trace {
    arrival *all;
    size_t n, capacity;
} trace;

/* A model in truth: what its batches take. */
typedef struct truth {
    uint64_t fixed_ns, row_ns;
    uint32_t max_batch;
    uint64_t timeout_ns;
    terse_objective objective;
} truth;

typedef enum policy { OURS, WAIT_FOR_TIMEOUT, PULL_PER_WORKER, N_POLICIES } policy;

typedef struct setup {
    policy policy;
    truth models[MAX_SIM_MODELS];
    uint32_t n_models, n_workers;
    double slowness[MAX_SIM_WORKERS];    /* 0: 1 */
    double jitter;                       /* batches take up to this part more or less */
    uint64_t slump_from_ns, slump_to_ns; /* all takes three times as long in between */
    double growth;                       /* times what was measured before anybody asked; 0: 1 */
} setup;

typedef struct tally {
    uint64_t offered, ok, refused, expired; /* expired: let in, but not answered in time */
    uint64_t late;                          /* answered OK behind their deadline */
    uint64_t rows;
    uint64_t *latencies;
    size_t n;
} tally;

typedef struct result {
    tally all, models[MAX_SIM_MODELS], clients[MAX_SIM_CLIENTS];
    uint64_t end_ns, batches, busy_ns, closed[TERSE_CLOSE_REASONS];
} result;

static inline double uniform(uint64_t *state) /* in (0, 1]: xorshift64* (Vigna 2016) */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)((*state * 0x2545f4914f6cdd1du >> 11) + 1) / 9007199254740992.0;
}

static inline uint64_t true_ns(const truth *model, uint32_t rows)
{
    return model->fixed_ns + model->row_ns * rows;
}

/* Rows a second that `workers` of them can do in batches of that size. */
static inline double capacity(const truth *model, uint32_t rows, uint32_t workers)
{
    return (double)workers * (double)rows * 1e9 / (double)true_ns(model, rows);
}

/* --- traces --------------------------------------------------------------------------------------------------- */

static inline void trace_add(trace *to, arrival one)
{
    if (to->n == to->capacity) {
        to->capacity = to->capacity ? 2 * to->capacity : 1024;
        to->all = realloc(to->all, to->capacity * sizeof *to->all);
        assert_non_null(to->all);
    }
    to->all[to->n++] = one;
}

static inline int compare_arrivals(const void *a, const void *b)
{
    const uint64_t x = ((const arrival *)a)->at_ns, y = ((const arrival *)b)->at_ns;
    return (x > y) - (x < y);
}

/* Adds arrivals like `one`, `rate` a second, at Poisson moments. */
static inline void trace_poisson(trace *to, uint64_t *seed, arrival one, double rate, uint64_t from_ns, uint64_t to_ns)
{
    double at = (double)from_ns;
    while ((at += -log(uniform(seed)) * 1e9 / rate) < (double)to_ns) {
        one.at_ns = (uint64_t)at;
        trace_add(to, one);
    }
    qsort(to->all, to->n, sizeof *to->all, compare_arrivals);
}

/* The same rate in bursts of so many at once. */
static inline void trace_bursts(trace *to, uint64_t *seed, arrival one, double rate, uint32_t burst, uint64_t to_ns)
{
    double at = 0;
    while ((at += -log(uniform(seed)) * burst * 1e9 / rate) < (double)to_ns)
        for (uint32_t i = 0; i < burst; i++) {
            one.at_ns = (uint64_t)at;
            trace_add(to, one);
        }
}

/* Twice the rate for half of each period, nothing in the other. */
static inline void trace_on_off(trace *to, uint64_t *seed, arrival one, double rate, uint64_t period_ns, uint64_t to_ns)
{
    for (uint64_t from = 0; from < to_ns; from += period_ns)
        trace_poisson(to, seed, one, 2 * rate, from, from + period_ns / 2);
}

/* --- what happened -------------------------------------------------------------------------------------------- */

static inline void count_ok(tally *of, uint64_t latency_ns, bool late)
{
    of->ok++;
    of->late += late;
    of->latencies[of->n++] = latency_ns;
}

static inline int compare_ns(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The latency that a part q of those that were answered OK do not pass. */
static inline uint64_t percentile(tally *of, double q)
{
    assert_true(of->n > 0);
    qsort(of->latencies, of->n, sizeof *of->latencies, compare_ns);
    size_t rank = (size_t)ceil(q * (double)of->n);
    return of->latencies[rank < 1 ? 0 : rank - 1];
}

static inline void result_init(result *of, size_t n)
{
    memset(of, 0, sizeof *of);
    tally *const tallies[] = {&of->all,        &of->models[0],  &of->models[1], &of->clients[0],
                              &of->clients[1], &of->clients[2], &of->clients[3]};
    for (size_t i = 0; i < sizeof tallies / sizeof tallies[0]; i++) {
        tallies[i]->latencies = calloc(n + 1, sizeof(uint64_t));
        assert_non_null(tallies[i]->latencies);
    }
}

static inline void result_done(result *of)
{
    free(of->all.latencies);
    for (int i = 0; i < MAX_SIM_MODELS; i++)
        free(of->models[i].latencies);
    for (int i = 0; i < MAX_SIM_CLIENTS; i++)
        free(of->clients[i].latencies);
}

static inline void answered_ok(result *of, const arrival *a, uint64_t now_ns)
{
    const uint64_t latency = now_ns - a->at_ns;
    const bool late = a->timeout_ns && latency > a->timeout_ns;
    of->end_ns = now_ns;
    count_ok(&of->all, latency, late);
    count_ok(&of->models[a->model], latency, late);
    count_ok(&of->clients[a->client], latency, late);
}

/* What a batch takes on a worker that begins now. */
static inline uint64_t batch_ns(const setup *how, uint32_t model, uint32_t worker, uint32_t rows, uint64_t now_ns,
                                uint64_t *seed)
{
    double ns = (double)true_ns(&how->models[model], rows);
    ns *= 1 + how->jitter * (2 * uniform(seed) - 1);
    if (how->slowness[worker] > 0)
        ns *= how->slowness[worker];
    if (now_ns >= how->slump_from_ns && now_ns < how->slump_to_ns)
        ns *= 3;
    if (how->growth > 0)
        ns *= how->growth;
    return (uint64_t)ns;
}

/* --- the front end -------------------------------------------------------------------------------------------- */

typedef struct sim {
    const setup *how;
    const trace *what;
    uint64_t *seed;
    result *result;
    terse_frontend *fe;
    terse_client clients[MAX_SIM_CLIENTS];
    terse_lane lanes[MAX_SIM_MODELS];
    uint64_t end_ns[MAX_SIM_WORKERS];
} sim;

static inline void sim_open(sim *s)
{
    terse_frontend *fe = s->fe = calloc(1, sizeof *fe);
    assert_non_null(fe);
    fe->arena = terse_arena_new();
    fe->workers = calloc(MAX_SIM_WORKERS, sizeof *fe->workers);
    fe->n_workers = s->how->n_workers;
    fe->queue_automatic = fe->client_automatic = true;
    fe->max_queue = fe->max_client_outstanding = 1000000;
    fe->max_queue_bytes = fe->max_client_bytes = fe->max_request_bytes = UINT64_MAX;
    for (uint32_t i = 0; i < fe->n_workers; i++)
        fe->workers[i].state = TERSE_POOL_IDLE;
    for (uint32_t m = 0; m < s->how->n_models; m++) {
        const truth *t = &s->how->models[m];
        terse_served *model = fe->models[m] = calloc(1, sizeof *model);
        assert_non_null(model);
        *model = (terse_served){.index = m,
                                .max_batch = t->max_batch,
                                .max_members = TERSE_MAX_BATCH,
                                .batch_timeout_ns = t->timeout_ns,
                                .objective = t->objective,
                                .batchable = true,
                                .lanes = &s->lanes[m]};
        s->lanes[m] = (terse_lane){.model = m, .share = &model->share};
        for (uint32_t rows = 1; rows <= t->max_batch; rows *= 2) /* as warming does */
            terse_cost_learn(&s->lanes[m].cost, rows, true_ns(t, rows));
    }
    fe->n_models = s->how->n_models;
    for (int i = 0; i < MAX_SIM_CLIENTS; i++)
        s->clients[i].gone = true; /* nothing is sent */
}

static inline void sim_close(sim *s)
{
    for (uint32_t m = 0; m < s->fe->n_models; m++)
        free(s->fe->models[m]);
    terse_queue_done(&s->fe->queue);
    terse_arena_free(s->fe->arena);
    free(s->fe->workers);
    free(s->fe);
}

static inline void sim_complete(sim *s, uint32_t index)
{
    terse_pool_worker *worker = &s->fe->workers[index];
    assert_true(worker->rows <= s->how->models[worker->lane->model].max_batch);
    const uint64_t took = s->fe->now_ns - worker->started_ns;
    terse_cost_learn(&worker->lane->cost, worker->rows, took);
    terse_share_correct(worker->lane->share, worker->expected_ns, took);
    s->result->batches++;
    s->result->busy_ns += took;
    s->result->all.rows += worker->rows;
    for (uint32_t i = 0; i < worker->n_members; i++) {
        if (!worker->members[i]->answered)
            answered_ok(s->result, &s->what->all[worker->members[i]->id], s->fe->now_ns);
        terse_request_free(s->fe, worker->members[i]);
    }
    worker->n_members = worker->rows = 0;
    worker->state = TERSE_POOL_IDLE;
}

static inline void sim_dispatch(sim *s)
{
    terse_frontend *fe = s->fe;
    fe->hold_ns = UINT64_MAX;
    for (uint32_t i = 0; i < fe->n_workers; i++) {
        terse_pool_worker *worker = &fe->workers[i];
        while (worker->state == TERSE_POOL_IDLE && fe->queue.n_requests > 0) {
            terse_batcher_reason reason = TERSE_CLOSE_REASONS;
            const terse_chosen chosen = terse_choose_batch(fe, worker, &reason);
            if (chosen == TERSE_CHOSEN_NOTHING)
                return;
            if (chosen == TERSE_CHOSEN_AGAIN)
                continue;
            s->result->closed[reason]++;
            worker->expected_ns = terse_cost_of(&worker->lane->cost, worker->rows);
            terse_share_charge(worker->lane->share, &fe->queue.clock_ns, worker->expected_ns);
            worker->state = TERSE_POOL_RUNNING;
            worker->started_ns = fe->now_ns;
            s->end_ns[i] = fe->now_ns + batch_ns(s->how, worker->lane->model, i, worker->rows, fe->now_ns, s->seed);
        }
    }
}

static inline void sim_arrive(sim *s, size_t index)
{
    const arrival *a = &s->what->all[index];
    terse_frontend *fe = s->fe;
    terse_client *client = &s->clients[a->client];
    terse_error error;
    terse_overload_request asked = {.rows = a->rows,
                                    .priority = a->priority,
                                    .bytes = 1,
                                    .deadline_ns = a->timeout_ns ? a->at_ns + a->timeout_ns : TERSE_NO_DEADLINE};
    terse_lane *lane = &s->lanes[a->model];
    if (terse_overload_check(fe, client, fe->models[a->model], lane, &asked, &error)) {
        s->result->all.refused++;
        s->result->models[a->model].refused++;
        s->result->clients[a->client].refused++;
        return;
    }
    terse_request *request = terse_request_new(fe);
    request->id = index;
    request->arrival_ns = request->queued_ns = fe->now_ns;
    request->deadline_ns = asked.deadline_ns;
    request->work_ns = asked.work_ns;
    request->reckoned_ns = asked.reckoned_ns;
    request->rows = a->rows;
    request->priority = a->priority;
    request->lane = lane;
    lane->n_users++;
    assert_true(terse_queue_deadline_add(&fe->queue, request));
    terse_client_join(&fe->clients, client, request);
    terse_queue_push(&fe->queue, request);
}

static inline uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline void simulate_ours(sim *s)
{
    sim_open(s);
    terse_frontend *fe = s->fe;
    fe->hold_ns = UINT64_MAX;
    for (size_t next = 0;;) {
        uint64_t now = next < s->what->n ? s->what->all[next].at_ns : UINT64_MAX;
        for (uint32_t i = 0; i < fe->n_workers; i++)
            if (fe->workers[i].state == TERSE_POOL_RUNNING)
                now = earlier(now, s->end_ns[i]);
        const terse_request *first = terse_queue_deadline_first(&fe->queue);
        now = earlier(now, earlier(fe->hold_ns, first ? first->deadline_ns : UINT64_MAX));
        if (now == UINT64_MAX)
            break;
        fe->now_ns = now;
        for (uint32_t i = 0; i < fe->n_workers; i++)
            if (fe->workers[i].state == TERSE_POOL_RUNNING && s->end_ns[i] <= now)
                sim_complete(s, i);
        terse_request_expire(fe);
        while (next < s->what->n && s->what->all[next].at_ns <= now)
            sim_arrive(s, next++);
        sim_dispatch(s);
    }
    assert_int_equal(fe->n_live, 0);
    assert_int_equal(fe->queue.n_requests, 0);
    sim_close(s);
}

/* --- what others do ------------------------------------------------------------------------------------------- */

typedef struct line {
    size_t *all, first, last;
} line;

/* Takes whole requests from a line, max_batch rows at most. */
static inline uint32_t take_batch(const sim *s, line *from, size_t *members, uint32_t *ret_n)
{
    uint32_t rows = 0, n = 0;
    for (; from->first < from->last; from->first++) {
        const arrival *a = &s->what->all[from->all[from->first]];
        if (n > 0 && rows + a->rows > s->how->models[0].max_batch)
            break;
        members[n++] = from->all[from->first];
        rows += a->rows;
    }
    *ret_n = n;
    return rows;
}

/* One model, nothing refused. WAIT_FOR_TIMEOUT: one line; a batch begins when it is full or the oldest has waited for
 * timeout_ns. PULL_PER_WORKER: requests are dealt in turn to a line for each worker, which takes what stands there. */
static inline void simulate_others(sim *s)
{
    const bool waits = s->how->policy == WAIT_FOR_TIMEOUT;
    const truth *model = &s->how->models[0];
    const uint32_t n_workers = s->how->n_workers, n_lines = waits ? 1 : n_workers;
    line lines[MAX_SIM_WORKERS] = {{0}};
    size_t *members[MAX_SIM_WORKERS];
    uint32_t n_members[MAX_SIM_WORKERS] = {0};
    for (uint32_t i = 0; i < n_workers; i++) {
        members[i] = calloc(model->max_batch, sizeof(size_t));
        lines[i].all = calloc(s->what->n + 1, sizeof(size_t));
        assert_true(members[i] && lines[i].all);
    }
    uint64_t hold = UINT64_MAX;
    for (size_t next = 0;;) {
        uint64_t now = earlier(hold, next < s->what->n ? s->what->all[next].at_ns : UINT64_MAX);
        for (uint32_t i = 0; i < n_workers; i++)
            now = n_members[i] ? earlier(now, s->end_ns[i]) : now;
        if (now == UINT64_MAX)
            break;
        for (uint32_t i = 0; i < n_workers; i++)
            if (n_members[i] && s->end_ns[i] <= now) {
                for (uint32_t k = 0; k < n_members[i]; k++)
                    answered_ok(s->result, &s->what->all[members[i][k]], now);
                n_members[i] = 0;
            }
        for (; next < s->what->n && s->what->all[next].at_ns <= now; next++) {
            line *to = &lines[next % n_lines];
            to->all[to->last++] = next;
        }
        hold = UINT64_MAX;
        for (uint32_t i = 0; i < n_workers; i++) {
            line *from = &lines[waits ? 0 : i];
            if (n_members[i] || from->first == from->last)
                continue;
            const uint64_t until = s->what->all[from->all[from->first]].at_ns + model->timeout_ns;
            if (waits && now < until && from->last - from->first < model->max_batch) {
                hold = until;
                continue;
            }
            const uint32_t rows = take_batch(s, from, members[i], &n_members[i]);
            const uint64_t took = batch_ns(s->how, 0, i, rows, now, s->seed);
            s->end_ns[i] = now + took;
            s->result->batches++;
            s->result->busy_ns += took;
            s->result->all.rows += rows;
        }
    }
    for (uint32_t i = 0; i < n_workers; i++) {
        free(members[i]);
        free(lines[i].all);
    }
}

/* Plays a trace to its end; result_done frees what it gives. */
static inline void simulate(const setup *how, const trace *what, uint64_t seed, result *ret_result)
{
    static sim s;
    memset(&s, 0, sizeof s);
    s.how = how;
    s.what = what;
    s.seed = &seed;
    s.result = ret_result;
    result_init(ret_result, what->n);
    if (how->policy == OURS)
        simulate_ours(&s);
    else
        simulate_others(&s);
    for (size_t i = 0; i < what->n; i++) {
        ret_result->all.offered++;
        ret_result->models[what->all[i].model].offered++;
        ret_result->clients[what->all[i].client].offered++;
    }
    ret_result->all.expired = ret_result->all.offered - ret_result->all.ok - ret_result->all.refused;
}

#endif
