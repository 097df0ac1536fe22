/* SPDX-License-Identifier: Apache-2.0 */
/* One thread, in the order they came: two would take the second core from the workers, which is where time is well
 * spent; and only one body at a time is unpacked. */
#include "client/gateway/aside.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/gateway/row.h"
#include "client/gateway/work.h"

struct terse_aside {
    int wake_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    terse_row todo, done;
    bool ends;
};

static void ring(const terse_aside *aside)
{
    const uint64_t one = 1;
    if (write(aside->wake_fd, &one, sizeof one) < 0) {
        /* full: it is rung already */
    }
}

/* The next one, waiting for it; NULL when it is time to end. */
static terse_exchange *next(terse_aside *aside)
{
    pthread_mutex_lock(&aside->lock);
    while (!aside->ends && !aside->todo.first)
        pthread_cond_wait(&aside->changed, &aside->lock);
    terse_exchange *exchange = aside->ends ? NULL : terse_row_take(&aside->todo);
    pthread_mutex_unlock(&aside->lock);
    return exchange;
}

static void *run(void *user)
{
    terse_aside *aside = user;
    for (terse_exchange *exchange; (exchange = next(aside));) {
        if (exchange->reply)
            terse_work_write(exchange);
        else
            terse_work_read(exchange, NULL);
        pthread_mutex_lock(&aside->lock);
        terse_row_put(&aside->done, exchange);
        pthread_mutex_unlock(&aside->lock);
        ring(aside);
    }
    return NULL;
}

int terse_aside_start(int wake_fd, terse_aside **ret_aside, terse_error *error)
{
    terse_aside *aside = calloc(1, sizeof *aside);
    if (!aside)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    aside->wake_fd = wake_fd;
    pthread_mutex_init(&aside->lock, NULL);
    pthread_cond_init(&aside->changed, NULL);
    if (pthread_create(&aside->thread, NULL, run, aside) != 0) {
        free(aside);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "cannot start a thread");
    }
    *ret_aside = aside;
    return TERSE_OK;
}

void terse_aside_stop(terse_aside *aside)
{
    pthread_mutex_lock(&aside->lock);
    aside->ends = true;
    pthread_cond_signal(&aside->changed);
    pthread_mutex_unlock(&aside->lock);
    pthread_join(aside->thread, NULL);
    for (terse_exchange *exchange; (exchange = terse_row_take(&aside->todo));) {
        terse_answer_error(&exchange->answer, TERSE_UNAVAILABLE, -1, "the gateway ends");
        terse_row_put(&aside->done, exchange);
    }
}

void terse_aside_free(terse_aside *aside)
{
    pthread_cond_destroy(&aside->changed);
    pthread_mutex_destroy(&aside->lock);
    free(aside);
}

void terse_aside_give(terse_aside *aside, terse_exchange *exchange)
{
    pthread_mutex_lock(&aside->lock);
    terse_row_put(&aside->todo, exchange);
    pthread_cond_signal(&aside->changed);
    pthread_mutex_unlock(&aside->lock);
}

terse_exchange *terse_aside_take(terse_aside *aside)
{
    pthread_mutex_lock(&aside->lock);
    terse_exchange *exchange = terse_row_take(&aside->done);
    pthread_mutex_unlock(&aside->lock);
    return exchange;
}
