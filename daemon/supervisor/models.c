/* SPDX-License-Identifier: Apache-2.0 */
/* Models: one short-lived loader for each file. The supervisor reads none of a file's bytes: it passes a path and gets
 * back a sealed memfd and its size. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/cores.h"
#include "daemon/supervisor/supervisor.h"

static const unsigned all_seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

static void bad_model(terse_supervisor *s, terse_supervised_model *model, const char *why)
{
    model->answered = true;
    s->n_bad_models++;
    terse_log(TERSE_LOG_ERROR, "model '%s' ('%s'): %s", model->config->name, model->config->file, why);
}

/* A loader may have been taken over by the file that it read: what it sends is checked as well. */
static void take_memory(terse_supervisor *s, terse_supervised_model *model, const terse_msg_loaded *loaded, int fd)
{
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0 || loaded->bytes == 0 || (uint64_t)info.st_size != loaded->bytes) {
        bad_model(s, model, "its loader answered without the model's memory");
        return;
    }
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || ((unsigned)seals & all_seals) != all_seals) {
        bad_model(s, model, "its loader answered with memory that is not sealed");
        return;
    }
    model->memory = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (model->memory < 0) {
        bad_model(s, model, strerror(errno));
        return;
    }
    model->answered = true;
    model->bytes = loaded->bytes;
    terse_log(TERSE_LOG_INFO, "model '%s': loaded '%s', %" PRIu64 " bytes, max_batch %" PRIu64 "%s",
              model->config->name, model->config->file, model->bytes, model->config->value[TERSE_SET_MAX_BATCH],
              loaded->batchable ? "" : ", requests run one by one");
}

static void on_message(terse_child *child, const terse_msg *message, int fd)
{
    terse_supervisor *s = child->owner;
    terse_supervised_model *model = &s->models[child->index];
    TERSE_AUTO(terse_close_fdp) int received = fd;
    const terse_msg_loaded *loaded = (const terse_msg_loaded *)message;
    if (model->answered)
        return;
    if (message->kind != TERSE_MSG_LOADED || message->bytes != sizeof *loaded) {
        bad_model(s, model, "its loader sent what it should not");
        return;
    }
    terse_child_arm(child, 0);
    if (loaded->status == TERSE_OK) {
        take_memory(s, model, loaded, received);
    } else {
        char why[sizeof loaded->error];
        snprintf(why, sizeof why, "%.*s", (int)sizeof loaded->error - 1, loaded->error);
        bad_model(s, model, why);
    }
}

static void on_timer(terse_child *child)
{
    terse_supervisor *s = child->owner;
    char why[128];
    snprintf(why, sizeof why, "not loaded after %" PRIu64 " ms (load_timeout_ms)",
             s->config->value[TERSE_SET_LOAD_TIMEOUT]);
    bad_model(s, &s->models[child->index], why);
    terse_child_kill(child);
}

static void on_exit_status(terse_child *child, int wait_status)
{
    terse_supervisor *s = child->owner;
    terse_supervised_model *model = &s->models[child->index];
    s->n_loading--;
    if (s->phase == TERSE_PHASE_LOADING) {
        if (!model->answered) {
            char status[64], why[128];
            snprintf(why, sizeof why, "its loader ended with %s",
                     terse_wait_status_text(wait_status, status, sizeof status));
            bad_model(s, model, why);
        }
        terse_models_load(s);
    }
    terse_supervisor_reaped(s);
}

static const terse_child_events events = {.message = on_message, .exited = on_exit_status, .timer = on_timer};

static void start_loader(terse_supervisor *s, terse_supervised_model *model)
{
    char *argv[] = {(char[]){"terse-loader"}, NULL};
    terse_msg_load load = {.path = ""};
    terse_error error;
    if (terse_child_start(&model->loader, s->programs->loader, argv, &error) != TERSE_OK) {
        bad_model(s, model, error.message);
        return;
    }
    s->n_loading++;
    snprintf(load.path, sizeof load.path, "%s", model->config->file);
    terse_child_send(&model->loader, TERSE_MSG_LOAD, &load.head, sizeof load, -1);
    terse_child_arm(&model->loader, s->config->value[TERSE_SET_LOAD_TIMEOUT]);
}

void terse_models_load(terse_supervisor *s)
{
    while (s->next_model < s->n_models && s->n_loading < s->n_workers)
        start_loader(s, &s->models[s->next_model++]);
    if (s->next_model == s->n_models && s->n_loading == 0)
        terse_supervisor_loaded(s);
}

int terse_models_init(terse_supervisor *s, terse_error *error)
{
    s->n_models = s->config->n_models;
    s->models = calloc(s->n_models, sizeof *s->models);
    if (!s->models)
        return terse_fail(error, TERSE_SYSTEM, "cannot keep %u models", s->n_models);
    for (unsigned i = 0; i < s->n_models; i++) {
        s->models[i].config = &s->config->models[i];
        s->models[i].memory = -1;
        terse_child_init(&s->models[i].loader, s->loop, &events, s, "loader", i);
    }
    return TERSE_OK;
}

/* Threads that have no CPU to run on would only be waited for. */
static uint32_t threads_of(const terse_model_config *config)
{
    const uint64_t wanted = config->value[TERSE_SET_THREADS], usable = terse_cores_usable("");
    return (uint32_t)(wanted < usable ? wanted : usable);
}

void terse_models_send(const terse_supervisor *s, terse_child *to)
{
    for (unsigned i = 0; i < s->n_models; i++) {
        const terse_supervised_model *model = &s->models[i];
        terse_msg_model message = {
            .model = i,
            .max_batch = (uint32_t)model->config->value[TERSE_SET_MAX_BATCH],
            .threads = threads_of(model->config),
            .objective = (uint32_t)model->config->value[TERSE_SET_OBJECTIVE],
            .batch_timeout_us = model->config->value[TERSE_SET_BATCH_TIMEOUT],
            .deadline_ms = model->config->value[TERSE_SET_DEADLINE],
            .hang_timeout_ms = model->config->value[TERSE_SET_HANG_TIMEOUT],
            .bytes = model->bytes,
        };
        memcpy(message.name, model->config->name, sizeof message.name);
        memcpy(message.version, model->config->version, sizeof message.version);
        terse_child_send(to, TERSE_MSG_MODEL, &message.head, sizeof message, model->memory);
    }
}

void terse_models_done(terse_supervisor *s)
{
    for (unsigned i = 0; i < s->n_models; i++) {
        terse_child_done(&s->models[i].loader);
        if (s->models[i].memory >= 0)
            close(s->models[i].memory);
    }
    free(s->models);
    s->models = NULL;
    s->n_models = 0;
}
