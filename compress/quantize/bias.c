/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/steps.h"

/* Sums over samples of what a sample's mean per channel lost. */
typedef struct tally {
    int64_t channels, samples;
    double *sum, *squares;
} tally;

/* A constant of the node's own: zeros where it has no bias, a copy where others read it too. */
static void own_bias(terse_edit *edit, int node)
{
    terse_graph *graph = edit->graph;
    const int bias = terse_edit_input(edit, node, 2);
    const float *from = bias >= 0 ? terse_edit_floats(edit, bias) : NULL;
    if (bias >= 0 && (!from || edit->uses[bias] == 1))
        return;
    const terse_value w = graph->values[graph->nodes[node].inputs[1]];
    const terse_value like = bias >= 0 ? graph->values[bias] : (terse_value){.rank = 1};
    const int64_t channels = w.dims[terse_scheme_channel_axis(&graph->nodes[node])];
    const size_t bytes = from ? like.bytes : (size_t)channels * sizeof(float);
    float *numbers = terse_edit_alloc(edit, bytes);
    if (!numbers)
        return;
    if (from)
        memcpy(numbers, from, bytes);
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s/bias", graph->nodes[node].name);
    const int own = terse_edit_add_constant(edit, name, TERSE_FP32, like.rank, from ? like.dims : &channels, numbers);
    if (own >= 0)
        terse_edit_set_input(edit, node, 2, own);
}

int terse_bias_prepare(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    char reason[96];
    for (int n = 0; n < graph->n_nodes && !edit.failed; n++)
        if (terse_scheme_can_quantize(graph, n, reason, sizeof reason))
            own_bias(&edit, n);
    return terse_edit_close(&edit, error);
}

/* The node without what comes behind the bias: activation and residual. `attrs` and `inputs` have room. */
static terse_node bare_node(const terse_node *node, terse_attr *attrs)
{
    terse_node bare = *node;
    bare.attrs = attrs;
    bare.n_attrs = 0;
    for (int i = 0; i < node->n_attrs; i++)
        if (strncmp(node->attrs[i].name, "activation", 10) != 0)
            attrs[bare.n_attrs++] = node->attrs[i];
    bare.n_inputs = node->n_inputs > 3 ? 3 : node->n_inputs;
    return bare;
}

int terse_bias_bare_output(const terse_replay *replay, const terse_graph *graph, const terse_numbers *numbers, int node,
                           const float *weights, const float *bias, terse_arena *arena, terse_tensor *ret_output,
                           terse_error *error)
{
    const terse_node *n = &graph->nodes[node];
    terse_tensor held[3], outputs[4];
    const terse_tensor *inputs[3] = {&held[0], &held[1], &held[2]};
    terse_attr *attrs = terse_arena_alloc(arena, ((size_t)n->n_attrs + 1) * sizeof *attrs);
    if (!attrs || n->n_outputs > 4 || !terse_numbers_read(numbers, node, 0, arena, &held[0]))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "node '%s': no numbers for an input", n->name);
    for (int i = 1; i < 3 && i < n->n_inputs; i++) {
        if (n->inputs[i] < 0) {
            inputs[i] = NULL;
            continue;
        }
        const terse_value *value = &graph->values[n->inputs[i]];
        held[i] = terse_tensor_view((void *)(uintptr_t)value->data, value->dtype, value->rank, value->dims);
        if (i == 1 && weights)
            held[i].data = (void *)(uintptr_t)weights;
        if (i == 2 && bias)
            held[i].data = (void *)(uintptr_t)bias;
    }
    const terse_node bare = bare_node(n, attrs);
    const int status = terse_replay_evaluate(replay, &bare, inputs, arena, outputs, error);
    if (status == TERSE_OK)
        *ret_output = outputs[0];
    return status;
}

/* Means over everything but channels (axis 1 of a convolution, else the last), sample by sample where axis 0 is theirs.
 */
static void add_means(const terse_tensor *exact, const terse_tensor *found, bool conv, int64_t samples, tally *t)
{
    const int64_t count = terse_tensor_count(exact),
                  inner = conv ? terse_dims_count(exact->dims + 2, exact->rank - 2) : 1;
    const int64_t parts = exact->dims[0] % samples == 0 ? samples : 1, part = count / parts;
    const float *a = exact->data, *b = found->data;
    if (inner < 1 || part < 1)
        return;
    for (int64_t s = 0; s < parts; s++)
        for (int64_t c = 0; c < t->channels; c++) {
            double sum = 0;
            for (int64_t at = s * part + c * inner; at < (s + 1) * part; at += t->channels * inner)
                for (int64_t i = at; i < at + inner; i++)
                    sum += (double)a[i] - (double)b[i];
            const double mean = sum * (double)t->channels / (double)part;
            t->sum[c] += mean;
            t->squares[c] += mean * mean;
        }
    t->samples += parts;
}

