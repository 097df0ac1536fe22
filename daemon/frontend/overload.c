/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/overload.h"

#include <inttypes.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)
/* Of work that may wait for requests without a deadline. */
#define ENDLESS_NS (60000 * MS_NS)
/* Requests for each worker that are no standing queue yet, beside two batches. */
enum { FEW = 16, PROBES = 16, MOST_RETRY_MS = 10000, SLOW_RETRY_MS = 1000, DRAIN_RETRY_MS = 1000 };
/* Requests over which the part that was let in is reckoned. */
#define TIDE 256.0

/* --- what is known of the pool --------------------------------------------------------------------------------- */

static uint32_t limit_of(const terse_served *model, const terse_lane *lane)
{
    return terse_batcher_limit(&lane->cost, model->max_batch, model->batch_timeout_ns, model->objective);
}

/* What a batch of a lane takes; scaled from the model's other lanes while nothing of its own was measured. */
static uint64_t cost_of(const terse_served *model, const terse_lane *lane, uint32_t rows)
{
    if (terse_cost_known(&lane->cost))
        return terse_cost_of(&lane->cost, rows);
    for (const terse_lane *other = model->lanes; other; other = other->next)
        if (terse_cost_known(&other->cost)) {
            const double growth = ((double)lane->input_total + 1) / ((double)other->input_total + 1);
            const double scaled = growth * (double)terse_cost_of(&other->cost, rows);
            return scaled < 1e15 ? (uint64_t)scaled : (uint64_t)1e15;
        }
    return 0;
}

/* What is left of the batches that run. One that is late is expected to need as long again as it is late. */
static uint64_t running_of(const terse_frontend *fe, uint32_t *ret_workers, uint32_t *ret_idle)
{
    uint64_t left = 0;
    uint32_t workers = 0, idle = 0;
    for (uint32_t i = 0; i < fe->n_workers; i++) {
        const terse_pool_worker *worker = &fe->workers[i];
        idle += worker->state == TERSE_POOL_IDLE;
        workers += worker->state == TERSE_POOL_IDLE || worker->state == TERSE_POOL_RUNNING;
        if (worker->state != TERSE_POOL_RUNNING)
            continue;
        const uint64_t end = worker->started_ns + worker->expected_ns;
        left += end > fe->now_ns ? end - fe->now_ns : fe->now_ns - end;
    }
    *ret_workers = workers;
    *ret_idle = idle;
    return left;
}

static uint64_t lane_work(const terse_lane *lane)
{
    uint64_t work = 0;
    for (uint32_t mask = lane->mask; mask; mask &= mask - 1)
        work += lane->levels[__builtin_ctz(mask)].work_ns;
    return work;
}

/* What goes before a request: in its lane by the order there, of the model's other lanes all. */
static void queue_before(const terse_frontend *fe, const terse_lane *lane, const terse_overload_request *request,
                         terse_predict_input *input)
{
    input->ahead_ns = terse_queue_ahead_ns(lane, request->priority, request->deadline_ns);
    if (lane->share->n_requests > lane->n_requests)
        input->ahead_ns += lane->share->work_ns - lane_work(lane);
    input->others_ns = 0;
    for (const terse_share *share = fe->queue.busy_shares; share; share = share->next_busy)
        if (share != lane->share)
            input->others_ns += share->work_ns < input->ahead_ns ? share->work_ns : input->ahead_ns;
}

/* Whether a client, with `more_ns` beside what it has outstanding, has less than half of what those who have anything
 * have on average. Where all have one request nobody has so little, and together all who have it have less than the
 * others: so what is let in because of that is bounded by what is there. */
static bool has_little(const terse_frontend *fe, const terse_client *client, uint64_t more_ns)
{
    const double average_ns = (double)fe->clients.work_ns / (fe->clients.n_asking ? fe->clients.n_asking : 1);
    return 2 * (double)(client->work_ns + more_ns) < average_ns;
}

/* --- refusing -------------------------------------------------------------------------------------------------- */

static char *put_number(char *to, uint64_t number)
{
    char digits[20];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (n > 0)
        *to++ = digits[--n];
    return to;
}

