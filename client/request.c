/* SPDX-License-Identifier: Apache-2.0 */
#include "client/arena.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool is_name(const char *text)
{
    return text && *text && strlen(text) <= TERSE_WIRE_MAX_TEXT;
}

static void find_throttle(terse_request *request)
{
    request->throttle_key =
        terse_throttle_key(request->model, request->version, request->priority, request->timeout_us);
}

terse_request *terse_request_new(const char *model)
{
    if (!is_name(model)) {
        CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "a model's name has 1 to %d bytes", TERSE_WIRE_MAX_TEXT);
        return NULL;
    }
    terse_request *request = calloc(1, sizeof *request);
    if (request && !(request->model = strdup(model))) {
        free(request);
        request = NULL;
    }
    if (request)
        find_throttle(request);
    else
        CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a request");
    return request;
}

void terse_request_free(terse_request *request)
{
    if (!request)
        return;
    for (int i = 0; i < request->n_inputs; i++) {
        free(request->inputs[i].name);
        zmq_msg_close(&request->inputs[i].data);
    }
    for (int i = 0; i < request->n_outputs; i++)
        free(request->outputs[i].name);
    free(request->model);
    free(request->version);
    free(request);
}

static terse_status check_tensor(const char *name, terse_dtype dtype, int rank, const int64_t *dims, const void *data,
                                 int64_t *ret_bytes)
{
    char text[128];
    if (!is_name(name))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "an input's name has 1 to %d bytes", TERSE_WIRE_MAX_TEXT);
    if (terse_dtype_size(dtype) == 0)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "input '%s': %d is no element type", name, (int)dtype);
    if (rank < 0 || rank > TERSE_MAX_RANK || (rank > 0 && !dims))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "input '%s': rank %d, allowed are 0 to %d", name, rank,
                           TERSE_MAX_RANK);
    const int64_t count = terse_dims_count(dims, rank);
    if (count < 0 || count > TERSE_MAX_TENSOR_BYTES / 8)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "input '%s': %s is no shape, or too large", name,
                           terse_dims_text(dims, rank, text, sizeof text));
    if (count > 0 && !data)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "input '%s' has no data", name);
    *ret_bytes = count * (int64_t)terse_dtype_size(dtype);
    return TERSE_OK;
}

/* Gives an input its name and shape, a new one or the one of that name; `data` (emptied) or the place says where it is.
 */
static terse_status set_input(terse_request *request, const char *name, terse_dtype dtype, int rank,
                              const int64_t *dims, zmq_msg_t *data, const uint64_t *place)
{
    int at = 0;
    while (at < request->n_inputs && strcmp(request->inputs[at].name, name) != 0)
        at++;
    if (at == TERSE_WIRE_MAX_IO)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "input '%s': at most %d inputs are allowed", name,
                           TERSE_WIRE_MAX_IO);
    request_input *input = &request->inputs[at];
    if (at == request->n_inputs) {
        if (!(input->name = strdup(name)))
            return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for input '%s'", name);
        zmq_msg_init(&input->data);
        request->n_inputs++;
    }
    zmq_msg_move(&input->data, data); /* frees what was there */
    input->placed = place != NULL;
    input->offset = place ? *place : 0;
    input->dtype = dtype;
    input->rank = rank;
    for (int i = 0; i < rank; i++)
        input->dims[i] = dims[i];
    return TERSE_OK;
}

terse_status terse_request_add_input(terse_request *request, const char *name, terse_dtype dtype, int rank,
                                     const int64_t *dims, const void *data)
{
    int64_t bytes = 0;
    terse_status status = check_tensor(name, dtype, rank, dims, data, &bytes);
    if (status)
        return status;
    zmq_msg_t copy;
    if (zmq_msg_init_size(&copy, (size_t)bytes) < 0)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "input '%s': out of memory for %" PRId64 " bytes", name, bytes);
    if (bytes)
        memcpy(zmq_msg_data(&copy), data, (size_t)bytes);
    status = set_input(request, name, dtype, rank, dims, &copy, NULL);
    zmq_msg_close(&copy);
    return status;
}

/* A place must be in the memory that the request's other places are in. */
static terse_status check_place(const terse_request *request, const char *what, const char *name,
                                const terse_client_arena *arena, bool output, const void *data, uint64_t bytes,
                                uint64_t *ret_offset)
{
    if (!arena || (request->arena && request->arena != arena))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "%s '%s': the request's tensors lie in one shared memory", what,
                           name);
    if (!terse_arena_offset(output ? arena->outputs : arena->inputs, output ? arena->output_bytes : arena->input_bytes,
                            data, bytes, ret_offset))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT,
                           "%s '%s': its %" PRIu64 " bytes are not inside the shared memory's %ss", what, name, bytes,
                           what);
    if (*ret_offset % TERSE_RANGE_ALIGN)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "%s '%s' lies at offset %" PRIu64 ", allowed are multiples of %d",
                           what, name, *ret_offset, TERSE_RANGE_ALIGN);
    return TERSE_OK;
}

