/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/recover.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/weights.h"

enum { MAX_EPOCHS = 1000000, TEXT_BATCH = 8, LEAST_STEPS = 500 };
/* Of weights of the usual size (those of texts: of any); a third, three and ten times as much are tried too where a
 * training is long. */
static const double rate_floats = 3e-4, rate_bytes = 1e-4, rate_halves = 3e-4, rate_text_floats = 3e-3,
                    rate_texts = 1e-4;

int terse_recover_parse(const char *text, terse_recover_options *options, terse_error *error)
{
    char *end;
    options->off = strcmp(text, "none") == 0;
    options->text = NULL;
    if (options->off)
        return TERSE_OK;
    const double found = strtod(text, &end);
    const double unit = strcmp(end, "s") == 0 ? 1 : strcmp(end, "m") == 0 ? 60 : strcmp(end, "h") == 0 ? 3600 : 0;
    const bool epochs = !*end && found >= 1 && found <= MAX_EPOCHS && found == floor(found);
    const bool time = unit > 0 && found * unit >= 0.1 && found * unit <= 1e7;
    if (end == text || (!epochs && !time))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--recover is '%.100s', allowed are a number of epochs (1 to %d), times such as 90s, 10m "
                          "and 2h, and none",
                          text, MAX_EPOCHS);
    options->text = text;
    options->epochs = epochs ? (int64_t)found : 0;
    options->seconds = epochs ? 0 : found * unit;
    return TERSE_OK;
}

/* --- zeros -------------------------------------------------------------------------------------------------------- */

typedef struct terse_recover_mask {
    char *node;
    uint8_t *mask;
    int64_t n;
} terse_recover_mask;

void terse_recover_zeros_done(terse_recover_zeros *zeros)
{
    for (int i = 0; zeros->list && i < zeros->n; i++) {
        free(zeros->list[i].node);
        free(zeros->list[i].mask);
    }
    free(zeros->list);
    *zeros = (terse_recover_zeros){0};
}

static bool is_product(const terse_node *node)
{
    return (node->op == TERSE_OP_CONV || node->op == TERSE_OP_GEMM || node->op == TERSE_OP_MATMUL) &&
           node->n_inputs > 1;
}

/* A mask where enough of the weights are zero; its n stays 0 elsewhere. */
static bool find_mask(const terse_graph *graph, const terse_node *node, bool pruned, terse_recover_mask *to)
{
    const terse_value *v = is_product(node) && node->inputs[1] >= 0 ? &graph->values[node->inputs[1]] : NULL;
    if (!v || !v->data || v->dtype != TERSE_FP32 || v->layout != TERSE_LAYOUT_PLAIN)
        return true;
    const float *w = v->data;
    const int64_t n = terse_dims_count(v->dims, v->rank);
    int64_t zeros = 0;
    for (int64_t k = 0; k < n; k++)
        zeros += w[k] == 0;
    if (zeros == 0 || (!pruned && zeros * 10 < n))
        return true;
    *to = (terse_recover_mask){.node = strdup(node->name), .mask = malloc((size_t)n), .n = n};
    for (int64_t k = 0; to->mask && k < n; k++)
        to->mask[k] = w[k] != 0;
    return to->node && to->mask;
}

int terse_recover_zeros_find(const terse_graph *graph, bool pruned, terse_recover_zeros *ret_zeros, terse_error *error)
{
    terse_recover_zeros found = {.list = calloc((size_t)graph->n_nodes + 1, sizeof *found.list)};
    bool good = found.list != NULL;
    for (int i = 0; good && i < graph->n_nodes; i++) {
        good = find_mask(graph, &graph->nodes[i], pruned, &found.list[found.n]);
        found.n += found.list[found.n].n > 0;
    }
    if (!good) {
        terse_recover_zeros_done(&found);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the zeros of %d nodes", graph->n_nodes);
    }
    *ret_zeros = found;
    return TERSE_OK;
}

/* The masks as training takes them. Weights that several nodes share have one. */
static int say(const terse_graph *graph, const terse_recover_zeros *zeros, terse_train_parameter *list)
{
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const terse_node *node = &graph->nodes[i];
        const int w = is_product(node) ? node->inputs[1] : -1;
        bool there = w < 0 || graph->values[w].dtype != TERSE_FP32;
        for (int k = 0; k < n; k++)
            there = there || list[k].value == w;
        for (int k = 0; k < zeros->n && !there; k++)
            if (strcmp(zeros->list[k].node, node->name) == 0 &&
                zeros->list[k].n == terse_dims_count(graph->values[w].dims, graph->values[w].rank)) {
                list[n++] = (terse_train_parameter){.value = w, .mask = zeros->list[k].mask};
                there = true;
            }
    }
    return n;
}

/* --- weights of few bits ----------------------------------------------------------------------------------------- */

/* Scales as weights.c takes them: per output channel, in 4 bits per group of inputs. */
static float *scales_of(const terse_value *v, int bits, int64_t rows)
{
    const bool conv = v->rank > 2;
    const int64_t n = v->dims[conv ? 0 : 1], k = v->dims[conv ? 1 : 0], group = bits == 4 ? rows : k;
    const int64_t step = conv ? 1 : n, column = conv ? k : 1;
    float *scales = malloc(((size_t)((k + group - 1) / group * n) + 1) * sizeof *scales);
    TERSE_AUTO(terse_freep) int8_t *room = malloc((size_t)group + 1);
    if (!scales || !room) {
        free(scales);
        return NULL;
    }
    const int low = bits == 4 ? -8 : -127, high = bits == 4 ? 7 : 127;
    for (int64_t g = 0; g * group < k; g++)
        for (int64_t j = 0; j < n; j++)
            scales[g * n + j] =
                terse_quantize_round((const float *)v->data + g * group * step + j * column,
                                     k - g * group < group ? k - g * group : group, step, low, high, room);
    return scales;
}

