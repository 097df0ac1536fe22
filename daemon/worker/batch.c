/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "daemon/worker/worker.h"

/* Design notes
 *   The kernels want dense rows. Where the members' rows of a tensor lie one behind the other already (always in a
 * batch of one) the batch runs straight from there, or into there. Other inputs are gathered into one buffer, other
 * results scattered from another: a copy each. The front end is trusted as our own program, yet every number of its
 * message is checked: a slip there must not become a wild write here. */

typedef struct batch {
    const terse_msg_batch *head;
    const terse_msg_tensor *inputs;
    const uint64_t *members; /* per member: rows, input offsets, {offset, capacity} of outputs */
    terse_worker_model *served;
    terse_plan *plan;
    size_t stride; /* uint64_t per member */
    bool unwanted[TERSE_MAX_IO];
} batch;

bool terse_worker_reserve(terse_worker_buffer *buffer, size_t bytes)
{
    if (bytes <= buffer->bytes)
        return true;
    free(buffer->data);
    const size_t rounded = terse_align(bytes, 4096);
    buffer->data = rounded >= bytes ? aligned_alloc(64, rounded) : NULL;
    buffer->bytes = buffer->data ? rounded : 0;
    return buffer->data != NULL;
}

static const uint64_t *member_of(const batch *b, uint32_t index)
{
    return b->members + index * b->stride;
}

static uint64_t input_offset(const batch *b, uint32_t member, uint32_t input)
{
    return member_of(b, member)[1 + input];
}

static const uint64_t *output_place(const batch *b, uint32_t member, uint32_t output)
{
    return member_of(b, member) + 1 + b->head->n_inputs + 2 * (size_t)output;
}

/* Finds the parts of the message; false when they do not fill it exactly or do not go with the model. */
static bool read_batch(terse_worker *worker, size_t size, batch *b)
{
    const terse_msg_batch *head = b->head;
    b->served = &worker->models[head->model];
    const terse_graph *graph = b->served->model->graph;
    if (head->n_inputs != (uint32_t)graph->n_inputs || head->n_outputs != (uint32_t)graph->n_outputs ||
        head->n_inputs > TERSE_MAX_IO || head->n_outputs > TERSE_MAX_IO || head->n_members < 1 || head->rows < 1 ||
        head->n_members > TERSE_MAX_BATCH)
        return false;
    b->stride = 1 + head->n_inputs + 2 * (size_t)head->n_outputs;
    b->inputs = (const terse_msg_tensor *)(const void *)(head + 1);
    b->members = (const uint64_t *)(const void *)(b->inputs + head->n_inputs);
    return size == sizeof *head + head->n_inputs * sizeof *b->inputs + head->n_members * b->stride * sizeof *b->members;
}

/* The memory that an offset names, and the place in it. A memory that is not mapped has 0 bytes. */
static const terse_worker_memory *memory_of(const terse_worker *worker, uint64_t *offset)
{
    const uint64_t number = *offset >> TERSE_MSG_ARENA_SHIFT;
    *offset &= (UINT64_C(1) << TERSE_MSG_ARENA_SHIFT) - 1;
    return &worker->memories[number < TERSE_MAX_ARENAS ? number : 0];
}

static const uint8_t *input_at(const terse_worker *worker, uint64_t offset)
{
    const terse_worker_memory *memory = memory_of(worker, &offset);
    return memory->inputs + offset;
}

static uint8_t *output_at(const terse_worker *worker, uint64_t offset)
{
    const terse_worker_memory *memory = memory_of(worker, &offset);
    return memory->outputs + offset;
}

/* Every member's share of every tensor inside the slot memories, and rows that add up. */
static int check_batch(const terse_worker *worker, batch *b, terse_error *error)
{
    uint64_t rows = 0;
    for (uint32_t m = 0; m < b->head->n_members; m++)
        rows += member_of(b, m)[0] <= b->head->rows ? member_of(b, m)[0] : UINT32_MAX;
    if (rows != b->head->rows)
        return terse_fail(error, TERSE_INTERNAL, "a batch of %" PRIu32 " rows has %" PRIu64, b->head->rows, rows);
    for (uint32_t i = 0; i < b->head->n_inputs; i++) {
        const terse_msg_tensor *input = &b->inputs[i];
        const int64_t count =
            input->rank >= 0 && input->rank <= TERSE_MAX_RANK ? terse_dims_count(input->dims, input->rank) : -1;
        if (count < 0 || (uint64_t)count * terse_dtype_size((terse_dtype)input->dtype) != input->bytes ||
            (b->head->n_members > 1 && input->bytes % b->head->rows != 0))
            return terse_fail(error, TERSE_INTERNAL, "input %" PRIu32 " of a batch has %" PRIu64 " bytes", i,
                              input->bytes);
        for (uint32_t m = 0; m < b->head->n_members; m++) {
            const uint64_t bytes = input->bytes / b->head->rows * member_of(b, m)[0];
            uint64_t offset = input_offset(b, m, i);
            const terse_worker_memory *memory = memory_of(worker, &offset);
            if (!memory->inputs || offset > memory->input_bytes || bytes > memory->input_bytes - offset)
                return terse_fail(error, TERSE_INTERNAL, "an input lies beyond its memory");
        }
    }
    for (uint32_t i = 0; i < b->head->n_outputs; i++) {
        b->unwanted[i] = true;
        for (uint32_t m = 0; m < b->head->n_members; m++) {
            const uint64_t *place = output_place(b, m, i);
            if (place[1] == TERSE_MSG_UNWANTED)
                continue;
            b->unwanted[i] = false;
            uint64_t offset = place[0];
            const terse_worker_memory *memory = memory_of(worker, &offset);
            if (!memory->outputs || offset > memory->output_bytes || place[1] > memory->output_bytes - offset)
                return terse_fail(error, TERSE_INTERNAL, "an output lies beyond its memory");
        }
    }
    return TERSE_OK;
}

