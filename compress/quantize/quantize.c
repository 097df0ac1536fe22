/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/quantize/quantize.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/keep.h"
#include "compress/quantize/steps.h"
#include "compress/quantize/int8.h"

/* How many samples a measurement takes: as many as these multiply-accumulates allow, within bounds. */
static const double work_of_step = 150e9;
static const size_t bytes_of_chunk = (size_t)48 << 20, bytes_of_lockstep = (size_t)400 << 20;
static const double better = 0.9; /* equalization has to bring the noise below this share */
enum { FEW_SAMPLES = 16, MAX_TRIAL = 32, MAX_ROWS = 8 };

/* What one sample costs. */
typedef struct cost {
    double macs;             /* of products */
    double *node_macs;       /* per node */
    double work, *node_work; /* the same with what has to be read and written, in multiply-accumulates */
    size_t bytes, live;      /* of all tensors; of those held at once */
} cost;

typedef struct job {
    terse_graph *graph;
    const terse_quantize_options *options;
    terse_quantize_report *report;
    terse_samples samples;
    cost cost;
    bool *kept; /* per node */
    bool automatic;
    terse_arena *arena;       /* numbers of weights and biases while trying */
    terse_int8_weights *int8; /* per node */
    float **weights, **bias;  /* per node: as the bytes stand for, corrected */
    terse_ranges ranges;
} job;

void terse_quantize_report_done(terse_quantize_report *report)
{
    free(report->layers);
    terse_cluster_report_done(&report->clustered);
    *report = (terse_quantize_report){0};
}

static void progress(const job *j, const char *text)
{
    if (j->options->progress)
        j->options->progress(j->options->context, text);
}

__attribute__((format(printf, 2, 3))) static void warn(terse_quantize_report *report, const char *format, ...)
{
    if (report->n_warnings == TERSE_QUANTIZE_WARNINGS)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->warnings[report->n_warnings++], sizeof report->warnings[0], format, arguments);
    va_end(arguments);
}

/* --- what samples cost --------------------------------------------------------------------------------------- */

static double macs_of(const terse_graph *graph, const terse_node *node, const terse_numbers *numbers)
{
    if ((node->op != TERSE_OP_CONV && node->op != TERSE_OP_GEMM && node->op != TERSE_OP_MATMUL) || node->n_inputs < 2)
        return 0;
    const terse_tensor *y = terse_numbers_value(numbers, node->outputs[0]);
    const terse_value *w = &graph->values[node->inputs[1]];
    if (!y || !w->data || w->rank < 2)
        return 0;
    const int64_t all = terse_dims_count(w->dims, w->rank), channels = w->dims[terse_scheme_channel_axis(node)];
    return channels > 0 ? (double)terse_tensor_count(y) * (double)all / (double)channels : 0;
}

/* Reading or writing an FP32 number takes about as long as so many multiply-accumulates. */
static const double macs_of_number = 8;

static double work_of(const terse_node *node, const terse_numbers *numbers, double macs)
{
    const terse_tensor *x = terse_numbers_value(numbers, node->inputs[0]);
    const terse_tensor *y = terse_numbers_value(numbers, node->outputs[0]);
    return macs + macs_of_number * (double)((x ? terse_tensor_count(x) : 0) + (y ? terse_tensor_count(y) : 0));
}

/* One sample through the network, nothing released on the way but counted. */
static int measure_cost(job *j, terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    TERSE_AUTO(terse_numbers_freep) terse_numbers *all = NULL;
    TERSE_AUTO(terse_numbers_freep) terse_numbers *live = NULL;
    j->cost.node_macs = calloc((size_t)j->graph->n_nodes + 1, sizeof *j->cost.node_macs);
    j->cost.node_work = calloc((size_t)j->graph->n_nodes + 1, sizeof *j->cost.node_work);
    int status = j->cost.node_macs && j->cost.node_work ? terse_replay_new(j->graph, &j->samples, 1, 1, &replay, error)
                                                        : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    if (status == TERSE_OK)
        status = terse_numbers_new(replay, 0, true, NULL, NULL, &all, error);
    if (status == TERSE_OK)
        status = terse_numbers_new(replay, 0, false, NULL, NULL, &live, error);
    for (int n = 0; n < j->graph->n_nodes && status == TERSE_OK; n++) {
        status = terse_numbers_step(all, n, error);
        if (status == TERSE_OK)
            status = terse_numbers_step(live, n, error);
        if (status != TERSE_OK)
            return status;
        j->cost.node_macs[n] = macs_of(j->graph, &j->graph->nodes[n], all);
        j->cost.macs += j->cost.node_macs[n];
        if (j->cost.node_macs[n] > 0)
            j->cost.node_work[n] = work_of(&j->graph->nodes[n], all, j->cost.node_macs[n]);
        j->cost.work += j->cost.node_work[n];
        if (terse_numbers_bytes(live) > j->cost.live)
            j->cost.live = terse_numbers_bytes(live);
    }
    if (status == TERSE_OK)
        j->cost.bytes = terse_numbers_bytes(all);
    return status;
}

