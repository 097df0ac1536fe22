/* SPDX-License-Identifier: Apache-2.0 */
/* Models: one short-lived loader for each file, and a worker on trial for those that come while others are served. The
 * supervisor reads none of a file's bytes: it passes a path and gets back a sealed memfd and its size. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/cores.h"
#include "daemon/supervisor/supervisor.h"

static const unsigned all_seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

static void start_trial(terse_supervisor *s, terse_supervised_model *model);

static void bad_model(terse_supervisor *s, terse_supervised_model *model, terse_status status, const char *why)
{
    model->answered = true;
    if (model->live) {
        terse_operations_failed(s, model, status, why);
        return;
    }
    s->n_bad_models++;
    terse_log_of((.model = model->config->name, .reason = why), TERSE_LOG_ERROR, "model '%s' ('%s'): %s",
                 model->config->name, model->config->file, why);
}

static bool is_sealed(int fd)
{
    const int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && ((unsigned)seals & all_seals) == all_seals;
}

void terse_models_keep(terse_supervisor *s, terse_supervised_model *model)
{
    if (!*model->stored)
        terse_store_keep(&s->store, &model->config->mark, model->memory, model->stored);
}

/* What the tersed before us had the service manager keep: no loader is needed. */
static bool take_kept(terse_supervisor *s, terse_supervised_model *model)
{
    struct stat info;
    int fd = terse_store_take(&s->store, &model->config->mark, model->stored);
    if (fd < 0)
        return false;
    if (!is_sealed(fd) || fstat(fd, &info) < 0 || info.st_size <= 0) {
        terse_store_forget(model->stored);
        terse_close_fdp(&fd);
        return false;
    }
    model->memory = fd;
    model->bytes = (uint64_t)info.st_size;
    model->state = TERSE_MODEL_SERVING;
    terse_log_of((.model = model->config->name), TERSE_LOG_INFO,
                 "model '%s': '%s' is still in memory, %" PRIu64 " bytes", model->config->name, model->config->file,
                 model->bytes);
    return true;
}

/* A loader may have been taken over by the file that it read: what it sends is checked as well. */
static void take_memory(terse_supervisor *s, terse_supervised_model *model, const terse_msg_loaded *loaded, int fd)
{
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0 || loaded->bytes == 0 || (uint64_t)info.st_size != loaded->bytes) {
        bad_model(s, model, TERSE_INTERNAL, "its loader answered without the model's memory");
        return;
    }
    if (!is_sealed(fd)) {
        bad_model(s, model, TERSE_INTERNAL, "its loader answered with memory that is not sealed");
        return;
    }
    model->memory = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (model->memory < 0) {
        bad_model(s, model, TERSE_RESOURCE_EXHAUSTED, strerror(errno));
        return;
    }
    model->answered = true;
    model->bytes = loaded->bytes;
    terse_log_of((.model = model->config->name), TERSE_LOG_INFO,
                 "model '%s': loaded '%s', %" PRIu64 " bytes, max_batch %" PRIu64 "%s", model->config->name,
                 model->config->file, model->bytes, model->config->value[TERSE_SET_MAX_BATCH],
                 loaded->batchable ? "" : ", requests run one by one");
    if (model->live) {
        start_trial(s, model);
    } else {
        model->state = TERSE_MODEL_SERVING;
        terse_models_keep(s, model);
    }
}

static terse_status status_of(int32_t status)
{
    return status > TERSE_OK && status < TERSE_SYSTEM ? (terse_status)status : TERSE_INVALID_ARGUMENT;
}

/* --- loaders --------------------------------------------------------------------------------------------------- */

static void on_loader_message(terse_child *child, const terse_msg *message, int fd)
{
    terse_supervisor *s = child->owner;
    terse_supervised_model *model = &s->models[child->index];
    TERSE_AUTO(terse_close_fdp) int received = fd;
    const terse_msg_loaded *loaded = (const terse_msg_loaded *)message;
    if (model->state != TERSE_MODEL_LOADING || model->answered)
        return;
    if (message->kind != TERSE_MSG_LOADED || message->bytes != sizeof *loaded) {
        bad_model(s, model, TERSE_INTERNAL, "its loader sent what it should not");
        return;
    }
    terse_child_arm(child, 0);
    /* All that it has is in the message, and in its short turns its end would take long. */
    if (model->live)
        terse_child_kill(child);
    if (loaded->status == TERSE_OK) {
        take_memory(s, model, loaded, received);
    } else {
        char why[sizeof loaded->error];
        snprintf(why, sizeof why, "%.*s", (int)sizeof loaded->error - 1, loaded->error);
        bad_model(s, model, status_of(loaded->status), why);
    }
}