static int make_plan(const terse_worker *worker, batch *b, terse_error *error)
{
    terse_tensor tensors[TERSE_MAX_IO];
    for (uint32_t i = 0; i < b->head->n_inputs; i++) {
        const terse_msg_tensor *input = &b->inputs[i];
        /* Looked at only where values decide shapes; such a model is not batchable, and its batch has one member. */
        void *data = b->head->n_members == 1 ? (void *)(uintptr_t)input_at(worker, input_offset(b, 0, i)) : NULL;
        tensors[i] = terse_tensor_view(data, (terse_dtype)input->dtype, input->rank, input->dims);
    }
    return terse_engine_plan(b->served->engine, tensors, &b->plan, error);
}

static uint64_t output_bytes(const batch *b, uint32_t index)
{
    return (uint64_t)terse_tensor_bytes(terse_plan_output(b->plan, (int)index));
}

static bool has_room(const batch *b)
{
    for (uint32_t i = 0; i < b->head->n_outputs; i++) {
        const uint64_t bytes = output_bytes(b, i);
        for (uint32_t m = 0; m < b->head->n_members; m++)
            if (output_place(b, m, i)[1] < bytes / b->head->rows * member_of(b, m)[0] ||
                (b->head->n_members == 1 && output_place(b, m, i)[1] < bytes))
                return false;
    }
    return true;
}

/* --- where a batch reads and writes --------------------------------------------------------------------------- */

/* Whether the members' rows of an input lie one behind the other. Offsets carry their memory's number: rows of two
 * memories are never neighbours, since none is as large as an offset can be. */
static bool input_in_place(const batch *b, uint32_t i)
{
    const uint64_t row = b->inputs[i].bytes / b->head->rows;
    for (uint32_t m = 1; m < b->head->n_members; m++)
        if (input_offset(b, m, i) != input_offset(b, m - 1, i) + row * member_of(b, m - 1)[0])
            return false;
    return true;
}

/* The same of an output, which every member must want. What a client can write to while the batch runs may hold no
 * number that decides an address: integers are made here and copied out. */
static bool output_in_place(const batch *b, uint32_t i)
{
    const uint64_t row = output_bytes(b, i) / b->head->rows;
    const terse_dtype dtype = terse_plan_output(b->plan, (int)i)->dtype;
    for (uint32_t m = 0; m < b->head->n_members; m++) {
        const uint64_t *place = output_place(b, m, i);
        if (place[1] == TERSE_MSG_UNWANTED ||
            (m > 0 && place[0] != output_place(b, m - 1, i)[0] + row * member_of(b, m - 1)[0]))
            return false;
        if (place[0] >> TERSE_MSG_ARENA_SHIFT && b->served->computes_indices)
            return false;
    }
    return dtype != TERSE_DTYPE_NONE;
}

/* Finds or gathers every input. */
static bool gather(terse_worker *worker, const batch *b, const void **inputs)
{
    size_t total = 0;
    for (uint32_t i = 0; i < b->head->n_inputs; i++) {
        inputs[i] = input_in_place(b, i) ? input_at(worker, input_offset(b, 0, i)) : NULL;
        total += inputs[i] ? 0 : terse_align(b->inputs[i].bytes, 64);
    }
    if (total > 0 && !terse_worker_reserve(&worker->gathered, total))
        return false;
    uint8_t *at = worker->gathered.data;
    for (uint32_t i = 0; i < b->head->n_inputs; i++) {
        if (inputs[i])
            continue;
        const uint64_t row = b->inputs[i].bytes / b->head->rows;
        inputs[i] = at;
        uint8_t *to = at;
        for (uint32_t m = 0; m < b->head->n_members; m++) {
            const uint64_t bytes = row * member_of(b, m)[0];
            memcpy(to, input_at(worker, input_offset(b, m, i)), bytes);
            to += bytes;
        }
        at += terse_align(b->inputs[i].bytes, 64);
    }
    return true;
}

