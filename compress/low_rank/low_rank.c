/* SPDX-License-Identifier: Apache-2.0 */
/* With samples a network is walked twice, node by node, all samples side by side: once as it is, to learn what each
 * layer could lose (find_choices), and once beside itself as compressed so far, to fit each chain, and each layer that
 * stays dense behind one, to what it will read (fit_layers). Then the nodes are written. */
#include "compress/low_rank/low_rank.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/steps.h"
#include "compress/quantize/steps.h"

enum { SAMPLES = 256, TRIAL_SAMPLES = 32, PROBES = 3 };
#define ROOM ((size_t)1 << 30) /* bytes that the samples' numbers may take */
#define AUTO_COST 0.02         /* nats a row, or share of the outputs' power */

/* A layer on its way. */
typedef struct layer {
    int node; /* -1: cannot be factored */
    int report;
    terse_low_rank_choice choice;
    terse_chain chain; /* rank 0: dense */
    double *refit;     /* dense, but fitted to what it reads now */
    double *bias;      /* with it */
} layer;

typedef struct job {
    terse_graph *graph;
    const terse_low_rank_options *options;
    terse_low_rank_report report;
    layer *layers;
    int n; /* in `layers`: those of the report that can be factored */
    terse_samples samples;
    bool with_samples;
} job;

void terse_low_rank_report_done(terse_low_rank_report *report)
{
    free(report->layers);
    *report = (terse_low_rank_report){0};
}

static void job_done(job *j)
{
    for (int i = 0; i < j->n; i++) {
        terse_chain_done(&j->layers[i].chain);
        free(j->layers[i].refit);
        free(j->layers[i].bias);
    }
    free(j->layers);
    terse_low_rank_report_done(&j->report);
    if (j->with_samples)
        terse_samples_done(&j->samples);
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the layers");
}

static int select_again(const job *j, int node, terse_low_rank_product *product, terse_error *error)
{
    char reason[96];
    const terse_edit edit = {.graph = j->graph};
    return terse_select_product(&edit, node, product, reason, sizeof reason)
               ? TERSE_OK
               : terse_fail(error, TERSE_INTERNAL, "node '%s': %s", j->graph->nodes[node].name, reason);
}

/* --- the list of layers
 * ------------------------------------------------------------------------------------------------ */

static int64_t dense_macs(const terse_graph *graph, const terse_node *n)
{
    const terse_value *w = &graph->values[n->inputs[1]], *y = &graph->values[n->outputs[0]];
    if (n->op == TERSE_OP_CONV_TRANSPOSE && n->inputs[0] >= 0)
        y = &graph->values[n->inputs[0]];
    const int channel = n->op == TERSE_OP_CONV || n->op == TERSE_OP_CONV_TRANSPOSE ? 1 : y->rank - 1;
    int64_t macs = (int64_t)(w->bytes / sizeof(float));
    for (int i = 0; i < y->rank; i++)
        if (i != channel && y->dims[i] > 0 && __builtin_mul_overflow(macs, y->dims[i], &macs))
            return INT64_MAX;
    return macs;
}

static int list_layers(job *j, const terse_edit *edit, terse_error *error)
{
    const terse_graph *graph = j->graph;
    int n = 0;
    for (int node = 0; node < graph->n_nodes; node++)
        n += terse_edit_is_weighted(edit, node);
    j->report.layers = calloc((size_t)n + 1, sizeof *j->report.layers);
    j->layers = calloc((size_t)n + 1, sizeof *j->layers);
    if (!j->report.layers || !j->layers)
        return out_of_memory(error);
    for (int node = 0; node < graph->n_nodes; node++) {
        if (!terse_edit_is_weighted(edit, node))
            continue;
        const terse_node *from = &graph->nodes[node];
        const terse_value *w = &graph->values[from->inputs[1]], *y = &graph->values[from->outputs[0]];
        terse_low_rank_layer *to = &j->report.layers[j->report.n++];
        to->op = from->op;
        to->energy = 1;
        snprintf(to->name, sizeof to->name, "%s", from->name[0] ? from->name : y->name);
        terse_dims_text(w->dims, w->rank, to->shape, sizeof to->shape);
        to->macs_before = to->macs_after = dense_macs(graph, from);
        terse_low_rank_product product;
        if (!terse_select_product(edit, node, &product, to->reason, sizeof to->reason))
            continue;
        to->full = product.o < product.k ? product.o : product.k;
        if (j->options->target == TERSE_LOW_RANK_NONE)
            snprintf(to->reason, sizeof to->reason, "not asked for");
        else if (terse_select_macs(&product, TERSE_FORM_SVD, 1, 0, false) >= to->macs_before || to->full < 2)
            snprintf(to->reason, sizeof to->reason, "too small to save work");
        else
            j->layers[j->n++] = (layer){.node = node, .report = j->report.n - 1};
        terse_select_done(&product);
    }
    return TERSE_OK;
}

