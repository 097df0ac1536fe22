/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/distill/distill.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/model.h"
#include "compress/distill/options.h"
#include "compress/onnx/import.h"
#include "compress/onnx/write.h"
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"
#include "compress/tell.h"
#include "compress/train/student.h"
#include "compress/validate.h"

typedef struct job {
    terse_distill_options options;
    terse_onnx_report source, of_student;
    terse_graph *teacher, *student;   /* as imported or made */
    terse_graph *teacher_run, *ready; /* after all passes */
    terse_npz *data;
    terse_student_summary derived;
    terse_train_summary trained;
    terse_validation validation;
    int64_t macs_teacher, macs_student; /* of one sample; -1: not known */
    char name[256];
    char command[512];
    terse_tell tell;
} job;

static void job_done(job *j)
{
    terse_graph_free(j->teacher_run);
    terse_graph_free(j->ready);
    terse_graph_free(j->student);
    terse_graph_free(j->teacher);
    terse_npz_free(j->data);
    terse_onnx_report_done(&j->source);
    terse_onnx_report_done(&j->of_student);
}

/* --- telling ----------------------------------------------------------------------------------------------------- */

static void print_report(const job *j)
{
    const terse_train_summary *s = &j->trained;
    const terse_validation *v = &j->validation;
    printf("student: %s\n", j->options.output);
    if (!j->options.student)
        printf("made from the teacher: %d of %d layers narrowed, %" PRId64 " weights instead of %" PRId64 "\n",
               j->derived.n_narrowed, j->derived.n_layers, j->derived.parameters_now, j->derived.parameters_before);
    if (j->macs_teacher > 0 && j->macs_student > 0)
        printf("work: %.3f M multiply-accumulates instead of %.3f M, 1/%.1f\n", (double)j->macs_student / 1e6,
               (double)j->macs_teacher / 1e6, (double)j->macs_teacher / (double)j->macs_student);
    printf("trained: %" PRId64 " numbers, %" PRId64 " epochs, %" PRId64 " steps in %.1f s, %.0f samples/s%s\n",
           s->parameters, s->epochs, s->steps, s->seconds, s->samples_per_second,
           s->stopped ? ", interrupted"
           : s->early ? ", ended early"
                      : "");
    if (s->n_features)
        printf("features compared: %d\n", s->n_features);
    if (*s->frozen || s->frozen_parameters)
        printf("not trained: %" PRId64 " numbers; operators without a gradient: %s\n", s->frozen_parameters,
               *s->frozen ? s->frozen : "none");
    printf("held-out (%" PRId64 " samples): agreement %.2f %%, before %.2f %%; divergence %.4f, before %.4f\n",
           s->held_out, 100 * s->agreement, 100 * s->agreement_before, s->divergence, s->divergence_before);
    if (!j->options.validate)
        return;
    if (v->has_top1)
        printf("validation (%" PRId64 " samples): top-1 %.2f %%, teacher %.2f %%\n", v->samples, 100 * v->top1_after,
               100 * v->top1_before);
    if (v->has_agreement)
        printf("validation (%" PRId64 " samples): agreement with the teacher %.2f %%\n", v->samples,
               100 * v->agreement);
    printf("latency: %.1f us, teacher %.1f us\n", v->latency_after_us, v->latency_before_us);
}

static void print_json(const job *j)
{
    const terse_train_summary *s = &j->trained;
    const terse_validation *v = &j->validation;
    printf("{\"epochs\": %" PRId64 ", \"steps\": %" PRId64 ", \"seconds\": %.3f, \"samples_per_second\": %.1f, "
           "\"samples\": %" PRId64 ", \"held_out\": %" PRId64 ", \"agreement_before\": %.6f, \"agreement\": %.6f, "
           "\"divergence_before\": %.6f, \"divergence\": %.6f, \"parameters\": %" PRId64
           ", \"frozen_parameters\": %" PRId64
           ", \"features\": %d, \"bytes\": %zu, \"interrupted\": %s, \"early\": %s, \"macs_teacher\": %" PRId64
           ", \"macs_student\": %" PRId64,
           s->epochs, s->steps, s->seconds, s->samples_per_second, s->samples, s->held_out, s->agreement_before,
           s->agreement, s->divergence_before, s->divergence, s->parameters, s->frozen_parameters, s->n_features,
           s->bytes, s->stopped ? "true" : "false", s->early ? "true" : "false", j->macs_teacher, j->macs_student);
    if (j->options.validate)
        printf(", \"validation\": {\"samples\": %" PRId64 ", \"latency_us\": %.3f, \"latency_teacher_us\": %.3f",
               v->samples, v->latency_after_us, v->latency_before_us);
    if (j->options.validate && v->has_agreement)
        printf(", \"agreement\": %.6f", v->agreement);
    if (j->options.validate && v->has_top1)
        printf(", \"top1\": %.6f, \"top1_teacher\": %.6f", v->top1_after, v->top1_before);
    printf("%s}\n", j->options.validate ? "}" : "");
}

/* --- the way through --------------------------------------------------------------------------------------------- */

