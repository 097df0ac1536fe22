/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/quantize/replay.h"

#include <stdlib.h>
#include <string.h>

#include "common/graph/engine.h"
#include "compress/spill.h"

enum { LEAST_SPILLED = 1 << 15 }; /* bytes; less stays where it is */

typedef struct chunk {
    int64_t samples;
    terse_tensor *inputs; /* per graph input */
    terse_arena *arena;
    void **pieces; /* per graph input, where it lies in a file; or NULL */
} chunk;

struct terse_replay {
    const terse_graph *graph;
    const terse_kernels *kernels;
    chunk *chunks;
    int n_chunks;
    int *maker;      /* per value: node or -1 */
    int *first_dead; /* per node: the first of those nodes whose numbers end with it, -1; ... */
    int *next_dead;  /* per node: ... and the next one of the same list */
};

struct terse_numbers {
    const terse_replay *replay;
    const chunk *chunk;
    const terse_numbers *base;
    terse_disguise disguise;
    bool keep;
    terse_tensor *values; /* per value; dtype NONE: not there */
    terse_tensor *raw;    /* per graph output that became bytes: its numbers before that */
    terse_arena **arenas; /* per node */
    terse_arena *own;     /* inputs and constants that became bytes, raw outputs */
    void **pieces;        /* per value, where it lies in a file; NULL: none does */
    size_t bytes;
};

/* --- replay ------------------------------------------------------------------------------------------------------ */

void terse_replay_free(terse_replay *r)
{
    if (!r)
        return;
    for (int i = 0; r->chunks && i < r->n_chunks; i++) {
        for (int k = 0; r->chunks[i].pieces && k < r->graph->n_inputs; k++)
            terse_spill_free(r->chunks[i].pieces[k]);
        free(r->chunks[i].pieces);
        terse_arena_free(r->chunks[i].arena);
    }
    free(r->chunks);
    free(r->maker);
    free(r->first_dead);
    free(r->next_dead);
    free(r);
}

void terse_replay_freep(terse_replay **replay)
{
    terse_replay_free(*replay);
}

int terse_replay_chunks(const terse_replay *replay)
{
    return replay->n_chunks;
}

int64_t terse_replay_chunk_samples(const terse_replay *replay, int index)
{
    return replay->chunks[index].samples;
}

/* Behind which node the numbers of each node are read no more; those of graph outputs stay. */
static int find_ends(terse_replay *r, terse_error *error)
{
    const terse_graph *graph = r->graph;
    TERSE_AUTO(terse_freep) int *last = malloc(((size_t)graph->n_nodes + 1) * sizeof *last);
    r->maker = malloc(((size_t)graph->n_values + 1) * sizeof *r->maker);
    r->first_dead = malloc(((size_t)graph->n_nodes + 1) * sizeof *r->first_dead);
    r->next_dead = malloc(((size_t)graph->n_nodes + 1) * sizeof *r->next_dead);
    if (!last || !r->maker || !r->first_dead || !r->next_dead)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d nodes", graph->n_nodes);
    for (int v = 0; v < graph->n_values; v++)
        r->maker[v] = -1;
    for (int n = 0; n < graph->n_nodes; n++) {
        last[n] = n;
        r->first_dead[n] = r->next_dead[n] = -1;
        for (int o = 0; o < graph->nodes[n].n_outputs; o++)
            if (graph->nodes[n].outputs[o] >= 0)
                r->maker[graph->nodes[n].outputs[o]] = n;
        for (int i = 0; i < graph->nodes[n].n_inputs; i++) {
            const int v = graph->nodes[n].inputs[i];
            if (v >= 0 && r->maker[v] >= 0)
                last[r->maker[v]] = n;
        }
    }
    for (int i = 0; i < graph->n_outputs; i++)
        if (r->maker[graph->outputs[i]] >= 0)
            last[r->maker[graph->outputs[i]]] = graph->n_nodes;
    for (int n = 0; n < graph->n_nodes; n++)
        if (last[n] < graph->n_nodes) {
            r->next_dead[n] = r->first_dead[last[n]];
            r->first_dead[last[n]] = n;
        }
    return TERSE_OK;
}

