/* SPDX-License-Identifier: Apache-2.0 */
/* The program terse-compress, which `terse compress` executes: import, job_transform.c, validation, file, report.
 * `terse distill` is in distill/. */
#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compress/blas.h"
#include "compress/distill/distill.h"
#include "compress/job.h"
#include "compress/memory.h"
#include "compress/onnx/import.h"
#include "compress/options.h"
#include "compress/report/report.h"
#include "compress/recover.h"
#include "compress/shrink.h"
#include "compress/spill.h"
#include "compress/tell.h"

enum { TOLD_BYTES = 64 << 20 }; /* a need that is told unasked */

static void job_done(job *j)
{
    terse_shrink_done(&j->shrunk);
    terse_recover_zeros_done(&j->zeros);
    terse_mixed_done(&j->report.mixed);
    terse_search_plan_done(&j->found);
    terse_npz_free(j->fit);
    terse_npz_free(j->texts);
    free(j->onnx);
    terse_graph_free(j->exact);
    terse_graph_free(j->compressed);
    terse_prune_again_done(&j->again);
    terse_graph_free(j->imported);
    terse_onnx_report_done(&j->source);
    terse_report_done(&j->report);
}

void terse_job_progress(const job *j, const char *text)
{
    if (j->progress)
        fprintf(stderr, "\r\033[K%.70s", text);
}

/* The file name without directory and ending; what a model name may not have becomes '_'. */
static void name_from_path(const char *path, char *name, size_t size)
{
    const char *slash = strrchr(path, '/');
    snprintf(name, size, "%.128s", slash ? slash + 1 : path);
    char *dot = strrchr(name, '.');
    if (dot && dot != name)
        *dot = 0;
    for (char *c = name; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 127)
            *c = '_';
    if (!*name)
        snprintf(name, size, "model");
}

/* What decides about the bytes of the file, so that equal input and options give equal files wherever they are put. */
static void write_command(job *j)
{
    const terse_options *o = &j->options;
    char text[TERSE_QUANTIZE_TEXT];
    const char *slash = strrchr(o->input, '/');
    int at = snprintf(j->command, sizeof j->command, "terse compress %.200s", slash ? slash + 1 : o->input);
    if (o->goal.plan || terse_goal_is_set(&o->goal)) {
        snprintf(j->command + at, sizeof j->command - (size_t)at, " --calibrate --plan");
        return;
    }
    if (o->low_rank.target)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --low-rank %.100s", o->low_rank.ranks);
    if (o->prune > 0)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --prune %.17g:%s", o->prune,
                       terse_prune_kind_name(o->prune_kind));
    if (o->quantize)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --quantize %s",
                       terse_options_quantize(o, text));
    if (o->rounding)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --rounding %s",
                       terse_rounding_name(o->rounding));
    if (o->calibrate && !o->quantize)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --calibrate");
    else if (o->calibrate)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at,
                       " --calibrate --calibration %s --keep-float %.100s", terse_calibration_name(o->calibration),
                       o->keep_float ? o->keep_float : "auto");
    if (o->keep_int8)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --keep-int8 %.100s", o->keep_int8);
    if (o->bf16)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --float bf16");
    if (o->correct)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --correct statistics");
    if (o->recover.text)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --recover %.20s", o->recover.text);
    if (o->cluster)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --cluster %d", o->cluster);
    if (o->pack)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --pack zstd");
    if (o->validate)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --validate");
    if (o->no_tune)
        at += snprintf(j->command + at, sizeof j->command - (size_t)at, " --no-tune");
    if (o->plain)
        snprintf(j->command + at, sizeof j->command - (size_t)at, " --plain");
}

static int import(job *j, terse_error *error)
{
    terse_job_progress(j, "importing");
    const int status = terse_onnx_import(j->options.input, &j->imported, &j->source, error);
    if (status != TERSE_OK)
        return status;
    j->report.bytes_before = j->source.file_bytes;
    j->report.n_nodes_before = j->imported->n_nodes;
    return terse_layers_name_nodes(j->imported, error);
}

static int refuse_memory(const job *j, uint64_t least, terse_error *error)
{
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "--mem is %.0f MiB, at least about %.0f MiB are needed for this network with these options",
                      (double)j->options.mem / (1 << 20), ceil((double)least / (1 << 20)));
}