/* Samples for a step that computes each one `times` over. */
static int64_t samples_for(const job *j, double times, int64_t least, int64_t most)
{
    const double affordable = work_of_step / (times * j->cost.macs + 1e6);
    const int64_t n = affordable > (double)most ? most : (int64_t)affordable;
    return n < least ? least : n;
}

/* Where many networks like this one are built, each is made with fewer samples: also the one that is taken in the end,
 * as it is that one which was judged, and its plan must give it again. */
static double trial_times(const job *j, double times)
{
    return j->options->equalization == TERSE_EQUALIZATION_TRIED ? times : 3 * times;
}

static int64_t rows_of_chunk(const job *j)
{
    const size_t rows = bytes_of_chunk / (j->cost.bytes + 1);
    return rows < 1 ? 1 : rows > MAX_ROWS ? MAX_ROWS : (int64_t)rows;
}

static int new_replay(const job *j, const terse_graph *graph, int64_t n, terse_replay **ret_replay, terse_error *error)
{
    return terse_replay_new(graph, &j->samples, n, rows_of_chunk(j), ret_replay, error);
}

/* --- weights ----------------------------------------------------------------------------------------------------- */

/* INT8 weights of every product of the scheme, and what they stand for. `arena` holds all of it. */
static int quantize_weights(const terse_graph *graph, const terse_scheme *scheme, const terse_affine *affine,
                            terse_arena *arena, terse_int8_weights *int8, float **weights, terse_error *error)
{
    int status = TERSE_OK;
    for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
        if (scheme->kinds[n] != TERSE_SCHEME_PRODUCT)
            continue;
        const terse_node *node = &graph->nodes[n];
        const terse_value *w = &graph->values[node->inputs[1]];
        const int axis = terse_scheme_channel_axis(node);
        const int64_t count = terse_dims_count(w->dims, w->rank), channels = w->dims[axis];
        const terse_value *b = node->n_inputs > 2 && node->inputs[2] >= 0 ? &graph->values[node->inputs[2]] : NULL;
        const bool fits = b && b->data && b->dtype == TERSE_FP32 && b->rank == 1 && b->dims[0] == channels;
        int8[n].q = terse_arena_alloc(arena, (size_t)count);
        int8[n].scales = terse_arena_alloc(arena, (size_t)channels * sizeof(float));
        weights[n] = terse_arena_alloc(arena, (size_t)count * sizeof(float));
        if (!int8[n].q || !int8[n].scales || !weights[n])
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the weights of '%s'", node->name);
        status = terse_int8_quantize(w, axis, fits ? b->data : NULL, affine[node->inputs[0]].scale, int8[n].q,
                                     int8[n].scales, error);
        if (status == TERSE_OK)
            terse_int8_dequantize(w, axis, int8[n].q, int8[n].scales, weights[n]);
    }
    return status;
}

/* --- equalization ------------------------------------------------------------------------------------------------ */

