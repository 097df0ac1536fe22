/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/statistics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/steps.h"
#include "compress/quantize/steps.h"

enum { SAMPLES = 128, LEAST = 8, JUDGED_OF = 4 };
static const double room_bytes = 400e6, largest = 2;

/* A network with the same samples as the other one. */
typedef struct side {
    terse_samples samples;
    terse_replay *replay;
    terse_numbers **numbers; /* per chunk */
    int n;
} side;

/* Of a layer of the network as it was. */
typedef struct wanted {
    int node; /* of the teacher; -1: none */
    int64_t channels;
    double *mean, *deviation;
} wanted;

static void numbers_done(side *s)
{
    for (int i = 0; s->numbers && i < s->n; i++)
        terse_numbers_free(s->numbers[i]);
    free(s->numbers);
    s->numbers = NULL;
}

static void side_done(side *s)
{
    numbers_done(s);
    terse_replay_free(s->replay);
    terse_samples_done(&s->samples);
}

static int side_open(const terse_graph *graph, const terse_npz *data, int64_t samples, side *s, terse_error *error)
{
    int status = terse_samples_open(graph, data, &s->samples, error);
    if (status == TERSE_OK)
        status = terse_replay_new(graph, &s->samples, samples, TERSE_WALK_CHUNK, &s->replay, error);
    s->n = status == TERSE_OK ? terse_replay_chunks(s->replay) : 0;
    return status;
}

static int side_begin(side *s, terse_error *error)
{
    int status = TERSE_OK;
    numbers_done(s);
    s->numbers = calloc((size_t)s->n + 1, sizeof(void *));
    if (!s->numbers)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    for (int i = 0; i < s->n && status == TERSE_OK; i++)
        status = terse_numbers_new(s->replay, i, false, NULL, NULL, &s->numbers[i], error);
    return status;
}

static int side_step(side *s, int node, terse_error *error)
{
    int status = TERSE_OK;
    for (int i = 0; i < s->n && status == TERSE_OK; i++)
        status = terse_numbers_step(s->numbers[i], node, error);
    return status;
}

static bool is_judged(const side *s, int chunk)
{
    return s->n >= JUDGED_OF && chunk % JUDGED_OF == JUDGED_OF - 1;
}

/* --- mean and deviation ------------------------------------------------------------------------------------------- */

/* Sums over everything but channels: axis 1 of a convolution, else the last. */
static void add_moments(const terse_tensor *y, bool conv, int64_t channels, double *sum, double *squares, double *rows)
{
    const int64_t inner = conv ? terse_dims_count(y->dims + 2, y->rank - 2) : 1, count = terse_tensor_count(y);
    const float *data = y->data;
    for (int64_t at = 0, c = 0; at < count; at += inner, c = (c + 1) % channels)
        for (int64_t i = at; i < at + inner; i++) {
            sum[c] += (double)data[i];
            squares[c] += (double)data[i] * (double)data[i];
        }
    *rows += (double)(count / channels);
}

/* Of a layer's sums in front of shortcut and activation, over the chunks that are not judged by; false where they are
 * not finite. ret_mean, ret_deviation: [channels]. */
static int measure(const side *s, const terse_graph *graph, int node, int64_t channels, double *ret_mean,
                   double *ret_deviation, bool *ret_good, terse_error *error)
{
    double rows = 0;
    int status = TERSE_OK;
    memset(ret_mean, 0, (size_t)channels * sizeof *ret_mean);
    memset(ret_deviation, 0, (size_t)channels * sizeof *ret_deviation);
    for (int i = 0; i < s->n && status == TERSE_OK; i++) {
        terse_tensor y;
        terse_arena *arena = is_judged(s, i) ? NULL : terse_arena_new();
        if (!arena && is_judged(s, i))
            continue;
        status = arena ? terse_bias_bare_output(s->replay, graph, s->numbers[i], node, NULL, NULL, arena, &y, error)
                       : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer");
        if (status == TERSE_OK)
            add_moments(&y, graph->nodes[node].op == TERSE_OP_CONV, channels, ret_mean, ret_deviation, &rows);
        terse_numbers_rest(s->numbers[i], node);
        terse_arena_free(arena);
    }
    *ret_good = rows > 1;
    for (int64_t c = 0; c < channels && rows > 0; c++) {
        ret_mean[c] /= rows;
        ret_deviation[c] = sqrt(fmax(ret_deviation[c] / rows - ret_mean[c] * ret_mean[c], 0));
        *ret_good = *ret_good && isfinite(ret_mean[c]) && isfinite(ret_deviation[c]);
    }
    return status;
}

