/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/frontend/frontend.h"

/* Design notes
 *   A batch ends in one of four ways.
 *   Done: replies go out. Needs room: its outputs get larger slots and the same worker runs it again. Failed as a
 * whole: a batch of one is answered with the worker's error, the members of a larger one become suspects, so that only
 * the bad one gets the error. The worker died: all members become suspects. How the worker died is known a moment
 * later, when the supervisor tells. Until then the members are remembered by reference; a crash (or our own hang kill)
 * then counts against each member, a foreign kill only against a request that ran alone, from its third on. The second
 * crash ends a request: as a member of a crashed batch it was one of many, alone it was the cause. */

enum { CRASHES = 2, FOREIGN_KILLS = 3 };
#define ASK_AGAIN_NS UINT64_C(1000000000)

/* --- results ------------------------------------------------------------------------------------------------- */

/* The worker is ours but its memory may be damaged: nothing that it says is used unchecked. */
static bool outputs_fit(const terse_served *model, const terse_pool_worker *worker, const terse_msg_tensor *outputs)
{
    for (uint32_t i = 0; i < model->n_outputs; i++) {
        const terse_msg_tensor *output = &outputs[i];
        if (output->rank < 0 || output->rank > TERSE_MAX_RANK || output->dtype != (uint32_t)model->outputs[i].dtype)
            return false;
        const int64_t count = terse_dims_count(output->dims, output->rank);
        if (count < 0 || (uint64_t)count * terse_dtype_size((terse_dtype)output->dtype) != output->bytes)
            return false;
        if (model->batchable && (output->rank < 1 || output->dims[0] != (int64_t)worker->rows))
            return false;
    }
    return true;
}

/* The first output whose place in shared memory is smaller than what is to go there; -1: none. */
static int too_small_place(const terse_served *model, const terse_pool_worker *worker, const terse_request *request,
                           const terse_msg_tensor *outputs)
{
    for (uint32_t i = 0; request->places && request->places->n_outputs > 0 && i < model->n_outputs; i++)
        if ((request->wanted_mask >> i & 1) && !terse_request_in_slot(request, i) &&
            request->places->outputs[i].bytes < outputs[i].bytes / worker->rows * request->rows)
            return (int)i;
    return -1;
}

/* Whether every member's outputs fitted their slots. */
static bool outputs_had_room(const terse_served *model, const terse_pool_worker *worker,
                             const terse_msg_tensor *outputs)
{
    uint64_t in_slots = 0;
    for (uint32_t i = 0; i < worker->n_members; i++) {
        const terse_request *request = worker->members[i];
        in_slots |= request->places ? 0 : request->wanted_mask;
        for (uint32_t k = 0; request->places && k < model->n_outputs; k++)
            in_slots |= (uint64_t)terse_request_in_slot(request, k) << k;
        if (too_small_place(model, worker, request, outputs) >= 0)
            return false;
    }
    for (uint32_t i = 0; i < model->n_outputs; i++)
        if ((in_slots & UINT64_C(1) << i) && outputs[i].bytes / worker->rows > worker->output_bytes[i])
            return false;
    return true;
}

static void count_done(terse_frontend *fe, terse_pool_worker *worker, terse_served *model, uint64_t compute_ns)
{
    /* What a batch costs is what passes here from its start to its end: waking the worker is a part of it. */
    const uint64_t took = fe->now_ns > worker->started_ns ? fe->now_ns - worker->started_ns : 0;
    terse_cost_learn(&worker->lane->cost, worker->rows, took);
    worker->batches++;
    worker->busy_ns += took;
    model->stats.batches++;
    model->stats.rows += worker->rows;
    if (fe->histograms)
        terse_stats_batch(&model->stats, worker->rows, worker->n_members, compute_ns);
}

static void count_answer(terse_frontend *fe, terse_served *model, const terse_request *request)
{
    model->stats.by_status[TERSE_OK]++;
    fe->served++;
    if (!fe->histograms)
        return;
    terse_stats_time(&model->stats.queue_us, request->start_ns - request->arrival_ns, 1);
    terse_stats_time(&model->stats.total_us, fe->now_ns - request->arrival_ns, 1);
}

