/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/msgpack_json.h"

#include "common/pack.h"

static void put(terse_json *json, const char *key, const msgpack_object *object)
{
    switch (object->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        terse_json_bool(json, key, object->via.boolean);
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        terse_json_uint(json, key, object->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        terse_json_int(json, key, object->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        terse_json_double(json, key, object->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
        terse_json_text_n(json, key, object->via.str.ptr, object->via.str.size);
        break;
    case MSGPACK_OBJECT_ARRAY:
        terse_json_array(json, key);
        for (uint32_t i = 0; i < object->via.array.size; i++)
            put(json, NULL, &object->via.array.ptr[i]);
        terse_json_end(json);
        break;
    case MSGPACK_OBJECT_MAP:
        terse_json_object(json, key);
        for (uint32_t i = 0; i < object->via.map.size; i++) {
            const msgpack_object *name = &object->via.map.ptr[i].key;
            char text[256] = "?";
            if (name->type == MSGPACK_OBJECT_STR)
                snprintf(text, sizeof text, "%.*s", (int)name->via.str.size, name->via.str.ptr);
            put(json, text, &object->via.map.ptr[i].val);
        }
        terse_json_end(json);
        break;
    default:
        terse_json_null(json, key);
    }
}

void terse_msgpack_json(terse_json *json, const char *key, const msgpack_object *object)
{
    put(json, key, object);
}

void terse_msgpack_json_bytes(terse_json *json, const char *key, const void *bytes, size_t size)
{
    msgpack_zone zone;
    msgpack_object object;
    if (!bytes || !msgpack_zone_init(&zone, 8192)) {
        terse_json_null(json, key);
        return;
    }
    if (terse_pack_unpack(bytes, size, 1 << 20, &zone, &object, NULL) == TERSE_OK)
        put(json, key, &object);
    else
        terse_json_null(json, key);
    msgpack_zone_destroy(&zone);
}