/* What files alone say: nothing is read then. */
static int check_memory_of_files(const job *j, terse_error *error)
{
    struct stat model, samples = {0};
    if (j->options.mem == 0 || stat(j->options.input, &model) < 0)
        return TERSE_OK; /* the importer says what is wrong */
    if (j->options.calibrate && stat(j->options.calibrate, &samples) < 0)
        samples.st_size = 0;
    const terse_memory_of of = {.file = (uint64_t)model.st_size, .samples = (uint64_t)samples.st_size};
    const terse_memory m = terse_memory_estimate(&of, &j->options);
    return m.least > j->options.mem ? refuse_memory(j, m.least, error) : TERSE_OK;
}

/* Tells what will be needed; files take what is above the bound. */
static int bound_memory(job *j, const terse_npz *data, terse_error *error)
{
    terse_memory_of of;
    char text[TERSE_MEMORY_TEXT];
    int status = terse_memory_look(j->imported, j->source.file_bytes, data, &of, error);
    if (status != TERSE_OK)
        return status;
    const terse_memory m = terse_memory_estimate(&of, &j->options);
    const uint64_t bound = j->options.mem;
    j->report.memory = (terse_report_memory){.need = m.need,
                                             .least = m.least,
                                             .weights = m.weights,
                                             .samples = m.samples,
                                             .numbers = m.numbers,
                                             .moments = m.moments,
                                             .bound = bound,
                                             .spilled = bound && m.need > bound};
    if (bound && m.least > bound)
        return refuse_memory(j, m.least, error);
    terse_job_progress(j, "");
    if (!j->options.quiet && (bound || m.need >= TOLD_BYTES)) {
        printf("needs %s%s\n", terse_memory_text(&m, text),
               j->report.memory.spilled ? "; what is above --mem waits in files" : "");
        fflush(stdout);
    }
    const uint64_t left = bound ? UINT64_MAX : terse_memory_free("");
    if (!j->options.quiet && left < m.need)
        fprintf(stderr,
                "terse compress: warning: %.0f MiB of memory are free, about %.0f MiB are needed; --mem bounds it\n",
                (double)left / (1 << 20), (double)m.need / (1 << 20));
    if (j->report.memory.spilled) {
        const char *directory = getenv("TMPDIR");
        mallopt(M_MMAP_THRESHOLD, 1 << 18); /* what is freed is free */
        terse_spill_into(directory && *directory ? directory : "/var/tmp");
        void *probe = NULL; /* a directory that will not do is told now */
        status = terse_spill_new(1, &probe, error);
        if (status == TERSE_OK)
            terse_spill_free(probe);
    }
    return status;
}

/* Wrong samples are told before any work, odd ones with the report. */
static int look_at_samples(job *j, terse_error *error)
{
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    int status = j->options.calibrate ? terse_job_samples(j, &data, error) : TERSE_OK;
    if (status == TERSE_OK)
        status = bound_memory(j, data, error);
    terse_job_progress(j, "looking at samples");
    if (status != TERSE_OK || !data)
        return status;
    status = terse_look_at(j->imported, data, j->oddity, error);
    return status != TERSE_OK ? terse_error_prefix(error, "--calibrate '%.200s'", j->options.calibrate) : TERSE_OK;
}

static int validate(job *j, terse_error *error)
{
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    terse_low_rank_report ignored = {0};
    int status = terse_npz_read(j->options.validate, &data, error);
    if (status == TERSE_OK)
        status = terse_job_transform(j, false, &j->exact, &ignored, error);
    terse_low_rank_report_done(&ignored);
    if (status != TERSE_OK)
        return status;
    terse_job_progress(j, "validating");
    status = terse_validate_run(j->imported, j->exact, j->compressed, data, &j->report.validation, error);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "'%s'", j->options.validate);
    terse_job_progress(j, "measuring layer by layer");
    status = terse_layers_measure(j->exact, j->compressed, data, &j->report.measured, error);
    if (status != TERSE_OK)
        return status;
    j->report.validated = true;
    return TERSE_OK;
}

/* Plans both graphs for one sample. Symbols of 1 may be nothing that the network can run (a window larger than
 * the image): then there is nothing to report. What ran as imported must run as compressed. */
static int measure_cost(job *j, terse_error *error)
{
    terse_report *r = &j->report;
    size_t arena_bytes, ignored;
    r->macs_before = r->macs_after = r->arena_bytes = -1;
    if (terse_validate_cost(j->imported, &r->macs_before, &ignored, NULL) != TERSE_OK)
        return TERSE_OK;
    if (terse_validate_cost(j->compressed, &r->macs_after, &arena_bytes, error) != TERSE_OK) {
        error->status = TERSE_INTERNAL;
        return terse_error_prefix(error, "the compressed network cannot be run, the imported one can");
    }
    r->arena_bytes = (int64_t)arena_bytes;
    return TERSE_OK;
}

