/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/shared.h"

#include <string.h>

#include "common/bytes.h"

enum { ALIGN = 64 };

static const char *name_of(const terse_cli_arrays *arrays, int i)
{
    if (arrays->names && *arrays->names[i])
        return arrays->names[i];
    const char *name = terse_signature_name(arrays->signature, 0, i);
    return name ? name : "";
}

/* The size that the arrays give to a symbol; -1: none of them has it. */
static int64_t size_of_symbol(const terse_cli_arrays *arrays, const char *symbol)
{
    for (int i = 0; i < terse_signature_count(arrays->signature, 0); i++)
        for (int axis = 0; axis < terse_signature_shape(arrays->signature, 0, i, NULL); axis++) {
            const char *own = terse_signature_symbol(arrays->signature, 0, i, axis);
            if (!own || strcmp(own, symbol) != 0)
                continue;
            for (int k = 0; k < arrays->n; k++)
                if (strcmp(name_of(arrays, k), terse_signature_name(arrays->signature, 0, i)) == 0 &&
                    axis < arrays->tensors[k].rank)
                    return arrays->tensors[k].dims[axis];
        }
    return -1;
}

/* Bytes of an output; -1 when they are not known before it is there. */
static int64_t output_bytes(const terse_cli_arrays *arrays, int index)
{
    const int64_t *shape = NULL;
    int64_t dims[TERSE_MAX_RANK];
    const int rank = terse_signature_shape(arrays->signature, 1, index, &shape);
    for (int axis = 0; axis < rank; axis++) {
        const char *symbol = terse_signature_symbol(arrays->signature, 1, index, axis);
        dims[axis] = symbol ? size_of_symbol(arrays, symbol) : shape[axis];
        if (dims[axis] < 0)
            return -1;
    }
    const int64_t count = rank < 0 ? -1 : terse_dims_count(dims, rank);
    return count < 0 ? -1 : count * (int64_t)terse_dtype_size(terse_signature_dtype(arrays->signature, 1, index));
}

void terse_cli_shared_bytes(const terse_cli_arrays *arrays, size_t *ret_inputs, size_t *ret_outputs)
{
    *ret_inputs = *ret_outputs = 0;
    for (int i = 0; i < arrays->n; i++)
        *ret_inputs += terse_align((size_t)terse_tensor_bytes(&arrays->tensors[i]) + 1, ALIGN);
    for (int i = 0; i < terse_signature_count(arrays->signature, 1); i++) {
        const int64_t bytes = output_bytes(arrays, i);
        *ret_outputs += bytes < 0 ? 0 : terse_align((size_t)bytes + 1, ALIGN);
    }
}

static terse_status place_output(terse_request *request, const terse_cli_arrays *arrays, terse_client_arena *arena,
                                 int index)
{
    const int64_t bytes = output_bytes(arrays, index);
    const char *name = terse_signature_name(arrays->signature, 1, index);
    if (bytes < 0)
        return terse_request_add_output(request, name);
    void *place = terse_arena_take_output(arena, (size_t)bytes);
    return place ? terse_request_place_output(request, name, arena, place, (size_t)bytes) : TERSE_RESOURCE_EXHAUSTED;
}

terse_status terse_cli_place(terse_request *request, const terse_cli_arrays *arrays, terse_client_arena *arena)
{
    terse_status status = TERSE_OK;
    for (int i = 0; !status && i < arrays->n; i++) {
        const terse_tensor *tensor = &arrays->tensors[i];
        const size_t bytes = (size_t)terse_tensor_bytes(tensor);
        void *place = terse_arena_take_input(arena, bytes);
        if (!place)
            return TERSE_RESOURCE_EXHAUSTED;
        if (bytes)
            memcpy(place, tensor->data, bytes);
        status = terse_request_place_input(request, name_of(arrays, i), tensor->dtype, tensor->rank, tensor->dims,
                                           arena, place);
    }
    for (int i = 0; !status && i < terse_signature_count(arrays->signature, 1); i++)
        status = place_output(request, arrays, arena, i);
    return status;
}
