/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "daemon/frontend/frontend.h"

/* Design notes
 *   Every worker that may get batches holds every model that is not PENDING: so dispatch need not ask. `held` has what
 * a worker said that it holds, by serial; feed() sends what is missing and takes away what is surplus, one of each at
 * a time, and a worker becomes idle for the first time when nothing is missing. Whoever restarts, and whatever was in
 * between, that comparison brings about what ought to be.
 *   A PENDING model goes to one worker after the other. A worker warms it between its batches in pieces
 * (worker/live.c), so it stays in service meanwhile. When all have it the name switches: one pointer's meaning, between
 * two requests. The old one drains: its requests stay in their lanes and run. When the last is answered workers let go
 * of it, each answers UNLOADED, and then we and at last the supervisor close its memory. A worker that dies while it
 * warms a pending model by a fault of its own ends that load; one that somebody else kills costs it a time, the third
 * is the last (the OOM killer asks again and again). */
enum { MOST_DEATHS = 3 };

static void tell(terse_frontend *fe, terse_msg_kind kind, const terse_served *model, terse_status status,
                 const char *why)
{
    terse_msg_model_state message = {
        .head = {kind, sizeof message}, .model = model->index, .serial = model->serial, .status = status};
    snprintf(message.error, sizeof message.error, "%.511s", why);
    terse_control_send(fe, &message, sizeof message);
}

static bool holds(const terse_pool_worker *worker, const terse_served *model)
{
    return worker->held[model->index] == model->serial;
}

static bool in_service(const terse_pool_worker *worker)
{
    return worker->fd >= 0 && (worker->state == TERSE_POOL_IDLE || worker->state == TERSE_POOL_RUNNING);
}

static void forget(terse_frontend *fe, terse_served *model)
{
    fe->models[model->index] = NULL;
    terse_served_close(model);
    fe->models_moved = true;
}

/* A pending model ends. Workers that have it let go of it in time; nobody waits for that. */
static void fail(terse_frontend *fe, terse_served *model, terse_status status, const char *why)
{
    tell(fe, TERSE_MSG_MODEL_FAILED, model, status, why);
    forget(fe, model);
}

/* --- what the supervisor wants --------------------------------------------------------------------------------- */

/* What others measured is worth more than nothing, and less than any batch that was served. */
static void learn(terse_frontend *fe, terse_served *model)
{
    terse_lane *lane = model->message.n_costs ? terse_served_plain_lane(model, fe->now_ns) : NULL;
    for (uint32_t i = 0; lane && i < model->message.n_costs && i < TERSE_WARM_COSTS; i++)
        terse_cost_learn(&lane->cost, (uint32_t)model->message.costs[i].rows,
                         model->message.costs[i].ns + TERSE_BATCHER_WAKE_NS);
}

void terse_reload_take(terse_frontend *fe, const terse_msg_model *message, int *fd)
{
    terse_error error = {0};
    terse_served *model = NULL;
    if (message->model >= TERSE_MODEL_SLOTS || fe->models[message->model])
        terse_fail(&error, TERSE_INTERNAL, "model number %" PRIu32 " is there already or beyond %d", message->model,
                   TERSE_MODEL_SLOTS);
    else
        terse_served_open(message, *fd, &model, &error);
    if (!model && !message->pending) { /* it served before: the next front end may have room for it */
        terse_control_give_up(fe, "%s", error.message);
        return;
    }
    if (!model) {
        terse_log(TERSE_LOG_ERROR, "%s", error.message);
        const terse_served refused = {.index = message->model, .serial = message->serial};
        tell(fe, TERSE_MSG_MODEL_FAILED, &refused, error.status, error.message);
        return;
    }
    *fd = -1;
    fe->models[message->model] = model;
    if (message->model >= fe->n_models)
        fe->n_models = message->model + 1;
    fe->models_moved = true;
    learn(fe, model);
    if (!message->pending)
        terse_stats_mark(&model->recent, &model->stats, terse_now_ns());
}

static terse_served *find(const terse_frontend *fe, uint32_t index, uint64_t serial)
{
    terse_served *model = index < TERSE_MODEL_SLOTS ? fe->models[index] : NULL;
    return model && model->serial == serial ? model : NULL;
}

void terse_reload_limit(terse_frontend *fe, const terse_msg_model *message)
{
    terse_served *model = find(fe, message->model, message->serial);
    if (model)
        terse_served_limit(model, message);
}

void terse_reload_drop(terse_frontend *fe, const terse_msg_model_state *message)
{
    terse_served *model = find(fe, message->model, message->serial);
    if (!model || model->state != TERSE_SERVED_PENDING)
        return; /* it serves by now, and that has been told */
    tell(fe, TERSE_MSG_MODEL_GONE, model, TERSE_OK, "");
    forget(fe, model);
}

