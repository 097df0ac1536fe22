/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes
 *   `word` says all that a thread must know before it takes a part: generation, how many threads may help, how many
 *   parts there are and the next one. Taking a part is one compare-and-swap on it. task and context are read only
 *   after that succeeded: the job cannot end before the part has, so they cannot change. A thread that comes late finds
 *   no part left, or a newer job, and does no harm.
 *   Sleeping: a thread counts itself a sleeper and then looks at `word` again; the caller stores `word` and then looks
 *   at the sleepers. Both orders are sequentially consistent, so one of them sees the other. */
#include "common/graph/threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

/* How long a thread spins for the next job before it sleeps, and a caller for the last part. */
enum { SPIN_NS = 60000, STACK_BYTES = 1 << 20 };

typedef struct helper {
    struct terse_threads *pool;
    pthread_t thread;
    int index; /* 1.. */
} helper;

struct terse_threads {
    _Alignas(64) _Atomic uint64_t word;
    _Alignas(64) _Atomic int done; /* parts of the job that are through */
    _Alignas(64) _Atomic int sleepers;
    _Atomic bool caller_sleeps, stop;
    terse_threads_task *task;
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t work, over;
    int n, started;
    helper helpers[];
};

/* generation 32 | limit 8 | parts 12 | next 12; a job has at most 4095 parts left to take. */
static uint64_t make_word(uint32_t generation, int limit, int parts)
{
    return (uint64_t)generation << 32 | (uint64_t)limit << 24 | (uint64_t)parts << 12;
}

static int limit_of(uint64_t word)
{
    return (int)(word >> 24 & 0xff);
}

static int left_of(uint64_t word)
{
    return (int)(word >> 12 & 0xfff) - (int)(word & 0xfff);
}

static void pause_a_moment(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Takes a part of the job if there is one for this thread and does it. */
static bool do_part(terse_threads *pool, int thread)
{
    uint64_t word = atomic_load_explicit(&pool->word, memory_order_acquire);
    do {
        if (left_of(word) <= 0 || thread >= limit_of(word))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&pool->word, &word, word + 1, memory_order_acq_rel,
                                                    memory_order_acquire));
    const int parts = (int)(word >> 12 & 0xfff);
    pool->task(pool->context, (int)(word & 0xfff), thread);
    if (atomic_fetch_add(&pool->done, 1) + 1 == parts && thread > 0 && atomic_load(&pool->caller_sleeps)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->over);
        pthread_mutex_unlock(&pool->lock);
    }
    return true;
}

static bool has_work(terse_threads *pool, int thread)
{
    const uint64_t word = atomic_load(&pool->word);
    return atomic_load(&pool->stop) || (left_of(word) > 0 && thread < limit_of(word));
}

static void sleep_for_work(terse_threads *pool, int thread)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!has_work(pool, thread))
        pthread_cond_wait(&pool->work, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *help(void *argument)
{
    const helper *self = argument;
    terse_threads *pool = self->pool;
    uint64_t since = terse_now_ns();
    while (!atomic_load(&pool->stop)) {
        bool worked = false;
        for (int i = 0; i < 64 && !worked; i++) {
            worked = do_part(pool, self->index);
            if (!worked)
                pause_a_moment();
        }
        if (worked) {
            since = terse_now_ns();
        } else if (terse_now_ns() - since > SPIN_NS) {
            sleep_for_work(pool, self->index);
            since = terse_now_ns();
        }
    }
    return NULL;
}

static bool start_helper(terse_threads *pool, int index)
{
    helper *self = &pool->helpers[index - 1];
    *self = (helper){.pool = pool, .index = index};
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    const bool started = pthread_create(&self->thread, &attributes, help, self) == 0;
    pthread_attr_destroy(&attributes);
    if (started)
        pthread_setname_np(self->thread, "terse-part");
    return started;
}

int terse_threads_new(int n, terse_threads **ret_threads, terse_error *error)
{
    if (n < 1 || n > TERSE_MAX_THREADS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%d threads, allowed are 1 to %d", n, TERSE_MAX_THREADS);
    const size_t bytes = terse_align(sizeof(terse_threads) + (size_t)n * sizeof(helper), 64);
    terse_threads *pool = aligned_alloc(64, bytes);
    if (!pool)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d threads", n);
    memset(pool, 0, bytes);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->over, NULL);
    pool->n = n;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->started < n - 1 && start_helper(pool, pool->started + 1))
        pool->started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->started < n - 1) {
        const int started = pool->started;
        terse_threads_free(pool);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "cannot start more than %d of %d threads", started + 1, n);
    }
    *ret_threads = pool;
    return TERSE_OK;
}

void terse_threads_free(terse_threads *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, true);
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->helpers[i].thread, NULL);
    pthread_cond_destroy(&pool->over);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void terse_threads_freep(terse_threads **threads)
{
    terse_threads_free(*threads);
}

int terse_threads_count(const terse_threads *threads)
{
    return threads->n;
}

/* Parts that others have taken and not done yet. */
static void wait_for_others(terse_threads *pool, int parts)
{
    const uint64_t start = terse_now_ns();
    while (atomic_load(&pool->done) < parts) {
        for (int i = 0; i < 64 && atomic_load_explicit(&pool->done, memory_order_acquire) < parts; i++)
            pause_a_moment();
        if (terse_now_ns() - start < SPIN_NS)
            continue;
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->caller_sleeps, true);
        while (atomic_load(&pool->done) < parts)
            pthread_cond_wait(&pool->over, &pool->lock);
        atomic_store(&pool->caller_sleeps, false);
        pthread_mutex_unlock(&pool->lock);
    }
}

void terse_threads_run(terse_threads *pool, int limit, int parts, terse_threads_task *task, void *context)
{
    limit = limit < pool->n ? limit : pool->n;
    if (limit <= 1 || parts <= 1) {
        for (int part = 0; part < parts; part++)
            task(context, part, 0);
        return;
    }
    pool->task = task;
    pool->context = context;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->word, make_word((uint32_t)(atomic_load(&pool->word) >> 32) + 1, limit, parts));
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->lock);
    }
    while (do_part(pool, 0))
        ;
    wait_for_others(pool, parts);
}