static void tell(const job *j, int l)
{
    if (j->options->progress)
        j->options->progress(j->options->context, l + 1, j->n, j->report.layers[j->layers[l].report].name);
}

/* The weights of a chain as the node would have them, to try it. */
static int pretend(const terse_low_rank_product *product, const double *m, terse_arena *arena, float **ret_weights,
                   terse_error *error)
{
    float *w = terse_arena_alloc(arena, (size_t)(product->o * product->k) * sizeof *w);
    if (!w)
        return out_of_memory(error);
    for (int64_t o = 0; o < product->o; o++)
        for (int64_t k = 0; k < product->k; k++)
            w[product->conv ? o * product->k + k : k * product->o + o] = (float)m[o * product->k + k];
    *ret_weights = w;
    return TERSE_OK;
}

static int pretend_chain(const terse_low_rank_product *product, const terse_chain *chain, terse_arena *arena,
                         float **ret_weights, terse_error *error)
{
    TERSE_AUTO(terse_freep) double *m = malloc((size_t)(product->o * product->k) * sizeof *m);
    int status = m ? terse_chain_dense(product, chain, m, error) : out_of_memory(error);
    if (status == TERSE_OK)
        status = pretend(product, m, arena, ret_weights, error);
    return status;
}

/* --- first walk: what could be lost
 * --------------------------------------------------------------------------------------- */

static bool finds_ranks_together(terse_low_rank_target target)
{
    return target == TERSE_LOW_RANK_SHARE || target == TERSE_LOW_RANK_SPEED || target == TERSE_LOW_RANK_AUTO;
}

static bool weighs_layers(const job *j)
{
    return j->with_samples && finds_ranks_together(j->options->target);
}

static bool is_timed(const job *j)
{
    return j->options->measure && (j->options->target == TERSE_LOW_RANK_SPEED ||
                                   (j->options->target == TERSE_LOW_RANK_AUTO && j->with_samples));
}

/* The candidates by which a layer's weight for the network is measured: they lose little, something, and much. */
static void find_probes(const terse_low_rank_choice *choice, int *ret_probes)
{
    static const double lost[PROBES] = {0.02, 0.1, 0.4};
    for (int p = 0; p < PROBES; p++) {
        ret_probes[p] = 0;
        for (int i = 1; i < choice->n; i++)
            if (ret_probes[p] == 0 ||
                fabs(choice->list[i].lost - lost[p]) < fabs(choice->list[ret_probes[p]].lost - lost[p]))
                ret_probes[p] = i;
    }
}

static int look_at_layer(job *j, const terse_walk *s, int index, float **const *probes, terse_arena *arena,
                         terse_error *error)
{
    layer *l = &j->layers[index];
    terse_low_rank_product product = {0};
    terse_moments moments = {0};
    terse_metric metric = {0};
    tell(j, index);
    int status = select_again(j, l->node, &product, error);
    if (status == TERSE_OK && j->options->target == TERSE_LOW_RANK_RANKS)
        terse_choose_named(j->options, &product, &l->choice, &j->report.layers[l->report]);
    else if (status == TERSE_OK) {
        status = terse_walk_measure(s, &product, false, &moments, &metric, error);
        if (status == TERSE_OK)
            status = terse_choose_look(j->options, &product, &metric, &l->choice, &j->report.layers[l->report], error);
        if (status == TERSE_OK && is_timed(j))
            status = terse_times_choice(j->graph, &product, j->options->bytes, &l->choice, &j->report.layers[l->report],
                                        error);
        int chosen[PROBES] = {0};
        if (status == TERSE_OK && probes)
            find_probes(&l->choice, chosen);
        for (int p = 0; p < PROBES && status == TERSE_OK; p++) {
            const terse_low_rank_candidate *probe = &l->choice.list[chosen[p]];
            terse_chain chain;
            if (chosen[p] == 0)
                continue;
            status = terse_chain_make(&product, &metric, probe->form, probe->rank, probe->rank_in, &chain, error);
            if (status == TERSE_OK) {
                status = pretend_chain(&product, &chain, arena, &probes[p][l->node], error);
                terse_chain_done(&chain);
            }
        }
    }
    terse_metric_done(&metric);
    terse_moments_done(&moments);
    terse_select_done(&product);
    return status;
}