/* The output's file name without directory and ending; what a model name may not have becomes '_'. */
static void name_model(job *j)
{
    const char *slash = strrchr(j->options.output, '/');
    snprintf(j->name, sizeof j->name, "%.128s",
             j->options.name ? j->options.name
             : slash         ? slash + 1
                             : j->options.output);
    char *dot = strrchr(j->name, '.');
    if (dot && dot != j->name && !j->options.name)
        *dot = 0;
    for (char *c = j->name; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 127 || *c == '/')
            *c = '_';
    slash = strrchr(j->options.teacher, '/');
    snprintf(j->command, sizeof j->command, "terse distill %.200s --seed %" PRIu64,
             slash ? slash + 1 : j->options.teacher, j->options.train.seed);
}

static int read_networks(job *j, terse_error *error)
{
    const terse_distill_options *o = &j->options;
    int status = terse_onnx_import(o->teacher, &j->teacher, &j->source, error);
    if (status != TERSE_OK)
        return status;
    if (o->student)
        return terse_onnx_import(o->student, &j->student, &j->of_student, error);
    status = terse_student_derive(j->teacher, o->width, o->train.seed, &j->student, &j->derived, error);
    return status == TERSE_OK ? status : terse_error_prefix(error, "'%.200s': no student can be made", o->teacher);
}

static int to_run(const terse_graph *graph, terse_graph **ret_graph, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *copy = NULL;
    int status = terse_edit_clone(graph, &copy, error);
    if (status == TERSE_OK)
        status = terse_passes_run(copy, TERSE_PASSES_PREPARE, error);
    if (status == TERSE_OK)
        status = terse_passes_run(copy, TERSE_PASSES_FINISH, error);
    if (status == TERSE_OK)
        *ret_graph = TERSE_TAKE(copy);
    return status;
}

static int validate(job *j, terse_error *error)
{
    TERSE_AUTO(terse_npz_freep) terse_npz *data = NULL;
    int status = terse_npz_read(j->options.validate, &data, error);
    if (status == TERSE_OK)
        status = to_run(j->teacher, &j->teacher_run, error);
    if (status != TERSE_OK)
        return status;
    status = terse_validate_run(j->teacher, j->teacher_run, j->ready, data, &j->validation, error);
    return status == TERSE_OK ? status : terse_error_prefix(error, "'%.200s'", j->options.validate);
}

static int write_student(job *j, terse_error *error)
{
    const char *path = j->options.output;
    if (strcmp(path + strlen(path) - 5, ".onnx") == 0)
        return terse_onnx_write(path, j->student, error);
    const terse_model about = {
        .tool = "terse " TERSE_VERSION, .source_sha256 = j->source.source_sha256, .command = j->command};
    j->ready->name = j->name;
    return terse_model_write(path, j->ready, &about, error);
}

static int run(job *j, terse_error *error)
{
    size_t ignored;
    int status = read_networks(j, error);
    if (status == TERSE_OK)
        status = terse_npz_read(j->options.data, &j->data, error);
    if (status != TERSE_OK)
        return status;
    name_model(j);
    j->student->name = j->name;
    j->macs_teacher = j->macs_student = -1;
    if (terse_validate_cost(j->teacher, &j->macs_teacher, &ignored, NULL) == TERSE_OK)
        terse_validate_cost(j->student, &j->macs_student, &ignored, NULL);
    status = terse_train_recover(j->teacher, j->student, j->data, &j->options.train, terse_tell_progress, &j->tell,
                                 &j->trained, error);
    if (j->tell.terminal && !j->options.quiet)
        fprintf(stderr, "\r\033[K");
    if (status != TERSE_OK)
        return status == TERSE_INVALID_ARGUMENT ? terse_error_prefix(error, "'%.200s'", j->options.data) : status;
    status = to_run(j->student, &j->ready, error);
    if (status == TERSE_OK)
        status = write_student(j, error);
    return status == TERSE_OK && j->options.validate ? validate(j, error) : status;
}

int terse_distill_main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help-table") == 0) {
        terse_distill_options_print_table(stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    job j = {0};
    terse_error error = {0};
    if (terse_distill_options_parse(argc, argv, &j.options, &error) != TERSE_OK) {
        fprintf(stderr, "terse distill: %s (terse distill --help)\n", error.message);
        return 2;
    }
    if (j.options.help) {
        terse_distill_options_help(stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    j.tell = (terse_tell){.what = "train", .terminal = isatty(STDERR_FILENO) == 1, .quiet = j.options.quiet};
    terse_tell_catch();
    const int status = run(&j, &error);
    if (status != TERSE_OK) {
        for (int i = 0; i < j.source.unsupported.n; i++)
            fprintf(stderr, "terse distill: %s\n", j.source.unsupported.lines[i]);
        for (int i = 0; i < j.of_student.unsupported.n; i++)
            fprintf(stderr, "terse distill: %s\n", j.of_student.unsupported.lines[i]);
        fprintf(stderr, "terse distill: %s\n", error.message);
    } else {
        if (!j.options.quiet)
            print_report(&j);
        if (j.options.json)
            print_json(&j);
    }
    job_done(&j);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "terse distill: cannot write the report: %s\n", strerror(errno));
        return 1;
    }
    return status == TERSE_OK ? 0 : 1;
}