/* Noise over signal of a clone of the network that was equalized so, ranges by MSE on a few samples. */
static int try_equalization(job *j, terse_equalize_by by, int *ret_pairs, double *ret_share, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *clone = NULL;
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    terse_scheme scheme = {0};
    terse_ranges ranges = {0};
    terse_calibrate_watch watch = {.samples = samples_for(j, 1, 4, MAX_TRIAL)};
    terse_arena *arena = terse_arena_new();
    const size_t nodes = (size_t)j->graph->n_nodes + 1;
    TERSE_AUTO(terse_freep) terse_int8_weights *int8 = calloc(nodes, sizeof *int8);
    TERSE_AUTO(terse_freep) float **weights = calloc(nodes, sizeof *weights);
    int status = arena && int8 && weights ? terse_edit_clone(j->graph, &clone, error)
                                          : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a trial");
    if (status == TERSE_OK)
        status = terse_equalize_run(clone, &j->samples, by, ret_pairs, error);
    if (status == TERSE_OK && *ret_pairs > 0) {
        status = terse_scheme_build(clone, j->kept, &scheme, error);
        if (status == TERSE_OK)
            status = terse_calibrate_observe(clone, &j->samples, &scheme, &watch, &ranges, error);
        if (status == TERSE_OK)
            status = terse_choose_ranges(NULL, clone, &scheme, TERSE_CALIBRATION_MSE, &ranges, error);
        if (status == TERSE_OK)
            status = quantize_weights(clone, &scheme, ranges.affine, arena, int8, weights, error);
        if (status == TERSE_OK)
            status = new_replay(j, clone, samples_for(j, 2, 4, MAX_TRIAL), &replay, error);
        terse_loss loss = {0};
        const terse_disguise disguise = {.scheme = &scheme, .affine = ranges.affine, .weights = weights};
        if (status == TERSE_OK)
            status = terse_sensitivity_total(replay, clone, &disguise, &loss, error);
        *ret_share = terse_loss_share(&loss);
    }
    terse_scheme_done(&scheme);
    terse_ranges_done(&ranges);
    terse_arena_free(arena);
    return status;
}

const char *terse_equalization_name(terse_equalization equalization)
{
    static const char *const names[] = {"tried", "none", "weights", "activations"};
    return names[equalization];
}

/* As it was found out before, for a network like this one. */
static int equalize_as_told(job *j, terse_error *error)
{
    const terse_equalization how = j->options->equalization;
    int pairs = 0;
    j->report->equalized = how;
    snprintf(j->report->equalization, sizeof j->report->equalization, "%s%s, as planned",
             how == TERSE_EQUALIZATION_NONE ? "" : "by ", terse_equalization_name(how));
    return how == TERSE_EQUALIZATION_NONE
               ? TERSE_OK
               : terse_equalize_run(j->graph, &j->samples, (terse_equalize_by)(how - TERSE_EQUALIZATION_NONE), &pairs,
                                    error);
}

static int equalize(job *j, terse_error *error)
{
    double share[3] = {0};
    int pairs = 0, best = TERSE_EQUALIZE_NONE;
    if (j->options->equalization != TERSE_EQUALIZATION_TRIED)
        return equalize_as_told(j, error);
    for (int by = TERSE_EQUALIZE_NONE; by <= TERSE_EQUALIZE_ACTIVATIONS; by++) {
        char text[64];
        snprintf(text, sizeof text, "equalizing by %s", terse_equalization_name(TERSE_EQUALIZATION_NONE + by));
        progress(j, text);
        const int status = try_equalization(j, (terse_equalize_by)by, &pairs, &share[by], error);
        if (status != TERSE_OK)
            return status;
        if (pairs == 0)
            break;
        if (share[by] < share[best] && share[by] < better * share[0])
            best = by;
    }
    j->report->equalized = (terse_equalization)(TERSE_EQUALIZATION_NONE + best);
    if (pairs == 0)
        snprintf(j->report->equalization, sizeof j->report->equalization, "none: no products follow each other");
    else
        snprintf(j->report->equalization, sizeof j->report->equalization,
                 "by %s (%d pairs): without %.1f dB, by weights %.1f, by activations %.1f",
                 terse_equalization_name(j->report->equalized), pairs, terse_loss_decibels(share[0]),
                 terse_loss_decibels(share[1]), terse_loss_decibels(share[2]));
    return best == TERSE_EQUALIZE_NONE
               ? TERSE_OK
               : terse_equalize_run(j->graph, &j->samples, (terse_equalize_by)best, &pairs, error);
}

/* --- layers ------------------------------------------------------------------------------------------------------ */

/* Is all that a layer's loss would decide about told? */
static bool is_told(const job *j)
{
    return j->options->equalization != TERSE_EQUALIZATION_TRIED && !j->automatic;
}

