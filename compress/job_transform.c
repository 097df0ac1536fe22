/* SPDX-License-Identifier: Apache-2.0 */
/* From the network that was imported to the one that is written: the passes, and between them each technique that was
 * asked for, in the order of terse_job_transform. */
#include <math.h>
#include <string.h>

#include "compress/cluster/cluster.h"
#include "compress/job.h"
#include "compress/onnx/write.h"
#include "compress/passes/passes.h"
#include "compress/prune/prune.h"
#include "compress/quantize/quantize.h"
#include "compress/quantize/steps.h"
#include "compress/quantize/weights.h"
#include "compress/texts.h"
#include "compress/tune.h"

static const double writing_rate = 1.5e10, writing_seconds = 7, writing_share = 0.35;

static void told(void *context, const char *text)
{
    terse_job_progress(context, text);
}

static void layer_progress(void *context, int layer, int n_layers, const char *name)
{
    char text[160];
    snprintf(text, sizeof text, "factoring layer %d of %d: %s", layer, n_layers, name);
    terse_job_progress(context, text);
}

/* A language model adds to its samples what it says itself, as far as that takes seconds, or the share of writing_share
 * of a time that is given to --recover, in front of it. */
static int write_texts(job *j, terse_error *error)
{
    const terse_options *o = &j->options;
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = NULL;
    terse_low_rank_report ignored = {0};
    const terse_texts_options options = {
        .work = o->recover.seconds > 0 ? fmin(fmax(o->recover.seconds * writing_share, 1), 300) * writing_rate
                                       : writing_seconds * writing_rate,
        .tokens = terse_job_recovers(j) ? 1 << 20 : 1 << 15,
        .memory = TERSE_TEXTS_MEMORY,
        .progress = told,
        .context = j};
    if (!o->calibrate || j->texts || terse_goal_is_set(&o->goal) ||
        !(terse_job_recovers(j) || o->low_rank.target || o->quantize == TERSE_QUANTIZE_INT4_WEIGHTS))
        return TERSE_OK;
    int status = terse_job_samples(j, &data, error);
    if (status == TERSE_OK)
        status = terse_job_transform(j, false, &graph, &ignored, error);
    if (status == TERSE_OK)
        status = terse_texts_write(graph, data, &options, &j->texts, &j->report.texts, error);
    terse_low_rank_report_done(&ignored);
    return status;
}

static int run_prune(job *j, terse_graph *graph, const terse_prune_options *options, terse_prune_report *ret_report,
                     terse_error *error)
{
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    terse_job_progress(j, "pruning");
    int status = j->options.calibrate ? terse_job_fitted(j, &data, error) : TERSE_OK;
    if (status != TERSE_OK)
        return status;
    status = terse_prune_run(graph, data, options, ret_report, error);
    return status != TERSE_OK && j->options.calibrate ? terse_error_prefix(error, "'%s'", j->options.calibrate)
                                                      : status;
}

/* Weights are plain and activations fused here. */
static int prune(job *j, terse_graph *graph, terse_error *error)
{
    const terse_prune_options options = {.amount = j->options.prune,
                                         .kind = j->options.prune_kind,
                                         .choices = j->options.choices,
                                         .progress = told,
                                         .context = j};
    return j->options.prune > 0 ? run_prune(j, graph, &options, &j->report.pruned, error) : TERSE_OK;
}

/* Of a plan: channels bind layers together, so they go before anything is decided for one layer. *ret_before: where
 * another graph takes its place, the one that there was, of which the teacher has constants. */
static int prune_channels(job *j, terse_graph **graph, terse_graph **ret_before, terse_error *error)
{
    const double amount = j->options.channels;
    const terse_prune_options options = {
        .amount = amount, .kind = TERSE_PRUNE_CHANNELS, .orders = j->orders, .progress = told, .context = j};
    int status = TERSE_OK;
    terse_graph *again = NULL;
    if (amount > 0 && terse_prune_again_find(&j->again, amount, j->orders, &again, &j->report.channels)) {
        *ret_before = *graph;
        *graph = again;
    } else if (amount > 0) {
        status = run_prune(j, *graph, &options, &j->report.channels, error);
        if (status == TERSE_OK && j->orders)
            status = terse_prune_again_keep(&j->again, amount, j->orders, *graph, &j->report.channels, error);
    }
    return status == TERSE_OK && j->plan ? terse_search_plan_tell_channels(j->plan, &j->report.channels, error)
                                         : status;
}

/* The node that reads the first constant with a number that is not finite; NULL: all are. */
static const terse_node *find_infinite(const terse_graph *graph)
{
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_inputs; i++) {
            const int v = graph->nodes[n].inputs[i];
            const terse_value *value = v >= 0 ? &graph->values[v] : NULL;
            const float *data = value && value->dtype == TERSE_FP32 ? value->data : NULL;
            for (int64_t k = 0; data && k < terse_dims_count(value->dims, value->rank); k++)
                if (!isfinite(data[k]))
                    return &graph->nodes[n];
        }
    return NULL;
}