/* What the network's outputs lose, layer by layer, with these weights in one place at a time. */
static int try_probes(job *j, const terse_replay *replay, float **probes, terse_loss *losses, terse_error *error)
{
    const terse_graph *graph = j->graph;
    TERSE_AUTO(terse_freep) terse_scheme_kind *kinds = calloc((size_t)graph->n_nodes + 1, sizeof *kinds);
    TERSE_AUTO(terse_freep) bool *none = calloc((size_t)graph->n_values + 1, sizeof *none);
    if (!kinds || !none)
        return out_of_memory(error);
    for (int i = 0; i < j->n; i++)
        if (probes[j->layers[i].node])
            kinds[j->layers[i].node] = TERSE_SCHEME_PRODUCT;
    const terse_scheme scheme = {
        .graph = graph, .kinds = kinds, .demanded = none, .given = none, .source = none, .group = NULL};
    const terse_disguise disguise = {.scheme = &scheme, .weights = probes};
    return terse_sensitivity_measure(replay, graph, &disguise, losses, NULL, NULL, error);
}

/* The costs of all candidates, from those of the probes. */
static int weigh_layers(job *j, float **const *probes, terse_error *error)
{
    const size_t n_nodes = (size_t)j->graph->n_nodes + 1;
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    TERSE_AUTO(terse_freep) terse_loss *losses = calloc(PROBES * n_nodes, sizeof *losses);
    int status = losses ? terse_replay_new(j->graph, &j->samples, TRIAL_SAMPLES, TERSE_WALK_CHUNK, &replay, error)
                        : out_of_memory(error);
    for (size_t p = 0; p < PROBES && status == TERSE_OK; p++)
        status = try_probes(j, replay, probes[p], losses + p * n_nodes, error);
    for (int i = 0; i < j->n && status == TERSE_OK; i++) {
        terse_low_rank_choice *choice = &j->layers[i].choice;
        int chosen[PROBES];
        double costs[PROBES];
        find_probes(choice, chosen);
        for (size_t p = 0; p < PROBES; p++) {
            const terse_loss *loss = &losses[p * n_nodes + (size_t)j->layers[i].node];
            costs[p] = loss->rows > 0 ? terse_loss_kl(loss) : terse_loss_share(loss);
        }
        terse_ranks_weigh(choice, chosen, costs, choice->n > 1 ? PROBES : 0);
    }
    return status;
}

static int find_choices(job *j, int64_t samples, terse_error *error)
{
    terse_walk s = {0};
    const size_t n_nodes = (size_t)j->graph->n_nodes + 1;
    TERSE_AUTO(terse_freep) float **room = calloc(PROBES * n_nodes, sizeof *room);
    terse_arena *arena = terse_arena_new();
    int status = room && arena ? TERSE_OK : out_of_memory(error);
    float **const probes[PROBES] = {room, room + n_nodes, room + 2 * n_nodes};
    const bool walks = j->with_samples && j->options->target != TERSE_LOW_RANK_RANKS;
    if (status == TERSE_OK && walks)
        status = terse_walk_open(&j->samples, samples, NULL, &s, error);
    for (int node = 0, next = 0; node < j->graph->n_nodes && status == TERSE_OK; node++) {
        if (next < j->n && j->layers[next].node == node)
            status = look_at_layer(j, walks ? &s : NULL, next++, weighs_layers(j) ? probes : NULL, arena, error);
        if (status == TERSE_OK && walks)
            status = terse_walk_step(&s, node, error);
    }
    terse_walk_done(&s);
    if (status == TERSE_OK && weighs_layers(j))
        status = weigh_layers(j, probes, error);
    terse_arena_free(arena);
    return status;
}

