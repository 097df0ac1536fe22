/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/parameters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double usual_weight = 0.1; /* root of the mean square */
static const double beta_first = 0.9, beta_second = 0.999, adam_epsilon = 1e-8, momentum = 0.1;

void terse_parameters_done(terse_parameters *p)
{
    for (int i = 0; p->list && i < p->n; i++)
        free(p->list[i].rounded);
    free(p->list);
    free(p->weights);
    free(p->first);
    free(p->second);
    free(p->gradient);
    free(p->averaged);
    free(p->statistics);
    free(p->running);
    free(p->trained);
    *p = (terse_parameters){0};
}

size_t terse_parameters_bytes(const terse_parameters *p)
{
    size_t bytes = (size_t)p->n_numbers * 5 * sizeof(float);
    for (int i = 0; i < p->n; i++)
        bytes += p->list[i].rounded ? (size_t)p->list[i].n * sizeof(float) : 0;
    return bytes;
}

/* --- which constants --------------------------------------------------------------------------------------------- */

static bool is_floats(const terse_graph *graph, int value)
{
    if (value < 0)
        return false;
    const terse_value *v = &graph->values[value];
    if (!v->data || v->dtype != TERSE_FP32 || v->layout != TERSE_LAYOUT_PLAIN)
        return false;
    const int64_t n = terse_dims_count(v->dims, v->rank);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(((const float *)v->data)[i]))
            return false;
    return n > 0;
}

/* A bias or scale along one axis: not a number, not a table of positions or angles. */
static bool is_vector(const terse_value *v)
{
    int wide = 0;
    for (int i = 0; i < v->rank; i++)
        wide += v->dims[i] > 1;
    return wide == 1;
}

/* Bit i: input i of the node is something to train where it is a constant. */
static unsigned roles(const terse_graph *graph, const terse_node *node)
{
    switch (node->op) {
    case TERSE_OP_CONV:
    case TERSE_OP_BATCH_NORMALIZATION:
    case TERSE_OP_LAYER_NORMALIZATION:
    case TERSE_OP_INSTANCE_NORMALIZATION:
    case TERSE_OP_GROUP_NORMALIZATION:
        return 6;
    case TERSE_OP_GEMM:
        return 7;
    case TERSE_OP_MATMUL:
        return 3;
    case TERSE_OP_PRELU:
        return 2;
    case TERSE_OP_GATHER:
        return graph->values[node->inputs[0]].rank >= 2 ? 1 : 0;
    case TERSE_OP_ADD:
    case TERSE_OP_SUB:
    case TERSE_OP_MUL:
    case TERSE_OP_DIV: {
        unsigned vectors = 0;
        for (int i = 0; i < 2; i++) /* the other operand must not be a constant too */
            if (node->inputs[i] >= 0 && graph->values[node->inputs[i]].data &&
                is_vector(&graph->values[node->inputs[i]]) && node->inputs[1 - i] >= 0 &&
                !graph->values[node->inputs[1 - i]].data)
                vectors |= 1u << i;
        return vectors;
    }
    default:
        return 0;
    }
}

bool terse_parameters_may_train(const terse_graph *graph, int value)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        const terse_node *node = &graph->nodes[i];
        const unsigned which = node->n_inputs > 0 ? roles(graph, node) : 0;
        for (int k = 0; k < node->n_inputs && k < 3; k++)
            if (node->inputs[k] == value && which >> k & 1)
                return is_floats(graph, value);
    }
    return false;
}

static const terse_train_parameter *said_about(const terse_train_options *options, int value)
{
    for (int i = 0; i < options->n_parameters; i++)
        if (options->parameters[i].value == value)
            return &options->parameters[i];
    return NULL;
}

static void find_parameters(const terse_graph *graph, const terse_train_options *options, terse_parameters *p)
{
    char *seen = p->trained; /* 1: trained, 2: only rounded */
    for (int i = 0; i < graph->n_nodes; i++) {
        const terse_node *node = &graph->nodes[i];
        const unsigned which = node->n_inputs > 0 ? roles(graph, node) : 0;
        for (int k = 0; k < node->n_inputs && k < 3; k++) {
            const int v = node->inputs[k];
            if (!(which >> k & 1) || v < 0 || seen[v] || !is_floats(graph, v))
                continue;
            const terse_train_parameter *said = said_about(options, v);
            if (said && said->frozen && !said->quantizer.bits && !said->mask)
                continue;
            terse_parameter *to = &p->list[p->n++];
            *to = (terse_parameter){.value = v,
                                    .first = p->n_numbers,
                                    .n = terse_dims_count(graph->values[v].dims, graph->values[v].rank),
                                    .decays = graph->values[v].rank >= 2 && !is_vector(&graph->values[v]),
                                    .trained = !said || !said->frozen};
            if (said) {
                to->mask = said->mask;
                to->quantizer = said->quantizer;
            }
            p->n_numbers += to->n;
            seen[v] = to->trained ? 1 : 2;
        }
    }
    for (int v = 0; v < graph->n_values; v++)
        seen[v] = seen[v] == 1;
}

