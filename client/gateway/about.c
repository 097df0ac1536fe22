/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon tells of itself, in the words of the Open Inference Protocol and of Triton's extensions. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/gateway/asker.h"
#include "client/gateway/statistics.h"
#include "client/view/view.h"
#include "common/bytes.h"
#include "common/json.h"

enum { ANSWER_MS = 2000 };

/* A stream of JSON that becomes the answer's body. */
typedef struct page {
    FILE *stream;
    char *text;
    size_t size;
    terse_json json;
} page;

static bool page_open(page *p)
{
    *p = (page){0};
    p->stream = open_memstream(&p->text, &p->size);
    if (p->stream)
        p->json = terse_json_to(p->stream);
    return p->stream != NULL;
}

static void page_close(page *p, terse_answer *answer)
{
    const bool broken = ferror(p->stream) != 0;
    if (fclose(p->stream) != 0 || broken) {
        answer->body.broken = true;
        free(p->text);
    } else {
        answer->body = (terse_text){.data = p->text, .size = p->size, .capacity = p->size};
    }
    answer->status = MHD_HTTP_OK;
    answer->type = "application/json";
}

/* The thread's last failure of libterse. */
static terse_status last_error(terse_status status, terse_error *error)
{
    return (terse_status)terse_fail(error, status, "%s", terse_last_error());
}

static void put_models_port(terse_json *json, const terse_signature *signature, int output)
{
    const int n = terse_signature_count(signature, output);
    terse_json_array(json, output ? "outputs" : "inputs");
    for (int i = 0; i < n; i++) {
        const int64_t *dims = NULL;
        const int rank = terse_signature_shape(signature, output, i, &dims);
        terse_json_object(json, NULL);
        terse_json_text(json, "name", terse_signature_name(signature, output, i));
        terse_json_text(json, "datatype", terse_dtype_name(terse_signature_dtype(signature, output, i)));
        terse_json_array(json, "shape");
        for (int d = 0; d < rank; d++)
            terse_json_int(json, NULL, dims[d]);
        terse_json_end(json);
        terse_json_end(json);
    }
    terse_json_end(json);
}

static void put_metadata(terse_json *json, const char *model, const char *version, const terse_signature *signature)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "name", model);
    terse_json_array(json, "versions");
    terse_json_text(json, NULL, version);
    terse_json_end(json);
    terse_json_text(json, "platform", "terse");
    put_models_port(json, signature, 0);
    put_models_port(json, signature, 1);
    terse_json_end(json);
}

/* Triton's configuration leaves the batch axis out of the shapes when max_batch_size is not 0. That is for models all
 * of whose inputs and outputs have such an axis. */
static bool has_batch_axis(const terse_signature *signature)
{
    bool all = terse_signature_batchable(signature) != 0;
    for (int output = 0; output < 2; output++)
        for (int i = 0; i < terse_signature_count(signature, output); i++) {
            const int64_t *dims = NULL;
            all &= terse_signature_shape(signature, output, i, &dims) > 0 && dims[0] < 0;
        }
    return all;
}

static void put_config_port(terse_json *json, const terse_signature *signature, int output, bool batched)
{
    const int n = terse_signature_count(signature, output);
    terse_json_array(json, output ? "output" : "input");
    for (int i = 0; i < n; i++) {
        char type[32];
        const int64_t *dims = NULL;
        const int rank = terse_signature_shape(signature, output, i, &dims);
        snprintf(type, sizeof type, "TYPE_%s", terse_dtype_name(terse_signature_dtype(signature, output, i)));
        terse_json_object(json, NULL);
        terse_json_text(json, "name", terse_signature_name(signature, output, i));
        terse_json_text(json, "data_type", type);
        if (!output)
            terse_json_text(json, "format", "FORMAT_NONE");
        terse_json_array(json, "dims");
        for (int d = batched; d < rank; d++)
            terse_json_int(json, NULL, dims[d]);
        terse_json_end(json);
        terse_json_end(json);
    }
    terse_json_end(json);
}