/* A worker whose end we asked for gets nothing more, even if it came back to life in between. */
static void become_idle(terse_frontend *fe, terse_pool_worker *worker)
{
    if (worker->state != TERSE_POOL_HUNG)
        worker->state = TERSE_POOL_IDLE;
    fe->starved = false;
    worker->n_members = 0;
    worker->rows = 0;
    worker->lane = NULL;
    fe->models_moved |= worker->leaving;
}

static void log_answer(terse_frontend *fe, const terse_pool_worker *worker, const terse_request *request,
                       uint64_t compute_ns, uint64_t computed_ns)
{
    const terse_trace_end end = {.model = fe->models[request->lane->model]->name,
                                 .id = request->id,
                                 .computed_ns = computed_ns,
                                 .compute_us = compute_ns / 1000,
                                 .worker = (uint32_t)(worker - fe->workers),
                                 .rows = worker->rows};
    terse_trace_log(&fe->traces, &request->trace, &end);
}

static void finish_ok(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_tensor *outputs,
                      uint64_t compute_ns)
{
    const uint64_t computed_ns = worker->traced ? terse_now_ns() : 0;
    terse_served *model = fe->models[worker->lane->model];
    count_done(fe, worker, model, compute_ns);
    for (uint32_t i = 0; i < worker->n_members; i++) {
        terse_request *request = worker->members[i];
        if (request->late && !request->answered) {
            request->state = TERSE_REQUEST_PARKED;
            terse_request_end_late(fe, request);
            continue;
        }
        if (!request->answered) {
            count_answer(fe, model, request);
            terse_reply_result(fe, worker, request, outputs, compute_ns, computed_ns);
            if (request->trace.sampled)
                log_answer(fe, worker, request, compute_ns, computed_ns);
        }
        terse_request_free(fe, request);
    }
    become_idle(fe, worker);
}

/* Members go back to the front, each to run alone. Those answered meanwhile end here. */
static void make_suspects(terse_frontend *fe, terse_pool_worker *worker)
{
    for (uint32_t i = 0; i < worker->n_members; i++) {
        terse_request *request = worker->members[i];
        terse_request_give_output(fe, request);
        if (request->answered || request->late) {
            request->state = TERSE_REQUEST_PARKED;
            if (request->answered)
                terse_request_free(fe, request);
            else
                terse_request_end_late(fe, request);
            continue;
        }
        request->alone = true;
        if (request->client->parked)
            request->state = TERSE_REQUEST_PARKED;
        else
            terse_queue_push_suspect(&fe->queue, request);
    }
    fe->starved = false;
    worker->n_members = 0;
    worker->rows = 0;
    worker->lane = NULL;
}

static void finish_failed(terse_frontend *fe, terse_pool_worker *worker, terse_status status, const char *why)
{
    if (worker->n_members == 1) {
        terse_request *request = worker->members[0];
        request->state = TERSE_REQUEST_PARKED;
        terse_request_fail(fe, request, status, "%.255s", why);
    } else {
        make_suspects(fe, worker);
    }
    become_idle(fe, worker);
}

/* Takes out of a batch that is to run again those who need not: the answered, the late, and those whose place in shared
 * memory is too small, which are told how much they need. */
static void drop_members(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_tensor *outputs)
{
    const terse_served *model = fe->models[worker->lane->model];
    uint32_t kept = 0, rows = 0;
    for (uint32_t i = 0; i < worker->n_members; i++) {
        terse_request *request = worker->members[i];
        const int small = too_small_place(model, worker, request, outputs);
        terse_request_give_output(fe, request);
        if (!request->answered && !request->late && small < 0) {
            worker->members[kept++] = request;
            rows += request->rows;
            continue;
        }
        request->state = TERSE_REQUEST_PARKED;
        if (request->answered)
            terse_request_free(fe, request);
        else if (request->late)
            terse_request_end_late(fe, request);
        else {
            terse_request_rejected(fe, request, TERSE_REJECTED_INVALID);
            request->lasting = true;
            terse_request_fail(fe, request, TERSE_RESOURCE_EXHAUSTED,
                               "output '%s' needs %" PRIu64 " bytes, its place in shared memory has %" PRIu64,
                               model->outputs[small].name, outputs[small].bytes / worker->rows * request->rows,
                               request->places->outputs[small].bytes);
        }
    }
    worker->n_members = kept;
    worker->rows = rows;
}