static void describe(const job *j, int node, const char *reason, terse_quantize_layer *layer)
{
    const terse_node *n = &j->graph->nodes[node];
    const terse_value *w = &j->graph->values[n->inputs[1]];
    *layer = (terse_quantize_layer){.op = n->op, .macs = (int64_t)j->cost.node_macs[node], .kept = true};
    snprintf(layer->name, sizeof layer->name, "%s", n->name);
    snprintf(layer->reason, sizeof layer->reason, "%s", reason);
    terse_value_text(j->graph, w, layer->shape, sizeof layer->shape);
}

/* Nothing that runs on bytes stands in front of (behind) the node: reachability over all nodes, once. */
static void mark_ends(const terse_graph *graph, const terse_scheme *scheme, bool *behind, bool *before)
{
    /* values: is there a product of bytes on the way to it; on the way from it? */
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        bool seen = scheme->kinds[n] == TERSE_SCHEME_PRODUCT;
        for (int i = 0; i < node->n_inputs; i++)
            seen = seen || (node->inputs[i] >= 0 && behind[node->inputs[i]]);
        for (int o = 0; o < node->n_outputs; o++)
            if (node->outputs[o] >= 0)
                behind[node->outputs[o]] = seen;
    }
    for (int n = graph->n_nodes - 1; n >= 0; n--) {
        const terse_node *node = &graph->nodes[n];
        bool seen = scheme->kinds[n] == TERSE_SCHEME_PRODUCT;
        for (int o = 0; o < node->n_outputs; o++)
            seen = seen || (node->outputs[o] >= 0 && before[node->outputs[o]]);
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0)
                before[node->inputs[i]] = before[node->inputs[i]] || seen;
    }
}

static int choose_kept(job *j, const terse_scheme *scheme, const terse_loss *loss, double total, const char **reasons,
                       terse_error *error)
{
    const terse_graph *graph = j->graph;
    const size_t values = (size_t)graph->n_values + 1;
    TERSE_AUTO(terse_freep) terse_keep_candidate *list = calloc((size_t)graph->n_nodes + 1, sizeof *list);
    TERSE_AUTO(terse_freep) bool *ends = calloc(2 * values, sizeof *ends);
    if (!list || !ends)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for layers");
    mark_ends(graph, scheme, ends, ends + values);
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        if (scheme->kinds[i] == TERSE_SCHEME_PRODUCT)
            list[n++] = (terse_keep_candidate){.node = i,
                                               .noise = terse_loss_share(&loss[i]),
                                               .work = j->cost.node_work[i] / (j->cost.work + 1),
                                               .first = !ends[graph->nodes[i].inputs[0]],
                                               .last = !ends[values + (size_t)graph->nodes[i].outputs[0]]};
    terse_keep_choose(list, n, total);
    for (int i = 0; i < n; i++)
        if (list[i].kept) {
            j->kept[list[i].node] = true;
            reasons[list[i].node] = list[i].reason;
        }
    return TERSE_OK;
}

static int list_layers(job *j, const terse_scheme *scheme, const terse_loss *loss, const char *const *reasons,
                       terse_error *error)
{
    terse_quantize_report *r = j->report;
    r->layers = calloc((size_t)j->graph->n_nodes + 1, sizeof *r->layers);
    if (!r->layers)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for layers");
    for (int n = 0; n < j->graph->n_nodes; n++) {
        char reason[96];
        const bool can = terse_scheme_can_quantize(j->graph, n, reason, sizeof reason);
        if (!can && !reason[0])
            continue;
        terse_quantize_layer *layer = &r->layers[r->n++];
        describe(j, n, can ? reasons[n] ? reasons[n] : "named" : reason, layer);
        if (scheme->kinds[n] == TERSE_SCHEME_PRODUCT) {
            const int x = j->graph->nodes[n].inputs[0];
            layer->kept = j->kept[n];
            if (!layer->kept)
                snprintf(layer->reason, sizeof layer->reason, "int8");
            layer->measured = true;
            layer->alone = !is_told(j);
            layer->sqnr_db = layer->alone ? terse_loss_decibels(terse_loss_share(&loss[n])) : 0;
            layer->divergence = layer->alone ? terse_loss_kl(&loss[n]) : 0;
            layer->method = j->ranges.methods[x];
            layer->low = j->ranges.ranges[x].low;
            layer->high = j->ranges.ranges[x].high;
            const terse_histogram *seen = j->ranges.histograms[scheme->group[x]];
            layer->clipped = seen ? terse_range_clipped(seen, j->ranges.ranges[x]) : 0;
        }
    }
    return TERSE_OK;
}

