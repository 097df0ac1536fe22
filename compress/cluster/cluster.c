/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Samples walk through the network as it was and, in lockstep, as it is so far (compress/low_rank has the
 * walk and the moments), as in pruning: at each product the target is what does best behind the clustered prefix, and
 * a code is chosen by what the layer's outputs lose. Weights are written behind the walk. Layers that are no plain
 * product, and all of them without samples, are clustered by their weights alone. */
#include "compress/cluster/cluster.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/cluster/book.h"
#include "compress/low_rank/steps.h"
#include "compress/quantize/int8.h"
#include "compress/quantize/steps.h"

enum { SAMPLES = 256, LEAST_PER_CODE = 4 };
#define ROOM ((size_t)1 << 30) /* bytes that the samples' numbers may take */

typedef struct job {
    const terse_graph *graph;
    const terse_cluster_options *options;
    terse_walk walk;
    bool walking;
    terse_int8_weights *int8; /* per node, or NULL */
    float **weights, **bias;  /* per node: what it gets */
    terse_arena *arena;       /* for them */
    terse_cluster_report report;
} job;

void terse_cluster_report_done(terse_cluster_report *report)
{
    free(report->layers);
    *report = (terse_cluster_report){0};
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for clustering");
}

/* Bits of a layer's codes; 0: it stays as it is. */
static int bits_of(const terse_cluster_options *o, const char *name)
{
    const terse_choice *c = o->choices ? terse_choices_find(o->choices, name) : NULL;
    return !o->choices ? o->bits : c ? c->cluster : 0;
}

/* --- one layer ---------------------------------------------------------------------------------------------------- */

/* A layer as rows of one output each: w[o][k]. */
typedef struct matrix {
    int64_t o, k;
    bool columns; /* the constant is [k][o] */
    double *w;
} matrix;

static int64_t place(const matrix *m, int64_t o, int64_t k)
{
    return m->columns ? k * m->o + o : o * m->k + k;
}

static bool read_matrix(const terse_graph *graph, int node, matrix *ret_matrix)
{
    const terse_node *n = &graph->nodes[node];
    const terse_value *w = &graph->values[n->inputs[1]];
    const int64_t count = terse_dims_count(w->dims, w->rank);
    const int axis = terse_scheme_channel_axis(n);
    matrix m = {.o = w->dims[axis], .columns = axis == 1 && w->rank == 2};
    m.k = m.o > 0 ? count / m.o : 0;
    const float *from = w->data;
    m.w = malloc((size_t)count * sizeof *m.w + 1);
    for (int64_t o = 0; m.w && o < m.o; o++)
        for (int64_t k = 0; k < m.k; k++)
            m.w[o * m.k + k] = (double)from[place(&m, o, k)];
    *ret_matrix = m;
    return m.w != NULL;
}

static bool all_finite(const matrix *m)
{
    for (int64_t i = 0; i < m->o * m->k; i++)
        if (!isfinite(m->w[i]))
            return false;
    return true;
}

/* What the matrix becomes: the metric's target (zeros of the weights stay), its codes, and the line of the report. */
static int assign(const job *j, matrix *m, const float *scales, terse_metric *metric, terse_cluster_layer *line,
                  terse_error *error)
{
    const int64_t count = m->o * m->k;
    TERSE_AUTO(terse_freep) double *steps = scales ? malloc((size_t)m->o * sizeof *steps) : NULL;
    if (scales && !steps)
        return out_of_memory(error);
    for (int64_t o = 0; steps && o < m->o; o++)
        steps[o] = (double)scales[o];
    double total = 0;
    for (int64_t i = 0; i < count; i++) {
        if (metric->cov && m->w[i] != 0)
            m->w[i] = metric->target[i];
        total += m->w[i] * m->w[i];
    }
    terse_book book;
    terse_assign a = {.o = m->o,
                      .k = m->k,
                      .w = m->w,
                      .scales = steps,
                      .cov = metric->cov,
                      .bits = bits_of(j->options, line->name),
                      .entropy = j->options->entropy,
                      .integers = scales != NULL};
    if (!terse_assign_run(&a, &book))
        return out_of_memory(error);
    for (int c = 0; c < book.n; c++)
        if (a.used[c] > 0) {
            line->codes++;
            line->entropy -= (double)a.used[c] / (double)count * log2((double)a.used[c] / (double)count);
        }
    line->sqnr_db = 10 * log10((metric->cov ? metric->total : total) / a.lost);
    snprintf(line->reason, sizeof line->reason, metric->cov ? "for its outputs on the samples" : "by its weights");
    return TERSE_OK;
}

