/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/layers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/graph/plan.h"
#include "compress/runner.h"

enum { MAX_CHANNELS = 65536, MIN_OF_CHANNEL = 8 }; /* numbers of a channel for a scale of its own */
enum { MAX_SAMPLES = 16, WARM_RUNS = 2, MIN_RUNS = 5, MAX_RUNS = 31 };
static const uint64_t max_timing_ns = 2000000000u;

/* Sums over elements of a layer's output: x compressed, y exact. */
typedef struct sums {
    double n, x, y, xx, xy, yy, noise;
} sums;

/* Those of a layer, for each index of the last axis (the channels) where there are not too many. */
typedef struct moments {
    sums *sums;
    int64_t channels;
    bool stored_integers, broken;
} moments;

typedef struct side {
    const terse_graph *graph;
    terse_runner runner;
    int *layer_of; /* per node: layer or -1 */
    int *value_of; /* per layer: the value that is its output, or -1 */
} side;

typedef struct watch {
    const side *s;
    int n_layers;
    float **kept; /* per layer: the exact output of this sample */
    int64_t *n_kept;
    moments *moments; /* NULL while the exact side runs */
    bool failed;
} watch;

void terse_layers_done(terse_layers *layers)
{
    free(layers->layers);
    *layers = (terse_layers){0};
}

const terse_layer *terse_layers_find(const terse_layers *layers, const char *name)
{
    for (int i = 0; i < layers->n; i++)
        if (strcmp(layers->layers[i].name, name) == 0)
            return &layers->layers[i];
    return NULL;
}

/* --- names -------------------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int terse_layers_name_nodes(terse_graph *graph, terse_error *error)
{
    TERSE_AUTO(terse_freep) const char **taken = calloc((size_t)graph->n_nodes + 1, sizeof *taken);
    if (!taken)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the names of %d nodes", graph->n_nodes);
    int n_taken = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].name[0])
            taken[n_taken++] = graph->nodes[i].name;
    qsort(taken, (size_t)n_taken, sizeof *taken, by_text);
    for (int i = 0; i < graph->n_nodes; i++) {
        terse_node *node = &graph->nodes[i];
        const char *wanted = node->name;
        for (int o = 0; o < node->n_outputs && !wanted[0]; o++)
            if (node->outputs[o] >= 0)
                wanted = graph->values[node->outputs[o]].name;
        const char **found = bsearch(&wanted, taken, (size_t)n_taken, sizeof *taken, by_text);
        const bool twice = found && ((found > taken && strcmp(found[-1], wanted) == 0) ||
                                     (found + 1 < taken + n_taken && strcmp(found[1], wanted) == 0));
        if (node->name[0] && !twice)
            continue;
        const size_t size = strlen(wanted) + 16;
        char *name = terse_arena_alloc(graph->arena, size);
        if (!name)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the name of a node");
        snprintf(name, size, found ? "%s#%d" : "%s", wanted, i);
        node->name = name;
    }
    return TERSE_OK;
}

/* --- which node belongs to which layer --------------------------------------------------------------------------- */

static bool has_weights(const terse_graph *graph, const terse_node *node)
{
    switch (node->op) {
    case TERSE_OP_CONV:
    case TERSE_OP_CONV_TRANSPOSE:
    case TERSE_OP_GEMM:
    case TERSE_OP_MATMUL:
    case TERSE_OP_WGEMM:
    case TERSE_OP_BCONV:
    case TERSE_OP_BGEMM:
    case TERSE_OP_RNN:
    case TERSE_OP_GRU:
    case TERSE_OP_LSTM:
        return node->n_inputs > 1 && node->inputs[1] >= 0 && graph->values[node->inputs[1]].data;
    default:
        return false;
    }
}

static int64_t constant_bytes(const terse_graph *graph, const terse_node *node)
{
    int64_t bytes = 0;
    for (int i = 1; i < node->n_inputs; i++)
        if (node->inputs[i] >= 0 && graph->values[node->inputs[i]].data)
            bytes += (int64_t)graph->values[node->inputs[i]].bytes;
    return bytes;
}