/* The outputs are larger than was guessed: remembers their sizes and runs the batch again. */
static void finish_needs_room(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_tensor *outputs)
{
    terse_served *model = fe->models[worker->lane->model];
    for (uint32_t i = 0; i < model->n_outputs; i++) {
        const uint64_t per_row = (outputs[i].bytes + worker->rows - 1) / worker->rows;
        if (per_row > worker->lane->output_bytes[i])
            worker->lane->output_bytes[i] = per_row;
    }
    drop_members(fe, worker, outputs);
    if (worker->n_members > 0 && terse_dispatch_send(fe, worker))
        return;
    if (worker->n_members == 0) {
        /* All were told. */
    } else if (worker->n_members == 1) {
        terse_request *request = worker->members[0];
        request->state = TERSE_REQUEST_PARKED;
        terse_request_rejected(fe, request, TERSE_REJECTED_NO_ROOM);
        terse_request_fail(fe, request, TERSE_RESOURCE_EXHAUSTED,
                           "there is no room for the outputs: %" PRIu64 " of %" PRIu64 " bytes are in use",
                           terse_slots_used(fe->outputs), fe->output_bytes);
    } else {
        make_suspects(fe, worker);
    }
    become_idle(fe, worker);
}

static void settle_share(const terse_frontend *fe, const terse_pool_worker *worker)
{
    terse_share_correct(worker->lane->share, worker->expected_ns, fe->now_ns - worker->started_ns);
}

static void finish(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_done *done, size_t size)
{
    terse_served *model = fe->models[worker->lane->model];
    settle_share(fe, worker);
    const terse_msg_tensor *outputs = (const terse_msg_tensor *)(const void *)(done + 1);
    const bool has_outputs = done->n_outputs == model->n_outputs &&
                             size == sizeof *done + model->n_outputs * sizeof *outputs &&
                             outputs_fit(model, worker, outputs);
    char why[sizeof done->error + 1] = {0};
    memcpy(why, done->error, sizeof done->error);
    if (done->status != TERSE_OK && !done->needs_room)
        finish_failed(fe, worker,
                      (unsigned)done->status < TERSE_STATUS_COUNT ? (terse_status)done->status : TERSE_INTERNAL, why);
    else if (!has_outputs || (!done->needs_room && !outputs_had_room(model, worker, outputs)))
        finish_failed(fe, worker, TERSE_INTERNAL, "the worker's answer does not fit the model");
    else if (done->needs_room && outputs_had_room(model, worker, outputs))
        finish_failed(fe, worker, TERSE_INTERNAL, "the worker wants room that it has");
    else if (done->needs_room)
        finish_needs_room(fe, worker, outputs);
    else
        finish_ok(fe, worker, outputs, done->compute_ns);
}

/* What warming measured is worth more than nothing, and less than any batch that was served: it lacks what waking the
 * worker takes. */
static void learn_costs(terse_frontend *fe, const terse_msg_warm_cost *costs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        terse_served *model = costs[i].model < fe->n_models ? fe->models[costs[i].model] : NULL;
        terse_lane *lane = model ? terse_served_plain_lane(model, fe->now_ns) : NULL;
        if (lane && terse_cost_samples(&lane->cost, costs[i].rows) == 0)
            terse_cost_learn(&lane->cost, costs[i].rows, costs[i].ns + TERSE_BATCHER_WAKE_NS);
    }
}