/* An ONNX file may not take the place of the one it is made of. */
static int check_places(const terse_options *o, terse_error *error)
{
    struct stat from, to;
    if (o->onnx && stat(o->input, &from) == 0 && stat(o->output, &to) == 0 && from.st_dev == to.st_dev &&
        from.st_ino == to.st_ino)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' would be overwritten by what it becomes", o->input);
    return TERSE_OK;
}

static int run(job *j, terse_error *error)
{
    int status = check_places(&j->options, error);
    if (status == TERSE_OK)
        status = check_memory_of_files(j, error);
    if (status == TERSE_OK)
        status = import(j, error);
    if (status != TERSE_OK)
        return status;
    if (j->options.name)
        snprintf(j->name, sizeof j->name, "%s", j->options.name);
    else
        name_from_path(j->options.input, j->name, sizeof j->name);
    write_command(j);
    j->imported->name = j->name;
    j->report.input = j->options.input;
    j->report.output = j->options.output;
    j->report.name = j->name;
    status = look_at_samples(j, error);
    if (status == TERSE_OK)
        status = terse_drive_open(j, error);
    if (status == TERSE_OK && terse_goal_is_set(&j->options.goal))
        status = terse_drive_search(j, error);
    else if (status == TERSE_OK)
        status = terse_job_transform(j, true, &j->compressed, &j->report.layers, error);
    if (status == TERSE_OK && j->options.validate)
        status = validate(j, error);
    if (status != TERSE_OK)
        return status;
    status = measure_cost(j, error);
    if (status != TERSE_OK)
        return status;
    j->report.low_rank = j->options.low_rank.target != TERSE_LOW_RANK_NONE;
    j->report.n_nodes_after = j->compressed->n_nodes;
    status = j->options.onnx ? TERSE_OK : terse_job_pack(j, error);
    if (status == TERSE_OK)
        status = j->options.onnx ? terse_job_write_onnx(j, error) : terse_job_write(j, error);
    if (status == TERSE_OK && j->options.report)
        status = terse_report_html(&j->report, j->options.report, error);
    return status;
}

/* One line each for what is not supported, then the one that sums it up. */
static void print_failure(const job *j, const char *command, const terse_error *error)
{
    for (int i = 0; i < j->source.unsupported.n; i++)
        fprintf(stderr, "terse %s: %s\n", command, j->source.unsupported.lines[i]);
    fprintf(stderr, "terse %s: %s\n", command, error->message);
}

int main(int argc, char **argv)
{
    terse_blas_choose(argv);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error of write */
    if (argc > 0 && strcmp(argv[0], "distill") == 0)
        return terse_distill_main(argc, argv);
    if (argc == 2 && strcmp(argv[1], "--help-table") == 0) {
        terse_options_print_table(stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    job j = {0};
    terse_error error = {0};
    /* `terse` hands over its own words: "compress" or, for an .onnx file, "inspect" or "compare" */
    const char *command = argc > 0 && strcmp(argv[0], "inspect") == 0   ? "inspect"
                          : argc > 0 && strcmp(argv[0], "compare") == 0 ? "compare"
                                                                        : "compress";
    if (terse_options_parse(argc, argv, &j.options, &error) != TERSE_OK) {
        fprintf(stderr, "terse %s: %s (terse compress --help)\n", command, error.message);
        return 2;
    }
    if (j.options.help) {
        terse_options_help(stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    j.progress = isatty(STDERR_FILENO) == 1 && !j.options.quiet;
    const int status = run(&j, &error);
    terse_job_progress(&j, "");
    if (status != TERSE_OK) {
        print_failure(&j, command, &error);
        job_done(&j);
        return 1;
    }
    for (int i = 0; i < j.source.warnings.n && !j.options.quiet; i++)
        fprintf(stderr, "terse %s: warning: %s\n", command, j.source.warnings.lines[i]);
    if (*j.oddity && j.report.int8.n_warnings == 0 && !j.options.quiet)
        fprintf(stderr, "terse %s: warning: --calibrate '%s': %s\n", command, j.options.calibrate, j.oddity);
    for (int i = 0; i < j.report.int8.n_warnings && !j.options.quiet; i++)
        fprintf(stderr, "terse %s: warning: %s\n", command, j.report.int8.warnings[i]);
    if (!j.options.quiet)
        terse_report_print(&j.report, stdout);
    if (j.options.json)
        terse_report_json(&j.report, stdout);
    job_done(&j);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "terse compress: cannot write the report: %s\n", strerror(errno));
        return 1;
    }
    return 0;
}