/* The inputs of a chunk may wait in files. */
static int spill_chunk(const terse_graph *graph, chunk *to, terse_error *error)
{
    if (!terse_spill_is_on())
        return TERSE_OK;
    terse_arena *before = to->arena;
    to->pieces = calloc((size_t)graph->n_inputs + 1, sizeof *to->pieces);
    to->arena = terse_arena_new();
    int status = TERSE_OK;
    terse_tensor *kept = to->arena ? terse_arena_alloc(to->arena, ((size_t)graph->n_inputs + 1) * sizeof *kept) : NULL;
    if (!to->pieces || !kept)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    for (int i = 0; i < graph->n_inputs && status == TERSE_OK; i++) {
        kept[i] = to->inputs[i];
        status =
            terse_spill_copy(to->inputs[i].data, (size_t)terse_tensor_bytes(&to->inputs[i]), &to->pieces[i], error);
        kept[i].data = to->pieces[i];
    }
    to->inputs = kept;
    terse_arena_free(before);
    return status;
}

/* Copies samples first, first + step ... (evenly spread over all) into one chunk. */
static int fill_chunk(const terse_replay *r, const terse_samples *samples, int64_t begin, int64_t n, int64_t of,
                      chunk *to, terse_error *error)
{
    const terse_graph *graph = r->graph;
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)graph->n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)graph->n_inputs + 1, sizeof *pointers);
    to->samples = n;
    to->arena = terse_arena_new();
    to->inputs = to->arena ? terse_arena_alloc(to->arena, ((size_t)graph->n_inputs + 1) * sizeof *to->inputs) : NULL;
    if (!views || !pointers || !to->inputs)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    for (int64_t s = 0; s < n; s++) {
        const int64_t index = (int64_t)((double)(begin + s) * (double)samples->samples / (double)of);
        terse_samples_views(samples, index, 1, views, pointers);
        for (int i = 0; i < graph->n_inputs; i++) {
            const size_t bytes = (size_t)terse_tensor_bytes(&views[i]);
            if (s == 0) {
                to->inputs[i] = views[i];
                if (samples->rows[i] > 0)
                    to->inputs[i].dims[0] *= n;
                to->inputs[i] = terse_tensor_view(terse_arena_alloc(to->arena, bytes * (size_t)n + 1), views[i].dtype,
                                                  views[i].rank, to->inputs[i].dims);
                if (!to->inputs[i].data)
                    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
            }
            if (bytes && (s == 0 || samples->rows[i] > 0))
                memcpy((char *)to->inputs[i].data + (size_t)s * bytes, views[i].data, bytes);
        }
    }
    return spill_chunk(graph, to, error);
}

int terse_replay_new(const terse_graph *graph, const terse_samples *samples, int64_t n_samples, int64_t rows,
                     terse_replay **ret_replay, terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *r = calloc(1, sizeof *r);
    if (!r)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a replay");
    r->graph = graph;
    if (n_samples > samples->samples)
        n_samples = samples->samples;
    if (samples->batch == 1 || rows < 1)
        rows = 1;
    r->n_chunks = (int)((n_samples + rows - 1) / rows);
    r->chunks = calloc((size_t)r->n_chunks + 1, sizeof *r->chunks);
    if (!r->chunks)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a replay");
    int status = terse_kernels_get(&r->kernels, error);
    if (status == TERSE_OK)
        status = find_ends(r, error);
    for (int i = 0; i < r->n_chunks && status == TERSE_OK; i++) {
        const int64_t begin = i * rows, left = n_samples - begin;
        status = fill_chunk(r, samples, begin, left < rows ? left : rows, n_samples, &r->chunks[i], error);
    }
    if (status == TERSE_OK)
        *ret_replay = TERSE_TAKE(r);
    return status;
}

int terse_replay_evaluate(const terse_replay *replay, const terse_node *node, const terse_tensor *const *inputs,
                          terse_arena *arena, terse_tensor *ret_outputs, terse_error *error)
{
    return terse_node_evaluate(node, replay->kernels, inputs, arena, (size_t)TERSE_MAX_TENSOR_BYTES, ret_outputs,
                               error);
}

void terse_replay_round(terse_affine affine, const float *x, float *y, int64_t n)
{
    const float magic = 12582912.0f, inverse = 1.0f / affine.scale; /* t + 1.5 * 2^23 rounds to even */
    const float low = (float)-affine.zero_point, high = (float)(255 - affine.zero_point), scale = affine.scale;
    for (int64_t i = 0; i < n; i++) {
        float t = x[i] * inverse;
        t = t > low ? t : low;
        t = t < high ? t : high;
        y[i] = ((t + magic) - magic) * scale;
    }
}