/* As terse_fail, with the next of three numbers for each '#': a flood is told such things half a million times a
 * second, and printf takes a third of all that a refusal takes. */
static int refuse(terse_error *error, terse_status status, const char *text, const uint64_t numbers[3])
{
    char *to = error->message;
    for (const char *end; *(end = strchrnul(text, '#')); text = end + 1)
        to = put_number(mempcpy(to, text, (size_t)(end - text)), *numbers++);
    strcpy(to, text);
    error->status = status;
    return (int)status;
}

static uint64_t retry_ms(uint64_t ns)
{
    const uint64_t ms = (ns + MS_NS - 1) / MS_NS;
    return ms < 1 ? 1 : ms > MOST_RETRY_MS ? MOST_RETRY_MS : ms;
}

uint64_t terse_overload_retry_ms(const terse_frontend *fe)
{
    uint32_t workers, idle;
    uint64_t work = running_of(fe, &workers, &idle);
    for (const terse_share *share = fe->queue.busy_shares; share; share = share->next_busy)
        work += share->work_ns;
    return retry_ms(work / 2 / (workers ? workers : 1));
}

/* The part of the requests that is let in: counted so that older ones fade. */
static void count_tide(terse_served *model, bool let_in)
{
    model->offered = model->offered * (1 - 1 / TIDE) + 1;
    model->let_in = model->let_in * (1 - 1 / TIDE) + let_in;
}

/* When to come again for a place that `excess_ns` are missing for, in a queue that holds `allowed_ns`. */
static uint64_t come_again(const terse_served *model, uint64_t excess_ns, uint64_t allowed_ns)
{
    const double tide = model->offered / (model->let_in + 1) - 1;
    return retry_ms(excess_ns + (tide > 0 ? (uint64_t)((double)allowed_ns * tide) : 0));
}

/* Places that others leave, and those that a connection has. One request of any allowed size in either case. */
static int check_full(const terse_frontend *fe, const terse_client *client, terse_overload_request *request,
                      terse_error *error)
{
    request->reason = TERSE_REJECTED_CLIENT_FULL;
    if (client->outstanding >= fe->max_client_outstanding)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "%" PRIu32 " requests of this client are outstanding, %" PRIu32 " are allowed",
                          client->outstanding, fe->max_client_outstanding);
    if (client->input_bytes > 0 && client->input_bytes + request->bytes > fe->max_client_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "the tensors of this client's requests would take %" PRIu64 " bytes, %" PRIu64 " are allowed",
                          client->input_bytes + request->bytes, fe->max_client_bytes);
    request->reason = TERSE_REJECTED_QUEUE_FULL;
    if (fe->queue.n_requests >= fe->max_queue)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "the queue is full: %" PRIu32 " requests wait, %" PRIu32 " are allowed", fe->queue.n_requests,
                          fe->max_queue);
    if (fe->queue.n_bytes > 0 && fe->queue.n_bytes + request->bytes > fe->max_queue_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "the queue is full: its tensors would have %" PRIu64 " bytes, %" PRIu64 " are allowed",
                          fe->queue.n_bytes + request->bytes, fe->max_queue_bytes);
    return TERSE_OK;
}

/* Limits of the configuration, and those that time has nothing to do with. */
static int check_numbers(const terse_frontend *fe, const terse_client *client, terse_overload_request *request,
                         terse_error *error)
{
    request->retry_after_ms = TERSE_WIRE_NO_RETRY;
    request->reason = TERSE_REJECTED_TOO_LARGE;
    if (request->bytes > fe->max_request_bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "the request's tensors have %" PRIu64 " bytes, %" PRIu64 " are allowed", request->bytes,
                          fe->max_request_bytes);
    request->retry_after_ms = DRAIN_RETRY_MS;
    request->reason = TERSE_REJECTED_DRAINING;
    if (fe->draining)
        return terse_fail(error, TERSE_UNAVAILABLE, "the daemon is shutting down");
    /* A moment of falling behind only parks what it sends; who takes nothing for longer gets no more in. */
    request->retry_after_ms = SLOW_RETRY_MS;
    request->reason = TERSE_REJECTED_SLOW_CLIENT;
    if (client->slow && fe->now_ns - client->moved_ns > TERSE_SLOW_NS)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "this client does not read its replies: %" PRIu32 " of them and %" PRIu64 " bytes wait",
                          client->n_late, client->owed_bytes);
    const int status = check_full(fe, client, request, error);
    if (status)
        request->retry_after_ms = terse_overload_retry_ms(fe);
    return status;
}