/* Samples may make a network overflow, and then nothing can be fitted to what it gives. */
static int check_finite(const job *j, bool before, const terse_graph *graph, terse_error *error)
{
    const terse_node *node = before && j->options.calibrate ? find_infinite(graph) : NULL;
    return node ? terse_fail(error, TERSE_INVALID_ARGUMENT,
                             "--calibrate '%.200s': its numbers are so large that node '%.100s' (%s) would get weights "
                             "that are not finite",
                             j->options.calibrate, node->name, terse_op_name(node->op))
                : TERSE_OK;
}

static int correct(job *j, const terse_graph *teacher, terse_graph *graph, terse_error *error)
{
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    if (!j->options.correct)
        return TERSE_OK;
    int status = terse_job_samples(j, &data, error);
    if (status != TERSE_OK)
        return status;
    status = terse_statistics_run(teacher, graph, data, told, j, &j->report.corrected, error);
    return status != TERSE_OK ? terse_error_prefix(error, "'%s'", j->options.calibrate) : TERSE_OK;
}

static terse_cluster_options cluster_options(job *j)
{
    return (terse_cluster_options){.bits = j->options.cluster,
                                   .choices = j->options.choices,
                                   .entropy = j->options.pack,
                                   .progress = told,
                                   .context = j};
}

/* FP32 weights: with --quantize int8 those that it has left, by themselves. */
static int cluster(job *j, terse_graph *graph, terse_error *error)
{
    if (!j->options.cluster)
        return TERSE_OK;
    const bool rest = j->options.quantize == TERSE_QUANTIZE_INT8;
    const terse_cluster_options options = cluster_options(j);
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    terse_job_progress(j, "clustering");
    int status = j->options.calibrate && !rest ? terse_job_samples(j, &data, error) : TERSE_OK;
    if (status == TERSE_OK)
        status = terse_cluster_run(graph, data, &options, &j->report.clustered, error);
    return status != TERSE_OK && data ? terse_error_prefix(error, "'%s'", j->options.calibrate) : status;
}

/* The same. */
static int quantize(job *j, terse_graph *graph, terse_error *error)
{
    if (j->options.quantize != TERSE_QUANTIZE_INT8)
        return TERSE_OK;
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    const terse_cluster_options clusters = cluster_options(j);
    const terse_quantize_options options = {.source = j->options.calibrate,
                                            .equalization = j->options.equalization,
                                            .cluster = clusters.bits ? &clusters : NULL,
                                            .calibration = j->options.calibration,
                                            .rounding = j->options.rounding,
                                            .keep_float = j->options.keep_float,
                                            .progress = told,
                                            .context = j};
    terse_job_progress(j, "reading samples");
    int status = terse_job_samples(j, &data, error);
    if (status != TERSE_OK)
        return status;
    status = terse_quantize_run(graph, data, &options, &j->report.int8, error);
    j->report.quantized = status == TERSE_OK;
    return status;
}

/* Which products keep 8 bits where the others become 4. */
static int choose_mixed(job *j, const terse_graph *graph, terse_error *error)
{
    const terse_options *o = &j->options;
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    if (o->quantize != TERSE_QUANTIZE_INT4_WEIGHTS)
        return TERSE_OK;
    int status = o->calibrate ? terse_job_samples(j, &data, error) : TERSE_OK;
    if (status != TERSE_OK)
        return status;
    status = terse_mixed_choose(graph, o->quantize_group, o->keep_int8, data, told, j, &j->report.mixed, error);
    return status != TERSE_OK && data && strncmp(error->message, "--", 2) != 0
               ? terse_error_prefix(error, "'%s'", o->calibrate)
               : status;
}

static int quantize_weights(job *j, terse_graph *graph, terse_error *error)
{
    if (j->options.quantize != TERSE_QUANTIZE_INT8_WEIGHTS && j->options.quantize != TERSE_QUANTIZE_INT4_WEIGHTS)
        return TERSE_OK;
    terse_job_progress(j, "rounding weights");
    const int group = j->options.quantize == TERSE_QUANTIZE_INT4_WEIGHTS ? j->options.quantize_group : 0;
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    int status = j->options.calibrate ? terse_job_samples(j, &data, error) : TERSE_OK;
    if (status != TERSE_OK)
        return status;
    status = terse_quantize_weights(graph, group, j->options.rounding, data, &j->report.mixed, &j->report.rounding,
                                    NULL, error);
    return status != TERSE_OK && j->options.calibrate ? terse_error_prefix(error, "'%s'", j->options.calibrate)
                                                      : status;
}

static int factor(job *j, terse_graph *graph, bool compressing, terse_low_rank_report *ret_layers, terse_error *error)
{
    terse_low_rank_options options = j->options.low_rank;
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    if (!compressing)
        options.target = TERSE_LOW_RANK_NONE;
    int status = TERSE_OK;
    if (options.target && j->options.calibrate)
        status = terse_job_fitted(j, &data, error);
    options.choices = j->options.choices;
    options.data = data;
    options.measure = !j->options.no_tune;
    options.bytes = j->options.quantize == TERSE_QUANTIZE_INT8;
    options.progress = layer_progress;
    options.context = j;
    if (status != TERSE_OK)
        return status;
    status = terse_low_rank_run(graph, &options, ret_layers, error);
    return status != TERSE_OK && data ? terse_error_prefix(error, "'%s'", j->options.calibrate) : status;
}

