/* SPDX-License-Identifier: Apache-2.0 */
/* tune.h: what the files of `terse tune` share.
 * Runs in: terse tune. Ownership: a terse_tune owns its load, its traffic, what was found and the last run. */
#ifndef TERSE_TUNE_TUNE_H
#define TERSE_TUNE_TUNE_H

#include "client/cli/bench/load.h"
#include "client/cli/tune/keeper.h"
#include "client/cli/tune/search.h"
#include "client/view/view.h"

typedef struct terse_tune {
    const char *endpoint, *model, *traffic_text, *input, *report;
    const char *only_workers, *only_batches, *only_timeouts;
    bool json, apply, shm, exhaustive;
    uint64_t connections, rows, seed, connect_ms;
    double deadline_ms, seconds;
    terse_cli_texts dims;

    terse_traffic traffic;
    terse_load *load;
    terse_tune_setting before, current; /* current: workers 0 when it is not known */
    terse_tune_known known;
    terse_tune_space space;
    terse_cost_point costs[TERSE_VIEW_COSTS];
    size_t n_costs;
    terse_tune_found found;
    uint64_t begun_ns, trials;
    uint64_t foreign; /* requests of others that the daemon had meanwhile */
    bool told_late;   /* this program itself was late in a trial */
    /* The setting that is recommended, measured once more, a little below its highest rate. */
    terse_load_result final;
    double final_rate;
    terse_tune_trial final_trial;
    bool applied;
} terse_tune;

/* measure.c */
/* What the daemon knows of the model: costs, batches, workers. Changes nothing. */
int terse_tune_learn(terse_tune *tune, terse_error *error);
/* For terse_tune_means: applies the setting and sends at this rate. */
int terse_tune_measure(void *tune, const terse_tune_setting *setting, double rate, terse_tune_trial *ret_trial,
                       terse_error *error);
double terse_tune_spent(void *tune);
/* The last run. */
int terse_tune_confirm(terse_tune *tune, terse_error *error);
/* Set by a signal: everything ends as soon as it can. */
extern volatile sig_atomic_t terse_tune_interrupted;

/* tell.c: for people, as JSON; the line that a terminal sees meanwhile. */
void terse_tune_tell(const terse_tune *tune);
void terse_tune_progress(void *tune, const terse_tune_found *found);
void terse_tune_progress_end(const terse_tune *tune);
/* "workers 2, max_batch 16, batch_timeout_us 0" */
const char *terse_tune_setting_text(const terse_tune_setting *setting, char *text, size_t size);

/* page.c */
int terse_tune_page(const terse_tune *tune, terse_error *error);

#endif