/* --- numbers ----------------------------------------------------------------------------------------------------- */

void terse_numbers_free(terse_numbers *s)
{
    if (!s)
        return;
    for (int n = 0; s->arenas && n < s->replay->graph->n_nodes; n++)
        terse_arena_free(s->arenas[n]);
    for (int v = 0; s->pieces && v < s->replay->graph->n_values; v++)
        terse_spill_free(s->pieces[v]);
    free(s->pieces);
    terse_arena_free(s->own);
    free(s->arenas);
    free(s->values);
    free(s->raw);
    free(s);
}

void terse_numbers_freep(terse_numbers **numbers)
{
    terse_numbers_free(*numbers);
}

/* What a value goes through when it is made; one that is FP32 for others does when it is read. */
static terse_affine affine_at(const terse_numbers *s, int value)
{
    const terse_scheme *scheme = s->disguise.scheme;
    return s->disguise.affine && scheme->demanded[value] && !scheme->given[value] ? s->disguise.affine[value]
                                                                                  : (terse_affine){0, 0};
}

/* A tensor that is not to be changed goes through the bytes into memory of the set's own. */
static bool round_copy(terse_numbers *s, const terse_tensor *from, terse_affine affine, terse_tensor *to)
{
    const int64_t n = terse_tensor_count(from);
    *to =
        terse_tensor_view(terse_arena_alloc(s->own, (size_t)n * sizeof(float) + 1), TERSE_FP32, from->rank, from->dims);
    if (to->data)
        terse_replay_round(affine, from->data, to->data, n);
    return to->data != NULL;
}

/* Inputs, and constants that are operands of nodes on bytes. */
static bool set_given(terse_numbers *s)
{
    const terse_graph *graph = s->replay->graph;
    for (int i = 0; i < graph->n_inputs; i++) {
        const int v = graph->inputs[i];
        s->values[v] = s->chunk->inputs[i];
        const terse_affine affine = affine_at(s, v);
        if (affine.scale > 0 && !round_copy(s, &s->chunk->inputs[i], affine, &s->values[v]))
            return false;
    }
    for (int v = 0; s->disguise.affine && v < graph->n_values; v++) {
        const terse_value *value = &graph->values[v];
        if (!value->data || !s->disguise.scheme->demanded[v] || affine_at(s, v).scale <= 0)
            continue;
        const terse_tensor plain =
            terse_tensor_view((void *)(uintptr_t)value->data, value->dtype, value->rank, value->dims);
        if (!round_copy(s, &plain, affine_at(s, v), &s->values[v]))
            return false;
    }
    return true;
}

int terse_numbers_new(const terse_replay *replay, int index, bool keep, const terse_disguise *disguise,
                      const terse_numbers *base, terse_numbers **ret_numbers, terse_error *error)
{
    TERSE_AUTO(terse_numbers_freep) terse_numbers *s = calloc(1, sizeof *s);
    if (s) {
        s->replay = replay;
        s->chunk = &replay->chunks[index];
        s->base = base;
        s->keep = keep;
        if (disguise)
            s->disguise = *disguise;
        s->values = calloc((size_t)replay->graph->n_values + 1, sizeof *s->values);
        s->raw = calloc((size_t)replay->graph->n_outputs + 1, sizeof *s->raw);
        s->arenas = calloc((size_t)replay->graph->n_nodes + 1, sizeof(void *));
        s->own = terse_arena_new();
    }
    if (!s || !s->values || !s->raw || !s->arenas || !s->own || (!base && !set_given(s)))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a replay");
    *ret_numbers = TERSE_TAKE(s);
    return TERSE_OK;
}

const terse_tensor *terse_numbers_value(const terse_numbers *s, int value)
{
    if (s->values[value].dtype != TERSE_DTYPE_NONE)
        return &s->values[value];
    return s->base ? terse_numbers_value(s->base, value) : NULL;
}

const terse_tensor *terse_numbers_output(const terse_numbers *s, int index)
{
    if (index >= s->replay->graph->n_outputs)
        return NULL;
    if (s->raw[index].dtype != TERSE_DTYPE_NONE)
        return &s->raw[index];
    const int value = s->replay->graph->outputs[index];
    if (s->values[value].dtype == TERSE_DTYPE_NONE && s->base)
        return terse_numbers_output(s->base, index);
    return terse_numbers_value(s, value);
}

size_t terse_numbers_bytes(const terse_numbers *s)
{
    return s->bytes;
}

