/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/bytes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void terse_train_bytes_done(terse_train_bytes *b)
{
    free(b->list);
    *b = (terse_train_bytes){0};
}

static bool all_zero(const terse_value *v)
{
    for (size_t i = 0; i < v->bytes; i++)
        if (((const char *)v->data)[i] != 0)
            return false;
    return true;
}

static int input_of(const terse_node *node, int slot)
{
    return slot < node->n_inputs ? node->inputs[slot] : TERSE_NO_VALUE;
}

/* Fills `to` where the node is a DequantizeLinear of that kind. */
static bool takes(const terse_graph *graph, const terse_node *node, terse_train_byte *to)
{
    if (node->op != TERSE_OP_DEQUANTIZE_LINEAR || node->n_inputs < 2 || terse_node_int(node, "block_size", 0) != 0)
        return false;
    const terse_value *q = &graph->values[node->inputs[0]], *s = &graph->values[node->inputs[1]];
    const int zero = input_of(node, 2);
    if (!q->data || q->dtype != TERSE_INT8 || q->layout != TERSE_LAYOUT_PLAIN || q->rank < 1 || q->bytes == 0 ||
        !s->data || s->dtype != TERSE_FP32 ||
        (zero >= 0 && (!graph->values[zero].data || !all_zero(&graph->values[zero]))))
        return false;
    const int64_t n_scales = terse_dims_count(s->dims, s->rank);
    int64_t axis = terse_node_int(node, "axis", 1);
    axis += axis < 0 ? q->rank : 0;
    const bool one = n_scales == 1;
    if (!one && (s->rank != 1 || axis < 0 || axis >= q->rank || q->dims[axis] != n_scales))
        return false;
    for (int64_t i = 0; i < n_scales; i++)
        if (!isfinite(((const float *)s->data)[i]))
            return false;
    *to = (terse_train_byte){.value = node->outputs[0],
                             .bytes = node->inputs[0],
                             .quantizer = {.bits = 8, .axis = one ? -1 : (int)axis, .scales = s->data}};
    return true;
}

/* The scale of each number, one after the other. */
static void for_scales(const terse_value *q, const terse_train_quantizer *how, int64_t *ret_inner,
                       int64_t *ret_channels)
{
    *ret_channels = how->axis < 0 ? 1 : q->dims[how->axis];
    *ret_inner = how->axis < 0 ? 1 : terse_dims_count(q->dims + how->axis + 1, q->rank - how->axis - 1);
}

int terse_train_bytes_expose(terse_graph *copy, terse_train_bytes *ret_bytes, terse_error *error)
{
    terse_train_bytes b = {.list = calloc((size_t)copy->n_nodes + 1, sizeof *b.list)};
    if (!b.list)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d nodes", copy->n_nodes);
    for (int i = 0; i < copy->n_nodes; i++) {
        terse_train_byte *to = &b.list[b.n];
        if (!takes(copy, &copy->nodes[i], to))
            continue;
        const terse_value *q = &copy->values[to->bytes];
        const int64_t n = terse_dims_count(q->dims, q->rank);
        int64_t inner, channels;
        for_scales(q, &to->quantizer, &inner, &channels);
        float *numbers = terse_arena_alloc(copy->arena, ((size_t)n + 1) * sizeof *numbers);
        if (!numbers) {
            terse_train_bytes_done(&b);
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %lld weights", (long long)n);
        }
        for (int64_t k = 0; k < n; k++)
            numbers[k] = (float)((const int8_t *)q->data)[k] * to->quantizer.scales[k / inner % channels];
        terse_value *value = &copy->values[to->value];
        value->dtype = TERSE_FP32;
        value->rank = q->rank;
        memcpy(value->dims, q->dims, sizeof q->dims);
        value->data = numbers;
        value->bytes = (size_t)n * sizeof *numbers;
        value->layout = TERSE_LAYOUT_PLAIN;
        copy->nodes[i].op = TERSE_OP_COUNT;
        b.n++;
    }
    terse_graph_compact(copy);
    *ret_bytes = b;
    return TERSE_OK;
}

const terse_train_byte *terse_train_bytes_find(const terse_train_bytes *b, int value)
{
    for (int i = 0; i < b->n; i++)
        if (b->list[i].value == value)
            return &b->list[i];
    return NULL;
}

int terse_train_bytes_store(const terse_train_byte *b, const float *numbers, terse_graph *graph, terse_error *error)
{
    terse_value *q = &graph->values[b->bytes];
    const int64_t n = terse_dims_count(q->dims, q->rank);
    int8_t *bytes = terse_arena_alloc(graph->arena, (size_t)n + 1);
    if (!bytes)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the trained weights");
    int64_t inner, channels;
    for_scales(q, &b->quantizer, &inner, &channels);
    for (int64_t k = 0; k < n; k++) {
        const float s = b->quantizer.scales[k / inner % channels];
        const float t = s != 0 ? rintf(numbers[k] / s) : 0;
        bytes[k] = (int8_t)(t < -127 ? -127 : t > 127 ? 127 : t);
    }
    q->data = bytes;
    return TERSE_OK;
}
