/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/asker.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "client/gateway/row.h"
#include "client/gateway/several.h"
#include "common/bytes.h"

enum {
    MAX_WAITING = 512,       /* questions */
    CONNECT_MS = 1000,       /* for a daemon, before those who wait are told that there is none */
    PAUSE_MS = 200,          /* between two tries to find one */
    MAX_OUTSTANDING = 65536, /* the gateway's own limit is below */
};

struct terse_asker {
    const terse_gateway_options *options;
    int wake_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    terse_row questions, answers;
    terse_client *client, *for_inferences; /* the first is the thread's alone */
    terse_share *share;                    /* of the second */
    terse_live *live;                      /* the thread's alone */
    terse_several *several;                /* likewise; NULL where there is one daemon */
    uint64_t look_ns;                      /* when the next look is due */
    bool ends;
};

static void ring(const terse_asker *asker)
{
    const uint64_t one = 1;
    if (write(asker->wake_fd, &one, sizeof one) < 0) {
        /* full: it is rung already */
    }
}

static terse_client *open_client(const terse_asker *asker)
{
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    options.endpoint = asker->options->endpoint;
    options.connect_timeout_ms = CONNECT_MS;
    options.reconnect_timeout_ms = (uint32_t)asker->options->reconnect_ms;
    options.max_outstanding = MAX_OUTSTANDING;
    terse_client *client = NULL;
    return terse_client_open(&options, &client) == TERSE_OK ? client : NULL;
}

/* Both clients, or none. */
static void find_daemon(terse_asker *asker)
{
    terse_client *other = NULL;
    if (asker->client || !(asker->client = open_client(asker)))
        return;
    if (!(other = open_client(asker))) {
        terse_client_close(asker->client);
        asker->client = NULL;
        return;
    }
    terse_share *share = terse_share_new(other);
    pthread_mutex_lock(&asker->lock);
    asker->for_inferences = other;
    asker->share = share;
    pthread_mutex_unlock(&asker->lock);
    ring(asker);
}

static void give_back(terse_asker *asker, terse_exchange *exchange)
{
    pthread_mutex_lock(&asker->lock);
    terse_row_put(&asker->answers, exchange);
    pthread_mutex_unlock(&asker->lock);
    ring(asker);
}

/* Whoever waits behind a question that found no daemon would find none either. */
static void refuse_all(terse_asker *asker, const char *why)
{
    pthread_mutex_lock(&asker->lock);
    for (terse_exchange *exchange; (exchange = terse_row_take(&asker->questions));) {
        terse_answer_error(&exchange->answer, TERSE_UNAVAILABLE, -1, why);
        terse_row_put(&asker->answers, exchange);
    }
    pthread_mutex_unlock(&asker->lock);
    ring(asker);
}

/* Needs no daemon that answers for all. */
static void answer_several(terse_asker *asker, terse_exchange *exchange)
{
    terse_error error = {0};
    const terse_status status = terse_several_metrics(asker->several, &exchange->answer, &error);
    if (status)
        terse_answer_error(&exchange->answer, status, -1, error.message);
    give_back(asker, exchange);
}

static void answer(terse_asker *asker, terse_exchange *exchange)
{
    if (asker->several && exchange->route.kind == TERSE_ROUTE_METRICS) {
        answer_several(asker, exchange);
        return;
    }
    find_daemon(asker);
    if (!asker->client) {
        terse_answer_error(&exchange->answer, TERSE_UNAVAILABLE, -1, terse_last_error());
        give_back(asker, exchange);
        refuse_all(asker, terse_last_error());
        return;
    }
    const terse_status status = terse_about(asker->client, asker->live, &exchange->route, &exchange->answer);
    give_back(asker, exchange);
    if (status == TERSE_DEADLINE_EXCEEDED)
        refuse_all(asker, "the daemon does not answer");
}