/* --- the whole --------------------------------------------------------------------------------------------------- */

static int open_samples(job *j, const terse_npz *data, terse_error *error)
{
    int status = terse_samples_open(j->graph, data, &j->samples, error);
    if (status == TERSE_OK)
        status = terse_calibrate_check(&j->samples, error);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "--calibrate '%s'", j->options->source);
    const int64_t n = j->samples.samples;
    j->report->samples = n;
    if (n < FEW_SAMPLES)
        warn(j->report,
             "calibration on %" PRId64 " sample%s: ranges are uncertain, %d or more of what will be served are better",
             n, n == 1 ? "" : "s", FEW_SAMPLES * 4);
    const terse_tensor *labels = j->samples.labels;
    bool same = labels && n > 1;
    for (int64_t i = 1; same && i < n; i++)
        same = memcmp(labels->data, (const char *)labels->data + (size_t)i * terse_dtype_size(labels->dtype),
                      terse_dtype_size(labels->dtype)) == 0;
    if (same)
        warn(j->report, "calibration is one-sided: all %" PRId64 " samples have the same label", n);
    return TERSE_OK;
}

/* Ranges of all samples for everything that could be bytes. */
static int calibrate(job *j, const terse_scheme *scheme, terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    terse_calibrate_watch watch = {.progress = j->options->progress, .context = j->options->context};
    int status = terse_calibrate_observe(j->graph, &j->samples, scheme, &watch, &j->ranges, error);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "--calibrate '%s'", j->options->source);
    if (watch.one_class && j->samples.samples > 1 && !j->samples.labels)
        warn(j->report, "calibration is one-sided: the network gives all %" PRId64 " samples the same class",
             j->samples.samples);
    progress(j, "choosing ranges");
    status = new_replay(j, j->graph, samples_for(j, trial_times(j, 7), 2, MAX_TRIAL), &replay, error);
    if (status == TERSE_OK)
        status = terse_choose_ranges(replay, j->graph, scheme, j->options->calibration, &j->ranges, error);
    return status;
}

/* Every layer alone, then which of them stay FP32. `total`: what all of them cost. */
static int measure_layers(job *j, const terse_scheme *scheme, const terse_disguise *disguise, double total,
                          terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    TERSE_AUTO(terse_freep) terse_loss *loss = calloc((size_t)j->graph->n_nodes + 1, sizeof *loss);
    TERSE_AUTO(terse_freep) const char **reasons = calloc((size_t)j->graph->n_nodes + 1, sizeof *reasons);
    if (!loss || !reasons)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for layers");
    int layers = 0;
    for (int n = 0; n < j->graph->n_nodes; n++)
        layers += scheme->kinds[n] == TERSE_SCHEME_PRODUCT;
    if (is_told(j))
        return list_layers(j, scheme, loss, reasons, error);
    int status = new_replay(j, j->graph, samples_for(j, 1 + layers / 2.0, 2, MAX_TRIAL), &replay, error);
    if (status == TERSE_OK)
        status = terse_sensitivity_measure(replay, j->graph, disguise, loss, j->options->progress, j->options->context,
                                           error);
    if (status == TERSE_OK && j->automatic)
        status = choose_kept(j, scheme, loss, total, reasons, error);
    if (status == TERSE_OK)
        status = list_layers(j, scheme, loss, reasons, error);
    return status;
}

