/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes.
 *
 * Operations change what is served while it is served: load, unload, configure. They come from clients by way of the
 * front end (ADMIN, answered by ADMIN_DONE), loads and unloads also from SIGHUP (reread.c).
 *
 *   One load is under way at a time, and the others wait in the order in which they came, so that two loads of one name
 *   end as the second wants it. An unload begins when its turn has come and does not keep others waiting while what the
 *   model has is finished. configure is done at once.
 *
 *   A load goes LOADING (loader) -> TRYING (a worker of its own) -> PENDING (the front end gives it to every worker) ->
 *   SERVING. Whatever goes wrong before: its slot is released, the reason is told and logged, and what served before
 *   has noticed nothing.
 *
 *   The supervisor knows what serves; a front end knows what is on its way. When the front end dies, its clients ask
 *   its successor again (libterse does so by itself): a load that they wanted is given up and comes again; one that was
 *   done is answered from `finished`; SIGHUP's go on with the new front end. What was draining is gone with the
 *   requests that held it. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/supervisor.h"

enum { MOST_WAITING = 64 + TERSE_MAX_MODELS }; /* SIGHUP may bring as many as there are models */

struct terse_operation {
    terse_operation *next;
    terse_msg_admin order;
    bool ours;                     /* SIGHUP's */
    terse_model_config *config;    /* LOAD, until it has a slot */
    terse_supervised_model *model; /* LOAD, from then on */
    terse_status drop_status;      /* DROPPING: why */
    char drop_reason[256];
};

static void start_next(terse_supervisor *s);

/* --- the end of an operation ----------------------------------------------------------------------------------- */

static void remember(terse_supervisor *s, const terse_msg_admin *order, const terse_msg_admin_done *done)
{
    if (!order->has_session)
        return;
    const unsigned at = s->n_finished++ % (sizeof s->finished / sizeof s->finished[0]);
    memcpy(s->finished[at].session, order->session, sizeof order->session);
    s->finished[at].id = order->id;
    s->finished[at].done = *done;
}

static void answer(terse_supervisor *s, const terse_msg_admin *order, terse_status status, const char *why)
{
    terse_msg_admin_done done = {.token = order->token, .status = status, .workers = s->n_workers};
    snprintf(done.error, sizeof done.error, "%s", why);
    remember(s, order, &done);
    terse_child_send(&s->frontend, TERSE_MSG_ADMIN_DONE, &done.head, sizeof done, -1);
}

/* Frees it. */
static void end(terse_supervisor *s, terse_operation *operation, terse_status status, const char *why)
{
    static const char *const verbs[] = {"load", "unload", "configure"};
    const terse_msg_admin *order = &operation->order;
    if (status && operation->ours)
        s->n_reread_failures++;
    if (status)
        terse_log_of((.model = order->name, .reason = why), TERSE_LOG_ERROR, "%s '%s'%s%s%s: nothing has changed: %s",
                     verbs[order->kind], order->name, *order->path ? " from '" : "", order->path,
                     *order->path ? "'" : "", why);
    if (!operation->ours)
        answer(s, order, status, why);
    free(operation->config);
    const bool ours = operation->ours;
    free(operation);
    if (ours && --s->n_rereading == 0 && s->phase == TERSE_PHASE_SERVING)
        terse_reread_end(s);
    terse_notify_status(s, "");
}

/* --- loads ----------------------------------------------------------------------------------------------------- */

static void disarm(terse_supervisor *s)
{
    if (s->operation_timer)
        sd_event_source_set_enabled(s->operation_timer, SD_EVENT_OFF);
}

static void end_load(terse_supervisor *s, terse_status status, const char *why)
{
    terse_operation *operation = s->operation;
    char reason[512]; /* `why` may be of what is freed */
    snprintf(reason, sizeof reason, "%s", why);
    disarm(s);
    s->operation = NULL;
    if (status && operation->model)
        terse_models_release(operation->model);
    if (status && operation->ours) { /* so that the next SIGHUP tries again */
        terse_model_config *config = terse_config_model(s->config, operation->order.name);
        if (config)
            config->mark = (terse_file_mark){0};
    }
    end(s, operation, status, reason);
    start_next(s);
}