/* Where every output goes: to its place, or to a buffer from which it is scattered. `scattered` says which. */
static bool place_outputs(terse_worker *worker, const batch *b, void **outputs, bool *scattered)
{
    size_t total = 0;
    for (uint32_t i = 0; i < b->head->n_outputs; i++) {
        scattered[i] = !b->unwanted[i] && !output_in_place(b, i);
        total += scattered[i] ? terse_align(output_bytes(b, i), 64) : 0;
    }
    if (total > 0 && !terse_worker_reserve(&worker->results, total))
        return false;
    uint8_t *at = worker->results.data;
    for (uint32_t i = 0; i < b->head->n_outputs; i++) {
        if (b->unwanted[i]) {
            outputs[i] = NULL;
        } else if (!scattered[i]) {
            outputs[i] = output_at(worker, output_place(b, 0, i)[0]);
        } else {
            outputs[i] = at;
            at += terse_align(output_bytes(b, i), 64);
        }
    }
    return true;
}

static void scatter(const terse_worker *worker, const batch *b, void *const *outputs, const bool *scattered)
{
    for (uint32_t i = 0; i < b->head->n_outputs; i++) {
        const uint64_t row = output_bytes(b, i) / b->head->rows;
        const uint8_t *from = outputs[i];
        for (uint32_t m = 0; scattered[i] && m < b->head->n_members; m++) {
            const uint64_t *place = output_place(b, m, i);
            const uint64_t bytes = row * member_of(b, m)[0];
            if (place[1] != TERSE_MSG_UNWANTED)
                memcpy(output_at(worker, place[0]), from, bytes);
            from += bytes;
        }
    }
}

static int run(terse_worker *worker, const batch *b, terse_error *error)
{
    const void *inputs[TERSE_MAX_IO];
    void *outputs[TERSE_MAX_IO];
    bool scattered[TERSE_MAX_IO];
    for (uint32_t i = 0; i < b->head->n_outputs; i++)
        if (output_bytes(b, i) % b->head->rows != 0)
            return terse_fail(error, TERSE_INTERNAL, "an output of %" PRIu64 " bytes is not for %" PRIu32 " rows",
                              output_bytes(b, i), b->head->rows);
    if (!gather(worker, b, inputs) || !place_outputs(worker, b, outputs, scattered))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for a batch of %" PRIu32 " rows", b->head->rows);
    const int status = terse_plan_run(b->plan, inputs, outputs, error);
    if (!status)
        scatter(worker, b, outputs, scattered);
    return status;
}

static uint32_t answer(terse_worker *worker, const batch *b, int status, bool needs_room, uint64_t compute_ns,
                       const terse_error *error)
{
    const bool tells_outputs = status == TERSE_OK || needs_room;
    const uint32_t n = tells_outputs ? b->head->n_outputs : 0;
    terse_msg_done done = {
        .head = {TERSE_MSG_DONE, (uint32_t)(sizeof done + n * sizeof(terse_msg_tensor))},
        .batch = b->head->batch,
        .epoch = b->head->epoch,
        .model = b->head->model,
        .status = status == TERSE_SYSTEM ? TERSE_INTERNAL : status,
        .needs_room = needs_room,
        .n_outputs = n,
        .compute_ns = compute_ns,
    };
    if (status)
        memcpy(done.error, error->message, strnlen(error->message, sizeof done.error - 1));
    memcpy(worker->answer, &done, sizeof done);
    terse_msg_tensor *tensors = (terse_msg_tensor *)(void *)(worker->answer + sizeof done);
    for (uint32_t i = 0; i < n; i++) {
        const terse_tensor *output = terse_plan_output(b->plan, (int)i);
        tensors[i] = (terse_msg_tensor){.dtype = output->dtype, .rank = output->rank, .bytes = output_bytes(b, i)};
        memcpy(tensors[i].dims, output->dims, sizeof tensors[i].dims);
    }
    return done.head.bytes;
}

uint32_t terse_worker_run(terse_worker *worker, size_t size)
{
    batch b = {.head = (const terse_msg_batch *)(const void *)worker->message};
    terse_error error = {0};
    if (size < sizeof *b.head)
        return 0;
    if (b.head->model >= worker->n_models || !worker->models[b.head->model].model)
        return answer(
            worker, &b,
            terse_fail(&error, TERSE_UNAVAILABLE, "the worker could not load model number %" PRIu32, b.head->model),
            false, 0, &error);
    if (!read_batch(worker, size, &b))
        return 0;
    const uint64_t start = terse_now_ns();
    int status = check_batch(worker, &b, &error);
    if (!status)
        status = make_plan(worker, &b, &error);
    if (!status && !has_room(&b))
        return answer(worker, &b, TERSE_OK, true, 0, &error);
    if (!status)
        status = run(worker, &b, &error);
    return answer(worker, &b, status, false, terse_now_ns() - start, &error);
}