/* The corrected biases, unless the outputs are worse with them; *ret_share: noise over signal then. */
static int correct_bias(job *j, const terse_disguise *disguise, double *ret_share, terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    progress(j, "correcting biases");
    memset(j->bias, 0, ((size_t)j->graph->n_nodes + 1) * sizeof *j->bias);
    const size_t room = bytes_of_lockstep / (2 * j->cost.live + 1);
    const int64_t most = room < 4 ? 4 : room > 64 ? 64 : (int64_t)room;
    int status = new_replay(j, j->graph, samples_for(j, trial_times(j, 4), 4, most), &replay, error);
    terse_loss plain = {0}, corrected = {0};
    if (status == TERSE_OK)
        status = terse_sensitivity_total(replay, j->graph, disguise, &plain, error);
    if (status == TERSE_OK)
        status = terse_bias_correct(replay, j->graph, disguise, j->bias, j->arena, error);
    terse_disguise with = *disguise;
    with.bias = j->bias;
    if (status == TERSE_OK)
        status = terse_sensitivity_total(replay, j->graph, &with, &corrected, error);
    if (status != TERSE_OK)
        return status;
    const bool good = terse_loss_share(&corrected) <= terse_loss_share(&plain);
    const terse_loss *taken = good ? &corrected : &plain;
    if (!good)
        memset(j->bias, 0, ((size_t)j->graph->n_nodes + 1) * sizeof *j->bias);
    *ret_share = terse_loss_share(taken);
    j->report->sqnr_db = terse_loss_decibels(*ret_share);
    j->report->divergence = terse_loss_kl(taken);
    j->report->rows_known = taken->rows > 0;
    return TERSE_OK;
}

/* A bias is a constant of its node's own (terse_bias_prepare). */
static int set_biases(job *j, terse_error *error)
{
    for (int n = 0; n < j->graph->n_nodes; n++) {
        if (!j->bias[n])
            continue;
        terse_value *b = &j->graph->values[j->graph->nodes[n].inputs[2]];
        float *data = terse_arena_alloc(j->graph->arena, b->bytes);
        if (!data)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the biases");
        memcpy(data, j->bias[n], b->bytes);
        b->data = data;
    }
    return TERSE_OK;
}

static int insert(job *j, const terse_scheme *scheme, terse_error *error)
{
    for (int n = 0; n < j->graph->n_nodes; n++) {
        if (scheme->kinds[n] != TERSE_SCHEME_PRODUCT)
            continue;
        const terse_value *w = &j->graph->values[j->graph->nodes[n].inputs[1]];
        const size_t count = (size_t)terse_dims_count(w->dims, w->rank);
        const size_t channels = (size_t)w->dims[terse_scheme_channel_axis(&j->graph->nodes[n])];
        int8_t *q = terse_arena_alloc(j->graph->arena, count);
        float *scales = terse_arena_alloc(j->graph->arena, channels * sizeof *scales);
        if (!q || !scales)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the weights");
        memcpy(q, j->int8[n].q, count);
        memcpy(scales, j->int8[n].scales, channels * sizeof *scales);
        j->int8[n].q = q;
        j->int8[n].scales = scales;
    }
    return terse_scheme_insert(j->graph, scheme, j->ranges.affine, j->int8, error);
}

/* Some layers were kept: the rest is corrected anew and written. */
static int finish(job *j, const terse_scheme *all, bool again, terse_error *error)
{
    terse_scheme rest = {0};
    const terse_scheme *scheme = again ? &rest : all;
    const terse_disguise disguise = {.scheme = scheme, .affine = j->ranges.affine, .weights = j->weights};
    double share;
    int status = again ? terse_scheme_build(j->graph, j->kept, &rest, error) : TERSE_OK;
    for (int n = 0; n < j->graph->n_nodes && status == TERSE_OK; n++)
        if (scheme->kinds[n] != TERSE_SCHEME_PRODUCT)
            j->weights[n] = NULL;
    if (status == TERSE_OK && again)
        status = correct_bias(j, &disguise, &share, error);
    if (status == TERSE_OK)
        status = set_biases(j, error);
    if (status == TERSE_OK)
        status = insert(j, scheme, error);
    terse_scheme_done(&rest);
    return status;
}

