/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. What one product costs is measured with its weights alone in 4 bits, rounded to the nearest; what all
 * cost is nearly the sum. GPTQ and training make all of it less and change the order little. */
#include "compress/quantize/mixed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/steps.h"
#include "compress/quantize/keep.h"
#include "compress/quantize/steps.h"
#include "compress/quantize/weights.h"

enum { SAMPLES = 32, TOKENS = 4096 };
static const double most_more = 0.2;                             /* bytes */
static const double enough_classes = 0.005, enough_share = 1e-3; /* nats; 30 dB */
static const double room_bytes = 400e6;

void terse_mixed_done(terse_mixed *mixed)
{
    for (int i = 0; mixed->names && i < mixed->n; i++)
        free(mixed->names[i]);
    free(mixed->names);
    *mixed = (terse_mixed){0};
}

bool terse_mixed_keeps(const terse_mixed *mixed, const char *name)
{
    for (int i = 0; mixed && i < mixed->n; i++)
        if (strcmp(mixed->names[i], name) == 0)
            return true;
    return false;
}

bool terse_mixed_takes(const terse_graph *graph, int value, int bits)
{
    const terse_value *v = &graph->values[value];
    bool good = v->data && v->dtype == TERSE_FP32 && v->layout == TERSE_LAYOUT_PLAIN && v->rank >= 2;
    for (int64_t i = 0; good && i < terse_dims_count(v->dims, v->rank); i++)
        good = isfinite(((const float *)v->data)[i]);
    for (int i = 2; i < v->rank; i++)
        good = good && v->dims[i] == 1;
    for (int i = 0; good && i < graph->n_nodes; i++) {
        const terse_node *node = &graph->nodes[i];
        const bool product = node->op == TERSE_OP_GEMM || node->op == TERSE_OP_MATMUL;
        for (int k = 0; k < node->n_inputs; k++)
            if (node->inputs[k] == value)
                good = good && k == 1 &&
                       ((product && v->rank == 2 && terse_node_int(node, "transB", 0) == 0) ||
                        (node->op == TERSE_OP_CONV && bits == 8 && terse_node_int(node, "group", 1) == 1));
    }
    return good;
}

/* --- candidates -------------------------------------------------------------------------------------------------- */

typedef struct candidate {
    int node, value;
    double more, cost; /* bytes; of the outputs */
    bool kept;
} candidate;

/* The first product of every matrix. */
static int list_products(const terse_graph *graph, candidate *list)
{
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const terse_node *node = &graph->nodes[i];
        const int w = (node->op == TERSE_OP_GEMM || node->op == TERSE_OP_MATMUL) ? node->inputs[1] : -1;
        bool there = w < 0 || !terse_mixed_takes(graph, w, 4);
        for (int k = 0; k < n && !there; k++)
            there = list[k].value == w;
        if (!there)
            list[n++] = (candidate){.node = i, .value = w};
    }
    return n;
}

static double bytes_of_4(const terse_value *v, int group)
{
    const double k = (double)v->dims[0], n = (double)v->dims[1];
    return n * (k / 2 + 4 * ceil(k / group));
}

static double bytes_of_8(const terse_value *v)
{
    return (double)v->dims[1] * ((double)v->dims[0] + 4);
}

static float *nearest(const terse_value *v, int group)
{
    const int64_t k = v->dims[0], n = v->dims[1];
    float *to = malloc((size_t)(k * n) * sizeof *to + 1);
    TERSE_AUTO(terse_freep) int8_t *room = malloc((size_t)group + 1);
    for (int64_t g = 0; to && room && g < k; g += group)
        for (int64_t j = 0; j < n; j++) {
            const int64_t count = k - g < group ? k - g : group;
            const float scale = terse_quantize_round((const float *)v->data + g * n + j, count, n, -8, 7, room);
            for (int64_t i = 0; i < count; i++)
                to[(g + i) * n + j] = scale * (float)room[i];
        }
    if (!room) {
        free(to);
        return NULL;
    }
    return to;
}

/* --- what each costs --------------------------------------------------------------------------------------------- */

/* Tokens in, rows of classes out: likelihood counts. Else the power of what is wrong. */
static bool speaks(const terse_graph *graph)
{
    const terse_value *x = &graph->values[graph->inputs[0]], *y = &graph->values[graph->outputs[0]];
    return (x->dtype == TERSE_INT64 || x->dtype == TERSE_INT32) && y->dtype == TERSE_FP32 && y->rank == 3;
}

static int64_t samples_that_fit(const terse_samples *samples, size_t bytes)
{
    const int64_t wide =
        samples->tensors[0]->rank > 1 && samples->tensors[0]->dtype != TERSE_FP32 ? samples->tensors[0]->dims[1] : 1;
    const double most = fmin(room_bytes / 2 / (double)(bytes + 1), (double)TOKENS / (double)wide);
    return most < 4 ? 4 : most > SAMPLES ? SAMPLES : (int64_t)most;
}

