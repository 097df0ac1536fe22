/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/report/fields.h"

#include "common/pack.h"

/* The packer, after the key; NULL: nothing is packed. */
static msgpack_packer *begin(terse_fields *fields, const char *key)
{
    fields->n++;
    if (fields->packer)
        terse_pack_cstr(fields->packer, key);
    return fields->packer;
}

void terse_field_text(terse_fields *fields, const char *key, const char *text)
{
    msgpack_packer *packer = begin(fields, key);
    if (packer)
        terse_pack_cstr(packer, text);
    if (fields->json)
        terse_json_text(fields->json, key, text);
}

void terse_field_int(terse_fields *fields, const char *key, int64_t number)
{
    msgpack_packer *packer = begin(fields, key);
    if (packer)
        msgpack_pack_int64(packer, number);
    if (fields->json)
        terse_json_int(fields->json, key, number);
}

void terse_field_number(terse_fields *fields, const char *key, double number)
{
    msgpack_packer *packer = begin(fields, key);
    if (packer)
        msgpack_pack_double(packer, number);
    if (fields->json)
        terse_json_double(fields->json, key, number);
}

void terse_field_bool(terse_fields *fields, const char *key, bool is)
{
    msgpack_packer *packer = begin(fields, key);
    if (packer)
        (is ? msgpack_pack_true : msgpack_pack_false)(packer);
    if (fields->json)
        terse_json_bool(fields->json, key, is);
}

void terse_field_null(terse_fields *fields, const char *key)
{
    msgpack_packer *packer = begin(fields, key);
    if (packer)
        msgpack_pack_nil(packer);
    if (fields->json)
        terse_json_null(fields->json, key);
}

void terse_field_texts(terse_fields *fields, const char *key, const char *const *list, int n)
{
    msgpack_packer *packer = begin(fields, key);
    if (packer)
        msgpack_pack_array(packer, (uint32_t)n);
    if (fields->json)
        terse_json_array(fields->json, key);
    for (int i = 0; i < n; i++) {
        if (packer)
            terse_pack_cstr(packer, list[i]);
        if (fields->json)
            terse_json_text(fields->json, NULL, list[i]);
    }
    if (fields->json)
        terse_json_end(fields->json);
}