void terse_operations_failed(terse_supervisor *s, terse_supervised_model *model, terse_status status, const char *why)
{
    if (s->operation && s->operation->model == model)
        end_load(s, status, why);
}

/* The workers take too long, or do not take it at all. The front end may just have switched: it has the last word. */
static int on_late(sd_event_source *source, uint64_t now_us, void *user)
{
    terse_supervisor *s = user;
    terse_operation *operation = s->operation;
    (void)source;
    (void)now_us;
    if (!operation || !operation->model || operation->model->state != TERSE_MODEL_PENDING)
        return 0;
    operation->drop_status = TERSE_DEADLINE_EXCEEDED;
    snprintf(operation->drop_reason, sizeof operation->drop_reason,
             "the workers did not all warm it within %" PRIu64 " ms (warm_timeout_ms)",
             s->config->value[TERSE_SET_WARM_TIMEOUT]);
    if (!terse_child_serves(&s->frontend)) {
        end_load(s, operation->drop_status, operation->drop_reason);
        return 0;
    }
    operation->model->state = TERSE_MODEL_DROPPING;
    terse_models_send_state(operation->model, TERSE_MSG_MODEL_DROP, &s->frontend);
    return 0;
}

static void arm(terse_supervisor *s)
{
    const uint64_t after_us = s->config->value[TERSE_SET_WARM_TIMEOUT] * 1000;
    int r;
    if (!s->operation_timer) {
        r = sd_event_add_time_relative(s->loop, &s->operation_timer, CLOCK_MONOTONIC, after_us, 1000, on_late, s);
    } else {
        r = sd_event_source_set_time_relative(s->operation_timer, after_us);
        if (r >= 0)
            r = sd_event_source_set_enabled(s->operation_timer, SD_EVENT_ONESHOT);
    }
    if (r < 0)
        terse_log(TERSE_LOG_ERROR, "no timer for a load: %s", strerror(-r));
}

void terse_operations_tried(terse_supervisor *s, terse_supervised_model *model)
{
    if (!s->operation || s->operation->model != model)
        return;
    model->state = TERSE_MODEL_PENDING;
    arm(s);
    terse_models_send_one(model, TERSE_MSG_MODEL, &s->frontend); /* or once there is one again */
}

static void begin_load(terse_supervisor *s, terse_operation *operation)
{
    terse_error error;
    s->operation = operation;
    terse_model_config *config = operation->config;
    terse_log_of((.model = config->name), TERSE_LOG_INFO, "model '%s': loading version '%s' from '%s'", config->name,
                 config->version, config->file);
    /* Before it has its slot nothing can fail by event; behind that `failed` finds it by the slot. */
    operation->config = NULL;
    if (terse_models_begin(s, config, &operation->model, &error)) {
        operation->config = config;
        operation->model = NULL;
        end_load(s, error.status, error.message);
    }
}

static void switched(terse_supervisor *s, terse_supervised_model *model)
{
    terse_supervised_model *old = terse_models_serving(s, model->config->name);
    if (old)
        old->state = TERSE_MODEL_DRAINING;
    model->state = TERSE_MODEL_SERVING;
    terse_models_keep(s, model);
    terse_log_of((.model = model->config->name), TERSE_LOG_NOTICE, "model '%s': version '%s' serves ('%s')",
                 model->config->name, model->config->version, model->config->file);
    end_load(s, TERSE_OK, "");
}

/* --- unloads --------------------------------------------------------------------------------------------------- */

static void drained(terse_supervisor *s, terse_supervised_model *model)
{
    terse_operation *operation = model->unload;
    terse_log_of((.model = model->config->name), TERSE_LOG_INFO, "model '%s': version '%s' is gone",
                 model->config->name, model->config->version);
    model->unload = NULL;
    terse_models_release(model);
    if (operation)
        end(s, operation, TERSE_OK, "");
}