/* Ranks of all layers together, where the target is one of the network. */
static int choose_together(job *j, terse_error *error)
{
    TERSE_AUTO(terse_freep) terse_low_rank_choice *choices = malloc(((size_t)j->n + 1) * sizeof *choices);
    if (!choices)
        return out_of_memory(error);
    double work = 0, others = 0; /* of layers that can be factored, in the unit of their candidates; of the rest */
    for (int i = 0; i < j->report.n; i++)
        others += (double)j->report.layers[i].macs_before;
    for (int i = 0; i < j->n; i++) {
        choices[i] = j->layers[i].choice;
        work += choices[i].list[0].work;
        others -= (double)choices[i].list[0].macs;
    }
    if (j->options->target == TERSE_LOW_RANK_SHARE)
        terse_ranks_choose(choices, j->n, j->options->amount * (work + others) - others);
    else if (j->options->target == TERSE_LOW_RANK_SPEED)
        terse_ranks_choose(choices, j->n, work / j->options->amount);
    else
        terse_ranks_choose_cost(choices, j->n, AUTO_COST);
    for (int i = 0; i < j->n; i++)
        j->layers[i].choice.chosen = choices[i].chosen;
    return TERSE_OK;
}

/* --- second walk: fitting
 * ---------------------------------------------------------------------------------------------------- */

static int fit_layer(job *j, const terse_walk *s, int index, float **weights, float **biases, terse_arena *arena,
                     terse_error *error)
{
    layer *l = &j->layers[index];
    const terse_low_rank_candidate *c = &l->choice.list[l->choice.chosen];
    terse_low_rank_product product = {0};
    terse_moments moments = {0};
    terse_metric metric = {0};
    tell(j, index);
    int status = select_again(j, l->node, &product, error);
    if (status == TERSE_OK)
        status = terse_walk_measure(s, &product, s && terse_select_has_residual(j->graph, l->node), &moments, &metric,
                                    error);
    const double *m = NULL;
    TERSE_AUTO(terse_freep) double *dense = malloc((size_t)(product.o * product.k) * sizeof *dense + 1);
    if (status == TERSE_OK && !dense)
        status = out_of_memory(error);
    if (status == TERSE_OK && l->choice.chosen > 0) {
        status = terse_chain_make(&product, &metric, c->form, c->rank, c->rank_in, &l->chain, error);
        if (status == TERSE_OK)
            status = terse_chain_dense(&product, &l->chain, dense, error);
        m = dense;
    } else if (status == TERSE_OK && metric.cov) {
        m = l->refit = TERSE_TAKE(metric.target);
    }
    if (status == TERSE_OK && metric.cov && (l->bias = terse_select_bias(j->graph, &product)))
        terse_metric_bias(&product, &moments, m, l->bias);
    if (status == TERSE_OK && m && s)
        status = pretend(&product, m, arena, &weights[l->node], error);
    if (status == TERSE_OK && l->bias && s) {
        biases[l->node] = terse_arena_alloc(arena, (size_t)product.o * sizeof(float));
        for (int64_t i = 0; biases[l->node] && i < product.o; i++)
            biases[l->node][i] = (float)l->bias[i];
        if (!biases[l->node])
            status = out_of_memory(error);
    }
    terse_metric_done(&metric);
    terse_moments_done(&moments);
    terse_select_done(&product);
    return status;
}

static int fit_layers(job *j, int64_t samples, terse_error *error)
{
    terse_walk s = {0};
    TERSE_AUTO(terse_freep) float **weights = calloc((size_t)j->graph->n_nodes + 1, sizeof *weights);
    TERSE_AUTO(terse_freep) float **biases = calloc((size_t)j->graph->n_nodes + 1, sizeof *biases);
    terse_arena *arena = terse_arena_new();
    int status = weights && biases && arena ? TERSE_OK : out_of_memory(error);
    const terse_disguise disguise = {.weights = weights, .bias = biases};
    if (status == TERSE_OK && j->with_samples)
        status = terse_walk_open(&j->samples, samples, &disguise, &s, error);
    bool changed = false; /* what comes behind a layer that is no longer exact is fitted too */
    for (int node = 0, next = 0; node < j->graph->n_nodes && status == TERSE_OK; node++) {
        if (next < j->n && j->layers[next].node == node) {
            changed = changed || j->layers[next].choice.chosen > 0;
            if (j->layers[next].choice.chosen > 0 || (changed && j->with_samples))
                status = fit_layer(j, j->with_samples ? &s : NULL, next, weights, biases, arena, error);
            next++;
        }
        if (status == TERSE_OK && j->with_samples)
            status = terse_walk_step(&s, node, error);
    }
    terse_walk_done(&s);
    terse_arena_free(arena);
    return status;
}