static void on_loader_timer(terse_child *child)
{
    terse_supervisor *s = child->owner;
    terse_supervised_model *model = &s->models[child->index];
    char why[128];
    if (model->state != TERSE_MODEL_LOADING || model->answered)
        return;
    snprintf(why, sizeof why, "not loaded after %" PRIu64 " ms (load_timeout_ms)",
             s->config->value[TERSE_SET_LOAD_TIMEOUT]);
    terse_child_kill(child);
    bad_model(s, model, TERSE_DEADLINE_EXCEEDED, why);
}

static void on_loader_exit(terse_child *child, int wait_status)
{
    terse_supervisor *s = child->owner;
    terse_supervised_model *model = &s->models[child->index];
    const bool at_start = s->phase == TERSE_PHASE_LOADING;
    if (model->state == TERSE_MODEL_LOADING && !model->answered && s->phase < TERSE_PHASE_STOPPING) {
        char status[64], why[128];
        snprintf(why, sizeof why, "its loader ended with %s",
                 terse_wait_status_text(wait_status, status, sizeof status));
        bad_model(s, model, TERSE_INTERNAL, why);
    }
    if (at_start) {
        s->n_loading--;
        terse_models_load(s);
    }
    terse_supervisor_reaped(s);
}

static const terse_child_events loader_events = {
    .message = on_loader_message, .exited = on_loader_exit, .timer = on_loader_timer};

static void start_loader(terse_supervisor *s, terse_supervised_model *model)
{
    char *argv[] = {(char[]){"terse-loader"}, NULL};
    terse_msg_load load = {.path = "", .behind = model->live, .max_bytes = terse_cores_available("") + 1};
    terse_error error;
    model->answered = false;
    model->state = TERSE_MODEL_LOADING;
    if (terse_child_start(&model->loader, s->programs->loader, argv, &error) != TERSE_OK) {
        bad_model(s, model, error.status, error.message);
        return;
    }
    if (!model->live)
        s->n_loading++;
    snprintf(load.path, sizeof load.path, "%s", model->config->file);
    terse_child_send(&model->loader, TERSE_MSG_LOAD, &load.head, sizeof load, -1);
    terse_child_arm(&model->loader, s->config->value[TERSE_SET_LOAD_TIMEOUT]);
}

void terse_models_load(terse_supervisor *s)
{
    while (s->next_model < s->n_models && s->n_loading < s->n_workers) {
        terse_supervised_model *model = &s->models[s->next_model++];
        if (!take_kept(s, model))
            start_loader(s, model);
    }
    if (s->next_model == s->n_models && s->n_loading == 0)
        terse_supervisor_loaded(s);
}

/* --- trials ---------------------------------------------------------------------------------------------------- */

static void on_trial_message(terse_child *child, const terse_msg *message, int fd)
{
    terse_supervisor *s = child->owner;
    terse_supervised_model *model = &s->models[child->index];
    const terse_msg_tried *tried = (const terse_msg_tried *)message;
    if (fd >= 0)
        close(fd);
    if (model->state != TERSE_MODEL_TRYING || model->answered)
        return;
    if (message->kind != TERSE_MSG_TRIED || message->bytes != sizeof *tried || tried->n_costs > TERSE_WARM_COSTS) {
        bad_model(s, model, TERSE_INTERNAL, "the worker that tried it sent what it should not");
        return;
    }
    model->answered = true;
    terse_child_kill(child); /* all that it has is the model */
    if (tried->status == TERSE_OK) {
        model->n_costs = tried->n_costs;
        memcpy(model->costs, tried->costs, sizeof model->costs);
        terse_operations_tried(s, model);
    } else {
        char why[sizeof tried->error + 32];
        snprintf(why, sizeof why, "it cannot run: %.*s", (int)sizeof tried->error - 1, tried->error);
        bad_model(s, model, status_of(tried->status), why);
    }
}

static void on_trial_timer(terse_child *child)
{
    terse_supervisor *s = child->owner;
    terse_supervised_model *model = &s->models[child->index];
    char why[128];
    if (model->state != TERSE_MODEL_TRYING || model->answered)
        return;
    snprintf(why, sizeof why, "running it once took more than %" PRIu64 " ms (warm_timeout_ms)",
             s->config->value[TERSE_SET_WARM_TIMEOUT]);
    terse_child_kill(child);
    bad_model(s, model, TERSE_DEADLINE_EXCEEDED, why);
}

