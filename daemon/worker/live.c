/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/worker/worker.h"

/* Design notes
 *   A worker that serves takes a new model, and lets go of an old one, in pieces of SLICE_NS, and begins one only when
 * no batch is there: so nobody waits for longer than that because of it. After a piece it rests for RESTS times as
 * long: a process that is always ready to run is scheduled as one, a whole tick (4 ms) at a time, and the front end and
 * clients on its core would wait for that. Filling the page tables of a model of 200 MB in small
 * pages takes 25 ms in all, and taking them down 10: a quarter of a second with the rests. In large ones (pages.h) it
 * is nothing. Whether the model runs at all was found out on trial (trial.c). Here its plans are made, and where a row
 * is quick it runs once, so that no first request has to wait for that. A mapping is given up before the answer, not
 * after: whoever hears that a model is unloaded may count on it. */
#define SLICE_NS UINT64_C(50000)
#define LONG_NS UINT64_C(1000000) /* a plan may take longer: no reason to rest for seconds */
#define QUICK_NS UINT64_C(2000000)
enum { STEP_BYTES = 128 << 10, RESTS = 9 };

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static void tell(const terse_worker *worker, terse_msg_kind kind, uint32_t model, uint64_t serial, int status,
                 const terse_error *error)
{
    terse_msg_model_state message = {
        .head = {kind, sizeof message}, .model = model, .serial = serial, .status = status};
    if (status)
        snprintf(message.error, sizeof message.error, "%s", error->message);
    if (worker->data_fd >= 0 && !terse_msg_send(worker->data_fd, &message, sizeof message, NULL, 0) && errno != EPIPE &&
        errno != ECONNRESET) {
        terse_log(TERSE_LOG_ERROR, "cannot tell the front end of model number %" PRIu32 ": %s", model, strerror(errno));
        _exit(1); /* it would wait for that word for ever */
    }
}

/* --- leaving --------------------------------------------------------------------------------------------------- */

/* serial 0: nobody waits for it. */
static void let_go(terse_worker *worker, uint32_t index, uint64_t serial)
{
    terse_worker_model *served = &worker->models[index];
    terse_worker_leaving leaving = {served->base, served->bytes, index, serial};
    if (worker->stage != TERSE_STAGE_NONE && worker->warming == index)
        worker->stage = TERSE_STAGE_NONE;
    terse_worker_close_model(served);
    if (worker->n_leaving < TERSE_WORKER_LEAVING) {
        worker->leaving[worker->n_leaving++] = leaving;
        return;
    }
    munmap(leaving.base, leaving.bytes);
    if (serial)
        tell(worker, TERSE_MSG_UNLOADED, index, serial, TERSE_OK, NULL);
}

void terse_worker_live_drop(terse_worker *worker, const terse_msg_model_state *which)
{
    const uint32_t index = which->model;
    if (index < TERSE_MODEL_SLOTS && worker->models[index].base && worker->models[index].serial == which->serial)
        let_go(worker, index, which->serial);
    else
        tell(worker, TERSE_MSG_UNLOADED, index, which->serial, TERSE_OK, NULL);
}

/* From the end: the pieces behind are gone before those in front, and `base` stays what is to be unmapped last. */
static void unmap_step(terse_worker *worker)
{
    terse_worker_leaving *leaving = &worker->leaving[0];
    const size_t rest = leaving->bytes % STEP_BYTES, step = rest ? rest : STEP_BYTES;
    if (leaving->bytes > step) {
        leaving->bytes -= step;
        munmap(leaving->base + leaving->bytes, step);
        return;
    }
    munmap(leaving->base, leaving->bytes);
    const terse_worker_leaving done = *leaving;
    memmove(leaving, leaving + 1, --worker->n_leaving * sizeof *leaving);
    if (done.serial)
        tell(worker, TERSE_MSG_UNLOADED, done.model, done.serial, TERSE_OK, NULL);
}

/* --- coming ---------------------------------------------------------------------------------------------------- */