/* --- which layers ------------------------------------------------------------------------------------------------ */

static bool is_layer(const terse_graph *graph, int node, int64_t *ret_channels)
{
    char reason[96];
    const terse_node *n = &graph->nodes[node];
    if (!terse_scheme_can_quantize(graph, node, reason, sizeof reason) || n->n_outputs != 1)
        return false;
    *ret_channels = graph->values[n->inputs[1]].dims[terse_scheme_channel_axis(n)];
    return true;
}

static int node_that_gives(const terse_graph *graph, const char *name)
{
    for (int n = 0; n < graph->n_nodes; n++)
        if (graph->nodes[n].n_outputs == 1 && strcmp(graph->values[graph->nodes[n].outputs[0]].name, name) == 0)
            return n;
    return -1;
}

/* What each layer gave; `list` has the student's layers. */
static int look_at_teacher(side *t, const terse_graph *teacher, const terse_graph *graph, wanted *list,
                           terse_error *error)
{
    int status = side_begin(t, error);
    for (int n = 0; n < graph->n_nodes; n++) {
        int64_t channels, of_teacher;
        list[n].node = -1;
        if (!is_layer(graph, n, &channels))
            continue;
        const int other = node_that_gives(teacher, graph->values[graph->nodes[n].outputs[0]].name);
        if (other >= 0 && is_layer(teacher, other, &of_teacher) && of_teacher == channels)
            list[n] = (wanted){.node = other, .channels = channels};
    }
    for (int node = 0; node < teacher->n_nodes && status == TERSE_OK; node++) {
        for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
            wanted *w = &list[n];
            bool good = false;
            if (w->node != node)
                continue;
            w->mean = calloc(2 * (size_t)w->channels + 1, sizeof *w->mean);
            if (!w->mean)
                return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer");
            w->deviation = w->mean + w->channels;
            status = measure(t, teacher, node, w->channels, w->mean, w->deviation, &good, error);
            w->node = good ? node : -1;
        }
        if (status == TERSE_OK)
            status = side_step(t, node, error);
    }
    return status;
}

/* --- correcting --------------------------------------------------------------------------------------------------- */

/* Other weights and bias, from the arena: what was is only pointed at no more. */
static int correct_layer(terse_graph *graph, int node, const wanted *w, const double *mean, const double *deviation,
                         terse_error *error)
{
    const terse_node *n = &graph->nodes[node];
    terse_value *weights = &graph->values[n->inputs[1]], *bias = &graph->values[n->inputs[2]];
    const int axis = terse_scheme_channel_axis(n);
    const int64_t count = terse_dims_count(weights->dims, weights->rank),
                  inner = terse_dims_count(weights->dims + axis + 1, weights->rank - axis - 1);
    float *to = terse_arena_alloc(graph->arena, (size_t)count * sizeof *to + 1);
    float *offset = terse_arena_alloc(graph->arena, (size_t)w->channels * sizeof *offset + 1);
    TERSE_AUTO(terse_freep) double *factor = malloc((size_t)w->channels * sizeof *factor + 1);
    if (!to || !offset || !factor)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for other weights");
    for (int64_t c = 0; c < w->channels; c++) {
        const bool moves = deviation[c] > 1e-6 * (fabs(mean[c]) + 1e-12) && w->deviation[c] > 0;
        factor[c] = moves ? fmin(fmax(w->deviation[c] / deviation[c], 1 / largest), largest) : 1;
        offset[c] = (float)(w->mean[c] + factor[c] * ((double)((const float *)bias->data)[c] - mean[c]));
    }
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)((double)((const float *)weights->data)[i] * factor[i / inner % w->channels]);
    weights->data = to;
    bias->data = offset;
    return TERSE_OK;
}

/* A layer of its own: weights that others read, and biases in another form, stay. */
static bool is_free(const terse_graph *graph, int node)
{
    const terse_node *n = &graph->nodes[node];
    if (n->n_inputs < 3 || n->inputs[2] < 0)
        return false;
    const terse_value *w = &graph->values[n->inputs[1]], *b = &graph->values[n->inputs[2]];
    int readers = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        for (int k = 0; k < graph->nodes[i].n_inputs; k++)
            readers += graph->nodes[i].inputs[k] == n->inputs[1] || graph->nodes[i].inputs[k] == n->inputs[2];
    return readers == 2 && w->dtype == TERSE_FP32 && w->layout == TERSE_LAYOUT_PLAIN && b->data &&
           b->dtype == TERSE_FP32 && b->rank == 1 && b->dims[0] == w->dims[terse_scheme_channel_axis(n)];
}

