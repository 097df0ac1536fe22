/* SPDX-License-Identifier: Apache-2.0 */
/* Lends a search what it needs of a run of `terse compress`: networks that a plan makes, and files. */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compress/job.h"
#include "compress/passes/passes.h"
#include "compress/prune/channels.h"
#include "compress/quantize/steps.h"
#include "compress/search/judge.h"
#include "compress/search/search.h"
#include "compress/tell.h"

/* What the report says of the search itself, at most, once it is over. */
enum { SEARCH_BYTES = 320 };
enum { HELD = 8, EVERY = 2, EVERY_TRAINED = 3, SPARSE_SAMPLES = 24, FEW = 32, MOST_SAMPLES = 1024 };
#define DEFAULT_SECONDS 600.0

/* A network and what is told of it. */
typedef struct made {
    terse_graph *graph;
    terse_low_rank_report layers;
    terse_prune_report channels, pruned;
    terse_cluster_report clustered;
    terse_quantize_report int8;
    terse_rounding_report rounding;
    terse_recovered recovered;
    bool quantized;
    int users;
} made;

typedef struct drive {
    job *job;
    terse_options options;  /* as they were given */
    terse_search_plan plan; /* that is built now */
    made *now, *best;
    made *held[HELD];
    int n_held;
    const terse_graph *prepared;
    terse_channels_orders orders[2]; /* of all samples that are fitted to; of those that training leaves */
    char plan_path[4096];
} drive;

static void let_go(made *m)
{
    if (!m || --m->users > 0)
        return;
    terse_graph_free(m->graph);
    terse_low_rank_report_done(&m->layers);
    terse_prune_report_done(&m->channels);
    terse_prune_report_done(&m->pruned);
    terse_cluster_report_done(&m->clustered);
    terse_quantize_report_done(&m->int8);
    free(m);
}

/* The job has that network for a while; nothing of it is the job's own. */
static void lend(job *j, const made *m)
{
    j->compressed = m ? m->graph : NULL;
    j->report.layers = m ? m->layers : (terse_low_rank_report){0};
    j->report.channels = m ? m->channels : (terse_prune_report){0};
    j->report.pruned = m ? m->pruned : (terse_prune_report){0};
    j->report.clustered = m ? m->clustered : (terse_cluster_report){0};
    j->report.int8 = m ? m->int8 : (terse_quantize_report){0};
    j->report.rounding = m ? m->rounding : (terse_rounding_report){0};
    j->report.recovered = m ? m->recovered : (terse_recovered){0};
    j->report.quantized = m && m->quantized;
    j->report.low_rank = m && j->options.low_rank.target != TERSE_LOW_RANK_NONE;
    j->report.n_nodes_after = m ? m->graph->n_nodes : 0;
}

/* --- hooks
 * ------------------------------------------------------------------------------------------------------------ */

/* In words, for the plan. */
static void say_recovered(const terse_recovered *r, char *text)
{
    const terse_train_summary *first = r->floats ? &r->of_floats : &r->of_rounded,
                              *last = r->rounded ? &r->of_rounded : &r->of_floats;
    snprintf(text, TERSE_PLAN_TEXT,
             "%" PRId64 " epochs on %" PRId64 " samples: agreement on %" PRId64 " others %.1f %%, before %.1f %%",
             (r->floats ? r->of_floats.epochs : 0) + (r->rounded ? r->of_rounded.epochs : 0), first->samples,
             first->held_out, 100 * last->agreement, 100 * first->agreement_before);
}

static int build(void *context, terse_search_plan *plan, const terse_graph **ret_graph, terse_error *error)
{
    drive *d = context;
    job *j = d->job;
    let_go(d->now);
    d->now = NULL;
    j->options = d->options;
    int status = terse_search_plan_apply(plan, &j->options, error);
    j->plan = plan;
    made *m = calloc(1, sizeof *m);
    if (!m)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a network");
    m->users = 1;
    lend(j, NULL);
    terse_recover_zeros_done(&j->zeros);
    /* which samples training leaves depends on the seed, and a plan of before may have another one */
    j->orders = plan->recover_epochs == 0 ? &d->orders[0] : plan->seed == d->options.goal.seed ? &d->orders[1] : NULL;
    if (status == TERSE_OK)
        status = terse_job_transform(j, true, &m->graph, &m->layers, error);
    m->channels = j->report.channels;
    m->pruned = j->report.pruned;
    m->clustered = j->report.clustered;
    m->int8 = j->report.int8;
    m->rounding = j->report.rounding;
    m->recovered = j->report.recovered;
    m->quantized = j->report.quantized;
    lend(j, NULL);
    if (status != TERSE_OK) {
        let_go(m);
        return status;
    }
    if (m->recovered.floats || m->recovered.rounded)
        say_recovered(&m->recovered, plan->recovered);
    d->now = m;
    *ret_graph = m->graph;
    return TERSE_OK;
}

