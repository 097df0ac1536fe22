/* SPDX-License-Identifier: Apache-2.0 */
/* A request against a model's signature: terse_served_match of served.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/frontend/arenas.h"
#include "daemon/frontend/served.h"
#include "daemon/frontend/slots.h"

enum { SHOWN_NAME = 100, TEXT = 256 };

typedef struct match {
    const terse_served *served;
    const terse_wire_request *request;
    const terse_served_bytes *bytes;
    terse_served_call *call;
    terse_error *error;
} match;

static int shown(terse_wire_text text)
{
    return (int)(text.length < SHOWN_NAME ? text.length : SHOWN_NAME);
}

static int no_arena(match *m, const char *kind, const char *name)
{
    return terse_fail(m->error, TERSE_INVALID_ARGUMENT,
                      "%s '%s' lies in shared memory, but the request has no key 'arena' to tell in which", kind, name);
}

/* "a, b, c" of a signature, cut to fit. */
static char *names_of(const terse_served_tensor *tensors, uint32_t n, char text[TEXT])
{
    size_t used = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < n && used < TEXT; i++) {
        const int added = snprintf(text + used, TEXT - used, "%s%s", i ? ", " : "", tensors[i].name);
        used += added > 0 ? (size_t)added : 0;
    }
    return text;
}

/* "[N,3,224,224]" */
static char *shape_of(const terse_served *served, const terse_served_tensor *tensor, char text[TEXT])
{
    size_t used = (size_t)snprintf(text, TEXT, "[");
    for (int i = 0; i < tensor->rank && used < TEXT - 1; i++) {
        const char *comma = i ? "," : "";
        const int64_t dim = tensor->dims[i];
        const int added = dim < 0 ? snprintf(text + used, TEXT - used, "%s%.60s", comma, served->symbols[-1 - dim])
                                  : snprintf(text + used, TEXT - used, "%s%" PRId64, comma, dim);
        used += added > 0 ? (size_t)added : 0;
    }
    if (used < TEXT - 1)
        snprintf(text + used, TEXT - used, "]");
    return text;
}

static int index_of(const terse_served_tensor *tensors, uint32_t n, uint32_t likely, terse_wire_text name)
{
    if (likely < n && tensors[likely].name_length == name.length &&
        memcmp(tensors[likely].name, name.data, name.length) == 0)
        return (int)likely;
    for (uint32_t i = 0; i < n; i++)
        if (tensors[i].name_length == name.length && memcmp(tensors[i].name, name.data, name.length) == 0)
            return (int)i;
    return -1;
}

static int match_names(match *m)
{
    const terse_served *served = m->served;
    char text[TEXT];
    memset(m->call->inputs, 0, served->n_inputs * sizeof m->call->inputs[0]);
    for (uint32_t i = 0; i < m->request->n_inputs; i++) {
        const terse_wire_tensor *input = &m->request->inputs[i];
        const int index = index_of(served->inputs, served->n_inputs, i, input->name);
        if (index < 0)
            return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "model '%s' has no input '%.*s'; its inputs are %s",
                              served->name, shown(input->name), input->name.data,
                              names_of(served->inputs, served->n_inputs, text));
        if (m->call->inputs[index])
            return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "input '%s' is there twice",
                              served->inputs[index].name);
        m->call->inputs[index] = input;
    }
    for (uint32_t i = 0; i < served->n_inputs; i++)
        if (!m->call->inputs[i])
            return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "input '%s' of model '%s' is missing",
                              served->inputs[i].name, served->name);
    return TERSE_OK;
}

static int unplaced(match *m, uint32_t index)
{
    return terse_fail(m->error, TERSE_INVALID_ARGUMENT,
                      "output '%s' has no place in shared memory: requests through the ring name one for each output",
                      m->served->outputs[index].name);
}

/* Where an output is to go; whether something else goes there is for whoever knows the other requests. */
static int match_place(match *m, const terse_wire_tensor *wish, uint32_t index)
{
    char what[TEXT];
    const char *name = m->served->outputs[index].name;
    if (!wish->has_shm)
        return m->bytes->only_arena ? unplaced(m, index) : TERSE_OK;
    if (!m->bytes->has_arena)
        return no_arena(m, "output", name);
    m->call->n_placed++;
    if (terse_arena_fits(wish->shm_offset, wish->shm_size, m->bytes->arena_output_bytes))
        return TERSE_OK;
    snprintf(what, sizeof what, "output '%.100s'", name);
    return terse_arena_check(wish->shm_offset, wish->shm_size, m->bytes->arena_output_bytes, what, m->error);
}

