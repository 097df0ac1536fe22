/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/served.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/model.h"
#include "daemon/frontend/slots.h"

enum { KEPT_LANES = 64, GUESSED_OUTPUT_BYTES = 4096 };

static bool copy_tensors(terse_served *served, const terse_graph *graph, const int *values, uint32_t n,
                         terse_served_tensor **ret_tensors)
{
    terse_served_tensor *tensors = terse_arena_alloc(served->arena, (n ? n : 1) * sizeof *tensors);
    if (!tensors)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const terse_value *value = &graph->values[values[i]];
        tensors[i].name_length = (uint32_t)strlen(value->name);
        tensors[i].name = terse_arena_text(served->arena, value->name, tensors[i].name_length);
        tensors[i].dtype = value->dtype;
        tensors[i].rank = value->rank;
        memcpy(tensors[i].dims, value->dims, sizeof tensors[i].dims);
        if (!tensors[i].name)
            return false;
    }
    *ret_tensors = tensors;
    return true;
}

static bool copy_signature(terse_served *served, const terse_graph *graph)
{
    served->batchable = graph->batchable;
    served->n_inputs = (uint32_t)graph->n_inputs;
    served->n_outputs = (uint32_t)graph->n_outputs;
    served->n_symbols = (uint32_t)graph->n_symbols;
    served->symbols = terse_arena_alloc(served->arena, (served->n_symbols + 1) * sizeof *served->symbols);
    if (!served->symbols)
        return false;
    for (uint32_t i = 0; i < served->n_symbols; i++) {
        served->symbols[i] = terse_arena_text(served->arena, graph->symbols[i], strlen(graph->symbols[i]));
        if (!served->symbols[i])
            return false;
    }
    return copy_tensors(served, graph, graph->inputs, served->n_inputs, &served->inputs) &&
           copy_tensors(served, graph, graph->outputs, served->n_outputs, &served->outputs);
}

static int read_signature(terse_served *served, const void *base, size_t bytes, terse_error *error)
{
    terse_model *model = NULL;
    const int status = terse_model_parse(base, bytes, served->name, 0, &model, error);
    if (status)
        return status;
    const terse_graph *graph = model->graph;
    int result = TERSE_OK;
    if (graph->n_inputs > TERSE_MAX_IO || graph->n_outputs > TERSE_MAX_IO || graph->n_outputs < 1)
        result = terse_fail(error, TERSE_INVALID_ARGUMENT,
                            "model '%s' has %d inputs and %d outputs, allowed are %d each and one output at least",
                            served->name, graph->n_inputs, graph->n_outputs, TERSE_MAX_IO);
    else if (!copy_signature(served, graph))
        result = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for model '%s'", served->name);
    terse_model_close(model);
    return result;
}

void terse_served_limit(terse_served *served, const terse_msg_model *message)
{
    served->message.max_batch = message->max_batch;
    served->message.batch_timeout_us = message->batch_timeout_us;
    served->message.deadline_ms = message->deadline_ms;
    served->message.hang_timeout_ms = message->hang_timeout_ms;
    served->message.objective = message->objective;
    served->max_batch = !served->batchable || message->max_batch < 1 ? 1 : message->max_batch;
    if (served->max_batch > TERSE_MAX_BATCH)
        served->max_batch = TERSE_MAX_BATCH;
    served->batch_timeout_ns = message->batch_timeout_us * 1000;
    served->deadline_ns = message->deadline_ms * 1000000;
    served->objective = message->objective == TERSE_OBJECTIVE_ENERGY ? TERSE_OBJECTIVE_ENERGY : TERSE_OBJECTIVE_LATENCY;
    served->hang_ns = message->hang_timeout_ms * 1000000;
    const size_t per_member = sizeof(uint64_t) * (1 + served->n_inputs + 2 * (size_t)served->n_outputs);
    const size_t left = TERSE_MSG_BYTES - sizeof(terse_msg_batch) - served->n_inputs * sizeof(terse_msg_tensor);
    served->max_members = (uint32_t)(left / per_member);
}