static void drain(terse_frontend *fe, terse_served *model)
{
    model->state = TERSE_SERVED_DRAINING;
    fe->models_moved = true;
    fe->models_drain = true;
}

void terse_reload_drain(terse_frontend *fe, const terse_msg_model_state *message)
{
    terse_served *model = find(fe, message->model, message->serial);
    if (model && model->state == TERSE_SERVED_READY)
        drain(fe, model);
}

/* --- what workers tell ----------------------------------------------------------------------------------------- */

void terse_reload_held(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_held *held, uint32_t n)
{
    memset(worker->held, 0, sizeof worker->held);
    for (uint32_t i = 0; i < n; i++)
        if (held[i].model < TERSE_MODEL_SLOTS)
            worker->held[held[i].model] = held[i].serial;
    worker->warmed = true;
    fe->models_moved = true;
}

void terse_reload_warmed(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_model_state *message)
{
    if (worker->loading != message->model + 1 || worker->loading_serial != message->serial)
        return;
    worker->loading = 0;
    fe->models_moved = true;
    terse_served *model = find(fe, message->model, message->serial);
    if (message->status == TERSE_OK) {
        worker->held[message->model] = message->serial;
    } else if (model && model->state == TERSE_SERVED_PENDING) {
        char why[sizeof message->error + 64];
        snprintf(why, sizeof why, "a worker cannot warm it: %.*s", (int)sizeof message->error - 1, message->error);
        fail(fe, model, message->status < TERSE_SYSTEM ? (terse_status)message->status : TERSE_INTERNAL, why);
    } else if (model) { /* others have it: batches that this one gets say so */
        terse_log(TERSE_LOG_ERROR, "worker %d: %.*s", worker->pid, (int)sizeof message->error - 1, message->error);
        worker->held[message->model] = message->serial;
    }
}

void terse_reload_unloaded(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_model_state *message)
{
    if (worker->unloading != message->model + 1)
        return;
    worker->unloading = 0;
    if (worker->held[message->model] == message->serial)
        worker->held[message->model] = 0;
    fe->models_moved = true;
}

void terse_reload_worker_gone(terse_frontend *fe, terse_pool_worker *worker)
{
    worker->died_loading = worker->loading;
    worker->died_serial = worker->loading_serial;
    worker->loading = worker->unloading = 0;
    worker->warmed = worker->leaving = false;
    memset(worker->held, 0, sizeof worker->held);
    fe->models_moved = true;
}

void terse_reload_worker_died(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_worker *message)
{
    terse_served *model = worker->died_loading ? find(fe, worker->died_loading - 1, worker->died_serial) : NULL;
    worker->died_loading = 0;
    if (!model || model->state != TERSE_SERVED_PENDING || message->expected)
        return;
    char how[64], why[256];
    const int status = message->wait_status;
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(how, sizeof how, "exit status %d", WEXITSTATUS(status));
    if (worker->exit_foreign && ++model->n_deaths < MOST_DEATHS)
        return;
    snprintf(why, sizeof why, "a worker that warmed it ended with %s", how);
    fail(fe, model, TERSE_INTERNAL, why);
}

/* --- bringing about what ought to be --------------------------------------------------------------------------- */

static bool send_state(terse_pool_worker *worker, uint32_t index, uint64_t serial)
{
    const terse_msg_model_state message = {
        .head = {TERSE_MSG_UNLOAD, sizeof message}, .model = index, .serial = serial};
    return terse_msg_send(worker->fd, &message, sizeof message, NULL, 0);
}

/* What a worker holds and nobody wants any more. */
static void take_away(terse_frontend *fe, terse_pool_worker *worker)
{
    for (uint32_t i = 0; i < TERSE_MODEL_SLOTS && !worker->unloading && !fe->models_again; i++) {
        if (!worker->held[i])
            continue;
        const terse_served *model = find(fe, i, worker->held[i]);
        if (model && model->state != TERSE_SERVED_LEAVING)
            continue;
        if (!send_state(worker, i, worker->held[i])) /* its socket is full, or it is gone, which is told next */
            fe->models_again = true;
        else
            worker->unloading = i + 1;
    }
}

static bool someone_warms(const terse_frontend *fe, const terse_served *model)
{
    for (uint32_t i = 0; i < fe->n_workers; i++)
        if (fe->workers[i].loading == model->index + 1 && fe->workers[i].loading_serial == model->serial)
            return true;
    return false;
}

static void give(terse_frontend *fe, terse_pool_worker *worker, const terse_served *model)
{
    if (!terse_msg_send(worker->fd, &model->message, sizeof model->message, &model->memory, 1)) {
        fe->models_again = true;
        return;
    }
    worker->loading = model->index + 1;
    worker->loading_serial = model->serial;
}

/* What a worker lacks: first what serves, and once it is in service what is pending. True when nothing of the former.
 */