static int match_outputs(match *m)
{
    const terse_served *served = m->served;
    terse_served_call *call = m->call;
    char text[TEXT];
    call->wishes = m->request->has_outputs ? m->request->outputs : NULL;
    call->n_placed = 0;
    if (!m->request->has_outputs) {
        if (m->bytes->only_arena)
            return unplaced(m, 0);
        call->n_wanted = (uint8_t)served->n_outputs;
        for (uint32_t i = 0; i < served->n_outputs; i++)
            call->wanted[i] = (uint8_t)i;
        return TERSE_OK;
    }
    uint64_t seen = 0;
    if (m->request->n_outputs == 0)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "'outputs' is empty: leave it out to get all outputs");
    for (uint32_t i = 0; i < m->request->n_outputs; i++) {
        const terse_wire_tensor *wish = &m->request->outputs[i];
        const int index = index_of(served->outputs, served->n_outputs, i, wish->name);
        if (index < 0)
            return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "model '%s' has no output '%.*s'; its outputs are %s",
                              served->name, shown(wish->name), wish->name.data,
                              names_of(served->outputs, served->n_outputs, text));
        if (seen & UINT64_C(1) << index)
            return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "output '%s' is asked for twice",
                              served->outputs[index].name);
        const int status = match_place(m, wish, (uint32_t)index);
        if (status)
            return status;
        seen |= UINT64_C(1) << index;
        call->wanted[i] = (uint8_t)index;
    }
    call->n_wanted = (uint8_t)m->request->n_outputs;
    return TERSE_OK;
}

static int wrong_shape(match *m, uint32_t index)
{
    char found[TEXT], allowed[TEXT];
    const terse_wire_tensor *input = m->call->inputs[index];
    return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "input '%s' has shape %s, model '%s' wants %s",
                      m->served->inputs[index].name, terse_dims_text(input->dims, input->rank, found, sizeof found),
                      m->served->name, shape_of(m->served, &m->served->inputs[index], allowed));
}

/* The value that a symbol has in inputs 0..index, as far as dimension `axis` of the last one; -1: not bound there. */
static int64_t bound_before(const match *m, uint32_t index, int axis, uint32_t *ret_index)
{
    const int64_t symbol = m->served->inputs[index].dims[axis];
    for (uint32_t i = 0; i <= index; i++) {
        const terse_served_tensor *input = &m->served->inputs[i];
        const int end = i == index ? axis : input->rank;
        for (int k = 0; k < end; k++)
            if (input->dims[k] == symbol) {
                *ret_index = i;
                return m->call->inputs[i]->dims[k];
            }
    }
    return -1;
}

static int match_shape(match *m, uint32_t index)
{
    const terse_served_tensor *wanted = &m->served->inputs[index];
    const terse_wire_tensor *input = m->call->inputs[index];
    if (input->dtype != wanted->dtype)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "input '%s' is %s, model '%s' wants %s", wanted->name,
                          terse_dtype_name(input->dtype), m->served->name, terse_dtype_name(wanted->dtype));
    if (input->rank != wanted->rank)
        return wrong_shape(m, index);
    for (int axis = 0; axis < wanted->rank; axis++) {
        if (wanted->dims[axis] >= 0) {
            if (wanted->dims[axis] != input->dims[axis])
                return wrong_shape(m, index);
            continue;
        }
        uint32_t other = 0;
        const int64_t bound = bound_before(m, index, axis, &other);
        if (bound >= 0 && bound != input->dims[axis])
            return terse_fail(m->error, TERSE_INVALID_ARGUMENT,
                              "input '%s': dimension %d is %" PRId64 ", but '%s' is %" PRId64 " in input '%s'",
                              wanted->name, axis, input->dims[axis], m->served->symbols[-1 - wanted->dims[axis]], bound,
                              m->served->inputs[other].name);
    }
    return TERSE_OK;
}

bool terse_served_copies(const terse_served *served, const terse_wire_tensor *input)
{
    switch (input->dtype) {
    case TERSE_INT32:
    case TERSE_INT64:
    case TERSE_UINT32:
    case TERSE_UINT64:
        return true; /* may be an index, an axis, a shape */
    default:
        return !served->batchable && input->rank <= 1; /* may be the scales of a Resize, the ends of a Range */
    }
}