static uint64_t time_of(const terse_frontend *fe, const terse_overload_request *request)
{
    return request->deadline_ns > fe->now_ns ? request->deadline_ns - fe->now_ns : 0;
}

static int refuse_late(const terse_frontend *fe, const terse_served *model, uint64_t wait_ns, uint64_t run_ns,
                       terse_overload_request *request, terse_error *error)
{
    const uint64_t time_ns = time_of(fe, request);
    request->reason = TERSE_REJECTED_LATE;
    request->retry_after_ms =
        run_ns > time_ns ? TERSE_WIRE_NO_RETRY : come_again(model, wait_ns + run_ns - time_ns, time_ns / 2);
    return refuse(error, TERSE_DEADLINE_EXCEEDED,
                  "the request would be done in # us (# us of them its batch), # us are allowed",
                  (const uint64_t[]){(wait_ns + run_ns) / 1000, run_ns / 1000, time_ns / 1000});
}

/* The limits that follow from time. `run_ns` is what the request's batch takes. */
static int check_time(const terse_frontend *fe, const terse_client *client, const terse_served *model,
                      const terse_predict_input *input, uint64_t run_ns, terse_overload_request *request,
                      terse_error *error)
{
    const bool endless = request->deadline_ns == TERSE_NO_DEADLINE;
    const uint64_t time_ns = endless ? 2 * ENDLESS_NS : time_of(fe, request);
    const uint64_t allowed_ns = has_little(fe, client, request->work_ns) ? time_ns : time_ns / 2;
    const terse_predict *correction = &model->predict[request->priority][terse_predict_class(time_ns)];
    const uint64_t wait_ns = terse_predict_correct(correction, request->reckoned_ns, fe->now_ns);
    const uint64_t queue_ns =
        terse_predict_correct(correction, (input->ahead_ns + input->others_ns) / input->workers, fe->now_ns);
    if (!endless && wait_ns + run_ns > time_ns)
        return refuse_late(fe, model, wait_ns, run_ns, request, error);
    if (fe->queue_automatic && queue_ns > allowed_ns) {
        request->retry_after_ms = come_again(model, queue_ns - allowed_ns, allowed_ns);
        request->reason = TERSE_REJECTED_QUEUE_FULL;
        return refuse(error, TERSE_RESOURCE_EXHAUSTED,
                      "the queue is full: # requests wait and need # us, # us are allowed",
                      (const uint64_t[]){fe->queue.n_requests, queue_ns / 1000, allowed_ns / 1000});
    }
    const uint64_t own_ns = terse_predict_correct(correction, client->work_ns / input->workers, fe->now_ns);
    const uint64_t left_ns = queue_ns < allowed_ns ? allowed_ns - queue_ns : 0;
    if (fe->client_automatic && client->outstanding > 0 && own_ns > 2 * left_ns) {
        request->retry_after_ms = come_again(model, own_ns - 2 * left_ns, allowed_ns);
        request->reason = TERSE_REJECTED_CLIENT_FULL;
        return refuse(error, TERSE_RESOURCE_EXHAUSTED,
                      "# requests of this client are outstanding and need # us, # us are allowed",
                      (const uint64_t[]){client->outstanding, own_ns / 1000, 2 * left_ns / 1000});
    }
    return TERSE_OK;
}

/* Hardly anything waits, and only what runs may be too long: as it was reckoned, since corrections are for queues. */
static int check_run(const terse_frontend *fe, const terse_served *model, terse_overload_request *request,
                     uint64_t run_ns, terse_error *error)
{
    if (request->deadline_ns == TERSE_NO_DEADLINE || fe->now_ns + request->reckoned_ns + run_ns <= request->deadline_ns)
        return TERSE_OK;
    return refuse_late(fe, model, request->reckoned_ns, run_ns, request, error);
}

