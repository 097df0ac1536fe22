/* SPDX-License-Identifier: Apache-2.0 */
/* The samples of a run, and what is trained in it. */
#include <stdlib.h>
#include <unistd.h>

#include "compress/job.h"
#include "compress/quantize/steps.h"
#include "compress/samples.h"
#include "compress/search/judge.h"
#include "compress/tell.h"

enum { SAMPLES_TO_SPARE = 20 };
static const double floats_share = 0.75; /* of a training, where rounded weights are trained too */

bool terse_job_recovers(const job *j)
{
    return j->options.recover.text != NULL;
}

/* The samples of --calibrate that may be fitted to. */
int terse_job_samples(job *j, terse_npz **ret_data, terse_error *error)
{
    if (j->texts || j->fit)
        return terse_judge_copy(j->texts ? j->texts : j->fit, ret_data, error);
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    terse_samples samples = {0};
    int status = terse_npz_read(j->options.calibrate, &data, error);
    if (status != TERSE_OK)
        return status;
    status = terse_samples_open(j->imported, data, &samples, error);
    if (status == TERSE_OK)
        status = terse_calibrate_check(&samples, error);
    terse_samples_done(&samples);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "--calibrate '%.200s'", j->options.calibrate);
    *ret_data = TERSE_TAKE(data);
    return TERSE_OK;
}

static int by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The same without those that say whether training has helped: weights that were fitted to them would look better there
 * than they are. */
int terse_job_fitted(job *j, terse_npz **ret_data, terse_error *error)
{
    TERSE_AUTO(terse_npz_freep) terse_npz *all = NULL;
    terse_samples f = {0};
    int64_t held = 0;
    int status = terse_job_samples(j, &all, error);
    if (status == TERSE_OK && terse_job_recovers(j) && !j->texts &&
        terse_samples_open(j->imported, all, &f, NULL) == TERSE_OK && f.samples >= SAMPLES_TO_SPARE) {
        TERSE_AUTO(terse_freep) int64_t *order = malloc((size_t)f.samples * sizeof *order);
        if (!order)
            status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
        else {
            terse_train_split(f.samples, j->options.recover.seed, order, &held);
            qsort(order, (size_t)(f.samples - held), sizeof *order, by_size);
            status = terse_judge_pick(j->imported, all, order, f.samples - held, ret_data, error);
        }
    } else if (status == TERSE_OK) {
        *ret_data = TERSE_TAKE(all);
    }
    terse_samples_done(&f);
    return status;
}

/* Reports a training, and ends it when its time is over: where a search has a training counted in epochs. */
typedef struct training {
    terse_tell tell;
    uint64_t deadline; /* 0: none */
} training;

static bool report_training(void *context, const terse_train_progress *p)
{
    training *t = context;
    return terse_tell_progress(&t->tell, p) && (t->deadline == 0 || terse_now_ns() < t->deadline);
}

/* A plan holds how far its training came, so that it comes as far again. */
static bool begin_planned(const job *j, bool rounded, double share, training *t, terse_recover_options *options)
{
    if (!j->plan || j->plan->recover_epochs == 0 || j->options.recover.text != j->plan->recover_text)
        return true;
    options->stop = j->plan->recover_done[rounded] > 0 ? j->plan->recover_done[rounded] : 0;
    if (j->plan->recover_seconds > 0)
        t->deadline = terse_now_ns() + (uint64_t)(j->plan->recover_seconds * share * 1e9);
    return j->plan->recover_done[rounded] >= 0;
}

static void end_planned(job *j, bool rounded, const terse_train_summary *s)
{
    if (!j->plan || j->plan->recover_epochs == 0 || j->plan->recover_done[rounded] != 0)
        return;
    j->plan->recover_done[rounded] = s->epochs > 0 ? s->epochs : -1;
    const double pace = s->samples_per_second > 0 ? 1 / s->samples_per_second : 0, before = j->plan->recover_pace;
    if (pace > 0) /* rounded weights take several times as long, for a quarter of the epochs */
        j->plan->recover_pace = rounded && before > 0 ? floats_share * before + (1 - floats_share) * pace : pace;
}

/* What low rank and pruning have lost, before anything is rounded; then, `rounded`, what fewer bits have. The first
 * takes three quarters of what is given where there are both. */
int terse_job_recover(job *j, const terse_graph *teacher, terse_graph *graph, bool rounded, terse_error *error)
{
    const terse_options *o = &j->options;
    const bool smaller = o->low_rank.target || o->prune > 0 || o->channels > 0, fewer = o->quantize && !o->cluster;
    const terse_recover_form form = {.rounded = rounded,
                                     .bits = !rounded                                     ? 0
                                             : o->quantize == TERSE_QUANTIZE_INT8_WEIGHTS ? 8
                                             : o->quantize == TERSE_QUANTIZE_INT4_WEIGHTS ? 4
                                                                                          : 0,
                                     .group = o->quantize_group,
                                     .mixed = &j->report.mixed,
                                     .kept = j->report.channels.kept.n > 0 ? &j->report.channels.kept
                                                                           : &j->report.pruned.kept};
    if (!terse_job_recovers(j) || !(rounded ? fewer : smaller))
        return TERSE_OK;
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    training told = {.tell = {.what = rounded ? "recovering with rounded weights" : "recovering",
                              .terminal = isatty(STDERR_FILENO) == 1,
                              .quiet = o->quiet}};
    terse_recover_options options = o->recover;
    terse_recovered *done = &j->report.recovered;
    terse_train_summary *summary = rounded ? &done->of_rounded : &done->of_floats;
    const double share = !smaller || !fewer ? 1 : rounded ? 1 - floats_share : floats_share;
    options.report = report_training;
    options.context = &told;
    terse_job_progress(j, "preparing to recover");
    int status = rounded ? TERSE_OK : terse_recover_zeros_find(graph, o->prune > 0, &j->zeros, error);
    if (status != TERSE_OK || !begin_planned(j, rounded, share, &told, &options))
        return status;
    status = terse_job_samples(j, &data, error);
    if (status != TERSE_OK)
        return status;
    terse_tell_catch();
    status = terse_recover_run(teacher, graph, data, &j->zeros, &form, share, &options, summary, error);
    terse_tell_off();
    if (status == TERSE_OK)
        end_planned(j, rounded, summary);
    done->floats = done->floats || (status == TERSE_OK && !rounded);
    done->rounded = status == TERSE_OK && rounded;
    return status != TERSE_OK ? terse_error_prefix(error, "--recover '%.200s'", o->calibrate) : TERSE_OK;
}

/* Whoever has ended the first training does not want a second one, and neither does the plan that is made of it. */
int terse_job_recover_rounded(job *j, const terse_graph *teacher, terse_graph *graph, terse_error *error)
{
    if (!(terse_job_recovers(j) && j->report.recovered.of_floats.stopped && terse_tell_was_interrupted()))
        return terse_job_recover(j, teacher, graph, true, error);
    if (j->plan && j->plan->recover_epochs > 0)
        j->plan->recover_done[1] = -1;
    return TERSE_OK;
}