static void begin_unload(terse_supervisor *s, terse_operation *operation)
{
    terse_supervised_model *model = terse_models_serving(s, operation->order.name);
    if (!model) {
        char why[TERSE_MODEL_NAME + 32];
        snprintf(why, sizeof why, "no model '%s' is served", operation->order.name);
        end(s, operation, TERSE_NOT_FOUND, why);
        return;
    }
    model->state = TERSE_MODEL_DRAINING;
    model->unload = operation;
    terse_log_of((.model = model->config->name), TERSE_LOG_NOTICE, "model '%s': version '%s' ends", model->config->name,
                 model->config->version);
    if (terse_child_serves(&s->frontend))
        terse_models_send_state(model, TERSE_MSG_MODEL_DRAIN, &s->frontend);
    else
        drained(s, model);
    terse_notify_status(s, "");
}

/* --- the queue ------------------------------------------------------------------------------------------------- */

static void start_next(terse_supervisor *s)
{
    while (!s->operation && s->first_waiting) {
        terse_operation *operation = s->first_waiting;
        s->first_waiting = operation->next;
        if (!s->first_waiting)
            s->last_waiting = NULL;
        s->n_waiting--;
        if (operation->order.kind == TERSE_ADMIN_LOAD)
            begin_load(s, operation);
        else
            begin_unload(s, operation);
    }
}

static void enqueue(terse_supervisor *s, terse_operation *operation)
{
    operation->next = NULL;
    if (s->last_waiting)
        s->last_waiting->next = operation;
    else
        s->first_waiting = operation;
    s->last_waiting = operation;
    s->n_waiting++;
    start_next(s);
}

/* --- what clients want ----------------------------------------------------------------------------------------- */

static void answer_failed(terse_supervisor *s, const terse_msg_admin *order, terse_status status, const char *format,
                          ...) __attribute__((format(printf, 4, 5)));

static void answer_failed(terse_supervisor *s, const terse_msg_admin *order, terse_status status, const char *format,
                          ...)
{
    char why[sizeof((terse_msg_admin_done *)0)->error];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    answer(s, order, status, why);
}

/* The model as a client wants it: like the version that serves, or as the configuration has it for a new one. */
static int describe_load(const terse_supervisor *s, const terse_msg_admin *order, terse_model_config *config,
                         terse_error *error)
{
    const int status = terse_config_check_name(order->name, strlen(order->name), error);
    if (status)
        return status;
    if (order->path[0] != '/')
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "file: found '%.300s', allowed: an absolute path",
                          order->path);
    const terse_supervised_model *served = terse_models_serving(s, order->name);
    if (served)
        *config = *served->config;
    memcpy(config->name, order->name, sizeof config->name);
    memcpy(config->file, order->path, sizeof config->file);
    config->mark = terse_config_mark(config->file);
    snprintf(config->version, sizeof config->version, "%s", *order->version ? order->version : "1");
    if (!served)
        terse_config_settle(s->config, config);
    return TERSE_OK;
}

static void order_load(terse_supervisor *s, const terse_msg_admin *order)
{
    terse_error error;
    terse_operation *operation = s->n_waiting < MOST_WAITING ? calloc(1, sizeof *operation) : NULL;
    terse_model_config *config = calloc(1, sizeof *config);
    if (!operation || !config) {
        free(operation);
        free(config);
        answer_failed(s, order, TERSE_RESOURCE_EXHAUSTED, "%u operations wait already", s->n_waiting);
        return;
    }
    if (describe_load(s, order, config, &error)) {
        free(operation);
        free(config);
        answer_failed(s, order, error.status, "%s", error.message);
        return;
    }
    operation->order = *order;
    operation->config = config;
    enqueue(s, operation);
}

static void order_unload(terse_supervisor *s, const terse_msg_admin *order)
{
    terse_operation *operation = s->n_waiting < MOST_WAITING ? calloc(1, sizeof *operation) : NULL;
    if (!operation) {
        answer_failed(s, order, TERSE_RESOURCE_EXHAUSTED, "%u operations wait already", s->n_waiting);
        return;
    }
    operation->order = *order;
    enqueue(s, operation);
}

static bool allowed(terse_supervisor *s, const terse_msg_admin *order, bool there, terse_setting_id id, uint64_t value)
{
    const terse_setting *setting = &terse_settings[id];
    if (!there || (value >= setting->minimum && value <= setting->maximum))
        return true;
    answer_failed(s, order, TERSE_INVALID_ARGUMENT, "%s: found %" PRIu64 ", allowed: %" PRIu64 "..%" PRIu64,
                  setting->name, value, setting->minimum, setting->maximum);
    return false;
}

