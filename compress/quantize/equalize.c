/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/steps.h"

enum { ROUNDS = 8 };                  /* over chains of pairs (Nagel et al.: until nothing changes) */
static const double most_factor = 64; /* of a channel, both ways: beyond it numbers only get worse */

/* Two products that follow each other, channel by channel. */
typedef struct pair {
    int first, second; /* nodes */
    int between;       /* the value that the second one reads */
    int64_t channels;
    float *w1, *b1, *w2; /* copies in the arena, shared by all pairs that name the same node */
    double *largest;     /* per channel: of the numbers between, or NULL */
} pair;

typedef struct equalizing {
    terse_edit edit;
    pair *pairs;
    int n;
    float **weights, **bias; /* per node: its copy, or NULL */
} equalizing;

/* y = max(x, 0) or y = x: with a positive factor on x the same factor is on y. */
static bool is_homogeneous(const terse_node *product)
{
    const terse_attr *activation = terse_node_attr(product, "activation");
    if (!activation)
        return true;
    return strcmp(terse_node_text(product, "activation", ""), "Clip") == 0 &&
           terse_node_float(product, "activation_alpha", -1) == 0.0 &&
           isinf(terse_node_float(product, "activation_beta", 0));
}

/* Nodes through which a factor on a channel passes, and channels stay where they are. */
static bool hands_on(const terse_edit *edit, const terse_node *node, int value)
{
    if (node->op == TERSE_OP_MUL) /* of something else, broadcast to the value's shape at most */
        return node->n_inputs == 2 && node->inputs[0] != node->inputs[1] &&
               terse_edit_same_shape(edit, value, node->outputs[0]);
    return node->op == TERSE_OP_RELU || node->op == TERSE_OP_LEAKY_RELU || node->op == TERSE_OP_MAX_POOL ||
           node->op == TERSE_OP_AVERAGE_POOL || node->op == TERSE_OP_GLOBAL_AVERAGE_POOL ||
           node->op == TERSE_OP_GLOBAL_MAX_POOL || node->op == TERSE_OP_IDENTITY;
}

/* The only node that reads `value`, or -1. */
static int only_reader(const terse_edit *edit, const int *reader, int value)
{
    return value >= 0 && edit->uses[value] == 1 ? reader[value] : -1;
}

static bool can_be_first(const terse_graph *graph, int node)
{
    const terse_node *n = &graph->nodes[node];
    char reason[96];
    return terse_scheme_can_quantize(graph, node, reason, sizeof reason) && is_homogeneous(n) &&
           (n->n_inputs < 4 || n->inputs[3] < 0);
}

static bool plain_bias(const terse_graph *graph, const terse_node *node, int64_t channels)
{
    if (node->n_inputs < 3 || node->inputs[2] < 0)
        return true;
    const terse_value *b = &graph->values[node->inputs[2]];
    return b->data && b->dtype == TERSE_FP32 && b->rank == 1 && b->dims[0] == channels;
}

static void find_pair(equalizing *e, const int *reader, int first)
{
    const terse_graph *graph = e->edit.graph;
    if (!can_be_first(graph, first))
        return;
    int value = graph->nodes[first].outputs[0], second = only_reader(&e->edit, reader, value);
    while (second >= 0 && hands_on(&e->edit, &graph->nodes[second], value)) {
        value = graph->nodes[second].outputs[0];
        second = only_reader(&e->edit, reader, value);
    }
    char reason[96];
    if (second < 0 || graph->nodes[second].inputs[0] != value ||
        !terse_scheme_can_quantize(graph, second, reason, sizeof reason))
        return;
    const terse_node *a = &graph->nodes[first], *b = &graph->nodes[second];
    const terse_value *w1 = &graph->values[a->inputs[1]], *w2 = &graph->values[b->inputs[1]];
    const int64_t channels = w1->dims[terse_scheme_channel_axis(a)];
    const bool both_conv = a->op == TERSE_OP_CONV && b->op == TERSE_OP_CONV;
    const bool both_matrix = a->op != TERSE_OP_CONV && b->op != TERSE_OP_CONV;
    const int64_t taken = both_conv ? w2->dims[1] * terse_node_int(b, "group", 1) : w2->dims[0];
    if ((both_conv || both_matrix) && taken == channels && plain_bias(graph, a, channels))
        e->pairs[e->n++] = (pair){.first = first, .second = second, .between = value, .channels = channels};
}

