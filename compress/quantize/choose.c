/* SPDX-License-Identifier: Apache-2.0 */
/* Each method gives every group of tensors a range. AUTO asks what each of them costs where the tensor is read:
 *   a product reads it        sum (y - y_c)^2 / sum y^2 over the product's output, float weights, input through bytes
 *   anything else reads it    mean square error of the tensor over its mean square
 * and takes the method with the least sum over all readers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/steps.h"

enum { CANDIDATES = TERSE_CALIBRATIONS - 1 };

typedef struct choice {
    terse_range ranges[CANDIDATES]; /* of the methods behind AUTO, in their order */
    double cost[CANDIDATES];
} choice;

typedef struct choosing {
    const terse_replay *replay;
    const terse_graph *graph;
    const terse_scheme *scheme;
    terse_ranges *ranges;
    choice *choices;             /* per value that stands for a group */
    terse_affine *affine;        /* per value: the candidate that is tried */
    double (*noise)[CANDIDATES]; /* per node */
    double *signal;
} choosing;

static bool same_affine(terse_affine a, terse_affine b)
{
    return a.scale == b.scale && a.zero_point == b.zero_point;
}

static double squares(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)a[i] - (b ? (double)b[i] : 0.0);
        sum += x * x;
    }
    return sum;
}

/* The output of a product as it is and with each candidate in the place of its input. */
static int try_node(choosing *c, const terse_numbers *numbers, int node, terse_error *error)
{
    const int x = c->graph->nodes[node].inputs[0], n_outputs = c->graph->nodes[node].n_outputs;
    const choice *tried = &c->choices[c->scheme->group[x]];
    TERSE_AUTO(terse_freep) terse_tensor *exact = calloc((size_t)n_outputs + 1, sizeof *exact);
    TERSE_AUTO(terse_freep) terse_tensor *found = calloc((size_t)n_outputs + 1, sizeof *found);
    terse_arena *arena = terse_arena_new();
    int status = exact && found && arena ? terse_numbers_try(numbers, node, &(terse_disguise){0}, arena, exact, error)
                                         : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    const int64_t count = status == TERSE_OK ? terse_tensor_count(exact) : 0;
    if (status == TERSE_OK)
        c->signal[node] += squares(exact->data, NULL, count);
    for (int i = 0; i < CANDIDATES && status == TERSE_OK; i++) {
        const terse_affine affine = terse_affine_of(tried->ranges[i]);
        int same = 0;
        while (same < i && !same_affine(affine, terse_affine_of(tried->ranges[same])))
            same++;
        if (same < i)
            continue; /* its noise is added where costs are summed up */
        terse_arena *inner = terse_arena_new();
        c->affine[x] = affine;
        status = inner ? terse_numbers_try(numbers, node, &(terse_disguise){.scheme = c->scheme, .affine = c->affine},
                                           inner, found, error)
                       : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
        if (status == TERSE_OK)
            c->noise[node][i] += squares(exact->data, found->data, count);
        terse_arena_free(inner);
    }
    c->affine[x] = (terse_affine){0, 0};
    terse_arena_free(arena);
    return status;
}

static int try_all(choosing *c, terse_error *error)
{
    int status = TERSE_OK;
    for (int chunk = 0; chunk < terse_replay_chunks(c->replay) && status == TERSE_OK; chunk++) {
        terse_numbers *numbers = NULL;
        status = terse_numbers_new(c->replay, chunk, false, NULL, NULL, &numbers, error);
        for (int n = 0; n < c->graph->n_nodes && status == TERSE_OK; n++) {
            if (c->scheme->kinds[n] == TERSE_SCHEME_PRODUCT)
                status = try_node(c, numbers, n, error);
            if (status == TERSE_OK)
                status = terse_numbers_step(numbers, n, error);
        }
        terse_numbers_free(numbers);
    }
    return status;
}

static double mean_square(const terse_histogram *h)
{
    double sum = 0;
    for (int i = 0; i < TERSE_HISTOGRAM_BINS; i++) {
        const double x = (i + 0.5) * h->width;
        sum += (double)(h->negative[i] + h->positive[i]) * x * x;
    }
    return h->n ? sum / (double)h->n : 0;
}