static int walk(side *s, terse_graph *graph, const wanted *list, bool correcting, int *layers, terse_error *error)
{
    int status = side_begin(s, error);
    for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
        const wanted *w = &list[n];
        TERSE_AUTO(terse_freep) double *mean = NULL;
        bool good = false;
        if (correcting && w->node >= 0 && is_free(graph, n)) {
            mean = malloc(2 * (size_t)w->channels * sizeof *mean + 1);
            status = mean ? measure(s, graph, n, w->channels, mean, mean + w->channels, &good, error)
                          : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer");
            if (status == TERSE_OK && good) {
                status = correct_layer(graph, n, w, mean, mean + w->channels, error);
                *layers += status == TERSE_OK;
            }
        }
        if (status == TERSE_OK)
            status = side_step(s, n, error);
    }
    return status;
}

/* KL of classes, else noise over signal of the outputs, on the samples to judge by. The power of what is wrong would
 * speak for numbers that are too small. */
static double share_of(const side *teacher, const side *s)
{
    terse_loss loss = {0};
    for (int i = 0; i < s->n; i++)
        if (is_judged(s, i) || s->n < JUDGED_OF)
            terse_loss_add(&loss, teacher->numbers[i], s->numbers[i]);
    const terse_value *y = &s->samples.graph->values[s->samples.graph->outputs[0]];
    const bool classes = y->dtype == TERSE_FP32 && y->rank == 2 && y->dims[1] != 1;
    return classes ? terse_loss_kl(&loss) : terse_loss_share(&loss);
}

static int run(side *t, side *s, const terse_graph *teacher, terse_graph *graph, wanted *list,
               terse_statistics_report *r, terse_error *error)
{
    TERSE_AUTO(terse_freep) const void **data = malloc(((size_t)graph->n_values + 1) * sizeof *data);
    if (!data)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d values", graph->n_values);
    for (int v = 0; v < graph->n_values; v++)
        data[v] = graph->values[v].data;
    int status = look_at_teacher(t, teacher, graph, list, error);
    if (status == TERSE_OK)
        status = walk(s, graph, list, false, NULL, error);
    if (status != TERSE_OK)
        return status;
    r->before = share_of(t, s);
    status = walk(s, graph, list, true, &r->layers, error);
    if (status != TERSE_OK)
        return status;
    r->after = share_of(t, s);
    r->kept = r->after < r->before;
    for (int v = 0; v < graph->n_values && !r->kept; v++)
        graph->values[v].data = data[v];
    return TERSE_OK;
}

int terse_statistics_run(const terse_graph *teacher, terse_graph *graph, const terse_npz *data,
                         void (*progress)(void *context, const char *text), void *context,
                         terse_statistics_report *ret_report, terse_error *error)
{
    side t = {0}, s = {0};
    terse_statistics_report report = {.asked = true};
    size_t bytes = 1;
    wanted *list = NULL;
    if (progress)
        progress(context, "correcting means and deviations");
    int status = terse_bias_prepare(graph, error);
    const int n_nodes = graph->n_nodes;
    if (status == TERSE_OK)
        status = side_open(teacher, data, LEAST, &t, error);
    if (status == TERSE_OK)
        status = terse_walk_bytes(&t.samples, &bytes, error);
    side_done(&t);
    t = (side){0};
    const double fits = room_bytes / 2 / (double)bytes;
    const int64_t samples = fits > SAMPLES ? SAMPLES : fits < LEAST ? LEAST : (int64_t)fits;
    if (status == TERSE_OK)
        status = side_open(teacher, data, samples, &t, error);
    if (status == TERSE_OK)
        status = side_open(graph, data, samples, &s, error);
    list = status == TERSE_OK ? calloc((size_t)n_nodes + 1, sizeof *list) : NULL;
    if (status == TERSE_OK)
        status = list ? run(&t, &s, teacher, graph, list, &report, error)
                      : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d layers", n_nodes);
    for (int n = 0; list && n < n_nodes; n++)
        free(list[n].mean);
    free(list);
    side_done(&t);
    side_done(&s);
    if (status == TERSE_OK)
        *ret_report = report;
    return status;
}