/* The layer of exactly that name (as far as it was kept), else the one that the name starts with, up to a '/'. */
static int find_layer(const terse_layers *layers, const char *name)
{
    for (int i = 0; i < layers->n; i++)
        if (strncmp(layers->layers[i].name, name, sizeof layers->layers[i].name - 1) == 0)
            return i;
    for (int i = 0; i < layers->n; i++) {
        const size_t length = strlen(layers->layers[i].name);
        if (strncmp(name, layers->layers[i].name, length) == 0 && name[length] == '/')
            return i;
    }
    return -1;
}

static int list_layers(const terse_graph *exact, terse_layers *layers, terse_error *error)
{
    layers->layers = calloc((size_t)exact->n_nodes + 1, sizeof *layers->layers);
    if (!layers->layers)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the layers");
    for (int i = 0; i < exact->n_nodes; i++) {
        const terse_node *node = &exact->nodes[i];
        if (!has_weights(exact, node))
            continue;
        terse_layer *layer = &layers->layers[layers->n++];
        const terse_value *weights = &exact->values[node->inputs[1]];
        snprintf(layer->name, sizeof layer->name, "%s", node->name);
        terse_dims_text(weights->dims, weights->rank, layer->shape, sizeof layer->shape);
        layer->op_before = layer->op_after = node->op;
        layer->sqnr_db = (double)NAN;
    }
    return TERSE_OK;
}

/* --- one side ----------------------------------------------------------------------------------------------- */

static void side_done(side *s)
{
    terse_runner_done(&s->runner);
    free(s->layer_of);
    free(s->value_of);
}

static int side_init(const terse_graph *graph, const terse_layers *layers, side *s, terse_error *error)
{
    s->graph = graph;
    s->layer_of = malloc(((size_t)graph->n_nodes + 1) * sizeof *s->layer_of);
    s->value_of = malloc(((size_t)layers->n + 1) * sizeof *s->value_of);
    if (!s->layer_of || !s->value_of)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the layers");
    for (int i = 0; i < layers->n; i++)
        s->value_of[i] = -1;
    for (int i = 0; i < graph->n_nodes; i++) {
        s->layer_of[i] = find_layer(layers, graph->nodes[i].name);
        if (s->layer_of[i] >= 0)
            s->value_of[s->layer_of[i]] = graph->nodes[i].outputs[0];
    }
    return terse_runner_init(graph, &s->runner, error);
}

static void count_side(const side *s, terse_layers *layers, bool after)
{
    const terse_graph *graph = s->graph;
    for (int i = 0; i < graph->n_nodes; i++) {
        if (s->layer_of[i] < 0)
            continue;
        const terse_node *node = &graph->nodes[i];
        terse_layer *layer = &layers->layers[s->layer_of[i]];
        const terse_tensor *inputs[TERSE_MAX_NODE_IO];
        for (int k = 0; k < node->n_inputs; k++)
            inputs[k] = node->inputs[k] < 0 ? NULL : terse_plan_value(s->runner.plan, node->inputs[k]);
        const terse_tensor *output = node->outputs[0] < 0 ? NULL : terse_plan_value(s->runner.plan, node->outputs[0]);
        *(after ? &layer->macs_after : &layer->macs_before) +=
            output ? terse_macs_count(node, inputs, node->n_inputs, output) : 0;
        *(after ? &layer->bytes_after : &layer->bytes_before) += constant_bytes(graph, node);
        if (after) {
            layer->op_after = node->op;
            snprintf(layer->compression, sizeof layer->compression, "%s", node->compression ? node->compression : "");
        }
    }
}

/* --- error -------------------------------------------------------------------------------------------------- */