/* Every few seconds, for the page. */
static void look(terse_asker *asker)
{
    const uint64_t now = terse_now_ns();
    terse_view *view = NULL;
    if (now < asker->look_ns)
        return;
    asker->look_ns = now + asker->options->step_s * UINT64_C(1000000000);
    terse_live_take(asker->live,
                    asker->client && terse_about_view(asker->client, &view, NULL) == TERSE_OK ? view : NULL);
}

/* A question, or NULL after a while without one. */
static terse_exchange *next(terse_asker *asker, bool *ret_ends)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const uint64_t ns = (uint64_t)until.tv_nsec + PAUSE_MS * 1000000u;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_mutex_lock(&asker->lock);
    if (!asker->ends && !asker->questions.first)
        pthread_cond_timedwait(&asker->changed, &asker->lock, &until);
    terse_exchange *exchange = asker->ends ? NULL : terse_row_take(&asker->questions);
    *ret_ends = asker->ends;
    pthread_mutex_unlock(&asker->lock);
    return exchange;
}

static void *run(void *user)
{
    terse_asker *asker = user;
    for (bool ends = false; !ends;) {
        terse_exchange *exchange = next(asker, &ends);
        if (exchange)
            answer(asker, exchange);
        else if (!ends)
            find_daemon(asker);
        if (!ends)
            look(asker);
    }
    refuse_all(asker, "the gateway ends");
    terse_client_close(asker->client);
    asker->client = NULL;
    return NULL;
}

int terse_asker_start(const terse_gateway_options *options, int wake_fd, terse_asker **ret_asker, terse_error *error)
{
    pthread_condattr_t monotonic;
    terse_asker *asker = calloc(1, sizeof *asker);
    if (asker && !(asker->live = terse_live_new((unsigned)options->step_s)))
        free(TERSE_TAKE(asker));
    if (!asker)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    const char *endpoints = options->endpoint ? options->endpoint : terse_default_endpoint();
    if (terse_several_new(endpoints, &asker->several, error) != TERSE_OK) {
        terse_live_free(asker->live);
        free(asker);
        return error->status;
    }
    asker->options = options;
    asker->wake_fd = wake_fd;
    pthread_mutex_init(&asker->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&asker->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&asker->thread, NULL, run, asker) != 0) {
        terse_live_free(asker->live);
        terse_several_free(asker->several);
        free(asker);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "cannot start a thread");
    }
    *ret_asker = asker;
    return TERSE_OK;
}

void terse_asker_stop(terse_asker *asker)
{
    pthread_mutex_lock(&asker->lock);
    asker->ends = true;
    pthread_cond_signal(&asker->changed);
    pthread_mutex_unlock(&asker->lock);
    pthread_join(asker->thread, NULL);
}

void terse_asker_free(terse_asker *asker)
{
    terse_share_free(asker->share);
    terse_client_close(asker->for_inferences);
    terse_live_free(asker->live);
    terse_several_free(asker->several);
    pthread_cond_destroy(&asker->changed);
    pthread_mutex_destroy(&asker->lock);
    free(asker);
}

bool terse_asker_ask(terse_asker *asker, terse_exchange *exchange)
{
    pthread_mutex_lock(&asker->lock);
    const bool room = asker->questions.n < MAX_WAITING && !asker->ends;
    if (room)
        terse_row_put(&asker->questions, exchange);
    pthread_cond_signal(&asker->changed);
    pthread_mutex_unlock(&asker->lock);
    return room;
}

terse_exchange *terse_asker_take(terse_asker *asker)
{
    pthread_mutex_lock(&asker->lock);
    terse_exchange *exchange = terse_row_take(&asker->answers);
    pthread_mutex_unlock(&asker->lock);
    return exchange;
}

terse_client *terse_asker_take_client(terse_asker *asker, terse_share **ret_share)
{
    pthread_mutex_lock(&asker->lock);
    terse_client *client = TERSE_TAKE(asker->for_inferences);
    *ret_share = TERSE_TAKE(asker->share);
    pthread_mutex_unlock(&asker->lock);
    return client;
}
