/* SPDX-License-Identifier: Apache-2.0 */
/* import.h: from an ONNX file to a terse_graph in the canonical form of common/ops/README.md.
 * Runs in: terse-compress (and the tests). Ownership: the caller owns the graph and the report.
 *
 * The way: parse.c (bytes to protobuf-c's structs, bounded) -> build.c (values, nodes) with tensor.c (constants,
 * external data), attributes.c (what each operator may carry) and canonical.c (older forms to the newest) ->
 * clean.c -> infer.c and fold.c in turn -> signature.c -> batchable.c. */
#ifndef TERSE_ONNX_IMPORT_H
#define TERSE_ONNX_IMPORT_H

#include "common/graph/graph.h"

/* One-line texts, each listed once; at most TERSE_ONNX_MAX_LINES are kept, n_all counts all different kept and dropped.
 */
enum { TERSE_ONNX_MAX_LINES = 200 };
typedef struct terse_onnx_lines {
    char **lines;
    int n, n_all;
} terse_onnx_lines;

/* What is to be told about an import, filled on success and on failure alike. */
typedef struct terse_onnx_report {
    char source_sha256[65]; /* of the .onnx file's bytes, "" when it could not be read */
    char producer[128];     /* "pytorch 2.1", printable; "" when not stated */
    int64_t ir_version, opset;
    uint64_t file_bytes;
    /* Everything that terse does not support in this file: "op 'Foo' (node 'n3', opset 13) is not supported". */
    terse_onnx_lines unsupported;
    terse_onnx_lines warnings; /* a declared output shape that is wrong, and the like */
} terse_onnx_report;

void terse_onnx_report_done(terse_onnx_report *report); /* accepts a zeroed one */

/* Reads and imports `path`. External data must lie in the file's own directory or below. `report` is overwritten
 * (not freed) and must be released with terse_onnx_report_done() whatever is returned.
 * The graph is sorted and pruned, constants folded, every value that could be inferred has dtype, rank and dims (a
 * dimension that is not fixed is the input symbol that it always equals, else a symbol "dim_K" shared with the
 * dimensions that moved alike under all bindings that were tried), outputs are stated and `batchable` is decided. Fails
 * with INVALID_ARGUMENT (not a valid model), UNIMPLEMENTED (report->unsupported has every reason, the message sums them
 * up), RESOURCE_EXHAUSTED, SYSTEM. */
int terse_onnx_import(const char *path, terse_graph **ret_graph, terse_onnx_report *report, terse_error *error);

/* The same over bytes; `directory` is where external data may lie, NULL refuses external data. */
int terse_onnx_import_bytes(const void *bytes, size_t size, const char *directory, terse_graph **ret_graph,
                            terse_onnx_report *report, terse_error *error);

/* For passes that change a graph; both expect a sorted graph and keep it valid.
 * infer: restates dtype, rank and dims of every value that a node makes, by planning all nodes at several bindings of
 * the symbols. What could not be inferred is left as stated before. `report` may be NULL.
 * fold: evaluates nodes whose inputs are constants, and Shape of fixed dimensions; sets *ret_changed (may be NULL).
 * Prunes. */
int terse_onnx_infer(terse_graph *graph, terse_onnx_report *report, terse_error *error);
int terse_onnx_fold(terse_graph *graph, bool *ret_changed, terse_error *error);
/* Proves (true) or does not that rows along axis 0 are independent; sets graph->batchable. */
int terse_onnx_batchable(terse_graph *graph, terse_error *error);

#endif
