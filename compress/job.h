/* SPDX-License-Identifier: Apache-2.0 */
/* job.h: one run of `terse compress`, shared by main.c, job_transform.c and what drives it through several networks
 * (search/drive.c). Runs in: terse-compress. Ownership: the job owns all of it but what options point to. */
#ifndef TERSE_COMPRESS_JOB_H
#define TERSE_COMPRESS_JOB_H

#include "compress/look.h"
#include "compress/onnx/import.h"
#include "compress/options.h"
#include "compress/prune/again.h"
#include "compress/recover.h"
#include "compress/report/report.h"
#include "compress/search/plan.h"
#include "compress/shrink.h"

/* Everything that one run makes. */
typedef struct job {
    terse_options options;
    terse_onnx_report source;
    terse_graph *imported;   /* as the importer gave it */
    terse_graph *exact;      /* after the passes, without compression: only made for --validate */
    terse_graph *compressed; /* what is written */
    terse_shrunk shrunk;     /* how its constants are stored, with --pack */
    void *onnx;              /* the file's bytes, when ONNX is to be written: as it was before the passes FINISH */
    size_t onnx_bytes;
    terse_report report;
    terse_recover_zeros zeros; /* where pruning has been, for --recover */
    terse_search_plan *plan; /* what is built: of --plan, or the one that a search tries; borrowed. NULL: the options */
    terse_search_plan found; /* that of --plan, or what a search has found */
    struct terse_channels_orders *orders; /* of a search: channels in their order for every amount; borrowed, or NULL */
    terse_prune_again again;              /* networks that had lost their channels already, of a search */
    terse_npz *fit;               /* what is fitted to, where samples are held out; else NULL: all of --calibrate */
    terse_npz *texts;             /* samples, and behind them what the language model wrote itself; or NULL */
    char oddity[TERSE_LOOK_TEXT]; /* of the samples, for a warning; "": none */
    char name[256];
    char command[512];
    bool progress;
} job;

void terse_job_progress(const job *j, const char *text);
/* --- job_transform.c ---------------------------------------------------------------------------------------------- */

/* A copy of the imported graph through all passes; without `compressing` only through those that keep its numbers. */
int terse_job_transform(job *j, bool compressing, terse_graph **ret_graph, terse_low_rank_report *ret_layers,
                        terse_error *error);
/* --- job_recover.c ---------------------------------------------------------------------------------------------------
 */

/* Is what was compressed to be trained? */
bool terse_job_recovers(const job *j);
/* The samples of --calibrate that may be fitted to; and those of them that say nothing of whether training has helped.
 */
int terse_job_samples(job *j, terse_npz **ret_data, terse_error *error);
int terse_job_fitted(job *j, terse_npz **ret_data, terse_error *error);
/* Trains what low rank and pruning have lost; then, rounded, what fewer bits have: where that is asked for. */
int terse_job_recover(job *j, const terse_graph *teacher, terse_graph *graph, bool rounded, terse_error *error);
int terse_job_recover_rounded(job *j, const terse_graph *teacher, terse_graph *graph, terse_error *error);

/* How the constants of `compressed` are stored. */
int terse_job_pack(job *j, terse_error *error);
/* Bytes of the file, in the report. */
int terse_job_measure(job *j, terse_error *error);
/* Writes `compressed` to -o; or the ONNX file that was made of it. */
int terse_job_write(job *j, terse_error *error);
int terse_job_write_onnx(job *j, terse_error *error);

/* --- search/drive.c ------------------------------------------------------------------------------------------------
 */

/* Reads --plan, where no search is asked for. */
int terse_drive_open(job *j, terse_error *error);
/* Splits the samples of --calibrate as the plan says. */
int terse_drive_split(job *j, terse_error *error);
/* Searches; then `compressed` and the report are those of the best network, which is written. */
int terse_drive_search(job *j, terse_error *error);

#endif