static void put_config(terse_json *json, const char *model, const char *version, const terse_signature *signature)
{
    const bool batched = has_batch_axis(signature);
    terse_json_object(json, NULL);
    terse_json_text(json, "name", model);
    terse_json_text(json, "platform", "terse");
    terse_json_text(json, "backend", "terse");
    terse_json_object(json, "version_policy");
    terse_json_object(json, "specific");
    terse_json_array(json, "versions");
    char *end = NULL;
    const int64_t number = strtoll(version, &end, 10);
    if (end != version && !*end) /* Triton's versions are numbers */
        terse_json_int(json, NULL, number);
    terse_json_end(json);
    terse_json_end(json);
    terse_json_end(json);
    terse_json_int(json, "max_batch_size", batched ? terse_signature_max_batch(signature) : 0);
    put_config_port(json, signature, 0, batched);
    put_config_port(json, signature, 1, batched);
    if (batched) {
        terse_json_object(json, "dynamic_batching");
        terse_json_end(json);
    }
    terse_json_array(json, "instance_group");
    terse_json_object(json, NULL);
    terse_json_text(json, "name", model);
    terse_json_text(json, "kind", "KIND_CPU");
    terse_json_end(json);
    terse_json_end(json);
    terse_json_end(json);
}

/* The version that is served and asked for; NULL, and `error`, when there is none. */
static const char *find_version(const terse_models *models, const terse_route *route, terse_error *error)
{
    bool known = false;
    for (int i = 0; i < terse_models_count(models); i++) {
        if (strcmp(terse_models_name(models, i), route->model) != 0)
            continue;
        known = true;
        if (!*route->version || strcmp(terse_models_version(models, i), route->version) == 0)
            return terse_models_version(models, i);
    }
    if (known)
        terse_fail(error, TERSE_NOT_FOUND, "Request for unknown model: '%.200s' has no version '%.40s'", route->model,
                   route->version);
    else
        terse_fail(error, TERSE_NOT_FOUND, "Request for unknown model: '%.200s' is not found", route->model);
    return NULL;
}

static terse_status about_model(terse_client *client, const terse_route *route, const char *version,
                                terse_answer *answer, terse_error *error)
{
    terse_signature *signature = NULL;
    page p;
    terse_status status = terse_client_metadata(client, route->model, ANSWER_MS, &signature);
    if (status)
        return last_error(status, error);
    if (!page_open(&p)) {
        terse_signature_free(signature);
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    }
    if (route->kind == TERSE_ROUTE_MODEL)
        put_metadata(&p.json, route->model, version, signature);
    else
        put_config(&p.json, route->model, version, signature);
    terse_signature_free(signature);
    page_close(&p, answer);
    return TERSE_OK;
}

static terse_status about_ready(terse_client *client, const char *model, terse_answer *answer, terse_error *error)
{
    const terse_status status = terse_client_ready(client, *model ? model : NULL, ANSWER_MS);
    if (status)
        return last_error(status, error);
    terse_text_cstr(&answer->body, "{");
    if (*model) {
        terse_text_cstr(&answer->body, "\"name\":");
        terse_text_json(&answer->body, model);
        terse_text_cstr(&answer->body, ",");
    }
    terse_text_cstr(&answer->body, "\"ready\":true}");
    answer->status = MHD_HTTP_OK;
    answer->type = "application/json";
    return TERSE_OK;
}

terse_status terse_about_view(terse_client *client, terse_view **ret_view, terse_error *error)
{
    terse_stats *stats = NULL;
    size_t size = 0;
    const terse_status asked = terse_client_stats(client, ANSWER_MS, &stats);
    if (asked)
        return last_error(asked, error);
    const void *bytes = terse_stats_msgpack(stats, &size);
    const int status = terse_view_read(bytes, size, ret_view, error);
    terse_stats_free(stats);
    return (terse_status)status;
}