static bool foresee(void *context, double amount, double *ret_gone)
{
    drive *d = context;
    terse_channels_orders *orders = d->orders[0].n > 0 ? &d->orders[0] : &d->orders[1];
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = NULL;
    const terse_prune_options options = {.amount = amount, .kind = TERSE_PRUNE_CHANNELS, .orders = orders};
    terse_channels_choice choice = {0};
    const bool known = orders->n > 0 && terse_edit_clone(d->prepared, &graph, NULL) == TERSE_OK &&
                       terse_channels_choose(graph, NULL, 0, &options, &choice, NULL) == TERSE_OK &&
                       choice.macs_before > 0;
    if (known)
        *ret_gone = 1 - choice.macs_after / choice.macs_before;
    terse_channels_done(&choice);
    return known;
}

static int size(void *context, int64_t *ret_bytes, int64_t *ret_memory, terse_error *error)
{
    drive *d = context;
    lend(d->job, d->now);
    d->job->report.search = d->job->plan;
    int status = terse_job_pack(d->job, error);
    if (status == TERSE_OK)
        status = terse_job_measure(d->job, error);
    d->job->report.search = NULL;
    *ret_bytes = (int64_t)d->job->report.bytes_after + SEARCH_BYTES;
    *ret_memory = 0;
    for (int v = 0; v < d->now->graph->n_values; v++)
        *ret_memory += d->now->graph->values[v].data ? (int64_t)d->now->graph->values[v].bytes : 0;
    lend(d->job, NULL);
    return status;
}

static int hold(void *context, const terse_graph **ret_graph, const terse_quantize_report **ret_int8,
                terse_error *error)
{
    drive *d = context;
    if (d->n_held == HELD)
        return terse_fail(error, TERSE_INTERNAL, "more than %d dense networks", HELD);
    d->now->users++;
    d->held[d->n_held++] = d->now;
    *ret_graph = d->now->graph;
    *ret_int8 = d->now->quantized ? &d->now->int8 : NULL;
    return TERSE_OK;
}

static int keep(void *context, terse_error *error)
{
    drive *d = context;
    (void)error;
    d->now->users++;
    let_go(d->best);
    d->best = d->now;
    return TERSE_OK;
}

static int write_best(void *context, const terse_search_plan *plan, bool reached, terse_error *error)
{
    drive *d = context;
    job *j = d->job;
    terse_search_plan copy;
    int status = terse_search_plan_write(plan, d->plan_path, error);
    if (status != TERSE_OK || !reached)
        return status;
    status = terse_search_plan_copy(plan, &copy, error);
    if (status != TERSE_OK)
        return status;
    j->options = d->options;
    status = terse_search_plan_apply(&copy, &j->options, error);
    lend(j, d->best);
    j->report.search = &copy;
    if (status == TERSE_OK)
        status = terse_job_pack(j, error);
    if (status == TERSE_OK)
        status = terse_job_write(j, error);
    j->report.search = NULL;
    lend(j, NULL);
    terse_search_plan_done(&copy);
    return status;
}

static void tell(void *context, const char *text)
{
    const drive *d = context;
    terse_job_progress(d->job, text);
}

/* --- Ctrl-C
 * ------------------------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t interrupted;

/* Files appear when they are whole, so ending at once does no harm either. */
static void interrupt(int signal_number)
{
    static const char text[] = "\nending with the best so far; once more ends at once\n";
    if (interrupted)
        _exit(128 + signal_number);
    interrupted = 1;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        interrupted = 1;
}

static bool stopped(void *context)
{
    (void)context;
    return interrupted || terse_tell_was_interrupted();
}

static void catch_signals(bool catch_them)
{
    struct sigaction action = {.sa_flags = SA_RESTART};
    action.sa_handler = catch_them ? interrupt : SIG_DFL;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* --- the whole
 * --------------------------------------------------------------------------------------------------------- */

int terse_drive_open(job *j, terse_error *error)
{
    if (!j->options.goal.plan || terse_goal_is_set(&j->options.goal))
        return TERSE_OK;
    int status = terse_search_plan_read(j->options.goal.plan, &j->found, error);
    if (status == TERSE_OK)
        status = terse_search_plan_apply(&j->found, &j->options, error);
    if (status == TERSE_OK && !j->options.calibrate && j->options.quantize == TERSE_QUANTIZE_INT8)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "'%.200s' quantizes to int8: --calibrate DATA.npz is needed",
                            j->options.goal.plan);
    const terse_options *o = &j->options;
    const bool fits = o->low_rank.target || o->prune > 0 || o->channels > 0 || o->cluster || o->recover.text ||
                      o->quantize == TERSE_QUANTIZE_INT4_WEIGHTS;
    if (status == TERSE_OK && !o->calibrate && j->found.held_out > 0 && fits)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT,
                            "'%.200s' was fitted to samples: --calibrate DATA.npz is needed (or \"held_out\": 0 in the "
                            "plan, to go by the weights alone)",
                            o->goal.plan);
    j->plan = &j->found;
    j->report.search = &j->found;
    if (status == TERSE_OK && j->options.calibrate && j->found.held_out > 0)
        status = terse_drive_split(j, error);
    return status;
}