/* The floats, and the integers, that the node gets; in the order of its weights. */
static int keep(job *j, int node, const matrix *m, int codes, terse_error *error)
{
    const size_t count = (size_t)(m->o * m->k);
    terse_int8_weights *int8 = j->int8 ? &j->int8[node] : NULL;
    float *to = j->weights[node] ? j->weights[node] : terse_arena_alloc(j->arena, count * sizeof *to + 1);
    if (!to)
        return out_of_memory(error);
    for (int64_t o = 0; o < m->o; o++)
        for (int64_t k = 0; k < m->k; k++) {
            const int64_t at = place(m, o, k);
            const double w = m->w[o * m->k + k];
            if (int8)
                int8->q[at] = (int8_t)(int8->scales[o] > 0 ? nearbyint(w / (double)int8->scales[o]) : 0);
            to[at] = int8 ? (float)int8->q[at] * int8->scales[o] : (float)w;
        }
    j->weights[node] = to;
    if (int8)
        int8->codes = codes;
    return TERSE_OK;
}

/* The bias that takes up the means; INT8 biases are corrected elsewhere. */
static int keep_bias(job *j, const terse_low_rank_product *p, const terse_moments *moments, const matrix *m,
                     terse_error *error)
{
    const terse_node *n = &j->graph->nodes[p->node];
    const terse_value *b = n->n_inputs > 2 && n->inputs[2] >= 0 ? &j->graph->values[n->inputs[2]] : NULL;
    if (j->int8 || !b || !b->data || b->dtype != TERSE_FP32 || b->rank != 1 || b->dims[0] != p->o)
        return TERSE_OK;
    TERSE_AUTO(terse_freep) double *bias = malloc((size_t)p->o * sizeof *bias);
    float *to = terse_arena_alloc(j->arena, (size_t)p->o * sizeof *to);
    if (!bias || !to)
        return out_of_memory(error);
    for (int64_t o = 0; o < p->o; o++)
        bias[o] = (double)((const float *)b->data)[o];
    terse_metric_bias(p, moments, m->w, bias);
    for (int64_t o = 0; o < p->o; o++)
        to[o] = (float)bias[o];
    j->bias[p->node] = to;
    return TERSE_OK;
}

static bool has_residual(const terse_graph *graph, int node)
{
    const terse_node *n = &graph->nodes[node];
    return n->n_inputs > 3 && n->inputs[3] >= 0 && !graph->values[n->inputs[3]].data &&
           graph->values[n->inputs[3]].dtype == TERSE_FP32;
}

/* Integers are; constants of the graph when nobody else reads them. */
static bool is_own(const job *j, int node)
{
    return j->int8 || terse_graph_count_uses(j->graph, j->graph->nodes[node].inputs[1]) == 1;
}

static int cluster_layer(job *j, int node, terse_cluster_layer *line, terse_error *error)
{
    const terse_edit edit = {.graph = (terse_graph *)(uintptr_t)j->graph};
    terse_low_rank_product product = {0};
    terse_moments moments = {0};
    terse_metric metric = {0};
    matrix m = {0};
    char reason[96];
    const int bits = bits_of(j->options, line->name);
    int status = read_matrix(j->graph, node, &m) ? TERSE_OK : out_of_memory(error);
    if (status == TERSE_OK && bits == 0)
        snprintf(line->reason, sizeof line->reason, "not asked for");
    else if (status == TERSE_OK && !is_own(j, node))
        snprintf(line->reason, sizeof line->reason, "its weights are read elsewhere too");
    else if (status == TERSE_OK && m.o * m.k < LEAST_PER_CODE << bits)
        snprintf(line->reason, sizeof line->reason, "%" PRId64 " weights are too few for %d codes", m.o * m.k,
                 1 << bits);
    else if (status == TERSE_OK && !all_finite(&m))
        snprintf(line->reason, sizeof line->reason, "its weights are not finite");
    else if (status == TERSE_OK) {
        const bool walking = j->walking && terse_select_product(&edit, node, &product, reason, sizeof reason);
        if (walking)
            status = terse_walk_measure(&j->walk, &product, has_residual(j->graph, node), &moments, &metric, error);
        if (status == TERSE_OK)
            status = assign(j, &m, j->int8 ? j->int8[node].scales : NULL, &metric, line, error);
        if (status == TERSE_OK)
            status = keep(j, node, &m, line->codes, error);
        if (status == TERSE_OK && metric.cov)
            status = keep_bias(j, &product, &moments, &m, error);
    }
    terse_metric_done(&metric);
    terse_moments_done(&moments);
    terse_select_done(&product);
    free(m.w);
    return status;
}

/* --- all layers --------------------------------------------------------------------------------------------------- */

static terse_cluster_layer *add_line(job *j, int node)
{
    const terse_node *n = &j->graph->nodes[node];
    const terse_value *w = &j->graph->values[n->inputs[1]], *y = &j->graph->values[n->outputs[0]];
    terse_cluster_layer *line = &j->report.layers[j->report.n++];
    *line = (terse_cluster_layer){.op = n->op, .sqnr_db = NAN};
    snprintf(line->name, sizeof line->name, "%s", n->name[0] ? n->name : y->name);
    terse_dims_text(w->dims, w->rank, line->shape, sizeof line->shape);
    return line;
}

