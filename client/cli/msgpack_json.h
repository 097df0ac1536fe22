/* SPDX-License-Identifier: Apache-2.0 */
/* msgpack_json.h: shows msgpack as JSON: a model's report, a daemon's statistics.
 * Runs in: terse. What JSON does not have (binary, ext) becomes null. */
#ifndef TERSE_CLI_MSGPACK_JSON_H
#define TERSE_CLI_MSGPACK_JSON_H

#include <msgpack.h>

#include "common/json.h"

void terse_msgpack_json(terse_json *json, const char *key, const msgpack_object *object);
/* The same for packed bytes; null when they are NULL or no msgpack. */
void terse_msgpack_json_bytes(terse_json *json, const char *key, const void *bytes, size_t size);

#endif
