/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_wire.c: headers of requests and replies from outside. What is accepted must survive a round trip, and be read by
 * forms of those before it as it is read alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"
#include "tests/fuzz/replay.h"

static terse_wire_request request, again;
static terse_wire_reply reply;
static terse_wire_forms forms;
static terse_wire_reply_forms reply_forms;
static uint8_t encoded[TERSE_WIRE_HEADER_BYTES * 2], encoded_like[TERSE_WIRE_HEADER_BYTES * 2];

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_wire: %s\n", what);
    abort();
}

/* Twice: the first time may make the form that the second time is read by. */
static void read_by_forms(const uint8_t *data, size_t size, int status)
{
    terse_error error;
    size_t used = 0, used_like = 0;
    terse_wire_request *like = NULL;
    for (int i = 0; i < 2; i++) {
        require(terse_wire_decode_like(&forms, data, size, &like, &error) == status,
                "a form reads what cannot be read");
        require(like->has_id == request.has_id && (!like->has_id || like->id == request.id), "another id");
        if (status)
            continue;
        require(!terse_wire_encode_request(&request, encoded, sizeof encoded, &used, &error) &&
                    !terse_wire_encode_request(like, encoded_like, sizeof encoded_like, &used_like, &error) &&
                    used == used_like && memcmp(encoded, encoded_like, used) == 0,
                "a form reads another request");
    }
}

static void read_reply_by_forms(const uint8_t *data, size_t size, int status)
{
    terse_error error;
    size_t used = 0, used_like = 0;
    const terse_wire_reply *like = NULL;
    for (int i = 0; i < 2; i++) {
        require(terse_wire_decode_reply_like(&reply_forms, data, size, &like, &error) == status,
                "a form reads a reply that cannot be read");
        if (status)
            continue;
        const int cannot = terse_wire_encode_reply(&reply, encoded, sizeof encoded, &used, &error);
        require(like->id == reply.id && like->status == reply.status &&
                    terse_wire_encode_reply(like, encoded_like, sizeof encoded_like, &used_like, &error) == cannot &&
                    (cannot || (used == used_like && memcmp(encoded, encoded_like, used) == 0)),
                "a form reads another reply");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    terse_error error;
    size_t used = 0;
    const int status = terse_wire_decode_request(data, size, &request, &error);
    read_by_forms(data, size, status);
    if (status == TERSE_OK) {
        require(request.n_inputs <= TERSE_WIRE_MAX_IO && request.has_id, "limits of a request");
        require(!terse_wire_encode_request(&request, encoded, sizeof encoded, &used, &error), error.message);
        require(!terse_wire_decode_request(encoded, used, &again, &error), error.message);
        require(again.op == request.op && again.id == request.id && again.n_inputs == request.n_inputs &&
                    again.n_outputs == request.n_outputs && again.model.length == request.model.length,
                "a request changed on its way");
    }
    const int reply_status = terse_wire_decode_reply(data, size, &reply, &error);
    read_reply_by_forms(data, size, reply_status);
    if (reply_status == TERSE_OK)
        require(reply.n_outputs <= TERSE_WIRE_MAX_IO && reply.n_models <= TERSE_WIRE_MAX_MODELS, "limits of a reply");
    return 0;
}