/* Few samples are halved: as many to judge by as to fit to. */
static int every_of(const job *j, const terse_npz *all, int every)
{
    terse_samples f = {0};
    terse_error ignored;
    if (terse_samples_open(j->imported, all, &f, &ignored) != TERSE_OK || f.samples < SPARSE_SAMPLES)
        every = EVERY;
    terse_samples_done(&f);
    return every;
}

static int split(job *j, int *every, terse_npz **ret_held, terse_error *error)
{
    TERSE_AUTO(terse_npz_freep) terse_npz *all = NULL;
    int status = terse_npz_read(j->options.calibrate, &all, error);
    if (status != TERSE_OK)
        return status;
    if (*every == EVERY_TRAINED && !j->plan)
        *every = every_of(j, all, *every);
    status = terse_judge_split(j->imported, all, *every, MOST_SAMPLES, &j->fit, ret_held, error);
    return status == TERSE_OK ? TERSE_OK : terse_error_prefix(error, "--calibrate '%.200s'", j->options.calibrate);
}

int terse_drive_split(job *j, terse_error *error)
{
    terse_npz *held = NULL;
    int every = j->found.held_out;
    const int status = split(j, &every, &held, error);
    terse_npz_free(held);
    return status;
}

/* Where the plan goes: beside the output, or where --plan says. */
static void place_plan(drive *d)
{
    const char *output = d->options.output, *named = d->options.goal.plan;
    const size_t length = strlen(output), end = length > 6 && strcmp(output + length - 6, ".terse") == 0 ? 6 : 0;
    if (named)
        snprintf(d->plan_path, sizeof d->plan_path, "%.4000s", named);
    else
        snprintf(d->plan_path, sizeof d->plan_path, "%.*s.plan.json", (int)(length - end < 4000 ? length - end : 4000),
                 output);
}

/* An earlier search's, where --plan names a file that is there. */
static int read_known(const drive *d, terse_search_plan *known, bool *ret_any, terse_error *error)
{
    *ret_any = d->options.goal.plan && access(d->options.goal.plan, F_OK) == 0;
    const int status = *ret_any ? terse_search_plan_read(d->options.goal.plan, known, error) : TERSE_OK;
    if (status != TERSE_OK || !*ret_any || strcmp(known->of, d->plan.of) == 0)
        return status;
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "'%.200s' has measured another network, batch or number of threads (%.100s, this is %.100s)",
                      d->options.goal.plan, known->of, d->plan.of);
}

static int prepare(job *j, terse_graph **ret_graph, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = NULL;
    int status = terse_edit_clone(j->imported, &graph, error);
    if (status == TERSE_OK)
        status = terse_passes_run(graph, TERSE_PASSES_PREPARE, error);
    if (status == TERSE_OK)
        status = terse_bias_prepare(graph, error);
    if (status == TERSE_OK)
        *ret_graph = TERSE_TAKE(graph);
    return status;
}

static void announce(const drive *d)
{
    size_t bytes = 0, weights = 0;
    for (int i = 0; i < d->job->fit->n; i++)
        bytes += (size_t)terse_tensor_bytes(&d->job->fit->tensors[i]);
    for (int v = 0; v < d->job->imported->n_values; v++)
        weights += d->job->imported->values[v].data ? d->job->imported->values[v].bytes : 0;
    /* networks without channels that stay */
    const double again = fmin(TERSE_PRUNE_AGAIN_BYTES, TERSE_PRUNE_AGAIN * (double)weights);
    /* samples three times (for fitting, for judging, a copy for a pass), weights of options, numbers of the walks */
    const double most = 3.0 * (double)bytes + 12.0 * (double)weights + 640e6 + 256e6 + again;
    if (!d->options.quiet)
        fprintf(stderr, "terse compress: searching for %s; %.0f s, at most about %.1f GB of memory\n", d->plan.goal,
                d->options.goal.seconds, most / 1e9);
}