static void find_statistics(const terse_graph *graph, terse_parameters *p)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        const terse_node *node = &graph->nodes[i];
        if (node->op != TERSE_OP_BATCH_NORMALIZATION || !is_floats(graph, node->inputs[3]) ||
            !is_floats(graph, node->inputs[4]))
            continue;
        const int64_t channels = graph->values[node->inputs[3]].dims[0];
        p->statistics[p->n_statistics++] = (terse_statistic){.node = i,
                                                             .mean = node->inputs[3],
                                                             .variance = node->inputs[4],
                                                             .first = p->n_statistic_numbers,
                                                             .channels = channels};
        p->n_statistic_numbers += 2 * channels;
    }
}

static int check_said(const terse_graph *graph, const terse_train_options *options, const terse_parameters *p,
                      terse_error *error)
{
    for (int i = 0; i < options->n_parameters; i++) {
        const terse_train_parameter *said = &options->parameters[i];
        if (said->value < 0 || said->value >= graph->n_values)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "parameter %d names value %d, the student has %d", i,
                              said->value, graph->n_values);
        const terse_value *v = &graph->values[said->value];
        const terse_train_quantizer *q = &said->quantizer;
        bool found = said->frozen && !q->bits && !said->mask;
        for (int k = 0; k < p->n; k++)
            found = found || p->list[k].value == said->value;
        if (!found)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "value '%s' is no weight that can be trained", v->name);
        if (q->bits != 0 && q->bits != 4 && q->bits != 8)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "weight '%s': %d bits are asked for, allowed are 4 and 8",
                              v->name, q->bits);
        if (q->bits &&
            (q->axis < -1 || q->axis >= v->rank || (q->group && (v->rank != 2 || q->axis < 0 || q->group < 1))))
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "weight '%s' of rank %d cannot have scales along axis %d in groups of %lld", v->name,
                              v->rank, q->axis, (long long)q->group);
    }
    return TERSE_OK;
}

/* Adam moves all numbers by about the rate, whatever their size: that of most networks' weights is taken for 1. */
static float unit_of(const float *w, int64_t n)
{
    double sum = 0;
    int64_t count = 0;
    for (int64_t k = 0; k < n; k++) {
        sum += (double)w[k] * (double)w[k];
        count += w[k] != 0;
    }
    const double unit = count > 0 ? sqrt(sum / (double)count) / usual_weight : 1;
    return unit > 0.02 && unit < 50 ? (float)unit : unit < 1 ? 0.02f : unit >= 50 ? 50.0f : 1;
}

static bool allocate(const terse_graph *graph, bool relative, terse_parameters *p)
{
    const size_t n = (size_t)p->n_numbers + 1, s = (size_t)p->n_statistic_numbers + 1;
    p->weights = calloc(n, sizeof(float));
    p->first = calloc(n, sizeof(float));
    p->second = calloc(n, sizeof(float));
    p->gradient = calloc(n, sizeof(float));
    p->averaged = calloc(n, sizeof(float));
    p->running = calloc(s, sizeof(float));
    if (!p->weights || !p->first || !p->second || !p->gradient || !p->averaged || !p->running)
        return false;
    for (int i = 0; i < p->n; i++) {
        terse_parameter *q = &p->list[i];
        memcpy(p->weights + q->first, graph->values[q->value].data, (size_t)q->n * sizeof(float));
        for (int64_t k = 0; q->mask && k < q->n; k++)
            if (!q->mask[k])
                p->weights[q->first + k] = 0;
        q->unit = relative && q->decays ? unit_of(p->weights + q->first, q->n) : 1;
        if (q->quantizer.bits && !(q->rounded = calloc((size_t)q->n, sizeof(float))))
            return false;
    }
    for (int i = 0; i < p->n_statistics; i++) {
        const terse_statistic *t = &p->statistics[i];
        const size_t bytes = (size_t)t->channels * sizeof(float);
        memcpy(p->running + t->first, graph->values[t->mean].data, bytes);
        memcpy(p->running + t->first + t->channels, graph->values[t->variance].data, bytes);
    }
    return true;
}