static int match_shared(match *m, const terse_wire_tensor *input, const char *name)
{
    char what[TEXT], text[TEXT];
    if (input->frame != 0)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT,
                          "input '%s' names a frame and a place in shared memory: one", name);
    if (!m->bytes->has_arena)
        return no_arena(m, "input", name);
    const int64_t count = terse_dims_count(input->dims, input->rank);
    const uint64_t element = terse_dtype_size(input->dtype);
    if (count < 0 || (uint64_t)count > (uint64_t)TERSE_MAX_TENSOR_BYTES / element)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "input '%s' of shape %s is larger than any tensor may be",
                          name, terse_dims_text(input->dims, input->rank, text, sizeof text));
    if ((uint64_t)count * element != input->shm_size)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT,
                          "input '%s' of shape %s needs %" PRIu64 " bytes, its place in shared memory has %" PRIu64,
                          name, terse_dims_text(input->dims, input->rank, text, sizeof text), (uint64_t)count * element,
                          input->shm_size);
    if (terse_served_copies(m->served, input))
        m->call->bytes += terse_align(input->shm_size, TERSE_SLOT_ALIGN);
    if (terse_arena_fits(input->shm_offset, input->shm_size, m->bytes->arena_input_bytes))
        return TERSE_OK;
    snprintf(what, sizeof what, "input '%.100s'", name);
    return terse_arena_check(input->shm_offset, input->shm_size, m->bytes->arena_input_bytes, what, m->error);
}

/* Where the bytes are, and that they are as many as the shape says. */
static int match_bytes(match *m, uint32_t index)
{
    const terse_wire_tensor *input = m->call->inputs[index];
    const char *name = m->served->inputs[index].name;
    char text[TEXT];
    if (input->has_shm)
        return match_shared(m, input, name);
    if (input->frame == 0)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "input '%s' names no %s", name,
                          m->bytes->only_arena ? "place in shared memory" : "frame");
    if (input->frame > m->bytes->n_frames)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT,
                          "input '%s' names frame %" PRIu32 ", the message has %" PRIu32 " behind its header", name,
                          input->frame, m->bytes->n_frames);
    const int64_t count = terse_dims_count(input->dims, input->rank);
    const size_t found = m->bytes->frame_bytes[input->frame - 1];
    const size_t element = terse_dtype_size(input->dtype);
    if (count < 0 || (uint64_t)count > (uint64_t)TERSE_MAX_TENSOR_BYTES / element)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "input '%s' of shape %s is larger than any tensor may be",
                          name, terse_dims_text(input->dims, input->rank, text, sizeof text));
    if ((uint64_t)count * element != found)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT,
                          "input '%s' of shape %s needs %" PRIu64 " bytes, frame %" PRIu32 " has %zu", name,
                          terse_dims_text(input->dims, input->rank, text, sizeof text), (uint64_t)count * element,
                          input->frame, found);
    m->call->bytes += terse_align(found, TERSE_SLOT_ALIGN);
    return TERSE_OK;
}

static int match_rows(match *m)
{
    m->call->rows = 1;
    if (!m->served->batchable || m->served->n_inputs == 0)
        return TERSE_OK;
    const int64_t rows = m->call->inputs[0]->rank > 0 ? m->call->inputs[0]->dims[0] : 1;
    if (rows < 1 || rows > m->served->max_batch)
        return terse_fail(m->error, TERSE_INVALID_ARGUMENT,
                          "the request has %" PRId64 " rows, model '%s' takes 1 to %" PRIu32, rows, m->served->name,
                          m->served->max_batch);
    m->call->rows = (uint32_t)rows;
    return TERSE_OK;
}

static int match_frames_used(const match *m)
{
    const uint32_t n_frames = m->bytes->n_frames;
    if (n_frames == 0)
        return TERSE_OK;
    /* The usual case: as many frames as inputs, each named once. */
    uint64_t seen = 0;
    for (uint32_t i = 0; i < m->request->n_inputs; i++)
        if (m->request->inputs[i].frame > 0)
            seen |= UINT64_C(1) << (m->request->inputs[i].frame - 1);
    if (n_frames <= 64 && seen == UINT64_MAX >> (64 - n_frames))
        return TERSE_OK;
    for (uint32_t frame = 1; frame <= n_frames; frame++) {
        bool used = false;
        for (uint32_t i = 0; i < m->request->n_inputs && !used; i++)
            used = m->request->inputs[i].frame == frame;
        if (!used)
            return terse_fail(m->error, TERSE_INVALID_ARGUMENT, "frame %" PRIu32 " of %" PRIu32 " belongs to no input",
                              frame, n_frames);
    }
    return TERSE_OK;
}

int terse_served_match(const terse_served *served, const terse_wire_request *request, const terse_served_bytes *bytes,
                       terse_served_call *ret_call, terse_error *error)
{
    match m = {served, request, bytes, ret_call, error};
    ret_call->bytes = 0;
    int status = match_names(&m);
    for (uint32_t i = 0; !status && i < served->n_inputs; i++)
        status = match_shape(&m, i);
    if (!status)
        status = match_rows(&m);
    for (uint32_t i = 0; !status && i < served->n_inputs; i++)
        status = match_bytes(&m, i);
    if (!status)
        status = match_frames_used(&m);
    return status ? status : match_outputs(&m);
}