static bool differs(const terse_numbers *s, const terse_node *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] >= 0 && s->values[node->inputs[i]].dtype != TERSE_DTYPE_NONE)
            return true;
    return false;
}

/* Input `slot` of a node: constants as they are unless the disguise says otherwise. */
static bool gather_input(const terse_numbers *s, const terse_disguise *disguise, int node, int slot,
                         terse_tensor *ret_tensor)
{
    const terse_graph *graph = s->replay->graph;
    const int v = graph->nodes[node].inputs[slot];
    const terse_value *value = &graph->values[v];
    const terse_scheme *scheme = disguise->scheme;
    const terse_tensor *found = terse_numbers_value(s, v);
    if (found && (!value->data || (scheme && terse_scheme_reads_bytes(scheme, node, slot)))) {
        *ret_tensor = *found;
        return true;
    }
    if (!value->data)
        return false;
    *ret_tensor = terse_tensor_view((void *)(uintptr_t)value->data, value->dtype, value->rank, value->dims);
    ret_tensor->layout = value->layout;
    float *const *other = slot == 1 ? disguise->weights : slot == 2 ? disguise->bias : NULL;
    if (other && other[node])
        ret_tensor->data = other[node];
    return true;
}

static void release(terse_numbers *s, int node)
{
    const terse_node *n = &s->replay->graph->nodes[node];
    terse_arena_free(s->arenas[node]);
    s->arenas[node] = NULL;
    for (int o = 0; o < n->n_outputs; o++)
        if (n->outputs[o] >= 0) {
            terse_tensor *t = &s->values[n->outputs[o]];
            if (t->dtype != TERSE_DTYPE_NONE)
                s->bytes -= (size_t)terse_tensor_bytes(t);
            t->dtype = TERSE_DTYPE_NONE;
            if (s->pieces) {
                terse_spill_free(s->pieces[n->outputs[o]]);
                s->pieces[n->outputs[o]] = NULL;
            }
        }
}

/* The outputs of a node find their place, and become bytes. */
static bool take_outputs(terse_numbers *s, const terse_node *n, const terse_tensor *outputs)
{
    const terse_graph *graph = s->replay->graph;
    for (int o = 0; o < n->n_outputs; o++) {
        const int v = n->outputs[o];
        if (v < 0)
            continue;
        s->values[v] = outputs[o];
        s->bytes += (size_t)terse_tensor_bytes(&outputs[o]);
        const terse_affine affine = affine_at(s, v);
        if (affine.scale <= 0 || outputs[o].dtype != TERSE_FP32)
            continue;
        const int64_t count = terse_tensor_count(&outputs[o]);
        for (int i = 0; i < graph->n_outputs; i++)
            if (graph->outputs[i] == v) {
                s->raw[i] = outputs[o];
                s->raw[i].data = terse_arena_alloc(s->own, (size_t)count * sizeof(float) + 1);
                if (!s->raw[i].data)
                    return false;
                memcpy(s->raw[i].data, outputs[o].data, (size_t)count * sizeof(float));
            }
        terse_replay_round(affine, outputs[o].data, outputs[o].data, count);
    }
    return true;
}

/* With a bound of memory, what a node has made waits in files until it is read. */
static int spill_outputs(terse_numbers *s, int node, terse_error *error)
{
    const terse_node *n = &s->replay->graph->nodes[node];
    size_t bytes = 0;
    for (int o = 0; o < n->n_outputs; o++)
        if (n->outputs[o] >= 0)
            bytes += (size_t)terse_tensor_bytes(&s->values[n->outputs[o]]);
    if (!terse_spill_is_on() || s->keep || s->base || bytes < LEAST_SPILLED)
        return TERSE_OK;
    if (!s->pieces)
        s->pieces = calloc((size_t)s->replay->graph->n_values + 1, sizeof *s->pieces);
    if (!s->pieces)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a replay");
    for (int o = 0; o < n->n_outputs; o++) {
        const int v = n->outputs[o];
        if (v < 0)
            continue;
        terse_tensor *t = &s->values[v];
        const int status = terse_spill_copy(t->data, (size_t)terse_tensor_bytes(t), &s->pieces[v], error);
        if (status != TERSE_OK)
            return status;
        t->data = s->pieces[v];
    }
    terse_arena_free(s->arenas[node]);
    s->arenas[node] = NULL;
    return TERSE_OK;
}