/* --- the nodes
 * --------------------------------------------------------------------------------------------------------------- */

static int write_layers(job *j, terse_error *error)
{
    terse_edit edit;
    int status = terse_edit_open(j->graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int i = 0; i < j->n && status == TERSE_OK; i++) {
        layer *l = &j->layers[i];
        terse_low_rank_layer *report = &j->report.layers[l->report];
        terse_low_rank_product product = {0};
        status = select_again(j, l->node, &product, error);
        if (status != TERSE_OK)
            break;
        if (l->bias)
            terse_factor_bias(&edit, &product, l->bias);
        if (l->refit)
            terse_factor_refit(&edit, &product, l->refit);
        if (l->chain.rank > 0) {
            report->form = l->chain.form;
            report->rank = l->chain.rank;
            report->rank_in = l->chain.rank_in;
            report->energy = l->chain.kept;
            report->macs_after = terse_select_macs(&product, l->chain.form, l->chain.rank, l->chain.rank_in, false);
            snprintf(report->reason, sizeof report->reason, "factored");
            terse_factor_node(&edit, &product, &l->chain);
        } else if (!report->reason[0]) {
            snprintf(report->reason, sizeof report->reason, "every rank loses more than its work is worth");
        }
        terse_select_done(&product);
    }
    const int closed = terse_edit_close(&edit, status == TERSE_OK ? error : NULL);
    return status == TERSE_OK ? closed : status;
}

/* A layer that is named and not there is a mistake. */
static int check_names(const job *j, terse_error *error)
{
    const terse_low_rank_options *o = j->options;
    if (o->target != TERSE_LOW_RANK_RANKS || o->amount > 0 || o->choices)
        return TERSE_OK;
    for (const char *at = o->ranks; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        bool found = false;
        for (int i = 0; i < j->report.n; i++) {
            const size_t length = strlen(j->report.layers[i].name);
            found = found || (strncmp(at, j->report.layers[i].name, length) == 0 && at[length] == '=');
        }
        if (!found)
            return terse_fail(
                error, TERSE_INVALID_ARGUMENT,
                "--low-rank names '%.*s', which is no layer with constant weights, allowed is for example '%s'",
                (int)strcspn(at, "="), at, j->report.n ? j->report.layers[0].name : "");
    }
    return TERSE_OK;
}

static int run(job *j, terse_error *error)
{
    const terse_low_rank_options *o = j->options;
    int64_t samples = 0;
    int status = TERSE_OK;
    if (o->data && o->target != TERSE_LOW_RANK_NONE) {
        status = terse_bias_prepare(j->graph, error);
        if (status == TERSE_OK) {
            status = terse_samples_open(j->graph, o->data, &j->samples, error);
            j->with_samples = true;
        }
        size_t bytes = 1;
        if (status == TERSE_OK)
            status = terse_walk_bytes(&j->samples, &bytes, error);
        samples = (int64_t)fmin(SAMPLES, fmax(TERSE_WALK_CHUNK, (double)(ROOM / 2 / bytes)));
        j->report.samples = samples < j->samples.samples ? samples : j->samples.samples;
    }
    terse_edit edit;
    if (status == TERSE_OK)
        status = terse_edit_open(j->graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    status = list_layers(j, &edit, error);
    const int closed = terse_edit_close(&edit, status == TERSE_OK ? error : NULL);
    status = status == TERSE_OK ? closed : status;
    if (status == TERSE_OK)
        status = check_names(j, error);
    if (status != TERSE_OK || o->target == TERSE_LOW_RANK_NONE)
        return status;
    status = find_choices(j, samples, error);
    if (status == TERSE_OK && finds_ranks_together(o->target) && (j->with_samples || o->target != TERSE_LOW_RANK_AUTO))
        status = choose_together(j, error);
    if (status == TERSE_OK)
        status = fit_layers(j, samples, error);
    return status == TERSE_OK ? write_layers(j, error) : status;
}

int terse_low_rank_run(terse_graph *graph, const terse_low_rank_options *options, terse_low_rank_report *ret_report,
                       terse_error *error)
{
    job j = {.graph = graph, .options = options};
    const int status = run(&j, error);
    if (status == TERSE_OK) {
        *ret_report = j.report;
        j.report = (terse_low_rank_report){0};
    }
    job_done(&j);
    return status;
}