/* What reading a tensor anywhere but as input 0 of a product costs. */
static void add_plain_reader(choosing *c, int value)
{
    const terse_histogram *h = c->ranges->histograms[c->scheme->group[value]];
    choice *tried = &c->choices[c->scheme->group[value]];
    const double signal = h ? mean_square(h) : 0;
    for (int i = 0; i < CANDIDATES && signal > 0; i++)
        tried->cost[i] += terse_range_error(h, tried->ranges[i]) / signal;
}

static void sum_up(choosing *c)
{
    for (int n = 0; n < c->graph->n_nodes; n++) {
        const terse_node *node = &c->graph->nodes[n];
        const bool product = c->scheme->kinds[n] == TERSE_SCHEME_PRODUCT;
        for (int i = product ? 1 : 0; i < node->n_inputs && c->scheme->kinds[n] != TERSE_SCHEME_MOVE; i++)
            if (terse_scheme_reads_bytes(c->scheme, n, i))
                add_plain_reader(c, node->inputs[i]);
        if (!product || c->signal[n] <= 0)
            continue;
        choice *tried = &c->choices[c->scheme->group[node->inputs[0]]];
        for (int i = 0; i < CANDIDATES; i++) {
            int same = 0;
            while (!same_affine(terse_affine_of(tried->ranges[i]), terse_affine_of(tried->ranges[same])))
                same++;
            tried->cost[i] += c->noise[n][same] / c->signal[n];
        }
    }
}

/* Every value that is bytes has its group's range. */
static void spread(const terse_scheme *scheme, const terse_graph *graph, terse_ranges *r)
{
    for (int v = 0; v < graph->n_values; v++) {
        const int root = scheme->group[v];
        if (!scheme->demanded[v])
            continue;
        r->ranges[v] = r->ranges[root];
        r->methods[v] = r->methods[root];
        r->affine[v] = r->affine[root] = terse_affine_of(r->ranges[root]);
    }
}

static void take_least(choosing *c)
{
    for (int v = 0; v < c->graph->n_values; v++) {
        if (!c->ranges->histograms[v])
            continue;
        int best = 0;
        for (int i = 1; i < CANDIDATES; i++)
            if (c->choices[v].cost[i] < c->choices[v].cost[best])
                best = i;
        c->ranges->ranges[v] = c->choices[v].ranges[best];
        c->ranges->methods[v] = (terse_calibration)(best + TERSE_CALIBRATION_MINMAX);
    }
}

int terse_choose_ranges(const terse_replay *replay, const terse_graph *graph, const terse_scheme *scheme,
                        terse_calibration method, terse_ranges *ranges, terse_error *error)
{
    if (method != TERSE_CALIBRATION_AUTO) {
        for (int v = 0; v < graph->n_values; v++)
            if (ranges->histograms[v]) {
                ranges->ranges[v] = terse_range_of(ranges->histograms[v], method);
                ranges->methods[v] = method;
            }
        spread(scheme, graph, ranges);
        return TERSE_OK;
    }
    const size_t values = (size_t)graph->n_values + 1, nodes = (size_t)graph->n_nodes + 1;
    choosing c = {.replay = replay, .graph = graph, .scheme = scheme, .ranges = ranges};
    c.choices = calloc(values, sizeof *c.choices);
    c.affine = calloc(values, sizeof *c.affine);
    c.noise = calloc(nodes, sizeof *c.noise);
    c.signal = calloc(nodes, sizeof *c.signal);
    int status = c.choices && c.affine && c.noise && c.signal
                     ? TERSE_OK
                     : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for choices");
    for (int v = 0; v < graph->n_values && status == TERSE_OK; v++)
        for (int i = 0; i < CANDIDATES && ranges->histograms[v]; i++)
            c.choices[v].ranges[i] =
                terse_range_of(ranges->histograms[v], (terse_calibration)(i + TERSE_CALIBRATION_MINMAX));
    if (status == TERSE_OK)
        status = try_all(&c, error);
    if (status == TERSE_OK) {
        sum_up(&c);
        take_least(&c);
        spread(scheme, graph, ranges);
    }
    free(c.choices);
    free(c.affine);
    free(c.noise);
    free(c.signal);
    return status;
}
