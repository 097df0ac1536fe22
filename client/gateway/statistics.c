/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/statistics.h"

#include <string.h>

static void put_duration(terse_json *json, const char *key, uint64_t count, uint64_t us)
{
    terse_json_object(json, key);
    terse_json_uint(json, "count", count);
    terse_json_uint(json, "ns", us * 1000);
    terse_json_end(json);
}

static void put_inference_stats(terse_json *json, const terse_view_model *model)
{
    terse_json_object(json, "inference_stats");
    put_duration(json, "success", model->ok, model->total_us.sum);
    put_duration(json, "fail", terse_view_sum(&model->errors), 0);
    put_duration(json, "queue", model->queue_us.count, model->queue_us.sum);
    put_duration(json, "compute_input", model->compute_us.count, 0); /* tensors lie where they are used */
    put_duration(json, "compute_infer", model->compute_us.count, model->compute_us.sum);
    put_duration(json, "compute_output", model->compute_us.count, 0);
    put_duration(json, "cache_hit", 0, 0);
    put_duration(json, "cache_miss", 0, 0);
    terse_json_end(json);
}

/* What batches of each size have cost, as the daemon's own reckoning has it. */
static void put_batch_stats(terse_json *json, const terse_view_model *model)
{
    terse_json_array(json, "batch_stats");
    for (unsigned i = 0; i < model->n_costs; i++) {
        const uint64_t batches = model->costs[i].batches;
        terse_json_object(json, NULL);
        terse_json_uint(json, "batch_size", model->costs[i].rows);
        put_duration(json, "compute_input", batches, 0);
        put_duration(json, "compute_infer", batches, batches * model->costs[i].us);
        put_duration(json, "compute_output", batches, 0);
        terse_json_end(json);
    }
    terse_json_end(json);
}

static void put_model(terse_json *json, const terse_view_model *model)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "name", model->name);
    terse_json_text(json, "version", model->version);
    terse_json_uint(json, "last_inference", 0); /* the daemon keeps no time of day */
    terse_json_uint(json, "inference_count", model->rows);
    terse_json_uint(json, "execution_count", model->batches);
    put_inference_stats(json, model);
    put_batch_stats(json, model);
    terse_json_array(json, "memory_usage");
    terse_json_end(json);
    terse_json_end(json);
}

void terse_statistics_write(const terse_view *view, const char *model, terse_json *json)
{
    terse_json_object(json, NULL);
    terse_json_array(json, "model_stats");
    for (unsigned i = 0; i < view->n_models; i++)
        if (!*model || strcmp(model, view->models[i].name) == 0)
            put_model(json, &view->models[i]);
    terse_json_end(json);
    terse_json_end(json);
}