static void take_message(terse_frontend *fe, terse_pool_worker *worker, size_t size)
{
    const terse_msg *head = (const terse_msg *)(const void *)fe->message;
    if (head->kind == TERSE_MSG_WARMED && size >= sizeof(terse_msg_warmed) && worker->state == TERSE_POOL_WARMING) {
        const terse_msg_warmed *warmed = (const terse_msg_warmed *)(const void *)fe->message;
        const terse_msg_held *held = (const terse_msg_held *)(const void *)(warmed + 1);
        const size_t most = (size - sizeof *warmed) / sizeof *held;
        const uint32_t n = warmed->n_held < most ? warmed->n_held : (uint32_t)most;
        worker->private_bytes = warmed->private_bytes;
        worker->shared_bytes = warmed->shared_bytes;
        learn_costs(fe, (const terse_msg_warm_cost *)(const void *)(held + n),
                    (size - sizeof *warmed - n * sizeof *held) / sizeof(terse_msg_warm_cost));
        terse_reload_held(fe, worker, held, n);
        return;
    }
    const terse_msg_model_state *state = (const terse_msg_model_state *)(const void *)fe->message;
    if (head->kind == TERSE_MSG_MODEL_WARMED && size == sizeof *state && state->model < TERSE_MODEL_SLOTS) {
        terse_reload_warmed(fe, worker, state);
        return;
    }
    if (head->kind == TERSE_MSG_UNLOADED && size == sizeof *state && state->model < TERSE_MODEL_SLOTS) {
        terse_reload_unloaded(fe, worker, state);
        return;
    }
    if (head->kind == TERSE_MSG_MEMORY && size == sizeof(terse_msg_memory)) {
        const terse_msg_memory *memory = (const terse_msg_memory *)(const void *)fe->message;
        worker->private_bytes = memory->private_bytes;
        worker->shared_bytes = memory->shared_bytes;
        return;
    }
    const terse_msg_done *done = (const terse_msg_done *)(const void *)fe->message;
    if (head->kind == TERSE_MSG_DONE && size >= sizeof *done && worker->n_members > 0 && done->epoch == fe->epoch &&
        done->batch == worker->batch && done->model == worker->lane->model) {
        finish(fe, worker, done, size);
        return;
    }
    terse_log(TERSE_LOG_WARNING, "worker %d sent a message of kind %" PRIu32 " that nobody awaits", worker->pid,
              head->kind);
}

void terse_complete_ready(terse_frontend *fe, terse_pool_worker *worker)
{
    worker->state = TERSE_POOL_IDLE;
    if (fe->ready_told)
        return;
    fe->ready_told = true;
    terse_control_tell(fe, TERSE_MSG_READY);
}

void terse_complete_receive(terse_frontend *fe, terse_pool_worker *worker)
{
    int fds[4], n_fds = 0;
    while (worker->fd >= 0) {
        const int64_t size = terse_msg_receive(worker->fd, fe->message, fds, &n_fds);
        for (int i = 0; i < n_fds; i++)
            close(fds[i]);
        if (size < 0 && errno == EAGAIN)
            return;
        if (size < 0 && errno != EPROTO) {
            terse_control_give_up(fe, "cannot hear worker %d: %s", worker->pid, strerror(errno));
            return;
        }
        if (size < 0) { /* what it says is no message: it is out of its mind */
            terse_log(TERSE_LOG_WARNING, "worker %d sends what cannot be read", worker->pid);
            terse_control_kill_worker(fe, (uint32_t)(worker - fe->workers));
        }
        if (size <= 0) {
            terse_complete_gone(fe, worker);
            return;
        }
        take_message(fe, worker, (size_t)size);
        /* One batch at a time: after its end nothing more can be there but the end of the socket, which epoll tells. */
        if (worker->state == TERSE_POOL_IDLE)
            return;
    }
}

/* --- deaths -------------------------------------------------------------------------------------------------- */

static void judge(terse_frontend *fe, terse_request *request, bool counts, bool alone)
{
    if (counts || (alone && ++request->kills >= FOREIGN_KILLS))
        request->crashes++;
    if (request->crashes < CRASHES)
        return;
    static const char why[] = "this request crashed two workers";
    const char *model = fe->models[request->lane->model]->name;
    terse_log_of((.model = model, .request = &request->id, .reason = why), TERSE_LOG_WARNING,
                 "request %" PRIu64 " of model '%s': %s", request->id, model, why);
    terse_request_fail(fe, request, TERSE_INTERNAL, why);
}