void terse_worker_live_take(terse_worker *worker, const terse_msg_model *message, int fd)
{
    terse_error error;
    if (message->model >= TERSE_MODEL_SLOTS) {
        terse_log(TERSE_LOG_ERROR, "model number %" PRIu32 " is beyond %d", message->model, TERSE_MODEL_SLOTS);
        return;
    }
    if (worker->stage != TERSE_STAGE_NONE) /* the front end asks for one at a time: it has lost interest in that */
        let_go(worker, worker->warming, 0);
    if (worker->models[message->model].base)
        let_go(worker, message->model, 0);
    if (!terse_worker_open_model(worker, message, fd, &error)) {
        tell(worker, TERSE_MSG_MODEL_WARMED, message->model, message->serial, error.status, &error);
        return;
    }
    worker->stage = TERSE_STAGE_PAGES;
    worker->warming = message->model;
    worker->populated = 0;
    worker->trial_ns = message->n_costs ? message->costs[0].ns : 0;
}

void terse_worker_live_abandon(terse_worker *worker)
{
    if (worker->stage != TERSE_STAGE_NONE)
        let_go(worker, worker->warming, 0);
    for (uint32_t i = 0; i < worker->n_leaving; i++)
        worker->leaving[i].serial = 0;
}

static void populate_step(terse_worker *worker)
{
    const terse_worker_model *served = &worker->models[worker->warming];
    uint8_t *at = (uint8_t *)served->base + worker->populated;
    const size_t left = served->bytes - worker->populated, step = left < STEP_BYTES ? left : STEP_BYTES;
    if (step > 0 && madvise(at, step, MADV_POPULATE_READ) < 0) /* a kernel that does not know it */
        for (size_t i = 0; i < step; i += 4096)
            (void)*(volatile const uint8_t *)(at + i);
    worker->populated += step;
    if (worker->populated == served->bytes)
        worker->stage = TERSE_STAGE_PLAN;
}

static void plan_step(terse_worker *worker)
{
    terse_error error;
    const uint32_t index = worker->warming;
    terse_worker_model *served = &worker->models[index];
    const bool quick = worker->trial_ns > 0 && worker->trial_ns <= QUICK_NS;
    const int64_t most = served->model->graph->batchable && served->max_batch > 1 ? served->max_batch : 1;
    served->warmed = true;
    if (worker->threads && terse_engine_use_threads(served->engine, worker->threads, (int)served->threads, &error))
        terse_log(TERSE_LOG_WARNING, "%s", error.message);
    int status = terse_worker_plan(worker, index, 1, quick, &error);
    if (!status && most > 1) /* what it lacks the batch will say that is so large */
        (void)terse_worker_plan(worker, index, most, false, &(terse_error){0});
    worker->stage = TERSE_STAGE_NONE;
    const uint64_t serial = served->serial;
    if (status)
        let_go(worker, index, 0);
    tell(worker, TERSE_MSG_MODEL_WARMED, index, serial, status, &error);
}

static bool is_busy(const terse_worker *worker)
{
    return worker->stage != TERSE_STAGE_NONE || worker->n_leaving > 0;
}

uint64_t terse_worker_live_due_ns(const terse_worker *worker)
{
    return is_busy(worker) ? worker->live_due_ns : UINT64_MAX;
}

void terse_worker_live_step(terse_worker *worker)
{
    const uint64_t start = terse_now_ns();
    uint64_t now;
    do {
        if (worker->n_leaving > 0)
            unmap_step(worker);
        else if (worker->stage == TERSE_STAGE_PAGES)
            populate_step(worker);
        else if (worker->stage == TERSE_STAGE_PLAN)
            plan_step(worker);
        now = terse_now_ns();
    } while (is_busy(worker) && worker->stage != TERSE_STAGE_PLAN && now - start < SLICE_NS);
    const uint64_t took = now - start < LONG_NS ? now - start : LONG_NS;
    worker->live_due_ns = now + RESTS * took;
}
