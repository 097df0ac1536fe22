/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/statistics.h"

#include <string.h>

#include "common/pack.h"

enum { MAX_ITEMS = 1 << 20 };

static uint64_t number(const msgpack_object *map, const char *key)
{
    const msgpack_object *found = map ? terse_pack_find(map, key) : NULL;
    return found && found->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? found->via.u64 : 0;
}

static void put_duration(terse_json *json, const char *key, uint64_t count, uint64_t us)
{
    terse_json_object(json, key);
    terse_json_uint(json, "count", count);
    terse_json_uint(json, "ns", us * 1000);
    terse_json_end(json);
}

static uint64_t failures(const msgpack_object *model)
{
    const msgpack_object *errors = terse_pack_find(model, "errors");
    uint64_t sum = 0;
    for (uint32_t i = 0; errors && errors->type == MSGPACK_OBJECT_MAP && i < errors->via.map.size; i++)
        if (errors->via.map.ptr[i].val.type == MSGPACK_OBJECT_POSITIVE_INTEGER)
            sum += errors->via.map.ptr[i].val.via.u64;
    return sum;
}

static void put_inference_stats(terse_json *json, const msgpack_object *model)
{
    const msgpack_object *queue = terse_pack_find(model, "queue_us"), *compute = terse_pack_find(model, "compute_us"),
                         *total = terse_pack_find(model, "total_us");
    terse_json_object(json, "inference_stats");
    put_duration(json, "success", number(model, "ok"), number(total, "sum"));
    put_duration(json, "fail", failures(model), 0);
    put_duration(json, "queue", number(queue, "count"), number(queue, "sum"));
    put_duration(json, "compute_input", number(compute, "count"), 0); /* inputs and outputs lie where they are used */
    put_duration(json, "compute_infer", number(compute, "count"), number(compute, "sum"));
    put_duration(json, "compute_output", number(compute, "count"), 0);
    put_duration(json, "cache_hit", 0, 0);
    put_duration(json, "cache_miss", 0, 0);
    terse_json_end(json);
}

/* What batches of each size have cost, as the daemon's own reckoning has it. */
static void put_batch_stats(terse_json *json, const msgpack_object *model)
{
    const msgpack_object *costs = terse_pack_find(model, "costs");
    terse_json_array(json, "batch_stats");
    for (uint32_t i = 0; costs && costs->type == MSGPACK_OBJECT_ARRAY && i < costs->via.array.size; i++) {
        const msgpack_object *cost = &costs->via.array.ptr[i];
        const uint64_t batches = number(cost, "batches");
        terse_json_object(json, NULL);
        terse_json_uint(json, "batch_size", number(cost, "rows"));
        put_duration(json, "compute_input", batches, 0);
        put_duration(json, "compute_infer", batches, batches * number(cost, "us"));
        put_duration(json, "compute_output", batches, 0);
        terse_json_end(json);
    }
    terse_json_end(json);
}

static void put_model(terse_json *json, const msgpack_object_kv *entry)
{
    const msgpack_object *version = terse_pack_find(&entry->val, "version");
    const bool named = version && version->type == MSGPACK_OBJECT_STR;
    terse_json_object(json, NULL);
    terse_json_text_n(json, "name", entry->key.via.str.ptr, entry->key.via.str.size);
    terse_json_text_n(json, "version", named ? version->via.str.ptr : "", named ? version->via.str.size : 0);
    terse_json_uint(json, "last_inference", 0); /* the daemon keeps no time of day */
    terse_json_uint(json, "inference_count", number(&entry->val, "rows"));
    terse_json_uint(json, "execution_count", number(&entry->val, "batches"));
    put_inference_stats(json, &entry->val);
    put_batch_stats(json, &entry->val);
    terse_json_array(json, "memory_usage");
    terse_json_end(json);
    terse_json_end(json);
}

terse_status terse_statistics_write(const void *bytes, size_t size, const char *model, terse_json *json,
                                    terse_error *error)
{
    msgpack_zone zone;
    msgpack_object object;
    if (!msgpack_zone_init(&zone, 8192))
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    const int status = terse_pack_unpack(bytes, size, MAX_ITEMS, &zone, &object, error);
    const msgpack_object *models = status ? NULL : terse_pack_find(&object, "models");
    terse_json_object(json, NULL);
    terse_json_array(json, "model_stats");
    for (uint32_t i = 0; models && models->type == MSGPACK_OBJECT_MAP && i < models->via.map.size; i++) {
        const msgpack_object_kv *entry = &models->via.map.ptr[i];
        if (entry->key.type == MSGPACK_OBJECT_STR && entry->val.type == MSGPACK_OBJECT_MAP &&
            (!*model || (strlen(model) == entry->key.via.str.size &&
                         memcmp(model, entry->key.via.str.ptr, entry->key.via.str.size) == 0)))
            put_model(json, entry);
    }
    terse_json_end(json);
    terse_json_end(json);
    msgpack_zone_destroy(&zone);
    return (terse_status)status;
}
