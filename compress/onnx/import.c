/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sodium.h>

/* Provenance: what can be told before anything is known to be good. */
static void read_head(const Onnx__Model *model, terse_onnx_report *report)
{
    report->ir_version = model->has_ir_version ? model->ir_version : 0;
    const char *version = model->producer_version ? model->producer_version : "";
    snprintf(report->producer, sizeof report->producer, "%s%s%s", model->producer_name ? model->producer_name : "",
             *version ? " " : "", version);
    for (char *c = report->producer; *c; c++)
        if (!isprint((unsigned char)*c))
            *c = '?';
}

static void hash_file(const void *bytes, size_t size, terse_onnx_report *report)
{
    unsigned char digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, bytes, size);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(report->source_sha256 + 2 * i, 3, "%02x", digest[i]);
}

/* Folding lets more shapes be inferred, shapes let more be folded and removed. */
static int simplify(terse_onnx_builder *builder, terse_error *error)
{
    terse_graph *graph = builder->graph;
    terse_onnx_report *report = builder->report;
    enum { MAX_ROUNDS = 4 };
    bool changed = true;
    int status = TERSE_OK;
    for (int round = 0; round < MAX_ROUNDS && changed && status == TERSE_OK; round++) {
        const int n_nodes = graph->n_nodes;
        status = terse_onnx_infer_telling(graph, report, &builder->failed, error);
        if (status == TERSE_OK)
            status = terse_onnx_fold(graph, NULL, error);
        if (status == TERSE_OK)
            status = terse_onnx_clean(graph, error);
        changed = graph->n_nodes != n_nodes;
    }
    return status == TERSE_OK && changed ? terse_onnx_infer_telling(graph, report, &builder->failed, error) : status;
}

/* Build, then everything that needs the whole graph. */
static int import_model(terse_onnx_builder *builder, terse_error *error)
{
    terse_graph *graph = builder->graph;
    int status = terse_onnx_build(builder, error);
    if (status == TERSE_OK)
        status = terse_onnx_report_status(builder->report, error);
    if (status == TERSE_OK)
        status = terse_graph_sort(graph, error);
    if (status == TERSE_OK)
        status = terse_onnx_clean(graph, error);
    if (status == TERSE_OK)
        status = terse_onnx_line_up(graph, builder->report, error);
    if (status == TERSE_OK)
        status = simplify(builder, error);
    if (status == TERSE_OK)
        status = terse_onnx_signature_check(builder, error);
    if (status == TERSE_OK)
        status = terse_onnx_report_status(builder->report, error);
    if (status == TERSE_OK)
        status = terse_onnx_batchable(graph, error);
    return status == TERSE_OK ? terse_graph_check(graph, error) : status;
}

int terse_onnx_import_bytes(const void *bytes, size_t size, const char *directory, terse_graph **ret_graph,
                            terse_onnx_report *report, terse_error *error)
{
    *report = (terse_onnx_report){.file_bytes = size};
    terse_onnx_parsed parsed;
    int status = terse_onnx_parse(bytes, size, &parsed, error);
    if (status != TERSE_OK)
        return status;
    hash_file(bytes, size, report);
    read_head(parsed.model, report);
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = terse_graph_new();
    terse_onnx_builder builder = {.parsed = &parsed,
                                  .graph = graph,
                                  .report = report,
                                  .external = {.directory = directory, .directory_fd = -1, .fd = -1}};
    status = graph ? import_model(&builder, error) : terse_onnx_no_memory(error);
    if (status == TERSE_OK) {
        const char *name = parsed.model->graph->name ? parsed.model->graph->name : "";
        graph->name = terse_arena_text(graph->arena, name, strnlen(name, TERSE_MAX_NAME - 1));
        *ret_graph = TERSE_TAKE(graph);
    }
    terse_onnx_builder_done(&builder);
    terse_onnx_parsed_done(&parsed);
    return status;
}

int terse_onnx_import(const char *path, terse_graph **ret_graph, terse_onnx_report *report, terse_error *error)
{
    *report = (terse_onnx_report){0};
    const void *bytes;
    size_t size;
    int status = terse_file_map(path, &bytes, &size, error);
    if (status != TERSE_OK)
        return status;
    const char *slash = strrchr(path, '/');
    TERSE_AUTO(terse_freep)
    char *directory = !slash ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    status = directory ? terse_onnx_import_bytes(bytes, size, directory, ret_graph, report, error)
                       : terse_onnx_no_memory(error);
    if (bytes)
        munmap((void *)(uintptr_t)bytes, size);
    return status == TERSE_OK ? TERSE_OK : terse_error_prefix(error, "model '%.200s'", path);
}