/* Copies or compares, row by row, for tensors may lie in wider rows. */
static void observe_layer(watch *w, int layer, const terse_tensor *t)
{
    const int64_t count = terse_tensor_count(t), row = t->rank ? t->dims[t->rank - 1] : 1;
    if (!w->moments) {
        free(w->kept[layer]);
        w->kept[layer] = malloc(((size_t)count + 1) * sizeof(float));
        w->n_kept[layer] = count;
        w->failed = w->failed || !w->kept[layer];
        for (int64_t i = 0; i < count && w->kept[layer]; i++)
            w->kept[layer][i] = (float)terse_runner_number(t, t->data, i / row * t->row_stride + i % row);
        return;
    }
    moments *m = &w->moments[layer];
    if (!w->kept[layer] || w->n_kept[layer] != count) {
        m->broken = true;
        return;
    }
    m->stored_integers = t->dtype != TERSE_FP32 && t->dtype != TERSE_BF16;
    if (!m->sums) {
        m->channels = row <= MAX_CHANNELS && count / (row ? row : 1) * MAX_SAMPLES >= MIN_OF_CHANNEL ? row : 1;
        m->sums = calloc((size_t)m->channels + 1, sizeof *m->sums);
        w->failed = w->failed || !m->sums;
    }
    for (int64_t i = 0; i < count && m->sums; i++) {
        const double x = terse_runner_number(t, t->data, i / row * t->row_stride + i % row),
                     y = (double)w->kept[layer][i];
        sums *to = &m->sums[i % row % m->channels];
        to->n += 1;
        to->x += x;
        to->y += y;
        to->xx += x * x;
        to->xy += x * y;
        to->yy += y * y;
        to->noise += (x - y) * (x - y);
    }
}

static void observe(void *context, int value, const terse_tensor *tensor)
{
    watch *w = context;
    for (int i = 0; i < w->n_layers; i++)
        if (w->s->value_of[i] == value && tensor->data)
            observe_layer(w, i, tensor);
}

static double decibels(const moments *m)
{
    double signal = 0, noise = 0;
    for (int64_t c = 0; m->sums && c < m->channels; c++) {
        const sums *of = &m->sums[c];
        if (of->n == 0)
            continue;
        /* stored integers: what the best line through the channel leaves */
        const double vx = of->xx - of->x * of->x / of->n, cov = of->xy - of->x * of->y / of->n;
        const double vy = of->yy - of->y * of->y / of->n, left = vy - (vx > 0 ? cov * cov / vx : 0);
        signal += m->stored_integers ? vy : of->yy;
        noise += !m->stored_integers ? of->noise : left > 0 ? left : 0;
    }
    if (m->broken || !m->sums || !isfinite(signal) || !isfinite(noise))
        return (double)NAN;
    return noise == 0 ? (double)INFINITY : signal == 0 ? (double)NAN : 10.0 * log10(signal / noise);
}

static int compare(const terse_samples *f, side *both, terse_layers *layers, terse_tensor *views, const void **pointers,
                   terse_error *error)
{
    const size_t n = (size_t)layers->n + 1;
    TERSE_AUTO(terse_freep) moments *m = calloc(n, sizeof *m);
    TERSE_AUTO(terse_freep) float **kept = calloc(n, sizeof *kept);
    TERSE_AUTO(terse_freep) int64_t *n_kept = calloc(n, sizeof *n_kept);
    watch w[2] = {{.s = &both[0], .n_layers = layers->n, .kept = kept, .n_kept = n_kept},
                  {.s = &both[1], .n_layers = layers->n, .kept = kept, .n_kept = n_kept, .moments = m}};
    int status =
        m && kept && n_kept ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the layers");
    layers->samples = f->samples < MAX_SAMPLES ? f->samples : MAX_SAMPLES;
    for (int64_t i = 0; i < layers->samples && status == TERSE_OK; i++) {
        terse_samples_views(f, i * (f->samples / layers->samples), 1, views, pointers);
        for (int k = 0; k < 2 && status == TERSE_OK; k++) {
            status = terse_runner_plan(&both[k].runner, views, error);
            if (status != TERSE_OK)
                break;
            terse_plan_observe(both[k].runner.plan, observe, &w[k]);
            status = terse_plan_run(both[k].runner.plan, pointers, both[k].runner.outputs, error);
            terse_plan_observe(both[k].runner.plan, NULL, NULL);
            if (w[k].failed)
                status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the outputs of the layers");
        }
    }
    for (int i = 0; i < layers->n && status == TERSE_OK; i++)
        layers->layers[i].sqnr_db = decibels(&m[i]);
    for (int i = 0; kept && m && i < layers->n; i++) {
        free(kept[i]);
        free(m[i].sums);
    }
    return status;
}