static void on_trial_exit(terse_child *child, int wait_status)
{
    terse_supervisor *s = child->owner;
    terse_supervised_model *model = &s->models[child->index];
    if (model->state == TERSE_MODEL_TRYING && !model->answered && s->phase < TERSE_PHASE_STOPPING) {
        const bool killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
        char status[64], why[192];
        snprintf(why, sizeof why, "the worker that ran it once ended with %s%s",
                 terse_wait_status_text(wait_status, status, sizeof status),
                 killed ? ", as it does where memory is short" : "");
        bad_model(s, model, killed ? TERSE_RESOURCE_EXHAUSTED : TERSE_INTERNAL, why);
    }
    terse_supervisor_reaped(s);
}

static const terse_child_events trial_events = {
    .message = on_trial_message, .exited = on_trial_exit, .timer = on_trial_timer};

static void start_trial(terse_supervisor *s, terse_supervised_model *model)
{
    char *argv[] = {(char[]){"terse-worker"}, (char[]){"trial"}, NULL};
    terse_msg order = {0};
    terse_error error;
    model->answered = false;
    model->state = TERSE_MODEL_TRYING;
    if (terse_child_start(&model->trial, s->programs->worker, argv, &error) != TERSE_OK) {
        bad_model(s, model, error.status, error.message);
        return;
    }
    terse_models_send_one(model, TERSE_MSG_MODEL, &model->trial);
    terse_child_send(&model->trial, TERSE_MSG_TRY, &order, sizeof order, -1);
    terse_child_arm(&model->trial, s->config->value[TERSE_SET_WARM_TIMEOUT]);
}

/* --- slots ----------------------------------------------------------------------------------------------------- */

static void fill_slot(terse_supervisor *s, terse_supervised_model *model, terse_model_config *config, bool live)
{
    model->config = config;
    model->live = live;
    model->serial = ++s->next_serial;
    model->n_costs = 0;
    model->stored[0] = 0;
    model->unload = NULL;
}

int terse_models_init(terse_supervisor *s, terse_error *error)
{
    s->models = calloc(TERSE_MODEL_SLOTS, sizeof *s->models);
    if (!s->models)
        return terse_fail(error, TERSE_SYSTEM, "cannot keep %d models", TERSE_MODEL_SLOTS);
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++) {
        s->models[i].index = i;
        s->models[i].memory = -1;
        terse_child_init(&s->models[i].loader, s->loop, &loader_events, s, "loader", i);
        terse_child_init(&s->models[i].trial, s->loop, &trial_events, s, "trial", i);
    }
    for (unsigned i = 0; i < s->config->n_models; i++) {
        terse_model_config *config = malloc(sizeof *config);
        if (!config)
            return terse_fail(error, TERSE_SYSTEM, "cannot keep %u models", s->config->n_models);
        *config = s->config->models[i];
        fill_slot(s, &s->models[i], config, false);
        s->models[i].state = TERSE_MODEL_LOADING;
        s->n_models++;
    }
    return TERSE_OK;
}

int terse_models_begin(terse_supervisor *s, terse_model_config *config, terse_supervised_model **ret_model,
                       terse_error *error)
{
    if (!terse_models_serving(s, config->name) && terse_models_count(s) >= TERSE_MAX_MODELS)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "%u models are served, allowed: %d", terse_models_count(s),
                          TERSE_MAX_MODELS);
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++) {
        terse_supervised_model *model = &s->models[i];
        if (model->config || terse_child_runs(&model->loader) || terse_child_runs(&model->trial))
            continue;
        fill_slot(s, model, config, true);
        *ret_model = model;
        start_loader(s, model);
        return TERSE_OK;
    }
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "%d versions of models are there or on their way out",
                      TERSE_MODEL_SLOTS);
}

/* Giving 200 MB of small pages back takes the kernel 30 ms, on the account of whoever closes them last: of a process
 * that others need not wait for. Small models are not worth one. */
static void give_back(terse_supervised_model *model)
{
    enum { SMALL_BYTES = 4 << 20 };
    const terse_supervisor *s = model->loader.owner;
    char *argv[] = {(char[]){"terse-loader"}, NULL};
    terse_msg order = {0};
    terse_error error;
    if (model->memory >= 0 && model->bytes > SMALL_BYTES && s->phase == TERSE_PHASE_SERVING &&
        !terse_child_runs(&model->loader) &&
        terse_child_start(&model->loader, s->programs->loader, argv, &error) == TERSE_OK)
        terse_child_send(&model->loader, TERSE_MSG_FREE, &order, sizeof order, model->memory);
    if (model->memory >= 0)
        close(model->memory);
    model->memory = -1;
}

void terse_models_release(terse_supervised_model *model)
{
    const terse_supervisor *s = model->loader.owner;
    model->state = TERSE_MODEL_NONE;
    if (s->phase <= TERSE_PHASE_SERVING) /* later on it is kept for the next tersed */
        terse_store_forget(model->stored);
    terse_child_arm(&model->loader, 0);
    terse_child_arm(&model->trial, 0);
    terse_child_kill(&model->loader);
    terse_child_kill(&model->trial);
    give_back(model);
    free(model->config);
    model->config = NULL;
}

