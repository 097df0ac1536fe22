/* SPDX-License-Identifier: Apache-2.0 */
/* model.h: the .terse file, format version 1: reader, verifier, writer.
 * Runs in: terse, terse-compress (writer), terse-loader, terse-frontend, terse-worker.
 * Ownership: a model owns its mapping (when it opened the file itself) and its graph, whose constants point
 * into the mapping.
 *
 *     0   "TERSEMDL", u32 format version = 1, u32 header bytes H, u64 file bytes, SHA-256 of the file with these
 *         32 bytes zero (24..55), 8 zero bytes (56..63); all little endian
 *     64  msgpack map (H bytes), then its XXH3-64 (8 bytes)
 *     ..  tensor bytes, each 64-byte aligned, with an XXH3-64 of each tensor in the header
 *
 * Header map: "name", "tool", "source_sha256", "command", "batchable", "symbols":[str], "inputs":[tensor index],
 * "outputs":[...], "tensors":[{"name","dtype","shape":[int|symbol],"layout","groups","offset","bytes","xxh3"}],
 * "nodes":[{"op","name","inputs":[index|nil],"outputs":[...],"attrs":{...},"compression"}], "report":{...}.
 * Unknown keys are ignored. common/README.md has the whole table. */
#ifndef TERSE_COMMON_MODEL_H
#define TERSE_COMMON_MODEL_H

#include "common/graph/graph.h"

enum { TERSE_MODEL_VERSION = 1 };

typedef struct terse_model {
    terse_graph *graph;
    const char *tool, *source_sha256, *command; /* provenance, "" when absent; in the graph's arena */
    const void *report;                         /* the msgpack bytes of "report", NULL when absent */
    size_t report_bytes;
    const void *base; /* the file's bytes */
    size_t size;
    bool mapped; /* base is ours to unmap */
} terse_model;

enum {
    TERSE_MODEL_CHECK_SECTIONS = 1, /* XXH3 of every tensor */
    TERSE_MODEL_CHECK_SHA256 = 2,   /* SHA-256 of the whole file */
};

/* Maps and checks a file: magic, version, sizes, the header's XXH3, every offset, length, shape and reference. */
int terse_model_open(const char *path, unsigned checks, terse_model **ret_model, terse_error *error);
/* The same over bytes that the caller keeps (a sealed memfd's mapping). `name` is for messages. */
int terse_model_parse(const void *base, size_t size, const char *name, unsigned checks, terse_model **ret_model,
                      terse_error *error);
void terse_model_close(terse_model *model);
void terse_model_closep(terse_model **model);

/* Maps all pages of a mapped file of at most 256 MiB at once: a first run then takes no fault for each 64 KiB of it. A
 * hint: where the kernel does not do it, the faults come as they always do. */
void terse_model_prefault(const terse_model *model);
/* Writes graph and provenance atomically (base, size, mapped of `about` are ignored; graph is `graph`). */
int terse_model_write_fd(int fd, const terse_graph *graph, const terse_model *about,
                         terse_error *error); /* not atomic */
int terse_model_write(const char *path, const terse_graph *graph, const terse_model *about, terse_error *error);

#endif