/* Other than to the nearest where that was asked for, unless the outputs are worse with it. */
static int round_weights(job *j, const terse_disguise *disguise, terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    const terse_rounding how = j->options->rounding;
    double shares[2] = {0};
    if (how == TERSE_ROUNDING_DEFAULT || how == TERSE_ROUNDING_NEAREST)
        return TERSE_OK;
    int status = new_replay(j, j->graph, samples_for(j, 2, 4, MAX_TRIAL), &replay, error);
    const terse_round_bytes bytes = {
        .int8 = j->int8, .weights = j->weights, .progress = j->options->progress, .context = j->options->context};
    if (status == TERSE_OK)
        status =
            terse_round_int8(replay, j->graph, &j->samples, disguise, how, &bytes, &j->report->rounding, shares, error);
    if (status == TERSE_OK && shares[1] > shares[0])
        warn(j->report, "rounding by %s makes the outputs worse (%.1f dB, to the nearest %.1f dB): it is not taken",
             terse_rounding_name(how), terse_loss_decibels(shares[1]), terse_loss_decibels(shares[0]));
    return status;
}

static int quantize(job *j, terse_error *error)
{
    terse_scheme scheme = {0};
    terse_disguise full = {.scheme = &scheme, .weights = j->weights};
    double share = 0;
    int kept_before = 0, kept = 0;
    int status = terse_scheme_build(j->graph, j->kept, &scheme, error);
    if (status == TERSE_OK)
        status = calibrate(j, &scheme, error);
    full.affine = j->ranges.affine;
    if (status == TERSE_OK)
        status = quantize_weights(j->graph, &scheme, j->ranges.affine, j->arena, j->int8, j->weights, error);
    if (status == TERSE_OK)
        status = round_weights(j, &full, error);
    if (status == TERSE_OK && j->options->cluster)
        status = terse_cluster_int8(j->graph, &j->samples, &scheme, j->ranges.affine, j->int8, j->weights,
                                    j->options->cluster, &j->report->clustered, error);
    if (status == TERSE_OK)
        status = correct_bias(j, &full, &share, error);
    bool any = false;
    for (int n = 0; n < j->graph->n_nodes; n++) {
        kept_before += j->kept[n];
        any = any || (status == TERSE_OK && scheme.kinds[n] == TERSE_SCHEME_PRODUCT);
    }
    if (status == TERSE_OK && !any)
        warn(j->report,
             "no layer becomes int8: none has constant FP32 weights in a form that bytes have, or all are kept");
    if (status == TERSE_OK)
        status = measure_layers(j, &scheme, &full, share, error);
    for (int n = 0; n < j->graph->n_nodes; n++)
        kept += j->kept[n];
    if (status == TERSE_OK)
        status = finish(j, &scheme, kept != kept_before, error);
    terse_scheme_done(&scheme);
    return status;
}

static int run(job *j, const terse_npz *data, terse_error *error)
{
    int status = open_samples(j, data, error);
    if (status == TERSE_OK)
        status = terse_keep_named(j->graph, "--keep-float", j->options->keep_float, j->kept, &j->automatic, error);
    if (status == TERSE_OK)
        status = measure_cost(j, error);
    if (status == TERSE_OK)
        status = equalize(j, error);
    return status == TERSE_OK ? quantize(j, error) : status;
}

int terse_quantize_run(terse_graph *graph, const terse_npz *data, const terse_quantize_options *options,
                       terse_quantize_report *ret_report, terse_error *error)
{
    terse_quantize_report report = {0};
    job j = {.graph = graph, .options = options, .report = &report, .arena = terse_arena_new()};
    int status = terse_scheme_split_activations(graph, error);
    if (status == TERSE_OK)
        status = terse_bias_prepare(graph, error);
    if (status != TERSE_OK) {
        terse_arena_free(j.arena);
        return status;
    }
    const size_t nodes = (size_t)graph->n_nodes + 1;
    j.kept = calloc(nodes, sizeof *j.kept);
    j.int8 = calloc(nodes, sizeof *j.int8);
    j.weights = calloc(nodes, sizeof *j.weights);
    j.bias = calloc(nodes, sizeof *j.bias);
    status = j.arena && j.kept && j.int8 && j.weights && j.bias
                 ? run(&j, data, error)
                 : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d nodes", graph->n_nodes);
    terse_samples_done(&j.samples);
    terse_ranges_done(&j.ranges);
    terse_arena_free(j.arena);
    free(j.cost.node_macs);
    free(j.cost.node_work);
    free(j.kept);
    free(j.int8);
    free(j.weights);
    free(j.bias);
    if (status == TERSE_OK)
        *ret_report = report;
    else
        terse_quantize_report_done(&report);
    return status;
}