/* --- ranges and factors ------------------------------------------------------------------------------------------ */

/* Numbers of output channel c of the first product: `n` of them, `step` apart. */
static float *first_channel(const terse_graph *graph, const pair *p, int64_t c, int64_t *n, int64_t *step)
{
    const terse_value *w = &graph->values[graph->nodes[p->first].inputs[1]];
    const int64_t all = terse_dims_count(w->dims, w->rank);
    *n = all / p->channels;
    *step = graph->nodes[p->first].op == TERSE_OP_CONV ? 1 : p->channels;
    return p->w1 + (*step == 1 ? c * *n : c);
}

/* Calls `visit` for every weight of the second product that input channel c meets. */
static double over_second(const terse_graph *graph, const pair *p, int64_t c, double factor)
{
    const terse_node *node = &graph->nodes[p->second];
    const terse_value *w = &graph->values[node->inputs[1]];
    double largest = 0;
    if (node->op != TERSE_OP_CONV) {
        for (int64_t i = 0; i < w->dims[1]; i++) {
            float *at = &p->w2[c * w->dims[1] + i];
            *at = (float)((double)*at * factor);
            largest = fabs((double)*at) > largest ? fabs((double)*at) : largest;
        }
        return largest;
    }
    const int64_t per_group = w->dims[1], positions = terse_dims_count(w->dims + 2, w->rank - 2);
    const int64_t filters = w->dims[0] / terse_node_int(node, "group", 1);
    for (int64_t f = c / per_group * filters; f < (c / per_group + 1) * filters; f++)
        for (int64_t i = 0; i < positions; i++) {
            float *at = &p->w2[(f * per_group + c % per_group) * positions + i];
            *at = (float)((double)*at * factor);
            largest = fabs((double)*at) > largest ? fabs((double)*at) : largest;
        }
    return largest;
}

static void equalize_pair(const terse_graph *graph, pair *p)
{
    for (int64_t c = 0; c < p->channels; c++) {
        int64_t n, step;
        float *w1 = first_channel(graph, p, c, &n, &step);
        double r1 = p->largest ? p->largest[c] : 0;
        for (int64_t i = 0; i < n && !p->largest; i++)
            r1 = fabs((double)w1[i * step]) > r1 ? fabs((double)w1[i * step]) : r1;
        const double r2 = over_second(graph, p, c, 1.0);
        if (!(r1 > 1e-8) || !(r2 > 1e-8))
            continue;
        double s = sqrt(r1 * r2) / r2;
        s = s > most_factor ? most_factor : s < 1 / most_factor ? 1 / most_factor : s;
        for (int64_t i = 0; i < n; i++)
            w1[i * step] = (float)((double)w1[i * step] / s);
        if (p->b1)
            p->b1[c] = (float)((double)p->b1[c] / s);
        over_second(graph, p, c, s);
        if (p->largest)
            p->largest[c] /= s;
    }
}

/* --- the numbers between ----------------------------------------------------------------------------------------- */

static void note_largest(const terse_graph *graph, const terse_tensor *t, pair *p)
{
    const bool conv = graph->nodes[p->second].op == TERSE_OP_CONV;
    const int64_t count = terse_tensor_count(t);
    const int64_t run = conv ? terse_dims_count(t->dims + 2, t->rank - 2) : 1;
    const float *numbers = t->data;
    for (int64_t i = 0; run > 0 && i < count; i++) {
        double *at = &p->largest[i / run % p->channels];
        *at = fabs((double)numbers[i]) > *at ? fabs((double)numbers[i]) : *at;
    }
}

static int measure(equalizing *e, const terse_samples *samples, terse_error *error)
{
    enum { SAMPLES = 16, ROWS = 4 };
    terse_graph *graph = e->edit.graph;
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    for (int i = 0; i < e->n; i++) {
        e->pairs[i].largest = terse_edit_alloc(&e->edit, (size_t)e->pairs[i].channels * sizeof(double));
        if (!e->pairs[i].largest)
            return TERSE_OK; /* closing the edit tells */
    }
    int status = terse_replay_new(graph, samples, SAMPLES, ROWS, &replay, error);
    for (int chunk = 0; status == TERSE_OK && chunk < terse_replay_chunks(replay); chunk++) {
        terse_numbers *numbers = NULL;
        status = terse_numbers_new(replay, chunk, false, NULL, NULL, &numbers, error);
        for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
            for (int i = 0; i < e->n; i++)
                if (e->pairs[i].second == n && terse_numbers_value(numbers, e->pairs[i].between))
                    note_largest(graph, terse_numbers_value(numbers, e->pairs[i].between), &e->pairs[i]);
            status = terse_numbers_step(numbers, n, error);
        }
        terse_numbers_free(numbers);
    }
    return status;
}