int terse_parameters_new(const terse_graph *graph, const terse_train_options *options, terse_parameters *ret_parameters,
                         terse_error *error)
{
    terse_parameters p = {0};
    p.list = calloc((size_t)graph->n_values + 1, sizeof *p.list);
    p.statistics = calloc((size_t)graph->n_nodes + 1, sizeof *p.statistics);
    p.trained = calloc((size_t)graph->n_values + 1, 1);
    int status = p.list && p.statistics && p.trained
                     ? TERSE_OK
                     : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for parameters");
    if (status == TERSE_OK) {
        find_parameters(graph, options, &p);
        if (options->batch_statistics)
            find_statistics(graph, &p);
        status = check_said(graph, options, &p, error);
    }
    if (status == TERSE_OK && !allocate(graph, options->relative, &p))
        status =
            terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %lld parameters", (long long)p.n_numbers);
    if (status == TERSE_OK)
        *ret_parameters = p;
    else
        terse_parameters_done(&p);
    return status;
}

/* --- rounding ---------------------------------------------------------------------------------------------------- */

/* Where the scale of element `at` is: channels as the quantizer's axis has them, groups along the other axis. */
typedef struct scale_map {
    int64_t inner, channels; /* channel = at / inner % channels */
    int64_t across, group;   /* place along the other axis of a matrix = at / across % ..., 0: no groups */
    int64_t length;
} scale_map;

static scale_map map_of(const terse_value *v, const terse_train_quantizer *q)
{
    scale_map m = {.inner = 1, .channels = 1};
    if (q->axis < 0)
        return m;
    m.channels = v->dims[q->axis];
    m.inner = terse_dims_count(v->dims + q->axis + 1, v->rank - q->axis - 1);
    if (q->group) {
        const int other = 1 - q->axis;
        m.group = q->group;
        m.across = other == 0 ? v->dims[1] : 1;
        m.length = v->dims[other];
    }
    return m;
}

static int64_t scale_at(const scale_map *m, int64_t at)
{
    const int64_t channel = m->channels == 1 ? 0 : at / m->inner % m->channels;
    return m->group ? at / m->across % m->length / m->group * m->channels + channel : channel;
}

static void round_one(const terse_value *v, const terse_parameter *q, const float *weights)
{
    const scale_map m = map_of(v, &q->quantizer);
    const int64_t n_scales = m.channels * (m.group ? (m.length + m.group - 1) / m.group : 1);
    const float high = q->quantizer.bits == 8 ? 127 : 7, low = q->quantizer.bits == 8 ? -127 : -8;
    float *scales = calloc((size_t)n_scales + 1, sizeof *scales);
    if (!scales) { /* no room: as if there were no quantizer for this step */
        memcpy(q->rounded, weights, (size_t)q->n * sizeof *weights);
        return;
    }
    if (q->quantizer.scales)
        memcpy(scales, q->quantizer.scales, (size_t)n_scales * sizeof *scales);
    for (int64_t i = 0; !q->quantizer.scales && i < q->n; i++) {
        float *s = &scales[scale_at(&m, i)];
        *s = fabsf(weights[i]) / high > *s ? fabsf(weights[i]) / high : *s;
    }
    for (int64_t i = 0; i < q->n; i++) {
        const float s = scales[scale_at(&m, i)];
        float t = s != 0 ? rintf(weights[i] / s) : 0;
        t = t < low ? low : t > high ? high : t;
        q->rounded[i] = t * s;
    }
    free(scales);
}