static void judge_all(terse_frontend *fe, terse_pool_worker *worker)
{
    for (uint32_t i = 0; i < worker->n_judged; i++) {
        const terse_request_ref *ref = &worker->judged[i];
        if (ref->request->generation == ref->generation && !ref->request->answered)
            judge(fe, ref->request, worker->exit_counts, worker->judged_alone && worker->exit_foreign);
    }
    worker->n_judged = 0;
    worker->exit_known = false;
}

/* Remembers the members for the supervisor's word. Without memory they go unjudged: they run again, no more. */
static void remember(terse_pool_worker *worker)
{
    if (!worker->judged)
        worker->judged = calloc(TERSE_MAX_BATCH, sizeof *worker->judged);
    worker->n_judged = 0;
    worker->judged_alone = worker->n_members == 1;
    for (uint32_t i = 0; worker->judged && i < worker->n_members; i++)
        worker->judged[worker->n_judged++] = (terse_request_ref){worker->members[i], worker->members[i]->generation};
}

void terse_complete_gone(terse_frontend *fe, terse_pool_worker *worker)
{
    if (worker->fd < 0)
        return;
    epoll_ctl(fe->epoll_fd, EPOLL_CTL_DEL, worker->fd, NULL);
    close(worker->fd);
    worker->fd = -1;
    worker->state = TERSE_POOL_ABSENT;
    terse_arenas_forget_worker(fe, worker);
    terse_reload_worker_gone(fe, worker);
    if (worker->n_members > 0) {
        fe->models[worker->lane->model]->stats.crashed_batches++;
        settle_share(fe, worker);
        remember(worker);
        make_suspects(fe, worker);
    }
    if (worker->exit_known)
        judge_all(fe, worker);
    if (!terse_ops_ready(fe))
        fe->ready_told = false;
}

static bool is_crash(int signal)
{
    return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE || signal == SIGABRT ||
           signal == SIGSYS;
}

void terse_complete_exit(terse_frontend *fe, terse_pool_worker *worker, const terse_msg_worker *message)
{
    const int status = message->wait_status;
    worker->exit_counts =
        !message->expected && (message->killed_hung || (WIFSIGNALED(status) && is_crash(WTERMSIG(status))) ||
                               (WIFEXITED(status) && WEXITSTATUS(status) != 0));
    worker->exit_foreign = !message->expected && !worker->exit_counts;
    worker->exit_known = true;
    if (worker->fd >= 0 && worker->pid == message->pid)
        terse_complete_receive(fe, worker); /* a last completion, then the end */
    if (worker->fd >= 0 && worker->pid == message->pid)
        terse_complete_gone(fe, worker);
    if (worker->exit_known)
        judge_all(fe, worker);
    terse_reload_worker_died(fe, worker, message);
}

void terse_complete_check_hung(terse_frontend *fe)
{
    for (uint32_t i = 0; i < fe->n_workers; i++) {
        terse_pool_worker *worker = &fe->workers[i];
        const bool runs = worker->state == TERSE_POOL_RUNNING;
        if ((!runs && worker->state != TERSE_POOL_HUNG) || worker->hang_ns > fe->now_ns)
            continue;
        worker->hang_ns = fe->now_ns + ASK_AGAIN_NS; /* should the supervisor not have heard */
        if (!runs) {
            terse_control_kill_worker(fe, i);
            continue;
        }
        char number[16];
        snprintf(number, sizeof number, "%" PRIu32, i);
        terse_log_of((.model = fe->models[worker->lane->model]->name, .worker = number, .reason = "it hangs"),
                     TERSE_LOG_WARNING, "worker %d hangs: %" PRIu32 " rows of model '%s' since %" PRIu64 " ms",
                     worker->pid, worker->rows, fe->models[worker->lane->model]->name,
                     (fe->now_ns - worker->started_ns) / 1000000);
        worker->state = TERSE_POOL_HUNG;
        terse_control_kill_worker(fe, i);
    }
}