static void set_values(uint64_t *values, const terse_msg_admin *order)
{
    if (order->has_max_batch)
        values[TERSE_SET_MAX_BATCH] = order->max_batch;
    if (order->has_batch_timeout)
        values[TERSE_SET_BATCH_TIMEOUT] = order->batch_timeout_us;
}

/* Also for versions that are on their way. */
static void order_configure(terse_supervisor *s, const terse_msg_admin *order)
{
    if (*order->name && !terse_models_serving(s, order->name)) {
        answer_failed(s, order, TERSE_NOT_FOUND, "no model '%s' is served", order->name);
        return;
    }
    if (!allowed(s, order, order->has_max_batch, TERSE_SET_MAX_BATCH, order->max_batch) ||
        !allowed(s, order, order->has_batch_timeout, TERSE_SET_BATCH_TIMEOUT, order->batch_timeout_us) ||
        !allowed(s, order, order->has_workers, TERSE_SET_WORKERS, order->workers))
        return;
    if (!*order->name)
        set_values(s->config->value, order);
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++) {
        terse_supervised_model *model = &s->models[i];
        if (!model->config || model->state == TERSE_MODEL_DRAINING ||
            (*order->name && strcmp(model->config->name, order->name) != 0))
            continue;
        set_values(model->config->value, order);
        if (model->state == TERSE_MODEL_SERVING || model->state == TERSE_MODEL_PENDING)
            terse_models_send_one(model, TERSE_MSG_MODEL_LIMITS, &s->frontend);
    }
    if (order->has_workers)
        terse_pool_resize(s, (unsigned)order->workers);
    answer(s, order, TERSE_OK, "");
}

static bool was_finished(terse_supervisor *s, const terse_msg_admin *order)
{
    for (unsigned i = 0; order->has_session && i < sizeof s->finished / sizeof s->finished[0]; i++)
        if (i < s->n_finished && s->finished[i].id == order->id &&
            memcmp(s->finished[i].session, order->session, sizeof order->session) == 0) {
            terse_msg_admin_done done = s->finished[i].done;
            done.token = order->token;
            terse_child_send(&s->frontend, TERSE_MSG_ADMIN_DONE, &done.head, sizeof done, -1);
            return true;
        }
    return false;
}

void terse_operations_order(terse_supervisor *s, const terse_msg_admin *message)
{
    terse_msg_admin order = *message; /* the front end reads what strangers send: texts end where they must */
    order.name[sizeof order.name - 1] = order.version[sizeof order.version - 1] = order.path[sizeof order.path - 1] = 0;
    if (was_finished(s, &order))
        return;
    if (s->phase != TERSE_PHASE_SERVING)
        answer_failed(s, &order, TERSE_UNAVAILABLE, "the daemon is %s", terse_phase_name(s->phase));
    else if (order.kind == TERSE_ADMIN_LOAD)
        order_load(s, &order);
    else if (order.kind == TERSE_ADMIN_UNLOAD)
        order_unload(s, &order);
    else if (order.kind == TERSE_ADMIN_CONFIGURE)
        order_configure(s, &order);
    else
        answer_failed(s, &order, TERSE_UNIMPLEMENTED, "operation %" PRIu32 " is not known", order.kind);
}

/* --- what SIGHUP wants ----------------------------------------------------------------------------------------- */

void terse_operations_load(terse_supervisor *s, terse_model_config *config)
{
    terse_operation *operation = calloc(1, sizeof *operation);
    if (!operation) {
        terse_log(TERSE_LOG_ERROR, "model '%s': not loaded: no memory", config->name);
        s->n_reread_failures++;
        free(config);
        return;
    }
    operation->ours = true;
    operation->order.kind = TERSE_ADMIN_LOAD;
    memcpy(operation->order.name, config->name, sizeof operation->order.name);
    memcpy(operation->order.path, config->file, sizeof operation->order.path);
    operation->config = config;
    s->n_rereading++;
    enqueue(s, operation);
}

