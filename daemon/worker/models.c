/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/pages.h"
#include "daemon/worker/worker.h"

/* Plans of one model: batch sizes times shapes. */
enum { KEPT_PLANS = 48 };
/* Larger batches than one row are measured for this long, for each model and for all of them: a worker that comes back
 * must serve soon, and batches that are served tell the rest. */
#define MODEL_LIMIT_NS UINT64_C(60000000)
#define WARM_LIMIT_NS UINT64_C(400000000)
/* For finding out what of a plan is faster on several threads. */
#define MEASURE_LIMIT_NS UINT64_C(1000000000)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* No plan may take more than a quarter of the machine. */
static size_t arena_limit(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (size_t)pages / 4 * (size_t)page : (size_t)1 << 30;
}

/* Whether a node makes 32 or 64 bit integers: indices perhaps, which must not lie where a client could change them
 * between the check and the use. */
static bool computes_indices(const terse_graph *graph)
{
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_outputs; i++) {
            const int value = graph->nodes[n].outputs[i];
            const terse_dtype dtype = value < 0 ? TERSE_FP32 : graph->values[value].dtype;
            if (dtype == TERSE_INT32 || dtype == TERSE_INT64 || dtype == TERSE_DTYPE_NONE)
                return true;
        }
    return false;
}

static int open_model(terse_worker_model *served, const terse_msg_model *message, int fd, bool populate,
                      terse_error *error)
{
    char name[TERSE_MODEL_NAME + 1] = {0};
    memcpy(name, message->name, TERSE_MODEL_NAME);
    /* Private, though nobody writes: kernels before 6.7 refuse shared mappings of a memfd sealed against writing. */
    void *base = message->bytes ? terse_pages_map(fd, message->bytes, PROT_READ, MAP_PRIVATE) : MAP_FAILED;
    if (base == MAP_FAILED)
        return terse_fail(error, TERSE_SYSTEM, "cannot map model '%s' of %" PRIu64 " bytes", name, message->bytes);
    served->base = base;
    served->bytes = message->bytes;
    served->max_batch = message->max_batch;
    served->threads = message->threads;
    served->serial = message->serial;
    for (uint32_t i = 0; i < message->n_costs && i < TERSE_WARM_COSTS; i++)
        served->costs[served->n_costs++] =
            (terse_msg_warm_cost){message->model, (uint32_t)message->costs[i].rows, message->costs[i].ns};
    /* All pages at once instead of a fault for each; where that is not known the faults come. */
    if (populate)
        (void)madvise(base, message->bytes, MADV_POPULATE_READ);
    const terse_kernels *kernels = NULL;
    int status = terse_kernels_get(&kernels, error);
    if (!status)
        status = terse_model_parse(base, message->bytes, name, 0, &served->model, error);
    if (!status)
        status = terse_engine_new(served->model->graph, kernels, KEPT_PLANS, arena_limit(), &served->engine, error);
    if (!status)
        served->computes_indices = computes_indices(served->model->graph);
    return status;
}

void terse_worker_close_model(terse_worker_model *served)
{
    terse_engine_free(served->engine);
    terse_model_close(served->model);
    *served = (terse_worker_model){0};
}

static bool add(terse_worker *worker, const terse_msg_model *message, int fd, bool populate, terse_error *error)
{
    if (message->model >= TERSE_MODEL_SLOTS || worker->models[message->model].base) {
        terse_fail(error, TERSE_INTERNAL, "model number %" PRIu32 " is there already or beyond %d", message->model,
                   TERSE_MODEL_SLOTS);
        return false;
    }
    terse_worker_model *served = &worker->models[message->model];
    if (open_model(served, message, fd, populate, error)) {
        void *base = served->base;
        const size_t bytes = served->bytes;
        terse_worker_close_model(served);
        if (base)
            munmap(base, bytes);
        return false;
    }
    if (message->model >= worker->n_models)
        worker->n_models = message->model + 1;
    return true;
}

bool terse_worker_open_model(terse_worker *worker, const terse_msg_model *message, int fd, terse_error *error)
{
    return add(worker, message, fd, false, error);
}

void terse_worker_add_model(terse_worker *worker, const terse_msg_model *message, int fd)
{
    /* On trial pages come one by one: it can be stopped in between. */
    if (!add(worker, message, fd, !worker->on_trial, &worker->open_error))
        terse_log(TERSE_LOG_ERROR, "%s", worker->open_error.message);
}

/* Those that are there stay: later models make do with them. */
void terse_worker_start_threads(terse_worker *worker)
{
    terse_error error;
    uint32_t most = 1;
    for (uint32_t i = 0; i < worker->n_models; i++)
        most = worker->models[i].threads > most ? worker->models[i].threads : most;
    if (most > 1 && !worker->threads && terse_threads_new((int)most, &worker->threads, &error))
        terse_log(TERSE_LOG_WARNING, "one thread instead of %" PRIu32 ": %s", most, error.message);
    for (uint32_t i = 0; worker->threads && i < worker->n_models; i++) {
        const terse_worker_model *served = &worker->models[i];
        if (served->engine && !served->warmed &&
            terse_engine_use_threads(served->engine, worker->threads, (int)served->threads, &error))
            terse_log(TERSE_LOG_WARNING, "%s", error.message);
    }
}

/* --- warming ------------------------------------------------------------------------------------------------- */