static int measure(const terse_graph *graph, int group, const terse_npz *data, candidate *list, int n, bool classes,
                   void (*progress)(void *, const char *), void *context, terse_error *error)
{
    terse_samples samples = {0};
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    const size_t nodes = (size_t)graph->n_nodes + 1, values = (size_t)graph->n_values + 1;
    TERSE_AUTO(terse_freep) float **weights = calloc(nodes, sizeof *weights);
    TERSE_AUTO(terse_freep) terse_loss *losses = calloc(nodes, sizeof *losses);
    TERSE_AUTO(terse_freep) terse_scheme_kind *kinds = calloc(nodes, sizeof *kinds);
    TERSE_AUTO(terse_freep) bool *none = calloc(values, sizeof *none);
    size_t bytes = 0;
    bool good = weights && losses && kinds && none;
    int status = terse_samples_open(graph, data, &samples, error);
    if (status == TERSE_OK)
        status = terse_walk_bytes(&samples, &bytes, error);
    if (status == TERSE_OK)
        status = terse_replay_new(graph, &samples, samples_that_fit(&samples, bytes), 4, &replay, error);
    for (int i = 0; good && i < n; i++) {
        kinds[list[i].node] = TERSE_SCHEME_PRODUCT;
        good = (weights[list[i].node] = nearest(&graph->values[list[i].value], group)) != NULL;
    }
    if (status == TERSE_OK && !good)
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for rounded weights");
    const terse_scheme scheme = {.graph = graph, .kinds = kinds, .demanded = none, .given = none, .source = none};
    const terse_disguise disguise = {.scheme = &scheme, .weights = weights};
    if (status == TERSE_OK)
        status = terse_sensitivity_measure(replay, graph, &disguise, losses, progress, context, error);
    for (int i = 0; status == TERSE_OK && i < n; i++)
        list[i].cost = classes ? terse_loss_kl(&losses[list[i].node]) : terse_loss_share(&losses[list[i].node]);
    for (size_t i = 0; weights && i + 1 < nodes; i++)
        free(weights[i]);
    terse_replay_freep(&replay);
    replay = NULL;
    terse_samples_done(&samples);
    return status;
}

static void choose(const terse_graph *graph, int group, candidate *list, int n, terse_mixed *m)
{
    const double enough = m->classes ? enough_classes : enough_share;
    double all = 0, more = 0, left = 0;
    for (int i = 0; i < n; i++) {
        const terse_value *v = &graph->values[list[i].value];
        all += bytes_of_4(v, group);
        list[i].more = bytes_of_8(v) - bytes_of_4(v, group);
        more += list[i].kept ? list[i].more : 0;
        left += list[i].kept ? 0 : list[i].cost;
        m->lost_all += list[i].cost;
    }
    while (m->automatic && left > enough) {
        candidate *best = NULL;
        for (int i = 0; i < n; i++) {
            candidate *c = &list[i];
            if (c->kept || !(c->cost > 0) || more + c->more > most_more * all)
                continue;
            if (!best || c->cost * best->more > best->cost * c->more)
                best = c;
        }
        if (!best)
            break;
        best->kept = true;
        more += best->more;
        left -= best->cost;
    }
    m->more = all > 0 ? more / all : 0;
    m->lost = left > 0 ? left : 0;
}

static int take_names(const terse_graph *graph, const candidate *list, int n, terse_mixed *m, terse_error *error)
{
    m->names = calloc((size_t)n + 1, sizeof *m->names);
    bool good = m->names != NULL;
    for (int i = 0; good && i < n; i++)
        if (list[i].kept)
            good = (m->names[m->n++] = strdup(graph->nodes[list[i].node].name)) != NULL;
    return good ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for names");
}

int terse_mixed_choose(const terse_graph *graph, int group, const char *text, const terse_npz *data,
                       void (*progress)(void *context, const char *text), void *context, terse_mixed *ret_mixed,
                       terse_error *error)
{
    TERSE_AUTO(terse_freep) candidate *list = calloc((size_t)graph->n_nodes + 1, sizeof *list);
    TERSE_AUTO(terse_freep) bool *kept = calloc((size_t)graph->n_nodes + 1, sizeof *kept);
    terse_mixed m = {0};
    bool automatic = false;
    if (!list || !kept)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d products", graph->n_nodes);
    int status = terse_keep_named(graph, "--keep-int8", text, kept, &automatic, error);
    if (status != TERSE_OK)
        return status;
    m.of = list_products(graph, list);
    m.classes = speaks(graph);
    m.automatic = automatic && data;
    for (int i = 0; i < m.of; i++) {
        list[i].kept = kept[list[i].node];
        kept[list[i].node] = false;
    }
    for (int i = 0; i < graph->n_nodes; i++)
        if (kept[i] && !(graph->nodes[i].inputs[1] >= 0 && terse_mixed_takes(graph, graph->nodes[i].inputs[1], 4)))
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "--keep-int8 names '%.100s' (%s), which would not become 4 bits anyway",
                              graph->nodes[i].name, terse_op_name(graph->nodes[i].op));
    if (m.automatic)
        status = measure(graph, group, data, list, m.of, m.classes, progress, context, error);
    if (status == TERSE_OK) {
        choose(graph, group, list, m.of, &m);
        status = take_names(graph, list, m.of, &m, error);
    }
    if (status == TERSE_OK)
        *ret_mixed = m;
    else
        terse_mixed_done(&m);
    return status;
}