terse_status terse_request_place_input(terse_request *request, const char *name, terse_dtype dtype, int rank,
                                       const int64_t *dims, terse_client_arena *arena, const void *data)
{
    int64_t bytes = 0;
    uint64_t offset = 0;
    terse_status status = check_tensor(name, dtype, rank, dims, data, &bytes);
    if (!status)
        status = check_place(request, "input", name, arena, false, data, (uint64_t)bytes, &offset);
    if (status)
        return status;
    zmq_msg_t nothing;
    zmq_msg_init(&nothing);
    status = set_input(request, name, dtype, rank, dims, &nothing, &offset);
    zmq_msg_close(&nothing);
    if (!status)
        request->arena = arena;
    return status;
}

/* The output of that name, a new one if there is none; NULL after telling why not. */
static request_output *output_named(terse_request *request, const char *name)
{
    for (int i = 0; i < request->n_outputs; i++)
        if (strcmp(request->outputs[i].name, name) == 0)
            return &request->outputs[i];
    return terse_request_add_output(request, name) ? NULL : &request->outputs[request->n_outputs - 1];
}

terse_status terse_request_place_output(terse_request *request, const char *name, terse_client_arena *arena, void *data,
                                        size_t bytes)
{
    uint64_t offset = 0;
    if (!is_name(name))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "an output's name has 1 to %d bytes", TERSE_WIRE_MAX_TEXT);
    const terse_status status = check_place(request, "output", name, arena, true, data, bytes, &offset);
    if (status)
        return status;
    request_output *output = output_named(request, name);
    if (!output)
        return terse_client_error_slot()->status;
    output->placed = true;
    output->offset = offset;
    output->bytes = bytes;
    request->arena = arena;
    return TERSE_OK;
}

bool terse_request_is_placed(const terse_request *request)
{
    for (int i = 0; i < request->n_inputs; i++)
        if (!request->inputs[i].placed)
            return false;
    for (int i = 0; i < request->n_outputs; i++)
        if (!request->outputs[i].placed)
            return false;
    return request->arena && request->n_outputs > 0;
}

terse_status terse_request_add_output(terse_request *request, const char *name)
{
    if (!is_name(name))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "an output's name has 1 to %d bytes", TERSE_WIRE_MAX_TEXT);
    if (request->n_outputs == TERSE_WIRE_MAX_IO)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "output '%s': at most %d outputs are allowed", name,
                           TERSE_WIRE_MAX_IO);
    char *copy = strdup(name);
    if (!copy)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for output '%s'", name);
    request->outputs[request->n_outputs++] = (request_output){.name = copy};
    return TERSE_OK;
}

terse_status terse_request_set_version(terse_request *request, const char *version)
{
    if (version && !is_name(version))
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "a version has 1 to %d bytes", TERSE_WIRE_MAX_TEXT);
    char *copy = version ? strdup(version) : NULL;
    if (version && !copy)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a version");
    free(request->version);
    request->version = copy;
    find_throttle(request);
    return TERSE_OK;
}

void terse_request_set_timeout(terse_request *request, uint64_t timeout_us)
{
    request->timeout_us = timeout_us;
    find_throttle(request);
}

void terse_request_set_priority(terse_request *request, unsigned priority)
{
    request->priority = priority > TERSE_WIRE_MAX_PRIORITY ? TERSE_WIRE_MAX_PRIORITY : priority;
    find_throttle(request);
}

void terse_request_set_trace(terse_request *request, int on)
{
    request->trace = on != 0;
}

void terse_request_describe(const terse_request *request, terse_wire_request *wire)
{
    wire->model = terse_wire_text_of(request->model);
    wire->version = terse_wire_text_of(request->version);
    wire->priority = request->priority;
    wire->trace = request->trace;
    wire->has_timeout = request->timeout_us > 0;
    wire->timeout_us = request->timeout_us;
    uint32_t n_frames = 0;
    wire->n_inputs = (uint32_t)request->n_inputs;
    for (int i = 0; i < request->n_inputs; i++) {
        const request_input *input = &request->inputs[i];
        terse_wire_tensor *tensor = &wire->inputs[i];
        terse_wire_tensor_init(tensor);
        tensor->name = terse_wire_text_of(input->name);
        tensor->dtype = input->dtype;
        tensor->rank = input->rank;
        for (int d = 0; d < input->rank; d++)
            tensor->dims[d] = input->dims[d];
        tensor->has_shm = input->placed;
        tensor->shm_offset = input->offset;
        if (input->placed)
            tensor->shm_size = (uint64_t)terse_dims_count(input->dims, input->rank) * terse_dtype_size(input->dtype);
        else
            tensor->frame = ++n_frames;
    }
    wire->has_outputs = request->n_outputs > 0;
    wire->n_outputs = (uint32_t)request->n_outputs;
    for (int i = 0; i < request->n_outputs; i++) {
        terse_wire_tensor_init(&wire->outputs[i]);
        wire->outputs[i].name = terse_wire_text_of(request->outputs[i].name);
        wire->outputs[i].has_shm = request->outputs[i].placed;
        wire->outputs[i].shm_offset = request->outputs[i].offset;
        wire->outputs[i].shm_size = request->outputs[i].bytes;
    }
}
