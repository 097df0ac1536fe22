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
 * A packed file has "packed": true as its first key and tensors with "encoding" and "stored" (expand.h, encoding.h).
 * Unknown keys are ignored. common/README.md has the whole table. */
#ifndef TERSE_COMMON_MODEL_H
#define TERSE_COMMON_MODEL_H

#include "common/encoding.h"
#include "common/graph/graph.h"

enum { TERSE_MODEL_VERSION = 1 };

/* What a tensor takes in a packed file. */
typedef struct terse_model_note {
    const char *encoding; /* "codebook+zstd"; NULL: as it is */
    uint64_t stored;      /* bytes in the file */
} terse_model_note;

/* For the writer: a tensor's bytes in fewer bytes (encoding.h); data NULL: as it is. */
typedef struct terse_model_packed {
    const void *data;
    size_t bytes;
    terse_encoding encoding;
} terse_model_packed;

typedef struct terse_model {
    terse_graph *graph;
    const char *tool, *source_sha256, *command; /* provenance, "" when absent; in the graph's arena */
    const void *report;                         /* the msgpack bytes of "report", NULL when absent */
    size_t report_bytes;
    terse_model_note *notes;          /* per value, in the graph's arena; NULL: the file was not packed */
    const terse_model_packed *packed; /* written in the place of the values' bytes; NULL: none (readers leave it so) */
    const void *base;                 /* the file's bytes, expanded */
    size_t size;
    bool mapped; /* base is ours to unmap */
} terse_model;

enum {
    TERSE_MODEL_CHECK_SECTIONS = 1, /* XXH3 of every tensor */
    TERSE_MODEL_CHECK_SHA256 = 2,   /* SHA-256 of the whole file */
};

/* model_open.c: maps (a packed one: expands) and checks a file: magic, version, sizes, the header's XXH3, every offset,
 * length, shape and reference. */
int terse_model_open(const char *path, unsigned checks, terse_model **ret_model, terse_error *error);
/* The same over bytes that the caller keeps (a sealed memfd's mapping) and that are not packed (expand.h). `name` is
 * for messages. */
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