static bool complete(terse_frontend *fe, terse_pool_worker *worker)
{
    terse_served *pending = NULL;
    for (uint32_t i = 0; i < fe->n_models; i++) {
        terse_served *model = fe->models[i];
        if (!model || holds(worker, model) || model->state == TERSE_SERVED_LEAVING)
            continue;
        if (model->state == TERSE_SERVED_PENDING) {
            pending = pending ? pending : model;
            continue;
        }
        if (!worker->loading)
            give(fe, worker, model);
        return false;
    }
    if (pending && !worker->loading && in_service(worker) && !someone_warms(fe, pending))
        give(fe, worker, pending);
    return true;
}

static void feed(terse_frontend *fe, terse_pool_worker *worker)
{
    if (worker->fd < 0 || !worker->warmed || worker->state == TERSE_POOL_HUNG)
        return;
    take_away(fe, worker);
    if (complete(fe, worker) && worker->state == TERSE_POOL_WARMING) {
        terse_complete_ready(fe, worker);
        complete(fe, worker); /* what is pending */
    }
}

static void switch_to(terse_frontend *fe, terse_served *model)
{
    terse_served *old = terse_ops_find_model(fe, terse_wire_text_of(model->name));
    if (old) {
        terse_stats_add(&model->stats, &old->stats);
        old->stats = (terse_stats){0};
        model->recent = old->recent;
        /* What was learnt of the requests to this name, and its part of the workers, go on. */
        memcpy(model->predict, old->predict, sizeof model->predict);
        model->offered = old->offered;
        model->let_in = old->let_in;
        model->share.clock_ns = old->share.clock_ns;
        drain(fe, old);
    }
    model->state = TERSE_SERVED_READY;
    terse_stats_mark(&model->recent, &model->stats, fe->now_ns);
    fe->models_moved = true;
    tell(fe, TERSE_MSG_MODEL_SWITCHED, model, TERSE_OK, "");
}

static bool all_hold(const terse_frontend *fe, const terse_served *model)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < fe->n_workers; i++) {
        if (!in_service(&fe->workers[i]))
            continue;
        if (!holds(&fe->workers[i], model))
            return false;
        n++;
    }
    return n > 0;
}

/* Counters of requests that an old version finished after the switch go to the one that has its name now. */
static void end_drained(terse_frontend *fe, terse_served *model)
{
    for (uint32_t i = 0; i < fe->n_workers; i++)
        if (fe->workers[i].fd >= 0 && holds(&fe->workers[i], model))
            return;
    terse_served *heir = terse_ops_find_model(fe, terse_wire_text_of(model->name));
    if (heir)
        terse_stats_add(&heir->stats, &model->stats);
    const terse_served gone = {.index = model->index, .serial = model->serial};
    forget(fe, model); /* before it is told: the supervisor is to be the last that closes its memory */
    tell(fe, TERSE_MSG_MODEL_GONE, &gone, TERSE_OK, "");
}

/* A worker that is to go and has nothing to do. */
static void free_worker(terse_frontend *fe, uint32_t index)
{
    terse_pool_worker *worker = &fe->workers[index];
    const terse_msg_worker message = {
        .head = {TERSE_MSG_WORKER_FREE, sizeof message}, .worker = index, .pid = worker->pid};
    terse_complete_gone(fe, worker);
    terse_control_send(fe, &message, sizeof message);
    while (fe->n_workers > 0 && fe->workers[fe->n_workers - 1].fd < 0)
        fe->n_workers--;
}

static void check_draining(terse_frontend *fe)
{
    fe->models_drain = false;
    for (uint32_t i = 0; i < fe->n_models; i++) {
        terse_served *model = fe->models[i];
        if (!model || model->state != TERSE_SERVED_DRAINING)
            continue;
        if (terse_served_unused(model)) {
            model->state = TERSE_SERVED_LEAVING;
            fe->models_moved = true;
        } else {
            fe->models_drain = true;
        }
    }
}

void terse_reload_step(terse_frontend *fe)
{
    fe->models_moved |= fe->models_again;
    fe->models_again = false;
    if (fe->models_drain)
        check_draining(fe);
    while (fe->models_moved) {
        fe->models_moved = false;
        for (uint32_t i = 0; i < fe->n_workers; i++)
            if (fe->workers[i].leaving && fe->workers[i].fd >= 0 && fe->workers[i].state != TERSE_POOL_RUNNING)
                free_worker(fe, i);
            else
                feed(fe, &fe->workers[i]);
        for (uint32_t i = 0; i < fe->n_models; i++) {
            terse_served *model = fe->models[i];
            if (model && model->state == TERSE_SERVED_PENDING && all_hold(fe, model))
                switch_to(fe, model);
            else if (model && model->state == TERSE_SERVED_LEAVING)
                end_drained(fe, model);
        }
    }
}