static terse_status about_statistics(terse_client *client, const terse_route *route, terse_answer *answer,
                                     terse_error *error)
{
    terse_view *view = NULL;
    page p;
    const terse_status status = terse_about_view(client, &view, error);
    if (status)
        return status;
    const bool open = page_open(&p);
    if (open) {
        terse_statistics_write(view, route->model, &p.json);
        page_close(&p, answer);
    }
    terse_view_free(view);
    return open ? TERSE_OK : (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
}

static terse_status about_metrics(terse_client *client, terse_answer *answer, terse_error *error)
{
    terse_view *view = NULL;
    char *text = NULL;
    size_t size = 0;
    int status = terse_about_view(client, &view, error);
    if (!status)
        status = terse_view_openmetrics(view, &text, &size, error);
    terse_view_free(view);
    if (status)
        return (terse_status)status;
    answer->body = (terse_text){.data = text, .size = size, .capacity = size};
    answer->status = MHD_HTTP_OK;
    answer->type = TERSE_VIEW_OPENMETRICS_TYPE;
    return TERSE_OK;
}

static terse_status about_picture(const terse_live *live, terse_answer *answer, terse_error *error)
{
    page p;
    if (!terse_live_view(live))
        return (terse_status)terse_fail(error, TERSE_UNAVAILABLE, "the daemon does not answer");
    if (!page_open(&p))
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    terse_live_write(live, &p.json);
    page_close(&p, answer);
    return TERSE_OK;
}

static const char *triton_state(const char *state)
{
    return strcmp(state, "ready") == 0 ? "READY" : strcmp(state, "loading") == 0 ? "LOADING" : "UNLOADING";
}

static terse_status about_index(const terse_models *models, terse_answer *answer, terse_error *error)
{
    page p;
    if (!page_open(&p))
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    terse_json_array(&p.json, NULL);
    for (int i = 0; i < terse_models_count(models); i++) {
        terse_json_object(&p.json, NULL);
        terse_json_text(&p.json, "name", terse_models_name(models, i));
        terse_json_text(&p.json, "version", terse_models_version(models, i));
        terse_json_text(&p.json, "state", triton_state(terse_models_state(models, i)));
        terse_json_text(&p.json, "reason", "");
        terse_json_end(&p.json);
    }
    terse_json_end(&p.json);
    page_close(&p, answer);
    return TERSE_OK;
}

static terse_status ask(terse_client *client, const terse_live *live, const terse_route *route, terse_answer *answer,
                        terse_error *error)
{
    terse_models *models = NULL;
    if (route->kind == TERSE_ROUTE_READY)
        return about_ready(client, "", answer, error);
    if (route->kind == TERSE_ROUTE_METRICS)
        return about_metrics(client, answer, error);
    if (route->kind == TERSE_ROUTE_PICTURE)
        return about_picture(live, answer, error);
    terse_status status = terse_client_models(client, ANSWER_MS, &models);
    if (status)
        return last_error(status, error);
    const char *version = *route->model ? find_version(models, route, error) : "";
    if (!version)
        status = error->status;
    else if (route->kind == TERSE_ROUTE_INDEX)
        status = about_index(models, answer, error);
    else if (route->kind == TERSE_ROUTE_MODEL_READY)
        status = about_ready(client, route->model, answer, error);
    else if (route->kind == TERSE_ROUTE_STATS)
        status = about_statistics(client, route, answer, error);
    else
        status = about_model(client, route, version, answer, error);
    terse_models_free(models);
    return status;
}

terse_status terse_about(terse_client *client, const terse_live *live, const terse_route *route, terse_answer *answer)
{
    terse_error error = {0};
    const terse_status status = ask(client, live, route, answer, &error);
    if (status)
        /* Nobody set a time for these questions: one that is not answered found no daemon. */
        terse_answer_error(answer, status == TERSE_DEADLINE_EXCEEDED ? TERSE_UNAVAILABLE : status, -1, error.message);
    return status;
}