terse_supervised_model *terse_models_serving(const terse_supervisor *s, const char *name)
{
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++)
        if (s->models[i].state == TERSE_MODEL_SERVING && strcmp(s->models[i].config->name, name) == 0)
            return &s->models[i];
    return NULL;
}

unsigned terse_models_count(const terse_supervisor *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++)
        n += s->models[i].state == TERSE_MODEL_SERVING ||
             (s->models[i].state == TERSE_MODEL_LOADING && !s->models[i].live);
    return n;
}

/* --- what batches take ----------------------------------------------------------------------------------------- */

/* Whether a worker's list has the load of a model that is in this slot. */
static bool holds(const terse_msg_held *held, uint32_t n, const terse_supervised_model *model)
{
    for (uint32_t i = 0; i < n; i++)
        if (held[i].model == model->index && held[i].serial == model->serial)
            return true;
    return false;
}

bool terse_models_learn(terse_supervisor *s, const terse_msg *message)
{
    const terse_msg_warmed *warmed = (const terse_msg_warmed *)(const void *)message;
    const terse_msg_held *held = (const terse_msg_held *)(const void *)(warmed + 1);
    if (message->bytes < sizeof *warmed || (message->bytes - sizeof *warmed) / sizeof *held < warmed->n_held)
        return false;
    const terse_msg_warm_cost *costs = (const terse_msg_warm_cost *)(const void *)(held + warmed->n_held);
    const size_t rest = message->bytes - sizeof *warmed - warmed->n_held * sizeof *held, n = rest / sizeof *costs;
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && costs[end].model == costs[first].model; end++)
            ;
        terse_supervised_model *model = costs[first].model < TERSE_MODEL_SLOTS ? &s->models[costs[first].model] : NULL;
        if (!model || model->state != TERSE_MODEL_SERVING || model->n_costs > 0 || end - first > TERSE_WARM_COSTS ||
            !holds(held, warmed->n_held, model))
            continue;
        model->n_costs = (uint32_t)(end - first);
        memcpy(model->costs, costs + first, model->n_costs * sizeof *costs);
    }
    return rest % sizeof *costs == 0;
}

/* --- messages -------------------------------------------------------------------------------------------------- */

/* Threads that have no CPU to run on would only be waited for. */
static uint32_t threads_of(const terse_model_config *config)
{
    const uint64_t wanted = config->value[TERSE_SET_THREADS], usable = terse_cores_usable("");
    return (uint32_t)(wanted < usable ? wanted : usable);
}

void terse_models_send_one(const terse_supervised_model *model, terse_msg_kind kind, terse_child *to)
{
    terse_msg_model message = {
        .model = model->index,
        .max_batch = (uint32_t)model->config->value[TERSE_SET_MAX_BATCH],
        .threads = threads_of(model->config),
        .objective = (uint32_t)model->config->value[TERSE_SET_OBJECTIVE],
        .batch_timeout_us = model->config->value[TERSE_SET_BATCH_TIMEOUT],
        .deadline_ms = model->config->value[TERSE_SET_DEADLINE],
        .hang_timeout_ms = model->config->value[TERSE_SET_HANG_TIMEOUT],
        .bytes = model->bytes,
        .serial = model->serial,
        .pending = model->state == TERSE_MODEL_PENDING,
        .n_costs = model->n_costs,
    };
    memcpy(message.name, model->config->name, sizeof message.name);
    memcpy(message.version, model->config->version, sizeof message.version);
    for (uint32_t i = 0; i < model->n_costs; i++) {
        message.costs[i].rows = model->costs[i].rows;
        message.costs[i].ns = model->costs[i].ns;
    }
    terse_child_send(to, kind, &message.head, sizeof message, kind == TERSE_MSG_MODEL ? model->memory : -1);
}

void terse_models_send(const terse_supervisor *s, terse_child *to)
{
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++)
        if (s->models[i].state == TERSE_MODEL_SERVING)
            terse_models_send_one(&s->models[i], TERSE_MSG_MODEL, to);
}

void terse_models_send_state(const terse_supervised_model *model, terse_msg_kind kind, terse_child *to)
{
    terse_msg_model_state message = {.model = model->index, .serial = model->serial};
    terse_child_send(to, kind, &message.head, sizeof message, -1);
}

void terse_models_done(terse_supervisor *s)
{
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS && s->models; i++) {
        terse_child_done(&s->models[i].loader);
        terse_child_done(&s->models[i].trial);
        terse_models_release(&s->models[i]);
    }
    free(s->models);
    s->models = NULL;
    s->n_models = 0;
}