/* What its batch will take: a full one, or where its time is too short for that a smaller one. */
static uint64_t run_of(const terse_frontend *fe, const terse_served *model, const terse_lane *lane, uint64_t full_ns,
                       const terse_overload_request *request)
{
    const uint64_t own_ns = cost_of(model, lane, request->rows);
    return own_ns > full_ns || full_ns > time_of(fe, request) / 2 ? own_ns : full_ns;
}

/* One that is refused because its batch alone would take too long: every PROBES-th is let in all the same, since what
 * batches take is only learnt from batches, and an idle pool that would try them may not come. */
static bool is_probe(const terse_frontend *fe, terse_lane *lane, uint64_t run_ns, const terse_overload_request *request)
{
    return request->deadline_ns != TERSE_NO_DEADLINE && run_ns > time_of(fe, request) && ++lane->too_long % PROBES == 0;
}

int terse_overload_check(terse_frontend *fe, terse_client *client, terse_served *model, terse_lane *lane,
                         terse_overload_request *request, terse_error *error)
{
    request->work_ns = request->reckoned_ns = 0;
    const int status = check_numbers(fe, client, request, error);
    if (status || !lane)
        return status;
    const uint32_t limit = limit_of(model, lane);
    const uint64_t full_ns = cost_of(model, lane, limit);
    terse_predict_input input;
    uint32_t idle;
    request->work_ns = full_ns / limit * request->rows;
    queue_before(fe, lane, request, &input);
    input.running_ns = running_of(fe, &input.workers, &idle);
    request->reckoned_ns = idle > 0 && fe->queue.n_requests == 0 ? 0 : terse_predict_wait(&input);
    if (input.workers == 0 || request->reckoned_ns == 0)
        return TERSE_OK;
    const uint64_t run_ns = run_of(fe, model, lane, full_ns, request);
    int late;
    if (input.ahead_ns + input.others_ns < full_ns * input.workers)
        late = check_run(fe, model, request, cost_of(model, lane, request->rows), error);
    else
        late = check_time(fe, client, model, &input, run_ns, request, error);
    if (late == TERSE_DEADLINE_EXCEEDED && is_probe(fe, lane, run_ns, request))
        late = TERSE_OK;
    count_tide(model, !late);
    return late;
}

/* --- when its turn comes --------------------------------------------------------------------------------------- */

void terse_overload_learn(terse_frontend *fe, const terse_request *request)
{
    terse_served *model = fe->models[request->lane->model];
    const uint64_t time_ns =
        request->deadline_ns == TERSE_NO_DEADLINE ? UINT64_MAX : request->deadline_ns - request->arrival_ns;
    terse_predict_learn(&model->predict[request->priority][terse_predict_class(time_ns)], request->reckoned_ns,
                        fe->now_ns - request->queued_ns, fe->now_ns);
}

bool terse_overload_stands(const terse_frontend *fe, terse_lane *lane, const terse_request *request)
{
    if (request->deadline_ns != TERSE_NO_DEADLINE || has_little(fe, request->client, 0))
        return false;
    const terse_served *model = fe->models[lane->model];
    uint32_t workers, idle;
    running_of(fe, &workers, &idle);
    const uint64_t batches = 2 * terse_cost_of(&lane->cost, model->max_batch);
    const uint64_t target = batches > TERSE_CODEL_LEAST_TARGET_NS ? batches : TERSE_CODEL_LEAST_TARGET_NS;
    const uint64_t few = (uint64_t)(workers ? workers : 1) * (2 * model->max_batch > FEW ? 2 * model->max_batch : FEW);
    return terse_codel_drop(&lane->codel, fe->now_ns - request->queued_ns, fe->now_ns, target, lane->n_rows <= few);
}

bool terse_overload_doomed(const terse_frontend *fe, const terse_lane *lane, const terse_request *request)
{
    if (request->deadline_ns == TERSE_NO_DEADLINE || lane->n_requests < 2)
        return false;
    return fe->now_ns + terse_cost_of(&lane->cost, request->rows) > request->deadline_ns;
}
