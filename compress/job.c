/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/job.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/model.h"

/* Where -o names an open descriptor of ours, its number; -1 otherwise. */
static int descriptor_of(const char *path)
{
    static const char *const forms[] = {"/dev/fd/", "/proc/self/fd/"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const size_t length = strlen(forms[i]);
        if (strncmp(path, forms[i], length) != 0)
            continue;
        char *end;
        const long number = strtol(path + length, &end, 10);
        if (end != path + length && !*end && number >= 0 && number < 1 << 20)
            return (int)number;
    }
    return -1;
}

/* The size of the file that the model makes, by writing it to memory. */
static int measure_file(job *j, const terse_model *about, terse_error *error)
{
    TERSE_AUTO(terse_close_fdp) int fd = memfd_create("terse-compress", MFD_CLOEXEC);
    struct stat st;
    if (fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot create memory for the model");
    const int status = terse_model_write_fd(fd, j->compressed, about, error);
    if (status != TERSE_OK)
        return status;
    if (fstat(fd, &st) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot measure the model");
    j->report.bytes_after = (uint64_t)st.st_size;
    return TERSE_OK;
}

int terse_job_write_onnx(job *j, terse_error *error)
{
    terse_atomic_file file;
    terse_job_progress(j, "writing");
    j->report.bytes_after = j->onnx_bytes;
    int status = terse_atomic_open(j->options.output, &file, error);
    if (status != TERSE_OK)
        return status;
    if (terse_write_full(file.fd, j->onnx, j->onnx_bytes))
        status = terse_atomic_commit(&file, true, error);
    else
        status = terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", j->options.output);
    terse_atomic_discard(&file);
    return status;
}

int terse_job_pack(job *j, terse_error *error)
{
    int status = TERSE_OK;
    terse_shrink_done(&j->shrunk);
    if (j->options.pack || j->options.cluster || terse_prune_wants_packing(&j->report.pruned)) {
        terse_job_progress(j, "packing");
        status = terse_shrink_run(j->compressed, j->options.pack, &j->shrunk, error);
    }
    if (status == TERSE_OK)
        terse_prune_stored(j->compressed, j->shrunk.packed, &j->report.pruned);
    j->report.packed = j->shrunk.packed != NULL;
    j->report.memory_after = j->shrunk.bytes_plain;
    j->report.memory_before = 0;
    for (int v = 0; v < j->imported->n_values; v++)
        j->report.memory_before += j->imported->values[v].data ? (int64_t)j->imported->values[v].bytes : 0;
    return status;
}

static int write_file(job *j, const terse_model *about, terse_error *error)
{
    const int fd = descriptor_of(j->options.output);
    return fd >= 0 ? terse_model_write_fd(fd, j->compressed, about, error)
                   : terse_model_write(j->options.output, j->compressed, about, error);
}

static int with_report(job *j, int (*work)(job *, const terse_model *, terse_error *), terse_error *error)
{
    terse_model about = {.tool = "terse " TERSE_VERSION,
                         .source_sha256 = j->source.source_sha256,
                         .command = j->command,
                         .packed = j->shrunk.packed};
    msgpack_sbuffer packed;
    msgpack_sbuffer_init(&packed);
    /* a plan says what the file's bytes are, and how many: figures of --validate are told, not stored */
    const bool validated = j->report.validated;
    const terse_layers measured = j->report.measured;
    if (j->report.search) {
        j->report.validated = false;
        j->report.measured = (terse_layers){0};
    }
    int status = terse_report_pack(&j->report, &packed, error);
    j->report.validated = validated;
    j->report.measured = measured;
    about.report = packed.data;
    about.report_bytes = packed.size;
    if (status == TERSE_OK)
        status = work(j, &about, error);
    msgpack_sbuffer_destroy(&packed);
    return status;
}

int terse_job_measure(job *j, terse_error *error)
{
    return with_report(j, measure_file, error);
}

/* Packs the report twice: its size is the same, so the first round tells how large the file will be. */
int terse_job_write(job *j, terse_error *error)
{
    terse_job_progress(j, "writing");
    const int status = terse_job_measure(j, error);
    return status == TERSE_OK ? with_report(j, write_file, error) : status;
}