/* What few samples cannot tell. */
static void warn(const drive *d, const terse_npz *held)
{
    terse_samples f = {0};
    terse_error error;
    const int status = terse_samples_open(d->job->imported, held, &f, &error);
    if (status == TERSE_OK && f.samples < FEW && !d->options.quiet)
        fprintf(stderr,
                "terse compress: warning: %" PRId64
                " sample%s held out to judge by: a drop of less than about %.0f points "
                "cannot be told from none\n",
                f.samples, f.samples == 1 ? " is" : "s are", 300.0 / (double)f.samples);
    terse_samples_done(&f);
}

static int search(drive *d, terse_error *error)
{
    job *j = d->job;
    snprintf(d->plan.of, sizeof d->plan.of, "%.16s, batch %" PRId64 ", threads %d", j->source.source_sha256,
             d->options.goal.batch, d->options.goal.threads);
    const terse_search_hooks hooks = {.context = d,
                                      .build = build,
                                      .foresee = foresee,
                                      .size = size,
                                      .hold = hold,
                                      .keep = keep,
                                      .write = write_best,
                                      .progress = tell,
                                      .stopped = stopped};
    TERSE_AUTO(terse_graph_freep) terse_graph *prepared = NULL;
    TERSE_AUTO(terse_npz_freep) terse_npz *held = NULL;
    terse_search_plan known = {0};
    bool any = false, reached = false;
    int every = terse_search_trains(&d->options.goal) ? EVERY_TRAINED : EVERY;
    int status = read_known(d, &known, &any, error);
    if (status == TERSE_OK && any && known.held_out > 1)
        every = known.held_out; /* what was measured was on these */
    if (status == TERSE_OK)
        status = split(j, &every, &held, error);
    if (status == TERSE_OK)
        status = prepare(j, &prepared, error);
    d->prepared = prepared;
    const terse_search_input input = {.imported = j->imported,
                                      .prepared = prepared,
                                      .fit = j->fit,
                                      .held = held,
                                      .goal = &d->options.goal,
                                      .pack = d->options.pack,
                                      .of = d->plan.of,
                                      .held_out = every,
                                      .known = any ? &known : NULL};
    terse_goal_text(&d->options.goal, d->plan.goal, sizeof d->plan.goal);
    if (status == TERSE_OK) {
        announce(d);
        warn(d, held);
        catch_signals(true);
        status = terse_search_run(&input, &hooks, &j->found, &reached, error);
        catch_signals(false);
    }
    terse_search_plan_done(&known);
    if (status != TERSE_OK || reached)
        return status;
    char goal[TERSE_PLAN_TEXT];
    const terse_measured *m = NULL;
    for (int i = 0; i < j->found.n_measured; i++)
        m = j->found.measured[i].chosen ? &j->found.measured[i] : m;
    return terse_fail(error, TERSE_NOT_FOUND,
                      "%s: nothing that was built in that time is; the nearest is '%s' (%.4g ms, %" PRId64
                      " bytes, drop %.2f), which is in '%.200s' for --plan%s%s",
                      terse_goal_text(&d->options.goal, goal, sizeof goal), m->label, m->us / 1000, m->bytes, m->drop,
                      d->plan_path, *j->found.trained ? "; trained: " : "", j->found.trained);
}

int terse_drive_search(job *j, terse_error *error)
{
    drive d = {.job = j, .options = j->options};
    terse_search_goal *goal = &d.options.goal;
    goal->seconds = goal->seconds > 0 ? goal->seconds : DEFAULT_SECONDS;
    goal->threads = goal->threads > 0 ? goal->threads : 1;
    goal->batch = goal->batch > 0 ? goal->batch : 1;
    goal->smallest = d.options.pack;
    goal->recover_seconds = d.options.recover.off ? -1 : d.options.recover.seconds;
    goal->recover_epochs = d.options.recover.epochs;
    d.options.recover = (terse_recover_options){0};
    d.options.pack = d.options.pack || terse_goal_by_size(goal);
    place_plan(&d);
    int status = search(&d, error);
    j->options = d.options;
    j->plan = NULL;
    j->orders = NULL;
    for (int i = 0; i < 2; i++)
        terse_channels_orders_done(&d.orders[i]);
    if (status == TERSE_OK)
        status = terse_search_plan_apply(&j->found, &j->options, error);
    let_go(d.now);
    for (int i = 0; i < d.n_held; i++)
        let_go(d.held[i]);
    if (status != TERSE_OK || !d.best) {
        let_go(d.best);
        return status;
    }
    lend(j, d.best); /* for good: nobody else has it now */
    free(d.best);
    j->plan = &j->found;
    j->report.search = &j->found;
    return TERSE_OK;
}
