/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/passes/channels_last.h"
#include "compress/passes/passes.h"

#include <stdlib.h>
#include <string.h>

int terse_region_axis(int axis, int rank)
{
    return axis == 0 ? 0 : axis == 1 ? rank - 1 : axis - 1;
}

/* perm[i]: the plain axis that is axis i of the twin. */
static void twin_perm(int rank, int64_t *perm)
{
    for (int i = 0; i < rank; i++)
        perm[terse_region_axis(i, rank)] = i;
}

/* perm[i]: the twin's axis that is axis i of the plain form. */
static void plain_perm(int rank, int64_t *perm)
{
    for (int i = 0; i < rank; i++)
        perm[i] = terse_region_axis(i, rank);
}

/* A value with the dims of the twin of `value`. */
static int add_twin_value(terse_region *region, int value)
{
    const int twin = terse_edit_add_like(&region->edit, value, "/nhwc");
    if (twin < 0)
        return -1;
    const terse_value *plain = &region->edit.graph->values[value];
    for (int i = 0; i < plain->rank; i++)
        region->edit.graph->values[twin].dims[terse_region_axis(i, plain->rank)] = plain->dims[i];
    return twin;
}

/* The bytes of a constant with its axes moved. */
static int permuted_constant(terse_edit *edit, int value, const int64_t *perm)
{
    const terse_value old = edit->graph->values[value];
    const size_t size = terse_dtype_size(old.dtype);
    int64_t dims[TERSE_MAX_RANK], stride[TERSE_MAX_RANK], at[TERSE_MAX_RANK] = {0};
    char *to = terse_edit_alloc(edit, old.bytes);
    if (!to)
        return -1;
    for (int i = 0; i < old.rank; i++) { /* stride[i]: elements of the old tensor per step of new axis i */
        dims[i] = old.dims[perm[i]];
        stride[i] = 1;
        for (int j = (int)perm[i] + 1; j < old.rank; j++)
            stride[i] *= old.dims[j];
    }
    const int64_t count = (int64_t)(old.bytes / size);
    int64_t from = 0;
    for (int64_t done = 0; done < count; done++) {
        memcpy(to + (size_t)done * size, (const char *)old.data + (size_t)from * size, size);
        for (int axis = old.rank - 1; axis >= 0; axis--) {
            from += stride[axis];
            if (++at[axis] < dims[axis])
                break;
            from -= stride[axis] * dims[axis];
            at[axis] = 0;
        }
    }
    return terse_edit_add_constant(edit, old.name, old.dtype, old.rank, dims, to);
}

int terse_region_plain(terse_region *region, int value)
{
    if (value < 0 || value >= region->n)
        return value;
    if (region->alias[value] >= 0)
        return region->alias[value];
    if (!region->plain[value]) {
        int64_t perm[TERSE_MAX_RANK];
        plain_perm(region->edit.graph->values[value].rank, perm);
        terse_edit_add_move(&region->edit, region->twin[value], perm, value);
        region->plain[value] = 1;
    }
    return value;
}

int terse_region_constant_twin(terse_region *region, int constant)
{
    int64_t perm[TERSE_MAX_RANK];
    twin_perm(region->edit.graph->values[constant].rank, perm);
    return permuted_constant(&region->edit, constant, perm);
}

int terse_region_twin(terse_region *region, int value)
{
    if (region->twin[value] >= 0)
        return region->twin[value];
    int64_t perm[TERSE_MAX_RANK];
    twin_perm(region->edit.graph->values[value].rank, perm);
    const int source = terse_region_plain(region, value);
    int twin;
    if (terse_edit_is_constant(&region->edit, source)) {
        twin = terse_region_constant_twin(region, source);
        region->native[value] = 1;
    } else {
        twin = add_twin_value(region, value);
        terse_edit_add_move(&region->edit, source, perm, twin);
    }
    region->twin[value] = twin;
    return twin;
}

void terse_region_make_twin(terse_region *region, int node, int slot)
{
    const int value = region->edit.graph->nodes[node].outputs[slot];
    if (value < 0)
        return;
    const int twin = add_twin_value(region, value);
    if (twin < 0)
        return;
    terse_edit_set_output(&region->edit, node, slot, twin);
    region->twin[value] = twin;
    region->native[value] = 1;
    region->plain[value] = 0;
}

static bool allocate(terse_region *region)
{
    const size_t n = (size_t)region->n + 1;
    region->twin = malloc(n * sizeof *region->twin);
    region->alias = malloc(n * sizeof *region->alias);
    region->flat = malloc(n * sizeof *region->flat);
    region->flat_channels = calloc(n, sizeof *region->flat_channels);
    region->native = calloc(n, 1);
    region->plain = malloc(n);
    if (!region->twin || !region->alias || !region->flat || !region->flat_channels || !region->native || !region->plain)
        return false;
    memset(region->plain, 1, n);
    for (int v = 0; v < region->n; v++)
        region->twin[v] = region->alias[v] = region->flat[v] = -1;
    return true;
}

static void release(terse_region *region)
{
    free(region->twin);
    free(region->alias);
    free(region->flat);
    free(region->flat_channels);
    free(region->native);
    free(region->plain);
}

int terse_pass_channels_last(terse_graph *graph, terse_error *error)
{
    terse_region region = {.n = graph->n_values, .convolution_ranks = terse_edit_convolution_ranks(graph)};
    const int status = terse_edit_open(graph, &region.edit, error);
    if (status != TERSE_OK)
        return status;
    terse_edit *edit = &region.edit;
    edit->failed = !allocate(&region);
    for (int node = 0, n = graph->n_nodes; node < n && !edit->failed; node++)
        terse_region_visit(&region, node);
    for (int i = 0; i < graph->n_outputs && !edit->failed; i++) {
        const int value = graph->outputs[i]; /* keeps its name */
        if (region.alias[value] >= 0)
            terse_edit_add_node(edit, TERSE_OP_IDENTITY, graph->values[value].name, &region.alias[value], 1, &value, 1);
        else
            terse_region_plain(&region, value);
    }
    release(&region);
    return terse_edit_close(edit, error);
}