/* Tensors for a run with `rows` rows. false when a dimension is not known from the model alone. */
static bool plain_inputs(const terse_worker_model *served, int64_t rows, terse_tensor *inputs, size_t *ret_bytes)
{
    const terse_graph *graph = served->model->graph;
    size_t total = 0;
    if (graph->n_inputs > TERSE_MAX_IO || graph->n_outputs > TERSE_MAX_IO ||
        terse_engine_value_inputs(served->engine) != 0)
        return false;
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        int64_t dims[TERSE_MAX_RANK];
        for (int axis = 0; axis < value->rank; axis++) {
            dims[axis] = value->dims[axis];
            if (dims[axis] < 0 && axis == 0 && graph->batchable)
                dims[axis] = rows;
            if (dims[axis] < 0)
                return false;
        }
        inputs[i] = terse_tensor_view(NULL, value->dtype, value->rank, dims);
        total += terse_align((size_t)terse_tensor_bytes(&inputs[i]), 64);
    }
    *ret_bytes = total;
    return true;
}

/* Lets a plan find out what is faster on several threads, as far as the time for warming goes; batches do the rest. */
static void measure_threads(terse_plan *plan, const void *const *data, void *const *outputs)
{
    terse_error error;
    const uint64_t start = terse_now_ns();
    while (terse_plan_measuring(plan) && terse_now_ns() - start < MEASURE_LIMIT_NS)
        if (terse_plan_run(plan, data, outputs, &error))
            return;
}

/* Time that nobody else's work is counted into, where that can be told: a trial gives way to everything. */
static uint64_t clock_ns(const terse_worker *worker)
{
    struct timespec now;
    if (!worker->on_trial || worker->threads || clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) < 0)
        return terse_now_ns();
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

typedef enum effort { PLAN, RUN, MEASURE } effort;

/* Makes the plan of `rows` rows and runs it over zeros, which are good numbers and good indices. *ret_ns is 0 where
 * the model alone does not tell its shapes: then nothing is done. */
static int run_once(terse_worker *worker, terse_worker_model *served, int64_t rows, effort how, uint64_t *ret_ns,
                    terse_error *error)
{
    terse_tensor inputs[TERSE_MAX_IO];
    const void *data[TERSE_MAX_IO];
    void *outputs[TERSE_MAX_IO] = {0};
    terse_plan *plan = NULL;
    size_t bytes = 0;
    *ret_ns = 0;
    if (!plain_inputs(served, rows, inputs, &bytes))
        return TERSE_OK;
    int status = terse_engine_plan(served->engine, inputs, &plan, error);
    if (status || how == PLAN)
        return status;
    if (!terse_worker_reserve(&worker->gathered, bytes ? bytes : 1))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for inputs of %zu bytes", bytes);
    memset(worker->gathered.data, 0, bytes);
    uint8_t *at = worker->gathered.data;
    for (int i = 0; i < served->model->graph->n_inputs; i++) {
        data[i] = at;
        at += terse_align((size_t)terse_tensor_bytes(&inputs[i]), 64);
    }
    if ((status = terse_plan_run(plan, data, outputs, error)) || how == RUN)
        return status;
    measure_threads(plan, data, outputs);
    const uint64_t start = clock_ns(worker); /* the second run: the first one touches memory for the first time */
    if ((status = terse_plan_run(plan, data, outputs, error)))
        return status;
    const uint64_t took = clock_ns(worker) - start;
    *ret_ns = took ? took : 1;
    return TERSE_OK;
}

int terse_worker_plan(terse_worker *worker, uint32_t index, int64_t rows, bool run, terse_error *error)
{
    uint64_t unused;
    return run_once(worker, &worker->models[index], rows, run ? RUN : PLAN, &unused, error);
}

/* Batches of 1, 2, 4 ... max_batch rows, as far as `limit_ns` goes; the first one in any case. */
static int warm_model(terse_worker *worker, uint32_t index, uint64_t limit_ns, terse_error *error)
{
    terse_worker_model *served = &worker->models[index];
    const uint64_t start = clock_ns(worker);
    const uint32_t most = served->model->graph->batchable && served->max_batch > 1 ? served->max_batch : 1;
    served->warmed = true;
    served->n_costs = 0;
    for (uint32_t rows = 1; served->n_costs < TERSE_WARM_COSTS; rows = 2 * rows < most ? 2 * rows : most) {
        uint64_t took = 0;
        const int status = run_once(worker, served, rows, MEASURE, &took, error);
        if (took == 0) /* more rows may need more memory than there is: such batches say so when they come */
            return rows == 1 ? status : TERSE_OK;
        served->costs[served->n_costs++] = (terse_msg_warm_cost){index, rows, took};
        /* Twice the rows, and each size runs twice. */
        if (rows == most || clock_ns(worker) - start + 4 * took > limit_ns)
            return TERSE_OK;
    }
    return TERSE_OK;
}

int terse_worker_measure(terse_worker *worker, uint32_t index, terse_error *error)
{
    return warm_model(worker, index, MODEL_LIMIT_NS, error);
}

void terse_worker_warm(terse_worker *worker)
{
    const uint64_t start = terse_now_ns();
    for (uint32_t i = 0; i < worker->n_models; i++) {
        if (!worker->models[i].model || worker->models[i].warmed)
            continue;
        const uint64_t used = terse_now_ns() - start, left = used < WARM_LIMIT_NS ? WARM_LIMIT_NS - used : 0;
        terse_error error;
        /* Somebody has run it: a worker that takes the place of another is there in milliseconds, and the first batch
         * touches the memory that it needs. */
        const int failed = worker->models[i].n_costs
                               ? terse_worker_plan(worker, i, 1, false, &error)
                               : warm_model(worker, i, left < MODEL_LIMIT_NS ? left : MODEL_LIMIT_NS, &error);
        worker->models[i].warmed = true;
        if (failed)
            terse_log(TERSE_LOG_WARNING, "model number %" PRIu32 " cannot run: %s", i, error.message);
    }
}