void terse_parameters_round(const terse_graph *graph, terse_parameters *p)
{
    for (int i = 0; i < p->n; i++)
        if (p->list[i].rounded)
            round_one(&graph->values[p->list[i].value], &p->list[i], p->weights + p->list[i].first);
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

void terse_parameters_attach(const terse_parameters *p, const terse_graph *graph, terse_tape *tape)
{
    (void)graph;
    for (int i = 0; i < p->n; i++)
        terse_tape_set_constant(tape, p->list[i].value,
                                p->list[i].rounded ? p->list[i].rounded : p->weights + p->list[i].first);
    for (int i = 0; i < p->n_statistics; i++) {
        const terse_statistic *t = &p->statistics[i];
        terse_tape_set_constant(tape, t->mean, p->running + t->first);
        terse_tape_set_constant(tape, t->variance, p->running + t->first + t->channels);
    }
}

void terse_parameters_clear(const terse_parameters *p, terse_tape *tape)
{
    for (int i = 0; i < p->n; i++) {
        float *found = terse_tape_parameter_gradient(tape, p->list[i].value);
        if (found)
            memset(found, 0, (size_t)p->list[i].n * sizeof *found);
    }
}

void terse_parameters_gather(terse_parameters *p, terse_tape *tape, bool first)
{
    for (int i = 0; i < p->n; i++) {
        const terse_parameter *q = &p->list[i];
        const float *found = terse_tape_parameter_gradient(tape, q->value);
        float *to = p->gradient + q->first;
        for (int64_t k = 0; k < q->n; k++)
            to[k] = (first ? 0 : to[k]) + (found ? found[k] : 0);
        for (int64_t k = 0; q->mask && k < q->n; k++)
            to[k] = q->mask[k] ? to[k] : 0;
    }
}

void terse_parameters_step(terse_parameters *p, int64_t step, double lr, double decay, double clip)
{
    double norm = 0;
    for (int64_t i = 0; i < p->n_numbers; i++)
        norm += (double)p->gradient[i] * (double)p->gradient[i];
    norm = sqrt(norm);
    if (!isfinite(norm)) /* a step that went wrong changes nothing */
        return;
    const float cut = norm > clip ? (float)(clip / norm) : 1;
    const double correct_first = 1 - pow(beta_first, (double)step), correct_second = 1 - pow(beta_second, (double)step);
    const float rate = (float)(lr / correct_first), root = (float)(1 / sqrt(correct_second));
    const float b1 = (float)beta_first, b2 = (float)beta_second, epsilon = (float)adam_epsilon;
    for (int i = 0; i < p->n; i++) {
        const terse_parameter *q = &p->list[i];
        const float shrink = q->decays ? (float)(lr * decay) : 0, unit = rate * q->unit;
        for (int64_t k = q->first; q->trained && k < q->first + q->n; k++) {
            const float g = p->gradient[k] * cut;
            p->first[k] = b1 * p->first[k] + (1 - b1) * g;
            p->second[k] = b2 * p->second[k] + (1 - b2) * g * g;
            p->weights[k] -= shrink * p->weights[k] + unit * p->first[k] / (sqrtf(p->second[k]) * root + epsilon);
        }
        for (int64_t k = 0; q->mask && k < q->n; k++)
            if (!q->mask[k])
                p->weights[q->first + k] = 0;
    }
}

void terse_parameters_average(terse_parameters *p, int64_t step, double average)
{
    const double first = (1 + (double)step) / (10 + (double)step);
    const float old = (float)(average < first ? average : first);
    for (int64_t k = 0; k < p->n_numbers; k++)
        p->averaged[k] = old * p->averaged[k] + (1 - old) * p->weights[k];
}

void terse_parameters_swap(terse_parameters *p)
{
    for (int64_t k = 0; k < p->n_numbers; k++) {
        const float swap = p->weights[k];
        p->weights[k] = p->averaged[k];
        p->averaged[k] = swap;
    }
}

void terse_parameters_learn_statistics(terse_parameters *p, terse_tape *const *tapes, int n)
{
    for (int i = 0; i < p->n_statistics; i++) {
        const terse_statistic *t = &p->statistics[i];
        float *to = p->running + t->first;
        for (int64_t k = 0; k < 2 * t->channels; k++) {
            double sum = 0;
            int found = 0;
            for (int s = 0; s < n; s++) {
                int64_t channels;
                const float *batch = terse_tape_statistics(tapes[s], t->node, &channels);
                if (batch) {
                    sum += (double)batch[k];
                    found++;
                }
            }
            if (found)
                to[k] = (float)((1 - momentum) * (double)to[k] + momentum * sum / found);
        }
    }
}

static int store_one(terse_graph *graph, int value, const float *numbers, int64_t n, terse_error *error)
{
    float *copy = terse_arena_alloc(graph->arena, (size_t)(n + 1) * sizeof *copy);
    if (!copy)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the trained weights");
    memcpy(copy, numbers, (size_t)n * sizeof *copy);
    graph->values[value].data = copy;
    return TERSE_OK;
}

int terse_parameters_store(const terse_parameters *p, const terse_train_bytes *bytes, terse_graph *graph,
                           terse_error *error)
{
    int status = TERSE_OK;
    for (int i = 0; i < p->n && status == TERSE_OK; i++) {
        const terse_parameter *q = &p->list[i];
        const terse_train_byte *byte = terse_train_bytes_find(bytes, q->value);
        const float *numbers = q->rounded ? q->rounded : p->weights + q->first;
        status = byte ? terse_train_bytes_store(byte, numbers, graph, error)
                      : store_one(graph, q->value, numbers, q->n, error);
    }
    for (int i = 0; i < p->n_statistics && status == TERSE_OK; i++) {
        const terse_statistic *t = &p->statistics[i];
        status = store_one(graph, t->mean, p->running + t->first, t->channels, error);
        if (status == TERSE_OK)
            status = store_one(graph, t->variance, p->running + t->first + t->channels, t->channels, error);
    }
    return status;
}