/* Which kernels run what is measured, or as the plan has it. */
static int tune_algorithms(job *j, terse_graph *graph, bool tune, terse_error *error)
{
    int status = tune && !(j->plan && j->plan->is_tuned) ? terse_tune_algorithms(graph, error) : TERSE_OK;
    if (status == TERSE_OK && j->plan)
        status = terse_tuning_algorithms(j->plan, graph, error);
    return status;
}

static int choose_sparse(job *j, terse_graph *graph, bool tune, terse_error *error)
{
    return j->plan ? terse_tuning_sparse(j->plan, graph, &j->report.pruned, tune, error)
                   : terse_prune_choose(graph, tune, &j->report.pruned, error);
}

static int tune_tiles(job *j, terse_graph *graph, bool tune, terse_error *error)
{
    int status = tune && !(j->plan && j->plan->is_tuned) ? terse_tune_tiles(graph, error) : TERSE_OK;
    if (status == TERSE_OK && j->plan)
        status = terse_tuning_tiles(j->plan, graph, error);
    if (status == TERSE_OK && j->plan)
        j->plan->is_tuned = true;
    return status;
}

int terse_job_transform(job *j, bool compressing, terse_graph **ret_graph, terse_low_rank_report *ret_layers,
                        terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *before = NULL;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = NULL;
    TERSE_AUTO(terse_graph_freep) terse_graph *teacher = NULL;
    int status = compressing ? write_texts(j, error) : TERSE_OK;
    if (status == TERSE_OK)
        status = terse_edit_clone(j->imported, &graph, error);
    if (status == TERSE_OK && !j->options.plain) {
        terse_job_progress(j, "transforming");
        status = terse_passes_run(graph, TERSE_PASSES_PREPARE, error);
        if (status == TERSE_OK && compressing && j->plan)
            status = terse_search_plan_check(j->plan, graph, error);
        if (status == TERSE_OK && compressing && (terse_job_recovers(j) || j->options.correct))
            status = terse_edit_clone(graph, &teacher, error);
        const bool finite = status == TERSE_OK && compressing && !find_infinite(graph);
        if (status == TERSE_OK && compressing)
            status = prune_channels(j, &graph, &before, error);
        if (status == TERSE_OK)
            status = factor(j, graph, compressing, ret_layers, error);
        if (status == TERSE_OK && compressing)
            status = prune(j, graph, error);
        if (status == TERSE_OK && compressing)
            status = check_finite(j, finite, graph, error);
        if (status == TERSE_OK && compressing)
            status = correct(j, teacher, graph, error);
        if (status == TERSE_OK && compressing)
            status = terse_job_recover(j, teacher, graph, false, error);
        if (status == TERSE_OK && compressing)
            status = quantize(j, graph, error);
        if (status == TERSE_OK && compressing)
            status = choose_mixed(j, graph, error);
        if (status == TERSE_OK && compressing)
            status = terse_job_recover_rounded(j, teacher, graph, error);
        if (status == TERSE_OK && compressing)
            status = cluster(j, graph, error);
        if (status == TERSE_OK && compressing && j->options.onnx)
            status = terse_onnx_write_bytes(graph, &j->onnx, &j->onnx_bytes, error);
        const bool tune = compressing && !j->options.no_tune;
        const bool small = compressing && (j->options.quantize == TERSE_QUANTIZE_INT8_WEIGHTS ||
                                           j->options.quantize == TERSE_QUANTIZE_INT4_WEIGHTS);
        if (tune)
            terse_job_progress(j, "choosing algorithms");
        if (status == TERSE_OK && small)
            status = terse_tune_direct(graph, error);
        else if (status == TERSE_OK && compressing && !j->options.bf16)
            status = tune_algorithms(j, graph, tune, error);
        const bool half = compressing && j->options.bf16, sparse = compressing && j->options.prune > 0;
        j->report.pruned.beside = small  ? TERSE_PRUNE_BESIDE_WEIGHTS
                                  : half ? TERSE_PRUNE_BESIDE_BF16
                                         : TERSE_PRUNE_BESIDE_FP32;
        if (status == TERSE_OK && half)
            status = terse_pass_bf16_mark(graph, error);
        if (status == TERSE_OK && sparse)
            status = choose_sparse(j, graph, tune, error);
        if (status == TERSE_OK && sparse && half)
            status = terse_prune_unmark(graph, &j->report.pruned, error);
        if (status == TERSE_OK)
            status = terse_passes_run(graph, TERSE_PASSES_FINISH, error);
        if (status == TERSE_OK && sparse)
            status = terse_prune_pack(graph, &j->report.pruned, error);
        if (tune)
            terse_job_progress(j, "choosing tiles");
        if (status == TERSE_OK && compressing)
            status = tune_tiles(j, graph, tune, error);
        if (status == TERSE_OK && compressing)
            status = quantize_weights(j, graph, error);
    }
    if (status == TERSE_OK)
        *ret_graph = TERSE_TAKE(graph);
    return status;
}