/* Weights that several products share are what the first of them says. */
static bool keeps_8(const terse_graph *graph, int value, const terse_recover_form *form)
{
    for (int i = 0; value >= 0 && i < graph->n_nodes; i++)
        if (is_product(&graph->nodes[i]) && graph->nodes[i].inputs[1] == value)
            return terse_mixed_keeps(form->mixed, graph->nodes[i].name);
    return false;
}

/* Adds quantizers to what is said; *n entries are there. */
static int say_bits(const terse_graph *graph, const terse_recover_form *form, terse_train_parameter *list, int *n,
                    terse_error *error)
{
    for (int i = 0; i < graph->n_nodes && form->bits; i++) {
        const int w = is_product(&graph->nodes[i]) ? graph->nodes[i].inputs[1] : -1;
        const int bits = keeps_8(graph, w, form) ? 8 : form->bits;
        if (w < 0 || !terse_mixed_takes(graph, w, form->bits))
            continue;
        int at = 0;
        while (at < *n && list[at].value != w)
            at++;
        if (at < *n && list[at].quantizer.bits)
            continue;
        const float *scales = scales_of(&graph->values[w], bits, form->group);
        if (!scales)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for scales");
        if (at == *n)
            list[(*n)++] = (terse_train_parameter){.value = w};
        list[at].quantizer = (terse_train_quantizer){.bits = bits,
                                                     .axis = graph->values[w].rank > 2 ? 0 : 1,
                                                     .group = bits == 4 ? form->group : 0,
                                                     .scales = scales};
    }
    return TERSE_OK;
}

/* --- training ---------------------------------------------------------------------------------------------------- */

/* Tokens in, a row of classes for each out: there likelihood counts, which is what KL at a temperature of 1 is about,
 * and a sample is as much work as many pictures. */
static bool are_texts(const terse_graph *graph)
{
    const terse_value *x = graph->n_inputs == 1 ? &graph->values[graph->inputs[0]] : NULL;
    const terse_value *y = graph->n_outputs == 1 ? &graph->values[graph->outputs[0]] : NULL;
    return x && y && (x->dtype == TERSE_INT64 || x->dtype == TERSE_INT32) && x->rank == 2 && y->dtype == TERSE_FP32 &&
           y->rank == 3;
}

/* Pictures may be mirrored and moved. */
static bool are_images(const terse_graph *graph)
{
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *v = &graph->values[graph->inputs[i]];
        if (v->dtype != TERSE_FP32 || v->rank != 4 || (v->dims[1] != 1 && v->dims[1] != 3) || v->dims[2] < 16 ||
            v->dims[3] < 16)
            return false;
    }
    return graph->n_inputs > 0;
}

static terse_train_options options_for(const terse_graph *graph, const terse_recover_options *from,
                                       const terse_recover_form *form, double share)
{
    const bool images = are_images(graph), texts = are_texts(graph);
    const bool channels = form->kept && form->kept->n > 0 && !form->rounded && !texts;
    const int64_t epochs = from->epochs ? (int64_t)ceil((double)from->epochs * share) : 0;
    terse_train_options o = {.epochs = epochs,
                             .seconds = from->seconds * share,
                             .stop = from->stop,
                             .seed = from->seed,
                             .max_bytes = from->max_bytes,
                             .lr = texts             ? (form->rounded ? rate_texts : rate_text_floats)
                                   : !form->rounded  ? rate_floats
                                   : form->bits == 4 ? rate_halves
                                                     : rate_bytes,
                             .find_rate = !channels && !(texts && form->rounded),
                             .tolerance = channels ? 2 : 0,
                             .relative = !texts,
                             .average = 0.98,
                             .batch = texts ? TEXT_BATCH : 0,
                             .steps = LEAST_STEPS,
                             .temperature = texts ? 1 : 0,
                             .features = texts ? 0 : 1,
                             .kept = form->kept,
                             .mix = images,
                             .flip = images,
                             .shift = images ? 2 : 0,
                             .patience_share = 0.5,
                             .checkpoint = from->checkpoint,
                             .resume = from->resume};
    return o;
}

int terse_recover_run(const terse_graph *teacher, terse_graph *graph, const terse_npz *data,
                      const terse_recover_zeros *zeros, const terse_recover_form *form, double share,
                      const terse_recover_options *options, terse_train_summary *ret_summary, terse_error *error)
{
    char path[4096];
    TERSE_AUTO(terse_freep) terse_train_parameter *said = calloc((size_t)graph->n_nodes + 1, sizeof *said);
    if (!said)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d nodes", graph->n_nodes);
    terse_train_options o = options_for(graph, options, form, share);
    o.parameters = said;
    o.n_parameters = say(graph, zeros, said);
    if (form->rounded && o.checkpoint) {
        snprintf(path, sizeof path, "%.4000s.rounded", o.checkpoint);
        o.checkpoint = path;
    }
    int status = say_bits(graph, form, said, &o.n_parameters, error);
    if (status == TERSE_OK)
        status = terse_train_recover(teacher, graph, data, &o, options->report, options->context, ret_summary, error);
    for (int i = 0; i < o.n_parameters; i++)
        free((void *)(uintptr_t)said[i].quantizer.scales);
    return status;
}