void terse_operations_unload(terse_supervisor *s, const char *name)
{
    terse_operation *operation = calloc(1, sizeof *operation);
    if (!operation) {
        terse_log(TERSE_LOG_ERROR, "model '%s': not unloaded: no memory", name);
        s->n_reread_failures++;
        return;
    }
    operation->ours = true;
    operation->order.kind = TERSE_ADMIN_UNLOAD;
    snprintf(operation->order.name, sizeof operation->order.name, "%s", name);
    s->n_rereading++;
    enqueue(s, operation);
}

/* --- what the front end tells, and its end --------------------------------------------------------------------- */

void terse_operations_message(terse_supervisor *s, const terse_msg_model_state *message)
{
    terse_supervised_model *model = message->model < TERSE_MODEL_SLOTS ? &s->models[message->model] : NULL;
    if (!model || !model->config || model->serial != message->serial)
        return;
    const bool ours = s->operation && s->operation->model == model;
    const bool on_its_way = model->state == TERSE_MODEL_PENDING || model->state == TERSE_MODEL_DROPPING;
    if (message->head.kind == TERSE_MSG_MODEL_SWITCHED && ours && on_its_way) {
        switched(s, model);
    } else if (message->head.kind == TERSE_MSG_MODEL_FAILED && ours && on_its_way) {
        char why[sizeof message->error];
        snprintf(why, sizeof why, "%.*s", (int)sizeof message->error - 1, message->error);
        end_load(s,
                 message->status > TERSE_OK && message->status < TERSE_SYSTEM ? (terse_status)message->status
                                                                              : TERSE_INTERNAL,
                 why);
    } else if (message->head.kind == TERSE_MSG_MODEL_GONE && model->state == TERSE_MODEL_DRAINING) {
        drained(s, model);
    } else if (message->head.kind == TERSE_MSG_MODEL_GONE && ours && model->state == TERSE_MODEL_DROPPING) {
        end_load(s, s->operation->drop_status, s->operation->drop_reason);
    }
}

static void drop_waiting(terse_supervisor *s, bool of_clients_only, terse_status status, const char *why)
{
    terse_operation *waiting = s->first_waiting;
    s->first_waiting = s->last_waiting = NULL;
    s->n_waiting = 0;
    for (terse_operation *next; waiting; waiting = next) {
        next = waiting->next;
        if (of_clients_only && waiting->ours) {
            waiting->next = NULL;
            *(s->last_waiting ? &s->last_waiting->next : &s->first_waiting) = waiting;
            s->last_waiting = waiting;
            s->n_waiting++;
        } else if (of_clients_only) { /* it will come again */
            free(waiting->config);
            free(waiting);
        } else {
            end(s, waiting, status, why);
        }
    }
}

void terse_operations_front_gone(terse_supervisor *s)
{
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS && s->models; i++)
        if (s->models[i].state == TERSE_MODEL_DRAINING)
            drained(s, &s->models[i]);
    drop_waiting(s, true, TERSE_OK, "");
    terse_operation *operation = s->operation;
    if (operation && !operation->ours) {
        terse_log(TERSE_LOG_WARNING, "model '%s': loading is given up with the front end that asked for it",
                  operation->order.name);
        disarm(s);
        s->operation = NULL;
        if (operation->model)
            terse_models_release(operation->model);
        free(operation->config);
        free(operation);
    } else if (operation && operation->model && operation->model->state == TERSE_MODEL_DROPPING) {
        end_load(s, operation->drop_status, operation->drop_reason);
    }
    start_next(s);
}

void terse_operations_front_started(terse_supervisor *s)
{
    if (s->operation && s->operation->model && s->operation->model->state == TERSE_MODEL_PENDING)
        terse_models_send_one(s->operation->model, TERSE_MSG_MODEL, &s->frontend);
}

void terse_operations_stop(terse_supervisor *s)
{
    static const char why[] = "the daemon is shutting down";
    drop_waiting(s, false, TERSE_UNAVAILABLE, why);
    if (s->operation)
        end_load(s, TERSE_UNAVAILABLE, why);
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS && s->models; i++)
        if (s->models[i].unload) {
            terse_operation *operation = s->models[i].unload;
            s->models[i].unload = NULL;
            end(s, operation, TERSE_UNAVAILABLE, why);
        }
}