static void correct(const tally *t, float *bias)
{
    for (int64_t c = 0; c < t->channels && t->samples > 1; c++) {
        const double n = (double)t->samples, mean = t->sum[c] / n;
        const double variance = (t->squares[c] - n * mean * mean) / (n - 1);
        const double doubt = mean != 0 ? variance / n / (mean * mean) : 1;
        if (doubt < 1)
            bias[c] = (float)((double)bias[c] + mean * (1 - doubt));
    }
}

/* The sets of numbers of all chunks, exact and as bytes. */
typedef struct lockstep {
    int n;
    terse_numbers **exact, **found;
} lockstep;

static int correct_node(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise,
                        const lockstep *l, int node, float *bias, terse_error *error)
{
    const terse_node *n = &graph->nodes[node];
    const terse_value *b = &graph->values[n->inputs[2]];
    tally t = {.channels = b->dims[0]};
    TERSE_AUTO(terse_freep) double *sums = calloc(2 * (size_t)t.channels + 1, sizeof *sums);
    if (!sums)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a bias");
    t.sum = sums;
    t.squares = sums + t.channels;
    int status = TERSE_OK;
    for (int i = 0; i < l->n && status == TERSE_OK; i++) {
        terse_tensor exact, found;
        terse_arena *arena = terse_arena_new();
        status = arena ? terse_bias_bare_output(replay, graph, l->exact[i], node, NULL, NULL, arena, &exact, error)
                       : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a bias");
        if (status == TERSE_OK)
            status = terse_bias_bare_output(replay, graph, l->found[i], node, disguise->weights[node], NULL, arena,
                                            &found, error);
        if (status == TERSE_OK)
            add_means(&exact, &found, n->op == TERSE_OP_CONV, terse_replay_chunk_samples(replay, i), &t);
        terse_numbers_rest(l->exact[i], node);
        terse_numbers_rest(l->found[i], node);
        terse_arena_free(arena);
    }
    if (status == TERSE_OK)
        correct(&t, bias);
    return status;
}

static bool has_plain_bias(const terse_graph *graph, const terse_node *node)
{
    if (node->n_inputs < 3 || node->inputs[2] < 0)
        return false;
    const terse_value *b = &graph->values[node->inputs[2]], *w = &graph->values[node->inputs[1]];
    return b->data && b->dtype == TERSE_FP32 && b->rank == 1 && b->dims[0] == w->dims[terse_scheme_channel_axis(node)];
}

static int walk(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise, float **bias,
                terse_arena *arena, lockstep *l, terse_error *error)
{
    terse_disguise corrected = *disguise;
    corrected.bias = bias;
    int status = TERSE_OK;
    for (int i = 0; i < l->n && status == TERSE_OK; i++) {
        status = terse_numbers_new(replay, i, false, NULL, NULL, &l->exact[i], error);
        if (status == TERSE_OK)
            status = terse_numbers_new(replay, i, false, &corrected, NULL, &l->found[i], error);
    }
    for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
        const terse_node *node = &graph->nodes[n];
        if (disguise->scheme->kinds[n] == TERSE_SCHEME_PRODUCT && has_plain_bias(graph, node)) {
            const terse_value *b = &graph->values[node->inputs[2]];
            bias[n] = terse_arena_alloc(arena, b->bytes);
            if (!bias[n])
                return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a bias");
            memcpy(bias[n], b->data, b->bytes);
            status = correct_node(replay, graph, disguise, l, n, bias[n], error);
        }
        for (int i = 0; i < l->n && status == TERSE_OK; i++) {
            status = terse_numbers_step(l->exact[i], n, error);
            if (status == TERSE_OK)
                status = terse_numbers_step(l->found[i], n, error);
        }
    }
    return status;
}

int terse_bias_correct(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise,
                       float **bias, terse_arena *arena, terse_error *error)
{
    lockstep l = {.n = terse_replay_chunks(replay)};
    l.exact = calloc((size_t)l.n + 1, sizeof(void *));
    l.found = calloc((size_t)l.n + 1, sizeof(void *));
    const int status = l.exact && l.found ? walk(replay, graph, disguise, bias, arena, &l, error)
                                          : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a bias");
    for (int i = 0; i < l.n; i++) {
        if (l.exact)
            terse_numbers_free(l.exact[i]);
        if (l.found)
            terse_numbers_free(l.found[i]);
    }
    free(l.exact);
    free(l.found);
    return status;
}