int terse_served_open(const terse_msg_model *message, int fd, terse_served **ret_served, terse_error *error)
{
    terse_served *served = calloc(1, sizeof *served);
    if (!served || !(served->arena = terse_arena_new())) {
        free(served);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for model '%.100s'", message->name);
    }
    snprintf(served->name, sizeof served->name, "%.*s", (int)sizeof message->name, message->name);
    snprintf(served->version, sizeof served->version, "%.*s", (int)sizeof message->version, message->version);
    served->index = message->model;
    served->message = *message;
    served->serial = message->serial;
    served->memory = -1;
    served->state = message->pending ? TERSE_SERVED_PENDING : TERSE_SERVED_READY;
    void *base = message->bytes ? mmap(NULL, message->bytes, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    int status = TERSE_OK;
    if (base == MAP_FAILED)
        status =
            terse_fail(error, TERSE_SYSTEM, "cannot map model '%s' of %" PRIu64 " bytes", served->name, message->bytes);
    if (!status) {
        status = read_signature(served, base, message->bytes, error);
        munmap(base, message->bytes);
    }
    if (status) {
        terse_served_close(served);
        return status;
    }
    terse_served_limit(served, message);
    served->memory = fd;
    *ret_served = served;
    return TERSE_OK;
}

static void free_lane(terse_lane *lane)
{
    free(lane->input_bytes);
    free(lane->output_bytes);
    free(lane->dims);
    free(lane);
}

void terse_served_close(terse_served *served)
{
    if (!served)
        return;
    for (terse_lane *lane = served->lanes, *next; lane; lane = next) {
        next = lane->next;
        free_lane(lane);
    }
    terse_arena_free(served->arena);
    if (served->memory >= 0)
        close(served->memory);
    free(served);
}

const char *terse_served_state_name(terse_served_state state)
{
    static const char *const names[] = {
#define SERVED_NAME(id, text) [TERSE_SERVED_##id] = text,
        TERSE_SERVED_STATES(SERVED_NAME)
#undef SERVED_NAME
    };
    return (size_t)state < sizeof names / sizeof names[0] ? names[state] : "?";
}

bool terse_served_unused(const terse_served *served)
{
    for (const terse_lane *lane = served->lanes; lane; lane = lane->next)
        if (lane->n_users > 0)
            return false;
    return true;
}

/* --- lanes --------------------------------------------------------------------------------------------------- */

static uint64_t hash_call(const terse_served *served, const terse_served_call *call)
{
    uint64_t hash = 0x9e3779b97f4a7c15u;
    for (uint32_t i = 0; i < served->n_inputs; i++)
        for (int axis = served->batchable ? 1 : 0; axis < call->inputs[i]->rank; axis++) {
            hash = (hash ^ (uint64_t)call->inputs[i]->dims[axis]) * 0xff51afd7ed558ccdu;
            hash ^= hash >> 32;
        }
    return hash;
}

static bool lane_fits(const terse_served *served, const terse_lane *lane, const terse_served_call *call)
{
    const int first = served->batchable ? 1 : 0;
    for (uint32_t i = 0; i < served->n_inputs; i++)
        for (int axis = first; axis < call->inputs[i]->rank; axis++)
            if (lane->dims[i][axis] != call->inputs[i]->dims[axis])
                return false;
    return true;
}

/* Bytes of output i under the symbols that the lane's inputs bind, or a guess when something else decides. */
static uint64_t output_bytes(const terse_served *served, const terse_lane *lane, const terse_served_tensor *output)
{
    int64_t dims[TERSE_MAX_RANK];
    if (output->rank < 0)
        return GUESSED_OUTPUT_BYTES;
    for (int axis = 0; axis < output->rank; axis++) {
        dims[axis] = output->dims[axis];
        for (uint32_t i = 0; dims[axis] < 0 && i < served->n_inputs; i++)
            for (int k = 0; k < served->inputs[i].rank; k++)
                if (served->inputs[i].dims[k] == output->dims[axis])
                    dims[axis] = lane->dims[i][k];
    }
    const int64_t count = terse_dims_count(dims, output->rank);
    int64_t bytes;
    if (count < 0 || __builtin_mul_overflow(count, (int64_t)terse_dtype_size(output->dtype), &bytes))
        return GUESSED_OUTPUT_BYTES;
    return (uint64_t)bytes;
}

static terse_lane *new_lane(terse_served *served, const terse_served_call *call)
{
    terse_lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return NULL;
    lane->input_bytes = calloc(served->n_inputs + 1, sizeof *lane->input_bytes);
    lane->output_bytes = calloc(served->n_outputs + 1, sizeof *lane->output_bytes);
    lane->dims = calloc(served->n_inputs + 1, sizeof *lane->dims);
    if (!lane->input_bytes || !lane->output_bytes || !lane->dims) {
        free_lane(lane);
        return NULL;
    }
    lane->model = served->index;
    lane->share = &served->share;
    for (uint32_t i = 0; i < served->n_inputs; i++) {
        const terse_wire_tensor *input = call->inputs[i];
        memcpy(lane->dims[i], input->dims, sizeof(int64_t) * (size_t)input->rank);
        if (served->batchable)
            lane->dims[i][0] = 1;
        lane->input_bytes[i] = (uint64_t)terse_dims_count(lane->dims[i], input->rank) * terse_dtype_size(input->dtype);
        lane->input_total += lane->input_bytes[i];
    }
    for (uint32_t i = 0; i < served->n_outputs; i++)
        lane->output_bytes[i] = output_bytes(served, lane, &served->outputs[i]);
    return lane;
}

/* Drops the lane that was idle for longest. */
static void drop_idle_lane(terse_served *served)
{
    terse_lane **oldest = NULL;
    for (terse_lane **at = &served->lanes; *at; at = &(*at)->next)
        if ((*at)->n_users == 0 && (!oldest || (*at)->used_ns < (*oldest)->used_ns))
            oldest = at;
    if (!oldest)
        return;
    terse_lane *lane = *oldest;
    *oldest = lane->next;
    served->n_lanes--;
    free_lane(lane);
}

terse_lane *terse_served_lane(terse_served *served, const terse_served_call *call, uint64_t now_ns)
{
    const uint64_t hash = hash_call(served, call);
    for (terse_lane **at = &served->lanes; *at; at = &(*at)->next) {
        terse_lane *lane = *at;
        if (lane->hash != hash || !lane_fits(served, lane, call))
            continue;
        *at = lane->next; /* to the front: the next request is likely of the same shape */
        lane->next = served->lanes;
        served->lanes = lane;
        lane->used_ns = now_ns;
        return lane;
    }
    if (served->n_lanes >= KEPT_LANES)
        drop_idle_lane(served);
    terse_lane *lane = new_lane(served, call);
    if (!lane)
        return NULL;
    lane->hash = hash;
    lane->used_ns = now_ns;
    lane->next = served->lanes;
    served->lanes = lane;
    served->n_lanes++;
    return lane;
}

terse_lane *terse_served_plain_lane(terse_served *served, uint64_t now_ns)
{
    terse_wire_tensor *tensors = calloc(served->n_inputs + 1, sizeof *tensors);
    terse_served_call call = {.rows = 1};
    bool plain = tensors != NULL;
    for (uint32_t i = 0; plain && i < served->n_inputs; i++) {
        const terse_served_tensor *input = &served->inputs[i];
        terse_wire_tensor_init(&tensors[i]);
        tensors[i].dtype = input->dtype;
        tensors[i].rank = input->rank;
        for (int axis = 0; axis < input->rank; axis++) {
            tensors[i].dims[axis] = axis == 0 && served->batchable ? 1 : input->dims[axis];
            plain = plain && tensors[i].dims[axis] >= 0;
        }
        plain = plain && terse_dims_count(tensors[i].dims, tensors[i].rank) >= 0;
        call.inputs[i] = &tensors[i];
    }
    terse_lane *lane = plain ? terse_served_lane(served, &call, now_ns) : NULL;
    free(tensors);
    return lane;
}