/* --- the whole --------------------------------------------------------------------------------------------------- */

static float *copy_of(equalizing *e, float **copies, int node, int slot)
{
    const terse_node *n = &e->edit.graph->nodes[node];
    if (copies[node] || n->n_inputs <= slot || n->inputs[slot] < 0)
        return copies[node];
    const terse_value *value = &e->edit.graph->values[n->inputs[slot]];
    copies[node] = terse_edit_alloc(&e->edit, value->bytes);
    if (copies[node])
        memcpy(copies[node], value->data, value->bytes);
    return copies[node];
}

static void replace(equalizing *e, int node, int slot, const float *data)
{
    const terse_value value = e->edit.graph->values[e->edit.graph->nodes[node].inputs[slot]];
    const int constant = terse_edit_add_constant(&e->edit, value.name, value.dtype, value.rank, value.dims, data);
    if (constant >= 0)
        terse_edit_set_input(&e->edit, node, slot, constant);
}

static void write_back(equalizing *e, int n_nodes)
{
    for (int n = 0; n < n_nodes && !e->edit.failed; n++) {
        if (e->weights[n])
            replace(e, n, 1, e->weights[n]);
        if (e->bias[n])
            replace(e, n, 2, e->bias[n]);
    }
}

static void find_pairs(equalizing *e, int *reader)
{
    const terse_graph *graph = e->edit.graph;
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_inputs; i++)
            if (graph->nodes[n].inputs[i] >= 0)
                reader[graph->nodes[n].inputs[i]] = n;
    for (int n = 0; n < graph->n_nodes; n++)
        find_pair(e, reader, n);
    for (int i = 0; i < e->n; i++) {
        pair *p = &e->pairs[i];
        p->w1 = copy_of(e, e->weights, p->first, 1);
        p->b1 = copy_of(e, e->bias, p->first, 2);
        p->w2 = copy_of(e, e->weights, p->second, 1);
    }
}

int terse_equalize_run(terse_graph *graph, const terse_samples *samples, terse_equalize_by by, int *ret_pairs,
                       terse_error *error)
{
    const int n_nodes = graph->n_nodes;
    TERSE_AUTO(terse_freep) int *reader = malloc(((size_t)graph->n_values + 1) * sizeof *reader);
    TERSE_AUTO(terse_freep) pair *pairs = calloc((size_t)n_nodes + 1, sizeof *pairs);
    TERSE_AUTO(terse_freep) float **copies = calloc(2 * ((size_t)n_nodes + 1), sizeof *copies);
    equalizing e = {.pairs = pairs, .weights = copies, .bias = copies + n_nodes + 1};
    if (!reader || !pairs || !copies)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d nodes", n_nodes);
    memset(reader, -1, ((size_t)graph->n_values + 1) * sizeof *reader);
    int status = terse_edit_open(graph, &e.edit, error);
    if (status != TERSE_OK)
        return status;
    find_pairs(&e, reader);
    if (by == TERSE_EQUALIZE_ACTIVATIONS && e.n && !e.edit.failed)
        status = measure(&e, samples, error);
    for (int round = 0; round < (by == TERSE_EQUALIZE_WEIGHTS ? ROUNDS : 1) && status == TERSE_OK && !e.edit.failed;
         round++)
        for (int i = 0; i < e.n && by != TERSE_EQUALIZE_NONE; i++)
            equalize_pair(graph, &e.pairs[i]);
    if (status == TERSE_OK && by != TERSE_EQUALIZE_NONE)
        write_back(&e, n_nodes);
    const int closed = terse_edit_close(&e.edit, status == TERSE_OK ? error : NULL);
    *ret_pairs = e.n;
    return status == TERSE_OK ? closed : status;
}