/* --- time --------------------------------------------------------------------------------------------------- */

/* The median over runs of one column; times are [runs][columns], a column a layer, the last one all other nodes. */
static double middle(const double *times, int runs, int columns, int column)
{
    double list[MAX_RUNS];
    for (int r = 0; r < runs; r++)
        list[r] = times[r * columns + column];
    return terse_runner_median(list, runs);
}

static int time_run(side *s, uint64_t *node_times, double *row, int n_layers, const void *const *pointers,
                    terse_error *error)
{
    memset(node_times, 0, (size_t)s->graph->n_nodes * sizeof *node_times);
    const int status = terse_plan_run(s->runner.plan, pointers, s->runner.outputs, error);
    for (int i = 0; row && i < s->graph->n_nodes; i++)
        row[s->layer_of[i] < 0 ? n_layers : s->layer_of[i]] += (double)node_times[i] / 1000.0;
    return status;
}

static int measure_times(side *both, terse_layers *layers, const void *const *pointers, terse_error *error)
{
    const int columns = layers->n + 1;
    TERSE_AUTO(terse_freep) uint64_t *before = calloc((size_t)both[0].graph->n_nodes + 1, sizeof *before);
    TERSE_AUTO(terse_freep) uint64_t *after = calloc((size_t)both[1].graph->n_nodes + 1, sizeof *after);
    TERSE_AUTO(terse_freep) double *times = calloc((size_t)columns * 2 * MAX_RUNS, sizeof *times);
    if (!before || !after || !times)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the times of the layers");
    uint64_t *node_times[2] = {before, after};
    double *rows[2] = {times, times + (size_t)columns * MAX_RUNS};
    int status = TERSE_OK, n = -WARM_RUNS;
    const uint64_t start = terse_now_ns();
    for (; n < MAX_RUNS && (n < MIN_RUNS || terse_now_ns() - start < max_timing_ns) && status == TERSE_OK; n++)
        for (int k = 0; k < 2 && status == TERSE_OK; k++) {
            terse_plan_profile(both[k].runner.plan, node_times[k]);
            status =
                time_run(&both[k], node_times[k], n < 0 ? NULL : rows[k] + n * columns, layers->n, pointers, error);
            terse_plan_profile(both[k].runner.plan, NULL);
        }
    if (status != TERSE_OK)
        return status;
    for (int i = 0; i < layers->n; i++) {
        layers->layers[i].us_before = middle(rows[0], n, columns, i);
        layers->layers[i].us_after = middle(rows[1], n, columns, i);
    }
    layers->other_us_before = middle(rows[0], n, columns, layers->n);
    layers->other_us_after = middle(rows[1], n, columns, layers->n);
    return TERSE_OK;
}

int terse_layers_measure(const terse_graph *exact, const terse_graph *compressed, const terse_npz *data,
                         terse_layers *ret_layers, terse_error *error)
{
    terse_layers layers = {0};
    terse_samples f = {0};
    side both[2] = {{.graph = exact}, {.graph = compressed}};
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)exact->n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)exact->n_inputs + 1, sizeof *pointers);
    int status = views && pointers ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    if (status == TERSE_OK)
        status = terse_samples_open(exact, data, &f, error);
    if (status == TERSE_OK)
        status = list_layers(exact, &layers, error);
    for (int k = 0; k < 2 && status == TERSE_OK; k++)
        status = side_init(both[k].graph, &layers, &both[k], error);
    if (status == TERSE_OK)
        status = compare(&f, both, &layers, views, pointers, error);
    for (int k = 0; k < 2 && status == TERSE_OK; k++)
        count_side(&both[k], &layers, k == 1);
    if (status == TERSE_OK)
        status = measure_times(both, &layers, pointers, error);
    for (int k = 0; k < 2; k++)
        side_done(&both[k]);
    terse_samples_done(&f);
    if (status == TERSE_OK)
        *ret_layers = layers;
    else
        terse_layers_done(&layers);
    return status;
}