static bool is_layer(const job *j, const terse_scheme *scheme, int node)
{
    const terse_edit edit = {.graph = (terse_graph *)(uintptr_t)j->graph};
    return scheme ? scheme->kinds[node] == TERSE_SCHEME_PRODUCT : terse_edit_is_weighted(&edit, node);
}

static int walk(job *j, const terse_samples *samples, const terse_scheme *scheme, const terse_affine *affine,
                terse_error *error)
{
    const terse_disguise disguise = {.scheme = scheme, .affine = affine, .weights = j->weights, .bias = j->bias};
    j->report.layers = calloc((size_t)j->graph->n_nodes + 1, sizeof *j->report.layers);
    int status = j->report.layers ? TERSE_OK : out_of_memory(error);
    size_t bytes = 1;
    if (status == TERSE_OK && samples)
        status = terse_walk_bytes(samples, &bytes, error);
    if (status == TERSE_OK && samples) {
        const int64_t n = (int64_t)fmin(SAMPLES, fmax(TERSE_WALK_CHUNK, (double)(ROOM / 2 / bytes)));
        j->report.samples = n < samples->samples ? n : samples->samples;
        j->walking = true;
        status = terse_walk_open(samples, n, &disguise, &j->walk, error);
    }
    for (int node = 0; node < j->graph->n_nodes && status == TERSE_OK; node++) {
        if (is_layer(j, scheme, node)) {
            terse_cluster_layer *line = add_line(j, node);
            char text[160];
            snprintf(text, sizeof text, "clustering layer %d: %.90s", j->report.n, line->name);
            if (j->options->progress)
                j->options->progress(j->options->context, text);
            status = cluster_layer(j, node, line, error);
        }
        if (status == TERSE_OK && j->walking)
            status = terse_walk_step(&j->walk, node, error);
    }
    terse_walk_done(&j->walk);
    return status;
}

int terse_cluster_int8(const terse_graph *graph, const terse_samples *samples, const terse_scheme *scheme,
                       const terse_affine *affine, terse_int8_weights *int8, float **weights,
                       const terse_cluster_options *options, terse_cluster_report *ret_report, terse_error *error)
{
    job j = {.graph = graph, .options = options, .int8 = int8, .weights = weights, .report = {.bits = options->bits}};
    const int status = walk(&j, samples, scheme, affine, error);
    if (status == TERSE_OK)
        *ret_report = j.report;
    else
        terse_cluster_report_done(&j.report);
    return status;
}

/* --- FP32 --------------------------------------------------------------------------------------------------------- */

static const void *copied(terse_graph *graph, const float *from, size_t bytes)
{
    float *to = terse_arena_alloc(graph->arena, bytes);
    if (to)
        memcpy(to, from, bytes);
    return to;
}

static const char *mark(terse_graph *graph, const char *before, int codes)
{
    char text[TERSE_MAX_NAME];
    snprintf(text, sizeof text, "%.900s%s%d codes", before ? before : "", before && *before ? ", " : "", codes);
    return terse_arena_text(graph->arena, text, strlen(text));
}

/* The constants of the graph get their new bytes. */
static int write_layers(terse_graph *graph, const job *j, terse_error *error)
{
    for (int node = 0, line = -1; node < graph->n_nodes; node++) {
        terse_node *n = &graph->nodes[node];
        line += is_layer(j, NULL, node);
        if (!j->weights[node])
            continue;
        if (!(n->compression = mark(graph, n->compression, j->report.layers[line].codes)))
            return out_of_memory(error);
        terse_value *w = &graph->values[n->inputs[1]];
        if (!(w->data = copied(graph, j->weights[node], w->bytes)))
            return out_of_memory(error);
        if (j->bias[node]) {
            terse_value *b = &graph->values[n->inputs[2]];
            if (!(b->data = copied(graph, j->bias[node], b->bytes)))
                return out_of_memory(error);
        }
    }
    return TERSE_OK;
}

int terse_cluster_run(terse_graph *graph, const terse_npz *data, const terse_cluster_options *options,
                      terse_cluster_report *ret_report, terse_error *error)
{
    job j = {.graph = graph, .options = options, .arena = terse_arena_new(), .report = {.bits = options->bits}};
    terse_samples samples = {0};
    int status = data ? terse_bias_prepare(graph, error) : TERSE_OK;
    j.weights = calloc((size_t)graph->n_nodes + 1, sizeof *j.weights);
    j.bias = calloc((size_t)graph->n_nodes + 1, sizeof *j.bias);
    if (status == TERSE_OK && (!j.arena || !j.weights || !j.bias))
        status = out_of_memory(error);
    if (status == TERSE_OK && data)
        status = terse_samples_open(graph, data, &samples, error);
    if (status == TERSE_OK)
        status = walk(&j, data ? &samples : NULL, NULL, NULL, error);
    if (status == TERSE_OK)
        status = write_layers(graph, &j, error);
    if (data)
        terse_samples_done(&samples);
    terse_arena_free(j.arena);
    free(j.weights);
    free(j.bias);
    if (status == TERSE_OK)
        *ret_report = j.report;
    else
        terse_cluster_report_done(&j.report);
    return status;
}
