/* SPDX-License-Identifier: Apache-2.0 */
/* threads.h: a few threads that wait to take parts of one job from the thread that has it.
 * Runs in: terse-worker, terse run. Ownership: whoever made the pool frees it; a job is over when the call returns.
 *
 * Parts are taken one by one, so a thread that the scheduler keeps away delays nothing that it has not begun. An idle
 * pool sleeps; for some microseconds after a job it spins, since the next one mostly follows at once. */
#ifndef TERSE_GRAPH_THREADS_H
#define TERSE_GRAPH_THREADS_H

#include "common/status.h"

enum { TERSE_MAX_THREADS = 64 };

typedef struct terse_threads terse_threads;

/* A pool of n threads, the caller counted: n - 1 are started, with all signals blocked. n is 1..TERSE_MAX_THREADS. */
int terse_threads_new(int n, terse_threads **ret_threads, terse_error *error);
void terse_threads_free(terse_threads *threads);
void terse_threads_freep(terse_threads **threads);
int terse_threads_count(const terse_threads *threads);

/* Calls task(context, part, thread) once for each part 0..parts-1 (at most 4096) on up to `limit` threads and waits for
 * all. `thread` is 0 (the caller) to limit - 1; two parts with the same number never run at once. One caller at a time.
 * A task must not call this again. */
typedef void terse_threads_task(void *context, int part, int thread);
void terse_threads_run(terse_threads *threads, int limit, int parts, terse_threads_task *task, void *context);

#endif