void terse_numbers_rest(const terse_numbers *s, int node)
{
    const terse_node *n = &s->replay->graph->nodes[node];
    for (int i = 0; i < n->n_inputs && terse_spill_is_on(); i++) {
        const int v = n->inputs[i];
        if (v >= 0 && s->pieces)
            terse_spill_rest(s->pieces[v]);
        for (int k = 0; v >= 0 && s->chunk->pieces && k < s->replay->graph->n_inputs; k++)
            if (s->replay->graph->inputs[k] == v)
                terse_spill_rest(s->chunk->pieces[k]);
    }
}

/* rounding: whatever is read as bytes goes through them, for a set without disguise. */
static bool read_input(const terse_numbers *s, const terse_disguise *disguise, bool rounding, int node, int slot,
                       terse_arena *arena, terse_tensor *ret_tensor)
{
    const int v = s->replay->graph->nodes[node].inputs[slot];
    if (!gather_input(s, disguise, node, slot, ret_tensor))
        return false;
    if (!disguise->affine || disguise->affine[v].scale <= 0 ||
        !terse_scheme_reads_bytes(disguise->scheme, node, slot) || !(rounding || disguise->scheme->given[v]))
        return true;
    const int64_t count = terse_tensor_count(ret_tensor);
    float *rounded = terse_arena_alloc(arena, (size_t)count * sizeof *rounded + 1);
    if (rounded)
        terse_replay_round(disguise->affine[v], ret_tensor->data, rounded, count);
    ret_tensor->data = rounded;
    return rounded != NULL;
}

bool terse_numbers_read(const terse_numbers *s, int node, int slot, terse_arena *arena, terse_tensor *ret_tensor)
{
    return read_input(s, &s->disguise, false, node, slot, arena, ret_tensor);
}

static int compute(const terse_numbers *s, const terse_disguise *disguise, bool rounding, int node, terse_arena *arena,
                   terse_tensor *outputs, terse_error *error)
{
    const terse_node *n = &s->replay->graph->nodes[node];
    TERSE_AUTO(terse_freep) terse_tensor *held = malloc(((size_t)n->n_inputs + 1) * sizeof *held);
    TERSE_AUTO(terse_freep) const terse_tensor **inputs = malloc(((size_t)n->n_inputs + 1) * sizeof *inputs);
    bool good = held && inputs;
    for (int i = 0; i < n->n_inputs && good; i++) {
        inputs[i] = n->inputs[i] < 0 ? NULL : &held[i];
        good = n->inputs[i] < 0 || read_input(s, disguise, rounding, node, i, arena, &held[i]);
    }
    if (!good)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "node '%s': no numbers for an input", n->name);
    return terse_replay_evaluate(s->replay, n, inputs, arena, outputs, error);
}

int terse_numbers_try(const terse_numbers *s, int node, const terse_disguise *disguise, terse_arena *arena,
                      terse_tensor *ret_outputs, terse_error *error)
{
    return compute(s, disguise, true, node, arena, ret_outputs, error);
}

void terse_numbers_put(terse_numbers *s, int node, const terse_tensor *outputs, terse_arena *arena)
{
    const terse_node *n = &s->replay->graph->nodes[node];
    terse_arena_free(s->arenas[node]);
    s->arenas[node] = arena;
    for (int o = 0; o < n->n_outputs; o++)
        if (n->outputs[o] >= 0) {
            s->values[n->outputs[o]] = outputs[o];
            s->bytes += (size_t)terse_tensor_bytes(&outputs[o]);
        }
}

int terse_numbers_step(terse_numbers *s, int node, terse_error *error)
{
    const terse_node *n = &s->replay->graph->nodes[node];
    int status = TERSE_OK;
    if (!s->base || differs(s, n)) {
        TERSE_AUTO(terse_freep) terse_tensor *outputs = calloc((size_t)n->n_outputs + 1, sizeof *outputs);
        s->arenas[node] = terse_arena_new();
        status = outputs && s->arenas[node]
                     ? compute(s, &s->disguise, false, node, s->arenas[node], outputs, error)
                     : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for node '%s'", n->name);
        if (status == TERSE_OK && !take_outputs(s, n, outputs))
            status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for an output");
        if (status == TERSE_OK)
            status = spill_outputs(s, node, error);
        terse_numbers_rest(s, node);
    }
    for (int dead = s->replay->first_dead[node]; dead >= 0 && !s->keep; dead = s->replay->next_dead[dead])
        release(s, dead);
    return status;
}
